import CalibModel
import Simulation
import Testing

@testable import EdgeCore

/// A node against a venue with trouble of every kind, in simulated time: the same seed is the same run, to the last frame.
@Suite struct VenueChaosTests {
    /// One edge, its connection and the venue, moved on millisecond by millisecond.
    final class World {
        static let symbols = ["BTCUSDT", "ETHUSDT"]
        static let reconnectMilliseconds: Int64 = 100
        /// What the edge says takes this long.
        static let requestMilliseconds: Int64 = 5
        private var said: [(atMilliseconds: Int64, message: [UInt8])] = []
        var venue: ChaoticVenue
        var node: QuoteNode
        var client: ChaoticVenue.Client?
        var reconnectAt: Int64?
        var milliseconds: Int64 = 0
        private let start: Int64
        private let memory: OutboxMemory

        // What is measured.
        var provenMilliseconds: Int64 = 0
        var knowableMilliseconds: Int64 = 0
        /// From the loss of a chain to the book's next proof.
        var healing: [Int64] = []
        private var lostAt: [Int64?] = [nil, nil]
        var comparedBooks = 0

        init(seed: UInt64, chaosSeed: UInt64?) {
            start = 1_735_689_600_000
            let instruments = Self.symbols.map { name in SimInstrument.all.first { $0.symbol == name }! }
            venue = ChaoticVenue(
                BybitVenue(seed: seed, instruments: instruments, start: WallTime(nanoseconds: start * 1_000_000)), seed: chaosSeed)
            memory = OutboxMemory()
            var parameters = Parameters()
            parameters.cache.topicProofNanoseconds = 5_000_000_000
            parameters.paperLatencyNanoseconds = 0
            node = QuoteNode(
                venue: .sim,
                instruments: instruments.map(\.instrument), parameters: parameters, isRecorded: false, connections: 1, runNumber: 1,
                firstFillID: 1,
                outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        }

        var now: Moment {
            Moment(
                instant: Instant(nanoseconds: (start + milliseconds) * 1_000_000),
                wall: WallTime(nanoseconds: (start + milliseconds) * 1_000_000))
        }

        func step() {
            milliseconds += 1
            if client == nil, milliseconds >= reconnectAt ?? 0 { connect() }
            let due = said.prefix { $0.atMilliseconds <= milliseconds }.map(\.message)
            said.removeFirst(due.count)
            for message in due { reach(message) }
            var heard: [(Int, ChaoticVenue.Output)] = []
            venue.advance(toElapsed: milliseconds) { heard.append(($0, $1)) }
            hear(heard)
            if milliseconds.isMultiple(of: 10) {
                node.advance(to: now)
                perform(node.takeRequests())
                if client != nil, node.isDead(0, at: now.instant) { lose() }
            }
            measure()
            memory.discard(&node.shared.outboxes)
        }

        private func connect() {
            client = venue.connect(.linear)
            node.connected(0, at: now)
            for request in BybitWire.subscriptions(symbols: Self.symbols) { say(request) }
        }

        private func lose() {
            if let client { venue.disconnect(client) }
            client = nil
            said = []
            reconnectAt = milliseconds + Self.reconnectMilliseconds
            node.disconnected(0, at: now)
            _ = node.cancelAll(at: now)
        }

        private func say(_ message: [UInt8]) { said.append((milliseconds + Self.requestMilliseconds, message)) }

        private func reach(_ message: [UInt8]) {
            guard let client else { return }
            var heard: [(Int, ChaoticVenue.Output)] = []
            venue.receive(message, from: client) { heard.append(($0, $1)) }
            hear(heard)
        }

        private func hear(_ heard: [(Int, ChaoticVenue.Output)]) {
            for (client, output) in heard where client == self.client {
                switch output {
                case .frame(let frame):
                    frame.withUnsafeBytes { node.frame($0, on: 0, at: now) }
                    if node.hasRequests { perform(node.takeRequests()) }
                case .close, .reset: lose()
                }
            }
        }

        private func perform(_ requests: [VenueRequest]) {
            for request in requests {
                switch request {
                case .ping: say(BybitWire.ping())
                case .resubscribe(let symbol):
                    for request in BybitWire.resubscriptions(symbol: Self.symbols[Int(symbol)]) { say(request) }
                case .snapshot(let symbol):
                    let name = Self.symbols[Int(symbol)]
                    let body = venue.venue.rest(path: "/v5/market/orderbook", query: "category=linear&symbol=\(name)&limit=50")!
                    body.withUnsafeBytes { node.snapshotAnswered(symbol, $0, sentAt: now, at: now) }
                case .reconnect: lose()
                }
            }
        }

        private func measure() {
            // The venue's own trouble: nobody could know the market then.
            let isOut = venue.outages.last.map { outage in outage.toMilliseconds.map { $0 >= milliseconds } ?? true } ?? false
            for index in 0..<2 {
                let (isProven, isQuoted) = node.withSymbol(index) {
                    ($0.isProven, $0.bidSide.intended != nil || $0.askSide.intended != nil)
                }
                #expect(isProven || !isQuoted, "\(milliseconds) ms: \(Self.symbols[index]) is quoted on an unproven book")
                if !isOut, client != nil {
                    knowableMilliseconds += 1
                    if isProven { provenMilliseconds += 1 }
                }
                if isProven {
                    if let since = lostAt[index] { healing.append(milliseconds - since) }
                    lostAt[index] = nil
                    compare(index)
                } else if client == nil || isOut {
                    lostAt[index] = nil
                } else if lostAt[index] == nil {
                    lostAt[index] = milliseconds
                }
            }
        }

        /// A proven book is what the venue published up to its number, level by level.
        private func compare(_ index: Int) {
            guard milliseconds.isMultiple(of: 50), let (update, levels) = venue.venue.published(index, depth: 50) else { return }
            let isEqual = node.withSymbol(index) { symbol -> Bool? in
                guard symbol.book.depthID == update else { return nil }
                return symbol.book.bids.count == levels.bids.count && symbol.book.asks.count == levels.asks.count
                    && levels.bids.indices.allSatisfy { symbol.book.bids.level($0).map { $0.price } == levels.bids[$0].price }
                    && levels.bids.indices.allSatisfy { symbol.book.bids.level($0).map { $0.quantity } == levels.bids[$0].quantity }
                    && levels.asks.indices.allSatisfy { symbol.book.asks.level($0).map { $0.price } == levels.asks[$0].price }
                    && levels.asks.indices.allSatisfy { symbol.book.asks.level($0).map { $0.quantity } == levels.asks[$0].quantity }
            }
            guard let isEqual else { return }
            comparedBooks += 1
            #expect(isEqual, "\(milliseconds) ms: the proven book of \(Self.symbols[index]) is not the venue's")
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func everyKindOfTroubleComes_andNothingIsQuotedOnAnUnprovenBook(seed: UInt64) {
        let world = World(seed: 7, chaosSeed: seed)
        for _ in 0..<(VenueChaos.openingMilliseconds + 21_000) { world.step() }
        for kind in VenueChaos.Kind.allCases { #expect(world.venue.count(of: kind) > 0, "\(kind)") }
        let (known, proven) = (world.knowableMilliseconds, world.provenMilliseconds)
        #expect(Double(proven) / Double(known) >= 0.995, "\(proven) of \(known) ms")
        let healing = world.healing.sorted()
        #expect(healing.count > 5 && healing[min(healing.count - 1, healing.count * 99 / 100)] <= 100, "\(healing)")
        #expect(world.comparedBooks > 500)
        #expect((0..<2).allSatisfy { world.node.withSymbol($0) { $0.isProven } } || world.venue.outages.last?.toMilliseconds == nil)
    }

    @Test func theSameSeedIsTheSameTrouble() {
        func run() -> (UInt64, [Int], [ChaoticVenue.Outage]) {
            let world = World(seed: 7, chaosSeed: 9)
            for _ in 0..<8_000 { world.step() }
            return (world.node.shared.quotesHash, world.venue.counts, world.venue.outages)
        }
        let (first, second) = (run(), run())
        #expect(first == second && first.1.reduce(0, +) > 3)
    }

    @Test func withoutASeedNothingIsWrong() {
        let world = World(seed: 7, chaosSeed: nil)
        for _ in 0..<5_000 { world.step() }
        #expect(world.venue.counts.allSatisfy { $0 == 0 } && world.healing.count == 2, "each book is proven once")
        #expect(world.node.gaps.isEmpty && (0..<2).allSatisfy { world.node.withSymbol($0) { $0.isProven } })
    }

    /// A burst is 182 deltas in one millisecond, and the chain holds.
    @Test func theScheduleHasEveryKindOnceInItsOpening() {
        for seed in 0..<50 as Range<UInt64> {
            var chaos = VenueChaos(seed: seed, symbolCount: 2)
            var first: [VenueChaos.Kind: Int64] = [:]
            for now in 0..<VenueChaos.openingMilliseconds + 600 {
                for fault in chaos.due(atElapsed: now) where first[fault.kind] == nil { first[fault.kind] = now }
            }
            #expect(first.count == VenueChaos.Kind.allCases.count, "seed \(seed)")
            #expect(Set(first.values.map { ($0 - 1_000) / 1_500 }).count == first.count, "one after the other")
        }
    }
}
