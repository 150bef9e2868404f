import Foundation
import NodeShell
import TestSupport
import Testing

/// The real Bybit recording through `edge-node replay`, against a stranger's reading of it: Foundation's JSON, a dictionary per side.
@Suite struct BybitReplayTests {
    /// What the venue's documentation says the frames of one category amount to.
    struct Reference {
        struct Symbol {
            var bids: [Decimal: Decimal] = [:]
            var asks: [Decimal: Decimal] = [:]
            var update: Int?
            var deltas = 0
            var snapshots = 0
            var trades = 0
        }

        var frames = 0
        var symbols: [String: Symbol] = [:]
        var chainBreaks = 0
        var crossed = 0
        var tradesInside = 0

        init(lines: [String], connection: String) throws {
            // Trades and books are told 100 ms apart: a trade is judged by the sequence the engine gave both.
            var tops: [String: [(sequence: Int, bid: Decimal, ask: Decimal)]] = [:]
            var trades: [(symbol: String, sequence: Int, price: Decimal, isBuy: Bool)] = []
            for line in lines {
                let outer = try Self.object(line)
                guard outer["t"] as? String == "recv" else { continue }
                frames += 1
                guard outer["conn"] as? String == connection, let text = outer["data"] as? String else { continue }
                let frame = try Self.object(text)
                let topic = frame["topic"] as? String ?? ""
                if topic.hasPrefix("orderbook."), let data = frame["data"] as? [String: Any], let name = data["s"] as? String {
                    var symbol = symbols[name] ?? Symbol()
                    let update = data["u"] as? Int ?? -1
                    if frame["type"] as? String == "snapshot" {
                        symbol.snapshots += 1
                        (symbol.bids, symbol.asks) = ([:], [:])
                    } else {
                        symbol.deltas += 1
                        if symbol.update.map({ $0 + 1 }) != update { chainBreaks += 1 }
                    }
                    symbol.update = update
                    Self.apply(data["b"], to: &symbol.bids)
                    Self.apply(data["a"], to: &symbol.asks)
                    let (bid, ask) = (symbol.bids.keys.max()!, symbol.asks.keys.min()!)
                    if bid >= ask { crossed += 1 }
                    tops[name, default: []].append((data["seq"] as? Int ?? -1, bid, ask))
                    symbols[name] = symbol
                } else if topic.hasPrefix("publicTrade."), let data = frame["data"] as? [[String: Any]] {
                    for trade in data {
                        let name = trade["s"] as? String ?? ""
                        symbols[name, default: Symbol()].trades += 1
                        trades.append(
                            (
                                name, trade["seq"] as? Int ?? -1, Decimal(string: trade["p"] as? String ?? "")!,
                                trade["S"] as? String == "Buy"
                            ))
                    }
                }
            }
            for trade in trades {
                // The last book before the trade, and the first at or behind it: the touch moved somewhere between them.
                let all = tops[trade.symbol] ?? []
                let next = all.firstIndex { $0.sequence >= trade.sequence } ?? all.count
                let around = all[max(0, next - 1)..<min(all.count, next + 1)]
                let isOutside = around.contains { trade.isBuy ? trade.price >= $0.ask : trade.price <= $0.bid }
                if !isOutside { tradesInside += 1 }
            }
        }

        private static func apply(_ levels: Any?, to side: inout [Decimal: Decimal]) {
            for level in levels as? [[String]] ?? [] {
                let (price, quantity) = (Decimal(string: level[0])!, Decimal(string: level[1])!)
                side[price] = quantity == 0 ? nil : quantity
            }
        }

