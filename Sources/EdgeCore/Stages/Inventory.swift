import CalibModel

/// Skews both quotes against the position: long moves both down, short both up (SPEC 4.4).
package enum InventoryStage {
    package struct Output: Sendable {
        /// Signed % of max_position.
        package var percent: Double
        /// > 0 when long.
        package var skew: BasisPoints
    }

    package static func percent(positionLots: Int64, maxPositionLots: Int64) -> Double {
        Double(positionLots) / Double(maxPositionLots) * 100
    }

    /// 0.1 bps per % beyond a dead band of 5 %, at most 0.6 bps.
    package static func run(percent: Double) -> Output {
        let beyond = percent.magnitude - 5
        guard beyond > 0 else { return Output(percent: percent, skew: .zero) }
        let size = BasisPoints(min(0.1 * beyond, 0.6)) ?? .zero
        return Output(percent: percent, skew: percent > 0 ? size : -size)
    }
}
