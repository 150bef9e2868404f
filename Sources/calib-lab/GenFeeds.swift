import ArgumentParser
import CalibModel
import Glibc
import NodeShell
import Simulation
import Wire

/// `calib-lab gen`: input files from a seed.
struct Gen: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Makes input files from a seed.", subcommands: [Feeds.self])

    struct Feeds: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Feed files, as many and as damaged as asked for.",
            discussion: """
                Each symbol of each host has a tick row a second and a fill row in ten seconds; our form has markouts, snapshots and quotes, too. \
                The same arguments give the same bytes. With --dirty one line in 200 has one of 23 faults, and files end in the middle of a row.
                """)

        @Option(help: "Folder the files are written to; it must not exist.") var output: String
        @Option(help: "Hosts; each has a folder.") var hosts = 4
        @Option(help: "Symbols of each host.") var symbols = 12
        @Option(help: "Hours from the beginning of the day on.") var hours = 24
        @Option(help: "Begin, YYYYMMDD.") var day = "20250101"
        @Option(help: "Of the random numbers.") var seed: UInt64 = 1
        @Flag(help: "The first program's two feeds and fields.") var seedForm = false
        @Flag(help: "Faulty lines among the good ones.") var dirty = false
        @Flag(help: "Blanks behind colons and commas, as Python writes them.") var spaced = false
        @Option(help: "Significant digits of prices and milliseconds: 0 as a venue prints them, or 15.") var digits = 0

        func validate() throws {
            guard (1...64).contains(hosts), (1...1000).contains(symbols), (1...240).contains(hours) else {
                throw ValidationError("--hosts is from 1 to 64, --symbols from 1 to 1000, --hours from 1 to 240")
            }
            guard digits == 0 || digits == 15 else { throw ValidationError("--digits is 0 or 15") }
            guard CalendarDay(compactText: day[...]) != nil else { throw ValidationError("--day is YYYYMMDD") }
        }

        func run() throws {
            guard mkdir(output, 0o755) == 0 else {
                note("calib-lab: cannot make folder '\(output)': errno \(errno); it must not exist yet")
                throw ExitCode(1)
            }
            guard let day = CalendarDay(compactText: day[...]) else { throw ExitCode(1) }
            var rows: Int64 = 0
            for host in 0..<hosts {
                var writer = FeedRowWriter(
                    host: "edge-\(host + 1)", symbols: symbols, seed: seed &+ UInt64(host) &* 1_000_003, isSeedForm: seedForm,
                    isDirty: dirty,
                    isSpaced: spaced, hasLongNumbers: digits == 15)
                rows += try writer.write(to: "\(output)/host=edge-\(host + 1)", day: day, hours: hours)
            }
            print("\(rows) lines")
        }
    }
}

/// One host's rows, second by second.
private struct FeedRowWriter {
    let host: String
    let symbols: Int
    let isSeedForm: Bool
    let isDirty: Bool
    let hasLongNumbers: Bool
    private let comma: String
    private let colon: String
    private var random: SplitMix64
    private var sequence: [Feed: Int64] = [:]
    private var text: [Feed: [UInt8]] = [:]
    private var lines: Int64 = 0

    init(host: String, symbols: Int, seed: UInt64, isSeedForm: Bool, isDirty: Bool, isSpaced: Bool, hasLongNumbers: Bool) {
        self.host = host
        self.symbols = symbols
        self.isSeedForm = isSeedForm
        self.isDirty = isDirty
        self.hasLongNumbers = hasLongNumbers
        comma = isSpaced ? ", " : ","
        colon = isSpaced ? ": " : ":"
        random = SplitMix64(state: seed)
    }

