import CalibModel
import Wire

// What operators see of the control core: bodies of replies.

extension Control {
    package enum HostState: String, Sendable { case connected, silent, lost }

    package func hostState(_ host: Host, _ now: Instant) -> HostState {
        if host.link != nil {
            return host.statusAt.map { now.since($0) <= Limits.silentNanoseconds } == false ? .silent : .connected
        }
        guard let seen = host.lastSeen, now.since(seen) < Limits.lostNanoseconds else { return .lost }
        return .silent
    }

    /// `host list`; files and forks are the prefix store's.
    package func hostList(_ ingest: Ingest, _ counts: HubCounts, _ now: Moment) -> JSONValue {
        .object { json in
            json.key("hosts")
            json.beginArray()
            for name in Set(hosts.keys).union(ingest.hostNames).sorted() {
                json.beginObject()
                json.field("host", string: name)
                writeHost(hosts[name], now, &json)
                json.key("files")
                json.beginArray()
                for held in ingest.files(of: name) {
                    json.beginObject()
                    json.field("file", string: held.file)
                    json.field("length", integer: held.length)
                    json.endObject()
                }
                json.endArray()
                json.key("forks")
                json.beginArray()
                for fork in ingest.forks(of: name) {
                    json.beginObject()
                    json.field("file", string: fork.file)
                    json.field("why", string: fork.why)
                    json.endObject()
                }
                json.endArray()
                json.field("stalled", boolean: ingest.isStalled(name))
                json.field("quarantined_bytes", integer: counts.quarantinedBytes[name] ?? 0)
                json.field("gone_bytes", integer: ingest.goneBytes(of: name))
                json.key("rejected_rows")
                json.beginArray()
                for (file, place) in counts.rejectedPlaces[name] ?? [] {
                    json.beginObject()
                    json.field("file", string: file)
                    json.field("offset", integer: place.offset)
                    json.field("reason", string: place.reason.name)
                    json.endObject()
                }
                json.endArray()
                json.endObject()
            }
            json.endArray()
        }
    }

    /// All null for a host whose files are here and of which the log knows nothing.
    private func writeHost(_ host: Host?, _ now: Moment, _ json: inout JSONWriter) {
        let isLeased = host?.lease.map { now.instant.since($0.grantedAt) < Limits.leaseNanoseconds } == true
        let experiment = host.flatMap { host in experiments.last { $0.state.isRunning && $0.enrols(host.symbols, on: host.name) } }
        json.field("state", string: host.map { hostState($0, now.instant).rawValue } ?? HostState.lost.rawValue)
        json.field("first_seen_ms", integer: host?.firstSeenMilliseconds)
        json.field("last_seen_ms", integer: host?.lastSeenMilliseconds)
        json.field("epoch", string: host?.epoch)
        json.field("source", string: host?.source)
        json.field("venue", string: host?.venue)
        json.field("symbols", strings: host?.symbols ?? [])
        json.key("revision")
        if let revision = host?.reportedRevision { json.string("\(revision.term).\(revision.number)") } else { json.null() }
        json.field("backlog_bytes", integer: host?.backlogBytes)
        json.field("clock_offset_ms", integer: host?.link == nil ? nil : host?.clockOffsetMilliseconds)
        json.key("killed")
        if let isKilled = host?.isKilled { json.boolean(isKilled) } else { json.null() }
        json.field("experiment", string: experiment?.spec.id)
        json.field("lease_expires_ms", integer: isLeased ? host?.lease?.expiresMilliseconds : nil)
    }

    var experimentList: JSONValue {
        .object { json in
            json.key("experiments")
            json.beginArray()
            for experiment in experiments { json.experiment(experiment) }
            json.endArray()
        }
    }

