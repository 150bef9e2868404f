import CalibModel

/// What a build is asked for. Times are milliseconds UTC, whole seconds.
package struct DatasetArguments: Sendable, Equatable {
    package var from: Int64
    package var to: Int64
    /// A multiple of 10 (snapshots are cut every 10 s), up to a day.
    package var intervalSeconds: Int64
    /// Empty: all.
    package var symbols: [String]
    /// Nil: whichever single source the rows have.
    package var source: RowSource?
    /// Nil: both arms.
    package var arm: Arm?
    /// Largest deadline_miss_rate kept, a ratio in 1e-9.
    package var deadlineMissMax: Int64
    /// Fewest tick rows kept.
    package var ticksMin: Int64
    package var keepsFiltered: Bool
    package var isPerHost: Bool

    package enum Arm: String, Sendable {
        case a = "A"
        case b = "B"
    }

    package init(
        from: Int64, to: Int64, intervalSeconds: Int64 = 300, symbols: [String] = [], source: RowSource? = nil, arm: Arm? = .a,
        deadlineMissMax: Int64 = 50_000_000, ticksMin: Int64 = 10, keepsFiltered: Bool = false, isPerHost: Bool = false
    ) {
        precondition(from < to && from >= 0 && to <= RowLimits.timeMax, "BUG: range \(from)..<\(to)")
        precondition(intervalSeconds > 0 && intervalSeconds.isMultiple(of: 10), "BUG: interval \(intervalSeconds)")
        self.from = from
        self.to = to
        self.intervalSeconds = intervalSeconds
        self.symbols = Array(Set(symbols)).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        self.source = source
        self.arm = arm
        self.deadlineMissMax = deadlineMissMax
        self.ticksMin = ticksMin
        self.keepsFiltered = keepsFiltered
        self.isPerHost = isPerHost
    }

    /// What is kept for the next build is kept by the hour, or by the interval where that is longer. In milliseconds.
    package var hourMilliseconds: Int64 { max(3_600_000, intervalSeconds * 1000) }

    /// No hour is cut, neither by the range nor by an interval: what was made of an hour is good for other ranges, too.
    package var hasWholeHours: Bool {
        let hour = hourMilliseconds
        return hour.isMultiple(of: intervalSeconds * 1000) && from.isMultiple(of: hour) && to.isMultiple(of: hour)
    }

    /// Of everything but the range.
    package var fingerprint: UInt64 {
        var bytes = BinaryWriter()
        bytes.text("\(DatasetFormat.schema) \(DatasetFormat.manifestSchema) \(DatasetFormat.generatorVersion)")
        for number in [intervalSeconds, deadlineMissMax, ticksMin, keepsFiltered ? 1 : 0, isPerHost ? 1 : 0] { bytes.integer(number) }
        bytes.text("\(source?.name ?? "") \(arm?.rawValue ?? "")")
        for symbol in symbols { bytes.text(symbol) }
        return bytes.digest
    }

    /// A fill's markout is read up to this long after `to` (SPEC 6.3), in milliseconds.
    package static let markoutGrace: Int64 = 60_000
}
