import CalibModel
import Glibc
import NodeShell
import Testing

/// Idea: write rows, close, damage the files as a crash would, open again; then look at the files, not at the code.
struct FeedFilesTests {
    @Test func epochIsMadeOnceAndSeqIsTheHighestOfAllFiles() throws {
        let folder = try Folder()
        let epoch: String
        do {
            let files = try FeedFiles(artifacts: folder.path)
            epoch = files.epoch
            #expect(epoch.utf8.count == 16)
            #expect(files.highestSeq == [0, 0, 0, 0, 0, 0])
            try append(files, .fills, 1, [row(1), row(2)])
            try append(files, .fills, 0, [row(3)])
            try append(files, .quotes, 0, [row(9)])
            try files.sync(.fills)
        }
        let files = try FeedFiles(artifacts: folder.path)
        #expect(files.epoch == epoch)
        #expect(files.cuts.isEmpty)
        #expect(files.highestSeq == Feed.allCases.map { $0 == .fills ? 3 : $0 == .quotes ? 9 : 0 })
    }

    @Test func secondWriterIsRefused() throws {
        let folder = try Folder()
        let files = try FeedFiles(artifacts: folder.path)
        let error = #expect(throws: FileError.self) { try FeedFiles(artifacts: folder.path) }
        #expect(error?.operation == .lock)
        withExtendedLifetime(files) {}
    }

    @Test func brokenEpochIsNamedAndReplacedByNobody() throws {
        let folder = try Folder()
        try folder.write("feeds/.epoch", "not hex\n")
        let error = #expect(throws: FileError.self) { try FeedFiles(artifacts: folder.path) }
        #expect(error?.path.hasSuffix(".epoch") == true)
        #expect(try folder.read("feeds/.epoch") == "not hex\n")
        // The lock was given back.
        try folder.remove("feeds/.epoch")
        _ = try FeedFiles(artifacts: folder.path)
    }

    @Test func damageIsCutKeptAndWholeRowsReturn() throws {
        let folder = try Folder()
        let file = "feeds/fills_19700101.jsonl"
        let bad = "{\"half\":\n" + row(3) + "\0\0\0"
        try folder.write(file, row(1) + row(2) + bad)
        let files = try FeedFiles(artifacts: folder.path)
        #expect(try folder.read(file) == row(1) + row(2) + row(3))
        #expect(files.highestSeq[0] == 3)
        try #require(files.cuts.count == 1)
        let cut = files.cuts[0]
        #expect(cut.feed == .fills)
        #expect(cut.offset == 2 * row(1).utf8.count)
        #expect(cut.bytes == bad.utf8.count)
        #expect(cut.rowsSaved == 1)
        #expect(try folder.read("feeds/.cut/fills_19700101.jsonl.\(cut.offset).0") == bad)
    }

    @Test func wholeLastRowGetsItsNewline_withoutACut() throws {
        let folder = try Folder()
        try folder.write("feeds/quotes_19700101.jsonl", String(row(1).dropLast()))
        let files = try FeedFiles(artifacts: folder.path)
        #expect(files.cuts.isEmpty)
        #expect(try folder.read("feeds/quotes_19700101.jsonl") == row(1))
    }

    /// The process died after the copy was synced and: nothing else; the file was cut; one of two saved rows was back.
    @Test(arguments: [["bad", "2", "3"], [], ["2"], ["2", "3"]])
    func interruptedRepairIsFinished(afterCut: [String]) throws {
        let folder = try Folder()
        let bad = "garbage\n"
        let tail = bad + row(2) + row(3)
        try folder.write("feeds/fills_19700101.jsonl", row(1) + afterCut.map { $0 == "bad" ? bad : row(Int64($0)!) }.joined())
        try folder.write("feeds/.cut/fills_19700101.jsonl.\(row(1).utf8.count).0.pending", tail)
        let files = try FeedFiles(artifacts: folder.path)
        #expect(try folder.read("feeds/fills_19700101.jsonl") == row(1) + row(2) + row(3))
        #expect(files.highestSeq[0] == 3)
        #expect(try folder.read("feeds/.cut/fills_19700101.jsonl.\(row(1).utf8.count).0") == tail)
        #expect(try !folder.names("feeds/.cut").contains { $0.hasSuffix(".pending") })
    }

