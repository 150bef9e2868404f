import ArgumentParser

@main struct HubCtl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hubctl", abstract: "Builds calibration datasets and reports on them.",
        discussion: """
            Data goes to standard output, everything else to standard error.
            Exit status: \(Exit.all).
            """,
        version: "0.1.0", subcommands: [DatasetCommand.self])
}

struct DatasetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dataset", abstract: "Calibration datasets.", subcommands: [DatasetBuildCommand.self, DatasetSummaryCommand.self])
}
