import CalibModel
import EdgeCore
import Foundation
import Simulation
import Testing

/// Untrusted bytes never trap, Bybit's wire: two symbols' frames on two connections that come and go, damaged at random, through the whole
/// node. Every frame is counted, a refused one changes nothing, and a book that was never proven is never quoted.
///
/// `FUZZ_ROUNDS` (default 4) repeats with other seeds; a round is 60,000 damaged frames among 40,000 sound ones.
struct BybitFuzzTests {
    @Test func damagedFramesNeverTrap() {
        let rounds = Int(ProcessInfo.processInfo.environment["FUZZ_ROUNDS"] ?? "") ?? 4
        for seed in 1...UInt64(max(1, rounds)) { fuzz(seed: seed) }
    }

    private func fuzz(seed: UInt64) {
        var random = PRNG(seed: seed)
        let memory = OutboxMemory()
        var parameters = Parameters()
        parameters.tickSampleRate = 1 + random.below(10)
        let instruments = [
            Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1),
            Instrument(symbol: "ETHUSDT", priceDigits: 2, tickUnits: 1, quantityDigits: 2, lotUnits: 1),
        ]
        var node = QuoteNode(
            venue: [.bybit, .bybitSpot, .sim][Int(random.below(3))], instruments: instruments, parameters: parameters, isRecorded: true,
            connections: 2, runNumber: 1, firstFillID: 1, outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        var clock: Int64 = 1_735_689_600_000_000_000
        var updates: [Int64] = [0, 0]
        var sent: Int64 = 0
        var damaged = 0
        for _ in 0..<100_000 {
            clock += random.below(20_000_000)
            if random.chance(perMillion: 20) { clock += random.below(400) * 1_000_000_000 }
            let now = Moment(instant: Instant(nanoseconds: clock), wall: WallTime(nanoseconds: clock))
            let symbol = Int(random.below(2))
            if random.chance(perMillion: 300) {
                switch random.below(3) {
                case 0: node.connected(symbol, at: now)
                case 1: node.disconnected(symbol, at: now)
                default: node.pong(on: symbol, at: now)
                }
            }
            var frame = Array(
                Self.frame(symbol, &updates, clock / 1_000_000, wantsSnapshot: !node.takeRequests().isEmpty, &random).utf8)
            if random.chance(perMillion: 600_000) {
                FrameDamage.apply(to: &frame, &random)
                damaged += 1
            }
            let before = fingerprint(node)
            let refused = FrameRejection.allCases.reduce(Int64(0)) { $0 + node.rejected($1) }
            frame.withUnsafeBytes { node.frame($0, on: symbol, at: now) }
            if FrameRejection.allCases.reduce(Int64(0), { $0 + node.rejected($1) }) > refused, fingerprint(node) != before {
                Issue.record("seed \(seed): a rejected frame changed a book: \(String(decoding: frame, as: UTF8.self))")
            }
            memory.discard(&node.shared.outboxes)
            sent += 1
        }
        while !node.finish() { memory.discard(&node.shared.outboxes) }
        #expect(node.messages == sent && damaged > 50_000)
        let total = (0..<2).reduce(into: SymbolCounts()) { sum, index in sum.add(node.withSymbol(index) { $0.counts }) }
        #expect(total.depthMessages > 5_000 && total.snapshots > 1_000 && total.trades > 5_000 && total.ticks > 1_000, "seed \(seed)")
        #expect(total.sequenceGaps > 100 && total.quotes > 10, "seed \(seed): \(total)")
    }

    /// Tells any two states of both books apart that a frame could make of one another.
    private func fingerprint(_ node: borrowing QuoteNode) -> [Int64] {
        (0..<2).flatMap { index in
            node.withSymbol(index) { symbol in
                [
                    symbol.book.depthID, symbol.counts.depthMessages, symbol.book.volume(.buy, levels: .max).total,
                    symbol.book.volume(.sell, levels: .max).total,
                ]
            }
        }
    }

    /// A sound frame of one symbol: the next delta, a snapshot, a few trades, or something else the venue says.
    private static func frame(_ symbol: Int, _ updates: inout [Int64], _ milliseconds: Int64, wantsSnapshot: Bool, _ random: inout PRNG)
        -> String
    {
        let name = ["BTCUSDT", "ETHUSDT"][symbol]
        func levels(_ sign: Int64, _ count: Int64, _ random: inout PRNG) -> String {
            (0..<count).map { _ in
                let price = 61_800 + sign * (1 + random.below(40))
                return "[\"\(price).\(random.below(10))0\",\"\(random.below(4) == 0 ? "0" : "\(random.below(9)).\(random.below(10))")\"]"
            }.joined(separator: ",")
        }
        switch wantsSnapshot ? 99 : random.below(100) {
        case ..<70:
            updates[symbol] += 1
            return
                #"{"topic":"orderbook.50.\#(name)","type":"delta","ts":\#(milliseconds),"data":{"s":"\#(name)","b":[\#(levels(-1, random.below(6), &random))],"a":[\#(levels(1, random.below(6), &random))],"u":\#(updates[symbol]),"seq":9},"cts":1}"#
        case ..<90:
            let trades = (0...random.below(4)).map { _ in
                #"{"T":1,"s":"\#(name)","S":"\#(random.below(2) == 0 ? "Buy" : "Sell")","v":"\#(random.below(90) + 1).0","p":"\#(61_790 + random.below(20)).0","i":"x","BT":\#(random.below(9) == 0),"RPI":false}"#
            }
            return
                #"{"topic":"publicTrade.\#(name)","type":"snapshot","ts":\#(milliseconds),"data":[\#(trades.joined(separator: ","))]}"#
        case ..<94:
            return #"{"success":\#(random.below(2) == 0),"ret_msg":"pong","conn_id":"d8","op":"ping"}"#
        case ..<97:
            return #"{"topic":"tickers.\#(name)","type":"delta","data":{"symbol":"\#(name)","bid1Price":"1"},"ts":\#(milliseconds)}"#
        default:
            updates[symbol] += random.below(3)
            return
                #"{"data":{"u":\#(updates[symbol]),"s":"\#(name)","b":[\#(levels(-1, 30, &random))],"a":[\#(levels(1, 30, &random))]},"topic":"orderbook.50.\#(name)","ts":\#(milliseconds),"type":"snapshot"}"#
        }
    }
}
