import Glibc
import Testing
import Wire

@testable import NodeShell

/// What a process says about itself, against what it knows.
@Suite struct ProcessMetricsTests {
    private func value(_ name: String) -> Int64? {
        for family in ProcessMetrics().families where family.name == name {
            switch family.samples.first?.value {
            case .integer(let value), .fixed(let value, places: _): return value
            case .histogram, nil: return nil
            }
        }
        return nil
    }

    @Test func everyProcessMetricHasAValue() throws {
        let names = ProcessMetrics().families.filter { !$0.samples.isEmpty }.map(\.name)
        #expect(
            names == [
                "process_cpu_seconds", "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_open_fds",
                "process_max_fds", "process_start_time_seconds",
            ])
        let (virtual, resident) = (
            try #require(value("process_virtual_memory_bytes")), try #require(value("process_resident_memory_bytes"))
        )
        #expect(resident > 1 << 20 && virtual > resident)
    }

    /// More than other tests of this process open meanwhile.
    @Test func openFilesAreCounted() throws {
        let before = try #require(value("process_open_fds"))
        let files = (0..<500).map { _ in open("/dev/null", O_RDONLY | O_CLOEXEC) }
        let during = try #require(value("process_open_fds"))
        for file in files { close(file) }
        #expect(during > before + 250 && files.allSatisfy { $0 >= 0 })
    }

    @Test func buildIDIsReadFromItsNote_damageGivesNone() {
        #expect(Build.revision.utf8.count == 40 && Build.revision.allSatisfy(\.isHexDigit))
        var elf = [UInt8](repeating: 0, count: 64 + 56)
        elf.replaceSubrange(0..<6, with: [0x7f, 0x45, 0x4c, 0x46, 2, 1])
        elf[32] = 64  // The program headers' place, their size and number.
        elf[54] = 56
        elf[56] = 1
        elf[64] = 4  // Notes, at 120: 24 bytes.
        elf[64 + 8] = 120
        elf[64 + 32] = 24
        elf += [4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0] + Array("GNU\0".utf8) + [0xde, 0xad, 0x00, 0x0f] + [0, 0, 0, 0]
        #expect(Build.buildID(ofELF: elf) == "dead000f")
        for length in 0..<140 { #expect(Build.buildID(ofELF: Array(elf[..<length])) == nil, "\(length)") }
        for place in elf.indices {
            var damaged = elf
            damaged[place] = 0xff
            _ = Build.buildID(ofELF: damaged)
        }
    }
}
