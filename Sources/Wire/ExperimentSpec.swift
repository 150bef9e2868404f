import CalibModel

/// An experiment as the hub intends it and every edge computes it: absolute, so that both sides agree without talking (SPEC 7.1).
///
/// Its canonical JSON (`bytes`) is what `sha256` in records and logs is taken of.
package struct ExperimentSpec: Sendable, Equatable {
    /// Longest id, in UTF-8 bytes: a record carries it inline.
    package static let idBytesMax = 24

    /// Letters, digits, '-', '_' and '.', at most `idBytesMax`.
    package var id: String
    /// `symbol` is the only design so far.
    package var design: String
    /// `online`, later also `dry`.
    package var mode: String
    /// Milliseconds UTC.
    package var createdMilliseconds: Int64
    /// 32 lower-case hex digits: the 16-byte key of the assignment hash.
    package var salt: String
    /// Share of symbols on B in 1e-6.
    package var splitMicro: Int64
    /// Sorted; the arms of every symbol the experiment enrols. A symbol in neither plays A outside the experiment.
    package var symbolsA: [String]
    package var symbolsB: [String]
    /// B's parameters as overrides of the edge's own, keys and values as in `config/edge.yaml`, sorted by key.
    package var candidate: [Override]

    package struct Override: Sendable, Equatable {
        package var key: String
        package var value: String
        package init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    package init(
        id: String, design: String = "symbol", mode: String = "online", createdMilliseconds: Int64, salt: String, splitMicro: Int64,
        symbolsA: [String], symbolsB: [String], candidate: [Override]
    ) {
        self.id = id
        self.design = design
        self.mode = mode
        self.createdMilliseconds = createdMilliseconds
        self.salt = salt
        self.splitMicro = splitMicro
        self.symbolsA = symbolsA.sorted()
        self.symbolsB = symbolsB.sorted()
        self.candidate = candidate.sorted { $0.key < $1.key }
    }

    /// Letters, digits, '-', '_' and '.', 1 to `idBytesMax` of them.
    package static func isID(_ text: String) -> Bool {
        (1...idBytesMax).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 45 || $0 == 46 || $0 == 95
            }
    }

    /// The symbols that play B under the `symbol` design: those with the smallest keyed hash of `<symbol>|0`, `split` of them, rounded half
    /// up. SipHash-2-4 with the salt's 16 bytes as key (Aumasson, Bernstein 2012; SPEC 7.1).
    package static func split(_ symbols: [String], splitMicro: Int64, salt: String) -> (a: [String], b: [String]) {
        guard salt.utf8.count == 32, let first = UInt64(salt.prefix(16), radix: 16), let second = UInt64(salt.suffix(16), radix: 16) else {
            preconditionFailure("BUG: a salt is 32 hex digits, not '\(salt)'")
        }
        // The key's halves are little-endian; hex text is written from the first byte on.
        let (key0, key1) = (first.byteSwapped, second.byteSwapped)
        let ranked = Set(symbols).map { (hash: KeyedHash.hash("\($0)|0".utf8, key0: key0, key1: key1), symbol: $0) }
            .sorted { ($0.hash, $0.symbol) < ($1.hash, $1.symbol) }
        let count = Int((Int64(ranked.count) * splitMicro + 500_000) / 1_000_000)
        return (ranked.dropFirst(count).map(\.symbol).sorted(), ranked.prefix(count).map(\.symbol).sorted())
    }

    // MARK: JSON

    /// Canonical: the same spec always gives the same bytes.
    package var bytes: [UInt8] {
        var json = JSONWriter()
        write(to: &json)
        return json.bytes
    }

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("id", string: id)
        json.field("design", string: design)
        json.field("mode", string: mode)
        json.field("created_ms", integer: createdMilliseconds)
        json.field("salt", string: salt)
        json.field("split", fixed: splitMicro, places: 6)
        json.field("symbols_a", strings: symbolsA)
        json.field("symbols_b", strings: symbolsB)
        json.field("candidate", overrides: candidate)
        json.endObject()
    }

    package init(_ value: JSONValue) throws(WireError) {
        let fields = try Fields(value, of: "experiment")
        self.init(
            id: try fields.string("id"), design: try fields.string("design"), mode: try fields.string("mode"),
            createdMilliseconds: try fields.integer("created_ms"), salt: try fields.string("salt"),
            splitMicro: try fields.fixed("split", places: 6), symbolsA: try fields.strings("symbols_a"),
            symbolsB: try fields.strings("symbols_b"), candidate: try fields.overrides("candidate"))
        guard Self.isID(id) else { throw .outOfRange("id") }
        // Digits one by one: a number's parser would take a sign for the first.
        guard salt.utf8.count == 32, salt.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) }) else {
            throw .outOfRange("salt")
        }
        guard (0...1_000_000).contains(splitMicro) else { throw .outOfRange("split") }
    }
}

extension JSONWriter {
    package mutating func field(_ name: StaticString, overrides: [ExperimentSpec.Override]) {
        key(name)
        self.overrides(overrides)
    }

    /// An object with a member for each key.
    package mutating func overrides(_ overrides: [ExperimentSpec.Override]) {
        beginObject()
        for override in overrides {
            key(data: override.key)
            string(override.value)
        }
        endObject()
    }
}

extension Fields {
    /// In the order in which they stand.
    package func overrides(_ name: String) throws(WireError) -> [ExperimentSpec.Override] {
        guard let members = try value(name).members else { throw .wrongType(name) }
        var overrides: [ExperimentSpec.Override] = []
        for member in members {
            guard let text = member.value.string else { throw .wrongType("\(name).\(member.name)") }
            overrides.append(ExperimentSpec.Override(key: member.name, value: text))
        }
        return overrides
    }
}
