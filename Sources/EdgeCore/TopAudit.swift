import CalibModel

/// Checks the depth book against bookTickers of the same id (SPEC 3.1): every depth event whose final `u` is also a bookTicker's, arrived
/// before or after it, must leave the book with exactly that ticker's best prices and quantities.
package struct TopAudit: ~Copyable {
    package private(set) var matches: Int64 = 0
    package private(set) var mismatches: Int64 = 0
    private var tickers = History(capacity: Limits.auditTickersMax)
    private var depths = History(capacity: Limits.auditDepthsMax)

    package init() {}

    package mutating func depth(id: Int64, top: TopOfBook) {
        if let ticker = tickers.find(id) { compare(top, ticker) } else { depths.add(id, top) }
    }

    package mutating func ticker(id: Int64, top: TopOfBook) {
        if let depth = depths.find(id) { compare(depth, top) } else { tickers.add(id, top) }
    }

    /// The book is about to be rebuilt: what waits belongs to the old one.
    package mutating func forgetDepths() { depths.removeAll() }

    private mutating func compare(_ a: TopOfBook, _ b: TopOfBook) {
        if a == b { matches += 1 } else { mismatches += 1 }
    }

    /// The last tops by rising id: a ring searched by bisection.
    private struct History: ~Copyable {
        private let entries: UnsafeMutablePointer<(id: Int64, top: TopOfBook)>
        /// One less than the capacity, a power of two.
        private let mask: Int
        private var end = 0
        private var count = 0
        private var newest = Int64.min

        init(capacity: Int) {
            precondition(capacity > 0 && capacity & (capacity - 1) == 0, "BUG: history of \(capacity) tops")
            mask = capacity - 1
            entries = .allocate(capacity: capacity)
        }
        deinit { entries.deallocate() }

        mutating func removeAll() { count = 0 }

        mutating func add(_ id: Int64, _ top: TopOfBook) {
            // Ids rise within a stream; one that does not is a repetition and says nothing new.
            if count > 0, newest >= id { return }
            entries[end & mask] = (id, top)
            newest = id
            end += 1
            count = min(count + 1, mask + 1)
        }

        func find(_ id: Int64) -> TopOfBook? {
            guard count > 0, id <= newest else { return nil }  // Nearly always: the other stream is behind.
            var low = end - count
            var high = end
            while low < high {
                let middle = (low + high) / 2
                if entries[middle & mask].id < id { low = middle + 1 } else { high = middle }
            }
            guard low < end, entries[low & mask].id == id else { return nil }
            return entries[low & mask].top
        }
    }
}
