import Foundation
import TestSupport
import Testing

/// What builds leave beside the feeds makes the next one cheap and never different.
@Suite struct DatasetCacheTests {
    private struct World {
        let root: String
        var feeds: String { root + "/feeds" }

        init(_ arguments: [String]) throws {
            root = try Binaries.temporaryDirectory()
            let made = try Binaries.run("calib-lab", ["gen", "feeds", "--output", "feeds"] + arguments, in: root, deadline: 120)
            #expect(made.status == 0, "\(made.standardError)")
        }

        /// The dataset's sha256.
        func build(_ more: [String] = [], from: Int = 0, to: Int) throws -> String {
            let outcome = try Binaries.run(
                "hubctl",
                [
                    "dataset", "build", "--feeds-dir", "feeds", "--output-dir", "datasets", "--from-ts", "2025-01-01T0\(from):00:00Z",
                    "--to-ts", "2025-01-01T0\(to):00:00Z", "--replace", "-o", "json",
                ] + more, in: root)
            #expect(outcome.status == 0, "\(outcome.standardError)")
            let body = try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any]
            return body?["sha256"] as? String ?? ""
        }

        var kept: [String] {
            let folder = root + "/feeds/.partials"
            return (FileManager.default.enumerator(atPath: folder)?.allObjects as? [String] ?? []).filter { $0.contains(".") }.sorted().map
            {
                folder + "/" + $0
            }
        }
        /// Which file it is: another one after it has been written again.
        static func inode(_ path: String) throws -> Int {
            try #require(try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? Int)
        }
    }

    private static func change(_ path: String, _ edit: (inout Data) -> Void) throws {
        var data = try Data(contentsOf: URL(fileURLWithPath: path))
        edit(&data)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: data)
        try handle.close()
    }

    @Test(arguments: [["--seed-form", "--dirty"], ["--dirty"], []])
    func coldWarmDamagedAndStale_areOneDataset(_ form: [String]) throws {
        let world = try World(["--hosts", "2", "--symbols", "2", "--hours", "2"] + form)
        defer { try? FileManager.default.removeItem(atPath: world.root) }
        let truth = try world.build(["--no-cache"], to: 2)
        #expect(world.kept.isEmpty)
        #expect(try world.build(to: 2) == truth)
        // Faults of our form give one seq to two rows: then everything is read anew, and nothing is kept.
        #expect(world.kept.count { $0.hasSuffix(".hour") } == (form == ["--dirty"] ? 0 : 2))
        #expect(try world.build(to: 2) == truth)
        #expect(try world.build(["--threads", "1"], to: 2) == truth)
        for place in [0.0, 0.3, 0.6, 0.99] {
            for path in world.kept { try Self.change(path) { $0[Int(place * Double($0.count))] ^= 4 } }
            #expect(try world.build(to: 2) == truth)
        }
        for path in world.kept { try Self.change(path) { $0.removeLast($0.count / 3) } }
        #expect(try world.build(to: 2) == truth)
        #expect(try world.build(to: 2) == truth)

        // A feed that somebody wrote in, without making it longer: seconds later, so that only its time tells.
        let feed = world.feeds + "/host=edge-1/pipeline_ticks_20250101.jsonl"
        let old = Date(timeIntervalSinceNow: -3600)
        for path in try FileManager.default.subpathsOfDirectory(atPath: world.feeds) where path.hasSuffix(".jsonl") {
            try FileManager.default.setAttributes([.modificationDate: old], ofItemAtPath: world.feeds + "/" + path)
        }
        #expect(try world.build(to: 2) == truth)
        try Self.change(feed) { data in
            guard let range = data.range(of: Data(#""cache_hit":true"#.utf8), in: data.count / 2..<data.count) else { return }
            data.replaceSubrange(range, with: Data(#""cache_hit":null"#.utf8))
        }
        let changed = try world.build(to: 2)
        #expect(changed != truth)
        #expect(try world.build(["--no-cache"], to: 2) == changed)
    }

    /// The files grow as feeds do; hours that are done are not computed again, and other ranges use them, too.
    @Test(arguments: [["--seed-form"], ["--seed-form", "--dirty"], []])
    func oneMoreHour_isAllThatIsRead(_ form: [String]) throws {
        let world = try World(["--hosts", "2", "--symbols", "2", "--hours", "3"] + form)
        defer { try? FileManager.default.removeItem(atPath: world.root) }
        let third = Data(#"{"ts":17356968"#.utf8)  // 02:00:00 to 02:01:40.
        var rests: [(path: String, rest: Data)] = []
        for name in try FileManager.default.subpathsOfDirectory(atPath: world.feeds) where name.hasSuffix(".jsonl") {
            let path = world.feeds + "/" + name
            try Self.change(path) { data in
                guard let cut = data.range(of: third)?.lowerBound else { return }
                rests.append((path, data[cut...]))
                data.removeSubrange(cut...)
            }
        }
        #expect(rests.count == (form.contains("--seed-form") ? 4 : 10))
        let two = try world.build(to: 2)
        #expect(try world.build(["--no-cache"], to: 2) == two)
        let hours = world.kept.filter { $0.hasSuffix(".hour") }
        #expect(hours.count == 2)
        let inodes = try hours.map(World.inode)
        for (path, rest) in rests {
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            try handle.seekToEnd()
            try handle.write(contentsOf: rest)
            try handle.close()
        }
        let three = try world.build(to: 3)
        #expect(three != two)
        #expect(try world.build(["--no-cache"], to: 3) == three)
        // The first hour is as it was. The second may have had to wait for markouts of its last fills.
        #expect(try World.inode(hours[0]) == inodes[0])
        if form == ["--seed-form"] { #expect(try World.inode(hours[1]) == inodes[1]) }
        #expect(try world.build(from: 1, to: 3) == world.build(["--no-cache"], from: 1, to: 3))
        #expect(try world.build(from: 1, to: 2) == world.build(["--no-cache"], from: 1, to: 2))
        #expect(try world.build(to: 2) == world.build(["--no-cache"], to: 2))
        // Parquet of hours that were kept is Parquet of hours that were computed.
        _ = try world.build(["--form", "parquet"], to: 3)
        let parquet = world.root + "/datasets/calib_20250101_000000_20250101_030000.parquet"
        let kept = try Data(contentsOf: URL(fileURLWithPath: parquet))
        _ = try world.build(["--form", "parquet", "--no-cache"], to: 3)
        #expect(try Data(contentsOf: URL(fileURLWithPath: parquet)) == kept)
    }
}
