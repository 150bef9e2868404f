import CalibModel
import EdgeCore
import TestSupport
import Testing
import Wire

/// An edge follows a switchback's schedule by the clock, and leaves and joins it at pairs' beginnings (SPEC 7.1, 7.4, 7.5).
struct SwitchbackArmTests {
    private static let start: Int64 = 1_735_689_600_000
    private static let block: Int64 = 60_000
    private static let symbols = ["AAA", "BBB", "CCC"]

    static func spec(washout: Int64 = 10_000, ramp: [Switchback.RampStep] = []) -> ExperimentSpec {
        let salt = "000102030405060708090a0b0c0d0e0f"
        let (key0, key1) = ExperimentSpec.keys(salt)
        return ExperimentSpec(
            id: "exp-1", design: "switchback", createdMilliseconds: start - 60_000, salt: salt, splitMicro: 500_000,
            candidate: [.init(key: "spread.base_bps", value: "2.0")],
            switchback: Switchback(
                startMilliseconds: start, blockMilliseconds: block, washoutMilliseconds: washout, key0: key0, key1: key1,
                clusters: [
                    .init(symbols: ["AAA"], group: 0, isOpposite: false), .init(symbols: ["BBB"], group: 0, isOpposite: true),
                ], ramp: ramp))
    }

    /// The hub's part is played here: every request is granted at once by a clock that `hubAhead` is off.
    private struct Edge {
        var control: ArmControl
        /// Since T0, ms.
        var at: Int64
        var hubAhead: Int64 = 0
        var isHubThere = true
        /// False: a hub of an older version, whose answers have no time.
        var hubTellsTime = true
        var said: [Message] = []
        var records: [LatchRecord] = []
        private let spec: ExperimentSpec
        private var revision: Int64 = 1

        init(at: Int64, spec: ExperimentSpec = SwitchbackArmTests.spec(), host: String = "edge-1", latches: [UInt8] = []) {
            control = ArmControl(symbols: SwitchbackArmTests.symbols, host: host, latches: latches) { _ in nil }
            self.at = at
            self.spec = spec
            step(.connected)
            assign()
        }

        mutating func assign(isPaused: Bool = false) {
            revision += 1
            step(.assigned(.init(revision: Revision(term: 1, number: revision), experiment: spec, isPaused: isPaused)))
        }

        mutating func step(_ input: ArmControl.Input) {
            let now = ArmControl.Now(bootNanoseconds: 1_000_000_000_000 + at * 1_000_000, wallMilliseconds: SwitchbackArmTests.start + at)
            for effect in control.step(input, at: now) {
                switch effect {
                case .say(.lease(let request)):
                    guard isHubThere else { continue }
                    step(
                        .lease(
                            .init(
                                experiment: request.experiment, number: request.number, durationMilliseconds: 15_000,
                                wallMilliseconds: hubTellsTime ? now.wallMilliseconds + hubAhead : nil)))
                case .say(let message): said.append(message)
                case .apply: step(.settled(atMilliseconds: now.wallMilliseconds, cancelledOrders: 2))
                case .record(let record):
                    records.append(record)
                    step(.recorded(experiment: record.experiment))
                case .refused, .damaged: break
                }
            }
        }

        /// Every second up to `end`.
        mutating func run(to end: Int64, _ look: (Edge) -> Void = { _ in }) {
            while at < end {
                at += 1_000
                step(.tick)
                look(self)
            }
        }

        var choices: [ArmChoice] { control.plan.choices }
        var breakersSaid: Int { said.count { if case .breaker = $0 { true } else { false } } }

        mutating func reload() {
            let now = ArmControl.Now(bootNanoseconds: 1_000_000_000_000 + at * 1_000_000, wallMilliseconds: SwitchbackArmTests.start + at)
            _ = control.adopt(reject: { _ in nil }, at: now)
        }

        mutating func rollback() {
            step(
                .command(
                    .init(
                        id: "c9", revision: Revision(term: 1, number: 9), kind: .rollback, experiment: "exp-1", symbol: nil,
                        reason: "breaker", by: "hub", issuedMilliseconds: 0)))
        }
    }

