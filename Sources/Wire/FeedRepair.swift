import CalibModel

/// The identity of a row within its feed (SPEC 2).
package struct RowIdentity: Hashable, Sendable {
    package var host: [UInt8]
    package var epoch: [UInt8]
    package var seq: Int64

    /// Reads one line, its newline not included. Nil unless it is a valid row: valid UTF-8 of at most `Limits.rowBytesMax` bytes, one strict JSON
    /// object without white space around it, with `v` and `seq` whole numbers above zero, `host` and `epoch` non-empty strings, each exactly once.
    package init?(line: UnsafeRawBufferPointer) {
        guard !line.isEmpty, line.count < Limits.rowBytesMax, line.firstByte == 0x7b, line[line.count - 1] == 0x7d, UTF8Check.isValid(line)
        else { return nil }
        do throws(JSONError) {
            guard let identity = try Self.read(line) else { return nil }
            self = identity
        } catch {
            return nil
        }
    }

    private init(host: [UInt8], epoch: [UInt8], seq: Int64) {
        self.host = host
        self.epoch = epoch
        self.seq = seq
    }

    private static func read(_ line: UnsafeRawBufferPointer) throws(JSONError) -> RowIdentity? {
        var reader = JSONReader(line)
        var version: Int64?
        var host: UnsafeRawBufferPointer?
        var epoch: UnsafeRawBufferPointer?
        var seq: Int64?
        try reader.beginObject()
        while let key = try reader.nextKey() {
            switch key.firstByte {
            case 0x76 where key.equals("v"):
                guard version == nil else { return nil }
                version = try reader.integer()
            case 0x68 where key.equals("host"):
                guard host == nil else { return nil }
                host = try reader.string()
            case 0x65 where key.equals("epoch"):
                guard epoch == nil else { return nil }
                epoch = try reader.string()
            case 0x73 where key.equals("seq"):
                guard seq == nil else { return nil }
                seq = try reader.integer()
            default: try reader.skip()
            }
        }
        try reader.end()
        guard let version, version > 0, let host, !host.isEmpty, let epoch, !epoch.isEmpty, let seq, seq > 0, seq < seqEnd else {
            return nil
        }
        return RowIdentity(host: Array(host), epoch: Array(epoch), seq: seq)
    }

    /// Whole numbers that every JSON reader keeps exactly end here; no feed reaches it in 28,000 years of 10,000 rows a second.
    private static let seqEnd: Int64 = 1 << 53
}

/// What to do with a feed's end on open (SPEC 2.7). Offsets count from the beginning of the bytes examined.
package struct FeedRepair: Equatable, Sendable {
    /// Where the valid prefix ends: the file is cut here. It includes the last valid row's newline if that is there.
    package var validEnd = 0
    /// The last valid row is whole but for its newline, which is to be added.
    package var needsNewline = false
    /// Whole valid rows behind the first bad byte, in order, without their newlines: to be appended again, each with a newline.
    package var saved: [Range<Int>] = []
    /// The highest seq among all valid rows, those saved included; nil when there is none.
    package var highestSeq: Int64?
    /// True when not one valid row lies before the first bad byte: who examined only a part should look at a longer one.
    package var isAllBad = false

    /// Examines a feed's last bytes.
    ///
    /// - Parameters:
    ///   - tail: the last bytes of the file, or all of it.
    ///   - startsAtRow: whether the first byte begins a row; else everything up to the first newline is left alone.
    package init(examining tail: UnsafeRawBufferPointer, startsAtRow: Bool) {
        var lines = LineWalk(tail)
        if !startsAtRow { _ = lines.next() }
        var seen: Set<RowIdentity> = []
        var foundBad = false
        var validRows = 0
        validEnd = lines.position
        while let line = lines.next() {
            guard let identity = RowIdentity(line: UnsafeRawBufferPointer(rebasing: tail[line.range])) else {
                foundBad = true
                continue
            }
            highestSeq = max(highestSeq ?? identity.seq, identity.seq)
            let isNew = seen.insert(identity).inserted
            if foundBad {
                if isNew { saved.append(line.range) }
            } else {
                validRows += 1
                validEnd = lines.position
                needsNewline = !line.isTerminated
            }
        }
        isAllBad = foundBad && validRows == 0
    }

    /// The valid rows in `bytes` whose identity is not in `known`, without their newlines; each identity once.
    package static func rows(in bytes: UnsafeRawBufferPointer, except known: inout Set<RowIdentity>) -> [Range<Int>] {
        var rows: [Range<Int>] = []
        var lines = LineWalk(bytes)
        while let line = lines.next() {
            guard let identity = RowIdentity(line: UnsafeRawBufferPointer(rebasing: bytes[line.range])) else { continue }
            if known.insert(identity).inserted { rows.append(line.range) }
        }
        return rows
    }
}

/// Lines of a byte buffer, the last one with or without its newline.
private struct LineWalk {
    private let bytes: UnsafeRawBufferPointer
    /// Behind the last line returned, its newline included.
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    mutating func next() -> (range: Range<Int>, isTerminated: Bool)? {
        guard position < bytes.count else { return nil }
        let start = position
        let end = UnsafeRawBufferPointer(rebasing: bytes[start...]).firstIndex(of: 0x0a).map { start + $0 } ?? bytes.count
        position = min(bytes.count, end + 1)
        return (start..<end, end < bytes.count)
    }
}
