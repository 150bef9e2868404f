import Foundation
import TestSupport
import Testing

/// The disk that forgets, proven on programs of a few lines: what it must keep it keeps always, what it may lose it loses sometimes.
@Suite(.enabled(if: ForgetfulDisk.isUsable, "SKIPPED: a sanitizer's library must be the first of a process"))
struct ForgetfulDiskTests {
    private typealias Files = [String: [UInt8]]

    /// Runs a Python program in each of some folders of one disk, which begin with what `prepared` holds; it ends with kill -9, then the power goes.
    /// What is left in each folder, by name.
    private static func after(
        _ program: String, in folders: Int = 24, prepared: [String: String] = [:], _ settings: [String: String] = [:]
    ) throws -> [Files] {
        let directory = try Binaries.temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let root = directory + "/disk"
        for folder in 0..<folders {
            try FileManager.default.createDirectory(atPath: "\(root)/\(folder)", withIntermediateDirectories: true)
            for (name, text) in prepared { try Data(text.utf8).write(to: URL(fileURLWithPath: "\(root)/\(folder)/\(name)")) }
        }
        let disk = try ForgetfulDisk(root)
        let whole = """
            import os
            def sync(path):
                f = os.open(path, os.O_RDONLY); os.fsync(f); os.close(f)
            def add(path, text):
                f = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND); assert os.write(f, text.encode()) == len(text); return f
            for folder in range(\(folders)):
                os.chdir(f"\(disk.root)/{folder}")
            \(program.split(separator: "\n").map { "    " + $0 }.joined(separator: "\n"))
            os.kill(os.getpid(), 9)
            """
        let outcome = try Binaries.run(
            "/usr/bin/env", ["python3", "-S", "-I", "-c", whole],
            environment: ProcessInfo.processInfo.environment.merging(try disk.environment(settings)) { $1 })
        #expect(outcome.status == 137, "\(outcome.standardError)")
        var random = SeededRandom(seed: 1)
        _ = try disk.losePower(&random)
        return try (0..<folders).map { folder in
            var left: Files = [:]
            for name in try FileManager.default.contentsOfDirectory(atPath: "\(root)/\(folder)") {
                left[name] = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(root)/\(folder)/\(name)")))
            }
            return left
        }
    }

    private static func bytes(_ text: String, _ count: Int = 1) -> [UInt8] { [UInt8](String(repeating: text, count: count).utf8) }

    @Test func whatWasSyncedStays_whatWasNotIsLostByThePage() throws {
        let left = try Self.after("f = add('log', 'A' * 10000); os.fsync(f); sync('.'); os.write(f, b'B' * 40000)")
        let logs = left.compactMap { $0["log"] }
        #expect(logs.count == left.count)
        #expect(logs.allSatisfy { $0.starts(with: Self.bytes("A", 10000)) && $0.count <= 50000 })
        #expect(logs.allSatisfy { $0.dropFirst(10000).allSatisfy { $0 == UInt8(ascii: "B") || $0 == 0 } })
        #expect(Set(logs.map(\.count)).count > 3 && logs.contains { $0.count == 10000 } && logs.contains { $0.count == 50000 })
        #expect(logs.contains { $0.count > 16384 && $0[12288..<16384].allSatisfy { $0 == 0 } }, "no page was lost")
        #expect(logs.contains { $0.count > 16384 && $0[12288..<16384].allSatisfy { $0 != 0 } }, "every page was lost")
    }

    @Test func aNameIsDurableWithItsDirectoryOnly() throws {
        let left = try Self.after("os.fsync(add('log', 'A'))")
        #expect(Set(left) == [[:], ["log": Self.bytes("A")]])
        #expect(Set(try Self.after("os.fsync(add('log', 'A')); sync('.')")) == [["log": Self.bytes("A")]])
    }

    @Test func aRenameOverAFile_isOldOrNew_andNewOnceTheDirectoryIsSynced() throws {
        let replace = "os.fsync(add('new', 'new')); os.rename('new', 'file')"
        #expect(
            Set(try Self.after(replace, prepared: ["file": "old"])) == [
                ["file": Self.bytes("old")], ["file": Self.bytes("old"), "new": Self.bytes("new")], ["file": Self.bytes("new")],
            ])
        #expect(Set(try Self.after(replace + "; sync('.')", prepared: ["file": "old"])) == [["file": Self.bytes("new")]])
        // Synced is the name, and not what it names.
        let unsynced = try Self.after("add('new', 'new'); os.rename('new', 'file'); sync('.')", prepared: ["file": "old"])
        #expect(unsynced.contains(["file": []]) && !unsynced.contains(["file": Self.bytes("old")]))
    }

    @Test func aRemovedFileMayComeBack() throws {
        let left = try Self.after("os.unlink('file')", prepared: ["file": "old"])
        #expect(Set(left) == [["file": Self.bytes("old")], [:]])
        #expect(Set(try Self.after("os.unlink('file'); sync('.')", prepared: ["file": "old"])) == [[:]])
    }

    @Test func bytesWrittenOverAndCutOffMayComeBack() throws {
        let program = "f = os.open('file', os.O_RDWR); os.pwrite(f, b'B', 0); os.ftruncate(f, 2)"
        let left = Set(try Self.after(program, prepared: ["file": "AAAA"]).map { $0["file"] })
        #expect(left.isSuperset(of: ["AAAA", "BA"].map { Self.bytes($0) }))
        #expect(left.isSubset(of: ["AAAA", "BAAA", "AA", "BA"].map { Self.bytes($0) }))
        #expect(Set(try Self.after(program + "; os.fdatasync(f)", prepared: ["file": "AAAA"])) == [["file": Self.bytes("BA")]])
    }

    @Test func aFullDiskTakesWhatFits_thenNothing() throws {
        let left = try Self.after(
            """
            f = add('log', 'A' * 100); sync('.')
            assert os.write(f, b'A' * 100) == 50
            try: os.write(f, b'A')
            except OSError as e: assert e.errno == 28; os.fsync(f); os.kill(os.getpid(), 9)
            """, in: 1, ["FORGETFUL_FULL_AFTER": "150"])
        #expect(left == [["log": Self.bytes("A", 150)]])
    }

    /// As with Linux: the sync behind the failed one says that all is well, and it is not.
    @Test func aFailedSyncForgets() throws {
        let left = try Self.after(
            """
            f = add('log', 'A' * 1000000); sync('.')
            try: os.fsync(f)
            except OSError as e: assert e.errno == 5; os.fsync(f); os.kill(os.getpid(), 9)
            """, in: 1, ["FORGETFUL_FAIL_SYNC": "1"])
        #expect(left[0]["log"] != nil && left[0]["log"] != Self.bytes("A", 1_000_000))
    }

    @Test func theKillComesAtThePointThatWasNamed() throws {
        // Eight points for each file: before and behind its making, its write, its sync, and the sync of the directory.
        let program = "for letter in 'ABCDEFG': os.fsync(add(letter, letter)); sync('.')"
        #expect(try Self.after(program, in: 1, ["FORGETFUL_KILL_AT": "24"]) == [["A": [65], "B": [66], "C": [67]]])
    }
}
