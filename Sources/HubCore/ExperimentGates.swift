import CalibModel
import Wire

/// What a gate says, and why.
package struct GateEvidence: Sendable, Equatable {
    /// One hypothesis of a gate that tests; a threshold has none.
    package struct Test: Sendable, Equatable {
        package var metric: GateMetric
        package var tolerance: Double
        package var margin: Double
        package var alpha: Double
        /// Nil without any weight.
        package var estimate: Double?
        /// Effects outside them are excluded: of a sequential gate at every look, at a fixed horizon at that one. Nil: none is.
        package var lower: Double?
        package var upper: Double?
        /// Of a sequential gate's e-process: S, V, ln e now and at its largest.
        package var sum: Double?
        package var squares: Double?
        package var logE: Double?
        package var logEMax: Double?
        package var anytimeP: Double?
    }

    package var name: String
    package var kind: Gate.Kind
    package var state: GateState
    package var demandsRollback: Bool
    /// Pairs seen; pair after which it fired, from 0.
    package var pairs: Int
    package var violatedAtPair: Int?
    package var tests: [Test]

    package init(_ gate: SequentialGate) {
        name = gate.gate.name
        kind = .sequential
        state = gate.state
        demandsRollback = gate.demandsRollback
        pairs = gate.pairs
        violatedAtPair = gate.violatedAtPair
        tests = gate.tests.map { test in
            Test(
                metric: test.hypothesis.metric, tolerance: test.hypothesis.tolerance, margin: test.hypothesis.margin, alpha: test.alpha,
                estimate: test.effects.estimate, lower: test.effects.lowerBound(rho: test.harm.rho, alpha: test.alpha),
                upper: test.effects.upperBound(rho: test.harm.rho, alpha: test.alpha), sum: test.harm.sum, squares: test.harm.squares,
                logE: test.harm.logE, logEMax: test.harm.logEMax, anytimeP: test.harm.anytimeP)
        }
    }

    /// What the gate says at the planned look (SPEC 7.3).
    package init(_ gate: Gate, atHorizon units: [DifferenceInDifferences.Unit]) {
        name = gate.name
        kind = .fixedHorizon
        let found = gate.hypotheses.map { DifferenceInDifferences($0.metric, units) }
        state = gate.fixedHorizonState(found)
        demandsRollback = gate.isEnabled && !gate.isDryRun && state == .violated
        pairs = 0
        violatedAtPair = nil
        tests = zip(gate.hypotheses, found).map { hypothesis, found in
            let interval = found?.interval(alpha: gate.alpha)
            return Test(
                metric: hypothesis.metric, tolerance: hypothesis.tolerance, margin: hypothesis.margin, alpha: gate.alpha,
                estimate: found?.estimate, lower: interval?.lowerBound, upper: interval?.upperBound)
        }
    }

    package init(_ gate: ThresholdGate) {
        name = gate.gate.name
        kind = .threshold
        state = gate.state
        demandsRollback = gate.demandsRollback
        pairs = 0
        violatedAtPair = nil
        tests = []
    }
}

/// The sequential gates of an experiment, from stored rows (SPEC 7.3).
///
/// `evaluate` may be called whenever rows were handed to the ledger, as often as one likes: what it says depends on the settled pairs alone.
package struct ExperimentGates: Sendable {
    private let table: [Gate]
    private var gates: [SequentialGate] = []
    private var objective = DeadlineObjective()
    /// Pairs of arm A before T0; nil before the first pair is settled.
    package private(set) var prePairs: Int?
    package private(set) var pairs = 0
    /// Those of them of which some symbol counts.
    package private(set) var pairsCounted = 0
    /// Symbols on hosts, summed over pairs.
    package private(set) var planned = 0
    package private(set) var counted = 0
    package private(set) var censored: [Censoring: Int] = [:]

    package init(_ gates: [Gate] = Gate.all) { table = gates.filter { $0.kind == .sequential } }

    /// Takes what the ledger settled since the last call; `each` looks at the gates after each pair.
    package mutating func evaluate(_ ledger: inout PairLedger, _ each: (ExperimentGates, SettledPair) -> Void = { _, _ in }) {
        for pair in ledger.takeSettled() {
            if prePairs == nil {
                let before = ledger.prePairs
                prePairs = before.count
                gates = table.map { SequentialGate($0, prePairs: before, units: ledger.unitCount) }
            }
            add(pair)
            each(self, pair)
        }
    }

    private mutating func add(_ pair: SettledPair) {
        pairs += 1
        planned += pair.planned
        counted += pair.items.count
        if !pair.items.isEmpty { pairsCounted += 1 }
        for (reason, count) in pair.censored { censored[reason, default: 0] += count }
        for index in gates.indices { gates[index].add(pair.items) }
        // What a pause was for is not counted against what comes behind it.
        if pair.items.isEmpty, pair.censored[.manual] != nil { objective = DeadlineObjective() }
        objective.add(pair.items)
    }

    package var deadlineObjective: DeadlineObjective.Verdict { objective.verdict }

    /// In the order of the table. Before the first settled pair, and without a pre-period, there is none to speak of.
    package var evidence: [GateEvidence] { gates.map { GateEvidence($0) } }

    /// The first gate that demands it.
    package var rollbackDemand: String? { gates.first(where: \.demandsRollback)?.gate.name }
}

// MARK: - JSON

extension JSONWriter {
    /// The shortest text that reads back as the same number; null for what is none (SPEC 1.5).
    package mutating func double(_ value: Double?) {
        if let value, value.isFinite { raw(value.description.utf8) } else { null() }
    }

    package mutating func gate(_ gate: GateEvidence) {
        beginObject()
        field("gate", string: gate.name)
        field("kind", string: gate.kind.rawValue)
        field("state", string: gate.state.name)
        if case .breaching(let seconds, let duration) = gate.state {
            field("breaching_seconds", integer: seconds)
            field("duration_seconds", integer: duration)
        }
        field("demands_rollback", boolean: gate.demandsRollback)
        if gate.kind == .sequential {
            field("pairs", integer: gate.pairs)
            field("violated_at_pair", integer: gate.violatedAtPair.map { Int64($0) })
        }
        if gate.kind != .threshold {
            key("tests")
            beginArray()
            for test in gate.tests { self.test(test) }
            endArray()
        }
        endObject()
    }

    private mutating func test(_ test: GateEvidence.Test) {
        beginObject()
        field("metric", string: test.metric.rawValue)
        let figures: [(StaticString, Double?)] = [
            ("tolerance", test.tolerance), ("margin", test.margin), ("alpha", test.alpha), ("estimate", test.estimate),
            ("lower", test.lower), ("upper", test.upper), ("S", test.sum), ("V", test.squares), ("log_e", test.logE),
            ("log_e_max", test.logEMax), ("p_anytime", test.anytimeP),
        ]
        for (name, value) in figures {
            key(name)
            double(value)
        }
        endObject()
    }
}
