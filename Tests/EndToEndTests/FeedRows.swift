import Foundation

/// The rows of a feeds directory, read by Foundation: nothing of ours judges our own files. Decimals are exact.
struct FeedRows {
    struct Row {
        var values: [String: Any]
        func integer(_ key: String) -> Int { (values[key] as? NSNumber)?.intValue ?? .min }
        func text(_ key: String) -> String? { values[key] as? String }
        func flag(_ key: String) -> Bool { (values[key] as? NSNumber)?.boolValue ?? false }
        /// Nil for null. `NSNumber` may hold a double: its shortest text is the decimal that was written.
        func optional(_ key: String) -> NSDecimalNumber? { (values[key] as? NSNumber).map { NSDecimalNumber(string: $0.stringValue) } }
        func decimal(_ key: String) -> NSDecimalNumber { optional(key) ?? .notANumber }
        func object(_ key: String) -> Row { Row(values: values[key] as? [String: Any] ?? [:]) }
    }

    struct Broken: Error, CustomStringConvertible { var description: String }

    private var rows: [String: [Row]] = [:]

    /// Throws when a line is not one whole JSON object with a newline.
    init(directory: String) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: directory).sorted() where name.hasSuffix(".jsonl") {
            let feed = String(name.prefix(name.utf8.count - "_20250101.jsonl".utf8.count))
            let data = try Data(contentsOf: URL(fileURLWithPath: directory + "/" + name))
            guard data.isEmpty || data.last == 0x0a else { throw Broken(description: "\(name) ends in the middle of a row") }
            for (number, line) in data.split(separator: 0x0a, omittingEmptySubsequences: false).dropLast().enumerated() {
                guard let object = try? JSONSerialization.jsonObject(with: line) as? [String: Any] else {
                    throw Broken(description: "\(name):\(number + 1) is no row: \(String(decoding: line.prefix(200), as: UTF8.self))")
                }
                rows[feed, default: []].append(Row(values: object))
            }
        }
    }

    subscript(feed: String) -> [Row] { rows[feed] ?? [] }
    var feeds: [String] { rows.keys.sorted() }
}
