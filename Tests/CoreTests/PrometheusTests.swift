import CalibModel
import Testing
import Wire

@Suite struct PrometheusTests {
    /// Every way in which the two forms differ, and every character that needs an escape.
    private static let families = [
        MetricFamily(
            "mm_feed_records", .counter, help: "Rows written.\nA \"row\" is a line; \\ is a backslash.",
            samples: [
                MetricSample(.integer(12), labels: [("feed", "fills")]),
                MetricSample(.integer(0), labels: [("feed", "a\"b\\c\nd"), ("path", "é")]),
            ]),
        MetricFamily("mm_uplink_rtt_seconds", .gauge, help: "Last.", unit: "seconds", value: .fixed(-1_250_000, places: 9)),
        MetricFamily("mm_absent", .gauge, help: "Nobody knows.", value: nil),
    ]

    @Test func oldTextNamesACounterByItsSample() {
        #expect(
            text(Self.families, .text) == """
                # HELP mm_feed_records_total Rows written.\\nA "row" is a line; \\\\ is a backslash.
                # TYPE mm_feed_records_total counter
                mm_feed_records_total{feed="fills"} 12
                mm_feed_records_total{feed="a\\"b\\\\c\\nd",path="é"} 0
                # HELP mm_uplink_rtt_seconds Last.
                # TYPE mm_uplink_rtt_seconds gauge
                mm_uplink_rtt_seconds -0.00125

                """)
    }

    @Test func openMetricsNamesTheFamilyAndEnds() {
        #expect(
            text(Self.families, .openMetrics) == """
                # TYPE mm_feed_records counter
                # HELP mm_feed_records Rows written.\\nA \\"row\\" is a line; \\\\ is a backslash.
                mm_feed_records_total{feed="fills"} 12
                mm_feed_records_total{feed="a\\"b\\\\c\\nd",path="é"} 0
                # TYPE mm_uplink_rtt_seconds gauge
                # UNIT mm_uplink_rtt_seconds seconds
                # HELP mm_uplink_rtt_seconds Last.
                mm_uplink_rtt_seconds -0.00125
                # EOF

                """)
        #expect(text([], .openMetrics) == "# EOF\n")
        #expect(text([], .text) == "")
    }

    /// The ten names are the contract of `PRE_CALIBRATION_READINESS`.
    @Test func tenGaugesCarryTheirNamesAndUnits() {
        let names = [
            "vol_realized", "liq_top_depth", "latency_p95", "pnl_dev", "fill_rate", "taker_share", "queue_absorb_rate", "queue_eta_ms",
            "slippage_bps", "adverse_move_bps",
        ]
        let families = Prometheus.families(of: [
            SymbolFeatures(
                symbol: "BTCUSDT", values: [812_500, 1_250_000_000, 42_000, -500_000, 250_000_000, 0, 125_000_000, nil, -200_000, 1])
        ])
        #expect(families.map(\.name) == names.map { "mm_symbol_\($0)" })
        #expect(families.allSatisfy { $0.kind == .gauge })
        for word in ["bps", "base asset", "ms", "ratio"] { #expect(families.contains { $0.help.contains(word) }, "\(word)") }
        #expect(families.suffix(2).allSatisfy { $0.help.contains("above 0 is a cost to us") })
        let samples = text(families, .text).split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(
            samples == [
                "mm_symbol_vol_realized{symbol=\"BTCUSDT\"} 0.8125", "mm_symbol_liq_top_depth{symbol=\"BTCUSDT\"} 12.5",
                "mm_symbol_latency_p95{symbol=\"BTCUSDT\"} 0.042", "mm_symbol_pnl_dev{symbol=\"BTCUSDT\"} -0.5",
                "mm_symbol_fill_rate{symbol=\"BTCUSDT\"} 0.25", "mm_symbol_taker_share{symbol=\"BTCUSDT\"} 0.0",
                "mm_symbol_queue_absorb_rate{symbol=\"BTCUSDT\"} 1.25", "mm_symbol_slippage_bps{symbol=\"BTCUSDT\"} -0.2",
                "mm_symbol_adverse_move_bps{symbol=\"BTCUSDT\"} 0.000001",
            ])
    }

    @Test func hubNamesTheHostBesideTheSymbol() {
        var values = [Int64?](repeating: nil, count: 10)
        values[Feature.takerShare.rawValue] = 80_000_000
        let families = Prometheus.families(of: ["a", "b"].map { SymbolFeatures(symbol: "ETHUSDT", host: $0, values: values) })
        #expect(
            text(families, .text).hasSuffix(
                """
                # TYPE mm_symbol_taker_share gauge
                mm_symbol_taker_share{symbol="ETHUSDT",host="a"} 0.08
                mm_symbol_taker_share{symbol="ETHUSDT",host="b"} 0.08

                """))
        #expect(!text(families, .text).contains("fill_rate"), "a family without a sample is not written")
    }

    /// Buckets accumulate, bounds look alike in both forms; a sum that can fall is not for OpenMetrics.
    @Test func histogramAccumulates_signedOneHasNoSumInOpenMetrics() {
        var seconds = BoundedHistogram(bounds: [50_000, 150_000_000, 1_000_000_000])
        for value: Int64 in [50_000, 50_001, 150_000_000, 2_000_000_000] { seconds.add(value) }
        var signed = BoundedHistogram(bounds: [-100_000, 0])
        for value: Int64 in [-200_000, 0, 0, 300_000] { signed.add(value) }
        let families = [
            MetricFamily(
                "mm_x_seconds", .histogram, help: "H.", unit: "seconds",
                samples: [MetricSample(.histogram(seconds, places: 9), labels: [("bucket", "A")])]),
            MetricFamily("mm_y_bps", .histogram, help: "H.", value: .histogram(signed, places: 6)),
        ]
        let buckets = """
            mm_x_seconds_bucket{bucket="A",le="0.00005"} 1
            mm_x_seconds_bucket{bucket="A",le="0.15"} 3
            mm_x_seconds_bucket{bucket="A",le="1.0"} 3
            mm_x_seconds_bucket{bucket="A",le="+Inf"} 4
            mm_x_seconds_sum{bucket="A"} 2.150100001
            mm_x_seconds_count{bucket="A"} 4

            """
        let signedBuckets = """
            mm_y_bps_bucket{le="-0.1"} 1
            mm_y_bps_bucket{le="0.0"} 3
            mm_y_bps_bucket{le="+Inf"} 4

            """
        #expect(
            text(families, .text) == "# HELP mm_x_seconds H.\n# TYPE mm_x_seconds histogram\n" + buckets
                + "# HELP mm_y_bps H.\n# TYPE mm_y_bps histogram\n" + signedBuckets + "mm_y_bps_sum 0.1\nmm_y_bps_count 4\n")
        #expect(
            text(families, .openMetrics) == "# TYPE mm_x_seconds histogram\n# UNIT mm_x_seconds seconds\n# HELP mm_x_seconds H.\n" + buckets
                + "# TYPE mm_y_bps histogram\n# HELP mm_y_bps H.\n" + signedBuckets + "# EOF\n")
    }

    @Test(arguments: [
        ("", MetricsForm.text), ("*/*", .text), ("text/plain;version=0.0.4", .text),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", .openMetrics),
        ("text/plain, Application/OpenMetrics-Text; version=1.0.0", .openMetrics), ("application/openmetrics-text;q=0", .text),
    ])
    func formFollowsTheAcceptHeader(accept: String, form: MetricsForm) { #expect(MetricsForm(accept: accept) == form) }

    private func text(_ families: [MetricFamily], _ form: MetricsForm) -> String {
        String(decoding: Prometheus.exposition(families, form), as: UTF8.self)
    }
}
