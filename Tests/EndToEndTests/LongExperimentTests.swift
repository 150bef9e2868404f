import Foundation
import TestSupport
import Testing

/// An experiment's life at the size of its goals: four edges, 24 symbols, a switchback of 30-s blocks without washout. Equal arms go on; a slower
/// candidate is taken back by its gate, a late one by a breaker. It takes a quarter of an hour, most of which are the six pairs of arm A before T0.
@Suite(
    .serialized,
    .enabled(
        if: ProcessInfo.processInfo.environment["CALIBRANT_EXPERIMENTS"] != nil,
        "SKIPPED: a quarter of an hour; CALIBRANT_EXPERIMENTS=1 runs it"))
struct LongExperimentTests {
    private static let hosts = (1...4).map { "edge-\($0)" }
    private static let symbols = (1...24).map { "SIM\($0)USDT" }

    @Test func equalArmsGoOn_aSlowCandidateIsTakenBackByItsGate_aLateOneByTheBreaker() throws {
        let fleet = try FleetRig(hosts: Self.hosts, symbols: Self.symbols)
        let instruments = Self.symbols.map { "  \($0): {tick: 0.01, lot: 0.01, size_unit: 20}\n" }.joined()
        try Data("sim:\n\(instruments)".utf8).write(to: URL(fileURLWithPath: fleet.directory + "/instruments.yaml"))
        let settings =
            ExperimentRunTests.settings(deadlineMilliseconds: 100) + ["instruments_file=\(fleet.directory)/instruments.yaml"]
        func start(_ laboratory: [String]) throws {
            for host in Self.hosts { try fleet.start(host, laboratory: laboratory, settings: settings) }
            try fleet.eventually("all edges are connected") {
                try fleet.json(["host", "list"]).objects("hosts").filter { $0.text("state") == "connected" }.count == Self.hosts.count
            }
        }
        func begin(_ id: String) throws {
            _ = try fleet.json([
                "experiment", "create", "--id", id, "--block-sec", "30", "--washout-sec", "0", "--candidate", "spread.base_bps=1.0",
                "--reason", "test",
            ])
            _ = try fleet.json(["experiment", "start", id, "--reason", "test"])
        }
        func pairs(_ id: String) throws -> Int { try fleet.json(["experiment", "get", id]).object("assessment").integer("pairs") }

        // The candidate is what A is.
        try start([])
        try begin("equal")
        try fleet.eventually("two pairs of equal arms are settled", seconds: 900) { try pairs("equal") >= 2 }
        let equal = try fleet.json(["experiment", "get", "equal"])
        #expect(equal.text("state") == "online", "\(equal.values)")
        #expect(equal.object("assessment").integer("mismatches") == 0)
        #expect(try fleet.hubctl(["gate", "explain", "equal"]).status == 0)
        try expectReport(
            fleet, "equal", contains: ["**Rollback Triggered**: \u{2713} NO", "- Bucket A: 24 symbols", "- Bucket B: 24 symbols"])
        _ = try fleet.json(["experiment", "stop", "equal", "--reason", "seen enough"])
        for host in Self.hosts {
            #expect(fleet.stop(host) == 0)
            try expectSchedule(fleet, host, "equal")
        }

        try start(["--stretch-b", "1.3"])
        try begin("slow")
        let slow = try fleet.waitForDecision("slow", seconds: 600)
        #expect(slow.status == 2, "\(slow.standardOutput) \(slow.standardError)")
        let decided = try #require(try fleet.json(["experiment", "get", "slow"]).objects("changes").last)
        #expect(
            decided.text("reason") == "gate latency_regression" && decided.object("evidence").integer("pairs") <= 2, "\(decided.values)")
        #expect(try fleet.hubctl(["gate", "explain", "slow"]).status == 0)
        try expectReport(fleet, "slow", contains: ["**Rollback Triggered**: \u{2717} YES", "latency_regression"])
        for host in Self.hosts { #expect(fleet.stop(host) == 0) }

        try start(ExperimentRunTests.late)
        try begin("late")
        let late = try fleet.waitForDecision("late", seconds: 120)
        #expect(late.status == 2, "\(late.standardOutput) \(late.standardError)")
        try fleet.eventually("all hosts have it latched") {
            let commands = try fleet.json(["command", "list"]).objects("commands").filter { $0.text("experiment") == "late" }
            return commands.count == 1 && commands[0].objects("hosts").allSatisfy { $0.text("state") == "latched" }
        }
        let change = try #require(try fleet.json(["experiment", "get", "late"]).objects("changes").last)
        #expect(change.object("evidence").text("kind") == "deadline_miss" && change.object("evidence").text("scope") == "harm")
        try fleet.eventually("the edge's own event says the same") { try fleet.hubctl(["gate", "explain", "late"]).status == 0 }
        for host in Self.hosts { #expect(fleet.stop(host) == 0) }
        let at = change.object("evidence").integer("at_ms")
        for host in Self.hosts {
            let ends = try fleet.feeds(host)["events"].filter {
                $0.text("event") == "arm_change" && $0.object("detail").text("experiment") == "late"
                    && ["breaker", "latch"].contains($0.object("detail").text("why") ?? "")
            }
            #expect(ends.count == Self.symbols.count && ends.allSatisfy { $0.integer("ts") - at <= 1_000 }, "\(host)")
        }
    }

    /// Law 9 on stored rows: what a tick played is what the hub's spec gave its symbol then, and half of all scheduled ticks are B's.
    private func expectSchedule(_ fleet: FleetRig, _ host: String, _ id: String) throws {
        let spec = try fleet.json(["experiment", "get", id]).object("experiment").object("switchback")
        let (start, block) = (spec.integer("start_ms"), spec.integer("block_ms"))
        let rows = try fleet.feeds(host)["pipeline_ticks"].filter { $0.text("experiment") == id && $0.text("arm_why") == "schedule" }
        #expect(rows.count > 1_000)
        var arms: [String: [Int: Set<String>]] = [:]
        for row in rows {
            let number = (row.integer("ts") - start) / block
            #expect(row.integer("block") == number)
            arms[row.text("symbol") ?? "", default: [:]][number, default: []].insert(row.text("arm") ?? "")
        }
        #expect(arms.count == Self.symbols.count)
        for (symbol, blocks) in arms {
            for (number, played) in blocks {
                #expect(played.count == 1, "\(symbol) in block \(number)")
                if let other = blocks[number ^ 1] { #expect(played != other, "\(symbol): a pair has both arms") }
            }
        }
    }

    private func expectReport(_ fleet: FleetRig, _ id: String, contains texts: [String]) throws {
        let built = try fleet.json(["report", "build", "--experiment", id])
        let name = try #require(built.text("name"))
        let text = try String(contentsOfFile: "\(fleet.directory)/hub/reports/\(name)", encoding: .utf8)
        for expected in texts { #expect(text.contains(expected), "\(expected)\n\(text)") }
    }
}
