import CalibModel
import Simulation
import TestSupport
import Testing

@testable import EdgeCore

/// How a symbol changes its arm, and where what it did is booked (SPEC 2.3, 7.1, 7.6).
@Suite struct ArmsTests {
    private func wide(_ parameters: inout Parameters) {
        parameters.spread.base = BasisPoints(20)!
        parameters.spread.maximum = BasisPoints(40)!
    }

    @Test func ordersAreGoneBeforeTheOtherArmQuotes() {
        let it = QuoteBench()
        it.quoting()
        let before = it.ticks()
        let cancelled = it.apply([.b], wide)
        #expect(cancelled == 2 && it.node.changingSymbols == 1 && it.node.lastChange == nil)
        #expect(it.intended() == (nil, nil), "the cancels are sent in the same call")
        #expect(it.node.nextDue == it.now.instant.advanced(nanoseconds: 5_000_000))
        it.tick(after: 2)
        #expect(it.ticks() == before && it.arm().arm == .a, "no tick is started between two arms")
        it.advance(2)
        #expect(it.node.changingSymbols == 1, "paper latency is 5 ms")
        it.advance(1)
        #expect(it.node.changingSymbols == 0 && it.open() == 0 && it.node.nextDue == nil)
        #expect(it.node.lastChange?.instant == it.now.instant)
        #expect(it.arm() == ArmFields(arm: .b, why: .schedule, experiment: ExperimentID("e1"), configHash: 2))
        it.tick()
        #expect(it.ticks() == before + 1 && it.ticks.last?.armFields.arm == .b)
        let bid = it.intended().buy
        #expect(bid != nil && bid! < 1000, "quoted with the candidate's width")
        let change = it.kinds(.armChange)
        #expect(change.count == 1 && change[0].first == 0 && change[0].armFields == it.arm())
        #expect(it.kinds(.config).map { $0.armFields?.configHash } == [2])
    }

