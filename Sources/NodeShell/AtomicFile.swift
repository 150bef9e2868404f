import Glibc

/// Whole files that appear at once or not at all.
package enum AtomicFile {
    /// Replaces `path` by `bytes`: a temporary file in the same directory, synced, renamed over it, and the directory synced. After a
    /// crash the path holds the old bytes or the new ones. Mode 0644 under the umask, 0600 when private.
    ///
    /// - Parameter isLasting: false for what can be made again: nothing is synced, and after a crash the path may hold anything.
    package static func write(_ bytes: [UInt8], to path: String, isPrivate: Bool = false, isLasting: Bool = true) throws(FileError) {
        let directory = parent(of: path)
        let temporary = "\(directory)/.\(path.split(separator: "/").last ?? "file").\(getpid()).tmp"
        unlink(temporary)  // Left by a crashed process of the same id.
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, isPrivate ? 0o600 : 0o644)
        guard file >= 0 else {
            throw FileError(.create, temporary, errorNumber: errno, remedy: "is the directory writable, and is there space?")
        }
        do throws(FileError) {
            do throws(FileError) {
                try writeAll(bytes, to: file, path: temporary)
                guard !isLasting || fsync(file) == 0 else {
                    throw FileError(.sync, temporary, errorNumber: errno, remedy: "is the disk full or failing?")
                }
            } catch {
                close(file)
                throw error
            }
            guard close(file) == 0 else { throw FileError(.write, temporary, errorNumber: errno, remedy: "is the disk full or failing?") }
            guard rename(temporary, path) == 0 else {
                throw FileError(.rename, path, errorNumber: errno, remedy: "is the directory writable?")
            }
        } catch {
            unlink(temporary)
            throw error
        }
        if isLasting { try syncDirectory(directory) }
    }

    package enum Placement: String, Sendable { case written, unchanged, replaced, refused }

    /// Writes a document that others may hold already: equal bytes are left alone, other bytes are replaced only when that is asked for.
    package static func place(_ bytes: [UInt8], at path: String, replaces: Bool) throws(FileError) -> Placement {
        let old = try read(path)
        if old == bytes { return .unchanged }
        if old != nil, !replaces { return .refused }
        try write(bytes, to: path)
        return old == nil ? .written : .replaced
    }

    /// The whole file; nil when there is none.
    package static func read(_ path: String) throws(FileError) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        if file < 0 {
            if errno == ENOENT { return nil }
            throw FileError(.open, path, errorNumber: errno, remedy: "is it readable?")
        }
        defer { close(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        while true {
            let count = Glibc.read(file, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(.read, path, errorNumber: errno, remedy: "is the disk failing?")
            }
            if count == 0 { return bytes }
            bytes.append(contentsOf: chunk[0..<count])
        }
    }

    /// Makes a directory and those above it; each new name is synced in the directory that holds it.
    package static func makeDirectory(_ path: String) throws(FileError) {
        if path.isEmpty || path == "/" || path == "." { return }
        let parent = parent(of: path)
        var isMade = mkdir(path, 0o755) == 0
        if !isMade, errno == ENOENT {
            try makeDirectory(parent)
            isMade = mkdir(path, 0o755) == 0
        }
        if isMade { return try syncDirectory(parent) }
        if errno != EEXIST { throw FileError(.create, path, errorNumber: errno, remedy: "is the directory above it writable?") }
    }

    static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func writeAll(_ bytes: [UInt8], to file: Int32, path: String) throws(FileError) {
        var start = 0
        while start < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + start, bytes.count - start) }
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(.write, path, errorNumber: errno, remedy: "is there space on the disk?")
            }
            start += count
        }
    }

    /// Removes a file for good; nothing happens when there is none.
    package static func remove(_ path: String) throws(FileError) {
        if unlink(path) == 0 { return try syncDirectory(parent(of: path)) }
        guard errno == ENOENT else { throw FileError(.remove, path, errorNumber: errno, remedy: "is the directory writable?") }
    }

    package static func syncDirectory(_ path: String) throws(FileError) {
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is it a readable directory?") }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw FileError(.sync, path, errorNumber: errno, remedy: "is the disk failing?") }
    }
}
