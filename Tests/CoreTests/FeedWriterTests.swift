import CalibModel
import EdgeCore
import TestSupport
import Testing
import Wire

/// Idea: feed the policy moments and records, collect its effects, and compare with what SPEC 2.7 promises: order, batches, deadlines, days.
struct FeedWriterTests {
    @Test func oneDrainWritesEverything_eventsAndFillsFirst() {
        var writer = makeWriter()
        writer.append(Sample.tick(), at: milliseconds(0))
        writer.append(Sample.quote, at: milliseconds(0))
        writer.append(Sample.fill, at: milliseconds(0))
        writer.append(Sample.event, at: milliseconds(0))
        let effects = writer.endDrain(at: milliseconds(0))
        #expect(effects.map(\.feed) == [.events, .fills, .quotes, .ticks])
        #expect(effects.allSatisfy { !$0.isSync })
        #expect(bytes(effects, writer)[.fills] == Sample.row(.fills, seq: 42))
        settle(effects, &writer)
        let later = writer.endDrain(at: milliseconds(1))
        #expect(later.isEmpty)
    }

    /// Drains every 5 ms: each feed is synced within its bound, and not at every drain.
    @Test(arguments: Feed.allCases)
    func syncComesWithinItsBound(feed: Feed) {
        var writer = makeWriter()
        append(feed, &writer, at: milliseconds(100))
        var now = milliseconds(100)
        var drains = 0
        while true {
            let effects = writer.endDrain(at: now)
            settle(effects, &writer)
            drains += 1
            if effects.contains(.sync(feed)) { break }
            now = now.advanced(nanoseconds: FeedWriter.wakeNanoseconds)
        }
        let waited = now.since(milliseconds(100))
        // The last wake before the bound, with one wake for the sync itself.
        #expect(waited <= FeedWriter.syncNanoseconds(feed) - FeedWriter.wakeNanoseconds)
        #expect(waited > FeedWriter.syncNanoseconds(feed) - 4 * FeedWriter.wakeNanoseconds)
        #expect(drains > 1)
        #expect(writer.isEverythingSynced)
    }

    /// Each on its own would be synced a second behind its own first row.
    @Test func feedsThatAreNotUrgentAreSyncedTogether_urgentOnesAreNotTakenAlong() {
        var writer = makeWriter()
        func syncs(at now: Int64) -> [Feed] {
            let effects = writer.endDrain(at: milliseconds(now))
            settle(effects, &writer)
            return effects.filter(\.isSync).map(\.feed)
        }
        append(.ticks, &writer, at: milliseconds(0))
        #expect(syncs(at: 0) == [])
        append(.quotes, &writer, at: milliseconds(700))
        #expect(syncs(at: 700) == [])
        append(.fills, &writer, at: milliseconds(990))
        #expect(syncs(at: 990) == [.quotes, .ticks])
        #expect(syncs(at: 1_010) == [.fills])
        // A markout takes nobody along either.
        append(.quotes, &writer, at: milliseconds(1_020))
        append(.markouts, &writer, at: milliseconds(1_020))
        #expect(syncs(at: 1_040) == [.markouts])
        #expect(syncs(at: 1_500) == [])
        #expect(syncs(at: 2_010) == [.quotes])
    }

    /// It is tried again and again, which must not sync the others each time.
    @Test func aFeedInTroubleTakesNobodyAlong() {
        var writer = makeWriter()
        append(.ticks, &writer, at: milliseconds(0))
        let effects = writer.endDrain(at: milliseconds(1_000))
        for effect in effects where writer.mayPerform(effect) { writer.failed(effect, at: milliseconds(1_000)) }
        writer.performed()
        append(.quotes, &writer, at: milliseconds(1_010))
        let later = writer.endDrain(at: milliseconds(1_900))
        #expect(later.contains { $0.feed == .ticks } && !later.contains(.sync(.quotes)))
    }

    @Test func mebibyteOfRowsIsSyncedAtOnce() {
        var writer = makeWriter()
        var size = 0
        while size < Limits.unsyncedBytesMax {
            writer.append(Sample.tick(), at: milliseconds(0))
            size += Sample.row(.ticks, seq: writer.nextSeq(.ticks) - 1).utf8.count
        }
        let effects = writer.endDrain(at: milliseconds(0))
        #expect(effects.map(\.isSync) == [false, true])
        #expect(bytes(effects, writer)[.ticks]?.utf8.count == size)
    }

