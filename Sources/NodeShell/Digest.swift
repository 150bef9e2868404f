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
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: digest[0..<32].flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
