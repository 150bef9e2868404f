import Foundation
import NIOCore
import NodeShell
import TestSupport
import Testing

/// Debian's `prometheus` package, where it is installed or where `CALIBRANT_PROMETHEUS` says that its programs lie.
enum PrometheusTools {
    static let absence: Comment =
        "SKIPPED: no promtool and prometheus on this machine; nothing shows that a real Prometheus reads us. deploy/test --full fetches them"

    static var areHere: Bool { path(of: "promtool") != nil && path(of: "prometheus") != nil }

    static func path(of name: String) -> String? {
        let given = ProcessInfo.processInfo.environment["CALIBRANT_PROMETHEUS"].map { [$0] } ?? []
        return (given + ["/usr/bin", "/usr/local/bin"]).map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Runs promtool to its end; all it said, and its exit status.
    static func promtool(_ arguments: [String], input: [UInt8] = []) throws -> (text: String, status: Int32) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(path(of: "promtool")))
        process.arguments = arguments
        let (given, said) = (Pipe(), Pipe())
        (process.standardInput, process.standardOutput, process.standardError) = (given, said, said)
        try process.run()
        // It reads everything before it says a word.
        try given.fileHandleForWriting.write(contentsOf: Data(input))
        try given.fileHandleForWriting.close()
        let text = String(decoding: said.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (text, process.terminationStatus)
    }
}

/// One real Prometheus on a free port of loopback, a process of the test: never the system's service.
final class PrometheusServer {
    private let process = Process()
    private let directory: String
    private let group: any EventLoopGroup
    private let port: Int

    /// - Parameter jobs: name and `host:port` of what is scraped, five times a second.
    init(jobs: [(name: String, target: String)], on group: any EventLoopGroup) throws {
        self.group = group
        directory = try Binaries.temporaryDirectory()
        let scrapes = jobs.map { "  - job_name: \($0.name)\n    static_configs: [{targets: ['\($0.target)']}]\n" }.joined()
        try Data("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n\(scrapes)".utf8)
            .write(to: URL(fileURLWithPath: directory + "/prometheus.yml"))
        let log = directory + "/log"
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        process.executableURL = URL(fileURLWithPath: try #require(PrometheusTools.path(of: "prometheus")))
        process.arguments = [
            "--config.file=\(directory)/prometheus.yml", "--storage.tsdb.path=\(directory)/data", "--web.listen-address=127.0.0.1:0",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        try process.run()
        var found: Int?
        while found == nil {
            let text = try String(contentsOfFile: log, encoding: .utf8)
            let line = text.split(separator: "\n").first { $0.contains("\"Listening on\"") && $0.contains("address=127.0.0.1:") }
            found = line.flatMap { $0.split(separator: ":").last }.flatMap { Int($0) }
            guard found != nil || process.isRunning else { throw LiveProcess.NotReady(description: "prometheus ended: \(text)") }
            usleep(20_000)
        }
        port = found!
    }

    deinit {
        if process.isRunning {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// The values an instant query gives, by the label `job`; only finite numbers.
    func query(_ expression: String) throws -> [String: Double] {
        let query = expression.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
        let response = try HTTPClient.get(host: "127.0.0.1", port: port, path: "/api/v1/query?query=\(query)", on: group.next()).wait()
        let object = try JSONSerialization.jsonObject(with: Data(response.body)) as? [String: Any]
        guard response.status == 200, let data = object?["data"] as? [String: Any], let results = data["result"] as? [[String: Any]] else {
            throw LiveProcess.NotReady(description: "\(expression): \(String(decoding: response.body, as: UTF8.self))")
        }
        var values: [String: Double] = [:]
        for result in results {
            let job = (result["metric"] as? [String: String])?["job"] ?? ""
            if let text = (result["value"] as? [Any])?.last as? String, let value = Double(text), value.isFinite { values[job] = value }
        }
        return values
    }
}
