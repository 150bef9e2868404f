import CalibModel

// Metrics as Prometheus reads them: text 0.0.4 and OpenMetrics 1.0.0 from one model (SPEC 9.2).
//
// The two differ in five places only. A counter's family is `x` in OpenMetrics and `x_total` in 0.0.4, its sample `x_total` in both; the
// order TYPE, UNIT, HELP against HELP, TYPE; quotes in HELP, escaped in OpenMetrics; `# EOF`, by which a reader of OpenMetrics knows that
// nothing was cut off; and a histogram with bounds below 0 has no `_sum` and `_count` in OpenMetrics, which forbids a sum that can fall.
//
// Bounds are written alike in both ("1.0", never "1"), so that a series keeps its labels whichever form is scraped.

/// A form of the exposition.
package enum MetricsForm: Sendable, Equatable {
    case text
    case openMetrics

    /// What an `Accept` header asks for: OpenMetrics when it is named with a weight above 0, else the old text that everyone reads.
    package init(accept: String) {
        self = .text
        for range in accept.split(separator: ",") {
            let words = range.split(separator: ";").map { $0.filter { $0 != " " }.lowercased() }
            guard words.first == "application/openmetrics-text" else { continue }
            let refusals = ["q=0", "q=0.0", "q=0.00", "q=0.000"]
            if !words.contains(where: refusals.contains) { self = .openMetrics }
        }
    }

    package var contentType: String {
        switch self {
        case .text: "text/plain; version=0.0.4; charset=utf-8"
        case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
        }
    }
}

extension MetricValue {
    fileprivate var isHistogram: Bool { if case .histogram = self { true } else { false } }
}

/// A sample's value: exact, so NaN and infinity cannot be written (SPEC 1.5). What is unknown has no sample.
package enum MetricValue: Sendable, Equatable {
    case integer(Int64)
    /// `value * 10^-places`.
    case fixed(Int64, places: Int)
    /// Of a `.histogram` family only. `counts` has one place more than `bounds`, is not cumulative, and ends with what lies above all bounds;
    /// bounds and sum are `value * 10^-places`.
    case histogram(bounds: [Int64], counts: [Int64], sum: Int64, places: Int)

    /// A histogram as it stands, in units of 10^-places: 9 for nanoseconds shown in seconds.
    package static func histogram(_ histogram: BoundedHistogram, places: Int) -> MetricValue {
        .histogram(bounds: histogram.bounds, counts: histogram.counts, sum: histogram.sum, places: places)
    }
}

package struct MetricSample: Sendable, Equatable {
    package struct Label: Sendable, Equatable {
        package var name: String
        package var value: String
        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }
    /// Written in this order.
    package var labels: [Label]
    package var value: MetricValue

    package init(_ value: MetricValue, labels: [(String, String)] = []) {
        self.labels = labels.map { Label($0.0, $0.1) }
        self.value = value
    }
}

/// Samples of one name: HELP and TYPE are written once, and nothing at all while there is no sample.
package struct MetricFamily: Sendable, Equatable {
    package enum Kind: String, Sendable { case gauge, counter, histogram }

    /// Without `_total`, which a counter's samples get.
    package var name: String
    package var kind: Kind
    package var help: String
    /// A base unit the name ends with, such as `seconds`; nil for none. Only OpenMetrics has a place for it.
    package var unit: String?
    package var samples: [MetricSample]

    package init(_ name: String, _ kind: Kind, help: String, unit: String? = nil, samples: [MetricSample]) {
        precondition(Self.isName(name) && !name.hasSuffix("_total"), "BUG: '\(name)' is no name of a metric family")
        precondition(unit.map { name.hasSuffix("_\($0)") } ?? true, "BUG: '\(name)' does not end with its unit")
        precondition(samples.allSatisfy { $0.labels.allSatisfy { Self.isName($0.name) } }, "BUG: a label of '\(name)' has no proper name")
        precondition(samples.allSatisfy { $0.value.isHistogram == (kind == .histogram) }, "BUG: '\(name)' mixes kinds")
        self.name = name
        self.kind = kind
        self.help = help
        self.unit = unit
        self.samples = samples
    }

    /// One sample without labels.
    package init(_ name: String, _ kind: Kind, help: String, unit: String? = nil, value: MetricValue?) {
        self.init(name, kind, help: help, unit: unit, samples: value.map { [MetricSample($0)] } ?? [])
    }

    /// Letters, digits and '_', no digit first. The ':' that Prometheus allows is for recording rules.
    private static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, !(48...57).contains(first) else { return false }
        return text.utf8.allSatisfy { (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 95 }
    }
}

package enum Prometheus {
    /// The families in the order given, every one of them with its samples in the order given. Family names are the caller's to keep apart.
    package static func exposition(_ families: [MetricFamily], _ form: MetricsForm) -> [UInt8] {
        var writer = ExpositionWriter(form: form)
        for family in families where !family.samples.isEmpty { writer.write(family) }
        if form == .openMetrics { writer.append("# EOF\n") }
        return writer.bytes
    }
}

