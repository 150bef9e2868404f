import CalibModel
import TestSupport
import Testing

@testable import EdgeCore

/// Each feature of SPEC 5 against its definition, computed here from plain arrays.
@Suite struct FeatureTests {
    private func second(
        mid: Int64? = 20_000, top: Int64? = 10, mark: Double? = 0, full: Double = 1_000_000, ahead: (Int64?, Int64?) = (nil, nil),
        absorbed: (Int64, Int64) = (0, 0)
    ) -> FeatureSet.Second {
        FeatureSet.Second(midTwice: mid, topLots: top, markTwice: mark, fullPositionTwice: full, ahead: ahead, absorbed: absorbed)
    }

    private func close(_ a: Double?, _ b: Double?) -> Bool {
        guard let a, let b else { return a == nil && b == nil }
        return (a - b).magnitude <= 1e-12 * max(1, b.magnitude)
    }

    @Test func everythingIsUnknownAtFirst() {
        let features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for feature in Feature.allCases {
            let value = features.value(feature, lot: 0.001)
            #expect(value == nil, "\(feature)")
        }
    }

    @Test func volatilityIsTheRootOfTheAverageSquaredReturn() {
        var random = SeededRandom(seed: 3)
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        var mids: [Int64] = []
        for index in 0..<200 {
            mids.append(20_000 + Int64(random.next(below: 200)) - 100)
            _ = features.step(second(mid: mids[index]), second: Int64(index + 1))
        }
        var average: Double?
        for (previous, current) in zip(mids, mids.dropFirst()) {
            let change = 2 * Double(current - previous) / Double(current + previous) * 1e4
            average = average.map { 0.9 * $0 + 0.1 * change * change } ?? change * change
        }
        let value = features.value(.volRealized, lot: 1)
        #expect(close(value, average!.squareRoot()))
    }

    /// Fault 24: 0 is a value, not a beginning. A gap in the proof leaves no return across it.
    @Test func zeroReturnsCount_andNoReturnSpansAnUnprovenBook() {
        var features = FeatureSet(emaAlpha: 0.5, targetPnL: .zero)
        let squares = [(20_000, 1), (20_000, 2), (20_020, 3), (nil, 4), (30_000, 5), (30_000, 6)].map { (mid: Int64?, at: Int64) in
            features.step(second(mid: mid), second: at)
        }
        #expect(squares.map { $0 == nil } == [true, false, false, true, true, false])
        let jump = 2.0 * 20 / 40_020 * 1e4
        #expect(close(features.volRealized.map { $0 * $0 }, jump * jump * 0.5 * 0.5))
    }

