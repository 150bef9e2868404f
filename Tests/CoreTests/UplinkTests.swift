import CalibModel
import EdgeCore
import TestSupport
import Testing
import Wire

/// Idea: play the hub and the clock by hand and read the effects; then let a seed play both, with files whose every byte is known, and check
/// that the hub's copies are always prefixes of what is synced.
struct UplinkTests {
    private static let fills = "fills_20250102.jsonl"

    // MARK: One connection

    @Test func helloThenWelcomeThenResumesInTheOrderOfUrgency_todayFirst() {
        var link = Link()
        for name in [
            "quotes_20250102.jsonl", "pipeline_ticks_20250102.jsonl", "events_20250101.jsonl", "fills_20250102.jsonl",
            "markouts_20250102.jsonl", "feature_snapshots_20250102.jsonl", "events_20250102.jsonl", "fills_20250101.jsonl",
        ] { _ = link.step(.grew(file: name, syncedLength: 10)) }
        #expect(link.step(.started) == [.connect(afterNanoseconds: 0)])
        #expect(link.step(.connected(Link.hello)) == [.send(.hello(Link.hello))])
        #expect(!link.uplink.isConnected)
        let effects = link.step(.received(.welcome(Link.welcome)))
        #expect(effects.first == .welcomed(Link.welcome))
        #expect(
            effects.compactMap(\.resumedFile) == [
                "events_20250102.jsonl", "fills_20250102.jsonl", "markouts_20250102.jsonl", "feature_snapshots_20250102.jsonl",
                "pipeline_ticks_20250102.jsonl", "quotes_20250102.jsonl", "events_20250101.jsonl", "fills_20250101.jsonl",
            ])
    }

    @Test func namesThatAreNoFeedAreNotOffered() {
        var link = Link()
        for name in ["notes.txt", "fills_2025010.jsonl", "fills_20250102.jsonl.bak", "ticks_20250102.jsonl", "_20250102.jsonl", ""] {
            _ = link.step(.grew(file: name, syncedLength: 10))
        }
        #expect(link.uplink.backlogBytes == 0)
        #expect(link.connect().compactMap(\.resumedFile) == [])
    }

    private static func checksums(_ file: String = fills, prefix: Int64 = 0, from start: Int64 = 0, to end: Int64) -> FeedQuestion {
        FeedQuestion(file: file, part: .checksums(prefix: prefix, start: start, end: end, blockBytes: Limits.resumeBlockBytes))
    }

    @Test func copiesAreComparedBeforeOneByteIsSent_andAppendsBeginAtTheHubsLength() {
        var link = Link()
        _ = link.step(.grew(file: Self.fills, syncedLength: 200_000))
        _ = link.connect()
        let asked = link.step(.received(.resume(.init(file: Self.fills, length: 100_000, blocks: ["01234567"]))))
        #expect(asked == [.ask(Self.checksums(to: 100_000))])
        #expect(link.uplink.backlogBytes == 200_000)
        let sent = link.step(.answered(Self.checksums(to: 100_000), .init(blocks: ["01234567"])))
        #expect(sent == [.sendBytes(file: Self.fills, offset: 100_000, bytes: 65_536)])
        #expect(link.uplink.backlogBytes == 100_000)
        // The turn is open: nothing more until its bytes left.
        #expect(link.step(.grew(file: Self.fills, syncedLength: 300_000)) == [])
        #expect(link.step(.turnEnded) == [.sendBytes(file: Self.fills, offset: 165_536, bytes: 65_536)])
        #expect(link.step(.received(.ack(.init(file: Self.fills, length: 200_000)))) == [])
        #expect(link.uplink.backlogBytes == 100_000)
    }

    @Test func oneTurnIs64KiBOverAllFiles_theMostUrgentFirst() {
        var link = Link()
        link.stream(["events_20250102.jsonl", "quotes_20250102.jsonl", Self.fills])
        _ = link.step(.grew(file: "quotes_20250102.jsonl", syncedLength: 1_000_000))
        // The quotes' turn is under way; what is urgent waits for that turn only.
        _ = link.step(.grew(file: Self.fills, syncedLength: 50_001))
        _ = link.step(.grew(file: "events_20250102.jsonl", syncedLength: 10_001))
        #expect(
            link.step(.turnEnded) == [
                .sendBytes(file: "events_20250102.jsonl", offset: 1, bytes: 10_000),
                .sendBytes(file: Self.fills, offset: 1, bytes: 50_000),
                .sendBytes(file: "quotes_20250102.jsonl", offset: 65_537, bytes: 5_536),
            ])
    }

    @Test func unackedBytesNeverPassTheWindow_anAckOpensIt() {
        var link = Link()
        link.stream([Self.fills])
        var sent = Int64(0)
        for effect in link.step(.grew(file: Self.fills, syncedLength: 10_000_000)) { sent += effect.appendedBytes }
        while true {
            let bytes = link.step(.turnEnded).reduce(Int64(0)) { $0 + $1.appendedBytes }
            if bytes == 0 { break }
            sent += bytes
        }
        #expect(sent == Int64(Limits.unackedBytesMax))
        #expect(
            link.step(.received(.ack(.init(file: Self.fills, length: 1_001)))) == [
                .sendBytes(file: Self.fills, offset: 1 + sent, bytes: 1_000)
            ])
    }

    /// Three blocks and a half at the hub, two to a page; `equal` of them are ours.
    @Test(arguments: 0...4) func pagesAreComparedOneByOne_upToTheFirstDifference(equal: Int) {
        let block = Int64(Limits.resumeBlockBytes)
        var link = Link()
        _ = link.step(.grew(file: Self.fills, syncedLength: 5 * block))
        _ = link.connect()
        func page(_ from: Int64) -> Message.Resume {
            .init(
                file: Self.fills, length: 3 * block + 100, from: from,
                blocks: from == 0 ? ["00000000", "00000001"] : ["00000002", "00000003"])
        }
        func own(_ from: Int) -> FeedQuestion.Answer { .init(blocks: (from..<from + 2).map { $0 < equal ? "0000000\($0)" : "ffffffff" }) }
        #expect(link.step(.received(.resume(page(0)))) == [.ask(Self.checksums(to: 2 * block))])
        var effects = link.step(.answered(Self.checksums(to: 2 * block), own(0)))
        if equal >= 2 {
            #expect(effects == [.send(.resume(.init(file: Self.fills, length: 5 * block, from: 2)))])
            let second = Self.checksums(from: 2 * block, to: 3 * block + 100)
            #expect(link.step(.received(.resume(page(2)))) == [.ask(second)])
            effects = link.step(.answered(second, own(2)))
        }
        guard equal < 4 else { return #expect(effects == [.sendBytes(file: Self.fills, offset: 3 * block + 100, bytes: 65_536)]) }
        var start: Int64 = 0
        if equal > 0 {
            let row = FeedQuestion(file: Self.fills, part: .row(at: Int64(equal) * block))
            #expect(effects == [.ask(row)])
            start = Int64(equal) * block - 7
            effects = link.step(.answered(row, .init(prefixCRC32C: "0000abcd", rowStart: start)))
        }
        let prefix = equal > 0 ? "0000abcd" : nil
        #expect(
            effects == [
                .send(.resume(.init(file: Self.fills, length: 5 * block, differsAt: start, prefixCRC32C: prefix))),
                .differs(file: Self.fills, at: start),
            ])
        // The hub goes on in a part; its beginning need not be read again.
        let part = Message.Resume(file: Self.fills, length: start, base: start, prefixCRC32C: prefix)
        #expect(link.step(.received(.resume(part))) == [.sendBytes(file: Self.fills, offset: start, bytes: 65_536)])
    }

    @Test func hubThatHoldsMoreThanWeHave_andAPartWhoseBeginningIsOtherNow_differ() {
        var link = Link()
        _ = link.step(.grew(file: Self.fills, syncedLength: 100))
        _ = link.connect()
        let differs = Uplink.Effect.send(.resume(.init(file: Self.fills, length: 100, differsAt: 0)))
        #expect(
            link.step(.received(.resume(.init(file: Self.fills, length: 101, blocks: ["00000000"])))).first == .ask(Self.checksums(to: 0)))
        #expect(link.step(.answered(Self.checksums(to: 0), .init())).first == differs)
        _ = link.step(.disconnected)
        _ = link.connect()
        let part = Message.Resume(file: Self.fills, length: 60, base: 60, prefixCRC32C: "00000001")
        #expect(link.step(.received(.resume(part))) == [.ask(Self.checksums(prefix: 60, from: 60, to: 60))])
        #expect(link.step(.answered(Self.checksums(prefix: 60, from: 60, to: 60), .init(prefixCRC32C: "00000002"))).first == differs)
        // A part that begins behind our end.
        _ = link.step(.disconnected)
        _ = link.connect()
        #expect(link.step(.received(.resume(.init(file: Self.fills, length: 160, base: 160, prefixCRC32C: "00000001")))).first == differs)
    }

    @Test func stalledFileWaitsForTheHub_othersGoOn() {
        var link = Link()
        link.stream([Self.fills, "events_20250102.jsonl"])
        _ = link.step(.grew(file: Self.fills, syncedLength: 5_000_001))
        while link.step(.turnEnded).contains(where: { $0.appendedBytes > 0 }) {}
        #expect(link.step(.grew(file: "events_20250102.jsonl", syncedLength: 11)) == [], "the window is full")
        _ = link.step(.received(.resume(.init(file: Self.fills, length: 1, isStalled: true))))
        #expect(link.step(.turnEnded) == [] && link.step(.grew(file: Self.fills, syncedLength: 5_000_002)) == [])
        #expect(link.uplink.backlogBytes == 5_000_012)
        let back = link.step(.received(.resume(.init(file: Self.fills, length: 1, blocks: ["00000000"]))))
        #expect(back == [.ask(Self.checksums(to: 1))])
        #expect(
            link.step(.answered(Self.checksums(to: 1), .init(blocks: ["00000000"]))) == [
                .sendBytes(file: Self.fills, offset: 1, bytes: 65_536)
            ])
    }

    @Test func fileThatCannotBeReadIsTriedAgain() {
        var link = Link()
        link.stream([Self.fills])
        _ = link.step(.unreadable(file: Self.fills))
        #expect(link.step(.tick) == [])
        link.now = Instant(nanoseconds: Limits.edgeReadRetryNanoseconds)
        #expect(link.step(.tick).compactMap(\.resumedFile) == [Self.fills])
    }

    @Test func answerOfAConnectionGoneIsOnlyUsedWhenItIsAskedForAgain() {
        var link = Link()
        _ = link.step(.grew(file: Self.fills, syncedLength: 100))
        _ = link.connect()
        _ = link.step(.received(.resume(.init(file: Self.fills, length: 40, blocks: ["00000001"]))))
        _ = link.step(.disconnected)
        _ = link.connect()
        #expect(link.step(.answered(Self.checksums(to: 40), .init(blocks: ["00000001"]))) == [])
        #expect(
            link.step(.received(.resume(.init(file: Self.fills, length: 0)))) == [
                .sendBytes(file: Self.fills, offset: 0, bytes: 100)
            ])
    }

    @Test func ackBeyondWhatWasSentEndsTheConnection_aRepeatedOneDoesNot() {
        var link = Link()
        link.stream([Self.fills])
        #expect(link.step(.received(.ack(.init(file: Self.fills, length: 1)))) == [])
        #expect(link.step(.received(.ack(.init(file: "other_20250102.jsonl", length: 9)))) == [])
        guard case .close("bad_ack", _) = link.step(.received(.ack(.init(file: Self.fills, length: 2)))).first else {
            Issue.record("not closed")
            return
        }
        // What the hub still sends is not answered any more.
        #expect(link.step(.received(.ping(number: 1))) == [])
    }

    @Test func controlIsHandedOver_questionsAnEdgeDoesNotTakeAreAnswered() {
        var link = Link()
        _ = link.connect()
        let command = Message.command(
            .init(
                id: "c1", revision: .zero, kind: .kill, experiment: nil, symbol: nil, reason: "r", by: "b", issuedMilliseconds: 1))
        #expect(link.step(.received(command)) == [.deliver(command)])
        #expect(link.step(.received(.ping(number: 7))) == [.send(.pong(number: 7))])
        #expect(
            link.step(.received(.progress(.init(id: 1, done: 0, total: 1, text: "")))) == [
                .send(.error(code: "unexpected", text: "an edge takes no 'progress'"))
            ])
        #expect(
            link.step(.received(.resume(.init(file: "fills_19990101.jsonl", length: 0)))) == [
                .send(.error(code: "unknown_file", text: "there is no 'fills_19990101.jsonl' here"))
            ])
        #expect(link.step(.say(.pong(number: 3))) == [.send(.pong(number: 3))])
        _ = link.step(.disconnected)
        #expect(link.step(.say(.pong(number: 3))) == [])
    }

    @Test func welcomeOfAnotherProtocol_orSomethingElseFirst_endsTheConnection() {
        var other = Link.welcome
        other.version = ProtocolVersion.current + 1
        for message in [Message.welcome(other), .ack(.init(file: Self.fills, length: 0))] {
            var link = Link()
            _ = link.step(.started)
            _ = link.step(.connected(Link.hello))
            guard case .close = link.step(.received(message)).first else {
                Issue.record("not closed at \(message)")
                return
            }
            #expect(!link.uplink.isConnected)
        }
    }

    // MARK: Metrics

    @Test func roundTripIsThatOfThePing_reconnectsAreWelcomesAfterTheFirst() {
        var link = Link()
        _ = link.connect()
        link.now = Instant(nanoseconds: 5_000_000_000)
        #expect(link.step(.tick) == [.send(.ping(number: 1))])
        link.now = Instant(nanoseconds: 5_030_000_000)
        _ = link.step(.received(.pong(number: 9)))
        _ = link.step(.received(.pong(number: 1)))
        var reading = link.uplink.reading(at: link.now)
        #expect(reading.roundTrips.count == 1 && reading.roundTrips.sum == 30_000_000 && reading.reconnects == 0 && reading.isConnected)
        // A hub that talks is asked, too.
        link.now = Instant(nanoseconds: 9_999_000_000)
        _ = link.step(.received(.pong(number: 7)))
        link.now = Instant(nanoseconds: 10_000_000_000)
        #expect(link.step(.tick) == [.send(.ping(number: 2))])
        _ = link.step(.disconnected)
        _ = link.step(.connected(Link.hello))
        _ = link.step(.received(.welcome(Link.welcome)))
        reading = link.uplink.reading(at: link.now)
        #expect(reading.reconnects == 1)
    }

    @Test func oldestUnackedByteHasItsAge_untilItIsAcknowledged() {
        var link = Link()
        func age() -> Int64? { link.uplink.reading(at: link.now).oldestUnackedNanoseconds.map { $0 / 1_000_000_000 } }
        #expect(age() == nil)
        link.stream([Self.fills])
        #expect(age() == nil)
        for second in Int64(10)..<20 {
            link.now = Instant(nanoseconds: second * 1_000_000_000)
            _ = link.step(.grew(file: Self.fills, syncedLength: 1 + (second - 9) * 100))
            _ = link.step(.turnEnded)
        }
        #expect(age() == 9)
        // Up to a byte before the end of the third growth.
        _ = link.step(.received(.ack(.init(file: Self.fills, length: 300))))
        #expect(age() == 7)
        _ = link.step(.received(.ack(.init(file: Self.fills, length: 1001))))
        #expect(age() == nil)
    }

    /// A week without a hub: the memory is bounded, and the age is never told too young.
    @Test func ageOfALongBacklogStaysKnown() {
        var link = Link()
        link.stream([Self.fills])
        _ = link.step(.disconnected)
        for second in stride(from: Int64(1), to: 600_000, by: 20) {
            link.now = Instant(nanoseconds: second * 1_000_000_000)
            _ = link.step(.grew(file: Self.fills, syncedLength: 1 + second))
        }
        #expect(link.uplink.reading(at: link.now).oldestUnackedNanoseconds == link.now.nanoseconds - 1_000_000_000)
        // The hub holds all but the last day.
        _ = link.step(.connected(Link.hello))
        _ = link.step(.received(.welcome(Link.welcome)))
        _ = link.step(.received(.resume(.init(file: Self.fills, length: 513_600, blocks: ["00000000"]))))
        _ = link.step(.answered(Self.checksums(to: 513_600), .init(blocks: ["00000000"])))
        let hours = (link.uplink.reading(at: link.now).oldestUnackedNanoseconds ?? 0) / 3_600_000_000_000
        #expect((23...27).contains(hours), "\(hours)")
    }

    // MARK: Time

    @Test func pingAfter5SecondsOfSilence_deadAfter30() {
        var link = Link()
        _ = link.connect()
        var pings: [Int64] = []
        var closedAt: Int64?
        for second in Int64(1)...40 {
            link.now = Instant(nanoseconds: second * 1_000_000_000)
            for effect in link.step(.tick) {
                if case .send(.ping) = effect { pings.append(second) }
                if case .close("idle", _) = effect { closedAt = second }
            }
        }
        #expect(pings == [5, 10, 15, 20, 25, 30])
        #expect(closedAt == 31)
    }

    @Test func welcomeMustComeWithin5Seconds() {
        var link = Link()
        _ = link.step(.started)
        _ = link.step(.connected(Link.hello))
        link.now = Instant(nanoseconds: Limits.helloNanoseconds)
        #expect(link.step(.tick) == [])
        link.now = Instant(nanoseconds: Limits.helloNanoseconds + 1)
        guard case .close("welcome_timeout", _) = link.step(.tick).first else {
            Issue.record("not closed")
            return
        }
    }

    @Test func backOffDoublesUpToItsMaximum_aHandshakeAloneDoesNotResetIt_aWelcomeDoes() {
        // The "random" draw is the bound itself.
        var link = Link(random: { $0.upperBound })
        #expect(link.step(.started) == [.connect(afterNanoseconds: 0)])
        var bound = Limits.reconnectNanosecondsMin
        for attempt in 0..<12 {
            if attempt.isMultiple(of: 2) { _ = link.step(.connected(Link.hello)) }
            #expect(link.step(.disconnected) == [.connect(afterNanoseconds: bound)])
            bound = min(bound * 2, Limits.reconnectNanosecondsMax)
        }
        link.uplink.isHoldingLease = true
        #expect(link.step(.disconnected) == [.connect(afterNanoseconds: Limits.reconnectNanosecondsMaxOnB)])
        link.uplink.isHoldingLease = false
        #expect(link.step(.disconnected) == [.connect(afterNanoseconds: Limits.reconnectNanosecondsMax)])
        _ = link.step(.connected(Link.hello))
        _ = link.step(.received(.welcome(Link.welcome)))
        #expect(link.step(.disconnected) == [.connect(afterNanoseconds: Limits.reconnectNanosecondsMin)])
        #expect(link.step(.disconnected) == [.connect(afterNanoseconds: Limits.reconnectNanosecondsMin * 2)])
    }

    // MARK: Any interleaving

    /// A model hub that loses what it did not sync, connections that break anywhere, files that grow, turns that end late. At every append:
    /// the hub's copy plus these bytes is a prefix of the synced bytes. At the end everything is there.
    @Test(arguments: UInt64(1)...60)
    func hubHoldsPrefixesOfSyncedBytes_underAnyInterleaving(seed: UInt64) {
        var world = World(seed: seed)
        for _ in 0..<4_000 { world.step() }
        world.heal()
        #expect(world.problems.isEmpty, "seed \(seed): \(world.problems.prefix(3))")
        #expect(world.uplink.backlogBytes == 0, "seed \(seed)")
        for (name, length) in world.synced { #expect(world.hubSynced[name] == length, "seed \(seed): \(name)") }
        #expect(world.appends > 100 && world.disconnects > 5, "seed \(seed): the world was too quiet")
    }
}

