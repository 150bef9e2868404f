import CalibModel

/// A parsed JSON value: for control messages and reports, where a tree is shorter than a walk and speed is not the point.
///
/// Numbers keep their text, so no digit is lost and nothing passes through Double (SPEC 1.2).
package enum JSONValue: Sendable, Equatable {
    package struct Member: Sendable, Equatable {
        package var name: String
        package var value: JSONValue
        package init(name: String, value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    case null
    case boolean(Bool)
    /// The number as it was written.
    case number(String)
    case string(String)
    case array([JSONValue])
    /// In the order written; no name twice.
    case object([Member])

    /// One whole JSON text: strict, at most `JSONReader.depthMax` deep, UTF-8 checked, no name twice in one object, no string with more than
    /// `Limits.combiningMarksMax` combining marks in a row (Swift puts those in order, in quadratic time, whenever strings are compared).
    package static func parse(_ bytes: UnsafeRawBufferPointer) throws(JSONError) -> JSONValue {
        guard UTF8Check.isValid(bytes) else { throw .syntax(at: 0) }
        var reader = JSONReader(bytes)
        let value = try read(&reader)
        try reader.end()
        return value
    }

    package static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
        // A typed throw does not pass through withUnsafeBytes' rethrow.
        let result: Result<JSONValue, JSONError> = bytes.withUnsafeBytes { raw in
            do throws(JSONError) { return .success(try parse(raw)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    // MARK: Access

    /// The member's value; nil when this is no object or has no such member.
    package subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        // Compared where they lie: a copy of a member would count up all that it holds.
        for place in members.indices where members[place].name == name { return members[place].value }
        return nil
    }

    package var isNull: Bool { if case .null = self { true } else { false } }
    package var boolean: Bool? { if case .boolean(let value) = self { value } else { nil } }
    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var array: [JSONValue]? { if case .array(let values) = self { values } else { nil } }
    package var members: [Member]? { if case .object(let members) = self { members } else { nil } }

    /// A whole number that fits; nil for anything else.
    package var integer: Int64? {
        guard case .number(let text) = self else { return nil }
        return Int64(text)
    }

    /// `value * 10^places`, half to even; nil for anything but a number that fits.
    package func fixed(places: Int) -> Int64? {
        guard case .number(var text) = self else { return nil }
        return text.withUTF8 { DecimalText(UnsafeRawBufferPointer($0))?.fixed(places: places) }
    }

    // MARK: Writing

    package func write(to json: inout JSONWriter) {
        switch self {
        case .null: json.null()
        case .boolean(let value): json.boolean(value)
        case .number(let text): json.raw(text.utf8)
        case .string(let text): json.string(text)
        case .array(let values):
            json.beginArray()
            for value in values { value.write(to: &json) }
            json.endArray()
        case .object(let members):
            json.beginObject()
            for member in members {
                json.key(data: member.name)
                member.value.write(to: &json)
            }
            json.endObject()
        }
    }

    // MARK: Leaves

    private static func read(_ reader: inout JSONReader) throws(JSONError) -> JSONValue {
        switch try reader.peek() {
        case .null:
            _ = try reader.null()
            return .null
        case .boolean: return .boolean(try reader.boolean())
        case .string:
            return .string(try string(&reader))
        case .number:
            let raw = try reader.raw()
            return .number(String(decoding: raw, as: UTF8.self))
        case .array:
            try reader.beginArray()
            var values: [JSONValue] = []
            while try reader.nextElement() { values.append(try read(&reader)) }
            return .array(values)
        case .object:
            let start = reader.offset
            try reader.beginObject()
            var members: [Member] = []
            // A set costs more than it saves as long as there are few.
            var names: Set<String> = []
            while let key = try reader.nextKey() {
                let name = try text(of: key, at: start)
                if members.count < comparedNamesMax {
                    guard !members.contains(where: { $0.name == name }) else { throw .syntax(at: start) }
                } else {
                    if names.isEmpty { names = Set(members.lazy.map(\.name)) }
                    guard names.insert(name).inserted else { throw .syntax(at: start) }
                }
                members.append(Member(name: name, value: try read(&reader)))
            }
            return .object(members)
        }
    }

    /// Names of an object up to which each is compared with every other.
    private static let comparedNamesMax = 16

    /// The next value, which is a string.
    static func string(_ reader: inout JSONReader) throws(JSONError) -> String {
        let start = reader.offset
        return try text(of: try reader.string(), at: start)
    }

    /// The text of a string the reader has checked, if comparing it costs no more than its length.
    private static func text(of raw: UnsafeRawBufferPointer, at start: Int) throws(JSONError) -> String {
        var all: UInt8 = 0
        var hasEscapes = false
        for byte in raw {
            all |= byte
            hasEscapes = hasEscapes || byte == 0x5c
        }
        let text = hasEscapes ? unescaped(raw) : String(decoding: raw, as: UTF8.self)
        // An escape may stand for anything.
        if all < 0x80, !hasEscapes { return text }
        var marks = 0
        for scalar in text.unicodeScalars where scalar.value >= 0x80 || marks > 0 {
            guard isMark(scalar) else {
                marks = 0
                continue
            }
            marks += 1
            guard marks <= Limits.combiningMarksMax else { throw .syntax(at: start) }
        }
        return text
    }

    private static func isMark(_ scalar: Unicode.Scalar) -> Bool {
        // Three vowel signs are no marks by class and consist of marks.
        if scalar.properties.canonicalCombiningClass != .notReordered { return true }
        return [0x0f73, 0x0f75, 0x0f81].contains(scalar.value)
    }

    /// Resolves escapes the reader has already checked; a lone surrogate becomes U+FFFD.
    private static func unescaped(_ raw: UnsafeRawBufferPointer) -> String {
        var scalars = String.UnicodeScalarView()
        var plain: [UInt8] = []
        func flush() {
            scalars.append(contentsOf: String(decoding: plain, as: UTF8.self).unicodeScalars)
            plain = []
        }
        var index = 0
        while index < raw.count {
            guard raw[index] == 0x5c else {
                plain.append(raw[index])
                index += 1
                continue
            }
            let escape = raw[index + 1]
            index += 2
            switch escape {
            case 0x62: plain.append(0x08)
            case 0x66: plain.append(0x0c)
            case 0x6e: plain.append(0x0a)
            case 0x72: plain.append(0x0d)
            case 0x74: plain.append(0x09)
            case 0x75:
                flush()
                let (scalar, length) = unicode(raw, at: index)
                scalars.append(scalar)
                index += length
            default: plain.append(escape)
            }
        }
        flush()
        return String(scalars)
    }

    /// The scalar of the `XXXX` at `index`, joined with a low surrogate's escape behind it, and how many bytes it took.
    private static func unicode(_ raw: UnsafeRawBufferPointer, at index: Int) -> (Unicode.Scalar, Int) {
        let high = hex(raw, at: index)
        guard (0xd800..<0xdc00).contains(high), index + 10 <= raw.count, raw[index + 4] == 0x5c, raw[index + 5] == 0x75 else {
            return (Unicode.Scalar(high) ?? "\u{fffd}", 4)
        }
        let low = hex(raw, at: index + 6)
        guard (0xdc00..<0xe000).contains(low) else { return ("\u{fffd}", 4) }
        return (Unicode.Scalar(0x10000 + (high - 0xd800) << 10 + (low - 0xdc00)) ?? "\u{fffd}", 10)
    }

    private static func hex(_ raw: UnsafeRawBufferPointer, at index: Int) -> UInt32 {
        (index..<index + 4).reduce(UInt32(0)) { value, place in
            let byte = UInt32(raw[place])
            return value << 4 | (byte < 0x40 ? byte - 0x30 : (byte | 0x20) - 0x57)
        }
    }
}
