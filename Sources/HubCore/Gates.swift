import CalibModel

// Safety gates (SPEC 7.3): what may stop an experiment, and the evidence for it.
//
// A gate is a row of `Gate.all`. The `sequential` kind is an e-process over pairs of switchback blocks; the `threshold` kind is the classical
// rule "worse than a limit for d seconds". Both are functions of stored rows: nothing here knows when it is asked, so polling fast, slowly,
// twice or after a restart gives the same answer.
//
// Invariants
//  1. An increment's sign is the experiment's own coin; its size uses what is symmetric in the two halves only (weights, volatility).
//  2. Clusters of one group share a coin, so they are ONE increment.
//  3. A half without an exposure weighs 0: it is no zero (SPEC 1.5).
//  4. `violated` is final.

/// What one symbol did in one half of a pair, or in one window of an arm: exact sums that merge by adding.
package struct BlockSums: Sendable, Equatable {
    package var ticks: Int64 = 0
    package var misses: Int64 = 0
    package var fills: Int64 = 0
    package var takerFills: Int64 = 0
    /// 1e-6 bps, one term per fill.
    package var slip: Int64 = 0
    /// 1e-8 quote currency.
    package var fillNotional: Int64 = 0
    /// 1e-14 bps x quote currency.
    package var slipNotional: Int128 = 0
    package var markoutNotional: Int64 = 0
    package var netNotional: Int128 = 0
    /// 1e-9 bps^2 over `returns` one-second returns of the market: the same whatever we quote.
    package var squaredReturn: Int64 = 0
    package var returns: Int64 = 0
    /// Ascending by index (`LatencyBuckets`).
    package var histogram: [(index: Int32, count: Int64)] = []
    package init() {}

    package static func == (a: BlockSums, b: BlockSums) -> Bool {
        a.ticks == b.ticks && a.misses == b.misses && a.fills == b.fills && a.takerFills == b.takerFills && a.slip == b.slip
            && a.fillNotional == b.fillNotional && a.slipNotional == b.slipNotional && a.markoutNotional == b.markoutNotional
            && a.netNotional == b.netNotional && a.squaredReturn == b.squaredReturn && a.returns == b.returns
            && a.histogram.elementsEqual(b.histogram) { $0 == $1 }
    }

    package static func += (a: inout BlockSums, b: BlockSums) {
        a.ticks += b.ticks
        a.misses += b.misses
        a.fills += b.fills
        a.takerFills += b.takerFills
        a.slip += b.slip
        a.fillNotional += b.fillNotional
        a.slipNotional += b.slipNotional
        a.markoutNotional += b.markoutNotional
        a.netNotional += b.netNotional
        a.squaredReturn += b.squaredReturn
        a.returns += b.returns
        var merged: [Int32: Int64] = [:]
        for (index, count) in a.histogram + b.histogram { merged[index, default: 0] += count }
        a.histogram = merged.sorted { $0.key < $1.key }.map { (index: $0.key, count: $0.value) }
    }

    /// Milliseconds; nil below `count` ticks, where the tail has too few.
    package func latencyP95(atLeast count: Int64) -> Double? {
        var total: Int64 = 0
        for bucket in histogram { total += bucket.count }
        guard total >= count else { return nil }
        let rank = min(total - 1, 95 * total / 100)
        var seen: Int64 = 0
        for (index, count) in histogram {
            seen += count
            if seen > rank { return Double(LatencyBuckets.upperEdge(of: Int(index))) / 1e6 }
        }
        return nil
    }
}

