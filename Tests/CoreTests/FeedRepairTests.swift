import CalibModel
import Testing
import Wire

/// Idea: a feed of whole rows is damaged in every way a crash damages files; whatever the damage, the repaired feed holds every row that is
/// still whole exactly once, in order, unchanged, and nothing else. The oracle knows which rows the damage touched.
struct FeedRepairTests {
    @Test func everyCutKeepsTheWholeRowsBeforeIt() {
        let rows = makeRows(7)
        let file = rows.flatMap { $0 }
        for cut in 0...file.count {
            let expected = wholeRows(rows, untouchedBy: cut..<file.count, lastNewlineMayBeMissing: true)
            let isAsExpected = repaired(Array(file[..<cut])) == expected  // Not inside the macro, which would print both files.
            #expect(isAsExpected, "cut at \(cut)")
        }
    }

    @Test(arguments: [UInt8(0), 0x0a, 0x7b, 0x22, 0xff, 0x20])
    func everyOverwrittenTailKeepsTheWholeRowsBeforeIt(filler: UInt8) {
        let rows = makeRows(4)
        let file = rows.flatMap { $0 }
        for cut in 0..<file.count {
            var damaged = file
            for index in cut..<file.count { damaged[index] = filler }
            let expected = wholeRows(rows, untouchedBy: cut..<file.count, lastNewlineMayBeMissing: filler == 0x0a)
            let isAsExpected = repaired(damaged) == expected  // Not inside the macro, which would print both files.
            #expect(isAsExpected, "\(filler) from \(cut)")
        }
    }

    /// Garbage in the middle costs the rows it touches; those behind it return.
    @Test func damageInTheMiddleCostsOnlyTheRowsItTouches() {
        let rows = makeRows(10)
        let file = rows.flatMap { $0 }
        var random = Noise(state: 1)
        for _ in 0..<1000 {
            let start = random.below(file.count)
            let range = start..<min(file.count, start + 1 + random.below(400))
            var damaged = file
            for index in range { damaged[index] = random.below(3) == 0 ? 0 : 0x80 | UInt8(random.below(128)) }
            let isAsExpected = repaired(damaged) == wholeRows(rows, untouchedBy: range, lastNewlineMayBeMissing: false)
            #expect(isAsExpected, "\(range)")
        }
    }

    /// Half of a row, then whole rows on the same line: the first implementation lost the row behind a torn one, too (fault 54).
    @Test func rowGluedToATornOneIsLostWithIt_thoseBehindAreNot() {
        let rows = makeRows(4)
        let file = rows[0] + rows[1][..<40] + rows[2] + rows[3]
        #expect(repaired(file) == rows[0] + rows[3])
    }

    @Test func equalIdentityCountsOnce() {
        let rows = makeRows(4)
        let bad = Array("{\"half\":\n".utf8)
        #expect(repaired(rows[0] + rows[1] + bad + rows[1] + rows[2] + rows[2] + rows[3]) == rows[0] + rows[1] + rows[2] + rows[3])
    }

    @Test func highestSeqCountsSavedRowsToo() {
        let rows = makeRows(5)
        let file = rows[0] + [0, 0, 0x0a] + rows[4] + rows[1]
        #expect(examine(file).highestSeq == 5)
        #expect(examine([]).highestSeq == nil)
        #expect(examine(Array("x\ny\n".utf8)).isAllBad)
    }

    /// Whatever the part examined, what lies before it stays, and the result is that of examining the whole file.
    @Test func everyPartOfAFileGivesTheSameEnd() {
        let rows = makeRows(6)
        let file = rows[0] + rows[1] + rows[2] + [0x7b, 0x0a] + rows[3] + rows[4][..<100]
        let whole = examine(file)
        for start in 1..<(rows[0].count + rows[1].count + 1) {
            let startsAtRow = file[start - 1] == 0x0a
            let part = Array(file[start...]).withUnsafeBytes { FeedRepair(examining: $0, startsAtRow: startsAtRow) }
            #expect(part.validEnd + start == whole.validEnd)
            #expect(part.saved.map { ($0.lowerBound + start)..<($0.upperBound + start) } == whole.saved)
        }
    }

    @Test func partWithoutARowAsksForALongerOne() {
        let part = [UInt8](repeating: 0, count: 1000).withUnsafeBytes { FeedRepair(examining: $0, startsAtRow: false) }
        #expect(part.highestSeq == nil)
        let rows = [UInt8](repeating: 0, count: 10) + [0x0a, 0x7b, 0x0a]
        #expect(rows.withUnsafeBytes { FeedRepair(examining: $0, startsAtRow: false) }.isAllBad)
    }

