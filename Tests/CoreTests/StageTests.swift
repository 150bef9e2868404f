import CalibModel
import Foundation
import TestSupport
import Testing

@testable import EdgeCore

@Suite struct StageTests {
    let parameters = Parameters()

    // MARK: Spread

    @Test func spreadAddsTheFourScores() {
        func spread(_ vol: Double?, _ depth: Double, _ lat: Double, _ z: Double?, stale: Bool = false) -> SpreadStage.Output {
            SpreadStage.run(
                SpreadStage.Input(volatilityPerRootMinute: vol, depthMultiple: depth, tickP95Milliseconds: lat, pnlZ: z, usedStale: stale),
                parameters.spread, staleWiden: parameters.cache.staleWiden)
        }
        #expect(spread(nil, 100, 0, nil).spread == BasisPoints(1.0))
        #expect(spread(15, 100, 0, nil).spread == BasisPoints(1.0 + 0.9 * 0.5))
        #expect(spread(25, 100, 0, nil).spread == BasisPoints(1.9))
        #expect(spread(nil, 5.5, 0, nil).spread == BasisPoints(1.2))
        #expect(spread(nil, 1, 0, nil).spread == BasisPoints(1.4))
        #expect(spread(nil, 100, 275, nil).spread == BasisPoints(1.12))
        #expect(spread(nil, 100, 0, -1.25).spread == BasisPoints(1.18))
        #expect(spread(100, 0, 1000, -9).target == BasisPoints(2.5), "clamped")
        #expect(spread(nil, 100, 0, nil, stale: true).spread == BasisPoints(1.5), "stale widening comes after the clamp")
        #expect(spread(.nan, 100, 0, nil).volScore == 1, "a broken input is the worst case, never the best")
    }

    // MARK: Guards

    private func input(
        vol: Double = 0, lat: Double = 0, z: Double = 0, inventory: Double = 0, takers: Int64 = 0, spread: Double = 1,
        previous: Double? = nil,
        tightened: Int64? = nil, halted: Int64? = nil, now: Int64 = 10_000
    ) -> GuardsStage.Input {
        GuardsStage.Input(
            volatilityPerRootMinute: vol, tickP95Milliseconds: lat, pnlZ: z, inventoryPercent: inventory, takerFills: takers,
            spread: BasisPoints(spread)!, previousSpread: previous.map { BasisPoints($0)! },
            tightenedAt: tightened.map { Instant(nanoseconds: $0 * 1_000_000) },
            haltedUntil: halted.map { Instant(nanoseconds: $0 * 1_000_000) },
            now: Instant(nanoseconds: now * 1_000_000))
    }

    private func guards(_ input: GuardsStage.Input) -> GuardsStage.Output { GuardsStage.run(input, parameters.guards, parameters.spread) }

    /// Fault 45 of the first implementation: SOFT halved the spread. It halves the size and widens.
    @Test func softHalvesTheSizeAndWidens() {
        for soft in [input(vol: 15), input(lat: 301), input(z: -1.6), input(inventory: 6.1), input(inventory: -6.1), input(takers: 12)] {
            let output = guards(soft)
            #expect(output.level == .soft && !output.isHalted && output.sizeNumerator == 1 && output.spread == BasisPoints(1.3))
        }
        for none in [input(vol: 14.9), input(lat: 300), input(z: -1.5), input(inventory: 6), input(takers: 11)] {
            let output = guards(none)
            #expect(output.level == .none && output.sizeNumerator == 2 && output.spread == BasisPoints(1.0))
        }
    }

    @Test func hardHaltsForTwoSeconds_thenIsReassessed() {
        for hard in [input(vol: 25), input(lat: 451), input(z: -2.6), input(takers: 20)] {
            let output = guards(hard)
            #expect(output.isHalted && output.haltedUntil == Instant(nanoseconds: 12_000_000_000))
        }
        #expect(guards(input(halted: 10_001)).isHalted, "the halt lasts although the cause is gone")
        #expect(!guards(input(halted: 10_000)).isHalted)
        #expect(guards(input(vol: 30, halted: 10_000)).haltedUntil == Instant(nanoseconds: 12_000_000_000))
        #expect(guards(input(vol: 30, halted: 11_000)).haltedUntil == Instant(nanoseconds: 11_000_000_000), "not prolonged while it runs")
    }

    @Test func inventoryHardPullsOnlyTheSideThatAddsToIt() {
        let long = guards(input(inventory: 10.1))
        #expect(!long.isHalted && long.pullsBuy && !long.pullsSell && long.level == .soft)
        let short = guards(input(inventory: -10.1))
        #expect(!short.isHalted && !short.pullsBuy && short.pullsSell)
    }

