import CalibModel
import EdgeCore
import NodeShell
import Wire

/// One recorded frame.
struct RecordedFrame {
    var wall: WallTime
    /// Valid until the source moves on.
    var frame: UnsafeRawBufferPointer
    /// Counted from 0 within the recording.
    var connection: Int
}

/// One recording, read line by line; the head is what it would hand over next.
///
/// Two forms, told apart by the first line: `<receive unix ns> <frame>`, one connection a file; or one JSON object a line,
/// `{"t":"recv","conn":NAME,"ts":SECONDS,"data":FRAME}` with `connect` and `disconnect` between, of any number of connections.
final class RecordingSource {
    enum Head {
        case frame(RecordedFrame)
        /// A frame on a connection of another category.
        case otherFrame
        /// The connection begins, or begins anew.
        case connected(Int)
        case disconnected(Int)
        /// A line without a receive time, or damaged; it is counted at the place where it stands.
        case badLine
        case end
    }

    private enum Form { case plain, objects }

    private(set) var head = Head.end
    private var input: LineInput
    private var form: Form?
    private let category: BybitCategory?
    private var connections: [Connection] = []
    /// Where frames are unescaped.
    private var text = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
    /// The newest receive time; never goes back.
    private var latest: WallTime?
    /// A time so far ahead of the line before it that it is believed only when the next line agrees.
    private var doubted: WallTime?
    private static let believableNanoseconds: Int64 = 86_400_000_000_000

    private struct Connection {
        var name: [UInt8]
        /// False once its address named another category.
        var isWanted = true
    }

    /// - Parameter category: which connections of a Bybit recording count; one whose address is not recorded does.
    init(path: String, category: BybitCategory? = nil) throws(FileError) {
        self.category = category
        input = try LineInput(path: path)
        try advance()
    }

    deinit { text.deallocate() }

    var oversizedLines: Int { input.oversizedLines }

    func advance() throws(FileError) {
        while true {
            guard let line = try input.next() else {
                head = .end
                return
            }
            if line.isEmpty { continue }
            let form = form ?? (line[0] == UInt8(ascii: "{") ? .objects : .plain)
            self.form = form
            switch form {
            case .plain: head = parse(line)
            case .objects:
                guard let found = parseObject(line) else { continue }
                head = found
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
        return .frame(RecordedFrame(wall: wall, frame: UnsafeRawBufferPointer(rebasing: line[(index + 1)...]), connection: 0))
    }

    /// Nil for what tells nothing about the market: the header, requests, answers over HTTP, and kinds not known here.
    private func parseObject(_ line: UnsafeRawBufferPointer) -> Head? {
        var reader = JSONReader(line)
        var kind: UnsafeRawBufferPointer?
        var name: UnsafeRawBufferPointer?
        var address: UnsafeRawBufferPointer?
        var frame: UnsafeRawBufferPointer?
        var nanoseconds: Int64?
        do throws(JSONError) {
            try reader.beginObject()
            while let key = try reader.nextKey() {
                if key.equals("t") {
                    kind = try reader.string()
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
        } catch { return .badLine }
        guard let kind else { return .badLine }
        let isFrame = kind.equals("recv")
        let isEnd = kind.equals("disconnect") || kind.equals("close")
        guard isFrame || isEnd || kind.equals("connect") || kind.equals("send") else { return nil }
        guard let name, let connection = connection(name) else { return .badLine }
        if let address { note(address, of: connection) }
        if kind.equals("send") { return nil }
        guard let nanoseconds, let wall = stamp(nanoseconds) else { return .badLine }
        guard isFrame else { return isEnd ? .disconnected(connection) : .connected(connection) }
        guard let frame, let unescaped = unescape(frame) else { return .badLine }
        guard connections[connection].isWanted else { return .otherFrame }
        return .frame(RecordedFrame(wall: wall, frame: unescaped, connection: connection))
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

    /// The connection of that name, a new one if need be; nil at the limit.
    private func connection(_ name: UnsafeRawBufferPointer) -> Int? {
        if let index = connections.firstIndex(where: { $0.name.elementsEqual(name) }) { return index }
        guard connections.count < Limits.recordingConnectionsMax else { return nil }
        connections.append(Connection(name: Array(name)))
        return connections.count - 1
    }

    /// The category is the end of the websocket's path.
    private func note(_ address: UnsafeRawBufferPointer, of connection: Int) {
        guard let category, let slash = address.lastIndex(of: UInt8(ascii: "/")) else { return }
        connections[connection].isWanted = address[(slash + 1)...].elementsEqual(category.rawValue.utf8)
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

/// Several recordings as one stream in the order of their receive times; equal times in the order the files were given.
struct Recording {
    let sources: [RecordingSource]

    init(paths: [String], category: BybitCategory?) throws(FileError) {
        var sources: [RecordingSource] = []
        for path in paths { sources.append(try RecordingSource(path: path, category: category)) }
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

    /// What the node is told about a connection of one source: numbers of different sources never meet.
    static func connection(_ connection: Int, of source: Int) -> Int { source * Limits.recordingConnectionsMax + connection }

    var oversizedLines: Int { sources.reduce(0) { $0 + $1.oversizedLines } }
}
