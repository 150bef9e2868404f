import CalibModel

/// One order from its sending to its end, with everything in the data that moved its queue or filled it: for `--explain-order`.
///
/// Whoever reads it can work out the queue for himself: from `accepted` on, each `trade` takes its lots off what is ahead, each `book` shows what
/// the level displays, and `QueuePosition` says what follows from both.
package struct OrderStory: Sendable {
    package enum Event: Sendable {
        /// On its way; `replacing` is the order whose place it takes.
        case sent(replacing: Int64?, dueAt: WallTime)
        /// It rests behind everything displayed at its price. `lots` may be fewer than sent: what filled meanwhile is taken off.
        case accepted(queueAhead: Int64, lots: Int64)
        /// Refused by post-only: it would have crossed.
        case refused
        /// What it asked for filled, as the order before it, while it was on its way.
        case exhausted
        case trade(price: Int64, lots: Int64, aggressor: Side, before: Int64, after: Int64, filled: Int64)
        /// The level's display changed; `traded` lots of the change are trades told before.
        case book(displayedBefore: Int64, displayed: Int64, traded: Int64, before: Int64, after: Int64)
        case fill(PaperSide.Fill, id: Int64, fee: BasisPoints)
        case replaceSent(by: Int64, dueAt: WallTime)
        case cancelSent(dueAt: WallTime)
        case ended(OrderOutcome, filled: Int64)
    }

    package struct Entry: Sendable {
        package var wall: WallTime
        package var event: Event
    }

    /// Of the order in its run, as in its id `R-N`.
    package let number: Int64
    package private(set) var symbol: SymbolIndex?
    /// As it was sent; nil when it never was.
    package private(set) var order: PaperOrder?
    package private(set) var entries: [Entry] = []
    /// Further entries were left out.
    package private(set) var isCut = false

    package init(number: Int64) { self.number = number }

    private func isAbout(_ id: Int64) -> Bool { id & 0xffff_ffff == number }

    private mutating func add(_ event: Event, at wall: WallTime) {
        guard entries.count < Limits.storyEntriesMax else {
            isCut = true
            return
        }
        entries.append(Entry(wall: wall, event: event))
    }

    // MARK: Orders

    mutating func noteSent(_ order: PaperOrder, symbol: SymbolIndex, replacing: Int64?, dueAt: Instant, at now: Moment) {
        if let replacing, isAbout(replacing) { add(.replaceSent(by: order.id, dueAt: Self.wall(dueAt, now)), at: now.wall) }
        guard isAbout(order.id) else { return }
        self.order = order
        self.symbol = symbol
        add(.sent(replacing: replacing, dueAt: Self.wall(dueAt, now)), at: now.wall)
    }

    mutating func noteCancelSent(_ id: Int64, dueAt: Instant, at now: Moment) {
        if isAbout(id) { add(.cancelSent(dueAt: Self.wall(dueAt, now)), at: now.wall) }
    }

    mutating func note(_ applied: PaperSide.Applied, resting: PaperOrder?, at now: Moment) {
        let wall = Self.wall(applied.at, now)
        switch applied.arrival {
        case .none: break
        case .rests:
            if let resting, isAbout(resting.id) { add(.accepted(queueAhead: resting.queueAtEntry, lots: resting.lots), at: wall) }
        case .refused(let order): if isAbout(order.id) { add(.refused, at: wall) }
        case .exhausted(let order): if isAbout(order.id) { add(.exhausted, at: wall) }
        case .took(let fill, _): if isAbout(fill.order.id) { add(.accepted(queueAhead: 0, lots: fill.order.lots), at: wall) }
        }
    }

    mutating func note(_ ended: PaperSide.Ended, at now: Moment) {
        guard isAbout(ended.order.id) else { return }
        add(.ended(ended.outcome, filled: ended.order.lots - ended.order.remaining), at: Self.wall(ended.endedAt, now))
    }

    // MARK: Causes

    mutating func noteTrade(
        _ before: PaperSide, _ after: QueuePosition, aggressor: Side, price: Int64, lots: Int64, filled: Int64, at now: Moment
    ) {
        guard let order = before.resting, isAbout(order.id), aggressor == order.side.opposite,
            (order.price - price) * order.side.sign >= 0
        else { return }
        add(
            .trade(price: price, lots: lots, aggressor: aggressor, before: before.queue.ahead, after: after.ahead, filled: filled),
            at: now.wall)
    }

    mutating func noteBook(_ before: PaperSide, _ after: QueuePosition, at now: Moment) {
        guard let order = before.resting, isAbout(order.id) else { return }
        guard before.queue.ahead != after.ahead || before.queue.displayed != after.displayed else { return }
        add(
            .book(
                displayedBefore: before.queue.displayed, displayed: after.displayed, traded: before.queue.traded,
                before: before.queue.ahead,
                after: after.ahead), at: now.wall)
    }

    mutating func note(_ fill: PaperSide.Fill, id: Int64, fee: BasisPoints, at now: Moment) {
        guard isAbout(fill.order.id) else { return }
        add(.fill(fill, id: id, fee: fee), at: now.wall)
        if fill.isComplete { add(.ended(.filled, filled: fill.order.lots), at: now.wall) }
    }

    /// The wall time of an instant near `now`.
    private static func wall(_ instant: Instant, _ now: Moment) -> WallTime {
        WallTime(nanoseconds: now.wall.nanoseconds + instant.since(now.instant))
    }
}
