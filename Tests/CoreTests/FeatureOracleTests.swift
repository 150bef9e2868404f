import CalibModel
import TestSupport
import Testing

@testable import EdgeCore

/// The ten features of SPEC 5, each worked out a second time from the raw list of what happened: no averages carried along, no rings, only the
/// definition over all events from the first one.
@Suite struct FeatureOracleTests {
    /// Everything that happened, with the second in which it did.
    private struct History {
        var seconds: [FeatureSet.Second] = []
        var quotes: [Int] = []
        var fills: [(second: Int, slip: Double, isTaker: Bool, isFirst: Bool)] = []
        var adverse: [Double] = []
        var ticks: [(second: Int, nanoseconds: Int64)] = []
    }

    private let alpha = 0.1
    private let target = 0.25

    /// The definition of an exponential average, newest weight alpha, first value whole: as one sum.
    private func average(_ values: [Double]) -> Double? {
        guard let first = values.first else { return nil }
        var sum = 0.0
        for (age, value) in values.reversed().enumerated() where age < values.count - 1 {
            sum += alpha * power(1 - alpha, age) * value
        }
        return sum + power(1 - alpha, values.count - 1) * first
    }

    private func power(_ base: Double, _ exponent: Int) -> Double { (0..<exponent).reduce(1.0) { value, _ in value * base } }

    private func expected(_ feature: Feature, _ history: History, now: Int, lot: Double) -> Double? {
        func ratio(_ numerator: Int, _ denominator: Int) -> Double? { denominator == 0 ? nil : Double(numerator) / Double(denominator) }
        let recentFills = history.fills.filter { now - $0.second < 300 }
        switch feature {
        case .volRealized:
            let returns = zip(history.seconds, history.seconds.dropFirst()).compactMap { earlier, later -> Double? in
                guard let m0 = earlier.midTwice, let m1 = later.midTwice else { return nil }
                return 2 * (Double(m1) - Double(m0)) / (Double(m1) + Double(m0)) * 1e4
            }
            return average(returns.map { $0 * $0 })?.squareRoot()
        case .liqTopDepth: return average(history.seconds.compactMap(\.topLots).map(Double.init)).map { $0 * lot }
        case .latencyP95:
            let recent = history.ticks.filter { now / 60 - $0.second / 60 < 5 }.map(\.nanoseconds).sorted()
            // Within one bucket of the quantile: 1/128 above at most.
            return Quantile.of(ascending: recent, percent: 95).map { Double($0) / 1e6 }
        case .pnlDev:
            let changes = history.seconds.indices.compactMap { index -> Double? in
                guard index >= 60, let mark = history.seconds[index].markTwice, let before = history.seconds[index - 60].markTwice else {
                    return nil
                }
                return (mark - before) / history.seconds[index].fullPositionTwice * 1e4 - target
            }
            return average(changes)
        case .fillRate: return ratio(recentFills.count { $0.isFirst }, history.quotes.count { now - $0 < 300 })
        case .takerShare: return ratio(recentFills.count { $0.isTaker }, recentFills.count)
        case .queueAbsorbRate:
            let sides = [rate(history, \.buy), rate(history, \.sell)]
            return sides.allSatisfy { $0 == nil } ? nil : sides.reduce(0) { $0 + ($1 ?? 0) } * lot
        case .queueETA:
            var longest: Double?
            for (depth, rate) in [(depth(history, \.buy), rate(history, \.buy)), (depth(history, \.sell), rate(history, \.sell))] {
                guard let depth, let rate else { continue }
                guard rate > 0 else { return nil }
                longest = max(longest ?? 0, 1_000 * depth / rate)
            }
            return longest
        case .slippage: return average(history.fills.map(\.slip))
        case .adverseMove: return average(history.adverse)
        }
    }

    private func rate(_ history: History, _ side: KeyPath<(buy: Int64, sell: Int64), Int64>) -> Double? {
        let isBuy = side == \(buy: Int64, sell: Int64).buy
        return average(
            history.seconds.filter { (isBuy ? $0.ahead.buy : $0.ahead.sell) != nil }.map { Double($0.absorbed[keyPath: side]) })
    }

    private func depth(_ history: History, _ side: KeyPath<(buy: Int64?, sell: Int64?), Int64?>) -> Double? {
        average(history.seconds.compactMap { $0.ahead[keyPath: side] }.map(Double.init))
    }

