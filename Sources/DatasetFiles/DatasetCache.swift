import CalibModel
import Glibc
internal import HubCore
internal import NodeShell

// What builds leave for later ones, beside the feeds in `.partials/<arguments but the range>/`: a file of piece summaries for each feed file, and a file
// for each hour's finished intervals. All of it can be made again; nothing is synced, and whatever is damaged, or of a file that has changed, is passed over.
//
// A feed file is trusted to be what it was when its inode, size and time of writing are, and that time was well before it was read. One that has
// grown has been appended to, as feeds are (SPEC 2.7): its old pieces stand if their first and last bytes do. Any other change, and the file is read anew.
struct DatasetCache {
    private let directory: String
    private let path: String
    private let fingerprint: UInt64
    /// Nanoseconds since 1970, before anything was looked at.
    private let now: Int64

    /// The clock by which files are stamped may stand still this long: a change right after reading could leave the same time.
    private static let settlingNanoseconds: Int64 = 100_000_000
    private static let sampleBytes = 4096
    /// Hours and sets of arguments kept; the oldest go first. A year of hours, each with some 200 KiB for a dozen symbols.
    private static let hoursMax = 8_784
    private static let argumentsMax = 8

    init(directory: String, _ arguments: DatasetArguments) {
        self.directory = directory
        fingerprint = arguments.fingerprint
        let name = String(arguments.fingerprint, radix: 16)
        path = "\(directory)/.partials/\(String(repeating: "0", count: 16 - name.utf8.count))\(name)"
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        now = Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    private func isSettled(_ file: FeedFile) -> Bool { file.modified < now - Self.settlingNanoseconds }

    /// Stands for the file's content: no other content is read under it.
    func identity(of file: FeedFile) -> UInt64 {
        var bytes = BinaryWriter()
        for number in [Int64(bitPattern: file.inode), file.modified, file.byteCount, isSettled(file) ? 0 : now] { bytes.integer(number) }
        return bytes.digest
    }

    // MARK: Loading

    private func name(of file: FeedFile) -> String { file.path.split(separator: "/").joined(separator: "+") + ".pieces" }

    func pieces(of file: FeedFile) -> StoredPieces? {
        guard let bytes = (try? AtomicFile.read("\(path)/\(name(of: file))")) ?? nil else { return nil }
        do throws(BinaryReader.Damaged) {
            var reader = try BinaryReader(sealed: bytes)
            guard try reader.integer() == Int64(bitPattern: fingerprint), try reader.text() == file.path else { return nil }
            let inode = UInt64(bitPattern: try reader.integer())
            let modified = try reader.integer()
            let byteCount = try reader.integer()
            let wasSettled = try reader.integer() == 1
            var samples: [UInt64] = []
            for _ in 0..<(try reader.count(of: 8)) { samples.append(UInt64(bitPattern: try reader.integer())) }
            var pieces = try StoredPieces(from: &reader, host: file.host)
            guard reader.isAtEnd, inode == file.inode, pieces.extents.count == samples.count, pieces.end <= file.byteCount else {
                return nil
            }
            // Builds in quick succession leave small pieces: after many of them the file is read anew, in large ones.
            guard pieces.extents.count < 64 + pieces.end >> 20 else { return nil }
            if wasSettled, modified == file.modified, byteCount == file.byteCount { return pieces }
            guard file.byteCount > byteCount, let found = self.samples(of: file, pieces) else { return nil }
            if let changed = zip(found, samples).enumerated().first(where: { $0.element.0 != $0.element.1 }) {
                pieces.drop(from: changed.offset)
            }
            return pieces
        } catch { return nil }
    }

    /// Of each piece, its first and its last bytes.
    private func samples(of file: FeedFile, _ pieces: StoredPieces) -> [UInt64]? {
        let descriptor = open("\(directory)/\(file.path)", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: Self.sampleBytes)
        var found: [UInt64] = []
        for (from, end) in pieces.extents {
            var sample = BinaryWriter()
            for start in [from, max(from, end - Int64(Self.sampleBytes))] {
                let wanted = Int(min(Int64(Self.sampleBytes), end - start))
                guard pread(descriptor, &buffer, wanted, off_t(start)) == wanted else { return nil }
                sample.data(Array(buffer[..<wanted]))
            }
            found.append(sample.digest)
        }
        return found
    }

    /// Those that are kept under their key.
    func hours(_ keys: [Int64: UInt64]) -> [StoredHour] {
        keys.compactMap { number, key in
            guard let bytes = (try? AtomicFile.read("\(path)/\(number).hour")) ?? nil, let hour = try? StoredHour(sealed: bytes),
                hour.number == number, hour.key == key
            else { return nil }
            return hour
        }
    }

    // MARK: Saving

    /// Without a place to write to, nothing is kept.
    func save(_ files: [(FeedFile, StoredPieces)], _ hours: [StoredHour]) {
        do throws(FileError) {
            try AtomicFile.makeDirectory(path)
            for (file, pieces) in files {
                guard let samples = samples(of: file, pieces) else { continue }
                var bytes = BinaryWriter()
                bytes.integer(Int64(bitPattern: fingerprint))
                bytes.text(file.path)
                for number in [Int64(bitPattern: file.inode), file.modified, file.byteCount, isSettled(file) ? 1 : 0] {
                    bytes.integer(number)
                }
                bytes.integer(Int64(samples.count))
                for sample in samples { bytes.integer(Int64(bitPattern: sample)) }
                pieces.write(to: &bytes)
                try AtomicFile.write(bytes.sealed(), to: "\(path)/\(name(of: file))", isLasting: false)
            }
            for hour in hours { try AtomicFile.write(hour.sealed(), to: "\(path)/\(hour.number).hour", isLasting: false) }
            try prune()
        } catch {}
    }

    private func prune() throws(FileError) {
        let numbers = try FeedDirectory.names(in: path).compactMap { $0.hasSuffix(".hour") ? Int64($0.dropLast(5)) : nil }.sorted()
        for number in numbers.dropLast(Self.hoursMax) { unlink("\(path)/\(number).hour") }
        let parent = "\(directory)/.partials"
        var others: [(modified: Int, path: String)] = []
        for name in try FeedDirectory.names(in: parent) where !name.hasPrefix(".") && "\(parent)/\(name)" != path {
            var status = stat()
            if stat("\(parent)/\(name)", &status) == 0 { others.append((status.st_mtim.tv_sec, "\(parent)/\(name)")) }
        }
        for other in others.sorted(by: { $0.modified > $1.modified }).dropFirst(Self.argumentsMax - 1) {
            for name in try FeedDirectory.names(in: other.path) where name != "." && name != ".." { unlink("\(other.path)/\(name)") }
            rmdir(other.path)
        }
    }
}
