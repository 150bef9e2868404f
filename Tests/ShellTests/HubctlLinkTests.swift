import Foundation
import NIOCore
import NIOPosix
import NodeShell
import Synchronization
import TestSupport
import Testing
import Wire

/// The real `hubctl` against a hub that answers by a script, over real TLS.
@Suite struct HubctlLinkTests {
    /// A hub that says what it is told, and an operator's folder for it.
    private final class ScriptedHub: Sendable {
        enum Step: Sendable {
            case message(Message, payload: [UInt8])
            /// Cuts the connection.
            case hangUp
            static func reply(_ json: String) -> Step {
                .message(.reply(.init(id: 1, outcome: .ok(try! JSONValue.parse(Array(json.utf8))))), payload: [])
            }
            static func failed(_ code: String, _ text: String, _ exit: Int64) -> Step {
                .message(.reply(.init(id: 1, outcome: .failed(code: code, text: text, exit: exit))), payload: [])
            }
            static func chunk(_ offset: Int, _ bytes: [UInt8]) -> Step {
                .message(.chunk(.init(id: 1, offset: Int64(offset), bytes: bytes.count)), payload: bytes)
            }
            static func progress(_ done: Int64, _ total: Int64) -> Step {
                .message(.progress(.init(id: 1, done: done, total: total, text: "of feeds")), payload: [])
            }
        }

        let fleet: Fleet
        let hub: TestHub
        let directory: String
        private let asked: Asked

        /// Shared with the hub's closure, which outlives its creation.
        private final class Asked: Sendable {
            let requests = Mutex<[Message.Request]>([])
        }

        init(_ script: [String: [Step]], greeting: Message? = nil) async throws {
            fleet = try Fleet()
            directory = try Binaries.temporaryDirectory()
            let asked = Asked()
            self.asked = asked
            hub = try await TestHub(fleet.hub()) { event, link in
                guard case .received(let frame) = event else { return }
                switch frame.message {
                case .hello:
                    link.send(
                        greeting
                            ?? .welcome(
                                Message.Welcome(
                                    software: "test", identity: link.identity?.uri ?? "", revision: .zero, wallMilliseconds: 0,
                                    highestSeq: [])))
                case .request(let request):
                    asked.requests.withLock { $0.append(request) }
                    for step in script[request.verb] ?? [] {
                        switch step {
                        case .message(let message, let payload): link.send(message, payload: payload)
                        case .hangUp:
                            link.flush()
                            link.close()
                        }
                    }
                case .ping(let number): link.send(.pong(number: number))
                default: break
                }
                link.flush()
            }
            try writeContext(fleet.files("spiffe://test/operator/alice"))
        }

        deinit { try? FileManager.default.removeItem(atPath: directory) }

        var port: Int { hub.port }
        var requests: [Message.Request] { asked.requests.withLock { $0 } }

        func writeContext(_ files: TLSFiles, serverName: String = "hub.test", more: String = "") throws {
            try """
            hub: 127.0.0.1:\(port)
            server_name: \(serverName)
            certificate: \(files.certificate)
            key: \(files.key)
            authority: \(files.authority)
            \(more)
            """.write(toFile: "\(directory)/context.yaml", atomically: true, encoding: .utf8)
        }

        func hubctl(_ arguments: String..., environment: [String: String]? = nil) throws -> Binaries.Outcome {
            try hubctl(arguments + ["--context", directory], environment: environment)
        }
        func hubctl(_ arguments: [String], environment: [String: String]? = nil) throws -> Binaries.Outcome {
            try Binaries.run("hubctl", arguments, in: directory, environment: environment)
        }
        func write(_ bytes: [UInt8], to path: String) throws {
            let url = URL(fileURLWithPath: "\(directory)/\(path)")
            try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(bytes).write(to: url)
        }
        func file(_ path: String) -> [UInt8]? { FileManager.default.contents(atPath: "\(directory)/\(path)").map(Array.init) }
    }

