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
