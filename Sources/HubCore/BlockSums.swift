import CalibModel

/// What one symbol did in one half of a pair, or in one window of an arm: exact sums that merge by adding. Sums of what rows say are 128 bits
/// wide: no row and no number of rows of a pair reaches their end.
package struct BlockSums: Sendable, Equatable {
    package var ticks: Int64 = 0
    package var misses: Int64 = 0
    package var fills: Int64 = 0
    package var takerFills: Int64 = 0
    /// 1e-6 bps, one term per fill.
    package var slip: Int128 = 0
    /// 1e-8 quote currency.
    package var fillNotional: Int128 = 0
    /// 1e-14 bps x quote currency.
    package var slipNotional: Int128 = 0
    package var markoutNotional: Int128 = 0
    package var netNotional: Int128 = 0
    /// 1e-9 bps^2 over `returns` one-second returns of the market: the same whatever we quote.
    package var squaredReturn: Int128 = 0
    package var returns: Int64 = 0
    /// Ascending by index (`LatencyBuckets`).
    package var histogram: [(index: Int32, count: Int64)] = []
    package init() {}

    package static func == (a: BlockSums, b: BlockSums) -> Bool {
        a.ticks == b.ticks && a.misses == b.misses && a.fills == b.fills && a.takerFills == b.takerFills && a.slip == b.slip
            && a.fillNotional == b.fillNotional && a.slipNotional == b.slipNotional && a.markoutNotional == b.markoutNotional
            && a.netNotional == b.netNotional && a.squaredReturn == b.squaredReturn && a.returns == b.returns
            && a.histogram.elementsEqual(b.histogram) { $0 == $1 }
    }

    package static func += (a: inout BlockSums, b: BlockSums) {
        a.ticks += b.ticks
        a.misses += b.misses
        a.fills += b.fills
        a.takerFills += b.takerFills
        a.slip += b.slip
        a.fillNotional += b.fillNotional
        a.slipNotional += b.slipNotional
        a.markoutNotional += b.markoutNotional
        a.netNotional += b.netNotional
        a.squaredReturn += b.squaredReturn
        a.returns += b.returns
        a.histogram = Self.merged(a.histogram, b.histogram)
    }

    private static func merged(
        _ a: [(index: Int32, count: Int64)], _ b: [(index: Int32, count: Int64)]
    ) -> [(index: Int32, count: Int64)] {
        if a.isEmpty { return b }
        var result: [(index: Int32, count: Int64)] = []
        result.reserveCapacity(a.count + b.count)
        var rest = a[...]
        for bucket in b {
            while let next = rest.first, next.index <= bucket.index {
                result.append(next)
                rest = rest.dropFirst()
            }
            if let last = result.last, last.index == bucket.index {
                result[result.count - 1].count += bucket.count
            } else {
                result.append(bucket)
            }
        }
        return result + rest
    }

    /// Milliseconds; nil below `count` ticks, where the tail has too few.
    package func latencyP95(atLeast count: Int64) -> Double? {
        let buckets = histogram.map { (index: Int($0.index), count: $0.count) }
        guard buckets.reduce(0, { $0 + $1.count }) >= count else { return nil }
        return LatencyBuckets.quantile(of: buckets, percent: 95).map { Double($0) / 1e6 }
    }
}
