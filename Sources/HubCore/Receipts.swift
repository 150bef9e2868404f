import CalibModel

/// The checksums a hub takes of a feed file's bytes as it receives them (SPEC 8.2): what tells a disk that lost or turned bytes from an edge that has
/// other ones.
///
/// They lie beside the file, in `.receipts/<file>`: 32 bytes of header, then 32 bytes per block of the file in two slots. A slot says how much of the
/// block there was and its CRC32C. The two slots of a block that grows are written in turn, never the one that the last sync covered; so whatever a
/// crash tears, what was acknowledged can be verified. Written before the round's syncs and synced with them.
struct Receipts {
    /// One slot's content.
    struct Entry {
        var slot: Int
        var length: Int
        var checksum: UInt32
    }

    private struct Mark {
        var blocks = 0
        var last = CRC32C()
        var lastBytes = 0
        /// The slot of the block under way that holds what is synced; 1 when none does.
        var slot = 1
    }

    let blockBytes: Int
    /// The epoch of the edge whose bytes these are.
    let epoch: String
    /// Of whole blocks.
    private var full: [UInt32] = []
    private var last = CRC32C()
    private var lastBytes = 0
    private var mark = Mark()

    static let headerBytes = 32
    private static let slotBytes = 16

    init(blockBytes: Int, epoch: String) {
        self.blockBytes = blockBytes
        self.epoch = epoch
    }

    var length: Int64 { Int64(full.count) * Int64(blockBytes) + Int64(lastBytes) }

    var blockCount: Int { full.count + (lastBytes > 0 ? 1 : 0) }

    /// The checksums of the blocks from one on, at most `count`.
    func page(from first: Int, count: Int) -> [UInt32] {
        guard first >= 0, first < blockCount else { return [] }
        return (first..<min(blockCount, first + count)).map { $0 < full.count ? full[$0] : last.value }
    }

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        var start = 0
        while start < bytes.count {
            let count = min(bytes.count - start, blockBytes - lastBytes)
            last.combine(UnsafeRawBufferPointer(rebasing: bytes[start..<start + count]))
            lastBytes += count
            start += count
            if lastBytes == blockBytes { finishBlock() }
        }
    }

    private mutating func finishBlock() {
        full.append(last.value)
        (last, lastBytes) = (CRC32C(), 0)
    }

    /// A block that was found to be as it was received.
    mutating func adopt(_ entry: Entry, _ checksum: CRC32C?) {
        if let checksum { last = checksum }
        lastBytes = entry.length
        mark.slot = entry.slot
        if entry.length == blockBytes {
            if checksum == nil { full.append(entry.checksum) } else { full.append(last.value) }
            (last, lastBytes) = (CRC32C(), 0)
            mark.slot = 1
        }
        (mark.blocks, mark.last, mark.lastBytes) = (full.count, last, lastBytes)
    }

    // MARK: Rounds

    /// What is to be written beside the file since the last `settle`.
    func entries() -> [(offset: Int64, bytes: [UInt8])] {
        (mark.blocks..<max(mark.blocks, blockCount)).compactMap { block in
            let length = block < full.count ? blockBytes : lastBytes
            if block == mark.blocks, length == mark.lastBytes { return nil }
            let slot = block == mark.blocks ? 1 - mark.slot : 0
            let checksum = block < full.count ? full[block] : last.value
            return (Self.offset(block, slot), Self.bytes(block: block, length: length, checksum: checksum))
        }
    }

    /// Everything added is synced.
    mutating func settle() {
        let slot = full.count == mark.blocks ? (lastBytes == mark.lastBytes ? mark.slot : 1 - mark.slot) : lastBytes > 0 ? 0 : 1
        mark = Mark(blocks: full.count, last: last, lastBytes: lastBytes, slot: slot)
    }

    /// Nothing added since `settle` counts.
    mutating func takeBack() {
        full.removeLast(full.count - mark.blocks)
        (last, lastBytes) = (mark.last, mark.lastBytes)
    }

    // MARK: The file beside

    var header: [UInt8] {
        var bytes = Array("CALRCPT1".utf8) + Array(epoch.utf8.prefix(16))
        bytes += [UInt8](repeating: 0, count: 28 - bytes.count)
        var checksum = CRC32C()
        checksum.combine(bytes)
        return bytes + Self.littleEndian(checksum.value)
    }

    /// The epoch and the slots of each block, the shortest first; nil when this is no such file.
    static func read(_ bytes: [UInt8]) -> (epoch: String, blocks: [[Entry]])? {
        guard bytes.count >= headerBytes, bytes.starts(with: "CALRCPT1".utf8) else { return nil }
        var checksum = CRC32C()
        checksum.combine(bytes[..<28])
        guard checksum.value == number(bytes, 28) else { return nil }
        let epoch = String(decoding: bytes[8..<24].prefix { $0 != 0 }, as: UTF8.self)
        var blocks: [[Entry]] = []
        var start = headerBytes
        while start < bytes.count {
            blocks.append(
                [0, 1].compactMap { slot in entry(bytes, start + slot * slotBytes, block: blocks.count, slot: slot) }
                    .sorted { $0.length < $1.length })
            start += 2 * slotBytes
        }
        return (epoch, blocks)
    }

    private static func entry(_ bytes: [UInt8], _ at: Int, block: Int, slot: Int) -> Entry? {
        guard at + slotBytes <= bytes.count else { return nil }
        var checksum = CRC32C()
        checksum.combine(bytes[at..<at + 12])
        guard checksum.value == number(bytes, at + 12), number(bytes, at + 8) == UInt32(block) else { return nil }
        return Entry(slot: slot, length: Int(number(bytes, at)), checksum: number(bytes, at + 4))
    }

    private static func offset(_ block: Int, _ slot: Int) -> Int64 { Int64(headerBytes + (2 * block + slot) * slotBytes) }

    private static func bytes(block: Int, length: Int, checksum: UInt32) -> [UInt8] {
        let bytes = littleEndian(UInt32(length)) + littleEndian(checksum) + littleEndian(UInt32(block))
        var check = CRC32C()
        check.combine(bytes)
        return bytes + littleEndian(check.value)
    }

    private static func littleEndian(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }

    private static func number(_ bytes: [UInt8], _ at: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << UInt32(8 * $1) }
    }
}
