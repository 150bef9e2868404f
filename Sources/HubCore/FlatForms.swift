import CalibModel
import Wire

/// A dataset as a flat table: one row per interval, for CSV and Parquet (SPEC 6.7).
enum FlatColumn {
    case text(String, isOptional: Bool, (DatasetRow) -> String?)
    /// Milliseconds UTC.
    case time(String, (DatasetRow) -> Int64)
    case integer(String, (DatasetRow) -> Int64)
    /// In 1e-9.
    case decimal(String, (DatasetRow) -> Int128?)

    var name: String {
        switch self {
        case .text(let name, _, _), .time(let name, _), .integer(let name, _), .decimal(let name, _): name
        }
    }

    /// `host` is empty where hosts are merged, `flags` are joined by blanks.
    static func columns(intervalSeconds: Int64) -> [FlatColumn] {
        [
            .text("symbol", isOptional: false) { $0.symbol }, .text("host", isOptional: true) { $0.host },
            .time("interval_start") { $0.start }, .time("interval_end") { $0.end },
            .integer("interval_start_ms") { $0.start }, .integer("interval_sec") { _ in intervalSeconds },
        ]
            + DatasetColumn.all.enumerated().map { place, column in .decimal(column.flatName) { $0.values[place] } }
            + DatasetColumn.counts.enumerated().map { place, name in .integer("count_\(name)") { $0.counts[place] } }
            + [.text("flags", isOptional: false) { $0.flags.joined(separator: " ") }]
    }
}

extension DatasetFormat {
    /// A column of the flat forms: its name, its place in the JSON, and what it holds.
    package struct Column: Sendable {
        package var name: String
        package var member: String
        package var type: String
        package var unit: String
        package var isNullable: Bool
    }

    /// In the order of the flat forms.
    package static var columns: [Column] {
        let measured = Dictionary(DatasetColumn.all.map { ($0.flatName, $0) }) { first, _ in first }
        return FlatColumn.columns(intervalSeconds: 0).map { column in
            let name = column.name
            if let measure = measured[name] {
                return Column(
                    name: name, member: "\(measure.group.member).\(measure.name)", type: "double",
                    unit: Summary.units["\(measure.name)"] ?? "",
                    isNullable: true)
            }
            switch column {
            case .text(_, let isOptional, _): return Column(name: name, member: name, type: "text", unit: "", isNullable: isOptional)
            case .time: return Column(name: name, member: name, type: "timestamp", unit: "ms UTC", isNullable: false)
            case .integer, .decimal:
                let isCount = name.hasPrefix("count_")
                let member = isCount ? "sample_count.\(name.dropFirst(6))" : name == "interval_start_ms" ? "interval_start" : name
                let unit = isCount ? "rows" : name == "interval_sec" ? "s" : "ms UTC"
                return Column(name: name, member: member, type: "int64", unit: unit, isNullable: false)
            }
        }
    }
}

extension DatasetDocuments {
    /// RFC 4180 with a header; times are RFC 3339, decimals as in the JSON, unknown is empty.
    package func csv() -> [UInt8] {
        let columns = FlatColumn.columns(intervalSeconds: arguments.intervalSeconds)
        var text = Array(columns.map(\.name).joined(separator: ",").utf8) + [0x0d, 0x0a]
        for row in rows {
            for (place, column) in columns.enumerated() {
                if place > 0 { text.append(0x2c) }
                switch column {
                case .text(_, _, let value): text += Self.quoted(value(row) ?? "").utf8
                case .time(_, let value): text += TimeText.seconds(value(row)).utf8
                case .integer(_, let value): text += "\(value(row))".utf8
                case .decimal(_, let value):
                    guard let value = value(row) else { continue }
                    var json = JSONWriter()
                    json.nano(value)
                    text += json.bytes
                }
            }
            text += [0x0d, 0x0a]
        }
        return text
    }

    private static func quoted(_ text: String) -> String {
        guard text.contains(where: { $0 == "," || $0 == "\"" || $0.isNewline }) else { return text }
        return "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }

    /// Apache Parquet; decimals are doubles, the nearest to those of the JSON. `compress`: to gzip; nil leaves a page as it is.
    package func parquet(compress: @escaping ([UInt8]) -> [UInt8]?) -> [UInt8] {
        var file = ParquetWriter(compress: compress)
        var table: [ParquetWriter.Column] = []
        for column in FlatColumn.columns(intervalSeconds: arguments.intervalSeconds) {
            switch column {
            case .text(let name, let isOptional, let value): table.append(.text(name, isOptional: isOptional, rows.map(value)))
            case .time(let name, let value): table.append(.time(name, rows.map(value)))
            case .integer(let name, let value): table.append(.integer(name, isOptional: false, rows.map(value)))
            case .decimal(let name, let value): table.append(.decimal(name, rows.map { value($0).map(Self.double) }))
            }
        }
        file.rowGroup(table, rows: rows.count)
        return file.finish(createdBy: "\(DatasetFormat.generatorName) \(DatasetFormat.generatorVersion)")
    }

    /// The double nearest to `nano * 1e-9`.
    static func double(_ nano: Int128) -> Double {
        // Both below 2^53 are exact, so the one division rounds once.
        if nano.magnitude < 1 << 53 { return Double(Int64(nano)) / 1_000_000_000 }
        var json = JSONWriter()
        json.nano(nano)
        return Double(String(decoding: json.bytes, as: UTF8.self)) ?? 0
    }
}
