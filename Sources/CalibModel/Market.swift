/// What an instrument's numbers mean: inside the edge a price is a whole number of ticks, a quantity a whole number of lots (SPEC 1.2).
///
/// A tick is `tickUnits * 10^-priceDigits` of the quote currency, a lot `lotUnits * 10^-quantityDigits` of the base asset.
///
/// Of an inverse future (Binance COIN-M) a quantity is a number of contracts, each worth `contractMultiplier` of the quote currency whatever the
/// price, and profit arises in the base asset. With n contracts of multiplier M (Binance, "COIN-margined futures: profit and loss"):
///
///     notional (quote) = n M            quantity (base) = n M / price
///     profit (base)    = n M (1/entry - 1/exit) for a long position; here it is marked to the quote currency at the mid
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
    /// What a contract of an inverse future is worth in whole units of the quote currency; nil for everything else, where a quantity is of the
    /// base asset and profit of the quote currency.
    public var contractMultiplier: Int64?
    /// No order below this is taken by the venue, 1e-8 quote currency; 0: none known.
    public var minimumNotional: Int64

    package init(
        symbol: String, priceDigits: Int, tickUnits: Int64, quantityDigits: Int, lotUnits: Int64, isInferred: Bool = false,
        sizeUnit: Int64 = 1, contractMultiplier: Int64? = nil, minimumNotional: Int64 = 0
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
        precondition(contractMultiplier.map { (1...Limits.contractMultiplierMax).contains($0) } ?? true, "BUG: a contract's size")
        self.sizeUnit = sizeUnit
        self.contractMultiplier = contractMultiplier
        self.minimumNotional = minimumNotional
    }

    package var isInverse: Bool { contractMultiplier != nil }

    /// Whole lots in a configured size of 1e-8 units of base asset, rounded down; never more than a venue's quantity may be. A contract is worth
    /// more or less base asset as the price moves, so an inverse instrument needs one: twice the mid in ticks.
    package func lots(ofSize size: Int64, midTwice: Int64) -> Int64 {
        let base = min(Int128(size) * Int128(sizeUnit), Int128(Limits.decimalMax))
        guard let contractMultiplier else { return Int64(base / Int128(lotE8)) }
        // base 1e-8, the doubled price 1e-9, over a lot of contracts 1e-8: base * price / (2e9 * M * lot).
        let value = base.multipliedReportingOverflow(by: Int128(midTwice) * Int128(tickNano))
        guard !value.overflow else { return Limits.decimalMax / lotE8 }
        let lots = value.partialValue / (2_000_000_000 * Int128(contractMultiplier) * Int128(lotE8))
        return Int64(min(lots, Int128(Limits.decimalMax / lotE8)))
    }

    /// What so many lots at a price (ticks) are worth in 1e-8 quote currency, half to even, and at the bounds of its type the nearest value.
    package func notional(price: Int64, lots: Int64) -> Int64 {
        let exact: Int128
        if let contractMultiplier {
            exact = Int128(lots) * Int128(lotE8) * Int128(contractMultiplier)
            return Int64(clamping: exact)
        }
        exact = Int128(price) * Int128(lots) * Int128(tickNano) * Int128(lotE8)
        return FixedPoint.divide(exact, by: 1_000_000_000) ?? (exact < 0 ? .min : .max)
    }

    /// What a position's trades have cost is kept as cash, whose unit depends on the kind: ticks x lots, or for an inverse instrument 1e-15 of the
    /// base asset, in which a contract of 100 at 60,000 has 13 digits. This is what buying so many lots adds; selling takes it away.
    package func cash(buying lots: Int64, price: Int64) -> Int128 {
        guard let contractMultiplier else { return -Int128(price) * Int128(lots) }
        // n M / p, in base: lots * lotE8 * 1e-8 * M / (price * tickNano * 1e-9), times 1e15.
        let value = Int128(lots) * Int128(lotE8) * Int128(contractMultiplier) * 10_000_000_000_000_000
        return (value + Int128(value.signum()) * Int128(price) * Int128(tickNano) / 2) / (Int128(price) * Int128(tickNano))
    }

    /// A position and its cash, marked to the quote currency at the mid, in 1e-8; nil when it does not fit.
    package func profit(position: Int64, cash: Int128, midTwice: Int64) -> Int64? {
        guard let contractMultiplier else {
            let twice = Int128(position) * Int128(midTwice) + 2 * cash
            return FixedPoint.divide(twice * Int128(tickNano) * Int128(lotE8), by: 2_000_000_000)
        }
        // Base asset at the mid, less the contracts' worth: cash * mid - n M, in 1e-24 of the quote currency, doubled.
        let marked = cash.multipliedReportingOverflow(by: Int128(midTwice) * Int128(tickNano))
        let owed = Int128(position) * Int128(lotE8) * Int128(contractMultiplier) * 20_000_000_000_000_000
        guard !marked.overflow else { return nil }
        let exact = marked.partialValue.subtractingReportingOverflow(owed)
        return exact.overflow ? nil : FixedPoint.divide(exact.partialValue, by: 20_000_000_000_000_000)
    }

    /// What the venue's lots are in 1e-8 base asset at a price in ticks, half to even: what rows carry. Nil when it does not fit.
    package func baseQuantity(lots: Int64, price: Int64) -> Int64? {
        guard let contractMultiplier else { return lots.multipliedReportingOverflow(by: lotE8).overflow ? nil : lots * lotE8 }
        let value = Int128(lots) * Int128(lotE8) * Int128(contractMultiplier) * 1_000_000_000
        return FixedPoint.divide(value, by: Int128(price) * Int128(tickNano))
    }

    /// One tick in 1e-9 quote currency.
    package var tickNano: Int64 { tickUnits * FixedPoint.powersOfTen[Places.price - priceDigits] }
    /// One lot in 1e-8 base asset, or in 1e-8 contracts of an inverse future.
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
