import CalibModel
import Wire

/// The kill switch and the limits that watch more than one order (SPEC 10.1, 10.2). No arm, command or reload widens them.

/// What one symbol won or lost since UTC midnight, or since the start: change of mark-to-market, fees included.
struct DailyLoss: Sendable {
    /// UTC days since the epoch; never goes back.
    var day = Int64.min
    /// 1e-8 quote currency. `start`: as the day began; `last`: as last marked, which is where the next day begins.
    var start: Int64 = 0
    var last: Int64 = 0
    var change: Int128 = 0
    /// Nothing is placed for the rest of the day.
    var isHalted = false
}

/// The same of all symbols of the host.
struct HostLoss: Sendable {
    var day = Int64.min
    var change: Int128 = 0
    var isHalted = false
    /// The limit was reached in this call: everything must be pulled.
    var isNews = false
}

extension SymbolState {
    /// The kill switch, or a daily loss, of the symbol or of the host; an instrument that is not what it was; feeds that cannot be written; a
    /// ring of fills that is nearly full, for no fill may be lost (SPEC 2.7).
    func isStopped(_ shared: borrowing SharedState) -> Bool {
        isKilled || shared.isKilled || loss.isHalted || shared.loss.isHalted || hasOldInstrument || shared.isDiskHalted
            || shared.outboxes.fills.room < SharedState.recordsPerFrame
    }

    /// Numbers in ticks and lots mean something else now: the book is unproven, nothing rests, and nothing is placed until a restart.
    mutating func instrumentChanged(at now: Moment, _ shared: inout SharedState) {
        guard !hasOldInstrument else { return }
        advance(to: now, &shared)
        hasOldInstrument = true
        sync = .unsynced
        buffered = []
        cache.lose(.instrument, at: now.instant)
        pull(at: now, &shared)
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .halt, symbol: index, first: Int64(HaltCause.instrument.rawValue)))
    }

    // MARK: Open orders

    /// Called after whatever opens or closes an order.
    mutating func countOpenOrders(_ shared: inout SharedState) {
        let open: Int64 = (bidSide.isOpen ? 1 : 0) + (askSide.isOpen ? 1 : 0)
        shared.openOrders += open - openOrders
        openOrders = open
    }

    /// How many orders more may be opened; negative when limits got narrower, until what is above them is cancelled.
    func orderRoom(_ shared: borrowing SharedState) -> Int64 {
        min(shared.parameters.limits.openOrdersSymbol - openOrders, shared.parameters.limits.openOrdersHost - shared.openOrders)
    }

    // MARK: Daily loss

    /// Marks the day's result: once a second and at every fill. A loss that reaches its limit pulls the quotes and halts until midnight.
    mutating func watchLoss(at now: Moment, _ shared: inout SharedState) {
        let day = now.wall.nanoseconds.flooredDivision(by: 86_400_000_000_000)
        // Only a proven book tells what the position is worth; until there is one, what was known last stands.
        let profit = isProven && book.top?.isCrossed == false ? profit() ?? loss.last : loss.last
        if day > loss.day { loss = DailyLoss(day: day, start: loss.last, last: loss.last) }
        if day > shared.loss.day { shared.loss = HostLoss(day: day) }
        let change = Int128(profit) - Int128(loss.start)
        // At midnight symbols arrive one after the other: one that is still in the old day has no part in the host's new one.
        if loss.day == shared.loss.day { shared.loss.change += change - loss.change }
        if shared.breakers.pointee.isWatching {
            shared.breakers.pointee.earned(armFields.arm, isEnrolled: armFields.why != .none, profit &- loss.last, at: now.wall)
        }
        loss.last = profit
        loss.change = change

        let limits = shared.parameters.limits
        if change <= -Int128(limits.dailyLossSymbol), !loss.isHalted {
            loss.isHalted = true
            pull(at: now, &shared)
            noteLoss(.dailyLossSymbol, symbol: index, at: now, &shared)
        }
        if shared.loss.change <= -Int128(limits.dailyLossHost), !shared.loss.isHalted {
            shared.loss.isHalted = true
            shared.loss.isNews = true
            noteLoss(.dailyLossHost, symbol: nil, at: now, &shared)
        }
    }

    private func noteLoss(_ cause: HaltCause, symbol: SymbolIndex?, at now: Moment, _ shared: inout SharedState) {
        let midnight = (loss.day + 1) * 86_400_000
        shared.outboxes.events.push(
            EventRecord(
                wall: now.wall, kind: .halt, symbol: symbol, first: Int64(cause.rawValue),
                second: max(0, midnight - now.wall.milliseconds)))
    }
}

extension QuoteNode {
    // MARK: Kill switch

    /// Cancels at once and places nothing until `release` of the same scope: one symbol, or with nil the host and whatever it quotes later.
    /// Ticks go on, counted as halted. Idempotent; returns how many orders are being cancelled by this call.
    package mutating func kill(_ symbol: SymbolIndex?, at now: Moment) -> Int {
        begin(at: now)
        guard let symbol else {
            let isNews = !shared.isKilled
            shared.isKilled = true
            let cancelled = pullAll(at: now)
            if isNews { note(.kill, nil, cancelled, at: now) }
            advance(to: now)
            return cancelled
        }
        precondition(Int(symbol) < symbolCount, "BUG: symbol \(symbol)")
        let isNews = !symbols[Int(symbol)].isKilled
        symbols[Int(symbol)].isKilled = true
        let cancelled = symbols[Int(symbol)].pull(at: now, &shared)
        if isNews { note(.kill, symbol, cancelled, at: now) }
        advance(to: now)
        return cancelled
    }

