import NodeShell
import Synchronization

/// Jobs from the event loop to a thread of their own, in order. The thread takes all that wait at once.
final class Worker<Job: Sendable>: Sendable {
    private struct State {
        var jobs: [Job] = []
        var isFinished = false
    }

    private let state = Mutex(State())
    private let bell: Doorbell

    init() throws(FileError) { bell = try Doorbell() }

    func post(_ job: Job) {
        state.withLock { $0.jobs.append(job) }
        bell.ring()
    }

    /// What was posted is still done; then `take` says that it is over.
    func finish() {
        state.withLock { $0.isFinished = true }
        bell.ring()
    }

    /// Waits for jobs; nil once it is finished and nothing is left.
    func take() -> [Job]? {
        while true {
            let (jobs, isFinished) = state.withLock { state in
                defer { state.jobs = [] }
                return (state.jobs, state.isFinished)
            }
            if !jobs.isEmpty { return jobs }
            if isFinished { return nil }
            bell.wait(milliseconds: 60_000)
        }
    }
}
