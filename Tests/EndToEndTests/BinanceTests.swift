import Foundation
import NodeShell
import TestSupport
import Testing

/// Binance end to end: the laboratory's venue and the real `edge-node`, over sockets.
@Suite(.serialized) struct BinanceTests {
    struct TimedOut: Error, CustomStringConvertible { var description: String }

    private static func wait(for fact: String, _ process: LiveProcess, _ isSo: () throws -> Bool) throws {
        let end = Date(timeIntervalSinceNow: 60)
        while Date() < end {
            if try isSo() { return }
            usleep(20_000)
        }
        throw TimedOut(description: "not within 60 s: \(fact); it said: \(process.standardError.suffix(2000))")
    }

    private static func venue(_ wire: String, _ symbols: String, _ more: [String] = []) throws -> (LiveProcess, address: String) {
        let venue = try LiveProcess(
            "calib-lab", ["venue", "--wire", wire, "--listen", "127.0.0.1:0", "--symbols", symbols, "--seed", "3"] + more)
        return (venue, try EdgeRig.member("listening", of: venue.firstLine))
    }

    private static func object(_ line: String?) throws -> [String: Any] {
        try #require(JSONSerialization.jsonObject(with: Data((line ?? "").utf8)) as? [String: Any])
    }

    /// Old books, a refusal, lost diffs, goodbyes: every book comes back, and what is quoted is quoted on proven books.
    @Test func aLiveEdgeSurvivesGapsAndGoodbyes() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (venue, address) = try Self.venue(
            "binance-usdm", "BTCUSDT,ETHUSDT",
            ["--old-books", "1", "--refuse-books", "1", "--drop-delta-every", "60", "--goodbye-every", "6"])
        let edge = try LiveProcess(
            "edge-node",
            [
                "run", "--config", Repository.path("config/edge.yaml"), "--set", "artifacts_dir=\(directory)", "--set",
                "venue.name=binance-usdm", "--set", "venue.url=ws://\(address)/stream", "--set", "venue.symbols=BTCUSDT,ETHUSDT", "--set",
                "metrics.listen=off",
            ])
        // The books after the second connection.
        try Self.wait(for: "books behind a goodbye and a gap", edge) {
            // A row may be only half there while the edge runs.
            guard let events = try? FeedRows(directory: directory + "/feeds")["events"].map({ $0.text("event") }) else { return false }
            guard let renewed = events.firstIndex(of: "disconnected") else { return false }
            return events.contains("gap") && events[renewed...].count { $0 == "resync" } >= 2
        }
        edge.signal(SIGTERM)
        #expect(edge.wait() == 0)
        let summary = try Self.object(edge.lastLine())
        #expect(summary["crossed"] as? Int == 0 && summary["book_ticker_mismatches"] as? Int == 0)
        #expect(summary["rejected"] as? [String: Int] == [:])
        #expect(try #require(summary["book_ticker_matches"] as? Int) > 0)
        for symbol in try #require(summary["symbols"] as? [[String: Any]]) {
            #expect(try #require(symbol["quotes"] as? Int) > 0, "\(symbol)")
        }
        #expect(edge.standardError.contains("status 429") && edge.standardError.contains("announced its end"))
        venue.signal(SIGTERM)
        #expect(venue.wait() == 0)
    }

    /// Instruments that no file names are the venue's, and asked for again: the tick of one changes while it is quoted.
    @Test func aChangedInstrumentIsNotQuotedAnyMore() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (venue, address) = try Self.venue("binance-usdm", "BTCUSDT,ETHUSDT", ["--change-instrument-after", "1"])
        try "{}\n".write(toFile: directory + "/instruments.yaml", atomically: true, encoding: .utf8)
        let edge = try LiveProcess(
            "edge-node",
            [
                "run", "--config", Repository.path("config/edge.yaml"), "--set", "artifacts_dir=\(directory)", "--set",
                "venue.name=binance-usdm", "--set", "venue.url=ws://\(address)/stream", "--set", "venue.symbols=BTCUSDT,ETHUSDT", "--set",
                "metrics.listen=off", "--set", "instruments_file=\(directory)/instruments.yaml", "--set", "pipeline.pipeline_sample_rate=1",
            ])
        #expect(edge.standardError.contains("Instruments come from the venue"))
        func rows() -> FeedRows? { try? FeedRows(directory: directory + "/feeds") }
        func ordersOf(_ symbol: String) -> Int { rows()?["quotes"].count { $0.text("symbol") == symbol } ?? 0 }
        try Self.wait(for: "orders of both", edge) { ordersOf("BTCUSDT") > 2 && ordersOf("ETHUSDT") > 2 }
        // As each hour, and when it is told to.
        edge.signal(SIGHUP)
        try Self.wait(for: "the halt", edge) { rows()?["events"].contains { $0.text("event") == "halt" } == true }
        let halt = try #require(rows()?["events"].first { $0.text("event") == "halt" })
        #expect(halt.text("symbol") == "BTCUSDT" && halt.object("detail").text("cause") == "instrument", "\(halt)")
        #expect(edge.standardError.contains("has changed an instrument"))
        let before = ordersOf("ETHUSDT")
        try Self.wait(for: "more orders of the other", edge) { ordersOf("ETHUSDT") > before + 5 }
        edge.signal(SIGTERM)
        #expect(edge.wait() == 0)
        // Order latency is 5 ms; the sandbox may stop for a while, hence the margin.
        let last = try #require(rows()?["quotes"].filter { $0.text("symbol") == "BTCUSDT" }.map { $0.integer("ts") }.max())
        #expect(last <= halt.integer("ts") + 500)
        let summary = try Self.object(edge.lastLine())
        let symbols = try #require(summary["symbols"] as? [[String: Any]])
        #expect(symbols.map { $0["proven"] as? Bool } == [false, true])
        venue.signal(SIGTERM)
        #expect(venue.wait() == 0)
    }

    @Test func whatIsRecordedReplaysToTheSameTop() throws {
        let (wire, symbol) = ("binance-spot", "BTCUSDT")
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (venue, address) = try Self.venue(wire, symbol)
        let recorder = try LiveProcess(
            "edge-node",
            [
                "record", "--config", Repository.path("config/edge.yaml"), "--output", directory + "/frames", "--size", "1", "--set",
                "venue.name=\(wire)", "--set", "venue.url=ws://\(address)/stream", "--set", "venue.symbols=\(symbol)",
            ])
        // A MiB of text is about fourteen seconds: the first two files are full.
        try Self.wait(for: "two whole files", recorder) {
            try FileManager.default.contentsOfDirectory(atPath: directory + "/frames").contains { $0.hasSuffix("_0002.gz") }
        }
        recorder.signal(SIGTERM)
        #expect(recorder.wait() == 0)
        venue.signal(SIGTERM)
        #expect(venue.wait() == 0)
        let ended = try Self.object(recorder.lastLine())
        let files = try #require(ended["files"] as? [String]).sorted()
        #expect(files.count == 3)
        let left = try FileManager.default.contentsOfDirectory(atPath: directory + "/frames").map { directory + "/frames/" + $0 }
        #expect(left.sorted() == files, "nothing is left half-written")

        // All as one session, and the second by itself.
        for inputs in [files, [files[1]]] {
            let replayed = try ReplayTests.replay(inputs.flatMap { ["--input", $0] } + ["--no-feeds"], venue: wire)
            if inputs.count == 3 { #expect(replayed["messages"] as? Int64 == ended["messages"] as? Int64) }
            #expect(replayed["sequence_gaps"] as? Int == 0 && replayed["crossed"] as? Int == 0)
            #expect(replayed["book_ticker_mismatches"] as? Int == 0)
            // The last best price that the venue said.
            var last: [String: Any] = [:]
            for file in inputs {
                var input = try LineInput(path: file)
                while let line = try input.next() {
                    let text = String(decoding: line, as: UTF8.self)
                    guard text.contains("@bookTicker"), let brace = text.firstIndex(of: "{") else { continue }
                    last = try Self.object(String(text[brace...]))["data"] as? [String: Any] ?? [:]
                }
            }
            let top = try #require((replayed["symbols"] as? [[String: Any]])?.first)
            #expect(top["proven"] as? Bool == true)
            #expect(
                top["best_bid"] as? Double == Double(last["b"] as? String ?? "")
                    && top["best_ask"] as? Double == Double(last["a"] as? String ?? ""))
        }
    }

    /// COIN-M over midnight, as two files of which the second has no snapshot: one session, with the quotes of the undivided recording.
    @Test func aCoinMRecordingOverMidnightIsOneSession() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let whole = directory + "/whole"
        let made = try Binaries.run(
            "calib-lab",
            [
                "venue", "--wire", "binance-coinm", "--record", whole, "--seed", "5", "--seconds", "30", "--start", "2025-01-01T23:59:45Z",
            ])
        #expect(made.status == 0, "\(made.standardError)")
        let midnight = "1735776000"
        let lines = try String(contentsOfFile: whole, encoding: .utf8).split(separator: "\n", omittingEmptySubsequences: true)
        let days = [directory + "/first", directory + "/second"]
        for (path, isFirst) in zip(days, [true, false]) {
            let part = lines.filter { ($0 < midnight) == isFirst }
            #expect(part.count > 500)
            try (part.joined(separator: "\n") + "\n").write(toFile: path, atomically: true, encoding: .utf8)
        }
        func replay(_ inputs: [String]) throws -> [String: Any] {
            try ReplayTests.replay(inputs.flatMap { ["--input", $0] } + ["--no-feeds"], venue: "binance-coinm")
        }
        let (joined, undivided) = (try replay(days), try replay([whole]))
        for result in [joined, undivided] {
            #expect(result["sequence_gaps"] as? Int == 0 && result["crossed"] as? Int == 0 && result["rejected"] as? [String: Int] == [:])
            #expect(result["book_ticker_mismatches"] as? Int == 0 && result["book_ticker_matches"] as? Int ?? 0 > 20)
            #expect(result["snapshots"] as? Int == 1 && result["quotes"] as? Int ?? 0 > 50)
            let symbol = try #require((result["symbols"] as? [[String: Any]])?.first)
            #expect(
                symbol["symbol"] as? String == "BTCUSD_PERP" && symbol["inferred"] as? Bool == true && symbol["proven"] as? Bool == true)
            #expect(symbol["tick_size"] as? Double == 0.1 && symbol["lot_size"] as? Double == 1)
            let position = try #require(symbol["position"] as? Double)
            #expect(position == position.rounded(), "whole contracts")
        }
        #expect(joined["quotes_hash"] as? String == undivided["quotes_hash"] as? String)
        #expect(joined["best_bid"] as? Double == undivided["best_bid"] as? Double)
    }
}
