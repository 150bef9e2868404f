import CalibModel
import Wire

// `ab_run_{run_id}.md`, `.html` and `.json`: what the two arms of an experiment did (SPEC 7.8).
//
// The head has the layout its readers know; what was missing there follows behind it. All forms are written from one model.
//
// Invariants:
// 1. Only rows with this experiment's id and `arm_why` = schedule are compared; every other row is counted under the reason it is left out for.
// 2. Every figure is a ratio of sums over the rows of an arm (SPEC 1.6); the p95 is that of the merged histograms (SPEC 1.4).
// 3. The order of files and rows leaves no trace.

/// What the hub knows of a run beside its rows.
package struct ABRun: Sendable {
    /// `YYYYMMDD_HHMMSS`: the report is `ab_run_{id}`.
    package var id: String
    package var generatedMilliseconds: Int64
    package var experiment: ExperimentSpec
    /// `running`, `rolled_back` and so on, as the hub names it.
    package var state: String
    package var isRolledBack: Bool
    /// In the order they were given.
    package var commands: [Command]
    /// Nil: the one source the rows have (SPEC 10.3).
    package var source: RowSource?
    /// What the sequential gates of a switchback say (`ExperimentGates`); empty for the other designs, whose gates follow from the rows here.
    package var gates: [GateEvidence] = []
    /// After each settled pair of a switchback.
    package var points: [PairPoint] = []
    /// Nil before there is one.
    package var verdict: Experiment.Verdict?
    /// Its decision log.
    package var changes: [Experiment.Change] = []
    /// What the gates are to be made of; nil before the experiment started.
    package var judged: Experiment?

    package struct Command: Sendable {
        package var id: String
        package var kind: String
        /// What it was about: an experiment, a symbol, `all`.
        package var scope: String
        package var by: String
        package var reason: String
        package var issuedMilliseconds: Int64
        package var hosts: [Host]

        package struct Host: Sendable {
            package var host: String
            package var state: String
            /// From the hub's first sending to the edge's answer at the hub, on the hub's monotonic clock; nil while it has not come.
            package var appliedLatencyNanoseconds: Int64?
            package var latchedLatencyNanoseconds: Int64?
            package var cancelledOrders: Int64?
            package init(
                host: String, state: String, appliedLatencyNanoseconds: Int64?, latchedLatencyNanoseconds: Int64?, cancelledOrders: Int64?
            ) {
                self.host = host
                self.state = state
                self.appliedLatencyNanoseconds = appliedLatencyNanoseconds
                self.latchedLatencyNanoseconds = latchedLatencyNanoseconds
                self.cancelledOrders = cancelledOrders
            }
        }

        package init(id: String, kind: String, scope: String, by: String, reason: String, issuedMilliseconds: Int64, hosts: [Host]) {
            self.id = id
            self.kind = kind
            self.scope = scope
            self.by = by
            self.reason = reason
            self.issuedMilliseconds = issuedMilliseconds
            self.hosts = hosts
        }
    }

    package init(
        id: String, generatedMilliseconds: Int64, experiment: ExperimentSpec, state: String, isRolledBack: Bool, commands: [Command],
        source: RowSource? = nil
    ) {
        self.id = id
        self.generatedMilliseconds = generatedMilliseconds
        self.experiment = experiment
        self.state = state
        self.isRolledBack = isRolledBack
        self.commands = commands
        self.source = source
    }
}

/// Why there is no report.
package enum ABRefusal: Error, Equatable, Sendable {
    /// Rows of several sources would be compared; name one (SPEC 10.3).
    case mixedSources([String])
}

/// All forms of a finished report.
package struct ABReport: Sendable {
    /// Without `.md`, `.html` or `.json`.
    package let stem: String
    package let markdown: [UInt8]
    /// One file: no script, nothing from elsewhere.
    package let html: [UInt8]
    package let json: [UInt8]
}

