import CalibModel
import Testing

@testable import EdgeCore

/// Binance live: the stream brings no book, so the node asks for one and fits both together.
@Suite struct BinanceLiveTests {
    /// A live node over frames written by hand.
    private final class Harness {
        var node: QuoteNode
        private let memory = OutboxMemory()
        private var clock: Int64 = 1_735_689_600_000

        init(_ venue: QuoteNode.Venue = .binanceUSDM, symbols: [String] = ["BTCUSDT", "ETHUSDT"]) {
            node = QuoteNode(
                venue: venue,
                instruments: symbols.map { Instrument(symbol: $0, priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1) },
                parameters: Parameters(), isRecorded: false, connections: 1, runNumber: 1, firstFillID: 1,
                outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
            node.connected(0, at: now)
        }

        var now: Moment { Moment(instant: Instant(nanoseconds: clock * 1_000_000), wall: WallTime(nanoseconds: clock * 1_000_000)) }

        func send(_ frame: String, after milliseconds: Int64 = 1) {
            clock += milliseconds
            var text = frame
            text.withUTF8 { node.frame(UnsafeRawBufferPointer($0), on: 0, at: now) }
        }

        func depth(_ first: Int64, _ last: Int64, _ previous: Int64?, symbol: String = "BTCUSDT", after milliseconds: Int64 = 1) {
            let pu = previous.map { ",\"pu\":\($0)" } ?? ""
            send(
                #"{"e":"depthUpdate","E":\#(clock),"s":"\#(symbol)","U":\#(first),"u":\#(last)\#(pu),"b":[["99.0","1"]],"a":[]}"#,
                after: milliseconds)
        }

        func answer(_ symbol: SymbolIndex, id: Int64, name: String? = nil) {
            let member = name.map { #","symbol":"\#($0)""# } ?? ""
            var text = #"{"lastUpdateId":\#(id)\#(member),"bids":[["100.0","5"]],"asks":[["100.2","4"]]}"#
            let sentAt = now
            clock += 1
            text.withUTF8 { node.snapshotAnswered(symbol, UnsafeRawBufferPointer($0), sentAt: sentAt, at: now) }
        }

        /// Time passes without a frame. Without pings, which `FreshnessTests` are about.
        func advance(_ milliseconds: Int64) {
            clock += milliseconds
            node.advance(to: now)
        }

        func requests(after milliseconds: Int64 = 0) -> [VenueRequest] {
            clock += milliseconds
            node.advance(to: now)
            return node.takeRequests().filter { $0 != .ping }
        }

        func isProven(_ index: Int) -> Bool { node.withSymbol(index) { $0.isProven } }
        func gaps(_ index: Int) -> Int64 { node.withSymbol(index) { $0.counts.sequenceGaps } }
    }

    @Test func theBookIsAskedForOnceItsStreamHasBegun_andNotAgain() {
        let it = Harness()
        #expect(it.requests(after: 1_000) == [], "a book asked for before would be older than the first event")
        it.depth(7, 12, 6)
        let first = it.requests()
        it.depth(15, 18, 12)
        let second = it.requests()
        it.answer(0, id: 13)
        #expect(first == [.snapshot(0)] && second == [])
        #expect(it.isProven(0) && !it.isProven(1) && it.gaps(0) == 0)
        #expect(it.requests(after: 10_000) == [])
    }

    @Test func aBookOlderThanTheFirstEventIsNoGap_andAnotherIsAskedForAfterAWait() {
        let it = Harness()
        it.depth(20, 25, 19)
        _ = it.requests()
        it.answer(0, id: 10)
        #expect(!it.isProven(0) && it.gaps(0) == 0 && it.node.snapshots.tooOld == 1)
        #expect(it.requests(after: 199) == [])
        #expect(it.requests(after: 1) == [.snapshot(0)], "the longest first wait is 200 ms")
        it.answer(0, id: 22)
        #expect(it.isProven(0))
    }

    /// Ids are shared by all symbols: in a quiet market the next event begins far above the book, and its `pu` says that nothing lies between.
    @Test func onFuturesPuJoinsABookAndALaterEvent() {
        let it = Harness()
        it.depth(20, 25, 19)
        _ = it.requests()
        it.answer(0, id: 30)
        #expect(!it.isProven(0), "no event behind the book yet")
        it.depth(90, 95, 25)
        #expect(it.isProven(0) && it.gaps(0) == 0)
    }

    // MARK: Crossed books

    /// The chain holds and the book is no market's: a frame was mangled on its way.
    @Test func aCrossedBookIsNotQuotedAndAskedForAnew() {
        let it = Harness()
        it.depth(1, 5, 0)
        _ = it.requests()
        it.answer(0, id: 5)
        #expect(it.isProven(0))
        // A bid at 101 above the ask of 100.2.
        it.send(#"{"e":"depthUpdate","E":1735689600500,"s":"BTCUSDT","U":6,"u":7,"pu":5,"b":[["101.0","1"]],"a":[]}"#)
        #expect(!it.isProven(0) && it.gaps(0) == 0 && it.node.withSymbol(0) { $0.counts.crossed } == 1)
        #expect(it.node.cacheCounts(of: 0).invalidations[MDCache.Invalidation.crossed.rawValue] == 1)
        it.depth(8, 9, 7)
        #expect(it.requests(after: 200) == [.snapshot(0)], "the longest first wait is 200 ms")
        it.answer(0, id: 9)
        it.depth(10, 11, 9)
        #expect(it.isProven(0))
    }

    /// A venue whose books are crossed for a while: the questions become rare, and each book that does not stand is told.
    @Test func crossedBooksAreNoStorm_andTheBackOffEndsWhenOneStands() {
        let it = Harness(symbols: ["BTCUSDT"])
        var id: Int64 = 5
        var asked: [Int64] = []
        it.depth(1, 5, 0)
        let begun = it.now.instant
        // A minute of a diff each 100 ms, each of which crosses the book when there is one.
        for _ in 0..<600 {
            it.send(
                #"{"e":"depthUpdate","E":1735689600500,"s":"BTCUSDT","U":\#(id + 1),"u":\#(id + 2),"pu":\#(id),"b":[["101.0","1"]],"a":[]}"#,
                after: 100)
            id += 2
            if it.requests() == [.snapshot(0)] {
                asked.append(it.now.instant.since(begun) / 1_000_000)
                it.answer(0, id: id)
            }
        }
        // 0.2, 0.4, ... 5 s: five doublings, then one each five seconds; 24 a minute is all the weight there is.
        #expect((8...18).contains(asked.count), "\(asked)")
        #expect(asked.last! - asked[asked.count - 2] >= 4_900, "\(asked)")
        // One that stands for half a minute is trusted again. The price has gone back.
        it.send(
            #"{"e":"depthUpdate","E":1735689660500,"s":"BTCUSDT","U":\#(id + 1),"u":\#(id + 2),"pu":\#(id),"b":[["101.0","0"]],"a":[]}"#,
            after: 100)
        id += 2
        _ = it.requests(after: 5_000)
        it.answer(0, id: id)
        for _ in 0..<310 {
            it.send(
                #"{"e":"depthUpdate","E":1735689670500,"s":"BTCUSDT","U":\#(id + 1),"u":\#(id + 2),"pu":\#(id),"b":[],"a":[]}"#, after: 100)
            id += 2
        }
        _ = it.requests()
        #expect(it.isProven(0))
        it.send(
            #"{"e":"depthUpdate","E":1735689600500,"s":"BTCUSDT","U":\#(id + 1),"u":\#(id + 2),"pu":\#(id),"b":[["101.0","1"]],"a":[]}"#)
        it.depth(id + 3, id + 4, id + 2)
        #expect(!it.isProven(0) && it.requests(after: 200) == [.snapshot(0)])
    }

    /// A snapshot that is crossed itself is one that led nowhere.
    @Test func aCrossedSnapshotIsAskedForAgainAfterAWait() {
        let it = Harness()
        it.depth(1, 5, 0)
        _ = it.requests()
        let sentAt = it.now
        Array(#"{"lastUpdateId":5,"bids":[["100.5","5"]],"asks":[["100.2","4"]]}"#.utf8).withUnsafeBytes {
            it.node.snapshotAnswered(0, $0, sentAt: sentAt, at: it.now)
        }
        #expect(!it.isProven(0) && it.requests(after: 199) == [])
        it.depth(6, 7, 5)
        #expect(it.requests(after: 1) == [.snapshot(0)])
        it.answer(0, id: 7)
        it.depth(8, 9, 7)
        #expect(it.isProven(0))
    }

    @Test func aGapResyncsItsSymbolOnly() {
        let it = Harness()
        it.depth(1, 5, 0)
        it.depth(1, 5, 0, symbol: "ETHUSDT")
        #expect(it.requests() == [.snapshot(0), .snapshot(1)])
        it.answer(0, id: 5)
        it.answer(1, id: 5)
        it.depth(10, 11, 9)
        #expect(!it.isProven(0) && it.isProven(1) && it.gaps(0) == 1)
        #expect(it.requests() == [.snapshot(0)])
        it.depth(12, 13, 11)
        it.answer(0, id: 12)
        #expect(it.isProven(0) && it.isProven(1) && it.node.gaps.count == 1)
    }

    @Test func spotFitsByItsOwnRule() {
        let it = Harness(.binanceSpot)
        it.depth(12, 13, nil)
        #expect(it.requests() == [.snapshot(0)])
        it.answer(0, id: 10)
        #expect(!it.isProven(0), "11 is missing between")
        #expect(it.requests(after: 200) == [.snapshot(0)])
        it.answer(0, id: 11)
        #expect(it.isProven(0))
        it.depth(15, 16, nil)
        #expect(!it.isProven(0) && it.gaps(0) == 1)
    }

    @Test func refusalsWait_andAnUnreadableBookIsCountedAndAskedForAgain() {
        let it = Harness()
        it.depth(1, 5, 0)
        _ = it.requests()
        it.node.snapshotFailed(0, pauseNanoseconds: 7_000_000_000, at: it.now)
        #expect(it.requests(after: 6_999) == [])
        #expect(it.requests(after: 1) == [.snapshot(0)])
        it.answer(0, id: 5, name: "ETHUSDT")
        #expect(!it.isProven(0) && it.node.rejected(.unknownSymbol) == 1)
        #expect(it.requests(after: 400) == [.snapshot(0)])
        it.answer(0, id: 5, name: "BTCUSDT")
        #expect(it.isProven(0) && it.node.snapshots.failed == 2)
    }

    @Test func aNewConnectionBeginsEveryBookAnew() {
        let it = Harness()
        it.depth(1, 5, 0)
        _ = it.requests()
        it.answer(0, id: 5)
        it.depth(9, 9, 8)  // A gap, and the connection ends before its book comes.
        it.node.disconnected(0, at: it.now)
        #expect(it.requests(after: 10_000) == [])
        it.node.connected(0, at: it.now)
        it.depth(50, 55, 49)
        #expect(it.requests() == [.snapshot(0)])
        it.answer(0, id: 51)
        #expect(it.isProven(0))
        it.node.disconnected(0, at: it.now)
        #expect(!it.isProven(0))
    }

    /// Both shapes of the goodbye; told once per connection.
    @Test(arguments: [
        #"{"e":"serverShutdown","E":1}"#, #"{"event":{"e":"serverShutdown","E":1}}"#,
        #"{"stream":"x","data":{"e":"serverShutdown","E":1}}"#,
    ])
    func aGoodbyeIsAReasonToReconnect(_ goodbye: String) {
        let it = Harness()
        it.send(goodbye)
        it.send(goodbye)
        #expect(it.requests() == [.reconnect(connection: 0)] && it.requests() == [])
    }

    @Test func aRefusedRequestIsCounted_anAnswerIsNot() {
        let it = Harness()
        it.send(#"{"result":null,"id":1}"#)
        it.send(#"{"code":2,"msg":"Invalid request","id":2}"#)
        it.send(#"{"error":{"code":2,"msg":"Invalid request"},"id":2}"#)
        #expect(it.node.refusedRequests == 2 && it.node.otherMessages == 3)
    }

    /// A feed with trades and their aggregates says everything twice.
    @Test func oneKindOfTradesCounts() {
        let it = Harness()
        let trade = #"{"e":"trade","E":1,"s":"BTCUSDT","p":"100.0","q":"1","X":"MARKET","m":true}"#
        let aggregate = #"{"e":"aggTrade","E":1,"a":1,"s":"BTCUSDT","p":"100.0","q":"1","f":1,"l":1,"T":1,"m":true}"#
        it.send(trade)
        it.send(aggregate)
        it.send(trade)
        it.send(aggregate.replacing("BTCUSDT", with: "ETHUSDT"))
        let counts = (0...1).map { index in it.node.withSymbol(index) { $0.counts.trades } }
        #expect(counts == [2, 1] && it.node.otherMessages == 1)
    }

    /// A replay asks for nothing: its books are in line.
    @Test func aReplayAsksForNothing() {
        let memory = OutboxMemory()
        var node = QuoteNode(
            venue: .binanceUSDM, instruments: [Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1)],
            parameters: Parameters(), isRecorded: true, connections: 1, runNumber: 1, firstFillID: 1, outboxes: memory.makeOutboxes(),
            clock: StopClock { 0 })
        var text = #"{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[],"a":[]}"#
        let now = Moment(instant: Instant(nanoseconds: 1), wall: WallTime(nanoseconds: 1))
        text.withUTF8 { node.frame(UnsafeRawBufferPointer($0), on: 0, at: now) }
        let requests = node.takeRequests()
        #expect(requests == [])
    }
}
