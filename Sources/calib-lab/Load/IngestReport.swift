import CalibModel
import Wire

/// Durations in the buckets of SPEC 1.4: at most 1/128 above the true value.
final class LatencyCounts {
    private var counts = [Int64](repeating: 0, count: LatencyBuckets.count)
    private(set) var total: Int64 = 0

    func add(_ nanoseconds: Int64) {
        counts[LatencyBuckets.index(of: nanoseconds)] += 1
        total += 1
    }

    /// In ms, of `permille`; nil without any.
    func milliseconds(permille: Int64) -> Double? {
        guard total > 0 else { return nil }
        var left = min(total - 1, total * permille / 1000)
        for (index, count) in counts.enumerated() {
            if left < count { return Double(LatencyBuckets.upperEdge(of: index)) / 1e6 }
            left -= count
        }
        return nil
    }
}

/// What `bench ingest` prints.
struct IngestReport {
    /// Who was measured.
    let program: String
    let clients: Int
    let files: Int
    let rowBytes: Int
    let rows: Int64
    /// Rows a second asked for; 0: as fast as it went.
    let rate: Int64
    let windowBytes: Int
    /// From the first row to the last acknowledgement.
    let nanoseconds: Int64
    let hubProcessorSeconds: Double
    let hubPeakBytes: Int64
    let clientProcessorSeconds: Double
    let latencies: LatencyCounts
    /// What is stored otherwise than it was sent.
    var difference: String?

    private static let quantiles: [(name: StaticString, permille: Int64)] = [("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)]

    private var rowsPerSecond: Double { Double(rows) * 1e9 / Double(nanoseconds) }
    private var hubPerMillion: Double { hubProcessorSeconds * 1e6 / Double(rows) }
    private var clientPerMillion: Double { clientProcessorSeconds * 1e6 / Double(rows) }

    var json: String {
        var out = JSONWriter()
        out.beginObject()
        out.field("program", string: program)
        out.field("clients", integer: clients)
        out.field("files", integer: files)
        out.field("rows", integer: rows)
        out.field("row_bytes", integer: rowBytes)
        out.field("bytes", integer: rows * Int64(rowBytes))
        out.field("rate", integer: rate)
        out.field("window_bytes", integer: windowBytes)
        out.field("seconds", fixed: FixedPoint.fixed(Double(nanoseconds) / 1e9, scale: 1e3), places: 3)
        out.field("rows_per_second", integer: Int64(rowsPerSecond))
        out.field("hub_cpu_seconds_per_million", fixed: FixedPoint.fixed(hubPerMillion, scale: 1e3), places: 3)
        out.field("hub_rss_mb", fixed: FixedPoint.fixed(Double(hubPeakBytes) / 1e6, scale: 10), places: 1)
        out.field("client_cpu_seconds_per_million", fixed: FixedPoint.fixed(clientPerMillion, scale: 1e3), places: 3)
        out.key("ack_ms")
        if latencies.total == 0 {
            out.null()
        } else {
            out.beginObject()
            out.field("count", integer: latencies.total)
            for quantile in Self.quantiles {
                let value = latencies.milliseconds(permille: quantile.permille) ?? 0
                out.field(quantile.name, fixed: FixedPoint.fixed(value, scale: 1e3), places: 3)
            }
            out.endObject()
        }
        out.field("stored_equals_sent", boolean: difference == nil)
        out.endObject()
        return String(decoding: out.bytes, as: UTF8.self)
    }

    var table: String {
        var lines = [
            "\(program): \(rows) rows of \(rowBytes) bytes, \(clients) clients, \(files) files each, \(milli(Double(nanoseconds) / 1e9)) s",
            "\(Int64(rowsPerSecond)) rows/s durable; \(milli(hubPerMillion)) processor seconds a million rows (clients \(milli(clientPerMillion))); "
                + "\(milli(Double(hubPeakBytes) / 1e6)) MB",
        ]
        if latencies.total > 0 {
            let cells = Self.quantiles.map { "\($0.name) \(milli(latencies.milliseconds(permille: $0.permille) ?? 0))" }
            lines.append("acknowledged after, ms: " + cells.joined(separator: ", ") + " (\(latencies.total) messages)")
        }
        lines.append(difference.map { "stored is not what was sent: \($0)" } ?? "stored equals sent")
        return lines.joined(separator: "\n")
    }
}

/// With three places at most.
private func milli(_ value: Double) -> String { "\((value * 1000).rounded() / 1000)" }
