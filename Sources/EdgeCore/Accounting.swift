import CalibModel

/// What happened, booked: fills, ended orders, markouts, the one-second grid and the ten-second snapshots.
extension SymbolState {
    /// Lets time pass up to `now`: requests take effect, markouts come due, seconds and snapshots close, the watchdog looks.
    mutating func advance(to now: Moment, _ shared: inout SharedState) {
        let second = now.wall.nanoseconds.flooredDivision(by: 1_000_000_000)
        guard let next = nextSecond else {
            nextSecond = second + 1
            accumulator.pointee.fromMilliseconds = now.wall.milliseconds
            return
        }
        if second >= next {
            // A longer silence is not stepped through to its end, but far enough for the watchdog to pull what rested when it began.
            let stepped = min(second, next + Int64(Limits.silenceSecondsMax))
            for boundary in next...stepped { cross(second: boundary, now, &shared) }
            if stepped < second {
                features.restart(after: stepped, upTo: second)
                nextIntervalTick = nil
                if accumulatorHasEvents {
                    cutSnapshot(at: moment(of: WallTime(nanoseconds: stepped * 1_000_000_000 + 1_000_000), now), &shared)
                }
                cutTrailing(atMilliseconds: stepped * 1000 + 1, &shared)
                watchLoss(at: now, &shared)  // Midnight may have passed in the silence.
                if !accumulatorHasEvents { accumulator.pointee.fromMilliseconds = second.flooredDivision(by: 10) * 10_000 }
            }
            nextSecond = second + 1
        }
        settle(at: now, &shared)
    }

    /// Applies what is due at one instant, in the order of time as far as it is known.
    private mutating func settle(at now: Moment, _ shared: inout SharedState) {
        applyRequests(at: now, &shared)
        captureMarkouts(at: now, &shared)
        if change != nil { tryChange(at: now, &shared) }
        if case .interval(let nanoseconds) = shared.parameters.trigger { tickOnInterval(nanoseconds, upTo: now, &shared) }
        watchProof(at: now, &shared)
    }

    private mutating func cross(second: Int64, _ now: Moment, _ shared: inout SharedState) {
        let boundary = moment(of: WallTime(nanoseconds: second * 1_000_000_000), now)
        settle(at: boundary, &shared)
        bookQuoteTime(at: boundary, &shared)
        watchLoss(at: boundary, &shared)
        watchCoverage(at: boundary, &shared)
        let top = isProven ? book.top : nil
        if let top { convertSizes(midTwice: top.midTwice) }
        let worth = top.map { marks(midTwice: $0.midTwice) }
        let absorbed = (buy: bidSide.takeAbsorbed(), sell: askSide.takeAbsorbed())
        let squared = features.step(
            FeatureSet.Second(
                midTwice: top?.midTwice, topLots: top.map { $0.bidQuantity + $0.askQuantity },
                markTwice: worth?.mark, fullPositionTwice: worth?.fullPosition ?? 0,
                ahead: (bidSide.resting == nil ? nil : bidSide.queue.ahead, askSide.resting == nil ? nil : askSide.queue.ahead),
                absorbed: absorbed), second: second)
        accumulator.pointee.counts.rejectedInputs += features.takeRejected()
        if let squared {
            accumulator.pointee.counts.returns += 1
            // Sixty jumps by orders of magnitude would not fit; damaged data must not stop the edge.
            let (sum, overflowed) = accumulator.pointee.sums.squaredReturn.addingReportingOverflow(squared)
            accumulator.pointee.sums.squaredReturn = overflowed ? .max : sum
        }
        if !shared.isRecorded { tickP95Nanoseconds = features.latencyP95 ?? 0 }
        let milliseconds = second * 1000
        let silence = milliseconds - accumulator.pointee.fromMilliseconds.flooredDivision(by: 10_000) * 10_000
        if milliseconds.isMultiple(of: 10_000), accumulatorHasEvents || silence >= 60_000 { cutSnapshot(at: boundary, &shared) }
        if trailingCount > 0, milliseconds.isMultiple(of: 10_000) { cutTrailing(atMilliseconds: milliseconds, &shared) }
    }

