import CalibModel
import Wire

/// Reads a monotonic clock in nanoseconds; the one closure on the quote path.
package struct StopClock {
    private let read: () -> Int64
    private let wait: ((Arm, Int64) -> Void)?

    /// `wait`: the laboratory's, to keep a tick of an arm busy that began then; production has none.
    package init(_ read: @escaping () -> Int64, wait: ((Arm, Int64) -> Void)? = nil) {
        self.read = read
        self.wait = wait
    }

    package func now() -> Int64 { read() }

    /// Where a tick has decided.
    package func now(of arm: Arm, since began: Int64) -> Int64 {
        if let wait { wait(arm, began) }
        return read()
    }
}

/// What the symbols of one node share: parameters, rings, the order rate, the run's identity.
package struct SharedState {
    /// Slots a frame needs at most: both sides' orders in flight, ended or filled, and the seconds a pause before it closes.
    package static let recordsPerFrame = 2 * Limits.ordersInFlightMax + Limits.silenceSecondsMax

    /// Arm A's; a symbol's own are those of its arm.
    package internal(set) var parameters: Parameters
    /// Replay and simulation: the clock is the recorded receive time, and durations inside a step count as 0 for every decision (SPEC 3.7).
    package let isRecorded: Bool
    package let runNumber: Int64
    package var outboxes: Outboxes
    /// The node's; freed with it.
    let metrics: UnsafeMutablePointer<NodeMetrics>
    let breakers: UnsafeMutablePointer<Breakers>
    package var explainTick: Int64?
    package var explainSymbol: SymbolIndex = 0
    package internal(set) var explanation: TickExplanation?
    /// The life of one order, when it is asked for: of a replay only, since it grows.
    package var story: OrderStory?

    /// Levels of a side that order books outside the stream are asked for (Binance).
    var snapshotLevels = 0
    var connectionAnswers: Bool
    /// By connection; the node's.
    let pulses: UnsafeMutablePointer<ConnectionPulse>
    let connectionCount: Int
    /// A refresh waits for the answer to a ping that has not been sent.
    var wantsPing = false
    /// Symbols whose refresh is a REST snapshot that has not been asked for; at most one entry each.
    var snapshotsWanted: [SymbolIndex] = []
    var clock: StopClock
    var orderRate: OrderRate
    /// Orders sent so far: the newest one's number.
    package internal(set) var orderNumber: Int64 = 0
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
        firstFillID: Int64, symbols: Int, pulses: UnsafeMutablePointer<ConnectionPulse>, connectionCount: Int
    ) {
        self.pulses = pulses
        self.connectionCount = connectionCount
        self.parameters = parameters
        self.configHash = configHash
        self.isRecorded = isRecorded
        self.runNumber = runNumber
        self.outboxes = outboxes
        metrics = .allocate(capacity: 1)
        metrics.initialize(to: NodeMetrics())
        breakers = .allocate(capacity: 1)
        breakers.initialize(to: Breakers())
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
        case binanceCOINM = "binance-coinm"
        /// Bybit's USDT perpetuals.
        case bybit
        case bybitSpot = "bybit-spot"
        /// The embedded exchange: Bybit's wire on loopback.
        case sim

        var chain: DepthChain { self == .binanceSpot ? .spot : .futures }

        /// The category its connections carry; nil where the wire is not Bybit's.
        package var category: BybitCategory? {
            switch self {
            case .binanceUSDM, .binanceSpot, .binanceCOINM: nil
            case .bybit, .sim: .linear
            case .bybitSpot: .spot
            }
        }

        /// The least time between two pings (SPEC 3.2): four a second, two on Binance.
        package var pingNanoseconds: Int64 {
            binance == nil ? Limits.freshnessPingIntervalNanoseconds : BinanceWire.pingIntervalNanoseconds
        }

        /// Which of Binance's markets it is; nil for another venue.
        package var binance: BinanceWire.Market? {
            switch self {
            case .binanceSpot: .spot
            case .binanceUSDM: .usdm
            case .binanceCOINM: .coinm
            case .bybit, .bybitSpot, .sim: nil
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
    let venue: Venue
    let symbols: UnsafeMutablePointer<SymbolState>
    private let names: SymbolTable
    /// Arm A's parameters, and behind them the candidate's, which are A's until there is one. Every symbol reads from here.
    let armParameters: UnsafeMutablePointer<Parameters>
    package private(set) var symbolCount = 0
    private var decoder = BinanceDecoder()
    var bybitDecoder = BybitDecoder()
    /// Symbols whose book lost its chain, in the order they did; at most one entry each.
    var resubscriptions: [SymbolIndex] = []
    /// The order books to ask the venue for outside its stream (Binance, live).
    var snapshots: SnapshotRequests
    /// Connections whose end the venue has announced.
    var leavingConnections: [Int] = []
    private var rejections: InlineArray<13, Int64> = .init(repeating: 0)
    private var nextSweep: Instant?
    /// Rows lost that an event has told already, by `Feed.place`.
    private var toldDrops: InlineArray<6, Int> = .init(repeating: 0)
    /// Snapshots of spot and USD-M carry no symbol: the connection's only one is meant. One that comes before it is known waits here.
    private var connectionSymbols: [SymbolIndex?] = []
    private var parkedSnapshots: [[UInt8]?] = []
    private(set) var last: Moment?

    /// - Parameters:
    ///   - instruments: every symbol this node may meet, at most `Limits.symbolsMax`.
    ///   - runNumber: rises with every start in one feeds directory; orders are named after it.
    ///   - firstFillID: one above the highest `seq` in the fills feed.
    ///   - configHash: what rows carry until the first `apply`.
    ///   - random: draws from a range evenly; what waits after a failure waits a random time.
    package init(
        venue: Venue, instruments: [Instrument], parameters: Parameters, configHash: UInt64 = 0, isRecorded: Bool, connections: Int,
        runNumber: Int64, firstFillID: Int64, outboxes: consuming Outboxes, clock: StopClock,
        random: @escaping @Sendable (ClosedRange<Int64>) -> Int64 = { $0.upperBound }
    ) {
        precondition(instruments.count <= Limits.symbolsMax, "BUG: \(instruments.count) symbols")
        self.venue = venue
        let pulses = UnsafeMutablePointer<ConnectionPulse>.allocate(capacity: max(1, connections))
        pulses.initialize(repeating: ConnectionPulse(), count: max(1, connections))
        shared = SharedState(
            parameters: parameters, configHash: configHash, isRecorded: isRecorded, runNumber: runNumber, outboxes: outboxes, clock: clock,
            firstFillID: firstFillID, symbols: instruments.count, pulses: pulses, connectionCount: connections)
        if let market = venue.binance {
            shared.snapshotLevels = market.snapshotLevels(symbols: instruments.count)
            snapshots = SnapshotRequests(
                symbols: instruments.count, weight: RequestWeight(perMinute: market.weightPerMinute),
                cost: market.depthWeight(limit: shared.snapshotLevels), random: random)
        } else {
            snapshots = SnapshotRequests(
                symbols: instruments.count, weight: RequestWeight(perMinute: BybitWire.requestsPerMinute), cost: 1, random: random)
        }
        armParameters = .allocate(capacity: 2)
        armParameters.initialize(repeating: parameters, count: 2)
        symbols = .allocate(capacity: max(1, instruments.count))
        names = SymbolTable(instruments.map(\.symbol))
        for instrument in instruments {
            (symbols + symbolCount).initialize(
                to: SymbolState(
                    index: SymbolIndex(symbolCount), instrument: instrument, armParameters: armParameters,
                    armFields: ArmFields(configHash: configHash), seed: UInt64(random(0 ... .max))))
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
        shared.metrics.deinitialize(count: 1)
        shared.metrics.deallocate()
        shared.breakers.deallocate()
        shared.pulses.deallocate()
    }

    package func withSymbol<T>(_ index: Int, _ body: (borrowing SymbolState) -> T) -> T {
        precondition(index >= 0 && index < symbolCount, "BUG: symbol \(index)")
        return body(symbols[index])
    }

    package func rejected(_ reason: FrameRejection) -> Int64 { rejections[reason.rawValue] }

    // MARK: Inputs

    /// The next fill has a higher number than this.
    package mutating func numberFills(above seq: Int64) { shared.nextFillID = max(shared.nextFillID, seq + 1) }

    /// One complete frame as the venue sent it.
    package mutating func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int, at now: Moment) {
        frame(bytes, on: connection, at: now, readAt: shared.clock.now())
    }

    /// The same of a frame that was read before now: `readAt` is on the node's clock, and ticks are timed from there.
    package mutating func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int, at now: Moment, readAt: Int64) {
        messages += 1
        begin(at: now)
        sweep(at: now)
        if connection < shared.connectionCount { shared.pulses[connection].framed(at: now.instant) }
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
                symbols[Int(index)].subscription.connection = connection
                let event = DepthEvent(first: first, last: last, previous: previous, eventMilliseconds: event)
                try depth(event, index, at: now, readAt: readAt)
                // Only now: a book asked for before its stream began may be older than the first event.
                if symbols[Int(index)].sync == .unsynced, !shared.isRecorded, !symbols[Int(index)].hasOldInstrument {
                    snapshots.want(index, at: now.instant, wasWrong: symbols[Int(index)].lostBy == .crossed)
                }
                noteProof(index, on: connection)
            case .snapshot(let symbol, let id, let event):
                if let symbol {
                    try snapshot(find(symbol), id: id, eventMilliseconds: event, at: now)
                } else if let index = connectionSymbols[connection] {
                    guard let index = try ownerOfSnapshot(on: connection, only: index) else {
                        otherMessages += 1
                        return
                    }
                    about = index
                    try snapshot(index, id: id, eventMilliseconds: event, at: now)
                } else {
                    parkedSnapshots[connection] = Array(bytes)
                }
            case .trade(let symbol, let level, let buyerIsMaker, let consumes, let isAggregate, let event):
                let index = try find(symbol)
                about = index
                attach(index, to: connection, at: now)
                guard symbols[Int(index)].countsTrades(areAggregate: isAggregate) else {
                    otherMessages += 1
                    return
                }
                try symbols[Int(index)].trade(
                    level, aggressor: buyerIsMaker ? .sell : .buy, consumesQueue: consumes, eventMilliseconds: event, at: now, &shared)
                noteProof(index, on: connection)
            case .bookTicker(let symbol, let id, let bid, let ask, let event):
                let index = try find(symbol)
                about = index
                attach(index, to: connection, at: now)
                try symbols[Int(index)].bookTicker(id: id, bid: bid, ask: ask, eventMilliseconds: event, at: now, readAt: readAt, &shared)
                noteProof(index, on: connection)
            case .leaving:
                otherMessages += 1
                if !shared.isRecorded, !leavingConnections.contains(connection) { leavingConnections.append(connection) }
            case .refused:
                otherMessages += 1
                refusedRequests += 1
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
        watchConnections(at: now)
        for index in 0..<symbolCount {
            symbols[index].advance(to: now, &shared)
            noteResubscription(SymbolIndex(index))
        }
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

    /// Mutating because Swift 6.3.1 copies the whole node for a call that only borrows it.
    mutating func find(_ name: UnsafeRawBufferPointer) throws(FrameRejection) -> SymbolIndex {
        if let index = names.find(name) { return index }
        if name.count > SymbolTable.nameBytesMax {
            for index in 0..<symbolCount where symbols[index].isNamed(name) { return SymbolIndex(index) }
        }
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

    /// Whose a snapshot is that names no symbol: of the connection's `only` one. Where several have diffs there, of the one that waits for a book and
    /// whose diffs lie within it; nil when none waits. On futures any snapshot would chain to any symbol's diffs: their ids are of one counter.
    private mutating func ownerOfSnapshot(on connection: Int, only: SymbolIndex) throws(FrameRejection) -> SymbolIndex? {
        var (carried, waiting) = (0, 0)
        var owners: [SymbolIndex] = []
        for index in 0..<symbolCount where symbols[index].subscription.connection == connection {
            carried += 1
            guard symbols[index].sync == .unsynced else { continue }
            waiting += 1
            if symbols[index].mayOwn(decoder) { owners.append(SymbolIndex(index)) }
        }
        guard carried > 1 else { return only }
        guard waiting > 0 else { return nil }
        guard owners.count == 1 else { throw .unknownSymbol }
        return owners[0]
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

    /// An order book that was asked for; false when it is older than everything that waits for it, and changes nothing.
    mutating func restSnapshot(_ index: SymbolIndex, _ body: UnsafeRawBufferPointer, sentAt: Instant, at now: Moment)
        throws(FrameRejection) -> Bool
    {
        guard venue.binance != nil else {
            try symbols[Int(index)].refresh(with: BybitSnapshot(body), sentAt: sentAt, at: now, &shared)
            return true
        }
        guard case .snapshot(let symbol, let id, let event) = try decoder.decode(body) else { throw .missingField }
        if let symbol, !symbols[Int(index)].isNamed(symbol) { throw .unknownSymbol }
        if symbols[Int(index)].isProven {
            if symbols[Int(index)].coverage.isWidening {
                try symbols[Int(index)].widen(with: decoder, id: id, chain: venue.chain, asked: shared.snapshotLevels)
            }
            try symbols[Int(index)].refresh(with: decoder, id: id, sentAt: sentAt, at: now, &shared)
            return true
        }
        guard !symbols[Int(index)].awaitsNewer(thanSnapshot: id, venue.chain) else { return false }
        try snapshot(index, id: id, eventMilliseconds: event, at: now)
        return symbols[Int(index)].sync != .unsynced
    }

    mutating func noteGap(_ index: SymbolIndex, at now: Moment) {
        guard let (expected, received) = symbols[Int(index)].takeGap() else { return }
        if gaps.count < Limits.gapsListedMax { gaps.append(Gap(symbol: index, wall: now.wall, expected: expected, received: received)) }
    }
}