    /// Zeros longer than the part that is normally examined.
    @Test func longRunOfZerosIsCutWhole() throws {
        let folder = try Folder()
        try folder.write("feeds/quotes_19700101.jsonl", row(1) + row(2) + String(repeating: "\0", count: 3 * Limits.repairTailBytes))
        let files = try FeedFiles(artifacts: folder.path)
        #expect(try folder.read("feeds/quotes_19700101.jsonl") == row(1) + row(2))
        #expect(files.cuts.count == 1)
    }

    /// A file-size limit stands for a full disk: the write stops inside a row, the part is cut back, the error is told.
    @Test func rowCutShortByAFullDiskIsTakenBack() throws {
        let folder = try Folder()
        let files = try FeedFiles(artifacts: folder.path)
        try append(files, .quotes, 0, [row(1)])
        var old = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &old)
        let handler = signal(SIGXFSZ, SIG_IGN)
        // Other tests of this process write at the same time, so the limit is high and the file sparse up to just below it.
        let limit = 1 << 30
        let length = row(1).utf8.count
        let path = folder.path + "/feeds/quotes_19700101.jsonl"
        try #require(truncate(path, limit - length * 3 / 2) == 0)
        var low = old
        low.rlim_cur = rlim_t(limit)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &low)
        defer {
            setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &old)
            signal(SIGXFSZ, handler)
        }
        files.closeFiles()
        let error = #expect(throws: FileError.self) { try append(files, .quotes, 0, [row(2), row(3)]) }
        #expect(error?.operation == .append)
        #expect(error?.errorNumber == EFBIG)
        var status = stat()
        try #require(stat(path, &status) == 0)
        #expect(Int(status.st_size) == limit - length * 3 / 2 + length)
    }

    @Test func otherFilesAreLeftAlone() throws {
        let folder = try Folder()
        for name in ["notes.txt", "fills_2025.jsonl", "fills_20251301.jsonl", "quotes_19700101.jsonl.bak"] {
            try folder.write("feeds/" + name, "x")
        }
        let files = try FeedFiles(artifacts: folder.path)
        #expect(files.cuts.isEmpty)
        #expect(try folder.read("feeds/fills_20251301.jsonl") == "x")
    }
}

private func row(_ seq: Int64) -> String { "{\"v\":1,\"host\":\"h\",\"epoch\":\"0123456789abcdef\",\"seq\":\(seq)}\n" }

private func append(_ files: FeedFiles, _ feed: Feed, _ day: Int64, _ rows: [String]) throws {
    try Array(rows.joined().utf8).withUnsafeBytes { try files.append(feed, CalendarDay(number: day), $0) }
}

/// A directory of the test's own, removed with everything in it.
private final class Folder {
    let path: String

    init() throws {
        var template = Array("/tmp/calibrant-feeds-XXXXXX".utf8CString)
        path = String(cString: try #require(mkdtemp(&template)))
    }

    deinit {
        for folder in ["/feeds/.cut", "/feeds", ""] {
            for name in (try? names(folder)) ?? [] { unlink("\(path)\(folder)/\(name)") }
            rmdir(path + folder)
        }
    }

    func write(_ name: String, _ text: String) throws {
        mkdir(path + "/feeds", 0o755)
        mkdir(path + "/feeds/.cut", 0o755)
        let file = try #require(fopen(path + "/" + name, "w"))
        defer { fclose(file) }
        let bytes = Array(text.utf8)
        try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    }

    func remove(_ name: String) throws { try #require(unlink(path + "/" + name) == 0) }

    func read(_ name: String) throws -> String {
        let file = try #require(fopen(path + "/" + name, "r"), "\(name)")
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        return String(decoding: bytes[..<fread(&bytes, 1, bytes.count, file)], as: UTF8.self)
    }

    func names(_ folder: String) throws -> [String] {
        let stream = try #require(opendir(path + "/" + folder))
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { name in
                name.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
