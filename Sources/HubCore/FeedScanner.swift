import CalibModel
import Wire

// Feed files: bytes -> lines -> typed rows, or the reason why not (SPEC 2, 6.5).
//
// A row is read once into integers (SPEC 1.2) and lives until the next one is read; nothing is allocated per line. Which fields a feed
// has, their units, ranges and whether they are required stands in one table per feed (`FeedTables`).
//
// Decisions where SPEC 6.5 is silent:
// - A last line without newline is complete when it is one whole JSON text (NaN and the like allowed); anything else is `torn_tail`.
//   A torn line above the length limit is `torn_tail` too: it is never held whole, so it cannot be shown to be complete.
// - Deeper than `JSONReader.depthMax` is `not_json`.
// - `overflow` counts for the fields a dataset reads; a huge number in a field nobody reads is no harm.
// - `null` in a required field that is not nullable is `wrong_type`; in an optional field it means unknown.

extension Feed {
    /// Its place among all cases.
    var index: Int {
        switch self {
        case .fills: 0
        case .markouts: 1
        case .events: 2
        case .snapshots: 3
        case .quotes: 4
        case .ticks: 5
        }
    }

    /// Whether datasets are built from it; events say what happened to the edge, not to the market.
    package var isDatasetInput: Bool { self != .events }

    /// The feed, day and part of `<feed>_<YYYYMMDD>.jsonl` or `<feed>_<YYYYMMDD>.<n>.jsonl`; nil for any other name.
    package static func parse(fileName: String) -> (feed: Feed, day: CalendarDay)? {
        for feed in allCases where feed.isDatasetInput && fileName.hasPrefix(feed.rawValue + "_") {
            let parts = fileName.dropFirst(feed.rawValue.utf8.count + 1).split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count == 2 || parts.count == 3, parts.last == "jsonl", parts[0].utf8.count == 8 else { return nil }
            if parts.count == 3 { guard isNumber(parts[1]) else { return nil } }
            guard isNumber(parts[0]), let date = Int(parts[0]),
                let day = CalendarDay(year: date / 10_000, month: date / 100 % 100, day: date % 100)
            else { return nil }
            return (feed, day)
        }
        return nil
    }

    private static func isNumber(_ text: Substring) -> Bool { !text.isEmpty && text.utf8.allSatisfy { $0 >= 48 && $0 <= 57 } }
}

/// Why a line is no row. The first that applies, in this order (SPEC 6.5).
package enum RejectReason: Int, CaseIterable, Sendable {
    case tornTail, tooLong, notUTF8, nonFinite, notJSON, notObject, missingField, wrongType, outOfRange

    package var name: StaticString {
        switch self {
        case .tornTail: "torn_tail"
        case .tooLong: "too_long"
        case .notUTF8: "not_utf8"
        case .nonFinite: "non_finite"
        case .notJSON: "not_json"
        case .notObject: "not_object"
        case .missingField: "missing_field"
        case .wrongType: "wrong_type"
        case .outOfRange: "out_of_range"
        }
    }
}

/// Bounds of what one row may say, so that sums of rows stay exact.
package enum RowLimits {
    /// Longest row in bytes without its line end (SPEC 8.1).
    package static let lineBytesMax = 65_536
    /// 2100-01-01 in milliseconds (SPEC 6.5).
    package static let timeMax: Int64 = 4_102_444_800_000
    /// 10^10 quote currency in one fill, in 1e-8.
    package static let notionalMax: Int64 = 1_000_000_000_000_000_000
    /// 10^6 bps (a price a hundred times another) in 1e-6 bps. A product with the largest notional is 10^30: 10^8 such rows fit an Int128.
    package static let bpsMax: Int64 = 1_000_000_000_000
    /// A row may stand for a million others.
    package static let weightMax: Int64 = 1_000_000
    /// Events in one snapshot.
    package static let countMax: Int64 = 1_000_000_000
    /// A snapshot's span: an hour in milliseconds; edges cut at 10 or 60 s.
    package static let spanMax: Int64 = 3_600_000
    /// Bytes of a symbol or host name.
    package static let nameBytesMax = 128
}

