import CalibModel

/// One unit (a symbol on a host) in one pair.
package struct UnitPair: Sendable {
    package var unit: Int
    /// Units of one group share a coin (invariant 2).
    package var group: Int
    /// +1 when B is the second half.
    package var sign: Double
    package var first: BlockSums
    package var second: BlockSums
    package init(unit: Int, group: Int, sign: Double, first: BlockSums, second: BlockSums) {
        self.unit = unit
        self.group = group
        self.sign = sign
        self.first = first
        self.second = second
    }

    /// By group, then unit: rows in any order give the same bits.
    package static func precedes(_ a: UnitPair, _ b: UnitPair) -> Bool { (a.group, a.unit) < (b.group, b.unit) }
}

/// What was known before T0, frozen: each unit's precision and the e-process's scale (reference B.3). All of it from arm A.
package struct PrePeriod: Sendable {
    /// Pairs below which an experiment first runs on A only (SPEC 7.3).
    package static let pairsMin = 6
    /// g of each unit.
    package let precision: [Double]
    /// V expected at the decision time.
    package let expectedSquares: Double
    /// What the covariate explained by T0; the experiment's own pairs teach it further.
    package let theta: CUPED.PredictableTheta

    /// `pairs`: regrouped on the experiment's grid, the signs those its coins would have given. `decisionPairs`: when the boundary shall be
    /// tightest.
    package init(_ metric: GateMetric, pairs: [[UnitPair]], units: Int, decisionPairs: Double) {
        var theta = CUPED.PredictableTheta()
        for pair in pairs { theta.learn(pair.sorted(by: UnitPair.precedes), metric) }
        self.theta = theta
        var sums = [Double](repeating: 0, count: units)
        var counts = [Double](repeating: 0, count: units)
        for pair in pairs {
            for item in pair {
                guard let found = PairDifference(item, metric) else { continue }
                let difference = found.adjusted(theta.value)
                sums[item.unit] += found.weight * difference * difference
                counts[item.unit] += 1
            }
        }
        let known = (0..<units).filter { counts[$0] > 0 }.map { sums[$0] / counts[$0] }
        let sum = known.reduce(0, +)
        if sum > 0 {
            let mean = sum / Double(known.count)
            // Half way to the mean: a variance from a few dozen pairs is itself uncertain.
            precision = (0..<units).map { 1 / (0.5 * (counts[$0] > 0 ? sums[$0] / counts[$0] : mean) + 0.5 * mean) }
        } else {
            // Nothing known, or nothing ever differed: all units count alike.
            precision = [Double](repeating: 1, count: units)
        }
        var squares = 0.0
        for pair in pairs.map({ $0.sorted(by: UnitPair.precedes) }) {
            for (_, increment, _) in SequentialTest.increments(pair, metric, precision, theta: theta.value) {
                squares += increment * increment
            }
        }
        expectedSquares = squares > 0 ? squares / Double(pairs.count) * decisionPairs : decisionPairs
    }
}

/// Second minus first half of one unit.
struct PairDifference {
    var outcome: Double
    /// Of the covariate; nil where it is not known in both halves.
    var covariate: Double?
    var weight: Double

    /// Nil where either half has no value, or no exposure.
    init?(_ item: UnitPair, _ metric: GateMetric) {
        weight = metric.weight(item.first, item.second)
        guard weight > 0, let first = metric.value(item.first), let second = metric.value(item.second) else { return nil }
        outcome = second - first
        covariate = metric.covariate(item.first).flatMap { first in metric.covariate(item.second).map { $0 - first } }
    }

    func adjusted(_ theta: Double) -> Double { outcome - theta * (covariate ?? 0) }
}

extension CUPED.PredictableTheta {
    /// A pair that is over teaches the later ones. Differences know no arm, so under "no effect" theta is the same whatever the coins.
    mutating func learn(_ pair: [UnitPair], _ metric: GateMetric) {
        for item in pair {
            guard let found = PairDifference(item, metric), let covariate = found.covariate else { continue }
            add(outcome: found.outcome, covariate: covariate, weight: found.weight)
        }
    }
}

