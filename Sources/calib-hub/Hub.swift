import CalibModel
import HubCore
import Logging
import NIOCore
import NodeShell
import Wire

/// One running hub: carries events to the cores and performs what they answer.
///
/// `@unchecked Sendable`: everything is touched on `eventLoop` only; the worker threads hand their results over with `execute`.
final class Hub: @unchecked Sendable {
    let eventLoop: any EventLoop
    private let logger: Logger
    private var ingest = Ingest()
    private var control: Control
    private var committer: FeedCommitter?
    private var seals: SealKeeper?
    private var records: Worker<LogRecord>?
    private var documents: Documents?
    private var judges: Judges?
    /// Hosts of experiments that are watched.
    private var watchedHosts: Set<String> = []
    private var links: [LinkID: LineLink] = [:]
    private var touched: Set<LinkID> = []
    private var transfers: [LinkID: [Transfer]] = [:]
    private var nextLink = 1
    private var jobs = 0
    private var clock = AnchoredClock()
    private var clockCheckedAt = SystemClock.monotonic()
    private var timer: RepeatedTask?
    private var isReady = false
    private var isStopping = false
    private var counts = HubCounts()
    private let process = ProcessMetrics()
    private let certificate: MetricFamily

    /// Documents under way or waiting; a build of a year takes minutes.
    private static let jobsMax = 16
    private static let chunkBytes = 65_536
    private static let tickMilliseconds: Int64 = 100

    /// An answer too long for a line, in pieces as fast as the link takes them.
    private struct Transfer {
        var id: Int64
        var bytes: [UInt8]
        var offset = 0
        var body: JSONValue
    }

    /// `control` has replayed its log.
    /// - Parameter certificate: the family that tells when the hub's own runs out.
    init(control: Control, certificate: MetricFamily, on eventLoop: any EventLoop, logger: Logger) {
        self.control = control
        self.certificate = certificate
        self.eventLoop = eventLoop
        self.logger = logger
    }

    /// Before the first link. Done once the new term is durable.
    func start(
        committer: FeedCommitter, seals: SealKeeper, records: Worker<LogRecord>, documents: Documents, judges: Judges,
        held: [(host: String, files: [Ingest.HeldFile])]
    ) {
        self.committer = committer
        self.seals = seals
        self.records = records
        self.documents = documents
        self.judges = judges
        counts.lastBuild = documents.newestDataset
        for (host, files) in held { ingest.found(host: host, files: files, parts: control.parts[host] ?? []) }
        perform(control.step(.started, at: now()))
        timer = eventLoop.scheduleRepeatedTask(
            initialDelay: .milliseconds(Self.tickMilliseconds), delay: .milliseconds(Self.tickMilliseconds)
        ) { [unowned self] _ in tick() }
        isReady = true
    }

    /// Says goodbye to everybody.
    func stop() {
        isStopping = true
        isReady = false
        timer?.cancel()
        for link in links.values { link.close(code: "stopping", text: "the hub is stopping; connect again") }
    }

    private func now() -> Moment { clock.moment(at: SystemClock.monotonic()) }

    private func tick() {
        let monotonic = SystemClock.monotonic()
        if monotonic.since(clockCheckedAt) >= 1_000_000_000 {
            clockCheckedAt = monotonic
            if let step = clock.check(monotonic: monotonic, wall: SystemClock.wall()) {
                logger.warning("The wall clock stepped; adopted.", metadata: ["milliseconds": "\(step / 1_000_000)"])
            }
            if !watchedHosts.isEmpty { judges?.post(.tick(milliseconds: now().wall.milliseconds)) }
        }
        perform(ingest.tick(monotonic))
        perform(control.step(.tick, at: now()))
        flush()
    }

    // MARK: Links

    /// Nil: nobody we talk to; the link is closed.
    func opened(_ link: LineLink) -> LinkID? {
        guard !isStopping, let identity = link.identity, let role = Peer.Role(rawValue: identity.role.rawValue) else {
            link.close(code: isStopping ? "stopping" : "identity", text: isStopping ? "the hub is stopping" : "no edge, operator or viewer")
            return nil
        }
        let id = LinkID(nextLink)
        nextLink += 1
        links[id] = link
        perform(ingest.opened(id, peer: Peer(role: role, name: identity.name)))
        flush()
        return id
    }

    func received(_ frame: LineFraming.Frame, on id: LinkID) {
        if let effects = ingest.received(frame.message, on: id, at: SystemClock.monotonic()) {
            perform(effects, payload: frame.payload)
        } else if case .request(let request) = frame.message {
            self.request(request, on: id)
        } else {
            perform(control.step(.received(id, frame.message), at: now()))
        }
        flush()
    }

