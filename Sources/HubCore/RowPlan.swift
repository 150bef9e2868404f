import CalibModel
import Wire

/// The form of a writer's rows, learned from one of them: what stands between the values, and which value comes where.
///
/// A writer prints every row of a feed alike: the same keys in the same order with the same blanks. The next row is compared with that
/// eight bytes at a time, and only its values are parsed. Whatever surprises, be it a key in another place, an escape, a character beyond ASCII,
/// a number of many digits, a value that is not allowed or a torn line, makes `read` give up; then `FeedScanner` reads the row from its beginning,
/// and its verdict is the only one. So a plan has nothing to say about what a bad row is, and cannot disagree.
///
/// What a plan never checks again was checked in the row it was learned from: keys are UTF-8, differ, and their nesting is bounded.
///
/// Invariant: no place that is looked at lies behind the row's newline. Nothing expected contains a newline, nor does any value go on behind one, so the
/// first word that reaches it is the last. Words are loaded whole: that is what `overrun` allows for.
struct RowPlan {
    private enum Action {
        case skip, integer, fixed, boolean, symbol, host, armWhy, experiment, configHash, side, arm, source, epoch, histogram
    }

    private struct Step {
        /// Whole words of the text before the value, then one more under the mask.
        var words = 0
        var firstWord = 0
        var mask: UInt64 = 0
        var length = 0
        var action = Action.skip
        var isNullable = true
        var field = 0
        var places = 0
        var range: ClosedRange<Int64> = 0...0
    }

    private let feed: Feed
    private let steps: UnsafeMutableBufferPointer<Step>
    private let literals: UnsafeMutableBufferPointer<UInt64>
    private let powers: UnsafeMutableBufferPointer<UInt64>

    /// `read` loads no byte further behind the row's newline than this: those of a word that begins at it.
    static let overrun = 7
    /// Longest text between two values that a plan can hold.
    private static let literalBytesMax = 256

    func deallocate() {
        steps.deallocate()
        literals.deallocate()
        powers.deallocate()
    }

    // MARK: Learning

    private struct Draft {
        var steps: [Step] = []
        var literals: [UInt64] = []
        var start = 0

        /// Takes the text up to `end` for what stands before the next value.
        mutating func literal(_ line: UnsafeRawBufferPointer, to end: Int) -> Step? {
            let text = line[start..<end]
            guard text.count <= RowPlan.literalBytesMax else { return nil }
            var step = Step()
            step.words = text.count / 8
            step.firstWord = literals.count
            step.length = text.count
            step.mask = text.count % 8 == 0 ? 0 : ~0 >> UInt64(64 - 8 * (text.count % 8))
            var word: UInt64 = 0
            for (place, byte) in text.enumerated() {
                word |= UInt64(byte) << UInt64(place % 8 * 8)
                if place % 8 == 7 {
                    literals.append(word)
                    word = 0
                }
            }
            literals.append(word)
            return step
        }
    }

    /// Nil for rows no plan fits: with arrays nobody reads, or escapes in keys. `line` was taken as a row of `feed`.
    init?(learning line: UnsafeRawBufferPointer, feed: Feed, fields: [FieldSpec]) {
        var draft = Draft()
        do throws(JSONError) {
            var reader = JSONReader(line)
            guard try Self.learn(&reader, line, fields, &draft) else { return nil }
        } catch { return nil }
        guard let last = draft.literal(line, to: line.count) else { return nil }
        draft.steps.append(last)
        self.feed = feed
        steps = .allocate(capacity: draft.steps.count)
        _ = steps.initialize(from: draft.steps)
        literals = .allocate(capacity: draft.literals.count)
        _ = literals.initialize(from: draft.literals)
        powers = .allocate(capacity: 19)
        _ = powers.initialize(from: (0...18).map { UInt64(FixedPoint.powersOfTen[$0]) })
    }

    private static func learn(
        _ reader: inout JSONReader, _ line: UnsafeRawBufferPointer, _ fields: [FieldSpec], _ draft: inout Draft
    ) throws(JSONError) -> Bool {
        try reader.beginObject()
        while let key = try reader.nextKey() {
            if key.contains(0x5c) { return false }
            let field = fields.first { key.equals($0.name) }
            let kind = try reader.peek()
            if kind == .object {
                var inner: [FieldSpec] = []
                if let field {
                    guard case .group(let fields) = field.kind else { return false }
                    inner = fields
                }
                guard try learn(&reader, line, inner, &draft) else { return false }
                continue
            }
            guard var step = draft.literal(line, to: reader.offset) else { return false }
            if let field {
                step.isNullable = field.isNullable
                step.field = field.field.rawValue
                step.range = field.range
                switch field.kind {
                case .integer: step.action = .integer
                case .fixed(let places):
                    step.action = .fixed
                    step.places = places
                case .boolean: step.action = .boolean
                case .text(let text): step.action = action(text)
                case .group: return false
                case .histogram: step.action = .histogram
                }
            }
            guard kind != .array || step.action == .histogram else { return false }
            try reader.skip()
            draft.start = reader.offset
            draft.steps.append(step)
        }
        return true
    }

