/// Who is taken to cancel when the quantity displayed at our price falls without a trade: a feed of price levels does not tell.
package enum QueueModel: String, Sendable, BitwiseCopyable, CaseIterable {
    /// Whoever stands behind us, until the display shows otherwise: our place is never better than this.
    case conservative
    /// Everyone alike: of a cancelled quantity the share `ahead / level` stood ahead of us. Our place is right on average when cancellations are
    /// spread evenly over the queue.
    case probabilistic
}

/// Where our order stands in its price level's queue.
///
/// Model: E. Rigtorp, "Estimating order queue position" (rigtorp.se, 2013), where a fall of the display that no trade explains took
/// `f(V) / (f(V) + f(Q - V))` of itself from the V lots ahead of us, Q being the level. `probabilistic` is f(x) = x; `conservative` is the limit
/// f(V) = 0. In both a trade at our price consumes what is ahead first, what is left of it fills us, and no more can be ahead than is displayed.
/// Trades come before the display that shows them, so they are taken off its next fall; when a venue sends them the other way round, a
/// `probabilistic` place is up to one trade too good.
package struct QueuePosition: Sendable {
    package private(set) var ahead: Int64
    /// What the level displayed when we last looked, ours not included: the book is the venue's, our order is on paper.
    package private(set) var displayed: Int64
    /// Traded at our price since then.
    package private(set) var traded: Int64 = 0
    private let model: QueueModel
    /// Of a lot, in 1/256: what `probabilistic` has not taken off `ahead` yet, so that many small cancellations are not rounded away.
    private var fraction: Int64 = 0
    /// Lots traded or cancelled ahead of us since the last `takeAbsorbed`.
    private var absorbed: Int64 = 0

    /// On arrival everything displayed is ahead.
    package init(displayed: Int64, model: QueueModel = .conservative) {
        ahead = displayed
        self.displayed = displayed
        self.model = model
    }

    /// A trade at our price. Returns how many lots of it reach us.
    package mutating func trade(_ lots: Int64) -> Int64 {
        let consumed = min(ahead, lots)
        ahead -= consumed
        absorbed += consumed
        traded = min(displayed, traded + lots)
        return lots - consumed
    }

    /// A trade at a worse price than ours for the aggressor's limit: everyone ahead of us is gone.
    package mutating func tradedThrough() {
        absorbed += ahead
        ahead = 0
    }

    /// The newest displayed quantity at our price.
    package mutating func display(_ quantity: Int64) {
        if model == .probabilistic { cancelAlike(displayed - traded - quantity) }
        displayed = quantity
        traded = 0
        guard quantity < ahead else { return }
        absorbed += ahead - quantity
        ahead = quantity
    }

    package mutating func takeAbsorbed() -> Int64 {
        defer { absorbed = 0 }
        return absorbed
    }

    private mutating func cancelAlike(_ cancelled: Int64) {
        guard cancelled > 0, ahead > 0 else { return }
        // Quantities are below 2^59 (`Limits.decimalMax`): the product of two of them, times 256, fits.
        let level = Int128(max(displayed - traded, ahead))
        let share = Int128(cancelled) * Int128(ahead) * 256 / level + Int128(fraction)
        let gone = Int64(min(Int128(ahead), share >> 8))
        fraction = Int64(share & 255)
        ahead -= gone
        absorbed += gone
    }
}
