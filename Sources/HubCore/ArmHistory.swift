import CalibModel
import Wire

/// Who wrote snapshots, of what and until when: what a planned experiment is laid out by. One pass over the rows before a `PairLedger` reads them.
package struct ArmHistory: ~Copyable {
    private var scanner = FeedScanner()
    private var symbols: [String: Set<String>] = [:]
    private var notional: [String: Int128] = [:]
    private let pairMilliseconds: Int64
    private var pairsSeen: Set<Int64> = []
    private var last: Int64 = 0
    /// Of the rows; a plan is made of one.
    package private(set) var sources: Set<RowSource> = []

    /// `blockMilliseconds`: of the pairs that are counted.
    package init(blockMilliseconds: Int64) { pairMilliseconds = 2 * blockMilliseconds }

    package mutating func take(_ line: UnsafeRawBufferPointer, host: String, source wanted: RowSource?, isTerminated: Bool = true) {
        guard scanner.scan(line, feed: .snapshots, isTerminated: isTerminated) == nil else { return }
        let row = scanner.row
        guard row[.arm] == Int64(Arm.a.rawValue), let source = row[.source].flatMap(RowSource.init), wanted == nil || wanted == source
        else {
            return
        }
        sources.insert(source)
        let symbol = String(decoding: row.symbol, as: UTF8.self)
        guard symbols[host, default: []].contains(symbol) || symbols[host, default: []].count < Limits.symbolsMax else { return }
        symbols[host, default: []].insert(symbol)
        notional[symbol, default: 0] += Int128(row.value(.fillNotional))
        last = max(last, row.value(.fromTs) + row.value(.spanMs))
        pairsSeen.insert(row.value(.fromTs) / pairMilliseconds)
    }

    /// Pairs of blocks with rows of some host, on a grid from 1970 on.
    package var pairs: Int64 { Int64(pairsSeen.count) }

    /// Symbols on hosts.
    package var unitCount: Int { symbols.values.reduce(0) { $0 + $1.count } }

    /// By what was traded, most first.
    package var ranked: [String] { notional.keys.sorted { (notional[$1] ?? 0, $0) < (notional[$0] ?? 0, $1) } }

    /// An experiment that would begin where the rows end, so that the day before it is its pre-period. Any coins serve.
    package func plan(source: RowSource, blockMilliseconds: Int64, washoutMilliseconds: Int64) -> PairPlan {
        let design = Switchback(
            startMilliseconds: last - last % Switchback.stepMilliseconds, blockMilliseconds: blockMilliseconds,
            washoutMilliseconds: washoutMilliseconds, key0: 0x706f_7765_7200_0001, key1: 0x706f_7765_7200_0002,
            clusters: Switchback.matched(ranked))
        let hosts = symbols.map { PairPlan.Host(name: $0.key, symbols: $0.value.sorted()) }
        return PairPlan(experiment: "", design: design, hosts: hosts, source: source)
    }
}
