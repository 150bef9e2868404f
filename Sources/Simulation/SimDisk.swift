import CalibModel
import Wire

/// What went wrong on a simulated disk.
package enum SimDiskError: Error, Equatable, Sendable { case noSpace, inputOutput, noFile, powerLost }

/// A disk whose every failure comes from the seed: what it keeps of unsynced bytes when power fails, and which operations fail.
///
/// A class, because the machine that uses it dies and the disk stays.
package final class SimDisk: FeedDisk {
    private struct File {
        var bytes: [UInt8] = []
        /// So many bytes last.
        var durable = 0
        /// What lasts when bytes below `durable` were overwritten or cut since the last sync.
        var image: [UInt8]?
        var isNameDurable = false
    }

    private var files: [String: File] = [:]
    private var renamed: [(from: String, to: String)] = []
    private var random: PRNG
    /// Of the pages a crash loses, as they are seen afterwards.
    private static let pageBytes = 256

    // What the world does to it.
    /// Nothing more can be written.
    package var isFull = false
    /// So many of the next operations of the kind fail.
    package var shortWrites = 0
    package var failingSyncs = 0
    /// After so many operations the power goes: that one and all later fail.
    package var operationsUntilPowerLoss: Int?
    /// Says that it has synced, and has not: the canary `ack-before-sync`.
    package var liesAboutSyncs = false
    /// Takes bytes it has no room for: the canary `drop-on-full`.
    package var dropsWhenFull = false
    package private(set) var faults = FaultCounts()
    /// Written to, and not released since.
    package private(set) var openPaths: Set<String> = []
    package private(set) var reads = 0

    package init(seed: UInt64) { random = PRNG(seed: seed) }

    // MARK: Operations

    package func names(in folder: String) throws(SimDiskError) -> [String] {
        try operate()
        let prefix = folder.isEmpty ? "" : folder + "/"
        var names: Set<String> = []
        for path in files.keys where path.hasPrefix(prefix) {
            names.insert(String(path.dropFirst(prefix.utf8.count).prefix { $0 != "/" }))
        }
        return names.sorted()
    }

    package func length(of path: String) throws(SimDiskError) -> Int64? {
        try operate()
        return files[path].map { Int64($0.bytes.count) }
    }

    package func read(_ path: String, at offset: Int64, count: Int) throws(SimDiskError) -> [UInt8] {
        try operate()
        reads += 1
        guard let file = files[path] else { throw .noFile }
        guard offset >= 0, Int(offset) + count <= file.bytes.count else { throw .inputOutput }
        return Array(file.bytes[Int(offset)..<Int(offset) + count])
    }

    package func write(_ bytes: UnsafeRawBufferPointer, to path: String, at offset: Int64) throws(SimDiskError) {
        let dies = operationsUntilPowerLoss == 1
        if !dies { try operate() }
        var count = bytes.count
        var failure: SimDiskError?
        if dies {
            (count, failure) = (Int(random.below(Int64(count) + 1)), .powerLost)
            faults.add(.tornRow)
        } else if isFull {
            faults.add(.diskFull)
            if dropsWhenFull { return }
            (count, failure) = (Int(random.below(Int64(count) + 1)), .noSpace)
        } else if shortWrites > 0 {
            shortWrites -= 1
            faults.add(.shortWrite)
            (count, failure) = (Int(random.below(Int64(count) + 1)), .inputOutput)
        }
        openPaths.insert(path)
        var file = files[path] ?? File()
        files[path] = nil  // So that the bytes are not copied.
        let start = Int(offset)
        if start < file.durable, file.image == nil { file.image = Array(file.bytes[..<file.durable]) }
        if start > file.bytes.count { file.bytes += [UInt8](repeating: 0, count: start - file.bytes.count) }
        let overlap = min(count, file.bytes.count - start)
        for place in 0..<overlap { file.bytes[start + place] = bytes[place] }
        file.bytes += bytes[overlap..<count]
        files[path] = file
        if dies { try operate() }
        if let failure { throw failure }
    }

    package func cut(_ path: String, to length: Int64) throws(SimDiskError) {
        try operate()
        guard var file = files[path] else { throw .noFile }
        if Int(length) < file.durable {
            if file.image == nil { file.image = Array(file.bytes[..<file.durable]) }
            file.durable = Int(length)
        }
        file.bytes.removeLast(max(0, file.bytes.count - Int(length)))
        files[path] = file
    }

    package func sync(_ path: String) throws(SimDiskError) {
        try operate()
        guard files[path] != nil else { throw .noFile }
        openPaths.insert(path)
        if failingSyncs > 0 {
            failingSyncs -= 1
            faults.add(.syncError)
            // The kernel holds the pages for clean now, whatever became of them.
            lose(path, keepsName: true)
            throw .inputOutput
        }
        if !liesAboutSyncs { settle(path) }
    }

    package func syncAll() throws(SimDiskError) {
        try operate()
        if failingSyncs > 0 {
            failingSyncs -= 1
            faults.add(.syncError)
            throw .inputOutput
        }
        guard !liesAboutSyncs else { return }
        for path in files.keys {
            settle(path)
            files[path]!.isNameDurable = true
        }
        renamed = []
    }

    package func syncNames(in folder: String) throws(SimDiskError) {
        try operate()
        let prefix = folder.isEmpty ? "" : folder + "/"
        for path in files.keys where path.hasPrefix(prefix) { files[path]!.isNameDurable = true }
        renamed.removeAll { $0.to.hasPrefix(prefix) }
    }

    package func makeFolder(_ folder: String) throws(SimDiskError) { try operate() }

    package func rename(_ from: String, to: String) throws(SimDiskError) {
        try operate()
        guard let file = files.removeValue(forKey: from) else { throw .noFile }
        files[to] = file
        renamed.append((from, to))
    }

    package func release(_ path: String) { openPaths.remove(path) }

    private func operate() throws(SimDiskError) {
        guard let left = operationsUntilPowerLoss else { return }
        operationsUntilPowerLoss = max(0, left - 1)
        if left <= 1 { throw .powerLost }
    }

    private func settle(_ path: String) {
        files[path]!.durable = files[path]!.bytes.count
        files[path]!.image = nil
    }

    // MARK: What happens to it

    /// The machine's power failed, or its kernel died: of what no sync covered, anything may be left.
    package func losePower() {
        for (from, to) in renamed.reversed() where random.below(2) == 0 {
            if let file = files.removeValue(forKey: to) { files[from] = file }
        }
        renamed = []
        for path in files.keys.sorted() { lose(path, keepsName: false) }
        (operationsUntilPowerLoss, shortWrites, failingSyncs) = (nil, 0, 0)
    }

    /// The process was killed: everything written stays.
    package func loseProcess() { (operationsUntilPowerLoss, shortWrites, failingSyncs) = (nil, 0, 0) }

    private func lose(_ path: String, keepsName: Bool) {
        guard var file = files[path] else { return }
        if !file.isNameDurable, !keepsName, random.below(2) == 0 {
            files[path] = nil
            return
        }
        if let image = file.image {
            if random.below(2) == 0 { file.bytes = image }
        } else if file.bytes.count > file.durable {
            let kept = file.durable + Int(random.below(Int64(file.bytes.count - file.durable) + 1))
            if kept < file.bytes.count { faults.add(.lostTail) }
            file.bytes.removeLast(file.bytes.count - kept)
            // Pages reach the disk in any order; the file's length may be there before them.
            var page = file.durable
            while page < kept {
                let end = min(kept, (page / Self.pageBytes + 1) * Self.pageBytes)
                if random.below(8) == 0 {
                    for place in page..<end { file.bytes[place] = 0 }
                    faults.add(.zeroedTail)
                }
                page = end
            }
        }
        if !keepsName { file.isNameDurable = true }
        file.image = nil
        if keepsName {
            // In memory the bytes are still there; on the disk they may not be. What is cut and written again is sound.
            files[path]!.durable = min(file.durable, file.bytes.count)
        } else {
            file.durable = file.bytes.count
            files[path] = file
        }
    }

    /// One bit of the file's durable bytes turns over. Returns where; nil when it has none.
    package func flipBit(of path: String) -> Int? {
        guard let file = files[path], file.durable > 0, file.image == nil else { return nil }
        let place = Int(random.below(Int64(file.durable)))
        files[path]!.bytes[place] ^= 1 << UInt8(random.below(8))
        faults.add(.bitFlip)
        return place
    }

    /// A file is removed, for good.
    package func drop(_ path: String) { files[path] = nil }

    // MARK: For checkers

    package var paths: [String] { files.keys.sorted() }
    package func bytes(of path: String) -> [UInt8] { files[path]?.bytes ?? [] }
    /// How many of the file's bytes would be there after a crash.
    package func durableLength(of path: String) -> Int {
        guard let file = files[path], file.isNameDurable else { return 0 }
        return file.image == nil ? file.durable : min(file.durable, file.image!.count)
    }

    /// What would be there after a crash, for an old copy to be restored later.
    package func backup() -> [String: [UInt8]] {
        var copy: [String: [UInt8]] = [:]
        for (path, file) in files where file.isNameDurable { copy[path] = file.image ?? Array(file.bytes[..<file.durable]) }
        return copy
    }

    package func restore(_ copy: [String: [UInt8]]) {
        files = copy.mapValues { File(bytes: $0, durable: $0.count, image: nil, isNameDurable: true) }
        renamed = []
    }
}
