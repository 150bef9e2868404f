import Wire

/// The category a connection asked for with its path, `/v5/public/<category>`.
package enum BybitCategory: String, Sendable, CaseIterable { case linear, spot }

/// One client of Bybit v5's public stream as the venue sees it: its topics, and the answers to its requests.
///
/// Answers have the venue's shapes, which differ by category. A request is taken whole or not at all: one unknown topic, or one the client
/// has already, refuses it. Any bytes get an answer; nothing traps.
package struct BybitConnection: Sendable {
    /// What a request changed.
    package enum Change: Sendable, Equatable {
        case nothing
        case subscribed([String])
        /// Only topics the client had.
        case unsubscribed([String])
    }

    /// Spot takes at most this many topics in one request.
    package static let spotArgumentsMax = 10
    /// Topics in one request. The venue allows 21,000 characters; our clients' messages are bounded in bytes too.
    package static let argumentsMax = 2_000
    /// A longer request id is cut in the answer.
    package static let requestIDCharactersMax = 100

    package let category: BybitCategory
    /// `conn_id` in every answer.
    package let name: String
    private(set) var topics: Set<String> = []

    package init(category: BybitCategory, name: String) {
        self.category = category
        self.name = name
    }

    /// `knows` says whether the venue has a topic.
    package mutating func receive(_ bytes: UnsafeRawBufferPointer, knows: (String) -> Bool) -> (answer: [UInt8], change: Change) {
        guard let request = try? JSONValue.parse(bytes), request.members != nil else {
            return (answer(to: nil, "", refusal: "Failed to decode incoming data"), .nothing)
        }
        let id = request["req_id"]?.string.map { String($0.prefix(Self.requestIDCharactersMax)) }
        let operation = request["op"]?.string ?? ""
        switch operation {
        case "ping": return (answer(to: id, "ping", message: "pong"), .nothing)
        case "subscribe":
            let arguments = arguments(of: request)
            if let refusal = refusal(of: arguments, knows: knows) { return (answer(to: id, operation, refusal: refusal), .nothing) }
            topics.formUnion(arguments)
            return (answer(to: id, operation, message: acknowledgement(of: operation)), .subscribed(arguments))
        case "unsubscribe":
            let gone = arguments(of: request).filter { topics.remove($0) != nil }
            return (answer(to: id, operation, message: acknowledgement(of: operation)), .unsubscribed(gone))
        default: return (answer(to: id, String(operation.prefix(Self.requestIDCharactersMax)), refusal: "error:invalid op"), .nothing)
        }
    }

    // MARK: Leaves

    /// Anything but a string stands for a topic nobody has.
    private func arguments(of request: JSONValue) -> [String] {
        (request["args"]?.array ?? []).prefix(Self.argumentsMax + 1).map { $0.string ?? "" }
    }

    /// Nil when the topics can be subscribed to.
    private func refusal(of arguments: [String], knows: (String) -> Bool) -> String? {
        let countMax = category == .spot ? Self.spotArgumentsMax : Self.argumentsMax
        guard arguments.count <= countMax else { return "args size >\(countMax)" }
        var seen = topics
        for topic in arguments {
            guard knows(topic) else {
                let named = String(topic.prefix(Self.requestIDCharactersMax))
                return category == .spot ? "Invalid symbol :[\(named)]" : "error:handler not found,topic:\(named)"
            }
            guard seen.insert(topic).inserted else { return "error:already subscribed,topic:\(topic)" }
        }
        return nil
    }

    /// Spot names the operation, linear says nothing.
    private func acknowledgement(of operation: String) -> String { category == .spot ? operation : "" }

    private func answer(to id: String?, _ operation: String, message: String? = nil, refusal: String? = nil) -> [UInt8] {
        var json = JSONWriter()
        json.beginObject()
        json.field("success", boolean: refusal == nil)
        json.field("ret_msg", string: refusal ?? message ?? "")
        json.field("conn_id", string: name)
        // Linear repeats the id even when there is none.
        if category == .linear || id != nil { json.field("req_id", string: id ?? "") }
        json.field("op", string: operation)
        json.endObject()
        return json.take()
    }
}
