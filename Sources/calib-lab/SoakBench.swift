import ArgumentParser
import CalibModel
import EdgeCore
import NodeShell
import Wire

extension Bench {
    /// `calib-lab bench soak`: hours of a market of many symbols through one node.
    struct Soak: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Hours of many symbols' market through one node: memory, and what a frame takes.",
            discussion: """
                Each symbol gets the recording's beginning under a name of its own, at --rate frames a second of market time, their event times set to \
                when they arrive; where it ends, every connection breaks and the recording begins anew with its snapshot. Time is the market's: an hour \
                takes as long as its frames take. `grown_kb` is resident memory at the end less that after a tenth of the time; rows go from the rings \
                nowhere.

                Exit status: 0 done; 1 the file cannot be read or holds no frames of one symbol; 64 usage.
                """)

        @OptionGroup var source: Input
        @Option(help: "The wire format: binance-usdm or binance-spot.") var venue = "binance-usdm"
        @Option(help: "How many symbols.") var symbols = 500
        @Option(help: "Frames a second and symbol.") var rate = 20
        @Option(help: "Minutes of market time.") var minutes = 60

        func validate() throws {
            guard let venue = QuoteNode.Venue(rawValue: venue), venue.category == nil else {
                throw ValidationError("--venue '\(venue)' is not binance-usdm or binance-spot")
            }
            for (name, value, most) in [("symbols", symbols, Limits.symbolsMax), ("rate", rate, 1000), ("minutes", minutes, 100_000)] {
                guard (1...most).contains(value) else { throw ValidationError("--\(name) \(value): allowed are 1 to \(most)") }
            }
        }

        func run() throws {
            do {
                guard let venue = QuoteNode.Venue(rawValue: venue) else { preconditionFailure("BUG: --venue was validated") }
                let frames = try source.frames()
                let bench = try EdgeBench(frames, venue: venue, symbols: symbols, rounds: 1)
                let result = bench.soak(rate: rate, minutes: minutes)
                var out = JSONWriter()
                out.beginObject()
                out.field("input", string: source.input)
                out.field("symbols", integer: symbols)
                out.field("market_seconds", integer: result.marketSeconds)
                out.field("reconnects", integer: result.passes - 1)
                out.field("messages", integer: result.messages)
                out.field("messages_per_cpu_second", integer: result.messages * 1_000_000_000 / max(1, result.processorNanoseconds))
                out.field("quotes", integer: result.quotes)
                out.field("rss_kb", integer: result.residentLast / 1024)
                out.field("grown_kb", integer: (result.residentLast - result.residentEarly) / 1024)
                for (name, value) in [
                    ("frame_p50_ns", result.frame.p50), ("frame_p99_ns", result.frame.p99), ("frame_p999_ns", result.frame.p999),
                ] {
                    out.key(data: name)
                    out.integer(value)
                }
                out.endObject()
                print(String(decoding: out.bytes, as: UTF8.self))
            } catch {
                note("calib-lab bench soak: \(error)")
                throw ExitCode(1)
            }
        }
    }
}

extension EdgeBench {
    struct SoakResult {
        var passes = 0
        var marketSeconds: Int64 = 0
        var messages: Int64 = 0
        var processorNanoseconds: Int64 = 0
        var quotes: Int64 = 0
        /// Resident bytes after a tenth of the time, and at the end.
        var residentEarly: Int64 = 0
        var residentLast: Int64 = 0
        var frame = Percentiles()
    }

    /// - Parameter rate: frames a second of market time, of each symbol.
    func soak(rate: Int, minutes: Int) -> SoakResult {
        var result = SoakResult()
        var text = frames.text
        let events = frames.frames.map { Self.eventTime(of: $0, in: text) }
        var node = makeNode()
        var durations = Histogram()
        let clockCost = Self.clockCost()
        let begin = frames.frames[0].wall.nanoseconds
        let end = begin + Int64(minutes) * 60_000_000_000
        let (period, count) = (1_000_000_000 / Int64(rate), instruments.count)
        let names = instruments.map { Array($0.symbol.utf8) }
        var now = begin
        let start = processorNanoseconds()
        text.withUnsafeMutableBytes { text in
            while now < end {
                if result.passes > 0 {
                    for connection in 0..<count { node.disconnected(connection, at: Self.moment(now)) }
                    memory.discard(&node.shared.outboxes)
                }
                for index in 0..<framesPerSymbol where now < end {
                    let frame = frames.frames[index]
                    let bytes = UnsafeRawBufferPointer(start: text.baseAddress! + frame.start, count: frame.count)
                    for symbol in 0..<count {
                        let at = now + period * Int64(symbol) / Int64(count)
                        if count > 1, let start = frame.nameStart {
                            names[symbol].withUnsafeBytes {
                                (text.baseAddress! + start).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
                            }
                        }
                        if let event = events[index] { Self.write(milliseconds: at / 1_000_000, to: text.baseAddress! + event) }
                        let before = monotonicNanoseconds()
                        node.frame(bytes, on: symbol, at: Self.moment(at))
                        durations.add(monotonicNanoseconds() - before - clockCost)
                        memory.discard(&node.shared.outboxes)
                    }
                    result.messages += Int64(count)
                    now += period
                }
                result.passes += 1
                result.residentLast = ProcessMetrics.residentBytes ?? 0
                if now - begin <= (end - begin) / 10 || result.passes == 1 { result.residentEarly = result.residentLast }
            }
        }
        result.processorNanoseconds = processorNanoseconds() - start
        result.marketSeconds = (now - begin) / 1_000_000_000
        result.quotes = (0..<count).reduce(0) { sum, symbol in sum + node.withSymbol(symbol) { $0.counts.quotes } }
        result.frame = durations.percentiles
        return result
    }

    private static func moment(_ nanoseconds: Int64) -> Moment {
        Moment(instant: Instant(nanoseconds: nanoseconds), wall: WallTime(nanoseconds: nanoseconds))
    }

    /// Where the 13 digits of a frame's event time stand in `text`; nil in a frame without one.
    private static func eventTime(of frame: BenchFrames.Frame, in text: [UInt8]) -> Int? {
        let key = Array("\"E\":".utf8)
        let found = (frame.start..<frame.start + frame.count - key.count - 13).first { text[$0..<$0 + key.count].elementsEqual(key) }
        guard let start = found.map({ $0 + key.count }), text[start..<start + 13].allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        return start
    }

    private static func write(milliseconds: Int64, to target: UnsafeMutableRawPointer) {
        var rest = milliseconds
        for place in stride(from: 12, through: 0, by: -1) {
            target.storeBytes(of: UInt8(ascii: "0") + UInt8(rest % 10), toByteOffset: place, as: UInt8.self)
            rest /= 10
        }
    }
}
