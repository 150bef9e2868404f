import Simulation
import Testing

/// Laws 3 and 9 with faults around every decision (ARCHITECTURE.md; the fault table of experiments).
struct ControlWorldTests {
    @Test(arguments: 1...12) func noSeedBreaksALaw(seed: UInt64) {
        var world = ControlWorld(seed: seed)
        let outcome = world.run(minutes: 30)
        #expect(outcome.broken == [])
        #expect(outcome.stepsOnB > 1_000, "a world without B proves nothing: \(outcome)")
    }

    /// Each row of the fault table alone, so that a law broken by one of them is named by it.
    @Test(arguments: ControlWorld.Fault.allCases) func eachFaultAlone(fault: ControlWorld.Fault) {
        var found = 0
        for seed in UInt64(100)..<104 {
            var world = ControlWorld(seed: seed, faults: [fault])
            let outcome = world.run(minutes: 20)
            #expect(outcome.broken == [], "\(fault) with seed \(seed)")
            found += outcome.faults[fault.rawValue] ?? 0
        }
        #expect(found > 10)
    }

    @Test func theSameSeedIsTheSameWorld() {
        var (one, other) = (ControlWorld(seed: 5), ControlWorld(seed: 5))
        let (first, second) = (one.run(minutes: 10), other.run(minutes: 10))
        #expect(first == second)
    }

    @Test func everyWayToARollbackIsTaken() {
        var kinds: Set<String> = []
        for seed in UInt64(20)..<40 {
            var world = ControlWorld(seed: seed)
            kinds.formUnion(world.run(minutes: 30).rollbacks.keys)
        }
        #expect(kinds == ["gate", "breaker", "operator"])
    }
}
