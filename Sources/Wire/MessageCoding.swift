import CalibModel

/// Typed access to an object's members; each miss names its field.
package struct Fields {
    private let value: JSONValue

    /// `name`: what the object is, for the error when it is none.
    package init(_ value: JSONValue, of name: String) throws(WireError) {
        guard value.members != nil else { throw .wrongType(name) }
        self.value = value
    }

    package func value(_ name: String) throws(WireError) -> JSONValue {
        guard let found = value[name] else { throw .missingField(name) }
        return found
    }

    /// Nil when the member is absent or null.
    package func optional(_ name: String) -> JSONValue? {
        guard let found = value[name], !found.isNull else { return nil }
        return found
    }

    package func string(_ name: String) throws(WireError) -> String {
        guard let text = try value(name).string else { throw .wrongType(name) }
        return text
    }

    package func optionalString(_ name: String) throws(WireError) -> String? {
        guard let found = optional(name) else { return nil }
        guard let text = found.string else { throw .wrongType(name) }
        return text
    }

    package func strings(_ name: String) throws(WireError) -> [String] {
        guard let values = try value(name).array else { throw .wrongType(name) }
        var result: [String] = []
        for value in values {
            guard let text = value.string else { throw .wrongType(name) }
            result.append(text)
        }
        return result
    }

    package func boolean(_ name: String) throws(WireError) -> Bool {
        guard let flag = try value(name).boolean else { throw .wrongType(name) }
        return flag
    }

    package func integer(_ name: String, in range: ClosedRange<Int64> = .min ... .max) throws(WireError) -> Int64 {
        guard let number = try value(name).integer else { throw .wrongType(name) }
        guard range.contains(number) else { throw .outOfRange(name) }
        return number
    }

    /// The largest place in a file that a peer may name: every JSON reader holds it exactly, and sums of a few do not overflow.
    fileprivate static let bytesMax: Int64 = 1 << 53

    fileprivate func bytes(_ name: String) throws(WireError) -> Int64 { try integer(name, in: 0...Self.bytesMax) }

    package func optionalInteger(_ name: String, in range: ClosedRange<Int64> = .min ... .max) throws(WireError) -> Int64? {
        optional(name) == nil ? nil : try integer(name, in: range)
    }

    package func fixed(_ name: String, places: Int) throws(WireError) -> Int64 {
        guard let number = try value(name).fixed(places: places) else { throw .wrongType(name) }
        return number
    }

    package func optionalFixed(_ name: String, places: Int) throws(WireError) -> Int64? {
        guard let found = optional(name) else { return nil }
        guard let number = found.fixed(places: places) else { throw .wrongType(name) }
        return number
    }
}

extension JSONWriter {
    /// Null when nil.
    package mutating func field(_ name: StaticString, string value: String?) {
        key(name)
        if let value { string(value) } else { null() }
    }

    package mutating func field(_ name: StaticString, integer value: Int64?) {
        key(name)
        if let value { integer(value) } else { null() }
    }

    package mutating func field(_ name: StaticString, strings values: [String]) {
        key(name)
        beginArray()
        for value in values { string(value) }
        endArray()
    }
}

extension Revision {
    func write(_ name: StaticString, to json: inout JSONWriter) {
        json.key(name)
        json.beginObject()
        json.field("term", integer: term)
        json.field("n", integer: number)
        json.endObject()
    }

    init(_ value: JSONValue) throws(WireError) {
        let fields = try Fields(value, of: "revision")
        self.init(term: try fields.integer("term", in: 0 ... .max), number: try fields.integer("n", in: 0 ... .max))
    }
}

// MARK: - Writing

extension Message {
    /// The message's line, its newline included; a payload is the sender's business.
    package var line: [UInt8] {
        var json = JSONWriter(reserving: 256)
        write(to: &json)
        json.newline()
        return json.take()
    }

    package var type: StaticString {
        switch self {
        case .ping: "ping"
        case .pong: "pong"
        case .error: "error"
        case .hello: "hello"
        case .welcome: "welcome"
        case .resume: "resume"
        case .append: "append"
        case .ack: "ack"
        case .sealed: "sealed"
        case .gone: "gone"
        case .status: "status"
        case .lease: "lease"
        case .assignment: "assignment"
        case .command: "command"
        case .commandResult: "command_result"
        case .breaker: "breaker"
        case .request: "request"
        case .reply: "reply"
        case .progress: "progress"
        case .chunk: "chunk"
        }
    }

