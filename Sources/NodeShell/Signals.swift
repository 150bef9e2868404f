import Glibc

/// The signals a program waits for in its main thread instead of being ended by them.
package struct Signals: Sendable {
    private let numbers: [Int32]

    /// From here on they are blocked in this thread and in those it starts, and wait to be taken: make it before any thread. SIGPIPE is ignored:
    /// whoever reads our output may go away.
    package init(_ numbers: [Int32]) {
        self.numbers = numbers
        var set = set
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    /// Waits for one of them and returns its number.
    package func wait() -> Int32 {
        var set = set
        var number: Int32 = 0
        sigwait(&set, &number)
        return number
    }

    private var set: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in numbers { sigaddset(&set, number) }
        return set
    }
}
