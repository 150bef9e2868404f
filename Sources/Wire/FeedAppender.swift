import CalibModel

/// The open end of each feed of an edge: appends whole rows, syncs them, and takes back what cannot be relied on (SPEC 2.7).
///
/// At most one file per feed is open, the newest written.
package struct FeedAppender<Disk: FeedDisk> {
    private struct OpenFile {
        var day: CalendarDay
        var name: String
        /// Whole rows written: where a row cut short by a full disk is cut off.
        var length: Int64
        /// Of these, what a sync has covered.
        var synced: Int64
        /// More than `length` may be in the file: an append failed.
        var isTorn = false
        var isNameNew: Bool
    }

    private var open: [Feed: OpenFile] = [:]

    package init() {}

    /// Appends whole rows to the feed's file of a day. After an error none of them is in the file, or will be when it is next appended to.
    package mutating func append(
        _ feed: Feed, _ day: CalendarDay, _ rows: UnsafeRawBufferPointer, on disk: inout Disk
    ) throws(Disk.Failure) {
        if let file = open[feed], file.day != day {
            precondition(file.synced == file.length && !file.isTorn, "BUG: \(file.name) is left unsynced")
            disk.release(file.name)
            open[feed] = nil
        }
        var file: OpenFile
        if let found = open[feed] {
            file = found
        } else {
            let name = FeedFileName.text(feed, day)
            let length = try disk.length(of: name) ?? 0
            file = OpenFile(day: day, name: name, length: length, synced: length, isNameNew: length == 0)
        }
        open[feed] = file
        if file.isTorn, try disk.length(of: file.name) != nil { try disk.cut(file.name, to: file.length) }
        do throws(Disk.Failure) {
            open[feed]!.isTorn = true
            try disk.write(rows, to: file.name, at: file.length)
        } catch {
            // At once if the disk lets us: who reads the file sees whole rows.
            do throws(Disk.Failure) {
                try disk.cut(file.name, to: file.length)
                open[feed]!.isTorn = false
            } catch {}  // At the next append, then.
            throw error
        }
        open[feed]!.isTorn = false
        open[feed]!.length += Int64(rows.count)
    }

    /// Makes what was appended to the feed's open file durable; returns the file and how much of it is, nil when there was nothing to do. After an
    /// error nobody knows what is: `takeBack` it.
    package mutating func sync(_ feed: Feed, on disk: inout Disk) throws(Disk.Failure) -> (name: String, length: Int64)? {
        guard let file = open[feed], file.synced < file.length else { return nil }
        try disk.sync(file.name)
        // The name is made durable with the file, else a crash could lose a synced file.
        if file.isNameNew { try disk.syncNames(in: "") }
        open[feed]!.synced = file.length
        open[feed]!.isNameNew = false
        return (file.name, file.length)
    }

    /// Cuts off what no sync has covered and closes the file: after a failed sync the kernel may hold its pages for clean, and the descriptor has
    /// told its error.
    package mutating func takeBack(_ feed: Feed, on disk: inout Disk) throws(Disk.Failure) {
        guard let file = open[feed] else { return }
        if try disk.length(of: file.name) != nil { try disk.cut(file.name, to: file.synced) }
        disk.release(file.name)
        open[feed] = nil
    }
}
