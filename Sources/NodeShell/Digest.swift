import COpenSSL

/// Digests through the system's libcrypto.
package enum Digest {
    /// SHA-256 as 64 lower-case hex digits.
    package static func sha256(_ bytes: [UInt8]) -> String {
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        let isDone = bytes.withUnsafeBytes { EVP_Digest($0.baseAddress, $0.count, &digest, &count, EVP_sha256(), nil) }
        // It fails only without memory or with a libcrypto that has no SHA-256.
        precondition(isDone == 1 && count == 32, "BUG: libcrypto gives no SHA-256")
        return hex(digest[0..<32])
    }

    fileprivate static func hex(_ bytes: ArraySlice<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

/// SHA-256 of bytes that come one part after the other.
package struct RunningDigest: ~Copyable {
    private let context: OpaquePointer

    package init() {
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            preconditionFailure("BUG: libcrypto gives no SHA-256")
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    package mutating func update(_ bytes: UnsafeRawBufferPointer) {
        precondition(EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1, "BUG: libcrypto takes no bytes")
    }

    /// 64 lower-case hex digits; nothing can follow.
    package mutating func finish() -> String {
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        precondition(EVP_DigestFinal_ex(context, &digest, &count) == 1 && count == 32, "BUG: libcrypto gives no SHA-256")
        return Digest.hex(digest[0..<32])
    }
}