    private func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("type", string: type)
        switch self {
        case .ping(let number), .pong(let number): json.field("n", integer: number)
        case .error(let code, let text):
            json.field("code", string: code)
            json.field("text", string: text)
        case .hello(let hello): hello.write(to: &json)
        case .welcome(let welcome): welcome.write(to: &json)
        case .resume(let resume):
            json.field("file", string: resume.file)
            json.field("length", integer: resume.length)
            json.field("from", integer: resume.from)
            json.field("differs_at", integer: resume.differsAt)
            json.field("base", integer: resume.base)
            json.field("prefix_crc32c", string: resume.prefixCRC32C)
            json.field("blocks", strings: resume.blocks)
            json.field("stalled", boolean: resume.isStalled)
            if let part = resume.part { json.field("part", integer: part) }
        case .append(let append):
            json.field("file", string: append.file)
            json.field("offset", integer: append.offset)
            json.field("bytes", integer: append.bytes)
        case .ack(let ack):
            json.field("file", string: ack.file)
            json.field("length", integer: ack.length)
        case .sealed(let sealed):
            json.field("file", string: sealed.file)
            json.field("bytes", integer: sealed.bytes)
            json.field("rows", integer: sealed.rows)
            json.field("sha256", string: sealed.sha256)
        case .gone(let gone):
            json.field("file", string: gone.file)
            json.field("bytes", integer: gone.bytes)
        case .status(let status): status.write(to: &json)
        case .lease(let lease):
            json.field("experiment", string: lease.experiment)
            json.field("number", integer: lease.number)
            json.field("duration_ms", integer: lease.durationMilliseconds)
            json.field("wall_ms", integer: lease.wallMilliseconds)
        case .assignment(let assignment):
            assignment.revision.write("revision", to: &json)
            json.key("experiment")
            if let experiment = assignment.experiment { experiment.write(to: &json) } else { json.null() }
            json.field("paused", boolean: assignment.isPaused)
        case .command(let command):
            json.field("id", string: command.id)
            command.revision.write("revision", to: &json)
            json.field("kind", string: command.kind.rawValue)
            json.field("experiment", string: command.experiment)
            json.field("symbol", string: command.symbol)
            if !command.set.isEmpty { json.field("set", overrides: command.set) }
            json.field("reason", string: command.reason)
            json.field("by", string: command.by)
            json.field("issued_ms", integer: command.issuedMilliseconds)
        case .commandResult(let result):
            json.field("id", string: result.id)
            json.field("state", string: result.state.rawValue)
            json.field("at_ms", integer: result.atMilliseconds)
            json.field("cancelled_orders", integer: result.cancelledOrders)
            json.field("text", string: result.text)
        case .breaker(let breaker):
            json.field("experiment", string: breaker.experiment)
            breaker.writeTrip(to: &json)
        case .request(let request):
            json.field("id", integer: request.id)
            json.field("verb", string: request.verb)
            json.key("arguments")
            json.beginObject()
            for (name, value) in request.arguments.sorted(by: { $0.key < $1.key }) {
                json.key(data: name)
                json.string(value)
            }
            json.endObject()
        case .reply(let reply):
            json.field("id", integer: reply.id)
            switch reply.outcome {
            case .ok(let body):
                json.field("ok", boolean: true)
                json.key("body")
                body.write(to: &json)
            case .failed(let code, let text, let exit):
                json.field("ok", boolean: false)
                json.field("code", string: code)
                json.field("text", string: text)
                json.field("exit", integer: exit)
            }
        case .progress(let progress):
            json.field("id", integer: progress.id)
            json.field("done", integer: progress.done)
            json.field("total", integer: progress.total)
            json.field("text", string: progress.text)
        case .chunk(let chunk):
            json.field("id", integer: chunk.id)
            json.field("offset", integer: chunk.offset)
            json.field("bytes", integer: chunk.bytes)
        }
        json.endObject()
    }
}

extension Message.Hello {
    fileprivate func write(to json: inout JSONWriter) {
        json.key("protocol")
        json.beginObject()
        json.field("min", integer: protocolMin)
        json.field("max", integer: protocolMax)
        json.endObject()
        json.field("version", string: version)
        guard let edge else { return }
        json.field("host", string: edge.host)
        json.field("epoch", string: edge.epoch)
        json.field("source", string: edge.source)
        json.field("venue", string: edge.venue)
        json.field("wall_ms", integer: edge.wallMilliseconds)
        json.field("symbols", strings: edge.symbols)
        edge.revision.write("revision", to: &json)
        json.field("latches", strings: edge.latches)
        json.field("config_hash", string: edge.configHash)
    }