    @Test(arguments: [UInt64](1...8))
    func everyFeatureIsItsDefinition(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var features = FeatureSet(emaAlpha: alpha, targetPnL: BasisPoints(target)!)
        var history = History()
        let lot = 0.001
        var mid: Int64 = 120_000
        var mark = 0.0
        for second in 0..<900 {
            // What happens within the second, then its end.
            for _ in 0..<random.next(below: 6) {
                features.quoted()
                history.quotes.append(second)
            }
            for _ in 0..<random.next(below: 40) {
                let nanoseconds = Int64(random.next(below: 3_000_000)) + 100
                features.ticked(nanoseconds: nanoseconds)
                history.ticks.append((second, nanoseconds))
            }
            if random.next(below: 5) == 0 {
                let slip = BasisPoints(micro: Int64(random.next(below: 2_000_001)) - 1_000_000)
                let (isTaker, isFirst) = (random.next(below: 4) == 0, random.next(below: 3) > 0)
                features.filled(slip: slip, isTaker: isTaker, isFirstOfOrder: isFirst)
                history.fills.append((second, slip.value, isTaker, isFirst))
            }
            if random.next(below: 7) == 0 {
                let adverse = BasisPoints(micro: Int64(random.next(below: 4_000_001)) - 2_000_000)
                features.markedOut(adverse: adverse)
                history.adverse.append(adverse.value)
            }
            mid += Int64(random.next(below: 41)) - 20
            mark += Double(random.next(below: 2_001)) - 1_000
            let isProven = random.next(below: 20) > 0
            let end = FeatureSet.Second(
                midTwice: isProven ? mid : nil, topLots: isProven ? Int64(random.next(below: 9_000)) : nil, markTwice: mark,
                fullPositionTwice: Double(mid) * 1_000,
                ahead: (
                    random.next(below: 3) > 0 ? Int64(random.next(below: 5_000)) : nil,
                    random.next(below: 3) > 0 ? Int64(random.next(below: 5_000)) : nil
                ), absorbed: (Int64(random.next(below: 900)), Int64(random.next(below: 900))))
            _ = features.step(end, second: Int64(second + 1))
            history.seconds.append(end)
            guard [0, 1, 30, 59, 60, 61, 299, 300, 301, 600, 899].contains(second) else { continue }
            for feature in Feature.allCases {
                let actual = features.value(feature, lot: lot)
                let wanted = expected(feature, history, now: second + 1, lot: lot)
                let tolerance = feature == .latencyP95 ? 1.0 / 128 : 1e-9
                guard let actual, let wanted else {
                    #expect(
                        actual == nil && wanted == nil,
                        "\(feature.name) in second \(second): \(String(describing: actual)), \(String(describing: wanted))")
                    continue
                }
                #expect(
                    (actual - wanted).magnitude <= tolerance * max(wanted.magnitude, 1e-3),
                    "\(feature.name) in second \(second): \(actual), \(wanted)")
            }
        }
    }

    /// One path of the mid, looked at 1, 10 and 100 times a second: the same volatility (SPEC 5; fault 23 gave 0.07, 0.23 and 0.91).
    @Test func volatilityDoesNotDependOnTheSamplingRate() {
        var random = SeededRandom(seed: 17)
        // A tick of 0.1 at 10,000: the path is fine against it, and walks about 1 bps a second.
        var path: [Int64] = [100_000]
        for _ in 0..<(300 * 100) { path.append(path.last! + Int64(random.next(below: 5)) - 2) }
        let values = [1, 10, 100].map { rate -> Double in
            let it = QuoteBench { $0.guards.volatility = Parameters.Threshold(soft: 1e9, hard: 1e9) }
            it.frame("{\"lastUpdateId\":10,\"bids\":[[\"1.0\",\"5\"]],\"asks\":[[\"99999.0\",\"4\"]]}", on: 0)
            it.frame("{\"e\":\"depthUpdate\",\"E\":\(it.clock),\"s\":\"S0\",\"U\":9,\"u\":11,\"pu\":8,\"b\":[],\"a\":[]}", on: 0)
            let begin = (it.clock / 1_000 + 1) * 1_000
            // The last look of each second is at the same instant.
            for step in stride(from: 100 / rate - 1, to: path.count, by: 100 / rate) {
                it.clock = begin + Int64(step) * 10
                let (bid, ask) = (path[step] - 1, path[step] + 1)
                it.frame(
                    "{\"u\":\(20 + step),\"s\":\"S0\",\"b\":\"\(bid / 10).\(bid % 10)\",\"B\":\"1\",\"a\":\"\(ask / 10).\(ask % 10)\",\"A\":\"1\"}",
                    on: 0, after: 5)
            }
            return it.node.withSymbol(0) { $0.features.volRealized ?? .nan }
        }
        for value in values { #expect(value > 0.5 && (value / values[2] - 1).magnitude < 0.05, "\(values)") }
    }

    @Test func aSampleThatIsNotFiniteIsNotUsed_andIsCounted() {
        var features = FeatureSet(emaAlpha: 0.1, targetPnL: .zero)
        func second(_ mark: Double?) -> FeatureSet.Second {
            FeatureSet.Second(midTwice: 20_000, topLots: 10, markTwice: mark, fullPositionTwice: 1e6, ahead: (nil, nil), absorbed: (0, 0))
        }
        for index in 0..<100 { _ = features.step(second(index == 40 ? .nan : index == 41 ? .infinity : 0), second: Int64(index + 1)) }
        let rejected = features.takeRejected()
        let again = features.takeRejected()
        #expect(rejected == 2 && again == 0)
        #expect(features.value(.pnlDev, lot: 1) == 0)
        var average = ExponentialAverage(alpha: 0.5)
        let accepted = [average.add(.nan), average.add(0), average.add(.infinity), average.add(4)]
        #expect(accepted == [false, true, false, true] && average.value == 2, "0 was a value; what is not a number was none")
    }
}
