import ArgumentParser
import DatasetFiles
import HubCore
import NodeShell
import Wire

/// A dataset's file, read and parsed.
private func parsedDataset(_ path: String, _ output: ListForm) throws -> (bytes: [UInt8], value: JSONValue?) {
    let bytes: [UInt8]?
    do throws(FileError) { bytes = try AtomicFile.read(path) } catch {
        throw Console.failure(error.description, Exit.failed, output.errors)
    }
    guard let bytes else { throw Console.failure("no dataset '\(path)'", Exit.failed, output.errors) }
    return (bytes, try? JSONValue.parse(bytes))
}

struct DatasetVerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Holds a dataset and its other forms against its manifest, and against the feeds if asked for.",
        discussion: """
            With --rebuild the dataset is built again from the feeds, with the manifest's arguments and without anything kept from earlier builds; its \
            bytes must come out the same.

            Exit status: 0 all is as it should be; 1 the dataset or the feeds cannot be read; 2 something is not.
            """)

    @Argument(help: "A dataset file (calib_*.json).") var file: String
    @Flag(help: "Build it again, too.") var rebuild = false
    @Option(help: "The feeds to build it from.") var feedsDir = "artifacts/edge/feeds"
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    private struct Check {
        var subject: String
        var isGood: Bool
        var evidence: String
    }

    func run() throws {
        let (bytes, value) = try parsedDataset(file, output)
        let stem = file.hasSuffix(".json") ? String(file.dropLast(5)) : file
        let directory = file.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let manifest = ((try? AtomicFile.read(stem + ".manifest.json")) ?? nil).flatMap { try? JSONValue.parse($0) }
        var checks = [
            Check(
                subject: "dataset", isGood: value?["intervals"]?.array != nil,
                evidence: value?["intervals"]?.array.map { "\($0.count) intervals" } ?? "not the JSON of a dataset")
        ]
        if let manifest {
            checks.append(digest(of: bytes, "bytes", manifest))
            let rows = manifest["rows"]?.integer
            checks.append(
                Check(
                    subject: "rows", isGood: rows != nil && rows == value?["intervals"]?.array.map { Int64($0.count) },
                    evidence: rows.map { "\($0) by the manifest" } ?? "the manifest does not tell"))
            for form in manifest["forms"]?.array ?? [] {
                let name = form["name"]?.string ?? "-"
                let path = directory.isEmpty ? name : "\(directory)/\(name)"
                if name.contains("/") {
                    checks.append(Check(subject: name, isGood: false, evidence: "no name of a file"))
                } else if let bytes = (try? AtomicFile.read(path)) ?? nil {
                    checks.append(digest(of: bytes, name, form))
                } else {
                    checks.append(Check(subject: name, isGood: false, evidence: "is not there"))
                }
            }
            if rebuild { checks.append(try rebuilt(manifest, Digest.sha256(bytes))) }
        } else {
            checks.append(Check(subject: "manifest", isGood: false, evidence: "'\(stem).manifest.json' is not there, or not JSON"))
        }
        RecordList<Check>(
            name: "checks",
            columns: [.text("check", \.subject), .text("state") { $0.isGood ? "pass" : "fail" }, .text("evidence", \.evidence)],
            nothing: "nothing to check"
        ).print(checks, output)
        if checks.contains(where: { !$0.isGood }) { throw Exit.badSubject }
    }

    private func digest(of bytes: [UInt8], _ subject: String, _ entry: JSONValue) -> Check {
        let sha256 = Digest.sha256(bytes)
        let isGood = entry["sha256"]?.string == sha256 && entry["bytes"]?.integer == Int64(bytes.count)
        return Check(
            subject: subject, isGood: isGood,
            evidence: isGood ? sha256 : "\(bytes.count) bytes of \(sha256), not \(entry["sha256"]?.string ?? "-")")
    }

    private func rebuilt(_ manifest: JSONValue, _ sha256: String) throws -> Check {
        guard let arguments = DatasetArguments(manifest: manifest) else {
            return Check(subject: "rebuild", isGood: false, evidence: "the manifest does not tell the arguments")
        }
        let meter = Console.meter("reading feeds")
        defer { Console.meterDone() }
        do throws(DatasetReading.Failure) {
            let documents = try DatasetReading(directory: feedsDir, threads: ThreadTeam.processors, usesCache: false) {
                meter($0 >> 20, $1 >> 20, "of \($1 >> 20) MiB")
            }.build(arguments)
            let again = Digest.sha256(documents.dataset)
            return Check(
                subject: "rebuild", isGood: again == sha256, evidence: again == sha256 ? "the same bytes" : "other bytes: \(again)")
        } catch {
            switch error {
            case .noFiles: throw Console.failure("no feed files of these days in '\(feedsDir)'", Exit.failed, output.errors)
            case .file(let error): throw Console.failure(error.description, Exit.failed, output.errors)
            case .refused(let refusal): return Check(subject: "rebuild", isGood: false, evidence: "there is no dataset: \(refusal)")
            }
        }
    }
}

struct DatasetDiffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "Tells in what two datasets differ, member by member.",
        discussion: "Exit status: 0 in nothing; 1 one of them cannot be read; 2 in something.")

    @Argument(help: "A dataset file (calib_*.json).") var left: String
    @Argument(help: "Another.") var right: String
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() throws {
        let (ours, theirs) = (try parsedDataset(left, output).value, try parsedDataset(right, output).value)
        guard let ours, let theirs, let differences = DatasetDifference.all(ours, theirs) else {
            throw Console.failure("'\(left)' and '\(right)' are not two datasets", Exit.failed, output.errors)
        }
        RecordList<DatasetDifference>(
            name: "differences",
            columns: [.text("interval", \.interval), .text("member", \.member), .text("left", \.left), .text("right", \.right)],
            nothing: "no differences"
        ).print(differences, output)
        if !differences.isEmpty { throw Exit.badSubject }
    }
}

struct DatasetSchemaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schema", abstract: "The columns of a dataset: name in the flat forms, place in the JSON, type, unit.")

    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: ListForm = .table

    func run() {
        RecordList<DatasetFormat.Column>(
            name: "columns",
            columns: [
                .text("column", \.name), .text("json", \.member), .text("type", \.type), .text("unit", \.unit),
                .flag("nullable", \.isNullable),
            ], header: [.init(name: "schema", value: .string("\(DatasetFormat.schema)"))], nothing: "no columns"
        ).print(DatasetFormat.columns, output)
    }
}
