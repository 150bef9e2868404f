import CalibModel
import EdgeCore
import Glibc
import Logging
import NIOCore
import NodeShell
import Wire

/// What the quote thread tells about itself once a second.
struct HostStatus: Sendable {
    var wallMilliseconds: Int64
    var isKilled: Bool
    var symbols: [EdgeMetrics.Symbol]
    var metrics: EdgeMetrics.Node
    var feeds: FeedCounters
    var feedsFailed: Bool
    var reload: ReloadStatus
}

/// What came of reading the configuration again; the start counts as a success.
struct ReloadStatus: Sendable, Equatable {
    private(set) var lastSucceeded = true
    /// When the configuration in effect was read, ms UTC.
    private(set) var succeededAt: Int64
    private(set) var failures: Int64 = 0

    init(succeededAt milliseconds: Int64) { succeededAt = milliseconds }

    mutating func succeed(at milliseconds: Int64) {
        lastSucceeded = true
        succeededAt = milliseconds
    }

    mutating func fail() {
        lastSucceeded = false
        failures += 1
    }
}

/// What the uplink must know of the quote thread's decisions.
struct ControlState: Sendable, Equatable {
    var revision: Revision
    var latches: [String]
    var holdsLease: Bool
    var configHash: UInt64
}

/// The second event loop (ARCHITECTURE, Threads): the link to the hub, the small files, the endpoints. Nothing here can hold up a quote.
///
/// `@unchecked Sendable`: what is below "On the loop" is touched on `eventLoop` only; the members above it may be called from any thread.
final class ControlLoop: @unchecked Sendable {
    struct Setup {
        var configuration: EdgeConfiguration
        /// Holds `feeds/`, `kills.jsonl`, `latches.jsonl`, `day_result.json` and `KILL`.
        var artifacts: String
        var source: String
        var epoch: String
        var synced: SyncedFiles
        var feedFiles: SystemDisk
        var tls: TLSContext?
        var logger: Logger
    }

    enum File { case kills, latches }

    let eventLoop: any EventLoop
    private var configuration: EdgeConfiguration
    private let source: String
    private let epoch: String
    private let synced: SyncedFiles
    private var feedFiles: SystemDisk
    private let tls: TLSContext?
    private let logger: Logger
    private let killFile: String
    private let dayResultFile: String
    private let kills: ControlFile
    private let latches: ControlFile

    init(_ setup: Setup, on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        configuration = setup.configuration
        source = setup.source
        epoch = setup.epoch
        synced = setup.synced
        feedFiles = setup.feedFiles
        tls = setup.tls
        logger = setup.logger
        killFile = setup.artifacts + "/KILL"
        dayResultFile = setup.artifacts + "/day_result.json"
        kills = ControlFile(kills: setup.artifacts + "/kills.jsonl")
        latches = ControlFile(path: setup.artifacts + "/latches.jsonl")
        control = ControlState(revision: .zero, latches: [], holdsLease: false, configHash: 0)
    }

    // MARK: Any thread

