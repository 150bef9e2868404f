import ArgumentParser
import CalibModel
import Glibc
import NodeShell
import Wire

extension Bench {
    /// `calib-lab bench fleet`: what a hub costs for each edge, and how soon a fleet has settled behind a restart.
    struct Fleet: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A real calib-hub and a fleet of edges: processor and memory for each, and a restart.",
            discussion: """
                For each size a hub of its own, on a folder of its own, and that many connections from one thread which act as edges of ten \
                symbols: a status a second with all symbols, a lease of a running experiment each 5 s, and feeds whose rows become durable as an \
                edge's do: ticks (20 rows) and quotes (5 rows) each second, ten snapshots each 10 s, a fill and a markout each 5 s. When \
                everybody's first rows are acknowledged it is measured for a while. Then the hub is killed and started again: settled is when every \
                edge is welcome and every row older than 2 s is acknowledged. At the end each stored file is compared with what was sent.

                Exit status: 0 done, and what is stored is what was sent; 1 the hub failed or stored something else; 3 a fleet did not settle in \
                time; 64 usage.
                """)

        @Option(help: ArgumentHelp("How many edges, one run each.", valueName: "list"))
        var edges = "10,100,1000"
        @Option(help: "Seconds that are measured before the restart.")
        var seconds = 10.0
        @Option(help: "Seconds within which a fleet has to settle.")
        var deadline = 60.0
        @Option(help: ArgumentHelp("Where the folders are made; its disk is what is measured.", valueName: "folder"))
        var directory = "/tmp"
        @Option(help: ArgumentHelp("The hub; default: the calib-hub beside this program.", valueName: "file"))
        var hub: String?
        @Option(name: .shortAndLong, help: "How the result is printed.")
        var output = OutputForm.table

        private static let operatorName = "bench"
        private static let second: Int64 = 1_000_000_000
        /// Rows younger than this are on their way in a fleet that has settled.
        private static let settledBehind = 2 * second
        /// A hub whose acknowledgements are no further behind has nothing of the beginning left to do.
        private static let keepsUp = second / 10

        private var sizes: [Int]? {
            let numbers = edges.split(separator: ",").map { Int($0) }
            return numbers.contains(nil) || numbers.isEmpty ? nil : numbers.compactMap { $0 }
        }

        func validate() throws {
            guard let sizes, sizes.allSatisfy({ (1...1_000).contains($0) }) else {
                throw ValidationError("--edges '\(edges)': numbers of 1 to 1000, with commas")
            }
            guard seconds >= 1, deadline > 0 else { throw ValidationError("--seconds is 1 and more, --deadline above 0") }
        }

        func run() throws {
            Stop.watch()
            var results: [Result] = []
            do throws(LoadError) {
                for size in sizes ?? [] { results.append(try measure(size)) }
            } catch {
                note("calib-lab bench fleet: \(error)")
                throw ExitCode(error.description.contains("not done within") ? 3 : 1)
            }
            print(output == .json ? Self.json(results) : Self.table(results))
            if let difference = results.compactMap(\.difference).first {
                note("calib-lab bench fleet: stored is not what was sent: \(difference)")
                throw ExitCode(1)
            }
        }

        // MARK: One size

        private struct Result {
            let edges: Int
            /// Of the hub, of one core.
            var processorShare = 0.0
            var clientShare = 0.0
            var peakBytes: Int64 = 0
            var rowsPerSecond = 0.0
            var connectSeconds = 0.0
            /// From the new hub's start until the fleet has settled.
            var settledSeconds = 0.0
            var latencies = LatencyCounts()
            var difference: String?
        }

        private func measure(_ size: Int) throws(LoadError) -> Result {
            var result = Result(edges: size)
            let names = (1...size).map { "edge-\($0)" }
            note("\(size) edges: making certificates")
            let hub = try HubProcess(in: directory, hubPath: hub, edges: names, operators: [Self.operatorName])
            try hub.start()
            let loop = try LoadLoop(reconnects: true)
            loop.port = hub.port
            let latencies = result.latencies
            var isMeasuring = false
            for (place, name) in names.enumerated() {
                let client = Self.client(name, place, of: size)
                client.onAcknowledged = { if isMeasuring { latencies.add($0) } }
                loop.add(client, try hub.certificate(of: name), random: { Int64.random(in: $0) })
            }
            let clients = loop.clients
            loop.onProgress = { [unowned loop] seconds in
                note("\(size) edges, \(Int(seconds)) s: \(clients.count(where: \.isStreaming)) connected, \(loop.failures) attempts failed")
            }
            let connecting = monotonicNanoseconds()
            try loop.run(seconds: deadline) { clients.allSatisfy(\.isStreaming) }
            result.connectSeconds = Double(monotonicNanoseconds() - connecting) / 1e9

            // On every host, so that edges ask for leases.
            try OperatorLink(port: hub.port, try hub.certificate(ofOperator: Self.operatorName)).startExperiment("bench", seconds: deadline)

            loop.begin()
            // The first rows of everybody, for whom folders and files are made, are not what an hour looks like.
            try keep(2, loop)
            try loop.run(seconds: deadline) {
                let expected = loop.elapsed(monotonicNanoseconds()) - Self.keepsUp
                return clients.allSatisfy { $0.isAcknowledged(at: expected) }
            }
            isMeasuring = true
            let start = monotonicNanoseconds()
            let (before, ownBefore) = (try figures(hub), processorNanoseconds())
            let rowsBefore = clients.reduce(0) { $0 + $1.rowsAcknowledged }
            try keep(seconds, loop)
            let (after, ownAfter) = (try figures(hub), processorNanoseconds())
            let took = Double(monotonicNanoseconds() - start) / 1e9
            result.processorShare = (after.processorSeconds - before.processorSeconds) / took
            result.clientShare = Double(ownAfter - ownBefore) / 1e9 / took
            isMeasuring = false
            result.rowsPerSecond = Double(clients.reduce(0) { $0 + $1.rowsAcknowledged } - rowsBefore) / took

            note("\(size) edges: the hub is killed and started again")
            let welcomed = clients.map(\.welcomes)
            try hub.stop(SIGKILL)
            result.peakBytes = after.peakResidentBytes
            let restart = monotonicNanoseconds()
            try hub.start()
            try loop.run(seconds: deadline) {
                let settled = loop.elapsed(monotonicNanoseconds()) - Self.settledBehind
                return zip(clients, welcomed).allSatisfy { $0.welcomes > $1 && $0.isStreaming && $0.isAcknowledged(at: settled) }
            }
            guard clients.allSatisfy({ $0.leases > 0 || seconds < 5 }) else { throw LoadError("an edge was given no lease") }
            result.settledSeconds = Double(monotonicNanoseconds() - restart) / 1e9
            result.peakBytes = max(result.peakBytes, try figures(hub).peakResidentBytes)
            try hub.stop(SIGTERM)
            for client in clients {
                for (place, file) in client.files.enumerated() where result.difference == nil {
                    result.difference = client.difference(of: place, from: hub.path(of: file.name, edge: client.host))
                }
            }
            return result
        }

        private func keep(_ seconds: Double, _ loop: LoadLoop) throws(LoadError) {
            let end = monotonicNanoseconds() + Int64(seconds * 1e9)
            try loop.run(seconds: seconds + deadline) { monotonicNanoseconds() >= end }
        }

        private func figures(_ hub: HubProcess) throws(LoadError) -> ProcessFigures {
            guard let figures = ProcessFigures(of: hub.process) else { throw LoadError("the hub is gone:\n\(hub.log)") }
            return figures
        }

        /// Its turns lie behind those of the edge before it, as those of hosts do that were started at any time.
        private static func client(_ name: String, _ place: Int, of size: Int) -> LoadClient {
            let phase = second * Int64(place) / Int64(size)
            func file(_ feed: Feed, _ rows: Int64, each period: Int64) -> (Feed, CalendarDay, LoadSchedule) {
                (feed, LoadClient.day, LoadSchedule(period: period, phase: phase, rowsPerPeriod: rows, rowsMax: .max / 2))
            }
            return LoadClient(
                host: name, epoch: "0000000000000001", windowBytes: Limits.unackedBytesMax,
                files: [
                    file(.ticks, 20, each: second), file(.quotes, 5, each: second), file(.snapshots, 10, each: 10 * second),
                    file(.fills, 1, each: 5 * second), file(.markouts, 1, each: 5 * second),
                ], symbols: (0..<10).map { "SYM\($0)USDT" }, statusPeriod: second, statusPhase: (phase + second / 2) % second)
        }

        // MARK: Output

        private static func json(_ results: [Result]) -> String {
            var out = JSONWriter()
            out.beginObject()
            out.key("fleets")
            out.beginArray()
            for result in results {
                out.beginObject()
                out.field("edges", integer: result.edges)
                out.field("hub_cpu_percent", fixed: FixedPoint.fixed(result.processorShare * 100, scale: 100), places: 2)
                out.field(
                    "hub_cpu_us_per_edge_second", fixed: FixedPoint.fixed(result.processorShare * 1e6 / Double(result.edges), scale: 10),
                    places: 1)
                out.field("hub_rss_mb", fixed: FixedPoint.fixed(Double(result.peakBytes) / 1e6, scale: 10), places: 1)
                out.field(
                    "hub_rss_kb_per_edge", fixed: FixedPoint.fixed(Double(result.peakBytes) / 1e3 / Double(result.edges), scale: 10),
                    places: 1)
                out.field("client_cpu_percent", fixed: FixedPoint.fixed(result.clientShare * 100, scale: 100), places: 2)
                out.field("rows_per_second", integer: Int64(result.rowsPerSecond))
                out.field("connected_seconds", fixed: FixedPoint.fixed(result.connectSeconds, scale: 1e3), places: 3)
                out.field("restart_settled_seconds", fixed: FixedPoint.fixed(result.settledSeconds, scale: 1e3), places: 3)
                out.key("ack_ms")
                out.beginObject()
                for (name, permille) in [("p50", 500), ("p90", 900), ("p99", 990)] as [(StaticString, Int64)] {
                    out.field(name, fixed: FixedPoint.fixed(result.latencies.milliseconds(permille: permille) ?? 0, scale: 1e3), places: 3)
                }
                out.endObject()
                out.field("stored_equals_sent", boolean: result.difference == nil)
                out.endObject()
            }
            out.endArray()
            out.endObject()
            return String(decoding: out.bytes, as: UTF8.self)
        }

        private static func table(_ results: [Result]) -> String {
            func row(_ cells: [String]) -> String {
                cells.map { String(repeating: " ", count: max(1, 12 - $0.count)) + $0 }.joined()
            }
            func places(_ value: Double, _ scale: Double) -> String { "\((value * scale).rounded() / scale)" }
            var lines = [row(["edges", "hub CPU %", "us/edge/s", "hub MB", "kB/edge", "rows/s", "connected s", "settled s", "ack p99 ms"])]
            for result in results {
                lines.append(
                    row([
                        "\(result.edges)", places(result.processorShare * 100, 10),
                        places(result.processorShare * 1e6 / Double(result.edges), 1),
                        places(Double(result.peakBytes) / 1e6, 10), places(Double(result.peakBytes) / 1e3 / Double(result.edges), 10),
                        "\(Int64(result.rowsPerSecond))", places(result.connectSeconds, 100), places(result.settledSeconds, 100),
                        places(result.latencies.milliseconds(permille: 990) ?? 0, 100),
                    ]))
            }
            return lines.joined(separator: "\n")
        }
    }
}
