import CalibModel

/// Other parameters while the node runs (SPEC 9.1): between two ticks, all at once.
///
/// Kept: books, averages, positions, resting orders and their places in the queue, guards' halts, the kill switch. Orders follow with their
/// symbol's next tick. Hard limits only ever get narrower (SPEC 4.6): the shell refuses wider ones and says so; here they have no effect.
extension QuoteNode {
    /// Arm A's parameters from here on, and arm B's as far as it takes over A's. The plan that is in force must be applied again right after: it
    /// carries the new `config_hash`, and the candidate that follows from the new baseline.
    ///
    /// The hash is what tells the rows before from the rows after. Arms and their reasons stay: the schedule is still what is played, and a
    /// pair counts only when one hash held through both its halves (SPEC 7.1), so the pair in which this happens is censored by its rows.
    package mutating func adopt(baseline new: Parameters, at now: Moment) {
        advance(to: now)
        var baseline = new
        baseline.limits = new.limits.narrowed(to: armParameters[0].limits)
        let candidate = armParameters[1]
        shared.parameters = baseline
        armParameters[0] = baseline
        armParameters[1] = candidate.candidate(to: baseline)
        shared.orderRate.adopt(perSecond: baseline.orderRatePerSecond, burst: baseline.orderBurst)
        shared.tickBudget = TickBudget(
            rowsPerSecond: baseline.tickRowsPerSecondMax, sampleRate: baseline.tickSampleRate, symbols: symbolCount)
        for index in 0..<symbolCount {
            symbols[index].adoptBaseline()
            // What is open above a narrower limit goes; what is within it is placed again.
            if symbols[index].openOrders > baseline.limits.openOrdersSymbol { symbols[index].pull(at: now, &shared) }
        }
        if shared.openOrders > baseline.limits.openOrdersHost { _ = pullAll(at: now) }
    }
}

extension Parameters.Limits {
    /// The narrower of both in each respect.
    package func narrowed(to other: Parameters.Limits) -> Parameters.Limits {
        var result = self
        for (_, limit) in Self.all { result[keyPath: limit] = min(self[keyPath: limit], other[keyPath: limit]) }
        result.priceCollar = min(priceCollar, other.priceCollar)
        return result
    }

    /// The configuration keys of the limits that are wider than `other`'s.
    package func widened(beyond other: Parameters.Limits) -> [String] {
        var keys = Self.all.filter { self[keyPath: $0.limit] > other[keyPath: $0.limit] }.map(\.key)
        if priceCollar > other.priceCollar { keys.append("limits.price_collar_bps") }
        return keys
    }

    private static var all: [(key: String, limit: WritableKeyPath<Self, Int64>)] {
        [
            ("limits.order_qty", \.orderQuantity), ("limits.position", \.position), ("limits.order_notional", \.notional),
            ("limits.open_orders_symbol", \.openOrdersSymbol), ("limits.open_orders_host", \.openOrdersHost),
            ("limits.daily_loss_symbol", \.dailyLossSymbol), ("limits.daily_loss_host", \.dailyLossHost),
        ]
    }
}
