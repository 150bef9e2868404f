import CalibModel
import Simulation
import Testing

@testable import EdgeCore

/// A market that walks away from where its snapshot was taken: a Binance book is only known as far as the snapshot reaches.
@Suite struct BookCoverageTests {
    /// A venue with a level at each of many thousand ticks, of which most never change; a snapshot shows a thousand a side.
    private struct Market {
        private(set) var bids: [Int64: Int64] = [:]
        private(set) var asks: [Int64: Int64] = [:]
        private(set) var mid: Int64 = 500_000
        private(set) var id: Int64 = 1
        private var random: PRNG

        init(seed: UInt64) {
            random = PRNG(seed: seed)
            for distance in 1...Int64(20_000) {
                bids[mid - distance] = 1 + random.below(90)
                asks[mid + distance] = 1 + random.below(90)
            }
        }

        /// The touch moves by so many ticks, which consumes one side and leaves new levels on the other; a few levels change besides.
        mutating func step(by ticks: Int64) -> String {
            var changes: (bids: [Int64: Int64], asks: [Int64: Int64]) = ([:], [:])
            mid += ticks
            for price in stride(from: mid - ticks, through: mid, by: ticks < 0 ? -1 : 1) {
                if ticks > 0 { (changes.asks[price], changes.bids[price - 1]) = (0, 1 + random.below(90)) }
                if ticks < 0 { (changes.bids[price], changes.asks[price + 1]) = (0, 1 + random.below(90)) }
            }
            for _ in 0..<5 {
                changes.bids[mid - 1 - random.below(3_000)] = random.below(4) == 0 ? 0 : 1 + random.below(90)
                changes.asks[mid + 1 + random.below(3_000)] = random.below(4) == 0 ? 0 : 1 + random.below(90)
            }
            changes.bids[mid - 1] = 1 + random.below(90)
            changes.asks[mid + 1] = 1 + random.below(90)
            changes.bids[mid] = 0
            changes.asks[mid] = 0
            for (price, quantity) in changes.bids { bids[price] = quantity == 0 ? nil : quantity }
            for (price, quantity) in changes.asks { asks[price] = quantity == 0 ? nil : quantity }
            let previous = id
            id += 3
            return
                #"{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":\#(previous + 1),"u":\#(id),"pu":\#(previous),"b":[\#(text(changes.bids))],"a":[\#(text(changes.asks))]}"#
        }

        /// As of the middle of the next diff: the venue's ids run on between two diffs.
        func snapshot() -> String {
            let best = (prices(.buy, count: 1_000), prices(.sell, count: 1_000))
            return
                #"{"lastUpdateId":\#(id + 1),"bids":[\#(best.0.map { "[\"\(decimal($0))\",\"\(bids[$0]!)\"]" }.joined(separator: ","))],"#
                + #""asks":[\#(best.1.map { "[\"\(decimal($0))\",\"\(asks[$0]!)\"]" }.joined(separator: ","))]}"#
        }

        /// The best levels of a side: from the mid outwards, because sorting them all is slow.
        func prices(_ side: Side, count: Int) -> [Int64] {
            var found: [Int64] = []
            var price = mid
            while found.count < count, abs(price - mid) < 20_000 {
                price -= side.sign
                if side == .buy ? bids[price] != nil : asks[price] != nil { found.append(price) }
            }
            return found
        }

        private func text(_ levels: [Int64: Int64]) -> String {
            levels.sorted { $0.key < $1.key }.map { "[\"\(decimal($0.key))\",\"\($0.value)\"]" }.joined(separator: ",")
        }
        private func decimal(_ ticks: Int64) -> String { "\(ticks / 10).\(ticks % 10)" }
    }

    private struct Walk {
        var requests = 0
        var comparisons = 0
        var wrongLevels = 0
        var unprovenSteps = 0
        var losses: Int64 = 0
    }

