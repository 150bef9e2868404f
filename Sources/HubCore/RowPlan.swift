import CalibModel
import Wire

/// The form of a writer's rows, learned from one of them: what stands between the values, and which value comes where.
///
/// A writer prints every row of a feed alike: the same keys in the same order with the same blanks. The next row is compared with that
/// 24 bytes at a time, and only its values are parsed. Whatever surprises, be it a key in another place, an escape, a character beyond ASCII,
/// a number of many digits, a value that is not allowed or a torn line, makes `read` give up; then `FeedScanner` reads the row from its beginning,
/// and its verdict is the only one. So a plan has nothing to say about what a bad row is, and cannot disagree.
///
/// What a plan never checks again was checked in the row it was learned from: keys are UTF-8, differ, and their nesting is bounded.
///
/// Invariant: nothing depends on bytes behind the row's newline. Nothing expected contains a newline, nor does any value go on behind one, so what is
/// loaded together with it is loaded last. That is up to 24 bytes: `overrun` allows for those behind the newline.
struct RowPlan {
    private enum Action: UInt8 {
        /// A value nobody reads: of any kind, or mostly a number or a text.
        case skip, skipNumber, skipText
        case integer, fixed, boolean, symbol, host, armWhy, experiment, configHash, side, arm, source, epoch, histogram
        /// Of the row.
        case end
    }

    private struct Step {
        /// The text before the value: eight bytes at its beginning, at `second` and at `third`. They overlap where it has less than 24; of less than eight
        /// the mask hides what follows. More than 24 go on at `further` in `literals`.
        var words: (UInt64, UInt64, UInt64) = (0, 0, 0)
        var mask: UInt64 = .max
        /// Of numbers.
        var least: Int64 = 0
        var greatest: Int64 = 0
        /// Of texts nobody reads: how the last one of at least 16 bytes began. At first sixteen zeros, which are as plain.
        var beginning: (UInt64, UInt64) = (0x3030_3030_3030_3030, 0x3030_3030_3030_3030)
        var second: UInt8 = 0
        var third: UInt8 = 0
        var length: UInt16 = 0
        var further: UInt16 = 0
        var action = Action.skip
        var isNullable = true
        var field: UInt8 = 0
        var places: UInt8 = 0
    }

    private let feed: Feed
    private let steps: UnsafeMutableBufferPointer<Step>
    private let literals: UnsafeMutableBufferPointer<UInt64>
    private let powers: UnsafeMutableBufferPointer<UInt64>

