import ArgumentParser
import HubCore
import Wire

struct GateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gate", abstract: "What may stop an experiment, and why it did.",
        subcommands: [GateListCommand.self, GateExplainCommand.self])

    static let columns: [Listing.Column] = [
        .init("GATE", "gate"), .init("KIND", "kind"), .init("STATE", "state"), .init("FOR (s)", "breaching_seconds", .number),
        .init("METRIC", "metric"), .init("EFFECT", "estimate", .number), .init("LOWER", "lower", .number),
        .init("UPPER", "upper", .number), .init("LN E", "log_e_max", .number), .init("PAIRS", "pairs", .number),
    ]

    /// One row for each hypothesis of a gate; one for a gate without.
    static func rows(_ gates: [JSONValue]) -> [JSONValue] {
        gates.flatMap { gate -> [JSONValue] in
            let own = (gate.members ?? []).filter { $0.name != "tests" }
            let tests = gate["tests"]?.array ?? []
            return tests.isEmpty ? [.object(own)] : tests.map { .object(own + ($0.members ?? [])) }
        }
    }
}

struct GateListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "An experiment's gates as they stand, or as they stood when it ended.",
        discussion: "Exit status 2 when one is violated.")

    @Argument(help: "The experiment's id.") var id: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("gate list", ["id": id]) }
        let gates = body["gates"]?.array ?? []
        Console.list(body, Listing(columns: GateCommand.columns, rows: GateCommand.rows(gates)), output, nothing: "no gate has looked yet")
        if gates.contains(where: { $0["state"]?.string == "violated" }) { throw Exit.badSubject }
    }
}

struct GateExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", abstract: "Makes an experiment's last decision again, from the stored bytes it was made of.",
        discussion: "Exit status 2 when the stored bytes say something else now.")

    @Argument(help: "The experiment's id.") var id: String
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() throws {
        let body = try Console.reporting(output.errors) { () throws(HubFailure) in
            try hub.body("gate explain", ["id": id], seconds: 600)
        }
        let isSame = body["same"]?.boolean == true
        if output == .table {
            let reason = body["reason"]?.string.map { ", because of \(Console.printable($0))" } ?? ""
            Console.note(
                "\(Console.printable(body["state"]?.string ?? "?"))\(reason): the stored bytes say \(isSame ? "the same" : "something else")"
            )
        }
        let gates = GateCommand.rows(body["recomputed"]?["gates"]?.array ?? [])
        Console.list(body, Listing(columns: GateCommand.columns, rows: gates), output, nothing: "no gate was looked at")
        if !isSame { throw Exit.badSubject }
    }
}

struct WaitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wait", abstract: "Waits until an experiment has come to something.",
        discussion: """
            decision: until it is rolled back, stopped, promoted, or has passed. A state's name (online, paused, rolled_back, stopped, promoted): \
            until it is in it. Exit status 0 for PASS, and for a state that was reached; 1 when it ended otherwise; 2 for FAIL and INVALID; 3 when \
            time is up.
            """)

    @Argument(help: "experiment/ID") var what: String
    @Option(name: .customLong("for"), help: "decision, or a state.") var goal = "decision"
    @OptionGroup var hub: HubOptions
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    private static let states = Experiment.State.allCases.map(\.rawValue)

    func validate() throws {
        guard what.hasPrefix("experiment/"), what.utf8.count > 11 else { throw ValidationError("what is waited for is experiment/ID") }
        guard goal == "decision" || Self.states.contains(goal) else {
            throw ValidationError("--for is decision, \(Self.states.joined(separator: ", "))")
        }
    }

    func run() throws {
        let id = String(what.dropFirst(11))
        let clock = ContinuousClock()
        let end = clock.now.advanced(by: .seconds(hub.timeout ?? 600))
        while true {
            let body = try Console.reporting(output.errors) { () throws(HubFailure) in try hub.body("gate list", ["id": id]) }
            let (state, verdict) = (body["state"]?.string ?? "", body["verdict"]?.string)
            let isOver = ExperimentState.isOver(state)
            if goal == "decision" ? isOver || verdict == "PASS" : isOver || state == goal {
                let columns: [Listing.Column] = [.init("EXPERIMENT", "experiment"), .init("STATE", "state"), .init("VERDICT", "verdict")]
                Console.list(body, Listing(columns: columns, rows: [body]), output, nothing: "")
                if goal != "decision" { return try finish(state == goal) }
                switch verdict {
                case "PASS" where state != "rolled_back": return
                case "FAIL", "INVALID": throw Exit.badSubject
                default: throw Exit.failed
                }
            }
            guard clock.now < end else {
                throw Console.failure("experiment '\(id)' is still \(state)", Exit.timeout, output.errors)
            }
            Watching.rest(seconds: 1)
        }
    }

    private func finish(_ isReached: Bool) throws { if !isReached { throw Exit.failed } }
}
