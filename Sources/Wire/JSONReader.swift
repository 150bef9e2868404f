/// Why bytes are not the JSON that was asked for. `at` is a byte offset into the text.
public enum JSONError: Error, Equatable, Sendable {
    /// Not JSON (RFC 8259), or bytes after the value.
    case syntax(at: Int)
    /// JSON of another type than the one asked for.
    case wrongType(at: Int)
    /// NaN, Infinity or -Infinity, which JSON does not have but some writers emit (SPEC 1.5).
    case nonFinite(at: Int)
    /// A number that does not fit the fixed-point integer asked for.
    case overflow(at: Int)
    /// Deeper than `JSONReader.depthMax`.
    case tooDeep(at: Int)
}

/// A pull reader over one JSON text: strict (RFC 8259), bounded, without allocation; any input gives a value or an error, never a trap.
///
/// The caller walks the text in order: `beginObject`, then `nextKey` until nil, reading or skipping each value. It does not check UTF-8
/// inside strings (`UTF8Check.isValid` does, once per line) nor that keys differ.
///
/// It is `public` and inlinable because every byte of every venue frame goes through it (README, Decisions).
public struct JSONReader {
    /// Deepest nesting accepted (SPEC 8.1).
    public static let depthMax = 16

    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline var index: Int
    @usableFromInline var depth = 0
    /// True right after an opening bracket: the next element needs no comma.
    @usableFromInline var isFirst = false

    /// The buffer must outlive the reader.
    @inlinable public init(_ bytes: UnsafeRawBufferPointer, from start: Int = 0) {
        self.bytes = bytes
        self.index = start
    }

    /// The offset of the next unread byte.
    @inlinable public var offset: Int { index }

    // MARK: Structure

    @inlinable public mutating func beginObject() throws(JSONError) { try open(0x7b) }
    @inlinable public mutating func beginArray() throws(JSONError) { try open(0x5b) }

    /// The next key of the open object, raw between its quotes (escapes not resolved), or nil at its end. The value comes next.
    @inlinable public mutating func nextKey() throws(JSONError) -> UnsafeRawBufferPointer? {
        guard try advance(closing: 0x7d) else { return nil }
        let key = try string()
        skipSpace()
        guard current == 0x3a else { throw .syntax(at: index) }
        index &+= 1
        return key
    }

    /// True when the open array has another element, which comes next.
    @inlinable public mutating func nextElement() throws(JSONError) -> Bool { try advance(closing: 0x5d) }

    /// Checks that nothing but white space follows.
    @inlinable public mutating func end() throws(JSONError) {
        skipSpace()
        guard index == bytes.count else { throw .syntax(at: index) }
    }

    // MARK: Values

    /// What kind of value comes next, without reading it.
    @inlinable public mutating func peek() throws(JSONError) -> JSONKind {
        skipSpace()
        switch current {
        case 0x22: return .string
        case 0x7b: return .object
        case 0x5b: return .array
        case 0x74, 0x66: return .boolean
        case 0x6e: return .null
        case 0x2d, 0x30...0x39: return .number
        case 0x4e, 0x49: return .number  // NaN, Infinity: the number reader names the error.
        default: throw .syntax(at: index)
        }
    }

    /// The raw bytes between the quotes of a string; escapes are checked but not resolved.
    @inlinable public mutating func string() throws(JSONError) -> UnsafeRawBufferPointer {
        skipSpace()
        guard current == 0x22 else { throw isValueStart ? .wrongType(at: index) : .syntax(at: index) }
        index &+= 1
        let start = index
        while index < bytes.count {
            if bytes.count &- index >= 8 {
                let marks = Self.notPlain(bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
                index &+= marks.trailingZeroBitCount &>> 3  // 8 when there is none.
                if marks == 0 { continue }
            }
            let byte = bytes[index]
            if byte == 0x22 {
                let text = UnsafeRawBufferPointer(rebasing: bytes[start..<index])
                index &+= 1
                return text
            }
            if byte == 0x5c {
                try skipEscape()
            } else if byte < 0x20 {
                throw .syntax(at: index)
            } else {
                index &+= 1
            }
        }
        throw .syntax(at: index)
    }

    /// Eight characters of a string: the lowest bit set lies in the first of them that is a quote, a backslash or a control character.
    @inlinable @inline(__always) public static func notPlain(_ word: UInt64) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let quote = word ^ ones &* 0x22
        let escape = word ^ ones &* 0x5c
        return (((quote &- ones) & ~quote) | ((escape &- ones) & ~escape) | ((word &- ones &* 0x20) & ~word)) & (ones &* 0x80)
    }

