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

/// One side of the paper exchange: at most one order rests, requests take effect after the order latency, in the order they were sent.
///
/// Never a fill without a trade at or through our price, or the other side's best at or through it (SPEC 4.7; issue text: "a first honest
/// version"). What the paper order would have done to the market is not modelled: fills do not reduce displayed quantities.
package struct PaperSide: Sendable {
    package enum Request: BitwiseCopyable, Sendable {
        case place(PaperOrder)
        case replace(PaperOrder)
        case cancel
    }

    package struct Fill: Sendable {
        package var order: PaperOrder
        package var lots: Int64
        /// Ahead of us just before the event that filled us.
        package var queueAhead: Int64
        /// The order's first fill: an order counts once in `filled_orders`.
        package var isFirst: Bool
        package var isComplete: Bool { order.remaining == 0 }
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
    package private(set) var queue = QueuePosition(ahead: 0)
    private var inFlight: InlineArray<8, InFlight> = .init(repeating: InFlight(request: .cancel, dueAt: Instant(nanoseconds: 0)))
    private var inFlightCount = 0
    /// Orders that post-only refused because the price would have crossed on arrival.
    package private(set) var postOnlyRejections: Int64 = 0

    package init(_ side: Side) { self.side = side }

    /// The order that will rest once everything sent has taken effect, as far as we know it.
    package var intended: EmitStage.Target? {
        for index in stride(from: inFlightCount - 1, through: 0, by: -1) {
            switch inFlight[index].request {
            case .place(let order), .replace(let order): return EmitStage.Target(price: order.price, lots: order.remaining)
            case .cancel: return nil
            }
        }
        guard let resting else { return nil }
        return EmitStage.Target(price: resting.price, lots: resting.remaining)
    }

    package var canSend: Bool { inFlightCount < Limits.ordersInFlightMax }

    /// Nothing rests and nothing is on its way.
    package var isEmpty: Bool { resting == nil && inFlightCount == 0 }

    /// An order rests or is on its way. Requests take effect in order, so a side never has more than one.
    package var isOpen: Bool {
        if resting != nil { return true }
        for index in 0..<inFlightCount {
            if case .cancel = inFlight[index].request { continue }
            return true
        }
        return false
    }

    /// When the next request takes effect; nil when none is on its way.
    package var nextDue: Instant? { inFlightCount > 0 ? inFlight[0].dueAt : nil }

    /// A request on its way. When too many are under way only a cancel may be sent: it takes the place of the newest, which it supersedes.
    package mutating func send(_ request: Request, dueAt: Instant) {
        if inFlightCount == Limits.ordersInFlightMax {
            guard case .cancel = request else { preconditionFailure("BUG: sent without canSend") }
            inFlightCount -= 1
        }
        inFlight[inFlightCount] = InFlight(request: request, dueAt: dueAt)
        inFlightCount += 1
    }

    private struct InFlight: BitwiseCopyable, Sendable {
        var request: Request
        var dueAt: Instant
    }

    /// What a request did when it took effect.
    package struct Applied: Sendable {
        package var ended: Ended?
        /// A new order rests now; false for a cancel and for an order that post-only refused.
        package var hasAccepted: Bool
    }

    /// Applies the next request that is due at `now`, or returns nil. Call until nil.
    package mutating func applyNext(at now: Instant, book: borrowing Book) -> Applied? {
        guard inFlightCount > 0, inFlight[0].dueAt <= now else { return nil }
        let (request, dueAt) = (inFlight[0].request, inFlight[0].dueAt)
        for index in 1..<8 { inFlight[index - 1] = inFlight[index] }
        inFlightCount -= 1
        switch request {
        case .cancel: return Applied(ended: end(.cancelled, at: dueAt), hasAccepted: false)
        case .place(let order): return Applied(ended: nil, hasAccepted: accept(order, at: dueAt, book: book))
        case .replace(let order):
            // The old order ends whether or not the new one is accepted.
            let ended = end(.replaced, at: dueAt)
            return Applied(ended: ended, hasAccepted: accept(order, at: dueAt, book: book))
        }
    }

    /// Cancels everything at once: shutdown. Returns the resting order, ended.
    package mutating func cancelAll(at now: Instant) -> Ended? {
        inFlightCount = 0
        return end(.cancelled, at: now)
    }

    /// A public trade. `aggressor` is the side that took liquidity.
    package mutating func trade(aggressor: Side, price: Int64, lots: Int64) -> Fill? {
        guard let resting, aggressor == side.opposite else { return nil }
        let through = (resting.price - price) * side.sign  // > 0: the trade went through our price.
        guard through >= 0 else { return nil }
        let before = queue.ahead
        let reaching: Int64
        if through > 0 {
            queue.tradedThrough()
            reaching = lots
        } else {
            reaching = queue.trade(lots)
        }
        return fill(min(reaching, resting.remaining), queueAhead: before)
    }

    /// A book change: the queue may have shrunk, or the other side's best may have come to our price.
    package mutating func bookChanged(_ book: borrowing Book) -> Fill? {
        guard let resting, let top = book.top else { return nil }
        let opposite = side == .buy ? (top.askPrice, top.askQuantity) : (top.bidPrice, top.bidQuantity)
        if (resting.price - opposite.0) * side.sign >= 0 {
            let before = queue.ahead
            queue.tradedThrough()
            return fill(min(opposite.1, resting.remaining), queueAhead: before)
        }
        queue.displayed(book.quantity(side, at: resting.price))
        return nil
    }

    package mutating func takeAbsorbed() -> Int64 { queue.takeAbsorbed() }

    /// False when the price would cross on arrival: post-only.
    private mutating func accept(_ order: PaperOrder, at now: Instant, book: borrowing Book) -> Bool {
        if let top = book.top, (order.price - (side == .buy ? top.askPrice : top.bidPrice)) * side.sign >= 0 {
            postOnlyRejections += 1
            return false
        }
        var accepted = order
        accepted.acceptedAt = now
        accepted.queueAtEntry = book.quantity(side, at: order.price)
        resting = accepted
        queue = QueuePosition(ahead: accepted.queueAtEntry)
        return true
    }

    private mutating func end(_ outcome: OrderOutcome, at now: Instant) -> Ended? {
        guard let order = resting else { return nil }
        resting = nil
        return Ended(order: order, outcome: outcome, queueAhead: queue.ahead, endedAt: now)
    }

    private mutating func fill(_ lots: Int64, queueAhead: Int64) -> Fill? {
        guard lots > 0, var order = resting else { return nil }
        let isFirst = !order.hasFilled
        order.remaining -= lots
        order.hasFilled = true
        resting = order.remaining > 0 ? order : nil
        return Fill(order: order, lots: lots, queueAhead: queueAhead, isFirst: isFirst)
    }
}
