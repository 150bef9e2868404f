import ArgumentParser
import CalibModel
import Glibc
import HubCore
import NodeShell
import Wire
import Yams

/// Where the evidence for readiness and for the doctor lies.
struct EvidenceOptions: ParsableArguments {
    @Option(help: "Directory of <feed>_YYYYMMDD.jsonl files, flat or in host=<host> folders.") var feedsDir = "artifacts/edge/feeds"
    @Option(help: "Directory of datasets; the newest calib_*.json is looked at.") var datasetsDir = "artifacts/edge/datasets"
    @Option(help: "A dataset instead of the newest one.") var dataset: String?
    @Option(help: "Directory of reports.") var reportsDir = "artifacts/edge/reports"
    @Option(help: "The edge's configuration.") var config = "config/edge.yaml"
    @Option(help: ArgumentHelp("What a person vouches for: a YAML file of 'box id: why'.", valueName: "file")) var attest: String?
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func gather() throws(FileError) -> ReadinessEvidence {
        var evidence = ReadinessEvidence()
        evidence.feedsDirectory = feedsDir
        if let values = try Self.values(of: config) { evidence.configuration = (config, values) }
        if let attest {
            guard let values = try Self.values(of: attest) else {
                throw FileError(.read, attest, errorNumber: EINVAL, remedy: "is it a YAML map of 'box id: why'?")
            }
            evidence.attested = values
        }
        evidence.isFeedsDirectoryWritable = access(feedsDir, W_OK) == 0
        if access(feedsDir, R_OK) == 0 { try readFeeds(&evidence) }
        try readDataset(&evidence)
        try readExperiment(&evidence)
        return evidence
    }

    private func readFeeds(_ evidence: inout ReadinessEvidence) throws(FileError) {
        let files = try FeedDirectory.find(in: feedsDir, from: 0, to: RowLimits.timeMax, parse: Feed.parse)
        var shadow = ShadowReader()
        for file in files {
            evidence.feedFiles[file.feed, default: 0] += 1
            var cutter = LineCutter()
            var rows: Int64 = 0
            var endsInNewline = true
            try FeedDirectory.read(file, in: feedsDir) { bytes, isEnd in
                if let last = bytes.last { endsInNewline = last == 0x0a }
                var start = 0
                while let piece = cutter.next(in: bytes, from: &start, isEnd: isEnd) {
                    switch piece {
                    case .line(let line, _, let isTerminated):
                        rows += 1
                        if file.feed == .ticks { shadow.add(line: line, isTerminated: isTerminated) }
                    case .tooLong: if file.feed == .ticks { shadow.addOverlongLine() }
                    }
                }
                return start
            }
            if !endsInNewline { evidence.tornFiles.append(file.path) }
            if file.feed == .fills { evidence.fillRows += rows }
            if file.feed == .snapshots { evidence.snapshotRows += rows }
        }
        evidence.shadow = shadow.figures
    }

    private func readDataset(_ evidence: inout ReadinessEvidence) throws(FileError) {
        var path = dataset
        if path == nil, access(datasetsDir, R_OK) == 0 {
            let names = try FeedDirectory.names(in: datasetsDir)
                .filter { $0.hasPrefix("calib_") && $0.hasSuffix(".json") && !$0.hasSuffix(".manifest.json") }
            // The stem has the range: the latest end, then the latest begin.
            path = names.max { ($0.suffix(20), $0) < ($1.suffix(20), $1) }.map { "\(datasetsDir)/\($0)" }
        }
        guard let path, let bytes = try AtomicFile.read(path) else { return }
        let stem = path.hasSuffix(".json") ? String(path.dropLast(5)) : path
        evidence.dataset = (path, bytes, try AtomicFile.read(stem + ".manifest.json"), Digest.sha256(bytes))
        let name = stem.split(separator: "/").last.map(String.init) ?? stem
        let report = "\(reportsDir)/calib_summary_\(name).md"
        if access(report, R_OK) == 0 { evidence.summaryPath = report }
    }

    private func readExperiment(_ evidence: inout ReadinessEvidence) throws(FileError) {
        guard access(reportsDir, R_OK) == 0 else { return }
        // A run's name begins with its time.
        let names = try FeedDirectory.names(in: reportsDir).filter { $0.hasPrefix("ab_run_") && $0.hasSuffix(".json") }
        guard let path = names.max().map({ "\(reportsDir)/\($0)" }), let bytes = try AtomicFile.read(path) else { return }
        evidence.experiment = (path, bytes, access(path.dropLast(5) + ".md", R_OK) == 0)
    }

    /// Leaves of a YAML map by their dotted keys; nil when there is no such file or it is no map.
    private static func values(of path: String) throws(FileError) -> [String: String]? {
        guard let bytes = try AtomicFile.read(path), let root = try? Yams.compose(yaml: String(decoding: bytes, as: UTF8.self)),
            let mapping = root.mapping
        else { return nil }
        var values: [String: String] = [:]
        func walk(_ mapping: Node.Mapping, _ prefix: String) {
            for (key, value) in mapping {
                let name = prefix + (key.scalar?.string ?? "")
                if let inner = value.mapping { walk(inner, name + ".") } else if let text = value.scalar?.string { values[name] = text }
            }
        }
        walk(mapping, "")
        return values
    }
}

struct ReadinessCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "readiness", abstract: "Judges each box of the readiness checklist on its evidence.",
        discussion: """
            A box is pass, fail, unknown, or attested: a person vouches for what no program can see, with --attest FILE ('grafana_dashboards: looked \
            at by me today'); an attestation never covers a failure. Ready, and exit status 0, is only what passes or is attested throughout; else 2.
            """)

    @OptionGroup var options: EvidenceOptions

    func run() throws {
        let boxes: [ReadinessBox]
        do throws(FileError) { boxes = Readiness.boxes(try options.gather()) } catch {
            throw Console.failure(error.description, Exit.failed, options.output.errors)
        }
        let isReady = boxes.allSatisfy { $0.state == .pass || $0.state == .attested }
        RecordList<ReadinessBox>(
            name: "boxes",
            columns: [
                .text("box", \.id), .text("state", \.state.rawValue), .text("section", \.section),
                .text("text", isInTables: false, \.text), .text("evidence", \.evidence),
            ], header: [.init(name: "ready", value: .boolean(isReady))], nothing: "no boxes"
        ).print(boxes, options.output)
        if !isReady {
            Console.note(
                "not ready: \(boxes.filter { $0.state == .fail }.count) fail, \(boxes.filter { $0.state == .unknown }.count) unknown")
            throw Exit.badSubject
        }
    }
}

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Looks for the troubles the troubleshooting section knows, and says what to do.",
        discussion: "Exit status 0: nothing found; 2: something was.")

    @OptionGroup var options: EvidenceOptions

    func run() throws {
        let findings: [Readiness.Finding]
        do throws(FileError) { findings = Readiness.findings(try options.gather()) } catch {
            throw Console.failure(error.description, Exit.failed, options.output.errors)
        }
        RecordList<Readiness.Finding>(
            name: "findings", columns: [.text("trouble", \.trouble), .text("cause", \.cause), .text("fix", \.fix)],
            nothing: "nothing found"
        ).print(findings, options.output)
        if !findings.isEmpty { throw Exit.badSubject }
    }
}
