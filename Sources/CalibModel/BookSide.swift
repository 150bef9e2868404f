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
/// A handle of one word: Swift 6.3.1 copies a struct that cannot be copied onto the stack for each call that only looks at it.
package struct BookSide: ~Copyable {
    private let levels: UnsafeMutablePointer<LevelWindow>

    /// - Parameter capacity: how many levels are kept; beyond it the farthest is forgotten.
    package init(_ side: Side, capacity: Int = Limits.bookLevelsMax) {
        levels = .allocate(capacity: 1)
        levels.initialize(to: LevelWindow(side, capacity: capacity))
    }

    deinit {
        levels.deinitialize(count: 1)
        levels.deallocate()
    }

    package var side: Side { levels.pointee.side }
    package var count: Int { levels.pointee.count }
    /// Levels forgotten because the side was full.
    package var forgottenLevels: Int { levels.pointee.forgottenLevels }

    /// Rises whenever levels may have changed.
    var version: Int { levels.pointee.version }

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

    /// Writes at most so many levels worse than a price (the best ones when nil), best first, and returns how many there were.
    package func read(levels count: Int, worseThan start: Int64?, into target: UnsafeMutablePointer<BookLevel>) -> Int {
        levels.pointee.read(levels: count, worseThan: start, into: target)
    }
}

/// The best levels of one side, read once for all that a tick asks of them.
public struct BestLevels: Sendable, BitwiseCopyable {
    /// As many as the liquidity score looks at (SPEC 4.2).
    public static let countMax = 5

    @usableFromInline let side: Side
    @usableFromInline var levels: InlineArray<5, BookLevel> = .init(repeating: BookLevel(price: 0, quantity: 0))
    @usableFromInline var count = 0

    @inlinable init(_ side: Side) { self.side = side }

    /// Total quantity of all of them, lots.
    @inlinable public var total: Int64 {
        // What there is not has no quantity.
        levels[0].quantity &+ levels[1].quantity &+ levels[2].quantity &+ levels[3].quantity &+ levels[4].quantity
    }

    /// Total quantity of the best three, lots.
    @inlinable public var topThree: Int64 { levels[0].quantity &+ levels[1].quantity &+ levels[2].quantity }

    /// Of the best three, what is at prices strictly better than the given one, lots.
    @inlinable public func topThree(betterThan price: Int64) -> Int64 {
        var better: Int64 = 0
        for rank in 0..<3 where (levels[rank].price &- price) &* side.sign > 0 { better &+= levels[rank].quantity }
        return better
    }

    /// Quantity at a price that is one of theirs or better than the last of them; nil beyond, where they do not tell.
    @inlinable public func quantity(at price: Int64) -> Int64? {
        for rank in 0..<count {
            if levels[rank].price == price { return levels[rank].quantity }
            if (price &- levels[rank].price) &* side.sign > 0 { return 0 }
        }
        return nil
    }
}
