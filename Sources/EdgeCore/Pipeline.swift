import CalibModel

/// One tick: the six stages in their order, then the difference to what rests (SPEC 4).
extension SymbolState {
    /// - Parameter frameReadAt: when the triggering frame was complete, on `shared.clock`: tick_total runs from here.
    mutating func tick(at now: Moment, frameReadAt: Int64, _ shared: inout SharedState) {
        // Between two arms nothing is decided: the old one's orders are on their way out.
        if let change, change.stopsQuoting {
            waiting = nil
            return
        }
        var frameReadAt = frameReadAt
        // A book that is too old is refreshed first: the tick goes on when that is done.
        guard let fetched = fetch(at: now.instant, frameReadAt: &frameReadAt, &shared) else { return }
        counts.ticks += 1
        lastTickAt = now.wall
        noteEvent(at: now, &shared)
        accumulator.pointee.counts.ticks += 1
        let isSampled = tickSampling.isDue(.ordinary, at: now.instant, &shared.tickBudget)
        let isExplained = shared.explainTick == counts.ticks && shared.explainSymbol == index
        if isExplained {
            shared.explanation = TickExplanation(tick: counts.ticks, wall: now.wall, symbol: index)
            shared.explanation?.fetched = fetched
        }
        var watch = StageWatch(isOn: isSampled || haltedUntil != nil, startedAt: frameReadAt)

        let outcome = decide(fetched, at: now, frameReadAt: frameReadAt, &watch, isExplained: isExplained, &shared)
        let total = shared.clock.now() - frameReadAt
        accumulate(total, fetched, &shared)
        let isHalted = outcome == .halted || outcome == .stopped
        // Whatever ended the tick, it was late when it took too long: a halt does not hide a miss.
        let isLate = !shared.isRecorded && total > parameters.pointee.tickDeadlineNanoseconds
        let missedDeadline = outcome == .missed || isLate
        if isHalted { accumulator.pointee.counts.halts += 1 }
        if missedDeadline {
            accumulator.pointee.counts.deadlineMisses += 1
            shared.metrics.pointee.missedDeadline(armFields.arm)
        }
        if shared.breakers.pointee.isWatching {
            shared.breakers.pointee.ticked(
                armFields.arm, isEnrolled: armFields.why != .none, isMissed: missedDeadline, isRefused: fetched.outcome == .refused,
                at: now.wall)
        }
        let kind = outcome == .ordinary && isLate ? .missed : outcome
        guard let weight = tickSampling.count(kind, at: now.instant, &shared.tickBudget) else { return }
        var record = TickRecord()
        record.wall = now.wall
        record.symbol = index
        record.tick = counts.ticks
        record.armFields = armFields
        record.isCacheHit = fetched.isHit
        record.cacheAgeNanoseconds = fetched.ageNanoseconds
        record.usedStale = fetched.usedStale
        record.totalNanoseconds = total
        record.stageNanoseconds = watch.stages
        record.isHalted = isHalted
        record.missedDeadline = missedDeadline
        record.weight = weight
        shared.metrics.pointee.logged(record)
        shared.outboxes.ticks.push(record)
    }

