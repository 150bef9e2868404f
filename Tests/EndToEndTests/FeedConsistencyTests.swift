import Foundation
import TestSupport
import Testing

/// All feeds agree with the quotes: every fill has its order, every markout its fill, every count and sum of a snapshot can be recounted.
@Suite struct FeedConsistencyTests {
    private typealias Row = FeedRows.Row

    private func sum(_ rows: [Row], _ value: (Row) -> NSDecimalNumber) -> NSDecimalNumber { rows.reduce(0) { $0.adding(value($1)) } }

    /// `numerator/denominator*1e4` in exact decimals.
    private func bps(_ numerator: NSDecimalNumber, _ denominator: NSDecimalNumber) -> Double {
        numerator.multiplying(by: 10_000).dividing(by: denominator).doubleValue
    }

    @Test func feedsAgreeWithEachOther() throws {
        try ReplayTests.withRecording(seconds: 90) { directory, recording in
            let summary = try ReplayTests.replay([
                "--input", recording, "--artifacts", directory, "--set", "pipeline.pipeline_sample_rate=1",
            ])
            let rows = try FeedRows(directory: directory + "/feeds")
            for feed in ["fills", "markouts", "quotes", "pipeline_ticks", "feature_snapshots", "events"] {
                #expect(rows[feed].map { $0.integer("seq") } == Array(1...max(1, rows[feed].count)), "seq of \(feed)")
            }
            let fills = rows["fills"]
            let ticks = rows["pipeline_ticks"]
            #expect(fills.count > 20 && fills.count == (summary["fills"] as? NSNumber)?.intValue)
            #expect(ticks.count == (summary["ticks"] as? NSNumber)?.intValue)
            #expect(rows["quotes"].count == (summary["quotes"] as? NSNumber)?.intValue)

            checkOrders(rows)
            checkMarkouts(rows)
            try checkSnapshots(rows)
        }
    }

