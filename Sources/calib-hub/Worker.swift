import Glibc
import NodeShell
import Synchronization

/// Jobs from the event loop to a thread of their own, in order. The thread takes all that wait at once.
final class Worker<Job: Sendable>: Sendable {
    private struct State {
        var jobs: [Job] = []
        var isFinished = false
        /// The thread waits, or is about to: whoever posts next wakes it.
        var isIdle = false
    }

    private let state = Mutex(State())
    private let bell: Doorbell

    init() throws(FileError) { bell = try Doorbell() }

    func post(_ job: Job) {
        let isIdle = state.withLock { state in
            state.jobs.append(job)
            defer { state.isIdle = false }
            return state.isIdle
        }
        if isIdle { bell.ring() }
    }

    var isFinished: Bool { state.withLock { $0.isFinished } }

    /// What was posted is still done; then `take` says that it is over.
    func finish() {
        state.withLock { $0.isFinished = true }
        bell.ring()
    }

    /// Waits for jobs, after `nanoseconds` in which they gather; nil once it is finished and nothing is left.
    func take(after nanoseconds: Int64 = 0) -> [Job]? {
        if nanoseconds > 0 {
            var rest = timespec(tv_sec: 0, tv_nsec: Int(min(nanoseconds, 999_999_999)))
            nanosleep(&rest, nil)
        }
        while true {
            let (jobs, isFinished) = state.withLock { state in
                defer {
                    state.isIdle = state.jobs.isEmpty
                    state.jobs = []
                }
                return (state.jobs, state.isFinished)
            }
            if !jobs.isEmpty { return jobs }
            if isFinished { return nil }
            bell.wait(milliseconds: 60_000)
        }
    }
}
