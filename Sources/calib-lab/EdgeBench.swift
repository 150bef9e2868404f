import CAllocationCount
import CalibModel
import EdgeCore
import Wire

/// The edge's whole quote path, measured: raw frame, JSON, book, six stages, features, paper exchange, ring slot; one thread, no file, no socket.
///
/// What reads a clock inside the work would falsify it, so every quantity has its own pass over the same frames: throughput, latency by kind,
/// durations of the stages, allocations. Every pass builds its node anew; the first one is a warm-up and not counted.
struct EdgeBench {
    struct Percentiles {
        var count: Int64 = 0
        var p50: Int64 = 0
        var p90: Int64 = 0
        var p95: Int64 = 0
        var p99: Int64 = 0
        var p999: Int64 = 0
    }

    struct Result {
        var messages = 0
        /// One per round.
        var messagesPerSecond: [Double] = []
        var megabytesPerSecond: [Double] = []
        /// Per second that the processor gave this thread: what a busy machine leaves comparable.
        var messagesPerProcessorSecond: [Double] = []
        var allocationsPerMessage = 0.0
        var quotesHash: UInt64 = 0
        var kinds: [Percentiles] = []
        /// Frames of any kind.
        var frame = Percentiles()
        var stages: [Percentiles] = []
        /// The six stages and what the tick records, without the frame that set it off.
        var tick = Percentiles()
        /// What one reading of the clock costs; the latencies are without it.
        var clockNanoseconds: Int64 = 0
    }

    let frames: BenchFrames
    let instruments: [Instrument]
    private let venue: QuoteNode.Venue
    private let rounds: Int
    /// How many of the recording's frames each symbol gets.
    let framesPerSymbol: Int
    let memory = OutboxMemory()

    /// - Parameter symbols: with more than one, each gets the recording's beginning under a name of its own, in turn, so that a pass stays as
    ///   long as a few passes over the recording.
    init(_ frames: BenchFrames, venue: QuoteNode.Venue, symbols: Int, rounds: Int) throws(BenchError) {
        guard !frames.frames.isEmpty, !frames.symbol.isEmpty else { throw .noFrames }
        self.frames = frames
        self.venue = venue
        self.rounds = rounds
        var scan = InstrumentScan(venue: venue, connections: 1)
        frames.text.withUnsafeBytes { text in
            for frame in frames.frames {
                scan.frame(UnsafeRawBufferPointer(rebasing: text[frame.start..<frame.start + frame.count]), on: 0)
            }
        }
        guard var instrument = scan.instruments().first else { throw .noFrames }
        guard symbols > 1 else {
            instruments = [instrument]
            framesPerSymbol = frames.frames.count
            return
        }
        var all: [Instrument] = []
        for index in 0..<symbols {
            instrument.symbol = Self.name(index, like: frames.symbol)
            all.append(instrument)
        }
        instruments = all
        let snapshot = frames.frames.firstIndex { $0.kind == .snapshot } ?? 0
        framesPerSymbol = min(frames.frames.count, max(snapshot + 300, 2 * frames.frames.count / symbols))
    }

    /// As long as the recorded name, so that a frame is renamed in its place.
    private static func name(_ index: Int, like symbol: String) -> String {
        let digits = String(index)
        precondition(digits.utf8.count < symbol.utf8.count, "BUG: '\(symbol)' is too short for \(index)")
        return "S" + String(repeating: "0", count: symbol.utf8.count - 1 - digits.utf8.count) + digits
    }

    var messages: Int { framesPerSymbol * instruments.count }

    func run() throws(BenchError) -> Result {
        var result = Result()
        result.messages = messages
        result.clockNanoseconds = Self.clockCost()
        var text = frames.text
        for round in 0...rounds {
            let (nanoseconds, processor, bytes, hash) = throughput(&text)
            if round == 0 {
                result.quotesHash = hash
                continue
            }
            guard hash == result.quotesHash else { throw .hashesDiffer(result.quotesHash, hash) }
            result.messagesPerSecond.append(Double(messages) * 1e9 / Double(nanoseconds))
            result.messagesPerProcessorSecond.append(Double(messages) * 1e9 / Double(processor))
            result.megabytesPerSecond.append(Double(bytes) * 1e3 / Double(nanoseconds))
        }
        result.allocationsPerMessage = try allocations(&text)
        (result.kinds, result.frame) = latencies(&text, clockCost: result.clockNanoseconds)
        (result.stages, result.tick) = stages(&text, clockCost: result.clockNanoseconds)
        return result
    }