    /// `killLog` is what `kills.jsonl` held when the quote loop read it: only what comes later is news.
    func start(_ quote: QuoteLoop, _ reconfiguration: Reconfiguration, killStamp: Stamp?) {
        eventLoop.execute { [self] in
            self.quote = quote
            self.reconfiguration = reconfiguration
            self.killStamp = killStamp
            timers.append(
                eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .nanoseconds(Limits.edgeTurnNanoseconds)) { _ in
                    self.watchFiles()
                })
            guard tls != nil else { return }
            synced.onChange { [self] in eventLoop.execute { self.readLengths() } }
            timers.append(
                eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(100)) { _ in self.step(.tick) })
            // What may be removed (SPEC 2.7): looked at as often as files are removed.
            timers.append(
                eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .nanoseconds(Limits.retentionNanoseconds)) { _ in
                    self.synced.acknowledge(self.uplink.heldLengths)
                })
            step(.started)
        }
    }

    func adopt(_ configuration: EdgeConfiguration) { eventLoop.execute { [self] in self.configuration = configuration } }

    func say(_ message: Message) {
        eventLoop.execute { [self] in
            if case .commandResult(let result) = message { commands.said(result, at: SystemClock.monotonic()) }
            step(.say(message))
        }
    }

    func share(_ state: ControlState) {
        eventLoop.execute { [self] in
            control = state
            uplink.isHoldingLease = state.holdsLease
        }
    }

    func share(_ status: HostStatus) {
        eventLoop.execute { [self] in
            self.status = status
            sendStatus(status)
        }
    }

    /// Appends and syncs; the outcome, with all bytes of the file, comes back on `loop`.
    func append(
        _ line: [UInt8], to file: File, removingKillFile: Bool = false, then loop: any EventLoop,
        _ then: @escaping @Sendable (Result<[UInt8], FileError>) -> Void
    ) {
        eventLoop.execute { [self] in
            let result = Result<[UInt8], FileError> { () throws(FileError) in
                if removingKillFile { try AtomicFile.remove(killFile) }
                switch file {
                case .kills: return try kills.append(line)
                case .latches: return try latches.append(line)
                }
            }
            if case .failure(let error) = result {
                logger.error("A kill, release or rollback cannot be recorded.", metadata: ["cause": "\(error)"])
            }
            // `watchFiles` reads our own row again: were its stamp taken here, a row that another process wrote just now would be missed.
            loop.execute { then(result) }
        }
    }

    /// Replaces the file of the day's result; whether it is durable comes back on `loop`.
    func write(_ result: DayResult, then loop: any EventLoop, _ then: @escaping @Sendable (Bool) -> Void) {
        eventLoop.execute { [self] in
            do throws(FileError) {
                try AtomicFile.write(result.json, to: dayResultFile)
                hasReportedDayResult = false
                loop.execute { then(true) }
            } catch {
                if !hasReportedDayResult {
                    hasReportedDayResult = true
                    logger.error(
                        "The day's result cannot be written; a restart would begin the daily loss limits anew.",
                        metadata: ["cause": "\(error)"])
                }
                loop.execute { then(false) }
            }
        }
    }

    /// Ships what is durable, for a short while, and closes the link.
    func stop() -> EventLoopFuture<Void> {
        let done = eventLoop.makePromise(of: Void.self)
        eventLoop.execute { [self] in
            isStopping = true
            ship(until: SystemClock.monotonic().advanced(nanoseconds: Limits.shipOnStopNanoseconds), done)
        }
        return done.futureResult
    }

    // MARK: On the loop

    private var quote: QuoteLoop?
    private var reconfiguration: Reconfiguration?
    private var uplink = Uplink { Int64.random(in: $0) }
    private var link: LineLink?
    private var control: ControlState
    private var status: HostStatus?
    private var timers: [RepeatedTask] = []
    private var killStamp: Stamp?
    private var hasReportedKillFile = false
    private var hasReportedDayResult = false
    private var seenKillFile: (stamp: Stamp, toldAt: Instant)?
    private var isTurnLeaving = false
    private var isStopping = false
    // For /metrics.
    private var commands = CommandMeter()
    private var clockOffsetMilliseconds: Int64?
    private let process = ProcessMetrics()
    private var droppedSeries: Int64 = 0
    private var hasReportedDroppedSeries = false

    private func ship(until deadline: Instant, _ done: EventLoopPromise<Void>) {
        readLengths()
        let now = SystemClock.monotonic()
        guard uplink.isConnected, uplink.backlogBytes > 0, now < deadline else {
            for timer in timers { timer.cancel() }
            link?.close()
            return done.succeed()
        }
        eventLoop.scheduleTask(in: .milliseconds(5)) { [self] in ship(until: deadline, done) }
    }

    private func watchFiles() {
        let stamp = kills.stamp
        if stamp != killStamp {
            do throws(FileError) {
                let bytes = try kills.read()
                killStamp = stamp
                quote?.deliver(KillSwitch.Input.log(bytes))
                hasReportedKillFile = false
            } catch {
                if !hasReportedKillFile {
                    logger.error("kills.jsonl cannot be read; what was killed stays killed.", metadata: ["cause": "\(error)"])
                }
                hasReportedKillFile = true
            }
        }
        guard let file = Stamp(path: killFile) else {
            seenKillFile = nil
            return
        }
        let now = SystemClock.monotonic()
        // Told once, and again each second in case a release raced with it.
        if let seen = seenKillFile, seen.stamp == file, now.since(seen.toldAt) < 1_000_000_000 { return }
        seenKillFile = (file, now)
        quote?.deliver(KillSwitch.Input.fileSeen)
    }

    // MARK: Uplink

    private func readLengths() {
        for (name, length) in synced.takeChanges() { step(.grew(file: name, syncedLength: length)) }
        for news in synced.takeNews() {
            switch news {
            case .sealed(let sealed): step(.sealed(sealed))
            case .removed(let name): step(.removed(file: name))
            }
        }
    }

    private func step(_ input: Uplink.Input) {
        var sentBytes = false
        for effect in uplink.step(input, at: SystemClock.monotonic()) {
            switch effect {
            case .connect(let wait): connect(after: wait)
            case .send(let message): link?.send(message)
            case .ask(let question):
                var answer: FeedQuestion.Answer?
                do throws(FileError) { answer = try question.answer(from: &feedFiles) } catch {
                    logger.error("A feed file cannot be compared with the hub's.", metadata: ["cause": "\(error)"])
                }
                eventLoop.execute { [self, answer] in step(.answered(question, answer)) }
            case .sendBytes(let file, let offset, let bytes):
                sentBytes = true
                if let payload = try? feedFiles.read(file, at: offset, count: bytes) {
                    link?.send(.append(.init(file: file, offset: offset, bytes: bytes)), payload: payload)
                } else {
                    logger.error("A feed file cannot be read for the hub.", metadata: ["file": "\(file)", "offset": "\(offset)"])
                    eventLoop.execute { [self] in step(.unreadable(file: file)) }
                }
            case .close(let code, let text):
                logger.warning("Hub link given up.", metadata: ["code": "\(code)", "text": "\(text)"])
                link?.close(code: code, text: text)
            case .deliver(let message): deliver(message)
            case .welcomed(let welcome): welcomed(welcome)
            case .differs(let file, let at):
                logger.error(
                    "The hub has other bytes of a feed; it is to keep ours apart.", metadata: ["file": "\(file)", "from": "\(at)"])
            case .forked(let file, let base):
                logger.error("The hub keeps both histories of a feed.", metadata: ["file": "\(file)", "from": "\(base)"])
                if let (feed, day) = FeedFileName.parse(file) { synced.forked(feed, day, base: base) }
            case .complained(let code, let text):
                logger.warning("The hub complains.", metadata: ["code": "\(code)", "text": "\(text)"])
            }
        }
        link?.flush()
        if sentBytes { endTurn() }
    }

    /// The turn's bytes are gone when the link takes more.
    private func endTurn() {
        guard let link, link.isOpen else { return }
        isTurnLeaving = true
        guard link.isWritable else { return }  // `drained` follows.
        eventLoop.execute { [self] in
            guard isTurnLeaving, link === self.link else { return }
            isTurnLeaving = false
            step(.turnEnded)
        }
    }

    private func connect(after nanoseconds: Int64) {
        guard let tls, !isStopping else { return }
        eventLoop.scheduleTask(in: .nanoseconds(nanoseconds)) { [self] in
            guard !isStopping else { return }
            let hub = configuration.hub
            LineClient.connect(
                host: hub.host, port: hub.port, serverName: hub.serverName, context: tls, on: eventLoop, delegate: self
            ).whenFailure { [self] error in
                logger.warning("The hub cannot be reached; feeds stay on disk.", metadata: ["cause": "\(error)"])
                step(.disconnected)
            }
        }
    }

    private func welcomed(_ welcome: Message.Welcome) {
        let skew = SystemClock.wall().milliseconds - welcome.wallMilliseconds
        clockOffsetMilliseconds = skew
        logger.info(
            "Connected to the hub.",
            metadata: ["hub": "\(welcome.software)", "as": "\(welcome.identity)", "clock_ahead_ms": "\(skew)"])
        for held in welcome.highestSeq {
            switch Feed(rawValue: held.feed) {
            case .fills?: quote?.deliver(highestFillAtHub: held.seq)  // Fills are numbered by the node.
            case let feed?: synced.hubHolds(feed, upTo: held.seq)
            case nil: break  // Of a hub that is newer than we are.
            }
        }
        quote?.deliver(ArmControl.Input.connected)
    }

    private func deliver(_ message: Message) {
        guard let quote else { return }
        switch message {
        case .lease(let lease): quote.deliver(ArmControl.Input.lease(lease))
        case .assignment(let assignment): quote.deliver(ArmControl.Input.assigned(assignment))
        case .command(let command):
            commands.received(command, at: SystemClock.monotonic())
            switch command.kind {
            case .rollback: quote.deliver(ArmControl.Input.command(command))
            case .kill, .release: quote.deliver(KillSwitch.Input.command(command))
            case .parameters: reconfiguration?.obey(command)
            }
        default: preconditionFailure("BUG: the uplink delivers no '\(message.type)'")
        }
    }

    private func sendStatus(_ status: HostStatus) {
        guard uplink.isConnected else { return }
        var rest = status.symbols.map(\.status)[...]
        repeat {
            step(
                .say(
                    .status(
                        .init(
                            wallMilliseconds: status.wallMilliseconds, revision: control.revision, backlogBytes: uplink.backlogBytes,
                            isKilled: status.isKilled, symbols: Array(rest.prefix(Limits.statusSymbolsMax))))))
            rest = rest.dropFirst(Limits.statusSymbolsMax)
        } while !rest.isEmpty
    }

    private func hello() -> Message.Hello {
        var hash = JSONWriter()
        hash.hex(control.configHash)
        return Message.Hello(
            version: Build.software,
            edge: .init(
                host: configuration.host, epoch: epoch, source: source, venue: configuration.venue.name,
                wallMilliseconds: SystemClock.wall().milliseconds, symbols: configuration.venue.symbols, revision: control.revision,
                latches: control.latches, configHash: String(decoding: hash.bytes.dropFirst().dropLast(), as: UTF8.self)))
    }

    // MARK: Endpoints

    /// What `Endpoints` asks; on the loop.
    func answer(_ path: String, accept: String) -> Endpoints.Response? {
        switch path {
        case "/-/healthy": return .init(text: "ok")
        case "/-/ready":
            let missing = readiness()
            return missing.isEmpty ? .init(text: "ready") : .init(status: 503, text: missing.joined(separator: "\n"))
        case "/metrics":
            let form = MetricsForm(accept: accept)
            return .init(contentType: form.contentType, body: Prometheus.exposition(metrics(), form))
        default: return nil
        }
    }

    private func metrics() -> [MetricFamily] {
        let link = tls.map { _ in
            EdgeMetrics.Link(
                uplink: uplink.reading(at: SystemClock.monotonic()), commands: commands, revision: control.revision,
                clockOffsetMilliseconds: clockOffsetMilliseconds)
        }
        let feeds = status.map { status in
            EdgeMetrics.Feeds(
                written: status.feeds.written, syncs: status.feeds.syncDurations,
                bytesMax: configuration.retention.bytesMax)
        }
        let metrics = EdgeMetrics(
            symbols: status?.symbols ?? [], silentAfter: configuration.metricsSymbolSeconds * 1_000_000_000,
            most: configuration.metricsSymbolsMax, node: status?.metrics, feeds: feeds, link: link,
            configuration: status.map {
                .init(isSuccess: $0.reload.lastSucceeded, succeededAt: WallTime(nanoseconds: $0.reload.succeededAt * 1_000_000))
            },
            droppedBefore: droppedSeries, at: SystemClock.wall())
        droppedSeries += metrics.droppedSeries
        if metrics.droppedSeries > 0, !hasReportedDroppedSeries {
            hasReportedDroppedSeries = true
            logger.warning(
                "More symbols than metrics.max_symbols; /metrics leaves some out.",
                metadata: ["max_symbols": "\(configuration.metricsSymbolsMax)", "left_out": "\(metrics.dropped.count)"])
        }
        return metrics.families + [tls?.certificateMetrics].compactMap(\.self) + process.families + [Build.metric]
    }

    /// What is missing for quoting. The hub is not: the edge quotes without it.
    private func readiness() -> [String] {
        guard let status else { return ["starting"] }
        var missing: [String] = []
        if status.feedsFailed { missing.append("feeds cannot be written") }
        if !configuration.parameters.cache.isEnabled { missing.append("md_cache.enabled is false") }
        for symbol in status.symbols where !symbol.status.isProven { missing.append("\(symbol.status.symbol): no proven book") }
        return missing
    }
}

extension ControlLoop: LineLinkDelegate {
    func opened(_ link: LineLink) {
        self.link = link
        guard !isStopping else { return link.close() }
        step(.connected(hello()))
    }

    func received(_ frame: LineFraming.Frame, on link: LineLink) { if link === self.link { step(.received(frame.message)) } }

    func rejected(_ error: WireError, on link: LineLink) {
        logger.warning("The hub sent a message that this edge does not know.", metadata: ["text": "\(error.sentence)"])
    }

    func drained(_ link: LineLink) {
        guard isTurnLeaving, link === self.link else { return }
        isTurnLeaving = false
        step(.turnEnded)
    }

    func closed(_ link: LineLink, reason: String) {
        guard link === self.link else { return }
        self.link = nil
        isTurnLeaving = false
        logger.warning("Hub link lost; feeds stay on disk.", metadata: ["cause": "\(reason)"])
        quote?.deliver(ArmControl.Input.disconnected)
        step(.disconnected)
    }
}
