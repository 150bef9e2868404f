import CalibModel
import EdgeCore
import Foundation
import Simulation
import Testing

/// Untrusted bytes never trap: a simulated venue's frames, damaged at random, through the whole node. Every one is counted once, and the
/// book that survives is never crossed by our own hand.
///
/// `FUZZ_ROUNDS` (default 4) repeats with other seeds; a round is about 36,000 frames.
struct FrameFuzzTests {
    @Test func damagedFramesNeverTrap() {
        let rounds = Int(ProcessInfo.processInfo.environment["FUZZ_ROUNDS"] ?? "") ?? 4
        for seed in 1...UInt64(max(1, rounds)) { fuzz(seed: seed) }
    }

    private func fuzz(seed: UInt64) {
        var random = PRNG(seed: seed)
        var frames = frames(seed: seed)
        let memory = OutboxMemory()
        var parameters = Parameters()
        parameters.tickSampleRate = 1 + random.below(10)
        let instruments = [
            Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1),
            Instrument(
                symbol: "ETHUSDT", priceDigits: Int(random.below(10)), tickUnits: 1, quantityDigits: Int(random.below(9)), lotUnits: 1),
        ]
        var node = QuoteNode(
            venue: random.below(4) == 0 ? .binanceSpot : .binanceUSDM, instruments: instruments, parameters: parameters, isRecorded: true,
            connections: 1, runNumber: 1, firstFillID: 1, outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        // The share of damaged frames: from a sound stream with rare damage to noise.
        let perMillion: Int64 = [500, 5_000, 50_000, 500_000][Int(random.below(4))]
        var sent: Int64 = 0
        var clock: Int64 = 1_735_689_600_000_000_000
        var index = 0
        while index < frames.count {
            clock += random.below(20_000_000)
            if random.chance(perMillion: 20) { clock += random.below(400) * 1_000_000_000 }
            if random.chance(perMillion: perMillion) {
                switch random.below(6) {
                case 0: index += 1  // Lost.
                case 1: frames.insert(frames[index], at: index)  // Repeated.
                case 2 where index + 1 < frames.count: frames.swapAt(index, index + 1)
                default: FrameDamage.apply(to: &frames[index], &random)
                }
            }
            guard index < frames.count else { break }
            let now = Moment(instant: Instant(nanoseconds: clock), wall: WallTime(nanoseconds: clock))
            frames[index].withUnsafeBytes { node.frame($0, on: 0, at: now) }
            memory.discard(&node.shared.outboxes)
            sent += 1
            index += 1
        }
        while !node.finish() { memory.discard(&node.shared.outboxes) }
        #expect(node.messages == sent)
        let used = (0..<node.symbolCount).reduce(Int64(0)) { sum, symbol in
            sum + node.withSymbol(symbol) { $0.counts.depthMessages + $0.counts.trades + $0.counts.bookTickers + $0.counts.snapshots }
        }
        let rejected = FrameRejection.allCases.reduce(Int64(0)) { $0 + node.rejected($1) }
        // A snapshot that waits for its symbol may be replaced by another one, and is then in no count.
        #expect((sent - 3...sent).contains(used + rejected + node.otherMessages), "seed \(seed)")
        #expect(used > 0)
    }

    private func frames(seed: UInt64) -> [[UInt8]] {
        var recording = BinanceRecording(
            seed: seed, symbol: "BTCUSDT", start: WallTime(nanoseconds: 1_735_689_600_000_000_000), milliseconds: 120_000)
        var bytes: [UInt8] = []
        while !recording.isComplete { recording.step(into: &bytes) }
        return bytes.split(separator: 0x0a).map { line in Array(line[(line.firstIndex(of: 0x20)! + 1)...]) }
    }
}
