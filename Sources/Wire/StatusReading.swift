import CalibModel

// A status is read where it lies: a thousand edges send a thousand of them a second, and to make a tree of each first was a quarter of what their hub
// did. What is known is as strict as in every other message; what is not known is not looked at, so such names may come twice. Names are compared as
// they are written: one with an escape is refused.

extension Message.Status {
    /// Every status of ours begins like this.
    private static let beginning: StaticString = #"{"type":"status","#

    /// Nil when the line begins otherwise: it may still be a status.
    init?(ifUsual line: UnsafeRawBufferPointer) throws(WireError) {
        guard line.count > Self.beginning.utf8CodeUnitCount,
            UnsafeRawBufferPointer(rebasing: line[..<Self.beginning.utf8CodeUnitCount]).equals(Self.beginning)
        else { return nil }
        try self.init(line: line)
    }

    /// A whole message; that it is a status is known.
    init(line: UnsafeRawBufferPointer) throws(WireError) {
        guard UTF8Check.isValid(line) else { throw .json(.syntax(at: 0)) }
        var reader = MemberReader(line)
        var type: Void?
        var (wall, backlog) = (Int64?.none, Int64?.none)
        var revision: Revision?
        var isKilled: Bool?
        var symbols: [Symbol]?
        try reader.beginObject("message")
        while let key = try reader.nextKey() {
            switch true {
            case key.equals("type"): try reader.once(&type, "type") { (json) throws(JSONError) in _ = try json.string() }
            case key.equals("wall_ms"): try reader.once(&wall, "wall_ms") { (json) throws(JSONError) in try json.integer() }
            case key.equals("revision"):
                guard revision == nil else { throw reader.twice }
                revision = try Revision(&reader)
            case key.equals("backlog_bytes"): try reader.once(&backlog, "backlog_bytes") { (json) throws(JSONError) in try json.integer() }
            case key.equals("killed"): try reader.once(&isKilled, "killed") { (json) throws(JSONError) in try json.boolean() }
            case key.equals("symbols"):
                guard symbols == nil else { throw reader.twice }
                var found: [Symbol] = []
                try reader.beginArray("symbols")
                while try reader.nextElement() {
                    guard found.count < Limits.statusSymbolsMax else { throw .outOfRange("symbols") }
                    found.append(try Symbol(&reader))
                }
                symbols = found
            default: try reader.skip()
            }
        }
        try reader.end()
        guard let backlog else { throw .missingField("backlog_bytes") }
        guard backlog >= 0 else { throw .outOfRange("backlog_bytes") }
        self.init(
            wallMilliseconds: try known(wall, "wall_ms"), revision: try known(revision, "revision"), backlogBytes: backlog,
            isKilled: try known(isKilled, "killed"), symbols: try known(symbols, "symbols"))
    }
}

extension Message.Status.Symbol {
    fileprivate init(_ reader: inout MemberReader) throws(WireError) {
        var (symbol, arm, armWhy) = (String?.none, String?.none, String?.none)
        var (isProven, isKilled) = (Bool?.none, Bool?.none)
        var (position, openOrders, ticks, quotes, fills) = (Int64?.none, Int64?.none, Int64?.none, Int64?.none, Int64?.none)
        // Absent and null are the same.
        var experiment: String??
        var (bid, ask) = (Int64??.none, Int64??.none)
        var features: [Int64?]?
        try reader.beginObject("symbols")
        while let key = try reader.nextKey() {
            switch true {
            case key.equals("symbol"): try reader.once(&symbol, "symbol") { (json) throws(JSONError) in try JSONValue.string(&json) }
            case key.equals("arm"): try reader.once(&arm, "arm") { (json) throws(JSONError) in try JSONValue.string(&json) }
            case key.equals("arm_why"): try reader.once(&armWhy, "arm_why") { (json) throws(JSONError) in try JSONValue.string(&json) }
            case key.equals("experiment"):
                try reader.once(&experiment, "experiment") { (json) throws(JSONError) in try json.null() ? nil : JSONValue.string(&json) }
            case key.equals("proven"): try reader.once(&isProven, "proven") { (json) throws(JSONError) in try json.boolean() }
            case key.equals("killed"): try reader.once(&isKilled, "killed") { (json) throws(JSONError) in try json.boolean() }
            case key.equals("bid"):
                try reader.once(&bid, "bid") { (json) throws(JSONError) in try json.null() ? nil : json.fixed(places: Places.price) }
            case key.equals("ask"):
                try reader.once(&ask, "ask") { (json) throws(JSONError) in try json.null() ? nil : json.fixed(places: Places.price) }
            case key.equals("position"):
                try reader.once(&position, "position") { (json) throws(JSONError) in try json.fixed(places: Places.quantity) }
            case key.equals("open_orders"): try reader.once(&openOrders, "open_orders") { (json) throws(JSONError) in try json.integer() }
            case key.equals("ticks"): try reader.once(&ticks, "ticks") { (json) throws(JSONError) in try json.integer() }
            case key.equals("quotes"): try reader.once(&quotes, "quotes") { (json) throws(JSONError) in try json.integer() }
            case key.equals("fills"): try reader.once(&fills, "fills") { (json) throws(JSONError) in try json.integer() }
            case key.equals("features"):
                guard features == nil else { throw reader.twice }
                features = try Self.features(&reader)
            default: try reader.skip()
            }
        }
        self.init(
            symbol: try known(symbol, "symbol"), arm: try known(arm, "arm"), armWhy: try known(armWhy, "arm_why"),
            experiment: experiment ?? nil, isProven: try known(isProven, "proven"), isKilled: try known(isKilled, "killed"),
            bid: bid ?? nil, ask: ask ?? nil, position: try known(position, "position"), openOrders: try known(openOrders, "open_orders"),
            ticks: try known(ticks, "ticks"), quotes: try known(quotes, "quotes"), fills: try known(fills, "fills"),
            features: try known(features, "features"))
    }

