import CalibModel
import Simulation
import TestSupport
import Testing

@testable import EdgeCore

/// The fast reader of usual frames and the one of any JSON: whatever the bytes, both say the same.
@Suite struct BinanceFastPathTests {
    /// Everything a decoder tells of a frame, as text that can be compared; texts by their place in the frame.
    private static func outcome(_ decoder: inout BinanceDecoder, _ bytes: UnsafeRawBufferPointer, isFast: Bool) -> String {
        func place(_ text: UnsafeRawBufferPointer?) -> String {
            text.map { "\($0.baseAddress! - bytes.baseAddress!)+\($0.count)" } ?? "nil"
        }
        do throws(FrameRejection) {
            switch isFast ? try decoder.decode(bytes) : try decoder.decodeAnyForm(bytes) {
            case .depth(let symbol, let first, let last, let previous, let event):
                let bids = (0..<decoder.bidCount).map { decoder.bid($0) }
                let asks = (0..<decoder.askCount).map { decoder.ask($0) }
                return "depth \(place(symbol)) \(first) \(last) \(previous ?? -1) \(event) \(bids) \(asks)"
            case .snapshot(let symbol, let id, let event): return "snapshot \(place(symbol)) \(id) \(event ?? -1) \(decoder.bidCount)"
            case .trade(let symbol, let level, let buyerIsMaker, let consumes, let isAggregate, let event):
                return "trade \(place(symbol)) \(level) \(buyerIsMaker) \(consumes) \(isAggregate) \(event)"
            case .bookTicker(let symbol, let id, let bid, let ask, let event):
                return "ticker \(place(symbol)) \(id) \(bid) \(ask) \(event ?? -1)"
            case .leaving: return "leaving"
            case .refused: return "refused"
            case .other: return "other"
            }
        } catch { return "\(error)" }
    }

    private static let frames: [String] = [
        #"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":5123107832006,"u":5123107837557,"pu":5123107831937,"b":[["58710.20","0.014"],["61496.50","0.010"],["61510","0"],["0.00000001","90000000.00"]],"a":[]}}"#,
        #"{"e":"depthUpdate","E":1723161256299,"s":"BTCUSDT","U":1,"u":2,"b":[],"a":[["58710.20","0.014"]]}"#,
        #"{"e":"depthUpdate","E":17,"s":"BTCUSDT","U":1,"u":2,"b":[["9.20","0.014"],["9.30","12.340"],["10.20","0.001"],["9.21","1.000"]],"a":[["10.25","0.014"],["10.26","0.001"]]}"#,
        #"{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#,
        #"{"e":"trade","E":1723161256322,"s":"BTCUSDT","t":1,"p":"61800.30000000","q":"0.00600000","b":88,"a":50,"T":1723161256322,"m":true,"M":true}"#,
        #"{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}"#,
        #"{"e":"aggTrade","E":1723161256322,"a":1,"s":"BTCUSDT","p":"61800.3","q":"0.006","f":1,"l":2,"T":1723161256322,"m":false}"#,
        #"{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}"#,
        #"{"stream":"x","data":{"e":"aggTrade","x":"y","z":[1]}}"#,
    ]

    private static let extremes = [
        "0", "-1", "00", "1.", ".5", "1e3", "123456789012345", "1234567890123456", "99999999999999999999999", "1.5", "true", "false",
        "null",
        "NaN", "\"\"", "\"0\"", "\"00.1\"", "\"0.\"", "\".1\"", "\"-5.1\"", "\"1e9\"", "\"12345678.1234567\"", "\"123456789012345\"",
        "\"1234567890123456\"", "\"1.2.3\"", "\"0.000000000000001\"", "\"\\u0030\"", "[]", "{}", "[[\"1\"]]", "[[\"1\",\"1\",[]]]",
        "[[\"1\",\"2\"],]", "[[\"1\" ,\"2\"]]", "[[1,2]]", "\"é\"", "\"MARKET\"",
    ]

