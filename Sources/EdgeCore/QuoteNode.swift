import CalibModel
import Wire

/// Reads a monotonic clock in nanoseconds; the one closure on the quote path.
package struct StopClock {
    private let read: () -> Int64
    package init(_ read: @escaping () -> Int64) { self.read = read }
    package func now() -> Int64 { read() }
}

/// What the symbols of one node share: parameters, rings, the order rate, the run's identity.
package struct SharedState {
    /// Slots a frame needs at most: both sides' orders in flight, ended or filled, and the seconds a pause before it closes.
    package static let recordsPerFrame = 2 * Limits.ordersInFlightMax + Limits.silenceSecondsMax

    /// Arm A's; a symbol's own are those of its arm.
    package let parameters: Parameters
    /// Replay and simulation: the clock is the recorded receive time, and durations inside a step count as 0 for every decision (SPEC 3.7).
    package let isRecorded: Bool
    package let runNumber: Int64
    package var outboxes: Outboxes
    package var explainTick: Int64?
    package var explainSymbol: SymbolIndex = 0
    package internal(set) var explanation: TickExplanation?

    var connectionAnswers: Bool
    var clock: StopClock
    var orderRate: OrderRate
    var orderNumber: Int64 = 0
    var nextFillID: Int64
    /// Of the plan in force.
    var configHash: UInt64
    var lastChange: Moment?
    package internal(set) var isKilled = false
    var isDiskHalted = false
    /// Orders resting or on their way, of all symbols.
    package internal(set) var openOrders: Int64 = 0
    var loss = HostLoss()
    /// Bookings to trailing rows that found no place.
    var droppedSnapshots = 0
    var tickBudget: TickBudget
    private var quoteHash = KeyedHash()

    init(
        parameters: Parameters, configHash: UInt64, isRecorded: Bool, runNumber: Int64, outboxes: consuming Outboxes, clock: StopClock,
        firstFillID: Int64, symbols: Int
    ) {
        self.parameters = parameters
        self.configHash = configHash
        self.isRecorded = isRecorded
        self.runNumber = runNumber
        self.outboxes = outboxes
        self.clock = clock
        connectionAnswers = isRecorded
        orderRate = OrderRate(perSecond: parameters.orderRatePerSecond, burst: parameters.orderBurst)
        nextFillID = firstFillID
        tickBudget = TickBudget(
            rowsPerSecond: parameters.tickRowsPerSecondMax, sampleRate: parameters.tickSampleRate, symbols: symbols)
    }

    /// SPEC 3.7: (ts, symbol, side, price, qty, action), every place, replace and cancel in order.
    mutating func hash(_ wall: WallTime, _ symbolHash: Int64, _ side: Side, price: Int64, lots: Int64, _ action: OrderDecision) {
        quoteHash.combine(wall.milliseconds)
        quoteHash.combine(symbolHash)
        quoteHash.combine(Int64(side.rawValue))
        quoteHash.combine(price)
        quoteHash.combine(lots)
        quoteHash.combine(action == .place ? Int64(1) : action == .replace ? 2 : 3)
    }

    package var quotesHash: UInt64 { quoteHash.finalized() }
}

/// A sequence break, as evidence.
package struct Gap: Sendable {
    package var symbol: SymbolIndex
    package var wall: WallTime
    /// The id the event should have chained to, and what it carried.
    package var expected: Int64
    package var received: Int64
}

