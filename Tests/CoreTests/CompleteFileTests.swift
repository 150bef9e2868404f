import CalibModel
import EdgeCore
import HubCore
import Simulation
import Testing
import Wire

/// Complete files: told by their digest, found to be equal once, and not compared again; removed when the hub has said so (SPEC 2.7, 8.2).
struct CompleteFileTests {
    private static let file = "fills_20250101.jsonl"
    private static let sealed = Message.Sealed(file: file, bytes: 100, rows: 2, sha256: String(repeating: "a", count: 64))
    private static let start = Instant(nanoseconds: 0)

    // MARK: The edge

    private static func uplink(version: Int64 = ProtocolVersion.current, isSealed: Bool = true) -> (Uplink, [Uplink.Effect]) {
        var uplink = Uplink { _ in 0 }
        _ = uplink.step(.grew(file: file, syncedLength: 100), at: start)
        if isSealed { _ = uplink.step(.sealed(sealed), at: start) }
        _ = uplink.step(.started, at: start)
        let effects = connect(&uplink, version: version)
        return (uplink, effects)
    }

    private static func connect(_ uplink: inout Uplink, version: Int64 = ProtocolVersion.current) -> [Uplink.Effect] {
        _ = uplink.step(.connected(Message.Hello(version: "test", edge: nil)), at: start)
        let welcome = Message.Welcome(
            version: version, software: "hub", identity: "x", revision: .zero, wallMilliseconds: 0, highestSeq: [])
        return Array(uplink.step(.received(.welcome(welcome)), at: start).dropFirst())
    }

    @Test func aCompleteFileIsToldByItsDigest_andMayGoOnceTheHubHasSaidTheSame() {
        var (uplink, effects) = Self.uplink()
        #expect(effects == [.send(.sealed(Self.sealed))])
        #expect(uplink.heldLengths.isEmpty && uplink.backlogBytes == 100)
        #expect(uplink.step(.received(.sealed(Self.sealed)), at: Self.start) == [])
        #expect(uplink.heldLengths == [Self.file: 100] && uplink.backlogBytes == 0)
        // A hub that comes back may have lost its disk: it is asked again, and until it has answered the file stays.
        _ = uplink.step(.disconnected, at: Self.start)
        #expect(uplink.heldLengths.isEmpty)
        #expect(Self.connect(&uplink) == [.send(.sealed(Self.sealed))])
    }

    @Test func aHubThatLacksItAnswersWithResume_andHearsTheDigestAgainWhenItHasAll() {
        var (uplink, _) = Self.uplink()
        let sent = uplink.step(.received(.resume(.init(file: Self.file, length: 0, part: 0))), at: Self.start)
        #expect(sent == [.sendBytes(file: Self.file, offset: 0, bytes: 100)])
        _ = uplink.step(.turnEnded, at: Self.start)
        #expect(uplink.step(.received(.ack(.init(file: Self.file, length: 60))), at: Self.start) == [])
        let told = uplink.step(.received(.ack(.init(file: Self.file, length: 100))), at: Self.start)
        #expect(told == [.send(.sealed(Self.sealed))])
        #expect(uplink.step(.tick, at: Self.start) == [], "once")
        #expect(uplink.heldLengths.isEmpty, "an acknowledgement is not enough")
        _ = uplink.step(.received(.sealed(Self.sealed)), at: Self.start)
        #expect(uplink.heldLengths == [Self.file: 100])
    }

    @Test func anotherDigestThanOursEndsTheConnection() {
        var (uplink, _) = Self.uplink()
        var other = Self.sealed
        other.sha256 = String(repeating: "b", count: 64)
        guard case .close("bad_sealed", _)? = uplink.step(.received(.sealed(other)), at: Self.start).first else {
            Issue.record("a digest nobody told is believed")
            return
        }
    }

    @Test func aHubOfTheVersionBeforeHearsNeitherSealedNorGone_andItsAcknowledgementCounts() {
        var (uplink, effects) = Self.uplink(version: 1)
        #expect(effects == [.send(.resume(.init(file: Self.file, length: 100)))])
        _ = uplink.step(.received(.resume(.init(file: Self.file, length: 0))), at: Self.start)
        _ = uplink.step(.turnEnded, at: Self.start)
        #expect(uplink.step(.received(.ack(.init(file: Self.file, length: 100))), at: Self.start) == [])
        #expect(uplink.heldLengths == [Self.file: 100])
        #expect(uplink.step(.removed(file: Self.file), at: Self.start) == [])
    }