/// Where a row came from (SPEC 10.3). Raw values index the names.
package enum RowSource: Int64, CaseIterable, Sendable {
    case live, sim, replay
    /// Rows of the first program's two feeds.
    case seed
    /// Our form without a `source` field.
    case unknown

    package var name: String {
        switch self {
        case .live: "live"
        case .sim: "sim"
        case .replay: "replay"
        case .seed: "seed"
        case .unknown: "unknown"
        }
    }

    /// What a row's `source` says; nil for a text that no edge writes.
    static func written(as text: UnsafeRawBufferPointer) -> RowSource? {
        if text.equals("live") { return .live }
        if text.equals("sim") { return .sim }
        return text.equals("replay") ? .replay : nil
    }
}

/// The fields a dataset or a comparison of arms reads. Units are those of SPEC 1.2; booleans are 0 and 1; `side` is +1 or -1.
package enum RowField: Int, CaseIterable, Sendable {
    case v, source, epoch, seq, arm, block, weight
    case ts, fromTs, spanMs
    case side, price, qty, taker, quotePrice, midNow, fillID, feeBps
    case tickTotal, cacheHit, cacheAge, usedStale, deadlineMiss
    case volRealized, liqTopDepth, pnlDev, queueAbsorbRate, queueEta
    case ticks, quotes, fills, filledOrders, takerFills, returns, deadlineMisses
    case fillNotional, slip, slipXNotional, markoutNotional, netXNotional, adverseXNotional, squaredReturn
    case mid5s
    case halfSpreadBps, skewBps, nudgeBps, resting
}

/// One row's integers. Valid until the scanner reads the next line; the byte ranges point into that line.
package struct FeedRow {
    package internal(set) var feed = Feed.fills
    /// Empty text when the row does not name it.
    package internal(set) var symbol = UnsafeRawBufferPointer(start: nil, count: 0)
    package internal(set) var host = UnsafeRawBufferPointer(start: nil, count: 0)
    package internal(set) var armWhy = UnsafeRawBufferPointer(start: nil, count: 0)
    package internal(set) var experiment = UnsafeRawBufferPointer(start: nil, count: 0)
    package internal(set) var configHash = UnsafeRawBufferPointer(start: nil, count: 0)
    package internal(set) var histogram: [(index: Int32, count: Int64)] = []
    /// Fills: price * qty in 1e-8 quote currency, and slip_bps of SPEC 1.3 in 1e-6 bps.
    package internal(set) var notional: Int64 = 0
    package internal(set) var slip: Int64 = 0
    var values = [47 of Int64](repeating: 0)
    var known: UInt64 = 0

    /// Nil when absent or null.
    @inline(__always) package subscript(_ field: RowField) -> Int64? {
        known & (1 &<< UInt64(truncatingIfNeeded: field.rawValue)) != 0 ? values[unchecked: field.rawValue] : nil
    }
    /// For required fields.
    @inline(__always) package func value(_ field: RowField) -> Int64 { values[unchecked: field.rawValue] }
    /// True for the rows our edge writes, false for the seed's.
    package var isOurs: Bool { self[.v] != nil }

    mutating func reset(for feed: Feed) {
        self.feed = feed
        symbol = UnsafeRawBufferPointer(start: nil, count: 0)
        host = symbol
        armWhy = symbol
        experiment = symbol
        configHash = symbol
        if !histogram.isEmpty { histogram.removeAll(keepingCapacity: true) }
        known = 0
    }
    mutating func set(_ field: RowField, _ value: Int64) { set(field.rawValue, value) }

    /// By a field's raw value.
    @inline(__always) mutating func set(_ field: Int, _ value: Int64) {
        values[unchecked: field] = value
        known |= 1 &<< UInt64(truncatingIfNeeded: field)
    }

    /// 16 lower-case hex digits.
    static func hexadecimal(_ text: UnsafeRawBufferPointer) -> UInt64? {
        guard text.count == 16 else { return nil }
        var value: UInt64 = 0
        for byte in text {
            switch byte {
            case 0x30...0x39: value = value << 4 | UInt64(byte - 0x30)
            case 0x61...0x66: value = value << 4 | UInt64(byte - 0x57)
            default: return nil
            }
        }
        return value
    }
}

