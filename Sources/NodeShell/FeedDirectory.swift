package import CalibModel
import Glibc

/// Feed files of a directory: `<feed>_<day>.jsonl` and parts, flat and in `host=<host>/`.
package struct FeedFile: Sendable {
    /// Relative to the feeds directory.
    package var path: String
    package var feed: Feed
    package var day: CalendarDay
    /// That of the `host=` folder.
    package var host: String?
    package var byteCount: Int64
    /// Its number in its file system, and when it was written to last, in nanoseconds since 1970.
    package var inode: UInt64
    package var modified: Int64
}

package enum FeedDirectory {
    /// The files that may hold rows of `from ..< to` (milliseconds), by path. A clock step keeps a row in a file of another day
    /// (SPEC 1.1), so per folder and feed the day before, the day after and then one more later file are read, too.
    ///
    /// `parse`: feed and day of a file's name, nil for a file that is not wanted. `to` includes whatever time the reader needs behind it.
    package static func find(
        in directory: String, from: Int64, to: Int64, parse: (_ fileName: String) -> (feed: Feed, day: CalendarDay)?
    ) throws(FileError) -> [FeedFile] {
        var found = try files(in: directory, prefix: "", host: nil, parse)
        for name in try names(in: directory) where name.hasPrefix("host=") && name.utf8.count > 5 {
            found += try files(in: "\(directory)/\(name)", prefix: name + "/", host: String(name.dropFirst(5)), parse)
        }
        let first = from.flooredDivision(by: 86_400_000) - 1
        let last = (to - 1).flooredDivision(by: 86_400_000)
        var next: [String: Int64] = [:]
        func group(_ file: FeedFile) -> String { "\(file.host ?? "")/\(file.feed.rawValue)" }
        for file in found where file.day.number > last { next[group(file)] = min(next[group(file)] ?? .max, file.day.number) }
        return found.filter { file in
            (file.day.number >= first && file.day.number <= last) || file.day.number == next[group(file)]
        }.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
    }

    /// Hands the file's bytes to `consume` in chunks, whatever its size. `consume` takes whole lines off the front and returns how many bytes
    /// it took; `isEnd` says that nothing follows.
    package static func read(
        _ file: FeedFile, in directory: String, consume: (_ bytes: UnsafeRawBufferPointer, _ isEnd: Bool) -> Int,
        progress: (Int64) -> Void = { _ in }
    ) throws(FileError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        try read(file.path, in: directory, from: 0, through: buffer, consume: consume, progress: progress) { false }
    }

    /// The same from an offset on, through a buffer of the caller's (twice the longest line at least), until `isDone` or the file's end.
    ///
    /// - Parameter end: where about that will be; no more than a few rows behind it are read at once.
    package static func read(
        _ path: String, in directory: String, from start: Int64, to end: Int64 = .max, through buffer: UnsafeMutableRawBufferPointer,
        consume: (_ bytes: UnsafeRawBufferPointer, _ isEnd: Bool) -> Int, progress: (Int64) -> Void = { _ in }, isDone: () -> Bool
    ) throws(FileError) {
        let path = "\(directory)/\(path)"
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is it readable?") }
        defer { close(descriptor) }
        var filled = 0
        var offset = start
        while !isDone() {
            let wanted = Int(max(0, min(end - offset, Int64(buffer.count)))) + rowsBehindEnd
            let count = pread(descriptor, buffer.baseAddress! + filled, min(buffer.count - filled, wanted), off_t(offset))
            if count < 0 {
                if errno == EINTR { continue }
                throw FileError(.read, path, errorNumber: errno, remedy: "is the disk failing?")
            }
            filled += count
            offset += Int64(count)
            progress(Int64(count))
            let taken = consume(UnsafeRawBufferPointer(rebasing: buffer[0..<filled]), count == 0)
            if count == 0 || isDone() { return }
            memmove(buffer.baseAddress!, buffer.baseAddress! + taken, filled - taken)
            filled -= taken
        }
    }

    /// In bytes: a row that begins before the end goes on behind it.
    private static let rowsBehindEnd = 4096

    private static func files(
        in directory: String, prefix: String, host: String?, _ parse: (String) -> (feed: Feed, day: CalendarDay)?
    ) throws(FileError) -> [FeedFile] {
        try names(in: directory).compactMap { name in
            guard let (feed, day) = parse(name) else { return nil }
            var status = stat()
            guard stat("\(directory)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
            return FeedFile(
                path: prefix + name, feed: feed, day: day, host: host, byteCount: Int64(status.st_size), inode: UInt64(status.st_ino),
                modified: Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec))
        }
    }

    package static func names(in directory: String) throws(FileError) -> [String] {
        guard let handle = opendir(directory) else {
            throw FileError(.list, directory, errorNumber: errno, remedy: "does it exist and is it readable?")
        }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            names.append(
                withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
            )
        }
        return names
    }
}