    @Test func newDayWritesAndSyncsTheOldFileFirst() {
        var writer = makeWriter()
        writer.append(event(day: 0), at: milliseconds(0))
        writer.append(event(day: 1), at: milliseconds(0))
        let effects = writer.endDrain(at: milliseconds(0))
        let length = bytes(effects, writer)[.events]!.utf8.count / 2
        #expect(effects == [.append(.events, day(0), 0..<length), .sync(.events), .append(.events, day(1), length..<2 * length)])
        settle(effects, &writer)
        let completed = writer.takeCompleted()
        #expect(completed.map(\.day) == [day(0)])
        writer.append(event(day: 2), at: milliseconds(1))
        let later = writer.endDrain(at: milliseconds(1))
        #expect(later.map(\.isSync) == [true, false])
    }

    @Test func dayNeverGoesBack() {
        var writer = makeWriter()
        writer.append(event(day: 1), at: milliseconds(0))
        writer.append(event(day: 0), at: milliseconds(0))
        let effects = writer.endDrain(at: milliseconds(0))
        #expect(effects.count == 1)
        guard case .append(_, let written, _) = effects[0] else { return #expect(Bool(false), "\(effects)") }
        #expect(written == day(1))
    }

    @Test func lastDrainSyncsEverything() {
        var writer = makeWriter()
        for feed in Feed.allCases { append(feed, &writer, at: milliseconds(0)) }
        let effects = writer.endDrain(at: milliseconds(0), isLast: true)
        #expect(effects.filter(\.isSync).count == 6 && !writer.isEverythingSynced)
        settle(effects, &writer)
        #expect(writer.isEverythingSynced)
        #expect(writer.statistics.rows == 6)
        #expect(writer.statistics.syncs == 6)
    }

    /// Random records, drains and days: `seq` of every feed is recovered + 1, + 2, ... and every byte is written once, in order.
    @Test(arguments: 1...20)
    func seqRisesByOneAndEveryByteIsWrittenOnce(seed: Int) {
        var random = UInt64(seed)
        func below(_ bound: Int) -> Int {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(random >> 33) % bound
        }
        var writer = FeedWriter(format: Sample.format(), highestSeq: [41, 5, 6, 7, 8, 9])
        var files: [Feed: String] = [:]
        var now = milliseconds(0)
        for step in 0..<300 {
            if step < 299, below(4) > 0 {
                var event = event(day: step / 50)
                event.first = Int64(step)
                if below(2) == 0 {
                    writer.append(event, at: now)
                } else {
                    append([.quotes, .markouts, .ticks][below(3)], &writer, at: now)
                }
                continue
            }
            now = now.advanced(nanoseconds: Int64(below(20_000_000)))
            let effects = writer.endDrain(at: now, isLast: step == 299)
            for (feed, text) in bytes(effects, writer) { files[feed, default: ""] += text }
            settle(effects, &writer)
        }
        for (feed, first) in [(Feed.events, 7), (.quotes, 9), (.markouts, 6), (.ticks, 10)] {
            let seqs = files[feed, default: ""].split(separator: "\n").map { line in
                Array(line.utf8).withUnsafeBytes { RowIdentity(line: $0)?.seq }
            }
            #expect(seqs.count > 5)
            #expect(seqs == (first..<first + seqs.count).map { Int64($0) })
            #expect(writer.nextSeq(feed) == Int64(first + seqs.count))
            #expect(writer.statistics[feed].bytes == Int64(files[feed]!.utf8.count))
        }
    }

    // MARK: Days

    @Test func idleFeedsPassMidnightToo_andWhatComesLateStaysInTheNewFile() {
        var writer = makeWriter()
        writer.append(event(day: 0), at: milliseconds(0))
        settle(writer.endDrain(at: milliseconds(0), isLast: true), &writer)
        writer.passDay(at: WallTime(nanoseconds: day(1).number * 86_400_000_000_000 - 1))
        #expect(writer.takeCompleted().isEmpty)
        writer.passDay(at: WallTime(nanoseconds: day(1).number * 86_400_000_000_000))
        writer.passDay(at: WallTime(nanoseconds: day(1).number * 86_400_000_000_000 + 5))
        let completed = writer.takeCompleted().filter { $0.feed == .events }
        #expect(completed.map(\.day) == [day(0)], "once")
        writer.append(event(day: 0), at: milliseconds(1))
        let effects = writer.endDrain(at: milliseconds(1))
        #expect(days(effects) == [day(1)])
    }

    /// A day is complete when its last row is durable, not when the next one begins.
    @Test func dayWithUnsyncedRowsIsCompleteAfterTheirSync() {
        var writer = makeWriter()
        writer.append(event(day: 0), at: milliseconds(0))
        settle(writer.endDrain(at: milliseconds(0)), &writer)
        writer.passDay(at: WallTime(nanoseconds: day(1).number * 86_400_000_000_000))
        let before = writer.takeCompleted().filter { $0.feed == .events }
        let effects = writer.endDrain(at: milliseconds(1))
        let undone = writer.takeCompleted()
        settle(effects, &writer)
        let after = writer.takeCompleted()
        #expect(before.isEmpty && undone.isEmpty && effects == [.sync(.events)] && after.map(\.day) == [day(0)])
    }

    @Test func aRestartGoesOnInTheNewestFile_whateverTheClockSays() {
        let days = Feed.allCases.map { $0 == .events ? day(3) : nil }
        var writer = FeedWriter(format: Sample.format(), highestSeq: [41, 0, 0, 0, 0, 0], days: days)
        writer.append(event(day: 1), at: milliseconds(0))
        let effects = writer.endDrain(at: milliseconds(0))
        #expect(self.days(effects) == [day(3)])
    }

    private func days(_ effects: [FeedEffect]) -> [CalendarDay] {
        effects.compactMap { if case .append(_, let day, _) = $0 { day } else { nil } }
    }

    // MARK: Trouble

    @Test func failedAppendIsTriedAgainLaterAndLater_fromTheSameByte() {
        var writer = makeWriter()
        writer.append(event(day: 0), at: milliseconds(0))
        var attempts: [Int64] = []
        var end = 0
        for time in 0..<10_000 as Range<Int64> {
            let effects = writer.endDrain(at: milliseconds(time), isLast: false)
            for effect in effects where writer.mayPerform(effect) {
                guard case .append(_, _, let range) = effect else {
                    Issue.record("\(effect) stands on nothing")
                    continue
                }
                #expect(range.lowerBound == 0 && range.upperBound > end)
                attempts.append(time)
                writer.failed(effect, at: milliseconds(time))
                end = range.upperBound
            }
            writer.performed()
            writer.append(event(day: 0), at: milliseconds(time))
            guard attempts.count < 9 else { break }
        }
        #expect(attempts == [0, 50, 150, 350, 750, 1550, 2550, 3550, 4550])
        #expect(writer.troubleSince == milliseconds(0) && writer.statistics[.events].errors == 9)

        // It heals: all of it, in one go, synced, and the trouble is over.
        let effects = writer.endDrain(at: milliseconds(5550))
        #expect(effects.map(\.isSync) == [false, true])
        settle(effects, &writer)
        #expect(writer.troubleSince == nil && writer.isEverythingSynced)
    }

    @Test func failedSyncMeansWritingAgain_whatNoSyncCovered() {
        var writer = makeWriter()
        writer.append(event(day: 0), at: milliseconds(0))
        settle(writer.endDrain(at: milliseconds(0), isLast: true), &writer)
        writer.append(event(day: 0), at: milliseconds(1))
        writer.append(event(day: 1), at: milliseconds(1))
        let effects = writer.endDrain(at: milliseconds(1), isLast: true)
        let row = writer.pendingBytes(of: .events).count / 2
        #expect(
            effects == [.append(.events, day(0), 0..<row), .sync(.events), .append(.events, day(1), row..<2 * row), .sync(.events)])
        writer.done(effects[0])
        writer.failed(effects[1], at: milliseconds(2))
        #expect(!writer.mayPerform(effects[2]) && writer.mayPerform(.sync(.fills)))
        writer.performed()
        let completed = writer.takeCompleted()
        #expect(completed.isEmpty)
        let again = writer.endDrain(at: milliseconds(60), isLast: true)
        #expect(again == [.takeBack(.events)] + effects)
        settle(again, &writer)
        let later = writer.takeCompleted()
        #expect(later.map(\.day) == [day(0)] && writer.isEverythingSynced && writer.troubleSince == nil)
    }

