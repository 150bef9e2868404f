import NIOCore
import NIOPosix
import NodeShell
import Synchronization
import Testing

/// Our own HTTP, asked by our own client and by hand.
@Suite(.timeLimit(.minutes(1)))
struct EndpointsTests {
    private struct Trouble: Error {}

    private static func bind() async throws -> any Channel {
        try await Endpoints.bind(port: 0, on: MultiThreadedEventLoopGroup.singleton) { path, accept in
            let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
            switch path {
            case "/metrics":
                return eventLoop.makeSucceededFuture(.init(contentType: "text/plain; version=0.0.4", body: Array("up 1\n".utf8)))
            case "/accept": return eventLoop.makeSucceededFuture(.init(text: accept))
            case "/-/ready": return eventLoop.makeSucceededFuture(.init(status: 503, text: "not yet"))
            case "/trouble": return eventLoop.makeFailedFuture(Trouble())
            default: return eventLoop.makeSucceededFuture(nil)
            }
        }.get()
    }

    @Test(arguments: [
        ("/metrics", 200, "up 1\n"), ("/metrics?name=up", 200, "up 1\n"), ("/accept", 200, "application/json\n"),
        ("/-/ready", 503, "not yet\n"),
        ("/nope", 404, "404 no such path\n"), ("/", 404, "404 no such path\n"), ("/trouble", 500, "500 internal error\n"),
    ])
    func pathIsAnswered(path: String, status: Int, body: String) async throws {
        let server = try await Self.bind()
        #expect(server.localAddress?.ipAddress == "127.0.0.1")
        let port = server.localAddress!.port!
        let response = try await TestSockets.get(port: port, path: path)
        #expect(response == HTTPResponse(status: status, body: Array(body.utf8)))
    }

