import COpenSSL

/// Makes the fleet's own certificates: ECDSA P-256, SHA-256, X.509 v3.
///
/// Keys leave as PEM text; whoever writes them to a file makes it readable for its owner only.
package enum CertificateAuthority {
    package enum Usage: Sendable { case server, client }

    /// A new authority, which signs leaves only.
    package static func create(commonName: String, days: Int) throws(TLSError) -> (certificatePEM: String, keyPEM: String) {
        ErrorQueue.clear()
        let key = try PrivateKey()
        let certificate = try Certificate(commonName: commonName, days: days, key: key)
        try certificate.add(NID_basic_constraints, "critical,CA:TRUE,pathlen:0", issuer: certificate)
        try certificate.add(NID_key_usage, "critical,keyCertSign,cRLSign", issuer: certificate)
        try certificate.add(NID_subject_key_identifier, "hash", issuer: certificate)
        try certificate.sign(issuer: certificate, key: key)
        return (try certificate.pem(), try key.pem())
    }

    /// A certificate for one node or person. `uri` is its identity (`PeerIdentity`); a server's also names where it is reached. With negative
    /// `days` it has expired already.
    package static func issue(
        uri: String, commonName: String, dnsNames: [String], ipAddresses: [String], usage: Usage, days: Int,
        authorityCertificatePEM: String, authorityKeyPEM: String
    ) throws(TLSError) -> (certificatePEM: String, keyPEM: String) {
        do throws(PeerIdentity.Refusal) { _ = try PeerIdentity(uri: uri.utf8) } catch {
            throw TLSError(.badIdentity, "'\(escaped(uri))' is no identity; it reads spiffe://<domain>/<edge|operator|viewer|hub>/<name>")
        }
        return try issue(
            uncheckedURIs: [uri], commonName: commonName, dnsNames: dnsNames, ipAddresses: ipAddresses, usage: usage, days: days,
            authorityCertificatePEM: authorityCertificatePEM, authorityKeyPEM: authorityKeyPEM)
    }

    /// As `issue`, with any number of URIs that may be none: for tests of who refuses them.
    package static func issue(
        uncheckedURIs uris: [String], commonName: String, dnsNames: [String], ipAddresses: [String], usage: Usage, days: Int,
        authorityCertificatePEM: String, authorityKeyPEM: String
    ) throws(TLSError) -> (certificatePEM: String, keyPEM: String) {
        ErrorQueue.clear()
        let authorityKey = try PrivateKey(pem: authorityKeyPEM)
        let authority = try Certificate(pem: authorityCertificatePEM)
        guard authority.isCertified(by: authorityKey) else {
            throw TLSError(.file, "the authority's key does not belong to its certificate; are the files of one authority")
        }
        let key = try PrivateKey()
        let certificate = try Certificate(commonName: commonName, days: days, key: key)
        try certificate.add(NID_basic_constraints, "critical,CA:FALSE", issuer: authority)
        try certificate.add(NID_key_usage, "critical,digitalSignature", issuer: authority)
        try certificate.add(NID_ext_key_usage, usage == .server ? "serverAuth" : "clientAuth", issuer: authority)
        try certificate.add(NID_subject_key_identifier, "hash", issuer: authority)
        try certificate.add(NID_authority_key_identifier, "keyid:always", issuer: authority)
        try certificate.addNames(uris: uris, dnsNames: dnsNames, ipAddresses: ipAddresses)
        try certificate.sign(issuer: authority, key: authorityKey)
        return (try certificate.pem(), try key.pem())
    }
}

private func failure(_ operation: String) -> TLSError {
    let queue = ErrorQueue.drain()
    return TLSError(.openSSL, "cannot \(operation)", queue: queue.texts)
}

/// Runs `body` on a memory BIO that reads `text`.
private func reading<Value>(_ text: String, _ body: (OpaquePointer) -> Value?) -> Value? {
    let bytes = Array(text.utf8)
    return bytes.withUnsafeBytes { raw in
        guard raw.count > 0, let bio = BIO_new_mem_buf(raw.baseAddress, Int32(raw.count)) else { return nil }
        defer { BIO_free(bio) }
        return body(bio)
    }
}

/// What `body` writes to a memory BIO, as text.
private func writing(_ operation: String, _ body: (OpaquePointer) -> Int32) throws(TLSError) -> String {
    guard let bio = co_new_memory_bio() else { throw failure(operation) }
    defer { BIO_free(bio) }
    guard body(bio) == 1 else { throw failure(operation) }
    var base: UnsafeMutablePointer<CChar>?
    let count = co_bio_bytes(bio, &base)
    return String(decoding: UnsafeRawBufferPointer(start: base, count: count), as: UTF8.self)
}

/// Owns one `EVP_PKEY`.
private final class PrivateKey {
    let pointer: OpaquePointer

    init() throws(TLSError) {
        guard let pointer = co_new_p256_key() else { throw failure("make a P-256 key") }
        self.pointer = pointer
    }

