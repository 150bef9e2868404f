import CalibModel
import TestSupport
import Testing
import Wire

@testable import EdgeCore

// The faults of the first implementation that concern the edge, by the numbers of its review: none may come back. One test stands here for
// each, named after it; where a fault has a suite of its own, the test here is the shortest form of it.
//
//    1 deadlock at the first call        -> everyCallReturns
//    2 the cache was never used          -> theCacheIsUsed
//    3 stages ran disabled               -> everyStageActs
//   19 unsigned costs                    -> costsAreSigned
//   20 adverse move taken at the fill    -> theAdverseMoveComesAfterTheFill
//   21 net had the wrong sign            -> aMakerBelowTheMidEarns
//   22 three different p95               -> thereIsOneQuantile               (and UnitsTests.quantilesFollowTheOneRule)
//   23 volatility by the message rate    -> FeatureOracleTests.volatilityDoesNotDependOnTheSamplingRate
//   24 averages began again at 0         -> zeroIsAValue_notABeginning
//   25 lifetime ratios                   -> ratiosAreOfTheLast300Seconds
//   26 the queue's ETA froze             -> aStalledQueueHasNoETA
//   27 gauges kept their last value      -> whatIsUnknownHasNoValue          (and EdgeMetricsTests for `metrics.symbol_ttl`)
//   29 one counter sampled all symbols   -> everySymbolIsSampled             (and TickSamplingTests)
//   30 hits needed frequent reads        -> MDCacheTests.fault30_hitsDoNotDependOnHowOftenItIsRead
//   31 halted and late ticks vanished    -> haltedTicksAreCountedAndTimed    (and TickTests.aTickThatIsHaltedAndLateIsBoth)
//   32 refreshes were not coalesced      -> MDCacheTests.fault32_readsShareOneRefresh
//   33 an invalidation was undone        -> aGapIsNotHealedByAnswers         (and MDCacheTests.fault33...)
//   34 an older snapshot replaced        -> anOlderSnapshotNeverReplacesANewerBook (and MDCacheTests.fault34...)
//   35 staleness without a bound         -> nothingIsQuotedOnAnOldBook       (and MDCacheTests.fault35...)
//   36 ages on the wall clock            -> aStepOfTheWallClockAgesNothing   (and MDCacheTests.fault36...)
//   37 age counted from arrival          -> aLateFrameIsOldOnArrival         (and MDCacheTests.fault37...)
//   38 invented ids                      -> theBookHasTheVenuesID            (and MDCacheTests.fault38...)
//   39 key without depth                 -> FreshnessTests.aSnapshotNeverReplacesTheBook_fault39, BybitTests.otherDepthsAreOther
//   40 a failed refresh gave nothing     -> MDCacheTests.fault40_aFailedRefreshLeavesTheBook_andBacksOff
//   41 the time limit killed refreshes   -> MDCacheTests.fault41_aTimeOutLeavesTheRefreshInFlight
//   42 clean-up by symbol                -> MDCacheTests.fault42_anOldAnswerDoesNotEndANewerRefresh
//   43 one gap cleared all symbols       -> aGapConcernsItsSymbolAlone, aJumpOf40BpsIsNoticed
//   44 lists grew without bound          -> historiesAreBounded              (and MDCacheTests.fault44...)
//   45 SOFT halved the spread            -> softIsSmallerAndWider
//   46 one estimator for all symbols     -> everySymbolHasItsOwnState
//   47 long made the bid aggressive      -> longMovesBothQuotesDown
//   48 queue, position were stubs        -> queueAndPositionAreReal
//   49 nudges rounded to 2 decimals      -> aTickOf5ThousandthsIsQuoted, nudgeTimersAreOfTheirSide
//   50 protective cancels were cooled    -> aProtectiveCancelNeverWaits
//   51 the z was none                    -> FeatureTests.pnlZFollowsItsFormula
//   52 widening was slow                 -> wideningIsImmediate_tighteningIsNot
//   53 no tick, no cross check           -> quotesAreOnTheGrid_andNeverCross
//   54 a torn line took the next one     -> aTornLineTakesNothingAlong       (and FeedRepairTests)
//   55 rows vanished after close         -> nothingWaitsInMemoryAfterADrain
//   56 day and ts of two clock readings  -> dayAndTimeAreOfOneReading
//   57 rows without identity             -> everyRowHasItsIdentity
//   58 disk full, retention              -> FeedFilesTests
//   59 NaN in a row                      -> aNumberThatIsNotFiniteIsNotWritten
//   64 lists rebuilt, sorted at a scrape -> historiesAreBounded
//
// Not of the edge: 4-14 and 16-18 (tracing, dataset, gates, arms, statistics), 15, 28, 60-63, 65-67 (dataset, reports, exposition, gate). Those of
// experiments stand in GateTests.
@Suite struct KnownFaultsTests {
    // MARK: 1-3 It runs

