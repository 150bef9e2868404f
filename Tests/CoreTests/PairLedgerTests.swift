import CalibModel
import HubCore
import TestSupport
import Testing

/// Which stored rows count for an experiment, and that nothing but the rows decides it (SPEC 7.1, 7.3).
struct PairLedgerTests {
    static let start: Int64 = 1_736_510_400_000  // 2025-01-10T12:00:00Z
    static let symbols = ["S0", "S1", "S2"]
    static let design = Switchback(
        startMilliseconds: start, key0: 3, key1: 4, clusters: Switchback.matched(symbols))

    private static func plan(hosts: [String] = ["edge-1"]) -> PairPlan {
        PairPlan(
            experiment: "exp-7", design: design, hosts: hosts.map { .init(name: $0, symbols: symbols) }, source: .sim)
    }

    struct Row {
        var symbol = "S0"
        var from: Int64 = 0
        var span: Int64 = 10_000
        var arm = "A"
        var why = "schedule"
        var experiment: String? = "exp-7"
        var block: Int32? = 0
        var config = "00000000000000aa"
        var ticks = 100
        var misses = 1
        var fills = 2
        var takers = 0
        var slip = "0.400000"
        var net = "0.0"
        var bucket = 2464
        var seq = 0
        var source = "sim"

        var text: String {
            let name = experiment.map { "\"\($0)\"" } ?? "null"
            let number = block.map { "\($0)" } ?? "null"
            let histogram = ticks > 0 ? "[[\(bucket),\(ticks)]]" : "[]"
            return
                #"{"ts":\#(from + span),"ts_iso":"","symbol":"\#(symbol)","from_ts":\#(from),"span_ms":\#(span),"features":{"vol_realized":null,"liq_top_depth":null,"pnl_dev":null,"queue_absorb_rate":null,"queue_eta_ms":null},"counts":{"ticks":\#(ticks),"quotes":10,"fills":\#(fills),"filled_orders":\#(fills),"taker_fills":\#(takers),"returns":10,"deadline_misses":\#(misses)},"sums":{"fill_notional":\#(fills * 100).0,"slip":\#(slip),"slip_x_notional":0.0,"markout_notional":\#(fills * 100).0,"net_x_notional":\#(net),"adverse_x_notional":0.0,"return2":12.5},"tick_ns_histogram":\#(histogram),"arm":"\#(arm)","arm_why":"\#(why)","experiment":\#(name),"block":\#(number),"config_hash":"\#(config)","v":1,"source":"\#(source)","venue":"sim","host":"edge-1","epoch":"0123456789abcdef","seq":\#(seq)}"#
        }
    }

    /// What a healthy edge writes: washout, then schedule, from three pairs before T0 on; `change` makes it less healthy.
    static func rows(pairs: Int, before: Int = 8, change: (inout Row) -> Void = { _ in }) -> [String] {
        var result: [String] = []
        var seq = 0
        for step in (-before * 60)..<(pairs * 60 + 5) {
            for symbol in symbols {
                let from = start + Int64(step) * 10_000
                guard let place = design.place(of: symbol, at: from) else { continue }
                seq += 1
                var row = Row(symbol: symbol, from: from, seq: seq)
                if step < 0 {
                    (row.why, row.experiment, row.block) = ("none", nil, nil)
                } else {
                    (row.arm, row.why, row.block) = ("\(place.arm.text)", "\(place.why.text)", place.block)
                }
                // Of arm, symbol and time, so that rows differ.
                row.misses = (step * 7 + symbol.utf8.reduce(0) { $0 + Int($1) }) % 5 + (row.arm == "B" ? 1 : 0)
                row.misses = max(0, row.misses)
                change(&row)
                result.append(row.text)
            }
        }
        return result
    }

    private static func feed(_ ledger: inout PairLedger, _ rows: some Sequence<String>, host: String = "edge-1", from byte: Int64 = 0) {
        var byte = byte
        for row in rows {
            let bytes = Array(row.utf8)
            byte += Int64(bytes.count + 1)
            bytes.withUnsafeBytes { ledger.take($0, host: host, endingAt: StoredOffset(day: 20_098, byte: byte)) }
        }
    }

    private struct Outcome: Equatable {
        var evidence: [GateEvidence]
        var pairs: Int
        var counted: Int
        var censored: [Censoring: Int]
    }

    private static func outcome(_ rows: [String], cut: (Int) -> Bool = { _ in false }) -> Outcome {
        var ledger = PairLedger(plan())
        var gates = ExperimentGates()
        var byte: Int64 = 0
        for (index, row) in rows.enumerated() {
            feed(&ledger, [row], from: byte)
            byte += Int64(row.utf8.count + 1)
            if cut(index) { gates.evaluate(&ledger) }
        }
        gates.evaluate(&ledger)
        return Outcome(evidence: gates.evidence, pairs: gates.pairs, counted: gates.counted, censored: gates.censored)
    }

