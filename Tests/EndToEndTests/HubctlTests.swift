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
