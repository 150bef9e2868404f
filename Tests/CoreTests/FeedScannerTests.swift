import CalibModel
import Foundation
import HubCore
import TestSupport
import Testing

@Suite struct FeedScannerTests {
    static let fill =
        #"{"ts":1735689600000,"symbol":"BTCUSDT","side":"BUY","price":50000.0,"qty":0.1,"taker":false,"quote_price":50001.0,"mid_now":50002.0}"#
    static let tick =
        #"{"ts":1735689600000,"symbol":"BTCUSDT","tick_total_ms":36.0,"cache_hit":true,"cache_age_ms":45,"used_stale":false,"deadline_miss":false}"#

    static func reason(_ text: some Sequence<UInt8>, feed: Feed = .fills, isTerminated: Bool = true) -> RejectReason? {
        var scanner = FeedScanner()
        return Array(text).withUnsafeBytes { scanner.scan($0, feed: feed, isTerminated: isTerminated) }
    }

    private static func changed(_ old: String, _ new: String, in line: String = fill) -> String {
        precondition(line.contains(old))
        return line.replacing(old, with: new)
    }

    @Test func wholeRowsAreTaken() {
        #expect(Self.reason(Self.fill.utf8) == nil)
        #expect(Self.reason(Self.tick.utf8, feed: .ticks) == nil)
        #expect(Self.reason(Self.changed("45", "null", in: Self.tick).utf8, feed: .ticks) == nil)
        #expect(Self.reason(Self.changed("\"ts\"", "\"new_field\":{\"a\":[1]},\"ts\"").utf8) == nil)
        #expect(Self.reason(Self.changed("\"ts\"", "\"\\u0074s\"").utf8) == nil)
        #expect(Self.reason(Self.fill.utf8, isTerminated: false) == nil)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var line: String
        var reason: RejectReason
        var isTerminated = true
        var testDescription: String { "\(reason): \(line.prefix(160))" }
    }

