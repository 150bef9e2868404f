import CalibModel
import TestSupport
import Testing

@testable import EdgeCore

/// Never a fill without a trade at or through our price, or the other side's best at or through it.
@Suite struct PaperExchangeTests {
    /// Bids 100 (5), 99 (7); asks 102 (4), 103 (6).
    private func book(bid: Int64 = 100, ask: Int64 = 102) -> Book {
        var book = Book()
        book.bids.set(price: bid, quantity: 5)
        book.bids.set(price: bid - 1, quantity: 7)
        book.asks.set(price: ask, quantity: 4)
        book.asks.set(price: ask + 1, quantity: 6)
        book.applied(depthID: 1, at: Instant(nanoseconds: 0))
        return book
    }

    private func order(_ price: Int64, lots: Int64 = 10, side: Side = .buy) -> PaperOrder {
        PaperOrder(
            id: 1, side: side, price: price, lots: lots, remaining: lots, midAtQuoteTwice: 202, spread: .zero, skew: .zero,
            nudge: .zero)
    }

    private func at(_ milliseconds: Int64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }

    private func resting(_ price: Int64, lots: Int64 = 10, side: Side = .buy) -> PaperSide {
        var paper = PaperSide(side)
        paper.send(.place(order(price, lots: lots, side: side)), dueAt: at(5))
        let accepted = paper.applyNext(at: at(5), book: book())
        #expect(accepted?.hasAccepted == true)
        return paper
    }

    @Test func aRequestTakesEffectAfterItsLatency() {
        var paper = PaperSide(.buy)
        paper.send(.place(order(100)), dueAt: at(5))
        let early = paper.applyNext(at: at(4), book: book())
        #expect(early == nil && paper.resting == nil)
        #expect(paper.intended == EmitStage.Target(price: 100, lots: 10), "what is on its way counts as intended")
        #expect(paper.trade(aggressor: .sell, price: 90, lots: 100) == nil, "not there yet")
        let accepted = paper.applyNext(at: at(6), book: book())
        #expect(accepted?.hasAccepted == true)
        #expect(paper.resting?.acceptedAt == at(5) && paper.queue.ahead == 5)
    }

    @Test func tradesConsumeTheQueueAheadFirst() {
        var paper = resting(100)
        #expect(paper.trade(aggressor: .sell, price: 100, lots: 3) == nil && paper.queue.ahead == 2)
        #expect(paper.trade(aggressor: .buy, price: 100, lots: 50) == nil, "the other aggressor does not touch bids")
        #expect(paper.trade(aggressor: .sell, price: 101, lots: 50) == nil, "a trade above our bid did not reach it")
        let fill = paper.trade(aggressor: .sell, price: 100, lots: 6)
        #expect(fill?.lots == 4 && fill?.queueAhead == 2 && fill?.isFirst == true && fill?.isComplete == false)
        let second = paper.trade(aggressor: .sell, price: 100, lots: 100)
        #expect(second?.lots == 6 && second?.isFirst == false && second?.isComplete == true && paper.resting == nil)
        #expect(paper.trade(aggressor: .sell, price: 1, lots: 100) == nil, "what is filled is gone")
    }

    @Test func aTradeThroughFillsUpToItsSize() {
        var paper = resting(100)
        let fill = paper.trade(aggressor: .sell, price: 99, lots: 4)
        #expect(fill?.lots == 4 && paper.queue.ahead == 0 && paper.resting?.remaining == 6)
    }

    @Test func cancellationsAreBehindUs_untilTheDisplayShowsOtherwise() {
        var paper = resting(100)
        var market = book()
        market.bids.set(price: 100, quantity: 50)
        let grown = paper.bookChanged(market)
        #expect(grown == nil && paper.queue.ahead == 5, "new quantity is behind us")
        market.bids.set(price: 100, quantity: 3)
        let shrunk = paper.bookChanged(market)
        #expect(shrunk == nil && paper.queue.ahead == 3, "only 3 displayed: 2 ahead of us cancelled")
        #expect(paper.takeAbsorbed() == 2 && paper.takeAbsorbed() == 0)
    }

