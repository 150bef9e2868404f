import CalibModel
import Wire

// Bybit's sequence rules (SPEC 3.1). Per symbol and per topic:
//
//   no book ──snapshot──▶ proven ──delta, u = last + 1──▶ proven
//      ▲                    │ ├─ snapshot, or u = 1 (the service restarted): the book is replaced, still proven
//      │                    │ └─ delta seen before: nothing
//      └── any other delta ─┴── the connection ends
//
// Invariants:
// 1. A book belongs to one topic (the first one seen with a depth above 1) of one connection. Frames of its other topics, and deltas of other
//    connections, say nothing about it; a snapshot on another connection takes it over: that is what a reconnect is.
// 2. A snapshot comes in band and proves at once. Deltas without a book are not buffered: the next snapshot already contains them.
// 3. While a delta finds no book, a new subscription is asked for: at the break, and again each `Limits.resubscribeNanoseconds`, so that a
//    lost request or a rejected snapshot heals too.

/// Which stream a symbol's book is built from, and whether another subscription is due.
struct BookSubscription {
    var connection: Int?
    var depth: Int?
    /// When a new subscription was last asked for; nil while the book stands.
    private var askedAt: Instant?
    /// Asked for, and not noted by the node yet.
    private var isWanted = false
    /// Requests since the book stood.
    private var requests = 0
    /// A snapshot came after the last request, and no book could be made of it.
    private var hasUnusableSnapshot = false

    /// True once per request.
    mutating func takeRequest() -> Bool {
        defer { isWanted = false }
        return isWanted
    }

    /// False when the last request is still to be waited for: a lost one costs `Limits.resubscribeNanoseconds`. The first that brought nothing
    /// useful is repeated at once, the next ones with pauses, each twice the one before.
    mutating func ask(at now: Instant) -> Bool {
        if let askedAt, now.since(askedAt) < pause { return false }
        askedAt = now
        isWanted = true
        requests += 1
        hasUnusableSnapshot = false
        return true
    }

    private var pause: Int64 {
        guard hasUnusableSnapshot else { return Limits.resubscribeNanoseconds }
        guard requests > 1 else { return 0 }
        return min(Limits.resubscribeNanoseconds, Limits.refreshBackOffNanosecondsMin << Int64(min(requests - 2, 10)))
    }

    mutating func snapshotWasUnusable() { hasUnusableSnapshot = true }

    mutating func stands() {
        askedAt = nil
        isWanted = false
        requests = 0
        hasUnusableSnapshot = false
    }
}

