import CalibModel
import Wire

// The prefix store (SPEC 8.2): the hub's file is the edge's file up to some length, and grows at its end only.
//
// Ingest decides about connections, files, offsets and lengths. It never sees a feed's bytes: the shell keeps the payload of the frame it
// is handing in, and writes it where `.write` says. Invariants:
//   1. Bytes are accepted at exactly the length received so far, of the connection's own host, in a file this connection has resumed.
//   2. An acknowledgement names only what `committed` has reported: it never precedes the sync.
//   3. One live connection per host.
//   4. A file whose bytes are not the edge's is left as it is: the feed's copy stops, and says so.
//
//   awaitingHello -> (contending ->) surveying -> open -> leaving, and `closed` from any of them

/// What a hub does with its connections and with the feed files they bring.
package struct Ingest {
    package enum Effect: Sendable, Equatable {
        case send(LinkID, Message)
        /// Sends the error, then closes. The shell reports `closed` as for every other end.
        case close(LinkID, code: String, text: String)
        /// Read what is held of the host, then call `surveyed`.
        case survey(LinkID, host: String, epoch: String)
        /// The client is let in: the shell adds what the control core knows and sends the welcome.
        case welcome(LinkID, Message.Hello, highestSeq: [Message.Welcome.FeedSeq])
        /// Sync the file and read its length, the checksum of its end and its first row's epoch, then call `inspected`.
        case inspect(LinkID, host: String, file: String)
        /// Append the frame's payload, which belongs at `offset`; later call `committed`.
        case write(host: String, file: String, offset: Int64)
        case pauseReading(LinkID)
        case resumeReading(LinkID)
        /// Worth an operator's attention.
        case alarm(host: String, code: String, text: String)
    }

    /// What the shell found out about one file.
    package struct Inspection: Sendable, Equatable {
        /// All of it synced.
        package var length: Int64
        /// Of the last min(length, `Limits.resumeCheckBytes`) bytes, 8 hex digits; nil for an empty file.
        package var tailCRC32C: String?
        /// The epoch of its first row; nil when there is none, or only a part of it.
        package var epoch: String?
        package init(length: Int64, tailCRC32C: String?, epoch: String?) {
            self.length = length
            self.tailCRC32C = tailCRC32C
            self.epoch = epoch
        }
    }

    package struct HeldFile: Sendable, Equatable {
        package var file: String
        package var length: Int64
        package init(file: String, length: Int64) {
            self.file = file
            self.length = length
        }
    }

    private enum LinkState {
        case awaitingHello
        /// Another connection of this identity has been pinged.
        case contending(Message.Hello, Message.Hello.Edge, deadline: Instant)
        case surveying(Message.Hello, Message.Hello.Edge)
        case open(Message.Hello.Edge)
        case openWithoutFeeds
        /// Told to go; whatever it still says is not heard.
        case leaving
    }

    private enum FileState {
        case inspecting(edgeLength: Int64)
        case open
        case forked
    }

    private struct Link {
        var peer: Peer
        var state = LinkState.awaitingHello
        /// Files this connection has asked to resume.
        var files: [String: FileState] = [:]
        var isPaused = false
        /// A ping sent for a contender.
        var ping: (number: Int64, contender: LinkID)?
    }

    private struct StoredFile {
        var received: Int64
        var synced: Int64
        var fork: String?
    }

    private var links: [LinkID: Link] = [:]
    /// The one connection that speaks for a host.
    private var live: [String: LinkID] = [:]
    private var hosts: [String: [String: StoredFile]] = [:]
    private var pings: Int64 = 0
    /// Bytes accepted since the start.
    package private(set) var receivedBytes: Int64 = 0

    package init() {}

    // MARK: Connections

    package mutating func opened(_ link: LinkID, peer: Peer) -> [Effect] {
        guard links.count < Limits.linksMax else {
            return leave(link, "busy", "the hub serves \(Limits.linksMax) connections already")
        }
        links[link] = Link(peer: peer)
        return []
    }

    package mutating func closed(_ link: LinkID, at now: Instant) -> [Effect] {
        guard let gone = links.removeValue(forKey: link) else { return [] }
        if gone.peer.role == .edge, live[gone.peer.name] == link { live[gone.peer.name] = nil }
        guard let contender = gone.ping?.contender else { return [] }
        return admit(contender)
    }

    /// Time passes: a contender whose rival stayed silent takes its place.
    package mutating func tick(_ now: Instant) -> [Effect] {
        var effects: [Effect] = []
        for (link, state) in links.sorted(by: { $0.key < $1.key }) {
            guard case .contending(_, let edge, let deadline) = state.state, now >= deadline, let old = live[edge.host] else { continue }
            links[old]?.ping = nil
            effects += leave(old, "replaced", "no pong within 1 s, and the same identity connected again")
            effects += admit(link)
        }
        return effects
    }

    /// A message for which the prefix store or the connection itself is responsible; nil when it is somebody else's.
    package mutating func received(_ message: Message, on link: LinkID, at now: Instant) -> [Effect]? {
        guard let state = links[link]?.state, let peer = links[link]?.peer else { return [] }
        switch (message, state) {
        case (_, .leaving): return []
        case (.hello(let hello), .awaitingHello): return self.hello(hello, link, peer, now)
        case (.hello, _): return leave(link, "hello_twice", "a connection says hello once")
        case (.ping(let number), _): return [.send(link, .pong(number: number))]
        case (.pong(let number), _): return pong(number, link)
        case (_, .awaitingHello): return leave(link, "hello_first", "the first message is hello")
        case (_, .contending), (_, .surveying): return leave(link, "welcome_first", "a client waits for welcome")
        case (.resume(let resume), .open(let edge)): return self.resume(resume, edge, link)
        case (.append(let append), .open(let edge)): return self.append(append, edge, link)
        case (.error("fork", let text), .open(let edge)): return forkedAtEdge(text, edge, link)
        case (.error, _): return []  // What a peer could not read is in its own log.
        case (.resume, .openWithoutFeeds), (.append, .openWithoutFeeds), (.status, .openWithoutFeeds), (.lease, .openWithoutFeeds),
            (.commandResult, .openWithoutFeeds):
            return leave(link, "identity", "\(peer.identity) is no edge")
        case (.request, .open): return leave(link, "identity", "\(peer.identity) may not send requests")
        case (.status, .open), (.lease, .open), (.commandResult, .open), (.request, .openWithoutFeeds): return nil
        case (.welcome, _), (.ack, _), (.assignment, _), (.command, _), (.reply, _), (.progress, _), (.chunk, _):
            return leave(link, "not_yours", "only a hub sends '\(message.type)'")
        }
    }

    /// The edge behind a connection, once it is let in.
    package func edge(_ link: LinkID) -> Message.Hello.Edge? {
        guard case .open(let edge)? = links[link]?.state else { return nil }
        return edge
    }

    /// Who is behind a connection.
    package func peer(_ link: LinkID) -> Peer? { links[link]?.peer }

    // MARK: Hello

    private mutating func hello(_ hello: Message.Hello, _ link: LinkID, _ peer: Peer, _ now: Instant) -> [Effect] {
        guard hello.protocolMin <= ProtocolVersion.current, hello.protocolMax >= ProtocolVersion.oldest else {
            return leave(
                link, "protocol", "this hub speaks versions \(ProtocolVersion.oldest) to \(ProtocolVersion.current) of the protocol")
        }
        switch (peer.role, hello.edge) {
        case (.operator, nil), (.viewer, nil):
            links[link]?.state = .openWithoutFeeds
            return [.welcome(link, hello, highestSeq: [])]
        case (.operator, _), (.viewer, _), (.edge, nil):
            return leave(link, "identity", "\(peer.identity) does not say hello like this")
        case (.edge, let edge?):
            guard edge.host == peer.name else {
                return leave(link, "wrong_host", "\(peer.identity) may not speak for host '\(edge.host.prefix(64))'")
            }
            guard HostName.isValid(edge.host), HostName.isEpoch(edge.epoch), edge.symbols.count <= Limits.symbolsMax,
                edge.symbols.allSatisfy({ (1...RowLimits.nameBytesMax).contains($0.utf8.count) })
            else { return leave(link, "bad_hello", "host, epoch or symbols are out of range") }
            guard hosts[edge.host] != nil || hosts.count < Limits.hostsMax else {
                return leave(link, "busy", "the hub knows \(Limits.hostsMax) hosts already")
            }
            guard let old = live[edge.host] else {
                links[link]?.state = .contending(hello, edge, deadline: now)
                return admit(link)
            }
            guard links[old]?.ping == nil else { return refuse(link, peer) }
            links[link]?.state = .contending(hello, edge, deadline: now.advanced(nanoseconds: Limits.identityPingNanoseconds))
            pings += 1
            links[old]?.ping = (pings, link)
            return [.send(old, .ping(number: pings))]
        }
    }

    /// A contender without a rival.
    private mutating func admit(_ link: LinkID) -> [Effect] {
        guard case .contending(let hello, let edge, _)? = links[link]?.state, let peer = links[link]?.peer else { return [] }
        // Somebody else was let in while the rival's end was on its way.
        guard live[edge.host] == nil else { return refuse(link, peer) }
        live[edge.host] = link
        links[link]?.state = .surveying(hello, edge)
        return [.survey(link, host: edge.host, epoch: edge.epoch)]
    }

    private mutating func pong(_ number: Int64, _ link: LinkID) -> [Effect] {
        guard let ping = links[link]?.ping, ping.number == number else { return [] }
        links[link]?.ping = nil
        guard let contender = links[ping.contender] else { return [] }  // It has left in the meantime.
        return refuse(ping.contender, contender.peer)
    }

    private mutating func refuse(_ link: LinkID, _ peer: Peer) -> [Effect] {
        leave(link, "identity_in_use", "\(peer.identity) is connected already")
            + [.alarm(host: peer.name, code: "identity_in_use", text: "a second connection of a live identity was refused")]
    }

    /// From here on nothing it says counts, and its host may connect again.
    private mutating func leave(_ link: LinkID, _ code: String, _ text: String) -> [Effect] {
        links[link]?.state = .leaving
        if let name = links[link]?.peer.name, live[name] == link { live[name] = nil }
        return [.close(link, code: code, text: text)]
    }

    /// The answer to `.survey`: the host's files, and the highest seq of the epoch per feed.
    package mutating func surveyed(_ link: LinkID, files: [HeldFile], highestSeq: [Message.Welcome.FeedSeq]) -> [Effect] {
        guard case .surveying(let hello, let edge)? = links[link]?.state else { return [] }  // It has left in the meantime.
        for held in files { note(held, of: edge.host) }
        if hosts[edge.host] == nil { hosts[edge.host] = [:] }
        links[link]?.state = .open(edge)
        return [.welcome(link, hello, highestSeq: highestSeq)]
    }

    /// What a hub finds in its feeds directory as it starts.
    package mutating func found(host: String, files: [HeldFile]) {
        hosts[host, default: [:]] = hosts[host, default: [:]]
        for held in files { note(held, of: host) }
    }

    private mutating func note(_ held: HeldFile, of host: String) {
        let fork = hosts[host]?[held.file]?.fork
        hosts[host, default: [:]][held.file] = StoredFile(received: held.length, synced: held.length, fork: fork)
    }

    // MARK: Files

    /// `<feed>_YYYYMMDD.jsonl` of a feed we know and a day that exists; nil for any other name, above all for one with a path in it.
    package static func parse(fileName: String) -> (feed: Feed, day: CalendarDay)? {
        guard fileName.hasSuffix(".jsonl"), let underscore = fileName.lastIndex(of: "_"),
            let feed = Feed(rawValue: String(fileName[..<underscore]))
        else { return nil }
        let digits = fileName[fileName.index(after: underscore)...].dropLast(6)
        guard digits.utf8.count == 8, digits.utf8.allSatisfy({ (48...57).contains($0) }), let number = Int(digits),
            let day = CalendarDay(year: number / 10_000, month: number / 100 % 100, day: number % 100)
        else { return nil }
        return (feed, day)
    }

    private mutating func resume(_ resume: Message.Resume, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        guard Self.parse(fileName: resume.file) != nil else { return badFile(link) }
        let files = hosts[edge.host] ?? [:]
        guard files[resume.file] != nil || files.count < Limits.hostFilesMax else {
            return leave(link, "busy", "the hub holds \(Limits.hostFilesMax) files of this host already")
        }
        links[link]?.files[resume.file] = .inspecting(edgeLength: resume.length)
        return [.inspect(link, host: edge.host, file: resume.file)]
    }

    /// The answer to `.inspect`.
    package mutating func inspected(_ link: LinkID, file: String, _ found: Inspection) -> [Effect] {
        guard case .open(let edge)? = links[link]?.state, case .inspecting(let edgeLength)? = links[link]?.files[file] else { return [] }
        hosts[edge.host, default: [:]][file] = StoredFile(received: found.length, synced: found.length, fork: nil)
        // The question is answered in any case: the edge sees from length and checksum that it must not go on.
        let answer = Effect.send(link, .resume(Message.Resume(file: file, length: found.length, tailCRC32C: found.tailCRC32C)))
        if let epoch = found.epoch, epoch != edge.epoch {
            return [answer] + fork(file, "the hub holds epoch \(epoch), the edge has epoch \(edge.epoch)", edge, link)
        }
        if found.length > edgeLength {
            return [answer] + fork(file, "the hub holds \(found.length) bytes, the edge has \(edgeLength)", edge, link)
        }
        links[link]?.files[file] = .open
        return [answer]
    }

    private mutating func append(_ append: Message.Append, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        guard Self.parse(fileName: append.file) != nil else { return badFile(link) }
        switch links[link]?.files[append.file] {
        case .forked: return [.send(link, Self.forkError(append.file, "is not copied any further"))]  // On its way as the refusal was.
        case nil, .inspecting: return leave(link, "resume_first", "a file is resumed before it is appended to")
        case .open: break
        }
        let length = hosts[edge.host]?[append.file]?.received ?? 0
        guard append.offset == length else {
            return leave(link, "wrong_offset", "\(append.file) has \(length) bytes here, not \(append.offset)")
        }
        hosts[edge.host]?[append.file]?.received += Int64(append.bytes)
        receivedBytes += Int64(append.bytes)
        var effects: [Effect] = [.write(host: edge.host, file: append.file, offset: length)]
        if links[link]?.isPaused == false, unackedBytes(of: edge.host) > Limits.unackedBytesMax {
            links[link]?.isPaused = true
            effects.append(.pauseReading(link))
        }
        return effects
    }

    /// The file is synced up to `length`.
    package mutating func committed(host: String, file: String, length: Int64) -> [Effect] {
        guard let stored = hosts[host]?[file] else { return [] }
        precondition(length <= stored.received, "BUG: \(file) synced to \(length) of \(stored.received) bytes")
        // An inspection on the way may have reported more already.
        guard length > stored.synced else { return [] }
        hosts[host]?[file]?.synced = length
        guard let link = live[host], case .open? = links[link]?.files[file] else { return [] }
        var effects: [Effect] = [.send(link, .ack(Message.Ack(file: file, length: length)))]
        if links[link]?.isPaused == true, unackedBytes(of: host) <= Limits.unackedBytesMax / 2 {
            links[link]?.isPaused = false
            effects.append(.resumeReading(link))
        }
        return effects
    }

    /// Writing or syncing a file failed: nothing is acknowledged, and the edge starts again from what is synced.
    package mutating func failed(host: String, file: String) -> [Effect] {
        if let stored = hosts[host]?[file] { hosts[host]?[file]?.received = stored.synced }
        guard let link = live[host] else { return [] }
        return leave(link, "disk", "the hub cannot store '\(file)'; try again later")
    }

    /// Accepted and not synced.
    package func unackedBytes(of host: String) -> Int64 { hosts[host]?.values.reduce(0) { $0 + $1.received - $1.synced } ?? 0 }

    // MARK: Forks

    /// The edge found that the bytes it has are not the ones the hub holds; its text begins with the file's name
    /// in quotes.
    private mutating func forkedAtEdge(_ text: String, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        let name = String(text.drop { $0 == "'" }.prefix { $0 != "'" })
        guard links[link]?.files[name] != nil else { return [] }
        return fork(name, "the edge has other bytes", edge, link)
    }

    private mutating func fork(_ file: String, _ why: String, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        links[link]?.files[file] = .forked
        hosts[edge.host]?[file]?.fork = why
        return [.send(link, Self.forkError(file, why)), .alarm(host: edge.host, code: "fork", text: "\(file): \(why)")]
    }

    private static func forkError(_ file: String, _ why: String) -> Message { .error(code: "fork", text: "'\(file)': \(why)") }

    private mutating func badFile(_ link: LinkID) -> [Effect] { leave(link, "bad_file", "a file is called <feed>_YYYYMMDD.jsonl") }

    // MARK: Views

    package var hostNames: [String] { hosts.keys.sorted() }

    /// By name.
    package func files(of host: String) -> [HeldFile] {
        (hosts[host] ?? [:]).sorted { $0.key < $1.key }.map { HeldFile(file: $0.key, length: $0.value.synced) }
    }

    package func forks(of host: String) -> [(file: String, why: String)] {
        (hosts[host] ?? [:]).sorted { $0.key < $1.key }.compactMap { entry in entry.value.fork.map { (entry.key, $0) } }
    }

    package var connectedEdges: Int { live.count }
}

