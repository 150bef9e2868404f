import CalibModel
import Testing

@testable import EdgeCore

/// What ends a tick, and what it still does (SPEC 4.1, 4.3, 4.6).
@Suite struct TickTests {
    /// A clock that moves by `step` whenever it is read.
    private final class Stepping {
        var now: Int64 = 0
        var step: Int64 = 0
        var stopClock: StopClock {
            StopClock { [self] in
                now += step
                return now
            }
        }
    }

    private let far: Int64 = 200_000_000  // Beyond the deadline of 150 ms.

    @Test func aLateTickPlacesNothing_andStillTakesAwayWhatIsUnsafe() {
        let clock = Stepping()
        let it = QuoteBench(stopClock: clock.stopClock)
        it.quoting()
        let orders = it.orders()
        clock.step = far
        // The market rises: our ask stands in its way, our bid is merely behind.
        it.move(bids: "[\"100.5\",\"5\"]", asks: "[\"100.2\",\"0\"],[\"100.7\",\"5\"]")
        #expect(it.intended().sell == nil && it.intended().buy == 1_000)
        it.advance(10)
        #expect(it.orders() == orders && it.ticks.last?.missedDeadline == true && it.ticks.last?.weight == 1)
        clock.step = 0
        it.tick()
        #expect(it.intended().sell != nil && it.intended().buy! > 1_000 && it.ticks.last?.missedDeadline == false)
    }

    /// Fault 31: a halt must not hide a miss, nor the time it took.
    @Test func aTickThatIsHaltedAndLateIsBoth() {
        let clock = Stepping()
        let it = QuoteBench(stopClock: clock.stopClock) { $0.guards.takerFills = Parameters.Threshold(soft: 0, hard: 0) }
        it.prove()
        clock.step = far
        it.tick()
        #expect(it.ticks.last?.isHalted == true && it.ticks.last?.missedDeadline == true && it.ticks.last!.totalNanoseconds > 150_000_000)
        clock.step = 0
        it.advance(10_000)
        let counts = it.snapshots.map(\.counts)
        #expect(counts.reduce(0) { $0 + $1.halts } == it.ticks() && counts.reduce(0) { $0 + $1.deadlineMisses } == 1)
        let timed = it.snapshots.reduce(0) { sum, row in
            sum + (0..<LatencyBuckets.count).reduce(0) { $0 + Int(row.tickHistogram[$1]) }
        }
        #expect(timed == Int(it.ticks()), "every tick is timed")
    }

    @Test func eachHaltIsAnEventOfItsGuard() {
        let it = QuoteBench { $0.guards.takerFills = Parameters.Threshold(soft: 0, hard: 0) }
        it.prove()
        for _ in 0..<50 { it.tick(after: 100) }
        let halts = it.kinds(.halt)
        #expect(halts.count == 3, "2 s each: \(halts.count)")
        #expect(halts.allSatisfy { $0.first == Int64(HaltCause.takerFills.rawValue) && $0.second == 2_000 && $0.symbol == 0 })
        #expect(it.orders() == 0)
    }

    @Test func aCrossedOrOneSidedBookPullsQuotes() {
        let crossed = QuoteBench()
        crossed.quoting()
        crossed.move(bids: "[\"100.5\",\"0.001\"]", asks: "")
        #expect(crossed.intended() == (nil, nil))
        let empty = QuoteBench()
        empty.quoting()
        empty.move(bids: "[\"100.0\",\"0\"],[\"99.0\",\"0\"]", asks: "")
        #expect(empty.intended() == (nil, nil))
    }

    /// Nobody reads the rings: what rests may fill, so it goes before there is no place for its fills.
    @Test func aFullFillRingPullsQuotes() {
        let it = QuoteBench()
        it.quoting()
        it.node.shared.outboxes.fills.limit = it.node.shared.outboxes.fills.committed + SharedState.recordsPerFrame - 1
        let text = "{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"S0\",\"U\":13,\"u\":13,\"pu\":12,\"b\":[],\"a\":[]}"
        var copy = text
        it.clock += 1
        copy.withUTF8 { it.node.frame(UnsafeRawBufferPointer($0), on: 0, at: it.now) }
        #expect(it.intended() == (nil, nil))
    }

    /// A jump of the market wider than our width: the bid waits until our own ask is out of its way.
    @Test func anOrderWaitsForOurOtherSideToGo() {
        let it = QuoteBench()
        it.quoting()
        #expect(it.intended() == (1_000, 1_002))
        // Mid 100.4: the new bid belongs above our old ask, which nobody has taken.
        it.move(bids: "[\"100.1\",\"5\"]", asks: "[\"100.2\",\"0\"],[\"100.7\",\"5\"]", after: 1)
        #expect(it.intended() == (1_000, 1_005), "the ask at 100.2 may still be hit")
        #expect(it.node.withSymbol(0) { $0.counts.selfCrossesHeld } == 1 && it.fills.isEmpty)
        it.tick(after: 6)
        #expect(it.intended() == (1_003, 1_005))
    }

    @Test func takersPayTheTakerFee_andCount() {
        let it = QuoteBench {
            $0.paperRules.isPostOnly = false
            $0.paperLatencyNanoseconds = 20_000_000
        }
        it.prove()
        it.tick(after: 1)
        // The bid at 100.0 is on its way when the ask falls to 99.9.
        it.move(bids: "[\"100.0\",\"0\"]", asks: "[\"99.9\",\"0.004\"]", after: 5)
        it.advance(20)
        let fill = it.fills.first
        #expect(it.fills.count == 1 && fill?.isTaker == true && fill?.price == 999 && fill?.quantity == 4 && fill?.fee == BasisPoints(5))
        // The newest target counts, that of the replacement on its way (SPEC 1.3).
        let quoted = fill!.quotePrice
        #expect(quoted < 999 && fill?.slip.micro == FixedPoint.divide(Int128(999 - quoted) * 10_000_000_000, by: Int128(quoted)))
        #expect(it.position() == 4 && it.quotes.first?.outcome == .cancelled && it.quotes.first?.quantity == 10)
        let rejected = it.node.withSymbol(0) { $0.counts.postOnlyRejections }
        #expect(rejected == 0)
        it.advance(10_000)
        #expect(it.snapshots.reduce(0) { $0 + $1.counts.takerFills } == 1)
        #expect(it.node.withSymbol(0) { $0.features.takerFills15Minutes } == 1)
    }

    /// Long-run property of the position limit: whatever crosses on the wire, it holds.
    @Test(arguments: [UInt64](1...6))
    func thePositionLimitHoldsInARandomMarket(seed: UInt64) {
        let it = QuoteBench(names: ["BTCUSDT"]) {
            $0.orderQuantity = 10_000_000
            $0.limits.position = 25_000_000
            $0.guards.inventory = Parameters.Threshold(soft: 1e6, hard: 1e6)
            $0.paperLatencyNanoseconds = 300_000_000
            $0.paperJitterNanoseconds = 100_000_000
            $0.paperRules.queueModel = seed.isMultiple(of: 2) ? .probabilistic : .conservative
            $0.paperRules.isPostOnly = seed % 3 != 0
        }
        var most: Int64 = 0
        it.play(seed: seed, milliseconds: 40_000) {
            most = max(most, abs(it.position()))
            let sides = it.node.withSymbol(0) { ($0.bidSide.resting?.price, $0.askSide.resting?.price) }
            if let bid = sides.0, let ask = sides.1 { #expect(bid < ask) }
        }
        #expect(most > 100 && most <= 250, "\(most) lots")
    }
}
