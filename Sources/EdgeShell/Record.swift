import ArgumentParser
import CalibModel
import EdgeCore
import Glibc
import NIOCore
import NIOPosix
import NodeShell
import Wire

/// `edge-node record`: what the configured venue says, as files.
struct Record: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Records a venue's raw frames into compressed files that `replay` reads.",
        discussion: """
            For Binance one series of files per symbol, '<receive unix ns> <frame>' in gzip with the order books of its REST interface in line; for \
            Bybit one series, {"t":"recv","conn":NAME,"ts":SECONDS,"data":FRAME} in zstd. A file ends with the UTC hour or day, or at its size; each \
            begins with new snapshots, so it can be replayed alone, or all of a series together. Until it is whole its name ends in .partial.

            One JSON line on stdout says that recording begins; the last one counts messages, bytes of text and files. SIGTERM and SIGINT \
            complete the files.

            Exit status: 0 stopped; 1 a file cannot be written; 64 usage; 78 configuration.
            """)

    enum Rotation: String, ExpressibleByArgument, CaseIterable {
        case hour, day
        var seconds: Int64 { self == .hour ? 3_600 : 86_400 }
    }

    @Option(help: ArgumentHelp("The configuration, such as config/edge.yaml; its venue is recorded.", valueName: "file"))
    var config: String

    @Option(
        help: ArgumentHelp(
            "Overrides one key of the configuration, e.g. venue.symbols=BTCUSDT; may be given several times.", valueName: "key=value"))
    var set: [String] = []

    @Option(help: ArgumentHelp("Where the files go; made when it is not there.", valueName: "dir"))
    var output: String

    @Option(help: "A file ends with the UTC hour or day.")
    var rotate = Rotation.day

    @Option(help: ArgumentHelp("A file ends at this size of text, too; 1 to 65536.", valueName: "MiB"))
    var size = 1_024

    func validate() throws {
        guard (1...65_536).contains(size) else { throw ValidationError("--size \(size): allowed are 1 to 65536") }
        guard !output.isEmpty else { throw ValidationError("--output needs a directory") }
    }

    func run() throws {
        let configuration = try loadOrExit(file: config, overrides: set)
        do {
            try record(configuration)
        } catch let error as FileError {
            printError("edge-node record: \(error)")
            throw ExitCode.failure
        } catch let error as TLSError {
            printError("edge-node record: tls: \(error)")
            throw ExitCode.badConfiguration
        }
    }

    /// What the end of recording by itself sends to our own main thread.
    private static let wakeUp = SIGUSR1

    private func record(_ configuration: EdgeConfiguration) throws {
        let signals = Signals([SIGTERM, SIGINT, Self.wakeUp])
        guard mkdir(output, 0o755) == 0 || errno == EEXIST else {
            throw FileError(.create, output, errorNumber: errno, remedy: "does the directory above it exist and is it writable?")
        }
        let (target, rest) = try VenueConnection.addresses(configuration.venue)
        let venue = QuoteNode.Venue(rawValue: configuration.venue.name)!  // Checked on load.
        let writer = try RecordWriter { kill(getpid(), Self.wakeUp) }
        let thread = try OwnerThread(name: "record-writer") { writer.run() }
        defer { thread.join() }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let recorder = Recorder(
            .init(
                venue: venue,
                connection: .init(
                    venue: venue, target: target, rest: rest, symbols: configuration.venue.symbols, depth: configuration.venue.depth,
                    logger: LogLines.logger("edge-node")), directory: output, rotationSeconds: rotate.seconds, fileBytesMax: size << 20,
                url: configuration.venue.url), writer: writer, on: group.next()
        ) { reason in
            printError("edge-node record: \(reason)")
            kill(getpid(), Self.wakeUp)
        }
        recorder.start()
        say { json in
            json.field("recording", string: output)
            json.field("venue", string: venue.rawValue)
            json.field("symbols", strings: configuration.venue.symbols)
        }
        let progress = try showProgress(recorder, writer, on: group)
        let signal = signals.wait()
        progress?.cancel()
        try recorder.stop().wait()
        writer.finish()
        thread.join()
        if let failure = writer.failure { throw failure }
        let (messages, bytes) = try recorder.eventLoop.submit { (recorder.messages, recorder.bytes) }.wait()
        say { json in
            json.field("messages", integer: messages)
            json.field("bytes", integer: bytes)
            json.field("files", strings: writer.finished)
        }
        if signal == Self.wakeUp { throw ExitCode.failure }
    }

    /// A line on the terminal, once a second.
    private func showProgress(_ recorder: Recorder, _ writer: RecordWriter, on group: any EventLoopGroup) throws -> RepeatedTask? {
        guard isatty(2) == 1 else { return nil }
        return recorder.eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            printError(
                "\r\(recorder.messages) messages, \(recorder.bytes >> 20) MiB, \(writer.finished.count) files complete ", terminator: "")
        }
    }

    private func say(_ fields: (inout JSONWriter) -> Void) {
        var json = JSONWriter()
        json.beginObject()
        fields(&json)
        json.endObject()
        json.newline()
        // One write, so that a reader of the pipe sees the line at once and whole.
        _ = json.bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    }
}
