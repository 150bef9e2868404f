import CalibModel

/// How much more arm B's units changed since before T0 than arm A's: the one fixed-horizon test of designs whose units keep their arm
/// (SPEC 7.3).
///
/// Each unit (a symbol on a host) is its own baseline, so what symbols always differ by cancels. What a symbol drifts by does not, and its
/// hours are not independent: the symbol is the observation, however many hosts and rows it has (clustering by symbol, Bertrand, Duflo and
/// Mullainathan 2004, Q. J. Econ. 119, section IV.C). Where symbols have both arms on their hosts, a symbol's difference between them is tested
/// against 0 (Student, G - 1 degrees); else the symbols of B against those of A (Welch 1947, Biometrika 34). The sandwich estimator with G - 1
/// degrees is not used: with one symbol of twenty on B it fires in 29 % of equal experiments at a level of 1.25 %, with two in 9 %.
package struct DifferenceInDifferences: Sendable, Equatable {
    package struct Unit: Sendable {
        package var symbol: String
        package var arm: Arm
        /// Arm A before T0, and its own arm since.
        package var before: BlockSums
        package var during: BlockSums
        package init(symbol: String, arm: Arm, before: BlockSums, during: BlockSums) {
            self.symbol = symbol
            self.arm = arm
            self.before = before
            self.during = during
        }
    }

    /// Fewer symbols say nothing (SPEC 7.3).
    package static let symbolsMin = 20
    /// Nor do fewer of either arm, where no symbol has both: Welch's test fires in 2.4 % of equal experiments at 1.25 % with three of twenty,
    /// in 1.5 % with five.
    package static let symbolsPerArmMin = 5

    /// In the metric's unit; above 0 is worse.
    package let estimate: Double
    package let standardError: Double
    package let degrees: Double
    package let symbols: Int

    /// Units without the metric before or since T0 are left out. Nil when too few symbols remain, or when none of them differs in its change.
    package init?(_ metric: GateMetric, _ units: [Unit]) {
        var changes: [String: [Arm: [Double]]] = [:]
        for unit in units {
            guard let before = metric.value(unit.before), let during = metric.value(unit.during) else { continue }
            changes[unit.symbol, default: [:]][unit.arm, default: []].append(during - before)
        }
        // In the order of their names: the same units in any order give the same bits.
        let means = changes.sorted { $0.key < $1.key }.map { symbol in
            symbol.value.mapValues { values in values.sorted().reduce(0, +) / Double(values.count) }
        }
        let within = means.compactMap { arms in arms[.a].flatMap { a in arms[.b].map { $0 - a } } }
        if !within.isEmpty {
            guard within.count >= Self.symbolsMin else { return nil }
            let sample = ArmSummary(SampleMoments(within))
            (estimate, degrees, symbols) = (sample.mean, sample.count - 1, within.count)
            standardError = (sample.variance / sample.count).squareRoot()
        } else {
            let (a, b) = (means.compactMap { $0[.a] }, means.compactMap { $0[.b] })
            guard a.count + b.count >= Self.symbolsMin, min(a.count, b.count) >= Self.symbolsPerArmMin else { return nil }
            let difference = ArmDifference(a: ArmSummary(SampleMoments(a)), b: ArmSummary(SampleMoments(b)), isRelative: false)
            (estimate, degrees, symbols) = (difference.expected, difference.degrees, a.count + b.count)
            standardError = difference.variance.squareRoot()
        }
        guard standardError > 0, degrees >= 1 else { return nil }
    }

    /// The effect lies below it, and above it, with probability `alpha` each, at the one planned look.
    package func interval(alpha: Double) -> ClosedRange<Double> {
        let half = StudentT(degrees: degrees).quantile(tail: alpha) * standardError
        return estimate - half...estimate + half
    }
}

extension Gate {
    /// What the gate says at the end of an experiment whose units kept their arm: `violated` when all of its null hypotheses are refuted,
    /// `clear` when one of its margins is excluded, else `undecided`; `noData` where nothing can be tested.
    package func fixedHorizonState(_ units: [DifferenceInDifferences.Unit]) -> GateState {
        fixedHorizonState(hypotheses.map { DifferenceInDifferences($0.metric, units) })
    }

    /// `tests`: one for each hypothesis.
    func fixedHorizonState(_ tests: [DifferenceInDifferences?]) -> GateState {
        var isHarmful = true
        var isSafe = false
        for (hypothesis, test) in zip(hypotheses, tests) {
            guard let interval = test?.interval(alpha: alpha) else { return .noData }
            if interval.lowerBound <= hypothesis.tolerance { isHarmful = false }
            if interval.upperBound < hypothesis.margin { isSafe = true }
        }
        return isHarmful ? .violated : isSafe ? .clear : .undecided
    }
}
