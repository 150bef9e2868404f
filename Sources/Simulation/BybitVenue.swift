// The embedded exchange: simulated markets in Bybit v5's public wire, as one pure value. Requests and time go in, frames come out.
//
// What follows the venue: paths, requests and answers (`BybitConnection`), topics orderbook.1|50|200 and publicTrade, the frames' fields
// and their order, absolute quantities with "0" for a level that left, `u` rising by one in every topic, one `seq` for book and trades of
// a symbol, a snapshot upon every subscription, depth 1 repeated after 3 s.
//
// What differs on purpose: depth 50 is published every 50 ms instead of every 20, so that a symbol has about 20 book updates a second, as
// the recorded markets have. The seed is a market, not a network: frames leave when they are due.
//
// Invariants
//  1. A topic's frames, applied in order from any of its snapshots, give exactly the levels the topic last published.
//  2. What is published depends on the seed, the symbol and the elapsed milliseconds only: not on the clients, nor on the other symbols.
//  3. In one millisecond a symbol's trades leave before its books, and carry the `seq` of the book that contains them.

import CalibModel
import Wire

package struct BybitVenue: Sendable {
    package typealias Client = Int

    /// Upper bound of `limit` of the REST order book, by category, and what a request without it gets.
    private static func restLevels(_ category: BybitCategory) -> (max: Int64, standard: Int64) {
        category == .spot ? (200, 1) : (500, 25)
    }

    private struct Connection: Sendable {
        var session: BybitConnection
        /// Topic numbers, by `Topic.number`.
        var topics: Set<Int> = []
    }

    /// One of a symbol's four topics.
    private struct Topic: Equatable {
        static let kinds = ["orderbook.1.", "orderbook.50.", "orderbook.200.", "publicTrade."]
        static let trades = 3
        var symbol: Int
        var kind: Int
        var number: Int { symbol * Self.kinds.count + kind }
    }

    private struct Symbol: Sendable {
        let instrument: SimInstrument
        var market: SimMarket
        var books: [PublishedBook]
        /// The last trade's price and the venue's word for its direction.
        var lastTrade: (price: Int64, direction: StaticString)
    }

    private var symbols: [Symbol]
    private var clients: [Client: Connection] = [:]
    /// By topic number, in the order of subscription.
    private var subscribers: [[Client]]
    private var nextClient = 1
    private let startMilliseconds: Int64
    /// Every this many-th delta of a topic is left out, so that clients can show what they do about a gap; nil: none.
    private let lostDeltaInterval: Int?
    private var elapsedMilliseconds: Int64 = 0
    private var frame: [UInt8] = []
    /// False: the markets go on, and nobody is told.
    package var isPublishing = true

    /// `start` is the venue's wall clock when no time has elapsed.
    package init(seed: UInt64, instruments: [SimInstrument], start: WallTime, lostDeltaInterval: Int? = nil) {
        precondition(lostDeltaInterval ?? 1 > 0, "BUG: every \(lostDeltaInterval ?? 0)th delta")
        startMilliseconds = start.milliseconds
        self.lostDeltaInterval = lostDeltaInterval
        let startMilliseconds = startMilliseconds
        symbols = instruments.map { instrument in
            let market = SimMarket(seed: Self.seed(of: instrument.symbol, in: seed), startingAfter: startMilliseconds)
            return Symbol(
                instrument: instrument, market: market,
                books: [(1, 10), (50, 50), (200, 100)].map { depth, interval in
                    PublishedBook(depth: depth, intervalMilliseconds: interval, market: market)
                }, lastTrade: (market.top.bidPrice, "ZeroPlusTick"))
        }
        subscribers = Array(repeating: [], count: symbols.count * Topic.kinds.count)
    }

    /// What a book topic of that depth has told its subscribers so far.
    package func published(_ symbol: Int, depth: Int) -> (update: Int64, levels: PublishedBook.Levels)? {
        symbols[symbol].books.first { $0.depth == depth }.map { ($0.update, $0.levels) }
    }
    package var connectedClients: Int { clients.count }
    package var symbolNames: [String] { symbols.map(\.instrument.symbol) }
    /// The true top of a symbol's book now, in ticks and lots.
    package func top(of symbol: Int) -> TopOfBook { symbols[symbol].market.top }
    /// The true best levels of a symbol's book now.
    package func levels(of symbol: Int, _ side: Side, count: Int) -> [MarketEvent.Level] {
        symbols[symbol].market.levels(side, count: count)
    }

    // MARK: Trouble

    /// Whether the client has subscribed to anything.
    package func isListening(_ client: Client) -> Bool { clients[client]?.topics.isEmpty == false }

    /// Sends the books of a symbol whole, as a venue may at any time.
    package mutating func republish(_ symbol: Int, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void) {
        for kind in symbols[symbol].books.indices { publishBook(Topic(symbol: symbol, kind: kind), levels: nil, deliver: deliver) }
    }

    /// The service behind the symbol's books starts anew: `u` is 1 and the books are sent whole.
    package mutating func restart(_ symbol: Int, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void) {
        for kind in symbols[symbol].books.indices { symbols[symbol].books[kind].restart() }
        republish(symbol, deliver: deliver)
    }

    /// So many deltas of each of the symbol's books at once, each with the touch as it stands.
    package mutating func burst(_ symbol: Int, messages: Int, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void) {
        for kind in symbols[symbol].books.indices where symbols[symbol].books[kind].depth > 1 {
            for _ in 0..<messages {
                let touch = symbols[symbol].books[kind].repeatTouch()
                publishBook(Topic(symbol: symbol, kind: kind), levels: touch, deliver: deliver)
            }
        }
    }

    // MARK: Clients

    package mutating func connect(_ category: BybitCategory) -> Client {
        let client = nextClient
        nextClient += 1
        clients[client] = Connection(session: BybitConnection(category: category, name: "sim-\(client)"))
        return client
    }

    package mutating func disconnect(_ client: Client) {
        guard let connection = clients.removeValue(forKey: client) else { return }
        for topic in connection.topics { subscribers[topic].removeAll { $0 == client } }
    }

    /// Takes one message of a client. `deliver` is given the answer, then the snapshots of the books it subscribed to.
    package mutating func receive(
        _ message: UnsafeRawBufferPointer, from client: Client, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void
    ) {
        guard var connection = clients[client] else { return }
        let (answer, change) = connection.session.receive(message) { topic($0) != nil }
        deliver([client], answer)
        switch change {
        case .nothing: break
        case .subscribed(let names):
            for topic in names.compactMap(topic) {
                connection.topics.insert(topic.number)
                subscribers[topic.number].append(client)
                // A subscription to a book is always answered with its state; trades come as they happen.
                guard topic.kind != Topic.trades else { continue }
                writeBook(topic, category: connection.session.category, levels: nil)
                deliver([client], frame)
            }
        case .unsubscribed(let names):
            for topic in names.compactMap(topic) {
                connection.topics.remove(topic.number)
                subscribers[topic.number].removeAll { $0 == client }
            }
        }
        clients[client] = connection
    }

    // MARK: Time

    /// Plays the markets up to `elapsed` milliseconds after the start and hands out what they publish; an earlier time does nothing.
    package mutating func advance(toElapsed elapsed: Int64, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void) {
        while elapsedMilliseconds < elapsed {
            elapsedMilliseconds += 1
            for symbol in symbols.indices { step(symbol, deliver: deliver) }
        }
    }

    private mutating func step(_ symbol: Int, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void) {
        let events = symbols[symbol].market.step()
        guard isPublishing else { return }
        publishTrades(of: symbol, events, deliver: deliver)
        for kind in symbols[symbol].books.indices where elapsedMilliseconds.isMultiple(of: symbols[symbol].books[kind].intervalMilliseconds)
        {
            let update = symbols[symbol].books[kind].publish(symbols[symbol].market, at: symbols[symbol].market.milliseconds)
            switch update {
            case .nothing: break
            case .whole: publishBook(Topic(symbol: symbol, kind: kind), levels: nil, deliver: deliver)
            case .delta(let levels):
                if let lostDeltaInterval, symbols[symbol].books[kind].deltas.isMultiple(of: lostDeltaInterval) { break }
                publishBook(Topic(symbol: symbol, kind: kind), levels: levels, deliver: deliver)
            }
        }
    }

    private mutating func publishTrades(
        of symbol: Int, _ events: [MarketEvent], deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void
    ) {
        var trades: [(MarketEvent.Trade, StaticString)] = []
        for case .trade(let trade) in events {
            symbols[symbol].lastTrade = (trade.price, Self.direction(of: trade.price, after: symbols[symbol].lastTrade))
            trades.append((trade, symbols[symbol].lastTrade.direction))
        }
        var rest = trades[...]
        let topic = Topic(symbol: symbol, kind: Topic.trades)
        while !rest.isEmpty {
            let batch = rest.prefix(1024)
            rest = rest.dropFirst(batch.count)
            forEachCategory(of: topic, deliver: deliver) { venue, category in venue.writeTrades(topic, batch, category: category) }
        }
    }

    private mutating func publishBook(
        _ topic: Topic, levels: PublishedBook.Levels?, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void
    ) {
        forEachCategory(of: topic, deliver: deliver) { venue, category in venue.writeBook(topic, category: category, levels: levels) }
    }

    /// One frame for each category somebody listens in.
    private mutating func forEachCategory(
        of topic: Topic, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void,
        write: (_ venue: inout BybitVenue, _ category: BybitCategory) -> Void
    ) {
        guard !subscribers[topic.number].isEmpty else { return }
        for category in BybitCategory.allCases {
            let listeners = subscribers[topic.number].filter { clients[$0]?.session.category == category }
            guard !listeners.isEmpty else { continue }
            write(&self, category)
            deliver(listeners, frame)
        }
    }

    // MARK: REST

    /// The answer to `GET /v5/market/orderbook?<query>`; nil for another path. The levels are the market's of this instant.
    package func rest(path: String, query: String) -> [UInt8]? {
        guard path == "/v5/market/orderbook" else { return nil }
        var category: BybitCategory?
        var symbol: Int?
        var limit: Int64?
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { continue }
            switch parts[0] {
            case "category": category = BybitCategory(rawValue: String(parts[1]))
            case "symbol": symbol = symbols.firstIndex { $0.instrument.symbol == parts[1] }
            case "limit": limit = Int64(parts[1]) ?? -1
            default: break
            }
        }
        guard let category else { return refusal("Illegal category") }
        guard let symbol else { return refusal("params error: Symbol Invalid") }
        let bounds = Self.restLevels(category)
        let count = limit ?? bounds.standard
        guard (1...bounds.max).contains(count) else { return refusal("params error: limit is 1 to \(bounds.max)") }
        return orderBook(of: symbols[symbol], count: Int(count))
    }

    private func orderBook(of symbol: Symbol, count: Int) -> [UInt8] {
        let market = symbol.market
        var json: [UInt8] = []
        json.append(text: "{\"retCode\":0,\"retMsg\":\"OK\",\"result\":{\"s\":\"")
        json.append(contentsOf: symbol.instrument.symbol.utf8)
        json.append(text: "\",\"b\":")
        json.append(levels: market.levels(.buy, count: count), of: symbol.instrument)
        json.append(text: ",\"a\":")
        json.append(levels: market.levels(.sell, count: count), of: symbol.instrument)
        json.append(text: ",\"ts\":")
        json.append(integer: market.milliseconds)
        json.append(text: ",\"u\":")
        json.append(integer: market.lastID)
        json.append(text: ",\"seq\":")
        json.append(integer: market.lastID)
        json.append(text: ",\"cts\":")
        json.append(integer: market.engineMilliseconds)
        json.append(text: "},\"retExtInfo\":{},\"time\":")
        json.append(integer: market.milliseconds)
        json.append(text: "}")
        return json
    }

    private func refusal(_ message: String) -> [UInt8] {
        Array(
            "{\"retCode\":10001,\"retMsg\":\"\(message)\",\"result\":{},\"retExtInfo\":{},\"time\":\(startMilliseconds + elapsedMilliseconds)}"
                .utf8)
    }

    // MARK: Frames

    /// The whole published book when `levels` is nil, else a delta.
    private mutating func writeBook(_ topic: Topic, category: BybitCategory, levels: PublishedBook.Levels?) {
        let symbol = symbols[topic.symbol]
        let book = symbol.books[topic.kind]
        beginFrame(topic, type: levels == nil ? "snapshot" : "delta", category: category)
        frame.append(text: ",\"data\":{\"s\":\"")
        frame.append(contentsOf: symbol.instrument.symbol.utf8)
        frame.append(text: "\",\"b\":")
        frame.append(levels: (levels ?? book.levels).bids, of: symbol.instrument)
        frame.append(text: ",\"a\":")
        frame.append(levels: (levels ?? book.levels).asks, of: symbol.instrument)
        frame.append(text: ",\"u\":")
        frame.append(integer: book.update)
        frame.append(text: ",\"seq\":")
        frame.append(integer: book.sequence)
        frame.append(text: "},\"cts\":")
        frame.append(integer: book.engineMilliseconds)
        frame.append(text: "}")
    }

    private mutating func writeTrades(
        _ topic: Topic, _ trades: ArraySlice<(MarketEvent.Trade, StaticString)>, category: BybitCategory
    ) {
        let instrument = symbols[topic.symbol].instrument
        let sequence = symbols[topic.symbol].market.lastID
        beginFrame(topic, type: "snapshot", category: category)
        frame.append(text: ",\"data\":[")
        for (index, (trade, direction)) in trades.enumerated() {
            frame.append(text: index == 0 ? "{\"T\":" : ",{\"T\":")
            frame.append(integer: trade.milliseconds)
            frame.append(text: ",\"s\":\"")
            frame.append(contentsOf: instrument.symbol.utf8)
            frame.append(text: trade.aggressor == .buy ? "\",\"S\":\"Buy\",\"v\":" : "\",\"S\":\"Sell\",\"v\":")
            frame.append(decimal: trade.quantity, places: instrument.quantityDigits)
            frame.append(text: ",\"p\":")
            frame.append(price: trade.price, of: instrument)
            if category == .linear {
                frame.append(text: ",\"L\":\"")
                frame.append(text: direction)
                frame.append(text: "\"")
            }
            frame.append(text: ",\"i\":\"")
            frame.append(contentsOf: Self.identity(of: trade, symbol: topic.symbol))
            frame.append(text: "\",\"BT\":false,\"RPI\":false,\"seq\":")
            frame.append(integer: sequence)
            frame.append(text: "}")
        }
        frame.append(text: "]}")
    }

    /// Up to `data`, in the category's own order of keys.
    private mutating func beginFrame(_ topic: Topic, type: StaticString, category: BybitCategory) {
        frame.removeAll(keepingCapacity: true)
        frame.append(text: "{\"topic\":\"")
        frame.append(contentsOf: Topic.kinds[topic.kind].utf8)
        frame.append(contentsOf: symbols[topic.symbol].instrument.symbol.utf8)
        if category == .linear {
            frame.append(text: "\",\"type\":\"")
            frame.append(text: type)
            frame.append(text: "\",\"ts\":")
            frame.append(integer: symbols[topic.symbol].market.milliseconds)
        } else {
            frame.append(text: "\",\"ts\":")
            frame.append(integer: symbols[topic.symbol].market.milliseconds)
            frame.append(text: ",\"type\":\"")
            frame.append(text: type)
            frame.append(text: "\"")
        }
    }

    // MARK: Leaves

    private func topic(_ name: String) -> Topic? {
        for (kind, prefix) in Topic.kinds.enumerated() where name.hasPrefix(prefix) {
            let rest = name.dropFirst(prefix.count)
            guard let symbol = symbols.firstIndex(where: { $0.instrument.symbol == rest }) else { return nil }
            return Topic(symbol: symbol, kind: kind)
        }
        return nil
    }

    /// A symbol's market is the same whichever others are listed beside it.
    package static func seed(of symbol: String, in seed: UInt64) -> UInt64 {
        // FNV-1a.
        let hash = symbol.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        var mixed = SplitMix64(state: seed ^ hash)
        return mixed.next()
    }

    private static func direction(of price: Int64, after last: (price: Int64, direction: StaticString)) -> StaticString {
        if price > last.price { return "PlusTick" }
        if price < last.price { return "MinusTick" }
        // Unchanged keeps the direction of the last change.
        switch last.direction.utf8Start[0] {
        case 0x50: return "ZeroPlusTick"
        case 0x4d: return "ZeroMinusTick"
        default: return last.direction
        }
    }

    /// A UUID in form, from the trade's number.
    private static func identity(of trade: MarketEvent.Trade, symbol: Int) -> [UInt8] {
        var mixed = SplitMix64(state: UInt64(bitPattern: trade.number) ^ UInt64(symbol) << 56)
        var digits: [UInt8] = []
        for _ in 0..<2 {
            let word = mixed.next()
            for shift in stride(from: UInt64(60), through: 0, by: -4) {
                if [8, 13, 18, 23].contains(digits.count) { digits.append(0x2d) }
                let nibble = UInt8(truncatingIfNeeded: word >> shift) & 15
                digits.append(nibble < 10 ? 0x30 + nibble : 0x57 + nibble)
            }
        }
        return digits
    }
}

