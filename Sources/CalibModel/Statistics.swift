/// Exponential moving average with an explicit beginning: 0 is a value like any other, and "unknown" is nil (SPEC 1.5, 5).
public struct ExponentialAverage: Sendable {
    @usableFromInline var current = 0.0
    @usableFromInline var isInitialised = false
    /// Weight of the newest sample, in (0, 1].
    public var alpha: Double

    @inlinable public init(alpha: Double) { self.alpha = alpha }

    /// Nil until the first sample.
    @inlinable public var value: Double? { isInitialised ? current : nil }

    /// Returns false, and changes nothing, when the sample is not finite.
    @inlinable @discardableResult public mutating func add(_ sample: Double) -> Bool {
        guard sample.isFinite else { return false }
        if isInitialised {
            current += alpha * (sample - current)
        } else {
            current = sample
            isInitialised = true
        }
        return true
    }
}

/// The product's only quantile (SPEC 1.4).
package enum Quantile {
    /// `ascending[min(n-1, (percent*n)/100)]`; nil for no values.
    package static func of(ascending values: [Int64], percent: Int) -> Int64? {
        guard !values.isEmpty else { return nil }
        return values[min(values.count - 1, percent * values.count / 100)]
    }

    /// The first value whose cumulative weight exceeds `percent/100 * W`: equal to the plain rule when every weight is 1.
    /// `pairs` ascend by value, weights are positive; nil for no values.
    package static func of(ascending pairs: [(value: Int64, weight: Int64)], percent: Int) -> Int64? {
        guard let last = pairs.last else { return nil }
        let total = pairs.reduce(Int64(0)) { $0 + $1.weight }
        // cumulative > q*W  <=>  cumulative > floor(q*W) for integers.
        let threshold = total * Int64(percent) / 100
        var cumulative: Int64 = 0
        for (value, weight) in pairs {
            cumulative += weight
            if cumulative > threshold { return value }
        }
        return last.value
    }
}
