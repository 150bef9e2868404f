import CalibModel
import Wire

// What the hub intends for its fleet, against what each edge reports (SPEC 7, 8.5, 10.1).
//
// State changes in one way only: a decision becomes a record, the record is made durable, and then it is applied; at the next start the same
// records are applied again. What may be lost with the process (connections, statuses, leases) is kept beside it. Invariants:
//   1. Nothing is sent that follows from a record which is not durable yet.
//   2. A rolled-back experiment never comes back: no lease is granted from the moment the rollback is decided, durable or not, and every host that names
//      the experiment is sent the rollback until it has latched it.
//   3. A command is sent on every new connection of a host until that host's last word is in.
//   4. A kill is in force until a second operator releases it; a host that turns up in the meantime is sent it.

/// Experiments, commands, leases and the log of them.
package struct Control: Sendable {
    package enum Input: Sendable {
        case started
        /// A client was let in; `hello` is what it said.
        case connected(LinkID, Peer, Message.Hello)
        case disconnected(LinkID)
        /// `status`, `lease` or `command_result` of an edge.
        case received(LinkID, Message)
        case request(LinkID, Message.Request)
        /// A file of the host is to go on in a new part.
        case part(host: String, FeedPart)
        /// The answer to `survey`.
        case surveyed(experiment: String, ExperimentHistory)
        /// What the stored rows of a running experiment say.
        case assessed(Assessment)
        /// A host owes a pair for too long.
        case silent(experiment: String, PairPlan.Silence)
        /// Every record up to this one is durable.
        case persisted(Int64)
        case tick
    }

    package enum Effect: Sendable, Equatable {
        /// Make it durable, then step with `.persisted`. Records come in order.
        case persist(LogRecord)
        case send(LinkID, Message)
        case reply(LinkID, id: Int64, Message.Reply.Outcome)
        /// The part is in the log: bytes may go to it.
        case partRecorded(host: String, FeedPart)
        /// Look at the stored rows of these hosts from this source before the experiment starts, in pairs of blocks of a length in ms; answer
        /// with `.surveyed`.
        case survey(experiment: String, hosts: [String], source: RowSource, blockMilliseconds: Int64)
        /// Read the experiment's stored rows from now on, and answer with `.assessed` and `.silent`; again: nothing new.
        case watch(Experiment)
        case unwatch(experiment: String)
        case silenceRecorded(experiment: String, PairPlan.Silence)
    }

    package struct Host: Sendable {
        package let name: String
        package let firstSeenMilliseconds: Int64
        package var lastSeenMilliseconds: Int64
        package var epoch: String
        package var source: String
        package var venue: String
        package var symbols: [String]
        // Not in the log:
        var lastSeen: Instant?
        package var link: LinkID?
        package var reportedRevision: Revision?
        package var latches: [String] = []
        package var backlogBytes: Int64?
        package var isKilled: Bool?
        package var statusAt: Instant?
        /// The host's clock minus ours as its last status came.
        package var clockOffsetMilliseconds: Int64?
        package var status: [String: (symbol: Message.Status.Symbol, at: Instant)] = [:]
        package var lease: Lease?
    }

    /// The last one granted.
    package struct Lease: Sendable, Equatable {
        package var experiment: String
        package var number: Int64
        package var grantedAt: Instant
        package var expiresMilliseconds: Int64
    }

    private struct Start {
        var link: LinkID
        var request: Int64
        var by: String
        var reason: String
        var mode: ExperimentSpec.Mode
    }

    private struct Waiter {
        var link: LinkID
        var request: Int64
        var command: String
        var deadline: Instant
    }

    private var chain: LogChain
    private let random: @Sendable () -> UInt64
    /// Proposed and not durable yet.
    private var pending: [LogRecord] = []
    private var deferred: [(link: LinkID, request: Message.Request)] = []
    private var waiters: [Waiter] = []
    /// Experiments whose start waits for a survey.
    private var starts: [String: Start] = [:]
    /// Of running experiments, the newest.
    package private(set) var assessments: [String: Assessment] = [:]
    /// Who asked for a record, to be answered when it is applied.
    private var askers: [Int64: (link: LinkID, request: Int64, timeout: Int64)] = [:]
    private var links: [LinkID: Peer] = [:]
    private var startedAt: Instant?
    /// Of the newest record applied.
    package private(set) var revision = Revision.zero

    package private(set) var hosts: [String: Host] = [:]
    /// In the order of creation.
    package private(set) var experiments: [Experiment] = []
    package private(set) var commands: [FleetCommand] = []
    /// By host, in the order in which they were begun.
    package private(set) var parts: [String: [FeedPart]] = [:]
    /// Of all commands in the log, also those that are not listed any more.
    package private(set) var results = CommandResults()

    /// `sha256`: 64 hex digits of the bytes. `random`: unpredictable outside tests; it makes salts and ids.
    package init(sha256: @escaping @Sendable ([UInt8]) -> String, random: @escaping @Sendable () -> UInt64) {
        chain = LogChain(sha256: sha256)
        self.random = random
    }

    // MARK: The log

    /// Applies the next stored record, at the start and before any `step`.
    package mutating func replay(_ record: [UInt8]) throws(LogDamage) {
        let record = try chain.verify(record)
        do throws(WireError) { try apply(record) } catch {
            throw LogDamage(number: record.number, reason: "its \(record.kind.rawValue) cannot be read: \(error.sentence)")
        }
    }

    private mutating func propose(
        _ kind: LogRecord.Kind, at now: Moment, term: Int64? = nil, _ effects: inout [Effect], _ body: (inout JSONWriter) -> Void
    ) -> Int64 {
        let record = chain.append(kind, .object(body), at: now.wall.milliseconds, term: term)
        pending.append(record)
        effects.append(.persist(record))
        return record.number
    }

    // MARK: Steps

    package mutating func step(_ input: Input, at now: Moment) -> [Effect] {
        var effects: [Effect] = []
        switch input {
        case .started:
            startedAt = now.instant
            // A new term at every start: whatever a predecessor sent and did not log is older (SPEC 8.5).
            _ = propose(.term, at: now, term: chain.term + 1, &effects) { $0.field("why", string: "start" as StaticString) }
            for experiment in experiments where experiment.state.isRunning { watch(experiment.spec.id, &effects) }
        case .connected(let link, let peer, let hello): connected(link, peer, hello, now, &effects)
        case .disconnected(let link): disconnected(link, now)
        case .received(let link, let message): received(link, message, now, &effects)
        case .request(let link, let request): self.request(link, request, now, &effects)
        case .part(let host, let part):
            _ = propose(.part, at: now, &effects) { json in
                json.field("host", string: host)
                part.write(to: &json)
            }
        case .surveyed(let id, let history): surveyed(id, history, now, &effects)
        case .assessed(let assessment): assessed(assessment, now, &effects)
        case .silent(let id, let silence): silent(id, silence, now, &effects)
        case .persisted(let number): persisted(number, now, &effects)
        case .tick: break
        }
        answerWaiters(now, &effects)
        return effects
    }

    private mutating func persisted(_ number: Int64, _ now: Moment, _ effects: inout [Effect]) {
        let durable = Array(pending.prefix { $0.number <= number })
        pending.removeFirst(durable.count)
        // All of them first: what is taken back in the same commit is never handed out.
        for record in durable {
            do throws(WireError) { try apply(record) } catch { preconditionFailure("BUG: own record \(record.number): \(error)") }
        }
        for record in durable { follow(record, now, &effects) }
        guard !isDeciding, !deferred.isEmpty else { return }
        let again = deferred
        deferred = []
        // The first that decides something defers the others once more.
        for (link, request) in again { self.request(link, request, now, &effects) }
    }

    /// A decision of an operator is on its way to the disk: the next one waits until it is known to hold.
    private var isDeciding: Bool {
        pending.contains { record in
            switch record.kind {
            case .experiment, .experimentState, .command: true
            case .term, .host, .target, .result, .part, .silence: false
            }
        }
    }

    // MARK: Connections

    private mutating func connected(_ link: LinkID, _ peer: Peer, _ hello: Message.Hello, _ now: Moment, _ effects: inout [Effect]) {
        links[link] = peer
        guard let edge = hello.edge else { return }
        if edge.revision.term > chain.term || (edge.revision.term == chain.term && edge.revision.number > chain.number) {
            // An edge has heard a hub that this log does not know: above it, so that nothing it holds is newer than what we say.
            _ = propose(.term, at: now, term: edge.revision.term + 1, &effects) { json in
                json.field("why", string: "edge" as StaticString)
                json.field("host", string: edge.host)
            }
        }
        if let known = hosts[edge.host], known.epoch == edge.epoch, known.source == edge.source, known.venue == edge.venue,
            known.symbols == edge.symbols
        {
            // Nothing new.
        } else {
            let firstSeen = hosts[edge.host]?.firstSeenMilliseconds ?? now.wall.milliseconds
            _ = propose(.host, at: now, &effects) { json in
                json.field("host", string: edge.host)
                json.field("epoch", string: edge.epoch)
                json.field("source", string: edge.source)
                json.field("venue", string: edge.venue)
                json.field("symbols", strings: edge.symbols)
                json.field("first_seen_ms", integer: firstSeen)
            }
        }
        var host = hosts[edge.host] ?? Host(edge, now.wall.milliseconds)
        host.link = link
        host.lastSeen = now.instant
        host.lastSeenMilliseconds = now.wall.milliseconds
        host.reportedRevision = edge.revision
        host.latches = edge.latches
        // What it told on another connection says nothing about this one.
        host.status = [:]
        (host.statusAt, host.clockOffsetMilliseconds) = (nil, nil)
        hosts[edge.host] = host
        sendOwed(edge.host, now, &effects)
        sendAssignment(edge.host, &effects)
        // Its breaker latched one while nobody heard of it (SPEC 7.4).
        for experiment in experiments where experiment.state.isRunning && edge.latches.contains(experiment.spec.id) {
            decideRollback(experiment, reason: "latched by \(edge.host)", evidence: nil, now, &effects)
        }
    }

    private mutating func disconnected(_ link: LinkID, _ now: Moment) {
        let host = host(of: link)
        links[link] = nil
        deferred.removeAll { $0.link == link }
        starts = starts.filter { $0.value.link != link }
        waiters.removeAll { $0.link == link }
        askers = askers.filter { $0.value.link != link }
        guard let name = host else { return }
        hosts[name]?.link = nil
        hosts[name]?.lastSeen = now.instant
        hosts[name]?.lastSeenMilliseconds = now.wall.milliseconds
    }

    /// Nil also when its host has a newer connection.
    private func host(of link: LinkID) -> String? {
        guard let peer = links[link], peer.role == .edge, hosts[peer.name]?.link == link else { return nil }
        return peer.name
    }

    // MARK: Edges

    private mutating func received(_ link: LinkID, _ message: Message, _ now: Moment, _ effects: inout [Effect]) {
        guard let name = host(of: link) else { return }
        hosts[name]?.lastSeen = now.instant
        hosts[name]?.lastSeenMilliseconds = now.wall.milliseconds
        switch message {
        case .status(let status): self.status(status, name, now, &effects)
        case .lease(let lease): self.lease(lease, name, link, now, &effects)
        case .commandResult(let result): self.result(result, name, now, &effects)
        case .breaker(let breaker): self.breaker(breaker, name, now, &effects)
        case .ping, .pong, .error, .hello, .welcome, .resume, .append, .ack, .sealed, .gone, .assignment, .command, .request, .reply,
            .progress, .chunk:
            preconditionFailure("BUG: '\(message.type)' is not for the control core")
        }
    }

    private mutating func status(_ status: Message.Status, _ name: String, _ now: Moment, _ effects: inout [Effect]) {
        // In place: a copy would copy all symbols with it, once a second for each host.
        guard let place = hosts.index(forKey: name) else { return }
        hosts.values[place].reportedRevision = status.revision
        hosts.values[place].backlogBytes = status.backlogBytes
        hosts.values[place].isKilled = status.isKilled
        hosts.values[place].statusAt = now.instant
        let (offset, overflowed) = status.wallMilliseconds.subtractingReportingOverflow(now.wall.milliseconds)
        hosts.values[place].clockOffsetMilliseconds = overflowed ? nil : offset
        for symbol in status.symbols
        where hosts.values[place].status[symbol.symbol] != nil || hosts.values[place].status.count < Limits.symbolsMax {
            hosts.values[place].status[symbol.symbol] = (symbol, now.instant)
        }
        let latches = hosts.values[place].latches
        for experiment in Set(status.symbols.compactMap(\.experiment)).sorted() where !isKnownAndNotRolledBack(experiment) {
            // A reported experiment is B's only while the lease lives; rows of a latched one keep its name.
            if !latches.contains(experiment), status.symbols.contains(where: { $0.experiment == experiment && $0.arm == "B" }) {
                oweRollback(experiment, to: name, isRepeated: false, now, &effects)
            }
        }
    }

    private mutating func lease(_ lease: Message.Lease, _ name: String, _ link: LinkID, _ now: Moment, _ effects: inout [Effect]) {
        let isGranted = mayHold(lease.experiment, name)
        if isGranted {
            hosts[name]?.lease = Lease(
                experiment: lease.experiment, number: lease.number, grantedAt: now.instant,
                expiresMilliseconds: now.wall.milliseconds + Limits.leaseNanoseconds / 1_000_000)
        }
        let duration = isGranted ? Limits.leaseNanoseconds / 1_000_000 : 0
        let answer = Message.Lease(
            experiment: lease.experiment, number: lease.number, durationMilliseconds: duration, wallMilliseconds: now.wall.milliseconds)
        effects.append(.send(link, .lease(answer)))
        if !isKnownAndNotRolledBack(lease.experiment) { oweRollback(lease.experiment, to: name, isRepeated: true, now, &effects) }
    }

    /// Whether B may be played there: only while the experiment is online and nobody has asked to take it back.
    private func mayHold(_ id: String, _ name: String) -> Bool {
        guard let experiment = experiment(id), experiment.state == .online, let host = hosts[name],
            experiment.enrols(host.symbols, on: name), !host.latches.contains(id)
        else { return false }
        return !isBeingChanged(id)
    }

    private func isKnownAndNotRolledBack(_ id: String) -> Bool {
        guard let experiment = experiment(id) else { return false }
        return experiment.state != .rolledBack
    }

    /// The host names an experiment it must not play (SPEC 7.6). `isRepeated`: send it even when it was sent on this connection already, as
    /// the host asks again all the same.
    private mutating func oweRollback(_ id: String, to name: String, isRepeated: Bool, _ now: Moment, _ effects: inout [Effect]) {
        guard ExperimentSpec.isID(id) else { return }
        func isPending(_ record: LogRecord) -> Bool {
            (record.kind == .command && record.body["experiment"]?.string == id)
                || (record.kind == .target && record.body["host"]?.string == name)
        }
        guard !pending.contains(where: isPending) else { return }
        guard let place = commands.firstIndex(where: { $0.wire.kind == .rollback && $0.wire.experiment == id }) else {
            proposeCommand(
                .rollback, experiment: id, host: nil, symbol: nil, targets: [name], reason: "the hub knows no such experiment", by: "hub",
                now,
                &effects)
            return
        }
        let command = commands[place].wire.id
        guard commands[place].deliveries[name] != nil else {
            _ = propose(.target, at: now, &effects) { json in
                json.field("command", string: command)
                json.field("host", string: name)
            }
            return
        }
        send(place, to: name, isRepeated: isRepeated, now, &effects)
    }

    private mutating func result(_ result: Message.CommandResult, _ name: String, _ now: Moment, _ effects: inout [Effect]) {
        guard let place = commands.firstIndex(where: { $0.wire.id == result.id }), let delivery = commands[place].deliveries[name],
            !delivery.state.isFinal, delivery.state.rawValue != result.state.rawValue
        else { return }
        guard !pending.contains(where: { isSame($0, result, name) }) else { return }
        let latency = delivery.sentAt.map { now.instant.since($0) }
        _ = propose(.result, at: now, &effects) { json in
            json.field("command", string: result.id)
            json.field("host", string: name)
            json.field("state", string: result.state.rawValue)
            json.field("sent_ms", integer: delivery.sentMilliseconds)
            json.field("received_ms", integer: now.wall.milliseconds)
            json.field("latency_ms", fixed: latency, places: Places.milliseconds)
            json.field("edge_at_ms", integer: result.atMilliseconds)
            json.field("cancelled_orders", integer: result.cancelledOrders)
            json.field("text", string: result.text.map { String($0.prefix(256)) })
        }
    }

    private func isSame(_ record: LogRecord, _ result: Message.CommandResult, _ name: String) -> Bool {
        record.kind == .result && record.body["command"]?.string == result.id && record.body["host"]?.string == name
            && record.body["state"]?.string == result.state.rawValue
    }

    // MARK: Sending

    /// Everything a host has not finished yet.
    private mutating func sendOwed(_ name: String, _ now: Moment, _ effects: inout [Effect]) {
        for place in commands.indices {
            if commands[place].deliveries[name] != nil {
                send(place, to: name, now, &effects)
            } else if commands[place].isInForce, isInScope(commands[place], name) {
                let id = commands[place].wire.id
                guard
                    !pending.contains(where: { $0.kind == .target && $0.body["host"]?.string == name && $0.body["command"]?.string == id })
                else { continue }
                _ = propose(.target, at: now, &effects) { json in
                    json.field("command", string: id)
                    json.field("host", string: name)
                }
            }
        }
    }

    private func isInScope(_ command: FleetCommand, _ name: String) -> Bool {
        guard command.host == nil || command.host == name else { return false }
        guard let symbol = command.wire.symbol else { return true }
        return command.host == name || hosts[name]?.symbols.contains(symbol) == true
    }

    /// Once per connection until the host's last word is in; `isRepeated`: in any case.
    private mutating func send(_ place: Int, to name: String, isRepeated: Bool = false, _ now: Moment, _ effects: inout [Effect]) {
        guard let link = hosts[name]?.link, var delivery = commands[place].deliveries[name],
            isRepeated || (!delivery.state.isFinal && delivery.sentOn != link)
        else { return }
        if delivery.sentAt == nil {
            delivery.sentAt = now.instant
            delivery.sentMilliseconds = now.wall.milliseconds
        }
        delivery.sentOn = link
        if delivery.state == .unconfirmed { delivery.state = .sent }
        commands[place].deliveries[name] = delivery
        effects.append(.send(link, .command(commands[place].wire)))
    }

    /// The experiment that is online. After a rollback a host that has latched it keeps its assignment, so that its rows go on to say why they
    /// are A's; to any other host a rolled-back experiment is none.
    private func sendAssignment(_ name: String, _ effects: inout [Effect]) {
        guard let host = hosts[name], let link = host.link else { return }
        let known = experiments.filter { $0.enrols(host.symbols, on: name) }
        let intended =
            known.last { $0.state.isRunning }
            ?? known.last { $0.state != .draft }.flatMap { last in
                last.state == .rolledBack && host.latches.contains(last.spec.id) ? last : nil
            }
        effects.append(
            .send(
                link,
                .assignment(
                    Message.Assignment(revision: revision, experiment: intended?.spec, isPaused: intended?.state == .paused))))
    }

    // MARK: Applying

    private mutating func apply(_ record: LogRecord) throws(WireError) {
        let fields = try Fields(record.body, of: "body")
        switch record.kind {
        case .term: break
        case .host: try applyHost(fields, record)
        case .experiment:
            var experiment = Experiment(
                spec: try ExperimentSpec(fields.value("spec")), state: .draft, reason: try fields.string("reason"),
                by: try fields.string("by"), changedMilliseconds: record.timestamp)
            experiment.note(
                .init(milliseconds: record.timestamp, state: .draft, by: experiment.by, reason: experiment.reason, evidence: nil))
            if fields.optional("state") == nil {
                // Of a version whose experiments began as they were made, and which judged none.
                let reason = "made by an earlier version, which judged nothing"
                experiment.note(.init(milliseconds: record.timestamp, state: .stopped, by: "hub", reason: reason, evidence: nil))
            }
            experiments.append(experiment)
            if experiments.count > Limits.experimentsListedMax, let old = experiments.firstIndex(where: { !$0.state.isRunning }) {
                experiments.remove(at: old)
            }
        case .experimentState: try applyState(fields, record)
        case .silence:
            let id = try fields.string("id")
            let silence = try PairPlan.Silence(fields)
            if let place = experiments.firstIndex(where: { $0.spec.id == id }) { experiments[place].silences.insert(silence) }
        case .command: try applyCommand(fields, record)
        case .target:
            let id = try fields.string("command")
            let host = try fields.string("host")
            guard let place = commands.firstIndex(where: { $0.wire.id == id }), commands[place].deliveries[host] == nil else { break }
            commands[place].deliveries[host] = FleetCommand.Delivery()
        case .result: try applyResult(fields)
        case .part: parts[try fields.string("host"), default: []].append(try FeedPart(fields))
        }
        revision = record.revision
    }

    private mutating func applyHost(_ fields: Fields, _ record: LogRecord) throws(WireError) {
        let name = try fields.string("host")
        let firstSeen = try fields.integer("first_seen_ms")
        var host =
            hosts[name]
            ?? Host(
                name: name, firstSeenMilliseconds: firstSeen, lastSeenMilliseconds: record.timestamp, epoch: "", source: "", venue: "",
                symbols: [])
        host.epoch = try fields.string("epoch")
        host.source = try fields.string("source")
        host.venue = try fields.string("venue")
        host.symbols = try fields.strings("symbols")
        hosts[name] = host
    }

    private mutating func applyState(_ fields: Fields, _ record: LogRecord) throws(WireError) {
        guard let state = Experiment.State(rawValue: try fields.string("state")) else { throw .outOfRange("state") }
        let id = try fields.string("id")
        guard let place = experiments.firstIndex(where: { $0.spec.id == id }), experiments[place].state != .rolledBack else { return }
        // What it starts with: the spec with its times, and who plays it.
        if let spec = fields.optional("spec") { experiments[place].spec = try ExperimentSpec(spec) }
        if let hosts = fields.optional("hosts")?.array {
            var planned: [PairPlan.Host] = []
            for value in hosts {
                let host = try Fields(value, of: "hosts")
                planned.append(PairPlan.Host(name: try host.string("host"), symbols: try host.strings("symbols")))
            }
            experiments[place].hosts = planned
        }
        if let source = try fields.optionalString("source") {
            experiments[place].source = RowSource.allCases.first { $0.name == source }
        }
        try note(place, state, fields, record)
    }

    private mutating func note(_ place: Int, _ state: Experiment.State, _ fields: Fields, _ record: LogRecord) throws(WireError) {
        if let verdict = try fields.optionalString("verdict") {
            guard let verdict = Experiment.Verdict(rawValue: verdict) else { throw .outOfRange("verdict") }
            experiments[place].verdict = verdict
        }
        experiments[place].note(
            .init(
                milliseconds: record.timestamp, state: state, by: try fields.string("by"), reason: try fields.string("reason"),
                evidence: fields.optional("evidence")))
    }

    private mutating func applyCommand(_ fields: Fields, _ record: LogRecord) throws(WireError) {
        guard let kind = Message.CommandKind(rawValue: try fields.string("kind")) else { throw .outOfRange("kind") }
        let wire = Message.Command(
            id: try fields.string("id"), revision: record.revision, kind: kind, experiment: try fields.optionalString("experiment"),
            symbol: try fields.optionalString("symbol"), set: fields.optional("set") == nil ? [] : try fields.overrides("set"),
            reason: try fields.string("reason"), by: try fields.string("by"), issuedMilliseconds: record.timestamp)
        var deliveries: [String: FleetCommand.Delivery] = [:]
        for host in try fields.strings("targets") { deliveries[host] = FleetCommand.Delivery() }
        let command = FleetCommand(
            wire: wire, host: try fields.optionalString("host"), deliveries: deliveries, isInForce: kind == .kill)
        switch kind {
        case .rollback:
            if let place = experiments.firstIndex(where: { $0.spec.id == wire.experiment }) {
                try note(place, .rolledBack, fields, record)
            }
        case .kill, .parameters: break
        case .release:
            for place in commands.indices where commands[place].isInForce && command.covers(commands[place]) {
                commands[place].isInForce = false
                // A host that has not heard of the kill yet must not hear of it after its release.
                for host in commands[place].deliveries.keys where commands[place].deliveries[host]?.state.isFinal == false {
                    commands[place].deliveries[host] = nil
                }
            }
        }
        commands.append(command)
        // Forgetting an experiment is safe: whoever names it is sent a rollback, as for every other unknown one.
        if commands.count > Limits.commandsListedMax, let old = commands.firstIndex(where: { $0.isDone && !$0.isInForce }) {
            commands.remove(at: old)
        }
    }

    private mutating func applyResult(_ fields: Fields) throws(WireError) {
        let id = try fields.string("command")
        let host = try fields.string("host")
        guard let state = Message.CommandState(rawValue: try fields.string("state")) else { throw .outOfRange("state") }
        guard let place = commands.firstIndex(where: { $0.wire.id == id }), var delivery = commands[place].deliveries[host],
            !delivery.state.isFinal  // Two answers may be on their way to the disk at once.
        else { return }
        delivery.sentMilliseconds = try fields.optionalInteger("sent_ms")
        let received = try fields.integer("received_ms")
        let latency = try fields.optionalFixed("latency_ms", places: Places.milliseconds)
        switch state {
        case .applied:
            delivery.state = .applied
            delivery.appliedMilliseconds = received
            delivery.appliedLatency = latency
            delivery.edgeAppliedMilliseconds = try fields.integer("edge_at_ms")
            delivery.cancelledOrders = try fields.integer("cancelled_orders")
        case .latched:
            delivery.state = .latched
            delivery.latchedMilliseconds = received
            delivery.latchedLatency = latency
            if let experiment = commands[place].wire.experiment, hosts[host]?.latches.contains(experiment) == false {
                hosts[host]?.latches.append(experiment)
            }
        case .rejected: delivery.state = .rejected
        }
        if let text = try fields.optionalString("text") { delivery.text = text }
        commands[place].deliveries[host] = delivery
        results.add(commands[place].wire.kind, state, latency)
    }

    /// What a durable record has to be followed by.
    private mutating func follow(_ record: LogRecord, _ now: Moment, _ effects: inout [Effect]) {
        switch record.kind {
        case .term, .result: break
        case .part:
            // Its own part, not the host's newest: one commit may hold several of a host.
            do throws(WireError) {
                let fields = try Fields(record.body, of: "part")
                effects.append(.partRecorded(host: try fields.string("host"), try FeedPart(fields)))
            } catch { preconditionFailure("BUG: own record \(record.number): \(error)") }
        case .host:
            // Its symbols may have changed what it is enrolled in and which kills it is owed.
            guard let name = record.body["host"]?.string else { return }
            sendOwed(name, now, &effects)
            sendAssignment(name, &effects)
        case .target:
            guard let name = record.body["host"]?.string else { return }
            sendOwed(name, now, &effects)
        case .experiment: answerExperiment(record, &effects)
        case .experimentState:
            for name in hosts.keys.sorted() { sendAssignment(name, &effects) }
            watch(record.body["id"]?.string ?? "", &effects)
            answerExperiment(record, &effects)
        case .silence:
            guard let id = record.body["id"]?.string, let fields = try? Fields(record.body, of: "silence"),
                let silence = try? PairPlan.Silence(fields)
            else { return }
            effects.append(.silenceRecorded(experiment: id, silence))
        case .command:
            guard let place = commands.firstIndex(where: { $0.wire.id == record.body["id"]?.string }) else { return }
            for name in commands[place].deliveries.keys.sorted() { send(place, to: name, now, &effects) }
            if let experiment = commands[place].wire.experiment { watch(experiment, &effects) }
            // No other assignment: the command itself takes the experiment away, for ever.
            if let asker = askers.removeValue(forKey: record.number) {
                waiters.append(
                    Waiter(
                        link: asker.link, request: asker.request, command: commands[place].wire.id,
                        deadline: now.instant.advanced(nanoseconds: asker.timeout * 1_000_000)))
            }
        }
    }

    // MARK: Operators

    private mutating func request(_ link: LinkID, _ request: Message.Request, _ now: Moment, _ effects: inout [Effect]) {
        guard let peer = links[link] else { return }
        do throws(Refusal) {
            let verb = try Verb.check(request, by: peer)
            if verb.acts, isDeciding {
                guard deferred.count < Limits.deferredRequestsMax else { throw .failed("busy", "too many actions are under way") }
                deferred.append((link, request))
                return
            }
            if let body = try answer(verb, request, link, peer, now, &effects) {
                effects.append(.reply(link, id: request.id, .ok(body)))
            }
        } catch {
            effects.append(.reply(link, id: request.id, error.outcome))
        }
    }

    /// The reply's body, or nil when it comes later.
    private mutating func answer(
        _ verb: Verb, _ request: Message.Request, _ link: LinkID, _ peer: Peer, _ now: Moment, _ effects: inout [Effect]
    ) throws(Refusal) -> JSONValue? {
        let arguments = request.arguments
        switch verb {
        case .experimentList: return experimentList
        case .experimentGet: return try experimentGet(arguments["id"] ?? "", now)
        case .gateList: return try gateList(arguments["id"] ?? "")
        case .commandList: return commandList(now)
        case .experimentCreate:
            let number = try create(arguments, peer, now, &effects)
            askers[number] = (link, request.id, 0)
        case .experimentStart:
            if let number = try start(arguments, link, request.id, peer, now, &effects) { askers[number] = (link, request.id, 0) }
        case .experimentPause, .experimentStop, .experimentPromote:
            let number = try change(verb, arguments, peer, now, &effects)
            askers[number] = (link, request.id, 0)
        case .experimentRollback, .kill, .killRelease, .parametersSet:
            guard waiters.count < Limits.commandWaitersMax else { throw .failed("busy", "too many operators wait for commands") }
            let timeout = try self.timeout(arguments)
            switch verb {
            case .experimentRollback:
                let reason = try Verb.reason(arguments)
                let experiment = try known(arguments["id"] ?? "")
                if let old = commands.first(where: { $0.wire.kind == .rollback && $0.wire.experiment == experiment.spec.id }) {
                    // It is taken back already: whoever asks waits for the same hosts.
                    waiters.append(
                        Waiter(
                            link: link, request: request.id, command: old.wire.id,
                            deadline: now.instant.advanced(nanoseconds: timeout * 1_000_000)))
                    return nil
                }
                let targets = enrolledHosts(experiment)
                let number = proposeCommand(
                    .rollback, experiment: experiment.spec.id, host: nil, symbol: nil, targets: targets, reason: reason, by: peer.identity,
                    verdict: experiment.verdict == .pass ? .inconclusive : experiment.verdict, now, &effects)
                askers[number] = (link, request.id, timeout)
            case .kill:
                let number = try kill(arguments, peer, now, &effects)
                askers[number] = (link, request.id, timeout)
            case .parametersSet:
                let number = try setParameters(arguments, peer, now, &effects)
                askers[number] = (link, request.id, timeout)
            default:
                let number = try release(arguments, peer, now, &effects)
                askers[number] = (link, request.id, timeout)
            }
        case .hostList, .gateExplain, .datasetBuild, .datasetList, .datasetPull, .reportBuild, .reportList, .reportPull:
            preconditionFailure("BUG: '\(verb.rawValue)' is not the control core's")
        }
        return nil
    }

    private func timeout(_ arguments: [String: String]) throws(Refusal) -> Int64 {
        guard let text = arguments["timeout_ms"] else { return Limits.commandWaitMilliseconds }
        guard let value = Int64(text), (0...Limits.commandWaitMillisecondsMax).contains(value) else {
            throw .usage("timeout_ms is a whole number from 0 to \(Limits.commandWaitMillisecondsMax)")
        }
        return value
    }

    func known(_ id: String) throws(Refusal) -> Experiment {
        guard let experiment = experiment(id) else {
            throw Refusal("unknown_experiment", "there is no experiment '\(id.prefix(64))'", exit: 2)
        }
        return experiment
    }

    package func experiment(_ id: String) -> Experiment? { experiments.first { $0.spec.id == id } }

    private mutating func create(_ arguments: [String: String], _ peer: Peer, _ now: Moment, _ effects: inout [Effect]) throws(Refusal)
        -> Int64
    {
        let reason = try Verb.reason(arguments)
        let milliseconds = now.wall.milliseconds
        let id = arguments["id"] ?? "exp-\(TimeText.stamp(milliseconds))"
        guard ExperimentSpec.isID(id) else {
            throw .usage("an id has 1 to \(ExperimentSpec.idBytesMax) letters, digits, '-', '_' and '.'")
        }
        guard let design = ExperimentSpec.Design(rawValue: arguments["design"] ?? ExperimentSpec.Design.switchback.rawValue) else {
            throw .usage("a design is \(ExperimentSpec.Design.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let split = try self.split(arguments["split"], design)
        let candidate = try overrides(arguments["candidate"] ?? "", of: "candidate")
        guard experiment(id) == nil, !hosts.values.contains(where: { $0.latches.contains(id) }),
            !commands.contains(where: { $0.wire.experiment == id })
        else { throw .failed("exists", "the id '\(id)' has been used before") }
        let fleet = Set(hosts.values.flatMap(\.symbols))
        var symbols = Set(Verb.names(arguments["symbols"]))
        if let unknown = symbols.subtracting(fleet).min() { throw .failed("unknown_symbol", "no host quotes '\(unknown.prefix(64))'") }
        if symbols.isEmpty { symbols = fleet }
        guard !symbols.isEmpty else { throw .failed("no_symbols", "no host has connected yet, so there are no symbols") }
        guard symbols.count <= Limits.symbolsMax else { throw .failed("too_many", "more than \(Limits.symbolsMax) symbols") }
        let salt = hexadecimal(random()) + hexadecimal(random())
        var spec = ExperimentSpec(
            id: id, design: design.rawValue, createdMilliseconds: milliseconds, salt: salt, splitMicro: split, candidate: candidate)
        switch design {
        case .symbol: (spec.symbolsA, spec.symbolsB) = ExperimentSpec.split(symbols.sorted(), splitMicro: split, salt: salt)
        case .hostSymbol:
            let playing = hosts.values.filter { !symbols.isDisjoint(with: $0.symbols) }.map(\.name)
            spec.hostSymbols = ExperimentSpec.HostSymbols(hosts: playing, symbols: symbols.sorted())
        case .switchback: spec.switchback = try switchback(arguments, symbols.sorted(), salt)
        }
        guard spec.bytes.count < Limits.controlLineBytesMax / 2 else {
            throw .failed("too_long", "the experiment does not fit in a message")
        }
        return propose(.experiment, at: now, &effects) { json in
            json.key("spec")
            spec.write(to: &json)
            json.field("state", string: Experiment.State.draft.rawValue)
            json.field("reason", string: reason)
            json.field("by", string: peer.identity)
        }
    }

    /// In 1e-6; half of them when nothing is said.
    private func split(_ text: String?, _ design: ExperimentSpec.Design) throws(Refusal) -> Int64 {
        guard let text else { return 500_000 }
        guard design != .switchback else { throw .usage("a switchback gives B one half of every pair: it takes no split") }
        guard let split = Array(text.utf8).withUnsafeBytes({ DecimalText($0)?.exact(places: 6) }), (0...1_000_000).contains(split) else {
            throw .usage("split is a share from 0 to 1 with at most 6 decimal places")
        }
        return split
    }

    /// A draft's: its T0 and its matching are made as it starts.
    private func switchback(_ arguments: [String: String], _ symbols: [String], _ salt: String) throws(Refusal) -> Switchback {
        func milliseconds(_ name: String, in range: ClosedRange<Int64>, otherwise: Int64) throws(Refusal) -> Int64 {
            guard let text = arguments[name] else { return otherwise * 1000 }
            guard let value = Int64(text), range.contains(value), value.isMultiple(of: 10) else {
                throw .usage("\(name) is a multiple of 10 from \(range.lowerBound) to \(range.upperBound)")
            }
            return value * 1000
        }
        let block = try milliseconds("block_sec", in: 30...86_400, otherwise: 300)
        let washout = try milliseconds("washout_sec", in: 0...(block / 1000 - 10), otherwise: min(30, block / 1000 - 10))
        let jitter = try milliseconds("jitter_sec", in: 0...86_400, otherwise: 0)
        var ramp: [Switchback.RampStep] = []
        for step in Verb.names(arguments["ramp"]) {
            let halves = step.split(separator: ":", omittingEmptySubsequences: false)
            guard halves.count == 2, let pair = Int32(halves[0]), (0...Limits.experimentPairsMax).contains(pair),
                let share = Array(halves[1].utf8).withUnsafeBytes({ DecimalText($0)?.exact(places: 6) }), (0...1_000_000).contains(share),
                ramp.last.map({ $0.fromPair < pair && $0.shareMicro <= share }) ?? true
            else { throw .usage("a ramp is PAIR:SHARE,PAIR:SHARE, both rising, such as 0:0.1,12:0.5,36:1") }
            ramp.append(Switchback.RampStep(fromPair: pair, shareMicro: share))
        }
        let (key0, key1) = ExperimentSpec.keys(salt)
        return Switchback(
            startMilliseconds: 0, blockMilliseconds: block, washoutMilliseconds: washout, jitterMilliseconds: jitter, key0: key0,
            key1: key1, clusters: Switchback.matched(symbols), ramp: ramp)
    }

    // MARK: Lifecycle

    /// The number of the record that answers it; nil: it is surveyed first.
    private mutating func start(
        _ arguments: [String: String], _ link: LinkID, _ request: Int64, _ peer: Peer, _ now: Moment, _ effects: inout [Effect]
    ) throws(Refusal) -> Int64? {
        let reason = try Verb.reason(arguments)
        let experiment = try known(arguments["id"] ?? "")
        let id = experiment.spec.id
        guard let mode = ExperimentSpec.Mode(rawValue: arguments["mode"] ?? ExperimentSpec.Mode.online.rawValue) else {
            throw .usage("a mode is online or dry")
        }
        if let other = experiments.first(where: { $0.state.isRunning && $0.spec.id != id }) {
            throw .failed("busy", "experiment '\(other.spec.id)' is \(other.state.rawValue); an edge plays one at a time")
        }
        if let other = starts.keys.min() { throw .failed("busy", "experiment '\(other)' is being started") }
        switch experiment.state {
        case .draft: break
        case .dry where mode == .online: break
        case .paused where mode == .online: return proposeState(experiment, .online, by: peer.identity, reason: reason, now, &effects)
        case .dry, .paused, .online, .promoted, .rolledBack, .stopped:
            throw .failed("not_startable", "experiment '\(id)' is \(experiment.state.rawValue)")
        }
        let playing = connectedHosts(experiment)
        guard !playing.isEmpty else { throw .failed("no_hosts", "no connected host quotes its symbols") }
        if let latched = playing.first(where: { hosts[$0]?.latches.contains(id) == true }) {
            throw .failed("exists", "host '\(latched)' has latched the id '\(id)': make another experiment")
        }
        let sources = Set(playing.compactMap { hosts[$0]?.source })
        guard sources.count == 1 else {
            throw Refusal("mixed_sources", "its hosts mix sources: \(sources.sorted().joined(separator: ", "))", exit: 2)
        }
        let start = Start(link: link, request: request, by: peer.identity, reason: reason, mode: mode)
        // A dry run has no times to fix: both arms are on every tick.
        guard let design = experiment.spec.switchback, mode == .online else { return proposeStart(experiment, start, now, &effects) }
        starts[id] = start
        let source = RowSource.allCases.first { $0.name == sources.first } ?? .unknown
        effects.append(.survey(experiment: id, hosts: playing, source: source, blockMilliseconds: design.blockMilliseconds))
        return nil
    }

    /// The pre-period ends where the stored rows end now; without enough of it the experiment first runs on A only, and T0 comes when there is
    /// (SPEC 7.3).
    private mutating func surveyed(_ id: String, _ history: ExperimentHistory, _ now: Moment, _ effects: inout [Effect]) {
        guard let start = starts.removeValue(forKey: id) else { return }
        guard var experiment = experiment(id), [.draft, .dry].contains(experiment.state), !isDeciding,
            var design = experiment.spec.switchback
        else {
            let refusal = Refusal.failed("busy", "another decision was made while the stored rows of '\(id)' were read; start it again")
            effects.append(.reply(start.link, id: start.request, refusal.outcome))
            return
        }
        let symbols = experiment.spec.symbols
        let ranked = history.ranked.filter { symbols.contains($0) }
        design.clusters = Switchback.matched(ranked + symbols.filter { !ranked.contains($0) })
        let step = Switchback.stepMilliseconds
        let soon = (now.wall.milliseconds + Limits.experimentLeadMilliseconds + step - 1) / step * step
        let missing = Int64(PrePeriod.pairsMin) - min(Int64(PrePeriod.pairsMin), history.pairs)
        design.startMilliseconds = soon + missing * 2 * design.blockMilliseconds
        experiment.spec.switchback = design
        experiment.spec.prePeriod = missing > 0 ? [] : history.ends
        guard experiment.spec.bytes.count < Limits.controlLineBytesMax / 2 else {
            effects.append(
                .reply(
                    start.link, id: start.request, Refusal.failed("too_long", "the experiment does not fit in a message").outcome))
            return
        }
        let number = proposeStart(experiment, start, now, &effects)
        askers[number] = (start.link, start.request, 0)
    }

    private mutating func proposeStart(_ experiment: Experiment, _ start: Start, _ now: Moment, _ effects: inout [Effect]) -> Int64 {
        let playing = connectedHosts(experiment)
        let hosts = hosts
        var spec = experiment.spec
        spec.mode = start.mode.rawValue
        let enrolled = Set(spec.symbols)
        return proposeState(experiment, start.mode == .dry ? .dry : .online, by: start.by, reason: start.reason, now, &effects) { json in
            json.key("spec")
            spec.write(to: &json)
            json.key("hosts")
            json.beginArray()
            for name in playing {
                json.beginObject()
                json.field("host", string: name)
                json.field("symbols", strings: (hosts[name]?.symbols ?? []).filter { enrolled.contains($0) }.sorted())
                json.endObject()
            }
            json.endArray()
            json.field("source", string: playing.first.flatMap { hosts[$0]?.source })
        }
    }

    @discardableResult private mutating func proposeState(
        _ experiment: Experiment, _ state: Experiment.State, by: String, reason: String, verdict: Experiment.Verdict? = nil,
        evidence: JSONValue? = nil, _ now: Moment, _ effects: inout [Effect], _ more: (inout JSONWriter) -> Void = { _ in }
    ) -> Int64 {
        propose(.experimentState, at: now, &effects) { json in
            json.field("id", string: experiment.spec.id)
            json.field("state", string: state.rawValue)
            json.field("reason", string: reason)
            json.field("by", string: by)
            if let verdict { json.field("verdict", string: verdict.rawValue) }
            if let evidence {
                json.key("evidence")
                evidence.write(to: &json)
            }
            more(&json)
        }
    }

    private mutating func change(
        _ verb: Verb, _ arguments: [String: String], _ peer: Peer, _ now: Moment, _ effects: inout [Effect]
    ) throws(Refusal) -> Int64 {
        let reason = try Verb.reason(arguments)
        let experiment = try known(arguments["id"] ?? "")
        func refuse(_ code: String) -> Refusal { .failed(code, "experiment '\(experiment.spec.id)' is \(experiment.state.rawValue)") }
        let evidence = assessments[experiment.spec.id]?.json
        switch verb {
        case .experimentPause:
            guard experiment.state == .online else { throw refuse("not_online") }
            return proposeState(experiment, .paused, by: peer.identity, reason: reason, now, &effects)
        case .experimentStop:
            guard !experiment.state.isOver else { throw refuse("over") }
            let verdict: Experiment.Verdict? = experiment.state == .draft ? nil : .inconclusive
            return proposeState(
                experiment, .stopped, by: peer.identity, reason: reason, verdict: verdict, evidence: evidence, now, &effects)
        default:
            guard experiment.state == .online || experiment.state == .paused else { throw refuse("not_online") }
            let verdict = assessments[experiment.spec.id]?.verdict ?? .inconclusive
            guard verdict == .pass else {
                throw Refusal("not_passed", "the verdict is \(verdict.rawValue); only PASS is promoted", exit: 2)
            }
            guard !experiment.operators.contains(peer.identity) else {
                throw Refusal("second_operator", "\(peer.identity) brought it here; another operator promotes it", exit: 4)
            }
            return proposeState(
                experiment, .promoted, by: peer.identity, reason: reason, verdict: .pass, evidence: evidence, now, &effects)
        }
    }

    /// Hosts with a symbol that takes part.
    private func enrolledHosts(_ experiment: Experiment) -> [String] {
        hosts.values.filter { experiment.enrols($0.symbols, on: $0.name) }.map(\.name).sorted()
    }

    /// Those that play it as it starts: one that is away would owe every pair.
    private func connectedHosts(_ experiment: Experiment) -> [String] {
        hosts.values.filter { $0.link != nil && experiment.spec.enrols($0.symbols, on: $0.name) }.map(\.name).sorted()
    }

    // MARK: Decisions

    /// What the rows say while it is online; of a paused one it is only noted.
    private mutating func assessed(_ assessment: Assessment, _ now: Moment, _ effects: inout [Effect]) {
        guard let experiment = experiment(assessment.experiment), experiment.state.isRunning else { return }
        assessments[assessment.experiment] = assessment
        guard experiment.state == .online, !isBeingChanged(assessment.experiment) else { return }
        switch assessment.demand {
        case nil: break
        case .rollback(let gate):
            decideRollback(experiment, reason: "gate \(gate)", evidence: assessment.json, now, &effects)
        case .invalid(let why):
            proposeState(
                experiment, .stopped, by: "hub", reason: why, verdict: .invalid, evidence: assessment.json, now, &effects)
        case .pause(let why):
            // Whoever lets it go on has seen what it was paused for: only what is new since pauses it again.
            func seen(_ evidence: JSONValue?) -> JSONValue? { evidence?["pairs"] ?? evidence?["paused_until_ms"] }
            let last = experiment.changes.last { $0.state == .paused && $0.by == "hub" }?.evidence
            guard seen(last) == nil || seen(last) != seen(assessment.json) else { break }
            proposeState(experiment, .paused, by: "hub", reason: why, evidence: assessment.json, now, &effects)
        }
    }

    /// An edge's fast breaker (SPEC 7.4): harm takes the whole fleet back, an environment that is bad for both arms pauses.
    private mutating func breaker(_ breaker: Message.Breaker, _ name: String, _ now: Moment, _ effects: inout [Effect]) {
        guard let experiment = experiment(breaker.experiment), experiment.state.isRunning, let host = hosts[name],
            experiment.enrols(host.symbols, on: name)
        else { return }
        let evidence = JSONValue.object { json in
            json.field("host", string: name)
            breaker.writeTrip(to: &json)
        }
        let reason = "\(name): \(breaker.trip.sentence)"
        switch breaker.trip.scope {
        case .harm: decideRollback(experiment, reason: reason, evidence: evidence, now, &effects)
        case .environment:
            // An edge says it until it hears of the pause; whoever lets the experiment go on has seen it.
            let last = experiment.changes.last { $0.state == .paused && $0.by == "hub" }?.evidence
            guard experiment.state == .online, !isBeingChanged(experiment.spec.id), last != evidence else { return }
            proposeState(experiment, .paused, by: "hub", reason: reason, evidence: evidence, now, &effects)
        }
    }

    private mutating func decideRollback(
        _ experiment: Experiment, reason: String, evidence: JSONValue?, _ now: Moment, _ effects: inout [Effect]
    ) {
        // Behind any other change that is on its way to the disk: the last word is the rollback's.
        let id = experiment.spec.id
        guard !pending.contains(where: { $0.kind == .command && $0.body["experiment"]?.string == id }) else { return }
        proposeCommand(
            .rollback, experiment: id, host: nil, symbol: nil, targets: enrolledHosts(experiment), reason: reason,
            by: "hub", verdict: .fail, evidence: evidence, now, &effects)
    }

    private mutating func silent(_ id: String, _ silence: PairPlan.Silence, _ now: Moment, _ effects: inout [Effect]) {
        guard let experiment = experiment(id), experiment.state.isRunning, !experiment.silences.contains(silence) else { return }
        let isPending = pending.contains { record in
            record.kind == .silence && record.body["id"]?.string == id && record.body["host"]?.string == silence.host
                && record.body["pair"]?.integer == Int64(silence.pair)
        }
        guard !isPending else { return }
        _ = propose(.silence, at: now, &effects) { json in
            json.field("id", string: id)
            silence.write(to: &json)
        }
    }

    /// A change of it is on its way to the disk.
    private func isBeingChanged(_ id: String) -> Bool {
        pending.contains { record in
            (record.kind == .command && record.body["experiment"]?.string == id)
                || (record.kind == .experimentState && record.body["id"]?.string == id)
        }
    }

    private mutating func watch(_ id: String, _ effects: inout [Effect]) {
        guard let experiment = experiment(id) else { return }
        if experiment.state == .online || experiment.state == .paused {
            effects.append(.watch(experiment))
        } else {
            assessments[id] = nil
            effects.append(.unwatch(experiment: id))
        }
    }

    /// `key=value,key=value`; what the keys mean is the edges' business.
    private func overrides(_ text: String, of argument: String, allowingEmpty: Bool = false) throws(Refusal) -> [ExperimentSpec.Override] {
        var result: [ExperimentSpec.Override] = []
        for part in text.split(separator: ",") {
            let halves = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map { $0.trimmingBlanks }
            guard halves.count == 2, !halves[0].isEmpty, allowingEmpty || !halves[1].isEmpty else {
                throw .usage("\(argument) is key=value,key=value, not '\(part.prefix(64))'")
            }
            guard !result.contains(where: { $0.key == halves[0] }) else {
                throw .usage("\(argument) gives '\(halves[0].prefix(64))' twice")
            }
            result.append(ExperimentSpec.Override(key: halves[0], value: halves[1]))
        }
        guard !result.isEmpty else { throw .usage("\(argument) changes nothing") }
        return result
    }

    @discardableResult private mutating func proposeCommand(
        _ kind: Message.CommandKind, experiment: String?, host: String?, symbol: String?, set: [ExperimentSpec.Override] = [],
        targets: [String], reason: String, by: String, verdict: Experiment.Verdict? = nil, evidence: JSONValue? = nil, _ now: Moment,
        _ effects: inout [Effect]
    ) -> Int64 {
        let id = "\(kind.rawValue)-\(hexadecimal(random()))"
        return propose(.command, at: now, &effects) { json in
            json.field("id", string: id)
            json.field("kind", string: kind.rawValue)
            json.field("experiment", string: experiment)
            json.field("host", string: host)
            json.field("symbol", string: symbol)
            if !set.isEmpty { json.field("set", overrides: set) }
            json.field("targets", strings: targets.sorted())
            json.field("reason", string: reason)
            json.field("by", string: by)
            if let verdict { json.field("verdict", string: verdict.rawValue) }
            if let evidence {
                json.key("evidence")
                evidence.write(to: &json)
            }
        }
    }

    private func scope(_ arguments: [String: String]) throws(Refusal) -> (host: String?, symbol: String?) {
        let host = arguments["host"]
        let symbol = arguments["symbol"]
        let isAll = try Verb.flag(arguments["all"])
        guard isAll != (host != nil || symbol != nil) else { throw .usage("give either all, or host, symbol or both") }
        if let host { guard hosts[host] != nil else { throw Refusal("unknown_host", "there is no host '\(host.prefix(64))'", exit: 2) } }
        if let symbol {
            guard hosts.values.contains(where: { $0.symbols.contains(symbol) && (host == nil || host == $0.name) }) else {
                throw Refusal("unknown_symbol", "no such host quotes '\(symbol.prefix(64))'", exit: 2)
            }
        }
        return (host, symbol)
    }

    private mutating func kill(_ arguments: [String: String], _ peer: Peer, _ now: Moment, _ effects: inout [Effect]) throws(Refusal)
        -> Int64
    {
        let reason = try Verb.reason(arguments)
        let (host, symbol) = try scope(arguments)
        let targets = hosts.values.filter { (host == nil || host == $0.name) && (symbol == nil || $0.symbols.contains(symbol!)) }.map(
            \.name)
        return proposeCommand(
            .kill, experiment: nil, host: host, symbol: symbol, targets: targets, reason: reason, by: peer.identity, now, &effects)
    }

    /// What the keys mean, and which may change while an edge runs, is the edges' business: each takes all of them or refuses.
    private mutating func setParameters(_ arguments: [String: String], _ peer: Peer, _ now: Moment, _ effects: inout [Effect])
        throws(Refusal) -> Int64
    {
        let reason = try Verb.reason(arguments)
        let set = try overrides(arguments["set"] ?? "", of: "set", allowingEmpty: true)
        guard set.count <= Limits.orderedParametersMax, (arguments["set"] ?? "").utf8.count < Limits.controlLineBytesMax / 2 else {
            throw .usage("set has more than \(Limits.orderedParametersMax) keys, or does not fit in a message")
        }
        let (host, _) = try scope(arguments)
        let targets = hosts.keys.filter { host == nil || host == $0 }
        guard !targets.isEmpty else { throw .failed("no_hosts", "no host has connected yet") }
        return proposeCommand(
            .parameters, experiment: nil, host: host, symbol: nil, set: set, targets: targets, reason: reason, by: peer.identity, now,
            &effects)
    }

    /// Takes back every kill whose scope lies within the one given; a wider kill stays, and so does what it holds down.
    private mutating func release(_ arguments: [String: String], _ peer: Peer, _ now: Moment, _ effects: inout [Effect]) throws(Refusal)
        -> Int64
    {
        let reason = try Verb.reason(arguments)
        let (host, symbol) = try scope(arguments)
        let wire = Message.Command(
            id: "", revision: .zero, kind: .release, experiment: nil, symbol: symbol, reason: reason, by: peer.identity,
            issuedMilliseconds: 0)
        let release = FleetCommand(wire: wire, host: host, deliveries: [:], isInForce: false)
        let inForce = commands.filter(\.isInForce)
        let covered = inForce.filter { release.covers($0) }
        let wider = inForce.filter { !release.covers($0) && $0.wire.symbol == nil }
        guard !covered.isEmpty else {
            let hint = wider.first.map { "; the kill of \($0.scopeText) is released as a whole" } ?? ""
            throw .failed("not_killed", "no kill of \(release.scopeText) is in force\(hint)")
        }
        if let own = covered.first(where: { $0.wire.by == peer.identity }) {
            throw Refusal("second_operator", "\(peer.identity) gave the kill of \(own.scopeText); another operator releases it", exit: 4)
        }
        let held = Set(hosts.keys.filter { name in wider.contains { isInScope($0, name) } })
        let targets = Set(covered.flatMap(\.deliveries.keys)).subtracting(held)
        return proposeCommand(
            .release, experiment: nil, host: host, symbol: symbol, targets: Array(targets), reason: reason, by: peer.identity, now, &effects
        )
    }

    // MARK: Waiting operators

    private mutating func answerExperiment(_ record: LogRecord, _ effects: inout [Effect]) {
        guard let asker = askers.removeValue(forKey: record.number) else { return }
        let id = (record.body["spec"]?["id"] ?? record.body["id"])?.string ?? ""
        guard let experiment = experiment(id) else { return }
        effects.append(.reply(asker.link, id: asker.request, .ok(.object { $0.experiment("experiment", experiment) })))
    }

    private mutating func answerWaiters(_ now: Moment, _ effects: inout [Effect]) {
        var rest: [Waiter] = []
        for waiter in waiters {
            guard let command = commands.first(where: { $0.wire.id == waiter.command }) else { continue }
            let open = command.deliveries.keys.sorted().filter { !isSettled(command, $0, now) }
            guard open.isEmpty || now.instant >= waiter.deadline else {
                rest.append(waiter)
                continue
            }
            effects.append(.reply(waiter.link, id: waiter.request, outcome(command, open, now)))
        }
        waiters = rest
    }

    private func outcome(_ command: FleetCommand, _ open: [String], _ now: Moment) -> Message.Reply.Outcome {
        let rejected = command.deliveries.sorted { $0.key < $1.key }.filter { $0.value.state == .rejected }
        if let (host, delivery) = rejected.first {
            let why = delivery.text.map { ": \($0)" } ?? ""
            return Refusal.failed(
                "rejected", "\(rejected.count) of \(command.deliveries.count) hosts refuse \(command.wire.id), \(host)\(why)"
            ).outcome
        }
        guard open.isEmpty else {
            let hosts = open.map { name in
                let state = self.state(command, name).rawValue
                return safeAt(command, name, now).map { "\(name) (\(state), safe at \(TimeText.milliseconds($0)))" } ?? "\(name) (\(state))"
            }
            return .failed(
                code: "timeout", text: "\(command.wire.id) stands, but is not confirmed by \(hosts.joined(separator: ", "))", exit: 3)
        }
        return .ok(.object { writeCommand(command, now, &$0) })
    }

    /// Nothing has to be waited for there: its last word is in, or it is cut off and its lease has run out.
    private func isSettled(_ command: FleetCommand, _ name: String, _ now: Moment) -> Bool {
        if command.deliveries[name]?.state.isFinal == true { return true }
        guard command.wire.kind == .rollback, hosts[name]?.link == nil else { return false }
        return (safeAt(command, name, now) ?? .min) <= now.wall.milliseconds
    }

    /// What is shown: a command on its way to a host that is not there any more is unconfirmed.
    package func state(_ command: FleetCommand, _ name: String) -> FleetCommand.DeliveryState {
        let state = command.deliveries[name]?.state ?? .unconfirmed
        return state == .sent && hosts[name]?.link == nil ? .unconfirmed : state
    }

    /// When a host that has not confirmed a rollback plays A at the latest, because nobody has renewed its lease: last grant + lease + 1 s
    /// (SPEC 7.7), ms UTC. Nil when it has confirmed, when it never held this experiment, and for kills, which no lease ends.
    package func safeAt(_ command: FleetCommand, _ name: String, _ now: Moment) -> Int64? {
        guard command.wire.kind == .rollback, command.deliveries[name]?.state.isFinal != true,
            command.deliveries[name]?.state != .applied
        else { return nil }
        let granted: Instant
        if let lease = hosts[name]?.lease, lease.experiment == command.wire.experiment {
            granted = lease.grantedAt
        } else if let startedAt, now.instant.since(startedAt) <= Limits.leaseNanoseconds + Limits.leaseGraceNanoseconds {
            // Grants are not in the log: the hub before this one may have given one until the moment it ended.
            granted = startedAt
        } else {
            return nil
        }
        let safe = granted.advanced(nanoseconds: Limits.leaseNanoseconds + Limits.leaseGraceNanoseconds)
        return now.wall.milliseconds + safe.since(now.instant) / 1_000_000
    }

    // MARK: Leaves

    private func hexadecimal(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}

extension Control.Host {
    init(_ edge: Message.Hello.Edge, _ milliseconds: Int64) {
        self.init(
            name: edge.host, firstSeenMilliseconds: milliseconds, lastSeenMilliseconds: milliseconds, epoch: edge.epoch,
            source: edge.source,
            venue: edge.venue, symbols: edge.symbols)
    }

    fileprivate init(
        name: String, firstSeenMilliseconds: Int64, lastSeenMilliseconds: Int64, epoch: String, source: String, venue: String,
        symbols: [String]
    ) {
        self.name = name
        self.firstSeenMilliseconds = firstSeenMilliseconds
        self.lastSeenMilliseconds = lastSeenMilliseconds
        self.epoch = epoch
        self.source = source
        self.venue = venue
        self.symbols = symbols
    }
}

extension Substring {
    fileprivate var trimmingBlanks: String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}
