import CalibModel
import Wire

/// What an experiment's stored rows say, and what follows from it.
package struct Assessment: Sendable, Equatable {
    package enum Demand: Sendable, Equatable {
        /// A gate, or arm B's own objective.
        case rollback(String)
        /// SPEC 7.5: what is wrong with the data.
        case invalid(String)
        /// Both arms miss the objective: it is not the candidate (SPEC 7.5).
        case pause(String)
    }

    package var experiment: String
    /// `pass`: it may be promoted. `inconclusive`: nothing is decided yet.
    package var verdict: Experiment.Verdict
    package var demand: Demand?
    package var gates: [GateEvidence]
    /// All of it, stored with a decision: what `gate explain` recomputes and compares byte for byte.
    package var json: JSONValue

    package init(experiment: String, verdict: Experiment.Verdict, demand: Demand?, gates: [GateEvidence], json: JSONValue) {
        self.experiment = experiment
        self.verdict = verdict
        self.demand = demand
        self.gates = gates
        self.json = json
    }
}

/// What a switchback's gates said after one pair: a report's plots.
package struct PairPoint: Sendable {
    package var pair: Int32
    package var planned: Int
    package var counted: Int
    package var gates: [GateEvidence]
}

/// An experiment's rows in, assessments out (SPEC 7.3, 7.5). What it says is a function of the stored bytes it was given and of the silences
/// decided; live, after a restart, and when a decision is explained, the same code reads the same bytes.
package struct ExperimentJudge: ~Copyable {
    /// Pairs, or minutes, after which exposure and the split of units are looked at: half an hour of the default blocks.
    static let exposurePairsMin = 3
    static let exposureMinutesMin: Int64 = 15
    static let exposureMin = 0.8
    /// SPEC 7.5 and reference B.7: Pearson's chi-square, p below it is a mismatch.
    static let sampleRatioP = 0.001
    /// Nothing is promoted before a whole cycle of the day (reference B.7, L4); where units keep their arm it is when the one look is planned.
    static let promotionMilliseconds: Int64 = 86_400_000

    private let spec: ExperimentSpec
    private let source: RowSource
    private let hosts: [PairPlan.Host]
    private var silences: Set<PairPlan.Silence>
    private var held: [String: StoredOffset] = [:]
    /// Of a switchback; of the other designs nothing is planned in it.
    private var ledger: PairLedger
    private var pairGates = ExperimentGates()
    /// One for each settled pair; kept for reports only.
    package private(set) var points: [PairPoint] = []
    private let keepsPoints: Bool
    /// The other designs.
    private var fixed: FixedArms

    /// `experiment` has started: its hosts and its source are known.
    package init(_ experiment: Experiment, keepsPoints: Bool = false) {
        self.keepsPoints = keepsPoints
        spec = experiment.spec
        source = experiment.source ?? .unknown
        hosts = experiment.hosts
        silences = experiment.silences
        let ends = spec.prePeriod
        let planned = experiment.hosts.map { host in
            PairPlan.Host(
                name: host.name, symbols: host.symbols,
                preEnd: ends.first { $0.host == host.name }.map { StoredOffset(day: $0.day, part: $0.part, byte: $0.byte) })
        }
        let design = spec.switchback ?? Switchback(startMilliseconds: 0, key0: 0, key1: 0, clusters: [])
        ledger = PairLedger(
            PairPlan(experiment: spec.id, design: design, hosts: spec.switchback == nil ? [] : planned, source: source),
            silences: experiment.silences)
        fixed = FixedArms(spec, hosts: spec.switchback == nil ? planned : [], source: source, from: Self.begin(experiment))
    }

    /// Rows before it are not needed, ms UTC.
    private static func firstMilliseconds(_ experiment: Experiment) -> Int64 { begin(experiment) - PairLedger.prePeriodMilliseconds }

    /// The first day of files that may hold them, in days since 1970: a row may lie in the file of the day before its own.
    package static func firstDay(_ experiment: Experiment) -> Int64 {
        CalendarDay(containing: WallTime(nanoseconds: firstMilliseconds(experiment) * 1_000_000)).number - 1
    }

    /// T0, ms UTC: a switchback's is planned; the other designs' is when they went online.
    private static func begin(_ experiment: Experiment) -> Int64 {
        experiment.spec.switchback?.startMilliseconds ?? experiment.startedMilliseconds ?? experiment.spec.createdMilliseconds
    }

    /// The next stored line of a host; in the order of its files and bytes.
    package mutating func take(_ line: UnsafeRawBufferPointer, host: String, endingAt offset: StoredOffset, isTerminated: Bool = true) {
        guard hosts.contains(where: { $0.name == host }) else { return }
        held[host] = offset
        if spec.switchback != nil {
            ledger.take(line, host: host, endingAt: offset, isTerminated: isTerminated)
        } else {
            fixed.take(line, host: host, isTerminated: isTerminated)
        }
    }

    package func dueSilences(at milliseconds: Int64, hubStarted: Int64) -> [PairPlan.Silence] {
        ledger.dueSilences(at: milliseconds, hubStarted: hubStarted).filter { !silences.contains($0) }
    }

    /// One that is stored.
    package mutating func decide(_ silence: PairPlan.Silence) {
        silences.insert(silence)
        ledger.decide(silence)
    }

    /// How often and when it is called leaves no trace.
    package mutating func assess() -> Assessment { spec.switchback != nil ? assessPairs() : assessFixed() }

    // MARK: Switchback

    private mutating func assessPairs() -> Assessment {
        var new: [PairPoint] = []
        let keeps = keepsPoints
        pairGates.evaluate(&ledger) { gates, pair in
            guard keeps else { return }
            new.append(PairPoint(pair: pair.number, planned: pair.planned, counted: pair.items.count, gates: gates.evidence))
        }
        points += new
        let (mismatches, late) = (ledger.count(of: .mismatch), ledger.count(of: .lateExcluded))
        let exposure = self.exposure
        var demand: Assessment.Demand?
        if mismatches > 0 {
            demand = .invalid("\(mismatches) rows of an arm that the schedule does not give")
        } else if pairGates.pairs >= Self.exposurePairsMin, let exposure, exposure < Self.exposureMin {
            demand = .invalid("only \(Int(exposure * 100)) % of the planned exposure counts")
        } else if let gate = pairGates.rollbackDemand {
            demand = .rollback(gate)
        } else {
            switch pairGates.deadlineObjective {
            case .holds: break
            case .harm: demand = .rollback("deadline_objective")
            case .environment: demand = .pause("both arms miss more deadlines than the objective allows")
            }
        }
        let evidence = pairGates.evidence
        let json = JSONValue.object { json in
            json.field("design", string: spec.design)
            writeHeld(&json)
            json.field("pre_pairs", integer: pairGates.prePairs.map { Int64($0) })
            json.field("pairs", integer: pairGates.pairs)
            json.field("planned", integer: pairGates.planned)
            json.field("counted", integer: pairGates.counted)
            json.key("censored")
            json.beginObject()
            for reason in Censoring.allCases {
                guard let count = pairGates.censored[reason] else { continue }
                json.key(data: reason.rawValue)
                json.integer(count)
            }
            json.endObject()
            json.key("exposure")
            json.double(exposure)
            json.field("mismatches", integer: mismatches)
            json.field("late_excluded", integer: late)
            json.field("deadline_objective", string: pairGates.deadlineObjective.rawValue)
            json.key("gates")
            json.beginArray()
            for gate in evidence { json.gate(gate) }
            json.endArray()
        }
        return Assessment(
            experiment: spec.id, verdict: verdict(demand, isPass: isPass(evidence)), demand: demand, gates: evidence, json: json)
    }

    /// Of what was planned and not taken by what only censors: a lost lease, a wrong clock, a pause (SPEC 7.5). Nil before a pair is settled.
    private var exposure: Double? {
        let excused = [Censoring.lease, .clock, .manual].reduce(0) { $0 + (pairGates.censored[$1] ?? 0) }
        let planned = pairGates.planned - excused
        return planned > 0 ? Double(pairGates.counted) / Double(planned) : nil
    }

    /// Harm beyond every margin is excluded, and the net is shown to be better (SPEC 7.5, reference B.7).
    private func isPass(_ gates: [GateEvidence]) -> Bool {
        guard let design = spec.switchback, spec.mode == ExperimentSpec.Mode.online.rawValue else { return false }
        guard Int64(pairGates.pairsCounted) * 2 * design.blockMilliseconds >= Self.promotionMilliseconds else { return false }
        return Self.isBetter(gates)
    }

    private static func isBetter(_ gates: [GateEvidence]) -> Bool {
        let net = gates.flatMap(\.tests).first { $0.metric == .netLoss }
        return gates.allSatisfy { $0.state == .clear } && net?.upper.map { $0 < 0 } == true
    }

    // MARK: Other designs

    private mutating func assessFixed() -> Assessment {
        let (gates, rows, mismatches, pausedUntil) = (fixed.gates, fixed.rows, fixed.mismatches, fixed.pausedUntil)
        let environment = fixed.environment
        let look = fixed.look
        var demand: Assessment.Demand?
        if mismatches > 0 {
            demand = .invalid("\(mismatches) rows of an arm that the experiment does not give")
        } else if let problem = fixed.sampleRatioProblem() {
            demand = .invalid(problem)
        } else if environment == .violated {
            demand = .pause("both arms miss more deadlines than the objective allows")
        } else if let gate = gates.first(where: { $0.demandsRollback && !($0.gate.limit.isAbsolute && environment.isBreach) }) {
            demand = .rollback(gate.gate.name)
        } else if let gate = look.first(where: \.demandsRollback) {
            demand = .rollback(gate.name)
        }
        let evidence = gates.map { GateEvidence($0) } + look
        let isPass = spec.mode == ExperimentSpec.Mode.online.rawValue && Self.isBetter(look)
        let json = JSONValue.object { json in
            json.field("design", string: spec.design)
            writeHeld(&json)
            json.field("rows", integer: rows)
            json.field("mismatches", integer: mismatches)
            json.field("paused_until_ms", integer: pausedUntil)
            json.field("both_arms_late", string: environment.name)
            json.key("gates")
            json.beginArray()
            for gate in evidence { json.gate(gate) }
            json.endArray()
        }
        return Assessment(experiment: spec.id, verdict: verdict(demand, isPass: isPass), demand: demand, gates: evidence, json: json)
    }

    // MARK: Leaves

    private func verdict(_ demand: Assessment.Demand?, isPass: Bool) -> Experiment.Verdict {
        switch demand {
        case .rollback: .fail
        case .invalid: .invalid
        case .pause: .inconclusive
        case nil: isPass ? .pass : .inconclusive
        }
    }

    /// Up to where whose bytes were read, and which silences were decided: what it takes to say the same again.
    private func writeHeld(_ json: inout JSONWriter) {
        json.key("held")
        json.beginArray()
        for (host, offset) in held.sorted(by: { $0.key < $1.key }) {
            json.beginObject()
            json.field("host", string: host)
            offset.write(to: &json)
            json.endObject()
        }
        json.endArray()
        json.key("silences")
        json.beginArray()
        for silence in silences.sorted(by: { ($0.host, $0.pair) < ($1.host, $1.pair) }) {
            json.beginObject()
            silence.write(to: &json)
            json.endObject()
        }
        json.endArray()
    }
}

