import ArgumentParser

/// The program `edge-node`; what it is made of is a module, so that the laboratory's edge is the same.
package struct EdgeNode: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "edge-node",
        abstract: "Quotes on one trading host, measures and logs.",
        subcommands: [Run.self, Kill.self, Replay.self, Record.self, Config.self])

    package init() {}
}

/// The exit statuses of every binary (SPEC 9.3); ArgumentParser itself answers 64 to wrong usage.
extension ExitCode {
    /// The thing asked about is bad.
    static let badSubject = ExitCode(2)
    static let badConfiguration = ExitCode(78)
}
