import CalibModel
import EdgeCore
import TestSupport
import Testing

struct FeedRetentionTests {
    private func file(_ feed: Feed, _ day: Int64, bytes: Int64 = 100, isSealed: Bool = true, isAcknowledged: Bool = false)
        -> FeedRetention.File
    {
        FeedRetention.File(
            feed: feed, day: CalendarDay(number: day), bytes: bytes, isSealed: isSealed, isAcknowledged: isAcknowledged)
    }

    private func names(_ removals: [(file: FeedRetention.File, isForced: Bool)]) -> [String] {
        removals.map { "\($0.file.feed.rawValue) \($0.file.day.number)\($0.isForced ? " forced" : "")" }
    }

    @Test func ageTakesWhatTheHubHolds_neverTheTwoNewest() {
        let retention = FeedRetention(days: 10, bytesMax: .max, hasHub: true)
        let files = [
            file(.fills, 1, isAcknowledged: true), file(.fills, 2), file(.fills, 3, isSealed: false, isAcknowledged: true),
            file(.fills, 4, isAcknowledged: true), file(.fills, 5, isAcknowledged: true), file(.quotes, 89, isAcknowledged: true),
            file(.quotes, 90, isAcknowledged: true), file(.quotes, 98), file(.quotes, 99), file(.ticks, 1, isAcknowledged: true),
        ]
        #expect(names(retention.removals(of: files, today: CalendarDay(number: 100))) == ["fills 1", "quotes 89"])
        #expect(FeedRetention(days: 0, bytesMax: .max, hasHub: true).removals(of: files, today: CalendarDay(number: 100)).isEmpty)
    }

    @Test func withoutAHubAgeAloneDecides() {
        let retention = FeedRetention(days: 10, bytesMax: .max, hasHub: false)
        let files = (1...5).map { file(.fills, $0) }
        #expect(names(retention.removals(of: files, today: CalendarDay(number: 100))) == ["fills 1", "fills 2", "fills 3"])
    }

    @Test func sizeTakesWhatTheHubHoldsFirst_thenForcesTicksAndQuotes_fillsLast() {
        let files = (1...4).flatMap { day in
            [
                file(.fills, day, isAcknowledged: day == 2), file(.ticks, day, bytes: 1000), file(.events, day, isSealed: day > 1),
                file(.quotes, day, bytes: 500),
            ]
        }
        func removed(_ bytesMax: Int64) -> [String] {
            names(FeedRetention(days: 0, bytesMax: bytesMax, hasHub: true).removals(of: files, today: CalendarDay(number: 4)))
        }
        #expect(removed(6800) == [])
        #expect(removed(6700) == ["fills 2"])
        #expect(removed(6699) == ["fills 2", "pipeline_ticks 1 forced"])
        #expect(removed(4000) == ["fills 2", "pipeline_ticks 1 forced", "pipeline_ticks 2 forced", "quotes 1 forced", "quotes 2 forced"])
        let all = removed(0)
        #expect(all.suffix(3) == ["fills 1 forced", "events 1 forced", "events 2 forced"] && all.count == 8)
        let alone = FeedRetention(days: 0, bytesMax: 0, hasHub: false).removals(of: files, today: CalendarDay(number: 4))
        #expect(alone.count == 8 && alone.allSatisfy { !$0.isForced }, "without a hub nobody waits for it")
    }

    /// Any files: the two newest of a feed stay, nothing goes that need not, and what goes is enough when it can be.
    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func rulesHold(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var files: [FeedRetention.File] = []
        for feed in Feed.allCases {
            for day in 0..<random.next(below: 12) where random.next(below: 4) > 0 {
                files.append(
                    file(
                        feed, Int64(day), bytes: Int64(random.next(below: 1000)), isSealed: random.next(below: 4) > 0,
                        isAcknowledged: random.next(below: 2) == 0))
            }
        }
        files.shuffle(using: &random)
        let (bytesMax, days) = (Int64(random.next(below: 20_000)), Int64(random.next(below: 12)))
        let removals = FeedRetention(days: days, bytesMax: bytesMax, hasHub: true).removals(of: files, today: CalendarDay(number: 12))
        let gone = removals.map(\.file)
        let rest = files.filter { !gone.contains($0) }
        for feed in Feed.allCases {
            let newest = files.filter { $0.feed == feed }.sorted { $0.day > $1.day }.prefix(2)
            #expect(newest.allSatisfy { !gone.contains($0) })
        }
        #expect(removals.allSatisfy { $0.isForced || ($0.file.isSealed && $0.file.isAcknowledged) })
        let total = rest.reduce(0) { $0 + $1.bytes }
        let forced = removals.filter(\.isForced)
        if let last = forced.last?.file { #expect(total + last.bytes > bytesMax, "the last one was needed") }
        if total > bytesMax { #expect(Feed.allCases.allSatisfy { feed in rest.count { $0.feed == feed } <= 2 }, "nothing else could go") }
    }
}
