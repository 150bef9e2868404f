import CalibModel
import EdgeCore
import Wire

/// A recording on its way through a bad network and a worse proxy, into a live node: frames are lost, repeated, swapped, cut, and made into what
/// no venue sends. Beside the node runs a dictionary book over the frames as they were recorded; it answers the node's questions for books, and
/// whenever the node says that its book is proven, both must show the same levels.
///
/// Only damage that can be noticed is done: a digit changed into another one makes another valid frame, and no reader of the stream can tell.
package struct MutatedRecording {
    package enum Mutation: String, CaseIterable, Sendable {
        case dropped, duplicated, swapped, truncated, notANumber, hugeNumber, deepNesting, longString, invalidUTF8
    }

    package struct Report: Sendable, Equatable {
        package var frames = 0
        package var mutated: [String: Int] = [:]
        package var rejected: [String: Int64] = [:]
        package var sequenceGaps: Int64 = 0
        package var resyncs = 0
        /// How often the proven book was compared, and was not the dictionary's.
        package var comparisons = 0
        package var mismatches = 0
        /// After the last mutation and a hundred sound frames.
        package var isProvenAtEnd = false
        package init() {}
    }

    /// Levels of a side that are compared.
    private static let comparedLevels = 100
    /// A frame's longest string when it is made long: within what one websocket message may have.
    private static let longStringBytes = 10 << 20

    private let venue: QuoteNode.Venue
    private let instrument: Instrument
    private let perMillion: Int64
    private var random: PRNG

    /// - Parameter perMillion: of a million frames so many are mutated.
    package init(venue: QuoteNode.Venue, instrument: Instrument, seed: UInt64, perMillion: Int64 = 25_000) {
        (self.venue, self.instrument, self.perMillion) = (venue, instrument, perMillion)
        random = PRNG(seed: seed)
    }

    /// - Parameter frames: of one symbol and one connection, with receive times.
    package mutating func run(_ frames: [(at: WallTime, bytes: [UInt8])]) -> Report {
        var report = Report()
        let memory = OutboxMemory()
        var node = QuoteNode(
            venue: venue, instruments: [instrument], parameters: Parameters(), isRecorded: false, connections: 1, runNumber: 1,
            firstFillID: 1,
            outboxes: memory.makeOutboxes(), clock: StopClock { 0 })
        var truth = DictionaryBook(instrument)
        // Answers to questions for books, which come two frames later.
        var answers: [(due: Int, sentAt: Moment, isSubscription: Bool)] = []
        var wasProven = false
        if let first = frames.first { node.connected(0, at: Self.moment(first.at)) }
        for (place, (at, bytes)) in frames.enumerated() {
            let now = Self.moment(at)
            truth.take(bytes)
            // The last frames are sound, so that every book can come back.
            let isMutated = place + 100 < frames.count && random.chance(perMillion: perMillion)
            for frame in isMutated ? mutated(bytes, next: place + 1 < frames.count ? frames[place + 1].bytes : bytes, &report) : [bytes] {
                report.frames += 1
                frame.withUnsafeBytes { node.frame($0, on: 0, at: now) }
                memory.discard(&node.shared.outboxes)
            }
            while let answer = answers.first, answer.due <= place {
                answers.removeFirst()
                guard truth.isKnown else {
                    if !answer.isSubscription { node.snapshotFailed(0, at: now) }
                    continue
                }
                let book = truth.frame(venue, milliseconds: at.milliseconds)
                book.withUnsafeBytes {
                    if answer.isSubscription {
                        node.frame($0, on: 0, at: now)
                    } else {
                        node.snapshotAnswered(0, $0, sentAt: answer.sentAt, at: now)
                    }
                }
            }
            node.advance(to: now)
            for request in node.takeRequests() {
                switch request {
                case .ping: node.pong(on: 0, at: now)
                case .snapshot: answers.append((place + 2, now, false))
                case .resubscribe: answers.append((place + 2, now, true))
                case .reconnect: break
                }
            }
            memory.discard(&node.shared.outboxes)
            let isProven = node.withSymbol(0) { $0.isProven }
            if isProven, !wasProven { report.resyncs += 1 }
            if isProven, !wasProven || place.isMultiple(of: 50) || place + 1 == frames.count { compare(node, truth, &report) }
            wasProven = isProven
        }
        report.isProvenAtEnd = wasProven
        report.sequenceGaps = node.withSymbol(0) { $0.counts.sequenceGaps }
        for reason in FrameRejection.allCases where node.rejected(reason) > 0 { report.rejected["\(reason.name)"] = node.rejected(reason) }
        return report
    }

    private static func moment(_ wall: WallTime) -> Moment { Moment(instant: Instant(nanoseconds: wall.nanoseconds), wall: wall) }

    private func compare(_ node: borrowing QuoteNode, _ truth: DictionaryBook, _ report: inout Report) {
        // A frame that was lost and that no later one has told of is not known yet.
        guard node.withSymbol(0, { $0.book.depthID == truth.id }) else { return }
        report.comparisons += 1
        for side in [Side.buy, .sell] {
            let expected = truth.best(side, count: Self.comparedLevels)
            let found = node.withSymbol(0) { symbol in
                (0..<Self.comparedLevels).compactMap { rank in
                    (side == .buy ? symbol.book.bids.level(rank) : symbol.book.asks.level(rank)).map {
                        BookLevel(price: $0.price, quantity: $0.quantity)
                    }
                }
            }
            if found != expected {
                report.mismatches += 1
                return
            }
        }
    }

    // MARK: Mutations

    /// What arrives in place of a frame.
    private mutating func mutated(_ bytes: [UInt8], next: [UInt8], _ report: inout Report) -> [[UInt8]] {
        // Ten megabytes are as good once as a hundred times.
        let isLong = report.mutated[Mutation.longString.rawValue, default: 0] >= 1
        let kinds = Mutation.allCases.filter { !isLong || $0 != .longString }
        let mutation = kinds[Int(random.below(Int64(kinds.count)))]
        report.mutated[mutation.rawValue, default: 0] += 1
        switch mutation {
        case .dropped: return []
        case .duplicated: return [bytes, bytes]
        // The next frame comes once more when it is its turn.
        case .swapped: return [next, bytes]
        case .truncated: return [Array(bytes.prefix(Int(random.below(Int64(bytes.count)))))]
        case .notANumber: return [replacingNumber(bytes, by: random.below(2) == 0 ? "NaN" : "-Infinity")]
        case .hugeNumber: return [replacingNumber(bytes, by: "9" + String(repeating: "9", count: 40))]
        case .deepNesting:
            let depth = 100_000
            return [inserting(bytes, [UInt8](repeating: 0x5b, count: depth) + [UInt8](repeating: 0x5d, count: depth))]
        case .longString: return [inserting(bytes, [0x22] + [UInt8](repeating: 0x78, count: Self.longStringBytes) + [0xff, 0x22])]
        case .invalidUTF8: return [inserting(bytes, [0x22, 0xc3, 0x28, 0x22])]
        }
    }

    /// The event time, which every frame of a book and every trade has, or the whole frame when there is none.
    private func replacingNumber(_ bytes: [UInt8], by text: String) -> [UInt8] {
        let start = bytes.indices.first { index in
            index > 0 && bytes[index - 1] == UInt8(ascii: ":") && (0x30...0x39).contains(bytes[index])
        }
        guard let start else { return Array(text.utf8) }
        let end = bytes[start...].firstIndex { !(0x30...0x39).contains($0) } ?? bytes.count
        return Array(bytes[..<start]) + Array(text.utf8) + Array(bytes[end...])
    }

    /// Another member at the end of the frame's object.
    private func inserting(_ bytes: [UInt8], _ value: [UInt8]) -> [UInt8] {
        guard let end = bytes.lastIndex(of: UInt8(ascii: "}")) else { return value }
        return Array(bytes[..<end]) + Array(",\"x\":".utf8) + value + Array(bytes[end...])
    }
}

