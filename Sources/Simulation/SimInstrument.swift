import CalibModel

/// An instrument of the simulated venue. Every market starts at 618,000 ticks with 2,500 lots at the touch (`SimMarket`), so a tick and a
/// lot of another size make another price and quantity: 61,800.0, 6,180.00, 618.000 and 61.8000.
package struct SimInstrument: Sendable, Equatable {
    package var symbol: String
    /// A tick is 10^-priceDigits of the quote currency, a lot 10^-quantityDigits of the base asset.
    package var priceDigits: Int
    package var quantityDigits: Int
    /// Decimals the venue writes; Bybit writes two for BTCUSDT although its tick is 0.1.
    package var writtenPriceDigits: Int

    package init(symbol: String, priceDigits: Int, quantityDigits: Int, writtenPriceDigits: Int? = nil) {
        self.symbol = symbol
        self.priceDigits = priceDigits
        self.quantityDigits = quantityDigits
        self.writtenPriceDigits = writtenPriceDigits ?? priceDigits
    }

    /// `config/instruments.yaml` says the same of venue `sim`.
    package static let all = [
        SimInstrument(symbol: "BTCUSDT", priceDigits: 1, quantityDigits: 3, writtenPriceDigits: 2),
        SimInstrument(symbol: "ETHUSDT", priceDigits: 2, quantityDigits: 2),
        SimInstrument(symbol: "SOLUSDT", priceDigits: 3, quantityDigits: 1),
        SimInstrument(symbol: "XRPUSDT", priceDigits: 4, quantityDigits: 0),
    ]

    /// `SIM1USDT` to `SIM64USDT`: alike, for whoever needs more markets than there are names. Nil for any other name.
    package init?(numbered symbol: String) {
        guard symbol.hasPrefix("SIM"), symbol.hasSuffix("USDT"), let number = Int(symbol.dropFirst(3).dropLast(4)),
            (1...64).contains(number), symbol == "SIM\(number)USDT"
        else { return nil }
        self.init(symbol: symbol, priceDigits: 2, quantityDigits: 2)
    }

    package var instrument: Instrument {
        Instrument(symbol: symbol, priceDigits: priceDigits, tickUnits: 1, quantityDigits: quantityDigits, lotUnits: 1)
    }
}