    @Test func aRemovedFileIsTold_andNeitherAskedForNorCountedAgain() {
        var (uplink, _) = Self.uplink()
        let gone = Uplink.Effect.send(.gone(.init(file: Self.file, bytes: 100)))
        #expect(uplink.step(.removed(file: Self.file), at: Self.start) == [gone])
        #expect(uplink.backlogBytes == 0)
        _ = uplink.step(.disconnected, at: Self.start)
        #expect(Self.connect(&uplink) == [])
        // Removed while nobody could be told: told later, once.
        var (other, _) = Self.uplink()
        _ = other.step(.disconnected, at: Self.start)
        #expect(other.step(.removed(file: Self.file), at: Self.start) == [])
        #expect(Self.connect(&other) == [gone])
        _ = other.step(.disconnected, at: Self.start)
        #expect(Self.connect(&other) == [])
    }

    @Test func aForkIsTold_whenTheHubGoesOnInANewPart_andNotWhenItsOwnDiskWasWrong() {
        for (part, isFork) in [(Int64(1), true), (0, false)] {
            var (uplink, _) = Self.uplink(isSealed: false)
            let blocks = Message.Resume(file: Self.file, length: 50, blocks: ["00000001"], part: 0)
            guard case .ask(let question)? = uplink.step(.received(.resume(blocks)), at: Self.start).first else {
                Issue.record("nothing was asked")
                return
            }
            _ = uplink.step(.answered(question, .init(blocks: ["00000002"])), at: Self.start)
            let answer = Message.Resume(file: Self.file, length: 0, part: part)
            let effects = uplink.step(.received(.resume(answer)), at: Self.start)
            #expect(effects.contains(.forked(file: Self.file, at: 0)) == isFork)
            #expect(effects.contains(.sendBytes(file: Self.file, offset: 0, bytes: 100)))
        }
    }

    // MARK: The hub

    private static func ingest(holding length: Int64, parts: [FeedPart] = []) -> Ingest {
        var ingest = Ingest()
        var files = [Ingest.HeldFile(file: file, length: length)]
        if let part = parts.last { files.append(.init(file: FeedPart.name(part.file, part.number), length: sealed.bytes - part.base)) }
        ingest.found(host: "tokyo", files: files, parts: parts)
        _ = ingest.opened(IngestTests.a, peer: IngestTests.tokyo)
        _ = ingest.received(IngestTests.hello(), on: IngestTests.a, at: start)
        _ = ingest.surveyed(IngestTests.a, files: [], highestSeq: [])
        return ingest
    }

