import CalibModel

/// Makes quoting smaller and wider when something looks wrong (SOFT), and pulls quotes when it is wrong (HARD) (SPEC 4.3).
///
/// It also applies the speed limit of SPEC 4.2 to the whole width, its own widening included: widening is immediate, tightening takes one
/// step of 0.2 bps at most every 200 ms.
package enum GuardsStage {
    package enum Level: Comparable, Sendable { case none, soft, hard }

    package struct Input: Sendable {
        package var volatilityPerRootMinute: Double?
        package var tickP95Milliseconds: Double
        package var pnlZ: Double?
        /// Signed % of max_position.
        package var inventoryPercent: Double
        package var takerFills: Int64
        package var spread: BasisPoints
        package var previousSpread: BasisPoints?
        /// When the width last got narrower.
        package var tightenedAt: Instant?
        package var haltedUntil: Instant?
        package var now: Instant
    }

    package struct Output: Sendable {
        package var volatility: Level
        package var latency: Level
        package var pnl: Level
        package var inventory: Level
        package var takerFills: Level
        /// The worst of the above, inventory HARD counting as SOFT: it pulls one side instead of halting.
        package var level: Level
        package var isHalted: Bool
        package var haltedUntil: Instant?
        /// Quote size is multiplied by `sizeNumerator / 2`: 2 is full, 1 is half.
        package var sizeNumerator: Int64
        package var pullsBuy: Bool
        package var pullsSell: Bool
        /// Before the speed limit.
        package var widened: BasisPoints
        package var spread: BasisPoints
        package var tightenedAt: Instant?

        /// The first guard that is hard enough to halt; nil when none is.
        package var haltCause: HaltCause? {
            if volatility == .hard { return .volatility }
            if latency == .hard { return .latency }
            if pnl == .hard { return .pnl }
            return takerFills == .hard ? .takerFills : nil
        }
    }

    package static func run(_ input: Input, _ parameters: Parameters.Guards, _ speed: Parameters.Spread) -> Output {
        let volatility = level(input.volatilityPerRootMinute ?? 0, parameters.volatility) { $0 >= $1 }
        let latency = level(input.tickP95Milliseconds, parameters.latency) { $0 > $1 }
        let pnl = level(input.pnlZ ?? 0, parameters.pnlZ) { $0 < $1 }
        let inventory = level(input.inventoryPercent.magnitude, parameters.inventory) { $0 > $1 }
        let taker = level(Double(input.takerFills), parameters.takerFills) { $0 >= $1 }

        let halting = max(volatility, latency, pnl, taker)
        var haltedUntil = input.haltedUntil
        if let until = haltedUntil, input.now >= until { haltedUntil = nil }  // Over: re-assess.
        if haltedUntil == nil, halting == .hard {
            haltedUntil = input.now.advanced(nanoseconds: parameters.haltNanoseconds)
        }
        let level = max(halting, min(inventory, .soft))
        let widened = level == .none ? input.spread : input.spread + parameters.softWiden
        let (spread, tightenedAt) = limit(widened, input, speed)
        return Output(
            volatility: volatility, latency: latency, pnl: pnl, inventory: inventory, takerFills: taker, level: level,
            isHalted: haltedUntil != nil, haltedUntil: haltedUntil, sizeNumerator: level == .none ? 2 : 1,
            pullsBuy: inventory == .hard && input.inventoryPercent > 0, pullsSell: inventory == .hard && input.inventoryPercent < 0,
            widened: widened, spread: spread, tightenedAt: tightenedAt)
    }

    private static func limit(_ wanted: BasisPoints, _ input: Input, _ speed: Parameters.Spread) -> (BasisPoints, Instant?) {
        guard let previous = input.previousSpread, wanted < previous else { return (wanted, input.tightenedAt) }
        if let last = input.tightenedAt, input.now.since(last) < speed.tightenNanoseconds { return (previous, last) }
        return (max(wanted, previous - speed.tightenStep), input.now)
    }

    private static func level(_ value: Double, _ limits: Parameters.Threshold, _ isBreached: (Double, Double) -> Bool) -> Level {
        isBreached(value, limits.hard) ? .hard : isBreached(value, limits.soft) ? .soft : .none
    }
}
