import CalibModel

/// Moves a quote that stands too far back in its queue towards the best price, a little and not often (SPEC 4.5).
package enum QueueAwareStage {
    package struct Input: Sendable {
        /// Quantity at better prices and ahead of us at our own, in lots.
        package var ahead: Int64
        /// Quantity of the best three levels of our side, in lots.
        package var topThree: Int64
        /// From the un-nudged target to the best price of our side, in bps of the mid; <= 0 when the target is not behind it.
        package var distanceToBest: BasisPoints
        package var previousNudge: BasisPoints
        package var nudgedAt: Instant?
        package var now: Instant

        /// Of the best three levels' quantity, how much is ahead, in %: 0 when they are empty, 100 at most.
        package var percentileAhead: Double { topThree > 0 ? min(100, Double(ahead) / Double(topThree) * 100) : 0 }
        /// Whether that is above 30, without a division.
        fileprivate var isFarBehind: Bool { topThree > 0 && Int128(ahead) * 10 > Int128(topThree) * 3 }
    }

    package struct Output: Sendable {
        package var nudge: BasisPoints
        package var nudgedAt: Instant?
    }

    /// A change below this is not worth a message.
    static let smallestChange = BasisPoints(micro: 10_000)

    package static func run(_ input: Input, maximum: BasisPoints, interval: Int64) -> Output {
        let room = max(.zero, input.distanceToBest)
        // Never past the best, also between two decisions.
        let held = min(input.previousNudge, room)
        if let last = input.nudgedAt, input.now.since(last) < interval {
            return Output(nudge: held, nudgedAt: last)
        }
        let wanted = input.isFarBehind ? min(maximum, room) : .zero
        let change = wanted - held
        guard max(change, -change) >= smallestChange else {
            return Output(nudge: held, nudgedAt: input.nudgedAt)
        }
        return Output(nudge: wanted, nudgedAt: input.now)
    }
}