    func drained(_ id: LinkID) {
        pump(id)
        flush()
    }

    func closed(_ id: LinkID, reason: String) {
        let peer = ingest.peer(id)?.identity ?? "?"
        logger.info("Link closed.", metadata: ["peer": "\(peer)", "reason": "\(reason)"])
        links[id] = nil
        transfers[id] = nil
        perform(ingest.closed(id, at: SystemClock.monotonic()))
        perform(control.step(.disconnected(id), at: now()))
        flush()
    }

    private func send(_ message: Message, to id: LinkID) {
        links[id]?.send(message)
        touched.insert(id)
    }

    private func flush() {
        for id in touched { links[id]?.flush() }
        touched = []
    }

    // MARK: Effects

    private func perform(_ effects: [Ingest.Effect], payload: [UInt8] = []) {
        for effect in effects {
            switch effect {
            case .send(let id, let message): send(message, to: id)
            case .close(let id, let code, let text):
                logger.warning("Refused.", metadata: ["peer": "\(ingest.peer(id)?.identity ?? "?")", "code": "\(code)", "text": "\(text)"])
                links[id]?.close(code: code, text: text)
            case .survey(let id, let host, let epoch): committer?.post(.survey(id, host: host, epoch: epoch))
            case .welcome(let id, let hello, let highestSeq): welcome(id, hello, highestSeq)
            case .inspect(let id, let host, let file, let block): committer?.post(.inspect(id, host: host, file: file, fromBlock: block))
            case .verify(let id, let host, let file): committer?.post(.verify(id, host: host, file: file))
            case .seal(let id, let host, let file, let sealed, let spans):
                seals?.post(SealKeeper.Job(link: id, host: host, file: file, sealed: sealed, spans: spans))
            case .record(let host, let part): perform(control.step(.part(host: host, part), at: now()))
            case .write(let host, let file, let epoch, let offset):
                committer?.post(.write(host: host, file: file, epoch: epoch, offset: offset, bytes: payload))
            case .pauseReading(let id): links[id]?.setReading(false)
            case .resumeReading(let id): links[id]?.setReading(true)
            case .alarm(let host, let code, let text):
                logger.error("Alarm.", metadata: ["host": "\(host)", "code": "\(code)", "text": "\(text)"])
            }
        }
    }

    private func welcome(_ id: LinkID, _ hello: Message.Hello, _ highestSeq: [Message.Welcome.FeedSeq]) {
        guard let link = links[id], let peer = ingest.peer(id) else { return }
        let now = now()
        logger.info(
            "Welcome.",
            metadata: ["peer": "\(peer.identity)", "address": "\(link.remoteAddress)", "version": "\(hello.version.prefix(64))"])
        send(
            .welcome(
                Message.Welcome(
                    version: min(hello.protocolMax, ProtocolVersion.current), software: Build.software, identity: link.identity?.uri ?? "",
                    revision: control.revision, wallMilliseconds: now.wall.milliseconds, highestSeq: highestSeq)), to: id)
        perform(control.step(.connected(id, peer, hello), at: now))
    }

    private func perform(_ effects: [Control.Effect]) {
        for effect in effects {
            switch effect {
            case .persist(let record): records?.post(record)
            case .send(let id, let message):
                if case .command(let command) = message {
                    logger.notice(
                        "Command sent.",
                        metadata: ["command": "\(command.id)", "peer": "\(ingest.peer(id)?.identity ?? "?")", "by": "\(command.by)"])
                }
                send(message, to: id)
            case .reply(let id, let request, let outcome): reply(id, request, outcome)
            case .partRecorded(let host, let part): perform(ingest.recorded(host: host, part))
            case .survey(let id, let hosts, let source, let block):
                judges?.post(.survey(id, held: held(of: hosts), source: source, blockMilliseconds: block))
            case .watch(let experiment):
                let hosts = experiment.hosts.map(\.name)
                watchedHosts.formUnion(hosts)
                judges?.post(.watch(experiment, held: held(of: hosts)))
            case .unwatch(let id):
                watchedHosts = Set(control.experiments.filter { $0.state.isRunning }.flatMap(\.hosts).map(\.name))
                judges?.post(.unwatch(id))
            case .silenceRecorded(let id, let silence): judges?.post(.silence(id, silence))
            }
        }
    }

    /// What is synced of their files.
    private func held(of hosts: [String]) -> [String: [Ingest.HeldFile]] {
        Dictionary(uniqueKeysWithValues: hosts.map { ($0, ingest.files(of: $0)) })
    }

