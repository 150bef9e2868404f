import CalibModel
import Simulation

@testable import EdgeCore

/// A node whose time is a test's and whose records are kept: symbols S0, S1, ... with tick 0.1 and lot 0.001, each on its own connection.
final class QuoteBench {
    var node: QuoteNode
    private(set) var fills: [FillRecord] = []
    private(set) var markouts: [MarkoutRecord] = []
    private(set) var events: [EventRecord] = []
    private(set) var snapshots: [SnapshotRecord] = []
    private(set) var quotes: [QuoteRecord] = []
    private(set) var ticks: [TickRecord] = []
    /// Milliseconds since the epoch.
    var clock: Int64
    /// Sees every frame, too.
    var listener: ((UnsafeRawBufferPointer, Int, Moment) -> Void)?
    private let slots: Slots
    private var ids: [Int64]

    /// The rings' memory; small rings show what happens when nobody reads.
    private final class Slots {
        let fills = UnsafeMutablePointer<FillRecord>.allocate(capacity: 1024)
        let markouts = UnsafeMutablePointer<MarkoutRecord>.allocate(capacity: 8192)
        let events = UnsafeMutablePointer<EventRecord>.allocate(capacity: 1024)
        let snapshots = UnsafeMutablePointer<SnapshotRecord>.allocate(capacity: 256)
        let quotes = UnsafeMutablePointer<QuoteRecord>.allocate(capacity: 4096)
        let ticks = UnsafeMutablePointer<TickRecord>.allocate(capacity: 4096)
        deinit {
            fills.deallocate()
            markouts.deallocate()
            events.deallocate()
            snapshots.deallocate()
            quotes.deallocate()
            ticks.deallocate()
        }
    }

    static let start: Int64 = 1_735_689_601_000

    /// `stopClock`: a live node's, which sees durations; a recorded one decides as if there were none.
    init(
        symbols: Int = 1, names: [String]? = nil, start: Int64 = QuoteBench.start, stopClock: StopClock? = nil,
        _ change: (inout Parameters) -> Void = { _ in }
    ) {
        var parameters = Parameters()
        parameters.tickSampleRate = 1
        parameters.nudgeMaximum = .zero
        change(&parameters)
        clock = start
        slots = Slots()
        ids = .init(repeating: 10, count: symbols)
        let outboxes = Outboxes(
            fills: Outbox(slots: slots.fills, capacity: 1024), markouts: Outbox(slots: slots.markouts, capacity: 8192),
            events: Outbox(slots: slots.events, capacity: 1024), snapshots: Outbox(slots: slots.snapshots, capacity: 256),
            quotes: Outbox(slots: slots.quotes, capacity: 4096), ticks: Outbox(slots: slots.ticks, capacity: 4096))
        let instruments = (0..<symbols).map {
            Instrument(symbol: names?[$0] ?? "S\($0)", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1)
        }
        node = QuoteNode(
            venue: .binanceUSDM, instruments: instruments, parameters: parameters, configHash: 1, isRecorded: stopClock == nil,
            connections: symbols, runNumber: 1, firstFillID: 1, outboxes: outboxes, clock: stopClock ?? StopClock { 0 })
    }

    var now: Moment { moment(clock * 1_000_000) }
    private func moment(_ nanoseconds: Int64) -> Moment {
        Moment(instant: Instant(nanoseconds: nanoseconds), wall: WallTime(nanoseconds: nanoseconds))
    }

    /// Takes every record out of the rings.
    func drain() {
        take(&node.shared.outboxes.fills, slots.fills, 1024, &fills)
        take(&node.shared.outboxes.markouts, slots.markouts, 8192, &markouts)
        take(&node.shared.outboxes.events, slots.events, 1024, &events)
        take(&node.shared.outboxes.snapshots, slots.snapshots, 256, &snapshots)
        take(&node.shared.outboxes.quotes, slots.quotes, 4096, &quotes)
        take(&node.shared.outboxes.ticks, slots.ticks, 4096, &ticks)
    }

    private func take<Record>(
        _ outbox: inout Outbox<Record>, _ slots: UnsafeMutablePointer<Record>, _ capacity: Int, _ records: inout [Record]
    ) {
        let next = outbox.limit - capacity
        for position in next..<outbox.committed { records.append(slots[position & (capacity - 1)]) }
        outbox.limit = outbox.committed + capacity
    }

    // MARK: Frames

    func frame(_ text: String, on connection: Int = 0, after milliseconds: Int64 = 1) {
        clock += milliseconds
        frame(text, on: connection, nanoseconds: clock * 1_000_000)
    }

    func frame(_ text: String, on connection: Int, nanoseconds: Int64) {
        var text = text
        text.withUTF8 { bytes in
            node.frame(UnsafeRawBufferPointer(bytes), on: connection, at: moment(nanoseconds))
            listener?(UnsafeRawBufferPointer(bytes), connection, moment(nanoseconds))
        }
        drain()
    }

