import CalibModel
import TestSupport
import Testing
import Wire

@testable import HubCore

/// Reports whose every figure was computed by hand from the rows above it.
@Suite struct ABReportTests {
    private static let start: Int64 = 1_736_510_400_000  // 2025-01-10T12:00:00Z

    /// One snapshot row. Buckets: 2464 ends at 161 * 2^18 - 1 ns = 42.205183 ms, 2458 at 155 * 2^18 - 1 ns = 40.632319 ms.
    private static func row(
        _ seq: Int, _ symbol: String, _ arm: String, why: String = "schedule", experiment: String? = "exp-2", at second: Int64 = 0,
        counts: (ticks: Int, misses: Int, quotes: Int, fills: Int, orders: Int, takers: Int) = (0, 0, 0, 0, 0, 0),
        sums: (filled: String, slip: String, marked: String, net: String) = ("0.0", "0.0", "0.0", "0.0"), histogram: String = "[]",
        host: String = "edge-1", source: String = "sim"
    ) -> String {
        let from = start + second * 1000
        return
            #"{"ts":\#(from + 10_000),"ts_iso":"","symbol":"\#(symbol)","from_ts":\#(from),"span_ms":10000,"features":{"vol_realized":null,"liq_top_depth":null,"latency_p95":null,"pnl_dev":null,"fill_rate":null,"taker_share":null,"queue_absorb_rate":null,"queue_eta_ms":null,"slippage_bps":null,"adverse_move_bps":null},"counts":{"ticks":\#(counts.ticks),"quotes":\#(counts.quotes),"fills":\#(counts.fills),"filled_orders":\#(counts.orders),"taker_fills":\#(counts.takers),"returns":0,"cache_hits":0,"cache_misses":0,"cache_stale":0,"deadline_misses":\#(counts.misses),"halts":0,"rejected_inputs":0},"sums":{"fill_notional":\#(sums.filled),"slip":0.0,"slip_x_notional":\#(sums.slip),"markout_notional":\#(sums.marked),"net_x_notional":\#(sums.net),"adverse_x_notional":0.0,"quote_ms":0.0,"mid":0.0,"market_spread_bps":0.0,"position":0.0,"pnl":0.0,"return2":0.0},"tick_ns_histogram":\#(histogram),"arm":"\#(arm)","arm_why":"\#(why)","experiment":\#(experiment.map { "\"\($0)\"" } ?? "null"),"block":null,"config_hash":"feed000000000001","v":1,"source":"\#(source)","venue":"sim","host":"\#(host)","epoch":"0123456789abcdef","seq":\#(seq)}"#
    }

    private static let rows: [[String]] = {
        let first = row(
            1, "BTCUSDT", "A", counts: (100, 1, 20, 5, 4, 1), sums: ("1000.0", "100.0", "800.0", "400.0"),
            histogram: "[[200,80],[2464,20]]")
        return [
            [
                first,
                row(
                    2, "ETHUSDT", "B", counts: (200, 0, 10, 3, 2, 1), sums: ("2000.0", "300.0", "2000.0", "1000.0"),
                    histogram: "[[200,180],[2458,20]]"),
                // After the rollback: no ticks and no quotes, but a late fill's markout. The symbol is not exposed to B by it.
                row(3, "XRPUSDT", "B", at: 10, counts: (0, 0, 0, 1, 1, 0), sums: ("500.0", "-50.0", "500.0", "375.0")),
                // What is left out.
                row(4, "ETHUSDT", "A", why: "latch", at: 20, counts: (900, 900, 900, 900, 900, 900)),
                row(5, "ETHUSDT", "A", why: "lease", at: 30), row(6, "ETHUSDT", "A", why: "lease", at: 40),
                row(7, "ETHUSDT", "A", why: "none", experiment: nil), row(8, "ETHUSDT", "B", experiment: "exp-20"),
                row(9, "ETHUSDT", "B").replacing("\"ticks\":0,", with: ""), first, "{torn",
            ],
            [
                row(
                    1, "SOLUSDT", "A", at: 50, counts: (300, 1, 60, 15, 12, 0), sums: ("3000.0", "50.0", "3200.0", "1200.0"),
                    histogram: "[[200,280],[2464,20]]", host: "edge-2")
            ],
        ]
    }()

    private static let spec = ExperimentSpec(
        id: "exp-2", createdMilliseconds: start - 5_000, salt: "000102030405060708090a0b0c0d0e0f", splitMicro: 500_000,
        symbolsA: ["BTCUSDT", "SOLUSDT"], symbolsB: ["ETHUSDT", "XRPUSDT"], candidate: [.init(key: "spread.base_bps", value: "1.4")])

