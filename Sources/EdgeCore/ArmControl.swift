import CalibModel
import Wire

/// Which arm every symbol of this edge plays, and why (SPEC 7.6, 7.7).
///
/// The plan follows from what is known at a time: the assignment, the latches, the lease. It is computed anew at every step, and whatever
/// differs from the plan before is applied. So no order of events can leave B in place that any of them forbids.
///
/// Invariants:
/// 1. B is planned only for a symbol in `symbols_b` of the assigned experiment, while it is not latched, its lease is valid, and its candidate
///    is valid for this edge.
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

    package struct Choice: Equatable, Sendable {
        package var arm: Arm
        package var why: ArmReason
        package init(_ arm: Arm, _ why: ArmReason) {
            self.arm = arm
            self.why = why
        }
    }

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
        /// Sent and not answered: number and send time.
        var requests: [(number: Int64, sentAt: Int64)] = []
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

    private let symbols: [String]
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
    package private(set) var plan: Plan
    /// The newest revision applied.
    package private(set) var revision = Revision.zero

    /// - Parameters:
    ///   - symbols: in the order of `SymbolIndex`.
    ///   - latches: all bytes of `latches.jsonl`.
    ///   - reject: what is wrong with the experiment's candidate for this edge; nil when nothing is.
    package init(symbols: [String], latches bytes: [UInt8], reject: @escaping @Sendable (ExperimentSpec) -> String?) {
        self.symbols = symbols
        self.reject = reject
        plan = Plan(experiment: nil, choices: .init(repeating: Choice(.a, .none), count: symbols.count))
        let rows = ControlRows(bytes, countsTornEnd: false) { value throws(WireError) in try LatchRecord(value) }
        damagedLines = rows.damagedLines
        for case (_, let record?) in rows.lines {
            revision = max(revision, record.revision)
            latches[record.experiment] = Latch(record: record, commands: [record.command], state: .durable)
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
            (lease.requests, lease.requestedAt) = ([], nil)
        case .disconnected:
            isConnected = false
            (lease.requests, lease.requestedAt) = ([], nil)
        case .assigned(let assignment): assigned(assignment, &effects)
        case .lease(let answer): answered(answer)
        case .command(let command): rollback(command, at: now, &effects)
        case .settled(let milliseconds, let cancelled): settled(milliseconds, cancelled, &effects)
        case .recorded(let experiment): recorded(experiment, at: now, &effects)
        case .recordFailed(let experiment): if case .recording = latches[experiment]?.state { latches[experiment]?.state = .recordFailed }
        case .tick: retryRecords(&effects)
        }
        if let expiresAt = lease.expiresAt, now.bootNanoseconds >= expiresAt { lease.expiresAt = nil }
        applyChange(&effects)
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
        applyChange(&effects)
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
        guard new.experiment != assignment?.experiment || assignment == nil else { return }
        lease = LeaseState()
        refusal = nil
        guard let spec = new.experiment else { return }
        judge(spec, &effects)
        if !damagedLines.isEmpty { effects.append(.damaged(lines: damagedLines)) }
    }

    private mutating func judge(_ spec: ExperimentSpec, _ effects: inout [Effect]) {
        refusal = refusal(of: spec)
        lastSpec = refusal == nil ? spec : nil
        if let refusal {
            effects.append(.refused(experiment: spec.id, why: refusal))
            effects.append(.say(.error(code: "experiment_refused", text: "'\(spec.id)': \(refusal)")))
        }
    }

    private func refusal(of spec: ExperimentSpec) -> String? {
        guard spec.design == "symbol" else { return "design '\(spec.design)' is not known here" }
        guard spec.mode == "online" else { return "mode '\(spec.mode)' is not known here" }
        // Which experiment was rolled back here is not known any more, so none is played.
        guard damagedLines.isEmpty else { return "latches.jsonl cannot be read in line \(damagedLines[0])" }
        return reject(spec)
    }

    // MARK: Lease

    private var mayRequest: Bool {
        guard isConnected, let spec = assignment?.experiment, refusal == nil, latches[spec.id] == nil else { return false }
        return symbols.contains { spec.symbolsB.contains($0) }
    }

    private mutating func requestLease(at now: Now, _ effects: inout [Effect]) {
        guard mayRequest, let spec = assignment?.experiment else { return }
        if let last = lease.requestedAt, now.bootNanoseconds - last < Limits.leaseRenewalNanoseconds { return }
        leaseNumber += 1
        lease.requestedAt = now.bootNanoseconds
        // An answer to a request as old as a lease grants nothing.
        lease.requests.removeAll { now.bootNanoseconds - $0.sentAt >= Limits.leaseNanoseconds }
        lease.requests.append((leaseNumber, now.bootNanoseconds))
        effects.append(.say(.lease(.init(experiment: spec.id, number: leaseNumber, durationMilliseconds: nil))))
    }

    private mutating func answered(_ answer: Message.Lease) {
        guard answer.experiment == assignment?.experiment?.id, answer.number > lease.answered,
            let request = lease.requests.first(where: { $0.number == answer.number })
        else { return }  // To a request of another assignment, another connection, or none.
        lease.answered = answer.number
        lease.requests.removeAll { $0.number <= answer.number }
        let milliseconds = max(0, min(answer.durationMilliseconds ?? 0, Limits.leaseNanoseconds / 1_000_000))
        // Refused ends it at once, whatever was granted before.
        lease.expiresAt = milliseconds == 0 ? nil : request.sentAt + milliseconds * 1_000_000
    }

    // MARK: Rollback

    private mutating func rollback(_ command: Message.Command, at now: Now, _ effects: inout [Effect]) {
        guard let experiment = command.experiment, command.kind == .rollback else {
            return result(command.id, .rejected, now.wallMilliseconds, text: "a rollback names its experiment", &effects)
        }
        revision = max(revision, command.revision)
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
    private mutating func applyChange(_ effects: inout [Effect]) {
        let new = makePlan()
        guard new != plan else { return }
        plan = new
        isUnsettled = true
        effects.append(.apply(new))
    }

    private func makePlan() -> Plan {
        let latched = lastSpec.flatMap { latches[$0.id] == nil ? nil : $0 }
        guard let spec = assignment?.experiment ?? latched, refusal == nil else {
            return Plan(experiment: nil, choices: .init(repeating: Choice(.a, .none), count: symbols.count))
        }
        let needsLease = symbols.contains { spec.symbolsB.contains($0) }
        let choices = symbols.map { symbol -> Choice in
            let isOnB = spec.symbolsB.contains(symbol)
            guard isOnB || spec.symbolsA.contains(symbol) else { return Choice(.a, .none) }
            // The baseline's rows of the same times do not count either (SPEC 7.5: a lease lost censors), hence one reason for both arms.
            if latches[spec.id] != nil { return Choice(.a, .latch) }
            if needsLease, lease.expiresAt == nil { return Choice(.a, .lease) }
            return Choice(isOnB ? .b : .a, .schedule)
        }
        return Plan(experiment: spec, choices: choices)
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
