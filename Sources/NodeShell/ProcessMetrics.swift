internal import CalibModel
import Glibc
package import Wire

/// The `process_*` metrics that every exporter shows, under the names of Prometheus's own libraries. What cannot be read is absent.
package struct ProcessMetrics: Sendable {
    /// The clock's, not the kernel's: a unit with `ProcSubset=pid` hides the boot time that `/proc` counts from.
    private let startedAt = SystemClock.wall()

    /// Made when the program starts.
    package init() {}

    package var families: [MetricFamily] {
        var usage = rusage()
        let hasUsage = getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0
        func microseconds(_ time: timeval) -> Int64 { Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_usec) }
        let memory = Self.pages()
        var files = rlimit()
        let hasLimit = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files) == 0 && files.rlim_cur <= rlim_t(Int64.max)
        return [
            MetricFamily(
                "process_cpu_seconds", .counter, help: "User and system CPU time spent.", unit: "seconds",
                value: hasUsage ? .fixed(microseconds(usage.ru_utime) + microseconds(usage.ru_stime), places: 6) : nil),
            MetricFamily(
                "process_virtual_memory_bytes", .gauge, help: "Virtual memory size.", unit: "bytes",
                value: memory.map { .integer($0.virtual) }),
            MetricFamily(
                "process_resident_memory_bytes", .gauge, help: "Resident memory size.", unit: "bytes",
                value: memory.map { .integer($0.resident) }),
            MetricFamily("process_open_fds", .gauge, help: "Open file descriptors.", value: Self.openFiles().map { .integer($0) }),
            MetricFamily(
                "process_max_fds", .gauge, help: "The most file descriptors that may be open.",
                value: hasLimit ? .integer(Int64(files.rlim_cur)) : nil),
            MetricFamily(
                "process_start_time_seconds", .gauge, help: "When the process started, since the epoch.", unit: "seconds",
                value: .fixed(startedAt.milliseconds, places: 3)),
        ]
    }

    /// Nil when it cannot be read.
    package static var residentBytes: Int64? { pages()?.resident }

    /// Bytes, from the first two numbers of `/proc/self/statm`.
    private static func pages() -> (virtual: Int64, resident: Int64)? {
        guard let text = (try? AtomicFile.read("/proc/self/statm")).flatMap({ $0 }) else { return nil }
        let numbers = String(decoding: text, as: UTF8.self).split(separator: " ").prefix(2).compactMap { Int64($0) }
        guard numbers.count == 2 else { return nil }
        let size = Int64(sysconf(Int32(_SC_PAGESIZE)))
        return (numbers[0] * size, numbers[1] * size)
    }

    private static func openFiles() -> Int64? {
        guard let directory = opendir("/proc/self/fd") else { return nil }
        defer { closedir(directory) }
        var count: Int64 = 0
        while let entry = readdir(directory) { if entry.pointee.d_name.0 != 46 { count += 1 } }
        // The directory itself is one of them.
        return count - 1
    }
}
