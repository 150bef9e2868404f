import CalibModel
import Glibc
import TestSupport
import Testing
import Wire

/// Idea: one record of each kind with a different value in every field, so that two fields swapped change the row; the rows are the goldens
/// under `proto-json/examples`, which other programs read too. Refreshed with `UPDATE_GOLDENS=1`.
struct RecordLinesTests {
    @Test(arguments: Feed.allCases)
    func rowEqualsItsExample(feed: Feed) throws {
        let row = Sample.row(feed, seq: 42)
        try compare(row, with: "\(feed.rawValue).json")
        #expect(row.hasSuffix("}\n"))
        #expect(Array(row.dropLast().utf8).withUnsafeBytes { RowIdentity(line: $0) }?.seq == 42)
    }

    /// The schema names exactly the row's fields, in the row's order, at every level.
    @Test(arguments: Feed.allCases)
    func schemaListsTheRowsFieldsInOrder(feed: Feed) throws {
        let schema = try Fields.ofSchema(text(protoFolder + "/records/\(feed.rawValue).schema.json"))
        #expect(try schema == Fields.ofRow(Sample.row(feed, seq: 42)))
    }

    /// `event_kinds.jsonl` has one row of each kind of event, and the schema says which fields its `detail` has.
    @Test func everyKindOfEventHasItsExampleAndItsSchema() throws {
        var lines = RecordLines(Sample.format())
        var writer = JSONWriter()
        for (index, kind) in EventKind.allCases.enumerated() {
            lines.event(Sample.event(kind), about: Sample.subject(kind), seq: Int64(index + 1), into: &writer)
        }
        let rows = String(decoding: writer.bytes, as: UTF8.self)
        try compare(rows, with: "event_kinds.jsonl")
        let schema = try text(protoFolder + "/records/events.schema.json")
        let kinds = try Fields.strings(Fields.value("enum", of: Fields.value("event", of: Fields.value("properties", of: schema))))
        #expect(kinds == EventKind.allCases.map { "\($0.name)" })
        let branches = try Fields.elements(Fields.value("allOf", of: schema))
        #expect(branches.count == kinds.count)
        for (kind, row) in zip(kinds, rows.split(separator: "\n")) {
            let branch = try #require(branches.first { $0.contains("\"const\": \"\(kind)\"") }, "no schema of \(kind)")
            let detail = try ["then", "properties", "detail", "required"].reduce(branch) { try Fields.value($1, of: $0) }
            #expect(try Fields.strings(detail) == Fields.names(Fields.value("detail", of: String(row))), "\(kind)")
        }
    }

    /// The cache of rendered arm fields must not mix them up, also when there are more than it keeps.
    @Test func everyRowCarriesItsOwnArmFields() throws {
        var lines = RecordLines(Sample.format())
        var random = SeededRandom(seed: 3)
        let all = (0..<20).map { number -> ArmFields in
            var fields = ArmFields(why: ArmReason.allCases[number % 10], configHash: UInt64(number % 7))
            if !number.isMultiple(of: 2) { fields.arm = .b }
            if number >= 5 { fields.experiment = ExperimentID("e\(number / 2)") }
            if !number.isMultiple(of: 3) { fields.block = Int32(number - 10) }
            return fields
        }
        for seq in 1...2000 {
            let fields = all[random.next(below: seq < 1000 ? 6 : 20)]
            var tick = Sample.tick()
            tick.armFields = fields
            var writer = JSONWriter()
            lines.tick(tick, seq: Int64(seq), into: &writer)
            let row = String(decoding: writer.bytes, as: UTF8.self)
            let experiment: String = fields.experiment.map { "\"\($0.text)\"" } ?? "null"
            let block: String = fields.block.map { "\($0)" } ?? "null"
            #expect(try Fields.value("arm", of: row) == "\"\(fields.arm.text)\"")
            #expect(try Fields.value("arm_why", of: row) == "\"\(fields.why.text)\"")
            #expect(try Fields.value("experiment", of: row) == experiment)
            #expect(try Fields.value("block", of: row) == block)
            #expect(try Fields.value("config_hash", of: row) == "\"000000000000000\(fields.configHash)\"")
        }
    }

