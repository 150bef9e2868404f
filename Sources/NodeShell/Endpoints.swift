internal import CalibModel
package import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Plain HTTP for a scraper and a probe on the same machine: `/metrics`, `/-/healthy`, `/-/ready`.
package enum Endpoints {
    package struct Response: Sendable {
        package var status: Int
        package var contentType: String
        package var body: [UInt8]

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
        let connections = ConnectionCount()
        return ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 64)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard connections.enter(max: Limits.endpointConnectionsMax) else {
                        throw NetworkError(.refused, "\(channel.remoteAddress?.description ?? "?")", "too many connections")
                    }
                    channel.closeFuture.whenComplete { _ in connections.leave() }
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(IdleStateHandler(allTimeout: .nanoseconds(Limits.idleNanoseconds)))
                    try pipeline.configureHTTPServerPipeline(decoderLimits: .ours)
                    try pipeline.addHandler(EndpointHandler(respond: respond))
                }
            }
            .bind(host: host, port: port)
    }
}

extension ChannelPipeline.SynchronousOperations {
    /// HTTP/1.1 as a server: one request at a time, malformed ones answered with 400.
    func configureHTTPServerPipeline(decoderLimits: NIOHTTPDecoderLimitConfiguration) throws {
        try addHandler(HTTPResponseEncoder())
        try addHandler(ByteToMessageHandler(HTTPRequestDecoder(limitConfiguration: decoderLimits)))
        try addHandler(HTTPServerPipelineHandler())
        try addHandler(HTTPServerProtocolErrorHandler())
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

private final class EndpointHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let respond: @Sendable (_ path: String, _ accept: String) -> EventLoopFuture<Endpoints.Response?>
    private var head: HTTPRequestHead?
    private var bodyBytes = 0

    init(respond: @escaping @Sendable (_ path: String, _ accept: String) -> EventLoopFuture<Endpoints.Response?>) { self.respond = respond }

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

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard head.method == .GET || head.method == .HEAD else {
            write(.init(status: 405, text: "405 only GET and HEAD"), to: head, context)
            return
        }
        let path = String(head.uri.prefix { $0 != "?" && $0 != "#" })
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        respond(path, head.headers["Accept"].joined(separator: ",")).hop(to: context.eventLoop).whenComplete { result in
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
        head.headers.add(name: "Content-Length", value: String(response.body.count))
        head.headers.add(name: "X-Content-Type-Options", value: "nosniff")
        head.headers.add(name: "Cache-Control", value: "no-store")
        if response.status == 405 { head.headers.add(name: "Allow", value: "GET, HEAD") }
        if !request.isKeepAlive { head.headers.add(name: "Connection", value: "close") }
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if request.method != .HEAD, !response.body.isEmpty {
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: response.body)))), promise: nil)
        }
        let written = context.eventLoop.makePromise(of: Void.self)
        if !request.isKeepAlive {
            let channel = context.channel
            written.futureResult.whenComplete { _ in channel.close(promise: nil) }
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
    }
}
