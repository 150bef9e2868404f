import CalibModel
import Wire

/// What the writer wants done, in this order. The shell does it and tells the outcome with `performed`.
package enum FeedEffect: Equatable, Sendable {
    /// Append these bytes of `FeedWriter.pendingBytes(of:)` to the feed's file of that day: whole rows.
    case append(Feed, CalendarDay, Range<Int>)
    /// Make everything appended to the feed so far durable.
    case sync(Feed)
}

/// How much was written, per feed.
package struct FeedStatistics: Sendable, Equatable {
    package struct Counts: Sendable, Equatable {
        package var rows: Int64 = 0
        package var bytes: Int64 = 0
    }
    private var counts = [Counts](repeating: Counts(), count: Feed.allCases.count)
    /// Calls of fdatasync.
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

/// Formats records, numbers them, and decides when bytes are written and when they are made durable (SPEC 2.7). Pure: time comes in, effects
/// come out.
///
/// Use: append every record at hand, then `endDrain(at:)`, then do the effects, then `performed()`.
///
/// Invariants:
/// 1. `seq` rises by one per row per feed, from the number recovered.
/// 2. A feed's day never goes back: a row whose `ts` lies in an earlier day stays in the current file (SPEC 1.1).
/// 3. Before a feed's first row of a new day is written, the old day's file is synced, so at most one file per feed is ever unsynced.
/// 4. After `endDrain` nothing waits in memory: a killed process loses nothing that it drained.
/// 5. A sync is never later than its bound, as long as `endDrain` is called every `wakeNanoseconds`.
package struct FeedWriter {
    /// The longest pause between two drains.
    package static let wakeNanoseconds: Int64 = 5_000_000
    /// How long the first unsynced byte may wait (SPEC 2.7).
    package static func syncNanoseconds(_ feed: Feed) -> Int64 { feed.isUrgent ? 20_000_000 : 1_000_000_000 }

    private struct State {
        var nextSeq: Int64
        var day: CalendarDay?
        var rows = JSONWriter()
        /// Where in `rows` the current day's bytes begin; what is before it has its effect already.
        var start = 0
        var unsyncedBytes = 0
        var firstUnsynced: Instant?
    }

    private var lines: RecordLines
    private var states: [State]
    private var effects: [FeedEffect] = []
    private var isDrained = false
    private var latest = WallTime(nanoseconds: 0)
    package private(set) var statistics = FeedStatistics()

    /// `highestSeq`: of every feed what its files hold, 0 for none, in the order of `Feed.place`.
    package init(format: RecordFormat, highestSeq: [Int64]) {
        precondition(highestSeq.count == Feed.allCases.count, "BUG: \(highestSeq.count) feeds")
        lines = RecordLines(format)
        states = highestSeq.map { State(nextSeq: $0 + 1) }
    }

    /// The seq the feed's next row will carry.
    package func nextSeq(_ feed: Feed) -> Int64 { states[feed.place].nextSeq }

    /// The wall time of the newest row, 0 before any: what an event of the writer's own carries, so that a replay's events lie in its time.
    package var latestWall: WallTime { latest }

    // MARK: Records

    package mutating func append(_ record: FillRecord, at now: Instant) {
        let seq = nextSeq(.fills)
        precondition(record.fillID == seq, "BUG: fill \(record.fillID) is row \(seq)")
        append(.fills, record.wall, now) { lines, row in lines.fill(record, seq: seq, into: &row) }
    }

    package mutating func append(_ record: MarkoutRecord, at now: Instant) {
        let seq = nextSeq(.markouts)
        append(.markouts, record.wall, now) { lines, row in lines.markout(record, seq: seq, into: &row) }
    }

    /// `feed` is the one a `cut` is about; a `dropped` names its own.
    package mutating func append(_ record: EventRecord, about feed: Feed? = nil, at now: Instant) {
        let seq = nextSeq(.events)
        let feed = feed ?? (record.kind == .dropped ? Feed.allCases[Int(record.second)] : nil)
        append(.events, record.wall, now) { lines, row in lines.event(record, about: feed, seq: seq, into: &row) }
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

    // MARK: Effects

    /// Ends a batch: everything pending is to be written, and what is due is to be synced; everything, when `isLast`.
    package mutating func endDrain(at now: Instant, isLast: Bool = false) -> [FeedEffect] {
        precondition(!isDrained, "BUG: two drains without performed()")
        isDrained = true
        for feed in Feed.writingOrder { flush(feed) }
        for feed in Feed.writingOrder where isLast ? states[feed.place].firstUnsynced != nil : isSyncDue(feed, at: now) { sync(feed) }
        defer { effects = [] }
        return effects
    }

    /// The bytes that `append` effects refer to, until `performed()`.
    package func pendingBytes(of feed: Feed) -> [UInt8] { states[feed.place].rows.bytes }

    /// All effects of the last `endDrain` are done.
    package mutating func performed() {
        precondition(isDrained, "BUG: performed() without effects")
        isDrained = false
        for index in states.indices {
            states[index].rows.removeAll()
            states[index].start = 0
        }
    }

    /// True when every row appended so far is covered by a sync effect.
    package var isEverythingSynced: Bool { states.allSatisfy { $0.firstUnsynced == nil } }

    // MARK: Leaves

    private mutating func append(_ feed: Feed, _ wall: WallTime, _ now: Instant, _ write: (inout RecordLines, inout JSONWriter) -> Void) {
        precondition(!isDrained, "BUG: a record between endDrain() and performed()")
        let place = feed.place
        let day = CalendarDay(containing: wall)
        if let current = states[place].day, day > current {
            flush(feed)
            if states[place].firstUnsynced != nil { sync(feed) }
        }
        states[place].day = max(states[place].day ?? day, day)
        latest = max(latest, wall)
        let before = states[place].rows.bytes.count
        write(&lines, &states[place].rows)
        states[place].nextSeq += 1
        let bytes = states[place].rows.bytes.count - before
        states[place].unsyncedBytes += bytes
        if states[place].firstUnsynced == nil { states[place].firstUnsynced = now }
        statistics[feed].rows += 1
        statistics[feed].bytes += Int64(bytes)
        if states[place].unsyncedBytes >= Limits.unsyncedBytesMax {
            flush(feed)
            sync(feed)
        }
    }

    private mutating func flush(_ feed: Feed) {
        let end = states[feed.place].rows.bytes.count
        guard end > states[feed.place].start, let day = states[feed.place].day else { return }
        effects.append(.append(feed, day, states[feed.place].start..<end))
        states[feed.place].start = end
    }

    private mutating func sync(_ feed: Feed) {
        effects.append(.sync(feed))
        states[feed.place].unsyncedBytes = 0
        states[feed.place].firstUnsynced = nil
        statistics.syncs += 1
    }

    /// Due now, or before the next drain can do it.
    private func isSyncDue(_ feed: Feed, at now: Instant) -> Bool {
        guard let first = states[feed.place].firstUnsynced else { return false }
        return now.since(first) + 2 * Self.wakeNanoseconds >= Self.syncNanoseconds(feed)
    }
}
