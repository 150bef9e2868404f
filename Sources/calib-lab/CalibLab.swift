import ArgumentParser

/// The laboratory: worlds, venues and experiments made from a seed.
@main
struct CalibLab: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-lab",
        abstract: "The laboratory: simulated venues, statistics, and experiments from a seed.",
        subcommands: [Venue.self, Stats.self, AB.self])
}
