import CalibModel
internal import HubCore
import Wire

/// Lines of feeds, sound and damaged, read three ways: strictly, by a learned form, and by `RowOracle`, which shares nothing with the two.
struct FuzzedRow: ~Copyable {
    private var strict = FeedScanner()
    private var usual = FeedScanner()
    private var tally = FuzzTally()

    static func run(inputs: Int, _ random: inout PRNG) throws(FuzzDisagreement) -> FuzzTally {
        var fuzzed = FuzzedRow()
        while fuzzed.tally.inputs < inputs {
            // The lines that follow are of one layout, as a writer's are.
            let layout = RowLayout(&random)
            let example = layout.line(&random)
            let isSound = example.withUnsafeBytes { line in
                guard fuzzed.strict.scan(line, feed: layout.feed, isTerminated: true) == nil else { return false }
                for _ in 0..<FeedScanner.surprisesMax { fuzzed.usual.learn(from: line, feed: layout.feed) }
                return true
            }
            guard isSound else { throw differ(example, "a sound row of \(layout.feed.rawValue) is refused") }
            for _ in 0..<min(40, inputs - Int(fuzzed.tally.inputs)) { try fuzzed.line(layout, &random) }
        }
        return fuzzed.tally
    }

    private mutating func line(_ layout: RowLayout, _ random: inout PRNG) throws(FuzzDisagreement) {
        var text = layout.line(&random)
        if random.below(4) > 0 { for _ in 0...random.below(4) { FrameDamage.apply(to: &text, &random) } }
        text = Array(text.prefix { $0 != 0x0a })
        if random.below(8) == 0 { text.append(0x0d) }
        let isTerminated = random.below(8) > 0
        let bare = text.last == 0x0d ? text.dropLast() : text
        let expected = RowOracle.read(bare, feed: layout.feed, isTerminated: isTerminated)
        let reason = bare.withUnsafeBytes { strict.scan($0, feed: layout.feed, isTerminated: isTerminated) }
        switch (expected, reason) {
        case (.rejected(let right), let reason):
            guard reason == right else { throw Self.differ(text, "\(layout.feed.rawValue): \(Self.name(reason)), not \(right.name)") }
        case (.row(let row), nil):
            guard row.isEqual(to: strict.row, feed: layout.feed) else {
                throw Self.differ(text, "\(layout.feed.rawValue): the strict reader has other values")
            }
        case (.row, let reason): throw Self.differ(text, "\(layout.feed.rawValue): \(Self.name(reason)), though it is a row")
        }
        try readUsually(text, layout.feed, bare)
        if let reason { tally.reject(reason.name) } else { tally.accept() }
    }

    /// The text lies at the very end of what may be read.
    private mutating func readUsually(_ text: [UInt8], _ feed: Feed, _ bare: [UInt8]) throws(FuzzDisagreement) {
        let bytes = text + [0x0a] + [UInt8](repeating: UInt8(ascii: "9"), count: FeedScanner.overrun)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        let begin = UnsafeRawPointer(buffer.baseAddress!)
        guard let end = usual.scanUsual(at: begin, feed: feed) else { return }
        guard end - begin == text.count + 1, case .row(let row) = RowOracle.read(bare, feed: feed, isTerminated: true),
            row.isEqual(to: usual.row, feed: feed)
        else { throw Self.differ(text, "\(feed.rawValue): read by its form it is another row, or none") }
    }

    private static func name(_ reason: RejectReason?) -> String { reason.map { "\($0.name)" } ?? "a row" }

    private static func differ(_ input: [UInt8], _ text: String) -> FuzzDisagreement {
        FuzzDisagreement(target: .row, input: input, text: text)
    }
}

/// How a writer prints a feed's rows: which fields, in which order, with which blanks.
private struct RowLayout {
    let feed: Feed
    private let names: [String]
    private let comma: String
    private let colon: String

    init(_ random: inout PRNG) {
        feed = Feed.allCases.filter(\.isDatasetInput)[Int(random.below(5))]
        let isSeedForm = (feed == .fills || feed == .ticks) && random.below(2) == 0
        var names = ["ts", "ts_iso", "symbol"] + Self.own(feed, isSeedForm: isSeedForm)
        if !isSeedForm {
            names += ["arm", "arm_why", "experiment", "block", "config_hash", "v", "source", "venue", "host", "epoch", "seq"]
        }
        if random.below(3) == 0 {
            for place in names.indices { names.swapAt(place, Int(random.below(Int64(names.count)))) }
        }
        self.names = names
        (comma, colon) = [(",", ":"), (", ", ": "), (" ,", ":")][Int(random.below(3))]
    }

