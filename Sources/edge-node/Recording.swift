import CalibModel
import NodeShell

/// One recorded line: `<receive unix ns> <frame>`.
struct RecordedFrame {
    var wall: WallTime
    /// Valid until the source moves on.
    var frame: UnsafeRawBufferPointer
}

/// One recording, read line by line; the head is what it would hand over next.
final class RecordingSource {
    enum Head {
        case frame(RecordedFrame)
        /// A line without a receive time; it is counted at the place where it stands.
        case badLine
        case end
    }

    private(set) var head = Head.end
    private var input: LineInput
    private var latest: WallTime?
    /// A time so far ahead of the line before it that it is believed only when the next line agrees.
    private var doubted: WallTime?
    private static let believableNanoseconds: Int64 = 86_400_000_000_000

    init(path: String) throws(FileError) {
        input = try LineInput(path: path)
        try advance()
    }

    var oversizedLines: Int { input.oversizedLines }

    func advance() throws(FileError) {
        while true {
            guard let line = try input.next() else {
                head = .end
                return
            }
            if line.isEmpty { continue }
            head = parse(line)
            return
        }
    }

    /// The time at which this source is next; a bad line has the time of the line before it.
    var time: WallTime? {
        switch head {
        case .frame(let frame): frame.wall
        case .badLine: latest ?? WallTime(nanoseconds: 0)
        case .end: nil
        }
    }

    /// A clock never goes back: a line that claims an earlier time than the one before it happened no earlier than that one. A time more than
    /// a day ahead is a bad line, unless the next one says the same: one damaged stamp must not push everything behind it into the future.
    private func parse(_ line: UnsafeRawBufferPointer) -> Head {
        var nanoseconds: Int64 = 0
        var index = 0
        while index < line.count, index < 19, line[index] &- 0x30 < 10 {
            nanoseconds = nanoseconds * 10 + Int64(line[index] &- 0x30)
            index += 1
        }
        // 18 digits at most cannot overflow; 19 are today's nanoseconds and fit until 2262.
        guard index >= 18, index < line.count, line[index] == 0x20, nanoseconds > 0, nanoseconds < 4_102_444_800_000_000_000 else {
            return .badLine
        }
        let stamped = WallTime(nanoseconds: nanoseconds)
        if let latest, nanoseconds - latest.nanoseconds > Self.believableNanoseconds {
            guard let doubt = doubted, (nanoseconds - doubt.nanoseconds).magnitude <= UInt64(Self.believableNanoseconds) else {
                doubted = stamped
                return .badLine
            }
        }
        doubted = nil
        let wall = latest.map { max($0, stamped) } ?? stamped
        latest = wall
        return .frame(RecordedFrame(wall: wall, frame: UnsafeRawBufferPointer(rebasing: line[(index + 1)...])))
    }
}

/// Several recordings as one stream in the order of their receive times; equal times in the order the files were given.
struct Recording {
    let sources: [RecordingSource]

    init(paths: [String]) throws(FileError) {
        var sources: [RecordingSource] = []
        for path in paths { sources.append(try RecordingSource(path: path)) }
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
