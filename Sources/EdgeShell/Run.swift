import ArgumentParser
import CalibModel
import Configuration
import EdgeCore
import Glibc
import Logging
import NIOCore
import NIOPosix
import NodeShell
import Wire

/// `edge-node run`: quotes until it is told to stop.
struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Quotes on paper at a live venue, writes feeds, and ships them to the hub.",
        discussion: """
            One JSON line on stdout says where things are once quoting begins; logs are JSON lines on stderr. SIGTERM and SIGINT cancel every order, \
            complete the feeds, ship what is durable for at most 2 s, print the run's summary as `replay -o json` does, and end with status 0.

            SIGHUP reads the configuration again: how the edge quotes changes between two ticks, with resting orders, places in queues and averages \
            kept. A configuration with a mistake, with a change that needs a restart, or with a wider hard limit is refused whole, and the log \
            names every reason. Instruments that no file names are asked for again at the venue, as they are each hour.

            `hubctl parameters set` changes parameters from afar by the same rules; what it ordered stays over the configuration, also after a \
            restart, in parameters.json of artifacts_dir.

            A file named KILL in artifacts_dir, or `edge-node kill`, cancels everything at once; `edge-node kill --release` lifts it.

            Exit status: 0 stopped; 1 a file, a port or a thread cannot be had; 64 usage; 78 configuration.
            """)

    @Option(help: ArgumentHelp("The configuration, such as config/edge.yaml.", valueName: "file"))
    var config: String

    @Option(
        help: ArgumentHelp(
            "Overrides one key of the configuration, e.g. host=tokyo-1; may be given several times.", valueName: "key=value"))
    var set: [String] = []

    func run() throws { try EdgeRun.run(config: config, overrides: set, clock: StopClock { SystemClock.monotonic().nanoseconds }) }
}

/// The program's main part, for `edge-node run` and for the laboratory's edge.
package enum EdgeRun {
    /// `clock`: what ticks are timed with.
    package static func run(config: String, overrides: [String], clock: StopClock) throws {
        let logger = LogLines.logger("edge-node")
        do {
            let (configuration, ordered) = try loaded(config, overrides)
            try Edge(configuration, logger, clock).run(ordered) { ordered throws(ConfigurationError) in
                try EdgeConfiguration.load(file: config, overrides: overrides, ordered: ordered, read: readText)
            }
        } catch let error as Unusable {
            printError("edge-node run: \(error.text)")
            throw ExitCode.badConfiguration
        } catch let error as FileError {
            printError("edge-node run: \(error)")
            throw ExitCode.failure
        } catch let error as NetworkError {
            printError("edge-node run: \(error)")
            throw ExitCode.failure
        }
    }

    /// The files and --set say where the artifacts lie, and there may be what was ordered over them.
    private static func loaded(_ config: String, _ overrides: [String]) throws -> (EdgeConfiguration, OrderedParameters) {
        let configuration = try loadOrExit(file: config, overrides: overrides)
        let artifacts = configuration.artifactsDirectory
        switch try Reconfiguration.ordered(in: artifacts) {
        case .success(let ordered): return (try loadOrExit(file: config, overrides: overrides, ordered: ordered), ordered)
        case .failure(let error):
            throw Unusable(
                text:
                    "\(artifacts)/\(OrderedParameters.fileName) cannot be read (\(error.sentence)); move it away to start with the configuration alone"
            )
        }
    }
}

/// A configuration that is valid by itself and does not fit the world, such as a certificate that is not there.
private struct Unusable: Error {
    var text: String
}

/// Everything of one running edge, in the order it is built and taken down.
private struct Edge {
    private let configuration: EdgeConfiguration
    private let logger: Logger
    private let clock: StopClock
    private let venue: QuoteNode.Venue
    private let instruments: [Instrument]
    private let target: WebSocketTarget
    private let rest: VenueConnection.RESTOrigin
    /// The symbols that no file names, and what the venue said of them at the start.
    private let venueInstruments: VenueInstruments?
    private let fetched: [Instrument]
    private let tls: TLSContext?

    init(_ configuration: EdgeConfiguration, _ logger: Logger, _ clock: StopClock) throws {
        self.configuration = configuration
        self.logger = logger
        self.clock = clock
        venue = QuoteNode.Venue(rawValue: configuration.venue.name)!  // Checked on load, as are the URLs.
        do throws(TLSError) {
            let paths = configuration.tls
            tls =
                configuration.hub.isEnabled
                ? try TLSContext.client(TLSFiles(certificate: paths.certificate, key: paths.key, authority: paths.authority)) : nil
            (target, rest) = try VenueConnection.addresses(configuration.venue)
        } catch {
            throw Unusable(text: "tls: \(error)")
        }
        let known = configuration.instruments[configuration.venue.name] ?? []
        let unknown = configuration.venue.symbols.filter { symbol in !known.contains { $0.symbol == symbol } }
        guard !unknown.isEmpty else {
            (instruments, venueInstruments, fetched) = (
                configuration.venue.symbols.map { symbol in known.first { $0.symbol == symbol }! }, nil, []
            )
            return
        }
        let list = VenueInstruments(venue: venue, symbols: unknown, origin: rest)
        let fetched: [Instrument]
        do {
            fetched = try list.fetch()
        } catch let error as NetworkError {
            let names = unknown.joined(separator: ", ")
            throw NetworkError(error.code, error.peer, "asked for \(names), which the instruments file does not name: \(error.message)")
        }
        (venueInstruments, self.fetched) = (list, fetched)
        instruments = configuration.venue.symbols.map { symbol in (known + fetched).first { $0.symbol == symbol }! }
        logger.info("Instruments come from the venue.", metadata: ["symbols": "\(unknown.joined(separator: ","))"])
    }

