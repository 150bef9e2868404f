import ArgumentParser
import CalibModel
import Glibc
import NodeShell
import Simulation
import Wire

/// Writes what a simulated venue sent, in the form `edge-node replay` reads.
struct Venue: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a seeded synthetic recording of a venue's feed.",
        discussion: """
            The recording has the form of a real one: lines '<receive unix ns> <frame>' with the venue's own frames, the REST \
            snapshot in line. Equal arguments give equal bytes. A name ending in .gz or .zst is compressed.
            """)

    enum Wire: String, ExpressibleByArgument, CaseIterable { case binanceUsdm = "binance-usdm" }
    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    /// A day of this flow is about 7 GB of text; a longer recording is several files.
    static let secondsMax = 86_400

    @Option(help: "The wire format of the recording.")
    var wire: Wire

    @Option(help: ArgumentHelp("The file to write; replaced only when the new one is whole.", valueName: "file"))
    var record: String

    @Option(help: "The seed of the market and of the network.")
    var seed: UInt64

    @Option(help: "Seconds to record, 1 to 86400.")
    var seconds: Int

    @Option(help: "The symbol's name. The market is the same for every name: tick 0.10, lot 0.001, from 61800.00.")
    var symbol = "BTCUSDT"

    @Option(help: "The recorder's clock at the start, RFC 3339; without an offset it is UTC.")
    var start = "2025-01-01T00:00:00Z"

    @Option(name: [.short, .long], help: "The form of the summary.")
    var output = Output.text

    mutating func validate() throws {
        guard (1...Self.secondsMax).contains(seconds) else {
            throw ValidationError("--seconds \(seconds): allowed are 1 to \(Self.secondsMax)")
        }
        let characters = symbol.utf8
        guard (1...20).contains(characters.count), characters.allSatisfy({ (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) })
        else {
            throw ValidationError("--symbol '\(symbol)': allowed are 1 to 20 capital letters and digits")
        }
        // 2000 to 2199: nanoseconds since 1970 stay within 64 bits and every year has four digits.
        guard let (milliseconds, _) = TimeText.parse(start), (946_684_800_000..<7_258_118_400_000).contains(milliseconds) else {
            throw ValidationError("--start '\(start)': allowed is an RFC 3339 instant from 2000 to 2199, such as 2025-01-01T00:00:00Z")
        }
        guard !record.isEmpty else { throw ValidationError("--record needs the name of a file") }
    }

    func run() throws {
        guard let (startMilliseconds, isNaive) = TimeText.parse(start) else { preconditionFailure("BUG: --start was validated") }
        if isNaive { note("--start \(start) is taken as UTC: \(TimeText.milliseconds(startMilliseconds))") }
        do throws(FileError) {
            try write(from: startMilliseconds)
        } catch {
            note("calib-lab venue: \(error)")
            throw ExitCode(1)
        }
    }

    private func write(from startMilliseconds: Int64) throws(FileError) {
        var recording = UsdmRecording(
            seed: seed, symbol: symbol, start: WallTime(nanoseconds: startMilliseconds * 1_000_000), milliseconds: Int64(seconds) * 1000)
        var file = try LineOutput(path: record)
        var lines: [UInt8] = []
        var bytes = 0
        let showsProgress = isatty(STDERR_FILENO) == 1
        var milliseconds = 0
        while !recording.isComplete {
            recording.step(into: &lines)
            milliseconds += 1
            if lines.count >= LineOutput.writeBytes || recording.isComplete {
                bytes += lines.count
                try file.append(lines)
                lines.removeAll(keepingCapacity: true)
            }
            if showsProgress, milliseconds.isMultiple(of: 5000) {
                writeToStandardError("\r\(record): \(min(seconds, milliseconds / 1000)) of \(seconds) s")
            }
        }
        try file.finish()
        if showsProgress { writeToStandardError("\r\u{1b}[K") }
        summarise(recording, bytes: bytes)
    }

    private func summarise(_ recording: UsdmRecording, bytes: Int) {
        guard let first = recording.firstReceived?.milliseconds, let last = recording.lastReceived?.milliseconds else {
            preconditionFailure("BUG: a recording of \(seconds) s without a line")
        }
        let counts = recording.counts
        switch output {
        case .text:
            print(
                """
                \(record): \(counts.total) messages, \(bytes) bytes of text
                depth \(counts.depths), trade \(counts.trades), bookTicker \(counts.tops), snapshot \(counts.snapshots)
                \(TimeText.milliseconds(first)) to \(TimeText.milliseconds(last)), seed \(seed)
                """)
        case .json:
            var json = JSONWriter()
            json.beginObject()
            json.field("path", string: record)
            json.field("wire", string: wire.rawValue)
            json.field("symbol", string: symbol)
            json.key("seed")
            // Beyond 2^53 a JSON number is not safe in every reader, so the seed is text.
            json.string(String(seed))
            json.field("first_ts", integer: first)
            json.field("last_ts", integer: last)
            json.field("messages", integer: counts.total)
            json.field("depth", integer: counts.depths)
            json.field("trade", integer: counts.trades)
            json.field("book_ticker", integer: counts.tops)
            json.field("snapshot", integer: counts.snapshots)
            json.field("bytes", integer: bytes)
            json.endObject()
            print(String(decoding: json.bytes, as: UTF8.self))
        }
    }
}

/// One line on stderr, where a person looks and a pipe does not.
private func note(_ line: String) { writeToStandardError(line + "\n") }

private func writeToStandardError(_ text: String) {
    // A terminal that has gone away must not stop the work: the result of the write is not looked at.
    _ = Array(text.utf8).withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
