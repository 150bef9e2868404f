import ArgumentParser
import CalibModel
import Wire

struct ExperimentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "experiment", abstract: "A/B tests of quoting parameters.",
        subcommands: [
            ExperimentCreateCommand.self, ExperimentListCommand.self, ExperimentShowCommand.self, ExperimentRollbackCommand.self,
            ExperimentStopCommand.self, ExperimentPowerCommand.self,
        ])

    static let columns: [Listing.Column] = [
        .init("EXPERIMENT", "id"), .init("STATE", "state"), .init("DESIGN", "design"), .init("MODE", "mode"),
        .init("SPLIT", "split", .number), .init("A", "symbols_a", .count), .init("B", "symbols_b", .count),
        .init("CREATED", "created_ms", .time), .init("CHANGED", "changed_ms", .time), .init("BY", "by"), .init("REASON", "reason"),
    ]
}

struct ExperimentCreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Starts an experiment: some symbols on B, the candidate's parameters.")

    @Option(help: "Letters, digits, '-', '_' and '.', at most 24; made by the hub when absent.") var id: String?
    @Option(help: "Share of the symbols that play B, 0 to 1 (0.5 is half of them).") var split: String
    @Option(parsing: .upToNextOption, help: "Symbols that take part, separated by spaces; every symbol of the fleet when absent.")
    var symbols: [String] = []
    @Option(
        parsing: .upToNextOption, help: "B's parameters as KEY=VALUE, separated by spaces; keys as in config/edge.yaml.")
    var candidate: [String]
    @Option(help: "Why; it is kept for ever.") var reason: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func validate() throws {
        if let id, !ExperimentSpec.isID(id) { throw ValidationError("--id is 1 to 24 letters, digits, '-', '_' and '.'") }
        let share = Array(split.utf8).withUnsafeBytes { DecimalText($0)?.exact(places: 6) }
        guard let share, (0...1_000_000).contains(share) else { throw ValidationError("--split is a ratio from 0 to 1, such as 0.5") }
        for pair in candidate.flatMap({ $0.split(separator: ",") }) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
                throw ValidationError("--candidate: '\(pair)' is no KEY=VALUE, such as spread.base_bps=1.4")
            }
        }
        try Reason.check(reason)
    }

    func run() throws {
        var arguments = ["split": split, "candidate": candidate.joined(separator: ","), "reason": reason]
        arguments["id"] = id
        if !symbols.isEmpty { arguments["symbols"] = symbols.joined(separator: ",") }
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("experiment create", arguments) }
        let rows = body["experiment"].map { [$0] } ?? []
        Console.list(body, Listing(columns: ExperimentCommand.columns, rows: rows), output, nothing: "done")
    }
}

struct ExperimentListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "Every experiment the hub knows.")

    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("experiment list") }
        let listing = Listing(columns: ExperimentCommand.columns, rows: body["experiments"]?.array ?? [])
        Console.list(body, listing, output, nothing: "no experiments")
    }
}

struct ExperimentShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "One experiment: its hosts, the arm each symbol should play and plays, its commands.")

    @Argument(help: "The experiment's id.") var id: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed; csv and jsonl give the symbols' arms.") var output: ListForm = .table

    private static let armColumns: [Listing.Column] = [
        .init("HOST", "host"), .init("STATE", "state"), .init("SYMBOL", "symbol"), .init("INTENDED", "intended"),
        .init("REPORTED", "reported"), .init("WHY", "why"),
    ]

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("experiment show", ["id": id]) }
        let arms = Listing(columns: Self.armColumns, rows: Self.arms(body["hosts"]?.array ?? []))
        guard output == .table else { return Console.list(body, arms, output, nothing: "") }
        let experiment = Listing(columns: ExperimentCommand.columns, rows: body["experiment"].map { [$0] } ?? [])
        let commands = Listing(columns: CommandCommand.columns, rows: Listing.perHost(body["commands"]?.array ?? []))
        let tables = [experiment, arms, commands].filter { !$0.rows.isEmpty }.map(\.table)
        Console.data(Array(tables.joined(separator: "\n").utf8))
    }

    /// One row per host and symbol.
    private static func arms(_ hosts: [JSONValue]) -> [JSONValue] {
        hosts.flatMap { host in
            (host["arms"]?.array ?? []).map { arm in
                .object((host.members ?? []).filter { $0.name == "host" || $0.name == "state" } + (arm.members ?? []))
            }
        }
    }
}

struct ExperimentRollbackCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback", abstract: "Takes an experiment back: B's orders are cancelled, everything quotes as A, for ever.",
        discussion: """
            Waits until every host has it latched: on its disk, so that a restart does not undo it. Exit status 3 when one has not by then; the \
            hub goes on trying, and a host that is away ends B by itself with its lease.
            """)

    @Argument(help: "The experiment's id.") var id: String
    @Option(help: "Why; it is kept for ever.") var reason: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func validate() throws { try Reason.check(reason) }

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in
            try hub.order("experiment rollback", ["id": id, "reason": reason])
        }
        CommandCommand.show(body, output)
    }
}

struct ExperimentStopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop", abstract: "Ends an experiment without a verdict: leases are not renewed, everything quotes as A.")

    @Argument(help: "The experiment's id.") var id: String
    @Option(help: "Why; it is kept for ever.") var reason: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func validate() throws { try Reason.check(reason) }

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in
            try hub.body("experiment stop", ["id": id, "reason": reason])
        }
        let rows = body["experiment"].map { [$0] } ?? []
        Console.list(body, Listing(columns: ExperimentCommand.columns, rows: rows), output, nothing: "done")
    }
}