    /// Half a minute with a diff each 100 ms. Snapshots come 150 ms after they were asked for, as of 50 ms after.
    private func walk(ticksPerStep: (Int) -> Int64) -> Walk {
        let memory = OutboxMemory()
        var market = Market(seed: 1)
        var node = QuoteNode(
            venue: .binanceUSDM, instruments: [Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 0, lotUnits: 1)],
            parameters: Parameters(), isRecorded: false, connections: 1, runNumber: 1, firstFillID: 1, outboxes: memory.makeOutboxes(),
            clock: StopClock { 0 })
        var clock: Int64 = 1_735_689_600_000_000_000
        func now() -> Moment { Moment(instant: Instant(nanoseconds: clock), wall: WallTime(nanoseconds: clock)) }
        node.connected(0, at: now())
        var walk = Walk()
        var answers: [(due: Int, body: String, sentAt: Moment)] = []
        for step in 0..<300 {
            clock += 100_000_000
            let diff = Array(market.step(by: ticksPerStep(step)).utf8)
            diff.withUnsafeBytes { node.frame($0, on: 0, at: now()) }
            while let answer = answers.first, answer.due <= step {
                answers.removeFirst()
                let sentAt = answer.sentAt
                Array(answer.body.utf8).withUnsafeBytes { node.snapshotAnswered(0, $0, sentAt: sentAt, at: now()) }
            }
            node.advance(to: now())
            for request in node.takeRequests() {
                if request == .ping { node.pong(on: 0, at: now()) }
                guard request == .snapshot(0) else { continue }
                walk.requests += 1
                answers.append((step + 2, market.snapshot(), now()))
            }
            memory.discard(&node.shared.outboxes)
            guard node.withSymbol(0, { $0.isProven }) else {
                if step > 10 { walk.unprovenSteps += 1 }
                continue
            }
            walk.comparisons += 1
            let (bids, asks) = (market.prices(.buy, count: 30), market.prices(.sell, count: 30))
            for (rank, price) in bids.enumerated() {
                let level = node.withSymbol(0) { $0.book.bids.level(rank) }
                if level?.price != price || level?.quantity != market.bids[price] { walk.wrongLevels += 1 }
            }
            for (rank, price) in asks.enumerated() {
                let level = node.withSymbol(0) { $0.book.asks.level(rank) }
                if level?.price != price || level?.quantity != market.asks[price] { walk.wrongLevels += 1 }
            }
        }
        walk.losses = node.cacheCounts(of: 0).invalidations[MDCache.Invalidation.beyondSnapshot.rawValue]
        return walk
    }

    @Test(arguments: [10, -10] as [Int64])
    func aBookThatWalksOutOfItsSnapshotIsWidenedInTime(ticks: Int64) {
        let walk = walk { _ in ticks }
        // 3,000 ticks in all; a snapshot reaches 1,000, and half of it is used up after 5 s. One wider book each 20 s at most.
        #expect(walk.wrongLevels == 0 || walk.losses > 0, "\(walk)")
        #expect(walk.comparisons > 200, "\(walk)")
        #expect((2...8).contains(walk.requests), "\(walk)")
    }

    /// Slowly enough, the wider book always comes before the range is used up, and quoting goes on.
    @Test func aSlowWalkNeverPausesNorShowsAWrongLevel() {
        let walk = walk { step in step.isMultiple(of: 2) ? 5 : 4 }
        #expect(walk.wrongLevels == 0 && walk.losses == 0 && walk.unprovenSteps == 0 && walk.comparisons > 285, "\(walk)")
        #expect((2...4).contains(walk.requests), "\(walk)")
    }

    @Test func aJumpBeyondTheSnapshotUnprovesTheBook() {
        let walk = walk { $0 == 100 ? 1_500 : 0 }
        #expect(walk.losses == 1 && walk.requests == 2 && (1...20).contains(walk.unprovenSteps), "\(walk)")
    }

    @Test func aMarketThatStaysIsAskedForOnce() {
        let walk = walk { $0.isMultiple(of: 2) ? 100 : -100 }
        #expect(walk.requests == 1 && walk.wrongLevels == 0 && walk.losses == 0, "\(walk)")
    }
}