    func run(_ ordered: OrderedParameters, _ load: @escaping Reconfiguration.Load) throws {
        let signals = Signals([SIGTERM, SIGINT, SIGHUP])
        let artifacts = configuration.artifactsDirectory
        let source = venue == .sim ? "sim" : "live"
        let spool = try FeedSpool(
            directory: artifacts, source: source, venue: venue.rawValue, host: configuration.host, instruments: instruments,
            retention: FeedRetention(
                days: configuration.retention.days, bytesMax: configuration.retention.bytesMax, hasHub: configuration.hub.isEnabled))
        let kills = ControlFile(kills: artifacts + "/kills.jsonl")
        // The stamp first: what is written between the two is read twice, never missed.
        let killStamp = kills.stamp
        let dayResult = try dayResult(artifacts + "/day_result.json")
        let (killLog, latches) = (try kills.read(), try ControlFile(path: artifacts + "/latches.jsonl").read())

        let quoteGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let controlGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer {
            try? quoteGroup.syncShutdownGracefully()
            try? controlGroup.syncShutdownGracefully()
        }
        let control = ControlLoop(
            .init(
                configuration: configuration, artifacts: artifacts, source: source, epoch: spool.epoch, synced: spool.synced,
                feedFiles: try SystemDisk(artifacts + "/feeds"), tls: tls, logger: logger),
            on: controlGroup.next())
        let quote = QuoteLoop(
            .init(
                configuration: configuration, venue: venue, instruments: instruments, target: target, rest: rest, spool: spool,
                kills: killLog, isKilledByFile: Stamp(path: artifacts + "/KILL") != nil, latches: latches, dayResult: dayResult,
                clock: clock, logger: logger),
            control: control,
            on: quoteGroup.next())
        let metrics = try listen(control, on: controlGroup)
        quote.start()
        let reconfiguration = Reconfiguration(configuration, ordered, artifacts: artifacts, quote, control, logger, load)
        control.start(quote, reconfiguration, killStamp: killStamp)
        let watch = venueInstruments.map {
            VenueInstrumentsWatch($0, known: fetched, on: control.eventLoop, logger) { quote.deliver(changedInstruments: $0) }
        }
        defer { watch?.stop() }
        announce(metrics: metrics, feeds: artifacts + "/feeds")

        var signal = signals.wait()
        while signal == SIGHUP {
            control.eventLoop.execute { reconfiguration.reload() }
            watch?.hurry()
            signal = signals.wait()
        }
        logger.info("Stopping: cancelling all, completing the feeds.", metadata: ["signal": "\(signal == SIGINT ? "SIGINT" : "SIGTERM")"])
        // The link goes on meanwhile, so that the last rows reach the hub, too.
        let outcome = try quote.stop().wait()
        try control.stop().wait()
        print(outcome.summary)
        let statistics = try outcome.feeds.get()
        logger.info("Stopped.", metadata: ["rows": "\(statistics.rows)", "syncs": "\(statistics.syncs)"])
    }

    /// Nil when there is none yet.
    private func dayResult(_ path: String) throws(FileError) -> DayResult? {
        guard let bytes = try AtomicFile.read(path) else { return nil }
        do throws(WireError) { return try DayResult(json: bytes) } catch {
            logger.error(
                "The day's result cannot be read: the host counts as having reached its daily loss. If it has not, stop the edge, remove the file and start it again.",
                metadata: ["file": "\(path)", "cause": "\(error.sentence)"])
            return .unknown(on: CalendarDay(containing: SystemClock.wall()))
        }
    }

    /// Where the endpoints are; nil when off.
    private func listen(_ control: ControlLoop, on group: any EventLoopGroup) throws -> String? {
        guard let (host, port) = configuration.metricsListen.flatMap(EdgeConfiguration.address) else { return nil }
        do {
            let channel = try Endpoints.bind(host: host, port: port, on: group) { path, accept in
                control.eventLoop.submit { control.answer(path, accept: accept) }
            }.wait()
            return "\(host.contains(":") ? "[\(host)]" : host):\(channel.localAddress?.port ?? port)"
        } catch {
            throw NetworkError(.unreachable, "\(host):\(port)", "metrics.listen cannot be bound (\(error)); is another edge using it?")
        }
    }

    private func announce(metrics: String?, feeds: String) {
        var json = JSONWriter()
        json.beginObject()
        json.field("host", string: configuration.host)
        json.field("metrics", string: metrics)
        json.field("feeds", string: feeds)
        json.field("venue", string: venue.rawValue)
        json.field("url", string: configuration.venue.url)
        json.field("symbols", strings: configuration.venue.symbols)
        json.endObject()
        json.newline()
        // One write, so that a reader of the pipe sees the line at once and whole.
        _ = json.bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    }
}
