import CalibModel
import Foundation
import Simulation
import Testing

/// Idea: a recording is read as a stranger would read it, with Foundation's JSON and a dictionary per side, by the venue's published
/// rules. What the simulation promises must follow from the bytes alone.
struct SimMarketTests {
    @Test(arguments: [7, 1, 2, 99] as [UInt64])
    func recordingObeysTheVenuesRules(seed: UInt64) throws {
        let reader = try StrangersReader(lines(seed: seed, seconds: 30))
        #expect(reader.staleDiffs >= 2)
        #expect(reader.usableBufferedDiffs >= 1)
        #expect(reader.brokenChains == 0)
        #expect(reader.crossedBooks == 0)
        #expect(reader.idleLevels == 0)
        #expect(reader.diffsApplied > 500)
        // A book after a diff and the top update with the same id, whichever arrived first.
        #expect(reader.topsCompared > 20)
        #expect(reader.topsUnequal == 0)
        #expect(reader.topsBeforeTheirDiff > 0 && reader.topsAfterTheirDiff > 0)
    }

    @Test(arguments: [7, 3] as [UInt64])
    func tradesTakeExactlyWhatTheTouchLoses(seed: UInt64) throws {
        let reader = try StrangersReader(lines(seed: seed, seconds: 30))
        #expect(reader.marketOrders > 200)
        #expect(reader.sweeps > 10)
        #expect(reader.badTrades == [])
    }

    @Test func sameSeedSameBytes_otherSeedOtherBytes() {
        let bytes = lines(seed: 7, seconds: 5)
        #expect(lines(seed: 7, seconds: 5) == bytes)
        #expect(lines(seed: 8, seconds: 5) != bytes)
        // A longer recording begins with the shorter one.
        #expect(lines(seed: 7, seconds: 6).starts(with: bytes))
    }

    /// Pins the bytes over builds and machines. A change of the market on purpose changes these numbers and the README's.
    @Test func seedSevenIsWhatTheReadmeSays() {
        var recording = BinanceRecording(
            seed: 7, symbol: "BTCUSDT", start: WallTime(nanoseconds: startNanoseconds), milliseconds: 120_000)
        var bytes: [UInt8] = []
        while !recording.isComplete { recording.step(into: &bytes) }
        #expect(bytes.count == 9_421_462)
        #expect(recording.counts.depths == 2316)
        #expect(recording.counts.trades == 6930)
        #expect(recording.counts.tops == 27_603)
        #expect(recording.counts.snapshots == 1)
    }

    /// The ranges hold the values of the reference recording (mean 19 diffs, 62 trades, 192 top updates a second; 1.2 bps) and
    /// what ten seeds gave.
    @Test(arguments: [7, 1, 2, 3, 4] as [UInt64])
    func ratesAndVolatilityAreThoseOfARealMarket(seed: UInt64) throws {
        let seconds = 120
        let reader = try StrangersReader(lines(seed: seed, seconds: seconds))
        let perSecond = { (count: Int) in Double(count) / Double(seconds) }
        #expect((17...21).contains(perSecond(reader.diffsSeen)))
        #expect((35...100).contains(perSecond(reader.trades)))
        #expect((140...320).contains(perSecond(reader.tops)))
        #expect((0.7...3).contains(reader.volatilityBps), "\(reader.volatilityBps)")
        #expect((1...5).contains(reader.medianTouchQuantity), "\(reader.medianTouchQuantity)")
        // The recorder's clock is behind: a naive latency is negative, by 1.27 s in the median.
        #expect((-1.272 ... -1.268).contains(reader.medianLatencySeconds), "\(reader.medianLatencySeconds)")
        #expect(reader.firstReceived >= startNanoseconds)
        #expect(reader.lastReceived < startNanoseconds + Int64(seconds) * 1_000_000_000)
        #expect(reader.lastReceived > startNanoseconds + Int64(seconds) * 1_000_000_000 - 200_000_000)
        #expect(reader.wentBack == 0)
    }

