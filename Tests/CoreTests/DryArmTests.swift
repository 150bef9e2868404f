import CalibModel
import Testing

@testable import EdgeCore

/// A dry B decides on every tick that A decides on, fills on its own paper exchange, and leaves nothing but rows (SPEC 7.2; fault 17).
struct DryArmTests {
    /// Keeps a noncopyable arm where a closure can reach it.
    private final class Second {
        var arm: DryArm
        var rows: [SnapshotRecord] = []
        /// No record can be handed on.
        var isFull = false
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
            take()
        }

        func finish() -> Bool {
            if isFull { outbox.limit = outbox.committed }
            let isDone = arm.finish(to: &outbox)
            take()
            return isDone
        }

        private func take() {
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

    /// Up to ten seconds of each symbol are not in any row yet.
    @Test func itsEndLosesNoRow_howeverFullTheRing() {
        let it = QuoteBench()
        let second = Second(it) { _ in }
        it.quoting()
        for _ in 0..<20 { it.tick(after: 10) }
        second.advance(to: it.now)
        #expect(second.rows.isEmpty)
        second.isFull = true
        for _ in 0..<3 { #expect(!second.finish()) }
        second.isFull = false
        #expect(second.finish())
        #expect(second.rows.reduce(0) { $0 + $1.counts.ticks } == it.ticks() && it.ticks() > 20)
        #expect(second.finish() && second.rows.count == 1, "no row twice")
    }

    /// A live one awaits answers to the pings that were sent, and to no others.
    @Test func itAwaitsTheFirstNodesPingsOnly() {
        var arm = DryArm(
            venue: .bybit, instruments: [Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1)],
            parameters: Parameters(), candidate: Parameters(), experiment: ExperimentID("e1"), configHash: 7, enrolled: [true],
            connections: 1, clock: StopClock { 0 }, at: Self.moment(0))
        arm.connected(0, at: Self.moment(0))
        arm.pinged(at: Self.moment(1))
        arm.pong(on: 0, at: Self.moment(6))
        let answered = arm.pulse(of: 0)
        #expect(answered.pings == 1 && answered.pongs == 1 && answered.medianTrip == 5_000_000)
        for millisecond in 7..<1_000 { arm.advance(to: Self.moment(Int64(millisecond))) }
        let silent = arm.pulse(of: 0)
        #expect(silent.pings == 1 && silent.gaps == 0)
        arm.pinged(at: Self.moment(1_000))
        for millisecond in 1_000..<2_000 { arm.advance(to: Self.moment(Int64(millisecond))) }
        let unanswered = arm.pulse(of: 0)
        #expect(unanswered.gaps == 1)
    }

    private static func moment(_ milliseconds: Int64) -> Moment {
        let nanoseconds = (QuoteBench.start + milliseconds) * 1_000_000
        return Moment(instant: Instant(nanoseconds: nanoseconds), wall: WallTime(nanoseconds: nanoseconds))
    }

    @Test func anInstrumentThatChangedIsNotQuotedByItEither() {
        let it = QuoteBench()
        let second = Second(it) { _ in }
        it.quoting()
        second.arm.instrumentChanged(0, at: it.now)
        it.advance(10)
        it.trade("99.9", "0.004", sells: true)
        it.advance(20_000)
        second.advance(to: it.now)
        #expect(it.fills.count == 1 && !second.rows.isEmpty && second.rows.allSatisfy { $0.counts.fills == 0 })
    }
}
