import CalibModel
import EdgeCore
internal import HubCore
import Wire

/// The hub's control core and edges' arm cores, with a network, disks and clocks made from a seed: laws 3 and 9 of ARCHITECTURE.md, and what SPEC 7
/// promises of leases, breakers and clocks, under every fault around every decision.
///
/// Time goes in steps of 100 ms. Messages arrive late or, when a link breaks, not at all; the log's and the latches' rows become durable late;
/// hub and edges are killed, partitioned, set to wrong times, and lose their disks, one disk at a time for each experiment.
package struct ControlWorld {
    package enum Fault: String, CaseIterable, Sendable {
        case partition, edgeKilled, hubKilled, hubKilledLong, clockOff, edgeDiskLost, hubDiskLost
    }

    package struct Outcome: Equatable, Sendable {
        package var broken: [String] = []
        /// Experiments that were taken back, by what decided it.
        package var rollbacks: [String: Int] = [:]
        package var faults: [String: Int] = [:]
        /// Steps of edges on B.
        package var stepsOnB = 0
        /// From a durable rollback until no edge played B any more, the longest, ms.
        package var longestMilliseconds: Int64 = 0
    }

    private struct Edge {
        let name: String
        var control: ArmControl
        var link: LinkID?
        var awayUntil: Int64 = 0
        /// Its clock minus the world's, ms.
        var offset: Int64 = 0
        var offsetSince: Int64 = 0
        var disconnectedSince: Int64 = 0
        var latches: [UInt8] = []
        var life = 0
        /// Experiments it has latched durably.
        var latched: Set<String> = []
        var wasDiskLost: Set<String> = []
    }

    /// What keeps its order: a connection's two directions, and commits of the log.
    private enum Lane: Hashable {
        case toEdge(LinkID)
        case toHub(LinkID)
        case log(life: Int)
    }

    private enum Delivery {
        case toEdge(Int, LinkID, Message)
        case toHub(LinkID, Message)
        case persisted(Int64, life: Int)
        case settled(Int, life: Int)
        case recorded(Int, LatchRecord, life: Int)
    }

    private static let step: Int64 = 100
    private static let begin: Int64 = 1_735_689_600_000
    private static let symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    private static let operatorLink = LinkID(1)
    private static let block: Int64 = 30_000
    /// A lease, the grace of SPEC 7.7, and a second for messages and settling.
    static let boundMilliseconds: Int64 = 17_000

    private var random: PRNG
    private let salts: Dice
    private let allowed: [Fault]
    /// Milliseconds since the beginning.
    private var now: Int64 = 0
    private var edges: [Edge] = []
    private var hub: Control?
    private var hubBackAt: Int64 = 0
    private var hubLife = 0
    private var log: [LogRecord] = []
    private var durable = 0
    private var nextLink = 2
    private var underWay: [(at: Int64, Delivery)] = []
    /// When the newest of a lane arrives.
    private var lanes: [Lane: Int64] = [:]
    private var experiments = 0
    private var isHealing = false
    /// When the rollback of an experiment became durable somewhere it cannot be forgotten, ms.
    private var rolledBackAt: [String: Int64] = [:]
    private var isHubDiskLost = false
    private var outcome = Outcome()

    package init(seed: UInt64, edges count: Int = 4, faults: [Fault] = Fault.allCases) {
        random = PRNG(seed: seed)
        salts = Dice(seed: seed &+ 1)
        allowed = faults
        for index in 0..<count {
            let name = "edge-\(index)"
            edges.append(Edge(name: name, control: Self.control(name, [])))
        }
    }

    private static func control(_ name: String, _ latches: [UInt8]) -> ArmControl {
        ArmControl(symbols: symbols, host: name, latches: latches) { _ in nil }
    }

    /// `minutes` of trouble, then a minute and a half of peace.
    package mutating func run(minutes: Int64) -> Outcome {
        startHub()
        let end = minutes * 60_000
        while now < end + 90_000, outcome.broken.isEmpty {
            now += Self.step
            isHealing = now > end
            if !isHealing { fault() }
            deliver()
            if hub == nil, now >= hubBackAt { startHub() }
            // What is decided last has a minute in which everybody hears of it.
            if now < end + 30_000 { operate() }
            tick()
            check()
        }
        if outcome.broken.isEmpty { checkRest() }
        return outcome
    }

    // MARK: Time

    private var moment: Moment {
        Moment(instant: Instant(nanoseconds: now * 1_000_000), wall: WallTime(nanoseconds: (Self.begin + now) * 1_000_000))
    }

    private func wall(_ edge: Int) -> Int64 { Self.begin + now + edges[edge].offset }

    /// Within `most` ms, and behind what is on its way in the same lane.
    private mutating func later(_ most: Int64, in lane: Lane? = nil, _ delivery: Delivery) {
        var at = now + random.below(most + 1)
        if let lane {
            at = max(at, lanes[lane] ?? 0)
            lanes[lane] = at
        }
        underWay.append((at, delivery))
    }

    private mutating func chance(_ perMinute: Int64) -> Bool { random.below(60_000 / Self.step) < perMinute }

    // MARK: Faults

    private mutating func fault() {
        guard let kind = allowed.isEmpty ? nil : allowed[Int(random.below(Int64(allowed.count)))], chance(4) else { return }
        let edge = Int(random.below(Int64(edges.count)))
        let running = hub?.experiments.last { $0.state.isRunning }?.spec.id
        switch kind {
        case .partition:
            disconnect(edge)
            edges[edge].awayUntil = now + 1_000 + random.below(40_000)
        case .edgeKilled: restart(edge, latches: edges[edge].latches)
        case .hubKilled: killHub(for: 5_000)
        case .hubKilledLong: killHub(for: random.below(10) == 0 ? 600_000 : 20_000 + random.below(20_000))
        case .clockOff:
            edges[edge].offset = edges[edge].offset == 0 ? (random.below(2) == 0 ? 10_000 : -10_000) : 0
            edges[edge].offsetSince = now
        case .edgeDiskLost:
            // One disk at a time for each experiment: what is lost here the hub still knows.
            guard !isHubDiskLost, hub != nil else { return }
            if let running { edges[edge].wasDiskLost.insert(running) }
            restart(edge, latches: [])
        case .hubDiskLost:
            guard !isHubDiskLost, edges.allSatisfy({ $0.wasDiskLost.isEmpty }), hub != nil else { return }
            killHub(for: 3_000)
            (log, durable, isHubDiskLost) = ([], 0, true)
        }
        outcome.faults[kind.rawValue, default: 0] += 1
    }

    private mutating func restart(_ edge: Int, latches: [UInt8]) {
        disconnect(edge)
        edges[edge].latches = latches
        edges[edge].life += 1
        edges[edge].control = Self.control(edges[edge].name, latches)
    }

    private mutating func killHub(for milliseconds: Int64) {
        guard hub != nil else { return }
        hub = nil
        hubLife += 1
        hubBackAt = now + milliseconds
        // What was not durable is gone.
        log.removeLast(log.count - durable)
        for edge in edges.indices { disconnect(edge) }
    }

    private mutating func startHub() {
        let salts = salts
        var control = Control(
            sha256: { bytes in
                let digits = String(KeyedHash.hash(bytes, key0: 1, key1: 2), radix: 16)
                return String(repeating: "0", count: 64 - digits.utf8.count) + digits
            }, random: { UInt64(salts.draw(0 ... .max - 1)) })
        for record in log {
            do throws(LogDamage) { try control.replay(record.bytes) } catch { breaks("the log cannot be read again: \(error)") }
        }
        hub = control
        toHub(.started)
        toHub(.connected(Self.operatorLink, Peer(role: .operator, name: "alice"), Message.Hello(version: "sim", edge: nil)))
    }

    // MARK: Links

    private mutating func disconnect(_ edge: Int) {
        guard let link = edges[edge].link else { return }
        edges[edge].link = nil
        edges[edge].disconnectedSince = now
        toHub(.disconnected(link))
        toEdge(edge, .disconnected)
    }

    private mutating func connect(_ edge: Int) {
        guard edges[edge].link == nil, hub != nil, now >= edges[edge].awayUntil, random.below(10) == 0 else { return }
        let link = LinkID(nextLink)
        nextLink += 1
        edges[edge].link = link
        let control = edges[edge].control
        let hello = Message.Hello(
            version: "sim",
            edge: .init(
                host: edges[edge].name, epoch: "0000000000000001", source: "sim", venue: "sim", wallMilliseconds: wall(edge),
                symbols: Self.symbols, revision: control.revision, latches: control.latchedExperiments, configHash: "0"))
        toHub(.connected(link, Peer(role: .edge, name: edges[edge].name), hello))
        toEdge(edge, .connected)
    }

    private mutating func deliver() {
        let due = underWay.filter { $0.at <= now }
        underWay.removeAll { $0.at <= now }
        for (_, delivery) in due {
            switch delivery {
            case .toEdge(let edge, let link, let message):
                guard edges[edge].link == link else { continue }
                switch message {
                case .lease(let lease): toEdge(edge, .lease(lease))
                case .assignment(let assignment): toEdge(edge, .assigned(assignment))
                case .command(let command): toEdge(edge, .command(command))
                default: break
                }
            case .toHub(let link, let message): if edges.contains(where: { $0.link == link }) { toHub(.received(link, message)) }
            case .persisted(let number, let life):
                guard life == hubLife else { continue }
                durable = Int(number)
                for record in log[..<durable] where record.kind == .command {
                    if let id = record.body["experiment"]?.string, rolledBackAt[id] == nil { rolledBackAt[id] = now }
                }
                toHub(.persisted(number))
            case .settled(let edge, let life):
                if life == edges[edge].life { toEdge(edge, .settled(atMilliseconds: wall(edge), cancelledOrders: 2)) }
            case .recorded(let edge, let record, let life):
                guard life == edges[edge].life else { continue }
                edges[edge].latches += record.line
                edges[edge].latched.insert(record.experiment)
                toEdge(edge, .recorded(experiment: record.experiment))
            }
        }
    }

    private mutating func toHub(_ input: Control.Input) {
        let at = moment
        guard let effects = hub?.step(input, at: at) else { return }
        for effect in effects {
            switch effect {
            case .persist(let record):
                log.append(record)
                later(100, in: .log(life: hubLife), .persisted(record.number, life: hubLife))
            case .send(let link, let message):
                if let edge = edges.firstIndex(where: { $0.link == link }) { later(200, in: .toEdge(link), .toEdge(edge, link, message)) }
            case .survey(let id, _, _, _):
                toHub(.surveyed(experiment: id, ExperimentHistory(ranked: [], pairs: 100, ends: [])))
            case .reply, .partRecorded, .watch, .unwatch, .silenceRecorded: break
            }
        }
    }

    private mutating func toEdge(_ edge: Int, _ input: ArmControl.Input) {
        let times = ArmControl.Now(bootNanoseconds: now * 1_000_000, wallMilliseconds: wall(edge))
        for effect in edges[edge].control.step(input, at: times) {
            switch effect {
            case .apply: later(20, .settled(edge, life: edges[edge].life))
            case .record(let record): later(100, .recorded(edge, record, life: edges[edge].life))
            case .say(let message):
                // What an edge complains of is told by the prefix store, not by this core.
                if case .error = message { break }
                if let link = edges[edge].link { later(200, in: .toHub(link), .toHub(link, message)) }
            case .refused, .damaged: break
            }
        }
    }

    // MARK: What happens

    private mutating func operate() {
        guard let running = hub?.experiments.last(where: { !$0.state.isOver }) else {
            guard !isHealing, chance(30) else { return }
            experiments += 1
            isHubDiskLost = false
            for edge in edges.indices { edges[edge].wasDiskLost = [] }
            let design = random.below(3) == 0 ? "symbol" : "switchback"
            var arguments = ["id": "exp-\(experiments)", "design": design, "candidate": "spread.base_bps=1.2", "reason": "sim"]
            if design == "switchback" { (arguments["block_sec"], arguments["washout_sec"]) = ("\(Self.block / 1000)", "0") }
            return request("experiment create", arguments)
        }
        let id = running.spec.id
        switch running.state {
        case .draft: if chance(60) { request("experiment start", ["id": id, "reason": "sim"]) }
        case .paused: if chance(6) { request("experiment start", ["id": id, "reason": "sim"]) }
        case .online, .dry: if isHealing ? chance(60) : chance(2) { decide(id) }
        case .promoted, .rolledBack, .stopped: break
        }
    }

    private mutating func decide(_ id: String) {
        let edge = Int(random.below(Int64(edges.count)))
        func trip(_ scope: BreakerTrip.Scope) -> BreakerTrip {
            BreakerTrip(kind: .deadlineMiss, scope: scope, count: 25, of: 100, baselineCount: 0, baselineOf: 60)
        }
        switch random.below(5) {
        case 0: request("experiment rollback", ["id": id, "reason": "sim", "timeout_ms": "0"])
        case 1:
            toHub(
                .assessed(
                    Assessment(
                        experiment: id, verdict: .fail, demand: .rollback("latency_regression"), gates: [], json: .object([]))))
        case 2: if edges[edge].control.plan.playsB { toEdge(edge, .tripped(trip(.harm))) }
        case 3: if edges[edge].control.plan.playsB { toEdge(edge, .tripped(trip(.environment))) }
        default: request("experiment pause", ["id": id, "reason": "sim"])
        }
    }

    private mutating func request(_ verb: String, _ arguments: [String: String]) {
        toHub(.request(Self.operatorLink, Message.Request(id: 1, verb: verb, arguments: arguments)))
    }

    private mutating func tick() {
        toHub(.tick)
        for edge in edges.indices {
            connect(edge)
            toEdge(edge, .tick)
        }
    }

    // MARK: Laws

    private mutating func breaks(_ text: String) { if outcome.broken.isEmpty { outcome.broken.append("at \(now) ms: \(text)") } }

    private mutating func check() {
        for edge in edges {
            let plan = edge.control.plan
            let time = Self.begin + now + edge.offset
            for (choice, symbol) in zip(plan.choices, Self.symbols) {
                // Law 9.
                switch choice.why {
                case .schedule, .washout:
                    let place = plan.experiment?.place(of: symbol, on: edge.name, at: time)
                    if place?.arm != choice.arm || place?.why != choice.why || place?.block != choice.block {
                        breaks("\(edge.name) plays \(choice) for \(symbol), the spec says \(String(describing: place))")
                    }
                case .lease, .breaker, .latch, .join, .clock, .manual, .dry, .none:
                    if choice.arm != .a { breaks("\(edge.name) plays B because of \(choice.why)") }
                }
            }
            guard plan.playsB, let id = plan.experiment?.id else { continue }
            outcome.stepsOnB += 1
            if edge.latched.contains(id), !edge.wasDiskLost.contains(id) { breaks("\(edge.name) plays B of \(id), which it has latched") }
            if let at = rolledBackAt[id] {
                outcome.longestMilliseconds = max(outcome.longestMilliseconds, now - at)
                if now - at > Self.boundMilliseconds { breaks("\(edge.name) plays B of \(id) \(now - at) ms behind its rollback") }
            }
            if edge.link == nil, now - edge.disconnectedSince > 15_000 {
                breaks("\(edge.name) plays B without a hub for more than a lease")
            }
            if edge.offset != 0, now - edge.offsetSince > 21_000 { breaks("\(edge.name) plays B with a clock that is 10 s off") }
        }
    }

    /// After a minute of peace everybody has heard everything.
    private mutating func checkRest() {
        for experiment in hub?.experiments ?? [] where experiment.state == .rolledBack {
            outcome.rollbacks[experiment.reason(of: .rolledBack), default: 0] += 1
        }
        for command in hub?.commands ?? [] where !command.isDone {
            breaks("\(command.wire.id) is not latched by \(command.deliveries.filter { !$0.value.state.isFinal }.keys.sorted())")
        }
        for edge in edges where edge.control.plan.playsB {
            let id = edge.control.plan.experiment?.id ?? ""
            if hub?.experiment(id)?.state != .online { breaks("\(edge.name) rests on B of \(id)") }
        }
    }
}

extension Experiment {
    /// Who or what brought it there: a gate, a breaker, an operator.
    fileprivate func reason(of state: State) -> String {
        guard let change = changes.last(where: { $0.state == state }) else { return "?" }
        if change.reason.hasPrefix("gate ") { return "gate" }
        return change.by == "hub" ? "breaker" : "operator"
    }
}