    fileprivate init(_ fields: Fields) throws(WireError) {
        let range = try Fields(fields.value("protocol"), of: "protocol")
        var edge: Edge?
        if fields.optional("host") != nil {
            edge = Edge(
                host: try fields.string("host"), epoch: try fields.string("epoch"), source: try fields.string("source"),
                venue: try fields.string("venue"), wallMilliseconds: try fields.integer("wall_ms"), symbols: try fields.strings("symbols"),
                revision: try Revision(fields.value("revision")), latches: try fields.strings("latches"),
                configHash: try fields.string("config_hash"))
        }
        self.init(
            protocolMin: try range.integer("min"), protocolMax: try range.integer("max"), version: try fields.string("version"), edge: edge)
    }
}

extension Message.Welcome {
    fileprivate func write(to json: inout JSONWriter) {
        json.field("protocol", integer: version)
        json.field("software", string: software)
        json.field("identity", string: identity)
        revision.write("revision", to: &json)
        json.field("wall_ms", integer: wallMilliseconds)
        json.key("highest_seq")
        json.beginObject()
        for entry in highestSeq {
            json.key(data: entry.feed)
            json.integer(entry.seq)
        }
        json.endObject()
    }

    fileprivate init(_ fields: Fields) throws(WireError) {
        guard let members = try fields.value("highest_seq").members else { throw .wrongType("highest_seq") }
        var highest: [FeedSeq] = []
        for member in members {
            guard let seq = member.value.integer else { throw .wrongType("highest_seq.\(member.name)") }
            highest.append(FeedSeq(feed: member.name, seq: seq))
        }
        self.init(
            version: try fields.integer("protocol"), software: try fields.string("software"), identity: try fields.string("identity"),
            revision: try Revision(fields.value("revision")), wallMilliseconds: try fields.integer("wall_ms"), highestSeq: highest)
    }
}

extension Message.Status {
    fileprivate func write(to json: inout JSONWriter) {
        json.field("wall_ms", integer: wallMilliseconds)
        revision.write("revision", to: &json)
        json.field("backlog_bytes", integer: backlogBytes)
        json.field("killed", boolean: isKilled)
        json.key("symbols")
        json.beginArray()
        for symbol in symbols { symbol.write(to: &json) }
        json.endArray()
    }
}

extension Message.Status.Symbol {
    fileprivate func write(to json: inout JSONWriter) {
        json.beginObject()
        json.field("symbol", string: symbol)
        json.field("arm", string: arm)
        json.field("arm_why", string: armWhy)
        json.field("experiment", string: experiment)
        json.field("proven", boolean: isProven)
        json.field("killed", boolean: isKilled)
        json.field("bid", fixed: bid, places: Places.price)
        json.field("ask", fixed: ask, places: Places.price)
        json.field("position", fixed: position, places: Places.quantity)
        json.field("open_orders", integer: openOrders)
        json.field("ticks", integer: ticks)
        json.field("quotes", integer: quotes)
        json.field("fills", integer: fills)
        json.key("features")
        json.beginObject()
        for feature in Feature.allCases { json.field(feature.name, fixed: features[feature.rawValue], places: feature.places) }
        json.endObject()
        json.endObject()
    }
}

// MARK: - Reading

