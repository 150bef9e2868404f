import ArgumentParser
import CalibModel
import Glibc
import NodeShell
import Simulation
import Wire

/// A simulated venue: as a recording, in the form `edge-node replay` reads, or live on a socket.
struct Venue: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve a simulated venue, replay a recording as a venue, or write a recording.",
        discussion: """
            --listen serves Bybit's public wire (websocket /v5/public/linear and /v5/public/spot, GET /v5/market/orderbook) or Binance's (websocket \
            /stream and /ws, GET .../depth and .../exchangeInfo) until SIGTERM or SIGINT: seeded markets at the pace of the clock, or with --replay \
            a recording of Bybit's. One JSON line on standard output says where: {"listening":"127.0.0.1:4711","symbols":["BTCUSDT"]}.
            With --chaos Bybit's wire loses, repeats, reorders, delays and mangles frames and breaks connections, all from one seed.

            --record writes what a venue would have sent: lines '<receive unix ns> <frame>' with the venue's own frames, the REST \
            snapshot in line. Equal arguments give equal bytes. A name ending in .gz or .zst is compressed.
            """)

    enum Wire: String, ExpressibleByArgument, CaseIterable {
        case binanceSpot = "binance-spot"
        case binanceUsdm = "binance-usdm"
        case binanceCoinm = "binance-coinm"
        case bybit

        /// Nil for Bybit.
        var binance: BinanceMarket? { BinanceMarket(rawValue: rawValue) }
        /// What can be served.
        var instruments: [SimInstrument] { binance?.instruments ?? SimInstrument.all }
    }
    enum Output: String, ExpressibleByArgument, CaseIterable { case text, json }

    /// A day of this flow is about 7 GB of text; a longer recording is several files.
    static let secondsMax = 86_400

    @Option(help: "The wire format; bybit is served only.")
    var wire: Wire

    @Option(help: ArgumentHelp("Serve on this address; port 0 takes a free one.", valueName: "host:port"))
    var listen: String?

    @Option(help: ArgumentHelp("The file to write; replaced only when the new one is whole.", valueName: "file"))
    var record: String?

    @Option(help: "The seed of the market, and of the network in a recording.")
    var seed: UInt64?

    @Option(
        help: ArgumentHelp(
            "With --listen: the markets, of \(SimInstrument.all.map(\.symbol).joined(separator: ", ")); binance-coinm has BTCUSD_PERP and ETHUSD_PERP, binance-spot the first two, and bybit SIM1USDT to SIM64USDT besides.",
            valueName: "list"))
    var symbols: String?

    @Option(help: "With --listen: leave out every Nth delta of each order book topic.")
    var dropDeltaEvery: Int?

    @Flag(help: "With --listen: trouble of every kind for the clients. Each 10 s and at the end a JSON line counts it.")
    var chaos = false

    @Option(help: "With --chaos: the seed of the trouble (default: the market's).")
    var chaosSeed: UInt64?

    @Option(help: "With --listen and Binance: answer the first N requests for an order book with the one of the venue's start.")
    var oldBooks: Int?

    @Option(help: "With --listen and Binance: refuse the first N requests for an order book behind those, 429 and Retry-After: 1.")
    var refuseBooks: Int?

    @Option(help: "With --listen and Binance: tell all clients goodbye (serverShutdown) every N seconds, and be gone a second later.")
    var goodbyeEvery: Int?

    @Option(
        help:
            "With --listen and Binance: answer N requests for the instruments as ever, and give the first symbol another tick from then on."
    )
    var changeInstrumentAfter: Int?

    @Option(help: ArgumentHelp("With --listen: serve this recording of Bybit's stream instead of markets.", valueName: "file"))
    var replay: String?

    @Option(help: ArgumentHelp("With --replay: the pace, 1 as recorded, N times as fast, or max.", valueName: "1|N|max"))
    var speed: String?

    @Flag(help: "With --replay: end when a client has been sent everything and all clients are gone.")
    var once = false

    @Option(help: "With --record: seconds to record, 1 to 86400.")
    var seconds: Int?

    @Option(
        help:
            "With --record: the symbol's name. [BTCUSDT, BTCUSD_PERP] The market is the same for every name: tick 0.10, lot 0.001, from 61800.00."
    )
    var symbol: String?

    @Option(help: "With --record: the recorder's clock at the start, RFC 3339; without an offset it is UTC. [2025-01-01T00:00:00Z]")
    var start: String?

    @Option(name: [.short, .long], help: "With --record: the form of the summary.")
    var output = Output.text

    mutating func validate() throws {
        guard (listen == nil) != (record == nil) else { throw ValidationError("give one of --listen and --record") }
        if listen != nil { try validateLive() } else { try validateRecording() }
    }

    private func validateLive() throws {
        guard seconds == nil, symbol == nil, start == nil else {
            throw ValidationError("--seconds, --symbol and --start belong to --record")
        }
        guard let listen, Self.address(listen) != nil else {
            throw ValidationError("--listen '\(listen ?? "")': expected host:port, such as 127.0.0.1:0")
        }
        guard wire.binance != nil || oldBooks == nil && refuseBooks == nil && goodbyeEvery == nil && changeInstrumentAfter == nil else {
            throw ValidationError("--old-books, --refuse-books, --goodbye-every and --change-instrument-after belong to Binance's wire")
        }
        guard (oldBooks ?? 0) >= 0, (refuseBooks ?? 0) >= 0, (changeInstrumentAfter ?? 0) >= 0, (goodbyeEvery ?? 2) >= 2 else {
            throw ValidationError(
                "--old-books, --refuse-books and --change-instrument-after are 0 and more, --goodbye-every is 2 and more")
        }
        if replay != nil {
            guard wire == .bybit else { throw ValidationError("--replay serves Bybit's stream; give --wire bybit") }
            guard seed == nil, symbols == nil, dropDeltaEvery == nil, !chaos else {
                throw ValidationError("--seed, --symbols, --drop-delta-every and --chaos belong to simulated markets, not to --replay")
            }
            guard Self.speed(speed ?? "1") != nil else {
                throw ValidationError("--speed '\(speed ?? "")': allowed are max and 0.001 to 1000000")
            }
            return
        }
        guard speed == nil, !once else { throw ValidationError("--speed and --once belong to --replay") }
        guard seed != nil else { throw ValidationError("--listen needs --seed or --replay") }
        guard let instruments = instruments(symbols), !instruments.isEmpty else {
            throw ValidationError(
                "--symbols '\(symbols ?? "")': allowed are \(wire.instruments.map(\.symbol).joined(separator: ",")), each at most once")
        }
        guard !chaos || wire == .bybit else { throw ValidationError("--chaos belongs to Bybit's wire") }
        guard chaos || chaosSeed == nil else { throw ValidationError("--chaos-seed belongs to --chaos") }
        guard dropDeltaEvery ?? 1 > 0 else { throw ValidationError("--drop-delta-every \(dropDeltaEvery ?? 0): allowed are 1 and more") }
    }

    private func validateRecording() throws {
        guard wire.binance != nil else { throw ValidationError("--wire bybit is served only; --record writes Binance's") }
        guard oldBooks == nil, refuseBooks == nil, goodbyeEvery == nil, changeInstrumentAfter == nil else {
            throw ValidationError("--old-books, --refuse-books, --goodbye-every and --change-instrument-after belong to --listen")
        }
        guard symbols == nil, dropDeltaEvery == nil, !chaos, chaosSeed == nil, replay == nil, speed == nil, !once else {
            throw ValidationError("--symbols, --drop-delta-every, --chaos, --replay, --speed and --once belong to --listen")
        }
        guard let seconds, seed != nil else { throw ValidationError("--record needs --seed and --seconds") }
        guard (1...Self.secondsMax).contains(seconds) else {
            throw ValidationError("--seconds \(seconds): allowed are 1 to \(Self.secondsMax)")
        }
        let characters = symbolName.utf8
        guard (1...20).contains(characters.count),
            characters.allSatisfy({ (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || $0 == 0x5f })
        else {
            throw ValidationError("--symbol '\(symbolName)': allowed are 1 to 20 capital letters, digits and '_'")
        }
        // 2000 to 2199: nanoseconds since 1970 stay within 64 bits and every year has four digits.
        guard let (milliseconds, _) = TimeText.parse(startText), (946_684_800_000..<7_258_118_400_000).contains(milliseconds) else {
            throw ValidationError("--start '\(startText)': allowed is an RFC 3339 instant from 2000 to 2199, such as 2025-01-01T00:00:00Z")
        }
        guard record?.isEmpty == false else { throw ValidationError("--record needs the name of a file") }
    }

    private var symbolName: String { symbol ?? wire.instruments[0].symbol }
    private var startText: String { start ?? "2025-01-01T00:00:00Z" }

    func run() throws {
        do {
            if let listen { try serve(listen) } else { try write() }
        } catch {
            note("calib-lab venue: \(error)")
            throw ExitCode(1)
        }
    }

    // MARK: Live

    private func serve(_ listen: String) throws {
        guard let (host, port) = Self.address(listen), let speed = Self.speed(speed ?? "1"), let instruments = instruments(symbols)
        else {
            preconditionFailure("BUG: --listen, --speed and --symbols were validated")
        }
        let feed: any VenueFeed =
            if let replay {
                try ReplayFeed(path: replay, speed: speed, endsWithLastClient: once)
            } else if let market = wire.binance {
                BinanceFeed(market, seed: seed ?? 0, instruments: instruments, faults: faults)
            } else {
                SimulatedFeed(
                    seed: seed ?? 0, instruments: instruments, lostDeltaInterval: dropDeltaEvery,
                    chaosSeed: chaos ? chaosSeed ?? seed ?? 0 : nil)
            }
        try LiveVenue(host: host, port: port, feed: feed).run()
    }

    private var faults: BinanceVenue.Faults {
        var faults = BinanceVenue.Faults()
        faults.lostDiffInterval = dropDeltaEvery
        faults.oldBooks = oldBooks ?? 0
        faults.refusals = refuseBooks ?? 0
        faults.goodbyeMilliseconds = goodbyeEvery.map { Int64($0) * 1000 }
        faults.instrumentsBeforeChange = changeInstrumentAfter
        return faults
    }

    /// `host:port`, a version 6 address in brackets.
    private static func address(_ text: String) -> (host: String, port: Int)? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]), (0...65_535).contains(port) else {
            return nil
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() } else if host.contains(":") { return nil }
        return host.isEmpty ? nil : (String(host), port)
    }

    private static func speed(_ text: String) -> ReplaySpeed? {
        if text == "max" { return .max }
        guard let thousandths = Array(text.utf8).withUnsafeBytes({ DecimalText($0)?.fixed(places: 3) }),
            (1...1_000_000_000).contains(thousandths)
        else { return nil }
        return .thousandths(thousandths)
    }

    /// Nil for an unknown or repeated name.
    private func instruments(_ list: String?) -> [SimInstrument]? {
        guard let list else { return wire.instruments }
        var found: [SimInstrument] = []
        for name in list.split(separator: ",", omittingEmptySubsequences: false) {
            let numbered = wire == .bybit ? SimInstrument(numbered: String(name)) : nil
            guard let instrument = wire.instruments.first(where: { $0.symbol == name }) ?? numbered, !found.contains(instrument) else {
                return nil
            }
            found.append(instrument)
        }
        return found
    }

    // MARK: Recording

    private func write() throws(FileError) {
        guard let (milliseconds, isNaive) = TimeText.parse(startText), let record, let seed, let seconds else {
            preconditionFailure("BUG: --start, --record, --seed and --seconds were validated")
        }
        if isNaive { note("--start \(startText) is taken as UTC: \(TimeText.milliseconds(milliseconds))") }
        try write(to: record, seed: seed, seconds: seconds, from: milliseconds)
    }

    private func write(to record: String, seed: UInt64, seconds: Int, from startMilliseconds: Int64) throws(FileError) {
        var recording = BinanceRecording(
            seed: seed, venue: wire.binance ?? .usdm, symbol: symbolName, start: WallTime(nanoseconds: startMilliseconds * 1_000_000),
            milliseconds: Int64(seconds) * 1000
        )
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
        summarise(recording, of: record, seed: seed, bytes: bytes)
    }

    private func summarise(_ recording: BinanceRecording, of record: String, seed: UInt64, bytes: Int) {
        guard let first = recording.firstReceived?.milliseconds, let last = recording.lastReceived?.milliseconds else {
            preconditionFailure("BUG: a recording of a second or more without a line")
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
            json.field("symbol", string: symbolName)
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

/// Not through stdio, which would keep it back from a pipe.
func writeToStandardOutput(_ bytes: [UInt8]) {
    _ = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
}

/// One line on stderr, where a person looks and a pipe does not.
func note(_ line: String) { writeToStandardError(line + "\n") }

private func writeToStandardError(_ text: String) {
    // A terminal that has gone away must not stop the work: the result of the write is not looked at.
    _ = Array(text.utf8).withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
}