    @Test func theRowOfTheOldArmEndsAtTheSwitch() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b], wide)
        it.advance(5)
        #expect(it.snapshots.count == 1)
        let row = it.snapshots[0]
        #expect(row.armFields == ArmFields(configHash: 1) && row.wall.milliseconds == it.clock && row.counts.ticks == it.ticks())
        it.tick()
        it.advance(20_000)
        #expect(it.snapshots[1].fromMilliseconds == row.wall.milliseconds && it.snapshots[1].armFields.arm == .b)
    }

    /// A rollback: orders of B cancelled, then A quotes, and nothing of B has ticks or quotes after the instant.
    @Test func backToAWithAFillInFlight() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b], wide)
        it.advance(5)
        it.tick()
        it.advance(6)
        #expect(it.open() == 2)
        let bid = it.intended().buy!
        _ = it.apply([.a], why: .latch, hash: 3) { _ in }
        it.trade("\(bid / 10).\(bid % 10)", "100", sells: true)
        #expect(it.fills.count == 1 && it.fills[0].armFields.arm == .b, "what fills while its cancel is under way is B's")
        #expect(it.fills[0].quotePrice == bid)
        it.advance(4)
        let instant = it.clock
        #expect(it.arm().arm == .a && it.arm().why == .latch && it.position() == 10, "the position is kept")
        it.tick()
        it.advance(6_000)
        it.advance(30_000)
        let after = it.snapshots.filter { $0.armFields.arm == .b && $0.wall.milliseconds > instant }
        #expect(after.count == 1 && after[0].counts.ticks == 0 && after[0].counts.quotes == 0 && after[0].counts.fills == 0)
        #expect(after[0].sums.markoutNotional > 0 && after[0].fromMilliseconds >= instant)
        #expect(after[0].features[Feature.volRealized.rawValue] == nil, "features cross arms; the present row has them")
        let ofB = it.snapshots.filter { $0.armFields.arm == .b }
        #expect(ofB.reduce(0) { $0 + $1.counts.fills } == 1)
        #expect(it.markouts.map(\.armFields.arm) == [.b])
    }

    @Test func anotherReasonAloneChangesAtOnce_andOrdersRestOn() {
        let it = QuoteBench()
        it.quoting()
        let cancelled = it.apply([.a], why: .lease) { _ in }
        #expect(cancelled == 0 && it.node.changingSymbols == 0 && it.open() == 2)
        #expect(it.arm().why == .lease && it.arm().experiment == ExperimentID("e1"))
        it.trade("99.9", "1", sells: true)
        #expect(it.fills.map(\.armFields) == [ArmFields(configHash: 1)], "the quote was made under no experiment")
        it.advance(20_000)
        let trailing = it.snapshots.filter { $0.armFields.why == .none && $0.fromMilliseconds > it.snapshots[0].fromMilliseconds }
        #expect(trailing.first?.counts.fills == 1 && trailing.first?.counts.ticks == 0)
        #expect(trailing.first?.sums.quoteNanoseconds ?? 0 > 0, "the sell order rests on under its own fields")
        let again = it.apply([.a], why: .lease) { _ in }
        #expect(again == 0 && it.kinds(.armChange).count == 1, "what is in force already is no change")
    }

    /// SPEC 1.3: a later block's target is no quote price of this one; and every block begins alike, whatever was played before.
    @Test func aNewBlockOfTheSameArmBeginsWithAnEmptyBook() {
        let it = QuoteBench()
        _ = it.apply([.a], block: 3) { _ in }
        it.quoting()
        let cancelled = it.apply([.a], block: 4) { _ in }
        #expect(cancelled == 2 && it.node.changingSymbols == 1)
        it.advance(5)
        #expect(it.open() == 0 && it.arm().block == 4)
        // From washout to schedule orders rest on: it is the same block.
        it.tick()
        it.advance(6)
        let kept = it.apply([.a], why: .washout, block: 4) { _ in }
        #expect(kept == 0 && it.open() == 2 && it.arm().why == .washout)
        it.advance(20_000)
        #expect(Set(it.snapshots.compactMap(\.armFields.block)) == [3, 4])
    }

    @Test func aTrippedBreakerIsTakenOnce_andAnEventSaysSo() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b], wide)
        it.node.shared.breakers.pointee.earned(
            .b, isEnrolled: true, -it.node.shared.parameters.limits.dailyLossHost / 10, at: it.now.wall)
        let isTold = it.node.hasTripped
        let trip = it.node.takeBreaker(at: it.now)
        it.drain()
        #expect(isTold && trip?.kind == .loss && trip?.scope == .harm)
        #expect(it.kinds(.breaker).map(\.first) == [Int64(BreakerKind.loss.rawValue) * 2])
        #expect(it.kinds(.breaker).first?.armFields?.experiment == ExperimentID("e1"))
        let tripsAgain = it.node.hasTripped
        #expect(!tripsAgain)
    }

    /// B holds 0.01 of what falls from 100 to 10, and may lose 0.5: a tenth of the host's 5.
    private func losing() -> QuoteBench {
        let it = QuoteBench { $0.limits.dailyLossHost = 500_000_000 }
        it.quoting()
        _ = it.apply([.b]) { _ in }
        it.advance(5)
        it.tick()
        it.advance(6)
        it.trade("99.9", "100", sells: true)
        precondition(it.position() > 0 && it.fills.last?.armFields.arm == .b && it.arm().arm == .b, "B holds nothing")
        return it
    }

    private static let crash = (bids: #"["100.0","0"],["99.0","0"],["10.0","5"]"#, asks: #"["100.2","0"],["101.0","0"],["10.2","5"]"#)

    /// Within a second, not when a row closes; a book without a proof tells no price.
    @Test(arguments: [true, false]) func aLossTripsByTheNextSecond_onAProvenBookOnly(isProven: Bool) {
        let it = losing()
        it.move(bids: Self.crash.bids, asks: Self.crash.asks)
        if !isProven { it.frame(#"{"e":"depthUpdate","E":1,"s":"S0","U":900,"u":901,"pu":899,"b":[],"a":[]}"#) }
        it.advance(1_000)
        let isTold = it.node.hasTripped
        #expect(isTold == isProven && it.node.withSymbol(0) { $0.isProven } == isProven)
        it.advance(20_000)
        let isToldLater = it.node.hasTripped
        #expect(isToldLater == isProven)
    }

    /// The price falls while B is played, and A takes over within the same second.
    @Test func whatBLostSinceTheLastSecondIsBs() {
        let it = losing()
        it.advance(1_000 - it.clock % 1_000)
        it.move(bids: Self.crash.bids, asks: Self.crash.asks)
        _ = it.apply([.a], why: .lease) { _ in }
        it.advance(5)
        let isTold = it.node.hasTripped
        #expect(isTold && it.arm().arm == .a)
    }

    /// The process stands still for 20 s under an interval of 100 ms, and the lease ends meanwhile; or the schedule ends the block in time.
    @Test(arguments: [(ArmReason.lease, 0), (.breaker, 0), (.schedule, 200)] as [(ArmReason, Int64)])
    func missedIntervalTicksAreNotMadeUpForAsB_unlessTheScheduleSaysSo(why: ArmReason, expected: Int64) {
        let it = QuoteBench { $0.trigger = .interval(nanoseconds: 100_000_000) }
        it.prove()
        _ = it.apply([.b]) { _ in }
        it.advance(1_000)
        let before = it.ticks.count { $0.armFields.arm == .b }
        it.clock += 20_000
        _ = it.apply([.a], why: why) { _ in }
        it.advance(2_000)
        let late = it.ticks.count { $0.armFields.arm == .b } - before
        #expect(abs(Int64(late) - expected) <= 1 && it.ticks.contains { $0.armFields.arm == .a }, "\(late)")
    }

    @Test func whatTheProcessSleptThroughIsNotMadeUpFor() {
        let it = QuoteBench { $0.trigger = .interval(nanoseconds: 100_000_000) }
        it.prove()
        it.advance(1_000)
        let before = it.ticks()
        it.clock += 20_000
        it.node.skipIntervalTicks(upTo: it.now)
        it.advance(0)
        #expect(it.ticks() == before)
        it.advance(1_000)
        #expect(it.ticks() == before + 10)
    }

    @Test func anotherCandidateUnderTheSameArmIsAChange() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b], wide)
        it.advance(5)
        it.tick()
        it.advance(6)
        let cancelled = it.apply([.b], experiment: "e2", hash: 5, wide)
        #expect(cancelled == 2 && it.node.changingSymbols == 1)
        it.advance(5)
        #expect(it.arm().experiment == ExperimentID("e2"))
    }

    @Test func aPlanThatIsTakenBackInTimeChangesNothing() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b], wide)
        _ = it.apply([.a], why: .none, experiment: nil, hash: 1) { _ in }
        #expect(it.node.changingSymbols == 0 && it.kinds(.armChange).isEmpty)
        it.tick(after: 6)
        it.advance(6)
        #expect(it.open() == 2 && it.arm().arm == .a)
    }

    @Test func onlySymbolsThatChangeAreTouched() {
        let it = QuoteBench(symbols: 3)
        it.quoting(symbols: 3)
        let fields = it.arm(2)
        _ = it.apply([.a, .a, .a], why: .schedule) { _ in }
        let cancelled = it.apply([.a, .b, .a], wide)
        #expect(cancelled == 2 && it.node.changingSymbols == 1 && it.open(0) == 2 && it.open(2) == 2)
        it.advance(5)
        #expect(it.arm(1).arm == .b && it.arm(0).arm == .a && fields.arm == .a)
        #expect(it.node.status(of: 1).arm == "B" && it.node.status(of: 1).armWhy == "schedule" && it.node.status(of: 1).experiment == "e1")
    }

    /// Nobody reads the snapshots: the row cannot be ended, so the change waits; quotes are gone all the same.
    @Test func aFullRingHoldsTheChangeBack_notTheCancels() {
        let it = QuoteBench()
        it.quoting()
        it.node.shared.outboxes.snapshots.limit = it.node.shared.outboxes.snapshots.committed
        var candidate = Parameters()
        wide(&candidate)
        let plan = ArmPlan(experiment: nil, candidate: candidate, configHash: 2, arms: [ArmChoice(.b, .manual)])
        let cancelled = it.node.apply(plan, at: it.now)
        it.clock += 5
        it.node.advance(to: it.now)
        #expect(cancelled == 2 && it.open() == 0 && it.node.changingSymbols == 1)
        #expect(it.node.nextDue == it.now.instant.advanced(nanoseconds: 1_000_000))
        it.drain()
        it.advance(1)
        #expect(it.node.changingSymbols == 0 && it.arm().arm == .b)
    }

    /// More distinct fields within one window than there are places: the oldest row is cut early, nothing is lost.
    @Test func manyChangesWithinOneWindow() {
        let it = QuoteBench()
        it.quoting()
        for (index, why) in ArmReason.allCases.enumerated() {
            it.tick(after: 6)
            it.trade("99.9", "0.004", sells: true)
            _ = it.apply([.a], why: why, hash: UInt64(index)) { _ in }
            it.trade("99.9", "0.003", sells: true)
            it.advance(10)
        }
        it.advance(40_000)
        let done = it.node.finish()
        it.drain()
        #expect(done && it.fills.count > 10)
        for fields in Set(it.fills.map(\.armFields)) {
            let rows = it.snapshots.filter { $0.armFields == fields }
            let fills = it.fills.filter { $0.armFields == fields }
            #expect(rows.reduce(0) { $0 + $1.counts.fills } == Int64(fills.count))
        }
        #expect(it.kinds(.dropped).isEmpty)
    }

    @Test func aWallClockThatStepsBackDoesNotHoldARollback() {
        let it = QuoteBench()
        it.quoting()
        _ = it.apply([.b], wide)
        it.advance(5)
        it.tick()
        var late = it.now
        late.wall.nanoseconds -= 3_600_000_000_000
        _ = it.node.apply(ArmPlan.baseline(.latch, configHash: 1, symbols: 1), at: late)
        late.instant = late.instant.advanced(nanoseconds: 5_000_000)
        it.node.advance(to: late)
        #expect(it.arm().arm == .a && it.arm().why == .latch)
    }

    @Test func aPlanBeforeTheFirstFrameIsInForceAtOnce() {
        let it = QuoteBench()
        _ = it.apply([.b], wide)
        #expect(it.arm().arm == .b && it.node.changingSymbols == 0 && it.snapshots.isEmpty)
        it.quoting()
        it.advance(20_000)
        #expect(it.snapshots.allSatisfy { $0.armFields.arm == .b } && it.ticks.allSatisfy { $0.armFields.arm == .b })
        #expect(it.events.first?.kind == .started)
    }

    // MARK: The simulated market

    /// Idea: a plan toggles the arm at random instants of a simulated market; then every row is recounted from the rows it sums up, per arm
    /// fields, and every tick and order must lie within a stretch of its own arm.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func rowsPerArmAddUp_andArmsNeverOverlap(seed: UInt64) {
        let it = QuoteBench(names: ["BTCUSDT"]) { $0.guards.inventory = Parameters.Threshold(soft: 60, hard: 80) }
        var random = SeededRandom(seed: seed)
        let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)
        var recording = BinanceRecording(seed: seed, symbol: "BTCUSDT", start: start, milliseconds: 100_000)
        var lines: [UInt8] = []
        while !recording.isComplete { recording.step(into: &lines) }
        var nextChange: Int64 = 3_000
        var changes = 0
        for line in lines.split(separator: 0x0a) {
            let space = line.firstIndex(of: 0x20)!
            let time = Int64(String(decoding: line[..<space], as: UTF8.self))!
            it.clock = time / 1_000_000
            if it.clock - start.milliseconds > nextChange {
                nextChange += 500 + Int64(random.next(below: 9_000))
                changes += 1
                let arm: Arm = random.next(below: 2) == 0 ? .b : .a
                let why: ArmReason = arm == .b ? .schedule : [.schedule, .lease][random.next(below: 2)]
                _ = it.apply([arm], why: why) {
                    $0.spread.base = BasisPoints(0.8)!
                    $0.orderQuantity *= 2
                }
            }
            it.frame(String(decoding: line[(space + 1)...], as: UTF8.self), on: 0, nanoseconds: time)
        }
        let isDone = it.node.finish()
        it.drain()
        #expect(isDone && changes > 10 && it.fills.count > 20)
        #expect(it.kinds(.armChange).count > 5 && Set(it.fills.map(\.armFields.arm)).count == 2)
        checkSums(it)
        checkStretches(it)
    }

    private func checkSums(_ it: QuoteBench) {
        let all = Set(it.snapshots.map(\.armFields))
        #expect(all.isSuperset(of: it.fills.map(\.armFields)) && all.isSuperset(of: it.ticks.map(\.armFields)))
        let fillsByID = Dictionary(uniqueKeysWithValues: it.fills.map { ($0.fillID, $0) })
        let orders = Dictionary(uniqueKeysWithValues: it.quotes.map { ($0.orderID, $0) })
        for fill in it.fills { #expect(orders[fill.orderID]?.armFields == fill.armFields) }
        #expect(it.markouts.count == it.fills.count)
        for markout in it.markouts { #expect(fillsByID[markout.fillID]?.armFields == markout.armFields) }
        func notional(_ fill: FillRecord) -> Int64 {
            it.node.withSymbol(0) { $0.instrument.notional(price: fill.price, lots: fill.quantity) }
        }
        for fields in all {
            let rows = it.snapshots.filter { $0.armFields == fields }
            func total(_ value: (SnapshotRecord) -> Int64) -> Int64 { rows.reduce(0) { $0 + value($1) } }
            let fills = it.fills.filter { $0.armFields == fields }
            let quotes = it.quotes.filter { $0.armFields == fields }
            let known = it.markouts.filter { $0.armFields == fields && $0.net != nil }
            #expect(total { $0.counts.fills } == Int64(fills.count))
            #expect(total { $0.counts.filledOrders } == Int64(Set(fills.map(\.orderID)).count))
            #expect(total { $0.sums.fillNotional } == fills.reduce(0) { $0 + notional($1) })
            #expect(total { $0.sums.slip } == fills.reduce(0) { $0 + $1.slip.micro })
            #expect(total { $0.counts.quotes } == Int64(quotes.count))
            #expect(total { $0.sums.quoteNanoseconds } == quotes.reduce(0) { $0 + $1.restingNanoseconds })
            #expect(total { $0.counts.ticks } == Int64(it.ticks.count { $0.armFields == fields }))
            #expect(total { $0.sums.markoutNotional } == known.reduce(0) { $0 + notional(fillsByID[$1.fillID]!) })
        }
        for row in it.snapshots {
            #expect(row.spanMilliseconds > 0 && row.fromMilliseconds / 10_000 == (row.wall.milliseconds - 1) / 10_000)
        }
    }

    /// Every tick and every order of an arm lies within one stretch of it, and rows with ticks or quotes end with the stretch.
    private func checkStretches(_ it: QuoteBench) {
        var stretches: [(from: WallTime, to: WallTime, arm: Arm)] = []
        var from = WallTime(nanoseconds: 0)
        var arm = Arm.a
        for change in it.kinds(.armChange) {
            stretches.append((from, change.wall, arm))
            (from, arm) = (change.wall, change.armFields!.arm)
        }
        stretches.append((from, WallTime(nanoseconds: .max), arm))
        func isWithin(_ first: WallTime, _ last: WallTime, _ arm: Arm) -> Bool {
            // Neighbouring stretches of one arm differ in their reason only: an order may span them.
            var start: WallTime?
            for stretch in stretches {
                guard stretch.arm == arm else {
                    start = nil
                    continue
                }
                if start == nil { start = stretch.from }
                if first >= start!, last <= stretch.to { return true }
            }
            return false
        }
        for tick in it.ticks { #expect(isWithin(tick.wall, tick.wall, tick.armFields.arm)) }
        for quote in it.quotes {
            let accepted = WallTime(nanoseconds: quote.wall.nanoseconds - quote.restingNanoseconds)
            #expect(isWithin(accepted, quote.wall, quote.armFields.arm), "order \(quote.orderID)")
        }
        for fill in it.fills { #expect(isWithin(fill.wall, fill.wall, fill.armFields.arm)) }
        let changes = Set(it.kinds(.armChange).map { $0.wall.milliseconds })
        for row in it.snapshots where row.armFields.arm == .b && (row.counts.ticks > 0 || row.counts.quotes > 0) {
            let begin = WallTime(nanoseconds: (row.fromMilliseconds + 1) * 1_000_000)
            #expect(isWithin(begin, WallTime(nanoseconds: (row.wall.milliseconds - 1) * 1_000_000), .b))
            let isWindow = row.wall.milliseconds.isMultiple(of: 10_000)
            #expect(isWindow || changes.contains(row.wall.milliseconds) || row.wall.milliseconds == it.snapshots.last!.wall.milliseconds)
        }
    }
}