/// Feeds in, report out. Use: for each file `open`, `consume` until its end; then `finish`. Files of other feeds are not needed.
package struct ABReportBuild: ~Copyable {
    private var run: ABRun
    private var scanner = FeedScanner()
    private var cutter = LineCutter()
    private var feed = Feed.snapshots
    private var host: String?
    private var symbols = NameTable()
    private var hosts = NameTable()
    private var seen: [RowIdentity: UInt64] = [:]
    private let experiment: [UInt8]
    private let isDry: Bool
    /// By source, then arm.
    private var arms = RowSource.allCases.map { _ in [ArmStatistics(), ArmStatistics()] }
    /// By source: what threshold gates look at.
    private var minutes = RowSource.allCases.map { _ in ArmMinutes() }
    private var rows: [ABRowFate: Int64] = [:]
    private var rejected = [Int64](repeating: 0, count: RejectReason.allCases.count)

    private struct RowIdentity: Hashable {
        var host: Int32
        var epoch: Int64
        var seq: Int64
    }

    package init(_ run: ABRun) {
        self.run = run
        experiment = Array(run.experiment.id.utf8)
        isDry = run.experiment.mode == ExperimentSpec.Mode.dry.rawValue
    }

    /// Begins a file; `host` is that of its `host=` folder.
    package mutating func open(feed: Feed, host: String?) {
        self.feed = feed
        self.host = host
        cutter = LineCutter()
    }

    /// As `DatasetBuild.consume`: takes whole lines off the front of `bytes` and returns how many bytes it took.
    package mutating func consume(_ bytes: UnsafeRawBufferPointer, isEnd: Bool) -> Int {
        guard feed == .snapshots else { return bytes.count }
        var start = 0
        while let piece = cutter.next(in: bytes, from: &start, isEnd: isEnd) {
            switch piece {
            case .line(let line, _, let isTerminated): take(line, isTerminated: isTerminated)
            case .tooLong(_, let isTerminated): rejected[(isTerminated ? RejectReason.tooLong : .tornTail).rawValue] += 1
            }
        }
        return start
    }

    /// Both documents of what was taken so far.
    package func finish() throws(ABRefusal) -> ABReport {
        let used = RowSource.allCases.filter { source in arms[Int(source.rawValue)].contains { $0.rows > 0 } }
        if run.source == nil, used.count > 1 { throw .mixedSources(used.map(\.name)) }
        let source = run.source ?? used.first
        let chosen = source.map { arms[Int($0.rawValue)] } ?? [ArmStatistics(), ArmStatistics()]
        var rows = rows
        for other in used where other != source { rows[.otherSource, default: 0] += arms[Int(other.rawValue)].reduce(0) { $0 + $1.rows } }
        let hostNames = chosen[0].hosts.union(chosen[1].hosts).map { hosts.text($0) }.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let table = isDry ? Gate.dry : Gate.all
        let gates = run.gates.isEmpty ? source.map { minutes[Int($0.rawValue)].gates(table).map { GateEvidence($0) } } ?? [] : run.gates
        let model = ABModel(
            run: run, source: source, a: chosen[0], b: chosen[1], hosts: hostNames, gates: gates, rows: rows, rejected: rejected)
        return ABReport(stem: "ab_run_\(run.id)", markdown: Array(model.markdown.utf8), html: Array(model.html.utf8), json: model.json)
    }

    // MARK: Leaves

    private mutating func take(_ line: UnsafeRawBufferPointer, isTerminated: Bool) {
        if let reason = scanner.scan(line, feed: .snapshots, isTerminated: isTerminated) {
            rejected[reason.rawValue] += 1
            return
        }
        let fate = fate(of: line)
        if let fate { rows[fate, default: 0] += 1 }
    }

    /// Adds the row to its arm; nil then, else why not.
    private mutating func fate(of line: UnsafeRawBufferPointer) -> ABRowFate? {
        let row = scanner.row
        if row.experiment.isEmpty { return .noExperiment }
        guard row.experiment.elementsEqual(experiment) else { return .otherExperiment }
        guard let why = ArmReason.allCases.first(where: { row.armWhy.equals($0.text) }) else { return .incomplete }
        // Of a dry run both arms are compared, on every tick (SPEC 7.2).
        guard why == .schedule || (why == .dry && isDry) else { return .reason(why) }
        guard let arm = row[.arm], let ticks = row[.ticks], let misses = row[.deadlineMisses], let net = row[.netXNotional] else {
            return .incomplete
        }
        let hostID = row.host.isEmpty ? hosts.id(of: host ?? "local") : hosts.id(of: row.host)
        if let epoch = row[.epoch], let seq = row[.seq] {
            // A fork can hold a row twice; other bytes under one identity both count (SPEC 6.5).
            let identity = RowIdentity(host: hostID, epoch: epoch, seq: seq)
            let hash = KeyedHash.hash(line, key0: 0x6162_5f72_756e_0001, key1: UInt64(line.count))
            if seen[identity] == hash { return .duplicate }
            seen[identity] = hash
        }
        let source = row[.source] ?? RowSource.unknown.rawValue
        arms[Int(source)][Int(arm)].add(
            row, symbol: symbols.id(of: row.symbol), host: hostID, ticks: ticks, misses: misses, net: net)
        if run.gates.isEmpty, let sums = BlockSums(row) {
            minutes[Int(source)].add(sums, isB: arm == Int64(Arm.b.rawValue), from: row.value(.fromTs))
        }
        return nil
    }
}

