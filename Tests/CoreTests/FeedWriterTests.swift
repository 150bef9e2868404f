import CalibModel
import EdgeCore
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
        writer.performed()
        #expect(writer.endDrain(at: milliseconds(1)).isEmpty)
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
            writer.performed()
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
        writer.performed()
        writer.append(event(day: 2), at: milliseconds(1))
        #expect(writer.endDrain(at: milliseconds(1)).map(\.isSync) == [true, false])
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
        #expect(writer.endDrain(at: milliseconds(0), isLast: true).filter(\.isSync).count == 6)
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
            for (feed, text) in bytes(writer.endDrain(at: now, isLast: step == 299), writer) { files[feed, default: ""] += text }
            writer.performed()
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
    fileprivate var feed: Feed {
        switch self {
        case .append(let feed, _, _), .sync(let feed): feed
        }
    }
    fileprivate var isSync: Bool { if case .sync = self { true } else { false } }
}
