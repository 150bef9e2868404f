import CalibModel
import NIOCore
import NodeShell
import Simulation

/// How fast a recording is replayed.
enum ReplaySpeed: Sendable, Equatable {
    /// Recorded seconds in a second, in thousandths.
    case thousandths(Int64)
    /// As fast as each client reads.
    case max
}

/// Serves a recording: every subscription is a pass of its own over the file, from its first line, for the topics in it. Requests that follow each
/// other at once, as a client sends them for many topics, are one subscription.
///
/// Frames are sent byte for byte in the recorded order, at the recorded pace or a multiple of it, never faster than the client reads, and
/// none is left out. When a client's passes are through and it asks for nothing more for a second, it gets a goodbye.
///
/// `@unchecked Sendable`: after `init` only the venue's one event loop touches it. Reading the file there is deliberate: it is the only work.
final class ReplayFeed: BybitFeed, @unchecked Sendable {
    /// Lines read in one turn of the event loop, so that other clients have theirs.
    fileprivate static let turnLinesMax = 256

    /// A client that asks for its topics in several messages may still be writing the second when the first is through.
    fileprivate static let grace = TimeAmount.seconds(1)

    /// A pass begins this long after the last request that added topics to it.
    fileprivate static let gathering = TimeAmount.milliseconds(20)

    let symbols: [String]
    fileprivate let path: String
    fileprivate let speed: ReplaySpeed
    private let endsWithLastClient: Bool
    private var topics: [BybitCategory: Set<String>] = [:]
    /// Receive time of each category's first frame.
    fileprivate private(set) var firstMicroseconds: [BybitCategory: Int64] = [:]
    private var clients = VenueClients()
    private var nextClient = 1
    private var isThrough = false
    private var eventLoop: (any EventLoop)?
    private var finish: (@Sendable (VenueError?) -> Void)?

    /// Reads the file once to know its topics.
    init(path: String, speed: ReplaySpeed, endsWithLastClient: Bool) throws {
        self.path = path
        self.speed = speed
        self.endsWithLastClient = endsWithLastClient
        var input = try LineInput(path: path)
        var recording = BybitRecording()
        var (frames, damaged) = (0, 0)
        while let line = try input.next() {
            do {
                switch try recording.read(line) {
                case .subscription(let category, let names): topics[category, default: []].formUnion(names)
                case .frame(let category, let topic, let microseconds, _):
                    frames += 1
                    topics[category, default: []].insert(topic)
                    if firstMicroseconds[category] == nil { firstMicroseconds[category] = microseconds }
                case .other: break
                }
            } catch {
                damaged += 1
            }
        }
        damaged += input.oversizedLines
        if damaged > 0 { note("venue: \(damaged) lines of '\(path)' are not of a recording's form and are left out") }
        guard frames > 0 else {
            throw VenueError(description: "'\(path)' holds no frame of Bybit's public stream; is it such a recording?")
        }
        symbols = Set(topics.values.joined().compactMap { $0.split(separator: ".").last.map(String.init) }).sorted()
    }

    func start(on eventLoop: any EventLoop, finish: @escaping @Sendable (VenueError?) -> Void) {
        self.eventLoop = eventLoop
        self.finish = finish
    }

    func stop() -> EventLoopFuture<Void> {
        guard let eventLoop else { preconditionFailure("BUG: stopped before it started") }
        return clients.closeAll(on: eventLoop)
    }

    func makeClient(_ category: BybitCategory) -> any WebSocketDelegate {
        defer { nextClient += 1 }
        return ReplayClient(feed: self, id: nextClient, category: category)
    }

    /// A recording of a stream has no REST.
    func rest(path: String, query: String) -> [UInt8]? { nil }

    fileprivate func has(_ topic: String, _ category: BybitCategory) -> Bool { topics[category]?.contains(topic) ?? false }

    fileprivate func opened(_ socket: WebSocket, _ id: Int) {
        clients.add(id, socket)
        // Whoever was sent everything must not get the beginning again while this process ends.
        if endsWithLastClient, isThrough { socket.close() }
        note("venue: client \(id) at \(socket.peer) connected")
    }

    fileprivate func closed(_ socket: WebSocket, _ id: Int, frames: Int, isThrough: Bool, reason: String) {
        clients.remove(id)
        note("venue: client \(id) at \(socket.peer) gone after \(frames) frames: \(reason)")
        if isThrough { self.isThrough = true }
        if endsWithLastClient, self.isThrough, clients.isEmpty { finish?(nil) }
    }

    fileprivate func failed(_ error: FileError) { finish?(VenueError(description: "\(error)")) }
}

private final class ReplayClient: WebSocketDelegate {
    private let feed: ReplayFeed
    private let id: Int
    private var session: BybitConnection
    private var passes: [Pass] = []
    private var socket: WebSocket?
    private var frames = 0
    private var isThrough = false
    private var timer: Scheduled<Void>?
    private var isTurnScheduled = false

    init(feed: ReplayFeed, id: Int, category: BybitCategory) {
        self.feed = feed
        self.id = id
        session = BybitConnection(category: category, name: "replay-\(id)")
    }

    func opened(_ socket: WebSocket) {
        self.socket = socket
        feed.opened(socket, id)
    }

