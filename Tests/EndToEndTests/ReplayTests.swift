import Foundation
import NodeShell
import TestSupport
import Testing

/// `edge-node replay` as its users run it.
@Suite struct ReplayTests {
    struct Failed: Error, CustomStringConvertible { var description: String }

    static func replay(_ arguments: [String], venue: String = "binance-usdm") throws -> [String: Any] {
        let outcome = try Binaries.run("edge-node", ["replay", "--venue", venue, "-o", "json"] + arguments, deadline: 120)
        guard outcome.status == 0 else { throw Failed(description: "status \(outcome.status): \(outcome.standardError)") }
        return try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any] ?? [:]
    }

    /// A synthetic recording in a directory of its own, which the caller's body may fill further.
    static func withRecording(seconds: Int, seed: Int = 11, _ body: (_ directory: String, _ recording: String) throws -> Void) throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/recording.gz"
        let made = try Binaries.run(
            "calib-lab", ["venue", "--wire", "binance-usdm", "--record", path, "--seed", "\(seed)", "--seconds", "\(seconds)"])
        guard made.status == 0 else { throw Failed(description: made.standardError) }
        try body(directory, path)
    }

    static func lines(_ path: String) throws -> [String] {
        var input = try LineInput(path: path)
        var result: [String] = []
        while let line = try input.next() { result.append(String(decoding: line, as: UTF8.self)) }
        return result
    }

    private func number(_ object: [String: Any], _ key: String) -> Double? { (object[key] as? NSNumber)?.doubleValue }

    // MARK: Real recordings

    @Test(.enabled(if: Recordings.areHere, Comment(rawValue: Recordings.absence)))
    func theUsdmRecordingGivesTheBookThatItsTickersShow() throws {
        let first = try Self.replay(["--input", Recordings.usdm, "--no-feeds"])
        for (key, expected) in [
            ("messages", 93_954), ("depth_messages", 6_551), ("trades", 21_313), ("book_tickers", 66_089), ("sequence_gaps", 0),
            ("crossed", 0),
            ("book_ticker_matches", 629), ("book_ticker_mismatches", 0), ("best_bid", 61_659.7), ("best_ask", 61_659.8),
            ("unsynced_messages", 6),
        ] as [(String, Double)] {
            #expect(number(first, key) == expected, "\(key)")
        }
        #expect(number(first, "fills")! > 0)
        let again = try Self.replay(["--input", Recordings.usdm, "--no-feeds", "--config", Repository.path("config/edge.yaml")])
        #expect(first["quotes_hash"] as? String == again["quotes_hash"] as? String)
        let other = try Self.replay(["--input", Recordings.usdm, "--no-feeds", "--set", "spread.base_bps=1.3"])
        #expect(first["quotes_hash"] as? String != other["quotes_hash"] as? String)
    }

    @Test(.enabled(if: Recordings.areHere, Comment(rawValue: Recordings.absence)))
    func theSpotPairIsOneBookOverMidnight() throws {
        let result = try Self.replay(Recordings.spot.flatMap { ["--input", $0] } + ["--no-feeds"], venue: "binance-spot")
        #expect(number(result, "book_ticker_matches") == 1_072 && number(result, "book_ticker_mismatches") == 0)
        #expect(number(result, "sequence_gaps") == 0 && number(result, "crossed") == 0)
    }

    // MARK: Sequence

    /// One depth message removed: exactly that gap, and no order from there on.
    @Test func aRemovedMessageIsExactlyOneGap_andNothingIsQuotedAfterIt() throws {
        try Self.withRecording(seconds: 20) { directory, recording in
            var lines = try Self.lines(recording)
            let depths = lines.indices.filter { lines[$0].contains("depthUpdate") }
            let victim = depths[depths.count / 2]
            let next = depths[depths.count / 2 + 1]
            func field(_ name: String, _ line: String) -> Int {
                Int(line.components(separatedBy: "\"\(name)\":")[1].prefix { $0.isNumber })!
            }
            let lastID = field("pu", lines[victim])
            let gapTime = Int(lines[next].prefix { $0 != " " })! / 1_000_000
            let received = field("pu", lines[next])
            lines.remove(at: victim)
            try (lines.joined(separator: "\n") + "\n").write(toFile: directory + "/cut.txt", atomically: true, encoding: .utf8)
            let result = try Self.replay([
                "--input", directory + "/cut.txt", "--artifacts", directory, "--set", "pipeline.pipeline_sample_rate=1",
            ])
            #expect(number(result, "sequence_gaps") == 1)
            let gap = try #require((result["gaps"] as? [[String: Any]])?.first)
            #expect(
                number(gap, "expected") == Double(lastID) && number(gap, "received") == Double(received)
                    && number(gap, "ts") == Double(gapTime))
            #expect(number(result, "unsynced_messages")! > Double(depths.count / 2 - 10))
            let rows = try FeedRows(directory: directory + "/feeds")
            // Both orders were pulled: their last rows come with the first frame after the cancels' 5 ms, not with the end 10 s later.
            #expect(!rows["quotes"].isEmpty && rows["quotes"].allSatisfy { $0.integer("ts") <= gapTime + 500 })
            // Nothing was decided after the gap.
            #expect(rows["pipeline_ticks"].last!.integer("ts") < gapTime)
        }
    }

    // MARK: Files

    @Test func theFormOfTheFileDoesNotMatter() throws {
        try Self.withRecording(seconds: 10) { directory, recording in
            let text = try Self.lines(recording).joined(separator: "\n")
            try text.write(toFile: directory + "/plain", atomically: true, encoding: .utf8)
            var packed = try LineOutput(path: directory + "/packed.zst")
            try packed.append(Array(text.utf8))
            try packed.finish()
            let hashes = try [recording, directory + "/plain", directory + "/packed.zst"].map {
                try Self.replay(["--input", $0, "--no-feeds"])["quotes_hash"] as? String
            }
            #expect(Set(hashes).count == 1)
        }
    }

    @Test func trouble_isNamed() throws {
        let missing = try Binaries.run("edge-node", ["replay", "--venue", "binance-usdm", "--input", "/nowhere/file.gz", "--no-feeds"])
        #expect(missing.status == 1 && missing.standardError.contains("/nowhere/file.gz"))
        let venue = try Binaries.run("edge-node", ["replay", "--venue", "nasdaq", "--input", "x"])
        #expect(venue.status == 64 && venue.standardError.contains("binance-usdm"))
    }

    @Test func aBadConfigurationShowsEveryMistakeAtOnce() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/bad.yaml"
        try "md_cache:\n  ttl_ms: 5\n  nonsense: 1\nspread:\n  base_bps: wide\nfees_file: none.yaml\n".write(
            toFile: path, atomically: true, encoding: .utf8)
        let outcome = try Binaries.run("edge-node", ["config", "check", "--config", path])
        #expect(outcome.status == 78)
        for expected in ["\(path):2:11: md_cache.ttl_ms", "\(path):3:", "unknown key", "\(path):5:13: spread.base_bps", "none.yaml"] {
            #expect(outcome.standardError.contains(expected), "\(expected) in \(outcome.standardError)")
        }
    }

    /// The annotated file covers every key, with the default that the program has.
    @Test func theAnnotatedConfigurationIsTheDefault() throws {
        let builtIn = try Binaries.run("edge-node", ["config", "show"]).standardOutput
        let file = try Binaries.run("edge-node", ["config", "show", "--config", Repository.path("config/edge.yaml")]).standardOutput
        #expect(!builtIn.isEmpty && builtIn == file)
        let text = try String(contentsOfFile: Repository.path("config/edge.yaml"), encoding: .utf8)
        for line in builtIn.split(separator: "\n") {
            let key = line.split(separator: "=")[0].split(separator: ".").last!
            #expect(text.contains("\(key):"), "\(key) stands in config/edge.yaml")
        }
    }
}