    /// The instant of a wall time a little before now.
    private func moment(of wall: WallTime, _ now: Moment) -> Moment {
        Moment(instant: now.instant.advanced(nanoseconds: wall.nanoseconds - now.wall.nanoseconds), wall: wall)
    }

    /// An accumulator that waited without events is closed before the first one, so that events belong to their own ten seconds.
    mutating func noteEvent(at now: Moment, _ shared: inout SharedState) {
        guard !accumulatorHasEvents else { return }
        let grid = now.wall.milliseconds.flooredDivision(by: 10_000) * 10_000
        if grid > accumulator.pointee.fromMilliseconds {
            cutSnapshot(at: moment(of: WallTime(nanoseconds: grid * 1_000_000), now), &shared)
        }
        accumulatorHasEvents = true
    }

    /// Ends the row of the present arm fields and begins their next.
    mutating func cutSnapshot(at now: Moment, _ shared: inout SharedState) {
        let span = now.wall.milliseconds - accumulator.pointee.fromMilliseconds
        // When the ring is full the accumulator runs on; nothing is dropped (SPEC 2.3).
        guard span > 0, let slot = shared.outboxes.snapshots.reserve() else { return }
        if let profit = profit() {
            accumulator.pointee.sums.pnl = profit - bookedPnL
            bookedPnL = profit
        }
        accumulator.pointee.wall = now.wall
        accumulator.pointee.symbol = index
        accumulator.pointee.armFields = armFields
        accumulator.pointee.spanMilliseconds = span
        for feature in Feature.allCases {
            accumulator.pointee.features[feature.rawValue] = self.feature(feature)
        }
        slot.initialize(to: accumulator.pointee)
        shared.outboxes.snapshots.commit()
        accumulator.pointee = SnapshotRecord()
        accumulator.pointee.fromMilliseconds = now.wall.milliseconds
        accumulatorHasEvents = false
    }

    // MARK: Trailing rows

    /// Where something of these arm fields is booked: what came of a quote belongs to the fields it was made under (SPEC 2.3).
    private mutating func accumulator(of fields: ArmFields, at now: Moment, _ shared: inout SharedState)
        -> UnsafeMutablePointer<SnapshotRecord>
    {
        guard fields == armFields else { return trailing(fields, at: now.wall, &shared) }
        noteEvent(at: now, &shared)
        return accumulator
    }

    /// The accumulator of fields the symbol has left, begun now when there is none. It exists from its first event to the next cut, so an idle
    /// one costs nothing.
    private mutating func trailing(_ fields: ArmFields, at wall: WallTime, _ shared: inout SharedState)
        -> UnsafeMutablePointer<SnapshotRecord>
    {
        for slot in 0..<trailingCount where accumulator[1 + slot].armFields == fields { return accumulator + 1 + slot }
        if trailingCount == Limits.trailingAccumulatorsMax { _ = cutOldestTrailing(atMilliseconds: wall.milliseconds, &shared) }
        let isFull = trailingCount == Limits.trailingAccumulatorsMax
        // No accumulator and no slot in the ring: nobody has read for a whole window of changes. It is told as a dropped row.
        if isFull { shared.droppedSnapshots += 1 }
        let slot = accumulator + 1 + trailingCount
        slot.initialize(to: SnapshotRecord())
        slot.pointee.armFields = fields
        let window = wall.milliseconds.flooredDivision(by: 10_000) * 10_000
        slot.pointee.fromMilliseconds = max(window, armFieldsBeganMilliseconds)
        if !isFull { trailingCount += 1 }
        return slot
    }

