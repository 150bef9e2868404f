import ArgumentParser
import CalibModel
import HubCore
import Wire

struct ExperimentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "experiment", abstract: "A/B tests of quoting parameters.",
        subcommands: [
            ExperimentCreateCommand.self, ExperimentStartCommand.self, ExperimentListCommand.self, ExperimentGetCommand.self,
            ExperimentPauseCommand.self, ExperimentRollbackCommand.self, ExperimentPromoteCommand.self, ExperimentStopCommand.self,
            ExperimentPowerCommand.self,
        ])

    static let columns: [Listing.Column] = [
        .init("EXPERIMENT", "id"), .init("STATE", "state"), .init("DESIGN", "design"), .init("MODE", "mode"),
        .init("SPLIT", "split", .number), .init("A", "symbols_a", .count), .init("B", "symbols_b", .count),
        .init("CREATED", "created_ms", .time), .init("CHANGED", "changed_ms", .time), .init("VERDICT", "verdict"), .init("BY", "by"),
        .init("REASON", "reason"),
    ]

    /// The experiment an action brought to another state.
    static func show(_ body: JSONValue, _ output: ListForm) {
        let rows = body["experiment"].map { [$0] } ?? []
        Console.list(body, Listing(columns: columns, rows: rows), output, nothing: "done")
    }
}

struct ExperimentCreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Makes an experiment, as a draft: nobody plays it before it is started.",
        discussion: """
            switchback (the default): time is cut into pairs of blocks, and in each pair every symbol plays A in one half and B in the other, as a \
            coin says. It alone has sequential gates. symbol: some symbols play B for good. host_symbol: some hosts do, symbol by symbol; for \
            what concerns the host only, such as latency.
            """)

    @Option(help: "Letters, digits, '-', '_' and '.', at most 24; made by the hub when absent.") var id: String?
    @Option(help: "switchback, symbol or host_symbol.") var design = "switchback"
    @Option(help: "symbol, host_symbol: share that plays B, 0 to 1; half of them when absent.") var split: String?
    @Option(help: "switchback: a block's seconds, a multiple of 10; 300 when absent.") var blockSec: Int?
    @Option(help: "switchback: seconds left out at the beginning of each block; 30 when absent.") var washoutSec: Int?
    @Option(help: "switchback: groups of symbols begin up to so many seconds after each other.") var jitterSec: Int?
    @Option(help: "switchback: share of the groups that takes part from a pair on, PAIR:SHARE,PAIR:SHARE; all of them when absent.")
    var ramp: String?
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
        guard let design = ExperimentSpec.Design(rawValue: design) else {
            throw ValidationError("--design is switchback, symbol or host_symbol")
        }
        if let split {
            let share = Array(split.utf8).withUnsafeBytes { DecimalText($0)?.exact(places: 6) }
            guard let share, (0...1_000_000).contains(share) else { throw ValidationError("--split is a ratio from 0 to 1, such as 0.5") }
            guard design != .switchback else { throw ValidationError("a switchback gives B one half of every pair: it takes no --split") }
        }
        if design != .switchback, blockSec != nil || washoutSec != nil || jitterSec != nil || ramp != nil {
            throw ValidationError("--block-sec, --washout-sec, --jitter-sec and --ramp are a switchback's")
        }
        for pair in candidate.flatMap({ $0.split(separator: ",") }) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
                throw ValidationError("--candidate: '\(pair)' is no KEY=VALUE, such as spread.base_bps=1.4")
            }
        }
        try Reason.check(reason)
    }

    func run() throws {
        var arguments = ["design": design, "candidate": candidate.joined(separator: ","), "reason": reason]
        arguments["id"] = id
        arguments["split"] = split
        arguments["block_sec"] = blockSec.map { "\($0)" }
        arguments["washout_sec"] = washoutSec.map { "\($0)" }
        arguments["jitter_sec"] = jitterSec.map { "\($0)" }
        arguments["ramp"] = ramp
        if !symbols.isEmpty { arguments["symbols"] = symbols.joined(separator: ",") }
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("experiment create", arguments) }
        ExperimentCommand.show(body, output)
    }
}

/// What every action on one experiment takes.
struct ExperimentAction: ParsableArguments {
    @Argument(help: "The experiment's id.") var id: String
    @Option(help: "Why; it is kept for ever.") var reason: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func validate() throws { try Reason.check(reason) }

