import Foundation
import NIOCore
import NIOPosix
import NodeShell
import TestSupport
import Testing

/// A simulated venue, and an edge that may be started, stopped and started again on one artifacts directory.
final class EdgeRig {
    let directory: String
    var artifacts: String { directory + "/artifacts" }
    private(set) var venue: LiveProcess
    private let address: String
    private let arguments: [String]
    private(set) var edge: LiveProcess
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    struct TimedOut: Error, CustomStringConvertible { var description: String }

    /// Starts both; returns when the edge has said that it runs.
    init(_ more: [String] = [], venue options: [String] = [], prepare: (String) throws -> [String] = { _ in [] }) throws {
        directory = try Binaries.temporaryDirectory()
        venue = try LiveProcess(
            "calib-lab", ["venue", "--wire", "bybit", "--listen", "127.0.0.1:0", "--symbols", "BTCUSDT,ETHUSDT", "--seed", "3"] + options)
        address = try Self.member("listening", of: venue.firstLine)
        arguments =
            [
                "--config", Repository.path("config/edge.yaml"), "--set", "host=e1", "--set", "artifacts_dir=\(directory)/artifacts",
                "--set", "venue.url=ws://\(address)/v5/public/linear", "--set", "metrics.listen=127.0.0.1:0",
                "--set", "pipeline.pipeline_sample_rate=1",
            ] + more + (try prepare(directory))
        edge = try LiveProcess("edge-node", ["run"] + arguments)
    }

    deinit {
        edge.signal(SIGKILL)
        venue.signal(SIGTERM)
        _ = edge.wait()
        _ = venue.wait()
        try? group.syncShutdownGracefully()
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// The venue dies, and comes back where it was once `meanwhile` has looked.
    func restartVenue(_ meanwhile: () throws -> Void) throws {
        venue.signal(SIGKILL)
        _ = venue.wait()
        try meanwhile()
        venue = try LiveProcess(
            "calib-lab", ["venue", "--wire", "bybit", "--listen", address, "--symbols", "BTCUSDT,ETHUSDT", "--seed", "4"])
    }

    func startAgain() throws { edge = try LiveProcess("edge-node", ["run"] + arguments) }

    /// SIGTERM, and the exit status.
    func stop() -> Int32? {
        edge.signal(SIGTERM)
        return edge.wait()
    }

    func edgeNode(_ verb: [String]) throws -> Binaries.Outcome { try Binaries.run("edge-node", verb + arguments) }

    /// A member of an object on one line.
    static func member(_ name: String, of line: String) throws -> String {
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        return try #require(object?[name] as? String, "\(name) in \(line)")
    }

    func get(_ path: String) throws -> HTTPResponse {
        let address = try Self.member("metrics", of: edge.firstLine).split(separator: ":")
        return try HTTPClient.get(host: String(address[0]), port: Int(address[1])!, path: path, on: group.next()).wait()
    }

    /// The sum of a family's samples; nil when it has none.
    func metric(_ name: String) throws -> Double? {
        let lines = String(decoding: try get("/metrics").body, as: UTF8.self).split(separator: "\n").filter {
            $0.hasPrefix(name + "{") || $0.hasPrefix(name + " ")
        }
        return lines.isEmpty ? nil : lines.compactMap { Double($0.split(separator: " ").last!) }.reduce(0, +)
    }

    /// Looks again and again until it is so.
    func wait(for fact: String, deadline seconds: TimeInterval = 30, _ isSo: () throws -> Bool) throws {
        let end = Date(timeIntervalSinceNow: seconds)
        while Date() < end {
            if try isSo() { return }
            usleep(20_000)
        }
        throw TimedOut(description: "not within \(seconds) s: \(fact); the edge said: \(edge.standardError.suffix(2000))")
    }

    /// Whole rows only: for after a stop.
    func rows() throws -> FeedRows { try FeedRows(directory: artifacts + "/feeds") }
}
