import ArgumentParser
import CalibModel
import HubCore
import NodeShell
import Wire

struct FeedCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "feed", abstract: "Feeds: the rows datasets are made of.", subcommands: [FeedExportCommand.self])
}

struct FeedExportCommand: ParsableCommand {
    enum Format: String, ExpressibleByArgument, CaseIterable { case parquet }

    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Writes the rows of all hosts and days, or of a range, as one file for each feed.",
        discussion: """
            Every field has its column, members of objects theirs ('features_vol_realized'); 'ts' is a time-stamp in UTC. Lines that are no rows are left \
            out and counted; rows that are there twice come twice. A file of the same name is replaced.

            Exit status: 0 written; 1 there is no row to write, or it cannot be done; 64 usage.
            """)

    private static let names = Feed.allCases.filter(\.isDatasetInput).map(\.rawValue)

    @Option(
        help: ArgumentHelp(
            "A feed, may be given several times. (default: each that has rows)", valueName: Self.names.joined(separator: "|")))
    var feed: [String] = []
    @Option(help: "Form of the files.") var format = Format.parquet
    @Option(help: "Directory of <feed>_YYYYMMDD.jsonl files, flat or in host=<host> folders.") var feedsDir = "artifacts/edge/feeds"
    @Option(help: "Directory the files are written to, named like their feeds.") var outputDir = "artifacts/edge/exports"
    @Option(help: "Begin, inclusive: RFC 3339; without an offset it is UTC. (default: the first row)") var fromTs: String?
    @Option(help: "End, exclusive; written like --from-ts. (default: the last row)") var toTs: String?
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    private struct Export {
        var feed: Feed
        /// Nil when there was no row to write.
        var path: String?
        var rows: Int64
        var rejected: [(reason: String, lines: Int64)]
    }

    private var range: Range<Int64>? {
        guard let from = fromTs.map({ TimeText.parse($0)?.milliseconds }) ?? 0,
            let to = toTs.map({ TimeText.parse($0)?.milliseconds }) ?? RowLimits.timeMax, from >= 0, from < to, to <= RowLimits.timeMax
        else { return nil }
        return from..<to
    }

    func validate() throws {
        for name in feed where !Self.names.contains(name) { throw ValidationError("--feed: '\(name)' is none; see --help") }
        guard range != nil else {
            throw ValidationError("--from-ts and --to-ts are RFC 3339 times between 1970 and 2100, the first one earlier")
        }
    }

    func run() throws {
        guard let range else { throw Exit.failed }
        let wanted = Feed.allCases.filter { $0.isDatasetInput && (feed.isEmpty || feed.contains($0.rawValue)) }
        var exports: [Export] = []
        do throws(FileError) {
            let files = try FeedDirectory.find(in: feedsDir, from: range.lowerBound, to: range.upperBound, parse: Feed.parse)
            try AtomicFile.makeDirectory(outputDir)
            for feed in wanted { exports.append(try export(feed, from: files.filter { $0.feed == feed }, range)) }
        } catch { throw Console.failure(error.description, Exit.failed, output.errors) }
        for export in exports where !export.rejected.isEmpty {
            let reasons = export.rejected.map { "\($0.lines) \($0.reason)" }.joined(separator: ", ")
            Console.note(
                "warning: \(export.rejected.reduce(0) { $0 + $1.lines }) lines of \(export.feed.rawValue) are no rows (\(reasons))")
        }
        guard exports.contains(where: { $0.path != nil }) else {
            throw Console.failure(
                "no row to export in '\(feedsDir)'", hint: "check --feed, --from-ts and --to-ts", Exit.failed, output.errors)
        }
        RecordList<Export>(
            name: "exports",
            columns: [
                .text("feed", \.feed.rawValue), .number("rows", \.rows),
                .number("rejected_lines") { $0.rejected.reduce(0) { $0 + $1.lines } },
                .text("file", \.path),
            ], nothing: "nothing was exported"
        ).print(exports, output)
    }

    private func export(_ feed: Feed, from files: [FeedFile], _ range: Range<Int64>) throws(FileError) -> Export {
        var table = FeedTable(feed, in: range, compress: Gzip.compress)
        let path = "\(outputDir)/\(feed.rawValue).\(format.rawValue)"
        var writer = try AtomicFileWriter(path)
        var failure: FileError?
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        for file in files {
            var cutter = LineCutter()
            try FeedDirectory.read(
                file.path, in: feedsDir, from: 0, through: buffer,
                consume: { bytes, isEnd in
                    var start = 0
                    while let piece = cutter.next(in: bytes, from: &start, isEnd: isEnd) {
                        switch piece {
                        case .line(let line, _, let isTerminated):
                            table.add(line, isTerminated: isTerminated, folderHost: file.host ?? "local")
                        case .tooLong(_, let isTerminated): table.reject(isTerminated ? .tooLong : .tornTail)
                        }
                    }
                    do throws(FileError) { try writer.append(table.take()) } catch { failure = error }
                    return start
                }, isDone: { failure != nil })
            if let failure { throw failure }
        }
        guard table.rows > 0 else { return Export(feed: feed, path: nil, rows: 0, rejected: table.rejectedByReason) }
        try writer.append(table.finish())
        try writer.commit()
        return Export(feed: feed, path: path, rows: table.rows, rejected: table.rejectedByReason)
    }
}
