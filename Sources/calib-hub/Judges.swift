import CalibModel
import Glibc
import HubCore
import NodeShell
import Wire

/// The thread that reads the stored snapshots of running experiments and judges them (SPEC 7.3): what is said follows from durable bytes alone.
///
/// `@unchecked Sendable`: what is below "On the thread" is touched there only.
final class Judges: @unchecked Sendable {
    enum Job: Sendable {
        /// Read the experiment's rows from now on; `held`: what is synced of its hosts' files.
        case watch(Experiment, held: [String: [Ingest.HeldFile]])
        case unwatch(String)
        /// The hub's file was synced up to a length.
        case grew(host: String, file: String, length: Int64)
        case silence(String, PairPlan.Silence)
        case survey(String, held: [String: [Ingest.HeldFile]], source: RowSource, blockMilliseconds: Int64)
        /// Time passed: look for hosts that owe a pair.
        case tick(milliseconds: Int64)
    }

    enum Finding: Sendable {
        case assessed(Assessment)
        case silent(String, PairPlan.Silence)
        case surveyed(String, ExperimentHistory)
    }

    private let feeds: String
    private let hubStarted: Int64
    private let worker: Worker<Job>
    private let deliver: @Sendable ([Finding]) -> Void
    private let report: @Sendable (FileError) -> Void
    private var thread: OwnerThread?

    /// `deliver` and `report` are called on the thread.
    init(
        feeds: String, hubStarted milliseconds: Int64, deliver: @escaping @Sendable ([Finding]) -> Void,
        report: @escaping @Sendable (FileError) -> Void
    ) throws(FileError) {
        self.feeds = feeds
        hubStarted = milliseconds
        self.deliver = deliver
        self.report = report
        worker = try Worker()
        let worker = worker
        thread = try OwnerThread(name: "hub-judges") { [unowned self] in
            while let jobs = worker.take() {
                for job in jobs { self.perform(job) }
                // Judged once for all that came.
                self.assess()
            }
        }
    }

    func post(_ job: Job) { worker.post(job) }

    func finish() {
        worker.finish()
        thread?.join()
    }

    // MARK: On the thread

    /// One experiment's judge and how far it has read.
    private final class Watch {
        var judge: ExperimentJudge
        var hosts: [String: StoredRows]
        /// A silence of theirs is on its way to the log: what comes behind it is read behind it, as it will be when it is read again.
        var awaited: Set<String> = []
        var hasNews = true
        init(_ experiment: Experiment) {
            judge = ExperimentJudge(experiment)
            hosts = Dictionary(
                uniqueKeysWithValues: experiment.hosts.map {
                    ($0.name, StoredRows(host: $0.name, firstDay: ExperimentJudge.firstDay(experiment)))
                })
        }
    }

    private var watches: [String: Watch] = [:]

    private func perform(_ job: Job) {
        switch job {
        case .watch(let experiment, let held):
            let id = experiment.spec.id
            guard watches[id] == nil else { return }
            let watch = Watch(experiment)
            watches[id] = watch
            for (host, files) in held { for file in files { watch.hosts[host]?.grew(file.file, to: file.length) } }
            for host in experiment.hosts { read(host.name, watch) }
        case .unwatch(let id): watches[id] = nil
        case .grew(let host, let file, let length):
            for watch in watches.values where watch.hosts[host] != nil {
                watch.hosts[host]?.grew(file, to: length)
                read(host, watch)
            }
        case .silence(let id, let silence):
            guard let watch = watches[id] else { return }
            watch.judge.decide(silence)
            watch.hasNews = true
            watch.awaited.remove(silence.host)
            read(silence.host, watch)
        case .survey(let id, let held, let source, let block): deliver([.surveyed(id, survey(held, source, blockMilliseconds: block))])
        case .tick(let milliseconds):
            for (id, watch) in watches {
                let due = watch.judge.dueSilences(at: milliseconds, hubStarted: hubStarted)
                watch.awaited.formUnion(due.map(\.host))
                if !due.isEmpty { deliver(due.map { .silent(id, $0) }) }
            }
        }
    }

