import CalibModel
import Wire

// Rows -> integer statistics per interval, symbol and, if asked for, host (SPEC 6.1-6.5).
//
// Invariants:
// 1. Everything kept is an integer, a set or a multiset: the order of rows, files and hosts leaves no trace.
// 2. Equal bytes under one identity (host, epoch, feed, seq) count once; different bytes under one identity both count and flag every
//    interval they fall in. The 64-bit keyed hash of a row's bytes stands for the bytes.
// 3. Every row read with an identity enters the identity table, also outside the range: gaps and conflicts do not depend on the range's
//    edge. Nothing else of such a row is kept.
// 4. A fill meets its markout at the end, when both are in.

/// What a build is asked for. Times are milliseconds UTC, whole seconds.
package struct DatasetArguments: Sendable, Equatable {
    package var from: Int64
    package var to: Int64
    /// A multiple of 10 (snapshots are cut every 10 s), up to a day.
    package var intervalSeconds: Int64
    /// Empty: all.
    package var symbols: [String]
    /// Nil: whichever single source the rows have.
    package var source: RowSource?
    /// Nil: both arms.
    package var arm: Arm?
    /// Largest deadline_miss_rate kept, a ratio in 1e-9.
    package var deadlineMissMax: Int64
    /// Fewest tick rows kept.
    package var ticksMin: Int64
    package var keepsFiltered: Bool
    package var isPerHost: Bool

    package enum Arm: String, Sendable {
        case a = "A"
        case b = "B"
    }

    package init(
        from: Int64, to: Int64, intervalSeconds: Int64 = 300, symbols: [String] = [], source: RowSource? = nil, arm: Arm? = .a,
        deadlineMissMax: Int64 = 50_000_000, ticksMin: Int64 = 10, keepsFiltered: Bool = false, isPerHost: Bool = false
    ) {
        precondition(from < to && from >= 0 && to <= RowLimits.timeMax, "BUG: range \(from)..<\(to)")
        precondition(intervalSeconds > 0 && intervalSeconds.isMultiple(of: 10), "BUG: interval \(intervalSeconds)")
        self.from = from
        self.to = to
        self.intervalSeconds = intervalSeconds
        self.symbols = Array(Set(symbols)).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        self.source = source
        self.arm = arm
        self.deadlineMissMax = deadlineMissMax
        self.ticksMin = ticksMin
        self.keepsFiltered = keepsFiltered
        self.isPerHost = isPerHost
    }

    /// A fill's markout is read up to this long after `to` (SPEC 6.3), in milliseconds.
    package static let markoutGrace: Int64 = 60_000
}

/// A weighted mean in the making.
struct WeightedSum {
    var weight: Int128 = 0
    var sum: Int128 = 0
    mutating func add(_ value: Int64, weight: Int64) {
        sum += Int128(value) * Int128(weight)
        self.weight += Int128(weight)
    }
}

/// What is known of one interval of one symbol.
struct IntervalStatistics {
    // Ticks. Weights are how many ticks a row stands for.
    var tickRows: Int64 = 0
    var tickWeight: Int128 = 0
    var hitWeight: Int128 = 0
    var staleWeight: Int128 = 0
    var missWeight: Int128 = 0
    var cacheAge = WeightedSum()
    /// Nanoseconds and weight of every tick row: the p95 is exact.
    var tickTotals: [(value: Int64, weight: Int64)] = []
    // Fills.
    var fillRows: Int64 = 0
    var takerFills: Int64 = 0
    var notional: Int128 = 0
    /// 1e-6 bps * 1e-8 quote currency, as are the other products.
    var slipXNotional: Int128 = 0
    var markedFills: Int64 = 0
    var markedNotional: Int128 = 0
    var netXNotional: Int128 = 0
    // Snapshots.
    var snapshotRows: Int64 = 0
    var quotes: Int128 = 0
    var filledOrders: Int128 = 0
    var snapshotFills: Int128 = 0
    var snapshotTakerFills: Int128 = 0
    /// Sums as snapshots print them: notional 1e-8, costs 1e-9 bps * quote currency.
    var snapshotNotional: Int128 = 0
    var snapshotSlip: Int128 = 0
    var snapshotMarkoutNotional: Int128 = 0
    var snapshotAdverse: Int128 = 0
    var volRealized = WeightedSum()
    var liqTopDepth = WeightedSum()
    var pnlDev = WeightedSum()
    var queueAbsorbRate = WeightedSum()
    var queueEta = WeightedSum()
    var tickHistogram: [Int32: Int64] = [:]
    // Quotes: each row weighs what it was sampled with.
    var quoteRows: Int64 = 0
    var halfSpread = WeightedSum()
    var skew = WeightedSum()
    var nudge = WeightedSum()
    var resting = WeightedSum()

