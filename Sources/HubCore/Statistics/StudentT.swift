import CalibModel

/// Student's t, central and noncentral, and the sample size of a two-sample t test.
///
/// T = (Z + delta)/s with s^2 = chi^2_v / v, so P(T > t) = E Phi(delta - t s). The expectation is a trapezoidal sum over ln s, whose density
/// exp(v (u - e^2u / 2)) is analytic and falls off at both ends: the rule converges exponentially (Trefethen and Weideman 2014, "The
/// exponentially convergent trapezoidal rule", section 5). The weights are normalised by their own sum, so no gamma function is needed,
/// all terms are positive, and both tails keep their relative precision.
package struct StudentT {
    package let degrees: Double
    /// s and its weight.
    private let nodes: [(scale: Double, weight: Double)]

    /// `degrees` of freedom from 0.1 on, whole or not. `noncentrality`: the largest that will be asked for. Phi(delta - t e^u) falls from 1 to
    /// 0 within 1/delta around its middle, which sets how fine the sum is; 6 is for the central distribution's far tail.
    package init(degrees: Double, noncentrality: Double = 0) {
        precondition(degrees >= 0.1, "BUG: \(degrees) degrees of freedom")
        self.degrees = degrees
        // Density relative to its mode at u = 0; 1e-20 is where it is cut.
        func logDensity(_ u: Double) -> Double { degrees * (u - Elementary.expm1(2 * u) / 2) }
        let spread = 1 / (2 * degrees).squareRoot()
        let step = min(0.4 * spread, 0.4 / max(6, abs(noncentrality)))
        var nodes: [(Double, Double)] = []
        var total = 0.0
        for direction in [-1.0, 1.0] {
            var index = direction < 0 ? 1.0 : 0.0
            while true {
                let u = direction * index * step
                let exponent = logDensity(u)
                guard exponent > -46 else { break }
                let weight = Elementary.exp(exponent)
                nodes.append((Elementary.exp(u), weight))
                total += weight
                index += 1
            }
        }
        self.nodes = nodes.map { ($0.0, $0.1 / total) }
    }

    /// P(T > t) with noncentrality `delta`.
    package func tail(_ t: Double, noncentrality delta: Double = 0) -> Double {
        nodes.reduce(0) { $0 + $1.weight * NormalDistribution.cumulative(delta - t * $1.scale) }
    }

    /// The t that the central T exceeds with probability `alpha`; below 0 for more than 1/2.
    package func quantile(tail alpha: Double) -> Double {
        if alpha > 0.5 { return 0 - quantile(tail: 1 - alpha) }
        var high = 1.0
        while tail(high) > alpha, high < 1e300 { high *= 2 }
        return RootFinding.root(from: 0, to: high) { tail($0) - alpha }
    }
}

/// How many units a two-sample t test needs: Cohen 1988, chapter 2; the power by the noncentral t distribution (Johnson, Kotz and
/// Balakrishnan 1995, chapter 31).
package struct TwoSamplePower: Sendable {
    package enum Alternative: String, Sendable, CaseIterable {
        case twoSided = "two-sided"
        case larger
    }
    /// Difference of means in standard deviations.
    package var effect: Double
    package var alpha: Double
    /// Units of the second arm per unit of the first.
    package var ratio: Double
    package var alternative: Alternative

    package init(effect: Double, alpha: Double, ratio: Double = 1, alternative: Alternative = .twoSided) {
        self.effect = effect
        self.alpha = alpha
        self.ratio = ratio
        self.alternative = alternative
    }

    /// Probability of a significant result with `count` units in the first arm.
    package func power(count: Double) -> Double {
        let degrees = count * (1 + ratio) - 2
        let delta = effect * (count * ratio / (1 + ratio)).squareRoot()
        let distribution = StudentT(degrees: degrees, noncentrality: delta)
        let critical = distribution.quantile(tail: alternative == .twoSided ? alpha / 2 : alpha)
        let upper = distribution.tail(critical, noncentrality: delta)
        return alternative == .larger ? upper : upper + distribution.tail(critical, noncentrality: -delta)
    }

    /// Units of the first arm, as a real number, for this power; nil when no number of units up to 1e9 gives it.
    package func count(power wanted: Double) -> Double? {
        let least = 2.2 / (1 + ratio)
        guard power(count: least) < wanted else { return least }
        var high = least
        repeat {
            high *= 2
            if high > 1e9 { return nil }
        } while power(count: high) < wanted
        return RootFinding.secant(from: high / 2, to: high) { power(count: $0) - wanted }
    }
}
