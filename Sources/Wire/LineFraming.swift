import CalibModel

/// Cuts a byte stream into messages and their payloads, however it was torn on the way (SPEC 8.1).
///
/// Use: `append` what arrived, then `next` until nil. An unknown type is thrown and skipped, and the stream goes on; after any other error
/// the stream is lost and the connection must be closed.
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

    private var bytes: [UInt8] = []
    /// Where the unread part begins.
    private var start = 0
    /// Up to where no newline was found.
    private var searched = 0
    /// A message whose payload is not complete yet.
    private var waiting: Message?

    package init() {}

    /// Bytes received and not handed out yet: bounded by one line and one payload plus what `append` brought.
    package var pendingBytes: Int { bytes.count - start }

    package mutating func append(_ received: some Sequence<UInt8>) {
        if start > 0, start == bytes.count || start > 1 << 16 {
            bytes.removeFirst(start)
            searched -= start
            start = 0
        }
        bytes.append(contentsOf: received)
    }

    /// The next whole message with its payload; nil when more bytes are needed.
    package mutating func next() throws(WireError) -> Frame? {
        if waiting == nil, let line = try nextLine() {
            // A typed throw does not pass through withUnsafeBytes' rethrow.
            let result: Result<Message, WireError> = bytes.withUnsafeBytes { raw in
                do throws(WireError) { return .success(try Message(line: UnsafeRawBufferPointer(rebasing: raw[line]))) } catch {
                    return .failure(error)
                }
            }
            waiting = try result.get()
        }
        guard let message = waiting, bytes.count - start >= message.payloadBytes else { return nil }
        let payload = Array(bytes[start..<start + message.payloadBytes])
        start += payload.count
        searched = start
        waiting = nil
        return Frame(message: message, payload: payload)
    }

    /// Consumes one line, empty ones skipped, and returns where it lies, without its newline.
    private mutating func nextLine() throws(WireError) -> Range<Int>? {
        while true {
            guard let newline = bytes[max(start, searched)...].firstIndex(of: 0x0a) else {
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
