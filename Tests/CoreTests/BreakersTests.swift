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
    private static func ticks(
        _ breakers: inout Breakers, _ arm: Arm, _ count: Int, rate: Int = 50, isEnrolled: Bool = true,
        missed: (Int) -> Bool = { _ in false }
    ) {
        for index in 0..<count {
            breakers.ticked(arm, isEnrolled: isEnrolled, isMissed: missed(index), isRefused: false, at: wall(index / rate))
        }
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
        for index in 0..<100 {
            breakers.ticked(.b, isEnrolled: true, isMissed: index % 2 == 0, isRefused: false, at: Self.wall(20 + index / 50))
        }
        #expect(breakers.take()?.scope == .harm)
    }

    @Test func takersAndStaleness() {
        for (bad, trips) in [(21, false), (22, true)] {
            var breakers = Self.watching()
            for index in 0..<40 { breakers.filled(.b, isTaker: index < bad, at: Self.wall(index)) }
            #expect(breakers.take()?.kind == (trips ? .takerShare : nil))
        }
        var breakers = Self.watching()
        for index in 0..<100 { breakers.ticked(.b, isEnrolled: true, isMissed: false, isRefused: index % 4 == 0, at: Self.wall(index)) }
        #expect(breakers.take()?.kind == .staleness)
    }

    /// 22 of 40 fills of B took. One fill of A is no share of anything.
    @Test(
        arguments: [
            (1, 1, .harm), (19, 19, .harm), (20, 20, .environment), (10, 20, .harm), (11, 20, .environment), (0, 0, .harm),
        ] as [(Int, Int, BreakerTrip.Scope)])
    func aFewTakersOfASayNothing(takers: Int, fills: Int, scope: BreakerTrip.Scope) {
        var breakers = Self.watching()
        Self.ticks(&breakers, .a, 100)
        for index in 0..<fills { breakers.filled(.a, isTaker: index < takers, at: Self.wall(1)) }
        for index in 0..<40 { breakers.filled(.b, isTaker: index < 22, at: Self.wall(index / 20)) }
        #expect(breakers.take()?.scope == scope)
    }

    /// What each arm lost of a limit of 100, and in how many ticks.
    struct Losses: Sendable {
        var a: Int64 = 0
        var b: Int64 = 100
        var ticksA = 1_000
        var ticksB = 1_000
        var isEnrolled = true
    }

    @Test(
        arguments: [
            (Losses(b: 99), nil),
            (Losses(), .harm),
            (Losses(a: -500), .harm),  // A earned.
            (Losses(a: 49), .harm),
            (Losses(a: 50), .environment),
            // A played ten times as much, and lost a tenth of B's a tick; then the other way round.
            (Losses(a: 100, ticksA: 10_000), .harm),
            (Losses(a: 10, ticksB: 10_000), .environment),
            (Losses(a: 500, ticksA: 49), .harm),
            (Losses(a: 500, isEnrolled: false), .harm),
        ] as [(Losses, BreakerTrip.Scope?)])
    func lossOfBTrips_unlessALosesAsMuchATick(losses: Losses, scope: BreakerTrip.Scope?) {
        var breakers = Self.watching(loss: 100)
        // The day begins.
        breakers.earned(.a, isEnrolled: true, 0, at: Self.wall(0))
        Self.ticks(&breakers, .a, losses.ticksA, isEnrolled: losses.isEnrolled)
        Self.ticks(&breakers, .b, losses.ticksB)
        breakers.earned(.a, isEnrolled: losses.isEnrolled, -losses.a, at: Self.wall(1))
        breakers.earned(.b, isEnrolled: true, -losses.b, at: Self.wall(1))
        let trip = breakers.take()
        #expect(trip?.scope == scope && trip?.kind == (scope == nil ? nil : .loss))
        guard scope != nil else { return }
        #expect(trip?.count == losses.b && trip?.of == 100 && trip?.baselineCount == (losses.isEnrolled ? losses.a : 0))
    }

    /// The limit is a day's: an environment grants no more of it, and midnight does.
    @Test func aLossIsCountedOverTheDay_whateverTrippedInIt() {
        var breakers = Self.watching(loss: 100)
        breakers.earned(.a, isEnrolled: true, 0, at: Self.wall(0))
        Self.ticks(&breakers, .a, 100)
        Self.ticks(&breakers, .b, 100)
        breakers.earned(.a, isEnrolled: true, -100, at: Self.wall(1))
        breakers.earned(.b, isEnrolled: true, -100, at: Self.wall(1))
        #expect(breakers.take()?.scope == .environment)
        // A goes on alone: that is no news of B. B comes back and loses on.
        breakers.earned(.a, isEnrolled: true, -100, at: Self.wall(2))
        breakers.earned(.b, isEnrolled: true, 0, at: Self.wall(2))
        #expect(!breakers.hasTripped)
        breakers.earned(.b, isEnrolled: true, -1, at: Self.wall(3))
        #expect(breakers.take()?.count == 101)
        breakers.earned(.b, isEnrolled: true, -99, at: Self.wall(86_400))
        #expect(!breakers.hasTripped)
        breakers.earned(.b, isEnrolled: true, -1, at: Self.wall(86_401))
        #expect(breakers.take() == BreakerTrip(kind: .loss, scope: .harm, count: 100, of: 100, baselineCount: 0, baselineOf: 100))
    }

    /// A reload gives the same experiment another hash between the trip and its being taken.
    @Test func aTripOutlivesAnotherHash_notAnotherExperiment() {
        for (experiment, isKept) in [("e", true), ("f", false)] {
            var breakers = Self.watching()
            Self.ticks(&breakers, .b, 25) { _ in true }
            breakers.watch(ExperimentID(experiment), configHash: 2, dailyLossHost: 10_000)
            #expect(breakers.hasTripped == isKept)
        }
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