    /// Ends every trailing row that has begun before.
    private mutating func cutTrailing(atMilliseconds milliseconds: Int64, _ shared: inout SharedState) {
        while trailingCount > 0, accumulator[1].fromMilliseconds < milliseconds {
            guard cutOldestTrailing(atMilliseconds: milliseconds, &shared) else { return }
        }
    }

    /// Its features are unknown: they cross arms, and the present arm's row of the same time has them. False when the ring is full: it runs on.
    private mutating func cutOldestTrailing(atMilliseconds milliseconds: Int64, _ shared: inout SharedState) -> Bool {
        guard trailingCount > 0, let slot = shared.outboxes.snapshots.reserve() else { return false }
        let oldest = accumulator + 1
        oldest.pointee.symbol = index
        oldest.pointee.spanMilliseconds = max(1, milliseconds - oldest.pointee.fromMilliseconds)
        oldest.pointee.wall = WallTime(nanoseconds: (oldest.pointee.fromMilliseconds + oldest.pointee.spanMilliseconds) * 1_000_000)
        slot.initialize(to: oldest.pointee)
        shared.outboxes.snapshots.commit()
        trailingCount -= 1
        oldest.update(from: oldest + 1, count: trailingCount)
        return true
    }

    /// In units of the feature's last place; nil when unknown.
    func feature(_ feature: Feature) -> Int64? {
        features.value(feature, lot: lot).flatMap { FixedPoint.fixed($0, scale: Double(FixedPoint.powersOfTen[feature.places])) }
    }

    /// A frame of this symbol that was not used.
    mutating func noteRejectedInput(at now: Moment, _ shared: inout SharedState) {
        advance(to: now, &shared)
        noteEvent(at: now, &shared)
        accumulator.pointee.counts.rejectedInputs += 1
    }

    // MARK: Orders

    mutating func applyRequests(at now: Moment, _ shared: inout SharedState) {
        let isDue = (bidSide.nextDue.map { $0 <= now.instant } ?? false) || (askSide.nextDue.map { $0 <= now.instant } ?? false)
        guard isDue else { return }
        let rules = shared.parameters.paperRules
        while let due = bidSide.nextDue, due <= now.instant, let applied = bidSide.applyNext(at: now.instant, book: book, rules: rules) {
            book(applied, .buy, at: now, &shared)
        }
        while let due = askSide.nextDue, due <= now.instant, let applied = askSide.applyNext(at: now.instant, book: book, rules: rules) {
            book(applied, .sell, at: now, &shared)
        }
        countOpenOrders(&shared)
        counts.postOnlyRejections = bidSide.postOnlyRejections + askSide.postOnlyRejections
    }

    private mutating func book(_ applied: PaperSide.Applied, _ side: Side, at now: Moment, _ shared: inout SharedState) {
        if let ended = applied.ended { end(ended, at: now, &shared) }
        if shared.story != nil { shared.story?.note(applied, resting: side == .buy ? bidSide.resting : askSide.resting, at: now) }
        switch applied.arrival {
        case .none, .refused, .exhausted: break
        case .rests: if let order = side == .buy ? bidSide.resting : askSide.resting { noteAccepted(order, at: now, &shared) }
        case .took(let fill, let rest):
            noteAccepted(fill.order, at: now, &shared)
            book(fill, at: now, &shared)
            if let rest { end(rest, at: now, &shared) }
        }
    }

    private mutating func noteAccepted(_ order: PaperOrder, at now: Moment, _ shared: inout SharedState) {
        counts.quotes += 1
        accumulator(of: order.armFields, at: now, &shared).pointee.counts.quotes += 1
        features.quoted()
    }

