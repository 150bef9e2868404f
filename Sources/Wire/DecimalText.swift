import CalibModel

/// One decimal number as text, exactly: up to 19 significant digits, a power of ten, and what lies below them.
///
/// Kept apart from its conversion, so that one parser serves every fixed-point scale.
public struct DecimalText: Sendable {
    @usableFromInline var isNegative = false
    @usableFromInline var digits: UInt64 = 0
    @usableFromInline var exponent = 0
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
            exponent &+= isDown ? -value : value
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
        let shift = exponent &+ places
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
    @inlinable public func exact(places: Int) -> Int64? {
        guard digits != 0 else { return 0 }
        guard tail == 0 else { return nil }
        let shift = exponent &+ places
        if shift >= 0 { return fixed(places: places) }
        guard shift >= -18 else { return nil }
        guard digits.isMultiple(of: UInt64(FixedPoint.powersOfTen[-shift])) else { return nil }
        return fixed(places: places)
    }

    /// How many decimal places the number really uses: "61800.20" uses 1, "100" none.
    package var placesUsed: Int {
        guard digits != 0 else { return 0 }
        var rest = digits
        var places = -exponent
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
}
