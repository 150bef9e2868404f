import Foundation

/// A directory whose files fall back to what was synced when the power goes (`Tests/ForgetfulDisk` says how the programs are watched).
///
/// One program at a time runs on it, started with `environment`. After it has ended, by kill -9 at best, `losePower` leaves what a disk may hold
/// then, and tells what the program had done. One thread uses it.
package final class ForgetfulDisk {
    package let root: String
    private let platter: String
    /// Programs that ran on it and ended. Their journals stay in the platter, for when something was lost.
    private var lives = 0
    /// The durable names below the root.
    private var names: [String: Name]

    private enum Name: Equatable {
        case directory
        case file(inode: UInt64)
    }

    package struct Failure: Error, CustomStringConvertible {
        package var description: String
    }

    /// What one power loss took.
    package struct Loss: Sendable {
        package var bytes = 0
        package var names = 0
        /// Whole pages that read as zeros within a file's length.
        package var zeroPages = 0
        package init() {}
    }

    package static func sharedObject() throws -> String { try Binaries.path(of: "libCForgetfulDisk.so") }

    /// A sanitizer's runtime must be the first library of a process, so it cannot have this one before it.
    package static var isUsable: Bool {
        ["__asan_init", "__tsan_init"].allSatisfy { (name: String) in dlsym(nil, name) == nil }
    }

    /// What is in `root` by now is durable.
    package init(_ root: String) throws {
        guard let path = realpath(root, nil) else { throw Failure(description: "there is no directory '\(root)'") }
        defer { free(path) }
        self.root = String(cString: path)
        platter = self.root + ".platter"
        names = [:]
        for folder in ["held", "data"] {
            try FileManager.default.createDirectory(atPath: "\(platter)/\(folder)", withIntermediateDirectories: true)
        }
        names = try Self.walk(self.root)
        for (path, name) in names {
            guard case .file(let inode) = name else { continue }
            try check(link("\(self.root)/\(path)", held(inode)), "link '\(path)'")
            try Data(contentsOf: URL(fileURLWithPath: held(inode))).write(to: URL(fileURLWithPath: data(inode)))
        }
    }

    /// For the next program; `more` are its other settings, such as `FORGETFUL_KILL_AT`.
    package func environment(_ more: [String: String] = [:]) throws -> [String: String] {
        ["LD_PRELOAD": try Self.sharedObject(), "FORGETFUL_ROOT": root, "FORGETFUL_PLATTER": platter].merging(more) { $1 }
    }

    /// For after the program's end. Everything durable stays, everything else may go.
    package func losePower(_ random: inout SeededRandom) throws -> (journal: DiskJournal, loss: Loss) {
        let journal = DiskJournal(try? Data(contentsOf: URL(fileURLWithPath: platter + "/journal")))
        lives += 1
        try? FileManager.default.moveItem(atPath: platter + "/journal", toPath: platter + "/journal.\(lives)")
        var loss = Loss()
        names = survivingNames(journal, &random, &loss)
        for (path, name) in names.sorted(by: { $0.key < $1.key }) {
            guard case .file(let inode) = name, journal.isInDoubt(inode) else { continue }
            do { try settle(inode, &random, &loss) } catch { throw Failure(description: "'\(path)' cannot fall back: \(error)") }
        }
        try rebuild()
        return (journal, loss)
    }

    package func remove() {
        try? FileManager.default.removeItem(atPath: platter)
        try? FileManager.default.removeItem(atPath: root)
    }

    // MARK: Names

    /// Of each directory the operations up to its last sync, and of those behind it the beginning: a journalled file system forgets in order.
    private func survivingNames(_ journal: DiskJournal, _ random: inout SeededRandom, _ loss: inout Loss) -> [String: Name] {
        var kept: [String: Int] = [:]
        for folder in Set(journal.nameOperations.flatMap(\.folders)).sorted() {
            let places = journal.nameOperations.filter { $0.folders.contains(folder) }.map(\.place)
            let synced = journal.nameSyncs.last { $0.folder == nil || $0.folder == folder }?.place ?? -1
            let open = places.filter { $0 > synced }
            let count = random.next(below: open.count + 1)
            kept[folder] = count == 0 ? synced : open[count - 1]
        }
        var names = names
        for operation in journal.nameOperations {
            // A rename from one directory to another is one transaction: it is there as soon as one of them is synced behind it.
            guard operation.folders.contains(where: { operation.place <= kept[$0] ?? -1 }) else {
                loss.names += 1
                continue
            }
            switch operation.kind {
            case .create(let inode, let path): if isFolder(parent(path), names) { names[path] = .file(inode: inode) }
            case .makeDirectory(let path): if isFolder(parent(path), names) { names[path] = .directory }
            case .unlink(let path): names[path] = nil
            case .rename(let from, let to):
                guard names[from] != nil, isFolder(parent(to), names) else { continue }
                for (path, name) in names where path == from || path.hasPrefix(from + "/") {
                    names[path] = nil
                    names[to + path.dropFirst(from.count)] = name
                }
            }
        }
        return names
    }

    private func isFolder(_ path: String, _ names: [String: Name]) -> Bool { path == "." || names[path] == .directory }

    /// Makes the directory what `names` says.
    private func rebuild() throws {
        let found = try Self.walk(root)
        for (path, name) in found.sorted(by: { $0.key > $1.key }) where names[path] != name {
            try check(Foundation.remove("\(root)/\(path)"), "remove '\(path)'")
        }
        for (path, name) in names.sorted(by: { $0.key < $1.key }) where found[path] != name {
            switch name {
            case .directory: try check(mkdir("\(root)/\(path)", 0o755), "make '\(path)'")
            case .file(let inode): try check(link(held(inode), "\(root)/\(path)"), "bring back '\(path)'")
            }
        }
        let alive = Set(names.values.compactMap { name in if case .file(let inode) = name { "\(inode)" } else { nil } })
        for folder in ["held", "data"] {
            for name in try FileManager.default.contentsOfDirectory(atPath: "\(platter)/\(folder)") where !alive.contains(name) {
                unlink("\(platter)/\(folder)/\(name)")
            }
        }
    }

    private static func walk(_ root: String) throws -> [String: Name] {
        var names: [String: Name] = [:]
        guard let walker = FileManager.default.enumerator(atPath: root) else { throw Failure(description: "cannot list '\(root)'") }
        for case let path as String in walker {
            var status = stat()
            guard lstat("\(root)/\(path)", &status) == 0 else { continue }
            if path.hasSuffix("-shm") {
                // SQLite's index of its log, mapped and made anew; never durable.
                unlink("\(root)/\(path)")
                continue
            }
            if status.st_mode & S_IFMT == S_IFDIR { names[path] = .directory }
            if status.st_mode & S_IFMT == S_IFREG { names[path] = .file(inode: UInt64(status.st_ino)) }
        }
        return names
    }

    // MARK: Bytes

    private func settle(_ inode: UInt64, _ random: inout SeededRandom, _ loss: inout Loss) throws {
        let actual = [UInt8](try Data(contentsOf: URL(fileURLWithPath: held(inode))))
        let durable = [UInt8]((try? Data(contentsOf: URL(fileURLWithPath: data(inode)))) ?? Data())
        // The new length, or the old one, or one between when it grew.
        var length = random.next(below: 2) == 0 ? actual.count : durable.count
        if actual.count > durable.count, random.next(below: 2) == 0 {
            length = durable.count + random.next(below: actual.count - durable.count + 1)
        }
        var bytes = durable.prefix(length) + [UInt8](repeating: 0, count: max(0, length - durable.count))
        let keptOfTen = [1, 5, 9][random.next(below: 3)]
        for start in stride(from: 0, to: length, by: Self.pageBytes) {
            let end = min(start + Self.pageBytes, length)
            let known = min(end, actual.count)
            guard start < known, bytes[start..<known] != actual[start..<known] else { continue }
            let isKept = random.next(below: 10) < keptOfTen
            if isKept {
                bytes.replaceSubrange(start..<known, with: actual[start..<known])
            } else if start >= durable.count {
                loss.zeroPages += 1
            }
        }
        loss.bytes += max(0, actual.count - length)
        for path in [held(inode), data(inode)] {
            let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
            try check(file, "open '\(path)'")
            defer { close(file) }
            try check(ftruncate(file, off_t(length)), "cut '\(path)'")
            var written = 0
            while written < length {
                let count = bytes.withUnsafeBytes { pwrite(file, $0.baseAddress! + written, length - written, off_t(written)) }
                try check(Int32(clamping: count), "write '\(path)'")
                written += count
            }
        }
    }

    private static let pageBytes = 4096

    private func held(_ inode: UInt64) -> String { "\(platter)/held/\(inode)" }
    private func data(_ inode: UInt64) -> String { "\(platter)/data/\(inode)" }

    private func check(_ result: Int32, _ what: String) throws {
        guard result >= 0 else { throw Failure(description: "cannot \(what): \(String(cString: strerror(errno)))") }
    }
}

