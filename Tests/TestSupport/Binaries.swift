import Foundation

/// The package's executables, built beside the tests.
package enum Binaries {
    package struct Missing: Error, CustomStringConvertible {
        package var description: String
    }

    /// Looks beside the running test bundle, whose path is an argument or the process itself under `swift test` whatever
    /// `--scratch-path` says, then in the package's `.build`.
    /// An absolute path is taken as it is.
    package static func path(of name: String, file: StaticString = #filePath) throws -> String {
        if name.hasPrefix("/") { return name }
        var directories = CommandLine.arguments.flatMap { argument -> [String] in
            guard argument.hasSuffix(".xctest") || argument == CommandLine.arguments.first else { return [] }
            return [URL(fileURLWithPath: argument).deletingLastPathComponent().path]
        }
        if let running = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
            directories.append(URL(fileURLWithPath: running).deletingLastPathComponent().path)
        }
        // <root>/Tests/TestSupport/Binaries.swift
        let root = URL(fileURLWithPath: "\(file)").deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        directories += [root.appendingPathComponent(".build/release").path, root.appendingPathComponent(".build/debug").path]
        for directory in directories {
            let path = "\(directory)/\(name)"
            if FileManager.default.isExecutableFile(atPath: path) { return path }
        }
        throw Missing(description: "no executable '\(name)' in \(directories); build all products before the tests")
    }

    /// How a finished process went.
    package struct Outcome: Sendable {
        package var standardOutput: String
        package var standardError: String
        /// Exit status; 128 + signal when a signal ended it.
        package var status: Int32
        /// The deadline passed and the process was killed.
        package var isTimedOut: Bool
    }

    /// Runs an executable to its end, at most `deadline` seconds. Output goes to temporary files, so a talkative process never blocks on
    /// a full pipe.
    package static func run(
        _ name: String, _ arguments: [String], in directory: String? = nil, environment: [String: String]? = nil,
        input: String? = nil, deadline: TimeInterval = 60
    ) throws -> Outcome {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try path(of: name))
        process.arguments = arguments
        if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
        if let environment { process.environment = environment }
        let folder = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        func sink(_ name: String) throws -> FileHandle {
            _ = FileManager.default.createFile(atPath: "\(folder)/\(name)", contents: nil)
            return try FileHandle(forWritingTo: URL(fileURLWithPath: "\(folder)/\(name)"))
        }
        var handles = [try sink("out"), try sink("err")]
        (process.standardOutput, process.standardError) = (handles[0], handles[1])
        process.standardInput = FileHandle.nullDevice
        if let input {
            let path = "\(folder)/in"
            try Data(input.utf8).write(to: URL(fileURLWithPath: path))
            handles.append(try FileHandle(forReadingFrom: URL(fileURLWithPath: path)))
            process.standardInput = handles[2]
        }
        let finished = DispatchSemaphore(value: 0)
        process.terminationHandler = { _ in finished.signal() }
        try process.run()
        // Foundation keeps every process object, and with it what it holds open; with 1,300 open files its `run` reads beyond a buffer.
        for handle in handles { try handle.close() }
        let isTimedOut = finished.wait(timeout: .now() + deadline) == .timedOut
        if isTimedOut {
            kill(process.processIdentifier, SIGKILL)
            finished.wait()
        }
        func text(_ name: String) throws -> String {
            String(decoding: try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(name)")), as: UTF8.self)
        }
        let status = process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
        return Outcome(standardOutput: try text("out"), standardError: try text("err"), status: status, isTimedOut: isTimedOut)
    }

    /// A fresh directory; the caller removes it.
    package static func temporaryDirectory() throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("calibrant-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }
}