/// Rows of a design in which every symbol on a host keeps one arm.
private struct FixedArms: ~Copyable {
    private struct Unit: Hashable {
        var host: String
        var symbol: String
    }

    /// A host's newest rows, so that one counts once (SPEC 6.5). A part of a file repeats at most a MiB and a row of what came before, 2,600 rows of
    /// 400 bytes; each of the two generations holds more.
    private struct NewestRows {
        private struct Identity: Hashable {
            var epoch: Int64
            var seq: Int64
        }
        private static let generationMax = 4_096
        private var newer: [Identity: UInt64] = [:]
        private var older: [Identity: UInt64] = [:]

        /// Whether these bytes were here under this identity; from now on they were.
        mutating func isRepeated(epoch: Int64, seq: Int64, hash: UInt64) -> Bool {
            let identity = Identity(epoch: epoch, seq: seq)
            if (newer[identity] ?? older[identity]) == hash { return true }
            if newer.count >= Self.generationMax { (older, newer) = (newer, [:]) }
            newer[identity] = hash
            return false
        }
    }

    /// A row lies before T0, or in the experiment, or in neither.
    private struct Sums {
        var before = BlockSums()
        var during = BlockSums()
    }

    private let source: RowSource
    private let experiment: [UInt8]
    /// T0 and the planned look, ms UTC.
    private let begin: Int64
    private let horizon: Int64
    private var sums: [Unit: Sums] = [:]
    /// By host: where its newest row ends.
    private var reached: [String: Int64] = [:]
    private var scanner = FeedScanner()
    private var minutes = ArmMinutes()
    private var planned: [Unit: Arm] = [:]
    private var exposed: Set<Unit> = []
    /// By host.
    private var seen: [String: NewestRows] = [:]
    private var newest: Int64 = 0
    private(set) var rows: Int64 = 0
    private(set) var mismatches: Int64 = 0
    /// Where the newest row that a pause made A's ends, ms UTC; 0 without any.
    private(set) var pausedUntil: Int64 = 0

