import CalibModel

/// Turns width, skew and nudges into prices on the tick grid, and checks the hard limits last (SPEC 4.6, 10.2).
package enum EmitStage {
    package struct Input: Sendable {
        package var top: TopOfBook
        package var spread: BasisPoints
        package var skew: BasisPoints
        package var bidNudge: BasisPoints
        package var askNudge: BasisPoints
        /// Order quantity after the guards' scale, floored to the lot.
        package var lots: Int64
        package var positionLots: Int64
        package var pullsBuy: Bool
        package var pullsSell: Bool
        /// How many more orders the symbol and the host may open; a side that is open already needs none. Negative: more are open than a
        /// limit, narrower since, allows; both sides go.
        package var orderRoom: Int64 = 2
        package var isBuyOpen = false
        package var isSellOpen = false
    }

    /// Hard limits in the instrument's units.
    package struct HardLimits: Sendable {
        package var orderLots: Int64
        package var positionLots: Int64
        /// Ticks x lots.
        package var notional: Int64
        package var collar: BasisPoints
        /// What the venue takes at least: ticks x lots, and lots. An order below is not placed.
        package var minimumNotional: Int64 = 0
        package var minimumLots: Int64 = 1
    }

    package struct Target: Sendable, Equatable {
        package var price: Int64
        package var lots: Int64
    }

    package struct Output: Sendable {
        package var bid: Target?
        package var ask: Target?
        package init() {}
    }

    package static func run(_ input: Input, _ limits: HardLimits) -> Output {
        let buy = price(
            midTwice: input.top.midTwice, offsetTwice: -(input.spread.micro + 2 * input.skew.micro - 2 * input.bidNudge.micro),
            roundingUp: false)
        let sell = price(
            midTwice: input.top.midTwice, offsetTwice: input.spread.micro - 2 * input.skew.micro - 2 * input.askNudge.micro,
            roundingUp: true)
        var output = Output()
        var room = input.orderRoom
        if !input.pullsBuy, input.isBuyOpen ? input.orderRoom >= 0 : room > 0 {
            output.bid = checked(
                min(buy, input.top.askPrice - 1), input.lots, room: limits.positionLots - input.positionLots, input.top.midTwice, limits)
        }
        if output.bid != nil, !input.isBuyOpen { room -= 1 }
        if !input.pullsSell, input.isSellOpen ? input.orderRoom >= 0 : room > 0 {
            output.ask = checked(
                max(sell, input.top.bidPrice + 1), input.lots, room: limits.positionLots + input.positionLots, input.top.midTwice, limits)
        }
        return output
    }

    /// mid * (1 + offset/1e4), exactly, rounded down or up to the tick. The mid comes doubled, and the offset in 1e-6 bps doubled too:
    /// price = midTwice * (2e10 + offsetTwice) / 4e10.
    package static func price(midTwice: Int64, offsetTwice: Int64, roundingUp: Bool) -> Int64 {
        let factor = 20_000_000_000 + offsetTwice
        precondition(midTwice > 0 && factor > 0 && factor < 40_000_000_000, "BUG: mid \(midTwice), offset \(offsetTwice)")
        let product = UInt64(midTwice).multipliedFullWidth(by: UInt64(factor))
        let (quotient, remainder) =
            product.high == 0
            ? product.low.quotientAndRemainder(dividingBy: 40_000_000_000) : UInt64(40_000_000_000).dividingFullWidth(product)
        return Int64(quotient) + (roundingUp && remainder > 0 ? 1 : 0)
    }

    private static func checked(_ price: Int64, _ lots: Int64, room: Int64, _ midTwice: Int64, _ limits: HardLimits) -> Target? {
        guard price > 0 else { return nil }
        var allowed = min(lots, limits.orderLots, room)
        let (worth, overflowed) = allowed.multipliedReportingOverflow(by: price)
        if overflowed || worth > limits.notional { allowed = min(allowed, limits.notional / price) }
        guard allowed >= max(1, limits.minimumLots), Int128(allowed) * Int128(price) >= Int128(limits.minimumNotional) else { return nil }
        // |price - mid| / mid <= collar, in whole numbers: |2 price - midTwice| * 1e10 <= collar * midTwice.
        let distance = Int128((2 * price - midTwice).magnitude) * 10_000_000_000
        guard distance <= Int128(limits.collar.micro) * Int128(midTwice) else { return nil }
        return Target(price: price, lots: allowed)
    }
}

/// What to do about one side's order, given its target (SPEC 4.6).
package enum OrderDecision: Sendable, Equatable {
    case keep, place, replace, cancel, none

    /// - Parameters:
    ///   - resting: the order last asked for on this side, nil when none.
    ///   - minimumTicks: a smaller move of the target is ignored.
    ///   - keepTicks: an order behind its target is kept while the move is smaller: what its place in the queue is worth.
    ///   - opposite: the other side's best price. An order at or through it is moved however small the move is: it would cross on arrival.
    package static func decide(
        side: Side, target: EmitStage.Target?, resting: EmitStage.Target?, minimumTicks: Int64, keepTicks: Int64, opposite: Int64? = nil
    ) -> OrderDecision {
        switch (target, resting) {
        case (nil, nil): return .none
        case (nil, .some): return .cancel
        case (.some, nil): return .place
        case (.some(let target), .some(let resting)):
            if target.lots < resting.lots { return .replace }  // Smaller is safer: at once.
            if let opposite, (resting.price - opposite) * side.sign >= 0 { return .replace }
            let towardsUs = (target.price - resting.price) * side.sign  // > 0: the order stands behind its target.
            if towardsUs.magnitude < UInt64(max(1, minimumTicks)) { return .keep }
            if towardsUs > 0, towardsUs < keepTicks { return .keep }
            return .replace
        }
    }
}