    @Test func theOtherSidesBestAtOurPriceFills() {
        var paper = resting(101)
        #expect(paper.queue.ahead == 0)
        let crossed = paper.bookChanged(book(bid: 99, ask: 101))
        #expect(crossed?.lots == 4, "as much as is displayed there")
        #expect(paper.resting?.remaining == 6)
        var far = resting(100)
        let untouched = far.bookChanged(book(bid: 99, ask: 101))
        #expect(untouched == nil)
    }

    @Test func postOnlyRefusesWhatWouldCrossOnArrival() {
        var paper = PaperSide(.sell)
        paper.send(.place(order(100, side: .sell)), dueAt: at(1))
        let refused = paper.applyNext(at: at(1), book: book())
        #expect(refused?.hasAccepted == false && paper.resting == nil && paper.postOnlyRejections == 1)
    }

    @Test func aReplacedOrderLosesItsPlace_andEndsEvenWhenTheNewOneIsRefused() {
        var paper = resting(100)
        _ = paper.trade(aggressor: .sell, price: 100, lots: 3)
        paper.send(.replace(order(99)), dueAt: at(20))
        let applied = paper.applyNext(at: at(30), book: book())
        #expect(applied?.ended?.outcome == .replaced && applied?.ended?.queueAhead == 2 && applied?.ended?.endedAt == at(20))
        #expect(paper.queue.ahead == 7)
        paper.send(.replace(order(102)), dueAt: at(40))
        let refused = paper.applyNext(at: at(40), book: book())
        #expect(refused?.ended?.outcome == .replaced && refused?.hasAccepted == false && paper.resting == nil)
    }

    @Test func requestsAreBounded_andACancelAlwaysGoesThrough() {
        var paper = PaperSide(.buy)
        while paper.canSend { paper.send(.replace(order(100)), dueAt: at(5)) }
        paper.send(.cancel, dueAt: at(5))
        #expect(paper.intended == nil)
        while paper.applyNext(at: at(5), book: book()) != nil {}
        #expect(paper.resting == nil && paper.canSend)
    }

    // MARK: Taking

    private func rules(postOnly: Bool, _ model: QueueModel = .conservative) -> PaperRules {
        var rules = PaperRules()
        rules.isPostOnly = postOnly
        rules.queueModel = model
        return rules
    }

    @Test func withoutPostOnlyACrossingOrderTakesWhatIsDisplayed_andTheRestEnds() throws {
        var paper = PaperSide(.buy)
        paper.send(.place(order(103)), dueAt: at(1))
        let applied = paper.applyNext(at: at(1), book: book(), rules: rules(postOnly: false))
        guard case .took(let fill, let rest)? = applied?.arrival else {
            Issue.record("it did not take")
            return
        }
        #expect(fill.isTaker && fill.price == 102 && fill.lots == 4 && fill.isFirst && fill.queueAhead == 0)
        #expect(fill.cause == .taken(price: 102, lots: 4))
        #expect(rest?.outcome == .cancelled && rest?.order.remaining == 6 && paper.resting == nil)
        #expect(paper.postOnlyRejections == 0 && applied?.hasAccepted == true)
        let again = paper.bookChanged(book())
        #expect(again == nil, "the same quantity does not fill twice")
        paper.send(.place(order(102, lots: 3)), dueAt: at(2))
        let whole = paper.applyNext(at: at(2), book: book(), rules: rules(postOnly: false))
        guard case .took(let all, nil)? = whole?.arrival else {
            Issue.record("it did not take all")
            return
        }
        #expect(all.isComplete && all.lots == 3)
    }

    // MARK: On the wire

