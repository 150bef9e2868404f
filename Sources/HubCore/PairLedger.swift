import CalibModel
import Wire

// The pairs of a switchback experiment from stored snapshot rows: which rows count, when a pair is closed, what is left out (SPEC 7.1, 7.3).
//
//     rows of a host, in stored order   open -> closed | no_data       for each host and pair, pairs in order
//     pairs that every host has ended   settled                        in order: what the gates read
//
// Invariants
//  1. Which rows of a host count is a function of that host's stored bytes and of the silences decided: a silence is a decision, so it is stored;
//     a look at the clock is not. When the hub looked, restarted, or had other hosts' bytes leaves no trace.
//  2. A pair ends once for a host. Its rows that come later are `late_excluded`.
//  3. A row counts once: equal bytes under one identity are a duplicate (SPEC 6.5).
//  4. A pair of a symbol on a host counts with both halves or not at all, and what censors it knows neither arm nor outcome. A breaker is harm:
//     it does not censor.
//
// Rows of one host must be handed in in the order of their files (day, part) and bytes. A row whose span ends behind `end + 35 s` shows that the
// host has written everything up to there: edges cut all symbols at the same multiples of 10 s and write cuts in order of time. T0 and jitter
// are multiples of 10 s, so that the last markouts of a block (30 s) lie in rows that end within the 35 s.

/// Where a row ends in a host's stored snapshots.
package struct StoredOffset: Sendable, Comparable, Hashable {
    /// Days since 1970, and part, of the file; bytes into it.
    package var day: Int64
    package var part: Int64
    package var byte: Int64
    package init(day: Int64, part: Int64 = 0, byte: Int64) {
        self.day = day
        self.part = part
        self.byte = byte
    }
    package static func < (a: StoredOffset, b: StoredOffset) -> Bool { (a.day, a.part, a.byte) < (b.day, b.part, b.byte) }
}

/// What an experiment's pairs are made of.
package struct PairPlan: Sendable {
    package struct Host: Sendable, Equatable {
        package var name: String
        /// Those of the design that it quotes.
        package var symbols: [String]
        /// Rows behind it are no pre-period; nil: those up to T0 + 35 s are.
        package var preEnd: StoredOffset?
        package init(name: String, symbols: [String], preEnd: StoredOffset? = nil) {
            self.name = name
            self.symbols = symbols
            self.preEnd = preEnd
        }
    }

    /// A host that did not finish a pair in time, decided when the hub held its rows up to `held` (nil: none).
    package struct Silence: Sendable, Hashable {
        package var host: String
        package var pair: Int32
        package var held: StoredOffset?
        package init(host: String, pair: Int32, held: StoredOffset?) {
            self.host = host
            self.pair = pair
            self.held = held
        }
    }

    package var experiment: String
    package var design: Switchback
    package var hosts: [Host]
    package var source: RowSource

    package init(experiment: String, design: Switchback, hosts: [Host], source: RowSource) {
        self.experiment = experiment
        self.design = design
        self.hosts = hosts.sorted { $0.name < $1.name }
        self.source = source
    }
}

/// Why a symbol's pair on a host does not count.
package enum Censoring: String, Sendable, CaseIterable {
    case lease, clock, manual, latch
    /// Not of the experiment, or not in it from the pair's beginning.
    case notPlaying = "not_playing"
    case config
    /// A row without what the gates read.
    case incomplete
    /// A half without any tick.
    case emptyHalf = "empty_half"
    case noData = "no_data"
}

/// What became of a snapshot row.
package enum RowFate: String, Sendable, CaseIterable {
    case counted
    case prePeriod = "pre_period"
    /// Arm reasons that are not compared.
    case washout, breaker, censoring
    case lateExcluded = "late_excluded"
    case duplicate
    /// Another arm, block or time than the experiment gives it (SPEC 7.5: INVALID).
    case mismatch
    case incomplete
    /// Before the pre-period, or not asked about.
    case outside
    case otherSource = "other_source"
    case rejected
}