    private static func run(isRolledBack: Bool, source: RowSource? = nil) -> ABRun {
        ABRun(
            id: "20250110_120100", generatedMilliseconds: start + 60_000, experiment: spec, state: isRolledBack ? "rolled_back" : "running",
            isRolledBack: isRolledBack,
            commands: !isRolledBack
                ? []
                : [
                    ABRun.Command(
                        id: "c-14", kind: "rollback", scope: "exp-2", by: "spiffe://calibrant/operator/alice",
                        reason: "B|pays\nmore", issuedMilliseconds: start + 11_000,
                        hosts: [
                            ABRun.Command.Host(
                                host: "edge-1", state: "latched", appliedLatencyNanoseconds: 3_000_000,
                                latchedLatencyNanoseconds: 17_000_500,
                                cancelledOrders: 4),
                            ABRun.Command.Host(
                                host: "edge-2", state: "sent", appliedLatencyNanoseconds: nil, latchedLatencyNanoseconds: nil,
                                cancelledOrders: nil),
                        ])
                ], source: source)
    }

    private static func report(_ run: ABRun, _ files: [[String]], chunk: Int = 1 << 20) throws -> ABReport {
        var build = ABReportBuild(run)
        for lines in files {
            build.open(feed: .snapshots, host: "folder")
            let bytes = Array((lines.joined(separator: "\n") + "\n").utf8)
            var pending: [UInt8] = []
            var next = 0
            var isEnd = false
            while !isEnd {
                let piece = bytes[next..<min(bytes.count, next + chunk)]
                next += piece.count
                isEnd = piece.isEmpty
                pending += piece
                let taken = pending.withUnsafeBytes { build.consume($0, isEnd: isEnd) }
                pending.removeFirst(taken)
            }
        }
        return try build.finish()
    }

