import CalibModel

/// Whether units were split as planned.
package enum SampleRatio {
    /// Pearson's chi-square with k - 1 degrees of freedom; for a few planned looks. 1 without any observation. Weights need not add up to 1;
    /// an arm of weight 0 that was observed all the same is impossible, p = 0.
    package static func p(observed: [Double], weights: [Double]) -> Double {
        let total = observed.reduce(0, +)
        let planned = weights.reduce(0, +)
        guard total > 0 else { return 1 }
        var statistic = 0.0
        for (count, weight) in zip(observed, weights) {
            let expected = weight / planned * total
            guard expected > 0 else {
                if count > 0 { return 0 }
                continue
            }
            statistic += (count - expected) * (count - expected) / expected
        }
        guard statistic < .infinity else { return 0 }
        return NormalDistribution.chiSquareTail(statistic, degrees: observed.count - 1)
    }
}

/// The Wilson score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22), 95 %.
package func wilsonInterval(successes: Int, of total: Int) -> ClosedRange<Double>? {
    guard total > 0 else { return nil }
    let z = 1.959963984540054
    let (n, share) = (Double(total), Double(successes) / Double(total))
    let middle = share + z * z / (2 * n)
    let half = z * (share * (1 - share) / n + z * z / (4 * n * n)).squareRoot()
    return max(0, (middle - half) / (1 + z * z / n))...min(1, (middle + half) / (1 + z * z / n))
}
