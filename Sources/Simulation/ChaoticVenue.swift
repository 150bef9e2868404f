import CalibModel

// A venue with trouble: `BybitVenue` behind links that lose, repeat, hold back and break, as `VenueChaos` says. One pure value.
//
// Each client has a link. What the venue says passes first the faults of frames (gap, duplicate, reordering), then the link, which may hold
// everything back, both ways, or swallow it. A fault waits for something it can be done to, and counts when it was done.
//
// Invariants
//  1. Without a fault on it, a link delivers what the venue says, unchanged, in order, in the same millisecond.
//  2. What the venue publishes depends on the seeds and the elapsed milliseconds only.

package struct ChaoticVenue: Sendable {
    package typealias Client = BybitVenue.Client

    /// What a client sees.
    package enum Output: Sendable, Equatable {
        case frame([UInt8])
        /// A websocket goodbye.
        case close
        /// A TCP reset.
        case reset
    }

    /// A time in which a client could not know the market, elapsed milliseconds.
    package struct Outage: Sendable, Equatable {
        package var kind: VenueChaos.Kind
        package var fromMilliseconds: Int64
        /// Nil while it lasts.
        package var toMilliseconds: Int64?
    }

    private struct Link: Sendable {
        /// Held back both ways until then.
        var heldUntil: Int64?
        /// Half open until then.
        var deadUntil: Int64?
        var outward: [[UInt8]] = []
        var inward: [[UInt8]] = []
        var outage: Int?
        var isClean: Bool { heldUntil == nil && deadUntil == nil }
    }

    /// What waits for the next frame of a book.
    private struct Armed: Sendable {
        var fault: VenueChaos.Fault
        /// Reordering: the delta that waits for its successor, and for whom.
        var held: (clients: [Client], frame: [UInt8])?
    }

    package private(set) var venue: BybitVenue
    private var chaos: VenueChaos?
    private var links: [Client: Link] = [:]
    private var armed: [Armed] = []
    /// Faults that wait for a client without trouble.
    private var waiting: [VenueChaos.Fault] = []
    /// Second copies, by when they are sent.
    private var copies: [(atMilliseconds: Int64, clients: [Client], frame: [UInt8])] = []
    private var silentUntil: Int64?
    package private(set) var elapsedMilliseconds: Int64 = 0
    /// Faults done, by kind.
    package private(set) var counts: [Int] = Array(repeating: 0, count: VenueChaos.Kind.allCases.count)
    package private(set) var outages: [Outage] = []

    /// Without a seed there is no trouble.
    package init(_ venue: BybitVenue, seed: UInt64?) {
        self.venue = venue
        chaos = seed.map { VenueChaos(seed: $0, symbolCount: venue.symbolNames.count) }
    }

    package func count(of kind: VenueChaos.Kind) -> Int { counts[kind.rawValue] }

    // MARK: Clients

    package mutating func connect(_ category: BybitCategory) -> Client {
        let client = venue.connect(category)
        links[client] = Link()
        return client
    }

    package mutating func disconnect(_ client: Client) {
        venue.disconnect(client)
        guard let link = links.removeValue(forKey: client) else { return }
        if let outage = link.outage { outages[outage].toMilliseconds = elapsedMilliseconds }
    }

    package mutating func receive(_ message: [UInt8], from client: Client, deliver: (Client, Output) -> Void) {
        guard let link = links[client] else { return }
        guard link.isClean else {
            if link.deadUntil == nil { links[client]!.inward.append(message) }
            return
        }
        take(message, from: client, deliver: deliver)
    }

    private mutating func take(_ message: [UInt8], from client: Client, deliver: (Client, Output) -> Void) {
        var said: [(clients: [Client], frame: [UInt8])] = []
        message.withUnsafeBytes { venue.receive($0, from: client) { said.append(($0, $1)) } }
        for (clients, frame) in said { pass(frame, to: clients, deliver: deliver) }
    }

    // MARK: Time

    package mutating func advance(toElapsed elapsed: Int64, deliver: (Client, Output) -> Void) {
        while elapsedMilliseconds < elapsed {
            elapsedMilliseconds += 1
            let now = elapsedMilliseconds
            if let end = silentUntil, end <= now {
                silentUntil = nil
                venue.isPublishing = true
            }
            if chaos != nil { trouble(deliver: deliver) }
            var said: [(clients: [Client], frame: [UInt8])] = []
            venue.advance(toElapsed: now) { said.append(($0, $1)) }
            for (clients, frame) in said { pass(frame, to: clients, deliver: deliver) }
            guard !copies.isEmpty else { continue }
            let due = copies.filter { $0.atMilliseconds <= now }
            copies.removeAll { $0.atMilliseconds <= now }
            for copy in due { send(copy.frame, to: copy.clients, deliver: deliver) }
        }
    }

    private mutating func trouble(deliver: (Client, Output) -> Void) {
        release(deliver: deliver)
        let retried = waiting
        waiting = []
        for fault in retried + (chaos?.due(atElapsed: elapsedMilliseconds) ?? []) { begin(fault, deliver: deliver) }
    }

    /// Links whose trouble is over.
    private mutating func release(deliver: (Client, Output) -> Void) {
        let now = elapsedMilliseconds
        for client in links.keys.sorted() {
            let link = links[client]!
            if let time = link.deadUntil, time <= now {
                end(client, .reset, deliver: deliver)
            } else if let time = link.heldUntil, time <= now {
                if let outage = link.outage { outages[outage].toMilliseconds = now }
                links[client] = Link()
                for frame in link.outward { deliver(client, .frame(frame)) }
                for message in link.inward { take(message, from: client, deliver: deliver) }
            }
        }
    }

    // MARK: Faults

    private mutating func begin(_ fault: VenueChaos.Fault, deliver: (Client, Output) -> Void) {
        let now = elapsedMilliseconds
        switch fault.kind {
        case .gap, .duplicate, .reordering, .crossedSnapshot:
            // One of a kind at a time.
            guard !armed.contains(where: { $0.fault.kind == fault.kind }) else { return }
            armed.append(Armed(fault: fault))
            if fault.kind == .crossedSnapshot { publish(deliver) { $0.republish(fault.symbol, deliver: $1) } }
        case .burst:
            guard hasCleanListener else { return waiting.append(fault) }
            counts[fault.kind.rawValue] += 1
            publish(deliver) { $0.burst(fault.symbol, messages: VenueChaos.burstMessages, deliver: $1) }
        case .restart:
            guard hasCleanListener else { return waiting.append(fault) }
            counts[fault.kind.rawValue] += 1
            publish(deliver) { $0.restart(fault.symbol, deliver: $1) }
        case .silence:
            guard hasCleanListener else { return waiting.append(fault) }
            counts[fault.kind.rawValue] += 1
            silentUntil = now + fault.milliseconds
            venue.isPublishing = false
        case .stall, .delay, .halfOpen, .close, .reset:
            guard let client = links.keys.filter({ links[$0]!.isClean && venue.isListening($0) }).min() else {
                return waiting.append(fault)
            }
            counts[fault.kind.rawValue] += 1
            switch fault.kind {
            case .close: end(client, .close, deliver: deliver)
            case .reset: end(client, .reset, deliver: deliver)
            case .halfOpen: links[client]!.deadUntil = now + fault.milliseconds
            default: links[client]!.heldUntil = now + fault.milliseconds
            }
            guard links[client] != nil else { return }
            links[client]!.outage = outages.count
            outages.append(Outage(kind: fault.kind, fromMilliseconds: now, toMilliseconds: nil))
        }
    }

    private var hasCleanListener: Bool { links.contains { $0.value.isClean && venue.isListening($0.key) } }

    private mutating func publish(
        _ deliver: (Client, Output) -> Void, _ act: (inout BybitVenue, (_ clients: [Client], _ frame: [UInt8]) -> Void) -> Void
    ) {
        var said: [(clients: [Client], frame: [UInt8])] = []
        act(&venue) { said.append(($0, $1)) }
        for (clients, frame) in said { pass(frame, to: clients, deliver: deliver) }
    }

    private mutating func end(_ client: Client, _ output: Output, deliver: (Client, Output) -> Void) {
        disconnect(client)
        deliver(client, output)
    }

    /// Through the faults of frames, then to the links.
    private mutating func pass(_ frame: [UInt8], to clients: [Client], deliver: (Client, Output) -> Void) {
        guard !armed.isEmpty, let book = BookFrame(frame), clients.contains(where: { links[$0]?.isClean == true }) else {
            return send(frame, to: clients, deliver: deliver)
        }
        // A delta that waits goes right behind the next one of its book.
        if let place = armed.firstIndex(where: { $0.held.map { BookFrame($0.frame)?.topic == book.topic } ?? false }) {
            let held = armed.remove(at: place).held!
            counts[VenueChaos.Kind.reordering.rawValue] += 1
            send(frame, to: clients, deliver: deliver)
            return send(held.frame, to: held.clients, deliver: deliver)
        }
        let name = venue.symbolNames
        let place = armed.firstIndex {
            guard $0.held == nil, book.topic.hasSuffix(".\(name[$0.fault.symbol])") else { return false }
            return switch $0.fault.kind {
            case .gap, .reordering: !book.isSnapshot
            case .crossedSnapshot: book.isSnapshot
            default: true
            }
        }
        guard let place else { return send(frame, to: clients, deliver: deliver) }
        let fault = armed[place].fault
        if fault.kind == .reordering {
            armed[place].held = (clients, frame)
            return
        }
        armed.remove(at: place)
        counts[fault.kind.rawValue] += 1
        switch fault.kind {
        case .gap: break
        case .crossedSnapshot: send(BookFrame.crossed(frame), to: clients, deliver: deliver)
        default:
            send(frame, to: clients, deliver: deliver)
            // Half of the copies come at once.
            copies.append((elapsedMilliseconds + max(0, fault.milliseconds - 250), clients, frame))
        }
    }

    private mutating func send(_ frame: [UInt8], to clients: [Client], deliver: (Client, Output) -> Void) {
        for client in clients {
            guard let link = links[client], link.deadUntil == nil else { continue }
            if link.heldUntil == nil { deliver(client, .frame(frame)) } else { links[client]!.outward.append(frame) }
        }
    }
}

