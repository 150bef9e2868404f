import CalibModel
import Wire

/// Where a symbol's book stands against the venue's sequence (SPEC 3.1).
package enum SyncState: Sendable, Equatable {
    /// No snapshot yet, or a gap: diffs are buffered, nothing is quoted.
    case unsynced
    /// A snapshot was applied; the next event must satisfy the first-event rule.
    case awaitingFirst(snapshotID: Int64)
    /// Every event so far chained to the one before it.
    case synced
}

/// What the frames of one symbol amounted to.
package struct SymbolCounts: Sendable {
    package var depthMessages: Int64 = 0
    package var snapshots: Int64 = 0
    package var trades: Int64 = 0
    package var bookTickers: Int64 = 0
    /// Depth messages that came while the book was not proven.
    package var unsyncedMessages: Int64 = 0
    package var sequenceGaps: Int64 = 0
    package var crossed: Int64 = 0
    /// How often the book asked for a new subscription (Bybit).
    package var resubscriptions: Int64 = 0
    package var ticks: Int64 = 0
    package var quotes: Int64 = 0
    package var fills: Int64 = 0
    /// Of the fills, those that took.
    package var takerFills: Int64 = 0
    package var postOnlyRejections: Int64 = 0
    /// Orders held back because one of ours on the other side might still be in their way.
    package var selfCrossesHeld: Int64 = 0
    package init() {}

    package mutating func add(_ other: SymbolCounts) {
        depthMessages += other.depthMessages
        snapshots += other.snapshots
        trades += other.trades
        bookTickers += other.bookTickers
        unsyncedMessages += other.unsyncedMessages
        sequenceGaps += other.sequenceGaps
        crossed += other.crossed
        resubscriptions += other.resubscriptions
        ticks += other.ticks
        quotes += other.quotes
        fills += other.fills
        takerFills += other.takerFills
        postOnlyRejections += other.postOnlyRejections
        selfCrossesHeld += other.selfCrossesHeld
    }
}

/// A depth event kept until its snapshot comes.
struct BufferedDiff {
    var first: Int64
    var last: Int64
    var previous: Int64?
    var eventMilliseconds: Int64
    var bids: [BookLevel]
    var asks: [BookLevel]
}

