import CalibModel
import Testing

@testable import EdgeCore

/// The kill switch (SPEC 10.1).
@Suite struct KillTests {
    @Test func aKillCancelsInTheSameCall_andNothingIsPlacedUntilRelease() {
        let it = QuoteBench()
        it.quoting()
        let orders = it.orders()
        let cancelled = it.node.kill(nil, at: it.now)
        it.drain()
        #expect(cancelled == 2 && it.intended() == (nil, nil) && it.node.isKilled && it.node.status(of: 0).isKilled)
        #expect(it.kinds(.kill).map(\.first) == [2] && it.kinds(.kill)[0].symbol == nil)
        let ticks = it.ticks()
        for _ in 0..<50 { it.tick(after: 10) }
        #expect(it.orders() == orders && it.open() == 0 && it.intended() == (nil, nil))
        #expect(it.ticks() == ticks + 50 && it.ticks.suffix(50).allSatisfy(\.isHalted), "ticks go on, counted as halted")
        it.node.release(nil, at: it.now)
        it.tick()
        it.advance(6)
        #expect(it.open() == 2 && it.kinds(.release).count == 1 && !it.node.status(of: 0).isKilled)
        it.advance(20_000)
        #expect(it.snapshots.reduce(0) { $0 + $1.counts.halts } == 50)
    }

    @Test func anOrderOnItsWayIsCancelledToo() {
        let it = QuoteBench()
        it.prove()
        #expect(it.orders() == 0 && it.open() == 2, "sent, not accepted yet")
        let cancelled = it.node.kill(nil, at: it.now)
        #expect(cancelled == 2)
        it.advance(5)
        it.trade("90.0", "100", sells: true)
        #expect(it.open() == 0 && it.fills.isEmpty)
    }

    @Test func scopesAreLiftedOneByOne() {
        for (first, second) in [(nil, SymbolIndex(0)), (SymbolIndex(0), nil)] as [(SymbolIndex?, SymbolIndex?)] {
            let it = QuoteBench(symbols: 2)
            it.quoting(symbols: 2)
            _ = it.node.kill(0, at: it.now)
            #expect(it.intended(0) == (nil, nil) && it.intended(1).buy != nil, "a symbol's kill is that symbol's")
            _ = it.node.kill(nil, at: it.now)
            #expect(it.intended(1) == (nil, nil))
            it.node.release(first, at: it.now)
            it.tick(0, after: 10)
            #expect(it.intended(0) == (nil, nil), "killed by the other scope still")
            it.node.release(second, at: it.now)
            it.tick(0)
            it.tick(1)
            #expect(it.intended(0).buy != nil && it.intended(1).buy != nil)
        }
    }

    @Test func killingTwiceIsKillingOnce() {
        let it = QuoteBench()
        it.quoting()
        let first = it.node.kill(0, at: it.now)
        let second = it.node.kill(0, at: it.now)
        it.node.release(0, at: it.now)
        it.node.release(0, at: it.now)
        it.node.release(nil, at: it.now)
        it.drain()
        #expect(first == 2 && second == 0 && it.kinds(.kill).count == 1 && it.kinds(.release).count == 1)
    }

    /// The latch of a restart: thrown before there is anything to quote.
    @Test func aHostsKillCoversSymbolsProvenLater() {
        let it = QuoteBench(symbols: 2)
        _ = it.node.kill(nil, at: it.now)
        for symbol in 0...1 {
            it.prove(symbol)
            it.tick(symbol, after: 10)
        }
        it.advance(10)
        #expect(it.ticks(1) > 0 && it.open(0) == 0 && it.open(1) == 0 && it.orders(0) + it.orders(1) == 0)
    }

    @Test func aKillDuringAChangeOfArms() {
        let it = QuoteBench()
        it.quoting()
        let changed = it.apply([.b]) { _ in }
        let killed = it.node.kill(nil, at: it.now)
        it.advance(5)
        it.tick()
        #expect(changed == 2 && killed == 0 && it.arm().arm == .b && it.open() == 0)
        it.node.release(nil, at: it.now)
        it.tick()
        #expect(it.intended().buy != nil)
    }

    /// A kill that lasts must not write a row a tick.
    @Test func ticksOfAKilledSymbolAreSampled() {
        let it = QuoteBench { $0.tickSampleRate = 10 }
        it.quoting()
        _ = it.node.kill(nil, at: it.now)
        let rows = it.ticks.count
        for _ in 0..<100 { it.tick(after: 10) }
        #expect(it.ticks.count == rows + 10 && it.ticks.suffix(10).allSatisfy { $0.weight == 10 && $0.isHalted })
    }

    @Test func cancelAllCancelsAndNothingMore() {
        let it = QuoteBench(symbols: 2)
        it.quoting(symbols: 2)
        let cancelled = it.node.cancelAll(at: it.now)
        #expect(cancelled == 4 && it.intended(0) == (nil, nil) && it.intended(1) == (nil, nil))
        it.advance(5)
        #expect(it.open(0) == 0 && it.open(1) == 0 && it.kinds(.kill).isEmpty)
        it.tick()
        #expect(it.intended(0).buy != nil, "what follows decides")
    }
}
