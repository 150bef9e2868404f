import CalibModel
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

    /// A file that had to be closed is opened again, not looked through again; one that was forgotten is. Nothing is lost either way.
    @Test(arguments: [(open: 2, known: 100), (open: 100, known: 3)])
    func moreFilesThanMayBeOpen_orKnown(open: Int, known: Int) {
        let disk = SimDisk(seed: 1)
        var committer = Committer(disk: disk, openFilesMax: open, knownFilesMax: known)
        var lengths = [Int64](repeating: 0, count: 6)
        var readsOfTheFirst = 0
        for round in 1...4 {
            for (host, length) in lengths.enumerated() {
                let row = Array(Self.row(round).utf8)
                row.withUnsafeBytes { committer.write($0, host: "h\(host)", file: Self.file, epoch: Self.former, offset: length) }
                lengths[host] += Int64(row.count)
                var committed: [Int64] = []
                for case .committed(_, _, let length, _) in committer.endRound().results { committed.append(length) }
                #expect(committed == [lengths[host]])
                // Each has its receipts beside it.
                #expect(disk.openPaths.count <= 2 * min(open, known))
            }
            if round == 1 { readsOfTheFirst = disk.reads }
        }
        #expect((disk.reads == readsOfTheFirst) == (known > 6))
        for (host, length) in lengths.enumerated() { #expect(disk.bytes(of: "host=h\(host)/" + Self.file).count == length) }
    }

    /// A fleet's rounds share their syncs; few files are acknowledged sooner; a round without any delays nobody.
    @Test(arguments: [
        (0, nil), (1, Limits.commitSpacingNanoseconds), (4, Limits.commitSpacingNanoseconds), (5, Limits.commitSpacingManyNanoseconds),
    ])
    func roundsOfManyFilesComeFurtherApart(files: Int, spacing: Int64?) {
        var committer = Committer(disk: SimDisk(seed: 1))
        for host in 0..<files {
            Array(Self.row(1).utf8).withUnsafeBytes {
                committer.write($0, host: "h\(host)", file: Self.file, epoch: Self.former, offset: 0)
            }
        }
        #expect(committer.endRound().spacing == spacing)
    }

    // MARK: Copies of an edge that has lost its disk

    private static let former = "00000000000000aa"
    private static let current = "00000000000000bb"

    private static func row(_ seq: Int) -> String { #"{"ts":1,"epoch":"\#(former)","seq":\#(seq)}"# + "\n" }

    /// A hub's process that starts on this disk and to which the host comes back: what is left of the file.
    private func survey(_ disk: SimDisk, epoch: String) throws -> (bytes: [UInt8], isQuarantined: Bool) {
        var committer = Committer(disk: disk)
        committer.survey(LinkID(1), host: "tokyo", epoch: epoch)
        var isQuarantined = false
        for result in committer.endRound().results {
            switch result {
            case .quarantined: isQuarantined = true
            case .failed(_, _, let failure): Issue.record("\(failure)")
            default: break
            }
        }
        return (disk.bytes(of: Self.path), isQuarantined)
    }

    /// Two rows, each synced in a round of its own.
    private func twoRows() -> SimDisk {
        let disk = SimDisk(seed: 1)
        var committer = Committer(disk: disk)
        _ = write(Self.row(1), Self.former, at: 0, &committer)
        _ = write(Self.row(2), Self.former, at: Int64(Self.row(1).utf8.count), &committer)
        return disk
    }

    /// What a crash left there, and no sync covered, is no row of the edge's; nobody would ever take it away.
    @Test(arguments: [[UInt8](repeating: 0, count: 40), Array(#"{"ts":1,"ep"#.utf8)])
    func theUnsyncedEndOfAnAbandonedCopy_isCut(end: [UInt8]) throws {
        var disk = twoRows()
        let whole = disk.bytes(of: Self.path)
        try disk.write(end, to: Self.path, at: Int64(whole.count))
        try disk.sync(Self.path)
        let found = try survey(disk, epoch: Self.current)
        #expect(found.bytes == whole && found.isQuarantined)
    }

    /// Damaged bytes are set aside before they are cut; when the disk has no room for them, it is tried again when the host comes next.
    @Test func anEndThatCannotBeSetAside_isCutLater() throws {
        var disk = twoRows()
        let whole = disk.bytes(of: Self.path)
        try disk.write([0, 0, 0], to: Self.path, at: Int64(whole.count))
        try disk.sync(Self.path)
        var committer = Committer(disk: disk)
        for isFull in [true, false] {
            disk.isFull = isFull
            committer.survey(LinkID(1), host: "tokyo", epoch: Self.current)
            let hasFailed = committer.endRound().results.contains { if case .failed = $0 { true } else { false } }
            #expect(hasFailed == isFull)
            #expect(disk.bytes(of: Self.path) == (isFull ? whole + [0, 0, 0] : whole))
        }
    }

    /// The round under way in a crash has its receipt on the disk, but not its bytes.
    @Test func theRoundUnderWayInACrash_isCutFromAnAbandonedCopy() throws {
        var disk = twoRows()
        try disk.write([0], to: Self.path, at: Int64(Self.row(1).utf8.count) + 3)
        try disk.sync(Self.path)
        let found = try survey(disk, epoch: Self.current)
        #expect(found.bytes == Array(Self.row(1).utf8) && found.isQuarantined)
    }

    /// What a sync did cover stays, for nobody would send it again: views reject the row that has changed and take the others.
    @Test func aChangedBitInAnAbandonedCopy_takesNoRowAlong() throws {
        var disk = twoRows()
        try disk.write([0x23], to: Self.path, at: 3)
        try disk.sync(Self.path)
        let changed = disk.bytes(of: Self.path)
        let found = try survey(disk, epoch: Self.current)
        #expect(found.bytes == changed && !found.isQuarantined)
    }

    /// The edge that has the file asks for it, and sends again what is cut: then, not before.
    @Test func aCopyOfTheCurrentEpoch_waitsForItsEdge() throws {
        var disk = twoRows()
        try disk.write([0], to: Self.path, at: Int64(disk.bytes(of: Self.path).count))
        try disk.sync(Self.path)
        let before = disk.bytes(of: Self.path)
        let found = try survey(disk, epoch: Self.former)
        #expect(found.bytes == before && !found.isQuarantined)
    }
}