    @Test func equalsTheReaderOfAnyForm_onMutatedFrames() {
        var random = SeededRandom(seed: 20)
        var fast = BinanceDecoder()
        var any = BinanceDecoder()
        let alphabet = Array("{}[]\":,.-+eEuUbaBAspqmX0123456789 \\tf\u{1}é".utf8)
        var usual = 0
        for round in 0..<60_000 {
            var frame = Array(Self.frames[round % Self.frames.count].utf8)
            for _ in 0..<random.next(below: 3) {
                let place = random.next(below: frame.count)
                switch random.next(below: 6) {
                case 0: frame[place] = alphabet[random.next(below: alphabet.count)]
                case 1: frame.insert(alphabet[random.next(below: alphabet.count)], at: place)
                case 2: frame.remove(at: place)
                case 3 where place > 0: frame = Array(frame[..<place])
                default:
                    // A value becomes another one.
                    let starts = frame.indices.filter { frame[$0] == UInt8(ascii: ":") || frame[$0] == UInt8(ascii: "[") }
                    guard !starts.isEmpty else { continue }
                    let start = starts[random.next(below: starts.count)] + 1
                    let end = frame[start...].firstIndex { [UInt8(ascii: ","), UInt8(ascii: "}"), UInt8(ascii: "]")].contains($0) }
                    frame.replaceSubrange(start..<(end ?? frame.count), with: Self.extremes[random.next(below: Self.extremes.count)].utf8)
                }
            }
            frame.withUnsafeBytes { bytes in
                let expected = Self.outcome(&any, bytes, isFast: false)
                let found = Self.outcome(&fast, bytes, isFast: true)
                #expect(found == expected, "\(String(decoding: bytes, as: UTF8.self))")
                var fields = BinanceDecoder.Fields()
                if fast.usual(bytes, &fields) { usual += 1 }
            }
        }
        // Both ways are taken often, or nothing is shown.
        #expect(usual > 20_000 && usual < 50_000, "\(usual)")
    }

    @Test func everyUsualFrameIsReadFast() {
        var decoder = BinanceDecoder()
        for text in Self.frames.dropLast() {
            Array(text.utf8).withUnsafeBytes { bytes in
                var fields = BinanceDecoder.Fields()
                let isUsual = decoder.usual(bytes, &fields)
                #expect(isUsual, "\(text)")
            }
        }
    }

    /// Trades and bookTickers as the venue writes them need no look at a key; another order of the same fields does.
    @Test func tradesAndTickersAreReadInTheirOrder_othersByTheirKeys() {
        func isPredicted(_ text: String) -> Bool {
            let decoder = BinanceDecoder()
            return Array(text.utf8).withUnsafeBytes { bytes in
                guard let source = bytes.baseAddress, let (start, isWrapped) = decoder.opened(bytes) else { return false }
                return decoder.predicted(start, isWrapped: isWrapped, source, bytes.count) != nil
            }
        }
        let isAnEvent = Self.frames.map {
            $0.contains("@trade") || $0.contains("Ticker") || $0.contains("\"a\":1,") || $0.hasPrefix("{\"u\"")
        }
        #expect(isAnEvent.count { $0 } == 4)
        #expect(Self.frames.map(isPredicted) == isAnEvent)
        let turned = #"{"s":"BNBUSDT","u":400900217,"b":"25.351","B":"31.21","a":"25.365","A":"40.66"}"#
        #expect(!isPredicted(turned))
    }

    /// A frame longer than the copy, and one with more levels than a frame may have, are left to the reader of any form.
    @Test func aFrameBeyondTheCopyIsReadAllTheSame() {
        var decoder = BinanceDecoder()
        let levels = (1...6_000).map { "[\"\($0).5\",\"1\"]" }.joined(separator: ",")
        let text = #"{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":["# + levels + #"],"a":[]}"#
        Array(text.utf8).withUnsafeBytes { bytes in
            #expect(bytes.count > BinanceDecoder.copyBytesMax)
            let found = Self.outcome(&decoder, bytes, isFast: true)
            #expect(found.hasPrefix("depth"))
        }
        #expect(decoder.bidCount == 6_000)
    }
}
