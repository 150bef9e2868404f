import CalibModel
import Wire

/// What Bybit sells under one symbol name: one websocket connection carries one category, and BTCUSDT exists in several (SPEC 3.1).
package enum BybitCategory: String, CaseIterable, Sendable {
    case linear, spot

    /// The path of the public websocket: which category a connection carries is said nowhere else.
    package var path: String { "/v5/public/" + rawValue }
}

/// One public trade, as the venue sent it.
package struct BybitTrade: Sendable {
    package var level: RawLevel
    package var aggressor: Side
    /// False for block and retail-price-improvement trades: they meet no order of the book (SPEC 4.5).
    package var consumesQueue: Bool
}

/// What a Bybit frame says. Levels and trades are in the decoder; texts point into the frame. Times are the data service's (`ts`).
package enum BybitFrame {
    /// `orderbook.{depth}.{symbol}`, depth above 1. A delta with `u` 1 tells of a restarted service and is a snapshot.
    case book(symbol: UnsafeRawBufferPointer, depth: Int, isSnapshot: Bool, update: Int64, eventMilliseconds: Int64)
    case trades(symbol: UnsafeRawBufferPointer, eventMilliseconds: Int64)
    /// The answer to our ping: everything the venue sent before it has arrived.
    case pong
    /// A request the venue did not grant, such as a subscription to a topic that does not exist.
    case refused
    /// Tickers, klines, acks, and topics we do not use.
    case other
}