    /// What the stored rows of experiments say.
    func found(_ findings: [Judges.Finding]) {
        guard !isStopping else { return }
        for finding in findings {
            switch finding {
            case .assessed(let assessment): perform(control.step(.assessed(assessment), at: now()))
            case .silent(let id, let silence): perform(control.step(.silent(experiment: id, silence), at: now()))
            case .surveyed(let id, let history): perform(control.step(.surveyed(experiment: id, history), at: now()))
            }
        }
        flush()
    }

    func unreadable(_ error: FileError) {
        logger.error("Stored rows of an experiment cannot be read; its gates see nothing new.", metadata: ["error": "\(error)"])
    }

    // MARK: The other threads' results

    func persisted(_ number: Int64) {
        perform(control.step(.persisted(number), at: now()))
        flush()
    }

    /// A round of the committer; `nanoseconds` is what one took that synced something.
    func committed(_ results: FeedCommitter.Results, nanoseconds: Int64?) {
        for result in results {
            switch result {
            case .committed(let host, let file, let length, let rows):
                counts.stored(host, file, records: rows, at: now().wall)
                perform(ingest.committed(host: host, file: file, length: length))
                if watchedHosts.contains(host), file.hasPrefix(Feed.snapshots.rawValue) {
                    judges?.post(.grew(host: host, file: file, length: length))
                }
            case .inspected(let id, _, let file, let found): perform(ingest.inspected(id, file: file, found))
            case .verified(let id, _, let file, let found, let isDamaged):
                perform(ingest.verified(id, file: file, found, isDamaged: isDamaged))
            case .rejected(let host, let file, let faults):
                counts.rejected(host, file, faults)
                if let first = faults.places.first {
                    logger.error(
                        "Rows that no view will take; they are stored as they came.",
                        metadata: [
                            "host": "\(host)", "file": "\(file)", "rows": "\(faults.counts.reduce(0, +))", "offset": "\(first.offset)",
                            "reason": "\(first.reason.name)",
                        ])
                }
            case .quarantined(let host, let file, let offset, let bytes):
                counts.quarantined(host, bytes: bytes)
                logger.error(
                    "Stored bytes are not what was received; they are in quarantine/, and the edge is asked for its own.",
                    metadata: ["host": "\(host)", "file": "\(file)", "offset": "\(offset)", "bytes": "\(bytes)"])
            case .surveyed(let id, let files, let highestSeq): perform(ingest.surveyed(id, files: files, highestSeq: highestSeq))
            case .failed(let host, let file, let failure):
                logger.error("A feed cannot be stored.", metadata: ["host": "\(host)", "file": "\(file)", "error": "\(failure)"])
                perform(ingest.failed(host: host, file: file))
            case .surveyFailed(let id, let error):
                logger.error("A host's feeds cannot be read.", metadata: ["error": "\(error)"])
                links[id]?.close(code: "disk", text: "the hub cannot read this host's feeds; try again later")
            }
        }
        if let nanoseconds { counts.commits.add(nanoseconds) }
        flush()
    }

    /// The answer to `.seal`.
    func sealed(_ job: SealKeeper.Job, _ result: Result<Bool, FileError>) {
        if case .failure(let error) = result {
            logger.error("A complete file cannot be read.", metadata: ["host": "\(job.host)", "error": "\(error)"])
        }
        perform(ingest.sealed(job.link, file: job.file, isEqual: try? result.get()))
        flush()
    }

    // MARK: Requests

    private func request(_ request: Message.Request, on id: LinkID) {
        guard let peer = ingest.peer(id) else { return }
        do throws(Refusal) {
            let verb = try Verb.check(request, by: peer)
            if verb.acts {
                logger.notice(
                    "Action asked for.",
                    metadata: [
                        "verb": "\(verb.rawValue)", "by": "\(peer.identity)", "reason": "\(request.arguments["reason"]?.prefix(512) ?? "")",
                    ])
            }
            switch verb {
            case .hostList: reply(id, request.id, .ok(control.hostList(ingest, counts, now())))
            case .datasetBuild, .datasetList, .datasetPull, .reportBuild, .reportList, .reportPull, .gateExplain:
                try document(verb, request, id)
            case .experimentCreate, .experimentStart, .experimentPause, .experimentPromote, .experimentList, .experimentGet,
                .experimentRollback, .experimentStop, .gateList, .kill, .killRelease, .parametersSet, .commandList:
                perform(control.step(.request(id, request), at: now()))
            }
        } catch {
            reply(id, request.id, error.outcome)
        }
    }

