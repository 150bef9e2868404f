import CalibModel
import TestSupport
import Testing
import Wire

@testable import HubCore

/// Stored rows in, demands out; and the same again from the evidence (SPEC 7.3, 7.5).
struct ExperimentJudgeTests {
    private typealias Row = PairLedgerTests.Row
    private static let hosts = ["edge-1", "edge-2"]

    private static var experiment: Experiment {
        let spec = ExperimentSpec(
            id: "exp-7", design: "switchback", createdMilliseconds: PairLedgerTests.start - 60_000,
            salt: "0300000000000000" + "0400000000000000", splitMicro: 500_000, candidate: [], switchback: PairLedgerTests.design)
        var experiment = Experiment(spec: spec, state: .online, reason: "r", by: "alice", changedMilliseconds: 0)
        experiment.hosts = hosts.map { PairPlan.Host(name: $0, symbols: PairLedgerTests.symbols) }
        experiment.source = .sim
        return experiment
    }

    private static func feed(_ judge: inout ExperimentJudge, _ rows: [String], host: String, upTo end: StoredOffset? = nil) {
        var byte: Int64 = 0
        for row in rows {
            byte += Int64(row.utf8.count + 1)
            let offset = StoredOffset(day: 20_098, byte: byte)
            if let end, offset > end { return }
            Array(row.utf8).withUnsafeBytes { judge.take($0, host: host, endingAt: offset) }
        }
    }

    private static func assess(_ rows: [String], _ others: [String]? = nil) -> Assessment {
        var judge = ExperimentJudge(experiment)
        feed(&judge, rows, host: "edge-1")
        feed(&judge, others ?? rows, host: "edge-2")
        return judge.assess()
    }

    @Test func equalArmsDemandNothing_andDecideNothing() {
        let result = Self.assess(PairLedgerTests.rows(pairs: 4) { $0.misses = 0 })
        #expect(result.demand == nil && result.verdict == .inconclusive && result.gates.count == Gate.all.count)
    }

    @Test func aLateCandidateIsTakenBack() {
        let result = Self.assess(PairLedgerTests.rows(pairs: 12) { $0.misses = $0.arm == "B" ? 40 : 0 })
        guard case .rollback? = result.demand else {
            Issue.record("\(String(describing: result.demand))")
            return
        }
        #expect(result.verdict == .fail)
    }

    /// SPEC 7.5: an objective that both arms miss is not the candidate's fault.
    @Test func bothArmsLateIsAPause() {
        let result = Self.assess(PairLedgerTests.rows(pairs: 40) { $0.misses = 30 })
        guard case .pause? = result.demand else {
            Issue.record("\(String(describing: result.demand))")
            return
        }
    }

    @Test func armsThatTheScheduleDoesNotGiveAreInvalid() {
        let result = Self.assess(PairLedgerTests.rows(pairs: 1) { if $0.why == "schedule", $0.arm == "B" { $0.arm = "A" } })
        guard case .invalid(let why)? = result.demand, result.verdict == .invalid else {
            Issue.record("\(String(describing: result.demand))")
            return
        }
        #expect(why.contains("schedule"))
    }

