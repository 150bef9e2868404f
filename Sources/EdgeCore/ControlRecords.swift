import CalibModel
import Wire

/// One row of `kills.jsonl` (SPEC 10.1): the state is the fold of all rows.
package struct KillRecord: Sendable, Equatable {
    package enum Action: String, Sendable { case kill, release }

    /// When it was done, ms UTC.
    package var milliseconds: Int64
    package var action: Action
    /// Nil is the whole host.
    package var symbol: String?
    package var by: String
    package var reason: String
    /// The hub's command that asked for it; nil for a local one.
    package var command: String?
    package var cancelledOrders: Int64
    package var revision: Revision

    package init(
        milliseconds: Int64, action: Action, symbol: String?, by: String, reason: String, command: String? = nil,
        cancelledOrders: Int64 = 0,
        revision: Revision = .zero
    ) {
        self.milliseconds = milliseconds
        self.action = action
        self.symbol = symbol
        self.by = by
        self.reason = reason
        self.command = command
        self.cancelledOrders = cancelledOrders
        self.revision = revision
    }

    /// With its newline.
    package var line: [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("ts", integer: milliseconds)
        json.field("action", string: action.rawValue)
        json.field("scope", string: symbol == nil ? "all" : "symbol" as StaticString)
        json.field("symbol", string: symbol)
        json.field("by", string: by)
        json.field("reason", string: reason)
        json.field("command", string: command)
        json.field("cancelled_orders", integer: cancelledOrders)
        json.revision(revision)
        json.endObject()
        json.newline()
        return json.bytes
    }

    package init(_ value: JSONValue) throws(WireError) {
        let fields = try Fields(value, of: "row")
        guard let action = Action(rawValue: try fields.string("action")) else { throw .outOfRange("action") }
        let symbol = try fields.optionalString("symbol")
        guard try fields.string("scope") == (symbol == nil ? "all" : "symbol") else { throw .outOfRange("scope") }
        self.init(
            milliseconds: try fields.integer("ts"), action: action, symbol: symbol, by: try fields.string("by"),
            reason: try fields.string("reason"), command: try fields.optionalString("command"),
            cancelledOrders: try fields.optionalInteger("cancelled_orders") ?? 0, revision: try fields.revision())
    }
}

/// One row of `latches.jsonl` (SPEC 7.6): an experiment this edge never plays again.
package struct LatchRecord: Sendable, Equatable {
    /// When A was played again, ms UTC.
    package var milliseconds: Int64
    package var experiment: String
    package var command: String
    package var by: String
    package var reason: String
    package var cancelledOrders: Int64
    package var revision: Revision
    /// This edge's own breaker did it; nil: the command.
    package var breaker: BreakerKind?

    package init(
        milliseconds: Int64, experiment: String, command: String, by: String, reason: String, cancelledOrders: Int64, revision: Revision,
        breaker: BreakerKind? = nil
    ) {
        self.milliseconds = milliseconds
        self.experiment = experiment
        self.command = command
        self.by = by
        self.reason = reason
        self.cancelledOrders = cancelledOrders
        self.revision = revision
        self.breaker = breaker
    }

    /// With its newline.
    package var line: [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("ts", integer: milliseconds)
        json.field("experiment", string: experiment)
        json.field("command", string: command)
        json.field("by", string: by)
        json.field("reason", string: reason)
        json.field("cancelled_orders", integer: cancelledOrders)
        json.revision(revision)
        if let breaker { json.field("breaker", string: breaker.text) }
        json.endObject()
        json.newline()
        return json.bytes
    }

    package init(_ value: JSONValue) throws(WireError) {
        let fields = try Fields(value, of: "row")
        var breaker: BreakerKind?
        if let name = try fields.optionalString("breaker") {
            breaker = BreakerKind.allCases.first { "\($0.text)" == name }
            guard breaker != nil else { throw .outOfRange("breaker") }
        }
        self.init(
            milliseconds: try fields.integer("ts"), experiment: try fields.string("experiment"), command: try fields.string("command"),
            by: try fields.string("by"), reason: try fields.string("reason"), cancelledOrders: try fields.integer("cancelled_orders"),
            revision: try fields.revision(), breaker: breaker)
    }
}

/// The rows of an append-only control file.
package struct ControlRows<Row> {
    /// In the order of the file, lines counted from 1; a row is nil when its line cannot be read. Whoever folds the rows decides what that
    /// means; both of ours fail closed.
    package private(set) var lines: [(number: Int, row: Row?)] = []

    /// `countsTornEnd`: a last line without its newline is a line that cannot be read. Otherwise it is none: its writer had not finished.
    package init(_ bytes: [UInt8], countsTornEnd: Bool, _ read: (JSONValue) throws(WireError) -> Row) {
        let end = bytes.lastIndex(of: 0x0a) ?? bytes.startIndex
        defer {
            if countsTornEnd, bytes.last ?? 0x0a != 0x0a { lines.append((bytes.count { $0 == 0x0a } + 1, nil)) }
        }
        for (index, line) in bytes[..<end].split(separator: 0x0a, omittingEmptySubsequences: false).enumerated() where !line.isEmpty {
            let value = try? JSONValue.parse(Array(line))
            lines.append((index + 1, value.flatMap { try? read($0) }))
        }
    }

    package var damagedLines: [Int] { lines.filter { $0.row == nil }.map(\.number) }
}

extension JSONWriter {
    mutating func revision(_ revision: Revision) {
        field("term", integer: revision.term)
        field("n", integer: revision.number)
    }
}

extension Fields {
    /// Zero when absent: a person may write such a row by hand.
    func revision() throws(WireError) -> Revision {
        Revision(term: try optionalInteger("term", in: 0 ... .max) ?? 0, number: try optionalInteger("n", in: 0 ... .max) ?? 0)
    }
}
