import CalibModel
import Foundation
import TestSupport
import Testing
import Wire

/// The link's messages against their examples in `proto-json/`, and against bytes that no peer of ours would send.
@Suite struct MessageTests {
    /// What `proto-json/examples/messages/<name>.json` holds: the type, and a word behind a dot where one type says two things.
    static let examples: [String: Message] = [
        "ping": .ping(number: 7),
        "pong": .pong(number: 7),
        "error": .error(code: "unknown_type", text: "message type 'teleport' is not known"),
        "hello": .hello(
            Message.Hello(
                version: "calibrant 0.1.0",
                edge: Message.Hello.Edge(
                    host: "edge-1", epoch: "0123456789abcdef", source: "sim", venue: "sim", wallMilliseconds: 1_735_689_600_000,
                    symbols: ["BTCUSDT", "ETHUSDT"], revision: Revision(term: 1, number: 12), latches: ["exp-1"],
                    configHash: "feed000000000001"))),
        "hello.operator": .hello(Message.Hello(version: "calibrant 0.1.0", edge: nil)),
        "welcome": .welcome(
            Message.Welcome(
                software: "calibrant 0.1.0", identity: "spiffe://calibrant/edge/edge-1", revision: Revision(term: 1, number: 13),
                wallMilliseconds: 1_735_689_600_004, highestSeq: [.init(feed: "fills", seq: 41), .init(feed: "pipeline_ticks", seq: 9_812)])
        ),
        "welcome.operator": .welcome(
            Message.Welcome(
                software: "calibrant 0.1.0", identity: "spiffe://calibrant/operator/alice", revision: Revision(term: 1, number: 13),
                wallMilliseconds: 1_735_689_600_004, highestSeq: [])),
        "resume": .resume(Message.Resume(file: "fills_20250101.jsonl", length: 65_900)),
        "resume.differs": .resume(
            Message.Resume(file: "fills_20250101.jsonl", length: 1_065_900, differsAt: 1_048_100, prefixCRC32C: "00c0ffee")),
        "resume.hub": .resume(Message.Resume(file: "fills_20250101.jsonl", length: 65_536, blocks: ["00c0ffee"], part: 0)),
        "resume.part": .resume(
            Message.Resume(file: "fills_20250101.jsonl", length: 1_048_100, base: 1_048_100, prefixCRC32C: "00c0ffee", part: 1)),
        "append": .append(Message.Append(file: "fills_20250101.jsonl", offset: 65_536, bytes: 364)),
        "ack": .ack(Message.Ack(file: "fills_20250101.jsonl", length: 65_900)),
        "sealed": .sealed(
            Message.Sealed(
                file: "fills_20241231.jsonl", bytes: 65_900, rows: 181,
                sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
        "gone": .gone(Message.Gone(file: "fills_20241201.jsonl", bytes: 65_900)),
        "status": .status(
            Message.Status(
                wallMilliseconds: 1_735_689_601_000, revision: Revision(term: 1, number: 13), backlogBytes: 1_204, isKilled: false,
                symbols: [
                    Message.Status.Symbol(
                        symbol: "BTCUSDT", arm: "B", armWhy: "schedule", experiment: "exp-2", isProven: true, isKilled: false,
                        bid: 61_659_100_000_000, ask: 61_659_200_000_000, position: -1_500_000, openOrders: 2, ticks: 4_210, quotes: 55,
                        fills: 3, features: [812_500, 1_250_000_000, 42_000, -500_000, 54_545_455, 0, 125_000_000, nil, -20_000, 310_000]),
                    Message.Status.Symbol(
                        symbol: "ETHUSDT", arm: "A", armWhy: "none", experiment: nil, isProven: false, isKilled: true, bid: nil, ask: nil,
                        position: 0, openOrders: 0, ticks: 0, quotes: 0, fills: 0, features: Array(repeating: nil, count: 10)),
                ])),
        "lease": .lease(Message.Lease(experiment: "exp-2", number: 3, durationMilliseconds: nil)),
        "lease.hub": .lease(
            Message.Lease(experiment: "exp-2", number: 3, durationMilliseconds: 15_000, wallMilliseconds: 1_735_689_600_120)),
        "assignment": .assignment(Message.Assignment(revision: Revision(term: 1, number: 13), experiment: experiment)),
        "assignment.switchback": .assignment(
            Message.Assignment(revision: Revision(term: 1, number: 15), experiment: switchback, isPaused: true)),
        "assignment.host_symbol": .assignment(Message.Assignment(revision: Revision(term: 1, number: 16), experiment: hostSymbol)),
        "breaker": .breaker(
            Message.Breaker(
                experiment: "exp-3",
                trip: BreakerTrip(kind: .deadlineMiss, scope: .harm, count: 25, of: 100, baselineCount: 1, baselineOf: 96),
                atMilliseconds: 1_735_689_700_004)),
        "assignment.none": .assignment(Message.Assignment(revision: Revision(term: 1, number: 14), experiment: nil)),
        "command": .command(
            Message.Command(
                id: "c-14", revision: Revision(term: 1, number: 14), kind: .rollback, experiment: "exp-2", symbol: nil,
                reason: "B pays more than it earns", by: "spiffe://calibrant/operator/alice", issuedMilliseconds: 1_735_689_700_000)),
        "command.kill": .command(
            Message.Command(
                id: "c-15", revision: Revision(term: 1, number: 15), kind: .kill, experiment: nil, symbol: "BTCUSDT",
                reason: "venue says \"maintenance\"", by: "spiffe://calibrant/operator/alice", issuedMilliseconds: 1_735_689_800_000)),
        "command.release": .command(
            Message.Command(
                id: "c-16", revision: Revision(term: 1, number: 16), kind: .release, experiment: nil, symbol: nil, reason: "venue is back",
                by: "spiffe://calibrant/operator/bob", issuedMilliseconds: 1_735_689_900_000)),
        "command.parameters": .command(
            Message.Command(
                id: "c-17", revision: Revision(term: 1, number: 17), kind: .parameters, experiment: nil, symbol: nil,
                set: [.init(key: "spread.base_bps", value: "1.2"), .init(key: "guards.halt_ms", value: "")], reason: "a calm market",
                by: "spiffe://calibrant/operator/bob", issuedMilliseconds: 1_735_690_000_000)),
        "command_result": .commandResult(
            Message.CommandResult(id: "c-14", state: .applied, atMilliseconds: 1_735_689_700_021, cancelledOrders: 2, text: nil)),
        "command_result.latched": .commandResult(
            Message.CommandResult(id: "c-14", state: .latched, atMilliseconds: 1_735_689_700_034, cancelledOrders: 0, text: nil)),
        "command_result.rejected": .commandResult(
            Message.CommandResult(
                id: "c-15", state: .rejected, atMilliseconds: 1_735_689_800_020, cancelledOrders: 0, text: "no symbol 'BTCUSDT' here")),
        "request": .request(
            Message.Request(id: 1, verb: "experiment rollback", arguments: ["id": "exp-2", "reason": "B pays more than it earns"])),
        "reply": .reply(
            Message.Reply(
                id: 1,
                outcome: .ok(
                    .object([
                        .init(name: "experiments", value: .array([])), .init(name: "split", value: .number("0.50")),
                        .init(name: "running", value: .boolean(false)), .init(name: "newest", value: .null),
                    ])))),
        "reply.chunked": .reply(Message.Reply(id: 2, outcome: .ok(.null))),
        "reply.failed": .reply(
            Message.Reply(
                id: 3, outcome: .failed(code: "timeout", text: "edge-2 has not latched the rollback within 10000 ms", exit: 3))),
        "progress": .progress(Message.Progress(id: 2, done: 3_145_728, total: 10_485_760, text: "bytes of feeds read")),
        "chunk": .chunk(Message.Chunk(id: 2, offset: 1_048_576, bytes: 2_048)),
    ]

    static let experiment = ExperimentSpec(
        id: "exp-2", createdMilliseconds: 1_735_689_590_000, salt: "000102030405060708090a0b0c0d0e0f", splitMicro: 500_000,
        symbolsA: ["ETHUSDT"], symbolsB: ["BTCUSDT"],
        candidate: [.init(key: "spread.min_bps", value: "0.8"), .init(key: "spread.base_bps", value: "1.4")])

    static let switchback = ExperimentSpec(
        id: "exp-3", design: "switchback", createdMilliseconds: 1_735_689_590_000, salt: "000102030405060708090a0b0c0d0e0f",
        splitMicro: 500_000, candidate: [.init(key: "spread.base_bps", value: "1.4")],
        switchback: Switchback(
            startMilliseconds: 1_735_689_600_000, blockMilliseconds: 300_000, washoutMilliseconds: 30_000, jitterMilliseconds: 20_000,
            key0: 0x0706_0504_0302_0100, key1: 0x0f0e_0d0c_0b0a_0908,
            clusters: [
                .init(symbols: ["BTCUSDT"], group: 0, isOpposite: false),
                .init(symbols: ["ETHUSDT", "SOLUSDT"], group: 0, isOpposite: true),
            ], ramp: [.init(fromPair: 0, shareMicro: 250_000), .init(fromPair: 12, shareMicro: 1_000_000)]),
        prePeriod: [.init(host: "edge-1", day: 20_088, part: 0, byte: 48_211)])

    static let hostSymbol = ExperimentSpec(
        id: "exp-4", design: "host_symbol", createdMilliseconds: 1_735_689_590_000, salt: "000102030405060708090a0b0c0d0e0f",
        splitMicro: 500_000, candidate: [.init(key: "md_cache.ttl_ms", value: "80")],
        hostSymbols: .init(hosts: ["edge-1", "edge-2"], symbols: ["BTCUSDT", "ETHUSDT"]))

    /// Named in an exhaustive switch, so that a new case is missing here until it has its examples.
    private static func typeName(_ message: Message) -> String {
        switch message {
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
    private static let types: Set<String> = [
        "ping", "pong", "error", "hello", "welcome", "resume", "append", "ack", "sealed", "gone", "status", "lease", "assignment",
        "command", "command_result", "breaker", "request", "reply", "progress", "chunk",
    ]

    // MARK: Examples

    @Test func examplesAreTheLinesByteForByte() throws {
        let folder = Repository.path("proto-json/examples/messages")
        for (name, message) in Self.examples.sorted(by: { $0.key < $1.key }) {
            let url = URL(fileURLWithPath: "\(folder)/\(name).json")
            if ProcessInfo.processInfo.environment["UPDATE_GOLDENS"] == "1" {
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
                try Data(message.line).write(to: url)
            }
            #expect(name.split(separator: ".")[0] == Self.typeName(message), "\(name) is of another type")
            #expect("\(message.type)" == Self.typeName(message))
            let bytes = try #require(try? Data(contentsOf: url), "no example \(name).json")
            #expect(bytes.elementsEqual(message.line), "\(name): \(String(decoding: message.line, as: UTF8.self))")
            #expect(try Message(bytes: Array(bytes.dropLast())) == message, "\(name)")
        }
        let experiment = URL(fileURLWithPath: Repository.path("proto-json/examples/experiment.json"))
        if ProcessInfo.processInfo.environment["UPDATE_GOLDENS"] == "1" { try Data(Self.experiment.bytes + [0x0a]).write(to: experiment) }
        #expect(try Data(contentsOf: experiment).elementsEqual(Self.experiment.bytes + [0x0a]))
    }

    @Test func everyMessageHasASchemaAndAnExampleAndNothingElseDoes() throws {
        func names(_ folder: String, _ suffix: String) throws -> Set<String> {
            let files = try FileManager.default.contentsOfDirectory(atPath: Repository.path(folder))
            return Set(files.filter { $0.hasSuffix(suffix) }.map { String($0.dropLast(suffix.count)) })
        }
        #expect(Set(Self.examples.values.map(Self.typeName)) == Self.types, "a message without an example")
        #expect(try names("proto-json/examples/messages", ".json") == Set(Self.examples.keys), "examples without a test, or the reverse")
        #expect(try names("proto-json/messages", ".schema.json") == Self.types)
    }

    // MARK: Decoding

    @Test(arguments: [
        ("", WireError.json(.syntax(at: 0))), ("{", .json(.syntax(at: 1))), ("[]", .wrongType("message")), ("{}", .missingField("type")),
        ("{\"type\":1}", .wrongType("type")), ("{\"type\":\"teleport\"}", .unknownType("teleport")),
        ("{\"type\":\"ping\"}", .missingField("n")),
        ("{\"type\":\"ping\",\"n\":NaN}", .json(.nonFinite(at: 19))), ("{\"type\":\"ping\",\"n\":1.5}", .wrongType("n")),
        ("{\"type\":\"ping\",\"n\":9223372036854775808}", .wrongType("n")), ("{\"type\":\"ping\",\"n\":1,\"n\":1}", .json(.syntax(at: 0))),
        ("{\"type\":\"ping\",\"n\":\"\u{fffd}", .json(.syntax(at: 23))),
        ("{\"type\":\"ping\",\"n\":\(String(repeating: "[", count: 16))", .json(.tooDeep(at: 34))),
        ("{\"type\":\"append\",\"file\":\"f\",\"offset\":0,\"bytes\":0}", .outOfRange("bytes")),
        ("{\"type\":\"append\",\"file\":\"f\",\"offset\":0,\"bytes\":1048577}", .outOfRange("bytes")),
        ("{\"type\":\"append\",\"file\":\"f\",\"offset\":-1,\"bytes\":1}", .outOfRange("offset")),
        ("{\"type\":\"chunk\",\"id\":1,\"offset\":0,\"bytes\":1048577}", .outOfRange("bytes")),
        ("{\"type\":\"lease\",\"experiment\":\"e\",\"number\":-1,\"duration_ms\":1}", .outOfRange("number")),
        ("{\"type\":\"lease\",\"experiment\":\"e\",\"number\":1,\"duration_ms\":86400001}", .outOfRange("duration_ms")),
        ("{\"type\":\"reply\",\"id\":1,\"ok\":false,\"code\":\"c\",\"text\":\"t\",\"exit\":0}", .outOfRange("exit")),
        ("{\"type\":\"reply\",\"id\":1,\"ok\":true}", .missingField("body")),
        ("{\"type\":\"request\",\"id\":1,\"verb\":\"v\",\"arguments\":{\"a\":1}}", .wrongType("arguments.a")),
        ("{\"type\":\"command_result\",\"id\":\"c\",\"state\":\"done\"}", .outOfRange("state")),
        (
            "{\"type\":\"welcome\",\"protocol\":1,\"software\":\"\",\"identity\":\"\",\"revision\":{\"term\":-1,\"n\":0},\"wall_ms\":0,\"highest_seq\":{}}",
            .outOfRange("term")
        ),
        ("{\"type\":\"welcome\",\"highest_seq\":{\"fills\":\"1\"}}", .wrongType("highest_seq.fills")),
        (#"{"type":"status","#, .json(.syntax(at: 17))), (#"{"type":"status","x":1}"#, .missingField("backlog_bytes")),
        (#"{"type":"status","backlog_bytes":-1}"#, .outOfRange("backlog_bytes")),
        (#"{"type":"status","backlog_bytes":0,"backlog_bytes":0}"#, .json(.syntax(at: 51))),
        (#"{"type":"status","type":"status","backlog_bytes":0}"#, .json(.syntax(at: 24))),
        (#"{"type":"status","backlog_bytes":1.5}"#, .wrongType("backlog_bytes")),
        (#"{"type":"status","revision":{"term":-1,"n":0}}"#, .outOfRange("term")),
        (#"{"type":"status","symbols":{}}"#, .wrongType("symbols")), (#"{"type":"status","symbols":[1]}"#, .wrongType("symbols")),
        (#"{"type":"status","symbols":[{"bid":"1"}]}"#, .wrongType("bid")),
        (#"{"type":"status","symbols":[{"features":{"vol_realized":NaN}}]}"#, .json(.nonFinite(at: 56))),
        (#"{"type":"status","symbols":[{"features":{"fill_rate":1,"fill_rate":1}}]}"#, .json(.syntax(at: 67))),
        (#"{"type":"status","symbols":[{}]}"#, .missingField("symbol")),
        (#"{"x":1,"type":"status"}"#, .missingField("backlog_bytes")), (#"{"type":"status",1:2}"#, .json(.wrongType(at: 17))),
        (#"{"type":"status","k\u0069lled":true}"#, .json(.syntax(at: 31))),
    ])
    func whatIsNoMessageSaysWhy(line: String, error: WireError) {
        #expect(throws: error) { try Message(bytes: Array(line.utf8)) }
        #expect(!error.sentence.isEmpty && !"\(error.code)".isEmpty)
    }

    @Test func fieldsOfALaterVersionAreIgnored() throws {
        for (name, message) in Self.examples {
            let line = String(decoding: message.line.dropLast(2), as: UTF8.self) + #","of_later":{"x":[1,null]}}"#
            #expect(try Message(bytes: Array(line.utf8)) == message, "\(name)")
        }
    }

    /// Of a status at every depth: it is not read by way of a tree.
    @Test func theOrderOfMembersMeansNothing() throws {
        func reversed(_ value: JSONValue, deep: Bool) -> JSONValue {
            switch value {
            case .object(let members):
                .object(members.reversed().map { .init(name: $0.name, value: deep ? reversed($0.value, deep: true) : $0.value) })
            case .array(let values): .array(values.map { reversed($0, deep: deep) })
            case .null, .boolean, .number, .string: value
            }
        }
        for (name, message) in Self.examples {
            var json = JSONWriter()
            reversed(try JSONValue.parse(Array(message.line.dropLast())), deep: name == "status").write(to: &json)
            #expect(try Message(bytes: json.take()) == message, "\(name)")
        }
    }

    @Test func experimentRefusesWhatTheHashCannotTake() throws {
        func spec(_ old: String, _ new: String) throws -> ExperimentSpec {
            let text = String(decoding: Self.experiment.bytes, as: UTF8.self).replacingOccurrences(of: old, with: new)
            return try ExperimentSpec(JSONValue.parse(Array(text.utf8)))
        }
        #expect(try spec("exp-2", "exp-3").id == "exp-3")
        #expect(throws: WireError.outOfRange("id")) { try spec("exp-2", String(repeating: "x", count: 25)) }
        #expect(throws: WireError.outOfRange("id")) { try spec("exp-2", "a/b") }
        #expect(throws: WireError.outOfRange("salt")) { try spec("0e0f", "0e0g") }
        #expect(throws: WireError.outOfRange("salt")) { try spec("0e0f", "0e") }
        #expect(throws: WireError.outOfRange("salt")) { try spec("00010203", "+0010203") }
        #expect(throws: WireError.outOfRange("split")) { try spec(":0.5,", ":1.000001,") }
        #expect(throws: WireError.wrongType("candidate.spread.base_bps")) { try spec("\"1.4\"", "1.4") }
    }

    /// However it is written: by escapes, or by other scalars that Unicode holds for the same.
    @Test(arguments: [("n", "n"), ("n", #"\u006e"#), (#"a\/b"#, "a/b"), ("K", "\u{212a}"), ("\u{212a}", "K"), ("\u{e9}", "e\u{301}")])
    func noNameComesTwice(first: String, second: String) throws {
        for others in [0, 5, 30] {
            let between = (0..<others).map { #""other\#($0)":0,"# }.joined()
            func parse(_ name: String) throws { _ = try JSONValue.parse(Array(#"{"\#(first)":1,\#(between)"\#(name)":2}"#.utf8)) }
            #expect(throws: JSONError.self, "\(others) between") { try parse(second) }
            #expect(throws: Never.self) { try parse(second + "2") }
        }
    }

    /// Marks in disorder: to compare 64 KiB of them takes Swift seconds.
    @Test(arguments: ["\u{301}\u{316}", "\u{f75}\u{301}", #"\u0301\u0316"#])
    func stringsThatAreCostlyToCompareAreRefused(marks: String) throws {
        func line(_ count: Int, _ template: String) -> [UInt8] {
            Array(template.replacing("*", with: String(repeating: marks, count: count)).utf8)
        }
        for template in [#"{"type":"a*"}"#, #"{"type":"ping","n":1,"b*":2}"#, #"{"type":"ping","n":1,"later":["*"]}"#] {
            #expect(throws: JSONError.self) { try JSONValue.parse(line(5_000, template)) }
            #expect(throws: JSONError.self) { try JSONValue.parse(line(16, template)) }
            #expect(throws: Never.self) { try JSONValue.parse(line(15, template)) }
        }
    }

    /// One character may be as long as the message it comes in.
    @Test func answerDoesNotRepeatAForeignNameAtLength() {
        let long = String(repeating: "a\u{301}\u{200d}", count: 9_000)
        for line in [#"{"type":"\#(long)"}"#, #"{"type":"request","id":1,"verb":"v","arguments":{"\#(long)":1}}"#] {
            let sentence: String? = Array(line.utf8).withUnsafeBytes {
                do throws(WireError) { _ = try Message(line: $0) } catch { return error.sentence }
                return nil
            }
            #expect(sentence.map { $0.utf8.count < 300 } == true)
        }
    }

    /// 200,000 damaged lines: none traps, and what still decodes decodes again from its own line to the same message.
    @Test func damagedLinesNeverTrap() throws {
        var random = SeededRandom(seed: 20_250_101)
        let lines = Self.examples.sorted { $0.key < $1.key }.map { Array($0.value.line.dropLast()) }
        let tokens = [
            "null", "true", "-1", "0", "9223372036854775807", "-9223372036854775808", "1e400", "0.1", "\"", "{", "}", "[", "]", ",", ":",
            "\\ud800", "\\u0000", "\"type\":\"status\"", "NaN", "\u{0}", "é", "[[[[[[[[[[[[[[[[[[",
        ].map { Array($0.utf8) }
        var decoded = 0
        for _ in 0..<200_000 {
            var line = lines[random.next(below: lines.count)]
            for _ in 0...random.next(below: 3) {
                let place = random.next(below: line.count + 1)
                switch random.next(below: 6) {
                case 0: line.insert(contentsOf: tokens[random.next(below: tokens.count)], at: place)
                case 1: line.removeSubrange(place..<min(line.count, place + 1 + random.next(below: 8)))
                case 2 where place < line.count: line[place] ^= UInt8(1 << random.next(below: 8))
                case 3 where place < line.count: line[place] = UInt8(truncatingIfNeeded: random.next())
                case 4:
                    let other = lines[random.next(below: lines.count)]
                    line.replaceSubrange(place..., with: other.suffix(random.next(below: other.count)))
                default:
                    // Another value in the place of one.
                    guard let colon = line[place...].firstIndex(of: 0x3a) else { break }
                    let end = line[(colon + 1)...].firstIndex { $0 == 0x2c || $0 == 0x7d } ?? line.count
                    line.replaceSubrange(colon + 1..<end, with: tokens[random.next(below: 8)])
                }
            }
            guard let message = try? Message(bytes: line) else { continue }
            decoded += 1
            let again = try? Message(bytes: Array(message.line.dropLast()))
            if again != message {
                Issue.record("\(String(decoding: line, as: UTF8.self)) decodes to \(message), then to \(String(describing: again))")
            }
        }
        #expect((10_000...190_000).contains(decoded), "\(decoded) of 200000 decoded: the damage is too great or too small to say much")
    }

    // MARK: Framing

    /// A conversation of every example, with payloads, empty lines and one unknown type among them.
    private static func conversation() -> (bytes: [UInt8], expected: [Result<LineFraming.Frame, WireError>]) {
        var bytes: [UInt8] = []
        var expected: [Result<LineFraming.Frame, WireError>] = []
        for (index, (_, message)) in examples.sorted(by: { $0.key < $1.key }).enumerated() {
            // Newlines and braces inside a payload are no lines.
            let payload = (0..<message.payloadBytes).map { Array("\n{\"type\":\"ping\",\"n\":1}\n".utf8)[$0 % 23] }
            bytes += message.line + payload
            expected.append(.success(LineFraming.Frame(message: message, payload: payload)))
            if index == 3 {
                bytes += Array("\n\n{\"type\":\"teleport\",\"file\":\"f\"}\n".utf8)
                expected.append(.failure(.unknownType("teleport")))
            }
        }
        return (bytes, expected)
    }

    private static func read(_ pieces: some Sequence<ArraySlice<UInt8>>) -> [Result<LineFraming.Frame, WireError>] {
        var framing = LineFraming()
        var results: [Result<LineFraming.Frame, WireError>] = []
        for piece in pieces {
            framing.append(Array(piece))
            while true {
                do throws(WireError) {
                    guard let frame = try framing.next() else { break }
                    results.append(.success(frame))
                } catch {
                    results.append(.failure(error))
                    guard case .unknownType = error else { return results }
                }
            }
        }
        return results
    }

    @Test func streamTornAnywhereGivesTheSameFrames() throws {
        let (bytes, expected) = Self.conversation()
        #expect(expected.count == Self.examples.count + 1)
        #expect(Self.read([bytes[...]]) == expected, "in one piece")
        #expect(Self.read(bytes.indices.map { bytes[$0...$0] }) == expected, "byte by byte")
        var random = SeededRandom(seed: 7)
        for _ in 0..<200 {
            var pieces: [ArraySlice<UInt8>] = []
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + 1 + random.next(below: random.next(below: 4) == 0 ? 2_000 : 60))
                pieces.append(bytes[start..<end])
                start = end
            }
            try #require(Self.read(pieces) == expected)
        }
    }

    @Test func framingHoldsNoMoreThanWhatIsUnread() throws {
        let (bytes, _) = Self.conversation()
        var framing = LineFraming()
        for _ in 0..<200 {
            framing.append(bytes)
            while true { do { guard try framing.next() != nil else { break } } catch WireError.unknownType {} }
            try #require(framing.pendingBytes == 0)
        }
    }

    @Test func lineAndPayloadAreTakenUpToTheirLimits() throws {
        func ping(padding: Int) -> [UInt8] {
            Array(#"{"type":"ping","n":1,"pad":""#.utf8) + Array(repeating: 0x78, count: padding) + Array("\"}".utf8)
        }
        let longest = ping(padding: Limits.controlLineBytesMax - 1 - ping(padding: 0).count)
        #expect(longest.count + 1 == Limits.controlLineBytesMax)
        #expect(Self.read([(longest + [0x0a])[...]]) == [.success(LineFraming.Frame(message: .ping(number: 1)))])
        let tooLong = WireError.tooLong(limit: Limits.controlLineBytesMax)
        let longer = [0x20] + longest
        #expect(Self.read([(longer + [0x0a])[...]]) == [.failure(tooLong)])
        #expect(Self.read([longer[...]]) == [.failure(tooLong)], "refused before its newline comes")
        #expect(Self.read([longest[...]]) == [])

        let append = Message.append(Message.Append(file: "quotes_20250101.jsonl", offset: 0, bytes: Limits.appendBytesMax))
        let payload = [UInt8](repeating: 0x0a, count: Limits.appendBytesMax)
        let all = append.line + payload + Message.ping(number: 2).line
        #expect(
            Self.read([all[..<700_000], all[700_000...]]) == [
                .success(LineFraming.Frame(message: append, payload: payload)), .success(LineFraming.Frame(message: .ping(number: 2))),
            ])
    }

    @Test func statusOfAsManySymbolsAsAllowedFitsALine() throws {
        func status(_ count: Int) -> Message {
            let symbol = Message.Status.Symbol(
                symbol: "1000000BABYDOGEUSDT", arm: "B", armWhy: "schedule", experiment: String(repeating: "x", count: 24), isProven: true,
                isKilled: true, bid: 123_456_123_456_789, ask: 123_456_123_456_789, position: -123_456_712_345_678, openOrders: 16,
                ticks: 123_456_789, quotes: 12_345_678, fills: 1_234_567,
                features: [
                    1_234_567, 1_234_567_123_456_789, 1_234_567, -1_234_567, 123_456_789, 123_456_789, 1_234_567_123_456, 12_345_123_456,
                    -1_234_567, -1_234_567,
                ])
            return .status(
                Message.Status(
                    wallMilliseconds: 1_735_689_601_000, revision: Revision(term: 1, number: 13), backlogBytes: 1 << 40, isKilled: false,
                    symbols: Array(repeating: symbol, count: count)))
        }
        let most = status(Limits.statusSymbolsMax)
        #expect(most.line.count <= Limits.controlLineBytesMax, "\(most.line.count) bytes")
        #expect(Self.read([most.line[...]]) == [.success(LineFraming.Frame(message: most))])
        #expect(throws: WireError.outOfRange("symbols")) {
            try Message(bytes: Array(status(Limits.statusSymbolsMax + 1).line.dropLast()))
        }
    }
}

extension Message {
    fileprivate init(bytes: [UInt8]) throws(WireError) {
        // A typed throw does not pass through withUnsafeBytes' rethrow.
        let result: Result<Message, WireError> = bytes.withUnsafeBytes { raw in
            do throws(WireError) { return .success(try Message(line: raw)) } catch { return .failure(error) }
        }
        self = try result.get()
    }
}

extension LineFraming {
    fileprivate mutating func append(_ bytes: [UInt8]) { bytes.withUnsafeBytes { append($0) } }
}