    /// A public trade meets one side's order.
    mutating func trade(_ side: Side, aggressor: Side, price: Int64, lots: Int64, at now: Moment, _ shared: inout SharedState)
        -> PaperSide.Fill?
    {
        // Most trades are on the other side of the market, or short of our price.
        guard side == .buy ? bidSide.isReached(by: aggressor, price) : askSide.isReached(by: aggressor, price) else { return nil }
        guard shared.story != nil else {
            return side == .buy
                ? bidSide.trade(aggressor: aggressor, price: price, lots: lots)
                : askSide.trade(aggressor: aggressor, price: price, lots: lots)
        }
        let before = side == .buy ? bidSide : askSide
        let fill =
            side == .buy
            ? bidSide.trade(aggressor: aggressor, price: price, lots: lots)
            : askSide.trade(aggressor: aggressor, price: price, lots: lots)
        let after = side == .buy ? bidSide.queue : askSide.queue
        shared.story?.noteTrade(before, after, aggressor: aggressor, price: price, lots: lots, filled: fill?.lots ?? 0, at: now)
        return fill
    }

    /// The changed book meets both sides' orders.
    mutating func meetBook(_ top: TopOfBook, at now: Moment, _ shared: inout SharedState) {
        guard shared.story == nil else { return meetBookTelling(at: now, &shared) }
        // Nearly always the market stands off our price, and only the queue there is news.
        if let price = bidSide.restingPrice {
            if price < top.askPrice {
                bidSide.display(book.quantity(.buy, at: price))
            } else if let bought = bidSide.bookChanged(book) {
                book(bought, at: now, &shared)
            }
        }
        if let price = askSide.restingPrice {
            if price > top.bidPrice {
                askSide.display(book.quantity(.sell, at: price))
            } else if let sold = askSide.bookChanged(book) {
                book(sold, at: now, &shared)
            }
        }
    }

    /// The same, for one order's story.
    private mutating func meetBookTelling(at now: Moment, _ shared: inout SharedState) {
        let before = (bidSide, askSide)
        let bought = bidSide.bookChanged(book)
        shared.story?.noteBook(before.0, bidSide.queue, at: now)
        if let bought { book(bought, at: now, &shared) }
        let sold = askSide.bookChanged(book)
        shared.story?.noteBook(before.1, askSide.queue, at: now)
        if let sold { book(sold, at: now, &shared) }
    }

    mutating func end(_ ended: PaperSide.Ended, at now: Moment, _ shared: inout SharedState) {
        guard let accepted = ended.order.acceptedAt else { return }
        if shared.story != nil { shared.story?.note(ended, at: now) }
        bookQuoteTime(of: ended.order, upTo: ended.endedAt, at: now, &shared)
        // A request takes effect when it is due; that is noticed with the next frame or turn.
        let endedAt = Moment(
            instant: ended.endedAt, wall: WallTime(nanoseconds: now.wall.nanoseconds + ended.endedAt.since(now.instant)))
        writeQuote(ended.order, ended.outcome, queueAhead: ended.queueAhead, resting: ended.endedAt.since(accepted), at: endedAt, &shared)
    }

    /// One row per order, when it ends: sampled ones, and every one that filled (SPEC 2.5).
    private mutating func writeQuote(
        _ order: PaperOrder, _ outcome: OrderOutcome, queueAhead: Int64, resting: Int64, at now: Moment, _ shared: inout SharedState
    ) {
        guard let weight = quoteSampling.count(hasFilled: order.hasFilled, sampleRate: shared.parameters.tickSampleRate) else { return }
        let distance = Int128(order.side.sign * (order.midAtQuoteTwice - 2 * order.price)) * 10_000_000_000
        shared.outboxes.quotes.push(
            QuoteRecord(
                wall: now.wall, symbol: index, side: order.side, orderID: order.id, price: order.price, quantity: order.lots,
                depth: BasisPoints(micro: FixedPoint.divide(distance, by: Int128(order.midAtQuoteTwice)) ?? 0),
                halfSpread: BasisPoints(micro: order.spread.micro / 2), skew: order.skew, nudge: order.nudge, queueAhead: queueAhead,
                restingNanoseconds: resting, outcome: outcome, volRealized: order.volRealized,
                weight: weight, armFields: order.armFields))
    }

