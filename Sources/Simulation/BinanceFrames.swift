import CalibModel

/// The markets of Binance, which differ in their frames.
package enum BinanceMarket: String, Sendable, CaseIterable {
    case spot = "binance-spot"
    case usdm = "binance-usdm"
    /// Inverse futures: quantities are contracts.
    case coinm = "binance-coinm"

    /// What is simulated there. Every market starts at 618,000 ticks with 2,500 lots at the touch (`SimMarket`).
    package var instruments: [SimInstrument] {
        switch self {
        case .spot:
            [
                SimInstrument(symbol: "BTCUSDT", priceDigits: 1, quantityDigits: 3),
                SimInstrument(symbol: "ETHUSDT", priceDigits: 2, quantityDigits: 2),
            ]
        case .usdm: SimInstrument.all
        case .coinm:
            [
                SimInstrument(symbol: "BTCUSD_PERP", priceDigits: 1, quantityDigits: 0),
                SimInstrument(symbol: "ETHUSD_PERP", priceDigits: 2, quantityDigits: 0),
            ]
        }
    }

    /// What a contract is worth in the quote currency; nil where a quantity is of the base asset.
    package func contractSize(of symbol: String) -> Int64? { self == .coinm ? symbol.hasPrefix("BTC") ? 100 : 10 : nil }
}

/// Writes one symbol's frames byte for byte in Binance's form.
struct BinanceFrames: Sendable {
    let market: BinanceMarket
    let instrument: SimInstrument
    private let symbol: [UInt8]
    /// `BTCUSD` of BTCUSD_PERP.
    private let pair: [UInt8]

    init(_ market: BinanceMarket, _ instrument: SimInstrument) {
        self.market = market
        self.instrument = instrument
        symbol = Array(instrument.symbol.utf8)
        pair = Array(instrument.symbol.prefix { $0 != "_" }.utf8)
    }

    func trade(_ trade: MarketEvent.Trade, into frame: inout [UInt8]) {
        frame.append(text: "{\"e\":\"trade\",\"E\":")
        frame.append(integer: trade.milliseconds)
        if market != .spot { engine(trade.milliseconds, &frame) }
        name(&frame)
        frame.append(text: ",\"t\":")
        frame.append(integer: trade.number)
        frame.append(text: ",\"p\":")
        price(trade.price, &frame)
        frame.append(text: ",\"q\":")
        quantity(trade.quantity, &frame)
        if market == .spot { engine(trade.milliseconds, &frame) }
        if market != .spot { frame.append(text: ",\"X\":\"MARKET\"") }
        // `m`: the buyer was the maker, so the aggressor sold.
        frame.append(text: trade.aggressor == .sell ? ",\"m\":true" : ",\"m\":false")
        frame.append(text: market == .spot ? ",\"M\":true}" : "}")
    }

    /// One trade as an aggregate of itself.
    func aggregate(_ trade: MarketEvent.Trade, into frame: inout [UInt8]) {
        frame.append(text: "{\"e\":\"aggTrade\",\"E\":")
        frame.append(integer: trade.milliseconds)
        frame.append(text: ",\"a\":")
        frame.append(integer: trade.number)
        frame.append(text: ",\"s\":\"")
        frame.append(contentsOf: symbol)
        frame.append(text: "\",\"p\":")
        price(trade.price, &frame)
        frame.append(text: ",\"q\":")
        quantity(trade.quantity, &frame)
        frame.append(text: ",\"f\":")
        frame.append(integer: trade.number)
        frame.append(text: ",\"l\":")
        frame.append(integer: trade.number)
        engine(trade.milliseconds, &frame)
        frame.append(text: trade.aggressor == .sell ? ",\"m\":true}" : ",\"m\":false}")
    }