        private static func object(_ text: String) throws -> [String: Any] {
            try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] ?? [:]
        }
    }

    private func number(_ object: [String: Any], _ key: String) -> Int { (object[key] as? NSNumber)?.intValue ?? -1 }

    private func decimal(_ object: [String: Any], _ key: String) -> Decimal? {
        (object[key] as? NSNumber).flatMap { Decimal(string: $0.stringValue) }
    }

    @Test(
        .enabled(if: Recordings.bybitIsHere, Comment(rawValue: Recordings.absence)),
        arguments: [("linear", "BYBIT.ws.2", 4, 327), ("spot", "BYBIT.ws.3", 2, 20)])
    func theRecordingGivesTheBookAStrangerReads(category: String, connection: String, books: Int, trades: Int) throws {
        let reference = try Reference(lines: try ReplayTests.lines(Recordings.bybit), connection: connection)
        #expect(reference.chainBreaks == 0 && reference.crossed == 0 && reference.tradesInside == 0 && reference.symbols.count == books)
        for configuration in [[], ["--config", Repository.path("config/edge.yaml")]] {
            let result = try ReplayTests.replay(
                ["--input", Recordings.bybit, "--no-feeds", "--category", category] + configuration, venue: "bybit")
            #expect(number(result, "messages") == reference.frames && number(result, "trades") == trades)
            for key in ["sequence_gaps", "unsynced_messages", "crossed", "resubscriptions", "refused_requests"] {
                #expect(number(result, key) == 0, "\(key)")
            }
            #expect((result["rejected"] as? [String: Any])?.isEmpty == true && number(result, "ticks") > 0 && number(result, "quotes") > 0)
            let symbols = result["symbols"] as? [[String: Any]] ?? []
            #expect(symbols.count == books)
            for symbol in symbols {
                let name = symbol["symbol"] as? String ?? ""
                let expected = try #require(reference.symbols[name])
                #expect(
                    decimal(symbol, "best_bid") == expected.bids.keys.max() && decimal(symbol, "best_ask") == expected.asks.keys.min(),
                    "\(name)")
                #expect(number(symbol, "depth_messages") == expected.deltas && number(symbol, "trades") == expected.trades, "\(name)")
                #expect(number(symbol, "snapshots") == expected.snapshots && symbol["proven"] as? Bool == true, "\(name)")
            }
        }
    }

    /// The same quotes every time, from the compressed file and from plain text, whatever order the connections' blocks stand in.
    @Test(.enabled(if: Recordings.bybitIsHere, Comment(rawValue: Recordings.absence)))
    func theSameRecordingGivesTheSameQuotes() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let lines = try ReplayTests.lines(Recordings.bybit)
        let plain = directory + "/plain.jsonl"
        try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: plain))
        // Interleaved by receive time, as a recorder that writes at once would.
        let mixed = directory + "/mixed.jsonl"
        let ordered = try lines.enumerated().map { line in
            let object = try JSONSerialization.jsonObject(with: Data(line.element.utf8)) as? [String: Any]
            return (time: (object?["ts"] as? NSNumber)?.doubleValue ?? 0, place: line.offset, text: line.element)
        }.sorted { ($0.time, $0.place) < ($1.time, $1.place) }
        try Data((ordered.map(\.text).joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: mixed))
        for category in ["linear", "spot"] {
            let hashes = try [Recordings.bybit, Recordings.bybit, plain, mixed].map { path in
                try ReplayTests.replay(["--input", path, "--no-feeds", "--category", category], venue: "bybit")["quotes_hash"] as? String
            }
            #expect(hashes[0] != nil && Set(hashes).count == 1, "\(category): \(hashes)")
        }
    }

    /// One delta removed: that gap, a new subscription asked for, and no tick of that symbol behind it.
    @Test(.enabled(if: Recordings.bybitIsHere, Comment(rawValue: Recordings.absence)))
    func aLostDeltaIsOneGap_andNothingIsQuotedBehindIt() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        var lines = try ReplayTests.lines(Recordings.bybit)
        let deltas = lines.indices.filter {
            lines[$0].contains("BYBIT.ws.2") && lines[$0].contains(#"orderbook.200.BTCUSDT\",\"type\":\"delta"#)
        }
        #expect(deltas.count == 413)
        lines.remove(at: deltas[200])
        let path = directory + "/gap.jsonl"
        try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: path))
        let result = try ReplayTests.replay(["--input", path, "--artifacts", directory], venue: "bybit")
        #expect(number(result, "sequence_gaps") == 1 && number(result, "unsynced_messages") == 212)
        // The gap's request, and again each 5 s of the 21 s that follow without a snapshot.
        #expect((4...6).contains(number(result, "resubscriptions")))
        let symbol = try #require((result["symbols"] as? [[String: Any]])?.first { $0["symbol"] as? String == "BTCUSDT" })
        #expect(symbol["proven"] as? Bool == false && number(symbol, "ticks") == 201)
        let events = try FileManager.default.contentsOfDirectory(atPath: directory + "/feeds").filter { $0.hasPrefix("events_") }
            .flatMap { try ReplayTests.lines(directory + "/feeds/" + $0) }
        #expect(events.filter { $0.contains(#""event":"gap","symbol":"BTCUSDT""#) }.count == 1)
    }

    /// A recording made by hand: a reconnect under the old name, escapes in frames, damage, and what is not a frame.
    @Test func recordedDisconnectsUnprove_andSnapshotsProveAgain() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        func line(_ kind: String, _ second: Double, _ frame: String? = nil, address: String? = nil, connection: String = "a") throws
            -> String
        {
            var fields: [String] = [#""t":"\#(kind)""#, #""conn":"\#(connection)""#, #""ts":\#(1_735_689_600 + second)"#]
            if let address { fields.append(#""addr":"\#(address)""#) }
            if let frame {
                let escaped = try JSONSerialization.data(withJSONObject: [frame], options: [.withoutEscapingSlashes])
                fields.append(#""data":\#(String(decoding: escaped, as: UTF8.self).dropFirst().dropLast())"#)
            }
            return "{" + fields.joined(separator: ",") + "}"
        }
        func book(_ type: String, _ update: Int, _ bid: String) -> String {
            #"{"topic":"orderbook.50.BTCUSDT","type":"\#(type)","ts":1735689600000,"data":{"s":"BTCUSDT","b":[["\#(bid)","1.001"]],"a":[["101.0","1"]],"u":\#(update)},"né\n":1}"#
        }
        let lines = try [
            #"{"t":"header","format":2}"#,
            line("connect", 0, address: "ws://127.0.0.1:9/v5/public/linear"),
            line("send", 0.1, #"{"op":"subscribe"}"#, address: "ws://127.0.0.1:9/v5/public/linear"),
            line("recv", 0.2, #"{"success":false,"op":"subscribe"}"#),
            line("recv", 0.3, book("snapshot", 5, "100.0")), line("recv", 0.4, book("delta", 6, "100.1")),
            line("disconnect", 0.5), line("recv", 0.6, book("delta", 7, "100.2")),
            line("recv", 0.7, #"{"topic":"x"}"#, connection: "b"), line("connect", 0.7, address: "ws://h/v5/public/spot", connection: "b"),
            "damage", #"{"t":"recv","conn":"a","ts":1735689600.8,"data":"\ud800"}"#, #"{"t":"recv","conn":"a","data":"{}"}"#,
            line("connect", 1, address: "ws://127.0.0.1:9/v5/public/linear"), line("recv", 1.1, book("snapshot", 20, "100.3")),
            line("recv", 1.2, book("delta", 21, "100.4")), line("connect", 2), line("recv", 2.1, book("delta", 22, "100.5")),
        ]
        let path = directory + "/recording.jsonl"
        try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: path))
        let result = try ReplayTests.replay(["--input", path, "--artifacts", directory], venue: "bybit")
        for (key, expected) in [
            ("messages", 11), ("other_messages", 2), ("refused_requests", 1), ("snapshots", 2), ("depth_messages", 4), ("ticks", 4),
            ("sequence_gaps", 0), ("unsynced_messages", 2),
        ] {
            #expect(number(result, key) == expected, "\(key)")
        }
        #expect((result["rejected"] as? [String: Int]) == ["bad_line": 3])
        #expect((result["symbols"] as? [[String: Any]])?.first?["lot_size"] as? Double == 0.001)
        let file = try #require(FileManager.default.contentsOfDirectory(atPath: directory + "/feeds").first { $0.hasPrefix("events_") })
        let events = try ReplayTests.lines(directory + "/feeds/" + file).map { line in
            try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        }
        #expect(events.map { $0["event"] as? String } == ["started", "resync", "disconnected", "resync", "disconnected", "stopped"])
        #expect((events[2]["detail"] as? [String: Int]) == ["connection": 0, "books": 1] && events[2]["symbol"] is NSNull)
    }

    @Test func categoriesAndVenuesMustAgree() throws {
        for arguments in [["bybit", "inverse"], ["sim", "spot"], ["binance-usdm", "linear"], ["bybit-spot", "linear"]] {
            let outcome = try Binaries.run(
                "edge-node", ["replay", "--venue", arguments[0], "--category", arguments[1], "--input", "/nowhere/file"])
            #expect(outcome.status == 64 && outcome.standardError.contains("--category"), "\(arguments)")
        }
    }

    @Test(.enabled(if: Recordings.bybitIsHere, Comment(rawValue: Recordings.absence)))
    func aTickOfTheRecordingCanBeExplained() throws {
        let result = try ReplayTests.replay(
            ["--input", Recordings.bybit, "--no-feeds", "--explain-tick", "100", "--symbol", "SOLUSDT"], venue: "bybit")
        #expect((result["explain_tick"] as? [String: Any])?.isEmpty == false)
    }
}
