// A fleet's day as the gates of an experiment see it, minute by minute and symbol by symbol: the data-generating process of the
// reference, section C ("plausible and anchored on the first program's examples, not fitted to real data").
//
// What the reference states, and is taken as it stands:
//   log volatility        market + symbol Ornstein-Uhlenbeck, 60 and 30 min, sd 0.40 and 0.30, with an intraday cosine
//   fills                 Poisson, median 3 a minute and symbol, sd 0.6 in logs over symbols
//   notional of a fill    lognormal, squared variation 1.7
//   slippage of a fill    Student with 5 degrees of freedom, sd 1 bps, times volatility, plus autocorrelated shocks
//   taker share           8 % +- 3 percentage points over symbols
//   ticks                 80 a minute and symbol, lognormal, load bursts of 5 to 10 minutes
//   deadline misses       1 %, in bursts, sd 0.7 in logs
//
// What it leaves open, and what it is set to. Each is chosen so that the standard error of a day's estimate over A/A runs of 20 symbols is not
// below the reference's own (its "estimator check" in C.2): 0.0064 bps for slippage as the gate weights it, 0.00195 for the taker share,
// 0.00124 for the log p95. `calib-lab ab --scenario aa` prints both, so a world that grew too quiet shows itself.
//   amplitude of the cosine 0.25; squared returns of a minute vary by 0.18 around 60 volatility^2
//   shocks of 5 min: 0.28 bps of the symbol, 0.18 bps of the market, times volatility
//   taker fills in bursts of the symbol: 5 min, sd 0.7 in logs, as misses have. Without them the estimate's error is the coin's alone, 0.0017
//   misses' bursts: 7 min, half of the log variance the host's, half the symbol's
//   durations: medians of e^4.1 = 60 ms, sd 0.2 in logs over symbols; sd 0.45 in logs of a tick; four hosts, on each a burst every two hours
//     that makes ticks 8 to 25 % slower
//   notional medians 1000, sd 0.8 in logs; mean slippage 0.2 bps; net 0.3 bps +- 2 bps times volatility. The reference has no net gate.
//
// The world draws what would happen on either arm from the same randomness, so one world serves two designs side by side.

import CalibModel
package import HubCore

/// What arm B does to the truth; all zero is an A/A world.
package struct ABEffects: Sendable, Equatable {
    package var slippageBps = 0.0
    /// Share of fills that become taker.
    package var takerShare = 0.0
    /// Of every tick's duration: 0.1 is ten per cent longer.
    package var latencyRatio = 0.0
    /// Rate of arm A, and what B adds.
    package var missRate = 0.01
    package var missRateAdded = 0.0
    package var netLossBps = 0.0
    package init() {}
}