    private func checkOrders(_ rows: FeedRows) {
        let orders = Dictionary(rows["quotes"].map { ($0.text("order_id")!, $0) }) { first, _ in first }
        #expect(orders.count == rows["quotes"].count, "one row per order")
        var filled: [String: NSDecimalNumber] = [:]
        for fill in rows["fills"] {
            guard let order = orders[fill.text("order_id")!] else {
                Issue.record("fill \(fill.integer("fill_id")) has no order")
                continue
            }
            #expect(fill.integer("fill_id") == fill.integer("seq"))
            #expect(order.decimal("price") == fill.decimal("price") && order.text("side") == fill.text("side"))
            filled[fill.text("order_id")!, default: 0] = filled[fill.text("order_id")!, default: 0].adding(fill.decimal("qty"))
            let sign: NSDecimalNumber = fill.text("side") == "BUY" ? 1 : -1
            let slip = bps(
                sign.multiplying(by: fill.decimal("price").subtracting(fill.decimal("quote_price"))), fill.decimal("quote_price"))
            #expect((slip - fill.decimal("slip_bps").doubleValue).magnitude <= 0.5e-6 + 1e-12)
        }
        for (id, quantity) in filled { #expect(quantity.compare(orders[id]!.decimal("qty")) != .orderedDescending) }
        for (id, order) in orders where order.text("outcome") == "filled" { #expect(filled[id] == order.decimal("qty")) }
    }

    private func checkMarkouts(_ rows: FeedRows) {
        let markouts = Dictionary(rows["markouts"].map { ($0.integer("fill_id"), $0) }) { first, _ in first }
        #expect(Set(markouts.keys) == Set(rows["fills"].map { $0.integer("fill_id") }) && markouts.count == rows["markouts"].count)
        for fill in rows["fills"] {
            guard let markout = markouts[fill.integer("fill_id")] else { continue }
            #expect(markout.integer("fill_ts") == fill.integer("ts"))
            guard let mid = markout.optional("mid_5s") else {
                #expect(markout.optional("net_bps") == nil)
                continue
            }
            let sign: NSDecimalNumber = fill.text("side") == "BUY" ? 1 : -1
            let net =
                bps(sign.multiplying(by: mid.subtracting(fill.decimal("price"))), fill.decimal("mid_now"))
                - fill.decimal("fee_bps").doubleValue
            #expect((net - markout.decimal("net_bps").doubleValue).magnitude <= 0.5e-6 + 1e-12)
        }
    }

    private func checkSnapshots(_ rows: FeedRows) throws {
        let snapshots = rows["feature_snapshots"]
        let quotes = rows["quotes"]
        #expect(snapshots.count > 5)
        for (earlier, later) in zip(snapshots, snapshots.dropFirst()) {
            #expect(earlier.integer("from_ts") + earlier.integer("span_ms") == later.integer("from_ts"), "no time is missing")
            #expect(later.integer("from_ts").isMultiple(of: 10_000))
        }
        for (index, snapshot) in snapshots.enumerated() {
            let from = snapshot.integer("from_ts")
            // The run ends within its last millisecond.
            let to = from + snapshot.integer("span_ms") + (index == snapshots.count - 1 ? 1 : 0)
            func within(_ feed: String) -> [Row] { rows[feed].filter { $0.integer("ts") >= from && $0.integer("ts") < to } }
            let ticks = within("pipeline_ticks")
            let fills = within("fills")
            let counts = snapshot.object("counts")
            let sums = snapshot.object("sums")
            for (key, expected) in [
                ("ticks", ticks.count), ("fills", fills.count), ("cache_hits", ticks.count { $0.flag("cache_hit") }),
                ("cache_stale", ticks.count { $0.flag("used_stale") }), ("halts", ticks.count { $0.flag("halted") }),
                ("deadline_misses", ticks.count { $0.flag("deadline_miss") }), ("taker_fills", fills.count { $0.flag("taker") }),
            ] { #expect(counts.integer(key) == expected, "\(key) of snapshot \(index)") }
            #expect(sums.decimal("fill_notional") == sum(fills) { $0.decimal("price").multiplying(by: $0.decimal("qty")) })
            #expect(sums.decimal("slip") == sum(fills) { $0.decimal("slip_bps") })
            let pairs = snapshot.values["tick_ns_histogram"] as? [[Int]] ?? []
            #expect(pairs.reduce(0) { $0 + $1[1] } == ticks.count)
        }
        func total(_ group: String, _ key: String) -> NSDecimalNumber { sum(snapshots) { $0.object(group).decimal(key) } }
        #expect(total("counts", "quotes").intValue == quotes.count)
        #expect(total("counts", "filled_orders").intValue == Set(rows["fills"].map { $0.text("order_id")! }).count)
        #expect(total("sums", "quote_ms") == sum(quotes) { $0.decimal("resting_ms") })
        let known = rows["markouts"].filter { $0.optional("mid_5s") != nil }.map { $0.integer("fill_id") }
        let fills = Dictionary(uniqueKeysWithValues: rows["fills"].map { ($0.integer("fill_id"), $0) })
        let notional = sum(known.map { fills[$0]! }) { $0.decimal("price").multiplying(by: $0.decimal("qty")) }
        #expect(total("sums", "markout_notional") == notional)
    }

    // MARK: Crash

    /// kill -9 in mid-write, fifty times over (`CALIBRANT_KILLS` for another number): whole rows stay as they are, each has one identity, and seq
    /// goes on without a hole.
    @Test func aKilledReplayLeavesWholeRows_andTheNextOneContinues() throws {
        let rounds = ProcessInfo.processInfo.environment["CALIBRANT_KILLS"].flatMap { Int($0) } ?? 50
        var random = SeededRandom(seed: 4)
        // A round writes 400 rows at most, a third of the recording.
        try ReplayTests.withRecording(seconds: 60) { directory, recording in
            let feeds = directory + "/feeds"
            let ticks = feeds + "/pipeline_ticks_20250101.jsonl"
            func size() -> UInt64 { (try? FileManager.default.attributesOfItem(atPath: ticks)[.size] as? UInt64) ?? 0 }
            /// The whole rows of every file.
            func files() throws -> [String: Data] {
                var files: [String: Data] = [:]
                for name in try FileManager.default.contentsOfDirectory(atPath: feeds) where name.hasSuffix(".jsonl") {
                    let data = try Data(contentsOf: URL(fileURLWithPath: "\(feeds)/\(name)"))
                    files[name] = data.lastIndex(of: 0x0a).map { data.prefix(through: $0) } ?? Data()
                }
                return files
            }
            func check(_ before: [String: Data], _ after: [String: Data], _ round: Int) {
                for (name, bytes) in before {
                    #expect(after[name]?.starts(with: bytes) == true, "round \(round): rows of \(name) that were whole have changed")
                }
            }
            var kills = 0
            var before: [String: Data] = [:]
            for round in 1...rounds {
                let process = Process()
                process.executableURL = URL(fileURLWithPath: try Binaries.path(of: "edge-node"))
                process.arguments = [
                    "replay", "--venue", "binance-usdm", "--input", recording, "--artifacts", directory, "--set",
                    "pipeline.pipeline_sample_rate=1", "--config", Repository.path("config/edge.yaml"),
                ]
                process.standardOutput = FileHandle.nullDevice
                process.standardError = FileHandle.nullDevice
                let target = size() + UInt64(1 + random.next(below: 200_000))
                try process.run()
                while process.isRunning, size() < target { usleep(500) }
                if process.isRunning { kills += 1 }
                kill(process.processIdentifier, SIGKILL)
                process.waitUntilExit()
                let after = try files()
                check(before, after, round)
                before = after
            }
            #expect(kills == rounds, "a replay ended before it could be killed; make the recording longer")
            _ = try ReplayTests.replay(["--input", recording, "--artifacts", directory])
            check(before, try files(), rounds + 1)
            let rows = try FeedRows(directory: directory + "/feeds")
            for feed in rows.feeds { #expect(rows[feed].map { $0.integer("seq") } == Array(1...rows[feed].count), "seq of \(feed)") }
            #expect(rows["fills"].allSatisfy { $0.integer("fill_id") == $0.integer("seq") })
            #expect(Set(rows["events"].filter { $0.text("event") == "started" }.map { $0.object("detail").integer("run") }).count > 1)
            #expect(Set(rows.feeds.flatMap { feed in rows[feed].map { $0.text("epoch")! } }).count == 1)
        }
    }
}
