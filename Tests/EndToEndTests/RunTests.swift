import Foundation
import TestSupport
import Testing

/// The edge as a process, over real sockets, without a hub: it quotes, says so, stops well, and obeys its kill switch.
@Suite(.serialized)
struct RunTests {
    @Test func quotesUntilToldToStop_andLeavesWholeFeeds() throws {
        let rig = try EdgeRig()
        try rig.wait(for: "ticks, quotes and fills of both symbols") {
            try rig.metric("mm_ticks_total") ?? 0 > 40 && rig.metric("mm_quotes_total") ?? 0 > 10 && rig.metric("mm_fills_total") ?? 0 > 2
        }
        #expect(try rig.get("/-/ready").status == 200)
        #expect(try rig.get("/-/healthy").status == 200)
        #expect(try rig.get("/nothing").status == 404)
        #expect(try rig.metric("mm_uplink_connected") == nil, "there is no hub")
        #expect(try rig.metric("mm_symbol_assignment_info") == 2)
        rig.edge.signal(SIGHUP)
        try rig.wait(for: "a word about SIGHUP") { rig.edge.standardError.contains("SIGHUP") }
        let second = try rig.edgeNode(["run"])
        #expect(second.status == 1 && second.standardError.contains("another edge-node") && second.standardOutput.isEmpty)
        #expect(rig.stop() == 0)
        let rows = try rig.rows()
        let summary = try Summary(rig.edge.lastLine())
        #expect(summary.integer("fills") == rows["fills"].count && summary.integer("ticks") == rows["pipeline_ticks"].count)
        #expect(summary.integer("sequence_gaps") == 0 && summary.integer("crossed") == 0 && summary.symbols.count == 2)
        #expect((summary.object["feeds"] as? [String: Any])?["directory"] as? String == rig.artifacts + "/feeds")
        for feed in ["pipeline_ticks", "quotes", "fills", "markouts", "feature_snapshots", "events"] {
            #expect(rows[feed].map { $0.integer("seq") } == Array(1...max(1, rows[feed].count)), "\(feed) has no gap")
            #expect(rows[feed].allSatisfy { $0.text("source") == "sim" && $0.text("venue") == "sim" && $0.text("host") == "e1" })
        }
        #expect(rows["events"].last?.text("event") == "stopped")
        #expect(rows["fills"].count == rows["markouts"].count)
        #expect(Set(rows["pipeline_ticks"].compactMap { $0.text("symbol") }) == ["BTCUSDT", "ETHUSDT"])
    }

