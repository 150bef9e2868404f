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
    // Ticks. Weights are how many ticks a row stands for.
    var tickRows: Int64 = 0
    var tickWeight: Int64 = 0
    var hitWeight: Int64 = 0
    var staleWeight: Int64 = 0
    var missWeight: Int64 = 0
    var cacheAge = WeightedSum()
    var tickTotals = TickTotals()
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
    var snapshots = SnapshotSums()
    var tickHistogram: [Int32: Int64] = [:]
    // Quotes: each row weighs what it was sampled with.
    var quoteRows: Int64 = 0
    var halfSpread = WeightedSum()
    var skew = WeightedSum()
    var nudge = WeightedSum()
    var resting = WeightedSum()

    var hasConflict = false
    var isSeedForm = false

    /// Adds everything but the tick totals, which stay where they are: they are looked at together, once.
    mutating func add(_ other: IntervalStatistics) {
        tickRows += other.tickRows
        tickWeight += other.tickWeight
        hitWeight += other.hitWeight
        staleWeight += other.staleWeight
        missWeight += other.missWeight
        cacheAge.add(other.cacheAge)
        fillRows += other.fillRows
        takerFills += other.takerFills
        notional += other.notional
        slipXNotional += other.slipXNotional
        markedFills += other.markedFills
        markedNotional += other.markedNotional
        netXNotional += other.netXNotional
        snapshotRows += other.snapshotRows
        snapshots.add(other.snapshots)
        tickHistogram.merge(other.tickHistogram, uniquingKeysWith: +)
        quoteRows += other.quoteRows
        halfSpread.add(other.halfSpread)
        skew.add(other.skew)
        nudge.add(other.nudge)
        resting.add(other.resting)
        hasConflict = hasConflict || other.hasConflict
        isSeedForm = isSeedForm || other.isSeedForm
    }

    mutating func addTick(_ row: borrowing FeedRow) {
        let weight = row[.weight] ?? 1
        tickRows &+= 1
        // A row's weight is at most 10^6: 9 * 10^12 rows fit.
        tickWeight &+= weight
        hitWeight &+= row.value(.cacheHit) &* weight
        staleWeight &+= row.value(.usedStale) &* weight
        missWeight &+= row.value(.deadlineMiss) &* weight
        if let age = row[.cacheAge] { cacheAge.add(age, weight: weight) }
        tickTotals.add(row.value(.tickTotal), weight: weight)
    }

    mutating func addFill(_ row: borrowing FeedRow) {
        fillRows += 1
        takerFills += row.value(.taker)
        notional += Int128(row.notional)
        slipXNotional += Int128(row.slip) * Int128(row.notional)
    }

    /// `net`: in 1e-6 bps.
    mutating func addNet(_ net: Int64, notional: Int64) {
        markedFills += 1
        markedNotional += Int128(notional)
        netXNotional += Int128(net) * Int128(notional)
    }

    mutating func addSnapshot(_ row: borrowing FeedRow) {
        snapshotRows += 1
        snapshots.add(row)
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

/// Counts and sums as snapshots print them: notional in 1e-8, costs in 1e-9 bps * quote currency; features weighted by their span.
struct SnapshotSums {
    var quotes: Int128 = 0
    var filledOrders: Int128 = 0
    var fills: Int128 = 0
    var takerFills: Int128 = 0
    var notional: Int128 = 0
    var slip: Int128 = 0
    var markoutNotional: Int128 = 0
    var adverse: Int128 = 0
    var volRealized = WeightedSum()
    var liqTopDepth = WeightedSum()
    var pnlDev = WeightedSum()
    var queueAbsorbRate = WeightedSum()
    var queueEta = WeightedSum()

    mutating func add(_ row: borrowing FeedRow) {
        quotes += Int128(row.value(.quotes))
        filledOrders += Int128(row.value(.filledOrders))
        fills += Int128(row.value(.fills))
        takerFills += Int128(row.value(.takerFills))
        notional += Int128(row.value(.fillNotional))
        slip += Int128(row.value(.slipXNotional))
        markoutNotional += Int128(row.value(.markoutNotional))
        adverse += Int128(row.value(.adverseXNotional))
        let span = row.value(.spanMs)
        if let value = row[.volRealized] { volRealized.add(value, weight: span) }
        if let value = row[.liqTopDepth] { liqTopDepth.add(value, weight: span) }
        if let value = row[.pnlDev] { pnlDev.add(value, weight: span) }
        if let value = row[.queueAbsorbRate] { queueAbsorbRate.add(value, weight: span) }
        if let value = row[.queueEta] { queueEta.add(value, weight: span) }
    }

    mutating func add(_ other: SnapshotSums) {
        quotes += other.quotes
        filledOrders += other.filledOrders
        fills += other.fills
        takerFills += other.takerFills
        notional += other.notional
        slip += other.slip
        markoutNotional += other.markoutNotional
        adverse += other.adverse
        volRealized.add(other.volRealized)
        liqTopDepth.add(other.liqTopDepth)
        pnlDev.add(other.pnlDev)
        queueAbsorbRate.add(other.queueAbsorbRate)
        queueEta.add(other.queueEta)
    }
}
