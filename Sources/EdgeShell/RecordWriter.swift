import CalibModel
import NodeShell
import Synchronization

/// Writes what a recorder hears into compressed files, on a thread of its own, so that compression does not delay the next receive time.
///
/// A file takes its name when it is whole; until then it is `<name>.partial`.
final class RecordWriter: Sendable {
    private enum Job {
        case lines([UInt8], file: Int)
        /// Completes the file of that number, if one is open, and begins another.
        case begin(path: String, file: Int)
        case finish
    }

    private struct State {
        var jobs: [Job] = []
        var queuedBytes = 0
        var finished: [String] = []
        var failure: FileError?
    }

    private let state = Mutex(State())
    private let doorbell: Doorbell
    private let onFailure: @Sendable () -> Void

    /// `onFailure` is called once, on the writer's thread; nothing is written any more.
    init(onFailure: @escaping @Sendable () -> Void) throws(FileError) {
        doorbell = try Doorbell()
        self.onFailure = onFailure
    }

    /// False when the disk is so slow that the queue is full: nothing was taken.
    func append(_ lines: [UInt8], file: Int) -> Bool {
        let isTaken = state.withLock { state in
            guard state.queuedBytes + lines.count <= Limits.recordQueueBytesMax else { return false }
            state.queuedBytes += lines.count
            state.jobs.append(.lines(lines, file: file))
            return true
        }
        doorbell.ring()
        return isTaken
    }

    func begin(path: String, file: Int) { enqueue(.begin(path: path, file: file)) }
    /// Completes everything; `run` returns.
    func finish() { enqueue(.finish) }

    /// Files that have their name.
    var finished: [String] { state.withLock { $0.finished } }
    var failure: FileError? { state.withLock { $0.failure } }

    private func enqueue(_ job: Job) {
        state.withLock { $0.jobs.append(job) }
        doorbell.ring()
    }

    /// The body of the thread.
    func run() {
        let files = Files()
        do throws(FileError) {
            while true {
                let jobs = state.withLock { state in
                    defer { (state.jobs, state.queuedBytes) = ([], 0) }
                    return state.jobs
                }
                for job in jobs {
                    switch job {
                    case .lines(let lines, let file): try files.append(lines, file)
                    case .begin(let path, let file):
                        if let done = try files.finish(file) { state.withLock { $0.finished.append(done) } }
                        try files.open(path, file)
                    case .finish:
                        for file in files.numbers {
                            if let done = try files.finish(file) { state.withLock { $0.finished.append(done) } }
                        }
                        return
                    }
                }
                if jobs.isEmpty { doorbell.wait(milliseconds: 1_000) }
            }
        } catch {
            state.withLock { $0.failure = error }
            onFailure()
        }
    }

    /// The open files; touched by the writer's thread only.
    private final class Files {
        private final class File {
            var output: LineOutput
            var hasLines = false
            init(_ output: consuming LineOutput) { self.output = output }
        }

        private var open: [Int: File] = [:]

        var numbers: [Int] { open.keys.sorted() }

        func open(_ path: String, _ number: Int) throws(FileError) { open[number] = File(try LineOutput(path: path)) }

        func append(_ lines: [UInt8], _ number: Int) throws(FileError) {
            guard let file = open[number] else { preconditionFailure("BUG: no file \(number)") }
            file.hasLines = true
            try file.output.append(lines)
        }

        /// Its path; nil when nothing was written to it, and then there is no file.
        func finish(_ number: Int) throws(FileError) -> String? {
            guard let file = open.removeValue(forKey: number), file.hasLines else { return nil }
            try file.output.finish()
            return file.output.path
        }
    }
}
