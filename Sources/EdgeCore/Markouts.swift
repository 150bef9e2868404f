import CalibModel

/// Fills whose mid after 1, 5 and 30 s is not known yet, oldest first (SPEC 1.3, 2.4).
///
/// Every fill waits equally long, so each horizon is a cursor that only moves forward.
struct MarkoutQueue: ~Copyable {
    struct Pending {
        var record: MarkoutRecord
        var filledAt: Instant
        var side: Side
        var price: Int64
        var midAtFillTwice: Int64
        /// 1e-8 quote currency.
        var notional: Int64
        var fee: BasisPoints
    }

    static let horizons: (first: Int64, second: Int64, last: Int64) = (1_000_000_000, 5_000_000_000, 30_000_000_000)

    private let entries: UnsafeMutablePointer<Pending>
    private static let capacity = Limits.pendingMarkoutsMax
    private var start = 0
    private var end = 0
    private var after1s = 0
    private var after5s = 0

    init() { entries = .allocate(capacity: Self.capacity) }
    deinit { entries.deallocate() }

    var isFull: Bool { end - start == Self.capacity }
    var isEmpty: Bool { end == start }

    mutating func add(_ pending: Pending) {
        precondition(!isFull, "BUG: markout queue is full")
        entries[end % Self.capacity] = pending
        end += 1
        noteDue()
    }

    /// What comes due next at or before `now`, or nil. The caller handles it and calls again.
    enum Due {
        case after1s(Int)
        case after5s(Int)
        case complete(Pending)
    }

    /// When the first of the horizons to be reached next is reached.
    private var dueAt = Instant(nanoseconds: .max)

    /// Whether `next` has something: asked with each frame, so it looks at nothing else.
    @inline(__always) func isDue(at now: Instant) -> Bool { now >= dueAt }

    private mutating func noteDue() {
        var due = Int64.max
        if after1s < end { due = entries[after1s % Self.capacity].filledAt.nanoseconds + Self.horizons.first }
        if after5s < after1s { due = min(due, entries[after5s % Self.capacity].filledAt.nanoseconds + Self.horizons.second) }
        if start < after5s { due = min(due, entries[start % Self.capacity].filledAt.nanoseconds + Self.horizons.last) }
        dueAt = Instant(nanoseconds: due)
    }

    /// - Parameters:
    ///   - midTwice: twice the mid that held until `now`, nil when the book was not proven.
    ///   - canComplete: whether a completed row has a place to go; one that has not waits.
    mutating func next(at now: Instant, midTwice: Int64?, canComplete: Bool) -> Due? {
        defer { noteDue() }
        if after1s < end, now.since(entries[after1s % Self.capacity].filledAt) >= Self.horizons.first {
            let index = after1s % Self.capacity
            entries[index].record.midTwiceAfter1s = midTwice
            after1s += 1
            return .after1s(index)
        }
        if after5s < after1s, now.since(entries[after5s % Self.capacity].filledAt) >= Self.horizons.second {
            let index = after5s % Self.capacity
            entries[index].record.midTwiceAfter5s = midTwice
            after5s += 1
            return .after5s(index)
        }
        if canComplete, start < after5s, now.since(entries[start % Self.capacity].filledAt) >= Self.horizons.last {
            entries[start % Self.capacity].record.midTwiceAfter30s = midTwice
            return removeFirst().map(Due.complete)
        }
        return nil
    }

    /// Takes the oldest out as it is: shutdown, or the queue is full. What is not known yet stays nil.
    mutating func removeFirst() -> Pending? {
        guard start < end else { return nil }
        defer {
            start += 1
            after1s = max(after1s, start)
            after5s = max(after5s, start)
            noteDue()
        }
        return entries[start % Self.capacity]
    }

    subscript(index: Int) -> Pending {
        get { entries[index] }
        set { entries[index] = newValue }
    }
}
