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

/// Why an operator's request is refused; `exit` is what hubctl leaves with (SPEC 9.3).
package struct Refusal: Error, Sendable, Equatable {
    package var code: String
    package var text: String
    package var exit: Int64
    package init(_ code: String, _ text: String, exit: Int64) {
        self.code = code
        self.text = text
        self.exit = exit
    }
    static func usage(_ text: String) -> Refusal { Refusal("usage", text, exit: 64) }
    static func failed(_ code: String, _ text: String) -> Refusal { Refusal(code, text, exit: 1) }
    package var outcome: Message.Reply.Outcome { .failed(code: code, text: text, exit: exit) }
}

/// Everything an operator can ask of a hub, and what each verb takes.
package enum Verb: String, CaseIterable, Sendable {
    case hostList = "host list"
    case experimentCreate = "experiment create"
    case experimentList = "experiment list"
    case experimentShow = "experiment show"
    case experimentRollback = "experiment rollback"
    case experimentStop = "experiment stop"
    case kill
    case killRelease = "kill release"
    case commandList = "command list"
    case datasetBuild = "dataset build"
    case datasetList = "dataset list"
    case datasetPull = "dataset pull"
    case reportBuild = "report build"
    case reportList = "report list"
    case reportPull = "report pull"

    /// Viewers may only read (SPEC 10.3).
    package var acts: Bool {
        switch self {
        case .experimentCreate, .experimentRollback, .experimentStop, .kill, .killRelease, .datasetBuild, .reportBuild: true
        case .hostList, .experimentList, .experimentShow, .commandList, .datasetList, .datasetPull, .reportList, .reportPull: false
        }
    }

    package var needed: Set<String> {
        switch self {
        case .experimentCreate: ["split", "candidate", "reason"]
        case .experimentShow, .experimentRollback, .experimentStop: ["id"]
        case .datasetBuild: ["from_ms", "to_ms"]
        case .datasetPull, .reportPull: ["name"]
        case .hostList, .experimentList, .kill, .killRelease, .commandList, .datasetList, .reportBuild, .reportList: []
        }
    }

    package var optional: Set<String> {
        switch self {
        case .experimentCreate: ["id", "symbols"]
        case .experimentRollback: ["reason", "timeout_ms"]
        case .experimentStop: ["reason"]
        case .kill, .killRelease: ["host", "symbol", "all", "reason", "timeout_ms"]
        case .datasetBuild:
            [
                "interval_sec", "symbols", "arm", "source", "per_host", "keep_filtered", "max_deadline_miss", "min_samples", "replace",
                "reason",
            ]
        case .reportBuild: ["experiment", "dataset", "reason"]
        case .hostList, .experimentList, .experimentShow, .commandList, .datasetList, .datasetPull, .reportList, .reportPull: []
        }
    }

    /// The verb of a request, once the peer may use it and its arguments are ones it knows.
    package static func check(_ request: Message.Request, by peer: Peer) throws(Refusal) -> Verb {
        guard let verb = Verb(rawValue: request.verb) else { throw .usage("the hub knows no '\(request.verb.prefix(64))'") }
        switch peer.role {
        case .operator: break
        case .viewer where !verb.acts: break
        case .viewer: throw Refusal("not_authorised", "\(peer.identity) may only read", exit: 4)
        case .edge: throw Refusal("not_authorised", "\(peer.identity) may not send requests", exit: 4)
        }
        for name in request.arguments.keys.sorted() where !verb.needed.contains(name) && !verb.optional.contains(name) {
            throw .usage("'\(verb.rawValue)' takes no '\(name.prefix(64))'")
        }
        for name in verb.needed.sorted() where (request.arguments[name] ?? "").isEmpty {
            throw .usage("'\(verb.rawValue)' needs '\(name)'")
        }
        return verb
    }

    /// The reason every action on the fleet must carry.
    static func reason(_ arguments: [String: String]) throws(Refusal) -> String {
        let reason = arguments["reason"] ?? ""
        guard reason.utf8.contains(where: { $0 != 32 }) else { throw .usage("a reason is needed") }
        guard reason.utf8.count <= Limits.reasonBytesMax else { throw .usage("the reason is longer than \(Limits.reasonBytesMax) bytes") }
        return reason
    }

    /// Names separated by commas or blanks; empty when the text is nil.
    package static func names(_ text: String?) -> [String] {
        (text ?? "").split { $0 == "," || $0 == " " }.map(String.init)
    }

    static func flag(_ text: String?) throws(Refusal) -> Bool {
        switch text {
        case nil, "false": false
        case "true": true
        case let other?: throw .usage("'\(other.prefix(64))' is neither true nor false")
        }
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
