import ArgumentParser
import HubCore
import NodeShell
import Wire

struct DatasetSummaryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "summary", abstract: "Writes calib_summary_{dataset}.md and .html about a dataset.")

    @Argument(help: "A dataset file (calib_*.json).") var file: String
    @Option(help: "Directory the report is written to, relative to the working directory.") var reportsDir = "artifacts/edge/reports"
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: OutputForm = .table

    func run() throws {
        do {
            guard let bytes = try AtomicFile.read(file) else { throw Console.failure("no dataset '\(file)'", Exit.failed, output) }
            let name = file.split(separator: "/").last.map(String.init) ?? file
            let stem = name.hasSuffix(".json") ? String(name.dropLast(5)) : name
            let report = try bytes.withUnsafeBytes { raw throws(Summary.Failure) in try Summary.markdown(of: raw, stem: stem) }
            let page = try bytes.withUnsafeBytes { raw throws(Summary.Failure) in try Summary.html(of: raw, stem: stem) }
            try AtomicFile.makeDirectory(reportsDir)
            let path = "\(reportsDir)/calib_summary_\(stem).md"
            let pagePath = "\(reportsDir)/calib_summary_\(stem).html"
            try AtomicFile.write(report, to: path)
            try AtomicFile.write(page, to: pagePath)
            switch output {
            case .table: Console.data(Array("\(path)\n".utf8))
            case .json:
                var json = JSONWriter()
                json.beginObject()
                json.field("report", string: path)
                json.field("page", string: pagePath)
                json.endObject()
                json.newline()
                Console.data(json.take())
            }
        } catch let error as FileError {
            throw Console.failure(error.description, Exit.failed, output)
        } catch let failure as Summary.Failure {
            switch failure {
            case .json: throw Console.failure("'\(file)' is no dataset: not the JSON expected", Exit.badSubject, output)
            case .missing(let member): throw Console.failure("'\(file)' is no dataset: it has no '\(member)'", Exit.badSubject, output)
            }
        }
    }
}
