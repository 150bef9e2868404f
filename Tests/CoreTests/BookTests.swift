import CalibModel
import TestSupport
import Testing

/// The book against a dictionary, under random updates near and far from the touch.
@Suite struct BookTests {
    @Test(arguments: [Side.buy, .sell]) func sideEqualsADictionary(side: Side) {
        var random = SeededRandom(seed: side == .buy ? 1 : 2)
        var book = BookSide(side)
        var oracle: [Int64: Int64] = [:]
        for step in 0..<20_000 {
            let isFar = random.next(below: 10) == 0
            let price = 10_000 + Int64(random.next(below: isFar ? 9_000 : 60)) - (isFar ? 4_500 : 30)
            let quantity = random.next(below: 3) == 0 ? 0 : Int64(random.next(below: 1000)) + 1
            book.set(price: price, quantity: quantity)
            oracle[price] = quantity == 0 ? nil : quantity
            guard step.isMultiple(of: 97) else { continue }
            let sorted = oracle.sorted { side == .buy ? $0.key > $1.key : $0.key < $1.key }
            #expect(book.count == sorted.count)
            for (rank, level) in sorted.enumerated() {
                #expect(book.level(rank)?.price == level.key && book.level(rank)?.quantity == level.value)
                #expect(book.rank(of: level.key) == rank)
            }
            #expect(book.quantity(at: price) == oracle[price] ?? 0)
        }
        #expect(book.level(book.count) == nil && book.level(-1) == nil)
    }

    /// The touch wanders and jumps by up to many windows, levels lie anywhere between it and a million ticks away, whole stretches vanish at
    /// once, and a small capacity forgets: after each step the side answers what sorting a dictionary answers. Changes come one by one, or many in
    /// one event.
    @Test(arguments: [Side.buy, .sell], [200, 3_000, 16_384]) func sideEqualsADictionary_acrossItsWindow(side: Side, capacity: Int) {
        var random = SeededRandom(seed: UInt64(capacity) + (side == .buy ? 1 : 2))
        var book = BookSide(side, capacity: capacity)
        var oracle: [Int64: Int64] = [:]
        var forgotten = 0
        var touch: Int64 = 5_000_000
        /// Behind the touch on its own side.
        func price(_ distance: Int) -> Int64 { touch - side.sign * Int64(distance) }
        var event: [BookLevel] = []
        func apply() {
            event.withUnsafeBufferPointer { book.set($0) }
            event = []
        }
        func set(_ price: Int64, _ quantity: Int64) {
            if random.next(below: 40) == 0 {
                apply()
                book.set(price: price, quantity: quantity)
            } else {
                event.append(BookLevel(price: price, quantity: quantity))
            }
            oracle[price] = quantity == 0 ? nil : quantity
            guard oracle.count > capacity else { return }
            oracle[side == .buy ? oracle.keys.min()! : oracle.keys.max()!] = nil
            forgotten += 1
        }
        for step in 0..<6_000 {
            switch random.next(below: 1000) {
            case 0: touch += Int64(random.next(below: 200_000)) - 100_000
            case 1..<10: touch += Int64(random.next(below: 8_000)) - 4_000
            case 10:
                // Everything better than some price is eaten.
                let limit = price(random.next(below: 20_000))
                for gone in oracle.keys.filter({ ($0 - limit) * side.sign > 0 }).sorted() { set(gone, 0) }
            case 11: for gone in oracle.keys.sorted().prefix(random.next(below: 100)) { set(gone, 0) }
            case 12:
                apply()
                book.removeAll()
                oracle = [:]
            case 13..<300: set(price(random.next(below: 1_000_000)), random.next(below: 4) == 0 ? 0 : 7)
            case 300..<500: set(price(random.next(below: 20_000)), random.next(below: 4) == 0 ? 0 : 8)
            case 500..<600: if let known = oracle.keys.min() { set(known + Int64(random.next(below: 3)), Int64(random.next(below: 2))) }
            default: set(price(random.next(below: 100)), random.next(below: 3) == 0 ? 0 : Int64(random.next(below: 1000)) + 1)
            }
            guard step.isMultiple(of: 25) else { continue }
            apply()
            let probe = price(random.next(below: 30_000))
            #expect(book.quantity(at: probe) == oracle[probe] ?? 0)
            let sorted = oracle.sorted { side == .buy ? $0.key > $1.key : $0.key < $1.key }
            #expect(book.count == sorted.count && book.forgottenLevels == forgotten)
            #expect(book.top == sorted.first.map { BookLevel(price: $0.key, quantity: $0.value) })
            #expect(sorted.indices.allSatisfy { book.level($0)?.price == sorted[$0].key && book.level($0)?.quantity == sorted[$0].value })
            #expect(book.level(sorted.count) == nil)
            #expect(sorted.indices.allSatisfy { book.rank(of: sorted[$0].key) == $0 })
            #expect(book.rank(of: probe) == sorted.count { ($0.key - probe) * side.sign > 0 })
            let behind = sorted.filter { ($0.key - probe) * side.sign < 0 }.prefix(5)
            let limit = price(random.next(below: 30_000))
            let volume = book.volume(levels: 5, worseThan: probe, betterThan: limit)
            #expect(volume.total == behind.reduce(0) { $0 + $1.value })
            #expect(volume.better == behind.reduce(0) { ($1.key - limit) * side.sign > 0 ? $0 + $1.value : $0 })
            var near: [BookLevel] = .init(repeating: BookLevel(price: 0, quantity: 0), count: 5)
            let found = near.withUnsafeMutableBufferPointer { book.read(levels: 5, worseThan: probe, into: $0.baseAddress!) }
            #expect(near.prefix(found).elementsEqual(behind.map { BookLevel(price: $0.key, quantity: $0.value) }))
            let first = near.withUnsafeMutableBufferPointer { book.read(levels: 5, worseThan: nil, into: $0.baseAddress!) }
            #expect(near.prefix(first).elementsEqual(sorted.prefix(5).map { BookLevel(price: $0.key, quantity: $0.value) }))
            let best = book.volume(levels: 40, worseThan: nil, betterThan: nil)
            #expect(best.total == sorted.prefix(40).reduce(0) { $0 + $1.value } && best.better == 0)
        }
        #expect(capacity > 200 || forgotten > 100)
    }

