import ArgumentParser
import CalibModel
import Glibc
import NodeShell
import Wire

extension Bench {
    /// `calib-lab bench control`: how soon a rollback is everywhere.
    struct Control: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A real calib-hub rolls experiments back on a fleet of edges, idle or under ingest.",
            discussion: """
                Connections from one thread act as edges: they hold leases, and answer a rollback at once. Each round an operator starts an experiment \
                on all of them and takes it back; measured is from the decision at the hub until the hub has the edge's answer that it is applied, and \
                that it is latched, both with the hub's own clock and with the decision durable in its log. What a real edge adds is its cancels' \
                way to the venue and one synced row. With --load four more edges send rows meanwhile, which become durable.

                Exit status: 0 done; 1 the hub failed; 3 not done in time; 64 usage.
                """)

        @Option(help: "How many edges, 1 to 1000.")
        var edges = 100
        @Option(help: "Rows a second of ingest meanwhile.")
        var load: Int64 = 0
        @Option(help: "Experiments that are taken back.")
        var rounds = 20
        @Option(help: "Seconds within which a step has to be done.")
        var deadline = 60.0
        @Option(help: ArgumentHelp("Where the folder is made; its disk is what is measured.", valueName: "folder"))
        var directory = "/tmp"
        @Option(help: ArgumentHelp("The hub; default: the calib-hub beside this program.", valueName: "file"))
        var hub: String?
        @Option(name: .shortAndLong, help: "How the result is printed.")
        var output = OutputForm.table

        private static let rowBytes = 382
        private static let loadEdges = 4

        func validate() throws {
            guard (1...1_000).contains(edges), (1...1_000).contains(rounds), (0...5_000_000).contains(load), deadline > 0 else {
                throw ValidationError("--edges and --rounds are 1 to 1000, --load 0 to 5000000, --deadline above 0")
            }
        }

        func run() throws {
            Stop.watch()
            do throws(LoadError) {
                let (applied, latched, rows) = try measure()
                print(output == .json ? json(applied, latched, rows) : table(applied, latched, rows))
            } catch {
                note("calib-lab bench control: \(error)")
                throw ExitCode(error.description.contains("not done within") ? 3 : 1)
            }
        }

        /// Milliseconds of every edge in every round, and rows a second.
        private func measure() throws(LoadError) -> (applied: [Double], latched: [Double], rows: Double) {
            let names = (1...edges).map { "edge-\($0)" }
            let loads = load > 0 ? (1...Self.loadEdges).map { "load-\($0)" } : []
            note("\(edges) edges: making certificates")
            let hub = try HubProcess(in: directory, hubPath: hub, edges: names + loads, operators: ["bench"])
            try hub.start()
            let loop = try LoadLoop(reconnects: true)
            loop.port = hub.port
            for (place, name) in names.enumerated() {
                loop.add(
                    LoadClient(
                        host: name, epoch: "0000000000000001", windowBytes: Limits.unackedBytesMax, files: [],
                        symbols: ["BTCUSDT"], statusPeriod: 1_000_000_000, statusPhase: 1_000_000_000 * Int64(place) / Int64(edges)),
                    try hub.certificate(of: name), random: { Int64.random(in: $0) })
            }
            for name in loads {
                // A hundredth of a second's rows at a time.
                let schedule = LoadSchedule(
                    period: 10_000_000, rowsPerPeriod: max(1, load / Int64(100 * Self.loadEdges)), rowsMax: .max / 2)
                loop.add(
                    LoadClient(
                        host: name, epoch: "0000000000000001", rowBytes: Self.rowBytes, windowBytes: Limits.unackedBytesMax,
                        files: [(.markouts, LoadClient.day, schedule)]), try hub.certificate(of: name),
                    random: { Int64.random(in: $0) })
            }
            let clients = loop.clients
            try loop.run(seconds: deadline) { clients.allSatisfy(\.isStreaming) }
            loop.begin()
            let someone = try OperatorLink(port: hub.port, try hub.certificate(ofOperator: "bench"))
            let began = monotonicNanoseconds()
            var (applied, latched) = ([Double](), [Double]())
            for round in 1...rounds {
                let id = "bench-\(round)"
                _ = try wait(
                    someone, loop, "experiment create",
                    ["id": id, "design": "symbol", "split": "1", "candidate": "spread.base_bps=1.2", "reason": "measured"])
                _ = try wait(someone, loop, "experiment start", ["id": id, "reason": "measured"])
                // Everybody has heard of it before it is taken back.
                try loop.run(seconds: deadline) { clients.prefix(edges).allSatisfy { $0.experiment == id } }
                let body = try wait(someone, loop, "experiment rollback", ["id": id, "reason": "measured", "timeout_ms": "60000"])
                let issued = body["issued_ms"]?.integer ?? 0
                for host in body["hosts"]?.array ?? [] {
                    guard let sent = host["sent_ms"]?.integer, let first = host["applied_latency_ms"]?.fixed(places: 6),
                        let last = host["latched_latency_ms"]?.fixed(places: 6)
                    else { throw LoadError("an edge has not latched \(id)") }
                    let decided = Double(sent - issued)
                    applied.append(decided + Double(first) / 1e6)
                    latched.append(decided + Double(last) / 1e6)
                }
            }
            let took = Double(monotonicNanoseconds() - began) / 1e9
            let rows = clients.suffix(loads.count).reduce(0) { $0 + $1.rowsAcknowledged }
            try hub.stop(SIGTERM)
            return (applied.sorted(), latched.sorted(), Double(rows) / took)
        }

        /// The operator's answer; the fleet goes on meanwhile.
        private func wait(
            _ someone: OperatorLink, _ loop: LoadLoop, _ verb: String, _ arguments: [String: String]
        ) throws(LoadError) -> JSONValue {
            someone.begin(verb, arguments)
            var body: JSONValue?
            var failure: LoadError?
            try loop.run(seconds: deadline, within: 1_000_000) {
                guard body == nil, failure == nil else { return true }
                do throws(LoadError) { body = try someone.step() } catch { failure = error }
                return body != nil || failure != nil
            }
            if let failure { throw failure }
            return body ?? .null
        }

        // MARK: Output

        /// SPEC 1.4.
        private static func quantile(_ sorted: [Double], percent: Int) -> Double {
            sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, percent * sorted.count / 100)]
        }

        private func figures(_ applied: [Double], _ latched: [Double], _ rows: Double) -> [(StaticString, Double)] {
            [
                ("applied_p50_ms", Self.quantile(applied, percent: 50)), ("applied_p99_ms", Self.quantile(applied, percent: 99)),
                ("latched_p50_ms", Self.quantile(latched, percent: 50)), ("latched_p99_ms", Self.quantile(latched, percent: 99)),
                ("rows_per_second", rows),
            ]
        }

        private func json(_ applied: [Double], _ latched: [Double], _ rows: Double) -> String {
            var out = JSONWriter()
            out.beginObject()
            out.field("edges", integer: edges)
            out.field("rounds", integer: rounds)
            for (name, value) in figures(applied, latched, rows) { out.field(name, fixed: FixedPoint.fixed(value, scale: 1e3), places: 3) }
            out.endObject()
            return String(decoding: out.bytes, as: UTF8.self)
        }

        private func table(_ applied: [Double], _ latched: [Double], _ rows: Double) -> String {
            figures(applied, latched, rows).map { "\($0.0)  \(($0.1 * 1000).rounded() / 1000)" }.joined(separator: "\n")
        }
    }
}
