import Foundation
import TestSupport
import Testing

/// `hubctl perf-gate` on files of a temporary directory.
@Suite struct PerfGateCommandTests {
    private final class Gate {
        let folder: String
        init() throws { folder = try Binaries.temporaryDirectory() }
        deinit { try? FileManager.default.removeItem(atPath: folder) }

        func write(_ name: String, _ text: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(name)")) }
        func run(_ more: [String] = []) throws -> Binaries.Outcome {
            try Binaries.run(
                "hubctl", ["perf-gate", "--baseline", "a.json", "--current", "b.json", "--output", "R.md"] + more, in: folder)
        }
        var report: String { (try? String(contentsOfFile: "\(folder)/R.md", encoding: .utf8)) ?? "" }
    }

    private static let stages = ["FetchMDStage", "SpreadStage", "GuardsStage", "InventoryStage", "QueueAwareStage", "EmitStage"]

    /// Ten runs of 100 ns and up to 5 % of noise, the named stage times `factor`.
    private static func figures(seed: UInt64, slow: String? = nil, factor: Double = 1, without: String? = nil, more: String = "") -> String
    {
        var random = SeededRandom(seed: seed)
        let runs = (0..<10).map { _ in
            let cells = stages.filter { $0 != without }.map { stage in
                let value = (95 + Double(random.next(below: 10_001)) / 1000) * (stage == slow ? factor : 1)
                return "\"\(stage)\":{\"p95\":\(value)}"
            }
            return "{\"stages\":{\(cells.joined(separator: ","))}}"
        }
        return "{\"schema\":1,\"machine\":\"m\",\"unit\":\"ns\",\(more)\"runs\":[\(runs.joined(separator: ","))]}"
    }

