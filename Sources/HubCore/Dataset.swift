import CalibModel
import Wire

// What threads gathered in, dataset and manifest out, as bytes (SPEC 6). The caller reads files in pieces and writes the result.
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

/// Runs `body(0)` ... `body(count - 1)`, several at a time if it can, and returns when all are done. The shell has the threads.
package typealias Concurrently = (_ count: Int, _ body: @Sendable (Int) -> Void) -> Void

/// Why an interval is left out. It is counted under the first that applies: with too few ticks the miss rate says nothing.
package enum FilterReason: Int, Sendable {
    case minSamples, deadlineMiss
    var name: StaticString { self == .minSamples ? "min_samples" : "deadline_miss" }
}

/// One interval of a dataset, as numbers.
package struct DatasetRow: Sendable {
    package var symbol: String
    /// Nil when hosts are merged.
    package var host: String?
    /// Milliseconds UTC.
    package var start: Int64
    package var end: Int64
    /// In 1e-9 of the column's unit, in the order of `DatasetColumn.all`; nil is unknown.
    package var values: [Int128?]
    /// In the order of `DatasetColumn.counts`.
    package var counts: [Int64]
    package var flags: [String]
    package var reasons: [FilterReason]
}

/// A numeric column of a dataset: its place in the JSON, and what it is of an interval's integers.
package struct DatasetColumn: Sendable {
    package enum Group: String, CaseIterable, Sendable {
        case target, feature, action
        /// Of the JSON object.
        var member: StaticString {
            switch self {
            case .target: "targets"
            case .feature: "features"
            case .action: "actions"
            }
        }
    }
    package var group: Group
    package var name: StaticString
    var value: @Sendable (_ statistics: IntervalStatistics, _ p95: Int64?) -> Int128?

    /// Of flat forms: `target_net_bps`.
    package var flatName: String { "\(group.rawValue)_\(name)" }

    /// In the order of the JSON.
    package static let all: [DatasetColumn] = [
        .init(.target, "net_bps") { s, _ in Ratio.nano(s[.netXNotional], 1000, over: s[.markedNotional]) },
        .init(.target, "slippage_bps") { s, _ in Ratio.nano(s[.slipXNotional], 1000, over: s[.notional]) },
        .init(.target, "fill_rate") { s, _ in
            s.isSeedForm
                ? Ratio.nano(Int128(s[.fillRows]), one, over: Int128(s[.tickRows]))
                : Ratio.nano(s[.filledOrders], one, over: s[.quotes])
        },
        .init(.target, "taker_share") { s, _ in Ratio.nano(Int128(s[.takerFills]), one, over: Int128(s[.fillRows])) },
        .init(.feature, "latency_p95_ms") { _, p95 in p95.map { Int128($0) * 1000 } },
        .init(.feature, "cache_hit_ratio") { s, _ in Ratio.nano(Int128(s[.hitWeight]), one, over: Int128(s[.tickWeight])) },
        .init(.feature, "cache_age_avg_ms") { s, _ in s[.cacheAge].mean(places: Places.milliseconds) },
        .init(.feature, "deadline_miss_rate") { s, _ in Ratio.nano(Int128(s[.missWeight]), one, over: Int128(s[.tickWeight])) },
        .init(.feature, "stale_rate") { s, _ in Ratio.nano(Int128(s[.staleWeight]), one, over: Int128(s[.tickWeight])) },
        .init(.feature, "vol_realized") { s, _ in s[.volRealized].mean(places: Places.bps) },
        .init(.feature, "liq_top_depth") { s, _ in s[.liqTopDepth].mean(places: Places.quantity) },
        .init(.feature, "latency_p95") { s, _ in
            let histogram = s.tickHistogram.sorted { $0.key < $1.key }.map { (index: Int($0.key), count: $0.value) }
            return LatencyBuckets.quantile(of: histogram, percent: 95).map { Int128($0) * 1000 }
        },
        .init(.feature, "pnl_dev") { s, _ in s[.pnlDev].mean(places: Places.bps) },
        .init(.feature, "fill_rate") { s, _ in Ratio.nano(s[.filledOrders], one, over: s[.quotes]) },
        .init(.feature, "taker_share") { s, _ in Ratio.nano(s[.snapshotTakerFills], one, over: s[.snapshotFills]) },
        .init(.feature, "queue_absorb_rate") { s, _ in s[.queueAbsorbRate].mean(places: Places.quantity) },
        .init(.feature, "queue_eta_ms") { s, _ in s[.queueEta].mean(places: Places.milliseconds) },
        // 1e-9 bps * quote currency over 1e-8 quote currency.
        .init(.feature, "slippage_bps") { s, _ in Ratio.nano(s[.snapshotSlip], 100_000_000, over: s[.snapshotNotional]) },
        .init(.feature, "adverse_move_bps") { s, _ in Ratio.nano(s[.adverse], 100_000_000, over: s[.markoutNotional]) },
        // Means over quote rows, each weighted by how many quotes it was sampled for: what a typical order asked for.
        .init(.action, "half_spread_bps") { s, _ in s[.halfSpread].mean(places: Places.bps) },
        .init(.action, "skew_bps") { s, _ in s[.skew].mean(places: Places.bps) },
        .init(.action, "nudge_bps") { s, _ in s[.nudge].mean(places: Places.bps) },
        .init(.action, "resting_ms") { s, _ in s[.resting].mean(places: Places.milliseconds) },
    ]

    /// The names of `sample_count`.
    package static let counts: [StaticString] = ["fills", "ticks", "markouts", "snapshots", "quotes"]
    private static let one: Int128 = 1_000_000_000

    private init(
        _ group: Group, _ name: StaticString, _ value: @escaping @Sendable (_ statistics: IntervalStatistics, _ p95: Int64?) -> Int128?
    ) {
        self.group = group
        self.name = name
        self.value = value
    }
}

