import Glibc
import Testing

/// ARCHITECTURE: cores know no socket, file, thread, ambient clock or Foundation. Checked on their source lines. CCRC32C is a pure function.
struct PurityTests {
    static let allowed: [String: Set<String>] = [
        "CalibModel": ["CCRC32C", "RealModule"],
        "Wire": ["CalibModel"],
        "EdgeCore": ["CalibModel", "Wire"],
        "HubCore": ["CalibModel", "Wire"],
        "Simulation": ["CalibModel", "Wire", "EdgeCore", "HubCore"],
    ]

    @Test(arguments: allowed.keys.sorted())
    func coreImportsOnlyWhatItMay(target: String) throws {
        let root = #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
        let files = try swiftFiles(under: "\(root)/Sources/\(target)")
        #expect(!files.isEmpty)
        for file in files {
            for module in try importedModules(in: lines(of: file)) {
                #expect(Self.allowed[target]!.contains(module), "\(file) imports \(module)")
            }
        }
    }

    @Test(arguments: [
        ("import Glibc", ["Glibc"]), ("package import Wire", ["Wire"]), ("@preconcurrency import Foundation", ["Foundation"]),
        ("import struct Foundation.Data", ["Foundation"]), ("  import  A ; import B", ["A", "B"]),
        ("// import C", []), ("let important = 1", []),
        ("/// `import X` only when", []), ("@_exported public import func D.e", ["D"]),
    ])
    func importIsRecognised(line: String, expected: [String]) { #expect(importedModules(in: [line]) == expected) }
}

private func importedModules(in lines: [String]) -> [String] {
    let kinds: Set<Substring> = ["struct", "class", "enum", "protocol", "typealias", "func", "let", "var", "actor"]
    return lines.flatMap { line -> [String] in
        guard !line.drop(while: { $0 == " " }).hasPrefix("//") else { return [] }
        return line.split(separator: ";").compactMap { statement in
            let words = statement.split(separator: " ")
            guard let index = words.firstIndex(of: "import"), words[..<index].allSatisfy({ isModifier($0) }) else { return nil }
            let rest = words[(index + 1)...].drop { kinds.contains($0) }
            return rest.first.flatMap { $0.split(separator: ".").first }.map(String.init)
        }
    }
}

private func isModifier(_ word: Substring) -> Bool {
    word.hasPrefix("@") || ["public", "package", "internal", "fileprivate", "private"].contains(word)
}

private func swiftFiles(under folder: String) throws -> [String] {
    let stream = try #require(opendir(folder), "\(folder)")
    defer { closedir(stream) }
    var files: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { name in
            name.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name.hasPrefix(".") { continue }
        if Int32(entry.pointee.d_type) == DT_DIR {
            files += try swiftFiles(under: folder + "/" + name)
        } else if name.hasSuffix(".swift") {
            files.append(folder + "/" + name)
        }
    }
    return files.sorted()
}

private func lines(of path: String) throws -> [String] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var lines: [String] = []
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { free(line) }
    while true {
        let count = getline(&line, &capacity, file)
        guard count >= 0, let line else { return lines }
        lines.append(String(decoding: UnsafeRawBufferPointer(start: line, count: count).filter { $0 != 0x0a && $0 != 0x0d }, as: UTF8.self))
    }
}
