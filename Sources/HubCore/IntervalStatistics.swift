import CalibModel

/// A weighted mean in the making.
struct WeightedSum {
    var weight: Int128 = 0
    var sum: Int128 = 0

    @inline(__always) mutating func add(_ value: Int64, weight: Int64) {
        sum &+= Int128(truncatingIfNeeded: value) &* Int128(truncatingIfNeeded: weight)
        self.weight &+= Int128(truncatingIfNeeded: weight)
    }
    mutating func add(_ other: WeightedSum) {
        weight += other.weight
        sum += other.sum
    }
}

/// Every tick's total and weight, so that the p95 is exact: four bytes a tick where it is usual, that is below 4.29 s and of the cell's first weight.
struct TickTotals {
    private var weight: Int64 = 0
    private var usual: [UInt32] = []
    /// Nanoseconds and weight.
    private var others: [(value: Int64, weight: Int64)] = []

    @inline(__always) mutating func add(_ value: Int64, weight: Int64) {
        if usual.isEmpty { self.weight = weight }
        if weight == self.weight, let short = UInt32(exactly: value) { usual.append(short) } else { others.append((value, weight)) }
    }

    /// The weighted quantile of SPEC 1.4 over all the ticks of several cells; nil without any. `scratch` is used and left with anything.
    static func quantile(of cells: [TickTotals], percent: Int64, scratch: inout [UInt32]) -> Int64? {
        guard let first = cells.first else { return nil }
        if cells.allSatisfy({ $0.others.isEmpty && ($0.weight == first.weight || $0.usual.isEmpty) }) {
            scratch.removeAll(keepingCapacity: true)
            for cell in cells { scratch.append(contentsOf: cell.usual) }
            guard !scratch.isEmpty else { return nil }
            let weight = cells.first { !$0.usual.isEmpty }?.weight ?? 1
            // With one weight w the cumulative weight (k+1)*w first exceeds t at k = t/w.
            let threshold = Int128(scratch.count) * Int128(weight) * Int128(percent) / 100
            let place = min(scratch.count - 1, Int(threshold / Int128(weight)))
            return Int64(scratch.withUnsafeMutableBufferPointer { select(place, in: $0) })
        }
        var pairs: [(value: Int64, weight: Int64)] = []
        for cell in cells {
            pairs += cell.others
            for value in cell.usual { pairs.append((Int64(value), cell.weight)) }
        }
        pairs.sort { ($0.value, $0.weight) < ($1.value, $1.weight) }
        return Quantile.of(ascending: pairs, percent: Int(percent))
    }

    /// The value that would stand at `place` if the values ascended (Hoare's Find): time proportional to their number. They are reordered.
    private static func select(_ place: Int, in values: UnsafeMutableBufferPointer<UInt32>) -> UInt32 {
        var low = 0
        var high = values.count - 1
        while low < high {
            let middle = values[(low + high) / 2]
            let pivot = max(min(values[low], middle), min(max(values[low], middle), values[high]))
            var left = low
            var right = high
            while left <= right {
                while values[left] < pivot { left += 1 }
                while values[right] > pivot { right -= 1 }
                if left <= right {
                    values.swapAt(left, right)
                    left += 1
                    right -= 1
                }
            }
            if place <= right {
                high = right
            } else if place >= left {
                low = left
            } else {
                break
            }
        }
        return values[place]
    }
}

/// What is known of one interval of one symbol: integers alone, so that parts of it add up to the same whatever their order.
struct IntervalStatistics {
    enum Count: Int, CaseIterable {
        /// Weights are how many ticks a row stands for, at most 10^6: 9 * 10^12 rows fit.
        case tickRows, tickWeight, hitWeight, staleWeight, missWeight
        case fillRows, takerFills, markedFills
        case snapshotRows, quoteRows
    }
    enum Total: Int, CaseIterable {
        /// Of fill rows: 1e-8 quote currency, and products of that with 1e-6 bps.
        case notional, slipXNotional, markedNotional, netXNotional
        /// Of snapshots, as they print them: notional in 1e-8, costs in 1e-9 bps * quote currency.
        case quotes, filledOrders, snapshotFills, snapshotTakerFills, snapshotNotional, snapshotSlip, markoutNotional, adverse
    }
    enum Mean: Int, CaseIterable {
        case cacheAge
        /// Of snapshots, weighted by their span.
        case volRealized, liqTopDepth, pnlDev, queueAbsorbRate, queueEta
        /// Of quotes, each weighted with what it was sampled with.
        case halfSpread, skew, nudge, resting
    }

