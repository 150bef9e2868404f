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
    /// The order book that was asked for at `sentAt`. The bytes are valid during the call.
    func snapshot(of symbol: SymbolIndex, _ body: UnsafeRawBufferPointer, sentAt: Instant)
    /// `pauseNanoseconds`: how long the venue wants to hear nothing.
    func snapshotFailed(of symbol: SymbolIndex, pauseNanoseconds: Int64)
    /// Whether a frame of the symbol's book came on its present connection.
    func hasHeard(of symbol: SymbolIndex) -> Bool
    /// Whether the connection has answered no ping for too long.
    func isDead(_ connection: Int, at now: Instant) -> Bool
}

/// The edge's way to its venue: websockets, subscriptions, REST; it carries out what the node asks for.
///
/// A connection that the venue will end (24 hours, `serverShutdown`) is renewed like one that broke: its quotes are pulled, and its books come
/// back within a round trip or two. Opening the next one first would have every trade twice on both, for a second a day.
///
/// Confined to its event loop. It keeps the listener until `stop`.
final class VenueConnection {
    struct Setup {
        var venue: QuoteNode.Venue
        var target: WebSocketTarget
        /// Where order books and instruments are asked for.
        var rest: RESTOrigin
        var symbols: [String]
        /// Levels of the books that are subscribed to (Bybit).
        var depth: Int
        /// Levels that a refreshing snapshot is asked for (Bybit; `md_cache.max_depth`).
        var comparedLevels = Int(Parameters.Cache().maxDepth)
        var logger: Logger
    }

    /// An HTTP server's address.
    struct RESTOrigin {
        var host: String
        var port: Int
        var tls: TLSContext?
    }

    private let setup: Setup
    private let eventLoop: any EventLoop
    private let logger: Logger
    private var listener: (any VenueListener)?
    private var sockets: [VenueSocket] = []
    private var askedAt: Instant
    /// Where the next round of `askAgain` begins.
    private var nextAsked = 0
    private var hasReportedFailure = false

    init(_ setup: Setup, on eventLoop: any EventLoop) {
        self.setup = setup
        self.eventLoop = eventLoop
        logger = setup.logger
        askedAt = SystemClock.monotonic()
        if let market = setup.venue.binance {
            let habits = VenueSocket.Habits(
                requestIntervalNanoseconds: market.requestIntervalNanoseconds, lifetimeNanoseconds: BinanceWire.lifetimeNanoseconds)
            for shard in BinanceWire.shards(symbols: setup.symbols.count) {
                add(habits, BinanceWire.subscriptions(symbols: setup.symbols[shard], market))
            }
        } else {
            let habits = VenueSocket.Habits(pingText: BybitWire.ping())
            add(habits, BybitWire.subscriptions(symbols: setup.symbols, depth: setup.depth))
        }
    }

    private func add(_ habits: VenueSocket.Habits, _ subscriptions: [[UInt8]]) {
        sockets.append(
            VenueSocket(
                number: sockets.count, target: setup.target, habits: habits, subscriptions: subscriptions, owner: self, on: eventLoop,
                logger: logger))
    }

    /// How many websockets the symbols of a venue need: the connections its node must have.
    static func count(_ venue: QuoteNode.Venue, symbols: Int) -> Int {
        venue.binance == nil ? 1 : BinanceWire.shards(symbols: symbols).count
    }

    /// Where a configured venue is. REST requests go to the venue's public address, or, when the stream is somebody else's (a simulated venue, a
    /// proxy), to the stream's own host and port.
    static func addresses(_ venue: EdgeConfiguration.Venue) throws(TLSError) -> (WebSocketTarget, RESTOrigin) {
        let url = VenueURL(venue.url)!  // Checked on load, as is the other.
        let tls = url.isSecure || venue.restURL?.hasPrefix("https://") == true ? try TLSContext.venue() : nil
        let target = WebSocketTarget(host: url.host, port: url.port, path: url.path, tls: url.isSecure ? tls : nil)
        let known: String? =
            if let market = QuoteNode.Venue(rawValue: venue.name)?.binance {
                url.host.hasSuffix(".binance.com") || url.host.hasSuffix(".binance.vision") ? market.publicREST : nil
            } else {
                BybitWire.publicREST(ofStream: url.host)
            }
        guard let rest = (venue.restURL ?? (url.isSecure ? known : nil)).map({ VenueURL(rest: $0)! }) else {
            return (target, RESTOrigin(host: url.host, port: url.port, tls: target.tls))
        }
        return (target, RESTOrigin(host: rest.host, port: rest.port, tls: rest.isSecure ? tls : nil))
    }

