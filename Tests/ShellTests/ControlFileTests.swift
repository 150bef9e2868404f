import CalibModel
import EdgeCore
import Foundation
import NodeShell
import TestSupport
import Testing
import Wire

/// Idea: rows written by one process are read by another, whatever a crash left between them.
struct ControlFileTests {
    @Test func rowsOfSeveralWritersFoldInTheirOrder() throws {
        try withFile { file in
            #expect(try file.read() == [])
            #expect(file.stamp == nil)
            let kill = KillRecord(milliseconds: 1, action: .kill, symbol: nil, by: "a", reason: "r")
            let release = KillRecord(milliseconds: 2, action: .release, symbol: nil, by: "b", reason: "r")
            #expect(try file.append(kill.line) == kill.line)
            let before = file.stamp
            // Another process has its own object.
            #expect(try ControlFile(path: file.path).append(release.line) == kill.line + release.line)
            #expect(file.stamp != before)
            #expect(try state(of: file) == false)
            _ = try file.append(kill.line)
            #expect(try state(of: file) == true)
        }
    }

    @Test func tornRowIsNoRow_andIsCutByTheNextWriter() throws {
        try withFile { file in
            let kill = KillRecord(milliseconds: 1, action: .kill, symbol: "BBB", by: "a", reason: "r")
            try Data(kill.line + kill.line.dropLast(5)).write(to: URL(fileURLWithPath: file.path))
            #expect(try file.append(kill.line) == kill.line + kill.line)
            #expect(try file.read() == kill.line + kill.line)
        }
    }

    /// What is left of a kill's row counts as a kill, so it must outlive the next writer.
    @Test func tornKillBecomesALineOfItsOwn_andStillCounts() throws {
        try withFile { file in
            let release = KillRecord(milliseconds: 2, action: .release, symbol: "BBB", by: "a", reason: "r")
            let torn = Array(KillRecord(milliseconds: 1, action: .kill, symbol: nil, by: "a", reason: "r").line.dropLast(5))
            try Data(torn).write(to: URL(fileURLWithPath: file.path))
            let kills = ControlFile(kills: file.path)
            #expect(try kills.append(release.line) == torn + [0x0a] + release.line)
            #expect(try kills.read() == torn + [0x0a] + release.line)
            #expect(try state(of: kills) == true)
        }
    }

    @Test func directoryThatIsNotThereIsNamed() {
        let file = ControlFile(path: "/nowhere/kills.jsonl")
        let error = #expect(throws: FileError.self) { try file.append([0x0a]) }
        #expect(error?.path == file.path)
    }

    /// Whether the host is killed, as an edge that starts now reads it.
    private func state(of file: ControlFile) throws -> Bool {
        var kills = KillSwitch(symbols: ["AAA", "BBB"])
        _ = kills.step(.log(try file.read()))
        return kills.isHostKilled
    }

    private func withFile(_ body: (ControlFile) throws -> Void) throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try body(ControlFile(path: directory + "/kills.jsonl"))
    }
}

struct SyncedFilesTests {
    @Test func onlySyncedLengthsAreTold_andTheReaderIsWokenOnceUntilItLooks() throws {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let day = CalendarDay(year: 2025, month: 1, day: 2)!
        let row = Array("{\"v\":1,\"host\":\"h\",\"epoch\":\"0123456789abcdef\",\"seq\":1}\n".utf8)
        do {
            let files = try FeedFiles(artifacts: directory)
            let wakes = Counter()
            files.synced.onChange { wakes.add() }
            try row.withUnsafeBytes { try files.append(.fills, day, $0) }
            #expect(files.synced.takeChanges().isEmpty && wakes.value == 0)
            try files.sync(.fills)
            try row.withUnsafeBytes { try files.append(.fills, day, $0) }
            try files.sync(.fills)
            #expect(wakes.value == 1)
            let changes = files.synced.takeChanges()
            #expect(changes.map(\.name) == ["fills_20250102.jsonl"] && changes.map(\.length) == [Int64(2 * row.count)])
            #expect(files.synced.takeChanges().isEmpty)
        }
        // What a run before left is durable from the start on.
        let again = try FeedFiles(artifacts: directory)
        #expect(again.synced.takeChanges().map(\.length) == [Int64(2 * row.count)])
    }
}

private final class Counter: @unchecked Sendable {
    // Touched by the test's thread only: the writer here is the test.
    private(set) var value = 0
    func add() { value += 1 }
}