    /// A fill and a replacement that cross each other: both together are never more than was decided.
    @Test func whatFillsWhileAReplacementIsOnItsWayIsTakenOffIt() {
        var paper = resting(100)
        paper.send(.replace(order(99)), dueAt: at(20))
        let fill = paper.trade(aggressor: .sell, price: 99, lots: 7)
        #expect(fill?.lots == 7)
        let applied = paper.applyNext(at: at(20), book: book())
        #expect(applied?.hasAccepted == true && paper.resting?.lots == 3 && paper.resting?.remaining == 3)
        paper.send(.replace(order(98)), dueAt: at(30))
        _ = paper.trade(aggressor: .sell, price: 90, lots: 3)
        #expect(paper.resting == nil)
        _ = paper.applyNext(at: at(30), book: book())
        #expect(paper.resting?.lots == 7, "sent after the first seven, before the last three")
        paper.send(.replace(order(97, lots: 7)), dueAt: at(40))
        _ = paper.trade(aggressor: .sell, price: 90, lots: 7)
        let nothing = paper.applyNext(at: at(40), book: book())
        #expect(nothing?.hasAccepted == false && paper.resting == nil && paper.postOnlyRejections == 0)
    }

    @Test func noMessageOvertakesAnOlderOne() {
        var paper = PaperSide(.buy)
        #expect(paper.send(.place(order(100)), dueAt: at(20)) == at(20))
        #expect(paper.send(.cancel, dueAt: at(10)) == at(20))
        let early = paper.applyNext(at: at(19), book: book())
        #expect(early == nil)
        while paper.applyNext(at: at(20), book: book()) != nil {}
        #expect(paper.isEmpty)
    }

    @Test func reachIsThePriceNearestToTheOtherSide_restingOrOnItsWay() {
        var bid = resting(100)
        bid.send(.replace(order(98)), dueAt: at(20))
        #expect(bid.reach == 100, "until it is replaced")
        bid.send(.replace(order(101)), dueAt: at(30))
        bid.send(.cancel, dueAt: at(40))
        #expect(bid.reach == 101)
        var ask = resting(102, side: .sell)
        ask.send(.replace(order(103, side: .sell)), dueAt: at(20))
        #expect(ask.reach == 102 && PaperSide(.sell).reach == nil)
        while ask.applyNext(at: at(20), book: book()) != nil {}
        #expect(ask.reach == 103)
    }

    @Test func latencyIsConstantOrSampled_andTheSameEachTime() {
        var constant = OrderLatency()
        for _ in 0..<10 {
            let latency = constant.next(constant: 5_000_000, jitter: 0, key: 1)
            #expect(latency == 5_000_000)
        }
        func sample(key: Int64) -> [Int64] {
            var latency = OrderLatency()
            return (0..<4_000).map { _ in latency.next(constant: 5_000_000, jitter: 2_000_000, key: key) }
        }
        let delays = sample(key: 1).map { $0 - 5_000_000 }
        let mean = Double(delays.reduce(0, +)) / 4_000
        #expect(delays == sample(key: 1).map { $0 - 5_000_000 } && delays != sample(key: 2).map { $0 - 5_000_000 })
        #expect((mean / 2_000_000 - 0.978).magnitude < 0.05 && delays.min()! > 0 && Set(delays).count == 16)
    }

    // MARK: Random markets

