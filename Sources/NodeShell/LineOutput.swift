import CZlib
import CZstd
import Glibc

/// Writes a text file: gzip when the name ends in `.gz`, zstd when it ends in `.zst`, else plain. Same text, same bytes.
///
/// The bytes go to `<path>.partial`, which takes its name in `finish`: a file that exists under its own name is whole. Dropped
/// before `finish`, the partial file is removed. A path that is not a regular file (a pipe, `/dev/null`) is written in place.
package struct LineOutput: ~Copyable {
    /// Text gathered before it is compressed or written.
    package static let writeBytes = 256 << 10

    package let path: String
    private let partialPath: String
    private let descriptor: Int32
    private let encoder: Encoder
    private var pending: [UInt8] = []
    private var packed: [UInt8]
    private var isFinished = false

    private enum Encoder {
        case plain
        case gzip(GzipEncoder)
        case zstd(ZstdEncoder)
    }

    package init(path: String) throws(FileError) {
        var status = stat()
        let isSpecial = stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
        let partialPath = isSpecial ? path : path + ".partial"
        let encoder: Encoder
        if path.hasSuffix(".gz") {
            guard let gzip = GzipEncoder() else { throw FileError(.compress, path, remedy: "is there memory left for zlib?") }
            encoder = .gzip(gzip)
        } else if path.hasSuffix(".zst") {
            guard let zstd = ZstdEncoder() else { throw FileError(.compress, path, remedy: "is there memory left for zstd?") }
            encoder = .zstd(zstd)
        } else {
            encoder = .plain
        }
        let descriptor = open(partialPath, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw FileError(.create, partialPath, errorNumber: errno, remedy: "does the directory exist and is it writable?")
        }
        self.path = path
        self.partialPath = partialPath
        self.descriptor = descriptor
        self.encoder = encoder
        self.pending.reserveCapacity(2 * Self.writeBytes)
        self.packed = []
    }

    deinit {
        close(descriptor)
        if !isFinished, partialPath != path { unlink(partialPath) }
    }

    /// Appends whole lines, newlines included.
    package mutating func append(_ lines: UnsafeRawBufferPointer) throws(FileError) {
        pending.append(contentsOf: lines)
        if pending.count >= Self.writeBytes { try drain(isLast: false) }
    }

    package mutating func append(_ lines: [UInt8]) throws(FileError) {
        pending.append(contentsOf: lines)
        if pending.count >= Self.writeBytes { try drain(isLast: false) }
    }

    /// Ends the compressed stream, syncs, and gives the file its name.
    package mutating func finish() throws(FileError) {
        precondition(!isFinished, "BUG: '\(path)' is finished already")
        try drain(isLast: true)
        if partialPath != path {
            guard fdatasync(descriptor) == 0 else {
                throw FileError(.sync, partialPath, errorNumber: errno, remedy: "is the disk full or failing?")
            }
            guard rename(partialPath, path) == 0 else {
                throw FileError(.rename, partialPath, "to '\(path)'", errorNumber: errno, remedy: "is the directory writable?")
            }
        }
        isFinished = true
    }

    private mutating func drain(isLast: Bool) throws(FileError) {
        defer { pending.removeAll(keepingCapacity: true) }
        packed.removeAll(keepingCapacity: true)
        let isPacked: Bool
        switch encoder {
        case .plain: return try write(pending)
        case .gzip(let gzip): isPacked = gzip.pack(pending, isLast: isLast, into: &packed)
        case .zstd(let zstd): isPacked = zstd.pack(pending, isLast: isLast, into: &packed)
        }
        guard isPacked else { throw FileError(.compress, path, remedy: "is there memory left?") }
        try write(packed)
    }

    private func write(_ bytes: [UInt8]) throws(FileError) {
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + offset, $0.count - offset) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw FileError(.write, partialPath, errorNumber: errno, remedy: "is the disk full?") }
            offset += count
        }
    }
}

/// The unit in which a compressor hands out its result.
private let packUnitBytes = 64 << 10

/// Owns one zlib stream. The gzip header zlib writes by itself carries no time and no name, so equal text gives equal bytes.
private final class GzipEncoder {
    private let stream: UnsafeMutablePointer<z_stream>

    init?() {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard cz_deflate_init_gzip(stream, 6) == Z_OK else {
            stream.deallocate()
            return nil
        }
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
    }

    func pack(_ text: [UInt8], isLast: Bool, into packed: inout [UInt8]) -> Bool {
        text.withUnsafeBufferPointer { input in
            // zlib does not write through next_in; its header merely lacks the const.
            stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
            stream.pointee.avail_in = UInt32(input.count)
            return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: packUnitBytes) { output in
                while true {
                    stream.pointee.next_out = output.baseAddress
                    stream.pointee.avail_out = UInt32(output.count)
                    let result = deflate(stream, isLast ? Z_FINISH : Z_NO_FLUSH)
                    packed.append(contentsOf: output[..<(output.count - Int(stream.pointee.avail_out))])
                    switch result {
                    case Z_STREAM_END: return true
                    case Z_OK, Z_BUF_ERROR: if !isLast, stream.pointee.avail_out > 0 { return true }
                    default: return false
                    }
                }
            }
        }
    }
}

/// Owns one zstd compression context: level 3, with a checksum, so that damage is found on reading.
private final class ZstdEncoder {
    private let context: OpaquePointer

    init?() {
        guard let context = ZSTD_createCCtx() else { return nil }
        self.context = context
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 3)
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
    }

    deinit { ZSTD_freeCCtx(context) }

    func pack(_ text: [UInt8], isLast: Bool, into packed: inout [UInt8]) -> Bool {
        text.withUnsafeBytes { input in
            var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
            return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: packUnitBytes) { output in
                while true {
                    var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
                    let rest = ZSTD_compressStream2(context, &target, &source, isLast ? ZSTD_e_end : ZSTD_e_continue)
                    guard ZSTD_isError(rest) == 0 else { return false }
                    packed.append(contentsOf: output[..<target.pos])
                    if isLast ? rest == 0 : source.pos == source.size { return true }
                }
            }
        }
    }
}