    private func compare(_ text: String, with example: String) throws {
        let path = protoFolder + "/examples/\(example)"
        if getenv("UPDATE_GOLDENS") != nil {
            let file = try #require(fopen(path, "w"))
            defer { fclose(file) }
            try #require(fputs(text, file) >= 0)
        }
        #expect(try CoreTests.text(path) == text)
    }

    struct Case: Sendable {
        var name: String
        var expected: String
        var price: Int64 = 1
        var midTwice: Int64 = 2
        var lots: Int64 = 1
        var tick: Int64 = 1
        var digits: Int = 0
    }

    @Test(arguments: [
        Case(name: "price", expected: "50000.5", price: 500_005, tick: 1, digits: 1),
        Case(name: "price", expected: "0.000000001", price: 1, tick: 1, digits: 9),
        Case(name: "price", expected: "-3.0", price: -3),
        Case(name: "price", expected: "null", price: .max, digits: 0),  // 9.2e18 x 1e9 does not fit.
        Case(name: "mid_now", expected: "50000.55", midTwice: 1_000_011, digits: 1),
        Case(name: "mid_now", expected: "0.000000002", midTwice: 3, digits: 9),  // 1.5e-9, half to even.
        Case(name: "mid_now", expected: "0.000000002", midTwice: 5, digits: 9),  // 2.5e-9.
        Case(name: "mid_now", expected: "null", midTwice: .max, digits: 0),
        Case(name: "qty", expected: "0.007", lots: 7),
        Case(name: "qty", expected: "null", lots: .max),
    ])
    func fillNumbersAreExactOrNull(row: Case) throws {
        let instrument = Instrument(symbol: "X", priceDigits: row.digits, tickUnits: row.tick, quantityDigits: 3, lotUnits: 1)
        var lines = RecordLines(Sample.format([instrument]))
        var fill = Sample.fill
        fill.symbol = 0
        fill.price = row.price
        fill.midNowTwice = row.midTwice
        fill.quantity = row.lots
        var writer = JSONWriter()
        lines.fill(fill, seq: 1, into: &writer)
        #expect(try Fields.value(row.name, of: String(decoding: writer.bytes, as: UTF8.self)) == row.expected)
    }

    @Test func snapshotSumsThatDoNotFitAreNull() throws {
        let snapshot = Sample.snapshot()
        defer { snapshot.deallocate() }
        snapshot.pointee.sums.midTwice = .max
        snapshot.pointee.sums.position = .min
        snapshot.pointee.sums.slipNotional = .max
        snapshot.pointee.sums.netNotional = 250_000  // 2.5e-9, half to even.
        snapshot.pointee.sums.adverseNotional = -350_000
        var lines = RecordLines(Sample.format())
        var writer = JSONWriter()
        lines.snapshot(snapshot, seq: 1, into: &writer)
        let sums = try Fields.value("sums", of: String(decoding: writer.bytes, as: UTF8.self))
        #expect(try Fields.value("mid", of: sums) == "null")
        #expect(try Fields.value("position", of: sums) == "null")
        #expect(try Fields.value("slip_x_notional", of: sums) == "null")
        #expect(try Fields.value("net_x_notional", of: sums) == "0.000000002")
        #expect(try Fields.value("adverse_x_notional", of: sums) == "-0.000000004")
    }

    /// `ts`, `ts_iso` come from one reading, over midnight and back again, before 1970 too.
    @Test func isoTextFollowsTheMilliseconds() throws {
        var lines = RecordLines(Sample.format())
        for milliseconds: Int64 in [1_735_689_599_999, 1_735_689_600_000, 1_735_689_599_999, 0, -1, 951_782_400_001, 4_102_444_799_999] {
            var writer = JSONWriter()
            let event = EventRecord(wall: WallTime(nanoseconds: milliseconds * 1_000_000 + 999_999), kind: .clock)
            lines.event(event, seq: 1, into: &writer)
            let row = String(decoding: writer.bytes, as: UTF8.self)
            #expect(try Fields.value("ts", of: row) == "\(milliseconds)")
            #expect(try Fields.value("ts_iso", of: row) == "\"\(TimeText.milliseconds(milliseconds))\"")
        }
    }

