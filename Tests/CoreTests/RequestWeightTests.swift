import CalibModel
import EdgeCore
import Testing

/// What an edge may ask a venue for over REST, and when.
@Suite struct RequestWeightTests {
    private func at(_ seconds: Double) -> Instant { Instant(nanoseconds: 1_000_000_000 + Int64(seconds * 1e9)) }

    @Test func aFifthOfTheVenuesWeightAMinute_refilledEvenly() {
        var weight = RequestWeight(perMinute: 6_000)
        let share = weight.share
        #expect(share == 1_200)
        var taken = 0
        while weight.take(50, at: at(0)) { taken += 1 }
        #expect(taken == 24, "a rested bucket holds a minute's share")
        let tooEarly = weight.take(50, at: at(2.499))
        let inTime = weight.take(50, at: at(2.5))
        #expect(!tooEarly && inTime, "50 of 1,200 a minute are 2.5 s")
        // Ten minutes of asking all the time: what was there, and ten shares.
        var total: Int64 = 0
        for tenth in 26...6_025 { while weight.take(50, at: at(Double(tenth) / 10)) { total += 50 } }
        #expect((11_950...12_000).contains(total), "\(total)")
    }

    @Test func aVenueThatWantsQuietGetsIt_andAShorterWishDoesNotShortenIt() {
        var weight = RequestWeight(perMinute: 2_400)
        weight.close(until: at(30))
        weight.close(until: at(5))
        let during = weight.take(1, at: at(29.9))
        let after = weight.take(1, at: at(30))
        #expect(!during && after)
    }

    @Test func pausesComeFromTheVenuesAnswer() {
        let second: Int64 = 1_000_000_000
        #expect(BinanceWire.pauseNanoseconds(status: 429, retryAfterSeconds: 7) == 7 * second)
        #expect(BinanceWire.pauseNanoseconds(status: 418, retryAfterSeconds: nil) == 60 * second)
        #expect(BinanceWire.pauseNanoseconds(status: 418, retryAfterSeconds: .max) == Limits.venuePauseNanosecondsMax)
        #expect(BinanceWire.pauseNanoseconds(status: 429, retryAfterSeconds: -4) == second)
        #expect(BinanceWire.pauseNanoseconds(status: 503, retryAfterSeconds: 7) == 0)
    }

