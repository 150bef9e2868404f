package import CalibModel
import Glibc
import Synchronization
internal import Wire

/// Which days' files are complete, what they hold, and that this was told: `feeds/.sealed`, one JSON line per file.
///
/// A line is written once the file's `sealed` event is durable. What a crash left between the two is found among the newest events, so a file
/// is sealed exactly once, and a start need not read it again.
package final class SealedFiles: Sendable {
    private let ledger: ControlFile
    private let directory: String
    private let files: Mutex<[String: SealedFile]>

    /// A line that a crash cut short is left out; the next one takes its place.
    init(directory: String) throws(FileError) {
        self.directory = directory
        ledger = ControlFile(path: directory + "/.sealed")
        var found: [String: SealedFile] = [:]
        for line in try ledger.read().split(separator: 0x0a) {
            if let file = line.withUnsafeBytes({ Self.entry($0) }) { found[file.name] = file }
        }
        files = Mutex(found)
    }

    package subscript(feed: Feed, day: CalendarDay) -> SealedFile? { files.withLock { $0[FeedFileName.text(feed, day)] } }

    /// The file's event is durable.
    package func note(_ file: SealedFile) throws(FileError) {
        var line = JSONWriter()
        line.beginObject()
        line.field("file", string: file.name)
        line.field("bytes", integer: file.bytes)
        line.field("rows", integer: file.rows)
        line.field("sha256", string: file.sha256)
        line.field("highest_seq", integer: file.highestSeq)
        line.endObject()
        line.newline()
        _ = try ledger.append(line.bytes)
        files.withLock { $0[file.name] = file }
    }

    // MARK: Sealing

    /// Reads a complete file and says what it holds; nil when there is none, or `isCancelled` says so, which is asked each mebibyte.
    package func seal(_ feed: Feed, _ day: CalendarDay, isCancelled: () -> Bool) throws(FileError) -> SealedFile? {
        let path = directory + "/" + FeedFileName.text(feed, day)
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        if descriptor < 0, errno == ENOENT { return nil }
        guard descriptor >= 0 else { throw FileError(.open, path, "for reading", errorNumber: errno, remedy: "is the file readable?") }
        defer { close(descriptor) }
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: Limits.sealChunkBytes, alignment: 16)
        defer { chunk.deallocate() }
        var digest = RunningDigest()
        var file = SealedFile(feed: feed, day: day, bytes: 0, rows: 0, sha256: "", highestSeq: 0)
        while !isCancelled() {
            let count = read(descriptor, chunk.baseAddress!, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(.read, path, errorNumber: errno, remedy: "is the disk failing?")
            }
            if count == 0 {
                file.sha256 = digest.finish()
                file.highestSeq = try highestSeq(path)
                return file
            }
            let bytes = UnsafeRawBufferPointer(rebasing: chunk[..<count])
            digest.update(bytes)
            file.bytes += Int64(count)
            for byte in bytes where byte == 0x0a { file.rows += 1 }
        }
        return nil
    }

    private func highestSeq(_ path: String) throws(FileError) -> Int64 {
        try MappedFile(path).withBytes { bytes in
            let start = max(0, bytes.count - Limits.repairTailBytes)
            let tail = UnsafeRawBufferPointer(rebasing: bytes[start...])
            return FeedRepair(examining: tail, startsAtRow: start == 0).highestSeq ?? 0
        }
    }

    // MARK: Lines

    /// What the `sealed` events among these rows say.
    static func events(in rows: UnsafeRawBufferPointer) -> [SealedFile] {
        rows.split(separator: 0x0a).compactMap { line in event(UnsafeRawBufferPointer(rebasing: line)) }
    }

    private static func event(_ line: UnsafeRawBufferPointer) -> SealedFile? {
        do throws(JSONError) {
            var reader = JSONReader(line)
            var isSealed = false
            var file: SealedFile?
            try reader.beginObject()
            while let key = try reader.nextKey() {
                if key.equals("event") {
                    isSealed = try reader.string().equals("sealed")
                    guard isSealed else { return nil }
                } else if isSealed, key.equals("detail") {
                    file = try detail(&reader)
                } else {
                    try reader.skip()
                }
            }
            try reader.end()
            return file
        } catch {
            return nil
        }
    }

    private static func entry(_ line: UnsafeRawBufferPointer) -> SealedFile? {
        do throws(JSONError) {
            var reader = JSONReader(line)
            let file = try detail(&reader)
            try reader.end()
            return file
        } catch {
            return nil
        }
    }

    /// An object of the members that an event's detail or a line of the ledger has; nil when one is missing.
    private static func detail(_ reader: inout JSONReader) throws(JSONError) -> SealedFile? {
        var (feed, day): (Feed?, CalendarDay?) = (nil, nil)
        var (bytes, rows, seq): (Int64?, Int64?, Int64) = (nil, nil, 0)
        var sha256: String?
        try reader.beginObject()
        while let key = try reader.nextKey() {
            if key.equals("file") {
                if let parts = FeedFileName.parse(text(try reader.string())) { (feed, day) = (parts.feed, parts.day) }
            } else if key.equals("feed") {
                feed = Feed(rawValue: text(try reader.string()))
            } else if key.equals("day") {
                day = CalendarDay(compactText: text(try reader.string()))
            } else if key.equals("bytes") {
                bytes = try reader.integer()
            } else if key.equals("rows") {
                rows = try reader.integer()
            } else if key.equals("highest_seq") {
                seq = try reader.integer()
            } else if key.equals("sha256") {
                sha256 = text(try reader.string())
            } else {
                try reader.skip()
            }
        }
        guard let feed, let day, let bytes, let rows, let sha256 else { return nil }
        return SealedFile(feed: feed, day: day, bytes: bytes, rows: rows, sha256: sha256, highestSeq: seq)
    }

    private static func text(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }
}