    init(pem: String) throws(TLSError) {
        // The callback answers instead of a passphrase prompt on the terminal.
        guard let pointer = reading(pem, { PEM_read_bio_PrivateKey($0, nil, { _, _, _, _ in -1 }, nil) }) else {
            throw failure("read the authority's key; is it unencrypted PEM")
        }
        self.pointer = pointer
    }

    deinit { EVP_PKEY_free(pointer) }

    func pem() throws(TLSError) -> String {
        try writing("write a key") { PEM_write_bio_PKCS8PrivateKey($0, pointer, nil, nil, 0, nil, nil) }
    }
}

/// Owns one `X509`.
private final class Certificate {
    let pointer: OpaquePointer

    init(pem: String) throws(TLSError) {
        guard let pointer = reading(pem, { PEM_read_bio_X509($0, nil, nil, nil) }) else {
            throw failure("read the authority's certificate; is it PEM")
        }
        self.pointer = pointer
    }

    /// An unsigned one. It is valid from a day ago, for clocks that are behind.
    init(commonName: String, days: Int, key: PrivateKey) throws(TLSError) {
        guard let pointer = X509_new() else { throw failure("make a certificate") }
        self.pointer = pointer
        // The value of version 3 is 2.
        guard X509_set_version(pointer, 2) == 1, X509_set_pubkey(pointer, key.pointer) == 1 else { throw failure("make a certificate") }
        try setSerial()
        guard (-36_500...36_500).contains(days) else {
            throw TLSError(.file, "\(days) days are no lifetime of a certificate; give 1 to 36500")
        }
        guard X509_time_adj_ex(X509_getm_notBefore(pointer), min(0, Int32(days)) - 1, 0, nil) != nil,
            X509_time_adj_ex(X509_getm_notAfter(pointer), Int32(days), 0, nil) != nil
        else { throw failure("date a certificate") }
        let name = Array(commonName.utf8)
        let subject = X509_get_subject_name(pointer)
        guard !name.isEmpty, X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, name, Int32(name.count), -1, 0) == 1 else {
            throw failure("name a certificate '\(escaped(commonName))'; 1 to 64 characters are allowed")
        }
    }

    deinit { X509_free(pointer) }

    /// 127 random bits below a one: 16 octets, positive, never zero.
    private func setSerial() throws(TLSError) {
        var bytes = [UInt8](repeating: 0, count: 16)
        guard RAND_bytes(&bytes, 16) == 1 else { throw failure("draw a serial number") }
        bytes[0] = bytes[0] & 0x7f | 0x40
        guard let number = BN_bin2bn(bytes, 16, nil) else { throw failure("draw a serial number") }
        defer { BN_free(number) }
        guard BN_to_ASN1_INTEGER(number, X509_get_serialNumber(pointer)) != nil else { throw failure("draw a serial number") }
    }

    func isCertified(by key: PrivateKey) -> Bool {
        defer { ErrorQueue.clear() }
        return X509_check_private_key(pointer, key.pointer) == 1
    }

    func add(_ extensionID: Int32, _ value: String, issuer: Certificate) throws(TLSError) {
        guard co_add_extension(pointer, issuer.pointer, extensionID, value) == 1 else { throw failure("add '\(value)' to a certificate") }
    }

    /// The alternative names, built from bytes: no name can smuggle in another through a separator.
    func addNames(uris: [String], dnsNames: [String], ipAddresses: [String]) throws(TLSError) {
        guard let names = GENERAL_NAMES_new() else { throw failure("name a certificate") }
        defer { GENERAL_NAMES_free(names) }
        for (type, texts) in [(GEN_URI, uris), (GEN_DNS, dnsNames)] {
            for text in texts {
                let bytes = Array(text.utf8)
                guard !bytes.isEmpty, bytes.allSatisfy({ $0 < 0x80 }), co_names_add_text(names, type, bytes, Int32(bytes.count)) == 1 else {
                    throw failure("put '\(escaped(text))' into a certificate; names are ASCII")
                }
            }
        }
        for address in ipAddresses {
            guard co_names_add_address(names, address) == 1 else {
                throw failure("put '\(escaped(address))' into a certificate; is it an IPv4 or IPv6 address")
            }
        }
        guard co_names_count(names) > 0 else { return }
        guard X509_add1_ext_i2d(pointer, NID_subject_alt_name, UnsafeMutableRawPointer(names), 0, 0) == 1 else {
            throw failure("name a certificate")
        }
    }

    func sign(issuer: Certificate, key: PrivateKey) throws(TLSError) {
        guard X509_set_issuer_name(pointer, X509_get_subject_name(issuer.pointer)) == 1, X509_sign(pointer, key.pointer, EVP_sha256()) > 0
        else { throw failure("sign a certificate") }
    }

    func pem() throws(TLSError) -> String { try writing("write a certificate") { PEM_write_bio_X509($0, pointer) } }
}
