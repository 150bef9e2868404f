import CalibModel
import HubCore
import NodeShell

/// The committer's thread: hands what waits to `Committer`, which decides, and its results back (SPEC 8.6).
///
/// While a round's syncs run the next round gathers; nothing else sets the pace.
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
    /// The hosts and files found at the start.
    let held: [(host: String, files: [Ingest.HeldFile])]

    /// `deliver` is called on the committer's thread, once per round; `nanoseconds` is what a round took that synced something.
    init(directory: String, deliver: @escaping @Sendable (Results, _ nanoseconds: Int64?) -> Void) throws(FileError) {
        self.deliver = deliver
        worker = try Worker()
        committer = Committer(disk: try SystemDisk(directory))
        held = try committer.hosts()
        thread = try OwnerThread(name: "hub-committer") { [unowned self, worker] in
            while let jobs = worker.take() { self.round(jobs) }
            self.committer.disk.close()
        }
    }

    func post(_ job: Job) { worker.post(job) }

    /// Does what waits, then ends.
    func finish() {
        worker.finish()
        thread?.join()
    }

    private func round(_ jobs: [Job]) {
        let begun = SystemClock.monotonic()
        for job in jobs {
            switch job {
            case .write(let host, let file, let epoch, let offset, let bytes):
                bytes.withUnsafeBytes { committer.write($0, host: host, file: file, epoch: epoch, offset: offset) }
            case .inspect(let link, let host, let file, let block): committer.inspect(link, host: host, file: file, fromBlock: block)
            case .verify(let link, let host, let file): committer.verify(link, host: host, file: file)
            case .survey(let link, let host, let epoch): committer.survey(link, host: host, epoch: epoch)
            }
        }
        let (results, hasSynced) = committer.endRound()
        deliver(results, hasSynced ? SystemClock.monotonic().since(begun) : nil)
    }
}
