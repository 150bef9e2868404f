import ArgumentParser
import CalibModel
import EdgeCore
import Glibc
import NodeShell
import Wire

/// `calib-lab bench`: how fast.
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measures the edge on recorded frames in memory, a real hub under load, and the building of datasets.",
        subcommands: [Edge.self, Soak.self, JSON.self, Profile.self, Ingest.self, Fleet.self, Control.self, Aggregate.self])

    struct Input: ParsableArguments {
        @Option(
            help: ArgumentHelp("A recording of one connection, lines '<receive unix ns> <frame>'; plain, gzip or zstd.", valueName: "file"))
        var input: String

        @Option(help: "How often the frames are passed; one more pass before them warms up and is not counted.")
        var rounds = 5

        @Option(name: .shortAndLong, help: "How the result is printed.")
        var output = OutputForm.table

        func validate() throws {
            guard (1...1000).contains(rounds) else { throw ValidationError("--rounds \(rounds): allowed are 1 to 1000") }
        }

        func frames() throws -> BenchFrames {
            var lines = try LineInput(path: input)
            var frames = BenchFrames()
            var decoder = BinanceDecoder()
            while let line = try lines.next() { try frames.add(line: line, &decoder) }
            guard !frames.frames.isEmpty else { throw BenchError.noFrames }
            if frames.badLines > 0 {
                note("note: \(frames.badLines) lines of '\(input)' are no '<receive unix ns> <frame>' and are left out")
            }
            return frames
        }
    }

    enum OutputForm: String, ExpressibleByArgument, CaseIterable { case table, json }

    struct Edge: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Raw frame to ring slot: JSON, book, six stages, features, paper exchange; one thread.",
            discussion: """
                Parameters are the built-in defaults. Throughput, latencies, stages and allocations are measured in passes of their own, so that no \
                clock is read inside what is timed; figures are medians over the rounds, latencies without the cost of reading the clock. \
                Allocations count from when the book is proven. The stages' pass ticks every 5 ms instead of at frames, so that a tick is the six \
                stages alone.

                Exit status: 0 done; 1 the file cannot be read or holds no frames of one symbol; 64 usage.
                """)

        @OptionGroup var source: Input

        @Option(help: "The wire format: binance-usdm or binance-spot.")
        var venue = "binance-usdm"

        @Option(help: "Spreads the recording's beginning over that many symbols, each with a book of its own.")
        var symbols = 1

        func validate() throws {
            guard let venue = QuoteNode.Venue(rawValue: venue), venue.category == nil else {
                throw ValidationError("--venue '\(venue)' is not binance-usdm or binance-spot")
            }
            guard (1...Limits.symbolsMax).contains(symbols) else {
                throw ValidationError("--symbols \(symbols): allowed are 1 to \(Limits.symbolsMax)")
            }
        }

        func run() throws {
            do {
                guard let venue = QuoteNode.Venue(rawValue: venue) else { preconditionFailure("BUG: --venue was validated") }
                let bench = try EdgeBench(source.frames(), venue: venue, symbols: symbols, rounds: source.rounds)
                let report = EdgeBenchReport(input: source.input, symbols: symbols, rounds: source.rounds, result: try bench.run())
                print(source.output == .json ? report.json : report.table)
            } catch {
                note("calib-lab bench edge: \(error)")
                throw ExitCode(1)
            }
        }
    }

    struct JSON: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Reading JSON alone: every value of every frame, checked and skipped, UTF-8 checked.",
            discussion: """
                Exit status: 0 done; 1 the file cannot be read, holds no frames, or one of them is not JSON; 64 usage.
                """)

        @OptionGroup var source: Input

        func run() throws {
            do {
                let frames = try source.frames()
                var perSecond: [Double] = []
                for round in 0...source.rounds {
                    let nanoseconds = try Self.pass(frames)
                    if round > 0 { perSecond.append(Double(frames.frames.count) * 1e9 / Double(nanoseconds)) }
                }
                let median = perSecond.sorted()[perSecond.count / 2]
                let megabytes = median * Double(frames.text.count) / Double(frames.frames.count) / 1e6
                if source.output == .json {
                    var out = JSONWriter()
                    out.beginObject()
                    out.field("input", string: source.input)
                    out.field("messages", integer: frames.frames.count)
                    out.field("bytes", integer: frames.text.count)
                    out.field("rounds", integer: source.rounds)
                    out.field("messages_per_second", integer: Int64(median))
                    out.field("megabytes_per_second", fixed: FixedPoint.fixed(megabytes, scale: 1e3), places: 3)
                    out.endObject()
                    print(String(decoding: out.bytes, as: UTF8.self))
                } else {
                    print("\(frames.frames.count) messages, \(frames.text.count) bytes, \(source.rounds) rounds")
                    print("\(Int64(median)) messages/s, \(Int64(megabytes)) MB/s")
                }
            } catch {
                note("calib-lab bench json: \(error)")
                throw ExitCode(1)
            }
        }

        private static func pass(_ frames: BenchFrames) throws(JSONError) -> Int64 {
            let start = monotonicNanoseconds()
            var failure: JSONError?
            frames.text.withUnsafeBytes { text in
                for frame in frames.frames {
                    let bytes = UnsafeRawBufferPointer(rebasing: text[frame.start..<frame.start + frame.count])
                    do throws(JSONError) {
                        guard UTF8Check.isValid(bytes) else { throw .syntax(at: 0) }
                        var reader = JSONReader(bytes)
                        try reader.skip()
                        try reader.end()
                    } catch { failure = error }
                }
            }
            if let failure { throw failure }
            return monotonicNanoseconds() - start
        }
    }
}

func monotonicNanoseconds() -> Int64 { nanoseconds(of: CLOCK_MONOTONIC) }

/// What the processor gave this thread.
func processorNanoseconds() -> Int64 { nanoseconds(of: CLOCK_THREAD_CPUTIME_ID) }

private func nanoseconds(of clock: clockid_t) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}
