import COpenSSL
import Glibc

/// Why a load cannot be put on a server.
struct LoadError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
    init(_ what: String, errorNumber: Int32) { description = "\(what): \(String(cString: strerror(errorNumber)))" }
}

/// A client's certificate and the authority it trusts, for many connections: TLS 1.3 alone, as an edge's.
final class LoadCertificate {
    fileprivate let context: OpaquePointer

    /// `folder` holds cert.pem, key.pem and ca.pem, as `calib-hub init` writes them.
    init(folder: String) throws(LoadError) {
        guard let context = SSL_CTX_new(TLS_client_method()) else { throw LoadError("no memory for TLS") }
        self.context = context
        co_ctx_set_defaults(context)
        guard co_ctx_set_min_version(context, TLS1_3_VERSION) == 1,
            SSL_CTX_use_certificate_chain_file(context, folder + "/cert.pem") == 1,
            SSL_CTX_use_PrivateKey_file(context, folder + "/key.pem", SSL_FILETYPE_PEM) == 1,
            SSL_CTX_load_verify_file(context, folder + "/ca.pem") == 1
        else { throw LoadError("cannot use cert.pem, key.pem and ca.pem in '\(folder)'") }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
    }

    deinit { SSL_CTX_free(context) }
}

/// One TLS connection as cheap as a client can have it: libssl on the socket itself, which never blocks. Its owner waits for the socket with
/// `poll` or `epoll` and calls again.
final class LoadConnection {
    let descriptor: Int32
    private let ssl: OpaquePointer
    private(set) var isOpen = false
    /// The last call stopped because the socket took no more.
    private(set) var awaitsRoom = true

    /// Begins to connect to a port on this machine.
    init(port: Int, _ certificate: LoadCertificate) throws(LoadError) {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw LoadError("no socket", errorNumber: errno) }
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        let descriptor = descriptor
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard code == 0 || errno == EINPROGRESS, let ssl = SSL_new(certificate.context) else {
            let number = errno
            close(descriptor)
            throw LoadError("cannot connect to port \(port)", errorNumber: number)
        }
        self.ssl = ssl
        SSL_set_fd(ssl, descriptor)
        SSL_set_connect_state(ssl)
    }

    deinit {
        SSL_free(ssl)
        close(descriptor)
    }

    /// Goes on with the handshake; `isOpen` tells whether it is done.
    func advance() throws(LoadError) {
        guard !isOpen else { return }
        ERR_clear_error()
        let code = SSL_do_handshake(ssl)
        if code == 1 {
            isOpen = true
            awaitsRoom = false
        } else {
            try judge(code)
        }
    }

    /// How many of the bytes were taken; less than all when the socket is full: then come again with the rest.
    func write(_ bytes: UnsafeRawBufferPointer) throws(LoadError) -> Int {
        var taken = 0
        while taken < bytes.count {
            ERR_clear_error()
            var count = 0
            let code = SSL_write_ex(ssl, bytes.baseAddress! + taken, bytes.count - taken, &count)
            guard code == 1 else {
                try judge(code)
                return taken
            }
            taken += count
        }
        awaitsRoom = false
        return taken
    }

    /// The same of an array's bytes from `offset` on.
    func write(_ bytes: [UInt8], from offset: Int = 0) throws(LoadError) -> Int {
        // A typed throw does not pass through withUnsafeBytes' rethrow.
        let taken: Result<Int, LoadError> = bytes.withUnsafeBytes { bytes in
            do throws(LoadError) { return .success(try write(UnsafeRawBufferPointer(rebasing: bytes[offset...]))) } catch {
                return .failure(error)
            }
        }
        return try taken.get()
    }

    /// How many bytes came; 0 when there are none now.
    func read(into bytes: UnsafeMutableRawBufferPointer) throws(LoadError) -> Int {
        ERR_clear_error()
        var count = 0
        let code = SSL_read_ex(ssl, bytes.baseAddress, bytes.count, &count)
        if code == 1 { return count }
        let awaitedRoom = awaitsRoom
        try judge(code)
        awaitsRoom = awaitedRoom
        return 0
    }

    private func judge(_ code: Int32) throws(LoadError) {
        let number = errno
        switch SSL_get_error(ssl, code) {
        case SSL_ERROR_WANT_READ: awaitsRoom = false
        case SSL_ERROR_WANT_WRITE: awaitsRoom = true
        case SSL_ERROR_ZERO_RETURN: throw LoadError("the server closed the connection")
        case SSL_ERROR_SYSCALL: throw LoadError("connection lost", errorNumber: number)
        default:
            let reason = ERR_reason_error_string(ERR_get_error()).map { String(cString: $0) } ?? "no reason given"
            throw LoadError("TLS failed: \(reason)")
        }
    }
}
