import CalibModel
import Glibc
import NIOCore
import NodeShell
import Simulation
import Wire

/// Serves `BybitVenue` in real time, with trouble when there is a seed for it.
///
/// `@unchecked Sendable`: after `init` only the venue's one event loop touches it.
final class SimulatedFeed: BybitFeed, @unchecked Sendable {
    /// How often the markets are moved on: half the interval of the fastest topic.
    private static let turn = TimeAmount.milliseconds(5)
    /// Milliseconds of market played in one turn at most, so that a venue that fell behind still answers while it catches up.
    private static let turnMillisecondsMax: Int64 = 250
    /// How often the trouble so far is told.
    private static let reportMilliseconds: Int64 = 10_000
    /// Falling behind by this much is worth a line in the log.
    private static let lateMilliseconds: Int64 = 1000

    let symbols: [String]
    private var venue: ChaoticVenue
    private let chaosSeed: UInt64?
    /// The venue's wall clock when no time has elapsed, milliseconds.
    private let startMilliseconds: Int64
    private var hasSeenEveryKind = false
    private var nextReport = SimulatedFeed.reportMilliseconds
    /// Outages already reported.
    private var reportedOutages = 0
    private var clients = VenueClients()
    private var eventLoop: (any EventLoop)?
    /// The monotonic time of the market's start; what passes until the venue listens is caught up with.
    private let started: NIODeadline
    private var playedMilliseconds: Int64 = 0
    private var isLate = false
    private var outputs: [(client: Int, output: ChaoticVenue.Output)] = []

    init(seed: UInt64, instruments: [SimInstrument], lostDeltaInterval: Int?, chaosSeed: UInt64? = nil) {
        self.chaosSeed = chaosSeed
        symbols = instruments.map(\.symbol)
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        started = .now()
        let start = WallTime(nanoseconds: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec))
        startMilliseconds = start.milliseconds
        venue = ChaoticVenue(
            BybitVenue(seed: seed, instruments: instruments, start: start, lostDeltaInterval: lostDeltaInterval), seed: chaosSeed)
    }

    func start(on eventLoop: any EventLoop, finish: @escaping @Sendable (VenueError?) -> Void) {
        self.eventLoop = eventLoop
        eventLoop.scheduleRepeatedTask(initialDelay: Self.turn, delay: Self.turn) { [self] _ in play() }
    }

    func stop() -> EventLoopFuture<Void> {
        guard let eventLoop else { preconditionFailure("BUG: stopped before it started") }
        report()
        return clients.closeAll(on: eventLoop)
    }

    func makeClient(_ category: BybitCategory) -> any WebSocketDelegate { Client(feed: self, id: venue.connect(category)) }

    func rest(path: String, query: String) -> [UInt8]? { venue.venue.rest(path: path, query: query) }

    // MARK: Frames

    private func play() {
        let due = (NIODeadline.now() - started).nanoseconds / 1_000_000
        if due - playedMilliseconds >= Self.lateMilliseconds, !isLate {
            isLate = true
            note("venue: \(due - playedMilliseconds) ms behind the clock; catching up, nothing is left out")
        }
        playedMilliseconds = min(due, playedMilliseconds + Self.turnMillisecondsMax)
        if playedMilliseconds == due { isLate = false }
        venue.advance(toElapsed: playedMilliseconds) { outputs.append(($0, $1)) }
        send()
        if chaosSeed != nil, !hasSeenEveryKind, venue.counts.allSatisfy({ $0 > 0 }) {
            hasSeenEveryKind = true
            note("venue: every kind of trouble has come, after \(playedMilliseconds) ms")
        }
        guard playedMilliseconds >= nextReport else { return }
        nextReport += Self.reportMilliseconds
        report()
    }

    fileprivate func receive(_ message: UnsafeRawBufferPointer, from id: Int) {
        venue.receive(Array(message), from: id) { outputs.append(($0, $1)) }
        send()
    }

    /// The venue is not in the middle of anything: a socket that ends here may tell it so.
    private func send() {
        let outputs = outputs
        self.outputs.removeAll(keepingCapacity: true)
        var written: Set<Int> = []
        for (id, output) in outputs {
            switch output {
            case .frame(let frame):
                clients[id]?.send(text: ByteBuffer(bytes: frame), isFlushed: false)
                written.insert(id)
            case .close: clients[id]?.close()
            case .reset: clients[id]?.reset("trouble, as asked for")
            }
        }
        for id in written.sorted() {
            guard let socket = clients[id] else { continue }
            socket.flush()
            let pending = socket.pendingOutboundBytes
            guard pending > Limits.venueClientBytesMax else { continue }
            note("venue: client \(id) at \(socket.peer) leaves \(pending) bytes unread; dropped")
            socket.abandon("it reads too slowly")
        }
    }

    fileprivate func opened(_ socket: WebSocket, _ id: Int) {
        clients.add(id, socket)
        note("venue: client \(id) at \(socket.peer) connected")
    }

    fileprivate func closed(_ socket: WebSocket, _ id: Int, reason: String) {
        venue.disconnect(id)
        clients.remove(id)
        note("venue: client \(id) at \(socket.peer) gone: \(reason)")
    }

    /// The trouble so far, on one line of standard output: faults by kind, and the outages that ended since the last line. Times are ms UTC.
    private func report() {
        guard let chaosSeed else { return }
        var json = JSONWriter()
        json.beginObject()
        // Beyond 2^53 a JSON number is not safe in every reader, so the seed is text.
        json.field("chaos_seed", string: String(chaosSeed))
        json.field("ts", integer: startMilliseconds + playedMilliseconds)
        json.field("elapsed_ms", integer: playedMilliseconds)
        json.field("burst_messages", integer: VenueChaos.burstMessages)
        json.key("faults")
        json.beginObject()
        for kind in VenueChaos.Kind.allCases { json.field(kind.text, integer: venue.count(of: kind)) }
        json.endObject()
        json.key("outages")
        json.beginArray()
        // In the order they began; one that lasts holds the later ones back.
        while reportedOutages < venue.outages.count, let end = venue.outages[reportedOutages].toMilliseconds {
            let outage = venue.outages[reportedOutages]
            reportedOutages += 1
            json.beginObject()
            json.field("kind", string: outage.kind.text)
            json.field("from", integer: startMilliseconds + outage.fromMilliseconds)
            json.field("to", integer: startMilliseconds + end)
            json.endObject()
        }
        json.endArray()
        json.endObject()
        json.newline()
        writeToStandardOutput(json.bytes)
    }

    private final class Client: WebSocketDelegate {
        private let feed: SimulatedFeed
        private let id: Int

        init(feed: SimulatedFeed, id: Int) {
            self.feed = feed
            self.id = id
        }

        func opened(_ socket: WebSocket) { feed.opened(socket, id) }
        func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) { feed.receive(bytes, from: id) }
        func pong(on socket: WebSocket) {}
        func closed(_ socket: WebSocket, reason: String) { feed.closed(socket, id, reason: reason) }
    }
}
