import CalibModel

/// Whether bytes are one JSON text, by the grammar of RFC 8259 alone; nothing is read out of it. Bytes above 0x7f are taken as they are.
enum JSONRecognizer {
    /// - Parameter allowingNonFinite: `NaN`, `Infinity` and `-Infinity` are numbers, too.
    static func accepts(_ text: [UInt8], depthMax: Int, allowingNonFinite: Bool = false) -> Bool {
        var scan = Scan(text: text, depthMax: depthMax, allowsNonFinite: allowingNonFinite)
        return scan.value() && scan.atEnd()
    }

    private struct Scan {
        let text: [UInt8]
        let depthMax: Int
        let allowsNonFinite: Bool
        var place = 0
        var depth = 0

        init(text: [UInt8], depthMax: Int, allowsNonFinite: Bool) {
            (self.text, self.depthMax, self.allowsNonFinite) = (text, depthMax, allowsNonFinite)
        }

        var next: UInt8? { place < text.count ? text[place] : nil }

        mutating func take(_ byte: Character) -> Bool {
            guard next == byte.asciiValue else { return false }
            place += 1
            return true
        }

        mutating func space() { while let byte = next, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { place += 1 } }

        mutating func atEnd() -> Bool {
            space()
            return place == text.count
        }

        mutating func value() -> Bool {
            space()
            switch next {
            case UInt8(ascii: "{"): return group(closing: "}", of: { $0.member() })
            case UInt8(ascii: "["): return group(closing: "]", of: { $0.value() })
            case UInt8(ascii: "\""): return string()
            case UInt8(ascii: "t"): return word("true")
            case UInt8(ascii: "f"): return word("false")
            case UInt8(ascii: "n"): return word("null")
            default: return number()
            }
        }

        mutating func group(closing: Character, of element: (inout Scan) -> Bool) -> Bool {
            place += 1
            depth += 1
            guard depth <= depthMax else { return false }
            space()
            if take(closing) {
                depth -= 1
                return true
            }
            repeat {
                guard element(&self) else { return false }
                space()
            } while take(",")
            depth -= 1
            return take(closing)
        }

        mutating func member() -> Bool {
            space()
            guard next == UInt8(ascii: "\""), string() else { return false }
            space()
            return take(":") && value()
        }

        mutating func string() -> Bool {
            place += 1
            while let byte = next {
                place += 1
                switch byte {
                case UInt8(ascii: "\""): return true
                case ..<0x20: return false
                case UInt8(ascii: "\\"):
                    guard let escaped = next else { return false }
                    place += 1
                    if escaped == UInt8(ascii: "u") {
                        for _ in 0..<4 {
                            guard let digit = next, Character(UnicodeScalar(digit)).isHexDigit, digit < 0x80 else { return false }
                            place += 1
                        }
                    } else if !"\"\\/bfnrt".utf8.contains(escaped) {
                        return false
                    }
                default: break
                }
            }
            return false
        }

        mutating func word(_ word: String) -> Bool {
            for byte in word.utf8 {
                guard next == byte else { return false }
                place += 1
            }
            return true
        }

        mutating func digits() -> Bool {
            let start = place
            while let byte = next, (0x30...0x39).contains(byte) { place += 1 }
            return place > start
        }

        mutating func number() -> Bool {
            if allowsNonFinite, next == UInt8(ascii: "N") { return word("NaN") }
            _ = take("-")
            if allowsNonFinite, next == UInt8(ascii: "I") { return word("Infinity") }
            if !take("0"), !digits() { return false }
            if take("."), !digits() { return false }
            if take("e") || take("E") {
                if !take("+") { _ = take("-") }
                return digits()
            }
            return true
        }
    }
}

/// A decimal number as its digits, slowly: rounding looks at each digit that is cut off.
struct DigitwiseDecimal {
    private var digits: [UInt8] = []
    private var exponent = 0
    private var isNegative = false

    /// Nil for anything but a number of JSON.
    init?(_ text: [UInt8]) {
        guard let first = text.first, first == 0x2d || (0x30...0x39).contains(first), JSONRecognizer.accepts(text, depthMax: 0),
            !text.contains(where: { [0x20, 0x09, 0x0a, 0x0d].contains($0) })
        else { return nil }
        isNegative = first == 0x2d
        var isFraction = false
        var place = isNegative ? 1 : 0
        while place < text.count, text[place] | 0x20 != 0x65 {
            if text[place] == 0x2e {
                isFraction = true
            } else {
                digits.append(text[place] - 0x30)
                if isFraction { exponent -= 1 }
            }
            place += 1
        }
        if place < text.count {
            let tail = text[(place + 1)...]
            let magnitude = tail.filter { (0x30...0x39).contains($0) }.reduce(0) { min(1_000_000, $0 * 10 + Int($1 - 0x30)) }
            exponent += tail.first == 0x2d ? -magnitude : magnitude
        }
    }

    func fixed(places: Int) -> Int64? { shifted(by: exponent + places).flatMap { signed($0.whole, roundingUp: $0.roundsUp) } }

    func exact(places: Int) -> Int64? {
        guard let (whole, rest, _) = shifted(by: exponent + places), !rest else { return nil }
        return signed(whole, roundingUp: false)
    }

    /// The digits before the point once it has moved to the right, whether anything lies behind it, and whether that rounds up; nil when the digits
    /// do not fit any integer.
    private func shifted(by places: Int) -> (whole: [UInt8], rest: Bool, roundsUp: Bool)? {
        guard digits.contains(where: { $0 > 0 }) else { return ([0], false, false) }
        if places >= 0 {
            guard places < 40 else { return nil }
            return (digits + [UInt8](repeating: 0, count: places), false, false)
        }
        let cut = min(-places, digits.count)
        let whole = Array(digits.dropLast(cut))
        // What is cut off, from the first place behind the point.
        let rest = [UInt8](repeating: 0, count: min(-places - cut, 1)) + digits.suffix(cut)
        let isAboveHalf = rest[0] > 5 || rest[0] == 5 && rest.dropFirst().contains { $0 > 0 }
        let isHalf = rest[0] == 5 && !rest.dropFirst().contains { $0 > 0 }
        return (whole, rest.contains { $0 > 0 }, isAboveHalf || isHalf && (whole.last ?? 0) % 2 == 1)
    }

    private func signed(_ whole: [UInt8], roundingUp: Bool) -> Int64? {
        let significant = whole.drop { $0 == 0 }
        guard significant.count <= 30 else { return nil }
        let magnitude = significant.reduce(Int128(0)) { $0 * 10 + Int128($1) } + (roundingUp ? 1 : 0)
        guard magnitude <= Int128(Int64.max) else { return nil }
        return Int64(isNegative ? -magnitude : magnitude)
    }
}
