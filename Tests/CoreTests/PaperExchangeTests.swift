import CalibModel
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
}
