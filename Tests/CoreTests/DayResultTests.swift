import CalibModel
import Testing

@testable import EdgeCore

/// What an edge writes down of the day's losses, and when.
@Suite struct DayResultTests {
    private let day = CalendarDay(number: 20_000)

    private func result(host: Int64, _ symbols: [String: DayResult.Result]) -> DayResult {
        DayResult(day: day, host: .init(change: host), symbols: symbols)
    }

    @Test func itIsReadAsItWasWritten() throws {
        let written = result(host: -123_456_789, ["ETHUSDT": .init(change: .min, isHalted: true), "BTCUSDT": .init(change: .max)])
        let text = String(decoding: written.json, as: UTF8.self)
        #expect(
            text.hasPrefix(
                #"{"day":"20241004","change":-1.23456789,"halted":false,"symbols":[{"symbol":"BTCUSDT","change":92233720368.54775807,"#))
        // The least number has no positive twin; a reader refuses it rather than to trap.
        let again = try DayResult(json: result(host: -5, ["A": .init(change: -Int64.max, isHalted: true)]).json)
        #expect(again == result(host: -5, ["A": .init(change: -Int64.max, isHalted: true)]))
    }

    @Test(arguments: [
        "", "{", "[]", #"{"day":"20241004"}"#, #"{"day":"20241304","change":0,"halted":false,"symbols":[]}"#,
        #"{"day":"20241004","change":"0","halted":false,"symbols":[]}"#, #"{"day":"20241004","change":0,"halted":0,"symbols":[]}"#,
        #"{"day":"20241004","change":0,"halted":false,"symbols":[{"symbol":"A"}]}"#,
        #"{"day":"20241004","change":1e30,"halted":false,"symbols":[]}"#,
    ])
    func damageIsToldFromAResult(text: String) {
        #expect(throws: WireErrorBox.self) {
            do { _ = try DayResult(json: Array(text.utf8)) } catch { throw WireErrorBox() }
        }
    }

    private struct WireErrorBox: Error {}

    @Test func aHundredthOfALimitIsNews() {
        var limits = Parameters.Limits()
        (limits.dailyLossSymbol, limits.dailyLossHost) = (1_000, 5_000)
        let written = result(host: -100, ["A": .init(change: -100)])
        #expect(written.isNews(since: nil, limits) && !written.isNews(since: written, limits))
        #expect(!result(host: -150, ["A": .init(change: -110)]).isNews(since: written, limits))
        #expect(result(host: -151, ["A": .init(change: -100)]).isNews(since: written, limits))
        #expect(result(host: -100, ["A": .init(change: -111)]).isNews(since: written, limits))
        #expect(result(host: -100, ["A": .init(change: -100, isHalted: true)]).isNews(since: written, limits))
        #expect(result(host: -100, ["A": .init(change: -100), "B": .init(change: 11)]).isNews(since: written, limits))
        #expect(DayResult(day: CalendarDay(number: 20_001), host: .init(), symbols: [:]).isNews(since: written, limits))
    }

    @Test func symbolsThatAreNotQuotedAnyMoreAreKeptForTheDay() {
        let earlier = result(host: -9, ["A": .init(change: -9, isHalted: true), "B": .init(change: 1)])
        #expect(
            result(host: -9, ["B": .init(change: 2)]).keeping(earlier).symbols == [
                "A": .init(change: -9, isHalted: true), "B": .init(change: 2),
            ])
        let tomorrow = DayResult(day: CalendarDay(number: 20_001), host: .init(), symbols: [:])
        #expect(tomorrow.keeping(earlier) == tomorrow)
    }
}
