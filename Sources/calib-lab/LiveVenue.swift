import CalibModel
import Glibc
import NIOCore
import NIOPosix
import NodeShell
import Simulation
import Synchronization
import Wire

/// What serves a venue's clients: the simulated markets, or a recording.
///
/// Everything it does happens on one event loop, the venue's only one; `@unchecked Sendable` of the implementations rests on that.
protocol VenueFeed: AnyObject, Sendable {
    /// For the line that says where the venue listens.
    var symbols: [String] { get }
    /// Whether a websocket can be had at the path.
    func isStream(_ path: String) -> Bool
    func makeClient(path: String) -> any WebSocketDelegate
    /// Nil for a path there is not.
    func answer(path: String, query: String) -> Endpoints.Response?
    /// Called once the venue listens. `finish` ends the venue's process: with an error when something went wrong.
    func start(on eventLoop: any EventLoop, finish: @escaping @Sendable (VenueError?) -> Void)
    /// Says goodbye to every client; done when the last is gone, `Limits.closeNanoseconds` later at the latest.
    func stop() -> EventLoopFuture<Void>
}

/// A feed with Bybit's paths.
protocol BybitFeed: VenueFeed {
    func makeClient(_ category: BybitCategory) -> any WebSocketDelegate
    /// The body of a REST answer, nil for a path there is not.
    func rest(path: String, query: String) -> [UInt8]?
}

extension BybitFeed {
    func isStream(_ path: String) -> Bool { category(of: path) != nil }

    func makeClient(path: String) -> any WebSocketDelegate {
        guard let category = category(of: path) else { preconditionFailure("BUG: a websocket at \(path)") }
        return makeClient(category)
    }

    func answer(path: String, query: String) -> Endpoints.Response? {
        rest(path: path, query: query).map { Endpoints.Response(contentType: "application/json", body: $0) }
    }
}

/// Why a venue ended with a failure; one line.
struct VenueError: Error, CustomStringConvertible {
    var description: String
}

/// A venue on a socket, from its first to its last client.
struct LiveVenue {
    var host: String
    var port: Int
    var feed: any VenueFeed

    /// What the end of the feed sends to our own main thread.
    private static let wakeUp = SIGUSR1

    /// Returns when SIGTERM or SIGINT came, or when the feed is done. Call it on the main thread before there are others: they inherit the
    /// blocked signals.
    func run() throws {
        let signals = Signals([SIGTERM, SIGINT, Self.wakeUp])
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let eventLoop = group.next()
        let feed = feed
        let channel: any Channel
        do {
            channel = try WebSocketServer.bind(
                host: host, port: port, on: group, connectionsMax: Limits.venueClientsMax,
                isWebSocket: { feed.isStream($0) },
                makeDelegate: { path, _ in feed.makeClient(path: path) },
                respond: { target, eventLoop in
                    let parts = target.split(separator: "?", maxSplits: 1)
                    return eventLoop.makeSucceededFuture(
                        feed.answer(path: String(parts.first ?? ""), query: parts.count == 2 ? String(parts[1]) : ""))
                }
            ).wait()
        } catch {
            throw VenueError(description: "cannot listen on \(host):\(port); is the address ours and the port free? (\(error))")
        }
        let outcome = Outcome()
        // The feed starts before anybody is told of the address.
        try eventLoop.submit {
            feed.start(on: eventLoop) { error in
                outcome.error.withLock { $0 = error }
                kill(getpid(), Self.wakeUp)
            }
        }.wait()
        announce(channel)
        _ = signals.wait()
        try? channel.close().wait()
        try? eventLoop.flatSubmit { feed.stop() }.wait()
        if let error = outcome.error.withLock({ $0 }) { throw error }
    }

    private final class Outcome: Sendable {
        let error = Mutex<VenueError?>(nil)
    }

    private func announce(_ channel: any Channel) {
        var json = JSONWriter()
        json.beginObject()
        json.field("listening", string: "\(host.contains(":") ? "[\(host)]" : host):\(channel.localAddress?.port ?? port)")
        json.key("symbols")
        json.beginArray()
        for symbol in feed.symbols { json.string(symbol) }
        json.endArray()
        json.endObject()
        json.newline()
        writeToStandardOutput(json.bytes)
    }
}

/// `/v5/public/linear` and `/v5/public/spot`.
private func category(of path: String) -> BybitCategory? {
    let prefix = "/v5/public/"
    return path.hasPrefix(prefix) ? BybitCategory(rawValue: String(path.dropFirst(prefix.count))) : nil
}

/// The open websockets of a feed, and who waits for their end. Touched on the venue's event loop only.
struct VenueClients {
    private var sockets: [Int: WebSocket] = [:]
    private var emptied: EventLoopPromise<Void>?

    var isEmpty: Bool { sockets.isEmpty }

    subscript(_ id: Int) -> WebSocket? { sockets[id] }

    mutating func add(_ id: Int, _ socket: WebSocket) {
        sockets[id] = socket
        // It came while the venue was closing.
        if emptied != nil { socket.close() }
    }

    mutating func remove(_ id: Int) {
        sockets[id] = nil
        if sockets.isEmpty { emptied?.succeed(()) }
    }

    mutating func closeAll(on eventLoop: any EventLoop) -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        emptied = promise
        if sockets.isEmpty { promise.succeed(()) }
        // A close may end at once and change the dictionary.
        for socket in Array(sockets.values) { eventLoop.execute { socket.close() } }
        return promise.futureResult
    }
}
