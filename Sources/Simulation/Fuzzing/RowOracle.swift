import CalibModel
internal import HubCore

/// One line of a feed, read slowly and by the rules of SPEC 6.5 alone: why it is no row, or what it says.
struct RowOracle {
    enum Verdict {
        case rejected(RejectReason)
        case row(RowOracle)
    }

    private var numbers: [RowField: Int64] = [:]
    private var texts: [String: [UInt8]] = [:]
    private var histogram: [(Int64, Int64)] = []
    private var costs: (notional: Int64, slip: Int64)?
    private var faults: [RejectReason] = []

    func isEqual(to row: borrowing FeedRow, feed: Feed) -> Bool {
        let isSame = RowField.allCases.allSatisfy { row[$0] == numbers[$0] }
        func text(_ name: String) -> [UInt8] { texts[name] ?? [] }
        return isSame && row.symbol.elementsEqual(text("symbol")) && row.host.elementsEqual(text("host"))
            && row.armWhy.elementsEqual(text("arm_why")) && row.experiment.elementsEqual(text("experiment"))
            && row.configHash.elementsEqual(text("config_hash"))
            && row.histogram.elementsEqual(histogram) { Int64($0.index) == $1.0 && $0.count == $1.1 }
            && (feed != .fills || costs.map { $0.notional == row.notional && $0.slip == row.slip } ?? false)
    }

    static func read(_ line: [UInt8], feed: Feed, isTerminated: Bool) -> Verdict {
        func broken(_ reason: RejectReason) -> Verdict { .rejected(isTerminated ? reason : .tornTail) }
        if line.count > 65_536 { return broken(.tooLong) }
        if String(validating: line, as: UTF8.self) == nil { return broken(.notUTF8) }
        guard JSONRecognizer.accepts(line, depthMax: 16, allowingNonFinite: true) else { return broken(.notJSON) }
        let tree = JSONTree(line)
        if tree.hasRepeatedName { return .rejected(.notJSON) }
        var row = RowOracle()
        guard case .object(let members) = tree.value else { return .rejected(tree.hasNonFinite ? .nonFinite : .notObject) }
        row.read(members, fields(of: feed))
        if tree.hasNonFinite { row.faults.append(.nonFinite) }
        if row.faults.isEmpty, feed == .fills { row.deriveCosts() }
        if let first = row.faults.min(by: { $0.rawValue < $1.rawValue }) { return .rejected(first) }
        return .row(row)
    }

    // MARK: Fields

    private enum Kind {
        case integer(ClosedRange<Int64>)
        /// As a multiple of 10^-places.
        case decimal(Int, ClosedRange<Int64>)
        case flag, name, text, side, arm, source, epoch
        case object([Field])
        case histogram
    }
    private struct Field {
        var name: String
        var place: RowField?
        var kind: Kind
        var isRequired = true
        var isNullable = false
    }

