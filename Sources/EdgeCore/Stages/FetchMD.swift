import CalibModel

/// Reads the cache for guards and for pricing (SPEC 3.3).
package enum FetchMDStage {
    package struct Output: Sendable {
        package var outcome: MDCache.Outcome
        package var ageNanoseconds: Int64?
        package var top: TopOfBook?
        package var isHit: Bool { outcome == .hit }
        package var usedStale: Bool { outcome == .stale }
    }

    package static func run(
        _ cache: inout MDCache, book: borrowing Book, at now: Instant, answers: Bool, _ parameters: Parameters.Cache
    ) -> Output {
        let (outcome, age) = cache.read(at: now, answers: answers, parameters)
        guard outcome != .refused, let top = book.top, !top.isCrossed else {
            return Output(outcome: .refused, ageNanoseconds: age, top: nil)
        }
        return Output(outcome: outcome, ageNanoseconds: age, top: top)
    }
}
