import CalibModel
import Glibc
import HubCore
import NodeShell
import Wire

/// Datasets and reports: built, listed and read on a thread of their own, so that links and commands never wait for them.
final class Documents: @unchecked Sendable {
    struct Job: Sendable {
        var verb: Verb
        var arguments: [String: String]
        /// For a report on an experiment.
        var run: ABRun?
        var progress: @Sendable (_ done: Int64, _ total: Int64, _ text: String) -> Void
        /// How it went, and how long it took.
        var done: @Sendable (Outcome, _ nanoseconds: Int64) -> Void
    }

    enum Outcome: Sendable {
        case body(JSONValue)
        /// The bytes go first, as chunks.
        case document(bytes: [UInt8], JSONValue)
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
            case .datasetPull: return try pull(job.arguments["name"] ?? "", from: datasets, suffix: ".json")
            case .reportBuild: return .body(try buildReport(job))
            case .reportList: return .body(try list(reports, "reports") { _ in true })
            case .reportPull: return try pull(job.arguments["name"] ?? "", from: reports, suffix: ".md")
            case .hostList, .experimentCreate, .experimentList, .experimentShow, .experimentRollback, .experimentStop, .kill, .killRelease,
                .parametersSet,
                .commandList:
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
        let files = try FeedDirectory.find(
            in: feeds, from: arguments.from, to: arguments.to + DatasetArguments.markoutGrace, parse: Feed.parse)
        guard !files.isEmpty else { throw Refusal("no_feeds", "the hub holds no feed files of these days", exit: 1) }
        var build = DatasetBuild(arguments)
        var meter = Meter(job, files)
        for file in files {
            build.open(path: file.path, feed: file.feed, host: file.host)
            try FeedDirectory.read(file, in: feeds, consume: { build.consume($0, isEnd: $1) }, progress: { meter.add($0) })
        }
        let documents = try build.finish()
        let stem = DatasetFormat.stem(from: arguments.from, to: arguments.to)
        let sha256 = Digest.sha256(documents.dataset)
        let status = try AtomicFile.place(documents.dataset, at: "\(datasets)/\(stem).json", replaces: replaces)
        guard status != .refused else {
            throw Refusal("exists", "dataset '\(stem).json' exists and has other bytes; --replace overwrites it", exit: 1)
        }
        // The manifest follows its dataset; a build that stopped in between is completed by the next one.
        let manifest = documents.manifest(datasetName: "\(stem).json", sha256: sha256)
        _ = try AtomicFile.place(manifest, at: "\(datasets)/\(stem).manifest.json", replaces: true)
        return try Self.object { json in
            json.field("name", string: "\(stem).json")
            json.field("sha256", string: sha256)
            json.field("status", string: status.rawValue)
            json.field("kept_intervals", integer: documents.keptIntervals)
            json.field("filtered_intervals", integer: documents.filteredIntervals)
            json.field("rejected_lines", integer: documents.rejectedLines)
            json.field("manifest", string: "\(stem).manifest.json")
        }
    }

    // MARK: Reports

    private func buildReport(_ job: Job) throws -> JSONValue {
        var made: [(name: String, bytes: [UInt8])] = []
        switch (job.run, job.arguments["dataset"]) {
        case (let run?, nil):
            let from = run.experiment.createdMilliseconds
            let files = try FeedDirectory.find(in: feeds, from: from, to: max(from, run.generatedMilliseconds) + 1) { name in
                Feed.parse(fileName: name).flatMap { $0.feed == .snapshots ? $0 : nil }
            }
            var build = ABReportBuild(run)
            var meter = Meter(job, files)
            for file in files {
                build.open(feed: file.feed, host: file.host)
                try FeedDirectory.read(file, in: feeds, consume: { build.consume($0, isEnd: $1) }, progress: { meter.add($0) })
            }
            do {
                let report = try build.finish()
                made = [("\(report.stem).md", report.markdown), ("\(report.stem).json", report.json)]
            } catch .mixedSources(let names) {
                throw Refusal("mixed_sources", "the experiment's rows mix sources: \(names.joined(separator: ", "))", exit: 2)
            }
        case (nil, let given?):
            let name = given.hasSuffix(".json") ? given : given + ".json"
            let bytes = try read(name, from: datasets)
            let stem = String(name.dropLast(5))
            do {
                let report = try bytes.withUnsafeBytes { raw throws(Summary.Failure) in try Summary.markdown(of: raw, stem: stem) }
                made = [("calib_summary_\(stem).md", report)]
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

    private func pull(_ given: String, from directory: String, suffix: String) throws -> Outcome {
        let name = given.hasSuffix(".json") || given.hasSuffix(".md") ? given : given + suffix
        let bytes = try read(name, from: directory)
        return .document(
            bytes: bytes,
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

    /// Tells of each whole percent.
    private struct Meter {
        private let report: @Sendable (Int64, Int64, String) -> Void
        private let total: Int64
        private var done: Int64 = 0
        private var told: Int64 = -1

        init(_ job: Job, _ files: [FeedFile]) {
            report = job.progress
            total = max(1, files.reduce(0) { $0 + $1.byteCount })
        }

        mutating func add(_ bytes: Int64) {
            done += bytes
            let percent = min(100, done * 100 / total)
            guard percent != told else { return }
            told = percent
            report(done, max(total, done), "reading feeds")
        }
    }
}
