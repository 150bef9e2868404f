import Glibc
import Simulation
import Testing

/// Worlds in which everything fails: a short form of `calib-lab sim --seeds 1000`, the seeds that once broke a law, and each law broken on purpose.
struct WorldTests {
    private static func run(_ seed: UInt64, canary: WorldOptions.Canary? = nil, hours: Int = 1) -> WorldOutcome {
        var options = WorldOptions(seed: seed)
        (options.canary, options.hours) = (canary, hours)
        return World(options).run()
    }

    /// Those in Seeds.txt, which broke a law once.
    static let kept: [UInt64] = {
        guard let file = fopen(#filePath.replacing("WorldTests.swift", with: "Seeds.txt"), "r") else { return [] }
        defer { fclose(file) }
        var text = ""
        while let line = readLine(from: file) { text += line + "\n" }
        return text.split(separator: "\n").compactMap { UInt64($0) }
    }()

    private static func readLine(from file: UnsafeMutablePointer<FILE>) -> String? {
        var buffer = [CChar](repeating: 0, count: 256)
        guard fgets(&buffer, 255, file) != nil else { return nil }
        return String(decoding: buffer.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    @Test func everyLawHoldsInTwentyWorlds() {
        var faults = FaultCounts()
        var forks: Int64 = 0
        for seed in UInt64(21)...40 {
            let outcome = Self.run(seed)
            #expect(outcome.broken.isEmpty, "seed \(seed): \(outcome.broken)")
            #expect(outcome.rowsHeld > 100, "seed \(seed): the world was too quiet")
            faults.add(outcome.faults)
            forks += outcome.forks
        }
        for fault in Fault.allCases { #expect(faults[fault] > 0, "\(fault.rawValue) never happened") }
        #expect(forks > 0)
    }

    @Test(arguments: kept) func lawsHoldInAWorldThatOnceBrokeOne(seed: UInt64) {
        #expect(Self.run(seed, hours: 2).broken == [])
    }

    @Test(arguments: WorldOptions.Canary.allCases) func lawBrokenOnPurposeIsNoticed(canary: WorldOptions.Canary) {
        #expect((UInt64(1)...5).contains { !Self.run($0, canary: canary).broken.isEmpty })
    }

    @Test func equalSeedsGiveEqualWorlds() {
        let hash = Self.run(7).traceHash
        #expect(Self.run(7).traceHash == hash && Self.run(8).traceHash != hash)
    }
}
