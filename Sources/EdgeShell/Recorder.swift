import CalibModel
import EdgeCore
import Logging
import NIOCore
import NodeShell
import Wire

/// Writes what a venue says as `replay` reads it: for Binance one series of files per symbol with the order books in line, for Bybit one for the
/// connection. Every file can be replayed alone, for each begins with a new snapshot of its books, or together with those before it.
///
/// `@unchecked Sendable`: after `init` everything but `start` and `stop` happens on `eventLoop`.
final class Recorder: VenueListener, @unchecked Sendable {
    struct Setup {
        var venue: QuoteNode.Venue
        var connection: VenueConnection.Setup
        var directory: String
        /// 3,600 or 86,400: a file ends with the UTC hour or day.
        var rotationSeconds: Int64
        /// Of text.
        var fileBytesMax: Int
        /// The address as configured, for Bybit's `connect` line.
        var url: String
    }

    private struct Series {
        var name: String
        var bytes = 0
        /// Lines that go to the writer with the next turn.
        var pending: [UInt8] = []
        /// When the present file was begun: the number of its hour or day.
        var period: Int64?
        var files = 0
    }

    let eventLoop: any EventLoop
    private let setup: Setup
    private let writer: RecordWriter
    private let venue: VenueConnection
    private let logger: Logger
    private let onFailure: @Sendable (String) -> Void
    private var clock = AnchoredClock()
    private var checkedAt: Instant
    private var timer: RepeatedTask?
    private var chain: RecordChain
    private var books: SnapshotRequests
    private var requests: [VenueRequest] = []
    private var series: [Series]
    private var connections = 0
    private var lastFrame: Instant
    private var lastPing: Instant
    private(set) var messages: Int64 = 0
    private(set) var bytes: Int64 = 0

    /// `onFailure` is called on the event loop when recording cannot go on.
    init(_ setup: Setup, writer: RecordWriter, on eventLoop: any EventLoop, onFailure: @escaping @Sendable (String) -> Void) {
        (self.setup, self.writer, self.eventLoop, self.onFailure) = (setup, writer, eventLoop, onFailure)
        logger = setup.connection.logger
        venue = VenueConnection(setup.connection, on: eventLoop)
        checkedAt = SystemClock.monotonic()
        (lastFrame, lastPing) = (checkedAt, checkedAt)
        let symbols = setup.connection.symbols
        chain = RecordChain(venue: setup.venue, symbols: symbols)
        let market = setup.venue.binance ?? .spot  // Bybit's books come in band.
        books = SnapshotRequests(
            symbols: symbols.count, weight: RequestWeight(perMinute: market.weightPerMinute),
            cost: market.depthWeight(limit: market.snapshotLevels(symbols: symbols.count)), random: { .random(in: $0) })
        series =
            setup.venue.binance == nil
            ? [Series(name: setup.venue.rawValue)] : symbols.map { Series(name: "\(setup.venue.rawValue)_\($0)") }
    }