    init(_ spec: ExperimentSpec, hosts: [PairPlan.Host], source: RowSource, from begin: Int64) {
        self.source = source
        self.begin = begin
        horizon = begin + ExperimentJudge.promotionMilliseconds
        experiment = Array(spec.id.utf8)
        for host in hosts {
            for symbol in host.symbols {
                planned[Unit(host: host.name, symbol: symbol)] = spec.fixedArm(of: symbol, on: host.name)
            }
        }
    }

    mutating func take(_ line: UnsafeRawBufferPointer, host: String, isTerminated: Bool) {
        guard scanner.scan(line, feed: .snapshots, isTerminated: isTerminated) == nil else { return }
        let row = scanner.row
        guard row[.source] == source.rawValue else { return }
        let (from, end) = (row.value(.fromTs), row.value(.fromTs) + row.value(.spanMs))
        newest = max(newest, end)
        let isClosed = isComplete(host)
        reached[host] = max(reached[host] ?? 0, end)
        if row.experiment.elementsEqual(experiment), row.armWhy.equals(ArmReason.manual.text) { pausedUntil = max(pausedUntil, end) }
        let isScheduled = row.experiment.elementsEqual(experiment) && row.armWhy.equals(ArmReason.schedule.text)
        let isBefore = end <= begin && from >= begin - PairLedger.prePeriodMilliseconds && row[.arm] == Int64(Arm.a.rawValue)
        guard isScheduled || isBefore, let arm = row[.arm], let sums = BlockSums(row) else { return }
        if let epoch = row[.epoch], let seq = row[.seq] {
            let hash = KeyedHash.hash(line, key0: 0x6669_7865_6400_0001, key1: UInt64(line.count))
            if seen[host, default: NewestRows()].isRepeated(epoch: epoch, seq: seq, hash: hash) { return }
        }
        let unit = Unit(host: host, symbol: String(decoding: row.symbol, as: UTF8.self))
        guard isScheduled else {
            if planned[unit] != nil { self.sums[unit, default: Sums()].before += sums }
            return
        }
        // A symbol that the host did not quote as it started is not in the plan.
        guard let plannedArm = planned[unit] else { return }
        rows += 1
        // Late markouts of an arm come without ticks.
        guard sums.ticks == 0 || Int64(plannedArm.rawValue) == arm else {
            mismatches += 1
            return
        }
        if sums.ticks > 0 { exposed.insert(unit) }
        minutes.add(sums, isB: arm == Int64(Arm.b.rawValue), from: from)
        if end <= horizon, !isClosed { self.sums[unit, default: Sums()].during += sums }
    }

