internal import CalibModel
import Glibc
package import NIOCore
import NIOPosix

/// A client's end of a link: an edge or an operator connects to its hub.
package enum LineClient {
    /// The link once TLS is done, after `delegate.opened`. It fails with a `LinkRefused` or an I/O error whose description is one line for a
    /// log; the delegate hears nothing then. The hub's own refusal comes later, as `closed`: in TLS 1.3 the client is done first.
    ///
    /// `serverName` is the name or address in the hub's certificate. The delegate is called on `eventLoop` only.
    package static func connect(
        host: String, port: Int, serverName: String, context: TLSContext, on eventLoop: any EventLoop, delegate: any LineLinkDelegate,
        deadlines: LinkDeadlines = LinkDeadlines(), outboundBytesMax: Int = Limits.linkOutboundBytesMax
    ) -> EventLoopFuture<LineLink> {
        let promise = eventLoop.makePromise(of: LineLink.self)
        let handed = Handed(delegate: delegate)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(deadlines.hello)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.socket(.init(IPPROTO_TCP), .init(TCP_USER_TIMEOUT)), value: userTimeoutMilliseconds(deadlines))
            .channelOption(.maxMessagesPerRead, value: 4)
            .channelOption(.writeBufferWaterMark, value: .init(low: Limits.linkOutboundBytesLow, high: Limits.linkOutboundBytesHigh))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let tls = TLSHandler(
                        context: context, role: .client(serverName: serverName), handshakeDeadline: deadlines.hello,
                        linger: deadlines.linger)
                    try channel.pipeline.syncOperations.addHandler(tls)
                    let rules = LineLinkHandler.Rules(
                        deadlines: deadlines, expectsHello: false, peer: "hub", outboundBytesMax: outboundBytesMax)
                    try channel.pipeline.syncOperations.addHandler(
                        LineLinkHandler(
                            rules: rules, tls: tls, makeDelegate: { _ in handed.delegate },
                            outcome: { promise.completeWith($0.mapError { $0 }) }))
                }
            }
            .connect(host: host, port: port)
            .whenFailure { error in
                promise.fail(LinkRefused(address: "\(host):\(port)", reason: "cannot connect to the hub at \(host):\(port): \(error)"))
            }
        return promise.futureResult
    }

    /// Carries the delegate to its event loop, where alone it is touched.
    private struct Handed: @unchecked Sendable {
        let delegate: any LineLinkDelegate
    }
}

/// Unacknowledged bytes end a connection after this long, also when the link itself is silent.
func userTimeoutMilliseconds(_ deadlines: LinkDeadlines) -> Int { Int(deadlines.idle.nanoseconds / 1_000_000) }