    @Test func sameProgramPasses() throws {
        let gate = try Gate()
        try gate.write("a.json", Self.figures(seed: 1))
        try gate.write("b.json", Self.figures(seed: 2))
        let outcome = try gate.run(["--threshold", "3"])
        #expect(outcome.status == 0, "\(outcome.standardError)")
        #expect(outcome.standardOutput == gate.report && gate.report.contains("**Passed.**"))
        #expect(gate.report.contains("| stage | baseline | current | change % | interval % | verdict |"))
        for stage in Self.stages { #expect(gate.report.contains("\n| \(stage) | ")) }
    }

    @Test func slowerStageEndsWithStatus2_andIsNamed() throws {
        let gate = try Gate()
        try gate.write("a.json", Self.figures(seed: 1))
        try gate.write("b.json", Self.figures(seed: 2, slow: "GuardsStage", factor: 1.2))
        let outcome = try gate.run(["-o", "json"])
        #expect(outcome.status == 2 && outcome.standardError.contains("GuardsStage"))
        let result = try #require(try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any])
        #expect(result["outcome"] as? String == "regression" && result["threshold_percent"] as? Double == 3)
        let rows = try #require(result["stages"] as? [[String: Any]])
        #expect(rows.filter { $0["verdict"] as? String == "regression" }.map { $0["stage"] as? String } == ["GuardsStage"])
        #expect(gate.report.contains("**Regression** in GuardsStage."))
    }

    /// The first program let a threshold in the baseline replace the caller's: 40 % slower passed at --threshold 3.
    @Test func thresholdOfAFileHasNoSay() throws {
        let gate = try Gate()
        try gate.write("a.json", Self.figures(seed: 1, more: #""thresholds":{"regress_pct":50},"#))
        try gate.write("b.json", Self.figures(seed: 2, slow: "EmitStage", factor: 1.4))
        #expect(try gate.run(["--threshold", "3"]).status == 2)
        #expect(gate.report.contains("threshold of its own, which is not used"))
        #expect(try gate.run(["--threshold", "60"]).status == 0)

        // Its own form, too.
        try gate.write("a.json", #"{"budgets":{"stage_emit":{"p95":10}},"thresholds":{"regress_pct":50}}"#)
        try gate.write("b.json", #"{"stages":{"EmitStage":{"p95_ms":14}}}"#)
        #expect(try gate.run(["--threshold", "3"]).status == 2)
        try gate.write("b.json", #"{"stages":{"EmitStage":{"p95_ms":10.2}}}"#)
        #expect(try gate.run(["--threshold", "3"]).status == 0)
    }

    /// Whatever is not compared fails, with status 1, a reason and a report that does not look green.
    @Test(
        arguments: [
            ("vanished", figures(seed: 2, without: "SpreadStage"), "SpreadStage"), ("emptyFile", "", "no JSON"),
            ("emptyObject", "{}", "schema"),
            ("noRuns", #"{"schema":1,"unit":"ns","runs":[]}"#, "0 runs"),
            ("version", #"{"schema":9,"unit":"ns","runs":[]}"#, "schema is 9"),
            ("unit", #"{"schema":1,"unit":"instructions","runs":[{"stages":{"EmitStage":{"mean":1}}}]}"#, "instructions"),
            ("nan", #"{"schema":1,"unit":"instructions","runs":[{"stages":{"EmitStage":{"mean":NaN}}}]}"#, "no JSON"),
        ])
    func whatCannotBeComparedEndsWithStatus1(name: String, text: String, reason: String) throws {
        for isBaseline in [true, false] {
            let gate = try Gate()
            try gate.write("a.json", isBaseline ? text : Self.figures(seed: 1))
            try gate.write("b.json", isBaseline ? Self.figures(seed: 1) : text)
            let outcome = try gate.run()
            #expect(outcome.status == 1, "\(name)")
            #expect(outcome.standardError.contains(reason), "\(name): \(outcome.standardError)")
            #expect(gate.report.contains("**No verdict.**") && !gate.report.contains("Passed"))
        }
    }

    @Test func missingFileEndsWithStatus1_andReplacesAGreenReport() throws {
        let gate = try Gate()
        try gate.write("b.json", Self.figures(seed: 1))
        try gate.write("R.md", "**Passed.**")
        let outcome = try gate.run()
        #expect(outcome.status == 1 && outcome.standardError.contains("a.json"))
        #expect(!gate.report.contains("Passed") && gate.report.contains("there is no file"))
    }

    @Test func otherWorkloadFails() throws {
        let gate = try Gate()
        try gate.write("a.json", Self.figures(seed: 1, more: #""workload":"one","#))
        try gate.write("b.json", Self.figures(seed: 1, more: #""workload":"other","#))
        let outcome = try gate.run()
        #expect(outcome.status == 1 && outcome.standardError.contains("workloads differ"))
    }

    @Test(arguments: [["--threshold", "-1"], ["--threshold", "NaN"], ["--threshold", "1001"], ["--threshold"], ["--nonsense"]])
    func wrongArgumentsEndWithStatus64(_ arguments: [String]) throws {
        let gate = try Gate()
        try gate.write("a.json", Self.figures(seed: 1))
        try gate.write("b.json", Self.figures(seed: 1))
        #expect(try gate.run(arguments).status == 64)
        #expect(gate.report.isEmpty)
    }

    @Test func reportThatCannotBeWrittenEndsWithStatus1() throws {
        let gate = try Gate()
        try gate.write("a.json", Self.figures(seed: 1))
        try gate.write("b.json", Self.figures(seed: 1))
        let arguments = ["perf-gate", "--baseline", "a.json", "--current", "b.json", "--output", "nowhere/R.md"]
        #expect(try Binaries.run("hubctl", arguments, in: gate.folder).status == 1)
    }

    @Test func theExampleIsWhatItsSchemaSays_andTheGateReadsIt() throws {
        let example = Repository.path("proto-json/examples/perf.json")
        let outcome = try Binaries.run("hubctl", ["perf-gate", "--baseline", example, "--current", example])
        #expect(outcome.status == 0, "\(outcome.standardError)")
        let script = """
            import json, sys, jsonschema
            schema = json.load(open(sys.argv[1])); example = json.load(open(sys.argv[2]))
            jsonschema.Draft202012Validator.check_schema(schema)
            check = jsonschema.Draft202012Validator(schema)
            for error in check.iter_errors(example): sys.exit(error.message)
            for name in ("schema", "unit", "runs"):
                damaged = dict(example); del damaged[name]
                if check.is_valid(damaged): sys.exit(name + " may be left out")
            example["unit"] = "instructions"
            if check.is_valid(example): sys.exit("instructions with a p95")
            """
        let checked = try Binaries.run("/usr/bin/python3", ["-c", script, Repository.path("proto-json/perf.schema.json"), example])
        #expect(checked.status == 0, "\(checked.standardError)")
    }

    /// What `deploy/test` counts against.
    @Test func everyCommittedBaselineCanBeRead() throws {
        let folder = Repository.path("deploy/bench/baselines")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".json") }
        #expect(!names.isEmpty)
        for name in names {
            let path = "\(folder)/\(name)"
            let outcome = try Binaries.run("hubctl", ["perf-gate", "--baseline", path, "--current", path])
            #expect(outcome.status == 0, "\(name): \(outcome.standardError)")
        }
    }

    /// Counted instructions repeat only if what is passed does.
    @Test func profiledRecordingComesFromItsSeed() throws {
        func profile(_ seed: String) throws -> [String: Any] {
            let outcome = try Binaries.run("calib-lab", ["bench", "profile", "--seed", seed, "--seconds", "2"])
            #expect(outcome.status == 0, "\(outcome.standardError)")
            return try #require(try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any])
        }
        let first = try profile("7")
        let (again, other) = (try profile("7"), try profile("8"))
        #expect(NSDictionary(dictionary: first) == NSDictionary(dictionary: again))
        #expect(first["crc32c"] as? String != other["crc32c"] as? String)
        let kinds = try #require(first["kinds"] as? [String: Int])
        #expect(Set(kinds.keys) == ["depth", "trade", "book_ticker", "snapshot"] && kinds.values.allSatisfy { $0 > 0 })
        #expect(kinds.values.reduce(0, +) == first["messages"] as? Int)
    }
}