    private static func fields(of feed: Feed) -> [Field] {
        let above = 1...Int64.max
        let notBelow = 0...Int64.max
        let any = Int64.min...Int64.max
        let time = 1...Int64(4_102_444_799_999)
        let bps = Int64(-1_000_000_000_000)...1_000_000_000_000
        func optional(_ name: String, _ place: RowField?, _ kind: Kind) -> Field {
            Field(name: name, place: place, kind: kind, isRequired: false, isNullable: true)
        }
        func count(_ name: String, _ place: RowField) -> Field { Field(name: name, place: place, kind: .integer(0...1_000_000_000)) }
        var fields = [Field(name: "ts", place: .ts, kind: .integer(time)), Field(name: "symbol", kind: .name)]
        switch feed {
        case .fills:
            fields += [
                Field(name: "side", place: .side, kind: .side), Field(name: "price", place: .price, kind: .decimal(9, above)),
                Field(name: "qty", place: .qty, kind: .decimal(8, above)), Field(name: "taker", place: .taker, kind: .flag),
                Field(name: "quote_price", place: .quotePrice, kind: .decimal(9, above)),
                Field(name: "mid_now", place: .midNow, kind: .decimal(9, above)), optional("fill_id", .fillID, .integer(notBelow)),
                optional("fee_bps", .feeBps, .decimal(6, bps)),
            ]
        case .ticks:
            fields += [
                Field(name: "tick_total_ms", place: .tickTotal, kind: .decimal(6, notBelow)),
                Field(name: "cache_hit", place: .cacheHit, kind: .flag),
                Field(name: "cache_age_ms", place: .cacheAge, kind: .decimal(6, notBelow), isNullable: true),
                Field(name: "used_stale", place: .usedStale, kind: .flag), Field(name: "deadline_miss", place: .deadlineMiss, kind: .flag),
                optional("weight", .weight, .integer(1...1_000_000)),
            ]
        case .markouts:
            fields += [
                Field(name: "fill_id", place: .fillID, kind: .integer(notBelow)),
                Field(name: "mid_5s", place: .mid5s, kind: .decimal(9, above), isNullable: true),
            ]
        case .quotes:
            fields += [
                Field(name: "half_spread_bps", place: .halfSpreadBps, kind: .decimal(6, bps)),
                Field(name: "skew_bps", place: .skewBps, kind: .decimal(6, bps)),
                Field(name: "nudge_bps", place: .nudgeBps, kind: .decimal(6, bps)),
                Field(name: "resting_ms", place: .resting, kind: .decimal(6, notBelow), isNullable: true),
                optional("weight", .weight, .integer(1...1_000_000)),
            ]
        case .snapshots:
            fields += [
                Field(name: "from_ts", place: .fromTs, kind: .integer(time)),
                Field(name: "span_ms", place: .spanMs, kind: .integer(1...3_600_000)),
                Field(
                    name: "features",
                    kind: .object([
                        Field(name: "vol_realized", place: .volRealized, kind: .decimal(6, notBelow), isNullable: true),
                        Field(name: "liq_top_depth", place: .liqTopDepth, kind: .decimal(8, notBelow), isNullable: true),
                        Field(name: "pnl_dev", place: .pnlDev, kind: .decimal(6, any), isNullable: true),
                        Field(name: "queue_absorb_rate", place: .queueAbsorbRate, kind: .decimal(8, notBelow), isNullable: true),
                        Field(name: "queue_eta_ms", place: .queueEta, kind: .decimal(6, notBelow), isNullable: true),
                    ])),
                Field(
                    name: "counts",
                    kind: .object([
                        optional("ticks", .ticks, .integer(0...1_000_000_000)), count("quotes", .quotes), count("fills", .fills),
                        count("filled_orders", .filledOrders), count("taker_fills", .takerFills),
                        optional("returns", .returns, .integer(0...1_000_000_000)),
                        optional("deadline_misses", .deadlineMisses, .integer(0...1_000_000_000)),
                    ])),
                Field(
                    name: "sums",
                    kind: .object([
                        Field(name: "fill_notional", place: .fillNotional, kind: .decimal(8, notBelow)),
                        optional("slip", .slip, .decimal(6, any)),
                        Field(name: "slip_x_notional", place: .slipXNotional, kind: .decimal(9, any)),
                        Field(name: "markout_notional", place: .markoutNotional, kind: .decimal(8, notBelow)),
                        optional("net_x_notional", .netXNotional, .decimal(9, any)),
                        Field(name: "adverse_x_notional", place: .adverseXNotional, kind: .decimal(9, any)),
                        optional("return2", .squaredReturn, .decimal(9, notBelow)),
                    ])), Field(name: "tick_ns_histogram", kind: .histogram),
            ]
        case .events: break
        }
        return fields + [
            optional("arm", .arm, .arm), optional("arm_why", nil, .text), optional("experiment", nil, .text),
            optional("block", .block, .integer(-2_147_483_648...2_147_483_647)), optional("config_hash", nil, .text),
            Field(name: "v", place: .v, kind: .integer(1...1), isRequired: feed != .fills && feed != .ticks),
            optional("source", .source, .source), optional("host", nil, .name), optional("epoch", .epoch, .epoch),
            optional("seq", .seq, .integer(notBelow)),
        ]
    }

