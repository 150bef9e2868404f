import ArgumentParser

/// The laboratory: worlds and venues made from a seed, and benchmarks.
@main
struct CalibLab: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-lab",
        abstract: "The laboratory: simulated venues from a seed, and benchmarks.",
        subcommands: [Venue.self, Bench.self])
}
