import ArgumentParser
import EdgeCore
import Glibc
import NodeShell

/// `edge-node kill`: the kill switch on the host, which needs neither the hub nor a running edge (SPEC 10.1).
struct Kill: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Cancels everything and quotes no more, or lifts that.",
        discussion: """
            Appends one row to kills.jsonl in artifacts_dir. A running edge obeys within 20 ms; one that is down starts killed. A kill is lifted by a \
            release of the same scope only: the host's, or one symbol's.

            Exit status: 0 recorded; 1 the file cannot be written; 2 the edge does not quote that symbol; 64 usage; 78 configuration.
            """)

    @Flag(help: "Lift the kill instead.")
    var release = false

    @Option(help: "Only this symbol (default: the whole host).")
    var symbol: String?

    @Option(help: "Why; it stays in the record.")
    var reason: String

    @Option(help: ArgumentHelp("The edge's configuration.", valueName: "file"))
    var config: String

    @Option(help: ArgumentHelp("Overrides one key of the configuration; may be given several times.", valueName: "key=value"))
    var set: [String] = []

    func validate() throws {
        if reason.allSatisfy(\.isWhitespace) { throw ValidationError("--reason must say why") }
    }

    func run() throws {
        let configuration = try loadOrExit(file: config, overrides: set)
        if let symbol, !configuration.venue.symbols.contains(symbol) {
            printError("edge-node kill: \(symbol) is not among venue.symbols: \(configuration.venue.symbols.joined(separator: ", "))")
            throw ExitCode.badSubject
        }
        let directory = configuration.artifactsDirectory
        let file = ControlFile(kills: directory + "/kills.jsonl")
        let record = KillRecord(
            milliseconds: SystemClock.wall().milliseconds, action: release ? .release : .kill, symbol: symbol, by: "local:uid=\(getuid())",
            reason: reason)
        do {
            try AtomicFile.makeDirectory(directory)
            // The file first: a crash in between leaves the host killed.
            if release, symbol == nil { try AtomicFile.remove(directory + "/KILL") }
            _ = try file.append(record.line)
        } catch {
            printError("edge-node kill: \(error)")
            throw ExitCode.failure
        }
        print("\(release ? "released" : "killed"): \(symbol ?? "all of \(configuration.host)"); recorded in \(file.path)")
    }
}
