import CalibModel
import EdgeCore
import Glibc
import NodeShell
import Synchronization
import TestSupport
import Testing
import Wire

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
            try files.sync(.fills)
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
        #expect(try folder.read("feeds/.cut/fills_19700101.jsonl.\(cut.offset).0.1.untold") == bad)
    }

    /// The process died before its event was durable: rows are missing in the file, and only the next start can still say why.
    @Test func cutIsToldByEveryStart_untilItsEventIsDurable() throws {
        let folder = try Folder()
        let bad = "{\"half\":\n" + row(3) + "\0\0\0"
        try folder.write("feeds/fills_19700101.jsonl", row(1) + row(2) + bad)
        try folder.write("feeds/quotes_19700101.jsonl", row(1) + "x\n")
        let cuts = try FeedFiles(artifacts: folder.path).cuts
        try #require(cuts.map(\.feed) == [.fills, .quotes] && cuts.map(\.rowsSaved) == [1, 0])
        var second: FeedFiles? = try FeedFiles(artifacts: folder.path)
        #expect(second?.cuts == cuts)
        try second?.tell([cuts[0]])
        #expect(try folder.read("feeds/.cut/fills_19700101.jsonl.\(cuts[0].offset).0") == bad)
        second = nil
        #expect(try FeedFiles(artifacts: folder.path).cuts == [cuts[1]])
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
        let copy = "feeds/.cut/fills_19700101.jsonl.\(row(1).utf8.count).0"
        // What is cut once more is told once more.
        #expect(files.cuts.count == (afterCut.first == "bad" ? 2 : 1))
        try files.tell(files.cuts)
        #expect(try folder.read(copy) == tail)
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

    /// A file-size limit stands for a full disk: the write stops inside a row, all of it is cut back, the error is told.
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
        #expect(Int(status.st_size) == limit - length * 3 / 2)
    }

    // MARK: Trouble

    /// The disk is full in the middle of a row, and then refuses even to cut it off: the next append begins by cutting.
    @Test(arguments: [false, true])
    func appendThatFailsLeavesNothing_andIsRepeatedWhole(cutFailsToo: Bool) throws {
        let folder = try Folder()
        let disk = FaultyDisk()
        let files = try FeedFiles(artifacts: folder.path, calls: disk.calls)
        try append(files, .fills, 0, [row(1)])
        disk.set { ($0.room, $0.cutFails) = (10, cutFailsToo) }
        for _ in 0..<2 {
            let error = #expect(throws: FileError.self) { try append(files, .fills, 0, [row(2), row(3)]) }
            #expect(error?.errorNumber == (cutFailsToo ? error?.errorNumber : ENOSPC))
        }
        // What was there before can be synced, and that is all that is ever shipped.
        try files.sync(.fills)
        #expect(files.synced.takeChanges().map(\.length) == [Int64(row(1).utf8.count)])
        disk.set { ($0.room, $0.cutFails) = (.max, false) }
        try append(files, .fills, 0, [row(2), row(3)])
        try files.sync(.fills)
        #expect(try folder.read("feeds/fills_19700101.jsonl") == row(1) + row(2) + row(3))
    }

    /// After a failed sync the file goes back to what is known to be durable, and a new descriptor goes on from there.
    @Test func syncThatFailsTakesBackWhatItDidNotCover() throws {
        let folder = try Folder()
        let disk = FaultyDisk()
        let files = try FeedFiles(artifacts: folder.path, calls: disk.calls)
        try append(files, .fills, 0, [row(1)])
        try files.sync(.fills)
        _ = files.synced.takeChanges()
        try append(files, .fills, 0, [row(2)])
        disk.set { $0.syncFails = true }
        let error = #expect(throws: FileError.self) { try files.sync(.fills) }
        #expect(error?.errorNumber == EIO)
        try files.takeBack(.fills)
        #expect(try folder.read("feeds/fills_19700101.jsonl") == row(1))
        let before = disk.opens
        disk.set { $0.syncFails = false }
        try append(files, .fills, 0, [row(2)])
        try files.sync(.fills)
        #expect(disk.opens == before + 1)
        #expect(try folder.read("feeds/fills_19700101.jsonl") == row(1) + row(2))
        #expect(files.synced.takeChanges().map(\.length) == [Int64((row(1) + row(2)).utf8.count)])
    }

    /// The writer and the files together, on a disk that fails half of the time, and processes that die in the middle of it.
    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func noDurableRowIsLostOrDoubled_overFaultsAndRestarts(seed: UInt64) throws {
        let folder = try Folder()
        var random = SeededRandom(seed: seed)
        var durable: [UInt8] = []
        for life in 0..<6 {
            let disk = FaultyDisk()
            let files = try FeedFiles(artifacts: folder.path, calls: disk.calls)
            let found = Array(try folder.read("feeds/events_20250101.jsonl", orEmpty: true).utf8)
            #expect(found.starts(with: durable), "what was durable is as it was")
            #expect(found.split(separator: 0x0a).count == Int(files.highestSeq[2]), "seq without a hole")
            let format = RecordFormat(source: "live", venue: "v", host: "h", epoch: files.epoch, instruments: [])
            var writer = FeedWriter(format: format, highestSeq: files.highestSeq)
            var now: Int64 = 0
            for step in 0..<200 {
                now += 20_000_000
                let isHealthy = life == 5 && step > 120
                disk.set { state in
                    state.room = isHealthy || random.next(below: 2) == 0 ? .max : random.next(below: 300)
                    state.syncFails = !isHealthy && random.next(below: 4) == 0
                    state.cutFails = !isHealthy && random.next(below: 4) == 0
                }
                for _ in 0..<random.next(below: 3) {
                    let wall = WallTime(nanoseconds: 1_735_689_600_000_000_000 + now)
                    writer.append(EventRecord(wall: wall, kind: .clock, first: 1), at: Instant(nanoseconds: now))
                }
                for effect in writer.endDrain(at: Instant(nanoseconds: now), isLast: isHealthy) where writer.mayPerform(effect) {
                    do {
                        switch effect {
                        case .append(let feed, let day, let range):
                            let bytes = Array(writer.pendingBytes(of: feed)[range])
                            try bytes.withUnsafeBytes { try files.append(feed, day, $0) }
                        case .sync(let feed): try files.sync(feed)
                        case .takeBack(let feed): try files.takeBack(feed)
                        }
                        writer.done(effect)
                    } catch {
                        writer.failed(effect, at: Instant(nanoseconds: now))
                    }
                }
                writer.performed()
                if let length = files.synced.takeChanges().last?.length {
                    let bytes = Array(try folder.read("feeds/events_20250101.jsonl").utf8.prefix(Int(length)))
                    #expect(bytes.starts(with: durable) && bytes.last == 0x0a)
                    durable = bytes
                }
            }
            if life == 5 { #expect(writer.isEverythingSynced && writer.troubleSince == nil) }
        }
        #expect(durable.split(separator: 0x0a).count > 300)
    }

    // MARK: Sealed files

    @Test func sealSaysWhatTheFileHolds_andIsRememberedOnce() throws {
        let folder = try Folder()
        let text = row(1) + row(2) + row(7)
        try folder.write("feeds/quotes_19700101.jsonl", text)
        do {
            let files = try FeedFiles(artifacts: folder.path)
            let day = CalendarDay(number: 0)
            let missing = try files.sealed.seal(.fills, day) { false }
            let cancelled = try files.sealed.seal(.quotes, day) { true }
            #expect(missing == nil && cancelled == nil)
            let file = try #require(try files.sealed.seal(.quotes, day) { false })
            #expect(
                file
                    == SealedFile(
                        feed: .quotes, day: day, bytes: Int64(text.utf8.count), rows: 3, sha256: Digest.sha256(Array(text.utf8)),
                        highestSeq: 7))
            #expect(files.sealed[.quotes, day] == nil)
            try files.sealed.note(file)
            #expect(files.sealed[.quotes, day] == file)
        }
        // It is not read again: damage of the same length stays, and seq comes from the ledger.
        try folder.write("feeds/quotes_19700101.jsonl", String(repeating: "x", count: text.utf8.count))
        do {
            let files = try FeedFiles(artifacts: folder.path)
            #expect(files.cuts.isEmpty && files.highestSeq[4] == 7 && files.sealed[.quotes, CalendarDay(number: 0)]?.rows == 3)
        }
        // Of another length it is looked at like any.
        try folder.write("feeds/quotes_19700101.jsonl", row(1) + "x")
        let files = try FeedFiles(artifacts: folder.path)
        #expect(files.cuts.count == 1 && files.highestSeq[4] == 1)
    }

    /// The process died between a sealed event's sync and its line in the ledger, or in the middle of that line.
    @Test(arguments: ["", "{\"file\":\"fills_1970"])
    func sealedEventWithoutItsLineIsFound(ledger: String) throws {
        let folder = try Folder()
        try folder.write("feeds/fills_19700101.jsonl", row(1))
        var lines = RecordLines(RecordFormat(source: "live", venue: "v", host: "h", epoch: "0123456789abcdef", instruments: []))
        var events = JSONWriter()
        let sha256 = Digest.sha256(Array(row(1).utf8))
        let wall = WallTime(nanoseconds: 86_400_000_000_000)
        lines.event(EventRecord(wall: wall, kind: .started, first: 1), seq: 1, into: &events)
        lines.event(
            EventRecord(wall: wall, kind: .sealed, first: Int64(row(1).utf8.count), second: 1),
            about: EventSubject(feed: .fills, day: CalendarDay(number: 0), sha256: sha256), seq: 2, into: &events)
        try folder.write("feeds/events_19700102.jsonl", String(decoding: events.bytes, as: UTF8.self))
        try folder.write("feeds/.sealed", ledger)
        for _ in 0..<2 {
            let files = try FeedFiles(artifacts: folder.path)
            #expect(files.sealed[.fills, CalendarDay(number: 0)]?.sha256 == sha256)
            #expect(files.highestSeq[0] == 1 && files.newestDay[2] == CalendarDay(number: 1))
        }
        #expect(try folder.read("feeds/.sealed").split(separator: "\n").count == 1)
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

/// The system's calls, some of which fail as a full or dying disk lets them.
private final class FaultyDisk: Sendable {
    struct State {
        /// Bytes that the next writes may still put down.
        var room = Int.max
        var syncFails = false
        var cutFails = false
        var opens = 0
    }
    private let state = Mutex(State())

    func set(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }
    var opens: Int { state.withLock { $0.opens } }

    var calls: FileCalls {
        FileCalls(
            write: { [self] descriptor, bytes, count, offset in
                let part = state.withLock { state in
                    defer { if state.room != .max { state.room = max(0, state.room - count) } }
                    return min(count, state.room)
                }
                if part == 0 {
                    errno = ENOSPC
                    return -1
                }
                return pwrite(descriptor, bytes, part, offset)
            },
            sync: { [self] descriptor in
                guard state.withLock({ $0.syncFails }) else { return fdatasync(descriptor) }
                errno = EIO
                return -1
            },
            truncate: { [self] descriptor, length in
                guard state.withLock({ $0.cutFails }) else { return ftruncate(descriptor, length) }
                errno = EIO
                return -1
            },
            open: { [self] path in
                set { $0.opens += 1 }
                return FileCalls.system.open(path)
            })
    }
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

    func read(_ name: String, orEmpty: Bool = false) throws -> String {
        if orEmpty, access(path + "/" + name, F_OK) != 0 { return "" }
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
