import CalibModel
import Testing

@testable import HubCore

/// Whether a stage became slower, on made-up runs.
@Suite struct PerfGateTests {
    private static let threshold: Int64 = 30_000

    /// One stage's figures over runs.
    private static func figures(_ values: [Int64], stage: String = "SpreadStage", unit: PerfFigures.Unit = .nanoseconds) -> PerfFigures {
        PerfFigures(unit: unit, runCount: values.count, stages: [.init(name: stage, values: values)])
    }

    /// `count` runs of 100 us, each off by up to `noise` percent, times `factor` percent.
    private static func runs(_ count: Int, noise: Int64 = 5, factor: Int64 = 100, _ random: inout SplitMix64) -> [Int64] {
        (0..<count).map { _ in
            let span = UInt64(noise * 2_000 + 1)
            let off = Int64(random.next().multipliedFullWidth(by: span).high) - noise * 1_000
            return (100_000 + off) * factor * 10_000
        }
    }

    private static func verdict(_ old: [Int64], _ new: [Int64]) -> PerfGate.Verdict? {
        PerfGate(baseline: figures(old), current: figures(new), threshold: threshold)?.rows.first?.verdict
    }

    // MARK: Noise

    /// Both sides from one distribution: the gate may fail at most 1 time in 100, and hardly ever does, the threshold being above the noise.
    @Test func sameProgram_noiseOfFivePercent_doesNotFail() {
        var random = SplitMix64(state: 1)
        var failed = 0
        for _ in 0..<200 where Self.verdict(Self.runs(10, &random), Self.runs(10, &random)) != .same { failed += 1 }
        #expect(failed <= 1)
    }

    /// A cost that truly rose by just the threshold is the hardest case that is still allowed.
    @Test func changeOfJustTheThreshold_failsSeldom() {
        var random = SplitMix64(state: 2)
        var failed = 0
        for _ in 0..<200
        where Self.verdict(Self.runs(10, &random), Self.runs(10, factor: 103, &random)) == .regression { failed += 1 }
        // 1 in 100 is intended; more than 8 of 200 then has a probability of 1e-4.
        #expect(failed <= 8)
    }

    @Test func twentyPercentSlower_isCaught() {
        var random = SplitMix64(state: 3)
        for _ in 0..<100 {
            #expect(Self.verdict(Self.runs(10, &random), Self.runs(10, factor: 120, &random)) == .regression)
        }
    }

