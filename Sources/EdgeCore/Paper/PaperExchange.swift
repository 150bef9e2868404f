import CalibModel

/// What one of our orders is; its numbers stay with it until its last row is written.
package struct PaperOrder: BitwiseCopyable, Sendable {
    package var id: Int64
    package var side: Side
    package var price: Int64
    /// Lots asked for, and lots not filled yet.
    package var lots: Int64
    package var remaining: Int64
    package var acceptedAt: Instant?
    package var midAtQuoteTwice: Int64
    package var spread: BasisPoints
    package var skew: BasisPoints
    package var nudge: BasisPoints
    package var volRealized: BasisPoints?
    /// What was ahead when it was accepted.
    package var queueAtEntry: Int64 = 0
    package var hasFilled = false
    /// Under what it was quoted: its fills, markouts and row are booked to these, whatever the symbol plays by then.
    package var armFields = ArmFields(configHash: 0)
}

/// What the paper exchange is told to be like.
package struct PaperRules: Sendable {
    package var queueModel = QueueModel.conservative
    /// An order that would cross on arrival is refused; otherwise it takes.
    package var isPostOnly = true
    package init() {}
}

/// One side of the paper exchange: at most one order rests, requests take effect after the order latency, in the order they were sent.
///
/// Invariants:
/// 1. Never a fill without a cause in the data: a trade at or through our price, the other side's best at or through it, or (without post-only)
///    the other side's best that an arriving order takes. Never more than that cause's quantity.
/// 2. Of what a request asked for, what filled while it was on its way is taken off on arrival, so that a fill and a replacement that cross
///    each other on the wire never add up to more than was decided: position limits hold (SPEC 10.2).
///
/// What the paper order would have done to the market is not modelled: fills do not reduce displayed quantities.
package struct PaperSide: Sendable {
    package enum Request: BitwiseCopyable, Sendable {
        case place(PaperOrder)
        case replace(PaperOrder)
        case cancel
    }

    /// What in the market data filled an order.
    package enum Cause: BitwiseCopyable, Sendable, Equatable {
        case trade(price: Int64, lots: Int64)
        /// The other side's best came to our price.
        case crossed(price: Int64, lots: Int64)
        /// Our order arrived at or through the other side's best, and took.
        case taken(price: Int64, lots: Int64)
    }

    package struct Fill: Sendable {
        package var order: PaperOrder
        package var price: Int64
        package var lots: Int64
        /// Ahead of us just before the event that filled us.
        package var queueAhead: Int64
        /// The order's first fill: an order counts once in `filled_orders`.
        package var isFirst: Bool
        package var cause: Cause
        package var isComplete: Bool { order.remaining == 0 }
        package var isTaker: Bool { if case .taken = cause { true } else { false } }
    }

    /// An order that stopped resting otherwise than by a fill.
    package struct Ended: Sendable {
        package var order: PaperOrder
        package var outcome: OrderOutcome
        package var queueAhead: Int64
        package var endedAt: Instant
    }

    package let side: Side
    package private(set) var resting: PaperOrder?
    package private(set) var queue = QueuePosition(displayed: 0)
    private var inFlight: InlineArray<8, InFlight> = .init(
        repeating: InFlight(request: .cancel, dueAt: Instant(nanoseconds: 0), filledBefore: 0))
    private var inFlightCount = 0
    /// Lots filled on this side since the beginning; wraps.
    private var filled: Int64 = 0
    /// Orders that post-only refused because the price would have crossed on arrival.
    package private(set) var postOnlyRejections: Int64 = 0

    package init(_ side: Side) { self.side = side }

    // What a tick asks of a side, kept from one change of it to the next: reading it out of the orders would copy them each time.

    /// The order that will rest once everything sent has taken effect, as far as we know it.
    package private(set) var intended: EmitStage.Target?
    /// An order rests or is on its way. Requests take effect in order, so a side never has more than one.
    package private(set) var isOpen = false
    /// When the next request takes effect; nil when none is on its way.
    package private(set) var nextDue: Instant?
    /// Of the resting order; nil when none rests.
    package private(set) var restingPrice: Int64?
    /// What was ahead of the resting order when it was accepted; 0 when none rests.
    package private(set) var queueAtEntry: Int64 = 0

    private mutating func noteChange() {
        intended = newest.map { EmitStage.Target(price: $0.price, lots: $0.remaining) }
        nextDue = inFlightCount > 0 ? inFlight[0].dueAt : nil
        restingPrice = resting?.price
        queueAtEntry = resting?.queueAtEntry ?? 0
        isOpen = restingPrice != nil
        for index in 0..<inFlightCount where !isOpen {
            if case .cancel = inFlight[index].request { continue }
            isOpen = true
        }
    }

    /// The order of `intended`.
    package var newest: PaperOrder? {
        for index in stride(from: inFlightCount - 1, through: 0, by: -1) {
            switch inFlight[index].request {
            case .place(let order), .replace(let order): return order
            case .cancel: return nil
            }
        }
        return resting
    }

    /// The price nearest to the other side at which an order rests, or may yet rest by what has been sent; nil when there is none.
    package var reach: Int64? {
        var nearest = resting?.price
        for index in 0..<inFlightCount {
            switch inFlight[index].request {
            case .place(let order), .replace(let order):
                if let price = nearest, (order.price - price) * side.sign <= 0 { continue }
                nearest = order.price
            case .cancel: continue
            }
        }
        return nearest
    }

    package var canSend: Bool { inFlightCount < Limits.ordersInFlightMax }

    /// Nothing rests and nothing is on its way.
    package var isEmpty: Bool { restingPrice == nil && inFlightCount == 0 }

    /// A request on its way; none overtakes an older one. When too many are under way only a cancel may be sent: it takes the place of the
    /// newest, which it supersedes. Returns when it takes effect.
    @discardableResult package mutating func send(_ request: Request, dueAt: Instant) -> Instant {
        if inFlightCount == Limits.ordersInFlightMax {
            guard case .cancel = request else { preconditionFailure("BUG: sent without canSend") }
            inFlightCount -= 1
        }
        let dueAt = inFlightCount > 0 ? max(dueAt, inFlight[inFlightCount - 1].dueAt) : dueAt
        inFlight[inFlightCount] = InFlight(request: request, dueAt: dueAt, filledBefore: filled)
        inFlightCount += 1
        noteChange()
        return dueAt
    }

    private struct InFlight: BitwiseCopyable, Sendable {
        var request: Request
        var dueAt: Instant
        /// `filled` when it was sent.
        var filledBefore: Int64
    }

    /// What a request did when it took effect.
    package struct Applied: Sendable {
        package enum Arrival: Sendable {
            /// A cancel.
            case none
            /// A new order rests: `resting`.
            case rests
            /// It would have crossed, and is not taken.
            case refused(PaperOrder)
            /// What it asked for filled while it was on its way.
            case exhausted(PaperOrder)
            /// It took; the rest of it, if any, ends at once.
            case took(Fill, rest: Ended?)
        }
        /// The order that rested before.
        package var ended: Ended?
        package var arrival: Arrival
        package var at: Instant

        /// A new order was accepted.
        package var hasAccepted: Bool {
            switch arrival {
            case .rests, .took: true
            case .none, .refused, .exhausted: false
            }
        }
    }

    /// Applies the next request that is due at `now`, or returns nil. Call until nil.
    package mutating func applyNext(at now: Instant, book: borrowing Book, rules: PaperRules = PaperRules()) -> Applied? {
        guard let nextDue, nextDue <= now else { return nil }
        defer { noteChange() }
        let (request, dueAt, filledBefore) = (inFlight[0].request, inFlight[0].dueAt, inFlight[0].filledBefore)
        for index in 1..<8 { inFlight[index - 1] = inFlight[index] }
        inFlightCount -= 1
        switch request {
        case .cancel: return Applied(ended: end(.cancelled, at: dueAt), arrival: .none, at: dueAt)
        case .place(let order):
            return Applied(ended: nil, arrival: arrive(order, filledBefore: filledBefore, at: dueAt, book: book, rules), at: dueAt)
        case .replace(let order):
            // The old order ends whether or not the new one is accepted.
            let ended = end(.replaced, at: dueAt)
            return Applied(ended: ended, arrival: arrive(order, filledBefore: filledBefore, at: dueAt, book: book, rules), at: dueAt)
        }
    }

    /// Cancels everything at once: shutdown. Returns the resting order, ended.
    package mutating func cancelAll(at now: Instant) -> Ended? {
        inFlightCount = 0
        defer { noteChange() }
        return end(.cancelled, at: now)
    }

    /// Whether a public trade at that price is at or through our order's.
    @inline(__always) package func isReached(by aggressor: Side, _ price: Int64) -> Bool {
        guard let restingPrice else { return false }
        return side == .buy ? aggressor == .sell && price <= restingPrice : aggressor == .buy && price >= restingPrice
    }

    /// A public trade. `aggressor` is the side that took liquidity.
    package mutating func trade(aggressor: Side, price: Int64, lots: Int64) -> Fill? {
        guard let restingPrice, aggressor == side.opposite else { return nil }
        let through = (restingPrice - price) * side.sign  // > 0: the trade went through our price.
        guard through >= 0, let resting else { return nil }
        let before = queue.ahead
        let reaching: Int64
        if through > 0 {
            queue.tradedThrough()
            reaching = lots
        } else {
            reaching = queue.trade(lots)
        }
        return fill(min(reaching, resting.remaining), queueAhead: before, .trade(price: price, lots: lots))
    }

    /// A book change: the queue may have shrunk, or the other side's best may have come to our price.
    package mutating func bookChanged(_ book: borrowing Book) -> Fill? {
        guard let restingPrice, let top = book.top else { return nil }
        let best = side == .buy ? (price: top.askPrice, lots: top.askQuantity) : (price: top.bidPrice, lots: top.bidQuantity)
        if (restingPrice - best.price) * side.sign >= 0 {
            guard let resting else { return nil }
            let before = queue.ahead
            queue.tradedThrough()
            return fill(min(best.lots, resting.remaining), queueAhead: before, .crossed(price: best.price, lots: best.lots))
        }
        queue.display(book.quantity(side, at: restingPrice))
        return nil
    }

    /// The same where the other side's best stands off our price: the newest quantity displayed at it.
    @inline(__always) package mutating func display(_ quantity: Int64) { queue.display(quantity) }

    package mutating func takeAbsorbed() -> Int64 { queue.takeAbsorbed() }

    private mutating func arrive(
        _ order: PaperOrder, filledBefore: Int64, at now: Instant, book: borrowing Book, _ rules: PaperRules
    ) -> Applied.Arrival {
        var order = order
        order.lots -= filled &- filledBefore
        order.remaining = order.lots
        guard order.lots > 0 else { return .exhausted(order) }
        if let top = book.top {
            let best = side == .buy ? (price: top.askPrice, lots: top.askQuantity) : (price: top.bidPrice, lots: top.bidQuantity)
            if (order.price - best.price) * side.sign >= 0 {
                guard !rules.isPostOnly, best.lots > 0 else {
                    postOnlyRejections += 1
                    return .refused(order)
                }
                order.acceptedAt = now
                return take(order, best.price, best.lots, at: now)
            }
        }
        order.acceptedAt = now
        order.queueAtEntry = book.quantity(side, at: order.price)
        resting = order
        queue = QueuePosition(displayed: order.queueAtEntry, model: rules.queueModel)
        return .rests
    }

    /// Takes from the other side's best level alone, at its price; what that does not fill is cancelled: resting on it would fill from the same
    /// displayed quantity once more.
    private mutating func take(_ order: PaperOrder, _ price: Int64, _ lots: Int64, at now: Instant) -> Applied.Arrival {
        resting = order
        queue = QueuePosition(displayed: 0)
        guard var fill = fill(min(lots, order.remaining), queueAhead: 0, .taken(price: price, lots: lots)) else {
            preconditionFailure("BUG: took \(lots) lots")
        }
        fill.price = price
        return .took(fill, rest: end(.cancelled, at: now))
    }

    private mutating func end(_ outcome: OrderOutcome, at now: Instant) -> Ended? {
        guard let order = resting else { return nil }
        resting = nil
        return Ended(order: order, outcome: outcome, queueAhead: queue.ahead, endedAt: now)
    }

    private mutating func fill(_ lots: Int64, queueAhead: Int64, _ cause: Cause) -> Fill? {
        guard lots > 0, var order = resting else { return nil }
        let isFirst = !order.hasFilled
        order.remaining -= lots
        order.hasFilled = true
        filled &+= lots
        resting = order.remaining > 0 ? order : nil
        noteChange()
        return Fill(order: order, price: order.price, lots: lots, queueAhead: queueAhead, isFirst: isFirst, cause: cause)
    }
}