private func parent(_ path: String) -> String {
    path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
}

/// What a program on a `ForgetfulDisk` did, in its own order.
package struct DiskJournal: Sendable {
    package enum NameChange: Sendable {
        case create(inode: UInt64, path: String)
        case makeDirectory(String)
        case unlink(String)
        case rename(from: String, to: String)
    }

    struct NameOperation: Sendable {
        var place: Int
        var kind: NameChange
        /// The one or two directories whose sync makes it durable.
        var folders: [String]
    }

    /// In order: what became durable, and what was sent.
    package enum Event: Sendable {
        case synced(path: String, length: Int)
        /// A line that a TLS connection was given, without its newline.
        case sent(connection: String, line: String)
    }

    private(set) var nameOperations: [NameOperation] = []
    /// A nil folder stands for all.
    private(set) var nameSyncs: [(place: Int, folder: String?)] = []
    package private(set) var events: [Event] = []
    private var dirty: Set<UInt64> = []
    private var failed: Set<UInt64> = []
    package var failedSyncs: Int { failed.count }

    func isInDoubt(_ inode: UInt64) -> Bool { dirty.contains(inode) || failed.contains(inode) }

    /// Nil: the program did nothing. An incomplete record at the end did not happen.
    package init(_ data: Data?) {
        guard let data else { return }
        let bytes = [UInt8](data)
        var streams: [String: Stream] = [:]
        var at = 0
        var place = 0
        while let end = bytes[at...].firstIndex(of: 0x0a) {
            let words = String(decoding: bytes[at..<end], as: UTF8.self).split(separator: " ", maxSplits: 1).map(String.init)
            at = end + 1
            place += 1
            let rest = words.count > 1 ? words[1] : ""
            func inode() -> UInt64 { UInt64(rest.prefix { $0 != " " })! }
            func last(_ count: Int) -> String { String(rest.split(separator: " ", maxSplits: count)[count]) }
            func add(_ kind: NameChange, _ paths: String...) {
                nameOperations.append(NameOperation(place: place, kind: kind, folders: Set(paths.map(parent)).sorted()))
            }
            switch words[0] {
            case "create": add(.create(inode: inode(), path: last(1)), last(1))
            case "mkdir": add(.makeDirectory(rest), rest)
            case "unlink": add(.unlink(rest), rest)
            case "rename":
                let paths = rest.split(separator: "\t").map(String.init)
                add(.rename(from: paths[0], to: paths[1]), paths[0], paths[1])
            case "names": nameSyncs.append((place, rest))
            case "allnames": nameSyncs.append((place, nil))
            case "dirty": dirty.insert(inode())
            case "synced":
                dirty.remove(inode())
                events.append(.synced(path: last(2), length: Int(rest.split(separator: " ")[1])!))
            case "failed": failed.insert(inode())
            case "freed": streams[rest] = nil
            case "sent":
                let count = Int(last(1))!
                guard at + count < bytes.count else { return }
                let connection = String(rest.prefix { $0 != " " })
                streams[connection, default: Stream()].take(bytes[at..<at + count]) {
                    events.append(.sent(connection: connection, line: $0))
                }
                at += count + 1
            default: preconditionFailure("BUG: '\(words[0])' is no record of the journal")
            }
        }
    }

    /// Lines of one connection. The bytes that an append or a chunk announces are left out.
    private struct Stream {
        private var line: [UInt8] = []
        private var payloadBytes = 0

        mutating func take(_ bytes: ArraySlice<UInt8>, _ told: (String) -> Void) {
            var bytes = bytes
            while !bytes.isEmpty {
                if payloadBytes > 0 {
                    let count = min(payloadBytes, bytes.count)
                    payloadBytes -= count
                    bytes = bytes.dropFirst(count)
                    continue
                }
                guard let newline = bytes.firstIndex(of: 0x0a) else {
                    line += bytes
                    return
                }
                let text = String(decoding: line + bytes[..<newline], as: UTF8.self)
                line = []
                bytes = bytes[(newline + 1)...]
                if text.hasPrefix("{\"type\":\"append\"") || text.hasPrefix("{\"type\":\"chunk\"") {
                    let object = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
                    payloadBytes = object?["bytes"] as? Int ?? 0
                }
                told(text)
            }
        }
    }
}
