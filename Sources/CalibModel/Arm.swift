/// The arm of an experiment: A is the baseline, B the candidate (SPEC 7).
package enum Arm: UInt8, Sendable, BitwiseCopyable {
    case a, b
    package var text: StaticString { self == .a ? "A" : "B" }
}

/// Why a symbol plays its arm; gates compare `schedule` only (SPEC 2).
package enum ArmReason: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    /// The experiment's plan says so.
    case schedule
    /// No valid lease: A.
    case lease
    case breaker
    /// The experiment was rolled back here: A for ever.
    case latch
    /// Not yet at the boundary at which the symbol joins.
    case join
    case washout
    case clock
    case manual
    case dry
    /// No experiment.
    case none

    package var text: StaticString {
        switch self {
        case .schedule: "schedule"
        case .lease: "lease"
        case .breaker: "breaker"
        case .latch: "latch"
        case .join: "join"
        case .washout: "washout"
        case .clock: "clock"
        case .manual: "manual"
        case .dry: "dry"
        case .none: "none"
        }
    }
}

/// An experiment's id as a record carries it: inline, so that a ring slot holds all of it. At most 24 UTF-8 bytes, zero-padded.
package struct ExperimentID: BitwiseCopyable, Sendable, Hashable {
    private var first: UInt64 = 0
    private var second: UInt64 = 0
    private var third: UInt64 = 0

    /// Nil when the text is empty, longer than 24 bytes or holds a zero.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard (1...24).contains(bytes.count), !bytes.contains(0) else { return nil }
        var words: [UInt64] = [0, 0, 0]
        for (index, byte) in bytes.enumerated() { words[index / 8] |= UInt64(byte) << UInt64(8 * (index % 8)) }
        (first, second, third) = (words[0], words[1], words[2])
    }

    package var text: String {
        let bytes = [first, second, third].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}

/// The arm fields every row but an event's ends with (SPEC 2): under what the quote was made.
package struct ArmFields: BitwiseCopyable, Sendable, Hashable {
    package var arm: Arm
    package var why: ArmReason
    package var experiment: ExperimentID?
    /// The block of a switchback design; nil for designs without blocks.
    package var block: Int32?
    /// Of all effective parameters, both arms' included.
    package var configHash: UInt64

    package init(arm: Arm = .a, why: ArmReason = .none, experiment: ExperimentID? = nil, block: Int32? = nil, configHash: UInt64) {
        self.arm = arm
        self.why = why
        self.experiment = experiment
        self.block = block
        self.configHash = configHash
    }
}

/// What the edge's fast breakers look at (SPEC 7.4).
package enum BreakerKind: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case deadlineMiss, takerShare, loss, staleness

    package var text: StaticString {
        switch self {
        case .deadlineMiss: "deadline_miss"
        case .takerShare: "taker_share"
        case .loss: "loss"
        case .staleness: "staleness"
        }
    }
}

/// A breaker's evidence.
package struct BreakerTrip: BitwiseCopyable, Sendable, Equatable {
    package enum Scope: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        /// Only B was bad: latched.
        case harm
        /// A of the same seconds was as bad: nothing is latched, the hub pauses.
        case environment

        package var text: StaticString { self == .harm ? "harm" : "environment" }
    }

    package var kind: BreakerKind
    package var scope: Scope
    /// Of arm B: so many of so many ticks or fills; a loss in 1e-8 quote currency, against its limit.
    package var count: Int64
    package var of: Int64
    /// Of arm A in the same seconds.
    package var baselineCount: Int64
    package var baselineOf: Int64

    package init(kind: BreakerKind, scope: Scope, count: Int64, of: Int64, baselineCount: Int64, baselineOf: Int64) {
        self.kind = kind
        self.scope = scope
        self.count = count
        self.of = of
        self.baselineCount = baselineCount
        self.baselineOf = baselineOf
    }

    /// For a reason.
    package var sentence: String {
        kind == .loss
            ? "breaker loss: \(count / 100_000_000) on B, \(baselineCount / 100_000_000) on A, limit \(of / 100_000_000) in quote currency"
            : "breaker \(kind.text): \(count) of \(of) on B, \(baselineCount) of \(baselineOf) on A"
    }
}
