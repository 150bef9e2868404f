import COpenSSL
import Glibc
import Synchronization
package import Wire

/// Paths of a node's certificate, its key and the authority both ends trust, in PEM.
package struct TLSFiles: Sendable {
    package var certificate: String
    package var key: String
    package var authority: String
    package init(certificate: String, key: String, authority: String) {
        self.certificate = certificate
        self.key = key
        self.authority = authority
    }
}

/// One side's certificate, trust and rules, from which connections are made. Never changed after `init`: new files make a new context, and
/// connections keep the one they began with.
///
/// Owns one `SSL_CTX`. `@unchecked Sendable`: nothing writes to it after `init` but libssl's own, locked reference count.
package final class TLSContext: @unchecked Sendable {
    package enum Kind: Sendable { case server, client, venue }

    package let kind: Kind
    /// Our own; nil for a venue.
    package private(set) var certificate: Certificate?
    private let pointer: OpaquePointer
    private let truncated = Atomic<Int>(0)

    /// The hub's side: TLS 1.3 only, the client must show a certificate of `files.authority` with one identity of an edge, operator or viewer.
    package static func server(_ files: TLSFiles) throws(TLSError) -> TLSContext { try TLSContext(.server, files) }

    /// Our link's client side: TLS 1.3 only, the server must be a hub of `files.authority`.
    package static func client(_ files: TLSFiles) throws(TLSError) -> TLSContext { try TLSContext(.client, files) }

    /// A client of somebody else's server: the system's trust store, no certificate of our own, TLS 1.2 or later.
    package static func venue() throws(TLSError) -> TLSContext { try TLSContext(.venue, nil) }

    /// A venue whose certificate an authority of ours has signed: a venue in a laboratory.
    package static func venue(authority path: String) throws(TLSError) -> TLSContext { try TLSContext(.venue, nil, authority: path) }

    /// Connections that ended without TLS's own goodbye, since the beginning. The link's framing makes that harmless; a rise hints at a middlebox.
    package var truncatedCount: Int { truncated.load(ordering: .relaxed) }
    func countTruncated() { truncated.wrappingAdd(1, ordering: .relaxed) }

    private init(_ kind: Kind, _ files: TLSFiles?, authority: String? = nil) throws(TLSError) {
        self.kind = kind
        ErrorQueue.clear()
        guard let pointer = SSL_CTX_new(kind == .server ? TLS_server_method() : TLS_client_method()) else {
            throw TLSError(.openSSL, "cannot set up TLS; is there memory", queue: ErrorQueue.drain().texts)
        }
        self.pointer = pointer
        co_ctx_set_defaults(pointer)
        // A headless program must not ask the terminal for a passphrase.
        SSL_CTX_set_default_passwd_cb(pointer) { _, _, _, _ in -1 }
        SSL_CTX_set_msg_callback(pointer, watchMessage)
        let isVersionSet = co_ctx_set_min_version(pointer, kind == .venue ? TLS1_2_VERSION : TLS1_3_VERSION)
        guard isVersionSet == 1 else { throw Self.failure("cannot set up TLS 1.3; does libssl have it") }
        if let files {
            guard SSL_CTX_use_certificate_chain_file(pointer, files.certificate) == 1 else {
                throw Self.failure("cannot use certificate '\(files.certificate)'; is it there, readable and PEM")
            }
            guard SSL_CTX_use_PrivateKey_file(pointer, files.key, SSL_FILETYPE_PEM) == 1, SSL_CTX_check_private_key(pointer) == 1 else {
                throw Self.failure("cannot use key '\(files.key)'; is it readable, unencrypted and the key of '\(files.certificate)'")
            }
        }
        if let path = files?.authority ?? authority {
            guard SSL_CTX_load_verify_file(pointer, path) == 1 else {
                throw Self.failure("cannot use authority '\(path)'; is it there, readable and PEM")
            }
        } else {
            guard SSL_CTX_set_default_verify_paths(pointer) == 1 else {
                throw Self.failure("cannot read the system's trusted authorities; is ca-certificates installed")
            }
        }
        switch kind {
        case .server: SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verifyClientIdentity)
        case .client: SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, verifyHubIdentity)
        case .venue: SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, nil)
        }
        certificate = SSL_CTX_get0_certificate(pointer).flatMap(Certificate.init)
        ErrorQueue.clear()
    }

    deinit { SSL_CTX_free(pointer) }

    private static func failure(_ message: String) -> TLSError { TLSError(.file, message, queue: ErrorQueue.drain().texts) }

    /// A new connection's state. `serverName` is what the server's certificate must name; nil checks no name.
    func makeSession(isServer: Bool, serverName: String?) throws(TLSError) -> TLSSession {
        ErrorQueue.clear()
        guard let ssl = SSL_new(pointer) else {
            throw TLSError(.openSSL, "cannot set up a TLS connection; is there memory", queue: ErrorQueue.drain().texts)
        }
        let session = TLSSession(taking: ssl)
        guard let output = co_new_memory_bio(), session.attach(output: output) else {
            throw TLSError(.openSSL, "cannot set up a TLS connection; is there memory", queue: ErrorQueue.drain().texts)
        }
        if isServer {
            SSL_set_accept_state(ssl)
        } else {
            SSL_set_connect_state(ssl)
            if let serverName { try session.require(serverName) }
        }
        return session
    }
}

