import CalibModel

/// Arm B of a `dry` experiment (SPEC 7.2): every tick of the enrolled symbols decided a second time, with the candidate's parameters and a paper
/// exchange, inventory and guards of its own. Nothing of it leaves but snapshot rows.
///
/// It is a second node over the same frames. It begins with empty books, so the shell renews the venue's connections behind it, and what it would
/// ask of the venue is dropped: what the first node asks for comes to both.
package struct DryArm: ~Copyable {
    private var node: QuoteNode
    private let memory = OutboxMemory()
    /// Snapshot records that were passed on.
    private var passed = 0

    /// - Parameters:
    ///   - parameters: arm A's.
    ///   - enrolled: by `SymbolIndex`.
    package init(
        venue: QuoteNode.Venue, instruments: [Instrument], parameters: Parameters, candidate: Parameters, experiment: ExperimentID?,
        configHash: UInt64, enrolled: [Bool], isRecorded: Bool = false, connections: Int, clock: StopClock, at now: Moment
    ) {
        node = QuoteNode(
            venue: venue, instruments: instruments, parameters: parameters, configHash: configHash, isRecorded: isRecorded,
            connections: connections, runNumber: 0, firstFillID: 0, outboxes: memory.makeOutboxes(), clock: clock)
        let arms = enrolled.map { $0 ? ArmChoice(.b, .dry) : ArmChoice(.a, .none) }
        _ = node.apply(ArmPlan(experiment: experiment, candidate: candidate, configHash: configHash, arms: arms), at: now)
    }

    package mutating func connected(_ connection: Int, at now: Moment) { node.connected(connection, at: now) }

    package mutating func disconnected(_ connection: Int, at now: Moment) {
        node.disconnected(connection, at: now)
        _ = node.cancelAll(at: now)
    }

    /// The first node pinged every connection: the answers are for both.
    package mutating func pinged(at now: Moment) { node.pinged(at: now.instant) }

    package mutating func pong(on connection: Int, at now: Moment) { node.pong(on: connection, at: now) }

    package mutating func snapshotAnswered(_ symbol: SymbolIndex, _ body: UnsafeRawBufferPointer, sentAt: Moment, at now: Moment) {
        node.snapshotAnswered(symbol, body, sentAt: sentAt, at: now)
    }

    package mutating func snapshotFailed(_ symbol: SymbolIndex, pauseNanoseconds: Int64, at now: Moment) {
        node.snapshotFailed(symbol, pauseNanoseconds: pauseNanoseconds, at: now)
    }

    package mutating func instrumentChanged(_ symbol: SymbolIndex, at now: Moment) { node.instrumentChanged(symbol, at: now) }

    package mutating func clockStepped(by nanoseconds: Int64) { node.clockStepped(by: nanoseconds) }

    package mutating func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int, at now: Moment) {
        node.frame(bytes, on: connection, at: now)
        _ = node.takeBreaker(at: now)
    }

    package mutating func advance(to now: Moment) {
        node.advance(to: now)
        node.dropRequests()
    }

    /// For tests: what it knows of a connection.
    func pulse(of connection: Int) -> ConnectionPulse { node.pulse(of: connection) }

    /// Hands B's rows on; one that finds no room waits here.
    package mutating func pass(to snapshots: inout Outbox<SnapshotRecord>) {
        while passed < node.shared.outboxes.snapshots.committed {
            let record = memory.snapshot(passed)
            if record.armFields.arm == .b {
                guard snapshots.room > 0 else { break }
                snapshots.push(record)
            }
            passed += 1
        }
        memory.discard(&node.shared.outboxes, keepingSnapshots: node.shared.outboxes.snapshots.committed - passed)
    }

    /// Ends it: what is under way is closed, and its rows are handed on. Call again while it returns false: one found no room.
    package mutating func finish(to snapshots: inout Outbox<SnapshotRecord>) -> Bool {
        let isDone = node.finish()
        pass(to: &snapshots)
        return isDone && passed == node.shared.outboxes.snapshots.committed
    }
}