    @Test func everyCallReturns() {
        let it = QuoteBench(symbols: 2)
        it.quoting(symbols: 2)
        it.trade("100.0", "9", sells: true)
        _ = it.node.kill(0, at: it.now)
        it.node.release(0, at: it.now)
        _ = it.apply([.b]) { $0.spread.base = BasisPoints(2)! }
        it.node.adopt(baseline: Parameters(), at: it.now)
        _ = it.node.cancelAll(at: it.now)
        it.node.clockStepped(by: 5)
        it.advance(40_000)
        _ = it.node.status(of: 1)
        let isDone = it.node.finish()
        it.drain()
        #expect(isDone && it.fills.count == 1 && it.markouts.count == 1)
    }

    @Test func theCacheIsUsed() {
        let it = QuoteBench()
        it.quoting()
        #expect(!it.ticks.isEmpty && it.ticks.allSatisfy { $0.isCacheHit && $0.cacheAgeNanoseconds != nil })
    }

    /// One tick in which every stage has something to do, and does it.
    @Test func everyStageActs() {
        let it = QuoteBench {
            $0.spread.base = BasisPoints(30)!
            $0.spread.maximum = BasisPoints(90)!
            $0.nudgeMaximum = BasisPoints(0.5)!
            $0.maxPosition = 12_500_000
        }
        it.quoting()
        it.trade("99.0", "9", sells: true)
        #expect(it.position() == 10, "8 % of max_position")
        it.node.shared.explainTick = it.ticks() + 1
        it.tick(after: 5)
        let tick = it.node.shared.explanation
        #expect(tick?.fetched?.isHit == true)
        #expect(tick!.spread!.output.spread >= BasisPoints(30)!)
        #expect(tick?.guards?.output.inventory == .soft && tick?.guards?.output.sizeNumerator == 1)
        #expect(tick!.guards!.output.widened == tick!.spread!.output.spread + BasisPoints(0.3)!)
        #expect(tick?.inventory?.skew == BasisPoints(0.3))
        #expect(tick!.queue!.buy.nudge > .zero && tick!.queue!.buyInput.percentileAhead > 30)
        #expect(tick?.emit?.input.lots == 5 && tick!.emit!.output.bid!.price < 1_000)
        #expect(tick?.decisions?.buy == .place)
    }

    // MARK: 19-29 Measures

    @Test func costsAreSigned() {
        let it = QuoteBench { $0.paperLatencyNanoseconds = 50_000_000 }
        it.quoting()
        // The newest target has moved up while the old bid still rests: filling it is better than what is asked for now.
        it.move(bids: "[\"100.1\",\"1\"]", asks: "[\"100.2\",\"0\"],[\"100.3\",\"4\"]", after: 60)
        it.trade("99.9", "1", sells: true)
        let fill = it.fills.first
        #expect(fill!.quotePrice > fill!.price && fill!.slip < .zero, "an improvement is no cost")
    }

    @Test func theAdverseMoveComesAfterTheFill() {
        let it = QuoteBench()
        it.quoting()
        it.trade("99.9", "1", sells: true)
        #expect(it.fills[0].midNowTwice == it.fills[0].midAtQuoteTwice)
        for _ in 0..<4 { it.tick(after: 1_000) }
        it.move(bids: "[\"100.0\",\"0\"],[\"99.8\",\"5\"]", asks: "[\"100.0\",\"5\"]", after: 900)
        it.advance(10_000)
        let adverse = it.snapshots.reduce(Int128(0)) { $0 + $1.sums.adverseNotional }
        #expect(adverse > 0, "we bought, and the market fell after it: a cost")
    }

