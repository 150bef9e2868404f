import CalibModel
import EdgeCore
import TestSupport
import Testing
import Wire

/// Idea: play hub, quote path and disk by hand, read the effects; then let a seed play all three and check what may never be.
struct ArmControlTests {
    private typealias Choice = ArmControl.Choice

    @Test func bIsPlayedOnlyAfterTheLeaseIsGranted_andOnlyByTheEnrolledSymbols() {
        var edge = Edge()
        #expect(edge.assign(Edge.spec()) == [.apply(edge.plan(.lease))])
        // Without a link there is nobody to ask.
        #expect(edge.requests == [])
        #expect(edge.step(.connected) == [Edge.request(1)])
        #expect(edge.grant(1) == [.apply(edge.plan(.schedule, b: .b))])
        #expect(edge.control.plan.choices == [Choice(.a, .schedule), Choice(.b, .schedule), Choice(.a, .none)])
        #expect(edge.control.holdsLease(at: edge.boot))
    }

    @Test func leaseEndsAtTheSendTimeOfItsRequestPlusDuration_toTheNanosecond() {
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(Edge.spec())
        let sentAt = edge.boot
        edge.boot += 4_000_000_000
        // The answer took four seconds: that time is not given twice.
        #expect(edge.grant(1) == [.apply(edge.plan(.schedule, b: .b))])
        _ = edge.step(.disconnected)
        #expect(edge.control.nextDue == sentAt + Limits.leaseNanoseconds)
        edge.boot = sentAt + Limits.leaseNanoseconds - 1
        #expect(edge.step(.tick) == [])
        edge.boot += 1
        #expect(edge.step(.tick) == [.apply(edge.plan(.lease))])
        #expect(!edge.control.holdsLease(at: edge.boot))
    }

    @Test func leaseIsAskedForEvery5Seconds_andAtOnceOnANewLink() {
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(Edge.spec())
        _ = edge.grant(1)
        edge.boot += Limits.leaseRenewalNanoseconds - 1
        #expect(edge.step(.tick) == [])
        edge.boot += 1
        #expect(edge.step(.tick) == [Edge.request(2)])
        _ = edge.step(.disconnected)
        #expect(edge.step(.connected) == [Edge.request(3)])
        // The old link's answer is none of ours.
        let before = edge.control.nextDue
        #expect(edge.grant(2) == [])
        #expect(edge.control.nextDue == before)
    }

    @Test(arguments: [(99, 15_000), (0, 15_000), (1, 0), (1, -5)] as [(Int64, Int64)])
    func answersToNoRequest_andRefusals_grantNothing(number: Int64, duration: Int64) {
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(Edge.spec())
        #expect(edge.step(.lease(.init(experiment: "exp-1", number: number, durationMilliseconds: duration))) == [])
        #expect(!edge.control.plan.playsB)
    }

    @Test func refusalEndsARunningLeaseAtOnce_andAnOldGrantAfterItDoesNotRevive() {
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(Edge.spec())
        _ = edge.grant(1)
        edge.boot += Limits.leaseRenewalNanoseconds
        _ = edge.step(.tick)
        #expect(edge.step(.lease(.init(experiment: "exp-1", number: 2, durationMilliseconds: 0))) == [.apply(edge.plan(.lease))])
        #expect(edge.grant(1) == [])
    }

    @Test func absurdDurationIsALeaseAtMost() {
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(Edge.spec())
        let sentAt = edge.boot
        _ = edge.step(.lease(.init(experiment: "exp-1", number: 1, durationMilliseconds: .max)))
        #expect(edge.control.holdsLease(at: sentAt + Limits.leaseNanoseconds - 1))
        #expect(!edge.control.holdsLease(at: sentAt + Limits.leaseNanoseconds))
    }

    @Test func nothingOfALeaseSurvivesARestart() {
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(Edge.spec())
        _ = edge.grant(1)
        edge.restart()
        _ = edge.step(.connected)
        #expect(edge.assign(Edge.spec()) == [.apply(edge.plan(.lease)), Edge.request(1)])
        #expect(!edge.control.playsB)
    }

