import CalibModel
import TestSupport
import Testing

@testable import EdgeCore

/// Sizes, notional, profit and fees of a COIN-M contract, against worked examples.
@Suite struct InverseInstrumentTests {
    /// A contract is worth 100 USD, a tick is 0.1.
    private let perpetual = Instrument(
        symbol: "BTCUSD_PERP", priceDigits: 1, tickUnits: 1, quantityDigits: 0, lotUnits: 1, contractMultiplier: 100,
        minimumNotional: 500 * 100_000_000)

    @Test func sizesInBaseAssetBecomeContractsAtThePrice() {
        // 0.01 BTC x 61,800 / 100 = 6.18.
        #expect(perpetual.lots(ofSize: 1_000_000, midTwice: 1_236_000) == 6)
        // 1 BTC at 100,000: 1,000.
        #expect(perpetual.lots(ofSize: 100_000_000, midTwice: 2_000_000) == 1_000)
        #expect(perpetual.lots(ofSize: .max, midTwice: .max) == Limits.decimalMax / perpetual.lotE8)
        // Six contracts are 600 / 61,800 BTC.
        #expect(perpetual.baseQuantity(lots: 6, price: 618_000) == 970_874)
        #expect(perpetual.notional(price: 618_000, lots: 6) == 600 * 100_000_000)
        #expect(perpetual.notional(price: 1, lots: 6) == 600 * 100_000_000, "whatever the price")
    }

    /// Binance's formula: contracts x multiplier x (1/entry - 1/exit), in BTC; here in USD at the mid.
    private struct Example {
        var trades: [(lots: Int64, price: Int64)]
        var mid: Int64
        var profit: Double
    }

    private static let examples = [
        // Long 10 from 50,000 to 60,000: 0.00333333 BTC.
        Example(trades: [(10, 500_000)], mid: 600_000, profit: 200.0),
        // Short 10 from 50,000 to 40,000: 0.005 BTC.
        Example(trades: [(-10, 500_000)], mid: 400_000, profit: 200.0),
        // Long 10 from 50,000 to 40,000: -0.005 BTC, more than the short would have lost upwards.
        Example(trades: [(10, 500_000)], mid: 400_000, profit: -200.0),
        // Closed at 60,000: the 0.00333333 BTC are worth more as the price goes on.
        Example(trades: [(10, 500_000), (-10, 600_000)], mid: 800_000, profit: 266.66666666),
        // Half closed: 5 x 100 x (1/50,000 - 1/60,000) x 40,000 - 5 x 100 x (1/40,000 - 1/50,000) x 40,000.
        Example(trades: [(10, 500_000), (-5, 600_000)], mid: 400_000, profit: -33.33333333),
    ]

    @Test(arguments: examples.indices)
    func profitIsBinances(_ number: Int) throws {
        let example = Self.examples[number]
        var position: Int64 = 0
        var cash: Int128 = 0
        for trade in example.trades {
            position += trade.lots
            cash += perpetual.cash(buying: trade.lots, price: trade.price)
        }
        let profit = try #require(perpetual.profit(position: position, cash: cash, midTwice: 2 * example.mid))
        #expect(abs(Double(profit) / 1e8 - example.profit) < 2e-8, "\(profit)")
    }

