import CalibModel

/// The push-fed market-data cache of one symbol: when was its book last proven current, what may be served, and what proves it again
/// (SPEC 3.2-3.5). The book itself is `Book`; this type knows its age, its id and its generation.
///
///     entry:    unproven ──proof──▶ proven ──invalidation──▶ unproven, generation + 1
///     refresh:  idle ──read──▶ in flight (ping or snapshot) ──proof──▶ idle
///                                 ├─ invalidation ──▶ idle (voided)
///                                 └─ failure ──▶ idle, none before the back-off is over
///
/// Invariants
/// 1. Nothing unproven is served, and nothing older than `max_stale_ms`.
/// 2. At most one refresh is in flight; every read that needs one shares it. Nothing cancels it but an invalidation.
/// 3. An answer to what was asked before an invalidation proves nothing.
/// 4. Ages are monotonic time since the newest proof, plus how late that proof was; a REST proof is as old as its request.
/// 5. An answer with an id below the entry's never proves it.
package struct MDCache: Sendable {
    /// What a read is for.
    package enum Purpose: Sendable, CaseIterable {
        /// Fresh only: at most `ttl_ms` old.
        case guards
        /// A hit up to `fresh_ms_for_pricing`; older is served stale when allowed.
        case pricing
        /// Whatever may be served at all.
        case other
    }

    package enum Outcome: Int, Sendable, CaseIterable {
        /// Young enough without a refresh.
        case hit
        /// Served old while a refresh runs; the spread is widened.
        case stale
        /// A refresh was needed first, and it came.
        case miss
        /// Nothing may be placed: no proven book, or nothing young enough.
        case refused
    }

    /// Answer of one read. Nothing was served when `outcome` is `refused`; `awaitsRefresh` then says that a refresh is in flight which may
    /// still prove the book.
    package struct Reading: Sendable, Equatable {
        package var outcome: Outcome
        /// Nanoseconds; nil when unproven.
        package var age: Int64?
        package var awaitsRefresh = false
    }

    /// How a book is proven again without a frame of its own (SPEC 3.4).
    package enum Refresh: Sendable, Equatable { case ping, snapshot }

    package enum Invalidation: Int, Sendable, CaseIterable {
        /// The sequence has a hole.
        case sequenceGap
        case disconnect
        /// The connection does not answer (`invalidate_on_ws_gap_ms`).
        case webSocketGap
        /// The mid moved by more than `invalidate_on_jump_bps` between two updates.
        case priceJump
        /// A trade or a bookTicker says something else, and no book frame came for a second.
        case contradiction
        case crossed
        /// The venue changed the instrument.
        case instrument
        /// The touch has left the levels that the snapshot showed.
        case beyondSnapshot

        package var text: StaticString {
            switch self {
            case .sequenceGap: "sequence_gap"
            case .disconnect: "disconnect"
            case .webSocketGap: "ws_gap"
            case .priceJump: "price_jump"
            case .contradiction: "contradiction"
            case .crossed: "crossed"
            case .instrument: "instrument"
            case .beyondSnapshot: "beyond_snapshot"
            }
        }
    }

    /// What a REST snapshot meant.
    package enum SnapshotVerdict: Sendable, Equatable {
        case proved
        /// Nobody waits for it any more, or it was asked for under an older generation.
        case voided
        /// Its id is below the entry's.
        case older
        /// It shows other levels than the book.
        case disagrees
    }

    private struct InFlight: Sendable {
        var kind: Refresh
        var begunAt: Instant
    }

    /// How often a proof may be served to guards.
    private enum Servings { case unlimited, one, none }

    /// The newest proof, earlier by what it was late.
    private var provenAt: Instant?
    private var topicProvenAt: Instant?
    private var servings = Servings.unlimited
    /// Of the newest push or snapshot that proved the entry: `u` on Binance, `seq` on Bybit.
    package private(set) var id: Int64 = .min
    /// Rises with every invalidation.
    package private(set) var generation: Int64 = 0
    private var invalidatedAt = Instant(nanoseconds: .min)
    private var inFlight: InFlight?
    private var isRequested = false
    private var failures = 0
    private var retryAt: Instant?
    private var jitter: SplitMix64
    private var baseline = LatenessBaseline()
    package private(set) var counts = CacheCounts()

    /// - Parameter seed: of the back-off's jitter.
    package init(seed: UInt64 = 0) { jitter = SplitMix64(state: seed) }

    // MARK: Proofs

    /// The symbol's own topic proved the book. `venueMilliseconds` is the frame's event time, nil when the frame has none.
    package mutating func prove(at now: Moment, venueMilliseconds: Int64?, id: Int64? = nil) {
        topicProvenAt = now.instant
        if let id { self.id = id }
        renew(at: now, venueMilliseconds)
    }

    /// Another frame about the symbol on the same gapless connection: extends the proof while the topic itself was proven recently enough.
    package mutating func extend(at now: Moment, venueMilliseconds: Int64?, _ parameters: Parameters.Cache) {
        guard provenAt != nil, topicIsRecent(at: now.instant, parameters) else { return }
        renew(at: now, venueMilliseconds)
    }

    /// The connection carried a frame about another symbol, current as of that instant.
    package mutating func extend(to proof: Instant, at now: Instant, _ parameters: Parameters.Cache) {
        guard let provenAt, proof > provenAt, topicIsRecent(at: now, parameters) else { return }
        self.provenAt = proof
        servings = .unlimited
        landed(by: proof, at: now)
    }

    /// The connection answered a ping sent at `sentAt`: all it had sent before has arrived. `excess` is how much longer the answer took than
    /// the fastest one. False when it proves nothing about this book.
    @discardableResult package mutating func ponged(
        sentAt: Instant, at now: Instant, excess: Int64, _ parameters: Parameters.Cache
    ) -> Bool {
        // Invariant 3.
        guard topicIsRecent(at: now, parameters), sentAt >= invalidatedAt else { return false }
        let proof = now.advanced(nanoseconds: -excess)
        provenAt = provenAt.map { max($0, proof) } ?? proof
        servings = .unlimited
        land(at: now)
        return true
    }

    /// A REST snapshot came.
    ///
    /// - Parameters:
    ///   - agrees: its best levels are the book's.
    ///   - provesTopic: it stands for a frame of the topic (Binance); else it serves one guarded tick (Bybit, SPEC 3.4).
    package mutating func snapshotAnswered(
        id: Int64, agrees: Bool, sentAt: Instant, at now: Instant, provesTopic: Bool
    ) -> SnapshotVerdict {
        guard let inFlight, inFlight.kind == .snapshot, sentAt >= inFlight.begunAt else { return .voided }
        guard id >= self.id else {
            failed(at: now)
            return .older
        }
        guard agrees else {
            failed(at: now)
            return .disagrees
        }
        self.id = id
        provenAt = provenAt.map { max($0, sentAt) } ?? sentAt
        servings = provesTopic ? .unlimited : .one
        if provesTopic { topicProvenAt = max(topicProvenAt ?? sentAt, sentAt) }
        land(at: now)
        return .proved
    }

    /// The request for a REST snapshot got no usable answer.
    package mutating func snapshotFailed(at now: Instant) {
        guard inFlight?.kind == .snapshot else { return }
        failed(at: now)
    }

    // MARK: Invalidation

    /// Nothing is served until the next proof; refreshes begun before are void.
    package mutating func invalidate(_ reason: Invalidation, at now: Instant) {
        generation += 1
        invalidatedAt = now
        provenAt = nil
        servings = .unlimited
        if inFlight != nil {
            inFlight = nil
            isRequested = false
            counts.refreshesVoided += 1
        }
        counts.invalidations[reason.rawValue] += 1
    }

    /// The topic itself is unproven, so that no ping can prove the book: a gap, or the end of the connection.
    package mutating func lose(_ reason: Invalidation, at now: Instant) {
        invalidate(reason, at: now)
        topicProvenAt = nil
        id = .min
    }

    /// The wall clock was set: what frames took to come is counted on the new one.
    package mutating func clockStepped(by nanoseconds: Int64) { baseline.clockStepped(by: nanoseconds) }

    // MARK: Reads

    /// Nanoseconds since the last proof, plus what it was late; nil when unproven.
    package func age(at now: Instant) -> Int64? { provenAt.map { now.since($0) } }

    /// How much this host's clock is ahead of the venue's, the fastest frame's way included: the least (receive - venue time) of about five minutes,
    /// ns. Nil before a frame said when it was sent.
    package var venueClockOffsetNanoseconds: Int64? { baseline.minimum }

    /// When the entry was proven last, for the other books of the connection.
    package var newestProof: Instant? { provenAt }

    /// One read. `answers`: a refresh succeeds at once while the topic is recent; replay counts as answered until a recorded disconnect
    /// (SPEC 3.2).
    package mutating func read(_ purpose: Purpose, at now: Instant, answers: Bool, _ parameters: Parameters.Cache) -> Reading {
        let age = servings == .none ? nil : age(at: now)
        let mayServe = parameters.isEnabled && age != nil
        let first = age ?? .max
        switch purpose {
        case .guards where mayServe && first <= min(parameters.ttlNanoseconds, parameters.maxStaleNanoseconds):
            return Reading(outcome: .hit, age: age)
        case .pricing where mayServe && first <= parameters.freshForPricingNanoseconds:
            return Reading(outcome: .hit, age: age)
        case .pricing where mayServe && parameters.skipsPricingOnStale:
            return Reading(outcome: .refused, age: age)
        case .pricing where mayServe && parameters.staleIsOK && first <= parameters.maxStaleNanoseconds:
            _ = refresh(at: now, answers: answers, parameters)
            return Reading(outcome: .stale, age: age)
        case .other where mayServe && first <= parameters.maxStaleNanoseconds:
            return Reading(outcome: first <= parameters.freshForPricingNanoseconds ? .hit : .stale, age: age)
        case .guards, .pricing, .other:
            if refresh(at: now, answers: answers, parameters) { return Reading(outcome: .miss, age: 0) }
            return Reading(outcome: .refused, age: age, awaitsRefresh: inFlight != nil)
        }
    }

    /// The two reads of a tick: guards, then pricing. `hasWaited`: a refresh came for this tick, so what it proved is served even where the
    /// settings want one before every tick.
    package mutating func readForTick(at now: Instant, answers: Bool, hasWaited: Bool = false, _ parameters: Parameters.Cache) -> Reading {
        var settings = parameters
        if hasWaited, let provenAt, now.since(provenAt) <= parameters.ttlNanoseconds {
            settings.isEnabled = true
            settings.staleIsOK = true
            settings.skipsPricingOnStale = false
        }
        var reading = read(.guards, at: now, answers: answers, settings)
        if reading.outcome == .hit { reading = read(.pricing, at: now, answers: answers, settings) }
        if reading.outcome != .refused, servings == .one { servings = .none }
        return reading
    }

    /// The age at which both reads of a tick hit without further ado, as `readForTick` would find it; nil when it takes more to tell.
    @inline(__always) func freshAge(at now: Instant, _ parameters: UnsafePointer<Parameters>) -> Int64? {
        guard case .unlimited = servings, !isRequested, parameters.pointee.cache.isEnabled, let provenAt else { return nil }
        let age = now.since(provenAt)
        let isFresh =
            age <= parameters.pointee.cache.ttlNanoseconds && age <= parameters.pointee.cache.maxStaleNanoseconds
            && age <= parameters.pointee.cache.freshForPricingNanoseconds
        return isFresh ? age : nil
    }

    /// Whether resting quotes must be pulled: the last proof is older than `max_stale_ms` (SPEC 3.5).
    package func watchdogFires(at now: Instant, answers: Bool, _ parameters: Parameters.Cache) -> Bool {
        guard let age = age(at: now) else { return true }
        guard age > parameters.maxStaleNanoseconds else { return false }
        return !(answers && topicIsRecent(at: now, parameters))
    }

    /// One read more, as it ended.
    package mutating func count(_ outcome: Outcome) { counts.requests[outcome.rawValue] += 1 }
    /// A tick that waited for a refresh waits no more.
    package mutating func waitTimedOut() { counts.waitsTimedOut += 1 }

    // MARK: Refreshes

    /// The refresh to be asked for; once each.
    package mutating func takeRefresh() -> Refresh? {
        guard isRequested else { return nil }
        isRequested = false
        return inFlight?.kind
    }

    package var isRefreshing: Bool { inFlight != nil }

    /// Sees to it that a refresh is in flight, if one may be. True when the book is proven now.
    private mutating func refresh(at now: Instant, answers: Bool, _ parameters: Parameters.Cache) -> Bool {
        if answers {
            guard topicIsRecent(at: now, parameters) else { return false }
            counts.refreshesBegun += 1
            counts.refreshesDone += 1
            provenAt = now
            return true
        }
        if let inFlight {
            guard now.since(inFlight.begunAt) > Limits.refreshNanosecondsMax else { return false }
            failed(at: now)
        }
        if let retryAt, now < retryAt { return false }
        inFlight = InFlight(kind: topicIsRecent(at: now, parameters) ? .ping : .snapshot, begunAt: now)
        isRequested = true
        counts.refreshesBegun += 1
        return false
    }

    private mutating func land(at now: Instant) {
        guard let inFlight else { return }
        self.inFlight = nil
        isRequested = false
        failures = 0
        retryAt = nil
        counts.refreshesDone += 1
        counts.refreshDurations.add(now.since(inFlight.begunAt))
    }

    private mutating func failed(at now: Instant) {
        inFlight = nil
        isRequested = false
        counts.refreshesFailed += 1
        let bound = min(Limits.refreshBackOffNanosecondsMax, Limits.refreshBackOffNanosecondsMin << Int64(min(failures, 10)))
        failures += 1
        // Half of it at least, so that a venue that fails at once is not asked again at once.
        retryAt = now.advanced(nanoseconds: bound / 2 + Int64(jitter.next() % UInt64(bound / 2 + 1)))
    }

    // MARK: Leaves

    private func topicIsRecent(at now: Instant, _ parameters: Parameters.Cache) -> Bool {
        guard let topicProvenAt else { return false }
        return now.since(topicProvenAt) <= parameters.topicProofNanoseconds
    }

    private mutating func renew(at now: Moment, _ venueMilliseconds: Int64?) {
        servings = .unlimited
        // A time outside 1970...2099 says nothing. Binance sends microseconds where the stream was asked for them (`timeUnit`).
        guard let time = venueMilliseconds,
            let unit: Int64 = (0..<4_102_444_800_000).contains(time) ? 1_000_000 : Self.isMicroseconds(time) ? 1_000 : nil
        else {
            provenAt = now.instant
            return landed(by: now.instant, at: now.instant)
        }
        let lateness = baseline.lateness(of: now.wall.nanoseconds &- time &* unit, at: now.instant)
        let proof = now.instant.advanced(nanoseconds: -lateness)
        provenAt = proof
        landed(by: proof, at: now.instant)
    }

    /// From 2001 to 2099: far from what milliseconds may be.
    private static func isMicroseconds(_ time: Int64) -> Bool { (1_000_000_000_000_000..<4_102_444_800_000_000).contains(time) }

    /// A frame is what a refresh in flight is waited for when it tells of the time since.
    private mutating func landed(by proof: Instant, at now: Instant) {
        guard let inFlight, proof >= inFlight.begunAt else { return }
        land(at: now)
    }
}

