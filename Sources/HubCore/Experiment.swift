import CalibModel
import Wire

/// An experiment as the hub intends it, and how far it has come (SPEC 7.2).
///
///     draft -> dry -> online <-> paused -> promoted | rolled back | stopped
///
/// `dry` may be left out; a rollback is possible from every state, the ended ones included.
package struct Experiment: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable {
        case draft, dry, online, paused, promoted
        case rolledBack = "rolled_back"
        case stopped

        /// Edges know of it.
        package var isRunning: Bool {
            switch self {
            case .dry, .online, .paused: true
            case .draft, .promoted, .rolledBack, .stopped: false
            }
        }
        package var isOver: Bool {
            switch self {
            case .promoted, .rolledBack, .stopped: true
            case .draft, .dry, .online, .paused: false
            }
        }
    }

    /// SPEC 7.5; only `pass` promotes.
    package enum Verdict: String, Sendable, CaseIterable {
        case pass = "PASS"
        case fail = "FAIL"
        case inconclusive = "INCONCLUSIVE"
        case invalid = "INVALID"
    }

    /// One line of its decision log.
    package struct Change: Sendable, Equatable {
        package var milliseconds: Int64
        package var state: State
        package var by: String
        package var reason: String
        /// What was known: `Assessment.json`, or a breaker's trip. Nil for what an operator did for reasons of their own.
        package var evidence: JSONValue?
    }

    package var spec: ExperimentSpec
    package var state: State
    package var reason: String
    package var by: String
    /// When the state became what it is, ms UTC.
    package var changedMilliseconds: Int64
    /// When it first went online, ms UTC; nil before.
    package var startedMilliseconds: Int64?
    package var verdict: Verdict?
    /// Who plays it, frozen as it starts; empty before.
    package var hosts: [PairPlan.Host] = []
    package var source: RowSource?
    /// Hosts that did not finish a pair in time, as decided.
    package var silences: Set<PairPlan.Silence> = []
    /// The first is its creation. The oldest in the middle are forgotten beyond `Limits.experimentChangesListedMax`; the log keeps all.
    package var changes: [Change] = []
    /// Who brought it as far as it is: another operator promotes it.
    package private(set) var operators: Set<String> = []

    /// Whether any of these symbols plays in it on this host. Hosts that came after it began do not: nobody judges their rows.
    package func enrols(_ symbols: [String], on host: String) -> Bool {
        if !hosts.isEmpty, !hosts.contains(where: { $0.name == host }) { return false }
        return spec.enrols(symbols, on: host)
    }

    /// What a symbol on a host is to play now; nil when it takes no part.
    package func arm(of symbol: String, on host: String, at milliseconds: Int64) -> Arm? {
        spec.place(of: symbol, on: host, at: milliseconds).map { state == .online ? $0.arm : .a }
    }

    mutating func note(_ change: Change) {
        state = change.state
        changedMilliseconds = change.milliseconds
        if state == .online, startedMilliseconds == nil { startedMilliseconds = change.milliseconds }
        changes.append(change)
        if state != .paused { operators.insert(change.by) }
        if changes.count > Limits.experimentChangesListedMax { changes.remove(at: 1) }
    }

}

/// A command to the fleet: a rollback, a kill or its release, and what each host made of it (SPEC 7.6, 10.1).
package struct FleetCommand: Sendable, Equatable {
    package enum DeliveryState: String, Sendable {
        /// Not sent yet, or not on the connection the host has now.
        case unconfirmed
        case sent, applied, latched, rejected
        /// Nothing more is owed.
        package var isFinal: Bool { self == .latched || self == .rejected }
    }

    package struct Delivery: Sendable, Equatable {
        package var state = DeliveryState.unconfirmed
        /// Hub's clock when it was first sent since the hub started, and then when the answers arrived; ms UTC.
        package var sentMilliseconds: Int64?
        package var appliedMilliseconds: Int64?
        package var latchedMilliseconds: Int64?
        /// From the first sending to the answer, on the hub's monotonic clock; ns.
        package var appliedLatency: Int64?
        package var latchedLatency: Int64?
        /// Edge's clock, ms UTC.
        package var edgeAppliedMilliseconds: Int64?
        package var cancelledOrders: Int64?
        package var text: String?
        var sentAt: Instant?
        /// The link it was last sent on: once per connection.
        var sentOn: LinkID?
        package init() {}
    }

    package var wire: Message.Command
    /// Kill and release: one host only.
    package var host: String?
    package var deliveries: [String: Delivery]
    /// Kill: not released yet.
    package var isInForce: Bool

    package var isDone: Bool { deliveries.values.allSatisfy(\.state.isFinal) }

    /// Whether its scope covers the other's: same or wider.
    func covers(_ other: FleetCommand) -> Bool {
        (host == nil || host == other.host) && (wire.symbol == nil || wire.symbol == other.wire.symbol)
    }

    package var scopeText: String {
        switch (host, wire.symbol) {
        case (nil, nil): "all"
        case (let host?, nil): "host \(host)"
        case (nil, let symbol?): "symbol \(symbol)"
        case (let host?, let symbol?): "symbol \(symbol) on host \(host)"
        }
    }
}