    var hasConflict = false
    var isSeedForm = false
}

struct CellKey: Hashable {
    /// Interval number: floor(ts / interval).
    var interval: Int64
    var symbol: Int32
    /// -1 when hosts are merged.
    var host: Int32
}

/// One host's one feed since its epoch began.
struct StreamKey: Hashable {
    var host: Int32
    var epoch: UInt64
    var feed: Feed
}

/// The rows of one stream, by seq.
struct Stream {
    /// Rows of the range: what the dataset's watermark says.
    var rows: Int64 = 0
    var first = Int64.max
    var last = Int64.min
    var duplicates: Int64 = 0
    /// Seq -> hash and cell of the row seen first. Pages of 1024, so that dense seqs cost 12 bytes a row.
    private var pages: [Int64: Page] = [:]
    /// Further rows of a conflicting seq.
    private var others: [Int64: [(hash: UInt64, cell: Int32)]] = [:]

    private struct Page {
        var hashes = [UInt64](repeating: 0, count: 1024)
        var cells = [Int32](repeating: -1, count: 1024)
    }

    /// Where a row counts: an interval's index, or one of these.
    static let outside: Int32 = -1
    /// A markout: it counts, but its interval is its fill's.
    static let inRange: Int32 = -2

    enum Sight {
        case new
        case duplicate
        /// Other bytes under this seq, first seen in these cells.
        case conflict(cells: [Int32])
    }

    mutating func see(seq: Int64, hash: UInt64, cell: Int32) -> Sight {
        let hash = hash == 0 ? 1 : hash  // 0 marks a free place.
        let place = Int(seq & 1023)
        let found = pages[seq >> 10]?.hashes[place] ?? 0
        if found == 0 {
            pages[seq >> 10, default: Page()].hashes[place] = hash
            pages[seq >> 10]!.cells[place] = cell
            return .new
        }
        if found == hash { return .duplicate }
        let earlier = others[seq] ?? []
        if earlier.contains(where: { $0.hash == hash }) { return .duplicate }
        others[seq, default: []].append((hash, cell))
        return .conflict(cells: [pages[seq >> 10]!.cells[place]] + earlier.map(\.cell))
    }

    /// Rows beyond the first under a seq of which at least one counts: the same whatever came first.
    var conflicts: Int64 {
        others.reduce(0) { sum, other in
            let cells = [pages[other.key >> 10]!.cells[Int(other.key & 1023)]] + other.value.map(\.cell)
            return cells.contains { $0 != Self.outside } ? sum + Int64(other.value.count) : sum
        }
    }

    /// Seqs between `first` and `last` that no row had.
    var missing: Int64 {
        guard rows > 0 else { return 0 }
        var present: Int64 = 0
        for (number, page) in pages where number >= first >> 10 && number <= last >> 10 {
            for place in 0..<1024 where page.hashes[place] != 0 {
                let seq = number << 10 + Int64(place)
                if seq >= first, seq <= last { present += 1 }
            }
        }
        return last - first + 1 - present
    }
}

