import CalibModel

/// What one symbol is to play, and why.
package struct ArmChoice: Equatable, Sendable {
    package var arm: Arm
    package var why: ArmReason
    /// Of a switchback; nil otherwise.
    package var block: Int32?
    package init(_ arm: Arm, _ why: ArmReason, block: Int32? = nil) {
        self.arm = arm
        self.why = why
        self.block = block
    }
}

/// What every symbol of a node is to play from now on (SPEC 7.1, 7.6). The shell works it out from the experiment, the lease and the latches.
package struct ArmPlan: Sendable {
    /// Nil without an experiment.
    package var experiment: ExperimentID?
    /// Arm B's parameters; nil when no symbol plays B.
    package var candidate: Parameters?
    /// Of all effective parameters, both arms' included.
    package var configHash: UInt64
    /// By `SymbolIndex`, one for each symbol of the node.
    package var arms: [ArmChoice]

    package init(experiment: ExperimentID?, candidate: Parameters?, configHash: UInt64, arms: [ArmChoice]) {
        self.experiment = experiment
        self.candidate = candidate
        self.configHash = configHash
        self.arms = arms
    }

    /// Every symbol on A.
    package static func baseline(_ why: ArmReason, experiment: ExperimentID? = nil, configHash: UInt64, symbols: Int) -> ArmPlan {
        ArmPlan(
            experiment: experiment, candidate: nil, configHash: configHash,
            arms: [ArmChoice](repeating: ArmChoice(.a, why), count: symbols))
    }
}

/// A change of arm fields that has not taken effect yet.
struct ArmChange: Sendable {
    var to: ArmFields
    /// Other parameters: the old orders must be gone first, and nothing is decided until then.
    var stopsQuoting: Bool
    /// When to look again although no request is on its way: a ring had no room, or the row to be ended is not a millisecond long.
    var retryAt: Instant?
}

/// How a symbol changes its arm (SPEC 7.6): quoting -> cancels sent, no ticks -> both sides empty -> row cut, other arm, quoting.
///
/// A block of a switchback begins with an empty book, too, also when its arm is that of the block before: no order outlives its block, so every block
/// begins alike, and a fill's quote price is never a later block's target (SPEC 1.3).
///
/// Averages and the position are kept: features cross arms. What the old arm's width did to the spread's speed limit and to the nudges is
/// forgotten, a guard's halt is not. Fields that differ without other parameters (another reason, say) change at once, orders rest on.
extension SymbolState {
    /// Returns how many orders are being cancelled for it. Idempotent.
    mutating func change(to fields: ArmFields, at now: Moment, _ shared: inout SharedState) -> Int {
        if let change, change.to == fields { return 0 }
        change = nil
        guard fields != armFields else { return 0 }
        let isSameCandidate = fields.experiment == armFields.experiment && fields.configHash == armFields.configHash
        let isNewBlock = fields.block != nil && fields.block != armFields.block
        let stopsQuoting = fields.arm != armFields.arm || (fields.arm == .b && !isSameCandidate) || isNewBlock
        change = ArmChange(to: fields, stopsQuoting: stopsQuoting)
        let cancelled = stopsQuoting ? pull(at: now, &shared) : 0
        applyRequests(at: now, &shared)
        tryChange(at: now, &shared)
        return cancelled
    }

    /// Takes the change when nothing is in its way any more.
    mutating func tryChange(at now: Moment, _ shared: inout SharedState) {
        guard let wanted = change else { return }
        if wanted.stopsQuoting, !(bidSide.isEmpty && askSide.isEmpty) { return }
        // What the old arm has brought so far is its own.
        watchLoss(at: now, &shared)
        bookQuoteTime(at: now, &shared)
        let from = accumulator.pointee.fromMilliseconds
        let isUntouched =
            !accumulatorHasEvents && accumulator.pointee.counts.returns == 0 && accumulator.pointee.sums.quoteNanoseconds == 0
        guard shared.outboxes.events.room > 0,
            isUntouched || (shared.outboxes.snapshots.room > 0 && now.wall.milliseconds != from)
        else {
            change?.retryAt = now.instant.advanced(nanoseconds: 1_000_000)
            return
        }
        // A wall clock that stepped back must not keep a rollback waiting: that row is given one millisecond.
        let wall = max(now.wall, WallTime(nanoseconds: (isUntouched ? from : from + 1) * 1_000_000))
        cutSnapshot(at: Moment(instant: now.instant, wall: wall), &shared)
        // A row of nothing that found no place needs none.
        accumulator.pointee.fromMilliseconds = wall.milliseconds

        let before = armFields
        armFields = wanted.to
        armFieldsBeganMilliseconds = accumulator.pointee.fromMilliseconds
        change = nil
        if wanted.stopsQuoting {
            adoptSizes()
            (previousSpread, tightenedAt) = (nil, nil)
            nudge = (.zero, .zero)
            nudgedAt = (nil, nil)
        }
        shared.lastChange = now
        shared.outboxes.events.push(
            EventRecord(
                wall: now.wall, kind: .armChange, symbol: index, first: Int64(before.arm.rawValue), armFields: armFields))
    }

