import ArgumentParser
import CalibModel
import Dispatch
import Glibc
import HubCore
import NodeShell
import Simulation
import Wire

/// The gates of production on simulated experiments: how often they cry wolf, and how soon they notice one.
struct AB: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ab",
        abstract: "Measure the error rates of the safety gates on simulated experiments.",
        discussion: """
            Every run is a world of its own: symbols, volatility, fills, load bursts (see ABWorld.swift). It is quoted for --pre-hours on arm A, \
            then for --hours as a switchback of 5-minute blocks, and the gates of production look after every pair of blocks, with \
            their default alphas and tolerances. Beside them, on the same worlds, seed_rule: half of the symbols on B all the time, means \
            since the start, a gate fires when its condition holds for 10 minutes in a row; and symbol_split, the one \
            difference-in-differences test of the same split at the end.

            aa: both arms equal. slippage: B pays 0.1 bps more. taker: 1 percentage point more taker fills. latency: ticks take 10 % longer. \
            deadline: 4 % late ticks instead of 2 %. net: B earns 0.2 bps less. Detection is by the scenario's own gate, in minutes of \
            block time; a run without it counts as longer than --hours. Equal arguments give equal output on any number of cores.

            --dump-run K DIR also writes run K: rows.jsonl (exact sums of each symbol and block), flips.jsonl, decisions.jsonl. \
            deploy/recompute-gates DIR computes every decision anew and compares.
            """)

    enum Scenario: String, ExpressibleByArgument, CaseIterable {
        case aa, slippage, taker, latency, deadline, net

        var effects: ABEffects {
            var effects = ABEffects()
            switch self {
            case .aa: break
            case .slippage: effects.slippageBps = 0.1
            case .taker: effects.takerShare = 0.01
            case .latency: effects.latencyRatio = 0.1
            case .deadline: (effects.missRate, effects.missRateAdded) = (0.02, 0.02)
            case .net: effects.netLossBps = 0.2
            }
            return effects
        }

        /// Nil in an A/A world.
        var gate: String? {
            switch self {
            case .aa: nil
            case .slippage: "slippage_degradation"
            case .taker: "taker_share_increase"
            case .latency: "latency_regression"
            case .deadline: "deadline_miss_spike"
            case .net: "net_bps_loss"
            }
        }
    }
    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    @Option(help: "What is true of arm B.")
    var scenario: Scenario
    @Option(help: "Simulated experiments, 1 to 100000.")
    var runs = 100
    @Option(help: "Symbols, 2 to 500.")
    var symbols = 20
    @Option(help: "Hours of each experiment, 1 to 168.")
    var hours = 24
    @Option(help: "Hours on arm A before it, 1 to 24.")
    var preHours = 4
    @Option(help: "Seed of the first run's world.")
    var seed: UInt64 = 1
    @Option(name: .long, parsing: .upToNextOption, help: ArgumentHelp("Write run K (from 0) to a folder, too.", valueName: "K DIR"))
    var dumpRun: [String] = []
    @Option(name: [.short, .long], help: "The form of the result.")
    var output = Output.text

    func validate() throws {
        guard (1...100_000).contains(runs) else { throw ValidationError("--runs \(runs): allowed are 1 to 100000") }
        guard (2...Limits.symbolsMax).contains(symbols) else {
            throw ValidationError("--symbols \(symbols): allowed are 2 to \(Limits.symbolsMax)")
        }
        guard (1...168).contains(hours) else { throw ValidationError("--hours \(hours): allowed are 1 to 168") }
        guard (1...24).contains(preHours) else { throw ValidationError("--pre-hours \(preHours): allowed are 1 to 24") }
        guard dumpRun.isEmpty || (dumpRun.count == 2 && Int(dumpRun[0]).map { (0..<runs).contains($0) } == true && !dumpRun[1].isEmpty)
        else { throw ValidationError("--dump-run needs the number of a run, 0 to \(runs - 1), and a folder") }
    }

    func run() throws {
        let plan = ABPlan(
            effects: scenario.effects, watched: scenario.gate, symbols: symbols, pairs: hours * 6, prePairs: preHours * 6, seed: seed)
        if !dumpRun.isEmpty, let number = Int(dumpRun[0]) {
            var dump = ABDump()
            _ = ABRunner(plan, run: number).play(into: &dump)
            do { try dump.write(to: dumpRun[1]) } catch {
                note("calib-lab ab: \(error)")
                throw ExitCode(1)
            }
        }
        var results = [ABResult?](repeating: nil, count: runs)
        results.withUnsafeMutableBufferPointer { buffer in
            // Each run writes its own element and nothing else, and the call ends after the last.
            nonisolated(unsafe) let slots = buffer
            DispatchQueue.concurrentPerform(iterations: runs) { slots[$0] = ABRunner(plan, run: $0).play() }
        }
        let finished = results.compactMap(\.self)
        switch output {
        case .json: print(String(decoding: json(finished), as: UTF8.self))
        case .text: printTable(finished)
        }
    }

    private var isAA: Bool { scenario == .aa }

    private func json(_ results: [ABResult]) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("scenario", string: scenario.rawValue)
        json.field("runs", integer: runs)
        json.field("symbols", integer: symbols)
        json.field("hours", integer: hours)
        json.key("seed")
        json.string(String(seed))
        write(ABRates(results.map(\.gates), watched: scenario.gate), to: &json)
        json.key("estimates")
        json.beginObject()
        for estimate in isAA ? ABEstimate.all(results) : [] {
            json.key(data: estimate.metric)
            json.beginObject()
            json.key("mean")
            json.double(estimate.mean)
            json.key("standard_deviation")
            json.double(estimate.deviation)
            json.key("reference_standard_deviation")
            json.double(estimate.reference)
            json.endObject()
        }
        json.endObject()
        json.key("seed_rule")
        json.beginObject()
        write(ABRates(results.map(\.seedRule), watched: scenario.gate), to: &json)
        json.endObject()
        json.key("symbol_split")
        if isAA {
            let failed = results.count { $0.isSymbolSplitFailed }
            json.beginObject()
            json.key("false_fail_rate")
            json.double(Double(failed) / Double(runs))
            json.key("false_fail_wilson95")
            write(wilsonInterval(successes: failed, of: runs), to: &json)
            json.endObject()
        } else {
            json.null()
        }
        json.endObject()
        return json.bytes
    }

    private func write(_ interval: ClosedRange<Double>?, to json: inout JSONWriter) {
        guard let interval else {
            json.null()
            return
        }
        json.beginArray()
        json.double(interval.lowerBound)
        json.double(interval.upperBound)
        json.endArray()
    }

    private func write(_ rates: ABRates, to json: inout JSONWriter) {
        json.key("false_rollback_rate")
        json.double(isAA ? rates.anyRate : nil)
        json.key("false_rollback_wilson95")
        write(isAA ? rates.wilson : nil, to: &json)
        json.key("detected_rate")
        json.double(rates.detectedRate)
        json.key("detection_minutes_median")
        json.double(rates.minutes(50))
        json.key("detection_minutes_p90")
        json.double(rates.minutes(90))
        json.key("fired")
        json.beginObject()
        for (gate, count) in rates.fired {
            json.key(data: gate)
            json.integer(count)
        }
        json.endObject()
    }

    private func printTable(_ results: [ABResult]) {
        print("\(scenario.rawValue): \(runs) runs, \(symbols) symbols, \(hours) h, seed \(seed)")
        for (name, fired) in [("gates", results.map(\.gates)), ("seed rule", results.map(\.seedRule))] {
            let rates = ABRates(fired, watched: scenario.gate)
            let gates = rates.fired.map { "\($0.gate) \($0.count)" }.joined(separator: ", ")
            if isAA, let interval = rates.wilson {
                print(
                    "\(name): false rollbacks \(percent(rates.anyRate)) [\(percent(interval.lowerBound)), \(percent(interval.upperBound))]; \(gates)"
                )
            } else {
                func text(_ minutes: Double?) -> String { minutes.map { "\(Int($0)) min" } ?? "> \(hours) h" }
                print(
                    "\(name): detected in \(percent(rates.detectedRate ?? 0)), median \(text(rates.minutes(50))), p90 \(text(rates.minutes(90))); \(gates)"
                )
            }
        }
        guard isAA else { return }
        let failed = results.count { $0.isSymbolSplitFailed }
        if let interval = wilsonInterval(successes: failed, of: runs) {
            print(
                "symbol split, one look at the end: false FAIL \(percent(Double(failed) / Double(runs))) [\(percent(interval.lowerBound)), \(percent(interval.upperBound))]"
            )
        }
        printEstimates(results)
    }

    private func printEstimates(_ results: [ABResult]) {
        for estimate in ABEstimate.all(results) {
            let reference = estimate.reference.map { "; reference \($0)" } ?? ""
            print("estimate of \(estimate.metric): mean \(estimate.mean), standard deviation \(estimate.deviation ?? 0)\(reference)")
        }
    }

    private func percent(_ share: Double) -> String { "\((share * 1000).rounded() / 10) %" }
}

