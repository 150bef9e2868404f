import Foundation

/// The real recordings beside the project. They are not part of it: tests that need one say so loudly when it is absent.
package enum Recordings {
    package static let usdm = path("binance-usdm/btcusdt_20240808.gz")
    package static let spot = [path("binance-spot/btcusdt_20240808.gz"), path("binance-spot/btcusdt_20240809.gz")]
    package static let bybit = path("bybit/BYBIT.jsonl.zst")

    package static var bybitIsHere: Bool { FileManager.default.fileExists(atPath: bybit) }
    package static var areHere: Bool { FileManager.default.fileExists(atPath: usdm) }
    package static let absence = "SKIPPED: the real recordings are not at ../shared/marketdata; this test proves nothing without them"

    /// <root>/../shared/marketdata/<name>
    private static func path(_ name: String, file: StaticString = #filePath) -> String {
        let root = URL(fileURLWithPath: "\(file)").deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return root.deletingLastPathComponent().appendingPathComponent("shared/marketdata/\(name)").path
    }
}

/// The repository's root, for files such as `config/edge.yaml`.
package enum Repository {
    package static func path(_ name: String, file: StaticString = #filePath) -> String {
        URL(fileURLWithPath: "\(file)").deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent(name).path
    }
}
