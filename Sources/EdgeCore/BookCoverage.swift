import CalibModel
import Wire

/// How far a book is known that began with a limited snapshot: levels beyond the snapshot's last one stay unknown until they change (SPEC 3.1,
/// venue documentation). When half of what a side showed is used up, a wider book is asked for; one whose touch has left the range is none.
///
/// The wider book takes the standing one's place without a pause: from when it is wanted the diffs are kept, and the snapshot with the diffs behind
/// it is what the venue has.
struct BookCoverage: Sendable {
    private var edges = Edges()
    /// A wider book is waited for.
    private(set) var isWidening = false
    /// When one was asked for last.
    private var askedAt: Instant?
    /// One that came and is ahead of the stream.
    var held: HeldSnapshot?

    /// Where the known part of a book ends.
    struct Edges: Sendable {
        /// The last level of the snapshot, in ticks; nil when it held all there was, or before one.
        private var bid: Int64?
        private var ask: Int64?
        /// From the snapshot's best level to its last, ticks.
        private var bidReach: Int64 = 0
        private var askReach: Int64 = 0

        init() {}

        /// - Parameter asked: how many levels of a side the venue was asked for: fewer were all.
        init(bids: UnsafeBufferPointer<BookLevel>, asks: UnsafeBufferPointer<BookLevel>, asked: Int) {
            func ends(_ levels: UnsafeBufferPointer<BookLevel>) -> (least: Int64, most: Int64)? {
                guard levels.count >= asked, let first = levels.first else { return nil }
                return levels.reduce((first.price, first.price)) { (min($0.0, $1.price), max($0.1, $1.price)) }
            }
            if let (least, most) = ends(bids) { (bid, bidReach) = (least, most - least) }
            if let (least, most) = ends(asks) { (ask, askReach) = (most, most - least) }
        }

        /// The best price of a side is no better than the last that the snapshot showed: what lies between may be better.
        func arePassed(by top: TopOfBook) -> Bool {
            if let bid, top.bidPrice <= bid { return true }
            if let ask, top.askPrice >= ask { return true }
            return false
        }

        /// Less than half of what a side showed is left.
        func areNear(_ top: TopOfBook) -> Bool {
            if let bid, 2 * (top.bidPrice - bid) < bidReach { return true }
            if let ask, 2 * (ask - top.askPrice) < askReach { return true }
            return false
        }
    }

    struct HeldSnapshot: Sendable {
        var id: Int64
        var bids: [BookLevel]
        var asks: [BookLevel]
        var edges: Edges
    }

    init(_ edges: Edges = Edges()) { self.edges = edges }

    /// The wider book is the book.
    mutating func reaches(_ edges: Edges) {
        self.edges = edges
        stopWidening()
    }

    func isPassed(by top: TopOfBook) -> Bool { edges.arePassed(by: top) }

    /// Whether a wider book is to be asked for now; then the diffs are kept from here on.
    mutating func wants(for top: TopOfBook, at now: Instant) -> Bool {
        if let askedAt, now.since(askedAt) < Limits.widerBookNanoseconds { return false }
        guard edges.areNear(top) else {
            stopWidening()
            return false
        }
        isWidening = true
        askedAt = now
        held = nil
        return true
    }

    mutating func stopWidening() {
        isWidening = false
        held = nil
    }
}

extension SymbolState {
    /// Once a second.
    mutating func watchCoverage(at now: Moment, _ shared: inout SharedState) {
        guard !shared.isRecorded, isProven, let top = book.depthTop else { return }
        // The stream's next event asks for the new book.
        if coverage.isPassed(by: top) { return unprove(.beyondSnapshot, at: now, &shared) }
        guard coverage.wants(for: top, at: now.instant) else {
            if !coverage.isWidening { buffered = [] }
            return
        }
        buffered = []
        if !shared.snapshotsWanted.contains(index) { shared.snapshotsWanted.append(index) }
    }

    /// A diff that was applied, for the wider book that is on its way.
    mutating func keep(
        _ header: BufferedDiff, _ bids: UnsafeBufferPointer<BookLevel>, _ asks: UnsafeBufferPointer<BookLevel>, _ chain: DepthChain
    ) {
        guard buffered.count < Limits.bufferedDiffsMax else {
            buffered = []
            return coverage.stopWidening()
        }
        var diff = header
        diff.bids = Array(bids)
        diff.asks = Array(asks)
        buffered.append(diff)
        widen(chain)
    }

    /// The wider book came: a REST snapshot of a book that stands.
    mutating func widen(with decoder: borrowing BinanceDecoder, id: Int64, chain: DepthChain, asked: Int) throws(FrameRejection) {
        let (bids, asks) = try levels(of: decoder)
        let edges = BookCoverage.Edges(bids: bids, asks: asks, asked: asked)
        coverage.held = .init(id: id, bids: Array(bids), asks: Array(asks), edges: edges)
        widen(chain)
    }

    /// Takes the snapshot as the book once the stream has reached it.
    private mutating func widen(_ chain: DepthChain) {
        guard let held = coverage.held, book.depthID >= held.id else { return }
        // Older than the first diff that was kept: what lies between is lost; it is asked for again later.
        let joins =
            buffered.first.map { chain == .futures ? begins($0, within: held.id) : $0.first <= held.id &+ 1 } ?? (book.depthID == held.id)
        defer { buffered = [] }
        guard joins else { return coverage.stopWidening() }
        book.bids.removeAll()
        book.asks.removeAll()
        held.bids.withUnsafeBufferPointer { book.bids.set($0) }
        held.asks.withUnsafeBufferPointer { book.asks.set($0) }
        for diff in buffered where diff.last > held.id {
            diff.bids.withUnsafeBufferPointer { book.bids.set($0) }
            diff.asks.withUnsafeBufferPointer { book.asks.set($0) }
        }
        coverage.reaches(held.edges)
    }
}
