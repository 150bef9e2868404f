/// The feeds of SPEC 2; the raw value is the file name's first part.
package enum Feed: String, CaseIterable, Sendable {
    case fills, markouts, events
    case snapshots = "feature_snapshots"
    case quotes
    case ticks = "pipeline_ticks"

    /// Synced within 20 ms instead of 1 s (SPEC 2.7).
    package var isUrgent: Bool {
        switch self {
        case .fills, .markouts, .events: true
        case .snapshots, .quotes, .ticks: false
        }
    }
}

/// A symbol's place in the edge's slab; records carry it instead of text.
package typealias SymbolIndex = UInt16

/// Numbers only, in the edge's ticks and lots: a ring slot is bitwise-copyable, text is made by the writer (SPEC 4.8).
package struct FillRecord: BitwiseCopyable, Sendable {
    package var wall: WallTime
    package var symbol: SymbolIndex
    package var side: Side
    package var isTaker: Bool
    package var price: Int64
    package var quantity: Int64
    package var queueAhead: Int64
    package var quotePrice: Int64
    package var midAtQuoteTwice: Int64
    package var midNowTwice: Int64
    package var spreadAtQuote: BasisPoints
    package var latencyNanoseconds: Int64
    package var slip: BasisPoints
    package var fillID: Int64
    package var orderID: Int64
    package var fee: BasisPoints
    /// Of the order's quote, not of the instant of the fill.
    package var armFields: ArmFields

    package init(
        wall: WallTime, symbol: SymbolIndex, side: Side, isTaker: Bool, price: Int64, quantity: Int64, queueAhead: Int64, quotePrice: Int64,
        midAtQuoteTwice: Int64, midNowTwice: Int64, spreadAtQuote: BasisPoints, latencyNanoseconds: Int64, slip: BasisPoints, fillID: Int64,
        orderID: Int64, fee: BasisPoints, armFields: ArmFields
    ) {
        self.wall = wall
        self.symbol = symbol
        self.side = side
        self.isTaker = isTaker
        self.price = price
        self.quantity = quantity
        self.queueAhead = queueAhead
        self.quotePrice = quotePrice
        self.midAtQuoteTwice = midAtQuoteTwice
        self.midNowTwice = midNowTwice
        self.spreadAtQuote = spreadAtQuote
        self.latencyNanoseconds = latencyNanoseconds
        self.slip = slip
        self.fillID = fillID
        self.orderID = orderID
        self.fee = fee
        self.armFields = armFields
    }
}

/// The six stages in their order; the names are the seed's.
package enum Stage: Int, CaseIterable, Sendable {
    case fetchMD, spread, guards, inventory, queueAware, emit
    package var name: StaticString {
        switch self {
        case .fetchMD: "FetchMDStage"
        case .spread: "SpreadStage"
        case .guards: "GuardsStage"
        case .inventory: "InventoryStage"
        case .queueAware: "QueueAwareStage"
        case .emit: "EmitStage"
        }
    }
}

package struct TickRecord: BitwiseCopyable, Sendable {
    package var wall = WallTime(nanoseconds: 0)
    package var symbol: SymbolIndex = 0
    /// Nanoseconds per stage, in `Stage` order, nil for a stage not timed on this tick.
    package var stageNanoseconds: InlineArray<6, Int64?> = .init(repeating: nil)
    package var totalNanoseconds: Int64 = 0
    package var isCacheHit = false
    /// Nil when there was no proven book.
    package var cacheAgeNanoseconds: Int64?
    package var usedStale = false
    package var missedDeadline = false
    package var tick: Int64 = 0
    package var weight: Int64 = 1
    package var isHalted = false
    package var armFields = ArmFields(configHash: 0)
    package init() {}
}

