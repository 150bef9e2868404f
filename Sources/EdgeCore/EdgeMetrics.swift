import CalibModel
import Wire

/// What `/metrics` of an edge shows (SPEC 9.2); what is unknown is absent (SPEC 1.5). The help texts are the documentation.
package struct EdgeMetrics: Sendable {
    /// One symbol, once a second.
    package struct Symbol: Sendable {
        package var status: Message.Status.Symbol
        /// Of its fills, those that took.
        package var takerFills: Int64
        package var lastTick: WallTime?
        package var lastFill: WallTime?
        /// Nil while its book is not proven.
        package var cacheAgeNanoseconds: Int64?

        package init(
            status: Message.Status.Symbol, takerFills: Int64, lastTick: WallTime?, lastFill: WallTime?, cacheAgeNanoseconds: Int64?
        ) {
            self.status = status
            self.takerFills = takerFills
            self.lastTick = lastTick
            self.lastFill = lastFill
            self.cacheAgeNanoseconds = cacheAgeNanoseconds
        }
    }

    /// The quote path as a whole, once a second.
    package struct Node: Sendable {
        package var reading: NodeMetrics.Reading
        package var sequenceGaps: Int64
        /// `QuoteNode.venueClockOffsetNanoseconds`.
        package var venueClockOffsetNanoseconds: Int64?
        package var cache: CacheTotals
        /// Rows that a full ring refused, or for which there was no place, by `Feed.place`.
        package var droppedRows: [Int64]
        package init(
            reading: NodeMetrics.Reading, sequenceGaps: Int64, venueClockOffsetNanoseconds: Int64?, cache: CacheTotals, droppedRows: [Int64]
        ) {
            self.reading = reading
            self.sequenceGaps = sequenceGaps
            self.venueClockOffsetNanoseconds = venueClockOffsetNanoseconds
            self.cache = cache
            self.droppedRows = droppedRows
        }
    }

    /// What the caches of all symbols have done.
    package struct CacheTotals: Sendable {
        /// By `MDCache.Invalidation`.
        package var invalidations = [Int64](repeating: 0, count: MDCache.Invalidation.allCases.count)
        /// Durations of refreshes that are done, ns.
        package var refreshes = BoundedHistogram(bounds: MetricBounds.refresh)
        package init() {}

        package mutating func add(_ counts: CacheCounts) {
            for reason in invalidations.indices { invalidations[reason] += counts.invalidations[reason] }
            refreshes.add(counts.refreshDurations)
        }
    }

    /// The writer of the feeds, as of its last batch.
    package struct Feeds: Sendable {
        package var written: FeedStatistics
        /// Nanoseconds.
        package var syncs: BoundedHistogram
        /// What feed files may take of the disk.
        package var bytesMax: Int64
        package init(written: FeedStatistics, syncs: BoundedHistogram, bytesMax: Int64) {
            self.written = written
            self.syncs = syncs
            self.bytesMax = bytesMax
        }
    }

    /// The link to the hub.
    package struct Link: Sendable {
        package var uplink: Uplink.Reading
        package var commands: CommandMeter
        /// Of what the hub decided, the newest that was applied here.
        package var revision: Revision
        /// Our wall clock minus the hub's at the last welcome; nil before any.
        package var clockOffsetMilliseconds: Int64?
        package init(uplink: Uplink.Reading, commands: CommandMeter, revision: Revision, clockOffsetMilliseconds: Int64?) {
            self.uplink = uplink
            self.commands = commands
            self.revision = revision
            self.clockOffsetMilliseconds = clockOffsetMilliseconds
        }
    }

    /// What came of reading the configuration, the last time and the last time that it succeeded; the start counts.
    package struct ConfigurationLoad: Sendable {
        package var isSuccess: Bool
        /// Of the last successful one.
        package var succeededAt: WallTime
        package init(isSuccess: Bool, succeededAt: WallTime) {
            self.isSuccess = isSuccess
            self.succeededAt = succeededAt
        }
    }

    /// Those to show, in the order of the configuration.
    package var symbols: [Symbol]
    /// Those beyond `metrics.max_symbols`: left out, and counted.
    package var dropped: [Symbol] = []
    /// Nil before the first second.
    package var node: Node?
    package var feeds: Feeds?
    /// Nil without a hub.
    package var link: Link?
    /// Nil before the first second.
    package var configuration: ConfigurationLoad?
    /// Left out by earlier scrapes.
    package var droppedBefore: Int64

    /// - Parameters:
    ///   - symbols: all of them, in the order of the configuration.
    ///   - silentAfter: a symbol without a tick for this long, or ever, is not shown (SPEC 5).
    ///   - most: how many are shown.
    package init(
        symbols: [Symbol], silentAfter nanoseconds: Int64, most: Int, node: Node?, feeds: Feeds?, link: Link?,
        configuration: ConfigurationLoad?,
        droppedBefore: Int64, at now: WallTime
    ) {
        let living = symbols.filter { $0.lastTick.map { now.nanoseconds - $0.nanoseconds < nanoseconds } ?? false }
        self.symbols = Array(living.prefix(most))
        dropped = Array(living.dropFirst(most))
        self.node = node
        self.feeds = feeds
        self.link = link
        self.configuration = configuration
        self.droppedBefore = droppedBefore
    }

    /// Series that this scrape leaves out.
    package var droppedSeries: Int64 { dropped.isEmpty ? 0 : Int64(Self.perSymbol(dropped).reduce(0) { $0 + $1.samples.count }) }

    package var families: [MetricFamily] {
        Self.perSymbol(symbols) + (node.map(Self.quoting) ?? []) + (feeds.map(Self.stored) ?? []) + (link.map(Self.linked) ?? []) + [
            MetricFamily(
                "mm_deadman_engaged", .gauge,
                help: "1 while symbols play A because an experiment is assigned and no lease of the hub is valid.",
                value: link == nil ? nil : .integer(symbols.contains { $0.status.armWhy == "\(ArmReason.lease.text)" } ? 1 : 0)),
            MetricFamily(
                "mm_config_last_reload_success", .gauge,
                help:
                    "1 when the newest reading of the configuration succeeded, at the start or by a reload; 0 when the one before stays in force.",
                value: configuration.map { .integer($0.isSuccess ? 1 : 0) }),
            MetricFamily(
                "mm_config_last_reload_timestamp_seconds", .gauge, help: "When the configuration in force was read.", unit: "seconds",
                value: configuration.map { Self.seconds($0.succeededAt) }),
            MetricFamily(
                "mm_metrics_dropped_series", .counter,
                help: "Series left out because more symbols tick than metrics.max_symbols; rises with every scrape that leaves some out.",
                value: .integer(droppedBefore + droppedSeries)),
        ]
    }

    // MARK: Symbols

    private static func perSymbol(_ symbols: [Symbol]) -> [MetricFamily] {
        func samples(_ value: (Symbol) -> MetricValue?) -> [MetricSample] {
            symbols.compactMap { symbol in value(symbol).map { MetricSample($0, labels: [("symbol", symbol.status.symbol)]) } }
        }
        return Prometheus.families(of: symbols.map { SymbolFeatures(symbol: $0.status.symbol, values: $0.status.features) }) + [
            MetricFamily(
                "mm_quotes", .counter, help: "New orders accepted, replacements included.", samples: samples { .integer($0.status.quotes) }),
            MetricFamily(
                "mm_fills", .counter, help: "Fills, by what our order did: maker or taker.",
                samples: symbols.flatMap { symbol in
                    [("maker", symbol.status.fills - symbol.takerFills), ("taker", symbol.takerFills)].map { liquidity, count in
                        MetricSample(.integer(count), labels: [("symbol", symbol.status.symbol), ("liquidity", liquidity)])
                    }
                }),
            MetricFamily(
                "mm_symbol_last_tick_timestamp_seconds", .gauge,
                help: "When the symbol last ticked: a gauge of one that stopped stays as it was.",
                unit: "seconds", samples: samples { $0.lastTick.map(seconds) }),
            MetricFamily(
                "mm_symbol_last_fill_timestamp_seconds", .gauge, help: "When the symbol last filled; absent before its first fill.",
                unit: "seconds", samples: samples { $0.lastFill.map(seconds) }),
            MetricFamily(
                "mm_symbol_assignment_info", .gauge,
                help: "The arm a symbol plays (bucket A or B), and of which experiment, empty for none; always 1.",
                samples: symbols.map {
                    MetricSample(
                        .integer(1),
                        labels: [("symbol", $0.status.symbol), ("experiment", $0.status.experiment ?? ""), ("bucket", $0.status.arm)])
                }),
            MetricFamily(
                "mm_killed", .gauge, help: "1 while the kill switch holds the symbol, alone or with the whole host.",
                samples: samples { .integer($0.status.isKilled ? 1 : 0) }),
            MetricFamily(
                "mm_md_cache_age_ms", .gauge,
                help: "How long ago the symbol's book was last proven current, in ms; absent while it is not proven.",
                samples: samples { $0.cacheAgeNanoseconds.map { .fixed($0, places: Places.milliseconds) } }),
        ]
    }

    // MARK: The quote path

    private static func quoting(_ node: Node) -> [MetricFamily] {
        let counts = node.reading.counts
        // An arm that never played has nothing to show.
        let arms = [Arm.a, .b].map { ($0, counts.arms[Int($0.rawValue)]) }.filter { $0.0 == .a || $0.1.ticks.count > 0 }
        func samples(_ value: (NodeMetrics.Counts.Arm) -> MetricValue) -> [MetricSample] {
            arms.map { MetricSample(value($0.1), labels: [("bucket", "\($0.0.text)")]) }
        }
        let recent = node.reading.recentCacheReads
        return [
            MetricFamily(
                "mm_ticks", .counter, help: "Ticks of the quote pipeline, by experiment arm.", samples: samples { .integer($0.ticks.count) }
            ),
            MetricFamily(
                "mm_deadline_misses", .counter, help: "Ticks that took longer than pipeline.tick_deadline_ms, by experiment arm.",
                samples: samples { .integer($0.deadlineMisses) }),
            MetricFamily(
                "mm_tick_duration_seconds", .histogram, help: "All ticks, from the socket read of the frame to the end, by experiment arm.",
                unit: "seconds", samples: samples { .histogram($0.ticks, places: 9) }),
            MetricFamily(
                "mm_stage_duration_seconds", .histogram,
                help: "Stages of the pipeline; of logged ticks only, each counted as many times as it stands for (its weight).",
                unit: "seconds",
                samples: Stage.allCases.map {
                    MetricSample(.histogram(counts.stages[$0.rawValue], places: 9), labels: [("stage", "\($0.name)")])
                }),
            MetricFamily(
                "mm_fill_slippage_bps", .histogram,
                help: "Fill price against quote price of every fill in bps, by experiment arm; above 0 is a cost to us.",
                samples: samples { .histogram($0.slippage, places: Places.bps) }),
            MetricFamily(
                "mm_tick_total_p95_ms", .gauge, help: "95th percentile of tick durations over the last five minutes, in ms.",
                value: node.reading.tickP95.map { .fixed($0, places: Places.milliseconds) }),
            MetricFamily(
                "mm_stage_fetch_md_p95_ms", .gauge,
                help: "95th percentile of FetchMDStage over the last five minutes in ms, of logged ticks by weight.",
                value: node.reading.fetchP95.map { .fixed($0, places: Places.milliseconds) }),
            MetricFamily(
                "mm_md_cache_requests", .counter,
                help:
                    "Reads of the market-data cache for pricing: hit (young enough), stale (served old), miss (refreshed first, or refused).",
                samples: [
                    ("hit", counts.cacheReads.hits), ("miss", counts.cacheReads.misses), ("stale", counts.cacheReads.stale),
                ].map { MetricSample(.integer($0.1), labels: [("outcome", $0.0)]) }),
            MetricFamily(
                "mm_md_cache_hit_ratio", .gauge, help: "Hits per read over the last five minutes, a ratio from 0 to 1.",
                value: FixedPoint.divide(Int128(recent.hits) * 1_000_000_000, by: Int128(recent.total)).map { .fixed($0, places: 9) }),
            MetricFamily(
                "mm_md_cache_refresh_duration_seconds", .histogram,
                help: "Refreshes of books by a ping or a REST snapshot, from asking for it until it proved the book.", unit: "seconds",
                value: .histogram(node.cache.refreshes, places: 9)),
            MetricFamily(
                "mm_md_cache_refresh_latency_p95_ms", .gauge,
                help: "95th percentile of refreshes since the start in ms: the bound of its bucket, absent above the last one.",
                value: node.cache.refreshes.bound(ofPercent: 95).map { .integer($0 / 1_000_000) }),
            MetricFamily(
                "mm_md_cache_invalidations", .counter, help: "Times a book was not served any more until it was proven again, by reason.",
                samples: MDCache.Invalidation.allCases.map {
                    MetricSample(.integer(node.cache.invalidations[$0.rawValue]), labels: [("reason", "\($0.text)")])
                }),
            MetricFamily(
                "mm_feed_dropped", .counter,
                help: "Rows that are in no feed: their ring was full. No fill and no event is ever among them.",
                samples: [Feed.ticks, .quotes, .snapshots].map {
                    MetricSample(.integer(node.droppedRows[$0.place]), labels: [("stream", $0.rawValue), ("reason", "ring_full")])
                }),
            MetricFamily(
                "mm_venue_clock_offset_seconds", .gauge,
                help: "This host's clock minus the venue's: the least of the last five minutes, the time a frame took to come is in it.",
                unit: "seconds", value: node.venueClockOffsetNanoseconds.map { .fixed($0, places: 9) }),
            MetricFamily(
                "mm_md_ws_gaps", .counter, help: "Breaks of the venue's sequence numbers.", value: .integer(node.sequenceGaps)),
        ]
    }

    // MARK: Feeds

    private static func stored(_ feeds: Feeds) -> [MetricFamily] {
        func perStream(_ value: (FeedStatistics.Counts) -> Int64) -> [MetricSample] {
            Feed.allCases.map { MetricSample(.integer(value(feeds.written[$0])), labels: [("stream", $0.rawValue)]) }
        }
        return [
            MetricFamily("mm_feed_records", .counter, help: "Rows given to the feed's file.", samples: perStream(\.rows)),
            MetricFamily(
                "mm_feed_write_errors", .counter, help: "Operations on the feed's file that failed; each is tried again.",
                samples: perStream(\.errors)),
            MetricFamily(
                "mm_feed_fsync_duration_seconds", .histogram, help: "Making what was written to a feed's file durable.", unit: "seconds",
                value: .histogram(feeds.syncs, places: 9)),
            MetricFamily(
                "mm_uplink_spool_limit_bytes", .gauge,
                help: "What feed files may take (retention.max_bytes): beyond it the oldest go, also such as the hub does not have.",
                unit: "bytes", value: .integer(feeds.bytesMax)),
        ]
    }

    // MARK: The hub

    private static func linked(_ link: Link) -> [MetricFamily] {
        [
            MetricFamily(
                "mm_uplink_connected", .gauge, help: "1 while the hub has welcomed this edge.",
                value: .integer(link.uplink.isConnected ? 1 : 0)),
            MetricFamily(
                "mm_uplink_spool_bytes", .gauge, help: "Bytes of feeds on disk that the hub has not acknowledged.", unit: "bytes",
                value: .integer(link.uplink.backlogBytes)),
            MetricFamily(
                "mm_uplink_oldest_unacked_age_seconds", .gauge,
                help: "How long the oldest of them has waited, from this start on at the earliest; 0 when none waits.", unit: "seconds",
                value: .fixed(link.uplink.oldestUnackedNanoseconds ?? 0, places: 9)),
            MetricFamily(
                "mm_uplink_rtt_seconds", .histogram, help: "Round trips of pings to the hub.", unit: "seconds",
                value: .histogram(link.uplink.roundTrips, places: 9)),
            MetricFamily(
                "mm_uplink_clock_offset_seconds", .gauge,
                help: "This host's clock minus the hub's, as the last welcome came; the time it took to come is in it.", unit: "seconds",
                value: link.clockOffsetMilliseconds.map { .fixed($0, places: 3) }),
            MetricFamily(
                "mm_uplink_reconnects", .counter, help: "Welcomes of the hub after the first.", value: .integer(link.uplink.reconnects)),
            MetricFamily(
                "mm_command_received", .counter, help: "Commands of the hub, by their first answer.",
                samples: link.commands.answered.map {
                    MetricSample(.integer($0.count), labels: [("kind", $0.kind.rawValue), ("result", $0.result.rawValue)])
                }),
            MetricFamily(
                "mm_command_apply_duration_seconds", .histogram, help: "From a command's arrival until it was in effect.", unit: "seconds",
                value: .histogram(link.commands.applied, places: 9)),
            MetricFamily(
                "mm_assignment_revision", .gauge,
                help: "Number of the newest of the hub's decisions that this edge has applied; absent before any.",
                value: link.revision == .zero ? nil : .integer(link.revision.number)),
        ]
    }

    private static func seconds(_ wall: WallTime) -> MetricValue { .fixed(wall.milliseconds, places: 3) }
}
