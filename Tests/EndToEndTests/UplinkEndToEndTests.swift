import CalibModel
import Foundation
import Logging
import NIOCore
import NIOPosix
import NodeShell
import Synchronization
import TestSupport
import Testing
import Wire

/// The edge and a scripted hub over TLS: what the hub gets is the edge's bytes, and what it orders happens and is answered.
@Suite(.serialized)
struct UplinkEndToEndTests {
    @Test func feedsArriveAsAPrefix_arms_rollback_andKill_overReconnectsAndARestart() throws {
        let hub = try ScriptedHub()
        let rig = try EdgeRig { directory in try hub.arguments(in: directory) }

        // B comes with the lease, and only for its symbol.
        try rig.wait(for: "B under a lease") { hub.arm("BTCUSDT") == "B schedule" && hub.arm("ETHUSDT") == "A schedule" }
        // The first markout takes 30 s; the other feeds say enough.
        try rig.wait(for: "feeds at the hub") {
            let held = hub.files.filter { !$0.value.isEmpty }.keys
            return ["events_", "fills_", "pipeline_ticks_", "quotes_"].allSatisfy { feed in held.contains { $0.hasPrefix(feed) } }
        }
        try rig.wait(for: "quotes of B") { hub.status("BTCUSDT")?.quotes ?? 0 > 3 }

        // A reconnect resumes: the hub checks every offset.
        hub.disconnect()
        try rig.wait(for: "a second hello") { hub.hellos.count == 2 }
        try rig.wait(for: "B still, or again") { hub.arm("BTCUSDT") == "B schedule" }

        hub.send(.command(hub.command("c1", .rollback, experiment: "exp-1")))
        try rig.wait(for: "latched") { hub.results.last?.state == .latched }
        #expect(hub.results.map(\.id) == ["c1", "c1"] && hub.results.map(\.state) == [.applied, .latched])
        let applied = hub.results[0]
        try rig.wait(for: "A for ever") { hub.arm("BTCUSDT") == "A latch" }
        // Given again it is answered from the latch.
        hub.send(.command(hub.command("c1", .rollback, experiment: "exp-1")))
        try rig.wait(for: "the same answers") { hub.results.count == 4 }
        #expect(hub.results[2] == applied && hub.results[3].state == .latched)

        hub.send(.command(hub.command("k1", .kill)))
        try rig.wait(for: "the kill's answers") { hub.results.count == 6 }
        #expect(hub.results[4].id == "k1" && hub.results[4].state == .applied && hub.results[5].state == .latched)
        try rig.wait(for: "killed, says the status") { hub.isKilled }
        #expect(rig.stop() == 0)

        // What the rows say agrees: no tick of B after the instant called applied.
        let rows = try rig.rows()
        let late = rows["pipeline_ticks"].filter { $0.text("arm") == "B" && $0.integer("ts") > applied.atMilliseconds }
        #expect(late.isEmpty)
        #expect(
            rows["pipeline_ticks"].contains {
                $0.text("arm") == "B" && $0.text("arm_why") == "schedule" && $0.text("experiment") == "exp-1"
            })
        #expect(rows["events"].contains { $0.text("event") == "latch" })

        // Every byte arrived, in order, once.
        try compare(hub, rig)

        // Restarted: still latched, still killed, and the feeds go on where the hub stands.
        try rig.startAgain()
        try rig.wait(for: "a hello with the latch") { hub.hellos.last?.latches == ["exp-1"] }
        try rig.wait(for: "ticks after the restart") { hub.status("BTCUSDT")?.ticks ?? 0 > 5 }
        #expect(hub.arm("BTCUSDT") == "A latch" && hub.isKilled)
        #expect(rig.stop() == 0)
        try compare(hub, rig)
        #expect(hub.problems == [])
    }

    private func compare(_ hub: ScriptedHub, _ rig: EdgeRig) throws {
        let directory = rig.artifacts + "/feeds"
        let names = try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasSuffix(".jsonl") }
        #expect(names.count >= 6)
        for name in names {
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: directory + "/" + name)))
            #expect(hub.files[name] == bytes, "\(name): the hub has \(hub.files[name]?.count ?? 0) of \(bytes.count) bytes")
        }
    }
}

/// A hub that stores, acknowledges, grants leases and sends what the test says.
private final class ScriptedHub: Sendable {
    struct State {
        var files: [String: [UInt8]] = [:]
        var hellos: [Message.Hello.Edge] = []
        var results: [Message.CommandResult] = []
        var status: Message.Status?
        var problems: [String] = []
        var link: LineLink?
    }

    private let state = Mutex(State())
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let channel: any Channel
    private let edgeFiles: (certificate: String, key: String, authority: String)
    private let directory: String

    init() throws {
        let (authority, authorityKey) = try CertificateAuthority.create(commonName: "test", days: 1)
        func issue(_ uri: String, _ usage: CertificateAuthority.Usage) throws -> (certificatePEM: String, keyPEM: String) {
            try CertificateAuthority.issue(
                uri: uri, commonName: "test", dnsNames: usage == .server ? ["localhost"] : [], ipAddresses: [], usage: usage, days: 1,
                authorityCertificatePEM: authority, authorityKeyPEM: authorityKey)
        }
        let folder = try Binaries.temporaryDirectory()
        directory = folder
        func write(_ name: String, _ text: String) throws -> String {
            try text.write(toFile: "\(folder)/\(name)", atomically: true, encoding: .utf8)
            return "\(folder)/\(name)"
        }
        let hub = try issue("spiffe://calibrant.test/hub/hub", .server)
        let edge = try issue("spiffe://calibrant.test/edge/e1", .client)
        let ca = try write("ca.pem", authority)
        let context = try TLSContext.server(
            TLSFiles(certificate: try write("hub.pem", hub.certificatePEM), key: try write("hub.key", hub.keyPEM), authority: ca))
        edgeFiles = (try write("edge.pem", edge.certificatePEM), try write("edge.key", edge.keyPEM), ca)
        // The delegate needs the finished object.
        let box = Box()
        channel = try LineServer.bind(
            host: "127.0.0.1", port: 0, context: context, on: group, logger: Logger(label: "hub") { _ in SwiftLogNoOpLogHandler() }
        ) { _ in HubDelegate(box.hub()!) }.wait()
        box.set(self)
    }

