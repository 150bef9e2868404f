import CalibModel

/// Fast breakers (SPEC 7.4): what sends an edge back to arm A within seconds, without the hub.
///
/// Windows count this host's ticks and fills of arm B, over all its symbols. Thresholds are k of n such that an arm at three times the usual rate
/// (6 % late ticks, 16 % taker fills) trips one window in 1e9, respectively 1e7, while half of all ticks late trips within one window
/// (binomial tails). When arm A of the same seconds (at least 50 ticks) is as bad by the same share, the cause is not the candidate:
/// `environment`. A loss is counted over a UTC day, as the host's own limit is, and compared with that of the symbols that take part, per tick.
///
/// On the quote path: a bounded ring of bits for B, sums by second for A, nothing allocated.
struct Breakers {
    /// Trips at `count` of the last `of`.
    private struct Rule {
        var count: Int
        var of: Int
    }
    private static let fewMisses = Rule(count: 25, of: 100)
    private static let manyMisses = Rule(count: 58, of: 400)
    private static let takers = Rule(count: 22, of: 40)
    /// Ticks that had no book young enough to quote on.
    private static let staleness = Rule(count: 25, of: 100)
    /// Ticks of arm A in the window's seconds below which it says nothing.
    static let baselineTicksMin: Int64 = 50
    /// Share of the host's daily loss limit that arm B may lose in a day (SPEC 10.2 halts the host at all of it).
    static let lossLimitDivisor: Int64 = 10
    private static let secondsKept = 512

    private struct Tick: BitwiseCopyable {
        var second: Int32 = 0
        var isMissed = false
        var isRefused = false
    }

    private struct Fill: BitwiseCopyable {
        var second: Int32 = 0
        var isTaker = false
    }

    /// Arm A in one second.
    private struct Second: BitwiseCopyable {
        var number: Int32 = .min
        var ticks: Int32 = 0
        var misses: Int32 = 0
        var refused: Int32 = 0
        var fills: Int32 = 0
        var takers: Int32 = 0
    }

    /// Off without a candidate: an ordinary tick pays one look at it.
    private(set) var isWatching = false
    /// Not taken yet; nothing trips meanwhile.
    private var tripped: BreakerTrip?
    private(set) var experiment: ExperimentID?
    private var configHash: UInt64 = 0
    private var lossLimit: Int64 = 0

    private var ticks: InlineArray<400, Tick> = .init(repeating: Tick())
    private var tickCount = 0
    private var misses100 = 0
    private var misses400 = 0
    private var refused100 = 0
    private var fills: InlineArray<40, Fill> = .init(repeating: Fill())
    private var fillCount = 0
    private var takers40 = 0
    private var seconds: InlineArray<512, Second> = .init(repeating: Second())
    /// What each arm of the symbols that take part brought this day while watched, 1e-8 quote currency, and in how many ticks.
    private var day = Int64.min
    private var profit: (a: Int64, b: Int64) = (0, 0)
    private var exposure: (a: Int64, b: Int64) = (0, 0)

    /// From here on B is that candidate's; what was counted of another is forgotten, but not that the experiment tripped. Nil: nobody plays B.
    mutating func watch(_ experiment: ExperimentID?, configHash: UInt64, dailyLossHost: Int64) {
        lossLimit = dailyLossHost / Self.lossLimitDivisor
        guard experiment != self.experiment || configHash != self.configHash || isWatching != (experiment != nil) else { return }
        if experiment != self.experiment { tripped = nil }
        self.experiment = experiment
        self.configHash = configHash
        isWatching = experiment != nil
        restart()
        (profit, exposure) = ((0, 0), (0, 0))
    }

    private mutating func restart() {
        (tickCount, misses100, misses400, refused100, fillCount, takers40) = (0, 0, 0, 0, 0, 0)
        for place in 0..<Self.secondsKept { seconds[place] = Second() }
    }

    /// What tripped since the last call; ticks and fills are counted anew. The day's loss is not: an environment grants B nothing more to lose.
    mutating func take() -> BreakerTrip? {
        guard let trip = tripped else { return nil }
        tripped = nil
        restart()
        return trip
    }

    var hasTripped: Bool { tripped != nil }

    // MARK: The quote path

