import CalibModel
import HubCore
import Simulation
import TestSupport
import Testing

// The faults of the first implementation that concern experiments, by the numbers of its review: none may come back.
//
//    9 "+10 %" coded as 0.1 ms            -> fault9_...
//   10 "10 minutes" = any five looks      -> fault10_...                      (and PairLedgerTests.fault10...)
//   11 threshold 0 on a noisy mean        -> fault11_...                      (and `calib-lab ab --scenario aa`)
//   12 an empty arm was 0                 -> fault12_...                      (and PairLedgerTests.fault12...)
//   13 routing by a process's own seed    -> SwitchbackTests.fault13_...
//   14 symbols confounded with arms       -> SwitchbackTests.fault14_..., DifferenceInDifferencesTests.fault14_...
//   15 means of ratios                    -> fault15_...
//   16 the baseline took former B's ticks -> fault16_..., PairLedgerTests.fault16_...
//   17 dry compared A with A              -> PairLedgerTests.fault17_...
//   18 no gate on losses, silence passed  -> fault18_...
//   19 unsigned costs                     -> fault19_...
//   20 markouts at the fill               -> PairLedgerTests.fault20_...
//   22 three different p95                -> fault22_...
//   28 the worst intervals were dropped   -> PairLedgerTests.fault28_...
//   29 sampled ticks decided              -> fault29_...
//   64 a look cost as much as its history -> fault64_...
//
// And the gates' own rules.
struct GateTests {
    // MARK: Making rows

    private static func sums(
        fills: Int64 = 20, slip: Double = 0, takers: Int64 = 2, ticks: Int64 = 400, misses: Int64 = 4, net: Double = 0.3,
        milliseconds: Int64 = 100
    ) -> BlockSums {
        var sums = BlockSums()
        sums.ticks = ticks
        sums.misses = misses
        sums.fills = fills
        sums.takerFills = min(takers, fills)
        sums.slip = Int128(slip * 1e6) * Int128(fills)
        sums.fillNotional = Int128(fills) * 100_000_000_000
        sums.slipNotional = Int128(slip * 1e6) * sums.fillNotional
        sums.markoutNotional = sums.fillNotional
        sums.netNotional = Int128(net * 1e6) * sums.markoutNotional
        sums.squaredReturn = 300_000_000_000
        sums.returns = 300
        if ticks > 0 { sums.histogram = [(Int32(LatencyBuckets.index(of: milliseconds * 1_000_000)), ticks)] }
        return sums
    }

    private static func noisy(_ random: inout SeededRandom) -> BlockSums {
        sums(
            fills: Int64(random.next(below: 30)), slip: Double.random(in: -1...1, using: &random), takers: Int64(random.next(below: 4)),
            misses: Int64(random.next(below: 9)), net: Double.random(in: -2...2, using: &random),
            milliseconds: 80 + Int64(random.next(below: 60)))
    }

    /// `harm` turns A's sums of a half into B's.
    private static func pair(_ random: inout SeededRandom, units: Int = 10, harm: (inout BlockSums) -> Void = { _ in }) -> [UnitPair] {
        (0..<units).map { unit in
            let bIsSecond = Bool.random(using: &random)
            var halves = [noisy(&random), noisy(&random)]
            harm(&halves[bIsSecond ? 1 : 0])
            return UnitPair(unit: unit, group: unit, sign: bIsSecond ? 1 : -1, first: halves[0], second: halves[1])
        }
    }

    private static func gate(_ name: String, _ random: inout SeededRandom) throws -> SequentialGate {
        let gate = try #require(Gate.all.first { $0.name == name })
        return SequentialGate(gate, prePairs: (0..<24).map { _ in pair(&random) }, units: 10)
    }

    private static func threshold(_ name: String, minSamples: Int = 1) throws -> ThresholdGate {
        var gate = try #require(Gate.all.first { $0.name == name })
        gate.kind = .threshold
        gate.minSamples = minSamples
        return ThresholdGate(gate)
    }

    private static func play(_ gate: inout ThresholdGate, seconds: Range<Int>, every span: Int = 10, a: BlockSums, b: BlockSums) {
        for start in stride(from: seconds.lowerBound, to: seconds.upperBound, by: span) {
            gate.add(.init(fromMilliseconds: Int64(start) * 1000, toMilliseconds: Int64(start + span) * 1000, a: a, b: b))
        }
    }

    // MARK: The table

    @Test func alphasAddUpToFivePerCent() {
        #expect(abs(Gate.all.reduce(0) { $0 + $1.alpha } - 0.05) < 1e-12)
        #expect(Set(Gate.all.map(\.name)).count == Gate.all.count)
    }

