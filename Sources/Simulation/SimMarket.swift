// A small market with one instrument, in one pure value: `step` plays one millisecond of the venue's clock.
//
// Purpose: input for the edge that behaves like a venue's feed where it matters to a market maker, from a seed alone.
//
// The flow is zero-intelligence after Cont, Stoikov and Talreja 2010 ("A stochastic model for order book dynamics"): limit orders,
// cancellations and market orders arrive at Poisson rates that depend on the distance from the touch; here the rates are thinned on a
// 1-ms grid. Alone, that flow hardly moves a 1-tick market whose touch holds several BTC. What moves it is a fair value that shifts in
// steps: makers on the wrong side of it cancel, takers sweep what is left, and new orders close the spread around the new place.
//
// Numbers are fitted to the USD-M recording of 2024-08-08 (BTCUSDT): about 19 depth diffs, 60 trades and 190 top updates a second,
// 1.2 bps per sqrt second, a 1-tick spread most of the time, 2.7 BTC at the touch in the median, about two in three ticks occupied.
//
// Invariants
//  1. A tick holds bids or asks, never both; every bid lies below every ask.
//  2. Every operation on the book takes a higher id; a top update carries the id of the operation after which it was true.
//  3. What trades take from a price is exactly what its displayed quantity loses.
//  4. The depth diffs, applied in order to any earlier state, give the book after the operation with their last id.

import CalibModel

/// What the venue publishes, in its order. Prices are ticks, quantities lots, times milliseconds of the venue's clock.
package enum MarketEvent: Sendable {
    case trade(Trade)
    case top(TopOfBook, id: Int64, milliseconds: Int64)
    case depth(DepthDiff)

    package struct Trade: Sendable {
        package var number: Int64
        package var price: Int64
        package var quantity: Int64
        package var aggressor: Side
        package var milliseconds: Int64
    }

    /// Absolute quantities of every level that differs from the previous diff, ascending by price; 0 removes a level.
    package struct DepthDiff: Sendable {
        package var firstID: Int64
        package var lastID: Int64
        package var previousLastID: Int64
        package var bids: [Level] = []
        package var asks: [Level] = []
        /// When the venue closed the diff, and when the last operation in it happened.
        package var milliseconds: Int64
        package var engineMilliseconds: Int64
    }

    package struct Level: Sendable, Equatable {
        package var price: Int64
        package var quantity: Int64
    }
}

