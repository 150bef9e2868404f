import CalibModel

/// Which symbols' order books are asked for over REST, and when (SPEC 3.4): one request in flight per symbol, full-jitter back-off after one that
/// led nowhere, and never more than the venue's weight allows.
///
///     idle ──want──▶ wanted(from) ──take──▶ in flight ──answered, and the book stands──▶ idle
///                        ▲                      │
///                        └── after a back-off ──┴── failed, or older than what waits for it
///
/// A wish that the weight cannot pay yet stays a wish; the symbols take turns.
package struct SnapshotRequests: Sendable {
    private enum State: Sendable, Equatable {
        case idle
        case wanted(from: Instant)
        case inFlight
    }

    private var states: [State]
    private var backOffs: [BackOff]
    /// Since when the newest book that came stands.
    private var standsSince: [Instant?]
    private var weight: RequestWeight
    private let cost: Int64
    private var wishes = 0
    /// Where the next round begins, so that the first symbols do not use up the weight of the others.
    private var next = 0

    package private(set) var sent: Int64 = 0
    package private(set) var failed: Int64 = 0
    /// Answers that were older than the oldest event waiting for them.
    package private(set) var tooOld: Int64 = 0
    package var weightTaken: Int64 { weight.taken }

    /// - Parameters:
    ///   - cost: the weight of one request.
    ///   - random: draws from a range evenly.
    package init(symbols: Int, weight: RequestWeight, cost: Int64, random: @escaping @Sendable (ClosedRange<Int64>) -> Int64) {
        states = .init(repeating: .idle, count: symbols)
        backOffs = .init(repeating: BackOff(random: random), count: symbols)
        standsSince = .init(repeating: nil, count: symbols)
        self.weight = weight
        self.cost = cost
    }

    /// The symbol's book is needed. Nothing happens while it is wanted or on its way already.
    ///
    /// - Parameter wasWrong: the book that stood was not the venue's although its chain held: the next is asked for after the back-off, which grows
    ///   until one has stood for a while.
    package mutating func want(_ symbol: SymbolIndex, at now: Instant, wasWrong: Bool = false) {
        guard states[Int(symbol)] == .idle else { return }
        let since = standsSince[Int(symbol)]
        standsSince[Int(symbol)] = nil
        if let since, !wasWrong || now.since(since) >= Limits.snapshotTrustNanoseconds { backOffs[Int(symbol)].reset() }
        if wasWrong, since != nil { return wait(symbol, at: now) }
        states[Int(symbol)] = .wanted(from: now)
        wishes += 1
    }

    /// The book is not needed any more; an answer on its way may still come.
    package mutating func drop(_ symbol: SymbolIndex) {
        guard case .wanted = states[Int(symbol)] else { return }
        states[Int(symbol)] = .idle
        wishes -= 1
    }

    /// What is to be asked for now; each is answered by `answered` or `failed`.
    package mutating func takeDue(at now: Instant) -> [SymbolIndex] {
        guard wishes > 0 else { return [] }
        var due: [SymbolIndex] = []
        for step in states.indices {
            let index = (next + step) % states.count
            guard case .wanted(let from) = states[index], from <= now else { continue }
            guard weight.take(cost, at: now) else {
                next = index
                break
            }
            states[index] = .inFlight
            wishes -= 1
            sent += 1
            due.append(SymbolIndex(index))
        }
        return due
    }

    /// An order book came. False for `isUsable`: the events that wait for it begin later, so another is needed.
    package mutating func answered(_ symbol: SymbolIndex, isUsable: Bool, at now: Instant) {
        guard states[Int(symbol)] == .inFlight else { return }  // Nobody asked: a venue repeats itself.
        if isUsable {
            standsSince[Int(symbol)] = now
            states[Int(symbol)] = .idle
        } else {
            tooOld += 1
            wait(symbol, at: now)
        }
    }

    /// No answer, or one that cannot be read. `pauseNanoseconds`: how long the venue wants to hear nothing at all.
    package mutating func failed(_ symbol: SymbolIndex, pauseNanoseconds: Int64, at now: Instant) {
        if pauseNanoseconds > 0 {
            weight.close(until: now.advanced(nanoseconds: min(pauseNanoseconds, Limits.venuePauseNanosecondsMax)))
        }
        guard states[Int(symbol)] == .inFlight else { return }
        failed += 1
        wait(symbol, at: now)
    }

    private mutating func wait(_ symbol: SymbolIndex, at now: Instant) {
        let nanoseconds = backOffs[Int(symbol)].next(atMost: Limits.snapshotBackOffNanosecondsMax)
        states[Int(symbol)] = .wanted(from: now.advanced(nanoseconds: nanoseconds))
        wishes += 1
    }
}
