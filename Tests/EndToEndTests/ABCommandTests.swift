import Foundation
import TestSupport
import Testing

/// `calib-lab ab` and what `deploy/recompute-gates` makes of a run it wrote.
@Suite struct ABCommandTests {
    private final class Folder {
        let path: String
        init() throws { path = try Binaries.temporaryDirectory() }
        deinit { try? FileManager.default.removeItem(atPath: path) }

        func lines(_ name: String) throws -> [String] {
            try String(contentsOfFile: "\(path)/run/\(name).jsonl", encoding: .utf8).split(separator: "\n").map(String.init)
        }
        func write(_ lines: [String], to name: String) throws {
            try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: "\(path)/run/\(name).jsonl"))
        }
        func ab(_ arguments: [String]) throws -> Binaries.Outcome {
            try Binaries.run("calib-lab", ["ab"] + arguments, in: path, deadline: 300)
        }
        func recompute() throws -> Binaries.Outcome {
            try Binaries.run("/usr/bin/python3", [Repository.path("deploy/recompute-gates"), "run"], in: path)
        }
    }

    private static let small = ["--runs", "3", "--symbols", "11", "--hours", "2", "--pre-hours", "1", "--seed", "5"]

    private func object(_ outcome: Binaries.Outcome) throws -> [String: Any] {
        #expect(outcome.status == 0, "\(outcome.standardError)")
        return try #require(try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any])
    }

    @Test func ratesAndDelaysHaveTheirNames_forTheGatesAndTheSeedRule() throws {
        let folder = try Folder()
        let equal = try object(try folder.ab(["--scenario", "aa", "-o", "json"] + Self.small))
        let late = try object(try folder.ab(["--scenario", "latency", "-o", "json"] + Self.small))
        for (whole, isAA) in [(equal, true), (late, false)] {
            for rates in [whole, try #require(whole["seed_rule"] as? [String: Any])] {
                #expect((rates["false_rollback_rate"] is Double) == isAA)
                #expect((rates["false_rollback_wilson95"] as? [Double])?.count == (isAA ? 2 : nil))
                #expect(rates["detection_minutes_median"] != nil && rates["detection_minutes_p90"] != nil)
            }
        }
        // B's ticks take ten per cent longer: within two hours in every run.
        #expect(late["detected_rate"] as? Double == 1)
        #expect(try #require(late["detection_minutes_median"] as? Double) <= 60)
        #expect(equal["runs"] as? Int == 3 && equal["symbols"] as? Int == 11 && equal["hours"] as? Int == 2)
    }

    @Test func equalArgumentsGiveEqualBytes_andAnotherSeedOthers() throws {
        let folder = try Folder()
        let arguments = ["--scenario", "aa", "-o", "json", "--runs", "2", "--symbols", "4", "--hours", "1", "--pre-hours", "1", "--seed"]
        let (one, again, other) = (try folder.ab(arguments + ["5"]), try folder.ab(arguments + ["5"]), try folder.ab(arguments + ["6"]))
        #expect(one.standardOutput == again.standardOutput)
        #expect(try object(one)["estimates"] as? NSDictionary != object(other)["estimates"] as? NSDictionary)
    }

    /// Somebody else's program comes to the same evidence, to nine digits, in a world with an effect and matched symbols.
    @Test(arguments: ["aa", "slippage", "latency"])
    func aRunThatWasWrittenIsRecomputedFromOutside(scenario: String) throws {
        let folder = try Folder()
        let rates = try object(try folder.ab(["--scenario", scenario, "--dump-run", "1", "run", "-o", "json"] + Self.small))
        #expect(rates["runs"] as? Int == 3)
        let outcome = try folder.recompute()
        #expect(outcome.status == 0, "\(outcome.standardError)")
        // 12 pairs, 6 tests, 6 figures.
        #expect(outcome.standardOutput.hasPrefix("432 figures of 6 tests compared"), "\(outcome.standardOutput)")
    }

    /// One fill more in one block, one coin turned, one gate's word changed: each is noticed.
    @Test func whatDoesNotFollowFromTheRowsIsNoticed() throws {
        let folder = try Folder()
        #expect(try folder.ab(["--scenario", "aa", "--dump-run", "0", "run"] + Self.small).status == 0)
        for (name, change) in [
            ("rows", { (line: String) in line.replacing(/"ticks":(\d+)/, with: { "\"ticks\":\((Int($0.1) ?? 0) + 1)" }) }),
            ("flips", { (line: String) in line.contains("\"eps\":1}") ? line.replacing("\"eps\":1}", with: "\"eps\":-1}") : line }),
            (
                "decisions",
                { (line: String) in line.replacing(/"log_e":(-?[0-9.e-]+)/, with: { "\"log_e\":\((Double($0.1) ?? 0) + 1e-6)" }) }
            ),
        ] as [(String, (String) -> String)] {
            let whole = try folder.lines(name)
            let last = try #require(whole.lastIndex { change($0) != $0 })
            var changed = whole
            changed[last] = change(whole[last])
            try folder.write(changed, to: name)
            let outcome = try folder.recompute()
            #expect(outcome.status == 2 && outcome.standardError.contains("recompute-gates: pair "), "\(name): \(outcome)")
            try folder.write(whole, to: name)
        }
        #expect(try folder.recompute().status == 0)
        try folder.write(["{"], to: "rows")
        #expect(try folder.recompute().status == 1)
    }

    @Test(arguments: [
        ["--scenario", "nonsense"], ["--scenario", "aa", "--runs", "0"], ["--scenario", "aa", "--symbols", "1"],
        ["--scenario", "aa", "--hours", "0"],
        ["--scenario", "aa", "--dump-run", "0"], ["--scenario", "aa", "--runs", "2", "--dump-run", "2", "x"],
        ["--scenario", "aa", "--seed", "-1"], [],
    ])
    func whatCannotBePlayedIsRefused(arguments: [String]) throws {
        let outcome = try Folder().ab(arguments)
        #expect(outcome.status == 64 && !outcome.standardError.isEmpty)
    }

    @Test func aFolderThatCannotBeMadeIsToldBeforeAnythingIsPlayed() throws {
        let outcome = try Folder().ab([
            "--scenario", "aa", "--runs", "1", "--symbols", "2", "--hours", "1", "--dump-run", "0", "no/such/folder",
        ])
        #expect(outcome.status == 1 && outcome.standardError.contains("no/such/folder") && outcome.standardOutput.isEmpty)
    }
}
