import CalibModel
import Testing

@testable import EdgeCore

@Suite struct MDCacheTests {
    private let parameters = Parameters.Cache()

    private func at(_ milliseconds: Int64) -> Moment {
        Moment(instant: Instant(nanoseconds: milliseconds * 1_000_000), wall: WallTime(nanoseconds: milliseconds * 1_000_000))
    }

    @Test func readsFollowTheAge() {
        for (age, outcome) in [
            (0, MDCache.Outcome.hit), (60, .hit), (61, .stale), (100, .stale), (101, .miss), (29_000, .miss), (31_000, .refused),
        ] as [(Int64, MDCache.Outcome)] {
            var cache = MDCache()
            cache.prove(at: at(1_000), venueMilliseconds: nil)
            #expect(cache.read(at: at(1_000 + age).instant, answers: true, parameters).outcome == outcome, "\(age) ms")
        }
    }

    @Test func withoutAnswersNothingOldIsServed() {
        var cache = MDCache()
        cache.prove(at: at(0), venueMilliseconds: nil)
        #expect(cache.read(at: at(90).instant, answers: false, parameters).outcome == .stale)
        #expect(cache.read(at: at(101).instant, answers: false, parameters).outcome == .refused, "guards fail closed")
    }

    @Test func settingsChangeWhatIsServed() {
        func outcome(age: Int64, _ change: (inout Parameters.Cache) -> Void) -> MDCache.Outcome {
            var settings = parameters
            change(&settings)
            var cache = MDCache()
            cache.prove(at: at(0), venueMilliseconds: nil)
            return cache.read(at: at(age).instant, answers: true, settings).outcome
        }
        #expect(outcome(age: 80) { $0.staleIsOK = false } == .miss)
        #expect(outcome(age: 80) { $0.skipsPricingOnStale = true } == .refused)
        #expect(outcome(age: 1) { $0.isEnabled = false } == .miss)
        #expect(outcome(age: 80) { $0.freshForPricingNanoseconds = 90_000_000 } == .hit)
    }

    /// Clocks of host and venue differ by 1.27 s in the recordings: only the excess over the minimum is lateness.
    @Test func latenessIsTheExcessOverTheFastestFrame() {
        var cache = MDCache()
        cache.prove(at: at(10_000), venueMilliseconds: 11_270)
        #expect(cache.age(at: at(10_000).instant) == 0)
        cache.prove(at: at(10_100), venueMilliseconds: 11_330)  // 40 ms later than the first one took.
        #expect(cache.age(at: at(10_100).instant) == 40_000_000)
        #expect(cache.age(at: at(10_105).instant) == 45_000_000)
        cache.prove(at: at(10_200), venueMilliseconds: 11_480)  // Faster than ever: the new minimum.
        #expect(cache.age(at: at(10_200).instant) == 0)
        cache.prove(at: at(10_300), venueMilliseconds: 11_570)
        #expect(cache.age(at: at(10_300).instant) == 10_000_000)
    }

    /// Someone sets the clock five seconds forward: frames are as late as before, not five seconds late for five minutes.
    @Test func stepOfTheWallClockIsNoLateness() {
        for step in [5_000, -5_000] as [Int64] {
            var cache = MDCache()
            cache.prove(at: at(10_000), venueMilliseconds: 11_270)
            cache.clockStepped(by: step * 1_000_000)
            let after = Moment(instant: at(10_100).instant, wall: WallTime(nanoseconds: (10_100 + step) * 1_000_000))
            cache.prove(at: after, venueMilliseconds: 11_340)  // 30 ms later than the first one took.
            #expect(cache.age(at: after.instant) == 30_000_000, "\(step) ms")
        }
    }

    /// A frame's time is untrusted: whatever it claims, the age stays a number that can be compared.
    @Test func absurdVenueTimesSayNothing() {
        var cache = MDCache()
        for claimed in [Int64.max, .min, -1, 4_102_444_800_000, 0, 4_102_444_799_999, 11_270, .max / 1_000_000] {
            cache.prove(at: at(10_000), venueMilliseconds: claimed)
            let age = cache.age(at: at(10_000).instant)!
            #expect((0...3_600_000_000_000).contains(age), "\(claimed)")
        }
    }

    @Test func theMinimumIsForgottenAfterFiveMinutes() {
        var baseline = LatenessBaseline()
        #expect(baseline.lateness(of: -2_000, at: at(0).instant) == 0)
        #expect(baseline.lateness(of: -1_000, at: at(269_000).instant) == 1_000)
        #expect(baseline.lateness(of: -1_000, at: at(300_001).instant) == 0)
    }

    /// Fault 33: an invalidation was undone by a refresh in flight. A gap cannot be healed by a ping.
    @Test func aGapIsNotHealedByAnswers_aJumpIs() {
        var jumped = MDCache()
        jumped.prove(at: at(0), venueMilliseconds: nil)
        jumped.invalidate()
        #expect(jumped.age(at: at(1).instant) == nil)
        #expect(jumped.read(at: at(1).instant, answers: true, parameters).outcome == .miss)
        var lost = MDCache()
        lost.prove(at: at(0), venueMilliseconds: nil)
        lost.lose()
        #expect(lost.read(at: at(1).instant, answers: true, parameters).outcome == .refused)
        #expect(lost.watchdogFires(at: at(1).instant, answers: true, parameters))
    }

    @Test func otherFramesExtendTheProof_onlyWhileTheTopicIsRecent() {
        var cache = MDCache()
        cache.prove(at: at(0), venueMilliseconds: nil)
        cache.extend(at: at(29_000), venueMilliseconds: nil, parameters)
        #expect(cache.age(at: at(29_010).instant) == 10_000_000)
        cache.extend(at: at(30_001), venueMilliseconds: nil, parameters)
        #expect(cache.age(at: at(30_001).instant) == 1_001_000_000)
        #expect(cache.watchdogFires(at: at(30_001).instant, answers: true, parameters))
    }
}
