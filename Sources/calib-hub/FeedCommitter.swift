import CalibModel
import HubCore
import NodeShell

/// The committer's thread: hands what waits to `Committer`, which decides, and its results back (SPEC 8.6).
///
/// While a round's syncs run the next round gathers; when they were quick, for `Limits.commitSpacingNanoseconds` at least.
final class FeedCommitter: @unchecked Sendable {
    typealias Results = [Committer<SystemDisk>.Result]

    enum Job: Sendable {
        case write(host: String, file: String, epoch: String, offset: Int64, bytes: [UInt8])
        case inspect(LinkID, host: String, file: String, fromBlock: Int64)
        case verify(LinkID, host: String, file: String)
        case survey(LinkID, host: String, epoch: String)
    }

    private let worker: Worker<Job>
    private let deliver: @Sendable (Results, _ nanoseconds: Int64?) -> Void
    private var thread: OwnerThread?
    /// The committer's thread only.
    private var committer: Committer<SystemDisk>
    private var roundBegun = SystemClock.monotonic()
    /// The hosts and files found at the start.
    let held: [(host: String, files: [Ingest.HeldFile])]

    /// `deliver` is called on the committer's thread, once per round; `nanoseconds` is what a round took that synced something.
    init(
        directory: String, openFilesMax: Int, deliver: @escaping @Sendable (Results, _ nanoseconds: Int64?) -> Void
    ) throws(FileError) {
        self.deliver = deliver
        worker = try Worker()
        committer = Committer(disk: try SystemDisk(directory), openFilesMax: openFilesMax)
        committer.checkableBytes = Limits.rowCheckBytesMax
        held = try committer.hosts()
        thread = try OwnerThread(name: "hub-committer") { [unowned self, worker] in
            var rests = Int64(0)
            while let jobs = worker.take(after: rests) { rests = self.round(jobs) }
            self.committer.disk.close()
        }
    }

    func post(_ job: Job) { worker.post(job) }

    /// Does what waits, then ends.
    func finish() {
        worker.finish()
        thread?.join()
    }

    /// Returns how many ns the next round has to wait.
    private func round(_ taken: [Job]) -> Int64 {
        let begun = SystemClock.monotonic()
        // A second's worth is enough to be full.
        let milliseconds = Int(min(begun.since(roundBegun), 1_000_000_000) / 1_000_000)
        if milliseconds > 0 {
            roundBegun = begun
            committer.checkableBytes = min(
                Limits.rowCheckBytesMax, committer.checkableBytes + milliseconds * Limits.rowCheckBytesPerSecond / 1000)
        }
        // Last first, so that each can be let go as soon as it is done: a round's bytes are not held until its sync has returned.
        var jobs = taken
        jobs.reverse()
        while let job = jobs.popLast() {
            switch job {
            case .write(let host, let file, let epoch, let offset, let bytes):
                bytes.withUnsafeBytes { committer.write($0, host: host, file: file, epoch: epoch, offset: offset) }
            case .inspect(let link, let host, let file, let block): committer.inspect(link, host: host, file: file, fromBlock: block)
            case .verify(let link, let host, let file): committer.verify(link, host: host, file: file)
            case .survey(let link, let host, let epoch): committer.survey(link, host: host, epoch: epoch)
            }
        }
        let (results, spacing) = committer.endRound()
        let took = SystemClock.monotonic().since(begun)
        deliver(results, spacing == nil ? nil : took)
        return max(0, (spacing ?? 0) - took)
    }
}
