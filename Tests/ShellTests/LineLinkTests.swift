import CalibModel
import Foundation
import NIOCore
import NIOPosix
import NodeShell
import TestSupport
import Testing
import Wire

/// Idea: a hub and its clients on real sockets. A test waits for a delegate's call or a line in the log, never for time.
@Suite(.timeLimit(.minutes(1)))
struct LineLinkTests {
    @Test func longestPayloadsArriveWhole_bothWays() async throws {
        let fleet = try Fleet()
        // The hub returns each append as a chunk.
        let hub = try await TestHub(fleet.hub()) { event, link in
            guard case .received(let frame) = event, case .append(let append) = frame.message else { return }
            link.send(.chunk(.init(id: 1, offset: append.offset, bytes: append.bytes)), payload: frame.payload)
            link.flush()
        }
        let (link, client) = try await hub.connect(fleet.edge())
        #expect(link.identity?.uri == "spiffe://test/hub/h1")
        link.post(someHello)
        let accepted = try #require(await hub.next())
        #expect(await accepted.link()?.identity?.uri == "spiffe://test/edge/e1")
        var random = SeededRandom(seed: 11)
        for bytes in [1, 16_384, 65_536, Limits.appendBytesMax] {
            let payload = (0..<bytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            link.post(.append(.init(file: "ticks_20250101.jsonl", offset: Int64(bytes), bytes: bytes)), payload: payload)
            let frame = try #require(await client.frame())
            #expect(frame.message == .chunk(.init(id: 1, offset: Int64(bytes), bytes: bytes)))
            #expect(Digest.sha256(frame.payload) == Digest.sha256(payload))
        }
        link.eventLoop.execute { link.close() }
        #expect(await client.closeReason() == "closed")
        #expect(await accepted.closeReason() == "client closed the connection")
        await hub.close()
    }

    /// Who is refused, and what both sides say about it.
    enum Stranger: CaseIterable, Sendable {
        case otherAuthority, noCertificate, expired, twoIdentities, noIdentity, malformedIdentity, nulInIdentity, hubAsClient, serverUsage
    }

    @Test(arguments: Stranger.allCases)
    func strangerIsRefused_andBothSidesSayWhy(stranger: Stranger) async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub())
        let uri = "spiffe://test/edge/e1"
        let (context, hubSays, clientSays): (TLSContext, String, String) =
            switch stranger {
            case .otherAuthority:
                try {
                    var files = try Fleet.kept(Fleet()).files(uri)
                    files.authority = fleet.authorityPath
                    return (
                        try .client(files), "certificate is not signed by our authority",
                        "hub refused our certificate: it is not signed by its authority"
                    )
                }()
            case .noCertificate:
                (try .venue(authority: fleet.authorityPath), "client sent no certificate", "server wants a certificate and we sent none")
            case .expired:
                (try fleet.edge(days: -1), "certificate expired", "hub refused our certificate: certificate expired")
            case .twoIdentities:
                (
                    try .client(fleet.files(uri, "spiffe://test/edge/e2")), "certificate carries more than one identity URI",
                    "hub refused our certificate: no valid identity in it, or not valid yet by its clock"
                )
            case .noIdentity:
                (
                    try .client(fleet.files(dnsNames: ["edge"])), "certificate carries no identity URI",
                    "hub refused our certificate: no valid identity in it, or not valid yet by its clock"
                )
            case .malformedIdentity:
                (
                    try .client(fleet.files("spiffe://test/edge/E%31")),
                    "certificate's identity URI is not spiffe://<domain>/<role>/<name>",
                    "hub refused our certificate: no valid identity in it, or not valid yet by its clock"
                )
            case .nulInIdentity:
                (
                    try .client(fleet.files("spiffe://test/edge/e1\0.test")),
                    "certificate's identity URI is not spiffe://<domain>/<role>/<name>",
                    "hub refused our certificate: no valid identity in it, or not valid yet by its clock"
                )
            case .hubAsClient:
                (
                    try .client(fleet.files("spiffe://test/hub/h2")), "certificate is for another role",
                    "hub refused our certificate: no valid identity in it, or not valid yet by its clock"
                )
            case .serverUsage:
                (
                    try .client(fleet.files(uri, usage: .server)), "certificate is not meant for a client",
                    "hub refused our certificate: it is meant for another purpose"
                )
            }
        // The client is done before the hub has judged: it says hello at once, and hears of the refusal in `closed`.
        let (_, client) = try await hub.connect(context) { event, link in
            guard case .opened = event else { return }
            link.send(someHello)
            link.flush()
        }
        #expect(await client.closeReason() == clientSays)
        let line = try #require(await hub.log.next())
        #expect(line.wholeMatch(of: /refused 127\.0\.0\.1:\d+: (.*)/)?.1 == hubSays[...], "\(line)")
        await hub.close()
    }

    enum Impostor: CaseIterable, Sendable { case otherAuthority, otherName, expired, edgeAsHub }

    @Test(arguments: Impostor.allCases)
    func impostorOfAHubIsRefused_andBothSidesSayWhy(impostor: Impostor) async throws {
        let fleet = try Fleet()
        let (files, clientSays, hubSays): (TLSFiles, String, String) =
            switch impostor {
            case .otherAuthority:
                (
                    try Fleet.kept(Fleet()).hubFiles(), "the hub's certificate is not signed by our authority",
                    "client refused our certificate: it is not signed by its authority"
                )
            case .otherName:
                (
                    try fleet.files("spiffe://test/hub/h2", usage: .server, dnsNames: ["other.test"]),
                    "the hub's certificate is not for 'hub.test'",
                    "client refused our certificate: not for the name it asked for, or no hub's"
                )
            case .expired:
                (try fleet.hubFiles(days: -1), "the hub's certificate expired", "client refused our certificate: certificate expired")
            case .edgeAsHub:
                (
                    try fleet.files("spiffe://test/edge/e2", usage: .server, dnsNames: ["hub.test"]),
                    "the hub's certificate is for another role",
                    "client refused our certificate: not for the name it asked for, or no hub's"
                )
            }
        let hub = try await TestHub(.server(files))
        let error = await #expect(throws: LinkRefused.self) { try await hub.connect(fleet.edge()) }
        #expect(error?.description == clientSays)
        let line = try #require(await hub.log.next())
        #expect(line.hasSuffix(": \(hubSays)"), "\(line)")
        await hub.close()
    }

    @Test func olderTLSIsRefused() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub()) { event, link in
            guard case .opened = event else { return }
            link.send(.pong(number: 4711))
            link.close()
        }
        let files = try fleet.files("spiffe://test/edge/e1")
        let arguments = [
            "s_client", "-connect", "127.0.0.1:\(hub.port)", "-cert", files.certificate, "-key", files.key, "-CAfile", files.authority,
            "-ign_eof",
        ]
        let old = try Binaries.run("/usr/bin/openssl", arguments + ["-tls1_2"], deadline: 20)
        #expect(old.status != 0 && !old.isTimedOut && old.standardError.contains("alert protocol version"), "\(old.standardError)")
        #expect(!old.standardOutput.contains("4711"))
        #expect(try #require(await hub.log.next()).hasSuffix(": protocol version too old (TLS 1.2)"))
        // The same command with TLS 1.3 is served, so the test can fail.
        let new = try Binaries.run("/usr/bin/openssl", arguments + ["-tls1_3", "-quiet"], deadline: 20)
        #expect(new.standardOutput.contains("4711"), "\(new.standardOutput) \(new.standardError)")
        await hub.close()
    }

    @Test func nobodyListens_isAReadableError() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub())
        await hub.close()
        let error = await #expect(throws: LinkRefused.self) { try await hub.connect(fleet.edge()) }
        #expect(error?.description.contains("cannot connect to the hub at 127.0.0.1:\(hub.port)") == true, "\(String(describing: error))")
    }

    // MARK: Bytes that are no message

    /// A client that says what it likes.
    private func rawClient(_ hub: TestHub, _ context: TLSContext) async throws -> (channel: any Channel, lines: AsyncStream<String>) {
        final class Sink: ChannelInboundHandler {
            typealias InboundIn = ByteBuffer
            let continuation: AsyncStream<String>.Continuation
            init(_ continuation: AsyncStream<String>.Continuation) { self.continuation = continuation }
            func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(String(buffer: unwrapInboundIn(data))) }
            func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
        }
        let (lines, continuation) = AsyncStream<String>.makeStream()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers([
                        TLSHandler(context: context, role: .client(serverName: nil)), Sink(continuation),
                    ])
                }
            }
            .connect(host: "127.0.0.1", port: hub.port).get()
        return (channel, lines)
    }

    @Test(arguments: [
        ("nonsense\n", #""code":"bad_json""#), ("{\"type\":\"ping\"}\n", #""code":"missing_field""#),
        (String(repeating: "x", count: Limits.controlLineBytesMax), #""code":"too_long""#),
        (#"{"type":"append","file":"f","offset":0,"bytes":1048577}"# + "\n", #""code":"#),
    ])
    func brokenStreamIsAnsweredAndClosed(text: String, answer: String) async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub())
        let (channel, lines) = try await rawClient(hub, fleet.edge())
        try await channel.writeAndFlush(ByteBuffer(bytes: someHello.line + Array(text.utf8)))
        var received = ""
        for await line in lines { received += line }
        #expect(received.contains(answer) && received.hasSuffix("\n"), "\(received)")
        let accepted = try #require(await hub.next())
        #expect(await accepted.closeReason()?.hasPrefix("client sent bytes that are no message: ") == true)
        await hub.close()
    }

    @Test func unknownTypeIsAnswered_andTheLinkGoesOn() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub())
        let (channel, lines) = try await rawClient(hub, fleet.edge())
        try await channel.writeAndFlush(
            ByteBuffer(bytes: someHello.line + Array(#"{"type":"dance"}"#.utf8) + [0x0a] + Message.ping(number: 5).line))
        let accepted = try #require(await hub.next())
        #expect(await accepted.first { if case .rejected(let error) = $0 { error } else { nil } } == .unknownType("dance"))
        #expect(await accepted.frame()?.message == .ping(number: 5))
        #expect(await lines.first { _ in true }?.contains("unknown_type") == true)
        try await channel.close()
        await hub.close()
    }

    @Test func firstMessageMustBeHello() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub())
        let (link, client) = try await hub.connect(fleet.edge())
        link.post(.ping(number: 1))
        #expect(await client.frame()?.message == .error(code: "hello_expected", text: "the first message must be hello, not ping"))
        #expect(await client.closeReason() == "hub closed: the first message must be hello, not ping (hello_expected)")
        let accepted = try #require(await hub.next())
        #expect(await accepted.closeReason() == "the first message must be hello, not ping")
        await hub.close()
    }

    @Test func linkIsClosedWithAReasonForBoth() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub()) { event, link in
            if case .received = event { link.close(code: "identity_in_use", text: "another connection holds this identity") }
        }
        let (link, client) = try await hub.connect(fleet.edge())
        link.post(someHello)
        #expect(await client.closeReason() == "hub closed: another connection holds this identity (identity_in_use)")
        let accepted = try #require(await hub.next())
        #expect(await accepted.closeReason() == "another connection holds this identity")
        // What is sent to a closed link is dropped.
        link.post(.ping(number: 2))
        let isOpen = try await link.eventLoop.submit { link.isOpen }.get()
        #expect(!isOpen)
        await hub.close()
    }

    @Test func peerThatVanishesWithoutAGoodbyeIsHarmless() async throws {
        let fleet = try Fleet()
        let context = try fleet.hub()
        let hub = try await TestHub(context)
        let (channel, _) = try await rawClient(hub, fleet.edge())
        try await channel.writeAndFlush(ByteBuffer(bytes: someHello.line + Array(#"{"type":"pi"#.utf8)))
        let accepted = try #require(await hub.next())
        #expect(await accepted.frame()?.message == someHello)
        // Past the TLS handler.
        try await channel.eventLoop.submit {
            try channel.pipeline.syncOperations.context(handlerType: TLSHandler.self).close(promise: nil)
        }.get()
        #expect(await accepted.closeReason() == "client closed the connection")
        #expect(context.truncatedCount == 1)
        await hub.close()
    }

    // MARK: Bounds

    @Test func slowReaderIsClosedAtTheBound() async throws {
        let fleet = try Fleet()
        // The hub answers a hello with more than the peer will ever read.
        let hub = try await TestHub(fleet.hub(), deadlines: quick(linger: 50)) { event, link in
            guard case .received = event else { return }
            let payload = [UInt8](repeating: 0x41, count: Limits.appendBytesMax)
            while link.isOpen {
                link.send(.chunk(.init(id: 1, offset: 0, bytes: payload.count)), payload: payload)
                link.flush()
                #expect(link.pendingOutboundBytes <= Limits.linkOutboundBytesMax + payload.count + 100_000)
            }
        }
        let (link, _) = try await hub.connect(fleet.edge()) { event, link in
            guard case .opened = event else { return }
            link.setReading(false)
            link.send(someHello)
            link.flush()
        }
        let accepted = try #require(await hub.next())
        let reason = await accepted.closeReason()
        #expect(reason == "more than 8388608 bytes wait for a peer that does not read them")
        link.eventLoop.execute { link.close() }
        await hub.close()
    }

    /// The minute that a last byte may take is not used up.
    @Test func pausedLinkIsClosedAtOnce_andItsPeerIsToldWhy() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub(), deadlines: quick(linger: 600_000)) { event, link in
            if case .opened = event { link.setReading(false) }
        }
        let (link, client) = try await hub.connect(fleet.edge())
        let payload = [UInt8](repeating: 0x42, count: Limits.appendBytesMax)
        link.eventLoop.execute {
            link.send(someHello)
            for number in 0..<7 { link.send(.append(.init(file: "f", offset: Int64(number), bytes: payload.count)), payload: payload) }
            link.flush()
        }
        let accepted = try #require(await hub.next())
        let hubLink = try #require(await accepted.link())
        hubLink.eventLoop.execute { hubLink.close(code: "enough", text: "no room") }
        #expect(await accepted.closeReason() == "no room")
        #expect(await client.closeReason() == "hub closed: no room (enough)")
        await hub.close()
    }

    @Test func pausedReaderGetsEverythingLater_andTheWriterHearsOfIt() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub()) { event, link in
            if case .opened = event { link.setReading(false) }
        }
        let (link, client) = try await hub.connect(fleet.edge())
        // More than both sockets hold, less than the bound.
        let payload = [UInt8](repeating: 0x42, count: Limits.appendBytesMax)
        let isWritable = try await link.eventLoop.submit {
            link.send(someHello)
            for number in 0..<7 {
                link.send(.append(.init(file: "f", offset: Int64(number), bytes: payload.count)), payload: payload)
                link.flush()
            }
            return link.isWritable
        }.get()
        #expect(!isWritable)
        let accepted = try #require(await hub.next())
        let hubLink = try #require(await accepted.link())
        hubLink.eventLoop.execute { hubLink.setReading(true) }
        #expect(await accepted.frame()?.message == someHello)
        for number in 0..<7 {
            guard case .append(let append) = await accepted.frame()?.message else { throw Missing() }
            #expect(append.offset == Int64(number))
        }
        #expect(await client.first { if case .drained = $0 { true } else { nil } } == true)
        link.eventLoop.execute { link.close() }
        await hub.close()
    }
    private struct Missing: Error {}

    private func quick(hello: Int64 = 60_000, idle: Int64 = 60_000, linger: Int64 = 1_000) -> LinkDeadlines {
        var deadlines = LinkDeadlines()
        deadlines.hello = .milliseconds(hello)
        deadlines.idle = .milliseconds(idle)
        deadlines.linger = .milliseconds(linger)
        return deadlines
    }

    @Test func helloHasADeadline() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub(), deadlines: quick(hello: 1_000))
        let (_, client) = try await hub.connect(fleet.edge())
        #expect(await client.closeReason() == "hub closed: no hello within 1000 ms (deadline)")
        let accepted = try #require(await hub.next())
        #expect(await accepted.closeReason() == "no hello within 1000 ms")
        // And one that does not even begin TLS.
        let silent = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(host: "127.0.0.1", port: hub.port)
            .get()
        #expect(try #require(await hub.log.next()).hasSuffix(": TLS handshake not done within 1000 ms"))
        try await silent.closeFuture.get()
        await hub.close()
    }

    @Test func silentPeerIsClosed_aDrippingOneToo() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub(), deadlines: quick(idle: 200))
        let (link, client) = try await hub.connect(fleet.edge())
        link.post(someHello)
        #expect(await client.closeReason() == "hub closed: no message for 200 ms (idle)")
        // Half a message, byte by byte: bytes alone keep nobody alive.
        let (channel, lines) = try await rawClient(hub, fleet.edge())
        try await channel.writeAndFlush(ByteBuffer(bytes: someHello.line))
        let drip = channel.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(20)) { _ in
            channel.writeAndFlush(ByteBuffer(string: "x"), promise: nil)
        }
        var received = ""
        for await line in lines { received += line }
        drip.cancel()
        #expect(received.contains("no message for 200 ms"))
        // A client judges its hub alike.
        let patient = try await TestHub(fleet.hub())
        let (_, impatient) = try await patient.connect(fleet.edge(), deadlines: quick(idle: 200))
        #expect(await impatient.closeReason() == "no message for 200 ms")
        await hub.close()
        await patient.close()
    }

    @Test func strangersBeyondTheBoundAreTurnedAway_untilOneSaysHello() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub())
        let edge = try fleet.edge()
        var links: [LineLink] = []
        for _ in 0..<Limits.strangersMax { links.append(try await hub.connect(edge).link) }
        await #expect(throws: LinkRefused.self) { try await hub.connect(edge) }
        #expect(try #require(await hub.log.next()).hasSuffix(": 64 connections have not said hello yet"))
        links[0].post(someHello)
        let accepted = try #require(await hub.next())
        #expect(await accepted.frame()?.message == someHello)
        let (late, _) = try await hub.connect(edge)
        for link in links + [late] { link.eventLoop.execute { link.close() } }
        await hub.close()
    }

    /// Many connections on one event loop, half of them refused: the others never notice.
    @Test func refusedConnectionsDoNotDisturbTheirNeighbours() async throws {
        let fleet = try Fleet()
        let hub = try await TestHub(fleet.hub()) { event, link in
            guard case .received(let frame) = event, case .ping(let number) = frame.message else { return }
            link.send(.pong(number: number))
            link.flush()
        }
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let (link, client) = try await hub.connect(fleet.edge("good"), on: loop)
        link.post(someHello)
        let expired = try fleet.edge("bad", days: -1)
        for number in 0..<20 {
            let (_, refused) = try await hub.connect(expired, on: loop)
            link.post(.ping(number: Int64(number)))
            #expect(await refused.closeReason() == "hub refused our certificate: certificate expired")
            #expect(await client.frame()?.message == .pong(number: Int64(number)))
        }
        link.eventLoop.execute { link.close() }
        #expect(await client.closeReason() == "closed")
        await hub.close()
    }
}

extension Fleet {
    /// Keeps a fleet whose files are used after its last mention.
    static func kept(_ fleet: Fleet) -> Fleet {
        keptFleets.withLock { $0.append(fleet) }
        return fleet
    }
}
