import CalibModel
import EdgeCore
internal import HubCore
import Wire

/// Peers that say anything: sound messages in any order, with right and wrong values, some of their bytes damaged.
enum FuzzedSession {
    private static let host = "edge-0"
    private static let epoch = "00000000000000aa"

    /// One damaged line: what is still a message is the same when written and read again.
    static func message(_ random: inout PRNG, _ tally: inout FuzzTally) throws(FuzzDisagreement) {
        let said = random.below(2) == 0 ? ofAnEdge(at: random.below(1000), &random) : ofAHub(at: random.below(1000), &random)
        let line = damaged(Array(said.line.dropLast()), &random)
        guard let read = read(line) else { return tally.reject("refused") }
        guard Self.read(Array(read.line.dropLast())) == read else {
            throw FuzzDisagreement(target: .message, input: line, text: "it is another message when it is written and read again")
        }
        tally.accept()
    }

    private static func read(_ line: [UInt8]) -> Message? {
        line.withUnsafeBytes { bytes in
            do throws(WireError) { return try Message(line: bytes) } catch { return nil }
        }
    }

    /// An input is one message to a hub or to an edge; a session has about a hundred.
    static func run(inputs: Int, _ random: inout PRNG) throws(FuzzDisagreement) -> FuzzTally {
        var tally = FuzzTally()
        while tally.inputs < Int64(inputs) {
            if random.below(2) == 0 {
                var session = HubSession(seed: random.next())
                try session.run(&random, &tally)
            } else {
                var session = EdgeSession(seed: random.next())
                try session.run(&random, &tally)
            }
        }
        return tally
    }

    // MARK: Messages

    private static func file(_ random: inout PRNG) -> String {
        let names = [
            "fills_20250101.jsonl", "events_20250101.jsonl", "fills_20250102.jsonl", "fills_20250101.1.jsonl", "../fills_20250101.jsonl",
            "quotes_20250230.jsonl", "", "fills_20250101.jsonl/", "markouts_20250101.jsonl",
        ]
        return names[Int(random.below(random.below(3) == 0 ? Int64(names.count) : 3))]
    }

    /// Mostly the value that a sound peer would name.
    private static func place(_ right: Int64, _ random: inout PRNG) -> Int64 {
        switch random.below(8) {
        case 0: 0
        case 1: 1 << 53
        case 2: max(0, right + random.below(3) - 1)
        case 3: random.below(1 << 30)
        default: right
        }
    }

    private static func checksum(_ random: inout PRNG) -> String { ["00000000", "00c0ffee", "x", ""][Int(random.below(4))] }

    private static func sealed(_ right: Int64, _ random: inout PRNG) -> Message {
        .sealed(
            .init(
                file: file(&random), bytes: place(right, &random), rows: place(1, &random),
                sha256: String(repeating: random.below(4) == 0 ? "A" : "a", count: random.below(4) == 0 ? 3 : 64)))
    }

    static func ofAnEdge(at right: Int64, _ random: inout PRNG) -> Message {
        switch random.below(16) {
        case 0: .ping(number: random.below(4))
        case 1: .pong(number: random.below(4))
        case 2: .hello(hello(&random))
        case 3, 4, 5:
            .resume(
                .init(
                    file: file(&random), length: place(right, &random), from: place(0, &random),
                    differsAt: random.below(4) == 0 ? place(right, &random) : nil, base: place(0, &random),
                    prefixCRC32C: random.below(2) == 0 ? checksum(&random) : nil))
        case 6, 7, 8, 9, 10: .append(.init(file: file(&random), offset: place(right, &random), bytes: 1 + Int(random.below(300))))
        case 11, 12: sealed(right, &random)
        case 13: .gone(.init(file: file(&random), bytes: place(right, &random)))
        case 14: .error(code: "x", text: "y")
        default: ofAHub(at: right, &random)
        }
    }

    private static func hello(_ random: inout PRNG) -> Message.Hello {
        let isOdd = random.below(6) == 0
        return Message.Hello(
            protocolMin: random.below(8) == 0 ? random.below(5) : 1, protocolMax: 1 + random.below(3), version: "fuzz",
            edge: random.below(16) == 0
                ? nil
                : Message.Hello.Edge(
                    host: isOdd ? "edge-1" : host, epoch: random.below(12) == 0 ? "../x" : epoch, source: "sim", venue: "sim",
                    wallMilliseconds: place(0, &random), symbols: ["BTCUSDT"], revision: .zero, latches: [], configHash: "0"))
    }

