import CalibModel

/// Checks and repairs the end of a feed's file on open (SPEC 2.7).
///
/// The bytes from the first bad row on are copied to `.cut/<file>.<offset>.<n>.pending` and synced before the file is cut; the name loses
/// `.pending` once the rows saved are synced in the file again. So a crash at any moment leaves either the file, or the pending copy, or
/// both, and the next start finishes the work: a row already back is known by its identity.
package struct FeedRecovery<Disk: FeedDisk> {
    /// What was taken away.
    package struct Cut: Sendable, Equatable {
        package var feed: Feed
        package var file: String
        package var offset: Int
        package var bytes: Int
        package var rowsSaved: Int
    }

    /// Where cut bytes are kept.
    package static var folder: String { ".cut" }

    package private(set) var cuts: [Cut] = []
    package init() {}

    /// Returns the highest seq found; nil for none. What is in the file is synced afterwards if anything was repaired.
    package mutating func repair(_ name: String, _ feed: Feed, on disk: inout Disk) throws(Disk.Failure) -> Int64? {
        let length = Int(try disk.length(of: name) ?? 0)
        let (start, tail, found) = try examine(name, length, &disk)
        var pending = try disk.names(in: Self.folder).filter { $0.hasPrefix(name + ".") && $0.hasSuffix(".pending") }
        let end = start + found.validEnd
        if length > end {
            let number = try disk.names(in: Self.folder).filter { $0.hasPrefix("\(name).\(end).") }.count
            let copy = "\(name).\(end).\(number).pending"
            try disk.write(Array(tail[found.validEnd...]), to: "\(Self.folder)/\(copy)", at: 0)
            try disk.sync("\(Self.folder)/\(copy)")
            disk.release("\(Self.folder)/\(copy)")
            try disk.syncNames(in: Self.folder)
            pending.append(copy)
        }
        guard length > end || found.needsNewline || !pending.isEmpty else { return found.highestSeq }

        if length > end { try disk.cut(name, to: Int64(end)) }
        var back: [UInt8] = found.needsNewline ? [0x0a] : []
        var highest = found.highestSeq
        for copy in pending {
            let path = "\(Self.folder)/\(copy)"
            let copied = try disk.read(path, at: 0, count: Int(try disk.length(of: path) ?? 0))
            // What is in the file from the place of that cut on; the rows before it were never touched.
            let offset = min(end, Self.offset(of: copy, name) ?? 0)
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
            cuts.append(
                Cut(feed: feed, file: name, offset: Self.offset(of: copy, name) ?? 0, bytes: copied.count, rowsSaved: rows.count))
        }
        if !back.isEmpty { try disk.write(back, to: name, at: Int64(end)) }
        try disk.sync(name)
        disk.release(name)
        for copy in pending { try disk.rename("\(Self.folder)/\(copy)", to: "\(Self.folder)/\(copy.dropLast(".pending".count))") }
        if !pending.isEmpty { try disk.syncNames(in: Self.folder) }
        return highest
    }

    /// Examines the last `Limits.repairTailBytes`, and more of the file as long as not one valid row comes before the damage.
    private func examine(_ name: String, _ length: Int, _ disk: inout Disk) throws(Disk.Failure) -> (Int, [UInt8], FeedRepair) {
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
