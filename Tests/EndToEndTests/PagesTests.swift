import Foundation
import TestSupport
import Testing

/// The pages for people, opened by a browser.
@Suite(.enabled(if: Browser.isHere, Comment(rawValue: Browser.absence))) struct PagesTests {
    @Test func theSummaryOfADatasetCanBeRead() throws {
        let root = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: root) }
        let made = try Binaries.run(
            "calib-lab", ["gen", "feeds", "--output", "feeds", "--hosts", "2", "--symbols", "4", "--hours", "1", "--dirty"], in: root,
            deadline: 120)
        #expect(made.status == 0, "\(made.standardError)")
        let built = try Binaries.run(
            "hubctl",
            [
                "dataset", "build", "--feeds-dir", "feeds", "--output-dir", "datasets", "--from-ts", "2025-01-01T00:00:00Z",
                "--to-ts", "2025-01-01T01:00:00Z",
            ], in: root)
        #expect(built.status == 0, "\(built.standardError)")
        let datasets = try FileManager.default.contentsOfDirectory(atPath: root + "/datasets").filter {
            $0.hasSuffix(".json") && !$0.hasSuffix(".manifest.json")
        }
        try #require(datasets.count == 1, "\(datasets)")
        let summary = try Binaries.run(
            "hubctl", ["dataset", "summary", "datasets/\(datasets[0])", "--reports-dir", "reports"], in: root)
        #expect(summary.status == 0, "\(summary.standardError)")
        let page = "\(root)/reports/calib_summary_\(datasets[0].dropLast(5)).html"
        #expect(try Browser.faults(of: String(contentsOfFile: page, encoding: .utf8)) == [])
    }

    /// What the browser is asked for is what it can find.
    @Test func whatHindersAReaderIsFound() throws {
        let faults = try Browser.faults(
            of: """
                <!DOCTYPE html><title>t</title><style>:root{color-scheme:light dark}</style><p style="width:1000px">wide
                <p style="color:#999">faint<svg width=0 height=0></svg><img src="nowhere.png">
                """)
        for fault in ["of it are right of the window", "'faint' has a contrast", "no table", "1 pictures are empty", "it fetches"] {
            #expect(faults.contains { $0.hasPrefix("390 px, light") && $0.contains(fault) }, "\(fault): \(faults)")
        }
        #expect(!faults.contains { $0.hasPrefix("1280") && $0.contains("right of the window") })
    }
}