    /// A string that is one plain number as a whole, as venues send prices; nil, and the string is read, when it is another text.
    @inlinable public mutating func decimal() throws(JSONError) -> DecimalText? {
        skipSpace()
        if bytes.count &- index >= 18, bytes[index] == 0x22, let text = bytes.baseAddress {
            var length = 0
            if let decimal = DecimalText(usualAt: text + index + 1, length: &length) {
                index &+= length &+ 2
                return decimal
            }
        }
        return DecimalText(try string())
    }

    @inlinable public mutating func boolean() throws(JSONError) -> Bool {
        skipSpace()
        if current == 0x74 {
            try literal("true")
            return true
        }
        if current == 0x66 {
            try literal("false")
            return false
        }
        throw isValueStart ? .wrongType(at: index) : .syntax(at: index)
    }

    /// Consumes `null` and returns true; consumes nothing and returns false before any other value.
    @inlinable public mutating func null() throws(JSONError) -> Bool {
        skipSpace()
        guard current == 0x6e else { return false }
        try literal("null")
        return true
    }

    /// A JSON number without fraction or exponent.
    @inlinable public mutating func integer() throws(JSONError) -> Int64 {
        let start = try numberStart()
        let isNegative = current == 0x2d
        if isNegative { index &+= 1 }
        var value: Int64 = 0
        let first = index
        while index < bytes.count {
            let digit = bytes[index] &- 0x30
            guard digit < 10 else { break }
            let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = product.subtractingReportingOverflow(Int64(digit))  // Negative side: it holds Int64.min too.
            guard !overflowed, !carried else { throw .overflow(at: start) }
            value = sum
            index &+= 1
        }
        guard index > first, bytes[first] != 0x30 || index == first &+ 1 else { throw .syntax(at: start) }
        if index < bytes.count, bytes[index] == 0x2e || bytes[index] | 0x20 == 0x65 { throw .wrongType(at: start) }
        if isNegative { return value }
        guard value != .min else { throw .overflow(at: start) }
        return 0 &- value
    }

    /// A JSON number, any form, converted once to an integer multiple of 10^-places, half to even (SPEC 1.2).
    @inlinable public mutating func fixed(places: Int) throws(JSONError) -> Int64 {
        let start = try numberStart()
        let decimal = try DecimalText(bytes, at: &index)
        guard let value = decimal.fixed(places: places) else { throw .overflow(at: start) }
        return value
    }

    /// Consumes `NaN`, `Infinity` or `-Infinity`, for a caller who wants to know whether the text is JSON but for them.
    package mutating func nonFinite() throws(JSONError) {
        skipSpace()
        let isNegative = current == 0x2d
        if isNegative { index &+= 1 }
        try literal(!isNegative && current == 0x4e ? "NaN" : "Infinity")
    }

    /// Skips one value of any kind, checking its syntax.
    @inlinable public mutating func skip() throws(JSONError) {
        switch try peek() {
        case .string: _ = try string()
        case .boolean: _ = try boolean()
        case .null: _ = try null()
        case .number:
            _ = try numberStart()
            _ = try DecimalText(bytes, at: &index)
        case .object:
            try beginObject()
            while try nextKey() != nil { try skip() }
        case .array:
            try beginArray()
            while try nextElement() { try skip() }
        }
    }

    /// Skips one value and returns its bytes.
    @inlinable public mutating func raw() throws(JSONError) -> UnsafeRawBufferPointer {
        skipSpace()
        let start = index
        try skip()
        return UnsafeRawBufferPointer(rebasing: bytes[start..<index])
    }

