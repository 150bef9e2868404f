import Glibc
package import Wire

/// Which program runs: the same for every program of the package.
package enum Build {
    package static let version = "0.1.0"
    /// As peers are told.
    package static let software = "calibrant \(version)"

    /// The linker's build id of the running program, 40 hex digits: it names these bytes and no others, stripped or not
    /// (`readelf -n`, `eu-unstrip -n`). Empty when the linker wrote none.
    package static let revision: String = {
        let descriptor = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        // Headers and notes lie at the front of the file.
        let head = [UInt8](unsafeUninitializedCapacity: 65_536) { buffer, count in
            count = max(0, pread(descriptor, buffer.baseAddress, buffer.count, 0))
        }
        return buildID(ofELF: head) ?? ""
    }()

    /// The compiler's language version.
    package static let swift: String = {
        #if compiler(>=6.4)
            "6.4"
        #elseif compiler(>=6.3)
            "6.3"
        #else
            "6.2"
        #endif
    }()

    package static var metric: MetricFamily {
        MetricFamily(
            "mm_build_info", .gauge,
            help: "The program: its version, build id, compiler, and the newest protocol of the link it speaks; always 1.",
            samples: [
                MetricSample(
                    .integer(1),
                    labels: [
                        ("version", version), ("revision", revision), ("swift", swift), ("protocol", "\(ProtocolVersion.current)"),
                    ])
            ])
    }

    /// The GNU build id among the notes of a 64-bit little-endian ELF file, as hex; nil when there is none in these first bytes.
    static func buildID(ofELF bytes: [UInt8]) -> String? {
        func integer(_ offset: Int, _ size: Int) -> Int? {
            guard offset >= 0, offset <= bytes.count - size else { return nil }
            return Int(exactly: (0..<size).reduce(UInt64(0)) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) })
        }
        guard bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]), let table = integer(32, 8), let size = integer(54, 2),
            let count = integer(56, 2), table <= bytes.count
        else { return nil }
        for place in 0..<count {
            let header = table + place * size
            let isNotes = integer(header, 4) == 4
            guard isNotes, var note = integer(header + 8, 8), let length = integer(header + 32, 8), note <= bytes.count,
                length <= bytes.count - note
            else { continue }
            let end = note + length
            while note < end, let nameBytes = integer(note, 4), let valueBytes = integer(note + 4, 4), let type = integer(note + 8, 4) {
                let value = note + 12 + (nameBytes + 3) & ~3
                guard value <= end, valueBytes <= end - value else { break }
                if type == 3, nameBytes == 4, bytes[(note + 12)..<(note + 16)].elementsEqual("GNU\0".utf8) {
                    return bytes[value..<(value + valueBytes)].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
                }
                note = value + (valueBytes + 3) & ~3
            }
        }
        return nil
    }
}