    /// The horizons are fixed in the table, with their reasons; what they cost at least, in equal increments.
    @Test func horizonsAreThoseOfTheTable() {
        #expect(Gate.all.map(\.decisionPairs) == [24, 72, 6, 6, 24])
        #expect(EProcess.fewestIncrements(tunedFor: 60, alpha: 0.0125) == 13)
    }

    @Test(arguments: Gate.all.map(\.name))
    func everyGateFiresOnItsHarm(name: String) throws {
        var random = SeededRandom(seed: 5)
        var gate = try Self.gate(name, &random)
        for _ in 0..<60 {
            gate.add(
                Self.pair(&random) { sums in
                    switch name {
                    case "slippage_degradation": sums.slip += 2_000_000 * Int128(sums.fills)
                    case "taker_share_increase": sums.takerFills = sums.fills
                    case "latency_regression": sums.histogram = [(Int32(LatencyBuckets.index(of: 300_000_000)), sums.ticks)]
                    case "deadline_miss_spike": sums.misses += 40
                    default: sums.netNotional -= 4_000_000 * sums.markoutNotional
                    }
                })
        }
        #expect(gate.state == .violated && gate.demandsRollback)
    }

    // MARK: Fault 9

    @Test func fault9_aRatioIsNoDifferenceInMilliseconds() throws {
        var gate = try Self.threshold("latency_regression")
        Self.play(&gate, seconds: 0..<1200, a: Self.sums(milliseconds: 1000), b: Self.sums(milliseconds: 1002))
        #expect(gate.state == .clear)
        var slower = try Self.threshold("latency_regression")
        Self.play(&slower, seconds: 0..<1200, a: Self.sums(milliseconds: 1000), b: Self.sums(milliseconds: 1200))
        #expect(slower.state == .violated)
    }

    // MARK: Fault 10

    @Test func fault10_askingOftenChangesNothing() throws {
        var gate = try Self.threshold("deadline_miss_spike")
        let window = ThresholdGate.Window(fromMilliseconds: 0, toMilliseconds: 10_000, a: Self.sums(), b: Self.sums(misses: 40))
        for _ in 0..<1000 { gate.add(window) }
        #expect(gate.state == .breaching(seconds: 10, of: 600))
    }

    @Test(arguments: [1, 10, 60, 150])
    func fault10_theSameTimeInViolationFires_howeverItIsCut(span: Int) throws {
        var gate = try Self.threshold("slippage_degradation")
        Self.play(&gate, seconds: 0..<600 - span, every: span, a: Self.sums(), b: Self.sums(slip: 100))
        guard case .breaching = gate.state else {
            Issue.record("\(gate.state) before 600 s")
            return
        }
        Self.play(&gate, seconds: 600 - span..<600, every: span, a: Self.sums(), b: Self.sums(slip: 100))
        #expect(gate.state == .violated)
    }

    @Test func fault10_violationsApartDoNotAddUp() throws {
        var gate = try Self.threshold("deadline_miss_spike")
        for round in 0..<20 {
            let start = round * 2000
            Self.play(&gate, seconds: start..<start + 300, a: Self.sums(), b: Self.sums(misses: 40))
            Self.play(&gate, seconds: start + 300..<start + 2000, a: Self.sums(), b: Self.sums(misses: 0))
        }
        #expect(gate.state == .clear)
    }

    @Test func fault10_aGapNeitherCountsNorPasses() throws {
        var gate = try Self.threshold("deadline_miss_spike")
        Self.play(&gate, seconds: 0..<500, a: Self.sums(), b: Self.sums(misses: 40))
        gate.silent(until: 3_000_000)
        #expect(gate.state == .noData)
        Self.play(&gate, seconds: 3000..<3050, a: Self.sums(), b: Self.sums(misses: 40))
        #expect(gate.state == .breaching(seconds: 550, of: 600))
        Self.play(&gate, seconds: 3050..<3110, a: Self.sums(), b: Self.sums(misses: 40))
        #expect(gate.state == .violated)
    }

    // MARK: Fault 11

    /// No difference at all: 100 experiments of 12 h, 5 of which may be rolled back.
    @Test func fault11_equalArmsAreNotRolledBack() {
        var random = SeededRandom(seed: 2)
        var rolledBack = 0
        for _ in 0..<100 {
            let before = (0..<12).map { _ in Self.pair(&random) }
            var gates = Gate.all.map { SequentialGate($0, prePairs: before, units: 10) }
            for _ in 0..<72 {
                let pair = Self.pair(&random)
                for index in gates.indices { gates[index].add(pair) }
            }
            if gates.contains(where: \.demandsRollback) { rolledBack += 1 }
        }
        // Binomial(100, 0.05) exceeds 11 once in 400 times.
        #expect(rolledBack <= 11)
    }