    @Test func headIsAnsweredWithoutABody_othersWith405_onOneConnection() async throws {
        let port = try await Self.bind().localAddress!.port!
        let answers = try await RawClient.exchange(
            port: port,
            "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\nPOST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        let heads = answers.components(separatedBy: "HTTP/1.1 ").dropFirst()
        #expect(heads.map { $0.prefix(3) } == ["200", "405", "200"])
        let head = try #require(heads.first)
        #expect(head.contains("Content-Length: 5\r\n") && head.contains("Content-Type: text/plain; version=0.0.4\r\n"))
        #expect(head.hasSuffix("\r\n\r\n"))
        #expect(answers.contains("Allow: GET, HEAD\r\n"))
        #expect(answers.hasSuffix("\r\n\r\nup 1\n"))
    }

    /// Only what is worth it, and only for whoever says so; the length is that of what is sent.
    @Test func longBodyIsCompressedForWhoeverAcceptsIt() async throws {
        let body = String(repeating: "mm_ticks_total 12\n", count: 500)
        let port = try await Endpoints.bind(port: 0, on: MultiThreadedEventLoopGroup.singleton) { path, _ in
            let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
            return eventLoop.makeSucceededFuture(.init(body: Array((path == "/long" ? body : "up 1\n").utf8)))
        }.get().localAddress!.port!
        func head(_ path: String, _ accepts: String) async throws -> String {
            try await RawClient.exchange(
                port: port, "HEAD \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: \(accepts)\r\n\r\n")
        }
        for accepts in ["gzip", "br, gzip;q=0.5", "GZIP"] {
            let head = try await head("/long", accepts)
            #expect(head.contains("Content-Encoding: gzip\r\n") && head.contains("Vary: Accept, Accept-Encoding\r\n"), "\(accepts)")
            #expect(!head.contains("Content-Length: \(body.utf8.count)"))
        }
        for accepts in ["identity", "gzip;q=0", "gzip;q=0.000", "br"] {
            let head = try await head("/long", accepts)
            #expect(!head.contains("Content-Encoding") && head.contains("Content-Length: \(body.utf8.count)\r\n"), "\(accepts)")
        }
        #expect(try await !head("/short", "gzip").contains("Content-Encoding"))
    }

    @Test(arguments: [
        ("nonsense\r\n\r\n", "HTTP/1.1 400"), ("GET / HTTP/1.1\r\nX: \(String(repeating: "x", count: 70_000))\r\n\r\n", "HTTP/1.1 4"),
        ("GET / HTTP/1.1\r\n\(String(repeating: "X: y\r\n", count: 200))\r\n", "HTTP/1.1 4"),
        ("GET / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n\(String(repeating: "x", count: 9000))", ""),
    ])
    func badOrOversizedRequestEndsTheConnection(request: String, answer: String) async throws {
        let port = try await Self.bind().localAddress!.port!
        let text = try await RawClient.exchange(port: port, request)
        #expect(text.hasPrefix(answer), "\(text)")
        #expect(!text.contains("HTTP/1.1 200"))
        if answer.isEmpty { #expect(text.isEmpty) }
    }

    /// A body of 1 MiB costs 20 bytes to ask for. A second client's answers, from the same event loop, show that the loop had its turns.
    @Test func askingWithoutReadingCostsOneAnswer() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let asked = Atomic(0)
        let body = [UInt8](repeating: 0x61, count: 1 << 20)
        let port = try await Endpoints.bind(port: 0, on: group) { path, _ in
            if path == "/large" { asked.wrappingAdd(1, ordering: .relaxed) }
            return group.next().makeSucceededFuture(path == "/large" ? .init(body: body) : .init(text: "small"))
        }.get().localAddress!.port!
        let requests = 64
        let (received, receive) = AsyncStream<Int>.makeStream()
        let channel = try await ClientBootstrap(group: TestSockets.eventLoop)
            .channelOption(.autoRead, value: false)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ByteCounter { receive.yield($0) })
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        let question = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
        try await channel.writeAndFlush(ByteBuffer(string: String(repeating: question, count: requests))).get()
        for _ in 0..<100 {
            _ = try await RawClient.exchange(port: port, "GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        }
        let unread = asked.load(ordering: .relaxed)
        // What the two sockets hold, and one.
        #expect(unread > 0 && unread < 16, "\(unread) answers were made before one was read")
        try await channel.setOption(.autoRead, value: true).get()
        for await bytes in received where bytes >= requests << 20 { break }
        #expect(asked.load(ordering: .relaxed) == requests)
        try await channel.close()
        try await group.shutdownGracefully()
    }

    /// At the bound a new connection is closed unheard; when one leaves, there is room again.
    @Test func connectionsAreBounded() async throws {
        let port = try await Self.bind().localAddress!.port!
        var held: [any Channel] = []
        for _ in 0..<64 {
            // An answer shows that the connection has been counted.
            held.append(try await RawClient.hold(port: port, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
        }
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.get(port: port, path: "/metrics")
        }
        #expect(error.map { $0.code == .closed || $0.code == .unreachable } == true, "\(error as Any)")
        for channel in held { try await channel.close() }
        // The server sees the ends one after the other.
        while true {
            let response = try? await TestSockets.get(port: port, path: "/metrics")
            if response?.status == 200 { break }
        }
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", NetworkError.Code.violation), ("", .closed),
        ("SSH-2.0-OpenSSH\r\n\r\n", .violation),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", .violation),
    ])
    func answerThatIsNotWholeFails(answer: String, code: NetworkError.Code) async throws {
        let server = try await RawServer(ending: .closes) { _ in Array(answer.utf8) }
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.get(port: server.port, path: "/x")
        }
        #expect(error?.code == code, "\(error as Any)")
    }

    @Test func answerMayComeInPieces_orEndWithTheConnection() async throws {
        let chunked = try await RawServer(isDripped: true) { _ in
            Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".utf8)
        }
        let plain = try await RawServer(ending: .closes) { _ in Array("HTTP/1.0 418 Teapot\r\n\r\nabcde".utf8) }
        for (server, status) in [(chunked, 200), (plain, 418)] {
            let response = try await TestSockets.get(port: server.port, path: "/")
            #expect(response == HTTPResponse(status: status, body: Array("abcde".utf8)))
        }
    }

    @Test func silentServerIsGivenUp() async throws {
        let server = try await RawServer { _ in Array("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".utf8) }
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.get(port: server.port, path: "/", deadline: .milliseconds(20))
        }
        #expect(error?.code == .timedOut)
    }

    @Test func answerAboveTheBoundFails() async throws {
        let server = try await RawServer { _ in
            Array("HTTP/1.1 200 OK\r\n\r\n".utf8) + [UInt8](repeating: 0x61, count: 16 << 20 | 1)
        }
        let error = await #expect(throws: NetworkError.self) {
            _ = try await TestSockets.get(port: server.port, path: "/")
        }
        #expect(error?.code == .tooLarge, "\(error as Any)")
    }
}

/// Counts what comes.
private final class ByteCounter: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let tell: (Int) -> Void
    private var received = 0

    init(_ tell: @escaping (Int) -> Void) { self.tell = tell }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received += unwrapInboundIn(data).readableBytes
        tell(received)
    }
}
