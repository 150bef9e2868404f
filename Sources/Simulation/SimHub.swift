import CalibModel
import EdgeCore
internal import HubCore
import Wire

/// The hub's machine: a disk, and, while it runs, the cores that take feeds and commit them.
struct SimHub {
    let disk: SimDisk
    var life = 0
    var ingest: Ingest?
    var committer: Committer<SimDisk>?
    var links: [LinkID: Int] = [:]
    var nextLink = 1
    var jobs: [Job] = []
    var isRoundDue = false
    /// The control log: what is durable of it, what waits for its commit, and the core that follows from it.
    var log: [[UInt8]] = []
    var unlogged: [LogRecord] = []
    var control: Control?
    var parts: [String: [FeedPart]] = [:]
    /// When the rollback of an experiment was first in effect, whatever became of the log since.
    var rolledBackAt: [String: Int64] = [:]
    var requests: Int64 = 0
    /// Added to the world's time by clock steps.
    var wallOffset: Int64 = 0
    var rowsHeld: Int64 = 0
    var forks: Int64 = 0

    enum Job {
        case write(host: String, file: String, epoch: String, offset: Int64, bytes: [UInt8])
        case inspect(LinkID, host: String, file: String, fromBlock: Int64)
        case verify(LinkID, host: String, file: String)
        case survey(LinkID, host: String, epoch: String)
    }

    init(disk: SimDisk) { self.disk = disk }
}

extension World {
    // MARK: Life

    func startHub() {
        guard hub.ingest == nil else { return }
        var ingest = Ingest(bounds: .simulated)
        // Few enough that files are closed, and forgotten, all the time.
        var committer = Committer(disk: hub.disk, bounds: .simulated, openFilesMax: 4, knownFilesMax: 12)
        do throws(SimDiskError) {
            startControl()
            for (host, files) in try committer.hosts() { ingest.found(host: host, files: files, parts: hub.parts[host] ?? []) }
        } catch {
            stopHub(losingPower: error == .powerLost)
            return after(seconds(1, 10)) { $0.startHub() }
        }
        trace(4, 0)
        (hub.ingest, hub.committer) = (ingest, committer)
        let life = hub.life
        after(500_000_000) { $0.hubTick(life) }
    }

    func stopHub(losingPower: Bool) {
        hub.life += 1
        (hub.ingest, hub.committer, hub.jobs, hub.links, hub.isRoundDue) = (nil, nil, [], [:], false)
        (hub.control, hub.unlogged) = (nil, [])
        if losingPower { hub.disk.losePower() } else { hub.disk.loseProcess() }
        for id in connections.keys.sorted() where connections[id]!.isOpen[SimConnection.Side.hub.rawValue] {
            connections[id]!.isOpen[SimConnection.Side.hub.rawValue] = false
            connections[id]!.streams[SimConnection.Side.hub.rawValue] = .init()
            if losingPower {
                connections[id]!.isDead = true
                // A packet of the edge's finds nobody, at the latest when the hub is back.
                after(seconds(1, 40)) { $0.end(id, .edge) }
            } else {
                connections[id]!.streams[SimConnection.Side.edge.rawValue].isClosing = true
                move(id, .edge)
            }
        }
    }

    private func hubTick(_ life: Int) {
        guard hub.life == life, hub.ingest != nil else { return }
        hubPerform(hub.ingest!.tick(instant))
        step(.tick)
        for id in connections.keys.sorted() where connections[id]!.isOpen[SimConnection.Side.hub.rawValue] {
            if now - connections[id]!.heardAt > Limits.idleNanoseconds { close(id, from: .hub) }
        }
        after(500_000_000) { $0.hubTick(life) }
    }

    func hubDied() {
        faults.add(.hubPowerLoss)
        stopHub(losingPower: true)
        after(seconds(0, 60)) { $0.startHub() }
    }

    // MARK: Links