    @Test func fault11_identicalRowsStayUndecided() throws {
        var random = SeededRandom(seed: 3)
        var gate = try Self.gate("slippage_degradation", &random)
        let same = Self.sums(slip: 0.5)
        for _ in 0..<100 {
            gate.add((0..<10).map { UnitPair(unit: $0, group: $0, sign: Bool.random(using: &random) ? 1 : -1, first: same, second: same) })
        }
        #expect(gate.state == .undecided)
    }

    // MARK: Fault 12

    @Test func fault12_anEmptyArmIsNoZero() throws {
        var gate = try Self.threshold("slippage_degradation")
        Self.play(&gate, seconds: 0..<3000, a: Self.sums(fills: 0), b: Self.sums(slip: 3))
        #expect(gate.state == .warming)
        var random = SeededRandom(seed: 6)
        var sequential = try Self.gate("slippage_degradation", &random)
        for _ in 0..<200 {
            sequential.add(
                (0..<10).map { UnitPair(unit: $0, group: $0, sign: 1, first: Self.sums(fills: 0), second: Self.sums(slip: 5)) })
        }
        #expect(sequential.state == .noData)
    }

    @Test func fault12_oneMissInTheFirstTickIsNoSpike() throws {
        var gate = try Self.threshold("deadline_miss_spike", minSamples: 100)
        Self.play(&gate, seconds: 0..<900, a: Self.sums(), b: Self.sums(ticks: 1, misses: 1))
        #expect(gate.state == .warming)
    }

    @Test func fault12_aTailOfTooFewTicksHasNoP95() {
        #expect(Self.sums(ticks: 99).latencyP95(atLeast: GateMetric.latencyTicksMin) == nil)
        #expect(GateMetric.latency.value(Self.sums(ticks: 0)) == nil)
    }

    // MARK: Faults 15 to 29, 64

    @Test func fault15_ratiosAreOfSums_notMeansOfRatios() {
        var both = Self.sums(fills: 1, takers: 1)
        both += Self.sums(fills: 99, takers: 0)
        #expect(GateMetric.takerShare.value(both) == 0.01)
    }

    @Test func fault16_whatWasViolatedStaysViolated_whateverFollows() throws {
        var random = SeededRandom(seed: 7)
        var gate = try Self.gate("deadline_miss_spike", &random)
        while gate.state != .violated { gate.add(Self.pair(&random) { $0.misses += 60 }) }
        let at = gate.violatedAtPair
        for _ in 0..<200 { gate.add(Self.pair(&random) { $0.misses = 0 }) }
        #expect(gate.state == .violated && gate.violatedAtPair == at)
    }

    @Test func fault19_aBetterPriceIsNoCost() throws {
        var random = SeededRandom(seed: 8)
        var gate = try Self.gate("slippage_degradation", &random)
        for _ in 0..<60 { gate.add(Self.pair(&random) { $0.slip -= 2_000_000 * Int128($0.fills) }) }
        #expect(gate.state == .clear)
    }

    /// What is sampled for the log does not reach the gates; a tick of four hundred counts one four-hundredth.
    @Test func fault29_everyTickCountsOnce() {
        #expect(GateMetric.missRate.value(Self.sums(ticks: 400, misses: 1)) == 1.0 / 400)
    }

    /// One p95, that of the merged histogram.
    @Test func fault22_p95OfTwoRowsIsThatOfTheirMergedHistogram() {
        var both = Self.sums(ticks: 90, milliseconds: 100)
        both += Self.sums(ticks: 10, milliseconds: 200)
        let edges = [100, 200].map { Double(LatencyBuckets.upperEdge(of: LatencyBuckets.index(of: $0 * 1_000_000))) / 1e6 }
        #expect(both.latencyP95(atLeast: 100) == edges[1])
        var other = Self.sums(ticks: 10, milliseconds: 200)
        other += Self.sums(ticks: 90, milliseconds: 100)
        #expect(other == both)
    }

    @Test func fault18_aCandidateThatLosesMoneyIsStopped() throws {
        var random = SeededRandom(seed: 15)
        var gate = try Self.gate("net_bps_loss", &random)
        for _ in 0..<100 where !gate.demandsRollback { gate.add(Self.pair(&random) { $0.netNotional -= 2_000_000 * $0.markoutNotional }) }
        #expect(gate.demandsRollback)
    }

    /// What a gate remembers is the trailing minute and a few sums, not the experiment.
    @Test func fault64_aGateDoesNotGrow() throws {
        func remembered(_ value: Any) -> Int {
            Mirror(reflecting: value).children.reduce(0) { sum, child in
                let own = (child.value as? [ThresholdGate.Window])?.count ?? (child.value as? [UnitPair])?.count ?? 0
                return sum + own + remembered(child.value)
            }
        }
        var gate = try Self.threshold("slippage_degradation")
        Self.play(&gate, seconds: 0..<200, a: Self.sums(), b: Self.sums())
        let early = remembered(gate)
        Self.play(&gate, seconds: 200..<20_000, a: Self.sums(), b: Self.sums())
        #expect(remembered(gate) == early && early > 0)
    }

