import CalibModel

/// What every row of one edge has in common: who wrote it, and from what.
package struct RecordFormat: Sendable {
    /// `live`, `sim` or `replay` (SPEC 10.3).
    package var source: String
    package var venue: String
    package var host: String
    /// 16 hex digits, made once per feeds directory.
    package var epoch: String
    /// In the order of `SymbolIndex`.
    package var instruments: [Instrument]

    package init(source: String, venue: String, host: String, epoch: String, instruments: [Instrument]) {
        self.source = source
        self.venue = venue
        self.host = host
        self.epoch = epoch
        self.instruments = instruments
    }
}

/// Turns records into JSONL rows: field order and units are SPEC 2's, one `\n` per row.
///
/// A number that does not fit its unit becomes null, never a trap: a reader of a field that may not be null rejects that row and counts it.
/// Everything constant is made once, so a row costs its digits and no string.
package struct RecordLines {
    private struct Symbol {
        /// In quotes, ready to be copied.
        var name: [UInt8]
        var tickNano: Int64
        var lotE8: Int64
        var instrument: Instrument
        var stages = StageHistory()
    }

    private var symbols: [Symbol]
    /// `"v": ... "epoch": "..."`, without braces.
    private let common: [UInt8]
    private var endings = RowEndings()
    private var clock = ClockText()

    package init(_ format: RecordFormat) {
        symbols = format.instruments.map { instrument in
            var name = JSONWriter()
            name.string(instrument.symbol)
            return Symbol(name: name.bytes, tickNano: instrument.tickNano, lotE8: instrument.lotE8, instrument: instrument)
        }
        common = Self.members { writer in Self.writeCommon(format, &writer) }
    }

    // MARK: Rows

    /// One row of `fills` (SPEC 2.1).
    package mutating func fill(_ record: FillRecord, seq: Int64, into row: inout JSONWriter) {
        begin(record.wall, &row)
        let (tick, _) = name(record.symbol, &row)
        row.field("side", string: record.side.text)
        row.key("price")
        row.product(record.price, tick, places: Places.price)
        row.key("qty")
        quantity(record.quantity, at: record.price, of: record.symbol, &row)
        row.field("maker", boolean: !record.isTaker)
        row.field("taker", boolean: record.isTaker)
        row.key("queue_pos_est")
        quantity(record.queueAhead, at: record.price, of: record.symbol, &row)
        row.key("quote_price")
        row.product(record.quotePrice, tick, places: Places.price)
        row.key("mid_at_quote")
        row.mid(twice: Int128(record.midAtQuoteTwice), tick)
        row.key("mid_now")
        row.mid(twice: Int128(record.midNowTwice), tick)
        row.key("spread_at_quote_bps")
        row.bps(record.spreadAtQuote)
        row.field("latency_ms", fixed: record.latencyNanoseconds, places: Places.milliseconds)
        row.key("slip_bps")
        row.bps(record.slip)
        row.field("fill_id", integer: record.fillID)
        row.key("order_id")
        row.orderID(record.orderID)
        row.key("fee_bps")
        row.bps(record.fee)
        row.end(endings.ending(record.armFields, common), seq: seq)
    }

    /// One row of `pipeline_ticks` (SPEC 2.2).
    package mutating func tick(_ record: TickRecord, seq: Int64, into row: inout JSONWriter) {
        begin(record.wall, &row)
        _ = name(record.symbol, &row)
        row.key("stage_latencies")
        row.beginObject()
        for stage in Stage.allCases {
            row.key(stage.name)
            let duration = record.stageNanoseconds[stage.rawValue]
            row.optional(duration, places: Places.milliseconds)
            if let duration { symbols[Int(record.symbol)].stages.add(duration, stage) }
        }
        row.endObject()
        row.key("stage_p95_ms")
        row.optional(symbols[Int(record.symbol)].stages.largestP95, places: Places.milliseconds)
        row.field("tick_total_ms", fixed: record.totalNanoseconds, places: Places.milliseconds)
        row.field("cache_hit", boolean: record.isCacheHit)
        row.key("cache_age_ms")
        row.optional(record.cacheAgeNanoseconds, places: Places.milliseconds)
        row.field("used_stale", boolean: record.usedStale)
        row.field("deadline_miss", boolean: record.missedDeadline)
        row.field("tick", integer: record.tick)
        row.field("weight", integer: record.weight)
        row.field("halted", boolean: record.isHalted)
        row.end(endings.ending(record.armFields, common), seq: seq)
    }

    /// One row of `feature_snapshots` (SPEC 2.3).
    ///
    /// It stays below `Limits.rowBytesMax`: all 3,840 buckets with counts under 10 million are 3,840 x 15 bytes = 57,600, and a symbol
    /// would need ten hours without a snapshot, at a microsecond a tick, to fill all of them further than that.
    package mutating func snapshot(_ record: UnsafePointer<SnapshotRecord>, seq: Int64, into row: inout JSONWriter) {
        begin(record.pointee.wall, &row)
        let (tick, lot) = name(record.pointee.symbol, &row)
        row.field("from_ts", integer: record.pointee.fromMilliseconds)
        row.field("span_ms", integer: record.pointee.spanMilliseconds)
        row.key("features")
        row.beginObject()
        for feature in Feature.allCases {
            row.key(feature.name)
            row.optional(record.pointee.features[feature.rawValue], places: feature.places)
        }
        row.endObject()
        counts(record.pointee.counts, &row)
        sums(record.pointee.sums, tick, lot, &row)
        row.key("tick_ns_histogram")
        row.beginArray()
        for bucket in 0..<LatencyBuckets.count {
            let count = record.pointee.tickHistogram[bucket]
            guard count > 0 else { continue }
            row.beginArray()
            row.integer(bucket)
            row.integer(Int64(count))
            row.endArray()
        }
        row.endArray()
        row.end(endings.ending(record.pointee.armFields, common), seq: seq)
    }

    /// One row of `markouts` (SPEC 2.4).
    package mutating func markout(_ record: MarkoutRecord, seq: Int64, into row: inout JSONWriter) {
        begin(record.wall, &row)
        let (tick, _) = name(record.symbol, &row)
        row.field("fill_id", integer: record.fillID)
        row.field("fill_ts", integer: record.fillMilliseconds)
        row.key("mid_1s")
        row.mid(twice: record.midTwiceAfter1s.map { Int128($0) }, tick)
        row.key("mid_5s")
        row.mid(twice: record.midTwiceAfter5s.map { Int128($0) }, tick)
        row.key("mid_30s")
        row.mid(twice: record.midTwiceAfter30s.map { Int128($0) }, tick)
        row.key("net_bps")
        row.optional(record.net?.micro, places: Places.bps)
        row.end(endings.ending(record.armFields, common), seq: seq)
    }

    /// One row of `quotes` (SPEC 2.5).
    package mutating func quote(_ record: QuoteRecord, seq: Int64, into row: inout JSONWriter) {
        begin(record.wall, &row)
        let (tick, _) = name(record.symbol, &row)
        row.field("side", string: record.side.text)
        row.key("order_id")
        row.orderID(record.orderID)
        row.key("price")
        row.product(record.price, tick, places: Places.price)
        row.key("qty")
        quantity(record.quantity, at: record.price, of: record.symbol, &row)
        row.key("depth_bps")
        row.bps(record.depth)
        row.key("half_spread_bps")
        row.bps(record.halfSpread)
        row.key("skew_bps")
        row.bps(record.skew)
        row.key("nudge_bps")
        row.bps(record.nudge)
        row.key("queue_ahead")
        quantity(record.queueAhead, at: record.price, of: record.symbol, &row)
        row.field("resting_ms", fixed: record.restingNanoseconds, places: Places.milliseconds)
        row.field("outcome", string: record.outcome.text)
        row.key("vol_realized")
        row.optional(record.volRealized?.micro, places: Places.bps)
        row.field("propensity", fixed: 1, places: 0)
        row.field("weight", integer: record.weight)
        row.end(endings.ending(record.armFields, common), seq: seq)
    }

    /// One row of `events` (SPEC 2.6). `subject` is the feed or file that a `dropped`, `cut` or `sealed` is about.
    package mutating func event(_ record: EventRecord, about subject: EventSubject? = nil, seq: Int64, into row: inout JSONWriter) {
        begin(record.wall, &row)
        row.field("event", string: record.kind.name)
        row.key("symbol")
        if let symbol = record.symbol {
            row.raw(symbols[Int(symbol)].name)
        } else {
            row.null()
        }
        row.key("detail")
        row.beginObject()
        detail(of: record, about: subject, &row)
        row.endObject()
        row.end(common, seq: seq)
    }

    // MARK: Parts of a row

    private mutating func begin(_ wall: WallTime, _ row: inout JSONWriter) {
        row.beginObject()
        row.field("ts", integer: wall.milliseconds)
        row.key("ts_iso")
        row.raw(clock.quoted(wall.milliseconds))
    }

    /// Writes the symbol's name and returns its tick and lot.
    private func name(_ symbol: SymbolIndex, _ row: inout JSONWriter) -> (tickNano: Int64, lotE8: Int64) {
        precondition(Int(symbol) < symbols.count, "BUG: symbol \(symbol) of \(symbols.count)")
        row.key("symbol")
        row.raw(symbols[Int(symbol)].name)
        return (symbols[Int(symbol)].tickNano, symbols[Int(symbol)].lotE8)
    }

    /// Base asset: contracts of an inverse future are worth more or less of it as the price moves.
    private func quantity(_ lots: Int64, at price: Int64, of symbol: SymbolIndex, _ row: inout JSONWriter) {
        row.optional(symbols[Int(symbol)].instrument.baseQuantity(lots: lots, price: price), places: Places.quantity)
    }

    private func detail(of record: EventRecord, about subject: EventSubject?, _ row: inout JSONWriter) {
        func optionalFeed() { row.field("feed", string: subject?.feed.rawValue) }
        func experiment() {
            row.key("experiment")
            if let experiment = record.armFields?.experiment { row.string(experiment.text) } else { row.null() }
        }
        switch record.kind {
        case .started: row.field("run", integer: record.first)
        case .stopped:
            row.field("messages", integer: record.first)
            row.field("fills", integer: record.second)
        case .gap:
            row.field("expected", integer: record.first)
            row.field("received", integer: record.second)
        case .resync:
            row.field("id", integer: record.first)
            row.field("applied", integer: record.second)
        case .halt:
            row.key("cause")
            if let cause = UInt8(exactly: record.first).flatMap(HaltCause.init(rawValue:)) { row.string(cause.text) } else { row.null() }
            row.field("halt_ms", integer: record.second)
        case .dropped:
            optionalFeed()
            row.key("rows")
            if record.first > 0 { row.integer(record.first) } else { row.null() }
            row.field("day", string: subject?.day?.compactText)
            row.key("bytes")
            if subject?.day != nil { row.integer(record.second) } else { row.null() }
        case .clock: row.field("step_ms", integer: record.first)
        case .cut:
            optionalFeed()
            row.field("bytes", integer: record.first)
            row.field("rows_saved", integer: record.second)
        case .disconnected:
            row.field("connection", integer: record.first)
            row.field("books", integer: record.second)
        case .armChange:
            row.field("from", string: record.first == 0 ? Arm.a.text : Arm.b.text)
            row.field("to", string: (record.armFields?.arm ?? .a).text)
            row.field("why", string: (record.armFields?.why ?? .none).text)
            experiment()
        case .latch: experiment()
        case .breaker:
            experiment()
            row.field("kind", string: BreakerKind(rawValue: UInt8(truncatingIfNeeded: record.first / 2))?.text ?? "")
            row.field("scope", string: BreakerTrip.Scope(rawValue: UInt8(truncatingIfNeeded: record.first & 1))?.text ?? "")
            row.field("count", integer: record.second >> 32)
            row.field("of", integer: record.second & 0xffff_ffff)
        case .kill: row.field("cancelled_orders", integer: record.first)
        case .release: break
        case .config:
            row.key("config_hash")
            row.hex(record.armFields?.configHash ?? 0)
        case .lost:
            row.field("feed", string: Feed.fills.rawValue)
            row.key("order_id")
            row.orderID(record.first)
        case .sealed:
            optionalFeed()
            row.field("day", string: subject?.day?.compactText)
            row.field("bytes", integer: record.first)
            row.field("rows", integer: record.second)
            row.field("sha256", string: subject?.sha256)
        case .fork:
            optionalFeed()
            row.field("day", string: subject?.day?.compactText)
            row.field("base", integer: record.first)
        }
    }

    private func counts(_ counts: SnapshotCounts, _ row: inout JSONWriter) {
        row.key("counts")
        row.beginObject()
        row.count("ticks", counts.ticks)
        row.count("quotes", counts.quotes)
        row.count("fills", counts.fills)
        row.count("filled_orders", counts.filledOrders)
        row.count("taker_fills", counts.takerFills)
        row.count("returns", counts.returns)
        row.count("cache_hits", counts.cacheHits)
        row.count("cache_misses", counts.cacheMisses)
        row.count("cache_stale", counts.cacheStale)
        row.count("deadline_misses", counts.deadlineMisses)
        row.count("halts", counts.halts)
        row.count("rejected_inputs", counts.rejectedInputs)
        row.endObject()
    }

    private func sums(_ sums: SnapshotSums, _ tickNano: Int64, _ lotE8: Int64, _ row: inout JSONWriter) {
        row.key("sums")
        row.beginObject()
        row.field("fill_notional", fixed: sums.fillNotional, places: Places.notional)
        row.field("slip", fixed: sums.slip, places: Places.bps)
        row.key("slip_x_notional")
        row.notionalProduct(sums.slipNotional)
        row.field("markout_notional", fixed: sums.markoutNotional, places: Places.notional)
        row.key("net_x_notional")
        row.notionalProduct(sums.netNotional)
        row.key("adverse_x_notional")
        row.notionalProduct(sums.adverseNotional)
        row.field("quote_ms", fixed: sums.quoteNanoseconds, places: Places.milliseconds)
        row.key("mid")
        row.mid(twice: sums.midTwice, tickNano)
        row.field("market_spread_bps", fixed: sums.marketSpread, places: Places.bps)
        row.key("position")
        row.quotient(sums.position.multipliedReportingOverflow(by: Int128(lotE8)), 1, places: Places.quantity)
        row.field("pnl", fixed: sums.pnl, places: Places.notional)
        row.field("return2", fixed: sums.squaredReturn, places: 9)
        row.endObject()
    }

    private static func writeCommon(_ format: RecordFormat, _ writer: inout JSONWriter) {
        writer.field("v", integer: 1)
        writer.field("source", string: format.source)
        writer.field("venue", string: format.venue)
        writer.field("host", string: format.host)
        writer.field("epoch", string: format.epoch)
    }

    private static func members(_ body: (inout JSONWriter) -> Void) -> [UInt8] {
        var writer = JSONWriter()
        body(&writer)
        return writer.bytes
    }
}