/// Decodes frames of Bybit's v5 public websocket: fields in any order (it differs between categories), unknown ones skipped, decimals exact.
///
/// A frame is decoded whole before anything is applied, so a bad one never half-changes a book.
package struct BybitDecoder: ~Copyable {
    package private(set) var bidCount = 0
    package private(set) var askCount = 0
    package private(set) var tradeCount = 0
    /// `seq` of the last book frame: rises with time across the symbol's topics and REST. `Int64.min` when it has none.
    package private(set) var sequence: Int64 = .min
    let levels: UnsafeMutablePointer<RawLevel>
    /// The levels in ticks and lots, once a symbol has read them (`SymbolState.read`).
    let converted: UnsafeMutablePointer<BookLevel>
    private let trades: UnsafeMutablePointer<BybitTrade>

    package init() {
        levels = .allocate(capacity: 2 * Limits.frameLevelsMax)
        converted = .allocate(capacity: 2 * Limits.frameLevelsMax)
        trades = .allocate(capacity: Limits.frameTradesMax)
    }

    deinit {
        levels.deallocate()
        converted.deallocate()
        trades.deallocate()
    }

    package func bid(_ index: Int) -> RawLevel { levels[index] }
    package func ask(_ index: Int) -> RawLevel { levels[Limits.frameLevelsMax + index] }
    package func trade(_ index: Int) -> BybitTrade { trades[index] }

    package mutating func decode(_ bytes: UnsafeRawBufferPointer) throws(FrameRejection) -> BybitFrame {
        guard UTF8Check.isValid(bytes) else { throw .notUTF8 }
        var reader = JSONReader(bytes)
        let result: Result<BybitFrame, FrameRejection>
        do throws(JSONError) { result = try whole(&reader) } catch { throw FrameRejection(error) }
        return try result.get()
    }

    // MARK: Envelope

    /// What a topic's data is read as.
    private enum Topic {
        case book(symbol: UnsafeRawBufferPointer, depth: Int)
        case trades(symbol: UnsafeRawBufferPointer)
        case unused

        init(_ text: UnsafeRawBufferPointer) {
            self = .unused
            if let symbol = Self.rest(of: text, after: "publicTrade.") {
                self = .trades(symbol: symbol)
            } else if let rest = Self.rest(of: text, after: "orderbook.") {
                var depth = 0
                var index = 0
                while index < rest.count, index < 6, rest[index] &- 0x30 < 10 {
                    depth = depth * 10 + Int(rest[index] &- 0x30)
                    index += 1
                }
                // Depth 1 is a stream of best prices without a chain.
                guard depth > 1, index < rest.count, rest[index] == UInt8(ascii: ".") else { return }
                self = .book(symbol: UnsafeRawBufferPointer(rebasing: rest[(index + 1)...]), depth: depth)
            }
        }

        private static func rest(of text: UnsafeRawBufferPointer, after prefix: StaticString) -> UnsafeRawBufferPointer? {
            let count = prefix.utf8CodeUnitCount
            guard text.count > count, UnsafeRawBufferPointer(rebasing: text[..<count]).equals(prefix) else { return nil }
            return UnsafeRawBufferPointer(rebasing: text[count...])
        }
    }

    private struct Fields {
        var topic: Topic?
        var isSnapshot: Bool?
        var eventMilliseconds: Int64?
        var success: Bool?
        var isPong = false
        var data = Data()
        /// Something that no valid frame has, although it is JSON.
        var failure: FrameRejection?
    }

    private struct Data {
        var isPresent = false
        var symbol: UnsafeRawBufferPointer?
        var update: Int64?
        var hasBids = false
        var hasAsks = false
    }

    private mutating func whole(_ reader: inout JSONReader) throws(JSONError) -> Result<BybitFrame, FrameRejection> {
        var fields = Fields()
        /// Where data began that came before its topic.
        var waiting: JSONReader?
        try reader.beginObject()
        while let key = try reader.nextKey() {
            if key.equals("topic") {
                // A second topic would leave it open which one the data belongs to.
                if fields.topic != nil { fields.failure = .wrongType }
                fields.topic = Topic(try reader.string())
            } else if key.equals("data") {
                if fields.topic == nil {
                    waiting = reader
                    try reader.skip()
                } else {
                    try readData(&reader, &fields)
                }
            } else if key.equals("type") {
                let type = try reader.string()
                fields.isSnapshot = type.equals("snapshot") ? true : type.equals("delta") ? false : nil
            } else if key.equals("ts") {
                fields.eventMilliseconds = try reader.integer()
            } else if key.equals("success"), try reader.peek() == .boolean {
                fields.success = try reader.boolean()
            } else if key.equals("op") || key.equals("ret_msg"), try reader.peek() == .string {
                // Linear and spot answer op "ping", ret_msg "pong"; other services op "pong".
                if try reader.string().equals("pong") { fields.isPong = true }
            } else {
                try reader.skip()
            }
        }
        try reader.end()
        if var waiting, fields.topic != nil { try readData(&waiting, &fields) }
        if let failure = fields.failure { return .failure(failure) }
        return frame(fields)
    }

    private func frame(_ fields: Fields) -> Result<BybitFrame, FrameRejection> {
        let data = fields.data
        switch fields.topic {
        case nil: return .success(fields.success == false ? .refused : fields.isPong ? .pong : .other)
        case .unused: return .success(.other)
        case .book(let symbol, let depth):
            guard data.hasBids, data.hasAsks, let update = data.update, let named = data.symbol, let time = fields.eventMilliseconds,
                let isSnapshot = fields.isSnapshot
            else { return .failure(.missingField) }
            guard named.elementsEqual(symbol) else { return .failure(.unknownSymbol) }
            guard update > 0 else { return .failure(.outOfRange) }
            return .success(
                .book(symbol: symbol, depth: depth, isSnapshot: isSnapshot || update == 1, update: update, eventMilliseconds: time))
        case .trades(let symbol):
            guard data.isPresent, let time = fields.eventMilliseconds else { return .failure(.missingField) }
            return .success(.trades(symbol: symbol, eventMilliseconds: time))
        }
    }

    // MARK: Data

    private mutating func readData(_ reader: inout JSONReader, _ fields: inout Fields) throws(JSONError) {
        fields.data = Data()
        switch fields.topic {
        case nil, .unused: try reader.skip()
        case .book: try readBook(&reader, &fields)
        case .trades(let symbol): try readTrades(&reader, symbol, &fields)
        }
        fields.data.isPresent = true
    }

    private mutating func readBook(_ reader: inout JSONReader, _ fields: inout Fields) throws(JSONError) {
        bidCount = 0
        askCount = 0
        sequence = .min
        try reader.beginObject()
        while let key = try reader.nextKey() {
            guard key.count == 1 else {
                if key.equals("seq") { sequence = try reader.integer() } else { try reader.skip() }
                continue
            }
            switch key[0] {
            case UInt8(ascii: "s"): fields.data.symbol = try reader.string()
            case UInt8(ascii: "u"): fields.data.update = try reader.integer()
            case UInt8(ascii: "b"):
                bidCount = try readLevels(&reader, side: 0, &fields)
                fields.data.hasBids = true
            case UInt8(ascii: "a"):
                askCount = try readLevels(&reader, side: 1, &fields)
                fields.data.hasAsks = true
            default: try reader.skip()
            }
        }
    }

    private mutating func readLevels(_ reader: inout JSONReader, side: Int, _ fields: inout Fields) throws(JSONError) -> Int {
        let target = levels + side * Limits.frameLevelsMax
        var count = 0
        try reader.beginArray()
        while try reader.nextElement() {
            try reader.beginArray()
            let start = reader.offset
            guard try reader.nextElement() else { throw .wrongType(at: start) }
            let price = try decimal(&reader)
            guard try reader.nextElement() else { throw .wrongType(at: start) }
            let quantity = try decimal(&reader)
            while try reader.nextElement() { try reader.skip() }
            if count == Limits.frameLevelsMax {
                fields.failure = .tooManyLevels
            } else {
                target[count] = RawLevel(price: price, quantity: quantity)
                count += 1
            }
        }
        return count
    }

    private mutating func readTrades(_ reader: inout JSONReader, _ symbol: UnsafeRawBufferPointer, _ fields: inout Fields)
        throws(JSONError)
    {
        tradeCount = 0
        try reader.beginArray()
        while try reader.nextElement() {
            var price: DecimalText?
            var quantity: DecimalText?
            var aggressor: Side?
            var isNamed = false
            var consumesQueue = true
            try reader.beginObject()
            while let key = try reader.nextKey() {
                if key.equals("p") {
                    price = try decimal(&reader)
                } else if key.equals("v") {
                    quantity = try decimal(&reader)
                } else if key.equals("S") {
                    let side = try reader.string()
                    aggressor = side.equals("Buy") ? .buy : side.equals("Sell") ? .sell : nil
                } else if key.equals("s") {
                    if try reader.string().elementsEqual(symbol) { isNamed = true } else { fields.failure = .unknownSymbol }
                } else if key.equals("BT") || key.equals("RPI") {
                    if try reader.boolean() { consumesQueue = false }
                } else {
                    try reader.skip()
                }
            }
            guard let price, let quantity, let aggressor, isNamed else {
                if fields.failure == nil { fields.failure = .missingField }
                continue
            }
            if tradeCount == Limits.frameTradesMax {
                fields.failure = .tooManyLevels
            } else {
                trades[tradeCount] = BybitTrade(
                    level: RawLevel(price: price, quantity: quantity), aggressor: aggressor, consumesQueue: consumesQueue)
                tradeCount += 1
            }
        }
    }

    private func decimal(_ reader: inout JSONReader) throws(JSONError) -> DecimalText {
        let start = reader.offset
        guard let decimal = try reader.decimal() else { throw .wrongType(at: start) }
        return decimal
    }
}

