import CalibModel

/// What the node wants from its venue; whoever owns the connections carries it out (SPEC 3.4).
package enum VenueRequest: Sendable, Equatable {
    /// Unsubscribe and subscribe the symbol's book: it lost its chain, and a subscription is answered with a snapshot (Bybit).
    case resubscribe(SymbolIndex)
    /// Ask every connection for a sign of life; the answer comes as a pong.
    case ping
    /// Ask for the symbol's order book outside the stream; `snapshotAnswered` or `snapshotFailed` follows.
    case snapshot(SymbolIndex)
    /// The venue has announced that it will end this connection: go before it does.
    case reconnect(connection: Int)
}

extension QuoteNode {
    /// The order book that `VenueRequest.snapshot` asked for. `sentAt` is when the question left.
    package mutating func snapshotAnswered(_ symbol: SymbolIndex, _ body: UnsafeRawBufferPointer, sentAt: Moment, at now: Moment) {
        begin(at: now)
        sweep(at: now)
        do throws(FrameRejection) {
            let isUsable = try restSnapshot(symbol, body, sentAt: sentAt.instant, at: now)
            snapshots.answered(symbol, isUsable: isUsable, at: now.instant)
        } catch {
            reject(error)
            symbols[Int(symbol)].noteRejectedInput(at: now, &shared)
            symbols[Int(symbol)].cache.snapshotFailed(at: now.instant)
            snapshots.failed(symbol, pauseNanoseconds: 0, at: now.instant)
        }
    }

    /// It was not answered. `pauseNanoseconds`: how long the venue wants to be left alone.
    package mutating func snapshotFailed(_ symbol: SymbolIndex, pauseNanoseconds: Int64 = 0, at now: Moment) {
        begin(at: now)
        sweep(at: now)
        symbols[Int(symbol)].cache.snapshotFailed(at: now.instant)
        snapshots.failed(symbol, pauseNanoseconds: pauseNanoseconds, at: now.instant)
        // A refresh is asked for again by whoever needs it.
        if symbols[Int(symbol)].isProven { snapshots.drop(symbol) }
    }
}
