import CalibModel
import EdgeCore
import TestSupport
import Testing

/// Idea: drive the sampler with ticks whose number is known, and compare what the rows say with it: per symbol, per kind, per second.
@Suite struct TickSamplingTests {
    private typealias Kind = TickSampling.Kind

    /// A host: its symbols, its budget, and all rows it wrote.
    private struct Host {
        struct Row {
            var symbol: Int
            var kind: Kind
            var second: Int64
            var weight: Int64
        }
        var symbols: [TickSampling]
        var budget: TickBudget
        var rows: [Row] = []
        var ticks: [[Int64]]

        init(symbols: Int, rowsPerSecond: Int64, sampleRate: Int64 = 10) {
            self.symbols = .init(repeating: TickSampling(), count: symbols)
            budget = TickBudget(rowsPerSecond: rowsPerSecond, sampleRate: sampleRate, symbols: symbols)
            ticks = .init(repeating: [0, 0, 0, 0], count: symbols)
        }

        mutating func tick(_ symbol: Int, _ kind: Kind, at nanoseconds: Int64) {
            let now = Instant(nanoseconds: nanoseconds)
            let isDue = symbols[symbol].isDue(kind, at: now, &budget)
            let weight = symbols[symbol].count(kind, at: now, &budget)
            #expect(isDue == (weight != nil), "what was announced happens")
            ticks[symbol][kind.rawValue] += 1
            if let weight { rows.append(Row(symbol: symbol, kind: kind, second: nanoseconds / 1_000_000_000, weight: weight)) }
        }

        func weights(_ symbol: Int, _ kind: Kind) -> Int64 {
            rows.reduce(0) { $0 + ($1.symbol == symbol && $1.kind == kind ? $1.weight : 0) }
        }

        /// No tick is counted twice and none is forgotten: it is in a row, or waits for one.
        func checkCounts() {
            for symbol in symbols.indices {
                for kind in Kind.allCases {
                    let waiting = symbols[symbol].waiting(kind)
                    #expect(weights(symbol, kind) + waiting == ticks[symbol][kind.rawValue], "symbol \(symbol), \(kind)")
                }
            }
        }

        func checkBudget(_ rowsPerSecond: Int) {
            for (second, rows) in Dictionary(grouping: rows, by: \.second) {
                let special = rows.count { $0.kind == .missed || $0.kind == .halted }
                #expect(special <= rowsPerSecond / 2 && rows.count - special <= rowsPerSecond / 2, "second \(second)")
            }
        }
    }

