/// y = b0 + b1 * treated by least squares, with standard errors that survive what time series do to the ordinary ones.
///
/// All are the sandwich (X'X)^-1 S (X'X)^-1; they differ in S. For reports with one planned look, not for gates.
package struct TreatmentRegression {
    package enum Errors: Sendable {
        /// Bartlett weights 1 - k/(lags + 1), no small-sample factor (Newey and West 1987, Econometrica 55, eq. 5).
        case hac(lags: Int)
        /// Consecutive groups of this size; G/(G-1) * (N-1)/(N-K) (Liang and Zeger 1986, Biometrika 73; Cameron and Miller 2015, eq. 12).
        case cluster(size: Int)
        /// N/(N-K) (MacKinnon and White 1985, J. Econometrics 29).
        case hc1
    }

    package let beta: (constant: Double, treated: Double)
    private let scores: [(Double, Double)]
    private let inverse: (Double, Double, Double)

    /// Nil when all or none are treated. Equally many of both.
    package init?(y: [Double], isTreated: [Bool]) {
        let n = Double(y.count)
        let treated = Double(isTreated.count { $0 })
        guard treated > 0, treated < n else { return nil }
        var sums = (treated: 0.0, rest: 0.0)
        for (value, flag) in zip(y, isTreated) { if flag { sums.treated += value } else { sums.rest += value } }
        let constant = sums.rest / (n - treated)
        let difference = sums.treated / treated - constant
        beta = (constant, difference)
        scores = zip(y, isTreated).map { value, flag in
            let residual = value - constant - (flag ? difference : 0)
            return (residual, flag ? residual : 0)
        }
        // Of X'X = [[n, m], [m, m]] with m treated.
        let determinant = treated * (n - treated)
        inverse = (treated / determinant, 0 - treated / determinant, n / determinant)
    }

    /// Of both coefficients; nil with a single cluster, or with two observations.
    package func standardErrors(_ errors: Errors) -> (constant: Double, treated: Double)? {
        let n = Double(scores.count)
        var meat = (0.0, 0.0, 0.0)
        func add(_ a: (Double, Double), _ b: (Double, Double), _ weight: Double) {
            meat.0 += weight * a.0 * b.0
            meat.1 += weight * 0.5 * (a.0 * b.1 + a.1 * b.0)
            meat.2 += weight * a.1 * b.1
        }
        var factor = 1.0
        switch errors {
        case .hac(let lags):
            for score in scores { add(score, score, 1) }
            for lag in stride(from: 1, through: min(lags, scores.count - 1), by: 1) {
                let weight = 1 - Double(lag) / Double(lags + 1)
                // Twice: the matrix of lag -k is the transpose, and the off-diagonal above is already symmetric.
                for index in lag..<scores.count { add(scores[index], scores[index - lag], 2 * weight) }
            }
        case .cluster(let size):
            var groups = 0.0
            for start in stride(from: 0, to: scores.count, by: size) {
                let sum = scores[start..<min(start + size, scores.count)].reduce((0.0, 0.0)) { ($0.0 + $1.0, $0.1 + $1.1) }
                add(sum, sum, 1)
                groups += 1
            }
            guard groups > 1, n > 2 else { return nil }
            factor = groups / (groups - 1) * (n - 1) / (n - 2)
        case .hc1:
            guard n > 2 else { return nil }
            for score in scores { add(score, score, 1) }
            factor = n / (n - 2)
        }
        let (p, q, r) = inverse
        let constant = p * p * meat.0 + 2 * p * q * meat.1 + q * q * meat.2
        let treated = q * q * meat.0 + 2 * q * r * meat.1 + r * r * meat.2
        // Rounding may leave a 0 below itself; what is no number stays none.
        func root(_ variance: Double) -> Double { variance < 0 ? 0 : variance.squareRoot() }
        return (root(factor * constant), root(factor * treated))
    }
}