extension SymbolState {
    /// An orderbook frame; false when it is of a stream that this book is not built from.
    mutating func bybitBook(
        _ decoder: borrowing BybitDecoder, isSnapshot: Bool, depth: Int, update: Int64, eventMilliseconds: Int64, on connection: Int,
        at now: Moment, readAt: Int64, _ shared: inout SharedState
    ) throws(FrameRejection) -> Bool {
        if let used = subscription.depth, used != depth { return false }
        if let owner = subscription.connection, owner != connection, !isSnapshot { return false }
        let behind = Limits.frameLevelsMax
        let bids = try read(decoder.levels, count: decoder.bidCount, into: decoder.converted)
        let asks = try read(decoder.levels + behind, count: decoder.askCount, into: decoder.converted + behind)
        advance(to: now, &shared)
        // A snapshot that is sent twice or late would take the book back. Number and time both must say so: a new stream may count from anywhere.
        if isSnapshot, sync == .synced, update < book.depthID, eventMilliseconds <= lastEventMilliseconds { return true }
        subscription.depth = depth
        subscription.connection = connection
        // Its ticks and lots may be others now.
        if hasOldInstrument { return true }
        let isResync = sync != .synced
        if isSnapshot {
            counts.snapshots += 1
            book.removeAll()
            book.bids.set(bids)
            book.asks.set(asks)
        } else {
            counts.depthMessages += 1
            guard sync == .synced else {
                counts.unsyncedMessages += 1
                askForSnapshot(at: now.instant)
                return true
            }
            guard update == book.depthID &+ 1 else {
                // Number and time both say that it came before; a number alone would believe one damaged id for ever.
                if update <= book.depthID, eventMilliseconds <= lastEventMilliseconds { return true }
                counts.unsyncedMessages += 1
                lose(expected: book.depthID &+ 1, received: update, at: now, &shared)
                askForSnapshot(at: now.instant)
                return true
            }
            book.bids.set(bids)
            book.asks.set(asks)
        }
        book.applied(depthID: update, at: now.instant)
        lastEventMilliseconds = eventMilliseconds
        if let top = book.depthTop, top.isCrossed {
            // No venue's book is: a frame was mangled, or belongs to another book.
            counts.crossed += 1
            if isResync { subscription.snapshotWasUnusable() } else { unprove(.crossed, at: now, &shared) }
            askForSnapshot(at: now.instant)
            return true
        }
        if isResync {
            shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .resync, symbol: self.index, first: update))
            subscription.stands()
        }
        sync = .synced
        cache.prove(at: now, venueMilliseconds: eventMilliseconds, id: decoder.sequence)
        contradictedAt = nil
        proven(at: now, readAt: readAt, &shared)
        return true
    }

    /// The trades of one frame, which happened at one instant for us: what they fill of one order is one fill, so that a frame makes at most
    /// two (`SharedState.recordsPerFrame`).
    mutating func bybitTrades(
        _ decoder: borrowing BybitDecoder, eventMilliseconds: Int64, on connection: Int, at now: Moment, _ shared: inout SharedState
    ) throws(FrameRejection) {
        for index in 0..<decoder.tradeCount {
            guard try level(decoder.trade(index).level).quantity > 0 else { throw .outOfRange }
        }
        advance(to: now, &shared)
        counts.trades += Int64(decoder.tradeCount)
        if subscription.connection == connection {
            cache.extend(at: now, venueMilliseconds: eventMilliseconds, shared.parameters.cache)
        }
        var buy: PaperSide.Fill?
        var sell: PaperSide.Fill?
        for index in 0..<decoder.tradeCount {
            let trade = decoder.trade(index)
            guard trade.consumesQueue else { continue }
            let (price, lots) = try level(trade.level)
            if subscription.connection == connection { noteTrade(trade.aggressor, price: price, at: now.instant) }
            let bought = self.trade(.buy, aggressor: trade.aggressor, price: price, lots: lots, at: now, &shared)
            let sold = self.trade(.sell, aggressor: trade.aggressor, price: price, lots: lots, at: now, &shared)
            if let bought { buy = buy?.followed(by: bought) ?? bought }
            if let sold { sell = sell?.followed(by: sold) ?? sold }
        }
        if let buy { book(buy, at: now, &shared) }
        if let sell { book(sell, at: now, &shared) }
    }

    /// The connection answered a ping: all it sent before has arrived, so the book is as current as its topic is alive.
    mutating func ponged(sentAt: Instant, excess: Int64, at now: Moment, _ shared: inout SharedState) {
        advance(to: now, &shared)
        guard isProven, cache.ponged(sentAt: sentAt, at: now.instant, excess: excess, parameters.pointee.cache) else { return }
        resumeTick(at: now, &shared)
    }

    /// The book's connection ended. True when a proof was lost by it.
    mutating func disconnected(at now: Moment, _ shared: inout SharedState) -> Bool {
        advance(to: now, &shared)
        let wasProven = isProven
        sync = .unsynced
        subscription = BookSubscription()
        buffered = []
        contradictedAt = nil
        cache.lose(.disconnect, at: now.instant)
        pull(at: now, &shared)
        resumeTick(at: now, &shared)
        return wasProven
    }

    mutating func askForSnapshot(at now: Instant) {
        if subscription.ask(at: now) { counts.resubscriptions += 1 }
    }
}

