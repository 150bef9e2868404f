import CalibModel
import Testing

@testable import EdgeCore

/// Frames in, books, quotes and records out: the sequence rules and what follows from them.
@Suite struct QuoteNodeTests {
    /// A node over frames written by hand; keeps every record.
    final class Harness {
        var node: QuoteNode
        private let memory: OutboxMemory
        private var clock: Int64 = 1_735_689_600_000

        init(
            _ venue: QuoteNode.Venue = .binanceUSDM, symbols: [String] = ["BTCUSDT"], _ change: (inout Parameters) -> Void = { _ in }
        ) {
            var parameters = Parameters()
            parameters.tickSampleRate = 1
            change(&parameters)
            memory = OutboxMemory()
            let instruments = symbols.map { Instrument(symbol: $0, priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1) }
            node = QuoteNode(
                venue: venue, instruments: instruments, parameters: parameters, isRecorded: true, connections: 1, runNumber: 1,
                firstFillID: 1,
                outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        }

        /// One frame, so many ms after the one before it.
        func send(_ frame: String, after milliseconds: Int64 = 1) {
            clock += milliseconds
            let now = Moment(instant: Instant(nanoseconds: clock * 1_000_000), wall: WallTime(nanoseconds: clock * 1_000_000))
            var text = frame
            text.withUTF8 { node.frame(UnsafeRawBufferPointer($0), on: 0, at: now) }
        }

        func depth(
            _ first: Int64, _ last: Int64, previous: Int64? = nil, bids: String = "", asks: String = "", after milliseconds: Int64 = 1
        ) {
            let pu = previous.map { ",\"pu\":\($0)" } ?? ""
            send(
                "{\"e\":\"depthUpdate\",\"E\":\(clock),\"s\":\"BTCUSDT\",\"U\":\(first),\"u\":\(last)\(pu),\"b\":[\(bids)],\"a\":[\(asks)]}",
                after: milliseconds)
        }

        func snapshot(_ id: Int64) {
            send(
                "{\"lastUpdateId\":\(id),\"bids\":[[\"100.0\",\"5.000\"],[\"99.0\",\"7\"]],\"asks\":[[\"100.2\",\"4\"],[\"101.0\",\"6\"]]}")
        }

        func ticker(_ id: Int64, _ bid: String, _ ask: String, after milliseconds: Int64 = 1) {
            send("{\"u\":\(id),\"s\":\"BTCUSDT\",\"b\":\"\(bid)\",\"B\":\"1\",\"a\":\"\(ask)\",\"A\":\"1\"}", after: milliseconds)
        }

        func trade(_ price: String, _ quantity: String, sells: Bool, market: String = "MARKET", after milliseconds: Int64 = 1) {
            send(
                "{\"e\":\"trade\",\"E\":\(clock),\"s\":\"BTCUSDT\",\"p\":\"\(price)\",\"q\":\"\(quantity)\",\"X\":\"\(market)\",\"m\":\(sells)}",
                after: milliseconds)
        }

        var counts: SymbolCounts { node.withSymbol(0) { $0.counts } }
        var top: TopOfBook? { node.withSymbol(0) { $0.book.top } }
        var isProven: Bool { node.withSymbol(0) { $0.isProven } }
        var resting: (buy: Int64?, sell: Int64?) { node.withSymbol(0) { ($0.bidSide.intended?.price, $0.askSide.intended?.price) } }
        var records: (fills: Int, events: Int) { (node.shared.outboxes.fills.committed, node.shared.outboxes.events.committed) }
    }

    @Test func futuresSyncDropsStaleDiffs_appliesUsableOnes_thenFollowsPu() {
        let it = Harness()
        it.depth(1, 5, previous: 0, bids: "[\"50.0\",\"1\"]")
        it.depth(7, 12, previous: 5, bids: "[\"99.5\",\"2\"]")  // U <= 10 <= u: the first usable one.
        it.depth(15, 18, previous: 12, asks: "[\"100.2\",\"0\"]")
        #expect(!it.isProven && it.counts.unsyncedMessages == 3 && it.counts.ticks == 0)
        it.snapshot(10)
        #expect(it.isProven && it.counts.sequenceGaps == 0)
        #expect(it.top?.askPrice == 1010 && it.node.withSymbol(0) { $0.book.bids.quantity(at: 995) } == 2_000)
        #expect(it.node.withSymbol(0) { $0.book.bids.quantity(at: 500) } == 0, "the stale diff is dropped")
        it.depth(30, 31, previous: 18, bids: "[\"100.0\",\"0\"]")
        #expect(it.isProven && it.top?.bidPrice == 995 && it.counts.ticks == 1, "on futures U says nothing; only pu does")
    }

