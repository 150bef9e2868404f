import CalibModel

/// When a venue is asked again for its instruments, and what has changed since the start (SPEC 3.1): each hour, and when somebody who has read the
/// venue's announcement does not want to wait (SIGHUP).
package struct InstrumentWatch: Sendable {
    private let known: [Instrument]
    private var dueAt: Instant
    private var isAsking = false
    private var told: Set<String> = []

    /// - Parameter known: what the venue said at the start, of the symbols that no file names.
    package init(_ known: [Instrument], at now: Instant) {
        self.known = known
        dueAt = now.advanced(nanoseconds: Limits.instrumentRefreshNanoseconds)
    }

    /// The next look is now.
    package mutating func hurry(at now: Instant) { dueAt = now }

    /// Whether to ask now; `answered` or `failed` follows.
    package mutating func takeDue(at now: Instant) -> Bool {
        guard !isAsking, now >= dueAt else { return false }
        isAsking = true
        dueAt = now.advanced(nanoseconds: Limits.instrumentRefreshNanoseconds)
        return true
    }

    /// The symbols that are not what they were, or not there any more; each is told once.
    package mutating func answered(_ found: [Instrument]) -> [String] {
        isAsking = false
        let news = known.filter { !found.contains($0) && !told.contains($0.symbol) }.map(\.symbol)
        told.formUnion(news)
        return news
    }

    /// No answer: the next look is the next hour's.
    package mutating func failed() { isAsking = false }
}