    @Test func invalidCandidate_anUnknownDesign_orMode_isReportedAndNotPlayed() {
        var bad = Edge.spec()
        bad.candidate = [.init(key: "venue.url", value: "x")]
        var design = Edge.spec()
        design.design = "latin_square"
        var mode = Edge.spec()
        mode.mode = "damp"
        for spec in [bad, design, mode] {
            var edge = Edge()
            _ = edge.step(.connected)
            let effects = edge.assign(spec)
            #expect(effects.contains { if case .refused("exp-1", _) = $0 { true } else { false } })
            #expect(effects.contains { if case .say(.error(code: "experiment_refused", _)) = $0 { true } else { false } })
            #expect(edge.requests == [])
            #expect(edge.control.plan.choices.allSatisfy { $0 == Choice(.a, .none) })
        }
    }

    @Test func edgeWithoutABSymbolAsksForNoLease_itsBaselineIsOfThePlan() {
        var spec = Edge.spec()
        spec.symbolsB = ["OTHER"]
        var edge = Edge()
        _ = edge.step(.connected)
        _ = edge.assign(spec)
        #expect(edge.requests == [])
        #expect(edge.control.plan.choices == [Choice(.a, .schedule), Choice(.a, .none), Choice(.a, .none)])
    }

    @Test func endOfTheExperiment_andAnotherOne_needALeaseOfTheirOwn() {
        var edge = Edge()
        edge.playB()
        #expect(edge.assign(Edge.spec("exp-2")) == [.apply(edge.plan(.lease, spec: Edge.spec("exp-2"))), Edge.request(2, "exp-2")])
        #expect(edge.assign(nil).first == .apply(ArmControl.Plan(experiment: nil, choices: .init(repeating: Choice(.a, .none), count: 3))))
    }

    @Test func olderAssignmentIsNotTaken() {
        var edge = Edge()
        edge.playB()
        let effects = edge.step(.assigned(.init(revision: Revision(term: 0, number: 9), experiment: nil)))
        #expect(effects == [.say(.error(code: "stale_revision", text: "the assignment is older than the one in effect"))])
        #expect(edge.control.playsB)
    }

    // MARK: Rollback

