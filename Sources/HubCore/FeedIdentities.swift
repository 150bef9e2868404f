import CalibModel

/// One host's one feed since its epoch began.
struct StreamKey: Hashable {
    var host: Int32
    var epoch: UInt64
    var feed: Feed
}

/// Which rows of one stream were read, by seq.
///
/// Only where two runs share a seq can a row be a duplicate or a conflict; then the build is made once more, and `IdentityTable` holds every row's hash.
struct StreamRows: Sendable {
    /// Rows of the range, and their least and greatest seq: what the dataset's watermark says.
    private(set) var rows: Int64 = 0
    private(set) var first = Int64.max
    private(set) var last = Int64.min
    /// Known to exact builds alone.
    var duplicates: Int64 = 0
    var conflicts: Int64 = 0
    /// Seqs that were read, whatever their row's time.
    private var runs: [ClosedRange<Int64>] = []

    mutating func add(_ runs: SeqRuns) { self.runs += runs.all }

    mutating func add(_ tally: PieceSummary.SequenceTally) {
        rows += tally.rows
        first = min(first, tally.first)
        last = max(last, tally.last)
    }

    /// Whether a seq was seen twice.
    var hasOverlaps: Bool {
        let ascending = runs.sorted { $0.lowerBound < $1.lowerBound }
        return zip(ascending, ascending.dropFirst()).contains { $0.upperBound >= $1.lowerBound }
    }

    /// Seqs between `first` and `last` that no row had.
    var missing: Int64 {
        guard rows > 0 else { return 0 }
        var missing: Int64 = 0
        var next = first
        for run in runs.sorted(by: { $0.lowerBound < $1.lowerBound }) where run.upperBound >= next {
            if run.lowerBound > last { break }
            missing += max(0, run.lowerBound - next)
            // Beyond the greatest seq there is nothing to miss.
            if run.upperBound >= last { break }
            next = run.upperBound + 1
        }
        return missing
    }
}

/// The rows of one stream by seq, with what tells their bytes apart.
struct IdentityTable {
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

    /// Keyed, 64 bits: stands for the bytes of a row.
    static func hash(_ line: UnsafeRawBufferPointer) -> UInt64 {
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