    func hubOpened(_ id: Int) {
        let link = LinkID(hub.nextLink)
        hub.nextLink += 1
        hub.links[link] = id
        hubPerform(hub.ingest!.opened(link, peer: Peer(role: .edge, name: edges[connections[id]!.edge].name)))
    }

    func hubClosed(_ id: Int) {
        guard hub.ingest != nil, let link = hub.links.first(where: { $0.value == id })?.key else { return }
        hub.links[link] = nil
        hubPerform(hub.ingest!.closed(link, at: instant))
        step(.disconnected(link))
    }

    func hubReceived(_ frame: LineFraming.Frame, on id: Int) {
        guard hub.ingest != nil, let link = hub.links.first(where: { $0.value == id })?.key else { return }
        if let effects = hub.ingest!.received(frame.message, on: link, at: instant) {
            hubPerform(effects, payload: frame.payload)
        } else {
            step(.received(link, frame.message))
        }
        checkPool()
    }

    func hubPerform(_ effects: [Ingest.Effect], payload: [UInt8] = []) {
        for effect in effects {
            switch effect {
            case .send(let link, let message):
                guard let id = hub.links[link] else { continue }
                var message = message
                let edge = connections[id]!.edge
                if case .ack(let ack) = message { checkAck(edge, ack) }
                if options.canary == .resumeFromEdge, case .resume(let resume) = message { message = echo(of: resume, edge) }
                send(message.line, on: id, to: .edge)
            case .close(let link, let code, let text):
                guard let id = hub.links[link] else { continue }
                send(Message.error(code: code, text: text).line, on: id, to: .edge)
                after(0) { $0.close(id, from: .hub) }
            case .survey(let link, let host, let epoch): post(.survey(link, host: host, epoch: epoch))
            case .inspect(let link, let host, let file, let block): post(.inspect(link, host: host, file: file, fromBlock: block))
            case .verify(let link, let host, let file): post(.verify(link, host: host, file: file))
            case .seal(let link, let host, let file, let sealed, let spans):
                let life = hub.life
                after(random.below(50_000_000)) { world in
                    guard world.hub.life == life, world.hub.ingest != nil else { return }
                    var book = SealBook(disk: world.hub.disk, digest: { SimDigest.running() })
                    var isEqual: Bool?
                    do throws(SimDiskError) { isEqual = try book.holds(sealed, host: host, file: file, spans) } catch {}  // Unreadable.
                    if world.hub.disk.operationsUntilPowerLoss == 0 { return world.hubDied() }
                    world.hubPerform(world.hub.ingest!.sealed(link, file: file, isEqual: isEqual))
                }
            case .record(let host, let part): step(.part(host: host, part))
            case .write(let host, let file, let epoch, let offset):
                post(.write(host: host, file: file, epoch: epoch, offset: offset, bytes: payload))
            case .welcome(let link, let hello, let highestSeq):
                guard let id = hub.links[link], let control = hub.control else { continue }
                let welcome = Message.Welcome(
                    software: "sim", identity: "edge", revision: control.revision, wallMilliseconds: hubWall.milliseconds,
                    highestSeq: highestSeq)
                send(Message.welcome(welcome).line, on: id, to: .edge)
                step(.connected(link, Peer(role: .edge, name: edges[connections[id]!.edge].name), hello))
            case .pauseReading(let link):
                if let id = hub.links[link] { connections[id]?.streams[SimConnection.Side.hub.rawValue].isPaused = true }
            case .resumeReading(let link):
                guard let id = hub.links[link] else { continue }
                connections[id]?.streams[SimConnection.Side.hub.rawValue].isPaused = false
                move(id, .hub)
            case .alarm(_, let code, _): if code == "fork" { hub.forks += 1 }
            }
        }
    }

