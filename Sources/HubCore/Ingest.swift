import CalibModel
import Wire

// The prefix store (SPEC 8.2): the hub's copy of a file is the edge's bytes from its base on, and grows at its end only.
//
// Ingest decides about connections, files, offsets and lengths. It never sees a feed's bytes: the shell keeps the payload of the frame it
// is handing in, and writes it where `.write` says. Invariants:
//   1. Bytes are accepted at exactly the length received so far, of the connection's own host, in a file this connection has resumed.
//   2. An acknowledgement names only what `committed` has reported: it never precedes the sync.
//   3. One live connection per host.
//   4. What was received stays. Where an edge has other bytes, its bytes go to a new part, which is in the control log before its first byte; bytes
//      that the hub's own disk lost or turned are fetched again.
//   5. Accepted and unsynced bytes never pass the pool by more than one frame of each connection: beyond it nobody is read from.
//   6. A file that cannot be stored is tried again each second; meanwhile its bytes are dropped unacknowledged, and everything else goes on. So does
//      everything else when a file is refused because the hub holds as many as it may.
//   7. That a file is complete here is said only after its bytes were found to have the edge's digest.
//
// A file on a connection:
//   inspecting -> open -> (differs) verifying -> recording -> open, or verifying -> inspecting when the hub's own disk was wrong
//   any -> stalled -> rewinding -> open when it could not be stored
//   nothing or open -> sealing -> open once it is found to be complete; -> verifying when it is not what the edge has
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
        /// Sync the hub's file and find out what is in it, then call `inspected`.
        case inspect(LinkID, host: String, file: String, fromBlock: Int64)
        /// Compare all of the hub's file with its receipts, then call `verified`.
        case verify(LinkID, host: String, file: String)
        /// Are these bytes of the hub's files, one span behind the other, the edge's complete file? Then call `sealed`. `file` is the hub's newest.
        case seal(LinkID, host: String, file: String, Message.Sealed, [FileSpan])
        /// Make the part durable in the control log, then call `recorded`.
        case record(host: String, FeedPart)
        /// Append the frame's payload, which belongs at `offset` of the hub's file; later call `committed`.
        case write(host: String, file: String, epoch: String, offset: Int64)
        case pauseReading(LinkID)
        case resumeReading(LinkID)
        /// Worth an operator's attention.
        case alarm(host: String, code: String, text: String)
    }

    /// What the committer found out about one file of the hub.
    package struct Inspection: Sendable, Equatable {
        /// All of it synced.
        package var length: Int64
        /// The epoch of the edge whose bytes they are; nil when there are none.
        package var epoch: String?
        /// CRC32C of a page of blocks as they were received, 8 hex digits.
        package var blocks: [String]
        package init(length: Int64, epoch: String?, blocks: [String]) {
            self.length = length
            self.epoch = epoch
            self.blocks = blocks
        }
    }

    /// The first bytes of one of the hub's files.
    package struct FileSpan: Sendable, Equatable {
        package var file: String
        package var bytes: Int64
        package init(file: String, bytes: Int64) {
            self.file = file
            self.bytes = bytes
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

    /// One file of the hub, and which bytes of the edge's it holds.
    private struct Copy: Equatable {
        var file: String
        var number: Int
        var base: Int64
        var prefixCRC32C: String?
        var name: String { FeedPart.name(file, number) }
    }

    private enum FileState {
        /// The page of blocks from one on was asked for.
        case inspecting(Copy, fromBlock: Int64)
        case open(Copy)
        /// The edge has been told to begin again at the copy's length: what it sent before lies elsewhere, and is dropped.
        case rewinding(Copy)
        case verifying(Copy, differsAt: Int64, prefixCRC32C: String?)
        case recording(FeedPart)
        /// Its digest is being taken.
        case sealing(Copy, Message.Sealed)
        case stalled(Copy, retryAt: Instant)
        /// There is no room for it at all.
        case refused

        var copy: Copy? {
            switch self {
            case .inspecting(let copy, _), .open(let copy), .rewinding(let copy), .verifying(let copy, _, _), .sealing(let copy, _),
                .stalled(let copy, _):
                copy
            case .recording, .refused: nil
            }
        }
    }

    private struct Link {
        var peer: Peer
        var state = LinkState.awaitingHello
        /// Files this connection has asked to resume.
        var files: [String: FileState] = [:]
        /// Complete files of the edge whose digest was not that of the bytes here: they are compared, once.
        var compared: Set<String> = []
        /// A ping sent for a contender.
        var ping: (number: Int64, contender: LinkID)?
    }

    /// By the name of the hub's file; lengths are the hub's, too.
    private struct StoredFile {
        var received: Int64
        var synced: Int64
    }

    private struct HostFiles {
        var files: [String: StoredFile] = [:]
        /// By the edge's file, in the order of their numbers.
        var parts: [String: [FeedPart]] = [:]
        /// Parts on their way to the control log.
        var proposed: [FeedPart] = []
        var unsynced: Int64 = 0
        /// Bytes that were gone at the edge before they came.
        var goneBytes: Int64 = 0
    }

    private var links: [LinkID: Link] = [:]
    /// The one connection that speaks for a host.
    private var live: [String: LinkID] = [:]
    private var hosts: [String: HostFiles] = [:]
    // The few that time or a sync has something to do for: those come often, and there may be a thousand links.
    private var contenders: Set<LinkID> = []
    /// Not read from.
    private var paused: Set<LinkID> = []
    /// A file of theirs cannot be stored at present.
    private var stalledHosts: Set<String> = []
    private var pings: Int64 = 0
    private let bounds: ReplicationBounds
    /// Accepted and unsynced, of all hosts.
    package private(set) var unsyncedBytes: Int64 = 0
    /// As of the last input.
    private var now = Instant(nanoseconds: 0)
    /// Bytes accepted since the start.
    package private(set) var receivedBytes: Int64 = 0

    package init(bounds: ReplicationBounds = .production) { self.bounds = bounds }

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
        contenders.remove(link)
        paused.remove(link)
        if gone.peer.role == .edge, live[gone.peer.name] == link { live[gone.peer.name] = nil }
        guard let contender = gone.ping?.contender else { return [] }
        return admit(contender)
    }

    /// Time passes: a contender whose rival stayed silent takes its place.
    package mutating func tick(_ now: Instant) -> [Effect] {
        self.now = now
        var effects: [Effect] = []
        for host in stalledHosts.sorted() { effects += retry(host) }
        for link in contenders.sorted() {
            guard case .contending(_, let edge, let deadline)? = links[link]?.state, now >= deadline, let old = live[edge.host] else {
                continue
            }
            links[old]?.ping = nil
            effects += leave(old, "replaced", "no pong within 1 s, and the same identity connected again")
            effects += admit(link)
        }
        return effects
    }

    /// A message for which the prefix store or the connection itself is responsible; nil when it is somebody else's.
    package mutating func received(_ message: Message, on link: LinkID, at now: Instant) -> [Effect]? {
        self.now = now
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
        case (.sealed(let sealed), .open(let edge)): return seal(sealed, edge, link)
        case (.gone(let gone), .open(let edge)): return self.gone(gone, edge, link)
        case (.error, _): return []  // What a peer could not read is in its own log.
        case (.resume, .openWithoutFeeds), (.append, .openWithoutFeeds), (.sealed, .openWithoutFeeds), (.gone, .openWithoutFeeds),
            (.status, .openWithoutFeeds), (.lease, .openWithoutFeeds), (.commandResult, .openWithoutFeeds), (.breaker, .openWithoutFeeds):
            return leave(link, "identity", "\(peer.identity) is no edge")
        case (.request, .open): return leave(link, "identity", "\(peer.identity) may not send requests")
        case (.status, .open), (.lease, .open), (.commandResult, .open), (.breaker, .open), (.request, .openWithoutFeeds): return nil
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
            contenders.insert(link)
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
        contenders.remove(link)
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
        contenders.remove(link)
        if let name = links[link]?.peer.name, live[name] == link { live[name] = nil }
        return [.close(link, code: code, text: text)]
    }

    /// The answer to `.survey`: the host's files, and the highest seq of the epoch per feed.
    package mutating func surveyed(_ link: LinkID, files: [HeldFile], highestSeq: [Message.Welcome.FeedSeq]) -> [Effect] {
        guard case .surveying(let hello, let edge)? = links[link]?.state else { return [] }  // It has left in the meantime.
        for held in files { note(held, of: edge.host) }
        if hosts[edge.host] == nil { hosts[edge.host] = HostFiles() }
        links[link]?.state = .open(edge)
        return [.welcome(link, hello, highestSeq: highestSeq)]
    }

    /// What a hub finds in its feeds directory and its control log as it starts.
    package mutating func found(host: String, files: [HeldFile], parts: [FeedPart] = []) {
        if hosts[host] == nil { hosts[host] = HostFiles() }
        for held in files { note(held, of: host) }
        for part in parts { add(part, host) }
    }

    private mutating func note(_ held: HeldFile, of host: String) {
        // What is being written is known better here.
        if hosts[host]?.files[held.file]?.received ?? 0 <= held.length {
            store(host, held.file, received: held.length, synced: held.length)
        }
    }

    private mutating func add(_ part: FeedPart, _ host: String) {
        hosts[host, default: HostFiles()].parts[part.file, default: []].append(part)
    }

    /// The one place where lengths change, so that the sums stay right.
    private mutating func store(_ host: String, _ name: String, received: Int64, synced: Int64) {
        let old = hosts[host]?.files[name].map { $0.received - $0.synced } ?? 0
        hosts[host, default: HostFiles()].files[name] = StoredFile(received: received, synced: synced)
        hosts[host]!.unsynced += received - synced - old
        unsyncedBytes += received - synced - old
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

    /// The copy that an edge of this epoch goes on with: the newest of its parts, or the file that came first, until that turns out to be
    /// another epoch's.
    private func copy(of file: String, _ edge: Message.Hello.Edge) -> Copy {
        let part = hosts[edge.host]?.parts[file]?.last { $0.epoch == edge.epoch }
        return Copy(file: file, number: part?.number ?? 0, base: part?.base ?? 0, prefixCRC32C: part?.prefixCRC32C)
    }

    private mutating func resume(_ resume: Message.Resume, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        guard Self.parse(fileName: resume.file) != nil else { return badFile(link) }
        let copy = copy(of: resume.file, edge)
        let files = hosts[edge.host]?.files ?? [:]
        guard files[copy.name] != nil || files.count < Limits.hostFilesMax else {
            return refuse(resume.file, copy, edge, link, "the hub holds \(Limits.hostFilesMax) files of this host already")
        }
        if case .stalled? = links[link]?.files[resume.file] { return [] }  // It is answered when the disk takes bytes again.
        guard let differsAt = resume.differsAt else {
            links[link]?.files[resume.file] = .inspecting(copy, fromBlock: resume.from)
            return [.inspect(link, host: edge.host, file: copy.name, fromBlock: resume.from)]
        }
        guard differsAt == 0 || (differsAt >= copy.base && resume.prefixCRC32C != nil), differsAt <= resume.length else {
            return leave(link, "bad_resume", "\(resume.file) cannot differ at \(differsAt)")
        }
        links[link]?.files[resume.file] = .verifying(copy, differsAt: differsAt, prefixCRC32C: differsAt == 0 ? nil : resume.prefixCRC32C)
        return [.verify(link, host: edge.host, file: copy.name)]
    }

    /// The answer to `.inspect`; `file` is the hub's.
    package mutating func inspected(_ link: LinkID, file name: String, fromBlock: Int64 = 0, _ found: Inspection) -> [Effect] {
        guard case .open(let edge)? = links[link]?.state, let file = FeedPart.parse(name)?.file, let state = links[link]?.files[file],
            let copy = state.copy, copy.name == name
        else { return [] }
        store(edge.host, name, received: found.length, synced: found.length)
        defer { noteUnstalled(edge.host, link) }
        if copy.number == 0, let epoch = found.epoch, epoch != edge.epoch {
            // The file that came first is another epoch's: nothing of this one has come yet.
            return begin(file, base: 0, prefixCRC32C: nil, edge, link)
        }
        switch state {
        case .inspecting(_, let fromBlock):
            links[link]?.files[file] = .open(copy)
            return [answer(link, copy, found.length, fromBlock, found.blocks)] + refill()
        case .stalled, .rewinding:
            links[link]?.files[file] = .rewinding(copy)
            return [answer(link, copy, found.length, 0, found.blocks)] + refill()
        // Of a question before; the one that counts is still to be answered.
        case .open, .verifying, .recording, .sealing, .refused: return []
        }
    }

    /// The file is not taken, the connection goes on.
    private mutating func refuse(_ file: String, _ copy: Copy, _ edge: Message.Hello.Edge, _ link: LinkID, _ text: String) -> [Effect] {
        links[link]?.files[file] = .refused
        return [stalled(file, copy, link), .alarm(host: edge.host, code: "files", text: "\(file) is refused: \(text)")]
    }

    /// The hub answers for nothing of it: what its disk holds of the file may never have been compared with what was received.
    private func stalled(_ file: String, _ copy: Copy, _ link: LinkID) -> Effect {
        .send(
            link, .resume(Message.Resume(file: file, length: copy.base, base: copy.base, prefixCRC32C: copy.prefixCRC32C, isStalled: true)))
    }

    private func answer(_ link: LinkID, _ copy: Copy, _ length: Int64, _ fromBlock: Int64, _ blocks: [String]) -> Effect {
        .send(
            link,
            .resume(
                Message.Resume(
                    file: copy.file, length: copy.base + length, from: fromBlock, base: copy.base, prefixCRC32C: copy.prefixCRC32C,
                    blocks: blocks, part: Int64(copy.number))))
    }

    /// The answer to `.verify`: bytes that are as they were received are kept, and the edge's go to a new part; others were the hub's fault.
    package mutating func verified(_ link: LinkID, file name: String, _ found: Inspection, isDamaged: Bool) -> [Effect] {
        guard case .open(let edge)? = links[link]?.state, let file = FeedPart.parse(name)?.file,
            case .verifying(let copy, let differsAt, let prefix)? = links[link]?.files[file], copy.name == name
        else { return [] }
        store(edge.host, name, received: found.length, synced: found.length)
        guard isDamaged || copy.base + found.length <= differsAt else {
            return begin(file, base: differsAt, prefixCRC32C: prefix, edge, link)
        }
        links[link]?.files[file] = .open(copy)
        return [answer(link, copy, found.length, 0, found.blocks)]
    }

    private mutating func begin(_ file: String, base: Int64, prefixCRC32C: String?, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect]
    {
        let known = (hosts[edge.host]?.parts[file] ?? []) + (hosts[edge.host]?.proposed ?? []).filter { $0.file == file }
        // Files, too: a control log that was lost has left its parts behind, and none of them is written to again.
        let held = (hosts[edge.host]?.files ?? [:]).keys.compactMap { FeedPart.parse($0) }.filter { $0.file == file }.map(\.number)
        let number = max(known.map(\.number).max() ?? 0, held.max() ?? 0) + 1
        guard number <= Limits.filePartsMax else {
            return refuse(file, copy(of: file, edge), edge, link, "it has \(Limits.filePartsMax) parts already")
        }
        let part = FeedPart(file: file, number: number, epoch: edge.epoch, base: base, prefixCRC32C: prefixCRC32C)
        hosts[edge.host]?.proposed.append(part)
        links[link]?.files[file] = .recording(part)
        return [
            .record(host: edge.host, part),
            .alarm(
                host: edge.host, code: "fork",
                text:
                    "\(file): the edge (epoch \(edge.epoch)) has other bytes from byte \(base) on; they go to \(FeedPart.name(file, number))"
            ),
        ]
    }

    /// The answer to `.record`.
    package mutating func recorded(host: String, _ part: FeedPart) -> [Effect] {
        hosts[host]?.proposed.removeAll { $0 == part }
        add(part, host)
        let copy = Copy(file: part.file, number: part.number, base: part.base, prefixCRC32C: part.prefixCRC32C)
        store(host, copy.name, received: 0, synced: 0)
        guard let link = live[host], case .recording(part)? = links[link]?.files[part.file] else { return [] }
        links[link]?.files[part.file] = .open(copy)
        return [answer(link, copy, 0, 0, [])]
    }

    private mutating func append(_ append: Message.Append, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        guard Self.parse(fileName: append.file) != nil else { return badFile(link) }
        let copy: Copy
        switch links[link]?.files[append.file] {
        case nil, .inspecting, .verifying, .recording, .sealing:
            return leave(link, "resume_first", "a file is resumed before it is appended to")
        case .stalled, .refused: return []
        case .rewinding(let found):
            guard append.offset == found.base + (hosts[edge.host]?.files[found.name]?.received ?? 0) else { return [] }
            links[link]?.files[append.file] = .open(found)
            copy = found
        case .open(let found): copy = found
        }
        let stored = hosts[edge.host]?.files[copy.name] ?? StoredFile(received: 0, synced: 0)
        guard append.offset == copy.base + stored.received else {
            return leave(link, "wrong_offset", "\(append.file) has \(copy.base + stored.received) bytes here, not \(append.offset)")
        }
        store(edge.host, copy.name, received: stored.received + Int64(append.bytes), synced: stored.synced)
        receivedBytes += Int64(append.bytes)
        return [.write(host: edge.host, file: copy.name, epoch: edge.epoch, offset: stored.received)] + restrain(link, edge.host)
    }

    /// The hub's file is synced up to `length`.
    package mutating func committed(host: String, file name: String, length: Int64) -> [Effect] {
        guard let stored = hosts[host]?.files[name] else { return [] }
        // After a failure fewer count as received than were under way; an inspection on the way may have reported more already.
        guard length > stored.synced, length <= stored.received else { return refill() }
        store(host, name, received: stored.received, synced: length)
        guard let link = live[host], let file = FeedPart.parse(name)?.file, case .open(let copy)? = links[link]?.files[file],
            copy.name == name
        else { return refill() }
        return [.send(link, .ack(Message.Ack(file: file, length: copy.base + length)))] + refill()
    }

    /// Writing, syncing or reading a hub's file failed: nothing more of it is acknowledged until it has been looked at again.
    package mutating func failed(host: String, file name: String) -> [Effect] {
        if let stored = hosts[host]?.files[name] { store(host, name, received: stored.synced, synced: stored.synced) }
        guard let link = live[host], let file = FeedPart.parse(name)?.file, let copy = links[link]?.files[file]?.copy, copy.name == name
        else {
            return refill()
        }
        let retryAt = now.advanced(nanoseconds: Limits.hubDiskRetryNanoseconds)
        if case .stalled? = links[link]?.files[file] {
            links[link]?.files[file] = .stalled(copy, retryAt: retryAt)
            return []
        }
        links[link]?.files[file] = .stalled(copy, retryAt: retryAt)
        var effects = [stalled(file, copy, link)]
        if stalledHosts.insert(host).inserted {
            effects.append(.alarm(host: host, code: "disk", text: "\(file) cannot be stored; it is tried again each second"))
        }
        return effects + refill()
    }

    private mutating func retry(_ host: String) -> [Effect] {
        guard let link = live[host], let files = links[link]?.files else { return [] }
        var effects: [Effect] = []
        for (file, state) in files.sorted(by: { $0.key < $1.key }) {
            guard case .stalled(let copy, let retryAt) = state, now >= retryAt else { continue }
            links[link]?.files[file] = .stalled(copy, retryAt: now.advanced(nanoseconds: Limits.hubDiskRetryNanoseconds))
            effects.append(.inspect(link, host: host, file: copy.name, fromBlock: 0))
        }
        return effects
    }

    // MARK: Complete files

    private mutating func seal(_ sealed: Message.Sealed, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        guard Self.parse(fileName: sealed.file) != nil else { return badFile(link) }
        switch links[link]?.files[sealed.file] {
        case nil, .open: break
        // Whatever is under way goes on, and the edge says it again when everything is acknowledged.
        case .inspecting, .rewinding, .verifying, .recording, .sealing, .stalled, .refused: return []
        }
        let copy = copy(of: sealed.file, edge)
        guard let stored = hosts[edge.host]?.files[copy.name], stored.synced == stored.received, copy.base + stored.synced == sealed.bytes,
            links[link]?.compared.contains(sealed.file) == false
        else {
            if case .open? = links[link]?.files[sealed.file] { return [] }  // It was compared, and is still another.
            return resume(Message.Resume(file: sealed.file, length: sealed.bytes), edge, link)
        }
        links[link]?.files[sealed.file] = .sealing(copy, sealed)
        let spans = spans(of: copy.number, sealed.file, upTo: sealed.bytes, edge)
        return [.seal(link, host: edge.host, file: copy.name, sealed, spans)]
    }

    /// Where the edge's bytes up to a place lie: in a part, and before its base in the copy it was begun beside.
    private func spans(of number: Int, _ file: String, upTo end: Int64, _ edge: Message.Hello.Edge) -> [FileSpan] {
        let own = (hosts[edge.host]?.parts[file] ?? []).filter { $0.epoch == edge.epoch }
        guard let place = own.firstIndex(where: { $0.number == number }) else {
            return [FileSpan(file: FeedPart.name(file, number), bytes: end)]
        }
        let base = own[place].base
        let before = base == 0 ? [] : spans(of: place == 0 ? 0 : own[place - 1].number, file, upTo: min(base, end), edge)
        return end <= base ? before : before + [FileSpan(file: FeedPart.name(file, number), bytes: end - base)]
    }

    /// The answer to `.seal`; nil when the bytes could not be read.
    package mutating func sealed(_ link: LinkID, file name: String, isEqual: Bool?) -> [Effect] {
        guard case .open(let edge)? = links[link]?.state, let file = FeedPart.parse(name)?.file,
            case .sealing(let copy, let sealed)? = links[link]?.files[file], copy.name == name
        else { return [] }
        links[link]?.files[file] = .open(copy)
        guard let isEqual else { return failed(host: edge.host, file: name) }
        if isEqual { return [.send(link, .sealed(sealed))] }
        // The hub's disk is wrong, or the edge's is: all of it is read, and the edge compares once more.
        links[link]?.compared.insert(file)
        links[link]?.files[file] = .verifying(copy, differsAt: sealed.bytes, prefixCRC32C: nil)
        return [
            .verify(link, host: edge.host, file: name),
            .alarm(host: edge.host, code: "digest", text: "\(file) is complete at the edge, and has another digest there than here"),
        ]
    }

    private mutating func gone(_ gone: Message.Gone, _ edge: Message.Hello.Edge, _ link: LinkID) -> [Effect] {
        guard Self.parse(fileName: gone.file) != nil else { return badFile(link) }
        links[link]?.files[gone.file] = nil
        noteUnstalled(edge.host, link)
        let copy = copy(of: gone.file, edge)
        let missing = gone.bytes - copy.base - (hosts[edge.host]?.files[copy.name]?.received ?? 0)
        guard missing > 0 else { return [] }
        hosts[edge.host]?.goneBytes += missing
        return [
            .alarm(host: edge.host, code: "gone", text: "\(gone.file) had to make room at the edge before its last \(missing) bytes came")
        ]
    }

    private mutating func noteUnstalled(_ host: String, _ link: LinkID) {
        guard stalledHosts.contains(host) else { return }
        let isAny = links[link]?.files.values.contains { if case .stalled = $0 { true } else { false } } ?? false
        if !isAny { stalledHosts.remove(host) }
    }

    // MARK: Credit

    /// A connection, or all of them, have brought more than waits for a sync at a time.
    private mutating func restrain(_ link: LinkID, _ host: String) -> [Effect] {
        var tooFast: [LinkID] = []
        if unsyncedBytes > bounds.poolBytes {
            tooFast = links.keys.filter { !paused.contains($0) && live[links[$0]!.peer.name] == $0 }.sorted()
        } else if unackedBytes(of: host) > Limits.unackedBytesMax, !paused.contains(link) {
            tooFast = [link]
        }
        paused.formUnion(tooFast)
        return tooFast.map { .pauseReading($0) }
    }

    /// Half of what was too much is synced.
    private mutating func refill() -> [Effect] {
        guard !paused.isEmpty, unsyncedBytes <= bounds.poolBytes / 2 else { return [] }
        let free = paused.filter { unackedBytes(of: links[$0]!.peer.name) <= Limits.unackedBytesMax / 2 }.sorted()
        paused.subtract(free)
        return free.map { .resumeReading($0) }
    }

    /// Accepted and not synced.
    package func unackedBytes(of host: String) -> Int64 { hosts[host]?.unsynced ?? 0 }

    private mutating func badFile(_ link: LinkID) -> [Effect] { leave(link, "bad_file", "a file is called <feed>_YYYYMMDD.jsonl") }

    // MARK: Views

    package var hostNames: [String] { hosts.keys.sorted() }

    /// By name.
    package func files(of host: String) -> [HeldFile] {
        (hosts[host]?.files ?? [:]).sorted { $0.key < $1.key }.map { HeldFile(file: $0.key, length: $0.value.synced) }
    }

    /// The parts that were begun because an edge had other bytes.
    package func forks(of host: String) -> [(file: String, why: String)] {
        (hosts[host]?.parts ?? [:]).sorted { $0.key < $1.key }.flatMap { entry in
            entry.value.map { (FeedPart.name($0.file, $0.number), "epoch \($0.epoch) had other bytes from byte \($0.base) on") }
        }
    }

    /// Bytes of the host that were gone at the edge before they came, since the start.
    package func goneBytes(of host: String) -> Int64 { hosts[host]?.goneBytes ?? 0 }

    /// A file of the host cannot be stored at present.
    package func isStalled(_ host: String) -> Bool { stalledHosts.contains(host) }

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
