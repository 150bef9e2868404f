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
    /// Fails with a `NetworkError`: no TCP connection within `deadline`, no TLS and no websocket within another, a refusal or a wrong answer.
    package static func connect(
        to target: WebSocketTarget, on eventLoop: any EventLoop, delegate: any WebSocketDelegate,
        deadline: TimeAmount = .nanoseconds(Limits.connectNanoseconds)
    ) -> EventLoopFuture<WebSocket> {
        let promise = eventLoop.makePromise(of: WebSocket.self)
        let delegate = NIOLoopBound(delegate, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(deadline)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls = target.tls {
                        try pipeline.addHandler(TLSHandler(context: tls, role: .client(serverName: target.serverName)))
                    }
                    try pipeline.addHandler(
                        WebSocketHandshake(target: target, delegate: delegate.value, deadline: deadline, promise: promise))
                }
            }
            .connect(host: target.host, port: target.port)
            .whenFailure { promise.fail(NetworkError($0, peer: target.description)) }
        return promise.futureResult
    }
}

/// Asks for the websocket, checks the answer, and leaves the channel to the websocket's handlers.
///
/// It reads the head of the answer by itself instead of through NIO's decoder: that one leaves the pipeline a turn later, and forgets the
/// frames behind the answer when the connection ends within that turn.
private final class WebSocketHandshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State { case waiting, done, failed }

    private let target: WebSocketTarget
    private let delegate: any WebSocketDelegate
    private let promise: EventLoopPromise<WebSocket>
    /// Holds the key and knows the answer to it.
    private let upgrader: NIOWebSocketClientUpgrader
    private let deadline: TimeAmount
    private var timer: Scheduled<Void>?
    private var state = State.waiting
    private var received = ByteBuffer()
    /// How much of it holds no end of the head.
    private var scannedBytes = 0

    init(
        target: WebSocketTarget, delegate: any WebSocketDelegate, deadline: TimeAmount, promise: EventLoopPromise<WebSocket>
    ) {
        self.target = target
        self.delegate = delegate
        self.deadline = deadline
        self.promise = promise
        upgrader = NIOWebSocketClientUpgrader { channel, _ in channel.eventLoop.makeSucceededVoidFuture() }
    }

    func channelActive(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        timer = context.eventLoop.scheduleTask(in: deadline) {
            let (handshake, context) = bound.value
            handshake.fail(.timedOut, "no websocket within \(handshake.deadline.nanoseconds / 1_000_000) ms", context)
        }
        var head = HTTPRequestHead.get(target.path, host: target.host, port: target.port, isSecure: target.tls != nil)
        head.headers.add(name: "Connection", value: "Upgrade")
        head.headers.add(name: "Upgrade", value: "websocket")
        upgrader.addCustom(upgradeRequestHeaders: &head.headers)
        var bytes = ByteBuffer(string: "GET \(head.uri) HTTP/1.1\r\n")
        for (name, value) in head.headers { bytes.writeString("\(name): \(value)\r\n") }
        bytes.writeString("\r\n")
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch state {
        case .waiting:
            var bytes = unwrapInboundIn(data)
            received.writeBuffer(&bytes)
            guard let end = endOfHead() else {
                if received.readableBytes > Limits.httpHeadBytesMax { fail(.tooLarge, "the answer's head is too long", context) }
                return
            }
            let text = received.readString(length: end) ?? ""
            guard let head = parse(text) else {
                fail(.violation, "the answer is not HTTP/1.1", context)
                return
            }
            if check(head, context) { finish(context) }
        case .done: context.fireChannelRead(data)
        case .failed: break  // What comes behind a wrong answer does not matter.
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(.closed, "the connection was closed during the websocket handshake", context)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if state == .done { return context.fireErrorCaught(error) }
        fail(NetworkError(error, peer: target.description), context)
    }

    // MARK: The answer

    /// How long the head is, its empty line included; nil when that has not come within the bound.
    private func endOfHead() -> Int? {
        received.withUnsafeReadableBytes { bytes in
            let end = min(bytes.count, Limits.httpHeadBytesMax)
            var index = scannedBytes
            while index + 4 <= end {
                if bytes[index] == 0x0d, bytes[index + 1] == 0x0a, bytes[index + 2] == 0x0d, bytes[index + 3] == 0x0a { return index + 4 }
                index += 1
            }
            scannedBytes = index
            return nil
        }
    }

    private func parse(_ text: String) -> HTTPResponseHead? {
        let lines = text.split(separator: "\r\n")
        guard let status = lines.first, lines.count <= Limits.httpHeadersMax + 1 else { return nil }
        let parts = status.split(separator: " ", maxSplits: 2)
        guard parts.count >= 2, parts[0] == "HTTP/1.1", parts[1].utf8.count == 3, let code = Int(parts[1]), code >= 100 else { return nil }
        var headers = HTTPHeaders()
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":"), colon != line.startIndex, !line[..<colon].contains(where: \.isWhitespace) else {
                return nil
            }
            let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
            headers.add(name: String(line[..<colon]), value: String(value.reversed().drop { $0 == " " || $0 == "\t" }.reversed()))
        }
        let reason = parts.count == 3 ? String(parts[2].prefix(80).filter { $0.isASCII && !$0.isNewline }) : ""
        return HTTPResponseHead(version: .http1_1, status: .init(statusCode: code, reasonPhrase: reason), headers: headers)
    }

    private func check(_ head: HTTPResponseHead, _ context: ChannelHandlerContext) -> Bool {
        guard head.status.code == 101 else {
            fail(.refused, "the websocket was refused with \(head.status.code) \(head.status.reasonPhrase)", context)
            return false
        }
        let isWebSocket = head.headers[canonicalForm: "upgrade"].map { $0.lowercased() } == ["websocket"]
        let isUpgrade = head.headers[canonicalForm: "connection"].contains { $0.lowercased() == "upgrade" }
        guard isWebSocket, isUpgrade, upgrader.shouldAllowUpgrade(upgradeResponse: head) else {
            fail(.violation, "the answer to the websocket handshake does not match the question", context)
            return false
        }
        guard head.headers["Sec-WebSocket-Extensions"].isEmpty, head.headers["Sec-WebSocket-Protocol"].isEmpty else {
            fail(.violation, "the server turned on an extension nobody asked for", context)
            return false
        }
        return true
    }

    // MARK: The end

    private func finish(_ context: ChannelHandlerContext) {
        state = .done
        timer?.cancel()
        let socket = WebSocket(channel: context.channel, peer: target.description, isServer: false)
        do {
            let pipeline = context.pipeline.syncOperations
            try pipeline.addHandler(WebSocketFrameEncoder())
            try pipeline.addHandler(ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: Limits.webSocketMessageBytesMax)))
            try pipeline.addHandler(
                WebSocketMessages(socket: socket, messageBytesMax: Limits.webSocketMessageBytesMax, delegate: delegate))
        } catch {
            promise.fail(NetworkError(error, peer: target.description))
            context.close(promise: nil)
            return
        }
        promise.succeed(socket)
        if received.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(received)) }
        received.clear()
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    private func fail(_ code: NetworkError.Code, _ message: String, _ context: ChannelHandlerContext) {
        fail(NetworkError(code, target.description, message), context)
    }

    private func fail(_ error: NetworkError, _ context: ChannelHandlerContext) {
        guard state == .waiting else { return }
        state = .failed
        timer?.cancel()
        promise.fail(error)
        context.close(promise: nil)
    }
}
