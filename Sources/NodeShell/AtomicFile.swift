import Glibc

/// A file operation that failed: what was tried on which file, and the system's reason.
package struct AtomicFileError: Error, CustomStringConvertible {
    package var operation: String
    package var path: String
    /// `errno` of the call.
    package var code: Int32

    package init(operation: String, path: String, code: Int32) {
        self.operation = operation
        self.path = path
        self.code = code
    }

    package var description: String { "cannot \(operation) '\(path)': \(String(cString: strerror(code)))" }
}

/// Whole files that appear at once or not at all.
package enum AtomicFile {
    /// Replaces `path` by `bytes`: a temporary file in the same directory, synced, renamed over it, and the directory synced. After a
    /// crash the path holds the old bytes or the new ones. Mode 0644 under the umask.
    package static func write(_ bytes: [UInt8], to path: String) throws(AtomicFileError) {
        let directory = parent(of: path)
        let temporary = "\(directory)/.\(path.split(separator: "/").last ?? "file").\(getpid()).tmp"
        unlink(temporary)  // Left by a crashed process of the same id.
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw AtomicFileError(operation: "create", path: temporary, code: errno) }
        do throws(AtomicFileError) {
            do throws(AtomicFileError) {
                try writeAll(bytes, to: file, path: temporary)
                guard fsync(file) == 0 else { throw AtomicFileError(operation: "sync", path: temporary, code: errno) }
            } catch {
                close(file)
                throw error
            }
            guard close(file) == 0 else { throw AtomicFileError(operation: "close", path: temporary, code: errno) }
            guard rename(temporary, path) == 0 else { throw AtomicFileError(operation: "rename to", path: path, code: errno) }
        } catch {
            unlink(temporary)
            throw error
        }
        try syncDirectory(directory)
    }

    /// The whole file; nil when there is none.
    package static func read(_ path: String) throws(AtomicFileError) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        if file < 0 {
            if errno == ENOENT { return nil }
            throw AtomicFileError(operation: "open", path: path, code: errno)
        }
        defer { close(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        while true {
            let count = Glibc.read(file, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw AtomicFileError(operation: "read", path: path, code: errno)
            }
            if count == 0 { return bytes }
            bytes.append(contentsOf: chunk[0..<count])
        }
    }

    /// Makes a directory and those above it.
    package static func makeDirectory(_ path: String) throws(AtomicFileError) {
        if path.isEmpty || path == "/" || path == "." { return }
        if mkdir(path, 0o755) == 0 { return }
        if errno == ENOENT {
            try makeDirectory(parent(of: path))
            if mkdir(path, 0o755) == 0 { return }
        }
        if errno != EEXIST { throw AtomicFileError(operation: "make directory", path: path, code: errno) }
    }

    private static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func writeAll(_ bytes: [UInt8], to file: Int32, path: String) throws(AtomicFileError) {
        var start = 0
        while start < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + start, bytes.count - start) }
            if count < 0 {
                if errno == EINTR { continue }
                throw AtomicFileError(operation: "write", path: path, code: errno)
            }
            start += count
        }
    }

    private static func syncDirectory(_ path: String) throws(AtomicFileError) {
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw AtomicFileError(operation: "open directory", path: path, code: errno) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw AtomicFileError(operation: "sync directory", path: path, code: errno) }
    }
}