    static func ofAHub(at right: Int64, _ random: inout PRNG) -> Message {
        switch random.below(12) {
        case 0: .ping(number: random.below(4))
        case 1:
            .welcome(
                .init(
                    version: random.below(6) == 0 ? random.below(4) : 2, software: "fuzz", identity: "x", revision: .zero,
                    wallMilliseconds: 0, highestSeq: []))
        case 2, 3, 4, 5:
            .resume(
                .init(
                    file: file(&random), length: place(right, &random), from: place(0, &random),
                    base: random.below(3) == 0 ? place(right, &random) : 0,
                    prefixCRC32C: random.below(3) == 0 ? checksum(&random) : nil,
                    blocks: (0..<random.below(3)).map { _ in checksum(&random) }, isStalled: random.below(8) == 0,
                    part: random.below(3) == 0 ? nil : random.below(3)))
        case 6, 7: .ack(.init(file: file(&random), length: place(right, &random)))
        case 8: sealed(right, &random)
        case 9: .error(code: "x", text: "y")
        case 10: .lease(.init(experiment: "x", number: place(1, &random), durationMilliseconds: random.below(20_000)))
        default: .append(.init(file: file(&random), offset: place(right, &random), bytes: 1))
        }
    }

    /// Some bytes turned, left out or doubled.
    static func damaged(_ line: [UInt8], _ random: inout PRNG) -> [UInt8] {
        var line = line
        for _ in 0...random.below(3) where !line.isEmpty {
            let place = Int(random.below(Int64(line.count)))
            switch random.below(4) {
            case 0: line[place] ^= 1 << UInt8(random.below(8))
            case 1: line.remove(at: place)
            case 2: line.insert(line[Int(random.below(Int64(line.count)))], at: place)
            default: line.replaceSubrange(place..<min(line.count, place + 8), with: Array("-9e99".utf8))
            }
        }
        return line
    }

    // MARK: A hub and whoever talks to it

    private struct HubSession {
        private let disk: SimDisk
        private var ingest = Ingest(bounds: .simulated)
        private var committer: Committer<SimDisk>
        private let link = LinkID(1)
        private var isClosed = false
        private var jobs: [Ingest.Effect] = []
        private var payloads: [[UInt8]] = []
        private var framing = LineFraming()

        init(seed: UInt64) {
            disk = SimDisk(seed: seed)
            committer = Committer(disk: disk, bounds: .simulated)
        }

        mutating func run(_ random: inout PRNG, _ tally: inout FuzzTally) throws(FuzzDisagreement) {
            var input: [UInt8] = []
            try perform(ingest.opened(link, peer: Peer(role: .edge, name: FuzzedSession.host)), [], input)
            for number in 0..<(20 + random.below(160)) where !isClosed {
                let right = ingest.files(of: FuzzedSession.host).first?.length ?? 0
                let message =
                    number == 0 && random.below(8) > 0
                    ? Message.hello(FuzzedSession.hello(&random)) : FuzzedSession.ofAnEdge(at: right, &random)
                var line = message.line
                if random.below(12) == 0 { line = FuzzedSession.damaged(line, &random) }
                input = line + [UInt8](repeating: random.below(4) == 0 ? 0x0a : 0x61, count: message.payloadBytes)
                input.withUnsafeBytes { framing.append($0) }
                try drain(input, &tally)
                if random.below(3) == 0 { try round(input) }
                if random.below(20) == 0 { try perform(ingest.tick(Instant(nanoseconds: number * 1_000_000_000)), [], input) }
                if random.below(40) == 0 { disk.failingSyncs = 1 }
                if random.below(40) == 0 { disk.shortWrites = 1 }
            }
            _ = ingest.closed(link, at: Instant(nanoseconds: 1))
            guard ingest.connectedEdges == 0 else { throw differ(input, "a closed connection is still live") }
        }

