import CalibModel
import Wire

// Feed files in, dataset and manifest out, as bytes (SPEC 6). The caller reads files in chunks and writes the result.
//
// Every number of the dataset is one division of integers, half to even, to nine decimals (SPEC 1.2); null is "unknown" (SPEC 1.5).

/// What wrote a dataset; part of its bytes.
package enum DatasetFormat {
    package static let generatorName: StaticString = "calibrant"
    package static let generatorVersion: StaticString = "0.1.0"
    package static let schema: StaticString = "calibrant/dataset/1"
    package static let manifestSchema: StaticString = "calibrant/dataset-manifest/1"
    /// Most rejected lines a manifest lists; all are counted. About 100 KiB of text.
    package static let rejectsListedMax = 1000

    /// `calib_{from}_{to}`, the stem of the names of a dataset and what belongs to it. Milliseconds UTC.
    package static func stem(from: Int64, to: Int64) -> String { "calib_\(TimeText.stamp(from))_\(TimeText.stamp(to))" }
}

/// One build: `open` and `consume` for each file in any order, then `finish`.
package struct DatasetBuild: ~Copyable {
    package let arguments: DatasetArguments
    private var scanner = FeedScanner()
    private var aggregator: Aggregator
    private var files: [FileReport] = []
    private var cutter = LineCutter()
    private var rejects: [Reject] = []

    private struct FileReport {
        var path: String
        var feed: Feed
        var host: String?
        var bytes: Int64 = 0
        var rows: Int64 = 0
        var rejected: Int64 = 0
        var reasons = [Int64](repeating: 0, count: RejectReason.allCases.count)
    }

    private struct Reject {
        var path: String
        var line: Int
        var reason: RejectReason
    }

    package init(_ arguments: DatasetArguments) {
        self.arguments = arguments
        aggregator = Aggregator(arguments)
    }

    /// Begins a file. `path` is relative to the feeds directory and names it in the manifest; `host` is that of its `host=` folder.
    package mutating func open(path: String, feed: Feed, host: String?) {
        files.append(FileReport(path: path, feed: feed, host: host))
        cutter = LineCutter()
    }

    /// Takes whole lines off the front of `bytes` and returns how many bytes it took; the rest must come again with more behind it.
    /// `isEnd`: nothing follows in this file. A buffer of twice `RowLimits.lineBytesMax` never gets stuck.
    package mutating func consume(_ bytes: UnsafeRawBufferPointer, isEnd: Bool) -> Int {
        var start = 0
        while let piece = cutter.next(in: bytes, from: &start, isEnd: isEnd) {
            switch piece {
            case .line(let line, let number, let isTerminated): take(line, number: number, isTerminated: isTerminated)
            case .tooLong(let number, let isTerminated): reject(line: number, isTerminated ? .tooLong : .tornTail)
            }
        }
        files[files.count - 1].bytes += Int64(start)
        return start
    }

    private mutating func take(_ line: UnsafeRawBufferPointer, number: Int, isTerminated: Bool) {
        let current = files.count - 1
        if let reason = scanner.scan(line, feed: files[current].feed, isTerminated: isTerminated) { return reject(line: number, reason) }
        files[current].rows += 1
        let path = files[current].path
        aggregator.add(scanner.row, line: line, folderHost: files[current].host, at: "\(path):\(number)")
    }

    private mutating func reject(line: Int, _ reason: RejectReason) {
        let current = files.count - 1
        files[current].rejected += 1
        files[current].reasons[reason.rawValue] += 1
        // Lines ascend inside a file, so the first ones are the smallest, whatever the order of the files.
        if files[current].rejected <= DatasetFormat.rejectsListedMax {
            rejects.append(Reject(path: files[current].path, line: line, reason: reason))
        }
    }

    /// The documents, or why there are none.
    package mutating func finish() throws(DatasetRefusal) -> DatasetDocuments {
        try aggregator.finish()
        var document = DatasetWriter(aggregator)
        let dataset = document.dataset()
        files.sort { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
        rejects.sort { $0.path == $1.path ? $0.line < $1.line : $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
        return DatasetDocuments(
            dataset: dataset, keptIntervals: document.kept, filteredIntervals: document.filtered,
            rejectedLines: files.reduce(0) { $0 + $1.rejected }, manifestHead: document.manifestHead(), manifestTail: manifestTail(document)
        )
    }

    private func manifestTail(_ document: borrowing DatasetWriter) -> [UInt8] {
        var json = JSONWriter()
        json.key("files")
        json.beginArray()
        for file in files {
            json.beginObject()
            json.field("path", string: file.path)
            json.field("feed", string: file.feed.rawValue)
            json.field("bytes", integer: file.bytes)
            json.field("rows", integer: file.rows)
            json.field("rejected", integer: file.rejected)
            json.endObject()
        }
        json.endArray()
        json.key("rejects")
        json.beginObject()
        json.field("total", integer: files.reduce(0) { $0 + $1.rejected })
        json.key("by_reason")
        json.beginObject()
        for reason in RejectReason.allCases {
            json.key(reason.name)
            json.integer(files.reduce(0) { $0 + $1.reasons[reason.rawValue] })
        }
        json.endObject()
        json.field("listed_max", integer: DatasetFormat.rejectsListedMax)
        json.key("listed")
        json.beginArray()
        for reject in rejects.prefix(DatasetFormat.rejectsListedMax) {
            json.beginObject()
            json.field("file", string: reject.path)
            json.field("line", integer: reject.line)
            json.field("reason", string: reject.reason.name)
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.take()
    }
}

/// A finished build.
package struct DatasetDocuments: Sendable {
    package let dataset: [UInt8]
    package let keptIntervals: Int
    package let filteredIntervals: Int
    /// Over all files read, whatever the range.
    package let rejectedLines: Int64
    fileprivate let manifestHead: [UInt8]
    fileprivate let manifestTail: [UInt8]

    /// `sha256`: lower-case hex of `dataset`.
    package func manifest(datasetName: String, sha256: String) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("schema", string: DatasetFormat.manifestSchema)
        json.field("dataset", string: datasetName)
        json.field("sha256", string: sha256)
        json.field("bytes", integer: dataset.count)
        json.raw(manifestHead)
        json.raw(manifestTail)
        json.endObject()
        json.newline()
        return json.take()
    }
}

/// Renders an aggregator that is finished.
private struct DatasetWriter {
    let aggregator: Aggregator
    private(set) var kept = 0
    private(set) var filtered = 0
    private var removed: [Removal: Int64] = [:]

    private struct Removal: Hashable {
        var symbol: String
        var host: String
        var reason: FilterReason
    }
    /// An interval is counted under the first that applies: with too few ticks the miss rate says nothing.
    private enum FilterReason: Int {
        case minSamples, deadlineMiss
        var name: StaticString { self == .minSamples ? "min_samples" : "deadline_miss" }
    }

    init(_ aggregator: Aggregator) { self.aggregator = aggregator }

    private var arguments: DatasetArguments { aggregator.arguments }

    // MARK: Dataset

    /// The seed's fields first, ours behind them, the intervals last and one a line.
    mutating func dataset() -> [UInt8] {
        var rows: [[UInt8]] = []
        for (key, index) in sortedCells() {
            let statistics = aggregator.statistics[index]
            let reasons = filterReasons(statistics)
            if let first = reasons.first {
                filtered += 1
                removed[Removal(symbol: aggregator.symbols.text(key.symbol), host: hostText(key.host) ?? "", reason: first), default: 0] +=
                    1
                if !arguments.keepsFiltered { continue }
            } else {
                kept += 1
            }
            rows.append(interval(key, statistics, reasons))
        }
        var json = JSONWriter()
        json.beginObject()
        json.field("from_ts", string: TimeText.seconds(arguments.from))
        json.field("to_ts", string: TimeText.seconds(arguments.to))
        json.field("interval_sec", integer: arguments.intervalSeconds)
        json.field("total_intervals", integer: kept + filtered)
        json.field("filtered_count", integer: filtered)
        json.field("schema", string: DatasetFormat.schema)
        json.key("generator")
        generator(&json)
        json.field("source", string: aggregator.sourceUsed.name)
        json.field("arm", string: arguments.arm?.rawValue ?? "all")
        json.key("hosts")
        json.beginArray()
        for host in aggregator.hostsUsed.map(aggregator.hosts.text).sortedByBytes() { json.string(host) }
        json.endArray()
        json.key("watermarks")
        watermarks(&json)
        json.key("filtered")
        json.beginArray()
        let order = removed.keys.sorted { ($0.symbol, $0.host, $0.reason.rawValue) < ($1.symbol, $1.host, $1.reason.rawValue) }
        for removal in order {
            json.beginObject()
            json.field("symbol", string: removal.symbol)
            if arguments.isPerHost {
                json.field("host", string: removal.host)
            }
            json.field("reason", string: removal.reason.name)
            json.field("intervals", integer: removed[removal] ?? 0)
            json.endObject()
        }
        json.endArray()
        json.key("intervals")
        var bytes = json.take()
        bytes.append(0x5b)
        for (index, row) in rows.enumerated() {
            if index > 0 { bytes.append(0x2c) }
            bytes.append(0x0a)
            bytes.append(contentsOf: row)
        }
        bytes.append(contentsOf: rows.isEmpty ? Array("]}\n".utf8) : Array("\n]}\n".utf8))
        return bytes
    }

    /// By time, then symbol, then host.
    private func sortedCells() -> [(key: CellKey, index: Int)] {
        let symbolRank = aggregator.symbols.ranks()
        let hostRank = aggregator.hosts.ranks()
        func rank(_ key: CellKey) -> (Int64, Int, Int) {
            (key.interval, symbolRank[Int(key.symbol)], key.host < 0 ? -1 : hostRank[Int(key.host)])
        }
        return aggregator.cells.map { (key: $0.key, index: $0.value) }.sorted { rank($0.key) < rank($1.key) }
    }

    private func filterReasons(_ statistics: IntervalStatistics) -> [FilterReason] {
        var reasons: [FilterReason] = []
        if statistics.tickRows < arguments.ticksMin { reasons.append(.minSamples) }
        // miss/weight > max, without a division.
        if statistics.missWeight * 1_000_000_000 > Int128(arguments.deadlineMissMax) * statistics.tickWeight {
            reasons.append(.deadlineMiss)
        }
        return reasons
    }

    private func interval(_ key: CellKey, _ statistics: IntervalStatistics, _ reasons: [FilterReason]) -> [UInt8] {
        let milliseconds = arguments.intervalSeconds * 1000
        let start = key.interval * milliseconds
        var json = JSONWriter()
        json.beginObject()
        json.field("symbol", string: aggregator.symbols.text(key.symbol))
        if let host = hostText(key.host) {
            json.field("host", string: host)
        }
        json.field("interval_start", string: TimeText.seconds(start))
        json.field("interval_end", string: TimeText.seconds(start + milliseconds))
        json.field("interval_sec", integer: arguments.intervalSeconds)
        json.key("targets")
        targets(statistics, &json)
        json.key("features")
        features(statistics, &json)
        json.key("sample_count")
        json.beginObject()
        json.field("fills", integer: statistics.fillRows)
        json.field("ticks", integer: statistics.tickRows)
        json.field("markouts", integer: statistics.markedFills)
        json.field("snapshots", integer: statistics.snapshotRows)
        json.field("quotes", integer: statistics.quoteRows)
        json.endObject()
        json.key("actions")
        actions(statistics, &json)
        json.key("flags")
        json.beginArray()
        if start < arguments.from || start + milliseconds > arguments.to { json.string("partial") }
        if statistics.isSeedForm {
            json.string("basis:ticks")
            json.string("basis:mid_now")
        }
        if statistics.hasConflict { json.string("seq_conflict") }
        if statistics.markedFills < statistics.fillRows { json.string("markouts_missing") }
        for reason in reasons {
            switch reason {
            case .minSamples: json.string("filtered:min_samples")
            case .deadlineMiss: json.string("filtered:deadline_miss")
            }
        }
        json.endArray()
        json.endObject()
        return json.take()
    }

    private func targets(_ s: IntervalStatistics, _ json: inout JSONWriter) {
        json.beginObject()
        json.key("net_bps")
        json.nano(Ratio.nano(s.netXNotional, 1000, over: s.markedNotional))
        json.key("slippage_bps")
        json.nano(Ratio.nano(s.slipXNotional, 1000, over: s.notional))
        json.key("fill_rate")
        json.nano(
            s.isSeedForm
                ? Ratio.nano(Int128(s.fillRows), 1_000_000_000, over: Int128(s.tickRows))
                : Ratio.nano(s.filledOrders, 1_000_000_000, over: s.quotes))
        json.key("taker_share")
        json.nano(Ratio.nano(Int128(s.takerFills), 1_000_000_000, over: Int128(s.fillRows)))
        json.endObject()
    }

    private func features(_ s: IntervalStatistics, _ json: inout JSONWriter) {
        let ascending = s.tickTotals.sorted { ($0.value, $0.weight) < ($1.value, $1.weight) }
        let histogram = s.tickHistogram.sorted { $0.key < $1.key }.map { (index: Int($0.key), count: $0.value) }
        json.beginObject()
        json.key("latency_p95_ms")
        json.milliseconds(Quantile.of(ascending: ascending, percent: 95))
        json.key("cache_hit_ratio")
        json.nano(Ratio.nano(s.hitWeight, 1_000_000_000, over: s.tickWeight))
        json.key("cache_age_avg_ms")
        json.nano(s.cacheAge.mean(places: Places.milliseconds))
        json.key("deadline_miss_rate")
        json.nano(Ratio.nano(s.missWeight, 1_000_000_000, over: s.tickWeight))
        json.key("stale_rate")
        json.nano(Ratio.nano(s.staleWeight, 1_000_000_000, over: s.tickWeight))
        json.key("vol_realized")
        json.nano(s.volRealized.mean(places: Places.bps))
        json.key("liq_top_depth")
        json.nano(s.liqTopDepth.mean(places: Places.quantity))
        json.key("latency_p95")
        json.milliseconds(LatencyBuckets.quantile(of: histogram, percent: 95))
        json.key("pnl_dev")
        json.nano(s.pnlDev.mean(places: Places.bps))
        json.key("fill_rate")
        json.nano(Ratio.nano(s.filledOrders, 1_000_000_000, over: s.quotes))
        json.key("taker_share")
        json.nano(Ratio.nano(s.snapshotTakerFills, 1_000_000_000, over: s.snapshotFills))
        json.key("queue_absorb_rate")
        json.nano(s.queueAbsorbRate.mean(places: Places.quantity))
        json.key("queue_eta_ms")
        json.nano(s.queueEta.mean(places: Places.milliseconds))
        json.key("slippage_bps")
        // 1e-9 bps * quote currency over 1e-8 quote currency.
        json.nano(Ratio.nano(s.snapshotSlip, 100_000_000, over: s.snapshotNotional))
        json.key("adverse_move_bps")
        json.nano(Ratio.nano(s.snapshotAdverse, 100_000_000, over: s.snapshotMarkoutNotional))
        json.endObject()
    }

    /// Means over quote rows, each weighted by how many quotes it was sampled for (its `weight`): what a typical order asked for.
    private func actions(_ s: IntervalStatistics, _ json: inout JSONWriter) {
        json.beginObject()
        json.key("half_spread_bps")
        json.nano(s.halfSpread.mean(places: Places.bps))
        json.key("skew_bps")
        json.nano(s.skew.mean(places: Places.bps))
        json.key("nudge_bps")
        json.nano(s.nudge.mean(places: Places.bps))
        json.key("resting_ms")
        json.nano(s.resting.mean(places: Places.milliseconds))
        json.endObject()
    }

    // MARK: Manifest

    /// The members between the dataset's digest and the files.
    func manifestHead() -> [UInt8] {
        var json = JSONWriter()
        json.field("rows", integer: arguments.keepsFiltered ? kept + filtered : kept)
        json.field("dataset_schema", string: DatasetFormat.schema)
        json.key("generator")
        generator(&json)
        json.key("arguments")
        json.beginObject()
        json.field("from_ts", string: TimeText.seconds(arguments.from))
        json.field("to_ts", string: TimeText.seconds(arguments.to))
        json.field("interval_sec", integer: arguments.intervalSeconds)
        json.key("symbols")
        json.beginArray()
        for symbol in arguments.symbols { json.string(symbol) }
        json.endArray()
        json.key("source")
        if let source = arguments.source { json.string(source.name) } else { json.null() }
        json.field("arm", string: arguments.arm?.rawValue ?? "all")
        json.field("max_deadline_miss", fixed: arguments.deadlineMissMax, places: 9)
        json.field("min_samples_per_interval", integer: arguments.ticksMin)
        json.field("keep_filtered", boolean: arguments.keepsFiltered)
        json.field("per_host", boolean: arguments.isPerHost)
        json.endObject()
        json.key("watermarks")
        watermarks(&json)
        json.key("counts")
        json.beginObject()
        json.field("rows_used", integer: aggregator.rowsUsed)
        json.field("rows_without_identity", integer: aggregator.unidentifiedRows)
        json.field("duplicates", integer: aggregator.streamStates.reduce(0) { $0 + $1.duplicates })
        json.field("seq_conflicts", integer: aggregator.streamStates.reduce(0) { $0 + $1.conflicts })
        json.field("fills", integer: aggregator.statistics.reduce(0) { $0 + $1.fillRows })
        json.field("fills_without_markout", integer: aggregator.statistics.reduce(0) { $0 + $1.fillRows - $1.markedFills })
        json.endObject()
        return json.take()
    }

    /// Per host, epoch and feed the seqs of the rows inside the range; `missing` are seqs between them that no row read had.
    private func watermarks(_ json: inout JSONWriter) {
        struct Line {
            var host: String
            var epoch: UInt64
            var feed: Feed
            var stream: Stream
        }
        let lines = aggregator.streams.map { key, index in
            Line(host: aggregator.hosts.text(key.host), epoch: key.epoch, feed: key.feed, stream: aggregator.streamStates[index])
        }
        json.beginArray()
        for line in lines.sorted(by: {
            $0.host == $1.host
                ? ($0.epoch, $0.feed.rawValue) < ($1.epoch, $1.feed.rawValue) : $0.host.utf8.lexicographicallyPrecedes($1.host.utf8)
        }) where line.stream.rows > 0 {
            json.beginObject()
            json.field("host", string: line.host)
            json.key("epoch")
            json.hex(line.epoch)
            json.field("feed", string: line.feed.rawValue)
            json.field("seq", integer: line.stream.last)
            json.field("first_seq", integer: line.stream.first)
            json.field("rows", integer: line.stream.rows)
            json.field("missing", integer: line.stream.missing)
            json.field("conflicts", integer: line.stream.conflicts)
            json.endObject()
        }
        json.endArray()
    }

    // MARK: Leaves

    private func generator(_ json: inout JSONWriter) {
        json.beginObject()
        json.field("name", string: DatasetFormat.generatorName)
        json.field("version", string: DatasetFormat.generatorVersion)
        json.endObject()
    }

    private func hostText(_ host: Int32) -> String? { host < 0 ? nil : aggregator.hosts.text(host) }
}

/// The one final division (SPEC 1.2).
enum Ratio {
    /// `numerator / denominator * scale`, half to even; `scale` is even, so that the whole part keeps the parity. Nil for an empty
    /// denominator (SPEC 1.5). Sums stay below 10^29 times the scale by `RowLimits`.
    static func nano(_ numerator: Int128, _ scale: Int128, over denominator: Int128) -> Int128? {
        guard denominator > 0 else { return nil }
        // Whole part first: the product of a large sum and the scale could overflow.
        let (quotient, remainder) = numerator.quotientAndRemainder(dividingBy: denominator)
        let (whole, overflowed) = quotient.multipliedReportingOverflow(by: scale)
        guard !overflowed, let part = FixedPoint.divide(remainder * scale, by: denominator) else { return nil }
        return whole + Int128(part)
    }
}

extension WeightedSum {
    /// In 1e-9 of the unit whose values have `places` decimals.
    func mean(places: Int) -> Int128? { Ratio.nano(sum, Int128(FixedPoint.powersOfTen[9 - places]), over: weight) }
}

extension JSONWriter {
    fileprivate mutating func nano(_ value: Int128?) {
        guard let value else { return null() }
        if let short = Int64(exactly: value) { return fixed(short, places: 9) }
        // The whole part of a depth may need more than Int64 leaves beside nine decimals.
        var part = JSONWriter()
        part.fixed(Int64(value.magnitude % 1_000_000_000), places: 9)
        raw(Array("\(value < 0 ? "-" : "")\(value.magnitude / 1_000_000_000)".utf8) + part.take().dropFirst())
    }
    /// Nanoseconds as milliseconds.
    fileprivate mutating func milliseconds(_ nanoseconds: Int64?) {
        if let nanoseconds { fixed(nanoseconds, places: 6) } else { null() }
    }
}

extension NameTable {
    /// Id -> place in byte order.
    fileprivate func ranks() -> [Int] {
        var ranks = [Int](repeating: 0, count: names.count)
        for (rank, id) in names.indices.sorted(by: { names[$0].lexicographicallyPrecedes(names[$1]) }).enumerated() { ranks[id] = rank }
        return ranks
    }
}

extension Aggregator {
    /// The one source of a finished build.
    var sourceUsed: RowSource { arguments.source ?? sources.first.flatMap(RowSource.init) ?? .unknown }
}

extension [String] {
    fileprivate func sortedByBytes() -> [String] { sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }
}
