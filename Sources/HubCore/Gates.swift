import CalibModel

// Safety gates (SPEC 7.3): what may stop an experiment, and the evidence for it.
//
// A gate is a row of `Gate.all`. The `sequential` kind is an e-process over pairs of switchback blocks; the `threshold` kind is the classical
// rule "worse than a limit for d seconds". Both are functions of stored rows: nothing here knows when it is asked, so polling fast, slowly,
// twice or after a restart gives the same answer.
//
// Invariants
//  1. An increment's sign is the experiment's own coin; its size uses what is symmetric in the two halves (weights, volatility), what the
//     arms cannot move (the market) and what earlier pairs taught (theta). No coin of this pair or a later one enters it.
//  2. Clusters of one group share a coin, so they are ONE increment.
//  3. A half without an exposure weighs 0: it is no zero (SPEC 1.5).
//  4. `violated` is final.

/// What a gate compares; larger is worse in every one.
package enum GateMetric: String, Sendable, CaseIterable {
    /// bps per fill; `calm`: blocks count by fills / volatility^2, since the noise of a fill grows with the market's.
    case slippage = "slippage_bps"
    /// bps of the notional filled (SPEC 1.6): what a threshold rule and a report compare.
    case notionalSlippage = "slippage_notional_bps"
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
        case .notionalSlippage: sums.fillNotional > 0 ? Double(sums.slipNotional) / 1e6 / Double(sums.fillNotional) : nil
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
        case .notionalSlippage: return harmonic(Double(first.fillNotional) / 1e8, Double(second.fillNotional) / 1e8)
        case .takerShare: return harmonic(Double(first.fills), Double(second.fills))
        case .logLatency, .latency: return 1
        case .missRate: return harmonic(Double(first.ticks), Double(second.ticks))
        case .netLoss:
            return harmonic(Double(first.markoutNotional) / 1e8, Double(second.markoutNotional) / 1e8) / Self.volatility2(first, second)
        }
    }

    /// The market's volatility in bps per sqrt s, where it may move the metric: `CUPED` takes out what it explains. Nil: no covariate, or
    /// nothing known of it.
    package func covariate(_ sums: BlockSums) -> Double? {
        switch self {
        case .slippage, .notionalSlippage, .netLoss:
            sums.returns > 0 ? (Double(sums.squaredReturn) / 1e9 / Double(sums.returns)).squareRoot() : nil
        case .takerShare, .logLatency, .latency, .missRate: nil
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
    package enum Kind: String, Sendable {
        case sequential, threshold
        /// The one planned look of a design whose units keep their arm.
        case fixedHorizon = "fixed_horizon"
    }

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

        var isAbsolute: Bool { if case .absolute = self { true } else { false } }
    }

    package var name: String
    package var kind = Kind.sequential
    package var alpha: Double
    package var hypotheses: [Hypothesis]
    package var limit: Limit
    package var limitMetric: GateMetric
    package var durationSeconds: Int64 = 600
    /// Sequential: pairs after which the boundary shall be tightest (the mixture's rho follows from it). Any number is valid; it only moves
    /// where power goes. Fixed in this table before an experiment begins, by how long the smallest harm worth stopping takes to show (reference
    /// C.2): +0.1 bps of slippage hours, so 4 h = 24 pairs; +1 p.p. of taker fills half a day, so 12 h = 72 pairs; a host that is late, within
    /// half an hour of four hundred ticks a block, so 1 h = 6 pairs. Tuned for 4 h those would need 19 equal increments instead of 13
    /// (`EProcess.fewestIncrements`).
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
            limit: .difference(0), limitMetric: .notionalSlippage),
        Gate(
            name: "taker_share_increase", alpha: 0.0075, hypotheses: [Hypothesis(.takerShare, tolerance: 0, margin: 0.005)],
            limit: .difference(0.01), limitMetric: .takerShare, decisionPairs: 72),
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
    /// Of a dry run, in which a tick has the work of both arms: none about time (SPEC 7.2).
    package static let dry = all.filter { $0.limitMetric != .latency && $0.limitMetric != .missRate }
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

    /// In violation now, or it was for long enough.
    var isBreach: Bool {
        switch self {
        case .breaching, .violated: true
        case .noData, .warming, .clear, .undecided: false
        }
    }

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
