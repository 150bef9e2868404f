import CalibModel

/// An experiment as the hub intends it and every edge computes it: absolute, so that both sides agree without talking (SPEC 7.1).
///
/// Its canonical JSON (`bytes`) is what `sha256` in records and logs is taken of.
package struct ExperimentSpec: Sendable, Equatable {
    /// Longest id, in UTF-8 bytes: a record carries it inline.
    package static let idBytesMax = 24

    /// Letters, digits, '-', '_' and '.', at most `idBytesMax`.
    package var id: String
    /// A `Design`, or one that this version does not know.
    package var design: String
    /// A `Mode`, or one that this version does not know.
    package var mode: String
    /// Milliseconds UTC.
    package var createdMilliseconds: Int64
    /// 32 lower-case hex digits: the 16-byte key of the assignment hash.
    package var salt: String
    /// Share of symbols (`symbol`) or of hosts (`host_symbol`) on B in 1e-6; of a switchback the half that every pair gives B.
    package var splitMicro: Int64
    /// Design `symbol`, sorted: the arms of every symbol the experiment enrols. A symbol in neither plays A outside the experiment.
    package var symbolsA: [String]
    package var symbolsB: [String]
    /// B's parameters as overrides of the edge's own, keys and values as in `config/edge.yaml`, sorted by key.
    package var candidate: [Override]
    /// Design `host_symbol`.
    package var hostSymbols: HostSymbols?
    /// Design `switchback`; its keys are the salt's.
    package var switchback: Switchback?
    /// Where each host's pre-period ends in its stored snapshots, frozen as the experiment starts (SPEC 7.3); a host that is not named has
    /// arm A's rows up to T0.
    package var prePeriod: [PreEnd]

    package enum Design: String, Sendable, CaseIterable {
        /// Every symbol keeps one arm.
        case symbol
        /// Every symbol on a host keeps one arm: for host-side metrics only.
        case hostSymbol = "host_symbol"
        case switchback
    }

    package enum Mode: String, Sendable, CaseIterable {
        case online
        /// Both arms on every tick, only A's quotes leave (SPEC 7.2).
        case dry
    }

    package struct Override: Sendable, Equatable {
        package var key: String
        package var value: String
        package init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    /// All of them, sorted: an arm is a function of these lists.
    package struct HostSymbols: Sendable, Equatable {
        package var hosts: [String]
        package var symbols: [String]
        package init(hosts: [String], symbols: [String]) {
            self.hosts = hosts.sorted()
            self.symbols = symbols.sorted()
        }
    }

    package struct PreEnd: Sendable, Equatable {
        package var host: String
        /// Days since 1970, and part, of the file; bytes into it.
        package var day: Int64
        package var part: Int64
        package var byte: Int64
        package init(host: String, day: Int64, part: Int64, byte: Int64) {
            self.host = host
            self.day = day
            self.part = part
            self.byte = byte
        }
    }

    package init(
        id: String, design: String = "symbol", mode: String = "online", createdMilliseconds: Int64, salt: String, splitMicro: Int64,
        symbolsA: [String] = [], symbolsB: [String] = [], candidate: [Override], hostSymbols: HostSymbols? = nil,
        switchback: Switchback? = nil, prePeriod: [PreEnd] = []
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
        self.hostSymbols = hostSymbols
        self.switchback = switchback
        self.prePeriod = prePeriod.sorted { $0.host < $1.host }
    }

    /// Letters, digits, '-', '_' and '.', 1 to `idBytesMax` of them.
    package static func isID(_ text: String) -> Bool {
        (1...idBytesMax).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 45 || $0 == 46 || $0 == 95
            }
    }

    // MARK: Arms

    /// What a symbol on a host plays at a time.
    package struct Place: Sendable, Equatable {
        package var arm: Arm
        /// `schedule` or `washout`; `join` before T0 and while a ramp has not reached the symbol.
        package var why: ArmReason
        /// Nil for designs without blocks.
        package var block: Int32?
        /// When it is another; nil: never.
        package var endMilliseconds: Int64?

        package init(arm: Arm, why: ArmReason, block: Int32?, endMilliseconds: Int64?) {
            self.arm = arm
            self.why = why
            self.block = block
            self.endMilliseconds = endMilliseconds
        }
    }

    /// Every symbol that takes part, sorted.
    package var symbols: [String] {
        (symbolsA + symbolsB + (hostSymbols?.symbols ?? []) + (switchback?.clusters.flatMap(\.symbols) ?? [])).sorted()
    }

    /// Nil for a symbol that takes no part on this host. A function of the spec and the time alone.
    package func place(of symbol: String, on host: String, at milliseconds: Int64) -> Place? {
        if let switchback {
            return switchback.clusters.first { $0.symbols.contains(symbol) }.map { Self.place(of: $0, in: switchback, at: milliseconds) }
        }
        return fixedArm(of: symbol, on: host).map { Place(arm: $0, why: .schedule, block: nil, endMilliseconds: nil) }
    }

    package static func place(of cluster: Switchback.Cluster, in design: Switchback, at milliseconds: Int64) -> Place {
        let place = design.place(of: cluster, at: milliseconds)
        let blockBegan = place.blockEndMilliseconds - design.blockMilliseconds
        let washoutEnd = blockBegan + design.washoutMilliseconds
        return Place(
            arm: place.arm, why: place.why, block: place.block,
            endMilliseconds: place.why == .washout ? washoutEnd : place.blockEndMilliseconds)
    }

    /// Of the designs in which an arm is for ever; nil for a symbol that takes no part on this host.
    package func fixedArm(of symbol: String, on host: String) -> Arm? {
        if symbolsA.contains(symbol) { return .a }
        if symbolsB.contains(symbol) { return .b }
        guard let hostSymbols, hostSymbols.hosts.contains(host), hostSymbols.symbols.contains(symbol) else { return nil }
        let (key0, key1) = Self.keys(salt)
        return HostSymbolSplit.arm(of: host, symbol: symbol, hosts: hostSymbols.hosts, splitMicro: splitMicro, key0: key0, key1: key1)
    }

    /// Whether any of these symbols takes part on a host of this name.
    package func enrols(_ symbols: [String], on host: String) -> Bool {
        if let switchback { return switchback.clusters.contains { $0.symbols.contains { symbols.contains($0) } } }
        return symbols.contains { fixedArm(of: $0, on: host) != nil }
    }

    /// Whether any of these symbols ever plays B on a host of this name: it needs a lease.
    package func playsB(_ symbols: [String], on host: String) -> Bool {
        if switchback != nil { return enrols(symbols, on: host) }
        return symbols.contains { fixedArm(of: $0, on: host) == .b }
    }

    /// The salt's halves, little-endian: hex text is written from the first byte on.
    package static func keys(_ salt: String) -> (key0: UInt64, key1: UInt64) {
        guard salt.utf8.count == 32, let first = UInt64(salt.prefix(16), radix: 16), let second = UInt64(salt.suffix(16), radix: 16) else {
            preconditionFailure("BUG: a salt is 32 hex digits, not '\(salt)'")
        }
        return (first.byteSwapped, second.byteSwapped)
    }

    /// The symbols that play B under the `symbol` design: those with the smallest keyed hash of `<symbol>|0`, `split` of them, rounded half
    /// up. SipHash-2-4 with the salt's 16 bytes as key (Aumasson, Bernstein 2012; SPEC 7.1).
    package static func split(_ symbols: [String], splitMicro: Int64, salt: String) -> (a: [String], b: [String]) {
        let (key0, key1) = keys(salt)
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
        if let hostSymbols {
            json.key("host_symbols")
            json.beginObject()
            json.field("hosts", strings: hostSymbols.hosts)
            json.field("symbols", strings: hostSymbols.symbols)
            json.endObject()
        }
        if let switchback {
            json.key("switchback")
            switchback.write(to: &json)
        }
        if !prePeriod.isEmpty {
            json.key("pre_period")
            json.beginArray()
            for end in prePeriod {
                json.beginObject()
                json.field("host", string: end.host)
                json.field("day", integer: end.day)
                json.field("part", integer: end.part)
                json.field("byte", integer: end.byte)
                json.endObject()
            }
            json.endArray()
        }
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
        if let value = fields.optional("host_symbols") {
            let fields = try Fields(value, of: "host_symbols")
            hostSymbols = HostSymbols(hosts: try fields.strings("hosts"), symbols: try fields.strings("symbols"))
        }
        if let value = fields.optional("switchback") { switchback = try Switchback(value, salt: salt) }
        if let value = fields.optional("pre_period") {
            guard let ends = value.array else { throw .wrongType("pre_period") }
            var read: [PreEnd] = []
            for end in ends {
                let fields = try Fields(end, of: "pre_period")
                read.append(
                    PreEnd(
                        host: try fields.string("host"), day: try fields.integer("day"), part: try fields.integer("part"),
                        byte: try fields.integer("byte", in: 0 ... .max)))
            }
            prePeriod = read.sorted { $0.host < $1.host }
        }
        // A design without its own fields, or with another's, has no arm to play.
        let known = Design(rawValue: design)
        guard known == nil || (known == .switchback) == (switchback != nil), known == nil || (known == .hostSymbol) == (hostSymbols != nil)
        else { throw .outOfRange("design") }
    }
}

