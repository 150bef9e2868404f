import CalibModel
import Wire

/// `calib_summary_{stem}.md`: what is in a dataset, for a reader who decides whether to calibrate on it (SPEC 6.8).
///
/// Numbers are taken from the dataset to six decimals. Median, p25, p75 and p95 all follow the product's one quantile rule (SPEC 1.4); the
/// standard deviation is the sample's (n-1), `-` for one value. Filtered intervals a dataset kept with `--keep-filtered` are left out of
/// the distributions, and so are nulls; both are counted.
package struct Summary {
    package enum Failure: Error, Equatable, Sendable {
        case json(JSONError)
        /// A required member is missing: `intervals`, `from_ts` and so on.
        case missing(String)
    }

    static let places = 6

    /// The feeds a dataset is made of.
    private static let feeds: [Feed] = [.fills, .ticks, .markouts, .snapshots, .quotes]
    private static let seedFeeds: [Feed] = [.fills, .ticks]

    /// Units of the columns; `proto-json/dataset.schema.json` defines each.
    static let units: [String: String] = [
        "net_bps": "bps", "slippage_bps": "bps", "fill_rate": "ratio", "taker_share": "ratio", "latency_p95_ms": "ms",
        "cache_hit_ratio": "ratio", "cache_age_avg_ms": "ms", "deadline_miss_rate": "ratio", "stale_rate": "ratio",
        "vol_realized": "bps per sqrt s", "liq_top_depth": "base asset", "latency_p95": "ms", "pnl_dev": "bps",
        "queue_absorb_rate": "base asset/s", "queue_eta_ms": "ms", "adverse_move_bps": "bps",
    ]

    /// What each flag says of its interval.
    static let meanings: [String: String] = [
        "partial": "the range cuts the interval: it holds less than its length",
        "basis:ticks": "seed form: fill_rate is fills per tick row, as quotes are not recorded",
        "basis:mid_now": "seed form: net_bps is measured against the mid at the fill, as markouts are not recorded",
        "seq_conflict": "two rows of one identity have different bytes; both count",
        "markouts_missing": "fills without a known 5-s markout are left out of net_bps",
        "filtered:min_samples": "fewer tick rows than --min-samples-per-interval",
        "filtered:deadline_miss": "deadline_miss_rate above --max-deadline-miss",
    ]

    /// One numeric column over the intervals that were kept.
    struct Column {
        var name: String
        var values: [Int64] = []
        var nulls = 0
    }
    struct Stream {
        var host = ""
        var feed = ""
        var rows: Int64 = 0
        var missing: Int64 = 0
        var conflicts: Int64 = 0
    }

    private(set) var scalars: [String: String] = [:]
    private(set) var hosts: [String] = []
    private(set) var streams: [Stream] = []
    private(set) var removals: [(symbol: String, host: String, reason: String, intervals: Int64)] = []
    private(set) var intervalsBySymbol: [String: Int] = [:]
    private(set) var targets: [Column] = []
    private(set) var features: [Column] = []
    private(set) var flags: [String: Int] = [:]
    private(set) var kept = 0
    private var listed = 0
    /// Rows of each feed over all intervals listed, by the name in `sample_count`.
    private var samples: [String: Int64] = [:]
    private var hasIntervals = false

    /// `stem`: the dataset's file name without `.json`. Fails on text that is no dataset, never traps.
    package static func markdown(of dataset: UnsafeRawBufferPointer, stem: String) throws(Failure) -> [UInt8] {
        Array(try read(dataset).text(stem: stem).utf8)
    }

    static func read(_ dataset: UnsafeRawBufferPointer) throws(Failure) -> Summary {
        var summary = Summary()
        do throws(JSONError) { try summary.read(dataset) } catch { throw .json(error) }
        for name in ["from_ts", "to_ts", "interval_sec", "total_intervals", "filtered_count"] where summary.scalars[name] == nil {
            throw .missing(name)
        }
        guard summary.hasIntervals else { throw .missing("intervals") }
        return summary
    }

    // MARK: Reading

    private mutating func read(_ bytes: UnsafeRawBufferPointer) throws(JSONError) {
        guard UTF8Check.isValid(bytes) else { throw .syntax(at: 0) }
        var reader = JSONReader(bytes)
        try reader.beginObject()
        while let key = try reader.nextKey() {
            switch Self.string(key) {
            case "hosts": hosts = try Self.strings(&reader)
            case "watermarks": try readStreams(&reader)
            case "filtered": try readRemovals(&reader)
            case "intervals":
                hasIntervals = true
                try reader.beginArray()
                while try reader.nextElement() { try readInterval(&reader) }
            case let name: scalars[name] = try Self.scalar(&reader)
            }
        }
        try reader.end()
    }

    private mutating func readStreams(_ reader: inout JSONReader) throws(JSONError) {
        try reader.beginArray()
        while try reader.nextElement() {
            var stream = Stream()
            try reader.beginObject()
            while let key = try reader.nextKey() {
                switch Self.string(key) {
                case "host": stream.host = Self.string(try reader.string())
                case "feed": stream.feed = Self.string(try reader.string())
                case "rows": stream.rows = try reader.integer()
                case "missing": stream.missing = try reader.integer()
                case "conflicts": stream.conflicts = try reader.integer()
                default: try reader.skip()
                }
            }
            streams.append(stream)
        }
    }

    private mutating func readRemovals(_ reader: inout JSONReader) throws(JSONError) {
        try reader.beginArray()
        while try reader.nextElement() {
            var removal = (symbol: "", host: "", reason: "", intervals: Int64(0))
            try reader.beginObject()
            while let key = try reader.nextKey() {
                switch Self.string(key) {
                case "symbol": removal.symbol = Self.string(try reader.string())
                case "host": removal.host = Self.string(try reader.string())
                case "reason": removal.reason = Self.string(try reader.string())
                case "intervals": removal.intervals = try reader.integer()
                default: try reader.skip()
                }
            }
            removals.append(removal)
        }
    }

    private mutating func readInterval(_ reader: inout JSONReader) throws(JSONError) {
        var symbol = ""
        var found: [String] = []
        var targetCells: [(String, Int64?)] = []
        var featureCells: [(String, Int64?)] = []
        try reader.beginObject()
        while let key = try reader.nextKey() {
            switch Self.string(key) {
            case "symbol": symbol = Self.string(try reader.string())
            case "targets": targetCells = try Self.cells(&reader)
            case "features": featureCells = try Self.cells(&reader)
            case "flags": found = try Self.strings(&reader)
            case "sample_count":
                try reader.beginObject()
                while let name = try reader.nextKey() { samples[Self.string(name), default: 0] &+= try reader.integer() }
            default: try reader.skip()
            }
        }
        listed += 1
        for flag in found { flags[flag, default: 0] += 1 }
        if found.contains(where: { $0.hasPrefix("filtered:") }) { return }
        kept += 1
        intervalsBySymbol[symbol, default: 0] += 1
        Self.add(targetCells, to: &targets)
        Self.add(featureCells, to: &features)
    }

    private static func add(_ cells: [(String, Int64?)], to columns: inout [Column]) {
        for (place, (name, value)) in cells.enumerated() {
            let index: Int
            if place < columns.count, columns[place].name == name {
                index = place
            } else if let other = columns.firstIndex(where: { $0.name == name }) {
                index = other
            } else {
                index = columns.count
                columns.append(Column(name: name))
            }
            if let value { columns[index].values.append(value) } else { columns[index].nulls += 1 }
        }
    }

    private static func cells(_ reader: inout JSONReader) throws(JSONError) -> [(String, Int64?)] {
        var cells: [(String, Int64?)] = []
        try reader.beginObject()
        while let key = try reader.nextKey() {
            let name = string(key)
            cells.append((name, try reader.null() ? nil : try reader.fixed(places: places)))
        }
        return cells
    }

    private static func strings(_ reader: inout JSONReader) throws(JSONError) -> [String] {
        var strings: [String] = []
        try reader.beginArray()
        while try reader.nextElement() { strings.append(string(try reader.string())) }
        return strings
    }

    /// A string's or any other value's text.
    private static func scalar(_ reader: inout JSONReader) throws(JSONError) -> String {
        if try reader.peek() == .string { return string(try reader.string()) }
        return String(decoding: try reader.raw(), as: UTF8.self)
    }

    private static func string(_ raw: UnsafeRawBufferPointer) -> String {
        if let resolved = JSONText.resolved(raw) { return String(decoding: resolved, as: UTF8.self) }
        return String(decoding: raw, as: UTF8.self)
    }

    // MARK: Writing

    private func text(stem: String) -> String {
        func known(_ name: String) -> String { scalars[name].map(Self.escaped) ?? "-" }
        var lines: [String] = []
        lines.append("# Calibration Summary: \(Self.escaped(stem))")
        lines.append("")
        lines.append("**Dataset**: `\(stem).json`  ")
        lines.append("**Period**: \(known("from_ts")) to \(known("to_ts"))  ")
        lines.append("**Interval**: \(known("interval_sec")) s")
        lines.append("")
        lines.append("## Overview")
        lines.append("")
        lines.append("- **Total intervals**: \(known("total_intervals")) (kept \(kept), filtered \(known("filtered_count")))")
        lines.append("- **Total symbols**: \(intervalsBySymbol.count)")
        lines.append("- **Source**: \(known("source"))")
        lines.append("- **Arm**: \(known("arm"))")
        lines.append("- **Hosts**: \(hosts.isEmpty ? "-" : hosts.map(Self.escaped).joined(separator: ", "))")
        lines.append("")
        lines.append("## Intervals by symbol")
        lines.append("")
        if kept == 0 {
            lines.append(Self.nothingKept)
        } else {
            lines.append("| Symbol | Intervals | Share |")
            lines.append("|---|---:|---:|")
            let order = intervalsBySymbol.sorted { $0.value == $1.value ? $0.key < $1.key : $0.value > $1.value }
            for (symbol, count) in order { lines.append("| \(Self.escaped(symbol)) | \(count) | \(Self.percent(count, of: kept)) |") }
        }
        lines.append("")
        lines.append("## Target distributions")
        lines.append("")
        distributions(targets, &lines)
        if kept > 0 {
            lines.append(
                "Here and below a q-quantile of n values is the one at place min(n-1, floor(q*n)) of the ascending values, counted from 0; "
                    + "stdev is the sample's (n-1).")
            lines.append("")
        }
        lines.append("## Feature distributions")
        lines.append("")
        distributions(features, &lines)
        if kept > 0 {
            lines.append(
                "`latency_p95_ms` is taken from the tick rows, which are sampled, by their weights; `latency_p95` from all ticks, by the "
                    + "histograms of the snapshots. `fill_rate`, `taker_share` and `slippage_bps` stand in both tables: targets are what is "
                    + "tuned, features what is known when tuning.")
            lines.append("")
        }
        quality(&lines)
        return lines.joined(separator: "\n") + "\n"
    }

    private func distributions(_ columns: [Column], _ lines: inout [String]) {
        guard kept > 0 else {
            lines.append(Self.nothingKept)
            lines.append("")
            return
        }
        lines.append("| Name | Unit | Count | Mean | Median | Stdev | Min | Max | p25 | p75 | p95 |")
        lines.append("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
        for column in columns {
            let ascending = column.values.sorted()
            func quantile(_ percent: Int) -> String { Self.number(Quantile.of(ascending: ascending, percent: percent)) }
            let cells = [
                Self.escaped(column.name), Self.units[column.name] ?? "-", "\(ascending.count)", Self.number(Self.mean(ascending)),
                quantile(50),
                Self.number(Self.deviation(ascending)),
                Self.number(ascending.first), Self.number(ascending.last), quantile(25), quantile(75), quantile(95),
            ]
            lines.append("| " + cells.joined(separator: " | ") + " |")
        }
        lines.append("")
    }

    static let nothingKept = "No interval was kept."

    private func quality(_ lines: inout [String]) {
        lines.append("## Data quality")
        lines.append("")
        lines.append("### Nulls (unknown values; NaN and infinity cannot be written)")
        lines.append("")
        let withNulls = (targets.map { ("targets", $0) } + features.map { ("features", $0) }).filter { $0.1.nulls > 0 }
        if withNulls.isEmpty {
            lines.append("None.")
        } else {
            lines.append("| Column | Nulls | Share of kept intervals |")
            lines.append("|---|---:|---:|")
            for (group, column) in withNulls {
                lines.append("| \(group).\(Self.escaped(column.name)) | \(column.nulls) | \(Self.percent(column.nulls, of: kept)) |")
            }
        }
        lines.append("")
        lines.append("### Filtered intervals")
        lines.append("")
        if removals.isEmpty {
            lines.append("None.")
        } else {
            lines.append("| Symbol | Host | Reason | Intervals |")
            lines.append("|---|---|---|---:|")
            for removal in removals {
                let host = removal.host.isEmpty ? "all" : Self.escaped(removal.host)
                lines.append("| \(Self.escaped(removal.symbol)) | \(host) | \(removal.reason) | \(removal.intervals) |")
            }
        }
        lines.append("")
        lines.append("### Sequence gaps and conflicts")
        lines.append("")
        let troubled = streams.filter { $0.missing > 0 || $0.conflicts > 0 }
        if streams.isEmpty {
            lines.append("Unknown: the rows carry no sequence numbers.")
        } else if troubled.isEmpty {
            lines.append("None.")
        } else {
            lines.append("| Host | Feed | Rows | Missing | Conflicts |")
            lines.append("|---|---|---:|---:|---:|")
            for stream in troubled {
                lines.append("| \(Self.escaped(stream.host)) | \(stream.feed) | \(stream.rows) | \(stream.missing) | \(stream.conflicts) |")
            }
        }
        lines.append("")
        lines.append("### Missing feeds by host")
        lines.append("")
        if let missing = missingFeeds {
            lines += missing.isEmpty ? ["None."] : missing.map { "- \(Self.escaped($0.host)): \($0.feeds.joined(separator: ", "))" }
        } else {
            lines.append("Unknown: the rows carry no identity.")
        }
        lines.append("")
        lines.append("### Flags")
        lines.append("")
        if flags.isEmpty {
            lines.append("None.")
        } else {
            lines.append("| Flag | Intervals | Meaning |")
            lines.append("|---|---:|---|")
            for flag in flags.keys.sorted() {
                lines.append("| \(Self.escaped(flag)) | \(flags[flag] ?? 0) | \(Self.meanings[flag] ?? "-") |")
            }
        }
    }

    /// By host the feeds of which it gave no row in the range; nil is unknown. Rows of the seed form have no streams, so there the listed intervals
    /// tell, and only for all hosts together.
    var missingFeeds: [(host: String, feeds: [String])]? {
        if !streams.isEmpty {
            return hosts.map { host in
                let present = Set(streams.filter { $0.host == host && $0.rows > 0 }.map(\.feed))
                return (host, Self.feeds.map(\.rawValue).filter { !present.contains($0) })
            }.filter { !$0.feeds.isEmpty }
        }
        guard scalars["source"] == "seed", listed > 0 else { return nil }
        let missing = Self.seedFeeds.filter { (samples[$0 == .fills ? "fills" : "ticks"] ?? 0) == 0 }.map(\.rawValue)
        return missing.isEmpty ? [] : [("all hosts", missing)]
    }

    // MARK: Numbers

    static func mean(_ values: [Int64]) -> Int64? {
        FixedPoint.divide(values.reduce(Int128(0)) { $0 + Int128($1) }, by: Int128(values.count))
    }

    /// Sample standard deviation; nil for fewer than two values.
    static func deviation(_ values: [Int64]) -> Int64? {
        guard values.count > 1, let center = mean(values) else { return nil }
        var squares = 0.0
        for value in values {
            let difference = Double(Int128(value) - Int128(center))
            squares += difference * difference
        }
        return FixedPoint.fixed((squares / Double(values.count - 1)).squareRoot(), scale: 1)
    }

    static func number(_ value: Int64?) -> String {
        guard let value else { return "-" }
        var json = JSONWriter()
        json.fixed(value, places: places)
        return String(decoding: json.take(), as: UTF8.self)
    }

    static func percent(_ part: Int, of whole: Int) -> String {
        guard whole > 0 else { return "-" }
        let tenths = FixedPoint.divide(Int128(part) * 1000, by: Int128(whole)) ?? 0
        return "\(tenths / 10).\(tenths % 10) %"
    }

    private static func escaped(_ text: String) -> String { ReportText.escaped(text) }
}
