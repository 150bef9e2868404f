import CalibModel

/// Writes JSON text deterministically: fields in the order of the calls, fixed-point decimals, no floating point, so no NaN (SPEC 1.5).
///
/// Commas are the writer's business. An object key is a literal of the program and is written as it is.
package struct JSONWriter {
    package private(set) var bytes: [UInt8] = []
    private var needsComma = false

    package init(reserving capacity: Int = 0) { bytes.reserveCapacity(capacity) }

    package mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        needsComma = false
    }

    /// Forgets the first bytes, which are whole values.
    package mutating func removeFirst(_ count: Int) { bytes.removeFirst(count) }

    /// Moves the bytes out and leaves the writer empty.
    package mutating func take() -> [UInt8] {
        defer {
            bytes = []
            needsComma = false
        }
        return bytes
    }

    package mutating func beginObject() { open(0x7b) }
    package mutating func endObject() { close(0x7d) }
    package mutating func beginArray() { open(0x5b) }
    package mutating func endArray() { close(0x5d) }

    package mutating func key(_ name: StaticString) {
        separate()
        bytes.append(0x22)
        bytes.append(contentsOf: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        bytes.append(0x22)
        bytes.append(0x3a)
        needsComma = false
    }

    /// A key that is data, such as a symbol.
    package mutating func key(data name: String) {
        string(name)
        bytes.append(0x3a)
        needsComma = false
    }

    package mutating func integer(_ value: Int64) {
        separate()
        appendInteger(value)
        needsComma = true
    }

    package mutating func integer(_ value: Int) { integer(Int64(value)) }

    /// `value * 10^-places`, without trailing zeros but with one digit after the point at least, so that a column keeps one type.
    package mutating func fixed(_ value: Int64, places: Int) {
        separate()
        appendFixed(value, places: places)
        needsComma = true
    }

    package mutating func boolean(_ value: Bool) {
        separate()
        append(value ? "true" : "false")
        needsComma = true
    }

    package mutating func null() {
        separate()
        append("null")
        needsComma = true
    }

    package mutating func string(_ value: StaticString) {
        separate()
        bytes.append(0x22)
        append(value)
        bytes.append(0x22)
        needsComma = true
    }

    package mutating func string(_ value: String) {
        separate()
        bytes.append(0x22)
        for byte in value.utf8 {
            switch byte {
            case 0x22: append("\\\"")
            case 0x5c: append("\\\\")
            case 0x0a: append("\\n")
            case 0x0d: append("\\r")
            case 0x09: append("\\t")
            case 0..<0x20:
                append("\\u00")
                bytes.append(Self.hexDigit(byte >> 4))
                bytes.append(Self.hexDigit(byte & 15))
            default: bytes.append(byte)
            }
        }
        bytes.append(0x22)
        needsComma = true
    }

    /// 16 lower-case hex digits in quotes.
    package mutating func hex(_ value: UInt64) {
        separate()
        bytes.append(0x22)
        for shift in stride(from: UInt64(60), through: 0, by: -4) {
            bytes.append(Self.hexDigit(UInt8(truncatingIfNeeded: value >> shift) & 15))
        }
        bytes.append(0x22)
        needsComma = true
    }

    /// A finished JSON value, copied as it is.
    package mutating func raw(_ json: some Sequence<UInt8>) {
        separate()
        bytes.append(contentsOf: json)
        needsComma = true
    }

    // MARK: Fields: a key and its value

    package mutating func field(_ name: StaticString, integer value: Int64) {
        key(name)
        integer(value)
    }

    package mutating func field(_ name: StaticString, integer value: Int) { field(name, integer: Int64(value)) }

    /// Null when the value is unknown.
    package mutating func field(_ name: StaticString, fixed value: Int64?, places: Int) {
        key(name)
        if let value { fixed(value, places: places) } else { null() }
    }

    package mutating func field(_ name: StaticString, string value: String) {
        key(name)
        string(value)
    }

    package mutating func field(_ name: StaticString, string value: StaticString) {
        key(name)
        string(value)
    }

    package mutating func field(_ name: StaticString, boolean value: Bool) {
        key(name)
        boolean(value)
    }

    /// Ends a line of JSONL.
    package mutating func newline() {
        bytes.append(0x0a)
        needsComma = false
    }

    // MARK: Leaves

    private mutating func separate() {
        if needsComma { bytes.append(0x2c) }
    }

    private mutating func open(_ bracket: UInt8) {
        separate()
        bytes.append(bracket)
        needsComma = false
    }

    private mutating func close(_ bracket: UInt8) {
        bytes.append(bracket)
        needsComma = true
    }

    private mutating func append(_ text: StaticString) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private mutating func appendInteger(_ value: Int64) {
        if value < 0 { bytes.append(0x2d) }
        appendDigits(value.magnitude, atLeast: 1)
    }

    private mutating func appendFixed(_ value: Int64, places: Int) {
        precondition((0...18).contains(places), "BUG: \(places) places")
        if value < 0 { bytes.append(0x2d) }
        let scale = UInt64(FixedPoint.powersOfTen[places])
        let (whole, part) = value.magnitude.quotientAndRemainder(dividingBy: scale)
        appendDigits(whole, atLeast: 1)
        bytes.append(0x2e)
        var fraction = part
        var width = places
        while width > 1, fraction.isMultiple(of: 10) {
            fraction /= 10
            width -= 1
        }
        appendDigits(fraction, atLeast: max(1, width))
    }

    private mutating func appendDigits(_ value: UInt64, atLeast width: Int) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var rest = value
            var index = 20
            repeat {
                index -= 1
                digits[index] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0 || 20 - index < width
            bytes.append(contentsOf: digits[index..<20])
        }
    }

    private static func hexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 + nibble : 0x57 + nibble }
}

/// UTF-8 validity of untrusted bytes.
package enum UTF8Check {
    /// True for well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
    package static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var index = 0
        // Most text is ASCII as a whole: 32 bytes at a time, then eight.
        while bytes.count &- index >= 32 {
            let words = bytes.loadUnaligned(fromByteOffset: index, as: SIMD4<UInt64>.self) & 0x8080_8080_8080_8080
            guard words[0] | words[1] | words[2] | words[3] == 0 else { break }
            index &+= 32
        }
        while index < bytes.count {
            if bytes.count - index >= 8, bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0 {
                index += 8
                continue
            }
            let lead = bytes[index]
            if lead < 0x80 {
                index += 1
                continue
            }
            let length: Int
            var range: ClosedRange<UInt8> = 0x80...0xbf
            switch lead {
            case 0xc2...0xdf: length = 2
            case 0xe0: (length, range) = (3, 0xa0...0xbf)
            case 0xe1...0xec, 0xee...0xef: length = 3
            case 0xed: (length, range) = (3, 0x80...0x9f)
            case 0xf0: (length, range) = (4, 0x90...0xbf)
            case 0xf1...0xf3: length = 4
            case 0xf4: (length, range) = (4, 0x80...0x8f)
            default: return false
            }
            guard index + length <= bytes.count, range.contains(bytes[index + 1]) else { return false }
            for offset in 2..<max(2, length) where bytes[index + offset] & 0xc0 != 0x80 { return false }
            index += length
        }
        return true
    }
}
