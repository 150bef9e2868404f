import CalibModel

/// What the quote path counts for `/metrics` beside what every symbol counts itself: integers, added to in place (SPEC 4.8, 9.2).
package struct NodeMetrics: ~Copyable {
    /// A copy of it goes to the control loop once a second.
    package struct Counts: Sendable {
        /// Of one experiment arm.
        package struct Arm: Sendable {
            /// Totals of all ticks, ns.
            package var ticks = BoundedHistogram(bounds: MetricBounds.tick)
            package var deadlineMisses: Int64 = 0
            /// Per fill, millionths of a bps, of the quote's arm.
            package var slippage = BoundedHistogram(bounds: MetricBounds.slippage)
        }

        package internal(set) var arms: InlineArray<2, Arm> = .init(repeating: Arm())
        /// Of logged ticks, by weight, in `Stage` order.
        package internal(set) var stages: InlineArray<6, BoundedHistogram> = .init(repeating: BoundedHistogram(bounds: MetricBounds.stage))
        package internal(set) var cacheReads = CacheReads()
    }

    /// How the pricing reads of all ticks went (SPEC 3.5).
    package struct CacheReads: Sendable, Equatable {
        package var hits: Int64 = 0
        package var stale: Int64 = 0
        package var misses: Int64 = 0
        package var total: Int64 { hits + stale + misses }
    }

    /// What is shown of one second.
    package struct Reading: Sendable {
        package var counts: Counts
        /// 95th percentiles over the present minute and the four before it, ns; nil without ticks.
        package var tickP95: Int64?
        package var fetchP95: Int64?
        /// Over the same time.
        package var recentCacheReads: CacheReads
    }

    package private(set) var counts = Counts()
    private var ticks = TrailingLatencies()
    private var fetches = TrailingLatencies()
    private var cacheReadsAtMinute: InlineArray<5, CacheReads> = .init(repeating: CacheReads())
    private var minute: Int64?

    package init() {}

    // MARK: The quote path

    mutating func ticked(nanoseconds: Int64, bucket: Int, _ outcome: MDCache.Outcome, _ arm: CalibModel.Arm) {
        counts.arms[Int(arm.rawValue)].ticks.add(nanoseconds)
        ticks.add(bucket, weight: 1)
        switch outcome {
        case .hit: counts.cacheReads.hits &+= 1
        case .stale: counts.cacheReads.stale &+= 1
        case .miss, .refused: counts.cacheReads.misses &+= 1
        }
    }

    mutating func missedDeadline(_ arm: Arm) { counts.arms[Int(arm.rawValue)].deadlineMisses &+= 1 }

    /// A tick that is logged: the only ones whose stages are timed.
    mutating func logged(_ record: borrowing TickRecord) {
        for stage in 0..<6 {
            guard let nanoseconds = record.stageNanoseconds[stage] else { continue }
            counts.stages[stage].add(nanoseconds, weight: record.weight)
            if stage == Stage.fetchMD.rawValue { fetches.add(LatencyBuckets.index(of: nanoseconds), weight: record.weight) }
        }
    }

    mutating func filled(slip: BasisPoints, _ arm: Arm) { counts.arms[Int(arm.rawValue)].slippage.add(slip.micro) }

    // MARK: Once a second

    mutating func reading(at now: Instant) -> Reading {
        let minute = now.nanoseconds.flooredDivision(by: 60_000_000_000)
        if let last = self.minute, minute > last {
            // After a pause of minutes they all begin here: nothing was counted in them.
            for begun in max(last + 1, minute - 4)...minute {
                ticks.begin(minute: begun)
                fetches.begin(minute: begun)
                cacheReadsAtMinute[Int(begun.flooredRemainder(by: 5))] = counts.cacheReads
            }
        }
        self.minute = minute
        let base = cacheReadsAtMinute[Int((minute + 1).flooredRemainder(by: 5))]
        var recent = counts.cacheReads
        recent.hits -= base.hits
        recent.stale -= base.stale
        recent.misses -= base.misses
        return Reading(counts: counts, tickP95: ticks.p95(in: minute), fetchP95: fetches.p95(in: minute), recentCacheReads: recent)
    }
}

/// Durations of the last five minutes. The quote path adds to one running histogram; what it was at the beginning of each minute is kept
/// beside it, and the window is the difference.
private struct TrailingLatencies: ~Copyable {
    private let counts: UnsafeMutablePointer<Int64>
    private let atMinute: UnsafeMutablePointer<Int64>

    init() {
        counts = .allocate(capacity: LatencyBuckets.count)
        counts.initialize(repeating: 0, count: LatencyBuckets.count)
        atMinute = .allocate(capacity: 5 * LatencyBuckets.count)
        atMinute.initialize(repeating: 0, count: 5 * LatencyBuckets.count)
    }

    deinit {
        counts.deallocate()
        atMinute.deallocate()
    }

    mutating func add(_ bucket: Int, weight: Int64) { counts[bucket] &+= weight }

    mutating func begin(minute: Int64) { base(minute).update(from: counts, count: LatencyBuckets.count) }

    /// What it was when the minute began; 0 before the fifth minute.
    private func base(_ minute: Int64) -> UnsafeMutablePointer<Int64> {
        atMinute + Int(minute.flooredRemainder(by: 5)) * LatencyBuckets.count
    }

    /// Over `minute` and the four before it (SPEC 1.4); nil without any.
    func p95(in minute: Int64) -> Int64? {
        let oldest = base(minute + 1)
        var total: Int64 = 0
        for bucket in 0..<LatencyBuckets.count { total += counts[bucket] - oldest[bucket] }
        guard total > 0 else { return nil }
        let rank = min(total - 1, 95 * total / 100)
        var seen: Int64 = 0
        for bucket in 0..<LatencyBuckets.count {
            seen += counts[bucket] - oldest[bucket]
            if seen > rank { return LatencyBuckets.upperEdge(of: bucket) }
        }
        return nil
    }
}
