import CalibModel
import EdgeCore
import Logging
import NIOCore
import NodeShell

/// One of the venue's websockets: it is opened, asked, pinged, watched, renewed before the venue would end it, and opened again after a failure.
///
/// Confined to its event loop.
final class VenueSocket: WebSocketDelegate {
    /// What differs between venues.
    struct Habits {
        /// Between two requests, where the venue counts them; 0 sends all at once.
        var requestIntervalNanoseconds: Int64 = 0
        /// A text frame; nil pings with the websocket's own.
        var pingText: [UInt8]?
        /// It is renewed at a random age within; nil: as long as the venue likes.
        var lifetimeNanoseconds: ClosedRange<Int64>?
    }

    let number: Int
    private let target: WebSocketTarget
    private let habits: Habits
    /// What is sent after each opening, in this order.
    private let subscriptions: [[UInt8]]
    private let eventLoop: any EventLoop
    private let logger: Logger
    private weak var owner: VenueConnection?
    private var socket: WebSocket?
    private var backOff = BackOff(from: Limits.venueReconnectNanosecondsMin) { Int64.random(in: $0) }
    private var waiting: [[UInt8]] = []
    private var lastRequest: Instant
    /// Anything at all, pongs too.
    private var lastSign: Instant
    /// Pings asked for while requests wait.
    private var pingsWaiting = 0
    private var endOfLife: Instant?
    private var isRenewing = false

    init(
        number: Int, target: WebSocketTarget, habits: Habits, subscriptions: [[UInt8]], owner: VenueConnection, on eventLoop: any EventLoop,
        logger: Logger
    ) {
        (self.number, self.target, self.habits, self.subscriptions) = (number, target, habits, subscriptions)
        (self.owner, self.eventLoop, self.logger) = (owner, eventLoop, logger)
        let now = SystemClock.monotonic()
        (lastRequest, lastSign) = (now, now)
    }

    var isOpen: Bool { socket != nil }

    func connect() {
        guard owner?.isStopped == false else { return }
        WebSocketClient.connect(to: target, on: eventLoop, delegate: self).assumeIsolated().whenFailure { [self] error in
            logger.warning("The venue cannot be reached.", metadata: ["venue": "\(target.description)", "cause": "\(error)"])
            reconnect()
        }
    }

    /// Sends requests behind those that wait.
    func ask(_ requests: [[UInt8]]) {
        guard isOpen else { return }  // The next opening subscribes to everything.
        waiting += requests
    }

    /// Each is answered once: the node counts them.
    func ping() {
        guard let socket else { return }
        pingsWaiting += 1
        sendPings(socket)
    }

    private func sendPings(_ socket: WebSocket) {
        // Subscriptions first: both count against the venue's limit of messages.
        guard waiting.isEmpty else { return }
        for _ in 0..<pingsWaiting {
            if let text = habits.pingText { socket.send(text: text) } else { socket.ping() }
        }
        pingsWaiting = 0
    }

    /// Ends the connection in good order; the next one is opened at once.
    func renew(_ why: String) {
        guard let socket else { return }
        logger.info("The venue's connection is renewed.", metadata: ["venue": "\(target.description)", "why": "\(why)"])
        endOfLife = nil
        isRenewing = true
        socket.close()
    }

    func close() { socket?.close() }

    /// Every few milliseconds: what is due.
    func turn(at now: Instant) {
        guard let socket else { return }
        // It would not answer a goodbye either.
        if now.since(lastSign) >= Limits.venueSilenceNanoseconds || owner?.isDead(number, at: now) == true {
            return socket.abandon("the venue says nothing any more")
        }
        if let endOfLife, now >= endOfLife { return renew("its day is over") }
        send(socket, at: now)
        sendPings(socket)
    }

    private func send(_ socket: WebSocket, at now: Instant) {
        guard !waiting.isEmpty else { return }
        guard habits.requestIntervalNanoseconds > 0 else {
            for request in waiting { socket.send(text: request) }
            return waiting.removeAll()
        }
        guard now.since(lastRequest) >= habits.requestIntervalNanoseconds else { return }
        lastRequest = now
        socket.send(text: waiting.removeFirst())
    }

    private func reconnect() {
        let wait = backOff.next(atMost: Limits.venueReconnectNanosecondsMax)
        eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(wait)) { [self] in connect() }
    }

    // MARK: The websocket

    func opened(_ socket: WebSocket) {
        guard let owner, !owner.isStopped else { return socket.close() }
        self.socket = socket
        let now = SystemClock.monotonic()
        lastSign = now
        pingsWaiting = 0
        endOfLife = habits.lifetimeNanoseconds.map { now.advanced(nanoseconds: .random(in: $0)) }
        owner.opened(number)
        waiting = subscriptions
        lastRequest = now.advanced(nanoseconds: -habits.requestIntervalNanoseconds)
        send(socket, at: now)
        logger.info("Connected to the venue.", metadata: ["venue": "\(target.description)"])
    }

    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) {
        guard socket === self.socket, let owner else { return }
        lastSign = SystemClock.monotonic()
        // A venue that talks is one that is there: the next failure is the first again.
        backOff.reset()
        owner.heard(bytes, on: number)
    }

    func pong(on socket: WebSocket) {
        guard socket === self.socket else { return }
        lastSign = SystemClock.monotonic()
        owner?.ponged(number)
    }

    func closed(_ socket: WebSocket, reason: String) {
        guard socket === self.socket else { return }
        self.socket = nil
        waiting = []
        guard let owner, !owner.isStopped else { return }
        owner.closed(number)
        let wasRenewed = isRenewing
        isRenewing = false
        if wasRenewed { return connect() }
        logger.warning("The venue's connection ended.", metadata: ["venue": "\(target.description)", "cause": "\(reason)"])
        reconnect()
    }
}
