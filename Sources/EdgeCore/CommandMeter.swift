import CalibModel
import Wire

/// Counts the hub's commands by their first answer, and the time to it.
package struct CommandMeter: Sendable {
    /// In the order in which they came.
    private var waiting: [(id: String, kind: Message.CommandKind, at: Instant)] = []
    /// By kind, then result.
    package private(set) var answered: [(kind: Message.CommandKind, result: Message.CommandState, count: Int64)] = []
    /// Nanoseconds from receipt to `applied`.
    package private(set) var applied = BoundedHistogram(bounds: MetricBounds.answer)

    package init() {}

    package mutating func received(_ command: Message.Command, at now: Instant) {
        // The hub sends one again until it has the last word about it.
        guard !waiting.contains(where: { $0.id == command.id }) else { return }
        if waiting.count == Limits.timedCommandsMax { waiting.removeFirst() }
        waiting.append((command.id, command.kind, now))
    }

    package mutating func said(_ result: Message.CommandResult, at now: Instant) {
        guard let place = waiting.firstIndex(where: { $0.id == result.id }) else { return }  // A later word about it.
        let command = waiting.remove(at: place)
        if result.state == .applied { applied.add(now.since(command.at)) }
        if let known = answered.firstIndex(where: { $0.kind == command.kind && $0.result == result.state }) {
            answered[known].count += 1
        } else {
            answered.append((command.kind, result.state, 1))
            answered.sort { ($0.kind.rawValue, $0.result.rawValue) < ($1.kind.rawValue, $1.result.rawValue) }
        }
    }
}
