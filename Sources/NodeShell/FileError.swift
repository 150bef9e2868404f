import Glibc

/// A file operation that failed: what was attempted, on which object, and what the reader can do about it.
package struct FileError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Operation: String, Sendable {
        case open, create, read, decompress, write, compress, append, sync, cut, rename, remove, list, lock
    }

    package var operation: Operation
    package var path: String
    /// The operating system's errno; 0 when the trouble is the content and not the system.
    package var errorNumber: Int32
    /// Operation, object and remedy in one sentence. The cause is not pasted in: see `description`.
    package var message: String

    /// `purpose` says what the operation was for (`for reading`, `at byte 812`), `remedy` asks what to check.
    package init(_ operation: Operation, _ path: String, _ purpose: String = "", errorNumber: Int32 = 0, remedy: String) {
        self.operation = operation
        self.path = path
        self.errorNumber = errorNumber
        self.message = "cannot \(operation.rawValue) '\(path)'\(purpose.isEmpty ? "" : " " + purpose); \(remedy)"
    }

    /// The operating system's word for the cause, when there is one.
    package var cause: String? {
        guard errorNumber != 0 else { return nil }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { text in
            // The XSI form, which fills the buffer; `strerror` itself is not safe on several threads.
            guard strerror_r(errorNumber, text.baseAddress!, text.count) == 0 else { return "errno \(errorNumber)" }
            return String(cString: text.baseAddress!)
        }
    }

    /// The message, and the cause in brackets: for a log or a terminal.
    package var description: String { cause.map { "\(message) (\($0))" } ?? message }
}
