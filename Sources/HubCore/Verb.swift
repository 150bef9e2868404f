import CalibModel
import Wire

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
    case experimentGet = "experiment get"
    case experimentStart = "experiment start"
    case experimentPause = "experiment pause"
    case experimentPromote = "experiment promote"
    case experimentRollback = "experiment rollback"
    case experimentStop = "experiment stop"
    case gateList = "gate list"
    case gateExplain = "gate explain"
    case kill
    case killRelease = "kill release"
    case parametersSet = "parameters set"
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
        case .experimentCreate, .experimentStart, .experimentPause, .experimentPromote, .experimentRollback, .experimentStop, .kill,
            .killRelease, .parametersSet, .datasetBuild, .reportBuild:
            true
        case .hostList, .experimentList, .experimentGet, .gateList, .gateExplain, .commandList, .datasetList, .datasetPull, .reportList,
            .reportPull:
            false
        }
    }

    package var needed: Set<String> {
        switch self {
        case .experimentCreate: ["candidate", "reason"]
        case .experimentGet, .experimentStart, .experimentPause, .experimentPromote, .experimentRollback, .experimentStop, .gateList,
            .gateExplain:
            ["id"]
        case .parametersSet: ["set", "reason"]
        case .datasetBuild: ["from_ms", "to_ms"]
        case .datasetPull, .reportPull: ["name"]
        case .hostList, .experimentList, .kill, .killRelease, .commandList, .datasetList, .reportBuild, .reportList: []
        }
    }

    package var optional: Set<String> {
        switch self {
        case .experimentCreate: ["id", "symbols", "design", "split", "block_sec", "washout_sec", "jitter_sec", "ramp"]
        case .experimentStart: ["mode", "reason"]
        case .experimentRollback: ["reason", "timeout_ms"]
        case .experimentPause, .experimentPromote, .experimentStop: ["reason"]
        case .kill, .killRelease: ["host", "symbol", "all", "reason", "timeout_ms"]
        case .parametersSet: ["host", "all", "timeout_ms"]
        case .datasetBuild:
            [
                "interval_sec", "symbols", "arm", "source", "per_host", "keep_filtered", "max_deadline_miss", "min_samples", "replace",
                "forms", "reason",
            ]
        case .reportBuild: ["experiment", "dataset", "reason"]
        case .datasetPull, .reportPull: ["offset", "sha256"]
        case .hostList, .experimentList, .experimentGet, .gateList, .gateExplain, .commandList, .datasetList, .reportList: []
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

    package static func flag(_ text: String?) throws(Refusal) -> Bool {
        switch text {
        case nil, "false": false
        case "true": true
        case let other?: throw .usage("'\(other.prefix(64))' is neither true nor false")
        }
    }
}

extension DatasetArguments {
    /// The arguments of `dataset build`; what is left out has hubctl's default.
    package init(request arguments: [String: String]) throws(Refusal) {
        func number(_ name: String, in range: ClosedRange<Int64>, otherwise: Int64?) throws(Refusal) -> Int64 {
            guard let text = arguments[name] else {
                guard let otherwise else { throw .usage("'\(name)' is needed") }
                return otherwise
            }
            guard let value = Int64(text), range.contains(value) else {
                throw .usage("\(name) is a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
        let from = try number("from_ms", in: 0...RowLimits.timeMax, otherwise: nil)
        let to = try number("to_ms", in: 0...RowLimits.timeMax, otherwise: nil)
        guard from < to, from.isMultiple(of: 1000), to.isMultiple(of: 1000) else {
            throw .usage("from_ms is before to_ms, both in whole seconds")
        }
        let interval = try number("interval_sec", in: 10...86_400, otherwise: 300)
        guard interval.isMultiple(of: 10) else { throw .usage("interval_sec is a multiple of 10") }
        var source: RowSource?
        if let name = arguments["source"] {
            source = RowSource.allCases.first { $0.name == name }
            guard source != nil else { throw .usage("source '\(name.prefix(64))' is not known") }
        }
        var arm: Arm? = .a
        if let name = arguments["arm"] {
            arm = Arm(rawValue: name)
            guard arm != nil || name == "all" else { throw .usage("arm is A, B or all") }
        }
        var missMax: Int64 = 50_000_000
        if let text = arguments["max_deadline_miss"] {
            let ratio = Array(text.utf8).withUnsafeBytes { DecimalText($0)?.exact(places: 9) }
            guard let ratio, (0...1_000_000_000).contains(ratio) else { throw .usage("max_deadline_miss is a ratio from 0 to 1") }
            missMax = ratio
        }
        self.init(
            from: from, to: to, intervalSeconds: interval, symbols: Verb.names(arguments["symbols"]), source: source, arm: arm,
            deadlineMissMax: missMax, ticksMin: try number("min_samples", in: 0 ... .max, otherwise: 10),
            keepsFiltered: try Verb.flag(arguments["keep_filtered"]), isPerHost: try Verb.flag(arguments["per_host"]))
    }
}

extension DatasetRefusal {
    /// As hubctl leaves with when it builds offline.
    package var refusal: Refusal {
        switch self {
        case .mixedForms(let ours, let seed):
            Refusal("mixed_forms", "the range mixes rows with 'v' (\(ours)) and rows of the first program's form (\(seed))", exit: 2)
        case .mixedSources(let names):
            Refusal("mixed_sources", "the range mixes sources: \(names.joined(separator: ", ")); choose one with --source", exit: 2)
        case .noRows: Refusal("no_rows", "no row of the range, symbols, arm and source is here", exit: 1)
        }
    }
}
