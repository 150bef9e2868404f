import CalibModel

/// `calib_summary_{stem}.html`: the figures of the Markdown, those of distributions to six digits, with a picture of each distribution.
extension Summary {
    /// `stem`: the dataset's file name without `.json`. Fails on text that is no dataset, never traps.
    package static func html(of dataset: UnsafeRawBufferPointer, stem: String) throws(Failure) -> [UInt8] {
        Array(try read(dataset).page(stem: stem).utf8)
    }

    private func page(stem: String) -> String {
        func known(_ name: String) -> String { scalars[name].map(Page.text) ?? "-" }
        let facts = [
            ("Period", "<span>\(known("from_ts"))</span> to <span>\(known("to_ts"))</span>"), ("Interval", "\(known("interval_sec")) s"),
            ("Total intervals", "\(known("total_intervals")) (kept \(kept), filtered \(known("filtered_count")))"),
            ("Total symbols", "\(intervalsBySymbol.count)"), ("Source", known("source")), ("Arm", known("arm")),
            ("Hosts", hosts.isEmpty ? "-" : hosts.map(Page.text).joined(separator: ", ")),
        ]
        var body = "<h1>Calibration Summary: \(Page.text(stem))</h1>\n<dl>"
        body += facts.map { "<div><dt>\($0.0)</dt><dd>\($0.1)</dd></div>" }.joined()
        body += "</dl>\n<h2>Intervals by symbol</h2>\n" + symbols
        body += "<h2>Target distributions</h2>\n" + distributions(targets)
        body += "<h2>Feature distributions</h2>\n" + distributions(features)
        body += "<h2>Data quality</h2>\n" + nulls + quality
        return Page.document(title: "Calibration Summary: \(stem)", body: body)
    }

    private var symbols: String {
        guard kept > 0 else { return "<p>\(Self.nothingKept)</p>\n" }
        let most = intervalsBySymbol.values.max() ?? 1
        let order = intervalsBySymbol.sorted { $0.value == $1.value ? $0.key < $1.key : $0.value > $1.value }
        return Page.table(
            ["Symbol", "#Intervals", "#Share", ""],
            order.map { symbol, count in
                [Page.text(symbol), "\(count)", Self.percent(count, of: kept), Self.bar(count, of: most)]
            })
    }

    private func distributions(_ columns: [Column]) -> String {
        guard kept > 0 else { return "<p>\(Self.nothingKept)</p>\n" }
        return "<p>Twenty bins from the least to the greatest value; the line is the median's.</p>\n"
            + Page.table(
                ["Name", "Unit", "Distribution", "#Count", "#Mean", "#Median", "#Stdev", "#Min", "#Max", "#p25", "#p75", "#p95"],
                columns.map { column in
                    let ascending = column.values.sorted()
                    let places = Self.placesShown(of: ascending)
                    func figure(_ value: Int64?) -> String { Self.figure(value, places: places) }
                    func quantile(_ percent: Int) -> String { figure(Quantile.of(ascending: ascending, percent: percent)) }
                    return [
                        Page.text(column.name), Self.units[column.name] ?? "-", Self.picture(ascending, of: column.name),
                        "\(ascending.count)", figure(Self.mean(ascending)), quantile(50), figure(Self.deviation(ascending)),
                        figure(ascending.first), figure(ascending.last), quantile(25), quantile(75), quantile(95),
                    ]
                }, isWide: true)
    }

    private var nulls: String {
        let columns = (targets.map { ("target", $0) } + features.map { ("feature", $0) }).filter { $0.1.nulls > 0 }
        guard !columns.isEmpty else { return "<p>No nulls.</p>\n" }
        return Page.table(
            ["Column with nulls", "#Nulls", "#Share of kept intervals"],
            columns.map { ["\($0.0) \(Page.text($0.1.name))", "\($0.1.nulls)", Self.percent($0.1.nulls, of: kept)] })
    }

