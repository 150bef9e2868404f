import CalibModel
import Wire

/// Frames as Binance writes them: no white space, ASCII, keys of one letter (and `pu`), short numbers.
///
/// Such a frame is read in one go over a copy with room behind it, so that eight and sixteen bytes may be loaded at any place without asking how
/// many are left. Whatever is not exactly of this form (an escape, a space, an exponent, another key) makes the reader give up, and
/// `decodeAnyForm` reads the frame from its beginning: it alone decides what is an error, and which. A test holds both against each other.
///
/// Invariants:
/// 1. Behind the copy stand zeros. No zero is part of any form, so nothing is read that lies more than `padding` behind the end.
/// 2. A frame read to its end here gives the fields that `decodeAnyForm` gives.
extension BinanceDecoder {
    /// The longest frame of a diff stream recorded has 20 KB. Snapshots have other keys and are not read here.
    static let copyBytesMax = 65_536
    static let padding = 64

    /// True when the frame is of the usual form; `fields`, levels and counts are then its own. False leaves them in no particular state.
    mutating func usual(_ bytes: UnsafeRawBufferPointer, _ fields: inout Fields) -> Bool {
        guard let (start, isWrapped) = opened(bytes), let source = bytes.baseAddress else { return false }
        return usual(start, isWrapped: isWrapped, source, bytes.count, &fields)
    }

    /// The same of a frame that `opened` has read the beginning of.
    mutating func usual(
        _ start: UsualReader, isWrapped: Bool, _ source: UnsafeRawPointer, _ count: Int, _ fields: inout Fields
    ) -> Bool {
        var reader = start
        guard object(&reader, &fields, source) else { return false }
        if isWrapped {
            guard reader.take(byte: 0x7d) else { return false }
            fields.isWrapped = true
        }
        return reader.offset(from: copy) == count
    }

    /// Copies the frame and reads up to behind the brace that its fields follow; nil when it is not of the usual form.
    func opened(_ bytes: UnsafeRawBufferPointer) -> (start: UsualReader, isWrapped: Bool)? {
        guard let source = bytes.baseAddress, bytes.count >= 32, bytes.count <= Self.copyBytesMax, copyASCII(source, bytes.count) else {
            return nil
        }
        var reader = UsualReader(UnsafeRawPointer(copy))
        let isWrapped = reader.take(Self.streamKey)
        if isWrapped {
            guard reader.skipText(), reader.take(Self.dataKey), reader.take(byte: 0x7b) else { return nil }
        } else {
            guard reader.take(byte: 0x7b) else { return nil }
        }
        return (reader, isWrapped)
    }

    /// A trade or a bookTicker with its fields in the order in which the venue writes them: nine of ten frames. Each key is where it is expected,
    /// so nothing is looked up and nothing is kept but the values. Nil for every other frame.
    func predicted(
        _ start: UsualReader, isWrapped: Bool, _ source: UnsafeRawPointer, _ count: Int
    ) -> BinanceFrame? {
        var reader = start
        guard let frame = reader.take("\"e\":\"") ? event(&reader, source) : ticker(&reader, hasTimes: false, source),
            reader.take(byte: 0x7d), !isWrapped || reader.take(byte: 0x7d), reader.offset(from: copy) == count
        else { return nil }
        return frame
    }

    @inline(__always) private func event(_ reader: inout UsualReader, _ source: UnsafeRawPointer) -> BinanceFrame? {
        if reader.take("bookTick") {
            return reader.take("er\",") ? ticker(&reader, hasTimes: true, source) : nil
        }
        let isAggregate = reader.take("aggTrade")
        guard isAggregate ? reader.take("\"") : reader.take("trade\"") else { return nil }
        return trade(&reader, isAggregate: isAggregate, source)
    }