    /// What is in the file is made durable even while it cannot grow.
    @Test func fullDiskStillSyncsWhatItTook() {
        var writer = makeWriter()
        writer.append(event(day: 0), at: milliseconds(0))
        settle(writer.endDrain(at: milliseconds(0)), &writer)
        writer.append(event(day: 0), at: milliseconds(1))
        let effects = writer.endDrain(at: milliseconds(1))
        let bytes = writer.pendingBytes(of: .events).count
        writer.failed(effects[0], at: milliseconds(1))
        writer.performed()
        let again = writer.endDrain(at: milliseconds(51))
        #expect(again.map(\.isSync) == [true, false, true])
        writer.done(again[0])
        writer.failed(again[1], at: milliseconds(51))
        writer.performed()
        #expect(writer.troubleSince == milliseconds(1), "a sync of the old bytes is no healing")
        #expect(writer.pendingBytes(of: .events).count == bytes / 2)
    }

    @Test func bufferThatIsFullTakesNoMoreOfItsFeed() {
        var writer = makeWriter()
        var rows = 0
        while writer.hasRoom(.ticks) {
            writer.append(Sample.tick(), at: milliseconds(0))
            rows += 1
        }
        #expect(rows * 400 < Limits.feedBufferBytesMax && writer.unsyncedBytes < Limits.feedBufferBytesMax + 1000)
        #expect(writer.hasRoom(.fills) && writer.hasRoom(.quotes))
        settle(writer.endDrain(at: milliseconds(0), isLast: true), &writer)
        #expect(writer.hasRoom(.ticks))
    }

