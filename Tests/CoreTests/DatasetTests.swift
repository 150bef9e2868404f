import CalibModel
import Foundation
import HubCore
import TestSupport
import Testing

/// One file of a feeds directory in memory.
struct MemoryFile {
    var path: String
    var feed: Feed
    var host: String?
    var lines: [String]
    var ending = "\n"
    var tail = ""
    var bytes: [UInt8] { Array((lines.map { $0 + ending }.joined() + tail).utf8) }
}

/// Builds as the shell does: pieces shared out among `parts`, read in chunks.
func buildDataset(_ files: [MemoryFile], _ arguments: DatasetArguments, chunk: Int = 1 << 20, parts count: Int = 1, piece: Int? = nil)
    throws
    -> DatasetDocuments
{
    func read(isExact: Bool) -> DatasetBuild {
        let parts = (0..<(isExact ? 1 : count)).map { _ in DatasetPart(arguments, isExact: isExact) }
        var next = 0
        for file in files {
            let bytes = file.bytes
            let length = piece ?? max(1, bytes.count)
            let number = max(1, (bytes.count + length - 1) / length)
            for index in 0..<number {
                let to = index == number - 1 ? Int64.max : Int64((index + 1) * length)
                let piece = FeedPiece(path: file.path, feed: file.feed, host: file.host, from: Int64(index * length), to: to)
                read(piece, of: bytes, into: parts[next % parts.count])
                next += 1
            }
        }
        return DatasetBuild(arguments, parts: parts)
    }
    func read(_ piece: FeedPiece, of bytes: [UInt8], into part: DatasetPart) {
        part.begin(piece)
        var pending: [UInt8] = []
        var next = Int(piece.readFrom)
        while !part.isDone {
            let more = bytes[next..<min(bytes.count, next + chunk)]
            next += more.count
            pending += more
            let taken = pending.withUnsafeBytes { part.consume($0, isEnd: more.isEmpty) }
            pending.removeFirst(taken)
        }
    }
    var build = read(isExact: false)
    if build.needsExactParts { build = read(isExact: true) }
    return try build.finish { count, body in for number in 0..<count { body(number) } }
}

/// The parts of a dataset the tests look at; decimals stay decimals. Named like the JSON, so that no coding keys stand between.
// swift-format-ignore: AlwaysUseLowerCamelCase
struct DecodedDataset: Decodable, Equatable {
    struct Interval: Decodable, Equatable {
        var symbol: String
        var host: String?
        var interval_start: String
        var targets: [String: Decimal?]
        var features: [String: Decimal?]
        var sample_count: [String: Int]
        var actions: [String: Decimal?]
        var flags: [String]
    }
    struct Watermark: Decodable, Equatable {
        var host: String
        var feed: String
        var seq: Int
        var missing: Int
        var conflicts: Int
    }
    var total_intervals: Int
    var filtered_count: Int
    var source: String
    var hosts: [String]
    var watermarks: [Watermark]
    var intervals: [Interval]

    init(_ bytes: [UInt8]) throws { self = try JSONDecoder().decode(Self.self, from: Data(bytes)) }
}

/// Random feeds of our form, and a naive recomputation of their dataset in Foundation's decimal arithmetic.
struct FeedWorld {
    static let start: Int64 = 1_735_689_600_000
    static let length: Int64 = 3_600_000
    var files: [MemoryFile] = []

