import ArgumentParser
import Wire

struct HostCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "host", abstract: "Trading hosts.", subcommands: [HostListCommand.self])
}

struct HostListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "Every host the hub knows, and what it does now.")

    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    private static let columns: [Listing.Column] = [
        .init("HOST", "host"), .init("STATE", "state"), .init("LAST SEEN", "last_seen_ms", .time), .init("SOURCE", "source"),
        .init("VENUE", "venue"), .init("SYMBOLS", "symbols", .names), .init("REVISION", "revision"),
        .init("BACKLOG", "backlog_bytes", .number), .init("CLOCK OFF MS", "clock_offset_ms", .number), .init("KILLED", "killed", .flag),
        .init("EXPERIMENT", "experiment"),
        .init("LEASE UNTIL", "lease_expires_ms", .time), .init("FILES", "files", .count), .init("FORKS", "forks", .count),
    ]

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("host list") }
        Console.list(body, Listing(columns: Self.columns, rows: body["hosts"]?.array ?? []), output, nothing: "no hosts")
    }
}

struct CommandCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "command", abstract: "Commands to the fleet and what became of them.", subcommands: [CommandListCommand.self])

    /// One row per host of a command.
    static let columns: [Listing.Column] = [
        .init("COMMAND", "command"), .init("KIND", "kind"), .init("SCOPE", "scope"), .init("ISSUED", "issued_ms", .time),
        .init("HOST", "host"), .init("STATE", "state"), .init("APPLIED (ms)", "applied_latency_ms", .number),
        .init("LATCHED (ms)", "latched_latency_ms", .number), .init("CANCELLED", "cancelled_orders", .number), .init("BY", "by"),
        .init("REASON", "reason"),
    ]

    /// Decided, sent, applied, latched: when.
    static let watchedColumns: [Listing.Column] = [
        .init("COMMAND", "command"), .init("SCOPE", "scope"), .init("HOST", "host"), .init("STATE", "state"),
        .init("DECIDED", "issued_ms", .time), .init("SENT", "sent_ms", .time), .init("APPLIED", "applied_ms", .time),
        .init("LATCHED", "latched_ms", .time), .init("SAFE AT", "safe_at_ms", .time),
    ]

    /// Of one command, whose id stands above.
    static let hostColumns: [Listing.Column] = [
        .init("HOST", "host"), .init("STATE", "state"), .init("APPLIED (ms)", "applied_latency_ms", .number),
        .init("LATCHED (ms)", "latched_latency_ms", .number), .init("CANCELLED", "cancelled_orders", .number),
        .init("SAFE AT", "safe_at_ms", .time), .init("TEXT", "text"),
    ]

    /// What became of a command that was waited for.
    static func show(_ body: JSONValue, _ form: ListForm) {
        if form == .table, let id = body["command"]?.string { Console.note("command \(Console.printable(id))") }
        let listing = Listing(columns: hostColumns, rows: body["hosts"]?.array ?? [])
        Console.list(body, listing, form, nothing: "no host is concerned")
    }
}

struct CommandListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Rollbacks, kills, releases and parameters, and each host's answer with its latency.")

    @Flag(help: "Again each second until interrupted: redrawn on a terminal, a JSON line for each change elsewhere.") var watch = false
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() throws {
        guard !watch else {
            return try Watching.redraw(seconds: 1) {
                let body = try self.body()
                let rows = Listing.perHost(body["commands"]?.array ?? [])
                return (body, Listing(columns: CommandCommand.watchedColumns, rows: rows).table, true)
            }
        }
        let body = try body()
        let commands = body["commands"]?.array ?? []
        let rows = output == .jsonl ? commands : Listing.perHost(commands)
        Console.list(body, Listing(columns: CommandCommand.columns, rows: rows), output, nothing: "no commands")
    }

    private func body() throws -> JSONValue {
        try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("command list") }
    }
}

