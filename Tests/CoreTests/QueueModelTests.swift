import CalibModel
import TestSupport
import Testing

@testable import EdgeCore

/// Both queue models against a plain account of the same level, kept in exact fractions.
@Suite struct QueueModelTests {
    /// A fraction in lowest terms is not needed: numbers stay small.
    private struct Fraction {
        var numerator: Int128
        var denominator: Int128
        static func - (a: Fraction, b: Fraction) -> Fraction {
            Fraction(numerator: a.numerator * b.denominator - b.numerator * a.denominator, denominator: a.denominator * b.denominator)
                .reduced
        }
        var reduced: Fraction {
            var (a, b) = (numerator.magnitude, denominator.magnitude)
            while b > 0 { (a, b) = (b, a % b) }
            let divisor = Int128(max(1, a))
            return Fraction(numerator: numerator / divisor, denominator: denominator / divisor)
        }
        var value: Double { Double(numerator) / Double(denominator) }
    }

    @Test func conservative_onlyTradesAndTheDisplayBringUsForward() {
        var queue = QueuePosition(displayed: 100)
        queue.display(60)  // 40 cancelled: behind us, as far as the display allows.
        #expect(queue.ahead == 60)
        queue.display(200)
        queue.display(80)
        #expect(queue.ahead == 60, "120 cancelled, all of it may have been behind us")
        #expect(queue.trade(30) == 0 && queue.ahead == 30)
        queue.display(50)
        #expect(queue.ahead == 30, "the display's fall is the trade that was told before")
        #expect(queue.trade(45) == 15 && queue.ahead == 0)
    }

    @Test func probabilistic_cancelsAheadOfUsByTheirShare() {
        var queue = QueuePosition(displayed: 100, model: .probabilistic)
        queue.display(200)  // 100 joined behind us.
        #expect(queue.ahead == 100)
        queue.display(160)  // 40 cancelled of 200, half of which stood ahead.
        #expect(queue.ahead == 80)
        #expect(queue.trade(20) == 0 && queue.ahead == 60)
        queue.display(140)  // The trade, nothing else.
        #expect(queue.ahead == 60)
        #expect(queue.trade(10) == 0)
        queue.display(104)  // 130 after the trade; 26 cancelled of 130, 50/130 of them ahead.
        #expect(queue.ahead == 40)
        #expect(queue.takeAbsorbed() == 60)
    }

    /// 1000 cancellations of one lot out of 1000 ahead and 1000 behind must not be rounded to none.
    @Test func probabilistic_smallCancellationsAddUp() {
        var queue = QueuePosition(displayed: 1_000, model: .probabilistic)
        queue.display(2_000)
        for step in 1...1_000 { queue.display(2_000 - Int64(step)) }
        #expect((495...505).contains(queue.ahead), "\(queue.ahead)")
    }

    @Test(arguments: [QueueModel.conservative, .probabilistic], [UInt64](1...20))
    func randomLevels(model: QueueModel, seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var displayed = Int64(random.next(below: 500))
        var queue = QueuePosition(displayed: displayed, model: model)
        var exact = Fraction(numerator: Int128(displayed), denominator: 1)
        var traded: Int64 = 0
        for _ in 0..<40 {
            let before = queue.ahead
            if random.next(below: 3) == 0 {
                let lots = Int64(random.next(below: 40)) + 1
                let reaching = queue.trade(lots)
                #expect(reaching == lots - min(before, lots))
                exact =
                    exact.value <= Double(lots)
                    ? Fraction(numerator: 0, denominator: 1) : exact - Fraction(numerator: Int128(lots), denominator: 1)
                traded = min(displayed, traded + lots)
            } else {
                let next = max(0, displayed + Int64(random.next(below: 120)) - 60)
                queue.display(next)
                let level = displayed - traded
                let cancelled = level - next
                if model == .probabilistic, cancelled > 0, exact.value > 0 {
                    let whole = max(Double(level), exact.value)
                    // In doubles: the fractions of forty steps do not fit.
                    exact = Fraction(
                        numerator: Int128((exact.value - Double(cancelled) * exact.value / whole) * 1e9), denominator: 1_000_000_000)
                }
                if Double(next) < exact.value { exact = Fraction(numerator: Int128(next), denominator: 1) }
                (displayed, traded) = (next, 0)
            }
            #expect(queue.ahead <= before, "a place never gets worse")
            #expect(queue.ahead >= 0 && queue.ahead <= max(displayed, before))
            #expect((Double(queue.ahead) - exact.value).magnitude < 2, "\(queue.ahead) and \(exact.value)")
            if model == .conservative { #expect(Double(queue.ahead) == exact.value) }
        }
    }

    @Test func theLargestQuantitiesFit() {
        var queue = QueuePosition(displayed: Limits.decimalMax, model: .probabilistic)
        for lots in [Limits.decimalMax, 1] { _ = queue.trade(lots) }
        queue = QueuePosition(displayed: Limits.decimalMax, model: .probabilistic)
        queue.display(1)
        #expect(queue.ahead == 1)
        queue.display(Limits.decimalMax)
        queue.display(0)
        #expect(queue.ahead == 0)
    }
}