    @Test func spotSyncFollowsU() {
        let it = Harness(.binanceSpot)
        it.depth(5, 10)
        it.depth(11, 13, asks: "[\"100.1\",\"1\"]")
        it.snapshot(10)
        #expect(it.isProven && it.top?.askPrice == 1001)
        it.depth(14, 14)
        #expect(it.isProven)
        it.depth(16, 17)
        #expect(!it.isProven && it.counts.sequenceGaps == 1)
        #expect(it.node.gaps.first?.expected == 15 && it.node.gaps.first?.received == 16)
    }

    /// One message lost: exactly that gap, both quotes pulled, nothing quoted until a new snapshot proves the book.
    @Test func aGapPullsQuotes_andNothingIsQuotedUntilTheResync() {
        let it = Harness()
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        it.depth(12, 13, previous: 11, after: 20)
        #expect(it.resting.buy != nil && it.resting.sell != nil)
        it.depth(16, 17, previous: 15, after: 20)
        let quotes = it.counts.quotes
        #expect(it.counts.sequenceGaps == 1 && it.resting.buy == nil && it.resting.sell == nil)
        #expect(it.node.gaps.map { [$0.expected, $0.received] } == [[13, 15]])
        for id in Int64(18)..<60 { it.depth(id, id, previous: id - 1, after: 10) }
        it.ticker(70, "100.0", "100.2")
        #expect(it.counts.quotes == quotes && it.counts.sequenceGaps == 1 && it.counts.unsyncedMessages == 43)
        it.snapshot(50)  // Everything after it is in the buffer.
        #expect(it.isProven && it.node.withSymbol(0) { $0.book.depthID } == 59)
        it.depth(60, 60, previous: 59)
        #expect(it.resting.buy != nil)
    }

    @Test func aSnapshotThatIsTooOldLeadsNowhere_theNextOneDoes() {
        let it = Harness()
        it.depth(20, 25, previous: 19)
        it.snapshot(10)
        #expect(!it.isProven && it.counts.sequenceGaps == 1)
        it.snapshot(22)
        #expect(it.isProven)
    }

    @Test func repetitionsChangeNothing() {
        let it = Harness()
        it.snapshot(10)
        let frame = { (quantity: Int) in
            "{\"e\":\"depthUpdate\",\"E\":5,\"s\":\"BTCUSDT\",\"U\":9,\"u\":11,\"pu\":8,\"b\":[[\"100.0\",\"\(quantity)\"]],\"a\":[]}"
        }
        it.send(frame(3))
        it.send(frame(9))
        it.snapshot(5)
        #expect(it.isProven && it.counts.sequenceGaps == 0 && it.top?.bidQuantity == 3_000)
    }

    /// One damaged id must not make everything behind it look like a repetition.
    @Test func aDamagedIDIsAGapOneEventLater() {
        let it = Harness()
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        it.depth(12, .max, previous: 11)
        it.depth(13, 14, previous: 12, after: 10)
        it.depth(15, 16, previous: 14, after: 10)
        #expect(!it.isProven && it.counts.sequenceGaps == 1)
    }

    /// The largest id there is has no successor: damage, not a trap.
    @Test func anIDThatCannotBeFollowedIsAGapOneEventLater() {
        let it = Harness(.binanceSpot)
        it.snapshot(10)
        it.depth(11, .max)
        it.depth(12, 13, after: 10)
        #expect(!it.isProven && it.counts.sequenceGaps == 1)
    }

    /// A pause longer than the grid is stepped through: quotes are pulled when the proof runs out, not when the pause ends.
    @Test func aLongSilencePullsQuotesInTime() {
        let it = Harness()
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        it.depth(12, 12, previous: 11, after: 20)
        #expect(it.resting.buy != nil)
        it.trade("99.0", "100", sells: true, after: 200_000)
        #expect(it.counts.fills == 0, "what would have filled was cancelled 169 s before")
        it.depth(13, 13, previous: 12, after: 10)
        #expect(it.isProven && it.resting.buy != nil)
    }

