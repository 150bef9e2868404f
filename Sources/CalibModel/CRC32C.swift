/// CRC-32C (Castagnoli; RFC 3720 appendix B.4): what edge and hub compare their copies of a file by.
package struct CRC32C: Sendable {
    /// One byte's remainder under the reflected polynomial.
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { rest, _ in rest & 1 == 1 ? rest >> 1 ^ 0x82f6_3b78 : rest >> 1 }
    }

    private var state: UInt32 = .max

    package init() {}

    package mutating func combine(_ bytes: some Sequence<UInt8>) {
        var rest = state
        Self.table.withUnsafeBufferPointer { table in
            for byte in bytes { rest = table[Int(UInt8(truncatingIfNeeded: rest) ^ byte)] ^ rest >> 8 }
        }
        state = rest
    }

    package var value: UInt32 { ~state }

    /// 8 lower-case hex digits, as on the wire.
    package var text: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.utf8.count) + digits
    }

    package static func text(of bytes: some Sequence<UInt8>) -> String {
        var crc = CRC32C()
        crc.combine(bytes)
        return crc.text
    }
}