    /// The documented weights, and how deep books are asked for: as deep as lets all symbols' first books come within five minutes.
    @Test func theDeepestBooksThatComeInTime() {
        #expect([100, 500, 1_000, 5_000].map { BinanceWire.Market.spot.depthWeight(limit: $0) } == [5, 25, 50, 250])
        #expect([50, 100, 500, 1_000].map { BinanceWire.Market.usdm.depthWeight(limit: $0) } == [2, 5, 10, 20])
        #expect(
            [1, 120, 121, 240, 241, 500].map { BinanceWire.Market.spot.snapshotLevels(symbols: $0) } == [1_000, 1_000, 500, 500, 100, 100])
        #expect(
            [1, 120, 121, 240, 241, 500].map { BinanceWire.Market.coinm.snapshotLevels(symbols: $0) } == [1_000, 1_000, 500, 500, 100, 100])
    }

    @Test func streamsFillConnectionsAndRequestsToTheVenuesLimits() {
        #expect(BinanceWire.shards(symbols: 500) == [0..<341, 341..<500] && BinanceWire.shards(symbols: 341) == [0..<341])
        let symbols = (0..<341).map { "COIN\($0)USDT" }
        let requests = BinanceWire.subscriptions(symbols: symbols[...], .usdm)
        #expect(requests.count == 18 && requests.allSatisfy { $0.count < 4_096 })
        #expect(
            String(decoding: BinanceWire.subscriptions(symbols: ["BTCUSD_PERP"], .coinm)[0], as: UTF8.self)
                == #"{"method":"SUBSCRIBE","params":["btcusd_perp@depth@100ms","btcusd_perp@bookTicker","btcusd_perp@aggTrade"],"id":1}"#)
        #expect(BinanceWire.Market.spot.streams(of: "BTCUSDT").last == "btcusdt@trade")
    }

    // MARK: Who is asked for

    /// Draws the upper bound: the longest wait.
    private final class Desk {
        private(set) var requests: SnapshotRequests
        init(symbols: Int) {
            requests = SnapshotRequests(symbols: symbols, weight: RequestWeight(perMinute: 6_000), cost: 50) { $0.upperBound }
        }
        func want(_ symbol: SymbolIndex, at now: Instant) { requests.want(symbol, at: now) }
        func drop(_ symbol: SymbolIndex) { requests.drop(symbol) }
        func takeDue(at now: Instant) -> [SymbolIndex] { requests.takeDue(at: now) }
        func answered(_ symbol: SymbolIndex, isUsable: Bool, at now: Instant) {
            requests.answered(symbol, isUsable: isUsable, at: now)
        }
        func failed(_ symbol: SymbolIndex, pauseNanoseconds: Int64, at now: Instant) {
            requests.failed(symbol, pauseNanoseconds: pauseNanoseconds, at: now)
        }
    }

    @Test func oneRequestInFlightPerSymbol() {
        let it = Desk(symbols: 2)
        it.want(1, at: at(0))
        it.want(1, at: at(0))
        let first = it.takeDue(at: at(0))
        it.want(1, at: at(1))
        let second = it.takeDue(at: at(1))
        it.answered(1, isUsable: true, at: at(2))
        it.answered(1, isUsable: true, at: at(2))  // Said twice.
        it.want(1, at: at(3))
        let third = it.takeDue(at: at(3))
        #expect(first == [1] && second == [] && third == [1] && it.requests.sent == 2)
    }

    @Test func whatLedNowhereIsRepeatedAfterAWaitThatDoubles_andSuccessForgetsIt() {
        let it = Desk(symbols: 1)
        var now = 0.0
        it.want(0, at: at(now))
        for wait in [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5] {
            #expect(it.takeDue(at: at(now)) == [0])
            it.answered(0, isUsable: false, at: at(now))
            #expect(it.takeDue(at: at(now + wait - 0.001)) == [])
            now += wait
        }
        #expect(it.requests.tooOld == 7)
        _ = it.takeDue(at: at(now))
        it.answered(0, isUsable: true, at: at(now))
        it.want(0, at: at(now))
        _ = it.takeDue(at: at(now))
        it.failed(0, pauseNanoseconds: 0, at: at(now))
        #expect(it.takeDue(at: at(now + 0.201)) == [0] && it.requests.failed == 1)
    }

    @Test func theWeightIsSharedInTurns_andAPauseHoldsEverybody() {
        let it = Desk(symbols: 40)
        for symbol in 0..<40 { it.want(SymbolIndex(symbol), at: at(0)) }
        let first = it.takeDue(at: at(0))
        #expect(first == (0..<24).map { SymbolIndex($0) })
        for symbol in first { it.answered(symbol, isUsable: false, at: at(0)) }
        #expect(it.takeDue(at: at(2.5)) == [24], "the first ones, due again, wait for those who never were")
        it.failed(24, pauseNanoseconds: 60_000_000_000, at: at(2.5))
        #expect(it.takeDue(at: at(62.4)) == [])
        #expect(it.takeDue(at: at(62.5)).first == 25)
    }

    @Test func aWishIsTakenBack() {
        let it = Desk(symbols: 1)
        it.want(0, at: at(0))
        it.drop(0)
        #expect(it.takeDue(at: at(0)) == [])
        it.want(0, at: at(1))
        #expect(it.takeDue(at: at(1)) == [0])
        it.drop(0)  // On its way: the answer still counts.
        it.answered(0, isUsable: true, at: at(2))
        #expect(it.takeDue(at: at(9)) == [])
    }
}