    @Test func aHealthyHostsPairsAllCount() {
        let result = Self.outcome(Self.rows(pairs: 4))
        #expect(result.pairs == 4 && result.counted == 12 && result.censored.isEmpty)
        #expect(result.evidence.count == Gate.all.count)
        let miss = result.evidence.first { $0.name == "deadline_miss_spike" }?.tests.first
        // Every ten seconds B has one miss in a hundred ticks more.
        #expect(miss?.estimate.map { abs($0 - 0.01) < 1e-3 } == true)
    }

    /// SPEC 7.3: bit-identical on replay, however often and whenever the hub looks.
    @Test(arguments: [1, 7, 501])
    func fault10_lookingOftenOrOnceGivesTheSameBits(every: Int) {
        let rows = Self.rows(pairs: 5)
        #expect(Self.outcome(rows) == Self.outcome(rows) { $0 % every == 0 })
    }

    /// A restart changes nothing, as everything is read again from what is stored.
    @Test func fault16_aRestartChangesNothing() {
        let rows = Self.rows(pairs: 4)
        let whole = Self.outcome(rows)
        // A first life that ended in the middle leaves nothing behind but rows.
        _ = Self.outcome(Array(rows.prefix(rows.count / 2)))
        #expect(Self.outcome(rows) == whole)
    }

    @Test func aPairClosesThirtyFiveSecondsBehindItsEnd() {
        let rows = Self.rows(pairs: 1)
        var ledger = PairLedger(Self.plan())
        // Rows up to end + 30 s; the next ends at + 40 s.
        let until = rows.count - 2 * Self.symbols.count
        Self.feed(&ledger, rows.prefix(until))
        #expect(ledger.nextPair(of: "edge-1") == 0)
        let bytes = Int64(rows.prefix(until).reduce(0) { $0 + $1.utf8.count + 1 })
        Self.feed(&ledger, [rows[until]], from: bytes)
        #expect(ledger.nextPair(of: "edge-1") == 1)
    }

    @Test func rowsBehindTheClosingAreLate_andChangeNothing() {
        let rows = Self.rows(pairs: 3)
        let whole = Self.outcome(rows)
        var late = Row(symbol: "S1", from: Self.start + 200_000, block: 0, misses: 90, seq: 1_000_000)
        late.arm = Self.design.place(of: "S1", at: late.from).map { "\($0.arm.text)" } ?? "A"
        var ledger = PairLedger(Self.plan())
        Self.feed(&ledger, rows + [late.text])
        #expect(ledger.count(of: .lateExcluded) == 1)
        #expect(Self.outcome(rows + [late.text]) == whole)
    }

    @Test func aRowSentTwiceCountsOnce() {
        let rows = Self.rows(pairs: 2)
        let twice = rows.flatMap { [$0, $0] }
        let (once, again) = (Self.outcome(rows), Self.outcome(twice))
        #expect(once.evidence == again.evidence && once.counted == again.counted)
        var ledger = PairLedger(Self.plan())
        Self.feed(&ledger, twice)
        #expect(ledger.count(of: .duplicate) > 0)
    }

    @Test(arguments: [
        ("lease", Censoring.lease), ("clock", .clock), ("manual", .manual), ("latch", .latch), ("join", .notPlaying), ("none", .notPlaying),
    ])
    func aReasonInEitherHalfCensorsTheWholePair(why: String, expected: Censoring) {
        for (arm, second) in [("A", Int64(130)), ("B", 430)] {
            let result = Self.outcome(
                Self.rows(pairs: 3) { row in
                    if row.symbol == "S2", row.from == Self.start + 600_000 + second * 1000 { (row.why, row.arm) = (why, "A") }
                })
            #expect(result.censored == [expected: 1], "\(arm)")
            #expect(result.counted == 8)
        }
    }

    @Test func anotherConfigurationWithinThePairCensorsIt() {
        let result = Self.outcome(
            Self.rows(pairs: 3) { row in if row.from >= Self.start + 900_000 { row.config = "00000000000000bb" } })
        #expect(result.censored == [.config: 3] && result.counted == 6)
    }

    /// Harm must not be censored away (SPEC 7.1): the rest of the pair still counts.
    @Test func aBreakerCensorsNothing() {
        let result = Self.outcome(
            Self.rows(pairs: 3) { row in
                if row.from >= Self.start + 500_000, row.from < Self.start + 600_000 { (row.why, row.arm) = ("breaker", "A") }
            })
        #expect(result.censored.isEmpty && result.counted == 9)
    }

