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

    /// What evidence decides; somebody vouches for these, too, which makes nothing of a failure.
    private static let judged = [
        "md_cache_enabled", "shadow_run", "fetch_md_p95", "tick_total_p95", "deadline_miss", "feature_collectors", "fill_logger",
        "tick_logger", "logs_stable", "dataset_generated", "dataset_path", "sanity_report", "no_nan",
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
        try Data((attested + judged).map { "\($0): seen by the operator on duty\n" }.joined().utf8).write(
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
        #expect(
            Set(boxes.compactMap { $0["box"] as? String }) == Set(attested + judged) && boxes.count == 21,
            "\(outcome.standardOutput) \(outcome.standardError)")
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
                "a line that is no row", ["logs_stable"],
                { try Self.edit("\($0)/\(feeds)/pipeline_ticks_\(day)") { "{}\n" + $0 } }
            ),
            (
                "no ticks", ["shadow_run", "fetch_md_p95", "tick_total_p95", "deadline_miss", "tick_logger", "logs_stable"],
                { try FileManager.default.removeItem(atPath: "\($0)/\(feeds)/pipeline_ticks_\(day)") }
            ),
            (
                "a row the dataset misses", ["dataset_path", "logs_stable"],
                { try Self.edit("\($0)/\(dataset).json") { $0.replacing(#""missing":0"#, with: #""missing":1"#, maxReplacements: 1) } }
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
        for (feeds, more) in [("clean", []), ("dirty", ["--dirty"])] {
            let made = try Binaries.run(
                "calib-lab",
                ["gen", "feeds", "--output", "\(root)/\(feeds)", "--hosts", "1", "--symbols", "1", "--hours", "1"] + more)
            #expect(made.status == 0)
        }
        try FileManager.default.createDirectory(atPath: root + "/empty", withIntermediateDirectories: true)
        try Data("{\"intervals\":NaN}\n".utf8).write(to: URL(fileURLWithPath: root + "/nan.json"))
        func findings(_ feeds: String, _ configuration: String = "", _ more: [String] = []) throws -> [String] {
            try Data(configuration.utf8).write(to: URL(fileURLWithPath: root + "/edge.yaml"))
            let outcome = try Binaries.run(
                "hubctl", ["doctor", "--feeds-dir", feeds, "--config", "edge.yaml", "-o", "json"] + more, in: root)
            let body = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
            let findings = body?["findings"] as? [[String: Any]] ?? []
            #expect(outcome.status == (findings.isEmpty ? 0 : 2))
            #expect(findings.allSatisfy { ($0["fix"] as? String ?? "").count > 8 })
            return findings.map { "\($0["trouble"] ?? ""): \($0["cause"] ?? "")" }
        }
        let slowBooks = "md_cache:\n  ttl_ms: 20\n  invalidate_on_ws_gap_ms: 50\npipeline:\n  pipeline_sample_rate: 500\n"
        #expect(try findings("clean") == [])
        // The settings do no harm while the books are proven and rows come.
        #expect(try findings("clean", slowBooks) == [])
        #expect(try findings("clean", "", ["--dataset", "nan.json"]) == ["Dataset has NaN/inf values: 'nan.json' is not JSON"])

        let dirty = try findings("dirty")
        #expect(dirty.first?.hasPrefix("Corrupt JSONL lines: ") ?? false)
        #expect(dirty.count { $0.hasPrefix("Incomplete line: ") } == 5 && dirty.count == 6, "\(dirty)")

        let silent = "Pipeline tick logger not writing: "
        #expect(try findings("empty") == [silent + "no pipeline_ticks_*.jsonl row in 'empty'"])
        #expect(try findings("empty", slowBooks) == [silent + "pipeline.pipeline_sample_rate is 500, above 100"])

        try Self.edit(root + "/clean/host=edge-1/pipeline_ticks_20250101.jsonl") {
            $0.replacing(#""cache_hit":true,"cache_age_ms":1"#, with: #""cache_hit":false,"cache_age_ms":1"#)
        }
        try FileManager.default.removeItem(atPath: root + "/clean/host=edge-1/fills_20250101.jsonl")
        let noFills = "Targets are null: there are tick rows and no fill rows"
        func causes(_ configuration: String) throws -> [String] {
            try findings("clean", configuration).map { $0.hasPrefix("MD-cache hit ratio 0.") ? String($0.split(separator: ": ")[1]) : $0 }
        }
        #expect(try causes("") == ["books are not proven often enough", noFills])
        #expect(
            try causes(slowBooks) == [
                "md_cache.ttl_ms is 20, below 100", "md_cache.invalidate_on_ws_gap_ms is 50, below 300", noFills,
            ])
        #expect(try causes("md_cache:\n  enabled: false\n") == ["md_cache.enabled is false", noFills])
    }
}
