import Foundation
import TestSupport
import Testing

/// `calib-lab bench ingest` and `bench fleet` with a real hub, as small as they go: what they report, and that they look at what was stored.
@Suite struct IngestBenchTests {
    private static func run(_ arguments: [String]) throws -> (outcome: Binaries.Outcome, result: [String: Any]?) {
        let outcome = try Binaries.run("calib-lab", ["bench"] + arguments)
        return (outcome, try? JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any])
    }

    @Test(arguments: [[], ["--rate", "20000"]])
    func everyRowIsStoredAndAcknowledged(_ pace: [String]) throws {
        let (outcome, found) = try Self.run(["ingest", "--clients", "2", "--files", "3", "--rows", "6000", "-o", "json"] + pace)
        #expect(outcome.status == 0, "\(outcome.standardError)")
        let result = try #require(found)
        #expect(result["rows"] as? Int == 6_000 && result["bytes"] as? Int == 6_000 * 382)
        #expect(result["stored_equals_sent"] as? Bool == true)
        #expect(try #require(result["rows_per_second"] as? Int) > 0)
        #expect(try #require(result["hub_rss_mb"] as? Double) > 1)
        let acknowledged = try #require(result["ack_ms"] as? [String: Any])
        // At least one message for each file.
        #expect(try #require(acknowledged["count"] as? Int) >= 6)
        let (p50, p999) = (try #require(acknowledged["p50"] as? Double), try #require(acknowledged["p999"] as? Double))
        #expect(0 < p50 && p50 <= p999)
    }

    /// The hub behind a script that changes one byte once the hub has ended.
    @Test func otherBytesThanWereSentAreFound() throws {
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let script = """
            #!/bin/bash
            hub='\(try Binaries.path(of: "calib-hub"))'
            [ "$1" = run ] || exec "$hub" "$@"
            "$hub" "$@" &
            trap 'kill -TERM %1' TERM
            wait %1; wait %1
            printf x | dd of="$(find "$(dirname "$3")/.." -name '*.jsonl' | head -1)" bs=1 seek=1000 conv=notrunc 2>/dev/null
            """
        try script.write(toFile: folder + "/hub", atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: folder + "/hub")
        let (outcome, result) = try Self.run(
            ["ingest", "--clients", "1", "--rows", "500", "--directory", folder, "--hub", folder + "/hub", "-o", "json"])
        #expect(outcome.status == 1 && outcome.standardError.contains("holds other bytes than were sent"), "\(outcome.standardError)")
        #expect(result?["stored_equals_sent"] as? Bool == false)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["hub"], "its own folder is gone")
    }

    @Test func aHubThatDoesNotStartIsAnError_andMistakesAreUsage() throws {
        let (dead, _) = try Self.run(["ingest", "--hub", "/bin/false"])
        #expect(dead.status == 1 && dead.standardError.contains("calib-hub init failed"))
        #expect(try Self.run(["ingest", "--clients", "0"]).outcome.status == 64)
        #expect(try Self.run(["fleet", "--edges", "1,x"]).outcome.status == 64)
    }

    @Test func fleetSettlesBehindARestart() throws {
        let (outcome, found) = try Self.run(["fleet", "--edges", "3", "--seconds", "3", "-o", "json"])
        #expect(outcome.status == 0, "\(outcome.standardError)")
        let fleet = try #require((found?["fleets"] as? [[String: Any]])?.first)
        #expect(fleet["edges"] as? Int == 3 && fleet["stored_equals_sent"] as? Bool == true)
        #expect(try #require(fleet["restart_settled_seconds"] as? Double) > 0)
        #expect(try #require(fleet["rows_per_second"] as? Int) > 0)
    }
}