    /// A linear instrument's numbers are what they were.
    @Test func linearStaysLinear() {
        let linear = Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1)
        #expect(linear.lots(ofSize: 1_000_000, midTwice: 0) == 10)
        #expect(linear.notional(price: 618_000, lots: 10) == 618 * 100_000_000)
        #expect(linear.cash(buying: 10, price: 618_000) == -6_180_000 && linear.cash(buying: -10, price: 618_000) == 6_180_000)
        let profit = linear.profit(position: 10, cash: -6_180_000, midTwice: 1_238_000)
        #expect(profit == 100_000_000)
        #expect(linear.baseQuantity(lots: 10, price: 1) == 1_000_000)
    }

    /// Random trades against the formula in floating point.
    @Test func profitAgreesWithTheFormulaOverRandomTrades() throws {
        var random = SeededRandom(seed: 5)
        for _ in 0..<2_000 {
            var (position, cash, base) = (Int64(0), Int128(0), 0.0)
            for _ in 0..<8 {
                let lots = Int64(random.next(below: 2_000)) - 1_000
                let price = Int64(300_000 + random.next(below: 700_000))
                position += lots
                cash += perpetual.cash(buying: lots, price: price)
                base += Double(lots) * 100 / (Double(price) / 10)
            }
            let mid = Int64(300_000 + random.next(below: 700_000))
            let expected = base * Double(mid) / 10 - Double(position) * 100
            let profit = try #require(perpetual.profit(position: position, cash: cash, midTwice: 2 * mid))
            #expect(abs(Double(profit) / 1e8 - expected) < 1e-6 * max(1, abs(expected)))
        }
    }

    // MARK: In a node

    private func node(_ instrument: Instrument, _ memory: OutboxMemory) -> QuoteNode {
        QuoteNode(
            venue: .binanceCOINM, instruments: [instrument], parameters: Parameters(), isRecorded: true, connections: 1, runNumber: 1,
            firstFillID: 1, outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
    }

    private static func send(_ frame: String, to node: inout QuoteNode, at milliseconds: Int64) {
        let now = Moment(
            instant: Instant(nanoseconds: milliseconds * 1_000_000), wall: WallTime(nanoseconds: milliseconds * 1_000_000))
        var text = frame
        text.withUTF8 { node.frame(UnsafeRawBufferPointer($0), on: 0, at: now) }
    }

    private static let snapshot =
        #"{"lastUpdateId":10,"E":1,"T":1,"symbol":"BTCUSD_PERP","pair":"BTCUSD","bids":[["61800.0","900"]],"asks":[["61800.1","700"]]}"#
    private static func depth(_ first: Int64, _ last: Int64, _ previous: Int64, bids: String = "") -> String {
        #"{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSD_PERP","ps":"BTCUSD","U":\#(first),"u":\#(last),"pu":\#(previous),"b":[\#(bids)],"a":[]}"#
    }

    @Test func coinMQuotesInContracts_andAFillIsValuedInDollars() throws {
        let memory = OutboxMemory()
        var node = node(perpetual, memory)
        let start: Int64 = 1_735_689_600_000
        Self.send(Self.snapshot, to: &node, at: start)
        Self.send(Self.depth(8, 11, 7), to: &node, at: start + 1)
        Self.send(Self.depth(12, 13, 11, bids: #"["61799.0","3"]"#), to: &node, at: start + 20)
        let intended = node.withSymbol(0) { ($0.bidSide.intended, $0.askSide.intended) }
        let bid = try #require(intended.0)
        #expect(bid.lots == 6 && intended.1?.lots == 6, "0.01 BTC are 6 contracts")
        // A seller takes everything at our price and below.
        Self.send(
            #"{"e":"aggTrade","E":1,"a":1,"s":"BTCUSD_PERP","p":"61700.0","q":"50","f":1,"l":1,"T":1,"m":true}"#, to: &node, at: start + 40)
        let (position, fees, profit) = node.withSymbol(0) { ($0.positionLots, $0.feesPaid, $0.profit()) }
        #expect(position == 6)
        // 2 bps of 600 USD.
        #expect(fees == 12_000_000)
        let mid = 61_800.05
        let expected = 600 * (mid / (Double(bid.price) / 10) - 1) - 0.12
        #expect(abs(Double(try #require(profit)) / 1e8 - expected) < 1e-6)
    }

    @Test func anOrderBelowTheVenuesLeastNotionalIsNotPlaced() {
        // Six contracts are 600 USD; the venue's least is 500.
        for (minimum, isQuoted) in [(Int64(500), true), (600, true), (601, false)] {
            var instrument = perpetual
            instrument.minimumNotional = minimum * 100_000_000
            let memory = OutboxMemory()
            var node = node(instrument, memory)
            Self.send(Self.snapshot, to: &node, at: 1_735_689_600_000)
            Self.send(Self.depth(8, 11, 7), to: &node, at: 1_735_689_600_001)
            let intended = node.withSymbol(0) { $0.bidSide.intended }
            #expect((intended != nil) == isQuoted, "\(minimum)")
        }
        // The same of a linear instrument: 0.01 x 100.1 = 1.001.
        let limits = EmitStage.HardLimits(
            orderLots: 1_000, positionLots: 1_000, notional: .max, collar: BasisPoints(micro: 100_000_000), minimumNotional: 10_010)
        func bid(_ price: Int64) -> EmitStage.Target? {
            EmitStage.run(
                .init(
                    top: TopOfBook(bidPrice: price, bidQuantity: 1, askPrice: price + 1, askQuantity: 1), spread: .zero, skew: .zero,
                    bidNudge: .zero, askNudge: .zero, lots: 10, positionLots: 0, pullsBuy: false, pullsSell: false), limits
            ).bid
        }
        #expect(bid(1_001) != nil && bid(1_000) == nil)
    }
}