/// What a gate compares; larger is worse in every one.
package enum GateMetric: String, Sendable, CaseIterable {
    /// bps per fill; `calm`: blocks count by fills / volatility^2, since the noise of a fill grows with the market's.
    case slippage = "slippage_bps"
    /// Taker fills / fills.
    case takerShare = "taker_share"
    /// ln of the p95 of tick totals in ms.
    case logLatency = "log_latency_p95"
    /// The same p95 in ms.
    case latency = "latency_p95_ms"
    /// Missed ticks / ticks.
    case missRate = "deadline_miss_rate"
    /// Minus net bps, notional-weighted.
    case netLoss = "net_loss_bps"

    /// Ticks of a block below which its p95 is not used: five of them lie beyond it.
    package static let latencyTicksMin: Int64 = 100

    /// Nil without exposure.
    package func value(_ sums: BlockSums) -> Double? {
        switch self {
        case .slippage: sums.fills > 0 ? Double(sums.slip) / 1e6 / Double(sums.fills) : nil
        case .takerShare: sums.fills > 0 ? Double(sums.takerFills) / Double(sums.fills) : nil
        case .logLatency: sums.latencyP95(atLeast: Self.latencyTicksMin).flatMap { $0 > 0 ? Elementary.log($0) : nil }
        case .latency: sums.latencyP95(atLeast: Self.latencyTicksMin)
        case .missRate: sums.ticks > 0 ? Double(sums.misses) / Double(sums.ticks) : nil
        case .netLoss: sums.markoutNotional > 0 ? -Double(sums.netNotional) / 1e6 / Double(sums.markoutNotional) : nil
        }
    }

    /// Harmonic exposure w1 w2/(w1 + w2) (Mantel and Haenszel 1959), symmetric in the halves (invariant 1).
    package func weight(_ first: BlockSums, _ second: BlockSums) -> Double {
        func harmonic(_ a: Double, _ b: Double) -> Double { a > 0 && b > 0 ? a * b / (a + b) : 0 }
        switch self {
        case .slippage: return harmonic(Double(first.fills), Double(second.fills)) / Self.volatility2(first, second)
        case .takerShare: return harmonic(Double(first.fills), Double(second.fills))
        case .logLatency, .latency: return 1
        case .missRate: return harmonic(Double(first.ticks), Double(second.ticks))
        case .netLoss:
            return harmonic(Double(first.markoutNotional) / 1e8, Double(second.markoutNotional) / 1e8) / Self.volatility2(first, second)
        }
    }

    /// Mean squared 1-s return of the pair in bps^2, not below 0.01: a market that stands still is not infinitely informative.
    private static func volatility2(_ first: BlockSums, _ second: BlockSums) -> Double {
        let returns = first.returns + second.returns
        guard returns > 0 else { return 1 }
        return max(0.01, Double(first.squaredReturn + second.squaredReturn) / 1e9 / Double(returns))
    }
}

