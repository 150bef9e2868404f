import CalibModel
import Wire

/// Why a frame was not used; counted per reason, never silent (SPEC 1.5, 3.1).
package enum FrameRejection: Int, CaseIterable, Sendable, Error {
    case notJSON, wrongType, missingField, nonFinite, overflow, tooDeep, offTick, offLot, outOfRange, tooManyLevels, unknownSymbol, badLine,
        notUTF8

    package var name: StaticString {
        switch self {
        case .notJSON: "not_json"
        case .wrongType: "wrong_type"
        case .missingField: "missing_field"
        case .nonFinite: "non_finite"
        case .overflow: "overflow"
        case .tooDeep: "too_deep"
        case .offTick: "off_tick"
        case .offLot: "off_lot"
        case .outOfRange: "out_of_range"
        case .tooManyLevels: "too_many_levels"
        case .unknownSymbol: "unknown_symbol"
        case .badLine: "bad_line"
        case .notUTF8: "not_utf8"
        }
    }

    init(_ error: JSONError) {
        switch error {
        case .syntax: self = .notJSON
        case .wrongType: self = .wrongType
        case .nonFinite: self = .nonFinite
        case .overflow: self = .overflow
        case .tooDeep: self = .tooDeep
        }
    }
}

/// How the venue's depth ids chain (SPEC 3.1, venue documentation "How to manage a local order book correctly").
package enum DepthChain: Sendable {
    /// First applied event: U <= lastUpdateId + 1 <= u; then U == previous u + 1.
    case spot
    /// First applied event: pu <= lastUpdateId <= u; then pu == previous u. U says nothing here: ids are shared across symbols.
    case futures
}

/// A price level in decimal text, as the venue sent it.
package struct RawLevel: Sendable {
    package var price: DecimalText
    package var quantity: DecimalText
}

/// How many of the digits stand behind the point, in every level of a side.
struct LevelPlaces: BitwiseCopyable {
    var price: Int
    var quantity: Int
    /// Every price ended with a zero, which is not among the digits.
    var leavesOutZero = false
}

/// What a Binance frame says. Levels are in the decoder's `bids` and `asks`; texts point into the frame.
package enum BinanceFrame {
    case depth(symbol: UnsafeRawBufferPointer, first: Int64, last: Int64, previous: Int64?, eventMilliseconds: Int64)
    case snapshot(symbol: UnsafeRawBufferPointer?, last: Int64, eventMilliseconds: Int64?)
    case trade(
        symbol: UnsafeRawBufferPointer, level: RawLevel, buyerIsMaker: Bool, consumesQueue: Bool, isAggregate: Bool,
        eventMilliseconds: Int64)
    case bookTicker(symbol: UnsafeRawBufferPointer, id: Int64, bid: RawLevel, ask: RawLevel, eventMilliseconds: Int64?)
    /// The venue will end this connection shortly (`serverShutdown`).
    case leaving
    /// A request that the venue did not grant.
    case refused
    /// Answers to requests and streams we do not use.
    case other
}

