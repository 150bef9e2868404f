/// The depth book of one symbol, merged with a newer bookTicker (SPEC 3.1).
///
/// The ticker's id is in the depth stream's id space: while it is newer than the last depth event, its top replaces the book's, levels
/// better than that top are known to be gone, and the quantity at the top is the ticker's.
///
/// A handle of few words: Swift 6.3.1 copies a struct that cannot be copied onto the stack for each call that only looks at it.
package struct Book: ~Copyable {
    /// What bookTickers say beside the levels.
    private struct Newest {
        /// Id of the last applied snapshot or depth event.
        var depthID: Int64 = 0
        var ticker: TopOfBook?
        var tickerID: Int64 = 0
        /// The oldest ticker that no depth event has reached yet, and when it came.
        var leadID: Int64 = 0
        var leadAt = Instant(nanoseconds: 0)
        var bestBids = KnownBest(.buy)
        var bestAsks = KnownBest(.sell)
    }

    /// The best levels of a side as they were read last. Most bookTickers change a quantity at the touch alone: then they are known.
    private struct KnownBest {
        var levels: BestLevels
        /// Of the side; nothing is known of -1.
        var version = -1
        /// The ticker's price among them; 0 when there was none.
        var tickerPrice: Int64 = 0

        init(_ side: Side) { levels = BestLevels(side) }
    }

    package var bids = BookSide(.buy)
    package var asks = BookSide(.sell)
    private let newest: UnsafeMutablePointer<Newest>

    package init() {
        newest = .allocate(capacity: 1)
        newest.initialize(to: Newest())
    }

    deinit { newest.deallocate() }

    /// Id of the last applied snapshot or depth event.
    package var depthID: Int64 { newest.pointee.depthID }

    package mutating func removeAll() {
        bids.removeAll()
        asks.removeAll()
        newest.pointee.ticker = nil
        newest.pointee.depthID = 0
        newest.pointee.tickerID = 0
    }

    /// To be called after the levels of a snapshot or depth event were set.
    package mutating func applied(depthID id: Int64, at now: Instant) {
        newest.pointee.depthID = id
        if newest.pointee.tickerID <= id {
            newest.pointee.ticker = nil
        } else if newest.pointee.leadID <= id {
            newest.pointee.leadID = newest.pointee.tickerID
            newest.pointee.leadAt = now
        }
    }

    /// Takes a bookTicker when it is newer than the depth book and any ticker before; false when it is not.
    package mutating func merge(_ top: TopOfBook, id: Int64, at now: Instant) -> Bool {
        guard id > newest.pointee.depthID, id > newest.pointee.tickerID else { return false }
        newest.pointee.tickerID = id
        if newest.pointee.ticker == nil {
            newest.pointee.leadID = id
            newest.pointee.leadAt = now
        }
        newest.pointee.ticker = top
        return true
    }

    /// Forgets a ticker that depth events have not reached for so long: either they lag, or its id is wrong. True when it did.
    package mutating func expireTicker(olderThan nanoseconds: Int64, at now: Instant) -> Bool {
        guard newest.pointee.ticker != nil, now.since(newest.pointee.leadAt) > nanoseconds else { return false }
        newest.pointee.ticker = nil
        newest.pointee.tickerID = 0
        return true
    }

    /// The top by depth events alone; nil when a side is empty.
    package var depthTop: TopOfBook? {
        guard let bid = bids.top, let ask = asks.top else { return nil }
        return TopOfBook(bidPrice: bid.price, bidQuantity: bid.quantity, askPrice: ask.price, askQuantity: ask.quantity)
    }

    /// The newest known top; nil when a side is empty.
    package var top: TopOfBook? { newest.pointee.ticker ?? depthTop }

    /// The newest known quantity at a price.
    package func quantity(_ side: Side, at price: Int64) -> Int64 {
        if let ticker = newest.pointee.ticker {
            let best = side == .buy ? ticker.bidPrice : ticker.askPrice
            if price == best { return side == .buy ? ticker.bidQuantity : ticker.askQuantity }
            if (price - best) * side.sign > 0 { return 0 }
        }
        return side == .buy ? bids.quantity(at: price) : asks.quantity(at: price)
    }

    /// Total quantity of the best `levels` levels, and how much of it is at prices strictly better than `price` (0 when nil).
    package func volume(_ side: Side, levels: Int, betterThan price: Int64? = nil) -> (total: Int64, better: Int64) {
        guard let ticker = newest.pointee.ticker, levels > 0 else {
            return side == .buy
                ? bids.volume(levels: levels, worseThan: nil, betterThan: price)
                : asks.volume(levels: levels, worseThan: nil, betterThan: price)
        }
        let (best, quantity) =
            side == .buy ? (ticker.bidPrice, ticker.bidQuantity) : (ticker.askPrice, ticker.askQuantity)
        let rest =
            side == .buy
            ? bids.volume(levels: levels - 1, worseThan: best, betterThan: price)
            : asks.volume(levels: levels - 1, worseThan: best, betterThan: price)
        let isBetter = price.map { (best - $0) * side.sign > 0 } ?? false
        return (rest.total &+ quantity, isBetter ? rest.better &+ quantity : rest.better)
    }

    /// The best levels of a side, the newest known top among them.
    package func best(_ side: Side) -> BestLevels {
        side == .buy
            ? Self.best(&newest.pointee.bestBids, bids, newest.pointee.ticker?.bidPrice ?? 0, newest.pointee.ticker?.bidQuantity ?? 0)
            : Self.best(&newest.pointee.bestAsks, asks, newest.pointee.ticker?.askPrice ?? 0, newest.pointee.ticker?.askQuantity ?? 0)
    }

    /// - Parameter price: the ticker's, with its quantity; 0 when there is none.
    @inline(__always) private static func best(
        _ known: inout KnownBest, _ side: borrowing BookSide, _ price: Int64, _ quantity: Int64
    ) -> BestLevels {
        if known.version == side.version, known.tickerPrice == price {
            if price > 0 { known.levels.levels[0].quantity = quantity }
        } else {
            known.version = side.version
            known.tickerPrice = price
            readBest(&known.levels, side, price, quantity)
        }
        return known.levels
    }

    @inline(never) private static func readBest(
        _ best: inout BestLevels, _ side: borrowing BookSide, _ price: Int64, _ quantity: Int64
    ) {
        var read = BestLevels(side.side)
        var count = 0
        withUnsafeMutableBytes(of: &read.levels) { bytes in
            guard let levels = bytes.baseAddress?.assumingMemoryBound(to: BookLevel.self) else { return }
            if price > 0 {
                levels[0] = BookLevel(price: price, quantity: quantity)
                count = 1
            }
            count += side.read(levels: BestLevels.countMax - count, worseThan: price > 0 ? price : nil, into: levels + count)
        }
        read.count = count
        best = read
    }
}
