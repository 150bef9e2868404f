/// Time in violation, measured in the data's own time (SPEC 7.3).
///
/// Not in violation -> breaching -> violated. Only time covered by rows counts. A window that is not in violation starts it over; a gap
/// neither counts nor passes.
package struct ThresholdGate: Sendable {
    /// Both arms over one span of time, of all units.
    package struct Window: Sendable {
        package var fromMilliseconds: Int64
        package var toMilliseconds: Int64
        package var a: BlockSums
        package var b: BlockSums
        package init(fromMilliseconds: Int64, toMilliseconds: Int64, a: BlockSums, b: BlockSums) {
            self.fromMilliseconds = fromMilliseconds
            self.toMilliseconds = toMilliseconds
            self.a = a
            self.b = b
        }
    }

    /// A hole between rows longer than this is a gap: twice the longest span of a snapshot row.
    package static let gapMilliseconds: Int64 = 120_000
    /// What is compared are sums over the trailing minute: a few fills at least, and so short that a breach of minutes is not stretched to ten.
    package static let averagedMilliseconds: Int64 = 60_000

    package let gate: Gate
    private var recent: [Window] = []
    private var breachingMilliseconds: Int64 = 0
    private var isViolated = false
    private var latest = GateState.noData

    package init(_ gate: Gate) { self.gate = gate }

    package var state: GateState { latest }
    /// Whether the experiment has to go back to A.
    package var demandsRollback: Bool { gate.isEnabled && !gate.isDryRun && latest == .violated }

    /// Windows in order of time; one that does not begin after the last one's beginning was seen already and is ignored.
    package mutating func add(_ window: Window) {
        if let last = recent.last {
            guard window.fromMilliseconds > last.fromMilliseconds else { return }
            if window.fromMilliseconds - last.toMilliseconds > Self.gapMilliseconds { recent.removeAll() }
        }
        recent.append(window)
        recent.removeAll { $0.toMilliseconds <= window.toMilliseconds - Self.averagedMilliseconds }
        if isViolated { return }
        var (a, b) = (BlockSums(), BlockSums())
        for window in recent {
            a += window.a
            b += window.b
        }
        guard let isBreach = isBreach(a, b) else {
            latest = a.ticks + a.fills + b.ticks + b.fills == 0 ? .noData : .warming
            return
        }
        guard isBreach else {
            breachingMilliseconds = 0
            latest = .clear
            return
        }
        breachingMilliseconds += window.toMilliseconds - window.fromMilliseconds
        isViolated = breachingMilliseconds >= gate.durationSeconds * 1000
        latest = isViolated ? .violated : .breaching(seconds: breachingMilliseconds / 1000, of: gate.durationSeconds)
    }

    /// No rows any more up to this instant: what was clear is not clear for ever.
    package mutating func silent(until milliseconds: Int64) {
        guard !isViolated, let last = recent.last, milliseconds - last.toMilliseconds > Self.gapMilliseconds else { return }
        latest = .noData
    }

    /// Nil when there is too little to say.
    private func isBreach(_ a: BlockSums, _ b: BlockSums) -> Bool? {
        let least = Int64(max(1, gate.minSamples))
        func samples(_ sums: BlockSums) -> Int64 {
            switch gate.limitMetric {
            case .slippage, .notionalSlippage, .takerShare, .netLoss: sums.fills
            case .logLatency, .latency, .missRate: sums.ticks
            }
        }
        guard samples(b) >= least, let valueB = gate.limitMetric.value(b) else { return nil }
        if case .absolute(let limit) = gate.limit { return valueB > limit }
        guard samples(a) >= least, let valueA = gate.limitMetric.value(a) else { return nil }
        return switch gate.limit {
        case .difference(let limit): valueB - valueA > limit
        case .ratio(let limit): valueB > (1 + limit) * valueA
        case .absolute(let limit): valueB > limit
        }
    }
}
