internal import CalibModel
import Glibc
package import NIOCore
import NIOWebSocket

/// What happens to a websocket, told on its event loop.
///
/// `opened` comes first and once, then any number of `text` and `pong`, then `closed` once, after which the websocket holds the delegate
/// no longer. A connection that never opened fails the future of `connect` and calls nothing here.
package protocol WebSocketDelegate: AnyObject {
    func opened(_ socket: WebSocket)
    /// One complete message, fragments already joined. UTF-8 is not checked. The bytes are valid during the call only.
    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket)
    func pong(on socket: WebSocket)
    /// The peer has read enough for more to be sent: `isWritable` is true again.
    func drained(_ socket: WebSocket)
    /// `reason` is one sentence for the log.
    func closed(_ socket: WebSocket, reason: String)
}

extension WebSocketDelegate {
    /// Who sends little need not watch whether it is read.
    package func drained(_ socket: WebSocket) {}
}

/// An open websocket, either side of RFC 6455: no extensions, text messages. It answers the peer's pings and its close by itself.
///
/// Confined to its event loop: `@unchecked Sendable` lets a reference travel, every method checks the loop.
package final class WebSocket: @unchecked Sendable {
    package let eventLoop: any EventLoop
    /// A client's: `host:port/path` as asked for. A server's: the client's address.
    package let peer: String
    fileprivate let isServer: Bool
    private let channel: any Channel
    /// Nil while open; then why the connection ends.
    fileprivate private(set) var ending: String?

    init(channel: any Channel, peer: String, isServer: Bool) {
        self.channel = channel
        self.peer = peer
        self.isServer = isServer
        eventLoop = channel.eventLoop
    }

    /// Nothing happens once the websocket is closing.
    package func send(text: [UInt8]) { send(text: ByteBuffer(bytes: text)) }

    /// The buffer may be shared by many websockets. Without `isFlushed` it waits for `flush`.
    package func send(text: ByteBuffer, isFlushed: Bool = true) {
        write(.text, text)
        if isFlushed { flush() }
    }

    package func flush() {
        eventLoop.preconditionInEventLoop()
        channel.flush()
    }

    /// False while the peer reads slower than it is sent to.
    package var isWritable: Bool { channel.isWritable }

    /// What the peer has not taken yet.
    package var pendingOutboundBytes: Int { (try? channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0 }

    /// At most 125 bytes; the delegate's `pong` is called when the server answers.
    package func ping(_ payload: [UInt8] = []) {
        precondition(payload.count <= 125, "BUG: a ping of \(payload.count) bytes")
        write(.ping, ByteBuffer(bytes: payload))
        flush()
    }

    /// Says goodbye (1000) behind what was sent already, waits for the peer's and ends the connection; `nanoseconds` later at the latest.
    /// `closed` follows.
    package func close(within nanoseconds: Int64 = Limits.closeNanoseconds) {
        close(.normalClosure, "closed by this side", within: nanoseconds)
    }

    /// Ends the connection with a TCP reset: what a peer sees of a machine that lost its memory of it.
    package func reset(_ reason: String) {
        eventLoop.preconditionInEventLoop()
        // On the loop this is done at once.
        _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
        end(reason)
    }

    /// Ends the connection without a goodbye: for a peer that does not read.
    package func abandon(_ reason: String) {
        eventLoop.preconditionInEventLoop()
        end(reason)
    }

    /// Off: no more is read from the socket, and the peer is held back; what was read already may still come.
    package func setReading(_ isOn: Bool) {
        eventLoop.preconditionInEventLoop()
        // It fails only on a closed channel, where it does not matter.
        try? channel.syncOptions?.setOption(.autoRead, value: isOn)
    }

    // MARK: For the handler

    fileprivate func close(_ code: WebSocketErrorCode, _ reason: String, within nanoseconds: Int64 = Limits.closeNanoseconds) {
        eventLoop.preconditionInEventLoop()
        guard ending == nil else { return }
        var data = ByteBuffer()
        data.write(webSocketErrorCode: code)
        write(.connectionClose, data)
        flush()
        ending = reason
        let channel = channel
        // A paused socket would never see the peer's goodbye.
        try? channel.syncOptions?.setOption(.autoRead, value: true)
        let task = eventLoop.scheduleTask(in: .nanoseconds(nanoseconds)) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in task.cancel() }
    }

    fileprivate func end(_ reason: String) {
        if ending == nil { ending = reason }
        channel.close(promise: nil)
    }

    /// The peer said goodbye: it gets its own back, then the connection ends.
    fileprivate func answer(close data: ByteBuffer, _ reason: String) {
        guard ending == nil else { return end(reason) }
        var data = data
        write(.connectionClose, data.readSlice(length: min(2, data.readableBytes)) ?? ByteBuffer())
        flush()
        end(reason)
    }

    fileprivate func answer(ping data: ByteBuffer) {
        // A peer that asks faster than it reads gets no answer, instead of filling our memory.
        guard channel.isWritable else { return }
        write(.pong, data)
        flush()
    }

    private func write(_ opcode: WebSocketOpcode, _ data: ByteBuffer) {
        eventLoop.preconditionInEventLoop()
        guard ending == nil else { return }
        let frame = WebSocketFrame(fin: true, opcode: opcode, maskKey: isServer ? nil : .random(), data: data)
        channel.pipeline.syncOperations.write(NIOAny(frame), promise: nil)
    }
}

