import CalibModel
import Glibc
import HubCore
import NodeShell
import Wire

/// Writes and syncs the hub's feed files on a thread of its own (SPEC 8.6).
///
/// A round takes everything that waits, writes it in order, then syncs each file written once: while a sync runs, the next round gathers. After
/// an error a file is not trusted: its length is what was synced last, and it is cut back to that before anything is written again. A sync that
/// failed is not repeated and believed (the kernel may have dropped the pages); the bytes come again from the edge.
final class FeedCommitter: @unchecked Sendable {
    enum Job: Sendable {
        case write(host: String, file: String, offset: Int64, bytes: [UInt8])
        case inspect(LinkID, host: String, file: String)
        case survey(LinkID, host: String, epoch: String)
    }

    enum Result: Sendable {
        /// `records`: rows that became durable with it.
        case committed(host: String, file: String, length: Int64, records: Int64)
        case failed(host: String, file: String, FileError)
        case inspected(LinkID, host: String, file: String, Ingest.Inspection)
        case surveyed(LinkID, files: [Ingest.HeldFile], highestSeq: [Message.Welcome.FeedSeq])
        case surveyFailed(LinkID, FileError)
        /// Everything of a round that wrote something is durable or failed.
        case committedAll(nanoseconds: Int64)
    }

    private struct OpenFile {
        var descriptor: Int32
        var length: Int64
        var synced: Int64
        /// Rows that ended since the last sync was told.
        var records: Int64 = 0
        /// Bytes above `synced` are in doubt.
        var isBroken = false
        var isDirty: Bool { length > synced && !isBroken }
    }

    /// File descriptors kept open between rounds: six feeds of eighty hosts.
    private static let openFilesMax = 512

    private let directory: String
    private let worker: Worker<Job>
    private let deliver: @Sendable ([Result]) -> Void
    private var thread: OwnerThread?
    // The committer's thread only.
    private var files: [String: OpenFile] = [:]

    /// `deliver` is called on the committer's thread, once per round.
    init(directory: String, deliver: @escaping @Sendable ([Result]) -> Void) throws(FileError) {
        self.directory = directory
        self.deliver = deliver
        worker = try Worker()
        try AtomicFile.makeDirectory(directory)
        let worker = worker
        thread = try OwnerThread(name: "hub-committer") { [unowned self] in
            while let jobs = worker.take() { self.round(jobs) }
            for file in self.files.values { close(file.descriptor) }
        }
    }

    func post(_ job: Job) { worker.post(job) }

    /// Does what waits, then ends.
    func finish() {
        worker.finish()
        thread?.join()
    }

    /// Hosts and files held, at the start.
    static func scan(_ directory: String) throws(FileError) -> [(host: String, files: [Ingest.HeldFile])] {
        var result: [(String, [Ingest.HeldFile])] = []
        for name in try FeedDirectory.names(in: directory).sorted() where name.hasPrefix("host=") {
            let host = String(name.dropFirst(5))
            guard HostName.isValid(host) else { continue }
            result.append((host, try held("\(directory)/\(name)")))
        }
        return result
    }

    // MARK: A round

    private func round(_ jobs: [Job]) {
        var results: [Result] = []
        let begun = SystemClock.monotonic()
        for job in jobs {
            switch job {
            case .write(let host, let file, let offset, let bytes):
                do throws(FileError) { try write(bytes, host, file, offset) } catch {
                    results.append(.failed(host: host, file: file, error))
                }
            case .inspect(let link, let host, let file):
                do throws(FileError) { results.append(.inspected(link, host: host, file: file, try inspect(host, file))) } catch {
                    results.append(.failed(host: host, file: file, error))
                }
            case .survey(let link, let host, let epoch):
                do throws(FileError) { results.append(try survey(link, host, epoch)) } catch {
                    results.append(.surveyFailed(link, error))
                }
            }
        }
        let dirty = files.filter { $0.value.isDirty }
        for (key, file) in dirty {
            let parts = key.split(separator: "/").map(String.init)
            do throws(FileError) {
                try sync(key)
                results.append(.committed(host: parts[0], file: parts[1], length: file.length, records: file.records))
                files[key]?.records = 0
            } catch {
                results.append(.failed(host: parts[0], file: parts[1], error))
            }
        }
        if !dirty.isEmpty { results.append(.committedAll(nanoseconds: SystemClock.monotonic().since(begun))) }
        if files.count > Self.openFilesMax {
            for (key, file) in files where !file.isBroken {
                close(file.descriptor)
                files[key] = nil
            }
        }
        deliver(results)
    }

    private func path(_ host: String, _ file: String) -> String { "\(directory)/host=\(host)/\(file)" }

