/// The producer's end of a bounded ring of records: a core builds a record in its slot, the shell publishes what was committed.
///
/// The shell owns the memory and the atomics: before a frame it raises `limit` to what the consumer has freed, after it publishes
/// `committed`. A core therefore needs no lock and no atomic, and a test needs nothing but this type.
public struct Outbox<Record: BitwiseCopyable> {
    @usableFromInline let slots: UnsafeMutablePointer<Record>
    @usableFromInline let mask: Int
    /// Records committed since the beginning.
    public private(set) var committed = 0
    /// The first position that must not be written yet.
    public var limit: Int
    /// Records refused because the ring was full. What follows from it is the caller's rule (SPEC 2.7).
    public private(set) var refused = 0

    /// `capacity` is a power of two; the memory must outlive the outbox.
    public init(slots: UnsafeMutablePointer<Record>, capacity: Int) {
        precondition(capacity > 0 && capacity & (capacity - 1) == 0, "BUG: ring capacity \(capacity) is no power of two")
        self.slots = slots
        self.mask = capacity - 1
        self.limit = capacity
    }

    /// How many records can be committed before the consumer frees a slot.
    public var room: Int { limit - committed }

    /// Copies the record into the next slot; false, and counted, when the ring is full.
    @discardableResult public mutating func push(_ record: Record) -> Bool {
        guard let slot = reserve() else { return false }
        slot.initialize(to: record)
        commit()
        return true
    }

    /// The next slot, to be filled in place and then committed; nil, and counted, when the ring is full.
    public mutating func reserve() -> UnsafeMutablePointer<Record>? {
        guard committed < limit else {
            refused += 1
            return nil
        }
        return slots + (committed & mask)
    }

    public mutating func commit() { committed += 1 }
}
