import CalibModel
import Wire

/// What a host and its symbols have won or lost since UTC midnight, as the next start of the same day finds it: a daily limit (SPEC 10.2) that a
/// restart could reset would be none.
///
/// It has a file of its own. Feeds have it only in part: snapshots are up to ten seconds late, and a day of 500 symbols is gigabytes to read
/// before the first quote.
package struct DayResult: Sendable, Equatable {
    /// 1e-8 quote currency, fees included; a loss is below 0.
    package struct Result: Sendable, Equatable {
        package var change: Int64 = 0
        /// A limit was reached: nothing is placed for the rest of the day.
        package var isHalted = false
        package init(change: Int64 = 0, isHalted: Bool = false) { (self.change, self.isHalted) = (change, isHalted) }
    }

    package var day: CalendarDay
    package var host: Result
    package var symbols: [String: Result]

    package init(day: CalendarDay, host: Result, symbols: [String: Result]) {
        (self.day, self.host, self.symbols) = (day, host, symbols)
    }

    /// What counts when the file cannot be read: a loss that nobody knows is taken for the largest.
    package static func unknown(on day: CalendarDay) -> DayResult { DayResult(day: day, host: Result(isHalted: true), symbols: [:]) }

    /// With what an earlier result of the same day says of symbols that are not quoted any more: they may come back before midnight.
    package func keeping(_ earlier: DayResult?) -> DayResult {
        guard let earlier, earlier.day == day else { return self }
        var result = self
        result.symbols.merge(earlier.symbols) { new, _ in new }
        return result
    }

    /// Whether it differs from what was written by more than a hundredth of a limit, so that neither each second is written nor much forgotten.
    package func isNews(since written: DayResult?, _ limits: Parameters.Limits) -> Bool {
        guard let written, written.day == day else { return true }
        func differs(_ new: Result, _ old: Result?, _ limit: Int64) -> Bool {
            let old = old ?? Result()
            return new.isHalted != old.isHalted || (Int128(new.change) - Int128(old.change)).magnitude > UInt128(max(0, limit)) / 100
        }
        return differs(host, written.host, limits.dailyLossHost)
            || symbols.contains { differs($0.value, written.symbols[$0.key], limits.dailyLossSymbol) }
    }

    // MARK: Text

    /// One object on one line.
    package var json: [UInt8] {
        var out = JSONWriter()
        out.beginObject()
        out.field("day", string: day.compactText)
        Self.write(host, &out)
        out.key("symbols")
        out.beginArray()
        for (symbol, result) in symbols.sorted(by: { $0.key < $1.key }) {
            out.beginObject()
            out.field("symbol", string: symbol)
            Self.write(result, &out)
            out.endObject()
        }
        out.endArray()
        out.endObject()
        out.newline()
        return out.bytes
    }

    package init(json bytes: [UInt8]) throws(WireError) {
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue.parse(bytes) } catch { throw .json(error) }
        let fields = try Fields(value, of: "result")
        guard let day = CalendarDay(compactText: try fields.string("day")) else { throw .outOfRange("day") }
        self.day = day
        host = try Self.read(fields)
        symbols = [:]
        guard let list = try fields.value("symbols").array else { throw .wrongType("symbols") }
        for entry in list {
            let fields = try Fields(entry, of: "symbol")
            symbols[try fields.string("symbol")] = try Self.read(fields)
        }
    }

    private static func write(_ result: Result, _ out: inout JSONWriter) {
        out.field("change", fixed: result.change, places: Places.notional)
        out.field("halted", boolean: result.isHalted)
    }

    private static func read(_ fields: Fields) throws(WireError) -> Result {
        Result(change: try fields.fixed("change", places: Places.notional), isHalted: try fields.boolean("halted"))
    }
}

extension QuoteNode {
    /// The day's result so far; nil before the first second.
    package var dayResult: DayResult? {
        guard shared.loss.day > .min else { return nil }
        var results: [String: DayResult.Result] = [:]
        for index in 0..<symbolCount {
            let (name, loss) = withSymbol(index) { ($0.instrument.symbol, $0.loss) }
            // At midnight symbols arrive one after the other.
            guard loss.day == shared.loss.day else { continue }
            results[name] = .init(change: Int64(clamping: loss.change), isHalted: loss.isHalted)
        }
        return DayResult(
            day: CalendarDay(number: shared.loss.day),
            host: .init(change: Int64(clamping: shared.loss.change), isHalted: shared.loss.isHalted), symbols: results)
    }

    /// Goes on where an earlier run of the same day ended; before the first frame. A result of an earlier day changes nothing; one of a later
    /// day holds until that day ends, because the clock may have been set back.
    package mutating func resume(_ result: DayResult, at now: Moment) {
        guard result.day >= CalendarDay(containing: now.wall) else { return }
        shared.loss = HostLoss(day: result.day.number, change: Int128(result.host.change), isHalted: result.host.isHalted)
        for index in 0..<symbolCount {
            let symbol = result.symbols[symbols[index].instrument.symbol] ?? .init()
            symbols[index].loss = DailyLoss(
                day: result.day.number, start: Int64(clamping: -Int128(symbol.change)), last: 0, change: Int128(symbol.change),
                isHalted: symbol.isHalted)
        }
    }
}
