import CZlib

/// A whole body, compressed for one answer.
package enum Gzip {
    /// What an `Accept-Encoding` header says: gzip is named with a weight above 0.
    static func isAccepted(_ header: String) -> Bool {
        header.split(separator: ",").contains { range in
            let words = range.split(separator: ";").map { $0.filter { $0 != " " }.lowercased() }
            return words.first == "gzip" && !words.contains { $0.hasPrefix("q=0") && !$0.contains { ("1"..."9").contains($0) } }
        }
    }

    /// Nil when zlib has no memory. Fast rather than small: metrics shrink to a tenth at the lowest level already.
    package static func compress(_ bytes: [UInt8]) -> [UInt8]? {
        var stream = z_stream()
        guard cz_deflate_init_gzip(&stream, 1) == Z_OK else { return nil }
        defer { deflateEnd(&stream) }
        let capacity = Int(deflateBound(&stream, UInt(bytes.count)))
        var input = bytes
        let compressed = [UInt8](unsafeUninitializedCapacity: capacity) { output, count in
            input.withUnsafeMutableBufferPointer { input in
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(capacity)
                // `deflateBound` says that one call is enough.
                if deflate(&stream, Z_FINISH) == Z_STREAM_END { count = Int(stream.total_out) }
            }
        }
        return compressed.isEmpty ? nil : compressed
    }
}
