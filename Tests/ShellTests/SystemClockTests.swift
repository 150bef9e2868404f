import CalibModel
import NodeShell
import TestSupport
import Testing

struct SystemClockTests {
    @Test func smallErrorIsWorkedOffSlowly_aStepIsAdoptedAndTold() {
        let start = Instant(nanoseconds: 5_000_000_000)
        var clock = AnchoredClock(monotonic: start, wall: WallTime(nanoseconds: 1_000_000_000_000))
        #expect(clock.moment(at: start.advanced(nanoseconds: 7)).wall.nanoseconds == 1_000_000_000_007)

        // 100 ms ahead: nothing at once, 1/2048 of the time that passes from then on.
        let slewed = clock.check(monotonic: start, wall: WallTime(nanoseconds: 1_000_100_000_000))
        #expect(slewed == nil)
        #expect(clock.moment(at: start).wall.nanoseconds == 1_000_000_000_000)
        let later = start.advanced(nanoseconds: 2_048_000_000)
        #expect(clock.moment(at: later).wall.nanoseconds == 1_002_049_000_000)

        let stepped = clock.check(monotonic: later, wall: WallTime(nanoseconds: 999_000_000_000))
        #expect(stepped == -3_049_000_000)
        #expect(clock.moment(at: later).wall.nanoseconds == 999_000_000_000)
        let far = later.advanced(nanoseconds: 1_000_000_000_000)
        #expect(clock.moment(at: far).wall.nanoseconds == 1_999_000_000_000, "a step leaves nothing to work off")
    }

    /// A correction stops where it is done, however long nobody looks.
    @Test func slewEndsAtTheSystemsTime() {
        let start = Instant(nanoseconds: 0)
        var clock = AnchoredClock(monotonic: start, wall: WallTime(nanoseconds: 0))
        let stepped = clock.check(monotonic: start, wall: WallTime(nanoseconds: -1_000_000))
        #expect(stepped == nil)
        #expect(clock.moment(at: start.advanced(nanoseconds: 10_000_000_000)).wall.nanoseconds == 9_999_000_000)
    }

    /// A wall clock that wanders within half a second, checked at odd times: ours never goes back, nor faster or slower than 1/2048.
    @Test(arguments: 1...10 as ClosedRange<UInt64>)
    func timeNeverGoesBackWithoutAStep(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var now: Int64 = 0
        var clock = AnchoredClock(monotonic: Instant(nanoseconds: 0), wall: WallTime(nanoseconds: 0))
        var last: (mono: Int64, wall: Int64) = (0, 0)
        for _ in 0..<5000 {
            now += Int64(random.next(below: 400_000_000))
            let monotonic = Instant(nanoseconds: now)
            if random.next(below: 3) == 0 {
                let wall = WallTime(nanoseconds: now + Int64(random.next(below: 800_000_000)) - 400_000_000)
                let stepped = clock.check(monotonic: monotonic, wall: wall)
                #expect(stepped == nil)
            }
            let wall = clock.moment(at: monotonic).wall.nanoseconds
            let (passed, told) = (now - last.mono, wall - last.wall)
            #expect((told - passed).magnitude <= passed.magnitude >> 11 + 2, "\(told) in \(passed)")
            last = (now, wall)
        }
    }
}
