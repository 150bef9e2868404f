import CalibModel
import Wire

/// What a gate found, for a person (Markdown) and for a program (JSON). A run without a verdict has a report, too: the report of the run
/// before must not stand there and look green.
package struct PerfReport: Sendable {
    package struct Side: Sendable {
        package var path: String
        /// Nil when the file could not be read.
        package var figures: PerfFigures?
        package init(path: String, figures: PerfFigures?) {
            self.path = path
            self.figures = figures
        }
    }

    package let baseline: Side
    package let current: Side
    /// In 1e-6 (30,000 is 3 %).
    package let threshold: Int64
    /// Nil when nothing was compared; `problems` then says why.
    package let gate: PerfGate?
    package private(set) var problems: [String]
    /// What a reader should know beside the verdict.
    package private(set) var notes: [String] = []

    /// `problems`: what kept the files from being read.
    package init(baseline: Side, current: Side, threshold: Int64, problems: [String]) {
        self.baseline = baseline
        self.current = current
        self.threshold = threshold
        self.problems = problems
        guard let old = baseline.figures, let new = current.figures else {
            gate = nil
            return
        }
        gate = PerfGate(baseline: old, current: new, threshold: threshold)
        guard let gate else {
            self.problems.append("the baseline counts \(old.unit.rawValue), the current figures \(new.unit.rawValue)")
            return
        }
        for row in gate.rows {
            switch row.verdict {
            case .vanished: self.problems.append("stage \(row.stage) is in the baseline but not in the current figures")
            case .unknown: self.problems.append("stage \(row.stage) has no baseline; make a new one")
            case .regression, .same, .faster: break
            }
        }
        if gate.rows.contains(where: { $0.verdict == .faster }) {
            notes.append("Stages became faster than the threshold: make a new baseline, or what was gained can be lost again unseen.")
        }
        for (side, name) in [(old, "baseline"), (new, "current")] {
            if side.isSeedForm {
                notes.append("The \(name) file is one timed run of the first program's form: without repeated runs there is no interval.")
            }
            if side.namesThreshold { notes.append("The \(name) file names a threshold of its own, which is not used.") }
        }
        if old.unit != .instructions, let here = new.machine, let there = old.machine, here != there {
            notes.append("The two files come from different machines: their times do not compare.")
        }
        if let here = new.workload, let there = old.workload, here != there {
            self.problems.append("the workloads differ: '\(there)' and '\(here)'; make a new baseline")
        }
    }

    package var outcome: PerfGate.Outcome {
        guard problems.isEmpty, let gate else { return .incomplete }
        return gate.outcome
    }

    /// One line for standard error.
    package var verdict: String {
        switch outcome {
        case .incomplete: "no verdict: \(problems.first ?? "nothing was compared")"
        case .regression: "regression: \(regressed.joined(separator: ", ")) slower by more than \(percent(threshold)) %"
        case .passed: "passed: no stage slower by more than \(percent(threshold)) %"
        }
    }

    private var regressed: [String] { (gate?.rows ?? []).filter { $0.verdict == .regression }.map(\.stage) }

    // MARK: Markdown

    package var markdown: [UInt8] {
        var lines = ["# Performance gate", ""]
        switch outcome {
        case .incomplete: lines.append("**No verdict.** The comparison is not complete; that is a failure.")
        case .regression: lines.append("**Regression** in \(regressed.joined(separator: ", ")).")
        case .passed: lines.append("**Passed.** No stage is slower by more than the threshold.")
        }
        lines.append("")
        lines += problems.map { "- \(ReportText.escaped($0))" }
        if !problems.isEmpty { lines.append("") }
        lines += ["| | baseline | current |", "|---|---|---|"]
        func line(_ title: String, _ text: (Side) -> String?) {
            lines.append("| \(title) | \(ReportText.escaped(text(baseline) ?? "-")) | \(ReportText.escaped(text(current) ?? "-")) |")
        }
        line("file") { $0.path }
        line("runs") { $0.figures.map { "\($0.runCount)" } }
        line("unit") { $0.figures?.unit.rawValue }
        line("workload") { $0.figures?.workload }
        line("machine") { $0.figures?.machine }
        lines += ["", "Threshold: +\(percent(threshold)) %.", ""]
        if let gate {
            lines += ["| stage | baseline | current | change % | interval % | verdict |", "|---|---:|---:|---:|---:|---|"]
            for row in gate.rows {
                let interval = row.interval.map { "\(signed($0.lowerBound)) to \(signed($0.upperBound))" }
                let cells = [
                    row.stage, amount(row.baseline), amount(row.current), row.change.map(signed) ?? "-", interval ?? "-",
                    row.verdict == .regression ? "**regression**" : row.verdict.rawValue,
                ]
                lines.append("| " + cells.joined(separator: " | ") + " |")
            }
            lines += [
                "",
                "Baseline and current are medians over runs of each run's p95, or of its mean count. The interval is the percentile "
                    + "bootstrap's over runs (Efron and Tibshirani 1993, section 13.3; \(PerfGate.resamples) resamples, "
                    + "\(PerfGate.intervalPercents.lower) to \(PerfGate.intervalPercents.upper) %). A stage regresses when its lower end is "
                    + "above the threshold.",
            ]
        }
        if !notes.isEmpty { lines += [""] + notes.map { "- \($0)" } }
        return Array((lines.joined(separator: "\n") + "\n").utf8)
    }

    private func amount(_ value: Int64?) -> String { value.map { ReportText.decimal($0 * 1000, places: 3) } ?? "-" }
    private func signed(_ millionths: Int64) -> String { ReportText.signed(millionths * 100_000, places: 2) }
    private func percent(_ millionths: Int64) -> String {
        let text = ReportText.decimal(millionths * 100_000, places: 4)
        let trimmed = text.reversed().drop { $0 == "0" }
        return String(trimmed.drop { $0 == "." }.reversed())
    }

    // MARK: JSON

    package var json: [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("schema", integer: Int(PerfFigures.schemaVersion))
        json.field("outcome", string: outcome.rawValue)
        json.field("threshold_percent", fixed: threshold, places: 4)
        json.field("baseline", string: baseline.path)
        json.field("current", string: current.path)
        json.key("unit")
        if let unit = current.figures?.unit { json.string(unit.rawValue) } else { json.null() }
        json.key("stages")
        json.beginArray()
        for row in gate?.rows ?? [] {
            json.beginObject()
            json.field("stage", string: row.stage)
            json.field("baseline", fixed: row.baseline, places: 6)
            json.field("current", fixed: row.current, places: 6)
            json.field("change_percent", fixed: row.change, places: 4)
            json.field("interval_lower_percent", fixed: row.interval?.lowerBound, places: 4)
            json.field("interval_upper_percent", fixed: row.interval?.upperBound, places: 4)
            json.field("verdict", string: row.verdict.rawValue)
            json.endObject()
        }
        json.endArray()
        for (name, texts) in [("problems", problems), ("notes", notes)] as [(StaticString, [String])] {
            json.key(name)
            json.beginArray()
            for text in texts { json.string(text) }
            json.endArray()
        }
        json.endObject()
        json.newline()
        return json.take()
    }
}