/// Reads one line into `row`.
package struct FeedScanner: ~Copyable {
    package private(set) var row = FeedRow()
    private var problem: RejectReason?
    private var hasDuplicateKey = false
    private var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Keys of the objects that are open, to find duplicates.
    private var keys: [UnsafeRawBufferPointer] = []
    /// Text of the line whose escapes were resolved; freed with the next line.
    private var scratch: [UnsafeMutableRawBufferPointer] = []
    private let tables = Feed.allCases.map(FeedTables.fields)
    /// The form that rows of `plannedFeed` had lately, learned anew when several in a row are of another.
    private var plan: RowPlan?
    private var plannedFeed = Feed.fills
    private var surprises = 0
    /// So many lines of another form in a row, and it is learned.
    package static let surprisesMax = 4
    /// `scanUsual` loads no byte further behind a line's newline than this.
    package static let overrun = RowPlan.overrun

    package init() {}
    deinit {
        plan?.deallocate()
        for buffer in scratch { buffer.deallocate() }
    }

    /// Reads the line at `start` of a text when it is a row of the usual form: the byte behind its newline, and the row is in `row`. Nil says
    /// nothing about the line: `scan` does, which must then be called.
    ///
    /// - Parameter start: at it or behind it there is a newline, and `FeedScanner.overrun` readable bytes behind that.
    @inline(__always) package mutating func scanUsual(at start: UnsafeRawPointer, feed: Feed) -> UnsafeRawPointer? {
        guard let plan, plannedFeed == feed, let end = plan.read(start, into: &row) else { return nil }
        if feed == .fills {
            problem = nil
            deriveCosts()
            guard problem == nil else { return nil }
        }
        surprises = 0
        return end
    }

    /// After `scan` took a line that `scanUsual` had not.
    package mutating func learn(from line: UnsafeRawBufferPointer, feed: Feed) {
        surprises += 1
        guard plan == nil || plannedFeed != feed || surprises >= Self.surprisesMax else { return }
        plan?.deallocate()
        plan = RowPlan(learning: line, feed: feed, fields: tables[feed.index])
        plannedFeed = feed
        surprises = 0
    }

    /// Nil when `row` holds the line's row. `line` is without its line end; `isTerminated` says whether it had one.
    package mutating func scan(_ line: UnsafeRawBufferPointer, feed: Feed, isTerminated: Bool) -> RejectReason? {
        row.reset(for: feed)
        problem = nil
        hasDuplicateKey = false
        keys.removeAll(keepingCapacity: true)
        releaseScratch()
        bytes = line
        if line.count > RowLimits.lineBytesMax { return isTerminated ? .tooLong : .tornTail }
        guard UTF8Check.isValid(line) else { return isTerminated ? .notUTF8 : .tornTail }
        var isObject = false
        do throws(JSONError) {
            var reader = JSONReader(line)
            isObject = try reader.peek() == .object
            if isObject {
                try readObject(&reader, fields: tables[feed.index])
            } else {
                try skip(&reader)
            }
            try reader.end()
        } catch {
            return isTerminated ? .notJSON : .tornTail
        }
        if hasDuplicateKey { return .notJSON }
        if problem == .nonFinite { return .nonFinite }
        guard isObject else { return .notObject }
        if problem == nil, feed == .fills { deriveCosts() }
        return problem
    }

    private mutating func releaseScratch() {
        for buffer in scratch { buffer.deallocate() }
        scratch.removeAll(keepingCapacity: true)
    }

    // MARK: Objects

    private mutating func readObject(_ reader: inout JSONReader, fields: [FieldSpec]) throws(JSONError) {
        try reader.beginObject()
        let base = keys.count
        var seen: UInt64 = 0
        var next = 0
        while let key = try reader.nextKey() {
            keys.append(key)
            if let found = position(of: key, in: fields, from: next) {
                seen |= 1 << UInt64(found)
                next = found + 1
                try readField(&reader, fields[found])
            } else {
                try skip(&reader)
            }
        }
        closeKeys(from: base)
        for (index, field) in fields.enumerated() where field.isRequired && seen & (1 << UInt64(index)) == 0 { note(.missingField) }
    }

    /// Writers keep the order of the table, so the search starts where the last one ended.
    private mutating func position(of key: UnsafeRawBufferPointer, in fields: [FieldSpec], from next: Int) -> Int? {
        let name = resolved(key) ?? key
        for offset in 0..<fields.count {
            let index = next + offset < fields.count ? next + offset : next + offset - fields.count
            if name.equals(fields[index].name) { return index }
        }
        return nil
    }

    private mutating func readField(_ reader: inout JSONReader, _ field: FieldSpec) throws(JSONError) {
        let kind = try reader.peek()
        if kind == .null {
            _ = try reader.null()
            if !field.isNullable { note(.wrongType) }
            return
        }
        switch field.kind {
        case .integer, .fixed:
            guard kind == .number, !isNonFinite(at: reader.offset) else { return try refuse(&reader, kind) }
            try readNumber(&reader, field)
        case .boolean:
            guard kind == .boolean else { return try refuse(&reader, kind) }
            row.set(field.field, try reader.boolean() ? 1 : 0)
        case .text(let text):
            guard kind == .string else { return try refuse(&reader, kind) }
            readText(try reader.string(), text, field)
        case .group(let fields):
            guard kind == .object else { return try refuse(&reader, kind) }
            try readObject(&reader, fields: fields)
        case .histogram:
            guard kind == .array else { return try refuse(&reader, kind) }
            try readHistogram(&reader)
        }
    }

    private mutating func readNumber(_ reader: inout JSONReader, _ field: FieldSpec) throws(JSONError) {
        var probe = reader
        let value: Int64
        do throws(JSONError) {
            if case .fixed(let places) = field.kind { value = try probe.fixed(places: places) } else { value = try probe.integer() }
        } catch {
            switch error {
            case .overflow: note(try isWhole(reader) || !isInteger(field) ? .nonFinite : .wrongType)
            case .wrongType: note(.wrongType)
            case .syntax, .nonFinite, .tooDeep: throw error
            }
            return try skip(&reader)
        }
        reader = probe
        guard field.range.contains(value) else { return note(.outOfRange) }
        row.set(field.field, value)
    }

    private func isInteger(_ field: FieldSpec) -> Bool { if case .integer = field.kind { true } else { false } }

    /// Whether the number that comes next has neither point nor exponent.
    private func isWhole(_ reader: JSONReader) throws(JSONError) -> Bool {
        var reader = reader
        return try !reader.raw().contains { $0 == 0x2e || $0 | 0x20 == 0x65 }
    }

    private mutating func readText(_ raw: UnsafeRawBufferPointer, _ kind: FieldSpec.Text, _ field: FieldSpec) {
        let text = resolved(raw) ?? raw
        switch kind {
        case .symbol, .host:
            guard !text.isEmpty, text.count <= RowLimits.nameBytesMax else { return note(.outOfRange) }
            if kind == .symbol { row.symbol = text } else { row.host = text }
        // What an arm's reason may be is the business of those who compare arms.
        case .armWhy: row.armWhy = text
        case .experiment: row.experiment = text
        case .configHash: row.configHash = text
        case .side:
            if text.equals("BUY") { row.set(.side, 1) } else if text.equals("SELL") { row.set(.side, -1) } else { note(.wrongType) }
        case .arm:
            if text.equals("A") { row.set(.arm, 0) } else if text.equals("B") { row.set(.arm, 1) } else { note(.wrongType) }
        case .source:
            guard let source = RowSource.written(as: text) else { return note(.wrongType) }
            row.set(.source, source.rawValue)
        case .epoch:
            guard let epoch = FeedRow.hexadecimal(text) else { return note(.wrongType) }
            row.set(.epoch, Int64(bitPattern: epoch))
        }
    }

    /// `[[index, count], ...]`; any order, an index may repeat.
    private mutating func readHistogram(_ reader: inout JSONReader) throws(JSONError) {
        try reader.beginArray()
        while try reader.nextElement() {
            let kind = try reader.peek()
            guard kind == .array else {
                try refuse(&reader, kind)
                continue
            }
            var pair: [2 of Int64] = [0, 0]
            var elements = 0
            try reader.beginArray()
            while try reader.nextElement() {
                let kind = try reader.peek()
                var probe = reader
                if kind == .number, elements < 2, let value = try? probe.integer() {
                    pair[elements] = value
                    reader = probe
                } else {
                    try refuse(&reader, kind)
                }
                elements += 1
            }
            guard elements == 2 else {
                note(.wrongType)
                continue
            }
            guard pair[0] >= 0, pair[0] < LatencyBuckets.count, pair[1] >= 0, pair[1] <= RowLimits.countMax else {
                note(.outOfRange)
                continue
            }
            row.histogram.append((Int32(pair[0]), pair[1]))
        }
    }

    // MARK: Costs

    /// Notional and slip of a fill (SPEC 1.2, 1.3), or `out_of_range` when they are beyond what sums can hold.
    private mutating func deriveCosts() {
        let price = row.value(.price)
        let quotePrice = row.value(.quotePrice)
        // 1e-9 * 1e-8 -> 1e-8.
        guard let notional = FixedPoint.divide(Int128(price) * Int128(row.value(.qty)), by: 1_000_000_000),
            notional > 0, notional <= RowLimits.notionalMax,
            let slip = Self.costBps(sign: row.value(.side), from: quotePrice, to: price, per: quotePrice)
        else { return note(.outOfRange) }
        row.notional = notional
        row.slip = slip
    }

    /// `sign * (to - from) / per * 1e4` in 1e-6 bps, half to even; prices in 1e-9. Nil beyond `RowLimits.bpsMax`.
    package static func costBps(sign: Int64, from: Int64, to: Int64, per: Int64) -> Int64? {
        guard let bps = FixedPoint.divide((Int128(to) - Int128(from)) * Int128(sign) * 10_000_000_000, by: Int128(per)),
            bps.magnitude <= UInt64(RowLimits.bpsMax)
        else { return nil }
        return bps
    }

    // MARK: Leaves

    private mutating func note(_ reason: RejectReason) {
        if let problem, problem.rawValue <= reason.rawValue { return }
        problem = reason
    }

    /// The value is of the wrong type, or a number that is none: says so and goes past it.
    private mutating func refuse(_ reader: inout JSONReader, _ kind: JSONKind) throws(JSONError) {
        note(kind == .number && isNonFinite(at: reader.offset) ? .nonFinite : .wrongType)
        try skip(&reader)
    }

    private func isNonFinite(at offset: Int) -> Bool {
        let byte = bytes[offset]
        return byte == 0x4e || byte == 0x49 || (byte == 0x2d && offset + 1 < bytes.count && bytes[offset + 1] == 0x49)
    }

    /// Goes past one value of any kind: syntax, duplicate keys and non-finite numbers are noticed in fields nobody reads, too.
    private mutating func skip(_ reader: inout JSONReader) throws(JSONError) {
        switch try reader.peek() {
        case .number:
            if isNonFinite(at: reader.offset) {
                note(.nonFinite)
                try reader.nonFinite()
            } else {
                try reader.skip()
            }
        case .string, .boolean, .null: try reader.skip()
        case .array:
            try reader.beginArray()
            while try reader.nextElement() { try skip(&reader) }
        case .object:
            try reader.beginObject()
            let base = keys.count
            while let key = try reader.nextKey() {
                keys.append(key)
                try skip(&reader)
            }
            closeKeys(from: base)
        }
    }

    /// Compares the keys of an object that ends, and forgets them. Few keys are compared pairwise, many are sorted.
    private mutating func closeKeys(from base: Int) {
        defer { keys.removeLast(keys.count - base) }
        if keys[base...].contains(where: { $0.contains(0x5c) }) {
            for index in base..<keys.count { keys[index] = resolved(keys[index]) ?? keys[index] }
        }
        if keys.count - base <= 64 {
            for index in base..<keys.count {
                for other in index + 1..<max(index + 1, keys.count) where keys[index].count == keys[other].count {
                    if keys[index].elementsEqual(keys[other]) { hasDuplicateKey = true }
                }
            }
        } else {
            keys[base...].sort { $0.lexicographicallyPrecedes($1) }
            for index in base + 1..<keys.count where keys[index - 1].elementsEqual(keys[index]) { hasDuplicateKey = true }
        }
    }

    /// The text with its escapes resolved; nil when it has none, or an unpaired surrogate (then the raw text stands for itself).
    private mutating func resolved(_ raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard raw.contains(0x5c), let text = JSONText.resolved(raw) else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, text.count), alignment: 1)
        buffer.copyBytes(from: text)
        scratch.append(buffer)
        return UnsafeRawBufferPointer(rebasing: buffer[0..<text.count])
    }
}

