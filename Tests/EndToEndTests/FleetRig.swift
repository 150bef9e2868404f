import Foundation
import TestSupport
import Testing

/// Exchange, hub and edges on loopback, under one directory; ended with the object.
final class FleetRig {
    let directory: String
    let symbols: [String]
    let venue: LiveProcess
    private(set) var hub: LiveProcess
    private(set) var edges: [String: LiveProcess] = [:]
    private let hubArguments: [String]

    init(hosts: [String], symbols: [String], seed: Int = 11) throws {
        self.symbols = symbols
        directory = try Binaries.temporaryDirectory()
        venue = try LiveProcess(
            "calib-lab",
            ["venue", "--wire", "bybit", "--listen", "127.0.0.1:0", "--symbols", symbols.joined(separator: ","), "--seed", "\(seed)"])
        let initialised = try Binaries.run(
            "calib-hub",
            ["init", "--directory", directory + "/pki"] + hosts.flatMap { ["--edge", $0] }
                + ["--operator", "ann", "--operator", "bob", "--listen", "127.0.0.1:0"])
        guard initialised.status == 0 else { throw LiveProcess.NotReady(description: initialised.standardError) }
        hubArguments = [
            "run", "--config", directory + "/pki/hub.yaml", "--set", "metrics.listen=127.0.0.1:0", "--set",
            "artifacts_dir=\(directory)/hub",
        ]
        hub = try LiveProcess("calib-hub", hubArguments)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    /// `laboratory`: what makes its arms differ; nil is the program that is installed.
    func start(_ host: String, laboratory: [String]? = nil, settings more: [String] = []) throws {
        let address = try hubAddress
        let pki = "\(directory)/pki/edges/\(host)"
        let settings =
            [
                "host=\(host)", "artifacts_dir=\(directory)/edge/\(host)", "venue.name=sim",
                "venue.url=ws://\(try Self.member("listening", of: venue))/v5/public/linear",
                "venue.symbols=\(symbols.joined(separator: ","))",
                "hub.enabled=true", "hub.host=127.0.0.1", "hub.port=\(address.split(separator: ":")[1])", "hub.server_name=localhost",
                "tls.certificate=\(pki)/cert.pem", "tls.key=\(pki)/key.pem", "tls.authority=\(pki)/ca.pem", "metrics.listen=127.0.0.1:0",
            ] + more
        edges[host] = try LiveProcess(
            laboratory == nil ? "edge-node" : "edge-node-lab",
            ["run", "--config", Repository.path("config/edge.yaml")] + settings.flatMap { ["--set", $0] } + (laboratory ?? []))
    }

    /// SIGTERM, and the exit status.
    func stop(_ host: String) -> Int32? {
        edges[host]?.signal(SIGTERM)
        return edges[host]?.wait()
    }

    /// The hub is killed, and started again at its address when `meanwhile` is over.
    func restartHub(_ meanwhile: () throws -> Void) throws {
        let address = try hubAddress
        hub.signal(SIGKILL)
        _ = hub.wait()
        try meanwhile()
        hub = try LiveProcess("calib-hub", hubArguments + ["--set", "listen=\(address)"])
    }

    var hubAddress: String { get throws { try Self.member("listening", of: hub) } }

    func hubctl(_ arguments: [String], as name: String = "ann", deadline seconds: Double = 60) throws -> Binaries.Outcome {
        try Binaries.run(
            "hubctl", arguments + ["--context", "\(directory)/pki/operators/\(name)", "--hub", try hubAddress], deadline: seconds)
    }

    /// The exit status and what was said.
    func waitForDecision(_ id: String, seconds: Int) throws -> Binaries.Outcome {
        try hubctl(["wait", "experiment/\(id)", "--for=decision", "--timeout", "\(seconds)"], deadline: Double(seconds + 10))
    }

    func json(_ arguments: [String], as name: String = "ann", status: Int32 = 0) throws -> FeedRows.Row {
        let outcome = try hubctl(arguments + ["-o", "json"], as: name)
        guard outcome.status == status,
            let values = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
        else { throw LiveProcess.NotReady(description: "\(arguments): \(outcome.status) \(outcome.standardError)") }
        return FeedRows.Row(values: values)
    }

    func feeds(_ host: String) throws -> FeedRows { try FeedRows(directory: "\(directory)/edge/\(host)/feeds") }

    static func member(_ name: String, of process: LiveProcess) throws -> String {
        let line = try JSONSerialization.jsonObject(with: Data(process.firstLine.utf8)) as? [String: Any]
        return try #require(line?[name] as? String, "'\(name)' is not in \(process.firstLine)")
    }

    /// Asks again until it holds.
    func eventually(_ what: String, seconds: TimeInterval = 60, _ holds: () throws -> Bool) throws {
        let deadline = Date().addingTimeInterval(seconds)
        while true {
            if (try? holds()) == true { return }
            guard Date() < deadline else {
                Issue.record("never: \(what)")
                throw LiveProcess.NotReady(description: what)
            }
            usleep(50_000)
        }
    }
}

extension FeedRows.Row {
    func objects(_ key: String) -> [FeedRows.Row] { (values[key] as? [[String: Any]] ?? []).map(FeedRows.Row.init) }
}
