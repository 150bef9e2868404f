import CalibModel
import Wire

/// A piece of an edge's feed file that the hub keeps in a file of its own, because the edge's bytes from `base` on are not those the hub had received
/// before (SPEC 8.2): the edge was restored, cut or set up anew. The mapping lies in the control log.
package struct FeedPart: Sendable, Equatable {
    /// The edge's file: `<feed>_YYYYMMDD.jsonl`.
    package var file: String
    /// From 1 on; the file that came first has 0 and no such record.
    package var number: Int
    /// Of the edge's feeds directory.
    package var epoch: String
    /// The first byte of the edge's file that lies in the part.
    package var base: Int64
    /// CRC32C of the edge's bytes before `base`, 8 hex digits; nil when there are none.
    package var prefixCRC32C: String?

    package init(file: String, number: Int, epoch: String, base: Int64, prefixCRC32C: String?) {
        self.file = file
        self.number = number
        self.epoch = epoch
        self.base = base
        self.prefixCRC32C = prefixCRC32C
    }

    /// The hub's file for part `number` of an edge's file.
    package static func name(_ file: String, _ number: Int) -> String { number == 0 ? file : "\(file.dropLast(6)).\(number).jsonl" }

    /// What the name of a hub's file says; nil for any other name, above all for one with a path in it.
    package static func parse(_ name: String) -> (feed: Feed, day: CalendarDay, file: String, number: Int)? {
        if let (feed, day) = Ingest.parse(fileName: name) { return (feed, day, name, 0) }
        guard name.hasSuffix(".jsonl"), let dot = name.dropLast(6).lastIndex(of: "."),
            let number = Int(name[name.index(after: dot)...].dropLast(6)),
            (1...Limits.filePartsMax).contains(number)
        else { return nil }
        let file = name[..<dot] + ".jsonl"
        guard let (feed, day) = Ingest.parse(fileName: String(file)), Self.name(String(file), number) == name else { return nil }
        return (feed, day, String(file), number)
    }

    // MARK: In the control log

    func write(to json: inout JSONWriter) {
        json.field("file", string: file)
        json.field("part", integer: Int64(number))
        json.field("epoch", string: epoch)
        json.field("base", integer: base)
        json.field("prefix_crc32c", string: prefixCRC32C)
    }

    init(_ fields: Fields) throws(WireError) {
        self.init(
            file: try fields.string("file"), number: Int(try fields.integer("part", in: 1...Int64(Limits.filePartsMax))),
            epoch: try fields.string("epoch"), base: try fields.integer("base", in: 0 ... .max),
            prefixCRC32C: try fields.optionalString("prefix_crc32c"))
    }
}
