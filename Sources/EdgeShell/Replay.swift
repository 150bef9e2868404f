import ArgumentParser
import CalibModel
import EdgeCore
import Glibc
import NodeShell
import Wire

/// `edge-node replay`: a recording through the very node that quotes live (SPEC 3.7).
struct Replay: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Replays recorded frames: books, quotes on paper, feeds.",
        discussion: """
            The clock is the recorded receive time, so the same files and configuration give the same quotes_hash. Several inputs are merged by \
            receive time; a file may continue another one of the same symbol. Lines are '<receive unix ns> <frame>', or JSON objects \
            {"t":"recv","conn":NAME,"ts":SECONDS,"data":FRAME} with connect and disconnect between; plain, gzip or zstd.

            --explain-order tells one order's life: when it was sent and accepted, what was ahead of it, every trade and book change that moved \
            its queue, what filled it, how it ended.

            Exit status: 0 done; 1 a file cannot be read or written, or holds no frame; 2 the tick, order or symbol to explain does not exist; \
            64 usage; 78 configuration.
            """)

    @Option(help: "The wire format: \(QuoteNode.Venue.allCases.map(\.rawValue).joined(separator: ", ")).")
    var venue: String

    @Option(
        help: ArgumentHelp(
            "Which connections of a Bybit recording count: linear or spot; bybit with spot is bybit-spot (default: the venue's).",
            valueName: "category"))
    var category: String?

    @Option(help: ArgumentHelp("A recording (plain, gzip or zstd); may be given several times.", valueName: "file"))
    var input: [String]

    @Option(help: ArgumentHelp("Where feeds/ is written (default: artifacts_dir of the configuration, artifacts/edge).", valueName: "dir"))
    var artifacts: String?

    @Flag(help: "Write no feeds.")
    var noFeeds = false

    @Option(
        help: ArgumentHelp(
            "The configuration, such as config/edge.yaml (default: built-in defaults, instruments inferred).", valueName: "file"))
    var config: String?

    @Option(
        help: ArgumentHelp(
            "Overrides one key of the configuration, e.g. spread.base_bps=1.2; may be given several times.", valueName: "key=value"))
    var set: [String] = []

    @Option(
        help: ArgumentHelp(
            "Also print every stage's inputs and outputs of the symbol's n-th tick, counted from 1; needs -o json.", valueName: "n"))
    var explainTick: Int64?

    @Option(
        help: ArgumentHelp(
            """
            Also print the life of one order, by its order_id in a row: R-N. N is the order's number in the run and finds it in every replay of \
            the same input and configuration; R only counts the runs of one directory.
            """, valueName: "R-N"))
    var explainOrder: String?

    @Option(help: "The symbol that --explain-tick means (default: the first one in the recording).")
    var symbol: String?

    @Option(name: .shortAndLong, help: "How the result is printed.")
    var output = OutputForm.table

    enum OutputForm: String, ExpressibleByArgument, CaseIterable { case table, json }

    func validate() throws {
        guard QuoteNode.Venue(rawValue: venue) != nil else {
            throw ValidationError("--venue '\(venue)' is not one of \(QuoteNode.Venue.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        if let category {
            guard BybitCategory(rawValue: category) != nil else {
                throw ValidationError(
                    "--category '\(category)' is not one of \(BybitCategory.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            guard selectedVenue != nil else { throw ValidationError("--category \(category) does not go with --venue \(venue)") }
        }
        guard !input.isEmpty else { throw ValidationError("--input is needed at least once") }
        if let repeated = input.first(where: { path in input.count { $0 == path } > 1 }) {
            throw ValidationError("--input '\(repeated)' is given twice: its messages would count twice")
        }
        if let explainTick, explainTick < 1 { throw ValidationError("--explain-tick \(explainTick): ticks count from 1") }
        if explainTick != nil, output != .json { throw ValidationError("--explain-tick needs --output json") }
        if let explainOrder, Self.orderNumber(explainOrder) == nil {
            throw ValidationError("--explain-order '\(explainOrder)' is not an order_id: R-N, such as 1-57")
        }
        if symbol != nil, explainTick == nil { throw ValidationError("--symbol says which symbol --explain-tick means; it needs one") }
        if noFeeds, artifacts != nil { throw ValidationError("--no-feeds and --artifacts exclude each other") }
    }

    func run() throws {
        let configuration = try loadOrExit(file: config, overrides: set)
        do {
            try replay(configuration)
        } catch let error as FileError {
            printError("edge-node replay: \(error)")
            throw ExitCode.failure
        }
    }

    /// N of `R-N`; nil when the text is not of that form.
    private static func orderNumber(_ id: String) -> Int64? {
        let parts = id.split(separator: "-", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, let run = Int64(parts[0]), run > 0, let number = Int64(parts[1]), (1...0xffff_ffff).contains(number)
        else { return nil }
        return number
    }

    /// `--venue` and `--category` together; nil when they contradict each other.
    private var selectedVenue: QuoteNode.Venue? {
        let named = QuoteNode.Venue(rawValue: venue)
        guard let category, named?.category?.rawValue != category else { return named }
        return named == .bybit && category == BybitCategory.spot.rawValue ? .bybitSpot : nil
    }

    // MARK: Steps

    private func replay(_ configuration: EdgeConfiguration) throws {
        let venue = selectedVenue!  // Checked by validate().
        let streams = try RecordedStream.list(input, category: venue.category)
        let instruments = try instruments(of: venue, streams, configuration.instruments[venue.rawValue] ?? [])
        guard !instruments.isEmpty else {
            printError("edge-node replay: no frame of any symbol in \(input.joined(separator: ", ")); is --venue \(venue.rawValue) right?")
            throw ExitCode.failure
        }
        let inferred = instruments.filter(\.isInferred).map(\.symbol)
        if !inferred.isEmpty { printError("note: tick and lot of \(inferred.joined(separator: ", ")) are inferred from the recording") }
        var explained: SymbolIndex = 0
        if let symbol {
            guard let index = instruments.firstIndex(where: { $0.symbol == symbol }) else {
                printError(
                    "edge-node replay: --symbol \(symbol) is not in the recording; \(instruments.map(\.symbol).joined(separator: ", ")) are"
                )
                throw ExitCode.badSubject
            }
            explained = SymbolIndex(index)
        }

        let sink = try FeedSink(
            directory: noFeeds ? nil : artifacts ?? configuration.artifactsDirectory, venue: venue.rawValue, configuration: configuration,
            instruments: instruments)
        var node = QuoteNode(
            venue: venue, instruments: instruments, parameters: configuration.parameters(for: venue.rawValue),
            configHash: configuration.hash(for: venue.rawValue), isRecorded: true, connections: streams.count, runNumber: sink.runNumber,
            firstFillID: sink.firstFillID, outboxes: sink.makeOutboxes(),
            clock: StopClock(monotonicNanoseconds))
        node.shared.explainTick = explainTick
        node.shared.explainSymbol = explained
        node.shared.story = explainOrder.flatMap(Self.orderNumber).map { OrderStory(number: $0) }

        let startedAt = monotonicNanoseconds()
        let recording = try Recording(streams)
        let span = try feed(recording, to: &node, sink)
        while !node.finish() { try sink.makeRoom(&node.shared.outboxes) }
        let elapsed = monotonicNanoseconds() - startedAt
        let statistics = try sink.finish(&node.shared.outboxes)

        if explainTick != nil, node.shared.explanation == nil {
            printError(
                "edge-node replay: tick \(explainTick!) was not reached; the run had \(node.withSymbol(Int(explained)) { $0.counts.ticks })"
            )
            throw ExitCode.badSubject
        }
        if let explainOrder, node.shared.story?.order == nil {
            printError("edge-node replay: order \(explainOrder) was not sent; the run sent \(node.shared.orderNumber) orders")
            throw ExitCode.badSubject
        }
        let summary = RunSummary(
            span: span, wallNanoseconds: elapsed, oversizedLines: recording.oversizedLines, feeds: statistics, directory: sink.directory)
        switch output {
        case .json: print(summary.json(node))
        case .table: print(summary.table(node))
        }
        for index in 0..<node.symbolCount where !node.withSymbol(index, { $0.isProven }) {
            let (name, counts) = node.withSymbol(index) { ($0.instrument.symbol, $0.counts) }
            printError(
                counts.ticks == 0
                    ? "warning: the book of \(name) was never proven; is --venue \(venue.rawValue) right, and does the recording hold a snapshot?"
                    : "warning: the book of \(name) is not proven at the end; after a gap nothing is quoted until the recording's next snapshot"
            )
        }
        if node.rejected(.unknownSymbol) > 0 {
            printError("note: \(node.rejected(.unknownSymbol)) frames of symbols that only appear late in the recording were not used")
        }
    }

    /// Feeds every line in the order of time; returns the first and the last receive time.
    private func feed(_ recording: Recording, to node: inout QuoteNode, _ sink: FeedSink) throws -> (first: WallTime, last: WallTime)? {
        var span: (first: WallTime, last: WallTime)?
        var progress = Progress()
        while let index = recording.next() {
            let source = recording.sources[index]
            try sink.makeRoom(&node.shared.outboxes)
            switch source.head {
            case .frame(let recorded):
                span = (span?.first ?? recorded.wall, recorded.wall)
                node.frame(recorded.frame, on: index, at: source.moment)
            case .otherFrame: node.otherFrame()
            case .connected: node.connected(index, at: source.moment)
            case .disconnected: node.disconnected(index, at: source.moment)
            case .badLine: node.badLine()
            case .end: break
            }
            sink.publish(&node.shared.outboxes)
            progress.report(node.messages)
            try source.advance()
        }
        progress.clear()
        return span
    }

    /// The instruments of the symbols in the recording: configured ones, the others inferred.
    ///
    /// A first look at the beginning of every stream tells the symbols; only when one of them is not configured the whole is read for its
    /// finest decimal step.
    private func instruments(of venue: QuoteNode.Venue, _ streams: [RecordedStream], _ configured: [Instrument]) throws -> [Instrument] {
        var scan = try scan(venue, streams, linesMax: 2000)
        let known = Dictionary(configured.map { ($0.symbol, $0) }) { first, _ in first }
        if scan.symbols.contains(where: { known[$0] == nil }) || scan.symbols.isEmpty {
            scan = try self.scan(venue, streams, linesMax: .max)
        }
        return scan.instruments().prefix(Limits.symbolsMax).map { known[$0.symbol] ?? $0 }
    }

    private func scan(_ venue: QuoteNode.Venue, _ streams: [RecordedStream], linesMax: Int) throws -> InstrumentScan {
        var scan = InstrumentScan(venue: venue, connections: streams.count)
        for (index, stream) in streams.enumerated() {
            let source = try RecordingSource(stream)
            var lines = 0
            while source.time != nil, lines < linesMax {
                if case .frame(let recorded) = source.head {
                    scan.frame(recorded.frame, on: index)
                }
                lines += 1
                try source.advance()
            }
        }
        return scan
    }
}

/// Feeds on disk, or nowhere.
struct FeedSink {
    let directory: String?
    private let spool: FeedSpool?
    private let memory: OutboxMemory?

    init(directory: String?, venue: String, configuration: EdgeConfiguration, instruments: [Instrument]) throws(FileError) {
        self.directory = directory
        guard let directory else {
            spool = nil
            memory = OutboxMemory()
            return
        }
        let spool = try FeedSpool(
            directory: directory, source: "replay", venue: venue, host: configuration.host, instruments: instruments)
        if spool.existingRows {
            printError("note: \(directory)/feeds already holds rows; this replay appends to them, and a dataset over both counts both")
        }
        self.spool = spool
        memory = nil
    }

    var runNumber: Int64 { spool?.runNumber ?? 1 }
    var firstFillID: Int64 { spool?.firstFillID ?? 1 }

    func makeOutboxes() -> Outboxes { spool?.makeOutboxes() ?? memory!.makeOutboxes() }

    /// A replay is not in a hurry: it waits for the writer instead of dropping rows.
    func makeRoom(_ outboxes: inout Outboxes) throws(FileError) {
        try spool?.waitForRoom(&outboxes, records: SharedState.recordsPerFrame)
    }

    func publish(_ outboxes: inout Outboxes) {
        spool?.publish(&outboxes)
        memory?.discard(&outboxes)
    }

    func finish(_ outboxes: inout Outboxes) throws(FileError) -> FeedStatistics? { try spool?.finish(&outboxes) }
}

/// A line on the terminal while a long replay runs.
private struct Progress {
    private let isOn = isatty(2) == 1
    private var nextAt: Int64 = 0

    mutating func report(_ messages: Int64) {
        guard isOn, messages & 0x3fff == 0, monotonicNanoseconds() >= nextAt else { return }
        nextAt = monotonicNanoseconds() + 200_000_000
        printError("\r\(messages) messages", terminator: "")
    }

    func clear() {
        if isOn { printError("\r\u{1B}[K", terminator: "") }
    }
}

func monotonicNanoseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// A small text file, or nil when it cannot be read or is not UTF-8.
func readText(_ path: String) -> String? {
    guard let bytes = try? AtomicFile.read(path) else { return nil }
    return String(validating: bytes, as: UTF8.self)
}

func printError(_ text: String, terminator: String = "\n") {
    var bytes = Array((text + terminator).utf8)
    _ = write(2, &bytes, bytes.count)
}
