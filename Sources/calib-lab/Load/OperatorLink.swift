import Glibc
import Wire

/// An operator's connection: one request at a time. Its owner waits with `ask`, or polls with `step` while other clients have their turns.
final class OperatorLink {
    private let connection: LoadConnection
    private var unsent: [UInt8]
    private var received: [UInt8] = []
    private var number: Int64 = 0
    private let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)

    init(port: Int, _ certificate: LoadCertificate) throws(LoadError) {
        connection = try LoadConnection(port: port, certificate)
        unsent = Message.hello(Message.Hello(version: "calib-lab", edge: nil)).line
    }

    deinit { bytes.deallocate() }

    func begin(_ verb: String, _ arguments: [String: String]) {
        number += 1
        unsent += Message.request(Message.Request(id: number, verb: verb, arguments: arguments)).line
    }

    /// The reply's body once it has come. Answers longer than a line are not for us.
    func step() throws(LoadError) -> JSONValue? {
        try connection.advance()
        guard connection.isOpen else { return nil }
        if !unsent.isEmpty { unsent.removeFirst(try connection.write(unsent)) }
        while true {
            let count = try connection.read(into: bytes)
            guard count > 0 else { break }
            received += bytes[..<count]
        }
        while let end = received.firstIndex(of: 0x0a) {
            let line = Array(received[..<end])
            received.removeFirst(end + 1)
            guard let message = try? JSONValue.parse(line) else { continue }
            if message["type"]?.string == "error" { throw LoadError("the hub complains: \(message["text"]?.string ?? "?")") }
            guard message["type"]?.string == "reply", message["id"]?.integer == number else { continue }
            guard message["ok"]?.boolean == true else { throw LoadError("refused: \(message["text"]?.string ?? "?")") }
            return message["body"] ?? .null
        }
        return nil
    }

    func ask(_ verb: String, _ arguments: [String: String], seconds: Double) throws(LoadError) -> JSONValue {
        begin(verb, arguments)
        let deadline = monotonicNanoseconds() + Int64(seconds * 1e9)
        while monotonicNanoseconds() < deadline {
            if let body = try step() { return body }
            var wait = pollfd(fd: connection.descriptor, events: Int16(connection.awaitsRoom ? POLLOUT : POLLIN), revents: 0)
            poll(&wait, 1, 100)
        }
        throw LoadError("not done within \(Int(seconds)) s: \(verb)")
    }

    /// On every host and symbol of the fleet.
    func startExperiment(_ id: String, seconds: Double) throws(LoadError) {
        _ = try ask(
            "experiment create",
            ["id": id, "design": "symbol", "split": "1", "candidate": "spread.base_bps=1.2", "reason": "a fleet to measure"],
            seconds: seconds)
        _ = try ask("experiment start", ["id": id, "reason": "a fleet to measure"], seconds: seconds)
    }
}
