import CalibModel

/// Asymptotic confidence sequences: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv:2103.06476v7. Equation numbers are that version's.
package enum ConfidenceSequence {
    /// The rho with which the two-sided sequence is tightest after `count` observations (eq. 161).
    package static func rho(tightestAt count: Double, alpha: Double) -> Double {
        let x = -2 * Elementary.log(alpha)
        return ((x + Elementary.log(x + 1)) / count).squareRoot()
    }

    /// Half the width after `count` observations of variance `variance` (eq. 9): the mean lies within it at all times, with probability
    /// 1 - alpha.
    package static func halfWidth(variance: Double, count: Double, rho: Double, alpha: Double) -> Double {
        let inflated = count * rho * rho + 1
        let level = 0.5 * Elementary.log(inflated) - Elementary.log(alpha)
        return variance.squareRoot() * (2 * inflated * level).squareRoot() / (count * rho)
    }

    /// ln of the e-value against a mean that is off by `difference` (eq. 155, whose inverse is the p value).
    package static func logE(difference: Double, variance: Double, count: Double, rho: Double) -> Double {
        let inflated = count * rho * rho + 1
        // Squares of S / sigma, so with n^2 difference^2 / variance.
        return rho * rho * count * count * difference * difference / variance / (2 * inflated) - 0.5 * Elementary.log(inflated)
    }
}
