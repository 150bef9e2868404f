import CalibModel
import Wire

/// The answer of Bybit's `GET /v5/market/orderbook`, best levels first.
struct BybitSnapshot {
    var symbol: String
    var sequence: Int64
    var bids: [RawLevel] = []
    var asks: [RawLevel] = []

    init(_ body: UnsafeRawBufferPointer) throws(FrameRejection) {
        let answer: JSONValue
        do throws(JSONError) { answer = try JSONValue.parse(body) } catch { throw FrameRejection(error) }
        guard answer["retCode"]?.integer == 0, let result = answer["result"], let symbol = result["s"]?.string,
            let sequence = result["seq"]?.integer, let bids = result["b"]?.array, let asks = result["a"]?.array
        else { throw .missingField }
        self.symbol = symbol
        self.sequence = sequence
        self.bids = try Self.levels(bids)
        self.asks = try Self.levels(asks)
    }

    private static func levels(_ values: [JSONValue]) throws(FrameRejection) -> [RawLevel] {
        guard values.count <= Limits.frameLevelsMax else { throw .tooManyLevels }
        var levels: [RawLevel] = []
        for value in values {
            guard let texts = value.array, texts.count >= 2, let price = decimal(texts[0]), let quantity = decimal(texts[1]) else {
                throw .wrongType
            }
            levels.append(RawLevel(price: price, quantity: quantity))
        }
        return levels
    }

    private static func decimal(_ value: JSONValue) -> DecimalText? {
        value.string.flatMap { Array($0.utf8).withUnsafeBytes { DecimalText($0) } }
    }
}

/// REST snapshots that prove a standing book (SPEC 3.2, 3.4). They never become one: a book that they contradict is built anew by its own rules.
extension SymbolState {
    /// Levels in which a Binance snapshot must equal the book.
    private static let binanceLevels = 20

    mutating func refresh(with snapshot: BybitSnapshot, sentAt: Instant, at now: Moment, _ shared: inout SharedState) throws(FrameRejection)
    {
        guard snapshot.symbol == instrument.symbol else { throw .unknownSymbol }
        let levels = min(Int(shared.parameters.cache.maxDepth), subscription.depth ?? .max)
        let bidsAgree = try holds(snapshot.bids.count, .buy, levels: levels) { snapshot.bids[$0] }
        let asksAgree = try holds(snapshot.asks.count, .sell, levels: levels) { snapshot.asks[$0] }
        refreshed(id: snapshot.sequence, agrees: bidsAgree && asksAgree, sentAt: sentAt, provesTopic: false, at: now, &shared)
    }

    mutating func refresh(
        with decoder: borrowing BinanceDecoder, id: Int64, sentAt: Instant, at now: Moment, _ shared: inout SharedState
    ) throws(FrameRejection) {
        let levels = min(Int(shared.parameters.cache.maxDepth), Self.binanceLevels)
        let bidsAgree = try holds(decoder.bidCount, .buy, levels: levels) { decoder.bid($0) }
        let asksAgree = try holds(decoder.askCount, .sell, levels: levels) { decoder.ask($0) }
        refreshed(id: id, agrees: bidsAgree && asksAgree, sentAt: sentAt, provesTopic: true, at: now, &shared)
    }

    private mutating func refreshed(
        id: Int64, agrees: Bool, sentAt: Instant, provesTopic: Bool, at now: Moment, _ shared: inout SharedState
    ) {
        advance(to: now, &shared)
        switch cache.snapshotAnswered(id: id, agrees: agrees, sentAt: sentAt, at: now.instant, provesTopic: provesTopic) {
        case .proved: resumeTick(at: now, &shared)
        // An update may be on its way; one that does not come within a second was lost.
        case .disagrees: contradictedAt = contradictedAt ?? now.instant
        case .older, .voided: break
        }
    }

    /// Whether the best levels of a side are those of a list, quantities included.
    private mutating func holds(_ count: Int, _ side: Side, levels: Int, _ raw: (Int) -> RawLevel) throws(FrameRejection) -> Bool {
        for rank in 0..<levels {
            let mine = side == .buy ? book.bids.level(rank) : book.asks.level(rank)
            guard rank < count else { return mine == nil }
            let theirs = try level(raw(rank))
            guard let mine, mine == theirs else { return false }
        }
        return true
    }
}