    /// Fault 52: widening took over a second. It is immediate; tightening takes steps.
    @Test func wideningIsImmediate_tighteningTakesSteps() {
        #expect(guards(input(spread: 2.5, previous: 1)).spread == BasisPoints(2.5))
        let first = guards(input(spread: 1, previous: 2))
        #expect(first.spread == BasisPoints(1.8) && first.tightenedAt == Instant(nanoseconds: 10_000_000_000))
        #expect(guards(input(spread: 1, previous: 1.8, tightened: 9_801)).spread == BasisPoints(1.8), "199 ms later: not yet")
        #expect(guards(input(spread: 1, previous: 1.8, tightened: 9_800)).spread == BasisPoints(1.6))
        #expect(guards(input(spread: 1.75, previous: 1.8)).spread == BasisPoints(1.75), "a smaller step is taken whole")
    }

    // MARK: Inventory

    @Test func skewLeansAgainstThePosition() {
        for (percent, expected) in [(0.0, 0.0), (5, 0), (-5, 0), (6, 0.1), (-6, -0.1), (11, 0.6), (50, 0.6), (-100, -0.6)] {
            #expect(InventoryStage.run(percent: percent).skew == BasisPoints(expected), "\(percent) %")
        }
        #expect(InventoryStage.percent(positionLots: -63, maxPositionLots: 1000) == -6.3)
    }

    // MARK: Queue