    /// Futures: `"u", "s", "b", "B", "a", "A", "T", "E"`; spot has no times.
    @inline(__always) private func ticker(_ reader: inout UsualReader, hasTimes: Bool, _ source: UnsafeRawPointer) -> BinanceFrame? {
        guard reader.take("\"u\":"), let id = reader.integer(),
            reader.take(",\"s\":"), let symbol = reader.text(),
            reader.take(",\"b\":"), let bidPrice = reader.decimal(), reader.take(",\"B\":"), let bidQuantity = reader.decimal(),
            reader.take(",\"a\":"), let askPrice = reader.decimal(), reader.take(",\"A\":"), let askQuantity = reader.decimal()
        else { return nil }
        var milliseconds: Int64?
        if hasTimes {
            guard reader.take(",\"T\":"), reader.integer() != nil, reader.take(",\"E\":"), let time = reader.integer() else { return nil }
            milliseconds = time
        }
        return .bookTicker(
            symbol: original(symbol, source), id: id, bid: RawLevel(price: bidPrice, quantity: bidQuantity),
            ask: RawLevel(price: askPrice, quantity: askQuantity), eventMilliseconds: milliseconds)
    }

    /// Futures' trades: `"E", "T", "s", "t", "p", "q", "X", "m"`; spot's: `"E", "s", "t", "p", "q", "T", "m", "M"`; aggregates:
    /// `"E", "a", "s", "p", "q", "f", "l", "T", "m"`, and `"M"` on spot.
    @inline(__always) private func trade(_ reader: inout UsualReader, isAggregate: Bool, _ source: UnsafeRawPointer) -> BinanceFrame? {
        guard reader.take(",\"E\":"), let milliseconds = reader.integer() else { return nil }
        if reader.take(",\"T\":") { guard reader.integer() != nil else { return nil } }
        if reader.take(",\"a\":") { guard reader.integer() != nil else { return nil } }
        guard reader.take(",\"s\":"), let symbol = reader.text() else { return nil }
        if reader.take(",\"t\":") { guard reader.integer() != nil else { return nil } }
        guard reader.take(",\"p\":"), let price = reader.decimal(), reader.take(",\"q\":"), let quantity = reader.decimal() else {
            return nil
        }
        if reader.take(",\"f\":") {
            guard reader.integer() != nil, reader.take(",\"l\":"), reader.integer() != nil else { return nil }
        }
        if reader.take(",\"T\":") { guard reader.integer() != nil else { return nil } }
        var consumesQueue = true
        if reader.take(",\"X\":") {
            guard let kind = reader.text() else { return nil }
            consumesQueue = kind.equals("MARKET")
        }
        guard reader.take(",\"m\":"), let buyerIsMaker = reader.boolean() else { return nil }
        if reader.take(",\"M\":") { guard reader.boolean() != nil else { return nil } }
        return .trade(
            symbol: original(symbol, source), level: RawLevel(price: price, quantity: quantity), buyerIsMaker: buyerIsMaker,
            consumesQueue: consumesQueue, isAggregate: isAggregate, eventMilliseconds: milliseconds)
    }

    /// `{"stream`, then `":"`.
    private static var streamKey: (UInt64, UInt64) { (UsualReader.word("{\"stream"), UsualReader.word("am\":\"")) }
    /// `,"data":`
    private static var dataKey: UInt64 { UsualReader.word(",\"data\":") }

    /// False when a byte is not ASCII.
    private func copyASCII(_ source: UnsafeRawPointer, _ count: Int) -> Bool {
        var seen = SIMD4<UInt64>.zero
        var index = 0
        while true {
            let words = source.loadUnaligned(fromByteOffset: index, as: SIMD4<UInt64>.self)
            copy.storeBytes(of: words, toByteOffset: index, as: SIMD4<UInt64>.self)
            seen |= words
            if index &+ 32 >= count { break }
            index = min(index &+ 32, count &- 32)  // The last 32 bytes overlap those before.
        }
        copy.storeBytes(of: .zero, toByteOffset: count, as: SIMD4<UInt64>.self)
        copy.storeBytes(of: .zero, toByteOffset: count &+ 32, as: SIMD4<UInt64>.self)
        return (seen[0] | seen[1] | seen[2] | seen[3]) & 0x8080_8080_8080_8080 == 0
    }

