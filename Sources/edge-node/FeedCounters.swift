import CalibModel
import EdgeCore
import NodeShell

/// What the writer of the feeds has done so far, as of its last batch: for `/metrics` and logs.
package struct FeedCounters: Sendable {
    /// Rows and bytes handed to files, and failed operations, per feed; syncs.
    package var written = FeedStatistics()
    /// Records that a full ring refused, in `Feed.place` order. Of `feature_snapshots` none is lost by it: the accumulator runs on.
    package var refused: [Int] = .init(repeating: 0, count: Feed.allCases.count)
    /// In memory only, or in files that no sync has covered.
    package var unsyncedBytes = 0
    package var syncDurations = SyncDurations()
    /// Files whose `sealed` event was written, and files that retention removed.
    package var sealedFiles: Int64 = 0
    package var removedFiles: Int64 = 0
    /// Since when some feed cannot be written; nil while all can.
    package var trouble: Trouble?

    package struct Trouble: Sendable {
        package var since: Instant
        /// The newest failure.
        package var cause: FileError
    }
}

/// How long fdatasync took.
package struct SyncDurations: Sendable {
    /// Upper edges, ns. The promise of 20 ms (SPEC 2.7) lies on one, so that keeping it is a ratio of counters.
    package static let edges: [Int64] = [
        1_000_000, 2_500_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000,
        2_500_000_000, 5_000_000_000, 10_000_000_000,
    ]
    /// Of each edge, what is not above it and above the one before; behind them what is above all.
    package private(set) var counts = [Int64](repeating: 0, count: edges.count + 1)
    package private(set) var sumNanoseconds: Int64 = 0
    package init() {}

    package mutating func add(_ nanoseconds: Int64) {
        counts[Self.edges.firstIndex { nanoseconds <= $0 } ?? Self.edges.count] += 1
        sumNanoseconds += nanoseconds
    }
}
