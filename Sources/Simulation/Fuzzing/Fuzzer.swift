import CalibModel
import EdgeCore
import Wire

/// What is given damaged input, and what it must agree with.
package enum FuzzTarget: String, CaseIterable, Sendable {
    /// `DecimalText` against decimal arithmetic digit by digit.
    case decimal
    /// `JSONReader` against a recognizer of RFC 8259; a parsed value against itself written and read again.
    case json
    /// The fast reader of Binance's usual frames against the one of any form, and both against the same frame with its members in another order.
    case binance
    /// Bybit's reader against the same frame with its members in another order.
    case bybit
    /// A whole node: every frame is counted once, and one that is refused changes no book.
    case node
    /// The link's messages: a damaged line is refused, or what it says is the same when written and read again.
    case message
    /// A hub's session with an edge, and an edge's with a hub, each given messages in any order with any values: the hub stores nothing it should
    /// not and acknowledges nothing too early, the edge ships nothing that is not durable.
    case session
    /// Lines of feeds: the strict reader and the one that knows a row's form, against a slow one that has the rules and nothing else.
    case row
}

/// What came of the inputs. Nothing but a trap or a disagreement is a failure: damaged input is meant to be refused.
package struct FuzzTally: Sendable, Equatable {
    package var inputs: Int64 = 0
    package var accepted: Int64 = 0
    /// By reason.
    package var rejected: [String: Int64] = [:]
    package init() {}

    package mutating func add(_ other: FuzzTally) {
        inputs += other.inputs
        accepted += other.accepted
        rejected.merge(other.rejected, uniquingKeysWith: +)
    }

    mutating func accept() {
        inputs += 1
        accepted += 1
    }

    mutating func reject(_ reason: StaticString, count: Int64 = 1) {
        inputs += count
        rejected["\(reason)", default: 0] += count
    }
}

/// Two readers said different things of one input.
package struct FuzzDisagreement: Error, Sendable {
    package var target: FuzzTarget
    package var input: [UInt8]
    package var text: String
}