// MARK: - Support

/// An uplink with a clock that stands at 0 until moved.
private struct Link {
    var uplink: Uplink
    var now = Instant(nanoseconds: 0)

    static let hello = Message.Hello(version: "test", edge: nil)
    static let welcome = Message.Welcome(
        software: "hub", identity: "spiffe://calibrant/edge/e1", revision: .zero, wallMilliseconds: 0, highestSeq: [])

    init(random: @escaping @Sendable (ClosedRange<Int64>) -> Int64 = { _ in 0 }) { uplink = Uplink(random: random) }

    mutating func step(_ input: Uplink.Input) -> [Uplink.Effect] { uplink.step(input, at: now) }

    /// Connects, and returns the effects of the welcome.
    mutating func connect() -> [Uplink.Effect] {
        _ = step(.started)
        _ = step(.connected(Self.hello))
        return step(.received(.welcome(Self.welcome)))
    }

    /// Connects with one byte of each file sent and acknowledged.
    mutating func stream(_ files: [String]) {
        for file in files { _ = step(.grew(file: file, syncedLength: 1)) }
        _ = connect()
        for file in files {
            _ = step(.received(.resume(.init(file: file, length: 0))))
            _ = step(.turnEnded)
            _ = step(.received(.ack(.init(file: file, length: 1))))
        }
    }
}

