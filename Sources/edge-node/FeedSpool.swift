import CalibModel
import EdgeCore
import Glibc
import NodeShell
import Synchronization
import Wire

/// The way of an edge's records to its feed files: rings, and the writer thread behind them (SPEC 2.7).
///
/// The thread that quotes owns this object and calls every method; `failure` may be read anywhere. After a failed write nothing is consumed any
/// more, so the rings fill and quoting halts by the core's own rule.
package final class FeedSpool {
    private let rings: FeedRings
    private let spooler: FeedSpooler
    private let thread: OwnerThread
    private var outboxesMade = false

    /// 16 hex digits of the feeds directory.
    package let epoch: String
    /// Rises with every start in this directory: the next `seq` of the events feed.
    package let runNumber: Int64
    /// One above the highest `seq` in the fills feed.
    package let firstFillID: Int64
    /// Whether the directory held rows before this start.
    package let existingRows: Bool
    /// How much of every feed file is durable. For any thread.
    package let synced: SyncedFiles

    /// Locks, recovers and repairs `<directory>/feeds` and starts the writer thread. Every cut becomes an event behind this run's first records.
    ///
    /// - Throws: `.lock` when another process writes to the directory; else the file operation that failed.
    package init(
        directory: String, source: String, venue: String, host: String, instruments: [Instrument]
    ) throws(FileError) {
        let files = try FeedFiles(artifacts: directory)
        let format = RecordFormat(
            source: source, venue: venue, host: host, epoch: files.epoch, instruments: instruments)
        let writer = FeedWriter(format: format, highestSeq: files.highestSeq)
        epoch = files.epoch
        existingRows = files.highestSeq.contains { $0 > 0 }
        synced = files.synced
        runNumber = writer.nextSeq(.events)
        firstFillID = writer.nextSeq(.fills)
        rings = FeedRings()
        spooler = FeedSpooler(writer: writer, files: files, rings: rings, work: try Doorbell(), room: try Doorbell())
        thread = try OwnerThread(name: "feed-writer") { [spooler] in spooler.run() }
    }

    deinit {
        spooler.stop()
        thread.join()
    }

    /// The first write that failed; nil while all is well.
    package var failure: FileError? { spooler.failure }

    /// The producer's ends of the rings: once, for the one node this spool serves.
    package func makeOutboxes() -> Outboxes {
        precondition(!outboxesMade, "BUG: one producer per ring")
        outboxesMade = true
        return rings.makeOutboxes()
    }

    /// Hands over what was committed and takes back the slots freed. No system call: for after every frame.
    package func publish(_ outboxes: inout Outboxes) { rings.publish(&outboxes) }

    /// Publishes, then waits until every ring has room for that many records. For replay, which can wait; live quoting halts instead.
    ///
    /// - Throws: what stopped the writer, at once, even while there is room.
    package func waitForRoom(_ outboxes: inout Outboxes, records: Int) throws(FileError) {
        precondition(records <= Outboxes.Capacity.smallest, "BUG: no ring ever has room for \(records) records")
        rings.publish(&outboxes)
        while true {
            if let failure = spooler.failure { throw failure }
            if outboxes.hasRoom(for: records) { return }
            spooler.hurry()
            rings.publish(&outboxes)
        }
    }

    /// Writes and syncs everything, ends the thread, and closes the files. Nothing can be published afterwards.
    ///
    /// - Throws: the first operation that failed; rows from then on were not written.
    package func finish(_ outboxes: inout Outboxes) throws(FileError) -> FeedStatistics {
        rings.publish(&outboxes)
        spooler.stop()
        thread.join()
        if let failure = spooler.failure { throw failure }
        return spooler.finalStatistics
    }
}

/// The six rings. They own their slots, so they live as long as anyone on either side.
private final class FeedRings: Sendable {
    let fills = RecordRing<FillRecord>(capacity: Outboxes.Capacity.fills)
    let markouts = RecordRing<MarkoutRecord>(capacity: Outboxes.Capacity.markouts)
    let events = RecordRing<EventRecord>(capacity: Outboxes.Capacity.events)
    let snapshots = RecordRing<SnapshotRecord>(capacity: Outboxes.Capacity.snapshots)
    let quotes = RecordRing<QuoteRecord>(capacity: Outboxes.Capacity.quotes)
    let ticks = RecordRing<TickRecord>(capacity: Outboxes.Capacity.ticks)

    func makeOutboxes() -> Outboxes {
        Outboxes(
            fills: fills.makeOutbox(), markouts: markouts.makeOutbox(), events: events.makeOutbox(), snapshots: snapshots.makeOutbox(),
            quotes: quotes.makeOutbox(), ticks: ticks.makeOutbox())
    }

    /// In `Feed.writingOrder`; the writer drains in the opposite order. So whoever sees a row also sees the rows it refers to.
    func publish(_ outboxes: inout Outboxes) {
        events.publish(&outboxes.events)
        fills.publish(&outboxes.fills)
        markouts.publish(&outboxes.markouts)
        snapshots.publish(&outboxes.snapshots)
        quotes.publish(&outboxes.quotes)
        ticks.publish(&outboxes.ticks)
    }
}

