import CalibModel
import Wire

/// The edge's side of the link to the hub: which bytes of which file go next, and when to call again (SPEC 8.2, 8.3).
///
/// Per connection: hello, welcome, then per file: `resume` both ways, the tails compared, bytes appended from the hub's length on, acks.
///
/// Invariants:
/// 1. Only synced bytes leave: `offset + bytes` of an append never passes what `grew` told.
/// 2. The bytes of one file leave in order without a gap, from the length the hub named on this connection.
/// 3. Sent and unacknowledged bytes of all files never pass `Limits.unackedBytesMax`.
/// 4. One turn sends at most `Limits.appendTurnBytes`; the next begins when the shell says that the turn's bytes left.
/// 5. The back-off begins anew only after a welcome: a TLS handshake proves nothing (the hub checks our certificate behind it).
package struct Uplink {
    package enum Input: Sendable {
        /// The shell's loop begins: the first connect follows.
        case started
        /// The link is up; what to introduce ourselves with.
        case connected(Message.Hello)
        /// The link is down, or a connect failed.
        case disconnected
        case received(Message)
        /// The file's first `syncedLength` bytes are durable. Smaller than before is ignored.
        case grew(file: String, syncedLength: Int64)
        /// The answer to `checkTail`; nil when the file cannot be read.
        case tail(file: String, length: Int64, crc32c: String?)
        /// The last turn's bytes left our buffers.
        case turnEnded
        /// A file whose bytes could not be read: it waits for the next connection.
        case unreadable(file: String)
        /// A control message: sent when welcomed, else forgotten, because the hub repeats what it needs an answer to.
        case say(Message)
        case tick
    }

    package enum Effect: Equatable, Sendable {
        case connect(afterNanoseconds: Int64)
        case send(Message)
        /// CRC32C over the file's `bytes` bytes that end at `length`; answer with `.tail`.
        case checkTail(file: String, length: Int64, bytes: Int)
        /// An `append` with these bytes of the file; when those of one step left, answer with `.turnEnded`.
        case sendBytes(file: String, offset: Int64, bytes: Int)
        /// Tell the hub why and close; `.disconnected` follows.
        case close(code: String, text: String)
        /// Lease, assignment, command: for who decides about arms and kills.
        case deliver(Message)
        case welcomed(Message.Welcome)
        /// The hub's copy is not a prefix of ours: this file rests, others go on.
        case forked(file: String, text: String)
        /// The hub's complaint.
        case complained(code: String, text: String)
    }

    /// Where a file stands on this connection.
    private enum Phase: Equatable {
        case unasked
        case asked
        /// The hub named its length; our bytes up to there are being compared with its checksum.
        case checking(hubLength: Int64, crc32c: String)
        case streaming(sent: Int64)
        /// Forked or unreadable: not on this connection.
        case resting
    }

    private struct File {
        let name: String
        /// The order of SPEC 8.3 within today or backlog.
        let rank: Int
        /// `YYYYMMDD`
        let day: String
        var syncedLength: Int64 = 0
        /// What the hub is known to have synced.
        var acknowledged: Int64 = 0
        var phase = Phase.unasked
        var waiting = WaitingBytes()
    }

    private enum State {
        case idle
        /// A connect was asked for.
        case connecting
        case awaitingWelcome(since: Instant)
        case ready
        /// We asked for the close.
        case closing
    }

    private var state = State.idle
    private var files: [File] = []
    private var places: [String: Int] = [:]
    /// Indices of `files`, the most urgent first.
    private var order: [Int] = []
    private var backOff: BackOff
    private var isTurnOpen = false
    private var resumesInFlight = 0
    private var unackedBytes: Int64 = 0
    private var receivedAt = Instant(nanoseconds: 0)
    /// The last ping, or the beginning of the connection.
    private var pingedAt = Instant(nanoseconds: 0)
    private var pingNumber: Int64 = 0
    private var hasBeenWelcome = false
    private var reconnects: Int64 = 0
    private var roundTrips = BoundedHistogram(bounds: MetricBounds.answer)

    /// A lease is held: reconnects come within `Limits.reconnectNanosecondsMaxOnB` (SPEC 7.7).
    package var isHoldingLease = false

    /// `random` draws from a range evenly.
    package init(random: @escaping @Sendable (ClosedRange<Int64>) -> Int64) { backOff = BackOff(random: random) }

    package var isConnected: Bool { if case .ready = state { true } else { false } }

    /// How much of each file the hub is known to have synced.
    package var acknowledgedLengths: [String: Int64] {
        Dictionary(uniqueKeysWithValues: files.lazy.filter { $0.acknowledged > 0 }.map { ($0.name, $0.acknowledged) })
    }

    /// Synced here and not known to be synced at the hub.
    package var backlogBytes: Int64 { files.reduce(0) { $0 + $1.syncedLength - $1.acknowledged } }

    /// What `/metrics` shows of the link.
    package struct Reading: Sendable {
        package var isConnected: Bool
        package var backlogBytes: Int64
        /// How long the oldest durable byte has waited for the hub's acknowledgement; nil when none waits. What was there at the start counts
        /// from then.
        package var oldestUnackedNanoseconds: Int64?
        /// Of pings.
        package var roundTrips: BoundedHistogram
        /// Welcomes after the first.
        package var reconnects: Int64
    }

    package func reading(at now: Instant) -> Reading {
        let oldest = files.filter { $0.acknowledged < $0.syncedLength }.compactMap(\.waiting.oldest).min()
        return Reading(
            isConnected: isConnected, backlogBytes: backlogBytes, oldestUnackedNanoseconds: oldest.map { max(0, now.since($0)) },
            roundTrips: roundTrips, reconnects: reconnects)
    }

    // MARK: Inputs

    package mutating func step(_ input: Input, at now: Instant) -> [Effect] {
        var effects: [Effect] = []
        switch input {
        case .started:
            guard case .idle = state else { break }
            state = .connecting
            effects.append(.connect(afterNanoseconds: 0))
        case .connected(let hello): connected(hello, at: now, &effects)
        case .disconnected: disconnected(&effects)
        case .received(let message): received(message, at: now, &effects)
        case .grew(let file, let syncedLength): grew(file, syncedLength, at: now)
        case .tail(let file, let length, let crc32c): tail(file, length, crc32c, at: now, &effects)
        case .turnEnded: isTurnOpen = false
        case .unreadable(let file): if let place = places[file] { rest(place) }
        case .say(let message): if isConnected { effects.append(.send(message)) }
        case .tick: tick(at: now, &effects)
        }
        if isConnected { pump(&effects) }
        return effects
    }

    private mutating func connected(_ hello: Message.Hello, at now: Instant, _ effects: inout [Effect]) {
        switch state {
        case .connecting:
            state = .awaitingWelcome(since: now)
            receivedAt = now
            pingedAt = now
            effects.append(.send(.hello(hello)))
        case .idle, .awaitingWelcome, .ready, .closing: preconditionFailure("BUG: connected without having asked")
        }
    }

    private mutating func disconnected(_ effects: inout [Effect]) {
        if case .idle = state { return }  // Never asked.
        for place in files.indices { files[place].phase = .unasked }
        (resumesInFlight, unackedBytes, isTurnOpen) = (0, 0, false)
        reconnect(&effects)
    }

    private mutating func reconnect(_ effects: inout [Effect]) {
        state = .connecting
        let most = isHoldingLease ? Limits.reconnectNanosecondsMaxOnB : Limits.reconnectNanosecondsMax
        effects.append(.connect(afterNanoseconds: backOff.next(atMost: most)))
    }

    private mutating func grew(_ name: String, _ syncedLength: Int64, at now: Instant) {
        if let place = places[name] {
            guard syncedLength > files[place].syncedLength else { return }
            files[place].syncedLength = syncedLength
            files[place].waiting.grew(to: syncedLength, at: now)
            return
        }
        guard let (rank, day) = Self.parts(of: name), syncedLength > 0 else { return }
        places[name] = files.count
        files.append(File(name: name, rank: rank, day: day, syncedLength: syncedLength))
        files[files.count - 1].waiting.grew(to: syncedLength, at: now)
        let today = files.map(\.day).max() ?? day
        order = files.indices.sorted { a, b in
            let (a, b) = (files[a], files[b])
            return (a.day == today ? 0 : 1, a.rank, a.day) < (b.day == today ? 0 : 1, b.rank, b.day)
        }
    }

    private mutating func tick(at now: Instant, _ effects: inout [Effect]) {
        switch state {
        case .idle, .connecting, .closing: break
        case .awaitingWelcome(let since):
            if now.since(since) > Limits.helloNanoseconds { close("welcome_timeout", "no welcome within 5 s", &effects) }
        case .ready:
            let silent = now.since(receivedAt)
            if silent > Limits.idleNanoseconds { return close("idle", "nothing received for 30 s", &effects) }
            // Also while the hub talks: its acknowledgements do not tell how long an answer takes.
            guard now.since(pingedAt) >= Limits.pingNanoseconds else { return }
            pingedAt = now
            pingNumber += 1
            effects.append(.send(.ping(number: pingNumber)))
        }
    }

    // MARK: Messages

    private mutating func received(_ message: Message, at now: Instant, _ effects: inout [Effect]) {
        receivedAt = now
        switch state {
        case .idle, .connecting, .closing: return  // What was under way when we gave up.
        case .awaitingWelcome:
            switch message {
            case .welcome(let welcome): self.welcome(welcome, &effects)
            case .error(let code, let text): effects.append(.complained(code: code, text: text))
            case .ping(let number): effects.append(.send(.pong(number: number)))
            default: close("unexpected", "a welcome comes first, not '\(message.type)'", &effects)
            }
        case .ready:
            switch message {
            case .ping(let number): effects.append(.send(.pong(number: number)))
            case .pong(let number): if number == pingNumber { roundTrips.add(now.since(pingedAt)) }
            case .error(let code, let text): effects.append(.complained(code: code, text: text))
            case .resume(let resume): resumed(resume, at: now, &effects)
            case .ack(let ack): acknowledged(ack, &effects)
            case .lease, .assignment, .command: effects.append(.deliver(message))
            case .hello, .welcome, .append, .status, .commandResult, .request, .reply, .progress, .chunk:
                effects.append(.send(.error(code: "unexpected", text: "an edge takes no '\(message.type)'")))
            }
        }
    }

    private mutating func welcome(_ welcome: Message.Welcome, _ effects: inout [Effect]) {
        guard (ProtocolVersion.oldest...ProtocolVersion.current).contains(welcome.version) else {
            return close("version", "protocol \(welcome.version) is not served here", &effects)
        }
        state = .ready
        if hasBeenWelcome { reconnects += 1 }
        hasBeenWelcome = true
        backOff.reset()
        effects.append(.welcomed(welcome))
    }

    /// The hub's place in a file: its answer, or its wish to go back, such as after it lost bytes it had not synced.
    private mutating func resumed(_ resume: Message.Resume, at now: Instant, _ effects: inout [Effect]) {
        guard let place = places[resume.file] else {
            effects.append(.send(.error(code: "unknown_file", text: "there is no '\(resume.file)' here")))
            return
        }
        switch files[place].phase {
        case .asked: resumesInFlight -= 1
        case .streaming(let sent): unackedBytes -= sent - files[place].acknowledged
        case .unasked, .checking, .resting:
            effects.append(.send(.error(code: "unexpected", text: "'\(resume.file)' was not asked for")))
            return
        }
        // Its promises about this file begin anew with what it says now.
        files[place].acknowledged = 0
        guard resume.length >= 0, resume.length <= files[place].syncedLength else {
            return fork(place, "the hub holds \(resume.length) bytes, the edge \(files[place].syncedLength)", &effects)
        }
        guard resume.length > 0 else {
            files[place].phase = .streaming(sent: 0)
            files[place].waiting.rebase(to: 0, of: files[place].syncedLength, at: now)
            return
        }
        guard let crc32c = resume.tailCRC32C else { return fork(place, "the hub names no checksum", &effects) }
        files[place].phase = .checking(hubLength: resume.length, crc32c: crc32c)
        effects.append(
            .checkTail(file: resume.file, length: resume.length, bytes: Int(min(resume.length, Int64(Limits.resumeCheckBytes)))))
    }

    private mutating func tail(_ name: String, _ length: Int64, _ crc32c: String?, at now: Instant, _ effects: inout [Effect]) {
        guard let place = places[name], case .checking(length, let expected) = files[place].phase else { return }  // Of a connection gone.
        guard let crc32c else { return rest(place) }
        guard crc32c == expected else {
            return fork(place, "the bytes before \(length) differ: edge \(crc32c), hub \(expected)", &effects)
        }
        files[place].acknowledged = length
        files[place].phase = .streaming(sent: length)
        files[place].waiting.rebase(to: length, of: files[place].syncedLength, at: now)
    }

    private mutating func acknowledged(_ ack: Message.Ack, _ effects: inout [Effect]) {
        guard let place = places[ack.file] else { return }
        // A file under comparison or at rest: an ack of bytes sent before that.
        guard case .streaming(let sent) = files[place].phase else { return }
        guard ack.length <= sent else {
            return close("bad_ack", "'\(ack.file)' is acknowledged beyond the \(sent) bytes sent", &effects)
        }
        guard ack.length > files[place].acknowledged else { return }  // Repeated, or overtaken.
        unackedBytes -= ack.length - files[place].acknowledged
        files[place].acknowledged = ack.length
        files[place].waiting.acknowledged(ack.length)
    }

    // MARK: Sending

    private mutating func pump(_ effects: inout [Effect]) {
        for place in order where resumesInFlight < Limits.resumesInFlightMax && files[place].phase == .unasked {
            files[place].phase = .asked
            resumesInFlight += 1
            effects.append(.send(.resume(Message.Resume(file: files[place].name, length: files[place].syncedLength, tailCRC32C: nil))))
        }
        guard !isTurnOpen else { return }
        var room = min(Int64(Limits.appendTurnBytes), Int64(Limits.unackedBytesMax) - unackedBytes)
        for place in order {
            guard room > 0 else { return }
            guard case .streaming(let sent) = files[place].phase else { continue }
            let bytes = min(room, files[place].syncedLength - sent)
            guard bytes > 0 else { continue }
            effects.append(.sendBytes(file: files[place].name, offset: sent, bytes: Int(bytes)))
            files[place].phase = .streaming(sent: sent + bytes)
            unackedBytes += bytes
            room -= bytes
            isTurnOpen = true
        }
    }

    // MARK: Leaves

    private mutating func close(_ code: String, _ text: String, _ effects: inout [Effect]) {
        state = .closing
        effects.append(.close(code: code, text: text))
    }

    private mutating func fork(_ place: Int, _ text: String, _ effects: inout [Effect]) {
        let name = files[place].name
        files[place].phase = .resting
        effects.append(.send(.error(code: "fork", text: "'\(name)': \(text)")))
        effects.append(.forked(file: name, text: text))
    }

    private mutating func rest(_ place: Int) {
        switch files[place].phase {
        case .asked: resumesInFlight -= 1
        case .streaming(let sent): unackedBytes -= sent - files[place].acknowledged
        case .unasked, .checking, .resting: break
        }
        files[place].phase = .resting
    }

    /// Rank and day of `<feed>_YYYYMMDD.jsonl`; nil for any other name.
    private static func parts(of name: String) -> (rank: Int, day: String)? {
        // What an operator waits for first: what happened, then money, then the rest (SPEC 8.3).
        let ranked: [Feed] = [.events, .fills, .markouts, .snapshots, .ticks, .quotes]
        guard name.hasSuffix(".jsonl") else { return nil }
        let stem = name.dropLast(6)
        let day = stem.suffix(8)
        guard day.utf8.count == 8, day.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
        guard let rank = ranked.firstIndex(where: { stem.dropLast(8) == $0.rawValue + "_" }) else { return nil }
        return (rank, String(day))
    }
}