    /// Each line has one fault, or several of which the expected one must win (SPEC 6.5).
    private static let badLines: [Case] = [
        // torn_tail before everything, but only without a newline and only when the text is not whole.
        Case(line: String(fill.dropLast(3)), reason: .tornTail, isTerminated: false),
        Case(line: "{\"ts\":NaN", reason: .tornTail, isTerminated: false),
        Case(line: "nonsense", reason: .tornTail, isTerminated: false),
        Case(line: "[1]", reason: .notObject, isTerminated: false),
        Case(line: "{}", reason: .missingField, isTerminated: false),
        Case(line: changed("0.1", "NaN"), reason: .nonFinite, isTerminated: false),
        // non_finite: JSON but for it.
        Case(line: changed("0.1", "NaN"), reason: .nonFinite),
        Case(line: changed("0.1", "-Infinity"), reason: .nonFinite),
        Case(line: changed("0.1", "1e30"), reason: .nonFinite),
        Case(line: changed("\"ts\"", "\"x\":[Infinity],\"ts\""), reason: .nonFinite),
        Case(line: "NaN", reason: .nonFinite),
        Case(line: changed("\"qty\":0.1,", "").replacing("50001.0", with: "NaN"), reason: .nonFinite),
        // not_json: syntax, and duplicate keys at any depth and behind escapes.
        Case(line: changed("0.1", "NaN,"), reason: .notJSON),
        Case(line: String(fill.dropLast()), reason: .notJSON),
        Case(line: fill + "}", reason: .notJSON),
        Case(line: "nonsense", reason: .notJSON),
        Case(line: changed("\"ts\"", "\"qty\":1,\"ts\""), reason: .notJSON),
        Case(line: changed("\"ts\"", "\"x\":{\"a\":1,\"a\":2},\"ts\""), reason: .notJSON),
        Case(line: changed("\"ts\"", "\"\\u0071ty\":1,\"ts\""), reason: .notJSON),
        Case(line: changed("\"ts\"", "\"qty\":NaN,\"ts\""), reason: .notJSON),
        Case(line: "{" + (0..<100).map { "\"k\($0 % 99)\":1" }.joined(separator: ",") + "}", reason: .notJSON),
        Case(line: String(repeating: "[", count: 20) + String(repeating: "]", count: 20), reason: .notJSON),
        // not_object
        Case(line: "[1]", reason: .notObject), Case(line: "12", reason: .notObject), Case(line: "null", reason: .notObject),
        // missing_field before wrong_type before out_of_range.
        Case(line: "{}", reason: .missingField),
        Case(line: changed("\"symbol\":\"BTCUSDT\",", ""), reason: .missingField),
        Case(line: changed("\"symbol\":\"BTCUSDT\",", "").replacing("0.1", with: "\"0.1\""), reason: .missingField),
        Case(line: changed("\"symbol\":\"BTCUSDT\",", "").replacing("0.1", with: "-1"), reason: .missingField),
        Case(line: changed("0.1", "\"0.1\""), reason: .wrongType),
        Case(line: changed("0.1", "null"), reason: .wrongType),
        Case(line: changed("BUY", "buy"), reason: .wrongType),
        Case(line: changed("1735689600000", "1.5"), reason: .wrongType),
        Case(line: changed("false", "0"), reason: .wrongType),
        Case(line: changed("0.1", "\"x\"").replacing("50001.0", with: "-1"), reason: .wrongType),
        Case(line: changed("\"BTCUSDT\"", "7"), reason: .wrongType),
        Case(line: changed("\"ts\"", "\"v\":\"1\",\"ts\""), reason: .wrongType),
        // out_of_range
        Case(line: changed("0.1", "0"), reason: .outOfRange),
        Case(line: changed("0.1", "-0.1"), reason: .outOfRange),
        Case(line: changed("1735689600000", "0"), reason: .outOfRange),
        Case(line: changed("1735689600000", "4102444800000"), reason: .outOfRange),
        Case(line: changed("50001.0", "0.0000000001"), reason: .outOfRange),
        Case(line: changed("50001.0", "0.000000001"), reason: .outOfRange),
        Case(line: changed("BTCUSDT", ""), reason: .outOfRange),
        Case(line: changed("\"ts\"", "\"v\":2,\"ts\""), reason: .outOfRange),
    ]

    @Test(arguments: badLines) func badLinesHaveTheirReason(_ bad: Case) {
        #expect(Self.reason(bad.line.utf8, isTerminated: bad.isTerminated) == bad.reason)
    }

    @Test func lengthAndEncodingComeBeforeTheText() {
        let long = Array(repeating: UInt8(ascii: "x"), count: 65_537)
        #expect(Self.reason(long) == .tooLong)
        #expect(Self.reason([0xff] + long) == .tooLong)
        #expect(Self.reason(long.dropLast()) == .notJSON)
        #expect(Self.reason(Array(Self.changed("0.1", "NaN").utf8) + [0xc3]) == .notUTF8)
        #expect(Self.reason(Array(Self.fill.utf8.dropLast(4)) + [0xc3], isTerminated: false) == .tornTail)
    }