extension TLSContext {
    /// What a certificate says that somebody must watch.
    package struct Certificate: Sendable, Equatable {
        package var commonName: String
        /// Seconds since 1970 from which on nobody accepts it.
        package var expiresSeconds: Int64

        fileprivate init?(_ certificate: OpaquePointer) {
            var time = tm()
            guard ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time) == 1, let subject = X509_get_subject_name(certificate) else {
                return nil
            }
            expiresSeconds = Int64(timegm(&time))
            // 64 characters of at most four bytes, and the zero.
            var name = [CChar](repeating: 0, count: 257)
            let length = X509_NAME_get_text_by_NID(subject, NID_commonName, &name, Int32(name.count))
            commonName = String(decoding: name.prefix(max(0, Int(length))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    /// Of our own certificate; no sample without one.
    package var certificateMetrics: MetricFamily {
        MetricFamily(
            "mm_tls_certificate_expiry_timestamp_seconds", .gauge, help: "When this program's certificate runs out, by its common name.",
            unit: "seconds",
            samples: certificate.map { [MetricSample(.integer($0.expiresSeconds), labels: [("cn", $0.commonName)])] } ?? [])
    }
}

/// What libssl's callbacks note about one connection.
struct SessionWatch {
    var isHandshakeDone = false
    /// Handshake messages received behind the handshake since it was last reset.
    var postHandshakeMessages = 0
    /// Records sent under the present key.
    var recordsSent = 0
    /// `PeerIdentity.Refusal`, or 0.
    var refusal: UInt8 = 0
}

/// What one call of libssl came to.
enum TLSResult<Value> {
    /// More bytes from the peer are needed.
    case incomplete
    case complete(Value)
    /// The peer has said goodbye.
    case ended
    /// The connection is lost. The bytes to send may still hold an alert.
    case failed(ErrorQueue)
}

/// How libssl reads what a channel has received; never freed.
private let spanMethod = SpanMethod(pointer: co_new_span_method())
private struct SpanMethod: @unchecked Sendable { let pointer: OpaquePointer? }

/// One connection's `SSL`, and the two BIOs between it and the channel: received bytes where they lie, and a memory BIO of bytes to send. Used by
/// its channel's event loop only.
final class TLSSession {
    private let ssl: OpaquePointer
    // Owned by `ssl` once attached.
    private var output: OpaquePointer?
    // What is left of the bytes being fed; the input BIO reads here. Freed after `ssl`.
    private let span: UnsafeMutablePointer<co_span>
    // libssl's callbacks write here during calls of ours; freed after `ssl`.
    private let watch: UnsafeMutablePointer<SessionWatch>

    fileprivate init(taking ssl: OpaquePointer) {
        self.ssl = ssl
        watch = .allocate(capacity: 1)
        watch.initialize(to: SessionWatch())
        span = .allocate(capacity: 1)
        span.initialize(to: co_span())
        co_set_watch(ssl, watch)
    }

    deinit {
        SSL_free(ssl)
        ErrorQueue.clear()
        watch.deallocate()
        span.deallocate()
    }

    /// Takes `output` in any case; false without memory.
    fileprivate func attach(output: OpaquePointer) -> Bool {
        guard let input = spanMethod.pointer.flatMap({ co_new_span_bio($0, span) }) else {
            BIO_free(output)
            return false
        }
        self.output = output
        SSL_set_bio(ssl, input, output)
        return true
    }

    /// The server's certificate must be for this name or address. A name is also told to the server; an address never is (RFC 6066).
    fileprivate func require(_ serverName: String) throws(TLSError) {
        guard !serverName.isEmpty, !serverName.utf8.contains(0) else { throw TLSError(.wrongName, "'' is no server name") }
        if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), serverName) == 1 { return }
        ErrorQueue.clear()
        SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
        guard SSL_set1_host(ssl, serverName) == 1, co_set_server_name(ssl, serverName) == 1 else {
            throw TLSError(.wrongName, "'\(escaped(serverName))' is no server name", queue: ErrorQueue.drain().texts)
        }
    }

    private func call<Value>(_ value: @autoclosure () -> Value, _ body: () -> Int32) -> TLSResult<Value> {
        ErrorQueue.clear()
        let code = body()
        if code == 1 { return .complete(value()) }
        let reason = SSL_get_error(ssl, code)
        let queue = ErrorQueue.drain()
        switch reason {
        // The output grows as needed, so libssl never waits to write.
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return .incomplete
        case SSL_ERROR_ZERO_RETURN: return .ended
        default: return .failed(queue)
        }
    }

    // MARK: Bytes

    /// Calls `body`, in which libssl finds these bytes of ciphertext. It takes them all, unless the connection is lost: `read` and `handshake` are
    /// repeated until they are `incomplete`, and whoever stops earlier never comes back for the rest.
    func feed(_ bytes: UnsafeRawBufferPointer, _ body: () -> Void) {
        // `body` may let the session go, and its memory with it: it lives until nothing is written there any more.
        withExtendedLifetime(self) {
            span.pointee = co_span(bytes: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), count: bytes.count)
            body()
            span.pointee = co_span()
        }
    }

