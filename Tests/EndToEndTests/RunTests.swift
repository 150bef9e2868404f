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
        #expect(try rig.metric("mm_uplink_connected") == 0)
        #expect(try rig.metric("mm_symbol_assignment_info") == 2)
        #expect(rig.stop() == 0)
        let rows = try rig.rows()
        for feed in ["pipeline_ticks", "quotes", "fills", "markouts", "feature_snapshots", "events"] {
            #expect(rows[feed].map { $0.integer("seq") } == Array(1...max(1, rows[feed].count)), "\(feed) has no gap")
            #expect(rows[feed].allSatisfy { $0.text("source") == "sim" && $0.text("venue") == "sim" && $0.text("host") == "e1" })
        }
        #expect(rows["events"].last?.text("event") == "stopped")
        #expect(rows["fills"].count == rows["markouts"].count)
        #expect(Set(rows["pipeline_ticks"].compactMap { $0.text("symbol") }) == ["BTCUSDT", "ETHUSDT"])
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

    @Test func whatCannotRunSaysWhy() throws {
        let config = Repository.path("config/edge.yaml")
        let symbol = try Binaries.run("edge-node", ["run", "--config", config, "--set", "venue.symbols=NOPEUSDT"])
        #expect(symbol.status == 78 && symbol.standardError.contains("NOPEUSDT"))
        let url = try Binaries.run("edge-node", ["run", "--config", config, "--set", "venue.url=http://x/", "--set", "venue.depth=7"])
        #expect(url.status == 78 && url.standardError.contains("venue.url") && url.standardError.contains("venue.depth"))
        let tls = try Binaries.run("edge-node", ["run", "--config", config, "--set", "hub.enabled=true"])
        #expect(tls.status == 78 && tls.standardError.contains("cert.pem"))
    }
}