/// A finished build.
package struct DatasetDocuments: Sendable {
    package let dataset: [UInt8]
    /// The intervals the dataset lists, in its order.
    package let rows: [DatasetRow]
    package let arguments: DatasetArguments
    package let keptIntervals: Int
    package let filteredIntervals: Int
    /// Over all files read, whatever the range.
    package let rejectedLines: Int64
    /// The number of rejected lines of each reason that occurred, by name.
    package let rejectedByReason: [(reason: String, lines: Int64)]
    fileprivate let manifestHead: [UInt8]
    fileprivate let manifestTail: [UInt8]
    /// The hours that were computed, for the next build; none of an exact one.
    package let hours: [StoredHour]

    /// Another form of the same dataset, for the manifest.
    package struct Form: Sendable {
        package var name: String
        package var bytes: Int
        package var sha256: String
        package init(name: String, bytes: Int, sha256: String) {
            self.name = name
            self.bytes = bytes
            self.sha256 = sha256
        }
    }

    /// `sha256`: lower-case hex of `dataset`. `forms` were written beside it.
    package func manifest(datasetName: String, sha256: String, forms: [Form] = []) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("schema", string: DatasetFormat.manifestSchema)
        json.field("dataset", string: datasetName)
        json.field("sha256", string: sha256)
        json.field("bytes", integer: dataset.count)
        json.key("forms")
        json.beginArray()
        for form in forms {
            json.beginObject()
            json.field("name", string: form.name)
            json.field("bytes", integer: form.bytes)
            json.field("sha256", string: form.sha256)
            json.endObject()
        }
        json.endArray()
        json.raw(manifestHead)
        json.raw(manifestTail)
        json.endObject()
        json.newline()
        return json.take()
    }
}

