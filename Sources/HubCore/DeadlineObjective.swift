import CalibModel

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