    /// Depth events, tickers and their end in any order: what is kept of the best levels is what a walk over the book finds.
    @Test func bestLevelsAreThoseOfTheBook_whateverChangedLast() {
        var random = SeededRandom(seed: 3)
        var book = Book()
        var id: Int64 = 0
        for step in 0..<20_000 {
            let now = Instant(nanoseconds: Int64(step))
            let touch = 1_000 + Int64(random.next(below: 3))
            func quantity() -> Int64 { Int64(random.next(below: 4)) }
            switch random.next(below: 10) {
            case 0..<3:
                let changes = (0..<random.next(below: 4)).map { _ in
                    BookLevel(price: touch - Int64(random.next(below: 8)), quantity: quantity())
                }
                changes.withUnsafeBufferPointer { book.bids.set($0) }
                book.asks.set(price: touch + 1 + Int64(random.next(below: 8)), quantity: quantity())
                id += Int64(random.next(below: 3))
                book.applied(depthID: id, at: now)
            case 3: _ = book.expireTicker(olderThan: 5, at: now)
            case 4 where step.isMultiple(of: 50): book.removeAll()
            default:
                id += 1
                let top = TopOfBook(bidPrice: touch, bidQuantity: 1 + quantity(), askPrice: touch + 1, askQuantity: 1 + quantity())
                _ = book.merge(top, id: id, at: now)
            }
            for side in [Side.buy, .sell] {
                let best = book.best(side)
                #expect(best.total == book.volume(side, levels: 5).total && best.topThree == book.volume(side, levels: 3).total)
                let price = touch + Int64(random.next(below: 7)) - 3
                #expect(best.topThree(betterThan: price) == book.volume(side, levels: 3, betterThan: price).better)
                #expect(best.quantity(at: price) == nil || best.quantity(at: price) == book.quantity(side, at: price))
            }
        }
    }