/// Everything the edge knows about one symbol. State per symbol, never shared (fault 46 of the first implementation).
package struct SymbolState: ~Copyable {
    package let index: SymbolIndex
    package let instrument: Instrument
    let symbolHash: Int64
    /// One lot in base asset; of an inverse instrument as of `sizedMidTwice`.
    private(set) var lot: Double
    /// The doubled mid at which sizes were last converted to lots; nil before there was one. Only an inverse instrument's depend on it.
    private var sizedMidTwice: Int64?
    /// Of the arm played.
    private(set) var orderLots: Int64
    private(set) var maxPositionLots: Int64
    /// Of arm A: what pnl_bps is measured against, so that the feature means the same under both arms.
    private(set) var featurePositionLots: Int64
    /// Always of arm A: nothing widens them.
    private(set) var hardLimits: EmitStage.HardLimits
    /// Arm A's parameters, and behind them arm B's; the node's.
    private let armParameters: UnsafePointer<Parameters>
    private let priceTicksMax: Int64
    private let quantityLotsMax: Int64
    /// Of the instrument: its grid is one unit of its last places, and these are the places.
    private let isPlain: Bool
    private let priceDigits: Int
    private let quantityDigits: Int

    package internal(set) var book = Book()
    package internal(set) var sync = SyncState.unsynced
    var buffered: [BufferedDiff] = []
    /// How far the snapshot under the book reaches (Binance, live).
    var coverage = BookCoverage()
    /// Why the book was lost the last time; nil before it was.
    var lostBy: MDCache.Invalidation?
    /// Which kind of trades came first; nil before there was one.
    var tradesAreAggregate: Bool?
    /// Venue time of the last applied depth event.
    var lastEventMilliseconds: Int64 = .min
    var lastGap: (expected: Int64, received: Int64)?
    var subscription = BookSubscription()
    package internal(set) var counts = SymbolCounts()
    package internal(set) var audit = TopAudit()
    var cache: MDCache
    var waiting: WaitingTick?
    /// Since when a trade says that the book is not the venue's; nil after the next book frame.
    var contradictedAt: Instant?

    // Pipeline.
    var features: FeatureSet
    var previousSpread: BasisPoints?
    var tightenedAt: Instant?
    var haltedUntil: Instant?
    var nudge: (buy: BasisPoints, sell: BasisPoints) = (.zero, .zero)
    var nudgedAt: (buy: Instant?, sell: Instant?)
    var tickSampling = TickSampling()
    /// p95 of tick totals, read once a second; what scores and guards see outside replay.
    var tickP95Nanoseconds: Int64 = 0
    var previousMidTwice: Int64?
    /// The newest bid and ask, and what lies between them.
    var spreadKnown: (bid: Int64, ask: Int64, spread: BasisPoints) = (0, 0, .zero)
    var nextIntervalTick: Instant?

    // Orders and position.
    var bidSide = PaperSide(.buy)
    var askSide = PaperSide(.sell)
    var orderLatency = OrderLatency()
    /// The newest Emit target per arm and side, in ticks: the `quote_price` of SPEC 1.3. No order outlives its arm, so what an earlier stretch
    /// of the arm left here is never read.
    var newestTarget: (a: (buy: Int64?, sell: Int64?), b: (buy: Int64?, sell: Int64?))
    /// Sides with an order, as counted in `SharedState.openOrders`.
    var openOrders: Int64 = 0
    var quoteSampling = QuoteSampling()
    package internal(set) var positionLots: Int64 = 0
    /// What trades have brought, without fees, in the instrument's unit (`Instrument.cash`).
    var cash: Int128 = 0
    /// 1e-8 quote currency.
    var feesPaid: Int64 = 0

    // Arms and safety.
    /// What the symbol plays now.
    package internal(set) var armFields: ArmFields
    var change: ArmChange?
    package internal(set) var isKilled = false
    /// The venue has changed the instrument since the start.
    var hasOldInstrument = false
    var loss = DailyLoss()

    // For metrics; nil before the first.
    var lastTickAt: WallTime?
    var lastFillAt: WallTime?

    // Time grid and records.
    var nextSecond: Int64?
    /// What the symbol's present arm fields add up to; behind it those of fields it has left, oldest first.
    let accumulator: UnsafeMutablePointer<SnapshotRecord>
    var trailingCount = 0
    /// When `armFields` began, ms; 0 at the start.
    var armFieldsBeganMilliseconds: Int64 = 0
    var accumulatorHasEvents = false
    var bookedPnL: Int64 = 0
    var quoteBookedAt: (buy: Instant?, sell: Instant?)
    var markouts = MarkoutQueue()

    /// - Parameter armParameters: A's and B's; they outlive the symbol.
    init(index: SymbolIndex, instrument: Instrument, armParameters: UnsafePointer<Parameters>, armFields: ArmFields, seed: UInt64 = 0) {
        cache = MDCache(seed: seed &+ UInt64(index))
        let parameters = armParameters.pointee
        self.armParameters = armParameters
        self.armFields = armFields
        self.index = index
        self.instrument = instrument
        symbolHash = Int64(bitPattern: KeyedHash.hash(instrument.symbol.utf8, key0: 0, key1: 0))
        let lotE8 = instrument.lotE8
        lot = Double(lotE8) / 1e8
        priceTicksMax = Limits.decimalMax / instrument.tickNano
        quantityLotsMax = Limits.decimalMax / lotE8
        isPlain = instrument.tickUnits == 1 && instrument.lotUnits == 1
        priceDigits = instrument.priceDigits
        quantityDigits = instrument.quantityDigits
        (orderLots, maxPositionLots) = Self.sizes(parameters, instrument, nil)
        featurePositionLots = maxPositionLots
        hardLimits = Self.hardLimits(parameters, instrument, nil)
        features = FeatureSet(emaAlpha: parameters.emaAlpha, targetPnL: parameters.targetPnL)
        // The trailing ones, and one that takes what has no place, are written when they are first needed.
        accumulator = .allocate(capacity: 1 + Limits.trailingAccumulatorsMax + 1)
        accumulator.initialize(to: SnapshotRecord())
    }

    deinit { accumulator.deallocate() }

    package var isProven: Bool { sync == .synced }

    // MARK: Arms

    /// The parameters of the arm played. Not a copy: it is read on every tick.
    var parameters: UnsafePointer<Parameters> {
        switch armFields.arm {
        case .a: armParameters
        case .b: armParameters + 1
        }
    }

    /// Arm A has other parameters now; averages, orders and their places in the queue stay.
    mutating func adoptBaseline() {
        let baseline = armParameters.pointee
        adoptSizes()
        featurePositionLots = Self.sizes(baseline, instrument, sizedMidTwice).position
        hardLimits = Self.hardLimits(baseline, instrument, sizedMidTwice)
        features.adopt(emaAlpha: baseline.emaAlpha, targetPnL: baseline.targetPnL)
        if baseline.trigger == .bookChange { nextIntervalTick = nil }
    }

    /// Sizes follow the arm, or new parameters of it.
    mutating func adoptSizes() { (orderLots, maxPositionLots) = Self.sizes(parameters.pointee, instrument, sizedMidTwice) }

    /// An inverse instrument's sizes in lots follow the price: at its first mid, and once a second.
    mutating func convertSizes(midTwice: Int64) {
        guard instrument.isInverse, sizedMidTwice != midTwice else { return }
        sizedMidTwice = midTwice
        adoptSizes()
        featurePositionLots = Self.sizes(armParameters.pointee, instrument, midTwice).position
        hardLimits = Self.hardLimits(armParameters.pointee, instrument, midTwice)
        lot = Double(instrument.notional(price: 0, lots: 1)) * 20 / (Double(midTwice) * Double(instrument.tickNano))
    }

    /// Whether sizes have been converted: always, but for an inverse instrument before its first mid.
    var hasSizes: Bool { !instrument.isInverse || sizedMidTwice != nil }

    /// A quantity below one lot cannot be ordered: one lot is the smallest honest reading of it.
    private static func sizes(_ parameters: Parameters, _ instrument: Instrument, _ midTwice: Int64?) -> (order: Int64, position: Int64) {
        let orderLots = max(1, instrument.lots(ofSize: parameters.orderQuantity, midTwice: midTwice ?? 0))
        return (orderLots, max(orderLots, instrument.lots(ofSize: parameters.maxPosition, midTwice: midTwice ?? 0)))
    }

    private static func hardLimits(_ parameters: Parameters, _ instrument: Instrument, _ midTwice: Int64?) -> EmitStage.HardLimits {
        var limits = EmitStage.HardLimits(
            orderLots: max(1, instrument.lots(ofSize: parameters.limits.orderQuantity, midTwice: midTwice ?? 0)),
            positionLots: max(1, instrument.lots(ofSize: parameters.limits.position, midTwice: midTwice ?? 0)), notional: .max,
            collar: parameters.limits.priceCollar)
        if instrument.isInverse {
            // A contract is worth the same at every price.
            let worth = instrument.notional(price: 0, lots: 1)
            limits.orderLots = min(limits.orderLots, parameters.limits.notional / worth)
            limits.minimumLots = (instrument.minimumNotional + worth - 1) / worth
        } else {
            let unit = Int128(instrument.tickNano) * Int128(instrument.lotE8)  // 1e-17 quote currency for a tick x lot.
            limits.notional = Int64(clamping: Int128(parameters.limits.notional) * 1_000_000_000 / unit)
            limits.minimumNotional = Int64(clamping: (Int128(instrument.minimumNotional) * 1_000_000_000 + unit - 1) / unit)
        }
        return limits
    }

    // MARK: Conversions
    //
    // Those of every frame are mutating because Swift 6.3.1 copies the whole symbol (5 KB) for a call that only borrows it.

    /// Ticks of a venue price; throws when it is not on the grid or not a positive Int64.
    mutating func ticks(_ price: DecimalText) throws(FrameRejection) -> Int64 {
        guard let units = price.exact(places: instrument.priceDigits) else { throw .offTick }
        if instrument.tickUnits == 1 {
            guard units > 0, units <= priceTicksMax else { throw .outOfRange }
            return units
        }
        guard units > 0, units / instrument.tickUnits <= priceTicksMax else { throw .outOfRange }
        guard units.isMultiple(of: instrument.tickUnits) else { throw .offTick }
        return units / instrument.tickUnits
    }

    /// Lots of a venue quantity; 0 is a removal.
    mutating func lots(_ quantity: DecimalText) throws(FrameRejection) -> Int64 {
        guard let units = quantity.exact(places: instrument.quantityDigits) else { throw .offLot }
        if instrument.lotUnits == 1 {
            guard units >= 0, units <= quantityLotsMax else { throw .outOfRange }
            return units
        }
        guard units >= 0, units / instrument.lotUnits <= quantityLotsMax else { throw .outOfRange }
        guard units.isMultiple(of: instrument.lotUnits) else { throw .offLot }
        return units / instrument.lotUnits
    }

    /// A price and a quantity as ticks and lots.
    @inline(__always) mutating func level(_ raw: RawLevel) throws(FrameRejection) -> (price: Int64, quantity: Int64) {
        if isPlain, let price = raw.price.exact(places: priceDigits), price > 0, price <= priceTicksMax,
            let quantity = raw.quantity.exact(places: quantityDigits), quantity >= 0, quantity <= quantityLotsMax
        {
            return (price, quantity)
        }
        // Another grid, or an error: which one is said there.
        return (try ticks(raw.price), try lots(raw.quantity))
    }

    /// Reads levels as ticks and lots: all of them, or an error and none is used.
    mutating func read(_ raw: UnsafePointer<RawLevel>, count: Int, into target: UnsafeMutablePointer<BookLevel>) throws(FrameRejection)
        -> UnsafeBufferPointer<BookLevel>
    {
        for index in 0..<count {
            let level = try level(raw[index])
            target[index] = BookLevel(price: level.price, quantity: level.quantity)
        }
        return UnsafeBufferPointer(start: target, count: count)
    }

    /// The same of levels that all have the same places, in `levels` or in `target`; nil when one is not on a grid of one unit or not in range, or
    /// nobody knows.
    mutating func read(
        _ levels: UnsafePointer<BookLevel>, _ places: LevelPlaces, count: Int, into target: UnsafeMutablePointer<BookLevel>
    ) -> UnsafeBufferPointer<BookLevel>? {
        guard isPlain, places.quantity == quantityDigits else { return nil }
        // All of them are looked at before anything is said: no branch for each.
        let (priceMax, quantityMax) = (UInt64(priceTicksMax), UInt64(quantityLotsMax))
        var isWrong = false
        switch places.price - priceDigits {
        case 0:
            for index in 0..<count {
                let (price, quantity) = (UInt64(bitPattern: levels[index].price), UInt64(bitPattern: levels[index].quantity))
                isWrong = isWrong || price &- 1 >= priceMax || quantity > quantityMax
            }
            return isWrong ? nil : UnsafeBufferPointer(start: levels, count: count)
        case -1:
            // The reader left out a zero that is one of the tick's places here.
            for index in 0..<count {
                let (price, quantity) = (UInt64(bitPattern: levels[index].price), UInt64(bitPattern: levels[index].quantity))
                isWrong = isWrong || price &* 10 &- 1 >= priceMax || quantity > quantityMax
                target[index] = BookLevel(price: levels[index].price &* 10, quantity: levels[index].quantity)
            }
            return isWrong ? nil : UnsafeBufferPointer(start: target, count: count)
        default: return nil
        }
    }

    /// Mark-to-market in 1e-8 quote currency, fees included; nil without a mid.
    func profit() -> Int64? {
        guard let mid = book.top?.midTwice else { return nil }
        return instrument.profit(position: positionLots, cash: cash, midTwice: mid).map { $0 - feesPaid }
    }

    /// What the features measure profit with: the mark without fees and the largest position's worth, in one unit, both doubled.
    func marks(midTwice: Int64) -> (mark: Double, fullPosition: Double) {
        guard let multiplier = instrument.contractMultiplier else {
            return (Double(positionLots) * Double(midTwice) + 2 * Double(cash), Double(featurePositionLots) * Double(midTwice))
        }
        // 1e-8 quote currency.
        let contracts = 2 * Double(instrument.lotE8) * Double(multiplier)
        return (
            Double(cash) * Double(midTwice) * Double(instrument.tickNano) / 1e16 - Double(positionLots) * contracts,
            Double(featurePositionLots) * contracts
        )
    }
}
