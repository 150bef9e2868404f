internal import CalibModel
import Glibc
package import Logging
package import NIOCore
import NIOPosix
import Synchronization

/// The hub's end of the links: accepts, refuses and hands over.
///
/// A connection has `LinkDeadlines.hello` for TLS and its first message, which must be a hello, and may be silent for `LinkDeadlines.idle`
/// afterwards. At most `Limits.strangersMax` connections may be without a hello; one more is closed at once. Each refusal before `opened` is one
/// line in the log.
package enum LineServer {
    /// `makeDelegate` is called on a connection's event loop when its TLS handshake is done. Closing the channel stops accepting; links live on.
    package static func bind(
        host: String, port: Int, context: TLSContext, on group: any EventLoopGroup, logger: Logger,
        deadlines: LinkDeadlines = LinkDeadlines(), outboundBytesMax: Int = Limits.linkOutboundBytesMax,
        makeDelegate: @escaping @Sendable (any EventLoop) -> any LineLinkDelegate
    ) -> EventLoopFuture<any Channel> {
        let strangers = Strangers()
        return ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: Limits.acceptBacklog)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socket(.init(IPPROTO_TCP), .init(TCP_USER_TIMEOUT)), value: userTimeoutMilliseconds(deadlines))
            // A channel keeps as many buffers of 64 KiB as it may read at a time: one, for there may be a thousand of them.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(
                .writeBufferWaterMark, value: .init(low: Limits.linkOutboundBytesLow, high: Limits.linkOutboundBytesHigh)
            )
            .childChannelInitializer { channel in
                let address = channel.remoteAddress.map(text(of:)) ?? "unknown"
                guard strangers.enter() else {
                    logger.warning("refused \(address): \(Limits.strangersMax) connections have not said hello yet")
                    return channel.close()
                }
                return channel.eventLoop.makeCompletedFuture {
                    let tls = TLSHandler(context: context, role: .server, handshakeDeadline: deadlines.hello, linger: deadlines.linger)
                    try channel.pipeline.syncOperations.addHandler(tls)
                    let rules = LineLinkHandler.Rules(
                        deadlines: deadlines, expectsHello: true, peer: "client", outboundBytesMax: outboundBytesMax)
                    try channel.pipeline.syncOperations.addHandler(
                        LineLinkHandler(
                            rules: rules, tls: tls, makeDelegate: makeDelegate,
                            outcome: { result in
                                guard case .failure(let refusal) = result else { return }
                                logger.warning("refused \(address): \(refusal.reason)")
                            }, acquainted: { strangers.leave() }))
                }
            }
            .bind(host: host, port: port)
    }
}

/// How many connections have not said hello yet, over all event loops.
private final class Strangers: Sendable {
    private let count = Atomic<Int>(0)

    func enter() -> Bool {
        if count.wrappingAdd(1, ordering: .relaxed).newValue <= Limits.strangersMax { return true }
        leave()
        return false
    }

    func leave() { count.wrappingSubtract(1, ordering: .relaxed) }
}
