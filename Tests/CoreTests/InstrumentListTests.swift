import CalibModel
import EdgeCore
import Testing

/// What venues say of their instruments, in their own words.
@Suite struct InstrumentListTests {
    private func parse(_ text: String, _ venue: QuoteNode.Venue, _ symbols: String...) throws -> [Instrument] {
        try Array(text.utf8).withUnsafeBytes { try InstrumentList.parse($0, of: venue, symbols: symbols) }
    }

    @Test func binanceSpotKeepsTheDustOfItsBooks() throws {
        let found = try parse(
            #"""
            {"symbols":[{"symbol":"BTCUSDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01000000"},
            {"filterType":"LOT_SIZE","stepSize":"0.00001000"},{"filterType":"NOTIONAL","minNotional":"5.00000000"}]},{"symbol":"XX"}]}
            """#, .binanceSpot, "BTCUSDT", "XX", "YY")
        #expect(
            found == [
                Instrument(
                    symbol: "BTCUSDT", priceDigits: 2, tickUnits: 1, quantityDigits: 8, lotUnits: 1, minimumNotional: 500_000_000)
            ])
    }

    @Test func binanceFuturesHaveStepsAndContracts() throws {
        let usdm = try parse(
            #"{"symbols":[{"symbol":"ETHUSDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.05"},{"filterType":"LOT_SIZE","stepSize":"0.001"},{"filterType":"MIN_NOTIONAL","notional":"20"}]}]}"#,
            .binanceUSDM, "ETHUSDT")
        #expect(
            usdm == [
                Instrument(
                    symbol: "ETHUSDT", priceDigits: 2, tickUnits: 5, quantityDigits: 3, lotUnits: 1, minimumNotional: 2_000_000_000)
            ])
        let entry =
            #"{"symbols":[{"symbol":"BTCUSD_PERP",CONTRACT"filters":[{"filterType":"PRICE_FILTER","tickSize":"0.1"},{"filterType":"LOT_SIZE","stepSize":"1"}]}]}"#
        let coinm = try parse(entry.replacing("CONTRACT", with: #""contractSize":100,"#), .binanceCOINM, "BTCUSD_PERP")
        #expect(
            coinm == [
                Instrument(symbol: "BTCUSD_PERP", priceDigits: 1, tickUnits: 1, quantityDigits: 0, lotUnits: 1, contractMultiplier: 100)
            ])
        let unsized = try parse(entry.replacing("CONTRACT", with: ""), .binanceCOINM, "BTCUSD_PERP")
        #expect(unsized == [], "a contract without a size cannot be valued")
    }

    @Test func bybitNamesItsStepsByCategory() throws {
        let entry = #"{"result":{"list":[{"symbol":"BTCUSDT","priceFilter":{"tickSize":"0.10"},"lotSizeFilter":{SIZES}}]}}"#
        let linear = try parse(
            entry.replacing("SIZES", with: #""qtyStep":"0.001","minNotionalValue":"5""#), .bybit, "BTCUSDT")
        let spot = try parse(
            entry.replacing("SIZES", with: #""basePrecision":"0.000001","minOrderAmt":"1""#), .bybitSpot, "BTCUSDT")
        #expect(linear.map(\.lotE8) == [100_000] && linear.map(\.tickNano) == [100_000_000] && linear[0].minimumNotional == 500_000_000)
        #expect(spot.map(\.lotE8) == [100] && spot[0].minimumNotional == 100_000_000)
    }

    @Test func aListThatIsNoneIsAnError_andADamagedEntryIsLeftOut() throws {
        #expect(throws: (any Error).self) { try parse("<html>", .binanceUSDM, "BTCUSDT") }
        for text in [
            "{}", "[]", #"{"symbols":[{"symbol":"BTCUSDT"}]}"#,
            #"{"symbols":[{"symbol":"BTCUSDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0"}]}]}"#,
        ] {
            let found = try parse(text, .binanceUSDM, "BTCUSDT")
            #expect(found == [])
        }
    }

    @Test func theVenueIsAskedForAsLittleAsItAllows() {
        #expect(
            InstrumentList.path(of: .binanceSpot, symbols: ["BTCUSDT", "ETHUSDT"])
                == "/api/v3/exchangeInfo?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D")
        #expect(InstrumentList.path(of: .binanceCOINM, symbols: ["BTCUSD_PERP"]) == "/dapi/v1/exchangeInfo")
        #expect(InstrumentList.path(of: .bybitSpot, symbols: ["BTCUSDT"]) == "/v5/market/instruments-info?category=spot&limit=1000")
    }
}
