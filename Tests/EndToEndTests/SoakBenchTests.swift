import Foundation
import TestSupport
import Testing

/// `calib-lab bench soak`, as small as it goes: a market that is longer than the recording, with breaks between.
@Suite struct SoakBenchTests {
    @Test func theMarketGoesOnOverManyPasses() throws {
        try ReplayTests.withRecording(seconds: 20) { _, recording in
            let outcome = try Binaries.run(
                "calib-lab", ["bench", "soak", "--input", recording, "--symbols", "3", "--rate", "50", "--minutes", "4"])
            #expect(outcome.status == 0, "\(outcome.standardError)")
            let result = try #require(try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any])
            #expect(result["messages"] as? Int == 3 * 50 * 240 && result["market_seconds"] as? Int == 240)
            #expect(try #require(result["reconnects"] as? Int) > 1)
            // Frames whose event times stayed those of the recording would be late, and nothing quoted after the first seconds.
            #expect(try #require(result["quotes"] as? Int) > 240)
            #expect(try #require(result["rss_kb"] as? Int) > 1_000)
        }
    }
}
