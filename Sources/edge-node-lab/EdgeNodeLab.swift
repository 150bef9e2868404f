import ArgumentParser
import CalibModel
import EdgeCore
import EdgeShell
import NodeShell

/// `edge-node-lab run`: an edge as it is, but for a clock that can keep a tick of one arm busy. For experiments in tests; never installed.
@main
struct EdgeNodeLab: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "edge-node-lab", abstract: "An edge whose arms can be made slower, for experiments in tests.", subcommands: [Run.self])

    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "As `edge-node run`, with a clock that waits.")

        @Option(help: ArgumentHelp("The configuration, such as config/edge.yaml.", valueName: "file"))
        var config: String
        @Option(help: ArgumentHelp("Overrides one key of the configuration; may be given several times.", valueName: "key=value"))
        var set: [String] = []
        @Option(help: "Ticks of arm B take so many times as long.")
        var stretchB = 1.0
        @Option(help: "Every so many ticks of arm B is busy for --busy-us.")
        var busyBEvery = 0
        @Option(help: "The same of arm A: an environment that is bad for both.")
        var busyAEvery = 0
        @Option(help: "How long, microseconds.")
        var busyUs: Int64 = 2_000

        func validate() throws {
            guard (1...100).contains(stretchB), busyBEvery >= 0, busyAEvery >= 0, (1...1_000_000).contains(busyUs) else {
                throw ValidationError("--stretch-b is 1 to 100, --busy-us 1 to 1000000, the others at least 0")
            }
        }

        func run() throws {
            let (stretch, everyB, everyA, busy) = (stretchB, busyBEvery, busyAEvery, busyUs * 1000)
            var count = (a: 0, b: 0)
            let wait = { (arm: Arm, began: Int64) in
                var end = Int64.min
                switch arm {
                case .a:
                    count.a += 1
                    if everyA > 0, count.a.isMultiple(of: everyA) { end = began + busy }
                case .b:
                    count.b += 1
                    if everyB > 0, count.b.isMultiple(of: everyB) { end = began + busy }
                    if stretch > 1 {
                        end = max(end, began + Int64(Double(SystemClock.monotonic().nanoseconds - began) * stretch))
                    }
                }
                while SystemClock.monotonic().nanoseconds < end {}
            }
            let clock = StopClock({ SystemClock.monotonic().nanoseconds }, wait: wait)
            try EdgeRun.run(config: config, overrides: set, clock: clock)
        }
    }
}
