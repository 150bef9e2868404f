import COpenSSL
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket
import NodeShell
import Synchronization

/// A delegate that turns calls into a stream of events, and may answer them.
final class SocketRecorder: WebSocketDelegate, Sendable {
    enum Event: Sendable, Equatable {
        case opened
        case text(String)
        case pong
        case closed(String)
    }

    let events: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation
    private let react: @Sendable (Event, WebSocket) -> Void

    init(_ react: @escaping @Sendable (Event, WebSocket) -> Void = { _, _ in }) {
        (events, continuation) = AsyncStream.makeStream()
        self.react = react
    }

    private func note(_ event: Event, _ socket: WebSocket) {
        continuation.yield(event)
        react(event, socket)
    }
    func opened(_ socket: WebSocket) { note(.opened, socket) }
    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) { note(.text(String(decoding: bytes, as: UTF8.self)), socket) }
    func pong(on socket: WebSocket) { note(.pong, socket) }
    func closed(_ socket: WebSocket, reason: String) {
        note(.closed(reason), socket)
        continuation.finish()
    }

    /// The next event; nil after the last.
    func next() async -> Event? { await events.first { _ in true } }
    /// The next message; nil when the websocket closes before.
    func text() async -> String? {
        for await event in events { if case .text(let text) = event { return text } }
        return nil
    }
    /// Waits for the end; what came before is dropped.
    func closeReason() async -> String? {
        for await event in events { if case .closed(let reason) = event { return reason } }
        return nil
    }
}

enum TestSockets {
    /// Of its own, so that a client is not held up by a server of another test.
    static let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
    /// Of tests that are not about deadlines, on a machine that has more to do.
    static let deadline = TimeAmount.seconds(50)

    static func connect(
        port: Int, path: String = "/", tls: TLSContext? = nil, serverName: String? = nil, recorder: SocketRecorder,
        deadline: TimeAmount = TestSockets.deadline
    ) async throws -> WebSocket {
        let target = WebSocketTarget(host: "127.0.0.1", port: port, path: path, tls: tls, serverName: serverName)
        return try await eventLoop.flatSubmit {
            WebSocketClient.connect(to: target, on: eventLoop, delegate: recorder, deadline: deadline)
        }.get()
    }
}

extension TestSockets {
    static func get(port: Int, path: String, deadline: TimeAmount = TestSockets.deadline) async throws -> HTTPResponse {
        try await HTTPClient.get(
            host: "127.0.0.1", port: port, path: path, on: eventLoop, connectDeadline: Self.deadline, deadline: deadline
        ).get()
    }
}

extension WebSocket {
    /// Runs on the websocket's event loop.
    func perform<Value: Sendable>(_ body: @escaping @Sendable (WebSocket) -> Value) async throws -> Value {
        try await eventLoop.submit { body(self) }.get()
    }
}

/// A server that answers the first head of each connection with fixed bytes.
struct RawServer {
    enum Ending { case stays, closes }

    let channel: any Channel
    var port: Int { channel.localAddress!.port! }

    /// `answer` is given the request's head. With `isDripped` every byte is a write of its own.
    init(ending: Ending = .stays, isDripped: Bool = false, answer: @escaping @Sendable (String) -> [UInt8]) async throws {
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(ending: ending, isDripped: isDripped, answer: answer))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    /// The answer to a websocket's handshake, as RFC 6455 4.2.2 wants it.
    static func acceptance(of head: String) -> String {
        let key =
            head.split(separator: "\r\n").first { $0.lowercased().hasPrefix("sec-websocket-key:") }?
            .split(separator: ":", maxSplits: 1)[1].trimmingCharacters(in: .whitespaces) ?? ""
        let text = Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8)
        var digest = [UInt8](repeating: 0, count: 20)
        SHA1(text, text.count, &digest)
        return
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \(Data(digest).base64EncodedString())\r\n\r\n"
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let ending: Ending
        private let isDripped: Bool
        private let answer: @Sendable (String) -> [UInt8]
        private var head = ""

