import CalibModel
import HubCore
import TestSupport
import Testing
import Wire

/// The prefix store's decisions, without sockets or files.
struct IngestTests {
    static let file = "fills_20250101.jsonl"
    static let epoch = "00000000000000aa"
    static let tokyo = Peer(role: .edge, name: "tokyo")
    static let start = Instant(nanoseconds: 0)
    static let a = LinkID(1)
    static let b = LinkID(2)
    static let c = LinkID(3)

    static func hello(_ host: String = "tokyo", epoch: String = epoch) -> Message {
        .hello(
            Message.Hello(
                version: "test",
                edge: Message.Hello.Edge(
                    host: host, epoch: epoch, source: "sim", venue: "sim", wallMilliseconds: 0, symbols: ["BTCUSDT"], revision: .zero,
                    latches: [], configHash: "0")))
    }

    static func resume(_ length: Int64, _ name: String = file) -> Message {
        .resume(Message.Resume(file: name, length: length))
    }

    static func append(_ offset: Int64, _ bytes: Int, _ name: String = file) -> Message {
        .append(Message.Append(file: name, offset: offset, bytes: bytes))
    }

    static func inspection(_ length: Int64, epoch: String? = epoch) -> Ingest.Inspection {
        Ingest.Inspection(length: length, epoch: length == 0 ? nil : epoch, blocks: length == 0 ? [] : ["0badcafe"])
    }

    /// An edge let in on link `a`, its file resumed at `length`.
    static func open(at length: Int64 = 0) -> Ingest {
        var ingest = Ingest()
        _ = ingest.opened(a, peer: tokyo)
        _ = ingest.received(hello(), on: a, at: start)
        _ = ingest.surveyed(a, files: [], highestSeq: [])
        _ = ingest.received(resume(length), on: a, at: start)
        _ = ingest.inspected(a, file: file, inspection(length))
        return ingest
    }

    /// Tokyo on link `a` and osaka on `b`, a file of each resumed at 0.
    private static func openTwo(poolBytes: Int64) -> Ingest {
        var bounds = ReplicationBounds()
        bounds.poolBytes = poolBytes
        var ingest = Ingest(bounds: bounds)
        for (link, host) in [(a, "tokyo"), (b, "osaka")] {
            _ = ingest.opened(link, peer: Peer(role: .edge, name: host))
            _ = ingest.received(hello(host), on: link, at: start)
            _ = ingest.surveyed(link, files: [], highestSeq: [])
            _ = ingest.received(resume(1), on: link, at: start)
            _ = ingest.inspected(link, file: file, inspection(0))
        }
        return ingest
    }

    static func closes(_ effects: [Ingest.Effect]?, _ link: LinkID = a) -> String? {
        for case .close(link, let code, _) in effects ?? [] { return code }
        return nil
    }

    @Test func conversationGoesFromHelloToAck() {
        var ingest = Ingest()
        #expect(ingest.opened(Self.a, peer: Self.tokyo).isEmpty)
        let hello = ingest.received(Self.hello(), on: Self.a, at: Self.start)
        #expect(hello == [.survey(Self.a, host: "tokyo", epoch: Self.epoch)])
        let seqs = [Message.Welcome.FeedSeq(feed: "fills", seq: 7)]
        let surveyed = ingest.surveyed(Self.a, files: [Ingest.HeldFile(file: Self.file, length: 10)], highestSeq: seqs)
        guard case .hello(let said) = Self.hello() else { return }
        #expect(surveyed == [.welcome(Self.a, said, highestSeq: seqs)])
        let resume = ingest.received(Self.resume(30), on: Self.a, at: Self.start)
        #expect(resume == [.inspect(Self.a, host: "tokyo", file: Self.file, fromBlock: 0)])
        let inspected = ingest.inspected(Self.a, file: Self.file, Self.inspection(10))
        #expect(inspected == [.send(Self.a, .resume(Message.Resume(file: Self.file, length: 10, blocks: ["0badcafe"], part: 0)))])
        let append = ingest.received(Self.append(10, 20), on: Self.a, at: Self.start)
        #expect(append == [.write(host: "tokyo", file: Self.file, epoch: Self.epoch, offset: 10)])
        #expect(ingest.unackedBytes(of: "tokyo") == 20)
        #expect(ingest.files(of: "tokyo") == [Ingest.HeldFile(file: Self.file, length: 10)])
        let committed = ingest.committed(host: "tokyo", file: Self.file, length: 30)
        #expect(committed == [.send(Self.a, .ack(Message.Ack(file: Self.file, length: 30)))])
        #expect(ingest.files(of: "tokyo") == [Ingest.HeldFile(file: Self.file, length: 30)])
    }