    @Test func framesHaveTheVenuesForm() throws {
        let text = String(decoding: lines(seed: 7, seconds: 2), as: UTF8.self)
        func first(_ stream: String) throws -> Substring { try #require(text.split(separator: "\n").first { $0.contains(stream) }) }
        #expect(
            try first("@trade").wholeMatch(
                of:
                    /\d{19} {"stream":"btcusdt@trade","data":{"e":"trade","E":\d{13},"T":\d{13},"s":"BTCUSDT","t":\d+,"p":"\d+\.\d0","q":"\d+\.\d{3}","X":"MARKET","m":(true|false)}}/
            ) != nil)
        #expect(
            try first("@bookTicker").wholeMatch(
                of:
                    /\d{19} {"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":\d+,"s":"BTCUSDT","b":"\d+\.\d0","B":"\d+\.\d{3}","a":"\d+\.\d0","A":"\d+\.\d{3}","T":\d{13},"E":\d{13}}}/
            ) != nil)
        #expect(
            try first("@depth").wholeMatch(
                of:
                    /\d{19} {"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":\d{13},"T":\d{13},"s":"BTCUSDT","U":\d+,"u":\d+,"pu":\d+,"b":\[(\["\d+\.\d0","\d+\.\d{3}"\],?)*\],"a":\[(\["\d+\.\d0","\d+\.\d{3}"\],?)*\]}}/
            ) != nil)
        #expect(
            try first("lastUpdateId").prefixMatch(
                of: /\d{19} {"lastUpdateId":\d+,"E":\d{13},"T":\d{13},"bids":\[\["\d+\.\d0","\d+\.\d{3}"\],/) != nil)
    }

    /// Every diff applied to the state of the diff before it gives the market's own book, on all levels and not only at the top.
    @Test func diffsAddUpToTheBook() {
        var market = SimMarket(seed: 11, startingAfter: startNanoseconds / 1_000_000)
        var book: [Side: [Int64: Int64]]?
        var compared = 0
        for _ in 0..<20_000 {
            for case .depth(let diff) in market.step() {
                let whole = Dictionary(
                    uniqueKeysWithValues: Side.allCases.map { side in
                        (side, Dictionary(uniqueKeysWithValues: market.levels(side, count: .max).map { ($0.price, $0.quantity) }))
                    })
                if book != nil {
                    for level in diff.bids { book?[.buy]?[level.price] = level.quantity == 0 ? nil : level.quantity }
                    for level in diff.asks { book?[.sell]?[level.price] = level.quantity == 0 ? nil : level.quantity }
                    if compared.isMultiple(of: 50) { #expect(book == whole) }
                    compared += 1
                } else {
                    book = whole
                }
            }
        }
        #expect(compared > 300)
    }
}

private let startNanoseconds: Int64 = 1_735_689_600_000_000_000

private func lines(seed: UInt64, seconds: Int) -> [UInt8] {
    var recording = BinanceRecording(
        seed: seed, symbol: "BTCUSDT", start: WallTime(nanoseconds: startNanoseconds), milliseconds: Int64(seconds) * 1000)
    var bytes: [UInt8] = []
    while !recording.isComplete { recording.step(into: &bytes) }
    return bytes
}

/// Reads a recording by the venue's documentation and counts what contradicts it.
private struct StrangersReader {
    var staleDiffs = 0, usableBufferedDiffs = 0, diffsApplied = 0, diffsSeen = 0, brokenChains = 0, crossedBooks = 0
    /// Levels a diff names although their quantity did not change.
    var idleLevels = 0
    var topsCompared = 0, topsUnequal = 0, topsBeforeTheirDiff = 0, topsAfterTheirDiff = 0
    var trades = 0, tops = 0, marketOrders = 0, sweeps = 0
    var badTrades: [String] = []
    var firstReceived: Int64 = 0, lastReceived: Int64 = 0, wentBack = 0
    var volatilityBps = 0.0, medianTouchQuantity = 0.0, medianLatencySeconds = 0.0

    private typealias Top = [Int64]
    private var bids: [Int64: Int64] = [:], asks: [Int64: Int64] = [:]
    private var lastID: Int64?
    private var isSynced = false
    private var buffered: [[String: Any]] = []
    private var topsByID: [Int64: Top] = [:], booksByID: [Int64: Top] = [:]
    private var lastTop: Top?
    private var order: (isSell: Bool, fills: [(price: Int64, quantity: Int64)])?

    init(_ bytes: [UInt8]) throws {
        var midsBySecond: [Int64: Double] = [:]
        var latencies: [Double] = []
        var quantities: [Int64] = []
        for line in bytes.split(separator: 0x0a) {
            let space = try #require(line.firstIndex(of: 0x20))
            let received = try #require(Int64(String(decoding: line[..<space], as: UTF8.self)))
            if firstReceived == 0 { firstReceived = received }
            if received < lastReceived { wentBack += 1 }
            lastReceived = received
            let json = try #require(JSONSerialization.jsonObject(with: Data(line[(space + 1)...])) as? [String: Any])
            guard let stream = json["stream"] as? String, let data = json["data"] as? [String: Any] else {
                try snapshot(json)
                continue
            }
            latencies.append(Double(received) / 1e9 - Double(try number(data, "E")) / 1e3)
            switch stream {
            case "btcusdt@depth@0ms":
                diffsSeen += 1
                if lastID == nil { buffered.append(data) } else { try apply(data) }
            case "btcusdt@bookTicker":
                let top = try [fixed(data["b"]), fixed(data["B"]), fixed(data["a"]), fixed(data["A"])]
                try take(top, id: number(data, "u"))
                midsBySecond[try number(data, "E") / 1000] = Double(top[0] + top[2]) / 2
                quantities += [top[1], top[3]]
            default:
                #expect(stream == "btcusdt@trade")
                try take(trade: data)
            }
        }
        let seconds = midsBySecond.keys.sorted()
        let returns = zip(seconds, seconds.dropFirst()).filter { $1 == $0 + 1 }.map { (midsBySecond[$1]! / midsBySecond[$0]! - 1) * 1e4 }
        volatilityBps = (returns.map { $0 * $0 }.reduce(0, +) / Double(max(1, returns.count))).squareRoot()
        medianTouchQuantity = Double(quantities.sorted()[quantities.count / 2]) / 1000
        medianLatencySeconds = latencies.sorted()[latencies.count / 2]
    }