/// Joins what threads gathered, and what an earlier build left.
package struct DatasetBuild: Sendable {
    private let arguments: DatasetArguments
    private var parts: [DatasetPart]
    private var symbols = NameTable()
    private var hosts = NameTable()
    /// Ids of the part -> ids here.
    private var symbolIDs: [[Int32]] = []
    private var hostIDs: [[Int32]] = []
    /// Of all pieces, those that were read before among them; by path and place, with ids of here.
    private var pieces: [PieceSummary] = []
    private var streams: [StreamKey: StreamRows] = [:]
    package private(set) var isExact = false
    /// Hours that need not be computed.
    private var stored: [Int64: StoredHour] = [:]

    /// `parts` have read every piece of every file, each piece by one of them, but those that are `known`.
    package init(_ arguments: DatasetArguments, parts: [DatasetPart], known: [StoredPieces] = []) {
        self.arguments = arguments
        self.parts = []
        for file in known {
            let ids = hosts.ids(of: file.hosts)
            pieces += file.summaries.map { Self.translated($0, hosts: ids) }
        }
        for part in parts {
            add(part)
            pieces += part.reader.aggregator.summaries.map { Self.translated($0, hosts: hostIDs[hostIDs.count - 1]) }
        }
        pieces.sort { $0.path == $1.path ? $0.from < $1.from : $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
        for piece in pieces {
            for stream in piece.streams { streams[stream.key, default: StreamRows()].add(stream.runs) }
            for tally in piece.sequences where isInRange(piece.hours[tally.hour].number) {
                streams[piece.streams[tally.stream].key]?.add(tally)
            }
        }
        for (part, ids) in zip(parts, hostIDs) {
            for (key, identities) in part.reader.aggregator.identities {
                isExact = true
                let key = StreamKey(host: ids[Int(key.host)], epoch: key.epoch, feed: key.feed)
                streams[key]?.duplicates = identities.duplicates
                streams[key]?.conflicts = identities.table.conflicts
            }
        }
    }

    /// Takes the intervals of a part; its pieces' summaries are known.
    package mutating func add(_ part: DatasetPart) {
        parts.append(part)
        symbolIDs.append(symbols.ids(of: part.reader.aggregator.symbols))
        hostIDs.append(hosts.ids(of: part.reader.aggregator.hosts))
    }

    private static func translated(_ piece: PieceSummary, hosts ids: [Int32]) -> PieceSummary {
        var piece = piece
        for place in piece.streams.indices { piece.streams[place].key.host = ids[Int(piece.streams[place].key.host)] }
        for hour in piece.hours.indices { piece.hours[hour].hosts = piece.hours[hour].hosts.map { ids[Int($0)] } }
        return piece
    }

    /// Some identity was seen twice: read everything again, into one exact part.
    package var needsExactParts: Bool { !isExact && streams.values.contains { $0.hasOverlaps } }

    /// Whether an hour is the dataset's. One that the range cuts holds nothing but what is inside.
    private func isInRange(_ hour: Int64) -> Bool {
        let start = hour * arguments.hourMilliseconds
        return start + arguments.hourMilliseconds > arguments.from && start < arguments.to
    }

    // MARK: Hours

    /// The range's hours, each with what its intervals depend on; meaningless unless `DatasetArguments.hasWholeHours`.
    package func keys() -> [Int64: UInt64] {
        let fingerprint = arguments.fingerprint
        var keys: [Int64: UInt64] = [:]
        for (hour, dependencies) in dependencies() {
            var key = BinaryWriter()
            key.integer(Int64(bitPattern: fingerprint))
            key.integer(hour)
            for dependency in dependencies {
                key.integer(Int64(bitPattern: pieces[dependency.piece].identity))
                key.integer(dependency.markouts ?? .min)
            }
            keys[hour] = key.digest
        }
        return keys
    }

    /// A piece with rows of an hour, or with markouts of its fills: then in which hour those are, negated where the range cuts it.
    private struct Dependency {
        var piece: Int
        var markouts: Int64?
    }

    private func dependencies() -> [Int64: [Dependency]] {
        var found: [Int64: [Dependency]] = [:]
        // (host, epoch) -> the fills of an hour, for the markouts.
        var fills: [Int64: [StreamKey: (first: Int64, last: Int64)]] = [:]
        for (number, piece) in pieces.enumerated() where piece.feed != .markouts {
            for hour in piece.hours where isInRange(hour.number) { found[hour.number, default: []].append(Dependency(piece: number)) }
            guard piece.feed == .fills else { continue }
            for tally in piece.sequences where tally.fillFirst <= tally.fillLast && isInRange(piece.hours[tally.hour].number) {
                let key = piece.streams[tally.stream].key
                let known = fills[piece.hours[tally.hour].number]?[key] ?? (.max, .min)
                fills[piece.hours[tally.hour].number, default: [:]][key] = (
                    min(known.first, tally.fillFirst), max(known.last, tally.fillLast)
                )
            }
        }
        let begin = arguments.from / arguments.hourMilliseconds
        let end = arguments.to / arguments.hourMilliseconds
        for (number, piece) in pieces.enumerated() where piece.feed == .markouts {
            for tally in piece.sequences where tally.fillFirst <= tally.fillLast {
                let hour = piece.hours[tally.hour].number
                guard hour >= begin, hour <= end else { continue }
                var key = piece.streams[tally.stream].key
                key.feed = .fills
                for (of, fills) in fills {
                    guard let fills = fills[key], fills.first <= tally.fillLast, fills.last >= tally.fillFirst else { continue }
                    found[of, default: []].append(Dependency(piece: number, markouts: hour == end ? -1 - hour : hour))
                }
            }
        }
        return found
    }

    /// These hours are as they were: their intervals are not computed.
    package mutating func use(_ hours: [StoredHour]) {
        for hour in hours { stored[hour.number] = hour }
    }

    /// The known pieces that the other hours depend on: they must be read after all, and their parts be added.
    package func missing(known: [StoredPieces]) -> [FeedPiece] {
        var wanted: Set<Int> = []
        for (hour, dependencies) in dependencies() where stored[hour] == nil { wanted.formUnion(dependencies.map(\.piece)) }
        let identities = Set(wanted.map { pieces[$0].identity })
        return known.flatMap { file in
            file.summaries.filter { identities.contains($0.identity) }.map {
                FeedPiece(path: $0.path, feed: $0.feed, host: file.host, from: $0.from, to: $0.to)
            }
        }
    }

    /// The pieces of one file, for the next build; only those at its beginning after which whatever is appended begins a new line.
    package func pieces(of path: String, host: String?) -> StoredPieces {
        var found: [PieceSummary] = []
        for piece in pieces where piece.path == path {
            guard piece.isWhole else { break }
            found.append(piece)
        }
        var names = NameTable()
        var ids: [Int32: Int32] = [:]
        for place in found.indices {
            func own(_ id: Int32) -> Int32 {
                if let known = ids[id] { return known }
                let new = names.id(of: hosts.text(id))
                ids[id] = new
                return new
            }
            for stream in found[place].streams.indices {
                found[place].streams[stream].key.host = own(found[place].streams[stream].key.host)
            }
            for hour in found[place].hours.indices { found[place].hours[hour].hosts = found[place].hours[hour].hosts.map(own) }
        }
        return StoredPieces(host: host, hosts: names, summaries: found)
    }

    // MARK: Finish

    /// The documents, or why there are none.
    package func finish(_ concurrently: Concurrently) throws(DatasetRefusal) -> DatasetDocuments {
        try check()
        joinMarkouts()
        let cells = sortedCells()
        // Slices of one length or less, none of two hours, whatever the threads: a slice's rows go from the statistics to text in one go.
        var ranges: [Range<Int>] = []
        for place in cells.indices {
            if let last = ranges.last, last.count < 64, hour(of: cells[last.lowerBound]) == hour(of: cells[place]) {
                ranges[ranges.count - 1] = last.lowerBound..<place + 1
            } else {
                ranges.append(place..<place + 1)
            }
        }
        let slices = Slices(count: ranges.count)
        let bounds = ranges
        concurrently(bounds.count) { number in
            var slice = DatasetSlice()
            for cell in cells[bounds[number]] { add(cell, to: &slice) }
            slices.set(number, slice)
        }
        var hours = stored
        let keys = arguments.hasWholeHours && !isExact ? keys() : [:]
        for (range, slice) in zip(ranges, slices.take()) {
            let number = hour(of: cells[range.lowerBound])
            hours[number, default: StoredHour(number: number, key: keys[number] ?? 0, slice: DatasetSlice())].slice.add(slice)
        }
        // An hour whose rows are all of other symbols is known to be empty.
        for (number, key) in keys where hours[number] == nil { hours[number] = StoredHour(number: number, key: key, slice: DatasetSlice()) }
        return documents(hours.values.sorted { $0.number < $1.number })
    }

    private func hour(of cell: Cell) -> Int64 { hour(of: cell.key) }

    private func hour(of key: CellKey) -> Int64 {
        (key.interval * arguments.intervalSeconds * 1000).flooredDivision(by: arguments.hourMilliseconds)
    }

    // MARK: Joining

    private func check() throws(DatasetRefusal) {
        if let ours = example(\.firstOfOurs), let seed = example(\.firstOfSeed) { throw .mixedForms(ours: ours, seed: seed) }
        if arguments.source == nil, sources.count > 1 {
            throw .mixedSources(sources.sorted().compactMap { RowSource(rawValue: $0)?.name })
        }
        guard rowsUsed > 0 else { throw .noRows }
    }

    private var hoursInRange: some Sequence<PieceSummary.HourTally> { pieces.lazy.flatMap { $0.hours }.filter { isInRange($0.number) } }

    /// Path and line of the first row of a form.
    private func example(_ line: KeyPath<PieceSummary.HourTally, Int>) -> String? {
        guard
            let place = pieces.firstIndex(where: { $0.hours.contains { isInRange($0.number) && $0[keyPath: line] > 0 } }),
            let found = pieces[place].hours.filter({ isInRange($0.number) && $0[keyPath: line] > 0 }).map({ $0[keyPath: line] }).min()
        else { return nil }
        let path = pieces[place].path
        return "\(path):\(pieces[..<place].reduce(found) { $1.path == path ? $0 + $1.lines : $0 })"
    }

    private var sources: [Int64] {
        let mask = hoursInRange.reduce(0) { $0 | $1.sources }
        return RowSource.allCases.map(\.rawValue).filter { mask & (1 << UInt64($0)) != 0 }
    }
    private var rowsUsed: Int64 { hoursInRange.reduce(0) { $0 + $1.rowsUsed } }
    /// The one source of a finished build.
    private var source: RowSource { arguments.source ?? sources.first.flatMap(RowSource.init) ?? .unknown }

    private func joinMarkouts() {
        guard parts.contains(where: { !$0.reader.aggregator.fills.isEmpty }) else { return }
        var markouts: [Aggregator.JoinKey: Aggregator.Markout] = [:]
        func key(_ key: Aggregator.JoinKey, _ part: Int) -> Aggregator.JoinKey {
            var key = key
            key.host = hostIDs[part][Int(key.host)]
            return key
        }
        for (number, part) in parts.enumerated() {
            for (local, markout) in part.reader.aggregator.markouts {
                let key = key(local, number)
                if let old = markouts[key], !markout.precedes(old) { continue }
                markouts[key] = markout
            }
        }
        for (number, part) in parts.enumerated() {
            for fill in part.reader.aggregator.fills {
                guard let mid = markouts[key(fill.join, number)]?.mid, let net = fill.net(at: mid) else { continue }
                part.reader.aggregator.statistics[Int(fill.cell)].addNet(net, notional: fill.notional)
            }
        }
    }

    /// Where one interval's statistics lie: in one part or several.
    private struct Cell: Sendable {
        var key: CellKey
        var symbolRank: Int
        var hostRank: Int
        var places: [(part: Int, index: Int)]
    }

    /// By time, then symbol, then host.
    private func sortedCells() -> [Cell] {
        let symbolRanks = symbols.ranks()
        let hostRanks = hosts.ranks()
        var found: [CellKey: Int] = [:]
        var cells: [Cell] = []
        for (number, part) in parts.enumerated() {
            for (local, index) in part.reader.aggregator.cells where stored[hour(of: local)] == nil {
                let key = CellKey(
                    interval: local.interval, symbol: symbolIDs[number][Int(local.symbol)],
                    host: local.host < 0 ? -1 : hostIDs[number][Int(local.host)])
                if let known = found[key] {
                    cells[known].places.append((number, Int(index)))
                } else {
                    found[key] = cells.count
                    cells.append(
                        Cell(
                            key: key, symbolRank: symbolRanks[Int(key.symbol)], hostRank: key.host < 0 ? -1 : hostRanks[Int(key.host)],
                            places: [(number, Int(index))]))
                }
            }
        }
        cells.sort { ($0.key.interval, $0.symbolRank, $0.hostRank) < ($1.key.interval, $1.symbolRank, $1.hostRank) }
        return cells
    }

    // MARK: Rows

    struct Removal: Hashable {
        var symbol: String
        var host: String
        var reason: FilterReason
    }

    /// A place for each slice, written by whichever thread makes it.
    private final class Slices: @unchecked Sendable {
        let count: Int
        private let slices: UnsafeMutableBufferPointer<DatasetSlice>
        init(count: Int) {
            self.count = count
            slices = .allocate(capacity: count)
            slices.initialize(repeating: DatasetSlice())
        }
        deinit {
            slices.deinitialize()
            slices.deallocate()
        }
        func set(_ number: Int, _ slice: DatasetSlice) { slices[number] = slice }
        func take() -> [DatasetSlice] { Array(slices) }
    }

    private func add(_ cell: Cell, to slice: inout DatasetSlice) {
        let first = cell.places[0]
        var statistics = parts[first.part].reader.aggregator.statistics[first.index]
        for place in cell.places.dropFirst() { statistics.add(parts[place.part].reader.aggregator.statistics[place.index]) }
        slice.fills += statistics[.fillRows]
        slice.markedFills += statistics[.markedFills]
        let reasons = filterReasons(statistics)
        let symbol = symbols.text(cell.key.symbol)
        let host = cell.key.host < 0 ? nil : hosts.text(cell.key.host)
        if let first = reasons.first {
            slice.removed[Removal(symbol: symbol, host: host ?? "", reason: first), default: 0] += 1
            if !arguments.keepsFiltered { return }
        } else {
            slice.kept += 1
        }
        let p95 = TickTotals.quantile(
            of: cell.places.map { parts[$0.part].reader.aggregator.statistics[$0.index].tickTotals }, percent: 95, scratch: &slice.scratch)
        let start = cell.key.interval * arguments.intervalSeconds * 1000
        let row = DatasetRow(
            symbol: symbol, host: host, start: start, end: start + arguments.intervalSeconds * 1000,
            values: DatasetColumn.all.map { $0.value(statistics, p95) },
            counts: [
                statistics[.fillRows], statistics[.tickRows], statistics[.markedFills], statistics[.snapshotRows], statistics[.quoteRows],
            ], flags: flags(statistics, start: start, reasons), reasons: reasons)
        slice.text += row.json(intervalSeconds: arguments.intervalSeconds)
        slice.text += [0x2c, 0x0a]
        slice.rows.append(row)
    }

    private func filterReasons(_ statistics: IntervalStatistics) -> [FilterReason] {
        var reasons: [FilterReason] = []
        if statistics[.tickRows] < arguments.ticksMin { reasons.append(.minSamples) }
        // miss/weight > max, without a division.
        if Int128(statistics[.missWeight]) * 1_000_000_000 > Int128(arguments.deadlineMissMax) * Int128(statistics[.tickWeight]) {
            reasons.append(.deadlineMiss)
        }
        return reasons
    }

    private func flags(_ statistics: IntervalStatistics, start: Int64, _ reasons: [FilterReason]) -> [String] {
        var flags: [String] = []
        if start < arguments.from || start + arguments.intervalSeconds * 1000 > arguments.to { flags.append("partial") }
        if statistics.isSeedForm { flags += ["basis:ticks", "basis:mid_now"] }
        if statistics.hasConflict { flags.append("seq_conflict") }
        if statistics[.markedFills] < statistics[.fillRows] { flags.append("markouts_missing") }
        return flags + reasons.map { "filtered:\($0.name)" }
    }

    // MARK: Documents

    /// The seed's fields first, ours behind them, the intervals last and one a line.
    private func documents(_ hours: [StoredHour]) -> DatasetDocuments {
        let slices = hours.map(\.slice)
        let kept = slices.reduce(0) { $0 + $1.kept }
        var removed: [Removal: Int64] = [:]
        for slice in slices { removed.merge(slice.removed, uniquingKeysWith: +) }
        let filtered = Int(removed.values.reduce(0, +))
        let hostsUsed = hoursInRange.reduce(into: Set<Int32>()) { $0.formUnion($1.hosts) }
        let watermarks = watermarks()
        var json = JSONWriter()
        json.beginObject()
        json.field("from_ts", string: TimeText.seconds(arguments.from))
        json.field("to_ts", string: TimeText.seconds(arguments.to))
        json.field("interval_sec", integer: arguments.intervalSeconds)
        json.field("total_intervals", integer: kept + filtered)
        json.field("filtered_count", integer: filtered)
        json.field("schema", string: DatasetFormat.schema)
        json.generator()
        json.field("source", string: source.name)
        json.field("arm", string: arguments.arm?.rawValue ?? "all")
        json.key("hosts")
        json.beginArray()
        for host in hostsUsed.map(hosts.text).sortedByBytes() { json.string(host) }
        json.endArray()
        json.key("watermarks")
        json.raw(watermarks)
        json.key("filtered")
        write(removed, to: &json)
        json.key("intervals")
        var bytes = json.take()
        bytes.reserveCapacity(bytes.count + slices.reduce(64) { $0 + $1.text.count })
        bytes += [0x5b, 0x0a]
        for slice in slices { bytes += slice.text }
        if slices.allSatisfy(\.rows.isEmpty) {
            bytes.removeLast()
        } else {
            bytes.removeLast(2)  // The comma and the newline behind the last interval.
            bytes.append(0x0a)
        }
        bytes += Array("]}\n".utf8)
        let reports = fileReports()
        return DatasetDocuments(
            dataset: bytes, rows: slices.flatMap(\.rows), arguments: arguments, keptIntervals: kept, filteredIntervals: filtered,
            rejectedLines: reports.reduce(0) { $0 + $1.rejected },
            rejectedByReason: RejectReason.allCases.compactMap { reason in
                let lines = reports.reduce(0) { $0 + $1.reasons[reason.rawValue] }
                return lines > 0 ? ("\(reason.name)", lines) : nil
            },
            manifestHead: manifestHead(
                rows: arguments.keepsFiltered ? kept + filtered : kept, watermarks, fills: slices.reduce(0) { $0 + $1.fills },
                marked: slices.reduce(0) { $0 + $1.markedFills }), manifestTail: manifestTail(reports),
            hours: isExact || !arguments.hasWholeHours ? [] : hours.filter { stored[$0.number] == nil })
    }

    private func write(_ removed: [Removal: Int64], to json: inout JSONWriter) {
        json.beginArray()
        let order = removed.keys.sorted { ($0.symbol, $0.host, $0.reason.rawValue) < ($1.symbol, $1.host, $1.reason.rawValue) }
        for removal in order {
            json.beginObject()
            json.field("symbol", string: removal.symbol)
            if arguments.isPerHost { json.field("host", string: removal.host) }
            json.field("reason", string: removal.reason.name)
            json.field("intervals", integer: removed[removal] ?? 0)
            json.endObject()
        }
        json.endArray()
    }

    /// Per host, epoch and feed the seqs of the rows inside the range; `missing` are seqs between them that no row read had.
    private func watermarks() -> [UInt8] {
        let lines = streams.filter { $0.value.rows > 0 }.map { (host: hosts.text($0.key.host), key: $0.key, rows: $0.value) }
        var json = JSONWriter()
        json.beginArray()
        for line in lines.sorted(by: {
            $0.host == $1.host
                ? ($0.key.epoch, $0.key.feed.rawValue) < ($1.key.epoch, $1.key.feed.rawValue)
                : $0.host.utf8.lexicographicallyPrecedes($1.host.utf8)
        }) {
            json.beginObject()
            json.field("host", string: line.host)
            json.key("epoch")
            json.hex(line.key.epoch)
            json.field("feed", string: line.key.feed.rawValue)
            json.field("seq", integer: line.rows.last)
            json.field("first_seq", integer: line.rows.first)
            json.field("rows", integer: line.rows.rows)
            json.field("missing", integer: line.rows.missing)
            json.field("conflicts", integer: line.rows.conflicts)
            json.endObject()
        }
        json.endArray()
        return json.take()
    }

    /// The members between the dataset's digest and the files.
    private func manifestHead(rows: Int, _ watermarks: [UInt8], fills: Int64, marked: Int64) -> [UInt8] {
        var json = JSONWriter()
        json.field("rows", integer: rows)
        json.field("dataset_schema", string: DatasetFormat.schema)
        json.generator()
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
        json.raw(watermarks)
        json.key("counts")
        json.beginObject()
        json.field("rows_used", integer: rowsUsed)
        json.field("rows_without_identity", integer: hoursInRange.reduce(0) { $0 + $1.unidentified })
        json.field("duplicates", integer: streams.values.reduce(0) { $0 + $1.duplicates })
        json.field("seq_conflicts", integer: streams.values.reduce(0) { $0 + $1.conflicts })
        json.field("fills", integer: fills)
        json.field("fills_without_markout", integer: fills - marked)
        json.endObject()
        return json.take()
    }

    private struct FileReport {
        var path: String
        var feed: Feed
        var bytes: Int64 = 0
        var rows: Int64 = 0
        var rejected: Int64 = 0
        var reasons = [Int64](repeating: 0, count: RejectReason.allCases.count)
        var rejects: [(line: Int, reason: RejectReason)] = []
    }

    /// The pieces' reports, joined by file, by path.
    private func fileReports() -> [FileReport] {
        var files: [FileReport] = []
        var line = 0
        for piece in pieces {
            if files.last?.path != piece.path {
                files.append(FileReport(path: piece.path, feed: piece.feed))
                line = 0
            }
            let current = files.count - 1
            files[current].bytes += piece.bytes
            files[current].rows += piece.rows
            files[current].rejected += piece.rejected
            for reason in RejectReason.allCases { files[current].reasons[reason.rawValue] += piece.reasons[reason.rawValue] }
            let room = DatasetFormat.rejectsListedMax - files[current].rejects.count
            files[current].rejects += piece.rejects.prefix(max(0, room)).map { (line + $0.line, $0.reason) }
            line += piece.lines
        }
        return files
    }

    private func manifestTail(_ files: [FileReport]) -> [UInt8] {
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
        let rejects = files.lazy.flatMap { file in file.rejects.map { (file: file.path, line: $0.line, reason: $0.reason) } }
        for reject in rejects.prefix(DatasetFormat.rejectsListedMax) {
            json.beginObject()
            json.field("file", string: reject.file)
            json.field("line", integer: reject.line)
            json.field("reason", string: reject.reason.name)
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.take()
    }
}

/// Consecutive intervals, finished.
struct DatasetSlice: Sendable {
    /// A comma and a newline behind each.
    var text: [UInt8] = []
    var rows: [DatasetRow] = []
    var kept = 0
    var removed: [DatasetBuild.Removal: Int64] = [:]
    var fills: Int64 = 0
    var markedFills: Int64 = 0
    /// Of whoever makes it.
    var scratch: [UInt32] = []

    mutating func add(_ other: DatasetSlice) {
        text += other.text
        rows += other.rows
        kept += other.kept
        removed.merge(other.removed, uniquingKeysWith: +)
        fills += other.fills
        markedFills += other.markedFills
    }
}

extension DatasetRow {
    fileprivate func json(intervalSeconds: Int64) -> [UInt8] {
        var json = JSONWriter(reserving: 1024)
        json.beginObject()
        json.field("symbol", string: symbol)
        if let host { json.field("host", string: host) }
        json.field("interval_start", string: TimeText.seconds(start))
        json.field("interval_end", string: TimeText.seconds(end))
        json.field("interval_sec", integer: intervalSeconds)
        for group in [DatasetColumn.Group.target, .feature] { write(group, to: &json) }
        json.key("sample_count")
        json.beginObject()
        for (name, count) in zip(DatasetColumn.counts, counts) { json.field(name, integer: count) }
        json.endObject()
        write(.action, to: &json)
        json.field("flags", strings: flags)
        json.endObject()
        return json.take()
    }

    private func write(_ group: DatasetColumn.Group, to json: inout JSONWriter) {
        json.key(group.member)
        json.beginObject()
        for (column, value) in zip(DatasetColumn.all, values) where column.group == group {
            json.key(column.name)
            json.nano(value)
        }
        json.endObject()
    }
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
    mutating func nano(_ value: Int128?) {
        guard let value else { return null() }
        if let short = Int64(exactly: value) { return fixed(short, places: 9) }
        // The whole part of a depth may need more than Int64 leaves beside nine decimals.
        var part = JSONWriter()
        part.fixed(Int64(value.magnitude % 1_000_000_000), places: 9)
        raw(Array("\(value < 0 ? "-" : "")\(value.magnitude / 1_000_000_000)".utf8) + part.take().dropFirst())
    }

    fileprivate mutating func generator() {
        key("generator")
        beginObject()
        field("name", string: DatasetFormat.generatorName)
        field("version", string: DatasetFormat.generatorVersion)
        endObject()
    }
}

extension [String] {
    fileprivate func sortedByBytes() -> [String] { sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }
}
