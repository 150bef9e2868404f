import Foundation
import TestSupport
import Testing

/// A venue that loses, repeats, reorders, delays and mangles frames and breaks connections, and a real edge against it (SPEC 3.6). The long form,
/// with its figures, is `deploy/bench/chaos.sh`.
@Suite(.serialized)
struct ChaosTests {
    /// From the loss of a symbol's book to its next proof, ms UTC; the last may have no end.
    private struct Window {
        var from: Int
        var to: Int
        func holds(_ instant: Int) -> Bool { from < instant && instant < to }
    }

    private func windows(_ symbol: String, _ events: [FeedRows.Row]) -> [Window] {
        var found: [Window] = []
        var lostAt: Int?
        for event in events {
            switch event.text("event") {
            case "started": lostAt = event.integer("ts")
            case "disconnected" where lostAt == nil, "gap" where lostAt == nil && event.text("symbol") == symbol:
                lostAt = event.integer("ts")
            case "resync" where event.text("symbol") == symbol:
                if let from = lostAt { found.append(Window(from: from, to: event.integer("ts"))) }
                lostAt = nil
            default: break
            }
        }
        if let lostAt { found.append(Window(from: lostAt, to: .max)) }
        return found
    }

    @Test func everyKindOfTroubleComes_andNothingIsQuotedOnAnUnprovenBook() throws {
        // Every tick and every order has its row. An order is placed by a tick and by nothing else.
        let rig = try EdgeRig(["--set", "paper.order_latency_ms=0"], venue: ["--chaos", "--chaos-seed", "5"])
        try rig.wait(for: "every kind of trouble", deadline: 120) { rig.venue.standardError.contains("every kind of trouble has come") }
        let quotes = try rig.metric("mm_quotes_total") ?? 0
        try rig.wait(for: "quotes after it") { try rig.metric("mm_quotes_total") ?? 0 > quotes + 4 }
        #expect(rig.stop() == 0)
        rig.venue.signal(SIGTERM)
        #expect(rig.venue.wait() == 0)
        let line = try #require(rig.venue.lastLine())
        let report = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        let faults = FeedRows.Row(values: try #require(report?["faults"] as? [String: Any]))
        for kind in [
            "gap", "burst", "silence", "stall", "delay", "close", "reset", "half_open", "crossed_snapshot", "duplicate", "reordering",
            "restart",
        ] { #expect(faults.integer(kind) > 0, "\(kind)") }

        let rows = try rig.rows()
        let told = try #require(rig.edge.lastLine())
        let summary = FeedRows.Row(values: try JSONSerialization.jsonObject(with: Data(told.utf8)) as? [String: Any] ?? [:])
        #expect(summary.integer("crossed") > 0 && summary.integer("sequence_gaps") > 0, "the edge saw the trouble")
        for symbol in ["BTCUSDT", "ETHUSDT"] {
            let windows = windows(symbol, rows["events"])
            #expect(windows.count > 3, "\(symbol) lost its book and got it back")
            let orders = rows["quotes"].filter { $0.text("symbol") == symbol }
            #expect(orders.count > 10)
            for order in orders {
                // A cancel's row is written up to 10 ms after it; the sandbox may stop for a while, hence the margin.
                let (ended, placed) = (order.integer("ts"), order.integer("ts") - order.integer("resting_ms"))
                let wrong = windows.first { placed < $0.from && min(ended, $0.to) > $0.from + 500 }
                #expect(wrong == nil, "\(symbol): an order from \(placed) to \(ended) in \(String(describing: wrong))")
            }
            for tick in rows["pipeline_ticks"] where tick.text("symbol") == symbol {
                let wrong = windows.first { $0.holds(tick.integer("ts")) }
                #expect(wrong == nil, "\(symbol): a tick at \(tick.integer("ts")) in \(String(describing: wrong))")
            }
        }
    }
}
