import CalibModel
import Glibc
import HubCore
import Simulation
import TestSupport
import Testing

private func isClose(_ value: Double?, _ expected: Double, _ tolerance: Double = 1e-12) -> Bool {
    value.map { abs($0 - expected) <= tolerance * max(abs(expected), 1e-300) } ?? false
}

/// Expected values are scipy's and statsmodels'.
struct StatisticsTests {
    @Test func logarithmAndExponentialAgreeWithTheMachinesOwn() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<100_000 {
            let bits = UInt64.random(in: 0..<0x7ff0_0000_0000_0000, using: &random)
            let x = Double(bitPattern: bits)
            #expect(isClose(Elementary.log(x), Glibc.log(x), 4e-16), "log \(x)")
            let small = Double.random(in: -0.9...2, using: &random) * Elementary.exp(Double.random(in: -30...0, using: &random))
            #expect(isClose(Elementary.log1p(small), Glibc.log1p(small), 1e-15), "log1p \(small)")
            #expect(isClose(Elementary.expm1(small), Glibc.expm1(small), 1e-15), "expm1 \(small)")
            let power = Double.random(in: -708...709, using: &random)
            #expect(isClose(Elementary.exp(power), Glibc.exp(power), 5e-16), "exp \(power)")
        }
        #expect(Elementary.log(0) == -.infinity && Elementary.log(-1).isNaN && Elementary.log(.nan).isNaN)
        #expect(Elementary.exp(-1000) == 0 && Elementary.exp(1000) == .infinity && Elementary.exp(.nan).isNaN)
    }

    @Test(arguments: [
        (-40, -804.6084420137539), (-8, -35.01343715991456), (-1.5, -2.7059444008238898), (0, -0.6931471805599453),
        (0.7, -0.2770239422771313),
        (6, -9.86587645524372e-10), (9, -1.1285884059538324e-19),
    ])
    func logOfTheNormalIsExactFarOut(z: Double, expected: Double) {
        #expect(isClose(NormalDistribution.logCumulative(z), expected, 1e-13))
    }

    @Test func chiSquareTailHasItsSmallNumbers() {
        #expect(isClose(NormalDistribution.chiSquareTail(3.3, degrees: 1), 0.06927988322120171))
        #expect(isClose(NormalDistribution.chiSquareTail(5, degrees: 4), 0.2872974951836458))
        #expect(isClose(NormalDistribution.chiSquareTail(900, degrees: 7), 4.801227624336715e-190, 1e-11))
        #expect(isClose(NormalDistribution.erfc(0.3), 0.6713732405408726))
        #expect(isClose(NormalDistribution.erfc(26), 5.663192408856145e-296, 1e-11))
    }

    @Test func studentsQuantileTakesBrokenDegrees() {
        #expect(isClose(StudentT(degrees: 3).quantile(tail: 0.025), 3.1824463052837086, 1e-11))
        #expect(isClose(StudentT(degrees: 1.7).quantile(tail: 0.0005), 52.2947075946619, 1e-11))
    }

    @Test func sampleSizeIsThatOfTheNoncentralT() {
        #expect(isClose(TwoSamplePower(effect: 0.2, alpha: 0.05).count(power: 0.8), 393.4056930002526, 1e-8))
        let larger = TwoSamplePower(effect: 0.35, alpha: 0.0125, ratio: 2, alternative: .larger)
        #expect(isClose(larger.count(power: 0.9), 152.81474074147357, 1e-8))
    }

    /// Reference B.3: the small-sample floor at alpha 0.0125.
    @Test func equalIncrementsNeedNineteenOrEleven() {
        #expect(EProcess.fewestIncrements(tunedFor: 240, alpha: 0.0125) == 19)
        let best = (1...240).map { EProcess.fewestIncrements(tunedFor: Double($0), alpha: 0.0125) }.min()
        #expect(best == 11)
    }

    /// Whatever the increments' sizes, only their signs are chance: heavy tails and growing scales cry wolf no more often than alpha.
    @Test func eProcessKeepsItsRate_underHeavyTailsAndDrift() {
        var random = SeededRandom(seed: 4)
        var alarms = 0
        let (runs, alpha) = (2000, 0.05)
        for _ in 0..<runs {
            var process = EProcess(rho: EProcess.rho(tightestAt: 300, alpha: alpha))
            for step in 0..<300 {
                let uniform = Double.random(in: 1e-9..<1, using: &random)
                process.add((Bool.random(using: &random) ? 1 : -1) * (1 / uniform.squareRoot()) * (1 + Double(step) / 50))
            }
            if process.rejects(at: alpha) { alarms += 1 }
        }
        // Binomial: 100 expected at most, standard deviation 9.7.
        #expect(alarms <= 130)
        #expect(alarms > 0)
    }

    @Test func lowerBoundIsWhereTheEvidenceEnds() {
        var random = SeededRandom(seed: 9)
        var effects = EffectSums()
        for _ in 0..<200 {
            effects.add(1 + Double.random(in: -2...2, using: &random), weight: Double.random(in: 0.5...1.5, using: &random))
        }
        let bound = effects.lowerBound(rho: 20, alpha: 0.0125)
        #expect(isClose(bound.map { effects.logE(effect: $0, rho: 20) }, -Elementary.log(0.0125), 1e-9))
        #expect(bound ?? 2 < effects.estimate ?? 0)
        let upper = effects.mirrored.lowerBound(rho: 20, alpha: 0.0125).map { -$0 }
        #expect(effects.upperBound(rho: 20, alpha: 0.0125) == upper)
    }

    @Test func fewIncrementsExcludeNoEffect() {
        var effects = EffectSums()
        for _ in 0..<5 { effects.add(1, weight: 1) }
        #expect(effects.lowerBound(rho: 20, alpha: 0.0125) == nil)
    }

    /// 2 % is the limit, and the truth: bursts or not, the wealth does not grow.
    @Test func bettingBoundKeepsItsRate_atTheLimit() {
        var random = SeededRandom(seed: 12)
        var alarms = 0
        for _ in 0..<1000 {
            var bound = BettingBound(alpha: 0.05, expected: 0.02)
            for _ in 0..<144 { bound.add(random.next(below: 10) == 0 ? 0.2 : 0) }
            if bound.logWealth(against: 0.02) >= -Elementary.log(0.05) { alarms += 1 }
        }
        #expect(alarms <= 70)
    }

    @Test func bettingBoundRisesAboveTheLimit() {
        var bound = BettingBound(alpha: 0.0125, expected: 0.02)
        #expect(bound.lowerBound == 0)
        for _ in 0..<40 { bound.add(0.04) }
        #expect(bound.lowerBound > 0.03 && bound.lowerBound < 0.04)
        #expect(isClose(bound.logWealth(against: bound.lowerBound), -Elementary.log(0.0125), 1e-6))
    }

    @Test func predictableThetaKnowsThePastOnly() {
        var theta = CUPED.PredictableTheta()
        #expect(theta.value == 0)
        for x in [1.0, 2, 3] { theta.add(outcome: 5 + 2 * x, covariate: x) }
        #expect(isClose(theta.value, 2))
        theta.add(outcome: 1000, covariate: 7, weight: 0)
        #expect(isClose(theta.value, 2))
    }

    @Test func anArmThatCannotOccurIsAMismatch() {
        #expect(SampleRatio.p(observed: [0, 0], weights: [1, 1]) == 1)
        #expect(SampleRatio.p(observed: [10, 1], weights: [1, 0]) == 0)
    }

    /// What the calculator says against experiments thrown on paper: increments of normal noise around the effect.
    @Test func plannedTimesAreThoseOfSimulatedExperiments() throws {
        var random = SeededRandom(seed: 21)
        let power = SwitchbackPower(standardError: 0.0235, increments: 10, alpha: 0.0075, decisionPairs: 24)
        func normal() -> Double { (0..<12).reduce(-6.0) { sum, _ in sum + Double.random(in: 0..<1, using: &random) } }
        var stops: [Int] = []
        for _ in 0..<400 {
            // Ten increments a pair, whose mean is the estimate of the pair.
            var process = EProcess(rho: EProcess.rho(tightestAt: 24 * 0.0235 * 0.0235, alpha: 0.0075))
            var pair = 0
            while !process.rejects(at: 0.0075), pair < 1000 {
                for _ in 0..<10 { process.add((0.01 + 0.0235 * 10.0.squareRoot() * normal()) / 10) }
                pair += 1
            }
            stops.append(pair)
        }
        stops.sort()
        let half = try #require(power.pairs(excess: 0.01, .half))
        let most = try #require(power.pairs(excess: 0.01, .nineTenths))
        #expect(Double(half) > Double(stops[200]) * 0.95 && Double(half) < Double(stops[200]) * 1.3, "\(half) \(stops[200])")
        #expect(Double(most) > Double(stops[360]) * 0.9 && Double(most) < Double(stops[360]) * 1.25, "\(most) \(stops[360])")
        #expect(power.pairs(excess: 0, .half) == nil)
        #expect(power.pairs(excess: 1e-6, .half) == nil)
    }

    @Test func noEffectIsFoundBeforeTheFloor() throws {
        let power = SwitchbackPower(standardError: 1e-6, increments: 10, alpha: 0.0125, decisionPairs: 6)
        let pairs = try #require(power.pairs(excess: 1, .half))
        // 13 equal increments at the least.
        #expect(pairs >= 2)
    }
}
