/// One side of an order book: prices in ticks to quantities in lots.
///
/// Nine of ten updates are within a few thousand ticks of the touch, so there the price is the index: a window of quantities, and a bit per
/// tick that tells which of them are levels. What is farther away is in `far`. An ask's key is its negated price, so that "best" is the highest
/// key on both sides.
///
/// Invariants:
/// 1. The window holds exactly the levels with `base <= key < base + windowTicks`, at `key` modulo its length, so that moving it moves no memory;
///    every other level is below it, in `far`.
/// 2. `best` is the highest key, and it is in the window; `.min` when the side is empty.
/// 3. A tick of the window without a level has quantity 0 and a clear bit.
struct LevelWindow: ~Copyable {
    let side: Side
    private(set) var count = 0
    /// Rises whenever levels may have changed.
    private(set) var version = 0
    /// Levels forgotten because the side was full.
    private(set) var forgottenLevels = 0
    private static let windowTicks = Int64(Limits.bookWindowTicks)
    private static let tickMask = Limits.bookWindowTicks - 1
    private static let wordMask = Limits.bookWindowTicks / 64 - 1
    private let quantities: UnsafeMutablePointer<Int64>
    private let words: UnsafeMutablePointer<UInt64>
    /// A multiple of 64.
    private var base: Int64 = 0
    private var best = Int64.min
    private var far: FarLevels
    private let capacity: Int

    init(_ side: Side, capacity: Int = Limits.bookLevelsMax) {
        self.side = side
        self.capacity = capacity
        quantities = .allocate(capacity: Limits.bookWindowTicks)
        quantities.initialize(repeating: 0, count: Limits.bookWindowTicks)
        words = .allocate(capacity: Limits.bookWindowTicks / 64)
        words.initialize(repeating: 0, count: Limits.bookWindowTicks / 64)
        far = FarLevels(capacity: capacity + 1)
    }

    deinit {
        quantities.deallocate()
        words.deallocate()
    }

    mutating func removeAll() {
        version &+= 1
        quantities.update(repeating: 0, count: Limits.bookWindowTicks)
        words.update(repeating: 0, count: Limits.bookWindowTicks / 64)
        far.removeAll()
        count = 0
        best = .min
    }

    /// Sets the absolute quantity at a price; 0 removes the level. Removing an absent level is normal on Binance.
    mutating func set(price: Int64, quantity: Int64) {
        version &+= 1
        set(key: side.sign &* price, quantity)
    }

    /// Sets each of the levels in turn.
    mutating func set(_ levels: UnsafeBufferPointer<BookLevel>) {
        guard let first = levels.baseAddress else { return }
        version &+= 1
        let sign = side.sign
        let (quantities, words) = (quantities, words)
        var index = 0
        while index < levels.count {
            // Most levels are in the window and behind the touch: there only these change, and they stay in registers.
            let (base, best) = (base, best)
            var count = count
            while index < levels.count {
                let key = sign &* first[index].price
                guard key < best, key >= base, count < capacity else { break }
                count &+= Self.set(key, first[index].quantity, quantities, words)
                index &+= 1
            }
            self.count = count
            guard index < levels.count else { break }
            set(key: sign &* first[index].price, first[index].quantity)
            index &+= 1
        }
    }

    /// Quantity at the price; 0 when there is no such level.
    func quantity(at price: Int64) -> Int64 {
        let key = side.sign &* price
        if isInWindow(key) { return quantities[slot(key)] }
        return key < base ? far.quantity(of: key) : 0
    }

    /// The best level; nil when the side is empty.
    var top: BookLevel? {
        count > 0 ? BookLevel(price: side.sign &* best, quantity: quantities[slot(best)]) : nil
    }

    /// The n-th best level, 0 being the touch.
    func level(_ rank: Int) -> (price: Int64, quantity: Int64)? {
        guard rank >= 0, rank < count else { return nil }
        var left = rank
        var row = best >> 6
        while row >= base >> 6 {
            var word = words[Int(truncatingIfNeeded: row) & Self.wordMask]
            if left < word.nonzeroBitCount {
                for _ in 0..<left { word &= ~(1 << UInt64(63 - word.leadingZeroBitCount)) }
                let key = row << 6 | Int64(63 - word.leadingZeroBitCount)
                return (side.sign &* key, quantities[slot(key)])
            }
            left -= word.nonzeroBitCount
            row -= 1
        }
        return far.level(left).map { (side.sign &* $0.key, $0.quantity) }
    }

