import CalibModel
import TestSupport
import Testing
import Wire

@testable import HubCore

/// The control core with a log in memory: what is persisted becomes durable when a test says so.
struct ControlTests {
    struct Hub {
        static let alice = LinkID(100)
        static let bob = LinkID(101)
        static let viewer = LinkID(102)

        var control: Control
        var log: [LogRecord] = []
        var durable: Int64 = 0
        /// Of the hub's clock, ms.
        var now: Int64 = 1_735_689_600_000
        var sent: [(link: LinkID, message: Message)] = []
        var replies: [(link: LinkID, id: Int64, outcome: Message.Reply.Outcome)] = []

        /// Not a digest anybody should trust; it changes with every byte.
        static let sha256: @Sendable ([UInt8]) -> String = { bytes in
            let digits = String(KeyedHash.hash(bytes, key0: 1, key1: 2), radix: 16)
            return String(repeating: "0", count: 64 - digits.count) + digits
        }

        init(replaying records: [LogRecord] = [], seed: UInt64 = 1) {
            let random = Random(seed: seed)
            control = Control(sha256: Self.sha256, random: { random.next() })
            for record in records {
                do throws(LogDamage) { try control.replay(record.bytes) } catch { Issue.record("\(error)") }
            }
            log = records
            durable = Int64(records.count)
            step(.started)
            sync()
            for (link, role, name) in [
                (Self.alice, Peer.Role.operator, "alice"), (Self.bob, .operator, "bob"), (Self.viewer, .viewer, "eve"),
            ] {
                step(.connected(link, Peer(role: role, name: name), Message.Hello(version: "test", edge: nil)))
            }
        }

        var moment: Moment {
            Moment(instant: Instant(nanoseconds: (now - 1_735_689_600_000) * 1_000_000), wall: WallTime(nanoseconds: now * 1_000_000))
        }

        private(set) var parts: [FeedPart] = []
        private(set) var surveys: [(experiment: String, hosts: [String])] = []
        private(set) var watched: [String: Experiment] = [:]
        private(set) var silences: [PairPlan.Silence] = []

        mutating func step(_ input: Control.Input) {
            for effect in control.step(input, at: moment) {
                switch effect {
                case .persist(let record): log.append(record)
                case .send(let link, let message): sent.append((link, message))
                case .reply(let link, let id, let outcome): replies.append((link, id, outcome))
                case .partRecorded(_, let part): parts.append(part)
                case .survey(let id, let hosts, _, _): surveys.append((id, hosts))
                case .watch(let experiment): watched[experiment.spec.id] = experiment
                case .unwatch(let id): watched[id] = nil
                case .silenceRecorded(_, let silence): silences.append(silence)
                }
            }
        }

        /// Everything persisted becomes durable, and what follows from it.
        mutating func sync() {
            while durable < Int64(log.count) {
                durable = Int64(log.count)
                step(.persisted(durable))
            }
        }

        mutating func connect(
            _ link: Int, _ host: String, symbols: [String] = ["BTCUSDT", "ETHUSDT"], latches: [String] = [], revision: Revision = .zero
        ) {
            let edge = Message.Hello.Edge(
                host: host, epoch: "00000000000000aa", source: "sim", venue: "sim", wallMilliseconds: 0, symbols: symbols,
                revision: revision, latches: latches, configHash: "0")
            step(.connected(LinkID(link), Peer(role: .edge, name: host), Message.Hello(version: "test", edge: edge)))
            sync()
        }

        mutating func request(_ verb: String, _ arguments: [String: String] = [:], by link: LinkID = alice, isSynced: Bool = true) {
            step(.request(link, Message.Request(id: Int64(replies.count + 1), verb: verb, arguments: arguments)))
            if isSynced { sync() }
        }

        mutating func create(_ id: String = "x") {
            request(
                "experiment create",
                ["id": id, "design": "symbol", "split": "0.5", "candidate": "spread.base_bps=1.2", "reason": "try"])
            request("experiment start", ["id": id, "reason": "go"])
        }

        mutating func result(_ link: Int, _ id: String, _ state: Message.CommandState, isSynced: Bool = true) {
            let result = Message.CommandResult(id: id, state: state, atMilliseconds: now, cancelledOrders: 3, text: nil)
            step(.received(LinkID(link), .commandResult(result)))
            if isSynced { sync() }
        }

        mutating func lease(_ link: Int, _ experiment: String, number: Int64 = 1) -> Int64? {
            step(.received(LinkID(link), .lease(Message.Lease(experiment: experiment, number: number, durationMilliseconds: nil))))
            for case (LinkID(link), .lease(let lease)) in sent.reversed() where lease.number == number { return lease.durationMilliseconds }
            return nil
        }

        func commands(to link: Int) -> [Message.Command] {
            sent.compactMap { entry in
                guard case .command(let command) = entry.message, entry.link == LinkID(link) else { return nil }
                return command
            }
        }

        /// Nil when none was sent.
        func assignment(of link: Int) -> ExperimentSpec?? {
            for case (LinkID(link), .assignment(let assignment)) in sent.reversed() { return .some(assignment.experiment) }
            return nil
        }

        var lastReply: JSONValue? { if case .ok(let body)? = replies.last?.outcome { body } else { nil } }
        var lastFailure: String? { if case .failed(let code, _, _)? = replies.last?.outcome { code } else { nil } }
    }

    final class Random: @unchecked Sendable {
        // One test's own thread uses it.
        private var random: SeededRandom
        init(seed: UInt64) { random = SeededRandom(seed: seed) }
        func next() -> UInt64 { random.next() }
    }

    /// Two hosts on links 1 and 2, an experiment online.
    static func running() -> Hub {
        var hub = Hub()
        hub.connect(1, "a")
        hub.connect(2, "b")
        hub.create()
        return hub
    }

    // MARK: Experiments

