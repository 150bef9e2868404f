/// SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012) over a stream of 64-bit words.
///
/// Equal to the reference algorithm over the words' little-endian bytes.
public struct KeyedHash: Sendable {
    private var v0: UInt64
    private var v1: UInt64
    private var v2: UInt64
    private var v3: UInt64
    private var words: UInt64 = 0

    /// The key's two little-endian halves.
    public init(key0: UInt64 = 0, key1: UInt64 = 0) {
        v0 = key0 ^ 0x736f_6d65_7073_6575
        v1 = key1 ^ 0x646f_7261_6e64_6f6d
        v2 = key0 ^ 0x6c79_6765_6e65_7261
        v3 = key1 ^ 0x7465_6462_7974_6573
    }

    public mutating func combine(_ word: UInt64) {
        v3 ^= word
        round()
        round()
        v0 ^= word
        words &+= 1
    }

    public mutating func combine(_ word: Int64) { combine(UInt64(bitPattern: word)) }

    /// The hash of what was combined so far; more can be combined afterwards.
    public func finalized() -> UInt64 {
        var copy = self
        copy.combine((words &* 8) << 56)
        copy.v2 ^= 0xff
        for _ in 0..<4 { copy.round() }
        return copy.v0 ^ copy.v1 ^ copy.v2 ^ copy.v3
    }

    /// SipHash-2-4 of a byte string.
    package static func hash(_ bytes: some Sequence<UInt8>, key0: UInt64, key1: UInt64) -> UInt64 {
        var state = KeyedHash(key0: key0, key1: key1)
        var word: UInt64 = 0
        var count = 0
        for byte in bytes {
            word |= UInt64(byte) << UInt64(8 * (count & 7))
            count += 1
            if count & 7 == 0 {
                state.combine(word)
                word = 0
            }
        }
        state.combine(word | UInt64(count & 0xff) << 56)
        state.v2 ^= 0xff
        for _ in 0..<4 { state.round() }
        return state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    }

    private mutating func round() {
        v0 = v0 &+ v1
        v1 = (v1 << 13 | v1 >> 51) ^ v0
        v0 = v0 << 32 | v0 >> 32
        v2 = v2 &+ v3
        v3 = (v3 << 16 | v3 >> 48) ^ v2
        v0 = v0 &+ v3
        v3 = (v3 << 21 | v3 >> 43) ^ v0
        v2 = v2 &+ v1
        v1 = (v1 << 17 | v1 >> 47) ^ v2
        v2 = v2 << 32 | v2 >> 32
    }
}
