internal import CalibModel
package import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket

/// Where a websocket is, and how to be sure that it is the right one.
package struct WebSocketTarget: Sendable {
    package var host: String
    package var port: Int
    /// With the query, such as `/v5/public/linear`.
    package var path: String
    /// Nil: plain TCP, for a venue on loopback.
    package var tls: TLSContext?
    /// What TLS asks for and checks.
    package var serverName: String

    package init(host: String, port: Int, path: String, tls: TLSContext? = nil, serverName: String? = nil) {
        self.host = host
        self.port = port
        self.path = path
        self.tls = tls
        self.serverName = serverName ?? host
    }

    package var description: String { "\(host):\(port)\(path)" }
}

/// The client side of RFC 6455: no extensions, no subprotocols, text messages.
package enum WebSocketClient {
    /// Call it on `eventLoop`, where the delegate lives.
    ///
    /// Fails with a `NetworkError`: no TCP connection in 5 s, no finished handshake in another 5 s, a refusal or a wrong answer.
    package static func connect(
        to target: WebSocketTarget, on eventLoop: any EventLoop, delegate: any WebSocketDelegate
    ) -> EventLoopFuture<WebSocket> {
        let promise = eventLoop.makePromise(of: WebSocket.self)
        let delegate = NIOLoopBound(delegate, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(.nanoseconds(Limits.connectNanoseconds))
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls = target.tls {
                        try pipeline.addHandler(TLSHandler(context: tls, role: .client(serverName: target.serverName)))
                    }
                    let encoder = HTTPRequestEncoder()
                    let decoder = ByteToMessageHandler(
                        HTTPResponseDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: .ours))
                    try pipeline.addHandler(encoder)
                    try pipeline.addHandler(decoder)
                    try pipeline.addHandler(
                        WebSocketHandshake(
                            target: target, encoder: encoder, decoder: decoder, delegate: delegate.value, promise: promise))
                }
            }
            .connect(host: target.host, port: target.port)
            .whenFailure { promise.fail(NetworkError($0, peer: target.description)) }
        return promise.futureResult
    }
}

/// Asks for the websocket, checks the answer, and puts the websocket's handlers in place of HTTP's.
private final class WebSocketHandshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private enum State {
        case waiting
        /// The answer was right; its end is still to come.
        case accepted
        /// HTTP's handlers are on their way out; bytes that came behind the answer wait.
        case switching([NIOAny])
        case done
        case failed
    }

    private let target: WebSocketTarget
    private let encoder: HTTPRequestEncoder
    private let decoder: ByteToMessageHandler<HTTPResponseDecoder>
    private let delegate: any WebSocketDelegate
    private let promise: EventLoopPromise<WebSocket>
    /// Holds the key and knows the answer to it.
    private let upgrader: NIOWebSocketClientUpgrader
    private var deadline: Scheduled<Void>?
    private var state = State.waiting

    init(
        target: WebSocketTarget, encoder: HTTPRequestEncoder, decoder: ByteToMessageHandler<HTTPResponseDecoder>,
        delegate: any WebSocketDelegate, promise: EventLoopPromise<WebSocket>
    ) {
        self.target = target
        self.encoder = encoder
        self.decoder = decoder
        self.delegate = delegate
        self.promise = promise
        upgrader = NIOWebSocketClientUpgrader { channel, _ in channel.eventLoop.makeSucceededVoidFuture() }
    }

    func channelActive(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: .nanoseconds(Limits.connectNanoseconds)) {
            let (handshake, context) = bound.value
            handshake.fail(.timedOut, "no websocket within \(Limits.connectNanoseconds / 1_000_000_000) s", context)
        }
        var head = HTTPRequestHead.get(target.path, host: target.host, port: target.port, isSecure: target.tls != nil)
        head.headers.add(name: "Connection", value: "Upgrade")
        head.headers.add(name: "Upgrade", value: "websocket")
        upgrader.addCustom(upgradeRequestHeaders: &head.headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch state {
        case .waiting:
            guard case .head(let head) = unwrapInboundIn(data) else { return }
            check(head, context)
        case .accepted:
            if case .end = unwrapInboundIn(data) { upgrade(context) }
        case .switching(let held): state = .switching(held + [data])
        case .done: context.fireChannelRead(data)
        case .failed: break  // What comes behind a wrong answer does not matter.
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(.closed, "the connection was closed during the websocket handshake", context)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if case .done = state { return context.fireErrorCaught(error) }
        fail(NetworkError(error, peer: target.description), context)
    }

    private func check(_ head: HTTPResponseHead, _ context: ChannelHandlerContext) {
        guard head.status == .switchingProtocols else {
            fail(.refused, "the websocket was refused with \(head.status.code) \(head.status.reasonPhrase)", context)
            return
        }
        let isWebSocket = head.headers[canonicalForm: "upgrade"].map { $0.lowercased() } == ["websocket"]
        let isUpgrade = head.headers[canonicalForm: "connection"].contains { $0.lowercased() == "upgrade" }
        guard isWebSocket, isUpgrade, upgrader.shouldAllowUpgrade(upgradeResponse: head) else {
            fail(.violation, "the answer to the websocket handshake does not match the question", context)
            return
        }
        guard head.headers["Sec-WebSocket-Extensions"].isEmpty, head.headers["Sec-WebSocket-Protocol"].isEmpty else {
            fail(.violation, "the server turned on an extension nobody asked for", context)
            return
        }
        state = .accepted
    }

    private func upgrade(_ context: ChannelHandlerContext) {
        state = .switching([])
        let pipeline = context.pipeline.syncOperations
        pipeline.removeHandler(encoder, promise: nil)
        let removed = context.eventLoop.makePromise(of: Void.self)
        // The decoder hands on the bytes it holds while it goes; it is inside of its own call now, so it goes a little later.
        pipeline.removeHandler(decoder, promise: removed)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        removed.futureResult.whenSuccess {
            let (handshake, context) = bound.value
            handshake.finish(context)
        }
    }

    private func finish(_ context: ChannelHandlerContext) {
        guard case .switching(let held) = state else { return }
        state = .done
        deadline?.cancel()
        let socket = WebSocket(channel: context.channel, peer: target.description, isServer: false)
        do {
            let pipeline = context.pipeline.syncOperations
            try pipeline.addHandler(WebSocketFrameEncoder())
            try pipeline.addHandler(ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: Limits.webSocketMessageBytesMax)))
            try pipeline.addHandler(WebSocketMessages(socket: socket, messageBytesMax: Limits.webSocketMessageBytesMax, delegate: delegate))
        } catch {
            promise.fail(NetworkError(error, peer: target.description))
            context.close(promise: nil)
            return
        }
        promise.succeed(socket)
        for data in held { context.fireChannelRead(data) }
        if !held.isEmpty { context.fireChannelReadComplete() }
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    private func fail(_ code: NetworkError.Code, _ message: String, _ context: ChannelHandlerContext) {
        fail(NetworkError(code, target.description, message), context)
    }

    private func fail(_ error: NetworkError, _ context: ChannelHandlerContext) {
        switch state {
        case .done, .failed: return
        case .waiting, .accepted, .switching: break
        }
        state = .failed
        deadline?.cancel()
        promise.fail(error)
        context.close(promise: nil)
    }
}
