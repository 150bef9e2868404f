import CalibModel
import HubCore
import Simulation
import TestSupport
import Testing
import Wire

/// Rows that no view takes are counted and named as they arrive, and stored as they came (SPEC 8.7).
struct RowCheckTests {
    private static let file = "events_20250101.jsonl"
    private static let good = Sample.row(.events, seq: 1)

    /// What is found in these bytes when they come in pieces; `stored` is the hub's file.
    private static func take(_ pieces: [ArraySlice<UInt8>], budget: Int = .max, file: String = file) -> (faults: RowFaults, stored: [UInt8])
    {
        let disk = SimDisk(seed: 1)
        var committer = Committer(disk: disk)
        committer.checkableBytes = budget
        var faults = RowFaults()
        var offset: Int64 = 0
        for piece in pieces {
            piece.withUnsafeBytes { committer.write($0, host: "tokyo", file: file, epoch: IngestTests.epoch, offset: offset) }
            offset += Int64(piece.count)
            for case .rejected("tokyo", file, let found) in committer.endRound().results { faults.add(found) }
        }
        return (faults, disk.bytes(of: "host=tokyo/\(file)"))
    }

    private static func count(_ faults: RowFaults) -> [RejectReason: Int64] {
        Dictionary(uniqueKeysWithValues: RejectReason.allCases.map { ($0, faults.counts[$0.rawValue]) }).filter { $0.value > 0 }
    }

    @Test func poisonRowsAreNamedWithTheirPlace_andStoredAsTheyCame() {
        let long = "{\"a\":\"" + String(repeating: "x", count: RowLimits.lineBytesMax) + "\"}"
        let poison: [(String, RejectReason)] = [
            ("{\"a\":}", .notJSON), ("[1]", .notObject), ("{\"a\":NaN}", .nonFinite), (long, .tooLong), ("{\"a\":1,\"a\":2}", .notJSON),
        ]
        var bytes: [UInt8] = []
        var places: [RowFaults.Place] = []
        for (text, reason) in poison {
            bytes += Array(Self.good.utf8)
            places.append(.init(offset: Int64(bytes.count), reason: reason))
            bytes += Array(text.utf8) + [0x0a]
        }
        bytes += Array(Self.good.utf8)
        let whole = Self.take([bytes[...]])
        #expect(whole.faults.places == places)
        #expect(Self.count(whole.faults) == [.notJSON: 2, .notObject: 1, .nonFinite: 1, .tooLong: 1])
        #expect(whole.stored == bytes && whole.faults.unchecked == 0)
        // However it is cut.
        var random = SeededRandom(seed: 5)
        for _ in 0..<20 {
            var pieces: [ArraySlice<UInt8>] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + 1 + random.next(below: random.next(below: 2) == 0 ? 300 : 60_000))
                pieces.append(bytes[start..<end])
                start = end
            }
            let torn = Self.take(pieces)
            #expect(torn.faults == whole.faults && torn.stored == bytes)
        }
    }

    /// More than is looked at: stored, and counted as not looked at, up to the first newline of what is looked at again.
    @Test func rowsBeyondTheBudgetAreCountedAsUnchecked() {
        let bytes = Array((Self.good + "{\"a\":}\n" + Self.good).utf8)
        let half = Self.good.utf8.count + 3
        let found = Self.take([bytes[..<half], bytes[half...]], budget: half)
        #expect(found.faults.unchecked == 2 && Self.count(found.faults).isEmpty)
        #expect(found.stored == bytes)
    }

    /// Behind some rows alike, the next ones are read by their form: what is no such row is named as ever, however the bytes are cut.
    @Test func aBadRowAmongManyAlikeIsNamed() {
        let markouts = "markouts_20250101.jsonl"
        let good = Sample.row(.markouts, seq: 1)
        let bad = good.replacing("\"fill_id\":42", with: "\"fill_id\":\"42\"")
        #expect(bad != good)
        var bytes = Array(String(repeating: good, count: 9).utf8)
        let place = Int64(bytes.count)
        bytes += Array((bad + String(repeating: good, count: 5)).utf8)
        for size in [1, 7, good.utf8.count, 1000, bytes.count] {
            let pieces = stride(from: 0, to: bytes.count, by: size).map { bytes[$0..<min(bytes.count, $0 + size)] }
            let found = Self.take(pieces, file: markouts)
            #expect(found.faults.places == [.init(offset: place, reason: .wrongType)], "in pieces of \(size)")
            #expect(found.stored == bytes && found.faults.unchecked == 0)
        }
    }

    /// The hub says how many rows became durable: every newline, wherever it stands in a block.
    @Test func newlinesAreCountedInAnyBytes() {
        var random = SeededRandom(seed: 9)
        for count in [0, 1, 63, 64, 65, 1000, 16_320, 16_321, 40_000] {
            // All newlines in the longest: no lane holds more than 255.
            let bytes = (0..<count).map { _ in
                count == 40_000 || random.next(below: 4) == 0 ? UInt8(0x0a) : UInt8(random.next(below: 256))
            }
            var committer = Committer(disk: SimDisk(seed: 1))
            committer.checkableBytes = 0
            bytes.withUnsafeBytes { committer.write($0, host: "tokyo", file: Self.file, epoch: IngestTests.epoch, offset: 0) }
            var rows: Int64 = 0
            for case .committed(_, _, _, let more) in committer.endRound().results { rows += more }
            #expect(rows == Int64(bytes.count { $0 == 0x0a }), "of \(count) bytes")
        }
    }
}