    /// An edge that was restored has other bytes in several files at once, and their records share a commit.
    @Test func partsOfOneCommitAreEachTold() {
        var hub = Hub()
        let parts = ["fills_20250101.jsonl", "quotes_20250101.jsonl", "events_20250101.jsonl"].map {
            FeedPart(file: $0, number: 1, epoch: "00000000000000aa", base: 7, prefixCRC32C: "00c0ffee")
        }
        for part in parts { hub.step(.part(host: "tokyo", part)) }
        hub.sync()
        #expect(hub.parts == parts)
    }

    /// Bytes may go to a part only when a crash cannot forget whose they are.
    @Test func partIsTold_onceItsRecordIsDurable_andIsThereAfterARestart() throws {
        var hub = Hub()
        let part = FeedPart(file: "fills_20250101.jsonl", number: 1, epoch: "00000000000000aa", base: 7, prefixCRC32C: "00c0ffee")
        hub.step(.part(host: "tokyo", part))
        #expect(hub.parts.isEmpty)
        hub.sync()
        #expect(hub.parts == [part] && hub.control.parts["tokyo"] == [part])
        #expect(Hub(replaying: hub.log).control.parts["tokyo"] == [part])
    }

    @Test func experimentIsAssignedOnceItIsDurable() throws {
        var hub = Hub()
        hub.connect(1, "a")
        #expect(hub.assignment(of: 1) == .some(nil))
        hub.request(
            "experiment create", ["id": "x", "design": "symbol", "candidate": "spread.base_bps=1.2", "reason": "try"])
        #expect(hub.lastReply?["experiment"]?["state"]?.string == "draft" && hub.assignment(of: 1) == .some(nil))
        hub.replies = []
        hub.request("experiment start", ["id": "x", "reason": "go"], isSynced: false)
        #expect(hub.assignment(of: 1) == .some(nil) && hub.replies.isEmpty)
        hub.sync()
        let spec = try #require(hub.assignment(of: 1) ?? nil)
        #expect(spec.symbolsA.count == 1 && spec.symbolsB.count == 1 && spec.candidate.first?.key == "spread.base_bps")
        #expect(hub.lastReply?["experiment"]?["state"]?.string == "online")
        // Its host is told on each connection; one that comes later takes no part.
        hub.connect(2, "a")
        #expect(hub.assignment(of: 2) == spec)
        hub.connect(3, "b")
        #expect(hub.assignment(of: 3) == .some(nil))
    }

    @Test func stoppedExperimentIsTakenBackWithoutALatch() {
        var hub = Self.running()
        hub.request("experiment stop", ["id": "x", "reason": "enough"])
        #expect(hub.lastReply?["experiment"]?["state"]?.string == "stopped")
        #expect(hub.assignment(of: 1) == .some(nil) && hub.commands(to: 1).isEmpty)
        #expect(hub.lease(1, "x") == 0)
    }

    static let refusals: [(String, [String: String], String)] = [
        ("experiment create", ["split": "0.5", "candidate": "a=1"], "usage"),
        ("experiment create", ["split": "0.5", "candidate": "a=1", "reason": "  "], "usage"),
        ("experiment create", ["design": "symbol", "split": "1.5", "candidate": "a=1", "reason": "r"], "usage"),
        ("experiment create", ["split": "0.5", "candidate": "a=1", "reason": "r"], "usage"),
        ("experiment create", ["design": "coin", "candidate": "a=1", "reason": "r"], "usage"),
        ("experiment create", ["block_sec": "15", "candidate": "a=1", "reason": "r"], "usage"),
        ("experiment create", ["ramp": "0:0.5,0:1", "candidate": "a=1", "reason": "r"], "usage"),
        ("experiment start", ["id": "x", "reason": "r"], "not_startable"),
        ("experiment promote", ["id": "x", "reason": "r"], "not_passed"),
        ("experiment start", ["id": "none", "reason": "r"], "unknown_experiment"),
        ("experiment create", ["candidate": "a=1,a=2", "reason": "r"], "usage"),
        ("experiment create", ["candidate": "a", "reason": "r"], "usage"),
        ("experiment create", ["candidate": "a=1", "reason": "r", "id": "no blanks"], "usage"),
        ("experiment create", ["candidate": "a=1", "reason": "r", "symbols": "NONE"], "unknown_symbol"),
        ("experiment create", ["candidate": "a=1", "reason": "r", "id": "x"], "exists"),
        ("experiment rollback", ["id": "x"], "usage"), ("experiment rollback", ["id": "none", "reason": "r"], "unknown_experiment"),
        ("experiment get", ["id": "none"], "unknown_experiment"), ("experiment dance", [:], "usage"), ("host list", ["a": "b"], "usage"),
        ("kill", ["reason": "r"], "usage"), ("kill", ["reason": "r", "all": "true", "host": "a"], "usage"),
        ("kill", ["all": "true"], "usage"),
        ("kill", ["reason": "r", "host": "nowhere"], "unknown_host"), ("kill", ["reason": "r", "symbol": "NONE"], "unknown_symbol"),
        ("kill", ["reason": "r", "all": "true", "timeout_ms": "soon"], "usage"),
        ("kill release", ["reason": "r", "all": "true"], "not_killed"),
        ("parameters set", ["reason": "r", "set": "spread.base_bps=1"], "usage"),
        ("parameters set", ["all": "true", "set": "a=1"], "usage"),
        ("parameters set", ["reason": "r", "all": "true", "set": "a"], "usage"),
        ("parameters set", ["reason": "r", "all": "true", "set": "a=1,a=2"], "usage"),
        ("parameters set", ["reason": "r", "host": "nowhere", "set": "a=1"], "unknown_host"),
    ]

    @Test(arguments: refusals.indices) func requestIsRefused_andNothingIsLogged(row: Int) {
        let (verb, arguments, code) = Self.refusals[row]
        var hub = Self.running()
        let logged = hub.log.count
        hub.request(verb, arguments)
        #expect(hub.lastFailure == code && hub.log.count == logged)
    }