    private mutating func decide(
        _ fetched: FetchMDStage.Output, at now: Moment, frameReadAt: Int64, _ watch: inout StageWatch, isExplained: Bool,
        _ shared: inout SharedState
    ) -> TickSampling.Kind {
        let parameters = parameters

        // FetchMDStage, its wait included.
        watch.lap(.fetchMD, &shared.clock)
        var marketSpread = BasisPoints.zero
        if let top = fetched.top ?? book.top {
            accumulator.pointee.sums.midTwice += Int128(top.midTwice)
            marketSpread = self.marketSpread(top)
            accumulator.pointee.sums.marketSpread += marketSpread.micro
        }
        accumulator.pointee.sums.position += Int128(positionLots)
        if isStopped(shared) {
            pull(at: now, &shared)
            return .stopped
        }
        // Nor does a crossed book tell a price.
        guard let top = fetched.top else {
            if book.top?.isCrossed != false { pull(at: now, &shared) }
            return .ordinary
        }

        // SpreadStage. In replay the durations that scores and guards see are 0 (SPEC 3.7).
        let volatility = features.volatilityPerRootMinute
        let tickP95 = shared.isRecorded ? 0 : Double(tickP95Nanoseconds) / 1e6
        let (bids, asks) = (book.best(.buy), book.best(.sell))
        let spreadInput = SpreadStage.Input(
            volatilityPerRootMinute: volatility, depthMultiple: Double(bids.total + asks.total) / 2 / Double(orderLots),
            tickP95Milliseconds: tickP95, pnlZ: features.pnlZ, usedStale: fetched.usedStale)
        let spread = SpreadStage.run(spreadInput, parameters.pointee.spread, staleWiden: parameters.pointee.cache.staleWiden)
        watch.lap(.spread, &shared.clock)

        // GuardsStage
        let percent = InventoryStage.percent(positionLots: positionLots, maxPositionLots: maxPositionLots)
        let guardsInput = GuardsStage.Input(
            volatilityPerRootMinute: volatility, tickP95Milliseconds: tickP95, pnlZ: features.pnlZ, inventoryPercent: percent,
            takerFills: features.takerFills15Minutes, spread: spread.spread, previousSpread: previousSpread, tightenedAt: tightenedAt,
            haltedUntil: haltedUntil, now: now.instant)
        let guarded = GuardsStage.run(guardsInput, parameters.pointee.guards, parameters.pointee.spread)
        previousSpread = guarded.spread
        tightenedAt = guarded.tightenedAt
        // Each halt is an event, one that follows another too: it may have another cause.
        if guarded.isHalted, haltedUntil != guarded.haltedUntil, let cause = guarded.haltCause {
            shared.outboxes.events.push(
                EventRecord(
                    wall: now.wall, kind: .halt, symbol: index, first: Int64(cause.rawValue),
                    second: parameters.pointee.guards.haltNanoseconds / 1_000_000))
        }
        haltedUntil = guarded.haltedUntil
        watch.lap(.guards, &shared.clock)
        if isExplained {
            shared.explanation?.spread = (spreadInput, spread)
            shared.explanation?.guards = (guardsInput, guarded)
        }
        if guarded.isHalted {
            pull(at: now, &shared)
            return .halted
        }

        // InventoryStage
        let inventory = InventoryStage.run(percent: percent)
        watch.lap(.inventory, &shared.clock)

        // QueueAwareStage, per side. `offset` is the distance of the un-nudged target from the mid.
        let halfSpread = BasisPoints(micro: guarded.spread.micro / 2)
        let halfMarket = BasisPoints(micro: marketSpread.micro / 2)
        let buyInput = queueInput(
            .buy, bids, midTwice: top.midTwice, offsetTwice: -(guarded.spread.micro + 2 * inventory.skew.micro),
            distance: halfSpread + inventory.skew - halfMarket, nudge: nudge.buy, nudgedAt: nudgedAt.buy, now: now.instant)
        let sellInput = queueInput(
            .sell, asks, midTwice: top.midTwice, offsetTwice: guarded.spread.micro - 2 * inventory.skew.micro,
            distance: halfSpread - inventory.skew - halfMarket, nudge: nudge.sell, nudgedAt: nudgedAt.sell, now: now.instant)
        let buy = QueueAwareStage.run(
            buyInput, maximum: parameters.pointee.nudgeMaximum, interval: parameters.pointee.nudgeNanoseconds)
        let sell = QueueAwareStage.run(
            sellInput, maximum: parameters.pointee.nudgeMaximum, interval: parameters.pointee.nudgeNanoseconds)
        nudge = (buy.nudge, sell.nudge)
        nudgedAt = (buy.nudgedAt, sell.nudgedAt)
        watch.lap(.queueAware, &shared.clock)

        // EmitStage
        let emitInput = EmitStage.Input(
            top: top, spread: guarded.spread, skew: inventory.skew, bidNudge: buy.nudge, askNudge: sell.nudge,
            lots: orderLots * guarded.sizeNumerator / 2, positionLots: positionLots, pullsBuy: guarded.pullsBuy,
            pullsSell: guarded.pullsSell, orderRoom: orderRoom(shared), isBuyOpen: bidSide.isOpen, isSellOpen: askSide.isOpen)
        let emitted = EmitStage.run(emitInput, hardLimits)
        noteTargets(emitted)
        let isLate =
            !shared.isRecorded
            && shared.clock.now(of: armFields.arm, since: frameReadAt) - frameReadAt > parameters.pointee.tickDeadlineNanoseconds
        let quote = QuoteContext(top: top, spread: guarded.spread, skew: inventory.skew, volatility: features.volRealized)
        let resting = (bidSide.intended, askSide.intended)
        let buyDecision = act(.buy, emitted.bid, nudge: buy.nudge, quote, isLate: isLate, at: now, &shared)
        let sellDecision = act(.sell, emitted.ask, nudge: sell.nudge, quote, isLate: isLate, at: now, &shared)
        watch.lap(.emit, &shared.clock)
        if isExplained {
            shared.explanation?.inventory = inventory
            shared.explanation?.queue = (buyInput, buy, sellInput, sell)
            shared.explanation?.emit = (emitInput, emitted)
            shared.explanation?.decisions = (buyDecision, sellDecision)
            shared.explanation?.resting = resting
        }
        return isLate ? .missed : .ordinary
    }