    @Test func twentyPercentFaster_isSaidAndPasses() throws {
        var random = SplitMix64(state: 4)
        let gate = try #require(
            PerfGate(
                baseline: Self.figures(Self.runs(10, &random)), current: Self.figures(Self.runs(10, factor: 80, &random)),
                threshold: Self.threshold))
        #expect(gate.rows[0].verdict == .faster && gate.outcome == .passed)
    }

    /// The drawn percentiles against the exact distribution of the ratio of two resampled medians.
    ///
    /// With k of n values at or below x, the resampled median is at or below x when at least n/2 + 1 of n draws are: a binomial tail.
    @Test(arguments: [5, 6, 10, 15])
    func intervalAgreesWithTheExactDistribution(count: Int) throws {
        var random = SplitMix64(state: UInt64(count))
        let old = Self.runs(count, &random).sorted()
        let new = Self.runs(count, factor: 104, &random).sorted()
        func binomial(_ k: Int) -> Double { (0..<k).reduce(1.0) { $0 * Double(count - $1) / Double($1 + 1) } }
        func power(_ base: Double, _ exponent: Int) -> Double { (0..<exponent).reduce(1.0) { value, _ in value * base } }
        func atOrBelow(_ k: Int) -> Double {
            let p = Double(k) / Double(count)
            return (count / 2 + 1...count).reduce(0) { $0 + binomial($1) * power(p, $1) * power(1 - p, count - $1) }
        }
        let weights = (0..<count).map { atOrBelow($0 + 1) - atOrBelow($0) }
        var atoms: [(change: Double, weight: Double)] = []
        for i in 0..<count {
            for j in 0..<count { atoms.append(((Double(new[j]) / Double(old[i]) - 1) * 1e6, weights[i] * weights[j])) }
        }
        let interval = PerfGate.bootstrap(old, new)
        for (end, share) in [(interval.lowerBound, 0.01), (interval.upperBound, 0.99)] {
            let below = atoms.filter { $0.change < Double(end) - 1 }.reduce(0) { $0 + $1.weight }
            let upTo = atoms.filter { $0.change <= Double(end) + 1 }.reduce(0) { $0 + $1.weight }
            // The share below a percentile of 10,000 draws is off by 0.001 (one standard deviation).
            #expect(below <= share + 0.004 && upTo >= share - 0.004, "\(end): \(below) to \(upTo)")
        }
    }

    @Test func sameFiles_sameRows() throws {
        var random = SplitMix64(state: 5)
        let (old, new) = (Self.figures(Self.runs(10, &random)), Self.figures(Self.runs(10, &random)))
        let first = try #require(PerfGate(baseline: old, current: new, threshold: Self.threshold))
        var turned = new
        turned.stages[0].values.reverse()
        let second = try #require(PerfGate(baseline: old, current: turned, threshold: Self.threshold))
        #expect(first == second, "the order of runs has no say")
    }

    // MARK: Counts

    @Test(
        arguments: [
            (1_000, 1_000, .same), (1_000, 1_030, .same), (1_000, 1_031, .regression), (1_000, 970, .same), (1_000, 969, .faster),
            (1, 9_000_000_000_000, .regression),
        ] as [(Int64, Int64, PerfGate.Verdict)])
    func countsOfOneRunAreComparedExactly(old: Int64, new: Int64, verdict: PerfGate.Verdict) throws {
        let gate = try #require(
            PerfGate(
                baseline: Self.figures([old * 1_000_000], unit: .instructions),
                current: Self.figures([new * 1_000_000], unit: .instructions),
                threshold: Self.threshold))
        #expect(gate.rows[0].verdict == verdict)
        #expect(gate.rows[0].interval.map { $0.lowerBound == $0.upperBound } == true)
    }

    // MARK: What cannot be compared

    @Test func stageOfOneSideOnly_isIncomplete_evenBesideARegression() throws {
        var old = Self.figures([100, 100, 100, 100, 100])
        let new = Self.figures([200, 200, 200, 200, 200])
        old.stages.append(.init(name: "EmitStage", values: [1, 1, 1, 1, 1]))
        let vanished = try #require(PerfGate(baseline: old, current: new, threshold: Self.threshold))
        #expect(vanished.rows.map(\.verdict) == [.regression, .vanished] && vanished.outcome == .incomplete)
        let unknown = try #require(PerfGate(baseline: new, current: old, threshold: Self.threshold))
        #expect(unknown.rows.map(\.verdict) == [.faster, .unknown] && unknown.outcome == .incomplete)
    }

    @Test func otherUnit_isNotCompared() {
        let counted = Self.figures([1], unit: .instructions)
        #expect(PerfGate(baseline: counted, current: Self.figures([1, 1, 1, 1, 1]), threshold: 0) == nil)
    }

    // MARK: Files

    private static func parsed(_ text: String) -> Result<PerfFigures, PerfFigures.Failure> {
        do throws(PerfFigures.Failure) { return .success(try PerfFigures.parse(Array(text.utf8))) } catch { return .failure(error) }
    }

    private static func file(_ runs: [String], schema: String = "1", unit: String = "ns") -> String {
        #"{"schema":\#(schema),"unit":"\#(unit)","runs":[\#(runs.map { #"{"stages":\#($0)}"# }.joined(separator: ","))]}"#
    }

    @Test func runsAreReadInTheirOrder() throws {
        let runs = (1...5).map { #"{"A":{"p95":\#($0).5,"p50":1},"B":{"p95":\#($0 * 10)}}"# }
        let figures = try Self.parsed(Self.file(runs)).get()
        #expect(figures.stages.map(\.name) == ["A", "B"] && figures.runCount == 5)
        #expect(figures.stages[0].values == [1_500_000, 2_500_000, 3_500_000, 4_500_000, 5_500_000])
        let counts = try Self.parsed(Self.file([#"{"A":{"mean":1234.25}}"#], unit: "instructions")).get()
        #expect(counts.stages == [.init(name: "A", values: [1_234_250_000])])
    }

    /// The first program's three ways to write a p95, with its names and with ours.
    @Test(
        arguments: [
            #"{"budgets":{"stage_fetch_md":{"p95":1.5},"tick_total":{"p95":9}}}"#,
            #"{"stage_fetch_md":{"p95":1.5},"tick_total":{"p95":9},"x":1}"#,
            #"{"stages":{"FetchMDStage":{"p95_ms":1.5},"tick_total":{"p95_ms":9}}}"#,
        ])
    func seedFormsAreOneRunInMilliseconds(text: String) throws {
        let figures = try Self.parsed(text).get()
        #expect(figures.unit == .milliseconds && figures.runCount == 1 && figures.isSeedForm)
        #expect(
            figures.stages.map(\.name) == ["FetchMDStage", "tick_total"] && figures.stages.map(\.values) == [[1_500_000], [9_000_000]])
    }

    @Test(
        arguments: [
            ("", .json(.syntax(at: 0))), ("[]", .wrong("the file", allowed: "an object")), ("{}", .missing("schema")),
            (#"{"schema":2,"unit":"ns","runs":[]}"#, .schema("2")), (#"{"schema":"1","unit":"ns","runs":[]}"#, .schema("1")),
            (#"{"schema":1,"runs":[]}"#, .missing("unit")),
            (#"{"schema":1,"unit":"us","runs":[]}"#, .wrong("unit", allowed: "ns, ms, instructions")),
            (#"{"schema":1,"unit":"ns"}"#, .missing("runs")), (#"{"schema":1,"unit":"ns","runs":[]}"#, .tooFewRuns(0, needed: 5)),
            (#"{"schema":1,"unit":"instructions","runs":[]}"#, .tooFewRuns(0, needed: 1)),
            (#"{"schema":1,"unit":"instructions","runs":[{"stages":{}}]}"#, .noStages), (#"{"budgets":{}}"#, .noStages),
            (#"{"schema":1,"unit":"instructions","runs":[{"stages":{"A":{"p95":1}}}]}"#, .missing("runs[0].stages.A.mean")),
        ] as [(String, PerfFigures.Failure)])
    func fileThatCannotBeUsedSaysWhy(text: String, failure: PerfFigures.Failure) {
        #expect(Self.parsed(text) == .failure(failure))
    }

    /// A figure that is none must not be skipped.
    @Test(arguments: ["0", "-1", "null", "\"1\"", "1e30", "true"])
    func figureThatIsNoneFails(figure: String) {
        let text = Self.file([#"{"A":{"mean":\#(figure)}}"#], unit: "instructions")
        #expect(Self.parsed(text) == .failure(.wrong("runs[0].stages.A.mean", allowed: "a number above 0")))
    }

    @Test(arguments: ["NaN", "Infinity", "-Infinity", "1e", ""])
    func figureThatIsNoJSONFails(figure: String) {
        guard case .failure(.json) = Self.parsed(Self.file([#"{"A":{"mean":\#(figure)}}"#], unit: "instructions")) else {
            Issue.record("\(figure) was read")
            return
        }
    }

    @Test func stageMissingInOneRunFails() {
        var runs = [String](repeating: #"{"A":{"p95":1},"B":{"p95":1}}"#, count: 5)
        runs[3] = #"{"A":{"p95":1}}"#
        #expect(Self.parsed(Self.file(runs)) == .failure(.missing("runs[3].stages.B")))
        runs[3] = #"{"A":{"p95":1},"B":{"p95":1},"C":{"p95":1}}"#
        #expect(Self.parsed(Self.file(runs)) == .failure(.missing("runs[0].stages.C")))
    }

    @Test func namesThatWouldBreakTheTableAreRefused() {
        let text = Self.file([#"{"a|b":{"mean":1}}"#], unit: "instructions")
        guard case .failure(.wrong("runs[0].stages", _)) = Self.parsed(text) else {
            Issue.record("the name was taken")
            return
        }
    }
}
