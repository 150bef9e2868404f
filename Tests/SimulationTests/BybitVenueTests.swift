import CalibModel
import Foundation
import Simulation
import TestSupport
import Testing

/// Idea: a client written from the venue's documentation alone, with Foundation's JSON and a dictionary per side, reads what the venue
/// sends. Beside it runs the market itself from the same seed, whose state the client must reach frame by frame.
struct BybitVenueTests {
    @Test(arguments: [7, 42] as [UInt64], BybitCategory.allCases)
    func clientsBookIsTheMarketsBookAfterEveryFrame(seed: UInt64, category: BybitCategory) throws {
        var venue = BybitVenue(seed: seed, instruments: Array(SimInstrument.all.prefix(2)), start: start)
        let client = venue.connect(category)
        venue.advance(toElapsed: 1234) { _, _ in Issue.record("a frame nobody asked for") }
        let topics = ["1", "50", "200"].flatMap { depth in ["BTCUSDT", "ETHUSDT"].map { "orderbook.\(depth).\($0)" } }
        var reader = StrangersClient(category: category)
        try reader.take(ask(&venue, client, subscribe(topics + ["publicTrade.BTCUSDT", "publicTrade.ETHUSDT"])))
        #expect(reader.answers.count == 1 && reader.snapshots == 6)
        for elapsed in 1235...Int64(9234) {
            var frames: [[UInt8]] = []
            venue.advance(toElapsed: elapsed) { clients, frame in
                #expect(clients == [client])
                frames.append(frame)
            }
            try reader.take(frames)
            for (topic, book) in reader.books where book.milliseconds == start.milliseconds + elapsed {
                let parts = topic.split(separator: ".")
                let symbol = parts[2] == "BTCUSDT" ? 0 : 1
                for side in Side.allCases {
                    let levels = venue.levels(of: symbol, side, count: Int(parts[1])!)
                    let truth = Dictionary(uniqueKeysWithValues: levels.map { ($0.price, $0.quantity) })
                    if book.sides[side] != truth { Issue.record("\(topic) \(side) at \(elapsed) ms") }
                }
            }
        }
        #expect(reader.trouble == [])
        // About 20 updates a second at depth 50, 10 at depth 200.
        for symbol in ["BTCUSDT", "ETHUSDT"] {
            #expect((150...160).contains(reader.deltas["orderbook.50.\(symbol)"] ?? 0), "\(reader.deltas)")
            #expect((75...80).contains(reader.deltas["orderbook.200.\(symbol)"] ?? 0), "\(reader.deltas)")
            #expect((8 * 20...8 * 150).contains(reader.trades.filter { $0.symbol == symbol }.count))
        }
    }

    /// A trade executes at the touch the aggressor met, or through it; nothing is printed that did not happen.
    @Test(arguments: [7, 3] as [UInt64])
    func tradesAreTheMarketsAndExecuteAtOrThroughTheTouch(seed: UInt64) throws {
        var venue = BybitVenue(seed: seed, instruments: [SimInstrument.all[1]], start: start)
        let client = venue.connect(.linear)
        var reader = StrangersClient(category: .linear)
        try reader.take(ask(&venue, client, subscribe(["publicTrade.ETHUSDT"])))
        var frames: [[UInt8]] = []
        venue.advance(toElapsed: 20_000) { _, frame in frames.append(frame) }
        try reader.take(frames)
        #expect(reader.trouble == [])

        var market = SimMarket(seed: BybitVenue.seed(of: "ETHUSDT", in: seed), startingAfter: start.milliseconds)
        var touch = market.top
        var expected: [StrangersClient.Trade] = []
        for _ in 0..<20_000 {
            for event in market.step() {
                switch event {
                case .trade(let trade):
                    #expect(trade.aggressor == .buy ? trade.price >= touch.askPrice : trade.price <= touch.bidPrice)
                    expected.append(
                        .init(
                            symbol: "ETHUSDT", side: trade.aggressor == .buy ? "Buy" : "Sell", price: trade.price, quantity: trade.quantity,
                            milliseconds: trade.milliseconds))
                case .top(let top, _, _): touch = top
                case .depth: break
                }
            }
        }
        #expect(expected.count > 400)
        #expect(reader.trades == expected)
        #expect(Set(reader.tradeIDs).count == expected.count)
    }

