import CalibModel
import EdgeCore
import Wire

/// One tick as JSON: every stage's inputs and outputs, in bps, decimals and nanoseconds of the replay's clock, so that SPEC 4 can be
/// recomputed by hand.
struct ExplanationText {
    var explanation: TickExplanation
    var instrument: Instrument
    var parameters: Parameters

    func write(to out: inout JSONWriter) {
        out.beginObject()
        out.field("symbol", string: instrument.symbol)
        out.field("tick", integer: explanation.tick)
        out.field("ts", integer: explanation.wall.milliseconds)
        out.field("ts_iso", string: TimeText.milliseconds(explanation.wall.milliseconds))
        out.field("now_ns", integer: explanation.wall.nanoseconds)
        out.key("stages")
        out.beginObject()
        fetch(&out)
        spread(&out)
        guards(&out)
        inventory(&out)
        queue(&out)
        emit(&out)
        out.endObject()
        out.endObject()
    }

    private func stage(_ stage: Stage, _ out: inout JSONWriter, inputs: (inout JSONWriter) -> Void, outputs: (inout JSONWriter) -> Void) {
        out.key(stage.name)
        out.beginObject()
        out.key("inputs")
        out.beginObject()
        inputs(&out)
        out.endObject()
        out.key("outputs")
        out.beginObject()
        outputs(&out)
        out.endObject()
        out.endObject()
    }

    private func fetch(_ out: inout JSONWriter) {
        guard let fetched = explanation.fetched else { return }
        stage(.fetchMD, &out) { out in
            ms("ttl_ms", parameters.cache.ttlNanoseconds, &out)
            ms("fresh_ms_for_pricing", parameters.cache.freshForPricingNanoseconds, &out)
            ms("max_stale_ms", parameters.cache.maxStaleNanoseconds, &out)
            out.field("stale_ok", boolean: parameters.cache.staleIsOK)
        } outputs: { out in
            out.field("outcome", string: "\(fetched.outcome)")
            ms("cache_age_ms", fetched.ageNanoseconds, &out)
            out.field("cache_hit", boolean: fetched.isHit)
            out.field("used_stale", boolean: fetched.usedStale)
            top(fetched.top, &out)
        }
    }

    private func spread(_ out: inout JSONWriter) {
        guard let (input, output) = explanation.spread else { return }
        stage(.spread, &out) { out in
            bps("base_bps", parameters.spread.base, &out)
            bps("min_bps", parameters.spread.minimum, &out)
            bps("max_bps", parameters.spread.maximum, &out)
            number("volatility_bps_per_sqrt_min", input.volatilityPerRootMinute, &out)
            number("top5_depth_in_order_qty", input.depthMultiple, &out)
            number("tick_p95_ms", input.tickP95Milliseconds, &out)
            number("pnl_z", input.pnlZ, &out)
            out.field("used_stale", boolean: input.usedStale)
            bps("stale_widen_bps", parameters.cache.staleWiden, &out)
        } outputs: { out in
            number("vol_score", output.volScore, &out)
            number("liq_score", output.liqScore, &out)
            number("lat_score", output.latScore, &out)
            number("pnl_score", output.pnlScore, &out)
            bps("clamped_bps", output.target, &out)
            bps("spread_bps", output.spread, &out)
        }
    }

    private func guards(_ out: inout JSONWriter) {
        guard let (input, output) = explanation.guards else { return }
        stage(.guards, &out) { out in
            number("volatility_bps_per_sqrt_min", input.volatilityPerRootMinute, &out)
            number("tick_p95_ms", input.tickP95Milliseconds, &out)
            number("pnl_z", input.pnlZ, &out)
            number("inventory_pct", input.inventoryPercent, &out)
            out.field("taker_fills_15_min", integer: input.takerFills)
            bps("spread_bps", input.spread, &out)
            bps("previous_spread_bps", input.previousSpread, &out)
            ns("tightened_at_ns", input.tightenedAt, &out)
            ns("halted_until_ns", input.haltedUntil, &out)
            bps("soft_widen_bps", parameters.guards.softWiden, &out)
            bps("tighten_step_bps", parameters.spread.tightenStep, &out)
            ms("tighten_ms", parameters.spread.tightenNanoseconds, &out)
        } outputs: { out in
            for (name, level) in [
                ("volatility", output.volatility), ("latency", output.latency), ("pnl", output.pnl), ("inventory", output.inventory),
                ("taker_fills", output.takerFills), ("level", output.level),
            ] {
                out.key(data: name)
                out.string("\(level)")
            }
            out.field("halted", boolean: output.isHalted)
            out.field("size_scale", fixed: output.sizeNumerator * 5, places: 1)
            out.field("pulls_buy", boolean: output.pullsBuy)
            out.field("pulls_sell", boolean: output.pullsSell)
            bps("widened_bps", output.widened, &out)
            bps("spread_bps", output.spread, &out)
        }
    }

