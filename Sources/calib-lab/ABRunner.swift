import CalibModel
import HubCore
import Simulation
import Wire

/// What all runs of one call have in common.
struct ABPlan: Sendable {
    var effects: ABEffects
    /// The gate the scenario is about.
    var watched: String?
    var symbols: Int
    var pairs: Int
    var prePairs: Int
    var seed: UInt64
}

/// Minutes of block time after which each gate fired, by name.
struct ABResult: Sendable {
    var gates: [String: Double] = [:]
    var seedRule: [String: Double] = [:]
    /// What the one fixed-horizon test of the same symbol split says at the run's end, by gate; only of runs that were played to their end.
    var symbolSplit: [String: GateState] = [:]
    /// Of each hypothesis at the run's end, by metric; only of runs that were played to their end.
    var estimates: [String: Double] = [:]

    var isSymbolSplitFailed: Bool { symbolSplit.values.contains(.violated) }
}

/// One world, one experiment: the switchback under the gates of production, and the seed's rule beside it.
struct ABRunner {
    static let blockMinutes = 5
    static let objectiveName = "deadline_objective"
    /// 2025-01-01, a time like any other.
    private static let start: Int64 = 1_735_689_600_000

    private let plan: ABPlan
    private var world: ABWorld
    private var coins: SplitMix64
    private var minutes: [ABWorld.Minute]
    private var blocks: [BlockSums]
    /// Dense counts of the block under way, one layout of buckets for each symbol.
    private var histograms: [UInt32]

    init(_ plan: ABPlan, run: Int) {
        self.plan = plan
        // Runs are neighbours of a seed; SplitMix64 makes strangers of them.
        coins = SplitMix64(state: plan.seed &+ UInt64(run) &* 0xd134_2543_de82_ef95)
        world = ABWorld(seed: coins.next(), symbols: plan.symbols, effects: plan.effects)
        minutes = [ABWorld.Minute](repeating: .init(), count: plan.symbols)
        blocks = [BlockSums](repeating: .init(), count: plan.symbols)
        histograms = [UInt32](repeating: 0, count: plan.symbols * LatencyBuckets.count)
    }

    func play() -> ABResult {
        var nobody: ABDump?
        var runner = self
        return runner.play(&nobody)
    }

    func play(into dump: inout ABDump) -> ABResult {
        var recorded: ABDump? = dump
        var runner = self
        let result = runner.play(&recorded)
        dump = recorded ?? dump
        return result
    }

    private mutating func play(_ dump: inout ABDump?) -> ABResult {
        var split = SymbolSplit(symbols: plan.symbols, salt: coins.next())
        let (design, prePairs, before) = preparation(&dump)
        var gates = Gate.all.map { SequentialGate($0, prePairs: prePairs, units: plan.symbols) }
        var objective = DeadlineObjective()
        var result = ABResult()
        for pair in 0..<plan.pairs {
            let clusters = design.clusters
            var halves: [[BlockSums]] = []
            for half in 0..<2 {
                let time = design.startMilliseconds + Int64(2 * pair + half) * design.blockMilliseconds
                let arms = clusters.map { design.place(of: $0, at: time).arm }
                let elapsed = (2 * pair + half) * Self.blockMinutes
                halves.append(
                    block(arms: arms) { world, minutes, minute in
                        split.add(world, minutes, at: elapsed + minute + 1)
                    })
            }
            let items = clusters.indices.map { unit in
                UnitPair(
                    unit: unit, group: clusters[unit].group, sign: design.bIsSecond(clusters[unit], pair: Int32(pair)) ? 1 : -1,
                    first: halves[0][unit], second: halves[1][unit])
            }
            dump?.add(items, pair: pair, phase: "online")
            let now = Double((pair + 1) * 2 * Self.blockMinutes)
            for index in gates.indices {
                gates[index].add(items)
                if gates[index].demandsRollback, result.gates[gates[index].gate.name] == nil { result.gates[gates[index].gate.name] = now }
            }
            objective.add(items)
            if objective.verdict == .harm, result.gates[Self.objectiveName] == nil { result.gates[Self.objectiveName] = now }
            dump?.add(gates, pair: pair)
            result.seedRule = split.fired
            if dump == nil, let watched = plan.watched, result.gates[watched] != nil, result.seedRule[watched] != nil { return result }
        }
        for test in gates.flatMap(\.tests) { result.estimates[test.hypothesis.metric.rawValue] = test.effects.estimate }
        let units = split.units(before: before)
        for gate in Gate.all { result.symbolSplit[gate.name] = gate.fixedHorizonState(units) }
        return result
    }

    /// Hours on arm A; then the design, matched by what was traded in them, their pairs, and their sums by symbol.
    private mutating func preparation(_ dump: inout ABDump?) -> (Switchback, [[UnitPair]], [BlockSums]) {
        var history: [[[BlockSums]]] = []
        for _ in 0..<plan.prePairs {
            let arms = [Arm](repeating: .a, count: plan.symbols)
            let first = block(arms: arms) { _, _, _ in }
            history.append([first, block(arms: arms) { _, _, _ in }])
        }
        var before = [BlockSums](repeating: BlockSums(), count: plan.symbols)
        for half in history.joined() { for unit in half.indices { before[unit] += half[unit] } }
        let ranked = (0..<plan.symbols).sorted { (before[$1].fillNotional, $0) < (before[$0].fillNotional, $1) }
        var clusters = [Switchback.Cluster?](repeating: nil, count: plan.symbols)
        for (cluster, unit) in zip(Switchback.matched(ranked.map { "S\($0)" }), ranked) { clusters[unit] = cluster }
        let design = Switchback(
            startMilliseconds: Self.start, blockMilliseconds: Int64(Self.blockMinutes) * 60_000, washoutMilliseconds: 0, key0: coins.next(),
            key1: coins.next(), clusters: clusters.compactMap(\.self))
        let pairs = history.enumerated().map { index, halves in
            // Pairs before T0 have negative numbers and coins like any other.
            let number = index - history.count
            let items = design.clusters.indices.map { unit in
                UnitPair(
                    unit: unit, group: design.clusters[unit].group,
                    sign: design.bIsSecond(design.clusters[unit], pair: Int32(number)) ? 1 : -1, first: halves[0][unit],
                    second: halves[1][unit])
            }
            dump?.add(items, pair: number, phase: "pre")
            return items
        }
        return (design, pairs, before)
    }

