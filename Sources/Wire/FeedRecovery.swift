import CalibModel

/// Checks and repairs the end of a feed's file on open (SPEC 2.7).
///
/// The bytes from the first bad row on are copied to `.cut/<file>.<offset>.<n>.pending` and synced before the file is cut; the name becomes
/// `.cut/<file>.<offset>.<n>.<rows saved>.untold` once the rows saved are synced in the file again, and `.cut/<file>.<offset>.<n>` once the
/// event that tells of it is durable. So a crash at any moment leaves either the file, or the pending copy, or both, and the next start
/// finishes the work: a row already back is known by its identity, and a cut is told until it is known to be told, perhaps twice.
package enum FeedRecovery<Disk: FeedDisk> {
    /// What was taken away.
    package struct Cut: Sendable, Equatable {
        package var feed: Feed
        package var file: String
        package var offset: Int
        package var bytes: Int
        package var rowsSaved: Int
        /// Which of the cuts at this offset.
        package var number: Int

        fileprivate var told: String { "\(FeedRecovery.folder)/\(file).\(offset).\(number)" }
        fileprivate var untold: String { "\(told).\(rowsSaved).untold" }

        /// Nil for what is no untold cut.
        fileprivate init?(name: String, bytes: Int) {
            let parts = name.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count > 4, parts.last == "untold", let offset = Int(parts[parts.count - 4]),
                let number = Int(parts[parts.count - 3]), let rows = Int(parts[parts.count - 2])
            else { return nil }
            file = parts.dropLast(4).joined(separator: ".")
            guard let feed = FeedFileName.parse(file)?.feed else { return nil }
            (self.feed, self.offset, self.number, self.bytes, rowsSaved) = (feed, offset, number, bytes, rows)
        }
    }

    /// Where cut bytes are kept.
    package static var folder: String { ".cut" }

    /// The cuts that no durable event tells of: this start's, and those of starts that ended before their event was on the disk.
    package static func untoldCuts(on disk: inout Disk) throws(Disk.Failure) -> [Cut] {
        var cuts: [Cut] = []
        for name in try disk.names(in: folder) {
            let bytes = Int(try disk.length(of: "\(folder)/\(name)") ?? 0)
            if let cut = Cut(name: name, bytes: bytes) { cuts.append(cut) }
        }
        return cuts
    }

    /// The events of these cuts are durable.
    package static func tell(_ cuts: [Cut], on disk: inout Disk) throws(Disk.Failure) {
        for cut in cuts { try disk.rename(cut.untold, to: cut.told) }
        try disk.syncNames(in: folder)
    }

    /// Returns the highest seq found; nil for none. What is in the file is synced afterwards if anything was repaired.
    package static func repair(_ name: String, _ feed: Feed, on disk: inout Disk) throws(Disk.Failure) -> Int64? {
        let length = Int(try disk.length(of: name) ?? 0)
        let (start, tail, found) = try examine(name, length, &disk)
        var pending = try disk.names(in: folder).filter { $0.hasPrefix(name + ".") && $0.hasSuffix(".pending") }
        let end = start + found.validEnd
        if length > end {
            let number = try disk.names(in: folder).filter { $0.hasPrefix("\(name).\(end).") }.count
            let copy = "\(name).\(end).\(number).pending"
            try disk.write(Array(tail[found.validEnd...]), to: "\(folder)/\(copy)", at: 0)
            try disk.sync("\(folder)/\(copy)")
            disk.release("\(folder)/\(copy)")
            try disk.syncNames(in: folder)
            pending.append(copy)
        }
        guard length > end || found.needsNewline || !pending.isEmpty else { return found.highestSeq }

        if length > end { try disk.cut(name, to: Int64(end)) }
        var back: [UInt8] = found.needsNewline ? [0x0a] : []
        var highest = found.highestSeq
        var rowsSaved: [Int] = []
        for copy in pending {
            let path = "\(folder)/\(copy)"
            let copied = try disk.read(path, at: 0, count: Int(try disk.length(of: path) ?? 0))
            // What is in the file from the place of that cut on; the rows before it were never touched.
            let offset = min(end, offset(of: copy, name) ?? 0)
            var known: Set<RowIdentity> = []
            for bytes in [try disk.read(name, at: Int64(offset), count: end - offset), back] {
                bytes.withUnsafeBytes { _ = FeedRepair.rows(in: $0, except: &known) }
            }
            let rows = copied.withUnsafeBytes { FeedRepair.rows(in: $0, except: &known) }
            for row in rows {
                let seq = copied.withUnsafeBytes { RowIdentity(line: UnsafeRawBufferPointer(rebasing: $0[row]))?.seq }
                if let seq { highest = max(highest ?? seq, seq) }
                back += copied[row]
                back.append(0x0a)
            }
            rowsSaved.append(rows.count)
        }
        if !back.isEmpty { try disk.write(back, to: name, at: Int64(end)) }
        try disk.sync(name)
        disk.release(name)
        for (copy, rows) in zip(pending, rowsSaved) {
            try disk.rename("\(folder)/\(copy)", to: "\(folder)/\(copy.dropLast("pending".count))\(rows).untold")
        }
        if !pending.isEmpty { try disk.syncNames(in: folder) }
        return highest
    }

    /// Examines the last `Limits.repairTailBytes`, and more of the file as long as not one valid row comes before the damage.
    private static func examine(_ name: String, _ length: Int, _ disk: inout Disk) throws(Disk.Failure) -> (Int, [UInt8], FeedRepair) {
        var size = Limits.repairTailBytes
        while true {
            let start = max(0, length - size)
            // With the byte before, which says whether a row begins here.
            let bytes = try disk.read(name, at: Int64(max(0, start - 1)), count: length - max(0, start - 1))
            let tail = start == 0 ? bytes : Array(bytes.dropFirst())
            let found = tail.withUnsafeBytes { FeedRepair(examining: $0, startsAtRow: start == 0 || bytes[0] == 0x0a) }
            // Without one newline in it, the part skipped as "the row before" is the whole tail.
            let sawNothing = found.highestSeq == nil && length > 0
            if start == 0 || !(found.isAllBad || sawNothing) { return (start, tail, found) }
            size *= 2
        }
    }

    /// The offset in `<file>.<offset>.<n>.pending`.
    private static func offset(of copy: String, _ name: String) -> Int? {
        copy.dropFirst(name.count + 1).split(separator: ".").first.flatMap { Int($0) }
    }
}
