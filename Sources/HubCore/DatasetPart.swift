import CalibModel
import Wire

/// A stretch of a feed file: the lines that begin in it. One thread reads a piece as a whole.
package struct FeedPiece: Sendable {
    /// Relative to the feeds directory; names the file in the manifest.
    package var path: String
    package var feed: Feed
    /// That of the `host=` folder.
    package var host: String?
    package var from: Int64
    /// The last piece of a file ends where the file does, however long it has become.
    package var to: Int64
    /// Of the file as it is now: with other bytes before `to` it would be another. Matters only where something is kept for the next build.
    package var fileIdentity: UInt64

    package init(path: String, feed: Feed, host: String?, from: Int64, to: Int64, fileIdentity: UInt64 = 0) {
        self.path = path
        self.feed = feed
        self.host = host
        self.from = from
        self.to = to
        self.fileIdentity = fileIdentity
    }

    /// A piece's length: long enough that its beginning costs nothing, short enough that threads end together.
    package static let bytesMax: Int64 = 4 << 20

    /// A file of `byteCount` bytes from an offset on, in order.
    package static func cut(
        path: String, feed: Feed, host: String?, from: Int64 = 0, byteCount: Int64, fileIdentity: UInt64 = 0
    ) -> [FeedPiece] {
        let count = max(1, (byteCount - from + bytesMax - 1) / bytesMax)
        return (0..<count).map { number in
            FeedPiece(
                path: path, feed: feed, host: host, from: from + number * bytesMax,
                to: number == count - 1 ? .max : from + (number + 1) * bytesMax, fileIdentity: fileIdentity)
        }
    }

    /// Where to read from: one byte early, to see whether a line begins at `from`.
    package var readFrom: Int64 { max(0, from - 1) }
}

/// What one thread makes of the pieces it reads. `begin`, then `consume` until `isDone`; piece after piece, in the order of their paths.
///
/// `@unchecked Sendable`: touched by one thread at a time, first the one that reads, then those that finish the build, which only look at it.
package final class DatasetPart: @unchecked Sendable {
    var reader: PieceReader

    /// - Parameter isExact: rows are told apart by their bytes, not by the runs of their seqs: `DatasetBuild.needsExactParts` said so.
    package init(_ arguments: DatasetArguments, isExact: Bool = false) { reader = PieceReader(arguments, isExact: isExact) }

    package func begin(_ piece: FeedPiece) { reader.begin(piece) }

    /// Takes whole lines off the front of `bytes` and returns how many bytes it took; the rest must come again with more behind it.
    /// `isEnd`: nothing follows in this file. A buffer of twice `RowLimits.lineBytesMax` never gets stuck.
    package func consume(_ bytes: UnsafeRawBufferPointer, isEnd: Bool) -> Int { reader.consume(bytes, isEnd: isEnd) }

    /// The piece's last line was taken.
    package var isDone: Bool { reader.isDone }
}

extension DatasetBuild {
    /// The documents of files that are in memory, in one part.
    package static func documents(
        _ arguments: DatasetArguments, of files: [(path: String, feed: Feed, host: String?, bytes: [UInt8])]
    ) throws(DatasetRefusal) -> DatasetDocuments {
        func read(isExact: Bool) -> DatasetBuild {
            let part = DatasetPart(arguments, isExact: isExact)
            for file in files {
                part.begin(FeedPiece(path: file.path, feed: file.feed, host: file.host, from: 0, to: .max))
                _ = file.bytes.withUnsafeBytes { part.consume($0, isEnd: true) }
            }
            return DatasetBuild(arguments, parts: [part])
        }
        var build = read(isExact: false)
        if build.needsExactParts { build = read(isExact: true) }
        return try build.finish { count, body in for number in 0..<count { body(number) } }
    }
}

/// The state behind a part, in one place, so that no row pays for a class's access checks.
struct PieceReader: ~Copyable {
    private var scanner = FeedScanner()
    var aggregator: Aggregator
    private var cutter = LineCutter()
    private var piece: FeedPiece?
    private var offset: Int64 = 0
    private var isBeforeFirstLine = false
    private(set) var isDone = true

    init(_ arguments: DatasetArguments, isExact: Bool) { aggregator = Aggregator(arguments, isExact: isExact) }

    mutating func begin(_ piece: FeedPiece) {
        self.piece = piece
        cutter = LineCutter()
        offset = piece.readFrom
        isBeforeFirstLine = piece.from > 0
        isDone = false
        aggregator.open(piece)
    }

    mutating func consume(_ bytes: UnsafeRawBufferPointer, isEnd: Bool) -> Int {
        guard let piece, !isDone else { return bytes.count }
        var start = 0
        if isBeforeFirstLine {
            guard let newline = LineCutter.newline(in: bytes, from: 0) else {
                offset += Int64(bytes.count)
                if isEnd { finish(piece) }
                return bytes.count
            }
            start = newline + 1
            isBeforeFirstLine = false
        }
        let counted = start
        let limit = Int(min(Int64(bytes.count), max(0, piece.to - offset)))
        let usual = Self.lastNewline(in: bytes, before: bytes.count - RowPlan.overrun)
        var rows: Int64 = 0
        while start < limit || cutter.isSkipping {
            if start <= usual, !cutter.isSkipping, let base = bytes.baseAddress,
                let end = scanner.scanUsual(at: base + start, feed: piece.feed)
            {
                let isReturned = (end - 2).load(as: UInt8.self) == 0x0d
                let line = UnsafeRawBufferPointer(start: base + start, count: end - base - start - (isReturned ? 2 : 1))
                aggregator.add(scanner.row, line: line, at: cutter.lineNumber)
                cutter.passLine()
                rows &+= 1
                start = end - base
                continue
            }
            // Whatever is left is short enough to come again, and then reads fast.
            if start > usual, !isEnd, bytes.count - start <= RowLimits.lineBytesMax { break }
            guard let next = cutter.next(in: bytes, from: &start, isEnd: isEnd, before: limit) else { break }
            switch next {
            case .line(let line, let number, let isTerminated):
                if let reason = scanner.scan(line, feed: piece.feed, isTerminated: isTerminated) {
                    aggregator.tally.reject(line: number, reason)
                } else {
                    rows += 1
                    aggregator.add(scanner.row, line: line, at: number)
                    scanner.learn(from: line, feed: piece.feed)
                }
            case .tooLong(let number, let isTerminated): aggregator.tally.reject(line: number, isTerminated ? .tooLong : .tornTail)
            }
        }
        aggregator.tally.advance(
            rows: rows, bytes: Int64(start - counted), lines: cutter.lineNumber - 1,
            isWhole: start == counted ? aggregator.tally.summary.isWhole : bytes[start - 1] == 0x0a)
        offset += Int64(start)
        if isEnd || (offset >= piece.to && !cutter.isSkipping) { finish(piece) }
        return start
    }

    private mutating func finish(_ piece: FeedPiece) {
        isDone = true
        aggregator.tally.finish(end: offset, fileIdentity: piece.fileIdentity)
        aggregator.close()
    }

    /// -1 when there is none.
    private static func lastNewline(in bytes: UnsafeRawBufferPointer, before end: Int) -> Int {
        var index = end - 1
        while index >= 0, bytes[index] != 0x0a { index -= 1 }
        return index
    }
}
