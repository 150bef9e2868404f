import CalibModel
import EdgeCore
internal import HubCore
import Wire

/// Whole lines of feed files.
enum Lines {
    static func of(_ bytes: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] { bytes.split(separator: 0x0a, omittingEmptySubsequences: true) }

    static func hash(_ line: ArraySlice<UInt8>) -> UInt64 {
        line.withUnsafeBytes { bytes in
            var hash = KeyedHash(key0: 1, key1: UInt64(bytes.count))
            var place = 0
            while place + 8 <= bytes.count {
                hash.combine(bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
                place += 8
            }
            while place < bytes.count {
                hash.combine(UInt64(bytes[place]))
                place += 1
            }
            return hash.finalized()
        }
    }
}

/// The laws of ARCHITECTURE.md that concern feeds and their copies.
extension World {
    // MARK: At every moment

    /// Law 5: an acknowledgement never precedes its sync.
    func checkAck(_ index: Int, _ ack: Message.Ack) {
        let host = edges[index].name
        let part = hub.parts[host]?.last { $0.file == ack.file && $0.epoch == edges[index].epoch }
        let path = "host=\(host)/\(FeedPart.name(ack.file, part?.number ?? 0))"
        let durable = (part?.base ?? 0) + Int64(hub.disk.durableLength(of: path))
        if durable < ack.length { breaks(5, "\(path) is acknowledged to \(ack.length), \(durable) bytes would survive") }
    }

    /// Law 5: the edge ships only what would survive.
    func checkShipped(_ index: Int, _ file: String, _ end: Int64) {
        let durable = edges[index].disk.durableLength(of: file)
        if Int64(durable) < end { breaks(5, "\(edges[index].name)/\(file) is shipped to \(end), \(durable) bytes would survive") }
    }

    /// Law 7.
    func checkPool() {
        guard let ingest = hub.ingest else { return }
        for edge in edges where ingest.unackedBytes(of: edge.name) > Int64(Limits.unackedBytesMax + Limits.appendBytesMax) {
            breaks(7, "\(ingest.unackedBytes(of: edge.name)) bytes of \(edge.name) wait at the hub")
        }
    }

    /// Law 5: after a crash a feed is whole rows, each of them one that was written.
    func checkRecovery(_ index: Int) {
        for path in edges[index].disk.paths where FeedFileName.parse(path) != nil {
            let bytes = edges[index].disk.bytes(of: path)
            if let last = bytes.last, last != 0x0a { breaks(5, "\(edges[index].name)/\(path) ends within a row") }
            for line in Lines.of(bytes[...]) where !edges[index].written.contains(Lines.hash(line)) {
                breaks(5, "\(edges[index].name)/\(path) holds a row nobody wrote after its repair")
            }
        }
    }

    /// What the hub has taken responsibility for.
    func acknowledged(_ index: Int, _ ack: Message.Ack) {
        let from = edges[index].ackedLengths[ack.file] ?? 0
        guard ack.length > from else { return }
        edges[index].ackedLengths[ack.file] = ack.length
        let bytes = edges[index].disk.bytes(of: ack.file)
        guard bytes.count >= ack.length else { return breaks(1, "\(ack.file) is acknowledged beyond its end") }
        // A row that ends behind this acknowledgement counts with the next.
        let start = bytes[..<Int(from)].lastIndex(of: 0x0a).map { $0 + 1 } ?? 0
        guard let end = bytes[..<Int(ack.length)].lastIndex(of: 0x0a), end > start else { return }
        for line in Lines.of(bytes[start..<end]) { edges[index].acknowledged.insert(Lines.hash(line)) }
    }

    /// Whether a file of the hub's, or a part of the same file, is noted as complete.
    func isSealed(_ path: String) -> Bool {
        guard let slash = path.lastIndex(of: "/"), let file = FeedPart.parse(String(path[path.index(after: slash)...]))?.file else {
            return false
        }
        return hub.disk.paths.contains { $0.hasPrefix("\(path[..<slash])/.receipts/\(file.dropLast(6)).") && $0.hasSuffix(".sealed") }
    }

    /// Whether the hub, as its disk stands, lacks a row of the edge's file.
    func hubLacks(_ index: Int, _ name: String) -> Bool {
        let prefix = "host=\(edges[index].name)/"
        var held: Set<UInt64> = []
        for path in hub.disk.paths where path.hasPrefix(prefix) {
            guard FeedPart.parse(String(path.dropFirst(prefix.utf8.count)))?.file == name else { continue }
            for line in Lines.of(hub.disk.bytes(of: path)[...]) { held.insert(Lines.hash(line)) }
        }
        return Lines.of(edges[index].disk.bytes(of: name)[...]).contains { !held.contains(Lines.hash($0)) }
    }

