import CalibModel
import EdgeCore
import Glibc
import Wire

/// When a file's rows come into being, as an edge's feed would write them.
struct LoadSchedule {
    /// ns; 0: all of them are there from the start.
    var period: Int64 = 0
    /// When the first come, ns behind the load's start.
    var phase: Int64 = 0
    var rowsPerPeriod: Int64
    /// At most that many ever.
    var rowsMax: Int64

    /// How many there are `elapsed` ns behind the load's start.
    func rows(at elapsed: Int64) -> Int64 {
        guard period > 0 else { return rowsMax }
        return elapsed < phase ? 0 : min(rowsMax, ((elapsed - phase) / period + 1) * rowsPerPeriod)
    }

    /// When more come; nil when no more do.
    func next(after elapsed: Int64) -> Int64? {
        guard period > 0, rows(at: elapsed) < rowsMax else { return nil }
        return elapsed < phase ? phase : phase + ((elapsed - phase) / period + 1) * period
    }
}

/// An edge as the hub sees it: hello, resume, rows in messages of at most `Limits.appendTurnBytes`, statuses. Nothing of a real edge's work is
/// done: its rows are made as they are sent.
final class LoadClient {
    struct File {
        let name: String
        let schedule: LoadSchedule
        let rows: LoadRows
        /// Rows.
        var sent: Int64 = 0
        var acknowledged: Int64 = 0
        var isResumed = false
        /// Messages on their way: where they end, rows, and when they began to be sent.
        var underWay: [(end: Int64, at: Int64)] = []
    }

    private enum State { case handshaking, awaitingWelcome, open }

    /// 2025-01-01, the day of all rows.
    static let day = CalendarDay(number: 20_089)

    let host: String
    private let epoch: String
    private let windowBytes: Int64
    private let statusPeriod: Int64
    private(set) var files: [File]
    private(set) var connection: LoadConnection?
    private var state = State.handshaking
    private var received: [UInt8] = []
    /// What the socket has not taken yet, in this order: a part of `rows`' bytes, then lines.
    private var rest: UnsafeRawBufferPointer?
    private var lines: [UInt8] = []
    private var linesSent = 0
    private var nextFile = 0
    private var nextStatus: Int64 = 0
    private var status: [UInt8] = []
    private var bytesUnderWay: Int64 = 0
    private var statuses: Int64 = 0
    /// The one it was assigned last.
    private(set) var experiment: String?
    /// Answers to leases asked for.
    private(set) var leases = 0
    /// Times it was let in.
    private(set) var welcomes = 0
    /// A lease is asked for as often as an edge does, every 5 s, when there is a status every second.
    private static let leaseStatuses = Limits.leaseRenewalNanoseconds / 1_000_000_000

    /// The time from the first byte sent of a message to its acknowledgement, ns.
    var onAcknowledged: (Int64) -> Void = { _ in }

    /// `rowBytes`: see `LoadRows`. `windowBytes`: sent and not acknowledged at most, at least one row's. `statusPeriod` ns, 0: none.
    init(
        host: String, epoch: String, rowBytes: Int? = nil, windowBytes: Int,
        files: [(feed: Feed, day: CalendarDay, schedule: LoadSchedule)],
        symbols: [String] = [], statusPeriod: Int64 = 0, statusPhase: Int64 = 0
    ) {
        self.host = host
        self.epoch = epoch
        self.windowBytes = Int64(windowBytes)
        self.statusPeriod = statusPeriod
        nextStatus = statusPhase
        self.files = files.map { file in
            // What comes into being bit by bit seldom fills a turn, and a fleet has 5,000 files.
            let rowsMax = file.schedule.period > 0 ? 4 * file.schedule.rowsPerPeriod : .max
            return File(
                name: FeedFileName.text(file.feed, file.day), schedule: file.schedule,
                rows: LoadRows(
                    file.feed, host: host, epoch: epoch, rowBytes: rowBytes, messageBytes: Limits.appendTurnBytes, rowsMax: rowsMax))
        }
        hello = Message.Hello(
            version: "calib-lab",
            edge: Message.Hello.Edge(
                host: host, epoch: epoch, source: "sim", venue: "sim", wallMilliseconds: 0, symbols: symbols, revision: .zero, latches: [],
                configHash: "feed000000000002"))
        if statusPeriod > 0 {
            status =
                Message.status(
                    Message.Status(
                        wallMilliseconds: 1_735_689_600_000, revision: .zero, backlogBytes: 0, isKilled: false,
                        symbols: symbols.map(Self.symbol))
                ).line
        }
    }
    private let hello: Message.Hello

