import CalibModel
package import HubCore
package import NodeShell
import Synchronization

/// Builds datasets from the feed files of a directory, on several threads.
package struct DatasetReading {
    package var directory: String
    package var threads: Int
    /// Called now and then by any thread, with all bytes read so far.
    package var progress: (@Sendable (_ done: Int64, _ total: Int64) -> Void)?

    package init(
        directory: String, threads: Int, progress: (@Sendable (_ done: Int64, _ total: Int64) -> Void)? = nil
    ) {
        self.directory = directory
        self.threads = threads
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
        let pieces = files.flatMap { FeedPiece.cut(path: $0.path, feed: $0.feed, host: $0.host, byteCount: $0.byteCount) }
        let total = files.reduce(0) { $0 + $1.byteCount }
        var build = DatasetBuild(arguments, parts: try read(pieces, total: total, arguments, isExact: false))
        if build.needsExactParts {
            build = DatasetBuild(arguments, parts: try read(pieces, total: total, arguments, isExact: true))
        }
        do throws(DatasetRefusal) { return try build.finish(ThreadTeam(threads: threads).run) } catch { throw .refused(error) }
    }

    private func read(_ pieces: [FeedPiece], total: Int64, _ arguments: DatasetArguments, isExact: Bool) throws(Failure) -> [DatasetPart] {
        // Who has read a row before is only known to one part.
        let team = ThreadTeam(threads: isExact ? 1 : min(threads, pieces.count))
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
                        piece.path, in: directory, from: piece.readFrom, through: buffer, consume: { part.consume($0, isEnd: $1) }
                    ) { part.isDone }
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                    return
                }
                let bytes = min(piece.to, max(piece.from, total)) - piece.from
                let sum = done.add(bytes, ordering: .relaxed).newValue
                progress?(min(sum, total), total)
            }
        }
        if let error = failure.withLock({ $0 }) { throw .file(error) }
        return parts
    }
}