    /// Five minutes with every symbol on its arm.
    private mutating func block(arms: [Arm], eachMinute: (ABWorld, [ABWorld.Minute], Int) -> Void) -> [BlockSums] {
        for unit in blocks.indices { blocks[unit] = BlockSums() }
        for index in histograms.indices { histograms[index] = 0 }
        for minute in 0..<Self.blockMinutes {
            world.step(into: &minutes)
            for unit in blocks.indices {
                world.add(minutes[unit], on: arms[unit], to: &blocks[unit])
                let base = unit * LatencyBuckets.count
                for tick in unit * ABWorld.ticksPerMinute..<(unit + 1) * ABWorld.ticksPerMinute {
                    histograms[base + LatencyBuckets.index(of: world.duration(world.durations[tick], on: arms[unit]))] += 1
                }
            }
            eachMinute(world, minutes, minute)
        }
        for unit in blocks.indices {
            blocks[unit].histogram = Self.sparse(histograms, unit: unit)
        }
        return blocks
    }

    fileprivate static func sparse(_ histograms: [UInt32], unit: Int) -> [(index: Int32, count: Int64)] {
        let base = unit * LatencyBuckets.count
        return (0..<LatencyBuckets.count).filter { histograms[base + $0] > 0 }.map { (Int32($0), Int64(histograms[base + $0])) }
    }
}

/// Half of the symbols on B all the time, on the same worlds.
///
/// The rule of the first specification on them is read as mildly as "for 10 minutes" can be without a statistic: means since the start, looked
/// at each minute; a gate fires when its condition held at ten looks in a row.
private struct SymbolSplit {
    private let arms: [Arm]
    private var sums = [BlockSums(), BlockSums()]
    private var histograms = [[Int64]](repeating: [Int64](repeating: 0, count: LatencyBuckets.count), count: 2)
    private var unitSums: [BlockSums]
    private var unitHistograms: [UInt32]
    private var inARow: [String: Int] = [:]
    private(set) var fired: [String: Double] = [:]

    init(symbols: Int, salt: UInt64) {
        let names = (0..<symbols).map { "S\($0)" }
        let digits = String(salt, radix: 16)
        let key = String(repeating: "0", count: 32 - digits.utf8.count) + digits
        let chosen = Set(ExperimentSpec.split(names, splitMicro: 500_000, salt: key).b)
        arms = names.map { chosen.contains($0) ? .b : .a }
        unitSums = [BlockSums](repeating: BlockSums(), count: symbols)
        unitHistograms = [UInt32](repeating: 0, count: symbols * LatencyBuckets.count)
    }

    func units(before: [BlockSums]) -> [DifferenceInDifferences.Unit] {
        arms.indices.map { unit in
            var during = unitSums[unit]
            during.histogram = ABRunner.sparse(unitHistograms, unit: unit)
            return .init(symbol: "S\(unit)", arm: arms[unit], before: before[unit], during: during)
        }
    }

    mutating func add(_ world: ABWorld, _ minutes: [ABWorld.Minute], at minute: Int) {
        for unit in arms.indices {
            let arm = Int(arms[unit].rawValue)
            world.add(minutes[unit], on: arms[unit], to: &sums[arm])
            world.add(minutes[unit], on: arms[unit], to: &unitSums[unit])
            for tick in unit * ABWorld.ticksPerMinute..<(unit + 1) * ABWorld.ticksPerMinute {
                let index = LatencyBuckets.index(of: world.duration(world.durations[tick], on: arms[unit]))
                histograms[arm][index] += 1
                unitHistograms[unit * LatencyBuckets.count + index] += 1
            }
        }
        let (a, b) = (sums[0], sums[1])
        func difference(_ metric: GateMetric) -> Double { (metric.value(b) ?? 0) - (metric.value(a) ?? 0) }
        look("slippage_degradation", difference(.slippage) > 0, at: minute)
        look("taker_share_increase", difference(.takerShare) > 0.01, at: minute)
        if let latencyA = p95(0), let latencyB = p95(1) { look("latency_regression", latencyB > 1.1 * latencyA, at: minute) }
        look("deadline_miss_spike", (GateMetric.missRate.value(b) ?? 0) > 0.02, at: minute)
    }

    private mutating func look(_ gate: String, _ holds: Bool, at minute: Int) {
        inARow[gate] = holds ? inARow[gate, default: 0] + 1 : 0
        if inARow[gate, default: 0] >= 10, fired[gate] == nil { fired[gate] = Double(minute) }
    }

    private func p95(_ arm: Int) -> Double? {
        let total = histograms[arm].reduce(0, +)
        guard total > 0 else { return nil }
        let rank = min(total - 1, 95 * total / 100)
        var seen: Int64 = 0
        for (index, count) in histograms[arm].enumerated() {
            seen += count
            if seen > rank { return Double(LatencyBuckets.upperEdge(of: index)) }
        }
        return nil
    }
}
