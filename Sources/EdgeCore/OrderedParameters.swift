import CalibModel
import Wire

/// Parameters that operators ordered for this host through the hub, over the configuration's own (SPEC 9.1). Kept in `parameters.json`, so that a
/// restart quotes as the host did before it.
///
/// An order names keys of the configuration with their values; an empty value gives the key back to the configuration. Orders take effect in the
/// sequence of the hub's log: one that is not above the newest was done before it, and is answered once more without doing anything.
package struct OrderedParameters: Sendable, Equatable {
    package static let fileName = "parameters.json"

    /// Sorted by key.
    package private(set) var values: [ExperimentSpec.Override] = []
    /// Of the newest order; zero before there was one.
    package private(set) var revision = Revision.zero
    /// Of the newest order: its id, who gave it, why, and when it was taken here, ms UTC.
    private var command = ""
    private var by = ""
    private var reason = ""
    private var milliseconds: Int64 = 0

    package init() {}

    /// Why an order is not for this edge.
    package struct Refusal: Error, Equatable {
        package var text: String
        package init(text: String) { self.text = text }
    }

    /// With an order's values; nil when it was done before.
    package func following(_ order: Message.Command, at milliseconds: Int64) throws(Refusal) -> OrderedParameters? {
        guard order.revision > revision else { return nil }
        // What may never get wider must not hang on a file that a person cannot see in the configuration.
        if let limit = order.set.first(where: { $0.key.hasPrefix("limits.") }) {
            throw Refusal(text: "\(limit.key): a hard limit is changed in the host's own configuration")
        }
        var result = self
        for new in order.set {
            result.values.removeAll { $0.key == new.key }
            if !new.value.isEmpty { result.values.append(new) }
        }
        guard result.values.count <= Limits.orderedParametersMax else {
            throw Refusal(text: "more than \(Limits.orderedParametersMax) keys would be ordered")
        }
        result.values.sort { $0.key < $1.key }
        (result.revision, result.command, result.by, result.reason) = (order.revision, order.id, order.by, order.reason)
        result.milliseconds = milliseconds
        return result
    }

    // MARK: Text

    /// One object on one line.
    package var json: [UInt8] {
        var out = JSONWriter()
        out.beginObject()
        out.field("ts", integer: milliseconds)
        out.field("command", string: command)
        out.field("by", string: by)
        out.field("reason", string: reason)
        out.revision(revision)
        out.field("set", overrides: values)
        out.endObject()
        out.newline()
        return out.bytes
    }

    package init(json bytes: [UInt8]) throws(WireError) {
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(bytes) } catch { throw .json(error) }
        let fields = try Fields(value, of: "parameters")
        milliseconds = try fields.integer("ts")
        command = try fields.string("command")
        by = try fields.string("by")
        reason = try fields.string("reason")
        revision = try fields.revision()
        values = try fields.overrides("set").sorted { $0.key < $1.key }
    }
}