/// What became of a snapshot row that is not compared.
enum ABRowFate: Hashable {
    case reason(ArmReason)
    case otherExperiment, noExperiment
    /// Of this experiment, but without an arm, a known reason, or a count that is compared.
    case incomplete
    case duplicate
    case otherSource

    /// In the order of the report.
    static let all: [ABRowFate] =
        ArmReason.allCases.filter { $0 != .schedule }.map(ABRowFate.reason)
        + [.otherExperiment, .noExperiment, .otherSource, .incomplete, .duplicate]

    var name: String {
        switch self {
        case .reason(let why): "arm_why_\(why.text)"
        case .otherExperiment: "other_experiment"
        case .noExperiment: "no_experiment"
        case .incomplete: "incomplete"
        case .duplicate: "duplicate"
        case .otherSource: "other_source"
        }
    }
}

/// The sums of one arm.
struct ArmStatistics {
    var rows: Int64 = 0
    /// Those with a tick: a symbol that only waits for its markouts is not exposed any more.
    var symbols: Set<Int32> = []
    var hosts: Set<Int32> = []
    /// Of the rows with a tick.
    var exposedMilliseconds: Int64 = 0
    var from = Int64.max
    var to = Int64.min
    var ticks: Int64 = 0
    var misses: Int64 = 0
    var quotes: Int64 = 0
    var filledOrders: Int64 = 0
    var fills: Int64 = 0
    var takerFills: Int64 = 0
    /// Notional 1e-8 quote currency, costs 1e-9 bps * quote currency, as snapshots print them.
    var fillNotional: Int128 = 0
    var slip: Int128 = 0
    var markoutNotional: Int128 = 0
    var net: Int128 = 0
    var histogram: [Int32: Int64] = [:]

    mutating func add(_ row: borrowing FeedRow, symbol: Int32, host: Int32, ticks: Int64, misses: Int64, net: Int64) {
        rows += 1
        hosts.insert(host)
        from = min(from, row.value(.fromTs))
        to = max(to, row.value(.fromTs) + row.value(.spanMs))
        if ticks > 0 {
            symbols.insert(symbol)
            exposedMilliseconds += row.value(.spanMs)
        }
        self.ticks += ticks
        self.misses += misses
        quotes += row.value(.quotes)
        filledOrders += row.value(.filledOrders)
        fills += row.value(.fills)
        takerFills += row.value(.takerFills)
        fillNotional += Int128(row.value(.fillNotional))
        slip += Int128(row.value(.slipXNotional))
        markoutNotional += Int128(row.value(.markoutNotional))
        self.net += Int128(net)
        for (index, count) in row.histogram where count > 0 { histogram[index, default: 0] += count }
    }

