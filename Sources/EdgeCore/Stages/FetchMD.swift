import CalibModel

/// Reads the cache for guards and for pricing (SPEC 3.3).
package enum FetchMDStage {
    package struct Output: Sendable {
        package var outcome: MDCache.Outcome
        package var ageNanoseconds: Int64?
        package var top: TopOfBook?
        /// Refused for now: a refresh in flight may still prove the book.
        package var awaitsRefresh = false
        package var isHit: Bool { outcome == .hit }
        package var usedStale: Bool { outcome == .stale }
    }

    package static func run(
        _ cache: inout MDCache, book: borrowing Book, at now: Instant, answers: Bool, hasWaited: Bool = false,
        _ parameters: Parameters.Cache
    ) -> Output {
        let reading = cache.readForTick(at: now, answers: answers, hasWaited: hasWaited, parameters)
        guard reading.outcome != .refused, let top = book.top, !top.isCrossed else {
            return Output(outcome: .refused, ageNanoseconds: reading.age, top: nil, awaitsRefresh: reading.awaitsRefresh)
        }
        return Output(outcome: reading.outcome, ageNanoseconds: reading.age, top: top)
    }
}
