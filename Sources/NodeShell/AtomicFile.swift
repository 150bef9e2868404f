import Glibc

/// Whole files that appear at once or not at all.
package enum AtomicFile {
    /// Replaces `path` by `bytes`: a temporary file in the same directory, synced, renamed over it, and the directory synced. After a
    /// crash the path holds the old bytes or the new ones. Mode 0644 under the umask, 0600 when private.
    ///
    /// - Parameter isLasting: false for what can be made again: nothing is synced, and after a crash the path may hold anything.
    package static func write(_ bytes: [UInt8], to path: String, isPrivate: Bool = false, isLasting: Bool = true) throws(FileError) {
        var file = try AtomicFileWriter(path, isPrivate: isPrivate, isLasting: isLasting)
        try file.append(bytes)
        try file.commit()
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

/// A file that is written piece by piece and appears at once, when all of it is there; until then, and without `commit`, there is nothing.
package struct AtomicFileWriter: ~Copyable {
    private let path: String
    private let temporary: String
    private let isLasting: Bool
    /// -1 once it is closed.
    private var file: Int32

    package init(_ path: String, isPrivate: Bool = false, isLasting: Bool = true) throws(FileError) {
        self.path = path
        self.isLasting = isLasting
        temporary = "\(AtomicFile.parent(of: path))/.\(path.split(separator: "/").last ?? "file").\(getpid()).tmp"
        unlink(temporary)  // Left by a crashed process of the same id.
        file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, isPrivate ? 0o600 : 0o644)
        guard file >= 0 else {
            throw FileError(.create, temporary, errorNumber: errno, remedy: "is the directory writable, and is there space?")
        }
    }

    deinit {
        guard file >= 0 else { return }
        close(file)
        unlink(temporary)
    }

    package mutating func append(_ bytes: [UInt8]) throws(FileError) {
        var start = 0
        while start < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + start, bytes.count - start) }
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(.write, temporary, errorNumber: errno, remedy: "is there space on the disk?")
            }
            start += count
        }
    }

    /// Nothing is appended afterwards.
    package mutating func commit() throws(FileError) {
        guard !isLasting || fsync(file) == 0 else {
            throw FileError(.sync, temporary, errorNumber: errno, remedy: "is the disk full or failing?")
        }
        let isClosed = close(file) == 0
        file = -1
        guard isClosed, rename(temporary, path) == 0 else {
            let error = FileError(
                isClosed ? .rename : .write, isClosed ? path : temporary, errorNumber: errno,
                remedy: "is the directory writable, and is there space?")
            unlink(temporary)
            throw error
        }
        if isLasting { try AtomicFile.syncDirectory(AtomicFile.parent(of: path)) }
    }
}