/// Why there is no dataset (SPEC 6.1, 6.3): exit status 2 except for `noRows`.
package enum DatasetRefusal: Error, Equatable, Sendable {
    case mixedForms(ours: String, seed: String)
    case mixedSources([String])
    case noRows
}

package struct Aggregator {
    let arguments: DatasetArguments
    private(set) var symbols = NameTable()
    private(set) var hosts = NameTable()
    private(set) var cells: [CellKey: Int] = [:]
    private(set) var statistics: [IntervalStatistics] = []
    private(set) var streams: [StreamKey: Int] = [:]
    private(set) var streamStates: [Stream] = []
    private(set) var fills: [Fill] = []
    private(set) var markouts: [JoinKey: Markout] = [:]
    /// Rows that had no identity and so were never de-duplicated.
    private(set) var unidentifiedRows: Int64 = 0
    private(set) var rowsUsed: Int64 = 0
    private(set) var sources: Set<Int64> = []
    /// Hosts that gave a row to the dataset.
    private(set) var hostsUsed: Set<Int32> = []
    /// "file:line" of a row of each form inside the range, for the message that refuses both.
    private(set) var exampleOfOurs: String?
    private(set) var exampleOfSeed: String?
    private let wanted: Set<Int32>
    private var last: (key: CellKey, index: Int)?

    struct JoinKey: Hashable {
        var host: Int32
        var epoch: UInt64
        var fillID: Int64
    }
    struct Markout {
        var mid: Int64?
        var seq: Int64
    }
    struct Fill {
        var cell: Int
        /// Nil without an identity: its markout cannot be found.
        var join: JoinKey?
        var sign: Int64
        var price: Int64
        var midNow: Int64
        var fee: Int64?
        var notional: Int64
    }

    package init(_ arguments: DatasetArguments) {
        self.arguments = arguments
        var symbols = NameTable()
        wanted = Set(arguments.symbols.map { symbols.id(of: $0) })
        self.symbols = symbols
    }

    /// Takes one row. `line` is its text without the line end; `folderHost` stands in for a host the row does not name.
    package mutating func add(
        _ row: borrowing FeedRow, line: UnsafeRawBufferPointer, folderHost: String?, at position: @autoclosure () -> String
    ) {
        let isMarkout = row.feed == .markouts
        // A snapshot belongs to where its span began; a markout is read by its own time and joined later.
        let time = row.feed == .snapshots ? row.value(.fromTs) : row.value(.ts)
        let end = isMarkout ? arguments.to + DatasetArguments.markoutGrace : arguments.to
        var isInside = time >= arguments.from && time < end
        if isInside, !isMarkout { noteForm(isOurs: row.isOurs, position) }

        let symbol = symbols.id(of: row.symbol)
        let host = row.host.isEmpty ? hosts.id(of: folderHost ?? "local") : hosts.id(of: row.host)
        let source = row.isOurs ? row[.source] ?? RowSource.unknown.rawValue : RowSource.seed.rawValue
        let arm: DatasetArguments.Arm = row[.arm] == 1 ? .b : .a
        if !wanted.isEmpty && !wanted.contains(symbol) { isInside = false }
        if let wantedArm = arguments.arm, arm != wantedArm { isInside = false }
        if isInside, !isMarkout { sources.insert(source) }
        if let wantedSource = arguments.source, source != wantedSource.rawValue { isInside = false }

        var cell = isInside ? Int(Stream.inRange) : Int(Stream.outside)
        if isInside, !isMarkout {
            cell = index(of: CellKey(interval: interval(of: time), symbol: symbol, host: arguments.isPerHost ? host : -1))
        }
        var epoch: UInt64?
        if row.isOurs, !row.host.isEmpty, let value = row[.epoch], let seq = row[.seq] {
            epoch = UInt64(bitPattern: value)
            let stream = index(of: StreamKey(host: host, epoch: UInt64(bitPattern: value), feed: row.feed))
            switch streamStates[stream].see(seq: seq, hash: Self.hash(line), cell: Int32(cell)) {
            case .new: break
            case .duplicate:
                if isInside { streamStates[stream].duplicates += 1 }
                return
            case .conflict(let others):
                for other in others + [Int32(cell)] where other >= 0 { statistics[Int(other)].hasConflict = true }
            }
            // A markout past `to` is read for its fill's sake and leaves no mark on the watermark.
            if isInside, time < arguments.to { streamStates[stream].count(seq: seq) }
        } else if isInside {
            unidentifiedRows += 1
        }
        guard isInside else { return }
        if isMarkout {
            if let epoch { addMarkout(row, JoinKey(host: host, epoch: epoch, fillID: row.value(.fillID))) }
            return
        }
        rowsUsed += 1
        hostsUsed.insert(host)
        if !row.isOurs { statistics[cell].isSeedForm = true }
        switch row.feed {
        case .fills:
            let join = epoch.map { JoinKey(host: host, epoch: $0, fillID: row[.fillID] ?? row.value(.seq)) }
            addFill(row, to: cell, join: join)
        case .ticks: statistics[cell].addTick(row)
        case .snapshots: statistics[cell].addSnapshot(row)
        case .quotes: statistics[cell].addQuote(row)
        case .markouts, .events: break  // Taken above; not a dataset's input.
        }
    }

    /// Joins fills with their markouts. Call once, when every row is in.
    package mutating func finish() throws(DatasetRefusal) {
        if let ours = exampleOfOurs, let seed = exampleOfSeed { throw .mixedForms(ours: ours, seed: seed) }
        if arguments.source == nil, sources.count > 1 {
            throw .mixedSources(sources.sorted().compactMap { RowSource(rawValue: $0)?.name })
        }
        guard rowsUsed > 0 else { throw .noRows }
        for fill in fills {
            guard let net = net(of: fill) else { continue }
            statistics[fill.cell].markedFills += 1
            statistics[fill.cell].markedNotional += Int128(fill.notional)
            statistics[fill.cell].netXNotional += Int128(net) * Int128(fill.notional)
        }
        fills = []
        markouts = [:]
    }

    // MARK: Leaves

    /// net_bps of SPEC 1.3 from the fill's and the markout's prices, in 1e-6 bps; the seed's form uses the mid at the fill (SPEC 6.3).
    private func net(of fill: Fill) -> Int64? {
        let mid: Int64
        if statistics[fill.cell].isSeedForm {
            mid = fill.midNow
        } else {
            guard let join = fill.join, let known = markouts[join]?.mid else { return nil }
            mid = known
        }
        guard let fee = fill.fee, let gross = FeedScanner.costBps(sign: fill.sign, from: fill.price, to: mid, per: fill.midNow) else {
            return nil
        }
        return gross - fee
    }

    private mutating func addFill(_ row: borrowing FeedRow, to cell: Int, join: JoinKey?) {
        statistics[cell].fillRows += 1
        statistics[cell].takerFills += row.value(.taker)
        statistics[cell].notional += Int128(row.notional)
        statistics[cell].slipXNotional += Int128(row.slip) * Int128(row.notional)
        fills.append(
            Fill(
                cell: cell, join: join, sign: row.value(.side), price: row.value(.price), midNow: row.value(.midNow),
                fee: row.isOurs ? row[.feeBps] : 0, notional: row.notional))
    }

    /// Two markouts of one fill should not exist; the one that knows more wins, then the lower seq, then the lower mid.
    private mutating func addMarkout(_ row: borrowing FeedRow, _ key: JoinKey) {
        let new = Markout(mid: row[.mid5s], seq: row.value(.seq))
        guard let old = markouts[key] else {
            markouts[key] = new
            return
        }
        guard let mid = new.mid else { return }
        if old.mid == nil || (new.seq, mid) < (old.seq, old.mid!) { markouts[key] = new }
    }

    private mutating func noteForm(isOurs: Bool, _ position: () -> String) {
        if isOurs {
            if exampleOfOurs == nil { exampleOfOurs = position() }
        } else if exampleOfSeed == nil {
            exampleOfSeed = position()
        }
    }

    private func interval(of time: Int64) -> Int64 { time.flooredDivision(by: arguments.intervalSeconds * 1000) }

    private mutating func index(of key: CellKey) -> Int {
        if let last, last.key == key { return last.index }
        let index: Int
        if let found = cells[key] {
            index = found
        } else {
            index = statistics.count
            statistics.append(IntervalStatistics())
            cells[key] = index
        }
        last = (key, index)
        return index
    }

    private mutating func index(of key: StreamKey) -> Int {
        if let found = streams[key] { return found }
        streams[key] = streamStates.count
        streamStates.append(Stream())
        return streamStates.count - 1
    }

    private static func hash(_ line: UnsafeRawBufferPointer) -> UInt64 {
        var state = KeyedHash(key0: 0x6461_7461_7365_7431, key1: UInt64(line.count))
        var index = 0
        while index + 8 <= line.count {
            state.combine(line.loadUnaligned(fromByteOffset: index, as: UInt64.self))
            index += 8
        }
        var rest: UInt64 = 0
        while index < line.count {
            rest = rest << 8 | UInt64(line[index])
            index += 1
        }
        state.combine(rest)
        return state.finalized()
    }
}