package struct SimMarket: Sendable {
    /// 61,800.0 with a tick of 0.1: where the reference recording starts.
    package static let startTick: Int64 = 618_000

    /// Milliseconds of the venue's clock at the last step.
    package private(set) var milliseconds: Int64
    /// The id of the newest operation.
    package private(set) var lastID: Int64 = 5_123_107_832_006
    package private(set) var engineMilliseconds: Int64

    private var random: PRNG
    /// Lots at each tick: above 0 bids, below 0 asks (invariant 1).
    private var lots: [Int64]
    /// The same as of the last diff; `changed` lists where they may differ, each tick once.
    private var published: [Int64]
    private var isChanged: [Bool]
    private var changed: [Int] = []
    private var bid: Int
    private var ask: Int
    private var lastTop: TopOfBook
    private var events: [MarketEvent] = []

    /// The fair price in 1/256 tick. Bids belong at or below its whole tick, asks above it.
    private var fair: Int64
    /// Per cent of the ordinary rates: a few hundred milliseconds of several times the ordinary flow, then calm again.
    private var activity: Int64 = 100
    private var lastAggressor = Side.buy
    private var tradeNumber: Int64 = 5_266_583_934
    private var previousLastID: Int64
    private var firstIDOfDiff: Int64?
    private var diffDue: Int64

    /// A market whose first step is the millisecond after `start`; it has run for a while already, unobserved.
    package init(seed: UInt64, startingAfter start: Int64) {
        let warmUpMilliseconds: Int64 = 3000
        random = PRNG(seed: seed)
        milliseconds = start - warmUpMilliseconds
        engineMilliseconds = milliseconds
        // Twice the start price: the fair value is kept within half of it on either side, with room for the deepest order.
        lots = Array(repeating: 0, count: Int(2 * Self.startTick))
        published = lots
        isChanged = Array(repeating: false, count: lots.count)
        bid = Int(Self.startTick) - 1
        ask = Int(Self.startTick)
        fair = Self.startTick << 8 - 128
        previousLastID = lastID
        diffDue = milliseconds + 50
        lastTop = TopOfBook(bidPrice: 0, bidQuantity: 0, askPrice: 0, askQuantity: 0)
        for distance in 0..<6000 {
            for side in Side.allCases where distance == 0 || random.chance(perMillion: 680_000) {
                let tick = side == .buy ? bid - distance : ask + distance
                lots[tick] = side.sign * (distance == 0 ? 2500 : random.acrossOctaves(10))
                published[tick] = lots[tick]
            }
        }
        lastTop = top
        for _ in 0..<warmUpMilliseconds { _ = step() }
    }

    package var top: TopOfBook {
        TopOfBook(bidPrice: Int64(bid), bidQuantity: lots[bid], askPrice: Int64(ask), askQuantity: -lots[ask])
    }

    /// The best `count` levels of a side, best first.
    package func levels(_ side: Side, count: Int) -> [MarketEvent.Level] {
        var found: [MarketEvent.Level] = []
        var tick = side == .buy ? bid : ask
        while found.count < count, lots.indices.contains(tick) {
            if lots[tick] != 0 { found.append(.init(price: Int64(tick), quantity: abs(lots[tick]))) }
            tick += side == .buy ? -1 : 1
        }
        return found
    }

    /// The id of the last diff: what `publishedLevels` are as of.
    package var publishedID: Int64 { previousLastID }

    /// The best `count` levels as of the last diff, best first. A book from between two diffs may hold a level that came and went again: no diff
    /// ever takes that one away.
    package func publishedLevels(_ side: Side, count: Int) -> [MarketEvent.Level] {
        var found: [MarketEvent.Level] = []
        // Beyond the best level there are only the other side's, and the touch has not moved this far since.
        var tick = side == .buy ? bid + 5_000 : ask - 5_000
        while found.count < count, published.indices.contains(tick) {
            let lots = side.sign * published[tick]
            if lots > 0 { found.append(.init(price: Int64(tick), quantity: lots)) }
            tick += side == .buy ? -1 : 1
        }
        return found
    }

    /// Plays one millisecond and returns what the venue publishes in it.
    package mutating func step() -> [MarketEvent] {
        milliseconds += 1
        events.removeAll(keepingCapacity: true)
        changeActivity()
        moveFairValue()
        followFairValue()
        closeSpread()
        if random.chance(perMillion: 12_500 * activity / 100) { noiseMarketOrder() }
        if random.chance(perMillion: 110_000 * activity / 100) { noiseAtTouch() }
        for _ in 0..<2 where random.chance(perMillion: 450_000) { noiseBehindTouch() }
        if milliseconds >= diffDue { closeDiff() }
        return events
    }

    // MARK: What moves the market

    private mutating func changeActivity() {
        if activity == 100 {
            // A burst every 15 s in the mean, 300 ms long in the mean, 3 to 10 times the ordinary flow.
            if random.chance(perMillion: 67) { activity = 300 + random.below(700) }
        } else if random.chance(perMillion: 3_300) {
            activity = 100
        }
    }

    /// Steps of both signs, 3 a second in the mean, of 1 to 127 ticks, small ones more often: a random walk of about 1.2 bps per sqrt s.
    private mutating func moveFairValue() {
        guard random.chance(perMillion: 2_600 * activity / 100) else { return }
        let size = random.acrossOctaves(7) << 8 + random.below(256)
        let start = Self.startTick << 8
        // The bounds are far outside what a day of this walk reaches; at them the step turns round.
        let isUp = fair < start / 2 ? true : fair > start * 3 / 2 ? false : random.chance(perMillion: 500_000)
        fair += isUp ? size : -size
    }

    /// Orders on the wrong side of the fair value go: taken by someone quick, or cancelled by their owners.
    private mutating func followFairValue() {
        let fairTick = Int(fair >> 8)
        let wrongSide: Side
        let distance: Int
        if ask <= fairTick {
            (wrongSide, distance) = (.sell, fairTick + 1 - ask)
        } else if bid > fairTick {
            (wrongSide, distance) = (.buy, bid - fairTick)
        } else {
            return
        }
        if random.chance(perMillion: 90_000) {
            marketOrder(wrongSide.opposite, quantity: random.acrossOctaves(13), limit: wrongSide == .sell ? fairTick : fairTick + 1)
            return
        }
        for _ in 0...(distance / 3) {
            let tick = wrongSide == .sell ? ask : bid
            guard wrongSide == .sell ? tick <= fairTick : tick > fairTick else { return }
            // The big orders at the touch leave in pieces, the small ones behind it at once.
            let quantity = abs(lots[tick])
            reduce(tick, by: quantity > 500 && random.chance(perMillion: 500_000) ? quantity / 2 : quantity)
        }
    }

    /// A spread above one tick is an invitation: somebody quotes up to the fair value, and a ladder of small orders follows.
    private mutating func closeSpread() {
        guard ask - bid > 1, random.chance(perMillion: 850_000) else { return }
        let fairTick = Int(fair >> 8)
        let bidTarget = min(ask - 1, max(bid, fairTick))
        let askTarget = max(bid + 1, min(ask, fairTick + 1))
        if bidTarget - bid >= ask - askTarget {
            improve(.buy, from: bid, to: bidTarget == bid ? bid + 1 : bidTarget)
        } else {
            improve(.sell, from: ask, to: askTarget)
        }
    }

    private mutating func improve(_ side: Side, from old: Int, to new: Int) {
        add(side, new, quantity: 1000 + random.acrossOctaves(12))
        let inner = side == .buy ? max(old + 1, new - 64)..<new : new + 1..<max(new + 1, min(old, new + 65))
        for tick in inner where random.chance(perMillion: 600_000) { add(side, tick, quantity: random.acrossOctaves(9)) }
    }

    // MARK: Noise

    private mutating func noiseMarketOrder() {
        // Signs persist (Lillo and Farmer 2004): two in three orders have the sign of the one before.
        if random.chance(perMillion: 333_333) { lastAggressor = lastAggressor.opposite }
        marketOrder(lastAggressor, quantity: random.acrossOctaves(11), limit: lastAggressor == .buy ? ask + 20 : bid - 20)
    }

    /// Orders come and go at the touch; the fuller it is, the more go.
    private mutating func noiseAtTouch() {
        let side: Side = random.chance(perMillion: 500_000) ? .buy : .sell
        let tick = side == .buy ? bid : ask
        let quantity = abs(lots[tick])
        if random.below(quantity + 4000) < 4000 {
            add(side, tick, quantity: random.acrossOctaves(12))
        } else {
            reduce(tick, by: min(quantity, random.acrossOctaves(12)))
        }
    }

    /// Orders come and go behind the touch, at distances spread evenly over the octaves. Each arrival stays until a cancellation of
    /// its whole level, so 68 in 100 levels are occupied in equilibrium.
    private mutating func noiseBehindTouch() {
        let side: Side = random.chance(perMillion: 500_000) ? .buy : .sell
        let distance = Int(random.acrossOctaves(12))
        let tick = side == .buy ? bid - distance : ask + distance
        if random.chance(perMillion: 680_000) {
            add(side, tick, quantity: random.acrossOctaves(10))
        } else if lots[tick] != 0 {
            reduce(tick, by: abs(lots[tick]))
        }
    }

    // MARK: Operations on the book

    private mutating func add(_ side: Side, _ tick: Int, quantity: Int64) {
        precondition(side == .buy ? tick < ask : tick > bid, "BUG: a limit order that would cross")
        set(tick, lots[tick] + side.sign * quantity)
        if side == .buy { bid = max(bid, tick) } else { ask = min(ask, tick) }
        finishOperation()
    }

    private mutating func reduce(_ tick: Int, by quantity: Int64) {
        set(tick, lots[tick] > 0 ? lots[tick] - quantity : lots[tick] + quantity)
        finishOperation()
    }

    /// Takes from the best price on, level by level, until the quantity or the limit is used up. A level is eaten order by order;
    /// the resting orders' sizes are drawn as they are met.
    private mutating func marketOrder(_ aggressor: Side, quantity: Int64, limit: Int) {
        var rest = quantity
        var tick = aggressor == .buy ? ask : bid
        while rest > 0, aggressor == .buy ? tick <= limit : tick >= limit {
            let displayed = abs(lots[tick])
            if displayed > 0 {
                let taken = min(rest, displayed)
                set(tick, lots[tick] > 0 ? displayed - taken : taken - displayed)
                rest -= taken
                trade(at: tick, quantity: taken, aggressor: aggressor)
            }
            tick += aggressor == .buy ? 1 : -1
        }
        finishOperation()
    }

    private mutating func trade(at tick: Int, quantity: Int64, aggressor: Side) {
        var rest = quantity
        while rest > 0 {
            let piece = min(rest, random.acrossOctaves(10))
            rest -= piece
            tradeNumber += 1
            events.append(
                .trade(
                    .init(
                        number: tradeNumber, price: Int64(tick), quantity: piece, aggressor: aggressor, milliseconds: milliseconds)))
        }
    }

    private mutating func set(_ tick: Int, _ quantity: Int64) {
        lots[tick] = quantity
        if !isChanged[tick] {
            isChanged[tick] = true
            changed.append(tick)
        }
    }

    /// Finds the touch again, gives the operation its id, and publishes the top if it is another one.
    private mutating func finishOperation() {
        while lots[bid] == 0 { bid -= 1 }
        while lots[ask] == 0 { ask += 1 }
        precondition(lots[bid] > 0 && lots[ask] < 0 && bid < ask, "BUG: the simulated book is crossed at \(bid), \(ask)")
        // The venue counts all its instruments with one counter: others' operations lie between two of ours.
        lastID += 1 + random.below(160)
        engineMilliseconds = milliseconds
        if firstIDOfDiff == nil { firstIDOfDiff = lastID }
        if top != lastTop {
            lastTop = top
            events.append(.top(top, id: lastID, milliseconds: milliseconds))
        }
    }

    private mutating func closeDiff() {
        diffDue = milliseconds + 51 + (random.chance(perMillion: 400_000) ? random.below(5) : 0)
        guard let firstID = firstIDOfDiff else { return }
        changed.sort()
        var diff = MarketEvent.DepthDiff(
            firstID: firstID, lastID: lastID, previousLastID: previousLastID, milliseconds: milliseconds,
            engineMilliseconds: engineMilliseconds)
        for tick in changed {
            isChanged[tick] = false
            let (old, new) = (published[tick], lots[tick])
            guard old != new else { continue }
            published[tick] = new
            // A tick that changed sides is gone on the one and new on the other.
            if old > 0 || new > 0 { diff.bids.append(.init(price: Int64(tick), quantity: max(0, new))) }
            if old < 0 || new < 0 { diff.asks.append(.init(price: Int64(tick), quantity: max(0, -new))) }
        }
        changed.removeAll(keepingCapacity: true)
        previousLastID = lastID
        firstIDOfDiff = nil
        events.append(.depth(diff))
    }
}
