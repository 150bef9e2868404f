import CalibModel

/// The ten features of one symbol (SPEC 5). Tick averages step once a second, so that they do not depend on the message rate; fill averages
/// step per fill. Unknown is nil, never 0.
package struct FeatureSet: ~Copyable {
    /// What one second of the grid hands over, as of the second's boundary.
    package struct Second {
        /// Twice the mid in ticks; nil while the book is not proven.
        package var midTwice: Int64?
        /// Best bid plus best ask quantity, lots.
        package var topLots: Int64?
        /// Mark-to-market in ticks x lots, doubled, fees not included.
        package var markTwice: Double?
        /// Ticks x lots of a full position, doubled: what pnl_bps is measured against.
        package var fullPositionTwice: Double
        /// Per side: lots ahead of our resting order, nil when none rests; and lots absorbed ahead of it in this second.
        package var ahead: (buy: Int64?, sell: Int64?)
        package var absorbed: (buy: Int64, sell: Int64)
    }

    private static let windowSeconds = 300
    private static let takerMinutes = 15
    private static let latencyWindows = 5

    private var squaredReturn: ExponentialAverage
    private var topLots: ExponentialAverage
    private var pnlDeviation: ExponentialAverage
    private var absorbRate: (buy: ExponentialAverage, sell: ExponentialAverage)
    private var depthAhead: (buy: ExponentialAverage, sell: ExponentialAverage)
    private var slippage: ExponentialAverage
    private var adverse: ExponentialAverage
    private var targetPnL: BasisPoints

    private var previousMidTwice: Int64?
    /// Trailing 300 one-second buckets of (quotes, filled orders, fills, taker fills).
    private let window: UnsafeMutablePointer<(quotes: Int32, filledOrders: Int32, fills: Int32, takers: Int32)>
    private var totals = (quotes: Int64(0), filledOrders: Int64(0), fills: Int64(0), takers: Int64(0))
    private var slot = 0
    private let takers: UnsafeMutablePointer<Int64>
    private var takerSlot = 0
    /// Mark-to-market per second, last 60.
    private let marks: UnsafeMutablePointer<Double>
    private var markCount = 0
    /// pnl_bps per minute, last 60.
    private let minutes: UnsafeMutablePointer<Double>
    private var minuteCount = 0
    // Read by every tick, changed once a second.

    /// bps per sqrt s.
    package private(set) var volRealized: Double?
    /// bps per sqrt minute (SPEC 4.3): vol_realized * sqrt 60.
    package private(set) var volatilityPerRootMinute: Double?
    /// z of pnl_bps (SPEC 4.3); nil below 30 minutes.
    package private(set) var pnlZ: Double?
    package private(set) var takerFills15Minutes: Int64 = 0
    /// Samples that were not finite and not used, since the last `takeRejected`.
    private var rejected: Int64 = 0
    private let latencies: UnsafeMutablePointer<UInt32>
    private var latencySlot = 0

    package init(emaAlpha: Double, targetPnL: BasisPoints) {
        let average = ExponentialAverage(alpha: emaAlpha)
        squaredReturn = average
        topLots = average
        pnlDeviation = average
        absorbRate = (average, average)
        depthAhead = (average, average)
        slippage = average
        adverse = average
        self.targetPnL = targetPnL
        window = .allocate(capacity: Self.windowSeconds)
        window.initialize(repeating: (0, 0, 0, 0), count: Self.windowSeconds)
        takers = .allocate(capacity: Self.takerMinutes)
        takers.initialize(repeating: 0, count: Self.takerMinutes)
        marks = .allocate(capacity: 60)
        minutes = .allocate(capacity: 60)
        latencies = .allocate(capacity: Self.latencyWindows * LatencyBuckets.count)
        latencies.initialize(repeating: 0, count: Self.latencyWindows * LatencyBuckets.count)
    }

    deinit {
        window.deallocate()
        takers.deallocate()
        marks.deallocate()
        minutes.deallocate()
        latencies.deallocate()
    }

    /// Other weights for what comes; what was averaged stays.
    mutating func adopt(emaAlpha: Double, targetPnL: BasisPoints) {
        squaredReturn.alpha = emaAlpha
        topLots.alpha = emaAlpha
        pnlDeviation.alpha = emaAlpha
        absorbRate.buy.alpha = emaAlpha
        absorbRate.sell.alpha = emaAlpha
        depthAhead.buy.alpha = emaAlpha
        depthAhead.sell.alpha = emaAlpha
        slippage.alpha = emaAlpha
        adverse.alpha = emaAlpha
        self.targetPnL = targetPnL
    }

    // MARK: Events

    package mutating func quoted() {
        window[slot].quotes &+= 1
        totals.quotes += 1
    }

    package mutating func filled(slip: BasisPoints, isTaker: Bool, isFirstOfOrder: Bool) {
        slippage.add(slip.value)
        window[slot].fills &+= 1
        totals.fills += 1
        if isFirstOfOrder {
            window[slot].filledOrders &+= 1
            totals.filledOrders += 1
        }
        if isTaker {
            window[slot].takers &+= 1
            totals.takers += 1
            takers[takerSlot] += 1
            takerFills15Minutes += 1
        }
    }

    package mutating func markedOut(adverse value: BasisPoints) { adverse.add(value.value) }

    package mutating func ticked(nanoseconds: Int64) { ticked(bucket: LatencyBuckets.index(of: nanoseconds)) }

    /// - Parameter bucket: of `LatencyBuckets`.
    package mutating func ticked(bucket: Int) {
        let index = latencySlot * LatencyBuckets.count + bucket
        if latencies[index] != .max { latencies[index] &+= 1 }
    }

    /// One step of the one-second grid. `second` counts since the epoch. Returns the squared return of that second in 1e-9 bps^2, or nil.
    package mutating func step(_ input: Second, second: Int64) -> Int64? {
        var squared: Int64?
        if let mid = input.midTwice {
            if let previous = previousMidTwice {
                let change = 2 * Double(mid - previous) / Double(mid + previous) * 1e4
                squaredReturn.add(change * change)
                volRealized = squaredReturn.value.map { $0.squareRoot() }
                volatilityPerRootMinute = volRealized.map { $0 * 60.0.squareRoot() }
                squared = FixedPoint.fixed(change * change, scale: 1e9)
            }
            previousMidTwice = mid
        } else {
            previousMidTwice = nil
        }
        if let lots = input.topLots { topLots.add(Double(lots)) }
        if let ahead = input.ahead.buy {
            absorbRate.buy.add(Double(input.absorbed.buy))
            depthAhead.buy.add(Double(ahead))
        }
        if let ahead = input.ahead.sell {
            absorbRate.sell.add(Double(input.absorbed.sell))
            depthAhead.sell.add(Double(ahead))
        }
        if let mark = input.markTwice {
            if mark.isFinite { step(mark: mark, input.fullPositionTwice, second: second) } else { rejected += 1 }
        }
        roll(second: second)
        return squared
    }

    package mutating func takeRejected() -> Int64 {
        defer { rejected = 0 }
        return rejected
    }

    /// A silence too long to step through ended with `second`: the grid starts again. Its seconds had no events, so the windows only forget.
    package mutating func restart(after last: Int64, upTo second: Int64) {
        previousMidTwice = nil
        markCount = 0
        let longest = Int64(max(Self.windowSeconds, 60 * max(Self.takerMinutes, Self.latencyWindows)))
        for skipped in max(last, second - longest)..<second { roll(second: skipped + 1) }
    }

    // MARK: Values

    /// Computed once a minute: mean of the last 10 minutes / (standard deviation of the last 60 / sqrt 10); nil below 30 minutes or without any variation.
    private var currentPnLZ: Double? {
        let n = min(minuteCount, 60)
        guard n >= 30 else { return nil }
        var sum = 0.0
        for index in 0..<n { sum += minutes[index] }
        let mean = sum / Double(n)
        var squares = 0.0
        for index in 0..<n { squares += (minutes[index] - mean) * (minutes[index] - mean) }
        let deviation = (squares / Double(n - 1)).squareRoot()
        guard deviation > 0 else { return nil }
        var recent = 0.0
        for back in 1...10 { recent += minutes[(minuteCount - back) % 60] }
        return recent / 10 / (deviation / 10.0.squareRoot())
    }

    /// p95 of tick totals over the current minute and the four before it, ns (SPEC 1.4); nil without ticks.
    package var latencyP95: Int64? {
        var total: Int64 = 0
        for index in 0..<(Self.latencyWindows * LatencyBuckets.count) { total += Int64(latencies[index]) }
        guard total > 0 else { return nil }
        let rank = min(total - 1, 95 * total / 100)
        var seen: Int64 = 0
        for bucket in 0..<LatencyBuckets.count {
            for part in 0..<Self.latencyWindows { seen += Int64(latencies[part * LatencyBuckets.count + bucket]) }
            if seen > rank { return LatencyBuckets.upperEdge(of: bucket) }
        }
        return nil
    }

    /// One feature in its unit, or nil when unknown. `lot` is one lot in base asset.
    package func value(_ feature: Feature, lot: Double) -> Double? {
        switch feature {
        case .volRealized: volRealized
        case .liqTopDepth: topLots.value.map { $0 * lot }
        case .latencyP95: latencyP95.map { Double($0) / 1e6 }
        case .pnlDev: pnlDeviation.value
        case .fillRate: totals.quotes > 0 ? Double(totals.filledOrders) / Double(totals.quotes) : nil
        case .takerShare: totals.fills > 0 ? Double(totals.takers) / Double(totals.fills) : nil
        case .queueAbsorbRate: absorbed.map { $0 * lot }
        case .queueETA: queueETA
        case .slippage: slippage.value
        case .adverseMove: adverse.value
        }
    }

    // MARK: Leaves

    /// Lots per second, both sides added; nil before any order rested.
    private var absorbed: Double? {
        switch (absorbRate.buy.value, absorbRate.sell.value) {
        case (nil, nil): nil
        case (let buy, let sell): (buy ?? 0) + (sell ?? 0)
        }
    }

    /// The longer side; nil when a side with an order has rate 0.
    private var queueETA: Double? {
        var longest: Double?
        for (depth, rate) in [(depthAhead.buy.value, absorbRate.buy.value), (depthAhead.sell.value, absorbRate.sell.value)] {
            guard let depth, let rate else { continue }
            guard rate > 0 else { return nil }
            longest = max(longest ?? 0, 1000 * depth / rate)
        }
        return longest
    }

    private mutating func step(mark: Double, _ fullPositionTwice: Double, second: Int64) {
        let index = markCount % 60
        if markCount >= 60, fullPositionTwice > 0 {
            // The slot about to be overwritten holds the mark of 60 s ago.
            let change = (mark - marks[index]) / fullPositionTwice * 1e4
            pnlDeviation.add(change - targetPnL.value)
            if second.isMultiple(of: 60) {
                minutes[minuteCount % 60] = change
                minuteCount += 1
                pnlZ = currentPnLZ
            }
        }
        marks[index] = mark
        markCount += 1
    }

    private mutating func roll(second: Int64) {
        slot = (slot + 1) % Self.windowSeconds
        let old = window[slot]
        totals.quotes -= Int64(old.quotes)
        totals.filledOrders -= Int64(old.filledOrders)
        totals.fills -= Int64(old.fills)
        totals.takers -= Int64(old.takers)
        window[slot] = (0, 0, 0, 0)
        guard second.isMultiple(of: 60) else { return }
        takerSlot = (takerSlot + 1) % Self.takerMinutes
        takerFills15Minutes -= takers[takerSlot]
        takers[takerSlot] = 0
        latencySlot = (latencySlot + 1) % Self.latencyWindows
        (latencies + latencySlot * LatencyBuckets.count).update(repeating: 0, count: LatencyBuckets.count)
    }
}
