import Foundation
import Logging
import NIOCore
import NIOPosix
import NodeShell
import Synchronization
import TestSupport
import Wire

/// An authority and the certificates it gives out, in a folder of its own.
final class Fleet: Sendable {
    let folder: String
    let authority: (certificatePEM: String, keyPEM: String)
    private let count = Mutex(0)

    init() throws {
        folder = try Binaries.temporaryDirectory()
        authority = try CertificateAuthority.create(commonName: "Test authority", days: 30)
        try authority.certificatePEM.write(toFile: "\(folder)/ca.pem", atomically: true, encoding: .utf8)
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    var authorityPath: String { "\(folder)/ca.pem" }

    func files(
        _ uris: String..., usage: CertificateAuthority.Usage = .client, days: Int = 30, dnsNames: [String] = [], ipAddresses: [String] = []
    ) throws -> TLSFiles {
        let number = count.withLock {
            $0 += 1
            return $0
        }
        let issued = try CertificateAuthority.issue(
            uncheckedURIs: uris, commonName: "node \(number)", dnsNames: dnsNames, ipAddresses: ipAddresses, usage: usage, days: days,
            authorityCertificatePEM: authority.certificatePEM, authorityKeyPEM: authority.keyPEM)
        try issued.certificatePEM.write(toFile: "\(folder)/\(number).pem", atomically: true, encoding: .utf8)
        try issued.keyPEM.write(toFile: "\(folder)/\(number).key", atomically: true, encoding: .utf8)
        return TLSFiles(certificate: "\(folder)/\(number).pem", key: "\(folder)/\(number).key", authority: authorityPath)
    }

    func hubFiles(days: Int = 30) throws -> TLSFiles {
        try files("spiffe://test/hub/h1", usage: .server, days: days, dnsNames: ["hub.test"], ipAddresses: ["127.0.0.1"])
    }
    func hub() throws -> TLSContext { try .server(hubFiles()) }
    func edge(_ name: String = "e1", days: Int = 30) throws -> TLSContext { try .client(files("spiffe://test/edge/\(name)", days: days)) }
}

/// A delegate that turns calls into a stream of events, and may answer them.
final class Recorder: LineLinkDelegate, Sendable {
    enum Event: Sendable {
        case opened(LineLink)
        case received(LineFraming.Frame)
        case rejected(WireError)
        case drained
        case closed(String)
    }

    let events: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation
    private let react: @Sendable (Event, LineLink) -> Void

    init(_ react: @escaping @Sendable (Event, LineLink) -> Void = { _, _ in }) {
        (events, continuation) = AsyncStream.makeStream()
        self.react = react
    }

    private func note(_ event: Event, _ link: LineLink) {
        continuation.yield(event)
        react(event, link)
    }
    func opened(_ link: LineLink) { note(.opened(link), link) }
    func received(_ frame: LineFraming.Frame, on link: LineLink) { note(.received(frame), link) }
    func rejected(_ error: WireError, on link: LineLink) { note(.rejected(error), link) }
    func drained(_ link: LineLink) { note(.drained, link) }
    func closed(_ link: LineLink, reason: String) {
        note(.closed(reason), link)
        continuation.finish()
    }

    /// Waits for an event that fits and returns what `pick` makes of it; nil when the link closes before.
    func first<Value>(_ pick: (Event) -> Value?) async -> Value? {
        for await event in events {
            if let value = pick(event) { return value }
        }
        return nil
    }
    func link() async -> LineLink? { await first { if case .opened(let link) = $0 { link } else { nil } } }
    func frame() async -> LineFraming.Frame? { await first { if case .received(let frame) = $0 { frame } else { nil } } }
    func closeReason() async -> String? { await first { if case .closed(let reason) = $0 { reason } else { nil } } }
}

/// Log lines as a stream.
struct LinesLogged: LogHandler {
    let lines: AsyncStream<String>
    private let continuation: AsyncStream<String>.Continuation
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    init() { (lines, continuation) = AsyncStream.makeStream() }

    var logger: Logger { Logger(label: "test", factory: { _ in self }) }

    func log(event: LogEvent) { continuation.yield("\(event.message)") }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func next() async -> String? { await lines.first { _ in true } }
}

/// A hub on a port of its own, and the delegates of the links it accepted, in order.
struct TestHub {
    let channel: any Channel
    let port: Int
    let log = LinesLogged()
    let accepted: AsyncStream<Recorder>

    init(
        _ context: TLSContext, deadlines: LinkDeadlines = .patient, outboundBytesMax: Int = 8 << 20,
        react: @escaping @Sendable (Recorder.Event, LineLink) -> Void = { _, _ in }
    ) async throws {
        let (accepted, continuation) = AsyncStream<Recorder>.makeStream()
        self.accepted = accepted
        channel = try await LineServer.bind(
            host: "127.0.0.1", port: 0, context: context, on: MultiThreadedEventLoopGroup.singleton, logger: log.logger,
            deadlines: deadlines,
            outboundBytesMax: outboundBytesMax
        ) { _ in
            let recorder = Recorder(react)
            continuation.yield(recorder)
            return recorder
        }.get()
        port = channel.localAddress!.port!
    }

    func next() async -> Recorder? { await accepted.first { _ in true } }

    func connect(
        _ context: TLSContext, serverName: String = "hub.test", deadlines: LinkDeadlines = .patient,
        on loop: any EventLoop = MultiThreadedEventLoopGroup.singleton.next(),
        react: @escaping @Sendable (Recorder.Event, LineLink) -> Void = { _, _ in }
    ) async throws -> (link: LineLink, recorder: Recorder) {
        let recorder = Recorder(react)
        let link = try await LineClient.connect(
            host: "127.0.0.1", port: port, serverName: serverName, context: context, on: loop, delegate: recorder, deadlines: deadlines
        ).get()
        return (link, recorder)
    }

    func close() async { try? await channel.close() }
}

extension LineLink {
    /// From anywhere.
    func post(_ message: Message, payload: [UInt8] = []) {
        eventLoop.execute {
            self.send(message, payload: payload)
            self.flush()
        }
    }
}

let someHello = Message.hello(.init(version: "test", edge: nil))

let keptFleets = Mutex<[Fleet]>([])

extension LinkDeadlines {
    /// For tests that are not about deadlines, on a busy machine.
    static var patient: LinkDeadlines {
        var deadlines = LinkDeadlines()
        deadlines.hello = .seconds(60)
        deadlines.idle = .seconds(60)
        return deadlines
    }
}
