import Glibc
package import Logging
internal import Wire

/// Log lines of a daemon: one JSON object a line on stderr, `ts` (ms UTC), `level`, `msg`, then the metadata by key.
///
/// A line is one `write`, so lines of several threads do not mix. A value type without locks; safe on every thread.
package struct LogLines: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level
    package var metadataProvider: Logger.MetadataProvider?
    private let label: String
    private let descriptor: Int32

    /// `descriptor` stays the caller's; 2 is stderr.
    package init(label: String, level: Logger.Level = .info, descriptor: Int32 = 2) {
        self.label = label
        logLevel = level
        self.descriptor = descriptor
    }

    /// A logger for one daemon. Nothing is registered globally.
    package static func logger(_ label: String, level: Logger.Level = .info) -> Logger {
        Logger(label: label) { LogLines(label: $0, level: level) }
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let own = event.metadata { all.merge(own) { $1 } }
        if let error = event.error { all["error"] = "\(error)" }
        let line = Self.line(
            milliseconds: SystemClock.wall().milliseconds, level: event.level, message: event.message.description, label: label,
            metadata: all)
        // A log that cannot be written has no one to be told.
        _ = line.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }

    /// Metadata named like one of the fixed members is left out: a name twice is no JSON for a strict reader.
    package static func line(milliseconds: Int64, level: Logger.Level, message: String, label: String, metadata: Logger.Metadata)
        -> [UInt8]
    {
        var json = JSONWriter(reserving: 256)
        json.beginObject()
        json.field("ts", integer: milliseconds)
        json.field("level", string: level.rawValue)
        json.field("msg", string: message)
        json.field("logger", string: label)
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) where !["ts", "level", "msg", "logger"].contains(key) {
            json.key(data: key)
            write(value, to: &json)
        }
        json.endObject()
        json.newline()
        return json.bytes
    }

    private static func write(_ value: Logger.MetadataValue, to json: inout JSONWriter) {
        switch value {
        case .string(let text): json.string(text)
        case .stringConvertible(let value): json.string(value.description)
        case .array(let values):
            json.beginArray()
            for value in values { write(value, to: &json) }
            json.endArray()
        case .dictionary(let members):
            json.beginObject()
            for (key, value) in members.sorted(by: { $0.key < $1.key }) {
                json.key(data: key)
                write(value, to: &json)
            }
            json.endObject()
        }
    }
}