    /// The host's rows reach so far behind the planned look that nothing of it is on its way any more.
    private func isComplete(_ host: String) -> Bool { reached[host] ?? 0 >= horizon + PairLedger.closingMilliseconds }

    /// Each gate at the one planned look (SPEC 7.3): when every host's rows are there, or those that are not are a quarter of an hour late and left
    /// out. Before it, nothing.
    var look: [GateEvidence] {
        var (complete, missing): (Set<String>, Set<String>) = ([], [])
        for host in Set(planned.keys.map(\.host)) {
            if isComplete(host) { complete.insert(host) } else { missing.insert(host) }
        }
        guard newest >= horizon + PairLedger.silenceMilliseconds || (missing.isEmpty && !complete.isEmpty) else { return [] }
        var units: [DifferenceInDifferences.Unit] = []
        for (unit, sums) in sums where complete.contains(unit.host) {
            guard let arm = planned[unit] else { continue }
            units.append(.init(symbol: unit.symbol, arm: arm, before: sums.before, during: sums.during))
        }
        return Gate.all.map { GateEvidence($0, atHorizon: units) }
    }

    /// What was before a pause is not held against what comes behind it.
    private var judgedMinutes: Range<Int64> {
        let from = max(begin, pausedUntil)
        return from..<max(from, newest - ArmMinutes.settlingMilliseconds)
    }
    var gates: [ThresholdGate] { minutes.gates(in: judgedMinutes) }
    /// The objective for deadlines, missed by both arms in the same minutes: it is not the candidate (SPEC 7.5).
    var environment: GateState { minutes.bothLate(in: judgedMinutes) }

