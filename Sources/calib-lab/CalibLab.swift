import ArgumentParser

/// The laboratory: worlds and venues made from a seed.
@main
struct CalibLab: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "calib-lab",
        abstract: "The laboratory: simulated venues from a seed.",
        subcommands: [Venue.self])
}