    private func depth(_ symbol: Int, _ levels: String, after milliseconds: Int64) {
        ids[symbol] += 1
        let id = ids[symbol]
        frame(
            "{\"e\":\"depthUpdate\",\"E\":\(clock),\"s\":\"S\(symbol)\",\"U\":\(id),\"u\":\(id),\"pu\":\(id - 1),\(levels)}", on: symbol,
            after: milliseconds)
    }

    /// Bid 100.0, ask 100.2, proven.
    func prove(_ symbol: Int = 0) {
        frame(
            "{\"lastUpdateId\":10,\"bids\":[[\"100.0\",\"5.000\"],[\"99.0\",\"7\"]],\"asks\":[[\"100.2\",\"4\"],[\"101.0\",\"6\"]]}",
            on: symbol)
        ids[symbol] = 10
        let event = "{\"e\":\"depthUpdate\",\"E\":\(clock),\"s\":\"S\(symbol)\",\"U\":9,\"u\":11,\"pu\":8,\"b\":[],\"a\":[]}"
        frame(event, on: symbol)
        ids[symbol] = 11
    }

    /// A book event that changes nothing: a tick.
    func tick(_ symbol: Int = 0, after milliseconds: Int64 = 1) { depth(symbol, "\"b\":[],\"a\":[]", after: milliseconds) }

    /// Moves the touch from one price to another.
    func move(_ symbol: Int = 0, bids: String, asks: String, after milliseconds: Int64 = 1) {
        depth(symbol, "\"b\":[\(bids)],\"a\":[\(asks)]", after: milliseconds)
    }

    func trade(_ price: String, _ quantity: String, sells: Bool, of symbol: Int = 0, after milliseconds: Int64 = 1) {
        frame(
            "{\"e\":\"trade\",\"E\":\(clock),\"s\":\"S\(symbol)\",\"p\":\"\(price)\",\"q\":\"\(quantity)\",\"X\":\"MARKET\",\"m\":\(sells)}",
            on: symbol, after: milliseconds)
    }

    /// Proven, and both quotes rest: 100.0 and 100.2.
    func quoting(symbols: Int = 1) {
        for symbol in 0..<symbols { prove(symbol) }
        for symbol in 0..<symbols { tick(symbol, after: 10) }
        advance(10)
        precondition((0..<symbols).allSatisfy { open($0) == 2 }, "the bench does not quote")
    }

    /// A simulated market of BTCUSDT, frame by frame, `after` each.
    func play(seed: UInt64, milliseconds: Int64, _ after: () -> Void = {}) {
        let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)
        var recording = BinanceRecording(seed: seed, symbol: "BTCUSDT", start: start, milliseconds: milliseconds)
        var lines: [UInt8] = []
        while !recording.isComplete { recording.step(into: &lines) }
        for line in lines.split(separator: 0x0a) {
            let space = line.firstIndex(of: 0x20)!
            let time = Int64(String(decoding: line[..<space], as: UTF8.self))!
            clock = time / 1_000_000
            frame(String(decoding: line[(space + 1)...], as: UTF8.self), on: 0, nanoseconds: time)
            after()
        }
    }

    // MARK: Orders and asks

    func advance(_ milliseconds: Int64) {
        clock += milliseconds
        node.advance(to: now)
        drain()
    }

    /// `arms[i]` is what symbol i plays; the rest plays A.
    func apply(
        _ arms: [Arm], why: ArmReason = .schedule, block: Int32? = nil, experiment: String? = "e1", hash: UInt64 = 2,
        _ change: (inout Parameters) -> Void
    )
        -> Int
    {
        var candidate = node.shared.parameters
        change(&candidate)
        let all = (0..<node.symbolCount).map { ArmChoice($0 < arms.count ? arms[$0] : .a, why, block: block) }
        let cancelled = node.apply(
            ArmPlan(experiment: experiment.flatMap { ExperimentID($0) }, candidate: candidate, configHash: hash, arms: all), at: now)
        drain()
        return cancelled
    }

    func open(_ symbol: Int = 0) -> Int64 { node.status(of: SymbolIndex(symbol)).openOrders }
    func position(_ symbol: Int = 0) -> Int64 { node.withSymbol(symbol) { $0.positionLots } }
    func arm(_ symbol: Int = 0) -> ArmFields { node.withSymbol(symbol) { $0.armFields } }
    func ticks(_ symbol: Int = 0) -> Int64 { node.withSymbol(symbol) { $0.counts.ticks } }
    func orders(_ symbol: Int = 0) -> Int64 { node.withSymbol(symbol) { $0.counts.quotes } }
    /// Prices that will rest once everything sent has taken effect.
    func intended(_ symbol: Int = 0) -> (buy: Int64?, sell: Int64?) {
        node.withSymbol(symbol) { ($0.bidSide.intended?.price, $0.askSide.intended?.price) }
    }
    func kinds(_ kind: EventKind) -> [EventRecord] { events.filter { $0.kind == kind } }
}
