import ArgumentParser
import CalibModel
import Dispatch
import Glibc
import NodeShell
import Simulation
import Synchronization
import Wire

/// Worlds in which everything fails, to see whether anything is lost or kept twice.
struct Sim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sim",
        abstract: "Run edges and a hub in simulated worlds full of faults, and check the laws.",
        discussion: """
            A world is made from its seed: edges that write feeds, a hub that copies them, disks and a network that fail, crashes, clock steps. \
            The cores are those of production and talk in real messages. After --hours of simulated time everything heals; then every \
            row an edge has must be at the hub once, nothing that was acknowledged may be missing, and no row may be there that nobody wrote.

            --seed runs one world, --seeds N many. Exit status 1: a law does not hold; the seed, the law and the time are named. Equal \
            arguments give an equal trace hash on any machine.

            --canary breaks a law on purpose: the run must exit with 1.
            """)

    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    @Option(help: "Run the world of this seed.")
    var seed: UInt64?
    @Option(help: "Run so many worlds, 1 to 1000000.")
    var seeds: Int?
    @Option(help: "Seed of the first of them.")
    var firstSeed: UInt64 = 1
    @Option(help: "Edges in a world, 1 to 50.")
    var edges = 2
    @Option(help: "Simulated hours of faults, 1 to 168.")
    var hours = 2
    @Option(help: ArgumentHelp("With --seed: write both sides' files to a folder.", valueName: "dir"))
    var trace: String?
    @Option(help: "Break a law on purpose: \(WorldOptions.Canary.allCases.map(\.rawValue).joined(separator: ", ")).")
    var canary: String?
    @Option(name: [.short, .long], help: "The form of the result.")
    var output = Output.text

    func validate() throws {
        guard (seed == nil) != (seeds == nil) else { throw ValidationError("either --seed or --seeds is needed") }
        if let seeds, !(1...1_000_000).contains(seeds) { throw ValidationError("--seeds \(seeds): allowed are 1 to 1000000") }
        guard (1...50).contains(edges) else { throw ValidationError("--edges \(edges): allowed are 1 to 50") }
        guard (1...168).contains(hours) else { throw ValidationError("--hours \(hours): allowed are 1 to 168") }
        guard trace == nil || seed != nil else { throw ValidationError("--trace needs --seed") }
        guard canary.map({ WorldOptions.Canary(rawValue: $0) != nil }) ?? true else {
            throw ValidationError("--canary \(canary!): known are \(WorldOptions.Canary.allCases.map(\.rawValue).joined(separator: ", "))")
        }
    }

    private func options(_ seed: UInt64) -> WorldOptions {
        var options = WorldOptions(seed: seed)
        (options.edges, options.hours, options.canary) = (edges, hours, canary.flatMap { WorldOptions.Canary(rawValue: $0) })
        return options
    }

    func run() throws {
        let outcomes = try seed.map { [try one($0)] } ?? many(seeds!)
        switch output {
        case .json: print(String(decoding: json(outcomes), as: UTF8.self))
        case .text: printText(outcomes)
        }
        if outcomes.contains(where: { !$0.broken.isEmpty }) { throw ExitCode(1) }
    }

    private func one(_ seed: UInt64) throws -> WorldOutcome {
        let world = World(options(seed))
        let outcome = world.run()
        guard let trace else { return outcome }
        do throws(FileError) {
            for (path, bytes) in world.files {
                let full = "\(trace)/\(path)"
                try AtomicFile.makeDirectory(String(full[..<full.lastIndex(of: "/")!]))
                _ = try AtomicFile.place(bytes, at: full, replaces: true)
            }
        } catch {
            note("calib-lab sim: \(error)")
            throw ExitCode(1)
        }
        return outcome
    }

    private func many(_ count: Int) -> [WorldOutcome] {
        var outcomes = [WorldOutcome?](repeating: nil, count: count)
        let done = Atomic<Int>(0)
        outcomes.withUnsafeMutableBufferPointer { buffer in
            // Each world writes its own element and nothing else, and the call ends after the last.
            nonisolated(unsafe) let slots = buffer
            DispatchQueue.concurrentPerform(iterations: count) { number in
                slots[number] = World(options(firstSeed &+ UInt64(number))).run()
                let worlds = done.add(1, ordering: .relaxed).newValue
                if worlds.isMultiple(of: 100) { note("\(worlds) of \(count) worlds") }
            }
        }
        return outcomes.compactMap(\.self)
    }

    // MARK: Results

    private func printText(_ outcomes: [WorldOutcome]) {
        let broken = outcomes.filter { !$0.broken.isEmpty }
        for outcome in broken.prefix(20) {
            for law in outcome.broken { print("seed \(outcome.seed): law \(law.law) broken after \(law.at / 1_000_000) ms: \(law.text)") }
        }
        if outcomes.count == 1, let only = outcomes.first { print("trace hash \(Self.hex(only.traceHash))") }
        print("\(outcomes.count) worlds, \(broken.count) broken; \(Self.sum(outcomes, \.rowsWritten)) rows written, ", terminator: "")
        print("\(Self.sum(outcomes, \.rowsHeld)) held by the hub, \(Self.sum(outcomes, \.forks)) forks")
        let faults = Self.faults(outcomes)
        for fault in Fault.allCases { print("  \(fault.rawValue): \(faults[fault])") }
    }

    private func json(_ outcomes: [WorldOutcome]) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("worlds", integer: Int64(outcomes.count))
        json.field("broken", integer: Int64(outcomes.count { !$0.broken.isEmpty }))
        json.key("laws")
        json.beginArray()
        for outcome in outcomes {
            for law in outcome.broken {
                json.beginObject()
                json.field("seed", integer: Int64(bitPattern: outcome.seed))
                json.field("law", integer: Int64(law.law))
                json.field("at_ms", integer: law.at / 1_000_000)
                json.field("text", string: law.text)
                json.endObject()
            }
        }
        json.endArray()
        var all = KeyedHash()
        for outcome in outcomes { all.combine(outcome.traceHash) }
        json.field("trace_hash", string: Self.hex(outcomes.count == 1 ? outcomes[0].traceHash : all.finalized()))
        json.field("rows_written", integer: Self.sum(outcomes, \.rowsWritten))
        json.field("rows_held", integer: Self.sum(outcomes, \.rowsHeld))
        json.field("forks", integer: Self.sum(outcomes, \.forks))
        json.key("faults")
        json.beginObject()
        let faults = Self.faults(outcomes)
        for fault in Fault.allCases {
            json.key(data: fault.rawValue)
            json.integer(faults[fault])
        }
        json.endObject()
        json.endObject()
        return json.take()
    }

    private static func sum(_ outcomes: [WorldOutcome], _ value: (WorldOutcome) -> Int64) -> Int64 { outcomes.reduce(0) { $0 + value($1) } }

    private static func faults(_ outcomes: [WorldOutcome]) -> FaultCounts {
        var sum = FaultCounts()
        for outcome in outcomes { sum.add(outcome.faults) }
        return sum
    }

    private static func hex(_ hash: UInt64) -> String {
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }
}