    private static func action(_ text: FieldSpec.Text) -> Action {
        switch text {
        case .symbol: .symbol
        case .host: .host
        case .side: .side
        case .arm: .arm
        case .armWhy: .armWhy
        case .experiment: .experiment
        case .configHash: .configHash
        case .source: .source
        case .epoch: .epoch
        }
    }

    // MARK: Reading

    /// The byte behind the row's newline, and the row in `row`; nil when the row is not of this form, and `row` is then worth nothing.
    ///
    /// A newline must follow at `start` or behind it, with `overrun` readable bytes behind that.
    @inline(__always) func read(_ start: UnsafeRawPointer, into row: inout FeedRow) -> UnsafeRawPointer? {
        row.reset(for: feed)
        var text = start
        let last = steps.count &- 1
        var index = 0
        while true {
            let step = steps[unchecked: index]
            guard matches(text, step) else { return nil }
            text += step.length
            if index == last { break }
            index &+= 1
            if step.action == .skip {
                guard Self.skip(&text) else { return nil }
                continue
            }
            if text.loadByte == 0x6e {
                guard step.isNullable, text.loadUnaligned(as: UInt32.self) == 0x6c6c_756e else { return nil }
                text += 4
                continue
            }
            switch step.action {
            case .skip: break
            case .integer:
                guard let value = Self.integer(&text), step.range.contains(value) else { return nil }
                row.set(step.field, value)
            case .fixed:
                guard let value = fixed(&text, places: step.places), step.range.contains(value) else { return nil }
                row.set(step.field, value)
            case .boolean:
                guard let value = Self.boolean(&text) else { return nil }
                row.set(step.field, value)
            case .histogram: guard Self.histogram(&text, &row) else { return nil }
            case .side:
                let word = text.loadUnaligned(as: UInt64.self)
                if word & 0xff_ffff_ffff == 0x22_5955_4222 {
                    row.set(step.field, 1)
                    text += 5
                } else if word & 0xffff_ffff_ffff == 0x224c_4c45_5322 {
                    row.set(step.field, -1)
                    text += 6
                } else {
                    return nil
                }
            case .arm:
                switch text.loadUnaligned(as: UInt32.self) & 0xff_ffff {
                case 0x22_4122: row.set(step.field, 0)
                case 0x22_4222: row.set(step.field, 1)
                default: return nil
                }
                text += 3
            case .symbol, .host, .armWhy, .experiment, .configHash, .source, .epoch:
                guard let value = Self.string(&text), Self.take(value, step, &row) else { return nil }
            }
        }
        if text.loadByte == 0x0d { text += 1 }
        guard text.loadByte == 0x0a, text - start <= RowLimits.lineBytesMax else { return nil }
        return text + 1
    }

    @inline(__always) private func matches(_ text: UnsafeRawPointer, _ step: Step) -> Bool {
        var place = 0
        while place < step.words {
            guard text.loadUnaligned(fromByteOffset: place &* 8, as: UInt64.self) == literals[unchecked: step.firstWord &+ place] else {
                return false
            }
            place &+= 1
        }
        return text.loadUnaligned(fromByteOffset: place &* 8, as: UInt64.self) & step.mask == literals[unchecked: step.firstWord &+ place]
    }

    @inline(__always) private static func take(_ value: UnsafeRawBufferPointer, _ step: Step, _ row: inout FeedRow) -> Bool {
        switch step.action {
        case .symbol, .host:
            guard value.count > 0, value.count <= RowLimits.nameBytesMax else { return false }
            if step.action == .symbol { row.symbol = value } else { row.host = value }
        case .armWhy: row.armWhy = value
        case .experiment: row.experiment = value
        case .configHash: row.configHash = value
        case .source:
            guard let source = RowSource.written(as: value) else { return false }
            row.set(step.field, source.rawValue)
        case .epoch:
            guard let epoch = FeedRow.hexadecimal(value) else { return false }
            row.set(step.field, Int64(bitPattern: epoch))
        case .skip, .integer, .fixed, .boolean, .side, .arm, .histogram: return false
        }
        return true
    }