/// How rows end, up to `epoch`: their arm fields and what all rows have in common, rendered once for each of the last few arm fields met.
///
/// Two arms play at once, and each may trail in another form for half a minute: eight hold all of them. A miss renders one again.
private struct RowEndings {
    private static let kept = 8
    private var fields: [ArmFields] = []
    private var texts: [[UInt8]] = []
    private var oldest = 0

    mutating func ending(_ wanted: ArmFields, _ common: [UInt8]) -> [UInt8] {
        for index in fields.indices where fields[index] == wanted { return texts[index] }
        let text = Self.render(wanted) + common
        if fields.count < Self.kept {
            fields.append(wanted)
            texts.append(text)
        } else {
            fields[oldest] = wanted
            texts[oldest] = text
            oldest = (oldest + 1) % Self.kept
        }
        return text
    }

    /// `"arm": ... "config_hash": "..."`, without braces, with the comma that what follows needs.
    private static func render(_ fields: ArmFields) -> [UInt8] {
        var writer = JSONWriter()
        writer.field("arm", string: fields.arm.text)
        writer.field("arm_why", string: fields.why.text)
        writer.key("experiment")
        if let experiment = fields.experiment { writer.string(experiment.text) } else { writer.null() }
        writer.key("block")
        if let block = fields.block { writer.integer(Int64(block)) } else { writer.null() }
        writer.key("config_hash")
        writer.hex(fields.configHash)
        return writer.bytes + [0x2c]
    }
}