    /// How many levels are strictly better than the price: the rank a level there has or would have.
    func rank(of price: Int64) -> Int {
        let key = side.sign &* price
        guard count > 0, key < best else { return 0 }
        var result = 0
        var row = best >> 6
        let last = max(key &+ 1, base)
        while row >= last >> 6 {
            var word = words[Int(truncatingIfNeeded: row) & Self.wordMask]
            if row == last >> 6 { word &= ~0 << UInt64(last & 63) }
            result += word.nonzeroBitCount
            row -= 1
        }
        return key < base ? result + far.count(above: key) : result
    }

    /// Total quantity of at most so many levels worse than a price (the best ones when nil), and how much of it is strictly better than another
    /// price (0 when nil).
    func volume(levels: Int, worseThan start: Int64?, betterThan price: Int64?) -> (total: Int64, better: Int64) {
        var total: Int64 = 0
        var better: Int64 = 0
        let limit = price.map { side.sign &* $0 } ?? .max
        var key = start.map { side.sign &* $0 } ?? .max
        for _ in 0..<max(0, levels) {
            let quantity: Int64
            let near = nearKey(below: key)
            if near > .min {
                key = near
                quantity = quantities[slot(near)]
            } else if let level = far.next(below: key) {
                key = level.key
                quantity = level.quantity
            } else {
                break
            }
            total &+= quantity
            if key > limit { better &+= quantity }
        }
        return (total, better)
    }

    /// Writes at most so many levels worse than a price (the best ones when nil), best first, and returns how many there were.
    func read(levels: Int, worseThan start: Int64?, into target: UnsafeMutablePointer<BookLevel>) -> Int {
        guard count > 0, levels > 0 else { return 0 }
        var found = 0
        var key = best
        if let start { key = min(key, side.sign &* start &- 1) }
        if key >= base {
            let last = base >> 6
            var row = key >> 6
            var word = words[Int(truncatingIfNeeded: row) & Self.wordMask] & (~0 >> UInt64(63 &- (key & 63)))
            while true {
                while word != 0 {
                    let bit = 63 &- word.leadingZeroBitCount
                    word ^= 1 &<< UInt64(truncatingIfNeeded: bit)
                    key = row &<< 6 | Int64(truncatingIfNeeded: bit)
                    target[found] = BookLevel(price: side.sign &* key, quantity: quantities[slot(key)])
                    found &+= 1
                    if found == levels { return found }
                }
                row &-= 1
                guard row >= last else { break }
                word = words[Int(truncatingIfNeeded: row) & Self.wordMask]
            }
            key = base
        } else {
            key &+= 1
        }
        while found < levels, let level = far.next(below: key) {
            target[found] = BookLevel(price: side.sign &* level.key, quantity: level.quantity)
            found &+= 1
            key = level.key
        }
        return found
    }

    // MARK: Window

    private func isInWindow(_ key: Int64) -> Bool {
        UInt64(bitPattern: key &- base) < UInt64(Self.windowTicks)
    }

    private func slot(_ key: Int64) -> Int { Int(truncatingIfNeeded: key) & Self.tickMask }

    /// The highest level of the window below the key; `.min` when there is none.
    private func nearKey(below key: Int64) -> Int64 {
        guard best < key else { return nearKey(atOrBelow: key &- 1) }
        return best
    }

    private func nearKey(atOrBelow key: Int64) -> Int64 {
        guard key >= base else { return .min }
        var row = key >> 6
        var word = words[Int(truncatingIfNeeded: row) & Self.wordMask] & (~0 >> UInt64(63 &- (key & 63)))
        let last = base >> 6
        while word == 0 {
            row &-= 1
            guard row >= last else { return .min }
            word = words[Int(truncatingIfNeeded: row) & Self.wordMask]
        }
        return row << 6 | Int64(63 &- word.leadingZeroBitCount)
    }

