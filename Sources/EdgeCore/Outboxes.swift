import CalibModel

/// The rings of one edge, one per feed (SPEC 2.7): fills and events have their own, so that ticks cannot push them out.
package struct Outboxes {
    package var fills: Outbox<FillRecord>
    package var markouts: Outbox<MarkoutRecord>
    package var events: Outbox<EventRecord>
    package var snapshots: Outbox<SnapshotRecord>
    package var quotes: Outbox<QuoteRecord>
    package var ticks: Outbox<TickRecord>

    /// Slots per ring. Each is at least one frame's records (`SharedState.recordsPerFrame`, 136), and holds what comes in the 5 ms between two
    /// drains: 4,096 quotes or ticks are 800,000 a second. A snapshot is 16 KB, so 256 of them are 4 MB. After a pause one frame may complete
    /// every pending markout of a symbol (`Limits.pendingMarkoutsMax`, 4,096).
    package enum Capacity {
        package static let fills = 1024
        package static let markouts = 8192
        package static let events = 1024
        package static let snapshots = 256
        package static let quotes = 4096
        package static let ticks = 4096
        package static var smallest: Int { min(fills, markouts, events, min(snapshots, quotes, ticks)) }
    }

    package init(
        fills: Outbox<FillRecord>, markouts: Outbox<MarkoutRecord>, events: Outbox<EventRecord>, snapshots: Outbox<SnapshotRecord>,
        quotes: Outbox<QuoteRecord>, ticks: Outbox<TickRecord>
    ) {
        self.fills = fills
        self.markouts = markouts
        self.events = events
        self.snapshots = snapshots
        self.quotes = quotes
        self.ticks = ticks
    }

    /// Whether one more frame's records fit: a frame fills at most both sides' orders a few times, and a pause before it may close up to
    /// `silenceSecondsMax` seconds and complete a symbol's pending markouts.
    package func hasRoom(for records: Int) -> Bool {
        min(fills.room, events.room, snapshots.room, min(quotes.room, ticks.room)) >= records
            && markouts.room >= Limits.pendingMarkoutsMax + records
    }
}

/// Slots for a node whose records nobody reads: a replay without feeds, a benchmark. It must outlive the outboxes it made.
package final class OutboxMemory {
    private let fills = UnsafeMutablePointer<FillRecord>.allocate(capacity: Outboxes.Capacity.fills)
    private let markouts = UnsafeMutablePointer<MarkoutRecord>.allocate(capacity: Outboxes.Capacity.markouts)
    private let events = UnsafeMutablePointer<EventRecord>.allocate(capacity: Outboxes.Capacity.events)
    private let snapshots = UnsafeMutablePointer<SnapshotRecord>.allocate(capacity: Outboxes.Capacity.snapshots)
    private let quotes = UnsafeMutablePointer<QuoteRecord>.allocate(capacity: Outboxes.Capacity.quotes)
    private let ticks = UnsafeMutablePointer<TickRecord>.allocate(capacity: Outboxes.Capacity.ticks)

    package init() {}
    deinit {
        fills.deallocate()
        markouts.deallocate()
        events.deallocate()
        snapshots.deallocate()
        quotes.deallocate()
        ticks.deallocate()
    }

    package func makeOutboxes() -> Outboxes {
        Outboxes(
            fills: Outbox(slots: fills, capacity: Outboxes.Capacity.fills),
            markouts: Outbox(slots: markouts, capacity: Outboxes.Capacity.markouts),
            events: Outbox(slots: events, capacity: Outboxes.Capacity.events),
            snapshots: Outbox(slots: snapshots, capacity: Outboxes.Capacity.snapshots),
            quotes: Outbox(slots: quotes, capacity: Outboxes.Capacity.quotes),
            ticks: Outbox(slots: ticks, capacity: Outboxes.Capacity.ticks))
    }

    /// The n-th event since the beginning; valid for the last `Capacity.events` of them.
    package func event(_ position: Int) -> EventRecord { events[position & (Outboxes.Capacity.events - 1)] }

    /// The n-th recorded tick since the beginning; valid for the last `Capacity.ticks` of them.
    package func tick(_ position: Int) -> TickRecord { ticks[position & (Outboxes.Capacity.ticks - 1)] }

    /// The n-th snapshot since the beginning; valid for the last `Capacity.snapshots` of them.
    package func snapshot(_ position: Int) -> SnapshotRecord { snapshots[position & (Outboxes.Capacity.snapshots - 1)] }

    /// Frees every slot, as a consumer would that is never late, but for that many snapshots. Call it after every frame.
    package func discard(_ outboxes: inout Outboxes, keepingSnapshots kept: Int = 0) {
        outboxes.fills.limit = outboxes.fills.committed + Outboxes.Capacity.fills
        outboxes.markouts.limit = outboxes.markouts.committed + Outboxes.Capacity.markouts
        outboxes.events.limit = outboxes.events.committed + Outboxes.Capacity.events
        outboxes.snapshots.limit = outboxes.snapshots.committed - kept + Outboxes.Capacity.snapshots
        outboxes.quotes.limit = outboxes.quotes.committed + Outboxes.Capacity.quotes
        outboxes.ticks.limit = outboxes.ticks.committed + Outboxes.Capacity.ticks
    }
}
