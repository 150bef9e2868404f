import CalibModel
import Glibc
import NIOCore
import NodeShell
import Simulation

/// Serves `BybitVenue` in real time.
///
/// `@unchecked Sendable`: after `init` only the venue's one event loop touches it.
final class SimulatedFeed: BybitFeed, @unchecked Sendable {
    /// How often the markets are moved on: half the interval of the fastest topic.
    private static let turn = TimeAmount.milliseconds(5)
    /// Milliseconds of market played in one turn at most, so that a venue that fell behind still answers while it catches up.
    private static let turnMillisecondsMax: Int64 = 250
    /// Falling behind by this much is worth a line in the log.
    private static let lateMilliseconds: Int64 = 1000

    let symbols: [String]
    private var venue: BybitVenue
    private var clients = VenueClients()
    private var eventLoop: (any EventLoop)?
    /// The monotonic time of the market's start; what passes until the venue listens is caught up with.
    private let started: NIODeadline
    private var playedMilliseconds: Int64 = 0
    private var isLate = false
    private var frames: [(clients: [Int], frame: [UInt8])] = []

    init(seed: UInt64, instruments: [SimInstrument], lostDeltaInterval: Int?) {
        symbols = instruments.map(\.symbol)
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        started = .now()
        venue = BybitVenue(
            seed: seed, instruments: instruments,
            start: WallTime(nanoseconds: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)), lostDeltaInterval: lostDeltaInterval)
    }

    func start(on eventLoop: any EventLoop, finish: @escaping @Sendable (VenueError?) -> Void) {
        self.eventLoop = eventLoop
        eventLoop.scheduleRepeatedTask(initialDelay: Self.turn, delay: Self.turn) { [self] _ in play() }
    }

    func stop() -> EventLoopFuture<Void> {
        guard let eventLoop else { preconditionFailure("BUG: stopped before it started") }
        return clients.closeAll(on: eventLoop)
    }

    func makeClient(_ category: BybitCategory) -> any WebSocketDelegate { Client(feed: self, id: venue.connect(category)) }

    func rest(path: String, query: String) -> [UInt8]? { venue.rest(path: path, query: query) }

    // MARK: Frames

    private func play() {
        let due = (NIODeadline.now() - started).nanoseconds / 1_000_000
        if due - playedMilliseconds >= Self.lateMilliseconds, !isLate {
            isLate = true
            note("venue: \(due - playedMilliseconds) ms behind the clock; catching up, nothing is left out")
        }
        playedMilliseconds = min(due, playedMilliseconds + Self.turnMillisecondsMax)
        if playedMilliseconds == due { isLate = false }
        venue.advance(toElapsed: playedMilliseconds) { frames.append(($0, $1)) }
        send()
    }

    fileprivate func receive(_ message: UnsafeRawBufferPointer, from id: Int) {
        venue.receive(message, from: id) { frames.append(($0, $1)) }
        send()
    }

    /// The venue is not in the middle of anything: a socket that ends here may tell it so.
    private func send() {
        let frames = frames
        self.frames.removeAll(keepingCapacity: true)
        var written: Set<Int> = []
        for (ids, frame) in frames {
            let buffer = ByteBuffer(bytes: frame)
            for id in ids {
                clients[id]?.send(text: buffer, isFlushed: false)
                written.insert(id)
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
