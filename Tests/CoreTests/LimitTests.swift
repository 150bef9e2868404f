import CalibModel
import Testing

@testable import EdgeCore

/// The hard limits (SPEC 10.2), each with a case just below and one that fires, and none that an arm can widen.
@Suite struct LimitTests {
    // MARK: Open orders

    @Test(arguments: [(1, 1), (2, 2), (3, 2)] as [(Int64, Int64)])
    func openOrdersOfASymbol(limit: Int64, expected: Int64) {
        let it = QuoteBench { $0.limits.openOrdersSymbol = limit }
        it.prove()
        for _ in 0..<20 {
            it.tick(after: 3)
            #expect(it.open() == expected)
        }
        #expect(it.node.shared.openOrders == expected)
    }

    @Test(arguments: [(1, [1, 0]), (2, [2, 0]), (3, [2, 1]), (4, [2, 2])] as [(Int64, [Int64])])
    func openOrdersOfTheHost(limit: Int64, expected: [Int64]) {
        let it = QuoteBench(symbols: 2) { $0.limits.openOrdersHost = limit }
        for symbol in 0...1 { it.prove(symbol) }
        for _ in 0..<10 { for symbol in 0...1 { it.tick(symbol, after: 3) } }
        #expect([it.open(0), it.open(1)] == expected && it.node.shared.openOrders == min(4, limit))
        _ = it.node.kill(0, at: it.now)
        it.advance(5)
        it.tick(1)
        #expect(it.open(1) == min(2, limit) && it.node.shared.openOrders == min(2, limit), "what one gave back the other may open")
    }

    /// The count must follow every way an order ends: fill, cancel, replace, rejection, the end of the run.
    @Test func theCountOfOpenOrdersReturnsToNothing() {
        let it = QuoteBench()
        it.quoting()
        it.trade("99.9", "100", sells: true)
        #expect(it.fills.count == 1 && it.open() == 1 && it.node.shared.openOrders == 1)
        it.tick()
        it.move(bids: "[\"100.0\",\"0\"]", asks: "[\"100.2\",\"0\"]", after: 10)
        it.advance(10)
        #expect(it.open() == 2)
        // An order that would cross on arrival is refused: the ask falls while the bid is on its way.
        _ = it.node.cancelAll(at: it.now)
        it.advance(10)
        it.tick()
        it.move(bids: "[\"99.0\",\"0\"],[\"90.0\",\"1\"]", asks: "[\"90.2\",\"1\"]", after: 1)
        it.advance(10)
        #expect(it.node.withSymbol(0) { $0.counts.postOnlyRejections } > 0)
        #expect(it.open() == it.node.shared.openOrders && it.open() <= 2)
        let done = it.node.finish()
        #expect(done && it.node.shared.openOrders == 0)
    }

    // MARK: Daily loss

    /// Long 0.01 at 100.0, then the mid falls to 90.1: 0.1 lost on the position (mid 90.1 - 100.0 = -9.9, 0.099) and 0.0002 of fees.
    private func lose(_ it: QuoteBench, symbol: Int = 0) {
        it.trade("99.9", "100", sells: true, of: symbol)
        it.move(symbol, bids: "[\"100.0\",\"0\"],[\"99.0\",\"0\"],[\"90.0\",\"1\"]", asks: "[\"90.2\",\"1\"]", after: 1)
        it.advance(1_000)
    }

    static let lost: Int64 = 9_900_000 + 20_000

    @Test func aLossBelowTheLimitQuotesOn() {
        let it = QuoteBench {
            $0.limits.dailyLossSymbol = Self.lost + 1
            $0.limits.dailyLossHost = Self.lost + 1
        }
        it.quoting()
        lose(it)
        #expect(it.node.withSymbol(0) { $0.loss.change } == -Int128(Self.lost))
        it.tick(after: 2_100)
        #expect(it.kinds(.halt).allSatisfy { $0.first < Int64(HaltCause.dailyLossSymbol.rawValue) } && it.intended().sell != nil)
    }

    /// As `quoting`, for a node that may not quote.
    private func begin(_ it: QuoteBench, symbols: Int = 1) {
        for symbol in 0..<symbols {
            it.prove(symbol)
            it.tick(symbol, after: 10)
        }
        it.advance(10)
    }

