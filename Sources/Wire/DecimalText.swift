import CalibModel

/// One decimal number as text, exactly: up to 19 significant digits, a power of ten, and what lies below them.
///
/// Kept apart from its conversion, so that one parser serves every fixed-point scale.
public struct DecimalText: Sendable {
    @usableFromInline var digits: UInt64 = 0
    /// Saturates far beyond what any scale reaches.
    @usableFromInline var exponent: Int32 = 0
    @usableFromInline var isNegative = false
    /// The digits that did not fit, against half a unit of the last that did: 0 none, 1 below half, 2 exactly half, 3 above.
    @usableFromInline var tail: UInt8 = 0

    /// Reads a JSON number at `index` and moves past it. Throws `.syntax` when there is none.
    @inlinable public init(_ bytes: UnsafeRawBufferPointer, at index: inout Int) throws(JSONError) {
        let start = index
        if index < bytes.count, bytes[index] == 0x2d {
            isNegative = true
            index &+= 1
        }
        let first = index
        while index < bytes.count {
            let digit = bytes[index] &- 0x30
            guard digit < 10 else { break }
            add(digit, isFraction: false)
            index &+= 1
        }
        guard index > first, bytes[first] != 0x30 || index == first &+ 1 else { throw .syntax(at: start) }
        if index < bytes.count, bytes[index] == 0x2e {
            index &+= 1
            let fraction = index
            while index < bytes.count {
                let digit = bytes[index] &- 0x30
                guard digit < 10 else { break }
                add(digit, isFraction: true)
                index &+= 1
            }
            guard index > fraction else { throw .syntax(at: start) }
        }
        if index < bytes.count, bytes[index] | 0x20 == 0x65 {
            index &+= 1
            var isDown = false
            if index < bytes.count, bytes[index] == 0x2b || bytes[index] == 0x2d {
                isDown = bytes[index] == 0x2d
                index &+= 1
            }
            let power = index
            var value = 0
            while index < bytes.count {
                let digit = bytes[index] &- 0x30
                guard digit < 10 else { break }
                if value < 1_000_000 { value = value &* 10 &+ Int(digit) }
                index &+= 1
            }
            guard index > power else { throw .syntax(at: start) }
            exponent &+= Int32(truncatingIfNeeded: isDown ? -value : value)
        }
    }

    /// A whole string that is one plain number, as venues send prices; nil when it is anything else.
    @inlinable public init?(_ text: UnsafeRawBufferPointer) {
        var index = 0
        do throws(JSONError) { try self.init(text, at: &index) } catch { return nil }
        guard index == text.count else { return nil }
    }

    /// The number as a multiple of 10^-places, half to even; nil when it does not fit an Int64.
    @inlinable public func fixed(places: Int) -> Int64? {
        guard digits != 0 else { return 0 }
        var magnitude = digits
        let shift = Int(exponent) &+ places
        if shift >= 0 {
            // With a tail every kept digit is significant: 19 of them, and one more place overflows.
            guard shift <= 18, shift == 0 || tail == 0 else { return nil }
            let (product, overflowed) = magnitude.multipliedReportingOverflow(by: UInt64(FixedPoint.powersOfTen[shift]))
            guard !overflowed else { return nil }
            magnitude = product
            if tail == 3 || (tail == 2 && magnitude & 1 == 1) { magnitude &+= 1 }
        } else {
            guard shift >= -19 else { return 0 }
            let divisor: UInt64 = shift == -19 ? 10_000_000_000_000_000_000 : UInt64(FixedPoint.powersOfTen[-shift])
            let (quotient, remainder) = magnitude.quotientAndRemainder(dividingBy: divisor)
            let half = divisor / 2
            magnitude = quotient
            if remainder > half || (remainder == half && (tail > 0 || quotient & 1 == 1)) { magnitude &+= 1 }
        }
        guard magnitude <= UInt64(Int64.max) else { return nil }
        return isNegative ? 0 &- Int64(magnitude) : Int64(magnitude)
    }

