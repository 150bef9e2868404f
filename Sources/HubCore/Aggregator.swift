import CalibModel
import Wire

// Rows -> integer statistics per interval, symbol and, if asked for, host (SPEC 6.1-6.5).
//
// Invariants:
// 1. Everything kept is an integer, a set or a multiset: neither the order of rows, files and hosts nor how they are shared out among
//    threads leaves a trace.
// 2. Equal bytes under one identity (host, epoch, feed, seq) count once; different bytes under one identity both count and flag every
//    interval they fall in. The 64-bit keyed hash of a row's bytes stands for the bytes.
// 3. Every row read with an identity is noted, also outside the range: gaps and conflicts do not depend on the range's
//    edge. Beside it, such a row is only counted, in the summary of its piece.
// 4. A fill meets its markout at the end, when both are in.

struct CellKey: Hashable {
    /// Interval number: floor(ts / interval).
    var interval: Int64
    var symbol: Int32
    /// -1 when hosts are merged.
    var host: Int32
}

/// Why there is no dataset (SPEC 6.1, 6.3): exit status 2 except for `noRows`.
package enum DatasetRefusal: Error, Equatable, Sendable {
    case mixedForms(ours: String, seed: String)
    case mixedSources([String])
    case noRows
}

/// What one thread gathers.
struct Aggregator {
    let arguments: DatasetArguments
    private(set) var symbols = NameTable()
    private(set) var hosts = NameTable()
    private(set) var cells: [CellKey: Int32] = [:]
    var statistics: [IntervalStatistics] = []
    /// Of the pieces that were read to their end.
    private(set) var summaries: [PieceSummary] = []
    /// Of exact builds: every row's hash, and how many rows of the range came again.
    private(set) var identities: [StreamKey: (table: IdentityTable, duplicates: Int64)] = [:]
    private(set) var fills: [Fill] = []
    private(set) var markouts: [JoinKey: Markout] = [:]
    private let wanted: Set<Int32>
    /// Every row's hash is kept: some seq was seen twice.
    private let isExact: Bool
    private let milliseconds: Int64
    /// The last cell of each symbol, for rows of one file are in order.
    private var recent: [(interval: Int64, host: Int32, cell: Int32)] = []
    /// Of the piece whose rows come in.
    var tally: PieceTally
    private var folderHost: Int32 = -1
    /// Rows outside the range are tallied, too: in hours of their own.
    private let talliesAll: Bool

    struct JoinKey: Hashable {
        var host: Int32
        var epoch: UInt64
        var fillID: Int64
    }
    struct Markout {
        var mid: Int64?
        var seq: Int64

        /// Two markouts of one fill should not exist; the one that knows more wins, then the lower seq, then the lower mid.
        func precedes(_ other: Markout) -> Bool {
            guard let mid else { return false }
            guard let otherMid = other.mid else { return true }
            return (seq, mid) < (other.seq, otherMid)
        }
    }
    /// A fill of our form, which waits for its markout.
    struct Fill {
        var cell: Int32
        var join: JoinKey
        var sign: Int64
        var price: Int64
        var midNow: Int64
        var fee: Int64
        var notional: Int64

        /// net_bps of SPEC 1.3 in 1e-6 bps.
        func net(at mid: Int64) -> Int64? {
            FeedScanner.costBps(sign: sign, from: price, to: mid, per: midNow).map { $0 - fee }
        }
    }

    init(_ arguments: DatasetArguments, isExact: Bool) {
        self.arguments = arguments
        self.isExact = isExact
        var symbols = NameTable()
        wanted = Set(arguments.symbols.map { symbols.id(of: $0) })
        self.symbols = symbols
        milliseconds = arguments.intervalSeconds * 1000
        talliesAll = arguments.hasWholeHours
        tally = PieceTally(FeedPiece(path: "", feed: .fills, host: nil, from: 0, to: 0), hourLength: arguments.hourMilliseconds)
    }

    /// Its rows follow; the folder's host stands in for one that a row does not name.
    mutating func open(_ piece: FeedPiece) {
        tally = PieceTally(piece, hourLength: arguments.hourMilliseconds)
        folderHost = hosts.id(of: piece.host ?? "local")
    }

    mutating func close() { summaries.append(tally.summary) }

