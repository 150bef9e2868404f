import ArgumentParser
import CalibModel
import Glibc
import Wire

extension Bench {
    /// `calib-lab bench ingest`: rows a second that a real hub makes durable and acknowledges.
    struct Ingest: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "A real calib-hub: rows a second, durable and acknowledged, over TLS with client certificates.",
            discussion: """
                Makes an authority, certificates and a hub's directory in a folder of its own, starts the hub on a port of the kernel's choice, sends \
                rows from one thread over connections that speak the link's protocol, waits until every row is acknowledged, stops the hub and \
                compares each stored file with what was sent, byte by byte. The folder goes at the end.

                hub_cpu_seconds_per_million counts all threads of the hub from the first row to the last acknowledgement; hub_rss_mb is the most it \
                ever had (10^6 bytes). An acknowledgement's time runs from a message's first byte given to the socket. With --rate the rows of \
                each client come once a millisecond; without, as fast as the window allows.

                With --syslog the same rows go to another program that listens for lines over TLS and writes them to files; it acknowledges nothing, so \
                the time ends when the files are as long as what was sent.

                Exit status: 0 done, and what is stored is what was sent; 1 the hub failed or stored something else; 3 not done in time; 64 usage.
                """)

        @Option(help: "Connections, each with a certificate of its own.")
        var clients = 4
        @Option(help: "Files of each client.")
        var files = 1
        @Option(help: "Rows of all clients together.")
        var rows: Int64 = 2_000_000
        @Option(help: "Rows a second of all clients together; 0: as fast as it goes.")
        var rate: Int64 = 0
        @Option(help: "Bytes of a row with its newline, 372 to 16384.")
        var rowBytes = 382
        @Option(help: "Bytes a client sends ahead of the acknowledgements.")
        var window = Limits.unackedBytesMax
        @Option(help: "Seconds after which it gives up.")
        var deadline = 120.0
        @Option(help: ArgumentHelp("Where the folder is made; its disk is what is measured.", valueName: "folder"))
        var directory = "/tmp"
        @Option(help: ArgumentHelp("The hub; default: the calib-hub beside this program.", valueName: "file"))
        var hub: String?
        @OptionGroup var syslog: SyslogPeer
        @Option(name: .shortAndLong, help: "How the result is printed.")
        var output = OutputForm.table

        struct SyslogPeer: ParsableArguments {
            @Option(
                name: .customLong("syslog"),
                help: ArgumentHelp("Ports on this machine that take lines over TLS, one for each client, with commas.", valueName: "ports"))
            var ports: String?
            @Option(help: ArgumentHelp("With --syslog: the program's process id.", valueName: "pid"))
            var pid: Int32?
            @Option(help: ArgumentHelp("With --syslog: a folder with cert.pem, key.pem and ca.pem.", valueName: "folder"))
            var certificate: String?
            @Option(
                name: .customLong("stored"),
                help: ArgumentHelp("With --syslog: the file each client's lines are written to, with commas.", valueName: "files"))
            var stored: String?
        }

        func validate() throws {
            guard (1...Limits.linksMax).contains(clients) else {
                throw ValidationError("--clients \(clients): allowed are 1 to \(Limits.linksMax)")
            }
            guard (1...28).contains(files) else { throw ValidationError("--files \(files): allowed are 1 to 28") }
            guard rows >= Int64(clients * files), rows <= 1_000_000_000 else {
                throw ValidationError("--rows \(rows): allowed are one for each file to 1000000000")
            }
            guard (LoadRows.rowBytesMin...16_384).contains(rowBytes) else {
                throw ValidationError("--row-bytes \(rowBytes): allowed are \(LoadRows.rowBytesMin) to 16384")
            }
            guard rate >= 0, rate == 0 || rate >= Int64(clients * files) else {
                throw ValidationError("--rate \(rate): 0, or at least one row a second for each file")
            }
            guard window >= rowBytes, window <= Limits.unackedBytesMax else {
                throw ValidationError("--window \(window): allowed are one row to \(Limits.unackedBytesMax)")
            }
            guard deadline > 0 else { throw ValidationError("--deadline \(deadline): seconds above 0") }
            if syslog.ports != nil {
                guard syslog.pid != nil, syslog.certificate != nil, syslog.stored != nil, files == 1, rate == 0 else {
                    throw ValidationError("--syslog goes with --pid, --certificate and --stored, and without --files and --rate")
                }
            }
        }

        func run() throws {
            Stop.watch()
            do throws(LoadError) {
                let report = try syslog.ports == nil ? measureHub() : measureSyslog()
                print(output == .json ? report.json : report.table)
                guard report.difference == nil else { throw LoadError("stored is not what was sent: \(report.difference!)") }
            } catch {
                note("calib-lab bench ingest: \(error)")
                throw ExitCode(error.description.contains("not done within") ? 3 : 1)
            }
        }

        // MARK: The hub

        private func measureHub() throws(LoadError) -> IngestReport {
            let names = (1...clients).map { "edge-\($0)" }
            note("making certificates for \(clients) clients")
            let hub = try HubProcess(in: directory, hubPath: hub, edges: names)
            try hub.start()
            let loop = try LoadLoop(reconnects: false)
            loop.port = hub.port
            let latencies = LatencyCounts()
            for (place, name) in names.enumerated() {
                let perFile = rows / Int64(clients * files)
                let client = LoadClient(
                    host: name, epoch: epoch(place), rowBytes: rowBytes, windowBytes: window,
                    files: (0..<files).map { (.markouts, CalendarDay(number: LoadClient.day.number + Int64($0)), schedule(perFile, place)) }
                )
                client.onAcknowledged = { latencies.add($0) }
                loop.add(client, try hub.certificate(of: name), random: { $0.lowerBound })
            }
            let clients = loop.clients
            try loop.run(seconds: deadline) { clients.allSatisfy(\.isStreaming) }
            guard let before = ProcessFigures(of: hub.process) else { throw LoadError("the hub is gone:\n\(hub.log)") }
            let ownBefore = processorNanoseconds()
            let total = clients.reduce(0) { $0 + $1.files.reduce(0) { $0 + $1.schedule.rowsMax } } * Int64(rowBytes)
            loop.onProgress = { seconds in
                note("\(Int(seconds)) s: \(clients.reduce(0) { $0 + $1.rowsAcknowledged } * Int64(rowBytes) * 100 / total) % acknowledged")
            }
            loop.begin()
            try loop.run(seconds: deadline) { clients.allSatisfy { $0.isAcknowledged(at: .max) } }
            let nanoseconds = monotonicNanoseconds() - loop.begun
            let ownAfter = processorNanoseconds()
            guard let after = ProcessFigures(of: hub.process) else { throw LoadError("the hub is gone:\n\(hub.log)") }
            var report = IngestReport(
                program: "calib-hub", clients: self.clients, files: files, rowBytes: rowBytes, rows: total / Int64(rowBytes), rate: rate,
                windowBytes: window, nanoseconds: nanoseconds, hubProcessorSeconds: after.processorSeconds - before.processorSeconds,
                hubPeakBytes: after.peakResidentBytes, clientProcessorSeconds: Double(ownAfter - ownBefore) / 1e9, latencies: latencies)
            try hub.stop(SIGTERM)
            for client in clients {
                for (place, file) in client.files.enumerated() where report.difference == nil {
                    report.difference = client.difference(of: place, from: hub.path(of: file.name, edge: client.host))
                }
            }
            return report
        }

        private func epoch(_ place: Int) -> String {
            let digits = String(place, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }

        private func schedule(_ rows: Int64, _ place: Int) -> LoadSchedule {
            guard rate > 0 else { return LoadSchedule(rowsPerPeriod: rows, rowsMax: rows) }
            // Once a millisecond, or one row at a time where that is less than a row.
            let perSecond = Double(rate) / Double(clients * files)
            let perPeriod = max(1, Int64((perSecond / 1000).rounded()))
            let period = Int64(Double(perPeriod) * 1e9 / perSecond)
            return LoadSchedule(period: period, phase: period * Int64(place) / Int64(clients), rowsPerPeriod: perPeriod, rowsMax: rows)
        }

        // MARK: Another program

        private func measureSyslog() throws(LoadError) -> IngestReport {
            let ports = (syslog.ports ?? "").split(separator: ",").compactMap { Int($0) }
            let stored = (syslog.stored ?? "").split(separator: ",").map(String.init)
            guard let process = syslog.pid, ports.count == clients, stored.count == clients else {
                throw LoadError("--syslog and --stored name one port and one file for each of \(clients) clients")
            }
            let certificate = try LoadCertificate(folder: syslog.certificate ?? "")
            let load = try LineLoad(
                ports: ports, certificate, rowBytes: rowBytes, rowsEach: rows / Int64(clients), names: (1...clients).map { "edge-\($0)" })
            try load.connect(seconds: deadline)
            guard let before = ProcessFigures(of: process) else { throw LoadError("there is no process \(process)") }
            let ownBefore = processorNanoseconds()
            let begun = monotonicNanoseconds()
            try load.send(seconds: deadline)
            let ownAfter = processorNanoseconds()
            try load.awaitFiles(stored, seconds: deadline)
            let nanoseconds = monotonicNanoseconds() - begun
            guard let after = ProcessFigures(of: process) else { throw LoadError("process \(process) is gone") }
            var report = IngestReport(
                program: "syslog", clients: clients, files: 1, rowBytes: rowBytes, rows: rows / Int64(clients) * Int64(clients), rate: 0,
                windowBytes: 0, nanoseconds: nanoseconds, hubProcessorSeconds: after.processorSeconds - before.processorSeconds,
                hubPeakBytes: after.peakResidentBytes, clientProcessorSeconds: Double(ownAfter - ownBefore) / 1e9,
                latencies: LatencyCounts())
            report.difference = load.difference(from: stored)
            return report
        }
    }
}