    /// The number as a multiple of 10^-places when it is one exactly, else nil: prices are never rounded on the way in.
    @inlinable @inline(__always) public func exact(places: Int) -> Int64? {
        let shift = Int(exponent) &+ places
        // Nearly every number of a venue: no sign, few digits, and as many places as the instrument has, or a few zeros more.
        guard digits < 1 << 60, !isNegative, tail == 0 else { return exactOfAnyForm(places: places) }
        if shift == 0 { return Int64(truncatingIfNeeded: digits) }
        if shift == -1 {
            let quotient = digits / 10
            return quotient &* 10 == digits ? Int64(truncatingIfNeeded: quotient) : nil
        }
        return exactOfAnyForm(places: places)
    }

    @usableFromInline func exactOfAnyForm(places: Int) -> Int64? {
        guard digits != 0 else { return 0 }
        guard tail == 0 else { return nil }
        let shift = Int(exponent) &+ places
        if shift >= 0 { return fixed(places: places) }
        guard shift >= -18 else { return nil }
        // A division by a number the compiler knows is a multiplication.
        let quotient: UInt64
        switch shift {
        case -2: quotient = digits / 100
        case -3: quotient = digits / 1_000
        case -4: quotient = digits / 10_000
        case -5: quotient = digits / 100_000
        case -6: quotient = digits / 1_000_000
        case -7: quotient = digits / 10_000_000
        case -8: quotient = digits / 100_000_000
        default: quotient = digits / UInt64(FixedPoint.powersOfTen[0 &- shift])
        }
        guard quotient &* UInt64(FixedPoint.powersOfTen[0 &- shift]) == digits, quotient <= UInt64(Int64.max) else { return nil }
        return isNegative ? 0 &- Int64(quotient) : Int64(quotient)
    }

    /// How many decimal places the number really uses: "61800.20" uses 1, "100" none.
    package var placesUsed: Int {
        guard digits != 0 else { return 0 }
        var rest = digits
        var places = -Int(exponent)
        while places > 0, rest.isMultiple(of: 10) {
            rest /= 10
            places -= 1
        }
        return max(0, places)
    }

    @inlinable mutating func add(_ digit: UInt8, isFraction: Bool) {
        if digits < 1_000_000_000_000_000_000 {  // One more digit keeps it below 10^19 < 2^64.
            digits = digits &* 10 &+ UInt64(digit)
            if isFraction { exponent &-= 1 }
            return
        }
        if !isFraction { exponent &+= 1 }
        if tail == 0, tailIsOpen {
            tail = digit == 0 ? 0 : digit < 5 ? 1 : digit == 5 ? 2 : 3
        } else if digit != 0 {
            tail = tail == 2 ? 3 : max(tail, 1)
        }
        tailIsOpen = false
    }

    @usableFromInline var tailIsOpen = true

    // MARK: The usual form

    /// What `short` reads: the digits without their point, how many stand behind it, and how many bytes the number has.
    public struct Short: Sendable {
        public var digits: UInt64
        public var places: Int
        public var length: Int

        @inlinable @inline(__always) init(digits: UInt64, places: Int, length: Int) {
            self.digits = digits
            self.places = places
            self.length = length
        }
    }

    /// Digits with one point between them, all within eight bytes, as a venue of few places sends them; nil for any other text, whether it is a
    /// number or not. Eight bytes are read, which must be ASCII. The caller sees to it that a quote ends the number.
    @inlinable @inline(__always) public static func short(at text: UnsafeRawPointer) -> Short? {
        let word = DigitWord(text.loadUnaligned(as: UInt64.self)).value
        let marks = DigitWord.asciiMarks(word)
        // Eight digits would have no mark; and without a second one what ends the number must be the ninth byte.
        let point = marks.trailingZeroBitCount &>> 3
        let end = (marks & (marks &- 1)).trailingZeroBitCount &>> 3
        // A zero only begins a number when it is alone before the point. Half of all quantities begin with one: no branch asks whether.
        guard point > 0, end > point &+ 1, text.load(fromByteOffset: point, as: UInt8.self) == 0x2e,
            (word & 0xff) | (marks & 0x8000) != 0
        else { return nil }
        // The point is taken out: what stands behind it moves up.
        let before = (marks & (0 &- marks)) &>> 7 &- 1
        let joined = word & before | (word &>> 8) & ~before
        return Short(
            digits: DigitWord.eight(joined &<< UInt64(truncatingIfNeeded: 72 &- 8 &* end)), places: end &- point &- 1, length: end)
    }