/// A book as the venue's documents describe it: two dictionaries, every frame read as a tree.
struct DictionaryBook {
    private let instrument: Instrument
    private var bids: [Int64: Int64] = [:]
    private var asks: [Int64: Int64] = [:]
    private var waiting: [JSONValue] = []
    private(set) var id: Int64 = 0
    private(set) var isKnown = false

    init(_ instrument: Instrument) { self.instrument = instrument }

    /// Frames about anything else change nothing.
    mutating func take(_ bytes: [UInt8]) {
        guard let tree = try? JSONValue.parse(bytes) else { return }
        let isBybit = tree["topic"]?.string?.hasPrefix("orderbook.") == true
        let frame = tree["data"] ?? tree
        if let last = frame["lastUpdateId"]?.integer {
            (bids, asks, id, isKnown) = ([:], [:], last, true)
            set(frame["bids"], frame["asks"])
            for diff in waiting where diff["u"]?.integer ?? 0 > last { apply(diff) }
            waiting = []
        } else if isBybit {
            if tree["type"]?.string == "snapshot" { (bids, asks, isKnown) = ([:], [:], true) }
            apply(frame)
        } else if frame["e"]?.string == "depthUpdate" {
            if isKnown { apply(frame) } else { waiting.append(frame) }
        }
    }

