import CalibModel

/// The full width to quote, from four scores between 0 and 1 (SPEC 4.2).
package enum SpreadStage {
    package struct Input: Sendable {
        /// bps per sqrt minute = vol_realized * sqrt 60; nil scores 0.
        package var volatilityPerRootMinute: Double?
        /// Mean of the two sides' best five levels, in multiples of our order quantity.
        package var depthMultiple: Double
        package var tickP95Milliseconds: Double
        package var pnlZ: Double?
        package var usedStale: Bool
    }

    package struct Output: Sendable {
        package var volScore: Double
        package var liqScore: Double
        package var latScore: Double
        package var pnlScore: Double
        /// Clamped, before any widening.
        package var target: BasisPoints
        /// Target plus stale widening.
        package var spread: BasisPoints
    }

    package static func run(_ input: Input, _ parameters: Parameters.Spread, staleWiden: BasisPoints) -> Output {
        let vol = score(input.volatilityPerRootMinute ?? 5, zeroAt: 5, oneAt: 25)
        let liq = score(input.depthMultiple, zeroAt: 10, oneAt: 1)
        let lat = score(input.tickP95Milliseconds, zeroAt: 150, oneAt: 400)
        let pnl = score(input.pnlZ ?? 0, zeroAt: 0, oneAt: -2.5)
        let raw = parameters.base.value + 1.5 * 0.6 * vol + 1.0 * 0.4 * liq + 0.8 * 0.3 * lat + 1.2 * 0.3 * pnl
        // The sum of finite terms is finite; the maximum is the safe answer all the same.
        let target = min(max(BasisPoints(raw) ?? parameters.maximum, parameters.minimum), parameters.maximum)
        return Output(
            volScore: vol, liqScore: liq, latScore: lat, pnlScore: pnl, target: target,
            spread: input.usedStale ? target + staleWiden : target)
    }

    /// Linear between the two ends, clamped; works in either direction.
    static func score(_ value: Double, zeroAt zero: Double, oneAt one: Double) -> Double {
        guard value.isFinite else { return 1 }
        // Most values are at an end, and need no division.
        let (beyond, span) = zero < one ? (value - zero, one - zero) : (zero - value, zero - one)
        return beyond <= 0 ? 0 : beyond >= span ? 1 : beyond / span
    }
}