    private static func own(_ feed: Feed, isSeedForm: Bool) -> [String] {
        switch feed {
        case .fills:
            ["side", "price", "qty", "maker", "taker", "queue_pos_est", "quote_price", "mid_now", "latency_ms", "slip_bps"]
                + (isSeedForm ? [] : ["fill_id", "order_id", "fee_bps"])
        case .ticks:
            ["stage_latencies", "tick_total_ms", "cache_hit", "cache_age_ms", "used_stale", "deadline_miss"]
                + (isSeedForm ? [] : ["weight"])
        case .markouts: ["fill_id", "fill_ts", "mid_1s", "mid_5s", "net_bps"]
        case .snapshots: ["from_ts", "span_ms", "features", "counts", "sums", "tick_ns_histogram"]
        case .quotes: ["half_spread_bps", "skew_bps", "nudge_bps", "resting_ms", "outcome", "weight"]
        case .events: []
        }
    }

    func line(_ random: inout PRNG) -> [UInt8] {
        Array(object(names.map { ($0, value($0, &random)) }).utf8)
    }

    private func object(_ members: [(String, String)]) -> String {
        "{" + members.map { "\"\($0.0)\"\(colon)\($0.1)" }.joined(separator: comma) + "}"
    }

    private func value(_ name: String, _ random: inout PRNG) -> String {
        func one(of values: [String]) -> String { values[Int(random.below(Int64(values.count)))] }
        func decimal(_ random: inout PRNG) -> String {
            func digits(_ count: Int64) -> String { (0..<count).map { _ in "\(random.below(10))" }.joined() }
            let whole = random.below(4) == 0 ? "0" : "\(1 + random.below(9))" + digits(random.below(7))
            guard random.below(6) > 0 else { return whole }
            let fraction = digits(1 + random.below([3, 9, 17][Int(random.below(3))]))
            return "\(whole).\(fraction)1"
        }
        func signed(_ random: inout PRNG) -> String { (random.below(2) == 0 ? "-" : "") + decimal(&random) }
        func integer(_ random: inout PRNG, _ limit: Int64) -> String { "\(random.below(1 << (1 + random.below(limit))))" }
        switch name {
        case "ts", "from_ts", "fill_ts": return "\(1 + random.below(4_102_444_799_999))"
        case "ts_iso": return "\"2025-01-01T00:00:00.\(100 + random.below(900))Z\""
        case "symbol": return one(of: [#""BTCUSDT""#, #""1000PEPEUSDT""#, #""A""#, #""SYMBOLOFSEVENTEEN""#])
        case "side": return one(of: [#""BUY""#, #""SELL""#])
        // Costs and notionals stay below their limits: 1 to 2 currency units, whatever the digits.
        case "price", "quote_price", "mid_now", "mid_1s": return "1.\(1 + random.below(1 << (1 + random.below(40))))"
        case "mid_5s": return one(of: ["null", "1.\(1 + random.below(1 << (1 + random.below(40))))"])
        case "qty": return "\(1 + random.below(99)).\(random.below(1 << (1 + random.below(40))))"
        case "maker", "taker", "cache_hit", "used_stale", "deadline_miss": return one(of: ["true", "false"])
        case "cache_age_ms", "resting_ms": return one(of: ["null", decimal(&random)])
        case "fee_bps", "slip_bps", "skew_bps", "half_spread_bps", "nudge_bps": return "\(random.below(900)).\(random.below(1 << 40))"
        case "net_bps": return one(of: ["null", signed(&random)])
        case "queue_pos_est", "latency_ms", "tick_total_ms": return decimal(&random)
        case "stage_latencies":
            return object(["FetchMDStage", "SpreadStage"].map { ($0, decimal(&random)) })
        case "fill_id", "seq": return integer(&random, 49)
        case "weight": return "\(1 + random.below(1_000_000))"
        case "span_ms": return "\(1 + random.below(3_600_000))"
        case "block": return one(of: ["null", "\(random.below(1 << 31) - 1 << 30)"])
        case "experiment": return one(of: ["null", #""exp-7""#])
        case "arm": return one(of: [#""A""#, #""B""#, "null"])
        case "source": return one(of: [#""live""#, #""sim""#, #""replay""#])
        case "epoch", "config_hash": return "\"00c0ffee00c0ff\(10 + random.below(90))\""
        case "v": return "1"
        case "host": return one(of: [#""edge-1""#, #""a-host-with-a-long-name""#])
        case "features":
            return object(
                [
                    ("vol_realized", decimal(&random)), ("liq_top_depth", decimal(&random)), ("pnl_dev", signed(&random)),
                    ("queue_absorb_rate", "null"), ("queue_eta_ms", decimal(&random)),
                ])
        case "counts":
            return object(["quotes", "fills", "filled_orders", "taker_fills", "returns"].map { ($0, integer(&random, 29)) })
        case "sums":
            return object(
                [
                    ("fill_notional", decimal(&random)), ("slip_x_notional", signed(&random)), ("markout_notional", decimal(&random)),
                    ("adverse_x_notional", signed(&random)),
                ])
        case "tick_ns_histogram":
            let pairs = (0..<random.below(5)).map { _ in "[\(random.below(2000))\(comma)\(random.below(1_000_000_000))]" }
            return "[\(pairs.joined(separator: comma))]"
        default: return #""\#(name)""#
        }
    }
}