    /// `read` loads no byte further behind the row's newline than this: those of a text of 24 that would begin at it.
    static let overrun = 23
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
            guard text.count <= RowPlan.literalBytesMax, literals.count < Int(UInt16.max) - RowPlan.literalBytesMax else { return nil }
            /// Eight bytes, or those that are left.
            func word(at place: Int) -> UInt64 {
                text.dropFirst(place).prefix(8).enumerated().reduce(0) { $0 | UInt64($1.element) << UInt64(8 * $1.offset) }
            }
            let last = max(0, text.count - 8)
            let (second, third) = (min(8, last), min(16, last))
            var step = Step()
            step.words = (word(at: 0), word(at: second), word(at: third))
            if text.count < 8 { step.mask = (1 << UInt64(8 * text.count)) - 1 }
            step.second = UInt8(second)
            step.third = UInt8(third)
            step.length = UInt16(text.count)
            step.further = UInt16(literals.count)
            for place in stride(from: 24, to: text.count, by: 8) { literals.append(word(at: min(place, last))) }
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
        guard var last = draft.literal(line, to: line.count) else { return nil }
        last.action = .end
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
                step.field = UInt8(field.field.rawValue)
                step.least = field.range.lowerBound
                step.greatest = field.range.upperBound
                switch field.kind {
                case .integer: step.action = .integer
                case .fixed(let places):
                    step.action = .fixed
                    step.places = UInt8(places)
                case .boolean: step.action = .boolean
                case .text(let text): step.action = action(text)
                case .group: return false
                case .histogram: step.action = .histogram
                }
            } else if kind == .number {
                step.action = .skipNumber
            } else if kind == .string {
                step.action = .skipText
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
        var step = steps.baseAddress.unsafelyUnwrapped
        var known: UInt64 = 0
        @inline(__always) func set(_ value: Int64) {
            let field = Int(truncatingIfNeeded: step.pointee.field)
            row.values[unchecked: field] = value
            known |= 1 &<< UInt64(truncatingIfNeeded: field)
        }
        @inline(__always) func isInRange(_ value: Int64) -> Bool { value >= step.pointee.least && value <= step.pointee.greatest }
        while true {
            guard matches(text, step) else { return nil }
            text += Int(truncatingIfNeeded: step.pointee.length)
            value: do {
                switch step.pointee.action {
                case .end:
                    row.known |= known
                    if text.loadByte == 0x0d { text += 1 }
                    guard text.loadByte == 0x0a, text - start <= RowLimits.lineBytesMax else { return nil }
                    return text + 1
                case .skip:
                    guard let end = Self.skip(text) else { return nil }
                    text = end
                case .skipNumber:
                    if let short = ShortDecimal(text) {
                        text += short.length
                    } else {
                        guard let end = Self.skip(text) else { return nil }
                        text = end
                    }
                case .skipText:
                    guard let end = Self.skipText(text, step) else { return nil }
                    text = end
                case .integer:
                    var end = text
                    guard let value = Self.integer(&end), isInRange(value) else { break value }
                    text = end
                    set(value)
                case .fixed:
                    let places = Int(truncatingIfNeeded: step.pointee.places)
                    let value: Int64
                    if let short = ShortDecimal(text), short.places <= places, (text + short.length).loadByte | 0x20 != 0x65 {
                        // Seven digits times 10^9 fit.
                        value = Int64(truncatingIfNeeded: short.digits &* powers[unchecked: places &- short.places])
                        text += short.length
                    } else {
                        var end = text
                        guard let long = fixed(&end, places: places) else { break value }
                        value = long
                        text = end
                    }
                    guard isInRange(value) else { return nil }
                    set(value)
                case .boolean:
                    guard let value = Self.boolean(&text) else { break value }
                    set(value)
                case .histogram:
                    guard let end = Self.histogram(text, &row) else { break value }
                    text = end
                case .side:
                    let word = text.loadUnaligned(as: UInt64.self)
                    if word & 0xff_ffff_ffff == 0x22_5955_4222 {
                        set(1)
                        text += 5
                    } else if word & 0xffff_ffff_ffff == 0x224c_4c45_5322 {
                        set(-1)
                        text += 6
                    } else {
                        break value
                    }
                case .arm:
                    switch text.loadUnaligned(as: UInt32.self) & 0xff_ffff {
                    case 0x22_4122: set(0)
                    case 0x22_4222: set(1)
                    default: break value
                    }
                    text += 3
                case .symbol, .host, .armWhy, .experiment, .configHash, .source, .epoch:
                    guard let value = Self.string(text), Self.take(value, step.pointee, &row) else { break value }
                    text += value.count &+ 2
                }
                step += 1
                continue
            }
            // Not what it mostly is: null, or a surprise.
            guard step.pointee.isNullable, text.loadUnaligned(as: UInt32.self) == 0x6c6c_756e else { return nil }
            text += 4
            step += 1
        }
    }

    @inline(__always) private func matches(_ text: UnsafeRawPointer, _ step: UnsafeMutablePointer<Step>) -> Bool {
        // One branch for nearly every text there is, and no load waits for another.
        let first = text.loadUnaligned(as: UInt64.self) ^ step.pointee.words.0
        let second =
            text.loadUnaligned(fromByteOffset: Int(truncatingIfNeeded: step.pointee.second), as: UInt64.self) ^ step.pointee.words.1
        let third = text.loadUnaligned(fromByteOffset: Int(truncatingIfNeeded: step.pointee.third), as: UInt64.self) ^ step.pointee.words.2
        guard (first | second | third) & step.pointee.mask == 0 else { return false }
        return step.pointee.length <= 24 || matchesFurther(text, step.pointee)
    }

    /// Behind the first 24 bytes, which are as expected.
    private func matchesFurther(_ text: UnsafeRawPointer, _ step: Step) -> Bool {
        let length = Int(step.length)
        var literal = Int(step.further)
        var place = 24
        while place < length {
            guard text.loadUnaligned(fromByteOffset: min(place, length - 8), as: UInt64.self) == literals[unchecked: literal] else {
                return false
            }
            literal += 1
            place += 8
        }
        return true
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
            row.set(Int(step.field), source.rawValue)
        case .epoch:
            guard let epoch = FeedRow.hexadecimal(value) else { return false }
            row.set(Int(step.field), Int64(bitPattern: epoch))
        case .skip, .skipNumber, .skipText, .integer, .fixed, .boolean, .side, .arm, .histogram, .end: return false
        }
        return true
    }

    // MARK: Values

    /// Behind a scalar nobody reads: a plain number, a string, or a word. Not inlined, as it is seldom needed: what it keeps in registers would else be
    /// made ready for every number.
    @inline(never) private static func skip(_ begin: UnsafeRawPointer) -> UnsafeRawPointer? {
        var text = begin
        let first = text.loadByte
        if first == 0x22 { return endOfPlain(text + 1).map { $0 + 1 } }
        if first &- 0x30 < 10 || first == 0x2d {
            if first == 0x2d {
                text += 1
                if let short = ShortDecimal(text) { return text + short.length }
            }
            guard digits(&text, mayBeginWithZero: false) else { return nil }
            if text.loadByte == 0x2e {
                text += 1
                guard digits(&text, mayBeginWithZero: true) else { return nil }
            }
            return text
        }
        if first == 0x6e { return text.loadUnaligned(as: UInt32.self) == 0x6c6c_756e ? text + 4 : nil }
        return boolean(&text) == nil ? nil : text
    }

    /// Behind a text nobody reads. Time-stamps in words begin alike for a minute: what the last text began with need not be looked at again.
    @inline(__always) private static func skipText(_ text: UnsafeRawPointer, _ step: UnsafeMutablePointer<Step>) -> UnsafeRawPointer? {
        guard text.loadByte == 0x22 else { return skip(text) }
        let begin = text + 1
        if begin.loadUnaligned(as: UInt64.self) == step.pointee.beginning.0,
            begin.loadUnaligned(fromByteOffset: 8, as: UInt64.self) == step.pointee.beginning.1
        {
            return endOfPlain(begin + 16).map { $0 + 1 }
        }
        guard let end = endOfPlain(begin) else { return nil }
        if end - begin >= 16 {
            step.pointee.beginning = (
                begin.loadUnaligned(as: UInt64.self), begin.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
            )
        }
        return end + 1
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

    /// Which of the two it is no branch asks: nothing foretells it. Of their first letters only that of `true` has the bit of 16.
    @inline(__always) private static func boolean(_ text: inout UnsafeRawPointer) -> Int64? {
        let word = text.loadUnaligned(as: UInt64.self)
        let isTrue = word &>> 4 & 1
        let expected: UInt64 = 0x65_736c_6166 ^ ((0 &- isTrue) & (0x65_736c_6166 ^ 0x6575_7274))
        guard word & (0xff_ffff_ffff &>> (isTrue &* 8)) == expected else { return nil }
        text += Int(truncatingIfNeeded: 5 &- isTrue)
        return Int64(truncatingIfNeeded: isTrue)
    }

    /// What stands between the quotes, when it is ASCII without escapes.
    @inline(__always) private static func string(_ text: UnsafeRawPointer) -> UnsafeRawBufferPointer? {
        guard text.loadByte == 0x22, let end = endOfPlain(text + 1) else { return nil }
        return UnsafeRawBufferPointer(start: text + 1, count: end - text - 1)
    }

    /// The quote that ends a text of ASCII without escapes.
    @inline(__always) private static func endOfPlain(_ begin: UnsafeRawPointer) -> UnsafeRawPointer? {
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
        return end.loadByte == 0x22 ? end : nil
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
    @inline(never) private func fixed(_ text: inout UnsafeRawPointer, places: Int) -> Int64? {
        let isNegative = text.loadByte == 0x2d
        if isNegative { text += 1 }
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

    /// Behind `[[index,count],...]`, with or without a blank behind a comma.
    @inline(never) private static func histogram(_ begin: UnsafeRawPointer, _ row: inout FeedRow) -> UnsafeRawPointer? {
        var text = begin
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
        guard take(0x5b) else { return nil }
        if take(0x5d) { return text }
        repeat {
            guard take(0x5b), let index = integer(&text), comma(), let count = integer(&text), take(0x5d), index >= 0,
                index < LatencyBuckets.count, count >= 0, count <= RowLimits.countMax
            else { return nil }
            row.histogram.append((Int32(index), count))
        } while comma()
        return take(0x5d) ? text : nil
    }
}

/// Digits, or digits with a point between them, all within seven bytes: read from one word, and no branch asks how many there are.
private struct ShortDecimal {
    var digits: UInt64
    var places: Int
    var length: Int

    /// Nil for any other text, whether it is a number or not. What ends the number is the caller's business.
    @inline(__always) init?(_ text: UnsafeRawPointer) {
        let word = DigitWord(text.loadUnaligned(as: UInt64.self)).value
        let marks = DigitWord.marks(word)
        let point = marks.trailingZeroBitCount &>> 3
        // A zero only begins a number when it stands alone before the point.
        guard point > 0, point < 8, (word & 0xff) | (marks & 0x8000) != 0 else { return nil }
        guard (word &>> UInt64(truncatingIfNeeded: point &* 8)) & 0xff == 0x2e ^ 0x30 else {
            digits = DigitWord.eight(word &<< UInt64(truncatingIfNeeded: 64 &- 8 &* point))
            places = 0
            length = point
            return
        }
        // 8 when there is no second mark.
        let end = (marks & (marks &- 1)).trailingZeroBitCount &>> 3
        guard end > point &+ 1, end < 8 else { return nil }
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