/// A day's estimate over A/A runs: how noisy the world is, beside what the reference found in its own (C.2, "estimator check").
private struct ABEstimate {
    var metric: String
    var mean: Double
    /// Nil of a single run.
    var deviation: Double?
    /// Of 24 h and 20 symbols; nil where the reference has none.
    var reference: Double?

    private static let references = [
        "slippage_bps": 0.0064, "taker_share": 0.0019486584656012893, "log_latency_p95": 0.0012369835750335838,
    ]

    static func all(_ results: [ABResult]) -> [ABEstimate] {
        GateMetric.allCases.compactMap { metric in
            let values = results.compactMap { $0.estimates[metric.rawValue] }
            guard !values.isEmpty else { return nil }
            let mean = values.reduce(0, +) / Double(values.count)
            let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            return ABEstimate(
                metric: metric.rawValue, mean: mean, deviation: values.count > 1 ? (squares / Double(values.count - 1)).squareRoot() : nil,
                reference: references[metric.rawValue])
        }
    }
}

/// What a set of runs comes to.
private struct ABRates {
    var runs: Int
    var fired: [(gate: String, count: Int)]
    private var anyCount: Int
    /// Of the watched gate, ascending; infinite where it never fired. Nil in an A/A world.
    private var detections: [Double]?

    /// `runs`: minute of each gate that fired, by name.
    init(_ runs: [[String: Double]], watched: String?) {
        self.runs = runs.count
        anyCount = runs.count { !$0.isEmpty }
        let names = Gate.all.map(\.name) + [ABRunner.objectiveName]
        fired = names.map { name in (name, runs.count { $0[name] != nil }) }
        detections = watched.map { name in runs.map { $0[name] ?? .infinity }.sorted() }
    }

    var anyRate: Double { Double(anyCount) / Double(runs) }
    var wilson: ClosedRange<Double>? { wilsonInterval(successes: anyCount, of: runs) }
    var detectedRate: Double? { detections.map { Double($0.count { $0 < .infinity }) / Double(runs) } }

    /// The product's quantile (SPEC 1.4); nil when that run never detected.
    func minutes(_ percent: Int) -> Double? {
        detections.flatMap { values in
            let value = values[min(values.count - 1, percent * values.count / 100)]
            return value < .infinity ? value : nil
        }
    }
}
