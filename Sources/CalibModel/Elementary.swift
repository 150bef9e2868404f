/// Logarithm and exponential in the core's own arithmetic: IEEE operations in a fixed order and nothing of the machine's libm, so that a
/// gate computed from the same stored rows has the same bits on every machine (SPEC 7.3). Not for the quote path.
///
/// Argument reductions after fdlibm (`e_log.c`, `e_exp.c`), plain Taylor series behind them; within 2 units in the last place.
package enum Elementary {
    private static let ln2High = 6.93147180369123816490e-01
    private static let ln2Low = 1.90821492927058770002e-10
    private static let log2e = 1.44269504088896338700
    /// 2/3, 2/5, ... 2/21: the series of 2 atanh(s) beyond its first term; s^2 <= 0.0295, so the next one is below 2^-57.
    private static let atanhSeries: InlineArray<10, Double> = [
        2 / 3, 2 / 5, 2 / 7, 2 / 9, 2 / 11, 2 / 13, 2 / 15, 2 / 17, 2 / 19, 2 / 21,
    ]
    /// 1/2!, 1/3!, ... 1/14!.
    private static let exponentialSeries: InlineArray<13, Double> = [
        1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320, 1 / 362_880, 1 / 3_628_800, 1 / 39_916_800, 1 / 479_001_600,
        1 / 6_227_020_800, 1 / 87_178_291_200,
    ]

    /// Natural logarithm; -infinity at 0, NaN below.
    package static func log(_ x: Double) -> Double {
        guard x > 0, x < .infinity else { return x == 0 ? -.infinity : x == .infinity ? x : .nan }
        var exponent = Double(x.exponent)
        var mantissa = x.significand
        if mantissa > 1.414_213_562_373_095 {
            mantissa /= 2
            exponent += 1
        }
        let f = mantissa - 1
        let s = f / (2 + f)
        let z = s * s
        var series = 0.0
        for index in (0..<10).reversed() { series = series * z + atanhSeries[index] }
        let half = 0.5 * f * f
        // log(1 + f) = 2s + s * series * z with 2s = f - half + s * half; the big terms last.
        return exponent * ln2High - ((half - (s * (half + series * z) + exponent * ln2Low)) - f)
    }

    /// log(1 + x), exact to the last places for small x.
    package static func log1p(_ x: Double) -> Double {
        let sum = 1 + x
        guard sum > 0, sum < .infinity, sum != 1 else { return sum == 1 ? x : log(sum) }
        // The rounding error of the sum, to first order (Kahan).
        let lost = x - (sum - 1)
        return log(sum) + lost / sum
    }

    /// 0 below -745.2, infinity above 709.8.
    package static func exp(_ x: Double) -> Double {
        guard x > -746, x < 710 else { return x <= -746 ? 0 : x >= 710 ? .infinity : .nan }
        let power = (x * log2e).rounded()
        let rest = (x - power * ln2High) - power * ln2Low
        return scaled(1 + small(rest), by: Int(power))
    }

    /// exp(x) - 1, exact to the last places for small x.
    package static func expm1(_ x: Double) -> Double { abs(x) < 0.35 ? small(x) : exp(x) - 1 }

    /// exp(r) - 1 for |r| <= 0.35.
    private static func small(_ r: Double) -> Double {
        var series = 0.0
        for index in (0..<13).reversed() { series = series * r + exponentialSeries[index] }
        return r + r * r * series
    }

    private static func scaled(_ value: Double, by power: Int) -> Double {
        if power >= -1021, power <= 1022 {
            return value * Double(sign: .plus, exponentBitPattern: UInt(power + 1023), significandBitPattern: 0)
        }
        // In two steps: the factor itself would be no normal number.
        let half = power / 2
        return scaled(scaled(value, by: half), by: power - half)
    }
}
