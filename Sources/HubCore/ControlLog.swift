import CalibModel
import Wire

/// One record of the control log (SPEC 8.5): what the hub has decided or learnt, durable before it has any effect.
///
/// A record is one JSON object; its hash is SHA-256 over its bytes without `hash`, which include the hash of the record before. So every
/// record vouches for all before it.
package struct LogRecord: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable {
        /// A new term: a start, or an edge that knew a newer one.
        case term
        /// A host was seen for the first time, or with another epoch, venue or other symbols.
        case host
        /// One was made: a draft.
        case experiment
        /// It came to another state; with what it starts as, and the evidence of a decision.
        case experimentState = "experiment_state"
        /// A host did not finish a pair of it in time (SPEC 7.3).
        case silence
        case command
        /// A host a command is owed to besides those it was given for.
        case target
        /// What a host answered to a command.
        case result
        /// A feed file of a host goes on in another file (SPEC 8.2).
        case part
    }

    /// Rises by one from 1 on, over all terms.
    package let number: Int64
    package let term: Int64
    /// ms UTC.
    package let timestamp: Int64
    package let kind: Kind
    package let body: JSONValue
    /// 64 hex digits; that of record 1 is `LogChain.root`.
    package let previousHash: String
    package let hash: String

    package var revision: Revision { Revision(term: term, number: number) }

    /// As it is stored.
    package var bytes: [UInt8] {
        var json = JSONWriter()
        writeHashed(to: &json, isOpen: true)
        json.field("hash", string: hash)
        json.endObject()
        return json.take()
    }

    fileprivate static func hashed(_ record: LogRecord) -> [UInt8] {
        var json = JSONWriter()
        record.writeHashed(to: &json, isOpen: false)
        return json.take()
    }

    private func writeHashed(to json: inout JSONWriter, isOpen: Bool) {
        json.beginObject()
        json.field("n", integer: number)
        json.field("term", integer: term)
        json.field("ts", integer: timestamp)
        json.field("kind", string: kind.rawValue)
        json.key("body")
        body.write(to: &json)
        json.field("prev_hash", string: previousHash)
        if !isOpen { json.endObject() }
    }

    fileprivate init(
        number: Int64, term: Int64, timestamp: Int64, kind: Kind, body: JSONValue, previousHash: String, hash: String
    ) {
        self.number = number
        self.term = term
        self.timestamp = timestamp
        self.kind = kind
        self.body = body
        self.previousHash = previousHash
        self.hash = hash
    }
}

/// Why a stored log is not the one that was written. Nothing behind the record named can be trusted.
package struct LogDamage: Error, Sendable, Equatable, CustomStringConvertible {
    /// The number the damaged record should have.
    package var number: Int64
    package var reason: String
    package var description: String { "record \(number) of the control log: \(reason)" }
}

/// The chain's end: makes the next record, and checks stored ones.
package struct LogChain: Sendable {
    /// What record 1 follows.
    package static let root = String(repeating: "0", count: 64)

    /// SHA-256 as 64 lower-case hex digits.
    private let sha256: @Sendable ([UInt8]) -> String
    package private(set) var number: Int64 = 0
    package private(set) var term: Int64 = 0
    private var hash = root

    package init(sha256: @escaping @Sendable ([UInt8]) -> String) { self.sha256 = sha256 }

    /// The next record; `term` is that of a new term, nil goes on with the present one.
    package mutating func append(_ kind: LogRecord.Kind, _ body: JSONValue, at timestamp: Int64, term newTerm: Int64? = nil) -> LogRecord {
        let term = newTerm ?? term
        func record(_ hash: String) -> LogRecord {
            LogRecord(
                number: number + 1, term: term, timestamp: timestamp, kind: kind, body: body, previousHash: self.hash, hash: hash)
        }
        let made = record(sha256(LogRecord.hashed(record(""))))
        advance(made)
        return made
    }

    /// Checks the next stored record and goes on behind it.
    package mutating func verify(_ bytes: [UInt8]) throws(LogDamage) -> LogRecord {
        let number = number + 1
        let record: LogRecord
        do throws(WireError) { record = try Self.read(bytes) } catch {
            throw LogDamage(number: number, reason: "it cannot be read: \(error.sentence)")
        }
        guard record.number == number else { throw LogDamage(number: number, reason: "its place holds record \(record.number)") }
        guard record.bytes == bytes else { throw LogDamage(number: number, reason: "it is not as it was written") }
        guard record.previousHash == hash else { throw LogDamage(number: number, reason: "it does not follow the record before it") }
        guard sha256(LogRecord.hashed(record)) == record.hash else {
            throw LogDamage(number: number, reason: "its bytes do not match its hash")
        }
        guard record.term >= term else { throw LogDamage(number: number, reason: "its term \(record.term) is below \(term)") }
        advance(record)
        return record
    }

    private mutating func advance(_ record: LogRecord) {
        number = record.number
        term = record.term
        hash = record.hash
    }

    private static func read(_ bytes: [UInt8]) throws(WireError) -> LogRecord {
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(bytes) } catch { throw .json(error) }
        let fields = try Fields(value, of: "record")
        guard let kind = LogRecord.Kind(rawValue: try fields.string("kind")) else { throw .outOfRange("kind") }
        return LogRecord(
            number: try fields.integer("n"), term: try fields.integer("term"), timestamp: try fields.integer("ts"), kind: kind,
            body: try fields.value("body"), previousHash: try fields.string("prev_hash"), hash: try fields.string("hash"))
    }
}

extension JSONValue {
    /// What `write` writes, as a value.
    static func object(_ write: (inout JSONWriter) -> Void) -> JSONValue {
        var json = JSONWriter()
        json.beginObject()
        write(&json)
        json.endObject()
        do throws(JSONError) { return try parse(json.take()) } catch { preconditionFailure("BUG: the writer wrote no JSON: \(error)") }
    }
}