    private mutating func read(_ members: [JSONTree.Member], _ fields: [Field]) {
        for field in fields {
            guard let member = members.first(where: { $0.name == Array(field.name.utf8) }) else {
                if field.isRequired { faults.append(.missingField) }
                continue
            }
            read(member.value, field)
        }
    }

    private mutating func read(_ value: JSONTree.Value, _ field: Field) {
        switch (field.kind, value) {
        case (_, .null): if !field.isNullable { faults.append(.wrongType) }
        case (_, .nonFinite): break  // Noticed in the whole tree.
        case (.integer(let range), .number(let text)):
            guard !text.contains(where: { ".eE".utf8.contains($0) }) else { return faults.append(.wrongType) }
            take(Int64(String(decoding: text, as: UTF8.self)), range, field)
        case (.decimal(let places, let range), .number(let text)): take(DigitwiseDecimal(text)?.fixed(places: places), range, field)
        case (.flag, .flag(let isTrue)): numbers[field.place!] = isTrue ? 1 : 0
        case (.name, .text(let text)):
            if text.isEmpty || text.count > 128 { faults.append(.outOfRange) } else { texts[field.name] = text }
        case (.text, .text(let text)): texts[field.name] = text
        case (.side, .text(let text)): take(text, ["BUY": 1, "SELL": -1], field)
        case (.arm, .text(let text)): take(text, ["A": 0, "B": 1], field)
        case (.source, .text(let text)):
            take(
                text,
                ["live": RowSource.live.rawValue, "sim": RowSource.sim.rawValue, "replay": RowSource.replay.rawValue], field)
        case (.epoch, .text(let text)):
            guard text.count == 16, text.allSatisfy({ "0123456789abcdef".utf8.contains($0) }),
                let epoch = UInt64(String(decoding: text, as: UTF8.self), radix: 16)
            else { return faults.append(.wrongType) }
            numbers[field.place!] = Int64(bitPattern: epoch)
        case (.object(let fields), .object(let members)): read(members, fields)
        case (.histogram, .array(let elements)): for element in elements { readBucket(element) }
        default: faults.append(.wrongType)
        }
    }

    private mutating func take(_ value: Int64?, _ range: ClosedRange<Int64>, _ field: Field) {
        guard let value else { return faults.append(.nonFinite) }
        if range.contains(value) { numbers[field.place!] = value } else { faults.append(.outOfRange) }
    }

    private mutating func take(_ text: [UInt8], _ values: [String: Int64], _ field: Field) {
        if let value = values[String(decoding: text, as: UTF8.self)] { numbers[field.place!] = value } else { faults.append(.wrongType) }
    }

    private mutating func readBucket(_ element: JSONTree.Value) {
        guard case .array(let pair) = element else { return faults.append(.wrongType) }
        let values = pair.map { value -> Int64? in
            guard case .number(let text) = value else { return nil }
            return Int64(String(decoding: text, as: UTF8.self))
        }
        guard values.count == 2, let index = values[0], let count = values[1] else { return faults.append(.wrongType) }
        guard (0..<Int64(LatencyBuckets.count)).contains(index), (0...1_000_000_000).contains(count) else {
            return faults.append(.outOfRange)
        }
        histogram.append((index, count))
    }

