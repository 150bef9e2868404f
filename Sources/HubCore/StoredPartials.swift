import CalibModel

// What a build leaves for the next one: a summary of each piece that was read, and each hour's finished intervals.
//
// An hour's intervals depend on the rows of its pieces and on the markouts of its fills, so they are kept under a key made of all of those
// (`DatasetBuild.keys`); a stored hour whose key is another one is as good as none. Everything ends in a keyed hash of all before it.

/// Bytes of numbers and texts, for our own reading.
package struct BinaryWriter {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func integer(_ value: Int64) { Swift.withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) } }
    package mutating func wide(_ value: Int128) {
        integer(Int64(truncatingIfNeeded: value))
        integer(Int64(truncatingIfNeeded: value >> 64))
    }
    package mutating func data(_ value: [UInt8]) {
        integer(Int64(value.count))
        bytes += value
    }
    package mutating func text(_ value: String) { data(Array(value.utf8)) }

    /// 64 bits that stand for all that was written.
    package var digest: UInt64 { bytes.withUnsafeBytes { IdentityTable.hash($0) } }

    /// Ends the bytes with their digest.
    package consuming func sealed() -> [UInt8] {
        integer(Int64(bitPattern: digest))
        return bytes
    }
}

/// Reads what `BinaryWriter` wrote; damaged bytes throw.
package struct BinaryReader {
    package struct Damaged: Error {}
    private let bytes: [UInt8]
    private let end: Int
    private var place = 0

    /// Fails when the digest at the end is not that of the bytes before it.
    package init(sealed bytes: [UInt8]) throws(Damaged) {
        guard bytes.count >= 8 else { throw Damaged() }
        self.bytes = bytes
        end = bytes.count - 8
        let digest = bytes.withUnsafeBytes { IdentityTable.hash(UnsafeRawBufferPointer(rebasing: $0[..<($0.count - 8)])) }
        guard bytes.withUnsafeBytes({ $0.loadUnaligned(fromByteOffset: end, as: UInt64.self).littleEndian }) == digest else {
            throw Damaged()
        }
    }

    package var isAtEnd: Bool { place == end }

    package mutating func integer() throws(Damaged) -> Int64 {
        guard end - place >= 8 else { throw Damaged() }
        defer { place += 8 }
        return bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place, as: Int64.self).littleEndian }
    }
    package mutating func wide() throws(Damaged) -> Int128 {
        let low = try integer()
        return Int128(try integer()) << 64 | Int128(UInt64(bitPattern: low))
    }
    package mutating func data() throws(Damaged) -> [UInt8] {
        let count = try count(of: 1)
        defer { place += count }
        return Array(bytes[place..<place + count])
    }
    package mutating func text() throws(Damaged) -> String { String(decoding: try data(), as: UTF8.self) }

    /// How many things of at least so many bytes follow.
    package mutating func count(of bytes: Int) throws(Damaged) -> Int {
        let count = try integer()
        guard count >= 0, count <= (end - place) / bytes else { throw Damaged() }
        return Int(count)
    }
}