/// The edge's quoting core: verified books, six stages, paper fills, features, records (SPEC 2-5).
///
/// Invariants:
/// 1. A frame is decoded whole before anything changes; a rejected frame changes nothing but its counter.
/// 2. Nothing is quoted on an unproven book: a tick needs `sync == .synced`, and losing it pulls both sides at once.
/// 3. Decisions depend on frames, their receive times and parameters only; measured durations go into rows, never into a decision of replay.
package struct QuoteNode: ~Copyable {
    package enum Venue: String, Sendable, CaseIterable {
        case binanceUSDM = "binance-usdm"
        case binanceSpot = "binance-spot"
        /// Bybit's USDT perpetuals.
        case bybit
        case bybitSpot = "bybit-spot"
        /// The embedded exchange: Bybit's wire on loopback.
        case sim

        var chain: DepthChain { self == .binanceSpot ? .spot : .futures }

        /// The category its connections carry; nil where the wire is not Bybit's.
        package var category: BybitCategory? {
            switch self {
            case .binanceUSDM, .binanceSpot: nil
            case .bybit, .sim: .linear
            case .bybitSpot: .spot
            }
        }

        /// How long a silent topic may be believed because its connection answers, at most; nil is no bound of the venue's own. Bybit sends a
        /// quiet book's top again each 3 s (SPEC 3.2).
        package var topicProofNanosecondsMax: Int64? { category == nil ? nil : 5_000_000_000 }
    }

    package private(set) var messages: Int64 = 0
    package internal(set) var otherMessages: Int64 = 0
    /// Requests that the venue did not grant, such as a subscription to a topic it does not know.
    package internal(set) var refusedRequests: Int64 = 0
    package private(set) var gaps: [Gap] = []
    package var shared: SharedState
    private let venue: Venue
    let symbols: UnsafeMutablePointer<SymbolState>
    /// Arm A's parameters, and behind them the candidate's, which are A's until there is one. Every symbol reads from here.
    private let armParameters: UnsafeMutablePointer<Parameters>
    package private(set) var symbolCount = 0
    private var decoder = BinanceDecoder()
    var bybitDecoder = BybitDecoder()
    /// Symbols whose book lost its chain, in the order they did; at most one entry each.
    var resubscriptions: [SymbolIndex] = []
    private var rejections: InlineArray<13, Int64> = .init(repeating: 0)
    private var nextSweep: Instant?
    /// Rows lost that an event has told already, by `Feed.place`.
    private var toldDrops: InlineArray<6, Int> = .init(repeating: 0)
    /// Snapshots carry no symbol on Binance: the connection's only symbol is meant. One that comes before it is known waits here.
    private var connectionSymbols: [SymbolIndex?] = []
    private var parkedSnapshots: [[UInt8]?] = []
    private var last: Moment?

    /// - Parameters:
    ///   - instruments: every symbol this node may meet, at most `Limits.symbolsMax`.
    ///   - runNumber: rises with every start in one feeds directory; orders are named after it.
    ///   - firstFillID: one above the highest `seq` in the fills feed.
    ///   - configHash: what rows carry until the first `apply`.
    package init(
        venue: Venue, instruments: [Instrument], parameters: Parameters, configHash: UInt64 = 0, isRecorded: Bool, connections: Int,
        runNumber: Int64, firstFillID: Int64, outboxes: consuming Outboxes, clock: StopClock
    ) {
        precondition(instruments.count <= Limits.symbolsMax, "BUG: \(instruments.count) symbols")
        self.venue = venue
        shared = SharedState(
            parameters: parameters, configHash: configHash, isRecorded: isRecorded, runNumber: runNumber, outboxes: outboxes, clock: clock,
            firstFillID: firstFillID, symbols: instruments.count)
        armParameters = .allocate(capacity: 2)
        armParameters.initialize(repeating: parameters, count: 2)
        symbols = .allocate(capacity: max(1, instruments.count))
        for instrument in instruments {
            (symbols + symbolCount).initialize(
                to: SymbolState(
                    index: SymbolIndex(symbolCount), instrument: instrument, armParameters: armParameters,
                    armFields: ArmFields(configHash: configHash)))
            symbolCount += 1
        }
        connectionSymbols = .init(repeating: nil, count: connections)
        parkedSnapshots = .init(repeating: nil, count: connections)
    }

    deinit {
        symbols.deinitialize(count: symbolCount)
        symbols.deallocate()
        armParameters.deinitialize(count: 2)
        armParameters.deallocate()
    }

    package func withSymbol<T>(_ index: Int, _ body: (borrowing SymbolState) -> T) -> T {
        precondition(index >= 0 && index < symbolCount, "BUG: symbol \(index)")
        return body(symbols[index])
    }

    package func rejected(_ reason: FrameRejection) -> Int64 { rejections[reason.rawValue] }

    // MARK: Inputs

    /// One complete frame as the venue sent it.
    package mutating func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int, at now: Moment) {
        let readAt = shared.clock.now()
        messages += 1
        begin(at: now)
        sweep(at: now)
        if venue.category != nil {
            bybitFrame(bytes, on: connection, at: now, readAt: readAt)
        } else {
            binanceFrame(bytes, on: connection, at: now, readAt: readAt)
        }
        enforceHostLimits(at: now)
    }

    private mutating func binanceFrame(_ bytes: UnsafeRawBufferPointer, on connection: Int, at now: Moment, readAt: Int64) {
        // Whose frame it is, as soon as that is known; before, the connection's symbol.
        var about = connectionSymbols[connection]
        do throws(FrameRejection) {
            switch try decoder.decode(bytes) {
            case .depth(let symbol, let first, let last, let previous, let event):
                let index = try find(symbol)
                about = index
                attach(index, to: connection, at: now)
                let event = DepthEvent(first: first, last: last, previous: previous, eventMilliseconds: event)
                try depth(event, index, at: now, readAt: readAt)
            case .snapshot(let symbol, let id, let event):
                if let symbol {
                    try snapshot(find(symbol), id: id, eventMilliseconds: event, at: now)
                } else if let index = connectionSymbols[connection] {
                    try snapshot(index, id: id, eventMilliseconds: event, at: now)
                } else {
                    parkedSnapshots[connection] = Array(bytes)
                }
            case .trade(let symbol, let level, let buyerIsMaker, let consumes, let event):
                let index = try find(symbol)
                about = index
                attach(index, to: connection, at: now)
                try symbols[Int(index)].trade(
                    level, aggressor: buyerIsMaker ? .sell : .buy, consumesQueue: consumes, eventMilliseconds: event, at: now, &shared)
            case .bookTicker(let symbol, let id, let bid, let ask, let event):
                let index = try find(symbol)
                about = index
                attach(index, to: connection, at: now)
                try symbols[Int(index)].bookTicker(id: id, bid: bid, ask: ask, eventMilliseconds: event, at: now, readAt: readAt, &shared)
            case .other: otherMessages += 1
            }
        } catch {
            reject(error)
            if let about, error != .unknownSymbol { symbols[Int(about)].noteRejectedInput(at: now, &shared) }
        }
    }

    /// Time passes without a frame: requests take effect, changes are taken, seconds close, the watchdog looks.
    package mutating func advance(to now: Moment) {
        begin(at: now)
        nextSweep = nil
        sweep(at: now)
        enforceHostLimits(at: now)
    }

    /// The wall clock was set by that many nanoseconds: moments carry the new time from here on.
    package mutating func clockStepped(by nanoseconds: Int64) {
        for index in 0..<symbolCount { symbols[index].cache.clockStepped(by: nanoseconds) }
    }

    /// A frame that is not for this node, such as one of another category: counted only.
    package mutating func otherFrame() {
        messages += 1
        otherMessages += 1
    }

    /// A line that is no frame at all: counted like a rejected frame.
    package mutating func badLine() {
        messages += 1
        reject(.badLine)
    }

    /// Ends the run. Call again while it returns false: the rings were full.
    package mutating func finish() -> Bool {
        guard let last else { return true }
        var isDone = true
        for index in 0..<symbolCount {
            if !symbols[index].finish(at: last, &shared) { isDone = false }
        }
        guard isDone, shared.outboxes.events.room > 0 else { return false }
        let fills = (0..<symbolCount).reduce(Int64(0)) { $0 + symbols[$1].counts.fills }
        shared.outboxes.events.push(EventRecord(wall: last.wall, kind: .stopped, first: messages, second: fills))
        return true
    }

    // MARK: Leaves

    /// The run's first record comes with whatever comes first.
    mutating func begin(at now: Moment) {
        if last == nil { shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .started, first: shared.runNumber)) }
        last = now
    }

    /// Arm B's parameters from here on; what they must not touch stays arm A's.
    mutating func adopt(_ candidate: Parameters) {
        armParameters[1] = candidate.candidate(to: armParameters[0])
        for index in 0..<symbolCount where symbols[index].armFields.arm == .b { symbols[index].adoptSizes() }
    }

    private struct DepthEvent {
        var first: Int64
        var last: Int64
        var previous: Int64?
        var eventMilliseconds: Int64
    }

    mutating func reject(_ reason: FrameRejection) { rejections[reason.rawValue] += 1 }

    /// Time passes for every symbol at least each 100 ms of it, and for a frame's own symbol with the frame.
    mutating func sweep(at now: Moment) {
        if let nextSweep, now.instant < nextSweep { return }
        nextSweep = now.instant.advanced(nanoseconds: 100_000_000)
        for index in 0..<symbolCount { symbols[index].advance(to: now, &shared) }
        noteDrops(at: now)
    }

    /// Rows that a full ring refused are an event (SPEC 2.7). Snapshots run on instead of being dropped; only what found no place in a trailing
    /// row is lost.
    private mutating func noteDrops(at now: Moment) {
        for (feed, refused) in [
            (Feed.ticks, shared.outboxes.ticks.refused), (.quotes, shared.outboxes.quotes.refused), (.snapshots, shared.droppedSnapshots),
            (.markouts, shared.outboxes.markouts.refused), (.events, shared.outboxes.events.refused),
        ] {
            let news = refused - toldDrops[feed.place]
            guard news > 0, shared.outboxes.events.room > 0 else { continue }
            shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .dropped, first: Int64(news), second: Int64(feed.place)))
            toldDrops[feed.place] = refused
        }
    }

    func find(_ name: UnsafeRawBufferPointer) throws(FrameRejection) -> SymbolIndex {
        for index in 0..<symbolCount where symbols[index].isNamed(name) { return SymbolIndex(index) }
        throw .unknownSymbol
    }

    /// Remembers which symbol a connection carries, and applies the snapshot that came before it was known. A bad snapshot is its own
    /// rejection, not that of the frame at hand.
    private mutating func attach(_ index: SymbolIndex, to connection: Int, at now: Moment) {
        guard connectionSymbols[connection] == nil else { return }
        connectionSymbols[connection] = index
        guard let parked = parkedSnapshots[connection] else { return }
        parkedSnapshots[connection] = nil
        // The node's decoder holds the levels of the frame at hand, so the parked one gets its own.
        var decoder = BinanceDecoder()
        let decoded = parked.withUnsafeBytes { bytes in
            Result<BinanceFrame, FrameRejection> { () throws(FrameRejection) in try decoder.decode(bytes) }
        }
        guard case .success(.snapshot(_, let id, let event)) = decoded else { return }
        do throws(FrameRejection) {
            try symbols[Int(index)].snapshot(decoder, id: id, eventMilliseconds: event, chain: venue.chain, at: now, &shared)
        } catch {
            reject(error)
        }
    }

    private mutating func snapshot(_ index: SymbolIndex, id: Int64, eventMilliseconds: Int64?, at now: Moment) throws(FrameRejection) {
        try symbols[Int(index)].snapshot(decoder, id: id, eventMilliseconds: eventMilliseconds, chain: venue.chain, at: now, &shared)
        noteGap(index, at: now)
    }

    private mutating func depth(_ event: DepthEvent, _ index: SymbolIndex, at now: Moment, readAt: Int64) throws(FrameRejection) {
        let header = BufferedDiff(
            first: event.first, last: event.last, previous: event.previous, eventMilliseconds: event.eventMilliseconds, bids: [], asks: [])
        try symbols[Int(index)].depth(header, decoder, chain: venue.chain, at: now, readAt: readAt, &shared)
        noteGap(index, at: now)
    }

    mutating func noteGap(_ index: SymbolIndex, at now: Moment) {
        guard let (expected, received) = symbols[Int(index)].takeGap() else { return }
        if gaps.count < Limits.gapsListedMax { gaps.append(Gap(symbol: index, wall: now.wall, expected: expected, received: received)) }
    }
}
