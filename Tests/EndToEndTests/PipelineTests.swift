import Foundation
import TestSupport
import Testing

/// From a recording to a dataset: every row and document is what its schema says, and the dataset is what its feeds say.
@Suite struct PipelineTests {
    private typealias Row = FeedRows.Row
    private static let start = 1_735_689_600_000

    /// Debian's own python3, with the JSON Schema validator that deploy/test installs.
    private static let python = "/usr/bin/python3"
    private static let hasValidator = (try? Binaries.run(python, ["-c", "import jsonschema"]))?.status == 0

    @Test func theDatasetIsWhatItsFeedsSay() throws {
        try ReplayTests.withRecording(seconds: 100, seed: 21) { directory, recording in
            _ = try ReplayTests.replay(["--input", recording, "--artifacts", directory])
            let built = try Binaries.run(
                "hubctl",
                [
                    "dataset", "build", "--feeds-dir", directory + "/feeds", "--output-dir", directory + "/datasets", "--from-ts",
                    "2025-01-01T00:00:00Z", "--to-ts", "2025-01-01T00:02:00Z", "--interval-sec", "30", "--keep-filtered",
                ])
            #expect(built.status == 0, "\(built.standardError)")
            let dataset = directory + "/datasets/calib_20250101_000000_20250101_000200.json"
            let document = try Row(
                values: JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: dataset))) as? [String: Any] ?? [:])
            let rows = try FeedRows(directory: directory + "/feeds")
            let intervals = (document.values["intervals"] as? [[String: Any]] ?? []).map(Row.init)
            #expect(intervals.count == 4)
            for (index, interval) in intervals.enumerated() { check(interval, rows, from: Self.start + index * 30_000) }
            try validate(dataset, directory: directory)
        }
    }

    /// SPEC 6.2, 6.3 with Foundation's decimals; the builder rounds once to nine places.
    private func check(_ interval: Row, _ rows: FeedRows, from: Int) {
        func within(_ feed: String, by key: String = "ts") -> [Row] {
            rows[feed].filter { $0.integer(key) >= from && $0.integer(key) < from + 30_000 }
        }
        func sum(_ values: [NSDecimalNumber]) -> NSDecimalNumber { values.reduce(0) { $0.adding($1) } }
        func expect(_ group: String, _ key: String, _ numerator: NSDecimalNumber, _ denominator: NSDecimalNumber) {
            guard denominator != 0 else {
                #expect(interval.object(group).optional(key) == nil, "\(key) at \(from) has an empty denominator")
                return
            }
            let expected = numerator.dividing(by: denominator).doubleValue
            let actual = interval.object(group).optional(key)?.doubleValue
            #expect(
                actual != nil && (actual! - expected).magnitude <= 0.6e-9 * max(1, expected.magnitude),
                "\(key) at \(from): \(expected), \(String(describing: actual))")
        }
        let fills = within("fills")
        let snapshots = within("feature_snapshots", by: "from_ts")
        let ticks = within("pipeline_ticks")
        let markouts = Dictionary(uniqueKeysWithValues: rows["markouts"].map { ($0.integer("fill_id"), $0) })
        func notional(_ fill: Row) -> NSDecimalNumber { fill.decimal("price").multiplying(by: fill.decimal("qty")) }
        func count(_ key: String) -> NSDecimalNumber { sum(snapshots.map { $0.object("counts").decimal(key) }) }

        expect("targets", "slippage_bps", sum(fills.map { $0.decimal("slip_bps").multiplying(by: notional($0)) }), sum(fills.map(notional)))
        let known = fills.filter { markouts[$0.integer("fill_id")]?.optional("net_bps") != nil }
        expect(
            "targets", "net_bps", sum(known.map { markouts[$0.integer("fill_id")]!.decimal("net_bps").multiplying(by: notional($0)) }),
            sum(known.map(notional)))
        expect("targets", "taker_share", NSDecimalNumber(value: fills.count { $0.flag("taker") }), NSDecimalNumber(value: fills.count))
        expect("targets", "fill_rate", count("filled_orders"), count("quotes"))

        func total(_ key: String) -> NSDecimalNumber { sum(snapshots.map { $0.object("sums").decimal(key) }) }
        expect("features", "slippage_bps", total("slip_x_notional"), total("fill_notional"))
        expect("features", "adverse_move_bps", total("adverse_x_notional"), total("markout_notional"))
        expect("features", "taker_share", count("taker_fills"), count("fills"))

        let weight = sum(ticks.map { $0.decimal("weight") })
        func weighted(_ isTrue: (Row) -> Bool) -> NSDecimalNumber { sum(ticks.filter(isTrue).map { $0.decimal("weight") }) }
        expect("features", "cache_hit_ratio", weighted { $0.flag("cache_hit") }, weight)
        expect("features", "stale_rate", weighted { $0.flag("used_stale") }, weight)
        expect("features", "deadline_miss_rate", weighted { $0.flag("deadline_miss") }, weight)
        let aged = ticks.filter { $0.optional("cache_age_ms") != nil }
        expect(
            "features", "cache_age_avg_ms", sum(aged.map { $0.decimal("cache_age_ms").multiplying(by: $0.decimal("weight")) }),
            sum(aged.map { $0.decimal("weight") }))
        // SPEC 1.4, weighted: the first value whose cumulative weight exceeds 95 % of all.
        var cumulative = 0
        let all = weight.intValue
        let p95 = ticks.sorted { $0.decimal("tick_total_ms").compare($1.decimal("tick_total_ms")) == .orderedAscending }.first {
            cumulative += $0.integer("weight")
            return cumulative * 100 > 95 * all
        }
        #expect(interval.object("features").optional("latency_p95_ms") == p95?.decimal("tick_total_ms"))

        for name in ["vol_realized", "liq_top_depth", "queue_absorb_rate", "queue_eta_ms", "pnl_dev"] {
            let used = snapshots.filter { $0.object("features").optional(name) != nil }
            expect(
                "features", name, sum(used.map { $0.object("features").decimal(name).multiplying(by: $0.decimal("span_ms")) }),
                sum(used.map { $0.decimal("span_ms") }))
        }
        #expect(
            interval.object("sample_count").integer("fills") == fills.count
                && interval.object("sample_count").integer("ticks") == ticks.count)
    }

    private func validate(_ dataset: String, directory: String) throws {
        guard Self.hasValidator else {
            Issue.record("no JSON Schema validator: install python3-jsonschema, as deploy/test does")
            return
        }
        let script = """
            import glob, json, os, sys, jsonschema
            proto, dataset, feeds = sys.argv[1:]
            def validator(name):
                schema = json.load(open(os.path.join(proto, name)))
                kind = jsonschema.validators.validator_for(schema)
                kind.check_schema(schema)
                return kind(schema)
            documents = rows = 0
            for path, schema in [(dataset, "dataset.schema.json"), (dataset[:-5] + ".manifest.json", "dataset.manifest.schema.json")]:
                validator(schema).validate(json.load(open(path)))
                documents += 1
            for path in sorted(glob.glob(feeds + "/*.jsonl")):
                check = validator("records/%s.schema.json" % os.path.basename(path)[:-len("_20250101.jsonl")])
                for number, line in enumerate(open(path), 1):
                    for error in check.iter_errors(json.loads(line)):
                        sys.exit("%s:%d: %s at %s" % (os.path.basename(path), number, error.message, list(error.path)))
                    rows += 1
            print(documents, rows)
            """
        let outcome = try Binaries.run(
            Self.python, ["-c", script, Repository.path("proto-json"), dataset, directory + "/feeds"], deadline: 300)
        #expect(outcome.status == 0, "\(outcome.standardError.suffix(600))")
        let counts = outcome.standardOutput.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        #expect(counts.count == 2 && counts[0] == 2 && counts[1] > 1_000)
    }
}
