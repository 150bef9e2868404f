internal import CalibModel
package import NIOCore
package import Wire

/// What happens on a link. Called on the link's event loop, in this order: `opened`, then any of the others, then `closed` once and last.
///
/// A link is made by `LineServer.bind` or `LineClient.connect`, and `opened` means: TLS is done and the peer's certificate is good. On a
/// client it does not mean that the hub agrees: the hub's refusal arrives as `closed`, and its consent as the message `welcome`.
/// Answer from within any call with `link.send` and, at the end of what you have to say, `link.flush`.
package protocol LineLinkDelegate: AnyObject {
    func opened(_ link: LineLink)
    /// A whole message with its payload.
    func received(_ frame: LineFraming.Frame, on link: LineLink)
    /// A message of a type this version does not know. It was answered, the link goes on (SPEC 8.3).
    func rejected(_ error: WireError, on link: LineLink)
    /// Writable again after `isWritable` was false.
    func drained(_ link: LineLink)
    /// `reason` is one line for a log. Frames not handed over because reading was off are gone.
    func closed(_ link: LineLink, reason: String)
}

/// How long a peer may take. From `Limits`; tests shorten them.
package struct LinkDeadlines: Sendable {
    /// TLS handshake, and from the connection's beginning to the first message.
    package var hello: TimeAmount = .nanoseconds(Limits.helloNanoseconds)
    /// Between two whole messages. A payload that drips in does not count until it is complete.
    package var idle: TimeAmount = .nanoseconds(Limits.idleNanoseconds)
    /// For the last bytes of a closed link.
    package var linger: TimeAmount = .nanoseconds(Limits.lingerNanoseconds)
    package init() {}
}

/// One open connection that carries messages (SPEC 8.1).
///
/// `@unchecked Sendable` so that it may be kept across threads, but every member that changes or reads its state must be called on
/// `eventLoop`; it traps elsewhere.
package final class LineLink: @unchecked Sendable {
    /// Of the peer's certificate.
    package let identity: PeerIdentity?
    /// `127.0.0.1:51234`
    package let remoteAddress: String
    package let eventLoop: any EventLoop

    // All below: on `eventLoop` only.
    private var context: ChannelHandlerContext?
    private weak var tls: TLSHandler?
    private let outboundBytesMax: Int
    /// At least the bytes queued; corrected by `pendingOutboundBytes` when it reaches the bound.
    private var outboundEstimate = 0
    private var isClosing = false
    fileprivate private(set) var isReading = true
    /// Why it is being closed, when that is known before it is.
    fileprivate var closeReason: String?
    /// Set before `closed` when TLS broke: in TLS 1.3 that is also how a client learns that its certificate was refused.
    package fileprivate(set) var tlsFailure: TLSError.Kind?
    fileprivate var onReading: ((Bool) -> Void)?

    fileprivate init(
        context: ChannelHandlerContext, tls: TLSHandler?, identity: PeerIdentity?, remoteAddress: String, outboundBytesMax: Int
    ) {
        self.context = context
        self.tls = tls
        self.identity = identity
        self.remoteAddress = remoteAddress
        self.outboundBytesMax = outboundBytesMax
        eventLoop = context.eventLoop
    }

    /// False once `close` was called or the connection is gone: nothing is received any more and what is sent is dropped.
    package var isOpen: Bool {
        eventLoop.preconditionInEventLoop()
        return context != nil && !isClosing
    }

    /// Queues a message; `payload` has `message.payloadBytes` bytes. It leaves with the next `flush`. A link whose queue exceeds
    /// `Limits.linkOutboundBytesMax` is closed: its peer does not read.
    package func send(_ message: Message, payload: [UInt8] = []) {
        precondition(
            payload.count == message.payloadBytes, "BUG: \(message.type) announces \(message.payloadBytes) bytes and has \(payload.count)")
        guard isOpen, let context else { return }
        write(message, payload, to: context)
        guard outboundEstimate > outboundBytesMax else { return }
        outboundEstimate = pendingOutboundBytes
        guard outboundEstimate > outboundBytesMax else { return }
        close(code: "slow_reader", text: "more than \(outboundBytesMax) bytes wait for a peer that does not read them")
    }

    private func write(_ message: Message, _ payload: [UInt8], to context: ChannelHandlerContext) {
        let line = message.line
        var buffer = context.channel.allocator.buffer(capacity: line.count + payload.count)
        buffer.writeBytes(line)
        buffer.writeBytes(payload)
        outboundEstimate += buffer.readableBytes
        context.write(NIOAny(buffer), promise: nil)
    }

    package func flush() {
        guard isOpen else { return }
        context?.flush()
    }

    /// Tells the peer why, flushes and closes. `closed` follows within `LinkDeadlines.linger`, with `text` as its reason.
    package func close(code: String, text: String) {
        guard isOpen, let context else { return }
        write(.error(code: code, text: text), [], to: context)
        finish(reason: text)
    }

    /// Says goodbye, once everything sent is on its way. `closed` follows.
    package func close() {
        guard isOpen else { return }
        finish(reason: "closed")
    }

    private func finish(reason: String) {
        isClosing = true
        closeReason = closeReason ?? reason
        context?.flush()
        // A paused link would not see the peer's end, and wait in vain for it.
        try? context?.channel.syncOptions?.setOption(.autoRead, value: true)
        context?.close(promise: nil)
    }

    /// Bytes sent that the socket has not taken yet.
    package var pendingOutboundBytes: Int {
        eventLoop.preconditionInEventLoop()
        guard let context else { return 0 }
        let queued = try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)
        return (queued ?? 0) + (tls?.unsentBytes ?? 0)
    }

    /// False while more than `Limits.linkOutboundBytesHigh` bytes wait; `drained` says when it is true again.
    package var isWritable: Bool {
        eventLoop.preconditionInEventLoop()
        return context?.channel.isWritable ?? false
    }

    /// Off: no frame is handed over and the peer is slowed down. The idle deadline rests meanwhile.
    package func setReading(_ isOn: Bool) {
        eventLoop.preconditionInEventLoop()
        guard let context, isReading != isOn else { return }
        isReading = isOn
        try? context.channel.syncOptions?.setOption(.autoRead, value: isOn)
        onReading?(isOn)
    }

    fileprivate func detach() {
        context = nil
        isClosing = true
        onReading = nil
    }
}