    @Test func whatIsPublishedDependsOnSeedAndTimeOnly() throws {
        /// Frames of BTCUSDT at depth 50 from 5 s on, to a client that came at `arrival`, among `others`.
        func frames(seed: UInt64, arrival: Int64, others: Int, instruments: [SimInstrument]) -> [[UInt8]] {
            var venue = BybitVenue(seed: seed, instruments: instruments, start: start)
            for _ in 0..<others { _ = ask(&venue, venue.connect(.spot), subscribe(["publicTrade.BTCUSDT"])) }
            venue.advance(toElapsed: arrival) { _, _ in }
            let client = venue.connect(.linear)
            _ = ask(&venue, client, subscribe(["orderbook.50.BTCUSDT"]))
            venue.advance(toElapsed: 5000) { _, _ in }
            var frames: [[UInt8]] = []
            venue.advance(toElapsed: 7000) { clients, frame in if clients.contains(client) { frames.append(frame) } }
            return frames
        }
        let all = SimInstrument.all
        let alone = frames(seed: 7, arrival: 0, others: 0, instruments: [all[0]])
        #expect(alone.count > 30)
        #expect(frames(seed: 7, arrival: 4321, others: 3, instruments: [all[1], all[0], all[3]]) == alone)
        #expect(frames(seed: 8, arrival: 0, others: 0, instruments: [all[0]]) != alone)
    }

