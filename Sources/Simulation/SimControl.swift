import CalibModel
import EdgeCore
internal import HubCore
import Wire

// The control core of the hub, an operator who begins experiments and takes them back, and the arms of the edges: what SPEC 7.6, 7.7 and 8.5 promise
// whatever fails. The cores are those of production; the log lies in memory, and a record is in it once its commit returned.

extension SimHub {
    /// Not a connection: the world itself asks.
    static let operatorLink = LinkID(1_000_000_000)
}

/// What an edge plays, for checkers.
struct SimArms {
    var control: ArmControl
    /// The experiment whose arm B is played.
    var playsB: String?
    /// Since when it has no connection.
    var aloneSince: Int64?
}

extension World {
    private var hubMoment: Moment { Moment(instant: instant, wall: hubWall) }

    // MARK: Hub

    /// Replays the log and begins a term.
    func startControl() {
        let dice = Dice(seed: random.next())
        var control = Control(
            sha256: { bytes in
                var digest = SimDigest()
                bytes.withUnsafeBytes { digest.update($0) }
                return digest.text
            }, random: { UInt64(dice.draw(0...0xffff_ffff)) << 32 | UInt64(dice.draw(0...0xffff_ffff)) })
        do throws(LogDamage) {
            for record in hub.log { try control.replay(record) }
        } catch { return breaks(3, "the control log does not follow from itself: \(error)") }
        hub.control = control
        step(.started)
        step(.connected(SimHub.operatorLink, Peer(role: .operator, name: "alice"), Message.Hello(version: "sim", edge: nil)))
    }

    func step(_ input: Control.Input) {
        guard hub.control != nil else { return }
        for effect in hub.control!.step(input, at: hubMoment) {
            switch effect {
            case .persist(let record):
                hub.unlogged.append(record)
                if options.canary == .effectBeforePersist { step(.persisted(record.number)) }
                guard hub.unlogged.count == 1 else { break }
                let life = hub.life
                after(random.below(5_000_000)) { $0.commitLog(life) }
            case .send(let link, let message):
                checkLogged(message)
                if let id = hub.links[link] { send(message.line, on: id, to: .edge) }
            case .reply: break
            case .partRecorded(let host, let part): hubPerform(hub.ingest?.recorded(host: host, part) ?? [])
            // Nothing judges rows here; `ControlWorld` does.
            case .survey, .watch, .unwatch, .silenceRecorded: break
            }
        }
        guard let control = hub.control else { return }
        hub.parts = control.parts
        for command in control.commands where command.wire.kind == .rollback {
            if let id = command.wire.experiment, hub.rolledBackAt[id] == nil { hub.rolledBackAt[id] = now }
        }
    }

    /// One commit: all that waits, or, when the disk is full, nothing yet.
    private func commitLog(_ life: Int) {
        guard hub.life == life, hub.control != nil, let last = hub.unlogged.last else { return }
        if hub.disk.isFull { return after(1_000_000_000) { $0.commitLog(life) } }
        hub.log += hub.unlogged.map(\.bytes)
        hub.unlogged = []
        step(.persisted(last.number))
    }

    /// Now and then the operator acts.
    func operate() {
        guard !isHealing else { return }
        after(seconds(60, 1200)) { $0.operate() }
        act()
    }

    /// The operator drafts an experiment and starts it soon, or takes back the one that runs.
    private func act() {
        guard !isHealing, let control = hub.control else { return }
        hub.requests += 1
        var arguments = ["reason": "because"]
        var verb = "experiment create"
        if let online = control.experiments.first(where: { $0.state == .online }) {
            verb = random.below(8) == 0 ? "experiment stop" : "experiment rollback"
            arguments["id"] = online.spec.id
        } else if let draft = control.experiments.first(where: { $0.state == .draft }) {
            verb = "experiment start"
            arguments["id"] = draft.spec.id
        } else {
            arguments.merge(["id": "x\(hub.requests)", "design": "symbol", "split": "1", "candidate": "spread.base_bps=1.4"]) { $1 }
            after(seconds(1, 30)) { $0.act() }
        }
        step(.request(SimHub.operatorLink, Message.Request(id: hub.requests, verb: verb, arguments: arguments)))
    }

    // MARK: Edge

    private static let latchesFile = "latches.jsonl"

    func startArms(_ index: Int) throws(SimDiskError) {
        let disk = edges[index].disk
        var rows: [UInt8] = []
        if let length = try disk.length(of: Self.latchesFile) {
            rows = try disk.read(Self.latchesFile, at: 0, count: Int(length))
            let whole = rows.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
            if whole < rows.count { try disk.cut(Self.latchesFile, to: Int64(whole)) }
            // What a killed process left is made to last before it counts.
            try disk.sync(Self.latchesFile)
            try disk.syncNames(in: "")
            rows.removeLast(rows.count - whole)
        }
        edges[index].arms = SimArms(
            control: ArmControl(symbols: ["BTCUSDT"], host: edges[index].name, latches: rows) { _ in nil }, aloneSince: now)
    }

