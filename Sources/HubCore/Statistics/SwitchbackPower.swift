import CalibModel

/// How long a planned switchback takes to show an effect to its gate.
///
/// After n pairs of an effect d beyond the tolerance, S is about normal with mean n d and standard deviation s sqrt(n), where s is the standard
/// error of one pair's estimate, and V is close to n (s^2 + d^2/k) for k increments a pair. The gate fires where ln e(S, V) reaches ln(1/alpha)
/// (`EProcess`; Howard, Ramdas, McAuliffe and Sekhon 2021, proposition 6). S taken at its median, or at its lower decile, gives the pair by
/// which half, or nine tenths, of such experiments have been stopped: the first-order time of Wald 1947 (section 3.5), which counts no earlier
/// crossing and is so a little late. Beside the laboratory: within a tenth for effects that take many pairs, and never below the floor of
/// `EProcess.fewestIncrements`.
package struct SwitchbackPower: Sendable {
    /// Of the estimate from one pair, in the metric's unit.
    package var standardError: Double
    /// Coins thrown in a pair: groups of clusters.
    package var increments: Double
    package var alpha: Double
    /// As `Gate.decisionPairs`.
    package var decisionPairs: Double

    package init(standardError: Double, increments: Double, alpha: Double, decisionPairs: Double) {
        precondition(standardError > 0 && increments > 0, "BUG: standard error \(standardError), increments \(increments)")
        self.standardError = standardError
        self.increments = increments
        self.alpha = alpha
        self.decisionPairs = decisionPairs
    }

    /// Quantile of the standard normal at 0.1.
    private static let lowerDecile = -1.281_551_565_544_600_4

    package enum Share: Sendable { case half, nineTenths }

    /// Pairs until this share of experiments has fired; nil when it takes longer than an experiment may last. `excess`: effect minus tolerance.
    package func pairs(excess: Double, _ share: Share) -> Int? {
        guard excess > 0 else { return nil }
        let variance = standardError * standardError
        let rho = EProcess.rho(tightestAt: variance * decisionPairs, alpha: alpha)
        let level = -Elementary.log(alpha)
        return (1...Int(Limits.experimentPairsMax)).first { number in
            let n = Double(number)
            let sum = n * excess + (share == .half ? 0 : Self.lowerDecile) * standardError * n.squareRoot()
            return EProcess.logE(sum: sum, squares: n * (variance + excess * excess / increments), rho: rho) >= level
        }
    }

    /// Of one pair's estimate, from pairs of arm A with the coins they would have had: sqrt(sum G^2 / n) / mean H in the terms of `SequentialTest`.
    /// Nil without any pair that says something.
    package static func standardError(of metric: GateMetric, pairs: [[UnitPair]], units: Int) -> Double? {
        let before = PrePeriod(metric, pairs: pairs, units: units, decisionPairs: 1)
        let weight = pairs.reduce(0.0) { sum, pair in
            sum + SequentialTest.increments(pair, metric, before.precision, theta: before.theta.value).reduce(0) { $0 + $1.weight }
        }
        let squares = pairs.reduce(0.0) { sum, pair in
            let increments = SequentialTest.increments(
                pair.sorted(by: UnitPair.precedes), metric, before.precision, theta: before.theta.value)
            return sum + increments.reduce(0) { $0 + $1.sum * $1.sum }
        }
        guard weight > 0, squares > 0 else { return nil }
        return squares.squareRoot() * Double(pairs.count).squareRoot() / weight
    }
}
