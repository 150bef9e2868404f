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

    /// The rows of the table as threshold gates over the minutes that end by `end`; nil: all.
    package func gates(_ table: [Gate] = Gate.all, until end: Int64? = nil) -> [ThresholdGate] {
        var gates = table.map { row in
            var row = row
            row.kind = .threshold
            return ThresholdGate(row)
        }
        for (minute, sums) in sums.sorted(by: { $0.key < $1.key }) {
            let from = minute * Self.milliseconds
            if let end, from + Self.milliseconds > end { break }
            for index in gates.indices {
                gates[index].add(.init(fromMilliseconds: from, toMilliseconds: from + Self.milliseconds, a: sums.a, b: sums.b))
            }
        }
        return gates
    }
}