    /// Of a top, in bps of its mid. Nine of ten tops have the prices of the one before.
    private mutating func marketSpread(_ top: TopOfBook) -> BasisPoints {
        if top.bidPrice == spreadKnown.bid, top.askPrice == spreadKnown.ask { return spreadKnown.spread }
        let spread = FixedPoint.divide(Int128(top.askPrice - top.bidPrice) * 20_000_000_000, by: Int128(top.midTwice))
        spreadKnown = (top.bidPrice, top.askPrice, spread.map(BasisPoints.init(micro:)) ?? .zero)
        return spreadKnown.spread
    }

    private mutating func queueInput(
        _ side: Side, _ best: BestLevels, midTwice: Int64, offsetTwice: Int64, distance: BasisPoints, nudge: BasisPoints,
        nudgedAt: Instant?, now: Instant
    ) -> QueueAwareStage.Input {
        // The place of the un-nudged target: were it the nudged order's own, a nudge that worked would take itself back.
        let price = EmitStage.price(midTwice: midTwice, offsetTwice: offsetTwice, roundingUp: side == .sell)
        let own: Int64
        if side == .buy ? bidSide.restingPrice == price : askSide.restingPrice == price {
            own = side == .buy ? bidSide.queue.ahead : askSide.queue.ahead
        } else {
            own = best.quantity(at: price) ?? book.quantity(side, at: price)
        }
        return QueueAwareStage.Input(
            ahead: best.topThree(betterThan: price) + own, topThree: best.topThree, distanceToBest: distance, previousNudge: nudge,
            nudgedAt: nudgedAt, now: now)
    }

    // MARK: Orders

    private struct QuoteContext {
        var top: TopOfBook
        var midTwice: Int64 { top.midTwice }
        var spread: BasisPoints
        var skew: BasisPoints
        var volatility: Double?
    }

    private mutating func act(
        _ side: Side, _ target: EmitStage.Target?, nudge: BasisPoints, _ context: QuoteContext, isLate: Bool, at now: Moment,
        _ shared: inout SharedState
    ) -> OrderDecision {
        let intended = side == .buy ? bidSide.intended : askSide.intended
        let parameters = parameters
        let minimumTicks = Self.ticks(of: parameters.pointee.minimumPriceChange, midTwice: context.midTwice)
        let worth = parameters.pointee.queueValue
        var decision = OrderDecision.decide(
            side: side, target: target, resting: intended, minimumTicks: minimumTicks,
            keepTicks: side == .buy
                ? Self.keepTicks(worth, ahead: bidSide.queue.ahead, atEntry: bidSide.queueAtEntry, midTwice: context.midTwice)
                : Self.keepTicks(worth, ahead: askSide.queue.ahead, atEntry: askSide.queueAtEntry, midTwice: context.midTwice),
            opposite: side == .buy ? context.top.askPrice : context.top.bidPrice)
        if decision == .place || decision == .replace {
            let canSend = side == .buy ? bidSide.canSend : askSide.canSend
            // An order of ours on the other side that may still be there when this one arrives: we never trade with ourselves.
            var crossesOwn = false
            if let target, let other = side == .buy ? askSide.reach : bidSide.reach {
                crossesOwn = (target.price - other) * side.sign >= 0
                if crossesOwn { counts.selfCrossesHeld += 1 }
            }
            let mayPlace = !isLate && canSend && !crossesOwn && shared.orderRate.take(at: now.instant)
            if !mayPlace {
                // What stands closer to the market than we want now is taken away all the same; cancels are not rate-limited.
                decision = .keep
                if let target, let intended, (target.price - intended.price) * side.sign < 0 || target.lots < intended.lots {
                    decision = .cancel
                }
            }
        }
        switch decision {
        case .none, .keep: break
        case .cancel:
            if let intended { cancel(side, intended, at: now, &shared) }
        case .place, .replace:
            guard let target else { break }
            shared.orderNumber += 1
            let order = PaperOrder(
                id: shared.runNumber << 32 | shared.orderNumber, side: side, price: target.price, lots: target.lots, remaining: target.lots,
                midAtQuoteTwice: context.midTwice, spread: context.spread, skew: context.skew, nudge: nudge,
                volRealized: context.volatility.flatMap { BasisPoints($0) }, armFields: armFields)
            let replaced = shared.story == nil ? nil : side == .buy ? bidSide.newest?.id : askSide.newest?.id
            let dueAt = send(decision == .place ? .place(order) : .replace(order), side, at: now, &shared)
            if shared.story != nil { shared.story?.noteSent(order, symbol: index, replacing: replaced, dueAt: dueAt, at: now) }
            countOpenOrders(&shared)
            shared.hash(now.wall, symbolHash, side, price: target.price, lots: target.lots, decision)
        }
        return decision
    }

