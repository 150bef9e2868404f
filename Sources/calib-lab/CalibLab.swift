import ArgumentParser

/// The laboratory: worlds, venues and experiments made from a seed, damaged input, and benchmarks.
@main
struct CalibLab: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-lab",
        abstract: "The laboratory: simulated venues, statistics, experiments and faults from a seed, damaged input, and benchmarks.",
        subcommands: [Venue.self, Bench.self, Fuzz.self, Stats.self, AB.self, Sim.self, Gen.self])
}