extension Uplink.Effect {
    fileprivate var resumedFile: String? { if case .send(.resume(let resume)) = self { resume.file } else { nil } }
    fileprivate var appendedBytes: Int64 { if case .sendBytes(_, _, let bytes) = self { Int64(bytes) } else { 0 } }
}

/// The edge's shell, the network and the hub, driven by one seed.
private struct World {
    var uplink: Uplink
    private var random: SeededRandom
    private(set) var synced: [String: Int64] = [:]
    private(set) var hubSynced: [String: Int64] = [:]
    private var hubWritten: [String: Int64] = [:]
    private var now = Instant(nanoseconds: 0)
    /// In flight each way; lost when the connection breaks.
    private var toHub: [ToHub] = []
    private var toEdge: [Message] = []
    private var questions: [FeedQuestion] = []
    private var isTurnOpen = false
    private var mayConnect = false
    private var isUp = false
    private var isWelcomed = false
    private(set) var problems: [String] = []
    private(set) var appends = 0
    private(set) var disconnects = 0

    private enum ToHub {
        case message(Message)
        case append(file: String, offset: Int64, bytes: Int)
    }

    private static let names = [
        "events_20250102.jsonl", "fills_20250102.jsonl", "fills_20250101.jsonl", "pipeline_ticks_20250102.jsonl",
        "pipeline_ticks_20241231.jsonl",
    ]

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        uplink = Uplink { range in range.lowerBound }
        input(.started)
    }

    mutating func step() {
        now = now.advanced(nanoseconds: Int64(random.next(below: 20_000_000)))
        switch random.next(below: 100) {
        case 0..<20:
            let name = Self.names[random.next(below: Self.names.count)]
            synced[name, default: 0] += Int64(1 + random.next(below: 200_000))
            input(.grew(file: name, syncedLength: synced[name]!))
        case 20..<50: deliverToHub()
        case 50..<75: deliverToEdge()
        case 75..<85: endTurn()
        case 85..<90: answerTail()
        case 90..<94: syncHub()
        case 94: if isUp { disconnect() }
        case 95: if isUp { crashHub() }
        case 96: input(.tick)
        default: connect()
        }
    }

    /// No more trouble: everything runs until nothing moves.
    mutating func heal() {
        for _ in 0..<3_000 {
            now = now.advanced(nanoseconds: 1_000_000)
            connect()
            deliverToHub()
            deliverToHub()
            syncHub()
            deliverToEdge()
            deliverToEdge()
            answerTail()
            endTurn()
        }
    }

    // MARK: The edge's shell

    private mutating func input(_ input: Uplink.Input) {
        let effects = uplink.step(input, at: now)
        let turn = effects.reduce(Int64(0)) { $0 + $1.appendedBytes }
        if turn > Int64(Limits.appendTurnBytes) || isTurnOpen && turn > 0 { problems.append("turn of \(turn), one open: \(isTurnOpen)") }
        for effect in effects {
            switch effect {
            case .connect: mayConnect = true
            case .send(let message): toHub.append(.message(message))
            case .ask(let question):
                if case .checksums(_, _, let end, _) = question.part, end > synced[question.file]! { problems.append("\(question)") }
                questions.append(question)
            case .sendBytes(let file, let offset, let bytes):
                if offset + Int64(bytes) > synced[file]! { problems.append("unsynced byte of \(file)") }
                isTurnOpen = true
                toHub.append(.append(file: file, offset: offset, bytes: bytes))
                appends += 1
            case .close(let code, let text): problems.append("closed: \(code) \(text)")
            case .differs(let file, let at), .forked(let file, let at): problems.append("differs: \(file) \(at)")
            case .welcomed, .deliver, .complained: break
            }
        }
        let inFlight = toHub.reduce(0) { if case .append(_, _, let bytes) = $1 { $0 + bytes } else { $0 } }
        if inFlight > Limits.unackedBytesMax { problems.append("\(inFlight) bytes in flight") }
    }

    private mutating func endTurn() {
        guard isTurnOpen else { return }
        isTurnOpen = false
        input(.turnEnded)
    }

    private mutating func answerTail() {
        guard !questions.isEmpty else { return }
        let question = questions.removeFirst()
        guard case .checksums(_, let start, let end, _) = question.part else { return problems.append("\(question)") }
        input(.answered(question, .init(blocks: Self.blocks(question.file, start, end))))
    }

    private mutating func connect() {
        guard mayConnect else { return }
        mayConnect = false
        isUp = true
        input(.connected(Link.hello))
    }

    private mutating func disconnect() {
        isUp = false
        disconnects += 1
        (toHub, toEdge, isTurnOpen, isWelcomed) = ([], [], false, false)
        input(.disconnected)
    }

    // MARK: The hub

    private mutating func deliverToHub() {
        guard !toHub.isEmpty else { return }
        switch toHub.removeFirst() {
        case .message(.hello):
            toEdge.append(.welcome(Link.welcome))
            isWelcomed = true
        case .message(.resume(let resume)):
            let length = hubWritten[resume.file] ?? 0
            let start = resume.from * Int64(Limits.resumeBlockBytes)
            let page = Self.blocks(resume.file, start, min(length, start + 2 * Int64(Limits.resumeBlockBytes)))
            toEdge.append(.resume(.init(file: resume.file, length: length, from: resume.from, blocks: page)))
        case .message(.ping(let number)): toEdge.append(.pong(number: number))
        case .message: break
        case .append(let file, let offset, let bytes):
            if offset != hubWritten[file] ?? 0 { problems.append("append to \(file) at \(offset), not \(hubWritten[file] ?? 0)") }
            hubWritten[file] = offset + Int64(bytes)
        }
    }

    private mutating func syncHub() {
        for name in Self.names where (hubWritten[name] ?? 0) > (hubSynced[name] ?? 0) {
            hubSynced[name] = hubWritten[name]
            if isWelcomed { toEdge.append(.ack(.init(file: name, length: hubWritten[name]!))) }
        }
    }

    private mutating func crashHub() {
        hubWritten = hubSynced
        disconnect()
    }

    private mutating func deliverToEdge() {
        guard !toEdge.isEmpty else { return }
        input(.received(toEdge.removeFirst()))
    }

    /// Of the blocks that begin at `start`, the last one up to `end`: as if every file had bytes of its own.
    private static func blocks(_ file: String, _ start: Int64, _ end: Int64) -> [String] {
        stride(from: start, to: end, by: Limits.resumeBlockBytes).map { block in
            CRC32C.text(of: "\(file)@\(block)-\(min(end, block + Int64(Limits.resumeBlockBytes)))".utf8)
        }
    }
}