    mutating func write(to folder: String, day: CalendarDay, hours: Int) throws -> Int64 {
        guard mkdir(folder, 0o755) == 0 else { throw FileError(.create, folder, errorNumber: errno, remedy: "is the disk full?") }
        for hour in 0..<hours {
            let base = day.number * 86_400_000 + Int64(hour) * 3_600_000
            for second in 0..<3600 {
                for symbol in 0..<symbols { addRows(symbol: symbol, at: base + Int64(second) * 1000, second: second) }
            }
            let today = CalendarDay(number: day.number + Int64(hour / 24))
            for (feed, bytes) in text {
                try append(
                    bytes + (isDirty && hour % 24 == 23 || isDirty && hour == hours - 1 ? Array(#"{"ts": 173"#.utf8) : []),
                    to: "\(folder)/\(FeedFileName.text(feed, today))")
            }
            text = [:]
        }
        return lines
    }

    private func append(_ bytes: [UInt8], to path: String) throws(FileError) {
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw FileError(.create, path, errorNumber: errno, remedy: "is the disk full?") }
        defer { close(file) }
        var start = 0
        while start < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + start, bytes.count - start) }
            guard count > 0 else { throw FileError(.write, path, errorNumber: errno, remedy: "is the disk full?") }
            start += count
        }
    }

    // MARK: Rows

    private mutating func below(_ limit: Int64) -> Int64 { Int64(random.next() % UInt64(limit)) }

    /// A decimal of `range` in 10^-places.
    private mutating func decimal(_ range: ClosedRange<Int64>, _ places: Int) -> String {
        var value = range.lowerBound + below(range.upperBound - range.lowerBound + 1)
        var places = places
        if hasLongNumbers {
            // More digits behind: 15 significant ones in all.
            while value.magnitude < 100_000_000_000_000, places < 15 {
                value = value * 10 + (value < 0 ? -1 : 1) * below(10)
                places += 1
            }
        }
        let sign = value < 0 ? "-" : ""
        let digits = String(value.magnitude)
        let padded = digits.utf8.count > places ? digits : String(repeating: "0", count: places + 1 - digits.utf8.count) + digits
        return "\(sign)\(padded.dropLast(places)).\(padded.suffix(places))"
    }

    private typealias Fields = [(String, String)]

    private mutating func add(_ feed: Feed, _ fields: Fields) {
        var fields = fields
        if !isSeedForm {
            let common: Fields = [
                ("arm", #""A""#), ("arm_why", #""none""#), ("experiment", "null"), ("block", "null"),
                ("config_hash", #""00c0ffee00c0ffee""#), ("v", "1"),
                ("source", #""sim""#), ("venue", #""sim""#), ("host", "\"\(host)\""), ("epoch", #""00000000000000a1""#),
                ("seq", "\(sequence[feed, default: 0])"),
            ]
            fields += common
            sequence[feed, default: 0] += 1
        }
        let line = "{" + fields.map { "\"\($0.0)\"\(colon)\($0.1)" }.joined(separator: comma) + "}"
        if isDirty, below(200) == 0 {
            text[feed, default: []] += Self.fault(Int(below(23)), line) + [0x0a]
            lines += 1
        }
        text[feed, default: []] += Array(line.utf8) + [0x0a]
        lines += 1
    }

    private mutating func addRows(symbol: Int, at second: Int64, second number: Int) {
        let ts = second + below(1000)
        let opening: Fields = [("ts", "\(ts)"), ("ts_iso", "\"\(TimeText.milliseconds(ts))\""), ("symbol", "\"SYM\(symbol)USDT\"")]
        let isMiss = below(400) == 0
        let stages = ["FetchMDStage", "SpreadStage", "GuardsStage", "InventoryStage", "QueueAwareStage", "EmitStage"]
            .map { "\"\($0)\"\(colon)\(decimal(100...15_000, 3))" }.joined(separator: comma)
        let tick: Fields = [
            ("stage_latencies", "{\(stages)}"), ("stage_p95_ms", decimal(100...20_000, 3)),
            ("tick_total_ms", isMiss ? decimal(150_000...400_000, 3) : decimal(5_000...140_000, 3)),
            ("cache_hit", below(4) > 0 ? "true" : "false"),
            ("cache_age_ms", below(50) == 0 ? "null" : "\(below(200))"), ("used_stale", below(8) == 0 ? "true" : "false"),
            ("deadline_miss", isMiss ? "true" : "false"),
        ]
        let more: Fields = [("tick", "\(number * 10)"), ("weight", isMiss ? "1" : "10"), ("halted", "false")]
        add(.ticks, opening + tick + (isSeedForm ? [] : more))
        if number % 10 == symbol % 10 { addFill(opening, ts) }
        if !isSeedForm, number % 10 == 9 { addSnapshot(symbol, ts) }
    }

    private mutating func addFill(_ opening: [(String, String)], _ ts: Int64) {
        let isBuy = below(2) == 0
        let isTaker = below(12) == 0
        let id = sequence[.fills, default: 0]
        let fill: Fields = [
            ("side", isBuy ? #""BUY""# : #""SELL""#), ("price", decimal(4_990_000...5_010_000, 2)), ("qty", decimal(10...5_000, 4)),
            ("maker", isTaker ? "false" : "true"), ("taker", isTaker ? "true" : "false"),
            ("queue_pos_est", below(9) == 0 ? "null" : "\(below(40))"),
            ("quote_price", decimal(4_990_000...5_010_000, 2)), ("mid_at_quote", decimal(49_900_000...50_100_000, 3)),
            ("mid_now", decimal(49_900_000...50_100_000, 3)), ("spread_at_quote_bps", decimal(50...400, 2)),
            ("latency_ms", decimal(1_000...900_000, 3)),
            ("slip_bps", decimal(-3_000...3_000, 3)),
        ]
        let more: Fields = [("fill_id", "\(id)"), ("order_id", "\"R-\(id)\""), ("fee_bps", decimal(-100...500, 2))]
        add(.fills, opening + fill + (isSeedForm ? [] : more))
        guard !isSeedForm else { return }
        add(
            .markouts,
            [
                ("ts", "\(ts + 30_000)"), ("ts_iso", "\"\(TimeText.milliseconds(ts + 30_000))\""), opening[2], ("fill_id", "\(id)"),
                ("fill_ts", "\(ts)"),
                ("mid_1s", decimal(49_900_000...50_100_000, 3)), ("mid_5s", below(40) == 0 ? "null" : decimal(49_900_000...50_100_000, 3)),
                ("mid_30s", "null"), ("net_bps", decimal(-300...300, 2)),
            ])
        let quote: Fields =
            [
                ("side", isBuy ? #""BUY""# : #""SELL""#), ("order_id", "\"R-\(id)\""), ("price", decimal(4_990_000...5_010_000, 2)),
                ("qty", "0.01"),
                ("depth_bps", decimal(0...200, 2)), ("half_spread_bps", decimal(30...120, 2)), ("skew_bps", decimal(-60...60, 2)),
                ("nudge_bps", decimal(0...50, 2)), ("queue_ahead", decimal(0...900, 2)), ("resting_ms", decimal(100...90_000, 1)),
                ("outcome", #""filled""#), ("vol_realized", decimal(50...200, 2)), ("propensity", "1.0"), ("weight", "1"),
            ]
        add(.quotes, opening + quote)
    }

    private mutating func addSnapshot(_ symbol: Int, _ ts: Int64) {
        let from = ts - ts % 10_000
        let buckets = (0..<20).map { "[\(700 + $0 * 40 + Int(below(40)))\(comma)\(1 + below(9))]" }.joined(separator: comma)
        func object(_ members: [(String, String)]) -> String {
            "{" + members.map { "\"\($0.0)\"\(colon)\($0.1)" }.joined(separator: comma) + "}"
        }
        add(
            .snapshots,
            [
                ("ts", "\(from + 10_000)"), ("ts_iso", "\"\(TimeText.milliseconds(from + 10_000))\""), ("symbol", "\"SYM\(symbol)USDT\""),
                ("from_ts", "\(from)"), ("span_ms", "10000"),
                (
                    "features",
                    object([
                        ("vol_realized", decimal(50...200, 2)), ("liq_top_depth", decimal(100...9_000, 3)),
                        ("pnl_dev", decimal(-90...90, 2)),
                        ("queue_absorb_rate", decimal(10...900, 2)), ("queue_eta_ms", below(9) == 0 ? "null" : decimal(100...90_000, 1)),
                    ])
                ),
                (
                    "counts",
                    object([
                        ("ticks", "120"), ("quotes", "\(1 + below(9))"), ("fills", "1"), ("filled_orders", "1"),
                        ("taker_fills", "\(below(2))"),
                    ])
                ),
                (
                    "sums",
                    object([
                        ("fill_notional", decimal(1_000...900_000, 2)), ("slip_x_notional", decimal(-9_000...9_000, 2)),
                        ("markout_notional", decimal(1_000...900_000, 2)), ("adverse_x_notional", decimal(-9_000...9_000, 2)),
                    ])
                ), ("tick_ns_histogram", "[\(buckets)]"),
            ])
    }

    // MARK: Faults

    /// A line that is no row, or one that looks wrong and is none the worse for it (blank lines, CRLF).
    private static func fault(_ kind: Int, _ line: String) -> [UInt8] {
        let bytes = Array(line.utf8)
        func with(_ field: String, _ value: String) -> [UInt8] { Array((line.dropLast() + ",\"\(field)\":\(value)}").utf8) }
        func changed(_ names: [String], _ value: String) -> [UInt8] {
            for name in names {
                guard let key = line.firstRange(of: "\"\(name)\":") else { continue }
                let rest = line[key.upperBound...]
                guard let end = rest.firstIndex(where: { $0 == "," || $0 == "}" }) else { continue }
                return Array((line[..<key.upperBound] + value + line[end...]).utf8)
            }
            return with("unread", value)
        }
        let numbers = ["price", "tick_total_ms", "mid_5s", "span_ms", "half_spread_bps"]
        switch kind {
        case 0: return changed(numbers, "NaN")
        case 1: return changed(numbers, "Infinity")
        case 2: return changed(numbers, "-Infinity")
        case 3: return changed(numbers, "1e400")
        case 4: return Array(bytes.dropLast(bytes.count / 3))
        case 5: return bytes + bytes
        case 6: return changed(numbers, "1.")
        case 7: return with("ts", "1")
        case 8: return Array("[1,2,3]".utf8)
        case 9: return Array("42".utf8)
        case 10: return Array("null".utf8)
        case 11: return changed(["symbol"], "7")
        case 12: return Array(line.replacing("\"symbol\"", with: "\"simbol\"").utf8)
        case 13: return changed(numbers, "\"1.5\"")
        case 14: return changed(["taker", "cache_hit", "fill_id"], "1.5")
        case 15: return changed(numbers, "-1")
        case 16: return changed(["ts"], "0")
        case 17: return changed(["ts"], "4102444800000")
        case 18: return Array(#"{"ts":1735689600000,"symbol":"BTCUSDT","note":""#.utf8) + [0xc3, 0x28] + Array(#""}"#.utf8)
        case 19: return Array(line.dropLast().utf8) + Array(",\"pad\":\"\(String(repeating: "x", count: 70_000))\"}".utf8)
        case 20: return []
        case 21: return Array("   \t ".utf8)
        default: return Array(line.replacing("\"ts\"", with: "\"ts\" ").utf8) + [0x0d]
        }
    }
}