    @Test(arguments: [
        (#"{"v":1,"host":"h","epoch":"e","seq":1}"#, true),
        (#" {"v":1,"host":"h","epoch":"e","seq":1}"#, false),
        (#"{"v":1,"host":"h","epoch":"e","seq":1} "#, false),
        (#"{"x":[1,{"seq":9}],"v":2,"host":"h","epoch":"e","seq":1}"#, true),
        (#"{"v":1,"host":"h","epoch":"e","seq":1}{}"#, false),
        (#"{"v":1,"host":"h","epoch":"e","seq":1,}"#, false),
        (#"{"v":1,"host":"h","epoch":"e"}"#, false),
        (#"{"host":"h","epoch":"e","seq":1}"#, false),
        (#"{"v":1,"epoch":"e","seq":1}"#, false),
        (#"{"v":1,"host":"h","seq":1}"#, false),
        (#"{"v":"1","host":"h","epoch":"e","seq":1}"#, false),
        (#"{"v":1,"host":7,"epoch":"e","seq":1}"#, false),
        (#"{"v":1,"host":"h","epoch":null,"seq":1}"#, false),
        (#"{"v":1,"host":"h","epoch":"e","seq":1.0}"#, false),
        (#"{"v":1,"host":"h","epoch":"e","seq":0}"#, false),
        (#"{"v":1,"host":"h","epoch":"e","seq":9007199254740992}"#, false),
        (#"{"v":1,"host":"h","epoch":"e","seq":1,"seq":2}"#, false),
        (#"{"v":1,"host":"","epoch":"e","seq":1}"#, false),
        (#"{"x":NaN,"v":1,"host":"h","epoch":"e","seq":1}"#, false),
        (#"[1]"#, false), ("", false), ("null", false),
    ])
    func rowIsValid(line: String, expected: Bool) {
        #expect((Array(line.utf8).withUnsafeBytes { RowIdentity(line: $0) } != nil) == expected, "\(line)")
    }

    @Test func rowIsUTF8AndWithinTheLimit() {
        let start = Array(#"{"v":1,"host":"h","epoch":"e","seq":1,"x":""#.utf8)
        let end = Array(#""}"#.utf8)
        func isRow(_ middle: [UInt8]) -> Bool { (start + middle + end).withUnsafeBytes { RowIdentity(line: $0) } != nil }
        #expect(isRow([0xc3, 0xa9]))
        #expect(!isRow([0xc3]))
        let room = Limits.rowBytesMax - 1 - start.count - end.count  // The newline is part of the row.
        #expect(isRow(.init(repeating: 0x61, count: room)))
        #expect(!isRow(.init(repeating: 0x61, count: room + 1)))
    }
}

private struct Noise {
    var state: UInt64
    mutating func below(_ bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % bound
    }
}

private func makeRows(_ count: Int) -> [[UInt8]] { (1...count).map { Array(Sample.row(Feed.allCases[$0 % 6], seq: Int64($0)).utf8) } }

private func examine(_ file: [UInt8]) -> FeedRepair { file.withUnsafeBytes { FeedRepair(examining: $0, startsAtRow: true) } }

/// What the shell makes of the examination.
private func repaired(_ file: [UInt8]) -> [UInt8] {
    let found = examine(file)
    var result = Array(file[..<found.validEnd])
    if found.needsNewline { result.append(0x0a) }
    for row in found.saved { result += file[row] + [0x0a] }
    return result
}

/// The rows of which no byte lies in the damage, the last touched row too when only its newline does and the damage ends the line.
private func wholeRows(_ rows: [[UInt8]], untouchedBy damage: Range<Int>, lastNewlineMayBeMissing: Bool) -> [UInt8] {
    var result: [UInt8] = []
    var start = 0
    for (index, row) in rows.enumerated() {
        let end = start + row.count
        let touched = damage.overlaps(start..<end)
        let onlyNewline = lastNewlineMayBeMissing && damage.lowerBound == end - 1
        // A row glued to damage before it, because the newline between them is gone, is lost with it.
        let isGlued = index > 0 && damage.contains(start - 1)
        if (!touched && !isGlued) || onlyNewline { result += row }
        start = end
    }
    return result
}
