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

    /// Distance of a one-sided bound from the mean (eq. 134); `rho` for 2 alpha. Not before some ten observations.
    package static func oneSidedMargin(variance: Double, count: Double, rho: Double, alpha: Double) -> Double {
        let inflated = count * rho * rho + 1
        let level = Elementary.log1p(inflated.squareRoot() / (2 * alpha))
        return variance.squareRoot() * (2 * inflated * level).squareRoot() / (count * rho)
    }

    /// Robbins' boundary for sums of known variance V (Robbins 1970, Ann. Math. Statist. 41; Howard et al. 2021, eq. 14): |S| stays below it at
    /// all times with probability 1 - alpha. The boundary of the mixture SPRT for a prior N(0, tau^2) with rho = v / tau^2.
    package static func robbinsBoundary(squares: Double, rho: Double, alpha: Double) -> Double {
        ((squares + rho) * (Elementary.log((squares + rho) / rho) - 2 * Elementary.log(alpha))).squareRoot()
    }

    /// ln of the mixture SPRT's likelihood ratio for the mean of `count` paired differences of variance `variance` under a prior
    /// N(0, tau2) (Johari, Koomen, Pekelis and Walsh 2022, Oper. Res. 70, eq. 6).
    package static func mixtureSPRT(mean: Double, count: Double, variance: Double, tau2: Double) -> Double {
        let total = variance + count * tau2
        return 0.5 * Elementary.log(variance / total) + count * count * tau2 * mean * mean / (2 * variance * total)
    }
}