    // MARK: Leaves

    /// The next byte, or 0 at the end (0 starts no token).
    @usableFromInline @inline(__always) var current: UInt8 { index < bytes.count ? bytes[index] : 0 }

    @usableFromInline var isValueStart: Bool {
        switch current {
        case 0x22, 0x7b, 0x5b, 0x74, 0x66, 0x6e, 0x2d, 0x30...0x39: true
        default: false
        }
    }

    @inlinable @inline(__always) mutating func skipSpace() {
        if index < bytes.count, bytes[index] > 0x20 { return }
        skipSomeSpace()
    }

    @usableFromInline mutating func skipSomeSpace() {
        while index < bytes.count {
            let byte = bytes[index]
            guard byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 else { return }
            index &+= 1
        }
    }

    @inlinable mutating func open(_ bracket: UInt8) throws(JSONError) {
        skipSpace()
        guard current == bracket else { throw isValueStart ? .wrongType(at: index) : .syntax(at: index) }
        guard depth < Self.depthMax else { throw .tooDeep(at: index) }
        depth &+= 1
        index &+= 1
        isFirst = true
    }

    @inlinable mutating func advance(closing bracket: UInt8) throws(JSONError) -> Bool {
        skipSpace()
        if current == bracket {
            index &+= 1
            depth &-= 1
            isFirst = false
            return false
        }
        if isFirst {
            isFirst = false
            return true
        }
        guard current == 0x2c else { throw .syntax(at: index) }
        index &+= 1
        return true
    }

    @inlinable mutating func numberStart() throws(JSONError) -> Int {
        skipSpace()
        switch current {
        case 0x2d where index &+ 1 < bytes.count && bytes[index &+ 1] == 0x49: throw .nonFinite(at: index)
        case 0x2d, 0x30...0x39: return index
        case 0x4e, 0x49: throw .nonFinite(at: index)
        default: throw isValueStart ? .wrongType(at: index) : .syntax(at: index)
        }
    }

    @usableFromInline mutating func literal(_ text: StaticString) throws(JSONError) {
        let count = text.utf8CodeUnitCount
        guard bytes.count &- index >= count else { throw .syntax(at: index) }
        for offset in 0..<count where bytes[index &+ offset] != text.utf8Start[offset] { throw .syntax(at: index) }
        index &+= count
    }

    @usableFromInline mutating func skipEscape() throws(JSONError) {
        guard index &+ 1 < bytes.count else { throw .syntax(at: index) }
        switch bytes[index &+ 1] {
        case 0x22, 0x5c, 0x2f, 0x62, 0x66, 0x6e, 0x72, 0x74: index &+= 2
        case 0x75:
            guard index &+ 5 < bytes.count else { throw .syntax(at: index) }
            for offset in 2...5 {
                switch bytes[index &+ offset] {
                case 0x30...0x39, 0x41...0x46, 0x61...0x66: break
                default: throw .syntax(at: index)
                }
            }
            index &+= 6
        default: throw .syntax(at: index)
        }
    }
}

public enum JSONKind: Sendable { case string, number, boolean, null, object, array }

extension UnsafeRawBufferPointer {
    /// Whether the bytes are exactly the text's.
    @inlinable public func equals(_ text: StaticString) -> Bool {
        let length = text.utf8CodeUnitCount
        guard count == length else { return false }
        let other = UnsafeRawPointer(text.utf8Start)
        if length >= 8 {
            // Eight at a time, the last eight overlapping.
            var index = 0
            while index < length {
                let place = Swift.min(index, length &- 8)
                guard loadUnaligned(fromByteOffset: place, as: UInt64.self) == other.loadUnaligned(fromByteOffset: place, as: UInt64.self)
                else { return false }
                index &+= 8
            }
            return true
        }
        for index in 0..<length where self[index] != text.utf8Start[index] { return false }
        return true
    }

    /// The first byte of a key, for a switch; 0 when empty.
    @inlinable public var firstByte: UInt8 { isEmpty ? 0 : self[0] }
}
