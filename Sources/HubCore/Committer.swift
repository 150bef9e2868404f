import CalibModel
import Wire

/// Writes and syncs the hub's feed files in rounds, and says what may be acknowledged (SPEC 8.6).
///
/// A round is any number of `write`, `inspect` and `survey`, then `endRound`, which syncs every file written and returns what came of it all.
/// Whoever owns the committer calls `endRound` when nothing waits any more, or when it has taken what waited: while a round's syncs run, the next
/// one gathers.
///
/// Invariants:
/// 1. `.committed` names a length only after a sync that covers it has returned, and the file's name lasts, too.
/// 2. After an error a file is in doubt: its length is what was synced last, nothing more is written to it, and it is cut back to that, by
///    `inspect`, before it is written to again. A sync that failed is not repeated and believed: the kernel may have dropped the pages. The
///    bytes come again from the edge.
/// 3. Bytes of a file that is open here are as they were received: its end, as far back as a crash can reach, is checked against its receipts when
///    the file is first touched, all of it when `verify` asks. What is not goes to `quarantine/`, and the file is cut there. Of a copy that no edge
///    asks for, because the edge has lost its disk, only what no sync covered is cut, when the host comes back.
/// 4. Bytes of one file lie behind each other without a gap: a write at any other place than the file's end is refused.
/// 5. What is known of a file outlives its descriptors: a file that had to be closed is opened again, not looked through again.
package struct Committer<Disk: FeedDisk> {
    package enum Result {
        /// `rows`: those that became durable with it.
        case committed(host: String, file: String, length: Int64, rows: Int64)
        /// Of the rows that became durable with the last `committed` of the file, those that no view will take, and those not looked at.
        case rejected(host: String, file: String, RowFaults)
        /// Nothing of the file above what was committed can be relied on.
        case failed(host: String, file: String, Failure)
        case inspected(LinkID, host: String, file: String, Ingest.Inspection)
        /// `inspection` is of what is left; `isDamaged` says that something was not as it was received.
        case verified(LinkID, host: String, file: String, Ingest.Inspection, isDamaged: Bool)
        /// Bytes of a file that are not what was received have moved to `quarantine/`.
        case quarantined(host: String, file: String, offset: Int64, bytes: Int64)
        case surveyed(LinkID, files: [Ingest.HeldFile], highestSeq: [Message.Welcome.FeedSeq])
        case surveyFailed(LinkID, Disk.Failure)
    }

    package enum Failure: Error {
        case disk(Disk.Failure)
        /// A write belongs at another place than the file's end; another program must have changed the file.
        case misplaced(path: String, offset: Int64, length: Int64)
    }

    /// One file that was touched.
    private struct Copy {
        let host: String
        let file: String
        var length: Int64
        var synced: Int64
        /// Rows that ended since the last commit.
        var rows: Int64 = 0
        /// Made since the folder's names were synced.
        var isNameNew: Bool
        var isInDoubt = false
        /// The disk may hold it and its receipts open.
        var isOpen = false
        /// The round in which it was used last.
        var used = 0
        var receipts: Receipts
        var check: RowCheck
    }

    package var disk: Disk
    private let bounds: ReplicationBounds
    /// By path.
    private var copies: [String: Copy] = [:]
    /// Paths written in this round, in the order of their first write.
    private var dirty: [String] = []
    private var results: [Result] = []
    private let scanner = RowScanner()
    /// Paths of copies of former epochs whose ends were seen to.
    private var left: Set<String> = []
    /// So many bytes of rows may still be looked at; what is written beyond it is stored and counted as unchecked. The owner fills it up with time
    /// (`Limits.rowCheckBytesPerSecond`).
    package var checkableBytes = Int.max

    private var round = 0
    private var opened = 0
    private let openFilesMax: Int
    private let knownFilesMax: Int

    /// `openFilesMax`: files that are kept open between rounds; `knownFilesMax`: files of which it is kept what was found in them.
    package init(
        disk: Disk, bounds: ReplicationBounds = .production, openFilesMax: Int = Limits.hubOpenFilesMax,
        knownFilesMax: Int = Limits.hubKnownFilesMax
    ) {
        self.disk = disk
        self.bounds = bounds
        self.openFilesMax = openFilesMax
        self.knownFilesMax = knownFilesMax
    }

    // MARK: A round

    /// Bytes of an edge's `epoch` that belong at `offset`. They are done with when this returns.
    package mutating func write(_ bytes: UnsafeRawBufferPointer, host: String, file: String, epoch: String, offset: Int64) {
        let path = Self.path(host, file)
        do throws(Failure) {
            if copies[path] == nil { copies[path] = try find(path, host, file, newOf: epoch) }
            use(path)
            // What follows a failed write belongs behind bytes that are not there.
            guard let copy = copies[path], !copy.isInDoubt else { return }
            guard offset == copy.length else { throw .misplaced(path: path, offset: offset, length: copy.length) }
            if copy.length == 0, copy.receipts.epoch != epoch { try restart(path, host, file, epoch) }
            try attempt { (disk) throws(Disk.Failure) in try disk.write(bytes, to: path, at: offset) }
            if copy.length == copy.synced { dirty.append(path) }
            copies[path]!.length += Int64(bytes.count)
            copies[path]!.receipts.add(bytes)
            let rows = Int64(newlines(in: bytes))
            copies[path]!.rows += rows
            if bytes.count <= checkableBytes {
                checkableBytes -= bytes.count
                copies[path]!.check.take(bytes, at: offset, scanner)
            } else {
                copies[path]!.check.pass(rows: rows)
            }
        } catch {
            doubt(path, error, host, file)
        }
    }

    /// What there is of a file, all of it synced, with the checksums of a page of blocks: the answer to an edge that wants to go on with it.
    package mutating func inspect(_ link: LinkID, host: String, file: String, fromBlock: Int64) {
        let path = Self.path(host, file)
        do throws(Failure) {
            results.append(.inspected(link, host: host, file: file, try inspection(path, host, file, fromBlock)))
        } catch {
            doubt(path, error, host, file)
        }
    }

    /// Reads the whole file and compares it with what was received.
    package mutating func verify(_ link: LinkID, host: String, file: String) {
        let path = Self.path(host, file)
        do throws(Failure) {
            _ = try inspection(path, host, file, 0)
            let before = copies[path]?.length ?? 0
            if let copy = copies[path] { try check(path, copy.host, copy.file, copy.length, fromByte: 0, epoch: copy.receipts.epoch) }
            let found = try inspection(path, host, file, 0)
            results.append(.verified(link, host: host, file: file, found, isDamaged: found.length < before))
        } catch {
            doubt(path, error, host, file)
        }
    }

    /// The host's files, and per feed the highest seq of the epoch in the ends of its files of the newest two days that have any.
    package mutating func survey(_ link: LinkID, host: String, epoch: String) {
        do throws(Disk.Failure) {
            for held in try held(host) {
                let path = Self.path(host, held.file)
                do throws(Failure) { try cutUnsynced(path, host, held, epoch) } catch { doubt(path, error, host, held.file) }
            }
            let files = try held(host)
            var highest: [Message.Welcome.FeedSeq] = []
            for feed in Feed.allCases {
                var found: [Int64: Int64] = [:]
                let own = files.compactMap { held in
                    FeedPart.parse(held.file).flatMap { $0.feed == feed ? (day: $0.day.number, file: held) : nil }
                }
                for (day, held) in own.sorted(by: { ($1.day, $1.file.file) < ($0.day, $0.file.file) })
                where found[day] != nil || found.count < 2 {
                    if let seq = try highestSeq(Self.path(host, held.file), held.length, epoch) { found[day] = max(found[day] ?? 0, seq) }
                }
                if let seq = found.values.max() { highest.append(Message.Welcome.FeedSeq(feed: feed.rawValue, seq: seq)) }
            }
            results.append(.surveyed(link, files: files, highestSeq: highest))
        } catch {
            results.append(.surveyFailed(link, error))
        }
    }

    /// Syncs what was written, and hands over what came of the round, in order; `spacing`: no earlier than so many ns
    /// behind this round's beginning is the next one worth its sync, nil when nothing was synced.
    package mutating func endRound() -> (results: [Result], spacing: Int64?) {
        let written = dirty.filter { copies[$0].map { $0.length > $0.synced && !$0.isInDoubt } ?? false }
        dirty = []
        if written.count > Limits.syncEachFilesMax {
            do throws(Failure) {
                for path in written { try writeReceipts(path) }
                try attempt { (disk) throws(Disk.Failure) in try disk.syncAll() }
                for path in written { committed(path) }
            } catch {
                for path in written { doubt(path, error, copies[path]!.host, copies[path]!.file) }
            }
        } else {
            for path in written {
                do throws(Failure) {
                    try writeReceipts(path)
                    try sync(path)
                    committed(path)
                } catch {
                    doubt(path, error, copies[path]!.host, copies[path]!.file)
                }
            }
        }
        makeRoom()
        round += 1
        defer { results = [] }
        guard !written.isEmpty else { return (results, nil) }
        return (results, written.count > Limits.commitFewFilesMax ? Limits.commitSpacingManyNanoseconds : Limits.commitSpacingNanoseconds)
    }

    /// The hosts and their files, at the start. What a process before this one wrote is synced, all of it at once: `find` makes sure of each file, and
    /// then finds it clean; a fleet that comes back would else wait for 15,000 syncs.
    package mutating func hosts() throws(Disk.Failure) -> [(host: String, files: [Ingest.HeldFile])] {
        try disk.syncAll()
        var hosts: [(String, [Ingest.HeldFile])] = []
        for name in try disk.names(in: "") where name.hasPrefix("host=") && HostName.isValid(String(name.dropFirst(5))) {
            let host = String(name.dropFirst(5))
            hosts.append((host, try held(host)))
        }
        return hosts
    }

    // MARK: Leaves

    private mutating func use(_ path: String) {
        guard let isOpen = copies[path]?.isOpen else { return }
        if !isOpen { opened += 1 }
        copies[path]!.isOpen = true
        copies[path]!.used = round
    }

    /// Closes, and forgets, what was not used for longest, once everything is synced: half of what may be there stays, so that there is seldom
    /// anything to do.
    private mutating func makeRoom() {
        let isCrowded = (open: opened > openFilesMax, known: copies.count > knownFilesMax)
        guard isCrowded.open || isCrowded.known else { return }
        let byUse = copies.filter { !$0.value.isInDoubt }.map { (used: $0.value.used, path: $0.key) }
            .sorted { ($0.used, $0.path) < ($1.used, $1.path) }
        for (_, path) in byUse {
            guard let copy = copies[path] else { continue }
            let isForgotten = isCrowded.known && copies.count > knownFilesMax / 2
            guard isForgotten || (isCrowded.open && opened > openFilesMax / 2) else { return }
            if copy.isOpen {
                disk.release(path)
                disk.release(Self.receiptsPath(copy.host, copy.file))
                copies[path]!.isOpen = false
                opened -= 1
            }
            if isForgotten { copies[path] = nil }
        }
    }

    private static func path(_ host: String, _ file: String) -> String { "host=\(host)/\(file)" }
    private static func receiptsFolder(_ host: String) -> String { "host=\(host)/.receipts" }
    private static func receiptsPath(_ host: String, _ file: String) -> String { "\(receiptsFolder(host))/\(file)" }
    private static func quarantineFolder(_ host: String) -> String { "host=\(host)/quarantine" }

    private mutating func attempt<Value>(_ body: (inout Disk) throws(Disk.Failure) -> Value) throws(Failure) -> Value {
        do throws(Disk.Failure) { return try body(&disk) } catch { throw .disk(error) }
    }

    private mutating func committed(_ path: String) {
        guard let copy = copies[path] else { return }
        copies[path]!.synced = copy.length
        copies[path]!.rows = 0
        copies[path]!.isNameNew = false
        copies[path]!.receipts.settle()
        results.append(.committed(host: copy.host, file: copy.file, length: copy.length, rows: copy.rows))
        let faults = copies[path]!.check.settle()
        if !faults.isEmpty { results.append(.rejected(host: copy.host, file: copy.file, faults)) }
    }

    private mutating func doubt(_ path: String, _ failure: Failure, _ host: String, _ file: String) {
        copies[path]?.isInDoubt = true
        results.append(.failed(host: host, file: file, failure))
    }

    private mutating func writeReceipts(_ path: String) throws(Failure) {
        guard let copy = copies[path] else { return }
        let beside = Self.receiptsPath(copy.host, copy.file)
        try attempt { (disk) throws(Disk.Failure) in
            if copy.isNameNew, try disk.length(of: beside) ?? 0 < Receipts.headerBytes {
                try disk.makeFolder(Self.receiptsFolder(copy.host))
                try disk.write(copy.receipts.header, to: beside, at: 0)
            }
            for (offset, bytes) in copy.receipts.entries() { try disk.write(bytes, to: beside, at: offset) }
        }
    }

    private mutating func sync(_ path: String) throws(Failure) {
        guard let copy = copies[path] else { return }
        try attempt { (disk) throws(Disk.Failure) in
            try disk.sync(path)
            try disk.sync(Self.receiptsPath(copy.host, copy.file))
            // The names are made to last with the files, else a crash could lose a synced file.
            if copy.isNameNew {
                try disk.syncNames(in: "host=\(copy.host)")
                try disk.syncNames(in: Self.receiptsFolder(copy.host))
            }
        }
    }

    /// What lies on the disk. What a process before this one wrote is synced before its length counts, and its end is checked. Nil when there is no
    /// file and nothing is to be written: a file is made by its first bytes, not by a question.
    private mutating func find(_ path: String, _ host: String, _ file: String, newOf epoch: String?) throws(Failure) -> Copy? {
        let length = try attempt { (disk) throws(Disk.Failure) -> Int64? in
            guard let length = try disk.length(of: path) else { return nil }
            try disk.sync(path)
            try disk.syncNames(in: "host=\(host)")
            return length
        }
        if let length {
            // No round is larger than the pool, so nothing before that can have been under way in a crash.
            try check(path, host, file, length, fromByte: length - bounds.poolBytes, epoch: epoch)
            return copies[path]
        }
        guard let epoch else { return nil }
        try attempt { (disk) throws(Disk.Failure) in try disk.makeFolder("host=\(host)") }
        try forgetReceipts(host, file)
        return Copy(
            host: host, file: file, length: 0, synced: 0, isNameNew: true,
            receipts: Receipts(blockBytes: bounds.blockBytes, epoch: epoch), check: Self.check(file, atRowStart: true))
    }

    private static func check(_ file: String, atRowStart: Bool) -> RowCheck {
        guard let feed = FeedPart.parse(file)?.feed else { preconditionFailure("BUG: '\(file)' is no feed file") }
        return RowCheck(feed: feed, atRowStart: atRowStart)
    }

    /// A file of which nothing is left belongs to whoever writes its first bytes.
    private mutating func restart(_ path: String, _ host: String, _ file: String, _ epoch: String) throws(Failure) {
        try forgetReceipts(host, file)
        let receipts = Receipts(blockBytes: bounds.blockBytes, epoch: epoch)
        copies[path]?.receipts = receipts
        copies[path]?.isNameNew = true
    }

    /// Of a file that went: not of this one.
    private mutating func forgetReceipts(_ host: String, _ file: String) throws(Failure) {
        try attempt { (disk) throws(Disk.Failure) in
            let beside = Self.receiptsPath(host, file)
            if try disk.length(of: beside) != nil { try disk.cut(beside, to: 0) }
        }
    }

    /// Nil: there are none, or none that can be read.
    private mutating func storedReceipts(_ host: String, _ file: String) throws(Failure) -> (epoch: String, blocks: [[Receipts.Entry]])? {
        let beside = Self.receiptsPath(host, file)
        return try attempt { (disk) throws(Disk.Failure) in
            let bytes = try disk.length(of: beside).map { count throws(Disk.Failure) in try disk.read(beside, at: 0, count: Int(count)) }
            return bytes.flatMap { Receipts.read($0) }
        }
    }

    /// Compares the file's bytes from one on with their receipts, and keeps what comes before the first difference. A file without receipts is from
    /// before there were any, or was being made in a crash: whole valid rows count.
    private mutating func check(_ path: String, _ host: String, _ file: String, _ length: Int64, fromByte: Int64, epoch: String?)
        throws(Failure)
    {
        let beside = Self.receiptsPath(host, file)
        let stored = try storedReceipts(host, file)
        var receipts: Receipts
        if let stored {
            receipts = Receipts(blockBytes: bounds.blockBytes, epoch: stored.epoch)
            try compare(path, stored.blocks, length, fromByte, &receipts)
        } else {
            let bytes = try attempt { (disk) throws(Disk.Failure) in
                if try disk.length(of: beside) != nil { try disk.cut(beside, to: 0) }
                return try disk.read(path, at: 0, count: Int(length))
            }
            let valid = bytes.withUnsafeBytes { bytes in
                let found = FeedRepair(examining: bytes, startsAtRow: true)
                return (end: found.needsNewline ? 0 : found.validEnd, epoch: FeedTail.epoch(ofHead: bytes))
            }
            receipts = Receipts(blockBytes: bounds.blockBytes, epoch: valid.epoch ?? epoch ?? "")
            bytes.withUnsafeBytes { receipts.add(UnsafeRawBufferPointer(rebasing: $0[..<valid.end])) }
        }
        let kept = receipts.length
        if kept < length { try quarantine(path, host, file, from: kept, to: length) }
        copies[path] = Copy(
            host: host, file: file, length: kept, synced: kept, isNameNew: true, isOpen: copies[path]?.isOpen ?? false, receipts: receipts,
            check: Self.check(file, atRowStart: kept == 0))
        use(path)
        if stored == nil {
            try writeReceipts(path)
            try sync(path)
            copies[path]!.receipts.settle()
        }
    }

    /// The end of a copy of a former epoch, which its edge may not have any more: what a crash of the hub's machine left there, and no sync covered,
    /// is cut. What a sync did cover stays even where it has changed since, for nobody would send it again; views reject such rows one by one.
    private mutating func cutUnsynced(_ path: String, _ host: String, _ held: Ingest.HeldFile, _ epoch: String) throws(Failure) {
        guard copies[path] == nil, !left.contains(path) else { return }
        let stored = try storedReceipts(host, held.file)
        let note = try attempt { (disk) throws(Disk.Failure) in try disk.length(of: SealBook<Disk>.path(host, held.file)) }
        guard stored?.epoch != epoch, note == nil else { return }
        guard let stored else {
            copies[path] = try find(path, host, held.file, newOf: nil)
            return
        }
        var receipts = Receipts(blockBytes: bounds.blockBytes, epoch: stored.epoch)
        try compare(path, stored.blocks, held.length, held.length - bounds.poolBytes, &receipts)
        let block = Int(receipts.length / Int64(bounds.blockBytes))
        let matches = receipts.length % Int64(bounds.blockBytes) > 0
        // Of a block's two slots, the shorter one was synced before the other was written.
        let wasChanged = !matches && block < stored.blocks.count && stored.blocks[block].count > 1
        if receipts.length < held.length, !wasChanged {
            try quarantine(path, host, held.file, from: receipts.length, to: held.length)
            disk.release(path)
        }
        // Only now: what a full disk did not let happen is tried again when the host comes next.
        left.insert(path)
    }

    private mutating func compare(
        _ path: String, _ blocks: [[Receipts.Entry]], _ length: Int64, _ fromByte: Int64, _ receipts: inout Receipts
    ) throws(Failure) {
        for (block, entries) in blocks.enumerated() {
            let start = Int64(block) * Int64(bounds.blockBytes)
            let available = Int(min(Int64(bounds.blockBytes), length - start))
            guard available > 0 else { return }
            if start + Int64(bounds.blockBytes) <= fromByte, let whole = entries.last, whole.length == bounds.blockBytes {
                receipts.adopt(whole, nil)
                continue
            }
            let bytes = try attempt { (disk) throws(Disk.Failure) in try disk.read(path, at: start, count: available) }
            var found: (entry: Receipts.Entry, checksum: CRC32C)?
            var checksum = CRC32C()
            var done = 0
            for entry in entries where entry.length >= done && entry.length <= available {
                bytes.withUnsafeBytes { checksum.combine(UnsafeRawBufferPointer(rebasing: $0[done..<entry.length])) }
                done = entry.length
                if checksum.value == entry.checksum { found = (entry, checksum) }
            }
            guard let found else { return }
            receipts.adopt(found.entry, found.checksum)
            if found.entry.length < bounds.blockBytes { return }
        }
    }

    /// The bytes are kept for a person to look at; the edge sends its own again.
    private mutating func quarantine(_ path: String, _ host: String, _ file: String, from: Int64, to end: Int64) throws(Failure) {
        let folder = Self.quarantineFolder(host)
        try attempt { (disk) throws(Disk.Failure) in
            try disk.makeFolder(folder)
            let number = try disk.names(in: folder).filter { $0.hasPrefix("\(file).\(from).") }.count
            let copy = "\(folder)/\(file).\(from).\(number)"
            var place = from
            while place < end {
                let bytes = try disk.read(path, at: place, count: Int(min(end - place, 1 << 20)))
                try disk.write(bytes, to: copy, at: place - from)
                place += Int64(bytes.count)
            }
            try disk.sync(copy)
            disk.release(copy)
            try disk.syncNames(in: folder)
            try disk.cut(path, to: from)
            try disk.sync(path)
        }
        results.append(.quarantined(host: host, file: file, offset: from, bytes: end - from))
    }

    private mutating func inspection(_ path: String, _ host: String, _ file: String, _ fromBlock: Int64) throws(Failure)
        -> Ingest.Inspection
    {
        if copies[path] == nil { copies[path] = try find(path, host, file, newOf: nil) }
        use(path)
        guard var copy = copies[path] else { return Ingest.Inspection(length: 0, epoch: nil, blocks: []) }
        if copy.isInDoubt {
            try attempt { (disk) throws(Disk.Failure) in
                // A write that failed at the file's making may have left no file to cut.
                if try disk.length(of: path) != nil {
                    try disk.cut(path, to: copy.synced)
                    try disk.sync(path)
                }
            }
            (copy.length, copy.rows, copy.isInDoubt) = (copy.synced, 0, false)
            copy.check.restart(atRowStart: copy.synced == 0)
            copy.receipts.takeBack()
            copies[path] = copy
        }
        if copy.length > copy.synced {
            try writeReceipts(path)
            try sync(path)
            committed(path)
        }
        let page = copy.receipts.page(from: Int(clamping: fromBlock), count: bounds.pageBlocks)
        return Ingest.Inspection(
            length: copy.length, epoch: copy.length == 0 ? nil : copy.receipts.epoch, blocks: page.map { CRC32C.text($0) })
    }

    private mutating func held(_ host: String) throws(Disk.Failure) -> [Ingest.HeldFile] {
        var files: [Ingest.HeldFile] = []
        for name in try disk.names(in: "host=\(host)") where FeedPart.parse(name) != nil {
            if let length = try disk.length(of: Self.path(host, name)) { files.append(Ingest.HeldFile(file: name, length: length)) }
        }
        return files
    }

    private mutating func highestSeq(_ path: String, _ length: Int64, _ epoch: String) throws(Disk.Failure) -> Int64? {
        // Two of the longest rows: one of them is whole.
        let start = max(0, length - 2 * Int64(Limits.rowBytesMax))
        let tail = try disk.read(path, at: start, count: Int(length - start))
        return tail.withUnsafeBytes { FeedTail.highestSeq(in: $0, startsAtRow: start == 0, epoch: epoch) }
    }
}

/// Every byte of a fleet passes here: 64 at a time.
private func newlines(in bytes: UnsafeRawBufferPointer) -> Int {
    let newline = SIMD64<UInt8>(repeating: 0x0a)
    var count = 0
    var offset = 0
    while bytes.count - offset >= 64 {
        // Each lane counts up to 255 blocks.
        let end = min(bytes.count - 63, offset + 255 * 64)
        var lanes = SIMD64<UInt8>()
        while offset < end {
            let block = bytes.loadUnaligned(fromByteOffset: offset, as: SIMD64<UInt8>.self)
            lanes &-= unsafeBitCast(block .== newline, to: SIMD64<UInt8>.self)
            offset += 64
        }
        for lane in lanes.indices { count += Int(lanes[lane]) }
    }
    while offset < bytes.count {
        count += bytes[offset] == 0x0a ? 1 : 0
        offset += 1
    }
    return count
}

extension Committer.Result: Sendable where Disk.Failure: Sendable {}
extension Committer.Failure: Sendable where Disk.Failure: Sendable {}
