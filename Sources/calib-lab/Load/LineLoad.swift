import Glibc

/// The same rows as bare lines over TLS, for a program that takes syslog lines: as cheap as `LoadClient`, and nothing comes back.
final class LineLoad {
    private struct Seat: ~Copyable {
        let connection: LoadConnection
        let rows: LoadRows
        var sent: Int64 = 0
        var rest: UnsafeRawBufferPointer?
    }

    private var seats: [Int: Box] = [:]
    private let rowsEach: Int64
    private let rowBytes: Int

    /// A seat cannot be copied, and an array's elements can.
    private final class Box {
        var seat: Seat
        init(_ seat: consuming Seat) { self.seat = seat }
    }

    init(ports: [Int], _ certificate: LoadCertificate, rowBytes: Int, rowsEach: Int64, names: [String]) throws(LoadError) {
        self.rowsEach = rowsEach
        self.rowBytes = rowBytes
        for (place, port) in ports.enumerated() {
            seats[place] = Box(
                Seat(
                    connection: try LoadConnection(port: port, certificate),
                    rows: LoadRows(.markouts, host: names[place], epoch: "0000000000000001", rowBytes: rowBytes, messageBytes: 65_536)))
        }
    }

    func connect(seconds: Double) throws(LoadError) {
        try loop(seconds) { (seat: inout Seat) throws(LoadError) in
            try seat.connection.advance()
            return seat.connection.isOpen
        }
    }

    func send(seconds: Double) throws(LoadError) {
        let rowsEach = rowsEach
        try loop(seconds) { (seat: inout Seat) throws(LoadError) in
            for _ in 0..<4 {
                if let bytes = seat.rest {
                    let taken = try seat.connection.write(bytes)
                    seat.rest = taken < bytes.count ? UnsafeRawBufferPointer(rebasing: bytes[taken...]) : nil
                    if seat.rest != nil { return false }
                }
                let count = min(Int64(seat.rows.rowsMax), rowsEach - seat.sent)
                guard count > 0 else { return true }
                seat.rest = seat.rows.make(Int(count), from: seat.sent, behind: [])
                seat.sent += count
            }
            return false
        }
    }

    func awaitFiles(_ paths: [String], seconds: Double) throws(LoadError) {
        let deadline = monotonicNanoseconds() + Int64(seconds * 1e9)
        for path in paths {
            while true {
                var status = stat()
                if stat(path, &status) == 0, Int64(status.st_size) >= rowsEach * Int64(rowBytes) { break }
                guard monotonicNanoseconds() < deadline else {
                    throw LoadError("not done within \(Int(seconds)) s: '\(path)' has \(status.st_size) bytes")
                }
                if let signal = Stop.signal { throw LoadError("stopped by signal \(signal)") }
                usleep(1_000)
            }
        }
    }

    func difference(from paths: [String]) -> String? {
        for (place, path) in paths.enumerated() {
            if let difference = seats[place]!.seat.rows.difference(from: path, counts: rowsEach...rowsEach) { return difference }
        }
        return nil
    }

    /// Each in turn until all are done; waits when no socket has room.
    private func loop(_ seconds: Double, _ turn: (inout Seat) throws(LoadError) -> Bool) throws(LoadError) {
        let deadline = monotonicNanoseconds() + Int64(seconds * 1e9)
        var open = Set(seats.keys)
        while !open.isEmpty {
            guard monotonicNanoseconds() < deadline else { throw LoadError("not done within \(Int(seconds)) s") }
            if let signal = Stop.signal { throw LoadError("stopped by signal \(signal)") }
            var waiting: [pollfd] = []
            for place in open.sorted() {
                let box = seats[place]!
                if try turn(&box.seat) {
                    open.remove(place)
                    continue
                }
                let connection = box.seat.connection
                let events = connection.awaitsRoom ? POLLOUT : connection.isOpen ? 0 : POLLIN
                if events != 0 { waiting.append(pollfd(fd: connection.descriptor, events: Int16(events), revents: 0)) }
            }
            if waiting.count == open.count, !open.isEmpty { poll(&waiting, nfds_t(waiting.count), 1_000) }
        }
    }
}
