import CalibModel
import Testing

@Suite struct UnitsTests {
    @Test func divisionRoundsHalfToEven() {
        for (numerator, denominator, expected) in [
            (1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (-5, 2, -2), (7, 4, 2), (-7, 4, -2), (0, 3, 0), (9, 3, 3),
        ] as [(Int128, Int128, Int64)] {
            #expect(FixedPoint.divide(numerator, by: denominator) == expected, "\(numerator)/\(denominator)")
        }
        #expect(FixedPoint.divide(1, by: 0) == nil)
        #expect(FixedPoint.divide(Int128(Int64.max) * 2, by: 1) == nil)
    }

    @Test func nonFiniteNumbersAreNotWritten() {
        for value in [Double.nan, .infinity, -.infinity, 1e300] { #expect(FixedPoint.fixed(value, scale: 1e9) == nil) }
        #expect(FixedPoint.fixed(0.5, scale: 1) == 0)
        #expect(FixedPoint.fixed(1.5, scale: 1) == 2)
    }

    /// Appendix A of the SipHash paper: key 00..0f, message 00..0e.
    @Test func keyedHashGivesThePapersVector() {
        #expect(KeyedHash.hash((0..<15).map { UInt8($0) }, key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908) == 0xa129_ca61_49be_45e5)
        var words = KeyedHash(key0: 1, key1: 2)
        words.combine(UInt64(0x0807_0605_0403_0201))
        #expect(words.finalized() == KeyedHash.hash((1...8).map { UInt8($0) }, key0: 1, key1: 2))
    }

    @Test func bucketsAreExactBelow256AndWithin1In128Above() {
        for value in Int64(0)..<256 { #expect(LatencyBuckets.upperEdge(of: LatencyBuckets.index(of: value)) == value) }
        var value: Int64 = 256
        while value < LatencyBuckets.longest {
            for probe in [value - 1, value, value + 1, value + value / 3] where probe <= LatencyBuckets.longest {
                let index = LatencyBuckets.index(of: probe)
                let edge = LatencyBuckets.upperEdge(of: index)
                #expect(edge >= probe && Double(edge - probe) / Double(probe) <= 1.0 / 128, "\(probe) -> \(edge)")
                #expect(LatencyBuckets.index(of: edge) == index && LatencyBuckets.index(of: edge + 1) != index || edge == LatencyBuckets.longest)
            }
            value *= 2
        }
        #expect(LatencyBuckets.index(of: .max) == LatencyBuckets.count - 1)
        #expect(LatencyBuckets.index(of: -5) == 0)
    }

    @Test func quantilesFollowTheOneRule() {
        let values = (1...40).map { Int64($0) }
        #expect(Quantile.of(ascending: values, percent: 95) == 39)  // ascending[38]
        #expect(Quantile.of(ascending: [7], percent: 95) == 7)
        #expect(Quantile.of(ascending: [Int64](), percent: 95) == nil)
        for count in 1...60 {
            let plain = (0..<count).map { Int64($0 * 3) }
            for percent in [0, 25, 50, 75, 95, 99] {
                let weighted = Quantile.of(ascending: plain.map { (value: $0, weight: 1) }, percent: percent)
                #expect(weighted == Quantile.of(ascending: plain, percent: percent), "n \(count), \(percent) %")
            }
        }
        #expect(Quantile.of(ascending: [(value: 1, weight: 1), (value: 9, weight: 99)], percent: 50) == 9)
    }

    @Test func timesAreWrittenAndRead() {
        #expect(TimeText.milliseconds(1_704_067_200_000) == "2024-01-01T00:00:00.000Z")
        #expect(TimeText.stamp(1_735_689_600_000) == "20250101_000000")
        #expect(CalendarDay(containing: WallTime(nanoseconds: 1_723_161_599_999_999_999)).compactText == "20240808")
        for (text, expected, naive) in [
            ("2025-01-01T00:00:00Z", 1_735_689_600_000, false), ("2025-01-01T00:00:00", 1_735_689_600_000, true), ("2025-01-01", 1_735_689_600_000, true),
            ("2025-01-01T01:00:00.5+01:00", 1_735_689_600_500, false), ("2024-02-29T23:59:59.999999999Z", 1_709_251_199_999, false),
        ] as [(String, Int64, Bool)] {
            let parsed = TimeText.parse(text)
            #expect(parsed?.milliseconds == expected && parsed?.isNaive == naive, "\(text)")
        }
        for text in ["", "2025", "2025-13-01", "2025-02-29", "2025-01-01T24:00:00Z", "2025-01-01T00:00:00X", "2025-01-01T00:00:00.1234567891Z"] {
            #expect(TimeText.parse(text) == nil, "\(text)")
        }
        for day in stride(from: Int64(-200_000), to: 200_000, by: 37) {
            let civil = CalendarDay(number: day).civil
            #expect(CalendarDay(year: civil.year, month: civil.month, day: civil.day)?.number == day)
        }
    }
}