    static let refusals: [(String, Peer, [Message], String)] = [
        ("append first", tokyo, [append(0, 1)], "hello_first"),
        ("append before welcome", tokyo, [hello(), append(0, 1)], "welcome_first"),
        ("another host", tokyo, [hello("osaka")], "wrong_host"),
        ("an operator as edge", Peer(role: .operator, name: "tokyo"), [hello()], "identity"),
        ("an edge without host", tokyo, [.hello(Message.Hello(version: "x", edge: nil))], "identity"),
        ("an epoch that is a path", tokyo, [hello(epoch: "../../etc/passwd")], "bad_hello"),
        (
            "an operator that appends", Peer(role: .operator, name: "o"),
            [.hello(Message.Hello(version: "x", edge: nil)), append(0, 1)], "identity"
        ),
        ("a future protocol", tokyo, [.hello(Message.Hello(protocolMin: 9, protocolMax: 9, version: "x", edge: nil))], "protocol"),
    ]

    @Test(arguments: refusals.indices) func conversationIsRefused(row: Int) {
        let (name, peer, messages, code) = Self.refusals[row]
        var ingest = Ingest()
        _ = ingest.opened(Self.a, peer: peer)
        var effects: [Ingest.Effect]? = []
        for message in messages { effects = ingest.received(message, on: Self.a, at: Self.start) }
        #expect(Self.closes(effects) == code, "\(name)")
    }

    @Test(arguments: [
        (append(0, 1, "markouts_20250101.jsonl"), "resume_first"), (append(9, 1), "wrong_offset"), (append(11, 1), "wrong_offset"),
        (append(10, 1, "../fills_20250101.jsonl"), "bad_file"), (resume(1, "fills_20250101.jsonl/../../x"), "bad_file"),
        (resume(1, "fills_20250230.jsonl"), "bad_file"), (resume(1, "secrets_20250101.jsonl"), "bad_file"),
        (resume(1, "fills_20250101.1.jsonl"), "bad_file"), (hello(), "hello_twice"),
        (.ack(Message.Ack(file: file, length: 1)), "not_yours"),
        (.request(Message.Request(id: 1, verb: "kill", arguments: [:])), "identity"),
    ])
    func openEdgeIsRefused(message: Message, code: String) {
        var ingest = Self.open(at: 10)
        let effects = ingest.received(message, on: Self.a, at: Self.start)
        #expect(Self.closes(effects) == code)
        #expect(!(effects ?? []).contains { if case .write = $0 { true } else { false } })
    }

    @Test func controlMessagesOfAnEdgeAreSomebodyElses() {
        var ingest = Self.open()
        let lease = Message.lease(Message.Lease(experiment: "x", number: 1, durationMilliseconds: nil))
        let effects = ingest.received(lease, on: Self.a, at: Self.start)
        #expect(effects == nil)
    }

    @Test func readingPauses_whileTooMuchIsNotSynced() {
        var ingest = Self.open()
        var length: Int64 = 0
        var wasPaused = false
        while length <= Int64(Limits.unackedBytesMax) {
            let effects = ingest.received(Self.append(length, Limits.appendBytesMax), on: Self.a, at: Self.start)
            length += Int64(Limits.appendBytesMax)
            wasPaused = effects?.contains(.pauseReading(Self.a)) ?? false
            #expect(wasPaused == (length > Int64(Limits.unackedBytesMax)))
        }
        #expect(wasPaused)
        let half = ingest.committed(host: "tokyo", file: Self.file, length: length - Int64(Limits.unackedBytesMax) * 3 / 4)
        #expect(!half.contains(.resumeReading(Self.a)))
        let rest = ingest.committed(host: "tokyo", file: Self.file, length: length)
        #expect(rest.contains(.resumeReading(Self.a)))
    }

    // MARK: Identity in use