    /// `isEnrolled`: the symbol takes part in the experiment.
    mutating func ticked(_ arm: Arm, isEnrolled: Bool, isMissed: Bool, isRefused: Bool, at wall: WallTime) {
        let second = Int32(truncatingIfNeeded: wall.nanoseconds / 1_000_000_000)
        guard arm == .b else {
            let place = bucket(second)
            seconds[place].ticks &+= 1
            if isEnrolled { exposure.a += 1 }
            if isMissed { seconds[place].misses &+= 1 }
            if isRefused { seconds[place].refused &+= 1 }
            return
        }
        exposure.b += 1
        let (place, leaving100) = (tickCount % 400, (tickCount + 300) % 400)
        if tickCount >= 400, ticks[place].isMissed { misses400 -= 1 }
        if tickCount >= 100 {
            if ticks[leaving100].isMissed { misses100 -= 1 }
            if ticks[leaving100].isRefused { refused100 -= 1 }
        }
        ticks[place] = Tick(second: second, isMissed: isMissed, isRefused: isRefused)
        tickCount += 1
        if isMissed {
            misses100 += 1
            misses400 += 1
        }
        if isRefused { refused100 += 1 }
        guard isMissed || isRefused, tripped == nil else { return }
        if misses100 >= Self.fewMisses.count {
            trip(.deadlineMiss, Self.fewMisses, misses100, from: tickSecond(Self.fewMisses.of), to: second) { ($0.misses, $0.ticks) }
        } else if misses400 >= Self.manyMisses.count {
            trip(.deadlineMiss, Self.manyMisses, misses400, from: tickSecond(Self.manyMisses.of), to: second) { ($0.misses, $0.ticks) }
        } else if refused100 >= Self.staleness.count {
            trip(.staleness, Self.staleness, refused100, from: tickSecond(Self.staleness.of), to: second) { ($0.refused, $0.ticks) }
        }
    }

    mutating func filled(_ arm: Arm, isTaker: Bool, at wall: WallTime) {
        let second = Int32(truncatingIfNeeded: wall.nanoseconds / 1_000_000_000)
        guard arm == .b else {
            let place = bucket(second)
            seconds[place].fills &+= 1
            if isTaker { seconds[place].takers &+= 1 }
            return
        }
        let place = fillCount % 40
        if fillCount >= 40, fills[place].isTaker { takers40 -= 1 }
        fills[place] = Fill(second: second, isTaker: isTaker)
        fillCount += 1
        if isTaker { takers40 += 1 }
        guard takers40 >= Self.takers.count, tripped == nil else { return }
        let oldest = fills[fillCount > 40 ? fillCount % 40 : 0].second
        trip(.takerShare, Self.takers, takers40, from: oldest, to: second) { ($0.takers, $0.fills) }
    }

    // MARK: Once a second and at every fill

    /// What a symbol brought since it was last marked, 1e-8 quote currency.
    mutating func earned(_ arm: Arm, isEnrolled: Bool, _ amount: Int64, at wall: WallTime) {
        let today = wall.nanoseconds.flooredDivision(by: 86_400_000_000_000)
        if today > day { (day, profit, exposure) = (today, (0, 0), (0, 0)) }
        guard arm == .b else {
            if isEnrolled { profit.a &+= amount }
            return
        }
        profit.b &+= amount
        // What was lost before is no news: after an environment B trips when it loses more.
        guard amount < 0, profit.b <= -lossLimit, tripped == nil else { return }
        tripped = BreakerTrip(
            kind: .loss, scope: losesAlike ? .environment : .harm, count: -profit.b, of: lossLimit, baselineCount: -profit.a,
            baselineOf: lossLimit)
    }

    /// A tick of A costs at least half of what one of B costs.
    private var losesAlike: Bool {
        exposure.a >= Self.baselineTicksMin && profit.a < 0
            && -2 * Int128(profit.a) * Int128(exposure.b) >= -Int128(profit.b) * Int128(exposure.a)
    }

    // MARK: Leaves

    /// Of the oldest of the newest `count` ticks.
    private func tickSecond(_ count: Int) -> Int32 { ticks[tickCount > count ? (tickCount - count) % 400 : 0].second }

    private mutating func bucket(_ second: Int32) -> Int {
        let place = Int(second.magnitude) % Self.secondsKept
        if seconds[place].number != second { seconds[place] = Second(number: second) }
        return place
    }

    private mutating func trip(
        _ kind: BreakerKind, _ rule: Rule, _ count: Int, from: Int32, to: Int32, _ share: (Second) -> (count: Int32, of: Int32)
    ) {
        var (bad, all, baseline) = (Int64(0), Int64(0), Int64(0))
        for place in 0..<Self.secondsKept where seconds[place].number >= from && seconds[place].number <= to {
            let (count, of) = share(seconds[place])
            bad += Int64(count)
            all += Int64(of)
            baseline += Int64(seconds[place].ticks)
        }
        // A share of a few fills says nothing; of ticks there are enough.
        let isEnough = kind == .takerShare ? all >= Int64(rule.of / 2) : all > 0
        let isBoth = baseline >= Self.baselineTicksMin && isEnough && bad * Int64(rule.of) >= Int64(rule.count) * all
        tripped = BreakerTrip(
            kind: kind, scope: isBoth ? .environment : .harm, count: Int64(count), of: Int64(rule.of), baselineCount: bad, baselineOf: all)
    }
}