    @Test func everyFifthDeltaIsLost_aNewSubscriptionHeals() throws {
        var venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start, lostDeltaInterval: 5)
        let client = venue.connect(.linear)
        var reader = StrangersClient(category: .linear)
        try reader.take(ask(&venue, client, subscribe(["orderbook.50.BTCUSDT"])))
        var frames: [[UInt8]] = []
        venue.advance(toElapsed: 1000) { _, frame in frames.append(frame) }
        try reader.take(frames)
        // 20 deltas in a second; that the twentieth is missing, nobody can know yet.
        #expect(reader.trouble.filter { $0.hasPrefix("gap") }.count == 3)
        #expect(reader.trouble.first?.hasPrefix("gap") == true)
        let answers = ask(&venue, client, "{\"op\":\"unsubscribe\",\"args\":[\"orderbook.50.BTCUSDT\"]}")
        #expect(answers.count == 1)
        venue.advance(toElapsed: 1100) { _, _ in Issue.record("a frame after the unsubscription") }
        reader = StrangersClient(category: .linear)
        try reader.take(ask(&venue, client, subscribe(["orderbook.50.BTCUSDT"])))
        #expect(reader.snapshots == 1 && reader.trouble == [])
    }

    @Test func unchangedTopIsRepeatedAfterThreeSeconds_withTheSameNumber() {
        let market = SimMarket(seed: 7, startingAfter: start.milliseconds)
        var top = PublishedBook(depth: 1, intervalMilliseconds: 10, market: market)
        var book = PublishedBook(depth: 50, intervalMilliseconds: 50, market: market)
        let update = top.update
        let (early, due, again) = (
            top.publish(market, at: start.milliseconds + 2999), top.publish(market, at: start.milliseconds + 3000),
            top.publish(market, at: start.milliseconds + 3001)
        )
        #expect(early == .nothing && due == .whole && again == .nothing)
        #expect(top.update == update)
        let deeper = book.publish(market, at: start.milliseconds + 3000)
        #expect(deeper == .nothing)
    }

    struct Exchange: CustomTestStringConvertible {
        var category: BybitCategory
        var request: String
        var answer: String
        var testDescription: String { "\(category) \(request)" }
    }

    static let exchanges: [Exchange] = [
        .init(
            category: .linear, request: #"{"op":"subscribe","args":["publicTrade.BTCUSDT"]}"#,
            answer: #"{"success":true,"ret_msg":"","conn_id":"sim-1","req_id":"","op":"subscribe"}"#),
        .init(
            category: .linear, request: #"{"op":"subscribe","args":["publicTrade.BTCUSDT"],"req_id":"a\"b"}"#,
            answer: #"{"success":true,"ret_msg":"","conn_id":"sim-1","req_id":"a\"b","op":"subscribe"}"#),
        .init(
            category: .spot, request: #"{"op":"subscribe","args":["publicTrade.BTCUSDT"]}"#,
            answer: #"{"success":true,"ret_msg":"subscribe","conn_id":"sim-1","op":"subscribe"}"#),
        .init(
            category: .spot, request: #"{"args":[],"op":"unsubscribe","req_id":"7"}"#,
            answer: #"{"success":true,"ret_msg":"unsubscribe","conn_id":"sim-1","req_id":"7","op":"unsubscribe"}"#),
        .init(
            category: .linear, request: #"{"op":"ping","req_id":"100001"}"#,
            answer: #"{"success":true,"ret_msg":"pong","conn_id":"sim-1","req_id":"100001","op":"ping"}"#),
        .init(
            category: .linear, request: #"{"op":"subscribe","args":["publicTrade.BTCUSDT","orderbook.30.BTCUSDT"]}"#,
            answer:
                #"{"success":false,"ret_msg":"error:handler not found,topic:orderbook.30.BTCUSDT","conn_id":"sim-1","req_id":"","op":"subscribe"}"#
        ),
        .init(
            category: .linear, request: #"{"op":"subscribe","args":["publicTrade.BTCUSDT","publicTrade.BTCUSDT"]}"#,
            answer:
                #"{"success":false,"ret_msg":"error:already subscribed,topic:publicTrade.BTCUSDT","conn_id":"sim-1","req_id":"","op":"subscribe"}"#
        ),
        .init(
            category: .spot, request: #"{"op":"subscribe","args":["orderbook.50.btcusdt"]}"#,
            answer: #"{"success":false,"ret_msg":"Invalid symbol :[orderbook.50.btcusdt]","conn_id":"sim-1","op":"subscribe"}"#),
        .init(
            category: .spot, request: #"{"op":"subscribe","args":["a","b","c","d","e","f","g","h","i","j","k"]}"#,
            answer: #"{"success":false,"ret_msg":"args size >10","conn_id":"sim-1","op":"subscribe"}"#),
        .init(
            category: .linear, request: #"{"op":"nope"}"#,
            answer: #"{"success":false,"ret_msg":"error:invalid op","conn_id":"sim-1","req_id":"","op":"nope"}"#),
        .init(
            category: .linear, request: "hello",
            answer: #"{"success":false,"ret_msg":"Failed to decode incoming data","conn_id":"sim-1","req_id":"","op":""}"#),
    ]

    @Test(arguments: exchanges)
    func requestGetsTheVenuesAnswer(exchange: Exchange) {
        var venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start)
        let answers = ask(&venue, venue.connect(exchange.category), exchange.request)
        #expect(answers.map { String(decoding: $0, as: UTF8.self) } == [exchange.answer])
    }

    @Test func refusedRequestChangesNothing() {
        var venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start)
        let client = venue.connect(.linear)
        _ = ask(&venue, client, subscribe(["orderbook.1.BTCUSDT", "tickers.BTCUSDT"]))
        venue.advance(toElapsed: 500) { _, _ in Issue.record("a frame of a refused subscription") }
    }

    @Test func clientThatLeftGetsNothing() {
        var venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start)
        let client = venue.connect(.linear)
        let answers = ask(&venue, client, subscribe(["orderbook.1.BTCUSDT", "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"]))
        #expect(answers.count == 3)
        venue.disconnect(client)
        venue.disconnect(client)
        #expect(venue.connectedClients == 0)
        venue.advance(toElapsed: 500) { _, _ in Issue.record("a frame to nobody") }
        #expect(ask(&venue, client, subscribe(["orderbook.1.BTCUSDT"])) == [])
    }

    /// Requests cut at every byte and damaged at random: one answer each, never a trap.
    @Test func damagedRequestsNeverTrap() {
        var random = SeededRandom(seed: 5)
        var venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start)
        let client = venue.connect(.linear)
        let whole = Array(#"{"req_id":"x","op":"subscribe","args":["orderbook.50.BTCUSDT","publicTrade.BTCUSDT",7,null,{"a":[]}]}"#.utf8)
        var requests = whole.indices.map { Array(whole[..<$0]) }
        for _ in 0..<3000 {
            var damaged = whole
            for _ in 0...random.next(below: 4) { damaged[random.next(below: damaged.count)] = UInt8(random.next(below: 256)) }
            requests.append(damaged)
        }
        for request in requests {
            var answers = 0
            request.withUnsafeBytes { bytes in venue.receive(bytes, from: client) { _, _ in answers += 1 } }
            #expect(answers >= 1)
        }
    }

    @Test(arguments: [
        ("category=linear&symbol=BTCUSDT&limit=2", 2), ("symbol=BTCUSDT&category=linear", 25), ("category=spot&symbol=BTCUSDT", 1),
        ("category=linear&symbol=BTCUSDT&limit=500", 500),
    ])
    func restBookIsTheMarkets(query: String, count: Int) throws {
        var venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start)
        venue.advance(toElapsed: 700) { _, _ in }
        let body = try #require(venue.rest(path: "/v5/market/orderbook", query: query))
        let json = try #require(JSONSerialization.jsonObject(with: Data(body)) as? [String: Any])
        #expect(json["retCode"] as? Int == 0)
        let result = try #require(json["result"] as? [String: Any])
        for (key, side) in [("b", Side.buy), ("a", .sell)] {
            let levels = try #require(result[key] as? [[String]]).map { [scaled($0[0], places: 1), scaled($0[1], places: 3)] }
            #expect(levels == venue.levels(of: 0, side, count: count).map { [$0.price, $0.quantity] })
        }
    }

    @Test(arguments: [
        "", "category=linear", "category=inverse&symbol=BTCUSDT", "category=linear&symbol=NOPE", "category=linear&symbol=BTCUSDT&limit=0",
        "category=linear&symbol=BTCUSDT&limit=501", "category=spot&symbol=BTCUSDT&limit=201", "category=linear&symbol=BTCUSDT&limit=x",
        "&&==&",
    ])
    func badRestQueryIsRefused(query: String) throws {
        let venue = BybitVenue(seed: 7, instruments: [SimInstrument.all[0]], start: start)
        let body = try #require(venue.rest(path: "/v5/market/orderbook", query: query))
        let json = try #require(JSONSerialization.jsonObject(with: Data(body)) as? [String: Any])
        #expect(json["retCode"] as? Int == 10001)
        #expect(venue.rest(path: "/v5/market/nope", query: query) == nil)
    }
}

private let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)

private func subscribe(_ topics: [String]) -> String {
    "{\"op\":\"subscribe\",\"args\":[\(topics.map { "\"\($0)\"" }.joined(separator: ","))]}"
}

