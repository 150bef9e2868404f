import Foundation
import NIOCore
import NIOPosix
import NIOWebSocket
import NodeShell
import Testing

/// The websocket against our own server, and against servers that break the rules one by one.
@Suite(.timeLimit(.minutes(1)))
struct WebSocketTests {
    /// A server whose websockets send back what they get, and the recorder of each, in order.
    private static func echo() async throws -> (port: Int, accepted: AsyncStream<(SocketRecorder)>) {
        let (accepted, continuation) = AsyncStream<SocketRecorder>.makeStream()
        let channel = try await WebSocketServer.bind(
            host: "127.0.0.1", port: 0, on: MultiThreadedEventLoopGroup.singleton, connectionsMax: 8, isWebSocket: { $0 == "/echo" },
            makeDelegate: { _, _ in
                let recorder = SocketRecorder { event, socket in
                    guard case .text(let text) = event else { return }
                    if text == "goodbye" { socket.close() } else { socket.send(text: Array(text.utf8)) }
                }
                continuation.yield(recorder)
                return recorder
            }, respond: { target, eventLoop in eventLoop.makeSucceededFuture(target == "/page?x=1" ? .init(text: "page") : nil) }
        ).get()
        return (channel.localAddress!.port!, accepted)
    }

    @Test func messagesAndPingsGoBothWays_andTheGoodbyeIsAnswered() async throws {
        let (port, accepted) = try await Self.echo()
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: port, path: "/echo?x=1", recorder: recorder)
        #expect(await recorder.next() == .opened)
        let long = String(repeating: "é", count: 30_000)
        try await socket.perform {
            $0.send(text: Array("hello".utf8))
            $0.send(text: Array(long.utf8))
            $0.ping([1, 2])
        }
        #expect(await recorder.next() == .text("hello"))
        #expect(await recorder.next() == .text(long))
        #expect(await recorder.next() == .pong)
        try await socket.perform { $0.close() }
        #expect(await recorder.next() == .closed("closed by this side"))
        let server = try #require(await accepted.first { _ in true })
        #expect(await server.closeReason() == "closed by the client: 1000")
        // Once it is over, nothing happens any more.
        try await socket.perform {
            $0.send(text: [0x61])
            $0.close()
        }
    }

    @Test func serversGoodbyeComesBehindWhatItSent() async throws {
        let (port, accepted) = try await Self.echo()
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: port, path: "/echo", recorder: recorder)
        try await socket.perform {
            for word in ["one", "two", "goodbye", "three"] { $0.send(text: Array(word.utf8)) }
        }
        var events: [SocketRecorder.Event] = []
        for await event in recorder.events { events.append(event) }
        #expect(events == [.opened, .text("one"), .text("two"), .closed("closed by the server: 1000")])
        let server = try #require(await accepted.first { _ in true })
        #expect(await server.closeReason() == "closed by this side")
    }

    @Test func otherPathsOfTheServerAreOrdinaryRequests() async throws {
        let (port, _) = try await Self.echo()
        let page = try await TestSockets.get(port: port, path: "/page?x=1")
        #expect(page == HTTPResponse(status: 200, body: Array("page\n".utf8)))
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.connect(port: port, path: "/other", recorder: SocketRecorder())
        }
        #expect(error?.code == .refused)
        #expect(error?.description == "127.0.0.1:\(port)/other: the websocket was refused with 404 Not Found")
    }

    @Test func fragmentsAreJoined_aPingBetweenThemIsAnswered_ourFramesAreMasked() async throws {
        let long = ByteBuffer(string: String(repeating: "z", count: 70_000))
        let server = try await ScriptedServer([
            .init(fin: false, opcode: .text, data: ByteBuffer(string: "ab")),
            .init(fin: true, opcode: .ping, data: ByteBuffer(string: "x")),
            .init(fin: false, opcode: .continuation, data: ByteBuffer()),
            .init(fin: true, opcode: .continuation, data: ByteBuffer(string: "cd")),
            .init(fin: true, opcode: .text, data: ByteBuffer()), .init(fin: true, opcode: .text, data: long),
        ])
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: server.port, recorder: recorder)
        #expect(await recorder.text() == "abcd")
        #expect(await recorder.text() == "")
        #expect(await recorder.text() == String(buffer: long))
        let pong = try #require(await server.next())
        #expect(pong.opcode == .pong && pong.maskKey != nil && String(buffer: pong.unmaskedData) == "x")
        try await socket.perform { $0.send(text: Array("hello".utf8)) }
        let text = try #require(await server.next())
        #expect(text.opcode == .text && text.fin && text.maskKey != nil && String(buffer: text.unmaskedData) == "hello")
        #expect(text.maskKey != pong.maskKey)
    }

    struct Violation: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var frames: [WebSocketFrame]
        var code: UInt16
        var reason: String
    }

    static let violations: [Violation] = [
        .init(
            testDescription: "masked", frames: [.init(fin: true, opcode: .text, maskKey: [1, 2, 3, 4], data: ByteBuffer(string: "a"))],
            code: 1002, reason: "masked wrongly"),
        .init(
            testDescription: "reserved bit", frames: [.init(fin: true, rsv1: true, opcode: .text, data: ByteBuffer(string: "a"))],
            code: 1002, reason: "reserved bit"),
        .init(
            testDescription: "binary", frames: [.init(fin: true, opcode: .binary, data: ByteBuffer(string: "a"))], code: 1003,
            reason: "binary"),
        .init(
            testDescription: "unknown kind", frames: [.init(fin: true, opcode: .init(encodedWebSocketOpcode: 3)!, data: ByteBuffer())],
            code: 1002, reason: "unknown kind"),
        .init(
            testDescription: "end without beginning", frames: [.init(fin: true, opcode: .continuation, data: ByteBuffer(string: "a"))],
            code: 1002, reason: "fragments"),
        .init(
            testDescription: "second beginning",
            frames: [
                .init(fin: false, opcode: .text, data: ByteBuffer(string: "a")),
                .init(fin: true, opcode: .text, data: ByteBuffer(string: "a")),
            ],
            code: 1002, reason: "fragments"),
        .init(
            testDescription: "ping in pieces", frames: [.init(fin: false, opcode: .ping, data: ByteBuffer(string: "a"))], code: 1002,
            reason: "malformed"),
        .init(
            testDescription: "ping too long", frames: [.init(fin: true, opcode: .ping, data: ByteBuffer(repeating: 0, count: 126))],
            code: 1002, reason: "malformed"),
        .init(
            testDescription: "frame too long",
            frames: [.init(fin: true, opcode: .text, data: ByteBuffer(repeating: 0x61, count: 16 << 20 | 1))],
            code: 1009, reason: "above 16777216 bytes"),
        .init(
            testDescription: "fragments too long",
            frames: [
                .init(fin: false, opcode: .text, data: ByteBuffer(repeating: 0x61, count: 12 << 20)),
                .init(fin: true, opcode: .continuation, data: ByteBuffer(repeating: 0x61, count: 5 << 20)),
            ], code: 1009, reason: "above 16777216 bytes"),
        .init(
            testDescription: "half a code", frames: [.init(fin: true, opcode: .connectionClose, data: ByteBuffer(bytes: [3]))], code: 1002,
            reason: "malformed goodbye"),
        .init(
            testDescription: "code nobody may send",
            frames: [.init(fin: true, opcode: .connectionClose, data: ByteBuffer(bytes: [0x03, 0xed]))], code: 1002,
            reason: "malformed goodbye"),
    ]

    @Test(arguments: violations)
    func violationEndsTheConnection_withACodeAndAReason(violation: Violation) async throws {
        let server = try await ScriptedServer(violation.frames)
        let recorder = SocketRecorder()
        _ = try await TestSockets.connect(port: server.port, recorder: recorder)
        if let goodbye = await server.next() {
            var data = goodbye.unmaskedData
            #expect(data.readInteger(as: UInt16.self) == violation.code)
        } else {
            // Who still writes megabytes when the client has left may get a reset instead of the goodbye before it.
            #expect(violation.code == 1009)
        }
        try await server.channel.close()
        // The scripted server does not answer; the connection ends all the same, and no message has come.
        var events: [SocketRecorder.Event] = []
        for await event in recorder.events { events.append(event) }
        #expect(events.count == 2 && events[0] == .opened)
        guard case .closed(let reason)? = events.last else { return #expect(Bool(false), "\(events)") }
        #expect(reason.contains(violation.reason), "\(reason)")
    }

    @Test(arguments: [("", "closed by the server"), ("\u{3}\u{e9}bye\n now", "closed by the server: 1001 'bye now'")])
    func serversReasonIsShown_withoutControlCharacters(payload: String, expected: String) async throws {
        let data =
            payload.isEmpty
            ? ByteBuffer() : ByteBuffer(bytes: [0x03, 0xe9] + Array(payload.unicodeScalars.dropFirst(2).map { UInt8($0.value) }))
        let server = try await ScriptedServer([.init(fin: true, opcode: .connectionClose, data: data)])
        let recorder = SocketRecorder()
        _ = try await TestSockets.connect(port: server.port, recorder: recorder)
        #expect(await recorder.closeReason() == expected)
        let answer = try #require(await server.next())
        #expect(answer.opcode == .connectionClose && answer.unmaskedData.readableBytes == (payload.isEmpty ? 0 : 2))
    }

    @Test(arguments: [false, true])
    func bytesBehindTheHandshakeAreFrames_howeverTheyAreTorn(isDripped: Bool) async throws {
        // Two text frames, the second in two pieces, then the end of the connection without a goodbye.
        let frames: [UInt8] = [0x81, 2, 0x61, 0x62, 0x01, 1, 0x63, 0x80, 1, 0x64]
        let server = try await RawServer(ending: .closes, isDripped: isDripped) { Array(RawServer.acceptance(of: $0).utf8) + frames }
        let recorder = SocketRecorder()
        _ = try await TestSockets.connect(port: server.port, recorder: recorder)
        var events: [SocketRecorder.Event] = []
        for await event in recorder.events { events.append(event) }
        #expect(events == [.opened, .text("ab"), .text("cd"), .closed("the connection was lost")])
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        var answer: String
        var ending: RawServer.Ending = .stays
        var code: NetworkError.Code
        var testDescription: String { String(answer.prefix(60)) }
    }

    static let refusals: [Refusal] = [
        .init(answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", code: .refused),
        .init(answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", code: .refused),
        .init(answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", code: .violation),
        .init(
            answer:
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            code: .violation),
        .init(answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", code: .violation),
        .init(answer: "220 mail.example ESMTP\r\n\r\n", code: .violation),
        .init(answer: "HTTP/1.1 101 Switching Protocols\r\nX: \(String(repeating: "x", count: 70_000))\r\n\r\n", code: .tooLarge),
        .init(answer: "", ending: .closes, code: .closed),
        .init(answer: "HTTP/1.1 101 Switching Prot", ending: .closes, code: .closed),
        .init(answer: "HTTP/1.1 101 OK\r\nUpgrade : websocket\r\n\r\n", code: .violation),
        .init(answer: "HTTP/1.1 101 OK\r\nX: y\r\n folded: z\r\n\r\n", code: .violation), .init(answer: "\r\n\r\n", code: .violation),
        .init(answer: "HTTP/1.0 101 OK\r\n\r\n", code: .violation),
        .init(answer: "HTTP/1.1 99999999999999999999\r\n\r\n", code: .violation),
    ]

    @Test(arguments: refusals)
    func wrongAnswerFailsTheHandshake_andTheDelegateHearsNothing(refusal: Refusal) async throws {
        let server = try await RawServer(ending: refusal.ending) { _ in Array(refusal.answer.utf8) }
        let recorder = SocketRecorder { event, _ in Issue.record("\(event)") }
        let error = await #expect(throws: NetworkError.self) { _ = try await TestSockets.connect(port: server.port, recorder: recorder) }
        #expect(error?.code == refusal.code, "\(error as Any)")
        #expect(error?.description.hasPrefix("127.0.0.1:\(server.port)/: ") == true)
    }

    @Test(arguments: [
        "Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat",
    ])
    func extensionNobodyAskedForFailsTheHandshake(header: String) async throws {
        let server = try await RawServer { Array((RawServer.acceptance(of: $0).dropLast(2) + "\(header)\r\n\r\n").utf8) }
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.connect(port: server.port, recorder: SocketRecorder())
        }
        #expect(error?.code == .violation)
    }

    @Test func silentServerIsGivenUp() async throws {
        let server = try await RawServer { _ in [] }
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.connect(port: server.port, recorder: SocketRecorder(), deadline: .milliseconds(50))
        }
        #expect(error?.code == .timedOut)
        #expect(error?.message.hasSuffix(" within 50 ms") == true, "\(error as Any)")
    }

    @Test func nobodyListens() async throws {
        let server = try await RawServer { _ in [] }
        let port = server.port
        try await server.channel.close()
        let error = await #expect(throws: NetworkError.self) { _ = try await TestSockets.connect(port: port, recorder: SocketRecorder()) }
        #expect(error?.code == .unreachable)
        #expect(error?.message.contains("refused") == true, "\(error as Any)")
    }

    @Test func itGoesOverTLS_andTheNameIsChecked() async throws {
        let fleet = try Fleet()
        let long = ByteBuffer(string: String(repeating: "z", count: 100_000))
        let server = try await ScriptedServer([.init(fin: true, opcode: .text, data: long)], tls: fleet.hub())
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: server.port, tls: fleet.edge(), serverName: "hub.test", recorder: recorder)
        #expect(await recorder.text() == String(buffer: long))
        try await socket.perform { $0.send(text: Array("hello".utf8)) }
        #expect(await server.next().map { String(buffer: $0.unmaskedData) } == "hello")
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.connect(port: server.port, tls: fleet.edge(), serverName: "venue.test", recorder: SocketRecorder())
        }
        #expect(error?.code == .insecure, "\(error as Any)")
    }
}
