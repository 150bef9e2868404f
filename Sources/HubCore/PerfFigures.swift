import CalibModel
import Wire

/// What stages cost in one or more runs of one workload: the input of `PerfGate`.
///
/// `proto-json/perf.schema.json` describes the form. Three older ones of the first program are read too: `budgets.<stage>.p95`,
/// `<stage>.p95` at the top, and `stages.<Class>.p95_ms`, each one run in milliseconds; its names `stage_fetch_md` and so on become
/// ours. A threshold inside a file has no say: what is allowed is the caller's business.
package struct PerfFigures: Sendable, Equatable {
    package enum Unit: String, Sendable, CaseIterable {
        case nanoseconds = "ns"
        case milliseconds = "ms"
        /// Counted, not timed: the same program does the same number on the same input, so one run tells all.
        case instructions

        /// The member of a stage that holds its figure: the p95 of a run's durations, or the mean count.
        package var member: String { self == .instructions ? "mean" : "p95" }
        var runsMin: Int { self == .instructions ? 1 : Limits.perfTimedRunsMin }
    }

    package struct Stage: Sendable, Equatable {
        package var name: String
        /// One figure per run, in 1e-6 of the unit, all above 0, in the order of runs.
        package var values: [Int64]
    }

    /// Why a file holds no figures that could be judged.
    package enum Failure: Error, Equatable, Sendable {
        case json(JSONError)
        case tooLarge(bytes: Int)
        /// The version found.
        case schema(String)
        /// A member that must be there, by its path.
        case missing(String)
        /// A member's path, and what is allowed there.
        case wrong(String, allowed: String)
        case noStages
        case tooFewRuns(Int, needed: Int)
    }

    package static let schemaVersion: Int64 = 1

    package var unit: Unit
    /// Free text: where, what and how was measured; nil when the file does not say.
    package var machine: String?
    package var workload: String?
    package var runCount: Int
    /// In the order of the first run; at least one.
    package var stages: [Stage]
    package var isSeedForm = false
    /// The file names a threshold of its own, which is not used.
    package var namesThreshold = false

    package static func parse(_ bytes: [UInt8]) throws(Failure) -> PerfFigures {
        guard bytes.count <= Limits.perfFileBytesMax else { throw .tooLarge(bytes: bytes.count) }
        let root: JSONValue
        do throws(JSONError) { root = try JSONValue.parse(bytes) } catch { throw .json(error) }
        guard root.members != nil else { throw .wrong("the file", allowed: "an object") }
        var figures = root["schema"] == nil ? try seedForm(root) : try ownForm(root)
        figures.namesThreshold = root["thresholds"] != nil || root["threshold"] != nil
        return figures
    }

    // MARK: Our form

    private static func ownForm(_ root: JSONValue) throws(Failure) -> PerfFigures {
        guard root["schema"]?.integer == schemaVersion else { throw .schema(root["schema"].map(text) ?? "none") }
        guard let named = root["unit"] else { throw .missing("unit") }
        guard let unit = named.string.flatMap(Unit.init(rawValue:)) else {
            throw .wrong("unit", allowed: Unit.allCases.map(\.rawValue).joined(separator: ", "))
        }
        guard let runs = root["runs"] else { throw .missing("runs") }
        guard let list = runs.array, list.count <= Limits.perfRunsMax else {
            throw .wrong("runs", allowed: "an array of at most \(Limits.perfRunsMax) runs")
        }
        guard list.count >= unit.runsMin else { throw .tooFewRuns(list.count, needed: unit.runsMin) }
        var stages: [Stage] = []
        for (index, run) in list.enumerated() {
            let found = try figures(of: run["stages"], at: "runs[\(index)].stages", member: unit.member)
            if index == 0 {
                stages = found.map { Stage(name: $0.name, values: [$0.value]) }
            } else {
                let byName = Dictionary(found.map { ($0.name, $0.value) }) { first, _ in first }
                for place in stages.indices {
                    let path = "runs[\(index)].stages.\(stages[place].name)"
                    guard let value = byName[stages[place].name] else { throw .missing(path) }
                    stages[place].values.append(value)
                }
                // As many as in the first run, each of them there: nothing else can be there.
                if let extra = found.first(where: { new in !stages.contains { $0.name == new.name } }) {
                    throw .missing("runs[0].stages.\(extra.name)")
                }
            }
        }
        return PerfFigures(
            unit: unit, machine: root["machine"]?.string, workload: root["workload"]?.string, runCount: list.count, stages: stages)
    }

    // MARK: The first program's forms

    private static let seedNames = [
        "stage_fetch_md": "FetchMDStage", "stage_spread": "SpreadStage", "stage_guards": "GuardsStage", "stage_inventory": "InventoryStage",
        "stage_queue_aware": "QueueAwareStage", "stage_emit": "EmitStage", "tick_total": "tick_total",
    ]

    private static func seedForm(_ root: JSONValue) throws(Failure) -> PerfFigures {
        let found: [(name: String, value: Int64)]
        if let budgets = root["budgets"] {
            found = try figures(of: budgets, at: "budgets", member: "p95")
        } else if let stages = root["stages"] {
            found = try figures(of: stages, at: "stages", member: "p95_ms")
        } else {
            let named = (root.members ?? []).filter { seedNames[$0.name] != nil }
            guard !named.isEmpty else { throw .missing("schema") }
            found = try figures(of: .object(named), at: "", member: "p95")
        }
        let stages = found.map { Stage(name: seedNames[$0.name] ?? $0.name, values: [$0.value]) }
        guard Set(stages.map(\.name)).count == stages.count else { throw .wrong("stages", allowed: "each stage once") }
        return PerfFigures(unit: .milliseconds, runCount: 1, stages: stages, isSeedForm: true)
    }

    // MARK: Leaves

    private static func figures(
        of stages: JSONValue?, at path: String, member: String
    ) throws(Failure) -> [(name: String, value: Int64)] {
        guard let stages else { throw .missing(path) }
        guard let members = stages.members, members.count <= Limits.perfStagesMax else {
            throw .wrong(path, allowed: "an object of at most \(Limits.perfStagesMax) stages")
        }
        guard !members.isEmpty else { throw .noStages }
        var found: [(name: String, value: Int64)] = []
        for stage in members {
            let place = path.isEmpty ? stage.name : "\(path).\(stage.name)"
            guard isName(stage.name) else {
                throw .wrong(path, allowed: "stage names of 1 to 64 letters, digits, blanks and _ . : / -")
            }
            guard let figure = stage.value[member] else { throw .missing("\(place).\(member)") }
            // What costs nothing was not measured. NaN and infinity are no JSON, so they do not come this far.
            guard let value = figure.fixed(places: 6), value > 0 else { throw .wrong("\(place).\(member)", allowed: "a number above 0") }
            found.append((stage.name, value))
        }
        return found
    }

    /// Names go into a Markdown table as they are.
    private static func isName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                switch $0 {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x20, 0x5f, 0x2e, 0x3a, 0x2f, 0x2d: true
                default: false
                }
            }
    }

    private static func text(_ value: JSONValue) -> String {
        switch value {
        case .number(let text), .string(let text): String(text.prefix(20))
        default: "no number"
        }
    }
}

extension PerfFigures.Failure: CustomStringConvertible {
    package var description: String {
        switch self {
        case .json(let error): "it is no JSON (\(error)); NaN and infinity are no JSON numbers"
        case .tooLarge(let bytes): "it has \(bytes) bytes, more than \(Limits.perfFileBytesMax)"
        case .schema(let found): "its schema is \(found), this program reads \(PerfFigures.schemaVersion)"
        case .missing(let path): "'\(path)' is missing"
        case .wrong(let path, let allowed): "'\(path)' is not \(allowed)"
        case .noStages: "it has no stages"
        case .tooFewRuns(let found, let needed): "it has \(found) runs, fewer than the \(needed) its unit needs"
        }
    }
}