struct KillCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kill", abstract: "Cancels all orders and stops quoting, until it is released.",
        discussion: """
            Waits until every host has it latched: on its disk, so that a restart does not undo it. Exit status 3 when one has not by then; the \
            hub goes on trying. A release is given by another operator than the kill.
            """)

    @Option(help: "One host.") var host: String?
    @Option(help: "One symbol, on every host or with --host on that one.") var symbol: String?
    @Flag(help: "The whole fleet.") var all = false
    @Flag(help: "Ends the kill of the same scope.") var release = false
    @Option(help: "Why; it is kept for ever.") var reason: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func validate() throws {
        guard all != (host != nil || symbol != nil) else { throw ValidationError("give --host, --symbol or both, or --all") }
        try Reason.check(reason)
    }

    func run() throws {
        var arguments = ["reason": reason]
        arguments["host"] = host
        arguments["symbol"] = symbol
        if all { arguments["all"] = "true" }
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in
            try hub.order(release ? "kill release" : "kill", arguments)
        }
        CommandCommand.show(body, output)
    }
}

struct ParametersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "parameters", abstract: "How the fleet quotes.", subcommands: [ParametersSetCommand.self])
}

struct ParametersSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Changes parameters of edges while they quote.",
        discussion: """
            Keys and values are those of the edge's configuration, such as spread.base_bps=1.2; KEY= gives a key back to the configuration. Each edge \
            takes all of them between two ticks, or refuses: the rules are SIGHUP's, and hard limits are changed on the host only. What was ordered \
            survives a restart. Hosts that turn up later are not concerned.

            Waits until every host has it latched: in effect, and on its disk. Exit status 1 when a host refuses, 3 when one has not answered by \
            then; the hub goes on trying.
            """)

    @Argument(help: ArgumentHelp("What changes.", valueName: "key=value")) var changes: [String]
    @Option(help: "One host.") var host: String?
    @Flag(help: "The whole fleet.") var all = false
    @Option(help: "Why; it is kept for ever.") var reason: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func validate() throws {
        guard all != (host != nil) else { throw ValidationError("give --host or --all") }
        guard !changes.isEmpty else { throw ValidationError("give at least one key=value") }
        for change in changes where !change.dropFirst().contains("=") || change.contains(",") {
            throw ValidationError("'\(change)' is not key=value")
        }
        try Reason.check(reason)
    }

    func run() throws {
        var arguments = ["reason": reason, "set": changes.joined(separator: ",")]
        arguments["host"] = host
        if all { arguments["all"] = "true" }
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.order("parameters set", arguments) }
        CommandCommand.show(body, output)
    }
}

enum Reason {
    static func check(_ text: String) throws {
        guard text.contains(where: { !$0.isWhitespace }) else { throw ValidationError("--reason says why, in a few words") }
    }
}

extension HubOptions {
    /// The answer's JSON. `seconds` is how long it is waited for unless --timeout says otherwise.
    func body(_ verb: String, _ arguments: [String: String] = [:], seconds: Int = 30) throws(HubFailure) -> JSONValue {
        try ask(verb, arguments, seconds: timeout ?? seconds)
    }

    /// The answer's JSON to an order that waits for hosts: the hub gets the time, and a little more passes here before its answer is missed.
    func order(_ verb: String, _ arguments: [String: String]) throws(HubFailure) -> JSONValue {
        let seconds = min(timeout ?? 10, 600)
        return try ask(verb, arguments.merging(["timeout_ms": "\(seconds * 1000)"]) { old, _ in old }, seconds: seconds + 5)
    }

    private func ask(_ verb: String, _ arguments: [String: String], seconds: Int) throws(HubFailure) -> JSONValue {
        defer { Console.meterDone() }
        let answer = try HubClient.ask(verb, arguments, of: try target(), seconds: seconds, progress: Console.meter(verb))
        // What does not fit a line comes in chunks.
        guard answer.body.isNull, !answer.bytes.isEmpty else { return answer.body }
        do throws(JSONError) { return try JSONValue.parse(answer.bytes) } catch {
            throw HubFailure("the hub's answer is not JSON", Exit.failed)
        }
    }
}
