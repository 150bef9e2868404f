import CalibModel

/// Why bytes from a peer are no message.
package enum WireError: Error, Equatable, Sendable {
    case json(JSONError)
    case missingField(String)
    case wrongType(String)
    case outOfRange(String)
    /// A control line above `Limits.controlLineBytesMax`, or a payload above `Limits.appendBytesMax`.
    case tooLong(limit: Int)
    /// A message type this version does not know: answered with a typed error, the connection goes on (SPEC 8.3).
    case unknownType(String)

    /// The `code` of the `error` message that answers it.
    package var code: StaticString {
        switch self {
        case .json: "bad_json"
        case .missingField: "missing_field"
        case .wrongType: "wrong_type"
        case .outOfRange: "out_of_range"
        case .tooLong: "too_long"
        case .unknownType: "unknown_type"
        }
    }

    /// One safe sentence for the peer.
    package var sentence: String {
        switch self {
        case .json: "the line is not JSON"
        case .missingField(let name): "field '\(name)' is missing"
        case .wrongType(let name): "field '\(name)' has the wrong type"
        case .outOfRange(let name): "field '\(name)' is out of range"
        case .tooLong(let limit): "more than \(limit) bytes"
        case .unknownType(let name): "message type '\(name)' is not known"
        }
    }
}

/// The version of the conversation this program speaks; N and N-1 are served at both ends (SPEC 8.3).
///
/// 2: `sealed`, `gone`, and `part` in a hub's `resume`. What is new is said only on a connection whose `welcome` names version 2.
package enum ProtocolVersion {
    package static let current: Int64 = 2
    package static let oldest: Int64 = 1
}

/// A place in the control log's order; a hub that lost its disk starts a higher term (SPEC 8.5).
package struct Revision: Sendable, Equatable, Comparable {
    package var term: Int64
    package var number: Int64
    package init(term: Int64, number: Int64) {
        self.term = term
        self.number = number
    }
    package static let zero = Revision(term: 0, number: 0)
    package static func < (a: Revision, b: Revision) -> Bool { (a.term, a.number) < (b.term, b.number) }
}

