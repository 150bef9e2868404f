import CalibModel
import Wire

/// What a venue says of its instruments (SPEC 3.1): Binance's `exchangeInfo`, Bybit's `instruments-info`.
package enum InstrumentList {
    /// The wanted symbols that are in the list and whole; others are left out. Throws when it is no JSON.
    package static func parse(_ body: UnsafeRawBufferPointer, of venue: QuoteNode.Venue, symbols: [String]) throws(JSONError)
        -> [Instrument]
    {
        let list = try JSONValue.parse(body)
        let entries = venue.binance == nil ? list["result"]?["list"]?.array : list["symbols"]?.array
        return (entries ?? []).compactMap { entry in
            guard let symbol = entry["symbol"]?.string, symbols.contains(symbol) else { return nil }
            return venue.binance.map { binance(entry, symbol, $0) } ?? bybit(entry, symbol, isSpot: venue == .bybitSpot)
        }
    }

    /// The path to ask for it.
    package static func path(of venue: QuoteNode.Venue, symbols: [String]) -> String {
        guard let market = venue.binance else {
            return "/v5/market/instruments-info?category=\(venue.category?.rawValue ?? "linear")&limit=1000"
        }
        // Only spot can be asked for some of its thousands of symbols.
        let wanted = "?symbols=%5B" + symbols.map { "%22\($0)%22" }.joined(separator: ",") + "%5D"
        return market.instrumentsPath + (market == .spot && symbols.count <= 100 ? wanted : "")
    }

    private static func binance(_ entry: JSONValue, _ symbol: String, _ market: BinanceWire.Market) -> Instrument? {
        func filter(_ types: String..., member: String...) -> String? {
            let filter = entry["filters"]?.array?.first { $0["filterType"]?.string.map(types.contains) ?? false }
            return member.lazy.compactMap { filter?[$0]?.string }.first
        }
        guard let tick = step(filter("PRICE_FILTER", member: "tickSize"), places: Places.price) else { return nil }
        // Spot books hold dust below the order step.
        let lot =
            market == .spot ? (digits: Places.quantity, units: 1) : step(filter("LOT_SIZE", member: "stepSize"), places: Places.quantity)
        guard let lot else { return nil }
        let contract = entry["contractSize"]?.integer
        guard market != .coinm || contract.map({ (1...Limits.contractMultiplierMax).contains($0) }) == true else { return nil }
        return Instrument(
            symbol: symbol, priceDigits: tick.digits, tickUnits: tick.units, quantityDigits: lot.digits, lotUnits: lot.units,
            contractMultiplier: market == .coinm ? contract : nil,
            minimumNotional: notional(filter("NOTIONAL", "MIN_NOTIONAL", member: "minNotional", "notional")))
    }

    private static func bybit(_ entry: JSONValue, _ symbol: String, isSpot: Bool) -> Instrument? {
        let sizes = entry["lotSizeFilter"]
        guard let tick = step(entry["priceFilter"]?["tickSize"]?.string, places: Places.price),
            let lot = step(sizes?[isSpot ? "basePrecision" : "qtyStep"]?.string, places: Places.quantity)
        else { return nil }
        return Instrument(
            symbol: symbol, priceDigits: tick.digits, tickUnits: tick.units, quantityDigits: lot.digits, lotUnits: lot.units,
            minimumNotional: notional(sizes?[isSpot ? "minOrderAmt" : "minNotionalValue"]?.string))
    }

    /// Decimal places and units of a step such as 0.10: (1, 1).
    private static func step(_ text: String?, places: Int) -> (digits: Int, units: Int64)? {
        guard let text, var units = Array(text.utf8).withUnsafeBytes({ DecimalText($0)?.exact(places: places) }), units > 0 else {
            return nil
        }
        var digits = places
        while digits > 0, units.isMultiple(of: 10) {
            units /= 10
            digits -= 1
        }
        return (digits, units)
    }

    private static func notional(_ text: String?) -> Int64 {
        guard let text else { return 0 }
        return max(0, Array(text.utf8).withUnsafeBytes { DecimalText($0)?.fixed(places: Places.notional) } ?? 0)
    }
}
