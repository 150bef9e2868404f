import CalibModel
import EdgeCore
import NodeShell
import Wire

/// One recorded frame.
struct RecordedFrame {
    var wall: WallTime
    /// Valid until the source moves on.
    var frame: UnsafeRawBufferPointer
}

/// What one connection received, within a recording.
///
/// Two forms, told apart by the first line: `<receive unix ns> <frame>`, one connection a file; or one JSON object a line,
/// `{"t":"recv","conn":NAME,"ts":SECONDS,"data":FRAME}` with `connect` and `disconnect` between. There the lines of one connection are in
/// order, but those of different ones are not: recorders write them one after the other. So each is read by itself.
struct RecordedStream {
    var path: String
    /// The connection's name; nil in the first form, and in a recording of connections that do not count.
    var name: [UInt8]?
    var isObjects = false
    /// Each line of a file that belongs to no stream is told by the file's first one; these are the names of all of them.
    var names: [[UInt8]]?

    /// The streams of all files. `category` says which connections of a Bybit recording count; one whose address is not recorded does.
    static func list(_ paths: [String], category: BybitCategory?) throws(FileError) -> [RecordedStream] {
        var result: [RecordedStream] = []
        for path in paths {
            var input = try LineInput(path: path)
            var connections: [(name: [UInt8], isWanted: Bool)] = []
            var isObjects = false
            while let line = try input.next() {
                if line.isEmpty { continue }
                if !isObjects {
                    guard line[0] == UInt8(ascii: "{") else { break }
                    isObjects = true
                }
                guard let line = RecordedLine(line), line.kind != .unused, let name = line.name else { continue }
                if !connections.contains(where: { $0.name.elementsEqual(name) }) {
                    guard connections.count < Limits.recordingConnectionsMax else { continue }
                    connections.append((Array(name), true))
                }
                guard let category, let address = line.address, let slash = address.lastIndex(of: UInt8(ascii: "/")) else { continue }
                let index = connections.firstIndex { $0.name.elementsEqual(name) }!
                // The category is the end of the websocket's path.
                connections[index].isWanted = address[(slash + 1)...].elementsEqual(category.rawValue.utf8)
            }
            guard isObjects else {
                result.append(RecordedStream(path: path))
                continue
            }
            let wanted = connections.filter(\.isWanted).map(\.name)
            result.append(RecordedStream(path: path, name: wanted.first, isObjects: true, names: wanted))
            result += wanted.dropFirst().map { RecordedStream(path: path, name: $0, isObjects: true) }
        }
        return result
    }
}

/// One line of the second form; texts point into it.
private struct RecordedLine {
    enum Kind { case received, connected, disconnected, sent, unused }

    var kind = Kind.unused
    var name: UnsafeRawBufferPointer?
    var address: UnsafeRawBufferPointer?
    /// As it stands between its quotes.
    var frame: UnsafeRawBufferPointer?
    var nanoseconds: Int64?

    /// Nil when the line is damaged.
    init?(_ line: UnsafeRawBufferPointer) {
        var reader = JSONReader(line)
        var hasKind = false
        do throws(JSONError) {
            try reader.beginObject()
            while let key = try reader.nextKey() {
                if key.equals("t") {
                    kind = Self.kind(try reader.string())
                    hasKind = true
                } else if key.equals("conn") {
                    name = try reader.string()
                } else if key.equals("ts") {
                    nanoseconds = try reader.fixed(places: 9)
                } else if key.equals("addr") {
                    address = try reader.string()
                } else if key.equals("data"), try reader.peek() == .string {
                    frame = try reader.string()
                } else {
                    try reader.skip()
                }
            }
            try reader.end()
        } catch { return nil }
        guard hasKind else { return nil }
    }

    /// The header, answers over HTTP, and kinds not known here tell nothing about a connection.
    private static func kind(_ text: UnsafeRawBufferPointer) -> Kind {
        if text.equals("recv") { return .received }
        if text.equals("connect") { return .connected }
        if text.equals("disconnect") || text.equals("close") { return .disconnected }
        return text.equals("send") ? .sent : .unused
    }
}

