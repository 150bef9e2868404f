import Foundation

/// Debian's `chromium`, where it is installed: the pages for people are opened by what people open them with.
package enum Browser {
    package static let absence =
        "SKIPPED: no chromium on this machine; nothing shows what a reader of the pages sees. deploy/test --full installs it"

    package static var isHere: Bool { FileManager.default.isExecutableFile(atPath: path) }
    private static let path = "/usr/bin/chromium"

    package struct NoView: Error, CustomStringConvertible { package var description: String }

    /// What hinders a reader of a page, in windows of three widths, in light and in dark colours; empty for a page that can be read.
    package static func faults(of page: String) throws -> [String] {
        try views(of: page).flatMap { view in
            [
                (view.overflow > 0, "\(view.overflow) px of it are right of the window"),
                (view.contrast < 4.5, "'\(view.faintest)' has a contrast of \(view.contrast)"),
                (view.rows == 0, "no table is shown"), (view.emptyPictures > 0, "\(view.emptyPictures) pictures are empty"),
                (!view.fetched.isEmpty, "it fetches \(view.fetched)"),
            ].filter(\.0).map { "\(view.width) px, \(view.isDark ? "dark" : "light"): \($0.1)" }
        }
    }

    /// A page in a window of some width, in light or dark colours.
    private struct View: Decodable {
        var width: Int
        var isDark: Bool
        /// Pixels of the page right of the window's edge: a reader must push it aside to read.
        var overflow: Int
        /// Of all text that is shown the least contrast with what is behind it (WCAG 2.2, 1.4.3: 4.5 is enough), and that text.
        var contrast: Double
        var faintest: String
        /// Of all tables.
        var rows: Int
        /// Of which nothing is seen.
        var emptyPictures: Int
        /// Scripts, and what is to be fetched beside the page itself.
        var fetched: [String]
    }

    private static func views(of page: String) throws -> [View] {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let quoted = page.replacing("&", with: "&amp;").replacing("\"", with: "&quot;")
        // A frame has its own width for the page's rules, and its colours are the preference that the page sees.
        let frames = ["light", "dark"].flatMap { scheme in
            [1280, 768, 390].map {
                "<iframe data-scheme=\(scheme) style=\"width:\($0)px;height:900px;border:0;color-scheme:\(scheme)\" srcdoc=\"\(quoted)\"></iframe>\n"
            }
        }
        let file = directory + "/frames.html"
        try Data("<!DOCTYPE html><meta charset=utf-8><body>\n\(frames.joined())<pre id=found></pre><script>\(script)</script>".utf8)
            .write(to: URL(fileURLWithPath: file))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=\(directory)/profile", "--dump-dom",
            "file://\(file)",
        ]
        let said = Pipe()
        (process.standardOutput, process.standardError) = (said, FileHandle.nullDevice)
        try process.run()
        let text = String(decoding: said.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        guard let start = text.range(of: "<pre id=\"found\">", options: .backwards),
            let end = text.range(of: "</pre>", range: start.upperBound..<text.endIndex),
            let json = text[start.upperBound..<end.lowerBound].removingPercentEncoding, !json.isEmpty
        else { throw NoView(description: "chromium shows nothing: \(text.suffix(2000))") }
        return try JSONDecoder().decode([View].self, from: Data(json.utf8))
    }

    private static let script = #"""
        function channels(color) {
          const found = color.match(/[\d.]+/g).map(Number)
          return [found[0], found[1], found[2], found.length > 3 ? found[3] : 1]
        }
        function over(front, back) { return [0, 1, 2].map(i => front[i] * front[3] + back[i] * (1 - front[3])).concat([1]) }
        function luminance(color) {
          const [r, g, b] = color.slice(0, 3).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
          return 0.2126 * r + 0.7152 * g + 0.0722 * b
        }
        function contrast(a, b) {
          const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p)
          return (x + 0.05) / (y + 0.05)
        }
        function view(frame) {
          const doc = frame.contentDocument, win = frame.contentWindow, root = doc.documentElement
          const probe = doc.createElement('div')
          probe.style.background = 'Canvas'
          doc.body.append(probe)
          const canvas = channels(win.getComputedStyle(probe).backgroundColor)
          probe.remove()
          function behind(element) {
            const layers = []
            for (let at = element; at; at = at.parentElement) layers.unshift(channels(win.getComputedStyle(at).backgroundColor))
            return layers.reduce((back, layer) => over(layer, back), canvas)
          }
          let least = 99, faintest = ''
          const texts = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT)
          while (texts.nextNode()) {
            const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement
            if (!text || !element.getClientRects().length) continue
            const style = win.getComputedStyle(element)
            const back = behind(element), front = over(channels(element.closest('svg') ? style.fill : style.color), back)
            if (contrast(front, back) < least) [least, faintest] = [contrast(front, back), text]
          }
          const empty = [...doc.querySelectorAll('svg')].filter(picture => {
            const box = picture.getBoundingClientRect()
            return !(box.width > 0 && box.height > 0) || ![...picture.children].some(shape => shape.getBoundingClientRect().width > 0)
          })
          return { width: frame.clientWidth, isDark: frame.dataset.scheme == 'dark', overflow: root.scrollWidth - root.clientWidth, contrast: least, faintest,
            rows: doc.querySelectorAll('tr').length, emptyPictures: empty.length,
            fetched: [...doc.querySelectorAll('script, link, [src]')].map(element => element.outerHTML.slice(0, 100)) }
        }
        addEventListener('load', () => {
          const views = [...document.querySelectorAll('iframe')].map(view)
          document.getElementById('found').textContent = encodeURIComponent(JSON.stringify(views))
        })
        """#
}