    /// The limit of the day holds for the day, not for the process: kill -9, and the next start places nothing.
    @Test func aDailyLossOutlivesTheProcess() throws {
        let rig = try EdgeRig(["--set", "limits.daily_loss_host=0.02"])
        let file = rig.artifacts + "/day_result.json"
        try rig.wait(for: "a loss that has reached the limit, on disk") {
            (try? String(contentsOfFile: file, encoding: .utf8))?.contains(#""halted":true"#) == true
        }
        rig.edge.signal(SIGKILL)
        #expect(rig.edge.wait() == 128 + SIGKILL)
        let written = try Summary(String(contentsOfFile: file, encoding: .utf8))
        #expect((written.object["change"] as? NSNumber)?.doubleValue ?? 0 <= -0.02 + 0.0002)

        try rig.startAgain()
        try rig.wait(for: "ticks, halted") { try rig.metric("mm_ticks_total") ?? 0 > 60 }
        #expect(try rig.metric("mm_quotes_total") == 0)
        #expect(rig.edge.standardError.contains("daily loss limit was reached before this start"))
        #expect(rig.stop() == 0)

        // A file that cannot be read is the limit reached; one that is not there is a day without a loss.
        try "{".write(toFile: file, atomically: true, encoding: .utf8)
        try rig.startAgain()
        try rig.wait(for: "ticks, halted") { try rig.metric("mm_ticks_total") ?? 0 > 60 }
        #expect(try rig.metric("mm_quotes_total") == 0)
        #expect(rig.edge.standardError.contains("stop the edge, remove the file"))
        #expect(rig.stop() == 0)
        try FileManager.default.removeItem(atPath: file)
        try rig.startAgain()
        try rig.wait(for: "quotes") { try rig.metric("mm_quotes_total") ?? 0 > 0 }
        #expect(rig.stop() == 0)
    }

    @Test func killFileCancelsEverything_staysOverARestart_andIsLiftedOnTheHostOnly() throws {
        let rig = try EdgeRig()
        try rig.wait(for: "quotes") { try rig.metric("mm_quotes_total") ?? 0 > 4 }
        #expect(FileManager.default.createFile(atPath: rig.artifacts + "/KILL", contents: nil))
        try rig.wait(for: "killed") { try rig.metric("mm_killed") == 2 }
        #expect(rig.stop() == 0)

        var rows = try rig.rows()
        let killed = try #require(rows["events"].first { $0.text("event") == "kill" })
        #expect(killed.object("detail").integer("cancelled_orders") > 0)
        // Order latency is 5 ms; the edge lets time pass each 10 ms. The sandbox may stop for a while, hence the margin.
        #expect(rows["quotes"].allSatisfy { $0.integer("ts") <= killed.integer("ts") + 500 })
        let quotesBefore = rows["quotes"].count
        #expect(try String(contentsOfFile: rig.artifacts + "/kills.jsonl", encoding: .utf8).split(separator: "\n").count == 1)

        try rig.startAgain()
        try rig.wait(for: "halted ticks") { try rig.metric("mm_ticks_total") ?? 0 > 40 }
        #expect(try rig.metric("mm_quotes_total") == 0)
        #expect(try rig.metric("mm_killed") == 2)
        let refused = try rig.edgeNode(["kill", "--release", "--symbol", "DOGEUSDT", "--reason", "no such symbol"])
        #expect(refused.status == 2)
        let released = try rig.edgeNode(["kill", "--release", "--reason", "looked into it"])
        #expect(released.status == 0)
        #expect(!FileManager.default.fileExists(atPath: rig.artifacts + "/KILL"))
        try rig.wait(for: "quotes again") { try rig.metric("mm_quotes_total") ?? 0 > 2 }

        // One symbol, by command, while it runs.
        #expect(try rig.edgeNode(["kill", "--symbol", "ETHUSDT", "--reason", "odd fills"]).status == 0)
        try rig.wait(for: "one symbol killed") { try rig.metric("mm_killed") == 1 }
        #expect(rig.stop() == 0)
        rows = try rig.rows()
        #expect(rows["quotes"].count > quotesBefore)
        #expect(rows["events"].contains { $0.text("event") == "release" })
    }

    /// What a crash or a careless hand leaves of `kills.jsonl` is never read as "not killed".
    @Test func damagedKillFileMeansKilled_aReleaseLiftsIt_anUnreadableOneIsNotIgnored() throws {
        let rig = try EdgeRig { directory in
            try FileManager.default.createDirectory(atPath: directory + "/artifacts", withIntermediateDirectories: true)
            try Data("{\"ts\":1,\"action\":\"kil".utf8).write(to: URL(fileURLWithPath: directory + "/artifacts/kills.jsonl"))
            return []
        }
        let file = rig.artifacts + "/kills.jsonl"
        try rig.wait(for: "halted ticks") { try rig.metric("mm_ticks_total") ?? 0 > 20 }
        #expect(try rig.metric("mm_killed") == 2 && rig.metric("mm_quotes_total") == 0)
        #expect(rig.edge.standardError.contains("kills.jsonl cannot be read"))
        #expect(try rig.edgeNode(["kill", "--symbol", "ETHUSDT", "--reason", "another row behind the torn one"]).status == 0)
        #expect(try rig.edgeNode(["kill", "--release", "--symbol", "ETHUSDT", "--reason", "lifts its own only"]).status == 0)
        #expect(try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n").count == 3)
        let ticks = try rig.metric("mm_ticks_total") ?? 0
        try rig.wait(for: "more halted ticks") { try rig.metric("mm_ticks_total") ?? 0 > ticks + 20 }
        #expect(try rig.metric("mm_quotes_total") == 0)
        #expect(try rig.edgeNode(["kill", "--release", "--reason", "looked into it"]).status == 0)
        try rig.wait(for: "quotes") { try rig.metric("mm_quotes_total") ?? 0 > 2 }

        // Gone while it runs: nothing is lifted.
        #expect(try rig.edgeNode(["kill", "--reason", "again"]).status == 0)
        try rig.wait(for: "killed") { try rig.metric("mm_killed") == 2 }
        try FileManager.default.removeItem(atPath: file)
        try rig.wait(for: "a word about it") { rig.edge.standardError.contains("lost rows") }
        #expect(try rig.metric("mm_killed") == 2)
        #expect(try rig.edgeNode(["kill", "--release", "--reason", "again"]).status == 0)
        try rig.wait(for: "released") { try rig.metric("mm_killed") == 0 }

        // It cannot be written or read: the kill is in effect all the same, the log says so without a flood, and a restart is refused.
        try FileManager.default.removeItem(atPath: file)
        try FileManager.default.createDirectory(atPath: file, withIntermediateDirectories: false)
        #expect(FileManager.default.createFile(atPath: rig.artifacts + "/KILL", contents: nil))
        try rig.wait(for: "killed") { try rig.metric("mm_killed") == 2 }
        try rig.wait(for: "the record to be tried again") { rig.edge.standardError.components(separatedBy: "cannot be recorded").count > 2 }
        #expect(rig.edge.standardError.components(separatedBy: "what was killed stays killed").count <= 4)
        #expect(rig.stop() == 0)
        #expect(throws: LiveProcess.NotReady.self) { try rig.startAgain() }
    }

    @Test func killFileThatIsThereBeforeTheStart_isObeyedBeforeTheFirstQuote() throws {
        let rig = try EdgeRig { directory in
            try FileManager.default.createDirectory(atPath: directory + "/artifacts", withIntermediateDirectories: true)
            #expect(FileManager.default.createFile(atPath: directory + "/artifacts/KILL", contents: nil))
            return []
        }
        try rig.wait(for: "halted ticks") { try rig.metric("mm_ticks_total") ?? 0 > 10 }
        #expect(rig.stop() == 0)
        let rows = try rig.rows()
        #expect(rows["quotes"].isEmpty)
        let events = rows["events"].compactMap { $0.text("event") }
        #expect(events.prefix(2) == ["started", "kill"], "before the first book")
    }

    @Test func venueThatDiesIsReconnected_oneThatHangsIsGivenUpOnce_nothingIsQuotedMeanwhile() throws {
        let rig = try EdgeRig()
        func quotes() throws -> Double { try rig.metric("mm_quotes_total") ?? 0 }
        try rig.wait(for: "quotes") { try quotes() > 4 }
        try rig.restartVenue {
            try rig.wait(for: "not ready") { try rig.get("/-/ready").status == 503 }
            try rig.wait(for: "attempts") { rig.edge.standardError.components(separatedBy: "cannot be reached").count > 2 }
        }
        try rig.wait(for: "ready again") { try rig.get("/-/ready").status == 200 }
        let before = try quotes()
        try rig.wait(for: "quotes again") { try quotes() > before + 4 }

        rig.venue.signal(SIGSTOP)
        try rig.wait(for: "given up") { rig.edge.standardError.contains("says nothing any more") }
        rig.venue.signal(SIGCONT)
        try rig.wait(for: "ready after the pause") { try rig.get("/-/ready").status == 200 }
        let after = try quotes()
        try rig.wait(for: "quotes after the pause") { try quotes() > after + 4 }
        #expect(rig.edge.standardError.components(separatedBy: "says nothing any more").count == 2)
        #expect(rig.stop() == 0)
        let rows = try rig.rows()
        let lost = rows["events"].filter { $0.text("event") == "disconnected" }.map { $0.integer("ts") }
        let found = rows["events"].filter { $0.text("event") == "resync" }.map { $0.integer("ts") }
        #expect(lost.count == 2)
        for end in lost {
            let again = found.first { $0 > end } ?? .max
            // Order latency is 5 ms, and what was placed before rests no longer than that.
            #expect(!rows["pipeline_ticks"].contains { (end + 1..<again).contains($0.integer("ts")) })
        }
    }

    /// A request is taken whole or not at all: one symbol that the venue does not have must not silence the others.
    @Test func symbolThatTheVenueDoesNotHave_leavesTheOthersQuoted() throws {
        let rig = try EdgeRig(["--set", "venue.symbols=BTCUSDT,SOLUSDT,ETHUSDT"])
        try rig.wait(for: "fills of those it has") { try rig.metric("mm_fills_total") ?? 0 > 2 }
        #expect(rig.edge.standardError.contains("refused a subscription"))
        #expect(try rig.get("/-/ready").status == 503)
        #expect(rig.stop() == 0)
        #expect(Set(try rig.rows()["fills"].compactMap { $0.text("symbol") }).isSubset(of: ["BTCUSDT", "ETHUSDT"]))
    }

    /// The same frames through the venue's socket and from the file: the same books.
    @Test(.enabled(if: Recordings.bybitIsHere, Comment(rawValue: Recordings.absence)), arguments: ["max", "20"])
    func recordingThroughASocketEndsAsItsReplay(speed: String) throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let config = ["--config", Repository.path("config/edge.yaml"), "--set", "artifacts_dir=\(directory)"]
        let replayed = try Binaries.run(
            "edge-node", ["replay", "--venue", "bybit", "--input", Recordings.bybit, "--no-feeds", "-o", "json"] + config)
        let expected = try Summary(replayed.standardOutput)

        let venue = try LiveProcess(
            "calib-lab",
            ["venue", "--wire", "bybit", "--replay", Recordings.bybit, "--speed", speed, "--once", "--listen", "127.0.0.1:0"])
        let address = try EdgeRig.member("listening", of: venue.firstLine)
        let edge = try LiveProcess(
            "edge-node",
            ["run"] + config + [
                "--set", "venue.name=bybit", "--set", "venue.depth=200", "--set", "venue.url=ws://\(address)/v5/public/linear", "--set",
                "metrics.listen=127.0.0.1:0",
                "--set", "venue.symbols=BTCUSDT,ETHUSDT,SOLUSDT,DOGEUSDT",
            ])
        // Its goodbye stands behind the last frame, and the edge answers it.
        #expect(venue.wait(deadline: 60) == 0)
        edge.signal(SIGTERM)
        #expect(edge.wait() == 0)
        let live = try Summary(edge.lastLine())
        #expect(Set(live.object.keys) == Set(expected.object.keys) && (live.object["rejected"] as? [String: Any])?.isEmpty == true)
        for key in ["sequence_gaps", "crossed", "unsynced_messages", "refused_requests"] { #expect(live.integer(key) == 0, "\(key)") }
        for key in ["depth_messages", "snapshots", "trades", "ticks"] {
            #expect(live.integer(key) == expected.integer(key) && live.integer(key) ?? 0 > 0, "\(key)")
        }
        #expect(live.integer("quotes") ?? 0 > 0)
        let pairs = expected.symbols.map { symbol in (symbol, live.symbols.first { $0["symbol"] as? String == symbol["symbol"] as? String })
        }
        #expect(pairs.count == 4)
        for (symbol, found) in pairs {
            for key in ["best_bid", "best_ask", "depth_messages", "trades", "tick_size"] {
                let (value, other) = (symbol[key] as? NSNumber, found?[key] as? NSNumber)
                #expect(value != nil && value == other, "\(symbol["symbol"] ?? "?") \(key)")
            }
        }
    }

    private struct Summary {
        var object: [String: Any]
        init(_ line: String?) throws {
            object = try #require(try JSONSerialization.jsonObject(with: Data((line ?? "").utf8)) as? [String: Any])
        }
        func integer(_ key: String) -> Int? { (object[key] as? NSNumber)?.intValue }
        var symbols: [[String: Any]] { object["symbols"] as? [[String: Any]] ?? [] }
    }

    @Test func whatCannotRunSaysWhy() throws {
        let config = Repository.path("config/edge.yaml")
        // Nobody listens on port 1; an instrument that no file names is asked for at the venue.
        let symbol = try Binaries.run(
            "edge-node",
            [
                "run", "--config", config, "--set", "venue.symbols=NOPEUSDT", "--set", "venue.url=ws://127.0.0.1:1/v5/public/linear",
            ])
        #expect(symbol.status == 1 && symbol.standardError.contains("asked for NOPEUSDT"), "\(symbol)")
        let url = try Binaries.run("edge-node", ["run", "--config", config, "--set", "venue.url=http://x/", "--set", "venue.depth=7"])
        #expect(url.status == 78 && url.standardError.contains("venue.url") && url.standardError.contains("venue.depth"))
        let tls = try Binaries.run("edge-node", ["run", "--config", config, "--set", "hub.enabled=true"])
        #expect(tls.status == 78 && tls.standardError.contains("cert.pem"))
    }
}