    func arms(_ index: Int, _ life: Int, _ input: ArmControl.Input) {
        guard edges[index].life == life, edges[index].arms != nil else { return }
        let moment = ArmControl.Now(bootNanoseconds: now, wallMilliseconds: wall(of: index).milliseconds)
        for effect in edges[index].arms!.control.step(input, at: moment) {
            switch effect {
            case .apply(let plan):
                after(milliseconds(1, 30)) { world in
                    guard world.edges[index].life == life, world.edges[index].arms?.control.plan == plan else { return }
                    world.edges[index].arms?.playsB = plan.playsB ? plan.experiment?.id : nil
                    world.arms(index, life, .settled(atMilliseconds: world.wall(of: index).milliseconds, cancelledOrders: 0))
                }
            case .say(let message): edge(index, life, .say(message))
            case .record(let record): after(milliseconds(0, 5)) { $0.latch(index, life, record) }
            case .refused(let experiment, let why): breaks(3, "\(edges[index].name) refuses \(experiment): \(why)")
            case .damaged(let lines): breaks(3, "\(edges[index].name) cannot read lines \(lines) of its latches")
            }
        }
    }

    private func latch(_ index: Int, _ life: Int, _ record: LatchRecord) {
        guard edges[index].life == life, edges[index].arms != nil else { return }
        let disk = edges[index].disk
        do throws(SimDiskError) {
            let length = try disk.length(of: Self.latchesFile) ?? 0
            do throws(SimDiskError) {
                try record.line.withUnsafeBufferPointer { bytes throws(SimDiskError) in
                    try disk.write(UnsafeRawBufferPointer(bytes), to: Self.latchesFile, at: length)
                }
                try disk.sync(Self.latchesFile)
                try disk.syncNames(in: "")
            } catch {
                if error != .powerLost, try disk.length(of: Self.latchesFile) != nil { try disk.cut(Self.latchesFile, to: length) }
                throw error
            }
        } catch {
            if error == .powerLost { return edgeDied(index) }
            return arms(index, life, .recordFailed(experiment: record.experiment))
        }
        edges[index].latched.insert(record.experiment)
        arms(index, life, .recorded(experiment: record.experiment))
    }

    func deliver(_ index: Int, _ life: Int, _ message: Message) {
        switch message {
        case .lease(let lease): arms(index, life, .lease(lease))
        case .assignment(let assignment): arms(index, life, .assigned(assignment))
        case .command(let command): arms(index, life, .command(command))
        default: break
        }
    }

    func sayStatus(_ index: Int, _ life: Int) {
        guard let arms = edges[index].arms, let uplink = edges[index].uplink else { return }
        let symbol = Message.Status.Symbol(
            symbol: "BTCUSDT", arm: arms.playsB == nil ? "A" : "B", armWhy: "schedule", experiment: arms.playsB, isProven: true,
            isKilled: false, bid: nil, ask: nil, position: 0, openOrders: 0, ticks: 0, quotes: 0, fills: 0,
            features: .init(repeating: nil, count: Feature.allCases.count))
        edge(
            index, life,
            .say(
                .status(
                    .init(
                        wallMilliseconds: wall(of: index).milliseconds, revision: arms.control.revision, backlogBytes: uplink.backlogBytes,
                        isKilled: false, symbols: [symbol]))))
    }

    // MARK: Law 3

    /// How long B may outlive its permission: a lease, one look at the clock each second, and the change of arms.
    private static let graceNanoseconds = Limits.leaseNanoseconds + 2_000_000_000

    /// What the hub says follows from what is in its log.
    private func checkLogged(_ message: Message) {
        let revision: Revision
        switch message {
        case .assignment(let assignment): revision = assignment.revision
        case .command(let command): revision = command.revision
        default: return
        }
        if revision.number > Int64(hub.log.count) {
            breaks(3, "'\(message.type)' of record \(revision.number) is sent with \(hub.log.count) records in the log")
        }
    }

    func checkArms(_ index: Int) {
        guard let arms = edges[index].arms, let experiment = arms.playsB else { return }
        let name = edges[index].name
        if edges[index].latched.contains(experiment) {
            breaks(3, "\(name) plays B of \(experiment) again after it has latched its rollback")
        }
        if let at = hub.rolledBackAt[experiment], now - at > Self.graceNanoseconds {
            breaks(3, "\(name) plays B of \(experiment) \((now - at) / 1_000_000) ms after its rollback was decided")
        }
        if let since = arms.aloneSince, now - since > Self.graceNanoseconds {
            breaks(3, "\(name) plays B of \(experiment) after \((now - since) / 1_000_000) ms without a hub")
        }
    }

    /// In the end: whoever was told to take an experiment back has done so for good.
    var owedCommands: [String] {
        (hub.control?.commands ?? []).flatMap { command in
            command.deliveries.filter { !$0.value.state.isFinal }.map { "\(command.wire.id) to \($0.key)" }
        }.sorted()
    }
}