    /// Any order of failures: a disk that refuses appends, loses what it did not sync, and refuses to cut. At no time is a synced byte changed, and
    /// in the end every row is there once, in order, in the file of its day.
    @Test(arguments: 1...10 as ClosedRange<UInt64>)
    func noRowIsLostOrDoubled_whateverFails(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var writer = makeWriter()
        var disk = FaultyDisk()
        var expected: [Feed: [(Int64, CalendarDay)]] = [:]
        var today: [Feed: CalendarDay] = [:]
        var now: Int64 = 0
        var isLast = false
        for step in 0..<1000 {
            now += Int64(random.next(below: 30))
            let isBroken = step < 900 && (step / 100) % 3 > 0
            for _ in 0..<random.next(below: 4) {
                let feed = [Feed.events, .quotes, .ticks][random.next(below: 3)]
                let number = step / 250 - random.next(below: 2)
                today[feed] = max(today[feed] ?? day(Int64(number)), day(Int64(number)))
                expected[feed, default: []].append((writer.nextSeq(feed), today[feed]!))
                switch feed {
                case .events: writer.append(event(day: number), at: milliseconds(now))
                case .quotes:
                    var quote = Sample.quote
                    quote.wall = event(day: number).wall
                    writer.append(quote, at: milliseconds(now))
                default:
                    var tick = Sample.tick()
                    tick.wall = event(day: number).wall
                    writer.append(tick, at: milliseconds(now))
                }
            }
            isLast = step == 999
            for effect in writer.endDrain(at: milliseconds(now + (isLast ? 10_000 : 0)), isLast: isLast) where writer.mayPerform(effect) {
                if disk.perform(effect, writer.pendingBytes(of: effect.feed), fails: isBroken && random.next(below: 2) == 0, &random) {
                    writer.done(effect)
                } else {
                    writer.failed(effect, at: milliseconds(now))
                }
            }
            writer.performed()
            for (feed, day) in writer.takeCompleted() { disk.complete(feed, day) }
        }
        #expect(writer.isEverythingSynced && writer.troubleSince == nil)
        #expect(writer.statistics[.events].errors > 0)
        for (feed, rows) in expected {
            var found: [(Int64, CalendarDay)] = []
            for (name, file) in disk.files.sorted(by: { $0.key < $1.key }) where name.hasPrefix(feed.rawValue) {
                #expect(file.synced == file.bytes.count, "\(name)")
                for line in file.bytes.split(separator: 0x0a) {
                    let seq = line.withUnsafeBytes { RowIdentity(line: UnsafeRawBufferPointer(rebasing: $0[...]))?.seq }
                    found.append((seq ?? -1, FeedFileName.parse(name)!.day))
                }
            }
            #expect(found.map(\.0) == rows.map(\.0) && found.map(\.1) == rows.map(\.1), "\(feed)")
        }
    }