/// The highest seq in a feed file's last bytes, of one epoch (SPEC 2, 8.2).
package enum FeedTail {
    /// `startsAtRow`: whether the first byte begins a row; else the piece before the first newline is left out. Nil when no row of the epoch
    /// is there.
    package static func highestSeq(in tail: UnsafeRawBufferPointer, startsAtRow: Bool, epoch: String) -> Int64? {
        let wanted = Array(epoch.utf8)
        var highest: Int64?
        var start = 0
        var isWhole = startsAtRow
        while start < tail.count {
            let end = UnsafeRawBufferPointer(rebasing: tail[start...]).firstIndex(of: 0x0a).map { start + $0 } ?? tail.count
            if isWhole, let row = RowIdentity(line: UnsafeRawBufferPointer(rebasing: tail[start..<end])), row.epoch == wanted {
                highest = max(highest ?? row.seq, row.seq)
            }
            isWhole = true
            start = end + 1
        }
        return highest
    }

    /// The epoch of a file's first row; nil when `head` holds no whole row.
    package static func epoch(ofHead head: UnsafeRawBufferPointer) -> String? {
        guard let end = head.firstIndex(of: 0x0a), let row = RowIdentity(line: UnsafeRawBufferPointer(rebasing: head[..<end])) else {
            return nil
        }
        return String(decoding: row.epoch, as: UTF8.self)
    }
}
