import CLinux
import CalibModel
import EdgeCore
import Glibc
import NodeShell

/// Drives many clients from one thread: waits for their sockets and for the rows that come into being.
final class LoadLoop {
    private struct Seat {
        let client: LoadClient
        let certificate: LoadCertificate
        var backOff: BackOff
        /// When to connect again, ns of the monotonic clock; nil while connected.
        var connectAt: Int64?
        var awaitsRoom = false
        var isReady = false
    }

    private let epoll: Int32
    private var seats: [Seat] = []
    /// By seat: when it has something to do that no socket tells, ns of the monotonic clock.
    private var wakes: [Int64] = []
    /// The seats that have something to do now, each once.
    private var ready: [Int] = []
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    private var keys = [UInt64](repeating: 0, count: 256)
    private let reconnects: Bool
    /// When the load began, ns of the monotonic clock; until then nothing comes into being.
    private(set) var begun: Int64 = .max
    /// Handshakes that led nowhere and connections that were lost.
    private(set) var failures = 0
    var port = 0
    /// Called about once a second with the seconds since `run` began.
    var onProgress: (Double) -> Void = { _ in }

    /// `reconnects`: a client that lost its hub comes back as an edge does, else it ends the run with an error.
    init(reconnects: Bool) throws(LoadError) {
        self.reconnects = reconnects
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw LoadError("no epoll", errorNumber: errno) }
    }

    deinit {
        buffer.deallocate()
        close(epoll)
    }

    var clients: [LoadClient] { seats.map(\.client) }

    func add(_ client: LoadClient, _ certificate: LoadCertificate, random: @escaping @Sendable (ClosedRange<Int64>) -> Int64) {
        var seat = Seat(client: client, certificate: certificate, backOff: BackOff(random: random))
        seat.connectAt = monotonicNanoseconds() + (reconnects ? seat.backOff.next() : 0)
        seats.append(seat)
        wakes.append(0)
    }

    func begin() { begun = monotonicNanoseconds() }

    func elapsed(_ now: Int64) -> Int64 { begun == .max ? -1 : now - begun }

    /// Goes on until `isDone`, looked at after every turn, and at least each `within` ns; an error after `seconds`, or when a stop was asked for.
    func run(seconds: Double, within longest: Int64 = 1_000_000_000, until isDone: () -> Bool) throws(LoadError) {
        let start = monotonicNanoseconds()
        let deadline = start + Int64(seconds * 1e9)
        var told = start
        // The load may have begun since the last run.
        for place in seats.indices { call(place) }
        while !isDone() {
            var now = monotonicNanoseconds()
            guard now < deadline else { throw LoadError("not done within \(Int(seconds)) s") }
            if let signal = Stop.signal { throw LoadError("stopped by signal \(signal)") }
            if now - told >= 1_000_000_000 {
                told = now
                onProgress(Double(now - start) / 1e9)
            }
            let called = ready
            ready = []
            for place in called {
                seats[place].isReady = false
                try turn(place, now)
                wakes[place] = wake(of: place, now)
                if seats[place].client.hasMore(at: elapsed(now)) { call(place) }
            }
            if isDone() { return }
            now = monotonicNanoseconds()
            let next = min(deadline, told + 1_000_000_000, now + longest, wakes.min() ?? .max)
            let count = cl_epoll_wait(epoll, &keys, ready.isEmpty ? max(0, next - now) : 0)
            for index in 0..<max(0, Int(count)) { call(Int(keys[index])) }
            now = monotonicNanoseconds()
            for place in wakes.indices where wakes[place] <= now { call(place) }
        }
    }

    private func call(_ place: Int) {
        guard !seats[place].isReady else { return }
        seats[place].isReady = true
        ready.append(place)
    }

    private func wake(of place: Int, _ now: Int64) -> Int64 {
        if let at = seats[place].connectAt { return at }
        guard begun != .max, let next = seats[place].client.next(after: elapsed(now)) else { return .max }
        return begun + next
    }

    private func turn(_ place: Int, _ now: Int64) throws(LoadError) {
        let client = seats[place].client
        do throws(LoadError) {
            if let at = seats[place].connectAt {
                guard now >= at else { return }
                try client.connect(port: port, seats[place].certificate)
                seats[place].connectAt = nil
                watch(place, EPOLL_CTL_ADD)
            }
            let wasOpen = client.isOpen
            try client.step(elapsed: elapsed(now), buffer: buffer)
            if client.isOpen, !wasOpen { seats[place].backOff.reset() }
            watch(place, EPOLL_CTL_MOD)
        } catch {
            guard reconnects else { throw LoadError("\(client.host): \(error)") }
            failures += 1
            // Closing a descriptor takes it off the list.
            client.disconnected()
            seats[place].connectAt = now + seats[place].backOff.next()
        }
    }

    /// The socket's room is waited for only while it has none.
    private func watch(_ place: Int, _ operation: Int32) {
        guard let connection = seats[place].client.connection else { return }
        guard operation == EPOLL_CTL_ADD || connection.awaitsRoom != seats[place].awaitsRoom else { return }
        seats[place].awaitsRoom = connection.awaitsRoom
        let events = EPOLLIN.rawValue | (connection.awaitsRoom ? EPOLLOUT.rawValue : 0)
        _ = cl_epoll_watch(epoll, operation, connection.descriptor, events, UInt64(place))
    }
}

/// SIGINT and SIGTERM end a run in order, so that processes and directories go with it.
enum Stop {
    /// They wait to be looked at, from here on.
    static func watch() {
        var set = signals
        pthread_sigmask(SIG_BLOCK, &set, nil)
        Glibc.signal(SIGPIPE, SIG_IGN)
    }

    /// The one that has come, if any.
    static var signal: Int32? {
        var set = signals
        var none = timespec()
        let number = sigtimedwait(&set, nil, &none)
        return number > 0 ? number : nil
    }

    private static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        return set
    }
}
