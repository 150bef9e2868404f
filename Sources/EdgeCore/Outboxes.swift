import CalibModel

/// The rings of one edge, one per feed (SPEC 2.7): fills and events have their own, so that ticks cannot push them out.
package struct Outboxes {
    package var fills: Outbox<FillRecord>
    package var markouts: Outbox<MarkoutRecord>
    package var events: Outbox<EventRecord>
    package var snapshots: Outbox<SnapshotRecord>
    package var quotes: Outbox<QuoteRecord>
    package var ticks: Outbox<TickRecord>

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

    /// Whether one more frame's records fit for certain: a frame fills at most both sides' orders a few times, and a pause before it may
    /// close up to `silenceSecondsMax` seconds and complete every pending markout in batches of this size.
    package func hasRoom(for records: Int) -> Bool {
        min(fills.room, markouts.room, events.room, min(snapshots.room, quotes.room, ticks.room)) >= records
    }
}
