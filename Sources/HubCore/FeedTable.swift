import CalibModel
import Wire

/// Rows of one feed as Apache Parquet, with all their fields (SPEC 2) but `ts_iso`, which is `ts` once more.
///
/// Columns have the JSON's names, members of an object behind its name: `features_vol_realized`. Decimals are doubles, the nearest to those of the JSON; a
/// histogram is its JSON. What a row does not have, or has as something else, is null. Rows come in the order in which they are added, as often as they do.
package struct FeedTable: ~Copyable {
    private enum Kind { case integer, decimal, flag, text, object }

    private struct Field {
        var name: StaticString
        var kind: Kind
        /// Of an object.
        var members: [Field] = []
        /// Of its column.
        var place = 0
    }

    /// The array of its kind has a value for each row, the others none.
    private struct Column {
        var name: String
        var kind: Kind
        var integers: [Int64?] = []
        var decimals: [Double?] = []
        var flags: [Bool?] = []
        var texts: [String?] = []
        var count: Int { integers.count + decimals.count + flags.count + texts.count }

        mutating func appendUnknown() {
            switch kind {
            case .integer: integers.append(nil)
            case .decimal: decimals.append(nil)
            case .flag: flags.append(nil)
            case .text: texts.append(nil)
            case .object: preconditionFailure("BUG: a column of objects")
            }
        }
    }

    /// Rows of a group. With 49 columns of 16 bytes each, of which some texts take 32 more, a group is 30 MB while it is gathered.
    private static let groupRows = 32_768

    private let feed: Feed
    private let range: Range<Int64>
    private var scanner = FeedScanner()
    private let fields: [Field]
    private var columns: [Column] = []
    private var hostPlace = 0
    private var times: [Int64] = []
    private var file: ParquetWriter
    package private(set) var rows: Int64 = 0
    private var rejected = [Int64](repeating: 0, count: RejectReason.allCases.count)

    /// - Parameters:
    ///   - range: of `ts`, milliseconds UTC.
    ///   - compress: to gzip; nil leaves a page as it is.
    package init(_ feed: Feed, in range: Range<Int64>, compress: @escaping ([UInt8]) -> [UInt8]?) {
        self.feed = feed
        self.range = range
        file = ParquetWriter(compress: compress)
        var fields = Self.fields(of: feed)
        columns = Self.columns(for: &fields, from: 0, prefix: "")
        self.fields = fields
        hostPlace = columns.firstIndex { $0.name == "host" }!
    }

    /// Takes one line without its line end. `folderHost` stands in for a host that the row does not name.
    package mutating func add(_ line: UnsafeRawBufferPointer, isTerminated: Bool, folderHost: String) {
        if let reason = scanner.scan(line, feed: feed, isTerminated: isTerminated) { return reject(reason) }
        let time = scanner.row.value(.ts)
        guard range.contains(time) else { return }
        rows += 1
        times.append(time)
        var reader = JSONReader(line)
        do throws(JSONError) { try read(&reader, fields) } catch { preconditionFailure("BUG: a row that was read is not JSON: \(error)") }
        for place in columns.indices where columns[place].count < times.count { columns[place].appendUnknown() }
        if columns[hostPlace].texts[times.count - 1] == nil { columns[hostPlace].texts[times.count - 1] = folderHost }
        if times.count == Self.groupRows { closeGroup() }
    }

    package mutating func reject(_ reason: RejectReason) { rejected[reason.rawValue] += 1 }

    /// The number of lines that are no rows by each reason that occurred, whatever the range.
    package var rejectedByReason: [(reason: String, lines: Int64)] {
        RejectReason.allCases.filter { rejected[$0.rawValue] > 0 }.map { ("\($0.name)", rejected[$0.rawValue]) }
    }

    /// The file's next bytes; they are forgotten here.
    package mutating func take() -> [UInt8] { file.take() }

    /// The file's last bytes.
    package mutating func finish() -> [UInt8] {
        if !times.isEmpty || rows == 0 { closeGroup() }
        return file.finish(createdBy: "\(DatasetFormat.generatorName) \(DatasetFormat.generatorVersion)")
    }

    // MARK: Fields

    private static func integers(_ names: StaticString...) -> [Field] { names.map { Field(name: $0, kind: .integer) } }
    private static func decimals(_ names: StaticString...) -> [Field] { names.map { Field(name: $0, kind: .decimal) } }
    private static func flags(_ names: StaticString...) -> [Field] { names.map { Field(name: $0, kind: .flag) } }
    private static func texts(_ names: StaticString...) -> [Field] { names.map { Field(name: $0, kind: .text) } }
    private static func object(_ name: StaticString, _ members: [Field]) -> [Field] { [Field(name: name, kind: .object, members: members)] }

    /// In the order of SPEC 2 behind `ts`.
    private static func fields(of feed: Feed) -> [Field] {
        let own: [[Field]] =
            switch feed {
            case .fills:
                [
                    texts("side"), decimals("price", "qty"), flags("maker", "taker"),
                    decimals("queue_pos_est", "quote_price", "mid_at_quote", "mid_now", "spread_at_quote_bps", "latency_ms", "slip_bps"),
                    integers("fill_id"), texts("order_id"), decimals("fee_bps"),
                ]
            case .ticks:
                [
                    object(
                        "stage_latencies",
                        decimals("FetchMDStage", "SpreadStage", "GuardsStage", "InventoryStage", "QueueAwareStage", "EmitStage")),
                    decimals("stage_p95_ms", "tick_total_ms"), flags("cache_hit"), decimals("cache_age_ms"),
                    flags("used_stale", "deadline_miss"), integers("tick", "weight"), flags("halted"),
                ]
            case .snapshots:
                [
                    integers("from_ts", "span_ms"),
                    object(
                        "features",
                        decimals(
                            "vol_realized", "liq_top_depth", "latency_p95", "pnl_dev", "fill_rate", "taker_share", "queue_absorb_rate",
                            "queue_eta_ms", "slippage_bps", "adverse_move_bps")),
                    object(
                        "counts",
                        integers(
                            "ticks", "quotes", "fills", "filled_orders", "taker_fills", "returns", "cache_hits", "cache_misses",
                            "cache_stale", "deadline_misses", "halts", "rejected_inputs")),
                    object(
                        "sums",
                        decimals(
                            "fill_notional", "slip", "slip_x_notional", "markout_notional", "net_x_notional", "adverse_x_notional",
                            "quote_ms", "mid", "market_spread_bps", "position", "pnl", "return2")),
                    texts("tick_ns_histogram"),
                ]
            case .markouts: [integers("fill_id", "fill_ts"), decimals("mid_1s", "mid_5s", "mid_30s", "net_bps")]
            case .quotes:
                [
                    texts("side", "order_id"),
                    decimals(
                        "price", "qty", "depth_bps", "half_spread_bps", "skew_bps", "nudge_bps", "queue_ahead", "resting_ms"),
                    texts("outcome"), decimals("vol_realized", "propensity"), integers("weight"),
                ]
            case .events: []  // Not read by the scanner: every kind of event has other fields.
            }
        let common = [
            texts("arm", "arm_why", "experiment"), integers("block"), texts("config_hash"), integers("v"),
            texts("source", "venue", "host", "epoch"), integers("seq"),
        ]
        return ([texts("symbol")] + own + common).flatMap { $0 }
    }

    /// Gives each field its place.
    private static func columns(for fields: inout [Field], from first: Int, prefix: String) -> [Column] {
        var columns: [Column] = []
        for index in fields.indices {
            let name = "\(prefix)\(fields[index].name)"
            if fields[index].kind == .object {
                columns += Self.columns(for: &fields[index].members, from: first + columns.count, prefix: name + "_")
            } else {
                fields[index].place = first + columns.count
                columns.append(Column(name: name, kind: fields[index].kind))
            }
        }
        return columns
    }

    // MARK: Rows

    private mutating func read(_ reader: inout JSONReader, _ fields: [Field]) throws(JSONError) {
        try reader.beginObject()
        var next = 0
        while let key = try reader.nextKey() {
            let name = key.contains(0x5c) ? JSONText.resolved(key) : nil
            func isNamed(_ field: Field) -> Bool { name?.withUnsafeBytes { $0.equals(field.name) } ?? key.equals(field.name) }
            // Writers keep the order, so the search begins where the last one ended.
            guard let found = fields[next...].firstIndex(where: isNamed) ?? fields[..<next].firstIndex(where: isNamed) else {
                try reader.skip()
                continue
            }
            next = found + 1
            let field = fields[found]
            if field.kind != .object {
                try read(&reader, field.kind, into: field.place)
            } else if try reader.peek() == .object {
                try read(&reader, field.members)
            } else {
                try reader.skip()
            }
        }
    }

    private mutating func read(_ reader: inout JSONReader, _ kind: Kind, into place: Int) throws(JSONError) {
        switch (kind, try reader.peek()) {
        case (.integer, .number):
            var probe = reader
            columns[place].integers.append(try? probe.integer())
            try reader.skip()
        case (.decimal, .number):
            let value = Double(String(decoding: try reader.raw(), as: UTF8.self))
            columns[place].decimals.append(value.flatMap { $0.isFinite ? $0 : nil })
        case (.flag, .boolean): columns[place].flags.append(try reader.boolean())
        case (.text, .string):
            let raw = try reader.string()
            let text = raw.contains(0x5c) ? JSONText.resolved(raw) : nil
            columns[place].texts.append(text.map { String(decoding: $0, as: UTF8.self) } ?? String(decoding: raw, as: UTF8.self))
        case (.text, .array): columns[place].texts.append(String(decoding: try reader.raw(), as: UTF8.self))
        default:
            try reader.skip()
            columns[place].appendUnknown()
        }
    }

    private mutating func closeGroup() {
        var table: [ParquetWriter.Column] = [.time("ts", times)]
        for column in columns {
            switch column.kind {
            case .integer: table.append(.integer(column.name, isOptional: true, column.integers))
            case .decimal: table.append(.decimal(column.name, column.decimals))
            case .flag: table.append(.boolean(column.name, column.flags))
            case .text: table.append(.text(column.name, isOptional: true, column.texts))
            case .object: break  // It has no column of its own.
            }
        }
        file.rowGroup(table, rows: times.count)
        times.removeAll(keepingCapacity: true)
        for place in columns.indices { columns[place] = Column(name: columns[place].name, kind: columns[place].kind) }
    }
}