    @Test func viewersOnlyRead() {
        var hub = Self.running()
        for verb in Verb.allCases where verb.acts {
            let arguments = Dictionary(uniqueKeysWithValues: verb.needed.map { ($0, "1") })
            hub.request(verb.rawValue, arguments, by: Hub.viewer)
            #expect(hub.lastFailure == "not_authorised", "\(verb.rawValue)")
        }
        hub.request("experiment get", ["id": "x"], by: Hub.viewer)
        #expect(hub.lastReply?["state"]?.string == "online")
    }

    // MARK: Leases

    @Test func leaseIsGrantedOnlyOnline_andEchoesItsNumber() {
        var hub = Hub()
        hub.connect(1, "a")
        hub.connect(3, "c", symbols: ["SOLUSDT"])
        #expect(hub.lease(1, "other", number: 5) == 0)
        hub.request(
            "experiment create", ["id": "x", "design": "symbol", "symbols": "BTCUSDT,ETHUSDT", "candidate": "a=1", "reason": "r"])
        #expect(hub.lease(1, "x", number: 1) == 0)
        hub.request("experiment start", ["id": "x", "reason": "r"])
        #expect(hub.lease(1, "x", number: 6) == 15_000)
        #expect(hub.lease(3, "x", number: 7) == 0)
        hub.request("experiment rollback", ["id": "x", "reason": "bad"], isSynced: false)
        #expect(hub.lease(1, "x", number: 8) == 0)
        hub.sync()
        #expect(hub.lease(1, "x", number: 9) == 0)
    }

    // MARK: Rollback

    @Test func rollbackIsSentOnceDurable_latched_andAnswered() throws {
        var hub = Self.running()
        hub.request("experiment rollback", ["id": "x", "reason": "bad"], isSynced: false)
        #expect(hub.commands(to: 1).isEmpty)
        hub.sync()
        let command = try #require(hub.commands(to: 1).first)
        #expect(command.kind == .rollback && command.experiment == "x" && command.by == "operator/alice")
        #expect(hub.commands(to: 2).map(\.id) == [command.id])
        let replies = hub.replies.count
        hub.now += 5
        hub.result(1, command.id, .applied)
        hub.now += 20
        hub.result(1, command.id, .latched)
        hub.result(2, command.id, .applied)
        #expect(hub.replies.count == replies)
        hub.result(2, command.id, .latched)
        let hosts = try #require(hub.lastReply?["hosts"]?.array)
        #expect(hosts.count == 2 && hosts.allSatisfy { $0["state"]?.string == "latched" })
        #expect(hosts[0]["applied_latency_ms"]?.fixed(places: 0) == 5 && hosts[0]["latched_latency_ms"]?.fixed(places: 0) == 25)
        #expect(hosts[0]["cancelled_orders"]?.integer == 3 && hosts[0]["edge_applied_at_ms"]?.integer == hub.now - 20)
        // Once more: idempotent, answered at once, nothing sent.
        let sent = hub.sent.count
        hub.request("experiment rollback", ["id": "x", "reason": "again"], by: Hub.bob)
        #expect(hub.lastReply?["command"]?.string == command.id && hub.sent.count == sent)
    }

    @Test func rollbackIsRepeatedOnEveryConnection_untilTheEdgeHasLatchedIt() throws {
        var hub = Self.running()
        hub.request("experiment rollback", ["id": "x", "reason": "bad"])
        let id = try #require(hub.commands(to: 1).first?.id)
        hub.result(1, id, .applied)
        for link in 11...12 {
            hub.step(.disconnected(LinkID(link == 11 ? 1 : link - 1)))
            hub.connect(link, "a")
            #expect(hub.commands(to: link).map(\.id) == [id])
        }
        hub.result(12, id, .latched)
        hub.step(.disconnected(LinkID(12)))
        hub.connect(13, "a", latches: ["x"])
        #expect(hub.commands(to: 13).isEmpty && hub.assignment(of: 13)??.id == "x")
        // One that has lost its latch is assigned nothing.
        hub.step(.disconnected(LinkID(13)))
        hub.connect(14, "a")
        #expect(hub.assignment(of: 14) == .some(nil))
    }

    @Test func unreachableHostIsUnconfirmed_andSafeAfterItsLease() throws {
        var hub = Self.running()
        hub.now += 60_000
        #expect(hub.lease(2, "x") == 15_000)
        hub.now += 1_000
        hub.step(.disconnected(LinkID(2)))
        let start = hub.now
        hub.request("experiment rollback", ["id": "x", "reason": "bad"])
        let id = try #require(hub.commands(to: 1).first?.id)
        hub.result(1, id, .latched)
        let replies = hub.replies.count
        hub.now = start + 9_999
        hub.step(.tick)
        #expect(hub.replies.count == replies)
        hub.now = start + 10_000
        hub.step(.tick)
        guard case .failed("timeout", let text, 3)? = hub.replies.last?.outcome else {
            Issue.record("\(String(describing: hub.replies.last))")
            return
        }
        // Granted a second before, for 15 s, and one more.
        #expect(text.contains("b (unconfirmed, safe at \(TimeText.milliseconds(start + 15_000)))"))
        hub.now = start + 15_000
        hub.request("experiment rollback", ["id": "x", "reason": "bad"])
        let host = try #require(hub.lastReply?["hosts"]?.array?.last)
        #expect(host["state"]?.string == "unconfirmed" && host["safe_at_ms"]?.integer == start + 15_000)
    }

    @Test func afterARestartEveryHostMayHoldALease() throws {
        var before = Self.running()
        _ = before.lease(1, "x")
        var hub = Hub(replaying: before.log)
        hub.request("experiment rollback", ["id": "x", "reason": "bad", "timeout_ms": "0"])
        #expect(hub.lastFailure == "timeout")
        hub.now += 16_000
        hub.request("experiment rollback", ["id": "x", "reason": "bad", "timeout_ms": "0"])
        #expect(hub.lastFailure == nil)
    }

