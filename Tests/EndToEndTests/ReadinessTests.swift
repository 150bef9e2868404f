import Foundation
import TestSupport
import Testing

/// `hubctl readiness` and `hubctl doctor` on thirteen hours of feeds, whole and broken in different ways.
@Suite struct ReadinessTests {
    private static let stem = "calib_20250101_000000_20250101_130000"
    private static let attested = [
        "grafana_dashboards", "ab_initialized", "safety_gates", "symbol_whitelist", "test_report", "perf_gate", "regression_threshold",
        "all_tests",
    ]

    /// Everything a ready edge has; copied for each breakage.
    private static func makeWorld() throws -> String {
        let root = try Binaries.temporaryDirectory()
        let edge = root + "/artifacts/edge"
        try FileManager.default.createDirectory(atPath: edge, withIntermediateDirectories: true)
        try FileManager.default.createDirectory(atPath: root + "/config", withIntermediateDirectories: true)
        let made = try Binaries.run(
            "calib-lab", ["gen", "feeds", "--output", edge + "/feeds", "--hosts", "1", "--symbols", "1", "--hours", "13"], deadline: 120)
        #expect(made.status == 0, "\(made.standardError)")
        try FileManager.default.copyItem(atPath: Repository.path("config/edge.yaml"), toPath: root + "/config/edge.yaml")
        try Data(attested.map { "\($0): seen by the operator on duty\n" }.joined().utf8).write(
            to: URL(fileURLWithPath: root + "/attested.yaml"))
        for arguments in [
            ["dataset", "build", "--from-ts", "2025-01-01T00:00:00Z", "--to-ts", "2025-01-01T13:00:00Z", "--offline"],
            ["dataset", "summary", "artifacts/edge/datasets/\(stem).json"],
        ] {
            let outcome = try Binaries.run("hubctl", arguments, in: root)
            #expect(outcome.status == 0, "\(outcome.standardError)")
        }
        return root
    }

    private static func failing(_ root: String, _ more: [String] = ["--attest", "attested.yaml"]) throws -> (Int32, [String: String]) {
        let outcome = try Binaries.run("hubctl", ["readiness", "-o", "json"] + more, in: root)
        let body = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
        let boxes = body?["boxes"] as? [[String: Any]] ?? []
        #expect(boxes.count == 21, "\(outcome.standardOutput) \(outcome.standardError)")
        var states: [String: String] = [:]
        for box in boxes {
            guard let id = box["box"] as? String, let state = box["state"] as? String else { continue }
            if state != "pass", state != "attested" { states[id] = state }
        }
        #expect(body?["ready"] as? Bool == states.isEmpty)
        return (outcome.status, states)
    }

    private static func edit(_ path: String, _ change: (String) -> String) throws {
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let changed = change(text)
        #expect(changed != text, "nothing to change in \(path)")
        try Data(changed.utf8).write(to: URL(fileURLWithPath: path))
    }

