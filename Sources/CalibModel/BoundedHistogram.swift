/// Counts of whole numbers under fixed upper bounds, each bound inclusive: a histogram as Prometheus reads it (SPEC 9.2). All of it lies inline,
/// and adding is a scan over the bounds: the quote path may do it on every tick. Quantiles that records carry come from `LatencyBuckets`, which
/// are finer; here the bounds are the promises, so that keeping one is a ratio of counts.
public struct BoundedHistogram: Sendable {
    /// Behind the bounds comes one that nothing is above.
    package static let boundsMax = 19

    @usableFromInline var limits: InlineArray<20, Int64> = .init(repeating: .max)
    @usableFromInline var tallies: InlineArray<20, Int64> = .init(repeating: 0)
    @usableFromInline var total: Int64 = 0
    private let boundCount: Int

    /// - Parameter bounds: ascending, at most `boundsMax`, in the unit of the values.
    package init(bounds: [Int64]) {
        precondition(bounds.count <= Self.boundsMax, "BUG: \(bounds.count) bounds")
        precondition(zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 }, "BUG: bounds ascend")
        boundCount = bounds.count
        for (place, bound) in bounds.enumerated() { limits[place] = bound }
    }

    /// - Parameter weight: how many values it stands for.
    @inlinable public mutating func add(_ value: Int64, weight: Int64 = 1) {
        var place = 0
        while value > limits[place] { place &+= 1 }
        tallies[place] &+= weight
        total &+= value &* weight
    }

    /// Takes in what another one of the same bounds has counted.
    package mutating func add(_ other: BoundedHistogram) {
        precondition(boundCount == other.boundCount && (0..<boundCount).allSatisfy { limits[$0] == other.limits[$0] }, "BUG: other bounds")
        for place in 0...boundCount { tallies[place] &+= other.tallies[place] }
        total &+= other.total
    }

    /// The bound of the bucket that holds the quantile (SPEC 1.4); nil without values, and above the last bound.
    package func bound(ofPercent percent: Int64) -> Int64? {
        let count = count
        guard count > 0 else { return nil }
        let rank = min(count - 1, percent * count / 100)
        var seen: Int64 = 0
        for place in 0..<boundCount {
            seen += tallies[place]
            if seen > rank { return limits[place] }
        }
        return nil
    }

    package var bounds: [Int64] { (0..<boundCount).map { limits[$0] } }
    /// Per bound the values up to it and above the one before, and last those above all bounds.
    package var counts: [Int64] { (0...boundCount).map { tallies[$0] } }
    package var count: Int64 { counts.reduce(0, +) }
    /// Of all values, by weight.
    package var sum: Int64 { total }
}

/// The bounds of the metrics' histograms: every promised limit lies exactly on one, so that it is kept or not without interpolation.
package enum MetricBounds {
    private static func milliseconds(_ values: [Double]) -> [Int64] { values.map { Int64(($0 * 1e6).rounded()) } }

    /// Nanoseconds of a whole tick: 35 (fetch), 140 and 150 ms (SPEC 3.6); 0.05 is what a host of 500 symbols must keep.
    package static let tick = milliseconds([0.005, 0.05, 0.5, 1, 2, 5, 10, 20, 35, 50, 75, 100, 140, 150, 200, 300, 500, 1000])
    /// Nanoseconds of one stage: 35 ms is the fetch's promise.
    package static let stage = milliseconds([0.005, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 12, 15, 35, 60, 100, 250])
    /// Nanoseconds until somebody answers: a hub, a venue, an edge under a command. 50 ms is the guards' wait for a refresh (SPEC 3.3), 1 s
    /// the fleet's return to A.
    package static let answer = milliseconds([5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000])
    /// Nanoseconds of refreshing a book: 35 ms is the fetch's promise (SPEC 3.6), 50 ms the guards' wait.
    package static let refresh = milliseconds([1, 2, 5, 10, 20, 35, 50, 100, 200, 500, 1000])
    /// Nanoseconds of making bytes durable: 20 ms is how long a fill may wait for it (SPEC 2.7).
    package static let sync = milliseconds([0.1, 0.5, 1, 2.5, 5, 10, 20, 50, 100, 250, 500, 1000, 2500])
    /// Nanoseconds of building a dataset.
    package static let build = milliseconds([100, 500, 1000, 5000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000])
    /// Millionths of a bps, below 0 a gain: 0 is the gate's tolerance (SPEC 7.3).
    package static let slippage: [Int64] = [
        -10_000_000, -5_000_000, -2_500_000, -1_000_000, -500_000, -250_000, -100_000, 0, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000, 10_000_000,
    ]
}