    /// A chunk's edge may fall anywhere: lines and numbers are those of the whole text, and little is held back.
    @Test func linesAreTheSame_whateverTheChunks() {
        let long = String(repeating: "y", count: 70_000)
        let text = Array("one\r\n\n  \ntwo\n\(long)\nthree\r\n\(String(repeating: "z", count: 65_536))\r\nlast".utf8)
        for size in [601, 1000, 65_535, 65_536, 65_537, 65_538, 200_000] {
            var cutter = LineCutter()
            var seen: [String] = []
            var pending: [UInt8] = []
            var next = 0
            var isEnd = false
            while !isEnd {
                let chunk = text[next..<min(text.count, next + size)]
                next += chunk.count
                isEnd = chunk.isEmpty
                pending += chunk
                let taken = pending.withUnsafeBytes { bytes in
                    var start = 0
                    while let piece = cutter.next(in: bytes, from: &start, isEnd: isEnd) {
                        switch piece {
                        case .line(let line, let number, let isTerminated):
                            seen.append("\(number) \(line.count) \(line.first!) \(isTerminated)")
                        case .tooLong(let number, let isTerminated): seen.append("\(number) long \(isTerminated)")
                        }
                    }
                    return start
                }
                pending.removeFirst(taken)
                #expect(pending.count <= 65_537)
            }
            #expect(
                seen == ["1 3 111 true", "4 3 116 true", "5 long true", "6 5 116 true", "7 65536 122 true", "8 4 108 false"],
                "chunks of \(size)")
        }
    }

    @Test func mutatedRowsNeverTrap() {
        var random = SeededRandom(seed: 3)
        let alphabet = Array("{}[]\":,.-+eE0123456789 \\tfnNI\u{0}é".utf8)
        var taken = 0
        for _ in 0..<40_000 {
            var line = Array(Self.fill.utf8)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<line.count, using: &random)
                if Bool.random(using: &random) { line[place] = alphabet.randomElement(using: &random)! } else { line.remove(at: place) }
            }
            if Self.reason(
                line, feed: Feed.allCases.filter(\.isDatasetInput).randomElement(using: &random)!, isTerminated: Bool.random(using: &random)
            ) == nil {
                taken += 1
            }
        }
        #expect(taken > 100)
    }

    /// What lies behind a row's newline and `overrun` bytes may not be there at all: a page that cannot be read follows.
    @Test func rowsReadByTheirFormAreReadAtMemorysEdge() throws {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let pages = try #require(mmap(nil, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        defer { munmap(pages, 2 * page) }
        #expect(mprotect(pages + page, page, PROT_NONE) == 0)
        var taken = 0
        for (feed, row) in [(Feed.fills, Self.fill), (.ticks, Self.tick)] {
            let spaced = row.replacing(",", with: ", ").replacing("36.0", with: "36.012345678901")
            // More between two values than is compared at once, and a text that begins as the last one did.
            let longNamed = row.replacing(
                #""symbol""#, with: #""a_field_of_a_later_version_with_a_long_name":null,"ts_iso":"2025-01-01T00:00:00.000Z","symbol""#)
            for text in [row, spaced, longNamed, row + "\r"] {
                var scanner = FeedScanner()
                let whole = Array(text.utf8)
                let bare = whole.filter { $0 != 0x0d }
                #expect(bare.withUnsafeBytes { scanner.scan($0, feed: feed, isTerminated: true) } == nil)
                bare.withUnsafeBytes { scanner.learn(from: $0, feed: feed) }
                for length in [whole.count] + Array(0...whole.count) {
                    let bytes = whole[..<length] + [0x0a] + [UInt8](repeating: UInt8(ascii: "7"), count: FeedScanner.overrun)
                    let begin = pages + page - bytes.count
                    begin.copyMemory(from: Array(bytes), byteCount: bytes.count)
                    if let end = scanner.scanUsual(at: begin, feed: feed) {
                        #expect(end == begin + length + 1)
                        taken += 1
                    }
                }
            }
        }
        // The whole rows, twice; once more those that end in a return, without it.
        #expect(taken == 18)
    }

    @Test func fileNames() {
        #expect(Feed.parse(fileName: "fills_20250101.jsonl")?.day.number == 20_089)
        #expect(Feed.parse(fileName: "feature_snapshots_20250101.12.jsonl")?.feed == .snapshots)
        for name in [
            "fills_20250101.json", "fills_2025011.jsonl", "fills_20250231.jsonl", "fills_20250101.x.jsonl", "events_20250101.jsonl",
        ] {
            #expect(Feed.parse(fileName: name) == nil, "\(name)")
        }
    }
}