    private func document(_ verb: Verb, _ request: Message.Request, _ id: LinkID) throws(Refusal) {
        guard jobs < Self.jobsMax else { throw Refusal("busy", "\(jobs) documents are under way; try again", exit: 1) }
        var run: ABRun?
        if verb == .reportBuild, let experiment = request.arguments["experiment"] { run = try control.run(experiment, now()) }
        var decision: Documents.Decision?
        if verb == .gateExplain {
            let (experiment, evidence) = try control.decision(request.arguments["id"] ?? "")
            decision = .init(experiment: experiment, evidence: evidence, held: held(of: experiment.hosts.map(\.name)))
        }
        jobs += 1
        let requestID = request.id
        documents?.post(
            Documents.Job(
                verb: verb, arguments: request.arguments, run: run, decision: decision,
                progress: { [self] done, total, text in
                    eventLoop.execute { [self] in
                        send(.progress(Message.Progress(id: requestID, done: done, total: total, text: text)), to: id)
                        flush()
                    }
                },
                done: { [self] outcome, nanoseconds in
                    eventLoop.execute { [self] in
                        jobs -= 1
                        if verb == .datasetBuild, case .body = outcome { counts.built(nanoseconds: nanoseconds, at: now().wall) }
                        switch outcome {
                        case .body(let body): reply(id, requestID, .ok(body))
                        case .document(let bytes, let offset, let body):
                            transfer(Transfer(id: requestID, bytes: bytes, offset: offset, body: body), on: id)
                        case .refused(let refusal): reply(id, requestID, refusal.outcome)
                        }
                        flush()
                    }
                }))
    }

    private func reply(_ id: LinkID, _ request: Int64, _ outcome: Message.Reply.Outcome) {
        let message = Message.reply(Message.Reply(id: request, outcome: outcome))
        if case .ok(let body) = outcome, message.line.count > Limits.controlLineBytesMax {
            var json = JSONWriter()
            body.write(to: &json)
            return transfer(Transfer(id: request, bytes: json.take(), body: .null), on: id)
        }
        send(message, to: id)
    }

    private func transfer(_ transfer: Transfer, on id: LinkID) {
        guard links[id] != nil else { return }
        transfers[id, default: []].append(transfer)
        pump(id)
    }

    /// Sends as long as the link takes it; `drained` goes on.
    private func pump(_ id: LinkID) {
        guard let link = links[id] else { return }
        while var transfer = transfers[id]?.first {
            while transfer.offset < transfer.bytes.count, link.isWritable {
                let end = min(transfer.bytes.count, transfer.offset + Self.chunkBytes)
                let payload = Array(transfer.bytes[transfer.offset..<end])
                link.send(.chunk(Message.Chunk(id: transfer.id, offset: Int64(transfer.offset), bytes: payload.count)), payload: payload)
                link.flush()
                transfer.offset = end
            }
            guard transfer.offset == transfer.bytes.count else {
                transfers[id]?[0] = transfer
                return
            }
            transfers[id]?.removeFirst()
            send(.reply(Message.Reply(id: transfer.id, outcome: .ok(transfer.body))), to: id)
        }
        transfers[id] = nil
    }

    // MARK: Endpoints

    func answer(_ path: String, accept: String) -> Endpoints.Response? {
        switch path {
        case "/metrics":
            let form = MetricsForm(accept: accept)
            let families = control.metrics(ingest, counts, at: now()) + [certificate] + process.families + [Build.metric]
            return Endpoints.Response(contentType: form.contentType, body: Prometheus.exposition(families, form))
        case "/-/healthy": return Endpoints.Response(text: "healthy")
        case "/-/ready":
            let isDurable = control.revision.number > 0
            return isReady && isDurable ? Endpoints.Response(text: "ready") : Endpoints.Response(status: 503, text: "not ready")
        default: return nil
        }
    }
}

/// One connection's events on their way to the hub. On the hub's event loop only.
final class HubLink: LineLinkDelegate {
    private let hub: Hub
    private var id: LinkID?

    init(_ hub: Hub) { self.hub = hub }

    func opened(_ link: LineLink) { id = hub.opened(link) }
    func received(_ frame: LineFraming.Frame, on link: LineLink) { if let id { hub.received(frame, on: id) } }
    /// It was answered, and the link goes on.
    func rejected(_ error: WireError, on link: LineLink) {}
    func drained(_ link: LineLink) { if let id { hub.drained(id) } }
    func closed(_ link: LineLink, reason: String) { if let id { hub.closed(id, reason: reason) } }
}
