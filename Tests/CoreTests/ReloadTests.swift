import CalibModel
import Testing

@testable import EdgeCore

/// Other parameters while the node runs (SPEC 9.1): what follows them, and what does not notice.
@Suite struct ReloadTests {
    /// As the shell does it: the baseline, then the plan in force under its new hash.
    private func reload(_ it: QuoteBench, hash: UInt64 = 9, _ change: (inout Parameters) -> Void) {
        var baseline = it.node.shared.parameters
        change(&baseline)
        it.node.adopt(baseline: baseline, at: it.now)
        _ = it.node.apply(.baseline(.none, configHash: hash, symbols: it.node.symbolCount), at: it.now)
        it.drain()
    }

    private struct Seen: Equatable {
        var orders: [Int64?]
        var ahead: [Int64]
        var features: [Int64?]
        var position: Int64
    }

    private func look(_ it: QuoteBench) -> Seen {
        it.node.withSymbol(0) { symbol in
            Seen(
                orders: [symbol.bidSide.resting?.id, symbol.askSide.resting?.id],
                ahead: [symbol.bidSide.queue.ahead, symbol.askSide.queue.ahead],
                features: Feature.allCases.map { symbol.feature($0) }, position: symbol.positionLots)
        }
    }

    @Test func ordersPlacesAndAveragesStay_theNextTickFollows() {
        let it = QuoteBench()
        it.quoting()
        for step in 0..<8 { it.move(bids: "", asks: step.isMultiple(of: 2) ? "[\"100.2\",\"3\"]" : "[\"100.2\",\"4\"]", after: 500) }
        it.trade("100.0", "2", sells: true)
        let before = look(it)
        #expect(before.orders.allSatisfy { $0 != nil } && before.ahead[0] == 3_000 && before.features.contains { $0 != nil })
        reload(it) {
            $0.spread.base = BasisPoints(40)!
            $0.spread.maximum = BasisPoints(60)!
            $0.emaAlpha = 0.5
        }
        #expect(look(it) == before, "between two ticks nothing moves")
        #expect(it.kinds(.config).map { $0.armFields?.configHash } == [9] && it.arm().configHash == 9 && it.kinds(.armChange).count == 1)
        it.tick(after: 10)
        #expect(it.intended().buy! <= 998 && it.intended().sell! >= 1_004, "40 bps wide: \(it.intended())")
        it.advance(10)
        #expect(
            it.quotes.allSatisfy { $0.armFields.configHash == 1 } && it.quotes.count == 2, "an order's row says under what it was quoted")
        #expect(it.ticks.last?.armFields.configHash == 9)
    }

    /// How many rows ticks get follows at once, in both directions, and weights go on summing up to the ticks.
    @Test func theSampleRateAndTheBudgetOfTickRowsFollow() {
        let it = QuoteBench()
        it.quoting()
        func rows(ticks: Int, each milliseconds: Int64 = 1) -> [Int64] {
            let before = it.ticks.count
            for _ in 0..<ticks { it.tick(after: milliseconds) }
            return it.ticks[before...].map(\.weight)
        }
        it.advance(1_000)
        #expect(rows(ticks: 60) == [Int64](repeating: 1, count: 60))
        reload(it) { $0.tickSampleRate = 5 }
        #expect(rows(ticks: 60) == [Int64](repeating: 5, count: 12))
        reload(it) {
            $0.tickSampleRate = 1
            $0.tickRowsPerSecondMax = 8
        }
        it.advance(2_000)
        let few = rows(ticks: 600)
        #expect((1...4).contains(few.count) && few.reduce(0, +) <= 600, "half of eight rows a second: \(few)")
        reload(it) { $0.tickRowsPerSecondMax = 1_000 }
        it.advance(2_000)
        let many = rows(ticks: 60)
        #expect(many.count == 60 && it.ticks.reduce(0) { $0 + $1.weight } == it.ticks(), "\(many)")
    }

    @Test func sameParametersAreNoEvent() {
        let it = QuoteBench()
        it.quoting()
        reload(it, hash: 1) { _ in }
        #expect(it.kinds(.config).isEmpty && it.kinds(.armChange).isEmpty && it.open() == 2)
    }

    @Test func hardLimitsOnlyGetNarrower() {
        let it = QuoteBench {
            $0.orderQuantity = 2_000_000
            $0.limits.orderQuantity = 2_000_000
            $0.limits.position = 3_000_000
        }
        it.quoting()
        reload(it) {
            $0.orderQuantity = 90_000_000
            $0.limits = Parameters.Limits()
            $0.limits.orderQuantity = 1_000_000
            $0.limits.position = .max / 4
            $0.limits.dailyLossHost = 1
        }
        let limits = it.node.shared.parameters.limits
        #expect(limits.orderQuantity == 1_000_000 && limits.position == 3_000_000 && limits.dailyLossHost == 1)
        it.tick(after: 10)
        it.advance(10)
        it.trade("99.9", "100", sells: true)
        #expect(it.fills.map(\.quantity) == [10], "the narrower order limit holds, whatever the order size became")
        #expect(Set(Parameters.Limits().widened(beyond: limits)) == ["limits.order_qty", "limits.position", "limits.daily_loss_host"])
        var wide = limits
        wide.position += 1
        wide.priceCollar = BasisPoints(101)!
        wide.notional += 1
        #expect(Set(wide.widened(beyond: limits)) == ["limits.position", "limits.price_collar_bps", "limits.order_notional"])
        #expect(limits.widened(beyond: limits).isEmpty)
    }

    @Test func whatIsOpenAboveANarrowerLimitIsPulled() {
        let it = QuoteBench(symbols: 2)
        it.quoting(symbols: 2)
        reload(it) { $0.limits.openOrdersHost = 3 }
        #expect((0...1).allSatisfy { it.intended($0) == (nil, nil) }, "cancels are on their way")
        it.advance(10)
        #expect(it.node.shared.openOrders == 0)
        for symbol in 0...1 { it.tick(symbol, after: 5) }
        it.advance(10)
        #expect(it.node.shared.openOrders == 3)
        reload(it, hash: 10) { $0.limits.openOrdersSymbol = 1 }
        for symbol in 0...1 { it.tick(symbol, after: 1) }
        #expect(it.intended(0) == (nil, nil), "nothing new before the old ones are gone")
        #expect((it.intended(1).buy == nil) != (it.intended(1).sell == nil), "what is within the limit stays")
        it.advance(10)
        for symbol in 0...1 { it.tick(symbol, after: 5) }
        it.advance(10)
        #expect(it.open(0) == 1 && it.open(1) == 1)
    }

    /// An experiment goes on: its arms, its reason, a new hash; B is what the candidate makes of the new baseline.
    @Test func theCandidateFollowsTheBaseline() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b]) { $0.spread.base = BasisPoints(20)! }
        it.advance(10)
        it.tick(after: 5)
        it.advance(10)
        var baseline = it.node.shared.parameters
        baseline.paperLatencyNanoseconds = 1_000_000
        baseline.spread.maximum = BasisPoints(90)!
        it.node.adopt(baseline: baseline, at: it.now)
        _ = it.apply([.b], hash: 3) { $0.spread.base = BasisPoints(60)! }
        it.advance(10)
        #expect(it.arm().arm == .b && it.arm().why == .schedule && it.arm().configHash == 3)
        it.tick(after: 5)
        it.advance(1)
        #expect(it.open() == 2 && it.node.withSymbol(0) { $0.bidSide.resting?.armFields.configHash } == 3, "1 ms of latency, B's orders")
        #expect(it.intended().buy! <= 998)
    }

    @Test func theTriggerChanges_toTheIntervalAndBack() {
        let it = QuoteBench()
        it.quoting()
        var ticks = it.ticks()
        reload(it) { $0.trigger = .interval(nanoseconds: 20_000_000) }
        it.tick(after: 1)
        it.advance(99)
        #expect((4...6).contains(it.ticks() - ticks), "each 20 ms, whatever the book does: \(it.ticks() - ticks)")
        ticks = it.ticks()
        reload(it, hash: 10) { $0.trigger = .bookChange }
        it.advance(100)
        #expect(it.ticks() == ticks)
        it.tick()
        #expect(it.ticks() == ticks + 1)
    }

    @Test func theOrderRateKeepsWhatWasLeft() {
        var rate = OrderRate(perSecond: 10, burst: 3)
        let at = Instant(nanoseconds: 0)
        let first = rate.take(at: at)
        rate.adopt(perSecond: 100, burst: 50)
        let left = (0..<5).map { _ in rate.take(at: at) }
        #expect(first && left == [true, true, false, false, false], "no gift of a new burst")
        rate.adopt(perSecond: 1, burst: 1)
        let later = rate.take(at: Instant(nanoseconds: 1_000_000_000))
        #expect(later)
    }
}