    /// Bytes of ciphertext to be sent.
    var outputBytes: Int { BIO_ctrl_pending(output) }

    /// Takes ciphertext to be sent; `bytes` has room for all of it. (To reset the BIO instead would write zeros over all it ever held.)
    func takeOutput(into bytes: UnsafeMutableRawBufferPointer) -> Int {
        Int(max(0, BIO_read(output, bytes.baseAddress, Int32(bytes.count))))
    }

    // MARK: Calls

    func handshake() -> TLSResult<Void> {
        let result = call(()) { SSL_do_handshake(ssl) }
        if case .complete = result { watch.pointee.isHandshakeDone = true }
        return result
    }

    /// Up to `bytes.count` bytes of plaintext.
    func read(into bytes: UnsafeMutableRawBufferPointer) -> TLSResult<Int> {
        var count = 0
        return call(count) { SSL_read_ex(ssl, bytes.baseAddress, bytes.count, &count) }
    }

    /// Encrypts one record's worth and returns how much of `bytes` that was. `bytes` is not empty.
    func write(_ bytes: UnsafeRawBufferPointer) -> TLSResult<Int> {
        var count = 0
        return call(count) { SSL_write_ex(ssl, bytes.baseAddress, bytes.count, &count) }
    }

    /// Says goodbye. Never after a failure.
    func sendCloseNotify() {
        ErrorQueue.clear()
        SSL_shutdown(ssl)
        ErrorQueue.clear()
    }

