import ArgumentParser
import CalibModel
import Wire

/// Form of what is printed where a table exists. `json` is the hub's answer as it came, `jsonl` one row's object a line.
enum ListForm: String, ExpressibleByArgument, CaseIterable {
    case table, json, jsonl, csv
    var errors: OutputForm { self == .json || self == .jsonl ? .json : .table }
}

/// Rows of JSON objects as a table or as CSV.
struct Listing {
    struct Column {
        enum Kind { case text, number, time, flag, names, count }
        var title: String
        /// The member of the row; also the CSV column's name.
        var key: String
        var kind = Kind.text
        init(_ title: String, _ key: String, _ kind: Kind = .text) {
            self.title = title
            self.key = key
            self.kind = kind
        }
    }

    var columns: [Column]
    var rows: [JSONValue]

    /// Two blanks between columns, numbers at the right, `-` for what is unknown.
    var table: String {
        let cells = [columns.map(\.title)] + rows.map { row in columns.map { Console.printable($0.cell(of: row) ?? "-") } }
        let widths = columns.indices.map { index in cells.map { $0[index].count }.max() ?? 0 }
        return cells.map { line in
            let padded = columns.indices.map { index in
                let space = String(repeating: " ", count: widths[index] - line[index].count)
                return columns[index].isRight ? space + line[index] : line[index] + space
            }
            let text = padded.joined(separator: "  ")
            return text.prefix(text.count - text.reversed().prefix { $0 == " " }.count) + "\n"
        }.joined()
    }

    /// RFC 4180: a header, values as they came, nothing for what is unknown.
    var csv: String {
        let lines = [columns.map(\.key)] + rows.map { row in columns.map { $0.raw(of: row) } }
        return lines.map { line in line.map(Self.quoted).joined(separator: ",") + "\r\n" }.joined()
    }

    private static func quoted(_ text: String) -> String {
        guard text.contains(where: { $0 == "," || $0 == "\"" || $0.isNewline }) else { return text }
        return "\"" + text.replacing("\"", with: "\"\"") + "\""
    }

    /// One row per host of each command: the host's members, then the command's own.
    static func perHost(_ commands: [JSONValue]) -> [JSONValue] {
        commands.flatMap { command -> [JSONValue] in
            let own = (command.members ?? []).filter { $0.name != "hosts" }
            let hosts = command["hosts"]?.array ?? []
            guard !hosts.isEmpty else { return [.object(own.filter { $0.name != "host" })] }
            return hosts.map { host in
                let members = host.members ?? []
                let names = Set(members.map(\.name))
                return .object(members + own.filter { !names.contains($0.name) })
            }
        }
    }
}

extension Listing.Column {
    var isRight: Bool { kind == .number || kind == .count }

    /// As a person reads it; nil when unknown.
    func cell(of row: JSONValue) -> String? {
        guard let value = row[key], !value.isNull else { return nil }
        switch (kind, value) {
        case (.time, _): return value.integer.flatMap { (0..<RowRange.timeMax).contains($0) ? TimeText.milliseconds($0) : nil }
        case (.count, .array(let values)): return "\(values.count)"
        case (.flag, .boolean(let flag)): return flag ? "yes" : "no"
        case (_, .array(let values)): return values.isEmpty ? nil : values.compactMap(\.string).joined(separator: ",")
        case (_, .string(let text)), (_, .number(let text)): return text
        case (_, .boolean(let flag)): return "\(flag)"
        default: return nil
        }
    }

    /// As it came; lists joined by blanks.
    func raw(of row: JSONValue) -> String {
        switch row[key] {
        case .string(let text)?, .number(let text)?: text
        case .boolean(let flag)?: "\(flag)"
        case .array(let values)?: kind == .count ? "\(values.count)" : values.compactMap(\.string).joined(separator: " ")
        case .object?, .null?, nil: ""
        }
    }

    private enum RowRange {
        /// 2100, the last instant a record may have.
        static let timeMax: Int64 = 4_102_444_800_000
    }
}

extension Console {
    /// Prints rows in the form asked for. `nothing` goes to standard error when a table would be empty.
    static func list(_ body: JSONValue, _ listing: Listing, _ form: ListForm, nothing: String) {
        switch form {
        case .table where listing.rows.isEmpty: note(nothing)
        case .table: data(Array(listing.table.utf8))
        case .csv: data(Array(listing.csv.utf8))
        case .json: object(body)
        case .jsonl: for row in listing.rows { object(row) }
        }
    }

    static func object(_ value: JSONValue) {
        var json = JSONWriter()
        value.write(to: &json)
        json.newline()
        data(json.take())
    }

    /// Runs what talks to a hub, and says in the form asked for why it could not be done.
    static func reporting<Value>(_ form: OutputForm, _ body: () throws(HubFailure) -> Value) throws -> Value {
        do throws(HubFailure) { return try body() } catch {
            throw failure(error.message, hint: error.hint, word: error.word, error.exit, form)
        }
    }

    /// Rewrites one line of a terminal with how far it is; does nothing where nobody watches.
    static func meter(_ verb: String) -> @Sendable (Int64, Int64, String) -> Void {
        guard isErrorTerminal else { return { _, _, _ in } }
        return { done, total, text in
            progress(total > 0 ? "\(verb): \(min(100, done * 100 / total)) % \(printable(text))" : "\(verb): \(done) \(printable(text))")
        }
    }

    static func meterDone() { if isErrorTerminal { progress("") } }
}