    @Test func fault18_silenceIsNoPass() throws {
        var random = SeededRandom(seed: 8)
        let gate = try Self.gate("net_bps_loss", &random)
        #expect(gate.state == .noData && !gate.demandsRollback)
    }

    // MARK: Functions of stored rows

    @Test func rowsInAnyOrderGiveTheSameBits() throws {
        var random = SeededRandom(seed: 10)
        let before = (0..<12).map { _ in Self.pair(&random) }
        let pairs = (0..<40).map { _ in Self.pair(&random) }
        let gate = try #require(Gate.all.first)
        var straight = SequentialGate(gate, prePairs: before, units: 10)
        var shuffled = straight
        for pair in pairs {
            straight.add(pair)
            shuffled.add(pair.shuffled(using: &random))
        }
        #expect(straight.tests.map(\.harm) == shuffled.tests.map(\.harm))
    }

    /// Slippage that only follows the market's volatility is taken out, by what earlier pairs taught alone.
    @Test func whatTheMarketExplainsIsTakenOut() throws {
        var random = SeededRandom(seed: 13)
        func half(_ volatility: Double) -> BlockSums {
            var sums = Self.sums(slip: 0)
            sums.slip = Int128((0.5 * volatility + Double.random(in: -0.01...0.01, using: &random)) * 1e6) * 20
            sums.squaredReturn = Int128(volatility * volatility * 300 * 1e9)
            return sums
        }
        func pair() -> [UnitPair] {
            (0..<10).map { unit in
                UnitPair(
                    unit: unit, group: unit, sign: Bool.random(using: &random) ? 1 : -1,
                    first: half(Double.random(in: 0.5...2, using: &random)), second: half(Double.random(in: 0.5...2, using: &random)))
            }
        }
        let row = try #require(Gate.all.first)
        var gate = SequentialGate(row, prePairs: (0..<12).map { _ in pair() }, units: 10)
        #expect(abs(gate.tests[0].theta.value - 0.5) < 0.01)
        for _ in 0..<20 { gate.add(pair()) }
        // Without it the standard error would be about 0.02.
        #expect(gate.tests[0].effects.estimate.map { abs($0) < 0.004 } == true)
    }

    /// Theta must not have seen the pair it corrects: the first pair's increment follows from the pre-period's theta.
    @Test func aPairIsCorrectedByEarlierOnesOnly() throws {
        let row = try #require(Gate.all.first)
        func pair(slip: Double, volatility: Double) -> [UnitPair] {
            var second = Self.sums(slip: slip)
            second.squaredReturn = Int128(volatility * volatility * 300 * 1e9)
            return [UnitPair(unit: 0, group: 0, sign: 1, first: Self.sums(), second: second)]
        }
        var gate = SequentialGate(row, prePairs: [], units: 1)
        gate.add(pair(slip: 1, volatility: 2))
        #expect(gate.tests[0].effects.estimate == 1)
        gate.add(pair(slip: 1.5, volatility: 3))
        #expect(gate.tests[0].theta.value != 0)
    }

    @Test func latencyNeedsBothItsTolerancesExceeded() throws {
        var random = SeededRandom(seed: 11)
        var gate = try Self.gate("latency_regression", &random)
        // 80 to 140 us instead of ms, B 1 us slower: one per cent, and below 2 us.
        func microseconds(_ sums: inout BlockSums, _ added: Int64) {
            sums.histogram = [(Int32(LatencyBuckets.index(of: 20_000 + 1000 * added)), sums.ticks)]
        }
        for _ in 0..<100 {
            gate.add(
                Self.pair(&random).map { item in
                    var item = item
                    microseconds(&item.first, item.sign < 0 ? 1 : 0)
                    microseconds(&item.second, item.sign > 0 ? 1 : 0)
                    return item
                })
        }
        #expect(gate.tests[0].isHarmful && !gate.tests[1].isHarmful)
        #expect(gate.state != .violated)
    }

    @Test func bothArmsLateIsTheEnvironment() {
        func verdict(_ a: Int64, _ b: Int64) -> DeadlineObjective.Verdict {
            var objective = DeadlineObjective()
            for _ in 0..<60 {
                objective.add([UnitPair(unit: 0, group: 0, sign: 1, first: Self.sums(misses: a), second: Self.sums(misses: b))])
            }
            return objective.verdict
        }
        #expect(verdict(4, 4) == .holds)
        #expect(verdict(4, 30) == .harm)
        #expect(verdict(30, 30) == .environment)
        #expect(verdict(30, 4) == .holds)
    }
}
