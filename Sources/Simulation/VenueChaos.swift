import CalibModel

/// When which trouble comes to the clients of a venue, from one seed.
///
/// Every kind comes once in the first `openingMilliseconds`, in a drawn order; after that each comes by itself, at intervals spread evenly from
/// half to one and a half of its mean. What a fault does is `ChaoticVenue`'s.
package struct VenueChaos: Sendable {
    package enum Kind: Int, Sendable, CaseIterable {
        /// One delta is never sent.
        case gap
        /// 182 deltas of one book in one millisecond: the densest of the recordings.
        case burst
        /// Nothing is published, pings are answered.
        case silence
        /// Nothing comes through for up to 1.5 s, neither way; then all of it, late.
        case stall
        /// The same for up to 0.3 s.
        case delay
        /// A websocket goodbye.
        case close
        /// A TCP reset.
        case reset
        /// The connection stands, and nothing comes through any more.
        case halfOpen
        /// A snapshot whose bids lie above its asks.
        case crossedSnapshot
        /// A frame is sent twice, at once or up to 0.5 s later.
        case duplicate
        /// A delta is sent after the one that follows it.
        case reordering
        /// The service behind a symbol's books starts anew: `u` counts from 1.
        case restart

        package var text: StaticString {
            switch self {
            case .gap: "gap"
            case .burst: "burst"
            case .silence: "silence"
            case .stall: "stall"
            case .delay: "delay"
            case .close: "close"
            case .reset: "reset"
            case .halfOpen: "half_open"
            case .crossedSnapshot: "crossed_snapshot"
            case .duplicate: "duplicate"
            case .reordering: "reordering"
            case .restart: "restart"
            }
        }

        /// Between two faults of the kind, on average.
        fileprivate var meanMilliseconds: Int64 {
            switch self {
            case .duplicate: 3_000
            case .gap, .delay: 4_000
            case .burst: 5_000
            case .reordering: 6_000
            case .crossedSnapshot: 8_000
            case .restart: 12_000
            case .silence: 15_000
            case .stall: 20_000
            case .close: 90_000
            case .reset: 120_000
            case .halfOpen: 240_000
            }
        }

        /// How long a fault of the kind lasts; 0 for those that are over at once.
        fileprivate var milliseconds: ClosedRange<Int64> {
            switch self {
            // The longest outlive a topic's proof of 5 s.
            case .silence: 500...6_500
            case .stall: 300...1_500
            case .delay: 20...300
            case .halfOpen: 6_000...8_000
            case .duplicate: 0...500
            case .gap, .burst, .close, .reset, .crossedSnapshot, .reordering, .restart: 0...0
            }
        }
    }

    package struct Fault: Sendable, Equatable {
        package var kind: Kind
        package var symbol: Int
        package var milliseconds: Int64
    }

    /// Messages of a burst.
    package static let burstMessages = 182
    /// Clients are left in peace for the first second, to begin with; then one kind after the other.
    private static let beginMilliseconds: Int64 = 1_000
    private static let openingStepMilliseconds: Int64 = 1_500
    package static let openingMilliseconds = beginMilliseconds + Int64(Kind.allCases.count) * openingStepMilliseconds

    private let symbolCount: Int
    private var random: PRNG
    /// By kind.
    private var nextMilliseconds: [Int64]

    package init(seed: UInt64, symbolCount: Int) {
        precondition(symbolCount > 0, "BUG: chaos without symbols")
        self.symbolCount = symbolCount
        random = PRNG(seed: seed)
        var order = Kind.allCases
        for index in order.indices.dropFirst().reversed() { order.swapAt(index, Int(random.below(Int64(index) + 1))) }
        nextMilliseconds = Array(repeating: 0, count: order.count)
        for (place, kind) in order.enumerated() {
            nextMilliseconds[kind.rawValue] = Self.beginMilliseconds + Int64(place) * Self.openingStepMilliseconds + random.below(500)
        }
    }

    /// The faults that begin by then, each once.
    package mutating func due(atElapsed milliseconds: Int64) -> [Fault] {
        var faults: [Fault] = []
        for kind in Kind.allCases where nextMilliseconds[kind.rawValue] <= milliseconds {
            let mean = kind.meanMilliseconds
            // Its rate holds from the end of the opening, in which each has its turn.
            nextMilliseconds[kind.rawValue] = max(milliseconds, Self.openingMilliseconds - mean) + mean / 2 + random.below(mean)
            let range = kind.milliseconds
            faults.append(
                Fault(
                    kind: kind, symbol: Int(random.below(Int64(symbolCount))),
                    milliseconds: range.lowerBound + random.below(range.upperBound - range.lowerBound + 1)))
        }
        return faults
    }
}