    private var counts = [10 of Int64](repeating: 0)
    private var totals = [12 of Int128](repeating: 0)
    private var means = [10 of WeightedSum](repeating: WeightedSum())
    private(set) var tickTotals = TickTotals()
    private(set) var tickHistogram: [Int32: Int64] = [:]
    var hasConflict = false
    var isSeedForm = false

    @inline(__always) private(set) subscript(_ count: Count) -> Int64 {
        get { counts[count.rawValue] }
        set { counts[count.rawValue] = newValue }
    }
    @inline(__always) private(set) subscript(_ total: Total) -> Int128 {
        get { totals[total.rawValue] }
        set { totals[total.rawValue] = newValue }
    }
    @inline(__always) private(set) subscript(_ mean: Mean) -> WeightedSum {
        get { means[mean.rawValue] }
        set { means[mean.rawValue] = newValue }
    }

    /// Adds everything but the tick totals, which stay where they are: they are looked at together, once.
    mutating func add(_ other: IntervalStatistics) {
        for count in Count.allCases { self[count] += other[count] }
        for total in Total.allCases { self[total] += other[total] }
        for mean in Mean.allCases { self[mean].add(other[mean]) }
        tickHistogram.merge(other.tickHistogram, uniquingKeysWith: +)
        hasConflict = hasConflict || other.hasConflict
        isSeedForm = isSeedForm || other.isSeedForm
    }

    mutating func addTick(_ row: borrowing FeedRow) {
        let weight = row[.weight] ?? 1
        self[.tickRows] &+= 1
        self[.tickWeight] &+= weight
        self[.hitWeight] &+= row.value(.cacheHit) &* weight
        self[.staleWeight] &+= row.value(.usedStale) &* weight
        self[.missWeight] &+= row.value(.deadlineMiss) &* weight
        if let age = row[.cacheAge] { self[.cacheAge].add(age, weight: weight) }
        tickTotals.add(row.value(.tickTotal), weight: weight)
    }

    mutating func addFill(_ row: borrowing FeedRow) {
        self[.fillRows] += 1
        self[.takerFills] += row.value(.taker)
        self[.notional] += Int128(row.notional)
        self[.slipXNotional] += Int128(row.slip) * Int128(row.notional)
    }

    /// `net`: in 1e-6 bps.
    mutating func addNet(_ net: Int64, notional: Int64) {
        self[.markedFills] += 1
        self[.markedNotional] += Int128(notional)
        self[.netXNotional] += Int128(net) * Int128(notional)
    }

    mutating func addSnapshot(_ row: borrowing FeedRow) {
        self[.snapshotRows] += 1
        self[.quotes] += Int128(row.value(.quotes))
        self[.filledOrders] += Int128(row.value(.filledOrders))
        self[.snapshotFills] += Int128(row.value(.fills))
        self[.snapshotTakerFills] += Int128(row.value(.takerFills))
        self[.snapshotNotional] += Int128(row.value(.fillNotional))
        self[.snapshotSlip] += Int128(row.value(.slipXNotional))
        self[.markoutNotional] += Int128(row.value(.markoutNotional))
        self[.adverse] += Int128(row.value(.adverseXNotional))
        let span = row.value(.spanMs)
        if let value = row[.volRealized] { self[.volRealized].add(value, weight: span) }
        if let value = row[.liqTopDepth] { self[.liqTopDepth].add(value, weight: span) }
        if let value = row[.pnlDev] { self[.pnlDev].add(value, weight: span) }
        if let value = row[.queueAbsorbRate] { self[.queueAbsorbRate].add(value, weight: span) }
        if let value = row[.queueEta] { self[.queueEta].add(value, weight: span) }
        for (index, count) in row.histogram where count > 0 { tickHistogram[index, default: 0] += count }
    }

    mutating func addQuote(_ row: borrowing FeedRow) {
        let weight = row[.weight] ?? 1
        self[.quoteRows] += 1
        self[.halfSpread].add(row.value(.halfSpreadBps), weight: weight)
        self[.skew].add(row.value(.skewBps), weight: weight)
        self[.nudge].add(row.value(.nudgeBps), weight: weight)
        if let value = row[.resting] { self[.resting].add(value, weight: weight) }
    }
}
