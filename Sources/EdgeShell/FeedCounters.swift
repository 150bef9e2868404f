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
    /// How long fdatasync took, ns.
    package var syncDurations = BoundedHistogram(bounds: MetricBounds.sync)
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
