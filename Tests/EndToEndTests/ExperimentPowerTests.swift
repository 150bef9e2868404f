import Foundation
import TestSupport
import Testing

/// `hubctl experiment power` without a hub.
@Suite struct ExperimentPowerTests {
    private func power(_ arguments: [String], in folder: String? = nil) throws -> Binaries.Outcome {
        try Binaries.run("hubctl", ["experiment", "power"] + arguments, in: folder)
    }

    private func tests(_ outcome: Binaries.Outcome) throws -> [[String: Any]] {
        let body = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
        return try #require(body?["tests"] as? [[String: Any]])
    }

    @Test func aGivenStandardErrorGivesThePlansLength() throws {
        let few = try power(["--standard-error", "taker_share=0.002", "--symbols", "20", "--washout-sec", "0", "-o", "json"])
        #expect(few.status == 0, "\(few.standardError)")
        let row = try #require(try tests(few).first)
        #expect(row["gate"] as? String == "taker_share_increase" && row["effect"] as? Double == 0.01)
        // Hours, as the reference found (9.2 h at about this error).
        let median = try #require(row["minutes_median"] as? Int)
        #expect((300...900).contains(median), "\(median)")
        #expect(try #require(row["minutes_p90"] as? Int) > median)
        // A larger effect is found sooner.
        let more = try power([
            "--standard-error", "taker_share=0.002", "--effect", "taker_share=0.03", "--symbols", "20", "--washout-sec", "0", "-o", "json",
        ])
        #expect(try #require(try tests(more).first?["minutes_median"] as? Int) < median)
    }

    @Test func storedRowsOfArmATellHowNoisyItIs() throws {
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try FileManager.default.createDirectory(atPath: "\(folder)/feeds/host=edge-1", withIntermediateDirectories: true)
        var random = SeededRandom(seed: 3)
        var lines = ""
        let start = 1_736_510_400_000
        for step in 0..<(12 * 60) {
            for symbol in 0..<4 {
                let takers = random.next(below: 10) == 0 ? 1 : 0
                let from = start + step * 10_000
                lines +=
                    #"{"ts":\#(from + 10_000),"symbol":"S\#(symbol)","from_ts":\#(from),"span_ms":10000,"features":{"vol_realized":null,"liq_top_depth":null,"pnl_dev":null,"queue_absorb_rate":null,"queue_eta_ms":null},"counts":{"ticks":100,"quotes":1,"fills":2,"filled_orders":2,"taker_fills":\#(takers),"returns":10,"deadline_misses":\#(random.next(below: 3))},"sums":{"fill_notional":100.0,"slip":0.\#(random.next(below: 9)),"slip_x_notional":0.0,"markout_notional":100.0,"net_x_notional":\#(random.next(below: 9)).0,"adverse_x_notional":0.0,"return2":1.0},"tick_ns_histogram":[[2464,100]],"arm":"A","arm_why":"none","experiment":null,"block":null,"config_hash":"00000000000000aa","v":1,"source":"sim","venue":"sim","host":"edge-1","epoch":"0123456789abcdef","seq":\#(step * 4 + symbol)}"#
                    + "\n"
            }
        }
        try Data(lines.utf8).write(to: URL(fileURLWithPath: "\(folder)/feeds/host=edge-1/feature_snapshots_20250110.jsonl"))
        let outcome = try power(["--feeds-dir", "feeds", "-o", "json"], in: folder)
        #expect(outcome.status == 0, "\(outcome.standardError)")
        let names = try tests(outcome).compactMap { $0["metric"] as? String }
        // The p95 never differs here, so nothing is known of its noise.
        #expect(names == ["slippage_bps", "taker_share", "deadline_miss_rate", "net_bps"])
        let wide = try power(["--feeds-dir", "feeds", "--symbols", "16", "-o", "json"], in: folder)
        let (one, four) = (try tests(outcome)[1], try tests(wide)[1])
        let ratio = try #require(one["standard_error_pair"] as? Double) / #require(four["standard_error_pair"] as? Double)
        #expect(abs(ratio - 2) < 1e-9)
    }

    @Test func whatCannotBeAnsweredIsSaid() throws {
        #expect(try power([]).status == 64)
        #expect(try power(["--standard-error", "taker_share=0.002"]).status == 64)
        #expect(try power(["--standard-error", "nonsense=1", "--symbols", "9"]).status == 64)
        #expect(try power(["--standard-error", "net_bps=0.01", "--effect", "taker_share=0.01", "--symbols", "9"]).status == 1)
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        #expect(try power(["--feeds-dir", folder]).status == 1)
    }
}