    private mutating func apply(_ diff: JSONValue) {
        guard isKnown, let last = diff["u"]?.integer else { return }
        id = last
        set(diff["b"], diff["a"])
    }

    private mutating func set(_ newBids: JSONValue?, _ newAsks: JSONValue?) {
        for level in newBids?.array ?? [] { bids[units(level, 0, instrument.priceDigits)] = quantity(level) }
        for level in newAsks?.array ?? [] { asks[units(level, 0, instrument.priceDigits)] = quantity(level) }
    }

    /// Nil removes the level.
    private func quantity(_ level: JSONValue) -> Int64? {
        let units = units(level, 1, instrument.quantityDigits)
        return units > 0 ? units : nil
    }

    /// A decimal by its text: the digits with the point taken out.
    private func units(_ level: JSONValue, _ place: Int, _ digits: Int) -> Int64 {
        let parts = (level.array?[place].string ?? "").split(separator: ".", maxSplits: 1)
        let fraction = parts.count > 1 ? parts[1] : ""
        let padded = fraction.prefix(digits) + String(repeating: "0", count: max(0, digits - fraction.count))
        return Int64((parts.first ?? "") + padded) ?? 0
    }

    func best(_ side: Side, count: Int) -> [BookLevel] {
        let levels = side == .buy ? bids.sorted { $0.key > $1.key } : asks.sorted { $0.key < $1.key }
        return levels.prefix(count).map { BookLevel(price: $0.key, quantity: $0.value) }
    }

    /// The whole book as the venue sends it: over REST, or Bybit's as the answer to a subscription.
    func frame(_ venue: QuoteNode.Venue, milliseconds: Int64) -> [UInt8] {
        func list(_ side: Side) -> String {
            best(side, count: venue.category == nil ? 1_000 : 200).map { level in
                "[\"\(decimal(level.price, instrument.priceDigits))\",\"\(decimal(level.quantity, instrument.quantityDigits))\"]"
            }.joined(separator: ",")
        }
        let name = instrument.symbol
        if venue.category != nil {
            return Array(
                (#"{"topic":"orderbook.200.\#(name)","type":"snapshot","ts":\#(milliseconds),"data":{"s":"\#(name)","b":[\#(list(.buy))],"#
                    + #""a":[\#(list(.sell))],"u":\#(id),"seq":\#(id)},"cts":\#(milliseconds)}"#).utf8)
        }
        return Array(#"{"lastUpdateId":\#(id),"bids":[\#(list(.buy))],"asks":[\#(list(.sell))]}"#.utf8)
    }

    private func decimal(_ units: Int64, _ digits: Int) -> String {
        guard digits > 0 else { return "\(units)" }
        let text = "\(units)"
        let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
        return padded.dropLast(digits) + "." + padded.suffix(digits)
    }
}