    /// Everything from behind the opening brace to behind the closing one.
    private mutating func object(_ reader: inout UsualReader, _ fields: inout Fields, _ source: UnsafeRawPointer) -> Bool {
        while true {
            guard let key = reader.key() else { return false }
            switch key {
            case UInt8(ascii: "e"):
                guard let text = reader.text() else { return false }
                fields.event = original(text, source)
            case UInt8(ascii: "s"):
                guard let text = reader.text() else { return false }
                fields.symbol = original(text, source)
            case UInt8(ascii: "E"):
                guard let value = reader.integer() else { return false }
                fields.eventMilliseconds = value
            case UInt8(ascii: "U"):
                guard let value = reader.integer() else { return false }
                fields.first = value
            case UInt8(ascii: "u"):
                guard let value = reader.integer() else { return false }
                fields.last = value
            case UsualReader.previousKey:
                guard let value = reader.integer() else { return false }
                fields.previous = value
            case UInt8(ascii: "b"):
                if reader.isAt(0x22) {
                    guard let value = reader.decimal() else { return false }
                    fields.bidPrice = value
                } else if reader.isAt(0x5b) {
                    guard readLevels(&reader, side: 0) else { return false }
                    fields.hasBids = true
                } else if reader.integer() == nil {
                    // An order's id in old spot trades is none of it, but must be a value.
                    return false
                }
            case UInt8(ascii: "a"):
                if reader.isAt(0x22) {
                    guard let value = reader.decimal() else { return false }
                    fields.askPrice = value
                } else if reader.isAt(0x5b) {
                    guard readLevels(&reader, side: 1) else { return false }
                    fields.hasAsks = true
                } else if reader.integer() == nil {
                    // An order's id in old spot trades is none of it, but must be a value.
                    return false
                }
            case UInt8(ascii: "B"):
                guard let value = reader.decimal() else { return false }
                fields.bidQuantity = value
            case UInt8(ascii: "A"):
                guard let value = reader.decimal() else { return false }
                fields.askQuantity = value
            case UInt8(ascii: "p"):
                guard let value = reader.decimal() else { return false }
                fields.price = value
            case UInt8(ascii: "q"):
                guard let value = reader.decimal() else { return false }
                fields.quantity = value
            case UInt8(ascii: "m"):
                guard let value = reader.boolean() else { return false }
                fields.buyerIsMaker = value
            case UInt8(ascii: "X"):
                guard let text = reader.text() else { return false }
                fields.consumesQueue = text.equals("MARKET")
            default:
                // Such as "T" and "t": nothing we use, but it must be a value.
                if reader.isAt(0x22) {
                    guard reader.text() != nil else { return false }
                } else if reader.integer() == nil {
                    guard reader.boolean() != nil else { return false }
                }
            }
            if reader.take(byte: 0x2c) { continue }
            return reader.take(byte: 0x7d)
        }
    }

    /// One side's levels: all of one form nearly always.
    private mutating func readLevels(_ reader: inout UsualReader, side: Int) -> Bool {
        let target = side * Limits.frameLevelsMax
        var places = LevelPlaces(price: 0, quantity: 0)
        let start = reader
        // Many instruments' prices have a place more than their tick needs, always 0.
        var count = reader.digits(into: digits + target, &places, dropsLastZero: true)
        if count == nil {
            reader = start
            count = reader.digits(into: digits + target, &places, dropsLastZero: false)
        }
        sidePlaces[side] = count == nil ? nil : places
        if count == nil {
            reader = start
            count = reader.levels(into: levels + target)
        }
        guard let count else { return false }
        if side == 0 { bidCount = count } else { askCount = count }
        return true
    }

    /// A text of the copy, where it stands in the frame.
    @inline(__always) private func original(_ text: UnsafeRawBufferPointer, _ source: UnsafeRawPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: text.baseAddress.map { source + ($0 - UnsafeRawPointer(copy)) }, count: text.count)
    }
}

/// Reads the usual form from a place in the copy. Each method moves behind what it read, or answers that it is of another form.
struct UsualReader {
    private var place: UnsafeRawPointer