    /// Once `records` records are sent, the next write goes out under a new key. TLS 1.2 has no such thing.
    func renewKey(after records: Int) {
        guard watch.pointee.recordsSent >= records, SSL_version(ssl) == TLS1_3_VERSION else { return }
        watch.pointee.recordsSent = 0
        ErrorQueue.clear()
        SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED)
        ErrorQueue.clear()
    }

    // MARK: What it knows

    /// Handshake messages behind the handshake, since the last reset.
    var postHandshakeMessages: Int { watch.pointee.postHandshakeMessages }
    func resetPostHandshakeMessages() { watch.pointee.postHandshakeMessages = 0 }

    /// Nil before the handshake is done, and when the peer has none.
    var peerIdentity: PeerIdentity? {
        guard let certificate = SSL_get1_peer_certificate(ssl) else { return nil }
        defer { X509_free(certificate) }
        return try? identity(of: certificate)
    }

    /// What went wrong, for people. `isServer` and `peer` ("client", "hub", "server") choose the words.
    func explain(_ queue: ErrorQueue, isServer: Bool, peer: String, serverName: String?) -> TLSError {
        let texts = queue.texts
        if queue.contains(SSL_R_CERTIFICATE_VERIFY_FAILED) {
            return certificateError(subject: isServer ? "" : "the \(peer)'s ", peer: peer, serverName: serverName, texts: texts)
        }
        if let alert = queue.alert { return alertError(alert, isServer: isServer, peer: peer, texts: texts) }
        if queue.contains(SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
            return TLSError(.noCertificate, "\(peer) sent no certificate", queue: texts)
        }
        if queue.contains(SSL_R_UNSUPPORTED_PROTOCOL) || queue.contains(SSL_R_NO_PROTOCOLS_AVAILABLE) {
            return TLSError(.tooOld, "protocol version too old (\(offeredVersion(isServer: isServer)))", queue: texts)
        }
        let foreign = [SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST, SSL_R_WRONG_VERSION_NUMBER, SSL_R_PACKET_LENGTH_TOO_LONG]
        if foreign.contains(where: queue.contains) { return TLSError(.notTLS, "\(peer) does not speak TLS", queue: texts) }
        return TLSError(.openSSL, "TLS failed: \(escaped(texts.first ?? "no reason given"))", queue: texts)
    }

    /// A client's hello says what it can do; a server answered with what it chose.
    private func offeredVersion(isServer: Bool) -> String {
        let version = isServer ? SSL_client_version(ssl) : SSL_version(ssl)
        return switch version {
        case SSL3_VERSION: "SSL 3.0"
        case TLS1_VERSION: "TLS 1.0"
        case TLS1_1_VERSION: "TLS 1.1"
        default: "TLS 1.2"
        }
    }

    private func certificateError(subject: String, peer: String, serverName: String?, texts: [String]) -> TLSError {
        let code = Int32(truncatingIfNeeded: SSL_get_verify_result(ssl))
        switch code {
        case X509_V_ERR_CERT_HAS_EXPIRED: return TLSError(.expired, "\(subject)certificate expired", queue: texts)
        case X509_V_ERR_CERT_NOT_YET_VALID:
            return TLSError(.notYetValid, "\(subject)certificate is not valid yet; are the clocks right", queue: texts)
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
            X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE,
            X509_V_ERR_CERT_UNTRUSTED, X509_V_ERR_INVALID_CA:
            let authority = peer == "server" ? "an authority of this system" : "our authority"
            return TLSError(.unknownAuthority, "\(subject)certificate is not signed by \(authority)", queue: texts)
        case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH:
            return TLSError(.wrongName, "\(subject)certificate is not for '\(escaped(serverName ?? ""))'", queue: texts)
        case X509_V_ERR_INVALID_PURPOSE:
            return TLSError(.wrongPurpose, "\(subject)certificate is not meant for a \(peer)", queue: texts)
        case X509_V_ERR_CERT_REJECTED:
            let refusal = PeerIdentity.Refusal(rawValue: watch.pointee.refusal)
            guard let refusal else { break }
            // The sentence begins with "certificate", which the subject precedes.
            return TLSError(.badIdentity, subject + refusal.sentence, queue: texts)
        default: break
        }
        let reason = X509_verify_cert_error_string(Int(code)).map { String(cString: $0) } ?? "unknown"
        return TLSError(.badCertificate, "\(subject)certificate refused: \(escaped(reason))", queue: texts)
    }

    private func alertError(_ alert: UInt8, isServer: Bool, peer: String, texts: [String]) -> TLSError {
        let message =
            switch Int32(alert) {
            case SSL_AD_CERTIFICATE_EXPIRED: "\(peer) refused our certificate: certificate expired"
            case SSL_AD_UNKNOWN_CA: "\(peer) refused our certificate: it is not signed by its authority"
            case SSL_AD_CERTIFICATE_REVOKED: "\(peer) refused our certificate: certificate revoked"
            // A wrong name and a wrong identity go by the same alert.
            case SSL_AD_BAD_CERTIFICATE where isServer: "\(peer) refused our certificate: not for the name it asked for, or no hub's"
            case SSL_AD_BAD_CERTIFICATE: "\(peer) refused our certificate: no valid identity in it, or not valid yet by its clock"
            case SSL_AD_UNSUPPORTED_CERTIFICATE: "\(peer) refused our certificate: it is meant for another purpose"
            case SSL_AD_CERTIFICATE_UNKNOWN, SSL_AD_ACCESS_DENIED: "\(peer) refused our certificate"
            case Int32(SSL_AD_CERTIFICATE_REQUIRED): "\(peer) wants a certificate and we sent none"
            case SSL_AD_PROTOCOL_VERSION: "\(peer) refused our protocol version"
            default:
                "\(peer) ended TLS with alert \(alert) (\(SSL_alert_desc_string_long(Int32(alert)).map { String(cString: $0) } ?? "unknown"))"
            }
        return TLSError(.alert(alert), message, queue: texts)
    }
}