/// What the venue answers at once.
private func ask(_ venue: inout BybitVenue, _ client: BybitVenue.Client, _ request: String) -> [[UInt8]] {
    var frames: [[UInt8]] = []
    Array(request.utf8).withUnsafeBytes { bytes in
        venue.receive(bytes, from: client) { clients, frame in
            #expect(clients == [client])
            frames.append(frame)
        }
    }
    return frames
}

/// "65114.20" with 1 place -> 651142; -1 when it does not fit.
private func scaled(_ text: String, places: Int) -> Int64 {
    let parts = text.split(separator: ".", maxSplits: 1)
    let fraction = parts.count == 2 ? String(parts[1]) : ""
    let padded = fraction.padding(toLength: max(places, fraction.count), withPad: "0", startingAt: 0)
    guard padded.dropFirst(places).allSatisfy({ $0 == "0" }) else { return -1 }
    return Int64(parts[0] + padded.prefix(places)) ?? -1
}

/// Reads frames by the venue's documentation and writes down what contradicts it.
private struct StrangersClient {
    struct Book {
        var sides: [Side: [Int64: Int64]] = [.buy: [:], .sell: [:]]
        var update: Int64
        var milliseconds: Int64
    }

    struct Trade: Equatable {
        var symbol: String
        var side: String
        var price: Int64
        var quantity: Int64
        var milliseconds: Int64
    }

    let category: BybitCategory
    var books: [String: Book] = [:]
    var deltas: [String: Int] = [:]
    var snapshots = 0
    var trades: [Trade] = []
    var tradeIDs: [String] = []
    var answers: [[String: Any]] = []
    var trouble: [String] = []
    private var sequences: [String: Int64] = [:]

    init(category: BybitCategory) { self.category = category }

    mutating func take(_ frames: [[UInt8]]) throws {
        for frame in frames {
            let json = try #require(JSONSerialization.jsonObject(with: Data(frame)) as? [String: Any])
            guard let topic = json["topic"] as? String else {
                answers.append(json)
                continue
            }
            let text = String(decoding: frame, as: UTF8.self)
            let isSpotOrder = text.hasPrefix("{\"topic\":\"\(topic)\",\"ts\":")
            if isSpotOrder != (category == .spot) { trouble.append("keys in the other category's order: \(text.prefix(80))") }
            if topic.hasPrefix("publicTrade.") { try takeTrades(json, topic: topic) } else { try takeBook(json, topic: topic) }
        }
    }