/// The writer thread's work: drain, let `FeedWriter` decide, do it.
///
/// `@unchecked Sendable`: `run` has `writer`, `files` and `reported` to itself until the thread is joined; the rest is atomic or immutable, and
/// `storedFailure` is written before `hasFailed` is released and never again.
private final class FeedSpooler: @unchecked Sendable {
    private var writer: FeedWriter
    private let files: FeedFiles
    private let rings: FeedRings
    private let work: Doorbell
    private let room: Doorbell
    private let isStopping = Atomic<Bool>(false)
    private let hasFailed = Atomic<Bool>(false)
    private var storedFailure: FileError?
    /// Drops already told by an event: quotes, ticks.
    private var reported = (quotes: 0, ticks: 0)
    /// Repairs not yet told by an event: they wait for the run's first record, because a replay's events lie in the recorded time.
    private var untoldCuts: [FeedFiles.Cut]

    init(writer: FeedWriter, files: FeedFiles, rings: FeedRings, work: Doorbell, room: Doorbell) {
        self.writer = writer
        self.files = files
        self.rings = rings
        self.work = work
        self.room = room
        untoldCuts = files.cuts
    }

    // MARK: Any thread

    var failure: FileError? { hasFailed.load(ordering: .acquiring) ? storedFailure : nil }

    /// Wakes the writer and waits a moment for it to free slots.
    func hurry() {
        work.ring()
        room.wait(milliseconds: 1)
    }

    func stop() {
        isStopping.store(true, ordering: .releasing)
        work.ring()
    }

    /// Valid once the thread is joined.
    var finalStatistics: FeedStatistics { writer.statistics }

    // MARK: The writer's thread

    func run() {
        do {
            while true {
                // Read before draining: what was published before the stop is drained after it.
                let isLast = isStopping.load(ordering: .acquiring)
                var count = drain()
                while isLast, count > 0 {
                    try perform(isLast: false)
                    count = drain()
                }
                if isLast { reportCuts(writer.latestWall.nanoseconds == 0 ? wallNow() : writer.latestWall, at: monotonicNow()) }
                try perform(isLast: isLast)
                room.ring()
                if isLast { break }
                if count == 0 { work.wait(milliseconds: Int32(FeedWriter.wakeNanoseconds / 1_000_000)) }
            }
        } catch {
            storedFailure = error
            hasFailed.store(true, ordering: .releasing)
            room.ring()
        }
        files.closeFiles()
    }

    /// At most a ring's length of each, against `Feed.writingOrder` (see `FeedRings.publish`). Returns how many records there were.
    private func drain() -> Int {
        let now = monotonicNow()
        var count = rings.ticks.drain(max: rings.ticks.capacity) { writer.append($0.pointee, at: now) }
        count += rings.quotes.drain(max: rings.quotes.capacity) { writer.append($0.pointee, at: now) }
        count += rings.snapshots.drain(max: rings.snapshots.capacity) { writer.append($0, at: now) }
        count += rings.markouts.drain(max: rings.markouts.capacity) { writer.append($0.pointee, at: now) }
        count += rings.fills.drain(max: rings.fills.capacity) { writer.append($0.pointee, at: now) }
        count += rings.events.drain(max: rings.events.capacity) { writer.append($0.pointee, at: now) }
        reportDropped(.quotes, rings.quotes.refusedCount, &reported.quotes, at: now)
        reportDropped(.ticks, rings.ticks.refusedCount, &reported.ticks, at: now)
        if count > 0 { reportCuts(writer.latestWall, at: now) }
        return count
    }

    private func reportCuts(_ wall: WallTime, at now: Instant) {
        for cut in untoldCuts {
            writer.append(
                EventRecord(wall: wall, kind: .cut, first: Int64(cut.bytes), second: Int64(cut.rowsSaved)), about: cut.feed, at: now)
        }
        untoldCuts = []
    }

    /// A full snapshot ring drops nothing (the accumulator runs on) and full rings of the others halt quoting, so only these two are told.
    private func reportDropped(_ feed: Feed, _ refused: Int, _ reported: inout Int, at now: Instant) {
        guard refused > reported else { return }
        let record = EventRecord(wall: writer.latestWall, kind: .dropped, first: Int64(refused - reported))
        reported = refused
        writer.append(record, about: feed, at: now)
    }

    private func perform(isLast: Bool) throws(FileError) {
        for effect in writer.endDrain(at: monotonicNow(), isLast: isLast) {
            switch effect {
            case .append(let feed, let day, let range):
                let bytes = writer.pendingBytes(of: feed)
                try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
                    try files.append(feed, day, UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: bytes[range])))
                }
            case .sync(let feed): try files.sync(feed)
            }
        }
        writer.performed()
    }
}

private func monotonicNow() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}

private func wallNow() -> WallTime {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return WallTime(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}
