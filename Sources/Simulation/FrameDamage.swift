import CalibModel

/// Damage to a venue's frame, from a seed: what a broken proxy, a wrong version or an attacker could send.
package enum FrameDamage {
    /// Values that no field expects, as JSON.
    private static let extremes: [[UInt8]] = [
        "0", "1", "-1", "-0", "00", "1.", ".5", "1e3", "1e308", "1e-308", "1e999999999999", "123456789012345", "1234567890123456",
        "9223372036854775807", "-9223372036854775808", "99999999999999999999999999", "4102444799999", "NaN", "Infinity", "-Infinity",
        "null",
        "true", "false", "\"\"", "\"0\"", "\"00.1\"", "\"0.\"", "\".1\"", "\"NaN\"", "\"-5.1\"", "\"1e9\"", "\"12345678.1234567\"",
        "\"576460752.3\"", "\"0.000000001\"", "\"0.000000000000001\"", "\"61800.123456789\"", "\"123456789012345678901234567890\"",
        "\"1.2.3\"",
        "[]", "{}", "[[\"1\"]]", "[[\"1\",\"1\",[]]]", "[[\"1\",\"2\"],]", "[[\"1\" ,\"2\"]]", "[[1,2]]", "\"\\u0000\"", "\"\\u0030\"",
        "\"\\ud800\"", "\"é\"", "\"MARKET\"", "\"snapshot\"", "\"orderbook.1.BTCUSDT\"", "\"orderbook.99999999999999999999.BTCUSDT\"",
        "\"publicTrade.\"", "\"publicTrade.BTCUSDT\"", "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]", "{\"a\":{\"a\":{\"a\":{\"a\":1}}}}",
    ].map { Array($0.utf8) }

    /// One edit: a bit flipped, a byte removed or put in, the end cut off, the beginning doubled, or a value replaced by an extreme one.
    package static func apply(to frame: inout [UInt8], _ random: inout PRNG) {
        guard !frame.isEmpty else { return }
        let place = Int(random.below(Int64(frame.count)))
        switch random.below(8) {
        case 0: frame[place] ^= UInt8(truncatingIfNeeded: 1 << random.below(8))
        case 1: frame.remove(at: place)
        case 2: frame.insert(UInt8(truncatingIfNeeded: random.below(256)), at: place)
        case 3: frame.removeSubrange(place...)
        case 4 where place < 4096: frame.insert(contentsOf: frame[0..<place], at: place)
        default: replaceValue(in: &frame, near: place, &random)
        }
    }

    private static func replaceValue(in frame: inout [UInt8], near place: Int, _ random: inout PRNG) {
        func begins(_ byte: UInt8) -> Bool { byte == UInt8(ascii: ":") || byte == UInt8(ascii: "[") }
        guard let before = frame[place...].firstIndex(where: begins) ?? frame[..<place].lastIndex(where: begins) else { return }
        let start = before + 1
        let end =
            frame[start...].firstIndex { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "}") || $0 == UInt8(ascii: "]") } ?? frame.count
        frame.replaceSubrange(start..<end, with: extremes[Int(random.below(Int64(extremes.count)))])
    }
}
