import CalibModel
import Testing

@testable import EdgeCore

/// k of n, on arm B's own ticks and fills, against arm A of the same seconds (SPEC 7.4).
struct BreakersTests {
    private static func watching(loss: Int64 = 1_000) -> Breakers {
        var breakers = Breakers()
        breakers.watch(ExperimentID("e"), configHash: 1, dailyLossHost: loss * Breakers.lossLimitDivisor)
        return breakers
    }

    private static func wall(_ second: Int) -> WallTime { WallTime(nanoseconds: (1_735_689_600 + Int64(second)) * 1_000_000_000) }

    /// `rate` ticks a second, of which `missed(n)`.
    private static func ticks(_ breakers: inout Breakers, _ arm: Arm, _ count: Int, rate: Int = 50, missed: (Int) -> Bool) {
        for index in 0..<count { breakers.ticked(arm, isMissed: missed(index), isRefused: false, at: wall(index / rate)) }
    }

    @Test func twentyFiveOfAHundredTrip_oneLessDoesNot() {
        for (bad, trips) in [(24, false), (25, true)] {
            var breakers = Self.watching()
            Self.ticks(&breakers, .b, 100) { $0 < bad }
            #expect(breakers.hasTripped == trips, "\(bad)")
            guard trips else { continue }
            #expect(
                breakers.take()
                    == BreakerTrip(kind: .deadlineMiss, scope: .harm, count: 25, of: 100, baselineCount: 0, baselineOf: 0))
            #expect(breakers.take() == nil)
        }
    }

    /// 57 of 400 spread evenly are 14 or 15 of each hundred.
    @Test func fiftyEightOfFourHundredTrip_spreadEvenly() {
        for (bad, trips) in [(57, false), (58, true)] {
            var breakers = Self.watching()
            Self.ticks(&breakers, .b, 400) { ($0 + 1) * bad / 400 > $0 * bad / 400 }
            #expect(breakers.hasTripped == trips, "\(bad)")
            if trips { #expect(breakers.take()?.of == 400) }
        }
    }

    @Test func oldTicksLeaveTheWindows() {
        var breakers = Self.watching()
        // 14 a hundred for ever: below both rules, whatever the ring's turns.
        Self.ticks(&breakers, .b, 20_000) { $0 % 100 < 14 }
        #expect(!breakers.hasTripped)
        Self.ticks(&breakers, .b, 30) { _ in true }
        #expect(breakers.hasTripped)
    }

    @Test func armAsLatenessIsNotBs() {
        var breakers = Self.watching()
        Self.ticks(&breakers, .a, 5_000) { _ in true }
        #expect(!breakers.hasTripped)
    }

    @Test(arguments: [(49, BreakerTrip.Scope.harm), (50, .environment)])
    func bothArmsInTheSameSecondsAreTheEnvironment_fromFiftyTicksOn(baseline: Int, scope: BreakerTrip.Scope) {
        var breakers = Self.watching()
        Self.ticks(&breakers, .a, baseline) { $0 % 3 == 0 }
        Self.ticks(&breakers, .b, 50) { $0 % 2 == 0 }
        #expect(breakers.take()?.scope == scope)
    }

    @Test func armAOfOtherSecondsSaysNothing() {
        var breakers = Self.watching()
        Self.ticks(&breakers, .a, 500) { _ in true }  // Seconds 0 to 9.
        for index in 0..<100 { breakers.ticked(.b, isMissed: index % 2 == 0, isRefused: false, at: Self.wall(20 + index / 50)) }
        #expect(breakers.take()?.scope == .harm)
    }

    @Test func takersAndStaleness() {
        for (bad, trips) in [(21, false), (22, true)] {
            var breakers = Self.watching()
            for index in 0..<40 { breakers.filled(.b, isTaker: index < bad, at: Self.wall(index)) }
            #expect(breakers.take()?.kind == (trips ? .takerShare : nil))
        }
        var breakers = Self.watching()
        for index in 0..<100 { breakers.ticked(.b, isMissed: false, isRefused: index % 4 == 0, at: Self.wall(index)) }
        #expect(breakers.take()?.kind == .staleness)
    }

    @Test func lossOfBTrips_unlessALostAsMuch() {
        var breakers = Self.watching(loss: 100)
        breakers.earned(.b, -99)
        #expect(!breakers.hasTripped)
        breakers.earned(.b, -1)
        #expect(breakers.take()?.scope == .harm)
        Self.ticks(&breakers, .a, 60) { _ in false }
        breakers.earned(.a, -150)
        breakers.earned(.b, -150)
        #expect(breakers.take() == BreakerTrip(kind: .loss, scope: .environment, count: 150, of: 100, baselineCount: 150, baselineOf: 100))
    }

    @Test func anotherExperimentOrCandidateStartsOver() {
        var breakers = Self.watching()
        Self.ticks(&breakers, .b, 24) { _ in true }
        breakers.watch(ExperimentID("e"), configHash: 1, dailyLossHost: 10_000)
        breakers.watch(ExperimentID("f"), configHash: 1, dailyLossHost: 10_000)
        Self.ticks(&breakers, .b, 24) { _ in true }
        breakers.watch(ExperimentID("f"), configHash: 2, dailyLossHost: 10_000)
        Self.ticks(&breakers, .b, 24) { _ in true }
        #expect(!breakers.hasTripped)
        breakers.watch(nil, configHash: 0, dailyLossHost: 10_000)
        #expect(!breakers.isWatching)
    }
}