    /// Only the throughput's loop, for a profiler.
    func pass() -> Int64 {
        var text = frames.text
        return throughput(&text).processor
    }

    // MARK: Passes

    private func throughput(_ text: inout [UInt8]) -> (nanoseconds: Int64, processor: Int64, bytes: Int, hash: UInt64) {
        var node = makeNode()
        var bytes = 0
        let processorStart = processorNanoseconds()
        let start = monotonicNanoseconds()
        text.withUnsafeMutableBytes { text in
            feed(text) { frame, connection, moment, _ in
                node.frame(frame, on: connection, at: moment)
                memory.discard(&node.shared.outboxes)
                bytes += frame.count
            }
        }
        let nanoseconds = monotonicNanoseconds() - start
        return (nanoseconds, processorNanoseconds() - processorStart, bytes, node.shared.quotesHash)
    }

    /// Steady state: counted from when every book has been proven.
    private func allocations(_ text: inout [UInt8]) throws(BenchError) -> Double {
        var node = makeNode()
        var counted = 0
        var before: UInt64 = 0
        text.withUnsafeMutableBytes { text in
            feed(text) { frame, connection, moment, _ in
                if counted == 0, allAreProven(node) {
                    counted = 1
                    before = allocation_count()
                } else if counted > 0 {
                    counted += 1
                }
                node.frame(frame, on: connection, at: moment)
                memory.discard(&node.shared.outboxes)
            }
        }
        guard counted > 0 else { throw .noBook }
        return Double(allocation_count() - before) / Double(counted)
    }

    private func allAreProven(_ node: borrowing QuoteNode) -> Bool {
        // The last one is the last to be fed.
        node.withSymbol(node.symbolCount - 1) { $0.isProven }
    }

    private func latencies(_ text: inout [UInt8], clockCost: Int64) -> (kinds: [Percentiles], all: Percentiles) {
        var kinds = BenchKind.allCases.map { _ in [Percentiles]() }
        var all: [Percentiles] = []
        for _ in 0..<rounds {
            var node = makeNode()
            var histograms = BenchKind.allCases.map { _ in Histogram() }
            var whole = Histogram()
            text.withUnsafeMutableBytes { text in
                feed(text) { frame, connection, moment, kind in
                    let start = monotonicNanoseconds()
                    node.frame(frame, on: connection, at: moment)
                    let duration = monotonicNanoseconds() - start - clockCost
                    memory.discard(&node.shared.outboxes)
                    histograms[kind.rawValue].add(duration)
                    whole.add(duration)
                }
            }
            for kind in BenchKind.allCases { kinds[kind.rawValue].append(histograms[kind.rawValue].percentiles) }
            all.append(whole.percentiles)
        }
        return (kinds.map(Self.median), Self.median(all))
    }

    /// Ticks on a grid of time instead of at frames, each of them recorded: a tick then begins with its first stage, not with its frame.
    private func stages(_ text: inout [UInt8], clockCost: Int64) -> (stages: [Percentiles], tick: Percentiles) {
        var stages = Stage.allCases.map { _ in [Percentiles]() }
        var ticks: [Percentiles] = []
        for _ in 0..<rounds {
            var node = makeNode {
                $0.trigger = .interval(nanoseconds: 5_000_000)
                $0.tickSampleRate = 1
            }
            var histograms = Stage.allCases.map { _ in Histogram() }
            var whole = Histogram()
            var read = 0
            text.withUnsafeMutableBytes { text in
                feed(text) { frame, connection, moment, _ in
                    node.frame(frame, on: connection, at: moment)
                    while read < node.shared.outboxes.ticks.committed {
                        let record = memory.tick(read)
                        read += 1
                        guard !record.isHalted else { continue }
                        var sum: Int64 = 0
                        for stage in Stage.allCases {
                            guard let nanoseconds = record.stageNanoseconds[stage.rawValue] else { continue }
                            histograms[stage.rawValue].add(nanoseconds - clockCost)
                            sum += clockCost
                        }
                        whole.add(record.totalNanoseconds - sum - clockCost)
                    }
                    memory.discard(&node.shared.outboxes)
                }
            }
            for stage in Stage.allCases { stages[stage.rawValue].append(histograms[stage.rawValue].percentiles) }
            ticks.append(whole.percentiles)
        }
        return (stages.map(Self.median), Self.median(ticks))
    }

