import Glibc
import NodeShell
import Wire

/// A real `calib-hub run` on a directory of its own, and what the kernel says of it.
///
/// The hub ends and the directory goes when this object does.
final class HubProcess {
    private let program: String
    let directory: String
    private(set) var port = 0
    private(set) var process: pid_t = 0
    private static let endSeconds = 30

    /// `folder`: where the directory is made. `hubPath` nil: the `calib-hub` beside this program.
    init(in folder: String, hubPath: String?, edges: [String], operators: [String] = []) throws(LoadError) {
        if let hubPath { program = hubPath } else { program = try Self.sibling("calib-hub") }
        directory = try makeTemporaryDirectory(in: folder)
        let names = edges.flatMap { ["--edge", $0] } + operators.flatMap { ["--operator", $0] }
        var made = try Child(
            program, ["init", "--directory", directory + "/pki", "-o", "json"] + names, errorFile: directory + "/init.log")
        made.drain()
        guard made.wait() == 0 else { throw LoadError("calib-hub init failed:\n\(Self.text(directory + "/init.log"))") }
    }

    deinit {
        if process > 0 { try? stop(SIGKILL) }
        removeTree(directory)
    }

    func certificate(of edge: String) throws(LoadError) -> LoadCertificate { try LoadCertificate(folder: "\(directory)/pki/edges/\(edge)") }
    func certificate(ofOperator name: String) throws(LoadError) -> LoadCertificate {
        try LoadCertificate(folder: "\(directory)/pki/operators/\(name)")
    }

    func path(of file: String, edge: String) -> String { "\(directory)/artifacts/feeds/host=\(edge)/\(file)" }

    /// Returns when it listens: the first time on a port the kernel chooses, afterwards on the same.
    func start() throws(LoadError) {
        var child = try Child(
            program,
            [
                "run", "--config", directory + "/pki/hub.yaml", "--set", "listen=127.0.0.1:\(port)", "--set", "metrics.listen=off", "--set",
                "artifacts_dir=\(directory)/artifacts",
            ], errorFile: directory + "/hub.log")
        process = child.process
        let line = child.firstLine()
        let address = (try? JSONValue.parse(line))?["listening"]?.string ?? ""
        guard let colon = address.lastIndex(of: ":"), let number = Int(address[address.index(after: colon)...]) else {
            throw LoadError("calib-hub run did not start:\n\(Self.text(directory + "/hub.log"))")
        }
        port = number
    }

    func stop(_ signal: Int32) throws(LoadError) {
        guard process > 0 else { return }
        let ended = process
        process = 0
        kill(ended, signal)
        for _ in 0..<Self.endSeconds * 100 {
            var status: Int32 = 0
            if waitpid(ended, &status, WNOHANG) == ended { return }
            usleep(10_000)
        }
        kill(ended, SIGKILL)
        var status: Int32 = 0
        waitpid(ended, &status, 0)
        throw LoadError("calib-hub did not end within \(Self.endSeconds) s of signal \(signal)")
    }

    /// The end of what it wrote to standard error.
    var log: String { Self.text(directory + "/hub.log") }

    private static func text(_ path: String) -> String {
        let bytes = (try? AtomicFile.read(path)) ?? nil
        return String(decoding: (bytes ?? []).suffix(2_000), as: UTF8.self)
    }

    private static func sibling(_ name: String) throws(LoadError) -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let length = readlink("/proc/self/exe", &path, Int(PATH_MAX))
        let own = String(decoding: path.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let found = String(own[..<(own.lastIndex(of: "/") ?? own.startIndex)]) + "/" + name
        guard access(found, X_OK) == 0 else { throw LoadError("there is no '\(found)'; build it, or name it with --hub") }
        return found
    }
}

/// What the kernel has counted of a process.
struct ProcessFigures {
    /// User and system time of all threads, s, in steps of 10 ms.
    var processorSeconds: Double
    /// The most it ever had, bytes.
    var peakResidentBytes: Int64

    /// Nil when there is no such process.
    init?(of process: pid_t) {
        guard let stat = Self.read("/proc/\(process)/stat"), let status = Self.read("/proc/\(process)/status"),
            let close = stat.lastIndex(of: ")")
        else { return nil }
        // Behind the name: state is field 3, utime field 14, stime field 15 (proc(5)).
        let fields = stat[stat.index(after: close)...].split(separator: " ")
        guard fields.count > 12, let user = Int64(fields[11]), let system = Int64(fields[12]) else { return nil }
        processorSeconds = Double(user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
        let peak = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }?.split(separator: " ").dropFirst().first
        peakResidentBytes = (peak.flatMap { Int64($0) } ?? 0) * 1024
    }

    private static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 8_192)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }
}

/// A program started with its standard output in a pipe and its standard error in a file.
private struct Child {
    let process: pid_t
    private let output: Int32

    init(_ program: String, _ arguments: [String], errorFile: String) throws(LoadError) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw LoadError("no pipe", errorNumber: errno) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errorFile, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        // Signals we wait for are blocked here; a program starts with none blocked.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        let code = posix_spawn(&process, program, &actions, &attributes, &words, environ)
        close(ends[1])
        guard code == 0 else {
            close(ends[0])
            throw LoadError("cannot start '\(program)'", errorNumber: code)
        }
        self.process = process
        output = ends[0]
    }

    /// Without its newline; empty when the program ended without one. The pipe stays open: the program may write more.
    mutating func firstLine() -> [UInt8] {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while read(output, &byte, 1) == 1, byte != 0x0a { line.append(byte) }
        return line
    }

    /// Reads to the end.
    mutating func drain() {
        var bytes = [UInt8](repeating: 0, count: 4_096)
        while read(output, &bytes, bytes.count) > 0 {}
        close(output)
    }

    func wait() -> Int32 {
        var status: Int32 = 0
        waitpid(process, &status, 0)
        return status
    }
}

func makeTemporaryDirectory(in folder: String) throws(LoadError) -> String {
    var template = Array((folder + "/calib-lab.XXXXXX").utf8CString)
    guard mkdtemp(&template) != nil else { throw LoadError("cannot make a directory in '\(folder)'", errorNumber: errno) }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Removes a directory of ours and all in it.
private func removeTree(_ path: String) {
    if let folder = opendir(path) {
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name != ".", name != ".." else { continue }
            let child = path + "/" + name
            // A symbolic link is removed, never followed.
            if entry.pointee.d_type == UInt8(DT_DIR) { removeTree(child) } else { unlink(child) }
        }
        closedir(folder)
    }
    rmdir(path)
}
