import COpenSSL
import NIOCore
import NIOEmbedded
import NIOPosix
import NodeShell
import TestSupport
import Testing

/// What comes out of a TLS handler.
private final class Notes: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    var plaintext: [UInt8] = []
    var identity: PeerIdentity?
    var isDone = false
    var errors: [any Error] = []
    var isInactive = false

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        #expect(isDone && !isInactive, "data outside the connection")
        plaintext += Array(unwrapInboundIn(data).readableBytesView)
    }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let done = event as? TLSHandshakeDone else { return }
        isDone = true
        identity = done.identity
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { errors.append(error) }
    func channelInactive(context: ChannelHandlerContext) { isInactive = true }

    var failure: TLSError? { errors.first as? TLSError }
}

/// A client and a server without a network: the test carries the bytes, as torn as it likes.
private final class TLSPair {
    let client = EmbeddedChannel()
    let server = EmbeddedChannel()
    let clientNotes = Notes()
    let serverNotes = Notes()
    let clientTLS: TLSHandler
    let serverTLS: TLSHandler
    /// Bytes carried each way.
    var toServer: [UInt8] = []
    var toClient: [UInt8] = []

    init(_ clientContext: TLSContext, _ serverContext: TLSContext, serverName: String? = "hub.test", recordsPerKey: Int = 1 << 23) throws {
        clientTLS = TLSHandler(context: clientContext, role: .client(serverName: serverName), recordsPerKey: recordsPerKey)
        serverTLS = TLSHandler(context: serverContext, role: .server)
        try server.pipeline.syncOperations.addHandlers([serverTLS, serverNotes])
        try client.pipeline.syncOperations.addHandlers([clientTLS, clientNotes])
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: 1)
        server.connect(to: address, promise: nil)
        client.connect(to: address, promise: nil)
    }

    deinit {
        _ = try? client.finish()
        _ = try? server.finish()
    }

    /// Carries bytes until both are silent, `size` at a time.
    func carry(size: Int = .max) throws {
        while true {
            let up = try take(client)
            let down = try take(server)
            if up.isEmpty, down.isEmpty { return }
            toServer += up
            toClient += down
            try give(up, to: server, size)
            try give(down, to: client, size)
        }
    }

    func take(_ channel: EmbeddedChannel) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { bytes += Array(buffer.readableBytesView) }
        return bytes
    }

    func give(_ bytes: [UInt8], to channel: EmbeddedChannel, _ size: Int) throws {
        var rest = bytes[...]
        while !rest.isEmpty, channel.isActive {
            try channel.writeInbound(ByteBuffer(bytes: rest.prefix(size)))
            rest = rest.dropFirst(size)
        }
    }

    func send(_ bytes: [UInt8], from channel: EmbeddedChannel) { channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }
}

enum TLSIdentityProbe {
    /// Whom a hub takes the holder of these files for.
    static func identity(of files: TLSFiles, _ fleet: Fleet) throws -> String? {
        let pair = try TLSPair(.client(files), fleet.hub())
        try pair.carry()
        return pair.serverNotes.identity?.uri
    }
}

/// The types of TLS records in a stream; the last may be cut.
private func recordTypes(_ bytes: [UInt8]) -> [UInt8] {
    var types: [UInt8] = []
    var index = 0
    while index + 5 <= bytes.count {
        types.append(bytes[index])
        index += 5 + Int(bytes[index + 3]) << 8 + Int(bytes[index + 4])
    }
    return types
}

