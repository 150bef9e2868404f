import CalibModel
import Wire

/// What `bench edge` prints.
struct EdgeBenchReport {
    let input: String
    let symbols: Int
    let rounds: Int
    let result: EdgeBench.Result

    private static func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

    var json: String {
        var out = JSONWriter()
        out.beginObject()
        out.field("input", string: input)
        out.field("messages", integer: result.messages)
        out.field("symbols", integer: symbols)
        out.field("rounds", integer: rounds)
        out.field("messages_per_second", integer: Int64(Self.median(result.messagesPerSecond)))
        out.field("messages_per_second_best", integer: Int64(result.messagesPerSecond.max() ?? 0))
        out.field("messages_per_cpu_second", integer: Int64(Self.median(result.messagesPerProcessorSecond)))
        out.field("megabytes_per_second", fixed: FixedPoint.fixed(Self.median(result.megabytesPerSecond), scale: 1e3), places: 3)
        out.field("allocations_per_message", fixed: FixedPoint.fixed(result.allocationsPerMessage, scale: 1e6), places: 6)
        out.key("quotes_hash")
        out.hex(result.quotesHash)
        out.field("clock_ns", integer: result.clockNanoseconds)
        out.key("kinds")
        out.beginObject()
        for kind in BenchKind.allCases where result.kinds[kind.rawValue].count > 0 {
            out.key(kind.name)
            Self.write(result.kinds[kind.rawValue], &out)
        }
        out.endObject()
        out.key("frame")
        Self.write(result.frame, &out)
        out.key("stages")
        out.beginObject()
        for stage in Stage.allCases {
            out.key(stage.name)
            Self.write(result.stages[stage.rawValue], &out)
        }
        out.endObject()
        out.key("tick")
        Self.write(result.tick, &out)
        out.endObject()
        return String(decoding: out.bytes, as: UTF8.self)
    }

    var table: String {
        var lines = [
            "\(result.messages) messages, \(symbols) \(symbols == 1 ? "symbol" : "symbols"), \(rounds) rounds, quotes_hash \(hex(result.quotesHash))",
            "\(Int64(Self.median(result.messagesPerSecond))) messages/s (best \(Int64(result.messagesPerSecond.max() ?? 0)), "
                + "\(Int64(Self.median(result.messagesPerProcessorSecond))) per second of processor time), "
                + "\(Int64(Self.median(result.megabytesPerSecond))) MB/s, \(result.allocationsPerMessage) allocations a message",
            "",
            Self.row("ns", ["count", "p50", "p90", "p95", "p99", "p99.9"]),
        ]
        for kind in BenchKind.allCases where result.kinds[kind.rawValue].count > 0 {
            lines.append(Self.row("\(kind.name)", result.kinds[kind.rawValue]))
        }
        lines.append(Self.row("any frame", result.frame))
        for stage in Stage.allCases { lines.append(Self.row("\(stage.name)", result.stages[stage.rawValue])) }
        lines.append(Self.row("tick (stages alone)", result.tick))
        return lines.joined(separator: "\n")
    }

    // MARK: Leaves

    private static func write(_ values: EdgeBench.Percentiles, _ out: inout JSONWriter) {
        out.beginObject()
        out.field("count", integer: values.count)
        out.field("p50_ns", integer: values.p50)
        out.field("p90_ns", integer: values.p90)
        out.field("p95_ns", integer: values.p95)
        out.field("p99_ns", integer: values.p99)
        out.field("p999_ns", integer: values.p999)
        out.endObject()
    }

    private static func row(_ name: String, _ values: EdgeBench.Percentiles) -> String {
        row(name, [values.count, values.p50, values.p90, values.p95, values.p99, values.p999].map(String.init))
    }

    private static func row(_ name: String, _ cells: [String]) -> String {
        let head = name + String(repeating: " ", count: max(0, 20 - name.count))
        return head + cells.map { String(repeating: " ", count: max(1, 10 - $0.count)) + $0 }.joined()
    }
}