    /// Adds the time both orders rested since it was last booked.
    mutating func bookQuoteTime(at now: Moment, _ shared: inout SharedState) {
        if let order = bidSide.resting { bookQuoteTime(of: order, upTo: now.instant, at: now, &shared) }
        if let order = askSide.resting { bookQuoteTime(of: order, upTo: now.instant, at: now, &shared) }
    }

    private mutating func bookQuoteTime(of order: PaperOrder, upTo end: Instant, at now: Moment, _ shared: inout SharedState) {
        guard let accepted = order.acceptedAt else { return }
        let booked = order.side == .buy ? quoteBookedAt.buy : quoteBookedAt.sell
        let from = max(accepted, booked ?? accepted)
        if end > from {
            // Time that ends with a window belongs to it. Resting alone is no event: it does not end a silence.
            let inside = WallTime(nanoseconds: now.wall.nanoseconds - 1)
            let target = order.armFields == armFields ? accumulator : trailing(order.armFields, at: inside, &shared)
            target.pointee.sums.quoteNanoseconds += end.since(from)
        }
        if order.side == .buy { quoteBookedAt.buy = max(end, from) } else { quoteBookedAt.sell = max(end, from) }
    }

    // MARK: Fills

    mutating func book(_ fill: PaperSide.Fill, at now: Moment, _ shared: inout SharedState) {
        guard let mid = book.top?.midTwice, let accepted = fill.order.acceptedAt else { return }
        let order = fill.order
        let booked = accumulator(of: order.armFields, at: now, &shared)
        let sign = order.side.sign
        let targets = order.armFields.arm == .a ? newestTarget.a : newestTarget.b
        let quotePrice = (order.side == .buy ? targets.buy : targets.sell) ?? order.price
        let slip = BasisPoints(
            micro: FixedPoint.divide(Int128(sign * (fill.price - quotePrice)) * 10_000_000_000, by: Int128(quotePrice)) ?? 0)
        let fee = fill.isTaker ? shared.parameters.takerFee : shared.parameters.makerFee
        let notional = instrument.notional(price: fill.price, lots: fill.lots)
        positionLots += sign * fill.lots
        cash += Int128(sign) * instrument.cash(buying: fill.lots, price: fill.price)
        feesPaid += FixedPoint.divide(Int128(notional) * Int128(fee.micro), by: 10_000_000_000) ?? 0

        let fillID = shared.nextFillID
        if shared.story != nil { shared.story?.note(fill, id: fillID, fee: fee, at: now) }
        counts.fills += 1
        lastFillAt = now.wall
        shared.metrics.pointee.filled(slip: slip, order.armFields.arm)
        booked.pointee.counts.fills += 1
        if fill.isFirst { booked.pointee.counts.filledOrders += 1 }
        if fill.isTaker {
            counts.takerFills += 1
            booked.pointee.counts.takerFills += 1
        }
        booked.pointee.sums.fillNotional += notional
        booked.pointee.sums.slip += slip.micro
        booked.pointee.sums.slipNotional += Int128(slip.micro) * Int128(notional)
        features.filled(slip: slip, isTaker: fill.isTaker, isFirstOfOrder: fill.isFirst)
        if shared.breakers.pointee.isWatching {
            shared.breakers.pointee.filled(order.armFields.arm, isTaker: fill.isTaker, at: now.wall)
        }

        let isWritten = shared.outboxes.fills.push(
            FillRecord(
                wall: now.wall, symbol: index, side: order.side, isTaker: fill.isTaker, price: fill.price, quantity: fill.lots,
                queueAhead: fill.queueAhead, quotePrice: quotePrice, midAtQuoteTwice: order.midAtQuoteTwice, midNowTwice: mid,
                spreadAtQuote: order.spread, latencyNanoseconds: now.instant.since(accepted), slip: slip, fillID: fillID, orderID: order.id,
                fee: fee, armFields: order.armFields))
        if isWritten {
            shared.nextFillID += 1
            if markouts.isFull, let oldest = markouts.removeFirst() { write(oldest, at: now, &shared) }
            markouts.add(
                MarkoutQueue.Pending(
                    record: MarkoutRecord(
                        wall: now.wall, symbol: index, fillID: fillID, fillMilliseconds: now.wall.milliseconds, armFields: order.armFields),
                    filledAt: now.instant, side: order.side, price: fill.price, midAtFillTwice: mid, notional: notional, fee: fee))
        } else {
            // Nothing is quoted once the ring is nearly full; this is a fill of what was on its way, after all its slots were taken.
            shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .lost, symbol: index, first: order.id))
        }
        if fill.isComplete {
            bookQuoteTime(of: order, upTo: now.instant, at: now, &shared)
            writeQuote(order, .filled, queueAhead: fill.queueAhead, resting: now.instant.since(accepted), at: now, &shared)
            countOpenOrders(&shared)
        }
        watchLoss(at: now, &shared)
    }

    // MARK: Markouts

    private mutating func captureMarkouts(at now: Moment, _ shared: inout SharedState) {
        guard markouts.isDue(at: now.instant) else { return }
        let mid = isProven ? book.top?.midTwice : nil
        while let due = markouts.next(at: now.instant, midTwice: mid, canComplete: shared.outboxes.markouts.room > 0) {
            switch due {
            case .after1s: break
            case .after5s(let position): bookMarkout(at: position, midTwice: mid, now, &shared)
            case .complete(let pending): write(pending, at: now, &shared)
            }
        }
    }

    /// The 5-s markout is what net and adverse are computed from (SPEC 1.3).
    private mutating func bookMarkout(at position: Int, midTwice: Int64?, _ now: Moment, _ shared: inout SharedState) {
        guard let midTwice else { return }
        let pending = markouts[position]
        let sign = Int128(pending.side.sign)
        let reference = Int128(pending.midAtFillTwice)
        guard
            let gross = FixedPoint.divide(sign * Int128(midTwice - 2 * pending.price) * 10_000_000_000, by: reference),
            let adverse = FixedPoint.divide(-sign * Int128(midTwice - pending.midAtFillTwice) * 10_000_000_000, by: reference)
        else { return }
        let net = gross - pending.fee.micro
        markouts[position].record.net = BasisPoints(micro: net)
        let booked = accumulator(of: pending.record.armFields, at: now, &shared)
        booked.pointee.sums.markoutNotional += pending.notional
        booked.pointee.sums.netNotional += Int128(net) * Int128(pending.notional)
        booked.pointee.sums.adverseNotional += Int128(adverse) * Int128(pending.notional)
        features.markedOut(adverse: BasisPoints(micro: adverse))
    }

    private func write(_ pending: MarkoutQueue.Pending, at now: Moment, _ shared: inout SharedState) {
        var record = pending.record
        record.wall = now.wall
        shared.outboxes.markouts.push(record)
    }

    /// The run ends: orders are cancelled, pending markouts are written with nulls, the last snapshots are cut. False when a ring was full.
    mutating func finish(at now: Moment, _ shared: inout SharedState) -> Bool {
        if let ended = bidSide.cancelAll(at: now.instant) { end(ended, at: now, &shared) }
        if let ended = askSide.cancelAll(at: now.instant) { end(ended, at: now, &shared) }
        countOpenOrders(&shared)
        while shared.outboxes.markouts.room > 0, let pending = markouts.removeFirst() { write(pending, at: now, &shared) }
        guard markouts.isEmpty else { return false }
        let end = Moment(
            instant: now.instant,
            wall: WallTime(nanoseconds: max(now.wall.nanoseconds, (accumulator.pointee.fromMilliseconds + 1) * 1_000_000)))
        if accumulatorHasEvents { cutSnapshot(at: end, &shared) }
        while cutOldestTrailing(atMilliseconds: now.wall.milliseconds, &shared) {}
        return !accumulatorHasEvents && trailingCount == 0
    }
}
