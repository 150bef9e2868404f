import CalibModel

/// What the node wants from its venue; whoever owns the connections carries it out (SPEC 3.4).
package enum VenueRequest: Sendable, Equatable {
    /// Unsubscribe and subscribe the symbol's book: it lost its chain, and a subscription is answered with a snapshot (Bybit).
    case resubscribe(SymbolIndex)
    /// Ask every connection for a sign of life; the answer comes as a pong.
    case ping
    /// Ask for the symbol's order book outside the stream; `snapshotAnswered` or `snapshotFailed` follows.
    case snapshot(SymbolIndex)
}