    var isStopped: Bool { listener == nil }

    func start(_ listener: any VenueListener) {
        self.listener = listener
        for socket in sockets { socket.connect() }
    }

    /// Says goodbye; the listener hears nothing any more.
    func stop() {
        listener = nil
        for socket in sockets { socket.close() }
    }

    /// Every few milliseconds: carries out what the node asks for, and what is due by itself.
    func turn(at now: Instant, _ requests: [VenueRequest]) {
        for request in requests {
            switch request {
            case .resubscribe(let symbol):
                sockets[0].ask(BybitWire.resubscriptions(symbol: setup.symbols[Int(symbol)], depth: setup.depth))
            case .ping: for socket in sockets { socket.ping() }
            case .snapshot(let symbol): fetch(symbol, at: now)
            case .reconnect(let connection): sockets[connection].renew("the venue has announced its end")
            }
        }
        if setup.venue.binance == nil, sockets[0].isOpen { askAgain(now) }
        for socket in sockets { socket.turn(at: now) }
    }

    // MARK: Order books over REST

    private func fetch(_ symbol: SymbolIndex, at now: Instant) {
        let rest = setup.rest
        let name = setup.symbols[Int(symbol)]
        let path =
            if let market = setup.venue.binance {
                "\(market.depthPath)?symbol=\(name)&limit=\(market.snapshotLevels(symbols: setup.symbols.count))"
            } else {
                BybitWire.orderBookPath(setup.venue.category ?? .linear, symbol: name, levels: setup.comparedLevels)
            }
        HTTPClient.get(
            host: rest.host, port: rest.port, path: path, tls: rest.tls, on: eventLoop
        ).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let response) where response.status == 200:
                hasReportedFailure = false
                response.body.withUnsafeBytes { listener?.snapshot(of: symbol, $0, sentAt: now) }
            case .success(let response):
                let text = String(decoding: response.body.prefix(200), as: UTF8.self)
                report(symbol, "status \(response.status): \(text)")
                answered(
                    symbol,
                    pauseNanoseconds: BinanceWire.pauseNanoseconds(
                        status: response.status, retryAfterSeconds: response.retryAfterSeconds))
            case .failure(let error):
                report(symbol, "\(error)")
                answered(symbol, pauseNanoseconds: 0)
            }
        }
    }

    private func answered(_ symbol: SymbolIndex, pauseNanoseconds: Int64) {
        listener?.snapshotFailed(of: symbol, pauseNanoseconds: pauseNanoseconds)
    }

    /// Once, until one succeeds: the requests are repeated for as long as it takes.
    private func report(_ symbol: SymbolIndex, _ cause: String) {
        guard !hasReportedFailure, !isStopped else { return }
        hasReportedFailure = true
        logger.warning("The venue gives no order book.", metadata: ["symbol": "\(setup.symbols[Int(symbol)])", "cause": "\(cause)"])
    }

    // MARK: Bybit

    /// Books that never came: a request that the venue refuses for one symbol takes the others in it along, and a lost one has no answer. So
    /// each is asked for by itself, a few at a time.
    private func askAgain(_ now: Instant) {
        guard now.since(askedAt) >= Limits.resubscribeNanoseconds, let listener else { return }
        askedAt = now
        let missing = setup.symbols.indices.filter { !listener.hasHeard(of: SymbolIndex($0)) }
        for index in (missing.filter { $0 >= nextAsked } + missing.filter { $0 < nextAsked }).prefix(Limits.resubscriptionsMax) {
            nextAsked = index + 1
            let (symbol, depth) = (setup.symbols[index], setup.depth)
            sockets[0].ask([
                BybitWire.unsubscribe(symbols: [symbol], depth: depth, trades: true),
                BybitWire.subscribe(symbols: [symbol], depth: depth, trades: true),
            ])
        }
    }

    // MARK: From the sockets

    func opened(_ connection: Int) {
        askedAt = SystemClock.monotonic()
        listener?.connected(connection)
    }

    func heard(_ bytes: UnsafeRawBufferPointer, on connection: Int) { listener?.frame(bytes, on: connection) }
    func ponged(_ connection: Int) { listener?.pong(on: connection) }
    func closed(_ connection: Int) { listener?.disconnected(connection) }
    func isDead(_ connection: Int, at now: Instant) -> Bool { listener?.isDead(connection, at: now) ?? false }
}
