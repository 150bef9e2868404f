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
    package var tls: ChannelSecurity?
    /// What TLS asks for and checks.
    package var serverName: String

    package init(host: String, port: Int, path: String, tls: ChannelSecurity? = nil, serverName: String? = nil) {
        self.host = host
        self.port = port
        self.path = path
        self.tls = tls
        self.serverName = serverName ?? host
    }

    package var description: String { "\(host):\(port)\(path)" }
}

/// What happens to a websocket, told on its event loop.
///
/// `opened` comes first and once, then any number of `text` and `pong`, then `closed` once, after which the websocket holds the delegate
/// no longer. A connection that never opened fails the future of `connect` and calls nothing here.
package protocol WebSocketDelegate: AnyObject {
    func opened(_ socket: WebSocket)
    /// One complete message, fragments already joined. UTF-8 is not checked. The bytes are valid during the call only.
    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket)
    func pong(on socket: WebSocket)
    /// `reason` is one sentence for the log.
    func closed(_ socket: WebSocket, reason: String)
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
                    if let tls = target.tls { try pipeline.addHandler(tls(target.serverName)) }
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

/// An open websocket. It answers the server's pings and its close by itself.
///
/// Confined to its event loop: `@unchecked Sendable` lets a reference travel, every method checks the loop.
package final class WebSocket: @unchecked Sendable {
    package let eventLoop: any EventLoop
    /// `host:port/path` as asked for.
    package let peer: String
    private let channel: any Channel
    /// Nil while open; then why the connection ends.
    fileprivate private(set) var ending: String?

    fileprivate init(channel: any Channel, peer: String) {
        self.channel = channel
        self.peer = peer
        eventLoop = channel.eventLoop
    }

    /// Nothing happens once the websocket is closing.
    package func send(text: [UInt8]) { write(.text, ByteBuffer(bytes: text)) }

    /// At most 125 bytes; the delegate's `pong` is called when the server answers.
    package func ping(_ payload: [UInt8] = []) {
        precondition(payload.count <= 125, "BUG: a ping of \(payload.count) bytes")
        write(.ping, ByteBuffer(bytes: payload))
    }

    /// Says goodbye (1000), waits 2 s for the server's, and ends the connection. `closed` follows.
    package func close() { close(.normalClosure, "closed by this side") }

    /// Off: no more is read from the socket, and the venue is held back; what was read already may still come.
    package func setReading(_ isOn: Bool) {
        eventLoop.preconditionInEventLoop()
        // It fails only on a closed channel, where it does not matter.
        try? channel.syncOptions?.setOption(.autoRead, value: isOn)
    }

    // MARK: For the handler

    fileprivate func close(_ code: WebSocketErrorCode, _ reason: String) {
        eventLoop.preconditionInEventLoop()
        guard ending == nil else { return }
        var data = ByteBuffer()
        data.write(webSocketErrorCode: code)
        write(.connectionClose, data)
        ending = reason
        let channel = channel
        // A paused socket would never see the server's goodbye.
        try? channel.syncOptions?.setOption(.autoRead, value: true)
        let task = eventLoop.scheduleTask(in: .nanoseconds(Limits.closeNanoseconds)) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in task.cancel() }
    }

    fileprivate func end(_ reason: String) {
        if ending == nil { ending = reason }
        channel.close(promise: nil)
    }

    /// The server said goodbye: it gets its own back, then the connection ends.
    fileprivate func answer(close data: ByteBuffer, _ reason: String) {
        guard ending == nil else { return end(reason) }
        var data = data
        write(.connectionClose, data.readSlice(length: min(2, data.readableBytes)) ?? ByteBuffer())
        end(reason)
    }

    fileprivate func answer(ping data: ByteBuffer) {
        // A server that asks faster than it reads gets no answer, instead of filling our memory.
        if channel.isWritable { write(.pong, data) }
    }

    private func write(_ opcode: WebSocketOpcode, _ data: ByteBuffer) {
        eventLoop.preconditionInEventLoop()
        guard ending == nil else { return }
        let frame = WebSocketFrame(fin: true, opcode: opcode, maskKey: .random(), data: data)
        channel.pipeline.syncOperations.writeAndFlush(NIOAny(frame), promise: nil)
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
        let socket = WebSocket(channel: context.channel, peer: target.description)
        do {
            let pipeline = context.pipeline.syncOperations
            try pipeline.addHandler(WebSocketFrameEncoder())
            try pipeline.addHandler(ByteToMessageHandler(WebSocketFrameDecoder(maxFrameSize: Limits.webSocketMessageBytesMax)))
            try pipeline.addHandler(WebSocketMessages(socket: socket, delegate: delegate))
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

/// Frames become messages; the control frames are answered here.
private final class WebSocketMessages: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame

    private let socket: WebSocket
    /// Nil once `closed` was told.
    private var delegate: (any WebSocketDelegate)?
    /// The fragments of a message so far; nil between messages.
    private var fragments: ByteBuffer?

    init(socket: WebSocket, delegate: any WebSocketDelegate) {
        self.socket = socket
        self.delegate = delegate
    }

    func handlerAdded(context: ChannelHandlerContext) { delegate?.opened(socket) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        guard frame.maskKey == nil, !frame.rsv1, !frame.rsv2, !frame.rsv3 else {
            socket.close(.protocolError, "the server sent a masked frame or a reserved bit")
            return
        }
        switch frame.opcode {
        case .text:
            guard fragments == nil else { return fragmentError() }
            if frame.fin { deliver(frame.data) } else { fragments = frame.data }
        case .continuation:
            guard var joined = fragments.take() else { return fragmentError() }
            guard joined.readableBytes + frame.data.readableBytes <= Limits.webSocketMessageBytesMax else {
                socket.close(.messageTooLarge, "the server sent a message above \(Limits.webSocketMessageBytesMax) bytes")
                return
            }
            var data = frame.data
            joined.writeBuffer(&data)
            if frame.fin { deliver(joined) } else { fragments = joined }
        case .ping: socket.answer(ping: frame.data)
        case .pong: if socket.ending == nil { delegate?.pong(on: socket) }
        case .connectionClose: socket.answer(close: frame.data, goodbye(frame.data))
        case .binary: socket.close(.unacceptableData, "the server sent a binary message")
        default: socket.close(.protocolError, "the server sent a frame of unknown kind")
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        tell(socket.ending ?? "the connection was lost")
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { tell(socket.ending ?? "the connection was lost") }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case NIOWebSocketError.invalidFrameLength:
            socket.close(.messageTooLarge, "the server sent a frame above \(Limits.webSocketMessageBytesMax) bytes")
        case is NIOWebSocketError: socket.close(.protocolError, "the server sent a malformed frame (\(error))")
        default: socket.end(NetworkError(error, peer: socket.peer).message)
        }
    }

    private func deliver(_ data: ByteBuffer) {
        // After our goodbye nothing is delivered: the delegate has given up on this connection.
        guard socket.ending == nil else { return }
        data.withUnsafeReadableBytes { delegate?.text($0, on: socket) }
    }

    private func fragmentError() { socket.close(.protocolError, "the server mixed up the fragments of two messages") }

    private func tell(_ reason: String) {
        guard let delegate = delegate.take() else { return }
        socket.end(reason)
        delegate.closed(socket, reason: reason)
    }

    /// `closed by the server: 1000 'text'`; untrusted text is cut and stripped of control characters.
    private func goodbye(_ data: ByteBuffer) -> String {
        var data = data
        guard let code = data.readInteger(as: UInt16.self) else { return "closed by the server" }
        let text = String(decoding: data.readableBytesView.filter { $0 >= 0x20 && $0 != 0x7f }, as: UTF8.self)
        return "closed by the server: \(code)\(text.isEmpty ? "" : " '\(text)'")"
    }
}
