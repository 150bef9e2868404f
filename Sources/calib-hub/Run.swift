import ArgumentParser
import CalibModel
import Configuration
import Glibc
import HubCore
import Logging
import NIOCore
import NIOPosix
import NodeShell
import Wire

/// `calib-hub run`: serves the fleet until it is told to stop.
struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serves edges and operators.",
        discussion: """
            One JSON line on stdout says where it listens; logs are JSON lines on stderr. SIGTERM and SIGINT sync what was received, say goodbye, \
            and end with status 0.

            Exit status: 0 stopped; 1 a file, a port or the control log cannot be used; 64 usage; 78 configuration.
            """)

    @Option(help: ArgumentHelp("The configuration, such as config/hub.yaml.", valueName: "file")) var config: String
    @Option(
        help: ArgumentHelp(
            "Overrides one key of the configuration, e.g. listen=127.0.0.1:0; may be given several times.", valueName: "key=value"))
    var set: [String] = []

    func run() throws {
        let logger = LogLines.logger("calib-hub")
        do {
            let configuration = try HubConfiguration.load(file: config, overrides: set) { path in
                (try? AtomicFile.read(path)).flatMap { $0 }.flatMap { String(validating: $0, as: UTF8.self) }
            }
            try serve(configuration, logger)
        } catch let error as ConfigurationError {
            printError(error.description)
            throw ExitCode.badConfiguration
        } catch let error as TLSError {
            printError("calib-hub run: tls: \(error)")
            throw ExitCode.badConfiguration
        } catch let error as FileError {
            printError("calib-hub run: \(error)")
            throw ExitCode.failure
        } catch let error as ControlLogError {
            printError("calib-hub run: \(error)")
            throw ExitCode.failure
        } catch let error as NetworkError {
            printError("calib-hub run: \(error)")
            throw ExitCode.failure
        }
    }

    private func serve(_ configuration: HubConfiguration, _ logger: Logger) throws {
        let signals = Signals([SIGTERM, SIGINT, SIGHUP])
        let context = try TLSContext.server(
            TLSFiles(certificate: configuration.certificate, key: configuration.key, authority: configuration.authority))
        let artifacts = configuration.artifactsDirectory
        try AtomicFile.makeDirectory(artifacts)
        let lock = try lockDirectory(artifacts)
        defer { close(lock) }

        let log = try ControlLog(path: artifacts + "/control.sqlite")
        var control = Control(sha256: { Digest.sha256($0) }, random: { UInt64.random(in: .min ... .max) })
        try log.replay { record throws(LogDamage) in try control.replay(record) }
        logger.info("Control log read.", metadata: ["records": "\(control.revision.number)", "term": "\(control.revision.term)"])

        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let fail: @Sendable (String) -> Void = { text in
            logger.critical("\(text)")
            // What was durable stays so, and nothing else was promised.
            Glibc.exit(1)
        }
        let hub = Hub(control: control, certificate: context.certificateMetrics, on: group.next(), logger: logger)
        let committer = try FeedCommitter(
            directory: artifacts + "/feeds", openFilesMax: openFilesMax(),
            deliver: { results, nanoseconds in hub.eventLoop.execute { hub.committed(results, nanoseconds: nanoseconds) } })
        defer { committer.finish() }
        let seals = try SealKeeper(
            directory: artifacts + "/feeds", deliver: { job, result in hub.eventLoop.execute { hub.sealed(job, result) } })
        defer { seals.finish() }
        let documents = try Documents(artifacts: artifacts)
        defer { documents.finish() }
        let judges = try Judges(
            feeds: artifacts + "/feeds", hubStarted: SystemClock.wall().milliseconds,
            deliver: { findings in hub.eventLoop.execute { hub.found(findings) } },
            report: { error in hub.eventLoop.execute { hub.unreadable(error) } })
        defer { judges.finish() }
        let records = try Worker<LogRecord>()
        let writer = try OwnerThread(name: "hub-control") {
            while let batch = records.take() {
                do throws(ControlLogError) {
                    // Nothing takes effect before it is in the log; what does not need the log goes on (SPEC 8.5).
                    while try !log.append(batch) {
                        logger.error("The disk is full: the control log takes no record, and no decision takes effect until it does.")
                        guard !records.isFinished else { return }
                        sleep(1)
                    }
                } catch { return fail(error.description) }
                let number = batch[batch.count - 1].number
                hub.eventLoop.execute { hub.persisted(number) }
            }
        }
        defer {
            records.finish()
            writer.join()
            log.close()
        }
        try hub.eventLoop.submit {
            hub.start(
                committer: committer, seals: seals, records: records, documents: documents, judges: judges, held: committer.held)
        }.wait()

        let channel = try bind("listen", configuration.listen) { host, port in
            LineServer.bind(host: host, port: port, context: context, on: group, logger: logger) { _ in HubLink(hub) }
        }
        let metrics = try configuration.metricsListen.map { address in
            try bind("metrics.listen", address) { host, port in
                Endpoints.bind(host: host, port: port, on: group) { path, accept in
                    hub.eventLoop.submit { hub.answer(path, accept: accept) }
                }
            }
        }
        var json = JSONWriter()
        json.beginObject()
        json.field("listening", string: Self.text(configuration.listen.host, channel))
        json.field("metrics", string: metrics.map { Self.text(configuration.metricsListen?.host ?? "", $0) })
        json.endObject()
        json.newline()
        put(json.bytes, to: 1)

        var signal: Int32 = 0
        repeat { signal = signals.wait() } while signal == SIGHUP
        logger.info("Stopping.", metadata: ["signal": "\(signal == SIGINT ? "SIGINT" : "SIGTERM")"])
        try? channel.close().wait()
        try? metrics?.close().wait()
        try hub.eventLoop.submit { hub.stop() }.wait()
    }

    private func bind(_ key: String, _ address: (host: String, port: Int), _ make: (String, Int) -> EventLoopFuture<any Channel>) throws
        -> any Channel
    {
        do { return try make(address.host, address.port).wait() } catch {
            throw NetworkError(
                .unreachable, "\(address.host):\(address.port)", "\(key) cannot be bound (\(error)); is another hub using it?")
        }
    }

    private static func text(_ host: String, _ channel: any Channel) -> String {
        "\(host.contains(":") ? "[\(host)]" : host):\(channel.localAddress?.port ?? 0)"
    }

    /// How many feed files may stay open, once the process may have as many descriptors as it is ever allowed to: a login's limit of 1,024 is as many
    /// as there are connections.
    private func openFilesMax() -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return Limits.linksMax }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        // Each has its receipts beside it, and half of what the connections leave is kept free: a round may open as many again.
        let left = Int(min(limit.rlim_max, 1 << 20)) - Limits.linksMax
        return max(64, min(Limits.hubOpenFilesMax, left / 4))
    }

    /// One hub per directory. The lock belongs to the open file: it ends with the process, however that ends.
    private func lockDirectory(_ directory: String) throws(FileError) -> Int32 {
        let path = directory + "/.lock"
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw FileError(.open, path, errorNumber: errno, remedy: "is the directory writable?") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(descriptor)
            throw FileError(.lock, path, errorNumber: code, remedy: "does another calib-hub serve this directory? give each its own")
        }
        return descriptor
    }
}
