internal import CalibModel
import Glibc
internal import Wire

/// The feeds directory on a real disk. One thread uses it at a time.
///
/// A file that is written to stays open until `release`, or until its sync fails: the descriptor has then told its error, and a later sync of it
/// would tell nothing.
package struct SystemDisk: FeedDisk {
    package let directory: String
    private let calls: FileCalls
    private var descriptors: [String: Int32] = [:]

    /// Makes the directory when it is not there.
    package init(_ directory: String, calls: FileCalls = .system) throws(FileError) {
        self.directory = directory
        self.calls = calls
        try AtomicFile.makeDirectory(directory)
    }

    /// Closes what is open.
    package mutating func close() { for path in descriptors.keys.sorted() { release(path) } }

    package mutating func release(_ path: String) { if let descriptor = descriptors.removeValue(forKey: path) { Glibc.close(descriptor) } }

    package func names(in folder: String) throws(FileError) -> [String] {
        let path = absolute(folder)
        guard access(path, F_OK) == 0 else { return [] }
        return try FeedDirectory.names(in: path).sorted()
    }

    package func length(of path: String) throws(FileError) -> Int64? {
        var status = stat()
        if stat(absolute(path), &status) == 0 { return Int64(status.st_size) }
        guard errno == ENOENT else { throw FileError(.open, absolute(path), errorNumber: errno, remedy: "is it readable?") }
        return nil
    }

    package func read(_ path: String, at offset: Int64, count: Int) throws(FileError) -> [UInt8] {
        let descriptor: Int32
        if let open = descriptors[path] { descriptor = open } else { descriptor = Glibc.open(absolute(path), O_RDONLY | O_CLOEXEC) }
        guard descriptor >= 0 else { throw FileError(.open, absolute(path), errorNumber: errno, remedy: "is it readable?") }
        defer { if descriptors[path] == nil { Glibc.close(descriptor) } }
        var done = 0
        var code: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            while done < count {
                let got = pread(descriptor, buffer.baseAddress! + done, count - done, off_t(offset) + off_t(done))
                if got < 0, errno == EINTR { continue }
                guard got > 0 else {
                    code = got < 0 ? errno : 0
                    break
                }
                done += got
            }
            initialized = done
        }
        guard done == count else {
            throw FileError(.read, absolute(path), "at byte \(offset)", errorNumber: code, remedy: "did it shrink, or is the disk failing?")
        }
        return bytes
    }

    package mutating func write(_ bytes: UnsafeRawBufferPointer, to path: String, at offset: Int64) throws(FileError) {
        let descriptor = try open(path)
        var written = 0
        while written < bytes.count {
            let count = calls.write(descriptor, bytes.baseAddress! + written, bytes.count - written, Int(offset) + written)
            if count > 0 {
                written += count
            } else if count == 0 || errno != EINTR {
                throw FileError(.append, absolute(path), errorNumber: errno, remedy: "is the disk full or failing?")
            }
        }
    }

    package mutating func cut(_ path: String, to length: Int64) throws(FileError) {
        guard calls.truncate(try open(path), Int(length)) == 0 else {
            throw FileError(.cut, absolute(path), "at byte \(length)", errorNumber: errno, remedy: "is the disk healthy?")
        }
    }

    package mutating func sync(_ path: String) throws(FileError) {
        guard calls.sync(try open(path)) == 0 else {
            let code = errno
            release(path)
            throw FileError(.sync, absolute(path), errorNumber: code, remedy: "is the disk healthy?")
        }
    }

    package mutating func syncAll() throws(FileError) {
        let descriptor = Glibc.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(.open, directory, errorNumber: errno, remedy: "is it a readable directory?") }
        defer { Glibc.close(descriptor) }
        guard syncfs(descriptor) == 0 else {
            throw FileError(.sync, directory, errorNumber: errno, remedy: "is the disk healthy?")
        }
    }

    package func syncNames(in folder: String) throws(FileError) { try AtomicFile.syncDirectory(absolute(folder)) }

    package func makeFolder(_ folder: String) throws(FileError) { try AtomicFile.makeDirectory(absolute(folder)) }

    package mutating func rename(_ from: String, to: String) throws(FileError) {
        release(from)
        guard Glibc.rename(absolute(from), absolute(to)) == 0 else {
            throw FileError(.rename, absolute(from), errorNumber: errno, remedy: "is the directory writable?")
        }
    }

    private func absolute(_ path: String) -> String { path.isEmpty ? directory : "\(directory)/\(path)" }

    private mutating func open(_ path: String) throws(FileError) -> Int32 {
        if let descriptor = descriptors[path] { return descriptor }
        let descriptor = calls.open(absolute(path))
        guard descriptor >= 0 else {
            throw FileError(.open, absolute(path), "for append", errorNumber: errno, remedy: "is the directory writable?")
        }
        descriptors[path] = descriptor
        return descriptor
    }
}

/// glibc declares it for `_GNU_SOURCE` only, without which Swift reads its headers.
@_silgen_name("syncfs") private func syncfs(_ descriptor: Int32) -> Int32