    @Test func rollback_cancelsFirst_thenAppliedWhenItTookEffect_thenLatchedWhenDurable() {
        var edge = Edge()
        edge.playB()
        #expect(edge.step(.command(Edge.rollback("c1"))) == [.apply(edge.plan(.latch))])
        let row = LatchRecord(
            milliseconds: 5_123, experiment: "exp-1", command: "c1", by: "alice", reason: "worse", cancelledOrders: 2,
            revision: Revision(term: 1, number: 7))
        #expect(
            edge.step(.settled(atMilliseconds: 5_123, cancelledOrders: 2)) == [
                .say(.commandResult(.init(id: "c1", state: .applied, atMilliseconds: 5_123, cancelledOrders: 2, text: nil))), .record(row),
            ])
        edge.wall = 6_000
        #expect(
            edge.step(.recorded(experiment: "exp-1")) == [
                .say(.commandResult(.init(id: "c1", state: .latched, atMilliseconds: 6_000, cancelledOrders: 0, text: nil)))
            ])
        #expect(edge.control.latchedExperiments == ["exp-1"])
        // No lease is asked for any more.
        edge.boot += Limits.leaseRenewalNanoseconds
        #expect(edge.step(.tick) == [])
        #expect(edge.control.revision == Revision(term: 1, number: 10))
    }

    @Test func rolledBackSymbolsSaySoUntilThereIsAnotherExperiment() {
        var edge = Edge()
        edge.playB()
        _ = edge.step(.command(Edge.rollback("c1")))
        #expect(edge.assign(nil) == [])
        #expect(edge.control.plan == edge.plan(.latch))
        #expect(edge.assign(Edge.spec("exp-2")).first == .apply(edge.plan(.lease, spec: Edge.spec("exp-2"))))
        // The hub's news in the other order.
        var other = Edge()
        other.playB()
        _ = other.assign(nil)
        #expect(other.control.plan.experiment == nil)
        #expect(other.step(.command(Edge.rollback("c1"))) == [.apply(other.plan(.latch))])
    }

    @Test func repeatedRollbackIsAnsweredFromTheLatch_atEveryStage() {
        var edge = Edge()
        edge.playB()
        _ = edge.step(.command(Edge.rollback("c1")))
        #expect(edge.step(.command(Edge.rollback("c1"))) == [])
        _ = edge.step(.settled(atMilliseconds: 5_123, cancelledOrders: 2))
        let applied = ArmControl.Effect.say(
            .commandResult(.init(id: "c1", state: .applied, atMilliseconds: 5_123, cancelledOrders: 2, text: nil)))
        #expect(edge.step(.command(Edge.rollback("c1"))) == [applied])
        edge.writeLatches()
        for _ in 0..<2 {
            // Now, and after a restart.
            let answers = edge.step(.command(Edge.rollback("c1")))
            #expect(answers.first == applied && answers.count == 2)
            #expect(
                answers.last == .say(.commandResult(.init(id: "c1", state: .latched, atMilliseconds: 5_123, cancelledOrders: 0, text: nil)))
            )
            edge.restart()
        }
    }

    @Test func secondOperatorsRollbackIsAnsweredToo_withoutASecondRow() {
        var edge = Edge()
        edge.playB()
        _ = edge.step(.command(Edge.rollback("c1")))
        _ = edge.step(.command(Edge.rollback("c2")))
        let effects = edge.step(.settled(atMilliseconds: 5_123, cancelledOrders: 2))
        #expect(effects.compactMap(\.result).map(\.id) == ["c1", "c2"])
        #expect(effects.compactMap(\.result).map(\.cancelledOrders) == [2, 0])
        #expect(effects.count { if case .record = $0 { true } else { false } } == 1)
        #expect(edge.step(.recorded(experiment: "exp-1")).compactMap(\.result).map(\.id) == ["c1", "c2"])
    }

    @Test func rollbackOfAnUnknownExperimentLatches_soThatItNeverStarts() {
        var edge = Edge()
        _ = edge.step(.connected)
        let effects = edge.step(.command(Edge.rollback("c1", "exp-9")))
        #expect(effects.compactMap(\.result).map(\.state) == [.applied])
        edge.writeLatches()
        for _ in 0..<2 {
            _ = edge.assign(Edge.spec("exp-9"))
            #expect(edge.requests == [])
            #expect(edge.control.plan.choices == [Choice(.a, .latch), Choice(.a, .latch), Choice(.a, .none)])
            edge.restart()
            _ = edge.step(.connected)
        }
    }

    @Test func rowThatCannotBeWrittenIsTriedAgain_andOnlyThenCalledLatched() {
        var edge = Edge()
        edge.playB()
        _ = edge.step(.command(Edge.rollback("c1")))
        let settled = edge.step(.settled(atMilliseconds: 5_123, cancelledOrders: 2))
        #expect(edge.step(.recordFailed(experiment: "exp-1")) == [])
        #expect(edge.step(.command(Edge.rollback("c1"))).compactMap(\.result).map(\.state) == [.applied])
        #expect(edge.step(.tick) == [settled.last!])
        #expect(edge.step(.recorded(experiment: "exp-1")).compactMap(\.result).map(\.state) == [.latched])
    }

    @Test func damagedLatchesMeanNoExperimentAtAll_aTornEndDoesNot() {
        let row = String(decoding: LatchRecord.sample.line, as: UTF8.self)
        var torn = Edge(latches: row + row.dropLast(9))
        #expect(torn.control.latchedExperiments == ["exp-1"])
        _ = torn.assign(Edge.spec("exp-2"))
        #expect(torn.control.plan.experiment != nil)
        var damaged = Edge(latches: row + "nonsense\n" + row)
        let effects = damaged.assign(Edge.spec("exp-2"))
        #expect(effects.contains(.damaged(lines: [2])))
        #expect(damaged.control.plan.experiment == nil)
    }

    @Test func rowIsReadAsItWasWritten() throws {
        let rows = ControlRows(LatchRecord.sample.line, countsTornEnd: false) { value throws(WireError) in try LatchRecord(value) }
        #expect(rows.lines.map(\.row) == [.sample])
    }

    // MARK: Any order

    /// A hub that grants, refuses, forgets and rolls back, links that break, disks that fail, restarts. At every step: B is in place only for an
    /// experiment that is not rolled back, under a lease sent less than 15 s ago by this process.
    @Test(arguments: UInt64(1)...80)
    func nothingForbiddenIsEverInPlace(seed: UInt64) {
        var world = World(seed: seed)
        for _ in 0..<3_000 { world.step() }
        #expect(world.problems.isEmpty, "seed \(seed): \(world.problems.prefix(3))")
        #expect(world.stepsOnB > 20, "seed \(seed): B was hardly played")
    }
}

