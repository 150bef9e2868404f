import CalibModel
import EdgeCore
import Wire

/// What a benchmark tells apart.
enum BenchKind: Int, CaseIterable {
    case depth, trade, bookTicker, snapshot, other

    var name: StaticString {
        switch self {
        case .depth: "depth"
        case .trade: "trade"
        case .bookTicker: "book_ticker"
        case .snapshot: "snapshot"
        case .other: "other"
        }
    }
}

/// The frames of a recording in one piece of memory, so that a benchmark reads no file.
struct BenchFrames {
    struct Frame {
        var wall: WallTime
        var start: Int
        var count: Int
        var kind: BenchKind
        /// Where the symbol's name stands in `text`; nil in a frame that names none.
        var nameStart: Int?
    }

    private(set) var text: [UInt8] = []
    private(set) var frames: [Frame] = []
    /// Lines that are no `<receive unix ns> <frame>`.
    private(set) var badLines = 0
    /// Of the only symbol in the recording.
    private(set) var symbol = ""

    /// Adds one line of a recording; receive times never go back.
    mutating func add(line: UnsafeRawBufferPointer, _ decoder: inout BinanceDecoder) throws(BenchError) {
        guard let space = line.firstIndex(of: 0x20), let nanoseconds = Int64(String(decoding: line[..<space], as: UTF8.self)) else {
            badLines += 1
            return
        }
        let frame = UnsafeRawBufferPointer(rebasing: line[(space + 1)...])
        let wall = max(frames.last?.wall ?? WallTime(nanoseconds: 0), WallTime(nanoseconds: nanoseconds))
        let (kind, name) = Self.kind(frame, &decoder)
        if let name {
            let found = String(decoding: name, as: UTF8.self)
            guard symbol.isEmpty || symbol == found else { throw .severalSymbols(symbol, found) }
            symbol = found
        }
        let nameStart = name.map { text.count + (UnsafeRawPointer($0.baseAddress!) - frame.baseAddress!) }
        frames.append(Frame(wall: wall, start: text.count, count: frame.count, kind: kind, nameStart: nameStart))
        text.append(contentsOf: frame)
    }

    private static func kind(_ frame: UnsafeRawBufferPointer, _ decoder: inout BinanceDecoder) -> (BenchKind, UnsafeRawBufferPointer?) {
        do throws(FrameRejection) {
            switch try decoder.decode(frame) {
            case .depth(let symbol, _, _, _, _): return (.depth, symbol)
            case .trade(let symbol, _, _, _, _, _): return (.trade, symbol)
            case .bookTicker(let symbol, _, _, _, _): return (.bookTicker, symbol)
            case .snapshot(let symbol, _, _): return (.snapshot, symbol)
            case .other, .leaving, .refused: return (.other, nil)
            }
        } catch { return (.other, nil) }
    }
}

enum BenchError: Error, CustomStringConvertible {
    case noFrames
    case severalSymbols(String, String)
    case noBook
    case hashesDiffer(UInt64, UInt64)

    var description: String {
        switch self {
        case .noFrames: "the input holds no line '<receive unix ns> <frame>'; is it a recording of one connection?"
        case .severalSymbols(let first, let second):
            "the input holds frames of \(first) and of \(second); the benchmark takes one symbol and spreads it with --symbols"
        case .noBook: "no book was proven; is --venue right, and does the recording begin with a snapshot?"
        case .hashesDiffer(let first, let second):
            "two rounds over the same frames decided differently (\(hex(first)) and \(hex(second))): a bug of the edge"
        }
    }
}

/// 16 lower-case hex digits.
func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
