import ArgumentParser
import Glibc
import Wire

/// Exit statuses (SPEC 9.3). 64 is ArgumentParser's own.
enum Exit {
    static let failed = ExitCode(1)
    static let badSubject = ExitCode(2)
    static let timeout = ExitCode(3)
    static let notAuthorised = ExitCode(4)
    static let unreachable = ExitCode(69)
    static let configuration = ExitCode(78)
    static let all =
        "0 ok, 1 failed, 2 the thing asked about is bad, 3 timeout, 4 not authorised, 64 usage, 69 hub unreachable, 78 configuration"
}

/// Of what is not a list.
enum OutputForm: String, ExpressibleByArgument, CaseIterable { case table, json }

enum Console {
    static var isErrorTerminal: Bool { isatty(STDERR_FILENO) == 1 }

    static func note(_ text: String) { write(text + "\n", to: STDERR_FILENO) }
    static func data(_ bytes: [UInt8]) { write(bytes, to: STDOUT_FILENO) }

    /// Rewrites the line a terminal shows; empty text clears it.
    static func progress(_ text: String) { write("\r\u{1b}[K" + text, to: STDERR_FILENO) }

    /// Says what went wrong in the form that was asked for, and gives the status to leave with.
    /// `word` is a hub's own code for it.
    static func failure(_ message: String, hint: String? = nil, word: String? = nil, _ code: ExitCode, _ form: OutputForm) -> ExitCode {
        switch form {
        case .table:
            note("hubctl: \(printable(message))")
            if let hint { note("hint: \(printable(hint))") }
        case .json:
            var json = JSONWriter()
            json.beginObject()
            json.field("error", string: message)
            json.key("hint")
            if let hint { json.string(hint) } else { json.null() }
            json.field("exit_code", integer: Int(code.rawValue))
            json.key("code")
            if let word { json.string(word) } else { json.null() }
            json.endObject()
            json.newline()
            write(json.take(), to: STDERR_FILENO)
        }
        return code
    }

    /// What comes from a hub is data: it must not move a terminal's cursor nor break a line.
    static func printable(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 }))
    }

    private static func write(_ text: String, to file: Int32) { write(Array(text.utf8), to: file) }

    private static func write(_ bytes: [UInt8], to file: Int32) {
        var start = 0
        while start < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + start, bytes.count - start) }
            if count < 0 {
                if errno == EINTR { continue }
                return  // Nobody listens any more; the status still says how it went.
            }
            start += count
        }
    }
}