    var isOpen: Bool { if case .open = state { connection != nil } else { false } }
    /// Every file's place is agreed upon.
    var isStreaming: Bool { isOpen && files.allSatisfy(\.isResumed) }
    var rowsAcknowledged: Int64 { files.reduce(0) { $0 + $1.acknowledged } }

    func isAcknowledged(at elapsed: Int64) -> Bool { files.allSatisfy { $0.acknowledged >= $0.schedule.rows(at: elapsed) } }

    /// When there is something to do that no socket tells, ns behind the load's start.
    func next(after elapsed: Int64) -> Int64? {
        guard isOpen, connection?.awaitsRoom == false else { return nil }
        var next = statusPeriod > 0 ? nextStatus : Int64.max
        for file in files { next = min(next, file.schedule.next(after: elapsed) ?? .max) }
        return next < .max ? next : nil
    }

    func connect(port: Int, _ certificate: LoadCertificate) throws(LoadError) {
        connection = try LoadConnection(port: port, certificate)
        state = .handshaking
    }

    func disconnected() {
        connection = nil
        received = []
        rest = nil
        lines = []
        linesSent = 0
        bytesUnderWay = 0
        for place in files.indices {
            files[place].isResumed = false
            files[place].underWay = []
        }
    }

    /// Does what the connection allows. `elapsed`: ns behind the load's start; `now`: the monotonic clock.
    func step(elapsed: Int64, buffer: UnsafeMutableRawBufferPointer) throws(LoadError) {
        guard let connection else { return }
        if case .handshaking = state {
            try connection.advance()
            guard connection.isOpen else { return }
            state = .awaitingWelcome
            say(.hello(hello))
        }
        try receive(connection, buffer)
        try send(connection, elapsed)
    }

    // MARK: Receiving

    private func receive(_ connection: LoadConnection, _ buffer: UnsafeMutableRawBufferPointer) throws(LoadError) {
        while true {
            let count = try connection.read(into: buffer)
            guard count > 0 else { return }
            received.append(contentsOf: buffer[..<count])
            var start = 0
            while let end = received[start...].firstIndex(of: 0x0a) {
                try take(Array(received[start..<end]))
                start = end + 1
            }
            received.removeFirst(start)
        }
    }

    private func take(_ line: [UInt8]) throws(LoadError) {
        // A typed throw does not pass through withUnsafeBytes' rethrow.
        let read: Result<Message, WireError> = line.withUnsafeBytes { bytes in
            do throws(WireError) { return .success(try Message(line: bytes)) } catch { return .failure(error) }
        }
        guard case .success(let message) = read else { throw LoadError("the hub sent what is no message") }
        switch message {
        case .welcome:
            state = .open
            welcomes += 1
            for file in files { say(.resume(Message.Resume(file: file.name, length: file.sent * Int64(file.rows.rowBytes)))) }
        case .resume(let resume):
            guard let place = files.firstIndex(where: { $0.name == resume.file }) else { return }
            resumed(place, resume.length)
        case .assignment(let assignment): experiment = assignment.experiment?.id
        case .lease: leases += 1
        case .command(let command):
            // Nothing rests here that would have to be cancelled, and there is no disk of its own.
            for state in [Message.CommandState.applied, .latched] {
                say(
                    .commandResult(
                        Message.CommandResult(
                            id: command.id, state: state, atMilliseconds: command.issuedMilliseconds, cancelledOrders: 0, text: nil)))
            }
        case .ack(let ack): acknowledge(ack)
        case .ping(let number): say(.pong(number: number))
        case .error(let code, let text): throw LoadError("the hub complains: \(text) (\(code))")
        default: break
        }
    }

    private func resumed(_ place: Int, _ length: Int64) {
        let rows = files[place].rows
        let (whole, part) = length.quotientAndRemainder(dividingBy: Int64(rows.rowBytes))
        files[place].acknowledged = whole
        files[place].sent = whole
        files[place].isResumed = true
        // A hub that was killed as it wrote.
        guard part > 0 else { return }
        let left = rows.make(1, from: whole, behind: []).dropFirst(Int(part))
        say(.append(Message.Append(file: files[place].name, offset: length, bytes: left.count)))
        lines += left
        files[place].sent = whole + 1
        files[place].underWay.append((whole + 1, monotonicNanoseconds()))
        bytesUnderWay += Int64(rows.rowBytes)
    }