    init(_ start: UnsafeRawPointer) { place = start }

    /// What `key` answers for `"pu":`.
    static let previousKey: UInt8 = 0

    func offset(from start: UnsafeMutableRawPointer) -> Int { place - UnsafeRawPointer(start) }

    @inline(__always) func isAt(_ byte: UInt8) -> Bool { place.load(as: UInt8.self) == byte }

    @inline(__always) mutating func take(byte: UInt8) -> Bool {
        guard isAt(byte) else { return false }
        place += 1
        return true
    }

    /// At most eight bytes.
    @inline(__always) mutating func take(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        let mask = ~UInt64(0) &>> UInt64(truncatingIfNeeded: 64 &- 8 &* count)
        guard (place.loadUnaligned(as: UInt64.self) ^ Self.word(text)) & mask == 0 else { return false }
        place += count
        return true
    }

    @inline(__always) static func word(_ text: StaticString) -> UInt64 {
        var result: UInt64 = 0
        for index in 0..<text.utf8CodeUnitCount { result |= UInt64(text.utf8Start[index]) << UInt64(8 * index) }
        return result
    }

    @inline(__always) mutating func take(_ word: UInt64) -> Bool {
        guard place.loadUnaligned(as: UInt64.self) == word else { return false }
        place += 8
        return true
    }

    /// The first eight bytes, and the five that begin at the seventh.
    @inline(__always) mutating func take(_ words: (UInt64, UInt64)) -> Bool {
        guard place.loadUnaligned(as: UInt64.self) == words.0,
            place.loadUnaligned(fromByteOffset: 6, as: UInt64.self) & 0xff_ffff_ffff == words.1
        else { return false }
        place += 11
        return true
    }

    /// A key of one letter with its colon.
    @inline(__always) mutating func key() -> UInt8? {
        let word = place.loadUnaligned(as: UInt64.self)
        if word & 0xffff_00ff == 0x3a22_0022 {
            place += 4
            let letter = UInt8(truncatingIfNeeded: word >> 8)
            // A backslash or a control character is none, and zero stands for "pu".
            return letter > 0x20 && letter != 0x5c && letter != 0x22 ? letter : nil
        }
        guard word & 0xff_ffff_ffff == 0x3a_2275_7022 else { return nil }
        place += 5
        return Self.previousKey
    }

    /// Up to the quote that closes it; the opening one has been read.
    @inline(__always) mutating func skipText() -> Bool {
        while true {
            let marks = JSONReader.notPlain(place.loadUnaligned(as: UInt64.self))
            place += marks.trailingZeroBitCount &>> 3
            if marks != 0 { return take(byte: 0x22) }
        }
    }

    @inline(__always) mutating func text() -> UnsafeRawBufferPointer? {
        guard take(byte: 0x22) else { return nil }
        let start = place
        guard skipText() else { return nil }
        return UnsafeRawBufferPointer(start: start, count: place - start - 1)
    }

    /// Up to 15 digits without a sign.
    @inline(__always) mutating func integer() -> Int64? {
        let low = DigitWord(place.loadUnaligned(as: UInt64.self))
        // Milliseconds since the epoch have 13 digits, and so have many ids.
        let last = DigitWord(place.loadUnaligned(fromByteOffset: 5, as: UInt64.self))
        if low.isAllDigits, last.isAllDigits, place.load(fromByteOffset: 13, as: UInt8.self) &- 0x30 > 9, low.value & 0xff != 0 {
            place += 13
            return Int64(truncatingIfNeeded: low.number / 1_000 &* 100_000_000 &+ last.number)
        }
        return integerOfAnyLength(low)
    }

