/// The producer's end of a bounded ring of records: a core builds a record in its slot, the shell publishes what was committed.
///
/// The shell owns the memory and the atomics: before a frame it raises `limit` to what the consumer has freed, after it publishes
/// `committed`. A core therefore needs no lock and no atomic, and a test needs nothing but this type.
public struct Outbox<Record: BitwiseCopyable> {
    @usableFromInline let slots: UnsafeMutablePointer<Record>
    @usableFromInline let mask: Int
    @usableFromInline var committedCount = 0
    @usableFromInline var refusedCount = 0
    /// The first position that must not be written yet.
    public var limit: Int

    /// `capacity` is a power of two; the memory must outlive the outbox.
    public init(slots: UnsafeMutablePointer<Record>, capacity: Int) {
        precondition(capacity > 0 && capacity & (capacity - 1) == 0, "BUG: ring capacity \(capacity) is no power of two")
        self.slots = slots
        self.mask = capacity - 1
        self.limit = capacity
    }

    /// Records committed since the beginning.
    @inlinable public var committed: Int { committedCount }
    /// Records refused because the ring was full. What follows from it is the caller's rule (SPEC 2.7).
    @inlinable public var refused: Int { refusedCount }

    /// How many records can be committed before the consumer frees a slot.
    @inlinable public var room: Int { limit &- committedCount }

    /// Copies the record into the next slot; false, and counted, when the ring is full.
    @inlinable @discardableResult public mutating func push(_ record: Record) -> Bool {
        guard let slot = reserve() else { return false }
        slot.initialize(to: record)
        commit()
        return true
    }

    /// The next slot, to be filled in place and then committed; nil, and counted, when the ring is full.
    @inlinable public mutating func reserve() -> UnsafeMutablePointer<Record>? {
        guard committedCount < limit else {
            refusedCount &+= 1
            return nil
        }
        return slots + (committedCount & mask)
    }

    @inlinable public mutating func commit() { committedCount &+= 1 }
}