/// Idea: both ends of a connection in one test, with the network in between played by the test. What a peer may do to the handler is done here;
/// what it means for a link is in `LineLinkTests`.
struct TLSTests {
    @Test(arguments: [1, 2, 7, 1000, .max])
    func bytesArriveWhole_howeverTheyAreTorn(size: Int) throws {
        let fleet = try Fleet()
        let pair = try TLSPair(fleet.edge(), fleet.hub())
        // Before the handshake: it waits.
        let early: [UInt8] = Array("early".utf8)
        pair.send(early, from: pair.client)
        try pair.carry(size: size)
        #expect(pair.serverNotes.identity?.uri == "spiffe://test/edge/e1" && pair.clientNotes.identity?.role == .hub)
        var random = SeededRandom(seed: 3)
        let up = (0..<70_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        pair.send(up, from: pair.client)
        pair.send(Array(up.reversed()), from: pair.server)
        try pair.carry(size: size)
        #expect(pair.serverNotes.plaintext == early + up)
        #expect(pair.clientNotes.plaintext == up.reversed())
        #expect(pair.clientNotes.errors.isEmpty && pair.serverNotes.errors.isEmpty)
    }

    @Test func smallWritesShareARecord_untilTheFlush() throws {
        let fleet = try Fleet()
        let pair = try TLSPair(fleet.edge(), fleet.hub())
        try pair.carry()
        pair.toServer = []
        let promise = pair.client.eventLoop.makePromise(of: Void.self)
        for _ in 0..<99 { pair.client.write(ByteBuffer(repeating: 1, count: 100), promise: nil) }
        pair.client.write(ByteBuffer(repeating: 1, count: 100), promise: promise)
        try pair.carry()
        #expect(pair.toServer.isEmpty && pair.clientTLS.unsentBytes == 10_000)
        pair.client.flush()
        try pair.carry()
        #expect(recordTypes(pair.toServer).count == 1 && pair.serverNotes.plaintext.count == 10_000)
        try promise.futureResult.wait()
    }

    @Test func keyIsRenewed_andTheDataStaysWhole() throws {
        let fleet = try Fleet()
        let plain = try TLSPair(fleet.edge(), fleet.hub())
        let renewing = try TLSPair(fleet.edge(), fleet.hub(), recordsPerKey: 8)
        let data = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 3) }
        for pair in [plain, renewing] {
            try pair.carry()
            pair.toServer = []
            pair.send(data, from: pair.client)
            try pair.carry()
            #expect(pair.serverNotes.plaintext == data && pair.serverNotes.errors.isEmpty)
        }
        // 64 records of data; the key updates are records of their own.
        #expect(recordTypes(plain.toServer).count == 64)
        #expect((68...80).contains(recordTypes(renewing.toServer).count), "\(recordTypes(renewing.toServer).count)")
    }

    @Test func floodOfKeyUpdatesEndsTheConnection() throws {
        let fleet = try Fleet()
        let pair = try TLSPair(fleet.edge(), fleet.hub(), recordsPerKey: 1)
        try pair.carry()
        for _ in 0..<100 {
            pair.send([1], from: pair.client)
            try pair.carry()
        }
        #expect(pair.serverNotes.failure?.kind == .flood, "\(pair.serverNotes.errors)")
        #expect(!pair.server.isActive && pair.serverNotes.plaintext.count < 40)
    }

    @Test func goodbyeIsSaidAndAnswered_behindTheData() throws {
        let fleet = try Fleet()
        let (edge, hub) = (try fleet.edge(), try fleet.hub())
        let pair = try TLSPair(edge, hub)
        try pair.carry()
        pair.client.write(ByteBuffer(string: "last words"), promise: nil)
        pair.client.flush()
        pair.client.close(promise: nil)
        try pair.carry()
        #expect(pair.serverNotes.plaintext == Array("last words".utf8))
        #expect(pair.serverNotes.isInactive && pair.serverNotes.errors.isEmpty && hub.truncatedCount == 0)
    }

    @Test func bareEndIsCounted_andHarmless() throws {
        let fleet = try Fleet()
        let hub = try fleet.hub()
        let pair = try TLSPair(fleet.edge(), hub)
        try pair.carry()
        pair.send(Array("half".utf8), from: pair.client)
        try pair.carry()
        pair.server.pipeline.fireChannelInactive()
        #expect(pair.serverNotes.plaintext == Array("half".utf8) && pair.serverNotes.errors.isEmpty && hub.truncatedCount == 1)
    }

    @Test func damagedRecordIsAnsweredWithAnAlert() throws {
        let fleet = try Fleet()
        let pair = try TLSPair(fleet.edge(), fleet.hub())
        try pair.carry()
        pair.send(Array("data".utf8), from: pair.client)
        var bytes = try pair.take(pair.client)
        bytes[bytes.count - 1] ^= 1
        pair.toClient = []
        try pair.give(bytes, to: pair.server, .max)
        try pair.carry()
        #expect(pair.serverNotes.failure?.kind == .openSSL && pair.serverNotes.plaintext.isEmpty)
        // bad_record_mac
        #expect(pair.clientNotes.failure?.kind == .alert(20), "\(pair.clientNotes.errors)")
        #expect(!pair.server.isActive && !pair.client.isActive)
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n\r\n", "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}", "{\"type\":\"hello\"}\n", "\u{16}\u{3}\u{1}\u{0}\u{5}abcde",
    ])
    func whatIsNoTLSIsRefused(text: String) throws {
        let fleet = try Fleet()
        let pair = try TLSPair(fleet.edge(), fleet.hub())
        try pair.give(Array(text.utf8), to: pair.server, 1)
        #expect(pair.serverNotes.errors.count == 1 && pair.serverNotes.failure != nil && !pair.server.isActive)
    }

    @Test func everyCutAndEveryDamagedByteOfAHelloIsAnError_neverATrap() throws {
        let fleet = try Fleet()
        let (edge, hub) = (try fleet.edge(), try fleet.hub())
        let hello = try {
            let pair = try TLSPair(edge, hub)
            return try pair.take(pair.client)
        }()
        for index in hello.indices {
            let pair = try TLSPair(edge, hub)
            var damaged = hello
            damaged[index] ^= 0x55
            try pair.give(damaged, to: pair.server, .max)
            #expect(!pair.serverNotes.isDone)
        }
    }

    @Test func handshakeHasADeadline() throws {
        let fleet = try Fleet()
        let pair = try TLSPair(fleet.edge(), fleet.hub())
        pair.server.embeddedEventLoop.advanceTime(by: .milliseconds(4_999))
        #expect(pair.server.isActive)
        pair.server.embeddedEventLoop.advanceTime(by: .milliseconds(1))
        #expect(pair.serverNotes.failure?.kind == .deadline && !pair.server.isActive)
    }

    /// libssl's error queue belongs to the thread: what one connection, or anything else, leaves there must not end another.
    @Test func troubleOfOneConnectionDoesNotTouchAnother() throws {
        let fleet = try Fleet()
        let (edge, hub) = (try fleet.edge(), try fleet.hub())
        let good = try TLSPair(edge, hub)
        func dirty() {
            #expect(BIO_new_file("/nonexistent/file", "r") == nil)
            #expect(ERR_peek_error() != 0)
        }
        dirty()
        try good.carry(size: 100)
        for round in 0..<5 {
            let bad = try TLSPair(edge, hub)
            try bad.give(Array("no TLS at all".utf8), to: bad.server, .max)
            #expect(bad.serverNotes.failure != nil)
            dirty()
            good.send([UInt8(round)], from: good.client)
            dirty()
            // A part of a record: the call that comes to "incomplete" is the one a stale error spoils.
            try good.carry(size: 9)
        }
        #expect(good.serverNotes.plaintext == [0, 1, 2, 3, 4] && good.serverNotes.errors.isEmpty && good.clientNotes.errors.isEmpty)
        ERR_clear_error()
    }

    @Test func serverNameIsSentForNamesOnly_andChecked() throws {
        let fleet = try Fleet()
        let (edge, hub) = (try fleet.edge(), try fleet.hub())
        for (name, isInHello) in [("hub.test", true), ("127.0.0.1", false)] {
            let pair = try TLSPair(edge, hub, serverName: name)
            let hello = try pair.take(pair.client)
            #expect(hello.indices.contains { hello[$0...].starts(with: name.utf8) } == isInHello)
            try pair.give(hello, to: pair.server, .max)
            try pair.carry()
            #expect(pair.clientNotes.isDone && pair.serverNotes.isDone)
        }
        for name in ["other.test", "127.0.0.2", "test", "hub.test.evil", "::1"] {
            let pair = try TLSPair(edge, hub, serverName: name)
            try pair.carry()
            #expect(pair.clientNotes.failure?.message == "the hub's certificate is not for '\(name)'")
            #expect(!pair.clientNotes.isDone && !pair.serverNotes.isDone)
        }
        for name in ["", "a\0b"] {
            let pair = try TLSPair(edge, hub, serverName: name)
            #expect(pair.clientNotes.failure?.kind == .wrongName && !pair.client.isActive)
        }
    }

    @Test func unusableFilesAreErrorsThatNameThem() throws {
        let fleet = try Fleet()
        let files = try fleet.hubFiles()
        let other = try fleet.hubFiles()
        var broken: [(TLSFiles, String)] = []
        broken.append((TLSFiles(certificate: "/none.pem", key: files.key, authority: files.authority), "certificate '/none.pem'"))
        broken.append((TLSFiles(certificate: files.certificate, key: other.key, authority: files.authority), "key '\(other.key)'"))
        broken.append((TLSFiles(certificate: files.certificate, key: files.key, authority: files.key), "authority '\(files.key)'"))
        for (files, words) in broken {
            let error = #expect(throws: TLSError.self) { try TLSContext.server(files) }
            #expect(error?.message.contains(words) == true && error?.queue.isEmpty == false, "\(String(describing: error))")
        }
    }

    @Test func venueContextTrustsTheSystem_notUs() throws {
        let fleet = try Fleet()
        let pair = try TLSPair(.venue(), fleet.hub())
        try pair.carry()
        #expect(pair.clientNotes.failure?.message == "the server's certificate is not signed by an authority of this system")
    }
}