    /// Lease and clock censor, they do not invalidate; data that is not there does.
    @Test(arguments: [("lease", false), ("clock", false), ("manual", false), ("join", true), ("none", true)])
    func exposureCountsWithoutWhatOnlyCensors(why: String, isInvalid: Bool) {
        let others = PairLedgerTests.rows(pairs: 4) { if $0.from >= PairLedgerTests.start { ($0.why, $0.arm) = (why, "A") } }
        let result = Self.assess(PairLedgerTests.rows(pairs: 4) { $0.misses = 0 }, others)
        if case .invalid? = result.demand { #expect(isInvalid) } else { #expect(!isInvalid, "\(why)") }
    }

    /// Whenever the hub looked and whatever came since: the evidence is enough to say the same again, to the byte.
    @Test func evidenceSaysTheSameAgain_fromLongerFiles() throws {
        let rows = PairLedgerTests.rows(pairs: 5) { $0.misses = $0.arm == "B" ? 30 : 1 }
        let short = Array(rows.prefix(rows.count - 400))
        var live = ExperimentJudge(Self.experiment)
        Self.feed(&live, short, host: "edge-1")
        _ = live.assess()
        Self.feed(&live, Array(rows.prefix(rows.count - 700)), host: "edge-2")
        let silence = PairPlan.Silence(host: "edge-2", pair: 3, held: nil)
        live.decide(silence)
        let decided = live.assess()
        let inputs = try #require(Assessment.inputs(decided.json))
        #expect(inputs.silences == [silence])
        var past = Self.experiment
        past.silences = inputs.silences
        var again = ExperimentJudge(past)
        for host in Self.hosts.reversed() {
            let end: StoredOffset = try #require(inputs.held[host])
            Self.feed(&again, rows, host: host, upTo: end)
        }
        let repeated = again.assess()
        #expect(repeated == decided)
    }

    // MARK: The fault table's rows that a judge sees, wherever they strike

    /// From some pair on a host says nothing: fifteen minutes later its pairs are `no_data`, and with less than 80 % of the plan the run is INVALID.
    @Test(arguments: UInt64(1)...20) func noData(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let rows = PairLedgerTests.rows(pairs: 8) { $0.misses = 0 }
        let kept = Int.random(in: 0...8, using: &random)
        let end = PairLedgerTests.start + Int64(kept) * 600_000
        let others = PairLedgerTests.rows(pairs: kept) { $0.misses = 0 }
        var judge = ExperimentJudge(Self.experiment)
        Self.feed(&judge, rows, host: "edge-1")
        Self.feed(&judge, others, host: "edge-2")
        for pair in kept..<8 {
            let late = end + Int64(pair - kept + 1) * 600_000 + PairLedger.silenceMilliseconds
            for silence in judge.dueSilences(at: late, hubStarted: 0) where silence.host == "edge-2" { judge.decide(silence) }
        }
        let result = judge.assess()
        #expect(result.json["pairs"]?.integer == 8 && result.json["counted"]?.integer == Int64(3 * (8 + kept)))
        #expect(result.json["censored"]?["no_data"]?.integer ?? 0 == Int64(3 * (8 - kept)))
        // (8 + k) of 16.
        #expect(result.verdict == (8 + kept < 13 ? .invalid : .inconclusive), "\(kept): \(String(describing: result.demand))")
    }

    /// A part begins with rows that the file before it holds, or a host's feed was copied: each row counts once.
    @Test(arguments: UInt64(1)...20) func duplicatedFeed(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let rows = PairLedgerTests.rows(pairs: 4) { $0.misses = $0.arm == "B" ? 3 : 1 }
        let from = Int.random(in: 0..<rows.count - 1, using: &random)
        let to = Int.random(in: from..<min(rows.count, from + 500), using: &random)
        let again = Array(rows[...to]) + rows[from...to] + rows[(to + 1)...]
        let (once, twice) = (Self.assess(rows, rows), Self.assess(rows, again))
        #expect(once.gates == twice.gates && once.verdict == twice.verdict && once.demand == twice.demand)
    }

    /// An edge that draws its coins with another salt: INVALID as soon as its rows are there.
    @Test(arguments: UInt64(1)...20) func saltChanged(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var other = PairLedgerTests.design
        (other.key0, other.key1) = (random.next(), random.next())
        var differing = 0
        let rows = PairLedgerTests.rows(pairs: 6) { row in
            guard row.from >= PairLedgerTests.start, let place = other.place(of: row.symbol, at: row.from) else { return }
            if "\(place.arm.text)" != row.arm, row.why == "schedule", place.why == .schedule { differing += 1 }
            (row.arm, row.why, row.misses) = ("\(place.arm.text)", "\(place.why.text)", 0)
        }
        let result = Self.assess(PairLedgerTests.rows(pairs: 6) { $0.misses = 0 }, rows)
        #expect(differing > 0, "the coins of seed \(seed) are all the same")
        #expect(result.verdict == .invalid && result.gates.allSatisfy { !$0.demandsRollback })
    }

    @Test func hostsThatOweAPairAreNamedOnce() {
        var judge = ExperimentJudge(Self.experiment)
        Self.feed(&judge, PairLedgerTests.rows(pairs: 2), host: "edge-1")
        let late = PairLedgerTests.start + 600_000 + PairLedger.silenceMilliseconds
        let due = judge.dueSilences(at: late, hubStarted: 0)
        #expect(due.map(\.host) == ["edge-2"])
        for silence in due { judge.decide(silence) }
        #expect(judge.dueSilences(at: late, hubStarted: 0).isEmpty)
    }

    // MARK: Designs without blocks

    private static func fixed(_ symbolsB: [String]) -> Experiment {
        let spec = ExperimentSpec(
            id: "exp-7", createdMilliseconds: PairLedgerTests.start, salt: String(repeating: "0", count: 32), splitMicro: 500_000,
            symbolsA: PairLedgerTests.symbols.filter { !symbolsB.contains($0) }, symbolsB: symbolsB, candidate: [])
        var experiment = Experiment(spec: spec, state: .online, reason: "r", by: "alice", changedMilliseconds: 0)
        experiment.hosts = [PairPlan.Host(name: "edge-1", symbols: PairLedgerTests.symbols)]
        experiment.source = .sim
        return experiment
    }

    private static func fixedRows(minutes: Int, _ change: (inout Row) -> Void) -> [String] {
        (0..<(minutes * 6)).flatMap { step in
            PairLedgerTests.symbols.enumerated().map { index, symbol in
                var row = Row(symbol: symbol, from: PairLedgerTests.start + Int64(step) * 10_000, block: nil, seq: step * 3 + index)
                row.misses = 0
                row.arm = symbol == "S1" ? "B" : "A"
                change(&row)
                return row.text
            }
        }
    }

    private static func assessFixed(minutes: Int, _ change: (inout Row) -> Void) -> Assessment {
        var judge = ExperimentJudge(fixed(["S1"]))
        feed(&judge, fixedRows(minutes: minutes, change), host: "edge-1")
        return judge.assess()
    }

    /// The seed's rule, in the data's own time: 10 minutes of breach, not one less.
    @Test func thresholdGatesTakeASymbolSplitBackAfterTenMinutes() {
        func demand(_ minutes: Int) -> Assessment.Demand? {
            Self.assessFixed(minutes: minutes) { if $0.arm == "B" { $0.misses = 5 } }.demand
        }
        // Minutes are looked at one minute behind their end.
        #expect(demand(10) == nil && demand(11) == .rollback("deadline_miss_spike"))
        #expect(Self.assessFixed(minutes: 30) { _ in }.demand == nil)
    }

    /// A part of a file begins with rows that the one before it holds, too (SPEC 8.2).
    @Test func rowsThatAFileRepeatsCountOnce() throws {
        let rows = Self.fixedRows(minutes: 30) { $0.misses = 1 }
        func said(_ rows: [String]) throws -> Int64 {
            var judge = ExperimentJudge(Self.fixed(["S1"]))
            Self.feed(&judge, rows, host: "edge-1")
            return try #require(judge.assess().json["rows"]?.integer)
        }
        let once = try said(rows)
        #expect(once == Int64(rows.count))
        #expect(try said(Array(rows.prefix(300)) + rows.dropFirst(100)) == once)
    }

    /// SPEC 7.5: both arms late at once is not the candidate; after a pause it begins anew.
    @Test func bothArmsLateIsAPauseOfASymbolSplit_too() {
        #expect(
            Self.assessFixed(minutes: 30) { $0.misses = 5 }.demand == .pause("both arms miss more deadlines than the objective allows"))
        #expect(Self.assessFixed(minutes: 9) { $0.misses = 5 }.demand == nil)
        // Late together, then paused, then the candidate alone for less than ten minutes.
        let pause = PairLedgerTests.start + 15 * 60_000
        let later = Self.assessFixed(minutes: 25) {
            if $0.from < pause || $0.arm == "B" { $0.misses = 5 }
            if $0.from >= pause - 60_000, $0.from < pause { ($0.arm, $0.why) = ("A", "manual") }
        }
        #expect(later.demand == nil && later.json["paused_until_ms"]?.integer == pause)
    }

