package import CalibModel
import Glibc

/// The operating system's clocks, each read once per call.
package enum SystemClock {
    /// CLOCK_MONOTONIC: for durations.
    package static func monotonic() -> Instant { Instant(nanoseconds: read(CLOCK_MONOTONIC)) }
    /// CLOCK_BOOTTIME: goes on while the machine sleeps; for leases (SPEC 1.1).
    package static func bootNanoseconds() -> Int64 { read(CLOCK_BOOTTIME) }
    /// CLOCK_REALTIME: steps when somebody sets it.
    package static func wall() -> WallTime { WallTime(nanoseconds: read(CLOCK_REALTIME)) }

    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}

/// Wall time as records carry it: an anchor plus the monotonic clock, slewed towards the system's wall clock (SPEC 1.1).
///
/// A correction of up to a second is worked off at 500 ppm, as NTP does, so that no record's time jumps; a larger one is a step: adopted at
/// once, and told. One thread uses it.
package struct AnchoredClock {
    /// 500 ppm of the time passed.
    private static let slewDivisor: Int64 = 2_000
    package static let stepNanoseconds: Int64 = 1_000_000_000

    /// Wall minus monotonic.
    private var anchor: Int64
    private var checkedAt: Instant

    package init(monotonic: Instant, wall: WallTime) {
        anchor = wall.nanoseconds - monotonic.nanoseconds
        checkedAt = monotonic
    }

    /// Anchored to the system's clocks now.
    package init() { self.init(monotonic: SystemClock.monotonic(), wall: SystemClock.wall()) }

    /// The same instant on both clocks; no system call but the caller's reading.
    package func moment(at monotonic: Instant) -> Moment {
        Moment(instant: monotonic, wall: WallTime(nanoseconds: anchor &+ monotonic.nanoseconds))
    }

    /// Compares with the system's wall clock; call it about once a second. Returns the step adopted, in nanoseconds, or nil.
    package mutating func check(monotonic: Instant, wall: WallTime) -> Int64? {
        let passed = max(0, monotonic.since(checkedAt))
        checkedAt = monotonic
        let error = wall.nanoseconds - monotonic.nanoseconds - anchor
        if abs(error) > Self.stepNanoseconds {
            anchor += error
            return error
        }
        let most = passed / Self.slewDivisor
        anchor += max(-most, min(most, error))
        return nil
    }
}
