internal import NIOCore
import NIOHTTP1
import NIOWebSocket

/// A connection that failed: what was attempted, with whom, and why.
package struct NetworkError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Code: String, Sendable {
        /// No connection: name, address, route, or refused.
        case unreachable
        case timedOut
        /// The peer answered, and the answer is no.
        case refused
        /// The peer does not speak the protocol, or broke it.
        case violation
        case tooLarge
        /// The connection ended before its work was done.
        case closed
        /// TLS: certificate, name, protocol.
        case insecure
    }

    package var code: Code
    /// `host:port/path` of the peer.
    package var peer: String
    /// One sentence without the peer.
    package var message: String

    package init(_ code: Code, _ peer: String, _ message: String) {
        self.code = code
        self.peer = peer
        self.message = message
    }

    package var description: String { "\(peer): \(message)" }
}

extension NetworkError {
    /// What an error of the network stack means to a reader.
    package init(_ error: any Error, peer: String) {
        switch error {
        case let error as NetworkError: self = error
        case let error as TLSError: self.init(.insecure, peer, error.message)
        case let error as ChannelError:
            switch error {
            case .connectTimeout(let amount):
                self.init(.timedOut, peer, "no connection within \(amount.nanoseconds / 1_000_000) ms")
            case .eof, .inputClosed, .outputClosed, .ioOnClosedChannel, .alreadyClosed:
                self.init(.closed, peer, "the connection was closed")
            default: self.init(.unreachable, peer, "\(error)")
            }
        case let error as IOError: self.init(.unreachable, peer, error.description)
        case let error as HTTPParserError: self.init(.violation, peer, "the answer is not HTTP/1.1 (\(error))")
        case NIOWebSocketError.invalidFrameLength:
            self.init(.tooLarge, peer, "a websocket frame is longer than allowed")
        case let error as NIOWebSocketError: self.init(.violation, peer, "a malformed websocket frame (\(error))")
        default: self.init(.unreachable, peer, "\(error)")
        }
    }
}
