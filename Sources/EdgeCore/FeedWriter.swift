import CalibModel
import Wire

/// What the writer wants done, in this order. The shell does each that `mayPerform` allows and tells the outcome with `done` or `failed`.
package enum FeedEffect: Equatable, Sendable {
    /// Append these bytes of `FeedWriter.pendingBytes(of:)` to the feed's file of that day: whole rows. When it fails, the file must end where
    /// it ended before, at the latest when it is appended to again.
    case append(Feed, CalendarDay, Range<Int>)
    /// Make everything appended to the feed so far durable.
    case sync(Feed)
    /// Take back from the feed's open file what no sync has covered, and open it anew: a sync failed, so nobody knows what of it is on disk.
    case takeBack(Feed)

    package var feed: Feed {
        switch self {
        case .append(let feed, _, _), .sync(let feed), .takeBack(let feed): feed
        }
    }
}

/// How much was written, per feed.
package struct FeedStatistics: Sendable, Equatable {
    package struct Counts: Sendable, Equatable {
        package var rows: Int64 = 0
        package var bytes: Int64 = 0
        /// Operations on the feed's files that failed; each was tried again.
        package var errors: Int64 = 0
        package init() {}
    }
    private var counts = [Counts](repeating: Counts(), count: Feed.allCases.count)
    /// Calls of fdatasync that did their work.
    package var syncs: Int64 = 0
    package init() {}

    package internal(set) subscript(feed: Feed) -> Counts {
        get { counts[feed.place] }
        set { counts[feed.place] = newValue }
    }
    package var rows: Int64 { counts.reduce(0) { $0 + $1.rows } }
    package var bytes: Int64 { counts.reduce(0) { $0 + $1.bytes } }
}

extension Feed {
    /// The order in which rows are written: what others refer to comes first, so that a run number or a fill id on disk has its row there too.
    package static let writingOrder: [Feed] = [.events, .fills, .markouts, .snapshots, .quotes, .ticks]

    /// The feed's place in `allCases`.
    package var place: Int {
        switch self {
        case .fills: 0
        case .markouts: 1
        case .events: 2
        case .snapshots: 3
        case .quotes: 4
        case .ticks: 5
        }
    }
}