    @Test func quietHost_everyTenthOrdinaryTick_everyMissAndHaltWithWeightOne() {
        var host = Host(symbols: 3, rowsPerSecond: 1000)
        for tick in 0..<3000 {
            host.tick(tick % 3, tick % 30 < 27 ? .ordinary : tick % 30 == 27 ? .missed : .halted, at: Int64(tick) * 10_000_000)
        }
        #expect(host.rows.allSatisfy { $0.weight == ($0.kind == .ordinary ? 10 : 1) })
        for symbol in 0..<3 {
            #expect(host.symbols[symbol].waiting(.ordinary) == host.ticks[symbol][0] % 10)
            for kind in [Kind.missed, .halted] { #expect(host.weights(symbol, kind) == host.ticks[symbol][kind.rawValue]) }
        }
        host.checkCounts()
    }

    /// Fault 29 of the first implementation: with one counter for all, ten symbols that tick in turn at rate 10 leave one in the log.
    @Test(arguments: [2, 5, 10])
    func symbolsThatTickInTurnAreAllLogged(count: Int) {
        var host = Host(symbols: count, rowsPerSecond: 10_000)
        for tick in 0..<count * 100 { host.tick(tick % count, .ordinary, at: Int64(tick) * 1_000_000) }
        for symbol in 0..<count { #expect(host.rows.count { $0.symbol == symbol } == 10) }
    }

    /// One symbol of ten ticks 50,000 times a second and is always late or halted; the others tick 20 times.
    @Test func busyNeighbourStarvesNobody() {
        var host = Host(symbols: 10, rowsPerSecond: 200)
        for second in 0..<5 as Range<Int64> {
            for tick in 0..<50_000 as Range<Int64> {
                let at = second * 1_000_000_000 + tick * 20_000
                host.tick(0, tick.isMultiple(of: 3) ? .ordinary : tick.isMultiple(of: 2) ? .missed : .halted, at: at)
                guard tick % 2500 == 2499 else { continue }
                for symbol in 1..<10 { for kind in [Kind.ordinary, .halted] { host.tick(symbol, kind, at: at) } }
            }
        }
        host.checkCounts()
        host.checkBudget(200)
        for symbol in 0..<10 {
            for second in 1..<5 as Range<Int64> {
                for kind in [Kind.ordinary, .halted] {
                    #expect(
                        host.rows.contains { $0.symbol == symbol && $0.second == second && $0.kind == kind },
                        "symbol \(symbol), second \(second), \(kind)")
                }
            }
            #expect(host.symbols[symbol].waiting(.ordinary) < 20 || symbol == 0)
        }
        // From the second second on the rows of the busy one are spread over it and alike.
        let busy = host.rows.filter { $0.symbol == 0 && $0.second == 3 && $0.kind == .halted }.map(\.weight)
        #expect(busy.count > 15 && busy.max()! <= 4 * busy.min()!, "\(busy)")
    }

    @Test func overloadThatEnds_isLoggedOneByOneAgainASecondLater() {
        var host = Host(symbols: 1, rowsPerSecond: 100)
        for tick in 0..<10_000 as Range<Int64> { host.tick(0, .halted, at: tick * 100_000) }
        for tick in 0..<30 as Range<Int64> { host.tick(0, .halted, at: 2_000_000_000 + tick * 100_000_000) }
        let later = host.rows.filter { $0.second >= 2 }.map(\.weight)
        #expect(later.count == 30 && later.dropFirst().allSatisfy { $0 == 1 })
        #expect(later[0] >= 1, "what waited goes with the first")
        host.checkCounts()
        host.checkBudget(100)
        #expect(host.symbols[0].waiting(.halted) == 0)
    }

    /// Any load: no row above the budget, no tick lost or counted twice; and the same ticks give the same rows.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func weightsAddUpAndTheBudgetHolds(seed: UInt64) {
        func run() -> Host {
            var random = SeededRandom(seed: seed)
            let symbols = 1 + random.next(below: 12)
            let rows = Int64(8 * symbols + random.next(below: 400))
            var host = Host(symbols: symbols, rowsPerSecond: rows, sampleRate: Int64(1 + random.next(below: 20)))
            var at: Int64 = -3_000_000_000
            for _ in 0..<20_000 {
                // Bursts, ordinary seconds, pauses, and a clock that goes back a little.
                let jump = random.next(below: 2000)
                at +=
                    jump == 0
                    ? 3_000_000_000 : jump == 1 ? -50_000_000 : Int64(random.next(below: seed.isMultiple(of: 2) ? 20_000 : 900_000))
                host.tick(random.next(below: symbols), Kind.allCases[random.next(below: 4)], at: at)
            }
            host.checkCounts()
            return host
        }
        let host = run()
        // Rows of a second of the budget's: a clock that went back stays in the second it was in.
        let again = run()
        #expect(host.rows.map(\.weight) == again.rows.map(\.weight))
    }

    @Test(arguments: [(1, 100), (7, 200), (500, 10_000)])
    func neverMoreRowsThanTheBudget(symbols: Int, rowsPerSecond: Int) {
        var host = Host(symbols: symbols, rowsPerSecond: Int64(rowsPerSecond))
        var random = SeededRandom(seed: 5)
        for tick in 0..<100_000 as Range<Int64> {
            // 50,000 a second for one, then a tenth of it.
            let at = tick < 50_000 ? tick * 20_000 : 1_000_000_000 + (tick - 50_000) * 200_000
            host.tick(random.next(below: symbols), Kind.allCases[random.next(below: 4)], at: at)
        }
        host.checkBudget(rowsPerSecond)
        host.checkCounts()
        #expect(host.rows.count > rowsPerSecond / 2, "the budget is used")
    }

    @Test func ordersThatFilledAreAllLogged_theOthersEachTenth() {
        var sampling = QuoteSampling()
        var filled = 0
        var weights: Int64 = 0
        for order in 0..<1000 {
            let hasFilled = order % 7 == 0
            let weight = sampling.count(hasFilled: hasFilled, sampleRate: 10)
            if hasFilled {
                #expect(weight == 1)
                filled += 1
            } else if let weight {
                #expect(weight == 10)
                weights += weight
            }
        }
        #expect(filled == 143 && weights == 850, "857 were not filled, 7 of them wait")
    }
}