    /// Costs have 9 places and notional 8: `cost / notional` in 1e-9 bps.
    private static func bps(_ cost: Int128, over notional: Int128) -> Int64? {
        Ratio.nano(cost, 100_000_000, over: notional).flatMap { Int64(exactly: $0) }
    }
    private static func ratio(_ part: Int64, of whole: Int64) -> Int64? {
        Ratio.nano(Int128(part), 1_000_000_000, over: Int128(whole)).flatMap { Int64(exactly: $0) }
    }

    /// In 1e-9; nil for an empty denominator.
    var netBps: Int64? { Self.bps(net, over: markoutNotional) }
    var slippageBps: Int64? { Self.bps(slip, over: fillNotional) }
    var fillRate: Int64? { Self.ratio(filledOrders, of: quotes) }
    var takerShare: Int64? { Self.ratio(takerFills, of: fills) }
    var missRate: Int64? { Self.ratio(misses, of: ticks) }
    /// 1e-9 ms.
    var latencyP95: Int64? {
        let pairs = histogram.sorted { $0.key < $1.key }.map { (index: Int($0.key), count: $0.value) }
        return LatencyBuckets.quantile(of: pairs, percent: 95).map { $0 * 1000 }
    }
}

/// The six rows of the comparison, as the report has always had them.
struct Metric {
    var title: String
    /// In the JSON form.
    var name: StaticString
    /// In 1e-9 of the unit; nil is unknown.
    var value: @Sendable (ArmStatistics) -> Int64?
    var isBetterHigh: Bool
    /// Decimals in the table.
    var places: Int

    static let all: [Metric] = [
        Metric(title: "Net BPS", name: "net_bps", value: { $0.netBps }, isBetterHigh: true, places: 4),
        Metric(title: "Slippage BPS", name: "slippage_bps", value: { $0.slippageBps }, isBetterHigh: false, places: 4),
        Metric(title: "Fill Rate", name: "fill_rate", value: { $0.fillRate }, isBetterHigh: true, places: 4),
        Metric(title: "Taker Share", name: "taker_share", value: { $0.takerShare }, isBetterHigh: false, places: 4),
        Metric(title: "Tick Total P95 (ms)", name: "tick_total_p95_ms", value: { $0.latencyP95 }, isBetterHigh: false, places: 2),
        Metric(title: "Deadline Miss Rate", name: "deadline_miss_rate", value: { $0.missRate }, isBetterHigh: false, places: 4),
    ]

    /// Nil when either is unknown.
    func isNotWorse(_ a: Int64?, _ b: Int64?) -> Bool? {
        guard let a, let b else { return nil }
        return isBetterHigh ? b >= a : b <= a
    }
}

struct ABModel {
    var run: ABRun
    /// Nil when no row is compared.
    var source: RowSource?
    var a: ArmStatistics
    var b: ArmStatistics
    var hosts: [String]
    var gates: [GateEvidence]
    var rows: [ABRowFate: Int64]
    var rejected: [Int64]

    static let statement = """
        The table compares point values: a check mark says only that B's value is not worse than A's, and chance alone gives it half of the time. \
        What counts against chance are the gates.
        """
    static let symbolDesign = """
        Design `symbol`: the arms hold different symbols, so a difference is the candidate's and the symbols' together. Its gates are \
        threshold rules, which fire between equal arms, too; only a `switchback` has sequential gates.
        """

    var from: Int64? { a.rows + b.rows > 0 ? min(a.from, b.from) : nil }
    var to: Int64? { a.rows + b.rows > 0 ? max(a.to, b.to) : nil }

    // MARK: Markdown