/// One hypothesis under test.
package struct SequentialTest: Sendable {
    package let hypothesis: Gate.Hypothesis
    package let alpha: Double
    private let precision: [Double]
    /// From the pre-period and the pairs before the one under way (reference B.3, Deng et al. 2013).
    package private(set) var theta: CUPED.PredictableTheta
    /// Against "harm at most the tolerance".
    package private(set) var harm: EProcess
    /// Against "harm at least the margin".
    package private(set) var safety: EProcess
    package private(set) var effects = EffectSums()

    package init(_ hypothesis: Gate.Hypothesis, alpha: Double, prePeriod: PrePeriod) {
        self.hypothesis = hypothesis
        self.alpha = alpha
        precision = prePeriod.precision
        theta = prePeriod.theta
        let rho = EProcess.rho(tightestAt: prePeriod.expectedSquares, alpha: alpha)
        harm = EProcess(rho: rho)
        safety = EProcess(rho: rho)
    }

    package var isHarmful: Bool { harm.rejects(at: alpha) }
    package var isSafe: Bool { safety.rejects(at: alpha) }

    /// `pair` in the order of `UnitPair.precedes`.
    mutating func add(_ pair: [UnitPair]) {
        for (_, increment, weight) in Self.increments(pair, hypothesis.metric, precision, theta: theta.value) {
            harm.add(increment - hypothesis.tolerance * weight)
            safety.add(hypothesis.margin * weight - increment)
            effects.add(increment, weight: weight)
        }
        theta.learn(pair, hypothesis.metric)
    }

    /// By group, ascending: sum of g h eps (r2 - r1 - theta (x2 - x1)), and of g h (invariants 1 and 2).
    static func increments(
        _ pair: [UnitPair], _ metric: GateMetric, _ precision: [Double], theta: Double
    ) -> [(group: Int, sum: Double, weight: Double)] {
        var result: [(group: Int, sum: Double, weight: Double)] = []
        for item in pair {
            guard let found = PairDifference(item, metric) else { continue }
            let scaled = found.weight * precision[item.unit]
            if result.last?.group != item.group { result.append((item.group, 0, 0)) }
            result[result.count - 1].sum += scaled * item.sign * found.adjusted(theta)
            result[result.count - 1].weight += scaled
        }
        return result
    }
}

/// A sequential gate over the closed, uncensored pairs of an experiment, in their order.
package struct SequentialGate: Sendable {
    package let gate: Gate
    package private(set) var tests: [SequentialTest]
    package private(set) var pairs = 0
    /// Pair after which it fired, from 0.
    package private(set) var violatedAtPair: Int?

    package init(_ gate: Gate, prePairs: [[UnitPair]], units: Int) {
        precondition(gate.kind == .sequential, "BUG: \(gate.name) is no sequential gate")
        self.gate = gate
        tests = gate.hypotheses.map {
            SequentialTest(
                $0, alpha: gate.alpha, prePeriod: PrePeriod($0.metric, pairs: prePairs, units: units, decisionPairs: gate.decisionPairs))
        }
    }

    package mutating func add(_ pair: [UnitPair]) {
        let pair = pair.sorted(by: UnitPair.precedes)
        for index in tests.indices { tests[index].add(pair) }
        if violatedAtPair == nil, tests.allSatisfy(\.isHarmful) { violatedAtPair = pairs }
        pairs += 1
    }

    package var state: GateState {
        if violatedAtPair != nil, pairs >= gate.minSamples { return .violated }
        if tests.contains(where: { $0.effects.weight == 0 }) { return .noData }
        if pairs < gate.minSamples { return .warming }
        if tests.contains(where: { $0.harm.squares == 0 }) { return .undecided }
        // One of several nulls that holds is enough for "no harm": harm is all of them refuted.
        return tests.contains(where: \.isSafe) ? .clear : .undecided
    }

    /// Whether the experiment has to go back to A.
    package var demandsRollback: Bool { gate.isEnabled && !gate.isDryRun && state == .violated }
}