    @Test func aFullSideForgetsTheFarthestLevel() {
        var book = BookSide(.buy, capacity: 3)
        for price in [Int64(10), 11, 12, 13] { book.set(price: price, quantity: 1) }
        #expect(book.count == 3 && book.forgottenLevels == 1 && book.quantity(at: 10) == 0 && book.level(0)?.price == 13)
        book.set(price: 5, quantity: 1)
        #expect(book.count == 3 && book.quantity(at: 5) == 0 && book.forgottenLevels == 2)
    }

    @Test func aNewerTickerReplacesTheTop_untilTheDepthCatchesUp() {
        var book = Book()
        for (price, quantity) in [(Int64(100), Int64(5)), (99, 7), (98, 9)] { book.bids.set(price: price, quantity: quantity) }
        for (price, quantity) in [(Int64(101), Int64(4)), (102, 6)] { book.asks.set(price: price, quantity: quantity) }
        book.applied(depthID: 10, at: Instant(nanoseconds: 0))
        let same = book.merge(TopOfBook(bidPrice: 90, bidQuantity: 1, askPrice: 91, askQuantity: 1), id: 10, at: Instant(nanoseconds: 0))
        #expect(!same, "the same id says nothing new")

        // The bid at 100 was eaten, the ask at 101 too.
        let newer = book.merge(TopOfBook(bidPrice: 99, bidQuantity: 6, askPrice: 102, askQuantity: 2), id: 12, at: Instant(nanoseconds: 0))
        #expect(newer)
        #expect(book.top == TopOfBook(bidPrice: 99, bidQuantity: 6, askPrice: 102, askQuantity: 2))
        #expect(book.quantity(.buy, at: 100) == 0 && book.quantity(.buy, at: 99) == 6 && book.quantity(.buy, at: 98) == 9)
        #expect(book.volume(.buy, levels: 5).total == 15)
        #expect(book.volume(.buy, levels: 3, betterThan: 98) == (15, 6))
        #expect(book.volume(.sell, levels: 3, betterThan: 103) == (2, 2))
        let (bids, asks) = (book.best(.buy), book.best(.sell))
        #expect(bids.total == 15 && bids.topThree == 15 && bids.topThree(betterThan: 98) == 6)
        #expect(asks.total == 2 && asks.topThree(betterThan: 103) == 2 && asks.topThree(betterThan: 102) == 0)
        #expect(bids.quantity(at: 100) == 0 && bids.quantity(at: 99) == 6 && bids.quantity(at: 98) == 9 && bids.quantity(at: 97) == nil)
        let older = book.merge(TopOfBook(bidPrice: 100, bidQuantity: 1, askPrice: 101, askQuantity: 1), id: 11, at: Instant(nanoseconds: 0))
        #expect(!older, "older than the last ticker")

        book.bids.set(price: 100, quantity: 0)
        book.applied(depthID: 12, at: Instant(nanoseconds: 0))
        #expect(book.top == book.depthTop)
    }
}

/// A ticker whose id no depth event ever reaches must not hide the book for ever.
@Suite struct TickerExpiryTests {
    @Test func aTickerThatDepthDoesNotReachIsForgotten() {
        var book = Book()
        book.bids.set(price: 100, quantity: 5)
        book.asks.set(price: 101, quantity: 5)
        book.applied(depthID: 10, at: Instant(nanoseconds: 0))
        let wrong = TopOfBook(bidPrice: 90, bidQuantity: 1, askPrice: 91, askQuantity: 1)
        let merged = book.merge(wrong, id: .max, at: Instant(nanoseconds: 5))
        #expect(merged)
        book.applied(depthID: 11, at: Instant(nanoseconds: 0))
        #expect(book.top?.bidPrice == 90)
        let early = book.expireTicker(olderThan: 1_000, at: Instant(nanoseconds: 1_005))
        let late = book.expireTicker(olderThan: 1_000, at: Instant(nanoseconds: 1_006))
        #expect(!early && late && book.top?.bidPrice == 100)
        let next = book.merge(wrong, id: 12, at: Instant(nanoseconds: 1_007))
        #expect(next)
    }
}