    private static let hosts = #"""
        {"hosts":[{"host":"edge-1","state":"connected","first_seen_ms":1,"last_seen_ms":1735689600000,"epoch":"00c0ffee00c0ffee","source":"sim","venue":"bybit","symbols":["BTCUSDT","ETHUSDT"],"revision":"1.12","backlog_bytes":0,"clock_offset_ms":-3,"killed":false,"experiment":"exp-2","lease_expires_ms":1735689615000,"files":[{"file":"fills_20250101.jsonl","length":12}],"forks":[]},{"host":"edge,\"2\"\u001b[2J","state":"lost","first_seen_ms":null,"last_seen_ms":null,"epoch":null,"source":null,"venue":null,"symbols":[],"revision":null,"backlog_bytes":null,"clock_offset_ms":null,"killed":null,"experiment":null,"lease_expires_ms":null,"files":[],"forks":[]}]}
        """#

    private static let rollback = #"""
        {"command":"rollback-1f","kind":"rollback","scope":"experiment exp-2","experiment":"exp-2","host":null,"symbol":null,"reason":"B pays, more","by":"spiffe://test/operator/alice","issued_ms":1735689700000,"in_force":null,"hosts":[{"host":"edge-1","state":"latched","sent_ms":1735689700001,"applied_ms":1735689700004,"latched_ms":1735689700018,"applied_latency_ms":3.25,"latched_latency_ms":17.0,"edge_applied_at_ms":1735689700003,"cancelled_orders":4,"safe_at_ms":null,"text":null},{"host":"edge-2","state":"unconfirmed","sent_ms":null,"applied_ms":null,"latched_ms":null,"applied_latency_ms":null,"latched_latency_ms":null,"edge_applied_at_ms":null,"cancelled_orders":null,"safe_at_ms":1735689716000,"text":null}]}
        """#

    // MARK: Lists

    @Test func listsComeInEveryForm() async throws {
        let hub = try await ScriptedHub(["host list": [.reply(Self.hosts)]])
        let table = try hub.hubctl("host", "list")
        #expect(table.status == 0 && table.standardError == "", "\(table.standardError)")
        #expect(
            table.standardOutput
                == """
                HOST          STATE      LAST SEEN                 SOURCE  VENUE  SYMBOLS          REVISION  BACKLOG  CLOCK OFF MS  KILLED  EXPERIMENT  LEASE UNTIL               FILES  FORKS
                edge-1        connected  2025-01-01T00:00:00.000Z  sim     bybit  BTCUSDT,ETHUSDT  1.12            0            -3  no      exp-2       2025-01-01T00:00:15.000Z      1      0
                edge,"2"?[2J  lost       -                         -       -      -                -               -             -  -       -           -                             0      0

                """, "\(table.standardOutput)")
        #expect(try hub.hubctl("host", "list", "-o", "json").standardOutput == Self.hosts + "\n")
        let lines = try hub.hubctl("host", "list", "-o", "jsonl").standardOutput.split(separator: "\n")
        #expect(lines.count == 2 && lines[0].hasPrefix(#"{"host":"edge-1","state":"connected""#) && lines[1].hasSuffix(#""forks":[]}"#))
        let csv = try hub.hubctl("host", "list", "-o", "csv").standardOutput
        #expect(
            csv == "host,state,last_seen_ms,source,venue,symbols,revision,backlog_bytes,clock_offset_ms,killed,experiment,"
                + "lease_expires_ms,files,forks\r\n"
                + "edge-1,connected,1735689600000,sim,bybit,BTCUSDT ETHUSDT,1.12,0,-3,false,exp-2,1735689615000,1,0\r\n"
                + "\"edge,\"\"2\"\"\u{1b}[2J\",lost,,,,,,,,,,,0,0\r\n", "\(csv)")
        #expect(hub.requests.allSatisfy { $0 == Message.Request(id: 1, verb: "host list", arguments: [:]) })
        await hub.hub.close()
    }

    @Test func emptyListIsNoFailure() async throws {
        let hub = try await ScriptedHub([
            "host list": [.reply(#"{"hosts":[]}"#)],
            // Too long for a line: it comes in chunks, and the reply's body is null.
            "experiment list": [
                .chunk(0, Array(#"{"experiments""#.utf8)), .chunk(14, Array(":[]}".utf8)), .reply("null"),
            ],
        ])
        let json = try hub.hubctl("host", "list", "-o", "json")
        #expect(json.status == 0 && json.standardOutput == "{\"hosts\":[]}\n")
        let table = try hub.hubctl("host", "list")
        #expect(table.status == 0 && table.standardOutput == "" && table.standardError == "no hosts\n")
        #expect(try hub.hubctl("experiment", "list", "-o", "json").standardOutput == "{\"experiments\":[]}\n")
        await hub.hub.close()
    }

    // MARK: Orders

    @Test func rollbackShowsEachHostsLatency() async throws {
        let hub = try await ScriptedHub([
            "experiment rollback": [.reply(Self.rollback)], "command list": [.reply("{\"commands\":[\(Self.rollback)]}")],
        ])
        let outcome = try hub.hubctl("experiment", "rollback", "exp-2", "--reason", "B pays, more")
        #expect(outcome.status == 0)
        #expect(outcome.standardError == "command rollback-1f\n")
        #expect(
            outcome.standardOutput == """
                HOST    STATE        APPLIED (ms)  LATCHED (ms)  CANCELLED  SAFE AT                   TEXT
                edge-1  latched              3.25          17.0          4  -                         -
                edge-2  unconfirmed             -             -          -  2025-01-01T00:01:56.000Z  -

                """, "\(outcome.standardOutput)")
        #expect(
            hub.requests == [
                Message.Request(
                    id: 1, verb: "experiment rollback", arguments: ["id": "exp-2", "reason": "B pays, more", "timeout_ms": "10000"])
            ])
        #expect(
            try hub.hubctl("command", "list").standardOutput == """
                COMMAND      KIND      SCOPE             ISSUED                    HOST    STATE        APPLIED (ms)  LATCHED (ms)  CANCELLED  BY                            REASON
                rollback-1f  rollback  experiment exp-2  2025-01-01T00:01:40.000Z  edge-1  latched              3.25          17.0          4  spiffe://test/operator/alice  B pays, more
                rollback-1f  rollback  experiment exp-2  2025-01-01T00:01:40.000Z  edge-2  unconfirmed             -             -          -  spiffe://test/operator/alice  B pays, more

                """)
        #expect(
            try hub.hubctl("command", "list", "-o", "csv").standardOutput.split(separator: "\r\n").last
                == "rollback-1f,rollback,experiment exp-2,1735689700000,edge-2,unconfirmed,,,,spiffe://test/operator/alice,\"B pays, more\""
        )
        let usage = try hub.hubctl("experiment", "rollback", "exp-2")
        #expect(usage.status == 64 && usage.standardError.contains("--reason"))
        #expect(try hub.hubctl("experiment", "rollback", "exp-2", "--reason", " ").status == 64)
        await hub.hub.close()
    }

    @Test(arguments: [
        ("timeout", "edge-2 has not latched it", Int64(3), Int32(3)), ("unknown_experiment", "there is no experiment 'x'", 2, 2),
        ("not_authorised", "viewers may only read", 4, 4), ("second_operator", "another operator releases it", 4, 4),
        ("failed", "the disk is full", 1, 1),
    ])
    func hubsRefusalIsTheExitStatus(code: String, text: String, exit: Int64, status: Int32) async throws {
        let hub = try await ScriptedHub(["experiment rollback": [.failed(code, text, exit)]])
        let outcome = try hub.hubctl("experiment", "rollback", "x", "--reason", "r")
        #expect(outcome.status == status && outcome.standardError == "hubctl: \(text)\n" && outcome.standardOutput == "")
        let json = try hub.hubctl("experiment", "rollback", "x", "--reason", "r", "-o", "json")
        #expect(json.standardError == "{\"error\":\"\(text)\",\"hint\":null,\"exit_code\":\(status),\"code\":\"\(code)\"}\n")
        await hub.hub.close()
    }

    @Test func killNamesExactlyOneScope() async throws {
        let hub = try await ScriptedHub(["kill": [.reply(Self.rollback)], "kill release": [.reply(Self.rollback)]])
        #expect(try hub.hubctl("kill", "--all", "--reason", "r").status == 0)
        #expect(try hub.hubctl("kill", "--host", "edge-1", "--symbol", "BTCUSDT", "--reason", "r", "--timeout", "2").status == 0)
        #expect(try hub.hubctl("kill", "--release", "--symbol", "BTCUSDT", "--reason", "r").status == 0)
        #expect(
            hub.requests.map(\.verb) == ["kill", "kill", "kill release"]
                && hub.requests.map(\.arguments) == [
                    ["all": "true", "reason": "r", "timeout_ms": "10000"],
                    ["host": "edge-1", "symbol": "BTCUSDT", "reason": "r", "timeout_ms": "2000"],
                    ["symbol": "BTCUSDT", "reason": "r", "timeout_ms": "10000"],
                ])
        for wrong in [["kill", "--reason", "r"], ["kill", "--all", "--host", "h", "--reason", "r"], ["kill", "--all"]] {
            #expect(try hub.hubctl(wrong + ["--context", hub.directory]).status == 64, "\(wrong)")
        }
        await hub.hub.close()
    }

    @Test func experimentsAreCreatedListedAndShown() async throws {
        let spec =
            #"{"id":"exp-2","design":"symbol","mode":"online","created_ms":1735689590000,"salt":"000102030405060708090a0b0c0d0e0f","split":0.5,"symbols_a":["ETHUSDT"],"symbols_b":["BTCUSDT"],"candidate":{"spread.base_bps":"1.4"},"state":"online","reason":"wider","by":"alice","changed_ms":1735689590000}"#
        let shown =
            #"{"experiment":\#(spec),"state":"online","hosts":[{"host":"edge-1","state":"connected","lease":null,"arms":[{"symbol":"BTCUSDT","intended":"B","reported":"A","why":"lease"},{"symbol":"ETHUSDT","intended":"A","reported":null,"why":null}]}],"commands":[]}"#
        let hub = try await ScriptedHub([
            "experiment create": [.reply("{\"experiment\":\(spec)}")], "experiment list": [.reply("{\"experiments\":[\(spec)]}")],
            "experiment get": [.reply(shown)],
        ])
        let created = try hub.hubctl(
            "experiment", "create", "--id", "exp-2", "--design", "symbol", "--split", "0.5", "--candidate", "spread.base_bps=1.4",
            "a.b=true", "--symbols",
            "BTCUSDT",
            "ETHUSDT", "--reason", "wider")
        #expect(created.status == 0, "\(created.standardError)")
        #expect(
            hub.requests.first?.arguments == [
                "id": "exp-2", "design": "symbol", "split": "0.5", "candidate": "spread.base_bps=1.4,a.b=true",
                "symbols": "BTCUSDT,ETHUSDT", "reason": "wider",
            ])
        let row = """
            EXPERIMENT  STATE   DESIGN  MODE    SPLIT  A  B  CREATED                   CHANGED                   VERDICT  BY     REASON
            exp-2       online  symbol  online    0.5  1  1  2024-12-31T23:59:50.000Z  2024-12-31T23:59:50.000Z  -        alice  wider

            """
        #expect(created.standardOutput == row, "\(created.standardOutput)")
        #expect(try hub.hubctl("experiment", "list").standardOutput == row)
        #expect(
            try hub.hubctl("experiment", "get", "exp-2").standardOutput == row + "\n" + """
                HOST    STATE      SYMBOL   INTENDED  REPORTED  WHY
                edge-1  connected  BTCUSDT  B         A         lease
                edge-1  connected  ETHUSDT  A         -         -

                """)
        for wrong in [
            ["--split", "1.5", "--candidate", "a=b"], ["--split", "0.5", "--candidate", "ab"], ["--split", "x", "--candidate", "a=b"],
            ["--split", "0.5", "--candidate", "a=b", "--id", "a/b"],
        ] {
            #expect(
                try hub.hubctl(["experiment", "create", "--design", "symbol", "--reason", "r", "--context", hub.directory] + wrong).status
                    == 64, "\(wrong)")
        }
        await hub.hub.close()
    }

    // MARK: Documents

    @Test func datasetIsBuiltAtTheHub_unlessFilesAreAskedFor() async throws {
        let hub = try await ScriptedHub([
            "dataset build": [
                .progress(1, 2), .progress(2, 2),
                .reply(
                    #"{"name":"calib_a.json","sha256":"00ff","status":"written","kept_intervals":3,"filtered_intervals":1,"rejected_lines":0,"manifest":"calib_a.manifest.json"}"#
                ),
            ]
        ])
        let range = ["dataset", "build", "--from-ts", "2025-01-01", "--to-ts", "2025-01-02"]
        let built = try hub.hubctl(
            range + ["--symbols", "BTCUSDT", "ETHUSDT", "--arm", "all", "--per-host", "--context", hub.directory])
        #expect(built.status == 0, "\(built.standardError)")
        #expect(
            built.standardOutput == """
                status          written
                dataset         calib_a.json
                manifest        calib_a.manifest.json
                sha256          00ff
                kept            3
                filtered        1
                rejected lines  0

                """)
        #expect(!built.standardError.contains("\u{1b}"), "progress is for terminals")
        #expect(
            hub.requests.map(\.arguments) == [
                [
                    "from_ms": "1735689600000", "to_ms": "1735776000000", "interval_sec": "300", "symbols": "BTCUSDT,ETHUSDT", "arm": "all",
                    "per_host": "true", "max_deadline_miss": "0.05", "min_samples": "10",
                ]
            ])
        // By files: nothing reaches the hub.
        for more in [["--offline"], ["--feeds-dir", "."]] {
            let offline = try hub.hubctl(range + more + ["--context", hub.directory])
            #expect(offline.status == 1, "\(offline.standardError)")
        }
        #expect(try hub.hubctl(range).standardError.contains("artifacts/edge/feeds"), "without a context it is files, as ever")
        #expect(hub.requests.count == 1)
        #expect(try hub.hubctl(range + ["--output-dir", "x", "--context", hub.directory]).status == 64)
        await hub.hub.close()
    }

    @Test func pulledDocumentIsCheckedAndWhole() async throws {
        let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let reply = ScriptedHub.Step.reply(
            "{\"name\":\"calib_a.json\",\"bytes\":\(bytes.count),\"sha256\":\"\(Digest.sha256(bytes))\"}")
        let whole: [ScriptedHub.Step] = [
            .chunk(0, Array(bytes[..<100_000])), .chunk(100_000, Array(bytes[100_000..<299_999])), .chunk(299_999, [bytes[299_999]]), reply,
        ]
        var flipped = Array(bytes[100_000...])
        flipped[7] ^= 1
        let hub = try await ScriptedHub([
            "dataset pull": whole, "report pull": [.chunk(0, Array(bytes[..<100_000])), .chunk(100_000, flipped), reply],
        ])
        let first = try hub.hubctl("dataset", "pull", "calib_a.json", "--output-dir", "here")
        #expect(first.status == 0, "\(first.standardError)")
        #expect(first.standardOutput.hasPrefix("status          written\nfile            here/calib_a.json\nbytes           300000\n"))
        #expect(hub.file("here/calib_a.json") == bytes)
        #expect(hub.requests == [Message.Request(id: 1, verb: "dataset pull", arguments: ["name": "calib_a.json"])])
        let again = try hub.hubctl("dataset", "pull", "calib_a.json", "--output-dir", "here", "-o", "json")
        #expect(again.standardOutput.hasPrefix(#"{"status":"unchanged","name":"calib_a.json""#))

        try "other".write(toFile: "\(hub.directory)/here/calib_a.json", atomically: true, encoding: .utf8)
        let other = try hub.hubctl("dataset", "pull", "calib_a.json", "--output-dir", "here")
        #expect(other.status == 1 && other.standardError.contains("--replace"))
        #expect(hub.file("here/calib_a.json") == Array("other".utf8))
        let replaced = try hub.hubctl("dataset", "pull", "calib_a.json", "--output-dir", "here", "--replace")
        #expect(replaced.standardOutput.hasPrefix("status          replaced\n") && hub.file("here/calib_a.json") == bytes)

        let damaged = try hub.hubctl("report", "pull", "calib_a.json", "--output-dir", "there")
        #expect(damaged.status == 1 && damaged.standardError.contains("sha256"), "\(damaged.standardError)")
        #expect(hub.file("there/calib_a.json") == nil)
        #expect(try hub.hubctl("report", "pull", "../calib_a.json").status == 64)
        await hub.hub.close()
    }

    /// The two kinds of documents stand for two tries: a hub that is lost on the way, then one that goes on.
    @Test func pullGoesOnWhereTheLastOneStopped() async throws {
        let bytes = (0..<3_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let reply = ScriptedHub.Step.reply(
            "{\"name\":\"calib_a.json\",\"bytes\":\(bytes.count),\"sha256\":\"\(Digest.sha256(bytes))\"}")
        let hub = try await ScriptedHub([
            "dataset pull": [.chunk(0, Array(bytes[..<1_000])), .chunk(1_000, Array(bytes[1_000..<2_000])), .hangUp],
            "report pull": [.chunk(2_000, Array(bytes[2_000...])), reply],
        ])
        // What is there before the first try, and longer, is another document's: the hub begins anew, and what is kept is what came last, not both.
        let stranger = [UInt8](repeating: 7, count: 5_000)
        try hub.write(stranger, to: "here/.calib_a.json.part")
        for _ in 0..<2 {
            let lost = try hub.hubctl("dataset", "pull", "calib_a.json", "--output-dir", "here")
            #expect(lost.status == 69, "\(lost.standardError)")
            #expect(hub.file("here/calib_a.json") == nil)
            #expect(hub.file("here/.calib_a.json.part") == Array(bytes[..<2_000]))
        }
        let whole = try hub.hubctl("report", "pull", "calib_a.json", "--output-dir", "here")
        #expect(whole.status == 0, "\(whole.standardError)")
        #expect(hub.file("here/calib_a.json") == bytes && hub.file("here/.calib_a.json.part") == nil)
        func arguments(holding held: [UInt8]) -> [String: String] {
            ["name": "calib_a.json", "offset": "\(held.count)", "sha256": Digest.sha256(held)]
        }
        let half = arguments(holding: Array(bytes[..<2_000]))
        #expect(hub.requests.map(\.arguments) == [arguments(holding: stranger), half, half])
        await hub.hub.close()
    }

    @Test func answersThatAreNotWhatWasAskedAreRefused() async throws {
        let sha256 = Digest.sha256([1])
        let hub = try await ScriptedHub([
            "dataset pull": [.chunk(0, [1]), .reply("{\"name\":\"../../x\",\"bytes\":1,\"sha256\":\"\(sha256)\"}")],
            "report pull": [.chunk(0, [1]), .chunk(2, [2]), .reply("{\"name\":\"x\",\"bytes\":1,\"sha256\":\"\(sha256)\"}")],
            "report build": [.reply(#"{"name":"ab_run_20250101_000000.md"}"#)],
        ])
        let name = try hub.hubctl("dataset", "pull", "x")
        #expect(name.status == 1 && name.standardError.contains("instead of 'x'"), "\(name.standardError)")
        let hole = try hub.hubctl("report", "pull", "x")
        #expect(hole.status == 1 && hole.standardError.contains("hole at byte 1"), "\(hole.standardError)")
        #expect(try hub.hubctl("report", "build", "--experiment", "exp-2").standardOutput == "ab_run_20250101_000000.md\n")
        #expect(try hub.hubctl("report", "build").status == 64)
        await hub.hub.close()
    }

    // MARK: No answer

    @Test func hubThatIsNotThereIs69() async throws {
        let hub = try await ScriptedHub([:])
        let wrongName = try hub.fleet.files("spiffe://test/operator/alice")
        try hub.writeContext(wrongName, serverName: "other.test")
        let name = try hub.hubctl("host", "list")
        #expect(name.status == 69 && name.standardError.contains("other.test"), "\(name.standardError)")

        let stranger = try Fleet()
        var files = try hub.fleet.files("spiffe://test/operator/alice")
        files.authority = stranger.authorityPath
        try hub.writeContext(files)
        #expect(try hub.hubctl("host", "list").status == 69, "the hub's certificate is of another authority")

        await hub.hub.close()
        let gone = try hub.hubctl("host", "list")
        #expect(gone.status == 69 && gone.standardError.hasPrefix("hubctl: cannot connect to the hub at 127.0.0.1:\(hub.port)"))
        #expect(gone.standardError.split(separator: "\n").count == 2 && gone.standardError.contains("\nhint: "), "\(gone.standardError)")
    }

    /// A certificate the hub does not take is 4, whether TLS refuses it or the hub does.
    @Test func certificateThatIsRefusedIs4() async throws {
        let stranger = try Fleet()
        var files = try stranger.files("spiffe://test/operator/mallory")
        let hub = try await ScriptedHub([:], greeting: .error(code: "not_authorised", text: "edges ask nothing"))
        files.authority = hub.fleet.authorityPath
        try hub.writeContext(files)
        let refused = try hub.hubctl("host", "list")
        #expect(refused.status == 4 && refused.standardError.contains("does not accept this certificate"), "\(refused.standardError)")
        try hub.writeContext(hub.fleet.files("spiffe://test/operator/alice", days: -1))
        let expired = try hub.hubctl("host", "list")
        #expect(expired.status == 4, "\(expired.standardError)")
        try hub.writeContext(hub.fleet.files("spiffe://test/edge/e1"))
        let edge = try hub.hubctl("host", "list")
        #expect(edge.status == 4 && edge.standardError == "hubctl: the hub refused: edges ask nothing\n", "\(edge.standardError)")
        await hub.hub.close()
    }

    @Test func hubThatFallsSilentOrLeavesIsSaidSo() async throws {
        let hub = try await ScriptedHub(["dataset list": [], "report list": [.progress(1, 10), .hangUp]])
        let silent = try hub.hubctl("dataset", "list", "--timeout", "1")
        #expect(
            silent.status == 3 && silent.standardError.contains("has not answered 'dataset list' within 1 s"), "\(silent.standardError)")
        let left = try hub.hubctl("report", "list")
        #expect(left.status == 69 && left.standardError.contains("lost before it answered"), "\(left.standardError)")
        await hub.hub.close()
    }

    @Test func contextThatSaysTooLittleOrTooMuchIs78() async throws {
        let hub = try await ScriptedHub(["host list": [.reply(#"{"hosts":[]}"#)]])
        #expect(try hub.hubctl(["host", "list"]).status == 78)
        #expect(try hub.hubctl(["host", "list", "--context", "nowhere"]).status == 78)
        #expect(try hub.hubctl(["host", "list", "--hub", "127.0.0.1:\(hub.port)"]).status == 78)
        #expect(try hub.hubctl("host", "list", "--hub", "nonsense").status == 78)
        let files = try hub.fleet.files("spiffe://test/operator/alice")
        try hub.writeContext(files, more: "servername: x")
        let unknown = try hub.hubctl("host", "list")
        #expect(
            unknown.status == 78 && unknown.standardError.contains("context.yaml:6:13: servername: unknown key"), "\(unknown.standardError)"
        )
        var missing = files
        missing.key = "/nowhere/key.pem"
        try hub.writeContext(missing)
        #expect(try hub.hubctl("host", "list").status == 78)
        // The environment names a context, options win over it, and files in it are relative to its folder.
        try FileManager.default.copyItem(atPath: files.key, toPath: "\(hub.directory)/mine.key")
        missing.key = "mine.key"
        try hub.writeContext(missing, serverName: "other.test")
        let environment = ProcessInfo.processInfo.environment.merging(["CALIBRANT_CONTEXT": hub.directory]) { $1 }
        let good = try hub.hubctl(["host", "list", "-o", "json", "--server-name", "hub.test"], environment: environment)
        #expect(good.status == 0 && good.standardOutput == "{\"hosts\":[]}\n", "\(good.standardError)")
        await hub.hub.close()
    }
}