        private mutating func drain(_ input: [UInt8], _ tally: inout FuzzTally) throws(FuzzDisagreement) {
            while !isClosed {
                let frame: LineFraming.Frame
                do throws(WireError) {
                    guard let next = try framing.next() else { return }
                    frame = next
                } catch {
                    tally.reject("refused")
                    // Who says what is no message hears why, and, but for a type that is not known, is not heard again.
                    guard case .unknownType = error else {
                        isClosed = true
                        return
                    }
                    continue
                }
                tally.accept()
                try perform(ingest.received(frame.message, on: link, at: Instant(nanoseconds: 1)) ?? [], frame.payload, input)
            }
        }

        private mutating func perform(_ effects: [Ingest.Effect], _ payload: [UInt8], _ input: [UInt8]) throws(FuzzDisagreement) {
            for effect in effects {
                switch effect {
                case .close: isClosed = true
                case .send(_, .ack(let ack)):
                    let path = "host=\(FuzzedSession.host)/\(ack.file)"
                    // Parts are counted from their base; the first copy is checked.
                    let isFirst = ingest.forks(of: FuzzedSession.host).allSatisfy { !$0.file.hasPrefix(ack.file.dropLast(6)) }
                    if isFirst, disk.durableLength(of: path) < ack.length {
                        throw differ(input, "\(ack.file) is acknowledged to \(ack.length), \(disk.durableLength(of: path)) would survive")
                    }
                case .write(let host, let file, _, _):
                    guard host == FuzzedSession.host, FeedPart.parse(file) != nil else {
                        throw differ(input, "'\(file)' of '\(host)' is written")
                    }
                    jobs.append(effect)
                    payloads.append(payload)
                case .survey, .inspect, .verify, .seal, .record: jobs.append(effect)
                case .send, .welcome, .pauseReading, .resumeReading, .alarm: break
                }
            }
            if ingest.unackedBytes(of: FuzzedSession.host) > Int64(Limits.unackedBytesMax + Limits.appendBytesMax) {
                throw differ(input, "more waits than may")
            }
        }

        private mutating func round(_ input: [UInt8]) throws(FuzzDisagreement) {
            let jobs = jobs
            var payloads = payloads[...]
            (self.jobs, self.payloads) = ([], [])
            var effects: [Ingest.Effect] = []
            for job in jobs {
                switch job {
                case .write(let host, let file, let epoch, let offset):
                    payloads.removeFirst().withUnsafeBytes { committer.write($0, host: host, file: file, epoch: epoch, offset: offset) }
                case .survey(let link, let host, let epoch): committer.survey(link, host: host, epoch: epoch)
                case .inspect(let link, let host, let file, let block): committer.inspect(link, host: host, file: file, fromBlock: block)
                case .verify(let link, let host, let file): committer.verify(link, host: host, file: file)
                case .seal(let link, let host, let file, let sealed, let spans):
                    var book = SealBook(disk: disk, digest: { SimDigest.running() })
                    var isEqual: Bool?
                    do throws(SimDiskError) { isEqual = try book.holds(sealed, host: host, file: file, spans) } catch {}  // Unreadable.
                    effects += ingest.sealed(link, file: file, isEqual: isEqual)
                case .record(let host, let part): effects += ingest.recorded(host: host, part)
                default: break
                }
            }
            for result in committer.endRound().results {
                switch result {
                case .committed(let host, let file, let length, _): effects += ingest.committed(host: host, file: file, length: length)
                case .failed(let host, let file, _): effects += ingest.failed(host: host, file: file)
                case .inspected(let link, _, let file, let found): effects += ingest.inspected(link, file: file, found)
                case .verified(let link, _, let file, let found, let isDamaged):
                    effects += ingest.verified(link, file: file, found, isDamaged: isDamaged)
                case .surveyed(let link, let files, let seqs): effects += ingest.surveyed(link, files: files, highestSeq: seqs)
                case .rejected, .quarantined, .surveyFailed: break
                }
            }
            try perform(effects, [], input)
        }

        private func differ(_ input: [UInt8], _ text: String) -> FuzzDisagreement {
            FuzzDisagreement(target: .session, input: input, text: "hub: \(text)")
        }
    }

    // MARK: An edge and whatever calls itself a hub

