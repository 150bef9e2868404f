// Apache Parquet, as little of it as flat tables need: one level, plain values, one page per column and row group
// (https://parquet.apache.org/docs/file-format/, parquet.thrift of format 2.9, Thrift's compact protocol).
//
// File: "PAR1", pages, footer (FileMetaData), its length in 4 bytes, "PAR1". A page: header, then for optional columns the definition
// levels (length in 4 bytes, then runs or packed bits), then the known values.

struct ParquetWriter {
    enum Column {
        case text(String, isOptional: Bool, [String?])
        /// Milliseconds UTC.
        case time(String, [Int64])
        case integer(String, isOptional: Bool, [Int64?])
        case decimal(String, [Double?])
        case boolean(String, [Bool?])
    }

    private struct Schema: Equatable {
        var name: String
        var type: PhysicalType
        var isOptional: Bool
        var logical: Logical?
    }
    private enum Logical { case text, time }
    /// `Type` of parquet.thrift.
    private enum PhysicalType: Int32 {
        case boolean = 0
        case int64 = 2
        case double = 5
        case bytes = 6
    }
    private struct Chunk {
        var offset: Int
        var values: Int
        var stored: Int
        var raw: Int
        var isCompressed: Bool
    }

    private let compress: ([UInt8]) -> [UInt8]?
    private var file = Array("PAR1".utf8)
    private var schema: [Schema] = []
    private var groups: [(rows: Int, chunks: [Chunk])] = []

    init(compress: @escaping ([UInt8]) -> [UInt8]?) { self.compress = compress }

    /// Bytes that are ready, for a file larger than memory; they are forgotten here.
    private(set) var written = 0
    mutating func take() -> [UInt8] {
        defer {
            written += file.count
            file = []
        }
        return file
    }

    /// Every group has the same columns, each with `rows` values.
    mutating func rowGroup(_ columns: [Column], rows: Int) {
        let found = columns.map(Self.schema)
        precondition(schema.isEmpty || schema == found, "BUG: row groups of different columns")
        schema = found
        groups.append((rows, columns.map { chunk($0, rows: rows) }))
    }

    mutating func finish(createdBy: String) -> [UInt8] {
        let footer = metadata(createdBy: createdBy)
        file += footer
        file.append(little: UInt32(footer.count))
        file += Array("PAR1".utf8)
        return file
    }

    private static func schema(of column: Column) -> Schema {
        switch column {
        case .text(let name, let isOptional, _): Schema(name: name, type: .bytes, isOptional: isOptional, logical: .text)
        case .time(let name, _): Schema(name: name, type: .int64, isOptional: false, logical: .time)
        case .integer(let name, let isOptional, _): Schema(name: name, type: .int64, isOptional: isOptional, logical: nil)
        case .decimal(let name, _): Schema(name: name, type: .double, isOptional: true, logical: nil)
        case .boolean(let name, _): Schema(name: name, type: .boolean, isOptional: true, logical: nil)
        }
    }

    // MARK: Pages

    private mutating func chunk(_ column: Column, rows: Int) -> Chunk {
        var page: [UInt8] = []
        let count: Int
        switch column {
        case .text(_, let isOptional, let values):
            count = values.count
            if isOptional { page.levels(values.map { $0 != nil }) }
            for case let value? in values {
                page.append(little: UInt32(value.utf8.count))
                page += value.utf8
            }
        case .time(_, let values):
            count = values.count
            for value in values { page.append(little: UInt64(bitPattern: value)) }
        case .integer(_, let isOptional, let values):
            count = values.count
            if isOptional { page.levels(values.map { $0 != nil }) }
            for case let value? in values { page.append(little: UInt64(bitPattern: value)) }
        case .decimal(_, let values):
            count = values.count
            page.levels(values.map { $0 != nil })
            for case let value? in values { page.append(little: value.bitPattern) }
        case .boolean(_, let values):
            count = values.count
            page.levels(values.map { $0 != nil })
            page.bits(values.compactMap { $0 })
        }
        precondition(count == rows, "BUG: \(count) values in a group of \(rows) rows")
        let compressed = compress(page).flatMap { $0.count < page.count ? $0 : nil }
        let stored = compressed ?? page
        var header = ThriftWriter()
        header.field(1, int: 0)  // type: DATA_PAGE
        header.field(2, int: Int64(page.count))
        header.field(3, int: Int64(stored.count))
        header.beginStruct(5)
        header.field(1, int: Int64(count))
        header.field(2, int: 0)  // PLAIN
        header.field(3, int: 3)  // RLE
        header.field(4, int: 3)
        header.endStruct()
        header.stop()
        let offset = written + file.count
        file += header.bytes
        file += stored
        return Chunk(
            offset: offset, values: count, stored: header.bytes.count + stored.count, raw: header.bytes.count + page.count,
            isCompressed: compressed != nil)
    }

    // MARK: Footer