/// Escapes of JSON strings (RFC 8259, section 7).
package enum JSONText {
    /// UTF-8 of the raw bytes between the quotes, whose escapes a reader has checked; nil when a surrogate is unpaired.
    package static func resolved(_ raw: UnsafeRawBufferPointer) -> [UInt8]? {
        var text: [UInt8] = []
        text.reserveCapacity(raw.count)
        var index = 0
        func unit(_ start: Int) -> UInt32? {
            guard start + 4 <= raw.count else { return nil }
            var value: UInt32 = 0
            for byte in raw[start..<start + 4] {
                let digit = byte < 0x3a ? byte &- 0x30 : (byte | 0x20) &- 0x57
                guard digit < 16 else { return nil }
                value = value << 4 | UInt32(digit)
            }
            return value
        }
        while index < raw.count {
            guard raw[index] == 0x5c, index + 1 < raw.count else {
                text.append(raw[index])
                index += 1
                continue
            }
            index += 2
            switch raw[index - 1] {
            case 0x62: text.append(0x08)
            case 0x66: text.append(0x0c)
            case 0x6e: text.append(0x0a)
            case 0x72: text.append(0x0d)
            case 0x74: text.append(0x09)
            case 0x75:
                guard var code = unit(index) else { return nil }
                index += 4
                if code & 0xfc00 == 0xd800 {
                    guard index + 6 <= raw.count, raw[index] == 0x5c, raw[index + 1] == 0x75, let low = unit(index + 2),
                        low & 0xfc00 == 0xdc00
                    else { return nil }
                    code = 0x10000 + (code & 0x3ff) << 10 + (low & 0x3ff)
                    index += 6
                }
                guard let scalar = Unicode.Scalar(code) else { return nil }
                text.append(contentsOf: Array(String(Character(scalar)).utf8))
            case let other: text.append(other)
            }
        }
        return text
    }
}