    @Test func everyRingHasRoomForAFrame_andDiscardFreesIt() {
        let memory = OutboxMemory()
        var outboxes = memory.makeOutboxes()
        #expect(outboxes.hasRoom(for: SharedState.recordsPerFrame))
        #expect(!outboxes.hasRoom(for: Outboxes.Capacity.smallest + 1))
        for _ in 0..<Outboxes.Capacity.fills { outboxes.fills.push(Sample.fill) }
        #expect(outboxes.fills.room == 0)
        let isTaken = outboxes.fills.push(Sample.fill)
        #expect(!isTaken)
        #expect(outboxes.fills.refused == 1)
        memory.discard(&outboxes)
        #expect(outboxes.fills.room == Outboxes.Capacity.fills)
    }
}

/// All effects succeed.
private func settle(_ effects: [FeedEffect], _ writer: inout FeedWriter) {
    for effect in effects { writer.done(effect) }
    writer.performed()
}

/// Files whose bytes behind the last sync are anybody's guess once something failed.
private struct FaultyDisk {
    struct File {
        var bytes: [UInt8] = []
        var synced = 0
        var isComplete = false
    }
    var files: [String: File] = [:]
    private var open: [Feed: String] = [:]

    mutating func perform(_ effect: FeedEffect, _ pending: [UInt8], fails: Bool, _ random: inout SeededRandom) -> Bool {
        switch effect {
        case .append(let feed, let day, let range):
            guard !fails else { return false }
            let name = FeedFileName.text(feed, day)
            if let old = open[feed], old != name { #expect(files[old]!.synced == files[old]!.bytes.count, "one file is unsynced at most") }
            #expect(files[name]?.isComplete != true, "nothing is written behind a complete day")
            open[feed] = name
            files[name, default: File()].bytes += pending[range]
        case .sync(let feed):
            guard let name = open[feed] else { return true }
            if fails {
                // Pages are lost, whichever.
                for index in files[name]!.synced..<files[name]!.bytes.count where random.next(below: 2) == 0 {
                    files[name]!.bytes[index] = 0
                }
                return false
            }
            files[name]!.synced = files[name]!.bytes.count
        case .takeBack(let feed):
            guard !fails else { return false }
            guard let name = open[feed] else { return true }
            files[name]!.bytes.removeLast(files[name]!.bytes.count - files[name]!.synced)
        }
        return true
    }

    mutating func complete(_ feed: Feed, _ day: CalendarDay) {
        let name = FeedFileName.text(feed, day)
        guard let file = files[name] else { return }
        #expect(file.synced == file.bytes.count)
        files[name]!.isComplete = true
    }
}

private func makeWriter() -> FeedWriter { FeedWriter(format: Sample.format(), highestSeq: [41, 0, 0, 0, 0, 0]) }

private func milliseconds(_ value: Int64) -> Instant { Instant(nanoseconds: value * 1_000_000) }

private func day(_ number: Int64) -> CalendarDay { CalendarDay(number: 20_089 + number) }

private func event(day number: Int) -> EventRecord {
    EventRecord(wall: WallTime(nanoseconds: (20_089 + Int64(number)) * 86_400_000_000_000 + 5_000_000), kind: .clock, first: 1)
}

private func append(_ feed: Feed, _ writer: inout FeedWriter, at now: Instant) {
    switch feed {
    case .fills: writer.append(Sample.fill, at: now)
    case .markouts: writer.append(Sample.markout(), at: now)
    case .events: writer.append(Sample.event, at: now)
    case .snapshots:
        let snapshot = Sample.snapshot()
        defer { snapshot.deallocate() }
        writer.append(UnsafePointer(snapshot), at: now)
    case .quotes: writer.append(Sample.quote, at: now)
    case .ticks: writer.append(Sample.tick(), at: now)
    }
}

/// What the append effects write, per feed.
private func bytes(_ effects: [FeedEffect], _ writer: FeedWriter) -> [Feed: String] {
    var texts: [Feed: String] = [:]
    for case .append(let feed, _, let range) in effects {
        texts[feed, default: ""] += String(decoding: writer.pendingBytes(of: feed)[range], as: UTF8.self)
    }
    return texts
}

extension FeedEffect {
    fileprivate var isSync: Bool { if case .sync = self { true } else { false } }
}
