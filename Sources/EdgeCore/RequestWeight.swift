import CalibModel

/// How much of a venue's REST allowance an edge may use: a bucket of one fifth of what the venue grants a minute, refilled evenly (SPEC 3.4). A
/// venue that says "too much" closes it for as long as the venue says.
///
/// A bucket that has rested holds a minute's share, so within any one minute at most two fifths are used.
package struct RequestWeight: Sendable {
    private static let minuteNanoseconds: Int64 = 60_000_000_000
    /// Weight a minute.
    package let share: Int64
    /// In weight x nanoseconds of a minute, so that refilling is exact.
    private var level: Int128
    private var refilledAt: Instant?
    package private(set) var closedUntil: Instant?
    /// What was taken since the start.
    package private(set) var taken: Int64 = 0

    /// `perMinute` is what the venue grants.
    package init(perMinute: Int64) {
        share = perMinute / 5
        level = Int128(share) * Int128(Self.minuteNanoseconds)
    }

    /// False, and nothing taken, when there is not enough left or the venue wants quiet.
    package mutating func take(_ weight: Int64, at now: Instant) -> Bool {
        precondition(weight >= 0 && weight <= share, "BUG: a weight of \(weight) out of \(share)")
        if let closedUntil, now < closedUntil { return false }
        closedUntil = nil
        let full = Int128(share) * Int128(Self.minuteNanoseconds)
        if let refilledAt { level = min(full, level + Int128(max(0, now.since(refilledAt))) * Int128(share)) }
        refilledAt = now
        let cost = Int128(weight) * Int128(Self.minuteNanoseconds)
        guard level >= cost else { return false }
        level -= cost
        taken += weight
        return true
    }

    /// The venue answered 418 or 429: nothing is asked for before `instant`. A shorter wish does not take back a longer one.
    package mutating func close(until instant: Instant) { closedUntil = max(closedUntil ?? instant, instant) }
}
