import ArgumentParser

@main struct HubCtl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hubctl", abstract: "Asks a hub, commands its fleet, and builds calibration datasets.",
        discussion: """
            Data goes to standard output, everything else to standard error.
            The hub is named by --context DIR (a folder with context.yaml), by CALIBRANT_CONTEXT, or by --hub and its files.
            Exit status: \(Exit.all).
            """,
        version: "0.1.0",
        subcommands: [
            HostCommand.self, ExperimentCommand.self, GateCommand.self, CommandCommand.self, WaitCommand.self, KillCommand.self,
            ParametersCommand.self, DatasetCommand.self, FeedCommand.self, ReportCommand.self, ReadinessCommand.self, DoctorCommand.self,
            PerfGateCommand.self,
        ])
}

struct DatasetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dataset", abstract: "Calibration datasets.",
        subcommands: [
            DatasetBuildCommand.self, DocumentListCommand<DatasetDocument>.self, DocumentPullCommand<DatasetDocument>.self,
            DatasetSummaryCommand.self, DatasetVerifyCommand.self, DatasetDiffCommand.self, DatasetSchemaCommand.self,
        ])
}
