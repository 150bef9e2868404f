import CalibModel
import Wire

// Whether everything is there to calibrate on: each box of the readiness checklist, judged on evidence (SPEC 9.5), and the troubleshooting section,
// looked up for the reader. The shell gathers; what the evidence means is decided here.

/// What tick rows say about a shadow run.
package struct ShadowFigures: Sendable {
    package private(set) var rows: Int64 = 0
    private var weight: Int64 = 0
    private var hits: Int64 = 0
    private var misses: Int64 = 0
    private var first = Int64.max
    private var last = Int64.min
    private var totals = [Int64](repeating: 0, count: LatencyBuckets.count)
    private var fetches = [Int64](repeating: 0, count: LatencyBuckets.count)
    /// Lines that are no rows.
    package private(set) var rejected: Int64 = 0
    /// Minutes in which some row was.
    private var minutes: Set<Int64> = []

    fileprivate init() {}

    fileprivate mutating func reject() { rejected += 1 }

    fileprivate mutating func add(_ row: ShadowReader.Row) {
        rows += 1
        weight += row.weight
        if row.isHit { hits += row.weight }
        if row.isMiss { misses += row.weight }
        first = min(first, row.time)
        last = max(last, row.time)
        minutes.insert(row.time / 60_000)
        totals[LatencyBuckets.index(of: row.total)] += row.weight
        if let fetch = row.fetch { fetches[LatencyBuckets.index(of: fetch)] += row.weight }
    }

    /// In 1e-9; nil without rows.
    package var hitRatio: Int64? { FixedPoint.divide(Int128(hits) * 1_000_000_000, by: Int128(weight)) }
    package var missRate: Int64? { FixedPoint.divide(Int128(misses) * 1_000_000_000, by: Int128(weight)) }
    /// Nanoseconds, to 1/128.
    package var totalP95: Int64? { Self.p95(totals) }
    package var fetchP95: Int64? { Self.p95(fetches) }
    /// Minutes with rows: what was run, not what was asked for.
    package var minutesCovered: Int { minutes.count }
    /// Minutes between the first row and the last one that have none.
    package var minutesMissing: Int64 { rows == 0 ? 0 : last / 60_000 - first / 60_000 + 1 - Int64(minutes.count) }

    private static func p95(_ counts: [Int64]) -> Int64? {
        LatencyBuckets.quantile(
            of: counts.enumerated().filter { $0.element > 0 }.map { (index: $0.offset, count: $0.element) }, percent: 95)
    }
}

/// Reads tick rows for what the checklist asks; the time of the first stage is in no dataset.
package struct ShadowReader: ~Copyable {
    fileprivate struct Row {
        var time: Int64
        var total: Int64
        var fetch: Int64?
        var weight: Int64
        var isHit: Bool
        var isMiss: Bool
    }

    package private(set) var figures = ShadowFigures()
    private var scanner = FeedScanner()

    package init() {}

    package mutating func add(line: UnsafeRawBufferPointer, isTerminated: Bool) {
        guard scanner.scan(line, feed: .ticks, isTerminated: isTerminated) == nil else { return figures.reject() }
        let row = scanner.row
        figures.add(
            Row(
                time: row.value(.ts), total: row.value(.tickTotal), fetch: Self.fetch(line), weight: row[.weight] ?? 1,
                isHit: row.value(.cacheHit) == 1, isMiss: row.value(.deadlineMiss) == 1))
    }

    package mutating func addOverlongLine() { figures.reject() }

    private static func fetch(_ line: UnsafeRawBufferPointer) -> Int64? {
        do throws(JSONError) {
            var reader = JSONReader(line)
            try reader.beginObject()
            while let key = try reader.nextKey() {
                guard key.equals("stage_latencies"), try reader.peek() == .object else {
                    try reader.skip()
                    continue
                }
                try reader.beginObject()
                while let stage = try reader.nextKey() {
                    if stage.equals("FetchMDStage"), try reader.peek() == .number { return try reader.fixed(places: Places.milliseconds) }
                    try reader.skip()
                }
                return nil
            }
        } catch {}
        return nil
    }
}

