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
}