    /// A maker that bought 1 bp below a mid that stays there has earned 1 bp, less its fee.
    @Test func aMakerBelowTheMidEarns() {
        let it = QuoteBench { $0.makerFee = BasisPoints(0.25)! }
        it.frame(
            "{\"lastUpdateId\":10,\"bids\":[[\"1000.0\",\"5\"]],\"asks\":[[\"1000.2\",\"4\"]]}", on: 0)
        it.frame("{\"e\":\"depthUpdate\",\"E\":\(it.clock),\"s\":\"S0\",\"U\":9,\"u\":11,\"pu\":8,\"b\":[],\"a\":[]}", on: 0)
        it.advance(10)
        it.trade("999.0", "1", sells: true)
        it.advance(31_000)
        let (fill, net) = (it.fills[0], it.markouts[0].net)
        let gross = Double(fill.midNowTwice - 2 * fill.price) / Double(fill.midNowTwice) * 1e4
        #expect(gross > 0.9 && (net!.value - (gross - 0.25)).magnitude < 1e-6, "net \(net!.value), gross \(gross)")
    }

    @Test func thereIsOneQuantile() {
        let values = (1...200).map { Int64($0) }
        #expect(Quantile.of(ascending: values, percent: 95) == 191)
        #expect(Quantile.of(ascending: values.map { ($0, 1) }, percent: 95) == 191)
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for value in values { features.ticked(nanoseconds: value) }
        #expect(features.latencyP95 == 191, "no average of raw samples")
        var counts: [Int: Int64] = [:]
        for value in values { counts[LatencyBuckets.index(of: value), default: 0] += 1 }
        let pairs = counts.sorted { $0.key < $1.key }.map { (index: $0.key, count: $0.value) }
        #expect(LatencyBuckets.quantile(of: pairs, percent: 95) == 191)
    }