    private static func features(_ reader: inout MemberReader) throws(WireError) -> [Int64?] {
        var values = [Int64?](repeating: nil, count: Feature.allCases.count)
        var seen: UInt64 = 0
        try reader.beginObject("features")
        while let key = try reader.nextKey() {
            guard let feature = Feature.allCases.first(where: { key.equals($0.name) }) else {
                try reader.skip()
                continue
            }
            guard seen & 1 << UInt64(feature.rawValue) == 0 else { throw reader.twice }
            seen |= 1 << UInt64(feature.rawValue)
            values[feature.rawValue] = try reader.value(feature.name) { (json) throws(JSONError) in
                try json.null() ? nil : json.fixed(places: feature.places)
            }
        }
        return values
    }
}

extension Revision {
    fileprivate init(_ reader: inout MemberReader) throws(WireError) {
        var (term, number) = (Int64?.none, Int64?.none)
        try reader.beginObject("revision")
        while let key = try reader.nextKey() {
            switch true {
            case key.equals("term"): try reader.once(&term, "term") { (json) throws(JSONError) in try json.integer() }
            case key.equals("n"): try reader.once(&number, "n") { (json) throws(JSONError) in try json.integer() }
            default: try reader.skip()
            }
        }
        let revision = Revision(term: try known(term, "term"), number: try known(number, "n"))
        guard revision.term >= 0 else { throw .outOfRange("term") }
        guard revision.number >= 0 else { throw .outOfRange("n") }
        self = revision
    }
}

private func known<Value>(_ value: Value?, _ name: StaticString) throws(WireError) -> Value {
    guard let value else { throw .missingField("\(name)") }
    return value
}

/// A pull reader that says which member was wrong.
private struct MemberReader {
    private var json: JSONReader

    init(_ bytes: UnsafeRawBufferPointer) { json = JSONReader(bytes) }

    /// A member is there already.
    var twice: WireError { .json(.syntax(at: json.offset)) }

    mutating func value<Value>(_ name: StaticString, _ read: (inout JSONReader) throws(JSONError) -> Value) throws(WireError) -> Value {
        do throws(JSONError) { return try read(&json) } catch {
            switch error {
            case .wrongType, .overflow: throw .wrongType("\(name)")
            case .syntax, .nonFinite, .tooDeep: throw .json(error)
            }
        }
    }

    mutating func once<Value>(
        _ value: inout Value?, _ name: StaticString, _ read: (inout JSONReader) throws(JSONError) -> Value
    ) throws(WireError) {
        guard value == nil else { throw twice }
        value = try self.value(name, read)
    }

    mutating func beginObject(_ name: StaticString) throws(WireError) {
        try value(name) { (json) throws(JSONError) in try json.beginObject() }
    }

    mutating func beginArray(_ name: StaticString) throws(WireError) {
        try value(name) { (json) throws(JSONError) in try json.beginArray() }
    }

    mutating func nextKey() throws(WireError) -> UnsafeRawBufferPointer? {
        let key = try walk { (json) throws(JSONError) in try json.nextKey() }
        guard key?.contains(0x5c) != true else { throw .json(.syntax(at: json.offset)) }
        return key
    }

    mutating func nextElement() throws(WireError) -> Bool { try walk { (json) throws(JSONError) in try json.nextElement() } }
    mutating func skip() throws(WireError) { try walk { (json) throws(JSONError) in try json.skip() } }
    mutating func end() throws(WireError) { try walk { (json) throws(JSONError) in try json.end() } }

    private mutating func walk<Value>(_ step: (inout JSONReader) throws(JSONError) -> Value) throws(WireError) -> Value {
        do throws(JSONError) { return try step(&json) } catch { throw .json(error) }
    }
}
