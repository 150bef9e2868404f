import CalibModel
import Wire

/// What a recorder must know of the frames it keeps: whose they are, and when a book's chain begins anew, so that a replay of the file needs a
/// snapshot from there. It keeps no books.
package struct RecordChain: ~Copyable {
    private struct Book {
        /// The newest id; nil before the first frame of a connection.
        var lastID: Int64?
        /// Of the first event of this chain: an older order book cannot be joined to it.
        var begin: (first: Int64, previous: Int64?) = (0, nil)
    }

    private let venue: QuoteNode.Venue
    private let symbols: [String]
    private var books: [Book]
    private var binance = BinanceDecoder()
    private var bybit = BybitDecoder()

    package init(venue: QuoteNode.Venue, symbols: [String]) {
        self.venue = venue
        self.symbols = symbols
        books = .init(repeating: Book(), count: symbols.count)
    }

    package struct Finding: Sendable, Equatable {
        /// Nil for what is about no symbol of ours, such as an answer to a request.
        package var symbol: SymbolIndex?
        /// A snapshot is needed: the chain begins here.
        package var needsBook = false
    }

    package mutating func frame(_ bytes: UnsafeRawBufferPointer) -> Finding {
        do throws(FrameRejection) {
            return venue.binance == nil ? try bybitFrame(bytes) : try binanceFrame(bytes)
        } catch {
            return Finding()  // Kept as it is; whoever replays it counts it.
        }
    }

    private mutating func binanceFrame(_ bytes: UnsafeRawBufferPointer) throws(FrameRejection) -> Finding {
        switch try binance.decode(bytes) {
        case .depth(let name, let first, let last, let previous, _):
            guard let index = find(name) else { return Finding() }
            let expected = books[index].lastID
            let isNext = expected != nil && (previous.map { $0 == expected } ?? (first == expected.map { $0 &+ 1 }))
            if !isNext { books[index].begin = (first, previous) }
            books[index].lastID = last
            return Finding(symbol: SymbolIndex(index), needsBook: !isNext)
        case .trade(let name, _, _, _, _, _), .bookTicker(let name, _, _, _, _):
            return Finding(symbol: find(name).map { SymbolIndex($0) })
        case .snapshot, .leaving, .refused, .other: return Finding()
        }
    }

    private mutating func bybitFrame(_ bytes: UnsafeRawBufferPointer) throws(FrameRejection) -> Finding {
        switch try bybit.decode(bytes) {
        case .book(let name, _, let isSnapshot, let update, _):
            guard let index = find(name) else { return Finding() }
            let isNext = isSnapshot || books[index].lastID.map { $0 &+ 1 == update } ?? false
            books[index].lastID = update
            return Finding(symbol: SymbolIndex(index), needsBook: !isNext)
        case .trades(let name, _): return Finding(symbol: find(name).map { SymbolIndex($0) })
        case .pong, .refused, .other: return Finding()
        }
    }

    /// Whether an order book can be joined to the symbol's present chain; false for one that is older, or no order book at all.
    package mutating func canUse(_ body: UnsafeRawBufferPointer, for symbol: SymbolIndex) -> Bool {
        guard case .success(.snapshot(_, let id, _)) = Result(catching: { () throws(FrameRejection) in try binance.decode(body) }) else {
            return false
        }
        let begin = books[Int(symbol)].begin
        return venue.binance == .spot ? begin.first <= id &+ 1 : begin.first <= id || begin.previous.map { $0 <= id } ?? false
    }

    /// The connection is new: every chain on it begins anew.
    package mutating func connected() { for index in books.indices { books[index].lastID = nil } }

    /// Whether a frame of the symbol's book came since.
    package func hasHeard(of symbol: SymbolIndex) -> Bool { books[Int(symbol)].lastID != nil }

    private func find(_ name: UnsafeRawBufferPointer) -> Int? { symbols.firstIndex { name.elementsEqual($0.utf8) } }
}