/// Formats records, numbers them, and decides when bytes are written, made durable and tried again (SPEC 2.7). Pure: time comes in, effects
/// come out.
///
/// Use: append every record at hand, then `endDrain(at:)`, then do the effects, then `performed()`.
///
/// Every row stays in memory until a sync has covered it. An append that failed is tried again from the same byte. After a sync that failed
/// the kernel may have dropped the pages and forgotten the error, so a second sync proves nothing: what no sync has covered is taken back
/// from the file, written again from memory, and synced through a new descriptor.
///
/// Invariants:
/// 1. `seq` rises by one per row per feed, from the number recovered; further only where the hub holds more of this epoch than the disk does.
/// 2. A feed's day never goes back: a row whose `ts` lies in an earlier day stays in the current file (SPEC 1.1).
/// 3. Before a feed's first row of a new day is written, the old day's file is synced, so at most one file per feed is ever unsynced.
/// 4. After `endDrain`, while the disk is healthy, nothing waits to be written: a killed process loses nothing that it drained.
/// 5. While the disk is healthy a sync is never later than its bound, as long as `endDrain` is called every `wakeNanoseconds`.
/// 6. A day is told complete when its last row is durable; nothing is written to its file afterwards.
package struct FeedWriter {
    /// The longest pause between two drains.
    package static let wakeNanoseconds: Int64 = 5_000_000
    /// How long the first unsynced byte may wait (SPEC 2.7).
    package static func syncNanoseconds(_ feed: Feed) -> Int64 { feed.isUrgent ? 20_000_000 : 1_000_000_000 }

    /// Where in a feed's bytes a sync must come: after a mebibyte, or at the end of a day.
    private struct Mark {
        var end: Int
        var day: CalendarDay
        var endsDay: Bool
    }

    private struct State {
        var nextSeq: Int64
        var day: CalendarDay?
        /// What no sync has covered yet.
        var rows = JSONWriter()
        /// Of `rows`: what is in the file, and what a sync has covered since `endDrain`.
        var written = 0
        var synced = 0
        var marks: [Mark] = []
        var firstUnsynced: Instant?
        var trouble: Trouble?
        /// A sync failed: the file's end is not to be trusted.
        var isSuspect = false
        /// Something failed since `endDrain`: the feed's other effects are void.
        var isHeldBack = false

        /// Bytes behind the last place where a sync comes anyway.
        var unmarked: Int { rows.bytes.count - (marks.last?.end ?? 0) }
    }

    private struct Trouble {
        var since: Instant
        var retryAt: Instant
        var wait: Int64
    }

    private var lines: RecordLines
    private var states: [State]
    private var effects: [FeedEffect] = []
    private var isDrained = false
    private var latest = WallTime(nanoseconds: 0)
    private var completed: [(feed: Feed, day: CalendarDay)] = []
    package private(set) var statistics = FeedStatistics()

    /// - Parameters:
    ///   - highestSeq: of every feed what its files hold, 0 for none, in the order of `Feed.place`.
    ///   - days: of every feed the earliest day that may still be written to; nil when any may.
    package init(format: RecordFormat, highestSeq: [Int64], days: [CalendarDay?] = .init(repeating: nil, count: Feed.allCases.count)) {
        precondition(highestSeq.count == Feed.allCases.count && days.count == highestSeq.count, "BUG: \(highestSeq.count) feeds")
        lines = RecordLines(format)
        states = zip(highestSeq, days).map { State(nextSeq: $0 + 1, day: $1) }
    }

    /// The seq the feed's next row will carry.
    package func nextSeq(_ feed: Feed) -> Int64 { states[feed.place].nextSeq }

    /// The wall time of the newest row, 0 before any: what an event of the writer's own carries, so that a replay's events lie in its time.
    package var latestWall: WallTime { latest }

    /// Whether the feed's records should be taken from their ring. Without room they stay there, and the ring's own rule holds (SPEC 2.7).
    package func hasRoom(_ feed: Feed) -> Bool { states[feed.place].rows.bytes.count < Limits.feedBufferBytesMax }

    /// Since when some feed cannot be written; nil while all can.
    package var troubleSince: Instant? { states.compactMap { $0.trouble?.since }.min() }

    /// Bytes that are in memory only, or in files that no sync has covered.
    package var unsyncedBytes: Int { states.reduce(0) { $0 + $1.rows.bytes.count } }

    /// True when every row of the feed is durable.
    package func isSynced(_ feed: Feed) -> Bool { states[feed.place].rows.bytes.isEmpty }

    /// True when every row appended so far is durable.
    package var isEverythingSynced: Bool { Feed.allCases.allSatisfy(isSynced) }

    /// The feed's next row carries a higher number than this: the hub holds it already, from a time that this disk does not remember (SPEC 8.2).
    /// Fills are numbered where they come from.
    package mutating func raise(_ feed: Feed, above seq: Int64) { states[feed.place].nextSeq = max(states[feed.place].nextSeq, seq + 1) }

    // MARK: Records

    package mutating func append(_ record: FillRecord, at now: Instant) {
        precondition(record.fillID >= nextSeq(.fills), "BUG: fill \(record.fillID) is row \(nextSeq(.fills))")
        let seq = record.fillID
        states[Feed.fills.place].nextSeq = seq
        append(.fills, record.wall, now) { lines, row in lines.fill(record, seq: seq, into: &row) }
    }

    package mutating func append(_ record: MarkoutRecord, at now: Instant) {
        let seq = nextSeq(.markouts)
        append(.markouts, record.wall, now) { lines, row in lines.markout(record, seq: seq, into: &row) }
    }

    /// `subject` is what the event is about; a `dropped` of the node's own names its feed by itself.
    package mutating func append(_ record: EventRecord, about subject: EventSubject? = nil, at now: Instant) {
        let seq = nextSeq(.events)
        let subject = subject ?? (record.kind == .dropped ? EventSubject(feed: Feed.allCases[Int(record.second)]) : nil)
        append(.events, record.wall, now) { lines, row in lines.event(record, about: subject, seq: seq, into: &row) }
    }

    package mutating func append(_ record: UnsafePointer<SnapshotRecord>, at now: Instant) {
        let seq = nextSeq(.snapshots)
        append(.snapshots, record.pointee.wall, now) { lines, row in lines.snapshot(record, seq: seq, into: &row) }
    }

    package mutating func append(_ record: QuoteRecord, at now: Instant) {
        let seq = nextSeq(.quotes)
        append(.quotes, record.wall, now) { lines, row in lines.quote(record, seq: seq, into: &row) }
    }

    package mutating func append(_ record: TickRecord, at now: Instant) {
        let seq = nextSeq(.ticks)
        append(.ticks, record.wall, now) { lines, row in lines.tick(record, seq: seq, into: &row) }
    }

    // MARK: Days

    /// Midnight has passed for feeds without rows, too. `wall` is a little late, so that rows under way still find their day.
    package mutating func passDay(at wall: WallTime) {
        precondition(!isDrained, "BUG: a new day between endDrain() and performed()")
        for feed in Feed.allCases { begin(CalendarDay(containing: wall), feed) }
    }

    /// Days whose file is complete and durable since the last call. There may be no such file.
    package mutating func takeCompleted() -> [(feed: Feed, day: CalendarDay)] {
        defer { completed = [] }
        return completed
    }

    // MARK: Effects

    /// Ends a batch: everything pending is to be written, and what is due is to be synced; everything, when `isLast`.
    package mutating func endDrain(at now: Instant, isLast: Bool = false) -> [FeedEffect] {
        precondition(!isDrained, "BUG: two drains without performed()")
        isDrained = true
        for feed in Feed.writingOrder { write(feed, at: now) }
        // Feeds that are not urgent are synced together: one commit of the disk's journal for all, and one turn of the uplink.
        let areAllDue = Feed.allCases.contains { !$0.isUrgent && states[$0.place].trouble == nil && isSyncDue($0, at: now) }
        for feed in Feed.writingOrder where isLast || isSyncDue(feed, at: now) || (areAllDue && !feed.isUrgent) {
            syncRest(feed, at: now)
        }
        defer { effects = [] }
        return effects
    }

    /// The bytes that `append` effects refer to, until `performed()`.
    package func pendingBytes(of feed: Feed) -> [UInt8] { states[feed.place].rows.bytes }

    /// False once an effect of the feed has failed: what follows would stand on it.
    package func mayPerform(_ effect: FeedEffect) -> Bool { !states[effect.feed.place].isHeldBack }

    package mutating func done(_ effect: FeedEffect) {
        let place = effect.feed.place
        switch effect {
        case .append(_, _, let range): states[place].written = range.upperBound
        case .takeBack: states[place].isSuspect = false
        case .sync:
            statistics.syncs += 1
            states[place].synced = states[place].written
            if states[place].synced == states[place].rows.bytes.count { states[place].trouble = nil }
        }
    }

    package mutating func failed(_ effect: FeedEffect, at now: Instant) {
        let place = effect.feed.place
        statistics[effect.feed].errors += 1
        states[place].isHeldBack = true
        if case .sync = effect {
            states[place].isSuspect = true
            states[place].written = states[place].synced
        }
        let wait = min(Limits.diskRetryNanosecondsMax, states[place].trouble.map { $0.wait * 2 } ?? Limits.diskRetryNanosecondsMin)
        states[place].trouble = Trouble(
            since: states[place].trouble?.since ?? now, retryAt: now.advanced(nanoseconds: wait), wait: wait)
    }

    /// All effects of the last `endDrain` are done, or void.
    package mutating func performed() {
        precondition(isDrained, "BUG: performed() without effects")
        isDrained = false
        for feed in Feed.allCases { forgetSynced(feed) }
    }

    // MARK: Leaves

    private mutating func append(_ feed: Feed, _ wall: WallTime, _ now: Instant, _ write: (inout RecordLines, inout JSONWriter) -> Void) {
        precondition(!isDrained, "BUG: a record between endDrain() and performed()")
        let place = feed.place
        begin(CalendarDay(containing: wall), feed)
        latest = max(latest, wall)
        let before = states[place].rows.bytes.count
        write(&lines, &states[place].rows)
        states[place].nextSeq += 1
        if states[place].firstUnsynced == nil { states[place].firstUnsynced = now }
        statistics[feed].rows += 1
        statistics[feed].bytes += Int64(states[place].rows.bytes.count - before)
        if states[place].unmarked >= Limits.unsyncedBytesMax { mark(feed, endsDay: false) }
    }

    /// The feed's rows go to this day's file from here on, unless it is at a later one already.
    private mutating func begin(_ day: CalendarDay, _ feed: Feed) {
        let place = feed.place
        guard let current = states[place].day else {
            states[place].day = day
            return
        }
        guard day > current else { return }
        if states[place].rows.bytes.isEmpty {
            completed.append((feed, current))
        } else {
            mark(feed, endsDay: true)
        }
        states[place].day = day
    }

    private mutating func mark(_ feed: Feed, endsDay: Bool) {
        let state = states[feed.place]
        states[feed.place].marks.append(Mark(end: state.rows.bytes.count, day: state.day!, endsDay: endsDay))
    }

    /// Appends what is not in the file yet, with the syncs that come in between.
    private mutating func write(_ feed: Feed, at now: Instant) {
        let state = states[feed.place]
        guard let day = state.day, !state.rows.bytes.isEmpty, state.trouble.map({ now >= $0.retryAt }) ?? true else { return }
        var end = state.written
        func part(to next: Int, of day: CalendarDay) -> FeedEffect? {
            defer { end = max(end, next) }
            return next > end ? .append(feed, day, end..<next) : nil
        }
        if state.isSuspect {
            effects.append(.takeBack(feed))
        } else if state.trouble != nil, end > 0 {
            // What got into the file before an append failed need not wait for space.
            effects.append(.sync(feed))
        }
        for mark in state.marks {
            if let append = part(to: mark.end, of: mark.day) { effects.append(append) }
            effects.append(.sync(feed))
        }
        if let append = part(to: state.rows.bytes.count, of: day) { effects.append(append) }
    }

    /// Syncs what lies behind the last mark; a feed in trouble all of it, at each attempt.
    private mutating func syncRest(_ feed: Feed, at now: Instant) {
        let state = states[feed.place]
        guard state.unmarked > 0, state.trouble.map({ now >= $0.retryAt }) ?? true else { return }
        effects.append(.sync(feed))
    }

    /// Due now, or before the next drain can do it.
    private func isSyncDue(_ feed: Feed, at now: Instant) -> Bool {
        let state = states[feed.place]
        guard let first = state.firstUnsynced else { return false }
        return state.trouble != nil || now.since(first) + 2 * Self.wakeNanoseconds >= Self.syncNanoseconds(feed)
    }

    private mutating func forgetSynced(_ feed: Feed) {
        let place = feed.place
        states[place].isHeldBack = false
        let synced = states[place].synced
        guard synced > 0 else { return }
        states[place].rows.removeFirst(synced)
        states[place].written -= synced
        states[place].synced = 0
        while let mark = states[place].marks.first, mark.end <= synced {
            if mark.endsDay { completed.append((feed, mark.day)) }
            states[place].marks.removeFirst()
        }
        for index in states[place].marks.indices { states[place].marks[index].end -= synced }
        // Rows behind a mark keep the time of the first: they are synced early, never late.
        if states[place].rows.bytes.isEmpty { states[place].firstUnsynced = nil }
    }
}