    private func inventory(_ out: inout JSONWriter) {
        guard let output = explanation.inventory, let (emit, _) = explanation.emit else { return }
        stage(.inventory, &out) { out in
            lots("position", emit.positionLots, &out)
            out.field("max_position", fixed: parameters.maxPosition, places: Places.quantity)
        } outputs: { out in
            number("inventory_pct", output.percent, &out)
            bps("skew_bps", output.skew, &out)
        }
    }

    private func queue(_ out: inout JSONWriter) {
        guard let (buyInput, buy, sellInput, sell) = explanation.queue else { return }
        stage(.queueAware, &out) { out in
            for (name, input) in [("buy", buyInput), ("sell", sellInput)] {
                out.key(data: name)
                out.beginObject()
                lots("ahead", input.ahead, &out)
                lots("top3_qty", input.topThree, &out)
                bps("distance_to_best_bps", input.distanceToBest, &out)
                bps("previous_nudge_bps", input.previousNudge, &out)
                ns("nudged_at_ns", input.nudgedAt, &out)
                out.endObject()
            }
            bps("nudge_max_bps", parameters.nudgeMaximum, &out)
            ms("nudge_ms", parameters.nudgeNanoseconds, &out)
        } outputs: { out in
            for (name, input, output) in [("buy", buyInput, buy), ("sell", sellInput, sell)] {
                out.key(data: name)
                out.beginObject()
                number("percentile_ahead", input.percentileAhead, &out)
                bps("nudge_bps", output.nudge, &out)
                out.endObject()
            }
        }
    }

    private func emit(_ out: inout JSONWriter) {
        guard let (input, output) = explanation.emit, let decisions = explanation.decisions else { return }
        stage(.emit, &out) { out in
            top(input.top, &out)
            out.field("mid", fixed: input.top.midTwice * instrument.tickNano / 2, places: Places.price)
            out.field("tick_size", fixed: instrument.tickNano, places: Places.price)
            bps("spread_bps", input.spread, &out)
            bps("skew_bps", input.skew, &out)
            bps("nudge_bid_bps", input.bidNudge, &out)
            bps("nudge_ask_bps", input.askNudge, &out)
            lots("qty", input.lots, &out)
            lots("position", input.positionLots, &out)
            for (name, order) in [("resting_bid", explanation.resting.buy), ("resting_ask", explanation.resting.sell)] {
                out.key(data: name)
                target(order, &out)
            }
            bps("min_price_change_bps", parameters.minimumPriceChange, &out)
            bps("queue_value_bps", parameters.queueValue, &out)
        } outputs: { out in
            for (name, target, decision) in [("bid", output.bid, decisions.buy), ("ask", output.ask, decisions.sell)] {
                out.key(data: name)
                self.target(target, &out)
                out.key(data: name + "_action")
                out.string("\(decision)")
            }
        }
    }

    // MARK: Leaves

    private func top(_ top: TopOfBook?, _ out: inout JSONWriter) {
        guard let top else { return }
        out.field("best_bid", fixed: top.bidPrice * instrument.tickNano, places: Places.price)
        lots("best_bid_qty", top.bidQuantity, &out)
        out.field("best_ask", fixed: top.askPrice * instrument.tickNano, places: Places.price)
        lots("best_ask_qty", top.askQuantity, &out)
    }

    private func target(_ target: EmitStage.Target?, _ out: inout JSONWriter) {
        guard let target else { return out.null() }
        out.beginObject()
        out.field("price", fixed: target.price * instrument.tickNano, places: Places.price)
        lots("qty", target.lots, &out)
        out.endObject()
    }

    private func lots(_ key: StaticString, _ value: Int64, _ out: inout JSONWriter) {
        out.key(key)
        out.fixed(value * instrument.lotE8, places: Places.quantity)
    }

    private func bps(_ key: StaticString, _ value: BasisPoints?, _ out: inout JSONWriter) {
        out.key(key)
        if let value { out.fixed(value.micro, places: Places.bps) } else { out.null() }
    }

    private func ms(_ key: StaticString, _ value: Int64?, _ out: inout JSONWriter) {
        out.key(key)
        if let value { out.fixed(value, places: Places.milliseconds) } else { out.null() }
    }

    private func ns(_ key: StaticString, _ value: Instant?, _ out: inout JSONWriter) {
        out.key(key)
        if let value { out.integer(value.nanoseconds) } else { out.null() }
    }

    /// Rounded to nine decimals; the stages compute with the full double.
    private func number(_ key: StaticString, _ value: Double?, _ out: inout JSONWriter) {
        out.key(key)
        if let fixed = value.flatMap({ FixedPoint.fixed($0, scale: 1e9) }) { out.fixed(fixed, places: 9) } else { out.null() }
    }
}
