package import CalibModel
import Glibc
internal import Wire

/// The feed files of one directory, owned by one process (SPEC 2): `<artifacts>/feeds/<feed>_YYYYMMDD.jsonl`.
///
/// Opening locks the directory, makes its epoch once, and repairs what a crash left at the end of any file. At most one file per feed is
/// open for appending, the newest written. One thread uses it at a time.
package final class FeedFiles: @unchecked Sendable {
    /// What a repair took away.
    package struct Cut: Sendable, Equatable {
        package var feed: Feed
        package var file: String
        package var offset: Int
        package var bytes: Int
        package var rowsSaved: Int
    }

    package let directory: String
    /// 16 hex digits, made once per directory.
    package let epoch: String
    /// Of every feed, in `Feed.allCases` order, the highest seq in any of its files; 0 for none.
    package private(set) var highestSeq: [Int64]
    /// Of every feed the day of its newest file, nil for none.
    package private(set) var newestDay: [CalendarDay?]
    package private(set) var cuts: [Cut] = []
    /// Of every feed file, how much is durable; from `init` on, all that was found.
    package let synced = SyncedFiles()
    /// Files that are complete and whose event is durable.
    package let sealed: SealedFiles

    private struct OpenFile {
        var day: CalendarDay
        var path: String
        var descriptor: Int32
        /// Whole rows written: where a row cut short by a full disk is cut off.
        var length: Int
        /// Of these, what a sync has covered.
        var synced: Int
        /// More than `length` may be in the file: an append failed, and so did cutting it off.
        var isTorn = false
    }

    private let lock: Int32
    private let calls: FileCalls
    private var open: [OpenFile?]

    /// Files that were sealed, and have the length they had then, are not read.
    ///
    /// - Parameter artifacts: the directory that holds `feeds/`; made when missing.
    /// - Throws: `.lock` when another process writes here, else the operation that failed.
    package init(artifacts: String, calls: FileCalls = .system) throws(FileError) {
        directory = artifacts + "/feeds"
        self.calls = calls
        try AtomicFile.makeDirectory(directory)
        try AtomicFile.makeDirectory(directory + "/.cut")
        open = .init(repeating: nil, count: Feed.allCases.count)
        highestSeq = .init(repeating: 0, count: Feed.allCases.count)
        newestDay = .init(repeating: nil, count: Feed.allCases.count)
        lock = try lockFile(directory + "/.lock")
        do {
            epoch = try readEpoch(directory)
            sealed = try SealedFiles(directory: directory)
        } catch {
            close(lock)
            throw error
        }
        let names = try listFiles(directory)
        for (place, feed) in Feed.allCases.enumerated() {
            for name in names {
                guard let day = FeedFileName.day(of: name, feed) else { continue }
                newestDay[place] = max(newestDay[place] ?? day, day)
                if let file = sealed[feed, day], let status = Stamp(path: directory + "/" + name), status.size == file.bytes {
                    highestSeq[place] = max(highestSeq[place], file.highestSeq)
                    synced.set(name, file.bytes)
                    continue
                }
                let seq = try repair(name, feed)
                highestSeq[place] = max(highestSeq[place], seq ?? 0)
                // A process that was killed leaves rows that are in the file and not yet on the disk.
                synced.set(name, try syncFile("\(directory)/\(name)"))
            }
        }
        // A process that was killed between an event and its note: the event says it.
        for name in names.filter({ FeedFileName.day(of: $0, .events) != nil }).suffix(2) { try noteSealedEvents(of: name) }
    }

    deinit {
        closeFiles()
        close(lock)
    }

    /// Appends whole rows to the feed's file of a day. After an error none of them is in the file, or will be when it is next appended to.
    package func append(_ feed: Feed, _ day: CalendarDay, _ rows: UnsafeRawBufferPointer) throws(FileError) {
        let place = Feed.allCases.firstIndex(of: feed)!
        if let file = open[place], file.day != day {
            precondition(file.synced == file.length && !file.isTorn, "BUG: \(file.path) is left unsynced")
            close(file.descriptor)
            open[place] = nil
        }
        var file = if let file = open[place] { file } else { try openFile(feed, day) }
        defer { open[place] = file }
        if file.isTorn {
            guard calls.truncate(file.descriptor, file.length) == 0 else {
                throw FileError(.cut, file.path, "at byte \(file.length)", errorNumber: errno, remedy: "is the disk failing?")
            }
            file.isTorn = false
        }
        do {
            try writeAll(file.descriptor, rows, file.path, .append, calls.write)
        } catch {
            if error.written > 0 { file.isTorn = calls.truncate(file.descriptor, file.length) != 0 }
            throw error.error
        }
        file.length += rows.count
    }

    /// Makes what was appended to the feed's open file durable. After an error nobody knows what is: `takeBack` it.
    package func sync(_ feed: Feed) throws(FileError) {
        let place = Feed.allCases.firstIndex(of: feed)!
        guard let file = open[place], file.synced < file.length else { return }
        guard calls.sync(file.descriptor) == 0 else {
            throw FileError(.sync, file.path, errorNumber: errno, remedy: "is the disk healthy? what it may have lost is written again")
        }
        open[place]!.synced = file.length
        synced.set(FeedFileName.text(feed, file.day), Int64(file.length))
    }

    /// Cuts off what no sync has covered and closes the file: after a failed sync the kernel may hold its pages for clean, and the descriptor has
    /// told its error.
    package func takeBack(_ feed: Feed) throws(FileError) {
        let place = Feed.allCases.firstIndex(of: feed)!
        guard let file = open[place] else { return }
        guard calls.truncate(file.descriptor, file.synced) == 0 else {
            throw FileError(.cut, file.path, "at byte \(file.synced)", errorNumber: errno, remedy: "is the disk failing?")
        }
        close(file.descriptor)
        open[place] = nil
    }

    package func closeFiles() {
        for file in open { if let file { close(file.descriptor) } }
        open = .init(repeating: nil, count: open.count)
    }

    private func openFile(_ feed: Feed, _ day: CalendarDay) throws(FileError) -> OpenFile {
        let path = "\(directory)/\(FeedFileName.text(feed, day))"
        let descriptor = calls.open(path)
        guard descriptor >= 0 else { throw FileError(.open, path, "for append", errorNumber: errno, remedy: "is the directory writable?") }
        do throws(FileError) {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else {
                throw FileError(.open, path, errorNumber: errno, remedy: "is the disk healthy?")
            }
            // The name is made durable with the file, else a crash could lose a synced file.
            if status.st_size == 0 { try AtomicFile.syncDirectory(directory) }
            return OpenFile(day: day, path: path, descriptor: descriptor, length: Int(status.st_size), synced: Int(status.st_size))
        } catch {
            close(descriptor)
            throw error
        }
    }

    private func noteSealedEvents(of name: String) throws(FileError) {
        let file = try MappedFile(directory + "/" + name)
        let found = file.withBytes { bytes -> [SealedFile] in
            let start = max(0, bytes.count - Limits.repairTailBytes)
            return SealedFiles.events(in: UnsafeRawBufferPointer(rebasing: bytes[start...]))
        }
        for var file in found where sealed[file.feed, file.day] == nil {
            // Not below what is in the file, which was read above; higher is as good.
            file.highestSeq = highestSeq[Feed.allCases.firstIndex(of: file.feed)!]
            try sealed.note(file)
        }
    }

    // MARK: Repair

    /// Checks a file's end, repairs it, and returns the highest seq found.
    ///
    /// The bytes from the first bad row on are copied to `.cut/<file>.<offset>.<n>.pending` and synced before the file is cut; the name loses
    /// `.pending` once the rows saved are synced in the file again. So a crash at any moment leaves either the file, or the pending copy, or
    /// both, and the next start finishes the work: a row already back is known by its identity.
    private func repair(_ name: String, _ feed: Feed) throws(FileError) -> Int64? {
        let file = try MappedFile(directory + "/" + name)
        return try file.withBytes { bytes throws(FileError) in try repair(bytes, name, feed) }
    }

    private func repair(_ bytes: UnsafeRawBufferPointer, _ name: String, _ feed: Feed) throws(FileError) -> Int64? {
        let path = directory + "/" + name
        let (start, found) = examine(bytes)
        var pending = try listFiles(directory + "/.cut").filter { $0.hasPrefix(name + ".") && $0.hasSuffix(".pending") }
        let end = start + found.validEnd
        let bad = bytes.count - end
        if bad > 0 {
            let number = try listFiles(directory + "/.cut").filter { $0.hasPrefix("\(name).\(end).") }.count
            let copy = "\(name).\(end).\(number).pending"
            try writeFile("\(directory)/.cut/\(copy)", UnsafeRawBufferPointer(rebasing: bytes[end...]))
            try AtomicFile.syncDirectory(directory + "/.cut")
            pending.append(copy)
        }
        guard bad > 0 || found.needsNewline || !pending.isEmpty else { return found.highestSeq }

        let descriptor = Glibc.open(path, O_WRONLY | O_APPEND | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(.open, path, "for repair", errorNumber: errno, remedy: "is the file writable?") }
        defer { close(descriptor) }
        if bad > 0, ftruncate(descriptor, end) != 0 {
            throw FileError(.cut, path, "at byte \(end)", errorNumber: errno, remedy: "is the file writable?")
        }
        var back: [UInt8] = found.needsNewline ? [0x0a] : []
        var highest = found.highestSeq
        for copy in pending {
            let copied = try MappedFile("\(directory)/.cut/\(copy)")
            // What is in the file from the place of that cut on; the rows before it were never touched.
            let offset = min(end, Self.offset(of: copy, name) ?? 0)
            var known: Set<RowIdentity> = []
            _ = FeedRepair.rows(in: UnsafeRawBufferPointer(rebasing: bytes[offset..<end]), except: &known)
            back.withUnsafeBytes { _ = FeedRepair.rows(in: $0, except: &known) }
            var cut = Cut(feed: feed, file: name, offset: Self.offset(of: copy, name) ?? 0, bytes: 0, rowsSaved: 0)
            copied.withBytes { copied in
                let rows = FeedRepair.rows(in: copied, except: &known)
                for row in rows {
                    let line = UnsafeRawBufferPointer(rebasing: copied[row])
                    if let seq = RowIdentity(line: line)?.seq { highest = max(highest ?? seq, seq) }
                    back += line
                    back.append(0x0a)
                }
                cut.bytes = copied.count
                cut.rowsSaved = rows.count
            }
            cuts.append(cut)
        }
        do {
            try back.withUnsafeBufferPointer { bytes throws(PartialWrite) in
                try writeAll(descriptor, UnsafeRawBufferPointer(bytes), path, .append)
            }
        } catch {
            throw error.error
        }
        guard fsync(descriptor) == 0 else { throw FileError(.sync, path, errorNumber: errno, remedy: "is the disk healthy?") }
        for copy in pending {
            let from = "\(directory)/.cut/\(copy)"
            guard rename(from, String(from.dropLast(".pending".count))) == 0 else {
                throw FileError(.rename, from, errorNumber: errno, remedy: "is the directory writable?")
            }
        }
        if !pending.isEmpty { try AtomicFile.syncDirectory(directory + "/.cut") }
        return highest
    }

    /// Examines the last `Limits.repairTailBytes`, and more of the file as long as not one valid row comes before the damage.
    private func examine(_ bytes: UnsafeRawBufferPointer) -> (start: Int, FeedRepair) {
        var size = Limits.repairTailBytes
        while true {
            let start = max(0, bytes.count - size)
            let tail = UnsafeRawBufferPointer(rebasing: bytes[start...])
            let found = FeedRepair(examining: tail, startsAtRow: start == 0 || bytes[start - 1] == 0x0a)
            // Without one newline in it, the part skipped as "the row before" is the whole tail.
            let sawNothing = found.highestSeq == nil && !bytes.isEmpty
            if start == 0 || !(found.isAllBad || sawNothing) { return (start, found) }
            size *= 2
        }
    }

    /// The offset in `<file>.<offset>.<n>.pending`.
    private static func offset(of copy: String, _ name: String) -> Int? {
        copy.dropFirst(name.count + 1).split(separator: ".").first.flatMap { Int($0) }
    }
}

