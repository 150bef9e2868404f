import Foundation
import TestSupport
import Testing

/// Experiments on real processes: what a bad candidate does is made by `edge-node-lab`, everything else is what is installed.
@Suite(.serialized) struct ExperimentRunTests {
    private static let hosts = ["edge-a", "edge-b"]
    private static let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
    /// Only what is made late on purpose shall miss, on a busy machine too: a tick that waits for a fresher book is as late as what keeps the
    /// thread busy meanwhile, so none waits. The 25 misses of 50 ticks take 4 s of a lease's 15, and 150 ms are below what guards look at.
    static func settings(deadlineMilliseconds: Int) -> [String] {
        [
            "pipeline.tick_deadline_ms=\(deadlineMilliseconds)", "md_cache.ttl_ms=5000", "md_cache.fresh_ms_for_pricing=5000",
            "md_cache.max_stale_ms=5000", "md_cache.invalidate_on_ws_gap_ms=10000",
        ]
    }
    static let late = ["--busy-b-every", "2", "--busy-us", "150000"]

    @Test func theInstalledEdgeHasNoneOfTheLaboratorysKeys() throws {
        let help = try Binaries.run("edge-node-lab", ["run", "--help"])
        let keys = ["--stretch-b", "--busy-b-every", "--busy-a-every", "--busy-us"]
        #expect(keys.allSatisfy { help.standardOutput.contains($0) })
        for key in keys {
            #expect(try Binaries.run("edge-node", ["run", "--config", "x", key, "1"]).status == 64, "\(key)")
        }
        let strings = try Data(contentsOf: URL(fileURLWithPath: Binaries.path(of: "edge-node")))
        #expect(strings.range(of: Data("busy-us".utf8)) == nil && strings.range(of: Data("no more".utf8)) != nil)
    }

