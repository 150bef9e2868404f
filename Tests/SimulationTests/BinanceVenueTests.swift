import CalibModel
import Simulation
import Testing

@testable import EdgeCore

/// A node and a simulated Binance in one process, with a network between them: REST answers are 40 ms old when they come.
@Suite struct BinanceVenueTests {
    private static let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)

    private struct Outcome {
        var proven = 0
        var milliseconds = 0
        var mismatches: Int64 = 0
        var matches: Int64 = 0
        var crossed: Int64 = 0
        var gaps: Int64 = 0
        var tooOld: Int64 = 0
        var rejected: Int64 = 0
        var reconnects = 0
        var sameTop = 0
        var trades: Int64 = 0
    }

    private static func run(_ market: BinanceMarket, faults: BinanceVenue.Faults, seconds: Int) -> Outcome {
        let instrument = market.instruments[0]
        var venue = BinanceVenue(market, seed: 7, instruments: [instrument], start: start, faults: faults)
        let memory = OutboxMemory()
        let edgeVenue: QuoteNode.Venue = market == .spot ? .binanceSpot : market == .usdm ? .binanceUSDM : .binanceCOINM
        var parameters = Parameters()
        parameters.tickSampleRate = 1_000
        var own = instrument.instrument
        own.contractMultiplier = market.contractSize(of: instrument.symbol)
        var node = QuoteNode(
            venue: edgeVenue, instruments: [own], parameters: parameters, isRecorded: false, connections: 1, runNumber: 1, firstFillID: 1,
            outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        var outcome = Outcome()
        var client: Int?
        var answers: [(due: Int64, sentAt: Moment, answer: BinanceVenue.Answer)] = []
        func moment(_ elapsed: Int64) -> Moment {
            Moment(instant: Instant(nanoseconds: elapsed * 1_000_000), wall: WallTime(nanoseconds: start.nanoseconds + elapsed * 1_000_000))
        }
        for elapsed in 1...Int64(seconds) * 1_000 {
            let now = moment(elapsed)
            if client == nil {
                let id = venue.connect(path: "/stream")
                client = id
                node.connected(0, at: now)
                for request in BinanceWire.subscriptions(symbols: [instrument.symbol][...], edgeVenue.binance!) {
                    let answer = request.withUnsafeBytes { venue.receive($0, from: id) }
                    answer.withUnsafeBytes { node.frame($0, on: 0, at: now) }
                }
            }
            var frames: [[UInt8]] = []
            var isGone = false
            venue.advance(toElapsed: elapsed, deliver: { _, frame in frames.append(frame) }, end: { _ in isGone = true })
            for frame in frames { frame.withUnsafeBytes { node.frame($0, on: 0, at: now) } }
            while let first = answers.first, first.due <= elapsed {
                answers.removeFirst()
                if first.answer.status == 200 {
                    first.answer.body.withUnsafeBytes { node.snapshotAnswered(0, $0, sentAt: first.sentAt, at: now) }
                } else {
                    let pause = BinanceWire.pauseNanoseconds(
                        status: first.answer.status, retryAfterSeconds: first.answer.retryAfterSeconds)
                    node.snapshotFailed(0, pauseNanoseconds: pause, at: now)
                }
            }
            for request in node.takeRequests() {
                switch request {
                case .snapshot:
                    let path = edgeVenue.binance!.depthPath
                    guard let answer = venue.rest(path: path, query: "symbol=\(instrument.symbol)&limit=1000") else { continue }
                    answers.append((elapsed + 40, now, answer))
                case .reconnect: isGone = true
                case .ping, .resubscribe: break
                }
            }
            if isGone, let id = client {
                outcome.reconnects += 1
                venue.disconnect(id)
                client = nil
                node.disconnected(0, at: now)
            }
            memory.discard(&node.shared.outboxes)
            outcome.milliseconds += 1
            let (isProven, top) = node.withSymbol(0) { ($0.isProven, $0.book.top) }
            if isProven { outcome.proven += 1 }
            if isProven, top == venue.top(of: 0) { outcome.sameTop += 1 }
        }
        node.withSymbol(0) { symbol in
            outcome.mismatches = symbol.audit.mismatches
            outcome.matches = symbol.audit.matches
            outcome.crossed = symbol.counts.crossed
            outcome.gaps = symbol.counts.sequenceGaps
            outcome.trades = symbol.counts.trades
        }
        outcome.tooOld = node.snapshots.tooOld
        outcome.rejected = FrameRejection.allCases.reduce(0) { $0 + node.rejected($1) }
        return outcome
    }

    @Test(arguments: BinanceMarket.allCases)
    func aCalmVenueGivesOneBookWithoutAGap(_ market: BinanceMarket) {
        let it = Self.run(market, faults: .init(), seconds: 10)
        #expect(it.gaps == 0 && it.crossed == 0 && it.mismatches == 0 && it.rejected == 0 && it.tooOld == 0 && it.reconnects == 0)
        #expect(it.matches > 5 && it.trades > 100)
        // The first event comes within 60 ms and its book 40 ms later, but a market may pause before the next one.
        #expect(it.proven > 9_700, "\(it.proven) of \(it.milliseconds) ms")
        #expect(it.sameTop > it.proven - 200, "\(it.sameTop) of \(it.proven) ms")
    }

    @Test(arguments: BinanceMarket.allCases)
    func oldBooksRefusalsLostDiffsAndGoodbyesHeal(_ market: BinanceMarket) {
        var faults = BinanceVenue.Faults()
        faults.oldBooks = 2
        faults.refusals = 1
        faults.lostDiffInterval = 50
        faults.goodbyeMilliseconds = 4_000
        let it = Self.run(market, faults: faults, seconds: 15)
        #expect(it.crossed == 0 && it.mismatches == 0 && it.rejected == 0)
        #expect(it.reconnects == 3 && it.tooOld >= 1 && (3...8).contains(it.gaps), "\(it)")
        #expect(it.matches > 3)
        // A second for the refusal, the waits for the old books, and 100 ms for each gap and each goodbye.
        #expect(it.proven > 11_000, "\(it.proven) of \(it.milliseconds) ms")
    }

    @Test func theVenueAnswersAsBinanceDoes() throws {
        var venue = BinanceVenue(.coinm, seed: 1, instruments: BinanceMarket.coinm.instruments, start: Self.start)
        let client = venue.connect(path: "/ws/btcusd_perp@bookTicker")
        func ask(_ text: String) -> String {
            String(decoding: Array(text.utf8).withUnsafeBytes { venue.receive($0, from: client) }, as: UTF8.self)
        }
        let answers = [
            #"{"method":"LIST_SUBSCRIPTIONS","id":3}"#, #"{"method":"UNSUBSCRIBE","params":["btcusd_perp@bookTicker"],"id":4}"#,
            #"{"method":"LIST_SUBSCRIPTIONS","id":5}"#,
        ].map(ask)
        #expect(
            answers == [#"{"result":["btcusd_perp@bookTicker"],"id":3}"#, #"{"result":null,"id":4}"#, #"{"result":[],"id":5}"#])
        let refused = ["nonsense", #"{"method":"X","id":6}"#].map(ask)
        #expect(refused[0].contains("Invalid JSON") && refused[1].contains("\"code\":2"))
        let elsewhere = venue.rest(path: "/fapi/v1/depth", query: "symbol=BTCUSD_PERP")
        let unknown = venue.rest(path: "/dapi/v1/depth", query: "symbol=NOPE")
        let odd = venue.rest(path: "/dapi/v1/depth", query: "symbol=BTCUSD_PERP&limit=7")
        #expect(elsewhere == nil && unknown?.status == 400 && odd?.status == 400)
        let answer = venue.rest(path: "/dapi/v1/depth", query: "symbol=BTCUSD_PERP&limit=5")
        let book = String(decoding: try #require(answer).body, as: UTF8.self)
        #expect(
            book.wholeMatch(
                of:
                    /{"lastUpdateId":\d+,"E":\d{13},"T":\d{13},"symbol":"BTCUSD_PERP","pair":"BTCUSD","bids":\[(\["\d+\.\d","\d+"\],?){5}\],"asks":\[(\["\d+\.\d","\d+"\],?){5}\]}/
            ) != nil, "\(book)")
    }
}
