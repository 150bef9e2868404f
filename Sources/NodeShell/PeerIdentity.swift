/// Who holds a certificate: its one URI name `spiffe://<domain>/<role>/<name>` (SPEC 8.4). The common name does not count.
package struct PeerIdentity: Sendable, Equatable, CustomStringConvertible {
    package enum Role: String, Sendable, CaseIterable { case edge, `operator`, viewer, hub }

    package var role: Role
    package var name: String
    package var uri: String

    /// Why a certificate gives no identity.
    package enum Refusal: UInt8, Error, Sendable {
        case noURI = 1
        case severalURIs
        case malformed
        /// A client's certificate on a server, or the other way round.
        case wrongRole

        package var sentence: String {
            switch self {
            case .noURI: "certificate carries no identity URI"
            case .severalURIs: "certificate carries more than one identity URI"
            case .malformed: "certificate's identity URI is not spiffe://<domain>/<role>/<name>"
            case .wrongRole: "certificate is for another role"
            }
        }
    }

    /// Reads a URI byte by byte: `[a-z0-9._-]` in the domain, `[A-Za-z0-9._-]` in the name, so no NUL, no escape, no second spelling of one name.
    package init(uri bytes: some Collection<UInt8>) throws(Refusal) {
        guard bytes.count <= Self.bytesMax, bytes.starts(with: Self.scheme) else { throw .malformed }
        let parts = bytes.dropFirst(Self.scheme.count).split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard parts.count == 3, parts.allSatisfy({ !$0.isEmpty }) else { throw .malformed }
        guard parts[0].allSatisfy({ Self.isPlain($0) && !Self.isUpper($0) }), parts[2].allSatisfy(Self.isPlain) else { throw .malformed }
        // A name becomes a directory at the hub: `host=<name>`.
        guard !parts[2].elementsEqual(".".utf8), !parts[2].elementsEqual("..".utf8) else { throw .malformed }
        guard let role = Role.allCases.first(where: { parts[1].elementsEqual($0.rawValue.utf8) }) else { throw .malformed }
        self.role = role
        name = String(decoding: parts[2], as: UTF8.self)
        uri = String(decoding: bytes, as: UTF8.self)
    }

    package var description: String { uri }

    private static let scheme = Array("spiffe://".utf8)
    /// The standard allows 2,048; ours fit a log line.
    private static let bytesMax = 255
    private static func isUpper(_ byte: UInt8) -> Bool { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) }
    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }
}
