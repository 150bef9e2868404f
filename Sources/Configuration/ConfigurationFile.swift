import CalibModel
import Wire
import Yams

/// One mistake in a configuration file, printed as `file:line:col: key: what, what is allowed` (SPEC 9.1).
package struct ConfigurationProblem: CustomStringConvertible, Sendable {
    package var file: String
    /// Nil when the trouble has no place in the file.
    package var line: Int?
    package var column: Int?
    package var key: String
    package var text: String
    package init(file: String, line: Int? = nil, column: Int? = nil, key: String, text: String) {
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.text = text
    }
    package var description: String {
        let place = [file, line.map(String.init), column.map(String.init)].compactMap { $0 }.joined(separator: ":")
        return "\(place): \(key.isEmpty ? "" : "\(key): ")\(text)"
    }
}

/// All mistakes of a configuration at once; exit status 78.
package struct ConfigurationError: Error, CustomStringConvertible {
    package var problems: [ConfigurationProblem]
    package init(problems: [ConfigurationProblem]) { self.problems = problems }
    package var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// A value of the configuration in the unit it is used in.
package enum ConfigurationKind<Configuration>: Sendable {
    case boolean(@Sendable (inout Configuration, Bool) -> Void)
    /// A whole number.
    case integer(ClosedRange<Int64>, @Sendable (inout Configuration, Int64) -> Void)
    /// A decimal with so many places; the range and the value are in units of the last place.
    case decimal(places: Int, ClosedRange<Int64>, @Sendable (inout Configuration, Int64) -> Void)
    case text(allowed: String, isAllowed: @Sendable (String) -> Bool, @Sendable (inout Configuration, String) -> Void)
}

/// One key: its path, its default as it stands in the annotated file, and what it sets.
package struct ConfigurationKey<Configuration>: Sendable {
    package var path: String
    package var standard: String
    package var kind: ConfigurationKind<Configuration>
    package init(path: String, standard: String, kind: ConfigurationKind<Configuration>) {
        self.path = path
        self.standard = standard
        self.kind = kind
    }
}

/// Reads a nested YAML mapping against a table of keys: unknown keys, wrong types and values out of range are all reported.
package struct ConfigurationReader {
    package let file: String
    package private(set) var problems: [ConfigurationProblem] = []

    package init(file: String) { self.file = file }

    package mutating func problem(_ node: Node?, _ key: String, _ text: String) {
        problems.append(
            ConfigurationProblem(file: file, line: node?.mark?.line, column: node?.mark?.column, key: key, text: text))
    }

    /// The document's root; nil, and a problem, when the text is not YAML. An empty document is an empty mapping.
    package mutating func compose(_ text: String) -> Node? {
        do {
            return try Yams.compose(yaml: text) ?? .mapping(.init([]))
        } catch let error as YamlError {
            switch error {
            case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _), .composer(_, let problem, let mark, _):
                problems.append(
                    ConfigurationProblem(file: file, line: mark.line, column: mark.column, key: "", text: "not YAML: \(problem)"))
            case .duplicatedKeysInMapping(let keys, let context):
                for key in keys {
                    problems.append(
                        ConfigurationProblem(
                            file: file, line: context.mark.line, column: context.mark.column, key: key,
                            text: "is given twice in one mapping"))
                }
            default: problems.append(ConfigurationProblem(file: file, key: "", text: "not YAML: \(error)"))
            }
        } catch {
            problems.append(ConfigurationProblem(file: file, key: "", text: "not YAML"))
        }
        return nil
    }

    /// Scalars of a nested mapping by dotted path. Anything else is a problem; so is a key given twice.
    package mutating func flatten(_ node: Node, under prefix: String = "") -> [(path: String, node: Node)] {
        guard case .mapping(let mapping) = node else {
            problem(node, prefix, "must be a mapping of keys to values")
            return []
        }
        var result: [(String, Node)] = []
        var seen: Set<String> = []
        for (keyNode, value) in mapping {
            let key = prefix.isEmpty ? keyNode.string ?? "?" : "\(prefix).\(keyNode.string ?? "?")"
            guard seen.insert(key).inserted else {
                problem(keyNode, key, "is given twice")
                continue
            }
            switch value {
            case .mapping: result += flatten(value, under: key)
            case .scalar: result.append((key, value))
            default: problem(value, key, "must be one value")
            }
        }
        return result
    }

    package mutating func apply<Configuration>(
        _ path: String, _ node: Node, _ table: [ConfigurationKey<Configuration>], to configuration: inout Configuration
    ) {
        guard let key = table.first(where: { $0.path == path }) else {
            problem(node, path, Self.unknown(path, table))
            return
        }
        if let text = Self.set(key, node.string ?? "", &configuration) { problem(node, path, text) }
    }

    package static func unknown<Configuration>(_ path: String, _ table: [ConfigurationKey<Configuration>]) -> String {
        "unknown key\(nearest(path, table.map(\.path)).map { "; did you mean \($0)?" } ?? "")"
    }

    /// The value as it is listed and hashed: `1`, `1.0` and `1.00` are one value.
    package static func canonical<Configuration>(_ key: ConfigurationKey<Configuration>, _ text: String) -> String {
        guard case .decimal(let places, _, _) = key.kind, let value = exact(text, places: places) else { return text }
        return decimal(value, places)
    }

    /// What is wrong with the value, or nil when it was set.
    package static func set<Configuration>(
        _ key: ConfigurationKey<Configuration>, _ text: String, _ configuration: inout Configuration
    ) -> String? {
        switch key.kind {
        case .boolean(let set):
            guard text == "true" || text == "false" else { return "'\(text)' is neither true nor false" }
            set(&configuration, text == "true")
        case .integer(let range, let set):
            guard let value = Int64(text) else {
                return "'\(text)' is not a whole number; \(range.lowerBound)...\(range.upperBound) is allowed"
            }
            guard range.contains(value) else { return "\(text) is outside \(range.lowerBound)...\(range.upperBound)" }
            set(&configuration, value)
        case .decimal(let places, let range, let set):
            let allowed = "\(decimal(range.lowerBound, places))...\(decimal(range.upperBound, places))"
            guard let value = exact(text, places: places) else {
                return "'\(text)' is not a number of at most \(places) decimal places; \(allowed) is allowed"
            }
            guard range.contains(value) else { return "\(text) is outside \(allowed)" }
            set(&configuration, value)
        case .text(let allowed, let isAllowed, let set):
            guard isAllowed(text) else { return "'\(text)' is not allowed; \(allowed)" }
            set(&configuration, text)
        }
        return nil
    }

    /// A plain decimal as a multiple of 10^-places, nil when it is not one exactly.
    package static func exact(_ text: String, places: Int) -> Int64? {
        var copy = text
        return copy.withUTF8 { DecimalText(UnsafeRawBufferPointer($0))?.exact(places: places) }
    }

    package static func decimal(_ value: Int64, _ places: Int) -> String {
        var writer = JSONWriter()
        writer.fixed(value, places: places)
        return String(decoding: writer.bytes, as: UTF8.self)
    }

    /// The known key that differs in the fewest places, when that is a likely slip of the pen.
    private static func nearest(_ path: String, _ known: [String]) -> String? {
        if let longer = known.first(where: { $0.hasPrefix(path) }) { return longer }
        let best = known.map { ($0, distance(Array(path.utf8), Array($0.utf8))) }.min { $0.1 < $1.1 }
        return best.flatMap { $0.1 <= max(2, path.utf8.count / 4) ? $0.0 : nil }
    }

    /// Levenshtein distance.
    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var row = Array(0...b.count)
        for i in 0..<a.count {
            var diagonal = row[0]
            row[0] = i + 1
            for j in 0..<b.count {
                let above = row[j + 1]
                row[j + 1] = a[i] == b[j] ? diagonal : 1 + min(diagonal, min(above, row[j]))
                diagonal = above
            }
        }
        return row[b.count]
    }
}