    /// When something asked for is due: a request takes effect, or a change can be tried again. Nil when nothing is.
    var nextDue: Instant? {
        let times = (bidSide.nextDue, askSide.nextDue, change?.retryAt)
        var earliest = times.0
        if let time = times.1 { earliest = min(earliest ?? time, time) }
        if let time = times.2 { earliest = min(earliest ?? time, time) }
        return earliest
    }
}

extension QuoteNode {
    /// Puts a plan in force, between two frames. Symbols it says nothing new about go on undisturbed; it supersedes changes still under way.
    ///
    /// Returns how many orders are being cancelled for it. The changes are in effect when `changingSymbols` is 0: see `nextDue`.
    package mutating func apply(_ plan: ArmPlan, at now: Moment) -> Int {
        precondition(plan.arms.count == symbolCount, "BUG: a plan for \(plan.arms.count) of \(symbolCount) symbols")
        precondition(plan.candidate != nil || plan.arms.allSatisfy { $0.arm == .a }, "BUG: arm B without a candidate")
        if case .interval = shared.parameters.trigger {
            // Whatever but the schedule ends B may have ended it while the process was stopped.
            for (index, choice) in plan.arms.enumerated()
            where symbols[index].armFields.arm == .b && choice.arm == .a && choice.why != .schedule && choice.why != .washout {
                symbols[index].skipIntervalTicks(upTo: now.instant)
            }
        }
        advance(to: now)
        if plan.configHash != shared.configHash {
            shared.configHash = plan.configHash
            shared.outboxes.events.push(
                EventRecord(wall: now.wall, kind: .config, armFields: ArmFields(configHash: plan.configHash)))
        }
        if let candidate = plan.candidate { adopt(candidate) }
        shared.breakers.pointee.watch(
            plan.candidate == nil ? nil : plan.experiment, configHash: plan.configHash, dailyLossHost: armParameters[0].limits.dailyLossHost
        )
        var cancelled = 0
        for (index, choice) in plan.arms.enumerated() {
            let fields = ArmFields(
                arm: choice.arm, why: choice.why, experiment: plan.experiment, block: choice.block, configHash: plan.configHash)
            cancelled += symbols[index].change(to: fields, at: now, &shared)
        }
        return cancelled
    }

    /// The process was stopped while the schedule gave other arms: what was missed is not decided by those before.
    package mutating func skipIntervalTicks(upTo now: Moment) {
        guard case .interval = shared.parameters.trigger else { return }
        for index in 0..<symbolCount { symbols[index].skipIntervalTicks(upTo: now.instant) }
    }

    /// Whether a breaker tripped: `takeBreaker` says which.
    package var hasTripped: Bool { shared.breakers.pointee.hasTripped }

    /// What tripped since the last call; told as an event. Nothing trips before it is taken.
    package mutating func takeBreaker(at now: Moment) -> BreakerTrip? {
        guard let trip = shared.breakers.pointee.take() else { return nil }
        let unit: Int64 = trip.kind == .loss ? 100_000_000 : 1
        let (count, of) = (min(trip.count / unit, Int64(Int32.max)), min(trip.of / unit, Int64(UInt32.max)))
        shared.outboxes.events.push(
            EventRecord(
                wall: now.wall, kind: .breaker, first: Int64(trip.kind.rawValue) * 2 + Int64(trip.scope.rawValue),
                second: count << 32 | of,
                armFields: ArmFields(experiment: shared.breakers.pointee.experiment, configHash: shared.configHash)))
        return trip
    }

    /// Symbols whose change is still under way.
    package var changingSymbols: Int { (0..<symbolCount).count { symbols[$0].change != nil } }

    /// When the newest change took effect; nil before any.
    package var lastChange: Moment? { shared.lastChange }

    /// When something asked for is due next, so that a shell calls `advance(to:)` then; nil when nothing is on its way. One look at every
    /// symbol: for after `apply`, `kill`, `cancelAll` and `advance`, not for after every frame.
    package var nextDue: Instant? {
        var earliest: Instant?
        for index in 0..<symbolCount {
            guard let due = symbols[index].nextDue else { continue }
            earliest = min(earliest ?? due, due)
        }
        return earliest
    }
}