    func experimentGet(_ id: String, _ now: Moment) throws(Refusal) -> JSONValue {
        let experiment = try known(id)
        return .object { json in
            json.experiment("experiment", experiment)
            json.field("state", string: experiment.state.rawValue)
            json.key("hosts")
            json.beginArray()
            for (name, host) in hosts.sorted(by: { $0.key < $1.key }) where experiment.enrols(host.symbols, on: name) {
                json.beginObject()
                json.field("host", string: name)
                json.field("state", string: hostState(host, now.instant).rawValue)
                writeLease(experiment, host, now, &json)
                writeArms(experiment, host, now, &json)
                json.endObject()
            }
            json.endArray()
            json.key("commands")
            json.beginArray()
            for command in commands where command.wire.experiment == id {
                json.beginObject()
                writeCommand(command, now, &json)
                json.endObject()
            }
            json.endArray()
            json.key("gates")
            json.beginArray()
            for gate in assessments[id]?.gates ?? [] { json.gate(gate) }
            json.endArray()
            json.key("assessment")
            if let assessment = assessments[id] { assessment.json.write(to: &json) } else { json.null() }
            json.key("changes")
            json.beginArray()
            for change in experiment.changes { json.change(change) }
            json.endArray()
        }
    }

    /// The last change of it that was made for a reason of its rows, and the experiment.
    package func decision(_ id: String) throws(Refusal) -> (Experiment, evidence: JSONValue) {
        let experiment = try known(id)
        if let evidence = experiment.changes.last(where: { $0.evidence != nil })?.evidence { return (experiment, evidence) }
        if let running = assessments[id]?.json { return (experiment, running) }
        throw Refusal("no_decision", "nothing was decided about '\(id.prefix(64))' from stored rows", exit: 2)
    }

    /// What was decided, and what the stored bytes say now.
    package static func explanation(_ experiment: Experiment, _ evidence: JSONValue, _ again: JSONValue) -> JSONValue {
        func bytes(_ value: JSONValue) -> [UInt8] {
            var json = JSONWriter()
            value.write(to: &json)
            return json.take()
        }
        let change = experiment.changes.last { $0.evidence == evidence }
        return .object { json in
            json.field("experiment", string: experiment.spec.id)
            json.field("state", string: (change?.state ?? experiment.state).rawValue)
            json.field("verdict", string: experiment.verdict?.rawValue)
            json.field("decided_ms", integer: change?.milliseconds)
            json.field("reason", string: change?.reason)
            json.field("same", boolean: bytes(evidence) == bytes(again))
            json.key("decided")
            evidence.write(to: &json)
            json.key("recomputed")
            again.write(to: &json)
        }
    }

    /// The gates of a running experiment as they stand, or of an ended one as they stood.
    func gateList(_ id: String) throws(Refusal) -> JSONValue {
        let experiment = try known(id)
        let last = experiment.changes.last { $0.evidence?["gates"] != nil }?.evidence
        return .object { json in
            json.field("experiment", string: id)
            json.field("state", string: experiment.state.rawValue)
            json.field("verdict", string: (assessments[id]?.verdict ?? experiment.verdict)?.rawValue)
            json.key("gates")
            if let assessment = assessments[id] {
                json.beginArray()
                for gate in assessment.gates { json.gate(gate) }
                json.endArray()
            } else if let gates = last?["gates"] {
                gates.write(to: &json)
            } else {
                json.beginArray()
                json.endArray()
            }
        }
    }

    /// What a report on an experiment needs to know besides the rows.
    package func run(_ id: String, _ now: Moment) throws(Refusal) -> ABRun {
        let experiment = try known(id)
        let commands = commands.filter { $0.wire.experiment == id }.map { command in
            ABRun.Command(
                id: command.wire.id, kind: command.wire.kind.rawValue, scope: "experiment \(id)", by: command.wire.by,
                reason: command.wire.reason, issuedMilliseconds: command.wire.issuedMilliseconds,
                hosts: command.deliveries.sorted { $0.key < $1.key }.map { name, delivery in
                    ABRun.Command.Host(
                        host: name, state: state(command, name).rawValue, appliedLatencyNanoseconds: delivery.appliedLatency,
                        latchedLatencyNanoseconds: delivery.latchedLatency, cancelledOrders: delivery.cancelledOrders)
                })
        }
        var run = ABRun(
            id: TimeText.stamp(now.wall.milliseconds), generatedMilliseconds: now.wall.milliseconds, experiment: experiment.spec,
            state: experiment.state.rawValue, isRolledBack: experiment.state == .rolledBack, commands: commands)
        run.verdict = assessments[id]?.verdict ?? experiment.verdict
        run.changes = experiment.changes
        run.judged = experiment.hosts.isEmpty ? nil : experiment
        return run
    }

