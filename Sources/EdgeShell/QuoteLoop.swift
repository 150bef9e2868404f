import CalibModel
import Configuration
import EdgeCore
import Logging
import NIOCore
import NodeShell
import Wire

/// The quote thread (ARCHITECTURE, Threads): a one-thread event loop that owns the venue's connection, the node, and who decides about arms and
/// kills, so that a frame becomes a quote and a command takes effect without a hand-off.
///
/// `@unchecked Sendable`: everything but `start`, `deliver` and the other members marked so is touched on `eventLoop` only.
final class QuoteLoop: @unchecked Sendable {
    struct Setup {
        var configuration: EdgeConfiguration
        var venue: QuoteNode.Venue
        var instruments: [Instrument]
        var target: WebSocketTarget
        var rest: VenueConnection.RESTOrigin
        var spool: FeedSpool
        /// `kills.jsonl` and `latches.jsonl`, read before the first quote.
        var kills: [UInt8]
        /// The file KILL is there already.
        var isKilledByFile: Bool
        var latches: [UInt8]
        /// What this day has brought before this start; nil for the first of an artifacts directory.
        var dayResult: DayResult?
        var clock: StopClock
        var logger: Logger
    }

    let eventLoop: any EventLoop
    private var configuration: EdgeConfiguration
    /// What came of the newest SIGHUP.
    private var reload: ReloadStatus
    private let venueName: String
    private let symbols: [String]
    private let logger: Logger
    private let spool: FeedSpool
    private let control: ControlLoop
    private let killLog: [UInt8]
    private let isKilledByFile: Bool
    /// As it stands in its file, or is on its way there.
    private var dayResult: DayResult?

    private var node: QuoteNode
    /// Arm B of a dry experiment.
    private var dryArm: DryArm?
    /// The one before, until its last rows have found room.
    private var endedDryArm: DryArm?
    private let instruments: [Instrument]
    private let stopClock: StopClock
    private var arms: ArmControl
    private var kills: KillSwitch
    private var clock = AnchoredClock()
    private var timer: RepeatedTask?
    private var nextSecond: Instant
    /// A plan was applied and has not taken effect everywhere.
    private var isSettling = false
    private var settlingCancelled = 0
    /// While B is played: when the arms must be looked at again, on CLOCK_BOOTTIME.
    private var leaseEnd = Int64.max
    /// When the schedule gives other arms, ms UTC.
    private var planEnd = Int64.max
    private var settlingSince = WallTime(nanoseconds: 0)
    /// Of the configuration without a candidate.
    private var baselineHash: UInt64
    /// The newest one played: a block begins between two frames, so its text is read once.
    private var candidate: Candidate?
    private var sharedControl: ControlState?
    private var hasReportedFailure = false
    /// Before the present connection.
    private var refusalsBefore: Int64 = 0
    private var hasReportedRefusal = false
    private let startedAt: Instant
    /// Of frames.
    private var span: (first: WallTime, last: WallTime)?

    private let venue: VenueConnection
    private var isStopping = false

    private struct Candidate {
        var overrides: [ExperimentSpec.Override]
        /// Nil when they do not go with this configuration.
        var parameters: Parameters?
        var hash: UInt64
    }

    init(_ setup: Setup, control: ControlLoop, on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        configuration = setup.configuration
        venueName = setup.venue.rawValue
        symbols = setup.instruments.map(\.symbol)
        (instruments, stopClock) = (setup.instruments, setup.clock)
        logger = setup.logger
        spool = setup.spool
        self.control = control
        killLog = setup.kills
        baselineHash = setup.configuration.hash(for: setup.venue.rawValue)
        isKilledByFile = setup.isKilledByFile
        dayResult = setup.dayResult
        venue = VenueConnection(
            .init(
                venue: setup.venue, target: setup.target, rest: setup.rest, symbols: symbols, depth: configuration.venue.depth,
                comparedLevels: Int(configuration.parameters.cache.maxDepth),
                logger: setup.logger), on: eventLoop)
        node = QuoteNode(
            venue: setup.venue, instruments: setup.instruments, parameters: configuration.parameters(for: venueName),
            configHash: baselineHash, isRecorded: false,
            connections: VenueConnection.count(setup.venue, symbols: symbols.count), runNumber: spool.runNumber,
            firstFillID: spool.firstFillID, outboxes: spool.makeOutboxes(), clock: setup.clock,
            random: { .random(in: $0) })
        arms = ArmControl(symbols: symbols, host: configuration.host, latches: setup.latches) { [configuration] in
            configuration.refusal(of: $0)
        }
        reload = ReloadStatus(succeededAt: SystemClock.wall().milliseconds)
        kills = KillSwitch(symbols: symbols)
        let now = SystemClock.monotonic()
        (nextSecond, startedAt) = (now, now)
    }