    /// A host that begins to quote another symbol of the experiment plays it as planned, and is not judged by it.
    @Test func symbolsThatAreNotInThePlanAreLeftOut() {
        let result = Self.assessFixed(minutes: 2) { if $0.symbol == "S0" { ($0.symbol, $0.arm) = ("S9", "B") } }
        #expect(result.verdict == .inconclusive && result.json["rows"]?.integer == 24)
    }

    @Test func anotherSymbolsArmIsInvalid() {
        let result = Self.assessFixed(minutes: 2) { if $0.symbol == "S0" { $0.arm = "B" } }
        #expect(result.verdict == .invalid)
    }

    /// Eight hosts of twenty symbols, half of them on B, of which none is ever seen.
    @Test func sampleRatioMismatchIsInvalid_oncePlanned() {
        let symbols = (0..<40).map { "S\($0)" }
        var experiment = Self.fixed([])
        experiment.spec.symbolsA = Array(symbols.prefix(20))
        experiment.spec.symbolsB = Array(symbols.suffix(20))
        experiment.hosts = [PairPlan.Host(name: "edge-1", symbols: symbols)]
        func verdict(_ seen: Range<Int>) -> Experiment.Verdict {
            var judge = ExperimentJudge(experiment)
            let rows = (0..<96).flatMap { step in
                seen.map { index in
                    var row = Row(
                        symbol: symbols[index], from: PairLedgerTests.start + Int64(step) * 10_000, block: nil, seq: step * 40 + index)
                    row.misses = 0
                    row.arm = index < 20 ? "A" : "B"
                    return row.text
                }
            }
            Self.feed(&judge, rows, host: "edge-1")
            return judge.assess().verdict
        }
        #expect(verdict(0..<20) == .invalid && verdict(0..<40) == .inconclusive)
    }

