import CalibModel
import Wire

/// What the uplink asks about a file of the edge, to compare it with the hub's checksums (SPEC 8.2), and how it is found out.
package struct FeedQuestion: Equatable, Sendable {
    package enum Part: Equatable, Sendable {
        /// CRC32C of the first `prefix` bytes, if any, and of each block of `blockBytes` from `start` to `end`.
        case checksums(prefix: Int64, start: Int64, end: Int64, blockBytes: Int)
        /// Where the row begins in which the byte at this place lies, or that begins there, and CRC32C of what comes before the row.
        case row(at: Int64)
    }
    package var file: String
    package var part: Part

    package init(file: String, part: Part) {
        self.file = file
        self.part = part
    }

    package struct Answer: Equatable, Sendable {
        /// Nil for no bytes.
        package var prefixCRC32C: String?
        package var blocks: [String] = []
        package var rowStart: Int64 = 0
        package init(prefixCRC32C: String? = nil, blocks: [String] = [], rowStart: Int64 = 0) {
            self.prefixCRC32C = prefixCRC32C
            self.blocks = blocks
            self.rowStart = rowStart
        }
    }

    /// Reads the file, a mebibyte at a time.
    package func answer<Disk: FeedDisk>(from disk: inout Disk) throws(Disk.Failure) -> Answer {
        var answer = Answer()
        switch part {
        case .checksums(let prefix, let start, let end, let blockBytes):
            if prefix > 0 { answer.prefixCRC32C = try checksum(0, prefix, &disk) }
            var place = start
            while place < end {
                let next = min(end, place + Int64(blockBytes))
                answer.blocks.append(try checksum(place, next, &disk))
                place = next
            }
        case .row(let at):
            // A row has at most 64 KiB, so this finds a newline unless the row is the file's first.
            let from = max(0, at - Int64(Limits.rowBytesMax))
            let bytes = try disk.read(file, at: from, count: Int(at - from))
            answer.rowStart = bytes.lastIndex(of: 0x0a).map { from + Int64($0) + 1 } ?? 0
            if answer.rowStart > 0 { answer.prefixCRC32C = try checksum(0, answer.rowStart, &disk) }
        }
        return answer
    }

    private func checksum<Disk: FeedDisk>(_ from: Int64, _ end: Int64, _ disk: inout Disk) throws(Disk.Failure) -> String {
        var checksum = CRC32C()
        var place = from
        while place < end {
            let bytes = try disk.read(file, at: place, count: Int(min(end - place, 1 << 20)))
            bytes.withUnsafeBytes { checksum.combine($0) }
            place += Int64(bytes.count)
        }
        return checksum.text
    }
}
