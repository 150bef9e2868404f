import CalibModel
import Wire

/// An experiment as the hub intends it, and how far it has come (SPEC 7.2).
package struct Experiment: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable {
        case draft, online
        case rolledBack = "rolled_back"
        case stopped
    }

    package var spec: ExperimentSpec
    package var state: State
    package var reason: String
    package var by: String
    /// When the state became what it is, ms UTC.
    package var changedMilliseconds: Int64

    /// Whether any of these symbols plays in it.
    package func enrols(_ symbols: [String]) -> Bool { symbols.contains { arm(of: $0) != nil } }

    /// Nil for a symbol that takes no part.
    package func arm(of symbol: String) -> Arm? {
        if spec.symbolsA.contains(symbol) { return .a }
        return spec.symbolsB.contains(symbol) ? .b : nil
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