    private func metadata(createdBy: String) -> [UInt8] {
        var meta = ThriftWriter()
        meta.field(1, int: 2)
        meta.beginList(2, count: schema.count + 1, of: .structure)
        meta.beginElement()
        meta.field(4, text: "schema")
        meta.field(5, int: Int64(schema.count))
        meta.endStruct()
        for column in schema {
            meta.beginElement()
            meta.field(1, int: Int64(column.type.rawValue))
            meta.field(3, int: column.isOptional ? 1 : 0)
            meta.field(4, text: column.name)
            switch column.logical {
            case .text:
                meta.field(6, int: 0)  // converted type UTF8
                meta.beginStruct(10)
                meta.beginStruct(1)
                meta.endStruct()
                meta.endStruct()
            case .time:
                meta.field(6, int: 9)  // TIMESTAMP_MILLIS
                meta.beginStruct(10)
                meta.beginStruct(8)
                meta.field(1, flag: true)  // adjusted to UTC
                meta.beginStruct(2)
                meta.beginStruct(1)  // milliseconds
                meta.endStruct()
                meta.endStruct()
                meta.endStruct()
                meta.endStruct()
            case nil: break
            }
            meta.endStruct()
        }
        meta.field(3, int64: Int64(groups.reduce(0) { $0 + $1.rows }))
        meta.beginList(4, count: groups.count, of: .structure)
        for group in groups {
            meta.beginElement()
            meta.beginList(1, count: group.chunks.count, of: .structure)
            for (column, chunk) in zip(schema, group.chunks) {
                meta.beginElement()
                meta.field(2, int64: Int64(chunk.offset))
                meta.beginStruct(3)
                meta.field(1, int: Int64(column.type.rawValue))
                meta.beginList(2, count: 2, of: .int)
                meta.element(int: 0)
                meta.element(int: 3)
                meta.beginList(3, count: 1, of: .text)
                meta.element(text: column.name)
                meta.field(4, int: chunk.isCompressed ? 2 : 0)  // GZIP
                meta.field(5, int64: Int64(chunk.values))
                meta.field(6, int64: Int64(chunk.raw))
                meta.field(7, int64: Int64(chunk.stored))
                meta.field(9, int64: Int64(chunk.offset))
                meta.endStruct()
                meta.endStruct()
            }
            meta.field(2, int64: Int64(group.chunks.reduce(0) { $0 + $1.raw }))
            meta.field(3, int64: Int64(group.rows))
            meta.endStruct()
        }
        meta.field(6, text: createdBy)
        meta.stop()
        return meta.bytes
    }
}

extension [UInt8] {
    fileprivate mutating func append(little value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
    }

    /// Definition levels of one bit: runs of equal levels, each `count << 1` and the level.
    fileprivate mutating func levels(_ known: [Bool]) {
        var runs: [UInt8] = []
        var start = 0
        while start < known.count {
            var end = start + 1
            while end < known.count, known[end] == known[start] { end += 1 }
            runs.append(variable: UInt64(end - start) << 1)
            runs.append(known[start] ? 1 : 0)
            start = end
        }
        append(little: UInt32(runs.count))
        append(contentsOf: runs)
    }

    fileprivate mutating func bits(_ values: [Bool]) {
        for start in stride(from: 0, to: values.count, by: 8) {
            append((start..<Swift.min(values.count, start + 8)).reduce(UInt8(0)) { $0 | (values[$1] ? 1 << UInt8($1 - start) : 0) })
        }
    }

    fileprivate mutating func append(variable value: UInt64) {
        var rest = value
        while rest > 0x7f {
            append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        append(UInt8(rest))
    }
}

/// Thrift's compact protocol: a field is its id as a step from the last one's, and its type.
private struct ThriftWriter {
    enum Kind: UInt8 {
        case int = 5
        case int64 = 6
        case text = 8
        case list = 9
        case structure = 12
    }
    private(set) var bytes: [UInt8] = []
    private var last: Int16 = 0
    private var outer: [Int16] = []

    mutating func field(_ id: Int16, int value: Int64) {
        header(id, Kind.int.rawValue)
        integer(value)
    }
    mutating func field(_ id: Int16, int64 value: Int64) {
        header(id, Kind.int64.rawValue)
        integer(value)
    }
    mutating func field(_ id: Int16, text: String) {
        header(id, Kind.text.rawValue)
        element(text: text)
    }
    mutating func field(_ id: Int16, flag: Bool) { header(id, flag ? 1 : 2) }

    mutating func beginStruct(_ id: Int16) {
        header(id, Kind.structure.rawValue)
        beginElement()
    }
    /// Of a list.
    mutating func beginElement() {
        outer.append(last)
        last = 0
    }
    mutating func endStruct() {
        stop()
        last = outer.removeLast()
    }
    mutating func stop() { bytes.append(0) }

    mutating func beginList(_ id: Int16, count: Int, of kind: Kind) {
        header(id, Kind.list.rawValue)
        if count < 15 {
            bytes.append(UInt8(count) << 4 | kind.rawValue)
        } else {
            bytes.append(0xf0 | kind.rawValue)
            bytes.append(variable: UInt64(count))
        }
    }
    mutating func element(int value: Int64) { integer(value) }
    mutating func element(text: String) {
        bytes.append(variable: UInt64(text.utf8.count))
        bytes += text.utf8
    }

    private mutating func header(_ id: Int16, _ kind: UInt8) {
        precondition(id > last && id - last < 16, "BUG: field \(id) after \(last)")
        bytes.append(UInt8(id - last) << 4 | kind)
        last = id
    }
    /// Zigzag.
    private mutating func integer(_ value: Int64) { bytes.append(variable: UInt64(bitPattern: value << 1 ^ value >> 63)) }
}
