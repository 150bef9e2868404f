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
                features.restart()
                nextIntervalTick = nil
                if accumulatorHasEvents {
                    cutSnapshot(at: moment(of: WallTime(nanoseconds: stepped * 1_000_000_000 + 1_000_000), now), &shared)
                }
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
        if case .interval(let nanoseconds) = shared.parameters.trigger { tickOnInterval(nanoseconds, upTo: now, &shared) }
        if isProven, cache.watchdogFires(at: now.instant, answers: shared.connectionAnswers, shared.parameters.cache) {
            pull(at: now, &shared)
        }
    }

    private mutating func cross(second: Int64, _ now: Moment, _ shared: inout SharedState) {
        let boundary = moment(of: WallTime(nanoseconds: second * 1_000_000_000), now)
        settle(at: boundary, &shared)
        bookQuoteTime(at: boundary.instant)
        let top = isProven ? book.top : nil
        let absorbed = (buy: bidSide.takeAbsorbed(), sell: askSide.takeAbsorbed())
        let squared = features.step(
            FeatureSet.Second(
                midTwice: top?.midTwice, topLots: top.map { $0.bidQuantity + $0.askQuantity },
                markTwice: top.map { Double(positionLots) * Double($0.midTwice) + 2 * Double(cash) },
                fullPositionTwice: top.map { Double(maxPositionLots) * Double($0.midTwice) } ?? 0,
                ahead: (bidSide.resting == nil ? nil : bidSide.queue.ahead, askSide.resting == nil ? nil : askSide.queue.ahead),
                absorbed: absorbed), second: second)
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
        accumulator.pointee.spanMilliseconds = span
        for feature in Feature.allCases {
            accumulator.pointee.features[feature.rawValue] = features.value(feature, lot: lot).flatMap {
                FixedPoint.fixed($0, scale: Double(FixedPoint.powersOfTen[feature.places]))
            }
        }
        slot.initialize(to: accumulator.pointee)
        shared.outboxes.snapshots.commit()
        accumulator.pointee = SnapshotRecord()
        accumulator.pointee.fromMilliseconds = now.wall.milliseconds
        accumulatorHasEvents = false
    }

    /// A frame of this symbol that was not used.
    mutating func noteRejectedInput(at now: Moment, _ shared: inout SharedState) {
        advance(to: now, &shared)
        noteEvent(at: now, &shared)
        accumulator.pointee.counts.rejectedInputs += 1
    }

    // MARK: Orders

    mutating func applyRequests(at now: Moment, _ shared: inout SharedState) {
        while let applied = bidSide.applyNext(at: now.instant, book: book) { book(applied, .buy, at: now, &shared) }
        while let applied = askSide.applyNext(at: now.instant, book: book) { book(applied, .sell, at: now, &shared) }
        counts.postOnlyRejections = bidSide.postOnlyRejections + askSide.postOnlyRejections
    }

    private mutating func book(_ applied: PaperSide.Applied, _ side: Side, at now: Moment, _ shared: inout SharedState) {
        if let ended = applied.ended { end(ended, at: now, &shared) }
        guard applied.hasAccepted else { return }
        noteEvent(at: now, &shared)
        counts.quotes += 1
        accumulator.pointee.counts.quotes += 1
        features.quoted()
    }

    mutating func end(_ ended: PaperSide.Ended, at now: Moment, _ shared: inout SharedState) {
        guard let accepted = ended.order.acceptedAt else { return }
        bookQuoteTime(of: ended.order, upTo: ended.endedAt)
        writeQuote(ended.order, ended.outcome, queueAhead: ended.queueAhead, resting: ended.endedAt.since(accepted), at: now, &shared)
    }

    /// One row per order, when it ends: sampled ones, and every one that filled (SPEC 2.5).
    private func writeQuote(
        _ order: PaperOrder, _ outcome: OrderOutcome, queueAhead: Int64, resting: Int64, at now: Moment, _ shared: inout SharedState
    ) {
        guard order.isSampled || order.hasFilled else { return }
        let distance = Int128(order.side.sign * (order.midAtQuoteTwice - 2 * order.price)) * 10_000_000_000
        shared.outboxes.quotes.push(
            QuoteRecord(
                wall: now.wall, symbol: index, side: order.side, orderID: order.id, price: order.price, quantity: order.lots,
                depth: BasisPoints(micro: FixedPoint.divide(distance, by: Int128(order.midAtQuoteTwice)) ?? 0),
                halfSpread: BasisPoints(micro: order.spread.micro / 2), skew: order.skew, nudge: order.nudge, queueAhead: queueAhead,
                restingNanoseconds: resting, outcome: outcome, volRealized: order.volRealized,
                weight: order.hasFilled ? 1 : order.weight))
    }

    /// Adds the time both orders rested since it was last booked.
    private mutating func bookQuoteTime(at now: Instant) {
        if let order = bidSide.resting { bookQuoteTime(of: order, upTo: now) }
        if let order = askSide.resting { bookQuoteTime(of: order, upTo: now) }
    }

    private mutating func bookQuoteTime(of order: PaperOrder, upTo now: Instant) {
        guard let accepted = order.acceptedAt else { return }
        let booked = order.side == .buy ? quoteBookedAt.buy : quoteBookedAt.sell
        let from = max(accepted, booked ?? accepted)
        if now > from { accumulator.pointee.sums.quoteNanoseconds += now.since(from) }
        if order.side == .buy { quoteBookedAt.buy = max(now, from) } else { quoteBookedAt.sell = max(now, from) }
    }

    // MARK: Fills

    mutating func book(_ fill: PaperSide.Fill, at now: Moment, _ shared: inout SharedState) {
        guard let mid = book.top?.midTwice, let accepted = fill.order.acceptedAt else { return }
        noteEvent(at: now, &shared)
        let order = fill.order
        let sign = order.side.sign
        let quotePrice = (order.side == .buy ? newestTarget.buy : newestTarget.sell) ?? order.price
        let slip = BasisPoints(
            micro: FixedPoint.divide(Int128(sign * (order.price - quotePrice)) * 10_000_000_000, by: Int128(quotePrice)) ?? 0)
        let fee = shared.parameters.makerFee
        let value = Int128(order.price) * Int128(fill.lots)
        let notional = notional(ticksTimesLots: value)
        positionLots += sign * fill.lots
        cash -= Int128(sign) * value
        feesPaid += FixedPoint.divide(Int128(notional) * Int128(fee.micro), by: 10_000_000_000) ?? 0

        let fillID = shared.nextFillID
        shared.nextFillID += 1
        counts.fills += 1
        accumulator.pointee.counts.fills += 1
        if fill.isFirst { accumulator.pointee.counts.filledOrders += 1 }
        accumulator.pointee.sums.fillNotional += notional
        accumulator.pointee.sums.slip += slip.micro
        accumulator.pointee.sums.slipNotional += Int128(slip.micro) * Int128(notional)
        features.filled(slip: slip, isTaker: false, isFirstOfOrder: fill.isFirst)

        shared.outboxes.fills.push(
            FillRecord(
                wall: now.wall, symbol: index, side: order.side, isTaker: false, price: order.price, quantity: fill.lots,
                queueAhead: fill.queueAhead, quotePrice: quotePrice, midAtQuoteTwice: order.midAtQuoteTwice, midNowTwice: mid,
                spreadAtQuote: order.spread, latencyNanoseconds: now.instant.since(accepted), slip: slip, fillID: fillID, orderID: order.id,
                fee: fee))
        if markouts.isFull, let oldest = markouts.removeFirst() { write(oldest, at: now, &shared) }
        markouts.add(
            MarkoutQueue.Pending(
                record: MarkoutRecord(wall: now.wall, symbol: index, fillID: fillID, fillMilliseconds: now.wall.milliseconds),
                filledAt: now.instant, side: order.side, price: order.price, midAtFillTwice: mid, notional: notional, fee: fee))
        if fill.isComplete {
            bookQuoteTime(of: order, upTo: now.instant)
            writeQuote(order, .filled, queueAhead: fill.queueAhead, resting: now.instant.since(accepted), at: now, &shared)
        }
    }

    // MARK: Markouts

    private mutating func captureMarkouts(at now: Moment, _ shared: inout SharedState) {
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
        noteEvent(at: now, &shared)
        let pending = markouts[position]
        let sign = Int128(pending.side.sign)
        let reference = Int128(pending.midAtFillTwice)
        guard
            let gross = FixedPoint.divide(sign * Int128(midTwice - 2 * pending.price) * 10_000_000_000, by: reference),
            let adverse = FixedPoint.divide(-sign * Int128(midTwice - pending.midAtFillTwice) * 10_000_000_000, by: reference)
        else { return }
        let net = gross - pending.fee.micro
        markouts[position].record.net = BasisPoints(micro: net)
        accumulator.pointee.sums.markoutNotional += pending.notional
        accumulator.pointee.sums.netNotional += Int128(net) * Int128(pending.notional)
        accumulator.pointee.sums.adverseNotional += Int128(adverse) * Int128(pending.notional)
        features.markedOut(adverse: BasisPoints(micro: adverse))
    }

    private func write(_ pending: MarkoutQueue.Pending, at now: Moment, _ shared: inout SharedState) {
        var record = pending.record
        record.wall = now.wall
        shared.outboxes.markouts.push(record)
    }

    /// The run ends: orders are cancelled, pending markouts are written with nulls, the last snapshot is cut.
    mutating func finish(at now: Moment, _ shared: inout SharedState) {
        if let ended = bidSide.cancelAll(at: now.instant) { end(ended, at: now, &shared) }
        if let ended = askSide.cancelAll(at: now.instant) { end(ended, at: now, &shared) }
        while shared.outboxes.markouts.room > 0, let pending = markouts.removeFirst() { write(pending, at: now, &shared) }
        guard markouts.isEmpty else { return }
        let end = Moment(
            instant: now.instant,
            wall: WallTime(nanoseconds: max(now.wall.nanoseconds, (accumulator.pointee.fromMilliseconds + 1) * 1_000_000)))
        if accumulatorHasEvents { cutSnapshot(at: end, &shared) }
    }
}
