import Glibc
import HubCore
import NodeShell
import Wire

/// One run in full, so that somebody else's program can come to the same numbers.
struct ABDump {
    private var rows = JSONWriter()
    private var flips = JSONWriter()
    private var decisions = JSONWriter()

    mutating func add(_ items: [UnitPair], pair: Int, phase: String) {
        for item in items {
            flips.beginObject()
            flips.field("phase", string: phase)
            flips.field("pair", integer: pair)
            flips.field("unit", integer: item.unit)
            flips.field("group", integer: item.group)
            flips.field("eps", integer: item.sign > 0 ? 1 : -1)
            flips.endObject()
            flips.newline()
            for (half, sums) in [item.first, item.second].enumerated() {
                add(sums, item, half: half, pair: pair, phase: phase)
            }
        }
    }

    private mutating func add(_ sums: BlockSums, _ item: UnitPair, half: Int, pair: Int, phase: String) {
        rows.beginObject()
        rows.field("phase", string: phase)
        rows.field("pair", integer: pair)
        rows.field("half", integer: half)
        rows.field("unit", integer: item.unit)
        rows.field("arm", string: phase == "online" && (half == 1) == (item.sign > 0) ? "B" : "A")
        rows.field("ticks", integer: sums.ticks)
        rows.field("deadline_misses", integer: sums.misses)
        rows.field("fills", integer: sums.fills)
        rows.field("taker_fills", integer: sums.takerFills)
        rows.field("slip", fixed: Int64(clamping: sums.slip), places: 6)
        rows.field("fill_notional", fixed: Int64(clamping: sums.fillNotional), places: 8)
        rows.key("slip_x_notional_e14")
        rows.raw(String(sums.slipNotional).utf8)
        rows.field("markout_notional", fixed: Int64(clamping: sums.markoutNotional), places: 8)
        rows.key("net_x_notional_e14")
        rows.raw(String(sums.netNotional).utf8)
        rows.field("return2", fixed: Int64(clamping: sums.squaredReturn), places: 9)
        rows.field("returns", integer: sums.returns)
        rows.key("tick_ns_histogram")
        rows.beginArray()
        for (index, count) in sums.histogram {
            rows.beginArray()
            rows.integer(Int64(index))
            rows.integer(count)
            rows.endArray()
        }
        rows.endArray()
        rows.endObject()
        rows.newline()
    }

    mutating func add(_ gates: [SequentialGate], pair: Int) {
        for gate in gates {
            for test in gate.tests {
                decisions.beginObject()
                decisions.field("pair", integer: pair)
                decisions.field("gate", string: gate.gate.name)
                decisions.field("metric", string: test.hypothesis.metric.rawValue)
                decisions.field("state", string: String(describing: gate.state.name))
                for (name, value) in [
                    ("alpha", test.alpha), ("decision_pairs", gate.gate.decisionPairs), ("tolerance", test.hypothesis.tolerance),
                    ("rho", test.harm.rho), ("S", test.harm.sum),
                    ("V", test.harm.squares), ("log_e", test.harm.logE), ("log_e_max", test.harm.logEMax),
                ] as [(StaticString, Double)] {
                    decisions.key(name)
                    decisions.double(value)
                }
                decisions.key("estimate")
                decisions.double(test.effects.estimate)
                decisions.endObject()
                decisions.newline()
            }
        }
    }

    /// The folder is made when it is not there; its parent must be.
    func write(to folder: String) throws(FileError) {
        mkdir(folder, 0o755)
        for (name, bytes) in [("rows", rows.bytes), ("flips", flips.bytes), ("decisions", decisions.bytes)] {
            var file = try LineOutput(path: "\(folder)/\(name).jsonl")
            try file.append(bytes)
            try file.finish()
        }
    }
}