    // MARK: Values

    /// A scalar nobody reads: a plain number, a string, or a word.
    @inline(__always) private static func skip(_ text: inout UnsafeRawPointer) -> Bool {
        let first = text.loadByte
        if first == 0x22 { return string(&text) != nil }
        if first &- 0x30 < 10 || first == 0x2d {
            if first == 0x2d { text += 1 }
            if let short = ShortDecimal(text) {
                text += short.length
                return true
            }
            guard digits(&text, mayBeginWithZero: false) else { return false }
            if text.loadByte == 0x2e {
                text += 1
                guard digits(&text, mayBeginWithZero: true) else { return false }
            }
            return true
        }
        if first == 0x6e, text.loadUnaligned(as: UInt32.self) == 0x6c6c_756e {
            text += 4
            return true
        }
        return boolean(&text) != nil
    }

    /// Goes past one digit or more.
    @inline(__always) private static func digits(_ text: inout UnsafeRawPointer, mayBeginWithZero: Bool) -> Bool {
        let begin = text
        var count = 8
        while count == 8 {
            count = DigitWord.marks(DigitWord(text.loadUnaligned(as: UInt64.self)).value).trailingZeroBitCount &>> 3
            text += count
        }
        let length = text - begin
        return length > 0 && (mayBeginWithZero || length == 1 || begin.loadByte != 0x30)
    }

    /// Which of the two it is no branch asks: nothing foretells it.
    @inline(__always) private static func boolean(_ text: inout UnsafeRawPointer) -> Int64? {
        let word = text.loadUnaligned(as: UInt64.self)
        let isTrue: UInt64 = word & 0xffff_ffff == 0x6575_7274 ? 1 : 0
        let isFalse: UInt64 = word & 0xff_ffff_ffff == 0x65_736c_6166 ? 1 : 0
        guard isTrue | isFalse != 0 else { return nil }
        text += Int(truncatingIfNeeded: 4 &+ isFalse)
        return Int64(truncatingIfNeeded: isTrue)
    }

    /// What stands between the quotes, when it is ASCII without escapes.
    @inline(__always) private static func string(_ text: inout UnsafeRawPointer) -> UnsafeRawBufferPointer? {
        guard text.loadByte == 0x22 else { return nil }
        let begin = text + 1
        var end = begin
        while true {
            let word = end.loadUnaligned(as: UInt64.self)
            let marks = JSONReader.notPlain(word) | (word & 0x8080_8080_8080_8080)
            if marks != 0 {
                end += marks.trailingZeroBitCount &>> 3
                break
            }
            end += 8
        }
        guard end.loadByte == 0x22 else { return nil }
        text = end + 1
        return UnsafeRawBufferPointer(start: begin, count: end - begin)
    }