    /// SPEC 1.2 and 1.3: notional in 1e-8, slip in 1e-6 bps, each half to even.
    private mutating func deriveCosts() {
        func divided(_ numerator: Int128, by denominator: Int128) -> Int128 {
            let quotient = numerator / denominator
            let rest = (numerator - quotient * denominator).magnitude * 2
            let isAway = rest > denominator.magnitude || rest == denominator.magnitude && quotient % 2 != 0
            return isAway ? quotient + (numerator < 0 ? -1 : 1) : quotient
        }
        let (price, quote) = (Int128(numbers[.price]!), Int128(numbers[.quotePrice]!))
        let notional = divided(price * Int128(numbers[.qty]!), by: 1_000_000_000)
        let slip = divided((price - quote) * Int128(numbers[.side]!) * 10_000_000_000, by: quote)
        guard notional > 0, notional <= 1_000_000_000_000_000_000, slip.magnitude <= 1_000_000_000_000 else {
            return faults.append(.outOfRange)
        }
        costs = (Int64(notional), Int64(slip))
    }
}

/// A text the recognizer took, as a tree. Escapes are resolved; a text with half of a surrogate pair stands as it is written.
private struct JSONTree {
    struct Member {
        var name: [UInt8]
        var value: Value
    }
    indirect enum Value {
        case object([Member])
        case array([Value])
        case text([UInt8])
        case number([UInt8])
        case flag(Bool)
        case null
        case nonFinite
    }

    private let line: [UInt8]
    private var place = 0
    private(set) var hasRepeatedName = false
    private(set) var hasNonFinite = false
    private(set) var value = Value.null

    init(_ line: [UInt8]) {
        self.line = line
        value = next()
    }

    private mutating func skip(_ bytes: String) { while place < line.count, bytes.utf8.contains(line[place]) { place += 1 } }

    private mutating func next() -> Value {
        skip(" \t\r\n")
        switch Character(UnicodeScalar(line[place])) {
        case "{":
            var members: [Member] = []
            place += 1
            skip(" \t\r\n")
            while line[place] != UInt8(ascii: "}") {
                skip(" \t\r\n,")
                let name = text()
                skip(" \t\r\n:")
                members.append(Member(name: name, value: next()))
                skip(" \t\r\n")
            }
            place += 1
            if Set(members.map(\.name)).count < members.count { hasRepeatedName = true }
            return .object(members)
        case "[":
            var values: [Value] = []
            place += 1
            skip(" \t\r\n")
            while line[place] != UInt8(ascii: "]") {
                skip(",")
                values.append(next())
                skip(" \t\r\n")
            }
            place += 1
            return .array(values)
        case "\"": return .text(text())
        case "t":
            place += 4
            return .flag(true)
        case "f":
            place += 5
            return .flag(false)
        case "n":
            place += 4
            return .null
        default:
            let begin = place
            while place < line.count, "-+.0123456789eENaInfity".utf8.contains(line[place]) { place += 1 }
            let token = Array(line[begin..<place])
            guard token.contains(UInt8(ascii: "N")) || token.contains(UInt8(ascii: "I")) else { return .number(token) }
            hasNonFinite = true
            return .nonFinite
        }
    }

    private mutating func text() -> [UInt8] {
        place += 1
        let begin = place
        var units: [UInt16] = []
        var isPlain = true
        while line[place] != UInt8(ascii: "\"") {
            guard line[place] == UInt8(ascii: "\\") else {
                place += 1
                continue
            }
            isPlain = false
            place += 2
        }
        let raw = Array(line[begin..<place])
        place += 1
        if isPlain { return raw }
        // By way of UTF-16, in which escapes are written.
        var rest = String(decoding: raw, as: UTF8.self).unicodeScalars[...]
        while let scalar = rest.popFirst() {
            guard scalar == "\\", let kind = rest.popFirst() else {
                units += String(scalar).utf16
                continue
            }
            let plain: [UnicodeScalar: UInt16] = ["b": 8, "f": 12, "n": 10, "r": 13, "t": 9]
            if kind == "u" {
                units.append(UInt16(String(Substring(rest.prefix(4))), radix: 16)!)
                rest = rest.dropFirst(4)
            } else {
                units.append(plain[kind] ?? UInt16(kind.value))
            }
        }
        return String(validating: units, as: UTF16.self).map { Array($0.utf8) } ?? raw
    }
}
