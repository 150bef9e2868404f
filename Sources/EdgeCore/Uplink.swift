import CalibModel
import Wire

/// The edge's side of the link to the hub: which bytes of which file go next, and when to call again (SPEC 8.2, 8.3).
///
/// Per connection: hello, welcome, then per file: `resume` both ways, page by page the hub's checksums compared with ours, bytes appended from the
/// hub's length on, acks. Where a block differs, the file differs behind the last newline before that block: that is told to the hub, which goes on
/// in a part, or lets us fill up what its disk has lost. So up to a block and a row of equal rows come twice; a row's identity makes them one.
///
/// A file that is complete is told by its digest instead (`sealed`): a hub that has it says so, and neither reads it again on any connection. What
/// retention removed is told, too (`gone`). Both need version 2 of the protocol.
///
/// Invariants:
/// 1. Only synced bytes leave: `offset + bytes` of an append never passes what `grew` told.
/// 2. The bytes of one file leave in order without a gap, from the length the hub named on this connection.
/// 3. Sent and unacknowledged bytes of all files never pass `Limits.unackedBytesMax`.
/// 4. One turn sends at most `Limits.appendTurnBytes`; the next begins when the shell says that the turn's bytes left.
/// 5. No file stops for good: one that cannot be read is tried again, one that the hub cannot store waits for the hub.
/// 6. The back-off begins anew only after a welcome: a TLS handshake proves nothing (the hub checks our certificate behind it).
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
        /// The file is complete, and `grew` has told all of it.
        case sealed(Message.Sealed)
        /// The file is gone from our disk.
        case removed(file: String)
        /// The answer to `ask`; nil when the file cannot be read.
        case answered(FeedQuestion, FeedQuestion.Answer?)
        /// The last turn's bytes left our buffers.
        case turnEnded
        /// A file whose bytes could not be read: it is tried again.
        case unreadable(file: String)
        /// A control message: sent when welcomed, else forgotten, because the hub repeats what it needs an answer to.
        case say(Message)
        case tick
    }

    package enum Effect: Equatable, Sendable {
        case connect(afterNanoseconds: Int64)
        case send(Message)
        /// Find it out and answer with `.answered`.
        case ask(FeedQuestion)
        /// An `append` with these bytes of the file; when those of one step left, answer with `.turnEnded`.
        case sendBytes(file: String, offset: Int64, bytes: Int)
        /// Tell the hub why and close; `.disconnected` follows.
        case close(code: String, text: String)
        /// Lease, assignment, command: for who decides about arms and kills.
        case deliver(Message)
        case welcomed(Message.Welcome)
        /// The hub's copy has other bytes than ours from a place on: it stores ours apart, unless its own disk was wrong.
        case differs(file: String, at: Int64)
        /// The hub goes on with the file in a new part, which begins there: two histories of one file exist.
        case forked(file: String, at: Int64)
        /// The hub's complaint.
        case complained(code: String, text: String)
    }

    /// Where a file stands on this connection.
    private enum Phase: Equatable {
        case unasked
        /// The hub was asked for the page of blocks from this one on.
        case asked(from: Int64)
        /// The hub's page is being compared with our bytes.
        case comparing(Message.Resume, FeedQuestion)
        /// The copies differ in the block that begins here: where does its first row begin?
        case locating(Message.Resume, FeedQuestion)
        /// The hub was told where they differ; it was writing to this part then.
        case differing(part: Int64)
        case streaming(sent: Int64)
        /// Complete, and the hub has found its copy to be the same.
        case settled
        /// The hub cannot store it, and says so when it can.
        case stalled
        /// It could not be read.
        case resting(until: Instant)

        var isSettling: Bool {
            switch self {
            case .asked, .comparing, .locating, .differing: true
            case .unasked, .streaming, .settled, .stalled, .resting: false
            }
        }
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
        /// The newest place up to which our bytes are known to be those of the hub's earlier files, and their checksum.
        var prefix: (length: Int64, crc32c: String?) = (0, nil)
        var waiting = WaitingBytes()
        var seal: Message.Sealed?
        /// The hub has said on this connection that it has the complete file.
        var isSettled = false
        /// On this connection the hub was told of the seal when it had acknowledged so much.
        var sealToldAt: Int64?

        var isComplete: Bool { seal.map { $0.bytes == syncedLength } ?? false }
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
    private let blockBytes: Int64
    private var isTurnOpen = false
    private var unackedBytes: Int64 = 0
    /// Of the hub's welcome.
    private var version: Int64 = 0
    /// Removed while nobody could be told.
    private var untoldGone: [Message.Gone] = []
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
    package init(bounds: ReplicationBounds = .production, random: @escaping @Sendable (ClosedRange<Int64>) -> Int64) {
        backOff = BackOff(random: random)
        blockBytes = Int64(bounds.blockBytes)
    }

    package var isConnected: Bool { if case .ready = state { true } else { false } }

    /// The length of each file that may be removed as far as the hub is concerned (SPEC 2.7): it has found its copy to be our complete file. A hub
    /// of version 1 says no such thing, and its acknowledgement of every byte counts.
    package var heldLengths: [String: Int64] {
        Dictionary(
            uniqueKeysWithValues: files.filter { $0.isSettled || isConnected && version == 1 && $0.acknowledged > 0 }
                .map { ($0.name, $0.acknowledged) })
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
        case .sealed(let sealed): if let place = places[sealed.file] { files[place].seal = sealed }
        case .removed(let file): remove(file, &effects)
        case .answered(let question, let answer): answered(question, answer, at: now, &effects)
        case .turnEnded: isTurnOpen = false
        case .unreadable(let file): if let place = places[file] { rest(place, at: now) }
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
        for place in files.indices {
            // A hub that comes back may have lost its disk: what it said counts as long as it is there.
            (files[place].phase, files[place].sealToldAt, files[place].isSettled) = (.unasked, nil, false)
        }
        (unackedBytes, isTurnOpen) = (0, false)
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
        setOrder()
    }

    private mutating func remove(_ name: String, _ effects: inout [Effect]) {
        guard let place = places[name] else { return }
        takeBack(place)
        let gone = Message.Gone(file: name, bytes: files.remove(at: place).syncedLength)
        places = Dictionary(uniqueKeysWithValues: files.indices.map { (files[$0].name, $0) })
        setOrder()
        if isConnected {
            if version >= 2 { effects.append(.send(.gone(gone))) }
        } else {
            untoldGone = untoldGone.suffix(Limits.goneFilesMax - 1) + [gone]
        }
    }

    private mutating func setOrder() {
        let today = files.map(\.day).max() ?? ""
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
            for place in files.indices { if case .resting(let until) = files[place].phase, now >= until { files[place].phase = .unasked } }
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
            case .sealed(let sealed): settled(sealed, &effects)
            case .lease, .assignment, .command: effects.append(.deliver(message))
            case .hello, .welcome, .append, .gone, .status, .commandResult, .breaker, .request, .reply, .progress, .chunk:
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
        version = welcome.version
        effects.append(.welcomed(welcome))
        if version >= 2 { effects += untoldGone.map { .send(.gone($0)) } }
        untoldGone = []
    }

    /// The hub's place in a file: its answer, or its wish to go back, such as after its disk failed.
    private mutating func resumed(_ resume: Message.Resume, at now: Instant, _ effects: inout [Effect]) {
        guard let place = places[resume.file] else {
            effects.append(.send(.error(code: "unknown_file", text: "there is no '\(resume.file)' here")))
            return
        }
        if case .unasked = files[place].phase {
            effects.append(.send(.error(code: "unexpected", text: "'\(resume.file)' was not asked for")))
            return
        }
        takeBack(place)
        // Its promises about this file begin anew with what it says now.
        (files[place].acknowledged, files[place].isSettled) = (0, false)
        if isFork(resume, files[place].phase) { effects.append(.forked(file: resume.file, at: resume.base)) }
        if resume.isStalled {
            files[place].phase = .stalled
            return
        }
        let blocks = (resume.length - resume.base + blockBytes - 1) / blockBytes
        guard resume.length >= resume.base, resume.from <= blocks, resume.blocks.count <= blocks - resume.from,
            !resume.blocks.isEmpty || resume.from == blocks
        else { return close("bad_resume", "'\(resume.file)': pages and length do not go together", &effects) }
        let own = files[place].syncedLength
        guard resume.base <= own else { return differ(place, at: 0, nil, from: resume, &effects) }
        let start = resume.base + resume.from * blockBytes
        // Blocks of which we have every byte that the hub has.
        let end = min(start + Int64(resume.blocks.count) * blockBytes, resume.length)
        let comparable = end <= own ? end : start + (own - start) / blockBytes * blockBytes
        let isPrefixKnown = files[place].prefix.length == resume.base && files[place].prefix.crc32c == resume.prefixCRC32C
        let question = FeedQuestion(
            file: resume.file,
            part: .checksums(
                prefix: isPrefixKnown || resume.from > 0 ? 0 : resume.base, start: start, end: comparable, blockBytes: Int(blockBytes)))
        files[place].phase = .comparing(resume, question)
        if resume.blocks.isEmpty, isPrefixKnown || resume.base == 0 {
            answered(question, FeedQuestion.Answer(), at: now, &effects)
        } else {
            effects.append(.ask(question))
        }
    }

    /// The hub begins a part: because we differ, or because what it has is of another epoch.
    private func isFork(_ resume: Message.Resume, _ phase: Phase) -> Bool {
        guard let part = resume.part, part > 0, resume.length == resume.base, !resume.isStalled else { return false }
        switch phase {
        case .differing(let before): return part != before
        case .asked: return true
        case .unasked, .comparing, .locating, .streaming, .settled, .stalled, .resting: return false
        }
    }

    private mutating func answered(
        _ question: FeedQuestion, _ answer: FeedQuestion.Answer?, at now: Instant, _ effects: inout [Effect]
    ) {
        guard let place = places[question.file] else { return }
        switch files[place].phase {
        case .comparing(let resume, question):
            guard let answer else { return rest(place, at: now) }
            compared(place, resume, question, answer, at: now, &effects)
        case .locating(let resume, question):
            guard let answer else { return rest(place, at: now) }
            differ(place, at: answer.rowStart, answer.prefixCRC32C, from: resume, &effects)
        // Of a connection gone, or overtaken.
        case .unasked, .asked, .comparing, .locating, .differing, .streaming, .settled, .stalled, .resting: break
        }
    }

    private mutating func compared(
        _ place: Int, _ resume: Message.Resume, _ question: FeedQuestion, _ answer: FeedQuestion.Answer, at now: Instant,
        _ effects: inout [Effect]
    ) {
        if case .checksums(let prefix, _, _, _) = question.part, prefix > 0 {
            // What lies in the hub's earlier files is not what we have now: everything goes to a part.
            guard answer.prefixCRC32C == resume.prefixCRC32C else { return differ(place, at: 0, nil, from: resume, &effects) }
            files[place].prefix = (prefix, answer.prefixCRC32C)
        }
        let equal = zip(resume.blocks, answer.blocks).prefix { $0 == $1 }.count
        guard equal == resume.blocks.count else {
            let start = resume.base + (resume.from + Int64(equal)) * blockBytes
            guard start > 0 else { return differ(place, at: 0, nil, from: resume, &effects) }
            let question = FeedQuestion(file: resume.file, part: .row(at: start))
            files[place].phase = .locating(resume, question)
            return effects.append(.ask(question))
        }
        let next = resume.from + Int64(equal)
        if resume.base + next * blockBytes < resume.length {
            files[place].phase = .asked(from: next)
            return effects.append(
                .send(.resume(Message.Resume(file: resume.file, length: files[place].syncedLength, from: next))))
        }
        files[place].acknowledged = resume.length
        files[place].phase = .streaming(sent: resume.length)
        files[place].waiting.rebase(to: resume.length, of: files[place].syncedLength, at: now)
    }

    /// The hub has the complete file.
    private mutating func settled(_ sealed: Message.Sealed, _ effects: inout [Effect]) {
        guard let place = places[sealed.file] else { return }  // Removed in the meantime.
        guard sealed == files[place].seal, files[place].isComplete else {
            return close("bad_sealed", "'\(sealed.file)' holds something else here", &effects)
        }
        switch files[place].phase {
        case .asked, .streaming: break
        // An answer that was overtaken: what the hub says since counts.
        case .unasked, .comparing, .locating, .differing, .settled, .stalled, .resting: return
        }
        takeBack(place)
        (files[place].phase, files[place].isSettled) = (.settled, true)
        files[place].acknowledged = sealed.bytes
        files[place].waiting.acknowledged(sealed.bytes)
    }

    private mutating func differ(
        _ place: Int, at start: Int64, _ prefixCRC32C: String?, from resume: Message.Resume, _ effects: inout [Effect]
    ) {
        files[place].phase = .differing(part: resume.part ?? 0)
        files[place].prefix = (start, prefixCRC32C)
        let (name, length) = (files[place].name, files[place].syncedLength)
        effects.append(.send(.resume(Message.Resume(file: name, length: length, differsAt: start, prefixCRC32C: prefixCRC32C))))
        effects.append(.differs(file: name, at: start))
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
        var settling = files.count { $0.phase.isSettling }
        for place in order where settling < Limits.resumesInFlightMax && files[place].phase == .unasked {
            files[place].phase = .asked(from: 0)
            settling += 1
            if let seal = files[place].seal, files[place].isComplete, version >= 2 {
                files[place].sealToldAt = 0
                effects.append(.send(.sealed(seal)))
            } else {
                effects.append(.send(.resume(Message.Resume(file: files[place].name, length: files[place].syncedLength))))
            }
        }
        if version >= 2 { tellSeals(&effects) }
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

    /// Of complete files that the hub has acknowledged to the end since it was last told.
    private mutating func tellSeals(_ effects: inout [Effect]) {
        for place in files.indices {
            guard let seal = files[place].seal, case .streaming = files[place].phase, files[place].isComplete,
                files[place].acknowledged == seal.bytes, files[place].sealToldAt != seal.bytes
            else { continue }
            files[place].sealToldAt = seal.bytes
            effects.append(.send(.sealed(seal)))
        }
    }

    // MARK: Leaves

    private mutating func close(_ code: String, _ text: String, _ effects: inout [Effect]) {
        state = .closing
        effects.append(.close(code: code, text: text))
    }

    private mutating func rest(_ place: Int, at now: Instant) {
        takeBack(place)
        files[place].phase = .resting(until: now.advanced(nanoseconds: Limits.edgeReadRetryNanoseconds))
    }

    /// What was sent of the file and not acknowledged does not count any more.
    private mutating func takeBack(_ place: Int) {
        if case .streaming(let sent) = files[place].phase { unackedBytes -= sent - files[place].acknowledged }
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