// MARK: - Support

extension LatchRecord {
    fileprivate static let sample = LatchRecord(
        milliseconds: 5_123, experiment: "exp-1", command: "c1", by: "alice", reason: "worse \"now\"", cancelledOrders: 2,
        revision: Revision(term: 1, number: 7))
}

extension ArmControl {
    fileprivate var playsB: Bool { plan.playsB }
}

extension ArmControl.Effect {
    fileprivate var result: Message.CommandResult? { if case .say(.commandResult(let result)) = self { result } else { nil } }
}

/// An ArmControl with its clock, and a disk for its rows.
private struct Edge {
    var control: ArmControl
    var boot: Int64 = 1_000_000_000_000
    var wall: Int64 = 5_000
    /// Numbers of the leases asked for.
    var requests: [Int64] = []
    private var disk: [UInt8]
    private var row: [UInt8] = []
    private var revisionNumber: Int64 = 9

    init(latches: String = "") {
        disk = Array(latches.utf8)
        control = Self.make(disk)
    }

    private static func make(_ latches: [UInt8]) -> ArmControl {
        ArmControl(symbols: ["AAA", "BBB", "CCC"], host: "edge-1", latches: latches) { spec in
            spec.candidate.contains { !$0.key.hasPrefix("spread.") } ? "only quoting parameters" : nil
        }
    }

    static func spec(_ id: String = "exp-1") -> ExperimentSpec {
        ExperimentSpec(
            id: id, createdMilliseconds: 1, salt: String(repeating: "0", count: 32), splitMicro: 500_000, symbolsA: ["AAA"],
            symbolsB: ["BBB"],
            candidate: [.init(key: "spread.base_bps", value: "2.0")])
    }

    static func rollback(_ id: String, _ experiment: String = "exp-1") -> Message.Command {
        Message.Command(
            id: id, revision: Revision(term: 1, number: 7), kind: .rollback, experiment: experiment, symbol: nil, reason: "worse",
            by: "alice",
            issuedMilliseconds: 4_000)
    }

    static func request(_ number: Int64, _ experiment: String = "exp-1") -> ArmControl.Effect {
        .say(.lease(.init(experiment: experiment, number: number, durationMilliseconds: nil)))
    }

    /// What is planned for `exp-1` with AAA on A and BBB on `b`, both for one reason.
    func plan(_ why: ArmReason, b: Arm = .a, spec: ExperimentSpec = Self.spec()) -> ArmControl.Plan {
        ArmControl.Plan(experiment: spec, choices: [.init(.a, why), .init(b, why), .init(.a, .none)])
    }

    mutating func step(_ input: ArmControl.Input) -> [ArmControl.Effect] {
        let effects = control.step(input, at: .init(bootNanoseconds: boot, wallMilliseconds: wall))
        for effect in effects {
            if case .say(.lease(let request)) = effect { requests.append(request.number) }
            if case .record(let record) = effect { row = record.line }
        }
        return effects
    }

    mutating func assign(_ spec: ExperimentSpec?) -> [ArmControl.Effect] {
        revisionNumber += 1
        return step(.assigned(.init(revision: Revision(term: 1, number: revisionNumber), experiment: spec)))
    }

    mutating func grant(_ number: Int64) -> [ArmControl.Effect] {
        step(.lease(.init(experiment: "exp-1", number: number, durationMilliseconds: 15_000)))
    }

    /// Connected, assigned, granted, settled.
    mutating func playB() {
        _ = step(.connected)
        _ = assign(Self.spec())
        _ = grant(1)
        _ = step(.settled(atMilliseconds: 5_000, cancelledOrders: 0))
    }

    /// The last row becomes durable.
    mutating func writeLatches() {
        disk += row
        for experiment in control.latchedExperiments { _ = step(.recorded(experiment: experiment)) }
    }

    mutating func restart() {
        control = Self.make(disk)
        requests = []
    }
}