    /// What one run lost, the next run of the same day has lost, too: for both limits, the last hundredth decides.
    @Test(arguments: [HaltCause.dailyLossSymbol, .dailyLossHost], [1, 2] as [Int64])
    func aLossCountsOnAfterARestart(cause: HaltCause, times: Int64) throws {
        func bench() -> QuoteBench {
            QuoteBench(symbols: 2) {
                // Reached by the second loss; with one to spare, by the third.
                let limit = Self.lost * times + (times == 2 ? 1 : 0)
                if cause == .dailyLossSymbol { $0.limits.dailyLossSymbol = limit } else { $0.limits.dailyLossHost = limit }
                $0.guards.volatility = Parameters.Threshold(soft: 1e9, hard: 1e9)
            }
        }
        let first = bench()
        first.quoting(symbols: 2)
        lose(first)
        let result = first.node.dayResult
        let left = try #require(result)
        #expect(left.host.change == -Self.lost && left.symbols["S0"]?.change == -Self.lost && left.symbols["S1"]?.change == 0)
        let isHalted = times == 1
        #expect((cause == .dailyLossHost ? left.host : left.symbols["S0"])?.isHalted == isHalted)

        // The process ends; its position with it, and the day goes on.
        let second = bench()
        second.node.resume(try DayResult(json: left.json), at: second.now)
        begin(second, symbols: 2)
        #expect(
            (second.intended(0) == (nil, nil)) == isHalted && (second.intended(1) == (nil, nil)) == (isHalted && cause == .dailyLossHost))
        guard !isHalted else { return }
        lose(second)
        #expect(second.node.dayResult?.host.change == -2 * Self.lost && second.intended(0) != (nil, nil), "one below the limit")
        let third = bench()
        third.node.resume(second.node.dayResult!, at: third.now)
        third.quoting(symbols: 2)
        lose(third)
        #expect(third.kinds(.halt).map(\.first) == [Int64(cause.rawValue)] && third.intended(0) == (nil, nil))
    }

    @Test func yesterdaysLossIsNoneOfToday_andTomorrowsHolds() throws {
        let today = CalendarDay(containing: WallTime(nanoseconds: QuoteBench.start * 1_000_000))
        for (shift, isHalted) in [(-1, false), (0, true), (1, true)] as [(Int64, Bool)] {
            let it = QuoteBench()
            it.node.resume(
                DayResult(day: CalendarDay(number: today.number + shift), host: .init(change: -5, isHalted: true), symbols: [:]), at: it.now
            )
            begin(it)
            #expect((it.intended() == (nil, nil)) == isHalted, "\(shift)")
        }
        // Midnight lifts it like any other.
        let it = QuoteBench()
        it.node.resume(.unknown(on: today), at: it.now)
        begin(it)
        #expect(it.intended() == (nil, nil))
        it.clock = 1_735_776_000_500
        it.node.advance(to: it.now)
        it.drain()
        it.tick(0)
        #expect(it.intended().sell != nil && it.node.dayResult?.host == .init())
    }

    @Test(arguments: [HaltCause.dailyLossSymbol, .dailyLossHost])
    func aLossThatReachesTheLimitHaltsUntilMidnight(cause: HaltCause) {
        let it = QuoteBench(symbols: 2) {
            if cause == .dailyLossSymbol { $0.limits.dailyLossSymbol = Self.lost } else { $0.limits.dailyLossHost = Self.lost }
            $0.guards.volatility = Parameters.Threshold(soft: 1e9, hard: 1e9)
        }
        it.quoting(symbols: 2)
        it.trade("99.9", "100", sells: true)
        it.tick(0)
        it.advance(10)
        #expect(it.open(0) == 2)
        lose(it)
        let halts = it.kinds(.halt)
        let midnight: Int64 = 1_735_776_000_000
        #expect(halts.count == 1 && halts[0].first == Int64(cause.rawValue))
        #expect(halts[0].symbol == (cause == .dailyLossSymbol ? 0 : nil))
        #expect(halts[0].wall.milliseconds + halts[0].second == midnight)
        #expect(it.intended(0) == (nil, nil), "cancelled by the breach, not by the next tick")
        #expect((it.intended(1) == (nil, nil)) == (cause == .dailyLossHost))
        // Winning it back does not lift it: the market returns to 100.0 / 100.2.
        it.move(0, bids: "[\"100.0\",\"5\"]", asks: "[\"90.2\",\"0\"]", after: 1)
        it.advance(1_000)
        it.tick(0)
        it.tick(1)
        #expect(it.node.withSymbol(0) { $0.loss.change } > -Int128(Self.lost))
        #expect(it.intended(0) == (nil, nil) && it.ticks.last { $0.symbol == 0 }?.isHalted == true)
        // Midnight, and the new day starts at nothing.
        it.clock = midnight + 500
        it.node.advance(to: it.now)
        it.drain()
        it.tick(0)
        it.tick(1)
        #expect(it.intended(0).sell != nil && it.intended(1).sell != nil && it.kinds(.halt).count == 1)
        #expect(it.node.withSymbol(0) { $0.loss.change } == 0)
    }

    /// Two symbols that lose half each reach the host's limit, not their own; over midnight yesterday's losses of the one that is late
    /// must not halt the new day.
    @Test func theHostsLossIsTheSum_ofOneDay() {
        let it = QuoteBench(symbols: 2) {
            $0.limits.dailyLossSymbol = Self.lost + 1
            $0.limits.dailyLossHost = 2 * Self.lost
            $0.guards.volatility = Parameters.Threshold(soft: 1e9, hard: 1e9)
        }
        it.quoting(symbols: 2)
        lose(it, symbol: 0)
        #expect(it.kinds(.halt).isEmpty)
        lose(it, symbol: 1)
        #expect(it.kinds(.halt).map(\.first) == [Int64(HaltCause.dailyLossHost.rawValue)])
        #expect(it.intended(0) == (nil, nil) && it.intended(1) == (nil, nil))
        it.clock = 1_735_776_000_000
        it.tick(0, after: 5)
        it.tick(1, after: 2_000)
        it.tick(0)
        #expect(it.kinds(.halt).count == 1 && it.intended(0).sell != nil && it.intended(1).sell != nil)
    }

    // MARK: No arm widens them

    @Test func aCandidateCannotExceedTheBaselinesLimits() {
        let it = QuoteBench {
            $0.orderQuantity = 1_000_000
            $0.limits.orderQuantity = 2_000_000
            $0.limits.position = 3_000_000
            $0.limits.dailyLossSymbol = 1_000_000
        }
        it.quoting()
        _ = it.apply([.b]) {
            $0.orderQuantity = 900_000_000
            $0.maxPosition = 90_000_000_000
            $0.limits.orderQuantity = .max / 4
            $0.limits.position = .max / 4
            $0.limits.notional = .max / 4
            $0.limits.priceCollar = BasisPoints(9_999)!
            $0.limits.openOrdersSymbol = 1000
            $0.limits.dailyLossSymbol = .max / 4
            $0.paperLatencyNanoseconds = 0
            $0.makerFee = BasisPoints(-50)!
        }
        it.advance(5)
        it.tick()
        it.advance(6)
        it.trade("99.9", "100", sells: true)
        #expect(it.fills.map(\.quantity) == [20] && it.fills[0].armFields.arm == .b && it.fills[0].fee == BasisPoints(2))
        it.tick(after: 10)
        it.advance(6)
        it.trade("99.9", "100", sells: true)
        #expect(it.position() == 30, "what is left of the position limit")
        it.tick(after: 10)
        #expect(it.intended().buy == nil && it.intended().sell != nil)
        it.move(bids: "[\"100.0\",\"0\"],[\"99.0\",\"0\"],[\"90.0\",\"1\"]", asks: "[\"90.2\",\"1\"]", after: 1)
        it.advance(1_000)
        #expect(it.kinds(.halt).contains { $0.first == Int64(HaltCause.dailyLossSymbol.rawValue) })
    }

    // MARK: Halts say why

    @Test func aHaltNamesItsGuard() {
        let it = QuoteBench { $0.guards.volatility = Parameters.Threshold(soft: 0.1, hard: 1) }
        it.quoting()
        for step in 0..<5 {
            let asks = step.isMultiple(of: 2) ? "[\"100.2\",\"0\"]" : "[\"100.2\",\"4\"]"
            it.move(bids: "", asks: asks, after: 1_000)
        }
        #expect(it.kinds(.halt).first?.first == Int64(HaltCause.volatility.rawValue) && it.kinds(.halt).first?.second == 2_000)
    }
}