    private func writeLease(_ experiment: Experiment, _ host: Host, _ now: Moment, _ json: inout JSONWriter) {
        json.key("lease")
        guard let lease = host.lease, lease.experiment == experiment.spec.id else { return json.null() }
        json.beginObject()
        json.field("number", integer: lease.number)
        json.field("expires_ms", integer: lease.expiresMilliseconds)
        json.field("valid", boolean: now.instant.since(lease.grantedAt) < Limits.leaseNanoseconds)
        json.endObject()
    }

    /// Intended, and as the host reported it last.
    private func writeArms(_ experiment: Experiment, _ host: Host, _ now: Moment, _ json: inout JSONWriter) {
        json.key("arms")
        json.beginArray()
        for symbol in host.symbols.sorted() {
            guard let arm = experiment.arm(of: symbol, on: host.name, at: now.wall.milliseconds) else { continue }
            let reported = host.status[symbol]?.symbol
            json.beginObject()
            json.field("symbol", string: symbol)
            json.field("intended", string: arm.text)
            json.field("reported", string: reported?.arm)
            json.field("why", string: reported?.armWhy)
            json.endObject()
        }
        json.endArray()
    }

    func commandList(_ now: Moment) -> JSONValue {
        .object { json in
            json.key("commands")
            json.beginArray()
            for command in commands {
                json.beginObject()
                writeCommand(command, now, &json)
                json.endObject()
            }
            json.endArray()
        }
    }

    /// The members of a command's object.
    func writeCommand(_ command: FleetCommand, _ now: Moment, _ json: inout JSONWriter) {
        json.field("command", string: command.wire.id)
        json.field("kind", string: command.wire.kind.rawValue)
        json.field("scope", string: command.wire.experiment.map { "experiment \($0)" } ?? command.scopeText)
        json.field("experiment", string: command.wire.experiment)
        json.field("host", string: command.host)
        json.field("symbol", string: command.wire.symbol)
        json.key("set")
        if command.wire.kind == .parameters { json.overrides(command.wire.set) } else { json.null() }
        json.field("reason", string: command.wire.reason)
        json.field("by", string: command.wire.by)
        json.field("issued_ms", integer: command.wire.issuedMilliseconds)
        json.key("in_force")
        if command.wire.kind == .kill { json.boolean(command.isInForce) } else { json.null() }
        json.key("hosts")
        json.beginArray()
        for (name, delivery) in command.deliveries.sorted(by: { $0.key < $1.key }) {
            json.beginObject()
            json.field("host", string: name)
            json.field("state", string: state(command, name).rawValue)
            json.field("sent_ms", integer: delivery.sentMilliseconds)
            json.field("applied_ms", integer: delivery.appliedMilliseconds)
            json.field("latched_ms", integer: delivery.latchedMilliseconds)
            json.field("applied_latency_ms", fixed: delivery.appliedLatency, places: Places.milliseconds)
            json.field("latched_latency_ms", fixed: delivery.latchedLatency, places: Places.milliseconds)
            json.field("edge_applied_at_ms", integer: delivery.edgeAppliedMilliseconds)
            json.field("cancelled_orders", integer: delivery.cancelledOrders)
            json.field("safe_at_ms", integer: safeAt(command, name, now))
            json.field("text", string: delivery.text)
            json.endObject()
        }
        json.endArray()
    }
}

extension JSONWriter {
    mutating func experiment(_ name: StaticString, _ experiment: Experiment) {
        key(name)
        self.experiment(experiment)
    }

    /// The spec's members, and ours behind them.
    mutating func experiment(_ experiment: Experiment) {
        beginObject()
        var spec = JSONWriter()
        experiment.spec.write(to: &spec)
        raw(spec.bytes.dropFirst().dropLast())
        field("state", string: experiment.state.rawValue)
        field("reason", string: experiment.reason)
        field("by", string: experiment.by)
        field("changed_ms", integer: experiment.changedMilliseconds)
        field("verdict", string: experiment.verdict?.rawValue)
        endObject()
    }

    mutating func change(_ change: Experiment.Change) {
        beginObject()
        field("ts", integer: change.milliseconds)
        field("state", string: change.state.rawValue)
        field("by", string: change.by)
        field("reason", string: change.reason)
        key("evidence")
        if let evidence = change.evidence { evidence.write(to: &self) } else { null() }
        endObject()
    }
}
