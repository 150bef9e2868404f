import CalibModel
import Foundation
import NIOCore
import NIOPosix
import NodeShell
import TestSupport
import Testing
import Wire

/// The real `calib-hub` and scripted clients over TLS.
@Suite struct HubRunTests {
    /// A hub's directory; its processes end with the object.
    private final class Rig {
        let root: String
        private(set) var hub: LiveProcess?
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

        init(_ names: [String] = ["--edge", "tokyo", "--edge", "osaka", "--operator", "ann", "--viewer", "eve"]) throws {
            root = try Binaries.temporaryDirectory()
            let outcome = try initialise(names)
            guard outcome.status == 0 else { throw LiveProcess.NotReady(description: outcome.standardError) }
        }

        deinit {
            hub?.signal(SIGKILL)
            _ = hub?.wait()
            try? group.syncShutdownGracefully()
            try? FileManager.default.removeItem(atPath: root)
        }

        func initialise(_ names: [String]) throws -> Binaries.Outcome {
            try Binaries.run("calib-hub", ["init", "--directory", root + "/pki", "-o", "json"] + names)
        }

        var arguments: [String] {
            [
                "run", "--config", root + "/pki/hub.yaml", "--set", "listen=127.0.0.1:0", "--set", "metrics.listen=127.0.0.1:0", "--set",
                "artifacts_dir=\(root)/hub",
            ]
        }

        func start() throws { hub = try LiveProcess("calib-hub", arguments) }

        func stop(_ signal: Int32) -> Int32? {
            hub?.signal(signal)
            defer { hub = nil }
            return hub?.wait()
        }

        func address(_ name: String) throws -> (host: String, port: Int) {
            let line = try JSONSerialization.jsonObject(with: Data(#require(hub).firstLine.utf8)) as? [String: Any]
            let parts = try #require(line?[name] as? String).split(separator: ":")
            return (String(parts[0]), try #require(Int(parts[1])))
        }

        /// Connects with the certificate in `folder`, such as `edges/tokyo`.
        func client(_ folder: String) throws -> Client {
            let path = "\(root)/pki/\(folder)"
            let context = try TLSContext.client(
                TLSFiles(certificate: path + "/cert.pem", key: path + "/key.pem", authority: path + "/ca.pem"))
            let (host, port) = try address("listening")
            let client = Client()
            client.link = try LineClient.connect(
                host: host, port: port, serverName: "localhost", context: context, on: group.next(), delegate: client
            ).wait()
            return client
        }

        func get(_ path: String) throws -> HTTPResponse {
            let (host, port) = try address("metrics")
            return try HTTPClient.get(host: host, port: port, path: path, on: group.next()).wait()
        }

        func stored(_ name: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: "\(root)/hub/feeds/host=tokyo/\(name)")) }
    }

    /// Frames in a queue. `@unchecked`: `condition` guards it.
    private final class Client: LineLinkDelegate, @unchecked Sendable {
        private let condition = NSCondition()
        private var frames: [LineFraming.Frame] = []
        private var closedReason: String?
        /// Set before use by the test's thread.
        var link: LineLink!

        func send(_ message: Message, _ payload: [UInt8] = []) {
            let link = link!
            link.eventLoop.execute {
                link.send(message, payload: payload)
                link.flush()
            }
        }

        /// The next message `pick` wants; others are dropped. A minute at most.
        func next<Value>(_ what: String, _ pick: (Message) -> Value?) throws -> Value {
            condition.lock()
            defer { condition.unlock() }
            let deadline = Date(timeIntervalSinceNow: 60)
            while true {
                while !frames.isEmpty { if let value = pick(frames.removeFirst().message) { return value } }
                guard closedReason == nil, condition.wait(until: deadline) else {
                    throw LiveProcess.NotReady(description: "no \(what): \(closedReason ?? "time is up")")
                }
            }
        }

        func hello(_ host: String) {
            send(
                .hello(
                    Message.Hello(
                        version: "test",
                        edge: Message.Hello.Edge(
                            host: host, epoch: HubRunTests.epoch, source: "sim", venue: "sim", wallMilliseconds: 0, symbols: ["BTCUSDT"],
                            revision: .zero, latches: [], configHash: "0"))))
        }

        func welcome() throws -> Message.Welcome { try next("welcome") { if case .welcome(let welcome) = $0 { welcome } else { nil } } }