    /// Units that were seen to play each arm, against those that were to (SPEC 7.5).
    func sampleRatioProblem() -> String? {
        guard newest - begin >= ExperimentJudge.exposureMinutesMin * 60_000 else { return nil }
        let planned = planned
        func counts(_ units: some Sequence<Unit>) -> [Double] {
            var (a, b) = (0.0, 0.0)
            for unit in units { if planned[unit] == .b { b += 1 } else { a += 1 } }
            return [a, b]
        }
        let (seen, wanted) = (counts(exposed), counts(planned.keys))
        guard SampleRatio.p(observed: seen, weights: wanted) < ExperimentJudge.sampleRatioP else { return nil }
        return
            "sample-ratio mismatch: \(Int(seen[0])) and \(Int(seen[1])) symbols on hosts seen, \(Int(wanted[0])) and \(Int(wanted[1])) planned"
    }
}

// MARK: - JSON

extension StoredOffset {
    func write(to json: inout JSONWriter) {
        json.field("day", integer: day)
        json.field("part", integer: part)
        json.field("byte", integer: byte)
    }

    init(_ fields: Fields) throws(WireError) {
        self.init(day: try fields.integer("day"), part: try fields.integer("part"), byte: try fields.integer("byte"))
    }
}

extension PairPlan.Silence {
    func write(to json: inout JSONWriter) {
        json.field("host", string: host)
        json.field("pair", integer: Int64(pair))
        json.key("held")
        guard let held else { return json.null() }
        json.beginObject()
        held.write(to: &json)
        json.endObject()
    }

    init(_ fields: Fields) throws(WireError) {
        var held: StoredOffset?
        if let value = fields.optional("held") { held = try StoredOffset(Fields(value, of: "held")) }
        self.init(
            host: try fields.string("host"), pair: Int32(try fields.integer("pair", in: 0...Int64(Limits.experimentPairsMax))), held: held)
    }
}

extension Assessment {
    /// Whether a stored `events` row is the breaker that a decision names.
    package static func isBreaker(_ row: JSONValue, _ detail: JSONValue, _ experiment: String, _ evidence: JSONValue) -> Bool {
        let unit: Int64 = evidence["kind"]?.string == "\(BreakerKind.loss.text)" ? 100_000_000 : 1
        return row["event"]?.string == "breaker" && detail["experiment"]?.string == experiment
            && detail["kind"]?.string == evidence["kind"]?.string && detail["scope"]?.string == evidence["scope"]?.string
            && detail["count"]?.integer == evidence["count"]?.integer.map { $0 / unit }
            && detail["of"]?.integer == evidence["of"]?.integer.map { $0 / unit }
    }

    /// Up to where whose bytes an assessment was made of, and with which silences; nil for evidence that is none.
    package static func inputs(_ evidence: JSONValue) -> (held: [String: StoredOffset], silences: Set<PairPlan.Silence>)? {
        guard let heldValues = evidence["held"]?.array, let silenceValues = evidence["silences"]?.array else { return nil }
        var held: [String: StoredOffset] = [:]
        var silences: Set<PairPlan.Silence> = []
        do throws(WireError) {
            for value in heldValues {
                let fields = try Fields(value, of: "held")
                held[try fields.string("host")] = try StoredOffset(fields)
            }
            for value in silenceValues { silences.insert(try PairPlan.Silence(Fields(value, of: "silence"))) }
        } catch { return nil }
        return (held, silences)
    }
}

/// What is stored of an experiment's hosts before it starts.
package struct ExperimentHistory: Sendable, Equatable {
    /// Symbols by what was traded in the last day, most first.
    package var ranked: [String]
    /// Pairs of blocks in which arm A has rows.
    package var pairs: Int64
    /// Where each host's rows end.
    package var ends: [ExperimentSpec.PreEnd]

    package init(ranked: [String], pairs: Int64, ends: [ExperimentSpec.PreEnd]) {
        self.ranked = ranked
        self.pairs = pairs
        self.ends = ends
    }
}
