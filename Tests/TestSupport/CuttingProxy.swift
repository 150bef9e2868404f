import Foundation
import Synchronization

/// A TCP proxy that cuts connections at random bytes, all from one seed: at once, or after it has stopped forwarding for a while and kept both sides
/// open. Plain sockets and one thread per connection. `stop` before it goes away.
package final class CuttingProxy: Sendable {
    package struct Counts: Sendable {
        package var connections = 0
        package var cuts = 0
        package var halfOpen = 0
        package var bytes = 0
    }

    private struct State {
        var target: UInt16?
        var random: SeededRandom
        var isCutting = true
        var isStopped = false
        var counts = Counts()
        var running = 0
    }

    /// On 127.0.0.1.
    package let port: UInt16
    private let listener: Int32
    private let state: Mutex<State>
    private let bytesMax: Int

    /// A connection ends after 1 to `bytesMax` bytes, both ways together.
    package init(seed: UInt64, bytesMax: Int) throws {
        self.bytesMax = bytesMax
        state = Mutex(State(random: SeededRandom(seed: seed)))
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let listener = listener
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        guard listener >= 0, isBound, listen(listener, 64) == 0 else {
            throw LiveProcess.NotReady(description: "the proxy cannot listen: \(String(cString: strerror(errno)))")
        }
        port = UInt16(bigEndian: address.sin_port)
        Thread.detachNewThread { [self] in accept() }
    }

    package var counts: Counts { state.withLock { $0.counts } }

    /// Where new connections go; nil: they are refused.
    package func forward(to port: UInt16?) { state.withLock { $0.target = port } }

    /// From now on connections live as long as they like.
    package func stopCutting() { state.withLock { $0.isCutting = false } }

    /// Ends all connections and threads.
    package func stop() {
        state.withLock { $0.isStopped = true }
        shutdown(listener, Int32(SHUT_RDWR))
        while state.withLock({ $0.running }) > 0 { usleep(1000) }
        close(listener)
    }

    private func accept() {
        state.withLock { $0.running += 1 }
        defer { state.withLock { $0.running -= 1 } }
        while true {
            let client = Foundation.accept(listener, nil, nil)
            let target: UInt16? = state.withLock { $0.isStopped ? nil : $0.target }
            guard client >= 0 else {
                if state.withLock({ $0.isStopped }) || errno != EINTR && errno != ECONNABORTED { return }
                continue
            }
            _ = fcntl(client, F_SETFD, FD_CLOEXEC)
            guard let target, let server = connect(to: target) else {
                close(client)
                continue
            }
            state.withLock {
                $0.counts.connections += 1
                $0.running += 1
            }
            Thread.detachNewThread { [self] in
                carry(client, server)
                state.withLock { $0.running -= 1 }
            }
        }
    }

    private func connect(to port: UInt16) -> Int32? {
        let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = Self.loopback(port)
        let isConnected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Foundation.connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        if isConnected { return server }
        close(server)
        return nil
    }

    /// Until one side closes or the bytes are used up.
    private func carry(_ client: Int32, _ server: Int32) {
        defer {
            close(client)
            close(server)
        }
        // A handshake takes some 5 kB: a third of the cuts come before or soon after its end.
        var (left, isHalfOpen, pause) = state.withLock { state in
            let most = state.random.next(below: 3) == 0 ? min(bytesMax, 8192) : bytesMax
            return (
                1 + state.random.next(below: most), state.random.next(below: 4) == 0,
                TimeInterval(state.random.next(below: 500)) / 1000
            )
        }
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            var sides = [pollfd(fd: client, events: Int16(POLLIN), revents: 0), pollfd(fd: server, events: Int16(POLLIN), revents: 0)]
            let (isStopped, isCutting) = state.withLock { ($0.isStopped, $0.isCutting) }
            if isStopped { return }
            guard poll(&sides, 2, 100) > 0 else { continue }
            for (from, to) in [(0, 1), (1, 0)] where sides[from].revents != 0 {
                let count = recv(sides[from].fd, &buffer, isCutting ? min(left, buffer.count) : buffer.count, 0)
                guard count > 0 else { return }
                var sent = 0
                while sent < count {
                    let done = buffer.withUnsafeBytes {
                        send(sides[to].fd, $0.baseAddress! + sent, count - sent, Int32(MSG_NOSIGNAL))
                    }
                    guard done > 0 else { return }
                    sent += done
                }
                state.withLock { $0.counts.bytes += count }
                guard isCutting else { continue }
                left -= count
                guard left <= 0 else { continue }
                state.withLock {
                    $0.counts.cuts += 1
                    if isHalfOpen { $0.counts.halfOpen += 1 }
                }
                // Both sides believe that the connection stands, and hear nothing.
                if isHalfOpen { Thread.sleep(forTimeInterval: pause) }
                return
            }
        }
    }

    private static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }
}