// MARK: File operations

/// A file's bytes, read in place. The mapping ends with this object; cutting the file does not touch bytes before the cut.
final class MappedFile {
    private let bytes: UnsafeRawBufferPointer

    init(_ path: String) throws(FileError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(.open, path, "for reading", errorNumber: errno, remedy: "is the file readable?") }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw FileError(.read, path, errorNumber: errno, remedy: "is the disk healthy?") }
        guard status.st_size > 0 else {
            bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            return
        }
        let start = mmap(nil, Int(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0)
        guard let start, start != MAP_FAILED else {
            throw FileError(.read, path, errorNumber: errno, remedy: "is there address space left?")
        }
        bytes = UnsafeRawBufferPointer(start: start, count: Int(status.st_size))
    }

    /// The bytes are valid inside `body` only.
    func withBytes<Value, Failure: Error>(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Value) throws(Failure) -> Value {
        defer { withExtendedLifetime(self) {} }
        return try body(bytes)
    }

    deinit {
        if let start = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: start), bytes.count) }
    }
}

/// A write that stopped half-way, and after how many bytes.
private struct PartialWrite: Error {
    var error: FileError
    var written: Int
}

private func writeAll(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, _ path: String, _ operation: FileError.Operation,
    _ write: (Int32, UnsafeRawPointer, Int) -> Int = { Glibc.write($0, $1, $2) }
) throws(PartialWrite) {
    var written = 0
    while written < bytes.count {
        let count = write(descriptor, bytes.baseAddress! + written, bytes.count - written)
        if count > 0 {
            written += count
        } else if count == 0 || errno != EINTR {
            let error = FileError(operation, path, errorNumber: errno, remedy: "is the disk full or failing?")
            throw PartialWrite(error: error, written: written)
        }
    }
}

