import Foundation
import TestSupport
import Testing

/// An acknowledgement never precedes its sync (SPEC 8.2, 8.6), as the kernel saw it: the hub under `strace -f`, its acknowledgements told in clear
/// by the preloaded library, which writes them down before TLS has sent them.
@Suite struct AckOrderTests {
    /// Installed, and allowed to trace here.
    private static let canTrace = (try? Binaries.run("/usr/bin/env", ["strace", "-f", "-o", "/dev/null", "true"]).status) == 0

    @Test(
        .enabled(
            if: canTrace, "SKIPPED: strace is not installed or may not trace here; NothingLostTests looks at the order without the kernel"),
        .enabled(if: ForgetfulDisk.isUsable, "SKIPPED: a sanitizer's library must be the first of a process"))
    func everyAcknowledgementFollowsTheReturnOfTheSyncThatCoversIt() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let trace = directory + "/trace"
        let initialised = try Binaries.run(
            "calib-hub", ["init", "--directory", directory + "/pki", "--listen", "127.0.0.1:0", "--edge", "e1"])
        #expect(initialised.status == 0, "\(initialised.standardError)")
        // -D: the hub is our child, and the tracer its.
        let hub = try LiveProcess(
            "/usr/bin/env",
            [
                "strace", "-D", "-f", "-qq", "-y", "-s", "1000000", "-o", trace, "-e",
                "trace=pwrite64,pwritev,pwritev2,write,writev,fsync,fdatasync,syncfs,exit_group", "-E",
                "LD_PRELOAD=\(try ForgetfulDisk.sharedObject())", "-E", "FORGETFUL_JOURNAL=\(directory)/journal",
                try Binaries.path(of: "calib-hub"), "run", "--config", directory + "/pki/hub.yaml", "--set",
                "artifacts_dir=\(directory)/hub", "--set", "metrics.listen=127.0.0.1:0",
            ])
        let pki = directory + "/pki/edges/e1"
        let rig = try EdgeRig(
            [
                "hub.enabled=true", "hub.host=127.0.0.1",
                "hub.port=\(try EdgeRig.member("listening", of: hub.firstLine).split(separator: ":")[1])",
                "hub.server_name=localhost", "tls.certificate=\(pki)/cert.pem", "tls.key=\(pki)/key.pem", "tls.authority=\(pki)/ca.pem",
            ].flatMap { ["--set", $0] })
        func told() -> Int {
            (try? String(contentsOfFile: directory + "/journal", encoding: .utf8))?.components(separatedBy: "\"ack\"").count ?? 0
        }
        try rig.wait(for: "acknowledgements") { told() > 30 }
        #expect(rig.stop() == 0)
        hub.signal(SIGTERM)
        #expect(hub.wait() == 0)
        func text() throws -> String { String(decoding: try Data(contentsOf: URL(fileURLWithPath: trace)), as: UTF8.self) }
        try rig.wait(for: "the end of the trace") { try text().contains("exit_group(") }

        let lines = try text().split(separator: "\n").map(String.init)
        var order = AckOrder()
        for line in lines { order.take(line) }
        #expect(order.acknowledgements >= 30 && order.durable.count >= 3, "\(order.acknowledgements), \(order.durable)")
        #expect(order.early == [])
        // The same run, had it not synced: the look-out would have seen it.
        var unsynced = AckOrder()
        for line in lines where !line.contains("sync") { unsynced.take(line) }
        #expect(unsynced.early.count == order.acknowledgements)
    }
}

/// Reads what strace wrote: how much of each file is written, how much durable, and what is acknowledged before it is.
private struct AckOrder {
    private(set) var acknowledgements = 0
    private(set) var early: [String] = []
    /// By the file's name.
    private(set) var durable: [String: Int] = [:]
    private var written: [String: Int] = [:]
    /// What a thread's call that has not returned was given, by the thread.
    private var begun: [Substring: (call: String, written: [String: Int])] = [:]

    mutating func take(_ line: String) {
        let thread = line.prefix { $0 != " " }
        let rest = line.dropFirst(thread.count).drop { $0 == " " }
        if rest.hasSuffix("<unfinished ...>") {
            tell(rest)
            begun[thread] = (String(rest), written)
        } else if rest.hasPrefix("<... "), let call = begun.removeValue(forKey: thread) {
            returned(call.call[...], rest, call.written)
        } else {
            tell(rest)
            returned(rest, rest, written)
        }
    }

    /// As the call begins.
    private mutating func tell(_ call: Substring) {
        guard call.hasPrefix("writev("), call.contains("sent 0x") else { return }
        for part in call.replacingOccurrences(of: "\\\"", with: "\"").components(separatedBy: "{\"type\":\"ack\",\"file\":\"").dropFirst() {
            let file = String(part.prefix { $0 != "\"" })
            let length = Int(part.components(separatedBy: "\"length\":")[1].prefix { $0.isNumber }) ?? .max
            acknowledgements += 1
            if durable[file] ?? 0 < length { early.append("\(file) to \(length) with \(durable[file] ?? 0) durable") }
        }
    }

    /// `end` is the part of the line that holds the result; `before` what was written when the call began.
    private mutating func returned(_ call: Substring, _ end: Substring, _ before: [String: Int]) {
        let name = call.prefix { $0 != "(" }
        guard let sign = end.range(of: " = ", options: .backwards), let result = Int(end[sign.upperBound...].prefix { $0.isNumber }),
            let file = call.prefix(while: { $0 != ">" }).split(separator: "/").last.map(String.init)
        else { return }
        switch name {
        case "pwrite64", "pwritev", "pwritev2":
            guard file.hasSuffix(".jsonl") else { return }
            // The offset is the last argument.
            let arguments = call.range(of: " = ", options: .backwards).map { call[..<$0.lowerBound] } ?? call
            let text = arguments.replacingOccurrences(of: " <unfinished ...>", with: "").trimmingCharacters(in: [" ", ")"])
            let offset = Int(text.split(separator: ",").last?.drop { $0 == " " } ?? "") ?? 0
            written[file] = max(written[file] ?? 0, offset + result)
        case "fsync", "fdatasync": if result == 0 { durable[file] = max(durable[file] ?? 0, before[file] ?? 0) }
        case "syncfs": if result == 0 { durable.merge(before) { max($0, $1) } }
        default: break
        }
    }
}
