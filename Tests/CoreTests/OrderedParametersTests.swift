import EdgeCore
import Testing
import Wire

/// Parameters that operators order for a host: what they add up to, in which sequence, and how they survive.
struct OrderedParametersTests {
    private func order(_ number: Int64, _ set: [(String, String)], term: Int64 = 1) -> Message.Command {
        Message.Command(
            id: "parameters-\(number)", revision: Revision(term: term, number: number), kind: .parameters, experiment: nil, symbol: nil,
            set: set.map { .init(key: $0.0, value: $0.1) }, reason: "calm market", by: "operator/ann", issuedMilliseconds: 5)
    }

    private func text(_ parameters: OrderedParameters?) -> [String]? { parameters?.values.map { "\($0.key)=\($0.value)" } }

    @Test func ordersAddUp_theNewestOfAKeyHolds_andAnEmptyValueGivesItBack() throws {
        var parameters = try #require(
            try OrderedParameters().following(order(3, [("spread.min_bps", "0.5"), ("guards.halt_ms", "1")]), at: 9))
        #expect(text(parameters) == ["guards.halt_ms=1", "spread.min_bps=0.5"])
        parameters = try #require(try parameters.following(order(4, [("spread.min_bps", "0.7"), ("guards.halt_ms", "")]), at: 9))
        #expect(text(parameters) == ["spread.min_bps=0.7"])
    }

    /// The hub sends an order again until it has the last word: a late copy must not undo the one that followed.
    @Test func anOrderThatWasDoneIsNotDoneAgain() throws {
        let first = order(3, [("spread.min_bps", "0.5")])
        let parameters = try #require(
            try OrderedParameters().following(first, at: 9)?.following(order(4, [("spread.min_bps", "0.7")]), at: 9))
        #expect(try parameters.following(first, at: 9) == nil && parameters.following(order(4, []), at: 9) == nil)
        // A hub that lost its disk counts from 1 again, in a higher term.
        #expect(text(try parameters.following(order(1, [("spread.min_bps", "0.9")], term: 2), at: 9)) == ["spread.min_bps=0.9"])
    }

    @Test func hardLimitsAreNotOrdered() {
        #expect(throws: OrderedParameters.Refusal(text: "limits.position: a hard limit is changed in the host's own configuration")) {
            try OrderedParameters().following(order(1, [("spread.min_bps", "1"), ("limits.position", "0.1")]), at: 9)
        }
    }

    @Test func theyAreBounded() throws {
        let many = (0...100).map { ("k\($0)", "1") }
        #expect(throws: OrderedParameters.Refusal.self) { try OrderedParameters().following(order(1, many), at: 9) }
        let most = try #require(try OrderedParameters().following(order(1, Array(many.dropLast())), at: 9))
        #expect(throws: OrderedParameters.Refusal.self) { try most.following(order(2, [("another", "1")]), at: 9) }
    }

    @Test func theFileIsReadBackAsItWas() throws {
        let parameters = try #require(try OrderedParameters().following(order(3, [("spread.min_bps", "0.5")]), at: 1_735_689_600_000))
        #expect(try OrderedParameters(json: parameters.json) == parameters)
        for end in 0..<parameters.json.count - 1 {
            #expect(throws: WireError.self) { try OrderedParameters(json: Array(parameters.json.prefix(end))) }
        }
    }
}
