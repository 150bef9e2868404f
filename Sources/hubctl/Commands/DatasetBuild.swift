import ArgumentParser
import CalibModel
import DatasetFiles
import HubCore
import NodeShell
import Wire

extension RowSource: ExpressibleByArgument {
    public init?(argument: String) {
        guard let source = RowSource.allCases.first(where: { $0.name == argument }) else { return nil }
        self = source
    }
    public static var allValueStrings: [String] { allCases.map(\.name) }
}

extension DatasetFolder.Form: ExpressibleByArgument {}

enum ArmChoice: String, ExpressibleByArgument, CaseIterable {
    case a = "A"
    case b = "B"
    case all
}

struct DatasetBuildCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build", abstract: "Builds a calibration dataset, from feed files here or at a hub.",
        discussion: """
            Writes calib_{from}_{to}.json and calib_{from}_{to}.manifest.json, each at once or not at all. Building again gives the same \
            bytes from the same rows ('unchanged'); other bytes are refused unless --replace is given.

            What is made of whole hours is kept beside the feeds, in .partials/, so that a build after one more hour reads that hour alone. It can be \
            thrown away at any time.

            With a hub (--context, CALIBRANT_CONTEXT or --hub) and neither --feeds-dir nor --offline the hub builds it from what it holds; \
            'dataset pull' brings it here.
            """)

    @Option(
        name: .customLong("feeds-dir"),
        help:
            "Directory of <feed>_YYYYMMDD.jsonl files, flat or in host=<host> folders; relative to the working directory. (default: artifacts/edge/feeds)"
    ) var givenFeedsDir: String?
    @Option(
        name: .customLong("output-dir"),
        help: "Directory the dataset is written to, relative to the working directory. (default: artifacts/edge/datasets)")
    var givenOutputDir: String?
    @Option(help: "Begin, inclusive: RFC 3339 in whole seconds; without an offset it is UTC.") var fromTs: String
    @Option(help: "End, exclusive; written like --from-ts.") var toTs: String
    @Option(
        help:
            "Length of an interval in seconds, a multiple of 10 from 10 to 86400. Intervals lie on multiples of it since 1970; those cut by the range are flagged partial."
    ) var intervalSec: Int64 = 300
    @Option(parsing: .upToNextOption, help: "Symbols to keep, one or more, separated by spaces; all when absent.") var symbols: [String] =
        []
    @Option(help: "Rows to take where feeds hold several sources.") var source: RowSource?
    @Option(help: "Arm of an experiment.") var arm: ArmChoice = .a
    @Option(help: "Largest deadline_miss_rate kept, a ratio from 0 to 1 (0.05 is 5 %).") var maxDeadlineMiss = "0.05"
    @Option(help: "Fewest tick rows an interval needs to be kept.") var minSamplesPerInterval: Int64 = 10
    @Flag(help: "Keep filtered intervals, flagged.") var keepFiltered = false
    @Flag(help: "One row per host instead of hosts merged.") var perHost = false
    @Flag(help: "Replace a dataset of the same name that has other bytes.") var replace = false
    @Option(help: "Another form to write beside the JSON: parquet or csv; may be given twice.") var form: [DatasetFolder.Form] = []
    @Option(help: "Threads that read and compute. (default: one for each processor)") var threads: Int?
    @Flag(help: "Read every feed file anew, and leave nothing for later builds: slower, never other bytes.") var noCache = false
    @Flag(help: "Read files instead of asking a hub.") var offline = false
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: OutputForm = .table

    private var feedsDir: String { givenFeedsDir ?? "artifacts/edge/feeds" }
    private var outputDir: String { givenOutputDir ?? "artifacts/edge/datasets" }
    private var isAtHub: Bool { givenFeedsDir == nil && !offline && hub.isGiven }

    func validate() throws {
        if isAtHub, givenOutputDir != nil {
            throw ValidationError("the hub keeps the dataset it builds: leave out --output-dir and bring it with 'dataset pull'")
        }
        guard let from = TimeText.parse(fromTs) else { throw ValidationError("--from-ts: '\(fromTs)' is no RFC 3339 time") }
        guard let to = TimeText.parse(toTs) else { throw ValidationError("--to-ts: '\(toTs)' is no RFC 3339 time") }
        guard from.milliseconds.isMultiple(of: 1000), to.milliseconds.isMultiple(of: 1000) else {
            throw ValidationError("--from-ts and --to-ts are whole seconds")
        }
        guard from.milliseconds < to.milliseconds else { throw ValidationError("--from-ts must be before --to-ts") }
        guard from.milliseconds >= 0, to.milliseconds <= RowLimits.timeMax else { throw ValidationError("times lie between 1970 and 2100") }
        guard intervalSec >= 10, intervalSec <= 86_400, intervalSec.isMultiple(of: 10) else {
            throw ValidationError("--interval-sec is a multiple of 10 from 10 to 86400")
        }
        guard missMax != nil else { throw ValidationError("--max-deadline-miss is a ratio from 0 to 1, such as 0.05") }
        if let threads {
            guard (1...64).contains(threads) else { throw ValidationError("--threads is from 1 to 64") }
        }
        guard minSamplesPerInterval >= 0 else { throw ValidationError("--min-samples-per-interval is 0 or more") }
    }

    func run() throws {
        guard let from = TimeText.parse(fromTs), let to = TimeText.parse(toTs), let missMax else { throw Exit.failed }
        if from.isNaive || to.isNaive {
            Console.note(
                "note: times without an offset are UTC: \(TimeText.seconds(from.milliseconds)) to \(TimeText.seconds(to.milliseconds))")
        }
        if isAtHub { return try buildAtHub(from: from.milliseconds, to: to.milliseconds) }
        let arguments = DatasetArguments(
            from: from.milliseconds, to: to.milliseconds, intervalSeconds: intervalSec, symbols: symbols, source: source,
            arm: DatasetArguments.Arm(rawValue: arm.rawValue), deadlineMissMax: missMax, ticksMin: minSamplesPerInterval,
            keepsFiltered: keepFiltered, isPerHost: perHost)
        try save(try build(arguments))
    }

    private func buildAtHub(from: Int64, to: Int64) throws {
        var arguments = [
            "from_ms": "\(from)", "to_ms": "\(to)", "interval_sec": "\(intervalSec)", "arm": arm.rawValue,
            "max_deadline_miss": maxDeadlineMiss, "min_samples": "\(minSamplesPerInterval)",
        ]
        if !form.isEmpty { arguments["forms"] = form.map(\.rawValue).joined(separator: ",") }
        if !symbols.isEmpty { arguments["symbols"] = symbols.joined(separator: ",") }
        arguments["source"] = source?.name
        for (name, isOn) in [("per_host", perHost), ("keep_filtered", keepFiltered), ("replace", replace)] where isOn {
            arguments[name] = "true"
        }
        let body = try Console.reporting(output) { () throws(HubFailure) in try hub.body("dataset build", arguments, seconds: 3600) }
        switch output {
        case .json: Console.object(body)
        case .table:
            let names = [
                ("status", "status"), ("dataset", "name"), ("manifest", "manifest"), ("sha256", "sha256"), ("kept", "kept_intervals"),
                ("filtered", "filtered_intervals"), ("rejected lines", "rejected_lines"),
            ]
            Console.fields(names.map { ($0, Listing.Column("", $1).cell(of: body) ?? "-") })
        }
    }

    /// In 1e-9.
    private var missMax: Int64? {
        let ratio = Array(maxDeadlineMiss.utf8).withUnsafeBytes { DecimalText($0)?.exact(places: 9) }
        return ratio.flatMap { (0...1_000_000_000).contains($0) ? $0 : nil }
    }

    private func build(_ arguments: DatasetArguments) throws -> DatasetDocuments {
        let meter = Console.meter("reading feeds")
        defer { Console.meterDone() }
        let reading = DatasetReading(directory: feedsDir, threads: threads ?? ThreadTeam.processors, usesCache: !noCache) {
            meter($0 >> 20, $1 >> 20, "of \($1 >> 20) MiB")
        }
        do throws(DatasetReading.Failure) { return try reading.build(arguments) } catch {
            switch error {
            case .noFiles:
                throw Console.failure(
                    "no feed files of these days in '\(feedsDir)'",
                    hint: "feeds are named like fills_20250101.jsonl, flat or in host=<host> folders",
                    Exit.failed, output)
            case .file(let error): throw Console.failure(error.description, Exit.failed, output)
            case .refused(let refusal): throw explain(refusal)
            }
        }
    }

    private func save(_ documents: DatasetDocuments) throws {
        let saved: DatasetFolder.Saved
        do throws(FileError) {
            saved = try DatasetFolder(path: outputDir).save(documents, forms: Set(form), replaces: replace)
        } catch { throw Console.failure(error.description, Exit.failed, output) }
        guard saved.status != .refused else {
            throw Console.failure(
                "'\(outputDir)/\(saved.name)' exists and has other bytes",
                hint: "the feeds or the options are others than then, or the feeds hold a replay twice; --replace overwrites it",
                Exit.failed, output)
        }
        if documents.keptIntervals == 0 { Console.note("note: every interval was filtered; see --keep-filtered") }
        if documents.rejectedLines > 0 {
            let reasons = documents.rejectedByReason.map { "\($0.lines) \($0.reason)" }.joined(separator: ", ")
            Console.note("warning: \(documents.rejectedLines) lines are no rows (\(reasons)); the manifest lists them")
        }
        report(saved, documents)
    }

    private func report(_ saved: DatasetFolder.Saved, _ documents: DatasetDocuments) {
        let paths = saved.names.map { "\(outputDir)/\($0)" }
        switch output {
        case .table:
            Console.fields(
                [("status", saved.status.rawValue), ("dataset", paths[0])]
                    + paths[1..<paths.count - 1].map { ("", $0) }
                    + [
                        ("manifest", paths[paths.count - 1]), ("sha256", saved.sha256), ("kept", "\(documents.keptIntervals)"),
                        ("filtered", "\(documents.filteredIntervals)"), ("rejected lines", "\(documents.rejectedLines)"),
                    ])
        case .json:
            var json = JSONWriter()
            json.beginObject()
            json.field("status", string: saved.status.rawValue)
            json.field("dataset", string: paths[0])
            json.field("forms", strings: Array(paths[1..<paths.count - 1]))
            json.field("manifest", string: paths[paths.count - 1])
            json.field("sha256", string: saved.sha256)
            json.field("kept_intervals", integer: documents.keptIntervals)
            json.field("filtered_intervals", integer: documents.filteredIntervals)
            json.field("rejected_lines", integer: documents.rejectedLines)
            json.key("rejected")
            json.beginObject()
            for (reason, lines) in documents.rejectedByReason {
                json.key(data: reason)
                json.integer(lines)
            }
            json.endObject()
            json.endObject()
            json.newline()
            Console.data(json.take())
        }
    }

    private func explain(_ refusal: DatasetRefusal) -> ExitCode {
        switch refusal {
        case .mixedForms(let ours, let seed):
            Console.failure(
                "the range mixes rows with 'v' (\(ours)) and rows of the first program's form without it (\(seed))",
                hint: "build them apart: another --feeds-dir or another range", Exit.badSubject, output)
        case .mixedSources(let names):
            Console.failure(
                "the range mixes sources: \(names.joined(separator: ", "))", hint: "choose one with --source \(names[0])", Exit.badSubject,
                output)
        case .noRows:
            Console.failure(
                "no row of the range, symbols, arm and source in '\(feedsDir)'",
                hint: "nothing was written; check --from-ts, --to-ts and --symbols",
                Exit.failed, output)
        }
    }
}
