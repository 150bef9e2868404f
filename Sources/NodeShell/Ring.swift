package import CalibModel
import Synchronization

/// The shell's half of a bounded ring of records: one producer through an `Outbox`, one consumer through `drain`.
///
/// `committed` is written by the producer's thread only and `consumed` by the consumer's only; each lies on its own pair of cache lines.
/// A slot belongs to the producer from `consumed + capacity` being raised to `committed` being published, else to the consumer. The object
/// owns the slots, so it must outlive every `Outbox` made from it and both threads' last call; `@unchecked Sendable` rests on these rules.
package final class RecordRing<Record: BitwiseCopyable>: @unchecked Sendable {
    package let capacity: Int
    private let slots: UnsafeMutablePointer<Record>
    private let isolation: InlineArray<16, Int> = .init(repeating: 0)
    private let committed = Atomic<Int>(0)
    private let refused = Atomic<Int>(0)
    private let isolation2: InlineArray<16, Int> = .init(repeating: 0)
    private let consumed = Atomic<Int>(0)
    private let isolation3: InlineArray<16, Int> = .init(repeating: 0)

    /// `capacity` is a power of two.
    package init(capacity: Int) {
        precondition(capacity > 0 && capacity & (capacity - 1) == 0, "BUG: ring capacity \(capacity) is no power of two")
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
    }
    deinit { slots.deallocate() }

    // MARK: Producer

    /// The producer's end, empty. Made once.
    package func makeOutbox() -> Outbox<Record> { Outbox(slots: slots, capacity: capacity) }

    /// Hands what was committed to the consumer, and takes back the slots it has freed.
    package func publish(_ outbox: inout Outbox<Record>) {
        committed.store(outbox.committed, ordering: .releasing)
        refused.store(outbox.refused, ordering: .relaxed)
        outbox.limit = consumed.load(ordering: .acquiring) + capacity
    }

    // MARK: Consumer

    /// Calls `body` for up to `max` records, oldest first, then frees their slots. Returns how many there were.
    package func drain(max: Int, _ body: (UnsafePointer<Record>) -> Void) -> Int {
        let start = consumed.load(ordering: .relaxed)
        let end = min(committed.load(ordering: .acquiring), start + max)
        for position in start..<end { body(UnsafePointer(slots + (position & (capacity - 1)))) }
        if end > start { consumed.store(end, ordering: .releasing) }
        return end - start
    }

    /// Records the producer could not commit since the beginning, as of its last publication.
    package var refusedCount: Int { refused.load(ordering: .relaxed) }
}