/// Summaries of a file's pieces, from its beginning on without a gap, as they were left by an earlier build.
package struct StoredPieces: Sendable {
    /// That of the `host=` folder.
    var host: String?
    var hosts: NameTable
    var summaries: [PieceSummary]

    /// Behind the last line that was read: the next piece begins there.
    package var end: Int64 { summaries.last?.end ?? 0 }
    /// Where each piece's lines begin, about, and where they end.
    package var extents: [(from: Int64, end: Int64)] { summaries.map { ($0.from, $0.end) } }

    /// Forgets the pieces from one on: their file is not what it was.
    package mutating func drop(from piece: Int) { summaries.removeSubrange(piece...) }

    package func write(to bytes: inout BinaryWriter) {
        bytes.integer(Int64(hosts.names.count))
        for name in hosts.names { bytes.data(name) }
        bytes.integer(Int64(summaries.count))
        for summary in summaries { write(summary, to: &bytes) }
    }

    private func write(_ summary: PieceSummary, to bytes: inout BinaryWriter) {
        bytes.text(summary.path)
        bytes.integer(Int64(summary.feed.index))
        for number in [
            summary.from, summary.to, summary.end, summary.bytes, Int64(bitPattern: summary.identity), Int64(summary.lines), summary.rows,
        ] { bytes.integer(number) }
        for count in summary.reasons { bytes.integer(count) }
        bytes.integer(Int64(summary.rejects.count))
        for reject in summary.rejects {
            bytes.integer(Int64(reject.line))
            bytes.integer(Int64(reject.reason.rawValue))
        }
        bytes.integer(Int64(summary.streams.count))
        for stream in summary.streams {
            bytes.integer(Int64(stream.key.host))
            bytes.integer(Int64(bitPattern: stream.key.epoch))
            let runs = stream.runs.all
            bytes.integer(Int64(runs.count))
            for run in runs {
                bytes.integer(run.lowerBound)
                bytes.integer(run.upperBound)
            }
        }
        bytes.integer(Int64(summary.hours.count))
        for hour in summary.hours {
            for number in [
                hour.number, hour.rowsUsed, hour.unidentified, Int64(bitPattern: hour.sources), Int64(hour.firstOfOurs),
                Int64(hour.firstOfSeed), Int64(hour.hosts.count),
            ] { bytes.integer(number) }
            for host in hour.hosts { bytes.integer(Int64(host)) }
        }
        bytes.integer(Int64(summary.sequences.count))
        for tally in summary.sequences {
            for number in [
                Int64(tally.hour), Int64(tally.stream), tally.rows, tally.first, tally.last, tally.fillFirst, tally.fillLast,
            ] { bytes.integer(number) }
        }
    }

    package init(from bytes: inout BinaryReader, host: String?) throws(BinaryReader.Damaged) {
        self.host = host
        var names = NameTable()
        for _ in 0..<(try bytes.count(of: 8)) {
            let name = try bytes.data()
            _ = name.withUnsafeBytes { names.id(of: $0) }
        }
        hosts = names
        summaries = []
        for _ in 0..<(try bytes.count(of: 8)) { summaries.append(try Self.summary(from: &bytes, hosts: hosts.names.count)) }
    }

    private static func summary(from bytes: inout BinaryReader, hosts: Int) throws(BinaryReader.Damaged) -> PieceSummary {
        func place(_ value: Int64, below limit: Int) throws(BinaryReader.Damaged) -> Int {
            guard value >= 0, value < limit else { throw BinaryReader.Damaged() }
            return Int(value)
        }
        let path = try bytes.text()
        let index = try bytes.integer()
        guard let feed = Feed.allCases.first(where: { Int64($0.index) == index }) else { throw BinaryReader.Damaged() }
        var summary = PieceSummary(path: path, feed: feed, from: try bytes.integer(), to: try bytes.integer())
        summary.end = try bytes.integer()
        summary.bytes = try bytes.integer()
        summary.identity = UInt64(bitPattern: try bytes.integer())
        summary.lines = Int(try bytes.integer())
        summary.rows = try bytes.integer()
        for reason in summary.reasons.indices { summary.reasons[reason] = try bytes.integer() }
        for _ in 0..<(try bytes.count(of: 16)) {
            let line = Int(try bytes.integer())
            guard let reason = RejectReason(rawValue: Int(try bytes.integer())) else { throw BinaryReader.Damaged() }
            summary.rejects.append((line, reason))
        }
        for _ in 0..<(try bytes.count(of: 24)) {
            let host = try place(try bytes.integer(), below: hosts)
            let epoch = UInt64(bitPattern: try bytes.integer())
            var runs: [ClosedRange<Int64>] = []
            for _ in 0..<(try bytes.count(of: 16)) {
                let (first, last) = (try bytes.integer(), try bytes.integer())
                guard first <= last else { throw BinaryReader.Damaged() }
                runs.append(first...last)
            }
            summary.streams.append((StreamKey(host: Int32(host), epoch: epoch, feed: feed), SeqRuns(runs)))
        }
        for _ in 0..<(try bytes.count(of: 56)) {
            var hour = PieceSummary.HourTally(number: try bytes.integer())
            hour.rowsUsed = try bytes.integer()
            hour.unidentified = try bytes.integer()
            hour.sources = UInt64(bitPattern: try bytes.integer())
            hour.firstOfOurs = Int(try bytes.integer())
            hour.firstOfSeed = Int(try bytes.integer())
            for _ in 0..<(try bytes.count(of: 8)) { hour.hosts.append(Int32(try place(try bytes.integer(), below: hosts))) }
            summary.hours.append(hour)
        }
        for _ in 0..<(try bytes.count(of: 56)) {
            var tally = PieceSummary.SequenceTally(
                hour: try place(try bytes.integer(), below: summary.hours.count),
                stream: try place(try bytes.integer(), below: summary.streams.count))
            tally.rows = try bytes.integer()
            tally.first = try bytes.integer()
            tally.last = try bytes.integer()
            tally.fillFirst = try bytes.integer()
            tally.fillLast = try bytes.integer()
            summary.sequences.append(tally)
        }
        return summary
    }

    init(host: String?, hosts: NameTable, summaries: [PieceSummary]) {
        self.host = host
        self.hosts = hosts
        self.summaries = summaries
    }
}