    @Test func aReadyEdgeIsReady_andEachBreakageIsNamed() throws {
        let root = try Self.makeWorld()
        defer { try? FileManager.default.removeItem(atPath: root) }
        let good = try Self.failing(root)
        #expect(good.0 == 0 && good.1.isEmpty, "\(good)")
        let unattested = try Self.failing(root, [])
        #expect(unattested.0 == 2 && unattested.1 == Dictionary(uniqueKeysWithValues: Self.attested.map { ($0, "unknown") }))

        let feeds = "artifacts/edge/feeds/host=edge-1"
        let day = "20250101.jsonl"
        let dataset = "artifacts/edge/datasets/\(Self.stem)"
        let breakages: [(name: String, boxes: Set<String>, apply: (String) throws -> Void)] = [
            (
                "the cache is off", ["md_cache_enabled"],
                { try Self.edit($0 + "/config/edge.yaml") { $0.replacing("enabled: true", with: "enabled: false", maxReplacements: 1) } }
            ),
            (
                "few hits", ["shadow_run"],
                {
                    try Self.edit("\($0)/\(feeds)/pipeline_ticks_\(day)") {
                        $0.replacing(#""cache_hit":true,"cache_age_ms":1"#, with: #""cache_hit":false,"cache_age_ms":1"#)
                    }
                }
            ),
            (
                "slow fetches", ["fetch_md_p95"],
                {
                    try Self.edit("\($0)/\(feeds)/pipeline_ticks_\(day)") {
                        $0.replacing(#""FetchMDStage":1"#, with: #""FetchMDStage":91"#)
                    }
                }
            ),
            (
                "slow ticks", ["tick_total_p95"],
                {
                    try Self.edit("\($0)/\(feeds)/pipeline_ticks_\(day)") {
                        $0.replacing(#""tick_total_ms":12"#, with: #""tick_total_ms":912"#)
                    }
                }
            ),
            (
                "missed deadlines", ["deadline_miss"],
                {
                    try Self.edit("\($0)/\(feeds)/pipeline_ticks_\(day)") {
                        $0.replacing(
                            #""cache_age_ms":7,"used_stale":false,"deadline_miss":false"#,
                            with: #""cache_age_ms":7,"used_stale":false,"deadline_miss":true"#
                        ).replacing(
                            #""cache_age_ms":17,"used_stale":false,"deadline_miss":false"#,
                            with: #""cache_age_ms":17,"used_stale":false,"deadline_miss":true"#
                        ).replacing(
                            #""cache_age_ms":27,"used_stale":false,"deadline_miss":false"#,
                            with: #""cache_age_ms":27,"used_stale":false,"deadline_miss":true"#
                        ).replacing(
                            #""cache_age_ms":37,"used_stale":false,"deadline_miss":false"#,
                            with: #""cache_age_ms":37,"used_stale":false,"deadline_miss":true"#
                        ).replacing(
                            #""cache_age_ms":47,"used_stale":false,"deadline_miss":false"#,
                            with: #""cache_age_ms":47,"used_stale":false,"deadline_miss":true"#)
                    }
                }
            ),
            (
                "no snapshots", ["feature_collectors"],
                { try FileManager.default.removeItem(atPath: "\($0)/\(feeds)/feature_snapshots_\(day)") }
            ),
            ("no fills", ["fill_logger"], { try FileManager.default.removeItem(atPath: "\($0)/\(feeds)/fills_\(day)") }),
            ("a torn file", ["logs_stable"], { try Self.edit("\($0)/\(feeds)/fills_\(day)") { String($0.dropLast(9)) } }),
            (
                "a quiet minute", ["logs_stable"],
                {
                    try Self.edit("\($0)/\(feeds)/pipeline_ticks_\(day)") { text in
                        text.split(separator: "\n").filter { !$0.contains("T05:17:") }.joined(separator: "\n") + "\n"
                    }
                }
            ),
            (
                "a dataset someone wrote in", ["dataset_path"],
                { try Self.edit("\($0)/\(dataset).json") { $0.replacing(#""fills":"#, with: #""fills":1"#, maxReplacements: 1) } }
            ),
            (
                "NaN in the dataset", ["dataset_generated", "dataset_path", "no_nan"],
                {
                    try Self.edit("\($0)/\(dataset).json") {
                        $0.replacing(#""net_bps":null"#, with: #""net_bps":NaN"#, maxReplacements: 1).replacing(
                            #""skew_bps":"#, with: #""skew_bps":NaN,"was":"#, maxReplacements: 1)
                    }
                }
            ),
            ("no manifest", ["dataset_path"], { try FileManager.default.removeItem(atPath: "\($0)/\(dataset).manifest.json") }),
            (
                "no summary", ["sanity_report"],
                { try FileManager.default.removeItem(atPath: "\($0)/artifacts/edge/reports/calib_summary_\(Self.stem).md") }
            ),
        ]
        for breakage in breakages {
            let copy = root + "-broken"
            try FileManager.default.copyItem(atPath: root, toPath: copy)
            defer { try? FileManager.default.removeItem(atPath: copy) }
            try breakage.apply(copy)
            let (status, boxes) = try Self.failing(copy)
            #expect(status == 2, "\(breakage.name)")
            #expect(Set(boxes.keys) == breakage.boxes && boxes.values.allSatisfy { $0 == "fail" }, "\(breakage.name): \(boxes)")
        }
    }

    @Test func theDoctorNamesCauseAndRemedy() throws {
        let root = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: root) }
        let made = try Binaries.run(
            "calib-lab", ["gen", "feeds", "--output", root + "/feeds", "--hosts", "1", "--symbols", "1", "--hours", "1", "--dirty"])
        #expect(made.status == 0)
        try FileManager.default.createDirectory(atPath: root + "/empty", withIntermediateDirectories: true)
        try Data("md_cache:\n  ttl_ms: 20\npipeline:\n  pipeline_sample_rate: 500\n".utf8).write(
            to: URL(fileURLWithPath: root + "/edge.yaml"))
        func findings(_ feeds: String) throws -> [String] {
            let outcome = try Binaries.run("hubctl", ["doctor", "--feeds-dir", feeds, "--config", "edge.yaml", "-o", "json"], in: root)
            #expect(outcome.status == 2)
            let body = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
            return (body?["findings"] as? [[String: Any]] ?? []).map { "\($0["trouble"] ?? ""): \($0["cause"] ?? "")" }
        }
        let dirty = try findings("feeds")
        #expect(
            dirty.contains { $0.hasPrefix("Corrupt JSONL lines: ") } && dirty.count { $0.hasPrefix("Incomplete line: ") } == 5, "\(dirty)")
        #expect(try findings("empty").contains { $0.contains("pipeline_sample_rate is 500") })
    }
}
