import ArgumentParser
import Glibc
import NodeShell
import Wire

@main struct CalibHub: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-hub", abstract: "Gathers what the fleet measured, and commands it.", version: Build.version,
        subcommands: [Initialise.self, Run.self])
}

extension ExitCode {
    static let badConfiguration = ExitCode(78)
}

func printError(_ text: String) { put(Array("\(text)\n".utf8), to: 2) }

/// One write, so that a reader of a pipe sees a line at once and whole.
func put(_ bytes: [UInt8], to descriptor: Int32) {
    _ = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
}
