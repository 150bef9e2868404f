import Foundation
import NIOCore
import NIOPosix
import NodeShell
import TestSupport
import Testing

/// A real promtool and a real Prometheus against a real edge and a real hub.
@Suite(.serialized, .enabled(if: PrometheusTools.areHere, PrometheusTools.absence))
struct RealPrometheusTests {
    /// Names that users' dashboards are built on, against Prometheus's advice: they have an abbreviated unit in them.
    private static let seedNames: Set<String> = [
        "mm_symbol_queue_eta_ms", "mm_stage_fetch_md_p95_ms", "mm_tick_total_p95_ms", "mm_md_cache_age_ms",
        "mm_md_cache_refresh_latency_p95_ms",
    ]

    /// An edge under a hub, both with certificates.
    private final class Pair {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let hub: LiveProcess
        let edge: EdgeRig
        private let directory: String

        init() throws {
            directory = try Binaries.temporaryDirectory()
            let made = try Binaries.run(
                "calib-hub", ["init", "--directory", directory + "/pki", "--edge", "e1", "--operator", "ann", "-o", "json"])
            guard made.status == 0 else { throw LiveProcess.NotReady(description: made.standardError) }
            hub = try LiveProcess(
                "calib-hub",
                [
                    "run", "--config", directory + "/pki/hub.yaml", "--set", "listen=127.0.0.1:0", "--set", "metrics.listen=127.0.0.1:0",
                    "--set", "artifacts_dir=\(directory)/hub",
                ])
            let address = try EdgeRig.member("listening", of: hub.firstLine).split(separator: ":")
            let keys = directory + "/pki/edges/e1"
            edge = try EdgeRig([
                "--set", "hub.enabled=true", "--set", "hub.host=127.0.0.1", "--set", "hub.port=\(address[1])", "--set",
                "hub.server_name=localhost", "--set", "tls.certificate=\(keys)/cert.pem", "--set", "tls.key=\(keys)/key.pem", "--set",
                "tls.authority=\(keys)/ca.pem",
            ])
        }

        deinit {
            hub.signal(SIGKILL)
            _ = hub.wait()
            try? group.syncShutdownGracefully()
            try? FileManager.default.removeItem(atPath: directory)
        }

        func address(_ process: LiveProcess) throws -> String { try EdgeRig.member("metrics", of: process.firstLine) }

        /// What `address` answers to somebody who asks for nothing in particular: the old text.
        func text(_ address: String) throws -> [UInt8] {
            let parts = address.split(separator: ":")
            return try HTTPClient.get(host: String(parts[0]), port: Int(parts[1])!, path: "/metrics", on: group.next()).wait().body
        }

        /// Passes on what `address` answers in the old text, whatever was asked for: this Prometheus always prefers OpenMetrics.
        func oldText(of address: String) throws -> String {
            let parts = address.split(separator: ":").map(String.init)
            let channel = try Endpoints.bind(port: 0, on: group) { [group] _, _ in
                HTTPClient.get(host: parts[0], port: Int(parts[1])!, path: "/metrics", on: group.next()).map {
                    .init(contentType: "text/plain; version=0.0.4; charset=utf-8", body: $0.body)
                }
            }.wait()
            return "127.0.0.1:\(channel.localAddress!.port!)"
        }
    }

