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
        guard let source = bytes.baseAddress, bytes.count >= 32, bytes.count <= Self.copyBytesMax, copyASCII(source, bytes.count) else {
            return false
        }
        var reader = UsualReader(UnsafeRawPointer(copy))
        let isWrapped = reader.take(Self.streamKey)
        if isWrapped {
            guard reader.skipText(), reader.take(Self.dataKey), reader.take(byte: 0x7b) else { return false }
        } else {
            guard reader.take(byte: 0x7b) else { return false }
        }
        guard object(&reader, &fields, source) else { return false }
        if isWrapped {
            guard reader.take(byte: 0x7d) else { return false }
            fields.isWrapped = true
        }
        return reader.offset(from: copy) == bytes.count
    }

    /// `{"stream`, then `":"`.
    private static var streamKey: (UInt64, UInt64) { (word("{\"stream"), word("am\":\"")) }
    /// `,"data":`
    private static var dataKey: UInt64 { word(",\"data\":") }

    @inline(__always) private static func word(_ text: StaticString) -> UInt64 {
        var result: UInt64 = 0
        for index in 0..<text.utf8CodeUnitCount { result |= UInt64(text.utf8Start[index]) << UInt64(8 * index) }
        return result
    }

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
                    guard let count = reader.levels(into: levels) else { return false }
                    bidCount = count
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
                    guard let count = reader.levels(into: levels + Limits.frameLevelsMax) else { return false }
                    askCount = count
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

    /// A text of the copy, where it stands in the frame.
    @inline(__always) private func original(_ text: UnsafeRawBufferPointer, _ source: UnsafeRawPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: text.baseAddress.map { source + ($0 - UnsafeRawPointer(copy)) }, count: text.count)
    }
}

/// Reads the usual form from a place in the copy. Each method moves behind what it read, or answers that it is of another form.
private struct UsualReader {
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
        var length = 0
        guard let decimal = DecimalText(usualAt: place + 1, length: &length) else { return nil }
        place += length &+ 2
        return decimal
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