    // MARK: The one look of designs without blocks

    /// Hours of arm A, then of the experiment, a row an hour; every second symbol plays B. All of them differ in everything, by far more than arms do.
    private static func assessAtHorizon(
        symbols: Int = 24, hours: Int = 24, isHostLost: Bool = false, _ change: (inout Row) -> Void = { _ in }
    ) throws -> Assessment {
        let names = (0..<symbols).map { "S\($0)" }
        var experiment = fixed([])
        experiment.spec.symbolsA = names.indices.filter { $0.isMultiple(of: 2) }.map { names[$0] }
        experiment.spec.symbolsB = names.indices.filter { !$0.isMultiple(of: 2) }.map { names[$0] }
        experiment.hosts = (isHostLost ? hosts : ["edge-1"]).map { PairPlan.Host(name: $0, symbols: names) }
        experiment.note(.init(milliseconds: PairLedgerTests.start, state: .online, by: "alice", reason: "r", evidence: nil))
        // Long before it starts.
        experiment.spec.createdMilliseconds -= 40 * 3_600_000
        var random = SeededRandom(seed: 7)
        var rows: [String] = []
        for hour in -24..<hours {
            for (index, name) in names.enumerated() {
                var row = Row(symbol: name, from: PairLedgerTests.start + Int64(hour) * 3_600_000, seq: rows.count)
                let isB = hour >= 0 && !index.isMultiple(of: 2)
                (row.arm, row.block) = (isB ? "B" : "A", nil)
                if hour < 0 { (row.why, row.experiment) = ("none", nil) }
                (row.ticks, row.fills) = (1000, 100)
                row.takers = index + Int.random(in: 9...11, using: &random)
                row.bucket = 2464 + index * 5 % 7 + (hour < 0 ? 0 : index % 3)
                row.misses = Int.random(in: 2...4, using: &random)
                row.slip = "\(index * 7 + Int.random(in: 0...2, using: &random)).0"
                row.net = "\(index * 900 + Int.random(in: 0...200, using: &random)).0"
                change(&row)
                rows.append(row.text)
            }
        }
        var last = Row(symbol: "S0", from: PairLedgerTests.start + Int64(hours) * 3_600_000 + 30_000, block: nil, seq: rows.count)
        last.ticks = 1000
        rows.append(last.text)
        if isHostLost {
            last.from += PairLedger.silenceMilliseconds
            last.seq += 1
        }
        var judge = ExperimentJudge(experiment)
        feed(&judge, rows, host: "edge-1")
        #expect(!isHostLost || judge.assess().json["gates"]?.array?.count == 5, "a host that may still speak is waited for")
        if isHostLost { feed(&judge, rows + [last.text], host: "edge-1") }
        return judge.assess()
    }

    @Test func oneLookAfterADay_isInconclusiveWithoutAnEffect() throws {
        let result = try Self.assessAtHorizon()
        #expect(result.verdict == .inconclusive && result.demand == nil)
        let look = result.gates.filter { $0.kind == .fixedHorizon }
        #expect(look.count == Gate.all.count && look.allSatisfy { $0.state != .noData && $0.state != .violated }, "\(look)")
        // Nothing is said before its time, however clear it looks.
        let early = try Self.assessAtHorizon(hours: 23) { if $0.arm == "B" { $0.net = "90000.0" } }
        #expect(early.verdict == .inconclusive && early.gates.allSatisfy { $0.kind == .threshold })
    }

    @Test func aBetterCandidatePasses_aWorseOneFails_andFewSymbolsSayNothing() throws {
        func better(_ row: inout Row) { if row.arm == "B" { row.net = "\(Int(row.net.dropLast(2))! + 20_000).0" } }
        #expect(try Self.assessAtHorizon(better).verdict == .pass)
        #expect(try Self.assessAtHorizon(symbols: 18, better).verdict == .inconclusive)
        let worse = try Self.assessAtHorizon { if $0.arm == "B" { $0.slip = "\(Int($0.slip.dropLast(2))! + 20).0" } }
        #expect(worse.verdict == .fail && worse.demand == .rollback("slippage_degradation"))
        #expect(worse.gates.contains { $0.kind == .fixedHorizon && $0.state == .violated && $0.demandsRollback })
    }

    /// What another host measured is decided without the one that is gone, and only once it is a quarter of an hour late.
    @Test func aHostThatIsGoneIsLeftOut() throws {
        let result = try Self.assessAtHorizon(isHostLost: true) { if $0.arm == "B" { $0.slip = "900.0" } }
        #expect(result.demand == .rollback("slippage_degradation"))
    }
}
