import CalibModel

/// Evidence that the mean of bounded observations lies above a limit: a gambler's wealth.
///
///     K_t(m) = product of 1 + l_i(m) (x_i - m),   l_i(m) = min(l_i, c/m) with l_i known before x_i
///
/// Under "every mean given the past is at most m" K is a nonnegative supermartingale, so m is excluded at 1/alpha (Ville). Waudby-Smith and
/// Ramdas 2024 (J. R. Stat. Soc. B 86, "Estimating means of bounded random variables by betting"), theorem 3 with the predictable plug-in
/// bets of their eq. 26 and c = 1/2. Observations are block means of the whole fleet: misses come in bursts, so ticks are not independent.
package struct BettingBound: Sendable {
    /// Observations in [0, 1] and the bets made on them.
    private var rounds: [(x: Double, bet: Double)] = []
    private let alpha: Double
    /// The limit's own size stands for what is not known before the first observation; any value is valid.
    private let prior: Double
    private var sum = 0.0
    private var squares = 0.0

    /// `expected`: a likely mean, such as the limit itself, in (0, 1).
    package init(alpha: Double, expected: Double) {
        precondition(alpha > 0 && alpha < 1 && expected > 0 && expected < 1, "BUG: alpha \(alpha), expected \(expected)")
        self.alpha = alpha
        prior = expected
    }

    package var count: Int { rounds.count }

    package mutating func add(_ x: Double) {
        precondition(x >= 0 && x <= 1, "BUG: an observation of \(x)")
        let t = Double(rounds.count + 1)
        let variance = (prior * prior + squares) / t
        let bet = (-2 * Elementary.log(alpha) / (variance * t * Elementary.log1p(t))).squareRoot()
        rounds.append((x, bet))
        sum += x
        let mean = (prior + sum) / (t + 1)
        squares += (x - mean) * (x - mean)
    }

    /// ln of the wealth against a mean of at most `limit`, in (0, 1).
    package func logWealth(against limit: Double) -> Double {
        rounds.reduce(0) { $0 + Elementary.log1p(min($1.bet, 0.5 / limit) * ($1.x - limit)) }
    }

    /// Means below it are excluded at level alpha: the wealth falls as the limit rises. 0 when none is.
    package var lowerBound: Double {
        let level = -Elementary.log(alpha)
        guard rounds.contains(where: { $0.x > 0 }), logWealth(against: 1e-12) >= level else { return 0 }
        guard logWealth(against: 1 - 1e-12) < level else { return 1 }
        return RootFinding.root(from: 1e-12, to: 1 - 1e-12) { logWealth(against: $0) - level }
    }
}