    @Test func edgeThatNamesAnExperimentTheHubDoesNotKnowIsRolledBack() throws {
        var hub = Hub()
        hub.connect(1, "a")
        #expect(hub.lease(1, "ghost") == 0)
        #expect(hub.commands(to: 1).isEmpty)
        hub.sync()
        let command = try #require(hub.commands(to: 1).first)
        #expect(command.experiment == "ghost" && command.by == "hub")
        // It asks again, so it has not heard.
        _ = hub.lease(1, "ghost", number: 2)
        hub.sync()
        #expect(hub.commands(to: 1).map(\.id) == [command.id, command.id])
        // Another host with the same ghost: the same command.
        hub.connect(2, "b")
        _ = hub.lease(2, "ghost")
        hub.sync()
        #expect(hub.commands(to: 2).map(\.id) == [command.id])
        hub.request("experiment create", ["id": "ghost", "candidate": "a=1", "reason": "r"])
        #expect(hub.lastFailure == "exists")
    }

    @Test func rejectedCommandIsSaid() throws {
        var hub = Self.running()
        hub.request("kill", ["host": "a", "symbol": "BTCUSDT", "reason": "r"])
        hub.result(1, try #require(hub.commands(to: 1).first?.id), .rejected)
        #expect(hub.lastFailure == "rejected" && hub.commands(to: 2).isEmpty)
    }

    // MARK: Kill

    @Test func killStaysUntilASecondOperatorReleasesIt() throws {
        var hub = Self.running()
        hub.request("kill", ["all": "true", "reason": "stop"])
        let id = try #require(hub.commands(to: 1).first?.id)
        #expect(hub.commands(to: 2).map(\.id) == [id])
        hub.result(1, id, .latched)
        hub.result(2, id, .latched)
        #expect(hub.lastReply?["in_force"]?.boolean == true)
        // A host nobody knew then is killed as it comes.
        hub.connect(3, "c")
        #expect(hub.commands(to: 3).map(\.id) == [id])
        hub.request("kill release", ["host": "a", "reason": "fine"], by: Hub.bob)
        #expect(hub.lastFailure == "not_killed")
        hub.request("kill release", ["all": "true", "reason": "fine"])
        #expect(hub.lastFailure == "second_operator")
        hub.request("kill release", ["all": "true", "reason": "fine"], by: Hub.bob)
        #expect(hub.commands(to: 1).last?.kind == .release && hub.commands(to: 3).last?.kind == .release)
        let release = try #require(hub.commands(to: 1).last?.id)
        for link in 1...3 { hub.result(link, release, .latched) }
        #expect(hub.lastReply?["kind"]?.string == "release")
        // Whoever comes now is killed no more; the host that never confirmed the kill is not sent it after its release.
        hub.step(.disconnected(LinkID(3)))
        hub.connect(13, "c")
        hub.connect(4, "d")
        #expect(hub.commands(to: 13).isEmpty && hub.commands(to: 4).isEmpty)
    }

    @Test func narrowReleaseLeavesWiderKillsAlone() throws {
        var hub = Self.running()
        hub.request("kill", ["host": "a", "reason": "r"])
        hub.request("kill", ["symbol": "BTCUSDT", "reason": "r"])
        hub.request("kill", ["all": "true", "reason": "r"])
        let before = hub.commands(to: 1).count
        hub.request("kill release", ["host": "a", "reason": "r"], by: Hub.bob)
        // The kill of everything still holds the host down: nothing is sent.
        #expect(hub.commands(to: 1).count == before)
        hub.request("kill release", ["all": "true", "reason": "r"], by: Hub.bob)
        #expect(hub.commands(to: 1).last?.kind == .release && hub.commands(to: 2).last?.kind == .release)
        #expect(hub.control.commands.allSatisfy { !$0.isInForce })
    }

    // MARK: Parameters

    @Test func parametersGoToTheHostsThatWereMeant_inTheLogsSequence_untilEachHasThem() throws {
        var hub = Self.running()
        hub.request("parameters set", ["host": "b", "set": "spread.base_bps=1.2,guards.halt_ms=", "reason": "calm"])
        hub.request("parameters set", ["all": "true", "set": "spread.base_bps=1.4", "reason": "calmer"], by: Hub.bob)
        #expect(hub.commands(to: 1).map { $0.set.map(\.value) } == [["1.4"]])
        let orders = hub.commands(to: 2)
        #expect(orders.map(\.kind) == [.parameters, .parameters] && orders[0].revision < orders[1].revision)
        #expect(orders[0].set == [.init(key: "spread.base_bps", value: "1.2"), .init(key: "guards.halt_ms", value: "")])
        #expect(orders[0].by == "operator/alice" && orders[0].reason == "calm")
        hub.result(2, orders[0].id, .latched)
        #expect(hub.lastReply?["set"]?["spread.base_bps"]?.string == "1.2")
        // Sent again to whoever has not said the last word, also by a hub that was started anew.
        var again = Hub(replaying: hub.log)
        again.connect(1, "a")
        again.connect(2, "b")
        again.connect(3, "c")
        #expect(again.commands(to: 1).map(\.id) == [orders[1].id] && again.commands(to: 2) == [hub.commands(to: 2)[1]])
        #expect(again.commands(to: 3).isEmpty, "a host that turns up later is not concerned")
    }

    @Test func parametersThatAHostRefusesAreTheOperatorsFailure() throws {
        var hub = Self.running()
        hub.request("parameters set", ["all": "true", "set": "nonsense=1", "reason": "r"])
        let id = try #require(hub.commands(to: 1).first?.id)
        hub.result(1, id, .rejected)
        hub.result(2, id, .rejected)
        #expect(hub.lastFailure == "rejected")
    }

    // MARK: The log

    @Test func restartKnowsEverythingTheLogKnows() throws {
        var before = Self.running()
        before.request("experiment rollback", ["id": "x", "reason": "bad"])
        let id = try #require(before.commands(to: 1).first?.id)
        before.result(1, id, .applied)
        before.result(1, id, .latched)
        before.request("kill", ["symbol": "BTCUSDT", "reason": "r"])
        var hub = Hub(replaying: before.log)
        #expect(hub.control.experiments.map(\.state) == [.rolledBack])
        #expect(hub.control.revision.term == before.control.revision.term + 1)
        #expect(hub.control.revision.number == Int64(before.log.count + 1))
        hub.connect(1, "a")
        hub.connect(2, "b")
        #expect(hub.commands(to: 1).map(\.kind) == [.kill] && hub.commands(to: 2).map(\.kind) == [.rollback, .kill])
        #expect(hub.lease(1, "x") == 0)
        hub.request("command list")
        let latched = hub.lastReply?["commands"]?.array?.first?["hosts"]?.array?.first
        #expect(latched?["state"]?.string == "latched" && latched?["cancelled_orders"]?.integer == 3)
    }

    @Test func lostLogNeverGoesBelowWhatAnEdgeHasSeen() {
        var hub = Hub()
        hub.connect(1, "a", revision: Revision(term: 7, number: 90))
        #expect(hub.control.revision.term == 8)
        for case (_, .assignment(let assignment)) in hub.sent.suffix(1) { #expect(assignment.revision > Revision(term: 7, number: 90)) }
    }

    @Test func everyFlippedByteOfTheLogIsNamed() throws {
        let before = Self.running()
        var chain = LogChain(sha256: Hub.sha256)
        for record in before.log {
            for place in record.bytes.indices {
                var bytes = record.bytes
                bytes[place] ^= 0x01
                var copy = chain
                do throws(LogDamage) {
                    _ = try copy.verify(bytes)
                    Issue.record("byte \(place) of record \(record.number) may be flipped")
                } catch {
                    #expect(error.number == record.number)
                }
            }
            _ = try chain.verify(record.bytes)
        }
        // A record that is missing is noticed by the one behind it.
        var gap = LogChain(sha256: Hub.sha256)
        #expect(throws: LogDamage.self) { _ = try gap.verify(before.log[1].bytes) }
    }

    /// Method: operators, edges, a disk that becomes durable late, and restarts, in random order. At every step: whatever was sent for an
    /// experiment follows from durable records; no lease is granted once a rollback is logged; and in the end, with everything connected, each
    /// enrolled edge has the rollback latched.
    @Test(arguments: 0..<100)
    func nothingFollowsFromWhatIsNotDurable_inAnyOrder(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        var hub = Hub(seed: UInt64(seed))
        var latched: [String: Set<String>] = ["a": [], "b": []]
        var links: [String: Int] = [:]
        var nextLink = 1
        var handled = 0
        func check(_ hub: inout Hub, from: Int) {
            for (link, message) in hub.sent[from...] {
                let durable = hub.log.prefix(Int(hub.durable))
                switch message {
                case .command(let command):
                    #expect(durable.contains { $0.kind == .command && $0.body["id"]?.string == command.id })
                    guard command.kind == .rollback, random.next(below: 2) == 0,
                        let host = links.first(where: { LinkID($0.value) == link })?.key
                    else { continue }
                    latched[host]?.insert(command.experiment ?? "")
                    hub.result(link.number, command.id, .latched, isSynced: false)
                case .assignment(let assignment):
                    guard let id = assignment.experiment?.id else { continue }
                    #expect(durable.contains { $0.kind == .experiment && $0.body["spec"]?["id"]?.string == id })
                    let host = links.first { LinkID($0.value) == link }?.key ?? ""
                    // Rolled back, it is assigned to those only that have latched it.
                    let isRolledBack = durable.contains { $0.kind == .command && $0.body["experiment"]?.string == id }
                    #expect(!isRolledBack || latched[host]?.contains(id) == true)
                case .lease(let lease) where lease.durationMilliseconds != 0:
                    // Also not when it is logged and not durable yet.
                    #expect(!hub.log.contains { $0.kind == .command && $0.body["experiment"]?.string == lease.experiment })
                    #expect(durable.contains { $0.kind == .experiment && $0.body["spec"]?["id"]?.string == lease.experiment })
                default: break
                }
            }
        }
        func turn(_ hub: inout Hub, _ action: Int) {
            let from = hub.sent.count
            let host = random.next(below: 2) == 0 ? "a" : "b"
            let id = "x\(random.next(below: 3))"
            hub.now += Int64(random.next(below: 3_000))
            switch action {
            case 0:
                if let old = links[host] { hub.step(.disconnected(LinkID(old))) }
                links[host] = nextLink
                let edge = Message.Hello.Edge(
                    host: host, epoch: "00000000000000aa", source: "sim", venue: "sim", wallMilliseconds: 0, symbols: ["S", "T"],
                    revision: .zero, latches: latched[host]!.sorted(), configHash: "")
                hub.step(.connected(LinkID(nextLink), Peer(role: .edge, name: host), Message.Hello(version: "", edge: edge)))
                nextLink += 1
            case 1: hub.request("experiment create", ["id": id, "split": "0.5", "candidate": "a=1", "reason": "r"], isSynced: false)
            case 2: hub.request("experiment rollback", ["id": id, "reason": "r"], isSynced: false)
            case 3, 4: if let link = links[host] { _ = hub.lease(link, id, number: Int64(handled)) }
            case 5, 6:
                // A part of what is proposed becomes durable.
                hub.durable += Int64(random.next(below: hub.log.count - Int(hub.durable) + 1))
                hub.step(.persisted(hub.durable))
            case 7 where random.next(below: 4) == 0:
                hub = Hub(replaying: Array(hub.log.prefix(Int(hub.durable))), seed: UInt64(seed + nextLink))
                links = [:]
                return
            default: hub.step(.tick)
            }
            handled += 1
            check(&hub, from: from)
        }
        for _ in 0..<150 { turn(&hub, random.next(below: 8)) }
        // Healing: both connect and answer everything, and the disk keeps up.
        for _ in 0..<20 {
            for host in ["a", "b"] {
                if let old = links[host] { hub.step(.disconnected(LinkID(old))) }
                hub.connect(nextLink, host, symbols: ["S", "T"])
                links[host] = nextLink
                for command in hub.commands(to: nextLink) { hub.result(nextLink, command.id, .latched) }
                nextLink += 1
            }
        }
        for command in hub.control.commands { #expect(command.isDone, "\(command.wire.id)") }
        for experiment in hub.control.experiments where experiment.state == .rolledBack {
            let command = try #require(hub.control.commands.first { $0.wire.experiment == experiment.spec.id })
            #expect(command.wire.kind == .rollback)
        }
    }
}

// MARK: - Lifecycle and decisions

/// From a draft to its end, by operators, gates and breakers (SPEC 7.2, 7.4, 7.5); each with its place in the log.
struct ExperimentLifecycleTests {
    private typealias Hub = ControlTests.Hub

    /// A switchback on two hosts, a draft.
    private static func draft(_ more: [String: String] = [:]) -> Hub {
        var hub = Hub()
        hub.connect(1, "a")
        hub.connect(2, "b")
        hub.request(
            "experiment create", ["id": "x", "candidate": "spread.base_bps=1.2", "reason": "try"].merging(more) { $1 })
        return hub
    }

    private static let ends = [ExperimentSpec.PreEnd(host: "a", day: 20_088, part: 0, byte: 77)]

    /// Surveyed with that many pairs of arm A before now.
    private static func start(_ hub: inout Hub, pairs: Int64 = 100) {
        hub.request("experiment start", ["id": "x", "reason": "go"])
        surveyed(&hub, pairs: pairs)
        hub.sync()
    }

    private static func surveyed(_ hub: inout Hub, pairs: Int64 = 100) {
        hub.step(.surveyed(experiment: "x", ExperimentHistory(ranked: ["ETHUSDT", "BTCUSDT"], pairs: pairs, ends: ends)))
    }

    private static func online() -> Hub {
        var hub = draft()
        start(&hub)
        return hub
    }

    private static func assessment(_ verdict: Experiment.Verdict, _ demand: Assessment.Demand? = nil, pairs: Int = 7) -> Assessment {
        Assessment(
            experiment: "x", verdict: verdict, demand: demand, gates: [],
            json: .object { json in
                json.field("held", strings: [])
                json.field("silences", strings: [])
                json.field("pairs", integer: pairs)
            })
    }

    private func state(_ hub: Hub) -> Experiment.State? { hub.control.experiment("x")?.state }

    /// What a hub is after its process ended: its log alone.
    private func replayed(_ hub: Hub) -> Experiment? { Hub(replaying: hub.log).control.experiment("x") }

    @Test func aDraftIsNobodys_andAStartFixesItsTimes() throws {
        var hub = Self.draft(["block_sec": "60", "washout_sec": "10"])
        #expect(state(hub) == .draft && hub.assignment(of: 1) == .some(nil))
        hub.request("experiment start", ["id": "x", "reason": "go"])
        #expect(hub.surveys.map { $0.hosts } == [["a", "b"]] && state(hub) == .draft)
        hub.request("experiment start", ["id": "x", "reason": "go"])
        #expect(hub.lastFailure == "busy")
        hub.step(
            .surveyed(
                experiment: "x", ExperimentHistory(ranked: ["ETHUSDT", "BTCUSDT"], pairs: 6, ends: Self.ends)))
        hub.sync()
        let spec = try #require(hub.assignment(of: 2) ?? nil)
        let design = try #require(spec.switchback)
        #expect(design.startMilliseconds == hub.now + 10_000 && design.startMilliseconds % 10_000 == 0)
        #expect(design.blockMilliseconds == 60_000 && design.clusters.map(\.symbols) == [["ETHUSDT"], ["BTCUSDT"]])
        #expect(spec.prePeriod == Self.ends)
        let experiment = try #require(hub.control.experiment("x"))
        #expect(experiment.hosts.map(\.name) == ["a", "b"] && experiment.source == .sim && hub.watched["x"] == experiment)
        #expect(replayed(hub) == experiment)
        // Who comes later was not planned.
        hub.connect(3, "c")
        #expect(hub.assignment(of: 3) == .some(nil) && hub.lease(3, "x") == 0)
    }

    /// SPEC 7.3: under six pairs of arm A it first runs on A, and nothing is frozen before there are.
    @Test func aShortPrePeriodDelaysT0() throws {
        var hub = Self.draft(["block_sec": "60"])
        Self.start(&hub, pairs: 4)
        let spec = try #require(hub.control.experiment("x")?.spec)
        #expect(spec.switchback?.startMilliseconds == hub.now + 10_000 + 2 * 120_000 && spec.prePeriod.isEmpty)
    }

    @Test func gateThatDemandsIt_takesTheFleetBack_withItsEvidence() throws {
        var hub = Self.online()
        hub.step(.assessed(Self.assessment(.inconclusive)))
        #expect(state(hub) == .online && hub.commands(to: 1).isEmpty)
        hub.step(.assessed(Self.assessment(.fail, .rollback("latency_regression"))))
        #expect(hub.lease(1, "x") == 0, "not even while the decision is on its way to the disk")
        // Said again meanwhile it is one decision.
        hub.step(.assessed(Self.assessment(.fail, .rollback("latency_regression"))))
        hub.sync()
        for link in 1...2 { #expect(hub.commands(to: link).map(\.reason) == ["gate latency_regression"]) }
        let experiment = try #require(hub.control.experiment("x"))
        #expect(experiment.state == .rolledBack && experiment.verdict == .fail && experiment.changes.last?.evidence?["held"] != nil)
        #expect(replayed(hub) == experiment && hub.watched["x"] == nil)
    }

    @Test func invalidDataStopsIt_onA() {
        var hub = Self.online()
        hub.step(.assessed(Self.assessment(.invalid, .invalid("3 rows of another arm"))))
        hub.sync()
        #expect(state(hub) == .stopped && hub.control.experiment("x")?.verdict == .invalid)
        #expect(hub.assignment(of: 1) == .some(nil) && hub.lease(1, "x") == 0)
        #expect(replayed(hub) == hub.control.experiment("x"))
    }

    @Test func anEnvironmentPauses_andAnOperatorLetsItGoOn() {
        for cause in [0, 1] {
            var hub = Self.online()
            if cause == 0 {
                hub.step(.assessed(Self.assessment(.inconclusive, .pause("both arms are late"))))
            } else {
                hub.step(.received(LinkID(2), Self.breaker(.environment)))
            }
            hub.sync()
            #expect(state(hub) == .paused && hub.lease(1, "x") == 0)
            if case .assignment(let last)? = hub.sent.last(where: { $0.link == LinkID(1) && "\($0.message.type)" == "assignment" })?.message
            {
                #expect(last.isPaused && last.experiment?.id == "x")
            } else {
                Issue.record("no assignment")
            }
            let spec = hub.control.experiment("x")?.spec
            hub.request("experiment start", ["id": "x", "reason": "the venue is well again"])
            #expect(state(hub) == .online && hub.control.experiment("x")?.spec == spec)
            #expect(hub.lease(1, "x", number: 2) == 15_000 && replayed(hub) == hub.control.experiment("x"))
        }
    }

    private static func breaker(_ scope: BreakerTrip.Scope, _ experiment: String = "x") -> Message {
        .breaker(
            .init(
                experiment: experiment,
                trip: BreakerTrip(kind: .deadlineMiss, scope: scope, count: 25, of: 100, baselineCount: 1, baselineOf: 90),
                atMilliseconds: 5))
    }

    @Test func oneEdgesBreakerTakesEveryEdgeBack() {
        var hub = Self.online()
        hub.step(.received(LinkID(2), Self.breaker(.harm)))
        hub.sync()
        #expect(hub.commands(to: 1).count == 1 && hub.commands(to: 2).count == 1 && state(hub) == .rolledBack)
        #expect(hub.control.experiment("x")?.verdict == .fail)
        #expect(hub.control.experiment("x")?.changes.last?.evidence?["kind"]?.string == "deadline_miss")
        // Of one that is over, or unknown, it changes nothing.
        let logged = hub.log.count
        hub.step(.received(LinkID(1), Self.breaker(.harm)))
        hub.step(.received(LinkID(1), Self.breaker(.harm, "nobody")))
        hub.sync()
        #expect(hub.log.count == logged)
    }

    /// It tripped while the link was down: the hello says so.
    @Test func aLatchTheHubHasNotOrderedTakesTheFleetBack() {
        var hub = Self.online()
        hub.step(.disconnected(LinkID(2)))
        hub.connect(4, "b", latches: ["x"])
        #expect(state(hub) == .rolledBack && hub.commands(to: 1).count == 1 && hub.commands(to: 4).count == 1)
    }

    @Test func onlyAPassIsPromoted_byAnother() {
        var hub = Self.online()
        hub.request("experiment promote", ["id": "x", "reason": "good"], by: Hub.bob)
        #expect(hub.lastFailure == "not_passed")
        hub.step(.assessed(Self.assessment(.pass)))
        hub.request("experiment promote", ["id": "x", "reason": "good"])
        #expect(hub.lastFailure == "second_operator")
        hub.request("experiment promote", ["id": "x", "reason": "good"], by: Hub.bob)
        #expect(state(hub) == .promoted && hub.control.experiment("x")?.verdict == .pass)
        #expect(hub.assignment(of: 1) == .some(nil) && replayed(hub) == hub.control.experiment("x"))
        // Also from there it can be taken back.
        hub.request("experiment rollback", ["id": "x", "reason": "after all", "timeout_ms": "0"], by: Hub.bob)
        #expect(state(hub) == .rolledBack && hub.control.experiment("x")?.verdict == .inconclusive, "what was taken back has not passed")
    }

    /// However often others paused it and let it go on.
    @Test func whoStartedItIsNotForgotten() {
        var hub = Self.draft()
        hub.request("experiment start", ["id": "x", "reason": "go"], by: Hub.bob)
        Self.surveyed(&hub)
        hub.sync()
        for _ in 0...Limits.experimentChangesListedMax {
            hub.request("experiment pause", ["id": "x", "reason": "r"])
            hub.request("experiment start", ["id": "x", "reason": "r"])
        }
        #expect(state(hub) == .online)
        hub.step(.assessed(Self.assessment(.pass)))
        hub.request("experiment promote", ["id": "x", "reason": "good"], by: Hub.bob)
        #expect(hub.lastFailure == "second_operator")
    }

    // MARK: Two decisions at once

    @Test func harmIsHeardWhileAnotherChangeIsOnItsWayToTheDisk() {
        for isPause in [true, false] {
            var hub = Self.online()
            if isPause {
                hub.step(.received(LinkID(1), Self.breaker(.environment)))
            } else {
                hub.request("experiment stop", ["id": "x", "reason": "r"], isSynced: false)
            }
            hub.step(.received(LinkID(2), Self.breaker(.harm)))
            hub.step(.received(LinkID(2), Self.breaker(.harm)))
            hub.sync()
            #expect(state(hub) == .rolledBack && hub.commands(to: 1).count == 1 && replayed(hub) == hub.control.experiment("x"))
        }
    }

    /// An operator takes a draft back while its stored rows are read.
    @Test func aSurveyBringsNothingBack() {
        for isSynced in [true, false] {
            var hub = Self.draft()
            hub.request("experiment start", ["id": "x", "reason": "go"])
            let rollback = ["id": "x", "reason": "no", "timeout_ms": "0"]
            hub.request("experiment rollback", rollback, by: Hub.bob, isSynced: isSynced)
            Self.surveyed(&hub)
            #expect(hub.replies.contains { if case .failed("busy", _, _) = $0.outcome { $0.link == Hub.alice } else { false } })
            hub.sync()
            #expect(state(hub) == .rolledBack && hub.lease(1, "x") == 0)
        }
    }

    @Test func whileOneIsBeingStartedNoOtherIs() {
        var hub = Self.draft()
        hub.request("experiment create", ["id": "y", "design": "symbol", "candidate": "spread.base_bps=1.4", "reason": "next"])
        hub.request("experiment start", ["id": "x", "reason": "go"])
        hub.request("experiment start", ["id": "y", "reason": "go"])
        #expect(hub.lastFailure == "busy")
        Self.surveyed(&hub)
        hub.sync()
        #expect(state(hub) == .online && hub.control.experiment("y")?.state == .draft)
    }

    /// Whoever lets a paused experiment go on has seen the rows that it was paused for.
    @Test func onePauseForTheSameRows() {
        var hub = Self.online()
        func late(_ pairs: Int) {
            hub.step(.assessed(Self.assessment(.inconclusive, .pause("both arms are late"), pairs: pairs)))
            hub.sync()
        }
        late(7)
        hub.request("experiment start", ["id": "x", "reason": "the venue is well again"])
        late(7)
        #expect(state(hub) == .online)
        late(8)
        #expect(state(hub) == .paused)
    }

    /// An edge that did not hear of the pause says why once more.
    @Test func onePauseForTheSameBreaker() {
        var hub = Self.online()
        hub.step(.received(LinkID(2), Self.breaker(.environment)))
        hub.sync()
        hub.request("experiment start", ["id": "x", "reason": "the venue is well again"])
        hub.step(.received(LinkID(2), Self.breaker(.environment)))
        hub.sync()
        #expect(state(hub) == .online)
        hub.step(.received(LinkID(1), Self.breaker(.environment)))
        hub.sync()
        #expect(state(hub) == .paused)
    }

    // MARK: Who plays

    @Test func hostsThatComeLaterPlayA_inEveryDesign() {
        var hub = ControlTests.running()
        hub.connect(3, "c")
        #expect(hub.assignment(of: 3) == .some(nil) && hub.lease(3, "x") == 0)
        // Nor has it a say.
        hub.step(.received(LinkID(3), Self.breaker(.harm)))
        hub.sync()
        #expect(state(hub) == .online)
        // Those it began with may come back.
        hub.step(.disconnected(LinkID(2)))
        hub.connect(4, "b")
        #expect(hub.lease(4, "x") == 15_000)
    }

    @Test func whoCameDuringADryRunPlaysOnline_andWhoWentDoesNot() {
        var hub = Self.draft()
        hub.request("experiment start", ["id": "x", "mode": "dry", "reason": "look first"])
        hub.step(.disconnected(LinkID(2)))
        hub.connect(3, "c")
        Self.start(&hub)
        #expect(hub.control.experiment("x")?.hosts.map(\.name) == ["a", "c"])
    }

    @Test func aHostThatLatchedTheIdMeanwhileIsNoBeginning() {
        var hub = Self.draft()
        hub.connect(3, "c", latches: ["x"])
        hub.request("experiment start", ["id": "x", "reason": "go"])
        #expect(hub.lastFailure == "exists" && state(hub) == .draft)
    }

    /// Experiments of an earlier version began as they were made, and nobody judged their rows.
    @Test func anExperimentOfAnEarlierVersionIsStopped() throws {
        var hub = Hub()
        hub.connect(1, "a")
        hub.request("experiment create", ["id": "x", "design": "symbol", "candidate": "spread.base_bps=1.2", "reason": "try"])
        var chain = LogChain(sha256: Hub.sha256)
        let old = hub.log.map { record in
            let body = JSONValue.object(record.body.members?.filter { $0.name != "state" } ?? [])
            return chain.append(record.kind, body, at: record.timestamp, term: record.revision.term)
        }
        let experiment = try #require(Hub(replaying: old).control.experiment("x"))
        #expect(experiment.state == .stopped && experiment.changes.last?.reason.contains("earlier version") == true)
    }

    @Test func pausedDecidesNothing_stoppedIsOver() {
        var hub = Self.online()
        hub.request("experiment pause", ["id": "x", "reason": "maintenance"])
        hub.step(.assessed(Self.assessment(.fail, .rollback("latency_regression"))))
        hub.sync()
        #expect(state(hub) == .paused)
        hub.request("experiment stop", ["id": "x", "reason": "enough"])
        #expect(state(hub) == .stopped && hub.control.experiment("x")?.verdict == .inconclusive)
        for verb in ["start", "pause", "stop"] {
            hub.request("experiment \(verb)", ["id": "x", "reason": "r"])
            #expect(hub.lastFailure != nil, "\(verb)")
        }
    }

    @Test func silencesAreInTheLogBeforeTheyCount() {
        var hub = Self.online()
        let silence = PairPlan.Silence(host: "b", pair: 2, held: StoredOffset(day: 20_088, byte: 9))
        hub.step(.silent(experiment: "x", silence))
        hub.step(.silent(experiment: "x", silence))
        #expect(hub.silences.isEmpty)
        hub.sync()
        #expect(hub.silences == [silence] && hub.control.experiment("x")?.silences == [silence])
        #expect(replayed(hub)?.silences == [silence])
        var again = Hub(replaying: hub.log)
        again.sync()
        #expect(again.watched["x"]?.silences == [silence], "a new process judges with what was decided")
    }

    @Test func aDryRunGoesOnline_withItsTimesFixedThen() throws {
        var hub = Self.draft()
        hub.request("experiment start", ["id": "x", "mode": "dry", "reason": "look first"])
        #expect(state(hub) == .dry && hub.surveys.isEmpty && hub.watched.isEmpty)
        let dry = try #require(hub.assignment(of: 1) ?? nil)
        #expect(dry.mode == "dry" && dry.switchback?.startMilliseconds == 0 && hub.lease(1, "x") == 0)
        Self.start(&hub)
        let spec = try #require(hub.assignment(of: 1) ?? nil)
        #expect(state(hub) == .online && spec.mode == "online" && spec.switchback?.startMilliseconds ?? 0 > hub.now)
        #expect(replayed(hub) == hub.control.experiment("x"))
    }

    @Test func oneAtATime() {
        var hub = Self.online()
        hub.request("experiment create", ["id": "y", "candidate": "spread.base_bps=1.4", "reason": "next"])
        hub.request("experiment start", ["id": "y", "reason": "go"])
        #expect(hub.lastFailure == "busy")
        hub.connect(1, "a")
        #expect((hub.assignment(of: 1) ?? nil)?.id == "x", "a younger draft does not take its place")
    }
}
