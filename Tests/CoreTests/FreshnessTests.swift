import CalibModel
import Testing

@testable import EdgeCore

/// What keeps a live node's books proven between frames, and what un-proves them (SPEC 3.2-3.5).
@Suite struct FreshnessTests {
    typealias Harness = BybitTests.Harness

    /// Both symbols quoted on one live connection, that has answered its first ping within 10 ms.
    private func quoting(_ change: (inout Parameters) -> Void = { _ in }) -> Harness {
        let it = Harness(isRecorded: false, change)
        it.node.connected(0, at: it.moment())
        it.snapshot(5, symbol: "ETHUSDT")
        it.quote()
        let asked = it.node.takeRequests()
        it.node.pong(on: 0, at: it.moment(after: 10))
        precondition(it.isQuoting && asked == [.ping], "the harness does not quote")
        return it
    }

    private func advance(_ it: Harness, _ milliseconds: Int64) -> [VenueRequest] {
        it.node.advance(to: it.moment(after: milliseconds))
        return it.node.takeRequests()
    }

    /// A delta that took 300 ms longer than the ones before.
    private func lateDelta(_ it: Harness, _ update: Int64) {
        it.book("delta", update, bids: #"["100.1","2"]"#, eventMilliseconds: it.clock - 300, after: 300)
    }

    // MARK: Waiting

    @Test func aTickOnAnOldBookWaitsForThePong_othersGoOn() {
        let it = quoting()
        let ticks = it.counts().ticks
        lateDelta(it, 13)
        #expect(it.counts().ticks == ticks && it.node.hasRequests)
        let asked = it.node.takeRequests()
        it.book("delta", 6, symbol: "ETHUSDT")
        #expect(asked == [.ping] && it.counts(1).ticks == 2 && it.counts().ticks == ticks)
        it.node.pong(on: 0, at: it.moment(after: 9))
        #expect(it.counts().ticks == ticks + 1 && it.node.cacheCounts(of: 0).requests[MDCache.Outcome.miss.rawValue] == 1)
        #expect(it.node.cacheCounts(of: 0).refreshesDone == 1 && it.isQuoting && it.intended.buy?.price == 1001)
    }

    /// Faults 31 and 41: a tick that ran out of time is counted and timed like any other; it places nothing, and its refresh goes on.
    @Test func aTickThatWaitedFiftyMillisecondsPlacesNothing_fault31_fault41() {
        let it = quoting()
        let ticks = it.counts().ticks
        let resting = it.intended
        lateDelta(it, 13)
        _ = it.node.takeRequests()
        _ = advance(it, 49)
        #expect(it.counts().ticks == ticks)
        _ = advance(it, 1)
        let counts = it.node.cacheCounts(of: 0)
        #expect(it.counts().ticks == ticks + 1 && counts.waitsTimedOut == 1 && counts.requests[MDCache.Outcome.refused.rawValue] == 1)
        #expect(it.intended.buy == resting.buy && it.intended.sell == resting.sell, "what rests stays until the watchdog")
        it.node.pong(on: 0, at: it.moment(after: 15))
        #expect(it.node.cacheCounts(of: 0).refreshesDone == 1 && it.node.cacheCounts(of: 0).refreshesVoided == 0)
        it.book("delta", 14)
        #expect(it.counts().ticks == ticks + 2 && it.node.cacheCounts(of: 0).refreshesBegun == 1)
    }

    /// Triggers that come while a tick waits are one tick with it.
    @Test func triggersWhileATickWaitsAreMerged() {
        let it = quoting()
        let ticks = it.counts().ticks
        lateDelta(it, 13)
        it.book("delta", 14, eventMilliseconds: it.clock - 290)
        it.book("delta", 15, eventMilliseconds: it.clock - 280)
        #expect(it.counts().ticks == ticks)
        it.book("delta", 16)
        #expect(it.counts().ticks == ticks + 1 && it.node.cacheCounts(of: 0).refreshesDone == 1, "a frame on time is a proof too")
    }

    /// The wait ends where the book does.
    @Test(arguments: [false, true]) func aGapOrADisconnectEndsTheWait(disconnects: Bool) {
        let it = quoting()
        let ticks = it.counts().ticks
        lateDelta(it, 13)
        if disconnects { it.node.disconnected(0, at: it.moment()) } else { it.book("delta", 15) }
        #expect(it.counts().ticks == ticks + 1 && !it.isProven() && it.intended.buy == nil && it.intended.sell == nil)
        _ = advance(it, 100)
        #expect(it.counts().ticks == ticks + 1 && it.node.cacheCounts(of: 0).refreshesVoided == 1)
    }

    // MARK: Pings

    /// Four a second, after 100 ms of silence; one each 15 s while frames come.
    @Test(arguments: [(QuoteNode.Venue.bybit, 40), (.binanceUSDM, 20)] as [(QuoteNode.Venue, Int)])
    func silenceIsPinged(venue: QuoteNode.Venue, expected: Int) {
        let it = Harness(venue, isRecorded: false)
        it.node.connected(0, at: it.moment())
        var pings: [Int64] = []
        for _ in 0..<1_000 {
            if advance(it, 10).contains(.ping) {
                pings.append(it.clock)
                it.node.pong(on: 0, at: it.moment(after: 0))
            }
        }
        #expect((expected - 2...expected + 1).contains(pings.count))
        #expect(zip(pings.dropFirst(), pings).allSatisfy { $0 - $1 >= 10_000 / Int64(expected) })
        var beats = 0
        for _ in 0..<4_500 {
            it.send("{}", after: 10)
            if it.node.takeRequests().contains(.ping) {
                beats += 1
                it.node.pong(on: 0, at: it.moment(after: 0))
            }
        }
        #expect((3...4).contains(beats), "45 s with frames")
    }

    /// SPEC 3.3: 300 ms beyond the round trip, counted from the oldest ping without an answer. What proves the book again is asked for afterwards.
    @Test func aConnectionThatDoesNotAnswerProvesNothing() {
        let it = quoting()
        var pingedAt: Int64?
        while pingedAt == nil { if advance(it, 10).contains(.ping) { pingedAt = it.clock } }
        while it.clock < pingedAt! + 310 {
            _ = advance(it, 10)
            #expect(it.isQuoting && it.node.pulse(of: 0).gaps == 0, "\(it.clock - pingedAt!) ms: the round trip is 10 ms")
        }
        _ = advance(it, 10)
        #expect(!it.isQuoting && it.node.pulse(of: 0).gaps == 1 && it.isProven(), "the chain is whole; its age is not known")
        let reason = MDCache.Invalidation.webSocketGap.rawValue
        #expect(it.node.cacheCounts(of: 0).invalidations[reason] == 1 && it.node.cacheCounts(of: 1).invalidations[reason] == 1)
        it.node.pong(on: 0, at: it.moment())
        it.book("delta", 13)
        it.book("delta", 14, after: 20)
        #expect(it.isQuoting)
    }

    @Test func aConnectionIsGivenUpAfterTwoAndAHalfSecondsWithoutAnAnswer() {
        let it = quoting()
        var since: Int64?
        for _ in 0..<260 {
            if advance(it, 10).contains(.ping), since == nil { since = it.clock }
            guard let since else { continue }
            let isDead = it.node.isDead(0, at: Instant(nanoseconds: it.clock * 1_000_000))
            #expect(isDead == (it.clock - since > 2_500))
        }
    }

    /// Frames about one symbol prove the books of the whole connection, while their topics spoke within 5 s.
    @Test func framesOfOneSymbolProveTheOthers() {
        let it = quoting()
        for update in Int64(6)..<105 { it.book("delta", update, symbol: "ETHUSDT", after: 50) }
        #expect(it.isQuoting, "4.95 s")
        for update in Int64(105)..<130 { it.book("delta", update, symbol: "ETHUSDT", after: 50) }
        #expect(!it.isQuoting && it.isProven(), "6.2 s")
    }

    // MARK: Contradictions

    @Test func aTradeThroughTheTouchWantsABookWithinASecond() {
        let it = quoting()
        it.trades([Harness.trade("100.3", "1", "Buy")])
        for update in Int64(6)..<15 {
            it.book("delta", update, symbol: "ETHUSDT", after: 0)
            _ = advance(it, 100)
        }
        #expect(it.isProven())
        _ = advance(it, 90)
        let asked = advance(it, 20)
        #expect(!it.isProven() && it.isProven(1) && asked.contains(.resubscribe(0)) && it.counts().sequenceGaps == 0)
        #expect(it.node.cacheCounts(of: 0).invalidations[MDCache.Invalidation.contradiction.rawValue] == 1)
        #expect(it.events().contains(.gap))
    }

    @Test(arguments: [("100.2", "Buy", false), ("100.3", "Buy", true), ("100.0", "Sell", false), ("99.9", "Sell", true)])
    func aTradeAtTheTouchIsNoContradiction_norIsOneTheBookFollows(price: String, side: String, isThrough: Bool) {
        for follows in [false, true] {
            let it = quoting()
            it.trades([Harness.trade(price, "1", side)])
            if follows { it.book("delta", 13, after: 900) }
            for _ in 0..<15 {
                it.node.pong(on: 0, at: it.moment(after: 0))
                _ = advance(it, 100)
            }
            #expect(it.isProven() == (follows || !isThrough))
        }
    }

    @Test func aCrossedBookIsNeverQuoted_andIsAskedForAnew() {
        let it = quoting()
        it.book("delta", 13, bids: #"["100.2","1"]"#)
        let asked = it.node.takeRequests()
        #expect(!it.isProven() && !it.isQuoting && asked == [.resubscribe(0)] && it.counts().crossed == 1 && it.events().last == .gap)
        // So is the snapshot that is to heal it: another is asked for, at once; from then on with pauses.
        let ticks = it.counts().ticks
        var requests: [Int64] = []
        for _ in 0..<600 {
            it.book("snapshot", 40, bids: #"["100.4","1"]"#, asks: #"["100.2","1"]"#, after: 10)
            if it.node.takeRequests().contains(.resubscribe(0)) { requests.append(it.clock) }
        }
        #expect(it.counts().ticks == ticks && !it.isProven() && it.events().last == .gap)
        let waits = zip(requests.dropFirst(), requests).map { $0 - $1 }
        #expect(requests.count >= 4 && requests.count < 12 && waits == waits.sorted(), "\(waits)")
        it.snapshot(50)
        #expect(it.isProven() && it.counts().ticks == ticks + 1 && it.events().last == .resync)
    }

    /// A snapshot sent twice would take the book back to what it was.
    @Test func aRepeatedSnapshotChangesNothing() {
        let it = quoting()
        let time = it.clock
        it.book("snapshot", 20, bids: #"["100.0","5"]"#, asks: #"["100.2","4"]"#, eventMilliseconds: time)
        it.book("delta", 21, bids: #"["100.1","1"]"#, eventMilliseconds: time + 5)
        it.book("snapshot", 20, bids: #"["100.0","5"]"#, asks: #"["100.2","4"]"#, eventMilliseconds: time)
        #expect(it.top()?.bidPrice == 1001 && it.isProven())
        it.book("delta", 22, eventMilliseconds: time + 10)
        #expect(it.isProven() && it.counts().sequenceGaps == 0)
    }

    // MARK: REST

    private func answer(_ it: Harness, sequence: Int64, bid: String = #"["100.0","5"]"#, rest: String = #",["99.0","7"]"#, sentAt: Int64) {
        var body = """
            {"retCode":0,"retMsg":"OK","result":{"s":"BTCUSDT","b":[\(bid)\(rest)],"a":[["100.2","4"],["101.0","6"]],"ts":1,"u":9,\
            "seq":\(sequence),"cts":1},"time":1}
            """
        let sent = Moment(instant: Instant(nanoseconds: sentAt * 1_000_000), wall: WallTime(nanoseconds: sentAt * 1_000_000))
        body.withUTF8 { it.node.snapshotAnswered(0, UnsafeRawBufferPointer($0), sentAt: sent, at: it.moment(after: 20)) }
    }

    /// The topic has been silent for longer than a ping can prove it: until the request for the first snapshot.
    private func silent() -> (Harness, askedAt: Int64) {
        let it = quoting {
            $0.trigger = .interval(nanoseconds: 50_000_000)
            // Nothing is served stale: what is asked for is waited for.
            $0.cache.freshForPricingNanoseconds = $0.cache.ttlNanoseconds
        }
        for _ in 0..<2_000 {
            let requests = advance(it, 10)
            if requests.contains(.ping) { it.node.pong(on: 0, at: it.moment(after: 0)) }
            if requests.contains(.snapshot(0)) { return (it, it.clock) }
        }
        Issue.record("no snapshot was asked for")
        return (it, it.clock)
    }

    /// SPEC 3.4: it serves one guarded tick, and is no base for deltas.
    @Test func aSnapshotThatAgreesServesOneTick() {
        let (it, askedAt) = silent()
        let ticks = it.counts().ticks
        answer(it, sequence: 8, sentAt: askedAt)
        let counts = it.node.cacheCounts(of: 0)
        #expect(it.counts().ticks == ticks + 1 && counts.requests[MDCache.Outcome.miss.rawValue] >= 1 && it.isQuoting)
        for _ in 0..<5 { _ = advance(it, 10) }
        #expect(it.node.cacheCounts(of: 0).refreshesBegun == counts.refreshesBegun + 1, "the next tick needs another")
        it.book("delta", 13)
        #expect(it.isProven() && it.counts().sequenceGaps == 0)
    }

    /// Fault 39: a shallow answer replaced the deep book.
    @Test func aSnapshotNeverReplacesTheBook_fault39() {
        let (it, askedAt) = silent()
        let levels = it.node.withSymbol(0) { ($0.book.bids.count, $0.book.asks.count, $0.book.depthID) }
        answer(it, sequence: 8, bid: #"["100.1","5"]"#, rest: "", sentAt: askedAt)
        #expect(it.node.withSymbol(0) { ($0.book.bids.count, $0.book.asks.count, $0.book.depthID) } == levels)
        for _ in 0..<120 { _ = advance(it, 10) }
        #expect(!it.isProven(), "it says something else, and no book frame came for a second")
    }

    /// Fault 34: an answer older than the book says nothing.
    @Test func anOlderSnapshotProvesNothing_fault34() {
        let (it, askedAt) = silent()
        let ticks = it.counts().ticks
        answer(it, sequence: 6, sentAt: askedAt)
        #expect(it.counts().ticks == ticks && it.node.cacheCounts(of: 0).refreshesFailed == 1)
    }

    /// Fault 43: one gap cleared every symbol, and a move of 40 bps was no jump.
    @Test func aGapOrAJumpConcernsItsOwnSymbol_fault43() {
        for (bid, ask, isJump) in [("100.3", "100.7", false), ("100.6", "101.0", true)] {
            let it = quoting()
            let ticks = it.counts(1).ticks
            it.book("delta", 13, bids: #"["\#(bid)","1"]"#, asks: #"["100.2","0"],["\#(ask)","5"]"#)
            let counts = it.node.cacheCounts(of: 0)
            #expect(counts.invalidations[MDCache.Invalidation.priceJump.rawValue] == (isJump ? 1 : 0), "\(bid)")
            #expect(it.node.cacheCounts(of: 1).invalidations[MDCache.Invalidation.priceJump.rawValue] == 0)
            it.book("delta", 15)
            it.book("delta", 6, symbol: "ETHUSDT")
            #expect(!it.isProven() && it.isProven(1) && it.counts(1).ticks == ticks + 1)
        }
    }
}