/// One row of the table of gates.
package struct Gate: Sendable {
    package enum Kind: String, Sendable { case sequential, threshold }

    /// One null hypothesis "the effect of B is at most `tolerance`"; a gate fires when all of its are refuted.
    package struct Hypothesis: Sendable {
        package var metric: GateMetric
        package var tolerance: Double
        /// Promotion asks that an effect above it is excluded.
        package var margin: Double
        package init(_ metric: GateMetric, tolerance: Double, margin: Double) {
            self.metric = metric
            self.tolerance = tolerance
            self.margin = margin
        }
    }

    /// Limits of the `threshold` kind; a ratio and a difference are different things.
    package enum Limit: Sendable, Equatable {
        /// B - A above it.
        case difference(Double)
        /// B above (1 + it) * A.
        case ratio(Double)
        /// B alone above it.
        case absolute(Double)
    }

    package var name: String
    package var kind = Kind.sequential
    package var alpha: Double
    package var hypotheses: [Hypothesis]
    package var limit: Limit
    package var limitMetric: GateMetric
    package var durationSeconds: Int64 = 600
    /// Sequential: pairs after which the boundary shall be tightest. 24 pairs of 10 minutes are 4 h, as long as a small slippage takes; late ticks
    /// are many, so their gates are tuned for 1 h. Any number is valid; it only moves where power goes.
    package var decisionPairs = 24.0
    /// Sequential: pairs; threshold: observations (fills, or ticks) of each arm in the window.
    package var minSamples: Int = 1
    package var isEnabled = true
    /// Watched and reported, never acted on.
    package var isDryRun = false

    /// The seed's four and ours. The alphas add up to 0.05 (SPEC 7.3): a union bound needs no independence between gates.
    package static let all: [Gate] = [
        Gate(
            name: "slippage_degradation", alpha: 0.0125, hypotheses: [Hypothesis(.slippage, tolerance: 0, margin: 0.05)],
            limit: .difference(0), limitMetric: .slippage),
        Gate(
            name: "taker_share_increase", alpha: 0.0075, hypotheses: [Hypothesis(.takerShare, tolerance: 0, margin: 0.005)],
            limit: .difference(0.01), limitMetric: .takerShare),
        Gate(
            name: "latency_regression", alpha: 0.0125,
            hypotheses: [
                // ln 1.03, and 2 us: three per cent of two microseconds would be noise of the clock.
                Hypothesis(.logLatency, tolerance: 0.029558802241544403, margin: 0.04879016416943205),
                Hypothesis(.latency, tolerance: 0.002, margin: 0.01),
            ],
            limit: .ratio(0.10), limitMetric: .latency, decisionPairs: 6),
        Gate(
            name: "deadline_miss_spike", alpha: 0.0125, hypotheses: [Hypothesis(.missRate, tolerance: 0, margin: 0.0025)],
            limit: .absolute(0.02), limitMetric: .missRate, decisionPairs: 6),
        Gate(
            name: "net_bps_loss", alpha: 0.005, hypotheses: [Hypothesis(.netLoss, tolerance: 0, margin: 0.05)],
            limit: .difference(0), limitMetric: .netLoss),
    ]
}

package enum GateState: Sendable, Equatable {
    case noData
    /// Too few samples so far.
    case warming
    /// Harm beyond the margin is excluded.
    case clear
    case undecided
    /// Seconds in violation, of how many.
    case breaching(seconds: Int64, of: Int64)
    case violated

    package var name: StaticString {
        switch self {
        case .noData: "no_data"
        case .warming: "warming"
        case .clear: "clear"
        case .undecided: "undecided"
        case .breaching: "breaching"
        case .violated: "violated"
        }
    }
}

// MARK: - Sequential

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
}

/// What was known before T0, frozen: each unit's precision and the e-process's scale (reference B.3). All of it from arm A.
package struct PrePeriod: Sendable {
    /// Pairs below which an experiment first runs on A only (SPEC 7.3).
    package static let pairsMin = 6
    /// g of each unit.
    package let precision: [Double]
    /// V expected at the decision time.
    package let expectedSquares: Double

    /// `pairs`: regrouped on the experiment's grid, the signs those its coins would have given. `decisionPairs`: when the boundary shall be
    /// tightest.
    package init(_ metric: GateMetric, pairs: [[UnitPair]], units: Int, decisionPairs: Double) {
        var sums = [Double](repeating: 0, count: units)
        var counts = [Double](repeating: 0, count: units)
        for pair in pairs {
            for item in pair {
                guard let (difference, weight) = Self.difference(item, metric) else { continue }
                sums[item.unit] += weight * difference * difference
                counts[item.unit] += 1
            }
        }
        let known = (0..<units).filter { counts[$0] > 0 }.map { sums[$0] / counts[$0] }
        let sum = known.reduce(0, +)
        // Nothing known, or nothing ever differed: all units count alike.
        let mean = sum > 0 ? sum / Double(known.count) : 1
        // Half way to the mean: a variance from a few dozen pairs is itself uncertain.
        precision = (0..<units).map { 1 / (0.5 * (counts[$0] > 0 ? sums[$0] / counts[$0] : mean) + 0.5 * mean) }
        var squares = 0.0
        for pair in pairs {
            for (_, increment, _) in SequentialTest.increments(pair, metric, precision) { squares += increment * increment }
        }
        expectedSquares = squares > 0 ? squares / Double(pairs.count) * decisionPairs : decisionPairs
    }

    /// Second minus first half, and its weight; nil where either has no value.
    static func difference(_ item: UnitPair, _ metric: GateMetric) -> (difference: Double, weight: Double)? {
        let weight = metric.weight(item.first, item.second)
        guard weight > 0, let first = metric.value(item.first), let second = metric.value(item.second) else { return nil }
        return (second - first, weight)
    }
}

