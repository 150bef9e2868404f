import CalibModel
import Wire

/// Writes and syncs the hub's feed files in rounds, and says what may be acknowledged (SPEC 8.6).
///
/// A round is any number of `write`, `inspect` and `survey`, then `endRound`, which syncs every file written and returns what came of it all.
/// Whoever owns the committer calls `endRound` when nothing waits any more, or when it has taken what waited: while a round's syncs run, the next
/// one gathers.
///
/// Invariants:
/// 1. `.committed` names a length only after a sync that covers it has returned, and the file's name lasts, too.
/// 2. After an error a file is in doubt: its length is what was synced last, nothing more is written to it, and it is cut back to that, by
///    `inspect`, before it is written to again. A sync that failed is not repeated and believed: the kernel may have dropped the pages. The
///    bytes come again from the edge.
/// 3. Bytes of one file lie behind each other without a gap: a write at any other place than the file's end is refused.
package struct Committer<Disk: FeedDisk> {
    package enum Result {
        /// `rows`: those that became durable with it.
        case committed(host: String, file: String, length: Int64, rows: Int64)
        /// Nothing of the file above what was committed can be relied on.
        case failed(host: String, file: String, Failure)
        case inspected(LinkID, host: String, file: String, Ingest.Inspection)
        case surveyed(LinkID, files: [Ingest.HeldFile], highestSeq: [Message.Welcome.FeedSeq])
        case surveyFailed(LinkID, Disk.Failure)
    }

    package enum Failure: Error {
        case disk(Disk.Failure)
        /// A write belongs at another place than the file's end; another program must have changed the file.
        case misplaced(path: String, offset: Int64, length: Int64)
    }

    /// One file that was touched.
    private struct Copy {
        let host: String
        let file: String
        var length: Int64
        var synced: Int64
        /// Rows that ended since the last commit.
        var rows: Int64 = 0
        /// Made since the folder's names were synced.
        var isNameNew: Bool
        var isInDoubt = false
    }

    package var disk: Disk
    /// By path.
    private var copies: [String: Copy] = [:]
    /// Paths written in this round, in the order of their first write.
    private var dirty: [String] = []
    private var results: [Result] = []

    private let openFilesMax: Int

    /// `openFilesMax`: files that are kept open between rounds.
    package init(disk: Disk, openFilesMax: Int = Limits.hubOpenFilesMax) {
        self.disk = disk
        self.openFilesMax = openFilesMax
    }

    // MARK: A round

    /// Bytes that belong at `offset`. They are done with when this returns.
    package mutating func write(_ bytes: UnsafeRawBufferPointer, host: String, file: String, offset: Int64) {
        let path = Self.path(host, file)
        do throws(Failure) {
            if copies[path] == nil { copies[path] = try find(path, host, file, isWriting: true) }
            // What follows a failed write belongs behind bytes that are not there.
            guard let copy = copies[path], !copy.isInDoubt else { return }
            guard offset == copy.length else { throw .misplaced(path: path, offset: offset, length: copy.length) }
            try attempt { (disk) throws(Disk.Failure) in try disk.write(bytes, to: path, at: offset) }
            if copy.length == copy.synced { dirty.append(path) }
            copies[path]!.length += Int64(bytes.count)
            copies[path]!.rows += Int64(newlines(in: bytes))
        } catch {
            doubt(path, error, host, file)
        }
    }

    /// What there is of a file, all of it synced: the answer to an edge that wants to go on with it.
    package mutating func inspect(_ link: LinkID, host: String, file: String) {
        let path = Self.path(host, file)
        do throws(Failure) {
            results.append(.inspected(link, host: host, file: file, try inspection(path, host, file)))
        } catch {
            doubt(path, error, host, file)
        }
    }

    /// The host's files, and per feed the highest seq of the epoch in the ends of its newest two files that have any.
    package mutating func survey(_ link: LinkID, host: String, epoch: String) {
        do throws(Disk.Failure) {
            let files = try held(host)
            var highest: [Message.Welcome.FeedSeq] = []
            for feed in Feed.allCases {
                // Names of one feed sort by day.
                var found: [Int64] = []
                for held in files.reversed() where Ingest.parse(fileName: held.file)?.feed == feed && found.count < 2 {
                    if let seq = try highestSeq(Self.path(host, held.file), held.length, epoch) { found.append(seq) }
                }
                if let seq = found.max() { highest.append(Message.Welcome.FeedSeq(feed: feed.rawValue, seq: seq)) }
            }
            results.append(.surveyed(link, files: files, highestSeq: highest))
        } catch {
            results.append(.surveyFailed(link, error))
        }
    }

    /// Syncs what was written, and hands over what came of the round, in order. True when anything was synced.
    package mutating func endRound() -> (results: [Result], hasSynced: Bool) {
        let written = dirty.filter { copies[$0].map { $0.length > $0.synced && !$0.isInDoubt } ?? false }
        dirty = []
        if written.count > Limits.syncEachFilesMax {
            do throws(Failure) {
                try attempt { (disk) throws(Disk.Failure) in try disk.syncAll() }
                for path in written { committed(path) }
            } catch {
                for path in written { doubt(path, error, copies[path]!.host, copies[path]!.file) }
            }
        } else {
            for path in written {
                do throws(Failure) {
                    try sync(path)
                    committed(path)
                } catch {
                    doubt(path, error, copies[path]!.host, copies[path]!.file)
                }
            }
        }
        if copies.count > openFilesMax {
            for (path, copy) in copies where !copy.isInDoubt {
                disk.release(path)
                copies[path] = nil
            }
        }
        defer { results = [] }
        return (results, !written.isEmpty)
    }

    /// The hosts and their files, at the start. What a process before this one wrote is synced before its length counts: all of it at once, because
    /// a sync for each file would keep a fleet that comes back waiting (15,000 syncs for 1,000 hosts).
    package mutating func hosts() throws(Disk.Failure) -> [(host: String, files: [Ingest.HeldFile])] {
        try disk.syncAll()
        var hosts: [(String, [Ingest.HeldFile])] = []
        for name in try disk.names(in: "") where name.hasPrefix("host=") && HostName.isValid(String(name.dropFirst(5))) {
            let host = String(name.dropFirst(5))
            hosts.append((host, try held(host)))
        }
        return hosts
    }

    // MARK: Leaves

    private static func path(_ host: String, _ file: String) -> String { "host=\(host)/\(file)" }

    private mutating func attempt<Value>(_ body: (inout Disk) throws(Disk.Failure) -> Value) throws(Failure) -> Value {
        do throws(Disk.Failure) { return try body(&disk) } catch { throw .disk(error) }
    }

    private mutating func committed(_ path: String) {
        guard let copy = copies[path] else { return }
        copies[path]!.synced = copy.length
        copies[path]!.rows = 0
        copies[path]!.isNameNew = false
        results.append(.committed(host: copy.host, file: copy.file, length: copy.length, rows: copy.rows))
    }

    private mutating func doubt(_ path: String, _ failure: Failure, _ host: String, _ file: String) {
        copies[path]?.isInDoubt = true
        results.append(.failed(host: host, file: file, failure))
    }

    private mutating func sync(_ path: String) throws(Failure) {
        guard let copy = copies[path] else { return }
        try attempt { (disk) throws(Disk.Failure) in
            try disk.sync(path)
            // The name is made to last with the file, else a crash could lose a synced file.
            if copy.isNameNew { try disk.syncNames(in: "host=\(copy.host)") }
        }
    }

    /// What lies on the disk: all of it is synced, by `hosts` or before this committer forgot the file. Nil when there is no file and nothing is to be
    /// written: a file is made by its first bytes, not by a question.
    private mutating func find(_ path: String, _ host: String, _ file: String, isWriting: Bool) throws(Failure) -> Copy? {
        try attempt { (disk) throws(Disk.Failure) in
            if let length = try disk.length(of: path) {
                return Copy(host: host, file: file, length: length, synced: length, isNameNew: false)
            }
            guard isWriting else { return nil }
            try disk.makeFolder("host=\(host)")
            return Copy(host: host, file: file, length: 0, synced: 0, isNameNew: true)
        }
    }

    private mutating func inspection(_ path: String, _ host: String, _ file: String) throws(Failure) -> Ingest.Inspection {
        if copies[path] == nil { copies[path] = try find(path, host, file, isWriting: false) }
        guard var copy = copies[path] else { return Ingest.Inspection(length: 0, tailCRC32C: nil, epoch: nil) }
        try attempt { (disk) throws(Disk.Failure) in
            // A write that failed at the file's making may have left no file to cut.
            if copy.isInDoubt, try disk.length(of: path) != nil { try disk.cut(path, to: copy.synced) }
        }
        if copy.isInDoubt {
            (copy.length, copy.rows, copy.isInDoubt) = (copy.synced, 0, false)
            copies[path] = copy
            // The cut lasts: else a crash would bring back what nobody vouches for.
            if copy.length > 0 { try sync(path) }
        } else if copy.length > copy.synced {
            try sync(path)
            committed(path)
        }
        let length = copy.length
        return try attempt { (disk) throws(Disk.Failure) in
            let checked = Int(min(length, Int64(Limits.resumeCheckBytes)))
            let tail = try disk.read(path, at: length - Int64(checked), count: checked)
            let head = try disk.read(path, at: 0, count: Int(min(length, Int64(Limits.rowBytesMax))))
            return Ingest.Inspection(
                length: length, tailCRC32C: tail.isEmpty ? nil : CRC32C.text(of: tail),
                epoch: head.withUnsafeBytes { FeedTail.epoch(ofHead: $0) })
        }
    }

    private mutating func held(_ host: String) throws(Disk.Failure) -> [Ingest.HeldFile] {
        var files: [Ingest.HeldFile] = []
        for name in try disk.names(in: "host=\(host)") where Ingest.parse(fileName: name) != nil {
            if let length = try disk.length(of: Self.path(host, name)) { files.append(Ingest.HeldFile(file: name, length: length)) }
        }
        return files
    }

    private mutating func highestSeq(_ path: String, _ length: Int64, _ epoch: String) throws(Disk.Failure) -> Int64? {
        // Two of the longest rows: one of them is whole.
        let start = max(0, length - 2 * Int64(Limits.rowBytesMax))
        let tail = try disk.read(path, at: start, count: Int(length - start))
        return tail.withUnsafeBytes { FeedTail.highestSeq(in: $0, startsAtRow: start == 0, epoch: epoch) }
    }
}

/// In pieces whose count fits a byte, which the compiler then counts 16 at a time: every byte of a fleet passes here.
private func newlines(in bytes: UnsafeRawBufferPointer) -> Int {
    let bytes = bytes.bindMemory(to: UInt8.self)
    var count = 0
    var offset = 0
    while offset < bytes.count {
        let end = min(bytes.count, offset + 192)
        var piece: UInt8 = 0
        for place in offset..<end { piece &+= bytes[place] == 0x0a ? 1 : 0 }
        count += Int(piece)
        offset = end
    }
    return count
}

extension Committer.Result: Sendable where Disk.Failure: Sendable {}
extension Committer.Failure: Sendable where Disk.Failure: Sendable {}
