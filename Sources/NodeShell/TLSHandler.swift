internal import CalibModel
package import NIOCore

/// Fired downstream when the handshake is done; data follows it, never precedes it. `identity` is nil without a certificate of our kind.
package struct TLSHandshakeDone: Sendable {
    package var identity: PeerIdentity?
}

/// TLS for one channel, server or client: ciphertext towards the socket, plaintext towards the other handlers.
///
/// States: waiting -> handshaking -> open -> closing -> closed; from any of them to lingering and closed after a failure.
/// 1. libssl is called on the channel's event loop only, and never while another call of it is under way.
/// 2. After every call its output is taken and sent, after a failed one too: it may be the alert that tells the peer why.
/// 3. Plaintext is handed on before anything that says the connection is over.
/// 4. Writes are gathered until `flush`, then encrypted in whole records: a record for each small line would cost six times as much.
///    Writes before the end of the handshake wait for it.
/// 5. After our goodbye or a failure only our direction is closed; the rest is read and dropped until the peer's end or `linger`. To close a
///    socket with unread bytes makes the kernel send a reset, and a reset may overtake the alert.
///
/// A failure is fired as one `errorCaught(TLSError)`. What is read in a turn of the event loop is bounded by the channel: its reads per loop
/// (4 at most) times its largest buffer (64 KiB).
package final class TLSHandler: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    package enum Role: Sendable, Equatable {
        case server
        /// `serverName`: the DNS name or address the certificate must be for. Nil checks the chain and the role only.
        case client(serverName: String?)
    }

    private enum State { case waiting, handshaking, open, closing, lingering, closed }

    private let tls: TLSContext
    private let role: Role
    private let recordsPerKey: Int
    private let handshakeDeadline: TimeAmount
    private let linger: TimeAmount

    private var state = State.waiting
    private var session: TLSSession?
    /// Plaintext not encrypted yet, and who wants to know when it is sent.
    private var unsent = ByteBuffer()
    private var unsentPromise: EventLoopPromise<Void>?
    private var isFlushWanted = false
    private var receivedSinceReset = 0
    private var timer: Scheduled<Void>?
    private var closePromise: EventLoopPromise<Void>?

    /// `recordsPerKey`, `handshakeDeadline`, `linger`: for tests.
    package init(
        context: TLSContext, role: Role, handshakeDeadline: TimeAmount = .nanoseconds(Limits.helloNanoseconds),
        linger: TimeAmount = .nanoseconds(Limits.lingerNanoseconds), recordsPerKey: Int = Limits.tlsRecordsPerKey
    ) {
        tls = context
        self.role = role
        self.recordsPerKey = recordsPerKey
        self.handshakeDeadline = handshakeDeadline
        self.linger = linger
    }

    /// Plaintext waiting for a flush or for the handshake.
    package var unsentBytes: Int { unsent.readableBytes }

    private var peer: String {
        switch tls.kind {
        case .server: "client"
        case .client: "hub"
        case .venue: "server"
        }
    }

    private var serverName: String? {
        if case .client(let name) = role { name } else { nil }
    }

    // MARK: Life

    package func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(context) }
    }

    package func handlerRemoved(context: ChannelHandlerContext) { end() }

    package func channelActive(context: ChannelHandlerContext) {
        start(context)
        context.fireChannelActive()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        switch state {
        case .handshaking:
            state = .closed
            context.fireErrorCaught(TLSError(.closedEarly, "\(peer) closed the connection during the TLS handshake"))
        case .open: tls.countTruncated()
        case .waiting, .closing, .lingering, .closed: break
        }
        end()
        context.fireChannelInactive()
    }

    /// Trouble of the socket once we are leaving is no news.
    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch state {
        case .closing, .lingering, .closed: break
        case .waiting, .handshaking, .open: context.fireErrorCaught(error)
        }
    }

    private func start(_ context: ChannelHandlerContext) {
        guard state == .waiting else { return }
        do throws(TLSError) {
            session = try tls.makeSession(isServer: role == .server, serverName: serverName)
        } catch {
            fail(context, error)
            return
        }
        state = .handshaking
        setTimer(context, handshakeDeadline) { [self] context in
            fail(context, TLSError(.deadline, "TLS handshake not done within \(handshakeDeadline.nanoseconds / 1_000_000) ms"))
        }
        advance(context)
    }

    private func setTimer(_ context: ChannelHandlerContext, _ time: TimeAmount, _ body: @escaping (ChannelHandlerContext) -> Void) {
        timer?.cancel()
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: time) { body(context) }
    }

    /// Lets go of everything. The promises of what was never sent fail.
    private func end() {
        state = .closed
        timer?.cancel()
        timer = nil
        session = nil
        dropUnsent(ChannelError.ioOnClosedChannel)
        let promise = closePromise
        closePromise = nil
        promise?.succeed(())
    }

    private func dropUnsent(_ error: any Error) {
        unsent.clear()
        let promise = unsentPromise
        unsentPromise = nil
        promise?.fail(error)
    }

    // MARK: Reading

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        while let chunk = bytes.readSlice(length: min(bytes.readableBytes, Limits.tlsFeedBytes)), chunk.readableBytes > 0 {
            guard let session else { return }
            switch state {
            case .waiting, .lingering, .closed: return
            case .handshaking, .open, .closing:
                chunk.withUnsafeReadableBytes { session.feed($0) { advance(context) } }
            }
        }
    }

    /// Does what the bytes received so far allow.
    private func advance(_ context: ChannelHandlerContext) {
        guard let session else { return }
        if state == .handshaking {
            let result = session.handshake()
            takeOutput(context, session)
            context.flush()
            switch result {
            case .incomplete: return
            case .ended: return fail(context, TLSError(.closedEarly, "\(peer) closed the connection during the TLS handshake"))
            case .failed(let queue): return fail(context, explain(queue, session))
            case .complete:
                timer?.cancel()
                state = .open
                context.fireUserInboundEventTriggered(TLSHandshakeDone(identity: session.peerIdentity))
                if isFlushWanted { flush(context: context) }
            }
        }
        readPlaintext(context, session)
    }

    private func readPlaintext(_ context: ChannelHandlerContext, _ session: TLSSession) {
        guard state == .open || state == .closing else { return }
        var plaintext = context.channel.allocator.buffer(capacity: Limits.tlsRecordBytes)
        var end: TLSResult<Int>?
        repeat {
            plaintext.writeWithUnsafeMutableBytes(minimumWritableBytes: 1024) { writable in
                let result = session.read(into: writable)
                guard case .complete(let count) = result else {
                    end = result
                    return 0
                }
                return count
            }
        } while end == nil
        let hasOutput = takeOutput(context, session)
        if hasOutput { context.flush() }
        if plaintext.readableBytes > 0 {
            receivedSinceReset += plaintext.readableBytes
            context.fireChannelRead(wrapInboundOut(plaintext))
        }
        if session.postHandshakeMessages > Limits.tlsPostHandshakeMessagesMax {
            return fail(context, TLSError(.flood, "\(peer) sends too many TLS handshake messages"))
        }
        if receivedSinceReset >= 1 << 20 {
            receivedSinceReset = 0
            session.resetPostHandshakeMessages()
        }
        // Whoever was handed the plaintext may have closed meanwhile.
        guard state == .open || state == .closing else { return }
        switch end {
        case .failed(let queue): fail(context, explain(queue, session))
        case .ended: close(context: context, mode: .all, promise: nil)
        // What held up a write may have come.
        case .incomplete, .complete, nil: if isFlushWanted { flush(context: context) }
        }
    }

    private func explain(_ queue: ErrorQueue, _ session: TLSSession) -> TLSError {
        session.explain(queue, isServer: role == .server, peer: peer, serverName: serverName)
    }

    // MARK: Writing

    package func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch state {
        case .waiting, .handshaking, .open:
            var bytes = unwrapOutboundIn(data)
            if unsent.readableBytes == 0 { unsent.clear() }
            unsent.writeBuffer(&bytes)
            guard let promise else { return }
            if let unsentPromise { unsentPromise.futureResult.cascade(to: promise) } else { unsentPromise = promise }
        case .closing, .lingering, .closed: promise?.fail(ChannelError.outputClosed)
        }
    }

    package func flush(context: ChannelHandlerContext) {
        isFlushWanted = true
        guard state == .open, let session else { return }
        isFlushWanted = false
        encryptUnsent(context, session)
        context.flush()
    }

    /// Encrypts everything unsent; the channel is not flushed.
    private func encryptUnsent(_ context: ChannelHandlerContext, _ session: TLSSession) {
        var recordsUntilTaken = 4
        while unsent.readableBytes > 0 {
            session.renewKey(after: recordsPerKey)
            let result = unsent.withUnsafeReadableBytes {
                session.write(UnsafeRawBufferPointer(rebasing: $0.prefix(Limits.tlsRecordBytes)))
            }
            switch result {
            case .complete(let count): unsent.moveReaderIndex(forwardBy: count)
            // Behind the handshake it happens amid a message that the peer has torn over records; the rest of it moves this on.
            case .incomplete:
                isFlushWanted = true
                return
            case .ended: return fail(context, TLSError(.closedEarly, "\(peer) closed the connection"))
            case .failed(let queue): return fail(context, explain(queue, session))
            }
            recordsUntilTaken -= 1
            if recordsUntilTaken == 0 {
                recordsUntilTaken = 4
                if unsent.readableBytes > 0 { takeOutput(context, session) }
            }
        }
        let promise = unsentPromise
        unsentPromise = nil
        takeOutput(context, session, promise: promise)
    }

    /// Passes libssl's output on, unflushed.
    @discardableResult
    private func takeOutput(_ context: ChannelHandlerContext, _ session: TLSSession, promise: EventLoopPromise<Void>? = nil) -> Bool {
        let count = session.outputBytes
        guard count > 0 else {
            promise?.succeed(())
            return false
        }
        var bytes = context.channel.allocator.buffer(capacity: count)
        bytes.writeWithUnsafeMutableBytes(minimumWritableBytes: count) {
            session.takeOutput(into: UnsafeMutableRawBufferPointer(rebasing: $0.prefix(count)))
        }
        context.write(wrapOutboundOut(bytes), promise: promise)
        return true
    }

    // MARK: Ending

    package func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        switch (mode, state) {
        case (.input, _): context.close(mode: .input, promise: promise)
        case (.output, .open), (.all, .open):
            if let session {
                encryptUnsent(context, session)
                // Encrypting may have failed and changed the state.
                guard state == .open else {
                    keep(promise)
                    return
                }
                session.sendCloseNotify()
                takeOutput(context, session)
            }
            state = .closing
            keep(promise)
            closeOutput(context)
        case (_, .closing), (_, .lingering): keep(promise)
        case (_, .waiting), (_, .handshaking), (_, .closed):
            state = .closed
            context.close(mode: .all, promise: promise)
        }
    }

    /// A promise to close is kept when the channel is closed.
    private func keep(_ promise: EventLoopPromise<Void>?) {
        guard let promise else { return }
        if let closePromise { closePromise.futureResult.cascade(to: promise) } else { closePromise = promise }
    }

    private func fail(_ context: ChannelHandlerContext, _ error: TLSError) {
        switch state {
        case .lingering, .closed: return
        case .waiting, .handshaking, .open, .closing: state = .lingering
        }
        if let session { takeOutput(context, session) }
        session = nil
        dropUnsent(error)
        context.fireErrorCaught(error)
        closeOutput(context)
    }

    /// Sends what is queued, then the end of our direction; the peer's end, or the time, closes the rest.
    private func closeOutput(_ context: ChannelHandlerContext) {
        context.flush()
        let isOutputClosed = context.eventLoop.makePromise(of: Void.self)
        isOutputClosed.futureResult.assumeIsolated().whenFailure { _ in context.close(promise: nil) }
        context.close(mode: .output, promise: isOutputClosed)
        setTimer(context, linger) { context in context.close(promise: nil) }
    }
}
