/// The switchback design (SPEC 7.1): time is cut into pairs of blocks, and in each pair every symbol plays A in one half and B in the other.
///
/// A function of these fields and a time-stamp alone, so edge and hub compute the same arm without talking. Which half plays B is decided by
/// SipHash-2-4 of `<group>|<pair>` under the spec's salt. Two clusters matched in one group always play opposite halves, so that what hits
/// the whole market cancels in their sum; together they are one increment of a gate.
package struct Switchback: Sendable, Equatable {
    /// Symbols that switch together; those of one risk or inventory belong in one cluster.
    package struct Cluster: Sendable, Equatable {
        package var symbols: [String]
        /// Clusters of one group share their coin.
        package var group: Int
        /// Plays the other half than the group's coin says.
        package var isOpposite: Bool
        package init(symbols: [String], group: Int, isOpposite: Bool) {
            self.symbols = symbols
            self.group = group
            self.isOpposite = isOpposite
        }
    }

    /// From `fromPair` on this share of the groups is enrolled; shares rise.
    package struct RampStep: Sendable, Equatable {
        package var fromPair: Int32
        package var shareMicro: Int64
        package init(fromPair: Int32, shareMicro: Int64) {
            self.fromPair = fromPair
            self.shareMicro = shareMicro
        }
    }

    /// What times of the design are multiples of, as snapshots are cut there (SPEC 2.3).
    package static let stepMilliseconds: Int64 = 10_000

    /// T0: the first block's beginning, ms UTC, before any jitter.
    package var startMilliseconds: Int64
    package var blockMilliseconds: Int64
    /// At the beginning of every block, dropped: orders of the other arm leave the book.
    package var washoutMilliseconds: Int64
    /// Each group starts up to this much after T0, in steps of 10 s, so that a fleet does not switch in one instant.
    package var jitterMilliseconds: Int64 { didSet { tabulate() } }
    package var key0: UInt64 { didSet { tabulate() } }
    package var key1: UInt64 { didSet { tabulate() } }
    package var clusters: [Cluster] { didSet { tabulate() } }
    package var ramp: [RampStep] { didSet { tabulate() } }
    /// By group, hashed once: an edge asks at every step. Empty while nothing is late, or nothing is ramped up.
    private var jitters: [Int64] = []
    private var rampRanks: [Int] = []

    package init(
        startMilliseconds: Int64, blockMilliseconds: Int64 = 300_000, washoutMilliseconds: Int64 = 30_000, jitterMilliseconds: Int64 = 0,
        key0: UInt64, key1: UInt64, clusters: [Cluster], ramp: [RampStep] = []
    ) {
        precondition(blockMilliseconds > 0 && (0..<blockMilliseconds).contains(washoutMilliseconds) && jitterMilliseconds >= 0)
        self.startMilliseconds = startMilliseconds
        self.blockMilliseconds = blockMilliseconds
        self.washoutMilliseconds = washoutMilliseconds
        self.jitterMilliseconds = jitterMilliseconds
        self.key0 = key0
        self.key1 = key1
        self.clusters = clusters
        self.ramp = ramp
        tabulate()
    }

    private mutating func tabulate() {
        let groups = 0..<groupCount
        jitters = jitterMilliseconds > 0 ? groups.map { hashedJitter(of: $0) } : []
        rampRanks = []
        guard !ramp.isEmpty else { return }
        let hashes = groups.map { KeyedHash.hash("\($0)|ramp".utf8, key0: key0, key1: key1) }
        rampRanks = .init(repeating: 0, count: groups.count)
        for (rank, group) in groups.sorted(by: { (hashes[$0], $0) < (hashes[$1], $1) }).enumerated() { rampRanks[group] = rank }
    }

    /// Neighbours in `ranked` (by notional, say) play opposite arms; the last of an odd number, and all of fewer than ten, flip alone: with so
    /// few symbols twice as many coins are worth more than what matching cancels.
    package static func matched(_ ranked: [String]) -> [Cluster] {
        let isMatched = ranked.count >= 10
        return ranked.enumerated().map { index, symbol in
            Cluster(symbols: [symbol], group: isMatched ? index / 2 : index, isOpposite: isMatched && index % 2 == 1)
        }
    }

    package var groupCount: Int { (clusters.map(\.group).max() ?? -1) + 1 }

    /// Where a time lies for one cluster.
    package struct Place: Sendable, Equatable {
        package var arm: Arm
        /// `schedule` or `washout`; `join` before T0, behind the last pair, and while the ramp has not reached the group.
        package var why: ArmReason
        /// Blocks since T0; pair = block / 2. Negative before T0.
        package var block: Int32
        package var blockEndMilliseconds: Int64
    }

    /// Nil for a symbol that takes no part.
    package func place(of symbol: String, at milliseconds: Int64) -> Place? {
        clusters.first { $0.symbols.contains(symbol) }.map { place(of: $0, at: milliseconds) }
    }

    package func place(of cluster: Cluster, at milliseconds: Int64) -> Place {
        let start = startMilliseconds + jitter(of: cluster.group)
        let elapsed = milliseconds - start
        var (block, into) = elapsed.quotientAndRemainder(dividingBy: blockMilliseconds)
        if into < 0 {
            block -= 1
            into += blockMilliseconds
        }
        let end = milliseconds - into + blockMilliseconds
        let index = Int32(clamping: block)
        // Nobody judges what comes after the last pair.
        guard block >= 0, block / 2 < Int64(Limits.experimentPairsMax), isEnrolled(cluster.group, pair: index / 2) else {
            return Place(arm: .a, why: .join, block: index, blockEndMilliseconds: end)
        }
        let isSecondHalf = !block.isMultiple(of: 2)
        let arm: Arm = bIsSecond(cluster, pair: index / 2) == isSecondHalf ? .b : .a
        return Place(arm: arm, why: into < washoutMilliseconds ? .washout : .schedule, block: index, blockEndMilliseconds: end)
    }

    /// The coin: true means A first, then B; eps = +1 of the statistics.
    package func bIsSecond(_ cluster: Cluster, pair: Int32) -> Bool {
        let coin = KeyedHash.hash("\(cluster.group)|\(pair)".utf8, key0: key0, key1: key1) & 1 == 1
        return coin != cluster.isOpposite
    }

    package func jitter(of group: Int) -> Int64 { jitters.isEmpty ? 0 : jitters[group] }

    private func hashedJitter(of group: Int) -> Int64 {
        let hash = KeyedHash.hash("\(group)|jitter".utf8, key0: key0, key1: key1)
        // Snapshots are cut at multiples of 10 s: a block that ends at one has its last markouts in a row that ends 30 s later.
        return Int64(hash.multipliedFullWidth(by: UInt64(jitterMilliseconds / Self.stepMilliseconds) + 1).high) * Self.stepMilliseconds
    }

    /// The groups with the smallest keyed hash of `<group>|ramp` come first, so a rising share only adds groups.
    package func isEnrolled(_ group: Int, pair: Int32) -> Bool {
        guard !ramp.isEmpty else { return true }
        guard let share = ramp.last(where: { $0.fromPair <= pair })?.shareMicro else { return false }
        return Int64(rampRanks[group]) * 1_000_000 < share * Int64(rampRanks.count)
    }
}

/// The `host_symbol` design: of the hosts that quote a symbol, those with the smallest keyed hash of `<host>|<symbol>` play B. For host-side
/// metrics only: both arms stand in one queue.
package enum HostSymbolSplit {
    package static func arm(of host: String, symbol: String, hosts: [String], splitMicro: Int64, key0: UInt64, key1: UInt64) -> Arm {
        func rank(_ host: String) -> (UInt64, String) { (KeyedHash.hash("\(host)|\(symbol)".utf8, key0: key0, key1: key1), host) }
        let own = rank(host)
        let all = Set(hosts)
        let count = (Int64(all.count) * splitMicro + 500_000) / 1_000_000
        return Int64(all.count { rank($0) < own }) < count ? .b : .a
    }
}