package struct ABWorld: Sendable {
    /// One symbol in one minute; `B` fields are what arm B would have had.
    package struct Minute: Sendable {
        package var fills: Int64 = 0
        package var takers: Int64 = 0
        package var takersB: Int64 = 0
        /// bps, one term per fill; and times quote currency.
        package var slip = 0.0
        package var slipNotional = 0.0
        package var notional = 0.0
        package var netNotional = 0.0
        package var ticks: Int64 = 0
        package var misses: Int64 = 0
        package var missesB: Int64 = 0
        /// Sum of 60 squared returns in bps^2.
        package var squaredReturn = 0.0
        package init() {}
    }

    package static let ticksPerMinute = 80
    private static let hosts = 4

    private struct Symbol {
        var fillRate: Double
        var notionalMedian: Double
        var takerShare: Double
        /// ln of ms.
        var latencyMedian: Double
        var volatility = 0.0
        var shock = 0.0
        var missBurst = 0.0
        var takerBurst = 0.0
    }
    private struct Host {
        /// Minutes a burst still lasts, and what it multiplies.
        var burstMinutes = 0
        var burstFactor = 1.0
        var missBurst = 0.0
    }

    private let effects: ABEffects
    private var random: Gaussian
    private var symbols: [Symbol]
    private var hosts = [Host](repeating: Host(), count: ABWorld.hosts)
    private var marketVolatility = 0.0
    private var marketShock = 0.0
    private var minuteOfDay: Int
    /// Durations in ns of the minute drawn last, `ticksPerMinute` of each symbol, on arm A.
    package private(set) var durations: [Int64]

    package init(seed: UInt64, symbols count: Int, effects: ABEffects) {
        self.effects = effects
        random = Gaussian(seed: seed)
        minuteOfDay = Int(random.uniform() * 1440)
        symbols = []
        for _ in 0..<count {
            let symbol = Symbol(
                fillRate: 3 * Elementary.exp(0.6 * random.next()), notionalMedian: 1000 * Elementary.exp(0.8 * random.next()),
                takerShare: min(0.2, max(0.01, 0.08 + 0.03 * random.next())), latencyMedian: 4.1 + 0.2 * random.next(),
                volatility: 0.3 * random.next(), shock: random.next(), missBurst: random.next(),
                takerBurst: random.next())
            symbols.append(symbol)
        }
        marketVolatility = 0.4 * random.next()
        marketShock = random.next()
        durations = [Int64](repeating: 0, count: count * Self.ticksPerMinute)
    }

    /// Draws the next minute into `minutes`, one for each symbol.
    package mutating func step(into minutes: inout [Minute]) {
        minuteOfDay = (minuteOfDay + 1) % 1440
        marketVolatility = ornsteinUhlenbeck(marketVolatility, minutes: 60, deviation: 0.4)
        marketShock = ornsteinUhlenbeck(marketShock, minutes: 5, deviation: 1)
        for host in hosts.indices { stepHost(host) }
        let intraday = 0.25 * cosine(ofTurns: Double(minuteOfDay) / 1440)
        for index in symbols.indices { minutes[index] = minute(of: index, intraday: intraday) }
    }

    private mutating func stepHost(_ index: Int) {
        hosts[index].missBurst = ornsteinUhlenbeck(hosts[index].missBurst, minutes: 7, deviation: 1)
        if hosts[index].burstMinutes > 0 {
            hosts[index].burstMinutes -= 1
            if hosts[index].burstMinutes == 0 { hosts[index].burstFactor = 1 }
        } else if random.uniform() < 1.0 / 120 {
            hosts[index].burstMinutes = 5 + Int(random.uniform() * 6)
            hosts[index].burstFactor = 1.08 + 0.17 * random.uniform()
        }
    }

    private mutating func minute(of index: Int, intraday: Double) -> Minute {
        var symbol = symbols[index]
        symbol.volatility = ornsteinUhlenbeck(symbol.volatility, minutes: 30, deviation: 0.3)
        symbol.shock = ornsteinUhlenbeck(symbol.shock, minutes: 5, deviation: 1)
        symbol.missBurst = ornsteinUhlenbeck(symbol.missBurst, minutes: 7, deviation: 1)
        symbol.takerBurst = ornsteinUhlenbeck(symbol.takerBurst, minutes: 5, deviation: 1)
        symbols[index] = symbol
        let host = hosts[index % Self.hosts]
        let volatility = Elementary.exp(marketVolatility + symbol.volatility + intraday)

        var minute = Minute()
        minute.squaredReturn = 60 * volatility * volatility * max(0.2, 1 + 0.18 * random.next())
        minute.fills = random.poisson(symbol.fillRate)
        // 0.49/2 keeps the mean at the share.
        let takerShare = symbol.takerShare * Elementary.exp(0.7 * symbol.takerBurst - 0.245)
        let shock = 0.28 * symbol.shock + 0.18 * marketShock
        for _ in 0..<minute.fills {
            // ln 2.7 = 0.993 is the log variance of a squared variation of 1.7.
            let notional = symbol.notionalMedian * Elementary.exp(0.9966 * random.next())
            let slip = 0.2 + volatility * (0.7746 * random.student5() + shock)
            minute.slip += slip
            minute.slipNotional += slip * notional
            minute.notional += notional
            minute.netNotional += (0.3 + 2 * volatility * random.next()) * notional
            let uniform = random.uniform()
            if uniform < takerShare { minute.takers += 1 }
            if uniform < takerShare + effects.takerShare { minute.takersB += 1 }
        }
        minute.ticks = Int64(Self.ticksPerMinute)
        // Half of a burst's log variance is the host's, half the symbol's; 0.49/2 keeps the mean at the rate.
        let burst = Elementary.exp(0.7 * 0.7071 * (host.missBurst + symbol.missBurst) - 0.245) * Double(Self.ticksPerMinute)
        minute.misses = min(minute.ticks, random.poisson(effects.missRate * burst))
        minute.missesB = minute.misses
        if effects.missRateAdded > 0 {
            minute.missesB = min(minute.ticks, minute.misses + random.poisson(effects.missRateAdded * burst))
        }
        let median = symbol.latencyMedian + Elementary.log(host.burstFactor)
        let start = index * Self.ticksPerMinute
        for tick in start..<start + Self.ticksPerMinute {
            durations[tick] = Int64(1e6 * Elementary.exp(median + 0.45 * random.next()))
        }
        return minute
    }

    private mutating func ornsteinUhlenbeck(_ value: Double, minutes: Double, deviation: Double) -> Double {
        let kept = 1 - 1 / minutes
        return kept * value + deviation * (1 - kept * kept).squareRoot() * random.next()
    }

    /// cos(2 pi x), x in [0, 1), to a few parts in a thousand: a parabola each half turn, improved once (Bhaskara's idea); it shapes a day.
    private func cosine(ofTurns x: Double) -> Double {
        let shifted = (x + 0.25).truncatingRemainder(dividingBy: 1) * 2 - 1
        let parabola = -4 * shifted * (1 - abs(shifted))
        return parabola * (0.775 + 0.225 * abs(parabola))
    }

    /// What the symbol's minute was on an arm, added to exact sums as a snapshot row would bring them (histograms are the caller's).
    package func add(_ minute: Minute, on arm: Arm, to sums: inout BlockSums) {
        let isB = arm == .b
        let (slip, loss) = isB ? (effects.slippageBps, effects.netLossBps) : (0, 0)
        sums.ticks += minute.ticks
        sums.misses += isB ? minute.missesB : minute.misses
        sums.fills += minute.fills
        sums.takerFills += isB ? minute.takersB : minute.takers
        sums.slip += Int128(1e6 * (minute.slip + slip * Double(minute.fills)))
        sums.fillNotional += Int128(1e8 * minute.notional)
        sums.slipNotional += Int128(1e14 * (minute.slipNotional + slip * minute.notional))
        sums.markoutNotional += Int128(1e8 * minute.notional)
        sums.netNotional += Int128(1e14 * (minute.netNotional - loss * minute.notional))
        sums.squaredReturn += Int128(1e9 * minute.squaredReturn)
        sums.returns += 60
    }

    /// Of a duration on arm A.
    package func duration(_ nanoseconds: Int64, on arm: Arm) -> Int64 {
        arm == .a || effects.latencyRatio == 0 ? nanoseconds : Int64(Double(nanoseconds) * (1 + effects.latencyRatio))
    }
}

