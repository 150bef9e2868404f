import Foundation
import CalibModel
import HubCore
import Testing

/// `proto-json/examples/dataset*.json` are what a small build gives, byte for byte. `UPDATE_GOLDENS=1` rewrites them.
@Suite struct DatasetGoldenTests {
    private static func files() -> [MemoryFile] {
        func common(_ seq: Int) -> String {
            #""arm":"A","arm_why":"none","experiment":null,"block":null,"config_hash":"3f1c","v":1,"source":"sim","venue":"sim","host":"edge-1","epoch":"00c0ffee00c0ffee","seq":\#(seq)}"#
        }
        let start = FeedWorld.start
        let ticks = (0..<12).map { seq in
            #"{"ts":\#(start + Int64(seq) * 1000),"ts_iso":"","symbol":"BTCUSDT","stage_latencies":{"FetchMDStage":0.01},"stage_p95_ms":0.02,"tick_total_ms":0.0\#(31 + seq),"cache_hit":\#(seq != 3),"cache_age_ms":\#(seq == 3 ? "null" : "1.5"),"used_stale":false,"deadline_miss":false,"tick":\#(seq * 10),"weight":10,"halted":false,\#(common(seq))"#
        }
        let fill =
            #"{"ts":\#(start + 5000),"ts_iso":"","symbol":"BTCUSDT","side":"SELL","price":61659.7,"qty":0.01,"maker":true,"taker":false,"queue_pos_est":0.5,"quote_price":61659.7,"mid_at_quote":61658.2,"mid_now":61659.05,"spread_at_quote_bps":0.4,"latency_ms":125.0,"slip_bps":0.0,"fill_id":0,"order_id":"R-1","fee_bps":-0.5,\#(common(0))"#
        let markout =
            #"{"ts":\#(start + 35_000),"ts_iso":"","symbol":"BTCUSDT","fill_id":0,"fill_ts":\#(start + 5000),"mid_1s":61659.1,"mid_5s":61659.25,"mid_30s":null,"net_bps":0.57,\#(common(0))"#
        let snapshot =
            #"{"ts":\#(start + 10_000),"ts_iso":"","symbol":"BTCUSDT","from_ts":\#(start),"span_ms":10000,"features":{"vol_realized":0.8,"liq_top_depth":12.5,"latency_p95":0.04,"pnl_dev":0.0,"fill_rate":0.25,"taker_share":0.0,"queue_absorb_rate":1.25,"queue_eta_ms":null,"slippage_bps":0.0,"adverse_move_bps":null},"counts":{"ticks":120,"quotes":4,"fills":1,"filled_orders":1,"taker_fills":0,"returns":10,"cache_hits":119,"cache_misses":1,"cache_stale":0,"deadline_misses":0,"halts":0,"rejected_inputs":0},"sums":{"fill_notional":616.597,"slip":0.0,"slip_x_notional":0.0,"markout_notional":616.597,"net_x_notional":351.0,"adverse_x_notional":20.0,"quote_ms":9000.0,"mid":616590.0,"market_spread_bps":4.0,"position":0.0,"pnl":0.0,"return2":6.4},"tick_ns_histogram":[[1265,100],[1300,20]],\#(common(0))"#
        let quote =
            #"{"ts":\#(start + 4000),"ts_iso":"","symbol":"BTCUSDT","side":"SELL","order_id":"R-1","price":61659.7,"qty":0.01,"depth_bps":0.24,"half_spread_bps":0.5,"skew_bps":0.0,"nudge_bps":0.1,"queue_ahead":2.0,"resting_ms":1000.0,"outcome":"filled","vol_realized":0.8,"propensity":1.0,"weight":1,\#(common(0))"#
        func file(_ feed: Feed, _ lines: [String]) -> MemoryFile {
            MemoryFile(path: "host=edge-1/\(feed.rawValue)_20250101.jsonl", feed: feed, host: "edge-1", lines: lines)
        }
        return [
            file(.fills, [fill, "{torn"]), file(.ticks, ticks), file(.snapshots, [snapshot]), file(.markouts, [markout]),
            file(.quotes, [quote]),
        ]
    }

    @Test func examplesAreWhatABuildGives() throws {
        let documents = try buildDataset(Self.files(), DatasetArguments(from: FeedWorld.start, to: FeedWorld.start + FeedWorld.length))
        #expect(documents.keptIntervals == 1)
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let stem = DatasetFormat.stem(from: FeedWorld.start, to: FeedWorld.start + FeedWorld.length)
        // The digest is the shell's; here a stand-in of the right form.
        let manifest = documents.manifest(datasetName: "\(stem).json", sha256: String(repeating: "0", count: 64))
        for (name, bytes) in [("dataset.json", documents.dataset), ("dataset.manifest.json", manifest)] {
            let url = root.appendingPathComponent("proto-json/examples/\(name)")
            if ProcessInfo.processInfo.environment["UPDATE_GOLDENS"] == "1" { try Data(bytes).write(to: url) }
            #expect(try Array(Data(contentsOf: url)) == bytes, "\(name)")
        }
    }
}
