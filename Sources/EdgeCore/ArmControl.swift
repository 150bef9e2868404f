import CalibModel
import Wire

/// Which arm every symbol of this edge plays, and why (SPEC 7.1, 7.4, 7.6, 7.7).
///
/// The plan follows from what is known at a time: the assignment, the latches, the lease, the clock. It is computed anew at every step, and
/// whatever differs from the plan before is applied. So no order of events can leave B in place that any of them forbids.
///
/// Of several reasons to play A the first counts: latch or breaker, manual (paused), clock, lease, breaker (environment), join, the schedule.
/// They hold for both arms: a pair that is not played as planned counts for neither.
///
/// Invariants:
/// 1. B is planned only for a symbol that the assigned experiment gives B at this time on this host, while it is not latched or paused, its
///    lease is valid, this clock is right, and its candidate is valid for this edge.
/// 2. A lease ends at the send time of the request it answers + duration. Its numbers live in memory only, so it never survives a restart.
/// 3. A rollback is called applied when the quote path says that the change took effect, and latched when its row is durable.
package struct ArmControl {
    /// The lease's clock (CLOCK_BOOTTIME, ns) and the record's (ms UTC) at one instant.
    package struct Now: Sendable {
        package var bootNanoseconds: Int64
        package var wallMilliseconds: Int64
        package init(bootNanoseconds: Int64, wallMilliseconds: Int64) {
            self.bootNanoseconds = bootNanoseconds
            self.wallMilliseconds = wallMilliseconds
        }
    }

    package enum Input: Sendable {
        /// The hub's welcome is here, or the link is gone.
        case connected
        case disconnected
        case assigned(Message.Assignment)
        case lease(Message.Lease)
        /// A rollback.
        case command(Message.Command)
        /// A fast breaker, of the experiment that is played.
        case tripped(BreakerTrip)
        /// This edge's wall clock was set.
        case clockStepped
        /// Every change of the newest plan took effect; when, ms UTC, and how many orders' cancels were sent for it.
        case settled(atMilliseconds: Int64, cancelledOrders: Int64)
        /// The answer to `record`: durable, or not.
        case recorded(experiment: String)
        case recordFailed(experiment: String)
        case tick
    }

    package enum Effect: Equatable, Sendable {
        /// Play this from now on; answer with `settled`.
        case apply(Plan)
        case say(Message)
        /// Append to `latches.jsonl` and make it durable.
        case record(LatchRecord)
        /// For the log: this edge takes no part in the experiment, and why.
        case refused(experiment: String, why: String)
        /// For the log: lines of `latches.jsonl` cannot be read, so no experiment is played.
        case damaged(lines: [Int])
    }

    package typealias Choice = ArmChoice

    package struct Plan: Equatable, Sendable {
        /// Nil when this edge plays no part in any.
        package var experiment: ExperimentSpec?
        /// In the order of `SymbolIndex`.
        package var choices: [Choice]

        package init(experiment: ExperimentSpec?, choices: [Choice]) {
            self.experiment = experiment
            self.choices = choices
        }

        package var playsB: Bool { choices.contains { $0.arm == .b } }
    }

    private struct LeaseState {
        /// Sent and not answered: number, send time, and what this edge's wall clock said then.
        var requests: [(number: Int64, sentAt: Int64, sentWall: Int64)] = []
        /// Nil: none.
        var expiresAt: Int64?
        /// The number of the newest answer.
        var answered: Int64 = 0
        var requestedAt: Int64?
    }

    private enum LatchState {
        /// Waits for the quote path.
        case settling
        /// A is played; its row is on its way.
        case recording
        case recordFailed
        case durable
    }

    private struct Latch {
        var record: LatchRecord
        /// Every command that asked for it; each gets its results.
        var commands: [String]
        var state: LatchState
    }

    private static let breakerRepeatNanoseconds: Int64 = 1_000_000_000

    private let symbols: [String]
    private let host: String
    private var reject: @Sendable (ExperimentSpec) -> String?
    private var latches: [String: Latch] = [:]
    private var damagedLines: [Int] = []
    private var assignment: Message.Assignment?
    /// Why this edge takes no part in the assigned experiment; nil when it does.
    private var refusal: String?
    /// The newest experiment taken part in: its symbols say `latch` after a rollback also when the hub has taken it off, until there is another.
    private var lastSpec: ExperimentSpec?
    private var lease = LeaseState()
    private var leaseNumber: Int64 = 0
    private var isConnected = false
    private var isUnsettled = false
    /// What the assigned experiment says of each symbol, looked up once; nil: it takes no part.
    private var roles: [Role?]
    /// The pair from which on a symbol plays; nil while something forbids it. It (re)joins at the next pair's beginning (SPEC 7.1).
    private var joinsAt: [Int32?]
    /// The last pair that a symbol sits out after a breaker of both arms.
    private var restsUntil: [Int32?]
    /// By the newest answered lease: more than `Limits.clockErrorMillisecondsMax` off the hub's, whenever in between the hub looked at it. A clock
    /// that was set is wrong until an answer says otherwise.
    private var isClockWrong = false
    /// Answers carry the hub's time: an old hub's do not.
    private var hubTellsTime = false
    /// A breaker that the hub has not answered: a message may be lost with its link.
    private var untold: Message.Breaker?
    /// When it was said last, on CLOCK_BOOTTIME; nil: not on this link.
    private var toldAt: Int64?
    /// When the plan changes by the schedule alone, ms UTC; nil when it does not.
    package private(set) var planEndsMilliseconds: Int64?
    package private(set) var plan: Plan
    /// The newest revision applied.
    package private(set) var revision = Revision.zero

    /// - Parameters:
    ///   - symbols: in the order of `SymbolIndex`.
    ///   - host: this edge's name.
    ///   - latches: all bytes of `latches.jsonl`.
    ///   - reject: what is wrong with the experiment's candidate for this edge; nil when nothing is.
    package init(symbols: [String], host: String, latches bytes: [UInt8], reject: @escaping @Sendable (ExperimentSpec) -> String?) {
        self.symbols = symbols
        self.host = host
        roles = .init(repeating: nil, count: symbols.count)
        joinsAt = .init(repeating: nil, count: symbols.count)
        restsUntil = .init(repeating: nil, count: symbols.count)
        self.reject = reject
        plan = Plan(experiment: nil, choices: .init(repeating: Choice(.a, .none), count: symbols.count))
        let rows = ControlRows(bytes, countsTornEnd: false) { value throws(WireError) in try LatchRecord(value) }
        damagedLines = rows.damagedLines
        for case (_, let record?) in rows.lines {
            revision = max(revision, record.revision)
            latches[record.experiment] = Latch(
                record: record, commands: record.breaker == nil ? [record.command] : [], state: .durable)
        }
    }

    /// Experiments latched to A for ever; sorted.
    package var latchedExperiments: [String] { latches.keys.sorted() }

    package func holdsLease(at bootNanoseconds: Int64) -> Bool { lease.expiresAt.map { bootNanoseconds < $0 } ?? false }

    /// When a step is due without any other input, on CLOCK_BOOTTIME; nil when time alone changes nothing.
    package var nextDue: Int64? {
        let renewal = mayRequest ? lease.requestedAt.map { $0 + Limits.leaseRenewalNanoseconds } ?? .min : nil
        return [lease.expiresAt, renewal].compactMap { $0 }.min()
    }

    // MARK: Inputs

    package mutating func step(_ input: Input, at now: Now) -> [Effect] {
        var effects: [Effect] = []
        switch input {
        case .connected:
            isConnected = true
            // The other side of the old requests is gone.
            (lease.requests, lease.requestedAt, toldAt) = ([], nil, nil)
        case .disconnected:
            isConnected = false
            (lease.requests, lease.requestedAt) = ([], nil)
        case .assigned(let assignment): assigned(assignment, &effects)
        case .lease(let answer): answered(answer, at: now)
        case .command(let command): rollback(command, at: now, &effects)
        case .tripped(let trip): tripped(trip, at: now)
        case .clockStepped: clockStepped()
        case .settled(let milliseconds, let cancelled): settled(milliseconds, cancelled, &effects)
        case .recorded(let experiment): recorded(experiment, at: now, &effects)
        case .recordFailed(let experiment): if case .recording = latches[experiment]?.state { latches[experiment]?.state = .recordFailed }
        case .tick: retryRecords(&effects)
        }
        if let expiresAt = lease.expiresAt, now.bootNanoseconds >= expiresAt { lease.expiresAt = nil }
        tellBreaker(at: now, &effects)
        applyChange(at: now, &effects)
        settleLatches(at: now, &effects)
        requestLease(at: now, &effects)
        return effects
    }

    /// The edge's configuration changed: the experiment it was assigned is judged again, by `reject` of the new one. When no effect is `apply`,
    /// the plan stays what it was and is to be played with the new parameters.
    package mutating func adopt(reject: @escaping @Sendable (ExperimentSpec) -> String?, at now: Now) -> [Effect] {
        self.reject = reject
        var effects: [Effect] = []
        if let spec = assignment?.experiment {
            let before = refusal
            judge(spec, &effects)
            // What was said before need not be said again.
            if before == refusal { effects.removeAll() }
        }
        applyChange(at: now, &effects)
        settleLatches(at: now, &effects)
        requestLease(at: now, &effects)
        return effects
    }

    private mutating func assigned(_ new: Message.Assignment, _ effects: inout [Effect]) {
        if let old = assignment, new.revision < old.revision {
            // A hub never goes back (SPEC 8.5): this is an answer that was overtaken.
            return effects.append(.say(.error(code: "stale_revision", text: "the assignment is older than the one in effect")))
        }
        revision = max(revision, new.revision)
        defer { assignment = new }
        if new.experiment?.id != untold?.experiment { untold = nil }
        // The environment is the hub's business once it pauses. Harm wants a rollback.
        if new.isPaused {
            restsUntil = .init(repeating: nil, count: symbols.count)
            if untold?.trip.scope == .environment { untold = nil }
        }
        guard new.experiment != assignment?.experiment || assignment == nil else { return }
        restsUntil = .init(repeating: nil, count: symbols.count)
        lease = LeaseState()
        refusal = nil
        guard let spec = new.experiment else { return }
        judge(spec, &effects)
        if !damagedLines.isEmpty { effects.append(.damaged(lines: damagedLines)) }
    }

    private mutating func judge(_ spec: ExperimentSpec, _ effects: inout [Effect]) {
        refusal = refusal(of: spec)
        lastSpec = refusal == nil ? spec : nil
        roles = symbols.map { Role(spec, symbol: $0, host: host) }
        joinsAt = .init(repeating: nil, count: symbols.count)
        if let refusal {
            effects.append(.refused(experiment: spec.id, why: refusal))
            effects.append(.say(.error(code: "experiment_refused", text: "'\(spec.id)': \(refusal)")))
        }
    }

    private func refusal(of spec: ExperimentSpec) -> String? {
        guard ExperimentSpec.Design(rawValue: spec.design) != nil else { return "design '\(spec.design)' is not known here" }
        guard ExperimentSpec.Mode(rawValue: spec.mode) != nil else { return "mode '\(spec.mode)' is not known here" }
        // Which experiment was rolled back here is not known any more, so none is played.
        guard damagedLines.isEmpty else { return "latches.jsonl cannot be read in line \(damagedLines[0])" }
        return reject(spec)
    }

    // MARK: Lease

    private var mayRequest: Bool {
        guard isConnected, let assignment, let spec = assignment.experiment, !assignment.isPaused, refusal == nil, latches[spec.id] == nil
        else { return false }
        return needsLease
    }

    /// Some symbol plays B here, now or later. Nothing of a dry B leaves this edge.
    private var needsLease: Bool { assignment?.experiment.map(Self.isDry) == false && roles.contains { $0?.mayPlayB == true } }

    private static func isDry(_ spec: ExperimentSpec) -> Bool { spec.mode == ExperimentSpec.Mode.dry.rawValue }

    private mutating func requestLease(at now: Now, _ effects: inout [Effect]) {
        guard mayRequest, let spec = assignment?.experiment else { return }
        if let last = lease.requestedAt, now.bootNanoseconds - last < Limits.leaseRenewalNanoseconds { return }
        leaseNumber += 1
        lease.requestedAt = now.bootNanoseconds
        // An answer to a request as old as a lease grants nothing.
        lease.requests.removeAll { now.bootNanoseconds - $0.sentAt >= Limits.leaseNanoseconds }
        lease.requests.append((leaseNumber, now.bootNanoseconds, now.wallMilliseconds))
        effects.append(.say(.lease(.init(experiment: spec.id, number: leaseNumber, durationMilliseconds: nil))))
    }

    private mutating func answered(_ answer: Message.Lease, at now: Now) {
        guard answer.experiment == assignment?.experiment?.id, answer.number > lease.answered,
            let request = lease.requests.first(where: { $0.number == answer.number })
        else { return }  // To a request of another assignment, another connection, or none.
        lease.answered = answer.number
        lease.requests.removeAll { $0.number <= answer.number }
        let milliseconds = max(0, min(answer.durationMilliseconds ?? 0, Limits.leaseNanoseconds / 1_000_000))
        // Refused ends it at once, whatever was granted before.
        lease.expiresAt = milliseconds == 0 ? nil : request.sentAt + milliseconds * 1_000_000
        if let hub = answer.wallMilliseconds {
            hubTellsTime = true
            // The hub read its clock between our sending and now: the error lies between these two.
            let (least, most) = (request.sentWall - hub, now.wallMilliseconds - hub)
            isClockWrong = least > Limits.clockErrorMillisecondsMax || most < -Limits.clockErrorMillisecondsMax
        }
    }

    /// A schedule is not played by a clock that nobody has looked at. Answers to what was asked before would compare the old one.
    private mutating func clockStepped() {
        guard hubTellsTime else { return }
        isClockWrong = true
        (lease.requests, lease.requestedAt) = ([], nil)
    }

    // MARK: Breakers

    /// B was bad on this host: A from now on, for ever when A of the same seconds was not (SPEC 7.4).
    private mutating func tripped(_ trip: BreakerTrip, at now: Now) {
        guard let spec = plan.experiment, latches[spec.id] == nil else { return }
        (untold, toldAt) = (.init(experiment: spec.id, trip: trip, atMilliseconds: now.wallMilliseconds), nil)
        switch trip.scope {
        case .harm:
            let record = LatchRecord(
                milliseconds: now.wallMilliseconds, experiment: spec.id, command: "breaker", by: "edge", reason: trip.sentence,
                cancelledOrders: 0, revision: revision, breaker: trip.kind)
            latches[spec.id] = Latch(record: record, commands: [], state: .settling)
        case .environment:
            // Until the next pair, unless the hub pauses first; designs without pairs wait for the hub.
            restsUntil = roles.map { $0.map { $0.pair(at: now.wallMilliseconds) ?? .max } }
        }
    }

    /// Says it once a second until the hub's answer is here; the hub ignores repeats.
    private mutating func tellBreaker(at now: Now, _ effects: inout [Effect]) {
        guard isConnected, let untold else { return }
        if let toldAt, now.bootNanoseconds - toldAt < Self.breakerRepeatNanoseconds { return }
        toldAt = now.bootNanoseconds
        effects.append(.say(.breaker(untold)))
    }

    // MARK: Rollback

    private mutating func rollback(_ command: Message.Command, at now: Now, _ effects: inout [Effect]) {
        guard let experiment = command.experiment, command.kind == .rollback else {
            return result(command.id, .rejected, now.wallMilliseconds, text: "a rollback names its experiment", &effects)
        }
        revision = max(revision, command.revision)
        if untold?.experiment == experiment { untold = nil }
        guard var latch = latches[experiment] else {
            let record = LatchRecord(
                milliseconds: now.wallMilliseconds, experiment: experiment, command: command.id, by: command.by, reason: command.reason,
                cancelledOrders: 0, revision: command.revision)
            latches[experiment] = Latch(record: record, commands: [command.id], state: .settling)
            return
        }
        // Answered from the latch: repeated by the hub, or given a second time by somebody else.
        if !latch.commands.contains(command.id) { latch.commands.append(command.id) }
        let isRepeated = latch.record.command == command.id
        let record = latch.record
        switch latch.state {
        case .settling: break
        case .recording, .recordFailed: applied(record, command.id, isRepeated, &effects)
        case .durable:
            applied(record, command.id, isRepeated, &effects)
            result(command.id, .latched, record.milliseconds, text: nil, &effects)
        }
        latches[experiment] = latch
    }

    /// Plan before results: `apply` leaves this step first, so that its answer finds the latch waiting.
    private mutating func applyChange(at now: Now, _ effects: inout [Effect]) {
        let new = makePlan(at: now)
        guard new != plan else { return }
        plan = new
        isUnsettled = true
        effects.append(.apply(new))
    }

    private mutating func makePlan(at now: Now) -> Plan {
        planEndsMilliseconds = nil
        let latched = lastSpec.flatMap { latches[$0.id] == nil ? nil : $0 }
        guard let spec = assignment?.experiment ?? latched, refusal == nil else {
            joinsAt = .init(repeating: nil, count: symbols.count)
            return Plan(experiment: nil, choices: .init(repeating: Choice(.a, .none), count: symbols.count))
        }
        let hindrance = hindrance(spec)
        let choices = symbols.indices.map { index -> Choice in
            guard let role = roles[index] else { return Choice(.a, .none) }
            guard hindrance == nil else {
                joinsAt[index] = nil
                return Choice(.a, hindrance ?? .none)
            }
            if Self.isDry(spec) { return Choice(.a, .dry) }
            return choice(role, index, at: now.wallMilliseconds)
        }
        return Plan(experiment: spec, choices: choices)
    }

    /// Why no symbol of this edge may play B at all.
    private func hindrance(_ spec: ExperimentSpec) -> ArmReason? {
        if let latch = latches[spec.id] { return latch.record.breaker == nil ? .latch : .breaker }
        if assignment?.isPaused == true { return .manual }
        guard needsLease else { return nil }
        if isClockWrong { return .clock }
        return lease.expiresAt == nil ? .lease : nil
    }

    private mutating func choice(_ role: Role, _ index: Int, at milliseconds: Int64) -> Choice {
        let place = role.place(at: milliseconds)
        if let end = place.endMilliseconds { planEndsMilliseconds = min(planEndsMilliseconds ?? .max, end) }
        let pair = place.block.map { $0 >> 1 }
        if let rests = restsUntil[index] {
            guard let pair, pair > rests else {
                joinsAt[index] = nil
                return Choice(.a, .breaker)
            }
            restsUntil[index] = nil
            joinsAt[index] = pair
        }
        guard let pair else { return Choice(place.arm, place.why) }
        let joins = joinsAt[index] ?? max(0, pair + 1)
        joinsAt[index] = joins
        guard pair >= joins, place.why != .join else { return Choice(.a, .join) }
        return Choice(place.arm, place.why, block: place.block)
    }

    private mutating func settled(_ milliseconds: Int64, _ cancelled: Int64, _ effects: inout [Effect]) {
        isUnsettled = false
        for (experiment, latch) in latches.sorted(by: { $0.key < $1.key }) {
            guard case .settling = latch.state else { continue }
            // Orders were cancelled for the experiment that this plan took off the quote path; another one had nothing to change.
            finishSettling(experiment, milliseconds, plan.experiment?.id == experiment ? cancelled : 0, &effects)
        }
    }

    /// Latches that have nothing to wait for: the quote path plays what it should already.
    private mutating func settleLatches(at now: Now, _ effects: inout [Effect]) {
        guard !isUnsettled else { return }
        for (experiment, latch) in latches.sorted(by: { $0.key < $1.key }) {
            if case .settling = latch.state { finishSettling(experiment, now.wallMilliseconds, 0, &effects) }
        }
    }

    private mutating func finishSettling(_ experiment: String, _ milliseconds: Int64, _ cancelled: Int64, _ effects: inout [Effect]) {
        guard var latch = latches[experiment] else { return }
        latch.record.milliseconds = milliseconds
        latch.record.cancelledOrders = cancelled
        latch.state = .recording
        latches[experiment] = latch
        for command in latch.commands { applied(latch.record, command, command == latch.record.command, &effects) }
        effects.append(.record(latch.record))
    }

    private mutating func recorded(_ experiment: String, at now: Now, _ effects: inout [Effect]) {
        guard var latch = latches[experiment], case .recording = latch.state else { return }
        latch.state = .durable
        latches[experiment] = latch
        for command in latch.commands { result(command, .latched, now.wallMilliseconds, text: nil, &effects) }
    }

    private mutating func retryRecords(_ effects: inout [Effect]) {
        for (experiment, latch) in latches.sorted(by: { $0.key < $1.key }) {
            guard case .recordFailed = latch.state else { continue }
            latches[experiment]?.state = .recording
            effects.append(.record(latch.record))
        }
    }

    // MARK: Leaves

    private func applied(_ record: LatchRecord, _ command: String, _ isFirst: Bool, _ effects: inout [Effect]) {
        // Another command than the one that did it changed nothing.
        effects.append(
            .say(
                .commandResult(
                    .init(
                        id: command, state: .applied, atMilliseconds: record.milliseconds,
                        cancelledOrders: isFirst ? record.cancelledOrders : 0,
                        text: isFirst ? nil : "rolled back by command \(record.command)")
                )))
    }

    private func result(_ id: String, _ state: Message.CommandState, _ milliseconds: Int64, text: String?, _ effects: inout [Effect]) {
        effects.append(.say(.commandResult(.init(id: id, state: state, atMilliseconds: milliseconds, cancelledOrders: 0, text: text))))
    }
}

/// What an experiment says of one symbol on one host.
private enum Role {
    case fixed(Arm)
    case switching(Switchback.Cluster, Switchback)

    /// Nil for a symbol that takes no part.
    init?(_ spec: ExperimentSpec, symbol: String, host: String) {
        if let design = spec.switchback {
            guard let cluster = design.clusters.first(where: { $0.symbols.contains(symbol) }) else { return nil }
            self = .switching(cluster, design)
        } else {
            guard let arm = spec.fixedArm(of: symbol, on: host) else { return nil }
            self = .fixed(arm)
        }
    }

    var mayPlayB: Bool { if case .fixed(let arm) = self { arm == .b } else { true } }

    func place(at milliseconds: Int64) -> ExperimentSpec.Place {
        switch self {
        case .fixed(let arm): ExperimentSpec.Place(arm: arm, why: .schedule, block: nil, endMilliseconds: nil)
        case .switching(let cluster, let design): ExperimentSpec.place(of: cluster, in: design, at: milliseconds)
        }
    }

    /// Nil for designs without pairs.
    func pair(at milliseconds: Int64) -> Int32? { place(at: milliseconds).block.map { $0 >> 1 } }
}