    var markdown: String {
        var lines: [String] = []
        head(&lines)
        comparison(&lines)
        data(&lines)
        samples(&lines)
        excluded(&lines)
        gates(&lines)
        pairs(&lines)
        decisions(&lines)
        commands(&lines)
        lines += ["## Statistics", "", Self.statement, ""]
        if run.experiment.design == "symbol" { lines += [Self.symbolDesign, ""] }
        return lines.dropLast().joined(separator: "\n") + "\n"
    }

    private func head(_ lines: inout [String]) {
        lines += [
            "# AB Test Report: \(run.id)", "",
            "**Generated**: \(TimeText.seconds(run.generatedMilliseconds))  ",
            "**Mode**: \(ReportText.escaped(run.experiment.mode))  ",
            "**Split**: \(ReportText.decimal(run.experiment.splitMicro * 100_000, places: 1))% to B  ",
            "**Rollback Triggered**: \(run.isRolledBack ? "✗ YES" : "✓ NO")", "",
            "## Symbol Routing", "",
            "- Bucket A: \(a.symbols.count) symbols\(share(of: a))",
            "- Bucket B: \(b.symbols.count) symbols\(share(of: b))", "",
        ]
    }

    /// Of the time with ticks, in 1e-9.
    func timeShare(of arm: ArmStatistics) -> Int64? {
        Ratio.nano(Int128(arm.exposedMilliseconds), 1_000_000_000, over: Int128(a.exposedMilliseconds) + Int128(b.exposedMilliseconds))
            .flatMap { Int64(exactly: $0) }
    }

    private func share(of arm: ArmStatistics) -> String {
        timeShare(of: arm).map { " (\(ReportText.decimal($0 * 100, places: 1))% of the time)" } ?? ""
    }

    private func comparison(_ lines: inout [String]) {
        lines += [
            "## Metrics Comparison", "",
            "| Metric | Bucket A | Bucket B | Delta (B - A) | Result |",
            "|--------|----------|----------|---------------|--------|",
        ]
        for metric in Metric.all {
            let (left, right) = (metric.value(a), metric.value(b))
            func text(_ value: Int64?) -> String { value.map { ReportText.decimal($0, places: metric.places) } ?? "-" }
            var delta = "-"
            if let left, let right { delta = ReportText.signed(right &- left, places: metric.places) }
            let result = metric.isNotWorse(left, right).map { $0 ? "✓" : "✗" } ?? "-"
            lines.append("| \(metric.title) | \(text(left)) | \(text(right)) | \(delta) | \(result) |")
        }
        lines.append("")
    }

    private func data(_ lines: inout [String]) {
        let range = from.flatMap { from in to.map { "\(TimeText.milliseconds(from)) to \(TimeText.milliseconds($0))" } } ?? "-"
        lines += [
            "## Data", "",
            "- Experiment: \(ReportText.escaped(run.experiment.id)), \(ReportText.escaped(run.state))",
            "- Hosts: \(hosts.isEmpty ? "-" : hosts.map(ReportText.escaped).joined(separator: ", "))",
            "- Time: \(range)",
            "- Source: \(source?.name ?? "-")",
            "- Candidate: "
                + run.experiment.candidate.map { "\(ReportText.escaped($0.key)) = \(ReportText.escaped($0.value))" }
                .joined(separator: ", "),
            "",
        ]
    }

    private func samples(_ lines: inout [String]) {
        lines += ["## Samples", "", "| Count | Bucket A | Bucket B |", "|---|---:|---:|"]
        func row(_ title: String, _ value: (ArmStatistics) -> String) { lines.append("| \(title) | \(value(a)) | \(value(b)) |") }
        row("Snapshot rows") { "\($0.rows)" }
        row("Ticks") { "\($0.ticks)" }
        row("Deadline misses") { "\($0.misses)" }
        row("Quotes") { "\($0.quotes)" }
        row("Filled orders") { "\($0.filledOrders)" }
        row("Fills") { "\($0.fills)" }
        row("Taker fills") { "\($0.takerFills)" }
        row("Notional filled (quote currency)") { ReportText.notional($0.fillNotional) }
        row("Notional with a known markout") { ReportText.notional($0.markoutNotional) }
        lines.append("")
    }