    private func assess() {
        let findings = watches.sorted { $0.key < $1.key }.compactMap { _, watch -> Finding? in
            guard watch.hasNews else { return nil }
            watch.hasNews = false
            return .assessed(watch.judge.assess())
        }
        if !findings.isEmpty { deliver(findings) }
    }

    private func read(_ host: String, _ watch: Watch) {
        guard !watch.awaited.contains(host) else { return }
        do throws(FileError) {
            try watch.hosts[host]?.read(in: feeds, mayGrow: true) { line, offset in
                watch.judge.take(line, host: host, endingAt: offset)
                watch.hasNews = true
            }
        } catch { report(error) }
    }

    /// The last day's rows of arm A.
    private func survey(_ held: [String: [Ingest.HeldFile]], _ source: RowSource, blockMilliseconds: Int64) -> ExperimentHistory {
        var history = ArmHistory(blockMilliseconds: blockMilliseconds)
        var ends: [ExperimentSpec.PreEnd] = []
        let today = CalendarDay(containing: SystemClock.wall()).number
        for (host, files) in held.sorted(by: { $0.key < $1.key }) {
            var rows = StoredRows(host: host, firstDay: today - 1)
            for file in files { rows.grew(file.file, to: file.length) }
            var end: StoredOffset?
            do throws(FileError) {
                try rows.read(in: feeds) { line, offset in
                    history.take(line, host: host, source: source)
                    end = offset
                }
            } catch { report(error) }
            if let end { ends.append(ExperimentSpec.PreEnd(host: host, day: end.day, part: end.part, byte: end.byte)) }
        }
        return ExperimentHistory(ranked: history.ranked, pairs: history.pairs, ends: ends)
    }
}

/// Says a decision again, from the stored bytes up to those of its evidence (SPEC 7.3). On whichever thread has the time: it may be a day's rows.
struct Explanation {
    let feeds: String

    func of(_ evidence: JSONValue, _ experiment: Experiment, _ held: [String: [Ingest.HeldFile]]) -> Result<JSONValue, Refusal> {
        if evidence["kind"] != nil { return breaker(evidence, experiment.spec.id, held) }
        guard let inputs = Assessment.inputs(evidence) else {
            return .failure(Refusal("no_evidence", "the decision was not made from stored snapshots", exit: 2))
        }
        var past = experiment
        past.silences = inputs.silences
        var judge = ExperimentJudge(past)
        for (host, end) in inputs.held.sorted(by: { $0.key < $1.key }) {
            var rows = StoredRows(host: host, firstDay: ExperimentJudge.firstDay(experiment))
            for file in held[host] ?? [] { rows.grew(file.file, to: file.length) }
            do throws(FileError) {
                try rows.read(in: feeds, upTo: end) { line, offset in judge.take(line, host: host, endingAt: offset) }
            } catch { return .failure(Refusal("file", "\(error)", exit: 1)) }
        }
        return .success(judge.assess().json)
    }

    /// Of a breaker: the event that the edge wrote of it, in the evidence's form.
    private func breaker(_ evidence: JSONValue, _ experiment: String, _ held: [String: [Ingest.HeldFile]]) -> Result<JSONValue, Refusal> {
        let host = evidence["host"]?.string ?? ""
        let at = evidence["at_ms"]?.integer ?? 0
        var rows = StoredRows(host: host, firstDay: at / 86_400_000 - 1, feed: .events)
        for file in held[host] ?? [] { rows.grew(file.file, to: file.length) }
        var found = false
        do throws(FileError) {
            try rows.read(in: feeds) { line, _ in
                guard !found, let row = try? JSONValue.parse(line), let detail = row["detail"], row["ts"]?.integer == at else { return }
                found = Assessment.isBreaker(row, detail, experiment, evidence)
            }
        } catch { return .failure(Refusal("file", "\(error)", exit: 1)) }
        return .success(found ? evidence : .null)
    }
}