/// Makes a file's content durable; returns its length.
private func syncFile(_ path: String) throws(FileError) -> Int64 {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileError(.open, path, "for reading", errorNumber: errno, remedy: "is the file readable?") }
    defer { close(descriptor) }
    var status = stat()
    guard fdatasync(descriptor) == 0, fstat(descriptor, &status) == 0 else {
        throw FileError(.sync, path, errorNumber: errno, remedy: "is the disk healthy?")
    }
    return Int64(status.st_size)
}

/// Writes a new file and makes its content durable; the name is the caller's to sync.
private func writeFile(_ path: String, _ bytes: UnsafeRawBufferPointer) throws(FileError) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(.create, path, errorNumber: errno, remedy: "is the directory writable?") }
    defer { close(descriptor) }
    do {
        try writeAll(descriptor, bytes, path, .write)
    } catch {
        throw error.error
    }
    guard fsync(descriptor) == 0 else { throw FileError(.sync, path, errorNumber: errno, remedy: "is the disk healthy?") }
}

/// The lock belongs to the open file: it ends with the process, however that ends.
private func lockFile(_ path: String) throws(FileError) -> Int32 {
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is the directory writable?") }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
        let code = errno
        close(descriptor)
        throw FileError(.lock, path, errorNumber: code, remedy: "does another edge-node write to this directory? give each host its own")
    }
    return descriptor
}