    private mutating func snapshot(_ json: [String: Any]) throws {
        lastID = try number(json, "lastUpdateId")
        let (bidLevels, askLevels) = try (levels(json["bids"]), levels(json["asks"]))
        #expect(bidLevels.count == 1000 && askLevels.count == 1000)
        #expect(bidLevels.map(\.0) == bidLevels.map(\.0).sorted(by: >) && askLevels.map(\.0) == askLevels.map(\.0).sorted())
        bids = Dictionary(uniqueKeysWithValues: bidLevels)
        asks = Dictionary(uniqueKeysWithValues: askLevels)
        for data in buffered { try apply(data) }
        usableBufferedDiffs = diffsApplied
        buffered = []
    }

    private mutating func apply(_ data: [String: Any]) throws {
        let (first, last, previous) = try (number(data, "U"), number(data, "u"), number(data, "pu"))
        let known = try #require(lastID)
        if !isSynced {
            if last < known {
                staleDiffs += 1
                return
            }
            if first > known { brokenChains += 1 }
        } else if previous != known {
            brokenChains += 1
        }
        for (price, quantity) in try levels(data["b"]) {
            if isSynced, let old = bids[price], old == quantity { idleLevels += 1 }
            bids[price] = quantity == 0 ? nil : quantity
        }
        for (price, quantity) in try levels(data["a"]) {
            if isSynced, let old = asks[price], old == quantity { idleLevels += 1 }
            asks[price] = quantity == 0 ? nil : quantity
        }
        isSynced = true
        lastID = last
        diffsApplied += 1
        let bid = try #require(bids.max { $0.key < $1.key })
        let ask = try #require(asks.min { $0.key < $1.key })
        if bid.key >= ask.key { crossedBooks += 1 }
        let book = [bid.key, bid.value, ask.key, ask.value]
        booksByID[last] = book
        if let top = topsByID[last] {
            topsBeforeTheirDiff += 1
            compare(top, book)
        }
    }

    private mutating func take(_ top: Top, id: Int64) {
        tops += 1
        if top[0] >= top[2] { crossedBooks += 1 }
        topsByID[id] = top
        if let book = booksByID[id] {
            topsAfterTheirDiff += 1
            compare(top, book)
        }
        if let order, let before = lastTop { check(order.fills, isSell: order.isSell, before: before, after: top) }
        order = nil
        lastTop = top
    }

    private mutating func compare(_ top: Top, _ book: Top) {
        topsCompared += 1
        if top != book { topsUnequal += 1 }
    }

    /// The trades between two top updates are one market order: it always changes the top.
    private mutating func take(trade data: [String: Any]) throws {
        trades += 1
        let isSell = try #require(data["m"] as? Bool)
        let fill = try (price: fixed(data["p"]), quantity: fixed(data["q"]))
        #expect(data["X"] as? String == "MARKET")
        if order == nil { order = (isSell, []) }
        if order?.isSell != isSell { badTrades.append("two aggressors in one order") }
        order?.fills.append(fill)
    }

    private mutating func check(_ fills: [(price: Int64, quantity: Int64)], isSell: Bool, before: Top, after: Top) {
        marketOrders += 1
        let (price, quantity) = isSell ? (before[0], before[1]) : (before[2], before[3])
        let (newPrice, newQuantity) = isSell ? (after[0], after[1]) : (after[2], after[3])
        let atTouch = fills.filter { $0.price == price }.map(\.quantity).reduce(0, +)
        let worst = fills[fills.count - 1].price
        if fills[0].price != price { badTrades.append("first fill at \(fills[0].price), touch at \(price)") }
        if worst == price, newPrice == price {
            if newQuantity != quantity - atTouch { badTrades.append("\(quantity) less \(atTouch) left \(newQuantity)") }
        } else {
            // The touch is gone, so all of it was traded, and the new touch is not better than the last fill.
            if atTouch != quantity { badTrades.append("took \(atTouch) of \(quantity) and moved on") }
            if isSell ? newPrice > worst : newPrice < worst { badTrades.append("touch \(newPrice) inside last fill \(worst)") }
            if worst != price { sweeps += 1 }
        }
        let prices = fills.map(\.price)
        if prices != (isSell ? prices.sorted(by: >) : prices.sorted()) { badTrades.append("fills out of price order") }
        // The other side is untouched.
        if isSell ? before[2...] != after[2...] : before[..<2] != after[..<2] { badTrades.append("the other side moved") }
    }

    private func number(_ object: [String: Any], _ key: String) throws -> Int64 {
        try #require(object[key] as? NSNumber, "\(key)").int64Value
    }

    /// "61800.20" -> 6180020; quantities have three decimals, prices two, so the digits alone are the number.
    private func fixed(_ text: Any?) throws -> Int64 {
        let digits = try #require(text as? String).filter { $0 != "." }
        return try #require(Int64(digits))
    }

    private func levels(_ value: Any?) throws -> [(Int64, Int64)] {
        try #require(value as? [[String]]).map { try (fixed($0[0]), fixed($0[1])) }
    }
}