    private mutating func set(key: Int64, _ quantity: Int64) {
        guard isInWindow(key), count > 0 else { return setOutside(key: key, quantity) }
        let change = Self.set(key, quantity, quantities, words)
        count &+= change
        if key >= best {
            if quantity > 0 { best = key } else if change < 0 { bestIsGone() }
        }
        forgetFarthest()
    }

    /// Writes a level of the window. A level comes, changes or goes, in no order that a processor could guess: no branch tells them apart.
    /// Returns by how many there are more.
    @inline(__always) private static func set(
        _ key: Int64, _ quantity: Int64, _ quantities: UnsafeMutablePointer<Int64>, _ words: UnsafeMutablePointer<UInt64>
    ) -> Int {
        let row = Int(truncatingIfNeeded: key &>> 6) & wordMask
        let place = UInt64(truncatingIfNeeded: key & 63)
        let word = words[row]
        let had = word &>> place & 1
        let has: UInt64 = quantity > 0 ? 1 : 0
        quantities[Int(truncatingIfNeeded: key) & tickMask] = max(0, quantity)
        words[row] = word ^ (had ^ has) &<< place
        return Int(truncatingIfNeeded: has) &- Int(truncatingIfNeeded: had)
    }

    private mutating func setOutside(key: Int64, _ quantity: Int64) {
        if count > 0, key < base {
            let before = far.count
            far.set(key, quantity)
            count &+= far.count &- before
            forgetFarthest()
        } else if quantity > 0 {
            // Above the window, or the first level of all.
            let isFirst = count == 0
            moveWindow(to: key)
            let row = Int(truncatingIfNeeded: key >> 6) & Self.wordMask
            quantities[slot(key)] = quantity
            words[row] |= 1 << UInt64(key & 63)
            best = isFirst ? key : max(best, key)
            count &+= 1
            forgetFarthest()
        }
    }

    /// After one level more: the farthest one is forgotten when that is one too many.
    private mutating func forgetFarthest() {
        guard count > capacity else { return }
        forgottenLevels += 1
        count -= 1
        if far.count > 0 {
            far.removeFirst()
        } else {
            var key = base
            while quantities[slot(key)] == 0 { key += 1 }
            quantities[slot(key)] = 0
            words[Int(truncatingIfNeeded: key >> 6) & Self.wordMask] &= ~(1 << UInt64(key & 63))
            if key == best { bestIsGone() }
        }
    }

    private mutating func bestIsGone() {
        best = nearKey(atOrBelow: best)
        guard count > 0 else { return }
        if best == .min {
            moveWindow(to: far.last.key)
            best = nearKey(atOrBelow: base &+ Self.windowTicks &- 1)
        } else if best < base &+ Self.windowTicks / 4 {
            moveWindow(to: best)
        }
    }

    /// Lets the window lie around a key: three quarters of it behind, one quarter ahead. The best may stand a while before the window moves again.
    private mutating func moveWindow(to key: Int64) {
        let target = (key &- Self.windowTicks / 4 &* 3) & ~63
        if count > 0 {
            evict(below: min(target, base &+ Self.windowTicks))
            base = target
            while far.count > 0, far.last.key >= base {
                let (key, quantity) = far.last
                far.removeLast()
                quantities[slot(key)] = quantity
                words[Int(truncatingIfNeeded: key >> 6) & Self.wordMask] |= 1 << UInt64(key & 63)
            }
        } else {
            base = target
        }
    }

    /// Hands the window's lowest levels over, in ascending order.
    private mutating func evict(below end: Int64) {
        var start = base
        while start < end {
            let row = Int(truncatingIfNeeded: start >> 6) & Self.wordMask
            var word = words[row]
            words[row] = 0
            while word != 0 {
                let key = start | Int64(word.trailingZeroBitCount)
                word &= word - 1
                far.append(key, quantities[slot(key)])
                quantities[slot(key)] = 0
            }
            start += 64
        }
    }
}