extension Stream {
    mutating func count(seq: Int64) {
        rows += 1
        first = min(first, seq)
        last = max(last, seq)
    }
}

extension IntervalStatistics {
    mutating func addTick(_ row: borrowing FeedRow) {
        let weight = row[.weight] ?? 1
        tickRows += 1
        tickWeight += Int128(weight)
        if row.value(.cacheHit) == 1 { hitWeight += Int128(weight) }
        if row.value(.usedStale) == 1 { staleWeight += Int128(weight) }
        if row.value(.deadlineMiss) == 1 { missWeight += Int128(weight) }
        if let age = row[.cacheAge] { cacheAge.add(age, weight: weight) }
        tickTotals.append((row.value(.tickTotal), weight))
    }

    mutating func addSnapshot(_ row: borrowing FeedRow) {
        snapshotRows += 1
        quotes += Int128(row.value(.quotes))
        filledOrders += Int128(row.value(.filledOrders))
        snapshotFills += Int128(row.value(.fills))
        snapshotTakerFills += Int128(row.value(.takerFills))
        snapshotNotional += Int128(row.value(.fillNotional))
        snapshotSlip += Int128(row.value(.slipXNotional))
        snapshotMarkoutNotional += Int128(row.value(.markoutNotional))
        snapshotAdverse += Int128(row.value(.adverseXNotional))
        let span = row.value(.spanMs)
        if let value = row[.volRealized] { volRealized.add(value, weight: span) }
        if let value = row[.liqTopDepth] { liqTopDepth.add(value, weight: span) }
        if let value = row[.pnlDev] { pnlDev.add(value, weight: span) }
        if let value = row[.queueAbsorbRate] { queueAbsorbRate.add(value, weight: span) }
        if let value = row[.queueEta] { queueEta.add(value, weight: span) }
        for (index, count) in row.histogram where count > 0 { tickHistogram[index, default: 0] += count }
    }

    mutating func addQuote(_ row: borrowing FeedRow) {
        let weight = row[.weight] ?? 1
        quoteRows += 1
        halfSpread.add(row.value(.halfSpreadBps), weight: weight)
        skew.add(row.value(.skewBps), weight: weight)
        nudge.add(row.value(.nudgeBps), weight: weight)
        if let value = row[.resting] { resting.add(value, weight: weight) }
    }
}
