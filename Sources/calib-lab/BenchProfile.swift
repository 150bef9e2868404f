import ArgumentParser
import CalibModel
import EdgeCore
import Simulation
import Wire

extension Bench {
    /// A recording made from a seed, passed once per kind of frame and arranged for a profiler that counts instructions.
    ///
    /// Everything that could make two runs differ is left out: no file, no clock (durations are 0), one thread. In each pass the frames of
    /// one kind go through `profiledFrame`, which exists for nothing else: a profiler that is switched on and off at that name counts them
    /// alone, and one that dumps what it has at `profiledKindEnds` tells the kinds apart.
    struct Profile: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Passes a seeded recording for a profiler to count instructions by kind of frame.",
            discussion: """
                deploy/bench/instructions runs it under valgrind: --toggle-collect='*profiledFrame*' counts the frames in question only, \
                --dump-before='*profiledKindEnds*' writes one file per kind, in the order printed here. Prints one JSON object: what was passed (its \
                seed, seconds, and the checksum of its bytes), the hash of the quotes, and how many frames of each kind there were.

                Exit status: 0 done; 1 the recording proves no book; 64 usage.
                """)

        @Option(help: "The seed of the market, and of the network in the recording.")
        var seed: UInt64 = 7

        @Option(help: "Seconds of the recording, 1 to 3600: about 330 frames each.")
        var seconds: Int64 = 30

        func validate() throws {
            guard (1...3600).contains(seconds) else { throw ValidationError("--seconds \(seconds): allowed are 1 to 3600") }
        }

        func run() throws {
            do throws(BenchError) { try pass() } catch {
                note("calib-lab bench profile: \(error)")
                throw ExitCode(1)
            }
        }

        private func pass() throws(BenchError) {
            let frames = try Self.frames(seed: seed, seconds: seconds)
            var hash: UInt64 = 0
            var counts: [(kind: BenchKind, frames: Int64)] = []
            for kind in [BenchKind.depth, .trade, .bookTicker, .snapshot] {
                let passed = try Self.pass(frames, profiling: kind)
                guard counts.isEmpty || passed.hash == hash else { throw .hashesDiffer(hash, passed.hash) }
                hash = passed.hash
                counts.append((kind, 0))
                profiledKindEnds(&counts[counts.count - 1].frames, passed.frames)
            }
            var json = JSONWriter()
            json.beginObject()
            json.field("seed", string: "\(seed)")
            json.field("seconds", integer: seconds)
            json.field("messages", integer: frames.frames.count)
            json.field("crc32c", string: CRC32C.text(of: frames.text))
            json.field("quotes_hash", string: hex(hash))
            json.key("kinds")
            json.beginObject()
            for count in counts { json.field(count.kind.name, integer: count.frames) }
            json.endObject()
            json.endObject()
            print(String(decoding: json.bytes, as: UTF8.self))
        }

        private static func pass(_ frames: BenchFrames, profiling kind: BenchKind) throws(BenchError) -> (frames: Int64, hash: UInt64) {
            let memory = OutboxMemory()
            var node = QuoteNode(
                venue: .binanceUSDM, instruments: [SimInstrument.all[0].instrument], parameters: Parameters(), isRecorded: true,
                connections: 1, runNumber: 1, firstFillID: 1, outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
            var profiled: Int64 = 0
            frames.text.withUnsafeBytes { text in
                for frame in frames.frames {
                    let bytes = UnsafeRawBufferPointer(rebasing: text[frame.start..<frame.start + frame.count])
                    let moment = Moment(instant: Instant(nanoseconds: frame.wall.nanoseconds), wall: frame.wall)
                    if frame.kind == kind {
                        profiledFrame(&node, bytes, at: moment)
                        profiled += 1
                    } else {
                        node.frame(bytes, on: 0, at: moment)
                    }
                    memory.discard(&node.shared.outboxes)
                }
            }
            guard node.withSymbol(0, { $0.isProven }) else { throw .noBook }
            return (profiled, node.shared.quotesHash)
        }

        private static func frames(seed: UInt64, seconds: Int64) throws(BenchError) -> BenchFrames {
            var recording = BinanceRecording(
                seed: seed, symbol: SimInstrument.all[0].symbol, start: WallTime(nanoseconds: 1_735_689_600_000_000_000),
                milliseconds: seconds * 1000)
            var frames = BenchFrames()
            var decoder = BinanceDecoder()
            var lines: [UInt8] = []
            while !recording.isComplete {
                lines.removeAll(keepingCapacity: true)
                recording.step(into: &lines)
                for line in lines.split(separator: 0x0a) {
                    // A typed throw does not pass through withUnsafeBytes' rethrow.
                    let result: Result<Void, BenchError> = line.withUnsafeBytes { raw in
                        do throws(BenchError) { return .success(try frames.add(line: raw, &decoder)) } catch { return .failure(error) }
                    }
                    try result.get()
                }
            }
            return frames
        }
    }
}

// Their names are what a profiler looks for, so they are neither inlined nor specialised away.

@inline(never) private func profiledFrame(_ node: inout QuoteNode, _ frame: UnsafeRawBufferPointer, at moment: Moment) {
    node.frame(frame, on: 0, at: moment)
}

@inline(never) private func profiledKindEnds(_ total: inout Int64, _ frames: Int64) { total &+= frames }
