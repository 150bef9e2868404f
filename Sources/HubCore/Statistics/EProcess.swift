import CalibModel

/// Evidence for harm that may be looked at whenever one likes: the one-sided normal-mixture e-process of sign-symmetric increments.
///
/// Each increment is a difference whose sign the experiment's own coin decided. Under "no effect above delta" it is as likely +|D| as -|D|,
/// whatever its size, its past or its neighbours, so exp(l D - l^2 D^2/2) has a mean of at most 1 for every l (de la Pena 1999, Ann. Probab.
/// 27, Lemma 6.1), the product is a supermartingale, and so is its mixture over a half-normal l of variance 1/rho. By Ville's inequality
/// P(e ever reaches 1/alpha) <= alpha: no variance is estimated, nothing is spent by looking, and no independence is asked for.
///
///     log e = ln 2 + ln(rho/(V + rho))/2 + S^2/(2(V + rho)) + ln Phi(S/sqrt(V + rho)),   S = sum D, V = sum D^2
///
/// Howard, Ramdas, McAuliffe and Sekhon 2021 (Ann. Statist. 49, arXiv:1810.08240), proposition 6 (one-sided normal mixture), with the
/// self-normalised V of Howard et al. 2020 (Probab. Surveys 17, table 3, row "symmetric").
package struct EProcess: Sendable, Equatable {
    package private(set) var sum = 0.0
    package private(set) var squares = 0.0
    package private(set) var count = 0
    package let rho: Double
    /// Largest log e so far, the empty product's 0 included.
    package private(set) var logEMax = 0.0

    package init(rho: Double) {
        precondition(rho > 0 && rho < .infinity, "BUG: rho \(rho)")
        self.rho = rho
    }

    package mutating func add(_ increment: Double) {
        sum += increment
        squares += increment * increment
        count += 1
        logEMax = max(logEMax, logE)
    }

    package var logE: Double { Self.logE(sum: sum, squares: squares, rho: rho) }

    /// P value valid at every time: 1 / the largest e.
    package var anytimeP: Double { min(1, Elementary.exp(-logEMax)) }

    /// The largest e has reached 1/alpha.
    package func rejects(at alpha: Double) -> Bool { logEMax >= -Elementary.log(alpha) }

    package static func logE(sum: Double, squares: Double, rho: Double) -> Double {
        let width = squares + rho
        return 0.693_147_180_559_945_309 + 0.5 * Elementary.log(rho / width) + sum * sum / (2 * width)
            + NormalDistribution.logCumulative(sum / width.squareRoot())
    }

    /// The rho with which the boundary is tightest where V = `squares`: v / (2 ln(1/2a) + ln(1 + 2 ln(1/2a))), one-sided, so with 2a in
    /// place of a (Howard et al. 2021, section 3.5, and `best_rho` of their confseq). `alpha` below 1/2.
    package static func rho(tightestAt squares: Double, alpha: Double) -> Double {
        let x = 2 * Elementary.log(1 / (2 * alpha))
        return squares / (x + Elementary.log(1 + x))
    }

    /// Fewest equal increments that can reach 1/alpha, with rho tuned for `tuned` of them.
    package static func fewestIncrements(tunedFor tuned: Double, alpha: Double) -> Int {
        let rho = rho(tightestAt: tuned, alpha: alpha)
        let level = -Elementary.log(alpha)
        return (1...10_000).first { logE(sum: Double($0), squares: Double($0), rho: rho) >= level } ?? 10_000
    }
}

/// The e-process at every possible effect at once: which effects are excluded (its inversion to bounds).
///
/// For an effect d the increments are D - d h, so S(d) = S - d H and V(d) = V - 2 d C + d^2 Q, with H = sum h, C = sum D h, Q = sum h^2.
package struct EffectSums: Sendable, Equatable {
    package private(set) var sum = 0.0
    package private(set) var squares = 0.0
    package private(set) var weight = 0.0
    package private(set) var cross = 0.0
    package private(set) var squaredWeight = 0.0

    package init() {}

    /// An increment at effect 0, and what an effect of 1 adds to it.
    package mutating func add(_ increment: Double, weight h: Double) {
        sum += increment
        squares += increment * increment
        weight += h
        cross += increment * h
        squaredWeight += h * h
    }

    /// Nil without any weight.
    package var estimate: Double? { weight > 0 ? sum / weight : nil }

    package func logE(effect d: Double, rho: Double) -> Double {
        EProcess.logE(sum: sum - d * weight, squares: max(0, squares - 2 * d * cross + d * d * squaredWeight), rho: rho)
    }

    /// Effects below it are excluded at level alpha: the first root of log e = ln(1/alpha) left of the estimate. Nil when no effect is.
    package func lowerBound(rho: Double, alpha: Double) -> Double? {
        guard let estimate, squaredWeight > 0 else { return nil }
        let level = -Elementary.log(alpha)
        func excess(_ d: Double) -> Double { logE(effect: d, rho: rho) - level }
        // Left of the estimate log e rises to a hill and then falls slowly for ever: walked in steps that grow by a tenth, from a
        // thousandth of the width that rho alone gives. A hill that only just reaches the level stands between three points.
        let scale = max((rho + squares).squareRoot() / weight * 1e-3, abs(estimate) * 1e-12)
        var before = (point: estimate, value: excess(estimate))
        var beforeThat = before
        var distance = 0.0
        var step = scale
        while distance < 1e9 * scale {
            distance += step
            step *= 1.1
            let now = (point: estimate - distance, value: excess(estimate - distance))
            if now.value >= 0 { return RootFinding.root(from: now.point, to: before.point) { excess($0) } }
            if now.value < before.value, before.value > beforeThat.value {
                let top = RootFinding.maximum(from: now.point, to: beforeThat.point) { excess($0) }
                if excess(top) >= 0 { return RootFinding.root(from: top, to: beforeThat.point) { excess($0) } }
            }
            (beforeThat, before) = (before, now)
        }
        return nil
    }

    /// Effects above it are excluded at level alpha.
    package func upperBound(rho: Double, alpha: Double) -> Double? {
        mirrored.lowerBound(rho: rho, alpha: alpha).map { 0 - $0 }
    }

    /// The same data with the sign of every effect turned round.
    package var mirrored: EffectSums {
        var other = self
        other.sum = 0 - sum
        other.cross = 0 - cross
        return other
    }
}
