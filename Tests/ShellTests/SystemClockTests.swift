import CalibModel
import NodeShell
import Testing

struct SystemClockTests {
    @Test func smallErrorIsSlewedAtMost500ppm_aStepIsAdoptedAndTold() {
        let start = Instant(nanoseconds: 5_000_000_000)
        var clock = AnchoredClock(monotonic: start, wall: WallTime(nanoseconds: 1_000_000_000_000))
        #expect(clock.moment(at: start.advanced(nanoseconds: 7)).wall.nanoseconds == 1_000_000_000_007)

        // 100 ms ahead after 2 s: 1 ms of it is taken.
        let later = start.advanced(nanoseconds: 2_000_000_000)
        let slewed = clock.check(monotonic: later, wall: WallTime(nanoseconds: 1_002_100_000_000))
        #expect(slewed == nil)
        #expect(clock.moment(at: later).wall.nanoseconds == 1_002_001_000_000)

        let stepped = clock.check(monotonic: later, wall: WallTime(nanoseconds: 999_000_000_000))
        #expect(stepped == -3_001_000_000)
        #expect(clock.moment(at: later).wall.nanoseconds == 999_000_000_000)
    }
}
