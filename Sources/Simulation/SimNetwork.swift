import CalibModel
import Wire

/// One TCP connection between an edge and the hub: two byte streams with delays, which can be cut at any byte.
struct SimConnection {
    enum Side: Int, CaseIterable { case edge, hub }

    /// What one side has sent and the other has not taken.
    struct Stream {
        var bytes: [UInt8] = []
        var start = 0
        var count: Int { bytes.count - start }
        /// A delivery is scheduled.
        var isMoving = false
        /// The sender has closed; the end follows the bytes.
        var isClosing = false
        /// The receiver does not read.
        var isPaused = false
        /// The receiver reads nothing before this time.
        var slowUntil: Int64 = 0
        /// The connection breaks when so many more bytes are delivered.
        var bytesUntilCut: Int?
        var framing = LineFraming()

        mutating func take(_ count: Int) -> [UInt8] {
            let taken = Array(bytes[start..<start + count])
            start += count
            if start == bytes.count {
                (bytes, start) = ([], 0)
            } else if start > 1 << 20 {
                bytes.removeFirst(start)
                start = 0
            }
            return taken
        }
    }

    let edge: Int
    /// By receiving side.
    var streams = [Stream(), Stream()]
    /// Sides that believe in it.
    var isOpen = [true, true]
    /// Nothing arrives any more, and nobody is told.
    var isDead = false
    /// The edge waits for its turn's bytes to leave.
    var turnIsLeaving = false
    /// When the hub last heard from it.
    var heardAt: Int64

    /// Bytes under way to the hub above which an edge's turn waits (`Limits.linkOutboundBytesHigh` and `Low`, scaled).
    static let outboundBytesHigh = 128 << 10
}