    // MARK: Any thread

    /// What is killed stays killed from before the first frame on.
    func start() {
        eventLoop.execute { [self] in
            run(kills.step(.log(killLog)))
            if isKilledByFile { run(kills.step(.fileSeen)) }
            if let dayResult { resume(dayResult) }
            shareControl()
            timer = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .nanoseconds(Limits.edgeTurnNanoseconds)) { _ in self.turn()
            }
            venue.start(self)
        }
    }

    /// From the control loop: the hub's words, and news of the kill files.
    func deliver(_ input: ArmControl.Input) { eventLoop.execute { [self] in step(input) } }
    func deliver(_ input: KillSwitch.Input) {
        eventLoop.execute { [self] in
            run(kills.step(input))
            shareControl()
        }
    }

    /// The hub holds fills of this epoch up to this number, perhaps more than this disk does.
    func deliver(highestFillAtHub seq: Int64) { eventLoop.execute { [self] in node.numberFills(above: seq) } }

    /// Parameters that changed while quoting goes on; the configuration was checked against the present one (`reloadProblems`). `then` runs when
    /// they are in effect.
    func adopt(_ new: EdgeConfiguration, then: @escaping @Sendable () -> Void) {
        eventLoop.execute { [self] in
            let now = present()
            configuration = new
            (baselineHash, candidate) = (new.hash(for: venueName), nil)
            reload.succeed(at: now.wall.milliseconds)
            node.adopt(baseline: new.parameters(for: venueName), at: now)
            let effects = arms.adopt(
                reject: { new.refusal(of: $0) },
                at: .init(bootNanoseconds: SystemClock.bootNanoseconds(), wallMilliseconds: now.wall.milliseconds))
            // The plan in force stays, with the new parameters and their hash, unless the experiment does not go with them.
            if !effects.contains(where: { if case .apply = $0 { true } else { false } }) { apply(arms.plan, at: now) }
            perform(effects, at: now)
            then()
        }
    }

    /// A configuration that was refused; the old one stays in effect.
    func reloadFailed() { eventLoop.execute { [self] in reload.fail() } }

    /// What the venue has changed: nothing of it is quoted until a restart.
    func deliver(changedInstruments names: [String]) {
        eventLoop.execute { [self] in
            let now = present()
            for (index, symbol) in symbols.enumerated() where names.contains(symbol) {
                node.instrumentChanged(SymbolIndex(index), at: now)
                dryArm?.instrumentChanged(SymbolIndex(index), at: now)
                logger.error(
                    "The venue has changed an instrument; it is not quoted until this edge is started again.",
                    metadata: ["symbol": "\(symbol)"])
            }
            spool.publish(&node.shared.outboxes)
        }
    }

    struct Outcome: Sendable {
        /// One JSON object on one line.
        var summary: String
        /// The writer's.
        var feeds: Result<FeedStatistics, FileError>
    }

    /// Cancels everything, waits for the cancels, and closes the feeds.
    func stop() -> EventLoopFuture<Outcome> {
        let done = eventLoop.makePromise(of: Outcome.self)
        eventLoop.execute { [self] in
            isStopping = true
            timer?.cancel()
            _ = node.cancelAll(at: present())
            venue.stop()
            finish(after: SystemClock.monotonic().advanced(nanoseconds: Limits.cancelOnStopNanoseconds), done)
        }
        return done.futureResult
    }

    // MARK: Time

    private func moment() -> Moment { clock.moment(at: SystemClock.monotonic()) }

    /// Now, with the arms that are played now. What lets time pass for the node takes it from here: after a pause of the process or the machine
    /// whatever comes first may find a lease that has ended, or another block.
    private func present() -> Moment {
        let now = moment()
        if SystemClock.bootNanoseconds() >= leaseEnd { step(.tick, at: now) }
        if now.wall.milliseconds >= planEnd { followSchedule(to: now) }
        return now
    }

    /// Every 10 ms: what happens without a frame.
    private func turn() {
        let now = present()
        node.advance(to: now)
        dryArm?.advance(to: now)
        passDryRows()
        followBreaker(at: now)
        settle()
        spool.publish(&node.shared.outboxes)
        watchDisk(now)
        if let due = arms.nextDue, SystemClock.bootNanoseconds() >= due { step(.tick) }
        askVenue(at: now)
        if now.instant >= nextSecond {
            nextSecond = now.instant.advanced(nanoseconds: 1_000_000_000)
            second(now)
        }
    }

    private func second(_ now: Moment) {
        if let nanoseconds = clock.check(monotonic: SystemClock.monotonic(), wall: SystemClock.wall()) {
            node.clockStepped(by: nanoseconds)
            dryArm?.clockStepped(by: nanoseconds)
            // Not `present`: the schedule is not followed by a clock that nobody has looked at.
            let now = moment()
            node.shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .clock, first: nanoseconds / 1_000_000))
            step(.clockStepped, at: now)
            logger.warning("The wall clock stepped.", metadata: ["step_ms": "\(nanoseconds / 1_000_000)"])
        }
        if node.refusedRequests > refusalsBefore, !hasReportedRefusal {
            hasReportedRefusal = true
            logger.warning(
                "The venue refused a subscription; does it have every symbol, and this depth?",
                metadata: [
                    "symbols": "\(symbols.joined(separator: ","))", "depth": "\(configuration.venue.depth)",
                ])
        }
        run(kills.step(.tick(atMilliseconds: now.wall.milliseconds)))
        step(.tick)
        keepDayResult()
        control.share(
            HostStatus(
                wallMilliseconds: now.wall.milliseconds, isKilled: node.isKilled,
                symbols: symbols.indices.map { node.metrics(of: SymbolIndex($0), at: now) }, metrics: node.metrics(at: now),
                feeds: spool.counters, feedsFailed: spool.troubleSince != nil, reload: reload))
    }

    /// A daily loss counts on over a restart (SPEC 10.2).
    private func resume(_ result: DayResult) {
        node.resume(result, at: moment())
        let halted = result.symbols.filter(\.value.isHalted).keys.sorted()
        guard node.dayResult != nil, result.host.isHalted || !halted.isEmpty else { return }
        logger.warning(
            "A daily loss limit was reached before this start; nothing is placed until midnight UTC.",
            metadata: ["scope": "\(result.host.isHalted ? "host" : halted.joined(separator: ","))"])
    }

    /// Brings the day's result to its file when it has moved; `always`: also when it has hardly.
    private func keepDayResult(always: Bool = false) {
        guard let result = node.dayResult?.keeping(dayResult), result != dayResult,
            always || result.isNews(since: dayResult, configuration.parameters.limits)
        else { return }
        let before = dayResult
        dayResult = result
        control.write(result, then: eventLoop) { [self] isWritten in
            // The next second tries again.
            if !isWritten { dayResult = before }
        }
    }

    /// Rows wait in memory while the disk takes none; quotes that could not be accounted for are pulled after a while (SPEC 2.7).
    private func watchDisk(_ now: Moment) {
        guard let since = spool.troubleSince else {
            guard hasReportedFailure else { return }
            hasReportedFailure = false
            node.resumeAfterDisk()
            logger.warning("Feeds are written again.")
            return
        }
        if !hasReportedFailure {
            hasReportedFailure = true
            logger.error(
                "Feeds cannot be written; rows wait in memory, and quotes are pulled after disk_grace_s.",
                metadata: ["cause": "\(spool.counters.trouble.map { "\($0.cause)" } ?? "")"])
        }
        guard !node.isDiskHalted, now.instant.since(since) >= configuration.diskGraceNanoseconds else { return }
        let cancelled = node.haltForDisk(at: now)
        spool.publish(&node.shared.outboxes)
        logger.error("Quotes are pulled until feeds are written again.", metadata: ["cancelled": "\(cancelled)"])
    }

    private func finish(after deadline: Instant, _ done: EventLoopPromise<Outcome>) {
        let now = present()
        node.advance(to: now)
        spool.publish(&node.shared.outboxes)
        guard node.shared.openOrders == 0 || now.instant >= deadline else {
            eventLoop.scheduleTask(in: .milliseconds(1)) { [self] in finish(after: deadline, done) }
            return
        }
        keepDayResult(always: true)
        endDryArm(at: now)
        let feeds = Result<FeedStatistics, FileError> { () throws(FileError) in
            while endedDryArm != nil {
                try spool.waitForRoom(&node.shared.outboxes, records: SharedState.recordsPerFrame)
                passDryRows()
            }
            while !node.finish() { try spool.waitForRoom(&node.shared.outboxes, records: SharedState.recordsPerFrame) }
            return try spool.finish(&node.shared.outboxes)
        }
        let summary = RunSummary(
            span: span, wallNanoseconds: SystemClock.monotonic().since(startedAt), oversizedLines: 0, feeds: try? feeds.get(),
            directory: configuration.artifactsDirectory)
        done.succeed(Outcome(summary: summary.json(node), feeds: feeds))
    }

    // MARK: Arms and kills

    private func step(_ input: ArmControl.Input) { step(input, at: present()) }

    /// `isScheduled`: blocks change for every symbol every few minutes, in time that a frame waits; rows tell them, the log need not.
    private func step(_ input: ArmControl.Input, at now: Moment, isScheduled: Bool = false) {
        let times = ArmControl.Now(bootNanoseconds: SystemClock.bootNanoseconds(), wallMilliseconds: now.wall.milliseconds)
        perform(arms.step(input, at: times), at: now, isScheduled: isScheduled)
    }

    /// Blocks that began by `now` are played from their beginnings on, so that every tick's arm follows from the tick's own time (SPEC 7.1).
    private func followSchedule(to now: Moment) {
        while now.wall.milliseconds >= planEnd {
            let boundary = WallTime(nanoseconds: planEnd * 1_000_000)
            let late = now.wall.nanoseconds - boundary.nanoseconds
            var begin = Moment(instant: now.instant.advanced(nanoseconds: -late), wall: boundary)
            if late >= 1_000_000_000 {
                // After a pause of the process only the newest block counts.
                begin = now
                node.skipIntervalTicks(upTo: now)
            }
            let before = planEnd
            step(.tick, at: begin, isScheduled: true)
            guard planEnd > before else { return }
        }
    }

    private func followBreaker(at now: Moment) {
        guard node.hasTripped, let trip = node.takeBreaker(at: now) else { return }
        logger.error("A breaker tripped; this edge plays A.", metadata: ["cause": "\(trip.sentence)", "scope": "\(trip.scope.text)"])
        step(.tripped(trip), at: now)
    }

    private func perform(_ effects: [ArmControl.Effect], at now: Moment, isScheduled: Bool = false) {
        for effect in effects {
            switch effect {
            case .apply(let plan):
                apply(plan, at: now)
                guard !isScheduled else { continue }
                logger.info(
                    "Arms changed.",
                    metadata: [
                        "experiment": "\(plan.experiment?.id ?? "none")", "on_b": "\(plan.choices.count { $0.arm == .b })",
                        "why": "\(plan.choices.first { $0.why != .none }?.why.text ?? "none")",
                    ])
            case .say(let message): control.say(message)
            case .record(let record):
                control.append(record.line, to: .latches, then: eventLoop) { [self] result in
                    switch result {
                    case .success:
                        let fields = ArmFields(why: .latch, experiment: ExperimentID(record.experiment), configHash: baselineHash)
                        node.shared.outboxes.events.push(EventRecord(wall: moment().wall, kind: .latch, armFields: fields))
                        step(.recorded(experiment: record.experiment))
                    case .failure: step(.recordFailed(experiment: record.experiment))
                    }
                }
            case .refused(let experiment, let why):
                logger.warning("This edge takes no part in an experiment.", metadata: ["experiment": "\(experiment)", "why": "\(why)"])
            case .damaged(let lines):
                logger.error("latches.jsonl cannot be read; no experiment is played.", metadata: ["lines": "\(lines)"])
            }
        }
        leaseEnd = arms.plan.playsB ? arms.nextDue ?? .max : .max
        planEnd = arms.planEndsMilliseconds ?? .max
        settle()
        shareControl()
    }

    private func apply(_ plan: ArmControl.Plan, at now: Moment) {
        let isDry = plan.choices.contains { $0.why == .dry }
        endDryArm(at: now)
        let candidate = plan.experiment.map { self.candidate($0.candidate) }
        settlingCancelled += node.apply(
            ArmPlan(
                experiment: plan.experiment.flatMap { ExperimentID($0.id) }, candidate: isDry ? nil : candidate?.parameters,
                configHash: candidate?.hash ?? baselineHash, arms: plan.choices), at: now)
        if isDry, let candidate { beginDryArm(plan, candidate, at: now) }
        isSettling = true
        settlingSince = now.wall
        spool.publish(&node.shared.outboxes)
    }

    private func candidate(_ overrides: [ExperimentSpec.Override]) -> Candidate {
        if let candidate, candidate.overrides == overrides { return candidate }
        let new = Candidate(
            // Valid, or the plan would not name the experiment.
            overrides: overrides, parameters: try? configuration.candidate(overrides).parameters(for: venueName),
            hash: configuration.hash(for: venueName, candidate: overrides))
        candidate = new
        return new
    }

    // MARK: Dry

    /// Both arms on the same frames from new books on.
    private func beginDryArm(_ plan: ArmControl.Plan, _ candidate: Candidate, at now: Moment) {
        guard let parameters = candidate.parameters else { return }
        let venue = QuoteNode.Venue(rawValue: venueName)!  // The node's own.
        let connections = VenueConnection.count(venue, symbols: symbols.count)
        dryArm = DryArm(
            venue: venue, instruments: instruments, parameters: configuration.parameters(for: venueName), candidate: parameters,
            experiment: plan.experiment.flatMap { ExperimentID($0.id) }, configHash: candidate.hash,
            enrolled: plan.choices.map { $0.why == .dry }, connections: connections, clock: stopClock, at: now)
        logger.info("A dry arm B begins; the venue's connections are renewed for it.")
        self.venue.turn(at: now.instant, (0..<connections).map { VenueRequest.reconnect(connection: $0) })
    }

    /// Its last rows are as many as symbols take part, and a ring holds 256: what finds no room now is tried again each turn. Rows of a dry arm
    /// that ends while another's still wait push those out.
    private func endDryArm(at now: Moment) {
        guard dryArm != nil else { return }
        dryArm?.advance(to: now)
        endedDryArm = dryArm.take()
        passDryRows()
    }

    private func passDryRows() {
        dryArm?.pass(to: &node.shared.outboxes.snapshots)
        if endedDryArm?.finish(to: &node.shared.outboxes.snapshots) == true { endedDryArm = nil }
    }

    /// Carries out what the node asks for. A ping is the dry arm's, too.
    private func askVenue(at now: Moment) {
        let requests = node.takeRequests()
        if requests.contains(.ping) { dryArm?.pinged(at: now) }
        venue.turn(at: now.instant, requests)
    }

    // MARK: Settling

    /// Tells the arms when the plan took effect; until then it looks again when the next order is due.
    private func settle() {
        guard isSettling else { return }
        if node.changingSymbols == 0 {
            isSettling = false
            let at = max(node.lastChange?.wall ?? settlingSince, settlingSince)
            let cancelled = Int64(settlingCancelled)
            settlingCancelled = 0
            spool.publish(&node.shared.outboxes)
            // Not `present`, which may put the next plan in force: this is of the one that settled.
            step(.settled(atMilliseconds: at.milliseconds, cancelledOrders: cancelled), at: moment())
        } else if let due = node.nextDue {
            eventLoop.scheduleTask(deadline: .uptimeNanoseconds(UInt64(max(0, due.nanoseconds)))) { [self] in
                guard isSettling else { return }
                let now = present()
                node.advance(to: now)
                followBreaker(at: now)
                settle()
                spool.publish(&node.shared.outboxes)
            }
        }
    }

    private func run(_ effects: [KillSwitch.Effect]) {
        for effect in effects {
            switch effect {
            case .kill(let scopes, let order):
                let now = present()
                let cancelled = scopes.reduce(0) { $0 + node.kill($1.symbol, at: now) }
                spool.publish(&node.shared.outboxes)
                if !scopes.isEmpty { logger.warning("Killed.", metadata: ["scope": "\(text(scopes))", "cancelled": "\(cancelled)"]) }
                guard let order else { continue }
                run(kills.step(.performed(order, cancelledOrders: Int64(cancelled), atMilliseconds: now.wall.milliseconds)))
            case .release(let scopes):
                let now = present()
                for scope in scopes { node.release(scope.symbol, at: now) }
                logger.warning("Released.", metadata: ["scope": "\(text(scopes))"])
            case .record(let record, let order):
                let removesFile = record.action == .release && record.symbol == nil
                control.append(record.line, to: .kills, removingKillFile: removesFile, then: eventLoop) { [self] result in
                    switch result {
                    case .success(let log): run(kills.step(.recorded(order, log: log)))
                    case .failure: run(kills.step(.recordFailed(order)))
                    }
                    shareControl()
                }
            case .say(let message): control.say(message)
            case .damaged(let lines):
                logger.error("kills.jsonl cannot be read; the host counts as killed.", metadata: ["lines": "\(lines)"])
            case .rowsGone:
                logger.error("kills.jsonl lost rows; what was killed stays killed until it is released.")
            }
        }
    }

    private func text(_ scopes: [KillSwitch.Scope]) -> String {
        scopes.map { $0.symbol.map { symbols[Int($0)] } ?? "host" }.joined(separator: ",")
    }

    /// What the control loop says for us in its next hello, and how fast it must come back.
    private func shareControl() {
        let state = ControlState(
            revision: max(arms.revision, kills.revision), latches: arms.latchedExperiments,
            holdsLease: arms.holdsLease(at: SystemClock.bootNanoseconds()),
            configHash: arms.plan.experiment.map { candidate($0.candidate).hash } ?? baselineHash)
        // Waking the other thread is a system call, and a new block changes nothing of this.
        guard state != sharedControl else { return }
        sharedControl = state
        control.share(state)
    }
}

