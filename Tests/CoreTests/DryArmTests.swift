import CalibModel
import Testing

@testable import EdgeCore

/// A dry B decides on every tick that A decides on, fills on its own paper exchange, and leaves nothing but rows (SPEC 7.2; fault 17).
struct DryArmTests {
    /// Keeps a noncopyable arm where a closure can reach it.
    private final class Second {
        var arm: DryArm
        var rows: [SnapshotRecord] = []
        private let slots = UnsafeMutablePointer<SnapshotRecord>.allocate(capacity: 256)
        private var outbox: Outbox<SnapshotRecord>
        private var read = 0

        init(_ it: QuoteBench, _ change: (inout Parameters) -> Void) {
            var candidate = it.node.shared.parameters
            change(&candidate)
            outbox = Outbox(slots: slots, capacity: 256)
            arm = DryArm(
                venue: .binanceUSDM,
                instruments: [Instrument(symbol: "S0", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1)],
                parameters: it.node.shared.parameters, candidate: candidate, experiment: ExperimentID("e1"), configHash: 7,
                enrolled: [true], isRecorded: true, connections: 1, clock: StopClock { 0 }, at: it.now)
            it.listener = { [unowned self] bytes, connection, now in arm.frame(bytes, on: connection, at: now) }
        }

        deinit { slots.deallocate() }

        func advance(to now: Moment) {
            arm.advance(to: now)
            arm.pass(to: &outbox)
            while read < outbox.committed {
                rows.append(slots[read & 255])
                read += 1
            }
            outbox.limit = outbox.committed + 256
        }
    }

    @Test func bothArmsSeeEveryTick_andFillByTheirOwnQuotes() {
        let it = QuoteBench()
        let second = Second(it) { parameters in
            parameters.spread.base = BasisPoints(60)!
            parameters.spread.maximum = BasisPoints(80)!
        }
        it.quoting()
        for _ in 0..<20 { it.tick(after: 10) }
        // Through A's bid at 100.0, short of B's at 99.8; then through both.
        it.trade("99.9", "0.004", sells: true)
        #expect(it.fills.count == 1)
        it.trade("99.0", "0.004", sells: true)
        it.advance(20_000)
        second.advance(to: it.now)
        let fields = ArmFields(arm: .b, why: .dry, experiment: ExperimentID("e1"), configHash: 7)
        #expect(!second.rows.isEmpty && second.rows.allSatisfy { $0.armFields == fields })
        let b = second.rows.reduce(into: (ticks: Int64(0), fills: Int64(0))) {
            $0.ticks += $1.counts.ticks
            $0.fills += $1.counts.fills
        }
        #expect(b.ticks == it.ticks() && b.ticks > 20)
        #expect(b.fills == 1 && it.fills.count == 2)
        #expect(it.fills.allSatisfy { $0.armFields.arm == .a }, "nothing of B is a fill of the edge")
    }
}
