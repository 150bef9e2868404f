import CalibModel

/// The one source of randomness of a simulated world: xoshiro256** (Blackman and Vigna 2018), seeded through SplitMix64.
///
/// Integers only, so a seed gives the same world on every machine.
package struct PRNG: Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    package init(seed: UInt64) {
        var split = SplitMix64(state: seed)
        state = (split.next(), split.next(), split.next(), split.next())
    }

    /// 64 uniform bits.
    package mutating func next() -> UInt64 {
        let result = rotated(state.1 &* 5, by: 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotated(state.3, by: 45)
        return result
    }

    /// A uniform number in `0..<bound`. The bias is below bound / 2^64 and not worth a loop here.
    package mutating func below(_ bound: Int64) -> Int64 {
        precondition(bound > 0, "BUG: no number below \(bound)")
        return Int64(next().multipliedFullWidth(by: UInt64(bound)).high)
    }

    /// True `perMillion` times in a million draws.
    package mutating func chance(perMillion: Int64) -> Bool { below(1_000_000) < perMillion }

    /// A heavy-tailed whole number in `1 ..< 2^octaves`: every octave is equally likely, within it every number.
    package mutating func acrossOctaves(_ octaves: Int64) -> Int64 {
        let floor = Int64(1) << below(octaves)
        return floor + below(floor)
    }
}

private func rotated(_ value: UInt64, by count: UInt64) -> UInt64 { value << count | value >> (64 - count) }