    private mutating func integerOfAnyLength(_ low: DigitWord) -> Int64? {
        let high = DigitWord(place.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        let others = low.others | high.others &<< 8
        let count = others.trailingZeroBitCount
        guard others != 0, count > 0, count == 1 || low.value & 0xff != 0 else { return nil }
        place += count
        return Int64(truncatingIfNeeded: DigitWord.value(of: low, high, count: count))
    }

    @inline(__always) mutating func boolean() -> Bool? {
        let word = place.loadUnaligned(as: UInt64.self)
        if word & 0xffff_ffff == 0x6575_7274 {
            place += 4
            return true
        }
        guard word & 0xff_ffff_ffff == 0x65_736c_6166 else { return nil }
        place += 5
        return false
    }

    @inline(__always) mutating func decimal() -> DecimalText? {
        guard isAt(0x22) else { return nil }
        if let short = DecimalText.short(at: place + 1), place.load(fromByteOffset: short.length &+ 1, as: UInt8.self) == 0x22 {
            place += short.length &+ 2
            return DecimalText(short)
        }
        return longDecimal()
    }

    @inline(never) private mutating func longDecimal() -> DecimalText? {
        var length = 0
        guard let decimal = DecimalText(usualAt: place + 1, length: &length) else { return nil }
        place += length &+ 2
        return decimal
    }

    /// `[["1.0","2.00"],["3.5","4.00"]]`, short numbers with the same places in each: how many there are; nil for others.
    ///
    /// - Parameter dropsLastZero: every price's last digit stands behind the point, is 0, and is left out.
    mutating func digits(into target: UnsafeMutablePointer<BookLevel>, _ places: inout LevelPlaces, dropsLastZero: Bool) -> Int? {
        guard take(byte: 0x5b) else { return nil }
        if take(byte: 0x5d) { return 0 }
        guard place.loadUnaligned(as: UInt16.self) == 0x225b else { return nil }
        var place = place + 2
        var count = 0
        var form = DecimalText.Form()
        let countMax = Limits.frameLevelsMax
        while count < countMax {
            let price: UInt64
            if let digits = form.digits(at: place) {
                price = digits
            } else {
                guard let short = DecimalText.short(at: place), count == 0 || short.places == places.price else { return nil }
                form = DecimalText.Form(short, dropsLastDigit: dropsLastZero)
                guard let digits = form.digits(at: place) else { return nil }
                price = digits
                places.price = short.places
            }
            place += form.length
            // ","
            guard place.loadUnaligned(as: UInt32.self) & 0xff_ffff == 0x22_2c22, let quantity = DecimalText.short(at: place + 3) else {
                return nil
            }
            place += quantity.length &+ 3
            if count == 0 { places.quantity = quantity.places }
            guard quantity.places == places.quantity else { return nil }
            target[count] = BookLevel(price: Int64(truncatingIfNeeded: price), quantity: Int64(truncatingIfNeeded: quantity.digits))
            count &+= 1
            // "],[" or "]]
            let end = place.loadUnaligned(as: UInt64.self)
            if end & 0xff_ffff_ffff == 0x22_5b2c_5d22 {
                place += 5
                continue
            }
            guard end & 0xff_ffff == 0x5d_5d22 else { return nil }
            self.place = place + 3
            places.leavesOutZero = dropsLastZero
            if dropsLastZero { places.price &-= 1 }
            return count
        }
        return nil
    }

    /// `[["1.0","2"],["3.0","4"]]`: how many there are.
    mutating func levels(into target: UnsafeMutablePointer<RawLevel>) -> Int? {
        guard take(byte: 0x5b) else { return nil }
        if take(byte: 0x5d) { return 0 }
        var count = 0
        var length = 0
        while count < Limits.frameLevelsMax {
            guard place.loadUnaligned(as: UInt16.self) == 0x225b, let price = DecimalText(usualAt: place + 2, length: &length) else {
                return nil
            }
            place += length &+ 2
            guard place.loadUnaligned(as: UInt32.self) & 0xff_ffff == 0x22_2c22,
                let quantity = DecimalText(usualAt: place + 3, length: &length)
            else { return nil }
            place += length &+ 3
            target[count] = RawLevel(price: price, quantity: quantity)
            count &+= 1
            // "] and , or ]
            let end = place.loadUnaligned(as: UInt32.self) & 0xff_ffff
            place += 3
            if end == 0x2c_5d22 { continue }
            return end == 0x5d_5d22 ? count : nil
        }
        return nil
    }
}
