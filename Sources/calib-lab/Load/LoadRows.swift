import CalibModel
import Glibc
import Wire

/// Rows of a feed, made up as they are sent and made again to compare what was stored: equal arguments give equal bytes. Each is as an edge writes
/// it (SPEC 2) and differs from the one before in its `seq` alone, so that to make one costs a copy of ten digits.
///
/// Owns the bytes of one message: room for its line, and the rows behind it.
final class LoadRows {
    /// Every seq has as many digits, so every row has the same length.
    static let firstSeq: Int64 = 1_000_000_001
    private static let seqDigits = 10
    /// The longest line in front of rows has 100 bytes: `append`, a file's name, two numbers.
    private static let lineBytesMax = 128
    /// The shortest markout, with room for the longest host of a bench.
    static let rowBytesMin = 372

    let rowBytes: Int
    let rowsMax: Int
    private let bytes: UnsafeMutableRawBufferPointer

    /// `rowBytes`: of a row with its newline, at most 64 KiB, which the venue's name makes longer than it is; nil: as long as it is. As many rows as
    /// `messageBytes` holds are made at a time, `rowsMax` at most.
    init(_ feed: Feed, host: String, epoch: String, rowBytes: Int?, messageBytes: Int, rowsMax most: Int64 = .max) {
        var row = Self.row(feed, host, epoch, venue: "sim")
        if let rowBytes {
            precondition(rowBytes >= row.count, "BUG: a row of \(rowBytes) bytes has no room for host '\(host)'")
            row = Self.row(feed, host, epoch, venue: "sim" + String(repeating: "0", count: rowBytes - row.count))
        }
        self.rowBytes = row.count
        rowsMax = max(1, Int(min(most, Int64(messageBytes / row.count))))
        bytes = .allocate(byteCount: Self.lineBytesMax + rowsMax * row.count, alignment: 16)
        for place in 0..<rowsMax {
            bytes.baseAddress!.advanced(by: Self.lineBytesMax + place * row.count).copyMemory(from: row, byteCount: row.count)
        }
    }

    /// Its seq is the first one's.
    private static func row(_ feed: Feed, _ host: String, _ epoch: String, venue: String) -> [UInt8] {
        let instrument = Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1)
        var lines = RecordLines(RecordFormat(source: "sim", venue: venue, host: host, epoch: epoch, instruments: [instrument]))
        var row = JSONWriter()
        let wall = WallTime(nanoseconds: 1_735_689_600_123_000_000)
        let arm = ArmFields(configHash: 0xfeed_0000_0000_0002)
        switch feed {
        case .ticks:
            var tick = TickRecord()
            (tick.wall, tick.armFields) = (wall, arm)
            for stage in Stage.allCases { tick.stageNanoseconds[stage.rawValue] = 90 + 12 * Int64(stage.rawValue) }
            (tick.totalNanoseconds, tick.isCacheHit, tick.cacheAgeNanoseconds) = (1_240, true, 3_125_000)
            (tick.tick, tick.weight) = (4_210, 10)
            lines.tick(tick, seq: firstSeq, into: &row)
        case .quotes:
            let quote = QuoteRecord(
                wall: wall, symbol: 0, side: .buy, orderID: 1 << 32 | 17, price: 500_001, quantity: 12,
                depth: BasisPoints(micro: 1_609_985),
                halfSpread: BasisPoints(micro: 1_050_000), skew: BasisPoints(micro: -100_000), nudge: BasisPoints(micro: 500_000),
                queueAhead: 2_500, restingNanoseconds: 1_500_000_000, outcome: .replaced, volRealized: BasisPoints(micro: 812_346),
                weight: 10, armFields: arm)
            lines.quote(quote, seq: firstSeq, into: &row)
        case .snapshots:
            let snapshot = UnsafeMutablePointer<SnapshotRecord>.allocate(capacity: 1)
            snapshot.initialize(to: SnapshotRecord())
            defer { snapshot.deallocate() }
            (snapshot.pointee.wall, snapshot.pointee.armFields) = (wall, arm)
            (snapshot.pointee.fromMilliseconds, snapshot.pointee.spanMilliseconds) = (wall.milliseconds - 10_000, 10_000)
            for feature in Feature.allCases { snapshot.pointee.features[feature.rawValue] = 812_346 }
            (snapshot.pointee.counts.ticks, snapshot.pointee.counts.quotes) = (1_012, 220)
            (snapshot.pointee.sums.quoteNanoseconds, snapshot.pointee.sums.midTwice) = (19_500_000_000, 1_012_000_909)
            for bucket in 0..<24 { snapshot.pointee.tickHistogram[1_200 + 4 * bucket] = UInt32(1 + bucket) }
            lines.snapshot(snapshot, seq: firstSeq, into: &row)
        case .fills:
            let fill = FillRecord(
                wall: wall, symbol: 0, side: .buy, isTaker: false, price: 500_001, quantity: 12, queueAhead: 5, quotePrice: 500_001,
                midAtQuoteTwice: 1_000_007, midNowTwice: 1_000_009, spreadAtQuote: BasisPoints(micro: 2_100_000),
                latencyNanoseconds: 125_000_000, slip: BasisPoints(micro: -20_000), fillID: 1, orderID: 1 << 32 | 17,
                fee: BasisPoints(micro: -50_000), armFields: arm)
            lines.fill(fill, seq: firstSeq, into: &row)
        case .markouts:
            var markout = MarkoutRecord(wall: wall, symbol: 0, fillID: 1, fillMilliseconds: wall.milliseconds - 30_000, armFields: arm)
            (markout.midTwiceAfter1s, markout.midTwiceAfter5s, markout.net) = (1_000_011, 1_000_013, BasisPoints(micro: 159_999))
            lines.markout(markout, seq: firstSeq, into: &row)
        case .events: lines.event(EventRecord(wall: wall, kind: .started, first: 1), seq: firstSeq, into: &row)
        }
        return row.take()
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