package struct SettledPair: Sendable {
    package var number: Int32
    /// Uncensored.
    package var items: [UnitPair]
    /// Symbols on hosts that were to play it.
    package var planned: Int
    package var censored: [Censoring: Int]
}

package struct PairLedger: ~Copyable {
    /// A pair closes when rows reach this far behind its end (SPEC 7.3): the last markout is due 30 s after the last fill.
    package static let closingMilliseconds: Int64 = 35_000
    /// SPEC 7.3.
    package static let silenceMilliseconds: Int64 = 900_000
    package static let prePeriodMilliseconds: Int64 = 86_400_000

    private struct Unit {
        var symbol: String
        var cluster: Switchback.Cluster
    }
    private struct Identity: Hashable {
        var epoch: Int64
        var seq: Int64
    }
    /// A symbol of a host in one pair.
    private struct Halves {
        var sums = [BlockSums(), BlockSums()]
        var censoring: Censoring?
        var configHash: [UInt8] = []
    }
    private struct OpenPair {
        var units: [Int: Halves] = [:]
        var seen: [Identity: UInt64] = [:]
        var rows: Int64 = 0
        var isSilent = false

        mutating func isDuplicate(_ row: FeedRow, _ hash: UInt64) -> Bool {
            guard let epoch = row[.epoch], let seq = row[.seq] else { return false }
            let identity = Identity(epoch: epoch, seq: seq)
            if seen[identity] == hash { return true }
            seen[identity] = hash
            return false
        }
    }
    private struct Host {
        var plan: PairPlan.Host
        /// By symbol id.
        var units: [Int32: Int] = [:]
        var jitter: Int64 = 0
        /// The first pair that has not ended.
        var next: Int32 = 0
        var open: [Int32: OpenPair] = [:]
        var before: [Int32: OpenPair] = [:]
        var isPrePeriodOver = false
        /// End of the newest row.
        var held: StoredOffset?
        /// By pair: what was held when it was decided.
        var silences: [Int32: StoredOffset?] = [:]
    }

    package let plan: PairPlan
    private var scanner = FeedScanner()
    private var symbols = NameTable()
    private let experiment: [UInt8]
    private var units: [Unit] = []
    private var hosts: [Host] = []
    /// Ended for some host, not settled: by pair, then host.
    private var ended: [Int32: [Int: OpenPair]] = [:]
    private var nextSettled: Int32 = 0
    private var settled: [SettledPair] = []
    private var fates: [RowFate: Int64] = [:]
    /// Not taken yet.

    /// `silences`: those decided so far.
    package init(_ plan: PairPlan, silences: Set<PairPlan.Silence> = []) {
        self.plan = plan
        experiment = Array(plan.experiment.utf8)
        for host in plan.hosts {
            var state = Host(plan: host)
            for symbol in host.symbols.sorted() {
                guard let cluster = plan.design.clusters.first(where: { $0.symbols.contains(symbol) }) else { continue }
                state.units[symbols.id(of: symbol)] = units.count
                state.jitter = max(state.jitter, plan.design.jitter(of: cluster.group))
                units.append(Unit(symbol: symbol, cluster: cluster))
            }
            for silence in silences where silence.host == host.name { state.silences[silence.pair] = .some(silence.held) }
            hosts.append(state)
        }
        for host in hosts.indices { endSilent(host) }
    }

    package var unitCount: Int { units.count }
    package func count(of fate: RowFate) -> Int64 { fates[fate] ?? 0 }
    /// The first pair that has not ended for it; nil for a host that takes no part.
    package func nextPair(of host: String) -> Int32? { hosts.first { $0.plan.name == host }?.next }

    // MARK: Rows

    /// The next stored line of a host, which ends at `offset`. Lines of hosts that take no part are ignored.
    package mutating func take(_ line: UnsafeRawBufferPointer, host name: String, endingAt offset: StoredOffset, isTerminated: Bool = true)
    {
        guard let host = hosts.firstIndex(where: { $0.plan.name == name }) else { return }
        defer {
            hosts[host].held = offset
            endSilent(host)
        }
        guard scanner.scan(line, feed: .snapshots, isTerminated: isTerminated) == nil else {
            fates[.rejected, default: 0] += 1
            return
        }
        let row = scanner.row
        let fate = fate(of: row, hash: KeyedHash.hash(line, key0: 0x7061_6972_0000_0001, key1: UInt64(line.count)), host, offset)
        fates[fate, default: 0] += 1
        if fate != .otherSource { advance(host, to: row.value(.fromTs) + row.value(.spanMs), offset) }
    }

    private mutating func fate(of row: FeedRow, hash: UInt64, _ host: Int, _ offset: StoredOffset) -> RowFate {
        guard row[.source] == plan.source.rawValue else { return .otherSource }
        guard let unit = hosts[host].units[symbols.id(of: row.symbol)] else { return .outside }
        let place = plan.design.place(of: units[unit].cluster, at: row.value(.fromTs))
        let now = place.block >> 1
        guard now < Limits.experimentPairsMax else { return .outside }
        if place.block < 0 { return prePeriod(row, hash, host, unit, place.block, offset) }
        let why = ArmReason.allCases.first { row.armWhy.equals($0.text) }
        let isOurs = row.experiment.elementsEqual(experiment)
        // A row without ticks decided nothing: it only brings late fills or markouts of another reason's quotes.
        let hasTicks = (row[.ticks] ?? 1) > 0
        guard isOurs, let why else {
            guard hasTicks, plan.design.isEnrolled(units[unit].cluster.group, pair: now) else { return .outside }
            return censor(.notPlaying, host, unit, now)
        }
        let reason: Censoring
        switch why {
        case .schedule: return schedule(row, hash, host, unit, place)
        case .washout:
            guard hasTicks, now >= hosts[host].next else { return .washout }
            return isOneConfig(row, host, unit, now) ? .washout : censor(.config, host, unit, now)
        case .breaker: return .breaker
        case .lease: reason = .lease
        case .clock: reason = .clock
        case .manual: reason = .manual
        case .latch: reason = .latch
        case .join, .dry, .none: reason = .notPlaying
        }
        guard hasTicks, plan.design.isEnrolled(units[unit].cluster.group, pair: now) else { return .outside }
        return censor(reason, host, unit, now)
    }

    private mutating func schedule(_ row: FeedRow, _ hash: UInt64, _ host: Int, _ unit: Int, _ place: Switchback.Place) -> RowFate {
        let now = place.block >> 1
        guard let block = row[.block].flatMap({ Int32(exactly: $0) }), let arm = row[.arm], let sums = BlockSums(row) else {
            _ = censor(.incomplete, host, unit, now)
            return .incomplete
        }
        let (pair, half) = (block >> 1, Int(block & 1))
        // Quotes of a block may be filled and marked out behind its end, never before its beginning.
        guard block >= 0, pair <= now, sums.ticks == 0 || block == place.block,
            plan.design.isEnrolled(units[unit].cluster.group, pair: pair),
            (plan.design.bIsSecond(units[unit].cluster, pair: pair) == (half == 1)) == (arm == Int64(Arm.b.rawValue))
        else { return .mismatch }
        guard pair >= hosts[host].next else { return .lateExcluded }
        if hosts[host].open[pair, default: OpenPair()].isDuplicate(row, hash) { return .duplicate }
        guard isOneConfig(row, host, unit, pair) else { return censor(.config, host, unit, pair) }
        hosts[host].open[pair, default: OpenPair()].units[unit, default: Halves()].sums[half] += sums
        hosts[host].open[pair]?.rows += 1
        return .counted
    }

    /// Everything arm A did in the last day before T0, whatever the reason: it only sets precisions and scales.
    private mutating func prePeriod(
        _ row: FeedRow, _ hash: UInt64, _ host: Int, _ unit: Int, _ block: Int32, _ offset: StoredOffset
    ) -> RowFate {
        guard row[.arm] == Int64(Arm.a.rawValue), let sums = BlockSums(row) else { return .outside }
        let start = plan.design.startMilliseconds + plan.design.jitter(of: units[unit].cluster.group)
        guard row.value(.fromTs) >= start - Self.prePeriodMilliseconds else { return .outside }
        if hosts[host].isPrePeriodOver { return .lateExcluded }
        if let end = hosts[host].plan.preEnd, offset > end { return .lateExcluded }
        let pair = block >> 1
        if hosts[host].before[pair, default: OpenPair()].isDuplicate(row, hash) { return .duplicate }
        hosts[host].before[pair, default: OpenPair()].units[unit, default: Halves()].sums[Int(block & 1)] += sums
        return .prePeriod
    }

    /// One config_hash through both halves; the first row of a pair says which.
    private mutating func isOneConfig(_ row: FeedRow, _ host: Int, _ unit: Int, _ pair: Int32) -> Bool {
        let known = hosts[host].open[pair]?.units[unit]?.configHash ?? []
        if known.isEmpty {
            hosts[host].open[pair, default: OpenPair()].units[unit, default: Halves()].configHash = Array(row.configHash)
            return true
        }
        return row.configHash.elementsEqual(known)
    }

    /// The first reason is kept.
    private mutating func censor(_ reason: Censoring, _ host: Int, _ unit: Int, _ pair: Int32) -> RowFate {
        guard pair >= hosts[host].next else { return .lateExcluded }
        let before = hosts[host].open[pair]?.units[unit]?.censoring
        hosts[host].open[pair, default: OpenPair()].units[unit, default: Halves()].censoring = before ?? reason
        return .censoring
    }

    // MARK: Ends of pairs

    /// End of a pair on a host: of its last group.
    private func end(of pair: Int32, _ host: Int) -> Int64 {
        plan.design.startMilliseconds + hosts[host].jitter + (Int64(pair) + 1) * 2 * plan.design.blockMilliseconds
    }

    private mutating func advance(_ host: Int, to time: Int64, _ offset: StoredOffset) {
        if time > plan.design.startMilliseconds + hosts[host].jitter + Self.closingMilliseconds { endPrePeriod(host) }
        while hosts[host].next < Limits.experimentPairsMax, time > end(of: hosts[host].next, host) + Self.closingMilliseconds {
            end(host, at: offset)
        }
    }

    private mutating func endPrePeriod(_ host: Int) {
        hosts[host].isPrePeriodOver = true
        for pair in hosts[host].before.keys { hosts[host].before[pair]?.seen = [:] }
    }

    private mutating func end(_ host: Int, at offset: StoredOffset?) {
        let pair = hosts[host].next
        hosts[host].next += 1
        var rows = hosts[host].open.removeValue(forKey: pair) ?? OpenPair()
        rows.seen = [:]
        if offset == nil {
            fates[.counted, default: 0] -= rows.rows
            fates[.lateExcluded, default: 0] += rows.rows
            rows.units = [:]
            rows.isSilent = true
        }
        ended[pair, default: [:]][host] = rows
        endSilent(host)
        settle()
    }

    private mutating func endSilent(_ host: Int) {
        guard let held = hosts[host].silences[hosts[host].next] else { return }
        if let held { guard let now = hosts[host].held, now >= held else { return } }
        endPrePeriod(host)
        end(host, at: nil)
    }

    /// Pairs that hosts owe for longer than SPEC 7.3 allows: to be stored, then handed to `decide`. Each host's first; ask again behind it.
    package func dueSilences(at milliseconds: Int64, hubStarted: Int64) -> [PairPlan.Silence] {
        hosts.indices.compactMap { host in
            let since = max(end(of: hosts[host].next, host), hubStarted)
            guard hosts[host].next < Limits.experimentPairsMax, milliseconds - since >= Self.silenceMilliseconds else { return nil }
            return PairPlan.Silence(host: hosts[host].plan.name, pair: hosts[host].next, held: hosts[host].held)
        }
    }

    /// A silence that is stored. One of a pair that has ended in the meantime changes nothing.
    package mutating func decide(_ silence: PairPlan.Silence) {
        guard let host = hosts.firstIndex(where: { $0.plan.name == silence.host }), silence.pair >= hosts[host].next else { return }
        hosts[host].silences[silence.pair] = .some(silence.held)
        endSilent(host)
    }

    private mutating func settle() {
        while let rows = ended[nextSettled], rows.count == hosts.count {
            ended[nextSettled] = nil
            settled.append(settledPair(nextSettled, rows))
            nextSettled += 1
        }
    }

    private func settledPair(_ pair: Int32, _ rows: [Int: OpenPair]) -> SettledPair {
        var result = SettledPair(number: pair, items: [], planned: 0, censored: [:])
        for host in hosts.indices {
            for unit in hosts[host].units.values.sorted() where plan.design.isEnrolled(units[unit].cluster.group, pair: pair) {
                result.planned += 1
                let halves = rows[host]?.units[unit] ?? Halves()
                let isExposed = halves.sums.allSatisfy { $0.ticks > 0 }
                let reason = rows[host]?.isSilent == true ? .noData : halves.censoring ?? (isExposed ? nil : Censoring.emptyHalf)
                if let reason {
                    result.censored[reason, default: 0] += 1
                } else {
                    result.items.append(item(unit, pair, halves))
                }
            }
        }
        return result
    }

    private func item(_ unit: Int, _ pair: Int32, _ halves: Halves) -> UnitPair {
        let cluster = units[unit].cluster
        return UnitPair(
            unit: unit, group: cluster.group, sign: plan.design.bIsSecond(cluster, pair: pair) ? 1 : -1, first: halves.sums[0],
            second: halves.sums[1])
    }

    // MARK: What gates read

    /// Pairs that were settled since the last call, in order. The first of them comes after every host's pre-period is over.
    package mutating func takeSettled() -> [SettledPair] {
        defer { settled = [] }
        return settled
    }

    /// Pairs of arm A on the experiment's grid, with the coins their numbers would have had; those with both halves of some symbol.
    package var prePairs: [[UnitPair]] {
        let numbers = Set(hosts.flatMap(\.before.keys)).sorted()
        return numbers.compactMap { number in
            let items = hosts.indices.flatMap { host in
                (hosts[host].before[number]?.units ?? [:]).sorted { $0.key < $1.key }
                    .filter { $0.value.sums.allSatisfy { $0.ticks > 0 } }.map { item($0.key, number, $0.value) }
            }
            return items.isEmpty ? nil : items
        }
    }
}

extension BlockSums {
    /// Of one stored row; nil without what the gates read.
    init?(_ row: FeedRow) {
        guard let ticks = row[.ticks], let misses = row[.deadlineMisses], let returns = row[.returns], let slip = row[.slip],
            let net = row[.netXNotional], let squaredReturn = row[.squaredReturn]
        else { return nil }
        self.init()
        self.ticks = ticks
        self.misses = misses
        self.returns = returns
        self.slip = Int128(slip)
        self.squaredReturn = Int128(squaredReturn)
        fills = row.value(.fills)
        takerFills = row.value(.takerFills)
        fillNotional = Int128(row.value(.fillNotional))
        markoutNotional = Int128(row.value(.markoutNotional))
        // Rows print nine decimals of bps x quote currency.
        slipNotional = Int128(row.value(.slipXNotional)) * 100_000
        netNotional = Int128(net) * 100_000
        histogram = row.histogram.filter { $0.count > 0 }.sorted { $0.index < $1.index }
    }
}