        func resume(_ length: Int64) throws -> Message.Resume {
            send(.resume(Message.Resume(file: HubRunTests.file, length: length)))
            return try next("resume") { if case .resume(let resume) = $0 { resume } else { nil } }
        }

        func append(_ bytes: [UInt8], at offset: Int64) {
            send(.append(Message.Append(file: HubRunTests.file, offset: offset, bytes: bytes.count)), bytes)
        }

        /// Waits until everything up to `length` is acknowledged.
        func acknowledged(_ length: Int64) throws {
            try next("ack") { if case .ack(let ack) = $0, ack.length == length { () } else { nil } }
        }

        func error() throws -> String { try next("error") { if case .error(let code, _) = $0 { code } else { nil } } }

        func request(_ verb: String, _ arguments: [String: String]) throws -> Message.Reply.Outcome {
            send(.request(Message.Request(id: 7, verb: verb, arguments: arguments)))
            return try next("reply") { if case .reply(let reply) = $0 { reply.outcome } else { nil } }
        }

        func opened(_ link: LineLink) {}
        func received(_ frame: LineFraming.Frame, on link: LineLink) {
            condition.lock()
            frames.append(frame)
            condition.broadcast()
            condition.unlock()
        }
        func rejected(_ error: WireError, on link: LineLink) {}
        func drained(_ link: LineLink) {}
        func closed(_ link: LineLink, reason: String) {
            condition.lock()
            closedReason = reason
            condition.broadcast()
            condition.unlock()
        }
    }

    private static let epoch = "00000000000000aa"
    private static let file = "fills_20250101.jsonl"
    private static func row(_ seq: Int) -> [UInt8] {
        Array(#"{"ts":1735689600000,"v":1,"host":"tokyo","epoch":"\#(epoch)","seq":\#(seq)}"#.utf8) + [0x0a]
    }

    // MARK: Feeds

    @Test func killedHubGoesOnWhereItHadSynced() throws {
        let rig = try Rig()
        try rig.start()
        let first = try rig.client("edges/tokyo")
        first.hello("tokyo")
        let welcome = try first.welcome()
        #expect(welcome.identity == "spiffe://calibrant/edge/tokyo" && welcome.highestSeq.isEmpty)
        #expect(try first.resume(0) == Message.Resume(file: Self.file, length: 0, part: 0))
        let bytes = (1...2000).flatMap(Self.row)
        // Cut anywhere: the hub stores bytes.
        let middle = 70_001
        first.append(Array(bytes[..<middle]), at: 0)
        try first.acknowledged(Int64(middle))
        let killed = rig.stop(SIGKILL)
        #expect(killed == 137)
        #expect(try Array(rig.stored(Self.file)) == Array(bytes[..<middle]))

        try rig.start()
        let second = try rig.client("edges/tokyo")
        second.hello("tokyo")
        let again = try second.welcome()
        #expect(again.revision > welcome.revision)
        let whole = bytes[..<middle].split(separator: 0x0a).count - 1
        #expect(again.highestSeq == [Message.Welcome.FeedSeq(feed: "fills", seq: Int64(whole))])
        let checksum = CRC32C.text(of: bytes[..<middle])
        #expect(
            try second.resume(Int64(bytes.count)) == Message.Resume(file: Self.file, length: Int64(middle), blocks: [checksum], part: 0))
        second.append(Array(bytes[middle...]), at: Int64(middle))
        try second.acknowledged(Int64(bytes.count))
        #expect(try Array(rig.stored(Self.file)) == bytes)
        #expect(rig.stop(SIGTERM) == 0)
    }

    @Test func oneHostsCertificateDoesNotSpeakForAnother() throws {
        let rig = try Rig()
        try rig.start()
        let other = try rig.client("edges/osaka")
        other.hello("tokyo")
        #expect(try other.error() == "wrong_host")
        let viewer = try rig.client("viewers/eve")
        viewer.hello("eve")
        #expect(try viewer.error() == "identity")
        #expect(!FileManager.default.fileExists(atPath: rig.root + "/hub/feeds/host=tokyo"))
    }