    private struct EdgeSession {
        private var uplink: Uplink
        private var synced: [String: Int64] = [:]
        private var sent: [String: Int64] = [:]
        private var isClosing = false
        private var questions: [FeedQuestion] = []
        private var input: [UInt8] = []

        init(seed: UInt64) {
            let dice = Dice(seed: seed)
            uplink = Uplink(bounds: .simulated) { dice.draw($0) }
        }

        mutating func run(_ random: inout PRNG, _ tally: inout FuzzTally) throws(FuzzDisagreement) {
            try step(.started)
            for connection in 0..<3 {
                try step(.connected(Message.Hello(version: "fuzz", edge: nil)))
                for number in 0..<(10 + random.below(80)) where !isClosing {
                    try live(&random)
                    let right = synced["fills_20250101.jsonl"] ?? 0
                    let message =
                        number == 0 && random.below(8) > 0
                        ? Message.welcome(
                            .init(
                                version: 1 + random.below(2), software: "fuzz", identity: "x", revision: .zero, wallMilliseconds: 0,
                                highestSeq: [])) : FuzzedSession.ofAHub(at: right, &random)
                    var line = Array(message.line.dropLast())
                    if random.below(12) == 0 { line = FuzzedSession.damaged(line, &random) }
                    input = line
                    guard let read = FuzzedSession.read(line) else {
                        tally.reject("refused")
                        continue
                    }
                    tally.accept()
                    try step(.received(read))
                }
                input = []
                (isClosing, sent) = (false, [:])
                if connection < 2 { try step(.disconnected) }
            }
        }

        /// What the edge's own side does meanwhile.
        private mutating func live(_ random: inout PRNG) throws(FuzzDisagreement) {
            switch random.below(6) {
            case 0, 1:
                let file = ["fills_20250101.jsonl", "events_20250101.jsonl", "fills_20250102.jsonl"][Int(random.below(3))]
                synced[file, default: 0] += 1 + random.below(20_000)
                try step(.grew(file: file, syncedLength: synced[file]!))
            case 2: try step(.turnEnded)
            case 3:
                guard !questions.isEmpty else { return }
                let question = questions.removeFirst()
                let blocks = (0..<random.below(3)).map { _ in FuzzedSession.checksum(&random) }
                let answer = FeedQuestion.Answer(prefixCRC32C: FuzzedSession.checksum(&random), blocks: blocks, rowStart: random.below(100))
                try step(.answered(question, random.below(8) == 0 ? nil : answer))
            case 4:
                guard let length = synced["fills_20250101.jsonl"] else { return }
                try step(.sealed(.init(file: "fills_20250101.jsonl", bytes: length, rows: 1, sha256: String(repeating: "a", count: 64))))
            default:
                guard random.below(8) == 0, synced.removeValue(forKey: "fills_20250102.jsonl") != nil else { return }
                try step(.removed(file: "fills_20250102.jsonl"))
            }
        }

        private mutating func step(_ input: Uplink.Input) throws(FuzzDisagreement) {
            // It begins anew where it says.
            if case .received(.resume(let resume)) = input { sent[resume.file] = nil }
            if case .removed(let file) = input { sent[file] = nil }
            for effect in uplink.step(input, at: Instant(nanoseconds: 1)) {
                switch effect {
                case .sendBytes(let file, let offset, let bytes):
                    if isClosing { throw differ("bytes leave behind the close") }
                    guard let length = synced[file], offset + Int64(bytes) <= length else {
                        throw differ("\(file) is shipped beyond its end")
                    }
                    if let place = sent[file], place != offset { throw differ("\(file) is shipped from \(offset), not from \(place)") }
                    sent[file] = offset + Int64(bytes)
                case .ask(let question):
                    questions.append(question)
                    sent[question.file] = nil
                case .close: isClosing = true
                case .send(.resume(let resume)): sent[resume.file] = nil
                case .connect, .send, .deliver, .welcomed, .differs, .forked, .complained: break
                }
            }
            if uplink.backlogBytes < 0 { throw differ("a backlog of \(uplink.backlogBytes) bytes") }
        }

        private func differ(_ text: String) -> FuzzDisagreement { FuzzDisagreement(target: .session, input: input, text: "edge: \(text)") }
    }
}
