import Foundation
import TestSupport
import Testing

/// Experiments on real processes: what a bad candidate does is made by `edge-node-lab`, everything else is what is installed.
@Suite(.serialized) struct ExperimentRunTests {
    private static let hosts = ["edge-a", "edge-b"]
    private static let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
    /// Of hundreds of ticks a second some take long on a busy machine: only what is made late on purpose shall miss.
    private static let deadline = ["pipeline.tick_deadline_ms=60"]
    private static let late = ["--busy-b-every", "3", "--busy-us", "62000"]

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
        let fleet = try FleetRig(hosts: Self.hosts, symbols: Self.symbols)
        try fleet.start("edge-a", laboratory: Self.late, settings: Self.deadline)
        try fleet.start("edge-b", settings: Self.deadline)
        try fleet.eventually("both edges are connected") {
            try fleet.json(["host", "list"]).objects("hosts").filter { $0.text("state") == "connected" }.count == 2
        }
        _ = try fleet.json([
            "experiment", "create", "--id", "late-1", "--design", "symbol", "--candidate", "spread.base_bps=1.1", "--reason", "test",
        ])
        let spec = try fleet.json(["experiment", "start", "late-1", "--reason", "test"]).object("experiment")
        let onB = Set(spec.values["symbols_b"] as? [String] ?? [])
        let waited = try fleet.hubctl(["wait", "experiment/late-1", "--for=decision", "--timeout", "120"])
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
}

extension FleetRig {
    /// One breaker tripped on the host; when, by its clock.
    func expectBreaker(_ host: String, kind: String) throws -> Int {
        let tripped = try feeds(host)["events"].filter { $0.text("event") == "breaker" }
        #expect(tripped.count == 1 && tripped[0].object("detail").text("kind") == kind)
        return tripped.first?.integer("ts") ?? 0
    }

    /// Within 1 s of the event (the goal; all clocks are this machine's) the host plays A, its orders of B cancelled first: none of them, and no tick of
    /// B, is later than the change of its symbol.
    func expectEnd(of experiment: String, on host: String, why: String, symbols: Set<String>, after at: Int) throws {
        let rows = try feeds(host)
        let ends = rows["events"].filter {
            $0.text("event") == "arm_change" && $0.object("detail").text("from") == "B" && $0.object("detail").text("why") == why
                && $0.object("detail").text("experiment") == experiment
        }
        #expect(Set(ends.compactMap { $0.text("symbol") }) == symbols, "\(host)")
        for end in ends {
            let (symbol, ts) = (end.text("symbol"), end.integer("ts"))
            #expect((0...1_000).contains(ts - at), "\(host) \(symbol ?? "?") plays A \(ts - at) ms after the breaker")
            for feed in ["pipeline_ticks", "quotes"] {
                let late = rows[feed].filter {
                    $0.text("symbol") == symbol && $0.text("experiment") == experiment && $0.text("arm") == "B" && $0.integer("ts") > ts
                }
                #expect(late.isEmpty, "\(host) \(feed) of B behind the end of \(symbol ?? "?")")
            }
        }
    }
}
