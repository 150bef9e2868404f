import CalibModel
import Wire

/// Rows that no view will take (SPEC 6.5, 8.7), as they arrive: counted, and where the first of them are. They are stored like any other.
package struct RowFaults: Sendable, Equatable {
    package struct Place: Sendable, Equatable {
        /// Of the hub's file.
        package var offset: Int64
        package var reason: RejectReason
        package init(offset: Int64, reason: RejectReason) {
            self.offset = offset
            self.reason = reason
        }
    }

    /// By `RejectReason.rawValue`.
    package fileprivate(set) var counts = [Int64](repeating: 0, count: RejectReason.allCases.count)
    /// At most `Limits.rejectedRowsListedMax`.
    package fileprivate(set) var places: [Place] = []
    /// Rows nobody has looked at, because too many came at once or their beginning was not at hand.
    package fileprivate(set) var unchecked: Int64 = 0

    package var isEmpty: Bool { unchecked == 0 && counts.allSatisfy { $0 == 0 } }

    package init() {}

    package mutating func add(_ other: RowFaults) {
        for place in counts.indices { counts[place] += other.counts[place] }
        unchecked += other.unchecked
        places = Array((places + other.places).suffix(Limits.rejectedRowsListedMax))
    }

    fileprivate mutating func add(_ reason: RejectReason, at offset: Int64) {
        counts[reason.rawValue] += 1
        if places.count < Limits.rejectedRowsListedMax { places.append(Place(offset: offset, reason: reason)) }
    }
}

/// Splits one file's bytes into rows as they come, and gives each to the scanner that views use.
///
/// What a row's beginning was is known from the file's first byte on, or from the first newline behind a place from which on it was looked at.
struct RowCheck {
    private enum State {
        /// At a row's first byte, or behind these bytes of one.
        case within([UInt8])
        /// Within a row whose beginning is not at hand.
        case unknown
        /// Within a row that is too long already; its reason is noted.
        case tooLong
    }

    private let feed: Feed
    private var state: State
    private(set) var faults = RowFaults()

    init(feed: Feed, atRowStart: Bool) {
        self.feed = feed
        state = atRowStart ? .within([]) : .unknown
    }

    /// The file was cut back, and goes on from there; what was found since `settle` does not count.
    mutating func restart(atRowStart: Bool) {
        state = atRowStart ? .within([]) : .unknown
        faults = RowFaults()
    }

    /// What was found in bytes that last now.
    mutating func settle() -> RowFaults {
        defer { faults = RowFaults() }
        return faults
    }

    /// Rows that end here and are not looked at.
    mutating func pass(rows: Int64) {
        faults.unchecked += rows
        state = .unknown
    }

    mutating func take(_ bytes: UnsafeRawBufferPointer, at offset: Int64, _ scanner: RowScanner) {
        var start = 0
        while let end = RowCheck.newline(in: bytes, from: start) {
            switch state {
            case .within(let begun) where begun.isEmpty: note(scanner.scan(bytes, start..<end, feed), at: offset + Int64(start))
            case .within(let begun):
                let whole = begun + bytes[start..<end]
                note(whole.withUnsafeBytes { scanner.scan($0, 0..<whole.count, feed) }, at: offset + Int64(start - begun.count))
            case .unknown: faults.unchecked += 1
            case .tooLong: break
            }
            state = .within([])
            start = end + 1
        }
        guard case .within(let begun) = state, start < bytes.count else { return }
        guard begun.count + bytes.count - start <= RowLimits.lineBytesMax else {
            faults.add(.tooLong, at: offset + Int64(start - begun.count))
            state = .tooLong
            return
        }
        state = .within(begun + bytes[start...])
    }

    private mutating func note(_ reason: RejectReason?, at offset: Int64) { if let reason { faults.add(reason, at: offset) } }

    /// Eight bytes at a time: the lowest bit set lies in the first newline.
    private static func newline(in bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        var place = start
        while bytes.count - place >= 8 {
            let word = bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self).littleEndian ^ 0x0a0a_0a0a_0a0a_0a0a
            let marks = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
            if marks != 0 { return place + marks.trailingZeroBitCount / 8 }
            place += 8
        }
        return bytes[place...].firstIndex(of: 0x0a)
    }
}

/// The scanners of views, one for each feed because each learns the form of its rows, held where the files of one committer share them.
final class RowScanner {
    /// A class because a scanner owns memory.
    private final class Scanner {
        var scanner = FeedScanner()
    }

    private let scanners = Feed.allCases.map { _ in Scanner() }

    /// The row at `place` of `bytes`, without its newline, which follows it there or anywhere.
    func scan(_ bytes: UnsafeRawBufferPointer, _ place: Range<Int>, _ feed: Feed) -> RejectReason? {
        let held = scanners[feed.index]
        if place.upperBound + 1 + FeedScanner.overrun <= bytes.count,
            held.scanner.scanUsual(at: bytes.baseAddress! + place.lowerBound, feed: feed) != nil
        {
            return nil
        }
        let row = UnsafeRawBufferPointer(rebasing: bytes[place])
        let reason = held.scanner.scan(row, feed: feed, isTerminated: true)
        if reason == nil { held.scanner.learn(from: row, feed: feed) }
        return reason
    }
}