    @Test func washoutIsLeftOut_withoutCensoring() {
        let calm = Self.outcome(Self.rows(pairs: 3))
        let wild = Self.outcome(Self.rows(pairs: 3) { if $0.why == "washout" { $0.misses = 77 } })
        #expect(calm.evidence == wild.evidence && wild.censored.isEmpty)
    }

    /// No data of an arm is no zero.
    @Test func fault12_aHalfWithoutTicksIsNoZero() {
        let result = Self.outcome(
            Self.rows(pairs: 3) { row in if row.block == 2, row.symbol == "S0" { (row.ticks, row.fills, row.misses) = (0, 0, 0) } })
        #expect(result.censored == [.emptyHalf: 1] && result.counted == 8)
    }

    /// What a former B does after a rollback is neither arm's.
    @Test func fault16_formerBRowsAreNotTheBaselines() {
        let rows = Self.rows(pairs: 4) { row in
            if row.from >= Self.start + 1_500_000 { (row.why, row.arm, row.misses) = ("latch", "A", 99) }
        }
        let result = Self.outcome(rows)
        let before = Self.outcome(Array(Self.rows(pairs: 2)))
        #expect(result.counted == 6 && result.censored == [.latch: 6])
        #expect(result.evidence.map(\.tests) == before.evidence.map(\.tests))
    }

    /// Arms that are the same thing twice are no experiment; the hub knows which arm a block has.
    @Test func fault17_anArmTheHubDoesNotComputeIsAMismatch() {
        var ledger = PairLedger(Self.plan())
        Self.feed(&ledger, Self.rows(pairs: 1) { if $0.why == "schedule" { $0.arm = "A" } })
        #expect(ledger.count(of: .mismatch) > 0)
    }

    /// Intervals full of deadline misses stay in the gates.
    @Test func fault28_theWorstIntervalsStay() {
        let result = Self.outcome(Self.rows(pairs: 3) { if $0.arm == "B" { $0.misses = 90 } })
        #expect(result.counted == 9)
        let miss = result.evidence.first { $0.name == "deadline_miss_spike" }?.tests.first
        #expect(miss?.estimate.map { $0 > 0.85 } == true)
    }

    @Test func fault20_lateMarkoutsCountForTheBlockOfTheirQuote() {
        let calm = Self.outcome(Self.rows(pairs: 2))
        let marked = Self.rows(pairs: 2).flatMap { text -> [String] in [text] }
        var late = Row(symbol: "S1", from: Self.start + 300_000, block: 0, ticks: 0, misses: 0, fills: 9, slip: "90.000000", seq: 999_999)
        late.arm = Self.design.place(of: "S1", at: Self.start).map { "\($0.arm.text)" } ?? "A"
        let at = marked.firstIndex { $0.contains("\"from_ts\":\(Self.start + 310_000)") } ?? 0
        var rows = marked
        rows.insert(late.text, at: at)
        let result = Self.outcome(rows)
        #expect(result.counted == calm.counted)
        #expect(result.evidence.first?.tests.first?.estimate != calm.evidence.first?.tests.first?.estimate)
    }

    @Test func hostsBytesMayComeInAnyOrder() {
        let hosts = ["edge-1", "edge-2"]
        func evidence(_ order: [String]) -> [GateEvidence] {
            var ledger = PairLedger(Self.plan(hosts: hosts))
            var gates = ExperimentGates()
            for host in order {
                Self.feed(&ledger, Self.rows(pairs: 4) { if host == "edge-2" { $0.misses += 1 } }, host: host)
                gates.evaluate(&ledger)
            }
            #expect(gates.pairs == 4 && gates.counted == 24)
            return gates.evidence
        }
        #expect(evidence(hosts) == evidence(hosts.reversed()))
    }