    // MARK: Leaves

    func makeNode(_ change: (inout Parameters) -> Void = { _ in }) -> QuoteNode {
        var parameters = Parameters()
        change(&parameters)
        return QuoteNode(
            venue: venue, instruments: instruments, parameters: parameters, isRecorded: true, connections: instruments.count, runNumber: 1,
            firstFillID: 1, outboxes: memory.makeOutboxes(), clock: StopClock(monotonicNanoseconds))
    }

    /// Every frame in the order of time, each symbol's a little after that of the one before it.
    private func feed(
        _ text: UnsafeMutableRawBufferPointer, _ body: (UnsafeRawBufferPointer, Int, Moment, BenchKind) -> Void
    ) {
        let count = instruments.count
        let isRenamed = count > 1
        let names = isRenamed ? instruments.map { Array($0.symbol.utf8) } : []
        frames.frames.withUnsafeBufferPointer { all in
            for index in 0..<framesPerSymbol {
                let frame = all[index]
                let gap = index + 1 < framesPerSymbol ? all[index + 1].wall.nanoseconds - frame.wall.nanoseconds : 0
                let bytes = UnsafeRawBufferPointer(start: text.baseAddress! + frame.start, count: frame.count)
                for symbol in 0..<count {
                    if isRenamed, let start = frame.nameStart {
                        names[symbol].withUnsafeBytes { (text.baseAddress! + start).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
                    }
                    let wall = frame.wall.nanoseconds + gap * Int64(symbol) / Int64(count)
                    body(
                        bytes, symbol, Moment(instant: Instant(nanoseconds: wall), wall: WallTime(nanoseconds: wall)), frame.kind)
                }
            }
        }
    }

    /// Least of many: what a pair of readings adds to a duration at least.
    static func clockCost() -> Int64 {
        var least = Int64.max
        for _ in 0..<10_000 {
            let first = monotonicNanoseconds()
            least = min(least, monotonicNanoseconds() - first)
        }
        return least
    }

    /// Of each quantity over the rounds.
    private static func median(_ rounds: [Percentiles]) -> Percentiles {
        func median(_ value: KeyPath<Percentiles, Int64>) -> Int64 { rounds.map { $0[keyPath: value] }.sorted()[rounds.count / 2] }
        return Percentiles(
            count: median(\.count), p50: median(\.p50), p90: median(\.p90), p95: median(\.p95), p99: median(\.p99), p999: median(\.p999))
    }

    struct Histogram {
        private var buckets = [Int64](repeating: 0, count: LatencyBuckets.count)
        private var count: Int64 = 0

        mutating func add(_ nanoseconds: Int64) {
            buckets[LatencyBuckets.index(of: nanoseconds)] += 1
            count += 1
        }

        var percentiles: Percentiles {
            Percentiles(count: count, p50: at(500), p90: at(900), p95: at(950), p99: at(990), p999: at(999))
        }

        private func at(_ perMille: Int64) -> Int64 {
            guard count > 0 else { return 0 }
            let rank = min(count - 1, perMille * count / 1000)
            var seen: Int64 = 0
            for (index, bucket) in buckets.enumerated() {
                seen += bucket
                if seen > rank { return LatencyBuckets.upperEdge(of: index) }
            }
            return LatencyBuckets.longest
        }
    }
}