    /// Whatever is wrong with a frame, nothing but its counter changes; the sequence then shows what is missing.
    @Test(arguments: [
        ("{\"e\":\"depthUpdate\"", FrameRejection.notJSON), ("", .notJSON), ("{\"e\":\"\u{1}\"}", .notJSON), ("[]", .wrongType),
        ("{\"e\":\"depthUpdate\",\"s\":\"BTCUSDT\"}", .missingField),
        (
            "{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":12,\"pu\":11,\"b\":[[\"100.0\",\"1\"],[\"100.05\",\"1\"]],\"a\":[]}",
            .offTick
        ),
        ("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":12,\"pu\":11,\"b\":[[\"100.0\",\"0.0001\"]],\"a\":[]}", .offLot),
        ("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":12,\"pu\":11,\"b\":[[\"NaN\",\"1\"]],\"a\":[]}", .wrongType),
        ("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":NaN,\"pu\":11,\"b\":[],\"a\":[]}", .nonFinite),
        ("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":99999999999999999999,\"pu\":11,\"b\":[],\"a\":[]}", .overflow),
        ("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":12,\"pu\":11,\"b\":[[\"-1.0\",\"1\"]],\"a\":[]}", .outOfRange),
        ("{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":12,\"u\":12,\"pu\":11,\"b\":[[\"1e30\",\"1\"]],\"a\":[]}", .offTick),
        ("{\"e\":\"trade\",\"E\":1,\"s\":\"BTCUSDT\",\"p\":\"100.0\",\"q\":\"0\",\"m\":true}", .outOfRange),
        ("{\"e\":\"trade\",\"E\":1,\"s\":\"XRPUSDT\",\"p\":\"100.0\",\"q\":\"1\",\"m\":true}", .unknownSymbol),
        ("{\"z\":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}", .tooDeep),
    ]) func aBadFrameOnlyCounts(frame: String, reason: FrameRejection) {
        let it = Harness()
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        let before = (it.top, it.counts.ticks)
        it.send(frame)
        let counted = it.node.withSymbol(0) { $0.accumulator.pointee.counts.rejectedInputs }
        #expect(counted == (reason == .unknownSymbol ? 0 : 1), "a snapshot tells how many inputs of its symbol were rejected")
        #expect(it.node.rejected(reason) == 1, "\(FrameRejection.allCases.filter { reason in it.node.rejected(reason) > 0 })")
        #expect(it.top == before.0 && it.counts.ticks == before.1 && it.isProven)
    }

    @Test func otherFramesAreCountedAsOther() {
        let it = Harness()
        it.send("{\"result\":null,\"id\":1}")
        it.send("{\"stream\":\"btcusdt@kline_1m\",\"data\":{\"e\":\"kline\",\"E\":1,\"s\":\"BTCUSDT\",\"k\":{\"t\":1}}}")
        #expect(it.node.otherMessages == 2 && it.node.messages == 2)
    }

    @Test func aSnapshotMayComeBeforeItsSymbolIsKnown() {
        let it = Harness()
        it.snapshot(10)
        #expect(it.counts.snapshots == 0)
        it.depth(9, 11, previous: 8, bids: "[\"100.0\",\"1.5\"]")
        #expect(it.counts.snapshots == 1 && it.isProven && it.top?.bidQuantity == 1_500)
    }

    /// 629 and 1,072 of the recordings; here the order of arrival and the kinds of disagreement.
    @Test func theBookIsComparedWithTickersOfTheSameId_beforeAndAfter() {
        let it = Harness()
        it.snapshot(10)
        it.ticker(11, "100.0", "100.2")  // Quantities 1 and 1.
        it.depth(9, 11, previous: 8, bids: "[\"100.0\",\"1\"]", asks: "[\"100.2\",\"1\"]")
        it.depth(12, 13, previous: 11, bids: "[\"100.0\",\"2\"]")
        it.ticker(13, "100.0", "100.2")  // The book says 2.
        it.depth(14, 15, previous: 13, bids: "[\"100.0\",\"1\"]")
        it.ticker(15, "100.0", "100.2")
        it.ticker(14, "90.0", "91.0")  // Of no depth event.
        let audit = it.node.withSymbol(0) { ($0.audit.matches, $0.audit.mismatches) }
        #expect(audit.0 == 2 && audit.1 == 1)
    }

