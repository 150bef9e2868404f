import CalibModel
import Foundation
import Testing
import Wire

@testable import EdgeCore

/// What an edge shows of a state made by hand, in both forms, byte for byte; and what it must leave out.
@Suite struct EdgeMetricsTests {
    /// 2025-01-01T00:00:10Z.
    private static let now = WallTime(nanoseconds: 1_735_689_610_000_000_000)
    private static let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)

    private static func status(_ symbol: String, arm: String = "A", why: String = "schedule", experiment: String? = "exp-1")
        -> Message.Status.Symbol
    {
        // 0 is a value, nil is none.
        var features: [Int64?] = [812_500, 1_250_000_000, 42_000, -500_000, 250_000_000, 0, 125_000_000, nil, -200_000, 1]
        if arm == "B" { features = .init(repeating: nil, count: Feature.allCases.count) }
        return Message.Status.Symbol(
            symbol: symbol, arm: arm, armWhy: why, experiment: experiment, isProven: true, isKilled: arm == "B", bid: nil, ask: nil,
            position: 0, openOrders: 2, ticks: 120, quotes: 17, fills: 5, features: features)
    }

    private static let symbols = [
        EdgeMetrics.Symbol(
            status: status("BTCUSDT"), takerFills: 2, lastTick: WallTime(nanoseconds: now.nanoseconds - 250_000_000),
            lastFill: WallTime(nanoseconds: now.nanoseconds - 3_000_000_000), cacheAgeNanoseconds: 12_500_000),
        EdgeMetrics.Symbol(
            status: status("ETHUSDT", arm: "B"), takerFills: 0, lastTick: WallTime(nanoseconds: now.nanoseconds - 500_000_000),
            lastFill: nil,
            cacheAgeNanoseconds: nil),
    ]

    private static func node() -> EdgeMetrics.Node {
        var metrics = NodeMetrics()
        for (arm, total, hit) in [(Arm.a, Int64(41_000), true), (.a, 150_000_000, true), (.a, 150_000_001, false), (.b, 2_000_000, true)] {
            metrics.ticked(nanoseconds: total, bucket: LatencyBuckets.index(of: total), hit ? .hit : .miss, arm)
            if total == 41_000 {
                var record = TickRecord()
                record.weight = 10
                for stage in 0..<6 { record.stageNanoseconds[stage] = Int64(1000 * (stage + 1)) }
                metrics.logged(record)
            }
        }
        metrics.missedDeadline(.a)
        metrics.filled(slip: BasisPoints(micro: -200_000), .a)
        metrics.filled(slip: .zero, .a)
        var cache = EdgeMetrics.CacheTotals()
        cache.invalidations[MDCache.Invalidation.priceJump.rawValue] = 2
        // 19 pings of 3 ms, one of 40.
        cache.refreshes.add(3_000_000, weight: 19)
        cache.refreshes.add(40_000_000)
        return EdgeMetrics.Node(
            reading: metrics.reading(at: Instant(nanoseconds: 0)), sequenceGaps: 1,
            venueClockOffsetNanoseconds: -1_270_000_000, cache: cache, droppedRows: [0, 0, 0, 0, 3, 7])
    }

    private static func feeds() -> EdgeMetrics.Feeds {
        var written = FeedStatistics()
        written[.fills].rows = 5
        written[.ticks].rows = 120
        written[.ticks].errors = 1
        var syncs = BoundedHistogram(bounds: MetricBounds.sync)
        syncs.add(1_300_000)
        return EdgeMetrics.Feeds(written: written, syncs: syncs, bytesMax: 1 << 30)
    }

    private static func link() -> EdgeMetrics.Link {
        var commands = CommandMeter()
        let second = Instant(nanoseconds: 1_000_000_000)
        commands.received(command("c1", .rollback), at: second)
        commands.said(result("c1", .applied), at: second.advanced(nanoseconds: 5_000_000))
        var trips = BoundedHistogram(bounds: MetricBounds.answer)
        trips.add(800_000)
        return EdgeMetrics.Link(
            uplink: Uplink.Reading(
                isConnected: true, backlogBytes: 4096, oldestUnackedNanoseconds: 20_000_000, roundTrips: trips, reconnects: 2),
            commands: commands, revision: Revision(term: 2, number: 31), clockOffsetMilliseconds: -3)
    }

    private static func command(_ id: String, _ kind: Message.CommandKind) -> Message.Command {
        Message.Command(
            id: id, revision: .zero, kind: kind, experiment: nil, symbol: nil, reason: "r", by: "operator/ann", issuedMilliseconds: 0)
    }

    private static func result(_ id: String, _ state: Message.CommandState) -> Message.CommandResult {
        Message.CommandResult(id: id, state: state, atMilliseconds: 0, cancelledOrders: 0, text: nil)
    }

    private static func metrics(
        _ symbols: [EdgeMetrics.Symbol] = symbols, silentAfter: Int64 = 900_000_000_000, most: Int = 500, node: EdgeMetrics.Node? = nil,
        feeds: EdgeMetrics.Feeds? = nil, link: EdgeMetrics.Link? = nil, droppedBefore: Int64 = 0
    ) -> EdgeMetrics {
        EdgeMetrics(
            symbols: symbols, silentAfter: silentAfter, most: most, node: node, feeds: feeds, link: link,
            configuration: .init(isSuccess: true, succeededAt: start), droppedBefore: droppedBefore, at: now)
    }

    private func text(_ metrics: EdgeMetrics, _ form: MetricsForm = .text) -> String {
        String(decoding: Prometheus.exposition(metrics.families, form), as: UTF8.self)
    }

    /// `UPDATE_GOLDENS=1` rewrites them.
    @Test(arguments: [("metrics_edge.txt", MetricsForm.text), ("metrics_edge.openmetrics.txt", .openMetrics)])
    func wholeExpositionIsTheExample(name: String, form: MetricsForm) throws {
        let bytes = Array(text(Self.metrics(node: Self.node(), feeds: Self.feeds(), link: Self.link()), form).utf8)
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let url = root.appendingPathComponent("proto-json/examples/\(name)")
        if ProcessInfo.processInfo.environment["UPDATE_GOLDENS"] == "1" { try Data(bytes).write(to: url) }
        #expect(try Array(Data(contentsOf: url)) == bytes)
    }

    @Test func unknownIsAbsent_beforeTheFirstSecond_andWithoutAHub() {
        let shown = text(Self.metrics([]))
        for name in ["mm_ticks", "mm_md_cache_hit_ratio", "mm_uplink", "mm_command", "mm_assignment", "mm_deadman", "mm_symbol"] {
            #expect(!shown.contains(name), "\(name)")
        }
        #expect(shown.contains("mm_config_last_reload_success 1\n"))
        #expect(!text(Self.metrics(node: Self.node(), link: Self.link())).lowercased().contains("nan"))
        var metrics = NodeMetrics()
        let idle = text(
            Self.metrics(
                node: .init(
                    reading: metrics.reading(at: Instant(nanoseconds: 0)), sequenceGaps: 0, venueClockOffsetNanoseconds: nil,
                    cache: .init(),
                    droppedRows: .init(repeating: 0, count: 6))))
        #expect(!idle.contains("mm_md_cache_refresh_latency_p95_ms"))
        #expect(
            !idle.contains("mm_tick_total_p95_ms") && !idle.contains("mm_md_cache_hit_ratio")
                && idle.contains("mm_ticks_total{bucket=\"A\"} 0\n"))
    }

    @Test func symbolThatFellSilentDisappears() {
        #expect(Self.metrics(silentAfter: 300_000_000).symbols.map(\.status.symbol) == ["BTCUSDT"])
        #expect(Self.metrics(silentAfter: 250_000_000).symbols.isEmpty)
        var never = Self.symbols[0]
        never.lastTick = nil
        #expect(Self.metrics([never]).symbols.isEmpty)
    }

    @Test func seriesBeyondTheMostAreLeftOut_andCounted() {
        let all = Self.metrics()
        let few = Self.metrics(most: 1, droppedBefore: 100)
        let series = { (text: String) in text.split(separator: "\n").count { !$0.hasPrefix("#") } }
        #expect(few.symbols.map(\.status.symbol) == ["BTCUSDT"] && few.droppedSeries > 0)
        #expect(series(text(all)) - series(text(few)) == Int(few.droppedSeries))
        #expect(text(few).contains("mm_metrics_dropped_series_total \(100 + few.droppedSeries)\n"))
        #expect(text(all).contains("mm_metrics_dropped_series_total 0\n"))
    }

    @Test func deadmanIsEngagedWhileALeaseIsMissing() {
        #expect(text(Self.metrics(link: Self.link())).contains("mm_deadman_engaged 0\n"))
        var held = Self.symbols
        held[0].status = Self.status("BTCUSDT", why: "lease")
        #expect(text(Self.metrics(held, link: Self.link())).contains("mm_deadman_engaged 1\n"))
    }

    // MARK: Windows

    @Test func windowsForgetAfterFiveMinutes() {
        var metrics = NodeMetrics()
        func tick(_ nanoseconds: Int64, hit: Bool) {
            metrics.ticked(nanoseconds: nanoseconds, bucket: LatencyBuckets.index(of: nanoseconds), hit ? .hit : .miss, .a)
        }
        func reading(atSecond second: Int64) -> NodeMetrics.Reading { metrics.reading(at: Instant(nanoseconds: second * 1_000_000_000)) }
        #expect(reading(atSecond: 6000).tickP95 == nil)
        for _ in 0..<100 { tick(100, hit: false) }
        #expect(reading(atSecond: 6001).tickP95 == 100)
        for second in stride(from: Int64(6002), to: 6300, by: 7) { #expect(reading(atSecond: second).tickP95 == 100, "\(second)") }
        tick(7, hit: true)
        // The hundred lie in the minute that began at 6000.
        #expect(reading(atSecond: 6299).recentCacheReads == .init(hits: 1, stale: 0, misses: 100))
        let later = reading(atSecond: 6300)
        #expect(later.tickP95 == 7 && later.recentCacheReads == .init(hits: 1, stale: 0, misses: 0))
        #expect(later.counts.cacheReads == .init(hits: 1, stale: 0, misses: 100), "what was counted stays counted")
        // A pause of an hour ends every window.
        #expect(reading(atSecond: 9900).tickP95 == nil && reading(atSecond: 9900).recentCacheReads.total == 0)
    }

    @Test func fetchesCountByTheWeightOfTheirTick() {
        var metrics = NodeMetrics()
        for (nanoseconds, weight) in [(Int64(10), Int64(90)), (100, 10)] {
            var record = TickRecord()
            record.stageNanoseconds[0] = nanoseconds
            record.weight = weight
            metrics.logged(record)
        }
        let reading = metrics.reading(at: Instant(nanoseconds: 0))
        #expect(reading.fetchP95 == 100 && reading.counts.stages[0].count == 100 && reading.counts.stages[1].count == 0)
    }

    // MARK: Commands

    @Test func commandIsCountedByItsFirstAnswer_onceHoweverOftenItIsSent() {
        var meter = CommandMeter()
        let at = { (milliseconds: Int64) in Instant(nanoseconds: milliseconds * 1_000_000) }
        meter.received(Self.command("k1", .kill), at: at(0))
        meter.received(Self.command("k1", .kill), at: at(900))
        meter.said(Self.result("k1", .applied), at: at(1000))
        meter.said(Self.result("k1", .latched), at: at(1100))
        meter.received(Self.command("r1", .rollback), at: at(2000))
        meter.said(Self.result("r1", .rejected), at: at(2001))
        meter.said(Self.result("never sent", .applied), at: at(2002))
        #expect(meter.answered.map { "\($0.kind) \($0.result) \($0.count)" } == ["kill applied 1", "rollback rejected 1"])
        #expect(meter.applied.count == 1 && meter.applied.sum == 1_000_000_000)
        // Commands that are never answered are forgotten.
        for number in 0..<(Limits.timedCommandsMax + 1) { meter.received(Self.command("n\(number)", .kill), at: at(3000)) }
        meter.said(Self.result("n0", .applied), at: at(3001))
        #expect(meter.applied.count == 1)
    }

    // MARK: The quote path

    @Test func everyTickIsCountedAndTimed_everyFillToo() {
        let it = QuoteNodeTests.Harness()
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        for id in Int64(12)..<40 { it.depth(id, id, previous: id - 1, bids: "[\"100.0\",\"\(id % 2 + 4)\"]", after: 20) }
        // Through both of our sides.
        it.trade("90.0", "50", sells: true, after: 30)
        it.trade("110.0", "50", sells: false, after: 30)
        let moment = Moment(instant: Instant(nanoseconds: 0), wall: Self.now)
        let counts = it.node.metrics(at: moment).reading.counts
        #expect(counts.arms[0].ticks.count == it.counts.ticks && it.counts.ticks > 20)
        #expect(counts.cacheReads.total == it.counts.ticks && counts.stages[0].count == it.counts.ticks)
        #expect(counts.arms[0].slippage.count == it.counts.fills && it.counts.fills > 0)
        let symbol = it.node.metrics(of: 0, at: moment)
        #expect(symbol.lastTick != nil && symbol.lastFill != nil && symbol.cacheAgeNanoseconds != nil)
        #expect(it.node.metrics(at: moment).sequenceGaps == 0)
        it.depth(90, 91, previous: 89)
        #expect(it.node.metrics(at: moment).sequenceGaps == 1 && it.node.metrics(of: 0, at: moment).cacheAgeNanoseconds == nil)
    }
}
