internal import CalibModel
package import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket

/// A plain HTTP/1.1 server on which some paths are websockets: what a venue looks like on loopback.
package enum WebSocketServer {
    /// An upgrade on a path that `isWebSocket` becomes a websocket of the delegate `makeDelegate` gives, on the connection's event loop; every
    /// other request goes to `respond` with its target, query included, where nil is 404.
    ///
    /// A client's message may have `Limits.clientMessageBytesMax` bytes. A connection that is no websocket may be silent for
    /// `Limits.idleNanoseconds`.
    package static func bind(
        host: String, port: Int, on group: any EventLoopGroup, connectionsMax: Int,
        isWebSocket: @escaping @Sendable (_ path: String) -> Bool,
        makeDelegate: @escaping @Sendable (_ path: String, _ eventLoop: any EventLoop) -> any WebSocketDelegate,
        respond: @escaping @Sendable (_ target: String, _ eventLoop: any EventLoop) -> EventLoopFuture<Endpoints.Response?>
    ) -> EventLoopFuture<any Channel> {
        Endpoints.listen(host: host, port: port, on: group, connectionsMax: connectionsMax) { channel in
            let pipeline = channel.pipeline.syncOperations
            let eventLoop = channel.eventLoop
            let handler = EndpointHandler { target, _ in respond(target, eventLoop) }
            let idle = IdleStateHandler(allTimeout: .nanoseconds(Limits.idleNanoseconds))
            let bound = NIOLoopBound((handler, idle), eventLoop: eventLoop)
            let upgrader = NIOWebSocketServerUpgrader(
                maxFrameSize: Limits.clientMessageBytesMax, automaticErrorHandling: false,
                shouldUpgrade: { channel, head in
                    channel.eventLoop.makeSucceededFuture(isWebSocket(Endpoints.path(of: head.uri)) ? HTTPHeaders() : nil)
                },
                upgradePipelineHandler: { channel, head in
                    channel.eventLoop.makeCompletedFuture {
                        let socket = WebSocket(channel: channel, peer: channel.remoteAddress.map { "\($0)" } ?? "?", isServer: true)
                        try channel.pipeline.syncOperations.addHandler(
                            WebSocketMessages(
                                socket: socket, messageBytesMax: Limits.clientMessageBytesMax,
                                delegate: makeDelegate(Endpoints.path(of: head.uri), channel.eventLoop)))
                    }
                })
            try pipeline.addHandler(idle)
            try pipeline.configureHTTPServerPipeline(
                withServerUpgrade: (
                    upgraders: [upgrader],
                    completionHandler: { context in
                        let (handler, idle) = bound.value
                        context.pipeline.syncOperations.removeHandler(handler, promise: nil)
                        context.pipeline.syncOperations.removeHandler(idle, promise: nil)
                    }
                ), withEncoderConfiguration: .init(), withDecoderLimitConfiguration: .ours)
            try pipeline.addHandler(handler)
        }
    }
}