    @Test func promtoolObjectsToTheSeedsNamesOnly_aPrometheusReadsBothForms() throws {
        let pair = try Pair()
        let (edge, hub) = (try pair.address(pair.edge.edge), try pair.address(pair.hub))
        try pair.edge.wait(for: "fills, and rows at the hub") {
            try pair.edge.metric("mm_fills_total") ?? 0 > 2
                && String(decoding: pair.text(hub), as: UTF8.self).contains("mm_hub_ingest_records_total{host=\"e1\",stream=\"fills\"}")
        }
        for address in [edge, hub] {
            let (text, _) = try PrometheusTools.promtool(["check", "metrics"], input: pair.text(address))
            let complaints = text.split(separator: "\n").filter { line in
                !(Self.seedNames.contains(String(line.prefix { $0 != " " })) && line.hasSuffix("should not contain abbreviated units"))
            }
            #expect(complaints.isEmpty, "\(address): \(complaints)")
        }

        let jobs = [
            ("edge", edge), ("edge-text", try pair.oldText(of: edge)), ("hub", hub), ("hub-text", try pair.oldText(of: hub)),
        ].map { (name: $0.0, target: $0.1) }
        let server = try PrometheusServer(jobs: jobs, on: pair.group)
        let all = Set(jobs.map(\.name))
        try pair.edge.wait(for: "scrapes of all four") { try Set(server.query("up == 1").keys) == all }
        func values(_ what: String, of jobs: Set<String>, _ expression: String, _ isSo: (Double) -> Bool) throws {
            try pair.edge.wait(for: "\(what): \(expression)") {
                let values = try server.query(expression)
                return Set(values.keys) == jobs && values.values.allSatisfy(isSo)
            }
        }
        let edges: Set = ["edge", "edge-text"]
        let hubs: Set = ["hub", "hub-text"]
        try values(
            "p95 of ticks", of: edges, "histogram_quantile(0.95, sum by (job, le) (rate(mm_tick_duration_seconds_bucket[5s])))"
        ) { $0 > 0 }
        try values(
            "share of ticks above 150 ms", of: edges,
            "1 - sum by (job) (mm_tick_duration_seconds_bucket{le=\"0.15\"}) / sum by (job) (mm_tick_duration_seconds_count)"
        ) { (0...1).contains($0) }
        try values("bound that is a whole number", of: edges, "mm_tick_duration_seconds_bucket{bucket=\"A\",le=\"1.0\"}") { $0 > 0 }
        try values("ratio of hits", of: edges, "mm_md_cache_hit_ratio") { (0...1).contains($0) }
        try values("fills", of: edges, "sum by (job) (mm_fills_total{liquidity=\"maker\"})") { $0 > 0 }
        try values("certificate", of: all, "mm_tls_certificate_expiry_timestamp_seconds - time()") { $0 > 0 }
        try values("processes", of: all, "process_resident_memory_bytes") { $0 > 1_000_000 }
        try values("link", of: edges, "mm_uplink_connected") { $0 == 1 }
        try values("rows at the hub", of: hubs, "sum by (job) (mm_hub_ingest_records_total{host=\"e1\"})") { $0 > 0 }
        try values("commits", of: hubs, "histogram_quantile(0.5, sum by (job, le) (mm_hub_store_commit_duration_seconds_bucket))") {
            $0 > 0
        }
        try values("hosts", of: hubs, "mm_hub_hosts{state=\"connected\"}") { $0 == 1 }
        // The same series, whichever form was read.
        for (first, second) in [("edge", "edge-text"), ("hub", "hub-text")] {
            let missing = try server.query(
                "count by (job) ({job=\"\(second)\", __name__=~\"mm_.*\", __name__!~\"mm_fill_slippage_bps_(sum|count)\"} unless ignoring (job, instance) {job=\"\(first)\"})"
            )
            #expect(missing.isEmpty, "\(missing)")
        }
        #expect(pair.edge.stop() == 0)
    }

    /// Rules are for metrics that exist, each with its place in the runbook.
    @Test func shippedConfigurationAndRulesAreSound() throws {
        let folder = Repository.path("deploy/prometheus")
        for arguments in [
            ["check", "config", folder + "/prometheus.yml"], ["check", "rules", folder + "/rules.yml"],
            ["test", "rules", folder + "/rules_test.yml"],
        ] {
            let (text, status) = try PrometheusTools.promtool(arguments)
            #expect(status == 0, "promtool \(arguments.joined(separator: " ")): \(text)")
        }
        let rules = try String(contentsOfFile: folder + "/rules.yml", encoding: .utf8)
        let tests = try String(contentsOfFile: folder + "/rules_test.yml", encoding: .utf8)
        let runbook = try String(contentsOfFile: Repository.path("deploy/README.md"), encoding: .utf8)
        let alerts = rules.split(separator: "\n").compactMap { $0.split(separator: "- alert: ").last.map(String.init) }.filter {
            rules.contains("- alert: \($0)\n")
        }
        #expect(alerts.count == rules.components(separatedBy: "- alert: ").count - 1 && !alerts.isEmpty)
        for alert in alerts { #expect(tests.contains("alertname: \(alert)\n"), "\(alert) has no test in which it fires") }
        for part in rules.components(separatedBy: "runbook: deploy/README.md#").dropFirst() {
            let anchor = part.prefix { $0.isLetter || $0.isNumber }
            let isThere = runbook.split(separator: "\n").contains { $0.hasPrefix("#### ") && $0.dropFirst(5).lowercased() == anchor }
            #expect(isThere, "no '#### \(anchor)' in the runbook")
        }
        let examples = try ["metrics_edge.txt"].map {
            try String(contentsOfFile: Repository.path("proto-json/examples/\($0)"), encoding: .utf8)
        }
        let source = try String(contentsOfFile: Repository.path("Sources/HubCore/HubMetrics.swift"), encoding: .utf8)
        let shown = examples.joined() + source + "mm_tls_certificate_expiry_timestamp_seconds"
        for name in Set(rules.split { !($0.isLetter || $0.isNumber || $0 == "_") }.filter { $0.hasPrefix("mm_") }) {
            // In the source a counter stands without what its form adds.
            let isCounter = name.hasSuffix("_total") && shown.contains("\"\(name.dropLast(6))\", .counter")
            #expect(isCounter || shown.contains(name), "no program shows \(name)")
        }
    }
}