    private func excluded(_ lines: inout [String]) {
        lines += ["## Rows", "", "Compared: \(a.rows + b.rows) snapshot rows (arm_why = schedule). Left out:", ""]
        var table = ABRowFate.all.compactMap { fate in rows[fate].map { "| \(fate.name) | \($0) |" } }
        for reason in RejectReason.allCases where rejected[reason.rawValue] > 0 {
            table.append("| rejected_\(reason.name) | \(rejected[reason.rawValue]) |")
        }
        lines += table.isEmpty ? ["None."] : ["| Reason | Rows |", "|---|---:|"] + table
        lines.append("")
    }

    private func gates(_ lines: inout [String]) {
        lines += ["## Gates", ""]
        guard !gates.isEmpty else {
            lines += ["None.", ""]
            return
        }
        lines += [
            "| Gate | Kind | State | Metric | Effect (B - A) | Excluded below | Excluded above | ln e | Needed |",
            "|---|---|---|---|---:|---:|---:|---:|---:|",
        ]
        func number(_ value: Double?) -> String { value.map { ReportText.significant($0) } ?? "-" }
        for gate in gates {
            let cells = [gate.name, gate.kind.rawValue, ReportText.state(gate.state)]
            if gate.tests.isEmpty { lines.append("| " + (cells + [String](repeating: "-", count: 6)).joined(separator: " | ") + " |") }
            for test in gate.tests {
                let figures = [
                    test.estimate, test.lower, test.upper, test.logEMax, test.logEMax.map { _ in 0 - Elementary.log(test.alpha) },
                ].map(number)
                lines.append("| " + (cells + [test.metric.rawValue] + figures).joined(separator: " | ") + " |")
            }
        }
        lines.append("")
    }

    /// How much of the plan counts, pair by pair.
    private func pairs(_ lines: inout [String]) {
        guard !run.points.isEmpty else { return }
        let (planned, counted) = run.points.reduce((0, 0)) { ($0.0 + $1.planned, $0.1 + $1.counted) }
        lines += [
            "## Pairs", "",
            "- Settled: \(run.points.count)",
            "- Symbols on hosts, summed over pairs: \(planned) planned, \(counted) counted", "",
        ]
    }

    private func decisions(_ lines: inout [String]) {
        guard !run.changes.isEmpty else { return }
        lines += [
            "## Decisions", "", "Verdict: \(run.verdict?.rawValue ?? "-")", "", "| When | State | By | Reason | Evidence |",
            "|---|---|---|---|---|",
        ]
        for change in run.changes {
            let cells = [
                TimeText.milliseconds(change.milliseconds), change.state.rawValue, change.by, change.reason, Self.evidence(change.evidence),
            ]
            lines.append("| " + cells.map(ReportText.escaped).joined(separator: " | ") + " |")
        }
        lines.append("")
    }

    /// In a few words; `hubctl gate explain` has all of it.
    static func evidence(_ evidence: JSONValue?) -> String {
        guard let evidence else { return "-" }
        if let pairs = evidence["pairs"]?.integer {
            let (planned, counted) = (evidence["planned"]?.integer ?? 0, evidence["counted"]?.integer ?? 0)
            return "\(pairs) pairs, \(counted) of \(planned) symbols on hosts"
        }
        if let rows = evidence["rows"]?.integer { return "\(rows) rows" }
        if let host = evidence["host"]?.string { return "\(host) at \(evidence["at_ms"]?.integer.map(TimeText.milliseconds) ?? "-")" }
        return "-"
    }