extension QuoteLoop: VenueListener {
    func connected(_ connection: Int) {
        (refusalsBefore, hasReportedRefusal) = (node.refusedRequests, false)
        let now = present()
        node.connected(connection, at: now)
        dryArm?.connected(connection, at: now)
    }

    func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int) {
        guard !isStopping else { return }
        // A tick is timed from here on: it may find another block, whose arms are put in force first.
        let readAt = stopClock.now()
        let now = present()
        span = (span?.first ?? now.wall, now.wall)
        node.frame(bytes, on: connection, at: now, readAt: readAt)
        dryArm?.frame(bytes, on: connection, at: now)
        if node.hasTripped { followBreaker(at: now) }
        // A book that lost its chain is asked for at once: what it costs to wait is not quoted.
        if node.hasRequests { askVenue(at: now) }
        if isSettling { settle() }
        spool.publish(&node.shared.outboxes)
    }

    func pong(on connection: Int) {
        let now = present()
        node.pong(on: connection, at: now)
        dryArm?.pong(on: connection, at: now)
        followBreaker(at: now)
    }

    func disconnected(_ connection: Int) {
        guard !isStopping else { return }
        let now = present()
        node.disconnected(connection, at: now)
        // Every order of this venue, whichever book it was made from (SPEC 10.1).
        _ = node.cancelAll(at: now)
        dryArm?.disconnected(connection, at: now)
        spool.publish(&node.shared.outboxes)
    }

    func snapshot(of symbol: SymbolIndex, _ body: UnsafeRawBufferPointer, sentAt: Instant) {
        guard !isStopping else { return }
        let (sent, now) = (clock.moment(at: sentAt), present())
        node.snapshotAnswered(symbol, body, sentAt: sent, at: now)
        dryArm?.snapshotAnswered(symbol, body, sentAt: sent, at: now)
        followBreaker(at: now)
        spool.publish(&node.shared.outboxes)
    }

    func snapshotFailed(of symbol: SymbolIndex, pauseNanoseconds: Int64) {
        guard !isStopping else { return }
        let now = present()
        node.snapshotFailed(symbol, pauseNanoseconds: pauseNanoseconds, at: now)
        dryArm?.snapshotFailed(symbol, pauseNanoseconds: pauseNanoseconds, at: now)
    }

    func isDead(_ connection: Int, at now: Instant) -> Bool { node.isDead(connection, at: now) }

    func hasHeard(of symbol: SymbolIndex) -> Bool { node.hasHeardOf(symbol) }
}

extension KillSwitch.Scope {
    /// Nil is the host, as `QuoteNode.kill` takes it.
    fileprivate var symbol: SymbolIndex? { if case .symbol(let symbol) = self { symbol } else { nil } }
}