extension PaperSide.Fill {
    /// Both as one: what was ahead before the first, what remains after the last.
    fileprivate func followed(by later: PaperSide.Fill) -> PaperSide.Fill {
        PaperSide.Fill(
            order: later.order, price: price, lots: lots + later.lots, queueAhead: queueAhead, isFirst: isFirst, cause: later.cause)
    }
}

/// Bybit's frames and connections, for `bybit`, `bybit-spot` and `sim`.
extension QuoteNode {
    mutating func bybitFrame(_ bytes: UnsafeRawBufferPointer, on connection: Int, at now: Moment, readAt: Int64) {
        // Whose frame it is, as soon as that is known.
        var about: SymbolIndex?
        do throws(FrameRejection) {
            switch try bybitDecoder.decode(bytes) {
            case .book(let symbol, let depth, let isSnapshot, let update, let event):
                let index = try find(symbol)
                about = index
                let isUsed = try symbols[Int(index)].bybitBook(
                    bybitDecoder, isSnapshot: isSnapshot, depth: depth, update: update, eventMilliseconds: event, on: connection, at: now,
                    readAt: readAt, &shared)
                if !isUsed { otherMessages += 1 }
                noteGap(index, at: now)
                noteResubscription(index)
                noteProof(index, on: connection)
            case .trades(let symbol, let event):
                let index = try find(symbol)
                about = index
                try symbols[Int(index)].bybitTrades(bybitDecoder, eventMilliseconds: event, on: connection, at: now, &shared)
                noteProof(index, on: connection)
            case .pong:
                otherMessages += 1
                answered(on: connection, at: now)
            case .refused:
                otherMessages += 1
                refusedRequests += 1
            case .other: otherMessages += 1
            }
        } catch {
            reject(error)
            if let about, error != .unknownSymbol { symbols[Int(about)].noteRejectedInput(at: now, &shared) }
        }
    }

    /// A new connection took this number. Books of an older one with the same number, whose end nobody told of, lose their proof.
    package mutating func connected(_ connection: Int, at now: Moment) {
        begin(at: now)
        sweep(at: now)
        let books = unprove(connection, at: now)
        if connection < shared.connectionCount { shared.pulses[connection].opened(at: now.instant) }
        guard books > 0 else { return }
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .disconnected, first: Int64(connection), second: books))
    }

    /// The connection ended: its books are unproven and their orders pulled until the snapshots of the next one.
    package mutating func disconnected(_ connection: Int, at now: Moment) {
        begin(at: now)
        sweep(at: now)
        let books = unprove(connection, at: now)
        if connection < shared.connectionCount { shared.pulses[connection].closed() }
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .disconnected, first: Int64(connection), second: books))
    }

    /// The connection answered a ping of the websocket; a text pong comes as a frame.
    package mutating func pong(on connection: Int, at now: Moment) {
        begin(at: now)
        sweep(at: now)
        answered(on: connection, at: now)
    }

    /// Whether a frame of the symbol's book came on the present connection.
    package func hasHeardOf(_ symbol: SymbolIndex) -> Bool { symbols[Int(symbol)].subscription.connection != nil }

    /// A book that asks for another subscription.
    mutating func noteResubscription(_ index: SymbolIndex) {
        if symbols[Int(index)].subscription.takeRequest(), !resubscriptions.contains(index) { resubscriptions.append(index) }
    }

    /// What the frame proved holds for every book of its connection.
    mutating func noteProof(_ index: SymbolIndex, on connection: Int) {
        guard !shared.isRecorded, connection < shared.connectionCount, symbols[Int(index)].subscription.connection == connection else {
            return
        }
        shared.pulses[connection].proved(symbols[Int(index)].cache.newestProof)
    }

    private mutating func unprove(_ connection: Int, at now: Moment) -> Int64 {
        var books: Int64 = 0
        for index in 0..<symbolCount where symbols[index].subscription.connection == connection {
            if symbols[index].disconnected(at: now, &shared) { books += 1 }
            // The next connection subscribes to everything anyway.
            resubscriptions.removeAll { $0 == SymbolIndex(index) }
            snapshots.drop(SymbolIndex(index))
        }
        return books
    }
}
