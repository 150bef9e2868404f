import Foundation
import TestSupport
import Testing

/// `--explain-tick N`: SPEC 4 recomputed from the printed inputs, in decimals, gives the printed outputs, to the tick.
@Suite struct ExplainTickTests {
    private typealias Row = FeedRows.Row

    private func score(_ value: Double?, _ zero: Double, _ one: Double) -> Double {
        guard let value else { return 0 }
        return min(1, max(0, (value - zero) / (one - zero)))
    }

    @Test func recomputingTheFormulasGivesTheQuotes() throws {
        try ReplayTests.withRecording(seconds: 60) { _, recording in
            var nudged = 0
            var skewed = 0
            for tick in [1, 2, 50, 400, 1_000, 3_000, 6_000, 9_000, 12_000] {
                // A small full position, so that inventory, skew and the soft guard all come up.
                let summary = try ReplayTests.replay([
                    "--input", recording, "--no-feeds", "--set", "quoting.max_position=0.2", "--explain-tick", "\(tick)",
                ])
                let explained = Row(values: summary["explain_tick"] as? [String: Any] ?? [:])
                #expect(explained.integer("tick") == tick)
                let stages = explained.object("stages")
                check(stages)
                let emit = stages.object("EmitStage").object("inputs")
                if emit.decimal("nudge_bid_bps") != 0 { nudged += 1 }
                if emit.decimal("skew_bps") != 0 { skewed += 1 }
            }
            #expect(nudged > 2 && skewed > 0, "the ticks chosen show something")
            let beyond = try Binaries.run(
                "edge-node",
                ["replay", "--venue", "binance-usdm", "--input", recording, "--no-feeds", "-o", "json", "--explain-tick", "99999999"])
            #expect(beyond.status == 2 && beyond.standardError.contains("99999999"))
        }
    }

    private func check(_ stages: Row) {
        func part(_ stage: String) -> (Row, Row) { (stages.object(stage).object("inputs"), stages.object(stage).object("outputs")) }
        func near(_ a: Double, _ b: Double, _ what: String) { #expect((a - b).magnitude <= 1.1e-6, "\(what): \(a) and \(b)") }

        let (spreadIn, spreadOut) = part("SpreadStage")
        let vol = score(spreadIn.optional("volatility_bps_per_sqrt_min")?.doubleValue, 5, 25)
        let liq = score(spreadIn.decimal("top5_depth_in_order_qty").doubleValue, 10, 1)
        let lat = score(spreadIn.decimal("tick_p95_ms").doubleValue, 150, 400)
        let pnl = score(spreadIn.optional("pnl_z")?.doubleValue, 0, -2.5)
        let raw = spreadIn.decimal("base_bps").doubleValue + 0.9 * vol + 0.4 * liq + 0.24 * lat + 0.36 * pnl
        near(min(2.5, max(0.6, raw)), spreadOut.decimal("clamped_bps").doubleValue, "clamped spread")
        let stale = spreadIn.flag("used_stale") ? 0.5 : 0
        near(spreadOut.decimal("clamped_bps").doubleValue + stale, spreadOut.decimal("spread_bps").doubleValue, "stale widening")

        let (guardsIn, guardsOut) = part("GuardsStage")
        let isSoft = guardsOut.text("level") != "none"
        let inventory = guardsIn.decimal("inventory_pct").doubleValue
        #expect((guardsOut.text("inventory") != "none") == (inventory.magnitude > 6))
        let widened = guardsIn.decimal("spread_bps").doubleValue + (isSoft ? 0.3 : 0)
        near(widened, guardsOut.decimal("widened_bps").doubleValue, "guard widening")
        let limited = guardsOut.decimal("spread_bps").doubleValue
        let previous = guardsIn.optional("previous_spread_bps")?.doubleValue ?? widened
        #expect(limited >= widened - 1e-9 && limited <= max(widened, previous) + 1e-9 && limited >= min(widened, previous) - 1e-9)
        #expect(previous - limited <= 0.2 + 1e-9, "at most one step narrower")

        let (_, inventoryOut) = part("InventoryStage")
        let beyond = max(0, inventory.magnitude - 5)
        near(min(0.6, 0.1 * beyond) * (inventory < 0 ? -1 : 1), inventoryOut.decimal("skew_bps").doubleValue, "skew")

        let (emitIn, emitOut) = part("EmitStage")
        let mid = emitIn.decimal("best_bid").adding(emitIn.decimal("best_ask")).dividing(by: 2)
        #expect(mid == emitIn.decimal("mid"))
        let half = emitIn.decimal("spread_bps").dividing(by: 2)
        let skew = emitIn.decimal("skew_bps")
        let tick = emitIn.decimal("tick_size")
        func onGrid(_ offset: NSDecimalNumber, _ mode: NSDecimalNumber.RoundingMode) -> NSDecimalNumber {
            let exact = mid.multiplying(by: NSDecimalNumber(1).adding(offset.dividing(by: 10_000))).dividing(by: tick)
            let whole = NSDecimalNumberHandler(
                roundingMode: mode, scale: 0, raiseOnExactness: false, raiseOnOverflow: false, raiseOnUnderflow: false,
                raiseOnDivideByZero: false)
            return exact.rounding(accordingToBehavior: whole).multiplying(by: tick)
        }
        let down = NSDecimalNumber(-1).multiplying(by: half.adding(skew).subtracting(emitIn.decimal("nudge_bid_bps")))
        let bid = onGrid(down, .down)
        let ask = onGrid(half.subtracting(skew).subtracting(emitIn.decimal("nudge_ask_bps")), .up)
        if !guardsOut.flag("pulls_buy") {
            let clipped = bid.compare(emitIn.decimal("best_ask")) == .orderedAscending ? bid : emitIn.decimal("best_ask").subtracting(tick)
            #expect(emitOut.object("bid").decimal("price") == clipped)
        } else {
            #expect(emitOut.values["bid"] is NSNull)
        }
        if !guardsOut.flag("pulls_sell") {
            let clipped = ask.compare(emitIn.decimal("best_bid")) == .orderedDescending ? ask : emitIn.decimal("best_bid").adding(tick)
            #expect(emitOut.object("ask").decimal("price") == clipped)
        } else {
            #expect(emitOut.values["ask"] is NSNull)
        }
    }
}