    // MARK: In the end

    var isSettled: Bool {
        edges.allSatisfy { edge in
            guard let uplink = edge.uplink, let writer = edge.writer else { return false }
            return uplink.isConnected && uplink.backlogBytes == 0 && writer.isEverythingSynced
        } && owedCommands.isEmpty && hub.unlogged.isEmpty
    }

    func checkWhole() {
        if !isSettled {
            let waiting = edges.map {
                "\($0.name): \($0.uplink.map { "connected \($0.isConnected), backlog \($0.backlogBytes)" } ?? "down")"
            }
            return breaks(
                1, "the world did not settle: \(waiting), owed \(owedCommands), \(hub.unlogged.count) records not in the log")
        }
        for index in edges.indices { checkCopies(index) }
        if edges.allSatisfy({ !$0.wasReplaced && !$0.hasRetired }) { checkDataset() }
    }

    /// Law 2: the dataset of the hub's files is that of the edges' own, byte for byte. Not where an edge has lost what the hub keeps.
    private func checkDataset() {
        let own = edges.flatMap { edge in
            edge.disk.paths.filter { FeedFileName.parse($0) != nil }.map { (path: $0, host: edge.name, bytes: edge.disk.bytes(of: $0)) }
        }
        let held = edges.flatMap { edge in
            hub.disk.paths.filter { $0.hasPrefix("host=\(edge.name)/") }.compactMap { path in
                let name = String(path.dropFirst("host=\(edge.name)/".utf8.count))
                return FeedPart.parse(name) == nil ? nil : (path: name, host: edge.name, bytes: hub.disk.bytes(of: path))
            }
        }
        if dataset(of: own) != dataset(of: held) { breaks(2, "the hub's dataset is not the edges' own") }
    }

    /// Nil: the rows give none.
    private func dataset(of files: [(path: String, host: String, bytes: [UInt8])]) -> [UInt8]? {
        // Every row's day and the clock steps lie within it.
        let from: Int64 = 1_735_603_200_000
        var arguments = DatasetArguments(from: from, to: from + 60 * 86_400_000, intervalSeconds: 3600)
        (arguments.keepsFiltered, arguments.isPerHost) = (true, true)
        let inputs = files.compactMap { file in
            FeedPart.parse(file.path).map { (path: file.path, feed: $0.feed, host: String?.some(file.host), bytes: file.bytes) }
        }
        do throws(DatasetRefusal) { return try DatasetBuild.documents(arguments, of: inputs).dataset } catch { return nil }
    }

    /// Law 1: every row durable at the edge, or ever acknowledged, is in the hub; no other is; the open copy is the edge's bytes from its base.
    private func checkCopies(_ index: Int) {
        let edge = edges[index]
        let prefix = "host=\(edge.name)/"
        var held: Set<UInt64> = []
        for path in hub.disk.paths where path.hasPrefix(prefix) && FeedPart.parse(String(path.dropFirst(prefix.utf8.count))) != nil {
            // A copy whose original is gone may end within a row, where the hub's own disk lost the rest: that is no row. All others equal the edge's.
            let bytes = hub.disk.bytes(of: path)
            for line in Lines.of(bytes.prefix(bytes.lastIndex(of: 0x0a).map { $0 + 1 } ?? 0)) {
                held.insert(Lines.hash(line))
                if !edge.written.contains(Lines.hash(line)) { breaks(1, "\(path) holds a row that \(edge.name) never wrote") }
            }
        }
        hub.rowsHeld += Int64(held.count)
        for path in edge.disk.paths where FeedFileName.parse(path) != nil {
            let bytes = edge.disk.bytes(of: path)
            for line in Lines.of(bytes[...]) where !held.contains(Lines.hash(line)) {
                breaks(1, "a row of \(edge.name)/\(path) is missing")
            }
            let part = hub.parts[edge.name]?.last { $0.file == path && $0.epoch == edge.epoch }
            let copy = prefix + FeedPart.name(path, part?.number ?? 0)
            // Of an old copy of the disk, in which the file was just made: the edge has nothing to compare.
            if bytes.isEmpty { continue }
            if hub.disk.bytes(of: copy)[...] != bytes.dropFirst(Int(part?.base ?? 0)) { breaks(1, "\(copy) is not the edge's bytes") }
        }
        for row in edge.acknowledged where !held.contains(row) { breaks(1, "an acknowledged row of \(edge.name) has left the hub") }
    }
}
