import CalibModel

/// Every parameter of the quote path, effective values (SPEC 3.3, 4). `config/edge.yaml` documents each; the defaults are there and here,
/// and a test compares them.
package struct Parameters: Sendable {
    /// What starts a tick: each proven book change, or a fixed interval in nanoseconds.
    package enum Trigger: Sendable, Equatable {
        case bookChange
        case interval(nanoseconds: Int64)
    }

    package struct Cache: Sendable {
        /// Off: every tick refreshes.
        package var isEnabled = true
        package var ttlNanoseconds: Int64 = 100_000_000
        package var freshForPricingNanoseconds: Int64 = 60_000_000
        package var staleIsOK = true
        package var skipsPricingOnStale = false
        package var maxStaleNanoseconds: Int64 = 1_000_000_000
        package var staleWiden = BasisPoints(micro: 500_000)
        /// How long a connection may leave a ping unanswered beyond its usual round trip.
        package var webSocketGapNanoseconds: Int64 = 300_000_000
        package var invalidateOnJump = BasisPoints(micro: 50_000_000)
        /// Levels per side that a REST snapshot is asked for and compared in.
        package var maxDepth: Int64 = 50
        /// How long other frames may extend the proof of a silent topic: 30 s on Binance (SPEC 3.2).
        package var topicProofNanoseconds: Int64 = 30_000_000_000
        /// How long a bookTicker may be newer than every depth event: 1 s (SPEC 3.2).
        package var tickerLeadNanoseconds: Int64 = 1_000_000_000
        package init() {}
    }

    package struct Spread: Sendable {
        package var base = BasisPoints(micro: 1_000_000)
        package var minimum = BasisPoints(micro: 600_000)
        package var maximum = BasisPoints(micro: 2_500_000)
        package var tightenStep = BasisPoints(micro: 200_000)
        package var tightenNanoseconds: Int64 = 200_000_000
        package init() {}
    }

    /// A value at which a guard turns soft, and one at which it turns hard.
    package struct Threshold: Sendable {
        package var soft: Double
        package var hard: Double
        package init(soft: Double, hard: Double) {
            self.soft = soft
            self.hard = hard
        }
    }

    package struct Guards: Sendable {
        /// bps per sqrt minute.
        package var volatility = Threshold(soft: 15, hard: 25)
        /// Tick p95 in ms.
        package var latency = Threshold(soft: 300, hard: 450)
        package var pnlZ = Threshold(soft: -1.5, hard: -2.5)
        /// % of `maxPosition`.
        package var inventory = Threshold(soft: 6, hard: 10)
        /// Taker fills in 15 minutes.
        package var takerFills = Threshold(soft: 12, hard: 20)
        package var softWiden = BasisPoints(micro: 300_000)
        package var haltNanoseconds: Int64 = 2_000_000_000
        package init() {}
    }

    package struct Limits: Sendable {
        /// 1e-8 base asset.
        package var orderQuantity: Int64 = 100_000_000
        package var position: Int64 = 200_000_000
        /// 1e-8 quote currency, of one order.
        package var notional: Int64 = 100_000 * 100_000_000
        package var priceCollar = BasisPoints(micro: 100_000_000)
        /// Orders resting or on their way: one per side is all that a symbol has.
        package var openOrdersSymbol: Int64 = 2
        package var openOrdersHost: Int64 = 1000
        /// 1e-8 quote currency since UTC midnight or the start; what reaches it halts until the next midnight.
        package var dailyLossSymbol: Int64 = 1000 * 100_000_000
        package var dailyLossHost: Int64 = 5000 * 100_000_000
        package init() {}
    }

    package var trigger = Trigger.bookChange
    package var tickDeadlineNanoseconds: Int64 = 150_000_000
    package var tickSampleRate: Int64 = 10
    /// Of all symbols. 500 symbols x 20 ticks/s are 10,000 ticks and so 1,000 rows; 10,000 rows, should everything halt or be late, are 5 MB/s.
    package var tickRowsPerSecondMax: Int64 = 10_000
    package var cache = Cache()
    package var spread = Spread()
    package var guards = Guards()
    package var limits = Limits()
    /// 1e-8 base asset.
    package var orderQuantity: Int64 = 1_000_000
    package var maxPosition: Int64 = 100_000_000
    /// A quote moves only when its target moved by more than this.
    package var minimumPriceChange = BasisPoints(micro: 50_000)
    /// What a place at the head of a queue is worth: a well-placed order is kept while moving gains less.
    package var queueValue = BasisPoints(micro: 200_000)
    package var nudgeMaximum = BasisPoints(micro: 500_000)
    package var nudgeNanoseconds: Int64 = 150_000_000
    package var orderRatePerSecond: Int64 = 30
    package var orderBurst: Int64 = 300
    package var paperLatencyNanoseconds: Int64 = 5_000_000
    /// Mean of the sampled delay on top; 0: none.
    package var paperJitterNanoseconds: Int64 = 0
    package var paperRules = PaperRules()
    package var makerFee = BasisPoints(micro: 2_000_000)
    package var takerFee = BasisPoints(micro: 5_000_000)
    package var emaAlpha = 0.1
    package var targetPnL = BasisPoints.zero
    package init() {}

    /// These parameters as arm B of `baseline` may use them: width, guards, sizes, cache ages. What limits (SPEC 10.2), what the venue and the
    /// host are like, and how both arms are measured stays the baseline's.
    package func candidate(to baseline: Parameters) -> Parameters {
        var result = self
        result.limits = baseline.limits
        result.trigger = baseline.trigger
        result.tickDeadlineNanoseconds = baseline.tickDeadlineNanoseconds
        result.tickSampleRate = baseline.tickSampleRate
        result.tickRowsPerSecondMax = baseline.tickRowsPerSecondMax
        result.cache.maxStaleNanoseconds = min(cache.maxStaleNanoseconds, baseline.cache.maxStaleNanoseconds)
        result.cache.topicProofNanoseconds = baseline.cache.topicProofNanoseconds
        result.cache.tickerLeadNanoseconds = baseline.cache.tickerLeadNanoseconds
        result.cache.invalidateOnJump = baseline.cache.invalidateOnJump
        result.cache.webSocketGapNanoseconds = baseline.cache.webSocketGapNanoseconds
        result.cache.maxDepth = baseline.cache.maxDepth
        result.orderRatePerSecond = baseline.orderRatePerSecond
        result.orderBurst = baseline.orderBurst
        result.paperLatencyNanoseconds = baseline.paperLatencyNanoseconds
        result.paperJitterNanoseconds = baseline.paperJitterNanoseconds
        result.paperRules = baseline.paperRules
        result.makerFee = baseline.makerFee
        result.takerFee = baseline.takerFee
        result.emaAlpha = baseline.emaAlpha
        result.targetPnL = baseline.targetPnL
        return result
    }
}
