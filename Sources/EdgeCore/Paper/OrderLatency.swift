import CalibModel

/// How long one order message takes to the paper exchange: constant, or the constant plus a sampled delay.
///
/// The delay is exponential with `jitter` as its mean, by its 16 equally likely quantiles, so that the path of a quote needs no logarithm. Which
/// one a message draws is a keyed hash of its symbol and its number there: a replay repeats it, and another parameter does not shift it.
package struct OrderLatency: Sendable {
    private var message: Int64 = 0

    package init() {}

    /// -ln(1 - (i + 1/2)/16) in thousandths; their mean is 978.
    private static let thousandths: InlineArray<16, Int64> = [
        32, 98, 170, 247, 330, 421, 521, 633, 758, 901, 1068, 1269, 1520, 1856, 2367, 3466,
    ]

    /// Nanoseconds, for the symbol's next message.
    package mutating func next(constant: Int64, jitter: Int64, key: Int64) -> Int64 {
        guard jitter > 0 else { return constant }
        message += 1
        var hash = KeyedHash()
        hash.combine(key)
        hash.combine(message)
        return constant + jitter / 1000 * Self.thousandths[Int(hash.finalized() & 15)]
    }
}