    /// One host's breaker: it latches by itself, the hub takes the other host back, the report says why.
    @Test func aCandidateThatMissesDeadlinesIsTakenBackEverywhere() throws {
        let fleet = try Self.fleet("late-1", edgeA: Self.late)
        let spec = try fleet.json(["experiment", "start", "late-1", "--reason", "test"]).object("experiment")
        let onB = Set(spec.values["symbols_b"] as? [String] ?? [])
        let waited = try fleet.waitForDecision("late-1", seconds: 120)
        #expect(waited.status == 2, "\(waited.standardOutput) \(waited.standardError)")
        try fleet.eventually("both hosts have it latched") {
            let commands = try fleet.json(["command", "list"]).objects("commands")
            return commands.count == 1 && commands[0].objects("hosts").allSatisfy { $0.text("state") == "latched" }
        }
        let got = try fleet.json(["experiment", "get", "late-1"])
        #expect(got.text("state") == "rolled_back" && got.object("experiment").text("verdict") == "FAIL")
        let evidence = try #require(got.objects("changes").last).object("evidence")
        #expect(evidence.text("kind") == "deadline_miss" && evidence.text("host") == "edge-a" && evidence.text("scope") == "harm")
        try fleet.eventually("the edge's own event says the same") {
            try fleet.hubctl(["gate", "explain", "late-1"]).status == 0
        }
        let report = try fleet.json(["report", "build", "--experiment", "late-1"])
        #expect((report.values["names"] as? [String] ?? []).count == 3)
        let name = try #require(report.text("name"))
        let pulled = try fleet.hubctl(["report", "pull", name, "--output-dir", fleet.directory + "/reports"])
        #expect(pulled.status == 0, "\(pulled.standardError)")

        for host in Self.hosts { #expect(fleet.stop(host) == 0) }
        let at = try fleet.expectBreaker("edge-a", kind: "deadline_miss")
        for host in Self.hosts {
            try fleet.expectEnd(of: "late-1", on: host, why: host == "edge-a" ? "breaker" : "latch", symbols: onB, after: at)
        }
    }

    /// A breaker that nobody hears: the hub comes back, learns of the latch, and takes the other host back.
    @Test func aHubThatWasAwayLearnsOfTheLatch() throws {
        let fleet = try Self.fleet("late-2", edgeA: Self.late)
        _ = try fleet.json(["experiment", "start", "late-2", "--reason", "test"])
        func events(_ kind: String) throws -> [FeedRows.Row] { try fleet.feeds("edge-a")["events"].filter { $0.text("event") == kind } }
        try fleet.eventually("edge-a plays B") { try events("arm_change").contains { $0.object("detail").text("to") == "B" } }
        try fleet.restartHub {
            try fleet.eventually("the breaker trips without a hub") { try !events("breaker").isEmpty }
        }
        try fleet.eventually("both hosts have it latched") {
            let commands = try fleet.json(["command", "list"]).objects("commands")
            return commands.count == 1 && commands[0].objects("hosts").count == 2
                && commands[0].objects("hosts").allSatisfy { $0.text("state") == "latched" }
        }
        let got = try fleet.json(["experiment", "get", "late-2"])
        #expect(got.text("state") == "rolled_back", "\(got.values)")
        for host in Self.hosts { #expect(fleet.stop(host) == 0) }
        _ = try fleet.expectBreaker("edge-a", kind: "deadline_miss")
    }

    /// One disk at a time: the hub says what an edge forgot, and edges what the hub did. Nobody plays B of it again, nor uses its name.
    @Test func aRollbackOutlivesAnEdgesDisk_andTheHubs() throws {
        let fleet = try Self.fleet("gone-1", edgeA: Self.late)
        _ = try fleet.json(["experiment", "start", "gone-1", "--reason", "test"])
        let waited = try fleet.waitForDecision("gone-1", seconds: 120)
        #expect(waited.status == 2, "\(waited.standardOutput) \(waited.standardError)")
        func connected() throws -> Bool {
            try fleet.json(["host", "list"]).objects("hosts").filter { $0.text("state") == "connected" }.count == 2
        }
        func again() throws -> Binaries.Outcome {
            try fleet.hubctl([
                "experiment", "create", "--id", "gone-1", "--design", "symbol", "--candidate", "spread.base_bps=1.1", "--reason", "test",
            ])
        }
        try fleet.eventually("both hosts have it latched") {
            let commands = try fleet.json(["command", "list"]).objects("commands")
            return commands.count == 1 && commands[0].objects("hosts").allSatisfy { $0.text("state") == "latched" }
        }

        #expect(fleet.stop("edge-b") == 0)
        try FileManager.default.removeItem(atPath: "\(fleet.directory)/edge/edge-b")
        try fleet.start("edge-b", settings: Self.settings(deadlineMilliseconds: 100))
        try fleet.eventually("the new edge-b ticks") { try connected() && fleet.feeds("edge-b")["pipeline_ticks"].count > 20 }
        #expect(try again().status == 1)

        let told = try fleet.feeds("edge-a")["pipeline_ticks"].count
        try fleet.restartHub { try FileManager.default.removeItem(atPath: fleet.directory + "/hub") }
        try fleet.eventually("both have found the new hub, and tick") {
            try connected() && fleet.feeds("edge-a")["pipeline_ticks"].count > told + 20
        }
        #expect(try fleet.json(["experiment", "list"]).objects("experiments").isEmpty)
        let refused = try again()
        #expect(refused.status == 1 && refused.standardError.contains("has been used before"), "\(refused.standardError)")
        for host in Self.hosts { #expect(fleet.stop(host) == 0) }
        #expect(try !fleet.feeds("edge-b")["pipeline_ticks"].contains { $0.text("arm") == "B" })
        let late = try fleet.feeds("edge-a")["pipeline_ticks"].dropFirst(told)
        #expect(!late.contains { $0.text("arm") == "B" })
    }

    /// Nobody renews the leases: both edges are on A when theirs have run out, and play B again once the hub is back.
    @Test func withoutAHubBEndsWithItsLease_andGoesOnBehindIt() throws {
        let fleet = try Self.fleet("away-1", edgeA: [])
        _ = try fleet.json(["experiment", "start", "away-1", "--reason", "test"])
        func changes(_ host: String) throws -> [(to: String, why: String)] {
            try fleet.feeds(host)["events"].filter { $0.text("event") == "arm_change" }.map {
                ($0.object("detail").text("to") ?? "", $0.object("detail").text("why") ?? "")
            }
        }
        func all(_ holds: ([(to: String, why: String)]) -> Bool) throws -> Bool { try Self.hosts.allSatisfy { holds(try changes($0)) } }
        try fleet.eventually("both play B") { try all { $0.last?.to == "B" } }
        try fleet.restartHub {
            try fleet.eventually("both play A again") { try all { $0.last?.to == "A" && $0.last?.why == "lease" } }
        }
        try fleet.eventually("both play B once more") { try all { $0.last?.to == "B" && $0.last?.why == "schedule" } }
        #expect(try fleet.json(["experiment", "get", "away-1"]).text("state") == "online")
        for host in Self.hosts { #expect(fleet.stop(host) == 0) }
    }

    /// Both arms are late: nobody's fault, so nothing is latched, the hub pauses, and an operator goes on. Three symbols on A are ticks enough to
    /// compare with.
    @Test func anEnvironmentThatIsBadForBothPauses_andStartsAgain() throws {
        let busy = ["--busy-a-every", "3", "--busy-b-every", "3", "--busy-us", "20000"]
        let fleet = try Self.fleet("both-1", edgeA: busy, deadlineMilliseconds: 15, ["--split", "0.25"])
        _ = try fleet.json(["experiment", "start", "both-1", "--reason", "test"])
        func changes() throws -> [FeedRows.Row] { try fleet.json(["experiment", "get", "both-1"]).objects("changes") }
        try fleet.eventually("the hub pauses it") { try changes().last?.text("state") == "paused" }
        let evidence = try #require(try changes().last).object("evidence")
        #expect(evidence.text("scope") == "environment" && evidence.text("host") == "edge-a", "\(evidence.values)")
        _ = try fleet.json(["experiment", "start", "both-1", "--reason", "again"])
        // It may be paused anew by now.
        let states = try changes().compactMap { $0.text("state") }
        let pause = try #require(states.firstIndex(of: "paused"))
        #expect(states[pause...].contains("online"), "\(states)")
        #expect(try fleet.json(["command", "list"]).objects("commands").isEmpty)
        for host in Self.hosts {
            #expect(fleet.stop(host) == 0)
            let latches = FileManager.default.contents(atPath: "\(fleet.directory)/edge/\(host)/latches.jsonl") ?? Data()
            #expect(latches.isEmpty, "\(host)")
        }
    }

    /// Two connected hosts, the first of which is the laboratory's, and a draft.
    private static func fleet(
        _ id: String, edgeA laboratory: [String], deadlineMilliseconds: Int = 100, _ more: [String] = []
    ) throws -> FleetRig {
        let fleet = try FleetRig(hosts: hosts, symbols: symbols)
        let settings = Self.settings(deadlineMilliseconds: deadlineMilliseconds)
        try fleet.start("edge-a", laboratory: laboratory, settings: settings)
        try fleet.start("edge-b", settings: settings)
        try fleet.eventually("both edges are connected") {
            try fleet.json(["host", "list"]).objects("hosts").filter { $0.text("state") == "connected" }.count == 2
        }
        _ = try fleet.json(
            ["experiment", "create", "--id", id, "--design", "symbol", "--candidate", "spread.base_bps=1.1", "--reason", "test"] + more)
        return fleet
    }
}

extension FleetRig {
    /// One breaker tripped on the host; when, by its clock.
    func expectBreaker(_ host: String, kind: String) throws -> Int {
        let tripped = try feeds(host)["events"].filter { $0.text("event") == "breaker" }
        #expect(tripped.count == 1 && tripped[0].object("detail").text("kind") == kind)
        return tripped.first?.integer("ts") ?? 0
    }

    /// Behind the event (all clocks are this machine's) the host plays A, its orders of B cancelled first: none of them, and no tick of B, is later
    /// than the change of its symbol. How long behind is the machine's business, as long as it is not the lease's.
    func expectEnd(of experiment: String, on host: String, why: String, symbols: Set<String>, after at: Int) throws {
        let rows = try feeds(host)
        let ends = rows["events"].filter {
            $0.text("event") == "arm_change" && $0.object("detail").text("from") == "B" && $0.object("detail").text("why") == why
                && $0.object("detail").text("experiment") == experiment
        }
        #expect(Set(ends.compactMap { $0.text("symbol") }) == symbols, "\(host)")
        for end in ends {
            let (symbol, ts) = (end.text("symbol"), end.integer("ts"))
            #expect((0...10_000).contains(ts - at), "\(host) \(symbol ?? "?") plays A \(ts - at) ms after the breaker")
            for feed in ["pipeline_ticks", "quotes"] {
                let late = rows[feed].filter {
                    $0.text("symbol") == symbol && $0.text("experiment") == experiment && $0.text("arm") == "B" && $0.integer("ts") > ts
                }
                #expect(late.isEmpty, "\(host) \(feed) of B behind the end of \(symbol ?? "?")")
            }
        }
    }
}