    @Test func theHubSaysThatItHasAFile_onlyAfterItsDigestWasFound() {
        var ingest = Self.ingest(holding: 100)
        let asked = ingest.received(.sealed(Self.sealed), on: IngestTests.a, at: Self.start)
        #expect(
            asked == [.seal(IngestTests.a, host: "tokyo", file: Self.file, Self.sealed, [.init(file: Self.file, bytes: 100)])])
        #expect(ingest.sealed(IngestTests.a, file: Self.file, isEqual: true) == [.send(IngestTests.a, .sealed(Self.sealed))])
        #expect(ingest.sealed(IngestTests.a, file: Self.file, isEqual: true) == [], "of no question")
    }

    @Test func aFileThatIsNotAllHereIsResumed() {
        var ingest = Self.ingest(holding: 99)
        let effects = ingest.received(.sealed(Self.sealed), on: IngestTests.a, at: Self.start)
        #expect(effects == [.inspect(IngestTests.a, host: "tokyo", file: Self.file, fromBlock: 0)])
    }

    @Test func aPartIsReadBehindWhatLiesBeforeItsBase() {
        func part(_ number: Int, _ base: Int64) -> FeedPart {
            FeedPart(file: Self.file, number: number, epoch: IngestTests.epoch, base: base, prefixCRC32C: "00000001")
        }
        var ingest = Self.ingest(holding: 90, parts: [part(1, 70), part(2, 40)])
        let effects = ingest.received(.sealed(Self.sealed), on: IngestTests.a, at: Self.start)
        guard case .seal(_, _, "fills_20250101.2.jsonl", _, let spans)? = effects?.first else {
            Issue.record("\(String(describing: effects))")
            return
        }
        // Up to 40 the second part was equal to the first, which begins at 70 only.
        #expect(spans.reduce(0) { $0 + $1.bytes } == 100)
        #expect(spans == [.init(file: Self.file, bytes: 40), .init(file: "fills_20250101.2.jsonl", bytes: 60)])
    }

    @Test func anotherDigestIsLookedIntoOnce_andThenLeft() {
        var ingest = Self.ingest(holding: 100)
        _ = ingest.received(.sealed(Self.sealed), on: IngestTests.a, at: Self.start)
        let effects = ingest.sealed(IngestTests.a, file: Self.file, isEqual: false)
        #expect(effects.first == .verify(IngestTests.a, host: "tokyo", file: Self.file))
        #expect(effects.contains { if case .alarm("tokyo", "digest", _) = $0 { true } else { false } })
        let answer = ingest.verified(IngestTests.a, file: Self.file, IngestTests.inspection(100), isDamaged: false)
        guard case .send(_, .resume(let resume))? = answer.first else {
            Issue.record("\(answer)")
            return
        }
        #expect(resume.length == 100 && resume.blocks == ["0badcafe"])
        #expect(ingest.received(.sealed(Self.sealed), on: IngestTests.a, at: Self.start) == [])
    }

    @Test func bytesThatWereGoneBeforeTheyCameAreCounted() {
        var ingest = Self.ingest(holding: 60)
        let effects = ingest.received(.gone(.init(file: Self.file, bytes: 100)), on: IngestTests.a, at: Self.start)
        #expect(effects?.contains { if case .alarm("tokyo", "gone", _) = $0 { true } else { false } } == true)
        #expect(ingest.goneBytes(of: "tokyo") == 40)
        #expect(ingest.received(.gone(.init(file: Self.file, bytes: 60)), on: IngestTests.a, at: Self.start) == [])
    }

    /// As many files as a hub takes: the next is refused, and nothing else is.
    @Test func aFileTooManyIsRefused_theConnectionGoesOn() {
        var ingest = Ingest()
        let held = (0..<Limits.hostFilesMax).map { number in
            let day = CalendarDay(number: 10_000 + Int64(number))
            return Ingest.HeldFile(file: FeedFileName.text(.fills, day), length: 1)
        }
        ingest.found(host: "tokyo", files: held)
        _ = ingest.opened(IngestTests.a, peer: IngestTests.tokyo)
        _ = ingest.received(IngestTests.hello(), on: IngestTests.a, at: Self.start)
        _ = ingest.surveyed(IngestTests.a, files: [], highestSeq: [])
        let name = "events_20250101.jsonl"
        let refused = ingest.received(IngestTests.resume(5, name), on: IngestTests.a, at: Self.start)
        guard case .send(_, .resume(let answer))? = refused?.first else {
            Issue.record("\(String(describing: refused))")
            return
        }
        #expect(answer.isStalled && IngestTests.closes(refused) == nil)
        #expect(ingest.received(IngestTests.append(0, 5, name), on: IngestTests.a, at: Self.start) == [])
        let other = ingest.received(IngestTests.resume(5, held[0].file), on: IngestTests.a, at: Self.start)
        #expect(other == [.inspect(IngestTests.a, host: "tokyo", file: held[0].file, fromBlock: 0)])
    }

    /// The control log was lost, the files were not.
    @Test func aPartThatNobodyRemembersIsNotWrittenTo() {
        var ingest = Ingest()
        ingest.found(host: "tokyo", files: [.init(file: Self.file, length: 10), .init(file: "fills_20250101.3.jsonl", length: 5)])
        _ = ingest.opened(IngestTests.a, peer: IngestTests.tokyo)
        _ = ingest.received(IngestTests.hello(), on: IngestTests.a, at: Self.start)
        _ = ingest.surveyed(IngestTests.a, files: [], highestSeq: [])
        _ = ingest.received(IngestTests.resume(9), on: IngestTests.a, at: Self.start)
        let begun = ingest.inspected(IngestTests.a, file: Self.file, IngestTests.inspection(10, epoch: "00000000000000bb"))
        #expect(
            begun.first
                == .record(host: "tokyo", FeedPart(file: Self.file, number: 4, epoch: IngestTests.epoch, base: 0, prefixCRC32C: nil)))
    }

    // MARK: The book

    @Test func aFileIsReadOnce_andOnlyEqualBytesAreNoted() throws {
        let disk = SimDisk(seed: 1)
        var reads = 0
        var book = SealBook(
            disk: disk,
            digest: {
                var sum: UInt64 = 0
                return .init(
                    update: { bytes in
                        reads += 1
                        for byte in bytes { sum = sum &* 31 &+ UInt64(byte) }
                    }, finish: { "\(sum)" })
            })
        func write(_ text: String, _ path: String) throws {
            try Array(text.utf8).withUnsafeBytes { try disk.write($0, to: path, at: 0) }
        }
        try write("ab\ncd\nXX", "host=tokyo/one")
        try write("ef\n", "host=tokyo/two")
        let spans = [Ingest.FileSpan(file: "one", bytes: 6), .init(file: "two", bytes: 3)]
        var sum: UInt64 = 0
        for byte in "ab\ncd\nef\n".utf8 { sum = sum &* 31 &+ UInt64(byte) }
        let right = Message.Sealed(file: Self.file, bytes: 9, rows: 3, sha256: "\(sum)")
        var wrong = right
        wrong.sha256 = "0"
        // What was told, whether it is so, and how many reads there have been then.
        for (sealed, isSo, readsThen) in [(wrong, false, 2), (right, true, 4), (right, true, 4), (wrong, false, 6)] {
            let holds = try book.holds(sealed, host: "tokyo", file: "two", spans)
            #expect(holds == isSo && reads == readsThen)
        }
    }
}