/// What a frame of an order book says about itself; nil for other frames.
private struct BookFrame {
    var topic: String
    var isSnapshot: Bool

    init?(_ frame: [UInt8]) {
        let prefix = Array("{\"topic\":\"orderbook.".utf8)
        guard frame.starts(with: prefix), let end = frame[10...].firstIndex(of: UInt8(ascii: "\"")) else { return nil }
        topic = String(decoding: frame[10..<end], as: UTF8.self)
        isSnapshot = Self.find("\"type\":\"snapshot\"", in: frame, from: end) != nil
    }

    /// Bids as asks and asks as bids: every bid lies above every ask.
    static func crossed(_ frame: [UInt8]) -> [UInt8] {
        var frame = frame
        guard let bids = find("\"b\":[", in: frame, from: 0), let asks = find("\"a\":[", in: frame, from: bids) else { return frame }
        frame[bids + 1] = UInt8(ascii: "a")
        frame[asks + 1] = UInt8(ascii: "b")
        return frame
    }

    private static func find(_ text: StaticString, in frame: [UInt8], from start: Int) -> Int? {
        let count = text.utf8CodeUnitCount
        guard frame.count >= start + count else { return nil }
        return (start...(frame.count - count)).first { place in
            (0..<count).allSatisfy { frame[place + $0] == text.utf8Start[$0] }
        }
    }
}
