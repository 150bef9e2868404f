import CalibModel
import NodeShell
import Synchronization
import Testing

/// Idea: a producer thread commits numbered records as fast as it may, a consumer takes them in odd batches; the numbers come out complete, in
/// order and whole (both halves of a record agree), though the ring is far smaller than the traffic.
struct RingTests {
    private struct Pair: BitwiseCopyable {
        var number: Int64
        var padding: InlineArray<14, Int64>
        var complement: Int64
        init(_ number: Int64) {
            self.number = number
            padding = .init(repeating: number)
            complement = ~number
        }
    }

    @Test(arguments: [1, 2, 64])
    func recordsArriveOnceInOrderAndWhole(capacity: Int) throws {
        let count: Int64 = capacity == 1 ? 20_000 : 300_000
        let ring = RecordRing<Pair>(capacity: capacity)
        let refused = Atomic<Int>(0)
        let producer = try OwnerThread(name: "producer") {
            var outbox = ring.makeOutbox()
            var next: Int64 = 0
            while next < count {
                if outbox.room > 0 {
                    outbox.push(Pair(next))
                    next += 1
                } else {
                    refused.add(1, ordering: .relaxed)
                }
                if next % 3 == 0 || outbox.room == 0 { ring.publish(&outbox) }
            }
            ring.publish(&outbox)
        }
        var expected: Int64 = 0
        var torn = 0
        var batch = 1
        while expected < count {
            _ = ring.drain(max: batch) { pointer in
                let pair = pointer.pointee
                if pair.number != expected || pair.complement != ~expected || pair.padding[13] != expected { torn += 1 }
                expected += 1
            }
            batch = batch % 7 + 1
        }
        producer.join()
        #expect(torn == 0)
        #expect(ring.drain(max: 1) { _ in } == 0)
        if capacity < 64 { #expect(refused.load(ordering: .relaxed) > 0) }
    }

    @Test func slotsStayTakenUntilTheyAreDrained() {
        let ring = RecordRing<Int64>(capacity: 4)
        var outbox = ring.makeOutbox()
        for value in 0..<5 { outbox.push(Int64(value)) }
        ring.publish(&outbox)
        #expect(outbox.room == 0)
        #expect(ring.refusedCount == 1)
        var seen: [Int64] = []
        #expect(ring.drain(max: 3) { seen.append($0.pointee) } == 3)
        #expect(outbox.room == 0)
        ring.publish(&outbox)
        #expect(outbox.room == 3)
        #expect(ring.drain(max: 9) { seen.append($0.pointee) } == 1)
        #expect(seen == [0, 1, 2, 3])
    }

    /// Nothing committed is visible before it is published.
    @Test func unpublishedRecordsAreNotDrained() {
        let ring = RecordRing<Int64>(capacity: 4)
        var outbox = ring.makeOutbox()
        outbox.push(1)
        #expect(ring.drain(max: 9) { _ in } == 0)
        ring.publish(&outbox)
        #expect(ring.drain(max: 9) { _ in } == 1)
    }

    /// A ring before the wait is not lost: a lost one would wait for the minute.
    @Test(.timeLimit(.minutes(1))) func doorbellRungBeforeTheWaitEndsIt() throws {
        let bell = try Doorbell()
        bell.ring()
        bell.ring()
        bell.wait(milliseconds: 300_000)
        let thread = try OwnerThread(name: "ringer") { bell.ring() }
        bell.wait(milliseconds: 300_000)
        thread.join()
    }
}
