import CalibModel
import Wire

/// The kill switch of one host: what is killed, and how every way to it becomes durable and answered (SPEC 10.1).
///
/// Killed = what the rows of `kills.jsonl` fold to, and kills in effect whose row is not durable yet. A release lifts what was killed under
/// the same scope, and takes effect only once its row is durable. So a crash at any moment errs towards killed: a kill is called applied before
/// its row is durable, hence what is left of a row counts as a kill of the host. Rows that vanish from the file lift nothing.
package struct KillSwitch {
    package enum Input: Sendable {
        case command(Message.Command)
        /// A file named KILL is there.
        case fileSeen
        /// All bytes of `kills.jsonl`, at start and whenever it grew.
        case log([UInt8])
        /// The answer to `kill`: orders whose cancel was sent, and when, ms UTC.
        case performed(Order, cancelledOrders: Int64, atMilliseconds: Int64)
        /// The answer to `record`: durable, with all bytes of `kills.jsonl`; or not.
        case recorded(Order, log: [UInt8])
        case recordFailed(Order)
        /// About once a second: failed records are tried again.
        case tick(atMilliseconds: Int64)
    }

    package enum Effect: Equatable, Sendable {
        /// Cancel and quote no more, all of these; answer with `performed` when there is an order, also when there is nothing new to kill.
        case kill([Scope], Order?)
        case release([Scope])
        /// Append the row and make it durable; for a release of the host the file KILL is removed first.
        case record(KillRecord, Order)
        case say(Message)
        /// For the log: lines of `kills.jsonl` cannot be read; each counts as a kill of the host.
        case damaged(lines: [Int])
        /// For the log: rows that were there are not there any more.
        case rowsGone
    }

    /// What was killed when rows vanished, and how many lines were left then: those that follow may lift it.
    private struct Carried {
        var lines: Int
        var isHostKilled: Bool
        var symbols: Set<String>
    }

    /// What is killed and released as one; a release lifts the kill of its own scope only.
    package enum Scope: Hashable, Sendable {
        case host
        case symbol(SymbolIndex)
    }

    /// What asked for a kill or release.
    package enum Order: Hashable, Sendable {
        /// The hub's, by its id.
        case command(String)
        case file
    }

    private struct Pending {
        var record: KillRecord
        var isPerformed = false
        var hasFailed = false
    }

    private let symbols: [String]
    private var isHostKilledByLog = false
    private var symbolsKilledByLog: Set<String> = []
    private var pending: [Order: Pending] = [:]
    /// Results of commands whose rows are durable.
    private var done: [String: KillRecord] = [:]
    private var damagedLines: [Int] = []
    /// The whole lines that were folded last.
    private var folded: ArraySlice<UInt8> = []
    private var carried: Carried?
    /// What the quote path was told: killed.
    private var told: Set<Scope> = []
    package private(set) var revision = Revision.zero

    /// `symbols` in the order of `SymbolIndex`. Nothing is killed before the first `log`.
    package init(symbols: [String]) { self.symbols = symbols }

    /// Of the whole host.
    package var isHostKilled: Bool {
        isHostKilledByLog || pending.values.contains { $0.record.action == .kill && $0.record.symbol == nil }
    }

    package func isKilled(_ symbol: SymbolIndex) -> Bool { told.contains(.host) || told.contains(.symbol(symbol)) }

    package mutating func step(_ input: Input) -> [Effect] {
        switch input {
        case .command(let command): return self.command(command)
        case .fileSeen:
            guard !isHostKilled else { return [] }
            return kill(KillRecord(milliseconds: 0, action: .kill, symbol: nil, by: "local", reason: "file KILL"), .file)
        case .log(let bytes): return fold(bytes)
        case .performed(let order, let cancelled, let milliseconds): return performed(order, cancelled, milliseconds)
        case .recorded(let order, let log): return recorded(order, log)
        case .recordFailed(let order): return recordFailed(order)
        case .tick(let milliseconds): return retry(milliseconds)
        }
    }

    // MARK: Orders

    private mutating func command(_ command: Message.Command) -> [Effect] {
        let order = Order.command(command.id)
        if let record = done[command.id] { return results(of: record, .applied) + results(of: record, .latched) }
        if let known = pending[order] { return known.isPerformed ? results(of: known.record, .applied) : [] }
        if let symbol = command.symbol, !symbols.contains(symbol) {
            return [
                .say(
                    .commandResult(
                        .init(
                            id: command.id, state: .rejected, atMilliseconds: command.issuedMilliseconds, cancelledOrders: 0,
                            text: "no symbol '\(symbol)' here")))
            ]
        }
        var record = KillRecord(
            milliseconds: 0, action: .kill, symbol: command.symbol, by: command.by, reason: command.reason, command: command.id,
            revision: command.revision)
        switch command.kind {
        case .kill: return kill(record, order)
        case .release:
            record.action = .release
            record.milliseconds = command.issuedMilliseconds
            pending[order] = Pending(record: record)
            return [.record(record, order)]
        case .rollback, .parameters: preconditionFailure("BUG: '\(command.kind.rawValue)' is no matter of the kill switch")
        }
    }

    private mutating func kill(_ record: KillRecord, _ order: Order) -> [Effect] {
        pending[order] = Pending(record: record)
        return [.kill(tell().killed, order)]
    }

    private mutating func performed(_ order: Order, _ cancelled: Int64, _ milliseconds: Int64) -> [Effect] {
        guard var known = pending[order], !known.isPerformed else { return [] }
        known.record.cancelledOrders = cancelled
        known.record.milliseconds = milliseconds
        known.isPerformed = true
        pending[order] = known
        return results(of: known.record, .applied) + [.record(known.record, order)]
    }

    private mutating func recorded(_ order: Order, _ log: [UInt8]) -> [Effect] {
        guard let known = pending.removeValue(forKey: order) else { return fold(log) }
        // First the fold: a release is in effect before it is called applied.
        let effects = fold(log)
        switch known.record.action {
        case .kill: return effects + results(of: known.record, .latched)
        case .release: return effects + results(of: known.record, .applied) + results(of: known.record, .latched)
        }
    }

    private mutating func recordFailed(_ order: Order) -> [Effect] {
        guard let known = pending[order] else { return [] }
        switch known.record.action {
        case .kill:
            pending[order]?.hasFailed = true
            return []
        case .release:
            // Still killed: the operator hears it and decides.
            pending[order] = nil
            return results(of: known.record, .rejected, "the release cannot be recorded; is the disk full or failing?")
        }
    }

    private mutating func retry(_ milliseconds: Int64) -> [Effect] {
        var effects: [Effect] = []
        for (order, known) in pending.sorted(by: { $0.value.record.milliseconds < $1.value.record.milliseconds }) where known.hasFailed {
            pending[order]?.hasFailed = false
            effects.append(.record(known.record, order))
        }
        return effects
    }

    // MARK: The fold

    private mutating func fold(_ bytes: [UInt8]) -> [Effect] {
        let log = ControlRows(bytes, countsTornEnd: true) { value throws(WireError) in try KillRecord(value) }
        let whole = bytes[..<(bytes.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0)]
        let areRowsGone = !whole.starts(with: folded)
        if areRowsGone {
            carried = Carried(lines: whole.count { $0 == 0x0a }, isHostKilled: isHostKilledByLog, symbols: symbolsKilledByLog)
        }
        folded = whole
        (isHostKilledByLog, symbolsKilledByLog) = (false, [])
        var waiting = carried
        for (number, row) in log.lines {
            if let carried = waiting, number > carried.lines { carry(&waiting) }
            // What cannot be read may have been a kill of anything; a later release of the host lifts it.
            if let row { apply(row) } else { isHostKilledByLog = true }
        }
        carry(&waiting)
        let isNew = log.damagedLines != damagedLines
        damagedLines = log.damagedLines
        return (areRowsGone ? [.rowsGone] : []) + (isNew && !damagedLines.isEmpty ? [.damaged(lines: damagedLines)] : []) + changes()
    }

    private mutating func carry(_ waiting: inout Carried?) {
        guard let carried = waiting.take() else { return }
        isHostKilledByLog = isHostKilledByLog || carried.isHostKilled
        symbolsKilledByLog.formUnion(carried.symbols)
    }

    private mutating func apply(_ record: KillRecord) {
        switch (record.action, record.symbol) {
        case (.kill, nil): isHostKilledByLog = true
        case (.release, nil): isHostKilledByLog = false
        case (.kill, .some(let symbol)): symbolsKilledByLog.insert(symbol)
        case (.release, .some(let symbol)): symbolsKilledByLog.remove(symbol)
        }
        revision = max(revision, record.revision)
        if let command = record.command { done[command] = record }
    }

    private mutating func changes() -> [Effect] {
        let (killed, released) = tell()
        return (killed.isEmpty ? [] : [.kill(killed, nil)]) + (released.isEmpty ? [] : [.release(released)])
    }

    /// The scopes whose state differs from what the quote path was told, the host first; they count as told from now on.
    private mutating func tell() -> (killed: [Scope], released: [Scope]) {
        let pendingSymbols = Set(pending.values.compactMap { $0.record.action == .kill ? $0.record.symbol : nil })
        var wanted: Set<Scope> = isHostKilled ? [.host] : []
        for (index, symbol) in symbols.enumerated() where symbolsKilledByLog.contains(symbol) || pendingSymbols.contains(symbol) {
            wanted.insert(.symbol(SymbolIndex(index)))
        }
        let scopes = [Scope.host] + symbols.indices.map { .symbol(SymbolIndex($0)) }
        defer { told = wanted }
        return (
            scopes.filter { wanted.contains($0) && !told.contains($0) }, scopes.filter { told.contains($0) && !wanted.contains($0) }
        )
    }

    private func results(of record: KillRecord, _ state: Message.CommandState, _ text: String? = nil) -> [Effect] {
        guard let command = record.command else { return [] }
        return [
            .say(
                .commandResult(
                    .init(
                        id: command, state: state, atMilliseconds: record.milliseconds, cancelledOrders: record.cancelledOrders, text: text)
                ))
        ]
    }
}