    /// Idea: a market walks at random, orders come and go at random; whatever happens, each fill is looked up in the raw market data of its
    /// instant, kept here in plain lists, and both sides never stand against each other.
    @Test(arguments: [UInt64](1...24))
    func everyFillHasACause(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let rules = rules(postOnly: seed.isMultiple(of: 2), seed % 3 == 0 ? .probabilistic : .conservative)
        var sides = [PaperSide(.buy), PaperSide(.sell)]
        var market = Book()
        var fills = 0
        var takers = 0
        var time: Int64 = 0
        var mid: Int64 = 1_000
        func redraw() {
            mid += Int64(random.next(below: 5)) - 2
            market = Book()
            for level in 1...4 {
                market.bids.set(price: mid - Int64(level), quantity: Int64(random.next(below: 30)) + 1)
                market.asks.set(price: mid + Int64(level), quantity: Int64(random.next(below: 30)) + 1)
            }
            market.applied(depthID: time, at: at(time))
        }
        redraw()
        /// What the paper order had before, and the cause it claims: looked up in what really happened.
        func check(_ fill: PaperSide.Fill?, before: PaperOrder?, trade: (price: Int64, lots: Int64)?, side: Side) {
            guard let fill else { return }
            fills += 1
            let limit = fill.order.price
            #expect(fill.lots > 0 && fill.order.remaining >= 0)
            #expect((fill.price - limit) * side.sign <= 0, "never worse than its limit")
            let best = side == .buy ? (market.top!.askPrice, market.top!.askQuantity) : (market.top!.bidPrice, market.top!.bidQuantity)
            switch fill.cause {
            case .trade(let price, let lots):
                #expect(trade?.price == price && trade?.lots == lots && fill.lots <= lots && (limit - price) * side.sign >= 0)
                #expect(price != limit || fill.lots <= max(0, lots - fill.queueAhead), "at our price only what passes the queue")
                #expect(fill.price == limit && fill.order.remaining + fill.lots == before?.remaining)
            case .crossed(let price, let lots):
                #expect(trade == nil && best == (price, lots) && (limit - price) * side.sign >= 0 && fill.lots <= lots)
                #expect(fill.price == limit && fill.order.remaining + fill.lots == before?.remaining)
            case .taken(let price, let lots):
                takers += 1
                #expect(!rules.isPostOnly && best == (price, lots) && (limit - price) * side.sign >= 0 && fill.lots <= lots)
                #expect(fill.price == price)
            }
        }
        for _ in 0..<3_000 {
            time += Int64(random.next(below: 4))
            for index in 0...1 {
                while let applied = sides[index].applyNext(at: at(time), book: market, rules: rules) {
                    if case .took(let fill, _) = applied.arrival { check(fill, before: nil, trade: nil, side: sides[index].side) }
                }
            }
            if let bid = sides[0].resting, let ask = sides[1].resting { #expect(bid.price < ask.price, "we never stand against ourselves") }
            switch random.next(below: 3) {
            case 0:
                redraw()
                for index in 0...1 {
                    let before = sides[index].resting
                    let fill = sides[index].bookChanged(market)
                    check(fill, before: before, trade: nil, side: sides[index].side)
                }
            case 1:
                let aggressor: Side = random.next(below: 2) == 0 ? .buy : .sell
                let trade = (price: mid + aggressor.sign * Int64(random.next(below: 3)), lots: Int64(random.next(below: 40)) + 1)
                for index in 0...1 {
                    let before = sides[index].resting
                    let fill = sides[index].trade(aggressor: aggressor, price: trade.price, lots: trade.lots)
                    if fill != nil { #expect(aggressor == sides[index].side.opposite) }
                    check(fill, before: before, trade: trade, side: sides[index].side)
                }
            default:
                let index = random.next(below: 2)
                let side = sides[index].side
                let price = mid - side.sign * (Int64(random.next(below: 6)) - 2)
                // What `act` checks before it sends.
                if let other = sides[1 - index].reach, (price - other) * side.sign >= 0 { continue }
                guard sides[index].canSend else { continue }
                let dueAt = at(time + 1 + Int64(random.next(below: 5)))
                switch random.next(below: 4) {
                case 0: sides[index].send(.cancel, dueAt: dueAt)
                default:
                    let new = order(price, lots: Int64(random.next(below: 20)) + 1, side: side)
                    sides[index].send(sides[index].intended == nil ? .place(new) : .replace(new), dueAt: dueAt)
                }
            }
        }
        #expect(fills > 50, "\(fills)")
        #expect(rules.isPostOnly ? takers == 0 : takers > 0)
    }
}
