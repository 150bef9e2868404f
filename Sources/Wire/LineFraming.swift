import CalibModel

/// Cuts a byte stream into messages and their payloads, however it was torn on the way (SPEC 8.1).
///
/// Use: `append` what arrived, then `next` until nil. An unknown type is thrown and skipped, and the stream goes on; after any other error
/// the stream is lost and the connection must be closed.
///
/// A payload under way is gathered in the array it is handed out as: of a bulk transfer nearly every byte is copied once.
package struct LineFraming {
    package struct Frame: Sendable, Equatable {
        package var message: Message
        /// `message.payloadBytes` bytes.
        package var payload: [UInt8]
        package init(message: Message, payload: [UInt8] = []) {
            self.message = message
            self.payload = payload
        }
    }

    /// One status of ten symbols.
    private static let keptBytesMax = 8_192

    private var bytes: [UInt8] = []
    /// Where the unread part begins.
    private var start = 0
    /// Up to where no newline was found.
    private var searched = 0
    /// A message whose payload is not complete yet, or was not asked for since it is. While the payload is not complete, `bytes` is empty.
    private var waiting: Message?
    private var payload: [UInt8] = []

    package init() {}

    /// Bytes received and not handed out yet: bounded by one line and one payload plus what `append` brought.
    package var pendingBytes: Int { bytes.count - start + payload.count }

    package mutating func append(_ received: UnsafeRawBufferPointer) {
        var rest = received.bindMemory(to: UInt8.self)
        if let waiting {
            let piece = min(rest.count, waiting.payloadBytes - payload.count)
            payload.append(contentsOf: UnsafeBufferPointer(rebasing: rest[..<piece]))
            rest = UnsafeBufferPointer(rebasing: rest[piece...])
        }
        guard !rest.isEmpty else { return }
        if start > 0, start == bytes.count {
            forgetRead()
        } else if start > 1 << 16 {
            bytes.removeFirst(start)
            searched -= start
            start = 0
        }
        bytes.append(contentsOf: rest)
    }

    /// The next whole message with its payload; nil when more bytes are needed.
    package mutating func next() throws(WireError) -> Frame? {
        if waiting == nil {
            guard let line = try nextLine() else { return nil }
            // A typed throw does not pass through withUnsafeBytes' rethrow.
            let result: Result<Message, WireError> = bytes.withUnsafeBytes { raw in
                do throws(WireError) { return .success(try Message(line: UnsafeRawBufferPointer(rebasing: raw[line]))) } catch {
                    return .failure(error)
                }
            }
            let message = try result.get()
            guard message.payloadBytes > 0 else { return Frame(message: message) }
            waiting = message
            payload.reserveCapacity(message.payloadBytes)
            let piece = min(bytes.count - start, message.payloadBytes)
            payload.append(contentsOf: bytes[start..<start + piece])
            start += piece
            searched = start
            if start == bytes.count { forgetRead() }
        }
        guard let message = waiting, payload.count == message.payloadBytes else { return nil }
        waiting = nil
        defer { payload = [] }
        return Frame(message: message, payload: payload)
    }

    /// All of `bytes` is read. What a bulk transfer has left behind is not kept for a connection that is silent most of the time.
    private mutating func forgetRead() {
        if bytes.capacity > Self.keptBytesMax { bytes = [] } else { bytes.removeAll(keepingCapacity: true) }
        (start, searched) = (0, 0)
    }

    /// Consumes one line, empty ones skipped, and returns where it lies, without its newline.
    private mutating func nextLine() throws(WireError) -> Range<Int>? {
        while true {
            let from = max(start, searched)
            guard let newline = bytes.withUnsafeBytes({ $0[from...].firstIndex(of: 0x0a) }) else {
                searched = bytes.count
                guard bytes.count - start < Limits.controlLineBytesMax else { throw .tooLong(limit: Limits.controlLineBytesMax) }
                return nil
            }
            let line = start..<newline
            guard line.count < Limits.controlLineBytesMax else { throw .tooLong(limit: Limits.controlLineBytesMax) }
            start = newline + 1
            searched = start
            if !line.isEmpty { return line }
        }
    }
}
