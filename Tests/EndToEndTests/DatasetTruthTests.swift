import Foundation
import TestSupport
import Testing

/// Feeds from a seed, built by the real `hubctl`, and what programs that share nothing with it make of the same feeds.
@Suite struct DatasetTruthTests {
    /// Builds from `feeds` in a folder of its own and hands both to `body`.
    private static func withFeeds(_ arguments: [String], _ body: (_ root: String) throws -> Void) throws {
        let root = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: root) }
        let made = try Binaries.run("calib-lab", ["gen", "feeds", "--output", "feeds"] + arguments, in: root, deadline: 120)
        #expect(made.status == 0, "\(made.standardError)")
        try body(root)
    }

    private static func build(_ root: String, to: String = "2025-01-02T00:00:00Z", _ more: [String] = []) throws -> Binaries.Outcome {
        try Binaries.run(
            "hubctl",
            [
                "dataset", "build", "--feeds-dir", "feeds", "--output-dir", "datasets", "--from-ts", "2025-01-01T00:00:00Z", "--to-ts", to,
            ] + more, in: root, deadline: 120)
    }

    private static let stem = "datasets/calib_20250101_000000_20250102_000000"
    private static let python = "/usr/bin/python3"
    private static let others = Repository.path("deploy/bench/aggregate.py")

    /// Values to the last digit and rejects by reason, of the first program's form, clean and with 23 kinds of faults.
    @Test(arguments: [[], ["--dirty"], ["--dirty", "--spaced"], ["--dirty", "--digits", "15", "--seed", "9"]])
    func equalsTheReferenceInPython(_ arguments: [String]) throws {
        try Self.withFeeds(["--seed-form", "--hosts", "2", "--symbols", "2", "--hours", "1"] + arguments) { root in
            let built = try Self.build(root, ["-o", "json"])
            #expect(built.status == 0, "\(built.standardError)")
            #expect(built.standardError.contains("warning: ") == arguments.contains("--dirty"))
            let reference = try Binaries.run(
                Self.python, [Self.others, "reference", "feeds", "1735689600000", "1735776000000", "300"], in: root, deadline: 300)
            #expect(reference.status == 0, "\(reference.standardError)")
            try Data(reference.standardOutput.utf8).write(to: URL(fileURLWithPath: root + "/reference.json"))
            let compared = try Binaries.run(
                Self.python, [Self.others, "diff", Self.stem + ".json", Self.stem + ".manifest.json", "reference.json"], in: root)
            #expect(compared.status == 0, "\(compared.standardOutput)\(compared.standardError)")
            #expect(compared.standardOutput.hasPrefix("24 intervals, "))
            if arguments.contains("--dirty") {
                let rejects = compared.standardOutput.split(separator: " ").compactMap { Int($0) }
                #expect(rejects[1] > 30, "\(compared.standardOutput)")
            }
        }
    }

    /// One sha256 of dataset, Parquet and CSV, however many threads read the files. Both forms: faults in ours give one seq to two rows, and such files
    /// are read again by one thread, so a clean feed of ours is among them. Two hosts' rows meet in each interval.
    @Test(arguments: [["--seed-form", "--dirty"], ["--dirty"], []])
    func threadsLeaveNoTrace(_ form: [String]) throws {
        try Self.withFeeds(["--hosts", "2", "--symbols", "6", "--hours", "1"] + form) { root in
            var results: Set<String> = []
            for threads in ["1", "2", "5"] {
                let built = try Self.build(root, ["--no-cache", "--threads", threads, "--form", "parquet", "--form", "csv", "--replace"])
                #expect(built.status == 0, "\(built.standardError)")
                let hashes = try Binaries.run(
                    "/usr/bin/env", ["sha256sum"] + [".json", ".parquet", ".csv", ".manifest.json"].map { Self.stem + $0 }, in: root)
                #expect(hashes.standardOutput.split(separator: "\n").count == 4)
                results.insert(hashes.standardOutput)
            }
            #expect(results.count == 1)
        }
    }

    /// A Python with pandas, pyarrow, Polars and DuckDB; `deploy/test --full` makes one.
    private static let readers = ProcessInfo.processInfo.environment["CALIBRANT_READERS"]

    /// The one-liners of the README, and what they give: every value of the JSON, unknown ones unknown.
    @Test(
        .enabled(
            if: readers != nil,
            "SKIPPED: no pandas, pyarrow, Polars and DuckDB to read Parquet with; deploy/test --full installs them"))
    func othersOpenEveryForm_inTheReadmesOneLine() throws {
        let lines = try String(contentsOfFile: Repository.path("README.md"), encoding: .utf8).split(separator: "\n")
        let code = lines.filter { $0.hasPrefix("| ") && ($0.contains("(path)") || $0.contains("{path}")) }.compactMap { line in
            line.split(separator: "`").dropFirst().first.map(String.init)
        }
        #expect(code.count == 4)
        try Self.withFeeds(["--hosts", "2", "--symbols", "3", "--hours", "1"]) { root in
            let built = try Self.build(root, ["--form", "parquet", "--form", "csv", "--per-host"])
            #expect(built.status == 0, "\(built.standardError)")
            let script = """
                import datetime, json, math, sys
                import duckdb, pandas as pd, polars as pl, pyarrow.parquet as pq
                stem, code = sys.argv[1], sys.argv[2:]
                rows = json.load(open(stem + ".json"))["intervals"]
                groups = [("targets", "target_"), ("features", "feature_"), ("actions", "action_"), ("sample_count", "count_")]
                values = nulls = 0
                def check(name, column, flat):
                    global values, nulls
                    for place, row in enumerate(rows):
                        start = datetime.datetime.fromisoformat(row["interval_start"].replace("Z", "+00:00"))
                        for group, prefix in groups:
                            for key, expected in row[group].items():
                                got = column((prefix if flat else group + ".") + key)[place]
                                if expected is None:
                                    assert got is None or math.isnan(got), (name, key, place, got)
                                    nulls += 1
                                else:
                                    assert got == expected, (name, key, place, got, expected)
                                    values += 1
                        for key in ("symbol", "host"):
                            assert column(key)[place] == row[key], (name, key)
                        if flat:
                            got = pd.Timestamp(column("interval_start")[place])
                            got = got.tz_localize("UTC") if got.tzinfo is None else got
                            assert got == start and column("interval_start_ms")[place] == start.timestamp() * 1000, (name, got, start)
                            flags = column("flags")[place]
                            assert ("" if isinstance(flags, float) or flags is None else flags).split() == row["flags"], (name, flags)
                for text in code:
                    path = stem + (".json" if "json" in text else ".parquet")
                    frame = eval(text)
                    check(text, lambda key: frame[key].to_list() if hasattr(frame[key], "to_list") else list(frame[key]), "json" not in text)
                table = pq.read_table(stem + ".parquet")
                check("pyarrow", lambda key: table[key].to_pylist(), True)
                assert str(table.schema.field("interval_start").type) == "timestamp[ms, tz=UTC]"
                frame = pd.read_csv(stem + ".csv", parse_dates=["interval_start", "interval_end"])
                check("csv, pandas", lambda key: frame[key].to_list(), True)
                other = pl.read_csv(stem + ".csv", infer_schema_length=None)
                check("csv, polars", lambda key: other[key].to_list(), True)
                print(len(rows), values, nulls)
                """
            let outcome = try Binaries.run(Self.readers!, ["-c", script, Self.stem] + code, in: root, deadline: 300)
            #expect(outcome.status == 0, "\(outcome.standardError.suffix(900))")
            let counts = outcome.standardOutput.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
            #expect(counts.count == 3 && counts[0] == 72 && counts[1] > 10_000 && counts[2] >= 0)
        }
    }

    /// Every field of every row, as Python's own JSON reader has it.
    @Test(.enabled(if: readers != nil, "SKIPPED: no pyarrow to read Parquet with; deploy/test --full installs it"))
    func feedsAreExportedWhole() throws {
        try Self.withFeeds(["--hosts", "2", "--symbols", "10", "--hours", "1"]) { root in
            let exported = try Binaries.run(
                "hubctl", ["feed", "export", "--format", "parquet", "--feeds-dir", "feeds", "--output-dir", "exports"], in: root)
            #expect(exported.status == 0 && exported.standardError.isEmpty, "\(exported.standardError)")
            let script = """
                import glob, json, sys
                import pyarrow.parquet as pq
                cells = 0
                def flat(row, prefix=""):
                    out = {}
                    for key, value in row.items():
                        if isinstance(value, dict): out.update(flat(value, prefix + key + "_"))
                        else: out[prefix + key] = value
                    return out
                for feed in ["fills", "pipeline_ticks", "feature_snapshots", "markouts", "quotes"]:
                    table = pq.read_table("exports/" + feed + ".parquet")
                    lines = [line for path in sorted(glob.glob("feeds/host=*/" + feed + "_*.jsonl")) for line in open(path)]
                    assert table.num_rows == len(lines) > 0, (feed, table.num_rows, len(lines))
                    assert str(table.schema.field("ts").type) == "timestamp[ms, tz=UTC]"
                    rows = [flat(json.loads(line)) for line in lines]
                    columns = {name: table[name].to_pylist() for name in table.column_names}
                    # What an edge writes, and nothing else; rows of a seed have less.
                    example = flat(json.load(open(sys.argv[1] + "/" + feed + ".json")))
                    assert set(example) - {"ts_iso"} == set(columns), (feed, set(example) ^ set(columns))
                    assert {name for row in rows for name in row} <= set(example), (feed, set(rows[0]) - set(example))
                    for name, column in columns.items():
                        for row, got in zip(rows, column):
                            expected = row.get(name)
                            if name == "ts": got = round(got.timestamp() * 1000)
                            if name == "tick_ns_histogram": got = json.loads(got)
                            assert got == expected and type(got) in (type(expected), float), (feed, name, got, expected)
                            cells += 1
                print(cells)
                """
            let compared = try Binaries.run(
                Self.readers!, ["-c", script, Repository.path("proto-json/examples")], in: root, deadline: 300)
            #expect(compared.status == 0, "\(compared.standardError.suffix(900))")
            #expect((Int(compared.standardOutput.filter(\.isNumber)) ?? 0) > 1_000_000)
        }
    }

    /// Of each feed every line comes to a row or to a reject; those are the ones that a dataset's manifest tells of.
    @Test func exportTellsOfLinesThatAreNoRows_andOfNothingToExport() throws {
        try Self.withFeeds(["--seed-form", "--hosts", "1", "--symbols", "1", "--hours", "1", "--dirty"]) { root in
            func export(_ more: [String]) throws -> (Binaries.Outcome, [[String: Any]]) {
                let outcome = try Binaries.run("hubctl", ["feed", "export", "--feeds-dir", "feeds", "-o", "json"] + more, in: root)
                let body = try? JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
                return (outcome, body?["exports"] as? [[String: Any]] ?? [])
            }
            let (outcome, exports) = try export(["--output-dir", "exports"])
            #expect(outcome.status == 0 && outcome.standardError.contains(" are no rows ("), "\(outcome.standardError)")
            _ = try Self.build(root)
            let manifest =
                try JSONSerialization.jsonObject(
                    with: Data(contentsOf: URL(fileURLWithPath: root + "/" + Self.stem + ".manifest.json"))) as? [String: Any]
            let files = manifest?["files"] as? [[String: Any]] ?? []
            for feed in ["fills", "pipeline_ticks"] {
                let file = try #require(files.first { $0["feed"] as? String == feed })
                let export = try #require(exports.first { $0["feed"] as? String == feed })
                #expect(export["rows"] as? Int == file["rows"] as? Int && export["rejected_lines"] as? Int == file["rejected"] as? Int)
                #expect((export["rejected_lines"] as? Int ?? 0) > 0)
                let parquet = try Data(contentsOf: URL(fileURLWithPath: "\(root)/\(export["file"] as? String ?? "-")"))
                #expect(parquet.prefix(4) == Data("PAR1".utf8) && parquet.suffix(4) == Data("PAR1".utf8))
            }
            #expect(exports.count == 5 && exports.count { $0["file"] is NSNull } == 3)

            // Of a range, the rows of its minutes only.
            let (_, half) = try export(
                [
                    "--output-dir", "half", "--feed", "pipeline_ticks", "--from-ts", "2025-01-01T00:30:00Z", "--to-ts",
                    "2025-01-01T01:00:00Z",
                ])
            let (_, rest) = try export(["--output-dir", "rest", "--feed", "pipeline_ticks", "--to-ts", "2025-01-01T00:30:00Z"])
            let counts = [half, rest].map { $0.first?["rows"] as? Int ?? 0 }
            let all = exports.first { $0["feed"] as? String == "pipeline_ticks" }?["rows"] as? Int ?? 0
            #expect(counts.min()! > 0 && counts[0] + counts[1] <= all && counts.max()! < all, "\(counts) of \(all)")

            let (nothing, _) = try export(["--output-dir", "none", "--feed", "quotes"])
            #expect(nothing.status == 1 && nothing.standardError.contains("no row to export"))
            #expect(try FileManager.default.contentsOfDirectory(atPath: root + "/none").isEmpty)
            #expect(try export(["--feed", "events"]).0.status == 64)
            #expect(try export(["--from-ts", "2025-01-02T00:00:00Z", "--to-ts", "2025-01-01T00:00:00Z"]).0.status == 64)
        }
    }
}
