/// One side of an order book: prices in ticks to quantities in lots, the best at the end.
///
/// Both sides are one ascending array of keys; an ask's key is its negated price, so that "best" is the last element on both.
/// Most updates are near the touch, so the bytes moved on insertion are few.
package struct BookSide: ~Copyable {
    package let side: Side
    package private(set) var count = 0
    /// Levels forgotten because the side was full.
    package private(set) var forgottenLevels = 0
    private let keys: UnsafeMutablePointer<Int64>
    private let quantities: UnsafeMutablePointer<Int64>
    private let capacity: Int

    package init(_ side: Side, capacity: Int = Limits.bookLevelsMax) {
        self.side = side
        self.capacity = capacity
        keys = .allocate(capacity: capacity)
        quantities = .allocate(capacity: capacity)
    }

    deinit {
        keys.deallocate()
        quantities.deallocate()
    }

    package mutating func removeAll() { count = 0 }

    /// Sets the absolute quantity at a price; 0 removes the level. Removing an absent level is normal on Binance.
    package mutating func set(price: Int64, quantity: Int64) {
        let key = side.sign * price
        let index = position(of: key)
        if index < count, keys[index] == key {
            if quantity > 0 {
                quantities[index] = quantity
            } else {
                remove(at: index)
            }
        } else if quantity > 0 {
            insert(key, quantity, at: index)
        }
    }

    /// Quantity at the price; 0 when there is no such level.
    package func quantity(at price: Int64) -> Int64 {
        let key = side.sign * price
        let index = position(of: key)
        return index < count && keys[index] == key ? quantities[index] : 0
    }

    /// The n-th best level, 0 being the touch.
    package func level(_ rank: Int) -> (price: Int64, quantity: Int64)? {
        guard rank >= 0, rank < count else { return nil }
        return (side.sign * keys[count - 1 - rank], quantities[count - 1 - rank])
    }

    /// How many levels are strictly better than the price: the rank a level there has or would have.
    package func rank(of price: Int64) -> Int {
        let key = side.sign * price
        let index = position(of: key)
        return index < count && keys[index] == key ? count - 1 - index : count - index
    }

    /// The first index whose key is not below the given one.
    private func position(of key: Int64) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low &+ high) >> 1
            if keys[middle] < key { low = middle &+ 1 } else { high = middle }
        }
        return low
    }

    private mutating func remove(at index: Int) {
        let behind = count &- index &- 1
        (keys + index).update(from: keys + index + 1, count: behind)
        (quantities + index).update(from: quantities + index + 1, count: behind)
        count &-= 1
    }

    private mutating func insert(_ key: Int64, _ quantity: Int64, at wanted: Int) {
        var index = wanted
        if count == capacity {
            forgottenLevels += 1
            guard index > 0 else { return }  // The new level is itself the farthest.
            remove(at: 0)
            index -= 1
        }
        let behind = count &- index
        (keys + index + 1).update(from: keys + index, count: behind)
        (quantities + index + 1).update(from: quantities + index, count: behind)
        keys[index] = key
        quantities[index] = quantity
        count &+= 1
    }
}

/// The depth book of one symbol, merged with a newer bookTicker (SPEC 3.1).
///
/// The ticker's id is in the depth stream's id space: while it is newer than the last depth event, its top replaces the book's, levels
/// better than that top are known to be gone, and the quantity at the top is the ticker's.
package struct Book: ~Copyable {
    package var bids = BookSide(.buy)
    package var asks = BookSide(.sell)
    /// Id of the last applied snapshot or depth event.
    package private(set) var depthID: Int64 = 0
    private var ticker: TopOfBook?
    private var tickerID: Int64 = 0
    /// The oldest ticker that no depth event has reached yet, and when it came.
    private var leadID: Int64 = 0
    private var leadAt = Instant(nanoseconds: 0)

    package init() {}

    package mutating func removeAll() {
        bids.removeAll()
        asks.removeAll()
        ticker = nil
        depthID = 0
        tickerID = 0
    }

    /// To be called after the levels of a snapshot or depth event were set.
    package mutating func applied(depthID id: Int64, at now: Instant) {
        depthID = id
        if tickerID <= id {
            ticker = nil
        } else if leadID <= id {
            leadID = tickerID
            leadAt = now
        }
    }

    /// Takes a bookTicker when it is newer than the depth book and any ticker before; false when it is not.
    package mutating func merge(_ top: TopOfBook, id: Int64, at now: Instant) -> Bool {
        guard id > depthID, id > tickerID else { return false }
        tickerID = id
        if ticker == nil {
            leadID = id
            leadAt = now
        }
        ticker = top
        return true
    }

    /// Forgets a ticker that depth events have not reached for so long: either they lag, or its id is wrong. True when it did.
    package mutating func expireTicker(olderThan nanoseconds: Int64, at now: Instant) -> Bool {
        guard ticker != nil, now.since(leadAt) > nanoseconds else { return false }
        ticker = nil
        tickerID = 0
        return true
    }

    /// The top by depth events alone; nil when a side is empty.
    package var depthTop: TopOfBook? {
        guard let bid = bids.level(0), let ask = asks.level(0) else { return nil }
        return TopOfBook(bidPrice: bid.price, bidQuantity: bid.quantity, askPrice: ask.price, askQuantity: ask.quantity)
    }

    /// The newest known top; nil when a side is empty.
    package var top: TopOfBook? { ticker ?? depthTop }

    /// The newest known quantity at a price.
    package func quantity(_ side: Side, at price: Int64) -> Int64 {
        if let ticker {
            let best = side == .buy ? ticker.bidPrice : ticker.askPrice
            if price == best { return side == .buy ? ticker.bidQuantity : ticker.askQuantity }
            if (price - best) * side.sign > 0 { return 0 }
        }
        return side == .buy ? bids.quantity(at: price) : asks.quantity(at: price)
    }

    /// Total quantity of the best `levels` levels, and how much of it is at prices strictly better than `price` (0 when nil).
    package func volume(_ side: Side, levels: Int, betterThan price: Int64? = nil) -> (total: Int64, better: Int64) {
        side == .buy ? volume(of: bids, levels, price) : volume(of: asks, levels, price)
    }

    private func volume(of book: borrowing BookSide, _ levels: Int, _ price: Int64?) -> (total: Int64, better: Int64) {
        let sign = book.side.sign
        var total: Int64 = 0
        var better: Int64 = 0
        var left = levels
        var rank = 0
        func add(_ levelPrice: Int64, _ quantity: Int64) {
            total &+= quantity
            if let price, (levelPrice - price) * sign > 0 { better &+= quantity }
            left -= 1
        }
        if let ticker {
            let best = sign > 0 ? ticker.bidPrice : ticker.askPrice
            add(best, sign > 0 ? ticker.bidQuantity : ticker.askQuantity)
            rank = book.rank(of: best)
            if let level = book.level(rank), level.price == best { rank += 1 }
        }
        while left > 0, let level = book.level(rank) {
            add(level.price, level.quantity)
            rank += 1
        }
        return (total, better)
    }
}
