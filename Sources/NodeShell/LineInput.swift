import CZlib
import CZstd
import Glibc

/// Reads a plain, gzip or zstd file line by line; the content decides which, the name does not.
///
/// Concatenated gzip members and zstd frames are one text. Memory is bounded by one line and one read unit.
/// A truncated or corrupt file first yields every whole line before the damage, then throws; the piece of a line that the
/// damage cut off is not a line. At a proper end of file the last line counts with or without its newline.
package struct LineInput: ~Copyable {
    /// The longest line that is yielded. The longest frame in the reference recordings has 64,067 bytes; 16 MiB is 256 times that
    /// and still a sum one can hold twice in memory.
    package static let lineBytesMax = 16 << 20
    /// One read: large enough that the system call does not matter, small enough for the second-level cache.
    package static let readBytes = 256 << 10

    package let path: String
    /// Lines longer than the limit; each was skipped up to and including its newline.
    package private(set) var oversizedLines = 0

    private let descriptor: Int32
    private let lineBytesLimit: Int
    private let decoder: Decoder
    /// Raw bytes of the file that the decoder has not taken yet. Unused for plain files once the first unit is consumed.
    private let raw: UnsafeMutableRawBufferPointer
    private var rawStart = 0
    private var rawEnd = 0
    private var rawBytesRead = 0
    private var isAtEnd = false
    /// Text that has not been yielded yet: `start..<end`; `scanned` is where the search for a newline goes on.
    private var text: UnsafeMutableRawBufferPointer
    private var start = 0
    private var scanned = 0
    private var end = 0
    private var isSkipping = false
    private var failure: FileError?

    private enum Decoder {
        case plain
        case gzip(GzipDecoder)
        case zstd(ZstdDecoder)
    }

    package init(path: String, lineBytesLimit: Int = LineInput.lineBytesMax) throws(FileError) {
        precondition(lineBytesLimit > 0, "BUG: a line limit of \(lineBytesLimit)")
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw FileError(.open, path, "for reading", errorNumber: errno, remedy: "does it exist and is it readable?")
        }
        let raw = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readBytes, alignment: 16)
        let first: [UInt8]
        let decoder: Decoder
        do throws(FileError) {
            // A pipe may hand out its first bytes one by one.
            var count = 0
            while count < 4 {
                let got = try readSome(descriptor, into: .init(rebasing: raw[count...]), path: path)
                if got == 0 { break }
                count += got
            }
            first = Array(raw[..<count].prefix(4))
            if first.starts(with: [0x1f, 0x8b]) {
                guard let gzip = GzipDecoder() else { throw FileError(.decompress, path, remedy: "is there memory left for zlib?") }
                decoder = .gzip(gzip)
            } else if first == [0x28, 0xb5, 0x2f, 0xfd] {
                guard let zstd = ZstdDecoder() else { throw FileError(.decompress, path, remedy: "is there memory left for zstd?") }
                decoder = .zstd(zstd)
            } else {
                decoder = .plain
            }
            rawEnd = count
            rawBytesRead = count
        } catch {
            raw.deallocate()
            close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
        self.lineBytesLimit = lineBytesLimit
        self.decoder = decoder
        self.raw = raw
        self.text = .allocate(byteCount: 2 * Self.readBytes, alignment: 16)
    }

    deinit {
        raw.deallocate()
        text.deallocate()
        close(descriptor)
    }

    /// The next line without its newline, nil at the end of the file. The bytes are valid until the next call.
    package mutating func next() throws(FileError) -> UnsafeRawBufferPointer? {
        while true {
            if scanned < end, let found = memchr(text.baseAddress! + scanned, 0x0a, end - scanned) {
                let newline = UnsafeRawPointer(found) - UnsafeRawPointer(text.baseAddress!)
                let line = start..<newline
                start = newline + 1
                scanned = start
                if isSkipping {
                    isSkipping = false
                } else if line.count > lineBytesLimit {
                    oversizedLines += 1
                } else {
                    return UnsafeRawBufferPointer(rebasing: text[line])
                }
                continue
            }
            scanned = end
            if !isSkipping, end - start > lineBytesLimit {
                isSkipping = true
                oversizedLines += 1
            }
            if isSkipping { start = end }
            if try fill() { continue }
            let last = start..<end
            start = end
            return isSkipping || last.isEmpty ? nil : UnsafeRawBufferPointer(rebasing: text[last])
        }
    }

    /// Adds text behind `end`; false at the end of the file. Damage is remembered and thrown once the text before it is used up.
    private mutating func fill() throws(FileError) -> Bool {
        if let failure { throw failure }
        makeRoom()
        let room = UnsafeMutableRawBufferPointer(rebasing: text[end...])
        do throws(FileError) {
            while true {
                if rawStart == rawEnd, !isAtEnd {
                    rawStart = 0
                    rawEnd = try readSome(descriptor, into: raw, path: path)
                    rawBytesRead += rawEnd
                    isAtEnd = rawEnd == 0
                }
                let input = UnsafeRawBufferPointer(rebasing: raw[rawStart..<rawEnd])
                let step: DecoderStep
                switch decoder {
                case .plain:
                    let count = min(input.count, room.count)
                    room.copyMemory(from: .init(rebasing: input[..<count]))
                    step = DecoderStep(consumed: count, produced: count, state: .betweenFrames)
                case .gzip(let gzip): step = gzip.step(from: input, into: room)
                case .zstd(let zstd): step = zstd.step(from: input, into: room)
                }
                rawStart += step.consumed
                end += step.produced
                switch step.state {
                case .corrupt:
                    throw FileError(
                        .decompress, path, "at byte \(rawBytesRead - (rawEnd - rawStart))",
                        remedy: "the compressed data is corrupt there: copy the file again, or use the lines before it")
                case .insideFrame where isAtEnd && step.produced == 0:
                    throw FileError(
                        .decompress, path, "beyond byte \(rawBytesRead)",
                        remedy: "the compressed data is truncated: copy the file again, or use the lines before it")
                case .insideFrame, .betweenFrames: break
                }
                if step.produced > 0 { return true }
                if isAtEnd { return false }
            }
        } catch {
            failure = error
            if end > scanned { return true }
            throw error
        }
    }

    /// Moves the unfinished line to the front, and doubles the buffer when that line alone fills more than half of it.
    private mutating func makeRoom() {
        let unfinished = end - start
        guard text.count - end < Self.readBytes else { return }
        if unfinished > text.count / 2 {
            let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * text.count, alignment: 16)
            larger.copyMemory(from: .init(rebasing: text[start..<end]))
            text.deallocate()
            text = larger
        } else if unfinished > 0 {
            memmove(text.baseAddress!, text.baseAddress! + start, unfinished)
        }
        scanned -= start
        end = unfinished
        start = 0
    }
}

