import CalibModel
import Wire

/// Reads the lines of a recording of Bybit's public stream, `{"t":"connect|send|recv|...","conn":...,"ts":<seconds>,"data":"<frame>"}`.
///
/// It remembers which connection has which category, so lines are read in their order. Of an unknown connection nothing is known.
package struct BybitRecording: Sendable {
    package enum Entry: Sendable, Equatable {
        /// What the recorder asked for.
        case subscription(BybitCategory, topics: [String])
        /// A frame of a topic, byte for byte, and when it was received.
        case frame(BybitCategory, topic: String, microseconds: Int64, bytes: [UInt8])
        /// A header, an answer, another protocol: nothing to replay.
        case other
    }

    private var categories: [String: BybitCategory] = [:]

    package init() {}

    /// Throws at a line that is not of this form; the next one is read as if it had not been there.
    package mutating func read(_ line: UnsafeRawBufferPointer) throws(JSONError) -> Entry {
        var reader = JSONReader(line)
        var (kind, connection, address) = ("", "", "")
        var microseconds: Int64 = 0
        var data: [UInt8] = []
        try reader.beginObject()
        while let key = try reader.nextKey() {
            if key.equals("t") {
                kind = String(decoding: try reader.string(), as: UTF8.self)
                // The answers to a recorder's REST requests are megabytes of no use here.
                guard kind == "connect" || kind == "send" || kind == "recv" else { return .other }
            } else if key.equals("conn") {
                connection = String(decoding: try reader.string(), as: UTF8.self)
            } else if key.equals("addr") {
                address = String(decoding: try reader.string(), as: UTF8.self)
            } else if key.equals("ts") {
                microseconds = try reader.fixed(places: 6)
            } else if key.equals("data") {
                data = try text(of: try reader.raw())
            } else {
                try reader.skip()
            }
        }
        try reader.end()
        if kind == "connect" {
            let name = address.split(separator: "/").last.map(String.init)
            categories[connection] = name.flatMap(BybitCategory.init(rawValue:))
            return .other
        }
        guard let category = categories[connection] else { return .other }
        return kind == "send" ? subscription(category, data) : frame(category, data, microseconds)
    }

    // MARK: Leaves

    private func subscription(_ category: BybitCategory, _ data: [UInt8]) -> Entry {
        guard let request = try? JSONValue.parse(data), request["op"]?.string == "subscribe" else { return .other }
        return .subscription(category, topics: (request["args"]?.array ?? []).compactMap(\.string))
    }

    private func frame(_ category: BybitCategory, _ data: [UInt8], _ microseconds: Int64) -> Entry {
        guard let topic = data.withUnsafeBytes({ Self.topic(of: $0) }) else { return .other }
        return .frame(category, topic: topic, microseconds: microseconds, bytes: data)
    }

    /// Nil for what is no frame of a topic.
    private static func topic(of frame: UnsafeRawBufferPointer) -> String? {
        var reader = JSONReader(frame)
        do throws(JSONError) {
            try reader.beginObject()
            while let key = try reader.nextKey() {
                if key.equals("topic") { return String(decoding: try reader.string(), as: UTF8.self) }
                try reader.skip()
            }
        } catch {}
        return nil
    }

    /// The text of a JSON string, its escapes resolved.
    private func text(of json: UnsafeRawBufferPointer) throws(JSONError) -> [UInt8] {
        guard let text = try JSONValue.parse(json).string else { throw .wrongType(at: 0) }
        return Array(text.utf8)
    }
}