/// What an `orderbook` topic has told its subscribers so far.
package struct PublishedBook: Sendable {
    package struct Levels: Sendable, Equatable {
        /// Best first.
        package var bids: [MarketEvent.Level]
        package var asks: [MarketEvent.Level]
    }

    package enum Update: Equatable {
        case nothing
        /// The book as it is: depth 1 always sends it.
        case whole
        case delta(Levels)
    }

    /// Depth 1 is sent again after this long without a change.
    package static let repeatMilliseconds: Int64 = 3000

    let depth: Int
    let intervalMilliseconds: Int64
    private(set) var levels: Levels
    /// `u`. Far from 1, which would mean a restart.
    package private(set) var update: Int64
    private(set) var sequence: Int64
    private(set) var engineMilliseconds: Int64
    /// Deltas published, left out ones included.
    private(set) var deltas = 0
    private var sentMilliseconds: Int64

    package init(depth: Int, intervalMilliseconds: Int64, market: SimMarket) {
        self.depth = depth
        self.intervalMilliseconds = intervalMilliseconds
        levels = Levels(bids: market.levels(.buy, count: depth), asks: market.levels(.sell, count: depth))
        update = 1_000_000 * Int64(depth)
        sequence = market.lastID
        engineMilliseconds = market.engineMilliseconds
        sentMilliseconds = market.milliseconds
    }

    /// Takes the market's book as of `milliseconds` and says what subscribers are to be sent.
    package mutating func publish(_ market: SimMarket, at milliseconds: Int64) -> Update {
        let new = Levels(bids: market.levels(.buy, count: depth), asks: market.levels(.sell, count: depth))
        guard new != levels else {
            guard depth == 1, milliseconds - sentMilliseconds >= Self.repeatMilliseconds else { return .nothing }
            sentMilliseconds = milliseconds
            return .whole
        }
        let delta = Levels(
            bids: changes(from: levels.bids, to: new.bids, isBetter: >), asks: changes(from: levels.asks, to: new.asks, isBetter: <))
        levels = new
        update += 1
        sequence = market.lastID
        engineMilliseconds = market.engineMilliseconds
        sentMilliseconds = milliseconds
        if depth == 1 { return .whole }
        deltas += 1
        return .delta(delta)
    }

    /// The numbers begin anew.
    mutating func restart() { update = 1 }

    /// A delta that changes nothing: the best level of each side.
    mutating func repeatTouch() -> Levels {
        update += 1
        return Levels(bids: Array(levels.bids.prefix(1)), asks: Array(levels.asks.prefix(1)))
    }

    /// The levels that differ, best first; quantity 0 for one that is gone or out of the topic's reach.
    private func changes(
        from old: [MarketEvent.Level], to new: [MarketEvent.Level], isBetter: (Int64, Int64) -> Bool
    ) -> [MarketEvent.Level] {
        var found: [MarketEvent.Level] = []
        var (oldIndex, newIndex) = (0, 0)
        while oldIndex < old.count || newIndex < new.count {
            if newIndex == new.count || oldIndex < old.count && isBetter(old[oldIndex].price, new[newIndex].price) {
                found.append(.init(price: old[oldIndex].price, quantity: 0))
                oldIndex += 1
            } else if oldIndex == old.count || isBetter(new[newIndex].price, old[oldIndex].price) {
                found.append(new[newIndex])
                newIndex += 1
            } else {
                if old[oldIndex] != new[newIndex] { found.append(new[newIndex]) }
                oldIndex += 1
                newIndex += 1
            }
        }
        return found
    }
}

extension [UInt8] {
    fileprivate mutating func append(price ticks: Int64, of instrument: SimInstrument) {
        let scale = FixedPoint.powersOfTen[instrument.writtenPriceDigits - instrument.priceDigits]
        append(decimal: ticks * scale, places: instrument.writtenPriceDigits)
    }

    fileprivate mutating func append(levels: [MarketEvent.Level], of instrument: SimInstrument) {
        append(0x5b)
        for (index, level) in levels.enumerated() {
            if index > 0 { append(0x2c) }
            append(0x5b)
            append(price: level.price, of: instrument)
            append(0x2c)
            // A level that is gone has the size "0", without decimals.
            append(decimal: level.quantity, places: level.quantity == 0 ? 0 : instrument.quantityDigits)
            append(0x5d)
        }
        append(0x5d)
    }
}
