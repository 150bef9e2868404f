import Glibc
import HubCore
import NodeShell
import Wire

/// The thread that finds out whether a complete file is here as its edge has it (SPEC 8.2). At the lowest priority: a day's files of a fleet are read
/// after midnight, and no acknowledgement waits for that.
///
/// `@unchecked Sendable`: the book is the thread's alone; the rest is synchronised or immutable.
final class SealKeeper: @unchecked Sendable {
    struct Job: Sendable {
        var link: LinkID
        var host: String
        /// The hub's newest file of the edge's.
        var file: String
        var sealed: Message.Sealed
        var spans: [Ingest.FileSpan]
    }

    private let worker: Worker<Job>
    private var book: SealBook<SystemDisk>
    private var thread: OwnerThread?

    /// `deliver` is called on the thread, once per job.
    init(directory: String, deliver: @escaping @Sendable (Job, Result<Bool, FileError>) -> Void) throws(FileError) {
        worker = try Worker()
        book = SealBook(disk: try SystemDisk(directory), digest: { RunningDigest.begin() })
        thread = try OwnerThread(name: "hub-seals") { [unowned self, worker] in
            // Of this thread alone, on Linux. Without it things work as well.
            _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19)
            while let jobs = worker.take() {
                for job in jobs where !worker.isFinished {
                    deliver(
                        job,
                        Result { () throws(FileError) in
                            try self.book.holds(job.sealed, host: job.host, file: job.file, job.spans)
                        })
                }
            }
            self.book.disk.close()
        }
    }

    func post(_ job: Job) { worker.post(job) }

    /// What is under way is finished, what waits is not: the edges ask again.
    func finish() {
        worker.finish()
        thread?.join()
    }
}

extension RunningDigest {
    fileprivate static func begin() -> SealBook<SystemDisk>.Digest {
        final class Box { var digest = RunningDigest() }
        let box = Box()
        return .init(update: { box.digest.update($0) }, finish: { box.digest.finish() })
    }
}
