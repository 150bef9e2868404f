import Foundation
import TestSupport
import Testing

/// Real processes on disks that forget what was not synced, killed at any step, over connections that are cut at any byte (SPEC 2.7, 8.2, 8.6).
///
/// Each program runs with a number: at that call that changes its disk, or that sends something, it is killed, then the power of its disk fails,
/// then it starts again; some lives find the disk full or a sync failing. `CALIBRANT_KILLS` kills (default 12) after the seed `CALIBRANT_SEED`.
@Suite(.serialized) struct NothingLostTests {
    private static let hosts = ["edge-a", "edge-b"]
    @Test(
        .enabled(
            if: ForgetfulDisk.isUsable,
            "SKIPPED: a sanitizer's library must be the first of a process; without the disk that forgets this proves nothing"))
    func kills_powerLosses_andCutConnections_loseNothingThatWasSyncedOrAcknowledged() throws {
        let settings = ProcessInfo.processInfo.environment
        let kills = settings["CALIBRANT_KILLS"].flatMap { Int($0) } ?? 12
        let seed = settings["CALIBRANT_SEED"].flatMap { UInt64($0) } ?? 1
        let begun = Date()
        let fleet = try Fleet(seed: seed)
        defer { fleet.end() }
        var told = 0
        while fleet.kills < kills, fleet.problems.isEmpty {
            try fleet.step()
            guard fleet.kills / 100 > told else { continue }
            told = fleet.kills / 100
            print(fleet.report)
        }
        try fleet.heal()
        #expect(fleet.problems == [], "seed \(seed)")
        try fleet.compare()
        let report = "\(fleet.report), \(Int(Date().timeIntervalSince(begun))) s, seed \(seed)"
        print(report)
        #expect(fleet.acknowledgements > 0 && fleet.lost.bytes + fleet.lost.names > 0, "\(report): nothing was at stake")
    }

    /// One program, its disk, and what it has promised.
    private final class Node {
        let name: String
        let program: String
        let arguments: [String]
        let disk: ForgetfulDisk
        var process: LiveProcess?
        var endsAt = Date()
        var hasFault = false
        /// How much of a file it must still have, and for an edge with which bytes.
        var promised: [String: Int] = [:]
        var kept: [String: Data] = [:]

        init(_ name: String, _ program: String, _ arguments: [String], _ root: String) throws {
            (self.name, self.program, self.arguments) = (name, program, arguments)
            try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
            disk = try ForgetfulDisk(root)
        }

        func bytes(_ path: String) -> Data? { try? Data(contentsOf: URL(fileURLWithPath: "\(disk.root)/\(path)")) }
        func length(_ path: String) -> Int {
            (try? FileManager.default.attributesOfItem(atPath: "\(disk.root)/\(path)")[.size] as? Int) ?? 0
        }
    }

    private final class Fleet {
        private var random: SeededRandom
        private let directory: String
        private let venue: LiveProcess
        private let proxy: CuttingProxy
        private let hub: Node
        private let edges: [Node]
        private(set) var kills = 0
        private(set) var problems: [String] = []
        private(set) var acknowledgements = 0
        private(set) var lost = ForgetfulDisk.Loss()
        private var failedSyncs = 0
        private var starts = 0

        init(seed: UInt64) throws {
            random = SeededRandom(seed: seed)
            directory = try Binaries.temporaryDirectory()
            let directory = directory
            venue = try LiveProcess(
                "calib-lab", ["venue", "--wire", "bybit", "--listen", "127.0.0.1:0", "--symbols", "BTCUSDT,ETHUSDT", "--seed", "3"])
            let initialised = try Binaries.run(
                "calib-hub",
                ["init", "--directory", directory + "/pki", "--listen", "127.0.0.1:0"] + NothingLostTests.hosts.flatMap { ["--edge", $0] })
            guard initialised.status == 0 else { throw LiveProcess.NotReady(description: initialised.standardError) }
            proxy = try CuttingProxy(seed: seed, bytesMax: 1 << 18)
            hub = try Node(
                "hub", "calib-hub",
                [
                    "run", "--config", directory + "/pki/hub.yaml", "--set", "artifacts_dir=\(directory)/hub", "--set",
                    "metrics.listen=127.0.0.1:0",
                ],
                directory + "/hub")
            let url = "ws://\(try EdgeRig.member("listening", of: venue.firstLine))/v5/public/linear"
            let port = proxy.port
            edges = try NothingLostTests.hosts.map { host in
                let pki = "\(directory)/pki/edges/\(host)"
                let settings = [
                    "host=\(host)", "artifacts_dir=\(directory)/\(host)", "venue.name=sim", "venue.url=\(url)",
                    "venue.symbols=BTCUSDT,ETHUSDT", "pipeline.pipeline_sample_rate=1", "hub.enabled=true", "hub.host=127.0.0.1",
                    "hub.port=\(port)", "hub.server_name=localhost", "tls.certificate=\(pki)/cert.pem", "tls.key=\(pki)/key.pem",
                    "tls.authority=\(pki)/ca.pem", "metrics.listen=127.0.0.1:0",
                ]
                return try Node(
                    host, "edge-node", ["run", "--config", Repository.path("config/edge.yaml")] + settings.flatMap { ["--set", $0] },
                    "\(directory)/\(host)")
            }
        }

