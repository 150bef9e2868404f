internal import CalibModel
package import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket
import Synchronization

/// Plain HTTP for a scraper and a probe on the same machine: `/metrics`, `/-/healthy`, `/-/ready`.
package enum Endpoints {
    package struct Response: Sendable {
        package var status: Int
        package var contentType: String
        package var body: [UInt8]
        /// Sent as `Retry-After` when there is one.
        package var retryAfterSeconds: Int64?

        package init(status: Int = 200, contentType: String = "text/plain; charset=utf-8", body: [UInt8]) {
            self.status = status
            self.contentType = contentType
            self.body = body
        }

        package init(status: Int = 200, text: String) { self.init(status: status, body: Array("\(text)\n".utf8)) }
    }

    /// Answers GET and HEAD; other methods get 405. `respond` is given the path without its query and the Accept header (empty when absent),
    /// on the connection's event loop; its future may come from another one. Nil is 404, a failed future 500.
    ///
    /// At `Limits.endpointConnectionsMax` connections a new one is closed at once.
    package static func bind(
        host: String = "127.0.0.1", port: Int, on group: any EventLoopGroup,
        respond: @escaping @Sendable (_ path: String, _ accept: String) -> EventLoopFuture<Response?>
    ) -> EventLoopFuture<any Channel> {
        listen(host: host, port: port, on: group, connectionsMax: Limits.endpointConnectionsMax) { channel in
            let pipeline = channel.pipeline.syncOperations
            try pipeline.addHandler(IdleStateHandler(allTimeout: .nanoseconds(Limits.idleNanoseconds)))
            try pipeline.configureHTTPServerPipeline(withEncoderConfiguration: .init(), withDecoderLimitConfiguration: .ours)
            try pipeline.addHandler(EndpointHandler { target, accept in respond(path(of: target), accept) })
        }
    }

    /// A target without its query.
    static func path(of target: String) -> String { String(target.prefix { $0 != "?" && $0 != "#" }) }

    /// `initialize` sets up a connection's handlers, on its event loop. One connection more than `connectionsMax` is closed at once.
    static func listen(
        host: String, port: Int, on group: any EventLoopGroup, connectionsMax: Int,
        initialize: @escaping @Sendable (any Channel) throws -> Void
    ) -> EventLoopFuture<any Channel> {
        let connections = ConnectionCount()
        return ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Limits.acceptBacklog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard connections.enter(max: connectionsMax) else {
                        throw NetworkError(.refused, channel.remoteAddress.map { "\($0)" } ?? "?", "too many connections")
                    }
                    channel.closeFuture.whenComplete { _ in connections.leave() }
                    try initialize(channel)
                }
            }
            .bind(host: host, port: port)
    }
}

/// Connections of one listener, which live on several event loops.
private final class ConnectionCount: Sendable {
    private let count = Atomic(0)

    /// False at the bound; then nothing was counted.
    func enter(max: Int) -> Bool {
        guard count.add(1, ordering: .relaxed).newValue <= max else {
            leave()
            return false
        }
        return true
    }

    func leave() { count.subtract(1, ordering: .relaxed) }
}

/// Answers the GET and HEAD requests of one connection, one after the other.
final class EndpointHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let respond: @Sendable (_ target: String, _ accept: String) -> EventLoopFuture<Endpoints.Response?>
    private var head: HTTPRequestHead?
    private var bodyBytes = 0

    init(respond: @escaping @Sendable (_ target: String, _ accept: String) -> EventLoopFuture<Endpoints.Response?>) {
        self.respond = respond
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            bodyBytes = 0
        case .body(let bytes):
            bodyBytes += bytes.readableBytes
            // It cannot be answered before its end, and the end is not worth waiting for.
            if bodyBytes > Limits.endpointBodyBytesMax { context.close(promise: nil) }
        case .end:
            guard let head = head.take() else { return }
            answer(head, context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) } else { context.fireUserInboundEventTriggered(event) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A websocket that is not to be had here is an ordinary request and gets its answer.
        if !(error is NIOWebSocketUpgradeError) { context.close(promise: nil) }
    }

    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard head.method == .GET || head.method == .HEAD else {
            write(.init(status: 405, text: "405 only GET and HEAD"), to: head, context)
            return
        }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        respond(head.uri, head.headers["Accept"].joined(separator: ",")).hop(to: context.eventLoop).whenComplete { result in
            let (handler, context) = bound.value
            switch result {
            case .success(let response?): handler.write(response, to: head, context)
            case .success(nil): handler.write(.init(status: 404, text: "404 no such path"), to: head, context)
            case .failure: handler.write(.init(status: 500, text: "500 internal error"), to: head, context)
            }
        }
    }

    private func write(_ response: Endpoints.Response, to request: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard context.channel.isActive else { return }
        var head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: response.status))
        head.headers.add(name: "Content-Type", value: response.contentType)
        head.headers.add(name: "X-Content-Type-Options", value: "nosniff")
        head.headers.add(name: "Cache-Control", value: "no-store")
        if let seconds = response.retryAfterSeconds { head.headers.add(name: "Retry-After", value: "\(seconds)") }
        if response.status == 405 { head.headers.add(name: "Allow", value: "GET, HEAD") }
        var body = response.body
        if body.count >= Limits.compressedBodyBytesMin {
            head.headers.add(name: "Vary", value: "Accept, Accept-Encoding")
            if Gzip.isAccepted(request.headers["Accept-Encoding"].joined(separator: ",")), let compressed = Gzip.compress(body) {
                body = compressed
                head.headers.add(name: "Content-Encoding", value: "gzip")
            }
        }
        head.headers.add(name: "Content-Length", value: String(body.count))
        if !request.isKeepAlive { head.headers.add(name: "Connection", value: "close") }
        // The end is written once the socket has taken the rest. Until then the pipeline holds back further requests, and the reading of
        // them: a client that asks without reading costs one answer, not all it has asked for.
        let taken = context.eventLoop.makePromise(of: Void.self)
        taken.futureResult.assumeIsolated().whenComplete { [self] result in
            guard case .success = result else { return context.close(promise: nil) }
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            if !request.isKeepAlive { context.close(promise: nil) }
        }
        if request.method != .HEAD, !body.isEmpty {
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: taken)
        } else {
            context.writeAndFlush(wrapOutboundOut(.head(head)), promise: taken)
        }
    }
}