    /// Against the plain rule: sort the last 100, take the quantile, take the largest.
    @Test func stageP95IsTheLargestOfTheLastHundred() {
        var history = StageHistory()
        var oracle = [[Int64]](repeating: [], count: 6)
        #expect(history.largestP95 == nil)
        var state: UInt64 = 7
        for step in 0..<2000 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let stage = Stage.allCases[Int(state >> 33) % 6]
            let value = Int64(state >> 40) % (step < 1000 ? 50 : 100_000)
            history.add(value, stage)
            oracle[stage.rawValue].append(value)
            let expected = oracle.compactMap { Quantile.of(ascending: $0.suffix(100).sorted(), percent: 95) }.max()
            #expect(history.largestP95 == expected)
        }
    }

    @Test func snapshotRowFitsTheRowLimit_withEveryBucketInUse() {
        let snapshot = Sample.snapshot()
        defer { snapshot.deallocate() }
        for bucket in 0..<LatencyBuckets.count { snapshot.pointee.tickHistogram[bucket] = 9_999_999 }
        var lines = RecordLines(Sample.format())
        var writer = JSONWriter()
        lines.snapshot(snapshot, seq: 1, into: &writer)
        #expect(writer.bytes.count <= Limits.rowBytesMax)
    }
}

private let protoFolder = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 } + "/proto-json"

private func text(_ path: String) throws -> String {
    let file = try #require(fopen(path, "r"), "\(path)")
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var unit = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = fread(&unit, 1, unit.count, file)
        if count == 0 { return String(decoding: bytes, as: UTF8.self) }
        bytes += unit[..<count]
    }
}

/// One record of each kind, every number different.
enum Sample {
    /// Of fills, markouts and quotes another than of ticks and snapshots: a fill keeps what its quote was made under.
    static let armFields = ArmFields(configHash: 0xfeed_0000_0000_0001)
    static let quoteArmFields = ArmFields(
        arm: .b, why: .schedule, experiment: ExperimentID("wider-1"), block: 7, configHash: 0xfeed_0000_0000_0002)
    static let wall = WallTime(nanoseconds: 1_735_689_600_123_456_789)

    static func format(
        _ instruments: [Instrument] = [
            Instrument(symbol: "ETHUSDT", priceDigits: 2, tickUnits: 1, quantityDigits: 3, lotUnits: 1),
            Instrument(symbol: "BTCUSDT", priceDigits: 1, tickUnits: 1, quantityDigits: 3, lotUnits: 1),
        ]
    ) -> RecordFormat {
        RecordFormat(
            source: "replay", venue: "binance-usdm", host: "edge-1", epoch: "0123456789abcdef", instruments: instruments)
    }

    static let fill = FillRecord(
        wall: wall, symbol: 1, side: .buy, isTaker: false, price: 500_001, quantity: 12, queueAhead: 5, quotePrice: 500_002,
        midAtQuoteTwice: 1_000_007, midNowTwice: 1_000_009, spreadAtQuote: BasisPoints(micro: 2_100_000), latencyNanoseconds: 125_000_001,
        slip: BasisPoints(micro: -20_000), fillID: 42, orderID: 3 << 32 | 17, fee: BasisPoints(micro: -50_000),
        armFields: quoteArmFields)

    static func snapshot() -> UnsafeMutablePointer<SnapshotRecord> {
        let snapshot = UnsafeMutablePointer<SnapshotRecord>.allocate(capacity: 1)
        snapshot.initialize(to: SnapshotRecord())
        snapshot.pointee.wall = WallTime(nanoseconds: 1_735_689_610_000_000_000)
        snapshot.pointee.symbol = 1
        snapshot.pointee.armFields = armFields
        snapshot.pointee.fromMilliseconds = 1_735_689_600_000
        snapshot.pointee.spanMilliseconds = 10_000
        for feature in Feature.allCases where feature != .queueETA {
            snapshot.pointee.features[feature.rawValue] = Int64(feature.rawValue + 1) * 11 * FixedPoint.powersOfTen[feature.places - 2]
        }
        var counts = SnapshotCounts()
        (counts.ticks, counts.quotes, counts.fills, counts.filledOrders, counts.takerFills, counts.returns) = (101, 22, 4, 3, 1, 10)
        (counts.cacheHits, counts.cacheMisses, counts.cacheStale, counts.deadlineMisses, counts.halts, counts.rejectedInputs) =
            (90, 6, 5, 2, 7, 8)
        snapshot.pointee.counts = counts
        var sums = SnapshotSums()
        (sums.fillNotional, sums.slip, sums.slipNotional) = (240_001_200_000, -80_000, -4_800_024_000_000_000)
        (sums.markoutNotional, sums.netNotional, sums.adverseNotional) = (180_000_900_000, 28_799_964_000_000_000, -7_200_036_000_000_000)
        (sums.quoteNanoseconds, sums.midTwice, sums.marketSpread) = (19_500_000_000, 101_000_909, 202_000_000)
        (sums.position, sums.pnl, sums.squaredReturn) = (-606, 1_234_567_890, 25_000_000_001)
        snapshot.pointee.sums = sums
        for (bucket, count) in [(200, 1), (1291, 60), (1300, 40)] { snapshot.pointee.tickHistogram[bucket] = UInt32(count) }
        return snapshot
    }