/// The last 100 durations of each stage of one symbol, for `stage_p95_ms` (SPEC 2.2): each stage's values are kept sorted beside their order
/// of arrival, so a row costs two binary searches a stage.
package struct StageHistory: Sendable {
    /// Durations remembered per stage (SPEC 2.2).
    package static let length = 100

    private struct Window: Sendable {
        var arrived: [Int64] = []
        var ascending: [Int64] = []
        var oldest = 0
    }

    private var windows = [Window](repeating: Window(), count: Stage.allCases.count)
    package init() {}

    package mutating func add(_ nanoseconds: Int64, _ stage: Stage) {
        let index = stage.rawValue
        if windows[index].arrived.count < Self.length {
            windows[index].arrived.append(nanoseconds)
        } else {
            let leaving = windows[index].arrived[windows[index].oldest]
            windows[index].ascending.remove(at: Self.place(of: leaving, in: windows[index].ascending))
            windows[index].arrived[windows[index].oldest] = nanoseconds
            windows[index].oldest = (windows[index].oldest + 1) % Self.length
        }
        windows[index].ascending.insert(nanoseconds, at: Self.place(of: nanoseconds, in: windows[index].ascending))
    }

    /// The largest over the stages of each stage's p95, in nanoseconds; nil before any duration.
    package var largestP95: Int64? {
        var largest: Int64?
        for window in windows {
            guard let p95 = Quantile.of(ascending: window.ascending, percent: 95) else { continue }
            largest = max(largest ?? p95, p95)
        }
        return largest
    }

    /// The first position whose value is not below `value`.
    private static func place(of value: Int64, in ascending: [Int64]) -> Int {
        var low = 0
        var high = ascending.count
        while low < high {
            let middle = (low + high) / 2
            if ascending[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// `ts_iso` in quotes; the date is worked out once a day.
private struct ClockText {
    private var day: Int64?
    private var text: [UInt8] = []

    /// `"2025-01-01T00:00:00.000Z"`, quotes included.
    mutating func quoted(_ milliseconds: Int64) -> [UInt8] {
        let newDay = milliseconds.flooredDivision(by: 86_400_000)
        if newDay != day {
            text = Array("\"\(TimeText.milliseconds(milliseconds))\"".utf8)
            day = newDay
        }
        let ofDay = milliseconds.flooredRemainder(by: 86_400_000)
        // A WallTime is 1677...2262, so the year has four digits and every field its place.
        put(ofDay / 3_600_000, at: 12, digits: 2)
        put(ofDay / 60_000 % 60, at: 15, digits: 2)
        put(ofDay / 1000 % 60, at: 18, digits: 2)
        put(ofDay % 1000, at: 21, digits: 3)
        return text
    }

    private mutating func put(_ value: Int64, at position: Int, digits: Int) {
        var rest = value
        for offset in stride(from: digits - 1, through: 0, by: -1) {
            text[position + offset] = 0x30 + UInt8(rest % 10)
            rest /= 10
        }
    }
}

extension JSONWriter {
    fileprivate mutating func optional(_ value: Int64?, places: Int) {
        if let value { fixed(value, places: places) } else { null() }
    }

    fileprivate mutating func bps(_ value: BasisPoints) { fixed(value.micro, places: Places.bps) }

    fileprivate mutating func count(_ name: StaticString, _ value: Int64) {
        key(name)
        integer(value)
    }

    /// `value * unit`, null when it does not fit.
    fileprivate mutating func product(_ value: Int64, _ unit: Int64, places: Int) {
        let (product, overflowed) = value.multipliedReportingOverflow(by: unit)
        optional(overflowed ? nil : product, places: places)
    }

    /// `product / divisor`, half to even, null when either step does not fit.
    fileprivate mutating func quotient(_ product: (partialValue: Int128, overflow: Bool), _ divisor: Int128, places: Int) {
        optional(product.overflow ? nil : FixedPoint.divide(product.partialValue, by: divisor), places: places)
    }

    /// Half of `twice` ticks; an odd tick of 1e-9 is rounded half to even.
    fileprivate mutating func mid(twice: Int128?, _ tickNano: Int64) {
        guard let twice else { return null() }
        quotient(twice.multipliedReportingOverflow(by: Int128(tickNano)), 2, places: Places.price)
    }

    /// bps x quote currency, 1e-14 to 1e-9.
    fileprivate mutating func notionalProduct(_ value: Int128) { quotient((value, false), 100_000, places: 9) }

    /// `R-N`: the run's number and the order's within it.
    fileprivate mutating func orderID(_ id: Int64) {
        let bits = UInt64(bitPattern: id)
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 24) { text in
            var index = text.count - 1
            text[index] = 0x22
            func put(_ number: UInt64) {
                var rest = number
                repeat {
                    index -= 1
                    text[index] = 0x30 + UInt8(rest % 10)
                    rest /= 10
                } while rest > 0
            }
            put(bits & 0xffff_ffff)
            index -= 1
            text[index] = 0x2d
            put(bits >> 32)
            index -= 1
            text[index] = 0x22
            raw(text[index...])
        }
    }

    /// The fields every row ends with.
    fileprivate mutating func end(_ members: [UInt8], seq: Int64) {
        raw(members)
        key("seq")
        integer(seq)
        endObject()
        newline()
    }
}

extension EventKind {
    /// The event's name in the feed.
    package var name: StaticString {
        switch self {
        case .started: "started"
        case .stopped: "stopped"
        case .gap: "gap"
        case .resync: "resync"
        case .halt: "halt"
        case .dropped: "dropped"
        case .clock: "clock"
        case .cut: "cut"
        case .disconnected: "disconnected"
        case .armChange: "arm_change"
        case .latch: "latch"
        case .breaker: "breaker"
        case .kill: "kill"
        case .release: "release"
        case .config: "config"
        case .lost: "lost"
        case .sealed: "sealed"
        case .fork: "fork"
        }
    }
}