package struct MarkoutRecord: BitwiseCopyable, Sendable {
    package var wall: WallTime
    package var symbol: SymbolIndex
    package var fillID: Int64
    package var fillMilliseconds: Int64
    /// Twice the mid in ticks, nil when the book was not proven then or the run ended first.
    package var midTwiceAfter1s: Int64?
    package var midTwiceAfter5s: Int64?
    package var midTwiceAfter30s: Int64?
    package var net: BasisPoints?
    /// Of the filled order's quote.
    package var armFields: ArmFields

    package init(wall: WallTime, symbol: SymbolIndex, fillID: Int64, fillMilliseconds: Int64, armFields: ArmFields) {
        self.wall = wall
        self.symbol = symbol
        self.fillID = fillID
        self.fillMilliseconds = fillMilliseconds
        self.armFields = armFields
    }
}

package enum OrderOutcome: UInt8, Sendable, BitwiseCopyable {
    case filled, cancelled, replaced
    package var text: StaticString {
        switch self {
        case .filled: "filled"
        case .cancelled: "cancelled"
        case .replaced: "replaced"
        }
    }
}

package struct QuoteRecord: BitwiseCopyable, Sendable {
    package var wall: WallTime
    package var symbol: SymbolIndex
    package var side: Side
    package var orderID: Int64
    package var price: Int64
    package var quantity: Int64
    package var depth: BasisPoints
    package var halfSpread: BasisPoints
    package var skew: BasisPoints
    package var nudge: BasisPoints
    package var queueAhead: Int64
    package var restingNanoseconds: Int64
    package var outcome: OrderOutcome
    /// bps per sqrt s; nil before the first returns.
    package var volRealized: BasisPoints?
    package var weight: Int64
    package var armFields: ArmFields

    package init(
        wall: WallTime, symbol: SymbolIndex, side: Side, orderID: Int64, price: Int64, quantity: Int64, depth: BasisPoints,
        halfSpread: BasisPoints, skew: BasisPoints, nudge: BasisPoints, queueAhead: Int64, restingNanoseconds: Int64, outcome: OrderOutcome,
        volRealized: BasisPoints?, weight: Int64, armFields: ArmFields
    ) {
        self.wall = wall
        self.symbol = symbol
        self.side = side
        self.orderID = orderID
        self.price = price
        self.quantity = quantity
        self.depth = depth
        self.halfSpread = halfSpread
        self.skew = skew
        self.nudge = nudge
        self.queueAhead = queueAhead
        self.restingNanoseconds = restingNanoseconds
        self.outcome = outcome
        self.volRealized = volRealized
        self.weight = weight
        self.armFields = armFields
    }
}

/// The counts of a snapshot (SPEC 2.3): unsampled, one accumulator per key.
package struct SnapshotCounts: BitwiseCopyable, Sendable {
    package var ticks: Int64 = 0
    package var quotes: Int64 = 0
    package var fills: Int64 = 0
    package var filledOrders: Int64 = 0
    package var takerFills: Int64 = 0
    package var returns: Int64 = 0
    package var cacheHits: Int64 = 0
    package var cacheMisses: Int64 = 0
    package var cacheStale: Int64 = 0
    package var deadlineMisses: Int64 = 0
    package var halts: Int64 = 0
    package var rejectedInputs: Int64 = 0
    package init() {}
}

/// The sums of a snapshot (SPEC 2.3), exact. Wide where a product of two scales is summed.
package struct SnapshotSums: BitwiseCopyable, Sendable {
    /// 1e-8 quote currency.
    package var fillNotional: Int64 = 0
    /// 1e-6 bps, one term per fill.
    package var slip: Int64 = 0
    /// 1e-14 bps x quote currency.
    package var slipNotional: Int128 = 0
    /// 1e-8 quote currency, of the fills whose 5-s markout is known.
    package var markoutNotional: Int64 = 0
    package var netNotional: Int128 = 0
    package var adverseNotional: Int128 = 0
    /// Nanoseconds that quotes rested, both sides added.
    package var quoteNanoseconds: Int64 = 0
    /// Twice the mid in ticks, one term per priced tick.
    package var midTwice: Int128 = 0
    /// 1e-6 bps, one term per priced tick.
    package var marketSpread: Int64 = 0
    /// Lots, one term per priced tick.
    package var position: Int128 = 0
    /// 1e-8 quote currency: change of mark-to-market, fees included.
    package var pnl: Int64 = 0
    /// 1e-9 bps^2.
    package var squaredReturn: Int64 = 0
    package init() {}
}