    @discardableResult func perform(_ verb: String, _ more: [String: String] = [:]) throws -> JSONValue {
        let arguments = ["id": id, "reason": reason].merging(more) { old, _ in old }
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body(verb, arguments) }
        ExperimentCommand.show(body, output)
        return body
    }
}

struct ExperimentStartCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "start", abstract: "Puts a draft online, or lets a paused experiment go on.",
        discussion: """
            A switchback begins at the next ten seconds, or, when the hub holds less than six pairs of blocks of arm A, once there are so many. \
            A paused one goes on with its schedule; hosts join at the next pair. dry: both arms decide on every tick, only A's quotes leave; the \
            venue's connections are renewed once for it.
            """)
    @Option(help: "online or dry.") var mode = "online"
    @OptionGroup var action: ExperimentAction

    func validate() throws {
        guard ExperimentSpec.Mode(rawValue: mode) != nil else { throw ValidationError("--mode is online or dry") }
    }

    func run() throws { try action.perform("experiment start", ["mode": mode]) }
}

struct ExperimentPauseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Everything quotes as A until the experiment is started again; its pairs meanwhile do not count.")
    @OptionGroup var action: ExperimentAction
    func run() throws { try action.perform("experiment pause") }
}

struct ExperimentPromoteCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "promote", abstract: "Ends an experiment that passed; the answer names the keys to put into config/edge.yaml.",
        discussion:
            "Only with the verdict PASS, and only by an operator who did not bring it there. Exit status 2 without PASS, 4 for the same operator."
    )
    @OptionGroup var action: ExperimentAction
    func run() throws {
        let body = try action.perform("experiment promote")
        for override in body["experiment"]?["candidate"]?.members ?? [] {
            Console.note("\(Console.printable(override.name)): \(Console.printable(override.value.string ?? ""))")
        }
    }
}

struct ExperimentStopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop", abstract: "Ends an experiment without a verdict: leases are not renewed, everything quotes as A.")
    @OptionGroup var action: ExperimentAction
    func run() throws { try action.perform("experiment stop") }
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

struct ExperimentGetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "One experiment: its gates, its hosts, the arm each symbol should play and plays, its commands.")

    @Argument(help: "The experiment's id.") var id: String
    @Flag(help: "Again each second until it has ended: redrawn on a terminal, a JSON line for each change elsewhere.") var watch = false
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed; csv and jsonl give the symbols' arms.") var output: ListForm = .table

    private static let armColumns: [Listing.Column] = [
        .init("HOST", "host"), .init("STATE", "state"), .init("SYMBOL", "symbol"), .init("INTENDED", "intended"),
        .init("REPORTED", "reported"), .init("WHY", "why"),
    ]
    private static let changeColumns: [Listing.Column] = [
        .init("WHEN", "ts", .time), .init("STATE", "state"), .init("BY", "by"), .init("REASON", "reason"),
    ]

    func run() throws {
        guard watch else { return show(try body()) }
        try Watching.redraw(seconds: 1) {
            let body = try self.body()
            return (body, Self.tables(body), !ExperimentState.isOver(body["state"]?.string))
        }
    }

    private func body() throws -> JSONValue {
        try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("experiment get", ["id": id]) }
    }

    private func show(_ body: JSONValue) {
        guard output == .table else {
            return Console.list(
                body, Listing(columns: Self.armColumns, rows: Self.arms(body["hosts"]?.array ?? [])), output, nothing: "")
        }
        Console.data(Array(Self.tables(body).utf8))
    }

    private static func tables(_ body: JSONValue) -> String {
        [
            Listing(columns: ExperimentCommand.columns, rows: body["experiment"].map { [$0] } ?? []),
            Listing(columns: GateCommand.columns, rows: GateCommand.rows(body["gates"]?.array ?? [])),
            Listing(columns: armColumns, rows: arms(body["hosts"]?.array ?? [])),
            Listing(columns: CommandCommand.columns, rows: Listing.perHost(body["commands"]?.array ?? [])),
            Listing(columns: changeColumns, rows: body["changes"]?.array ?? []),
        ].filter { !$0.rows.isEmpty }.map(\.table).joined(separator: "\n")
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

enum ExperimentState {
    static func isOver(_ state: String?) -> Bool { state.flatMap(Experiment.State.init)?.isOver == true }
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
