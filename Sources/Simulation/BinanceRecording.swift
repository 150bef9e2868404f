import CalibModel

/// A simulated market as a recording of one of Binance's feeds: lines `<receive unix ns> <frame>`, the frames byte for byte in the venue's form.
///
/// What a recorder would have seen, traps included: the stream begins before the REST snapshot arrives, so the first diffs are stale and
/// some usable ones precede it; the receive clock runs 1.273 s behind the venue's; frames queue on one connection, so a stall of
/// the network ends in a burst.
package struct BinanceRecording: Sendable {
    /// What has been written, by kind.
    package struct Counts: Sendable, Equatable {
        package var depths = 0
        package var trades = 0
        package var tops = 0
        package var snapshots = 0
        package var total: Int { depths + trades + tops + snapshots }
    }

    /// How far the recorder's clock is behind the venue's. With 3 ms of latency in the median, receive - E comes to -1.27 s.
    package static let clockBehindNanoseconds: Int64 = 1_273_000_000

    package private(set) var counts = Counts()
    /// Receive times of the first and the last line; nil before there is one.
    package private(set) var firstReceived: WallTime?
    package private(set) var lastReceived: WallTime?
    /// True once a frame would have arrived at or after the end; nothing is written from then on.
    package private(set) var isComplete = false

    private var market: SimMarket
    private var network: PRNG
    private let frames: BinanceFrames
    private let streamPrefix: [UInt8]
    private let endNanoseconds: Int64
    private let snapshotDue: Int64
    private var hasSnapshot = false
    private var heldSnapshot: (received: Int64, frame: [UInt8])?
    private var heldDiffs: [(due: Int64, diff: MarketEvent.DepthDiff)] = []
    private var stallEnd: Int64 = 0
    private var lastArrival: Int64 = 0
    private var frame: [UInt8] = []

    /// `start` is the receive clock when recording starts; every line's time lies in `start ..< start + milliseconds`.
    package init(seed: UInt64, venue: BinanceMarket = .usdm, symbol: String, start: WallTime, milliseconds: Int64) {
        let isPlain = symbol.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || $0 == 0x5f }
        precondition(isPlain && !symbol.isEmpty, "BUG: symbol '\(symbol)' would need escaping")
        // The same market whatever its name.
        var instrument = venue.instruments[0]
        instrument.symbol = symbol
        frames = BinanceFrames(venue, instrument)
        let venueStart = (start.nanoseconds + Self.clockBehindNanoseconds).flooredDivision(by: 1_000_000)
        market = SimMarket(seed: seed, startingAfter: venueStart)
        // A stream of its own: the market does not depend on how its frames travel.
        network = PRNG(seed: seed ^ 0x6e65_7477_6f72_6b00)
        streamPrefix = Array("{\"stream\":\"\(symbol.lowercased())@".utf8)
        endNanoseconds = start.nanoseconds + milliseconds * 1_000_000
        snapshotDue = venueStart + 200
    }

    /// Plays one millisecond and appends the lines received because of it.
    package mutating func step(into lines: inout [UInt8]) {
        let events = market.step()
        // Diffs come from another service of the venue: one may overtake the top updates and trades of its last millisecond, or come
        // up to 3 ms after them.
        for case .depth(let diff) in events { heldDiffs.append((market.milliseconds + network.below(4), diff)) }
        while let held = heldDiffs.first, held.due <= market.milliseconds {
            heldDiffs.removeFirst()
            begin(frames.market == .usdm ? "depth@0ms" : "depth@100ms")
            frames.depth(held.diff, into: &frame)
            frame.append(0x7d)
            deliver(into: &lines, counting: \.depths)
        }
        for event in events {
            switch event {
            case .trade(let trade):
                begin("trade")
                frames.trade(trade, into: &frame)
                frame.append(0x7d)
                deliver(into: &lines, counting: \.trades)
            case .top(let top, let id, let time):
                begin("bookTicker")
                frames.top(top, id: id, milliseconds: time, into: &frame)
                frame.append(0x7d)
                deliver(into: &lines, counting: \.tops)
            case .depth: break  // Held above.
            }
        }
        if !hasSnapshot, market.milliseconds >= snapshotDue { takeSnapshot() }
    }

    // MARK: Travel

    /// Puts `frame` on the connection; frames arrive in the order they were sent.
    private mutating func deliver(into lines: inout [UInt8], counting kind: WritableKeyPath<Counts, Int>) {
        guard !isComplete else { return }
        let sent = market.milliseconds * 1_000_000 - Self.clockBehindNanoseconds
        if sent >= stallEnd, network.chance(perMillion: 9_000) { stallEnd = sent + network.acrossOctaves(5) * 1_000_000 }
        let arrival = max(lastArrival + 400 + network.below(7_000), stallEnd, sent + 1_000_000 + network.below(3_000_000))
        if let held = heldSnapshot, held.received < arrival {
            heldSnapshot = nil
            record(held.frame, at: held.received, into: &lines, counting: \.snapshots)
        }
        lastArrival = arrival
        record(frame, at: arrival, into: &lines, counting: kind)
    }

    private mutating func record(_ frame: [UInt8], at time: Int64, into lines: inout [UInt8], counting kind: WritableKeyPath<Counts, Int>) {
        guard time < endNanoseconds else {
            isComplete = true
            return
        }
        lines.append(integer: time)
        lines.append(0x20)
        lines.append(contentsOf: frame)
        lines.append(0x0a)
        counts[keyPath: kind] += 1
        if firstReceived == nil { firstReceived = WallTime(nanoseconds: time) }
        lastReceived = WallTime(nanoseconds: time)
    }

    /// The REST answer: the book as of now, received a round trip later, when two diffs that belong on top of it have arrived.
    private mutating func takeSnapshot() {
        hasSnapshot = true
        frame.removeAll(keepingCapacity: true)
        frames.snapshot(market, levels: frames.market == .spot ? 5000 : 1000, asOfLastDiff: false, into: &frame)
        let received = market.milliseconds * 1_000_000 - Self.clockBehindNanoseconds + 85_000_000 + network.below(20_000_000)
        heldSnapshot = (received, frame)
    }

    /// A frame of the combined stream, whose data and last brace follow.
    private mutating func begin(_ stream: StaticString) {
        frame.removeAll(keepingCapacity: true)
        frame.append(contentsOf: streamPrefix)
        frame.append(text: stream)
        frame.append(text: "\",\"data\":")
    }
}