/// One feature's place in a snapshot; the definitions are in `EdgeCore/Features.swift`.
package enum Feature: Int, CaseIterable, Sendable {
    case volRealized, liqTopDepth, latencyP95, pnlDev, fillRate, takerShare, queueAbsorbRate, queueETA, slippage, adverseMove
    package var name: StaticString {
        switch self {
        case .volRealized: "vol_realized"
        case .liqTopDepth: "liq_top_depth"
        case .latencyP95: "latency_p95"
        case .pnlDev: "pnl_dev"
        case .fillRate: "fill_rate"
        case .takerShare: "taker_share"
        case .queueAbsorbRate: "queue_absorb_rate"
        case .queueETA: "queue_eta_ms"
        case .slippage: "slippage_bps"
        case .adverseMove: "adverse_move_bps"
        }
    }
}

extension Feature {
    /// Decimal places of the feature in a row: what a reader converts it to (SPEC 1.2), so that nobody reads less than was written.
    package var places: Int {
        switch self {
        case .volRealized, .pnlDev, .slippage, .adverseMove: Places.bps
        case .liqTopDepth, .queueAbsorbRate: Places.quantity
        case .latencyP95, .queueETA: Places.milliseconds
        case .fillRate, .takerShare: 9
        }
    }
}

package struct SnapshotRecord: BitwiseCopyable, Sendable {
    package var wall = WallTime(nanoseconds: 0)
    package var symbol: SymbolIndex = 0
    package var fromMilliseconds: Int64 = 0
    package var spanMilliseconds: Int64 = 0
    /// In units of the feature's last place, in `Feature` order; nil is unknown.
    package var features: InlineArray<10, Int64?> = .init(repeating: nil)
    package var counts = SnapshotCounts()
    package var sums = SnapshotSums()
    package var tickHistogram: InlineArray<3840, UInt32> = .init(repeating: 0)
    package var armFields = ArmFields(configHash: 0)
    package init() {}
}

/// Why a symbol or the whole edge places nothing for a while.
package enum HaltCause: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    /// Guards (SPEC 4.3).
    case volatility, latency, pnl, takerFills
    /// Hard limits (SPEC 10.2).
    case dailyLossSymbol, dailyLossHost
    /// Feeds cannot be written, or the ring of fills is nearly full (SPEC 2.7).
    case disk
    /// The venue changed the instrument; until a restart (SPEC 3.1).
    case instrument

    package var text: StaticString {
        switch self {
        case .volatility: "volatility"
        case .latency: "latency"
        case .pnl: "pnl"
        case .takerFills: "taker_fills"
        case .dailyLossSymbol: "daily_loss_symbol"
        case .dailyLossHost: "daily_loss_host"
        case .disk: "disk"
        case .instrument: "instrument"
        }
    }
}

