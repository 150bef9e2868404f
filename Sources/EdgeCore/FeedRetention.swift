import CalibModel

/// Which feed files go (SPEC 2.7): complete ones beyond an age, and whatever it takes to stay within a size.
///
/// 1. The two newest files of a feed never go: `seq` is recovered from them.
/// 2. With a hub no file goes before the hub holds all of it, unless the size forces it; then the feeds that matter least go first, and each
///    such file is an event.
/// 3. Without a hub age and size alone decide.
package struct FeedRetention: Sendable {
    package struct File: Sendable, Equatable {
        package var feed: Feed
        package var day: CalendarDay
        package var bytes: Int64
        package var isSealed: Bool
        /// The hub is known to hold all of it.
        package var isAcknowledged: Bool

        package init(feed: Feed, day: CalendarDay, bytes: Int64, isSealed: Bool, isAcknowledged: Bool) {
            self.feed = feed
            self.day = day
            self.bytes = bytes
            self.isSealed = isSealed
            self.isAcknowledged = isAcknowledged
        }
    }

    /// A file older than that many days goes; 0 keeps all.
    private let days: Int64
    private let bytesMax: Int64
    package let hasHub: Bool

    package init(days: Int64, bytesMax: Int64, hasHub: Bool) {
        self.days = days
        self.bytesMax = bytesMax
        self.hasHub = hasHub
    }

    /// What goes now, in order; `isForced` says that the hub has not got all of it.
    package func removals(of files: [File], today: CalendarDay) -> [(file: File, isForced: Bool)] {
        let oldestFirst = files.sorted { ($0.day, $0.feed.place) < ($1.day, $1.feed.place) }
        let kept = Dictionary(grouping: oldestFirst, by: \.feed).mapValues { $0.suffix(2).first!.day }
        let candidates = oldestFirst.filter { $0.day < kept[$0.feed]! }
        func isFree(_ file: File) -> Bool { file.isSealed && (file.isAcknowledged || !hasHub) }
        func isOld(_ file: File) -> Bool { days > 0 && file.day.number < today.number - days }

        var rest = files.reduce(0) { $0 + $1.bytes }
        var removals: [(file: File, isForced: Bool)] = []
        for file in candidates where isFree(file) && (isOld(file) || rest > bytesMax) {
            removals.append((file, false))
            rest -= file.bytes
        }
        // Ticks and quotes are sampled anyway; what money was made and what happened goes last.
        for feed in Feed.writingOrder.reversed() {
            for file in candidates where file.feed == feed && !isFree(file) && rest > bytesMax {
                removals.append((file, hasHub))
                rest -= file.bytes
            }
        }
        return removals
    }
}