/// Foreign text for one log line: control characters become `?`, at most 200 characters.
func escaped(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.prefix(200).map { $0.properties.generalCategory == .control ? "?" : $0 }))
}

// MARK: - Callbacks

/// libssl calls this for every record header and message; `argument` is the connection's watch.
private let watchMessage: @convention(c) (Int32, Int32, Int32, UnsafeRawPointer?, Int, OpaquePointer?, UnsafeMutableRawPointer?) -> Void = {
    isWriting, _, type, _, _, _, argument in
    guard let watch = argument?.assumingMemoryBound(to: SessionWatch.self) else { return }
    if isWriting == 1, type == SSL3_RT_HEADER { watch.pointee.recordsSent += 1 }
    if isWriting == 0, type == SSL3_RT_HANDSHAKE, watch.pointee.isHandshakeDone { watch.pointee.postHandshakeMessages += 1 }
}

/// Judges the leaf once libssl is content with it, within the handshake: the peer hears of a refusal by alert and never reads a byte of ours.
private func verifyIdentity(isFineSoFar: Int32, store: OpaquePointer?, roles: [PeerIdentity.Role]) -> Int32 {
    guard isFineSoFar == 1, X509_STORE_CTX_get_error_depth(store) == 0 else { return isFineSoFar }
    guard let certificate = X509_STORE_CTX_get_current_cert(store) else { return 0 }
    let refusal: PeerIdentity.Refusal
    do throws(PeerIdentity.Refusal) {
        if roles.contains(try identity(of: certificate).role) { return 1 }
        refusal = .wrongRole
    } catch { refusal = error }
    let ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx())
    if let ssl, let watch = co_get_watch(OpaquePointer(ssl))?.assumingMemoryBound(to: SessionWatch.self) {
        watch.pointee.refusal = refusal.rawValue
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED)
    return 0
}

private let verifyClientIdentity: @convention(c) (Int32, OpaquePointer?) -> Int32 = {
    verifyIdentity(isFineSoFar: $0, store: $1, roles: [.edge, .operator, .viewer])
}
private let verifyHubIdentity: @convention(c) (Int32, OpaquePointer?) -> Int32 = {
    verifyIdentity(isFineSoFar: $0, store: $1, roles: [.hub])
}

/// The identity in a certificate's alternative names: bytes with their length, so a NUL inside ends nothing.
private func identity(of certificate: OpaquePointer) throws(PeerIdentity.Refusal) -> PeerIdentity {
    // Nil also when the extension is there twice or damaged.
    guard let extensionValue = X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else {
        ErrorQueue.clear()
        throw .noURI
    }
    let names = OpaquePointer(extensionValue)
    defer { GENERAL_NAMES_free(names) }
    var found: [UInt8]?
    for index in 0..<co_names_count(names) {
        guard let name = co_names_get(names, index), co_name_is_uri(name) == 1 else { continue }
        guard found == nil else { throw .severalURIs }
        let text = co_name_uri(name)
        found = Array(UnsafeBufferPointer(start: ASN1_STRING_get0_data(text), count: Int(ASN1_STRING_length(text))))
    }
    guard let found else { throw .noURI }
    return try PeerIdentity(uri: found)
}
