import CalibModel
import EdgeCore
internal import HubCore
import Wire

/// An edge's machine: a disk, a clock, and, while it runs, the cores that write feeds and ship them.
struct SimEdge {
    let index: Int
    let disk: SimDisk
    var name: String { "edge-\(index)" }
    /// Added to the world's time by clock steps.
    var wallOffset: Int64 = 0
    var partitionedUntil: Int64 = 0
    /// Rises with every end of the process: what was meant for an earlier one is not heard.
    var life = 0
    var connection: Int?
    var epoch = ""
    var writer: FeedWriter?
    var appender = FeedAppender<SimDisk>()
    var uplink: Uplink?
    /// Durable bytes of each file, as the uplink was told.
    var synced: [String: Int64] = [:]
    /// Complete files, as their seals told.
    var seals: [String: Message.Sealed] = [:]
    /// An old copy of the disk.
    var backup: [String: [UInt8]]?

    /// Bytes that only the hub's disk may hold are not turned over there: nobody could get them back.
    var wasReplaced = false
    var hubWasDamaged = false
    /// Files have gone; some of them before the hub had them.
    var hasRetired = false
    var hasForcedRemovals = false
    var hubDiskWasLost = false
    var arms: SimArms?
    /// Experiments whose latch its disk holds.
    var latched: Set<String> = []

    // For checkers.
    /// Hashes of all rows ever given to the disk.
    var written: Set<UInt64> = []
    /// Hashes of all rows the hub has ever acknowledged.
    var acknowledged: Set<UInt64> = []
    /// By file: where the last acknowledgement of this connection ended.
    var ackedLengths: [String: Int64] = [:]
    var rowsWritten: Int64 = 0
    /// Told by its uplink.
    var forks: Int64 = 0

    var hello: Message.Hello {
        Message.Hello(
            version: "sim",
            edge: .init(
                host: name, epoch: epoch, source: "sim", venue: "sim", wallMilliseconds: 0, symbols: ["BTCUSDT"],
                revision: arms?.control.revision ?? .zero, latches: arms?.control.latchedExperiments ?? [], configHash: "0"))
    }
}

/// What a core asks its shell for, out of the world's seed. `@unchecked Sendable`: a world is run by one thread.
final class Dice: @unchecked Sendable {
    private var random: PRNG
    init(seed: UInt64) { random = PRNG(seed: seed) }
    func draw(_ range: ClosedRange<Int64>) -> Int64 { range.lowerBound + random.below(range.upperBound - range.lowerBound + 1) }
}

extension World {
    // MARK: Life

    /// Opens the feeds as `FeedFiles` does, and begins.
    func startEdge(_ index: Int) {
        guard edges[index].writer == nil else { return }
        let life = edges[index].life
        do throws(SimDiskError) {
            try openFeeds(index)
        } catch {
            stopEdge(index, losingPower: error == .powerLost)
            return after(seconds(1, 10)) { world in if world.edges[index].life == life + 1 { world.startEdge(index) } }
        }
        trace(3, Int64(index))
        append(index) { writer, now, wall in
            writer.append(EventRecord(wall: wall, kind: .started, first: writer.nextSeq(.events)), at: now)
        }
        drain(index, life)
        edge(index, life, .started)
        after(seconds(0, 5)) { $0.produce(index, life) }
        after(1_000_000_000) { $0.edgeTick(index, life) }
    }

