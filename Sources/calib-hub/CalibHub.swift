import ArgumentParser
import Glibc
import Wire

@main struct CalibHub: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-hub", abstract: "Gathers what the fleet measured, and commands it.", version: "0.1.0",
        subcommands: [Initialise.self, Run.self])
}

enum Build {
    static let version = "calibrant 0.1.0"
}

extension ExitCode {
    static let badConfiguration = ExitCode(78)
}

func printError(_ text: String) { put(Array("\(text)\n".utf8), to: 2) }

/// One write, so that a reader of a pipe sees a line at once and whole.
func put(_ bytes: [UInt8], to descriptor: Int32) {
    _ = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
}