    func top(_ top: TopOfBook, id: Int64, milliseconds: Int64, into frame: inout [UInt8]) {
        frame.append(text: market == .spot ? "{\"u\":" : "{\"e\":\"bookTicker\",\"u\":")
        frame.append(integer: id)
        name(&frame)
        frame.append(text: ",\"b\":")
        price(top.bidPrice, &frame)
        frame.append(text: ",\"B\":")
        quantity(top.bidQuantity, &frame)
        frame.append(text: ",\"a\":")
        price(top.askPrice, &frame)
        frame.append(text: ",\"A\":")
        quantity(top.askQuantity, &frame)
        if market != .spot {
            engine(milliseconds, &frame)
            frame.append(text: ",\"E\":")
            frame.append(integer: milliseconds)
        }
        frame.append(text: "}")
    }

    func depth(_ diff: MarketEvent.DepthDiff, into frame: inout [UInt8]) {
        frame.append(text: "{\"e\":\"depthUpdate\",\"E\":")
        frame.append(integer: diff.milliseconds)
        if market != .spot { engine(diff.engineMilliseconds, &frame) }
        name(&frame)
        frame.append(text: ",\"U\":")
        // Spot ids have no holes; futures' have, for ids are shared with other symbols.
        frame.append(integer: market == .spot ? diff.previousLastID + 1 : diff.firstID)
        frame.append(text: ",\"u\":")
        frame.append(integer: diff.lastID)
        if market != .spot {
            frame.append(text: ",\"pu\":")
            frame.append(integer: diff.previousLastID)
        }
        frame.append(text: ",\"b\":")
        levels(diff.bids, &frame)
        frame.append(text: ",\"a\":")
        levels(diff.asks, &frame)
        frame.append(text: "}")
    }

    /// The answer of the REST order book, as of this instant or of the last diff.
    func snapshot(_ book: SimMarket, levels count: Int, asOfLastDiff: Bool, into frame: inout [UInt8]) {
        frame.append(text: "{\"lastUpdateId\":")
        frame.append(integer: asOfLastDiff ? book.publishedID : book.lastID)
        if market != .spot {
            frame.append(text: ",\"E\":")
            frame.append(integer: book.milliseconds)
            engine(book.engineMilliseconds, &frame)
        }
        if market == .coinm {
            frame.append(text: ",\"symbol\":\"")
            frame.append(contentsOf: symbol)
            frame.append(text: "\",\"pair\":\"")
            frame.append(contentsOf: pair)
            frame.append(text: "\"")
        }
        frame.append(text: ",\"bids\":")
        levels(asOfLastDiff ? book.publishedLevels(.buy, count: count) : book.levels(.buy, count: count), &frame)
        frame.append(text: ",\"asks\":")
        levels(asOfLastDiff ? book.publishedLevels(.sell, count: count) : book.levels(.sell, count: count), &frame)
        frame.append(text: "}")
    }

    // MARK: Leaves

    private func name(_ frame: inout [UInt8]) {
        frame.append(text: ",\"s\":\"")
        frame.append(contentsOf: symbol)
        frame.append(text: "\"")
        guard market == .coinm else { return }
        frame.append(text: ",\"ps\":\"")
        frame.append(contentsOf: pair)
        frame.append(text: "\"")
    }

    private func engine(_ milliseconds: Int64, _ frame: inout [UInt8]) {
        frame.append(text: ",\"T\":")
        frame.append(integer: milliseconds)
    }

    private func levels(_ levels: [MarketEvent.Level], _ frame: inout [UInt8]) {
        frame.append(0x5b)
        for (index, level) in levels.enumerated() {
            if index > 0 { frame.append(0x2c) }
            frame.append(0x5b)
            price(level.price, &frame)
            frame.append(0x2c)
            quantity(level.quantity, &frame)
            frame.append(0x5d)
        }
        frame.append(0x5d)
    }

    /// Spot writes eight decimals, USD-M two for a tick of 0.1.
    private func price(_ ticks: Int64, _ frame: inout [UInt8]) {
        let places = market == .spot ? 8 : market == .usdm ? instrument.writtenPriceDigits : instrument.priceDigits
        frame.append(decimal: ticks * FixedPoint.powersOfTen[places - instrument.priceDigits], places: places)
    }

    private func quantity(_ lots: Int64, _ frame: inout [UInt8]) {
        let places = market == .spot ? 8 : instrument.quantityDigits
        frame.append(decimal: lots * FixedPoint.powersOfTen[places - instrument.quantityDigits], places: places)
    }
}
