import HubCore
import Testing

@Suite struct ReadinessFindingTests {
    /// Whoever runs the tests may write everywhere, so evidence is made by hand here.
    @Test func aFeedsDirectoryThatCannotBeWrittenIsNamed() {
        var evidence = ReadinessEvidence()
        evidence.feedsDirectory = "feeds"
        #expect(Readiness.findings(evidence).map(\.cause) == ["no pipeline_ticks_*.jsonl row in 'feeds'"])
        evidence.isFeedsDirectoryWritable = false
        #expect(Readiness.findings(evidence).map(\.cause) == ["'feeds' cannot be written"])
    }

    private static func experimentBoxes(_ json: String?, hasText: Bool = true) -> [String: (ReadinessBox.State, String)] {
        var evidence = ReadinessEvidence()
        evidence.experiment = json.map { ("reports/ab_run_20250101_000000.json", Array($0.utf8), hasText) }
        let boxes = Readiness.boxes(evidence).filter { $0.section == "AB-Harness" }
        return Dictionary(uniqueKeysWithValues: boxes.map { ($0.id, ($0.state, $0.evidence)) })
    }

    private static func report(_ states: [String], gates: [String], state: String = "online") -> String {
        let decisions = states.map { #"{"state":"\#($0)"}"# }.joined(separator: ",")
        let names = gates.map { #"{"gate":"\#($0)"}"# }.joined(separator: ",")
        return
            #"{"schema":"calibrant/ab-run/1","experiment":{"id":"x"},"state":"\#(state)","arms":{"A":{"symbols":12},"B":{"symbols":3}},"gates":[\#(names)],"decisions":[\#(decisions)]}"#
    }

    @Test func whatAReportSaysOfAnExperimentIsEvidence() {
        let all = Gate.all.map(\.name)
        let good = Self.experimentBoxes(Self.report(["draft", "dry", "online"], gates: all))
        #expect(good["ab_initialized"]?.0 == .pass && good["safety_gates"]?.0 == .pass && good["test_report"]?.0 == .pass)
        // Whether the symbols are those that were meant only a person knows.
        #expect(good["symbol_whitelist"]?.0 == .unknown && good["symbol_whitelist"]?.1.contains("12 on A, 3 on B") == true)
        let hasty = Self.experimentBoxes(Self.report(["draft", "online"], gates: Array(all.dropFirst())), hasText: false)
        #expect(hasty["ab_initialized"]?.0 == .fail && hasty["test_report"]?.0 == .fail)
        #expect(hasty["safety_gates"]?.0 == .fail && hasty["safety_gates"]?.1.contains(all[0]) == true)
        // A dry run has no gates about time.
        let dry = Self.report(["draft", "dry"], gates: Gate.dry.map(\.name), state: "dry")
        #expect(Self.experimentBoxes(dry)["safety_gates"]?.0 == .pass)
        #expect(Self.experimentBoxes(Self.report(["dry"], gates: Gate.dry.map(\.name)))["safety_gates"]?.0 == .fail)
        #expect(Self.experimentBoxes(nil).values.allSatisfy { $0.0 == .unknown })
        #expect(Self.experimentBoxes("[]").values.allSatisfy { $0.0 == .fail })
    }
}