    @Test func zeroIsAValue_notABeginning() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for _ in 0..<5 { features.filled(slip: .zero, isTaker: false, isFirstOfOrder: true) }
        features.filled(slip: BasisPoints(1)!, isTaker: false, isFirstOfOrder: true)
        #expect((features.value(.slippage, lot: 1)! - 0.1).magnitude < 1e-12)
        features.filled(slip: .zero, isTaker: true, isFirstOfOrder: true)
        #expect(features.value(.takerShare, lot: 1) == 1.0 / 7, "one taker in seven, not half")
    }

    @Test func ratiosAreOfTheLast300Seconds() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        func pass(_ seconds: ClosedRange<Int64>, quotes: Int) {
            for second in seconds {
                for _ in 0..<quotes { features.quoted() }
                _ = features.step(
                    .init(midTwice: nil, topLots: nil, markTwice: nil, fullPositionTwice: 1, ahead: (nil, nil), absorbed: (0, 0)),
                    second: second)
            }
        }
        for _ in 0..<2 { features.filled(slip: .zero, isTaker: false, isFirstOfOrder: true) }
        pass(1...200, quotes: 50)
        #expect(features.value(.fillRate, lot: 1) == 0.0002, "10,000 quotes without a fill count at once, not at the next fill")
        pass(201...301, quotes: 50)
        #expect(features.value(.fillRate, lot: 1) == 0, "both fills have left the window")
    }

    @Test func aStalledQueueHasNoETA() {
        var features = FeatureSet(emaAlpha: 0.5, targetPnL: .zero)
        func second(_ absorbed: Int64, _ second: Int64) {
            _ = features.step(
                .init(midTwice: nil, topLots: nil, markTwice: nil, fullPositionTwice: 1, ahead: (100, nil), absorbed: (absorbed, 0)),
                second: second)
        }
        second(50, 1)
        #expect(features.value(.queueETA, lot: 1) == 2_000)
        for index in 2...11 { second(0, Int64(index)) }
        #expect(features.value(.queueETA, lot: 1)! > 2_000_000, "it grows while nothing moves")
        var still = FeatureSet(emaAlpha: 0.5, targetPnL: .zero)
        _ = still.step(
            .init(midTwice: nil, topLots: nil, markTwice: nil, fullPositionTwice: 1, ahead: (100, nil), absorbed: (0, 0)), second: 1)
        #expect(still.value(.queueETA, lot: 1) == nil)
    }

    @Test func whatIsUnknownHasNoValue() {
        let it = QuoteBench()
        it.quoting()
        it.advance(400_000)
        let features = it.node.status(of: 0).features
        for feature in [Feature.fillRate, .takerShare, .slippage, .adverseMove, .latencyP95] {
            #expect(features[feature.rawValue] == nil, "\(feature.name)")
        }
    }

    @Test(arguments: [1, 2, 5, 10])
    func everySymbolIsSampled(symbols: Int) {
        let it = QuoteBench(symbols: symbols) { $0.tickSampleRate = 10 }
        for symbol in 0..<symbols { it.prove(symbol) }
        for _ in 0..<100 { for symbol in 0..<symbols { it.tick(symbol) } }
        for symbol in 0..<symbols {
            let rows = it.ticks.filter { $0.symbol == symbol }
            #expect((9...11).contains(rows.count), "\(rows.count) rows of symbol \(symbol)")
            #expect((0..<10).contains(it.ticks(symbol) - rows.reduce(0) { $0 + $1.weight }))
        }
    }

    @Test func haltedTicksAreCountedAndTimed() {
        var reading: Int64 = 0
        let it = QuoteBench(
            stopClock: StopClock {
                reading += 1_000
                return reading
            }
        ) { $0.guards.takerFills = .init(soft: 0, hard: 0) }
        it.prove()
        for _ in 0..<20 { it.tick(after: 10) }
        #expect(it.ticks.count == Int(it.ticks()) && it.ticks.allSatisfy { $0.isHalted && $0.totalNanoseconds > 0 && $0.weight == 1 })
    }

    // MARK: 33-44 Market data

    @Test func aGapIsNotHealedByAnswers() {
        let it = QuoteBench()
        it.quoting()
        it.frame("{\"e\":\"depthUpdate\",\"E\":\(it.clock),\"s\":\"S0\",\"U\":90,\"u\":91,\"pu\":89,\"b\":[],\"a\":[]}")
        #expect(it.intended() == (nil, nil))
        let ticks = it.ticks()
        it.node.pong(on: 0, at: it.now)
        it.trade("100.0", "1", sells: true)
        it.frame("{\"u\":95,\"s\":\"S0\",\"b\":\"100.0\",\"B\":\"1\",\"a\":\"100.2\",\"A\":\"1\"}")
        #expect(it.ticks() == ticks && it.intended() == (nil, nil))
    }

    @Test func anOlderSnapshotNeverReplacesANewerBook() {
        let it = QuoteBench()
        it.quoting()
        it.move(bids: "[\"100.1\",\"2\"]", asks: "")
        it.frame("{\"lastUpdateId\":11,\"bids\":[[\"50.0\",\"5\"]],\"asks\":[[\"60.0\",\"4\"]]}")
        it.frame("{\"u\":5,\"s\":\"S0\",\"b\":\"50.0\",\"B\":\"1\",\"a\":\"60.0\",\"A\":\"1\"}")
        #expect(it.node.withSymbol(0) { $0.book.top?.bidPrice } == 1_001)
    }

    @Test func nothingIsQuotedOnAnOldBook() {
        let it = QuoteBench(stopClock: StopClock { 0 })
        it.quoting()
        it.advance(1_200)
        #expect(it.intended() == (nil, nil), "the watchdog needs no tick")
    }

    @Test func aStepOfTheWallClockAgesNothing() {
        let it = QuoteBench()
        it.quoting()
        func tick(wallAhead: Int64) {
            let before = it.ticks.count
            it.clock += 5
            var text = "{\"u\":\(100 + it.clock),\"s\":\"S0\",\"b\":\"100.0\",\"B\":\"1\",\"a\":\"100.2\",\"A\":\"1\"}"
            let now = Moment(
                instant: Instant(nanoseconds: it.clock * 1_000_000), wall: WallTime(nanoseconds: (it.clock + wallAhead) * 1_000_000))
            text.withUTF8 { it.node.frame(UnsafeRawBufferPointer($0), on: 0, at: now) }
            it.drain()
            #expect(it.ticks.count == before + 1 && it.ticks.last?.isCacheHit == true, "\(wallAhead) ms")
        }
        for ahead in [0, -3_600_000, 0] as [Int64] { tick(wallAhead: ahead) }
        #expect(it.open() == 2)
    }

    /// In milliseconds, and in microseconds where the stream was asked for them (`timeUnit`).
    @Test(arguments: [1, 1_000] as [Int64]) func aLateFrameIsOldOnArrival(perMillisecond: Int64) {
        let it = QuoteBench()
        it.quoting()
        it.frame(
            "{\"e\":\"depthUpdate\",\"E\":\((it.clock + 1 - 80) * perMillisecond),\"s\":\"S0\",\"U\":13,\"u\":13,\"pu\":12,\"b\":[],\"a\":[]}"
        )
        #expect(it.ticks.last?.isCacheHit == false && it.ticks.last?.usedStale == true, "80 ms on its way are 80 ms of age")
    }

    @Test func theBookHasTheVenuesID() {
        let it = QuoteBench()
        it.quoting()
        #expect(it.node.withSymbol(0) { $0.book.depthID } == 12, "the newest event's own id, never one that was expected")
    }

    @Test func aGapConcernsItsSymbolAlone() {
        let it = QuoteBench(symbols: 3)
        it.quoting(symbols: 3)
        it.frame("{\"e\":\"depthUpdate\",\"E\":\(it.clock),\"s\":\"S1\",\"U\":90,\"u\":91,\"pu\":89,\"b\":[],\"a\":[]}", on: 1)
        #expect(it.intended(1) == (nil, nil) && it.intended(0).buy != nil && it.intended(2).buy != nil)
        #expect(it.kinds(.gap).map(\.symbol) == [1])
    }

    /// A jump is measured in bps of the price; 40 of them count when the limit says so, whatever the tick.
    @Test func aJumpOf40BpsIsNoticed() {
        let it = QuoteBench { $0.cache.invalidateOnJump = BasisPoints(39)! }
        it.quoting()
        it.move(bids: "[\"100.4\",\"5\"]", asks: "[\"100.2\",\"0\"],[\"100.6\",\"4\"]")
        #expect(it.ticks.last?.isCacheHit == false)
        let quiet = QuoteBench { $0.cache.invalidateOnJump = BasisPoints(41)! }
        quiet.quoting()
        quiet.move(bids: "[\"100.4\",\"5\"]", asks: "[\"100.2\",\"0\"],[\"100.6\",\"4\"]")
        #expect(quiet.ticks.last?.isCacheHit == true)
    }

    @Test func historiesAreBounded() {
        let it = QuoteBench {
            $0.orderQuantity = 1_000_000_000
            $0.limits.orderQuantity = 1_000_000_000
            $0.limits.position = 10_000_000_000
            $0.guards.inventory = .init(soft: 1e6, hard: 1e6)
        }
        it.quoting()
        let fills = Limits.pendingMarkoutsMax + 100
        for _ in 0..<fills { it.trade("99.0", "0.001", sells: true, after: 0) }
        #expect(it.fills.count == fills)
        #expect(it.markouts.count == 100 && it.markouts.allSatisfy { $0.midTwiceAfter1s == nil }, "the oldest are completed with nulls")
    }

    // MARK: 45-53 Strategy

    @Test func softIsSmallerAndWider() {
        func quote(_ soft: Double) -> (bid: Int64, lots: Int64) {
            let it = QuoteBench {
                $0.guards.takerFills = .init(soft: soft, hard: 100)
                $0.guards.softWiden = BasisPoints(30)!
            }
            it.quoting()
            return it.node.withSymbol(0) { ($0.bidSide.resting!.price, $0.bidSide.resting!.lots) }
        }
        let (calm, danger) = (quote(12), quote(0))
        #expect(danger.bid < calm.bid && danger.lots * 2 == calm.lots)
    }

    @Test func everySymbolHasItsOwnState() {
        let it = QuoteBench(symbols: 2)
        for symbol in 0...1 {
            let (bid, ask) = symbol == 0 ? ("60000.0", "60000.1") : ("3000.0", "3000.1")
            it.frame("{\"lastUpdateId\":10,\"bids\":[[\"\(bid)\",\"5\"]],\"asks\":[[\"\(ask)\",\"4\"]]}", on: symbol)
            it.frame("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"S\(symbol)\",\"U\":9,\"u\":11,\"pu\":8,\"b\":[],\"a\":[]}", on: symbol)
        }
        for id in 0..<40 {
            for symbol in 0...1 {
                it.frame(
                    "{\"e\":\"depthUpdate\",\"E\":\(it.clock),\"s\":\"S\(symbol)\",\"U\":\(12 + id),\"u\":\(12 + id),\"pu\":\(11 + id),\"b\":[],\"a\":[]}",
                    on: symbol, after: 250)
            }
        }
        for symbol in 0...1 { #expect(it.node.withSymbol(symbol) { $0.features.volRealized } == 0) }
        #expect(it.kinds(.halt).isEmpty)
    }

    @Test func longMovesBothQuotesDown() {
        func emit(_ skew: Double) -> EmitStage.Output {
            EmitStage.run(
                .init(
                    top: TopOfBook(bidPrice: 99_990, bidQuantity: 1, askPrice: 100_010, askQuantity: 1), spread: BasisPoints(4)!,
                    skew: BasisPoints(skew)!, bidNudge: .zero, askNudge: .zero, lots: 1, positionLots: 0, pullsBuy: false, pullsSell: false),
                .init(orderLots: 1, positionLots: 9, notional: .max, collar: BasisPoints(100)!))
        }
        #expect(emit(0.6).bid!.price == emit(0).bid!.price - 6 && emit(0.6).ask!.price == emit(0).ask!.price - 6)
    }

    @Test func queueAndPositionAreReal() {
        let it = QuoteBench { $0.orderQuantity = 5_000_000 }
        it.quoting()
        #expect(it.node.withSymbol(0) { $0.bidSide.queue.ahead } == 5_000)
        it.trade("100.0", "4.98", sells: true)
        #expect(it.node.withSymbol(0) { $0.bidSide.queue.ahead } == 20 && it.position() == 0)
        it.trade("100.0", "0.05", sells: true)
        #expect(it.position() == 30 && it.fills[0].quantity == 30 && it.fills[0].queueAhead == 20, "a partial fill of an order of 50")
    }

    /// A coin at half a cent: its price is a whole number of its own ticks.
    @Test func aTickOf5ThousandthsIsQuoted() {
        let price = EmitStage.price(midTwice: 2 * 101, offsetTwice: -1_000_000, roundingUp: false)
        #expect(price == 100, "ticks of 0.00005: 0.005")
        let nudged = QueueAwareStage.run(
            .init(
                ahead: 90, topThree: 100, distanceToBest: BasisPoints(0.004)!, previousNudge: .zero, nudgedAt: nil,
                now: .init(nanoseconds: 0)),
            maximum: BasisPoints(0.5)!, interval: 1)
        #expect(nudged.nudge == .zero, "less than a hundredth of a bp is not worth a message")
        let instrument = Instrument(symbol: "X", priceDigits: 5, tickUnits: 5, quantityDigits: 0, lotUnits: 1)
        #expect(instrument.tickNano == 50_000)
    }

    @Test func nudgeTimersAreOfTheirSide() {
        let it = QuoteBench {
            $0.nudgeMaximum = BasisPoints(0.5)!
            $0.spread.base = BasisPoints(30)!
            $0.spread.maximum = BasisPoints(90)!
        }
        it.quoting()
        // Behind everything on both sides: both nudge, at once, each for itself.
        let (nudge, at) = it.node.withSymbol(0) { ($0.nudge, $0.nudgedAt) }
        #expect(nudge.buy > .zero && nudge.sell > .zero && at.buy != nil && at.sell != nil)
    }

    @Test func aProtectiveCancelNeverWaits() {
        let it = QuoteBench {
            $0.orderBurst = 2
            $0.orderRatePerSecond = 1
        }
        it.quoting()
        it.move(bids: "[\"100.5\",\"5\"]", asks: "[\"100.2\",\"0\"],[\"100.7\",\"5\"]")
        #expect(it.intended().sell == nil, "no token is left to move it, so it goes")
        #expect(it.intended().buy == 1_000, "one that is merely behind is harmless")
    }

    @Test func wideningIsImmediate_tighteningIsNot() {
        func width(_ wanted: Double, before: Double, waited: Int64) -> BasisPoints {
            GuardsStage.run(
                .init(
                    tickP95Milliseconds: 0, inventoryPercent: 0, takerFills: 0, spread: BasisPoints(wanted)!,
                    previousSpread: BasisPoints(before)!, tightenedAt: .init(nanoseconds: 0), now: .init(nanoseconds: waited)),
                .init(), .init()
            ).spread
        }
        #expect(width(2.5, before: 0.6, waited: 1) == BasisPoints(2.5))
        #expect(width(0.6, before: 2.5, waited: 199_999_999) == BasisPoints(2.5))
        #expect(width(0.6, before: 2.5, waited: 200_000_000) == BasisPoints(2.3))
    }

    @Test(arguments: [UInt64](1...4))
    func quotesAreOnTheGrid_andNeverCross(seed: UInt64) {
        let it = QuoteBench(names: ["BTCUSDT"]) { $0.nudgeMaximum = BasisPoints(0.5)! }
        var looked = 0
        it.play(seed: seed, milliseconds: 15_000) {
            let (top, isProven) = it.node.withSymbol(0) { ($0.book.top, $0.isProven) }
            guard let top, isProven, it.ticks.last?.wall.milliseconds == it.clock else { return }
            let quotes = it.intended()
            if let bid = quotes.buy, let ask = quotes.sell { #expect(bid < ask) }
            // Whatever was decided now; what waits for our other side stands behind.
            if let bid = quotes.buy { #expect(bid < top.askPrice) }
            if let ask = quotes.sell { #expect(ask > top.bidPrice) }
            looked += 1
        }
        #expect(looked > 100)
    }

    // MARK: 54-64 Files and formats

    @Test func aTornLineTakesNothingAlong() {
        let whole = Sample.row(.fills, seq: 1)
        let torn = String(Sample.row(.fills, seq: 2).dropLast(20))
        var file = Array((whole + torn).utf8)
        file.append(contentsOf: Array(Sample.row(.fills, seq: 3).utf8))
        file.append(contentsOf: Array(Sample.row(.fills, seq: 4).utf8))
        let text = String(decoding: file, as: UTF8.self)
        let rows = text.split(separator: "\n")
        #expect(rows.count == 3, "the third row is glued to the torn one, the fourth is whole")
        let identity = Array(rows[2].utf8).withUnsafeBytes { RowIdentity(line: $0) }
        #expect(identity?.seq == 4)
    }

    @Test func nothingWaitsInMemoryAfterADrain() {
        var writer = FeedWriter(format: Sample.format(), highestSeq: [41, 41, 41, 41, 41, 41])
        writer.append(Sample.tick(), at: Instant(nanoseconds: 0))
        writer.append(Sample.event, at: Instant(nanoseconds: 0))
        let effects = writer.endDrain(at: Instant(nanoseconds: 0))
        let appended = effects.compactMap { effect -> Feed? in if case .append(let feed, _, _) = effect { feed } else { nil } }
        #expect(Set(appended) == [.ticks, .events] && writer.statistics.rows == 2)
    }

    @Test func dayAndTimeAreOfOneReading() {
        let lastMillisecond = WallTime(nanoseconds: 1_735_775_999_999_000_000)
        var event = Sample.event
        event.wall = lastMillisecond
        var writer = FeedWriter(format: Sample.format(), highestSeq: [41, 41, 41, 41, 41, 41])
        writer.append(event, at: Instant(nanoseconds: 0))
        let effects = writer.endDrain(at: Instant(nanoseconds: 0))
        guard case .append(_, let day, let range)? = effects.first else {
            Issue.record("no row")
            return
        }
        let row = String(decoding: Array(writer.pendingBytes(of: .events))[range], as: UTF8.self)
        #expect(row.contains("2025-01-01T23:59:59.999Z") && row.contains("1735775999999") && day.number == 20_089)
    }

    @Test(arguments: Feed.allCases)
    func everyRowHasItsIdentity(feed: Feed) {
        let row = Sample.row(feed, seq: 42)
        for field in ["\"v\":", "\"source\":", "\"venue\":", "\"host\":", "\"epoch\":", "\"seq\":42"] {
            #expect(row.contains(field), "\(field) in \(feed)")
        }
        if feed == .fills {
            for field in ["fill_id", "order_id", "fee_bps", "arm", "config_hash"] { #expect(row.contains("\"\(field)\":")) }
        }
    }

    @Test func aNumberThatIsNotFiniteIsNotWritten() {
        for value in [Double.nan, .infinity, -.infinity, 1e300] {
            #expect(FixedPoint.fixed(value, scale: 1e6) == nil && BasisPoints(value) == nil)
        }
        let it = QuoteBench()
        it.quoting()
        it.frame("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"S0\",\"U\":13,\"u\":13,\"pu\":12,\"b\":[[\"NaN\",\"1\"]],\"a\":[]}")
        it.frame("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"S0\",\"U\":13,\"u\":NaN,\"pu\":12,\"b\":[],\"a\":[]}")
        it.advance(10_000)
        #expect(it.snapshots.reduce(0) { $0 + $1.counts.rejectedInputs } == 2 && it.node.rejected(.nonFinite) == 1)
    }
}
