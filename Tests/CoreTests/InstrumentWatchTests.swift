import CalibModel
import Testing

@testable import EdgeCore

/// When the venue's instruments are looked at again, and what is said of them.
@Suite struct InstrumentWatchTests {
    private static let hour: Int64 = 3_600_000_000_000
    private func at(_ nanoseconds: Int64) -> Instant { Instant(nanoseconds: nanoseconds) }
    private func instrument(_ symbol: String, tickUnits: Int64 = 1, minimumNotional: Int64 = 0) -> Instrument {
        Instrument(
            symbol: symbol, priceDigits: 1, tickUnits: tickUnits, quantityDigits: 3, lotUnits: 1, minimumNotional: minimumNotional)
    }

    @Test func itLooksEachHour_onceAtATime() {
        var watch = InstrumentWatch([instrument("A")], at: at(5))
        let looks = [5, Self.hour + 4, Self.hour + 5, 3 * Self.hour].map { watch.takeDue(at: at($0)) }
        #expect(looks == [false, false, true, false], "the third look waits for the second's answer")
        let news = watch.answered([instrument("A")])
        let next = [3 * Self.hour, 3 * Self.hour + 1].map { watch.takeDue(at: at($0)) }
        #expect(news == [] && next == [true, false])
        watch.failed()
        let afterFailure = [3 * Self.hour + 2, 4 * Self.hour].map { watch.takeDue(at: at($0)) }
        #expect(afterFailure == [false, true], "no sooner than in an hour")
    }

    @Test func whoDoesNotWantToWaitDoesNot() {
        var watch = InstrumentWatch([instrument("A")], at: at(0))
        watch.hurry(at: at(7))
        let looks = [6, 7].map { watch.takeDue(at: at($0)) }
        #expect(looks == [false, true])
    }

    @Test func aChangedOrMissingInstrumentIsToldOnce() {
        var watch = InstrumentWatch([instrument("A"), instrument("B"), instrument("C")], at: at(0))
        let news = [
            watch.answered([instrument("A"), instrument("B", tickUnits: 5), instrument("C"), instrument("D")]),
            watch.answered([instrument("A", minimumNotional: 7), instrument("B", tickUnits: 5)]), watch.answered([]),
        ]
        #expect(news == [["B"], ["A", "C"], []])
    }
}