    private mutating func takeBook(_ json: [String: Any], topic: String) throws {
        let data = try #require(json["data"] as? [String: Any])
        let (update, sequence) = try (number(data, "u"), number(data, "seq"))
        let (ts, cts) = try (number(json, "ts"), number(json, "cts"))
        if cts > ts { trouble.append("cts after ts") }
        let symbol = try #require(data["s"] as? String)
        let (pricePlaces, quantityPlaces) = places(of: symbol)
        let depth = try #require(Int(topic.split(separator: ".")[1]))
        func levels(_ key: String) throws -> [(Int64, Int64)] {
            try #require(data[key] as? [[String]]).map {
                if $0[1] != "0", scaled($0[1], places: quantityPlaces) == 0 { throw Trouble.zero }
                return (scaled($0[0], places: pricePlaces), scaled($0[1], places: quantityPlaces))
            }
        }
        // The first state of a topic is as old as its last publication.
        if books[topic] != nil { check(sequence, symbol) }
        let (bids, asks) = try (levels("b"), levels("a"))
        switch try #require(json["type"] as? String) {
        case "snapshot":
            snapshots += 1
            if bids.count != depth || asks.count != depth { trouble.append("a snapshot of \(bids.count) and \(asks.count) levels") }
            books[topic] = Book(
                sides: [.buy: Dictionary(uniqueKeysWithValues: bids), .sell: Dictionary(uniqueKeysWithValues: asks)], update: update,
                milliseconds: ts)
        default:
            guard var book = books[topic] else { return trouble.append("a delta before the snapshot of \(topic)") }
            if depth == 1 { trouble.append("a delta of depth 1") }
            deltas[topic, default: 0] += 1
            if update != book.update + 1 { trouble.append("gap of \(topic) from \(book.update) to \(update)") }
            let isWhole = update == book.update + 1
            for (side, changes) in [(Side.buy, bids), (.sell, asks)] {
                for (price, quantity) in changes {
                    let old = book.sides[side]?.updateValue(quantity, forKey: price)
                    if quantity == 0 { book.sides[side]?[price] = nil }
                    if isWhole, old == nil && quantity == 0 { trouble.append("a missing level is deleted") }
                    if isWhole, old == quantity { trouble.append("a level that did not change") }
                }
            }
            book.update = update
            book.milliseconds = ts
            books[topic] = book
            for (_, levels) in book.sides where isWhole && trouble.isEmpty && levels.count != depth {
                trouble.append("\(levels.count) levels in \(topic)")
            }
        }
        if trouble.isEmpty, let book = books[topic], let bid = book.sides[.buy]?.keys.max(), let ask = book.sides[.sell]?.keys.min(),
            bid >= ask
        {
            trouble.append("a crossed book")
        }
    }

    private mutating func takeTrades(_ json: [String: Any], topic: String) throws {
        #expect(json["type"] as? String == "snapshot")
        let rows = try #require(json["data"] as? [[String: Any]])
        if rows.isEmpty || rows.count > 1024 { trouble.append("\(rows.count) trades in a message") }
        for row in rows {
            let symbol = try #require(row["s"] as? String)
            #expect(topic == "publicTrade.\(symbol)")
            let (pricePlaces, quantityPlaces) = places(of: symbol)
            let (price, quantity) = try (#require(row["p"] as? String), #require(row["v"] as? String))
            check(try number(row, "seq"), symbol)
            if (row["L"] == nil) != (category == .spot) { trouble.append("a tick direction where there is none, or none") }
            if row["BT"] as? Bool != false || row["RPI"] as? Bool != false { trouble.append("a block trade") }
            tradeIDs.append(try #require(row["i"] as? String))
            if UUID(uuidString: tradeIDs[tradeIDs.count - 1]) == nil { trouble.append("no UUID: \(tradeIDs[tradeIDs.count - 1])") }
            trades.append(
                Trade(
                    symbol: symbol, side: try #require(row["S"] as? String), price: scaled(price, places: pricePlaces),
                    quantity: scaled(quantity, places: quantityPlaces), milliseconds: try number(row, "T")))
        }
    }

    /// Across the topics of a symbol, in the order of arrival, `seq` never falls.
    private mutating func check(_ sequence: Int64, _ symbol: String) {
        if let last = sequences[symbol], sequence < last { trouble.append("seq of \(symbol) falls from \(last) to \(sequence)") }
        sequences[symbol] = sequence
    }

    private enum Trouble: Error { case zero }

    private func places(of symbol: String) -> (price: Int, quantity: Int) {
        let instrument = SimInstrument.all.first { $0.symbol == symbol }!
        return (instrument.priceDigits, instrument.quantityDigits)
    }

    private func number(_ object: [String: Any], _ key: String) throws -> Int64 {
        try #require(object[key] as? NSNumber, "\(key)").int64Value
    }
}
