import Foundation
import TestSupport
import Testing

/// SIGHUP: the configuration is read again, and taken whole or not at all, while the edge quotes.
@Suite(.serialized)
struct ReloadRunTests {
    private func write(_ text: String, _ rig: String) throws -> String {
        let path = rig + "/edge.yaml"
        let tables = ["instruments", "fees"].map { "\($0)_file: \(Repository.path("config/\($0).yaml"))\n" }.joined()
        try (tables + text).write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    @Test func takesWhatIsGood_refusesTheRestWhole_andQuotesOn() throws {
        let rig = try EdgeRig { directory in ["--config", try write("spread:\n  base_bps: 1.0\n", directory)] }
        func said(_ text: String) -> Bool { rig.edge.standardError.contains(text) }
        try rig.wait(for: "quotes") { try rig.metric("mm_quotes_total") ?? 0 > 4 }

        _ = try write("spread:\n  base_bps: 1.4\nlimits:\n  position: 1.5\nmd_cache:\n  ttl_ms: 200\n", rig.directory)
        rig.edge.signal(SIGHUP)
        try rig.wait(for: "the new configuration") { said("read again on SIGHUP") }
        #expect(said("limits.position=1.5") && said("spread.base_bps=1.4") && said("md_cache.ttl_ms=200"))
        let quotes = try rig.metric("mm_quotes_total") ?? 0
        try rig.wait(for: "more quotes") { try rig.metric("mm_quotes_total") ?? 0 > quotes + 4 }

        // Mistakes, all of them; then what needs a restart and what would widen a limit, together with something harmless.
        _ = try write("spread:\n  base_bps: wide\nnonsense: 1\n", rig.directory)
        rig.edge.signal(SIGHUP)
        try rig.wait(for: "mistakes") { said("spread.base_bps") && said("nonsense") && said("old one stays in effect") }
        _ = try write(
            "venue:\n  depth: 200\nmetrics:\n  symbol_ttl: 60\nlimits:\n  position: 1.8\nspread:\n  base_bps: 2.0\n", rig.directory)
        rig.edge.signal(SIGHUP)
        try rig.wait(for: "what needs a restart") {
            said("venue.depth: needs a restart") && said("metrics.symbol_ttl: needs a restart") && said("limits.position: needs a restart")
        }
        #expect(!said("base_bps=2"), "nothing of a refused file takes effect")
        let more = try rig.metric("mm_quotes_total") ?? 0
        try rig.wait(for: "quotes after all") { try rig.metric("mm_quotes_total") ?? 0 > more + 4 }
        #expect(rig.stop() == 0)

        let rows = try rig.rows()
        let changes = rows["events"].filter { $0.text("event") == "config" }
        #expect(changes.count == 1)
        let hashes = rows["pipeline_ticks"].map { $0.text("config_hash")! }
        let firstNew = try #require(hashes.firstIndex { $0 != hashes[0] })
        #expect(Set(hashes[firstNew...]).count == 1 && Set(hashes[..<firstNew]).count == 1, "one change, for all symbols between two ticks")
        #expect(rows["events"].filter { $0.text("event") == "arm_change" }.count == 2, "both symbols, at once, orders resting on")
        for snapshot in rows["feature_snapshots"] { #expect([hashes[0], hashes[firstNew]].contains(snapshot.text("config_hash")!)) }
    }
}
