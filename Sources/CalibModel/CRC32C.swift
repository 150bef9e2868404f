internal import CCRC32C

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

    package mutating func combine(_ bytes: UnsafeRawBufferPointer) {
        if Self.isInHardware {
            state = crc32c_update(state, bytes.baseAddress, bytes.count)
        } else {
            combineInSlices(bytes)
        }
    }

    private static let isInHardware = crc32c_is_in_hardware() != 0

    /// Without the instruction. Eight bytes a step ("slicing-by-8", Kounavis and Berry 2005): table k is the remainder of a byte that k more follow.
    package mutating func combineInSlices(_ bytes: UnsafeRawBufferPointer) {
        var rest = state
        var place = 0
        Self.slices.withUnsafeBufferPointer { slices in
            while place + 8 <= bytes.count {
                let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)) ^ UInt64(rest)
                rest = 0
                for slice in 0..<8 { rest ^= slices[(7 - slice) << 8 | Int(UInt8(truncatingIfNeeded: word >> (UInt64(slice) * 8)))] }
                place += 8
            }
            while place < bytes.count {
                rest = slices[Int(UInt8(truncatingIfNeeded: rest) ^ bytes[place])] ^ rest >> 8
                place += 1
            }
        }
        state = rest
    }

    private static let slices: [UInt32] = {
        var slices = table
        for place in 256..<2048 {
            let before = slices[place - 256]
            slices.append(table[Int(UInt8(truncatingIfNeeded: before))] ^ before >> 8)
        }
        return slices
    }()

    package var value: UInt32 { ~state }

    /// 8 lower-case hex digits, as on the wire.
    package var text: String { Self.text(value) }

    package static func text(_ value: UInt32) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 8 - digits.utf8.count) + digits
    }

    package static func text(of bytes: some Sequence<UInt8>) -> String {
        var crc = CRC32C()
        crc.combine(bytes)
        return crc.text
    }
}
