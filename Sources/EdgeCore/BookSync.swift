import CalibModel
import Wire

/// The venue's sequence rules, and what a proven change sets off (SPEC 3.1; `reference` rules in `DepthChain`).
///
/// What the node calls once a frame is never inlined there: Swift 6.3.1 then moves the whole symbol (5 KB) out of its slab and back.
extension SymbolState {
    func isNamed(_ name: UnsafeRawBufferPointer) -> Bool { name.elementsEqual(instrument.symbol.utf8) }

    // MARK: Frames

    /// A REST snapshot: the base that buffered diffs are applied to. One older than the proven book changes nothing.
    @inline(never) mutating func snapshot(
        _ decoder: borrowing BinanceDecoder, id: Int64, eventMilliseconds: Int64?, chain: DepthChain, at now: Moment,
        _ shared: inout SharedState
    ) throws(FrameRejection) {
        let (bids, asks) = try levels(of: decoder)
        advance(to: now, &shared)
        counts.snapshots += 1
        guard sync != .synced, !hasOldInstrument else { return }
        book.removeAll()
        audit.forgetDepths()
        book.bids.set(bids)
        book.asks.set(asks)
        book.applied(depthID: id, at: now.instant)
        sync = .awaitingFirst(snapshotID: id)
        if !shared.isRecorded { coverage = BookCoverage(.init(bids: bids, asks: asks, asked: shared.snapshotLevels)) }
        let waiting = buffered
        buffered = []
        var applied: Int64 = 0
        for diff in waiting {
            switch verdict(on: diff, chain) {
            case .old: continue
            case .gap(let expected):
                // The break lies inside what was buffered: this snapshot leads nowhere, the next must be newer.
                lose(expected: expected, received: chain == .futures ? diff.previous ?? diff.first : diff.first, at: now, &shared)
                buffered = waiting.filter { $0.last >= diff.last }
                return
            case .next:
                diff.bids.withUnsafeBufferPointer { book.bids.set($0) }
                diff.asks.withUnsafeBufferPointer { book.asks.set($0) }
                applyDepth(diff, at: now, &shared)
                applied += 1
            }
        }
        if !shared.isRecorded, book.depthTop?.isCrossed == true { return unprove(.crossed, at: now, &shared) }
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .resync, symbol: index, first: id, second: applied))
    }

    /// Whether a snapshot that names no symbol may be this one's: what the diffs that wait for it set nearest to the touch lies within it.
    @inline(never) mutating func mayOwn(_ decoder: borrowing BinanceDecoder) -> Bool {
        guard let (bids, asks) = try? levels(of: decoder), let low = bids.map(\.price).min(), let high = asks.map(\.price).max() else {
            return false
        }
        let touch = [
            buffered.flatMap(\.bids).filter { $0.quantity > 0 }.map(\.price).max(),
            buffered.flatMap(\.asks).filter { $0.quantity > 0 }.map(\.price).min(),
        ].compactMap(\.self)
        return !touch.isEmpty && touch.allSatisfy { low <= $0 && $0 <= high }
    }

    /// A depth event. `header` has no levels: they are the decoder's.
    @inline(never) mutating func depth(
        _ header: BufferedDiff, _ decoder: borrowing BinanceDecoder, chain: DepthChain, at now: Moment, readAt: Int64,
        _ shared: inout SharedState
    ) throws(FrameRejection) {
        // Read before anything changes: a bad frame leaves no trace but its count.
        let (bids, asks) = try levels(of: decoder)
        advance(to: now, &shared)
        counts.depthMessages += 1
        if sync == .unsynced {
            counts.unsyncedMessages += 1
            if buffered.count == Limits.bufferedDiffsMax { buffered.removeFirst() }
            var diff = header
            diff.bids = Array(bids)
            diff.asks = Array(asks)
            buffered.append(diff)
            return
        }
        switch verdict(on: header, chain) {
        case .old: return
        case .gap(let expected):
            counts.unsyncedMessages += 1
            lose(expected: expected, received: chain == .futures ? header.previous ?? header.first : header.first, at: now, &shared)
            var diff = header
            diff.bids = Array(bids)
            diff.asks = Array(asks)
            buffered = [diff]
            return
        case .next: break
        }
        book.bids.set(bids)
        book.asks.set(asks)
        let isCrossed = applyDepth(header, at: now, &shared)
        if coverage.isWidening { keep(header, bids, asks, chain) }
        // No venue's book is crossed: a frame was mangled, or the snapshot. A recording cannot be asked for another one; there nothing is quoted
        // until it uncrosses.
        if isCrossed, !shared.isRecorded { return unprove(.crossed, at: now, &shared) }
        expireTicker(at: now, &shared)
        guard isProven else { return }
        proven(at: now, readAt: readAt, &shared)
    }

    @inline(never) mutating func bookTicker(
        id: Int64, bid: RawLevel, ask: RawLevel, eventMilliseconds: Int64?, at now: Moment, readAt: Int64, _ shared: inout SharedState
    ) throws(FrameRejection) {
        let bid = try level(bid)
        let ask = try level(ask)
        advance(to: now, &shared)
        counts.bookTickers += 1
        let top = TopOfBook(bidPrice: bid.price, bidQuantity: bid.quantity, askPrice: ask.price, askQuantity: ask.quantity)
        audit.ticker(id: id, top: top)
        guard isProven else { return }
        if top.isCrossed {
            counts.crossed += 1
            return
        }
        expireTicker(at: now, &shared)
        guard isProven else { return }
        guard book.merge(top, id: id, at: now.instant) else {
            cache.extend(at: now, venueMilliseconds: eventMilliseconds, shared.parameters.cache)
            return
        }
        contradictedAt = nil
        cache.prove(at: now, venueMilliseconds: eventMilliseconds)
        proven(at: now, readAt: readAt, &shared)
    }

    /// - Parameter consumesQueue: false for trades outside the book (insurance fund, ADL): they consume no queue (SPEC 4.5).
    @inline(never) mutating func trade(
        _ raw: RawLevel, aggressor: Side, consumesQueue: Bool, eventMilliseconds: Int64, at now: Moment, _ shared: inout SharedState
    ) throws(FrameRejection) {
        let trade = try level(raw)
        guard trade.quantity > 0 else { throw .outOfRange }
        advance(to: now, &shared)
        counts.trades += 1
        guard consumesQueue else { return }
        cache.extend(at: now, venueMilliseconds: eventMilliseconds, shared.parameters.cache)
        noteTrade(aggressor, price: trade.price, at: now.instant)
        let bought = self.trade(.buy, aggressor: aggressor, price: trade.price, lots: trade.quantity, at: now, &shared)
        if let bought { book(bought, at: now, &shared) }
        let sold = self.trade(.sell, aggressor: aggressor, price: trade.price, lots: trade.quantity, at: now, &shared)
        if let sold { book(sold, at: now, &shared) }
    }

    /// Trades come one by one or as aggregates; a feed that has both would count each twice, so the kind that came first counts.
    @inline(never) mutating func countsTrades(areAggregate: Bool) -> Bool {
        if let tradesAreAggregate { return tradesAreAggregate == areAggregate }
        tradesAreAggregate = areAggregate
        return true
    }

    // MARK: Sequence

    /// Whether a snapshot with this id is older than the first event that waits for one: the events between are lost, another is needed.
    func awaitsNewer(thanSnapshot id: Int64, _ chain: DepthChain) -> Bool {
        guard sync == .unsynced, let first = buffered.first else { return false }
        return chain == .futures ? !begins(first, within: id) : first.first > id &+ 1
    }

    /// Futures: whether nothing lies between a snapshot and an event behind it. The documents ask for U <= id; but ids are shared across symbols,
    /// so in a quiet market the next event begins far above the snapshot. Its `pu` says that there was nothing between.
    func begins(_ diff: BufferedDiff, within id: Int64) -> Bool { (diff.previous ?? diff.first) <= id || diff.first <= id }

    /// The last break, once: (expected id, received id).
    @inline(never) mutating func takeGap() -> (expected: Int64, received: Int64)? {
        defer { lastGap = nil }
        return lastGap
    }

    private enum Verdict {
        case old, next
        case gap(expected: Int64)
    }

    private func verdict(on diff: BufferedDiff, _ chain: DepthChain) -> Verdict {
        switch (sync, chain) {
        case (.unsynced, _): preconditionFailure("BUG: a diff was judged without a snapshot")
        case (.awaitingFirst(let id), .futures):
            if diff.last < id { return .old }
            return begins(diff, within: id) ? .next : .gap(expected: id)
        case (.awaitingFirst(let id), .spot):
            if diff.last <= id { return .old }
            return diff.first <= id &+ 1 ? .next : .gap(expected: id &+ 1)
        case (.synced, .futures):
            if isRepetition(diff), diff.previous != book.depthID { return .old }
            return diff.previous == book.depthID ? .next : .gap(expected: book.depthID)
        case (.synced, .spot):
            if isRepetition(diff) { return .old }
            return diff.first == book.depthID &+ 1 ? .next : .gap(expected: book.depthID &+ 1)
        }
    }

    /// Ids and time both say that the event came before. Ids alone would believe one damaged id for ever.
    private func isRepetition(_ diff: BufferedDiff) -> Bool {
        diff.last <= book.depthID && diff.eventMilliseconds <= lastEventMilliseconds
    }

    /// Whether it left the book crossed.
    @discardableResult private mutating func applyDepth(_ diff: BufferedDiff, at now: Moment, _ shared: inout SharedState) -> Bool {
        book.applied(depthID: diff.last, at: now.instant)
        lastEventMilliseconds = diff.eventMilliseconds
        sync = .synced
        contradictedAt = nil
        cache.prove(at: now, venueMilliseconds: diff.eventMilliseconds, id: diff.last)
        guard let top = book.depthTop else { return false }
        if top.isCrossed { counts.crossed += 1 }
        audit.depth(id: diff.last, top: top)
        return top.isCrossed
    }

    mutating func lose(
        _ reason: MDCache.Invalidation = .sequenceGap, expected: Int64, received: Int64, at now: Moment, _ shared: inout SharedState
    ) {
        if reason == .sequenceGap {
            counts.sequenceGaps += 1
            lastGap = (expected, received)
        }
        sync = .unsynced
        lostBy = reason
        buffered = []
        coverage = BookCoverage()
        contradictedAt = nil
        cache.lose(reason, at: now.instant)
        pull(at: now, &shared)
        // It ends here, counted and timed, and places nothing.
        resumeTick(at: now, &shared)
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .gap, symbol: index, first: expected, second: received))
    }

    /// The book changed and is proven: paper orders see it first, then a tick decides.
    mutating func proven(at now: Moment, readAt: Int64, _ shared: inout SharedState) {
        guard let top = book.top else {
            // One side of the market is gone: nothing tells what a quote is worth.
            pull(at: now, &shared)
            return
        }
        if !hasSizes { convertSizes(midTwice: top.midTwice) }
        if let previous = previousMidTwice {
            let move = Int128((top.midTwice - previous).magnitude) * 10_000_000_000
            if move > Int128(shared.parameters.cache.invalidateOnJump.micro) * Int128(previous) {
                cache.invalidate(.priceJump, at: now.instant)
            }
        }
        previousMidTwice = top.midTwice
        meetBook(top, at: now, &shared)
        if case .bookChange = shared.parameters.trigger {
            tick(at: now, frameReadAt: readAt, &shared)
        } else {
            resumeTick(at: now, &shared)
        }
    }

    // MARK: Levels

    mutating func levels(of decoder: borrowing BinanceDecoder) throws(FrameRejection) -> (
        bids: UnsafeBufferPointer<BookLevel>, asks: UnsafeBufferPointer<BookLevel>
    ) {
        let bids = try levels(of: decoder, side: 0, count: decoder.bidCount)
        return (bids, try levels(of: decoder, side: 1, count: decoder.askCount))
    }

    private mutating func levels(of decoder: borrowing BinanceDecoder, side: Int, count: Int) throws(FrameRejection)
        -> UnsafeBufferPointer<BookLevel>
    {
        let start = side * Limits.frameLevelsMax
        let target = decoder.converted + start
        guard let places = decoder.sidePlaces[side] else { return try read(decoder.levels + start, count: count, into: target) }
        if let levels = read(decoder.digits + start, places, count: count, into: target) { return levels }
        // Another grid, or an error: which one is said there.
        for index in 0..<count {
            let raw = side == 0 ? decoder.bid(index) : decoder.ask(index)
            let price = try ticks(raw.price)
            target[index] = BookLevel(price: price, quantity: try lots(raw.quantity))
        }
        return UnsafeBufferPointer(start: target, count: count)
    }
}