    private func write(_ bytes: [UInt8], _ host: String, _ name: String, _ offset: Int64) throws(FileError) {
        let key = "\(host)/\(name)"
        var file = if let file = files[key] { file } else { try open(host, name) }
        defer { files[key] = file }
        // What follows a failed write on its connection belongs behind bytes that are not there.
        guard !file.isBroken else { return }
        guard offset == file.length else {
            file.isBroken = true
            throw FileError(
                .append, path(host, name), "at byte \(offset)", remedy: "it has \(file.length) bytes; did another program change it?")
        }
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                pwrite(file.descriptor, $0.baseAddress! + written, bytes.count - written, off_t(offset) + off_t(written))
            }
            if count > 0 {
                written += count
            } else if errno != EINTR {
                let code = errno
                file.isBroken = true
                throw FileError(.append, path(host, name), errorNumber: code, remedy: "is the disk full or failing?")
            }
        }
        file.length += Int64(written)
        file.records += bytes.reduce(0) { $0 + ($1 == 0x0a ? 1 : 0) }
    }

    private func sync(_ key: String) throws(FileError) {
        guard let file = files[key] else { return }
        guard fdatasync(file.descriptor) == 0 else {
            let code = errno
            files[key]?.isBroken = true
            throw FileError(.sync, "\(directory)/host=\(key)", errorNumber: code, remedy: "is the disk healthy?")
        }
        files[key]?.synced = file.length
    }

    /// For writing. What a process before this one wrote is synced before its length counts.
    private func open(_ host: String, _ name: String) throws(FileError) -> OpenFile {
        let path = path(host, name)
        var descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        if descriptor < 0, errno == ENOENT {
            try AtomicFile.makeDirectory("\(directory)/host=\(host)")
            descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        }
        guard descriptor >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is the directory writable?") }
        var status = stat()
        guard fstat(descriptor, &status) == 0, fdatasync(descriptor) == 0 else {
            let code = errno
            close(descriptor)
            throw FileError(.sync, path, errorNumber: code, remedy: "is the disk healthy?")
        }
        // The name is made durable with the file, else a crash could lose a synced file.
        if status.st_size == 0 {
            do throws(FileError) { try AtomicFile.syncDirectory("\(directory)/host=\(host)") } catch {
                close(descriptor)
                throw error
            }
        }
        return OpenFile(descriptor: descriptor, length: Int64(status.st_size), synced: Int64(status.st_size))
    }

    private func inspect(_ host: String, _ name: String) throws(FileError) -> Ingest.Inspection {
        let key = "\(host)/\(name)"
        // A file nobody has written to yet is made by its first bytes, not by a question.
        if files[key] == nil, access(path(host, name), F_OK) != 0, errno == ENOENT {
            return Ingest.Inspection(length: 0, tailCRC32C: nil, epoch: nil)
        }
        var file = if let file = files[key] { file } else { try open(host, name) }
        files[key] = file
        if file.isBroken {
            guard ftruncate(file.descriptor, off_t(file.synced)) == 0, fdatasync(file.descriptor) == 0 else {
                throw FileError(
                    .cut, path(host, name), "at byte \(file.synced)", errorNumber: errno, remedy: "is the disk healthy?")
            }
            file.length = file.synced
            file.records = 0
            file.isBroken = false
            files[key] = file
        }
        try sync(key)
        let tail = try read(file, host, name, from: max(0, file.length - Int64(Limits.resumeCheckBytes)), to: file.length)
        var checksum = CRC32C()
        checksum.combine(tail)
        let head = try read(file, host, name, from: 0, to: min(file.length, Int64(Limits.rowBytesMax)))
        return Ingest.Inspection(
            length: file.length, tailCRC32C: tail.isEmpty ? nil : checksum.text, epoch: head.withUnsafeBytes { FeedTail.epoch(ofHead: $0) })
    }

    private func read(_ file: OpenFile, _ host: String, _ name: String, from: Int64, to: Int64) throws(FileError) -> [UInt8] {
        try Self.read(file.descriptor, path(host, name), from: from, to: to)
    }

    private static func read(_ descriptor: Int32, _ path: String, from: Int64, to: Int64) throws(FileError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(to - from))
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress! + done, $0.count - done, off_t(from) + off_t(done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw FileError(.read, path, errorNumber: count < 0 ? errno : 0, remedy: "did it shrink?") }
            done += count
        }
        return bytes
    }

    // MARK: Survey

    private static func held(_ folder: String) throws(FileError) -> [Ingest.HeldFile] {
        var files: [Ingest.HeldFile] = []
        for name in try FeedDirectory.names(in: folder).sorted() where Ingest.parse(fileName: name) != nil {
            var status = stat()
            if stat("\(folder)/\(name)", &status) == 0 { files.append(Ingest.HeldFile(file: name, length: Int64(status.st_size))) }
        }
        return files
    }

    /// The host's files, and per feed the highest seq of the epoch in the ends of its newest two files that have any.
    private func survey(_ link: LinkID, _ host: String, _ epoch: String) throws(FileError) -> Result {
        let folder = "\(directory)/host=\(host)"
        guard access(folder, F_OK) == 0 else { return .surveyed(link, files: [], highestSeq: []) }
        let files = try Self.held(folder)
        var highest: [Message.Welcome.FeedSeq] = []
        for feed in Feed.allCases {
            // Names of one feed sort by day.
            var found: [Int64] = []
            for held in files.reversed() where Ingest.parse(fileName: held.file)?.feed == feed && found.count < 2 {
                if let seq = try highestSeq("\(folder)/\(held.file)", epoch) { found.append(seq) }
            }
            if let seq = found.max() { highest.append(Message.Welcome.FeedSeq(feed: feed.rawValue, seq: seq)) }
        }
        return .surveyed(link, files: files, highestSeq: highest)
    }

    private func highestSeq(_ path: String, _ epoch: String) throws(FileError) -> Int64? {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is it readable?") }
        defer { close(descriptor) }
        let length = Int64(lseek(descriptor, 0, SEEK_END))
        // Two of the longest rows: one of them is whole.
        let start = max(0, length - 2 * Int64(Limits.rowBytesMax))
        let tail = try Self.read(descriptor, path, from: start, to: length)
        return tail.withUnsafeBytes { FeedTail.highestSeq(in: $0, startsAtRow: start == 0, epoch: epoch) }
    }
}