    deinit {
        try? channel.close().wait()
        try? group.syncShutdownGracefully()
        try? FileManager.default.removeItem(atPath: directory)
    }

    func arguments(in directory: String) throws -> [String] {
        let port = channel.localAddress!.port!
        return [
            "hub.enabled=true", "hub.host=127.0.0.1", "hub.port=\(port)", "hub.server_name=localhost",
            "tls.certificate=\(edgeFiles.certificate)",
            "tls.key=\(edgeFiles.key)", "tls.authority=\(edgeFiles.authority)",
        ].flatMap { ["--set", $0] }
    }

    // MARK: For the test

    var files: [String: [UInt8]] { state.withLock { $0.files } }
    var hellos: [Message.Hello.Edge] { state.withLock { $0.hellos } }
    var results: [Message.CommandResult] { state.withLock { $0.results } }
    var problems: [String] { state.withLock { $0.problems } }
    var isKilled: Bool { state.withLock { $0.status?.isKilled ?? false } }
    func status(_ symbol: String) -> Message.Status.Symbol? { state.withLock { $0.status?.symbols.first { $0.symbol == symbol } } }
    func arm(_ symbol: String) -> String? { status(symbol).map { "\($0.arm) \($0.armWhy)" } }

    func command(_ id: String, _ kind: Message.CommandKind, experiment: String? = nil) -> Message.Command {
        Message.Command(
            id: id, revision: Revision(term: 1, number: 2), kind: kind, experiment: experiment, symbol: nil, reason: "test", by: "tester",
            issuedMilliseconds: 1)
    }

    func send(_ message: Message) {
        guard let link = state.withLock({ $0.link }) else { return }
        link.eventLoop.execute {
            link.send(message)
            link.flush()
        }
    }

    /// In the middle of whatever is under way.
    func disconnect() {
        guard let link = state.withLock({ $0.link }) else { return }
        link.eventLoop.execute { link.close() }
    }

    // MARK: For the delegate

    func opened(_ link: LineLink) { state.withLock { $0.link = link } }

    func answers(to frame: LineFraming.Frame) -> [Message] {
        state.withLock { state in
            switch frame.message {
            case .hello(let hello):
                guard let edge = hello.edge else { return [] }
                state.hellos.append(edge)
                state.status = nil
                let spec = ExperimentSpec(
                    id: "exp-1", createdMilliseconds: 1, salt: String(repeating: "0", count: 32), splitMicro: 500_000,
                    symbolsA: ["ETHUSDT"],
                    symbolsB: ["BTCUSDT"], candidate: [.init(key: "spread.base_bps", value: "0.8")])
                return [
                    .welcome(
                        .init(
                            software: "test", identity: "spiffe://calibrant.test/edge/e1", revision: Revision(term: 1, number: 1),
                            wallMilliseconds: edge.wallMilliseconds, highestSeq: [])),
                    .assignment(.init(revision: Revision(term: 1, number: 1), experiment: spec)),
                ]
            case .resume(let resume):
                let held = state.files[resume.file] ?? []
                let blocks = stride(from: 0, to: held.count, by: Limits.resumeBlockBytes).map {
                    CRC32C.text(of: held[$0..<min(held.count, $0 + Limits.resumeBlockBytes)])
                }
                return [.resume(.init(file: resume.file, length: Int64(held.count), blocks: blocks))]
            case .append(let append):
                let held = state.files[append.file]?.count ?? 0
                if Int64(held) != append.offset { state.problems.append("\(append.file): at \(append.offset), not \(held)") }
                state.files[append.file, default: []] += frame.payload
                return [.ack(.init(file: append.file, length: Int64(held + frame.payload.count)))]
            case .lease(let lease):
                return [.lease(.init(experiment: lease.experiment, number: lease.number, durationMilliseconds: 15_000))]
            case .status(let status): state.status = status
            case .commandResult(let result): state.results.append(result)
            case .ping(let number): return [.pong(number: number)]
            case .error(let code, let text): state.problems.append("\(code): \(text)")
            default: state.problems.append("\(frame.message.type)")
            }
            return []
        }
    }

    private final class Box: Sendable {
        private struct Held { weak var hub: ScriptedHub? }
        private let held = Mutex(Held())
        func set(_ hub: ScriptedHub) { held.withLock { $0.hub = hub } }
        func hub() -> ScriptedHub? { held.withLock { $0.hub } }
    }
}

private final class HubDelegate: LineLinkDelegate {
    private let hub: ScriptedHub
    init(_ hub: ScriptedHub) { self.hub = hub }
    func opened(_ link: LineLink) { hub.opened(link) }
    func received(_ frame: LineFraming.Frame, on link: LineLink) {
        for answer in hub.answers(to: frame) { link.send(answer) }
        link.flush()
    }
    func rejected(_ error: WireError, on link: LineLink) {}
    func drained(_ link: LineLink) {}
    func closed(_ link: LineLink, reason: String) {}
}