/// One message of the link: one JSON object and `\n` on the wire; `append` and `chunk` are followed by `bytes` raw bytes (SPEC 8.1, 8.3).
///
/// Unknown fields are ignored. Every case has a schema and an example in `proto-json/`.
package enum Message: Sendable, Equatable {
    // Both ways.
    case ping(number: Int64)
    case pong(number: Int64)
    case error(code: String, text: String)
    // The conversation's beginning. Edges and operators both send hello; a hub's welcome means: you are connected.
    case hello(Hello)
    case welcome(Welcome)
    // Feeds, edge to hub, per file.
    case resume(Resume)
    case append(Append)
    case ack(Ack)
    case sealed(Sealed)
    case gone(Gone)
    // Control.
    case status(Status)
    case lease(Lease)
    case assignment(Assignment)
    case command(Command)
    case commandResult(CommandResult)
    case breaker(Breaker)
    // Operators.
    case request(Request)
    case reply(Reply)
    case progress(Progress)
    case chunk(Chunk)

    /// The first message of a client. `edge` is nil for operators.
    package struct Hello: Sendable, Equatable {
        package var protocolMin: Int64
        package var protocolMax: Int64
        /// The program's own version, such as `calibrant 0.1.0`.
        package var version: String
        package var edge: Edge?

        package struct Edge: Sendable, Equatable {
            package var host: String
            /// Of its feeds directory.
            package var epoch: String
            package var source: String
            package var venue: String
            /// The edge's wall clock as it sent this, ms UTC.
            package var wallMilliseconds: Int64
            package var symbols: [String]
            /// The newest revision it has applied.
            package var revision: Revision
            /// Ids of the experiments it has latched to A for ever.
            package var latches: [String]
            package var configHash: String
            package init(
                host: String, epoch: String, source: String, venue: String, wallMilliseconds: Int64, symbols: [String],
                revision: Revision, latches: [String], configHash: String
            ) {
                self.host = host
                self.epoch = epoch
                self.source = source
                self.venue = venue
                self.wallMilliseconds = wallMilliseconds
                self.symbols = symbols
                self.revision = revision
                self.latches = latches
                self.configHash = configHash
            }
        }

        package init(
            protocolMin: Int64 = ProtocolVersion.oldest, protocolMax: Int64 = ProtocolVersion.current, version: String, edge: Edge?
        ) {
            self.protocolMin = protocolMin
            self.protocolMax = protocolMax
            self.version = version
            self.edge = edge
        }
    }

    package struct Welcome: Sendable, Equatable {
        package var version: Int64
        package var software: String
        /// Whom the hub takes the client for: the URI of its certificate.
        package var identity: String
        package var revision: Revision
        /// The hub's wall clock as it sent this, ms UTC.
        package var wallMilliseconds: Int64
        /// Edges: the highest seq the hub holds of this epoch, per feed; new rows continue above it (SPEC 8.2).
        package var highestSeq: [FeedSeq]

        package struct FeedSeq: Sendable, Equatable {
            package var feed: String
            package var seq: Int64
            package init(feed: String, seq: Int64) {
                self.feed = feed
                self.seq = seq
            }
        }

        package init(
            version: Int64 = ProtocolVersion.current, software: String, identity: String, revision: Revision, wallMilliseconds: Int64,
            highestSeq: [FeedSeq]
        ) {
            self.version = version
            self.software = software
            self.identity = identity
            self.revision = revision
            self.wallMilliseconds = wallMilliseconds
            self.highestSeq = highestSeq
        }
    }

    /// Where a copy stands (SPEC 8.2). All lengths and places are bytes of the edge's file.
    ///
    /// Edge: "of this file I hold `length` synced bytes; what have you got from block `from` on?" With `differsAt`: "up to there our bytes are the
    /// same, behind it they are not". Hub: "I hold the bytes up to `length`, those from `base` on in the file I write to; these are the checksums I
    /// took as they came". The edge compares page after page, then appends at `length`.
    package struct Resume: Sendable, Equatable {
        /// `<feed>_YYYYMMDD.jsonl`
        package var file: String
        package var length: Int64
        /// The first block of the page; a block is `Limits.resumeBlockBytes` of the file behind `base`.
        package var from: Int64
        /// Edge only: behind the last newline before the first difference.
        package var differsAt: Int64?
        /// Hub only: where its copy begins; above 0 for a part.
        package var base: Int64
        /// CRC32C of the edge's bytes before `differsAt` or `base`, 8 hex digits; nil when there are none.
        package var prefixCRC32C: String?
        /// Hub only: CRC32C of each block, 8 hex digits, at most a page of them; the last block of the copy may be short.
        package var blocks: [String]
        /// Hub only: it cannot store the file at present, and speaks again when it can.
        package var isStalled: Bool
        /// Hub only: the number of the part it writes to, 0 for the file that came first; nil from a hub of version 1.
        package var part: Int64?
        package init(
            file: String, length: Int64, from: Int64 = 0, differsAt: Int64? = nil, base: Int64 = 0, prefixCRC32C: String? = nil,
            blocks: [String] = [], isStalled: Bool = false, part: Int64? = nil
        ) {
            self.part = part
            self.file = file
            self.length = length
            self.from = from
            self.differsAt = differsAt
            self.base = base
            self.prefixCRC32C = prefixCRC32C
            self.blocks = blocks
            self.isStalled = isStalled
        }
    }

    /// Announces `bytes` bytes of the file from `offset` on, which follow the line unchanged. Only synced bytes are sent.
    package struct Append: Sendable, Equatable {
        package var file: String
        package var offset: Int64
        package var bytes: Int
        package init(file: String, offset: Int64, bytes: Int) {
            self.file = file
            self.offset = offset
            self.bytes = bytes
        }
    }

    /// The hub has synced the file up to `length`.
    package struct Ack: Sendable, Equatable {
        package var file: String
        package var length: Int64
        package init(file: String, length: Int64) {
            self.file = file
            self.length = length
        }
    }

    /// Edge: the file is complete, and this is what it holds; said in place of the first `resume`, and when all of it is acknowledged. Hub: the same
    /// back, once it has found its own copy to be that. From then on neither compares the file again, and the edge may remove it (SPEC 2.7, 8.2).
    package struct Sealed: Sendable, Equatable {
        package var file: String
        package var bytes: Int64
        package var rows: Int64
        /// 64 lower-case hex digits.
        package var sha256: String
        package init(file: String, bytes: Int64, rows: Int64, sha256: String) {
            self.file = file
            self.bytes = bytes
            self.rows = rows
            self.sha256 = sha256
        }
    }

    /// Retention has removed the edge's file, which held so many bytes: nothing more of it will come.
    package struct Gone: Sendable, Equatable {
        package var file: String
        package var bytes: Int64
        package init(file: String, bytes: Int64) {
            self.file = file
            self.bytes = bytes
        }
    }

    /// What the edge does now, once a second, unlogged; feeds live views only (SPEC 2.3). At most `Limits.statusSymbolsMax` symbols a message.
    package struct Status: Sendable, Equatable {
        package var wallMilliseconds: Int64
        package var revision: Revision
        /// Bytes synced at the edge and not acknowledged yet.
        package var backlogBytes: Int64
        /// The whole host is killed.
        package var isKilled: Bool
        package var symbols: [Symbol]

        package struct Symbol: Sendable, Equatable {
            package var symbol: String
            package var arm: String
            package var armWhy: String
            package var experiment: String?
            package var isProven: Bool
            package var isKilled: Bool
            /// Prices in 1e-9 quote currency, quantities in 1e-8 base asset; nil without a proven book.
            package var bid: Int64?
            package var ask: Int64?
            package var position: Int64
            package var openOrders: Int64
            package var ticks: Int64
            package var quotes: Int64
            package var fills: Int64
            /// In `Feature` order, in the feature's own places; nil is unknown.
            package var features: [Int64?]
            package init(
                symbol: String, arm: String, armWhy: String, experiment: String?, isProven: Bool, isKilled: Bool, bid: Int64?, ask: Int64?,
                position: Int64, openOrders: Int64, ticks: Int64, quotes: Int64, fills: Int64, features: [Int64?]
            ) {
                self.symbol = symbol
                self.arm = arm
                self.armWhy = armWhy
                self.experiment = experiment
                self.isProven = isProven
                self.isKilled = isKilled
                self.bid = bid
                self.ask = ask
                self.position = position
                self.openOrders = openOrders
                self.ticks = ticks
                self.quotes = quotes
                self.fills = fills
                self.features = features
            }
        }

        package init(wallMilliseconds: Int64, revision: Revision, backlogBytes: Int64, isKilled: Bool, symbols: [Symbol]) {
            self.wallMilliseconds = wallMilliseconds
            self.revision = revision
            self.backlogBytes = backlogBytes
            self.isKilled = isKilled
            self.symbols = symbols
        }
    }

    /// Edge: a numbered request. Hub: the answer to that number; 0 ms means refused. It expires at the edge's SEND time + duration (SPEC 7.7).
    package struct Lease: Sendable, Equatable {
        package var experiment: String
        package var number: Int64
        /// Nil in the edge's request.
        package var durationMilliseconds: Int64?
        /// The hub's wall clock as it answered, ms UTC: what the edge holds its own against. Nil in the edge's request.
        package var wallMilliseconds: Int64?
        package init(experiment: String, number: Int64, durationMilliseconds: Int64?, wallMilliseconds: Int64? = nil) {
            self.experiment = experiment
            self.number = number
            self.durationMilliseconds = durationMilliseconds
            self.wallMilliseconds = wallMilliseconds
        }
    }

    /// What the hub intends for this edge: the one running experiment, or none. Replaces the one before.
    package struct Assignment: Sendable, Equatable {
        package var revision: Revision
        package var experiment: ExperimentSpec?
        /// It is to wait on A, and to go on with the same schedule.
        package var isPaused: Bool
        package init(revision: Revision, experiment: ExperimentSpec?, isPaused: Bool = false) {
            self.revision = revision
            self.experiment = experiment
            self.isPaused = isPaused
        }
    }

    /// A breaker of the edge tripped: it plays A (SPEC 7.4).
    package struct Breaker: Sendable, Equatable {
        package var experiment: String
        package var trip: BreakerTrip
        /// Edge's wall clock when it tripped, ms UTC.
        package var atMilliseconds: Int64
        package init(experiment: String, trip: BreakerTrip, atMilliseconds: Int64) {
            self.experiment = experiment
            self.trip = trip
            self.atMilliseconds = atMilliseconds
        }
    }

    package enum CommandKind: String, Sendable, CaseIterable { case rollback, kill, release, parameters }

    /// Sent again on every connection until its last result is in; idempotent by `id`.
    package struct Command: Sendable, Equatable {
        package var id: String
        package var revision: Revision
        package var kind: CommandKind
        /// Rollback: the experiment.
        package var experiment: String?
        /// Kill, release: one symbol; nil is the whole host.
        package var symbol: String?
        /// Parameters: keys of the edge's configuration with their values; an empty value gives the key back to the configuration.
        package var set: [ExperimentSpec.Override]
        package var reason: String
        /// The operator's identity.
        package var by: String
        /// Hub's wall clock when the command was given, ms UTC.
        package var issuedMilliseconds: Int64
        package init(
            id: String, revision: Revision, kind: CommandKind, experiment: String?, symbol: String?, set: [ExperimentSpec.Override] = [],
            reason: String, by: String, issuedMilliseconds: Int64
        ) {
            self.id = id
            self.revision = revision
            self.kind = kind
            self.experiment = experiment
            self.symbol = symbol
            self.set = set
            self.reason = reason
            self.by = by
            self.issuedMilliseconds = issuedMilliseconds
        }
    }

    /// `applied`: in effect on the quote path. `latched`: it will survive a restart. `rejected` says why in `text`.
    package enum CommandState: String, Sendable, CaseIterable { case applied, latched, rejected }

    package struct CommandResult: Sendable, Equatable {
        package var id: String
        package var state: CommandState
        /// Edge's wall clock at that instant, ms UTC.
        package var atMilliseconds: Int64
        /// Applied: resting orders cancelled by it.
        package var cancelledOrders: Int64
        package var text: String?
        package init(id: String, state: CommandState, atMilliseconds: Int64, cancelledOrders: Int64, text: String?) {
            self.id = id
            self.state = state
            self.atMilliseconds = atMilliseconds
            self.cancelledOrders = cancelledOrders
            self.text = text
        }
    }

    /// An operator's question or order: a verb such as `host list` and its arguments as text.
    package struct Request: Sendable, Equatable {
        package var id: Int64
        package var verb: String
        package var arguments: [String: String]
        package init(id: Int64, verb: String, arguments: [String: String]) {
            self.id = id
            self.verb = verb
            self.arguments = arguments
        }
    }

    /// The end of a request. A body too long for a line comes as chunks before it, and is `null` here.
    package struct Reply: Sendable, Equatable {
        package var id: Int64
        package var outcome: Outcome
        package enum Outcome: Sendable, Equatable {
            case ok(JSONValue)
            /// `exit` is the status hubctl leaves with (SPEC 9.3).
            case failed(code: String, text: String, exit: Int64)
        }
        package init(id: Int64, outcome: Outcome) {
            self.id = id
            self.outcome = outcome
        }
    }

    package struct Progress: Sendable, Equatable {
        package var id: Int64
        package var done: Int64
        package var total: Int64
        package var text: String
        package init(id: Int64, done: Int64, total: Int64, text: String) {
            self.id = id
            self.done = done
            self.total = total
            self.text = text
        }
    }

    /// `bytes` bytes of a request's answer from `offset` on; they follow the line.
    package struct Chunk: Sendable, Equatable {
        package var id: Int64
        package var offset: Int64
        package var bytes: Int
        package init(id: Int64, offset: Int64, bytes: Int) {
            self.id = id
            self.offset = offset
            self.bytes = bytes
        }
    }

    /// How many raw bytes follow the line.
    package var payloadBytes: Int {
        switch self {
        case .append(let append): append.bytes
        case .chunk(let chunk): chunk.bytes
        default: 0
        }
    }
}
