import Wire

/// Which of the hub's files are complete, and as their edge has them (SPEC 8.2): found out once, by reading them, then noted beside their receipts
/// in `.receipts/<file>.sealed`. A gigabyte takes seconds to read, so that whoever owns this has a thread of its own.
package struct SealBook<Disk: FeedDisk> {
    /// A digest under way.
    package struct Digest {
        package var update: (UnsafeRawBufferPointer) -> Void
        /// 64 lower-case hex digits.
        package var finish: () -> String
        package init(update: @escaping (UnsafeRawBufferPointer) -> Void, finish: @escaping () -> String) {
            self.update = update
            self.finish = finish
        }
    }

    package var disk: Disk
    private let digest: () -> Digest
    private static var chunkBytes: Int64 { 1 << 20 }

    /// `digest` begins a SHA-256.
    package init(disk: Disk, digest: @escaping () -> Digest) {
        self.disk = disk
        self.digest = digest
    }

    /// Where it is noted that a file is complete.
    package static func path(_ host: String, _ file: String) -> String { "host=\(host)/.receipts/\(file).sealed" }

    /// Whether these bytes, one span behind the other, are the edge's complete file. Once they are, it is known without reading them again.
    package mutating func holds(_ sealed: Message.Sealed, host: String, file: String, _ spans: [Ingest.FileSpan]) throws(Disk.Failure)
        -> Bool
    {
        let folder = "host=\(host)/.receipts"
        let path = Self.path(host, file)
        let note = Array("\(sealed.sha256) \(sealed.bytes)\n".utf8)
        let length = try disk.length(of: path)
        if length == Int64(note.count), try disk.read(path, at: 0, count: note.count) == note { return true }
        let digest = digest()
        for span in spans {
            var place: Int64 = 0
            while place < span.bytes {
                let count = min(Self.chunkBytes, span.bytes - place)
                try disk.read("host=\(host)/\(span.file)", at: place, count: Int(count)).withUnsafeBytes { digest.update($0) }
                place += count
            }
        }
        guard digest.finish() == sealed.sha256 else { return false }
        try disk.makeFolder(folder)
        if length != nil { try disk.cut(path, to: 0) }
        try disk.write(note, to: path, at: 0)
        try disk.sync(path)
        try disk.syncNames(in: folder)
        disk.release(path)
        return true
    }
}