    private func commands(_ lines: inout [String]) {
        lines += ["## Commands", ""]
        if run.commands.isEmpty {
            lines += ["None.", ""]
            return
        }
        lines += [
            "| Issued | Command | Scope | Host | State | Applied after (ms) | Latched after (ms) | Orders cancelled | By | Reason |",
            "|---|---|---|---|---|---:|---:|---:|---|---|",
        ]
        func text(_ value: Int64?) -> String { value.map { "\($0)" } ?? "-" }
        func milliseconds(_ nanoseconds: Int64?) -> String { nanoseconds.map { ReportText.decimal($0 * 1000, places: 3) } ?? "-" }
        for command in run.commands {
            let none = ABRun.Command.Host(
                host: "-", state: "-", appliedLatencyNanoseconds: nil, latchedLatencyNanoseconds: nil, cancelledOrders: nil)
            for host in command.hosts.isEmpty ? [none] : command.hosts {
                let cells = [
                    TimeText.milliseconds(command.issuedMilliseconds), command.kind, command.scope, host.host, host.state,
                    milliseconds(host.appliedLatencyNanoseconds), milliseconds(host.latchedLatencyNanoseconds), text(host.cancelledOrders),
                    command.by,
                    command.reason,
                ]
                lines.append("| " + cells.map(ReportText.escaped).joined(separator: " | ") + " |")
            }
        }
        lines.append("")
    }

    // MARK: JSON

    var json: [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("schema", string: "calibrant/ab-run/1" as StaticString)
        json.field("run_id", string: run.id)
        json.field("generated_ms", integer: run.generatedMilliseconds)
        json.key("experiment")
        run.experiment.write(to: &json)
        json.field("state", string: run.state)
        json.field("rollback_triggered", boolean: run.isRolledBack)
        json.field("hosts", strings: hosts)
        json.field("from_ts", integer: from)
        json.field("to_ts", integer: to)
        json.field("source", string: source?.name)
        json.key("arms")
        json.beginObject()
        for (name, arm) in [("A", a), ("B", b)] {
            json.key(data: name)
            write(arm, &json)
        }
        json.endObject()
        json.key("metrics")
        json.beginObject()
        for metric in Metric.all {
            let (left, right) = (metric.value(a), metric.value(b))
            json.key(metric.name)
            json.beginObject()
            json.field("a", fixed: left, places: 9)
            json.field("b", fixed: right, places: 9)
            json.field("delta", fixed: left.flatMap { left in right.map { $0 &- left } }, places: 9)
            json.key("b_not_worse")
            if let flag = metric.isNotWorse(left, right) { json.boolean(flag) } else { json.null() }
            json.endObject()
        }
        json.endObject()
        json.key("rows")
        json.beginObject()
        json.field("used", integer: a.rows + b.rows)
        for fate in ABRowFate.all {
            json.key(data: fate.name)
            json.integer(rows[fate] ?? 0)
        }
        for reason in RejectReason.allCases {
            json.key(data: "rejected_\(reason.name)")
            json.integer(rejected[reason.rawValue])
        }
        json.endObject()
        json.key("gates")
        json.beginArray()
        for gate in gates { json.gate(gate) }
        json.endArray()
        json.key("pairs")
        json.beginArray()
        for point in run.points {
            json.beginObject()
            json.field("pair", integer: Int64(point.pair))
            json.field("planned", integer: point.planned)
            json.field("counted", integer: point.counted)
            json.key("gates")
            json.beginArray()
            for gate in point.gates { json.gate(gate) }
            json.endArray()
            json.endObject()
        }
        json.endArray()
        json.field("verdict", string: run.verdict?.rawValue)
        json.key("decisions")
        json.beginArray()
        for change in run.changes { json.change(change) }
        json.endArray()
        json.key("commands")
        json.beginArray()
        for command in run.commands { write(command, &json) }
        json.endArray()
        json.field("statistics", string: Self.statement)
        json.endObject()
        json.newline()
        return json.take()
    }

