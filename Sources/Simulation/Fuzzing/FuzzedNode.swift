import CalibModel
import EdgeCore

/// A whole node under damaged frames: every frame is counted, one that is refused changes no book, and nothing traps.
enum FuzzedNode {
    /// Frames one node lives for, so that each seed meets many states.
    private static let lifetime = 5_000

    static func run(inputs: Int, frames: FuzzFrames, _ random: inout PRNG) throws(FuzzDisagreement) -> FuzzTally {
        var tally = FuzzTally()
        var left = inputs
        while left > 0 {
            let count = min(left, lifetime)
            tally.add(try live(count, frames, &random))
            left -= count
        }
        return tally
    }

    private static func live(_ count: Int, _ frames: FuzzFrames, _ random: inout PRNG) throws(FuzzDisagreement) -> FuzzTally {
        let memory = OutboxMemory()
        let (venue, stream, symbols): (QuoteNode.Venue, [[UInt8]], [String])
        if random.below(4) == 0 {
            (venue, stream, symbols) = ([.bybit, .bybitSpot, .sim][Int(random.below(3))], frames.bybit, ["BTCUSDT", "ETHUSDT"])
        } else {
            let (market, frames) = frames.markets[Int(random.below(Int64(frames.markets.count)))]
            let venues: [BinanceMarket: QuoteNode.Venue] = [.spot: .binanceSpot, .usdm: .binanceUSDM, .coinm: .binanceCOINM]
            (venue, stream, symbols) = (venues[market]!, frames, [market.instruments[0].symbol])
        }
        // The first symbol's grid is the recording's; another's may be anything.
        let instruments = symbols.enumerated().map { index, name in
            Instrument(
                symbol: name, priceDigits: index == 0 ? 1 : Int(random.below(10)), tickUnits: 1,
                quantityDigits: venue == .binanceCOINM ? 0 : index == 0 ? 3 : Int(random.below(9)), lotUnits: 1,
                contractMultiplier: venue == .binanceCOINM ? 100 : nil)
        }
        var parameters = Parameters()
        parameters.tickSampleRate = 1 + random.below(10)
        var node = QuoteNode(
            venue: venue, instruments: instruments, parameters: parameters, isRecorded: random.below(2) == 0, connections: 1, runNumber: 1,
            firstFillID: 1, outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        // From rare damage in a sound stream to noise.
        let perMillion: Int64 = [500, 5_000, 50_000, 500_000][Int(random.below(4))]
        var clock: Int64 = 1_735_689_600_000_000_000
        var position = 0
        node.connected(0, at: Moment(instant: Instant(nanoseconds: clock), wall: WallTime(nanoseconds: clock)))
        for _ in 0..<count {
            clock += random.below(20_000_000)
            if random.chance(perMillion: 20) { clock += random.below(400) * 1_000_000_000 }
            var frame = stream[position % stream.count]
            position += 1
            if random.chance(perMillion: perMillion) {
                switch random.below(6) {
                case 0: position += 1  // Lost.
                case 1: position -= 1  // Repeated.
                case 2: position += Int(random.below(5))  // Out of order.
                default: for _ in 0...random.below(3) { FrameDamage.apply(to: &frame, &random) }
                }
            }
            let now = Moment(instant: Instant(nanoseconds: clock), wall: WallTime(nanoseconds: clock))
            let (before, refused, seen) = (fingerprint(node), rejections(node), node.messages)
            frame.withUnsafeBytes { node.frame($0, on: 0, at: now) }
            if node.messages != seen + 1 { throw FuzzDisagreement(target: .node, input: frame, text: "a frame was not counted") }
            if rejections(node) > refused, fingerprint(node) != before {
                throw FuzzDisagreement(target: .node, input: frame, text: "it was refused, and changed a book")
            }
            memory.discard(&node.shared.outboxes)
        }
        while !node.finish() { memory.discard(&node.shared.outboxes) }
        var tally = FuzzTally()
        tally.inputs = node.messages
        for reason in FrameRejection.allCases where node.rejected(reason) > 0 { tally.rejected["\(reason.name)"] = node.rejected(reason) }
        tally.accepted = node.messages - rejections(node)
        return tally
    }

    private static func rejections(_ node: borrowing QuoteNode) -> Int64 {
        FrameRejection.allCases.reduce(0) { $0 + node.rejected($1) }
    }

    /// Tells any two states of a book apart that one frame could make of one another.
    private static func fingerprint(_ node: borrowing QuoteNode) -> [Int64] {
        (0..<node.symbolCount).flatMap { index in
            node.withSymbol(index) { symbol in
                [
                    symbol.book.depthID, symbol.counts.depthMessages, symbol.book.volume(.buy, levels: .max).total,
                    symbol.book.volume(.sell, levels: .max).total,
                ]
            }
        }
    }
}