    func start() {
        eventLoop.execute { [self] in
            timer = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .nanoseconds(Limits.edgeTurnNanoseconds)) { _ in self.turn()
            }
            venue.start(self)
        }
    }

    /// Everything heard so far is with the writer.
    func stop() -> EventLoopFuture<Void> {
        eventLoop.submit { [self] in
            venue.stop()
            timer?.cancel()
            hand()
        }
    }

    private func turn() {
        let now = SystemClock.monotonic()
        if now.since(checkedAt) >= 1_000_000_000 {
            checkedAt = now
            if let step = clock.check(monotonic: now, wall: SystemClock.wall()) {
                logger.warning("The wall clock stepped.", metadata: ["step_ms": "\(step / 1_000_000)"])
            }
        }
        requests += books.takeDue(at: now).map { .snapshot($0) }
        let sincePing = now.since(lastPing)
        // Nobody quotes on what is recorded: a quiet connection is asked once a second whether it is there.
        if sincePing >= Limits.heartbeatNanoseconds || min(sincePing, now.since(lastFrame)) >= 1_000_000_000 {
            lastPing = now
            requests.append(.ping)
        }
        let due = requests
        requests = []
        venue.turn(at: now, due)
        hand()
    }

    /// To the writer.
    private func hand() {
        for index in series.indices where !series[index].pending.isEmpty {
            guard writer.append(series[index].pending, file: index) else {
                return onFailure("the disk takes less than the venue says; \(Limits.recordQueueBytesMax) bytes are waiting")
            }
            series[index].pending.removeAll(keepingCapacity: true)
        }
    }

    // MARK: Lines

    /// Begins a line of the series; a new file first when the old one is over.
    private func line(_ index: Int, at wall: WallTime, _ write: (inout [UInt8]) -> Void) {
        let period = wall.nanoseconds.flooredDivision(by: setup.rotationSeconds * 1_000_000_000)
        // A clock that was set back does not open the past again.
        if series[index].period.map({ period > $0 }) ?? true || series[index].bytes >= setup.fileBytesMax {
            begin(index, period: max(period, series[index].period ?? period), at: wall)
        }
        let before = series[index].pending.count
        write(&series[index].pending)
        series[index].pending.append(0x0a)
        series[index].bytes += series[index].pending.count - before
        bytes += Int64(series[index].pending.count - before)
    }

    private func begin(_ index: Int, period: Int64, at wall: WallTime) {
        let isFirst = series[index].period == nil
        // What belongs to the file before goes to it.
        if !series[index].pending.isEmpty { hand() }
        series[index].period = period
        series[index].bytes = 0
        series[index].files += 1
        // Names in the order of time, also when several begin within one second.
        let time = TimeText.stamp(wall.milliseconds)
        let ending = setup.venue.binance == nil ? "jsonl.zst" : "gz"
        let number = String(10_000 + series[index].files).dropFirst()
        writer.begin(path: "\(setup.directory)/\(series[index].name)_\(time)_\(number).\(ending)", file: index)
        guard !isFirst else { return }
        // Its books from the start: the file shall stand alone.
        if setup.venue.binance == nil {
            object("connect", at: wall) { $0.field("addr", string: setup.url) }
            requests += setup.connection.symbols.indices.map { .resubscribe(SymbolIndex($0)) }
        } else {
            books.want(SymbolIndex(index), at: SystemClock.monotonic())
        }
    }

    private func stamped(_ index: Int, _ bytes: UnsafeRawBufferPointer, at wall: WallTime) {
        line(index, at: wall) { line in
            line.append(contentsOf: String(wall.nanoseconds).utf8)
            line.append(0x20)
            line.append(contentsOf: bytes)
        }
    }

    /// `{"t":KIND,"conn":NAME,"ts":SECONDS,...}`.
    private func object(_ kind: StaticString, at wall: WallTime, _ more: (inout JSONWriter) -> Void) {
        line(0, at: wall) { line in
            var json = JSONWriter()
            json.beginObject()
            json.field("t", string: kind)
            json.field("conn", string: "edge.\(connections)")
            json.field("ts", fixed: wall.nanoseconds, places: 9)
            more(&json)
            json.endObject()
            line += json.bytes
        }
    }

    // MARK: From the venue

    private var now: WallTime { clock.moment(at: SystemClock.monotonic()).wall }

    func connected(_ connection: Int) {
        connections += 1
        if setup.venue.binance == nil {
            chain.connected()
            object("connect", at: now) { $0.field("addr", string: setup.url) }
        }
    }

    func frame(_ frame: UnsafeRawBufferPointer, on connection: Int) {
        let wall = now
        messages += 1
        lastFrame = SystemClock.monotonic()
        let finding = chain.frame(frame)
        if setup.venue.binance == nil {
            object("recv", at: wall) { $0.field("data", string: String(decoding: frame, as: UTF8.self)) }
            if finding.needsBook, let symbol = finding.symbol { requests.append(.resubscribe(symbol)) }
        } else {
            // What is about no symbol goes to the first one's file.
            stamped(Int(finding.symbol ?? 0), frame, at: wall)
            if finding.needsBook, let symbol = finding.symbol { books.want(symbol, at: SystemClock.monotonic()) }
        }
    }

    func snapshot(of symbol: SymbolIndex, _ body: UnsafeRawBufferPointer, sentAt: Instant) {
        let isUsable = chain.canUse(body, for: symbol)
        if isUsable {
            messages += 1
            // A pretty-printed answer would be several lines.
            if body.contains(0x0a) {
                stamped(Int(symbol), Array(body.lazy.filter { $0 != 0x0a && $0 != 0x0d }), at: now)
            } else {
                stamped(Int(symbol), body, at: now)
            }
        }
        books.answered(symbol, isUsable: isUsable, at: SystemClock.monotonic())
    }

    private func stamped(_ index: Int, _ bytes: [UInt8], at wall: WallTime) { bytes.withUnsafeBytes { stamped(index, $0, at: wall) } }

    func snapshotFailed(of symbol: SymbolIndex, pauseNanoseconds: Int64) {
        books.failed(symbol, pauseNanoseconds: pauseNanoseconds, at: SystemClock.monotonic())
    }

    func pong(on connection: Int) {}

    func disconnected(_ connection: Int) {
        if setup.venue.binance == nil { object("disconnect", at: now) { _ in } } else { chain.connected() }
    }

    /// One that says nothing at all is given up by itself.
    func isDead(_ connection: Int, at now: Instant) -> Bool { false }

    func hasHeard(of symbol: SymbolIndex) -> Bool { chain.hasHeard(of: symbol) }
}
