package import CalibModel
import Synchronization
package import Wire

/// How much of every feed file is durable: told by the thread that writes, read by the one that ships (SPEC 8.2).
package final class SyncedFiles: Sendable {
    private struct State {
        var lengths: [String: Int64] = [:]
        var changed: Set<String> = []
        var acknowledged: [String: Int64] = [:]
        var heldSeqs: [(feed: Feed, seq: Int64)] = []
        var forks: [(feed: Feed, day: CalendarDay, base: Int64)] = []
        var news: [News] = []
        var wake: (@Sendable () -> Void)?
        /// A wake-up is under way that nobody has answered yet.
        var isSignalled = false
    }

    /// What else happened to a file.
    package enum News: Sendable {
        case sealed(Message.Sealed)
        case removed(name: String)
    }

    private let state = Mutex(State())

    package init() {}

    /// The file is complete, and its event is durable.
    package func seal(_ file: SealedFile) {
        tell(.sealed(.init(file: file.name, bytes: file.bytes, rows: file.rows, sha256: file.sha256)))
    }

    private func tell(_ news: News) {
        let wake: (@Sendable () -> Void)? = state.withLock { state in
            state.news.append(news)
            guard !state.isSignalled, let wake = state.wake else { return nil }
            state.isSignalled = true
            return wake
        }
        wake?()
    }

    /// The file's first `length` bytes are durable. Wakes the reader, once until it has looked.
    package func set(_ name: String, _ length: Int64) {
        let wake: (@Sendable () -> Void)? = state.withLock { state in
            guard state.lengths[name] != length else { return nil }
            state.lengths[name] = length
            state.changed.insert(name)
            guard !state.isSignalled, let wake = state.wake else { return nil }
            state.isSignalled = true
            return wake
        }
        wake?()
    }

    /// `wake` is called on the writer's thread and must only pass the word on. Called at once when there is something to look at already.
    package func onChange(_ wake: @escaping @Sendable () -> Void) {
        let isDue = state.withLock { state in
            state.wake = wake
            state.isSignalled = !state.changed.isEmpty || !state.news.isEmpty
            return state.isSignalled
        }
        if isDue { wake() }
    }

    /// The file is gone.
    package func forget(_ name: String) {
        state.withLock { state in
            state.lengths[name] = nil
            state.changed.remove(name)
            state.acknowledged[name] = nil
        }
        tell(.removed(name: name))
    }

    /// From whoever ships: how much of each file the hub vouches for.
    package func acknowledge(_ lengths: [String: Int64]) { state.withLock { $0.acknowledged = lengths } }

    /// From whoever ships: the hub stores the file's bytes from `base` on apart from those it had.
    package func forked(_ feed: Feed, _ day: CalendarDay, base: Int64) { state.withLock { $0.forks.append((feed, day, base)) } }

    /// What `forked` told since the last call.
    package func takeForks() -> [(feed: Feed, day: CalendarDay, base: Int64)] {
        state.withLock { state in
            guard !state.forks.isEmpty else { return [] }
            defer { state.forks = [] }
            return state.forks
        }
    }

    /// Seals and removals since the last call, in their order; they come behind the lengths of `takeChanges`.
    package func takeNews() -> [News] {
        state.withLock { state in
            guard !state.news.isEmpty else { return [] }
            defer { state.news = [] }
            return state.news
        }
    }

    /// Whether the hub is known to hold the file's first `length` bytes.
    package func isAcknowledged(_ name: String, length: Int64) -> Bool { state.withLock { $0.acknowledged[name] ?? -1 >= length } }

    /// From whoever ships: the hub holds rows of this feed up to this number.
    package func hubHolds(_ feed: Feed, upTo seq: Int64) { state.withLock { $0.heldSeqs.append((feed, seq)) } }

    /// What `hubHolds` told since the last call.
    package func takeHeldSeqs() -> [(feed: Feed, seq: Int64)] {
        state.withLock { state in
            guard !state.heldSeqs.isEmpty else { return [] }
            defer { state.heldSeqs = [] }
            return state.heldSeqs
        }
    }

    /// What changed since the last call, by name.
    package func takeChanges() -> [(name: String, length: Int64)] {
        state.withLock { state in
            defer {
                state.changed = []
                state.isSignalled = false
            }
            return state.changed.sorted().map { ($0, state.lengths[$0]!) }
        }
    }
}