    @Test func secondConnectionOfALiveEdgeIsRefused() throws {
        let rig = try Rig()
        try rig.start()
        let first = try rig.client("edges/tokyo")
        first.hello("tokyo")
        _ = try first.welcome()
        let second = try rig.client("edges/tokyo")
        second.hello("tokyo")
        first.send(.pong(number: try first.next("ping") { if case .ping(let number) = $0 { number } else { nil } }))
        #expect(try second.error() == "identity_in_use")
        // One that does not answer gives way.
        let third = try rig.client("edges/tokyo")
        third.hello("tokyo")
        _ = try third.welcome()
        #expect(try first.error() == "replaced")
    }

    @Test func otherBytesOfAnEdgeAreStoredApartAndShown_overARestart() throws {
        let rig = try Rig()
        try rig.start()
        var edge = try rig.client("edges/tokyo")
        edge.hello("tokyo")
        _ = try edge.welcome()
        _ = try edge.resume(0)
        edge.append(Self.row(1) + Self.row(2), at: 0)
        try edge.acknowledged(Int64(2 * Self.row(1).count))
        // The edge was restored from a copy that had the first row only.
        let first = Self.row(1)
        let prefix = CRC32C.text(of: first)
        edge.send(
            .resume(Message.Resume(file: Self.file, length: Int64(first.count), differsAt: Int64(first.count), prefixCRC32C: prefix)))
        let part = try edge.next("part") { if case .resume(let resume) = $0, resume.base > 0 { resume } else { nil } }
        #expect(
            part == Message.Resume(file: Self.file, length: Int64(first.count), base: Int64(first.count), prefixCRC32C: prefix, part: 1))
        edge.append(Self.row(3), at: Int64(first.count))
        try edge.acknowledged(Int64(2 * first.count))
        #expect(rig.stop(SIGKILL) == 137)
        try rig.start()
        edge = try rig.client("edges/tokyo")
        edge.hello("tokyo")
        #expect(try edge.welcome().highestSeq == [Message.Welcome.FeedSeq(feed: "fills", seq: 3)])
        let resumed = try edge.resume(Int64(2 * first.count))
        #expect(resumed.base == Int64(first.count) && resumed.length == Int64(2 * first.count))
        #expect(resumed.blocks == [CRC32C.text(of: Self.row(3))])
        #expect(try Array(rig.stored(Self.file)) == Self.row(1) + Self.row(2), "what was acknowledged stays")
        #expect(try Array(rig.stored("fills_20250101.1.jsonl")) == Self.row(3))
        let ann = try rig.client("operators/ann")
        ann.send(.hello(Message.Hello(version: "test", edge: nil)))
        _ = try ann.welcome()
        guard case .ok(let body) = try ann.request("host list", [:]) else { throw LiveProcess.NotReady(description: "no hosts") }
        let host = try #require(body["hosts"]?.array?.first)
        #expect(host["forks"]?.array?.first?["file"]?.string == "fills_20250101.1.jsonl" && host["files"]?.array?.count == 2)
    }

    // MARK: Documents

