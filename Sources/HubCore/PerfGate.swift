import CalibModel

/// Whether a program became slower: per stage the ratio of the current runs' median to the baseline's, with a bootstrap interval.
///
/// The statistic is the ratio of medians over runs of each run's p95 (or mean count). Its interval is the percentile bootstrap's (Efron and
/// Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3): runs, not single durations, are drawn with replacement, because
/// durations within a run depend on each other (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013). Medians and
/// percentiles follow the product's one quantile rule (SPEC 1.4).
///
/// Invariants:
/// 1. A stage regresses only if the interval's lower end is above the threshold: noise alone does not fail.
/// 2. A stage that only one side has fails: what was not compared is not good.
/// 3. The same files and threshold give the same verdict: the draws come from a fixed seed, the arithmetic is integers.
package struct PerfGate: Sendable, Equatable {
    package enum Verdict: String, Sendable {
        case same = "ok"
        /// The whole interval lies below minus the threshold: a new baseline would hold what was gained.
        case faster
        case regression
        /// In the baseline, not in the current figures.
        case vanished
        /// In the current figures, not in the baseline.
        case unknown = "no baseline"
    }

    package struct Row: Sendable, Equatable {
        package var stage: String
        /// Median over runs in 1e-6 of the unit; nil on the side that lacks the stage.
        package var baseline: Int64?
        package var current: Int64?
        /// Current to baseline less 1, in 1e-6 (10,000 is 1 %); nil without both sides.
        package var change: Int64?
        package var interval: ClosedRange<Int64>?
        package var verdict: Verdict
    }

    /// What the gate comes to, worst first.
    package enum Outcome: String, Sendable {
        /// Something could not be compared.
        case incomplete
        case regression
        case passed
    }

    /// Ends of the interval in percent of the bootstrap's distribution. A stage whose cost truly rose by just the threshold fails 1 time in
    /// 100, so that one of the six stages and the tick does in less than 7.
    package static let intervalPercents = (lower: 1, upper: 99)
    /// Drawn ratios per stage: 100 of them lie below the lower end, which places it to a tenth of its distance from the median.
    package static let resamples = 10_000

    /// In 1e-6 (30,000 is 3 %).
    package let threshold: Int64
    /// The baseline's stages in its order, then those it does not know.
    package let rows: [Row]

    /// Nil when the units differ: there is nothing to compare.
    package init?(baseline: PerfFigures, current: PerfFigures, threshold: Int64) {
        guard baseline.unit == current.unit else { return nil }
        self.threshold = threshold
        let new = Dictionary(current.stages.map { ($0.name, $0.values) }) { first, _ in first }
        let old = Set(baseline.stages.map(\.name))
        rows =
            baseline.stages.map { stage in
                guard let values = new[stage.name] else {
                    return Row(stage: stage.name, baseline: Self.median(stage.values), verdict: .vanished)
                }
                return Self.judge(stage.name, stage.values, values, threshold)
            }
            + current.stages.filter { !old.contains($0.name) }.map {
                Row(stage: $0.name, current: Self.median($0.values), verdict: .unknown)
            }
    }

    package var outcome: Outcome {
        if rows.isEmpty || rows.contains(where: { $0.verdict == .vanished || $0.verdict == .unknown }) { return .incomplete }
        return rows.contains { $0.verdict == .regression } ? .regression : .passed
    }

    private static func judge(_ stage: String, _ baseline: [Int64], _ current: [Int64], _ threshold: Int64) -> Row {
        let medians = (old: median(baseline), new: median(current))
        let interval = bootstrap(baseline.sorted(), current.sorted())
        var verdict = Verdict.same
        if interval.lowerBound > threshold { verdict = .regression }
        if interval.upperBound < -threshold { verdict = .faster }
        return Row(
            stage: stage, baseline: medians.old, current: medians.new, change: change(from: medians.old, to: medians.new),
            interval: interval,
            verdict: verdict)
    }

    /// Of the change, both sides ascending.
    static func bootstrap(_ baseline: [Int64], _ current: [Int64]) -> ClosedRange<Int64> {
        var random = SplitMix64(state: 0x7065_7266_6761_7465)
        var drawn = [Int](repeating: 0, count: max(baseline.count, current.count))
        var changes: [Int64] = []
        changes.reserveCapacity(resamples)
        for _ in 0..<resamples {
            let old = resampledMedian(baseline, &drawn, &random)
            changes.append(change(from: old, to: resampledMedian(current, &drawn, &random)))
        }
        changes.sort()
        let lower = Quantile.of(ascending: changes, percent: intervalPercents.lower)!
        return lower...Quantile.of(ascending: changes, percent: intervalPercents.upper)!
    }

    /// The median of as many draws as there are values. Counting how often each was drawn replaces sorting the draws.
    private static func resampledMedian(_ ascending: [Int64], _ drawn: inout [Int], _ random: inout SplitMix64) -> Int64 {
        let count = ascending.count
        for index in 0..<count { drawn[index] = 0 }
        for _ in 0..<count { drawn[Int(random.next().multipliedFullWidth(by: UInt64(count)).high)] += 1 }
        var below = count / 2  // SPEC 1.4: the value at place n * 50 / 100.
        for index in 0..<count {
            if below < drawn[index] { return ascending[index] }
            below -= drawn[index]
        }
        preconditionFailure("BUG: \(count) draws hold no median")
    }

    static func median(_ values: [Int64]) -> Int64 { Quantile.of(ascending: values.sorted(), percent: 50)! }

    /// Ratio less 1 in 1e-6, at most 1e12: what is above is a regression whatever it is.
    private static func change(from old: Int64, to new: Int64) -> Int64 {
        min(FixedPoint.divide((Int128(new) - Int128(old)) * 1_000_000, by: Int128(old)) ?? .max, 1_000_000_000_000)
    }
}
