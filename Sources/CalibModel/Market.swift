/// What an instrument's numbers mean: inside the edge a price is a whole number of ticks, a quantity a whole number of lots (SPEC 1.2).
///
/// A tick is `tickUnits * 10^-priceDigits` of the quote currency, a lot `lotUnits * 10^-quantityDigits` of the base asset.
public struct Instrument: Sendable, Equatable {
    public var symbol: String
    public var priceDigits: Int
    public var tickUnits: Int64
    public var quantityDigits: Int
    public var lotUnits: Int64
    /// True when the tick and lot were inferred from a recording instead of configured (SPEC 3.1).
    public var isInferred: Bool
    /// What the configured sizes (order, position and their limits) are multiplied with for this symbol: an order of 0.01 BTC is one of 4 SOL at
    /// 400. 1 ... 1e9.
    public var sizeUnit: Int64

    package init(
        symbol: String, priceDigits: Int, tickUnits: Int64, quantityDigits: Int, lotUnits: Int64, isInferred: Bool = false,
        sizeUnit: Int64 = 1
    ) {
        precondition((0...Places.price).contains(priceDigits), "BUG: price digits \(priceDigits)")
        precondition((0...Places.quantity).contains(quantityDigits), "BUG: quantity digits \(quantityDigits)")
        precondition(tickUnits > 0 && lotUnits > 0 && sizeUnit > 0, "BUG: a tick, a lot and a size unit are positive")
        self.symbol = symbol
        self.priceDigits = priceDigits
        self.tickUnits = tickUnits
        self.quantityDigits = quantityDigits
        self.lotUnits = lotUnits
        self.isInferred = isInferred
        self.sizeUnit = sizeUnit
    }

    /// Whole lots in a configured size of 1e-8 units, rounded down; never more than a venue's quantity may be.
    package func lots(ofSize size: Int64) -> Int64 {
        Int64(min(Int128(size) * Int128(sizeUnit), Int128(Limits.decimalMax)) / Int128(lotE8))
    }

    /// One tick in 1e-9 quote currency.
    package var tickNano: Int64 { tickUnits * FixedPoint.powersOfTen[Places.price - priceDigits] }
    /// One lot in 1e-8 base asset.
    package var lotE8: Int64 { lotUnits * FixedPoint.powersOfTen[Places.quantity - quantityDigits] }
}

/// Price and quantity at the top of both sides, in ticks and lots.
public struct TopOfBook: Sendable, Equatable {
    public var bidPrice: Int64
    public var bidQuantity: Int64
    public var askPrice: Int64
    public var askQuantity: Int64
    @inlinable public init(bidPrice: Int64, bidQuantity: Int64, askPrice: Int64, askQuantity: Int64) {
        self.bidPrice = bidPrice
        self.bidQuantity = bidQuantity
        self.askPrice = askPrice
        self.askQuantity = askQuantity
    }
    /// Bid plus ask in ticks: twice the mid, so that it stays a whole number.
    @inlinable public var midTwice: Int64 { bidPrice &+ askPrice }
    @inlinable public var isCrossed: Bool { bidPrice >= askPrice }
}