/// What happened to the edge itself; never dropped (SPEC 2.6).
package enum EventKind: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    /// The node runs; first = the run number.
    case started
    /// The node ended by itself; first = messages, second = fills.
    case stopped
    /// The book lost its proof by a sequence break; first = the id expected, second = the id that came.
    case gap
    /// The book is proven again; first = its id, second = how many buffered diffs were applied.
    case resync
    /// A guard or a limit halted the symbol, or the host; first = the `HaltCause`, second = for how many milliseconds.
    case halt
    /// Rows are gone: a ring was full, then first = how many, second = the feed when no subject names it; or a file had to make room before the
    /// hub had it, then first = its rows, 0 when unknown, second = its bytes.
    case dropped
    /// The wall clock stepped; first = the step in milliseconds.
    case clock
    /// Bytes were cut from a feed's end on open; first = bytes cut, second = rows saved.
    case cut
    /// A venue connection ended; first = the connection, second = how many books lost their proof by it.
    case disconnected
    /// The symbol plays other arm fields from here on: `armFields`; first = the arm before (`Arm.rawValue`).
    case armChange
    /// An experiment was rolled back here and never comes back: `armFields.experiment`.
    case latch
    /// A fast breaker tripped (SPEC 7.4): `armFields.experiment`; first = `BreakerKind` * 2 + `BreakerTrip.Scope`, second = its count << 32 |
    /// out of how many, a loss in whole quote currency.
    case breaker
    /// The kill switch was thrown for the symbol, or for the host; first = orders being cancelled by it.
    case kill
    /// It was released.
    case release
    /// Other effective parameters from here on: `armFields.configHash`.
    case config
    /// A fill has no row, because the ring of fills was full; first = its order.
    case lost
    /// A day's file is complete and will not change any more; first = its bytes, second = its rows.
    case sealed
    /// The hub goes on with the feed's file in a new part, because its copy has other bytes than ours; first = the first byte of the part.
    case fork
}

/// What an event is about that does not fit into two numbers.
package struct EventSubject: Sendable, Equatable {
    package var feed: Feed
    /// Of the file, when it is about a whole one.
    package var day: CalendarDay?
    package var sha256: String?
    package init(feed: Feed, day: CalendarDay? = nil, sha256: String? = nil) {
        self.feed = feed
        self.day = day
        self.sha256 = sha256
    }
}

/// A complete file of one feed and day, as its `sealed` event tells it.
package struct SealedFile: Sendable, Equatable {
    package var feed: Feed
    package var day: CalendarDay
    package var bytes: Int64
    package var rows: Int64
    /// 64 lower-case hex digits.
    package var sha256: String
    /// Of its rows; 0 when it has none.
    package var highestSeq: Int64

    package init(feed: Feed, day: CalendarDay, bytes: Int64, rows: Int64, sha256: String, highestSeq: Int64) {
        self.feed = feed
        self.day = day
        self.bytes = bytes
        self.rows = rows
        self.sha256 = sha256
        self.highestSeq = highestSeq
    }

    package var name: String { FeedFileName.text(feed, day) }
}

/// `<feed>_YYYYMMDD.jsonl`
package enum FeedFileName {
    package static func text(_ feed: Feed, _ day: CalendarDay) -> String { "\(feed.rawValue)_\(day.compactText).jsonl" }

    /// The day of a file of the feed, nil for any other name.
    package static func day(of name: String, _ feed: Feed) -> CalendarDay? {
        guard name.hasPrefix(feed.rawValue + "_"), name.hasSuffix(".jsonl") else { return nil }
        return CalendarDay(compactText: name.dropFirst(feed.rawValue.utf8.count + 1).dropLast(6))
    }

    /// Nil for any other name.
    package static func parse(_ name: String) -> (feed: Feed, day: CalendarDay)? {
        for feed in Feed.allCases { if let day = day(of: name, feed) { return (feed, day) } }
        return nil
    }
}

package struct EventRecord: BitwiseCopyable, Sendable {
    package var wall: WallTime
    package var kind: EventKind
    package var symbol: SymbolIndex?
    package var first: Int64
    package var second: Int64
    /// Of `armChange`, `latch`, `breaker` and `config`; nil otherwise.
    package var armFields: ArmFields?
    package init(
        wall: WallTime, kind: EventKind, symbol: SymbolIndex? = nil, first: Int64 = 0, second: Int64 = 0, armFields: ArmFields? = nil
    ) {
        self.wall = wall
        self.kind = kind
        self.symbol = symbol
        self.first = first
        self.second = second
        self.armFields = armFields
    }
}
