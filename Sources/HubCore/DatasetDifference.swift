import CalibModel
import Wire

/// One thing in which two datasets differ.
package struct DatasetDifference: Sendable, Equatable {
    /// `symbol start` or `symbol host start` of an interval; empty for what stands beside the intervals.
    package var interval: String
    /// `targets.net_bps`; empty where the whole interval is in one of them only.
    package var member: String
    /// As written; nil where there is nothing.
    package var left: String?
    package var right: String?

    /// All of them: first what stands beside the intervals, then by interval in the order of time, symbol and host. Nil when one is no dataset.
    package static func all(_ left: JSONValue, _ right: JSONValue) -> [DatasetDifference]? {
        guard let ours = intervals(left), let theirs = intervals(right) else { return nil }
        var found = members(of: header(left), header(right), interval: "")
        let order = Set(ours.keys).union(theirs.keys).sorted { ($0.start, $0.symbol, $0.host) < ($1.start, $1.symbol, $1.host) }
        for key in order {
            switch (ours[key], theirs[key]) {
            case (let ours?, let theirs?): found += members(of: ours, theirs, interval: key.text)
            case (let ours, _):
                let isLeft = ours != nil
                found.append(
                    DatasetDifference(interval: key.text, member: "", left: isLeft ? "there" : nil, right: isLeft ? nil : "there"))
            }
        }
        return found
    }

    private struct Key: Hashable {
        var start: String
        var symbol: String
        var host: String
        var text: String { host.isEmpty ? "\(symbol) \(start)" : "\(symbol) \(host) \(start)" }
    }

    private static func intervals(_ dataset: JSONValue) -> [Key: JSONValue]? {
        guard let list = dataset["intervals"]?.array else { return nil }
        var found: [Key: JSONValue] = [:]
        for interval in list {
            guard let symbol = interval["symbol"]?.string, let start = interval["interval_start"]?.string else { return nil }
            found[Key(start: start, symbol: symbol, host: interval["host"]?.string ?? "")] = interval
        }
        return found
    }

    private static func header(_ dataset: JSONValue) -> JSONValue {
        guard case .object(let members) = dataset else { return dataset }
        return .object(members.filter { $0.name != "intervals" })
    }

    private static func members(of left: JSONValue, _ right: JSONValue, interval: String) -> [DatasetDifference] {
        var (ours, theirs) = ([(String, String)](), [(String, String)]())
        flatten(left, "", into: &ours)
        flatten(right, "", into: &theirs)
        let (known, others) = (Dictionary(ours) { first, _ in first }, Dictionary(theirs) { first, _ in first })
        var found = ours.filter { others[$0.0] != $0.1 }.map {
            DatasetDifference(interval: interval, member: $0.0, left: $0.1, right: others[$0.0])
        }
        found += theirs.filter { known[$0.0] == nil }.map {
            DatasetDifference(interval: interval, member: $0.0, left: nil, right: $0.1)
        }
        return found
    }

    /// Objects by their members, anything else as its text.
    private static func flatten(_ value: JSONValue, _ name: String, into found: inout [(String, String)]) {
        if case .object(let members) = value {
            for member in members { flatten(member.value, name.isEmpty ? member.name : "\(name).\(member.name)", into: &found) }
            return
        }
        var json = JSONWriter()
        value.write(to: &json)
        found.append((name, String(decoding: json.take(), as: UTF8.self)))
    }
}

extension DatasetArguments {
    /// What a dataset was built with, as its manifest tells; nil for anything but a manifest.
    package init?(manifest: JSONValue) {
        guard let arguments = manifest["arguments"], let from = arguments["from_ts"]?.string.flatMap(TimeText.parse)?.milliseconds,
            let to = arguments["to_ts"]?.string.flatMap(TimeText.parse)?.milliseconds, from >= 0, from < to, to <= RowLimits.timeMax,
            let interval = arguments["interval_sec"]?.integer, (10...86_400).contains(interval), interval.isMultiple(of: 10),
            let symbols = arguments["symbols"]?.array, case .number(let miss)? = arguments["max_deadline_miss"],
            let missMax = Array(miss.utf8).withUnsafeBytes({ DecimalText($0)?.exact(places: 9) }),
            let ticksMin = arguments["min_samples_per_interval"]?.integer, case .boolean(let keeps)? = arguments["keep_filtered"],
            case .boolean(let isPerHost)? = arguments["per_host"]
        else { return nil }
        let source = arguments["source"]?.string
        self.init(
            from: from, to: to, intervalSeconds: interval, symbols: symbols.compactMap(\.string),
            source: RowSource.allCases.first { $0.name == source }, arm: arguments["arm"]?.string.flatMap(Arm.init),
            deadlineMissMax: missMax, ticksMin: ticksMin, keepsFiltered: keeps, isPerHost: isPerHost)
    }
}