struct CRC32CTests {
    /// RFC 3720, B.4, and the customary check value.
    @Test(
        arguments: [
            ([UInt8](repeating: 0, count: 32), "8a9136aa"), ([UInt8](repeating: 0xff, count: 32), "62a8ab43"), (Array(0..<32), "46dd794e"),
            (Array("123456789".utf8), "e3069283"), ([], "00000000"),
        ] as [([UInt8], String)])
    func knownVectors(bytes: [UInt8], text: String) {
        #expect(CRC32C.text(of: bytes) == text)
        var checksum = CRC32C()
        bytes.withUnsafeBytes { checksum.combine($0) }
        #expect(checksum.text == text)
    }

    @Test func theProcessorsInstructionAndEightBytesAStepAreTheSameAsOne_inAnyPieces() {
        var random = SeededRandom(seed: 1)
        let bytes = (0..<1_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        for _ in 0..<100 {
            let cut = random.next(below: bytes.count)
            var (checksum, slices) = (CRC32C(), CRC32C())
            bytes.withUnsafeBytes { bytes in
                checksum.combine(UnsafeRawBufferPointer(rebasing: bytes[..<cut]))
                checksum.combine(UnsafeRawBufferPointer(rebasing: bytes[cut...]))
                slices.combineInSlices(UnsafeRawBufferPointer(rebasing: bytes[..<cut]))
                slices.combineInSlices(UnsafeRawBufferPointer(rebasing: bytes[cut...]))
            }
            #expect(checksum.text == CRC32C.text(of: bytes) && slices.text == checksum.text)
        }
    }
}
