import CalibModel
import Wire

/// The report as one page: the tables of the Markdown, and for each hypothesis of a gate its plot.
extension ABModel {
    var html: String {
        var body = "<h1>AB Test Report: \(Page.text(run.id))</h1>\n"
        body +=
            "<p>Experiment <b>\(Page.text(run.experiment.id))</b> (\(Page.text(run.experiment.design)), \(Page.text(run.experiment.mode))): "
        body +=
            "\(Page.text(run.state))\(run.verdict.map { ", verdict <b>\($0.rawValue)</b>" } ?? ""). Generated \(TimeText.seconds(run.generatedMilliseconds)). "
        body += "Hosts: \(hosts.isEmpty ? "-" : hosts.map(Page.text).joined(separator: ", ")). Source: \(source?.name ?? "-").</p>\n"
        body += comparisonTable + gateTable + plots + decisionTable
        body += "<p>\(Page.text(Self.statement))</p>\n"
        return Page.document(title: "ab_run_\(run.id)", body: body)
    }

    private static func table(_ title: String, _ head: [String], _ rows: [[String]]) -> String {
        guard !rows.isEmpty else { return "" }
        return "<h2>\(title)</h2>\n" + Page.table(head, rows.map { $0.map(Page.text) })
    }

    private var comparisonTable: String {
        let rows = Metric.all.map { metric -> [String] in
            let (left, right) = (metric.value(a), metric.value(b))
            func cell(_ value: Int64?) -> String { value.map { ReportText.decimal($0, places: metric.places) } ?? "-" }
            let delta = left.flatMap { left in right.map { ReportText.signed($0 &- left, places: metric.places) } } ?? "-"
            return [
                metric.title, cell(left), cell(right), delta, metric.isNotWorse(left, right).map { $0 ? "\u{2713}" : "\u{2717}" } ?? "-",
            ]
        }
        return Self.table("Metrics", ["Metric", "#Bucket A", "#Bucket B", "#Delta (B - A)", "Result"], rows)
    }

    private var gateTable: String {
        func number(_ value: Double?) -> String { value.map { ReportText.significant($0) } ?? "-" }
        let rows = gates.flatMap { gate -> [[String]] in
            let own = [gate.name, gate.kind.rawValue, ReportText.state(gate.state)]
            guard !gate.tests.isEmpty else { return [own + [String](repeating: "-", count: 5)] }
            return gate.tests.map { test in
                own + [test.metric.rawValue, number(test.estimate), number(test.lower), number(test.upper), number(test.logEMax)]
            }
        }
        return Self.table(
            "Gates", ["Gate", "Kind", "State", "Metric", "#Effect (B - A)", "#Excluded below", "#Excluded above", "#ln e"], rows)
    }

    private var decisionTable: String {
        let rows = run.changes.map { change in
            [
                TimeText.milliseconds(change.milliseconds), change.state.rawValue, change.by, change.reason, Self.evidence(change.evidence),
            ]
        }
        return Self.table("Decisions", ["When", "State", "By", "Reason", "Evidence"], rows)
    }

    // MARK: Plots

    private static let (width, height, left) = (640.0, 120.0, 90.0)

    /// Of each hypothesis the effect with its anytime-valid interval over the pairs, and the gate's state; then how much of the plan counted.
    private var plots: String {
        guard let last = run.points.last, !last.gates.isEmpty else { return "" }
        var result = "<h2>Over the pairs</h2>\n"
        for gate in last.gates.indices {
            for test in last.gates[gate].tests.indices {
                let states = run.points.map { $0.gates[gate].state }
                let found = run.points.map { $0.gates[gate].tests[test] }
                result += "<h3>\(Page.text(last.gates[gate].name)): \(Page.text(last.gates[gate].tests[test].metric.rawValue))</h3>\n"
                result += effectPlot(found, states)
            }
        }
        result += "<h3>Exposure: symbols on hosts that count, of those planned</h3>\n"
        let shares = run.points.map { $0.planned > 0 ? Double($0.counted) / Double($0.planned) : 0 }
        return result + Self.svg(Self.axis(0...1) + Self.line(shares.enumerated().map { ($0.offset, $0.element) }, shares.count, 0...1))
    }

    private func effectPlot(_ tests: [GateEvidence.Test], _ states: [GateState]) -> String {
        // An interval that nothing bounds yet is not drawn; bounds of the first pairs must not flatten all that follows.
        let finite = tests.flatMap { [$0.estimate, $0.lower, $0.upper].compactMap(\.self) }.filter(\.isFinite).sorted()
        let known = finite.isEmpty ? [0] : Array(finite[(finite.count / 20)...(finite.count - 1 - finite.count / 20)])
        let (least, most) = (min(0, known[0]), max(0, known[known.count - 1]))
        let range = least...(most > least ? most : least + 1)
        let count = tests.count
        let bounds = tests.enumerated().compactMap { index, test in test.lower.flatMap { low in test.upper.map { (index, low, $0) } } }
        let outline = bounds.map { ($0.0, $0.1) } + bounds.reversed().map { ($0.0, $0.2) }
        var drawn = Self.axis(range)
        if !outline.isEmpty { drawn += "<polygon class=\"band\" points=\"\(Self.points(outline, count, range))\"/>" }
        drawn += Self.line(tests.enumerated().compactMap { index, test in test.estimate.map { (index, $0) } }, count, range)
        for (index, state) in states.enumerated() {
            let color =
                switch state {
                case .violated, .breaching: "bad"
                case .clear: "good"
                case .noData, .warming, .undecided: "open"
                }
            let (from, step) = (Self.x(index, count), Self.width / Double(max(1, count)))
            drawn +=
                "<rect class=\"\(color)\" x=\"\(Self.short(from - step / 2))\" y=\"\(Self.short(Self.height + 4))\" width=\"\(Self.short(step))\" height=\"6\"/>"
        }
        return Self.svg(drawn)
    }

    private static func svg(_ drawn: String) -> String {
        "<div class=t><svg viewBox=\"0 0 \(short(left + width + 10)) \(short(height + 14))\" width=\"\(short(left + width + 10))\" role=\"img\">\(drawn)</svg></div>\n"
    }

    private static func axis(_ range: ClosedRange<Double>) -> String {
        let zero = short(y(min(max(0, range.lowerBound), range.upperBound), range))
        return "<line class=\"zero\" x1=\"\(short(left))\" x2=\"\(short(left + width))\" y1=\"\(zero)\" y2=\"\(zero)\"/>"
            + "<text x=\"0\" y=\"12\">\(ReportText.significant(range.upperBound))</text>"
            + "<text x=\"0\" y=\"\(short(height))\">\(ReportText.significant(range.lowerBound))</text>"
    }

    private static func line(_ values: [(Int, Double)], _ count: Int, _ range: ClosedRange<Double>) -> String {
        "<polyline class=\"line\" points=\"\(points(values, count, range))\"/>"
    }

    private static func points(_ values: [(Int, Double)], _ count: Int, _ range: ClosedRange<Double>) -> String {
        values.map { "\(short(x($0.0, count))),\(short(y($0.1, range)))" }.joined(separator: " ")
    }

    private static func x(_ index: Int, _ count: Int) -> Double { left + width * (Double(index) + 0.5) / Double(max(1, count)) }

    private static func y(_ value: Double, _ range: ClosedRange<Double>) -> Double {
        let share = (min(max(value, range.lowerBound), range.upperBound) - range.lowerBound) / (range.upperBound - range.lowerBound)
        return height * (1 - share)
    }

    private static func short(_ value: Double) -> String { ReportText.decimal(Int64((value * 1e9).rounded()), places: 1) }
}
