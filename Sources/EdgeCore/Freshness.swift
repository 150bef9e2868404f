import CalibModel

// What keeps books proven, and what un-proves them, between the frames (SPEC 3.2-3.5): ticks that wait for a refresh, pings and their answers,
// the gap of a silent connection, and news that contradict a book.

/// A tick that waits for a refresh of its symbol's book. Triggers that come meanwhile are merged into it: it decides on the newest book anyway.
struct WaitingTick {
    /// Of the first trigger, on `shared.clock`.
    var frameReadAt: Int64
    var since: Instant
}

extension SymbolState {
    /// FetchMDStage with its wait: nil while the tick has to wait for a refresh, which `resumeTick` ends.
    mutating func fetch(at now: Instant, frameReadAt: inout Int64, _ shared: inout SharedState) -> FetchMDStage.Output? {
        extendThroughConnection(at: now, &shared)
        let waited = waiting
        guard isProven else {
            // The book was lost while the tick waited.
            if let waited { frameReadAt = waited.frameReadAt }
            waiting = nil
            cache.count(.refused)
            return FetchMDStage.Output(outcome: .refused, ageNanoseconds: nil, top: nil)
        }
        if waited == nil, let age = cache.freshAge(at: now, parameters), let top = book.top, !top.isCrossed {
            cache.count(.hit)
            return FetchMDStage.Output(outcome: .hit, ageNanoseconds: age, top: top)
        }
        var output = FetchMDStage.run(
            &cache, book: book, at: now, answers: shared.connectionAnswers, hasWaited: waited != nil, parameters.pointee.cache)
        request(&shared)
        if let waited {
            if output.awaitsRefresh {
                guard now.since(waited.since) >= Limits.refreshWaitNanoseconds else { return nil }
                cache.waitTimedOut()
            } else if output.outcome != .refused {
                output.outcome = .miss
            }
            waiting = nil
            frameReadAt = waited.frameReadAt
        } else if output.awaitsRefresh {
            waiting = WaitingTick(frameReadAt: frameReadAt, since: now)
            return nil
        }
        cache.count(output.outcome)
        return output
    }

    /// Time passed, or a proof came: a tick that waits goes on when it can, or places nothing when its time is over.
    mutating func resumeTick(at now: Moment, _ shared: inout SharedState) {
        guard let waiting else { return }
        tick(at: now, frameReadAt: waiting.frameReadAt, &shared)
    }

    /// The watchdog of the symbol, tick or no tick (SPEC 3.5).
    mutating func watchProof(at now: Moment, _ shared: inout SharedState) {
        expireContradiction(at: now, &shared)
        guard isProven else { return }
        extendThroughConnection(at: now.instant, &shared)
        if cache.watchdogFires(at: now.instant, answers: shared.connectionAnswers, parameters.pointee.cache) { pull(at: now, &shared) }
        resumeTick(at: now, &shared)
    }

    /// A frame of the same connection about another symbol is a proof as well.
    private mutating func extendThroughConnection(at now: Instant, _ shared: inout SharedState) {
        // In replay the connection answers anyway.
        guard !shared.isRecorded, let connection = subscription.connection, let proof = shared.pulses[connection].provenAt else { return }
        cache.extend(to: proof, at: now, parameters.pointee.cache)
    }

    private mutating func request(_ shared: inout SharedState) {
        switch cache.takeRefresh() {
        case nil: break
        case .ping: shared.wantsPing = true
        case .snapshot: if !shared.snapshotsWanted.contains(index) { shared.snapshotsWanted.append(index) }
        }
    }

    // MARK: Un-proving

    /// The book is not what the venue has, whatever its sequence says: it is quoted on again after a resync.
    mutating func unprove(_ reason: MDCache.Invalidation, at now: Moment, _ shared: inout SharedState) {
        lose(reason, expected: book.depthID, received: book.depthID, at: now, &shared)
        if subscription.depth != nil { askForSnapshot(at: now.instant) }
    }

    /// A trade through the touch: the book must say so within a second.
    mutating func noteTrade(_ aggressor: Side, price: Int64, at now: Instant) {
        guard contradictedAt == nil, isProven, let top = book.top else { return }
        if aggressor == .buy ? price > top.askPrice : price < top.bidPrice { contradictedAt = now }
    }

    private mutating func expireContradiction(at now: Moment, _ shared: inout SharedState) {
        if !shared.isRecorded, isProven { expireTicker(at: now, &shared) }
        guard let contradictedAt, now.instant.since(contradictedAt) > shared.parameters.cache.tickerLeadNanoseconds else { return }
        self.contradictedAt = nil
        guard isProven else { return }
        contradicted(at: now, &shared)
    }