    /// The form of a number that was read: the next one of its kind has it nearly always, and is read without looking for its point.
    public struct Form: Sendable {
        /// What each of the characters is exclusive-or its digit.
        @usableFromInline var zeros: UInt64 = 0
        @usableFromInline var beforePoint: UInt64 = 0
        /// The highest bit of each character.
        @usableFromInline var marks: UInt64 = 0
        /// Characters that must be as expected: the point, and a last digit that is dropped.
        @usableFromInline var fixed: UInt64 = ~0
        @usableFromInline var shift: UInt64 = 0
        /// Not 0 when the first digit may be.
        @usableFromInline var firstMayBeZero: UInt64 = 0
        public private(set) var length = 0

        /// Matches nothing that a venue sends.
        public init() {}

        /// - Parameter dropsLastDigit: it must be 0 then, and stands behind the point.
        public init(_ short: Short, dropsLastDigit: Bool = false) {
            length = short.length
            let whole = short.length - short.places - 1
            let point: UInt64 = 0xff &<< UInt64(8 * whole)
            let characters = ~UInt64(0) &>> UInt64(64 - 8 * short.length)
            marks = characters & 0x8080_8080_8080_8080
            zeros = (0x3030_3030_3030_3030 & ~point | (0x2e2e_2e2e_2e2e_2e2e & point)) & characters
            beforePoint = point & (0 &- point)
            beforePoint &-= 1
            fixed = point
            shift = UInt64(72 - 8 * short.length)
            firstMayBeZero = whole == 1 ? 1 : 0
            if dropsLastDigit {
                fixed |= 0xff &<< UInt64(8 * (short.length - 1))
                shift += 8
            }
        }

        /// The digits of a number of exactly this form; nil for any other text. Eight bytes are read, which must be ASCII. The caller sees to it
        /// that a quote ends the number.
        @inlinable @inline(__always) public func digits(at text: UnsafeRawPointer) -> UInt64? {
            let word = text.loadUnaligned(as: UInt64.self) ^ zeros
            guard (DigitWord.asciiMarks(word) & marks) | (word & fixed) == 0, (word & 0xff) | firstMayBeZero != 0 else { return nil }
            return DigitWord.eight((word & beforePoint | (word &>> 8) & ~beforePoint) &<< shift)
        }
    }

    @inlinable @inline(__always) public init(_ short: Short) {
        digits = short.digits
        exponent = Int32(truncatingIfNeeded: 0 &- short.places)
    }

    /// A number without sign whose last digit is that many places behind the point.
    @inlinable @inline(__always) public init(digits: UInt64, places: Int) {
        self.digits = digits
        exponent = Int32(truncatingIfNeeded: 0 &- places)
    }