/// Frames become messages; the control frames are answered here.
final class WebSocketMessages: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame

    private let socket: WebSocket
    private let messageBytesMax: Int
    private let peer: String
    /// Nil once `closed` was told.
    private var delegate: (any WebSocketDelegate)?
    /// The fragments of a message so far; nil between messages.
    private var fragments: ByteBuffer?

    /// The frame decoder in front holds single frames to `messageBytesMax`; here are the joined ones.
    init(socket: WebSocket, messageBytesMax: Int, delegate: any WebSocketDelegate) {
        self.socket = socket
        self.messageBytesMax = messageBytesMax
        peer = socket.isServer ? "the client" : "the server"
        self.delegate = delegate
    }

    func handlerAdded(context: ChannelHandlerContext) { delegate?.opened(socket) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        guard (frame.maskKey != nil) == socket.isServer, !frame.rsv1, !frame.rsv2, !frame.rsv3 else {
            socket.close(.protocolError, "\(peer) sent a frame masked wrongly or with a reserved bit")
            return
        }
        let bytes = frame.unmaskedData
        switch frame.opcode {
        case .text:
            guard fragments == nil else { return fragmentError() }
            if frame.fin { deliver(bytes) } else { fragments = bytes }
        case .continuation:
            guard var joined = fragments.take() else { return fragmentError() }
            guard joined.readableBytes + bytes.readableBytes <= messageBytesMax else {
                socket.close(.messageTooLarge, "\(peer) sent a message above \(messageBytesMax) bytes")
                return
            }
            var data = bytes
            joined.writeBuffer(&data)
            if frame.fin { deliver(joined) } else { fragments = joined }
        case .ping: socket.answer(ping: bytes)
        case .pong: if socket.ending == nil { delegate?.pong(on: socket) }
        case .connectionClose:
            guard isGoodbye(bytes) else { return socket.close(.protocolError, "\(peer) sent a malformed goodbye") }
            socket.answer(close: bytes, goodbye(bytes))
        case .binary: socket.close(.unacceptableData, "\(peer) sent a binary message")
        default: socket.close(.protocolError, "\(peer) sent a frame of unknown kind")
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable, socket.ending == nil { delegate?.drained(socket) }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        tell(socket.ending ?? "the connection was lost")
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { tell(socket.ending ?? "the connection was lost") }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case NIOWebSocketError.invalidFrameLength:
            socket.close(.messageTooLarge, "\(peer) sent a frame above \(messageBytesMax) bytes")
        case is NIOWebSocketError: socket.close(.protocolError, "\(peer) sent a malformed frame (\(error))")
        default: socket.end(NetworkError(error, peer: socket.peer).message)
        }
    }

    private func deliver(_ data: ByteBuffer) {
        // After our goodbye nothing is delivered: the delegate has given up on this connection.
        guard socket.ending == nil else { return }
        data.withUnsafeReadableBytes { delegate?.text($0, on: socket) }
    }

    private func fragmentError() { socket.close(.protocolError, "\(peer) mixed up the fragments of two messages") }

    private func tell(_ reason: String) {
        guard let delegate = delegate.take() else { return }
        socket.end(reason)
        delegate.closed(socket, reason: reason)
    }

    /// Nothing, or a code that RFC 6455 7.4 lets a peer send.
    private func isGoodbye(_ data: ByteBuffer) -> Bool {
        guard data.readableBytes > 0 else { return true }
        guard let code = data.getInteger(at: data.readerIndex, as: UInt16.self) else { return false }
        return switch code {
        case 1000...1003, 1007...1014, 3000...4999: true
        default: false
        }
    }

    /// `closed by the peer: 1000 'text'`; untrusted text is cut and stripped of control characters.
    private func goodbye(_ data: ByteBuffer) -> String {
        var data = data
        guard let code = data.readInteger(as: UInt16.self) else { return "closed by \(peer)" }
        let text = String(decoding: data.readableBytesView.filter { $0 >= 0x20 && $0 != 0x7f }, as: UTF8.self)
        return "closed by \(peer): \(code)\(text.isEmpty ? "" : " '\(text)'")"
    }
}