    private func write(_ arm: ArmStatistics, _ json: inout JSONWriter) {
        json.beginObject()
        json.field("symbols", integer: arm.symbols.count)
        json.field("time_share", fixed: timeShare(of: arm), places: 9)
        json.field("rows", integer: arm.rows)
        json.field("ticks", integer: arm.ticks)
        json.field("deadline_misses", integer: arm.misses)
        json.field("quotes", integer: arm.quotes)
        json.field("filled_orders", integer: arm.filledOrders)
        json.field("fills", integer: arm.fills)
        json.field("taker_fills", integer: arm.takerFills)
        json.key("fill_notional")
        json.raw(ReportText.notional(arm.fillNotional).utf8)
        json.key("markout_notional")
        json.raw(ReportText.notional(arm.markoutNotional).utf8)
        json.endObject()
    }

    private func write(_ command: ABRun.Command, _ json: inout JSONWriter) {
        json.beginObject()
        json.field("id", string: command.id)
        json.field("kind", string: command.kind)
        json.field("scope", string: command.scope)
        json.field("by", string: command.by)
        json.field("reason", string: command.reason)
        json.field("issued_ms", integer: command.issuedMilliseconds)
        json.key("hosts")
        json.beginArray()
        for host in command.hosts {
            json.beginObject()
            json.field("host", string: host.host)
            json.field("state", string: host.state)
            json.field("applied_latency_ms", fixed: host.appliedLatencyNanoseconds, places: Places.milliseconds)
            json.field("latched_latency_ms", fixed: host.latchedLatencyNanoseconds, places: Places.milliseconds)
            json.field("cancelled_orders", integer: host.cancelledOrders)
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }
}

/// Numbers and names as a report prints them.
enum ReportText {
    /// Six decimals at most; what is too large or small for them in full.
    static func significant(_ value: Double) -> String {
        guard abs(value) < 1e9, value == 0 || abs(value) >= 1e-5 else { return "\(value)" }
        return decimal(Int64((value * 1e9).rounded()), places: 6)
    }

    static func state(_ state: GateState) -> String {
        guard case .breaching(let seconds, let duration) = state else { return "\(state.name)" }
        return "breaching (\(seconds) of \(duration) s)"
    }

    /// A value in 1e-9 with exactly `places` decimals (at most 9), half to even.
    static func decimal(_ nano: Int64, places: Int) -> String {
        let shown = FixedPoint.divide(Int128(nano), by: Int128(FixedPoint.powersOfTen[9 - places])) ?? 0
        let scale = UInt64(FixedPoint.powersOfTen[places])
        let (whole, part) = shown.magnitude.quotientAndRemainder(dividingBy: scale)
        let digits = String(part)
        let sign = nano < 0 && shown != 0 ? "-" : ""
        return places == 0 ? "\(sign)\(whole)" : "\(sign)\(whole)." + String(repeating: "0", count: places - digits.utf8.count) + digits
    }

    /// With its sign always, that of the exact value: a delta that rounds to nothing still shows its direction.
    static func signed(_ nano: Int64, places: Int) -> String {
        let text = decimal(nano, places: places)
        return (nano < 0 ? "-" : "+") + (text.hasPrefix("-") ? String(text.dropFirst()) : text)
    }

    /// 1e-8 quote currency, all its decimals.
    static func notional(_ value: Int128) -> String {
        let (whole, part) = value.magnitude.quotientAndRemainder(dividingBy: 100_000_000)
        var digits = String(part)
        digits = String(repeating: "0", count: 8 - digits.utf8.count) + digits
        while digits.utf8.count > 1, digits.hasSuffix("0") { digits.removeLast() }
        return "\(value < 0 ? "-" : "")\(whole).\(digits)"
    }

    /// Names and reasons are data: a bar or a line break in one must not break a table.
    static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "|", "\\", "`", "*", "<", ">", "[", "]": result += "\\\(scalar)"
            case _ where scalar.value < 0x20: result += " "
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
