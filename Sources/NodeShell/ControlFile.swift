import Glibc

/// A small append-only file of JSON lines that several processes of one host write: `kills.jsonl`, `latches.jsonl`.
///
/// Writers take turns by a lock on the file. A row is durable when `append` returns. What a crash left of a latch's row at the end is cut off by
/// the next writer, because the hub repeats a rollback until it hears that the row is durable. What it left of a kill's row becomes a line of its
/// own, which counts as a kill.
package struct ControlFile: Sendable {
    package let path: String
    private let keepsTornEnd: Bool

    /// `latches.jsonl`
    package init(path: String) { (self.path, keepsTornEnd) = (path, false) }
    /// `kills.jsonl`
    package init(kills path: String) { (self.path, keepsTornEnd) = (path, true) }

    /// All bytes; empty when there is no such file.
    package func read() throws(FileError) -> [UInt8] { try AtomicFile.read(path) ?? [] }

    /// Inode and size: what changes when somebody wrote. Nil when there is no such file.
    package var stamp: Stamp? { Stamp(path: path) }

    /// Appends one row, its newline included, makes it durable, and returns all bytes of the file.
    package func append(_ line: [UInt8]) throws(FileError) -> [UInt8] {
        precondition(line.last == 0x0a, "BUG: a row without its newline")
        let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw FileError(.open, path, "for append", errorNumber: errno, remedy: "is the directory writable?") }
        defer { close(descriptor) }
        while flock(descriptor, LOCK_EX) != 0 {
            guard errno == EINTR else { throw FileError(.lock, path, errorNumber: errno, remedy: "does the file system know locks?") }
        }
        let existing = try read()
        let whole = keepsTornEnd ? existing.count : existing.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
        let line = existing[..<whole].last ?? 0x0a == 0x0a ? line : [0x0a] + line
        if whole < existing.count, ftruncate(descriptor, whole) != 0 {
            throw FileError(.cut, path, "at byte \(whole)", errorNumber: errno, remedy: "is the file writable?")
        }
        var written = 0
        while written < line.count {
            let count = line.withUnsafeBytes { write(descriptor, $0.baseAddress! + written, line.count - written) }
            if count > 0 {
                written += count
            } else if errno != EINTR {
                let code = errno
                _ = ftruncate(descriptor, whole)  // Best effort; else the next writer cuts it.
                throw FileError(.append, path, errorNumber: code, remedy: "is the disk full or failing?")
            }
        }
        guard fdatasync(descriptor) == 0 else { throw FileError(.sync, path, errorNumber: errno, remedy: "is the disk healthy?") }
        if existing.isEmpty { try AtomicFile.syncDirectory(AtomicFile.parent(of: path)) }
        return existing[..<whole] + line
    }
}

/// What tells one state of a file from another without reading it.
package struct Stamp: Equatable, Sendable {
    package var inode: UInt64
    package var size: Int64
    package var modifiedNanoseconds: Int64

    /// Nil when there is no file, or it cannot be looked at.
    package init?(path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        inode = UInt64(status.st_ino)
        size = Int64(status.st_size)
        modifiedNanoseconds = Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    }
}
