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

    fileprivate func request(on eventLoop: any EventLoop) -> EventLoopFuture<[Instrument]> {
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

/// Carries out the looks of an `InstrumentWatch`.
///
/// `@unchecked Sendable`: what is mutable is touched on the event loop only.
final class VenueInstrumentsWatch: @unchecked Sendable {
    private let list: VenueInstruments
    private var watch: InstrumentWatch
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let changed: @Sendable ([String]) -> Void
    private var timer: RepeatedTask?

    /// Calls `changed` with symbols that are not what `known` says, on the event loop, until `stop`.
    init(
        _ list: VenueInstruments, known: [Instrument], on eventLoop: any EventLoop, _ logger: Logger,
        changed: @escaping @Sendable ([String]) -> Void
    ) {
        self.list = list
        watch = InstrumentWatch(known, at: SystemClock.monotonic())
        (self.eventLoop, self.logger, self.changed) = (eventLoop, logger, changed)
        timer = eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { [weak self] _ in self?.look() }
    }

    func stop() { timer?.cancel() }

    /// Looks now. Any thread.
    func hurry() {
        eventLoop.execute { [self] in
            watch.hurry(at: SystemClock.monotonic())
            look()
        }
    }

    private func look() {
        guard watch.takeDue(at: SystemClock.monotonic()) else { return }
        list.request(on: eventLoop).assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let found):
                let news = watch.answered(found)
                if !news.isEmpty { changed(news) }
            case .failure(let error):
                watch.failed()
                logger.warning("The venue's instruments cannot be read; the next look is in an hour.", metadata: ["cause": "\(error)"])
            }
        }
    }
}