/// What an edge says to Bybit's v5 public websocket: one text frame each.
package enum BybitWire {
    /// The book depth we quote from: the touch and more levels than the queue and depth measures look at, pushed each 20 ms.
    package static let depth = 50
    /// Spot refuses a request with more topics.
    package static let topicsPerRequestMax = 10
    /// REST requests the venue allows an address: 600 in 5 s.
    package static let requestsPerMinute: Int64 = 7_200

    /// Books and trades of all symbols in one request. For more than `topicsPerRequestMax` topics take `subscriptions`.
    package static func subscribe(symbols: [String], depth: Int = depth, trades: Bool = true) -> [UInt8] {
        request("subscribe", topics(symbols, depth, trades))
    }

    package static func unsubscribe(symbols: [String], depth: Int = depth, trades: Bool = true) -> [UInt8] {
        request("unsubscribe", topics(symbols, depth, trades))
    }

    /// As many requests as the venue's limit of topics asks for.
    package static func subscriptions(symbols: [String], depth: Int = depth) -> [[UInt8]] {
        let symbolsPerRequest = topicsPerRequestMax / 2
        return stride(from: 0, to: symbols.count, by: symbolsPerRequest).map { start in
            subscribe(symbols: Array(symbols[start..<min(symbols.count, start + symbolsPerRequest)]), depth: depth)
        }
    }

    /// What asks for a new snapshot of one book, in this order: only a new subscription is answered with one. Trades go on.
    package static func resubscriptions(symbol: String, depth: Int = depth) -> [[UInt8]] {
        [
            unsubscribe(symbols: [symbol], depth: depth, trades: false),
            subscribe(symbols: [symbol], depth: depth, trades: false),
        ]
    }

    /// The order book over REST, best levels first.
    package static func orderBookPath(_ category: BybitCategory, symbol: String, levels: Int) -> String {
        "/v5/market/orderbook?category=\(category.rawValue)&symbol=\(symbol)&limit=\(levels)"
    }

    /// Where the REST interface of one of Bybit's own streams is; nil for another host.
    package static func publicREST(ofStream host: String) -> String? {
        switch host {
        case "stream.bybit.com": "https://api.bybit.com"
        case "stream-testnet.bybit.com": "https://api-testnet.bybit.com"
        default: nil
        }
    }

    package static func ping() -> [UInt8] { Array(#"{"op":"ping"}"#.utf8) }

    private static func topics(_ symbols: [String], _ depth: Int, _ trades: Bool) -> [String] {
        symbols.flatMap { ["orderbook.\(depth).\($0)"] + (trades ? ["publicTrade.\($0)"] : []) }
    }

    private static func request(_ operation: StaticString, _ topics: [String]) -> [UInt8] {
        var out = JSONWriter()
        out.beginObject()
        out.key("op")
        out.string(operation)
        out.key("args")
        out.beginArray()
        for topic in topics { out.string(topic) }
        out.endArray()
        out.endObject()
        return out.bytes
    }
}
