import CalibModel
import Glibc
import NIOCore
import NodeShell
import Simulation

/// Serves `BinanceVenue` in real time.
///
/// `@unchecked Sendable`: after `init` only the venue's one event loop touches it.
final class BinanceFeed: VenueFeed, @unchecked Sendable {
    private static let turn = TimeAmount.milliseconds(5)
    /// Milliseconds of market played in one turn at most, so that a venue that fell behind still answers while it catches up.
    private static let turnMillisecondsMax: Int64 = 250

    let symbols: [String]
    private var venue: BinanceVenue
    private var clients = VenueClients()
    private var eventLoop: (any EventLoop)?
    /// The monotonic time of the market's start.
    private let started = NIODeadline.now()
    private var playedMilliseconds: Int64 = 0

    init(_ market: BinanceMarket, seed: UInt64, instruments: [SimInstrument], faults: BinanceVenue.Faults) {
        symbols = instruments.map(\.symbol)
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        venue = BinanceVenue(
            market, seed: seed, instruments: instruments,
            start: WallTime(nanoseconds: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)), faults: faults)
    }

    func start(on eventLoop: any EventLoop, finish: @escaping @Sendable (VenueError?) -> Void) {
        self.eventLoop = eventLoop
        eventLoop.scheduleRepeatedTask(initialDelay: Self.turn, delay: Self.turn) { [self] _ in play() }
    }

    func stop() -> EventLoopFuture<Void> {
        guard let eventLoop else { preconditionFailure("BUG: stopped before it started") }
        return clients.closeAll(on: eventLoop)
    }

    func isStream(_ path: String) -> Bool { BinanceVenue.isStream(path) }
    func makeClient(path: String) -> any WebSocketDelegate { Client(feed: self, id: venue.connect(path: path)) }

    func answer(path: String, query: String) -> Endpoints.Response? {
        guard let answer = venue.rest(path: path, query: query) else { return nil }
        var response = Endpoints.Response(status: answer.status, contentType: "application/json", body: answer.body)
        response.retryAfterSeconds = answer.retryAfterSeconds
        return response
    }

    // MARK: Frames

    private func play() {
        let due = (NIODeadline.now() - started).nanoseconds / 1_000_000
        playedMilliseconds = min(due, playedMilliseconds + Self.turnMillisecondsMax)
        var frames: [(clients: [Int], frame: [UInt8])] = []
        var ended: [Int] = []
        venue.advance(toElapsed: playedMilliseconds, deliver: { frames.append(($0, $1)) }, end: { ended.append($0) })
        // The venue is not in the middle of anything: a socket that ends here may tell it so.
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
            if socket.pendingOutboundBytes > Limits.venueClientBytesMax {
                note("venue: client \(id) at \(socket.peer) leaves \(socket.pendingOutboundBytes) bytes unread; dropped")
                socket.abandon("it reads too slowly")
            }
        }
        for id in ended { clients[id]?.abandon("the venue has said goodbye") }
    }

    fileprivate func receive(_ message: UnsafeRawBufferPointer, from id: Int) {
        clients[id]?.send(text: venue.receive(message, from: id))
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
        private let feed: BinanceFeed
        private let id: Int

        init(feed: BinanceFeed, id: Int) {
            self.feed = feed
            self.id = id
        }

        func opened(_ socket: WebSocket) { feed.opened(socket, id) }
        func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) { feed.receive(bytes, from: id) }
        func pong(on socket: WebSocket) {}
        func closed(_ socket: WebSocket, reason: String) { feed.closed(socket, id, reason: reason) }
    }
}
