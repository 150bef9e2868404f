import Glibc
import Wire

/// What is looked at again and again: `--watch` (SPEC 9.3).
enum Watching {
    private static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

    static func rest(seconds: Int) { sleep(UInt32(seconds)) }

    /// Redraws `text` on a terminal; elsewhere prints the body as a JSON line when it has changed. Ends when `goesOn` is false.
    static func redraw(seconds: Int, _ look: () throws -> (body: JSONValue, text: String, goesOn: Bool)) throws {
        var last: JSONValue?
        while true {
            let (body, text, goesOn) = try look()
            if isTerminal {
                // Home, the text with each line's rest cleared, then everything below it.
                let lines = text.split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\u{1b}[K\n")
                Console.data(Array("\u{1b}[H\(lines)\u{1b}[J".utf8))
            } else if body != last {
                Console.object(body)
                last = body
            }
            guard goesOn else { return }
            rest(seconds: seconds)
        }
    }
}
