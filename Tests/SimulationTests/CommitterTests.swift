import HubCore
import Simulation
import Testing
import Wire

/// The hub's commit rounds on a simulated disk.
@Suite struct CommitterTests {
    private static let file = "fills_20250101.jsonl"
    private static let path = "host=tokyo/" + file

    private func write(_ row: String, _ epoch: String, at offset: Int64, _ committer: inout Committer<SimDisk>) -> Int64? {
        Array(row.utf8).withUnsafeBytes { committer.write($0, host: "tokyo", file: Self.file, epoch: epoch, offset: offset) }
        for case .committed(_, _, let length, _) in committer.endRound().results { return length }
        return nil
    }

    private func inspect(_ committer: inout Committer<SimDisk>) -> Ingest.Inspection? {
        committer.inspect(LinkID(1), host: "tokyo", file: Self.file, fromBlock: 0)
        for case .inspected(_, _, _, let found) in committer.endRound().results { return found }
        return nil
    }

    /// A crash may leave a file's name and nothing of its bytes but zeros: then it is nobody's, and the next bytes are its first.
    @Test func aFileOfWhichNothingIsLeft_isNobodys() throws {
        var disk = SimDisk(seed: 1)
        try disk.write(Array(repeating: UInt8(0), count: 700), to: Self.path, at: 0)
        try disk.sync(Self.path)
        var committer = Committer(disk: disk)
        let found = try #require(inspect(&committer))
        #expect(found.length == 0 && found.epoch == nil)
        let row = #"{"ts":1,"epoch":"00000000000000aa","seq":1}"# + "\n"
        #expect(write(row, "00000000000000aa", at: 0, &committer) == Int64(row.utf8.count))

        // Another process finds whose it is.
        var next = Committer(disk: disk)
        let again = try #require(inspect(&next))
        #expect(again.length == Int64(row.utf8.count) && again.epoch == "00000000000000aa")
    }
}