    private static func contended() -> (Ingest, Int64) {
        var ingest = open()
        _ = ingest.opened(b, peer: tokyo)
        let effects = ingest.received(hello(), on: b, at: start)
        guard effects?.count == 1, case .send(a, .ping(let number))? = effects?.first else { return (ingest, -1) }
        return (ingest, number)
    }

    @Test func secondConnectionIsRefused_whenTheFirstAnswers() {
        var (ingest, number) = Self.contended()
        let other = ingest.received(.pong(number: number + 1), on: Self.a, at: Self.start)
        #expect(other == [])
        let effects = ingest.received(.pong(number: number), on: Self.a, at: Self.start) ?? []
        #expect(Self.closes(effects, Self.b) == "identity_in_use")
        #expect(effects.contains { if case .alarm("tokyo", "identity_in_use", _) = $0 { true } else { false } })
        #expect(
            ingest.tick(Self.start.advanced(nanoseconds: 5_000_000_000)).contains {
                if case .close(Self.a, _, _) = $0 { true } else { false }
            } == false)
    }

    @Test func secondConnectionReplacesTheFirst_whenItIsSilentForOneSecond() {
        var (ingest, _) = Self.contended()
        let early = ingest.tick(Self.start.advanced(nanoseconds: 999_999_999))
        #expect(early.isEmpty)
        let effects = ingest.tick(Self.start.advanced(nanoseconds: 1_000_000_000))
        #expect(Self.closes(effects, Self.a) == "replaced")
        #expect(effects.contains(.survey(Self.b, host: "tokyo", epoch: Self.epoch)))
        // The first one's end, late, takes nothing from the second.
        let closed = ingest.closed(Self.a, at: Self.start)
        #expect(closed.isEmpty && ingest.connectedEdges == 1)
    }

    @Test func secondConnectionGoesOn_whenTheFirstEnds() {
        var (ingest, _) = Self.contended()
        let effects = ingest.closed(Self.a, at: Self.start)
        #expect(effects == [.survey(Self.b, host: "tokyo", epoch: Self.epoch)])
    }

    @Test func thirdConnectionIsRefusedAtOnce_andALeavingContenderIsForgotten() {
        var (ingest, number) = Self.contended()
        _ = ingest.opened(Self.c, peer: Self.tokyo)
        let third = ingest.received(Self.hello(), on: Self.c, at: Self.start)
        #expect(Self.closes(third, Self.c) == "identity_in_use")
        _ = ingest.closed(Self.b, at: Self.start)
        let pong = ingest.received(.pong(number: number), on: Self.a, at: Self.start)
        #expect(pong == [])
    }

    // MARK: Parts

    static let part = FeedPart(file: file, number: 1, epoch: epoch, base: 4, prefixCRC32C: "00000004")
    static let differs = Message.resume(Message.Resume(file: file, length: 9, differsAt: 4, prefixCRC32C: "00000004"))

    /// The edge was restored: up to byte 4 its bytes are ours, behind that they are not.
    @Test func otherBytesOfTheEdgeGoToAPart_onceItIsRecorded() throws {
        var ingest = Self.open(at: 10)
        let verify = ingest.received(Self.differs, on: Self.a, at: Self.start)
        #expect(verify == [.verify(Self.a, host: "tokyo", file: Self.file)])
        let begun = ingest.verified(Self.a, file: Self.file, Self.inspection(10), isDamaged: false)
        #expect(begun.first == .record(host: "tokyo", Self.part))
        #expect(begun.contains { if case .alarm("tokyo", "fork", _) = $0 { true } else { false } })
        let recorded = ingest.recorded(host: "tokyo", Self.part)
        #expect(
            recorded == [.send(Self.a, .resume(Message.Resume(file: Self.file, length: 4, base: 4, prefixCRC32C: "00000004", part: 1)))])
        let append = ingest.received(Self.append(4, 5), on: Self.a, at: Self.start)
        #expect(append == [.write(host: "tokyo", file: "fills_20250101.1.jsonl", epoch: Self.epoch, offset: 0)])
        let committed = ingest.committed(host: "tokyo", file: "fills_20250101.1.jsonl", length: 5)
        #expect(committed == [.send(Self.a, .ack(Message.Ack(file: Self.file, length: 9)))])
        #expect(ingest.files(of: "tokyo").map(\.length) == [5, 10])
        #expect(ingest.forks(of: "tokyo").map(\.file) == ["fills_20250101.1.jsonl"])
        // The next connection goes on there.
        _ = ingest.closed(Self.a, at: Self.start)
        _ = ingest.opened(Self.b, peer: Self.tokyo)
        _ = ingest.received(Self.hello(), on: Self.b, at: Self.start)
        _ = ingest.surveyed(Self.b, files: [], highestSeq: [])
        let resumed = ingest.received(Self.resume(9), on: Self.b, at: Self.start)
        #expect(resumed == [.inspect(Self.b, host: "tokyo", file: "fills_20250101.1.jsonl", fromBlock: 0)])
    }

    @Test func bytesThatTheHubsDiskLostAreFetchedAgain() {
        var ingest = Self.open(at: 10)
        _ = ingest.received(Self.differs, on: Self.a, at: Self.start)
        let effects = ingest.verified(Self.a, file: Self.file, Self.inspection(3), isDamaged: true)
        #expect(effects == [.send(Self.a, .resume(Message.Resume(file: Self.file, length: 3, blocks: ["0badcafe"], part: 0)))])
        #expect(ingest.forks(of: "tokyo").isEmpty)
        let append = ingest.received(Self.append(3, 5), on: Self.a, at: Self.start)
        #expect(append == [.write(host: "tokyo", file: Self.file, epoch: Self.epoch, offset: 3)])
    }

    @Test func anotherEpochBeginsAPartAtOnce_andEachGoesOnInItsOwn() {
        var ingest = Self.open()
        _ = ingest.received(Self.resume(10), on: Self.a, at: Self.start)
        let effects = ingest.inspected(Self.a, file: Self.file, Self.inspection(4, epoch: "00000000000000bb"))
        #expect(
            effects.first == .record(host: "tokyo", FeedPart(file: Self.file, number: 1, epoch: Self.epoch, base: 0, prefixCRC32C: nil)))
        var later = Ingest()
        later.found(host: "tokyo", files: [], parts: [Self.part])
        _ = later.opened(Self.a, peer: Self.tokyo)
        _ = later.received(Self.hello(epoch: "00000000000000bb"), on: Self.a, at: Self.start)
        _ = later.surveyed(Self.a, files: [], highestSeq: [])
        let resumed = later.received(Self.resume(9), on: Self.a, at: Self.start)
        #expect(resumed == [.inspect(Self.a, host: "tokyo", file: Self.file, fromBlock: 0)])
    }

    @Test(
        arguments: [
            ("fills_20250101.jsonl", 0), ("fills_20250101.12.jsonl", 12), ("fills_20250101.0.jsonl", nil), ("fills_20250101.01.jsonl", nil),
            ("fills_20250101.1.2.jsonl", nil), ("../fills_20250101.1.jsonl", nil), ("fills_20250101.-1.jsonl", nil),
            ("fills_20250101.1001.jsonl", nil),
        ] as [(String, Int?)])
    func nameOfAHubsFile(name: String, number: Int?) { #expect(FeedPart.parse(name)?.number == number) }

    // MARK: A disk that fails

    @Test func failedFileIsTriedAgainEachSecond_theConnectionStays_whatIsUnderWayIsDropped() {
        var ingest = Self.open()
        _ = ingest.received(Self.append(0, 5), on: Self.a, at: Self.start)
        let failed = ingest.failed(host: "tokyo", file: Self.file)
        #expect(failed.first == .send(Self.a, .resume(Message.Resume(file: Self.file, length: 0, isStalled: true))))
        #expect(failed.contains { if case .alarm("tokyo", "disk", _) = $0 { true } else { false } })
        #expect(ingest.unackedBytes(of: "tokyo") == 0 && ingest.isStalled("tokyo"))
        let dropped = ingest.received(Self.append(5, 5), on: Self.a, at: Self.start)
        #expect(dropped == [])
        #expect(ingest.tick(Self.start.advanced(nanoseconds: 999_999_999)) == [])
        let retry = ingest.tick(Self.start.advanced(nanoseconds: 1_000_000_000))
        #expect(retry == [.inspect(Self.a, host: "tokyo", file: Self.file, fromBlock: 0)])
        #expect(ingest.failed(host: "tokyo", file: Self.file) == [], "said once")
        let back = ingest.inspected(Self.a, file: Self.file, Self.inspection(0))
        #expect(back.first == .send(Self.a, .resume(Message.Resume(file: Self.file, length: 0, part: 0))))
        #expect(!ingest.isStalled("tokyo"))
        let late = ingest.received(Self.append(10, 5), on: Self.a, at: Self.start)
        #expect(late == [])
        let again = ingest.received(Self.append(0, 5), on: Self.a, at: Self.start)
        #expect(again == [.write(host: "tokyo", file: Self.file, epoch: Self.epoch, offset: 0)])
    }

    /// What a process before this one left on the disk was never compared with what was received: the hub does not say that it holds it.
    @Test func aFileThatCannotBeLookedAt_isAnsweredForWithNothing() {
        var ingest = Ingest()
        ingest.found(host: "tokyo", files: [Ingest.HeldFile(file: Self.file, length: 9)], parts: [])
        _ = ingest.opened(Self.a, peer: Self.tokyo)
        _ = ingest.received(Self.hello(), on: Self.a, at: Self.start)
        _ = ingest.surveyed(Self.a, files: [Ingest.HeldFile(file: Self.file, length: 9)], highestSeq: [])
        let asked = ingest.received(Self.resume(9), on: Self.a, at: Self.start)
        #expect(asked == [.inspect(Self.a, host: "tokyo", file: Self.file, fromBlock: 0)])
        let failed = ingest.failed(host: "tokyo", file: Self.file)
        #expect(failed.first == .send(Self.a, .resume(Message.Resume(file: Self.file, length: 0, isStalled: true))))
    }

    /// The edge comes back meanwhile, and its file is taken at once: nothing is stalled any more.
    @Test func aHostThatCameBackToAGoodDisk_isNotStalled() {
        var ingest = Self.open()
        _ = ingest.failed(host: "tokyo", file: Self.file)
        #expect(ingest.isStalled("tokyo"))
        _ = ingest.closed(Self.a, at: Self.start)
        _ = ingest.opened(Self.b, peer: Self.tokyo)
        _ = ingest.received(Self.hello(), on: Self.b, at: Self.start)
        _ = ingest.surveyed(Self.b, files: [], highestSeq: [])
        _ = ingest.received(Self.resume(0), on: Self.b, at: Self.start)
        #expect(ingest.isStalled("tokyo"))
        _ = ingest.inspected(Self.b, file: Self.file, Self.inspection(0))
        #expect(!ingest.isStalled("tokyo"))
        #expect(ingest.tick(Self.start.advanced(nanoseconds: 5_000_000_000)) == [])
    }

    /// The edge needed the room: nobody tries again what does not come any more.
    @Test func aStalledFileThatIsGone_stallsNothing() {
        var ingest = Self.open()
        _ = ingest.failed(host: "tokyo", file: Self.file)
        _ = ingest.received(.gone(Message.Gone(file: Self.file, bytes: 9)), on: Self.a, at: Self.start)
        #expect(!ingest.isStalled("tokyo"))
        #expect(ingest.tick(Self.start.advanced(nanoseconds: 5_000_000_000)) == [])
    }

    /// A link that goes while nobody is read from is not told to go on.
    @Test func aPausedLinkThatIsGone_isLetGo() {
        var ingest = Self.openTwo(poolBytes: 1_000)
        let effects = ingest.received(Self.append(0, 1_001), on: Self.a, at: Self.start) ?? []
        #expect(effects.dropFirst() == [.pauseReading(Self.a), .pauseReading(Self.b)])
        _ = ingest.closed(Self.b, at: Self.start)
        let half = ingest.committed(host: "tokyo", file: Self.file, length: 1_001)
        #expect(half.dropFirst() == [.resumeReading(Self.a)])
    }

    @Test func fullPoolPausesEverybody_untilHalfIsSynced() {
        var ingest = Self.openTwo(poolBytes: 1_000)
        let first = ingest.received(Self.append(0, 1_000), on: Self.a, at: Self.start) ?? []
        #expect(first.count == 1)
        let second = ingest.received(Self.append(0, 1), on: Self.b, at: Self.start) ?? []
        #expect(second.dropFirst() == [.pauseReading(Self.a), .pauseReading(Self.b)])
        #expect(!ingest.committed(host: "osaka", file: Self.file, length: 1).contains(.resumeReading(Self.b)))
        let half = ingest.committed(host: "tokyo", file: Self.file, length: 600)
        #expect(half.dropFirst() == [.resumeReading(Self.a), .resumeReading(Self.b)])
    }

    // MARK: Any order

    /// Method: an edge with a growing file, a hub disk that keeps a random part of what was not synced when it crashes, connections that end
    /// at any moment, commits late and coalesced. After every step the hub's file is a prefix of the edge's, and no acknowledgement exceeds
    /// what was synced.
    @Test(arguments: 0..<200)
    func hubFileIsAPrefix_inAnyOrder(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        var edge: [UInt8] = []
        var disk: [UInt8] = []
        var synced = 0
        var acknowledged = 0
        var ingest = Ingest()
        var link = LinkID(0)
        // Position up to which the edge has sent on this connection; nil without one, or before the hub has answered.
        var sent: Int?
        func perform(_ effects: [Ingest.Effect], _ payload: ArraySlice<UInt8> = []) {
            for effect in effects {
                switch effect {
                case .write(_, _, _, let offset):
                    #expect(Int(offset) == disk.count)
                    disk += payload
                case .send(_, .ack(let ack)):
                    #expect(Int(ack.length) <= synced && Int(ack.length) >= acknowledged)
                    acknowledged = Int(ack.length)
                case .close: Issue.record("closed: \(effect)")
                default: break
                }
            }
        }
        for _ in 0..<300 {
            switch random.next(below: 9) {
            case 0, 1: for _ in 0..<random.next(below: 50) { edge.append(UInt8(truncatingIfNeeded: random.next())) }
            case 2, 3, 4:
                guard let from = sent, from < edge.count else { continue }
                let count = 1 + random.next(below: edge.count - from)
                perform(ingest.received(Self.append(Int64(from), count), on: link, at: Self.start) ?? [], edge[from..<from + count])
                sent = from + count
            case 5:
                // A sync that began before the newest bytes were written.
                synced += random.next(below: disk.count - synced + 1)
                perform(ingest.committed(host: "tokyo", file: Self.file, length: Int64(synced)))
            case 6 where sent == nil:
                link = LinkID(link.number + 1)
                _ = ingest.opened(link, peer: Self.tokyo)
                _ = ingest.received(Self.hello(), on: link, at: Self.start)
                _ = ingest.surveyed(link, files: [Ingest.HeldFile(file: Self.file, length: Int64(disk.count))], highestSeq: [])
                _ = ingest.received(Self.resume(Int64(edge.count)), on: link, at: Self.start)
                synced = disk.count
                perform(ingest.inspected(link, file: Self.file, Self.inspection(Int64(synced))))
                sent = synced
            case 7:
                _ = ingest.closed(link, at: Self.start)
                sent = nil
            case 8 where random.next(below: 4) == 0:
                // A crash: a new process, and a part of what was written but not synced is gone.
                disk.removeLast(random.next(below: disk.count - synced + 1))
                ingest = Ingest()
                sent = nil
            default: break
            }
            #expect(edge.starts(with: disk) && acknowledged <= disk.count)
        }
    }

    @Test func highestSeqIsThatOfTheEpoch() {
        func row(_ epoch: String, _ seq: Int) -> String { #"{"v":1,"host":"t","epoch":"\#(epoch)","seq":\#(seq)}"# + "\n" }
        let text = row(Self.epoch, 5) + row("00000000000000bb", 90) + row(Self.epoch, 7) + row(Self.epoch, 6) + #"{"v":1,"host"#
        func highest(_ text: String, startsAtRow: Bool = true) -> Int64? {
            Array(text.utf8).withUnsafeBytes { FeedTail.highestSeq(in: $0, startsAtRow: startsAtRow, epoch: Self.epoch) }
        }
        #expect(highest(text) == 7)
        #expect(highest(row(Self.epoch, 5), startsAtRow: false) == nil)
        #expect(highest("") == nil)
        #expect(Array(text.utf8).withUnsafeBytes { FeedTail.epoch(ofHead: $0) } == Self.epoch)
        #expect(Array("{".utf8).withUnsafeBytes { FeedTail.epoch(ofHead: $0) } == nil)
    }
}
