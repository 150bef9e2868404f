// Simulated markets in Binance's public wire, as one pure value. Requests and time go in, frames come out.
//
// What follows the venue: paths /ws and /stream, SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS with their answers, streams depth@100ms,
// bookTicker, trade (spot) or aggTrade (futures), the frames' fields, order books and instruments over REST, ids that chain by `pu` on futures
// and without holes on spot, a goodbye (`serverShutdown`) before a connection ends.
//
// What differs on purpose: diffs come when the market makes them, 19 a second. A subscription begins with the next event: unlike Bybit's it
// brings no book, so a client has to ask for one and to fit both together.
//
// What goes wrong when it is asked for (`Faults`): order books older than the stream, refusals with 429, lost diffs, goodbyes.

import CalibModel
import Wire

package struct BinanceVenue: Sendable {
    package typealias Client = Int

    package struct Faults: Sendable, Equatable {
        /// Every this many-th diff of a symbol is left out; nil: none.
        package var lostDiffInterval: Int?
        /// The first order books asked for are those of the venue's start.
        package var oldBooks = 0
        /// The first REST requests behind those are answered with 429 and `Retry-After: 1`.
        package var refusals = 0
        /// This often all clients are told goodbye, and are gone a second later; nil: never.
        package var goodbyeMilliseconds: Int64?
        /// So many lists of instruments are as they were at the start; from then on the first symbol has a tick ten times as wide. Nil: always.
        package var instrumentsBeforeChange: Int?
        package init() {}
    }

    /// An answer over REST.
    package struct Answer: Sendable, Equatable {
        package var status: Int
        package var body: [UInt8]
        package var retryAfterSeconds: Int64?
    }

    private enum Kind: Int, CaseIterable { case depth, top, trade }

    private struct Symbol: Sendable {
        let frames: BinanceFrames
        var book: SimMarket
        /// As of the venue's start.
        let first: SimMarket
        var diffs = 0
        /// Per kind, in the order of subscription.
        var subscribers: [[Client]] = [[], [], []]
    }

    private struct Connection: Sendable {
        /// Frames are wrapped as `{"stream", "data"}`.
        var isCombined: Bool
        var streams: [String] = []
        /// Elapsed milliseconds at which the venue ends it.
        var endsAt: Int64?
    }

    package let market: BinanceMarket
    private let faults: Faults
    private var symbols: [Symbol]
    private var clients: [Client: Connection] = [:]
    private var nextClient = 1
    private let startMilliseconds: Int64
    private var elapsedMilliseconds: Int64 = 0
    private var booksAnswered = 0
    private var refused = 0
    private var instrumentsAnswered = 0

    /// `start` is the venue's wall clock when no time has elapsed.
    package init(_ market: BinanceMarket, seed: UInt64, instruments: [SimInstrument], start: WallTime, faults: Faults = Faults()) {
        self.market = market
        self.faults = faults
        startMilliseconds = start.milliseconds
        let startMilliseconds = startMilliseconds
        symbols = instruments.map { instrument in
            // FNV-1a: a symbol's market depends on its name, not on its neighbours.
            let hash = instrument.symbol.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
            let book = SimMarket(seed: seed ^ hash, startingAfter: startMilliseconds)
            return Symbol(frames: BinanceFrames(market, instrument), book: book, first: book)
        }
    }

    package var symbolNames: [String] { symbols.map(\.frames.instrument.symbol) }
    /// The true top of a symbol's book now, in ticks and lots.
    package func top(of symbol: Int) -> TopOfBook { symbols[symbol].book.top }

    // MARK: Clients

    package static func isStream(_ path: String) -> Bool { path == "/stream" || path == "/ws" || path.hasPrefix("/ws/") }

    /// Streams may stand in the path: `/ws/<a>/<b>`.
    package mutating func connect(path: String) -> Client {
        precondition(Self.isStream(path), "BUG: a client at \(path)")
        let client = nextClient
        nextClient += 1
        clients[client] = Connection(isCombined: path == "/stream")
        if path.hasPrefix("/ws/") { subscribe(client, path.dropFirst(4).split(separator: "/").map(String.init)) }
        return client
    }

    package mutating func disconnect(_ client: Client) {
        guard let connection = clients.removeValue(forKey: client) else { return }
        unsubscribe(client, connection.streams)
    }

    /// The answer to one message of a client.
    package mutating func receive(_ message: UnsafeRawBufferPointer, from client: Client) -> [UInt8] {
        guard let request = try? JSONValue.parse(message), request.members != nil, let connection = clients[client] else {
            return Array("{\"error\":{\"code\":3,\"msg\":\"Invalid JSON: expected value at line 1 column 1\"}}".utf8)
        }
        let id = request["id"]?.integer ?? 0
        let names = request["params"]?.array?.compactMap(\.string) ?? []
        switch request["method"]?.string {
        case "SUBSCRIBE":
            subscribe(client, names)
            return Array("{\"result\":null,\"id\":\(id)}".utf8)
        case "UNSUBSCRIBE":
            unsubscribe(client, names)
            clients[client]?.streams.removeAll(where: names.contains)
            return Array("{\"result\":null,\"id\":\(id)}".utf8)
        case "LIST_SUBSCRIPTIONS":
            let list = connection.streams.map { "\"\($0)\"" }.joined(separator: ",")
            return Array("{\"result\":[\(list)],\"id\":\(id)}".utf8)
        default: return Array("{\"code\":2,\"msg\":\"Invalid request: unknown variant\",\"id\":\(id)}".utf8)
        }
    }

    /// The venue says yes to any name; of one it does not have nothing ever comes.
    private mutating func subscribe(_ client: Client, _ names: [String]) {
        for name in names where clients[client]?.streams.contains(name) == false {
            clients[client]?.streams.append(name)
            guard let (symbol, kind) = stream(name) else { continue }
            symbols[symbol].subscribers[kind.rawValue].append(client)
        }
    }

    private mutating func unsubscribe(_ client: Client, _ names: [String]) {
        for name in names {
            guard let (symbol, kind) = stream(name) else { continue }
            symbols[symbol].subscribers[kind.rawValue].removeAll { $0 == client }
        }
    }

    private func stream(_ name: String) -> (symbol: Int, kind: Kind)? {
        let parts = name.split(separator: "@", maxSplits: 1)
        guard parts.count == 2, let symbol = symbols.firstIndex(where: { $0.frames.instrument.symbol.lowercased() == parts[0] }) else {
            return nil
        }
        guard let kind = Kind.allCases.first(where: { suffix($0) == parts[1] }) else { return nil }
        return (symbol, kind)
    }

    private func suffix(_ kind: Kind) -> String {
        switch kind {
        case .depth: "depth@100ms"
        case .top: "bookTicker"
        case .trade: market == .spot ? "trade" : "aggTrade"
        }
    }

    // MARK: Time

    /// Plays the markets up to `elapsed` milliseconds after the start and hands out what they publish; `end` is called for clients whose time is
    /// over.
    package mutating func advance(
        toElapsed elapsed: Int64, deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void, end: (_ client: Client) -> Void
    ) {
        while elapsedMilliseconds < elapsed {
            elapsedMilliseconds += 1
            for symbol in symbols.indices { step(symbol, deliver) }
            goodbye(deliver, end)
        }
    }

    private mutating func step(_ index: Int, _ deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void) {
        for event in symbols[index].book.step() {
            let frames = symbols[index].frames
            var frame: [UInt8] = []
            let kind: Kind
            switch event {
            case .trade(let trade):
                kind = .trade
                if market == .spot { frames.trade(trade, into: &frame) } else { frames.aggregate(trade, into: &frame) }
            case .top(let top, let id, let milliseconds):
                kind = .top
                frames.top(top, id: id, milliseconds: milliseconds, into: &frame)
            case .depth(let diff):
                kind = .depth
                symbols[index].diffs += 1
                if let interval = faults.lostDiffInterval, symbols[index].diffs.isMultiple(of: interval) { continue }
                frames.depth(diff, into: &frame)
            }
            publish(frame, "\(frames.instrument.symbol.lowercased())@\(suffix(kind))", symbols[index].subscribers[kind.rawValue], deliver)
        }
    }

    private func publish(
        _ frame: [UInt8], _ stream: String, _ subscribers: [Client], _ deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void
    ) {
        let combined = subscribers.filter { clients[$0]?.isCombined == true }
        if combined.count < subscribers.count { deliver(subscribers.filter { !combined.contains($0) }, frame) }
        guard !combined.isEmpty else { return }
        deliver(combined, Array("{\"stream\":\"\(stream)\",\"data\":".utf8) + frame + [0x7d])
    }

    private mutating func goodbye(_ deliver: (_ clients: [Client], _ frame: [UInt8]) -> Void, _ end: (_ client: Client) -> Void) {
        if let interval = faults.goodbyeMilliseconds, elapsedMilliseconds.isMultiple(of: interval), !clients.isEmpty {
            deliver(clients.keys.sorted(), Array("{\"e\":\"serverShutdown\",\"E\":\(startMilliseconds + elapsedMilliseconds)}".utf8))
            for client in clients.keys { clients[client]?.endsAt = elapsedMilliseconds + 1_000 }
        }
        for client in clients.keys.sorted() where clients[client]?.endsAt == elapsedMilliseconds { end(client) }
    }

    // MARK: REST

    /// The answer to a GET; nil for a path there is not.
    package mutating func rest(path: String, query: String) -> Answer? {
        let root = market == .spot ? "/api/v3/" : market == .usdm ? "/fapi/v1/" : "/dapi/v1/"
        guard path.hasPrefix(root) else { return nil }
        switch path.dropFirst(root.count) {
        case "depth": return orderBook(query)
        case "exchangeInfo":
            instrumentsAnswered += 1
            return Answer(
                status: 200, body: instruments(firstIsChanged: faults.instrumentsBeforeChange.map { instrumentsAnswered > $0 } ?? false))
        default: return nil
        }
    }

    private mutating func orderBook(_ query: String) -> Answer {
        var symbol: Int?
        var limit = market == .spot ? 100 : 500
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts[0] == "symbol", parts.count == 2 { symbol = symbols.firstIndex { $0.frames.instrument.symbol == parts[1] } }
            if parts[0] == "limit", parts.count == 2 { limit = Int(parts[1]) ?? -1 }
        }
        guard let symbol else { return Answer(status: 400, body: Array("{\"code\":-1121,\"msg\":\"Invalid symbol.\"}".utf8)) }
        let allowed = market == .spot ? limit >= 1 && limit <= 5_000 : [5, 10, 20, 50, 100, 500, 1_000].contains(limit)
        guard allowed else {
            return Answer(status: 400, body: Array("{\"code\":-1130,\"msg\":\"Data sent for parameter 'limit' is not valid.\"}".utf8))
        }
        var body: [UInt8] = []
        if booksAnswered < faults.oldBooks {
            symbols[symbol].frames.snapshot(symbols[symbol].first, levels: limit, asOfLastDiff: true, into: &body)
        } else if refused < faults.refusals {
            refused += 1
            return Answer(status: 429, body: Array("{\"code\":-1003,\"msg\":\"Too many requests.\"}".utf8), retryAfterSeconds: 1)
        } else {
            symbols[symbol].frames.snapshot(symbols[symbol].book, levels: limit, asOfLastDiff: true, into: &body)
        }
        booksAnswered += 1
        return Answer(status: 200, body: body)
    }

    /// What `exchangeInfo` says of each symbol, as far as an edge reads it.
    private func instruments(firstIsChanged: Bool) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("timezone", string: "UTC")
        json.key("symbols")
        json.beginArray()
        for (index, symbol) in symbols.enumerated() {
            let instrument = symbol.frames.instrument
            let priceDigits = instrument.priceDigits - (firstIsChanged && index == 0 ? 1 : 0)
            json.beginObject()
            json.field("symbol", string: instrument.symbol)
            json.field(market == .coinm ? "contractStatus" : "status", string: "TRADING")
            if let size = market.contractSize(of: instrument.symbol) { json.field("contractSize", integer: size) }
            json.key("filters")
            json.beginArray()
            for (type, fields) in [
                ("PRICE_FILTER", [("tickSize", Self.step(priceDigits))]),
                ("LOT_SIZE", [("stepSize", Self.step(instrument.quantityDigits)), ("minQty", Self.step(instrument.quantityDigits))]),
                (market == .spot ? "NOTIONAL" : "MIN_NOTIONAL", [(market == .spot ? "minNotional" : "notional", "5")]),
            ] where market != .coinm || !type.hasPrefix("MIN") {
                json.beginObject()
                json.field("filterType", string: type)
                for (key, value) in fields {
                    json.key(data: key)
                    json.string(value)
                }
                json.endObject()
            }
            json.endArray()
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.bytes
    }

    private static func step(_ digits: Int) -> String {
        digits == 0 ? "1" : "0." + String(repeating: "0", count: digits - 1) + "1"
    }
}
