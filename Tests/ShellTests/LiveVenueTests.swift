import Foundation
import NIOCore
import NIOPosix
import NodeShell
import TestSupport
import Testing

/// The real `calib-lab venue` as a process, and our own client on its socket.
@Suite(.timeLimit(.minutes(1)))
struct LiveVenueTests {
    private static func start(_ arguments: [String]) throws -> (process: LiveProcess, port: Int, symbols: [String]) {
        let process = try LiveProcess("calib-lab", ["venue", "--wire", "bybit", "--listen", "127.0.0.1:0"] + arguments)
        let ready = try object(process.firstLine)
        let address = try #require(ready["listening"] as? String)
        let port = try #require(address.split(separator: ":").last.flatMap { Int($0) })
        #expect(address == "127.0.0.1:\(port)")
        return (process, port, try #require(ready["symbols"] as? [String]))
    }

    @Test func clientSubscribesReadsPingsAndLeaves() async throws {
        let venue = try Self.start(["--seed", "7", "--symbols", "ETHUSDT,XRPUSDT"])
        #expect(venue.symbols == ["ETHUSDT", "XRPUSDT"])
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: venue.port, path: "/v5/public/linear", recorder: recorder)
        try await socket.perform { $0.send(text: Array(#"{"op":"subscribe","args":["orderbook.50.ETHUSDT"],"req_id":"s"}"#.utf8)) }
        let ack = try object(#require(await recorder.text()))
        #expect(ack["success"] as? Bool == true && ack["op"] as? String == "subscribe" && ack["req_id"] as? String == "s")
        let snapshot = try object(#require(await recorder.text()))
        #expect(snapshot["topic"] as? String == "orderbook.50.ETHUSDT" && snapshot["type"] as? String == "snapshot")
        let data = try #require(snapshot["data"] as? [String: Any])
        #expect((data["b"] as? [[String]])?.count == 50 && (data["a"] as? [[String]])?.count == 50)
        var update = try #require(data["u"] as? Int)
        for _ in 0..<5 {
            let delta = try object(#require(await recorder.text()))
            #expect(delta["type"] as? String == "delta")
            #expect((delta["data"] as? [String: Any])?["u"] as? Int == update + 1)
            update += 1
        }
        // The venue's clock is the wall clock.
        let ts = try #require(snapshot["ts"] as? Int)
        #expect(abs(Date().timeIntervalSince1970 - Double(ts) / 1000) < 30)
        try await socket.perform {
            $0.ping([7])
            $0.send(text: Array(#"{"op":"unsubscribe","args":["orderbook.50.ETHUSDT"]}"#.utf8))
            $0.send(text: Array(#"{"op":"ping","req_id":"p"}"#.utf8))
        }
        var tail: [SocketRecorder.Event] = []
        while tail.last.map({ "\($0)".contains("pong\\\"") }) != true { tail.append(try #require(await recorder.next())) }
        #expect(tail.contains(.pong))
        // Behind the answer to the unsubscription comes no frame, only the answer to the ping.
        let texts = tail.compactMap { if case .text(let text) = $0 { text } else { nil } }
        #expect(texts.suffix(2).first?.contains(#""op":"unsubscribe""#) == true, "\(texts.suffix(2))")
        try await socket.perform { $0.close() }
        #expect(await recorder.closeReason() == "closed by this side")

        let rest = try await TestSockets.get(port: venue.port, path: "/v5/market/orderbook?category=linear&symbol=XRPUSDT&limit=3")
        let book = try #require(object(String(decoding: rest.body, as: UTF8.self))["result"] as? [String: Any])
        #expect(rest.status == 200 && (book["b"] as? [[String]])?.count == 3 && book["s"] as? String == "XRPUSDT")
        let other = try await TestSockets.get(port: venue.port, path: "/v5/nope")
        #expect(other.status == 404)
    }

    @Test(arguments: [SIGTERM, SIGINT])
    func signalEndsTheVenueInOrder(signal: Int32) async throws {
        let venue = try Self.start(["--seed", "7", "--symbols", "BTCUSDT"])
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: venue.port, path: "/v5/public/spot", recorder: recorder)
        try await socket.perform { $0.send(text: Array(#"{"op":"subscribe","args":["publicTrade.BTCUSDT"]}"#.utf8)) }
        #expect(await recorder.text()?.contains(#""ret_msg":"subscribe""#) == true)
        venue.process.signal(signal)
        #expect(await recorder.closeReason() == "closed by the server: 1000")
        #expect(venue.process.wait() == 0)
    }

    /// Answers to pings that nobody reads, until there are more of them than the venue keeps.
    @Test func clientThatDoesNotReadIsDropped_othersAreServed() async throws {
        let venue = try Self.start(["--seed", "7", "--symbols", "BTCUSDT"])
        let (ends, end) = AsyncStream<String>.makeStream()
        let target = WebSocketTarget(host: "127.0.0.1", port: venue.port, path: "/v5/public/linear")
        _ = try await TestSockets.eventLoop.flatSubmit {
            WebSocketClient.connect(to: target, on: TestSockets.eventLoop, delegate: DeafClient { end.yield($0) })
        }.get()
        #expect(await ends.first { _ in true } != nil)
        #expect(venue.process.standardError.contains("bytes unread; dropped"), "\(venue.process.standardError)")
        let rest = try await TestSockets.get(port: venue.port, path: "/v5/market/orderbook?category=linear&symbol=BTCUSDT")
        #expect(rest.status == 200)
    }

    @Test(.enabled(if: Recordings.bybitIsHere, "\(Recordings.absence)"), arguments: ["max", "1000"])
    func replaySendsTheRecordedFrames_andEnds(speed: String) async throws {
        let venue = try Self.start(["--replay", Recordings.bybit, "--speed", speed, "--once"])
        let topics = [["orderbook.200.BTCUSDT", "publicTrade.BTCUSDT"], ["orderbook.200.SOLUSDT"]]
        let recorder = SocketRecorder { event, socket in
            // A reader that stops and goes on loses nothing.
            guard case .text(let text) = event, text.contains(#""type":"snapshot""#), text.contains("orderbook") else { return }
            socket.setReading(false)
            socket.eventLoop.scheduleTask(in: .milliseconds(50)) { socket.setReading(true) }
        }
        let socket = try await TestSockets.connect(port: venue.port, path: "/v5/public/linear", recorder: recorder)
        try await socket.perform { socket in
            for names in topics {
                socket.send(text: Array(#"{"op":"subscribe","args":["\#(names.joined(separator: #"",""#))"]}"#.utf8))
            }
        }
        var texts: [String] = []
        var reason: String?
        for await event in recorder.events {
            switch event {
            case .text(let text): texts.append(text)
            case .closed(let text): reason = text
            case .opened, .pong: break
            }
        }
        #expect(reason == "closed by the server: 1000")
        #expect(texts.filter { $0.contains(#""op":"subscribe""#) }.count == 2)
        for names in topics {
            let expected = try recorded(category: "linear", topics: names)
            #expect(expected.count > 380)
            let got = texts.filter { text in names.contains { text.contains("\"topic\":\"\($0)\"") } }
            #expect(got == expected)
        }
        #expect(venue.process.wait() == 0)
    }

    @Test(.enabled(if: Recordings.bybitIsHere, "\(Recordings.absence)"))
    func replayKnowsOnlyWhatWasRecorded() async throws {
        let venue = try Self.start(["--replay", Recordings.bybit])
        #expect(venue.symbols == ["BTCUSDT", "DOGEUSDT", "ETHUSDT", "SOLUSDT"])
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: venue.port, path: "/v5/public/spot", recorder: recorder)
        try await socket.perform { $0.send(text: Array(#"{"op":"subscribe","args":["orderbook.200.SOLUSDT"]}"#.utf8)) }
        #expect(await recorder.text()?.contains("Invalid symbol :[orderbook.200.SOLUSDT]") == true)
        // At the recorded pace the first frame is due at once.
        try await socket.perform { $0.send(text: Array(#"{"op":"subscribe","args":["orderbook.200.BTCUSDT"]}"#.utf8)) }
        #expect(await recorder.text()?.contains(#""success":true"#) == true)
        #expect(await recorder.text() == (try recorded(category: "spot", topics: ["orderbook.200.BTCUSDT"]).first))
    }

    @Test(arguments: [
        ["--wire", "bybit"], ["--wire", "bybit", "--listen", "nowhere", "--seed", "1"], ["--wire", "bybit", "--listen", "127.0.0.1:0"],
        ["--wire", "binance-usdm", "--listen", "127.0.0.1:0", "--seed", "1", "--chaos"],
        ["--wire", "bybit", "--listen", "127.0.0.1:0", "--seed", "1", "--symbols", "BTCUSDT,BTCUSDT"],
        ["--wire", "bybit", "--listen", "127.0.0.1:0", "--seed", "1", "--symbols", "NOPE"],
        ["--wire", "bybit", "--listen", "127.0.0.1:0", "--seed", "1", "--once"],
        ["--wire", "bybit", "--listen", "127.0.0.1:0", "--seed", "1", "--drop-delta-every", "0"],
        ["--wire", "bybit", "--listen", "127.0.0.1:0", "--replay", "x", "--speed", "0"],
        ["--wire", "bybit", "--listen", "127.0.0.1:0", "--replay", "x", "--seed", "1"],
        ["--wire", "bybit", "--record", "x", "--seed", "1", "--seconds", "1"],
        ["--wire", "binance-usdm", "--record", "x", "--seed", "1"],
    ])
    func contradictoryArgumentsAreRefused(arguments: [String]) throws {
        let outcome = try Binaries.run("calib-lab", ["venue"] + arguments)
        #expect(outcome.status == 64 && outcome.standardError.hasPrefix("Error: "), "\(outcome)")
    }

    @Test func replayOfNothingFailsWithItsReason() throws {
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try "{}\nnonsense\n".write(toFile: "\(folder)/x", atomically: true, encoding: .utf8)
        for (path, reason) in [("\(folder)/x", "holds no frame"), ("\(folder)/absent", "cannot open")] {
            let outcome = try Binaries.run("calib-lab", ["venue", "--wire", "bybit", "--listen", "127.0.0.1:0", "--replay", path])
            #expect(outcome.status == 1 && outcome.standardError.contains(reason), "\(outcome)")
        }
    }

    /// Times of receipt that no clock shows: a frame, and another half a million years later.
    @Test(arguments: ["1", "0.001"])
    func replayOfImpossibleTimesGoesOn(speed: String) async throws {
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let venue = try Self.start([
            "--replay", Self.recording(in: folder, seconds: ["-9000000000000", "9000000000000"]), "--speed", speed,
        ])
        let recorder = SocketRecorder()
        let socket = try await TestSockets.connect(port: venue.port, path: "/v5/public/linear", recorder: recorder)
        try await socket.perform { $0.send(text: Array(#"{"op":"subscribe","args":["publicTrade.BTCUSDT"]}"#.utf8)) }
        #expect(await recorder.text()?.contains(#""success":true"#) == true)
        #expect(await recorder.text() == #"{"topic":"publicTrade.BTCUSDT","data":0}"#)
        try await socket.perform { $0.send(text: Array(#"{"op":"ping","req_id":"still here"}"#.utf8)) }
        #expect(await recorder.text()?.contains("still here") == true)
    }

    @Test func replaysClientThatAsksWithoutReadingIsDropped() async throws {
        let folder = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let venue = try Self.start(["--replay", Self.recording(in: folder, seconds: ["1", "2"])])
        let (ends, end) = AsyncStream<String>.makeStream()
        let target = WebSocketTarget(host: "127.0.0.1", port: venue.port, path: "/v5/public/linear")
        _ = try await TestSockets.eventLoop.flatSubmit {
            WebSocketClient.connect(to: target, on: TestSockets.eventLoop, delegate: DeafClient { end.yield($0) })
        }.get()
        #expect(await ends.first { _ in true } != nil)
        #expect(venue.process.standardError.contains("bytes unread; dropped"), "\(venue.process.standardError)")
    }

    /// One trade of BTCUSDT at each of these times.
    private static func recording(in folder: String, seconds: [String]) throws -> String {
        var text = #"{"t":"connect","conn":"a","addr":"wss://x/v5/public/linear"}"# + "\n"
        for (number, time) in seconds.enumerated() {
            text += #"{"t":"recv","conn":"a","ts":\#(time),"data":"{\"topic\":\"publicTrade.BTCUSDT\",\"data\":\#(number)}"}"# + "\n"
        }
        try text.write(toFile: "\(folder)/recording", atomically: true, encoding: .utf8)
        return "\(folder)/recording"
    }

    @Test func addressInUseIsNamed() throws {
        let venue = try Self.start(["--seed", "7", "--symbols", "BTCUSDT"])
        let outcome = try Binaries.run(
            "calib-lab", ["venue", "--wire", "bybit", "--listen", "127.0.0.1:\(venue.port)", "--seed", "1", "--symbols", "BTCUSDT"])
        #expect(outcome.status == 1 && outcome.standardError.contains("cannot listen on 127.0.0.1:\(venue.port)"), "\(outcome)")
    }
}

/// Asks as much as the venue takes, and reads nothing.
private final class DeafClient: WebSocketDelegate {
    private let tell: (String) -> Void
    private let ping = ByteBuffer(string: #"{"op":"ping","req_id":"\#(String(repeating: "x", count: 90))"}"#)

    init(tell: @escaping (String) -> Void) { self.tell = tell }

    func opened(_ socket: WebSocket) {
        socket.setReading(false)
        drained(socket)
    }
    func drained(_ socket: WebSocket) {
        for _ in 0..<1000 where socket.isWritable { socket.send(text: ping, isFlushed: false) }
        socket.flush()
        // Room left means the flush has written all: there is no further event to wait for.
        if socket.isWritable { socket.eventLoop.assumeIsolated().execute { self.drained(socket) } }
    }
    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) {}
    func pong(on socket: WebSocket) {}
    func closed(_ socket: WebSocket, reason: String) { tell(reason) }
}

private func object(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
}

/// The frames of `topics` as the recording has them, in order.
private func recorded(category: String, topics: [String]) throws -> [String] {
    var input = try LineInput(path: Recordings.bybit)
    var connection: String?
    var frames: [String] = []
    while let line = try input.next() {
        guard line.count < 1 << 20, let json = try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any] else { continue }
        switch json["t"] as? String {
        case "connect" where (json["addr"] as? String)?.hasSuffix("/\(category)") == true: connection = json["conn"] as? String
        case "recv" where json["conn"] as? String == connection:
            let data = try #require(json["data"] as? String)
            guard let topic = try object(data)["topic"] as? String, topics.contains(topic) else { continue }
            frames.append(data)
        default: break
        }
    }
    return frames
}