/// One host's stored rows of a feed in the order of their files (day, part) and bytes.
///
/// A day's file is left for the next day's once it is known to be complete: an edge sends today's rows before those it still owes of yesterday, and
/// what is read live is read in the same order again.
struct StoredRows {
    private struct File {
        var name: String
        var day: Int64
        var part: Int64
        var length: Int64
    }

    let host: String
    private let firstDay: Int64
    private let feed: Feed
    /// In order; only those not read to their end for good.
    private var files: [File] = []
    private var byte: Int64 = 0

    init(host: String, firstDay: Int64, feed: Feed = .snapshots) {
        self.host = host
        self.firstDay = firstDay
        self.feed = feed
    }

    /// Of the hub's file; names of other feeds are ignored.
    mutating func grew(_ name: String, to length: Int64) {
        guard let parsed = FeedPart.parse(name), parsed.feed == feed, parsed.day.number >= firstDay else { return }
        if let place = files.firstIndex(where: { $0.name == name }) {
            files[place].length = max(files[place].length, length)
            return
        }
        let file = File(name: name, day: parsed.day.number, part: Int64(parsed.number), length: length)
        if let first = files.first, (file.day, file.part) < (first.day, first.part), byte > 0 { return }  // Left for good.
        files.append(file)
        files.sort { ($0.day, $0.part) < ($1.day, $1.part) }
    }

    /// Every file of the host that is on the disk, whole lines of which may be read.
    mutating func findAll(in directory: String) throws(FileError) {
        let folder = "\(directory)/host=\(host)"
        var status = stat()
        guard stat(folder, &status) == 0 else { return }
        for name in try FeedDirectory.names(in: folder) where stat("\(folder)/\(name)", &status) == 0 {
            grew(name, to: Int64(status.st_size))
        }
    }

    /// Hands over the whole lines that are synced, in order. `end`: none that ends behind it. `mayGrow`: an older file
    /// may, until it is sealed.
    mutating func read(
        in directory: String, upTo end: StoredOffset? = nil, mayGrow: Bool = false, _ take: (UnsafeRawBufferPointer, StoredOffset) -> Void
    ) throws(FileError) {
        while let file = files.first {
            try read(file, in: directory, upTo: end, take)
            // A part ends when the next one begins.
            guard files.count > 1, !mayGrow || files[1].day == file.day || isSealed(file, in: directory) else { return }
            files.removeFirst()
            byte = 0
        }
    }

    private func isSealed(_ file: File, in directory: String) -> Bool {
        let name = FeedFileName.text(feed, CalendarDay(number: file.day))
        return access("\(directory)/\(SealBook<SystemDisk>.path(host, name))", F_OK) == 0
    }

    private mutating func read(
        _ file: File, in directory: String, upTo end: StoredOffset?, _ take: (UnsafeRawBufferPointer, StoredOffset) -> Void
    ) throws(FileError) {
        guard byte < file.length else { return }
        let path = "\(directory)/host=\(host)/\(file.name)"
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is it readable?") }
        defer { close(descriptor) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        while byte < file.length {
            let wanted = Int(min(Int64(buffer.count), file.length - byte))
            let count = pread(descriptor, buffer.baseAddress!, wanted, off_t(byte))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw FileError(.read, path, errorNumber: count == 0 ? EIO : errno, remedy: "is the disk failing?") }
            let bytes = UnsafeRawBufferPointer(rebasing: buffer[0..<count])
            var start = 0
            while let newline = bytes[start...].firstIndex(of: 0x0a) {
                let offset = StoredOffset(day: file.day, part: file.part, byte: byte + Int64(newline) + 1)
                if let end, offset > end { return }
                take(UnsafeRawBufferPointer(rebasing: bytes[start..<newline]), offset)
                start = newline + 1
            }
            // No newline in a MiB: not a row of ours (SPEC 6.5: 64 KiB); it is skipped.
            if start == 0 {
                guard count == buffer.count else { return }
                start = count
            }
            byte += Int64(start)
        }
    }
}