/// What the shell found; nil or empty is "not looked at" or "not there", which `notes` tell apart.
package struct ReadinessEvidence: Sendable {
    /// Where the configuration is, and its keys with their values as text ("md_cache.enabled": "true"); nil when it cannot be read.
    package var configuration: (path: String, values: [String: String])?
    package var feedsDirectory = ""
    package var shadow: ShadowFigures?
    /// File names by feed.
    package var feedFiles: [Feed: Int] = [:]
    /// Bytes in files of a feed that are not whole lines.
    package var tornFiles: [String] = []
    package var fillRows: Int64 = 0
    package var snapshotRows: Int64 = 0
    package var isFeedsDirectoryWritable = true
    /// The dataset's path, its bytes and its manifest's; nil when there is none.
    package var dataset: (path: String, bytes: [UInt8], manifest: [UInt8]?, digest: String)?
    package var summaryPath: String?
    /// The newest report on an experiment: its path, its bytes, and whether its Markdown is there; nil when there is none.
    package var experiment: (path: String, bytes: [UInt8], hasText: Bool)?
    /// `box id` -> why it is attested.
    package var attested: [String: String] = [:]

    package init() {}
}

package struct ReadinessBox: Sendable, Equatable {
    package enum State: String, Sendable { case pass, fail, unknown, attested }
    package var id: String
    package var section: String
    package var text: String
    package var state: State
    package var evidence: String
}