/// Reads `.epoch`, or makes it: once per directory, durable before the first row carries it.
private func readEpoch(_ directory: String) throws(FileError) -> String {
    let path = directory + "/.epoch"
    var status = stat()
    if stat(path, &status) == 0 {
        let text = try MappedFile(path).withBytes { String(decoding: $0.prefix(17), as: UTF8.self) }
        let digits = text.hasSuffix("\n") ? String(text.dropLast()) : text
        guard digits.utf8.count == 16, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }) else {
            throw FileError(.read, path, remedy: "it must hold 16 lower-case hex digits; restore it, or remove it to begin a new epoch")
        }
        return digits
    }
    var writer = JSONWriter()
    // The system's generator, which is getrandom(2) here.
    writer.hex(UInt64.random(in: .min ... .max))
    let digits = Array(writer.bytes[1...16])
    try AtomicFile.write(digits + [0x0a], to: path)
    return String(decoding: digits, as: UTF8.self)
}

/// Names in the directory, ascending.
private func listFiles(_ directory: String) throws(FileError) -> [String] {
    guard let stream = opendir(directory) else {
        throw FileError(.list, directory, errorNumber: errno, remedy: "is the directory readable?")
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        withUnsafePointer(to: &entry.pointee.d_name) { name in
            name.withMemoryRebound(to: CChar.self, capacity: 256) { names.append(String(cString: $0)) }
        }
    }
    return names.sorted()
}