/// What the cache of one symbol has done since the start.
package struct CacheCounts: Sendable {
    /// By `MDCache.Outcome`.
    package fileprivate(set) var requests: InlineArray<4, Int64> = .init(repeating: 0)
    /// By `MDCache.Invalidation`.
    package fileprivate(set) var invalidations: InlineArray<8, Int64> = .init(repeating: 0)
    package fileprivate(set) var refreshesBegun: Int64 = 0
    package fileprivate(set) var refreshesDone: Int64 = 0
    package fileprivate(set) var refreshesVoided: Int64 = 0
    package fileprivate(set) var refreshesFailed: Int64 = 0
    /// Ticks whose 50 ms passed before their refresh came.
    package fileprivate(set) var waitsTimedOut: Int64 = 0
    /// How long refreshes took that are done, ns. Replay's take no time and are not in it.
    package fileprivate(set) var refreshDurations = BoundedHistogram(bounds: MetricBounds.refresh)

    package init() {}
}

/// How late a frame is against the fastest of the last five minutes: clocks of host and venue differ by an unknown offset (1.27 s in the
/// recordings), so only the excess over the minimum says anything.
package struct LatenessBaseline: Sendable {
    private static let windowNanoseconds: Int64 = 30_000_000_000
    /// An hour: far above every limit that an age is compared with, far below what could overflow one.
    private static let longest: Int64 = 3_600_000_000_000
    private var minima: InlineArray<10, Int64> = .init(repeating: .max)
    private var window: Int64 = .min
    /// The present window, as long as time is in it: where it ends, its place, and the least of the other windows.
    private var windowEnds = Instant(nanoseconds: .min)
    private var slot = 0
    private var leastOfOthers: Int64 = .max

    package init() {}

    /// Every receive time from now on is that much later: without this, all frames were late by a step forward for five minutes.
    package mutating func clockStepped(by nanoseconds: Int64) {
        for index in 0..<10 where minima[index] != .max { minima[index] = minima[index] &+ nanoseconds }
        if leastOfOthers != .max { leastOfOthers = leastOfOthers &+ nanoseconds }
    }

    /// The least (receive - venue time) of the windows held, ns; nil before any.
    package var minimum: Int64? {
        var minimum = Int64.max
        for index in 0..<10 { minimum = min(minimum, minima[index]) }
        return minimum == .max ? nil : minimum
    }

    /// Nanoseconds above the minimum of (receive - venue time), this sample included: never negative.
    package mutating func lateness(of difference: Int64, at now: Instant) -> Int64 {
        if now >= windowEnds || now.nanoseconds < windowEnds.nanoseconds - Self.windowNanoseconds { enterWindow(at: now) }
        if difference < minima[slot] { minima[slot] = difference }
        let minimum = min(minima[slot], leastOfOthers)
        return min(Self.longest, difference - minimum)
    }

    private mutating func enterWindow(at now: Instant) {
        let current = now.nanoseconds.flooredDivision(by: Self.windowNanoseconds)
        let passed = window == .min ? 10 : min(10, max(1, current - window))
        for step in 0..<passed { minima[Int((current - step).flooredRemainder(by: 10))] = .max }
        window = current
        windowEnds = Instant(nanoseconds: (current + 1) * Self.windowNanoseconds)
        slot = Int(current.flooredRemainder(by: 10))
        leastOfOthers = .max
        for index in 0..<10 where index != slot { leastOfOthers = min(leastOfOthers, minima[index]) }
    }
}
