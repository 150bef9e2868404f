import CalibModel

/// The normal distribution and its relative, chi-square, to full precision in both tails.
package enum NormalDistribution {
    private static let rootTwo = 1.41421356237309504880
    private static let pi = 3.14159265358979323846

    /// P(Z <= z), relative error about 1e-14 down to the smallest number.
    package static func cumulative(_ z: Double) -> Double { 0.5 * erfc(-z / rootTwo) }

    /// P(Z > z).
    package static func tail(_ z: Double) -> Double { 0.5 * erfc(z / rootTwo) }

    /// ln P(Z <= z); no underflow however far out.
    package static func logCumulative(_ z: Double) -> Double {
        if z > 0 { return Elementary.log1p(-tail(z)) }
        return Elementary.log(0.5 * scaledErfc(-z / rootTwo)) - z * z / 2
    }

    /// 2/sqrt(pi) * integral of exp(-t^2) from x to infinity.
    package static func erfc(_ x: Double) -> Double {
        if x < 0 { return 2 - erfc(-x) }
        if x < 0.5 { return 1 - erfSeries(x) }
        if x > 27.3 { return 0 }
        return scaledErfc(x) * exponential(minusSquareOf: x)
    }

    /// exp(x^2) * erfc(x) for x >= 0, where erfc itself would underflow.
    ///
    /// The trapezoidal rule with step h = 1/2 on the integral of exp(-t^2)/(t^2 + x^2), whose error is the one residue at t = ix
    /// (Chiarella and Reichel 1968, "On the evaluation of integrals related to the error function", eq. 2.10).
    package static func scaledErfc(_ x: Double) -> Double {
        if x < 0.5 { return (1 - erfSeries(x)) * Elementary.exp(x * x) }
        let square = x * x
        var sum = 0.0
        // exp(-k^2/4) is below 1e-17 from k = 13 on.
        for k in (1...13).reversed() { sum += gaussianAtHalves[k - 1] / (0.25 * Double(k * k) + square) }
        let trapezoid = 0.5 * x / pi * (1 / square + 2 * sum)
        guard x < 2 * pi else { return trapezoid }
        return trapezoid - 2 * Elementary.exp(square) / Elementary.expm1(4 * pi * x)
    }

    private static let gaussianAtHalves: [Double] = (1...13).map { Elementary.exp(-0.25 * Double($0 * $0)) }

    /// erf(x) = 2/sqrt(pi) * sum of (-1)^n x^(2n+1) / (n! (2n+1)) for small x.
    private static func erfSeries(_ x: Double) -> Double {
        let square = x * x
        var power = x
        var sum = x
        for n in 1...16 {
            power *= -square / Double(n)
            sum += power / Double(2 * n + 1)
        }
        return sum * 2 / pi.squareRoot()
    }

    /// exp(-x^2) with the rounding of the square carried along: at x = 26 it would cost 1e-13.
    private static func exponential(minusSquareOf x: Double) -> Double {
        let square = x * x
        let lost = (-square).addingProduct(x, x)
        return Elementary.exp(-square) * (1 - lost)
    }

    // MARK: Chi-square

    /// P(X > x) for chi-square with whole degrees of freedom: the finite sum Q(a + 1, x) = Q(a, x) + x^a e^-x / Gamma(a + 1) from
    /// Q(1/2, x) = erfc(sqrt x) or Q(1, x) = e^-x (Abramowitz and Stegun 26.4.4 and 26.4.5). All terms are positive.
    package static func chiSquareTail(_ statistic: Double, degrees: Int) -> Double {
        guard degrees > 0, statistic > 0 else { return 1 }
        let x = statistic / 2
        let isOdd = !degrees.isMultiple(of: 2)
        // Terms in logs: x^a alone would overflow with many degrees of freedom.
        let logX = Elementary.log(x)
        var a = isOdd ? 0.5 : 1.0
        var logGamma = isOdd ? Elementary.log(pi.squareRoot() / 2) : 0
        var sum = isOdd ? erfc(x.squareRoot()) : Elementary.exp(-x)
        while a < Double(degrees) / 2 - 0.25 {
            sum += Elementary.exp(a * logX - x - logGamma)
            a += 1
            logGamma += Elementary.log(a)
        }
        return min(1, sum)
    }
}
