import CalibModel

/// One field of a feed that a dataset or a comparison of arms reads.
struct FieldSpec: Sendable {
    enum Text: Sendable { case symbol, host, side, arm, armWhy, experiment, configHash, source, epoch }
    enum Kind: Sendable {
        case integer
        /// A decimal as a multiple of 10^-places.
        case fixed(Int)
        case boolean
        case text(Text)
        case group([FieldSpec])
        case histogram
    }
    var name: StaticString
    /// Meaningless for text, groups and the histogram, which have their own place in a row.
    var field: RowField
    var kind: Kind
    var isRequired: Bool
    var isNullable: Bool
    var range: ClosedRange<Int64>

    /// A required field that is never null; `range` in the field's unit.
    static func required(_ name: StaticString, _ field: RowField, _ kind: Kind, in range: ClosedRange<Int64> = .min ... .max) -> FieldSpec {
        FieldSpec(name: name, field: field, kind: kind, isRequired: true, isNullable: false, range: range)
    }
    /// A field that must be there and may be null.
    static func nullable(_ name: StaticString, _ field: RowField, _ kind: Kind, in range: ClosedRange<Int64> = .min ... .max) -> FieldSpec {
        FieldSpec(name: name, field: field, kind: kind, isRequired: true, isNullable: true, range: range)
    }
    static func optional(_ name: StaticString, _ field: RowField, _ kind: Kind, in range: ClosedRange<Int64> = .min ... .max) -> FieldSpec {
        FieldSpec(name: name, field: field, kind: kind, isRequired: false, isNullable: true, range: range)
    }
}

/// The fields of each feed in file order (SPEC 2 and 6.5). To read one more field: a row here and a case of `RowField`.
enum FeedTables {
    static func fields(of feed: Feed) -> [FieldSpec] {
        switch feed {
        case .events: return []
        case .fills:
            return opening + [
                .required("side", .side, .text(.side)),
                .required("price", .price, .fixed(Places.price), in: positive),
                .required("qty", .qty, .fixed(Places.quantity), in: positive),
                .required("taker", .taker, .boolean),
                .required("quote_price", .quotePrice, .fixed(Places.price), in: positive),
                .required("mid_now", .midNow, .fixed(Places.price), in: positive),
                .optional("fill_id", .fillID, .integer, in: notNegative),
                .optional("fee_bps", .feeBps, bps, in: bpsRange),
            ] + closing(isSeedFeed: true)
        case .ticks:
            return opening + [
                .required("tick_total_ms", .tickTotal, milliseconds, in: notNegative),
                .required("cache_hit", .cacheHit, .boolean),
                .nullable("cache_age_ms", .cacheAge, milliseconds, in: notNegative),
                .required("used_stale", .usedStale, .boolean),
                .required("deadline_miss", .deadlineMiss, .boolean),
                .optional("weight", .weight, .integer, in: weight),
            ] + closing(isSeedFeed: true)
        case .snapshots:
            return opening + [
                .required("from_ts", .fromTs, .integer, in: time),
                .required("span_ms", .spanMs, .integer, in: 1...RowLimits.spanMax),
                .required(
                    "features", .v,
                    .group([
                        .nullable("vol_realized", .volRealized, bps, in: notNegative),
                        .nullable("liq_top_depth", .liqTopDepth, .fixed(Places.quantity), in: notNegative),
                        .nullable("pnl_dev", .pnlDev, bps),
                        .nullable("queue_absorb_rate", .queueAbsorbRate, .fixed(Places.quantity), in: notNegative),
                        .nullable("queue_eta_ms", .queueEta, milliseconds, in: notNegative),
                    ])),
                .required(
                    "counts", .v,
                    .group([
                        .optional("ticks", .ticks, .integer, in: count),
                        .required("quotes", .quotes, .integer, in: count),
                        .required("fills", .fills, .integer, in: count),
                        .required("filled_orders", .filledOrders, .integer, in: count),
                        .required("taker_fills", .takerFills, .integer, in: count),
                        .optional("returns", .returns, .integer, in: count),
                        .optional("deadline_misses", .deadlineMisses, .integer, in: count),
                    ])),
                .required(
                    "sums", .v,
                    .group([
                        .required("fill_notional", .fillNotional, .fixed(Places.notional), in: notNegative),
                        .optional("slip", .slip, bps),
                        .required("slip_x_notional", .slipXNotional, .fixed(costPlaces)),
                        .required("markout_notional", .markoutNotional, .fixed(Places.notional), in: notNegative),
                        .optional("net_x_notional", .netXNotional, .fixed(costPlaces)),
                        .required("adverse_x_notional", .adverseXNotional, .fixed(costPlaces)),
                        .optional("return2", .squaredReturn, .fixed(squaredReturnPlaces), in: notNegative),
                    ])),
                .required("tick_ns_histogram", .v, .histogram),
            ] + closing(isSeedFeed: false)
        case .markouts:
            return opening + [
                .required("fill_id", .fillID, .integer, in: notNegative),
                .nullable("mid_5s", .mid5s, .fixed(Places.price), in: positive),
            ] + closing(isSeedFeed: false)
        case .quotes:
            return opening + [
                .required("half_spread_bps", .halfSpreadBps, bps, in: bpsRange),
                .required("skew_bps", .skewBps, bps, in: bpsRange),
                .required("nudge_bps", .nudgeBps, bps, in: bpsRange),
                .nullable("resting_ms", .resting, milliseconds, in: notNegative),
                .optional("weight", .weight, .integer, in: weight),
            ] + closing(isSeedFeed: false)
        }
    }

    private static let opening: [FieldSpec] = [
        .required("ts", .ts, .integer, in: time),
        .required("symbol", .v, .text(.symbol)),
    ]

    /// Arm and common fields. A row without `v` is the seed's form, which has two feeds only.
    private static func closing(isSeedFeed: Bool) -> [FieldSpec] {
        let version = FieldSpec(name: "v", field: .v, kind: .integer, isRequired: !isSeedFeed, isNullable: false, range: 1...1)
        return [
            .optional("arm", .arm, .text(.arm)),
            .optional("arm_why", .v, .text(.armWhy)),
            .optional("experiment", .v, .text(.experiment)),
            .optional("block", .block, .integer, in: block),
            .optional("config_hash", .v, .text(.configHash)),
            version,
            .optional("source", .source, .text(.source)),
            .optional("host", .v, .text(.host)),
            .optional("epoch", .epoch, .text(.epoch)),
            .optional("seq", .seq, .integer, in: notNegative),
        ]
    }

    /// Snapshots print cost sums (bps * quote currency) to nine decimals.
    static let costPlaces = 9
    /// bps^2.
    static let squaredReturnPlaces = 9
    private static let bps = FieldSpec.Kind.fixed(Places.bps)
    private static let milliseconds = FieldSpec.Kind.fixed(Places.milliseconds)
    private static let time: ClosedRange<Int64> = 1...RowLimits.timeMax - 1
    private static let positive: ClosedRange<Int64> = 1...Int64.max
    private static let notNegative: ClosedRange<Int64> = 0...Int64.max
    private static let bpsRange: ClosedRange<Int64> = -RowLimits.bpsMax...RowLimits.bpsMax
    private static let block: ClosedRange<Int64> = Int64(Int32.min)...Int64(Int32.max)
    private static let weight: ClosedRange<Int64> = 1...RowLimits.weightMax
    private static let count: ClosedRange<Int64> = 0...RowLimits.countMax
}
