import Foundation
import TestSupport
import Testing

/// What somebody may do to the disks of a hub and an edge by hand (SPEC 8.2): nothing that was acknowledged is overwritten, no feed stops, and the
/// operator is told. Every message of all that is held to its schema.
@Suite(.enabled(if: ForgetfulDisk.isUsable, "SKIPPED: a sanitizer's library must be the first of a process"))
struct DamageTests {
    /// One hub, one venue, one edge, each of which may be stopped and started again.
    private final class Site {
        let root: String
        let venue: LiveProcess
        var hub: LiveProcess?
        var edge: LiveProcess?
        private var journals = 0

        init() throws {
            root = try Binaries.temporaryDirectory()
            venue = try LiveProcess(
                "calib-lab", ["venue", "--wire", "bybit", "--listen", "127.0.0.1:0", "--symbols", "BTCUSDT,ETHUSDT", "--seed", "3"])
            let outcome = try Binaries.run(
                "calib-hub",
                ["init", "--directory", root + "/pki", "--listen", "127.0.0.1:0", "--edge", "e1", "--operator", "ann"])
            guard outcome.status == 0 else { throw LiveProcess.NotReady(description: outcome.standardError) }
        }

        deinit {
            for process in [edge, hub].compactMap(\.self) {
                process.signal(SIGKILL)
                _ = process.wait()
            }
            venue.signal(SIGTERM)
            _ = venue.wait()
            try? FileManager.default.removeItem(atPath: root)
        }

        /// Both tell what they send.
        private func journal() throws -> [String: String] {
            journals += 1
            return [
                "LD_PRELOAD": try ForgetfulDisk.sharedObject(), "FORGETFUL_TAP": "1", "FORGETFUL_JOURNAL": "\(root)/\(journals).journal",
            ]
        }

        /// `disk`: what surrounds the hub then, instead of what writes down what it sends. `clocks`: one for each, in place of the machine's.
        func start(disk: [String: String]? = nil, clocks: (hub: Clock, edge: Clock)? = nil) throws {
            let hub = try LiveProcess(
                "calib-hub",
                [
                    "run", "--config", root + "/pki/hub.yaml", "--set", "artifacts_dir=\(root)/hub", "--set", "metrics.listen=127.0.0.1:0",
                ], environment: try (disk ?? journal()).merging(clocks?.hub.environment ?? [:]) { $1 })
            self.hub = hub
            let port = try EdgeRig.member("listening", of: hub.firstLine).split(separator: ":")[1]
            let pki = root + "/pki/edges/e1"
            let settings = [
                "host=e1", "artifacts_dir=\(root)/edge", "metrics.listen=127.0.0.1:0", "venue.symbols=BTCUSDT,ETHUSDT",
                "venue.url=ws://\(try EdgeRig.member("listening", of: venue.firstLine))/v5/public/linear",
                "pipeline.pipeline_sample_rate=1",
                "hub.enabled=true", "hub.host=127.0.0.1", "hub.port=\(port)", "hub.server_name=localhost",
                "tls.certificate=\(pki)/cert.pem", "tls.key=\(pki)/key.pem", "tls.authority=\(pki)/ca.pem",
            ]
            edge = try LiveProcess(
                "edge-node", ["run", "--config", Repository.path("config/edge.yaml")] + settings.flatMap { ["--set", $0] },
                environment: try journal().merging(clocks?.edge.environment ?? [:]) { $1 })
        }