    private func openFeeds(_ index: Int) throws(SimDiskError) {
        var disk = edges[index].disk
        edges[index].epoch = ""
        if let length = try disk.length(of: ".epoch"), length == 16 {
            edges[index].epoch = String(decoding: try disk.read(".epoch", at: 0, count: 16), as: UTF8.self)
        }
        // A crash while it was being made: nothing carries it yet.
        if !HostName.isEpoch(edges[index].epoch) {
            var text = JSONWriter()
            text.hex(random.next())
            let epoch = Array(text.bytes[1...16])
            try epoch.withUnsafeBufferPointer { bytes throws(SimDiskError) in
                try disk.write(UnsafeRawBufferPointer(bytes), to: ".epoch", at: 0)
            }
            try disk.sync(".epoch")
            try disk.syncNames(in: "")
            edges[index].epoch = String(decoding: epoch, as: UTF8.self)
        }
        var seqs = [Int64](repeating: 0, count: Feed.allCases.count)
        var days = [CalendarDay?](repeating: nil, count: Feed.allCases.count)
        var synced: [String: Int64] = [:]
        for feed in Feed.allCases {
            for name in try disk.names(in: "") {
                guard let day = FeedFileName.day(of: name, feed) else { continue }
                days[feed.place] = max(days[feed.place] ?? day, day)
                let seq = try FeedRecovery.repair(name, feed, on: &disk)
                seqs[feed.place] = max(seqs[feed.place], seq ?? 0)
                try disk.sync(name)
                synced[name] = try disk.length(of: name)
            }
        }
        try disk.syncNames(in: "")
        checkRecovery(index)
        try startArms(index)
        let today = CalendarDay(containing: wall(of: index))
        edges[index].writer = FeedWriter(
            format: RecordFormat(
                source: "sim", venue: "sim", host: edges[index].name, epoch: edges[index].epoch,
                instruments: SimInstrument.all.map(\.instrument)), highestSeq: seqs, days: days.map { max($0 ?? today, today) })
        edges[index].appender = FeedAppender()
        let dice = Dice(seed: random.next())
        edges[index].uplink = Uplink(bounds: .simulated, random: { dice.draw($0) })
        (edges[index].synced, edges[index].ackedLengths, edges[index].seals) = ([:], [:], [:])
        for (name, length) in synced.sorted(by: { $0.key < $1.key }) {
            grew(index, name, length)
            if let (feed, day) = FeedFileName.parse(name), day < max(days[feed.place] ?? today, today) { seal(index, name) }
        }
    }

    /// The file is complete. Its digest is taken from the disk, as the keeper does.
    private func seal(_ index: Int, _ name: String) {
        guard let length = edges[index].synced[name], length > 0, let bytes = read(index, name, at: 0, count: Int(length)) else { return }
        var digest = SimDigest()
        bytes.withUnsafeBytes { digest.update($0) }
        let sealed = Message.Sealed(file: name, bytes: length, rows: Int64(Lines.of(bytes[...]).count), sha256: digest.text)
        edges[index].seals[name] = sealed
        edge(index, edges[index].life, .sealed(sealed))
    }

    /// Complete files make room (SPEC 2.7).
    func retire(_ index: Int, bytesMax: Int64) {
        guard edges[index].writer != nil, !edges[index].hubDiskWasLost, let uplink = edges[index].uplink else { return }
        // Where the hub may have turned bits, what it lacks is not forced out as well: nobody would have it.
        let bytesMax = edges[index].hubWasDamaged ? Int64.max : bytesMax
        let held = uplink.heldLengths
        let files = edges[index].synced.sorted { $0.key < $1.key }.compactMap { name, length -> FeedRetention.File? in
            FeedFileName.parse(name).map {
                FeedRetention.File(
                    feed: $0.feed, day: $0.day, bytes: length, isSealed: edges[index].seals[name] != nil,
                    isAcknowledged: held[name] == length)
            }
        }
        let retention = FeedRetention(days: 1, bytesMax: bytesMax, hasHub: true)
        for (file, isForced) in retention.removals(of: files, today: CalendarDay(containing: wall(of: index))) {
            let name = FeedFileName.text(file.feed, file.day)
            // What was not at the hub is gone for good, and that is meant.
            if !isForced, hubLacks(index, name) { breaks(1, "\(edges[index].name)/\(name) is removed before the hub has it") }
            edges[index].disk.drop(name)
            edges[index].hasRetired = true
            if isForced { edges[index].hasForcedRemovals = true }
            (edges[index].synced[name], edges[index].seals[name]) = (nil, nil)
            faults.add(.retention)
            edge(index, edges[index].life, .removed(file: name))
        }
    }