    /// Cancels both sides: no proven book, a halt, the watchdog, another arm, the kill switch (SPEC 3.5, 4.3, 7.6, 10.1). Idempotent: returns
    /// how many orders it was news for.
    @discardableResult mutating func pull(at now: Moment, _ shared: inout SharedState) -> Int {
        var count = 0
        if let intended = bidSide.intended {
            cancel(.buy, intended, at: now, &shared)
            count += 1
        }
        if let intended = askSide.intended {
            cancel(.sell, intended, at: now, &shared)
            count += 1
        }
        return count
    }

    private mutating func noteTargets(_ emitted: EmitStage.Output) {
        switch armFields.arm {
        case .a:
            if let target = emitted.bid { newestTarget.a.buy = target.price }
            if let target = emitted.ask { newestTarget.a.sell = target.price }
        case .b:
            if let target = emitted.bid { newestTarget.b.buy = target.price }
            if let target = emitted.ask { newestTarget.b.sell = target.price }
        }
    }

    private mutating func cancel(_ side: Side, _ intended: EmitStage.Target, at now: Moment, _ shared: inout SharedState) {
        let cancelled = shared.story == nil ? nil : side == .buy ? bidSide.newest?.id : askSide.newest?.id
        let dueAt = send(.cancel, side, at: now, &shared)
        if let cancelled { shared.story?.noteCancelSent(cancelled, dueAt: dueAt, at: now) }
        countOpenOrders(&shared)
        shared.hash(now.wall, symbolHash, side, price: intended.price, lots: intended.lots, .cancel)
    }

    /// Returns when it takes effect.
    private mutating func send(_ request: PaperSide.Request, _ side: Side, at now: Moment, _ shared: inout SharedState) -> Instant {
        let latency = orderLatency.next(
            constant: shared.parameters.paperLatencyNanoseconds, jitter: shared.parameters.paperJitterNanoseconds, key: symbolHash)
        let due = now.instant.advanced(nanoseconds: latency)
        return side == .buy ? bidSide.send(request, dueAt: due) : askSide.send(request, dueAt: due)
    }

    /// What the place of our resting order is worth, in ticks: all of `queueValue` at the head of its level, nothing at the back. `atEntry` is 0
    /// when none rests.
    private static func keepTicks(_ value: BasisPoints, ahead: Int64, atEntry: Int64, midTwice: Int64) -> Int64 {
        guard atEntry > 0 else { return 0 }
        let advanced = 1 - Double(min(ahead, atEntry)) / Double(atEntry)
        return Int64(Double(Self.ticks(of: value, midTwice: midTwice)) * advanced)
    }

    private static func ticks(of distance: BasisPoints, midTwice: Int64) -> Int64 {
        let (product, overflowed) = distance.micro.multipliedReportingOverflow(by: midTwice)
        return overflowed ? Int64(clamping: Int128(distance.micro) * Int128(midTwice) / 20_000_000_000) : product / 20_000_000_000
    }