        func end() {
            proxy.stop()
            for node in [hub] + edges {
                node.process?.signal(SIGKILL)
                _ = node.process?.wait()
            }
            venue.signal(SIGTERM)
            _ = venue.wait()
            if problems.isEmpty {
                try? FileManager.default.removeItem(atPath: directory)
            } else {
                print("The disks are left in \(directory).")
            }
        }

        var report: String {
            let cut = proxy.counts
            return """
                \(kills) kills in \(starts) lives, \(acknowledgements) acknowledgements, lost \(lost.bytes) bytes, \(lost.zeroPages) pages, \
                \(lost.names) names, \(failedSyncs) failed syncs; \(cut.connections) connections, \(cut.cuts) cut, \(cut.halfOpen) half open, \
                \(cut.bytes) bytes
                """
        }

        // MARK: Killing

        /// Starts what does not run; buries what has ended.
        func step() throws {
            for node in [hub] + edges {
                switch node.process {
                case nil: try start(node, isMortal: true)
                case let process? where !process.isRunning: try bury(node, process.wait())
                case let process? where Date() > node.endsAt: process.signal(SIGKILL)
                case .some: break
                }
            }
            usleep(2000)
        }

        private func start(_ node: Node, isMortal: Bool) throws {
            var settings = ["FORGETFUL_TAP": "1"]
            if isMortal {
                // A start takes some sixty points; behind it, a second some hundreds.
                let most = [80, 300, 1000][random.next(below: 3)]
                settings["FORGETFUL_KILL_AT"] = "\(1 + random.next(below: most))"
                switch random.next(below: 10) {
                case 0: settings["FORGETFUL_FULL_AFTER"] = "\(random.next(below: 1 << (1 + random.next(below: 18))))"
                case 1: settings["FORGETFUL_FAIL_SYNC"] = "\(1 + random.next(below: 60))"
                default: break
                }
            }
            node.hasFault = settings.keys.contains { $0.hasPrefix("FORGETFUL_F") }
            starts += 1
            do {
                let process = try LiveProcess(node.program, node.arguments, environment: try node.disk.environment(settings))
                node.process = process
                node.endsAt = Date(timeIntervalSinceNow: 2)
                if node === hub {
                    proxy.forward(to: UInt16(try EdgeRig.member("listening", of: process.firstLine).split(separator: ":")[1]))
                }
            } catch let error as LiveProcess.NotReady {
                if !isMortal { throw error }
                try bury(node, error.status, error.description)
            }
        }

        private func bury(_ node: Node, _ status: Int32?, _ text: String? = nil) throws {
            kills += 1
            if node === hub { proxy.forward(to: nil) }
            // A program may give up when its disk fails; nothing else but the kill ends it.
            if status != 137, !(node.hasFault && status == 1) {
                problems.append("\(node.name) ended with \(status ?? -1): \((text ?? node.process?.standardError ?? "").suffix(3000))")
            }
            node.process = nil
            try losePower(of: node)
        }

        private func losePower(of node: Node) throws {
            let (journal, loss) = try node.disk.losePower(&random)
            lost.bytes += loss.bytes
            lost.names += loss.names
            lost.zeroPages += loss.zeroPages
            failedSyncs += journal.failedSyncs
            try check(journal, of: node)
        }

        // MARK: Checks

