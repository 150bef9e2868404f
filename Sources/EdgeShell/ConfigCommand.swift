import ArgumentParser
import Configuration
import EdgeCore

/// `edge-node config`: what a configuration says, and whether it may.
struct Config: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Checks and shows the configuration.", subcommands: [Check.self, Show.self])

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Reports every mistake; exit status 78 when there is one.")
        @Option(help: ArgumentHelp("The file to check.", valueName: "file"))
        var config: String

        func run() throws {
            _ = try loadOrExit(file: config, overrides: [])
            print("\(config): ok")
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Prints every effective key=value, sorted.")
        @Option(help: ArgumentHelp("The configuration (default: built-in defaults).", valueName: "file"))
        var config: String?
        @Option(help: ArgumentHelp("Overrides one key; may be given several times.", valueName: "key=value"))
        var set: [String] = []

        func run() throws {
            let configuration = try loadOrExit(file: config, overrides: set)
            for (key, value) in configuration.effective.sorted(by: { $0.key < $1.key }) { print("\(key)=\(value)") }
        }
    }
}

/// Loads a configuration, or prints all its mistakes and exits with 78.
func loadOrExit(file: String?, overrides: [String], ordered: OrderedParameters = OrderedParameters()) throws -> EdgeConfiguration {
    do throws(ConfigurationError) {
        return try EdgeConfiguration.load(file: file, overrides: overrides, ordered: ordered, read: readText)
    } catch {
        printError(error.description)
        throw ExitCode.badConfiguration
    }
}
