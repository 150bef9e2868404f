import CalibModel

/// Both arms minute by minute: what threshold gates look at (SPEC 7.3). Sums merge in any order, so the gates depend on the rows alone.
package struct ArmMinutes: Sendable {
    package static let milliseconds: Int64 = 60_000
    /// A minute is looked at when rows reach this far behind its end: the markouts of its last fills are in, and slower hosts' rows.
    package static let settlingMilliseconds: Int64 = 60_000

    private var sums: [Int64: (a: BlockSums, b: BlockSums)] = [:]

    package init() {}

    package mutating func add(_ row: BlockSums, isB: Bool, from milliseconds: Int64) {
        let minute = milliseconds.flooredDivision(by: Self.milliseconds)
        if isB {
            sums[minute, default: (BlockSums(), BlockSums())].b += row
        } else {
            sums[minute, default: (BlockSums(), BlockSums())].a += row
        }
    }

    /// The rows of the table as threshold gates over the whole minutes of a span of time, ms UTC; nil: over all.
    package func gates(_ table: [Gate] = Gate.all, in span: Range<Int64>? = nil) -> [ThresholdGate] {
        var gates = table.map { row in
            var row = row
            row.kind = .threshold
            return ThresholdGate(row)
        }
        for window in windows(in: span) {
            for index in gates.indices { gates[index].add(window) }
        }
        return gates
    }

    /// The limit for missed deadlines as a rule for the arm that misses fewer: in violation when both do.
    func bothLate(in span: Range<Int64>) -> GateState {
        guard var row = Gate.all.first(where: { $0.limitMetric == .missRate }) else { return .noData }
        row.kind = .threshold
        var gate = ThresholdGate(row)
        for var window in windows(in: span) {
            guard let a = row.limitMetric.value(window.a), let b = row.limitMetric.value(window.b) else { continue }
            if a < b { window.b = window.a }
            gate.add(window)
        }
        return gate.state
    }

    private func windows(in span: Range<Int64>?) -> [ThresholdGate.Window] {
        sums.sorted { $0.key < $1.key }.compactMap { minute, sums in
            let from = minute * Self.milliseconds
            if let span, from < span.lowerBound || from + Self.milliseconds > span.upperBound { return nil }
            return .init(fromMilliseconds: from, toMilliseconds: from + Self.milliseconds, a: sums.a, b: sums.b)
        }
    }
}