        init(ending: Ending, isDripped: Bool, answer: @escaping @Sendable (String) -> [UInt8]) {
            self.ending = ending
            self.isDripped = isDripped
            self.answer = answer
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard !head.contains("\r\n\r\n") else { return }
            head += String(buffer: unwrapInboundIn(data))
            guard head.contains("\r\n\r\n") else { return }
            let bytes = answer(head)
            for piece in isDripped ? bytes.map({ [$0] }) : [bytes] {
                context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: piece)), promise: nil)
            }
            if ending == .closes { context.close(promise: nil) }
        }
    }
}

/// A websocket server that sends given frames, good or bad, and tells what it receives.
struct ScriptedServer {
    let channel: any Channel
    var port: Int { channel.localAddress!.port! }
    /// The frames of the first client.
    let received: AsyncStream<WebSocketFrame>

    init(_ frames: [WebSocketFrame], tls: TLSContext? = nil) async throws {
        let (received, continuation) = AsyncStream<WebSocketFrame>.makeStream()
        self.received = received
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(TLSHandler(context: tls, role: .server)) }
                    let upgrader = NIOWebSocketServerUpgrader(
                        maxFrameSize: 1 << 20, automaticErrorHandling: false,
                        shouldUpgrade: { channel, _ in channel.eventLoop.makeSucceededFuture(HTTPHeaders()) },
                        upgradePipelineHandler: { channel, _ in
                            channel.eventLoop.makeCompletedFuture {
                                try channel.pipeline.syncOperations.addHandler(Handler(frames: frames, continuation: continuation))
                            }
                        })
                    try pipeline.configureHTTPServerPipeline(withServerUpgrade: (upgraders: [upgrader], completionHandler: { _ in }))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    func next() async -> WebSocketFrame? { await received.first { _ in true } }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = WebSocketFrame
        typealias OutboundOut = WebSocketFrame
        private let frames: [WebSocketFrame]
        private let continuation: AsyncStream<WebSocketFrame>.Continuation

        init(frames: [WebSocketFrame], continuation: AsyncStream<WebSocketFrame>.Continuation) {
            self.frames = frames
            self.continuation = continuation
        }

        func handlerAdded(context: ChannelHandlerContext) {
            for frame in frames { context.write(wrapOutboundOut(frame), promise: nil) }
            context.flush()
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}

/// Sends bytes and gives back all that comes until the peer closes.
enum RawClient {
    static func exchange(port: Int, _ text: String) async throws -> String {
        try await start(port: port, text, answersAtOnce: false).answer
    }

    /// Sends bytes, waits for the first that come, and leaves the connection open.
    static func hold(port: Int, _ text: String) async throws -> any Channel {
        try await start(port: port, text, answersAtOnce: true).channel
    }

    private static func start(port: Int, _ text: String, answersAtOnce: Bool) async throws -> (channel: any Channel, answer: String) {
        let promise = TestSockets.eventLoop.makePromise(of: String.self)
        let connected = ClientBootstrap(group: TestSockets.eventLoop)
            .connectTimeout(TestSockets.deadline)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(promise: promise, answersAtOnce: answersAtOnce))
                }
            }
            .connect(host: "127.0.0.1", port: port)
        connected.whenComplete { result in
            switch result {
            // A peer that has heard enough may close while we still write.
            case .success(let channel): channel.writeAndFlush(ByteBuffer(string: text), promise: nil)
            case .failure(let error): promise.fail(error)
            }
        }
        let answer = try await promise.futureResult.get()
        return (try await connected.get(), answer)
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let promise: EventLoopPromise<String>
        private let answersAtOnce: Bool
        private var text = ""

        init(promise: EventLoopPromise<String>, answersAtOnce: Bool) {
            self.promise = promise
            self.answersAtOnce = answersAtOnce
        }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            text += String(buffer: unwrapInboundIn(data))
            if answersAtOnce { promise.succeed(text) }
        }
        func channelInactive(context: ChannelHandlerContext) { promise.succeed(text) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