    @Test func depthIsAveragedInBaseAsset() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for (index, lots) in [Int64(10), 20, 40].enumerated() { _ = features.step(second(top: lots), second: Int64(index + 1)) }
        #expect(close(features.value(.liqTopDepth, lot: 0.001), ((10 * 0.9 + 20 * 0.1) * 0.9 + 40 * 0.1) * 0.001))
    }

    @Test func fillRateAndTakerShareAreRatiosOfTheLast300Seconds() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for _ in 0..<10 { features.quoted() }
        features.filled(slip: .zero, isTaker: false, isFirstOfOrder: true)
        features.filled(slip: .zero, isTaker: true, isFirstOfOrder: false)
        #expect(features.value(.fillRate, lot: 1) == 0.1 && features.value(.takerShare, lot: 1) == 0.5)
        for index in 1...299 { _ = features.step(second(), second: Int64(index)) }
        #expect(features.value(.fillRate, lot: 1) == 0.1, "299 s later they are still in the window")
        _ = features.step(second(), second: 300)
        #expect(features.value(.fillRate, lot: 1) == nil && features.value(.takerShare, lot: 1) == nil, "an empty denominator is unknown")
    }

    /// Fault 26: the estimate froze when the queue stalled. ETA is the ratio of two averages, and unknown at rate 0.
    @Test func queueETAIsTheLongerSide_andUnknownAtRateZero() {
        var features = FeatureSet(emaAlpha: 0.5, targetPnL: .zero)
        _ = features.step(second(ahead: (100, 60), absorbed: (10, 20)), second: 1)
        #expect(close(features.value(.queueETA, lot: 0.1), 10_000))
        #expect(close(features.value(.queueAbsorbRate, lot: 0.1), 3))
        _ = features.step(second(ahead: (50, nil), absorbed: (30, 5)), second: 2)
        #expect(close(features.value(.queueETA, lot: 0.1), 1000 * 75.0 / 20), "the side without an order keeps its last value")
        var stalled = FeatureSet(emaAlpha: 0.5, targetPnL: .zero)
        _ = stalled.step(second(ahead: (100, 60), absorbed: (0, 20)), second: 1)
        #expect(stalled.value(.queueETA, lot: 1) == nil)
    }

    /// Fault 19: slippage and adverse move are signed.
    @Test func costsAreSigned() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        features.filled(slip: BasisPoints(-0.2)!, isTaker: false, isFirstOfOrder: true)
        features.filled(slip: BasisPoints(0.4)!, isTaker: false, isFirstOfOrder: true)
        features.markedOut(adverse: BasisPoints(-1)!)
        #expect(close(features.value(.slippage, lot: 1), -0.14) && close(features.value(.adverseMove, lot: 1), -1))
    }

    @Test func pnlDeviationIsTheChangeOfAMinuteAgainstTheTarget() {
        var features = FeatureSet(emaAlpha: 1, targetPnL: BasisPoints(0.5)!)
        for index in 0..<60 { _ = features.step(second(mark: Double(index) * 10), second: Int64(index + 1)) }
        #expect(features.value(.pnlDev, lot: 1) == nil, "not before a whole minute")
        _ = features.step(second(mark: 1_000), second: 61)
        #expect(close(features.value(.pnlDev, lot: 1), 1000.0 / 1_000_000 * 1e4 - 0.5))
    }

    /// mean of the last 10 / (sd of the last 60 / sqrt 10), from 30 minutes on.
    @Test func pnlZFollowsItsFormula() {
        var random = SeededRandom(seed: 5)
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        var mark: Int64 = 0
        var minuteMarks: [Int64] = []
        for index in 1...(60 * 75) {
            mark += Int64(random.next(below: 41)) - 20
            _ = features.step(second(mark: Double(mark)), second: Int64(index))
            if index.isMultiple(of: 60) { minuteMarks.append(mark) }
            if minuteMarks.count == 30 { #expect(features.pnlZ == nil, "29 changes are too few") }
        }
        let changes = zip(minuteMarks, minuteMarks.dropFirst()).map { Double($1 - $0) / 1_000_000 * 1e4 }.suffix(60)
        let mean = changes.reduce(0, +) / 60
        let deviation = (changes.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 59).squareRoot()
        let expected = changes.suffix(10).reduce(0, +) / 10 / (deviation / 10.0.squareRoot())
        #expect((features.pnlZ! - expected).magnitude < 1e-9)
    }

    @Test func latencyP95IsTheOneQuantile_overTheLastMinutes() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for value in 1...100 { features.ticked(nanoseconds: Int64(value)) }
        #expect(features.latencyP95 == 96)  // ascending[95]
        for index in 1...(5 * 60) { _ = features.step(second(), second: Int64(index)) }
        #expect(features.latencyP95 == nil)
    }

    @Test func takerFillsAreForgottenAfter15Minutes() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        for _ in 0..<12 { features.filled(slip: .zero, isTaker: true, isFirstOfOrder: true) }
        #expect(features.takerFills15Minutes == 12)
        for index in 1..<(15 * 60) { _ = features.step(second(), second: Int64(index)) }
        #expect(features.takerFills15Minutes == 12)
        _ = features.step(second(), second: 15 * 60)
        #expect(features.takerFills15Minutes == 0)
    }
}
