import ArgumentParser
import GRDB
import Logging
import NodeShell
import ServiceLifecycle

@main struct CalibHub: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-hub", abstract: "Gathers what the fleet measured.", version: "0.1.0")
}