    /// The process ends as it stands.
    func stopEdge(_ index: Int, losingPower: Bool) {
        edges[index].life += 1
        (edges[index].writer, edges[index].uplink, edges[index].arms) = (nil, nil, nil)
        if losingPower { edges[index].disk.losePower() } else { edges[index].disk.loseProcess() }
        if let id = edges[index].connection {
            edges[index].connection = nil
            connections[id]?.isOpen[SimConnection.Side.edge.rawValue] = false
            if losingPower {
                // Nobody says goodbye: the hub finds out by itself.
                connections[id]?.isDead = true
            } else {
                connections[id]?.streams[SimConnection.Side.hub.rawValue].isClosing = true
                move(id, .hub)
            }
        }
    }

    private func edgeTick(_ index: Int, _ life: Int) {
        guard edges[index].life == life, edges[index].writer != nil else { return }
        edges[index].writer!.passDay(at: WallTime(nanoseconds: wall(of: index).nanoseconds - Limits.sealGraceNanoseconds))
        drain(index, life)
        edge(index, life, .tick)
        arms(index, life, .tick)
        checkArms(index)
        if now / 1_000_000_000 % 10 == 0 { sayStatus(index, life) }
        after(1_000_000_000) { $0.edgeTick(index, life) }
    }

    // MARK: Feeds

    private func append(_ index: Int, _ body: (inout FeedWriter, Instant, WallTime) -> Void) {
        body(&edges[index].writer!, instant, wall(of: index))
    }

    /// Some rows of some feeds.
    private func produce(_ index: Int, _ life: Int) {
        guard edges[index].life == life, edges[index].writer != nil, !isHealing else { return }
        let rows = Int(random.acrossOctaves(5))
        for _ in 0..<rows {
            let kind = random.below(10)
            let number = 1 + random.below(1_000_000)
            append(index) { writer, now, wall in
                switch kind {
                case 0: if writer.hasRoom(.events) { writer.append(EventRecord(wall: wall, kind: .clock, first: number), at: now) }
                case 1, 2:
                    guard writer.hasRoom(.fills) else { return }
                    writer.append(
                        FillRecord(
                            wall: wall, symbol: 0, side: .buy, isTaker: false, price: 618_000, quantity: number, queueAhead: 0,
                            quotePrice: 618_000, midAtQuoteTwice: 1_236_000, midNowTwice: 1_236_000, spreadAtQuote: BasisPoints(micro: 1),
                            latencyNanoseconds: 1, slip: BasisPoints(micro: 0), fillID: writer.nextSeq(.fills), orderID: number,
                            fee: BasisPoints(micro: 0), armFields: ArmFields(configHash: 0)), at: now)
                default:
                    guard writer.hasRoom(.ticks) else { return }
                    var tick = TickRecord()
                    (tick.wall, tick.tick, tick.totalNanoseconds) = (wall, number, number)
                    writer.append(tick, at: now)
                }
            }
        }
        drain(index, life)
        for wait in [12_000_000, 995_000_000] as [Int64] { after(wait) { $0.drain(index, life) } }
        after(random.below(4) == 0 ? milliseconds(1, 200) : seconds(1, 60)) { $0.produce(index, life) }
    }

    func drain(_ index: Int, _ life: Int) {
        guard edges[index].life == life, edges[index].writer != nil else { return }
        let effects = edges[index].writer!.endDrain(at: instant)
        for effect in effects where edges[index].writer!.mayPerform(effect) {
            do throws(SimDiskError) {
                try perform(effect, index)
                edges[index].writer!.done(effect)
            } catch {
                if error == .powerLost { return edgeDied(index) }
                edges[index].writer!.failed(effect, at: instant)
            }
        }
        edges[index].writer!.performed()
        for (feed, day) in edges[index].writer!.takeCompleted() { seal(index, FeedFileName.text(feed, day)) }
        guard edges[index].writer != nil else { return }
        if edges[index].writer!.unsyncedBytes > Feed.allCases.count * (Limits.feedBufferBytesMax + 65_536) {
            breaks(7, "\(edges[index].name) holds \(edges[index].writer!.unsyncedBytes) unsynced bytes")
        }
    }

