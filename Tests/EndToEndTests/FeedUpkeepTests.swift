import Foundation
import TestSupport
import Testing

/// What a running edge does with files that are complete, and with a disk that is full.
@Suite(.serialized)
struct FeedUpkeepTests {
    private static func rows(_ count: Int) -> String {
        (1...count).map { "{\"ts\":1735689600000,\"v\":1,\"host\":\"e1\",\"epoch\":\"0123456789abcdef\",\"seq\":\($0)}\n" }.joined()
    }

    /// The edge was down over midnight: what it left is sealed at the next start, and never again.
    @Test func filesOfEarlierDaysAreSealedExactlyOnce() throws {
        let text = Self.rows(1000)
        let rig = try EdgeRig(["--set", "retention.days=0"]) { directory in
            let feeds = directory + "/artifacts/feeds"
            try FileManager.default.createDirectory(atPath: feeds, withIntermediateDirectories: true)
            try Data("0123456789abcdef\n".utf8).write(to: URL(fileURLWithPath: feeds + "/.epoch"))
            for name in ["quotes_20250101", "quotes_20250102", "fills_20250102"] {
                try Data(text.utf8).write(to: URL(fileURLWithPath: "\(feeds)/\(name).jsonl"))
            }
            return []
        }
        let ledger = rig.artifacts + "/feeds/.sealed"
        func lines() -> Int { (try? String(contentsOfFile: ledger, encoding: .utf8))?.split(separator: "\n").count ?? 0 }
        try rig.wait(for: "the ledger") { lines() == 3 }
        rig.edge.signal(SIGKILL)
        #expect(rig.edge.wait() == 137)
        try rig.startAgain()
        try rig.wait(for: "ticks") { try rig.metric("mm_ticks_total") ?? 0 > 10 }
        #expect(rig.stop() == 0)

        let sum = try Binaries.run("/usr/bin/sha256sum", [rig.artifacts + "/feeds/quotes_20250101.jsonl"]).standardOutput.prefix(64)
        let rows = try rig.rows()
        let sealed = rows["events"].filter { $0.text("event") == "sealed" }.map { $0.object("detail") }
        #expect(
            Set(sealed.map { "\($0.text("feed") ?? "") \($0.text("day") ?? "")" }) == [
                "quotes 20250101", "quotes 20250102", "fills 20250102",
            ])
        #expect(sealed.count == 3 && lines() == 3)
        for file in sealed {
            #expect(file.integer("bytes") == text.utf8.count && file.integer("rows") == 1000 && file.text("sha256") == String(sum))
        }
        // Old bytes are as they were, and new rows go on from their numbers.
        #expect(try String(contentsOfFile: rig.artifacts + "/feeds/fills_20250102.jsonl", encoding: .utf8) == text)
        for feed in ["quotes", "pipeline_ticks", "events"] { #expect(!rows[feed].isEmpty, "\(feed)") }
        #expect(rows["fills"].dropFirst(1000).map { $0.integer("seq") } == Array(1001..<1001 + rows["fills"].count - 1000))
    }

