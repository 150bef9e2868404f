import Glibc

/// A thread that owns one body. Join it before what it uses goes away.
package final class OwnerThread: @unchecked Sendable {
    // `thread` and `isJoined` are touched by the thread that made this object only.
    private var thread: pthread_t = 0
    private var isJoined = false

    private final class Body {
        let name: String
        let run: () -> Void
        init(name: String, run: @escaping () -> Void) {
            self.name = name
            self.run = run
        }
    }

    /// Starts the thread at once. `name` (at most 15 bytes) is what `ps -L` shows.
    package init(name: String, _ run: @escaping @Sendable () -> Void) throws(FileError) {
        // The new thread releases the body when it ends.
        let body = Unmanaged.passRetained(Body(name: name, run: run))
        let code = pthread_create(
            &thread, nil,
            { argument in
                let body = Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue()
                setThreadName(body.name)
                body.run()
                return nil
            }, body.toOpaque())
        guard code == 0 else {
            body.release()
            isJoined = true
            throw FileError(.create, "thread \(name)", errorNumber: code, remedy: "is the number of threads limited (ulimit -u)?")
        }
    }

    deinit { precondition(isJoined, "BUG: a thread outlives its owner") }

    /// Waits for the body to return.
    package func join() {
        guard !isJoined else { return }
        isJoined = true
        pthread_join(thread, nil)
    }
}

/// What `ps -L` shows. A thread without its name works as well, so errors do not count.
private func setThreadName(_ name: String) {
    let descriptor = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    let bytes = Array(name.utf8.prefix(15))
    _ = write(descriptor, bytes, bytes.count)
    close(descriptor)
}

/// Wakes one sleeping thread from another: a pipe, so that a ring before the wait is not lost.
package final class Doorbell: Sendable {
    private let reading: Int32
    private let writing: Int32

    package init() throws(FileError) {
        var ends: (Int32, Int32) = (-1, -1)
        let made = withUnsafeMutableBytes(of: &ends) { pipe($0.assumingMemoryBound(to: Int32.self).baseAddress!) }
        guard made == 0 else { throw FileError(.create, "pipe", errorNumber: errno, remedy: "are there too many open files (ulimit -n)?") }
        (reading, writing) = ends
        for end in [reading, writing] {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
    }
    deinit {
        close(reading)
        close(writing)
    }

    package func ring() {
        var one: UInt8 = 1
        // It can only fail when the pipe is full, and then the other side has enough to wake up for.
        _ = write(writing, &one, 1)
    }

    /// Returns when rung since the last wait, or after `milliseconds`, or early for no reason.
    package func wait(milliseconds: Int32) {
        var entry = pollfd(fd: reading, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, milliseconds) > 0 else { return }
        withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { _ = read(reading, $0.baseAddress, $0.count) }
    }
}
