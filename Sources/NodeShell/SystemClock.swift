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
/// A correction of up to a second is worked off at 488 ppm, about as NTP does, so that no record's time jumps or goes back; a larger one is a
/// step: adopted at once, and told. One thread uses it.
package struct AnchoredClock {
    /// 1/2048 of the time passed is 488 ppm, and no division.
    private static let slewShift: Int64 = 11
    package static let stepNanoseconds: Int64 = 1_000_000_000

    /// Wall minus monotonic at the last check, and what was wrong with it then.
    private var anchor: Int64
    private var correction: Int64 = 0
    private var checkedAt: Instant

    package init(monotonic: Instant, wall: WallTime) {
        anchor = wall.nanoseconds - monotonic.nanoseconds
        checkedAt = monotonic
    }

    /// Anchored to the system's clocks now.
    package init() { self.init(monotonic: SystemClock.monotonic(), wall: SystemClock.wall()) }

    /// The same instant on both clocks; no system call but the caller's reading.
    package func moment(at monotonic: Instant) -> Moment {
        Moment(instant: monotonic, wall: WallTime(nanoseconds: anchor &+ slew(at: monotonic) &+ monotonic.nanoseconds))
    }

    /// How much of the correction is worked off by then.
    private func slew(at monotonic: Instant) -> Int64 {
        let most = max(0, monotonic.since(checkedAt)) >> Self.slewShift
        return max(-most, min(most, correction))
    }

    /// Compares with the system's wall clock; call it about once a second. Returns the step adopted, in nanoseconds, or nil.
    package mutating func check(monotonic: Instant, wall: WallTime) -> Int64? {
        anchor += slew(at: monotonic)
        checkedAt = max(checkedAt, monotonic)
        let error = wall.nanoseconds - monotonic.nanoseconds - anchor
        guard abs(error) > Self.stepNanoseconds else {
            correction = error
            return nil
        }
        correction = 0
        anchor += error
        return error
    }
}
