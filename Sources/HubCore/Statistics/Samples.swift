import CalibModel

/// What is left of a sample when only sums are kept: mergeable, and enough for means, ratios and their errors.
package struct SampleMoments: Sendable, Equatable {
    package var count: Double
    package var sum: Double
    package var squares: Double

    package init(count: Double, sum: Double, squares: Double) {
        self.count = count
        self.sum = sum
        self.squares = squares
    }

    package init(_ values: [Double]) {
        self.init(count: Double(values.count), sum: values.reduce(0, +), squares: values.reduce(0) { $0 + $1 * $1 })
    }

    package var mean: Double { sum / count }
    /// With n - 1.
    package var variance: Double { (squares - sum * sum / count) / (count - 1) }

    /// With n - 1; `products` = sum of the products of both.
    package static func covariance(_ a: SampleMoments, _ b: SampleMoments, products: Double) -> Double {
        (products - a.sum * b.sum / a.count) / (a.count - 1)
    }
}

/// Mean and variance of one observation of an arm.
package struct ArmSummary: Sendable, Equatable {
    package var count: Double
    package var mean: Double
    package var variance: Double
    /// The mean relative effects divide by: not adjusted by anything.
    package var baseMean: Double

    package init(count: Double, mean: Double, variance: Double, baseMean: Double? = nil) {
        self.count = count
        self.mean = mean
        self.variance = variance
        self.baseMean = baseMean ?? mean
    }

    package init(_ moments: SampleMoments) { self.init(count: moments.count, mean: moments.mean, variance: moments.variance) }

    /// A share of successes.
    package init(count: Double, successes: Double) {
        let share = successes / count
        self.init(count: count, mean: share, variance: share * (1 - share))
    }

    /// A ratio of sums over `count` units, by the delta method: (s_m^2 - 2 R s_md + R^2 s_d^2) / mean(d)^2 per unit (Deng, Knoblich and Lu
    /// 2018, KDD, "Applying the delta method in metric analytics", eq. 4).
    package init(numerator m: SampleMoments, denominator d: SampleMoments, products: Double) {
        let covariance = SampleMoments.covariance(m, d, products: products)
        let ratio = m.sum / d.sum
        let variance = (m.variance - 2 * ratio * covariance + ratio * ratio * d.variance) / (d.mean * d.mean)
        self.init(count: m.count, mean: ratio, variance: variance)
    }
}

/// B minus A, absolute or as a share of A, with the variance of the estimate.
package struct ArmDifference: Sendable, Equatable {
    package var expected: Double
    package var variance: Double
    package var count: Double
    /// Welch and Satterthwaite's.
    package var degrees: Double

    package init(a: ArmSummary, b: ArmSummary, isRelative: Bool) {
        let (shareA, shareB) = (a.variance / a.count, b.variance / b.count)
        if isRelative {
            let base = a.baseMean
            // First-order expansion of the quotient (Deng et al. 2018, section 3.2).
            expected = (b.mean - a.mean) / base
            variance = shareB / (base * base) + shareA * b.baseMean * b.baseMean / (base * base * base * base)
        } else {
            expected = b.mean - a.mean
            variance = shareA + shareB
        }
        count = a.count + b.count
        degrees = (shareA + shareB) * (shareA + shareB) / (shareA * shareA / (a.count - 1) + shareB * shareB / (b.count - 1))
    }

    /// Valid at one planned look.
    package func fixedInterval(alpha: Double) -> ClosedRange<Double> {
        // Beyond 1e12 degrees the t is the normal to all digits.
        let half = StudentT(degrees: min(degrees, 1e12)).quantile(tail: alpha / 2) * variance.squareRoot()
        return expected - half...expected + half
    }

    /// Valid at every look (arXiv:2103.06476v7, eq. 9, with s^2 = variance * N).
    package func sequentialInterval(alpha: Double, rho: Double) -> ClosedRange<Double> {
        let half = ConfidenceSequence.halfWidth(variance: variance * count, count: count, rho: rho, alpha: alpha)
        return expected - half...expected + half
    }

    /// Valid at every look, against an effect of `value` (eq. 155).
    package func sequentialP(against value: Double, rho: Double) -> Double {
        let logE = ConfidenceSequence.logE(difference: expected - value, variance: variance * count, count: count, rho: rho)
        return min(1, Elementary.exp(-logE))
    }
}

/// Variance reduction by what was known before: Deng, Xu, Kohavi and Walker 2013 (WSDM, "Improving the sensitivity of online controlled
/// experiments by utilizing pre-experiment data", eqs. 3 and 4).
package enum CUPED {
    package struct Arm: Sendable {
        package var post: SampleMoments
        package var pre: SampleMoments
        package var products: Double
        package init(post: SampleMoments, pre: SampleMoments, products: Double) {
            self.post = post
            self.pre = pre
            self.products = products
        }
        var covariance: Double { SampleMoments.covariance(post, pre, products: products) }
        package func adjusted(theta: Double) -> ArmSummary {
            ArmSummary(
                count: post.count, mean: post.mean - theta * pre.mean,
                variance: post.variance + theta * theta * pre.variance - 2 * theta * covariance, baseMean: post.mean)
        }
    }

    /// One theta for both arms; 0 when the covariate does not vary.
    package static func theta(_ a: Arm, _ b: Arm) -> Double {
        let varied = a.pre.variance + b.pre.variance
        return varied > 0 ? (a.covariance + b.covariance) / varied : 0
    }

    /// Theta from past pairs only, so that a gate may use it: what is added takes effect for later observations.
    package struct PredictableTheta: Sendable {
        private var n = 0.0
        private var y = 0.0
        private var x = 0.0
        private var xx = 0.0
        private var xy = 0.0
        package init() {}
        /// `weight` 0 leaves it as it was.
        package mutating func add(outcome: Double, covariate: Double, weight: Double = 1) {
            guard weight > 0 else { return }
            n += weight
            // Running means and co-moments (West 1979), as the raw sums would lose digits.
            let (dx, dy) = (covariate - x, outcome - y)
            x += dx * weight / n
            y += dy * weight / n
            xx += weight * dx * (covariate - x)
            xy += weight * dx * (outcome - y)
        }
        package var value: Double { xx > 0 ? xy / xx : 0 }
    }
}