    private func acknowledge(_ ack: Message.Ack) {
        guard let place = files.firstIndex(where: { $0.name == ack.file }) else { return }
        let now = monotonicNanoseconds()
        let rowBytes = Int64(files[place].rows.rowBytes)
        let acknowledged = ack.length / rowBytes
        bytesUnderWay -= (acknowledged - files[place].acknowledged) * rowBytes
        files[place].acknowledged = acknowledged
        let covered = files[place].underWay.prefix { $0.end <= acknowledged }
        for message in covered { onAcknowledged(now - message.at) }
        files[place].underWay.removeFirst(covered.count)
    }

    // MARK: Sending

    private func say(_ message: Message) { lines += message.line }

    /// Rows of one turn at most, so that the other clients have theirs.
    private func send(_ connection: LoadConnection, _ elapsed: Int64) throws(LoadError) {
        for _ in 0..<4 {
            if let bytes = rest {
                let taken = try connection.write(bytes)
                rest = taken < bytes.count ? UnsafeRawBufferPointer(rebasing: bytes[taken...]) : nil
                if rest != nil { return }
            }
            if statusPeriod > 0, isOpen, elapsed >= nextStatus {
                lines += status
                nextStatus += max(1, (elapsed - nextStatus) / statusPeriod + 1) * statusPeriod
                statuses += 1
                if let experiment, statuses % Self.leaseStatuses == 0 {
                    say(.lease(Message.Lease(experiment: experiment, number: statuses, durationMilliseconds: nil)))
                }
            }
            // What does not fill a record leaves together, as it does at an edge.
            while rest == nil, lines.count < Limits.appendTurnBytes, prepareRows(elapsed) {
                guard let bytes = rest, bytes.count < Limits.tlsRecordBytes else { break }
                lines += bytes
                rest = nil
            }
            if linesSent < lines.count {
                linesSent += try connection.write(lines, from: linesSent)
                guard linesSent == lines.count else {
                    if let bytes = rest { lines += bytes }
                    rest = nil
                    return
                }
                lines.removeAll(keepingCapacity: true)
                linesSent = 0
            }
            guard rest != nil else { return }
        }
    }

    /// Makes the next message of rows, files in turn; false when there is none to send.
    private func prepareRows(_ elapsed: Int64) -> Bool {
        guard isOpen else { return false }
        for offset in 0..<files.count {
            let place = (nextFile + offset) % files.count
            let file = files[place]
            guard file.isResumed else { continue }
            let rows = file.rows
            let room = (windowBytes - bytesUnderWay) / Int64(rows.rowBytes)
            let count = min(room, Int64(rows.rowsMax), file.schedule.rows(at: elapsed) - file.sent)
            guard count > 0 else { continue }
            let line = Message.append(
                Message.Append(file: file.name, offset: file.sent * Int64(rows.rowBytes), bytes: Int(count) * rows.rowBytes)
            ).line
            rest = rows.make(Int(count), from: file.sent, behind: line)
            files[place].sent += count
            files[place].underWay.append((files[place].sent, monotonicNanoseconds()))
            bytesUnderWay += count * Int64(rows.rowBytes)
            nextFile = (place + 1) % files.count
            return true
        }
        return false
    }

    /// Whether more rows wait than the socket, or the window, takes now.
    func hasMore(at elapsed: Int64) -> Bool {
        guard isOpen, let connection, !connection.awaitsRoom else { return false }
        if rest != nil { return true }
        for file in files where file.isResumed && bytesUnderWay + Int64(file.rows.rowBytes) <= windowBytes {
            if file.sent < file.schedule.rows(at: elapsed) { return true }
        }
        return false
    }

    /// Compares what a hub stored of a file with what was sent; nil when equal.
    func difference(of file: Int, from path: String) -> String? {
        // What was on its way as the hub stopped may be stored, too.
        files[file].rows.difference(from: path, counts: files[file].acknowledged...files[file].sent)
    }

    private static func symbol(_ name: String) -> Message.Status.Symbol {
        Message.Status.Symbol(
            symbol: name, arm: "A", armWhy: "none", experiment: nil, isProven: true, isKilled: false,
            bid: FixedPoint.fixed(61_659.1, scale: 1e9), ask: FixedPoint.fixed(61_659.2, scale: 1e9), position: 0, openOrders: 2,
            ticks: 4_210, quotes: 55, fills: 3, features: Feature.allCases.map { _ in 812_500_000 })
    }
}
