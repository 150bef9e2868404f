import CalibModel

/// Seqs that were read of one stream, whatever their rows' time.
///
/// Feeds are written in the order of their seqs, so almost always a run of them is all there is to keep: 16 bytes for a piece of a file.
struct SeqRuns: Sendable {
    private var closed: [ClosedRange<Int64>] = []
    private var openFirst: Int64 = 0
    private var openLast: Int64 = -1

    init() {}
    init(_ runs: [ClosedRange<Int64>]) { closed = runs }

    @inline(__always) mutating func see(_ seq: Int64) {
        if seq == openLast &+ 1, openLast >= openFirst {
            openLast = seq
        } else {
            if openLast >= openFirst { closed.append(openFirst...openLast) }
            openFirst = seq
            openLast = seq
        }
    }

    var all: [ClosedRange<Int64>] { openLast >= openFirst ? closed + [openFirst...openLast] : closed }
}

/// What a dataset says of one piece of a file beside its intervals: lines, faults, sequences, and by hour what lies in it. Hosts are ids of whoever
/// made it; an hour is `DatasetArguments.hourMilliseconds` long.
///
/// It does not depend on a dataset's range where that begins and ends with an hour, so the next build can use it again.
struct PieceSummary: Sendable {
    var path: String
    var feed: Feed
    var from: Int64
    /// Lines that begin there or later are not its own.
    var to: Int64
    /// Behind its last line.
    var end: Int64 = 0
    /// Those of its lines.
    var bytes: Int64 = 0
    /// Stands for its content; see `FeedPiece.identity`.
    var identity: UInt64 = 0
    /// A newline ends it, so that what is appended to the file begins with a line of its own.
    var isWhole = true
    var lines = 0
    var rows: Int64 = 0
    var reasons = [Int64](repeating: 0, count: RejectReason.allCases.count)
    /// The first of them, with their line inside the piece.
    var rejects: [(line: Int, reason: RejectReason)] = []
    var streams: [(key: StreamKey, runs: SeqRuns)] = []
    var hours: [HourTally] = []
    var sequences: [SequenceTally] = []

    var rejected: Int64 { reasons.reduce(0, +) }

    struct HourTally: Sendable {
        var number: Int64
        /// Rows that went into intervals; markouts do not.
        var rowsUsed: Int64 = 0
        /// Rows without an identity, which are never de-duplicated.
        var unidentified: Int64 = 0
        /// Bit masks by raw value.
        var sources: UInt64 = 0
        var hosts: [Int32] = []
        /// The first line of either form, 0 when there is none.
        var firstOfOurs = 0
        var firstOfSeed = 0
    }

    /// Rows of one stream in one hour.
    struct SequenceTally: Sendable {
        /// Places in `hours` and `streams`.
        var hour: Int
        var stream: Int
        var rows: Int64 = 0
        var first = Int64.max
        var last = Int64.min
        /// Of fills and markouts.
        var fillFirst = Int64.max
        var fillLast = Int64.min

        @inline(__always) mutating func count(_ seq: Int64) {
            rows &+= 1
            first = min(first, seq)
            last = max(last, seq)
        }
        @inline(__always) mutating func note(fill: Int64) {
            fillFirst = min(fillFirst, fill)
            fillLast = max(fillLast, fill)
        }
    }
}

/// Fills a summary row by row.
struct PieceTally {
    private(set) var summary: PieceSummary
    private let hourLength: Int64
    // Where the last row went: the next one nearly always goes there, too.
    private var hour = -1
    private var hourBegin = Int64.max
    private var stream = -1
    private var sequence = -1
    private var lastHost: Int32 = -1

    init(_ piece: FeedPiece, hourLength: Int64) {
        summary = PieceSummary(path: piece.path, feed: piece.feed, from: piece.from, to: piece.to)
        self.hourLength = hourLength
    }

    /// The rows that follow are of this time.
    @inline(__always) mutating func move(to time: Int64) {
        if hour >= 0, time >= hourBegin, time &- hourBegin < hourLength { return }
        findHour(time.flooredDivision(by: hourLength))
    }

    private mutating func findHour(_ number: Int64) {
        hourBegin = number * hourLength
        sequence = -1
        lastHost = -1
        if let found = summary.hours.firstIndex(where: { $0.number == number }) {
            hour = found
        } else {
            hour = summary.hours.count
            summary.hours.append(PieceSummary.HourTally(number: number))
        }
    }

    @inline(__always) mutating func noteForm(isOurs: Bool, line: Int) {
        if isOurs {
            if summary.hours[hour].firstOfOurs == 0 { summary.hours[hour].firstOfOurs = line }
        } else if summary.hours[hour].firstOfSeed == 0 {
            summary.hours[hour].firstOfSeed = line
        }
    }

    @inline(__always) mutating func note(source: Int64) { summary.hours[hour].sources |= 1 << UInt64(truncatingIfNeeded: source) }

    @inline(__always) mutating func use(host: Int32) {
        summary.hours[hour].rowsUsed &+= 1
        if host != lastHost {
            lastHost = host
            if !summary.hours[hour].hosts.contains(host) { summary.hours[hour].hosts.append(host) }
        }
    }

    mutating func countUnidentified() { summary.hours[hour].unidentified += 1 }

    /// A row with an identity was read; it is one of the dataset's, or could be one of another range's, when it `counts`. `fill`: the fill it is of.
    @inline(__always) mutating func see(_ seq: Int64, of key: StreamKey, counts: Bool, fill: Int64?) {
        if stream < 0 || summary.streams[stream].key != key { findStream(key) }
        summary.streams[stream].runs.see(seq)
        guard counts else { return }
        if sequence < 0 { findSequence() }
        summary.sequences[sequence].count(seq)
        if let fill { summary.sequences[sequence].note(fill: fill) }
    }

    private mutating func findStream(_ key: StreamKey) {
        sequence = -1
        if let found = summary.streams.firstIndex(where: { $0.key == key }) {
            stream = found
        } else {
            stream = summary.streams.count
            summary.streams.append((key, SeqRuns()))
        }
    }

    private mutating func findSequence() {
        if let found = summary.sequences.firstIndex(where: { $0.hour == hour && $0.stream == stream }) {
            sequence = found
        } else {
            sequence = summary.sequences.count
            summary.sequences.append(PieceSummary.SequenceTally(hour: hour, stream: stream))
        }
    }

    // MARK: Lines

    mutating func reject(line: Int, _ reason: RejectReason) {
        summary.reasons[reason.rawValue] += 1
        // Lines ascend inside a piece, so the first ones are the smallest, whatever the order of the pieces.
        if summary.rejects.count < DatasetFormat.rejectsListedMax { summary.rejects.append((line, reason)) }
    }

    mutating func advance(rows: Int64, bytes: Int64, lines: Int, isWhole: Bool) {
        summary.rows += rows
        summary.bytes += bytes
        summary.lines = lines
        summary.isWhole = isWhole
    }

    /// `end`: the offset behind its last line.
    mutating func finish(end: Int64, fileIdentity: UInt64) {
        summary.end = end
        summary.to = min(summary.to, end)
        var identity = BinaryWriter()
        identity.text(summary.path)
        for number in [summary.from, summary.to, end, Int64(bitPattern: fileIdentity)] { identity.integer(number) }
        summary.identity = identity.digest
    }
}
