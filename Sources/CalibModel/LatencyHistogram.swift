/// Buckets of a duration in nanoseconds: exact below 128 ns, then 128 buckets an octave, so that a bucket's upper edge is at most
/// 1/128 above any value in it (SPEC 1.4).
///
/// Index of `n`: `n` below 128; else with `e = floor(log2 n) - 7`: `128*e + (n >> e)`. Upper edge of index `i`: `i` below 256; else with
/// `e = i/128 - 1`: `((i - 128*e + 1) << e) - 1`. The layout is a wire format: `tick_ns_histogram` lists `[index, count]` pairs.
public enum LatencyBuckets {
    /// 2^36 ns = 68 s; longer durations fall in the last bucket.
    public static let longest: Int64 = (1 << 36) - 1
    /// (36 - 8) octaves above the exact 256 values, 128 each, plus those 256.
    public static let count = 128 * 28 + 256

    @inlinable public static func index(of nanoseconds: Int64) -> Int {
        let value = min(max(nanoseconds, 0), longest)
        if value < 128 { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount - 7
        return 128 * exponent + Int(value >> Int64(exponent))
    }

    /// The largest duration that falls in the bucket.
    @inlinable public static func upperEdge(of index: Int) -> Int64 {
        if index < 256 { return Int64(index) }
        let exponent = index / 128 - 1
        return (Int64(index - 128 * exponent + 1) << Int64(exponent)) - 1
    }

    /// The q-quantile of bucketed values: the upper edge of the bucket that holds rank min(n-1, (percent*n)/100); nil when empty.
    /// `pairs` ascend by index.
    package static func quantile(of pairs: [(index: Int, count: Int64)], percent: Int64) -> Int64? {
        let total = pairs.reduce(Int64(0)) { $0 + $1.count }
        guard total > 0 else { return nil }
        let rank = min(total - 1, percent * total / 100)
        var seen: Int64 = 0
        for (index, count) in pairs {
            seen += count
            if seen > rank { return upperEdge(of: index) }
        }
        return nil
    }
}