    @Test func everySecondsArmIsTheSpecs_andRunsOnBothHalvesOfEachPair() {
        var edge = Edge(at: -30_000)
        let spec = Self.spec()
        var seen: [Int32: Set<Arm>] = [:]
        edge.run(to: 10 * Self.block) { edge in
            for (index, symbol) in Self.symbols.enumerated() {
                let choice = edge.choices[index]
                guard let place = spec.place(of: symbol, on: "edge-1", at: Self.start + edge.at) else {
                    #expect(choice == ArmChoice(.a, .none))
                    continue
                }
                let expected = place.why == .join ? ArmChoice(.a, .join) : ArmChoice(place.arm, place.why, block: place.block)
                #expect(choice == expected, "\(symbol) at \(edge.at)")
                if let block = choice.block { seen[block >> 1, default: []].insert(choice.arm) }
            }
            if edge.at >= 0 { #expect(edge.choices[0].arm != edge.choices[1].arm, "matched symbols play opposite arms") }
        }
        #expect(seen.count == 6 && seen.filter { $0.key < 5 }.allSatisfy { $0.value == [.a, .b] })
    }

    @Test func theNextChangeIsKnownToTheMillisecond() {
        var edge = Edge(at: 5_000)
        #expect(edge.control.planEndsMilliseconds == Self.start + 10_000, "the washout's end")
        edge.run(to: 10_000)
        #expect(edge.control.planEndsMilliseconds == Self.start + Self.block)
    }

    @Test func whoComesInTheMiddleOfAPairWaitsForTheNext() {
        var edge = Edge(at: 30_000)
        edge.run(to: 2 * Self.block - 1_000) { #expect($0.choices[0] == ArmChoice(.a, .join)) }
        edge.run(to: 2 * Self.block)
        #expect(edge.choices[0].block == 2 && edge.choices[0].why == .washout)
    }

    @Test func aLostLeaseIsAForBothArms_andCostsTheWholePair() {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        edge.isHubThere = false
        edge.run(to: 40_000)
        #expect(edge.choices.prefix(2).allSatisfy { $0 == ArmChoice(.a, .lease) })
        edge.isHubThere = true
        edge.run(to: 46_000)
        edge.run(to: 2 * Self.block - 1_000) { #expect($0.choices[0] == ArmChoice(.a, .join)) }
        edge.run(to: 2 * Self.block)
        #expect(edge.choices[0].block == 2)
    }

    @Test(arguments: [(250, false), (251, true), (-250, false), (-251, true), (10_000, true)] as [(Int64, Bool)])
    func aWrongClockPlaysA(ahead: Int64, isWrong: Bool) {
        var edge = Edge(at: -5_000)
        edge.hubAhead = ahead
        edge.run(to: 20_000)
        #expect(edge.choices.prefix(2).allSatisfy { $0.why == .clock } == isWrong)
        edge.hubAhead = 0
        edge.run(to: 3 * Self.block + 15_000)
        #expect(edge.choices[0].why == .schedule, "it joins again once it is right")
    }

    /// A clock that was set is wrong until the hub has looked at it, and it is asked at once.
    @Test(arguments: [true, false]) func aClockThatWasSetPlaysA_untilTheHubHasLookedAtIt(isRight: Bool) {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        #expect(edge.choices[0].why == .schedule)
        edge.isHubThere = false
        edge.step(.clockStepped)
        #expect(edge.choices.prefix(2).allSatisfy { $0 == ArmChoice(.a, .clock) })
        edge.run(to: 22_000)
        #expect(edge.choices[0] == ArmChoice(.a, .clock), "nobody has looked at it")
        edge.isHubThere = true
        edge.hubAhead = isRight ? 0 : 10_000
        edge.step(.clockStepped)
        #expect(edge.choices[0].why == (isRight ? .join : .clock))
    }

    /// What was asked before the step is answered with the time after it: between both the error may be anything.
    @Test func anAnswerToAnOlderQuestionSaysNothingAboutAClockThatWasSet() {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        edge.isHubThere = false
        edge.run(to: 26_000)
        edge.step(.clockStepped)
        for number in Int64(1)..<8 {
            edge.step(
                .lease(
                    .init(
                        experiment: "exp-1", number: number, durationMilliseconds: 15_000, wallMilliseconds: Self.start + 26_000)))
        }
        #expect(edge.choices[0] == ArmChoice(.a, .clock))
    }

    @Test func anOldHubTellsNoTime_soAStepChangesNothing() {
        var edge = Edge(at: -5_000)
        edge.hubTellsTime = false
        // The first answer came with the connection.
        edge.control = ArmControl(symbols: Self.symbols, host: "edge-1", latches: []) { _ in nil }
        edge.step(.connected)
        edge.assign()
        edge.run(to: 20_000)
        let before = edge.choices
        edge.step(.clockStepped)
        #expect(edge.choices == before && before[0].why == .schedule)
    }

    @Test func aPauseIsManual_andGoesOnAtAPair() {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        edge.assign(isPaused: true)
        #expect(edge.choices.prefix(2).allSatisfy { $0 == ArmChoice(.a, .manual) })
        edge.assign()
        edge.run(to: 40_000)
        #expect(edge.choices[0] == ArmChoice(.a, .join))
        edge.run(to: 2 * Self.block + 15_000)
        #expect(edge.choices[0].why == .schedule && edge.choices[0].block == 2)
    }

    private static let harm = BreakerTrip(kind: .deadlineMiss, scope: .harm, count: 25, of: 100, baselineCount: 0, baselineOf: 80)

    @Test func aBreakerLatches_tellsTheHub_andOutlivesARestart() throws {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        edge.step(.tripped(Self.harm))
        #expect(edge.choices.prefix(2).allSatisfy { $0 == ArmChoice(.a, .breaker) })
        #expect(
            edge.said == [.breaker(.init(experiment: "exp-1", trip: Self.harm, atMilliseconds: Self.start + 20_000))])
        let record = try #require(edge.records.first)
        #expect(record.breaker == .deadlineMiss && record.cancelledOrders == 2 && edge.control.latchedExperiments == ["exp-1"])
        // The hub's own rollback finds it done.
        edge.rollback()
        let results = edge.said.compactMap { if case .commandResult(let result) = $0 { result } else { nil } }
        #expect(results.map(\.state) == [.applied, .latched] && results.allSatisfy { $0.id == "c9" })
        edge.run(to: 3 * Self.block)
        #expect(edge.choices[0] == ArmChoice(.a, .breaker))
        var again = Edge(at: 4 * Self.block, latches: record.line)
        again.run(to: 7 * Self.block)
        #expect(again.choices.prefix(2).allSatisfy { $0 == ArmChoice(.a, .breaker) })
    }

    @Test func anEnvironmentSitsOutThePair_andLatchesNothing() {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        var trip = Self.harm
        trip.scope = .environment
        edge.step(.tripped(trip))
        #expect(edge.choices.prefix(2).allSatisfy { $0 == ArmChoice(.a, .breaker) } && edge.control.latchedExperiments.isEmpty)
        edge.run(to: 2 * Self.block - 1_000) { #expect($0.choices[0] == ArmChoice(.a, .breaker)) }
        edge.run(to: 2 * Self.block)
        #expect(edge.choices[0].block == 2)
    }

    /// The link may take the message with it: it is said until the hub's rollback is here.
    @Test func aBreakerIsSaidAgain_untilTheRollbackComes() {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        edge.step(.disconnected)
        edge.step(.tripped(Self.harm))
        edge.run(to: 25_000)
        #expect(edge.breakersSaid == 0, "nobody hears it")
        edge.step(.connected)
        let message = Message.breaker(.init(experiment: "exp-1", trip: Self.harm, atMilliseconds: Self.start + 20_000))
        #expect(edge.said.contains(message) && edge.breakersSaid == 1)
        edge.step(.tick)
        #expect(edge.breakersSaid == 1, "once a second")
        edge.run(to: 28_000)
        #expect(edge.breakersSaid == 4)
        // A pause is no answer to harm.
        edge.assign(isPaused: true)
        edge.run(to: 29_000)
        #expect(edge.breakersSaid == 5)
        edge.rollback()
        edge.run(to: 40_000)
        #expect(edge.breakersSaid == 5)
    }

    @Test(arguments: ["pause", "none"]) func anEnvironmentIsSaidAgain_untilTheHubPausesOrEndsIt(answer: String) {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        var trip = Self.harm
        trip.scope = .environment
        edge.step(.tripped(trip))
        edge.run(to: 22_000)
        #expect(edge.breakersSaid == 3)
        if answer == "pause" {
            edge.assign(isPaused: true)
        } else {
            edge.step(.assigned(.init(revision: Revision(term: 1, number: 99), experiment: nil)))
        }
        edge.run(to: 30_000)
        #expect(edge.breakersSaid == 3)
    }

    /// Otherwise whoever reloads lets B back into the environment that was bad for both.
    @Test func aReloadDoesNotEndTheRest() {
        var edge = Edge(at: -5_000)
        edge.run(to: 20_000)
        var trip = Self.harm
        trip.scope = .environment
        edge.step(.tripped(trip))
        edge.reload()
        edge.run(to: 2 * Self.block - 1_000) { #expect($0.choices[0] == ArmChoice(.a, .breaker)) }
        edge.run(to: 2 * Self.block)
        #expect(edge.choices[0].block == 2)
    }

    @Test func aRampBeginsAtItsPair() {
        var edge = Edge(at: -5_000, spec: Self.spec(ramp: [.init(fromPair: 1, shareMicro: 1_000_000)]))
        edge.run(to: 2 * Self.block - 1_000) { #expect($0.choices[0] == ArmChoice(.a, .join)) }
        edge.run(to: 2 * Self.block)
        #expect(edge.choices[0].block == 2)
    }

    @Test func hostSymbolGivesEachHostItsArm_andOtherHostsNone() {
        let hosts = (1...8).map { "edge-\($0)" }
        let spec = ExperimentSpec(
            id: "exp-1", design: "host_symbol", createdMilliseconds: 1, salt: "000102030405060708090a0b0c0d0e0f", splitMicro: 500_000,
            candidate: [], hostSymbols: .init(hosts: hosts, symbols: ["AAA", "BBB"]))
        let arms = hosts.map { host in
            var edge = Edge(at: 0, spec: spec, host: host)
            edge.run(to: 2_000)
            return edge.choices
        }
        for symbol in 0..<2 { #expect(arms.count { $0[symbol].arm == .b } == 4) }
        #expect(arms.allSatisfy { $0.prefix(2).allSatisfy { $0.why == .schedule && $0.block == nil } })
        let stranger = Edge(at: 0, spec: spec, host: "edge-9")
        #expect(stranger.choices.allSatisfy { $0 == ArmChoice(.a, .none) })
    }

    /// SPEC 7.2: nothing of B leaves the edge, so no lease is asked for.
    @Test func dryIsAOnTheSymbolsThatTakePart_withoutALease() {
        var spec = Self.spec()
        spec.mode = "dry"
        var edge = Edge(at: 0, spec: spec)
        edge.isHubThere = false
        edge.run(to: 20_000)
        #expect(edge.choices == [ArmChoice(.a, .dry), ArmChoice(.a, .dry), ArmChoice(.a, .none)] && !edge.control.holdsLease(at: 0))
    }

    @Test func specOfAnotherDesignsFieldsIsRefused() throws {
        func refused(_ change: (inout ExperimentSpec) -> Void) -> Bool {
            var spec = Self.spec()
            change(&spec)
            return (try? ExperimentSpec(JSONValue.parse(spec.bytes))) == nil
        }
        #expect(!refused { _ in })
        #expect(refused { $0.switchback = nil } && refused { $0.design = "symbol" } && refused { $0.switchback?.startMilliseconds += 1 })
        #expect(refused { $0.switchback?.washoutMilliseconds = Self.block })
    }
}
