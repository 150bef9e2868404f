import CalibModel

/// How long to wait before the next connect: anything up to a bound that doubles with every failure ("full jitter"), so that a fleet that lost
/// its peer at one moment does not come back at one moment.
package struct BackOff {
    private var failures = 0
    private let least: Int64
    private let random: @Sendable (ClosedRange<Int64>) -> Int64

    /// `least`: the first bound, ns. `random` draws from a range evenly.
    package init(from least: Int64 = Limits.reconnectNanosecondsMin, random: @escaping @Sendable (ClosedRange<Int64>) -> Int64) {
        (self.least, self.random) = (least, random)
    }

    /// Nanoseconds until the next attempt, at most `most`.
    package mutating func next(atMost most: Int64 = Limits.reconnectNanosecondsMax) -> Int64 {
        // 2^17 x 50 ms is beyond every maximum.
        let bound = min(most, least << Int64(min(failures, 17)))
        failures += 1
        return random(0...bound)
    }

    /// The peer proved itself: the next failure is the first again.
    package mutating func reset() { failures = 0 }
}
