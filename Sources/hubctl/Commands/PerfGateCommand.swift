import ArgumentParser
import CalibModel
import HubCore
import NodeShell
import Wire

struct PerfGateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perf-gate", abstract: "Compares what stages cost now with a baseline; fails when one became slower.",
        discussion: """
            Both files hold figures of repeated runs (proto-json/perf.schema.json): the p95 of each stage per run, or mean instructions per \
            call. Per stage the medians over runs are compared, and a bootstrap over runs says how far noise alone would carry their \
            ratio: a stage regresses when even the lower end of that interval is above the threshold. deploy/bench makes such files.

            The threshold is the one given here; one that a file names is not used. A stage that only one file has, a file that is missing \
            or empty, another schema version or unit, and too few runs of a time all fail: what was not compared is not good.

            Exit status: 0 no regression; 2 a stage became slower; 1 nothing, or not everything, could be compared; 64 usage.
            """)

    @Option(help: "Figures to hold against, JSON.") var baseline: String
    @Option(help: "Figures to judge, JSON.") var current: String
    @Option(help: "How much slower a stage may become, in percent, from 0 to 1000.") var threshold = "3"
    @Option(name: .customLong("output"), help: ArgumentHelp("Write the report here, Markdown.", valueName: "file")) var report: String?
    @Option(name: .customShort("o"), help: "Form of what is printed: the Markdown table, or JSON.") var form: OutputForm = .table

    /// In 1e-6 of the whole.
    private var thresholdMillionths: Int64? {
        let percent = Array(threshold.utf8).withUnsafeBytes { DecimalText($0)?.fixed(places: 4) }
        return percent.flatMap { (0...10_000_000).contains($0) ? $0 : nil }
    }

    func validate() throws {
        guard thresholdMillionths != nil else { throw ValidationError("--threshold is a percentage from 0 to 1000, such as 3 or 2.5") }
    }

    func run() throws {
        guard let threshold = thresholdMillionths else { throw Exit.failed }
        var problems: [String] = []
        let sides = [baseline, current].map { path in PerfReport.Side(path: path, figures: read(path, &problems)) }
        let result = PerfReport(baseline: sides[0], current: sides[1], threshold: threshold, problems: problems)
        if let report {
            do throws(FileError) { try AtomicFile.write(result.markdown, to: report) } catch {
                throw Console.failure(error.description, Exit.failed, form)
            }
        }
        Console.data(form == .json ? result.json : result.markdown)
        Console.note("perf-gate: \(Console.printable(result.verdict))")
        switch result.outcome {
        case .passed: return
        case .regression: throw Exit.badSubject
        case .incomplete: throw Exit.failed
        }
    }

    private func read(_ path: String, _ problems: inout [String]) -> PerfFigures? {
        do throws(FileError) {
            guard let bytes = try AtomicFile.read(path) else {
                problems.append("there is no file '\(path)'")
                return nil
            }
            do throws(PerfFigures.Failure) { return try PerfFigures.parse(bytes) } catch {
                problems.append("'\(path)' cannot be used: \(error.description)")
            }
        } catch {
            problems.append(error.description)
        }
        return nil
    }
}
