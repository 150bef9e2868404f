import Foundation

/// A program that runs until it is told to stop: it says in its first line of standard output that it is ready.
package final class LiveProcess: @unchecked Sendable {
    // `process` is used by the test that owns this object only.
    private let process = Process()
    private let output = Pipe()
    private let folder: String

    /// The first line of standard output, without its newline.
    package let firstLine: String

    package struct NotReady: Error, CustomStringConvertible {
        package var description: String
        /// How the program ended, as `wait` tells it.
        package var status: Int32?
        package init(description: String, status: Int32? = nil) {
            self.description = description
            self.status = status
        }
    }

    /// Returns when the first line has come; throws when the program ends without one. `more` is added to this process's environment.
    package init(_ name: String, _ arguments: [String], in directory: String? = nil, environment more: [String: String] = [:]) throws {
        folder = try Binaries.temporaryDirectory()
        let errors = "\(folder)/err"
        _ = FileManager.default.createFile(atPath: errors, contents: nil)
        process.executableURL = URL(fileURLWithPath: try Binaries.path(of: name))
        process.arguments = arguments
        if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
        if !more.isEmpty { process.environment = ProcessInfo.processInfo.environment.merging(more) { $1 } }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        let errorFile = try FileHandle(forWritingTo: URL(fileURLWithPath: errors))
        process.standardError = errorFile
        try process.run()
        // Foundation keeps a process object whose end it has missed: what it holds open is closed by hand, here and in `deinit`.
        try errorFile.close()
        var line: [UInt8] = []
        while true {
            let byte = output.fileHandleForReading.readData(ofLength: 1)
            guard let byte = byte.first else {
                try? output.fileHandleForReading.close()
                let status = Self.wait(for: process, deadline: 30)
                let text = (try? String(contentsOfFile: errors, encoding: .utf8)) ?? ""
                try? FileManager.default.removeItem(atPath: folder)
                throw NotReady(description: "\(name) ended before its first line: \(text)", status: status)
            }
            if byte == 0x0a { break }
            line.append(byte)
        }
        firstLine = String(decoding: line, as: UTF8.self)
    }

    deinit {
        if isRunning { kill(process.processIdentifier, SIGKILL) }
        try? output.fileHandleForReading.close()
        try? FileManager.default.removeItem(atPath: folder)
    }

    package var isRunning: Bool { Self.status(of: process) == nil }

    /// Sends a signal.
    package func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    /// Waits for the end, at most `deadline` seconds: exit status, 128 + signal when one ended it, nil when it still runs.
    package func wait(deadline: TimeInterval = 30) -> Int32? { Self.wait(for: process, deadline: deadline) }

    private static func wait(for process: Process, deadline: TimeInterval) -> Int32? {
        let end = Date(timeIntervalSinceNow: deadline)
        while true {
            if let status = status(of: process) { return status }
            guard Date() < end else { return nil }
            usleep(1000)
        }
    }

    /// Nil while it runs. Asks the kernel: Foundation's own notice of a process that was killed came up to half a minute late.
    private static func status(of process: Process) -> Int32? {
        var ending = siginfo_t()
        if waitid(P_PID, id_t(process.processIdentifier), &ending, WEXITED | WNOHANG | WNOWAIT) == 0 {
            guard ending.si_signo == SIGCHLD else { return nil }
            let status = ending._sifields._sigchld.si_status
            return ending.si_code == CLD_EXITED ? status : 128 + status
        }
        // Foundation has collected it.
        guard !process.isRunning else { return nil }
        return process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
    }

    /// The last line of standard output, without its newline; for after `wait`.
    package func lastLine() -> String? {
        let rest = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        return rest.split(separator: "\n").last.map(String.init)
    }

    /// What it has written to standard error so far.
    package var standardError: String { (try? String(contentsOfFile: "\(folder)/err", encoding: .utf8)) ?? "" }
}