    @Test func filesBeyondTheSizeGo_theTwoNewestStay() throws {
        let rig = try EdgeRig(["--set", "retention.max_bytes=1048576"]) { directory in
            let feeds = directory + "/artifacts/feeds"
            try FileManager.default.createDirectory(atPath: feeds, withIntermediateDirectories: true)
            for day in 1...4 { try Data(Self.rows(5000).utf8).write(to: URL(fileURLWithPath: "\(feeds)/fills_2025010\(day).jsonl")) }
            return []
        }
        func names() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: rig.artifacts + "/feeds").filter { $0.hasPrefix("fills_2025") }.sorted()
        }
        // Today's file is the newest of all once there is a fill.
        try rig.wait(for: "removal") { try names().count <= 2 }
        #expect(try names().last == "fills_20250104.jsonl")
        #expect(rig.stop() == 0)
        #expect(try rig.rows()["fills"].map { $0.integer("seq") }.max() ?? 0 >= 5000)
    }

    // MARK: A full disk

    /// Mounting needs rights that not everybody has.
    private static let canMount: Bool = {
        guard geteuid() == 0, let directory = try? Binaries.temporaryDirectory() else { return false }
        defer { try? FileManager.default.removeItem(atPath: directory) }
        guard (try? mount(directory)) != nil else { return false }
        unmount(directory)
        return true
    }()

    private static func mount(_ path: String) throws {
        let outcome = try Binaries.run("/usr/bin/mount", ["-t", "tmpfs", "-o", "size=8m", "calibrant-test", path])
        guard outcome.status == 0 else { throw FeedRows.Broken(description: outcome.standardError) }
    }

    private static func unmount(_ path: String) { _ = try? Binaries.run("/usr/bin/umount", ["-l", path]) }

    @Test(
        .enabled(
            if: canMount,
            "SKIPPED: a full disk needs a small file system of its own, so root; FeedFilesTests covers its faults by injection alone"))
    func fullDiskPullsQuotes_andWhenItHealsNoRowIsMissing() throws {
        var mounted: String?
        defer { if let mounted { Self.unmount(mounted) } }
        let rig = try EdgeRig(["--set", "feeds.disk_grace_s=1"]) { directory in
            let artifacts = directory + "/artifacts"
            try FileManager.default.createDirectory(atPath: artifacts, withIntermediateDirectories: true)
            try Self.mount(artifacts)
            mounted = artifacts
            return []
        }
        func quotes() throws -> Double { try rig.metric("mm_quotes_total") ?? 0 }
        func ticks() throws -> Double { try rig.metric("mm_ticks_total") ?? 0 }
        func times(_ text: String) -> Int { rig.edge.standardError.components(separatedBy: text).count - 1 }
        let filler = rig.artifacts + "/filler"
        /// What the edge gives back when an append fails is taken, too.
        func fill() throws {
            _ = try Binaries.run("/usr/bin/dd", ["if=/dev/zero", "of=\(filler)", "bs=4k", "oflag=append", "conv=notrunc"])
        }
        for _ in 1...2 {
            let (start, pulled) = (try quotes(), times("Quotes are pulled until"))
            try rig.wait(for: "quotes") { try quotes() > start + 4 }
            try rig.wait(for: "quotes pulled") {
                try fill()
                return times("Quotes are pulled until") > pulled
            }
            #expect(try rig.get("/-/ready").status == 503)
            // Metrics are a second old at most: the first ticks seen to rise tell that what stands there now is of after the pull.
            var (ticked, quoted) = (try ticks(), 0.0)
            for count in [1.0, 10] {
                quoted = try quotes()
                ticked = try ticks()
                try rig.wait(for: "ticks without quotes") {
                    try fill()
                    return try ticks() >= ticked + count
                }
            }
            #expect(try quotes() == quoted)
            let healed = times("are written again")
            try FileManager.default.removeItem(atPath: filler)
            try rig.wait(for: "healing") { times("are written again") > healed }
            try rig.wait(for: "quotes again") { try quotes() > quoted + 2 }
        }
        #expect(rig.stop() == 0)
        let rows = try rig.rows()
        for feed in rows.feeds { #expect(rows[feed].map { $0.integer("seq") } == Array(1...max(1, rows[feed].count)), "\(feed)") }
        let summary = try JSONSerialization.jsonObject(with: Data((rig.edge.lastLine() ?? "").utf8)) as? [String: Any]
        #expect(rows["pipeline_ticks"].count == summary?["ticks"] as? Int && rows["fills"].count == summary?["fills"] as? Int)
        #expect(rows["quotes"].count == summary?["quotes"] as? Int, "one row per order")
        #expect(rows["events"].count { $0.text("event") == "halt" && $0.object("detail").text("cause") == "disk" } >= 2)
        #expect(!rows["events"].contains { ["dropped", "lost", "cut"].contains($0.text("event")) })
    }
}