        /// What was promised was synced before, and is there now.
        private func check(_ journal: DiskJournal, of node: Node) throws {
            var synced = node.promised
            var hosts: [String: String] = [:]
            for event in journal.events {
                switch event {
                case .synced(let path, let length):
                    synced[path] = length
                    if node !== hub, path.hasPrefix("feeds/"), path.hasSuffix(".jsonl") { node.promised[path] = length }
                case .sent(let connection, let line):
                    guard let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any],
                        let type = object["type"] as? String
                    else {
                        problems.append("\(node.name) sent what is no message: \(line.prefix(200))")
                        continue
                    }
                    let file = object["file"] as? String ?? ""
                    switch type {
                    case "welcome": hosts[connection] = (object["identity"] as? String)?.split(separator: "/").last.map(String.init)
                    case "ack" where node === hub, "resume" where node === hub:
                        let (path, length) = ("feeds/host=\(hosts[connection] ?? "?")/\(file)", object["length"] as? Int ?? 0)
                        if synced[path] ?? 0 < length {
                            problems.append("the hub told '\(line)' with \(synced[path] ?? 0) bytes of \(path) synced")
                        }
                        if length > 0 { node.promised[path] = max(length, node.promised[path] ?? 0) }
                        if type == "ack" { acknowledgements += 1 }
                    case "append":
                        let end = (object["offset"] as? Int ?? 0) + (object["bytes"] as? Int ?? 0)
                        if synced["feeds/" + file] ?? 0 < end {
                            problems.append("\(node.name) shipped '\(line)' with \(synced["feeds/" + file] ?? 0) bytes synced")
                        }
                    default: break
                    }
                }
            }
            for (path, length) in node.promised {
                guard let bytes = node.bytes(path), bytes.count >= length else {
                    problems.append("\(node.name) has \(node.length(path)) bytes of \(path) and promised \(length)")
                    continue
                }
                let kept = node.kept[path] ?? Data()
                if !bytes.starts(with: kept) { problems.append("\(node.name) has other bytes in \(path) than those that were synced") }
                node.kept[path] = bytes.prefix(length)
            }
        }

        // MARK: Healing

        /// Everything runs and nothing fails; ends when the hub has what the edges have, and all have stopped.
        func heal() throws {
            guard problems.isEmpty else { return }
            proxy.stopCutting()
            for node in [hub] + edges {
                if let process = node.process {
                    process.signal(SIGKILL)
                    _ = process.wait()
                    node.process = nil
                    try losePower(of: node)
                }
                try start(node, isMortal: false)
            }
            try wait("the hub has what was synced before it, and some of four feeds") { edge in
                let files = (try? FileManager.default.contentsOfDirectory(atPath: "\(hub.disk.root)/feeds/host=\(edge.name)")) ?? []
                return files.count >= 4 && edge.promised.allSatisfy { hub.length(copy($0.key, of: edge)) >= $0.value }
            }
            for edge in edges {
                edge.process?.signal(SIGTERM)
                let status = edge.process?.wait()
                if status != 0 {
                    problems.append("\(edge.name) stopped with \(status ?? -1): \(edge.process?.standardError.suffix(2000) ?? "")")
                }
            }
            hub.process?.signal(SIGTERM)
            let status = hub.process?.wait()
            if status != 0 { problems.append("the hub stopped with \(status ?? -1)") }
            for node in [hub] + edges { try losePower(of: node) }
        }

        private func wait(_ fact: String, _ holds: (Node) -> Bool) throws {
            let end = Date(timeIntervalSinceNow: 60)
            while !edges.allSatisfy(holds) {
                guard Date() < end else {
                    let said = ([hub] + edges).map { "\($0.name): \($0.process?.standardError.suffix(3000) ?? "")" }
                    problems.append("never: \(fact); \(said.joined(separator: "\n"))")
                    return
                }
                usleep(10_000)
            }
        }

        private func copy(_ path: String, of edge: Node) -> String { "feeds/host=\(edge.name)/\(path.dropFirst("feeds/".count))" }

        /// Every file of the hub is the beginning of the edge's, and holds all the edge has told of; rows are whole, and a number is missing only
        /// where an event tells of a cut.
        func compare() throws {
            guard problems.isEmpty else { return }
            for edge in edges {
                for (path, length) in edge.promised {
                    let (own, held) = (edge.bytes(path) ?? Data(), hub.bytes(copy(path, of: edge)) ?? Data())
                    #expect(own.starts(with: held), "\(edge.name)/\(path): the hub's copy differs")
                    #expect(held.count >= hub.promised[copy(path, of: edge)] ?? 0, "\(edge.name)/\(path): acknowledged bytes are missing")
                    #expect(own.count >= length)
                }
                let rows = try FeedRows(directory: edge.disk.root + "/feeds")
                #expect(rows.feeds.count >= 4, "\(rows.feeds)")
                for feed in rows.feeds {
                    let numbers = rows[feed].map { $0.integer("seq") }
                    #expect(zip(numbers, numbers.dropFirst()).allSatisfy { $0 < $1 }, "\(edge.name)/\(feed): numbers do not rise")
                    let isWhole = numbers == Array(1...max(1, numbers.count))
                    let cuts = rows["events"].count {
                        ["cut", "lost", "dropped"].contains($0.text("event")) && $0.object("detail").text("feed") == feed
                    }
                    #expect(isWhole || cuts > 0, "\(edge.name)/\(feed): numbers are missing and no event says so")
                }
                #expect(Set(rows.feeds.flatMap { feed in rows[feed].map { $0.text("epoch") } }).count == 1)
            }
        }
    }
}