        /// What the two said on stderr. The edge ships what it has before it ends.
        func stop() throws -> (hub: String, edge: String) {
            let (hub, edge) = (try #require(hub), try #require(edge))
            edge.signal(SIGTERM)
            #expect(edge.wait() == 0)
            hub.signal(SIGTERM)
            #expect(hub.wait() == 0)
            (self.hub, self.edge) = (nil, nil)
            return (hub.standardError, edge.standardError)
        }

        var own: String { root + "/edge/feeds" }
        var held: String { root + "/hub/feeds/host=e1" }

        static func files(_ directory: String) -> [String: Data] {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            return Dictionary(
                uniqueKeysWithValues: names.filter { $0.hasSuffix(".jsonl") }.map { name in
                    (name, (try? Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(name)"))) ?? Data())
                })
        }

        func wait(_ fact: String, _ isSo: () throws -> Bool) throws {
            let end = Date(timeIntervalSinceNow: 60)
            while try !isSo() {
                guard Date() < end else {
                    throw LiveProcess.NotReady(
                        description: "never: \(fact); \(hub?.standardError.suffix(2000) ?? ""); \(edge?.standardError.suffix(2000) ?? "")")
                }
                usleep(20_000)
            }
        }

        /// The host's entry of `hubctl host list`.
        func host() throws -> [String: Any] {
            let outcome = try Binaries.run(
                "hubctl",
                [
                    "host", "list", "-o", "json", "--context", root + "/pki/operators/ann", "--hub",
                    try EdgeRig.member("listening", of: #require(hub).firstLine),
                ])
            #expect(outcome.status == 0, "\(outcome.standardError)")
            let list = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8))
            let hosts = (list as? [String: Any])?["hosts"] as? [[String: Any]] ?? list as? [[String: Any]] ?? []
            return try #require(hosts.first { $0["host"] as? String == "e1" })
        }

        /// Lines that the programs sent, without the bytes that follow some.
        func messages() throws -> [String] {
            try (1...journals).flatMap { number in
                DiskJournal(try Data(contentsOf: URL(fileURLWithPath: "\(root)/\(number).journal"))).events.compactMap { event in
                    if case .sent(_, let line) = event { line } else { nil }
                }
            }
        }
    }

    /// A wall clock that somebody sets while the program runs.
    private final class Clock {
        let environment: [String: String]
        private let file: FileHandle
        var aheadSeconds: Int64 = 0 {
            didSet {
                file.seek(toFileOffset: 0)
                file.write(withUnsafeBytes(of: aheadSeconds * 1_000_000_000) { Data($0) })
            }
        }

        init(_ path: String) throws {
            try Data(count: 8).write(to: URL(fileURLWithPath: path))
            file = try #require(FileHandle(forWritingAtPath: path))
            environment = ["FORGETFUL_CLOCK": path]
        }
    }

    /// Somebody sets both clocks an hour ahead, one behind the other, and back, and the two meet anew in between.
    @Test func bothClocksAreSetAnHourAheadAndBack() throws {
        let site = try Site()
        let (hub, edge) = (try Clock(site.root + "/hub.clock"), try Clock(site.root + "/edge.clock"))
        func moreOfEach(_ fact: String) throws {
            let before = Site.files(site.held)
            func bytes(_ files: [String: Data], _ feed: String) -> Int {
                files.reduce(0) { $1.key.hasPrefix(feed) ? $0 + $1.value.count : $0 }
            }
            try site.wait(fact) {
                let now = Site.files(site.held)
                return ["pipeline_ticks", "quotes"].allSatisfy { bytes(now, $0) > bytes(before, $0) + 2000 }
            }
        }
        try site.start(clocks: (hub, edge))
        try moreOfEach("rows at the beginning")
        for (clock, hours) in [(edge, 1), (hub, 1), (edge, 0), (hub, -1)] as [(Clock, Int64)] {
            clock.aheadSeconds = hours * 3600
            let offset = (edge.aheadSeconds - hub.aheadSeconds) * 1000
            try moreOfEach("rows with the clock set to \(hours) h")
            try site.wait("the operator sees \(offset) ms") {
                abs((try site.host()["clock_offset_ms"] as? Int ?? 1 << 40) - Int(offset)) < 1000
            }
        }
        let (first, firstEdge) = try site.stop()
        // The hub's clock is behind now: a new connection, and rows of an hour ago behind those of the hour ahead.
        try site.start(clocks: (hub, edge))
        edge.aheadSeconds = -3600
        try moreOfEach("rows on a new connection")
        #expect(try site.host()["quarantined_bytes"] as? Int == 0 && (try site.host()["forks"] as? [Any])?.isEmpty == true)
        let (second, secondEdge) = try site.stop()

        let said = [first, second, firstEdge, secondEdge].joined()
        #expect(!said.contains("\"level\":\"error\""), "\(said.suffix(3000))")
        #expect(Site.files(site.held) == Site.files(site.own), "every byte is there, once")
        let rows = try FeedRows(directory: site.own)
        for feed in rows.feeds {
            let numbers = rows[feed].map { $0.integer("seq") }
            #expect(numbers.sorted() == Array(1...max(1, numbers.count)), "\(feed): every number once")
        }
        let times = rows["pipeline_ticks"].map { $0.integer("ts") }
        #expect((times.max() ?? 0) - (times.min() ?? 0) > 7_000_000)
    }

    @Test func aHubFileCutShort_aByteTurned_anEdgeSetUpAnew_andAnEdgeRestored() throws {
        let site = try Site()
        try site.start()
        try site.wait("five feeds at the hub") { Site.files(site.held).count { !$0.value.isEmpty } >= 5 }
        _ = try site.stop()
        let first = Site.files(site.own)
        #expect(Site.files(site.held) == first, "the hub's files are the edge's")
        try FileManager.default.copyItem(atPath: site.own, toPath: site.root + "/copy")

        // The hub's disk lost the end of one file and turned a bit in another.
        let fills = try #require(first.keys.first { $0.hasPrefix("fills") })
        let ticks = try #require(first.keys.first { $0.hasPrefix("pipeline_ticks") })
        try (try #require(first[fills])).dropLast(100).write(to: URL(fileURLWithPath: "\(site.held)/\(fills)"))
        var turned = try #require(first[ticks])
        turned[turned.count / 2] ^= 4
        try turned.write(to: URL(fileURLWithPath: "\(site.held)/\(ticks)"))
        try site.start()
        try site.wait("more than there was") { Site.files(site.held)[ticks]?.count ?? 0 > turned.count }
        let mended = try site.host()
        #expect((mended["quarantined_bytes"] as? Int ?? 0) >= turned.count / 2, "\(mended)")
        #expect((mended["forks"] as? [Any])?.isEmpty == true && mended["state"] as? String == "connected")
        let (hubSaid, _) = try site.stop()
        #expect(Site.files(site.held) == Site.files(site.own), "every byte is there again")
        #expect(hubSaid.contains("they are in quarantine/"))
        let kept = try FileManager.default.contentsOfDirectory(atPath: site.held + "/quarantine")
        #expect(kept.contains { $0.hasPrefix(ticks) })

        // The edge comes back with its disk as it was: its new rows are other ones than those the hub has had since.
        let second = Site.files(site.held)
        try FileManager.default.removeItem(atPath: site.own)
        try FileManager.default.moveItem(atPath: site.root + "/copy", toPath: site.own)
        try site.start()
        try site.wait("new parts that grow") {
            Site.files(site.held).contains { $0.key.hasPrefix("pipeline_ticks") && $0.key.contains(".1.") && !$0.value.isEmpty }
        }
        let restored = try site.host()
        #expect((restored["forks"] as? [[String: Any]] ?? []).contains { ($0["file"] as? String ?? "").hasPrefix("pipeline_ticks") })
        let (restoredHubSaid, restoredEdgeSaid) = try site.stop()
        #expect(restoredHubSaid.contains("\"fork\"") && restoredEdgeSaid.contains("both histories"))
        let third = Site.files(site.held)
        for (name, bytes) in second { #expect(third[name] == bytes, "\(name) is what it was") }
        // Rows go on above what the hub held, once it has said so.
        func highest(_ files: [String: Data]) throws -> Int {
            let lines = files.filter { $0.key.hasPrefix("pipeline_ticks") }.flatMap {
                String(decoding: $0.value, as: UTF8.self).split(separator: "\n")
            }
            return try lines.map { line in
                let row = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
                return try #require(row?["seq"] as? Int)
            }.max() ?? 0
        }
        #expect(try highest(third.filter { second[$0.key] == nil }) > highest(second))
        let events = try FeedRows(directory: site.own)["events"]
        #expect(events.contains { $0.text("event") == "fork" && $0.object("detail").text("feed") == "pipeline_ticks" })

        // The edge's folder is gone: a new epoch, which goes to parts of its own.
        try FileManager.default.removeItem(atPath: site.own)
        try site.start()
        try site.wait("all of the new epoch") {
            Site.files(site.held).contains { $0.key.hasPrefix("fills") && !third.keys.contains($0.key) && !$0.value.isEmpty }
        }
        let (_, newEdgeSaid) = try site.stop()
        #expect(newEdgeSaid.contains("both histories"))
        let fourth = Site.files(site.held)
        for (name, bytes) in third { #expect(fourth[name] == bytes, "\(name) is what it was") }
        for (name, bytes) in Site.files(site.own) {
            #expect(fourth.values.contains(bytes), "\(name) is at the hub, from its first byte on")
        }

        try check(try site.messages())
    }

    /// The hub's disk takes nothing for a while: the connection stays, everything comes in the end.
    @Test func theHubsDiskIsFullForAWhile() throws {
        let site = try Site()
        try FileManager.default.createDirectory(atPath: site.root + "/hub", withIntermediateDirectories: true)
        let disk = try ForgetfulDisk(site.root + "/hub")
        try site.start(disk: try disk.environment(["FORGETFUL_FULL_AFTER": "60000"]))
        try site.wait("a complaint") { site.hub?.standardError.contains("A feed cannot be stored") == true }
        try site.wait("the disk takes rows again") { Site.files(site.held).reduce(0) { $0 + $1.value.count } > 100_000 }
        try site.wait("nothing is stalled any more") { try site.host()["stalled"] as? Bool == false }
        let (hub, _) = try site.stop()
        #expect(hub.split(separator: "\n").count { $0.contains("Welcome.") && $0.contains("edge/e1") } == 1, "the connection stays")
        #expect(Site.files(site.held) == Site.files(site.own))
    }

    /// By Python's validator. A schema names every field, so a field nobody described fails, too.
    private func check(_ messages: [String]) throws {
        let python = "/usr/bin/python3"
        guard (try? Binaries.run(python, ["-c", "import jsonschema"]))?.status == 0 else {
            Issue.record("no JSON Schema validator: install python3-jsonschema, as deploy/test does")
            return
        }
        let script = """
            import json, sys, warnings
            warnings.simplefilter("ignore")
            import jsonschema
            proto, kinds, checks = sys.argv[1], {}, {}
            def validator(kind):
                path = "%s/messages/%s.schema.json" % (proto, kind)
                with open(path) as file: schema = json.load(file)
                return jsonschema.validators.validator_for(schema)(schema, resolver=jsonschema.RefResolver("file://" + path, schema))
            for line in open(sys.argv[2]):
                message = json.loads(line)
                kind = message["type"]
                if kind not in checks: checks[kind] = validator(kind)
                for error in checks[kind].iter_errors(message): sys.exit("%s: %s" % (line[:300], error.message))
                kinds[kind] = kinds.get(kind, 0) + 1
            print(json.dumps(kinds))
            """
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try Data((messages.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: folder + "/messages"))
        let outcome = try Binaries.run(python, ["-c", script, Repository.path("proto-json"), folder + "/messages"], deadline: 120)
        #expect(outcome.status == 0, "\(outcome.standardError.suffix(600))")
        let kinds = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Int] ?? [:]
        for kind in ["hello", "welcome", "resume", "append", "ack", "status", "assignment", "reply"] {
            #expect(kinds[kind] ?? 0 > 0, "no '\(kind)' was sent: \(kinds)")
        }
    }
}