    /// Lifts the kill of exactly this scope: a killed symbol stays killed when the host is released, and the other way round.
    package mutating func release(_ symbol: SymbolIndex?, at now: Moment) {
        begin(at: now)
        if let symbol {
            precondition(Int(symbol) < symbolCount, "BUG: symbol \(symbol)")
            guard symbols[Int(symbol)].isKilled else { return }
            symbols[Int(symbol)].isKilled = false
        } else {
            guard shared.isKilled else { return }
            shared.isKilled = false
        }
        note(.release, symbol, 0, at: now)
    }

    /// The venue has changed the symbol's tick, lot, least notional or contract: it is not quoted until a restart.
    package mutating func instrumentChanged(_ symbol: SymbolIndex, at now: Moment) {
        begin(at: now)
        symbols[Int(symbol)].instrumentChanged(at: now, &shared)
        advance(to: now)
    }

    /// The host's kill switch.
    package var isKilled: Bool { shared.isKilled }

    /// Cancels everything, for a shutdown or a venue that is gone; what follows decides whether it is quoted again. Returns how many.
    package mutating func cancelAll(at now: Moment) -> Int {
        begin(at: now)
        let cancelled = pullAll(at: now)
        advance(to: now)
        return cancelled
    }

    private mutating func note(_ kind: EventKind, _ symbol: SymbolIndex?, _ cancelled: Int, at now: Moment) {
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: kind, symbol: symbol, first: Int64(cancelled)))
    }

    mutating func pullAll(at now: Moment) -> Int {
        var cancelled = 0
        for index in 0..<symbolCount { cancelled += symbols[index].pull(at: now, &shared) }
        return cancelled
    }

    /// What a limit of the host asks of all symbols: after every frame, and whenever time passes.
    mutating func enforceHostLimits(at now: Moment) {
        guard shared.loss.isNews else { return }
        shared.loss.isNews = false
        _ = pullAll(at: now)
    }

    // MARK: Disk

    /// Feeds have not been written for longer than they may: cancels all and places nothing until `resumeAfterDisk`. Idempotent; returns how
    /// many orders are being cancelled by this call.
    package mutating func haltForDisk(at now: Moment) -> Int {
        guard !shared.isDiskHalted else { return 0 }
        begin(at: now)
        shared.isDiskHalted = true
        shared.outboxes.events.push(EventRecord(wall: now.wall, kind: .halt, first: Int64(HaltCause.disk.rawValue)))
        let cancelled = pullAll(at: now)
        advance(to: now)
        return cancelled
    }

    /// Feeds are written again.
    package mutating func resumeAfterDisk() { shared.isDiskHalted = false }

    package var isDiskHalted: Bool { shared.isDiskHalted }

    // MARK: Status

    /// What the symbol does now (SPEC 2.3). `isKilled` is true for a killed host, too.
    package func status(of index: SymbolIndex) -> Message.Status.Symbol {
        withSymbol(Int(index)) { symbol in
            let top = symbol.isProven ? symbol.book.top : nil
            return Message.Status.Symbol(
                symbol: symbol.instrument.symbol, arm: "\(symbol.armFields.arm.text)", armWhy: "\(symbol.armFields.why.text)",
                experiment: symbol.armFields.experiment?.text, isProven: symbol.isProven, isKilled: symbol.isKilled || shared.isKilled,
                bid: top.map { $0.bidPrice * symbol.instrument.tickNano }, ask: top.map { $0.askPrice * symbol.instrument.tickNano },
                position: symbol.positionLots * symbol.instrument.lotE8, openOrders: symbol.openOrders, ticks: symbol.counts.ticks,
                quotes: symbol.counts.quotes, fills: symbol.counts.fills,
                features: Feature.allCases.map { symbol.feature($0) })
        }
    }

    /// What `/metrics` shows of the symbol beside its status.
    package func metrics(of index: SymbolIndex, at now: Moment) -> EdgeMetrics.Symbol {
        withSymbol(Int(index)) { symbol in
            EdgeMetrics.Symbol(
                status: status(of: index), takerFills: symbol.counts.takerFills, lastTick: symbol.lastTickAt, lastFill: symbol.lastFillAt,
                cacheAgeNanoseconds: symbol.isProven ? symbol.cache.age(at: now.instant) : nil)
        }
    }

    /// This host's clock minus the venue's, as far as frames tell: the least over all symbols, the fastest frame's way included. Nil before any.
    package var venueClockOffsetNanoseconds: Int64? {
        (0..<symbolCount).compactMap { symbols[$0].cache.venueClockOffsetNanoseconds }.min()
    }

    /// What `/metrics` shows of the whole node; about once a second, for its windows to move on.
    package func metrics(at now: Moment) -> EdgeMetrics.Node {
        var cache = EdgeMetrics.CacheTotals()
        for index in 0..<symbolCount { cache.add(symbols[index].cache.counts) }
        var dropped = [Int64](repeating: 0, count: Feed.allCases.count)
        dropped[Feed.ticks.place] = Int64(shared.outboxes.ticks.refused)
        dropped[Feed.quotes.place] = Int64(shared.outboxes.quotes.refused)
        dropped[Feed.snapshots.place] = Int64(shared.droppedSnapshots)
        return EdgeMetrics.Node(
            reading: shared.metrics.pointee.reading(at: now.instant),
            sequenceGaps: (0..<symbolCount).reduce(0) { $0 + symbols[$1].counts.sequenceGaps },
            venueClockOffsetNanoseconds: venueClockOffsetNanoseconds, cache: cache, droppedRows: dropped)
    }
}
