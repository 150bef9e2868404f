import CalibModel

/// Which ticks get a row, and how many ticks each row stands for (SPEC 2.2).
///
/// A row weighs what came since the row before it: ticks of its symbol and kind, itself included. So at every instant, whatever the rates did
/// meanwhile,
///
///     sum of weights = ticks of that symbol and kind - waiting,   0 <= waiting < the step in force
///
/// which makes counts exact up to the last row. Ordinary ticks get a row each `sampleRate`, misses and halts each; both steps grow when the
/// host's ticks would take more than the budget, and shrink within a second of its end. A group may begin under one arm and end under
/// another: less than a step of ticks.
package struct TickSampling: Sendable {
    package enum Kind: Int, CaseIterable, Sendable {
        /// Quoted, or placed nothing for want of a fresh book.
        case ordinary
        /// By the kill switch or a loss: it may last for days, so it is sampled like quoting.
        case stopped
        /// The deadline.
        case missed
        /// By a guard, for seconds.
        case halted

        /// Misses and halts have a budget of their own, so that neither they nor ordinary ticks push the others out.
        fileprivate var share: Int {
            switch self {
            case .ordinary, .stopped: 0
            case .missed, .halted: 1
            }
        }
    }

    private var waiting: InlineArray<4, Int64> = .init(repeating: 0)
    /// The second of each kind's newest row.
    private var rowSecond: InlineArray<4, Int64> = .init(repeating: .min)
    package init() {}

    /// Ticks that no row stands for yet.
    package func waiting(_ kind: Kind) -> Int64 { waiting[kind.rawValue] }

    /// Whether a tick of this kind would get a row now: what is expensive to measure is measured for rows only.
    package func isDue(_ kind: Kind, at now: Instant, _ budget: inout TickBudget) -> Bool {
        budget.advance(to: now)
        return isDue(kind, waiting: waiting[kind.rawValue] + 1, budget)
    }

    /// Counts a tick. Returns the weight of its row, or nil when it gets none.
    package mutating func count(_ kind: Kind, at now: Instant, _ budget: inout TickBudget) -> Int64? {
        budget.advance(to: now)
        let weight = waiting[kind.rawValue] + 1
        guard isDue(kind, waiting: weight, budget) else {
            waiting[kind.rawValue] = weight
            budget.count(kind.share, row: nil)
            return nil
        }
        budget.count(kind.share, row: rowSecond[kind.rawValue] == budget.second ? .pooled : .first)
        waiting[kind.rawValue] = 0
        rowSecond[kind.rawValue] = budget.second
        return weight
    }

    /// The first row of a second comes from the symbol's own reserve, at the rate of a quiet host: nobody is starved by a busy neighbour.
    private func isDue(_ kind: Kind, waiting: Int64, _ budget: borrowing TickBudget) -> Bool {
        rowSecond[kind.rawValue] == budget.second
            ? waiting >= budget.step(kind.share) : waiting >= budget.baseStep(kind.share)
    }
}

/// How many tick rows the host may write in a second, shared by its symbols: half for ordinary ticks, half for misses and halts.
///
/// Each half keeps a row a second for either of its two kinds of every symbol; the rest is a pool that whoever ticks may use. The factor that
/// stretches the steps follows from the last second's ticks, so that they would fill three quarters of the pool; within a second it doubles
/// when a quarter of the pool is left, again at an eighth, and so on; an empty pool gives nothing until the next second.
/// Time is the ticks' own, so the same ticks give the same rows.
package struct TickBudget: Sendable {
    fileprivate enum Row { case first, pooled }

    private struct Share: Sendable {
        /// Rows of a second beside the reserve, and how many of them are left.
        var pool: Int64
        var left: Int64
        /// Ticks for a row on a quiet host, and now.
        var baseStep: Int64
        var step: Int64
        var factor: Int64 = 1
        var ticks: Int64 = 0
    }

    /// Seconds of the monotonic clock.
    fileprivate private(set) var second = Int64.min
    private var secondEnd = Instant(nanoseconds: .min)
    private var shares: InlineArray<2, Share>

    /// - Parameters:
    ///   - rowsPerSecond: at most; never less than `Limits.tickRowsPerSymbolMin` for each symbol.
    ///   - sampleRate: ordinary ticks for a row on a quiet host.
    package init(rowsPerSecond: Int64, sampleRate: Int64, symbols: Int) {
        let half = max(rowsPerSecond, Int64(symbols) * Limits.tickRowsPerSymbolMin) / 2
        let pool = half - 2 * Int64(symbols)
        shares = [
            Share(pool: pool, left: pool, baseStep: sampleRate, step: sampleRate), Share(pool: pool, left: pool, baseStep: 1, step: 1),
        ]
    }

    fileprivate func step(_ share: Int) -> Int64 { shares[share].step }
    fileprivate func baseStep(_ share: Int) -> Int64 { shares[share].baseStep }

    /// A clock that went back stays in the second it was in.
    fileprivate mutating func advance(to now: Instant) {
        guard now >= secondEnd else { return }
        let next = now.nanoseconds.flooredDivision(by: 1_000_000_000)
        let isNext = next == second &+ 1
        second = next
        secondEnd = Instant(nanoseconds: (next + 1) * 1_000_000_000)
        for index in shares.indices {
            let rows = isNext ? shares[index].ticks / shares[index].baseStep : 0
            let aim = max(1, shares[index].pool * 3 / 4)
            shares[index].factor = max(1, (rows + aim - 1) / aim)
            shares[index].ticks = 0
            shares[index].left = shares[index].pool
            stretch(index)
        }
    }

    fileprivate mutating func count(_ share: Int, row: Row?) {
        shares[share].ticks += 1
        guard case .pooled = row else { return }
        shares[share].left -= 1
        stretch(share)
    }

    private mutating func stretch(_ share: Int) {
        let (pool, left) = (shares[share].pool, shares[share].left)
        guard left > 0 else {
            shares[share].step = .max
            return
        }
        // A pool below 2^20 rows halves at most 20 times; a factor is at most the ticks of a second.
        var factor = shares[share].factor
        var rest = left * 4
        while rest <= pool {
            factor *= 2
            rest *= 2
        }
        shares[share].step = shares[share].baseStep * factor
    }
}

/// Which orders get a row in the quotes feed (SPEC 2.5): every filled one, with weight 1, and each n-th of the others, which weighs what came
/// since the one before it. Orders are few enough by their rate limit, so there is no budget.
package struct QuoteSampling: Sendable {
    private var waiting: Int64 = 0
    package init() {}

    /// Counts an order that ended; the weight of its row, or nil when it gets none.
    package mutating func count(hasFilled: Bool, sampleRate: Int64) -> Int64? {
        if hasFilled { return 1 }
        waiting += 1
        guard waiting >= sampleRate else { return nil }
        defer { waiting = 0 }
        return waiting
    }
}