package enum Readiness {
    /// Every box in the checklist's order.
    package static func boxes(_ evidence: ReadinessEvidence) -> [ReadinessBox] {
        let judged = prerequisites(evidence) + collection(evidence) + dataset(evidence) + experiment(evidence) + others
        return judged.map { box in
            guard box.state == .unknown, let why = evidence.attested[box.id] else { return box }
            var box = box
            box.state = .attested
            box.evidence = why
            return box
        }
    }

    private static func box(_ id: String, _ section: String, _ text: String, _ isGood: Bool?, _ evidence: String) -> ReadinessBox {
        ReadinessBox(id: id, section: section, text: text, state: isGood.map { $0 ? .pass : .fail } ?? .unknown, evidence: evidence)
    }

    private static func decimal(_ value: Int64, places: Int) -> String {
        var json = JSONWriter()
        json.fixed(value, places: places)
        return String(decoding: json.bytes, as: UTF8.self)
    }

    private static func milliseconds(_ value: Int64) -> String { decimal(value / 1000, places: 3) + " ms" }

    private static func prerequisites(_ evidence: ReadinessEvidence) -> [ReadinessBox] {
        let section = "Prerequisites"
        let enabled = evidence.configuration.map { $0.values["md_cache.enabled"] ?? "true" }
        let shadow = evidence.shadow.flatMap { $0.rows > 0 ? $0 : nil }
        let none = "no tick rows in '\(evidence.feedsDirectory)'"
        return [
            box(
                "md_cache_enabled", section, "MD-Cache enabled in config", enabled.map { $0 == "true" },
                enabled.map { "md_cache.enabled: \($0) in '\(evidence.configuration?.path ?? "")'" } ?? "no configuration was read"),
            box(
                "shadow_run", section, "Shadow run of 60+ min with hit_ratio >= 0.7",
                shadow.map { $0.minutesCovered >= 60 && ($0.hitRatio ?? 0) >= 700_000_000 } ?? false,
                shadow.map { "\($0.minutesCovered) min with tick rows, hit ratio \(decimal($0.hitRatio ?? 0, places: 9))" } ?? none),
            box(
                "fetch_md_p95", section, "fetch_md p95 <= 35 ms", shadow == nil ? false : shadow?.fetchP95.map { $0 <= 35_000_000 },
                shadow.map { $0.fetchP95.map(milliseconds) ?? "tick rows carry no FetchMDStage" } ?? none),
            box(
                "tick_total_p95", section, "tick_total p95 <= 150 ms", shadow.map { ($0.totalP95 ?? .max) <= 150_000_000 } ?? false,
                shadow.flatMap { $0.totalP95.map(milliseconds) } ?? none),
            box(
                "deadline_miss", section, "deadline_miss < 2%", shadow.map { ($0.missRate ?? .max) < 20_000_000 } ?? false,
                shadow.flatMap { $0.missRate.map { decimal($0 * 100, places: 9) + " %" } } ?? none),
        ]
    }

    private static func collection(_ evidence: ReadinessEvidence) -> [ReadinessBox] {
        let section = "Data Collection"
        func files(_ feed: Feed) -> Int { evidence.feedFiles[feed] ?? 0 }
        let hours = evidence.shadow.map { $0.minutesCovered / 60 } ?? 0
        let rejected = evidence.shadow?.rejected ?? 0
        let gaps = evidence.shadow?.minutesMissing ?? 0
        let missing = missingSequences(evidence)
        let stable = hours >= 12 && gaps == 0 && rejected == 0 && evidence.tornFiles.isEmpty && (missing ?? 0) == 0
        var trouble = ["\(hours) h with tick rows"]
        if gaps > 0 { trouble.append("\(gaps) min without a row") }
        if rejected > 0 { trouble.append("\(rejected) tick lines are no rows") }
        if !evidence.tornFiles.isEmpty { trouble.append("torn at the end: \(evidence.tornFiles.prefix(5).joined(separator: ", "))") }
        if let missing, missing > 0 { trouble.append("\(missing) sequence numbers missing") }
        return [
            box(
                "feature_collectors", section, "Feature collectors initialised and streaming", evidence.snapshotRows > 0,
                "\(evidence.snapshotRows) feature_snapshots rows in \(files(.snapshots)) files"),
            box(
                "fill_logger", section, "Fill logger writing fills_*.jsonl", evidence.fillRows > 0,
                "\(evidence.fillRows) rows in \(files(.fills)) files"),
            box(
                "tick_logger", section, "Pipeline tick logger writing pipeline_ticks_*.jsonl", (evidence.shadow?.rows ?? 0) > 0,
                "\(evidence.shadow?.rows ?? 0) rows in \(files(.ticks)) files"),
            box(
                "grafana_dashboards", section, "Grafana dashboards showing mm_symbol_* metrics", nil,
                "cannot be seen from here; attest it after looking"),
            box(
                "logs_stable", section, "Logs stable for 12-48 h (no gaps, one newline per record)", stable, trouble.joined(separator: "; ")
            ),
        ]
    }

    private static func missingSequences(_ evidence: ReadinessEvidence) -> Int64? {
        guard let bytes = evidence.dataset?.bytes, let value = try? JSONValue.parse(bytes) else { return nil }
        return value["watermarks"]?.array?.reduce(0) { $0 + ($1["missing"]?.integer ?? 0) }
    }

    private static func dataset(_ evidence: ReadinessEvidence) -> [ReadinessBox] {
        let section = "Dataset Generation"
        guard let dataset = evidence.dataset else {
            return [
                ("dataset_generated", "Calibration dataset for >= 12 h"), ("dataset_path", "Dataset path calib_{from}_{to}.json"),
                ("sanity_report", "Sanity report calib_summary_*.md"), ("no_nan", "No NaN/inf values in dataset"),
            ].map { box($0.0, section, $0.1, false, "no dataset was found") }
        }
        let value = try? JSONValue.parse(dataset.bytes)
        // The dataset's own rows, not its arguments: one hour of data does not make a day (fault 67 of the prototype).
        let interval = value?["interval_sec"]?.integer ?? 0
        let starts = Set((value?["intervals"]?.array ?? []).compactMap { $0["interval_start"]?.string })
        let covered = interval > 0 && interval <= 86_400 ? Int64(starts.count) * interval : 0
        let name = dataset.path.split(separator: "/").last.map(String.init) ?? ""
        let digest = dataset.manifest.flatMap { try? JSONValue.parse($0) }?["sha256"]?.string
        let isNamed = name.hasPrefix("calib_") && name.hasSuffix(".json") && name.utf8.count == 42 && digest == dataset.digest
        return [
            box(
                "dataset_generated", section, "Calibration dataset for >= 12 h", covered >= 43_200,
                value == nil ? "'\(name)' is not JSON" : "\(decimal(covered * 10 / 36, places: 3)) h of kept intervals in '\(name)'"),
            box(
                "dataset_path", section, "Dataset path calib_{from}_{to}.json", isNamed,
                digest == nil
                    ? "'\(name)' has no manifest" : digest == dataset.digest ? name : "'\(name)' is not what its manifest describes"),
            box(
                "sanity_report", section, "Sanity report calib_summary_*.md", evidence.summaryPath != nil,
                evidence.summaryPath ?? "no summary of '\(name)' among the reports"),
            box(
                "no_nan", section, "No NaN/inf values in dataset", value != nil,
                value == nil ? "not JSON, which has neither: NaN, infinity, or damage" : "every value is a number or null"),
        ]
    }

    /// What the newest report on an experiment says of it.
    private static func experiment(_ evidence: ReadinessEvidence) -> [ReadinessBox] {
        let section = "AB-Harness"
        let texts = [
            ("ab_initialized", "AB-harness initialised (dry mode for testing)"), ("safety_gates", "Safety gates enabled"),
            ("symbol_whitelist", "Symbol whitelist configured (if needed)"), ("test_report", "Test report generated"),
        ]
        guard let (path, bytes, hasText) = evidence.experiment else {
            return texts.map { box($0.0, section, $0.1, nil, "no ab_run_*.json among the reports") }
        }
        let name = path.split(separator: "/").last.map(String.init) ?? path
        guard let report = try? JSONValue.parse(bytes), report["schema"]?.string == "calibrant/ab-run/1",
            let spec = report["experiment"], let gates = report["gates"]?.array
        else { return texts.map { box($0.0, section, $0.1, false, "'\(name)' is no report on an experiment") } }
        let id = spec["id"]?.string ?? "?"
        let states = Set((report["decisions"]?.array ?? []).compactMap { $0["state"]?.string })
        let wasDry = states.contains(Experiment.State.dry.rawValue)
        let table = report["state"]?.string == Experiment.State.dry.rawValue ? Gate.dry : Gate.all
        let missing = table.filter { gate in gate.isDryRun || !gate.isEnabled || !gates.contains { $0["gate"]?.string == gate.name } }
        let counts = ["A", "B"].map { arm in "\(report["arms"]?[arm]?["symbols"]?.integer ?? 0) on \(arm)" }.joined(separator: ", ")
        let judged: [(isGood: Bool?, evidence: String)] = [
            (wasDry, wasDry ? "'\(id)' ran dry" : "'\(id)' never ran dry, says '\(name)'"),
            (
                missing.isEmpty,
                missing.isEmpty
                    ? "\(table.count) gates judge '\(id)'" : "not judged: \(missing.map(\.name).joined(separator: ", "))"
            ),
            (nil, "'\(id)' has symbols: \(counts); attest that they are those meant"),
            (hasText, hasText ? path : "'\(name)' has no .md beside it"),
        ]
        return zip(texts, judged).map { box($0.0, section, $0.1, $1.isGood, $1.evidence) }
    }

    private static let others: [ReadinessBox] = [
        ("perf_gate", "CI/CD Gates", "CI perf gate enabled"), ("regression_threshold", "CI/CD Gates", "Regression threshold at most +3 %"),
        ("all_tests", "CI/CD Gates", "All tests passing"),
    ].map {
        ReadinessBox(id: $0.0, section: $0.1, text: $0.2, state: .unknown, evidence: "cannot be seen from here; attest it")
    }

    // MARK: Doctor

    /// A trouble of the seed's troubleshooting section that is there.
    package struct Finding: Sendable, Equatable {
        package var trouble: String
        package var cause: String
        package var fix: String
    }

    package static func findings(_ evidence: ReadinessEvidence) -> [Finding] {
        var findings: [Finding] = []
        func number(_ key: String, _ usual: Int64) -> Int64 { evidence.configuration?.values[key].flatMap(Int64.init) ?? usual }
        if let shadow = evidence.shadow, shadow.rows > 0, let ratio = shadow.hitRatio, ratio < 700_000_000 {
            let trouble = "MD-cache hit ratio \(decimal(ratio, places: 9)) < 0.7"
            var causes: [(String, String)] = []
            if evidence.configuration?.values["md_cache.enabled"] == "false" {
                causes.append(("md_cache.enabled is false", "set it to true"))
            }
            if number("md_cache.ttl_ms", 100) < 100 {
                causes.append(("md_cache.ttl_ms is \(number("md_cache.ttl_ms", 100)), below 100", "set it to 120 to 150"))
            }
            if number("md_cache.invalidate_on_ws_gap_ms", 300) < 300 {
                causes.append(
                    (
                        "md_cache.invalidate_on_ws_gap_ms is \(number("md_cache.invalidate_on_ws_gap_ms", 300)), below 300",
                        "set it to 300 or more"
                    ))
            }
            if causes.isEmpty {
                causes.append(
                    ("books are not proven often enough", "look at mm_md_cache_invalidations_total by reason and at mm_md_cache_age_ms"))
            }
            findings += causes.map { Finding(trouble: trouble, cause: $0.0, fix: $0.1) }
        }
        if (evidence.shadow?.rows ?? 0) == 0 {
            let trouble = "Pipeline tick logger not writing"
            let rate = number("pipeline.pipeline_sample_rate", 10)
            if rate > 100 {
                findings.append(
                    Finding(trouble: trouble, cause: "pipeline.pipeline_sample_rate is \(rate), above 100", fix: "set it to 10"))
            }
            if !evidence.isFeedsDirectoryWritable {
                findings.append(
                    Finding(
                        trouble: trouble, cause: "'\(evidence.feedsDirectory)' cannot be written", fix: "check its owner and permissions"))
            }
            if rate <= 100, evidence.isFeedsDirectoryWritable {
                findings.append(
                    Finding(
                        trouble: trouble, cause: "no pipeline_ticks_*.jsonl row in '\(evidence.feedsDirectory)'",
                        fix: "does an edge-node run, and is its artifacts_dir this one?"))
            }
        }
        if let rejected = evidence.shadow?.rejected, rejected > 0 {
            findings.append(
                Finding(
                    trouble: "Corrupt JSONL lines", cause: "\(rejected) lines of pipeline_ticks are no rows",
                    fix:
                        "the dataset leaves them out and its manifest lists each with its reason; look at the disk and at who else writes there"
                ))
        }
        for file in evidence.tornFiles {
            findings.append(
                Finding(
                    trouble: "Incomplete line", cause: "'\(file)' ends in the middle of a row",
                    fix: "a running edge completes it; after a crash its next start repairs it"))
        }
        if let dataset = evidence.dataset, (try? JSONValue.parse(dataset.bytes)) == nil {
            findings.append(
                Finding(
                    trouble: "Dataset has NaN/inf values", cause: "'\(dataset.path)' is not JSON",
                    fix: "build it again with --replace; hubctl writes neither"))
        }
        if let shadow = evidence.shadow, shadow.rows > 0, evidence.fillRows == 0 {
            findings.append(
                Finding(
                    trouble: "Targets are null", cause: "there are tick rows and no fill rows",
                    fix: "quotes may never be reached: compare spread.max_bps with the market's width, or run longer"))
        }
        return findings
    }
}
