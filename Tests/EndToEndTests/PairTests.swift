import Foundation
import TestSupport
import Testing

/// The pair over real sockets: exchange, two edges, hub, `hubctl`. One run, looked at from all sides.
@Suite(.serialized) struct PairTests {
    private typealias Row = FeedRows.Row
    private static let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]

    @Test func theLoop_rollback_kill_andTheHubsCopy() throws {
        let fleet = try FleetRig(hosts: ["edge-a", "edge-b"], symbols: Self.symbols)
        let hosts = ["edge-a", "edge-b"]
        for host in hosts { try fleet.start(host) }

        // Both connect, quote, and the hub stores what they log.
        try fleet.eventually("both edges are connected") {
            let list = try fleet.json(["host", "list"]).objects("hosts")
            return list.count == 2 && list.allSatisfy { $0.text("state") == "connected" }
        }

        try orderParameters(fleet)

        // An experiment puts half the symbols on B, and takes them back.
        _ = try fleet.json([
            "experiment", "create", "--id", "narrow-1", "--design", "symbol", "--split", "0.5", "--candidate", "spread.base_bps=0.8",
            "--reason", "test",
        ])
        let created = try fleet.json(["experiment", "start", "narrow-1", "--reason", "test"]).object("experiment")
        let onB = Set(created.values["symbols_b"] as? [String] ?? [])
        #expect(onB.count == 2)
        for host in hosts {
            try fleet.eventually("\(host) plays B for every symbol of B") {
                let rows = try fleet.feeds(host)["pipeline_ticks"].filter { $0.text("arm") == "B" }
                return Set(rows.compactMap { $0.text("symbol") }) == onB
            }
        }
        let rollback = try fleet.json(["experiment", "rollback", "narrow-1", "--reason", "test"])
        let taken = rollback.objects("hosts")
        #expect(taken.map { $0.text("host") } == hosts)
        #expect(taken.allSatisfy { $0.text("state") == "latched" && $0.optional("applied_ms") != nil })
        let again = try fleet.json(["experiment", "rollback", "narrow-1", "--reason", "once more"])
        #expect(again.text("command") == rollback.text("command"))

        // Each quotes on, on A, and the event says why.
        for (host, delivery) in zip(hosts, taken) {
            try fleet.eventually("\(host) quotes on, on A") {
                let after = try fleet.feeds(host)["pipeline_ticks"].filter { $0.integer("ts") > delivery.integer("edge_applied_at_ms") }
                return onB.isSubset(of: after.filter { $0.text("arm") == "A" }.compactMap { $0.text("symbol") })
            }
            let changes = try fleet.feeds(host)["events"].filter {
                $0.text("event") == "arm_change" && $0.object("detail").text("from") == "B"
            }
            #expect(changes.count == 2 && changes.allSatisfy { $0.object("detail").text("why") == "latch" })
        }

        // The kill switch: everywhere, latched over a restart; a second operator releases.
        let killed = try fleet.json(["kill", "--all", "--reason", "test"]).objects("hosts")
        #expect(killed.count == 2 && killed.allSatisfy { $0.text("state") == "latched" })
        #expect(fleet.stop("edge-b") == 0)
        try fleet.start("edge-b")
        try fleet.eventually("edge-b is back, killed") {
            let host = try fleet.json(["host", "list"]).objects("hosts").first { $0.text("host") == "edge-b" }
            return host?.text("state") == "connected" && host?.flag("killed") == true
        }
        let own = try fleet.hubctl(["kill", "--release", "--all", "--reason", "test"])
        #expect(own.status == 4, "\(own.standardError)")
        try fleet.eventually("edge-b ticks, halted") { try fleet.feeds("edge-b")["pipeline_ticks"].last?.flag("halted") == true }
        let beforeRelease = try fleet.feeds("edge-b")
        _ = try fleet.json(["kill", "--release", "--all", "--reason", "test"], as: "bob")
        try fleet.eventually("edge-b quotes again") {
            try fleet.feeds("edge-b")["pipeline_ticks"].last.map { !$0.flag("halted") } == true
        }

        for host in hosts { #expect(fleet.stop(host) == 0, "\(fleet.edges[host]!.standardError)") }
        for (host, delivery) in zip(hosts, taken) {
            try checkArms(try fleet.feeds(host), onB, appliedAt: delivery.integer("edge_applied_at_ms"))
        }
        try checkKilled(beforeRelease)
        for host in hosts { try checkCopy(fleet, host) }
        try checkDataset(fleet)
    }

    /// Both edges quote wider from one tick to the next; what one of them cannot take, it refuses whole.
    private func orderParameters(_ fleet: FleetRig) throws {
        let set = ["parameters", "set", "--reason", "test"]
        func before(_ host: String) throws -> String? { try fleet.feeds(host)["pipeline_ticks"].last?.text("config_hash") }
        try fleet.eventually("both tick") { try before("edge-a") != nil && before("edge-b") != nil }
        let (old, open) = (try before("edge-a"), try fleet.feeds("edge-a")["events"].count { $0.text("event") == "started" })
        let hosts = try fleet.json(set + ["--all", "spread.base_bps=1.3", "guards.halt_ms=1500"]).objects("hosts")
        #expect(hosts.count == 2 && hosts.allSatisfy { $0.text("state") == "latched" && $0.optional("applied_ms") != nil })
        try fleet.eventually("edge-a ticks with the new parameters") { try before("edge-a").map { $0 != old } == true }
        #expect(try fleet.feeds("edge-a")["events"].count { $0.text("event") == "started" } == open, "without a restart")
        #expect(fleet.edges["edge-a"]!.standardError.contains("spread.base_bps=1.3"))
        for (change, why) in [
            ("limits.position=0.5", "hard limit"), ("venue.depth=200", "restart"), ("spread.base_bps=wide", "not"),
            ("nonsense=1", "unknown"),
        ] {
            let refused = try fleet.hubctl(set + ["--host", "edge-a", "guards.halt_ms=1400", change])
            #expect(refused.status == 1 && refused.standardError.contains(why), "\(change): \(refused.standardError)")
        }
        #expect(!fleet.edges["edge-a"]!.standardError.contains("halt_ms=1400"), "nothing of a refused order takes effect")
        // After a restart, too; and an empty value gives a key back.
        let wanted = try before("edge-b")
        #expect(fleet.stop("edge-b") == 0)
        try fleet.start("edge-b")
        try fleet.eventually("edge-b quotes as before its restart") {
            let rows = try fleet.feeds("edge-b")
            let started = rows["events"].filter { $0.text("event") == "started" }
            guard started.count == 2, let tick = rows["pipeline_ticks"].last else { return false }
            return tick.integer("ts") > started[1].integer("ts") && tick.text("config_hash") == wanted
        }
        _ = try fleet.json(set + ["--all", "spread.base_bps=", "guards.halt_ms="])
        try fleet.eventually("edge-a is back at its configuration") { try before("edge-a") == old }
    }

    /// B before the applied instant; after it no tick and no quote of B, only what follows from B's fills.
    private func checkArms(_ rows: FeedRows, _ onB: Set<String>, appliedAt: Int) throws {
        let ofB = { (row: Row) in row.text("arm") == "B" }
        let snapshots = rows["feature_snapshots"].filter(ofB)
        #expect(Set(snapshots.filter { $0.integer("ts") <= appliedAt }.compactMap { $0.text("symbol") }) == onB)
        for row in snapshots where row.integer("ts") > appliedAt {
            #expect(row.object("counts").integer("ticks") == 0 && row.object("counts").integer("quotes") == 0)
        }
        #expect(rows["pipeline_ticks"].filter(ofB).allSatisfy { $0.integer("ts") <= appliedAt })
        for feed in ["pipeline_ticks", "feature_snapshots", "fills", "quotes", "markouts"] {
            for row in rows[feed].filter(ofB) {
                #expect(row.text("experiment") == "narrow-1" && row.text("arm_why") == "schedule" && onB.contains(row.text("symbol") ?? ""))
            }
        }
    }

    /// From the kill on every tick is halted and no order is accepted.
    private func checkKilled(_ rows: FeedRows) throws {
        let kill = try #require(rows["events"].first { $0.text("event") == "kill" })
        let after = rows["pipeline_ticks"].filter { $0.integer("ts") > kill.integer("ts") }
        #expect(!after.isEmpty && after.allSatisfy { $0.flag("halted") })
        for row in rows["feature_snapshots"] where row.integer("from_ts") > kill.integer("ts") {
            #expect(row.object("counts").integer("quotes") == 0)
        }
    }

    /// The hub's files are the edge's bytes.
    private func checkCopy(_ fleet: FleetRig, _ host: String) throws {
        let source = "\(fleet.directory)/edge/\(host)/feeds"
        let copy = "\(fleet.directory)/hub/feeds/host=\(host)"
        let names = try FileManager.default.contentsOfDirectory(atPath: source).filter { $0.hasSuffix(".jsonl") }
        #expect(Set(names.map { String($0.prefix { $0 != "." }.dropLast(9)) }).count == 6, "\(names)")
        for name in names {
            let written = try Data(contentsOf: URL(fileURLWithPath: "\(source)/\(name)"))
            let stored = try Data(contentsOf: URL(fileURLWithPath: "\(copy)/\(name)"))
            #expect(!stored.isEmpty && written.starts(with: stored), "\(host)/\(name)")
        }
    }

    /// The hub's dataset, pulled, is the one built offline from the same files.
    private func checkDataset(_ fleet: FleetRig) throws {
        let range = ["--from-ts", day(-86_400), "--to-ts", day(2 * 86_400), "--interval-sec", "3600", "--arm", "all"]
        let built = try fleet.json(["dataset", "build"] + range)
        let name = try #require(built.text("name"))
        let pulled = try fleet.hubctl(["dataset", "pull", name, "--output-dir", fleet.directory + "/pulled"])
        #expect(pulled.status == 0, "\(pulled.standardError)")
        let offline = try Binaries.run(
            "hubctl",
            ["dataset", "build", "--feeds-dir", fleet.directory + "/hub/feeds", "--output-dir", fleet.directory + "/offline"] + range)
        #expect(offline.status == 0, "\(offline.standardError)")
        let file = name.hasSuffix(".json") ? name : name + ".json"
        #expect(
            try Data(contentsOf: URL(fileURLWithPath: fleet.directory + "/pulled/" + file))
                == Data(contentsOf: URL(fileURLWithPath: fleet.directory + "/offline/" + file)))
        let report = try fleet.json(["report", "build", "--experiment", "narrow-1"]).text("name") ?? ""
        #expect(try fleet.hubctl(["report", "pull", report, "--output-dir", fleet.directory + "/pulled"]).status == 0)
        let text = try String(contentsOfFile: fleet.directory + "/pulled/" + report, encoding: .utf8)
        #expect(text.hasPrefix("# AB Test Report: ") && text.contains("| Slippage BPS |") && text.contains("Bucket B: 2 symbols"))
    }

    /// Midnight UTC today, and so many seconds later.
    private func day(_ seconds: Int) -> String {
        let midnight = Int(Date().timeIntervalSince1970) / 86_400 * 86_400
        return ISO8601DateFormatter().string(from: Date(timeIntervalSince1970: TimeInterval(midnight + seconds)))
    }
}
