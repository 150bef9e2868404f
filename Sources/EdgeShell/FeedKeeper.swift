import CalibModel
import EdgeCore
import Glibc
import NodeShell
import Synchronization

/// What happens to feed files that are complete: their digest is taken, and one day they go (SPEC 2.6, 2.7). On a thread of its own, at the
/// lowest priority: a gigabyte takes seconds to read, and neither the writer nor a quote waits for it.
///
/// `@unchecked Sendable`: `run` has `nextRetention` and `unnoted` to itself; the rest is immutable or synchronised.
final class FeedKeeper: @unchecked Sendable {
    /// For the writer to tell as events.
    enum News: Sendable {
        case sealed(SealedFile)
        /// A file the hub did not have. `rows` is 0 when unknown.
        case removed(Feed, CalendarDay, bytes: Int64, rows: Int64)
    }

    private struct State {
        var complete: [(feed: Feed, day: CalendarDay)] = []
        var told: [SealedFile] = []
        var news: [News] = []
    }

    private let directory: String
    private let sealed: SealedFiles
    private let synced: SyncedFiles
    private let retention: FeedRetention
    private let bell: Doorbell
    private let state = Mutex(State())
    private let isStopping = Atomic<Bool>(false)
    private let removed = Atomic<Int64>(0)
    private var nextRetention: Instant
    /// Told as events and not in the ledger yet.
    private var unnoted: [SealedFile] = []

    init(directory: String, sealed: SealedFiles, synced: SyncedFiles, retention: FeedRetention) throws(FileError) {
        self.directory = directory
        self.sealed = sealed
        self.synced = synced
        self.retention = retention
        bell = try Doorbell()
        // Until the hub has said what it holds, every file looks as if it held none.
        nextRetention = SystemClock.monotonic().advanced(nanoseconds: retention.hasHub ? Limits.retentionNanoseconds : 0)
    }

    // MARK: Any thread

    /// These files, should they exist, do not change any more.
    func complete(_ days: [(feed: Feed, day: CalendarDay)]) {
        guard !days.isEmpty else { return }
        state.withLock { $0.complete += days }
        bell.ring()
    }

    /// The events of these files are durable.
    func told(_ files: [SealedFile]) {
        guard !files.isEmpty else { return }
        state.withLock { $0.told += files }
        bell.ring()
    }

    func takeNews() -> [News] {
        state.withLock { state in
            guard !state.news.isEmpty else { return [] }
            defer { state.news = [] }
            return state.news
        }
    }

    /// Files removed since the start.
    var removedFiles: Int64 { removed.load(ordering: .relaxed) }

    func stop() {
        isStopping.store(true, ordering: .releasing)
        bell.ring()
    }

    // MARK: The keeper's thread

    func run() {
        ThreadTeam.yieldToOthers()
        var isLast = false
        while !isLast {
            isLast = isStopping.load(ordering: .acquiring)
            let (complete, told) = state.withLock { state in
                defer { (state.complete, state.told) = ([], []) }
                return (state.complete, state.told)
            }
            unnoted += told
            note()
            for (position, file) in complete.enumerated() where !seal(file) {
                // The rest with it: again later, or at the next start.
                state.withLock { $0.complete = Array(complete[position...]) + $0.complete }
                break
            }
            if !isLast, SystemClock.monotonic() >= nextRetention {
                nextRetention = SystemClock.monotonic().advanced(nanoseconds: Limits.retentionNanoseconds)
                retire()
            }
            if !isLast { bell.wait(milliseconds: Int32(Limits.diskRetryNanosecondsMax / 1_000_000)) }
        }
    }

    /// A disk that takes no line is asked again.
    private func note() {
        while let file = unnoted.first, (try? sealed.note(file)) != nil {
            synced.seal(file)
            unnoted.removeFirst()
        }
    }

    /// False when the file cannot be read, or there is no time left.
    private func seal(_ file: (feed: Feed, day: CalendarDay)) -> Bool {
        guard sealed[file.feed, file.day] == nil else { return true }
        do throws(FileError) {
            let found = try sealed.seal(file.feed, file.day) { isStopping.load(ordering: .relaxed) }
            if let found { state.withLock { $0.news.append(.sealed(found)) } }
            return found != nil || !isStopping.load(ordering: .relaxed)
        } catch {
            return false
        }
    }

    private func retire() {
        guard let names = try? FeedDirectory.names(in: directory) else { return }
        let files = names.compactMap { name -> FeedRetention.File? in
            guard let (feed, day) = FeedFileName.parse(name), let stamp = Stamp(path: directory + "/" + name) else { return nil }
            return FeedRetention.File(
                feed: feed, day: day, bytes: stamp.size, isSealed: sealed[feed, day] != nil,
                isAcknowledged: synced.isAcknowledged(name, length: stamp.size))
        }
        for (file, isForced) in retention.removals(of: files, today: CalendarDay(containing: SystemClock.wall())) {
            let name = FeedFileName.text(file.feed, file.day)
            guard (try? AtomicFile.remove(directory + "/" + name)) != nil else { continue }
            synced.forget(name)
            removed.add(1, ordering: .relaxed)
            guard isForced else { continue }
            let rows = sealed[file.feed, file.day]?.rows ?? 0
            state.withLock { $0.news.append(.removed(file.feed, file.day, bytes: file.bytes, rows: rows)) }
        }
    }
}