extension Switchback {
    /// Longest block: a day. With it no sum of times overflows.
    static let blockMillisecondsMax: Int64 = 86_400_000

    fileprivate func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("start_ms", integer: startMilliseconds)
        json.field("block_ms", integer: blockMilliseconds)
        json.field("washout_ms", integer: washoutMilliseconds)
        json.field("jitter_ms", integer: jitterMilliseconds)
        json.key("clusters")
        json.beginArray()
        for cluster in clusters {
            json.beginObject()
            json.field("symbols", strings: cluster.symbols)
            json.field("group", integer: cluster.group)
            json.field("opposite", boolean: cluster.isOpposite)
            json.endObject()
        }
        json.endArray()
        json.key("ramp")
        json.beginArray()
        for step in ramp {
            json.beginObject()
            json.field("from_pair", integer: Int64(step.fromPair))
            json.field("share", fixed: step.shareMicro, places: 6)
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }

    fileprivate init(_ value: JSONValue, salt: String) throws(WireError) {
        let fields = try Fields(value, of: "switchback")
        guard let clusterValues = try fields.value("clusters").array, let rampValues = try fields.value("ramp").array else {
            throw .wrongType("switchback")
        }
        var clusters: [Cluster] = []
        for value in clusterValues {
            let fields = try Fields(value, of: "clusters")
            clusters.append(
                Cluster(
                    symbols: try fields.strings("symbols"), group: Int(try fields.integer("group", in: 0...Int64(Limits.symbolsMax))),
                    isOpposite: try fields.boolean("opposite")))
        }
        var ramp: [RampStep] = []
        for value in rampValues {
            let fields = try Fields(value, of: "ramp")
            let share = try fields.fixed("share", places: 6)
            guard (0...1_000_000).contains(share) else { throw .outOfRange("share") }
            ramp.append(
                RampStep(fromPair: Int32(try fields.integer("from_pair", in: 0...Int64(Limits.experimentPairsMax))), shareMicro: share))
        }
        let (key0, key1) = ExperimentSpec.keys(salt)
        let block = try fields.integer("block_ms", in: Self.stepMilliseconds...Self.blockMillisecondsMax)
        self.init(
            startMilliseconds: try fields.integer("start_ms", in: 0...4_102_444_800_000), blockMilliseconds: block,
            washoutMilliseconds: try fields.integer("washout_ms", in: 0...(block - 1)),
            jitterMilliseconds: try fields.integer("jitter_ms", in: 0...Self.blockMillisecondsMax), key0: key0, key1: key1,
            clusters: clusters, ramp: ramp)
        guard
            [startMilliseconds, blockMilliseconds, washoutMilliseconds, jitterMilliseconds].allSatisfy({
                $0.isMultiple(of: Self.stepMilliseconds)
            })
        else { throw .outOfRange("switchback") }
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
