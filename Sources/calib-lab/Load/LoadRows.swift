import Glibc

/// Rows of a feed, made up as they are sent and made again to compare what was stored: equal arguments give equal bytes. Each is valid
/// (SPEC 2) and differs from the one before in its `seq` alone, so that to make one costs a copy of ten digits.
///
/// Owns the bytes of one message: room for its line, and the rows behind it.
struct LoadRows: ~Copyable {
    /// Every seq has as many digits, so every row has the same length.
    static let firstSeq: Int64 = 1_000_000_001
    private static let seqDigits = 10
    /// The longest line in front of rows has 100 bytes: `append`, a file's name, two numbers.
    private static let lineBytesMax = 128
    /// The shortest row: all fields of a markout, shortest values but for host and epoch.
    static let rowBytesMin = 360

    let rowBytes: Int
    let rowsMax: Int
    private let bytes: UnsafeMutableRawBufferPointer

    /// `rowBytes`: of a row with its newline, at least `rowBytesMin` and at most 64 KiB; `rowsMax` of them fit.
    init(host: String, epoch: String, rowBytes: Int, rowsMax: Int) {
        self.rowBytes = rowBytes
        self.rowsMax = rowsMax
        bytes = .allocate(byteCount: Self.lineBytesMax + rowsMax * rowBytes, alignment: 16)
        let head =
            #"{"ts":1735689600123,"ts_iso":"2025-01-01T00:00:00.123Z","symbol":"BTCUSDT","fill_id":1,"fill_ts":1735689570123,"#
            + #""mid_1s":50000.55,"mid_5s":50000.65,"mid_30s":null,"net_bps":0.159999,"arm":"A","arm_why":"none","experiment":null,"#
            + #""block":null,"config_hash":"feed000000000002","v":1,"source":"sim","venue":"sim"#
        let tail = #"","host":"\#(host)","epoch":"\#(epoch)","seq":0000000000}"# + "\n"
        let filling = rowBytes - head.utf8.count - tail.utf8.count
        precondition(filling >= 0, "BUG: a row of \(rowBytes) bytes has no room for host '\(host)'")
        let row = Array((head + String(repeating: "0", count: filling) + tail).utf8)
        for place in 0..<rowsMax {
            bytes.baseAddress!.advanced(by: Self.lineBytesMax + place * rowBytes).copyMemory(from: row, byteCount: rowBytes)
        }
    }

    deinit { bytes.deallocate() }

    /// `count` rows from the `first` on (0 is the feed's first), behind `line`, which may be empty. Valid until the next call.
    func make(_ count: Int, from first: Int64, behind line: [UInt8]) -> UnsafeRawBufferPointer {
        precondition(count <= rowsMax && line.count <= Self.lineBytesMax, "BUG: \(count) rows behind \(line.count) bytes")
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Self.seqDigits) { digits in
            var rest = Self.firstSeq + first
            for place in (0..<Self.seqDigits).reversed() {
                digits[place] = 0x30 + UInt8(rest % 10)
                rest /= 10
            }
            // The last bytes of a row: the digits, a brace, a newline.
            var target = bytes.baseAddress! + Self.lineBytesMax + rowBytes - Self.seqDigits - 2
            for _ in 0..<count {
                target.copyMemory(from: digits.baseAddress!, byteCount: Self.seqDigits)
                target += rowBytes
                var place = Self.seqDigits - 1
                while digits[place] == 0x39 {
                    digits[place] = 0x30
                    place -= 1
                }
                digits[place] += 1
            }
        }
        let start = Self.lineBytesMax - line.count
        bytes.baseAddress!.advanced(by: start).copyMemory(from: line, byteCount: line.count)
        return UnsafeRawBufferPointer(rebasing: bytes[start..<Self.lineBytesMax + count * rowBytes])
    }

    /// Nil when the file holds the feed's first rows and nothing else, and of them a number in `counts`; else one sentence.
    func difference(from path: String, counts: ClosedRange<Int64>) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "'\(path)' cannot be opened (errno \(errno))" }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return "'\(path)' cannot be looked at (errno \(errno))" }
        let (count, part) = Int64(status.st_size).quotientAndRemainder(dividingBy: Int64(rowBytes))
        guard part == 0, counts.contains(count) else {
            return "'\(path)' has \(status.st_size) bytes, expected were \(counts.lowerBound) to \(counts.upperBound) rows of \(rowBytes)"
        }
        let stored = UnsafeMutableRawBufferPointer.allocate(byteCount: rowsMax * rowBytes, alignment: 16)
        defer { stored.deallocate() }
        var rows: Int64 = 0
        while rows < count {
            let expected = make(Int(min(count - rows, Int64(rowsMax))), from: rows, behind: [])
            var held = 0
            while held < expected.count {
                let got = read(descriptor, stored.baseAddress! + held, expected.count - held)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { return "'\(path)' ends at byte \(rows * Int64(rowBytes) + Int64(held)) of \(count * Int64(rowBytes))" }
                held += got
            }
            guard memcmp(stored.baseAddress!, expected.baseAddress!, expected.count) == 0 else {
                return "'\(path)' holds other bytes than were sent, from row \(rows) on"
            }
            rows += Int64(expected.count / rowBytes)
        }
        return nil
    }
}
