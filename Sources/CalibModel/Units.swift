/// A point on the monotonic clock, in nanoseconds since an arbitrary origin. Never written to a record.
public struct Instant: Comparable, Hashable, Sendable, BitwiseCopyable {
    public var nanoseconds: Int64
    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    /// Nanoseconds from `earlier` to `self`; negative when `earlier` is later.
    @inlinable public func since(_ earlier: Instant) -> Int64 { nanoseconds &- earlier.nanoseconds }
    @inlinable public func advanced(nanoseconds: Int64) -> Instant { Instant(nanoseconds: self.nanoseconds &+ nanoseconds) }
}

/// A point on the wall clock: nanoseconds since 1970-01-01T00:00:00Z. What records carry; never used for durations.
public struct WallTime: Comparable, Hashable, Sendable, BitwiseCopyable {
    public var nanoseconds: Int64
    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    @inlinable public static func < (a: WallTime, b: WallTime) -> Bool { a.nanoseconds < b.nanoseconds }
    /// Whole milliseconds since the epoch, rounded down: the `ts` of every record (SPEC 1.1).
    @inlinable public var milliseconds: Int64 {
        let (quotient, remainder) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000)
        return remainder < 0 ? quotient &- 1 : quotient
    }
}

/// One clock reading: the monotonic and the wall time of the same instant (SPEC 1.1: ts, ts_iso and day come from one).
public struct Moment: Sendable {
    public var instant: Instant
    public var wall: WallTime
    @inlinable public init(instant: Instant, wall: WallTime) {
        self.instant = instant
        self.wall = wall
    }
}

/// The side of an order or of the aggressor of a trade.
public enum Side: UInt8, Sendable, CaseIterable, BitwiseCopyable {
    case buy, sell
    /// +1 for BUY, -1 for SELL: `s` of SPEC 1.3.
    @inlinable public var sign: Int64 { self == .buy ? 1 : -1 }
    @inlinable public var opposite: Side { self == .buy ? .sell : .buy }
    package var text: StaticString { self == .buy ? "BUY" : "SELL" }
}

/// Decimal places of the product's fixed-point integers (SPEC 1.2).
public enum Places {
    /// Price and mid: 1e-9 quote currency.
    public static let price = 9
    /// Quantity: 1e-8 base asset.
    public static let quantity = 8
    /// Basis points: 1e-6 bps.
    public static let bps = 6
    /// Milliseconds: 1e-6 ms, so nanoseconds.
    public static let milliseconds = 6
    /// Notional: 1e-8 quote currency.
    public static let notional = 8
}

/// Integer arithmetic with one rounding, half to even (SPEC 1.2).
public enum FixedPoint {
    /// 10^0 ... 10^18 by their exponent.
    @inlinable public static var powersOfTen: PowersOfTen { PowersOfTen() }

    /// A table that a compiler can see through: a global array is looked up behind a check whether it has been made.
    public struct PowersOfTen: Sendable {
        @inlinable init() {}

        @inlinable @inline(__always) public subscript(exponent: Int) -> Int64 {
            switch exponent {
            case 0: 1
            case 1: 10
            case 2: 100
            case 3: 1_000
            case 4: 10_000
            case 5: 100_000
            case 6: 1_000_000
            case 7: 10_000_000
            case 8: 100_000_000
            case 9: 1_000_000_000
            case 10: 10_000_000_000
            case 11: 100_000_000_000
            case 12: 1_000_000_000_000
            case 13: 10_000_000_000_000
            case 14: 100_000_000_000_000
            case 15: 1_000_000_000_000_000
            case 16: 10_000_000_000_000_000
            case 17: 100_000_000_000_000_000
            case 18: 1_000_000_000_000_000_000
            default: preconditionFailure("BUG: 10^\(exponent)")
            }
        }
    }

    /// `numerator / denominator`, half to even; nil when the denominator is not positive or the result does not fit.
    package static func divide(_ numerator: Int128, by denominator: Int128) -> Int64? {
        guard denominator > 0 else { return nil }
        if let small = Int64(exactly: numerator), let divisor = Int64(exactly: denominator) { return divide(small, by: divisor) }
        var (quotient, remainder) = numerator.quotientAndRemainder(dividingBy: denominator)
        if remainder < 0 {
            quotient -= 1
            remainder += denominator
        }
        // Compare without doubling the remainder, which could overflow.
        let rest = denominator - remainder
        if remainder > rest || (remainder == rest && !quotient.isMultiple(of: 2)) { quotient += 1 }
        return Int64(exactly: quotient)
    }

    /// The same where both fit: one instruction instead of a long division.
    private static func divide(_ numerator: Int64, by denominator: Int64) -> Int64 {
        var (quotient, remainder) = numerator.quotientAndRemainder(dividingBy: denominator)
        if remainder < 0 {
            quotient &-= 1
            remainder &+= denominator
        }
        let rest = denominator &- remainder
        if remainder > rest || (remainder == rest && quotient & 1 == 1) { quotient &+= 1 }
        return quotient
    }

    /// `value * 10^places` as an integer, half to even; nil for a non-finite or too large value (SPEC 1.5: it is never written).
    @inlinable public static func fixed(_ value: Double, scale: Double) -> Int64? {
        let scaled = (value * scale).rounded(.toNearestOrEven)
        guard scaled > -9.2e18, scaled < 9.2e18 else { return nil }  // NaN fails both comparisons.
        return Int64(scaled)
    }
}

/// Basis points in millionths (SPEC 1.2), so that stages add and compare them exactly.
public struct BasisPoints: Comparable, Hashable, Sendable, BitwiseCopyable {
    public var micro: Int64
    @inlinable public init(micro: Int64) { self.micro = micro }
    /// Rounded half to even to 1e-6 bps; nil when not finite or too large.
    @inlinable public init?(_ value: Double) {
        guard let micro = FixedPoint.fixed(value, scale: 1e6) else { return nil }
        self.micro = micro
    }
    @inlinable public static var zero: BasisPoints { BasisPoints(micro: 0) }
    @inlinable public static func < (a: BasisPoints, b: BasisPoints) -> Bool { a.micro < b.micro }
    @inlinable public static func + (a: BasisPoints, b: BasisPoints) -> BasisPoints { BasisPoints(micro: a.micro &+ b.micro) }
    @inlinable public static func - (a: BasisPoints, b: BasisPoints) -> BasisPoints { BasisPoints(micro: a.micro &- b.micro) }
    @inlinable public static prefix func - (a: BasisPoints) -> BasisPoints { BasisPoints(micro: 0 &- a.micro) }
    /// The value in bps, for formulas that are not exact anyway.
    @inlinable public var value: Double { Double(micro) / 1e6 }
}
