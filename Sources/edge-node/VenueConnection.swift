import CalibModel
import EdgeCore
import Logging
import NIOCore
import NodeShell

/// Who hears what the venue says; called on the event loop.
protocol VenueListener: AnyObject {
    /// A new websocket took this number; it ends with `disconnected`.
    func connected(_ connection: Int)
    /// The bytes are valid during the call.
    func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int)
    /// A ping of the websocket was answered; a text pong comes as a frame.
    func pong(on connection: Int)
    func disconnected(_ connection: Int)
    /// Whether a frame of the symbol's book came on its present connection.
    func hasHeard(of symbol: SymbolIndex) -> Bool
}

/// The edge's way to its venue: connects, subscribes, comes back after a failure, and carries out what the node asks for.
///
/// Confined to its event loop. It keeps the listener until `stop`.
final class VenueConnection {
    struct Setup {
        var target: WebSocketTarget
        var symbols: [String]
        /// Levels of the books that are subscribed to.
        var depth: Int
        var logger: Logger
    }

    private let setup: Setup
    private let eventLoop: any EventLoop
    private let logger: Logger
    private var listener: (any VenueListener)?
    private var socket: WebSocket?
    private var backOff = BackOff { Int64.random(in: $0) }
    private var lastFrame: Instant
    private var lastPing: Instant
    private var subscribedAt: Instant
    /// Where the next round of `askAgain` begins.
    private var nextAsked = 0

    init(_ setup: Setup, on eventLoop: any EventLoop) {
        self.setup = setup
        self.eventLoop = eventLoop
        logger = setup.logger
        let now = SystemClock.monotonic()
        (lastFrame, lastPing, subscribedAt) = (now, now, now)
    }

    func start(_ listener: any VenueListener) {
        self.listener = listener
        connect()
    }

    /// Says goodbye; the listener hears nothing any more.
    func stop() {
        listener = nil
        socket?.close()
    }

    /// Every few milliseconds: carries out what the node asks for, and what is due by itself.
    func turn(at now: Instant, _ requests: [VenueRequest]) {
        guard let socket else { return }
        for request in requests {
            switch request {
            case .resubscribe(let symbol):
                for request in BybitWire.resubscriptions(symbol: setup.symbols[Int(symbol)], depth: setup.depth) {
                    socket.send(text: request)
                }
            case .ping: ping(socket, at: now)
            case .snapshot: break  // Bybit's come in band.
            }
        }
        let silent = now.since(lastFrame)
        // It would not answer a goodbye either.
        if silent >= Limits.venueSilenceNanoseconds { return socket.abandon("the venue says nothing any more") }
        askAgain(now, socket)
        let isDue = silent >= Limits.freshnessPingNanoseconds && now.since(lastPing) >= Limits.freshnessPingIntervalNanoseconds
        if isDue || now.since(lastPing) >= BybitWire.heartbeatNanoseconds { ping(socket, at: now) }
    }

    private func ping(_ socket: WebSocket, at now: Instant) {
        lastPing = now
        socket.send(text: BybitWire.ping())
    }

    private func connect() {
        guard listener != nil else { return }
        WebSocketClient.connect(to: setup.target, on: eventLoop, delegate: self).assumeIsolated().whenFailure { [self] error in
            logger.warning("The venue cannot be reached.", metadata: ["venue": "\(setup.target.description)", "cause": "\(error)"])
            reconnect()
        }
    }

    private func reconnect() {
        let wait = backOff.next(atMost: Limits.venueReconnectNanosecondsMax)
        eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(wait)) { [self] in connect() }
    }

    /// Books that never came: a request that the venue refuses for one symbol takes the others in it along, and a lost one has no answer. So
    /// each is asked for by itself, a few at a time.
    private func askAgain(_ now: Instant, _ socket: WebSocket) {
        guard now.since(subscribedAt) >= Limits.resubscribeNanoseconds, let listener else { return }
        subscribedAt = now
        let missing = setup.symbols.indices.filter { !listener.hasHeard(of: SymbolIndex($0)) }
        for index in (missing.filter { $0 >= nextAsked } + missing.filter { $0 < nextAsked }).prefix(Limits.resubscriptionsMax) {
            nextAsked = index + 1
            let (symbol, depth) = (setup.symbols[index], setup.depth)
            socket.send(text: BybitWire.unsubscribe(symbols: [symbol], depth: depth, trades: true))
            socket.send(text: BybitWire.subscribe(symbols: [symbol], depth: depth, trades: true))
        }
    }
}

extension VenueConnection: WebSocketDelegate {
    func opened(_ socket: WebSocket) {
        guard let listener else { return socket.close() }
        self.socket = socket
        let now = SystemClock.monotonic()
        (lastFrame, lastPing, subscribedAt) = (now, now, now)
        listener.connected(0)
        for request in BybitWire.subscriptions(symbols: setup.symbols, depth: setup.depth) { socket.send(text: request) }
        logger.info("Connected to the venue.", metadata: ["venue": "\(setup.target.description)"])
    }

    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) {
        guard socket === self.socket, let listener else { return }
        lastFrame = SystemClock.monotonic()
        // A venue that talks is one that is there: the next failure is the first again.
        backOff.reset()
        listener.frame(bytes, on: 0)
    }

    func pong(on socket: WebSocket) {
        guard socket === self.socket else { return }
        listener?.pong(on: 0)
    }

    func closed(_ socket: WebSocket, reason: String) {
        guard socket === self.socket else { return }
        self.socket = nil
        guard let listener else { return }
        listener.disconnected(0)
        logger.warning("The venue's connection ended.", metadata: ["venue": "\(setup.target.description)", "cause": "\(reason)"])
        reconnect()
    }
}