/// Cuts a file's bytes into lines and counts them, in bounded memory: `\n` or `\r\n` ends a line; blank lines are counted, not handed on.
package struct LineCutter {
    /// 1-based number of the line that starts next.
    package private(set) var lineNumber = 1
    /// Inside a line above the limit, whose rest is thrown away.
    private(set) var isSkipping = false

    /// The next line was read by other means.
    @inline(__always) mutating func passLine() { lineNumber &+= 1 }

    package init() {}

    package enum Piece {
        /// `line` without its line end.
        case line(UnsafeRawBufferPointer, number: Int, isTerminated: Bool)
        case tooLong(number: Int, isTerminated: Bool)
    }

    /// The next line of `bytes` from `start` on, which moves past it. Nil when more bytes are needed (what is left from `start` on must
    /// be handed in again, with more behind it) or, with `isEnd`, when there is nothing left.
    ///
    /// - Parameter limit: lines that begin there or later are left alone.
    package mutating func next(in bytes: UnsafeRawBufferPointer, from start: inout Int, isEnd: Bool, before limit: Int = .max) -> Piece? {
        while start < bytes.count, isSkipping || start < limit {
            guard let end = Self.newline(in: bytes, from: start) else {
                if isEnd { return finish(bytes, from: &start) }
                // One byte of grace for the `\r` of the longest line.
                if isSkipping || bytes.count - start > RowLimits.lineBytesMax + 1 {
                    isSkipping = true
                    start = bytes.count
                }
                return nil
            }
            let wasSkipping = isSkipping
            isSkipping = false
            let number = lineNumber
            lineNumber += 1
            let line = withoutCarriageReturn(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
            start = end + 1
            if wasSkipping || line.count > RowLimits.lineBytesMax { return .tooLong(number: number, isTerminated: true) }
            if !isBlank(line) { return .line(line, number: number, isTerminated: true) }
        }
        if isEnd, isSkipping { return finish(bytes, from: &start) }
        return nil
    }

    private mutating func finish(_ bytes: UnsafeRawBufferPointer, from start: inout Int) -> Piece? {
        let line = UnsafeRawBufferPointer(rebasing: bytes[start...])
        let wasSkipping = isSkipping
        let number = lineNumber
        start = bytes.count
        isSkipping = false
        if wasSkipping || line.count > RowLimits.lineBytesMax { return .tooLong(number: number, isTerminated: false) }
        lineNumber += 1
        return isBlank(line) ? nil : .line(line, number: number, isTerminated: false)
    }

    static func newline(in bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        var index = start
        while bytes.count &- index >= 8 {
            let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self) ^ 0x0a0a_0a0a_0a0a_0a0a
            let marks = (word &- 0x0101_0101_0101_0101) & ~word & 0x8080_8080_8080_8080
            if marks != 0 { return index &+ marks.trailingZeroBitCount &>> 3 }
            index &+= 8
        }
        while index < bytes.count {
            if bytes[index] == 0x0a { return index }
            index &+= 1
        }
        return nil
    }

    private func withoutCarriageReturn(_ line: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        line.last == 0x0d ? UnsafeRawBufferPointer(rebasing: line.dropLast()) : line
    }

    private func isBlank(_ line: UnsafeRawBufferPointer) -> Bool { line.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0d } }
}