    func text(_ bytes: UnsafeRawBufferPointer, on socket: WebSocket) {
        let category = session.category
        let (answer, change) = session.receive(bytes) { feed.has($0, category) }
        socket.send(text: answer)
        // Frames wait until the client reads; answers to a client that only asks would pile up.
        let pending = socket.pendingOutboundBytes
        guard pending <= Limits.venueClientBytesMax else {
            note("venue: client \(id) at \(socket.peer) leaves \(pending) bytes unread; dropped")
            return socket.abandon("it reads too slowly")
        }
        switch change {
        case .nothing: break
        case .subscribed(let topics):
            guard !topics.isEmpty else { break }
            if let pass = passes.last, pass.start > .now() {
                pass.add(topics)
            } else {
                do throws(FileError) {
                    passes.append(try Pass(path: feed.path, topics: topics, category: category))
                } catch {
                    feed.failed(error)
                }
            }
            scheduleTurn()
        case .unsubscribed(let topics):
            for pass in passes { pass.topics.subtract(topics) }
            passes.removeAll { $0.topics.isEmpty }
        }
    }

    func pong(on socket: WebSocket) {}
    func drained(_ socket: WebSocket) { scheduleTurn() }

    func closed(_ socket: WebSocket, reason: String) {
        self.socket = nil
        timer?.cancel()
        passes = []
        feed.closed(socket, id, frames: frames, isThrough: isThrough, reason: reason)
    }

    private func scheduleTurn() {
        guard let socket, !isTurnScheduled else { return }
        isTurnScheduled = true
        let bound = NIOLoopBound(self, eventLoop: socket.eventLoop)
        socket.eventLoop.execute { bound.value.turn() }
    }

    private func sayGoodbye() {
        guard let socket, passes.isEmpty else { return }
        socket.close(within: Limits.venueGoodbyeNanoseconds)
    }

    /// Sends what is due, as much as the client takes, and arranges for the next turn.
    private func turn() {
        isTurnScheduled = false
        guard let socket else { return }
        timer?.cancel()
        timer = nil
        do throws(FileError) {
            var next: NIODeadline?
            var isHeldUp = false
            for pass in passes {
                switch try pass.send(to: socket, speed: feed.speed, first: feed.firstMicroseconds[session.category] ?? 0, count: &frames) {
                case .due(let time): next = next.map { min($0, time) } ?? time
                case .unfinished: scheduleTurn()
                case .heldUp: isHeldUp = true
                case .through: isThrough = true
                }
            }
            socket.flush()
            passes.removeAll { $0.isThrough }
            if isThrough, passes.isEmpty {
                let bound = NIOLoopBound(self, eventLoop: socket.eventLoop)
                timer = socket.eventLoop.scheduleTask(in: ReplayFeed.grace) { bound.value.sayGoodbye() }
            } else if isHeldUp, socket.isWritable {
                // The flush has made room.
                scheduleTurn()
            } else if let next {
                let bound = NIOLoopBound(self, eventLoop: socket.eventLoop)
                timer = socket.eventLoop.scheduleTask(deadline: next) { bound.value.turn() }
            }
        } catch {
            feed.failed(error)
        }
    }
}

/// One subscription's way through the file.
private final class Pass {
    enum Progress {
        case due(NIODeadline)
        /// There is more to read, in another turn.
        case unfinished
        /// The client has to read first.
        case heldUp
        case through
    }

    var topics: Set<String> = []
    /// When the file's first frame is due.
    private(set) var start = NIODeadline.now()
    private(set) var isThrough = false
    private let category: BybitCategory
    private var input: LineInput
    private var recording = BybitRecording()
    /// Read, but not due yet.
    private var next: (microseconds: Int64, bytes: [UInt8])?

    init(path: String, topics: [String], category: BybitCategory) throws(FileError) {
        self.category = category
        input = try LineInput(path: path)
        add(topics)
    }

    func add(_ names: [String]) {
        topics.formUnion(names)
        start = .now() + ReplayFeed.gathering
    }

    func send(to socket: WebSocket, speed: ReplaySpeed, first: Int64, count: inout Int) throws(FileError) -> Progress {
        guard start <= .now() else { return .due(start) }
        for _ in 0..<ReplayFeed.turnLinesMax {
            guard socket.isWritable else { return .heldUp }
            if let frame = next {
                if case .thousandths(let thousandths) = speed {
                    let due = start + delay(from: first, to: frame.microseconds, thousandths)
                    if due > .now() { return .due(due) }
                }
                socket.send(text: ByteBuffer(bytes: frame.bytes), isFlushed: false)
                count += 1
                next = nil
            }
            guard let line = try input.next() else {
                isThrough = true
                return .through
            }
            // A line of another form was counted when the venue started.
            if case .frame(category, let topic, let microseconds, let bytes)? = try? recording.read(line), topics.contains(topic) {
                next = (microseconds, bytes)
            }
        }
        return .unfinished
    }

    /// At most a year: no replay lasts that long, and a time of receipt that is out of place must not end the venue.
    private func delay(from first: Int64, to microseconds: Int64, _ thousandths: Int64) -> TimeAmount {
        guard microseconds > first else { return .zero }
        let year = TimeAmount.hours(365 * 24)
        let (recorded, isTooLong) = microseconds.subtractingReportingOverflow(first)
        let (nanoseconds, isTooLongInNanoseconds) = recorded.multipliedReportingOverflow(by: 1_000_000)
        return isTooLong || isTooLongInNanoseconds ? year : min(.nanoseconds(nanoseconds / thousandths), year)
    }
}
