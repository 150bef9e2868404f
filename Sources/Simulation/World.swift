import CalibModel
import EdgeCore
internal import HubCore
import Wire

/// Edges, a hub, their disks and the network between them, made from a seed: production cores over real encoded messages, and a shell that delays,
/// tears, refuses and kills whatever a real one might (ARCHITECTURE: laws).
///
/// One thread; everything that happens is an action in a queue ordered by simulated time. For `hours` the world is made to suffer; then it heals,
/// and everything must come to rest within `settleNanoseconds` with every law holding.
package final class World {
    typealias Action = (World) -> Void

    let options: WorldOptions
    var random: PRNG
    /// Nanoseconds since the beginning.
    private(set) var now: Int64 = 0
    private var queue = ActionQueue()
    private var hash = KeyedHash()
    var edges: [SimEdge] = []
    var hub: SimHub
    var connections: [Int: SimConnection] = [:]
    private var nextConnection = 1
    var faults = FaultCounts()
    var broken: [BrokenLaw] = []
    var isHealing = false
    private var actions: Int64 = 0

    /// 2025-01-01T23:20:00Z and later, so that most worlds see midnight.
    private let begin: Int64
    static let settleNanoseconds: Int64 = 600_000_000_000

    package init(_ options: WorldOptions) {
        self.options = options
        random = PRNG(seed: options.seed)
        begin = (1_735_773_600 + random.below(3 * 3600)) * 1_000_000_000
        hub = SimHub(disk: SimDisk(seed: random.next()))
        hub.disk.liesAboutSyncs = options.canary == .ackBeforeSync
        for index in 0..<options.edges {
            let disk = SimDisk(seed: random.next())
            disk.dropsWhenFull = options.canary == .dropOnFull
            edges.append(SimEdge(index: index, disk: disk))
        }
    }

    // MARK: Running

    package func run() -> WorldOutcome {
        startHub()
        for edge in edges.indices { startEdge(edge) }
        after(seconds(1, 30)) { $0.chaos() }
        after(seconds(10, 60)) { $0.operate() }
        let end = Int64(options.hours) * 3_600_000_000_000
        pass(until: end) { false }
        heal()
        // Whatever is on its way is heard, whoever was cut off has noticed it, and a file that was complete and turned out to differ is sent again.
        pass(until: now + 120_000_000_000) { false }
        pass(until: end + Self.settleNanoseconds) { self.isSettled }
        if broken.isEmpty { checkWhole() }
        return outcome()
    }

    private func pass(until end: Int64, _ isDone: () -> Bool) {
        var looked = now
        while broken.isEmpty, let next = queue.first, next <= end {
            let (at, action) = queue.pop()
            now = at
            actions += 1
            action(self)
            if now - looked > 1_000_000_000 {
                looked = now
                if isDone() { return }
            }
        }
        if queue.first.map({ $0 > end }) ?? true { now = max(now, end) }
    }

    func after(_ nanoseconds: Int64, _ action: @escaping Action) { queue.push(now + max(0, nanoseconds), action) }

    var instant: Instant { Instant(nanoseconds: now + 1_000_000_000) }
    var hubWall: WallTime { WallTime(nanoseconds: begin + now + hub.wallOffset) }
    func wall(of edge: Int) -> WallTime { WallTime(nanoseconds: begin + now + edges[edge].wallOffset) }

    func milliseconds(_ low: Int64, _ high: Int64) -> Int64 { (low + random.below(high - low + 1)) * 1_000_000 }
    func seconds(_ low: Int64, _ high: Int64) -> Int64 { milliseconds(low * 1000, high * 1000) }

    /// Notes what happened in the trace.
    func trace(_ code: UInt64, _ a: Int64, _ b: Int64 = 0, _ c: Int64 = 0) {
        hash.combine(code)
        hash.combine(now)
        hash.combine(a)
        hash.combine(b)
        hash.combine(c)
    }

    func breaks(_ law: Int, _ text: @autoclosure () -> String) {
        if broken.isEmpty { broken.append(BrokenLaw(law: law, at: now, text: text())) }
    }

    private func outcome() -> WorldOutcome {
        var counts = faults
        counts.add(hub.disk.faults)
        for edge in edges { counts.add(edge.disk.faults) }
        for disk in edges.map(\.disk) + [hub.disk] {
            for path in disk.paths { hash.combine(Lines.hash(disk.bytes(of: path)[...])) }
        }
        return WorldOutcome(
            seed: options.seed, traceHash: hash.finalized(), broken: broken, faults: counts,
            rowsWritten: edges.reduce(0) { $0 + $1.rowsWritten }, rowsHeld: hub.rowsHeld, forks: hub.forks, events: actions)
    }

    /// Every file of both sides by name, for an outside comparison.
    package var files: [(path: String, bytes: [UInt8])] {
        hub.disk.paths.map { ("hub/\($0)", hub.disk.bytes(of: $0)) }
            + edges.flatMap { edge in edge.disk.paths.map { ("\(edge.name)/\($0)", edge.disk.bytes(of: $0)) } }
    }

    // MARK: Connections

    /// A client's attempt; what comes of it is told to the edge later.
    func connect(_ edge: Int, _ life: Int) {
        guard edges[edge].life == life, edges[edge].uplink != nil else { return }
        if edges[edge].partitionedUntil > now {
            return after(5_000_000_000) { $0.edge(edge, life, .disconnected) }
        }
        guard hub.ingest != nil else { return after(milliseconds(1, 5)) { $0.edge(edge, life, .disconnected) } }
        let id = nextConnection
        nextConnection += 1
        after(milliseconds(1, 20)) { world in
            guard world.edges[edge].life == life, world.hub.ingest != nil else { return world.edge(edge, life, .disconnected) }
            world.connections[id] = SimConnection(edge: edge, heardAt: world.now)
            world.edges[edge].connection = id
            world.trace(1, Int64(edge), Int64(id))
            world.hubOpened(id)
            world.edge(edge, life, .connected(world.edges[edge].hello))
        }
    }

    /// Bytes on their way to the other side.
    func send(_ bytes: [UInt8], on id: Int, to side: SimConnection.Side) {
        guard connections[id] != nil else { return }
        connections[id]!.streams[side.rawValue].bytes += bytes
        move(id, side)
    }

    func move(_ id: Int, _ side: SimConnection.Side) {
        guard let connection = connections[id], !connection.isDead else { return }
        let stream = connection.streams[side.rawValue]
        guard !stream.isMoving, !stream.isPaused, stream.count > 0 || stream.isClosing || stream.bytesUntilCut != nil else { return }
        connections[id]!.streams[side.rawValue].isMoving = true
        var wait = random.below(5_000_000)
        if !isHealing, random.below(2000) == 0 {
            wait += seconds(0, 4)
            faults.add(.delay)
        }
        let free = max(stream.slowUntil, edges[connection.edge].partitionedUntil)
        after(max(wait, free - now + wait)) { $0.deliver(id, side) }
    }

    private func deliver(_ id: Int, _ side: SimConnection.Side) {
        guard var stream = connections[id]?.streams[side.rawValue], connections[id]?.isDead == false else { return }
        stream.isMoving = false
        connections[id]!.streams[side.rawValue].isMoving = false
        if max(stream.slowUntil, edges[connections[id]!.edge].partitionedUntil) > now || stream.isPaused { return move(id, side) }
        var count = min(stream.count, Int(random.acrossOctaves(18)))
        var isCut = false
        if let left = stream.bytesUntilCut {
            count = min(count, left)
            isCut = left <= count
            stream.bytesUntilCut = left - count
        }
        let bytes = stream.take(count)
        connections[id]!.streams[side.rawValue] = stream
        if count > 0 { receive(bytes, on: id, at: side) }
        if isCut {
            connections[id]?.isDead = true
            for side in SimConnection.Side.allCases { after(milliseconds(0, 2000)) { $0.end(id, side) } }
            return
        }
        if side == .hub, let connection = connections[id], connection.turnIsLeaving,
            connection.streams[side.rawValue].count < SimConnection.outboundBytesHigh
        {
            connections[id]!.turnIsLeaving = false
            let (edge, life) = (connection.edge, edges[connection.edge].life)
            after(1000) { world in if world.edges[edge].connection == id { world.edge(edge, life, .turnEnded) } }
        }
        guard let rest = connections[id]?.streams[side.rawValue] else { return }
        if rest.count == 0, rest.isClosing { end(id, side) } else { move(id, side) }
    }

    private func receive(_ bytes: [UInt8], on id: Int, at side: SimConnection.Side) {
        guard connections[id]?.isOpen[side.rawValue] == true else { return }
        bytes.withUnsafeBytes { connections[id]!.streams[side.rawValue].framing.append($0) }
        if side == .hub { connections[id]!.heardAt = now }
        while connections[id]?.isOpen[side.rawValue] == true {
            do throws(WireError) {
                guard let frame = try connections[id]!.streams[side.rawValue].framing.next() else { return }
                switch side {
                case .hub: hubReceived(frame, on: id)
                case .edge:
                    let edge = connections[id]!.edge
                    if edges[edge].connection == id { self.edge(edge, edges[edge].life, .received(frame.message)) }
                }
            } catch {
                breaks(1, "a message could not be read: \(error)")
                return
            }
        }
    }

    /// A side closes: what it has sent still arrives, then the end.
    func close(_ id: Int, from side: SimConnection.Side) {
        guard connections[id]?.isOpen[side.rawValue] == true else { return }
        let other: SimConnection.Side = side == .edge ? .hub : .edge
        connections[id]!.streams[other.rawValue].isClosing = true
        move(id, other)
        end(id, side)
    }

    /// The side learns that the connection is over.
    func end(_ id: Int, _ side: SimConnection.Side) {
        guard let connection = connections[id], connection.isOpen[side.rawValue] else { return }
        connections[id]!.isOpen[side.rawValue] = false
        trace(2, Int64(id), Int64(side.rawValue))
        switch side {
        case .hub: hubClosed(id)
        case .edge:
            if edges[connection.edge].connection == id {
                edges[connection.edge].connection = nil
                edge(connection.edge, edges[connection.edge].life, .disconnected)
            }
        }
        if connections[id]!.isOpen == [false, false] { connections[id] = nil }
    }
}

/// Actions by time; those of one time in the order in which they were asked for.
private struct ActionQueue {
    private var heap: [(at: Int64, number: Int64, action: World.Action)] = []
    private var next: Int64 = 0

    var first: Int64? { heap.first?.at }

    private func isBefore(_ a: Int, _ b: Int) -> Bool { (heap[a].at, heap[a].number) < (heap[b].at, heap[b].number) }

    mutating func push(_ at: Int64, _ action: @escaping World.Action) {
        heap.append((at, next, action))
        next += 1
        var child = heap.count - 1
        while child > 0, isBefore(child, (child - 1) / 2) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func pop() -> (Int64, World.Action) {
        heap.swapAt(0, heap.count - 1)
        let popped = heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && isBefore(child, least) { least = child }
            if least == parent { return (popped.at, popped.action) }
            heap.swapAt(parent, least)
            parent = least
        }
    }
}