/// Decodes frames of Binance spot, USD-M and COIN-M, raw or wrapped as `{"stream", "data"}`: fields in any order, unknown ones skipped, decimals exact.
///
/// A frame is decoded whole before anything is applied, so a bad one never half-changes a book.
package struct BinanceDecoder: ~Copyable {
    package internal(set) var bidCount = 0
    package internal(set) var askCount = 0
    let levels: UnsafeMutablePointer<RawLevel>
    /// What stands there instead of `levels` for a side that has `sidePlaces`: the digits of both numbers, without their points.
    let digits: UnsafeMutablePointer<BookLevel>
    var sidePlaces: InlineArray<2, LevelPlaces?> = .init(repeating: nil)
    /// The levels in ticks and lots, once a symbol has read them (`SymbolState.read`).
    let converted: UnsafeMutablePointer<BookLevel>
    /// A copy of the frame with room behind it (`BinanceFastPath`).
    let copy: UnsafeMutableRawPointer

    package init() {
        levels = .allocate(capacity: 2 * Limits.frameLevelsMax)
        digits = .allocate(capacity: 2 * Limits.frameLevelsMax)
        converted = .allocate(capacity: 2 * Limits.frameLevelsMax)
        copy = .allocate(byteCount: Self.copyBytesMax + Self.padding, alignment: 16)
    }

    deinit {
        levels.deallocate()
        digits.deallocate()
        converted.deallocate()
        copy.deallocate()
    }

    package func bid(_ index: Int) -> RawLevel { level(index, side: 0) }
    package func ask(_ index: Int) -> RawLevel { level(index, side: 1) }

    private func level(_ index: Int, side: Int) -> RawLevel {
        let place = side * Limits.frameLevelsMax + index
        guard let places = sidePlaces[side] else { return levels[place] }
        let price = UInt64(bitPattern: digits[place].price)
        return RawLevel(
            price: places.leavesOutZero
                ? DecimalText(digits: price &* 10, places: places.price + 1) : DecimalText(digits: price, places: places.price),
            quantity: DecimalText(digits: UInt64(bitPattern: digits[place].quantity), places: places.quantity))
    }

    @inline(__always) package mutating func decode(_ bytes: UnsafeRawBufferPointer) throws(FrameRejection) -> BinanceFrame {
        guard let source = bytes.baseAddress, let (start, isWrapped) = opened(bytes) else { return try decodeAnyForm(bytes) }
        if let frame = predicted(start, isWrapped: isWrapped, source, bytes.count) { return frame }
        return try decode(bytes, start, isWrapped: isWrapped)
    }

    @inline(never) private mutating func decode(
        _ bytes: UnsafeRawBufferPointer, _ start: UsualReader, isWrapped: Bool
    ) throws(FrameRejection) -> BinanceFrame {
        var fields = Fields()
        if let source = bytes.baseAddress, usual(start, isWrapped: isWrapped, source, bytes.count, &fields) {
            return try frame(fields).get()
        }
        return try decodeAnyForm(bytes)
    }

    /// The same for any JSON, whatever its order and spaces.
    package mutating func decodeAnyForm(_ bytes: UnsafeRawBufferPointer) throws(FrameRejection) -> BinanceFrame {
        guard UTF8Check.isValid(bytes) else { throw .notUTF8 }
        var reader = JSONReader(bytes)
        let result: Result<BinanceFrame, FrameRejection>
        do throws(JSONError) { result = try whole(&reader) } catch { throw FrameRejection(error) }
        return try result.get()
    }

    private mutating func whole(_ reader: inout JSONReader) throws(JSONError) -> Result<BinanceFrame, FrameRejection> {
        var fields = Fields()
        try reader.beginObject()
        while let key = try reader.nextKey() {
            if key.equals("data") || key.equals("event") {
                guard try reader.peek() == .object else {
                    try reader.skip()
                    continue
                }
                fields = Fields()
                try reader.beginObject()
                while let inner = try reader.nextKey() { try read(inner, &reader, &fields) }
                fields.isWrapped = true
            } else if fields.isWrapped {
                try reader.skip()
            } else {
                try read(key, &reader, &fields)
            }
        }
        try reader.end()
        return fields.overflowed ? .failure(.tooManyLevels) : frame(fields)
    }

    /// Everything any of the frames carries; a frame is told by what is present, never by position.
    struct Fields {
        var isWrapped = false
        var overflowed = false
        var isError = false
        var event: UnsafeRawBufferPointer?
        var symbol: UnsafeRawBufferPointer?
        var eventMilliseconds: Int64?
        var first: Int64?
        var last: Int64?
        var previous: Int64?
        var snapshotLast: Int64?
        var hasBids = false
        var hasAsks = false
        var bidPrice: DecimalText?
        var bidQuantity: DecimalText?
        var askPrice: DecimalText?
        var askQuantity: DecimalText?
        var price: DecimalText?
        var quantity: DecimalText?
        var buyerIsMaker: Bool?
        var consumesQueue = true
    }

    private mutating func read(_ key: UnsafeRawBufferPointer, _ reader: inout JSONReader, _ fields: inout Fields) throws(JSONError) {
        guard key.count == 1 else {
            if key.equals("pu") {
                fields.previous = try reader.integer()
            } else if key.equals("lastUpdateId") {
                fields.snapshotLast = try reader.integer()
            } else if key.equals("bids") {
                bidCount = try readLevels(&reader, side: 0, &fields)
                fields.hasBids = true
            } else if key.equals("asks") {
                askCount = try readLevels(&reader, side: 1, &fields)
                fields.hasAsks = true
            } else if key.equals("symbol"), try reader.peek() == .string {
                fields.symbol = try reader.string()
            } else if key.equals("code") || key.equals("error") {
                fields.isError = true
                try reader.skip()
            } else {
                try reader.skip()
            }
            return
        }
        switch key[0] {
        case UInt8(ascii: "e") where try reader.peek() == .string: fields.event = try reader.string()
        case UInt8(ascii: "s") where try reader.peek() == .string: fields.symbol = try reader.string()
        case UInt8(ascii: "E"): fields.eventMilliseconds = try reader.integer()
        case UInt8(ascii: "U"): fields.first = try reader.integer()
        case UInt8(ascii: "u"): fields.last = try reader.integer()
        case UInt8(ascii: "b"):
            // Levels in a depth event, a price in a bookTicker, an order id in old spot trades.
            switch try reader.peek() {
            case .array:
                bidCount = try readLevels(&reader, side: 0, &fields)
                fields.hasBids = true
            case .string: fields.bidPrice = try decimal(&reader)
            default: try reader.skip()
            }
        case UInt8(ascii: "a"):
            switch try reader.peek() {
            case .array:
                askCount = try readLevels(&reader, side: 1, &fields)
                fields.hasAsks = true
            case .string: fields.askPrice = try decimal(&reader)
            default: try reader.skip()
            }
        case UInt8(ascii: "B"): fields.bidQuantity = try decimal(&reader)
        case UInt8(ascii: "A"): fields.askQuantity = try decimal(&reader)
        case UInt8(ascii: "p"): fields.price = try decimal(&reader)
        case UInt8(ascii: "q"): fields.quantity = try decimal(&reader)
        case UInt8(ascii: "m"): fields.buyerIsMaker = try reader.boolean()
        case UInt8(ascii: "X"): fields.consumesQueue = try reader.string().equals("MARKET")
        default: try reader.skip()
        }
    }

    private func frame(_ fields: Fields) -> Result<BinanceFrame, FrameRejection> {
        if let last = fields.snapshotLast {
            guard fields.hasBids, fields.hasAsks else { return .failure(.missingField) }
            return .success(.snapshot(symbol: fields.symbol, last: last, eventMilliseconds: fields.eventMilliseconds))
        }
        if let event = fields.event {
            if event.equals("depthUpdate") {
                guard let symbol = fields.symbol, let first = fields.first, let last = fields.last, let time = fields.eventMilliseconds,
                    fields.hasBids, fields.hasAsks
                else { return .failure(.missingField) }
                return .success(.depth(symbol: symbol, first: first, last: last, previous: fields.previous, eventMilliseconds: time))
            }
            let isAggregate = event.equals("aggTrade")
            if isAggregate || event.equals("trade") {
                guard let symbol = fields.symbol, let price = fields.price, let quantity = fields.quantity,
                    let time = fields.eventMilliseconds,
                    let buyerIsMaker = fields.buyerIsMaker
                else { return .failure(.missingField) }
                return .success(
                    .trade(
                        symbol: symbol, level: RawLevel(price: price, quantity: quantity), buyerIsMaker: buyerIsMaker,
                        consumesQueue: fields.consumesQueue, isAggregate: isAggregate, eventMilliseconds: time))
            }
            if event.equals("serverShutdown") { return .success(.leaving) }
            guard event.equals("bookTicker") else { return .success(.other) }
        }
        // Spot bookTickers carry neither "e" nor "E".
        if let bid = fields.bidPrice, let ask = fields.askPrice {
            guard let symbol = fields.symbol, let id = fields.last, let bidQuantity = fields.bidQuantity,
                let askQuantity = fields.askQuantity
            else { return .failure(.missingField) }
            return .success(
                .bookTicker(
                    symbol: symbol, id: id, bid: RawLevel(price: bid, quantity: bidQuantity),
                    ask: RawLevel(price: ask, quantity: askQuantity),
                    eventMilliseconds: fields.eventMilliseconds))
        }
        if fields.event != nil { return .failure(.missingField) }
        return .success(fields.isError ? .refused : .other)
    }

    private mutating func readLevels(_ reader: inout JSONReader, side: Int, _ fields: inout Fields) throws(JSONError) -> Int {
        let target = levels + side * Limits.frameLevelsMax
        sidePlaces[side] = nil
        var count = 0
        try reader.beginArray()
        while try reader.nextElement() {
            try reader.beginArray()
            let start = reader.offset
            guard try reader.nextElement() else { throw .wrongType(at: start) }
            let price = try decimal(&reader)
            guard try reader.nextElement() else { throw .wrongType(at: start) }
            let quantity = try decimal(&reader)
            while try reader.nextElement() { try reader.skip() }  // Old spot frames end a level with an empty array.
            if count == Limits.frameLevelsMax {
                fields.overflowed = true
            } else {
                target[count] = RawLevel(price: price, quantity: quantity)
                count += 1
            }
        }
        return count
    }

    private func decimal(_ reader: inout JSONReader) throws(JSONError) -> DecimalText {
        let start = reader.offset
        guard let decimal = try reader.decimal() else { throw .wrongType(at: start) }
        return decimal
    }
}