private struct World {
    private var control: ArmControl
    private var random: SeededRandom
    private var boot: Int64 = 1_000
    private var disk: [UInt8] = []
    private var revision: Int64 = 0
    private var isConnected = false
    private var isUnsettled = false
    /// Experiments whose B the quote path has been told and not yet been rid of.
    private var mayBeOnB: Set<String> = []
    /// Requests of this process, by experiment and number.
    private var sentAt: [String: Int64] = [:]
    private var granted: [String: Int64] = [:]
    private var unanswered: [Message.Lease] = []
    private var rolledBack: Set<String> = []
    /// Rolled back, and told so with `latched`.
    private var latched: Set<String> = []
    private var commands: [Message.Command] = []
    private var rowInFlight: LatchRecord?
    private(set) var problems: [String] = []
    private(set) var stepsOnB = 0

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        control = Self.make([])
    }

    private static func make(_ latches: [UInt8]) -> ArmControl {
        ArmControl(symbols: ["AAA", "BBB"], host: "edge-1", latches: latches) { _ in nil }
    }

    mutating func step() {
        boot += Int64(random.next(below: 1_500_000_000))
        switch random.next(below: 100) {
        case 0..<4:
            let id = "exp-\(random.next(below: 30))"
            revision += 1
            input(
                .assigned(
                    .init(revision: Revision(term: 1, number: revision), experiment: random.next(below: 4) == 0 ? nil : Edge.spec(id))))
        case 4..<9:
            isConnected.toggle()
            unanswered = []
            input(isConnected ? .connected : .disconnected)
        case 9..<50 where !unanswered.isEmpty:
            var answer = unanswered.remove(at: random.next(below: unanswered.count))
            answer.durationMilliseconds = random.next(below: 10) == 0 ? 0 : 15_000
            if answer.durationMilliseconds != 0 { granted[answer.experiment] = max(granted[answer.experiment] ?? 0, answer.number) }
            input(.lease(answer))
        case 50..<52:
            let command = random.next(below: 3) == 0 ? commands.randomElement(using: &random) : nil
            let new = Edge.rollback("c\(commands.count)", control.plan.experiment?.id ?? "exp-\(random.next(below: 30))")
            commands.append(command ?? new)
            rolledBack.insert(commands.last!.experiment!)
            input(.command(commands.last!))
        case 52..<60 where rowInFlight != nil:
            let row = rowInFlight!
            rowInFlight = nil
            if random.next(below: 4) == 0 { return input(.recordFailed(experiment: row.experiment)) }
            disk += row.line
            input(.recorded(experiment: row.experiment))
        case 60..<75 where isUnsettled:
            isUnsettled = false
            mayBeOnB = control.plan.playsB ? [control.plan.experiment!.id] : []
            input(.settled(atMilliseconds: boot / 1_000_000, cancelledOrders: 1))
        case 99 where random.next(below: 4) == 0:
            control = Self.make(disk)
            (isConnected, isUnsettled, sentAt, granted, unanswered, rowInFlight) = (false, false, [:], [:], [], nil)
            mayBeOnB = []
            // The hub repeats what it has no last result for.
            rolledBack = latched
        default: input(.tick)
        }
    }

    private mutating func input(_ input: ArmControl.Input) {
        for effect in control.step(input, at: .init(bootNanoseconds: boot, wallMilliseconds: boot / 1_000_000)) {
            switch effect {
            case .apply(let plan):
                isUnsettled = true
                if plan.playsB { mayBeOnB.insert(plan.experiment!.id) }
            case .say(.lease(let request)):
                if !isConnected { problems.append("a request without a link") }
                sentAt["\(request.experiment) \(request.number)"] = boot
                unanswered.append(request)
            case .say(.commandResult(let result)):
                let experiment = commands.last { $0.id == result.id }?.experiment ?? "?"
                if result.state == .applied, mayBeOnB.contains(experiment) { problems.append("\(result.id) applied before it took effect") }
                if result.state == .latched {
                    latched.insert(experiment)
                    let isOnDisk = String(decoding: disk, as: UTF8.self).contains("\"\(experiment)\"")
                    if !isOnDisk { problems.append("\(result.id) latched, and \(experiment) is not on disk") }
                }
            case .record(let record): rowInFlight = record
            case .say, .refused, .damaged: break
            }
        }
        guard control.plan.playsB, let id = control.plan.experiment?.id else { return }
        stepsOnB += 1
        if rolledBack.contains(id) { problems.append("B of \(id), which is rolled back") }
        let sent = granted[id].flatMap { sentAt["\(id) \($0)"] }
        if sent.map({ boot - $0 >= Limits.leaseNanoseconds }) ?? true { problems.append("B of \(id) without a lease") }
    }
}