    /// Digits with at most one point between them and a quote behind, all within 16 bytes, as venues send every price; nil for any other text,
    /// whether it is a number or not. As many as 17 bytes are read.
    ///
    /// - Parameter length: how many bytes stand before the quote.
    @inlinable @inline(__always) public init?(usualAt text: UnsafeRawPointer, length: inout Int) {
        // Every character less "0": a digit is 0...9 then, and a byte with another value gets its highest bit set.
        let low = DigitWord(text.loadUnaligned(as: UInt64.self))
        let high = DigitWord(text.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        var others = low.others | high.others &<< 8
        guard others != 0 else { return nil }
        let whole = others.trailingZeroBitCount
        // A zero only begins a number when it is alone before the point.
        guard whole > 0, (low.value & 0xff) | (others & 2) != 0 else { return nil }
        let last = text.load(fromByteOffset: whole, as: UInt8.self)
        if last == 0x22 {
            length = whole
            digits = whole <= 8 ? low.value(first: whole) : DigitWord.value(of: low, high, count: whole)
            return
        }
        others &= others &- 1
        guard others != 0, last == 0x2e else { return nil }
        let end = others.trailingZeroBitCount
        let places = end &- whole &- 1
        guard places > 0, text.load(fromByteOffset: end, as: UInt8.self) == 0x22 else { return nil }
        length = end
        exponent = Int32(truncatingIfNeeded: 0 &- places)
        if whole <= 8, places <= 8 {
            let fraction = DigitWord(text.loadUnaligned(fromByteOffset: whole &+ 1, as: UInt64.self)).value(first: places)
            digits = low.value(first: whole) &* UInt64(truncatingIfNeeded: FixedPoint.powersOfTen[places]) &+ fraction
            return
        }
        // The point is taken out: what stands behind it moves up.
        let number = UInt128(truncatingIfNeeded: low.value) | UInt128(truncatingIfNeeded: high.value) &<< 64
        let before = (UInt128(1) &<< UInt128(truncatingIfNeeded: 8 &* whole)) &- 1
        let joined = number & before | (number &>> 8) & ~before
        digits = DigitWord.value(of: joined, count: end &- 1)
    }
}

/// Eight characters at once, for reading digits (the method: Lemire, "Quickly parsing eight digits", 2018).
public struct DigitWord {
    /// Each character exclusive-or "0".
    public let value: UInt64

    @inlinable @inline(__always) public init(_ text: UInt64) { value = text ^ 0x3030_3030_3030_3030 }

    /// The highest bit of each character that is not a digit. `value`: characters exclusive-or "0".
    @inlinable @inline(__always) public static func marks(_ value: UInt64) -> UInt64 {
        ((value & 0x7f7f_7f7f_7f7f_7f7f) &+ 0x7676_7676_7676_7676 | value) & 0x8080_8080_8080_8080
    }

    /// The same of ASCII characters.
    @inlinable @inline(__always) static func asciiMarks(_ value: UInt64) -> UInt64 {
        (value &+ 0x7676_7676_7676_7676) & 0x8080_8080_8080_8080
    }

    /// Whether all eight characters are digits.
    @inlinable @inline(__always) public var isAllDigits: Bool { Self.marks(value) == 0 }

    /// The number of all eight characters, which are digits.
    @inlinable @inline(__always) public var number: UInt64 { Self.eight(value) }

    /// A bit for each character that is not a digit, the first one's lowest.
    @inlinable @inline(__always) public var others: UInt64 {
        ((Self.marks(value) &>> 7) &* 0x0102_0408_1020_4080) &>> 56
    }

    /// The number of the first `count` characters, which are digits; 1 ... 8.
    @inlinable @inline(__always) public func value(first count: Int) -> UInt64 {
        Self.eight(value &<< UInt64(truncatingIfNeeded: 64 &- 8 &* count))
    }

    /// Of 1 ... 16 digits in two words.
    @inlinable @inline(__always) public static func value(of low: DigitWord, _ high: DigitWord, count: Int) -> UInt64 {
        if count <= 8 { return low.value(first: count) }
        // The first eight are as they are; up to eight more follow.
        let rest = count &- 8
        return eight(low.value) &* UInt64(truncatingIfNeeded: FixedPoint.powersOfTen[rest]) &+ high.value(first: rest)
    }

    /// The number of the first `count` of 16 digits, 1 ... 16; what stands behind them does not matter.
    @inlinable @inline(__always) public static func value(of digits: UInt128, count: Int) -> UInt64 {
        let aligned = digits &<< UInt128(truncatingIfNeeded: 128 &- 8 &* count)
        return eight(UInt64(truncatingIfNeeded: aligned)) &* 100_000_000 &+ eight(UInt64(truncatingIfNeeded: aligned &>> 64))
    }

    /// The number of eight digits, the first one in the lowest byte.
    @inlinable @inline(__always) public static func eight(_ digits: UInt64) -> UInt64 {
        let pairs = digits &* 10 &+ digits &>> 8
        let even = (pairs & 0x0000_00ff_0000_00ff) &* 0x000f_4240_0000_0064
        let odd = (pairs &>> 16 & 0x0000_00ff_0000_00ff) &* 0x0000_2710_0000_0001
        return (even &+ odd) &>> 32
    }
}