    /// Up to 15 digits.
    @inline(__always) private static func integer(_ text: inout UnsafeRawPointer) -> Int64? {
        let isNegative = text.loadByte == 0x2d
        if isNegative { text += 1 }
        let word = DigitWord(text.loadUnaligned(as: UInt64.self))
        let count = DigitWord.marks(word.value).trailingZeroBitCount &>> 3
        guard count > 0, count == 1 || word.value & 0xff != 0 else { return nil }
        var value: UInt64
        if count < 8 {
            value = word.value(first: count)
            text += count
        } else {
            value = word.number
            let next = DigitWord(text.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            let more = DigitWord.marks(next.value).trailingZeroBitCount &>> 3
            guard more < 8 else { return nil }
            if more > 0 { value = value &* UInt64(truncatingIfNeeded: FixedPoint.powersOfTen[more]) &+ next.value(first: more) }
            text += 8 &+ more
        }
        return isNegative ? 0 &- Int64(truncatingIfNeeded: value) : Int64(truncatingIfNeeded: value)
    }

    /// A multiple of 10^-places, half to even, as `DecimalText.fixed` has it; nil for what only that can read: exponents, eight digits or more
    /// before the point, 16 or more behind it, more than 18 in all.
    @inline(__always) private func fixed(_ text: inout UnsafeRawPointer, places: Int) -> Int64? {
        let isNegative = text.loadByte == 0x2d
        if isNegative { text += 1 }
        if let short = ShortDecimal(text), short.places <= places {
            // Six digits times 10^9 fit.
            let value = Int64(truncatingIfNeeded: short.digits &* powers[unchecked: places &- short.places])
            text += short.length
            guard text.loadByte | 0x20 != 0x65 else { return nil }
            return isNegative ? 0 &- value : value
        }
        let word = DigitWord(text.loadUnaligned(as: UInt64.self))
        let whole = DigitWord.marks(word.value).trailingZeroBitCount &>> 3
        guard whole > 0, whole < 8, whole == 1 || word.value & 0xff != 0 else { return nil }
        var value = word.value(first: whole)
        text += whole
        var shift = places
        if text.loadByte == 0x2e {
            let next = DigitWord(text.loadUnaligned(fromByteOffset: 1, as: UInt64.self))
            var fraction = DigitWord.marks(next.value).trailingZeroBitCount &>> 3
            guard fraction > 0 else { return nil }
            if fraction < 8 {
                value = value &* powers[unchecked: fraction] &+ next.value(first: fraction)
            } else {
                value = value &* 100_000_000 &+ next.number
                let rest = DigitWord(text.loadUnaligned(fromByteOffset: 9, as: UInt64.self))
                let more = DigitWord.marks(rest.value).trailingZeroBitCount &>> 3
                guard more < 8, whole &+ more <= 10 else { return nil }
                if more > 0 { value = value &* powers[unchecked: more] &+ rest.value(first: more) }
                fraction = 8 &+ more
            }
            text += 1 &+ fraction
            shift &-= fraction
        }
        guard text.loadByte | 0x20 != 0x65 else { return nil }
        if shift >= 0 {
            let (product, overflowed) = value.multipliedReportingOverflow(by: powers[unchecked: shift])
            guard !overflowed, product <= UInt64(Int64.max) else { return nil }
            value = product
        } else {
            let divisor = powers[unchecked: 0 &- shift]
            let quotient = value / divisor
            let remainder = value &- quotient &* divisor
            let rest = divisor &- remainder
            value = remainder > rest || (remainder == rest && quotient & 1 == 1) ? quotient &+ 1 : quotient
        }
        return isNegative ? 0 &- Int64(truncatingIfNeeded: value) : Int64(truncatingIfNeeded: value)
    }

    /// `[[index,count],...]`, with or without a blank behind a comma.
    @inline(__always) private static func histogram(_ text: inout UnsafeRawPointer, _ row: inout FeedRow) -> Bool {
        func take(_ byte: UInt8) -> Bool {
            guard text.loadByte == byte else { return false }
            text += 1
            return true
        }
        func comma() -> Bool {
            guard take(0x2c) else { return false }
            _ = take(0x20)
            return true
        }
        guard take(0x5b) else { return false }
        if take(0x5d) { return true }
        repeat {
            guard take(0x5b), let index = integer(&text), comma(), let count = integer(&text), take(0x5d), index >= 0,
                index < LatencyBuckets.count, count >= 0, count <= RowLimits.countMax
            else { return false }
            row.histogram.append((Int32(index), count))
        } while comma()
        return take(0x5d)
    }
}

/// Digits with a point between them, all within seven bytes: read from one word, and no branch asks how many there are.
private struct ShortDecimal {
    var digits: UInt64
    var places: Int
    var length: Int

    /// Nil for any other text, whether it is a number or not. What ends the number is the caller's business.
    @inline(__always) init?(_ text: UnsafeRawPointer) {
        let word = DigitWord(text.loadUnaligned(as: UInt64.self)).value
        let marks = DigitWord.marks(word)
        let point = marks.trailingZeroBitCount &>> 3
        let end = (marks & (marks &- 1)).trailingZeroBitCount &>> 3
        // A zero only begins a number when it is alone before the point; end is 8 when there is no second mark.
        guard point > 0, end > point &+ 1, end < 8, (word &>> UInt64(truncatingIfNeeded: point &* 8)) & 0xff == 0x2e ^ 0x30,
            (word & 0xff) | (marks & 0x8000) != 0
        else { return nil }
        // The point is taken out: what stands behind it moves up.
        let before = (marks & (0 &- marks)) &>> 7 &- 1
        let joined = word & before | (word &>> 8) & ~before
        digits = DigitWord.eight(joined &<< UInt64(truncatingIfNeeded: 72 &- 8 &* end))
        places = end &- point &- 1
        length = end
    }
}

extension UnsafeRawPointer {
    @inline(__always) fileprivate var loadByte: UInt8 { load(as: UInt8.self) }
}

extension UnsafeMutableBufferPointer {
    @inline(__always) fileprivate subscript(unchecked index: Int) -> Element { baseAddress.unsafelyUnwrapped[index] }
}
