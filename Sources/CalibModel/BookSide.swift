/// Price and absolute quantity of one level, in ticks and lots.
public struct BookLevel: Sendable, Equatable, BitwiseCopyable {
    public var price: Int64
    public var quantity: Int64
    @inlinable public init(price: Int64, quantity: Int64) {
        self.price = price
        self.quantity = quantity
    }
}

/// One side of an order book: prices in ticks to quantities in lots. How it finds them is `LevelWindow`'s.
///
/// A handle of two words: Swift 6.3.1 copies a struct that cannot be copied onto the stack for each call that only looks at it.
package struct BookSide: ~Copyable {
    package let side: Side
    private let levels: UnsafeMutablePointer<LevelWindow>

    /// - Parameter capacity: how many levels are kept; beyond it the farthest is forgotten.
    package init(_ side: Side, capacity: Int = Limits.bookLevelsMax) {
        self.side = side
        levels = .allocate(capacity: 1)
        levels.initialize(to: LevelWindow(side, capacity: capacity))
    }

    deinit {
        levels.deinitialize(count: 1)
        levels.deallocate()
    }

    package var count: Int { levels.pointee.count }
    /// Levels forgotten because the side was full.
    package var forgottenLevels: Int { levels.pointee.forgottenLevels }

    package mutating func removeAll() { levels.pointee.removeAll() }

    /// Sets the absolute quantity at a price; 0 removes the level. Removing an absent level is normal on Binance.
    package mutating func set(price: Int64, quantity: Int64) { levels.pointee.set(price: price, quantity: quantity) }

    /// Sets each of the levels in turn.
    package mutating func set(_ changes: UnsafeBufferPointer<BookLevel>) { levels.pointee.set(changes) }

    /// Quantity at the price; 0 when there is no such level.
    package func quantity(at price: Int64) -> Int64 { levels.pointee.quantity(at: price) }

    /// The best level; nil when the side is empty.
    package var top: BookLevel? { levels.pointee.top }

    /// The n-th best level, 0 being the touch.
    package func level(_ rank: Int) -> (price: Int64, quantity: Int64)? { levels.pointee.level(rank) }

    /// How many levels are strictly better than the price: the rank a level there has or would have.
    package func rank(of price: Int64) -> Int { levels.pointee.rank(of: price) }

    /// Total quantity of at most so many levels worse than a price (the best ones when nil), and how much of it is strictly better than another
    /// price (0 when nil).
    package func volume(levels count: Int, worseThan start: Int64?, betterThan price: Int64?) -> (total: Int64, better: Int64) {
        levels.pointee.volume(levels: count, worseThan: start, betterThan: price)
    }
}
