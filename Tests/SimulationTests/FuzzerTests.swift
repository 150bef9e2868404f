import CalibModel
import EdgeCore
import Simulation
import Testing

/// The fuzzers of `calib-lab fuzz`, briefly; ten million inputs are its own business.
struct FuzzerTests {
    private static let frames = FuzzFrames(seed: 3)

    @Test(arguments: FuzzTarget.allCases)
    func readersAgreeOnDamagedInput(target: FuzzTarget) throws {
        var fuzzer = Fuzzer(target, seed: 11, frames: Self.frames)
        try fuzzer.run(inputs: 6_000)
        let tally = fuzzer.tally
        // A session is played to its end.
        #expect(tally.inputs >= 6_000 && tally.inputs < 6_200 && tally.accepted + tally.rejected.values.reduce(0, +) == tally.inputs)
        // Both ways are taken often, or nothing is shown.
        #expect(tally.accepted > 600 && tally.accepted < 5_990, "\(tally)")
    }

    @Test func theSameSeedGivesTheSameInputs() throws {
        let tallies = try ([5, 5, 6] as [UInt64]).map { seed in
            var fuzzer = Fuzzer(.binance, seed: seed, frames: Self.frames)
            try fuzzer.run(inputs: 1_000)
            return fuzzer.tally
        }
        #expect(tallies[0] == tallies[1] && tallies[0] != tallies[2])
    }
}

/// Recordings in which frames are lost, repeated, swapped, cut, and made into what no venue sends: nothing traps, every refusal has its reason, and
/// every proven book is the dictionary's.
struct MutatedRecordingTests {
    static let start = WallTime(nanoseconds: 1_735_689_600_000_000_000)

    private func binance(_ market: BinanceMarket) -> [(at: WallTime, bytes: [UInt8])] {
        var recording = BinanceRecording(
            seed: 9, venue: market, symbol: market.instruments[0].symbol, start: Self.start, milliseconds: 6_000)
        var bytes: [UInt8] = []
        while !recording.isComplete { recording.step(into: &bytes) }
        return bytes.split(separator: 0x0a).map { line in
            let space = line.firstIndex(of: 0x20)!
            let time = Int64(String(decoding: line[..<space], as: UTF8.self))!
            return (WallTime(nanoseconds: time), Array(line[(space + 1)...]))
        }
    }

    private func bybit() -> [(at: WallTime, bytes: [UInt8])] {
        var venue = BybitVenue(seed: 9, instruments: [SimInstrument.all[0]], start: Self.start)
        let client = venue.connect(.linear)
        var frames: [(at: WallTime, bytes: [UInt8])] = []
        Array(#"{"op":"subscribe","args":["orderbook.200.BTCUSDT","publicTrade.BTCUSDT"]}"#.utf8).withUnsafeBytes {
            venue.receive($0, from: client) { frames.append((Self.start, $1)) }
        }
        for turn in 1...Int64(40_000 / 20) {
            venue.advance(toElapsed: turn * 20) { frames.append((WallTime(nanoseconds: Self.start.nanoseconds + turn * 20_000_000), $1)) }
        }
        return frames
    }

    @Test(arguments: [QuoteNode.Venue.binanceUSDM, .binanceSpot, .binanceCOINM, .bybit])
    func theBookIsRightAgainAfterEveryResync(venue: QuoteNode.Venue) throws {
        let markets: [QuoteNode.Venue: BinanceMarket] = [.binanceUSDM: .usdm, .binanceSpot: .spot, .binanceCOINM: .coinm]
        let frames = markets[venue].map { binance($0) } ?? bybit()
        var scan = InstrumentScan(venue: venue, connections: 1)
        for (_, bytes) in frames { bytes.withUnsafeBytes { scan.frame($0, on: 0) } }
        let instrument = try #require(scan.instruments().first)
        var total = MutatedRecording.Report()
        for seed in 1...UInt64(2) {
            var recording = MutatedRecording(
                venue: venue, instrument: instrument, seed: seed, perMillion: venue == .bybit ? 80_000 : 40_000)
            let report = recording.run(frames)
            #expect(report.mismatches == 0 && report.isProvenAtEnd, "\(venue) seed \(seed): \(report)")
            total.comparisons += report.comparisons
            total.resyncs += report.resyncs
            total.sequenceGaps += report.sequenceGaps
            total.mutated.merge(report.mutated, uniquingKeysWith: +)
            total.rejected.merge(report.rejected, uniquingKeysWith: +)
        }
        #expect(total.mutated.count == MutatedRecording.Mutation.allCases.count, "\(total)")
        #expect(total.comparisons > 30 && total.resyncs > 4 && total.sequenceGaps > 3, "\(venue): \(total)")
        for reason in ["not_json", "non_finite", "too_deep", "not_utf8"] { #expect(total.rejected[reason] ?? 0 > 0, "\(reason): \(total)") }
    }

    /// The comparison can fail: a node whose instrument has another lot reads other quantities.
    @Test func aWrongBookIsSeen() throws {
        let frames = binance(.usdm)
        var recording = MutatedRecording(
            venue: .binanceUSDM, instrument: Instrument(symbol: "BTCUSDT", priceDigits: 2, tickUnits: 10, quantityDigits: 3, lotUnits: 1),
            seed: 1)
        #expect(recording.run(frames).mismatches > 0, "ticks of 0.1 are not the dictionary's hundredths")
    }
}
