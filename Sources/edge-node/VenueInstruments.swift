import CalibModel
import EdgeCore
import Logging
import NIOCore
import NIOPosix
import NodeShell

/// The instruments that no file says anything about: asked for at the venue at the start, and again every hour, because a venue changes ticks and
/// lots of what trades.
struct VenueInstruments {
    let venue: QuoteNode.Venue
    let symbols: [String]
    let origin: VenueConnection.RESTOrigin

    /// Waits for them. Throws when the venue does not answer or does not have one.
    func fetch() throws -> [Instrument] {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let found = try request(on: group.next()).wait()
        let missing = symbols.filter { symbol in !found.contains { $0.symbol == symbol } }
        guard missing.isEmpty else {
            throw NetworkError(
                .refused, "\(origin.host):\(origin.port)",
                "the venue lists no \(missing.joined(separator: ", ")); is venue.symbols right, or should the instruments file name them?")
        }
        return found
    }

    /// Calls `changed` with what is not as it was in `known`, on the event loop. The task goes on until it is cancelled.
    func watch(
        _ known: [Instrument], on eventLoop: any EventLoop, _ logger: Logger, changed: @escaping @Sendable ([String]) -> Void
    ) -> RepeatedTask {
        let delay = TimeAmount.nanoseconds(Limits.instrumentRefreshNanoseconds)
        return eventLoop.scheduleRepeatedAsyncTask(initialDelay: delay, delay: delay) { _ in
            request(on: eventLoop).map { found in
                let news = known.filter { instrument in !found.contains(instrument) }.map(\.symbol)
                if !news.isEmpty { changed(news) }
            }.flatMapErrorThrowing { error in
                logger.warning("The venue's instruments cannot be read; the next look is in an hour.", metadata: ["cause": "\(error)"])
            }
        }
    }

    private func request(on eventLoop: any EventLoop) -> EventLoopFuture<[Instrument]> {
        let peer = "\(origin.host):\(origin.port)"
        let (venue, symbols) = (venue, symbols)
        return HTTPClient.get(
            host: origin.host, port: origin.port, path: InstrumentList.path(of: venue, symbols: symbols), tls: origin.tls, on: eventLoop
        ).flatMapThrowing { response in
            guard response.status == 200 else {
                throw NetworkError(.refused, peer, "the venue's list of instruments was refused with \(response.status)")
            }
            do {
                return try response.body.withUnsafeBytes { try InstrumentList.parse($0, of: venue, symbols: symbols) }
            } catch {
                throw NetworkError(.violation, peer, "the venue's list of instruments is no JSON (\(error))")
            }
        }
    }
}