    static func tick() -> TickRecord {
        var tick = TickRecord()
        tick.wall = wall
        tick.symbol = 1
        tick.armFields = armFields
        for (stage, nanoseconds) in [12_500_000, 8_300_000, 5_100_000, 3_200_000, 4_800_000].enumerated() {
            tick.stageNanoseconds[stage] = Int64(nanoseconds)
        }
        tick.totalNanoseconds = 36_000_000
        tick.isCacheHit = true
        tick.cacheAgeNanoseconds = 45_000_000
        tick.missedDeadline = true
        tick.tick = 1234
        tick.weight = 10
        return tick
    }

    static func markout() -> MarkoutRecord {
        var markout = MarkoutRecord(
            wall: wall, symbol: 1, fillID: 42, fillMilliseconds: 1_735_689_570_123, armFields: quoteArmFields)
        markout.midTwiceAfter1s = 1_000_011
        markout.midTwiceAfter5s = 1_000_013
        markout.net = BasisPoints(micro: 159_999)
        return markout
    }

    static let quote = QuoteRecord(
        wall: wall, symbol: 1, side: .sell, orderID: 3 << 32 | 18, price: 500_085, quantity: 10, depth: BasisPoints(micro: 1_609_985),
        halfSpread: BasisPoints(micro: 1_050_000), skew: BasisPoints(micro: -100_000), nudge: BasisPoints(micro: 500_000), queueAhead: 2500,
        restingNanoseconds: 1_500_000_000, outcome: .replaced, volRealized: BasisPoints(micro: 812_346), weight: 10,
        armFields: quoteArmFields)

    static let event = event(.gap)

    static func event(_ kind: EventKind) -> EventRecord {
        let fields = ArmFields(arm: .a, why: .latch, experiment: ExperimentID("wider-1"), configHash: 0xfeed_0000_0000_0003)
        return switch kind {
        case .started: EventRecord(wall: wall, kind: kind, first: 3)
        case .stopped: EventRecord(wall: wall, kind: kind, first: 61_234, second: 42)
        case .gap: EventRecord(wall: wall, kind: kind, symbol: 1, first: 9001, second: 9005)
        case .resync: EventRecord(wall: wall, kind: kind, symbol: 1, first: 9007, second: 2)
        case .halt: EventRecord(wall: wall, kind: kind, symbol: 1, first: Int64(HaltCause.takerFills.rawValue), second: 2000)
        case .dropped: EventRecord(wall: wall, kind: kind, first: 17, second: Int64(Feed.ticks.place))
        case .clock: EventRecord(wall: wall, kind: kind, first: -1500)
        case .cut: EventRecord(wall: wall, kind: kind, first: 512, second: 1)
        case .disconnected: EventRecord(wall: wall, kind: kind, first: 0, second: 2)
        case .armChange: EventRecord(wall: wall, kind: kind, symbol: 1, first: Int64(Arm.b.rawValue), armFields: fields)
        case .latch, .config: EventRecord(wall: wall, kind: kind, armFields: fields)
        case .breaker:
            EventRecord(
                wall: wall, kind: kind,
                first: Int64(BreakerKind.takerShare.rawValue) * 2 + Int64(BreakerTrip.Scope.environment.rawValue), second: 22 << 32 | 40,
                armFields: fields)
        case .kill: EventRecord(wall: wall, kind: kind, first: 4)
        case .release: EventRecord(wall: wall, kind: kind, symbol: 1)
        case .lost: EventRecord(wall: wall, kind: kind, symbol: 1, first: 3 << 32 | 17)
        case .sealed: EventRecord(wall: wall, kind: kind, first: 61_440, second: 120)
        case .fork: EventRecord(wall: wall, kind: kind, first: 4_096)
        }
    }

