internal import CalibModel
package import NIOCore
import NIOHTTP1
import NIOPosix

package struct HTTPResponse: Sendable, Equatable {
    package var status: Int
    package var body: [UInt8]
    /// The header `Retry-After` in its form of seconds; nil without one.
    package var retryAfterSeconds: Int64?

    package init(status: Int, body: [UInt8], retryAfterSeconds: Int64? = nil) {
        self.status = status
        self.body = body
        self.retryAfterSeconds = retryAfterSeconds
    }
}

/// One GET request on a connection of its own, for the few answers a venue gives outside its stream.
package enum HTTPClient {
    /// Fails with a `NetworkError`: no connection within `connectDeadline`, no whole answer within `deadline`, a body above `Limits.httpBodyBytesMax`, or bytes that are
    /// no HTTP/1.1. Any status is an answer, not a failure. `serverName` is what TLS checks and defaults to the host.
    package static func get(
        host: String, port: Int, path: String, tls: TLSContext? = nil, serverName: String? = nil, on eventLoop: any EventLoop,
        connectDeadline: TimeAmount = .nanoseconds(Limits.connectNanoseconds),
        deadline: TimeAmount = .nanoseconds(Limits.httpExchangeNanoseconds)
    ) -> EventLoopFuture<HTTPResponse> {
        let peer = "\(host):\(port)\(path)"
        let promise = eventLoop.makePromise(of: HTTPResponse.self)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(connectDeadline)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(TLSHandler(context: tls, role: .client(serverName: serverName ?? host))) }
                    try pipeline.addHandler(HTTPRequestEncoder())
                    try pipeline.addHandler(ByteToMessageHandler(HTTPResponseDecoder(limitConfiguration: .ours)))
                    try pipeline.addHandler(
                        HTTPExchange(
                            request: .get(path, host: host, port: port, isSecure: tls != nil), peer: peer, deadline: deadline,
                            promise: promise))
                }
            }
            .connect(host: host, port: port)
            .whenFailure { promise.fail(NetworkError($0, peer: peer)) }
        return promise.futureResult
    }
}

extension HTTPRequestHead {
    /// A GET with the headers every request of ours has.
    static func get(_ path: String, host: String, port: Int, isSecure: Bool) -> HTTPRequestHead {
        var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: path)
        head.headers.add(name: "Host", value: port == (isSecure ? 443 : 80) ? host : "\(host):\(port)")
        head.headers.add(name: "User-Agent", value: "calibrant")
        return head
    }
}

extension NIOHTTPDecoderLimitConfiguration {
    /// What any peer of ours may send as one head.
    static var ours: NIOHTTPDecoderLimitConfiguration {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = Limits.httpHeadBytesMax
        limits.maxHeaderListSize = Limits.httpHeadBytesMax
        limits.maxHeaderFieldCount = Limits.httpHeadersMax
        return limits
    }
}

private final class HTTPExchange: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private var request: HTTPRequestHead
    private let peer: String
    private let promise: EventLoopPromise<HTTPResponse>
    private var status: Int?
    private var retryAfterSeconds: Int64?
    private var body = ByteBuffer()
    private let deadline: TimeAmount
    private var timer: Scheduled<Void>?
    private var isDone = false

    init(request: HTTPRequestHead, peer: String, deadline: TimeAmount, promise: EventLoopPromise<HTTPResponse>) {
        self.request = request
        self.peer = peer
        self.deadline = deadline
        self.promise = promise
        self.request.headers.add(name: "Accept", value: "application/json")
        self.request.headers.add(name: "Connection", value: "close")
    }

    func channelActive(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        timer = context.eventLoop.scheduleTask(in: deadline) {
            let (exchange, context) = bound.value
            exchange.fail(.timedOut, "no whole answer within \(exchange.deadline.nanoseconds / 1_000_000) ms", context)
        }
        context.write(wrapOutboundOut(.head(request)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isDone else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            status = Int(head.status.code)
            retryAfterSeconds = head.headers.first(name: "Retry-After").flatMap { Int64($0) }
        case .body(var bytes):
            guard body.readableBytes + bytes.readableBytes <= Limits.httpBodyBytesMax else {
                fail(.tooLarge, "the answer is longer than \(Limits.httpBodyBytesMax) bytes", context)
                return
            }
            body.writeBuffer(&bytes)
        case .end:
            guard let status else { return }
            let bytes = body.readBytes(length: body.readableBytes) ?? []
            finish(.success(HTTPResponse(status: status, body: bytes, retryAfterSeconds: retryAfterSeconds)), context)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(.closed, "the connection was closed before the answer was whole", context)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        finish(.failure(NetworkError(error, peer: peer)), context)
    }

    private func fail(_ code: NetworkError.Code, _ message: String, _ context: ChannelHandlerContext) {
        finish(.failure(NetworkError(code, peer, message)), context)
    }

    private func finish(_ result: Result<HTTPResponse, NetworkError>, _ context: ChannelHandlerContext) {
        guard !isDone else { return }
        isDone = true
        timer?.cancel()
        switch result {
        case .success(let response): promise.succeed(response)
        case .failure(let error): promise.fail(error)
        }
        context.close(promise: nil)
    }
}
