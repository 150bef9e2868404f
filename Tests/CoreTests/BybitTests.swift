import CalibModel
import Testing
import Wire

@testable import EdgeCore

/// Bybit's frames in, books, quotes and records out: each rule of the wire, of the sequence and of connections that come and go.
@Suite struct BybitTests {
    /// A node over frames written by hand, two symbols, two connections.
    final class Harness {
        var node: QuoteNode
        private let memory = OutboxMemory()
        private(set) var clock: Int64 = 1_735_689_600_000

        init(_ venue: QuoteNode.Venue = .bybit, isRecorded: Bool = true, _ change: (inout Parameters) -> Void = { _ in }) {
            var parameters = Parameters()
            parameters.tickSampleRate = 1
            parameters.cache.topicProofNanoseconds = 5_000_000_000
            change(&parameters)
            node = QuoteNode(
                venue: venue,
                instruments: [
                    Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1),
                    Instrument(symbol: "ETHUSDT", priceDigits: 2, tickUnits: 1, quantityDigits: 2, lotUnits: 1),
                ], parameters: parameters, isRecorded: isRecorded, connections: 2, runNumber: 1, firstFillID: 1,
                outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        }

        /// Time passes; the moment it is then.
        func moment(after milliseconds: Int64 = 1) -> Moment {
            clock += milliseconds
            return Moment(instant: Instant(nanoseconds: clock * 1_000_000), wall: WallTime(nanoseconds: clock * 1_000_000))
        }

        func send(_ frame: String, on connection: Int = 0, after milliseconds: Int64 = 1) {
            let now = moment(after: milliseconds)
            var text = frame
            text.withUTF8 { node.frame(UnsafeRawBufferPointer($0), on: connection, at: now) }
        }

        func book(
            _ type: String, _ update: Int64, bids: String = "", asks: String = "", depth: Int = 50, symbol: String = "BTCUSDT",
            eventMilliseconds: Int64? = nil, on connection: Int = 0, after milliseconds: Int64 = 1
        ) {
            send(
                """
                {"topic":"orderbook.\(depth).\(symbol)","type":"\(type)","ts":\(eventMilliseconds ?? clock),"data":{"s":"\(symbol)",\
                "b":[\(bids)],"a":[\(asks)],"u":\(update),"seq":7},"cts":1}
                """, on: connection, after: milliseconds)
        }

        func snapshot(_ update: Int64, symbol: String = "BTCUSDT", depth: Int = 50, on connection: Int = 0, after milliseconds: Int64 = 1) {
            book(
                "snapshot", update, bids: #"["100.0","5"],["99.0","7"]"#, asks: #"["100.2","4"],["101.0","6"]"#, depth: depth,
                symbol: symbol, on: connection, after: milliseconds)
        }

        /// A snapshot, and deltas until both quotes rest.
        func quote() {
            snapshot(10)
            book("delta", 11, after: 20)
            book("delta", 12, after: 20)
        }

        func trades(_ trades: [String], on connection: Int = 0) {
            send(
                #"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":\#(clock),"data":[\#(trades.joined(separator: ","))]}"#,
                on: connection)
        }

        static func trade(_ price: String, _ quantity: String, _ side: String = "Sell", _ more: String = "") -> String {
            #"{"T":1,"s":"BTCUSDT","S":"\#(side)","v":"\#(quantity)","p":"\#(price)","i":"x"\#(more)}"#
        }

        func counts(_ symbol: Int = 0) -> SymbolCounts { node.withSymbol(symbol) { $0.counts } }
        func top(_ symbol: Int = 0) -> TopOfBook? { node.withSymbol(symbol) { $0.book.top } }
        func isProven(_ symbol: Int = 0) -> Bool { node.withSymbol(symbol) { $0.isProven } }
        var intended: (buy: EmitStage.Target?, sell: EmitStage.Target?) {
            node.withSymbol(0) { ($0.bidSide.intended, $0.askSide.intended) }
        }
        var isQuoting: Bool { intended.buy != nil && intended.sell != nil }
        /// Kinds of the events so far, in order.
        func events() -> [EventKind] {
            let count = node.shared.outboxes.events.committed
            return (0..<count).map { memory.event($0).kind }
        }