/// One stream of a recording, read line by line; the head is what it would hand over next.
final class RecordingSource {
    enum Head {
        case frame(RecordedFrame)
        /// A frame of a connection that does not count.
        case otherFrame
        /// The connection begins, or begins anew.
        case connected
        case disconnected
        /// A line without a receive time, or damaged; it is counted at the place where it stands.
        case badLine
        case end
    }

    private(set) var head = Head.end
    private var input: LineInput
    private let stream: RecordedStream
    /// Where frames are unescaped.
    private var text = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
    /// The newest receive time; never goes back.
    private var latest: WallTime?
    /// A time so far ahead of the line before it that it is believed only when the next line agrees.
    private var doubted: WallTime?
    private static let believableNanoseconds: Int64 = 86_400_000_000_000

    init(_ stream: RecordedStream) throws(FileError) {
        self.stream = stream
        input = try LineInput(path: stream.path)
        try advance()
    }

    deinit { text.deallocate() }

    /// Of the file, told by its first stream.
    var oversizedLines: Int { stream.isObjects && stream.names == nil ? 0 : input.oversizedLines }

    func advance() throws(FileError) {
        while true {
            guard let line = try input.next() else {
                head = .end
                return
            }
            if line.isEmpty { continue }
            if stream.isObjects {
                guard let found = parseObject(line) else { continue }
                head = found
            } else {
                head = parse(line)
            }
            return
        }
    }

    /// The time at which this source is next; a line without one has the time of the line before it.
    var time: WallTime? {
        switch head {
        case .frame(let frame): frame.wall
        case .otherFrame, .connected, .disconnected, .badLine: latest ?? WallTime(nanoseconds: 0)
        case .end: nil
        }
    }

    /// The receive time as both clocks of a node that replays (SPEC 3.7).
    var moment: Moment {
        let wall = time ?? WallTime(nanoseconds: 0)
        return Moment(instant: Instant(nanoseconds: wall.nanoseconds), wall: wall)
    }

    // MARK: Forms

    private func parse(_ line: UnsafeRawBufferPointer) -> Head {
        var nanoseconds: Int64 = 0
        var index = 0
        while index < line.count, index < 19, line[index] &- 0x30 < 10 {
            nanoseconds = nanoseconds * 10 + Int64(line[index] &- 0x30)
            index += 1
        }
        // 18 digits at most cannot overflow; 19 are today's nanoseconds and fit until 2262.
        guard index >= 18, index < line.count, line[index] == 0x20, let wall = stamp(nanoseconds) else { return .badLine }
        return .frame(RecordedFrame(wall: wall, frame: UnsafeRawBufferPointer(rebasing: line[(index + 1)...])))
    }

    /// Nil for what is not this stream's to tell.
    private func parseObject(_ bytes: UnsafeRawBufferPointer) -> Head? {
        guard let line = RecordedLine(bytes), line.kind == .unused || line.name != nil else { return stream.names == nil ? nil : .badLine }
        guard line.kind != .unused, let name = line.name else { return nil }
        guard let own = stream.name, own.elementsEqual(name) else {
            guard line.kind == .received, let names = stream.names, !names.contains(where: { $0.elementsEqual(name) }) else { return nil }
            return .otherFrame
        }
        guard line.kind != .sent else { return nil }
        guard let nanoseconds = line.nanoseconds, let wall = stamp(nanoseconds) else { return .badLine }
        if line.kind == .connected { return .connected }
        if line.kind == .disconnected { return .disconnected }
        guard let frame = line.frame.flatMap(unescape) else { return .badLine }
        return .frame(RecordedFrame(wall: wall, frame: frame))
    }

    // MARK: Leaves