    /// The edge's own length and checksums, as if the hub held all of them: the canary `resume-from-edge`.
    private func echo(of resume: Message.Resume, _ edge: Int) -> Message {
        let length = edges[edge].synced[resume.file] ?? 0
        let blockBytes = ReplicationBounds.simulated.blockBytes
        let question = FeedQuestion(file: resume.file, part: .checksums(prefix: 0, start: 0, end: length, blockBytes: blockBytes))
        var disk = edges[edge].disk
        var blocks: [String] = []
        do throws(SimDiskError) { blocks = try question.answer(from: &disk).blocks } catch {}  // It is down: whatever is said.
        return .resume(Message.Resume(file: resume.file, length: length, blocks: blocks))
    }

    // MARK: Rounds

    private func post(_ job: SimHub.Job) {
        hub.jobs.append(job)
        guard !hub.isRoundDue else { return }
        hub.isRoundDue = true
        let life = hub.life
        after(random.below(3_000_000)) { $0.round(life) }
    }

    private func round(_ life: Int) {
        guard hub.life == life, hub.committer != nil else { return }
        let jobs = hub.jobs
        hub.jobs = []
        for job in jobs {
            switch job {
            case .write(let host, let file, let epoch, let offset, let bytes):
                bytes.withUnsafeBytes { hub.committer!.write($0, host: host, file: file, epoch: epoch, offset: offset) }
            case .inspect(let link, let host, let file, let block): hub.committer!.inspect(link, host: host, file: file, fromBlock: block)
            case .verify(let link, let host, let file): hub.committer!.verify(link, host: host, file: file)
            case .survey(let link, let host, let epoch): hub.committer!.survey(link, host: host, epoch: epoch)
            }
        }
        let results = hub.committer!.endRound().results
        if hub.disk.operationsUntilPowerLoss == 0 { return hubDied() }
        // As long as the syncs take, the next round gathers.
        after(random.below(5_000_000)) { $0.roundEnded(results, life) }
    }

    private func roundEnded(_ results: [Committer<SimDisk>.Result], _ life: Int) {
        guard hub.life == life, hub.ingest != nil else { return }
        hub.isRoundDue = false
        for result in results {
            switch result {
            case .committed(let host, let file, let length, _): hubPerform(hub.ingest!.committed(host: host, file: file, length: length))
            case .failed(let host, let file, _): hubPerform(hub.ingest!.failed(host: host, file: file))
            case .inspected(let link, _, let file, let found): hubPerform(hub.ingest!.inspected(link, file: file, found))
            case .verified(let link, _, let file, let found, let isDamaged):
                hubPerform(hub.ingest!.verified(link, file: file, found, isDamaged: isDamaged))
            case .rejected(let host, let file, let faults):
                if faults.counts.contains(where: { $0 > 0 }) { breaks(1, "\(host)/\(file) holds rows that no view takes") }
            case .quarantined(_, _, _, let bytes): trace(6, bytes)
            case .surveyed(let link, let files, let highestSeq):
                hubPerform(hub.ingest!.surveyed(link, files: files, highestSeq: highestSeq))
            case .surveyFailed(let link, _): if let id = hub.links[link] { close(id, from: .hub) }
            }
        }
        if !hub.jobs.isEmpty, !hub.isRoundDue {
            hub.isRoundDue = true
            after(0) { $0.round(life) }
        }
    }
}

/// Stands for SHA-256 in a world: two bytes that differ give another digest.
struct SimDigest {
    private var hash = KeyedHash(key0: 3, key1: 5)
    private var count: UInt64 = 0

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes { hash.combine(UInt64(byte)) }
        count += UInt64(bytes.count)
    }

    /// 64 hex digits.
    var text: String {
        (0..<4).map { word in
            var hash = hash
            hash.combine(count &+ UInt64(word))
            let digits = String(hash.finalized(), radix: 16)
            return String(repeating: "0", count: 16 - digits.utf8.count) + digits
        }.joined()
    }

    static func running() -> SealBook<SimDisk>.Digest {
        final class Box { var digest = SimDigest() }
        let box = Box()
        return .init(update: { box.digest.update($0) }, finish: { box.digest.text })
    }
}
