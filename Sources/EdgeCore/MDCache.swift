import CalibModel

/// The push-fed market-data cache of one symbol: when was its book last proven current, and what may be served (SPEC 3.2-3.5).
///
/// States: unproven (no age) -> proven at an instant with a lateness; a gap or an invalidation un-proves. The book itself is `Book`; this type
/// only knows its age.
package struct MDCache: Sendable {
    /// Which rule a read follows.
    package enum Outcome: Sendable, Equatable {
        /// Younger than `fresh_ms_for_pricing`.
        case hit
        /// Served old while a refresh runs; the spread is widened.
        case stale
        /// A refresh was needed first.
        case miss
        /// Nothing may be placed: no proven book, or nothing young enough.
        case refused
    }

    private var provenAt: Instant?
    private var topicProvenAt: Instant?
    private var lateness: Int64 = 0
    private var baseline = LatenessBaseline()

    package init() {}

    /// The symbol's own topic proved the book. `venueMilliseconds` is the frame's event time, nil when the frame has none.
    package mutating func prove(at now: Moment, venueMilliseconds: Int64?) {
        topicProvenAt = now.instant
        renew(at: now, venueMilliseconds)
    }

    /// Another frame of the same gapless connection: extends the proof while the topic itself was proven recently enough.
    package mutating func extend(at now: Moment, venueMilliseconds: Int64?, _ parameters: Parameters.Cache) {
        guard provenAt != nil, topicIsRecent(at: now.instant, parameters) else { return }
        renew(at: now, venueMilliseconds)
    }

    /// A gap or a price jump: nothing is served until the next proof.
    package mutating func invalidate() {
        provenAt = nil
        lateness = 0
    }

    /// Nanoseconds since the last proof plus the frame's lateness; nil when unproven.
    package func age(at now: Instant) -> Int64? {
        guard let provenAt else { return nil }
        return now.since(provenAt) + lateness
    }

    /// The two reads of a tick: guards (fresh only) and pricing. `answers`: the connection answers pings, so that a refresh succeeds at
    /// once while the topic is recent; replay counts as answered until a recorded disconnect (SPEC 3.2).
    package mutating func read(at now: Instant, answers: Bool, _ parameters: Parameters.Cache) -> (outcome: Outcome, age: Int64?) {
        guard let first = age(at: now) else {
            // Invalidated by a jump: a refresh may prove it again; a gap leaves the topic unproven too.
            return refresh(at: now, answers: answers, parameters) ? (.miss, 0) : (.refused, nil)
        }
        if !parameters.isEnabled || first > parameters.ttlNanoseconds {
            return refresh(at: now, answers: answers, parameters) ? (.miss, 0) : (.refused, first)
        }
        if first <= parameters.freshForPricingNanoseconds { return (.hit, first) }
        if parameters.staleIsOK, !parameters.skipsPricingOnStale, first <= parameters.maxStaleNanoseconds {
            _ = refresh(at: now, answers: answers, parameters)
            return (.stale, first)
        }
        if parameters.skipsPricingOnStale { return (.refused, first) }
        return refresh(at: now, answers: answers, parameters) ? (.miss, 0) : (.refused, first)
    }

    /// Whether resting quotes must be pulled: the last proof is older than `max_stale_ms` (SPEC 3.5).
    package func watchdogFires(at now: Instant, answers: Bool, _ parameters: Parameters.Cache) -> Bool {
        guard let age = age(at: now) else { return true }
        guard age > parameters.maxStaleNanoseconds else { return false }
        return !(answers && topicIsRecent(at: now, parameters))
    }

    /// The wall clock was set: what frames took to come is counted on the new one.
    package mutating func clockStepped(by nanoseconds: Int64) { baseline.clockStepped(by: nanoseconds) }

    /// A gap: the topic itself is unproven, so no ping can prove the book.
    package mutating func lose() {
        invalidate()
        topicProvenAt = nil
    }

    private mutating func refresh(at now: Instant, answers: Bool, _ parameters: Parameters.Cache) -> Bool {
        guard answers, topicIsRecent(at: now, parameters) else { return false }
        provenAt = now
        lateness = 0
        return true
    }

    private func topicIsRecent(at now: Instant, _ parameters: Parameters.Cache) -> Bool {
        guard let topicProvenAt else { return false }
        return now.since(topicProvenAt) <= parameters.topicProofNanoseconds
    }

    private mutating func renew(at now: Moment, _ venueMilliseconds: Int64?) {
        provenAt = now.instant
        // A time outside 1970...2099 says nothing.
        guard let venueMilliseconds, (0..<4_102_444_800_000).contains(venueMilliseconds) else {
            lateness = 0
            return
        }
        lateness = baseline.lateness(of: now.wall.nanoseconds &- venueMilliseconds &* 1_000_000, at: now.instant)
    }
}

/// How late a frame is against the fastest of the last five minutes: clocks of host and venue differ by an unknown offset (1.27 s in the
/// recordings), so only the excess over the minimum says anything.
package struct LatenessBaseline: Sendable {
    private static let windowNanoseconds: Int64 = 30_000_000_000
    /// An hour: far above every limit that an age is compared with, far below what could overflow one.
    private static let longest: Int64 = 3_600_000_000_000
    private var minima: InlineArray<10, Int64> = .init(repeating: .max)
    private var window: Int64 = .min

    package init() {}

    /// Every receive time from now on is that much later: without this, all frames were late by a step forward for five minutes.
    package mutating func clockStepped(by nanoseconds: Int64) {
        for index in 0..<10 where minima[index] != .max { minima[index] = minima[index] &+ nanoseconds }
    }

    /// Nanoseconds above the minimum of (receive - venue time), this sample included: never negative.
    package mutating func lateness(of difference: Int64, at now: Instant) -> Int64 {
        let current = now.nanoseconds.flooredDivision(by: Self.windowNanoseconds)
        if current != window {
            let passed = window == .min ? 10 : min(10, max(1, current - window))
            for step in 0..<passed { minima[Int((current - step).flooredRemainder(by: 10))] = .max }
            window = current
        }
        let slot = Int(current.flooredRemainder(by: 10))
        if difference < minima[slot] { minima[slot] = difference }
        var minimum = difference
        for index in 0..<10 where minima[index] < minimum { minimum = minima[index] }
        return min(Self.longest, difference - minimum)
    }
}
