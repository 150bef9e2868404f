import Glibc
import NodeShell
import Testing

/// Idea: one text, many containers. Whatever the container and however it is cut into members, the lines are the same; damage
/// costs the lines behind it and is named, never the lines before it.
struct LineInputTests {
    @Test(arguments: ["plain.txt", "packed.gz", "packed.zst"])
    func linesSurviveEveryContainer(name: String) throws {
        let folder = try Folder()
        let lines = (0..<20_000).map { String(repeating: "x", count: $0 % 97) + "\($0)" }
        let path = try folder.write(lines.joined(separator: "\n") + "\n", name)
        #expect(try readLines(path).lines == lines)
    }

    @Test(arguments: [
        ("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\nb", ["a", "b"]), ("\n\nb\n", ["", "", "b"]), ("a\r\n", ["a\r"]),
    ])
    func lastLineCountsWithOrWithoutItsNewline(text: String, expected: [String]) throws {
        let folder = try Folder()
        for name in ["t", "t.gz", "t.zst"] { #expect(try readLines(folder.write(text, name)).lines == expected, "\(name)") }
    }

    @Test(arguments: ["gz", "zst"])
    func membersAndFramesAreOneText(suffix: String) throws {
        let folder = try Folder()
        let one = try readBytes(folder.write("a\nb", "1.\(suffix)"))
        let two = try readBytes(folder.write("", "2.\(suffix)"))
        let three = try readBytes(folder.write("c\nd\n", "3.\(suffix)"))
        let path = try folder.writeBytes(one + two + three, "all.\(suffix)")
        #expect(try readLines(path).lines == ["a", "bc", "d"])
    }

    @Test(arguments: ["t", "t.gz", "t.zst"])
    func oversizedLineIsSkippedAndCounted(name: String) throws {
        let folder = try Folder()
        let long = String(repeating: "y", count: 600_000)
        let path = try folder.write("first\n\(long)\nsecond\n12345678\n123456789\n\(long)", name)
        let result = try readLines(path, limit: 8)
        #expect(result.lines == ["first", "second", "12345678"])
        #expect(result.oversized == 3)
        #expect(try readLines(path).lines == ["first", long, "second", "12345678", "123456789", long])
    }

    @Test(arguments: ["t.gz", "t.zst"])
    func truncatedFileYieldsWhatIsWhole_thenNamesTheFile(name: String) throws {
        let folder = try Folder()
        let lines = manyLines()
        let bytes = try readBytes(folder.write(lines.joined(separator: "\n") + "\n", name))
        var best = 0
        for keep in [5, 12, bytes.count / 2, bytes.count - 5, bytes.count - 1] {
            let result = try readLines(folder.writeBytes(Array(bytes[..<keep]), "cut-" + name))
            #expect(result.lines == Array(lines[..<result.lines.count]))
            #expect(result.error?.operation == .decompress)
            #expect(result.error?.message.contains("cut-\(name)' beyond byte \(keep);") == true, "\(result.error as Any)")
            #expect(result.lines.count >= best)
            best = result.lines.count
        }
        #expect(best == lines.count)
    }

    @Test(arguments: ["t.gz", "t.zst"])
    func damageYieldsWhatIsBeforeIt_thenNamesTheByte(name: String) throws {
        let folder = try Folder()
        let lines = manyLines()
        var bytes = try readBytes(folder.write(lines.joined(separator: "\n") + "\n", name))
        let whole = try readBytes(folder.write("one\ntwo\n", "whole-" + name))
        for index in bytes.count / 2..<bytes.count / 2 + 64 { bytes[index] ^= 0xa5 }
        let result = try readLines(folder.writeBytes(whole + bytes, "bad-" + name))
        #expect(result.lines.count >= 2 && result.lines.count < lines.count)
        #expect(Array(result.lines.prefix(2)) == ["one", "two"])
        #expect(result.error?.message.contains("at byte") == true)
        // The same trouble again, not a silent end, when a caller goes on.
        #expect(result.errorAgain == result.error)
    }

    @Test func absentFileIsNamedWithItsCause() throws {
        let folder = try Folder()
        let result = #expect(throws: FileError.self) { try readLines(folder.path + "/absent") }
        #expect(result?.errorNumber == ENOENT)
        let expected =
            "cannot open '\(folder.path)/absent' for reading; does it exist and is it readable? (No such file or directory)"
        #expect(result?.description == expected)
    }

    @Test(arguments: ["t", "t.gz", "t.zst"])
    func outputIsDeterministic_andAppearsOnlyWhenWhole(name: String) throws {
        let folder = try Folder()
        let text = manyLines().joined(separator: "\n")
        let first = try readBytes(folder.write(text, "1" + name))
        #expect(try readBytes(folder.write(text, "2" + name)) == first)
        do {
            var output = try LineOutput(path: folder.path + "/3" + name)
            try output.append(Array("half a file".utf8))
        }
        #expect(access(folder.path + "/3" + name, F_OK) != 0)
        #expect(access(folder.path + "/3" + name + ".partial", F_OK) != 0)
    }

    private func manyLines() -> [String] {
        var state: UInt64 = 1
        return (0..<40_000).map { index in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return "\(index) \(state)"
        }
    }
}

private struct ReadResult {
    var lines: [String] = []
    var oversized = 0
    var error: FileError?
    var errorAgain: FileError?
}

@discardableResult
private func readLines(_ path: String, limit: Int = LineInput.lineBytesMax) throws -> ReadResult {
    var input = try LineInput(path: path, lineBytesLimit: limit)
    var result = ReadResult()
    do throws(FileError) {
        while let line = try input.next() { result.lines.append(String(decoding: line, as: UTF8.self)) }
    } catch {
        result.error = error
        do throws(FileError) { _ = try input.next() } catch { result.errorAgain = error }
    }
    result.oversized = input.oversizedLines
    return result
}

private func readBytes(_ path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var unit = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = fread(&unit, 1, unit.count, file)
        if count == 0 { return bytes }
        bytes += unit[..<count]
    }
}

/// A directory of the test's own, removed with everything in it.
private final class Folder {
    let path: String
    private var files: Set<String> = []

    init() throws {
        var template = Array("/tmp/calibrant-lines-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
    }

    deinit {
        for file in files { unlink(file) }
        rmdir(path)
    }

    func write(_ text: String, _ name: String) throws -> String {
        let file = path + "/" + name
        files.insert(file)
        var output = try LineOutput(path: file)
        try output.append(Array(text.utf8))
        try output.finish()
        return file
    }

    func writeBytes(_ bytes: [UInt8], _ name: String) throws -> String {
        let file = path + "/" + name
        files.insert(file)
        let stream = try #require(fopen(file, "w"))
        defer { fclose(stream) }
        try #require(fwrite(bytes, 1, bytes.count, stream) == bytes.count)
        return file
    }
}
