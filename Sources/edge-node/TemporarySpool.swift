import CalibModel
import EdgeCore
import NodeShell
struct FeedStatistics { var rows: [Feed: Int64] = [:] }
final class FeedSpool {
    init(directory: String, source: String, venue: String, host: String, configHash: UInt64, instruments: [Instrument]) throws(FileError) {}
    var existingRows: Bool { false }
    var runNumber: Int64 { 1 }
    var firstFillID: Int64 { 1 }
    let m = OutboxMemory()
    func makeOutboxes() -> Outboxes { m.makeOutboxes() }
    func publish(_ o: inout Outboxes) { m.discard(&o) }
    func waitForRoom(_ o: inout Outboxes, records: Int) throws(FileError) {}
    func finish(_ o: inout Outboxes) throws(FileError) -> FeedStatistics { FeedStatistics() }
}
final class OutboxMemory {
    func box<T: BitwiseCopyable>(_ t: T.Type) -> Outbox<T> { Outbox(slots: .allocate(capacity: 256), capacity: 256) }
    func makeOutboxes() -> Outboxes { Outboxes(fills: box(FillRecord.self), markouts: box(MarkoutRecord.self), events: box(EventRecord.self), snapshots: box(SnapshotRecord.self), quotes: box(QuoteRecord.self), ticks: box(TickRecord.self)) }
    func discard(_ o: inout Outboxes) { o.fills.limit = o.fills.committed + 256; o.markouts.limit = o.markouts.committed + 256; o.events.limit = o.events.committed + 256; o.snapshots.limit = o.snapshots.committed + 256; o.quotes.limit = o.quotes.committed + 256; o.ticks.limit = o.ticks.committed + 256 }
}
