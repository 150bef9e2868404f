import CalibModel
import Wire

/// Infers the tick and lot of every symbol in a recording from the finest decimal step seen (SPEC 3.1).
///
/// The step is a power of ten: a tick of 0.5 is read as 0.1, which is never too coarse. Inferred instruments are flagged.
package struct InstrumentScan: ~Copyable {
    private struct Finest {
        var symbol: String
        var price = 0
        var quantity = 0
    }

    private let venue: QuoteNode.Venue
    private var decoder = BinanceDecoder()
    private var bybitDecoder = BybitDecoder()
    private var found: [Finest] = []
    /// By connection: the symbols met on it.
    private var connectionSymbols: [Set<Int>]
    /// By connection: what snapshots used that name no symbol. They may be of any of its symbols.
    private var unnamed: [(price: Int, quantity: Int)]

    package init(venue: QuoteNode.Venue, connections: Int) {
        self.venue = venue
        connectionSymbols = .init(repeating: [], count: connections)
        unnamed = .init(repeating: (0, 0), count: connections)
    }

    /// The symbols met, in the order of their first frame.
    package var symbols: [String] { found.map(\.symbol) }

    /// Frames that do not decode are left to the replay, which counts them.
    package mutating func frame(_ bytes: UnsafeRawBufferPointer, on connection: Int) {
        guard venue.category == nil else { return bybitFrame(bytes, on: connection) }
        let frame: BinanceFrame
        do throws(FrameRejection) { frame = try decoder.decode(bytes) } catch { return }
        switch frame {
        case .depth(let symbol, _, _, _, _): useLevels(index(of: symbol, on: connection), connection)
        case .snapshot(let symbol, _, _):
            useLevels(symbol.flatMap { index(of: $0, on: connection) }, connection)
        case .trade(let symbol, let level, _, _, _, _): use(level, index(of: symbol, on: connection), connection)
        case .bookTicker(let symbol, _, let bid, let ask, _):
            let index = index(of: symbol, on: connection)
            use(bid, index, connection)
            use(ask, index, connection)
        case .leaving, .refused, .other: break
        }
    }

    private mutating func bybitFrame(_ bytes: UnsafeRawBufferPointer, on connection: Int) {
        let frame: BybitFrame
        do throws(FrameRejection) { frame = try bybitDecoder.decode(bytes) } catch { return }
        switch frame {
        case .book(let symbol, _, _, _, _):
            let index = index(of: symbol, on: connection)
            for position in 0..<bybitDecoder.bidCount { use(bybitDecoder.bid(position), index, connection) }
            for position in 0..<bybitDecoder.askCount { use(bybitDecoder.ask(position), index, connection) }
        case .trades(let symbol, _):
            let index = index(of: symbol, on: connection)
            for position in 0..<bybitDecoder.tradeCount { use(bybitDecoder.trade(position).level, index, connection) }
        case .pong, .refused, .other: break
        }
    }

    package func instruments() -> [Instrument] {
        var found = found
        for (symbols, finest) in zip(connectionSymbols, unnamed) {
            for index in symbols {
                found[index].price = max(found[index].price, finest.price)
                found[index].quantity = max(found[index].quantity, finest.quantity)
            }
        }
        return found.map { finest in
            Instrument(
                symbol: finest.symbol, priceDigits: min(finest.price, Places.price), tickUnits: 1,
                quantityDigits: min(finest.quantity, Places.quantity), lotUnits: 1, isInferred: true,
                contractMultiplier: venue.binance == .coinm ? BinanceWire.contractMultiplier(of: finest.symbol) : nil)
        }
    }

    /// What venues call their symbols; anything else is damage and must not become an instrument.
    private static func isName(_ symbol: UnsafeRawBufferPointer) -> Bool {
        (1...32).contains(symbol.count)
            && symbol.allSatisfy { (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || $0 == 0x5f || $0 == 0x2d || $0 == 0x2e }
    }

    private mutating func index(of symbol: UnsafeRawBufferPointer, on connection: Int) -> Int? {
        guard Self.isName(symbol) else { return nil }
        let index =
            found.firstIndex { $0.symbol.utf8.elementsEqual(symbol) }
            ?? {
                found.append(Finest(symbol: String(decoding: symbol, as: UTF8.self)))
                return found.count - 1
            }()
        connectionSymbols[connection].insert(index)
        return index
    }

    private mutating func useLevels(_ index: Int?, _ connection: Int) {
        for position in 0..<decoder.bidCount { use(decoder.bid(position), index, connection) }
        for position in 0..<decoder.askCount { use(decoder.ask(position), index, connection) }
    }

    private mutating func use(_ level: RawLevel, _ index: Int?, _ connection: Int) {
        let price = level.price.placesUsed
        let quantity = level.quantity.placesUsed
        if let index {
            found[index].price = max(found[index].price, price)
            found[index].quantity = max(found[index].quantity, quantity)
        } else {
            unnamed[connection].price = max(unnamed[connection].price, price)
            unnamed[connection].quantity = max(unnamed[connection].quantity, quantity)
        }
    }
}