    private mutating func accumulate(_ total: Int64, _ fetched: FetchMDStage.Output, _ shared: inout SharedState) {
        let bucket = LatencyBuckets.index(of: total)
        features.ticked(bucket: bucket)
        if accumulator.pointee.tickHistogram[bucket] != .max { accumulator.pointee.tickHistogram[bucket] &+= 1 }
        shared.metrics.pointee.ticked(nanoseconds: total, bucket: bucket, fetched.outcome, armFields.arm)
        switch fetched.outcome {
        case .hit: accumulator.pointee.counts.cacheHits += 1
        case .stale: accumulator.pointee.counts.cacheStale += 1
        case .miss, .refused: accumulator.pointee.counts.cacheMisses += 1
        }
    }

    /// `trigger: interval`: one tick at each multiple of the interval while the book is proven.
    mutating func tickOnInterval(_ nanoseconds: Int64, upTo now: Moment, _ shared: inout SharedState) {
        guard isProven else {
            nextIntervalTick = nil
            return
        }
        var next = nextIntervalTick ?? now.instant
        while next <= now.instant {
            let wall = WallTime(nanoseconds: now.wall.nanoseconds - now.instant.since(next))
            tick(at: Moment(instant: next, wall: wall), frameReadAt: shared.clock.now(), &shared)
            next = next.advanced(nanoseconds: nanoseconds)
        }
        nextIntervalTick = next
    }

    /// Ticks that were missed until now are not made up for.
    mutating func skipIntervalTicks(upTo now: Instant) {
        if let next = nextIntervalTick, next > now { return }
        nextIntervalTick = now.advanced(nanoseconds: 1)
    }
}

/// Durations of the stages of one tick; off on ticks that are not logged.
struct StageWatch {
    private let isOn: Bool
    private var last: Int64
    private(set) var stages: InlineArray<6, Int64?> = .init(repeating: nil)

    init(isOn: Bool, startedAt: Int64) {
        self.isOn = isOn
        last = startedAt
    }

    mutating func lap(_ stage: Stage, _ clock: inout StopClock) {
        guard isOn else { return }
        let now = clock.now()
        stages[stage.rawValue] = now - last
        last = now
    }
}

/// A token bucket on order messages of one venue (SPEC 4.6), in whole nanoseconds so that it is exact.
package struct OrderRate: Sendable {
    private let nanosecondsPerOrder: Int64
    private let capacity: Int64
    private var credit: Int64
    private var updatedAt: Instant?

    /// `perSecond` > 0 in the long run, `burst` at once.
    package init(perSecond: Int64, burst: Int64) { self.init(perSecond: perSecond, burst: burst, credit: burst, updatedAt: nil) }

    private init(perSecond: Int64, burst: Int64, credit orders: Int64, updatedAt: Instant?) {
        nanosecondsPerOrder = 1_000_000_000 / perSecond
        capacity = burst * nanosecondsPerOrder
        credit = min(orders, burst) * nanosecondsPerOrder
        self.updatedAt = updatedAt
    }

    /// Another rate from here on: what may be sent at once neither grows nor exceeds the new burst.
    package mutating func adopt(perSecond: Int64, burst: Int64) {
        let orders = credit / nanosecondsPerOrder
        self = OrderRate(perSecond: perSecond, burst: burst, credit: orders, updatedAt: updatedAt)
    }

    package mutating func take(at now: Instant) -> Bool {
        if let updatedAt { credit = min(capacity, credit + max(0, now.since(updatedAt))) }
        updatedAt = now
        guard credit >= nanosecondsPerOrder else { return false }
        credit -= nanosecondsPerOrder
        return true
    }
}

/// Every stage's inputs and outputs of one tick, for `--explain-tick`. Nil after the stage that ended the tick.
package struct TickExplanation {
    package var tick: Int64
    package var wall: WallTime
    package var symbol: SymbolIndex
    package var fetched: FetchMDStage.Output?
    package var spread: (input: SpreadStage.Input, output: SpreadStage.Output)?
    package var guards: (input: GuardsStage.Input, output: GuardsStage.Output)?
    package var inventory: InventoryStage.Output?
    package var queue:
        (buyInput: QueueAwareStage.Input, buy: QueueAwareStage.Output, sellInput: QueueAwareStage.Input, sell: QueueAwareStage.Output)?
    package var emit: (input: EmitStage.Input, output: EmitStage.Output)?
    /// What rested, or was on its way, before the decisions.
    package var resting: (buy: EmitStage.Target?, sell: EmitStage.Target?)
    package var decisions: (buy: OrderDecision, sell: OrderDecision)?
}
