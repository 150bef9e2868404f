import CalibModel
package import HubCore
package import NodeShell
import Synchronization

/// Builds datasets from the feed files of a directory, on several threads.
package struct DatasetReading {
    package var directory: String
    package var threads: Int
    /// Takes what earlier builds left beside the feeds, and leaves what it makes. The dataset is the same either way.
    package var usesCache: Bool
    /// Called now and then by any thread, with all bytes read so far.
    package var progress: (@Sendable (_ done: Int64, _ total: Int64) -> Void)?

    package init(
        directory: String, threads: Int, usesCache: Bool = true, progress: (@Sendable (_ done: Int64, _ total: Int64) -> Void)? = nil
    ) {
        self.directory = directory
        self.threads = threads
        self.usesCache = usesCache
        self.progress = progress
    }

    package enum Failure: Error {
        /// No file of these days.
        case noFiles
        case file(FileError)
        case refused(DatasetRefusal)
    }

    /// Long enough for the longest line twice, short enough to stay in a core's cache.
    private static let bufferBytes = 1 << 18

    package func build(_ arguments: DatasetArguments) throws(Failure) -> DatasetDocuments {
        let files: [FeedFile]
        do throws(FileError) {
            files = try FeedDirectory.find(
                in: directory, from: arguments.from, to: arguments.to + DatasetArguments.markoutGrace, parse: Feed.parse)
        } catch { throw .file(error) }
        guard !files.isEmpty else { throw .noFiles }
        let cache = usesCache && arguments.hasWholeHours ? DatasetCache(directory: directory, arguments) : nil
        var known: [String: StoredPieces] = [:]
        if let cache { for file in files { known[file.path] = cache.pieces(of: file) } }
        let pieces = files.flatMap { file -> [FeedPiece] in
            let end = known[file.path]?.end
            if let end, end >= file.byteCount { return [] }
            return FeedPiece.cut(
                path: file.path, feed: file.feed, host: file.host, from: end ?? 0, byteCount: file.byteCount,
                fileIdentity: cache?.identity(of: file) ?? 0)
        }
        var build = DatasetBuild(arguments, parts: try read(pieces, of: files, arguments, isExact: false), known: Array(known.values))
        if build.needsExactParts {
            let all = files.flatMap { FeedPiece.cut(path: $0.path, feed: $0.feed, host: $0.host, byteCount: $0.byteCount) }
            build = DatasetBuild(arguments, parts: try read(all, of: files, arguments, isExact: true))
        } else if let cache {
            build.use(cache.hours(build.keys()))
            for part in try read(build.missing(known: Array(known.values)), of: files, arguments, isExact: false) { build.add(part) }
        }
        let documents: DatasetDocuments
        do throws(DatasetRefusal) { documents = try build.finish(ThreadTeam(threads: threads).run) } catch { throw .refused(error) }
        if let cache, !documents.hours.isEmpty || !pieces.isEmpty, !build.isExact {
            let read = Set(pieces.map(\.path))
            cache.save(files.filter { read.contains($0.path) }.map { ($0, build.pieces(of: $0.path, host: $0.host)) }, documents.hours)
        }
        return documents
    }

    private func read(_ pieces: [FeedPiece], of files: [FeedFile], _ arguments: DatasetArguments, isExact: Bool) throws(Failure)
        -> [DatasetPart]
    {
        let sizes = Dictionary(files.map { ($0.path, $0.byteCount) }) { first, _ in first }
        @Sendable func bytes(_ piece: FeedPiece) -> Int64 { max(0, min(piece.to, sizes[piece.path] ?? 0) - piece.from) }
        let total = pieces.reduce(0) { $0 + bytes($1) }
        // Who has read a row before is only known to one part.
        let team = ThreadTeam(threads: isExact ? 1 : max(1, min(threads, pieces.count)))
        let parts = (0..<team.threads).map { _ in DatasetPart(arguments, isExact: isExact) }
        let next = Atomic(0)
        let done = Atomic<Int64>(0)
        let failure = Mutex<FileError?>(nil)
        team.eachThread { number in
            let part = parts[number]
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferBytes, alignment: 64)
            defer { buffer.deallocate() }
            while true {
                let place = next.add(1, ordering: .relaxed).oldValue
                guard place < pieces.count, failure.withLock({ $0 == nil }) else { return }
                let piece = pieces[place]
                part.begin(piece)
                do throws(FileError) {
                    try FeedDirectory.read(
                        piece.path, in: directory, from: piece.readFrom, to: piece.to, through: buffer,
                        consume: { part.consume($0, isEnd: $1) }, isDone: { part.isDone })
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                    return
                }
                let sum = done.add(bytes(piece), ordering: .relaxed).newValue
                progress?(min(sum, total), total)
            }
        }
        if let error = failure.withLock({ $0 }) { throw .file(error) }
        return parts
    }
}