/// Normal, Poisson and Student draws from a seed.
private struct Gaussian: Sendable {
    private var random: PRNG
    private var spare: Double?
    init(seed: UInt64) { random = PRNG(seed: seed) }

    /// In [0, 1), 53 bits.
    mutating func uniform() -> Double { Double(random.next() >> 11) * 0x1p-53 }

    /// Marsaglia's polar method (Marsaglia and Bray 1964).
    mutating func next() -> Double {
        if let value = spare {
            spare = nil
            return value
        }
        while true {
            let (u, v) = (2 * uniform() - 1, 2 * uniform() - 1)
            let square = u * u + v * v
            guard square < 1, square > 0 else { continue }
            let factor = (-2 * Elementary.log(square) / square).squareRoot()
            spare = v * factor
            return u * factor
        }
    }

    mutating func student5() -> Double {
        let normal = next()
        var squares = 0.0
        for _ in 0..<5 {
            let value = next()
            squares += value * value
        }
        return normal / (squares / 5).squareRoot()
    }

    /// Knuth's product of uniforms; means here are below 100.
    mutating func poisson(_ mean: Double) -> Int64 {
        let limit = Elementary.exp(-min(mean, 100))
        var product = uniform()
        var count: Int64 = 0
        while product > limit {
            product *= uniform()
            count += 1
        }
        return count
    }
}
