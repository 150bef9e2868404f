import ArgumentParser
import CalibModel
import DatasetFiles
import Glibc
import HubCore
import NodeShell
import Wire

extension Bench {
    struct Aggregate: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Feed files to a dataset's bytes, without writing it.",
            discussion: """
                One build in this process: wall and CPU time, the greatest resident memory, and the dataset's sha256. `calib-lab gen feeds` makes files; \
                deploy/bench/aggregate runs it in turn with other engines and compares every value.

                Exit status: 0 done; 1 there is no dataset; 64 usage.
                """)

        @Option(help: "A feeds directory.") var data: String
        @Option(help: "Begin, milliseconds UTC. (default: that of the first file's day)") var from: Int64 = 1_735_689_600_000
        @Option(help: "End, milliseconds UTC. (default: a day later)") var to: Int64 = 1_735_776_000_000
        @Option(help: "Length of an interval in seconds.") var intervalSec: Int64 = 300
        @Option(help: "Threads.") var threads = 2
        @Flag(help: "Take what earlier builds left beside the feeds, and leave what this one makes.") var cache = false
        @Option(help: "Where to write the dataset; nowhere when absent.") var write: String?
        @Option(name: .shortAndLong, help: "How the result is printed.") var output = OutputForm.table

        func validate() throws {
            guard (1...64).contains(threads) else { throw ValidationError("--threads is from 1 to 64") }
            guard from < to, from >= 0, to <= RowLimits.timeMax, intervalSec > 0, intervalSec.isMultiple(of: 10) else {
                throw ValidationError("--from is before --to, and --interval-sec a multiple of 10")
            }
        }

        func run() throws {
            let begun = SystemClock.monotonic()
            let documents: DatasetDocuments
            do throws(DatasetReading.Failure) {
                documents = try DatasetReading(directory: data, threads: threads, usesCache: cache)
                    .build(DatasetArguments(from: from, to: to, intervalSeconds: intervalSec))
            } catch {
                note("calib-lab: no dataset: \(error)")
                throw ExitCode(1)
            }
            let wall = SystemClock.monotonic().since(begun)
            var usage = rusage()
            getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
            func microseconds(_ time: timeval) -> Int64 { Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_usec) }
            if let write {
                do throws(FileError) { try AtomicFile.write(documents.dataset, to: write) } catch {
                    note("calib-lab: \(error.description)")
                    throw ExitCode(1)
                }
            }
            var json = JSONWriter()
            json.beginObject()
            json.field("threads", integer: threads)
            json.field("wall_seconds", fixed: wall, places: 9)
            json.field("cpu_seconds", fixed: microseconds(usage.ru_utime) + microseconds(usage.ru_stime), places: 6)
            json.field("rss_kib_max", integer: Int64(usage.ru_maxrss))
            json.field("kept_intervals", integer: documents.keptIntervals)
            json.field("rejected_lines", integer: documents.rejectedLines)
            json.field("sha256", string: Digest.sha256(documents.dataset))
            json.endObject()
            let text = String(decoding: json.take(), as: UTF8.self)
            switch output {
            case .json: print(text)
            case .table:
                for field in text.dropFirst().dropLast().split(separator: ",") {
                    let parts = field.split(separator: ":", maxSplits: 1).map { $0.filter { $0 != "\"" } }
                    print(parts[0] + String(repeating: " ", count: max(1, 18 - parts[0].count)) + parts[1])
                }
            }
        }
    }
}
