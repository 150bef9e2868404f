import ArgumentParser
import Glibc
import NodeShell
import Wire

/// A document of the hub, brought here whole or not at all.
struct PulledDocument {
    var name: String
    var path: String
    var bytes: Int
    var sha256: String
    var status: AtomicFile.Placement

    /// Asks, checks the bytes against the hub's digest, and writes them at once. What came before a try failed is kept in `.NAME.part`, and the next one
    /// goes on behind it.
    static func pull(_ verb: String, _ name: String, to directory: String, replaces: Bool, _ hub: HubOptions) throws(HubFailure)
        -> PulledDocument
    {
        defer { Console.meterDone() }
        let part = PartFile(path: "\(directory)/.\(name).part")
        let held = part.bytes
        var arguments = ["name": name]
        if !held.isEmpty {
            arguments["offset"] = "\(held.count)"
            arguments["sha256"] = Digest.sha256(held)
        }
        let answer: HubAnswer
        do throws(HubFailure) {
            answer = try HubClient.ask(
                verb, arguments, of: try hub.target(), seconds: hub.timeout ?? 600, held: held, keep: { part.keep($0, at: $1) },
                progress: Console.meter(verb))
        } catch {
            // A hub of an earlier version knows nothing of going on.
            guard !held.isEmpty, error.exit == ExitCode.validationFailure else { throw error }
            part.remove()
            return try pull(verb, name, to: directory, replaces: replaces, hub)
        }
        // Whatever comes of it, it came whole.
        part.remove()
        guard let given = answer.body["name"]?.string, let count = answer.body["bytes"]?.integer, let sha256 = answer.body["sha256"]?.string
        else { throw HubFailure("the hub's answer to '\(verb)' lacks name, bytes or sha256", Exit.failed) }
        // The name becomes a file here: it is the one asked for, and no path.
        guard given == name || given.hasPrefix(name + "."), !given.contains("/"), !given.hasPrefix(".") else {
            throw HubFailure("the hub answered with '\(given)' instead of '\(name)'", Exit.failed)
        }
        guard count == answer.bytes.count, Digest.sha256(answer.bytes) == sha256 else {
            throw HubFailure(
                "'\(given)' was damaged on the way: its bytes do not have the hub's sha256", hint: "nothing was written; try again",
                Exit.failed)
        }
        var document = PulledDocument(
            name: given, path: "\(directory)/\(given)", bytes: answer.bytes.count, sha256: sha256, status: .written)
        do throws(FileError) {
            try AtomicFile.makeDirectory(directory)
            document.status = try AtomicFile.place(answer.bytes, at: document.path, replaces: replaces)
        } catch { throw HubFailure(error.description, Exit.failed) }
        guard document.status != .refused else {
            throw HubFailure("'\(document.path)' exists and has other bytes", hint: "--replace overwrites it", Exit.failed)
        }
        return document
    }

    func print(_ form: OutputForm) {
        switch form {
        case .table: Console.fields([("status", status.rawValue), ("file", path), ("bytes", "\(bytes)"), ("sha256", sha256)])
        case .json:
            var json = JSONWriter()
            json.beginObject()
            json.field("status", string: status.rawValue)
            json.field("name", string: name)
            json.field("file", string: path)
            json.field("bytes", integer: bytes)
            json.field("sha256", string: sha256)
            json.endObject()
            json.newline()
            Console.data(json.take())
        }
    }

    static func check(name: String) throws {
        guard !name.isEmpty, !name.contains("/"), !name.hasPrefix(".") else {
            throw ValidationError("'\(name)' is no name of a document; see the list command")
        }
    }
}

/// The beginning of a document on its way. Without a place to write to, nothing is kept.
private struct PartFile: Sendable {
    var path: String

    var bytes: [UInt8] { ((try? AtomicFile.read(path)) ?? nil) ?? [] }

    func keep(_ payload: [UInt8], at offset: Int64) {
        if offset == 0 {
            try? AtomicFile.makeDirectory(path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/"))
        }
        let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard file >= 0 else { return }
        defer { close(file) }
        // What is left behind by a longer document that came before must not stay.
        guard ftruncate(file, off_t(offset)) == 0 else { return }
        _ = payload.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, off_t(offset)) }
    }

    func remove() { unlink(path) }
}

extension Console {
    /// One name and value a line.
    static func fields(_ fields: [(String, String)]) {
        for (name, value) in fields {
            data(Array((name + String(repeating: " ", count: max(1, 16 - name.count)) + printable(value) + "\n").utf8))
        }
    }
}

private let documentColumns: [Listing.Column] = [
    .init("NAME", "name"), .init("BYTES", "bytes", .number), .init("SHA256", "sha256"),
]

/// What the hub builds and keeps, and a person lists and pulls.
protocol DocumentKind {
    static var noun: String { get }
}

enum DatasetDocument: DocumentKind { static let noun = "dataset" }
enum ReportDocument: DocumentKind { static let noun = "report" }

struct DocumentListCommand<Kind: DocumentKind>: ParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "list", abstract: "\(Kind.noun.capitalized)s at the hub.")
    }

    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("\(Kind.noun) list") }
        let rows = body["\(Kind.noun)s"]?.array ?? []
        Console.list(body, Listing(columns: documentColumns, rows: rows), output, nothing: "no \(Kind.noun)s")
    }
}

struct DocumentPullCommand<Kind: DocumentKind>: ParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: "pull", abstract: "Brings a \(Kind.noun) from the hub, checked by its sha256.",
            discussion: """
                The file appears whole or not at all. Equal bytes are left alone ('unchanged'), other bytes need --replace. When the hub is lost on the \
                way, the same command goes on where it stopped.
                """)
    }

    @Argument(help: "Its name, as '\(Kind.noun) list' shows it.") var name: String
    @Option(help: "Directory it is written to, relative to the working directory.") var outputDir = "artifacts/edge/\(Kind.noun)s"
    @Flag(help: "Replace a file of the same name that has other bytes.") var replace = false
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: OutputForm = .table

    func validate() throws { try PulledDocument.check(name: name) }

    func run() throws {
        let document = try Console.reporting(output) { () throws(HubFailure) in
            try PulledDocument.pull("\(Kind.noun) pull", name, to: outputDir, replaces: replace, hub)
        }
        document.print(output)
    }
}

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Reports on experiments and datasets.",
        subcommands: [
            ReportBuildCommand.self, DocumentListCommand<ReportDocument>.self,
            DocumentPullCommand<ReportDocument>.self,
        ])
}

struct ReportBuildCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build", abstract: "Has the hub write ab_run_{run_id}.md about an experiment, or calib_summary_{dataset}.md.")

    @Option(help: "An experiment's id.") var experiment: String?
    @Option(help: "A dataset's name.") var dataset: String?
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: OutputForm = .table

    func validate() throws {
        guard (experiment == nil) != (dataset == nil) else { throw ValidationError("give either --experiment or --dataset") }
    }

    func run() throws {
        var arguments: [String: String] = [:]
        arguments["experiment"] = experiment
        arguments["dataset"] = dataset
        let body = try Console.reporting(output) { () throws(HubFailure) in try hub.body("report build", arguments, seconds: 600) }
        switch output {
        case .table: Console.data(Array("\(Console.printable(body["name"]?.string ?? "-"))\n".utf8))
        case .json: Console.object(body)
        }
    }
}