/// Since when a file's durable bytes wait: places of its length, and when the first byte behind the place before became durable.
///
/// Bytes that become durable within a second share a place. At the bound every two neighbours become one, and from then on twice the time shares
/// one: what looks too old is so by at most a sixty-fourth of what has waited longest.
private struct WaitingBytes {
    private static let closest: Int64 = 1_000_000_000
    private var spacing = closest
    private var marks: [(length: Int64, at: Instant)] = []

    var oldest: Instant? { marks.first?.at }

    mutating func grew(to length: Int64, at now: Instant) {
        if let last = marks.last, now.since(last.at) < spacing {
            marks[marks.count - 1].length = length
            return
        }
        if marks.count == Limits.waitingMarksMax {
            marks = stride(from: 0, to: marks.count, by: 2).map { (marks[min($0 + 1, marks.count - 1)].length, marks[$0].at) }
            spacing *= 2
        }
        marks.append((length, now))
    }

    mutating func acknowledged(_ length: Int64) {
        marks.removeFirst(marks.prefix { $0.length <= length }.count)
        if marks.isEmpty { spacing = Self.closest }
    }

    /// The hub named its length: bytes it has acknowledged before and lost since wait from now on.
    mutating func rebase(to acknowledged: Int64, of length: Int64, at now: Instant) {
        self.acknowledged(acknowledged)
        if marks.isEmpty, acknowledged < length { marks = [(length, now)] }
    }
}
