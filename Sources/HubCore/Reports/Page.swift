/// What the pages for people have in common: one file each, nothing fetched, no script; light or dark as the reader's system is. What is wider than
/// the window scrolls inside its box.
enum Page {
    /// `title` is escaped here, `body` is markup.
    static func document(title: String, body: String) -> String {
        """
        <!DOCTYPE html>
        <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(text(title))</title>
        <style>\(style)</style></head><body>
        \(body)</body></html>

        """
    }

    /// Names and reasons are data, never markup.
    static func text(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case _ where scalar.value < 0x20: result += " "
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// Headings and cells are markup. A heading with `#` before it is of numbers. A wide table's numbers carry their heading: on a phone each of its
    /// rows is a block of its own.
    static func table(_ headings: [String], _ rows: [[String]], isWide: Bool = false) -> String {
        let columns = headings.map { (isNumber: $0.hasPrefix("#"), name: $0.hasPrefix("#") ? String($0.dropFirst()) : $0) }
        func cells(_ cells: [String], _ tag: String) -> String {
            zip(cells, columns).map { cell, column in
                let label = isWide && column.isNumber && tag == "td" ? " data-name=\(column.name)" : ""
                return "<\(tag)\(column.isNumber ? " class=n" : "")\(label)>\(cell)</\(tag)>"
            }.joined()
        }
        return "<div class=t><table\(isWide ? " class=wide" : "")><thead><tr>\(cells(columns.map(\.name), "th"))</tr></thead><tbody>\n"
            + rows.map { "<tr>\(cells($0, "td"))</tr>\n" }.joined() + "</tbody></table></div>\n"
    }

    private static let style = """
        :root{color-scheme:light dark;--back:light-dark(#fff,#14171d);--line:light-dark(#d5d9e0,#3a4150);--bar:light-dark(#6b9bd1,#3f72a8);\
        --mark:light-dark(#a3170f,#ffd27a);--soft:light-dark(#5a6270,#a8b0bf)}
        body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;padding:0 1rem;max-width:80rem;background:var(--back);color:light-dark(#1a1d23,#e6e9ef)}
        h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}h3{font-size:.95rem;margin:1rem 0 0}p{overflow-wrap:anywhere}
        dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.5rem 1.5rem}dl div{border-top:1px solid var(--line);padding-top:.25rem}
        dt{color:var(--soft);font-size:.85rem}dd{margin:0;overflow-wrap:anywhere}dd span{white-space:nowrap}
        .t{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem}
        th,td{padding:.3rem 1rem .3rem 0;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}th:last-child,td:last-child{padding-right:0}
        th{color:var(--soft);font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}
        th:first-child,td:first-child{position:sticky;left:0;background:var(--back)}
        svg{display:block}rect{fill:var(--bar)}.m{stroke:var(--mark);stroke-width:2;fill:none}text{font-size:11px;fill:currentColor}
        .line{fill:none;stroke:var(--bar);stroke-width:1.5}.band{fill:var(--bar);fill-opacity:.25}.zero{stroke:var(--soft)}
        .bad{fill:#c62828}.good{fill:#2e7d32}.open{fill:#8888}
        @media(max-width:50rem){.wide thead{display:none}.wide,.wide tbody{display:block}
        .wide tr{display:grid;grid-template-columns:repeat(3,1fr);gap:.3rem .8rem;padding:.7rem 0;border-bottom:1px solid var(--line)}
        .wide td{border:0;padding:0;text-align:left}.wide td:first-child{grid-column:1/3;font-weight:600}.wide td:nth-child(3){grid-column:1/-1}
        .wide td[data-name]::before{content:attr(data-name);display:block;color:var(--soft);font-size:.75rem}}
        """
}