    init(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for (number, host) in ["edge-a", "edge-b"].enumerated() {
            let epoch = "00000000000000a\(number)"
            func common(_ seq: Int) -> String {
                #""arm":"A","v":1,"source":"sim","venue":"sim","host":"\#(host)","epoch":"\#(epoch)","seq":\#(seq)}"#
            }
            func time(_ random: inout SeededRandom) -> Int64 {
                // Often right on an interval's or the range's edge.
                if Int.random(in: 0..<5, using: &random) == 0 {
                    return Self.start + 300_000 * Int64.random(in: 0...12, using: &random) - Int64.random(in: 0...1, using: &random)
                }
                return Self.start + Int64.random(in: -60_000..<Self.length + 60_000, using: &random)
            }
            func decimal(_ range: ClosedRange<Int>, _ places: Int) -> String {
                let value = Int.random(in: range, using: &random)
                let scale = (0..<places).reduce(1) { scale, _ in scale * 10 }
                let fraction = String(value.magnitude % UInt(scale))
                return
                    "\(value < 0 ? "-" : "")\(value.magnitude / UInt(scale)).\(String(repeating: "0", count: places - fraction.count))\(fraction)"
            }
            var lines: [Feed: [String]] = [:]
            var markoutSeq = 0
            for seq in 0..<120 {
                let ts = time(&random)
                let symbol = ["BTCUSDT", "ETHUSDT"].randomElement(using: &random)!
                let fee = Int.random(in: 0..<10, using: &random) == 0 ? "null" : decimal(-100_000...500_000, 5)
                lines[.fills, default: []].append(
                    #"{"ts":\#(ts),"symbol":"\#(symbol)","side":"\#(Bool.random(using: &random) ? "BUY" : "SELL")","price":\#(decimal(616_000...617_000, 1)),"#
                        + #""qty":\#(decimal(1...5000, 4)),"taker":\#(Bool.random(using: &random)),"quote_price":\#(decimal(616_000...617_000, 1)),"#
                        + #""mid_now":\#(decimal(6_160_000...6_170_000, 2)),"fill_id":\#(seq),"fee_bps":\#(fee),\#(common(seq))"#)
                guard Int.random(in: 0..<8, using: &random) > 0 else { continue }
                let mid = Int.random(in: 0..<6, using: &random) == 0 ? "null" : decimal(6_160_000...6_170_000, 2)
                lines[.markouts, default: []].append(
                    #"{"ts":\#(ts + 30_000),"symbol":"\#(symbol)","fill_id":\#(seq),"fill_ts":\#(ts),"mid_1s":null,"mid_5s":\#(mid),"mid_30s":null,"net_bps":null,\#(common(markoutSeq))"#
                )
                markoutSeq += 1
            }
            for seq in 0..<500 {
                let ts = time(&random)
                let age = Int.random(in: 0..<5, using: &random) == 0 ? "null" : decimal(0...100_000, 3)
                lines[.ticks, default: []].append(
                    #"{"ts":\#(ts),"symbol":"\#(["BTCUSDT", "ETHUSDT"].randomElement(using: &random)!)","stage_latencies":{"FetchMDStage":0.1},"tick_total_ms":\#(decimal(1000...400_000_000, 6)),"#
                        + #""cache_hit":\#(Bool.random(using: &random)),"cache_age_ms":\#(age),"used_stale":\#(Bool.random(using: &random)),"#
                        + #""deadline_miss":\#(Int.random(in: 0..<25, using: &random) == 0),"weight":\#(Int.random(in: 1...10, using: &random)),\#(common(seq))"#
                )
            }
            for seq in 0..<80 {
                let from = Self.start + Int64.random(in: -6..<366, using: &random) * 10_000
                let vol = Bool.random(using: &random) ? "null" : decimal(0...5_000_000, 6)
                lines[.snapshots, default: []].append(
                    #"{"ts":\#(from + 10_000),"symbol":"BTCUSDT","from_ts":\#(from),"span_ms":\#(Int.random(in: 1...10_000, using: &random)),"#
                        + #""features":{"vol_realized":\#(vol),"liq_top_depth":\#(decimal(0...5_000_000, 4)),"pnl_dev":\#(decimal(-50_000...50_000, 3)),"queue_absorb_rate":null,"queue_eta_ms":null},"#
                        + #""counts":{"quotes":\#(Int.random(in: 0...50, using: &random)),"fills":3,"filled_orders":\#(Int.random(in: 0...5, using: &random)),"taker_fills":1},"#
                        + #""sums":{"fill_notional":\#(decimal(0...5_000_000, 8)),"slip_x_notional":\#(decimal(-500_000...500_000, 9)),"markout_notional":\#(decimal(0...5_000_000, 8)),"adverse_x_notional":\#(decimal(-500_000...500_000, 9))},"#
                        + #""tick_ns_histogram":[[\#(Int.random(in: 0...3000, using: &random)),\#(Int.random(in: 1...9, using: &random))],[7,2]],\#(common(seq))"#
                )
            }
            for (feed, rows) in lines {
                var rows = rows
                for _ in 0..<12 { rows.append(rows.randomElement(using: &random)!) }  // Sent twice.
                for _ in 0..<3 {  // The same identity, another row.
                    let row = rows.randomElement(using: &random)!
                    rows.append(row.replacing("BTCUSDT", with: "ETHUSDT").replacing(#""weight":"#, with: #""weight": "#))
                }
                for bad in [#"{"ts":NaN}"#, "", "  ", "[]", "{\"ts\":1", "{}", String(repeating: "x", count: 70_000)] {
                    rows.insert(bad, at: Int.random(in: 0...rows.count, using: &random))
                }
                if Bool.random(using: &random) { rows.shuffle(using: &random) }
                let half = rows.count / 2
                let folder = "host=\(host)/\(feed.rawValue)"
                files.append(
                    MemoryFile(
                        path: "\(folder)_20250101.jsonl", feed: feed, host: host, lines: Array(rows[..<half]), ending: "\r\n",
                        tail: "{\"ts\":17"))
                files.append(MemoryFile(path: "\(folder)_20250102.jsonl", feed: feed, host: host, lines: Array(rows[half...])))
            }
        }
    }

    // swift-format-ignore: AlwaysUseLowerCamelCase
    private struct Row: Decodable {
        var ts: Int64
        var symbol: String
        var side: String?
        var price: Decimal?
        var qty: Decimal?
        var taker: Bool?
        var quote_price: Decimal?
        var mid_now: Decimal?
        var fill_id: Int?
        var fee_bps: Decimal?
        var mid_5s: Decimal?
        var tick_total_ms: Decimal?
        var cache_hit: Bool?
        var cache_age_ms: Decimal?
        var used_stale: Bool?
        var deadline_miss: Bool?
        var weight: Int?
        var from_ts: Int64?
        var span_ms: Int?
        var features: [String: Decimal?]?
        var counts: [String: Int]?
        var sums: [String: Decimal]?
        var tick_ns_histogram: [[Int]]?
        var host: String
        var epoch: String
        var seq: Int
    }

    static func rounded(_ value: Decimal, _ places: Int) -> Decimal {
        var input = value
        var output = Decimal()
        NSDecimalRound(&output, &input, places, .bankers)
        return output
    }

    /// (interval start, symbol) -> what the dataset must say.
    func expected() throws -> [String: DecodedDataset.Interval] {
        var seen: [String: [String]] = [:]
        var rows: [(feed: Feed, row: Row, identity: String)] = []
        for file in files {
            for line in file.lines {
                guard let row = try? JSONDecoder().decode(Row.self, from: Data(line.utf8)) else { continue }
                let identity = "\(row.host) \(row.epoch) \(file.feed) \(row.seq)"
                if seen[identity, default: []].contains(line) { continue }
                seen[identity, default: []].append(line)
                rows.append((file.feed, row, identity))
            }
        }
        var groups: [String: [(feed: Feed, row: Row, identity: String)]] = [:]
        for item in rows where item.feed != .markouts {
            let time = item.row.from_ts ?? item.row.ts
            guard time >= Self.start, time < Self.start + Self.length else { continue }
            groups["\((time / 300_000) * 300) \(item.row.symbol)", default: []].append(item)
        }
        var markouts: [String: Row] = [:]
        for item in rows where item.feed == .markouts && item.row.ts >= Self.start && item.row.ts < Self.start + Self.length + 60_000 {
            let key = "\(item.row.host) \(item.row.fill_id!)"
            if markouts[key]?.mid_5s == nil { markouts[key] = item.row }
        }
        return groups.mapValues { group in
            func ratio(_ a: Decimal, _ b: Decimal) -> Decimal? { b == 0 ? nil : Self.rounded(a / b, 9) }
            func sum(_ values: [Decimal]) -> Decimal { values.reduce(0, +) }
            let fills = group.filter { $0.feed == .fills }.map(\.row)
            let ticks = group.filter { $0.feed == .ticks }.map(\.row)
            let snapshots = group.filter { $0.feed == .snapshots }.map(\.row)
            func notional(_ row: Row) -> Decimal { Self.rounded(row.price! * row.qty!, 8) }
            func sign(_ row: Row) -> Decimal { row.side == "BUY" ? 1 : -1 }
            func slip(_ row: Row) -> Decimal { Self.rounded(sign(row) * (row.price! - row.quote_price!) * 10_000 / row.quote_price!, 6) }
            let nets = fills.compactMap { row -> (Decimal, Decimal)? in
                guard let mid = markouts["\(row.host) \(row.fill_id!)"]?.mid_5s, let fee = row.fee_bps else { return nil }
                return (Self.rounded(sign(row) * (mid - row.price!) * 10_000 / row.mid_now!, 6) - Self.rounded(fee, 6), notional(row))
            }
            func weight(_ row: Row) -> Decimal { Decimal(row.weight!) }
            let all = sum(ticks.map(weight))
            let totals = ticks.flatMap { row in Array(repeating: row.tick_total_ms!, count: row.weight!) }.sorted()
            let aged = ticks.filter { $0.cache_age_ms != nil }
            func mean(_ name: String) -> Decimal? {
                let known = snapshots.compactMap { row in row.features![name]!.map { ($0, Decimal(row.span_ms!)) } }
                return ratio(sum(known.map { $0.0 * $0.1 }), sum(known.map(\.1)))
            }
            func counts(_ name: String) -> Decimal { sum(snapshots.map { Decimal($0.counts![name]!) }) }
            func sums(_ name: String) -> Decimal { sum(snapshots.map { $0.sums![name]! }) }
            let edges = snapshots.flatMap { $0.tick_ns_histogram! }.flatMap {
                Array(repeating: LatencyBuckets.upperEdge(of: $0[0]), count: $0[1])
            }.sorted()
            var flags: [String] = []
            if group.contains(where: { seen[$0.identity]!.count > 1 }) { flags.append("seq_conflict") }
            if nets.count < fills.count { flags.append("markouts_missing") }
            if ticks.count < 10 { flags.append("filtered:min_samples") }
            let misses = sum(ticks.filter { $0.deadline_miss! }.map(weight))
            if misses > all * Decimal(string: "0.05")! { flags.append("filtered:deadline_miss") }
            return DecodedDataset.Interval(
                symbol: group[0].row.symbol, host: nil, interval_start: "",
                targets: [
                    "net_bps": ratio(sum(nets.map { $0.0 * $0.1 }), sum(nets.map(\.1))),
                    "slippage_bps": ratio(sum(fills.map { slip($0) * notional($0) }), sum(fills.map(notional))),
                    "fill_rate": ratio(counts("filled_orders"), counts("quotes")),
                    "taker_share": ratio(Decimal(fills.count { $0.taker! }), Decimal(fills.count)),
                ],
                features: [
                    "latency_p95_ms": totals.isEmpty ? nil : totals[min(totals.count - 1, totals.count * 95 / 100)],
                    "cache_hit_ratio": ratio(sum(ticks.filter { $0.cache_hit! }.map(weight)), all),
                    "cache_age_avg_ms": ratio(sum(aged.map { $0.cache_age_ms! * weight($0) }), sum(aged.map(weight))),
                    "deadline_miss_rate": ratio(misses, all), "stale_rate": ratio(sum(ticks.filter { $0.used_stale! }.map(weight)), all),
                    "vol_realized": mean("vol_realized"), "liq_top_depth": mean("liq_top_depth"), "pnl_dev": mean("pnl_dev"),
                    "queue_absorb_rate": mean("queue_absorb_rate"), "queue_eta_ms": mean("queue_eta_ms"),
                    "fill_rate": ratio(counts("filled_orders"), counts("quotes")),
                    "taker_share": ratio(counts("taker_fills"), counts("fills")),
                    "slippage_bps": ratio(sums("slip_x_notional"), sums("fill_notional")),
                    "adverse_move_bps": ratio(sums("adverse_x_notional"), sums("markout_notional")),
                    "latency_p95": edges.isEmpty ? nil : Decimal(edges[min(edges.count - 1, edges.count * 95 / 100)]) / 1_000_000,
                ],
                sample_count: [
                    "fills": fills.count, "ticks": ticks.count, "markouts": nets.count, "snapshots": snapshots.count, "quotes": 0,
                ],
                actions: [:], flags: flags)
        }
    }
}

@Suite struct DatasetTests {
    static let arguments = DatasetArguments(from: FeedWorld.start, to: FeedWorld.start + FeedWorld.length, keepsFiltered: true)

    /// Random feeds with duplicates, conflicts, rows on edges, bad lines, CRLF, blank lines and torn tails, of two hosts: every number is
    /// that of a naive recomputation in decimal arithmetic.
    @Test(arguments: 1...12) func equalsTheNaiveComputation(seed: UInt64) throws {
        let world = FeedWorld(seed: seed)
        let documents = try buildDataset(world.files, Self.arguments)
        let dataset = try DecodedDataset(documents.dataset)
        var expected = try world.expected()
        #expect(dataset.total_intervals == expected.count)
        #expect(dataset.filtered_count == expected.values.count { $0.flags.contains { $0.hasPrefix("filtered:") } })
        #expect(dataset.hosts == ["edge-a", "edge-b"])
        #expect(documents.rejectedLines == 8 * 5 + 8)
        var marked = 0
        for interval in dataset.intervals {
            let start = try Date(interval.interval_start, strategy: .iso8601).timeIntervalSince1970
            let oracle = try #require(expected["\(Int(start)) \(interval.symbol)"])
            expected["\(Int(start)) \(interval.symbol)"] = nil
            #expect(interval.targets == oracle.targets)
            #expect(interval.features == oracle.features)
            #expect(interval.sample_count == oracle.sample_count)
            #expect(interval.flags == oracle.flags)
            marked += interval.sample_count["markouts"] ?? 0
        }
        #expect(expected.isEmpty)
        #expect(marked > 50)
    }

    @Test func bytesAreTheSame_whateverTheOrderOfFilesAndRowsAndTheChunks() throws {
        var world = FeedWorld(seed: 99)
        let first = try buildDataset(world.files, Self.arguments)
        var random = SeededRandom(seed: 5)
        for round in 0..<4 {
            world.files.shuffle(using: &random)
            for index in world.files.indices where round > 1 { world.files[index].lines.shuffle(using: &random) }
            let again = try buildDataset(
                world.files, Self.arguments, chunk: [64, 4096, 70_001, 1 << 20][round], parts: round + 1,
                piece: [nil, 5000, 20_000, 100][round])
            #expect(again.dataset == first.dataset)
            if round < 2 { #expect(again.manifest(datasetName: "d", sha256: "s") == first.manifest(datasetName: "d", sha256: "s")) }
        }
    }

    /// However the bytes are shared out, the documents are the same: with every identity once, so that several parts may stand.
    @Test(arguments: 1...4) func documentsAreTheSame_whateverThePiecesAndParts(seed: UInt64) throws {
        var files = FeedWorld(seed: seed).files
        var seen: Set<String> = []
        for index in files.indices {
            let (feed, host) = (files[index].feed, files[index].host ?? "")
            files[index].lines.removeAll { line in
                guard let seq = line.firstRange(of: "\"seq\":") else { return false }
                return !seen.insert("\(feed) \(host) \(line[seq.lowerBound...])").inserted
            }
        }
        let whole = try buildDataset(files, Self.arguments)
        for (parts, piece, chunk) in [(1, 9_000, 1 << 20), (3, 1_000, 1 << 20), (2, 40_000, 5_000), (4, 77_777, 70_001)] {
            let pieces = try buildDataset(files, Self.arguments, chunk: chunk, parts: parts, piece: piece)
            #expect(pieces.dataset == whole.dataset)
            #expect(pieces.manifest(datasetName: "d", sha256: "s") == whole.manifest(datasetName: "d", sha256: "s"))
        }
    }

    @Test func rowsOfTheSeedsForm() throws {
        let files = [
            MemoryFile(path: "fills_20250101.jsonl", feed: .fills, lines: [FeedScannerTests.fill, FeedScannerTests.fill]),
            MemoryFile(path: "pipeline_ticks_20250101.jsonl", feed: .ticks, lines: Array(repeating: FeedScannerTests.tick, count: 20)),
        ]
        let dataset = try DecodedDataset(try buildDataset(files, Self.arguments).dataset)
        let interval = try #require(dataset.intervals.first)
        #expect(dataset.source == "seed" && dataset.hosts == ["local"] && dataset.watermarks.isEmpty)
        // (50002 - 50000) / 50002 * 1e4 and (50000 - 50001) / 50001 * 1e4, to 1e-6.
        #expect(
            interval.targets == [
                "net_bps": Decimal(string: "0.399984"), "slippage_bps": Decimal(string: "-0.199996"), "fill_rate": Decimal(string: "0.1"),
                "taker_share": 0,
            ])
        #expect(interval.flags == ["basis:ticks", "basis:mid_now"])
        #expect(interval.sample_count["fills"] == 2)
        #expect(interval.features.filter { $0.value == nil }.count == 10)
    }

    @Test func bothFormsInOneBuild_areRefused() throws {
        let ours = FeedScannerTests.fill.dropLast() + #","v":1,"source":"sim","host":"a","epoch":"0000000000000001","seq":1}"#
        let files = [MemoryFile(path: "f", feed: .fills, lines: [FeedScannerTests.fill, String(ours)])]
        #expect(throws: DatasetRefusal.mixedForms(ours: "f:2", seed: "f:1")) { try buildDataset(files, Self.arguments) }
    }

    @Test func mixedSourcesAreRefused_untilOneIsChosen() throws {
        let lines = ["live", "replay"].enumerated().map {
            String(FeedScannerTests.fill.dropLast())
                + #","v":1,"source":"\#($0.element)","host":"a","epoch":"0000000000000001","seq":\#($0.offset)}"#
        }
        let files = [MemoryFile(path: "f", feed: .fills, lines: lines)]
        #expect(throws: DatasetRefusal.mixedSources(["live", "replay"])) { try buildDataset(files, Self.arguments) }
        var chosen = Self.arguments
        chosen.source = .replay
        let dataset = try DecodedDataset(try buildDataset(files, chosen).dataset)
        #expect(dataset.source == "replay" && dataset.intervals.first?.sample_count["fills"] == 1)
        #expect(throws: DatasetRefusal.noRows) { try buildDataset([], Self.arguments) }
    }

    @Test func filteredIntervalsLeave_unlessTheyAreKept() throws {
        let miss = FeedScannerTests.tick.replacing("\"deadline_miss\":false", with: "\"deadline_miss\":true")
        func build(ticks: Int, misses: Int, keeps: Bool) throws -> DecodedDataset {
            let lines = Array(repeating: FeedScannerTests.tick, count: ticks - misses) + Array(repeating: miss, count: misses)
            var arguments = Self.arguments
            arguments.keepsFiltered = keeps
            return try DecodedDataset(try buildDataset([MemoryFile(path: "t", feed: .ticks, lines: lines)], arguments).dataset)
        }
        #expect(try build(ticks: 10, misses: 0, keeps: false).intervals.count == 1)
        #expect(try build(ticks: 9, misses: 0, keeps: false).intervals.isEmpty)
        #expect(try build(ticks: 20, misses: 1, keeps: false).intervals.count == 1)  // 5 % is not above 5 %.
        let dropped = try build(ticks: 20, misses: 2, keeps: false)
        #expect(dropped.intervals.isEmpty && dropped.total_intervals == 1 && dropped.filtered_count == 1)
        #expect(try build(ticks: 20, misses: 2, keeps: true).intervals.first?.flags.last == "filtered:deadline_miss")
    }

    @Test func rowsWithoutIdentityAreNeverDeduplicated_andGapsAreCounted() throws {
        func row(_ rest: String) -> String { FeedScannerTests.tick.dropLast() + #","v":1,"source":"sim""# + rest + "}" }
        func numbered(_ seq: Int) -> String { row(#","host":"a","epoch":"0000000000000001","seq":\#(seq)"#) }
        let lines = [row(""), row(""), numbered(5), numbered(5), numbered(9)]
        let dataset = try DecodedDataset(try buildDataset([MemoryFile(path: "t", feed: .ticks, lines: lines)], Self.arguments).dataset)
        #expect(dataset.intervals.first?.sample_count["ticks"] == 4)
        #expect(dataset.watermarks == [.init(host: "a", feed: "pipeline_ticks", seq: 9, missing: 3, conflicts: 0)])
    }

    /// Three rows under one identity, one of them outside the range: counts and flags are the same in any order.
    @Test func conflictsCountTheSame_inAnyOrder() throws {
        func row(_ ts: Int64) -> String {
            FeedScannerTests.tick.replacing("1735689600000", with: "\(ts)").dropLast()
                + #","v":1,"source":"sim","host":"a","epoch":"0000000000000001","seq":1}"#
        }
        let rows = [row(FeedWorld.start), row(FeedWorld.start - 1), row(FeedWorld.start + 300_000)]
        for order in [[0, 1, 2], [1, 2, 0], [2, 1, 0], [1, 0, 2]] {
            let lines = order.map { String(rows[$0]) }
            let dataset = try DecodedDataset(try buildDataset([MemoryFile(path: "t", feed: .ticks, lines: lines)], Self.arguments).dataset)
            #expect(dataset.watermarks.map(\.conflicts) == [2])
            #expect(dataset.intervals.map { $0.flags.contains("seq_conflict") } == [true, true])
        }
    }

    @Test func armBIsLeftOut_unlessAskedFor() throws {
        let lines = ["A", "B", "B"].map { (arm: String) -> String in FeedScannerTests.tick.dropLast() + #","arm":"\#(arm)"}"# }
        for (arm, ticks) in [(DatasetArguments.Arm.a, 1), (.b, 2), (nil, 3)] as [(DatasetArguments.Arm?, Int)] {
            var arguments = Self.arguments
            arguments.arm = arm
            let dataset = try DecodedDataset(try buildDataset([MemoryFile(path: "t", feed: .ticks, lines: lines)], arguments).dataset)
            #expect(dataset.intervals.map { $0.sample_count["ticks"] } == [ticks])
        }
    }

    @Test func hostsStayApart_whenAskedFor() throws {
        let files = ["b", "a"].map { (host: String) -> MemoryFile in
            MemoryFile(path: "host=\(host)/t", feed: .ticks, host: host, lines: [FeedScannerTests.tick])
        }
        var arguments = Self.arguments
        #expect(try DecodedDataset(try buildDataset(files, arguments).dataset).intervals.map(\.host) == [nil])
        arguments.isPerHost = true
        #expect(try DecodedDataset(try buildDataset(files, arguments).dataset).intervals.map(\.host) == ["a", "b"])
    }

    @Test func everyFileNameStem() {
        #expect(DatasetFormat.stem(from: FeedWorld.start, to: FeedWorld.start + 86_400_000) == "calib_20250101_000000_20250102_000000")
    }
}

@Suite struct SummaryTests {
    @Test func summaryTellsWhatTheDatasetHolds() throws {
        let documents = try buildDataset(FeedWorld(seed: 4).files, DatasetTests.arguments)
        let text = String(decoding: try documents.dataset.withUnsafeBytes { try Summary.markdown(of: $0, stem: "calib_x") }, as: UTF8.self)
        for heading in [
            "# Calibration Summary: calib_x", "## Overview", "## Intervals by symbol", "## Target distributions",
            "## Feature distributions", "## Data quality",
        ] {
            #expect(text.contains(heading + "\n"))
        }
        for column in ["net_bps | bps", "latency_p95_ms | ms", "liq_top_depth | base asset", "fill_rate | ratio"] {
            #expect(text.contains("| \(column) |"))
        }
        #expect(
            !text.split(separator: "\n").contains { $0.contains("_") && $0.split(separator: " ").dropFirst(2).prefix(2) == ["|", "-"] })
        #expect(text.components(separatedBy: "q-quantile").count == 2)
    }

    @Test func distributionsFollowTheOneQuantileRule() throws {
        let intervals = [1, 2, 3, 4, 5].map { #"{"symbol":"A","targets":{"net_bps":0.\#($0)},"features":{},"flags":[]}"# }
        let text =
            #"{"from_ts":"a","to_ts":"b","interval_sec":300,"total_intervals":5,"filtered_count":0,"intervals":[\#(intervals.joined(separator: ",")),"#
            + #"{"symbol":"A","targets":{"net_bps":null},"features":{},"flags":[]},{"symbol":"B","targets":{"net_bps":9.0},"flags":["filtered:min_samples"]}]}"#
        let report = String(decoding: try Array(text.utf8).withUnsafeBytes { try Summary.markdown(of: $0, stem: "s") }, as: UTF8.self)
        // n = 5: places 2, 1, 3 and 4; variance 0.025.
        #expect(report.contains("| net_bps | bps | 5 | 0.3 | 0.3 | 0.158114 | 0.1 | 0.5 | 0.2 | 0.4 | 0.5 |"))
        #expect(report.contains("| targets.net_bps | 1 | 16.7 % |"))
        #expect(!report.contains("| B |"))
    }

    /// The page has the report's figures: those of a distribution with as many decimals as leave six digits to its greatest, all of them alike.
    @Test func thePageShowsWhatTheReportTells_andWritesNoNameAsMarkup() throws {
        let intervals = [1, 2, 3, 4, 5].map {
            #"{"symbol":"<b>A&B","targets":{"net_bps":-0.\#($0)},"features":{"queue_eta_ms":1234.\#($0)},"flags":["partial"]}"#
        }
        let text =
            #"{"from_ts":"<i>","to_ts":"b","interval_sec":300,"total_intervals":6,"filtered_count":1,"hosts":["<h>"],"watermarks":["#
            + #"{"host":"<h>","feed":"fills","rows":3,"missing":7,"conflicts":2}],"intervals":[\#(intervals.joined(separator: ","))]}"#
        let page = String(decoding: try Array(text.utf8).withUnsafeBytes { try Summary.html(of: $0, stem: "<s>") }, as: UTF8.self)
        func cells(_ first: String) throws -> [String] {
            let row = try #require(page.split(separator: "\n").first { $0.hasPrefix("<tr><td>\(first)</td>") }, "\(first)")
            return row.components(separatedBy: "</td>").dropLast().map { $0.split(separator: ">").last.map(String.init) ?? "" }
        }
        #expect(
            try cells("net_bps").dropFirst(3)
                == ["5", "-0.300000", "-0.300000", "0.158114", "-0.500000", "-0.100000", "-0.400000", "-0.200000", "-0.100000"])
        #expect(
            try cells("queue_eta_ms").dropFirst(3)
                == ["5", "1234.30", "1234.30", "0.16", "1234.10", "1234.50", "1234.20", "1234.40", "1234.50"])
        // Five values in five of twenty bins, each of the same height.
        let picture = try #require(page.split(separator: "\n").first { $0.contains("Histogram of net_bps") })
        #expect(picture.components(separatedBy: " height=26 />").count == 6)
        #expect(try cells("&lt;b&gt;A&amp;B").prefix(3) == ["&lt;b&gt;A&amp;B", "5", "100.0 %"])
        #expect(page.contains("<tr><td>&lt;h&gt;</td><td>fills</td><td class=n>3</td><td class=n>7</td><td class=n>2</td></tr>"))
        #expect(page.contains("<tr><td>&lt;h&gt;</td><td>pipeline_ticks, markouts, feature_snapshots, quotes</td></tr>"))
        #expect(try cells("partial")[1] == "5")
        for markup in ["<b>", "<i>", "<h>", "<s>"] { #expect(!page.contains(markup)) }
    }

    private static func report(_ members: String) throws -> String {
        let text = #"{"from_ts":"a","to_ts":"b","interval_sec":300,"total_intervals":1,"filtered_count":1,\#(members)}"#
        return String(decoding: try Array(text.utf8).withUnsafeBytes { try Summary.markdown(of: $0, stem: "s") }, as: UTF8.self)
    }

    /// A single host is compared with the feeds a dataset is made of, not with what other hosts have.
    @Test func singleHostCanMissFeeds() throws {
        let streams = ["fills", "pipeline_ticks", "quotes"].map { #"{"host":"a","feed":"\#($0)","rows":3,"missing":0,"conflicts":0}"# }
        let report = try Self.report(#""hosts":["a"],"watermarks":[\#(streams.joined(separator: ","))],"intervals":[]"#)
        #expect(report.contains("### Missing feeds by host\n\n- a: markouts, feature_snapshots\n"))
        #expect(report.contains("### Sequence gaps and conflicts\n\nNone.\n"))
    }

    @Test func seedFormHasTwoFeeds() throws {
        func report(fills: Int) throws -> String {
            try Self.report(
                #""source":"seed","hosts":["a"],"watermarks":[],"intervals":[{"symbol":"A","sample_count":{"fills":\#(fills),"ticks":9}}]"#)
        }
        #expect(try report(fills: 0).contains("### Missing feeds by host\n\n- all hosts: fills\n"))
        #expect(try report(fills: 1).contains("### Missing feeds by host\n\nNone.\n"))
    }

    @Test func nothingKeptIsSaid_notShownAsEmptyTables() throws {
        let report = try Self.report(#""hosts":[],"intervals":[{"symbol":"A","flags":["filtered:min_samples"]}]"#)
        #expect(report.components(separatedBy: "No interval was kept.").count == 4)
        #expect(!report.contains("| Name |") && !report.contains("| Symbol |"))
        #expect(report.contains("| filtered:min_samples | 1 | fewer tick rows"))
    }

    @Test(arguments: ["", "[]", "{}", "{\"intervals\":[]}", "{\"intervals\":NaN}", "{\"intervals\":[1]}", "{\"hosts\":7}"])
    func otherTextIsRefused(_ text: String) {
        #expect(throws: Summary.Failure.self) { try Array(text.utf8).withUnsafeBytes { try Summary.markdown(of: $0, stem: "s") } }
    }
}
