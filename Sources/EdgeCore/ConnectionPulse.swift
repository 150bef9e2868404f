import CalibModel

/// Whether one connection is alive: its frames, our pings and their answers (SPEC 3.2, 3.3).
///
/// Answers come in the order of the pings. A connection that neither answers nor sends for `invalidate_on_ws_gap_ms` beyond its usual round
/// trip has a gap: what it said last is not believed any more until it speaks again.
package struct ConnectionPulse: Sendable {
    /// The median is that of this many round trips.
    private static let tripsMax = 15

    package private(set) var isOpen = false
    package private(set) var lastFrameAt: Instant?
    /// The newest instant of which a frame told, earlier than its arrival by what it was late; nil before the first.
    package private(set) var provenAt: Instant?
    package private(set) var pings: Int64 = 0
    package private(set) var pongs: Int64 = 0
    package private(set) var gaps: Int64 = 0
    private var lastPingAt: Instant?
    private var unanswered: InlineArray<64, Instant> = .init(repeating: Instant(nanoseconds: 0))
    private var unansweredStart = 0
    private var unansweredCount = 0
    private var isInGap = false
    private var trips: InlineArray<15, Int64> = .init(repeating: 0)
    private var tripCount = 0
    private var fastest = LatenessBaseline()

    package init() {}

    // MARK: Events

    package mutating func opened(at now: Instant) {
        isOpen = true
        lastFrameAt = now
        provenAt = nil
        lastPingAt = nil
        unansweredCount = 0
        isInGap = false
    }

    package mutating func closed() {
        isOpen = false
        provenAt = nil
        unansweredCount = 0
        isInGap = false
    }

    /// Any frame.
    @inline(__always) package mutating func framed(at now: Instant) {
        lastFrameAt = now
        isInGap = false
    }

    /// A frame proved a book as of that instant.
    @inline(__always) package mutating func proved(_ proof: Instant?) {
        guard let proof else { return }
        if let provenAt, provenAt >= proof { return }
        provenAt = proof
    }

    package mutating func pinged(at now: Instant) {
        pings += 1
        lastPingAt = now
        guard unansweredCount < Limits.pingsInFlightMax else { return }
        unanswered[(unansweredStart + unansweredCount) % Limits.pingsInFlightMax] = now
        unansweredCount += 1
    }

    /// The oldest ping is answered: when it was sent, and how much longer the answer took than the fastest of five minutes. Nil when none was
    /// sent.
    package mutating func ponged(at now: Instant) -> (sentAt: Instant, excess: Int64)? {
        guard unansweredCount > 0 else { return nil }
        let sentAt = unanswered[unansweredStart]
        unansweredStart = (unansweredStart + 1) % Limits.pingsInFlightMax
        unansweredCount -= 1
        pongs += 1
        isInGap = false
        let trip = now.since(sentAt)
        trips[tripCount % Self.tripsMax] = trip
        tripCount += 1
        return (sentAt, fastest.lateness(of: trip, at: now))
    }

    // MARK: Questions

    /// Whether to ping now: after 100 ms without a frame, when a refresh wants it, and as a heartbeat; never sooner than `interval` after the
    /// last one.
    package func isPingDue(at now: Instant, isWanted: Bool, interval: Int64) -> Bool {
        guard isOpen, unansweredCount < Limits.pingsInFlightMax else { return false }
        guard let lastPingAt else { return true }
        let sincePing = now.since(lastPingAt)
        guard sincePing >= interval else { return false }
        if isWanted || sincePing >= Limits.heartbeatNanoseconds { return true }
        return lastFrameAt.map { now.since($0) >= Limits.freshnessPingNanoseconds } ?? true
    }

    /// How long the oldest ping has had no answer, while no frame came either; nil when nothing is awaited.
    package func silence(at now: Instant) -> Int64? {
        guard isOpen, unansweredCount > 0 else { return nil }
        let oldest = unanswered[unansweredStart]
        // A frame after the ping is a sign of life, although not an answer.
        let since = max(oldest, lastFrameAt ?? oldest)
        return now.since(since)
    }

    /// Median of the last round trips, nanoseconds; 0 before the first.
    package var medianTrip: Int64 {
        let count = min(tripCount, Self.tripsMax)
        guard count > 0 else { return 0 }
        var sorted = trips
        // Insertion sort of at most 15.
        for index in 1..<max(1, count) {
            var place = index
            while place > 0, sorted[place - 1] > sorted[place] {
                sorted.swapAt(place - 1, place)
                place -= 1
            }
        }
        return sorted[count / 2]
    }

    /// True once per gap: the connection has been silent for longer than `limit` beyond its round trip.
    package mutating func gapBegins(at now: Instant, limit: Int64) -> Bool {
        guard !isInGap, let silence = silence(at: now), silence - medianTrip > limit else { return false }
        isInGap = true
        gaps += 1
        return true
    }
}