    private var quality: String {
        var text = ""
        if removals.isEmpty {
            text += "<p>No interval was filtered.</p>\n"
        } else {
            text += Page.table(
                ["Filtered: symbol", "Host", "Reason", "#Intervals"],
                removals.map {
                    [Page.text($0.symbol), $0.host.isEmpty ? "all" : Page.text($0.host), Page.text($0.reason), "\($0.intervals)"]
                })
        }
        let troubled = streams.filter { $0.missing > 0 || $0.conflicts > 0 }
        if streams.isEmpty {
            text += "<p>Sequence gaps and conflicts are unknown: the rows carry no sequence numbers.</p>\n"
        } else if troubled.isEmpty {
            text += "<p>No sequence gaps and no conflicts.</p>\n"
        } else {
            text += Page.table(
                ["Sequences: host", "Feed", "#Rows", "#Missing", "#Conflicts"],
                troubled.map { [Page.text($0.host), Page.text($0.feed), "\($0.rows)", "\($0.missing)", "\($0.conflicts)"] })
        }
        if let missing = missingFeeds {
            text +=
                missing.isEmpty
                ? "<p>No host lacks a feed.</p>\n"
                : Page.table(
                    ["Host", "Feeds without a row"],
                    missing.map { [Page.text($0.host), $0.feeds.map(Page.text).joined(separator: ", ")] })
        } else {
            text += "<p>Whether a host lacks a feed is unknown: the rows carry no identity.</p>\n"
        }
        if !flags.isEmpty {
            text += Page.table(
                ["Flag", "#Intervals", "Meaning"],
                flags.keys.sorted().map { [Page.text($0), "\(flags[$0] ?? 0)", Self.meanings[$0] ?? "-"] })
        }
        return text
    }

    // MARK: Leaves

    /// How many decimals leave six digits to the greatest of the values, which have `places`: all figures of a row get as many, so that their points
    /// stand below each other.
    private static func placesShown(of ascending: [Int64]) -> Int {
        let greatest = max(ascending.first?.magnitude ?? 0, ascending.last?.magnitude ?? 0)
        var whole = greatest / UInt64(FixedPoint.powersOfTen[places])
        var shown = places
        while whole > 0, shown > 0 {
            whole /= 10
            shown -= 1
        }
        return shown
    }

    private static func figure(_ value: Int64?, places shown: Int) -> String {
        guard let value, let rounded = FixedPoint.divide(Int128(value), by: Int128(FixedPoint.powersOfTen[places - shown])) else {
            return "-"
        }
        let digits = String(rounded.magnitude)
        let padded = String(repeating: "0", count: max(0, shown + 1 - digits.count)) + digits
        return "\(rounded < 0 ? "-" : "")\(padded.dropLast(shown))\(shown > 0 ? "." : "")\(padded.suffix(shown))"
    }

    private static func bar(_ part: Int, of whole: Int) -> String {
        "<svg width=120 height=12 role=img aria-label=\"\(part)\"><rect width=\"\(max(1, part * 120 / max(1, whole)))\" height=12 /></svg>"
    }

    /// Twenty bins from the least to the greatest value, and a line at the median.
    private static func picture(_ ascending: [Int64], of name: String) -> String {
        guard let least = ascending.first, let most = ascending.last else { return "-" }
        let bins = 20
        let width = Int128(most) - Int128(least) + 1
        func bin(_ value: Int64) -> Int { Int((Int128(value) - Int128(least)) * Int128(bins) / width) }
        var counts = [Int](repeating: 0, count: bins)
        for value in ascending { counts[bin(value)] += 1 }
        let highest = counts.max() ?? 1
        let bars = counts.enumerated().filter { $0.element > 0 }.map { place, count in
            let height = max(1, count * 26 / highest)
            return "<rect x=\(place * 8) y=\(28 - height) width=7 height=\(height) />"
        }
        let median = Quantile.of(ascending: ascending, percent: 50).map { bin($0) * 8 + 3 } ?? 0
        return "<svg width=160 height=30 role=img aria-label=\"Histogram of \(Page.text(name))\">\(bars.joined())"
            + "<path class=m d=\"M\(median) 0V30\" /></svg>"
    }
}
