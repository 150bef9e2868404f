import ArgumentParser
import CalibModel
import HubCore
import NodeShell
import Wire

struct ExperimentPowerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "power", abstract: "How long a planned switchback test takes to show an effect to its gate.",
        discussion: """
            Metrics and the effects that are looked for when none is given: slippage_bps=0.1, taker_share=0.01, latency_p95=0.1 (a ratio: 10 % \
            longer), deadline_miss_rate=0.02, net_bps=0.2 (less).

            How noisy arm A is comes from its stored snapshots (--feeds-dir, on the hub's machine artifacts/hub/feeds): the last 24 hours are cut \
            into pairs of blocks as the experiment would cut them. Or it is given: --standard-error METRIC=VALUE, that of the estimate of \
            24 hours at 5-minute blocks, for the symbols and hosts that --symbols and --hosts say; taker_share=0.002, for example.

            Times are those after which half, and nine tenths, of such experiments have been taken back; the washout is counted, the minute that \
            closing a pair takes is not.
            """)

    @Option(parsing: .upToNextOption, help: ArgumentHelp("What to look for, in the metric's unit.", valueName: "METRIC=VALUE"))
    var effect: [String] = []
    @Option(parsing: .upToNextOption, help: ArgumentHelp("Of the estimate of a day, in the effect's unit.", valueName: "METRIC=VALUE"))
    var standardError: [String] = []
    @Option(help: "Snapshots of arm A: a directory of <feed>_YYYYMMDD.jsonl files, flat or in host=<host> folders.") var feedsDir: String?
    @Option(help: "Rows to take where feeds hold several sources.") var source: RowSource?
    @Option(help: "Symbols of the test, 1 to 500; those of the rows when absent.") var symbols: Int?
    @Option(help: "Hosts that quote each of them, 1 to 1000; as in the rows when absent.") var hosts: Int?
    @Option(help: "Length of a block in seconds, a multiple of 10 from 60 to 86400.") var blockSec: Int64 = 300
    @Option(help: "Dropped at the beginning of every block, in seconds.") var washoutSec: Int64 = 30
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    /// A metric as an operator names it, and as its gate tests it.
    private struct Metric {
        var name: String
        var gate: String
        var tested: GateMetric
        var usual: Double

        static let all = [
            Metric(name: "slippage_bps", gate: "slippage_degradation", tested: .slippage, usual: 0.1),
            Metric(name: "taker_share", gate: "taker_share_increase", tested: .takerShare, usual: 0.01),
            Metric(name: "latency_p95", gate: "latency_regression", tested: .logLatency, usual: 0.1),
            Metric(name: "deadline_miss_rate", gate: "deadline_miss_spike", tested: .missRate, usual: 0.02),
            Metric(name: "net_bps", gate: "net_bps_loss", tested: .netLoss, usual: 0.2),
        ]

        /// In the unit of the test: a ratio is tested as its logarithm.
        func inTestUnit(_ value: Double) -> Double { tested == .logLatency ? Elementary.log1p(value) : value }
    }

    private struct Answer {
        var metric: Metric
        var effect: Double
        /// Of one pair, in the test's unit.
        var standardError: Double
        var half: Int?
        var nineTenths: Int?
    }

    func validate() throws {
        _ = try values(effect, "--effect")
        _ = try values(standardError, "--standard-error")
        guard standardError.isEmpty != (feedsDir == nil) else {
            throw ValidationError("give either --feeds-dir, to see how noisy arm A is, or --standard-error METRIC=VALUE")
        }
        guard standardError.isEmpty || symbols != nil else { throw ValidationError("--standard-error needs --symbols") }
        if let symbols { guard (1...Limits.symbolsMax).contains(symbols) else { throw ValidationError("--symbols is 1 to 500") } }
        if let hosts { guard (1...1000).contains(hosts) else { throw ValidationError("--hosts is 1 to 1000") } }
        guard (60...86_400).contains(blockSec), blockSec.isMultiple(of: 10) else {
            throw ValidationError("--block-sec is a multiple of 10 from 60 to 86400")
        }
        guard (0..<blockSec).contains(washoutSec) else { throw ValidationError("--washout-sec is 0 or more, and less than a block") }
    }

    private func values(_ pairs: [String], _ option: String) throws -> [String: Double] {
        var result: [String: Double] = [:]
        for pair in pairs.flatMap({ $0.split(separator: ",") }) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, let value = Double(parts[1]), value > 0, value < 1e6 else {
                throw ValidationError("\(option): '\(pair)' is no METRIC=VALUE with a value above 0, such as taker_share=0.01")
            }
            guard Metric.all.contains(where: { $0.name == parts[0] }) else {
                throw ValidationError("\(option): '\(parts[0])' is none of \(Metric.all.map(\.name).joined(separator: ", "))")
            }
            result[String(parts[0])] = value
        }
        return result
    }

    func run() throws {
        let effects = try values(effect, "--effect")
        let given = try values(standardError, "--standard-error")
        var errors: [String: Double] = [:]
        var count: Int
        if let feedsDir {
            (errors, count) = try measured(feedsDir)
        } else {
            count = symbols ?? 1
            let pairsOfADay = 144.0
            // Of a pair of 5-minute blocks without washout; what is dropped, and other lengths, change how much is seen.
            let share = Double(blockSec - washoutSec) / 300
            for metric in Metric.all {
                guard let value = given[metric.name] else { continue }
                errors[metric.name] = metric.inTestUnit(value) * (pairsOfADay / share).squareRoot()
            }
        }
        let asked = Metric.all.filter { errors[$0.name] != nil && (effects.isEmpty || effects[$0.name] != nil) }
        guard !asked.isEmpty else {
            throw Console.failure(
                "nothing is known of how noisy these metrics are",
                hint: "--standard-error names other metrics than --effect, or the rows hold no fills",
                Exit.failed, output.errors)
        }
        // With so few symbols each throws its own coin (`Switchback.matched`).
        let increments = Double(count < 10 ? count : (count + 1) / 2)
        let answers = asked.map { metric -> Answer in
            answer(metric, effects[metric.name] ?? metric.usual, errors[metric.name] ?? 1, increments)
        }
        show(answers, symbols: count)
    }

    private func answer(_ metric: Metric, _ effect: Double, _ error: Double, _ increments: Double) -> Answer {
        var answer = Answer(metric: metric, effect: effect, standardError: error, half: nil, nineTenths: nil)
        guard let gate = Gate.all.first(where: { $0.name == metric.gate }),
            let hypothesis = gate.hypotheses.first(where: { $0.metric == metric.tested })
        else { return answer }
        let power = SwitchbackPower(standardError: error, increments: increments, alpha: gate.alpha, decisionPairs: gate.decisionPairs)
        let excess = metric.inTestUnit(effect) - hypothesis.tolerance
        answer.half = power.pairs(excess: excess, .half)
        answer.nineTenths = power.pairs(excess: excess, .nineTenths)
        return answer
    }

    /// Standard errors of one pair in the tests' units, and how many symbols the test has.
    private func measured(_ directory: String) throws -> ([String: Double], Int) {
        do {
            let files = try FeedDirectory.find(in: directory, from: 0, to: RowLimits.timeMax) { name in
                Feed.parse(fileName: name).flatMap { $0.feed == .snapshots ? $0 : nil }
            }
            // The last day of rows lies in the newest three days of files.
            let newest = files.map(\.day.number).max() ?? 0
            let recent = files.filter { $0.day.number >= newest - 2 }
            var history = ArmHistory(blockMilliseconds: blockSec * 1000)
            try read(recent, directory) { line, file, _, isTerminated in
                history.take(line, host: file.host ?? "local", source: source, isTerminated: isTerminated)
            }
            let sources = history.sources
            guard let found = sources.first, sources.count == 1 else {
                throw sources.isEmpty
                    ? Console.failure("no snapshot of arm A in '\(directory)'", Exit.failed, output.errors)
                    : Console.failure(
                        "the rows mix sources: \(sources.map(\.name).sorted().joined(separator: ", "))", hint: "choose one with --source",
                        Exit.badSubject, output.errors)
            }
            let plan = history.plan(source: found, blockMilliseconds: blockSec * 1000, washoutMilliseconds: washoutSec * 1000)
            var ledger = PairLedger(plan)
            try read(recent, directory) { line, file, end, isTerminated in
                ledger.take(
                    line, host: file.host ?? "local", endingAt: StoredOffset(day: file.day.number, byte: end), isTerminated: isTerminated)
            }
            let pairs = ledger.prePairs
            guard pairs.count >= PrePeriod.pairsMin else {
                throw Console.failure(
                    "the rows of arm A make \(pairs.count) pairs of blocks; \(PrePeriod.pairsMin) are needed",
                    hint: "let the fleet quote for longer, or give --standard-error", Exit.failed, output.errors)
            }
            let stored = plan.design.clusters.count
            let hostsPerSymbol = Double(history.unitCount) / Double(stored)
            let more = Double(symbols ?? stored) / Double(stored) * (hosts.map { Double($0) / hostsPerSymbol } ?? 1)
            // The rows have no washout; a test sees that much less of every block.
            let kept = Double(blockSec - washoutSec) / Double(blockSec)
            var errors: [String: Double] = [:]
            for metric in Metric.all {
                let error = SwitchbackPower.standardError(of: metric.tested, pairs: pairs, units: ledger.unitCount)
                errors[metric.name] = error.map { $0 / (more * kept).squareRoot() }
            }
            return (errors, symbols ?? stored)
        } catch let error as FileError {
            throw Console.failure(error.description, Exit.failed, output.errors)
        }
    }

    private func read(
        _ files: [FeedFile], _ directory: String, _ take: (UnsafeRawBufferPointer, FeedFile, Int64, Bool) -> Void
    ) throws(FileError) {
        for file in files {
            var cutter = LineCutter()
            var taken: Int64 = 0
            try FeedDirectory.read(
                file, in: directory,
                consume: { bytes, isEnd in
                    var start = 0
                    while let piece = cutter.next(in: bytes, from: &start, isEnd: isEnd) {
                        if case .line(let line, _, let isTerminated) = piece { take(line, file, taken + Int64(start), isTerminated) }
                    }
                    taken += Int64(start)
                    return start
                })
        }
    }

    // MARK: Output

    private func show(_ answers: [Answer], symbols: Int) {
        let pairSeconds = 2 * blockSec
        func minutes(_ pairs: Int?) -> Int64? { pairs.map { Int64($0) * pairSeconds / 60 } }
        RecordList<Answer>(
            name: "tests",
            columns: [
                .text("metric", \.metric.name), .text("gate", \.metric.gate), .double("effect", \.effect),
                .double("standard_error_pair", isInTables: false, \.standardError),
                .double("standard_error_day", title: "STANDARD ERROR OF A DAY") {
                    $0.standardError / (86_400 / Double(pairSeconds)).squareRoot()
                },
                .whole("pairs_median", isInTables: false) { $0.half.map(Int64.init) },
                .whole("pairs_p90", isInTables: false) { $0.nineTenths.map(Int64.init) },
                .whole("minutes_median", title: "MEDIAN MINUTES") { minutes($0.half) },
                .whole("minutes_p90", title: "P90 MINUTES") { minutes($0.nineTenths) },
            ],
            header: [
                .init(name: "symbols", value: .number("\(symbols)")), .init(name: "block_sec", value: .number("\(blockSec)")),
                .init(name: "washout_sec", value: .number("\(washoutSec)")),
            ], nothing: "nothing was asked"
        ).print(answers, output)
    }
}
