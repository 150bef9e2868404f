import CalibModel
import TestSupport
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
            #expect(cache.readForTick(at: at(1_000 + age).instant, answers: true, parameters).outcome == outcome, "\(age) ms")
        }
    }

    @Test func withoutAnswersNothingOldIsServed() {
        var cache = MDCache()
        cache.prove(at: at(0), venueMilliseconds: nil)
        #expect(cache.readForTick(at: at(90).instant, answers: false, parameters).outcome == .stale)
        #expect(cache.readForTick(at: at(101).instant, answers: false, parameters).outcome == .refused, "guards fail closed")
    }

    @Test func settingsChangeWhatIsServed() {
        func outcome(age: Int64, _ change: (inout Parameters.Cache) -> Void) -> MDCache.Outcome {
            var settings = parameters
            change(&settings)
            var cache = MDCache()
            cache.prove(at: at(0), venueMilliseconds: nil)
            return cache.readForTick(at: at(age).instant, answers: true, settings).outcome
        }
        #expect(outcome(age: 80) { $0.staleIsOK = false } == .miss)
        #expect(outcome(age: 80) { $0.skipsPricingOnStale = true } == .refused)
        #expect(outcome(age: 1) { $0.isEnabled = false } == .miss)
        #expect(outcome(age: 80) { $0.freshForPricingNanoseconds = 90_000_000 } == .hit)
    }

    /// The least difference of five minutes, as the frames give it; a clock that steps takes it along.
    @Test func theVenuesClockIsKnownByTheFastestFrame() {
        var baseline = LatenessBaseline()
        #expect(baseline.minimum == nil)
        _ = baseline.lateness(of: -1_269_000, at: at(0).instant)
        _ = baseline.lateness(of: -1_271_000, at: at(40_000).instant)
        _ = baseline.lateness(of: 5_000_000, at: at(80_000).instant)
        #expect(baseline.minimum == -1_271_000)
        baseline.clockStepped(by: 1_000_000)
        #expect(baseline.minimum == -271_000)
        // The fastest frame is five minutes old; what came since counts.
        _ = baseline.lateness(of: 7_000_000, at: at(345_000).instant)
        #expect(baseline.minimum == 6_000_000)
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

    /// What is kept from one frame to the next says the same as looking at all ten windows again.
    @Test func latenessIsAboveTheLeastOfTheLastTenWindows() {
        var random = SeededRandom(seed: 5)
        var baseline = LatenessBaseline()
        var samples: [(second: Int64, difference: Int64)] = []
        var second: Int64 = -400
        for _ in 0..<5_000 {
            second += Int64([0, 0, 0, 1, 7, random.next(below: 200)][random.next(below: 6)])
            let difference = Int64(random.next(below: 1_000_000))
            samples.append((second, difference))
            let window = second.flooredDivision(by: 30)
            let least = samples.filter { $0.second.flooredDivision(by: 30) > window - 10 }.map(\.difference).min() ?? 0
            let found = baseline.lateness(of: difference, at: at(second * 1_000).instant)
            #expect(found == difference - least)
        }
    }

    /// A tick's two reads are answered at once where they would both hit, and nowhere else.
    @Test func freshAgeIsWhatTheTwoReadsFind() {
        var random = SeededRandom(seed: 6)
        var hits = 0
        for _ in 0..<5_000 {
            var node = Parameters()
            node.cache.ttlNanoseconds = Int64(random.next(below: 100)) * 1_000_000
            node.cache.freshForPricingNanoseconds = Int64(random.next(below: 100)) * 1_000_000
            node.cache.maxStaleNanoseconds = Int64(random.next(below: 100)) * 1_000_000
            node.cache.isEnabled = random.next(below: 5) > 0
            var cache = MDCache()
            if random.next(below: 5) > 0 { cache.prove(at: at(1_000), venueMilliseconds: nil) }
            if random.next(below: 5) == 0 { cache.invalidate(.priceJump, at: at(1_000).instant) }
            let now = at(1_000 + Int64(random.next(below: 100))).instant
            let found = withUnsafePointer(to: node) { cache.freshAge(at: now, $0) }
            let read = cache.readForTick(at: now, answers: false, node.cache)
            #expect(found == (read.outcome == .hit ? read.age : nil))
            if found != nil { hits += 1 }
        }
        #expect(hits > 200)
    }

    /// Fault 33: an invalidation was undone by a refresh in flight. A gap cannot be healed by a ping.
    @Test func aGapIsNotHealedByAnswers_aJumpIs() {
        var jumped = MDCache()
        jumped.prove(at: at(0), venueMilliseconds: nil)
        jumped.invalidate(.priceJump, at: at(0).instant)
        #expect(jumped.age(at: at(1).instant) == nil)
        #expect(jumped.readForTick(at: at(1).instant, answers: true, parameters).outcome == .miss)
        var lost = MDCache()
        lost.prove(at: at(0), venueMilliseconds: nil)
        lost.lose(.sequenceGap, at: at(0).instant)
        #expect(lost.readForTick(at: at(1).instant, answers: true, parameters).outcome == .refused)
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

    // MARK: Refreshes

    /// A cache proven at 0 by its topic, the age at which guards want a refresh, and settings of a venue that answers nothing at once.
    private func old(_ seed: UInt64 = 0) -> MDCache {
        var cache = MDCache(seed: seed)
        cache.prove(at: at(0), venueMilliseconds: nil, id: 100)
        return cache
    }

    private func guards(_ cache: inout MDCache, _ milliseconds: Int64) -> MDCache.Reading {
        cache.read(.guards, at: at(milliseconds).instant, answers: false, parameters)
    }

    @Test(
        arguments: [
            (MDCache.Purpose.guards, 100, MDCache.Outcome.hit), (.guards, 101, .refused), (.pricing, 60, .hit), (.pricing, 61, .stale),
            (.pricing, 1_000, .stale), (.pricing, 1_001, .refused), (.other, 60, .hit), (.other, 1_000, .stale), (.other, 1_001, .refused),
        ] as [(MDCache.Purpose, Int64, MDCache.Outcome)])
    func everyPurposeHasItsOwnAge(purpose: MDCache.Purpose, age: Int64, outcome: MDCache.Outcome) {
        var cache = old()
        let reading = cache.read(purpose, at: at(age).instant, answers: false, parameters)
        #expect(reading.outcome == outcome && reading.age == age * 1_000_000)
        #expect(reading.awaitsRefresh == (outcome == .refused), "a refresh is on its way")
    }

    /// The topic spoke within its time: a ping is enough. It has been silent for longer: only a snapshot says anything.
    @Test func aRefreshIsAPingWhileTheTopicIsRecent_aSnapshotAfterwards() {
        for (silence, kind) in [(200, MDCache.Refresh.ping), (30_000, .ping), (30_001, .snapshot)] as [(Int64, MDCache.Refresh)] {
            var cache = old()
            _ = guards(&cache, silence)
            let taken = cache.takeRefresh()
            let again = cache.takeRefresh()
            #expect(taken == kind && again == nil, "\(silence) ms")
        }
    }

    @Test func aPongProvesTheBook_andLandsTheRefresh() {
        var cache = old()
        _ = guards(&cache, 200)
        cache.ponged(sentAt: at(201).instant, at: at(212).instant, excess: 4_000_000, parameters)
        #expect(cache.age(at: at(212).instant) == 4_000_000, "it took 4 ms longer than the fastest")
        #expect(!cache.isRefreshing && cache.counts.refreshesDone == 1 && cache.counts.refreshDurations.counts[4] == 1, "12 ms: up to 20")
        let reading = guards(&cache, 213)
        #expect(reading.outcome == .hit)
        cache.ponged(sentAt: at(201).instant, at: at(214).instant, excess: 90_000_000, parameters)
        #expect(cache.age(at: at(214).instant) == 6_000_000, "a worse proof does not make the book older")
    }

    @Test func aPongProvesNothing_onceTheTopicHasBeenSilentForTooLong() {
        var cache = old()
        let proved = cache.ponged(sentAt: at(30_001).instant, at: at(30_002).instant, excess: 0, parameters)
        #expect(!proved && cache.age(at: at(30_002).instant) == 30_002_000_000)
    }

    @Test func theBookOfAnotherSymbolExtendsTheProof() {
        var cache = old()
        cache.extend(to: at(90).instant, at: at(95).instant, parameters)
        #expect(cache.age(at: at(100).instant) == 10_000_000)
        cache.extend(to: at(80).instant, at: at(101).instant, parameters)
        #expect(cache.age(at: at(101).instant) == 11_000_000, "an earlier one changes nothing")
        cache.invalidate(.webSocketGap, at: at(102).instant)
        cache.extend(to: at(103).instant, at: at(103).instant, parameters)
        #expect(cache.age(at: at(104).instant) == nil, "an unproven book is not proven by others")
    }

    /// Bybit: a REST book serves one guarded tick. Binance: it stands for a frame of the topic.
    @Test func aSnapshotServesOneTickOnBybit_andProvesTheTopicOnBinance() {
        for provesTopic in [false, true] {
            var cache = old()
            _ = guards(&cache, 31_000)
            let verdict = cache.snapshotAnswered(
                id: 100, agrees: true, sentAt: at(31_000).instant, at: at(31_020).instant, provesTopic: provesTopic)
            let first = cache.readForTick(at: at(31_025).instant, answers: false, hasWaited: true, parameters)
            let second = cache.readForTick(at: at(31_026).instant, answers: false, parameters)
            #expect(verdict == .proved && first == .init(outcome: .hit, age: 25_000_000))
            #expect(second.outcome == (provesTopic ? .hit : .refused))
            let fires = cache.watchdogFires(at: at(31_900).instant, answers: false, parameters)
            #expect(!fires, "what that tick placed may rest until the proof is too old")
            let next = cache.takeRefresh()
            _ = guards(&cache, 31_200)
            let kind = provesTopic ? cache.takeRefresh() : next
            #expect(kind == (provesTopic ? .ping : .snapshot))
        }
    }

    /// Whatever happens, in any order, nothing unproven and nothing older than the limit is served, and one refresh at most is in flight.
    @Test(arguments: 0..<20 as Range<UInt64>) func noSequenceOfEventsServesWhatIsNotProven(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var cache = MDCache(seed: seed)
        var now: Int64 = 0
        // The oracle: when the book was truly current last, nil while nothing proves it; and when it was last invalidated.
        var provenAt: Int64?
        var invalidatedAt: Int64 = .min
        var asked: (sentAt: Int64, isSnapshot: Bool)?
        var topicAt: Int64?
        for _ in 0..<20_000 {
            now += random.below(40)
            switch random.below(9) {
            case 0:
                cache.prove(at: at(now), venueMilliseconds: nil, id: now)
                (provenAt, topicAt) = (now, now)
            case 1 where random.below(5) == 0:
                cache.invalidate(.priceJump, at: at(now).instant)
                (provenAt, invalidatedAt) = (nil, now)
            case 2 where random.below(10) == 0:
                cache.lose(.sequenceGap, at: at(now).instant)
                (provenAt, invalidatedAt, topicAt) = (nil, now, nil)
            case 3:
                // An answer to a ping that was sent some time before.
                let sentAt = now - random.below(60)
                let excess = random.below(10)
                let proved = cache.ponged(sentAt: at(sentAt).instant, at: at(now).instant, excess: excess * 1_000_000, parameters)
                let mayProve = topicAt.map { now - $0 <= 30_000 } == true && sentAt >= invalidatedAt
                #expect(proved == mayProve)
                if proved { provenAt = max(provenAt ?? .min, now - excess) }
            case 4:
                if let kind = cache.takeRefresh() { asked = (now, kind == .snapshot) }
            case 5:
                guard let sent = asked, sent.isSnapshot else { break }
                asked = nil
                let verdict = cache.snapshotAnswered(
                    id: now - random.below(3), agrees: random.below(4) > 0, sentAt: at(sent.sentAt).instant, at: at(now).instant,
                    provesTopic: true)
                if verdict == .proved {
                    #expect(sent.sentAt >= invalidatedAt)
                    provenAt = max(provenAt ?? .min, sent.sentAt)
                    topicAt = max(topicAt ?? .min, sent.sentAt)
                }
            default:
                let purpose = MDCache.Purpose.allCases[Int(random.below(3))]
                let before = cache.isRefreshing
                let begun = cache.counts.refreshesBegun
                let failed = cache.counts.refreshesFailed
                let reading = cache.read(purpose, at: at(now).instant, answers: false, parameters)
                #expect(reading.age == provenAt.map { (now - $0) * 1_000_000 }, "at \(now)")
                if reading.outcome != .refused { #expect(provenAt.map { now - $0 <= 1_000 } == true) }
                if purpose == .guards, reading.outcome != .refused { #expect(now - provenAt! <= 100) }
                if before, cache.counts.refreshesFailed == failed { #expect(cache.counts.refreshesBegun == begun) }
            }
        }
        let counts = cache.counts
        #expect(
            counts.refreshesBegun
                == counts.refreshesDone + counts.refreshesVoided + counts.refreshesFailed + (cache.isRefreshing ? 1 : 0))
        #expect(counts.refreshesDone > 0 && counts.refreshesVoided > 0)
    }

    // MARK: Faults of the first implementation, by their numbers

    /// 30: pulled on demand, hits depended on how often somebody asked. Pushed: with 20 updates a second every read of a 50-ms trigger is one.
    @Test func fault30_hitsDoNotDependOnHowOftenItIsRead() {
        for interval in [10, 33, 50, 100, 250, 1_000] as [Int64] {
            var cache = MDCache()
            var hits = 0
            var reads = 0
            for now in stride(from: 0, through: 20_000, by: 1) as StrideThrough<Int64> {
                if now.isMultiple(of: 50) { cache.prove(at: at(now), venueMilliseconds: nil) }
                guard (now + 7).isMultiple(of: interval) else { continue }
                reads += 1
                if cache.readForTick(at: at(now).instant, answers: false, parameters).outcome == .hit { hits += 1 }
            }
            #expect(hits == reads && reads > 0, "\(interval) ms")
        }
    }

    /// 32: fifty reads made fifty refreshes.
    @Test func fault32_readsShareOneRefresh() {
        var cache = old()
        var requests = 0
        for step in 0..<50 as Range<Int64> {
            #expect(guards(&cache, 200 + step).awaitsRefresh)
            if cache.takeRefresh() != nil { requests += 1 }
        }
        #expect(requests == 1 && cache.counts.refreshesBegun == 1)
    }

    /// 33: an invalidation was undone by the refresh in flight.
    @Test func fault33_anInvalidationVoidsTheRefreshInFlight() {
        var cache = old()
        _ = guards(&cache, 200)
        let generation = cache.generation
        cache.invalidate(.priceJump, at: at(205).instant)
        #expect(cache.generation == generation + 1 && cache.counts.refreshesVoided == 1 && !cache.isRefreshing)
        let late = cache.ponged(sentAt: at(201).instant, at: at(210).instant, excess: 0, parameters)
        #expect(!late && cache.age(at: at(210).instant) == nil)
        let next = cache.ponged(sentAt: at(211).instant, at: at(220).instant, excess: 0, parameters)
        #expect(next && cache.age(at: at(220).instant) == 0)
    }

    /// 34: a slow older snapshot replaced a newer book.
    @Test func fault34_anOlderIdNeverReplacesANewerOne() {
        var cache = old()
        _ = guards(&cache, 31_000)
        let older = cache.snapshotAnswered(id: 99, agrees: true, sentAt: at(31_000).instant, at: at(31_020).instant, provesTopic: true)
        #expect(older == .older && cache.id == 100 && cache.age(at: at(31_020).instant) == 31_020_000_000)
    }

    /// 35: a book an hour old was served under stale_ok, and to guards after a time-out.
    @Test func fault35_nothingOlderThanMaxStaleIsServed() {
        var settings = parameters
        settings.ttlNanoseconds = 5_000_000_000
        for purpose in MDCache.Purpose.allCases {
            var cache = old()
            #expect(cache.read(purpose, at: at(1_000).instant, answers: false, settings).outcome != .refused)
            for age in [1_001, 60_000, 3_600_000] as [Int64] {
                #expect(cache.read(purpose, at: at(age).instant, answers: false, settings).outcome == .refused, "\(purpose) \(age)")
            }
        }
    }

    /// 36: with ages on the wall clock, a step of the clock made a book fresh for ever.
    @Test func fault36_agesAreMonotonic() {
        var cache = MDCache()
        cache.prove(at: Moment(instant: at(0).instant, wall: WallTime(nanoseconds: 9_000_000_000_000)), venueMilliseconds: nil)
        cache.clockStepped(by: -8_000_000_000_000)
        #expect(guards(&cache, 101).outcome == .refused)
    }

    /// 37: a book that was asked for 80 ms ago is 80 ms old, however new its arrival.
    @Test func fault37_theAgeOfASnapshotStartsWithTheRequest() {
        var cache = old()
        _ = guards(&cache, 31_000)
        _ = cache.snapshotAnswered(id: 100, agrees: true, sentAt: at(31_000).instant, at: at(31_080).instant, provesTopic: true)
        #expect(cache.age(at: at(31_080).instant) == 80_000_000)
    }

    /// 38: the id was what the caller expected. It is what the venue sent, and nothing else.
    @Test func fault38_theIdIsTheVenues() {
        var cache = MDCache()
        #expect(cache.id == .min)
        cache.prove(at: at(0), venueMilliseconds: nil, id: 7)
        cache.extend(at: at(1), venueMilliseconds: nil, parameters)
        cache.ponged(sentAt: at(1).instant, at: at(2).instant, excess: 0, parameters)
        #expect(cache.id == 7)
        cache.lose(.disconnect, at: at(3).instant)
        #expect(cache.id == .min)
    }

    /// 40: a failed refresh returned nothing although a usable book was there, and was repeated at once.
    @Test func fault40_aFailedRefreshLeavesTheBook_andBacksOff() {
        var pauses: [Int64] = []
        var cache = old(7)
        var settings = parameters
        settings.topicProofNanoseconds = 0
        settings.ttlNanoseconds = 50_000_000
        for _ in 0..<6 {
            cache.prove(at: at(0), venueMilliseconds: nil)
            _ = cache.read(.guards, at: at(80).instant, answers: false, settings)
        }
        cache = old(7)
        var now: Int64 = 80
        for _ in 0..<6 {
            while true {
                _ = cache.read(.guards, at: at(now).instant, answers: false, settings)
                if cache.takeRefresh() != nil { break }
                now += 1
            }
            pauses.append(now)
            cache.snapshotFailed(at: at(now).instant)
            let stale = cache.read(.pricing, at: at(80).instant, answers: false, settings)
            #expect(stale.outcome == .stale, "what is there is still served")
        }
        let waits = zip(pauses.dropFirst(), pauses).map { $0 - $1 }
        for (step, wait) in waits.enumerated() {
            let bound = min(5_000, Int64(250) << Int64(step))
            #expect((bound / 2...bound + 1).contains(wait), "\(waits)")
        }
        #expect(cache.counts.refreshesFailed == 6)
    }

    /// 40: jitter, so that symbols that failed together do not come back together.
    @Test func fault40_backOffsDiffer() {
        let firsts = (0..<20 as Range<UInt64>).map { seed in
            var cache = MDCache(seed: seed)
            _ = cache.read(.guards, at: at(0).instant, answers: false, parameters)
            cache.snapshotFailed(at: at(0).instant)
            var now: Int64 = 0
            while !cache.isRefreshing {
                now += 1
                _ = cache.read(.guards, at: at(now).instant, answers: false, parameters)
            }
            return now
        }
        #expect(Set(firsts).count > 10)
    }

    /// 41: the time-out of a read cancelled the refresh, so that a source slower than it never refreshed anything.
    @Test func fault41_aTimeOutLeavesTheRefreshInFlight() {
        var cache = old()
        _ = guards(&cache, 200)
        cache.waitTimedOut()
        #expect(cache.isRefreshing && cache.counts.waitsTimedOut == 1)
        cache.ponged(sentAt: at(200).instant, at: at(260).instant, excess: 0, parameters)
        let after = guards(&cache, 261)
        #expect(
            after.outcome == .hit && cache.counts.refreshesBegun == 1 && cache.counts.refreshDurations.counts[7] == 1, "60 ms: up to 100")
    }

    /// 42: the clean-up of an old task could delete a newer one. An answer to an older question does not end the newer refresh.
    @Test func fault42_anOldAnswerDoesNotEndANewerRefresh() {
        var cache = old()
        _ = guards(&cache, 31_000)
        cache.lose(.sequenceGap, at: at(31_010).instant)
        _ = guards(&cache, 31_020)
        #expect(cache.isRefreshing)
        let late = cache.snapshotAnswered(id: 500, agrees: true, sentAt: at(31_001).instant, at: at(31_030).instant, provesTopic: true)
        #expect(late == .voided && cache.isRefreshing && cache.age(at: at(31_030).instant) == nil)
    }

    /// 44: lists of latencies grew without bound; the cache is a value of one size.
    @Test func fault44_theCacheIsOfOneSize() {
        #expect(MemoryLayout<MDCache>.size < 1_024 && _isPOD(MDCache.self))
    }

    @Test func aRefreshWithoutAnswerHasFailedAfterTwoSeconds() {
        var cache = old()
        _ = guards(&cache, 31_000)
        _ = guards(&cache, 33_000)
        #expect(cache.counts.refreshesFailed == 0)
        _ = guards(&cache, 33_001)
        #expect(cache.counts.refreshesFailed == 1)
    }
}

extension SeededRandom {
    fileprivate mutating func below(_ bound: Int64) -> Int64 { Int64(next(below: Int(bound))) }
}
