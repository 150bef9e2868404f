import Glibc
import Synchronization

/// Several threads for one piece of work that has an end.
package struct ThreadTeam: Sendable {
    /// 1 or more; with 1 everything runs on the caller's thread.
    package let threads: Int

    package init(threads: Int) { self.threads = max(1, threads) }

    /// Processors that are there to run on.
    package static var processors: Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

    /// The calling thread runs when no other wants to. Where that cannot be had, things work as well.
    package static func yieldToOthers() { _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 19) }

    /// Runs `body(0)` ... `body(count - 1)`, each once, in rising order but several at a time, and returns when all are done.
    package func run(_ count: Int, _ body: @Sendable (Int) -> Void) {
        if threads == 1 || count <= 1 {
            for number in 0..<count { body(number) }
            return
        }
        let next = Atomic(0)
        eachThread { _ in
            while true {
                let number = next.add(1, ordering: .relaxed).oldValue
                if number >= count { return }
                body(number)
            }
        }
    }

    /// Runs `body` once on each thread with its number, the caller's being 0, and returns when all are done. A thread that cannot be made is
    /// done without: its `body` is never called, so bodies must share their work.
    package func eachThread(_ body: @Sendable (_ number: Int) -> Void) {
        withoutActuallyEscaping(body) { body in
            var others: [OwnerThread] = []
            for number in 1..<max(1, threads) {
                if let thread = try? OwnerThread(name: "team-\(number)", { body(number) }) { others.append(thread) }
            }
            body(0)
            for thread in others { thread.join() }
        }
    }
}
