import Foundation
import TestSupport
import Testing

/// `--explain-order R-N`: from the printed causes alone the order's queue, its fills and its end can be worked out, and they are its rows'.
@Suite struct ExplainOrderTests {
    private typealias Row = FeedRows.Row

    @Test(arguments: ["conservative", "probabilistic"])
    func recomputingTheQueueFromThePrintedCausesGivesTheFills(model: String) throws {
        try ReplayTests.withRecording(seconds: 60, seed: 5) { directory, recording in
            let settings = [
                "--set", "pipeline.pipeline_sample_rate=1", "--set", "quoting.order_qty=0.3", "--set", "quoting.max_position=30",
                "--set", "paper.queue_model=\(model)", "--set", "paper.latency_jitter_ms=2",
            ]
            _ = try ReplayTests.replay(["--input", recording, "--artifacts", directory] + settings)
            let rows = try FeedRows(directory: directory + "/feeds")
            let fills = Dictionary(grouping: rows["fills"]) { $0.text("order_id")! }
            // The orders with the most fills, and some that never filled.
            let filled = fills.sorted { ($0.value.count, $0.key) > ($1.value.count, $1.key) }.prefix(4).map(\.key)
            let others = rows["quotes"].filter { fills[$0.text("order_id")!] == nil }.map { $0.text("order_id")! }.suffix(2)
            #expect(filled.count == 4 && fills[filled[0]]!.count > 1 && others.count == 2)
            for id in filled + others {
                let summary = try ReplayTests.replay(["--input", recording, "--no-feeds", "--explain-order", id] + settings)
                let story = Row(values: summary["explain_order"] as? [String: Any] ?? [:])
                #expect(story.text("order_id") == id && story.text("queue_model") == model && !story.flag("truncated"))
                try check(story, fills[id] ?? [], rows["quotes"].first { $0.text("order_id") == id }, model)
            }
        }
    }

    private func check(_ story: Row, _ fills: [Row], _ quote: Row?, _ model: String) throws {
        let events = (story.values["events"] as? [[String: Any]] ?? []).map(Row.init)
        let id = story.text("order_id")!
        #expect(events.first?.text("event") == "sent" && events.dropFirst().first?.text("event") == "accepted", "\(id)")
        #expect(events.last?.text("event") == "ended" && events.last?.text("outcome") == quote?.text("outcome"), "\(id)")
        #expect(zip(events, events.dropFirst()).allSatisfy { $0.integer("ts") <= $1.integer("ts") }, "\(id): in the order of time")
        let accepted = events[1]
        #expect(accepted.integer("ts") - events[0].integer("ts") >= 5, "at least the constant latency")
        var ahead = accepted.decimal("queue_ahead").doubleValue
        var displayed = ahead
        var traded = 0.0
        var remaining = accepted.decimal("qty").doubleValue
        let sign = story.text("side") == "BUY" ? 1.0 : -1
        let price = story.decimal("price").doubleValue
        var found: [Row] = []
        for event in events.dropFirst(2) {
            switch event.text("event") {
            case "trade":
                let quantity = event.decimal("qty").doubleValue
                let through = sign * (price - event.decimal("price").doubleValue)
                #expect(event.text("aggressor") == (sign > 0 ? "SELL" : "BUY") && through >= 0)
                near(ahead, event, "queue_before", id)
                let reaching: Double
                if through > 0 {
                    (ahead, reaching) = (0, quantity)
                } else {
                    reaching = quantity - min(ahead, quantity)
                    ahead -= min(ahead, quantity)
                    traded = min(displayed, traded + quantity)
                }
                near(ahead, event, "queue_after", id)
                near(min(reaching, remaining), event, "filled", id)
            case "book":
                let now = event.decimal("displayed").doubleValue
                near(displayed, event, "displayed_before", id)
                near(traded, event, "traded_since", id)
                // A cross of the other side leaves the display as it was, and nobody ahead.
                if now == displayed, traded == 0, event.decimal("queue_after").doubleValue == 0 {
                    ahead = 0
                } else {
                    let level = max(displayed - traded, ahead)
                    let cancelled = displayed - traded - now
                    if model == "probabilistic", cancelled > 0, level > 0 { ahead -= cancelled * ahead / level }
                    ahead = min(ahead, now)
                    (displayed, traded) = (now, 0)
                }
                near(ahead, event, "queue_after", id)
                ahead = event.decimal("queue_after").doubleValue  // Whole lots: what is carried of a lot is not printed.
            case "fill":
                remaining -= event.decimal("qty").doubleValue
                near(remaining, event, "remaining", id)
                #expect(event.decimal("qty").compare(event.decimal("cause_qty")) != .orderedDescending)
                #expect(sign * (price - event.decimal("cause_price").doubleValue) >= 0, "\(id): a cause at or through our price")
                found.append(event)
            case "replace_sent", "cancel_sent", "ended": break
            default: Issue.record("\(id): \(event.text("event") ?? "no event")")
            }
        }
        #expect(found.map { $0.integer("fill_id") } == fills.map { $0.integer("fill_id") }, "\(id)")
        for (event, fill) in zip(found, fills) {
            #expect(event.decimal("qty") == fill.decimal("qty") && event.decimal("price") == fill.decimal("price"))
            #expect(event.decimal("queue_before") == fill.decimal("queue_pos_est") && event.integer("ts") == fill.integer("ts"))
        }
    }

    private func near(_ value: Double, _ event: Row, _ key: String, _ id: String) {
        // A lot of 0.001 may be carried.
        #expect((event.decimal(key).doubleValue - value).magnitude < 0.0021, "\(id): \(key) is \(event.decimal(key)), worked out \(value)")
    }

    @Test func anOrderThatWasNeverSent_andWhatIsNoID_areNamed() throws {
        try ReplayTests.withRecording(seconds: 5) { _, recording in
            let arguments = ["replay", "--venue", "binance-usdm", "--input", recording, "--no-feeds", "--explain-order"]
            let unknown = try Binaries.run("edge-node", arguments + ["1-999999"])
            #expect(unknown.status == 2 && unknown.standardError.contains("1-999999 was not sent; the run sent"))
            for text in ["57", "1-", "x-1", "1-0", "0-1", "1-2-3"] {
                let wrong = try Binaries.run("edge-node", arguments + [text])
                #expect(wrong.status == 64 && wrong.standardError.contains("R-N"), "\(text)")
            }
            let table = try Binaries.run("edge-node", arguments + ["7-1"])
            #expect(table.status == 0 && table.standardOutput.contains("order order_id=1-1 symbol=BTCUSDT"))
            #expect(table.standardOutput.contains("accepted") && table.standardOutput.contains("queue_ahead="))
        }
    }
}
