package import CalibModel
import Glibc
package import Wire

/// The feed files of one directory, owned by one process (SPEC 2): `<artifacts>/feeds/<feed>_YYYYMMDD.jsonl`.
///
/// Opening locks the directory, makes its epoch once, and repairs what a crash left at the end of any file. At most one file per feed is
/// open for appending, the newest written. One thread uses it at a time.
package final class FeedFiles: @unchecked Sendable {
    /// What a repair took away.
    package typealias Cut = FeedRecovery<SystemDisk>.Cut

    package let directory: String
    /// 16 hex digits, made once per directory.
    package let epoch: String
    /// Of every feed, in `Feed.allCases` order, the highest seq in any of its files; 0 for none.
    package private(set) var highestSeq: [Int64]
    /// Of every feed the day of its newest file, nil for none.
    package private(set) var newestDay: [CalendarDay?]
    /// What repairs took away and no durable event tells of yet.
    package let cuts: [Cut]
    /// Of every feed file, how much is durable; from `init` on, all that was found.
    package let synced = SyncedFiles()
    /// Files that are complete and whose event is durable.
    package let sealed: SealedFiles

    private let lock: Int32
    private var disk: SystemDisk
    private var appender = FeedAppender<SystemDisk>()

    /// Files that were sealed, and have the length they had then, are not read.
    ///
    /// - Parameter artifacts: the directory that holds `feeds/`; made when missing.
    /// - Throws: `.lock` when another process writes here, else the operation that failed.
    package init(artifacts: String, calls: FileCalls = .system) throws(FileError) {
        directory = artifacts + "/feeds"
        disk = try SystemDisk(directory, calls: calls)
        try AtomicFile.makeDirectory(directory + "/" + FeedRecovery<SystemDisk>.folder)
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
        // Repairs are done by the system's own calls: there is nothing in memory that could be written again.
        var disk = try SystemDisk(directory)
        let names = try disk.names(in: "")
        for (place, feed) in Feed.allCases.enumerated() {
            for name in names {
                guard let day = FeedFileName.day(of: name, feed) else { continue }
                newestDay[place] = max(newestDay[place] ?? day, day)
                if let file = sealed[feed, day], let status = Stamp(path: directory + "/" + name), status.size == file.bytes {
                    highestSeq[place] = max(highestSeq[place], file.highestSeq)
                    synced.set(name, file.bytes)
                    synced.seal(file)
                    continue
                }
                let seq = try FeedRecovery.repair(name, feed, on: &disk)
                highestSeq[place] = max(highestSeq[place], seq ?? 0)
                // A process that was killed leaves rows that are in the file and not yet on the disk.
                synced.set(name, try syncFile("\(directory)/\(name)"))
            }
        }
        // And perhaps a file whose name is not: what is told as durable from here on must be found after a crash.
        try disk.syncNames(in: "")
        cuts = try FeedRecovery.untoldCuts(on: &disk)
        disk.close()
        // A process that was killed between an event and its note: the event says it.
        for name in names.filter({ FeedFileName.day(of: $0, .events) != nil }).suffix(2) { try noteSealedEvents(of: name) }
    }

    deinit {
        closeFiles()
        close(lock)
    }

    /// Appends whole rows to the feed's file of a day. After an error none of them is in the file, or will be when it is next appended to.
    package func append(_ feed: Feed, _ day: CalendarDay, _ rows: UnsafeRawBufferPointer) throws(FileError) {
        try appender.append(feed, day, rows, on: &disk)
    }

    /// Makes what was appended to the feed's open file durable. After an error nobody knows what is: `takeBack` it.
    package func sync(_ feed: Feed) throws(FileError) {
        if let (name, length) = try appender.sync(feed, on: &disk) { synced.set(name, length) }
    }

    /// Cuts off what no sync has covered and closes the file: after a failed sync the kernel may hold its pages for clean, and the descriptor has
    /// told its error.
    package func takeBack(_ feed: Feed) throws(FileError) { try appender.takeBack(feed, on: &disk) }

    /// The events of these cuts are durable: no later start tells of them again.
    package func tell(_ cuts: [Cut]) throws(FileError) { try FeedRecovery.tell(cuts, on: &disk) }

    package func closeFiles() {
        disk.close()
        appender = FeedAppender()
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
            synced.seal(file)
        }
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