    @Test func nudgeGoesTowardsTheBest_neverPastIt_andNotOften() {
        func input(ahead: Int64, distance: Double, previous: Double = 0, at: Int64? = nil, now: Int64 = 1000) -> QueueAwareStage.Input {
            QueueAwareStage.Input(
                ahead: ahead, topThree: 100, distanceToBest: BasisPoints(distance)!, previousNudge: BasisPoints(previous)!,
                nudgedAt: at.map { Instant(nanoseconds: $0 * 1_000_000) }, now: Instant(nanoseconds: now * 1_000_000))
        }
        func run(ahead: Int64, distance: Double, previous: Double = 0, at: Int64? = nil, now: Int64 = 1000) -> QueueAwareStage.Output {
            QueueAwareStage.run(
                input(ahead: ahead, distance: distance, previous: previous, at: at, now: now), maximum: parameters.nudgeMaximum,
                interval: parameters.nudgeNanoseconds)
        }
        #expect(run(ahead: 30, distance: 1).nudge == .zero, "30 % is not above 30 %")
        #expect(run(ahead: 31, distance: 1).nudge == BasisPoints(0.5))
        #expect(run(ahead: 31, distance: 0.2).nudge == BasisPoints(0.2))
        #expect(run(ahead: 31, distance: -0.2).nudge == .zero)
        #expect(run(ahead: 31, distance: 1, previous: 0.1, at: 851).nudge == BasisPoints(0.1), "149 ms: held")
        #expect(run(ahead: 31, distance: 1, previous: 0.1, at: 850).nudge == BasisPoints(0.5))
        #expect(run(ahead: 31, distance: 0.05, previous: 0.5, at: 999).nudge == BasisPoints(0.05), "never past the best, also while held")
        #expect(
            run(ahead: 31, distance: 0.505, previous: 0.5, at: 1).nudgedAt == Instant(nanoseconds: 1_000_000), "0.005 bps is not worth it")
        #expect(input(ahead: 31, distance: 1).percentileAhead == 31 && input(ahead: 500, distance: 1).percentileAhead == 100)
    }

    // MARK: Emit

    /// bid = mid*(1 - (spread/2 + skew - nudge)/1e4) rounded down, ask = mid*(1 + (spread/2 - skew - nudge)/1e4) rounded up, against decimals
    /// that are exact.
    @Test func pricesEqualTheFormulaInExactDecimals() {
        var random = SeededRandom(seed: 7)
        for _ in 0..<5_000 {
            let midTwice = Int64(random.next(below: 2_000_000_000)) + 2
            let spread = Int64(random.next(below: 3_000_000))
            let skew = Int64(random.next(below: 1_200_001)) - 600_000
            let nudge = Int64(random.next(below: 500_001))
            let mid = Decimal(midTwice) / 2
            func price(_ offset: Decimal, _ mode: NSDecimalNumber.RoundingMode) -> Int64 {
                var exact = mid * (1 + offset / Decimal(10_000_000_000))
                var rounded = Decimal()
                NSDecimalRound(&rounded, &exact, 0, mode)
                return (rounded as NSDecimalNumber).int64Value
            }
            let bid = EmitStage.price(midTwice: midTwice, offsetTwice: -(spread + 2 * skew - 2 * nudge), roundingUp: false)
            let ask = EmitStage.price(midTwice: midTwice, offsetTwice: spread - 2 * skew - 2 * nudge, roundingUp: true)
            #expect(bid == price(-(Decimal(spread) / 2 + Decimal(skew) - Decimal(nudge)), .down))
            #expect(ask == price(Decimal(spread) / 2 - Decimal(skew) - Decimal(nudge), .up))
        }
    }

    private func emit(
        bid: Int64 = 9_999, ask: Int64 = 10_001, spread: Double = 2, skew: Double = 0, nudge: Double = 0, lots: Int64 = 10,
        position: Int64 = 0,
        limits: EmitStage.HardLimits = EmitStage.HardLimits(orderLots: 100, positionLots: 100, notional: .max, collar: BasisPoints(100)!)
    ) -> EmitStage.Output {
        EmitStage.run(
            EmitStage.Input(
                top: TopOfBook(bidPrice: bid, bidQuantity: 1, askPrice: ask, askQuantity: 1), spread: BasisPoints(spread)!,
                skew: BasisPoints(skew)!,
                bidNudge: BasisPoints(nudge)!, askNudge: BasisPoints(nudge)!, lots: lots, positionLots: position, pullsBuy: false,
                pullsSell: false),
            limits)
    }

    /// Fault 47: long inventory made the bid more aggressive. Long moves both quotes down.
    @Test func longMovesBothQuotesDown() {
        let flat = emit(spread: 20)
        let long = emit(spread: 20, skew: 0.6)
        let short = emit(spread: 20, skew: -0.6)
        #expect(long.bid!.price < flat.bid!.price && long.ask!.price <= flat.ask!.price)
        #expect(short.bid!.price >= flat.bid!.price && short.ask!.price > flat.ask!.price)
    }

    @Test func quotesNeverCross_andStayOnTheirSide() {
        let tight = emit(spread: 0, nudge: 5)
        #expect(tight.bid!.price <= 10_000 && tight.ask!.price >= 10_000 && tight.bid!.price < 10_001 && tight.ask!.price > 9_999)
    }

    @Test func hardLimitsComeLast() {
        func limits(order: Int64 = 100, position: Int64 = 100, notional: Int64 = .max, collar: Double = 100) -> EmitStage.HardLimits {
            EmitStage.HardLimits(orderLots: order, positionLots: position, notional: notional, collar: BasisPoints(collar)!)
        }
        #expect(emit(limits: limits(order: 3)).bid?.lots == 3)
        #expect(emit(position: 95, limits: limits()).bid?.lots == 5)
        #expect(emit(position: 100, limits: limits()).bid == nil && emit(position: 100, limits: limits()).ask?.lots == 10)
        #expect(emit(limits: limits(notional: 50_000)).ask?.lots == 4)
        #expect(emit(spread: 40, limits: limits(collar: 10)).bid == nil)
        #expect(emit(spread: 40, limits: limits(collar: 20)).bid?.price == 9_980)
    }

    @Test func ordersMoveOnlyWhenItPays() {
        func decide(_ side: Side, _ target: Int64?, _ resting: Int64?, lots: Int64 = 10, minimum: Int64 = 3, keep: Int64 = 0)
            -> OrderDecision
        {
            OrderDecision.decide(
                side: side, target: target.map { EmitStage.Target(price: $0, lots: 10) },
                resting: resting.map { EmitStage.Target(price: $0, lots: lots) }, minimumTicks: minimum, keepTicks: keep)
        }
        #expect(decide(.buy, nil, nil) == .none)
        #expect(decide(.buy, 100, nil) == .place)
        #expect(decide(.buy, nil, 100) == .cancel)
        #expect(decide(.buy, 102, 100) == .keep, "2 ticks are below the minimum price change")
        #expect(decide(.buy, 103, 100) == .replace)
        #expect(decide(.buy, 97, 100) == .replace, "closer to the market than we want: at once")
        #expect(decide(.buy, 105, 100, keep: 6) == .keep, "its place in the queue is worth more than the move")
        #expect(decide(.buy, 95, 100, keep: 6) == .replace, "never when it stands too close")
        #expect(decide(.sell, 95, 100, keep: 6) == .keep)
        #expect(decide(.sell, 105, 100, keep: 6) == .replace)
        #expect(decide(.buy, 100, 100, lots: 11) == .replace, "smaller is safer")
        #expect(decide(.buy, 100, 100, lots: 4) == .keep, "what a partial fill left stays in its place")
    }

    @Test func orderRateAllowsABurstThenItsRate() {
        var rate = OrderRate(perSecond: 10, burst: 3)
        func at(_ milliseconds: Int64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
        for (milliseconds, isAllowed) in [
            (0, true), (0, true), (0, true), (0, false), (99, false), (100, true), (100, false), (10_000, true), (10_000, true),
            (10_000, true),
            (10_000, false),
        ] as [(Int64, Bool)] {
            let taken = rate.take(at: at(milliseconds))
            #expect(taken == isAllowed, "at \(milliseconds) ms")
        }
    }
}
