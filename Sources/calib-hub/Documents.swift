import CalibModel
import DatasetFiles
import Glibc
import HubCore
import NodeShell
import Synchronization
import Wire

/// Datasets and reports: built, listed and read on a thread of their own, so that links and commands never wait for them.
final class Documents: @unchecked Sendable {
    struct Job: Sendable {
        var verb: Verb
        var arguments: [String: String]
        /// For a report on an experiment.
        var run: ABRun?
        /// For an explanation: what was decided on which evidence, and what is held of its hosts.
        var decision: Decision?
        var progress: @Sendable (_ done: Int64, _ total: Int64, _ text: String) -> Void
        /// How it went, and how long it took.
        var done: @Sendable (Outcome, _ nanoseconds: Int64) -> Void
    }

    struct Decision: Sendable {
        var experiment: Experiment
        var evidence: JSONValue
        var held: [String: [Ingest.HeldFile]]
    }

    enum Outcome: Sendable {
        case body(JSONValue)
        /// The bytes go first, as chunks.
        case document(bytes: [UInt8], from: Int, JSONValue)
        case refused(Refusal)
    }

    private let artifacts: String
    private let worker: Worker<Job>
    private var thread: OwnerThread?

    private var feeds: String { artifacts + "/feeds" }
    private var datasets: String { artifacts + "/datasets" }
    private var reports: String { artifacts + "/reports" }

    init(artifacts: String) throws(FileError) {
        self.artifacts = artifacts
        worker = try Worker()
        try AtomicFile.makeDirectory(artifacts + "/datasets")
        try AtomicFile.makeDirectory(artifacts + "/reports")
        let worker = worker
        thread = try OwnerThread(name: "hub-documents") { [unowned self] in
            ThreadTeam.yieldToOthers()
            while let jobs = worker.take() {
                for job in jobs {
                    let begun = SystemClock.monotonic()
                    job.done(self.perform(job), SystemClock.monotonic().since(begun))
                }
            }
        }
    }