/// Reads once, again when a signal interrupts; 0 at the end of the file.
private func readSome(_ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer, path: String) throws(FileError) -> Int {
    while true {
        let count = read(descriptor, buffer.baseAddress, buffer.count)
        if count >= 0 { return count }
        if errno != EINTR { throw FileError(.read, path, errorNumber: errno, remedy: "is it a file, and is the disk healthy?") }
    }
}

/// What one call of a decompressor did.
private struct DecoderStep {
    enum State { case betweenFrames, insideFrame, corrupt }
    var consumed: Int
    var produced: Int
    var state: State
}

/// Owns one zlib stream. A class because zlib remembers the stream's address and because it is freed exactly once.
private final class GzipDecoder {
    private let stream: UnsafeMutablePointer<z_stream>
    private var isBetweenMembers = true

    init?() {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard cz_inflate_init_gzip(stream) == Z_OK else {
            stream.deallocate()
            return nil
        }
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    func step(from input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> DecoderStep {
        if input.isEmpty, isBetweenMembers { return DecoderStep(consumed: 0, produced: 0, state: .betweenFrames) }
        isBetweenMembers = false
        // zlib does not write through next_in; its header merely lacks the const.
        stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.pointee.avail_in = UInt32(input.count)
        stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
        stream.pointee.avail_out = UInt32(output.count)
        let result = inflate(stream, Z_NO_FLUSH)
        let consumed = input.count - Int(stream.pointee.avail_in)
        let produced = output.count - Int(stream.pointee.avail_out)
        switch result {
        case Z_STREAM_END:
            isBetweenMembers = true
            let isReset = inflateReset(stream) == Z_OK
            return DecoderStep(consumed: consumed, produced: produced, state: isReset ? .betweenFrames : .corrupt)
        case Z_OK, Z_BUF_ERROR:  // Z_BUF_ERROR only says that no progress was possible with this input.
            return DecoderStep(consumed: consumed, produced: produced, state: .insideFrame)
        default:
            return DecoderStep(consumed: consumed, produced: produced, state: .corrupt)
        }
    }
}

/// Owns one zstd decompression context.
private final class ZstdDecoder {
    private let context: OpaquePointer
    private var isBetweenFrames = true

    init?() {
        guard let context = ZSTD_createDCtx() else { return nil }
        self.context = context
    }

    deinit { ZSTD_freeDCtx(context) }

    func step(from input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> DecoderStep {
        if input.isEmpty, isBetweenFrames { return DecoderStep(consumed: 0, produced: 0, state: .betweenFrames) }
        var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
        var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
        let result = ZSTD_decompressStream(context, &target, &source)
        guard ZSTD_isError(result) == 0 else { return DecoderStep(consumed: source.pos, produced: target.pos, state: .corrupt) }
        isBetweenFrames = result == 0
        return DecoderStep(consumed: source.pos, produced: target.pos, state: isBetweenFrames ? .betweenFrames : .insideFrame)
    }
}