/// Gives one target seeded inputs: sound frames of simulated venues with a few edits each, and numbers. The same seed gives the same inputs.
package struct Fuzzer: ~Copyable {
    package let target: FuzzTarget
    package private(set) var tally = FuzzTally()
    private var random: PRNG
    private let frames: FuzzFrames
    private var fastBinance = BinanceDecoder()
    private var anyBinance = BinanceDecoder()
    private var bybit = BybitDecoder()

    package init(_ target: FuzzTarget, seed: UInt64, frames: FuzzFrames) {
        self.target = target
        self.frames = frames
        random = PRNG(seed: seed)
    }

    package mutating func run(inputs: Int) throws(FuzzDisagreement) {
        if target == .node {
            tally.add(try FuzzedNode.run(inputs: inputs, frames: frames, &random))
            return
        }
        if target == .session {
            tally.add(try FuzzedSession.run(inputs: inputs, &random))
            return
        }
        if target == .row {
            tally.add(try FuzzedRow.run(inputs: inputs, &random))
            return
        }
        for _ in 0..<inputs {
            switch target {
            case .decimal: try decimal()
            case .json: try json()
            case .binance: try binanceFrame()
            case .bybit: try bybitFrame()
            case .message: try FuzzedSession.message(&random, &tally)
            case .node, .session, .row: break
            }
        }
    }

    // MARK: Numbers

    private mutating func decimal() throws(FuzzDisagreement) {
        let text = number()
        let places = Int(random.below(19))
        let read = text.withUnsafeBytes { DecimalText($0) }
        let exact = DigitwiseDecimal(text)
        guard let read, let exact else {
            if (read == nil) != (exact == nil) { throw differ(text, "one of them reads no number") }
            return tally.reject("not_a_number")
        }
        let (fixed, whole) = (read.fixed(places: places), read.exact(places: places))
        guard fixed == exact.fixed(places: places) else {
            throw differ(text, "\(places) places: \(String(describing: fixed)), not \(String(describing: exact.fixed(places: places)))")
        }
        guard whole == exact.exact(places: places) else {
            throw differ(
                text, "\(places) places, exactly: \(String(describing: whole)), not \(String(describing: exact.exact(places: places)))")
        }
        if fixed == nil { tally.reject("overflow") } else { tally.accept() }
    }

    /// Mostly a number; sometimes nearly one.
    private mutating func number() -> [UInt8] {
        func digits(_ count: Int64, _ random: inout PRNG) -> [UInt8] {
            // Long runs of 0, 5 and 9 are where rounding goes wrong.
            let kind = random.below(4)
            return (0..<count).map { _ in
                0x30 + UInt8([random.below(10), [0, 5, 9][Int(random.below(3))], 0, 9][Int(kind)])
            }
        }
        var text: [UInt8] = random.below(4) == 0 ? [0x2d] : []
        text += random.below(3) == 0 ? [0x30] : [UInt8(0x31 + random.below(9))] + digits(random.below(1 << random.below(5)), &random)
        if random.below(3) > 0 { text += [0x2e] + digits(1 + random.below(1 << random.below(5)), &random) }
        if random.below(5) == 0 {
            text +=
                [random.below(2) == 0 ? 0x65 : 0x45] + [[], [0x2b], [0x2d]][Int(random.below(3))] + digits(1 + random.below(3), &random)
        }
        if random.below(8) == 0 { FrameDamage.apply(to: &text, &random) }
        return text
    }

    // MARK: JSON

    private mutating func json() throws(FuzzDisagreement) {
        let text = damaged(frames.all)
        let error = text.withUnsafeBytes { Self.refusal($0) }
        if (error == nil) != JSONRecognizer.accepts(text, depthMax: JSONReader.depthMax) {
            throw differ(text, error.map { "refused as \($0)" } ?? "accepted, though it is not JSON")
        }
        let value = Result { () throws(JSONError) in try JSONValue.parse(text) }
        guard case .success(let value) = value else { return tally.reject(error ?? "repeated_name_or_not_utf8") }
        if error != nil { throw differ(text, "a tree was made of it") }
        var writer = JSONWriter()
        value.write(to: &writer)
        let again = Result { () throws(JSONError) in try JSONValue.parse(writer.bytes) }
        guard case .success(value) = again else { throw differ(text, "written and read again it is another value") }
        tally.accept()
    }

    private static func refusal(_ bytes: UnsafeRawBufferPointer) -> StaticString? {
        var reader = JSONReader(bytes)
        do throws(JSONError) {
            try reader.skip()
            try reader.end()
            return nil
        } catch {
            switch error {
            case .syntax: return "syntax"
            case .wrongType: return "wrong_type"
            case .nonFinite: return "non_finite"
            case .overflow: return "overflow"
            case .tooDeep: return "too_deep"
            }
        }
    }

    // MARK: Frames

    private mutating func binanceFrame() throws(FuzzDisagreement) {
        let text = damaged(frames.binance)
        let fast = text.withUnsafeBytes { Self.outcome(&fastBinance, $0, isFast: true) }
        let any = text.withUnsafeBytes { Self.outcome(&anyBinance, $0, isFast: false) }
        guard fast == any else { throw differ(text, "fast: \(fast); any form: \(any)") }
        if fast.rejection == nil, let other = reordered(text) {
            let turned = other.withUnsafeBytes { Self.outcome(&anyBinance, $0, isFast: true) }
            guard turned.rejection != nil || turned == fast else { throw differ(text, "with its members turned round: \(turned)") }
        }
        count(fast)
    }

    private mutating func bybitFrame() throws(FuzzDisagreement) {
        let text = damaged(frames.bybit)
        let outcome = text.withUnsafeBytes { Self.outcome(&bybit, $0) }
        if outcome.rejection == nil, let other = reordered(text) {
            let turned = other.withUnsafeBytes { Self.outcome(&bybit, $0) }
            guard turned.rejection != nil || turned == outcome else { throw differ(text, "with its members turned round: \(turned)") }
        }
        count(outcome)
    }

    private mutating func count(_ outcome: Outcome) {
        if let rejection = outcome.rejection { tally.reject(rejection.name) } else { tally.accept() }
    }

    /// What a decoder says of a frame, every part of it in the digest.
    private struct Outcome: Equatable {
        var rejection: FrameRejection?
        var digest: UInt64 = 0
    }

    private static func outcome(_ decoder: inout BinanceDecoder, _ bytes: UnsafeRawBufferPointer, isFast: Bool) -> Outcome {
        var digest = FrameDigest()
        do throws(FrameRejection) {
            switch isFast ? try decoder.decode(bytes) : try decoder.decodeAnyForm(bytes) {
            case .depth(let symbol, let first, let last, let previous, let event):
                digest.add("depth", symbol)
                for number in [first, last, previous ?? .min, event] { digest.add(number) }
                for index in 0..<decoder.bidCount { digest.add(decoder.bid(index)) }
                digest.add("asks", nil)
                for index in 0..<decoder.askCount { digest.add(decoder.ask(index)) }
            case .snapshot(let symbol, let last, let event):
                digest.add("snapshot", symbol)
                for number in [last, event ?? .min] { digest.add(number) }
                for index in 0..<decoder.bidCount { digest.add(decoder.bid(index)) }
                digest.add("asks", nil)
                for index in 0..<decoder.askCount { digest.add(decoder.ask(index)) }
            case .trade(let symbol, let level, let buyerIsMaker, let consumes, let isAggregate, let event):
                digest.add("trade", symbol)
                digest.add(level)
                for number in [buyerIsMaker ? 1 : 0, consumes ? 1 : 0, isAggregate ? 1 : 0, event] { digest.add(number) }
            case .bookTicker(let symbol, let id, let bid, let ask, let event):
                digest.add("ticker", symbol)
                digest.add(bid)
                digest.add(ask)
                for number in [id, event ?? .min] { digest.add(number) }
            case .leaving: digest.add("leaving", nil)
            case .refused: digest.add("refused", nil)
            case .other: digest.add("other", nil)
            }
        } catch { return Outcome(rejection: error) }
        return Outcome(digest: digest.value)
    }

    private static func outcome(_ decoder: inout BybitDecoder, _ bytes: UnsafeRawBufferPointer) -> Outcome {
        var digest = FrameDigest()
        do throws(FrameRejection) {
            switch try decoder.decode(bytes) {
            case .book(let symbol, let depth, let isSnapshot, let update, let event):
                digest.add("book", symbol)
                for number in [Int64(depth), isSnapshot ? 1 : 0, update, event, decoder.sequence] { digest.add(number) }
                for index in 0..<decoder.bidCount { digest.add(decoder.bid(index)) }
                digest.add("asks", nil)
                for index in 0..<decoder.askCount { digest.add(decoder.ask(index)) }
            case .trades(let symbol, let event):
                digest.add("trades", symbol)
                digest.add(event)
                for index in 0..<decoder.tradeCount {
                    let trade = decoder.trade(index)
                    digest.add(trade.level)
                    digest.add(trade.aggressor == .buy ? 1 : 0)
                    digest.add(trade.consumesQueue ? 1 : 0)
                }
            case .pong: digest.add("pong", nil)
            case .refused: digest.add("refused", nil)
            case .other: digest.add("other", nil)
            }
        } catch { return Outcome(rejection: error) }
        return Outcome(digest: digest.value)
    }

    // MARK: Inputs

    /// A frame with no edit in an eighth of the cases, else one to four.
    private mutating func damaged(_ frames: [[UInt8]]) -> [UInt8] {
        var frame = frames[Int(random.below(Int64(frames.count)))]
        if random.below(8) > 0 { for _ in 0...random.below(4) { FrameDamage.apply(to: &frame, &random) } }
        return frame
    }

    /// The same value with every object's members in the opposite order; nil when it has a repeated name or an escape, which readers may see
    /// differently.
    private func reordered(_ text: [UInt8]) -> [UInt8]? {
        guard !text.contains(UInt8(ascii: "\\")), let value = try? JSONValue.parse(text) else { return nil }
        var writer = JSONWriter()
        Self.turned(value).write(to: &writer)
        return writer.bytes
    }

    private static func turned(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let members): .object(members.reversed().map { .init(name: $0.name, value: turned($0.value)) })
        case .array(let values): .array(values.map(turned))
        case .null, .boolean, .number, .string: value
        }
    }

    private func differ(_ input: [UInt8], _ text: String) -> FuzzDisagreement { FuzzDisagreement(target: target, input: input, text: text) }
}

/// One number for all a frame says.
private struct FrameDigest {
    private var hash = KeyedHash()

    mutating func add(_ number: Int64) { hash.combine(number) }

    mutating func add(_ kind: StaticString, _ text: UnsafeRawBufferPointer?) {
        hash.combine(Int64(kind.utf8CodeUnitCount))
        for byte in text ?? UnsafeRawBufferPointer(start: nil, count: 0) { hash.combine(Int64(byte)) }
    }

    mutating func add(_ level: RawLevel) {
        for decimal in [level.price, level.quantity] {
            hash.combine(decimal.fixed(places: 9) ?? .min)
            hash.combine(Int64(decimal.placesUsed))
        }
    }

    var value: UInt64 { hash.finalized() }
}
