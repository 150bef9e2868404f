import COpenSSL

/// Why a TLS operation or connection failed, in one line a person can act on.
package struct TLSError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// A certificate, key or authority file, or what is in it.
        case file
        /// The peer showed no certificate, or one that was refused here.
        case noCertificate, unknownAuthority, expired, notYetValid, wrongName, wrongPurpose, badIdentity, badCertificate
        /// The peer speaks an older TLS, or no TLS at all.
        case tooOld, notTLS
        /// The peer refused us with this TLS alert.
        case alert(UInt8)
        case closedEarly, deadline, flood
        /// Anything else the library said.
        case openSSL
    }

    package var kind: Kind
    /// For a log: one line without control characters.
    package var message: String
    /// The library's own words, oldest first.
    package var queue: [String]

    package init(_ kind: Kind, _ message: String, queue: [String] = []) {
        self.kind = kind
        self.message = message
        self.queue = queue
    }

    package var description: String { message }
}

/// What libssl and libcrypto noted on this thread since the queue was last cleared.
///
/// The queue is one per thread and shared by all connections on it: an entry left behind makes the next call of another connection look
/// failed. So every call clears it before and drains it after, on the same thread and with nothing in between.
struct ErrorQueue: Equatable {
    struct Entry: Equatable {
        /// 0 unless it comes from libssl.
        var sslReason: Int32
        var text: String
    }

    var entries: [Entry]

    static func clear() { ERR_clear_error() }

    static func drain() -> ErrorQueue {
        var entries: [Entry] = []
        while true {
            let code = ERR_get_error()
            guard code != 0 else { return ErrorQueue(entries: entries) }
            var text = [CChar](repeating: 0, count: 256)
            ERR_error_string_n(code, &text, text.count)
            entries.append(
                Entry(
                    sslReason: co_error_is_ssl(code) == 1 ? co_error_reason(code) : 0,
                    text: String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)))
        }
    }

    var texts: [String] { entries.map(\.text) }

    func contains(_ reason: Int32) -> Bool { entries.contains { $0.sslReason == reason } }

    /// The number of the alert the peer sent.
    var alert: UInt8? {
        for entry in entries {
            let number = entry.sslReason - SSL_AD_REASON_OFFSET
            if number >= 0, number <= 255, entry.sslReason != 0 { return UInt8(number) }
        }
        return nil
    }
}