    /// SPEC 3.2: a newer bookTicker without a book frame that reaches it within a second un-proves.
    mutating func expireTicker(at now: Moment, _ shared: inout SharedState) {
        guard book.expireTicker(olderThan: shared.parameters.cache.tickerLeadNanoseconds, at: now.instant) else { return }
        contradicted(at: now, &shared)
    }

    /// A recording cannot be asked for a snapshot, but its connection counts as answered: there the book is only proven anew.
    private mutating func contradicted(at now: Moment, _ shared: inout SharedState) {
        if shared.isRecorded {
            cache.invalidate(.contradiction, at: now.instant)
        } else {
            unprove(.contradiction, at: now, &shared)
        }
    }
}

extension QuoteNode {
    /// What keeps the freshness of symbol `index` has done.
    package func cacheCounts(of index: SymbolIndex) -> CacheCounts { withSymbol(Int(index)) { $0.cache.counts } }
    package func pulse(of connection: Int) -> ConnectionPulse { shared.pulses[connection] }

    /// The connection answered the oldest ping.
    mutating func answered(on connection: Int, at now: Moment) {
        guard connection < shared.connectionCount else { return }
        let pong: (sentAt: Instant, excess: Int64)
        if shared.isRecorded {
            // Nobody pinged; it is a frame like any other.
            pong = (now.instant, 0)
        } else {
            guard let answer = shared.pulses[connection].ponged(at: now.instant) else { return }
            pong = answer
        }
        for index in 0..<symbolCount where symbols[index].subscription.connection == connection {
            symbols[index].ponged(sentAt: pong.sentAt, excess: pong.excess, at: now, &shared)
        }
    }

    /// Connections that neither speak nor answer: their books wait for the next sign of life.
    mutating func watchConnections(at now: Moment) {
        guard !shared.isRecorded else { return }
        for connection in 0..<shared.connectionCount {
            guard shared.pulses[connection].gapBegins(at: now.instant, limit: shared.parameters.cache.webSocketGapNanoseconds) else {
                continue
            }
            for index in 0..<symbolCount where symbols[index].subscription.connection == connection {
                symbols[index].cache.invalidate(.webSocketGap, at: now.instant)
            }
        }
    }

    /// A connection that answers no ping for longer than any network heals: it is to be given up.
    package func isDead(_ connection: Int, at now: Instant) -> Bool {
        (shared.pulses[connection].silence(at: now) ?? 0) > Limits.unansweredNanosecondsMax
    }

    /// Whether `takeRequests` has something that should not wait for the next turn.
    package var hasRequests: Bool { shared.wantsPing || !resubscriptions.isEmpty || !shared.snapshotsWanted.isEmpty }

    /// What has become due since the last call; each is handed out once.
    package mutating func takeRequests() -> [VenueRequest] {
        var requests: [VenueRequest] = []
        if let now = last?.instant, !shared.isRecorded, isPingDue(at: now) {
            pinged(at: now)
            requests.append(.ping)
        }
        takeBookRequests(&requests)
        return requests
    }

    /// A ping left on every open connection.
    mutating func pinged(at now: Instant) {
        shared.wantsPing = false
        for connection in 0..<shared.connectionCount where shared.pulses[connection].isOpen { shared.pulses[connection].pinged(at: now) }
    }

    /// What has become due is not asked for: of a node that hears what another one asks. No ping of its own is awaited.
    mutating func dropRequests() {
        shared.wantsPing = false
        var requests: [VenueRequest] = []
        takeBookRequests(&requests)
    }

    private mutating func takeBookRequests(_ requests: inout [VenueRequest]) {
        for symbol in resubscriptions where !symbols[Int(symbol)].isProven { requests.append(.resubscribe(symbol)) }
        resubscriptions.removeAll(keepingCapacity: true)
        if let now = last?.instant {
            for symbol in shared.snapshotsWanted { snapshots.want(symbol, at: now) }
            shared.snapshotsWanted.removeAll(keepingCapacity: true)
            for symbol in snapshots.takeDue(at: now) { requests.append(.snapshot(symbol)) }
        }
        for connection in leavingConnections { requests.append(.reconnect(connection: connection)) }
        leavingConnections.removeAll(keepingCapacity: true)
    }

    private func isPingDue(at now: Instant) -> Bool {
        (0..<shared.connectionCount).contains {
            shared.pulses[$0].isPingDue(at: now, isWanted: shared.wantsPing, interval: venue.pingNanoseconds)
        }
    }
}