    /// From where the asker has come to, when it holds the document's beginning; else the whole.
    @Test func aPullGoesOnBehindWhatTheAskerHolds() throws {
        let rig = try Rig()
        let document = (0..<3_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let folder = rig.root + "/hub/datasets"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(document).write(to: URL(fileURLWithPath: folder + "/calib_a.json"))
        try rig.start()
        let ann = try rig.client("operators/ann")
        ann.send(.hello(Message.Hello(version: "test", edge: nil)))
        _ = try ann.welcome()
        func begin(holding held: [UInt8], offset: String? = nil) throws -> Int64 {
            let arguments = ["name": "calib_a.json", "offset": offset ?? "\(held.count)", "sha256": Digest.sha256(held)]
            ann.send(.request(Message.Request(id: 7, verb: "dataset pull", arguments: arguments)))
            let first = try ann.next("chunk or reply") { message -> Int64? in
                switch message {
                case .chunk(let chunk): chunk.offset
                case .reply: -1
                default: nil
                }
            }
            if first >= 0 { try ann.next("reply") { if case .reply = $0 { () } else { nil } } }
            return first
        }
        #expect(try begin(holding: []) == 0)
        #expect(try begin(holding: Array(document[..<1_234])) == 1_234)
        #expect(try begin(holding: [UInt8](repeating: 7, count: 1_234)) == 0)
        #expect(try begin(holding: document + [7]) == 0)
        // All of it is there: nothing is sent but the answer.
        #expect(try begin(holding: document) == -1)
        guard case .failed("usage", _, 64) = try ann.request("dataset pull", ["name": "calib_a.json", "offset": "-1"]) else {
            throw LiveProcess.NotReady(description: "an offset below 0 is taken")
        }
    }

    // MARK: The control log

    @Test func restartReplaysTheLog_andAFlippedByteIsNamed() throws {
        let rig = try Rig()
        try rig.start()
        let edge = try rig.client("edges/tokyo")
        edge.hello("tokyo")
        _ = try edge.welcome()
        let ann = try rig.client("operators/ann")
        ann.send(.hello(Message.Hello(version: "test", edge: nil)))
        _ = try ann.welcome()
        let created = try ann.request(
            "experiment create",
            ["id": "e1", "design": "symbol", "split": "1", "candidate": "spread.base_bps=1.2", "reason": "a-reason-to-be-found"])
        guard case .ok = created else { throw LiveProcess.NotReady(description: "\(created)") }
        let started = try ann.request("experiment start", ["id": "e1", "reason": "go"])
        guard case .ok = started else { throw LiveProcess.NotReady(description: "\(started)") }
        let spec = try edge.next("assignment") { if case .assignment(let assignment) = $0 { assignment.experiment } else { nil } }
        #expect(spec.symbolsB == ["BTCUSDT"])
        // What was answered is durable, however the process ends.
        _ = rig.stop(SIGKILL)
        try rig.start()
        let back = try rig.client("edges/tokyo")
        back.hello("tokyo")
        _ = try back.welcome()
        #expect(try back.next("assignment") { if case .assignment(let assignment) = $0 { assignment.experiment } else { nil } } == spec)
        #expect(rig.stop(SIGTERM) == 0)

        let path = rig.root + "/hub/control.sqlite"
        var database = try Data(contentsOf: URL(fileURLWithPath: path))
        let place = try #require(database.range(of: Data("a-reason-to-be-found".utf8)))
        database[place.lowerBound] ^= 0x01
        try database.write(to: URL(fileURLWithPath: path))
        let damaged = try Binaries.run("calib-hub", rig.arguments)
        #expect(damaged.status == 1 && damaged.standardOutput.isEmpty)
        #expect(damaged.standardError.contains("record 3 of the control log: its bytes do not match its hash"), "\(damaged.standardError)")
    }

    @Test func secondHubOnOneDirectoryIsRefused() throws {
        let rig = try Rig()
        try rig.start()
        let outcome = try Binaries.run("calib-hub", rig.arguments)
        #expect(outcome.status == 1 && outcome.standardError.contains("another calib-hub"), "\(outcome.standardError)")
    }

    @Test func viewersActionIsRefused_andUnsatisfiedCommandTimesOut() throws {
        let rig = try Rig()
        try rig.start()
        let edge = try rig.client("edges/tokyo")
        edge.hello("tokyo")
        _ = try edge.welcome()
        let eve = try rig.client("viewers/eve")
        eve.send(.hello(Message.Hello(version: "test", edge: nil)))
        _ = try eve.welcome()
        guard case .failed("not_authorised", _, 4) = try eve.request("kill", ["all": "true", "reason": "r"]) else {
            throw LiveProcess.NotReady(description: "a viewer may kill")
        }
        let ann = try rig.client("operators/ann")
        ann.send(.hello(Message.Hello(version: "test", edge: nil)))
        _ = try ann.welcome()
        guard case .failed("timeout", let text, 3) = try ann.request("kill", ["all": "true", "reason": "r", "timeout_ms": "200"]) else {
            throw LiveProcess.NotReady(description: "no timeout")
        }
        #expect(text.contains("tokyo (sent)"))
        let command = try edge.next("command") { if case .command(let command) = $0 { command } else { nil } }
        #expect(command.kind == .kill && command.by == "operator/ann")
    }

    // MARK: Operation

    @Test func endpointsTellOfHostsAndBytes() throws {
        let rig = try Rig()
        try rig.start()
        let edge = try rig.client("edges/tokyo")
        edge.hello("tokyo")
        _ = try edge.welcome()
        _ = try edge.resume(0)
        edge.append(Self.row(1), at: 0)
        try edge.acknowledged(Int64(Self.row(1).count))
        var features: [Int64?] = .init(repeating: nil, count: Feature.allCases.count)
        features[0] = 1_500_000
        edge.send(
            .status(
                Message.Status(
                    wallMilliseconds: 0, revision: .zero, backlogBytes: 5, isKilled: false,
                    symbols: [
                        Message.Status.Symbol(
                            symbol: "BTCUSDT", arm: "A", armWhy: "none", experiment: nil, isProven: true, isKilled: false, bid: nil,
                            ask: nil,
                            position: 0, openOrders: 0, ticks: 1, quotes: 1, fills: 0, features: features)
                    ])))
        edge.send(.ping(number: 1))
        _ = try edge.next("pong") { if case .pong = $0 { true } else { nil } }
        #expect(try rig.get("/-/healthy").status == 200 && rig.get("/-/ready").status == 200)
        let text = String(decoding: try rig.get("/metrics").body, as: UTF8.self)
        #expect(text.contains(#"mm_symbol_vol_realized{symbol="BTCUSDT",host="tokyo"} 1.5"#), "\(text)")
        #expect(!text.contains("mm_symbol_queue_eta_ms{"))
        #expect(text.contains(#"mm_hub_ingest_records_total{host="tokyo",stream="fills"} 1"#))
        #expect(text.contains("mm_hub_store_commit_duration_seconds_count 1\n"), "one round wrote something")
        #expect(text.contains("mm_tls_certificate_expiry_timestamp_seconds{cn=") && text.contains("process_cpu_seconds_total "))
        #expect(text.contains(#"mm_hub_hosts{state="connected"} 1"#) && text.contains("mm_hub_ingest_bytes_total \(Self.row(1).count)"))
    }

    @Test func initAddsNames_andChangesNothingThatIsThere() throws {
        let rig = try Rig(["--edge", "tokyo"])
        func read(_ name: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: "\(rig.root)/pki/\(name)")) }
        let before = try ["ca/ca.pem", "ca/ca.key", "hub/cert.pem", "edges/tokyo/key.pem", "hub.yaml"].map(read)
        #expect(try rig.initialise(["--edge", "tokyo", "--edge", "nagoya", "--operator", "ann"]).status == 0)
        #expect(try ["ca/ca.pem", "ca/ca.key", "hub/cert.pem", "edges/tokyo/key.pem", "hub.yaml"].map(read) == before)
        for key in ["ca/ca.key", "hub/key.pem", "edges/nagoya/key.pem", "operators/ann/key.pem"] {
            let mode = try FileManager.default.attributesOfItem(atPath: "\(rig.root)/pki/\(key)")[.posixPermissions] as? Int
            #expect(mode == 0o600, "\(key)")
        }
        // The one that was added is let in.
        try rig.start()
        let edge = try rig.client("edges/nagoya")
        edge.hello("nagoya")
        #expect(try edge.welcome().identity.hasSuffix("/edge/nagoya"))
        try FileManager.default.removeItem(atPath: "\(rig.root)/pki/ca/ca.key")
        let keyless = try rig.initialise(["--edge", "kobe"])
        #expect(keyless.status == 1 && keyless.standardError.contains("ca.key"))
        #expect(try rig.initialise(["--edge", "../kobe"]).status == 64)
    }

    @Test func configurationMistakesAreToldAllAtOnce() throws {
        let rig = try Rig(["--edge", "tokyo"])
        // The annotated file is the one `init` writes.
        #expect(
            try String(contentsOfFile: rig.root + "/pki/hub.yaml", encoding: .utf8)
                == String(contentsOfFile: Repository.path("config/hub.yaml"), encoding: .utf8))
        let file = rig.root + "/bad.yaml"
        try Data("listen: nowhere\nmetrics:\n  lissen: off\n".utf8).write(to: URL(fileURLWithPath: file))
        let outcome = try Binaries.run("calib-hub", ["run", "--config", file, "--set", "artifacts_dir="])
        #expect(outcome.status == 78 && outcome.standardError.split(separator: "\n").count == 3)
        #expect(outcome.standardError.contains("bad.yaml:1:9: listen: 'nowhere' is not allowed; HOST:PORT is allowed"))
        #expect(outcome.standardError.contains("metrics.lissen: unknown key; did you mean metrics.listen?"))
        let missing = try Binaries.run("calib-hub", ["run", "--config", rig.root + "/none.yaml"])
        #expect(missing.status == 78)
    }
}
