/// Where our order stands in its price level's queue, conservatively (model: Moallemi and Yuan, "A Model for Queue Position Valuation in a
/// Limit Order Book", 2016, with cancellations taken from behind us).
///
/// A trade at our price consumes what is ahead first; what is left of it fills us. A smaller displayed quantity than what we thought is
/// ahead can only mean cancellations ahead of us; any other cancellation is taken to be behind us.
package struct QueuePosition: Sendable {
    package private(set) var ahead: Int64
    /// Lots traded or cancelled ahead of us since the last `takeAbsorbed`.
    private var absorbed: Int64 = 0

    package init(ahead: Int64) { self.ahead = ahead }

    /// A trade at our price. Returns how many lots of it reach us.
    package mutating func trade(_ lots: Int64) -> Int64 {
        let consumed = min(ahead, lots)
        ahead -= consumed
        absorbed += consumed
        return lots - consumed
    }

    /// A trade at a worse price than ours for the aggressor's limit: everyone ahead of us is gone.
    package mutating func tradedThrough() {
        absorbed += ahead
        ahead = 0
    }

    /// The newest displayed quantity at our price, ours not included: the book is the venue's, our order is on paper.
    package mutating func displayed(_ quantity: Int64) {
        guard quantity < ahead else { return }
        absorbed += ahead - quantity
        ahead = quantity
    }

    package mutating func takeAbsorbed() -> Int64 {
        defer { absorbed = 0 }
        return absorbed
    }
}