/// One hour's intervals, finished.
package struct StoredHour: Sendable {
    package var number: Int64
    package var key: UInt64
    var slice: DatasetSlice

    package func sealed() -> [UInt8] {
        var bytes = BinaryWriter()
        for number in [number, Int64(bitPattern: key), Int64(slice.kept), slice.fills, slice.markedFills] { bytes.integer(number) }
        bytes.data(slice.text)
        bytes.integer(Int64(slice.removed.count))
        for (removal, count) in slice.removed {
            bytes.text(removal.symbol)
            bytes.text(removal.host)
            bytes.integer(Int64(removal.reason.rawValue))
            bytes.integer(count)
        }
        bytes.integer(Int64(slice.rows.count))
        for row in slice.rows { write(row, to: &bytes) }
        return bytes.sealed()
    }

    private func write(_ row: DatasetRow, to bytes: inout BinaryWriter) {
        bytes.text(row.symbol)
        bytes.integer(row.host == nil ? 0 : 1)
        bytes.text(row.host ?? "")
        bytes.integer(row.start)
        bytes.integer(row.end)
        for value in row.values {
            bytes.integer(value == nil ? 0 : 1)
            if let value { bytes.wide(value) }
        }
        for count in row.counts { bytes.integer(count) }
        bytes.integer(Int64(row.flags.count))
        for flag in row.flags { bytes.text(flag) }
        bytes.integer(Int64(row.reasons.count))
        for reason in row.reasons { bytes.integer(Int64(reason.rawValue)) }
    }

    package init(sealed: [UInt8]) throws(BinaryReader.Damaged) {
        var bytes = try BinaryReader(sealed: sealed)
        number = try bytes.integer()
        key = UInt64(bitPattern: try bytes.integer())
        slice = DatasetSlice()
        slice.kept = Int(try bytes.integer())
        slice.fills = try bytes.integer()
        slice.markedFills = try bytes.integer()
        slice.text = try bytes.data()
        func reason(_ bytes: inout BinaryReader) throws(BinaryReader.Damaged) -> FilterReason {
            guard let reason = FilterReason(rawValue: Int(try bytes.integer())) else { throw BinaryReader.Damaged() }
            return reason
        }
        for _ in 0..<(try bytes.count(of: 32)) {
            let removal = DatasetBuild.Removal(symbol: try bytes.text(), host: try bytes.text(), reason: try reason(&bytes))
            slice.removed[removal] = try bytes.integer()
        }
        for _ in 0..<(try bytes.count(of: 64)) {
            var row = DatasetRow(symbol: try bytes.text(), host: nil, start: 0, end: 0, values: [], counts: [], flags: [], reasons: [])
            let hasHost = try bytes.integer() == 1
            let host = try bytes.text()
            if hasHost { row.host = host }
            row.start = try bytes.integer()
            row.end = try bytes.integer()
            for _ in DatasetColumn.all { row.values.append(try bytes.integer() == 0 ? nil : try bytes.wide()) }
            for _ in DatasetColumn.counts { row.counts.append(try bytes.integer()) }
            for _ in 0..<(try bytes.count(of: 8)) { row.flags.append(try bytes.text()) }
            for _ in 0..<(try bytes.count(of: 8)) { row.reasons.append(try reason(&bytes)) }
            slice.rows.append(row)
        }
        guard bytes.isAtEnd else { throw BinaryReader.Damaged() }
    }

    init(number: Int64, key: UInt64, slice: DatasetSlice) {
        self.number = number
        self.key = key
        self.slice = slice
    }
}