private struct ExpositionWriter {
    var form: MetricsForm
    var bytes: [UInt8] = []
    /// Writes the numbers: the same digits as in a record.
    private var number = JSONWriter()

    init(form: MetricsForm) { self.form = form }

    mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    mutating func write(_ family: MetricFamily) {
        let sampleName = family.kind == .counter ? family.name + "_total" : family.name
        switch form {
        case .text:
            append("# HELP \(sampleName) \(escaped(family.help, quotes: false))\n# TYPE \(sampleName) \(family.kind.rawValue)\n")
        case .openMetrics:
            append("# TYPE \(family.name) \(family.kind.rawValue)\n")
            if let unit = family.unit { append("# UNIT \(family.name) \(unit)\n") }
            append("# HELP \(family.name) \(escaped(family.help, quotes: true))\n")
        }
        for sample in family.samples {
            guard case .histogram(let bounds, let counts, let sum, let places) = sample.value else {
                line(sampleName, sample.labels, sample.value)
                continue
            }
            precondition(counts.count == bounds.count + 1, "BUG: \(counts.count) counts under \(bounds.count) bounds in \(family.name)")
            var count: Int64 = 0
            for (place, inside) in counts.enumerated() {
                count += inside
                let bound = place < bounds.count ? digits(.fixed(bounds[place], places: places)) : "+Inf"
                line(family.name + "_bucket", sample.labels + [.init("le", bound)], .integer(count))
            }
            if form == .openMetrics, bounds.contains(where: { $0 < 0 }) { continue }
            line(family.name + "_sum", sample.labels, .fixed(sum, places: places))
            line(family.name + "_count", sample.labels, .integer(count))
        }
    }

    private mutating func line(_ name: String, _ labels: [MetricSample.Label], _ value: MetricValue) {
        append(name)
        for (index, label) in labels.enumerated() {
            append("\(index == 0 ? "{" : ",")\(label.name)=\"\(escaped(label.value, quotes: true))\"")
        }
        append(labels.isEmpty ? " " : "} ")
        append(digits(value))
        append("\n")
    }

    private mutating func digits(_ value: MetricValue) -> String {
        number.removeAll()
        switch value {
        case .integer(let value): number.integer(value)
        case .fixed(let value, let places): number.fixed(value, places: places)
        case .histogram: preconditionFailure("BUG: a histogram is several numbers")
        }
        return String(decoding: number.bytes, as: UTF8.self)
    }

    private func escaped(_ text: String, quotes: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

// MARK: - The ten features of a symbol

extension Feature {
    /// Of the gauge, one of the ten names dashboards are built on.
    package var metric: String { "mm_symbol_\(name)" }

    /// Unit and sign, which the names do not all say (SPEC 5).
    package var help: String {
        switch self {
        case .volRealized: "Realised volatility in bps per square root of a second, from an EMA of squared 1-s returns."
        case .liqTopDepth: "EMA of best bid quantity plus best ask quantity, in the base asset."
        case .latencyP95: "95th percentile of the tick's total duration over the last 300 s, in ms."
        case .pnlDev: "EMA of profit minus its target in bps; above 0 is better than the target."
        case .fillRate: "Filled orders per quote over the last 300 s, a ratio from 0 to 1."
        case .takerShare: "Taker fills per fill over the last 300 s, a ratio from 0 to 1."
        case .queueAbsorbRate: "EMA of quantity traded or cancelled ahead of our orders, in the base asset per second."
        case .queueETA: "Expected time until the queue ahead is gone, of the longer side, in ms; absent while nothing moves."
        case .slippage: "EMA of fill price against quote price in bps; above 0 is a cost to us."
        case .adverseMove: "EMA of the mid's move against us within 5 s after a fill in bps; above 0 is a cost to us."
        }
    }
}

/// What one symbol shows: on a hub beside the host that said so, on an edge without it (there the scraper names the host).
package struct SymbolFeatures: Sendable, Equatable {
    package var symbol: String
    package var host: String?
    /// In `Feature` order and in the feature's own places; nil is unknown and has no sample.
    package var values: [Int64?]
    package init(symbol: String, host: String? = nil, values: [Int64?]) {
        precondition(values.count == Feature.allCases.count, "BUG: \(values.count) features of '\(symbol)'")
        self.symbol = symbol
        self.host = host
        self.values = values
    }
}

extension Prometheus {
    /// The ten `mm_symbol_*` gauges, symbols in the order given.
    package static func families(of symbols: [SymbolFeatures]) -> [MetricFamily] {
        Feature.allCases.map { feature in
            let samples = symbols.compactMap { symbol -> MetricSample? in
                guard let value = symbol.values[feature.rawValue] else { return nil }
                var labels = [("symbol", symbol.symbol)]
                if let host = symbol.host { labels.append(("host", host)) }
                return MetricSample(.fixed(value, places: feature.places), labels: labels)
            }
            return MetricFamily(feature.metric, .gauge, help: feature.help, samples: samples)
        }
    }
}