        func event(_ index: Int) -> EventRecord { memory.event(index) }
    }

    // MARK: Sequence

    @Test func aSnapshotProvesAtOnce_andDeltasChain() {
        let it = Harness()
        it.snapshot(10)
        #expect(it.isProven() && it.counts().snapshots == 1 && it.counts().ticks == 1 && it.top()?.askPrice == 1002)
        it.book("delta", 11, bids: #"["100.1","2"],["99.0","0"]"#, asks: #"["100.2","0"]"#)
        #expect(it.top() == TopOfBook(bidPrice: 1001, bidQuantity: 2_000, askPrice: 1010, askQuantity: 6_000))
        #expect(it.node.withSymbol(0) { $0.book.bids.count } == 2 && it.counts().ticks == 2 && it.counts().depthMessages == 1)
        #expect(it.events() == [.started, .resync])
    }

    enum After { case next, old, gap, replaced }

    /// What may follow a proven book at u = 10 whose event time is 5 s: type, u, event time.
    @Test(
        arguments: [
            ("delta", 11, 6_000, After.next), ("delta", 11, 4_000, .next), ("delta", 12, 6_000, .gap), ("delta", 10, 5_000, .old),
            ("delta", 9, 4_000, .old), ("delta", 9, 6_000, .gap), ("delta", .max, 6_000, .gap), ("snapshot", 10, 5_000, .replaced),
            ("snapshot", 11, 6_000, .replaced), ("snapshot", 5, 6_000, .replaced), ("snapshot", 900, 6_000, .replaced),
            ("snapshot", 1, 6_000, .replaced), ("delta", 1, 6_000, .replaced),
        ] as [(String, Int64, Int64, After)])
    func whatFollowsAProvenBook(type: String, update: Int64, time: Int64, expected: After) {
        let it = Harness()
        it.book("snapshot", 10, bids: #"["100.0","5"]"#, asks: #"["100.2","4"]"#, eventMilliseconds: 5_000)
        it.book(type, update, bids: #"["99.9","8"]"#, asks: #"["100.3","8"]"#, eventMilliseconds: time)
        let (bids, id) = it.node.withSymbol(0) { ($0.book.bids.count, $0.book.depthID) }
        switch expected {
        case .next: #expect(bids == 2 && id == 11 && it.isProven())
        case .old: #expect(bids == 1 && id == 10 && it.isProven() && it.counts().unsyncedMessages == 0)
        case .gap: #expect(bids == 1 && !it.isProven() && it.counts().sequenceGaps == 1)
        case .replaced: #expect(bids == 1 && id == update && it.top()?.bidPrice == 999 && it.isProven())
        }
        if expected != .gap { #expect(it.counts().sequenceGaps == 0 && it.node.gaps.isEmpty) }
        let wanted = it.node.takeRequests()
        #expect(wanted == (expected == .gap ? [.resubscribe(0)] : []))
        if expected == .gap { #expect(it.node.gaps.map { [$0.expected, $0.received] } == [[11, update]]) }
    }

    /// One delta lost: that gap, both quotes pulled, a new subscription asked for once, no tick until the next snapshot.
    @Test func aGapPullsQuotes_andNothingIsQuotedUntilTheNextSnapshot() {
        let it = Harness()
        it.quote()
        it.snapshot(5, symbol: "ETHUSDT")
        #expect(it.isQuoting)
        it.book("delta", 14, after: 10)
        let ticks = it.counts().ticks
        #expect(!it.isProven() && it.intended.buy == nil && it.intended.sell == nil && it.isProven(1), "another symbol stands")
        for update in Int64(15)..<30 { it.book("delta", update, after: 10) }
        #expect(it.counts().ticks == ticks && it.counts().sequenceGaps == 1 && it.counts().unsyncedMessages == 16)
        let wanted = it.node.takeRequests()
        let again = it.node.takeRequests()
        #expect(wanted == [.resubscribe(0)] && again == [] && it.counts().resubscriptions == 1)
        it.snapshot(30)
        it.book("delta", 31, after: 20)
        #expect(it.isProven() && it.isQuoting && it.counts().ticks == ticks + 2)
        #expect(it.events() == [.started, .resync, .resync, .gap, .resync])
    }

    /// The request was lost, or its snapshot was not usable: while deltas keep coming it is made again.
    @Test func aResubscriptionIsAskedForAgainAfterFiveSeconds() {
        let it = Harness()
        it.snapshot(10)
        it.book("delta", 14)
        _ = it.node.takeRequests()
        it.book("delta", 15, after: 4_999)
        let early = it.node.takeRequests()
        it.book("snapshot", 16, bids: #"["100.05","1"]"#)  // Off the tick: rejected.
        it.book("delta", 17, after: 1)
        let late = it.node.takeRequests()
        #expect(early == [] && late == [.resubscribe(0)] && it.node.rejected(.offTick) == 1)
    }

    @Test func aDeltaBeforeAnySnapshotIsUnsynced() {
        let it = Harness()
        it.book("delta", 5, bids: #"["100.0","1"]"#, asks: #"["100.2","4"]"#)
        let wanted = it.node.takeRequests()
        #expect(
            !it.isProven() && it.counts().unsyncedMessages == 1 && it.counts().sequenceGaps == 0 && it.counts().ticks == 0
                && wanted == [.resubscribe(0)])
    }

    @Test func aRequestIsMootOnceTheBookStandsAgain() {
        let it = Harness()
        it.snapshot(10)
        it.book("delta", 14)
        it.snapshot(20)
        let wanted = it.node.takeRequests()
        #expect(wanted == [])
    }

    /// A book belongs to the first topic seen; the others, and depth 1, say nothing about it.
    @Test func otherDepthsAreOther() {
        let it = Harness()
        it.snapshot(3, depth: 1)
        #expect(it.node.otherMessages == 1 && it.counts().snapshots == 0)
        it.snapshot(10, depth: 200)
        it.book("delta", 99, depth: 50)
        it.book("delta", 11, depth: 200)
        #expect(it.node.otherMessages == 2 && it.isProven() && it.node.withSymbol(0) { $0.book.depthID } == 11)
    }

    // MARK: Frames

    /// The key order differs between categories, so none may matter: every order of the five keys gives the same book.
    @Test func fieldsComeInAnyOrder() {
        let fields = [
            #""topic":"orderbook.200.BTCUSDT""#, #""type":"snapshot""#, #""ts":5"#,
            #""data":{"u":4,"a":[["100.2","4"]],"seq":1,"s":"BTCUSDT","b":[["100.0","5"]],"new":{"x":[1]}}"#, #""cts":4"#,
        ]
        var orders = 0
        func permute(_ chosen: [Int]) {
            guard chosen.count < fields.count else {
                let it = Harness()
                it.send("{" + chosen.map { fields[$0] }.joined(separator: ",") + "}")
                #expect(it.isProven() && it.top()?.bidPrice == 1000, "\(chosen)")
                orders += 1
                return
            }
            for next in fields.indices where !chosen.contains(next) { permute(chosen + [next]) }
        }
        permute([])
        #expect(orders == 120)
    }

    /// Whatever is wrong with a frame, nothing but its counter changes.
    @Test(
        arguments: [
            (#"{"topic":"orderbook.50.BTCUSDT""#, FrameRejection.notJSON, 0), ("", .notJSON, 0), ("[]", .wrongType, 0),
            (#"{"topic":7}"#, .wrongType, 0), (#"{"topic":"orderbook.50.BTCUSDT"}"#, .missingField, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":[]}"#, .wrongType, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"patch","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[],"u":11}}"#, .missingField, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[],"u":11}}"#, .missingField, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[]}}"#, .missingField, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[],"u":0}}"#, .outOfRange, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[],"u":1e1}}"#, .wrongType, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[],"u":NaN}}"#, .nonFinite, 0),
            (
                #"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[],"u":99999999999999999999}}"#,
                .overflow, 0
            ),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"ETHUSDT","b":[],"a":[],"u":11}}"#, .unknownSymbol, 0),
            (#"{"topic":"orderbook.50.XRPUSDT","type":"delta","ts":1,"data":{"s":"XRPUSDT","b":[],"a":[],"u":11}}"#, .unknownSymbol, 0),
            (#"{"topic":"orderbook.50.BTCUSDT","topic":"tickers.X","ts":1,"data":{}}"#, .wrongType, 0),
            (
                #"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[["99.0","1"],["99.05","1"]],"a":[],"u":11}}"#,
                .offTick, 1
            ),
            (
                #"{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1,"data":{"s":"BTCUSDT","b":[],"a":[["101","0.0001"]],"u":11}}"#,
                .offLot, 1
            ),
            (
                #"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[["-1","1"]],"a":[],"u":11}}"#,
                .outOfRange, 1
            ),
            (
                #"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[["NaN","1"]],"a":[],"u":11}}"#,
                .wrongType, 0
            ),
            (#"{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1,"data":{"s":"BTCUSDT","b":[["1"]],"a":[],"u":11}}"#, .wrongType, 0),
            (#"{"topic":"publicTrade.BTCUSDT","ts":1}"#, .missingField, 0),
            (#"{"topic":"publicTrade.BTCUSDT","data":[]}"#, .missingField, 0),
            (#"{"topic":"publicTrade.BTCUSDT","ts":1,"data":[{"s":"BTCUSDT","S":"Both","v":"1","p":"1"}]}"#, .missingField, 0),
            (#"{"topic":"publicTrade.BTCUSDT","ts":1,"data":[{"s":"ETHUSDT","S":"Buy","v":"1","p":"1"}]}"#, .unknownSymbol, 0),
            (#"{"topic":"publicTrade.BTCUSDT","ts":1,"data":[{"s":"BTCUSDT","S":"Buy","v":"0","p":"1"}]}"#, .outOfRange, 1),
            (#"{"data":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}"#, .tooDeep, 0),
        ] as [(String, FrameRejection, Int64)])
    func aBadFrameOnlyCounts(frame: String, reason: FrameRejection, noted: Int64) {
        let it = Harness()
        it.snapshot(10)
        let before = (it.top(), it.counts().ticks)
        it.send(frame)
        #expect(it.node.rejected(reason) == 1, "\(FrameRejection.allCases.filter { reason in it.node.rejected(reason) > 0 })")
        #expect(it.top() == before.0 && it.counts().ticks == before.1 && it.counts().trades == 0 && it.isProven())
        #expect(it.node.withSymbol(0) { $0.book.bids.quantity(at: 990) } == 7_000, "not even the level before the bad one")
        #expect(it.node.withSymbol(0) { $0.accumulator.pointee.counts.rejectedInputs } == noted)
    }

    /// Acks, tickers and klines are other frames; a refusal is told apart, whatever was refused.
    @Test func acksAreOther_refusalsAreTold() {
        let it = Harness()
        for frame in [
            #"{"success":true,"ret_msg":"","conn_id":"d8","req_id":"","op":"subscribe"}"#,
            #"{"success":true,"ret_msg":"subscribe","conn_id":"d8","op":"subscribe"}"#,
            #"{"success":true,"ret_msg":"pong","conn_id":"d8","req_id":"","op":"ping"}"#,
            #"{"req_id":"1","op":"pong","args":["1672916271846"],"conn_id":"d8"}"#,
            #"{"topic":"tickers.BTCUSDT","type":"delta","data":{"symbol":"BTCUSDT","bid1Price":"1"},"cs":1,"ts":1}"#,
            #"{"type":"snapshot","topic":"kline.1.BTCUSDT","data":[{"start":1,"confirm":false}],"ts":1}"#,
            #"{"data":[{"s":"BTCUSDT","S":"Buy","v":"1","p":"1"}],"ts":1,"topic":"allLiquidation.BTCUSDT"}"#,
            #"{"topic":"orderbook.x.BTCUSDT","data":{}}"#, #"{"topic":"orderbook.50","data":{}}"#, "{}",
        ] { it.send(frame) }
        #expect(
            it.node.otherMessages == 10 && it.node.refusedRequests == 0 && FrameRejection.allCases.allSatisfy { it.node.rejected($0) == 0 })
        it.send(#"{"success":false,"ret_msg":"Invalid topic: orderbook.50.NOPE","conn_id":"d8","op":"subscribe"}"#)
        #expect(it.node.otherMessages == 11 && it.node.refusedRequests == 1 && it.counts().trades == 0)
    }

    @Test func requestsReadAsTheVenueWantsThem() {
        func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
        #expect(
            text(BybitWire.subscribe(symbols: ["BTCUSDT", "ETHUSDT"]))
                == #"{"op":"subscribe","args":["orderbook.50.BTCUSDT","publicTrade.BTCUSDT","orderbook.50.ETHUSDT","publicTrade.ETHUSDT"]}"#
        )
        #expect(
            text(BybitWire.unsubscribe(symbols: ["A\"B"], depth: 200))
                == #"{"op":"unsubscribe","args":["orderbook.200.A\"B","publicTrade.A\"B"]}"#)
        #expect(
            BybitWire.resubscriptions(symbol: "BTCUSDT").map(text)
                == [#"{"op":"unsubscribe","args":["orderbook.50.BTCUSDT"]}"#, #"{"op":"subscribe","args":["orderbook.50.BTCUSDT"]}"#])
        #expect(text(BybitWire.ping()) == #"{"op":"ping"}"#)
        let symbols = (0..<12).map { "S\($0)" }
        let requests = BybitWire.subscriptions(symbols: symbols).map(text)
        #expect(requests.count == 3 && requests[2] == text(BybitWire.subscribe(symbols: ["S10", "S11"])))
        #expect(BybitWire.subscriptions(symbols: []).isEmpty)
    }

    // MARK: Trades

    /// Three trades in one frame: they work through the queue one by one, and what they fill of our order is one fill.
    @Test func theTradesOfAFrameFillAnOrderOnce() {
        let it = Harness()
        it.quote()
        #expect(it.intended.buy == EmitStage.Target(price: 1000, lots: 10), "behind the 5 that the snapshot shows")
        it.trades([
            Harness.trade("100.0", "4.9"), Harness.trade("100.0", "0.104"), Harness.trade("100.0", "0.005"),
            Harness.trade("101.0", "3", "Buy"),
        ])
        #expect(it.counts().trades == 4 && it.counts().fills == 2, "one of each side")
        #expect(it.intended.buy?.lots == 1 && it.intended.sell == nil && it.node.withSymbol(0) { $0.positionLots } == 9 - 10)
        it.trades([Harness.trade("100.0", "0.001")])
        #expect(it.counts().fills == 3 && it.intended.buy == nil)
    }

    /// Block trades and retail-price-improvement trades are counted, but meet no order of the book.
    @Test(arguments: ["BT", "RPI"]) func tradesOutsideTheBookFillNothing(flag: String) {
        let it = Harness()
        it.quote()
        it.trades([Harness.trade("90.0", "5", "Sell", #","\#(flag)":true"#)])
        #expect(it.counts().trades == 1 && it.counts().fills == 0)
        it.trades([Harness.trade("90.0", "5", "Sell", #","\#(flag)":false"#)])
        #expect(it.counts().fills == 1)
    }

    @Test func aBadTradeInTheMiddleRejectsTheWholeFrame() {
        let it = Harness()
        it.quote()
        it.trades([Harness.trade("90.0", "5"), Harness.trade("90.05", "5"), Harness.trade("90.0", "5")])
        #expect(it.counts().trades == 0 && it.counts().fills == 0 && it.node.rejected(.offTick) == 1)
    }

    @Test func aFrameHoldsAtMost1024Trades() {
        let it = Harness()
        it.trades(.init(repeating: Harness.trade("90.0", "5"), count: 1_024))
        #expect(it.counts().trades == 1_024)
        it.trades(.init(repeating: Harness.trade("90.0", "5"), count: 1_025))
        #expect(it.counts().trades == 1_024 && it.node.rejected(.tooManyLevels) == 1)
    }

    // MARK: Connections

    @Test func aLostConnectionUnprovesItsOwnBooksOnly() {
        let it = Harness()
        it.quote()
        it.snapshot(5, symbol: "ETHUSDT", on: 1)
        it.node.disconnected(0, at: it.moment())
        #expect(!it.isProven() && it.isProven(1) && !it.isQuoting)
        #expect(it.counts().sequenceGaps == 0)
        let last = it.event(it.events().count - 1)
        #expect(last.kind == .disconnected && last.symbol == nil && last.first == 0 && last.second == 1)
        let wanted = it.node.takeRequests()
        #expect(wanted == [], "the next connection subscribes to everything anyway")
        it.node.connected(1, at: it.moment())
        #expect(!it.isProven(1), "a second beginning is the end of the first")
        it.snapshot(100, on: 1)
        it.book("delta", 101, on: 1, after: 20)
        #expect(it.isProven() && it.isQuoting)
        #expect(it.events() == [.started, .resync, .resync, .disconnected, .disconnected, .resync])
    }

    /// A new connection may stand before the old one is known to be dead.
    @Test func aSnapshotElsewhereTakesTheBookOver() {
        let it = Harness()
        it.snapshot(10, on: 0)
        it.snapshot(20, on: 1)
        it.book("delta", 11, on: 0)
        it.book("delta", 21, on: 1)
        #expect(it.isProven() && it.counts().sequenceGaps == 0 && it.node.otherMessages == 1)
        it.node.disconnected(0, at: it.moment())
        #expect(it.isProven(), "the old connection carries it no more")
        it.node.disconnected(1, at: it.moment())
        #expect(!it.isProven())
    }

    @Test func anUnknownConnectionMayEndToo() {
        let it = Harness()
        it.node.disconnected(1, at: it.moment())
        #expect(it.events() == [.started, .disconnected] && it.event(1).second == 0)
    }

    /// Live: a pong each 250 ms keeps a silent book quoted while its topic spoke within 5 s, and no longer.
    @Test func pongsExtendTheProofOfASilentTopic() {
        let it = Harness(isRecorded: false)
        it.node.connected(0, at: it.moment())
        it.quote()
        #expect(it.isQuoting)
        func answer() {
            _ = it.node.takeRequests()
            it.node.pong(on: 0, at: it.moment(after: 250))
        }
        for _ in 0..<19 { answer() }
        #expect(it.isQuoting, "4.75 s of pongs")
        for _ in 0..<6 { answer() }
        #expect(!it.isQuoting && it.isProven(), "the chain is whole; its age is not")
        it.book("delta", 13)
        it.book("delta", 14, after: 20)
        #expect(it.isQuoting)
    }

    @Test func withoutPongsASilentTopicIsPulledAfterOneSecond() {
        let it = Harness(isRecorded: false)
        it.quote()
        it.node.pong(on: 1, at: it.moment(after: 900))
        #expect(it.isQuoting)
        it.node.pong(on: 1, at: it.moment(after: 200))
        #expect(!it.isQuoting, "another connection's pong proves nothing here")
    }

    @Test func theTextPongProvesToo() {
        let it = Harness(isRecorded: false)
        it.node.connected(0, at: it.moment())
        it.quote()
        for _ in 0..<8 {
            it.node.advance(to: it.moment(after: 200))
            _ = it.node.takeRequests()
            it.send(#"{"success":true,"ret_msg":"pong","conn_id":"d8","op":"ping"}"#, after: 50)
        }
        #expect(it.isQuoting)
    }

    // MARK: Instruments

    @Test func tickAndLotAreInferredFromTheFinestStep() {
        var scan = InstrumentScan(venue: .bybitSpot, connections: 1)
        for frame in [
            #"{"topic":"tickers.XRPUSDT","data":{}}"#, "damage",
            #"{"topic":"orderbook.200.DOGEUSDT","ts":1,"type":"snapshot","data":{"s":"DOGEUSDT","b":[["0.07050","15"]],"a":[["0.07051","16.5"]],"u":1}}"#,
            #"{"topic":"publicTrade.DOGEUSDT","ts":1,"data":[{"s":"DOGEUSDT","S":"Buy","v":"1.25","p":"0.070511"}]}"#,
        ] {
            var text = frame
            text.withUTF8 { scan.frame(UnsafeRawBufferPointer($0), on: 0) }
        }
        let found = scan.instruments()
        #expect(
            found == [Instrument(symbol: "DOGEUSDT", priceDigits: 6, tickUnits: 1, quantityDigits: 2, lotUnits: 1, isInferred: true)])
    }
}