    @Test func tradesFillOnPaper_andFillsCarryWhatHappened() {
        let it = Harness { $0.nudgeMaximum = .zero }
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        it.depth(12, 12, previous: 11, after: 10)  // The orders rest now: mid 100.1, half spread 0.5 bps -> 100.0 and 100.2.
        #expect(it.resting.buy == 1000 && it.resting.sell == 1002)
        it.trade("100.0", "4.999", sells: true)
        #expect(it.records.fills == 0, "5 BTC were ahead of us")
        it.trade("100.0", "9", sells: true, market: "INSURANCE_FUND")
        #expect(it.records.fills == 0, "not a trade of the book")
        it.trade("100.0", "0.006", sells: true)
        #expect(it.records.fills == 1 && it.counts.fills == 1)
        #expect(it.node.withSymbol(0) { $0.positionLots } == 5)
        it.trade("99.9", "1", sells: true)
        #expect(it.node.withSymbol(0) { $0.positionLots } == 10 && it.counts.fills == 2)
    }

    @Test func theSameFramesGiveTheSameHash_anotherSpreadAnother() {
        func hash(_ change: (inout Parameters) -> Void = { _ in }) -> UInt64 {
            let it = Harness(.binanceUSDM, change)
            it.snapshot(10)
            it.depth(9, 11, previous: 8)
            for id in Int64(12)..<200 { it.depth(id, id, previous: id - 1, bids: "[\"\(90 + id % 10).0\",\"\(id % 7)\"]", after: 7) }
            return it.node.shared.quotesHash
        }
        #expect(hash() == hash())
        #expect(
            hash {
                $0.spread.base = BasisPoints(60)!
                $0.spread.maximum = BasisPoints(60)!
            } != hash())
    }

    /// Markouts at 1, 5 and 30 s after the fill, by the mid that held then; the rest is null when the run ends.
    @Test func markoutsComeAtTheirHorizons() {
        let it = Harness { $0.nudgeMaximum = .zero }
        it.snapshot(10)
        it.depth(9, 11, previous: 8)
        it.depth(12, 12, previous: 11, after: 10)
        it.trade("99.9", "1", sells: true)
        #expect(it.counts.fills == 1)
        it.depth(13, 13, previous: 12, bids: "[\"100.1\",\"1\"]", after: 999)
        it.depth(14, 14, previous: 13, bids: "[\"100.1\",\"0\"]", after: 1)
        it.depth(15, 15, previous: 14, after: 3_999)
        it.depth(16, 16, previous: 15, asks: "[\"100.2\",\"0\"]", after: 10)
        #expect(it.node.shared.outboxes.markouts.committed == 0)
        let done = it.node.finish()
        #expect(done && it.node.shared.outboxes.markouts.committed == 1)
        let sums = it.node.withSymbol(0) { ($0.positionLots, $0.feesPaid) }
        #expect(sums.0 == 10 && sums.1 == 20_000, "2 bps of 0.01 x 100.0, in 1e-8")
    }

    /// Several symbols on one connection: order books of USD-M and spot name none, and on futures the ids of all are of one counter, so any book
    /// would chain to any symbol's diffs.
    @Test func aBookWithoutASymbolIsOfTheOneWhosePricesItShows() {
        let it = Harness(symbols: ["BTCUSDT", "ETHUSDT"])
        func diff(_ symbol: String, _ id: Int64, previous: Int64, _ price: String) {
            it.send(
                "{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"\(symbol)\",\"U\":\(id),\"u\":\(id),\"pu\":\(previous),\"b\":[[\"\(price).0\",\"1\"]],\"a\":[[\"\(price).1\",\"1\"]]}"
            )
        }
        func book(_ id: Int64, _ price: Int64) {
            it.send(
                "{\"lastUpdateId\":\(id),\"bids\":[[\"\(price).0\",\"5\"],[\"\(price - 9).0\",\"5\"]],\"asks\":[[\"\(price).1\",\"5\"],[\"\(price + 9).1\",\"5\"]]}"
            )
        }
        func bid(_ index: Int) -> Int64? { it.node.withSymbol(index) { $0.isProven ? $0.book.top?.bidPrice : nil } }
        diff("BTCUSDT", 10, previous: 9, "60000")
        diff("ETHUSDT", 11, previous: 8, "3000")
        book(12, 3_000)
        book(13, 100)
        #expect(it.node.rejected(.unknownSymbol) == 1, "it shows nobody's prices")
        diff("BTCUSDT", 14, previous: 10, "60000")
        diff("ETHUSDT", 15, previous: 11, "3000")
        #expect(bid(0) == nil && bid(1) == 30_000)
        book(14, 60_000)
        diff("BTCUSDT", 16, previous: 14, "60000")
        #expect(bid(0) == 600_000 && bid(1) == 30_000)
        book(17, 3_000)
        #expect(it.node.rejected(.unknownSymbol) == 1, "nobody waits for one any more")
    }
}