    static func subject(_ kind: EventKind) -> EventSubject? {
        switch kind {
        case .dropped: EventSubject(feed: .ticks)
        case .cut: EventSubject(feed: .fills)
        case .fork: EventSubject(feed: .quotes, day: CalendarDay(number: 20_088))
        case .sealed:
            EventSubject(
                feed: .markouts, day: CalendarDay(number: 20_088),
                sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        default: nil
        }
    }

    /// The feed's sample as a row of text.
    static func row(_ feed: Feed, seq: Int64) -> String {
        var lines = RecordLines(format())
        var writer = JSONWriter()
        switch feed {
        case .fills: lines.fill(fill, seq: seq, into: &writer)
        case .markouts: lines.markout(markout(), seq: seq, into: &writer)
        case .events: lines.event(event, seq: seq, into: &writer)
        case .snapshots:
            let record = snapshot()
            defer { record.deallocate() }
            lines.snapshot(record, seq: seq, into: &writer)
        case .quotes: lines.quote(quote, seq: seq, into: &writer)
        case .ticks: lines.tick(tick(), seq: seq, into: &writer)
        }
        return String(decoding: writer.bytes, as: UTF8.self)
    }
}

/// Field names in order, nested ones as `outer.inner`.
private enum Fields {
    static func names(_ object: String) throws -> [String] { try ofRow(object) }

    static func elements(_ array: String) throws -> [String] {
        var array = array
        return try array.withUTF8 { bytes in
            var reader = JSONReader(UnsafeRawBufferPointer(bytes))
            var elements: [String] = []
            try reader.beginArray()
            while try reader.nextElement() { elements.append(String(decoding: try reader.raw(), as: UTF8.self)) }
            return elements
        }
    }

    static func strings(_ array: String) throws -> [String] { try elements(array).map { String($0.dropFirst().dropLast()) } }

    static func ofRow(_ row: String) throws -> [String] {
        var row = row
        return try row.withUTF8 { bytes in
            var reader = JSONReader(UnsafeRawBufferPointer(bytes))
            return try names(&reader, prefix: "")
        }
    }

    private static func names(_ reader: inout JSONReader, prefix: String) throws -> [String] {
        var names: [String] = []
        try reader.beginObject()
        while let key = try reader.nextKey() {
            let name = prefix + String(decoding: key, as: UTF8.self)
            names.append(name)
            // An event's `detail` has other fields for every kind; its schema describes them instead.
            if try reader.peek() == .object, name != "detail" {
                names += try self.names(&reader, prefix: name + ".")
            } else {
                try reader.skip()
            }
        }
        return names
    }

    /// The names under `properties`, descending into those that have `properties` themselves.
    static func ofSchema(_ schema: String) throws -> [String] {
        var schema = schema
        return try schema.withUTF8 { bytes in
            var reader = JSONReader(UnsafeRawBufferPointer(bytes))
            return try properties(&reader, prefix: "")
        }
    }

    private static func properties(_ reader: inout JSONReader, prefix: String) throws -> [String] {
        var names: [String] = []
        try reader.beginObject()
        while let key = try reader.nextKey() {
            guard key.equals("properties"), prefix != "detail." else {
                try reader.skip()
                continue
            }
            try reader.beginObject()
            while let property = try reader.nextKey() {
                let name = prefix + String(decoding: property, as: UTF8.self)
                names.append(name)
                names += try properties(&reader, prefix: name + ".")
            }
        }
        return names
    }

    /// One member's raw JSON.
    static func value(_ name: String, of object: String) throws -> String {
        var object = object
        return try object.withUTF8 { bytes in
            var reader = JSONReader(UnsafeRawBufferPointer(bytes))
            try reader.beginObject()
            while let key = try reader.nextKey() {
                let value = try reader.raw()
                if String(decoding: key, as: UTF8.self) == name { return String(decoding: value, as: UTF8.self) }
            }
            return "absent"
        }
    }
}
