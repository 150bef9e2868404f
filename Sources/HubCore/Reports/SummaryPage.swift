import CalibModel

/// `calib_summary_{stem}.html`: the same figures as the Markdown, with a picture of each distribution. One file, nothing fetched, no script; light or
/// dark as the reader's system is, wide tables scroll inside their box.
extension Summary {
    /// `stem`: the dataset's file name without `.json`. Fails on text that is no dataset, never traps.
    package static func html(of dataset: UnsafeRawBufferPointer, stem: String) throws(Failure) -> [UInt8] {
        Array(try read(dataset).page(stem: stem).utf8)
    }

    private func page(stem: String) -> String {
        func known(_ name: String) -> String { scalars[name].map(Self.plain) ?? "-" }
        let facts = [
            ("Period", "\(known("from_ts")) to \(known("to_ts"))"), ("Interval", "\(known("interval_sec")) s"),
            ("Total intervals", "\(known("total_intervals")) (kept \(kept), filtered \(known("filtered_count")))"),
            ("Total symbols", "\(intervalsBySymbol.count)"), ("Source", known("source")), ("Arm", known("arm")),
            ("Hosts", hosts.isEmpty ? "-" : hosts.map(Self.plain).joined(separator: ", ")),
        ]
        var body = "<h1>Calibration Summary: \(Self.plain(stem))</h1>\n<dl>"
        body += facts.map { "<div><dt>\($0.0)</dt><dd>\($0.1)</dd></div>" }.joined()
        body += "</dl>\n<h2>Intervals by symbol</h2>\n" + symbols
        body += "<h2>Target distributions</h2>\n" + distributions(targets)
        body += "<h2>Feature distributions</h2>\n" + distributions(features)
        body += "<h2>Data quality</h2>\n" + nulls + quality
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
            <title>Calibration Summary: \(Self.plain(stem))</title>
            <style>\(Self.style)</style></head><body>
            \(body)</body></html>

            """
    }

    private var symbols: String {
        guard kept > 0 else { return "<p>\(Self.nothingKept)</p>\n" }
        let most = intervalsBySymbol.values.max() ?? 1
        let order = intervalsBySymbol.sorted { $0.value == $1.value ? $0.key < $1.key : $0.value > $1.value }
        return Self.table(
            ["Symbol", "#Intervals", "#Share", ""],
            order.map { symbol, count in
                [Self.plain(symbol), "\(count)", Self.percent(count, of: kept), Self.bar(count, of: most)]
            })
    }

    private func distributions(_ columns: [Column]) -> String {
        guard kept > 0 else { return "<p>\(Self.nothingKept)</p>\n" }
        return Self.table(
            ["Name", "Unit", "Distribution", "#Count", "#Mean", "#Median", "#Stdev", "#Min", "#Max", "#p25", "#p75", "#p95"],
            columns.map { column in
                let ascending = column.values.sorted()
                func quantile(_ percent: Int) -> String { Self.number(Quantile.of(ascending: ascending, percent: percent)) }
                return [
                    Self.plain(column.name), Self.units[column.name] ?? "-", Self.picture(ascending, of: column.name), "\(ascending.count)",
                    Self.number(Self.mean(ascending)), quantile(50), Self.number(Self.deviation(ascending)), Self.number(ascending.first),
                    Self.number(ascending.last), quantile(25), quantile(75), quantile(95),
                ]
            })
    }

    private var nulls: String {
        let columns = (targets.map { ("target", $0) } + features.map { ("feature", $0) }).filter { $0.1.nulls > 0 }
        guard !columns.isEmpty else { return "<p>No nulls.</p>\n" }
        return Self.table(
            ["Column with nulls", "#Nulls", "#Share of kept intervals"],
            columns.map { ["\($0.0) \(Self.plain($0.1.name))", "\($0.1.nulls)", Self.percent($0.1.nulls, of: kept)] })
    }

    private var quality: String {
        var text = ""
        if removals.isEmpty {
            text += "<p>No interval was filtered.</p>\n"
        } else {
            text += Self.table(
                ["Filtered: symbol", "Host", "Reason", "#Intervals"],
                removals.map {
                    [Self.plain($0.symbol), $0.host.isEmpty ? "all" : Self.plain($0.host), Self.plain($0.reason), "\($0.intervals)"]
                })
        }
        let troubled = streams.filter { $0.missing > 0 || $0.conflicts > 0 }
        if streams.isEmpty {
            text += "<p>Sequence gaps and conflicts are unknown: the rows carry no sequence numbers.</p>\n"
        } else if troubled.isEmpty {
            text += "<p>No sequence gaps and no conflicts.</p>\n"
        } else {
            text += Self.table(
                ["Sequences: host", "Feed", "#Rows", "#Missing", "#Conflicts"],
                troubled.map { [Self.plain($0.host), Self.plain($0.feed), "\($0.rows)", "\($0.missing)", "\($0.conflicts)"] })
        }
        if !flags.isEmpty {
            text += Self.table(
                ["Flag", "#Intervals", "Meaning"],
                flags.keys.sorted().map { [Self.plain($0), "\(flags[$0] ?? 0)", Self.meanings[$0] ?? "-"] })
        }
        return text
    }

    // MARK: Leaves

    /// A heading with `#` before it is of numbers.
    private static func table(_ headings: [String], _ rows: [[String]]) -> String {
        let numbers = headings.map { $0.hasPrefix("#") }
        func cells(_ cells: [String], _ tag: String) -> String {
            zip(cells, numbers).map { "<\(tag)\($1 ? " class=n" : "")>\($0)</\(tag)>" }.joined()
        }
        let head = cells(headings.map { $0.hasPrefix("#") ? String($0.dropFirst()) : $0 }, "th")
        return "<div class=t><table><thead><tr>\(head)</tr></thead><tbody>\n"
            + rows.map { "<tr>\(cells($0, "td"))</tr>\n" }.joined() + "</tbody></table></div>\n"
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
        return "<svg width=160 height=30 role=img aria-label=\"Histogram of \(plain(name))\">\(bars.joined())"
            + "<path class=m d=\"M\(median) 0V30\" /></svg>"
    }

    private static func plain(_ text: String) -> String {
        var plain = ""
        for character in text {
            switch character {
            case "&": plain += "&amp;"
            case "<": plain += "&lt;"
            case ">": plain += "&gt;"
            case "\"": plain += "&quot;"
            default: plain.append(character)
            }
        }
        return plain
    }

    private static let style = """
        :root{color-scheme:light dark;--line:light-dark(#d5d9e0,#3a4150);--bar:light-dark(#2f6db5,#7db2f0);--mark:light-dark(#b3261e,#ffb4ab);\
        --soft:light-dark(#5a6270,#a8b0bf)}
        body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;padding:0 1rem;max-width:80rem;background:light-dark(#fff,#14171d);color:light-dark(#1a1d23,#e6e9ef)}
        h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}
        dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.5rem 1.5rem}dl div{border-top:1px solid var(--line);padding-top:.25rem}
        dt{color:var(--soft);font-size:.85rem}dd{margin:0;overflow-wrap:anywhere}
        .t{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem}th,td{padding:.3rem .7rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
        th{color:var(--soft);font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}
        svg{display:block}rect{fill:var(--bar)}.m{stroke:var(--mark);stroke-width:1.5;fill:none}
        """
}