extension Message {
    /// Reads one line without its newline. Any bytes give a message or an error.
    package init(line: UnsafeRawBufferPointer) throws(WireError) {
        if let status = try Status(ifUsual: line) {
            self = .status(status)
            return
        }
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(line) } catch { throw .json(error) }
        let fields = try Fields(value, of: "message")
        let type = try fields.string("type")
        switch type {
        case "ping": self = .ping(number: try fields.integer("n"))
        case "pong": self = .pong(number: try fields.integer("n"))
        case "error": self = .error(code: try fields.string("code"), text: try fields.string("text"))
        case "hello": self = .hello(try Hello(fields))
        case "welcome": self = .welcome(try Welcome(fields))
        case "resume":
            self = .resume(
                Resume(
                    file: try fields.string("file"), length: try fields.bytes("length"),
                    from: try fields.bytes("from"), differsAt: try fields.optionalInteger("differs_at", in: 0...Fields.bytesMax),
                    base: try fields.bytes("base"), prefixCRC32C: try fields.optionalString("prefix_crc32c"),
                    blocks: try fields.strings("blocks"), isStalled: try fields.boolean("stalled"),
                    part: try fields.optionalInteger("part", in: 0 ... .max)))
        case "append":
            self = .append(
                Append(
                    file: try fields.string("file"), offset: try fields.bytes("offset"),
                    bytes: Int(try fields.integer("bytes", in: 1...Int64(Limits.appendBytesMax)))))
        case "ack": self = .ack(Ack(file: try fields.string("file"), length: try fields.bytes("length")))
        case "sealed":
            self = .sealed(
                Sealed(
                    file: try fields.string("file"), bytes: try fields.bytes("bytes"),
                    rows: try fields.bytes("rows"), sha256: try fields.string("sha256")))
        case "gone": self = .gone(Gone(file: try fields.string("file"), bytes: try fields.bytes("bytes")))
        case "status": self = .status(try Status(line: line))
        case "lease":
            self = .lease(
                Lease(
                    experiment: try fields.string("experiment"), number: try fields.integer("number", in: 0 ... .max),
                    durationMilliseconds: try fields.optionalInteger("duration_ms", in: 0...86_400_000),
                    // A hub of the version before sends none.
                    wallMilliseconds: try fields.optionalInteger("wall_ms", in: 0...4_102_444_800_000)))
        case "assignment":
            var experiment: ExperimentSpec?
            if let value = fields.optional("experiment") { experiment = try ExperimentSpec(value) }
            let isPaused = fields.optional("paused") == nil ? false : try fields.boolean("paused")
            self = .assignment(
                Assignment(revision: try Revision(fields.value("revision")), experiment: experiment, isPaused: isPaused))
        case "command":
            guard let kind = CommandKind(rawValue: try fields.string("kind")) else { throw .outOfRange("kind") }
            self = .command(
                Command(
                    id: try fields.string("id"), revision: try Revision(fields.value("revision")), kind: kind,
                    experiment: try fields.optionalString("experiment"), symbol: try fields.optionalString("symbol"),
                    set: fields.optional("set") == nil ? [] : try fields.overrides("set"), reason: try fields.string("reason"),
                    by: try fields.string("by"), issuedMilliseconds: try fields.integer("issued_ms")))
        case "command_result":
            guard let state = CommandState(rawValue: try fields.string("state")) else { throw .outOfRange("state") }
            self = .commandResult(
                CommandResult(
                    id: try fields.string("id"), state: state, atMilliseconds: try fields.integer("at_ms"),
                    cancelledOrders: try fields.integer("cancelled_orders"), text: try fields.optionalString("text")))
        case "breaker":
            let (kindName, scopeName) = (try fields.string("kind"), try fields.string("scope"))
            guard let kind = BreakerKind.allCases.first(where: { "\($0.text)" == kindName }) else { throw .outOfRange("kind") }
            guard let scope = BreakerTrip.Scope.allCases.first(where: { "\($0.text)" == scopeName }) else { throw .outOfRange("scope") }
            self = .breaker(
                Breaker(
                    experiment: try fields.string("experiment"),
                    trip: BreakerTrip(
                        kind: kind, scope: scope, count: try fields.integer("count"), of: try fields.integer("of"),
                        baselineCount: try fields.integer("baseline_count"), baselineOf: try fields.integer("baseline_of")),
                    atMilliseconds: try fields.integer("at_ms")))
        case "request":
            guard let members = try fields.value("arguments").members else { throw .wrongType("arguments") }
            var arguments: [String: String] = [:]
            for member in members {
                guard let text = member.value.string else { throw .wrongType("arguments.\(excerpt(of: member.name))") }
                arguments[member.name] = text
            }
            self = .request(
                Request(id: try fields.integer("id"), verb: try fields.string("verb"), arguments: arguments))
        case "reply":
            let id = try fields.integer("id")
            if try fields.boolean("ok") {
                self = .reply(Reply(id: id, outcome: .ok(try fields.value("body"))))
            } else {
                let outcome = Reply.Outcome.failed(
                    code: try fields.string("code"), text: try fields.string("text"), exit: try fields.integer("exit", in: 1...255))
                self = .reply(Reply(id: id, outcome: outcome))
            }
        case "progress":
            self = .progress(
                Progress(
                    id: try fields.integer("id"), done: try fields.integer("done"), total: try fields.integer("total"),
                    text: try fields.string("text")))
        case "chunk":
            self = .chunk(
                Chunk(
                    id: try fields.integer("id"), offset: try fields.bytes("offset"),
                    bytes: Int(try fields.integer("bytes", in: 1...Int64(Limits.appendBytesMax)))))
        default: throw .unknownType(excerpt(of: type))
        }
    }
}

/// A foreign name for an answer: a character may be as long as a message, a scalar not.
private func excerpt(of text: String) -> String { String(String.UnicodeScalarView(text.unicodeScalars.prefix(64))) }

extension Message.Breaker {
    /// The members that say what tripped: of the message, and of the decision that follows from it.
    package func writeTrip(to json: inout JSONWriter) {
        json.field("kind", string: trip.kind.text)
        json.field("scope", string: trip.scope.text)
        json.field("count", integer: trip.count)
        json.field("of", integer: trip.of)
        json.field("baseline_count", integer: trip.baselineCount)
        json.field("baseline_of", integer: trip.baselineOf)
        json.field("at_ms", integer: atMilliseconds)
    }
}
