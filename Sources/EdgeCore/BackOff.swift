import CalibModel

/// How long to wait before the next connect: anything up to a bound that doubles with every failure ("full jitter"), so that a fleet that lost
/// its peer at one moment does not come back at one moment.
package struct BackOff {
    private var failures = 0
    private let random: @Sendable (ClosedRange<Int64>) -> Int64

    /// `random` draws from a range evenly.
    package init(random: @escaping @Sendable (ClosedRange<Int64>) -> Int64) { self.random = random }

    /// Nanoseconds until the next attempt, at most `most`.
    package mutating func next(atMost most: Int64 = Limits.reconnectNanosecondsMax) -> Int64 {
        // 2^17 x 200 ms is beyond every maximum.
        let bound = min(most, Limits.reconnectNanosecondsMin << Int64(min(failures, 17)))
        failures += 1
        return random(0...bound)
    }

    /// The peer proved itself: the next failure is the first again.
    package mutating func reset() { failures = 0 }
}
