import Wire

/// Records that a command made itself, and what it prints of each: a table, CSV, or JSON with all of them under one name.
struct RecordList<Record> {
    struct Column {
        /// The member of a record's object.
        var key: String
        /// Nil: the key in capitals.
        var title: String?
        /// False for what would make every line of a table too long.
        var isInTables = true
        var kind = Listing.Column.Kind.text
        var value: (Record) -> JSONValue

        /// Nil is unknown.
        static func text(_ key: String, isInTables: Bool = true, _ value: @escaping (Record) -> String?) -> Column {
            Column(key: key, isInTables: isInTables) { value($0).map(JSONValue.string) ?? .null }
        }
        static func number(_ key: String, _ value: @escaping (Record) -> Int64) -> Column {
            Column(key: key, kind: .number) { .number("\(value($0))") }
        }
        /// Nil is unknown.
        static func double(_ key: String, title: String? = nil, isInTables: Bool = true, _ value: @escaping (Record) -> Double?) -> Column {
            Column(key: key, title: title, isInTables: isInTables, kind: .number) { record in
                value(record).flatMap { $0.isFinite ? .number("\($0)") : nil } ?? .null
            }
        }
        /// Nil is unknown.
        static func whole(_ key: String, title: String? = nil, isInTables: Bool = true, _ value: @escaping (Record) -> Int64?) -> Column {
            Column(key: key, title: title, isInTables: isInTables, kind: .number) { value($0).map { .number("\($0)") } ?? .null }
        }
        static func flag(_ key: String, _ value: @escaping (Record) -> Bool) -> Column { Column(key: key) { .boolean(value($0)) } }
    }

    var name: String
    var columns: [Column]
    /// What the JSON says before the records.
    var header: [JSONValue.Member] = []
    /// Said where a table would be empty.
    var nothing: String

    func print(_ records: [Record], _ form: ListForm) {
        let rows = records.map { record in
            JSONValue.object(columns.map { JSONValue.Member(name: $0.key, value: $0.value(record)) })
        }
        let shown = columns.filter(\.isInTables).map { Listing.Column($0.title ?? $0.key.uppercased(), $0.key, $0.kind) }
        Console.list(
            .object(header + [JSONValue.Member(name: name, value: .array(rows))]), Listing(columns: shown, rows: rows), form,
            nothing: nothing)
    }
}