    /// When the newest dataset that is here was built; nil without one.
    var newestDataset: WallTime? {
        let names = (try? FeedDirectory.names(in: datasets)) ?? []
        return names.filter { $0.hasPrefix("calib_") && $0.hasSuffix(".json") && !$0.hasSuffix(".manifest.json") }.compactMap { name in
            var status = stat()
            guard stat("\(datasets)/\(name)", &status) == 0 else { return nil }
            return WallTime(nanoseconds: Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec))
        }.max()
    }

    func post(_ job: Job) { worker.post(job) }

    func finish() {
        worker.finish()
        thread?.join()
    }

    private func perform(_ job: Job) -> Outcome {
        do {
            switch job.verb {
            case .datasetBuild: return .body(try buildDataset(job))
            case .datasetList: return .body(try list(datasets, "datasets") { $0.hasPrefix("calib_") && !$0.hasSuffix(".manifest.json") })
            case .datasetPull: return try pull(job, from: datasets, suffix: ".json")
            case .reportBuild: return .body(try buildReport(job))
            case .reportList: return .body(try list(reports, "reports") { _ in true })
            case .reportPull: return try pull(job, from: reports, suffix: ".md")
            case .gateExplain: return .body(try explain(job))
            case .hostList, .experimentCreate, .experimentStart, .experimentPause, .experimentPromote, .experimentList, .experimentGet,
                .experimentRollback, .experimentStop, .gateList, .kill, .killRelease, .parametersSet, .commandList:
                preconditionFailure("BUG: '\(job.verb.rawValue)' is about no document")
            }
        } catch let refusal as Refusal {
            return .refused(refusal)
        } catch let refusal as DatasetRefusal {
            return .refused(refusal.refusal)
        } catch let error as FileError {
            return .refused(Refusal("file", error.description, exit: 1))
        } catch {
            return .refused(Refusal("failed", "\(error)", exit: 1))
        }
    }

    // MARK: Datasets

    private func buildDataset(_ job: Job) throws -> JSONValue {
        let arguments = try DatasetArguments(request: job.arguments)
        let replaces = try Verb.flag(job.arguments["replace"])
        var forms: Set<DatasetFolder.Form> = []
        for name in Verb.names(job.arguments["forms"]) {
            guard let form = DatasetFolder.Form(rawValue: name) else {
                throw Refusal("usage", "form '\(name.prefix(64))' is not known", exit: 64)
            }
            forms.insert(form)
        }
        // One thread, of the lowest priority: the links and the committer go first.
        let reading = DatasetReading(directory: feeds, threads: 1, progress: Meter(job).tell)
        let documents: DatasetDocuments
        do throws(DatasetReading.Failure) { documents = try reading.build(arguments) } catch {
            switch error {
            case .noFiles: throw Refusal("no_feeds", "the hub holds no feed files of these days", exit: 1)
            case .file(let error): throw error
            case .refused(let refusal): throw refusal
            }
        }
        let saved = try DatasetFolder(path: datasets).save(documents, forms: forms, replaces: replaces)
        guard saved.status != .refused else {
            throw Refusal("exists", "dataset '\(saved.name)' exists and has other bytes; --replace overwrites it", exit: 1)
        }
        return try Self.object { json in
            json.field("name", string: saved.name)
            json.field("names", strings: saved.names)
            json.field("sha256", string: saved.sha256)
            json.field("status", string: saved.status.rawValue)
            json.field("kept_intervals", integer: documents.keptIntervals)
            json.field("filtered_intervals", integer: documents.filteredIntervals)
            json.field("rejected_lines", integer: documents.rejectedLines)
            json.field("manifest", string: saved.manifest)
        }
    }

    // MARK: Reports

    private func buildReport(_ job: Job) throws -> JSONValue {
        var made: [(name: String, bytes: [UInt8])] = []
        switch (job.run, job.arguments["dataset"]) {
        case (let given?, nil):
            var run = given
            try judge(&run)
            let from = run.experiment.createdMilliseconds
            let files = try FeedDirectory.find(in: feeds, from: from, to: max(from, run.generatedMilliseconds) + 1) { name in
                Feed.parse(fileName: name).flatMap { $0.feed == .snapshots ? $0 : nil }
            }
            var build = ABReportBuild(run)
            let meter = Meter(job)
            let total = files.reduce(0) { $0 + $1.byteCount }
            var done: Int64 = 0
            for file in files {
                build.open(feed: file.feed, host: file.host)
                try FeedDirectory.read(
                    file, in: feeds, consume: { build.consume($0, isEnd: $1) },
                    progress: { bytes in
                        done += bytes
                        meter.tell(done, of: total)
                    })
            }
            do {
                let report = try build.finish()
                made = [
                    ("\(report.stem).md", report.markdown), ("\(report.stem).html", report.html), ("\(report.stem).json", report.json),
                ]
            } catch .mixedSources(let names) {
                throw Refusal("mixed_sources", "the experiment's rows mix sources: \(names.joined(separator: ", "))", exit: 2)
            }
        case (nil, let given?):
            let name = given.hasSuffix(".json") ? given : given + ".json"
            let bytes = try read(name, from: datasets)
            let stem = String(name.dropLast(5))
            do {
                let report = try bytes.withUnsafeBytes { raw throws(Summary.Failure) in try Summary.markdown(of: raw, stem: stem) }
                let page = try bytes.withUnsafeBytes { raw throws(Summary.Failure) in try Summary.html(of: raw, stem: stem) }
                made = [("calib_summary_\(stem).md", report), ("calib_summary_\(stem).html", page)]
            } catch { throw Refusal("no_dataset", "'\(name)' is no dataset", exit: 2) }
        case (nil, nil), (_?, _?): throw Refusal("usage", "a report is about either an experiment or a dataset", exit: 64)
        }
        for document in made { _ = try AtomicFile.place(document.bytes, at: "\(reports)/\(document.name)", replaces: true) }
        let first = made[0]
        return try Self.object { json in
            json.field("name", string: first.name)
            json.field("bytes", integer: first.bytes.count)
            json.field("sha256", string: Digest.sha256(first.bytes))
            json.field("names", strings: made.map(\.name))
        }
    }

    /// What the gates say of one that was online, and what they said after each pair.
    private func judge(_ run: inout ABRun) throws {
        guard let experiment = run.judged, experiment.startedMilliseconds != nil else { return }
        var judge = ExperimentJudge(experiment, keepsPoints: true)
        for host in experiment.hosts {
            var rows = StoredRows(host: host.name, firstDay: ExperimentJudge.firstDay(experiment))
            try rows.findAll(in: feeds)
            try rows.read(in: feeds) { line, offset in judge.take(line, host: host.name, endingAt: offset) }
        }
        run.gates = judge.assess().gates
        run.points = judge.points
    }

    private func explain(_ job: Job) throws -> JSONValue {
        guard let decision = job.decision else { preconditionFailure("BUG: an explanation of nothing") }
        let again = try Explanation(feeds: feeds).of(decision.evidence, decision.experiment, decision.held).get()
        return Control.explanation(decision.experiment, decision.evidence, again)
    }

    // MARK: Lists and pulls

    private func list(_ directory: String, _ key: String, _ isWanted: (String) -> Bool) throws -> JSONValue {
        let names = try FeedDirectory.names(in: directory).filter { Self.isName($0) && isWanted($0) }.sorted()
        var rows: [(String, [UInt8])] = []
        for name in names { if let bytes = try AtomicFile.read("\(directory)/\(name)") { rows.append((name, bytes)) } }
        return try Self.object { json in
            json.key(data: key)
            json.beginArray()
            for (name, bytes) in rows {
                json.beginObject()
                json.field("name", string: name)
                json.field("bytes", integer: bytes.count)
                json.field("sha256", string: Digest.sha256(bytes))
                json.endObject()
            }
            json.endArray()
        }
    }

    /// From the offset on that the asker has reached, when what it holds is this document's beginning; else the whole.
    private func pull(_ job: Job, from directory: String, suffix: String) throws -> Outcome {
        let given = job.arguments["name"] ?? ""
        let hasSuffix = [".json", ".md", ".parquet", ".csv", ".html"].contains { given.hasSuffix($0) }
        let name = hasSuffix ? given : given + suffix
        let bytes = try read(name, from: directory)
        var offset = 0
        if let text = job.arguments["offset"] {
            guard let held = Int(text), held >= 0 else { throw Refusal("usage", "offset '\(text.prefix(64))' is no number", exit: 64) }
            if held <= bytes.count, Digest.sha256(Array(bytes[..<held])) == job.arguments["sha256"] { offset = held }
        }
        return .document(
            bytes: bytes, from: offset,
            try Self.object { json in
                json.field("name", string: name)
                json.field("bytes", integer: bytes.count)
                json.field("sha256", string: Digest.sha256(bytes))
            })
    }

    private func read(_ name: String, from directory: String) throws -> [UInt8] {
        guard Self.isName(name), let bytes = try AtomicFile.read("\(directory)/\(name)") else {
            throw Refusal("unknown_document", "there is no '\(name.prefix(128))'", exit: 2)
        }
        return bytes
    }

    /// A plain file name of ours: never a path, never a temporary file.
    private static func isName(_ name: String) -> Bool {
        (1...128).contains(name.utf8.count) && name.utf8.first != 46
            && name.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 45 || $0 == 46 || $0 == 95
            }
    }

    private static func object(_ write: (inout JSONWriter) -> Void) throws -> JSONValue {
        var json = JSONWriter()
        json.beginObject()
        write(&json)
        json.endObject()
        return try JSONValue.parse(json.take())
    }

    /// Tells of each whole percent. Of several threads, whichever is there first.
    private final class Meter: Sendable {
        private let report: @Sendable (Int64, Int64, String) -> Void
        private let told = Atomic<Int64>(-1)

        init(_ job: Job) { report = job.progress }

        @Sendable func tell(_ done: Int64, of total: Int64) {
            let percent = min(100, done * 100 / max(1, total))
            guard told.exchange(percent, ordering: .relaxed) != percent else { return }
            report(done, max(total, done), "reading feeds")
        }
    }
}
