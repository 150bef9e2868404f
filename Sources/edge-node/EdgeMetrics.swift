import CalibModel
import Wire

/// What `/metrics` of an edge shows (SPEC 9.2).
struct EdgeMetrics {
    /// Nil before the first second.
    var status: HostStatus?
    var now: Instant
    /// A symbol that has not ticked for this long is not shown.
    var symbolNanoseconds: Int64
    var isConnected: Bool
    /// Nil without a hub.
    var backlogBytes: Int64?

    var families: [MetricFamily] {
        let shown = status.map { status in
            zip(status.symbols, status.lastTicks).filter { now.since($0.1) < symbolNanoseconds && $0.0.ticks > 0 }.map(\.0)
        }
        let symbols = shown ?? []
        func perSymbol(_ value: (Message.Status.Symbol) -> Int64) -> [MetricSample] {
            symbols.map { MetricSample(.integer(value($0)), labels: [("symbol", $0.symbol)]) }
        }
        return Prometheus.families(of: symbols.map { SymbolFeatures(symbol: $0.symbol, values: $0.features) }) + [
            MetricFamily("mm_ticks", .counter, help: "Ticks of the quote pipeline.", samples: perSymbol(\.ticks)),
            MetricFamily("mm_quotes", .counter, help: "New orders accepted, replacements included.", samples: perSymbol(\.quotes)),
            MetricFamily("mm_fills", .counter, help: "Fills.", samples: perSymbol(\.fills)),
            MetricFamily(
                "mm_symbol_assignment_info", .gauge, help: "The arm a symbol plays, and of which experiment; always 1.",
                samples: symbols.map {
                    MetricSample(.integer(1), labels: [("symbol", $0.symbol), ("experiment", $0.experiment ?? ""), ("arm", $0.arm)])
                }),
            MetricFamily(
                "mm_killed", .gauge, help: "1 while the kill switch holds the symbol, alone or with the whole host.",
                samples: perSymbol { $0.isKilled ? 1 : 0 }),
            MetricFamily(
                "mm_uplink_connected", .gauge, help: "1 while the hub has welcomed this edge.", value: .integer(isConnected ? 1 : 0)),
            MetricFamily(
                "mm_uplink_spool_bytes", .gauge, help: "Bytes of feeds on disk that the hub has not acknowledged.", unit: "bytes",
                value: backlogBytes.map { .integer($0) }),
            MetricFamily(
                "mm_build_info", .gauge, help: "The program; always 1.",
                samples: [MetricSample(.integer(1), labels: [("version", Build.version)])]),
        ]
    }
}

enum Build {
    static let version = "calibrant 0.1.0"
}
