import CalibModel
import HubCore
import TestSupport
import Testing

/// The one test of designs whose units keep their arm.
struct DifferenceInDifferencesTests {
    /// About normal: twelve uniforms.
    private static func normal(_ random: inout SeededRandom) -> Double {
        (0..<12).reduce(-6) { sum, _ in sum + Double.random(in: 0..<1, using: &random) }
    }

    private static func sums(slip: Double) -> BlockSums {
        var sums = BlockSums()
        sums.fills = 1000
        sums.slip = Int128((slip * 1e6).rounded()) * 1000
        return sums
    }

    /// Symbols whose levels differ by far more than any effect, and that drift by 0.1 bps.
    private static func units(
        _ random: inout SeededRandom, symbols: Int = 20, onB: Int = 10, effect: Double = 0
    ) -> [DifferenceInDifferences.Unit] {
        (0..<symbols).map { index in
            let level = 5 * normal(&random)
            let change = 0.1 * normal(&random) + (index < onB ? effect : 0)
            return .init(symbol: "S\(index)", arm: index < onB ? .b : .a, before: sums(slip: level), during: sums(slip: level + change))
        }
    }

    private static var gate: Gate { Gate.all[0] }

    /// Symbols that differ more than the treatment do not look like a treatment: at 1.25 %, 10 of 800 equal experiments.
    @Test(arguments: [(20, 10), (20, 5)])
    func fault14_equalArmsOfUnlikeSymbolsFailAtTheStatedRate(symbols: Int, onB: Int) {
        var random = SeededRandom(seed: 14)
        let failed = (0..<800).count { _ in
            Self.gate.fixedHorizonState(Self.units(&random, symbols: symbols, onB: onB)) == .violated
        }
        // Binomial: standard deviation 3.1; with five symbols on an arm the rate is 1.5 %.
        #expect(failed > 1 && failed < 24, "\(failed)")
    }

    @Test func harmIsFound_andItsAbsenceToo() {
        var random = SeededRandom(seed: 3)
        #expect(Self.gate.fixedHorizonState(Self.units(&random, effect: 0.5)) == .violated)
        #expect(Self.gate.fixedHorizonState(Self.units(&random, effect: -0.5)) == .clear)
        // Within the margin, and no harm to be seen: nothing is known.
        #expect(Self.gate.fixedHorizonState(Self.units(&random, effect: 0.03)) == .undecided)
    }

    @Test(arguments: [(19, 9), (20, 4), (20, 16), (20, 0), (0, 0)])
    func fewSymbolsSayNothing(symbols: Int, onB: Int) {
        var random = SeededRandom(seed: 4)
        #expect(Self.gate.fixedHorizonState(Self.units(&random, symbols: symbols, onB: onB, effect: 50)) == .noData)
    }

    @Test func aSymbolWithoutAPastIsLeftOut() throws {
        var random = SeededRandom(seed: 5)
        var units = Self.units(&random, symbols: 21)
        units[20].before = BlockSums()
        #expect(try #require(DifferenceInDifferences(.slippage, units)).symbols == 20)
        units[19].during.fills = 0
        #expect(DifferenceInDifferences(.slippage, units) == nil)
    }

    /// Scipy's: ttest_ind(equal_var=False) of 15 changes 0.0, 0.1 ... 1.4 against 5 of 1, 2, 4, 8, 16.
    @Test func symbolsOfTheArmsAreWelchs() throws {
        let changes = (0..<15).map { (Double($0) / 10, Arm.a) } + [1.0, 2, 4, 8, 16].map { ($0, Arm.b) }
        let units = changes.enumerated().map { index, change in
            DifferenceInDifferences.Unit(
                symbol: "S\(index)", arm: change.1, before: Self.sums(slip: 1), during: Self.sums(slip: 1 + change.0))
        }
        let test = try #require(DifferenceInDifferences(.slippage, units))
        #expect(abs(test.estimate - 5.5) < 1e-9 && abs(test.degrees - 4.01434608061297) < 1e-9)
        #expect(
            abs(test.interval(alpha: 0.025).lowerBound - -2.0692443162951095) < 1e-9
                && abs(test.interval(alpha: 0.025).upperBound - 13.069244316295109) < 1e-9)
        #expect(DifferenceInDifferences(.slippage, units.reversed()) == test)
    }

    /// Hosts of one symbol are no independent symbols: what the symbol does on all of them is taken out, and counts once.
    @Test func hostsOfASymbolAreOneObservation() throws {
        var random = SeededRandom(seed: 6)
        let units = (0..<20).flatMap { index in
            let drift = 30 * Self.normal(&random)
            return (0..<4).map { host in
                DifferenceInDifferences.Unit(
                    symbol: "S\(index)", arm: host < 2 ? .b : .a, before: Self.sums(slip: 1),
                    during: Self.sums(slip: 1 + drift + (host < 2 ? 0.2 : 0) + 0.01 * Self.normal(&random)))
            }
        }
        let test = try #require(DifferenceInDifferences(.slippage, units))
        #expect(test.symbols == 20 && test.degrees == 19)
        #expect(abs(test.estimate - 0.2) < 0.02 && test.standardError < 0.01)
        #expect(Self.gate.fixedHorizonState(units) == .violated)
        #expect(Self.gate.fixedHorizonState(units.filter { $0.symbol != "S0" }) == .noData)
    }

    @Test func everyNullOfAGateMustFall() {
        var random = SeededRandom(seed: 7)
        // p95 1 us slower of 20: beyond 3 %, within 2 us.
        let units = (0..<20).map { index in
            var (before, during) = (BlockSums(), BlockSums())
            let base = 20_000 + Int64(random.next(below: 4000))
            before.histogram = [(Int32(LatencyBuckets.index(of: base)), 1000)]
            during.histogram = [(Int32(LatencyBuckets.index(of: base + (index < 10 ? 1500 : 0))), 1000)]
            return DifferenceInDifferences.Unit(symbol: "S\(index)", arm: index < 10 ? .b : .a, before: before, during: during)
        }
        let latency = Gate.all[2]
        #expect(DifferenceInDifferences(.logLatency, units).map { $0.interval(alpha: latency.alpha).lowerBound > 0.03 } == true)
        #expect(latency.fixedHorizonState(units) != .violated)
    }
}
