import CalibModel
import EdgeCore
import NodeShell
import Synchronization
import Wire

/// The way of an edge's records to its feed files: rings, the writer thread behind them, and the keeper of complete files (SPEC 2.7).
///
/// The thread that quotes owns this object and calls every method; `counters` and `troubleSince` may be read anywhere.
package final class FeedSpool {
    private let rings: FeedRings
    private let spooler: FeedSpooler
    private let thread: OwnerThread
    private let keeper: (FeedKeeper, OwnerThread)?
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

    /// Locks, recovers and repairs `<directory>/feeds` and starts the threads. Every cut becomes an event behind this run's first records.
    ///
    /// - Parameter retention: for a live edge. Its days end by the clock, their files are sealed and one day removed, and a disk that takes no
    ///   rows is tried again. Nil for a replay: its days are the recording's, nothing is sealed, and the first failure ends it.
    /// - Throws: `.lock` when another process writes to the directory; else the file operation that failed.
    package init(
        directory: String, source: String, venue: String, host: String, instruments: [Instrument], retention: FeedRetention? = nil
    ) throws(FileError) {
        let files = try FeedFiles(artifacts: directory)
        let format = RecordFormat(
            source: source, venue: venue, host: host, epoch: files.epoch, instruments: instruments)
        // What lies before these days is complete.
        let today = CalendarDay(containing: SystemClock.wall())
        let days = files.newestDay.map { retention == nil ? nil : max($0 ?? today, today) }
        let writer = FeedWriter(format: format, highestSeq: files.highestSeq, days: days)
        epoch = files.epoch
        existingRows = files.highestSeq.contains { $0 > 0 }
        synced = files.synced
        runNumber = writer.nextSeq(.events)
        firstFillID = writer.nextSeq(.fills)
        rings = FeedRings()
        if let retention {
            let keeper = try FeedKeeper(directory: files.directory, sealed: files.sealed, synced: files.synced, retention: retention)
            keeper.complete(
                try FeedDirectory.names(in: files.directory).sorted().compactMap { FeedFileName.parse($0) }
                    .filter { $0.day < days[$0.feed.place]! && files.sealed[$0.feed, $0.day] == nil })
            self.keeper = (keeper, try OwnerThread(name: "feed-keeper") { keeper.run() })
        } else {
            keeper = nil
        }
        spooler = FeedSpooler(
            writer: writer, files: files, rings: rings, keeper: keeper?.0, work: try Doorbell(), room: try Doorbell())
        thread = try OwnerThread(name: "feed-writer") { [spooler] in spooler.run() }
    }

    deinit { stop() }

    private func stop() {
        spooler.stop()
        thread.join()
        keeper?.0.stop()
        keeper?.1.join()
    }

    /// What has been done so far. For any thread; never on the quote path.
    package var counters: FeedCounters { spooler.counters }

    /// Since when some feed cannot be written; nil while all can. For any thread.
    package var troubleSince: Instant? { spooler.troubleSince }

    /// The producer's ends of the rings: once, for the one node this spool serves.
    package func makeOutboxes() -> Outboxes {
        precondition(!outboxesMade, "BUG: one producer per ring")
        outboxesMade = true
        return rings.makeOutboxes()
    }

    /// Hands over what was committed and takes back the slots freed. No system call: for after every frame.
    package func publish(_ outboxes: inout Outboxes) { rings.publish(&outboxes) }

    /// Publishes, then waits until every ring has room for that many records. For replay and for the end of a run, which can wait; live quoting
    /// halts instead.
    ///
    /// - Throws: what stopped the writer, at once, even while there is room; a disk that has taken nothing for `Limits.diskOnStopNanoseconds`.
    package func waitForRoom(_ outboxes: inout Outboxes, records: Int) throws(FileError) {
        precondition(records <= Outboxes.Capacity.smallest, "BUG: no ring ever has room for \(records) records")
        rings.publish(&outboxes)
        while true {
            if let failure = spooler.failure { throw failure }
            if outboxes.hasRoom(for: records) { return }
            if let trouble = spooler.counters.trouble,
                SystemClock.monotonic().since(trouble.since) > Limits.diskOnStopNanoseconds
            {
                throw trouble.cause
            }
            spooler.hurry()
            rings.publish(&outboxes)
        }
    }

    /// Writes and syncs everything, ends the threads, and closes the files. Nothing can be published afterwards.
    ///
    /// - Throws: the operation that failed, for `Limits.diskOnStopNanoseconds` when the edge is live; rows not written are lost.
    package func finish(_ outboxes: inout Outboxes) throws(FileError) -> FeedStatistics {
        rings.publish(&outboxes)
        stop()
        if let failure = spooler.failure { throw failure }
        return spooler.counters.written
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
/// `@unchecked Sendable`: `run` has everything below "The writer's thread" to itself; the rest is atomic, synchronised or immutable.
private final class FeedSpooler: @unchecked Sendable {
    private let files: FeedFiles
    private let rings: FeedRings
    private let keeper: FeedKeeper?
    private let work: Doorbell
    private let room: Doorbell
    private let isStopping = Atomic<Bool>(false)
    /// 0 while there is none.
    private let troubleNanoseconds = Atomic<Int64>(0)
    private let published = Mutex(FeedCounters())
    private let storedFailure = Mutex<FileError?>(nil)

    init(writer: FeedWriter, files: FeedFiles, rings: FeedRings, keeper: FeedKeeper?, work: Doorbell, room: Doorbell) {
        self.writer = writer
        self.files = files
        self.rings = rings
        self.keeper = keeper
        self.work = work
        self.room = room
        untoldCuts = files.cuts
    }

    // MARK: Any thread

    /// What ended the writer.
    var failure: FileError? { storedFailure.withLock { $0 } }
    var counters: FeedCounters { published.withLock { $0 } }
    var troubleSince: Instant? {
        let since = troubleNanoseconds.load(ordering: .relaxed)
        return since == 0 ? nil : Instant(nanoseconds: since)
    }

    /// Wakes the writer and waits a moment for it to free slots.
    func hurry() {
        work.ring()
        room.wait(milliseconds: 1)
    }

    func stop() {
        isStopping.store(true, ordering: .releasing)
        work.ring()
    }

    // MARK: The writer's thread

    private var writer: FeedWriter
    private var syncDurations = BoundedHistogram(bounds: MetricBounds.sync)
    private var lastFailure: FileError?
    private var sealedFiles: Int64 = 0
    /// Repairs not yet told by an event: they wait for the run's first record, because a replay's events lie in the recorded time.
    private var untoldCuts: [FeedFiles.Cut]
    /// Repairs whose event is written and not durable yet.
    private var toldCuts: [FeedFiles.Cut] = []
    /// Files whose event is written and not durable yet.
    private var untoldSeals: [SealedFile] = []

    func run() {
        do throws(FileError) {
            try write()
        } catch {
            storedFailure.withLock { $0 = error }
            room.ring()
        }
        publish()
        files.closeFiles()
    }

    private func write() throws(FileError) {
        var stoppedAt: Instant?
        while true {
            // Read before draining: what was published before the stop is drained after it.
            let isLast = isStopping.load(ordering: .acquiring)
            var count = drain()
            while isLast, count > 0 {
                try perform(isLast: false)
                count = drain()
            }
            if isLast {
                reportCuts(writer.latestWall.nanoseconds == 0 ? SystemClock.wall() : writer.latestWall, at: SystemClock.monotonic())
            }
            try perform(isLast: isLast)
            publish()
            room.ring()
            if isLast {
                if writer.isEverythingSynced { return }
                let now = SystemClock.monotonic()
                stoppedAt = stoppedAt ?? now
                if now.since(stoppedAt!) > Limits.diskOnStopNanoseconds, let lastFailure { throw lastFailure }
            }
            if count == 0 || writer.troubleSince != nil { work.wait(milliseconds: Int32(FeedWriter.wakeNanoseconds / 1_000_000)) }
        }
    }

    /// At most a ring's length of each, against `Feed.writingOrder` (see `FeedRings.publish`). Returns how many records there were.
    private func drain() -> Int {
        let now = SystemClock.monotonic()
        for (feed, seq) in files.synced.takeHeldSeqs() { writer.raise(feed, above: seq) }
        var count = 0
        if writer.hasRoom(.ticks) { count += rings.ticks.drain(max: rings.ticks.capacity) { writer.append($0.pointee, at: now) } }
        if writer.hasRoom(.quotes) { count += rings.quotes.drain(max: rings.quotes.capacity) { writer.append($0.pointee, at: now) } }
        if writer.hasRoom(.snapshots) { count += rings.snapshots.drain(max: rings.snapshots.capacity) { writer.append($0, at: now) } }
        if writer.hasRoom(.markouts) {
            count += rings.markouts.drain(max: rings.markouts.capacity) { writer.append($0.pointee, at: now) }
        }
        if writer.hasRoom(.fills) { count += rings.fills.drain(max: rings.fills.capacity) { writer.append($0.pointee, at: now) } }
        if writer.hasRoom(.events) { count += rings.events.drain(max: rings.events.capacity) { writer.append($0.pointee, at: now) } }
        if count > 0 { reportCuts(writer.latestWall, at: now) }
        if let keeper, writer.hasRoom(.events) {
            writer.passDay(at: WallTime(nanoseconds: SystemClock.wall().nanoseconds - Limits.sealGraceNanoseconds))
            for news in keeper.takeNews() { report(news, at: now) }
            for fork in files.synced.takeForks() {
                writer.append(
                    EventRecord(wall: max(writer.latestWall, SystemClock.wall()), kind: .fork, first: fork.base),
                    about: EventSubject(feed: fork.feed, day: fork.day), at: now)
            }
        }
        return count
    }

    private func reportCuts(_ wall: WallTime, at now: Instant) {
        for cut in untoldCuts {
            writer.append(
                EventRecord(wall: wall, kind: .cut, first: Int64(cut.bytes), second: Int64(cut.rowsSaved)),
                about: EventSubject(feed: cut.feed), at: now)
        }
        toldCuts += untoldCuts
        untoldCuts = []
    }

    private func report(_ news: FeedKeeper.News, at now: Instant) {
        let wall = max(writer.latestWall, SystemClock.wall())
        switch news {
        case .sealed(let file):
            writer.append(
                EventRecord(wall: wall, kind: .sealed, first: file.bytes, second: file.rows),
                about: EventSubject(feed: file.feed, day: file.day, sha256: file.sha256), at: now)
            untoldSeals.append(file)
            sealedFiles += 1
        case .removed(let feed, let day, let bytes, let rows):
            writer.append(
                EventRecord(wall: wall, kind: .dropped, first: rows, second: bytes), about: EventSubject(feed: feed, day: day), at: now)
        }
    }

    /// Without a keeper the first failure is the last one.
    private func perform(isLast: Bool) throws(FileError) {
        for effect in writer.endDrain(at: SystemClock.monotonic(), isLast: isLast) where writer.mayPerform(effect) {
            do throws(FileError) {
                try perform(effect)
                writer.done(effect)
            } catch {
                lastFailure = error
                writer.failed(effect, at: SystemClock.monotonic())
                if keeper == nil { throw error }
            }
        }
        writer.performed()
        troubleNanoseconds.store(writer.troubleSince?.nanoseconds ?? 0, ordering: .relaxed)
        if !toldCuts.isEmpty, writer.isSynced(.events) {
            // Or the next start tells of them once more.
            try? files.tell(toldCuts)
            toldCuts = []
        }
        guard let keeper else { return }
        keeper.complete(writer.takeCompleted())
        if !untoldSeals.isEmpty, writer.isSynced(.events) {
            keeper.told(untoldSeals)
            untoldSeals = []
        }
    }

    private func perform(_ effect: FeedEffect) throws(FileError) {
        switch effect {
        case .append(let feed, let day, let range):
            let bytes = writer.pendingBytes(of: feed)
            try bytes.withUnsafeBufferPointer { bytes throws(FileError) in
                try files.append(feed, day, UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: bytes[range])))
            }
        case .sync(let feed):
            let before = SystemClock.monotonic()
            try files.sync(feed)
            syncDurations.add(SystemClock.monotonic().since(before))
        case .takeBack(let feed): try files.takeBack(feed)
        }
    }

    private func publish() {
        var counters = FeedCounters()
        counters.written = writer.statistics
        counters.refused = [
            rings.fills.refusedCount, rings.markouts.refusedCount, rings.events.refusedCount, rings.snapshots.refusedCount,
            rings.quotes.refusedCount, rings.ticks.refusedCount,
        ]
        counters.unsyncedBytes = writer.unsyncedBytes
        counters.syncDurations = syncDurations
        counters.sealedFiles = sealedFiles
        counters.removedFiles = keeper?.removedFiles ?? 0
        if let since = writer.troubleSince, let lastFailure { counters.trouble = .init(since: since, cause: lastFailure) }
        published.withLock { $0 = counters }
    }
}