/// One hypothesis under test.
package struct SequentialTest: Sendable {
    package let hypothesis: Gate.Hypothesis
    package let alpha: Double
    private let precision: [Double]
    /// Against "harm at most the tolerance".
    package private(set) var harm: EProcess
    /// Against "harm at least the margin".
    package private(set) var safety: EProcess
    package private(set) var effects = EffectSums()

    package init(_ hypothesis: Gate.Hypothesis, alpha: Double, prePeriod: PrePeriod) {
        self.hypothesis = hypothesis
        self.alpha = alpha
        precision = prePeriod.precision
        let rho = EProcess.rho(tightestAt: prePeriod.expectedSquares, alpha: alpha)
        harm = EProcess(rho: rho)
        safety = EProcess(rho: rho)
    }

    package var isHarmful: Bool { harm.rejects(at: alpha) }
    package var isSafe: Bool { safety.rejects(at: alpha) }

    package mutating func add(_ pair: [UnitPair]) {
        for (_, increment, weight) in Self.increments(pair, hypothesis.metric, precision) {
            harm.add(increment - hypothesis.tolerance * weight)
            safety.add(hypothesis.margin * weight - increment)
            effects.add(increment, weight: weight)
        }
    }

    /// By group, ascending: sum of g h eps (r2 - r1), and of g h (invariants 1 and 2).
    static func increments(_ pair: [UnitPair], _ metric: GateMetric, _ precision: [Double]) -> [(group: Int, sum: Double, weight: Double)] {
        var result: [(group: Int, sum: Double, weight: Double)] = []
        // Stable by unit within a group, so that rows in any order give the same bits.
        for item in pair.sorted(by: { ($0.group, $0.unit) < ($1.group, $1.unit) }) {
            guard let (difference, weight) = PrePeriod.difference(item, metric) else { continue }
            let scaled = weight * precision[item.unit]
            if result.last?.group != item.group { result.append((item.group, 0, 0)) }
            result[result.count - 1].sum += scaled * item.sign * difference
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

// MARK: - Threshold

/// Time in violation, measured in the data's own time (SPEC 7.3).
///
/// Not in violation -> breaching -> violated. Only time covered by rows counts. A window that is not in violation starts it over; a gap
/// neither counts nor passes.
package struct ThresholdGate: Sendable {
    /// Both arms over one span of time, of all units.
    package struct Window: Sendable {
        package var fromMilliseconds: Int64
        package var toMilliseconds: Int64
        package var a: BlockSums
        package var b: BlockSums
        package init(fromMilliseconds: Int64, toMilliseconds: Int64, a: BlockSums, b: BlockSums) {
            self.fromMilliseconds = fromMilliseconds
            self.toMilliseconds = toMilliseconds
            self.a = a
            self.b = b
        }
    }

    /// A hole between rows longer than this is a gap: twice the longest span of a snapshot row.
    package static let gapMilliseconds: Int64 = 120_000
    /// What is compared are sums over the trailing minute: a few fills at least, and so short that a breach of minutes is not stretched to ten.
    package static let averagedMilliseconds: Int64 = 60_000

    package let gate: Gate
    private var recent: [Window] = []
    private var breachingMilliseconds: Int64 = 0
    private var isViolated = false
    private var latest = GateState.noData

    package init(_ gate: Gate) { self.gate = gate }

    package var state: GateState { latest }

    /// Windows in order of time; one that does not begin after the last one's beginning was seen already and is ignored.
    package mutating func add(_ window: Window) {
        if let last = recent.last {
            guard window.fromMilliseconds > last.fromMilliseconds else { return }
            if window.fromMilliseconds - last.toMilliseconds > Self.gapMilliseconds { recent.removeAll() }
        }
        recent.append(window)
        recent.removeAll { $0.toMilliseconds <= window.toMilliseconds - Self.averagedMilliseconds }
        if isViolated { return }
        var (a, b) = (BlockSums(), BlockSums())
        for window in recent {
            a += window.a
            b += window.b
        }
        guard let isBreach = isBreach(a, b) else {
            latest = a.ticks + a.fills + b.ticks + b.fills == 0 ? .noData : .warming
            return
        }
        guard isBreach else {
            breachingMilliseconds = 0
            latest = .clear
            return
        }
        breachingMilliseconds += window.toMilliseconds - window.fromMilliseconds
        isViolated = breachingMilliseconds >= gate.durationSeconds * 1000
        latest = isViolated ? .violated : .breaching(seconds: breachingMilliseconds / 1000, of: gate.durationSeconds)
    }

    /// No rows any more up to this instant: what was clear is not clear for ever.
    package mutating func silent(until milliseconds: Int64) {
        guard !isViolated, let last = recent.last, milliseconds - last.toMilliseconds > Self.gapMilliseconds else { return }
        latest = .noData
    }

    /// Nil when there is too little to say.
    private func isBreach(_ a: BlockSums, _ b: BlockSums) -> Bool? {
        let least = Int64(max(1, gate.minSamples))
        func samples(_ sums: BlockSums) -> Int64 {
            switch gate.limitMetric {
            case .slippage, .takerShare, .netLoss: sums.fills
            case .logLatency, .latency, .missRate: sums.ticks
            }
        }
        guard samples(b) >= least, let valueB = gate.limitMetric.value(b) else { return nil }
        if case .absolute(let limit) = gate.limit { return valueB > limit }
        guard samples(a) >= least, let valueA = gate.limitMetric.value(a) else { return nil }
        return switch gate.limit {
        case .difference(let limit): valueB - valueA > limit
        case .ratio(let limit): valueB > (1 + limit) * valueA
        case .absolute(let limit): valueB > limit
        }
    }
}

// MARK: - Objective

/// The absolute objective "at most 2 % of ticks late" (reference B.6): about the arm, not about a difference.
///
/// Observations are the fleet's miss rate of a whole pair, one for each arm.
package struct DeadlineObjective: Sendable {
    package enum Verdict: String, Sendable { case holds, harm, environment }
    package static let limit = 0.02
    package static let alpha = 0.0125
    private var a = BettingBound(alpha: alpha, expected: limit)
    private var b = BettingBound(alpha: alpha, expected: limit)
    package init() {}

    package mutating func add(_ pair: [UnitPair]) {
        var (onA, onB) = ((misses: 0.0, ticks: 0.0), (misses: 0.0, ticks: 0.0))
        for item in pair {
            for (half, isB) in [(item.first, item.sign < 0), (item.second, item.sign > 0)] {
                if isB {
                    onB = (onB.misses + Double(half.misses), onB.ticks + Double(half.ticks))
                } else {
                    onA = (onA.misses + Double(half.misses), onA.ticks + Double(half.ticks))
                }
            }
        }
        guard onA.ticks > 0, onB.ticks > 0 else { return }
        a.add(min(1, onA.misses / onA.ticks))
        b.add(min(1, onB.misses / onB.ticks))
    }

    /// `environment`: both arms are late, so the experiment pauses on A; `harm`: B alone is, and the experiment goes back.
    package var verdict: Verdict {
        let level = -Elementary.log(Self.alpha)
        guard b.logWealth(against: Self.limit) >= level else { return .holds }
        return a.logWealth(against: Self.limit) >= level ? .environment : .harm
    }
}