    @Test func aSilentHostIsCensoredAfterFifteenMinutes_andTheSameOnReplay() throws {
        let hosts = ["edge-1", "edge-2"]
        let end = Self.start + 600_000
        let (one, other) = (Self.rows(pairs: 3), Self.rows(pairs: 3) { $0.misses += 2 })
        var live = PairLedger(Self.plan(hosts: hosts))
        var gates = ExperimentGates()
        Self.feed(&live, one, host: "edge-1")
        // Half of pair 0 is there when the host falls silent.
        let until = other.firstIndex { $0.contains("\"from_ts\":\(Self.start + 300_000)") } ?? 0
        Self.feed(&live, other.prefix(until), host: "edge-2")
        gates.evaluate(&live)
        #expect(gates.pairs == 0)
        #expect(live.dueSilences(at: end + 899_999, hubStarted: 0).isEmpty)
        // A hub that has just started waits its fifteen minutes for everybody.
        #expect(live.dueSilences(at: end + 3_000_000, hubStarted: end + 2_500_000).isEmpty)
        let silences = live.dueSilences(at: end + 900_000, hubStarted: 0)
        let held = other.prefix(until).reduce(0) { $0 + Int64($1.utf8.count + 1) }
        #expect(silences == [.init(host: "edge-2", pair: 0, held: StoredOffset(day: 20_098, byte: held))])
        for silence in silences { live.decide(silence) }
        Self.feed(&live, other.suffix(from: until), host: "edge-2", from: held)
        gates.evaluate(&live)
        #expect(gates.pairs == 3 && gates.counted == 15 && gates.censored == [.noData: 3])

        var replayed = PairLedger(Self.plan(hosts: hosts), silences: Set(silences))
        var again = ExperimentGates()
        Self.feed(&replayed, other, host: "edge-2")
        Self.feed(&replayed, one, host: "edge-1")
        again.evaluate(&replayed)
        #expect(again.evidence == gates.evidence && again.censored == gates.censored)
        for fate in RowFate.allCases { #expect(replayed.count(of: fate) == live.count(of: fate), "\(fate)") }
    }

    /// A pause is no part of the day that a promotion takes.
    @Test func pairsOfWhichNothingCountsAreTold() {
        var ledger = PairLedger(Self.plan())
        var gates = ExperimentGates()
        let pause = Self.start + 2 * 600_000
        Self.feed(&ledger, Self.rows(pairs: 4) { if $0.from >= pause { ($0.why, $0.arm) = ("manual", "A") } })
        gates.evaluate(&ledger)
        #expect(gates.pairs == 4 && gates.pairsCounted == 2)
    }

    /// Ten minutes of rows yesterday are no day of arm A.
    @Test func pairsBeforeAStartAreThoseWithRows() {
        var history = ArmHistory(blockMilliseconds: 300_000)
        for (hours, source) in [(0, "sim"), (20, "sim"), (21, "live")] {
            for step in 0..<6 {
                let from = Self.start + Int64(hours) * 3_600_000 + Int64(step) * 10_000
                let row = Row(from: from, why: "none", experiment: nil, block: nil, seq: step, source: source)
                Array(row.text.utf8).withUnsafeBytes { history.take($0, host: "edge-1", source: .sim) }
            }
        }
        #expect(history.pairs == 2)
    }

    @Test func thePairsBeforeItBeginsAreCounted() {
        var ledger = PairLedger(Self.plan())
        var gates = ExperimentGates()
        Self.feed(&ledger, Self.rows(pairs: 2, before: 5))
        gates.evaluate(&ledger)
        #expect(gates.prePairs == 5)
        var longer = PairLedger(Self.plan())
        Self.feed(&longer, Self.rows(pairs: 2, before: 6))
        var enough = ExperimentGates()
        enough.evaluate(&longer)
        #expect(enough.prePairs == 6)
    }

    @Test func thePrePeriodIsFrozenWhereTheSpecSays() {
        let rows = Self.rows(pairs: 1, before: 8)
        var plan = Self.plan()
        plan.hosts[0].preEnd = StoredOffset(day: 20_098, byte: Int64(rows.prefix(7 * 180).reduce(0) { $0 + $1.utf8.count + 1 }))
        var ledger = PairLedger(plan)
        Self.feed(&ledger, rows)
        #expect(ledger.prePairs.count == 7 && ledger.count(of: .lateExcluded) == 180)
    }

    @Test func otherSourcesAndForeignRowsAreNotMixedIn() {
        var ledger = PairLedger(Self.plan())
        let rows = Self.rows(pairs: 1)
        Self.feed(&ledger, rows)
        Self.feed(&ledger, [Row(from: Self.start, source: "live").text, Row(symbol: "DOGE", from: Self.start).text, "{torn"])
        Self.feed(&ledger, rows, host: "stranger")
        #expect(ledger.count(of: .otherSource) == 1 && ledger.count(of: .outside) == 1 && ledger.count(of: .rejected) == 1)
    }

    /// A clock gone wild ends this host's pairs, no more, and in bounded time.
    @Test func aRowFromTheFarFutureIsHarmless() {
        var ledger = PairLedger(Self.plan(hosts: ["edge-1", "edge-2"]))
        Self.feed(&ledger, [Row(from: 4_102_444_700_000).text])
        #expect(ledger.nextPair(of: "edge-1") == Limits.experimentPairsMax)
        #expect(ledger.nextPair(of: "edge-2") == 0)
    }
}