/// The channel's last handler: bytes to frames, deadlines, and the delegate's calls.
final class LineLinkHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// What the two ends do differently.
    struct Rules {
        var deadlines = LinkDeadlines()
        /// The first message must be a hello.
        var expectsHello: Bool
        /// "client" or "hub": the other end.
        var peer: String
        var outboundBytesMax = Limits.linkOutboundBytesMax
    }

    private let rules: Rules
    private let tls: TLSHandler
    private let makeDelegate: (any EventLoop) -> any LineLinkDelegate
    /// Called once: the link when it opens, or why it never did.
    private var outcome: ((Result<LineLink, LinkRefused>) -> Void)?
    /// Called once, when the first message is in or never will be.
    private var acquainted: (() -> Void)?

    private var delegate: (any LineLinkDelegate)?
    private var link: LineLink?
    private var framing = LineFraming()
    private var isBroken = false
    private var isHandingOver = false
    private var lastMessage: NIODeadline = .now()
    private var timer: Scheduled<Void>?
    /// The peer's own words, if they were its last.
    private var peerError: String?
    private var failure: String?
    private var address = "unknown"
    private var isBegun = false

    init(
        rules: Rules, tls: TLSHandler, makeDelegate: @escaping (any EventLoop) -> any LineLinkDelegate,
        outcome: @escaping (Result<LineLink, LinkRefused>) -> Void, acquainted: (() -> Void)? = nil
    ) {
        self.rules = rules
        self.tls = tls
        self.makeDelegate = makeDelegate
        self.outcome = outcome
        self.acquainted = acquainted
    }

    // MARK: Life

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { begin(context) }
    }

    func channelActive(context: ChannelHandlerContext) { begin(context) }

    private func begin(_ context: ChannelHandlerContext) {
        address = context.channel.remoteAddress.map(text(of:)) ?? address
        isBegun = true
        guard rules.expectsHello, timer == nil else { return }
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: rules.deadlines.hello) { [self] in
            let text = "no hello within \(milliseconds(rules.deadlines.hello)) ms"
            if let link { link.close(code: "deadline", text: text) } else { failed(text, context) }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let done = event as? TLSHandshakeDone, link == nil, failure == nil else { return }
        let link = LineLink(
            context: context, tls: tls, identity: done.identity, remoteAddress: address, outboundBytesMax: rules.outboundBytesMax)
        link.onReading = { [unowned self] in readingChanged(to: $0, context) }
        self.link = link
        let delegate = makeDelegate(context.eventLoop)
        self.delegate = delegate
        lastMessage = .now()
        if !rules.expectsHello { watchIdle(context) }
        // What the delegate sends may find the connection broken, which then ends while `opened` runs: an opened link is closed, not refused, too.
        let outcome = outcome
        self.outcome = nil
        delegate.opened(link)
        outcome?(.success(link))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        // The TLS handler has begun to close, and channelInactive follows.
        case let error as TLSError:
            failure = failure ?? error.message
            link?.tlsFailure = error.kind
            if link == nil { report(.failure(LinkRefused(address: address, reason: error.message))) }
        default: failed(link == nil ? "connection failed: \(error)" : "connection lost: \(error)", context)
        }
    }

    private func failed(_ reason: String, _ context: ChannelHandlerContext) {
        failure = failure ?? reason
        if link == nil { report(.failure(LinkRefused(address: address, reason: reason))) }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { end() }

    private func end() {
        timer?.cancel()
        timer = nil
        leaveStrangers()
        let reason = link?.closeReason ?? failure ?? peerError ?? "\(rules.peer) closed the connection"
        if let link, let delegate {
            self.delegate = nil
            link.detach()
            delegate.closed(link, reason: reason)
        }
        // A connection that never was is reported by whoever tried to make it.
        if isBegun { report(.failure(LinkRefused(address: address, reason: reason))) }
        outcome = nil
    }

    private func report(_ result: Result<LineLink, LinkRefused>) {
        let outcome = outcome
        self.outcome = nil
        outcome?(result)
    }

    private func leaveStrangers() {
        let acquainted = acquainted
        self.acquainted = nil
        acquainted?()
    }

    // MARK: Frames

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let link, link.isOpen, !isBroken else { return }
        unwrapInboundIn(data).withUnsafeReadableBytes { framing.append($0) }
        handOver(link, context)
    }

    /// Hands over what is complete, as long as the delegate wants it.
    private func handOver(_ link: LineLink, _ context: ChannelHandlerContext) {
        // A delegate that switches reading on from within `received` is inside this loop already.
        guard !isHandingOver, let delegate else { return }
        isHandingOver = true
        defer { isHandingOver = false }
        while link.isOpen, link.isReading, !isBroken {
            do throws(WireError) {
                guard let frame = try framing.next() else { return }
                guard accept(frame, link, context) else { return }
                delegate.received(frame, on: link)
            } catch {
                link.send(.error(code: "\(error.code)", text: error.sentence))
                guard case .unknownType = error else {
                    isBroken = true
                    link.closeReason = "\(rules.peer) sent bytes that are no message: \(escaped(error.sentence))"
                    link.close()
                    return
                }
                link.flush()
                lastMessage = .now()
                delegate.rejected(error, on: link)
            }
        }
    }

    /// Keeps the clock and the rules of the first message.
    private func accept(_ frame: LineFraming.Frame, _ link: LineLink, _ context: ChannelHandlerContext) -> Bool {
        lastMessage = .now()
        if case .error(let code, let text) = frame.message {
            peerError = "\(rules.peer) closed: \(escaped(text)) (\(escaped(code)))"
        } else {
            peerError = nil
        }
        guard rules.expectsHello, acquainted != nil else { return true }
        guard case .hello = frame.message else {
            link.close(code: "hello_expected", text: "the first message must be hello, not \(frame.message.type)")
            return false
        }
        timer?.cancel()
        leaveStrangers()
        watchIdle(context)
        return true
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable, let link, link.isOpen { delegate?.drained(link) }
        context.fireChannelWritabilityChanged()
    }

    // MARK: Silence

    private func watchIdle(_ context: ChannelHandlerContext) {
        timer = context.eventLoop.assumeIsolated().scheduleTask(deadline: lastMessage + rules.deadlines.idle) { [self] in
            guard let link, link.isOpen else { return }
            if !link.isReading { lastMessage = .now() }
            guard .now() >= lastMessage + rules.deadlines.idle else { return watchIdle(context) }
            link.close(code: "idle", text: "no message for \(milliseconds(rules.deadlines.idle)) ms")
        }
    }

    private func readingChanged(to isOn: Bool, _ context: ChannelHandlerContext) {
        guard isOn else { return }
        lastMessage = .now()
        // From the loop's next turn: the delegate is in the middle of its own work.
        context.eventLoop.assumeIsolated().execute { [self] in
            if let link { handOver(link, context) }
        }
    }
}

/// Why a connection never became a link.
package struct LinkRefused: Error, Sendable, Equatable, CustomStringConvertible {
    /// The peer's address.
    package var address: String
    /// One line for a log.
    package var reason: String
    package var description: String { reason }
}

private func milliseconds(_ time: TimeAmount) -> Int64 { time.nanoseconds / 1_000_000 }

/// `127.0.0.1:51234`, `[::1]:51234`
func text(of address: SocketAddress) -> String {
    guard let host = address.ipAddress, let port = address.port else { return "\(address)" }
    return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
}
