import CalibModel
import Testing

@Suite struct BoundedHistogramTests {
    /// A promise is kept exactly at its limit and broken one nanosecond above it.
    @Test func valueOnABoundCountsBelowIt() {
        var histogram = BoundedHistogram(bounds: MetricBounds.tick)
        let limit = MetricBounds.tick.firstIndex(of: 150_000_000)!
        histogram.add(150_000_000)
        histogram.add(150_000_001)
        #expect(histogram.counts[limit] == 1 && histogram.counts[limit + 1] == 1)
        histogram.add(0)
        histogram.add(.max)
        #expect(histogram.counts.first == 1 && histogram.counts.last == 1 && histogram.count == 4)
    }

    @Test func weightCountsAsSoManyValues() {
        var histogram = BoundedHistogram(bounds: [10, 20])
        histogram.add(15, weight: 7)
        histogram.add(-3, weight: 2)
        #expect(histogram.counts == [2, 7, 0] && histogram.count == 9 && histogram.sum == 99)
    }

    /// The limits of product-conventions D.4, each on a bound: ticks, stages, answers.
    @Test func promisedLimitsAreBounds() {
        func bounds(_ seconds: [Double]) -> Set<Int64> { Set(seconds.map { Int64(($0 * 1e9).rounded()) }) }
        #expect(
            bounds([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.14, 0.15, 0.2, 0.3, 0.5, 1])
                .isSubset(of: MetricBounds.tick))
        #expect(
            bounds([0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.012, 0.015, 0.035, 0.06, 0.1, 0.25]).isSubset(of: MetricBounds.stage))
        #expect(bounds([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]) == Set(MetricBounds.answer))
        #expect(MetricBounds.slippage.contains(0) && MetricBounds.sync.contains(20_000_000))
    }
}