    private func perform(_ effect: FeedEffect, _ index: Int) throws(SimDiskError) {
        var disk = edges[index].disk
        switch effect {
        case .append(let feed, let day, let range):
            let bytes = edges[index].writer!.pendingBytes(of: feed)[range]
            for line in Lines.of(bytes) where edges[index].written.insert(Lines.hash(line)).inserted { edges[index].rowsWritten += 1 }
            try Array(bytes).withUnsafeBufferPointer { bytes throws(SimDiskError) in
                try edges[index].appender.append(feed, day, UnsafeRawBufferPointer(bytes), on: &disk)
            }
            if options.canary == .shipUnsynced, let length = try disk.length(of: FeedFileName.text(feed, day)) {
                grew(index, FeedFileName.text(feed, day), length)
            }
        case .sync(let feed):
            if let (name, length) = try edges[index].appender.sync(feed, on: &disk) {
                grew(index, name, length)
            }
        case .takeBack(let feed): try edges[index].appender.takeBack(feed, on: &disk)
        }
    }

    private func grew(_ index: Int, _ name: String, _ length: Int64) {
        edges[index].synced[name] = length
        edge(index, edges[index].life, .grew(file: name, syncedLength: length))
    }

    func edgeDied(_ index: Int) {
        faults.add(.edgePowerLoss)
        stopEdge(index, losingPower: true)
        after(seconds(0, 60)) { $0.startEdge(index) }
    }

    // MARK: Uplink

    /// The uplink's shell.
    func edge(_ index: Int, _ life: Int, _ input: Uplink.Input) {
        guard edges[index].life == life, edges[index].uplink != nil else { return }
        var sentBytes = false
        for effect in edges[index].uplink!.step(input, at: instant) {
            switch effect {
            case .connect(let wait): after(wait) { $0.connect(index, life) }
            case .send(let message): if let id = edges[index].connection { send(message.line, on: id, to: .hub) }
            case .ask(let question):
                var answer: FeedQuestion.Answer?
                do throws(SimDiskError) {
                    var disk = edges[index].disk
                    answer = try question.answer(from: &disk)
                } catch {}  // What cannot be read has no answer.
                after(random.below(2_000_000)) { world in world.edge(index, life, .answered(question, answer)) }
            case .sendBytes(let file, let offset, let bytes):
                guard let id = edges[index].connection else { break }
                sentBytes = true
                guard let payload = read(index, file, at: offset, count: bytes) else {
                    after(0) { $0.edge(index, life, .unreadable(file: file)) }
                    break
                }
                checkShipped(index, file, offset + Int64(bytes))
                send(Message.append(.init(file: file, offset: offset, bytes: bytes)).line + payload, on: id, to: .hub)
            case .close(let code, let text):
                guard let id = edges[index].connection else { break }
                send(Message.error(code: code, text: text).line, on: id, to: .hub)
                after(0) { $0.close(id, from: .edge) }
            case .welcomed(let welcome):
                edges[index].arms?.aloneSince = nil
                after(0) { $0.arms(index, life, .connected) }
                for held in welcome.highestSeq {
                    if let feed = Feed(rawValue: held.feed) { edges[index].writer?.raise(feed, above: held.seq) }
                }
            case .forked(let file, let base):
                edges[index].forks += 1
                guard let (feed, day) = FeedFileName.parse(file) else { break }
                append(index) { writer, now, wall in
                    writer.append(
                        EventRecord(wall: wall, kind: .fork, first: base), about: EventSubject(feed: feed, day: day), at: now)
                }
            case .deliver(let message): after(0) { $0.deliver(index, life, message) }
            case .differs, .complained: break
            }
        }
        if case .disconnected = input, edges[index].arms?.aloneSince == nil {
            edges[index].arms?.aloneSince = now
            arms(index, life, .disconnected)
        }
        if case .received(.ack(let ack)) = input { acknowledged(index, ack) }
        guard sentBytes, let id = edges[index].connection, let connection = connections[id] else { return }
        if connection.streams[SimConnection.Side.hub.rawValue].count < SimConnection.outboundBytesHigh {
            after(1000) { world in if world.edges[index].connection == id { world.edge(index, life, .turnEnded) } }
        } else {
            connections[id]!.turnIsLeaving = true
        }
    }

    private func read(_ index: Int, _ file: String, at offset: Int64, count: Int) -> [UInt8]? {
        do throws(SimDiskError) { return try edges[index].disk.read(file, at: offset, count: count) } catch { return nil }
    }
}
