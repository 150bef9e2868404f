import CalibModel

/// What a simulated venue writes into its frames. Values are not negative.
extension [UInt8] {
    mutating func append(text: StaticString) {
        append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Decimal digits.
    mutating func append(integer value: Int64) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var rest = value
            var index = 20
            repeat {
                index -= 1
                digits[index] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0
            append(contentsOf: digits[index..<20])
        }
    }

    /// `value * 10^-places` in quotes, every place written; without a point when there are none.
    mutating func append(decimal value: Int64, places: Int) {
        let scale = FixedPoint.powersOfTen[places]
        append(0x22)
        append(integer: value / scale)
        if places > 0 { append(0x2e) }
        var digit = scale / 10
        while digit > 0 {
            append(0x30 + UInt8(value / digit % 10))
            digit /= 10
        }
        append(0x22)
    }
}
