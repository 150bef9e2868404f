import Foundation
import TestSupport
import Testing

/// The real `hubctl` on files of a temporary directory.
@Suite struct HubctlTests {
    private static let fill =
        #"{"ts":1735689600000,"symbol":"BTCUSDT","side":"BUY","price":50000.0,"qty":0.1,"taker":false,"quote_price":50001.0,"mid_now":50002.0}"#
    private static let tick =
        #"{"ts":1735689600000,"symbol":"BTCUSDT","tick_total_ms":36.0,"cache_hit":true,"cache_age_ms":45,"used_stale":false,"deadline_miss":false}"#

    private final class Feeds {
        let root: String
        init() throws {
            root = try Binaries.temporaryDirectory()
            try write("fills_20250101.jsonl", fill + "\n" + fill + "\n")
            try write("pipeline_ticks_20250101.jsonl", String(repeating: tick + "\n", count: 20) + "{bad\n" + tick + "\n")
        }
        deinit { try? FileManager.default.removeItem(atPath: root) }

        func write(_ name: String, _ text: String) throws {
            let url = URL(fileURLWithPath: "\(root)/artifacts/edge/feeds/\(name)")
            try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: url)
        }
        func read(_ path: String) throws -> String { try String(contentsOfFile: "\(root)/artifacts/edge/\(path)", encoding: .utf8) }
        func build(_ more: [String] = [], from: String = "2025-01-01T00:00:00Z") throws -> Binaries.Outcome {
            try Binaries.run("hubctl", ["dataset", "build", "--from-ts", from, "--to-ts", "2025-01-02T00:00:00Z"] + more, in: root)
        }
        var names: [String] {
            get throws { try FileManager.default.contentsOfDirectory(atPath: "\(root)/artifacts/edge/datasets").sorted() }
        }
    }

    private static let stem = "calib_20250101_000000_20250102_000000"

    @Test func buildThenSummary() throws {
        let feeds = try Feeds()
        let built = try feeds.build(["-o", "json"])
        #expect(built.status == 0, "\(built.standardError)")
        let result = try #require(try JSONSerialization.jsonObject(with: Data(built.standardOutput.utf8)) as? [String: Any])
        #expect(result["status"] as? String == "written" && result["rejected_lines"] as? Int == 1)
        #expect(try feeds.names == ["\(Self.stem).json", "\(Self.stem).manifest.json"])
        let manifest = try #require(
            try JSONSerialization.jsonObject(with: Data(feeds.read("datasets/\(Self.stem).manifest.json").utf8)) as? [String: Any])
        #expect(manifest["sha256"] as? String == result["sha256"] as? String)
        let listed = ((manifest["rejects"] as? [String: Any])?["listed"] as? [[String: Any]])?.first
        #expect(listed?["file"] as? String == "pipeline_ticks_20250101.jsonl" && listed?["line"] as? Int == 21)
        // A bad line never takes its neighbour with it.
        #expect(try feeds.read("datasets/\(Self.stem).json").contains(#""sample_count":{"fills":2,"ticks":21,"#))

        let summary = try Binaries.run("hubctl", ["dataset", "summary", "artifacts/edge/datasets/\(Self.stem).json"], in: feeds.root)
        #expect(summary.status == 0 && summary.standardOutput == "artifacts/edge/reports/calib_summary_\(Self.stem).md\n")
        #expect(try feeds.read("reports/calib_summary_\(Self.stem).md").contains("| net_bps | bps | 1 | 0.399984 |"))
    }

    @Test func rebuildIsUnchanged_andOtherBytesNeedReplace() throws {
        let feeds = try Feeds()
        #expect(try feeds.build().status == 0)
        let first = try feeds.read("datasets/\(Self.stem).json")
        let again = try feeds.build()
        #expect(again.status == 0 && again.standardOutput.contains("unchanged"))
        try feeds.write("fills_20250101.jsonl", Self.fill + "\n")
        let refused = try feeds.build()
        #expect(refused.status == 1 && refused.standardOutput.isEmpty && refused.standardError.contains("--replace"))
        #expect(try feeds.read("datasets/\(Self.stem).json") == first)
        let replaced = try feeds.build(["--replace"])
        #expect(replaced.status == 0 && replaced.standardOutput.contains("replaced"))
        #expect(try feeds.read("datasets/\(Self.stem).json") != first)
        #expect(try feeds.names.count == 2)
    }

    @Test func verifyHoldsADatasetAgainstItsManifestAndItsFeeds() throws {
        let feeds = try Feeds()
        #expect(try feeds.build(["--form", "parquet", "--form", "csv", "--keep-filtered", "--symbols", "BTCUSDT"]).status == 0)
        let path = "\(feeds.root)/artifacts/edge/datasets/\(Self.stem)"
        func failing(_ more: [String] = []) throws -> [String] {
            let outcome = try Binaries.run(
                "hubctl", ["dataset", "verify", "artifacts/edge/datasets/\(Self.stem).json", "-o", "json"] + more, in: feeds.root)
            let body = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
            let checks = body?["checks"] as? [[String: Any]] ?? []
            #expect(checks.count >= 2, "\(outcome.standardError)")
            let failing = checks.filter { $0["state"] as? String != "pass" }.compactMap { $0["check"] as? String }
            #expect(outcome.status == (failing.isEmpty ? 0 : 2))
            return failing
        }
        #expect(try failing() == [] && failing(["--rebuild"]) == [])
        let csv = try Data(contentsOf: URL(fileURLWithPath: path + ".csv"))
        try (csv + Data("x".utf8)).write(to: URL(fileURLWithPath: path + ".csv"))
        try FileManager.default.removeItem(atPath: path + ".parquet")
        #expect(try failing() == ["\(Self.stem).parquet", "\(Self.stem).csv"])
        // A feed that lost a line: the dataset is still what its manifest says, and not what its feeds say.
        try feeds.write("fills_20250101.jsonl", Self.fill + "\n")
        #expect(try failing(["--rebuild"]) == ["\(Self.stem).parquet", "\(Self.stem).csv", "rebuild"])
        try Data(feeds.read("datasets/\(Self.stem).json").replacing("\"fills\":2", with: "\"fills\":3").utf8).write(
            to: URL(fileURLWithPath: path + ".json"))
        #expect(try failing().first == "bytes")
        // What the manifest says of itself, against the dataset.
        #expect(try feeds.build(["--keep-filtered", "--symbols", "BTCUSDT", "--replace"]).status == 0)
        #expect(try failing() == [])
        try Data(feeds.read("datasets/\(Self.stem).manifest.json").replacing("\"rows\":1,\"dataset", with: "\"rows\":2,\"dataset").utf8)
            .write(
                to: URL(fileURLWithPath: path + ".manifest.json"))
        #expect(try failing() == ["rows"])
        try FileManager.default.removeItem(atPath: path + ".manifest.json")
        #expect(try failing() == ["manifest"])
        #expect(try Binaries.run("hubctl", ["dataset", "verify", "none.json"], in: feeds.root).status == 1)
    }

    @Test func diffNamesWhatIsDifferent() throws {
        let feeds = try Feeds()
        #expect(try feeds.build().status == 0)
        let dataset = "artifacts/edge/datasets/\(Self.stem).json"
        let text = try feeds.read("datasets/\(Self.stem).json")
        func differences(_ other: String) throws -> [String] {
            try Data(other.utf8).write(to: URL(fileURLWithPath: "\(feeds.root)/other.json"))
            let outcome = try Binaries.run("hubctl", ["dataset", "diff", dataset, "other.json", "-o", "csv"], in: feeds.root)
            #expect(outcome.status == (other == text ? 0 : other.hasPrefix("{") ? 2 : 1))
            return outcome.standardOutput.split(whereSeparator: \.isNewline).dropFirst().map(String.init)
        }
        #expect(try differences(text) == [])
        let start = "BTCUSDT 2025-01-01T00:00:00Z"
        #expect(
            try differences(
                text.replacing("\"taker_share\":0.0", with: "\"taker_share\":0.5").replacing("\"arm\":\"A\"", with: "\"arm\":\"all\""))
                == [",arm,\"\"\"A\"\"\",\"\"\"all\"\"\"", "\(start),targets.taker_share,0.0,0.5"])
        #expect(
            try differences(text.replacing("\"interval_start\":\"2025-01-01T00:00", with: "\"interval_start\":\"2025-01-01T00:05"))
                == ["\(start),,there,", "BTCUSDT 2025-01-01T00:05:00Z,,,there"])
        let fewer = text.replacing("\"schema\":\"calibrant/dataset/1\",", with: "")
        #expect(try differences(fewer) == [",schema,\"\"\"calibrant/dataset/1\"\"\","])
        let more = text.replacing("\"arm\":\"A\"", with: "\"arm\":\"A\",\"extra\":7")
        #expect(try differences(more) == [",extra,,7"])
        #expect(try differences("nothing") == [])
        let schema = try Binaries.run("hubctl", ["dataset", "schema", "-o", "csv"])
        #expect(
            schema.status == 0
                && schema.standardOutput.contains("feature_vol_realized,features.vol_realized,double,bps per sqrt s,true\r\n"))
    }

    @Test func hostFoldersAndPartsAreRead() throws {
        let feeds = try Feeds()
        try feeds.write("host=tokyo/fills_20250101.1.jsonl", Self.fill + "\n")
        #expect(try feeds.build(["--symbols", "BTCUSDT", "ETHUSDT", "--offline"]).status == 0)
        let text = try feeds.read("datasets/\(Self.stem).json")
        #expect(text.contains(#""hosts":["local","tokyo"]"#) && text.contains(#""fills":3"#))
    }

    @Test func bothFormsEndWithStatus2() throws {
        let feeds = try Feeds()
        let ours = Self.fill.dropLast() + #","v":1,"source":"sim","host":"a","epoch":"0000000000000001","seq":1}"#
        try feeds.write("fills_20250102.jsonl", ours + "\n")
        let outcome = try feeds.build(["-o", "json"])
        #expect(outcome.status == 2 && outcome.standardOutput.isEmpty)
        #expect(outcome.standardError.contains("fills_20250101.jsonl:1") && outcome.standardError.contains("\"exit_code\":2"))
    }

    @Test func naiveTimesAreUTC_saidOnce() throws {
        let feeds = try Feeds()
        let outcome = try feeds.build(from: "2025-01-01T00:00:00")
        #expect(outcome.status == 0)
        #expect(outcome.standardError.contains("2025-01-01T00:00:00Z to 2025-01-02T00:00:00Z"))
        #expect(outcome.standardError.components(separatedBy: "UTC").count == 2)
    }

    @Test(
        arguments: [
            (["--interval-sec", "15"], 64), (["--max-deadline-miss", "5"], 64), (["--no-such-flag"], 64), (["--from-ts", "yesterday"], 64),
            (["--feeds-dir", "nowhere"], 1), (["--symbols", "NONE"], 1),
        ] as [([String], Int32)])
    func troubleHasItsStatus(_ arguments: [String], status: Int32) throws {
        let feeds = try Feeds()
        let outcome = try feeds.build(arguments)
        #expect(outcome.status == status && outcome.standardOutput.isEmpty && !outcome.standardError.isEmpty)
    }

    @Test func summaryOfSomethingElseEndsWithStatus2() throws {
        let feeds = try Feeds()
        let outcome = try Binaries.run("hubctl", ["dataset", "summary", "artifacts/edge/feeds/fills_20250101.jsonl"], in: feeds.root)
        #expect(outcome.status == 2)
        #expect(try Binaries.run("hubctl", ["dataset", "summary", "none.json"], in: feeds.root).status == 1)
    }
}