    /// Takes one row. `line` is its text without the line end.
    @inline(__always)
    mutating func add(_ row: borrowing FeedRow, line: UnsafeRawBufferPointer, at lineNumber: Int) {
        let isMarkout = row.feed == .markouts
        // A snapshot belongs to where its span began; a markout is read by its own time and joined later.
        let time = row.feed == .snapshots ? row.value(.fromTs) : row.value(.ts)
        let isInRange = time >= arguments.from && time < arguments.to
        // Counted for this range, or for another one.
        let isTallied = talliesAll || isInRange
        let isOurs = row.isOurs
        tally.move(to: time)
        if isTallied, !isMarkout { tally.noteForm(isOurs: isOurs, line: lineNumber) }

        let symbol = symbols.id(of: row.symbol)
        let host = row.host.isEmpty ? folderHost : hosts.id(of: row.host)
        let source = isOurs ? row[.source] ?? RowSource.unknown.rawValue : RowSource.seed.rawValue
        var isWanted = wanted.isEmpty || wanted.contains(symbol)
        if let wantedArm = arguments.arm, (row[.arm] == 1) != (wantedArm == .b) { isWanted = false }
        if isWanted, isTallied, !isMarkout { tally.note(source: source) }
        if let wantedSource = arguments.source, source != wantedSource.rawValue { isWanted = false }

        // A markout past `to` is read for its fill's sake.
        let isInside = isWanted && (isInRange || isMarkout && time >= arguments.from && time < arguments.to + DatasetArguments.markoutGrace)
        var cell = isInside ? IdentityTable.inRange : IdentityTable.outside
        if isInside, !isMarkout { cell = index(of: time, symbol: symbol, host: arguments.isPerHost ? host : -1) }
        var epoch: UInt64?
        if isOurs, !row.host.isEmpty, let value = row[.epoch], let seq = row[.seq] {
            epoch = UInt64(bitPattern: value)
            let key = StreamKey(host: host, epoch: UInt64(bitPattern: value), feed: row.feed)
            if isExact, !isNew(seq, of: key, line, cell: cell, isInside: isInside) { return }
            tally.see(seq, of: key, counts: isWanted && isTallied, fill: isMarkout || row.feed == .fills ? row[.fillID] ?? seq : nil)
        } else if isWanted, isTallied {
            tally.countUnidentified()
        }
        if isWanted, isTallied, !isMarkout { tally.use(host: host) }
        guard isInside else { return }
        if isMarkout {
            if let epoch { addMarkout(row, JoinKey(host: host, epoch: epoch, fillID: row.value(.fillID))) }
            return
        }
        let position = Int(truncatingIfNeeded: cell)
        if !isOurs { statistics[position].isSeedForm = true }
        switch row.feed {
        case .ticks: statistics[position].addTick(row)
        case .fills:
            statistics[position].addFill(row)
            if !isOurs {
                // SPEC 6.3: the mid at the fill, and no fee.
                if let net = FeedScanner.costBps(
                    sign: row.value(.side), from: row.value(.price), to: row.value(.midNow), per: row.value(.midNow))
                {
                    statistics[position].addNet(net, notional: row.notional)
                }
            } else if let epoch, let fee = row[.feeBps] {
                fills.append(
                    Fill(
                        cell: cell, join: JoinKey(host: host, epoch: epoch, fillID: row[.fillID] ?? row.value(.seq)),
                        sign: row.value(.side),
                        price: row.value(.price), midNow: row.value(.midNow), fee: fee, notional: row.notional))
            }
        case .snapshots: statistics[position].addSnapshot(row)
        case .quotes: statistics[position].addQuote(row)
        case .markouts, .events: break  // Taken above; not a dataset's input.
        }
    }

    // MARK: Leaves

    private mutating func isNew(_ seq: Int64, of key: StreamKey, _ line: UnsafeRawBufferPointer, cell: Int32, isInside: Bool) -> Bool {
        switch identities[key, default: (IdentityTable(), 0)].table.see(seq: seq, hash: IdentityTable.hash(line), cell: cell) {
        case .new: return true
        case .duplicate:
            if isInside { identities[key]!.duplicates += 1 }
            return false
        case .conflict(let others):
            for other in others + [cell] where other >= 0 { statistics[Int(other)].hasConflict = true }
            return true
        }
    }

    private mutating func addMarkout(_ row: borrowing FeedRow, _ key: JoinKey) {
        let new = Markout(mid: row[.mid5s], seq: row.value(.seq))
        if let old = markouts[key], !new.precedes(old) { return }
        markouts[key] = new
    }

    @inline(__always) private mutating func index(of time: Int64, symbol: Int32, host: Int32) -> Int32 {
        let place = Int(symbol)
        if place < recent.count {
            let known = recent[place]
            let offset = time &- known.interval &* milliseconds
            if known.host == host, offset >= 0, offset < milliseconds { return known.cell }
        }
        return newIndex(of: CellKey(interval: time.flooredDivision(by: milliseconds), symbol: symbol, host: host))
    }

    private mutating func newIndex(of key: CellKey) -> Int32 {
        let index: Int32
        if let found = cells[key] {
            index = found
        } else {
            index = Int32(statistics.count)
            statistics.append(IntervalStatistics())
            cells[key] = index
        }
        while recent.count <= Int(key.symbol) { recent.append((.min / 1_000_000_000, -2, -1)) }
        recent[Int(key.symbol)] = (key.interval, key.host, index)
        return index
    }
}