    /// A clock never goes back: a line that claims an earlier time than the one before it happened no earlier than that one. A time more than
    /// a day ahead is a bad line, unless the next one says the same: one damaged stamp must not push everything behind it into the future.
    private func stamp(_ nanoseconds: Int64) -> WallTime? {
        guard nanoseconds > 0, nanoseconds < 4_102_444_800_000_000_000 else { return nil }
        let stamped = WallTime(nanoseconds: nanoseconds)
        if let latest, nanoseconds - latest.nanoseconds > Self.believableNanoseconds {
            guard let doubt = doubted, (nanoseconds - doubt.nanoseconds).magnitude <= UInt64(Self.believableNanoseconds) else {
                doubted = stamped
                return nil
            }
        }
        doubted = nil
        let wall = latest.map { max($0, stamped) } ?? stamped
        latest = wall
        return wall
    }

    /// The text of a JSON string that `JSONReader` accepted; nil when an escape stands for half a character.
    private func unescape(_ raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        if text.count < raw.count {  // No escape is shorter than what it stands for.
            text.deallocate()
            text = .allocate(byteCount: 2 * raw.count, alignment: 16)
        }
        var read = 0
        var count = 0
        while read < raw.count {
            let byte = raw[read]
            guard byte == UInt8(ascii: "\\") else {
                text[count] = byte
                read += 1
                count += 1
                continue
            }
            let escape = raw[read + 1]
            read += 2
            switch escape {
            case UInt8(ascii: "b"): text[count] = 0x08
            case UInt8(ascii: "f"): text[count] = 0x0c
            case UInt8(ascii: "n"): text[count] = 0x0a
            case UInt8(ascii: "r"): text[count] = 0x0d
            case UInt8(ascii: "t"): text[count] = 0x09
            case UInt8(ascii: "u"):
                guard let scalar = scalar(raw, &read) else { return nil }
                for unit in UTF8.encode(scalar)! {
                    text[count] = unit
                    count += 1
                }
                continue
            default: text[count] = escape  // A quote, a backslash or a slash.
            }
            count += 1
        }
        return UnsafeRawBufferPointer(rebasing: text[..<count])
    }

    /// The character of `\uXXXX`, or of a surrogate pair; `read` stands behind the `u` and moves past it.
    private func scalar(_ raw: UnsafeRawBufferPointer, _ read: inout Int) -> Unicode.Scalar? {
        let first = hexadecimal(raw, read)
        read += 4
        guard first & 0xfc00 == 0xd800 else { return Unicode.Scalar(first) }
        guard read + 6 <= raw.count, raw[read] == UInt8(ascii: "\\"), raw[read + 1] == UInt8(ascii: "u") else { return nil }
        let second = hexadecimal(raw, read + 2)
        guard second & 0xfc00 == 0xdc00 else { return nil }
        read += 6
        return Unicode.Scalar(0x10000 + ((first & 0x3ff) << 10 | second & 0x3ff))
    }

    /// Four hexadecimal digits, which `JSONReader` has checked.
    private func hexadecimal(_ raw: UnsafeRawBufferPointer, _ start: Int) -> UInt32 {
        var value: UInt32 = 0
        for byte in raw[start..<start + 4] { value = value << 4 | UInt32(byte <= 0x39 ? byte - 0x30 : (byte | 0x20) - 0x61 + 10) }
        return value
    }
}

/// Several streams as one in the order of their receive times; equal times in the order of the streams.
struct Recording {
    let sources: [RecordingSource]

    init(_ streams: [RecordedStream]) throws(FileError) {
        var sources: [RecordingSource] = []
        for stream in streams { sources.append(try RecordingSource(stream)) }
        self.sources = sources
    }

    /// The source whose head comes next; nil at the end of all.
    func next() -> Int? {
        var best: Int?
        var bestTime = WallTime(nanoseconds: .max)
        for index in sources.indices {
            guard let time = sources[index].time, best == nil || time < bestTime else { continue }
            best = index
            bestTime = time
        }
        return best
    }

    var oversizedLines: Int { sources.reduce(0) { $0 + $1.oversizedLines } }
}