    /// Net A 1600/4000, B 1375/2500. Slippage 150/4000, 250/2500. Fill rate 16/80, 3/10. Taker share 1/20, 1/4. The p95 of A is rank
    /// 380 of 400, of which 360 lie in bucket 200; of B rank 190 of 200, of which 180 do. Misses 2/400, 0/200.
    @Test func figuresAreRatiosOfSumsInTheKnownLayout() throws {
        let report = try Self.report(Self.run(isRolledBack: true), Self.rows)
        #expect(report.stem == "ab_run_20250110_120100")
        let text = String(decoding: report.markdown, as: UTF8.self)
        #expect(
            text == """
                # AB Test Report: 20250110_120100

                **Generated**: 2025-01-10T12:01:00Z\("  ")
                **Mode**: online\("  ")
                **Split**: 50.0% to B\("  ")
                **Rollback Triggered**: ✗ YES

                ## Symbol Routing

                - Bucket A: 2 symbols (66.7% of the time)
                - Bucket B: 1 symbols (33.3% of the time)

                ## Metrics Comparison

                | Metric | Bucket A | Bucket B | Delta (B - A) | Result |
                |--------|----------|----------|---------------|--------|
                | Net BPS | 0.4000 | 0.5500 | +0.1500 | ✓ |
                | Slippage BPS | 0.0375 | 0.1000 | +0.0625 | ✗ |
                | Fill Rate | 0.2000 | 0.3000 | +0.1000 | ✓ |
                | Taker Share | 0.0500 | 0.2500 | +0.2000 | ✗ |
                | Tick Total P95 (ms) | 42.21 | 40.63 | -1.57 | ✓ |
                | Deadline Miss Rate | 0.0050 | 0.0000 | -0.0050 | ✓ |

                ## Data

                - Experiment: exp-2, rolled_back
                - Hosts: edge-1, edge-2
                - Time: 2025-01-10T12:00:00.000Z to 2025-01-10T12:01:00.000Z
                - Source: sim
                - Candidate: spread.base_bps = 1.4

                ## Samples

                | Count | Bucket A | Bucket B |
                |---|---:|---:|
                | Snapshot rows | 2 | 2 |
                | Ticks | 400 | 200 |
                | Deadline misses | 2 | 0 |
                | Quotes | 80 | 10 |
                | Filled orders | 16 | 3 |
                | Fills | 20 | 4 |
                | Taker fills | 1 | 1 |
                | Notional filled (quote currency) | 4000.0 | 2500.0 |
                | Notional with a known markout | 4000.0 | 2500.0 |

                ## Rows

                Compared: 4 snapshot rows (arm_why = schedule). Left out:

                | Reason | Rows |
                |---|---:|
                | arm_why_lease | 2 |
                | arm_why_latch | 1 |
                | other_experiment | 1 |
                | no_experiment | 1 |
                | incomplete | 1 |
                | duplicate | 1 |
                | rejected_not_json | 1 |

                ## Gates

                | Gate | Kind | State | Metric | Effect (B - A) | Excluded below | Excluded above | ln e | Needed |
                |---|---|---|---|---:|---:|---:|---:|---:|
                | slippage_degradation | threshold | breaching (60 of 600 s) | - | - | - | - | - | - |
                | taker_share_increase | threshold | breaching (60 of 600 s) | - | - | - | - | - | - |
                | latency_regression | threshold | clear | - | - | - | - | - | - |
                | deadline_miss_spike | threshold | clear | - | - | - | - | - | - |
                | net_bps_loss | threshold | clear | - | - | - | - | - | - |

                ## Commands

                | Issued | Command | Scope | Host | State | Applied after (ms) | Latched after (ms) | Orders cancelled | By | Reason |
                |---|---|---|---|---|---:|---:|---:|---|---|
                | 2025-01-10T12:00:11.000Z | rollback | exp-2 | edge-1 | latched | 3.000 | 17.000 | 4 | spiffe://calibrant/operator/alice | B\\|pays more |
                | 2025-01-10T12:00:11.000Z | rollback | exp-2 | edge-2 | sent | - | - | - | spiffe://calibrant/operator/alice | B\\|pays more |

                ## Statistics

                The table compares point values: a check mark says only that B's value is not worse than A's, and chance alone gives it half of the time. What counts against chance are the gates.

                Design `symbol`: the arms hold different symbols, so a difference is the candidate's and the symbols' together. Its gates are threshold rules, which fire between equal arms, too; only a `switchback` has sequential gates.

                """, "\(text)")
    }

    @Test func jsonFormSaysTheSame() throws {
        let json = try JSONValue.parse(Self.report(Self.run(isRolledBack: true), Self.rows).json)
        #expect(json["run_id"]?.string == "20250110_120100")
        #expect(json["rollback_triggered"]?.boolean == true)
        #expect(try ExperimentSpec(#require(json["experiment"])) == Self.spec)
        func metric(_ name: String, _ part: String) -> Int64? { json["metrics"]?[name]?[part]?.fixed(places: 9) }
        #expect(metric("net_bps", "a") == 400_000_000 && metric("net_bps", "b") == 550_000_000 && metric("net_bps", "delta") == 150_000_000)
        #expect(metric("tick_total_p95_ms", "a") == 42_205_183_000 && metric("tick_total_p95_ms", "b") == 40_632_319_000)
        #expect(json["metrics"]?["slippage_bps"]?["b_not_worse"]?.boolean == false)
        #expect(json["metrics"]?["fill_rate"]?["b_not_worse"]?.boolean == true)
        #expect(json["arms"]?["B"]?["ticks"]?.integer == 200 && json["arms"]?["B"]?["fill_notional"]?.fixed(places: 8) == 250_000_000_000)
        #expect(json["arms"]?["A"]?["time_share"]?.fixed(places: 9) == 666_666_667)
        #expect(json["rows"]?["used"]?.integer == 4 && json["rows"]?["arm_why_lease"]?.integer == 2)
        let hosts = json["commands"]?.array?.first?["hosts"]?.array
        #expect(hosts?[0]["latched_latency_ms"]?.fixed(places: 6) == 17_000_500 && hosts?[1]["latched_latency_ms"] == .null)
    }

    @Test func orderAndTearingOfRowsLeaveNoTrace() throws {
        let run = Self.run(isRolledBack: true)
        let whole = try Self.report(run, Self.rows)
        var random = SeededRandom(seed: 3)
        for chunk in [1_500, 4_001] {
            let files = Self.rows.map { $0.shuffled(using: &random) }.reversed()
            let other = try Self.report(run, Array(files), chunk: chunk)
            #expect(other.markdown == whole.markdown && other.json == whole.json)
        }
    }

    /// What the hub's sequential gates say is shown as it stands, with its evidence.
    @Test func sequentialGatesAreShownWithTheirEvidence() throws {
        let row = try #require(Gate.all.first { $0.name == "taker_share_increase" })
        var gate = SequentialGate(row, prePairs: [], units: 1)
        for pair in 0..<40 {
            var (a, b) = (BlockSums(), BlockSums())
            (a.ticks, a.fills, a.takerFills) = (400, 20, 1)
            (b.ticks, b.fills, b.takerFills) = (400, 20, 5)
            let isSecond = pair % 3 == 0
            gate.add([UnitPair(unit: 0, group: 0, sign: isSecond ? 1 : -1, first: isSecond ? a : b, second: isSecond ? b : a)])
        }
        var run = Self.run(isRolledBack: true)
        run.gates = [GateEvidence(gate)]
        run.points = (0..<3).map { PairPoint(pair: $0, planned: 4, counted: Int($0) + 2, gates: [GateEvidence(gate)]) }
        run.verdict = .fail
        run.changes = [
            .init(
                milliseconds: 1_736_510_400_000, state: .rolledBack, by: "hub", reason: "gate <taker> & more",
                evidence: try JSONValue.parse(Array(#"{"held":[],"pairs":40,"planned":160,"counted":158}"#.utf8)))
        ]
        let report = try Self.report(run, Self.rows)
        let text = String(decoding: report.markdown, as: UTF8.self)
        #expect(text.contains("| taker_share_increase | sequential | violated | taker_share | 0.200000 | 0."), "\(text)")
        let shown = try JSONValue.parse(report.json)["gates"]?.array?.first
        #expect(shown?["demands_rollback"]?.boolean == true && shown?["tests"]?.array?.count == 1)
        // The decision log, in every form; and the plots of one: effect, states, exposure.
        #expect(
            text.contains("Verdict: FAIL\n")
                && text.contains("| rolled_back | hub | gate \\<taker\\> & more | 40 pairs, 158 of 160 symbols"))
        #expect(text.contains("12 planned, 9 counted"))
        let json = try JSONValue.parse(report.json)
        #expect(json["verdict"]?.string == "FAIL" && json["pairs"]?.array?.count == 3 && json["decisions"]?.array?.count == 1)
        let html = String(decoding: report.html, as: UTF8.self)
        #expect(html.contains("gate &lt;taker&gt; &amp; more") && html.contains("taker_share") && html.contains("40 pairs"))
        #expect(html.ranges(of: "<svg").count == 2 && html.ranges(of: "class=\"bad\"").count == 3)
        for foreign in ["<script", "http", "src=", "NaN"] { #expect(!html.contains(foreign), "\(foreign)") }
        if Browser.isHere { #expect(try Browser.faults(of: html) == []) }
    }

    @Test func unknownIsADashAndNoCheckMark() throws {
        let text = String(
            decoding: try Self.report(
                Self.run(isRolledBack: false), [[Self.row(1, "BTCUSDT", "A", counts: (4, 0, 0, 0, 0, 0), histogram: "[[200,4]]")]]
            ).markdown, as: UTF8.self)
        #expect(text.contains("**Rollback Triggered**: ✓ NO\n"))
        #expect(text.contains("- Bucket B: 0 symbols (0.0% of the time)\n"))
        #expect(text.contains("| Net BPS | - | - | - | - |\n"))
        #expect(text.contains("| Deadline Miss Rate | 0.0000 | - | - | - |\n"))
        #expect(text.contains("Left out:\n\nNone.\n"))
        #expect(text.contains("## Commands\n\nNone.\n"))
        let empty = String(decoding: try Self.report(Self.run(isRolledBack: false), []).markdown, as: UTF8.self)
        #expect(empty.contains("- Bucket A: 0 symbols\n") && empty.contains("- Time: -\n") && empty.contains("- Hosts: -\n"))
        #expect(try JSONValue.parse(Self.report(Self.run(isRolledBack: false), []).json)["metrics"]?["net_bps"]?["a"] == .null)
    }

    @Test func equalArmsGetACheckMarkEverywhere() throws {
        let counts = (100, 1, 20, 5, 4, 1)
        let sums = ("1000.0", "-100.0", "800.0", "-400.00004")
        let rows = ["A", "B"].enumerated().map { Self.row($0, "\($1)USDT", $1, counts: counts, sums: sums, histogram: "[[2464,100]]") }
        let text = String(decoding: try Self.report(Self.run(isRolledBack: false), [rows]).markdown, as: UTF8.self)
        #expect(text.contains("| Net BPS | -0.5000 | -0.5000 | +0.0000 | ✓ |\n"))
        #expect(text.contains("| Slippage BPS | -0.1000 | -0.1000 | +0.0000 | ✓ |\n"))
        #expect(!text.contains("✗"))
        // A difference below the last digit shown still has its direction and its mark.
        let worse = [rows[0], Self.row(1, "BUSDT", "B", counts: counts, sums: ("1000.0", "-100.0", "800.0", "-400.00005"))]
        let other = String(decoding: try Self.report(Self.run(isRolledBack: false), [worse]).markdown, as: UTF8.self)
        #expect(other.contains("| Net BPS | -0.5000 | -0.5000 | -0.0000 | ✗ |\n"))
    }

    @Test func sourcesAreNeverMixed() throws {
        let rows = ["live", "sim"].enumerated().map {
            Self.row($0, "BTCUSDT", "A", counts: (10 + $0, 0, 0, 0, 0, 0), histogram: "[[200,10]]", source: $1)
        }
        #expect(throws: ABRefusal.mixedSources(["live", "sim"])) { try Self.report(Self.run(isRolledBack: false), [rows]) }
        let text = String(
            decoding: try Self.report(Self.run(isRolledBack: false, source: .sim), [rows]).markdown, as: UTF8.self)
        #expect(text.contains("- Source: sim\n") && text.contains("| other_source | 1 |\n") && text.contains("| Ticks | 11 | 0 |\n"))
    }
}
