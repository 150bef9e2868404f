import Configuration
import EdgeCore
import Logging
import NodeShell
import Wire

/// Who changes the configuration of a running edge: SIGHUP and the hub's orders, one after the other, each whole or not at all.
///
/// `@unchecked Sendable`: everything is touched on the control loop only.
final class Reconfiguration: @unchecked Sendable {
    typealias Load = (OrderedParameters) throws(ConfigurationError) -> EdgeConfiguration

    private var current: EdgeConfiguration
    private var ordered: OrderedParameters
    private let path: String
    private let load: Load
    private let quote: QuoteLoop
    private let control: ControlLoop
    private let logger: Logger

    /// `load` reads the configuration's files again. `ordered` is what `current` was made with.
    init(
        _ current: EdgeConfiguration, _ ordered: OrderedParameters, artifacts: String, _ quote: QuoteLoop, _ control: ControlLoop,
        _ logger: Logger,
        _ load: @escaping Load
    ) {
        (self.current, self.ordered, self.load) = (current, ordered, load)
        path = Self.path(artifacts)
        (self.quote, self.control, self.logger) = (quote, control, logger)
    }

    private static func path(_ artifacts: String) -> String { "\(artifacts)/\(OrderedParameters.fileName)" }

    /// What was ordered before this start.
    static func ordered(in artifacts: String) throws(FileError) -> Result<OrderedParameters, WireError> {
        guard let bytes = try AtomicFile.read(path(artifacts)) else { return .success(OrderedParameters()) }
        return Result { () throws(WireError) in try OrderedParameters(json: bytes) }
    }

    /// SIGHUP.
    func reload() {
        do throws(ConfigurationError) {
            let changed = change(to: try wanted(ordered, file: "configuration")) {}
            logger.info("Configuration read again on SIGHUP.", metadata: ["changed": "\(changed)"])
        } catch {
            quote.reloadFailed()
            logger.error(
                "Configuration refused on SIGHUP; the old one stays in effect.", metadata: ["problems": "\(error.description)"])
        }
    }

    /// Parameters that an operator ordered. They are on the disk before they are in effect.
    func obey(_ order: Message.Command) {
        let now = SystemClock.wall().milliseconds
        do throws(OrderedParameters.Refusal) {
            guard let new = try ordered.following(order, at: now) else { return done(order) }
            let configuration: EdgeConfiguration
            do throws(ConfigurationError) { configuration = try wanted(new, file: OrderedParameters.fileName) } catch {
                throw OrderedParameters.Refusal(text: error.problems.map { "\($0.key): \($0.text)" }.joined(separator: "; "))
            }
            do throws(FileError) { try AtomicFile.write(new.json, to: path) } catch {
                logger.error("Ordered parameters cannot be recorded.", metadata: ["cause": "\(error)"])
                throw OrderedParameters.Refusal(text: "the order cannot be recorded; is the disk full or failing?")
            }
            ordered = new
            let changed = change(to: configuration) { [self] in done(order) }
            logger.warning(
                "Parameters were ordered through the hub.",
                metadata: ["changed": "\(changed)", "by": "\(order.by)", "reason": "\(order.reason)", "command": "\(order.id)"])
        } catch {
            logger.warning("Ordered parameters are refused.", metadata: ["by": "\(order.by)", "problems": "\(error.text)"])
            answer(order, .rejected, at: now, error.text)
        }
    }

    // MARK: Steps

    /// The configuration as its files and `ordered` say, when the edge can go over to it.
    private func wanted(_ ordered: OrderedParameters, file: String) throws(ConfigurationError) -> EdgeConfiguration {
        let new = try load(ordered)
        let problems = current.reloadProblems(new, file: file)
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
        return new
    }

    /// Returns what changed, for the log; `then` runs on the quote thread when it is in effect.
    private func change(to new: EdgeConfiguration, then: @escaping @Sendable () -> Void) -> String {
        let changes = new.effective.filter { current.effective[$0.key] != $0.value }.sorted { $0.key < $1.key }
        current = new
        quote.adopt(new, then: then)
        control.adopt(new)
        return changes.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
    }

    private func done(_ order: Message.Command) {
        let now = SystemClock.wall().milliseconds
        answer(order, .applied, at: now)
        answer(order, .latched, at: now)
    }

    private func answer(_ order: Message.Command, _ state: Message.CommandState, at milliseconds: Int64, _ text: String? = nil) {
        control.say(.commandResult(.init(id: order.id, state: state, atMilliseconds: milliseconds, cancelledOrders: 0, text: text)))
    }
}
