import Foundation
import NodeShell
import TestSupport
import Testing

struct CertificateAuthorityTests {
    private static func openssl(_ arguments: String...) throws -> Binaries.Outcome {
        try Binaries.run("/usr/bin/openssl", arguments)
    }

    @Test func leafIsWhatAnotherImplementationExpects() throws {
        let fleet = try Fleet()
        let files = try fleet.hubFiles()
        let verified = try Self.openssl(
            "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "hub.test", "-CAfile", files.authority, files.certificate
        )
        #expect(verified.status == 0, "\(verified.standardError)")
        #expect(try Self.openssl("verify", "-purpose", "sslclient", "-CAfile", files.authority, files.certificate).status != 0)
        let text = try Self.openssl("x509", "-in", files.certificate, "-noout", "-text").standardOutput
        for part in [
            "Version: 3", "ecdsa-with-SHA256", "prime256v1", "CA:FALSE", "Digital Signature", "TLS Web Server Authentication",
            "DNS:hub.test, IP Address:127.0.0.1", "URI:spiffe://test/hub/h1", "Authority Key Identifier", "Subject Key Identifier",
        ] { #expect(text.contains(part), "\(part) is missing in\n\(text)") }
    }

    @Test func authoritySignsLeavesOnly() throws {
        let fleet = try Fleet()
        let text = try Self.openssl("x509", "-in", fleet.authorityPath, "-noout", "-text").standardOutput
        #expect(text.contains("CA:TRUE, pathlen:0") && text.contains("Certificate Sign, CRL Sign"), "\(text)")
    }

    @Test func serialsAre128BitsAndDiffer() throws {
        let fleet = try Fleet()
        let serials = try (0..<8).map { _ in
            try Self.openssl("x509", "-in", fleet.hubFiles().certificate, "-noout", "-serial").standardOutput
        }
        #expect(Set(serials).count == 8)
        for serial in serials { #expect(serial.count == "serial=\n".count + 32, "\(serial)") }
    }

    @Test func separatorInANameAddsNoSecondName() throws {
        let fleet = try Fleet()
        let files = try fleet.files("spiffe://test/edge/e1", dnsNames: ["a.test,URI:spiffe://test/operator/o"])
        // OpenSSL prints the name as it is; the structure has one URI and the handshake takes it.
        let extensions = try Self.openssl("asn1parse", "-in", files.certificate).standardOutput
        #expect(extensions.contains("X509v3 Subject Alternative Name"))
        #expect(try TLSIdentityProbe.identity(of: files, fleet) == "spiffe://test/edge/e1")
    }

    @Test(arguments: [
        "", "spiffe://test/edge", "https://test/edge/a", "spiffe://Test/edge/a", "spiffe://test/chief/a", "spiffe://test/edge/a%20b",
    ])
    func whatIsNoIdentityIsNotIssued(uri: String) throws {
        let fleet = try Fleet()
        let error = #expect(throws: TLSError.self) {
            try CertificateAuthority.issue(
                uri: uri, commonName: "x", dnsNames: [], ipAddresses: [], usage: .client, days: 1,
                authorityCertificatePEM: fleet.authority.certificatePEM, authorityKeyPEM: fleet.authority.keyPEM)
        }
        #expect(error?.kind == .badIdentity)
    }

    @Test func foreignKeyDoesNotSign() throws {
        let fleet = try Fleet()
        let other = try Fleet()
        #expect(throws: TLSError.self) {
            try CertificateAuthority.issue(
                uri: "spiffe://test/edge/a", commonName: "x", dnsNames: [], ipAddresses: [], usage: .client, days: 1,
                authorityCertificatePEM: fleet.authority.certificatePEM, authorityKeyPEM: other.authority.keyPEM)
        }
    }

    @Test(arguments: ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    func damagedAuthorityIsAnError(pem: String) throws {
        let fleet = try Fleet()
        for (certificate, key) in [(pem, fleet.authority.keyPEM), (fleet.authority.certificatePEM, pem)] {
            #expect(throws: TLSError.self) {
                try CertificateAuthority.issue(
                    uri: "spiffe://test/edge/a", commonName: "x", dnsNames: [], ipAddresses: [], usage: .client, days: 1,
                    authorityCertificatePEM: certificate, authorityKeyPEM: key)
            }
        }
    }

    @Test func badNamesAndLifetimesAreErrors() throws {
        let fleet = try Fleet()
        #expect(throws: TLSError.self) { try fleet.files("spiffe://test/edge/a", ipAddresses: ["hub.test"]) }
        #expect(throws: TLSError.self) { try fleet.files("spiffe://test/edge/a", dnsNames: ["hüb"]) }
        #expect(throws: TLSError.self) { try fleet.files("spiffe://test/edge/a", days: 1 << 40) }
        #expect(throws: TLSError.self) { try CertificateAuthority.create(commonName: String(repeating: "x", count: 65), days: 1) }
        #expect(throws: TLSError.self) { try CertificateAuthority.create(commonName: "", days: 1) }
    }
}

struct PeerIdentityTests {
    @Test(arguments: [
        ("spiffe://calibrant/edge/edge-07", PeerIdentity.Role.edge, "edge-07"), ("spiffe://a.b-c_d/operator/Ann.B", .operator, "Ann.B"),
        ("spiffe://x/viewer/v", .viewer, "v"), ("spiffe://x/hub/1", .hub, "1"),
    ])
    func identityIsRead(uri: String, role: PeerIdentity.Role, name: String) throws {
        let identity = try PeerIdentity(uri: Array(uri.utf8))
        #expect(identity.role == role && identity.name == name && identity.uri == uri)
    }

    @Test(arguments: [
        "", "spiffe://", "spiffe:///edge/a", "spiffe://x/edge/", "spiffe://x//a", "spiffe://x/edge/a/", "spiffe://x/edge/a/b",
        "spiffe://x/edge",
        "spiffe://X/edge/a", "SPIFFE://x/edge/a", "spiffe://x/Edge/a", "spiffe://x/edge/a%2fb", "spiffe://x/edge/a\0",
        "spiffe://x\0y/edge/a",
        "spiffe://x/edge/a\n", "spiffe://x/edge/..", "spiffe://x/edge/.", "spiffe://x/root/a", "spiffe://x:1/edge/a", "spiffe://u@x/edge/a",
        "spiffe://x/edge/a?q", "spiffe://x/edge/a#f", "spiffe://x/edge/ä", " spiffe://x/edge/a", "http://x/edge/a",
    ])
    func anythingElseIsMalformed(uri: String) {
        #expect(throws: PeerIdentity.Refusal.malformed) { try PeerIdentity(uri: Array(uri.utf8)) }
    }

    @Test func longNameIsMalformed() {
        let prefix = "spiffe://x/edge/"
        #expect((try? PeerIdentity(uri: (prefix + String(repeating: "a", count: 255 - prefix.count)).utf8)) != nil)
        #expect(throws: PeerIdentity.Refusal.malformed) {
            try PeerIdentity(uri: (prefix + String(repeating: "a", count: 256 - prefix.count)).utf8)
        }
    }

    @Test func anyBytesAreAnIdentityOrAnError() {
        var random = SeededRandom(seed: 7)
        let good = Array("spiffe://test/edge/e1".utf8)
        for _ in 0..<20_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            if let identity = try? PeerIdentity(uri: bytes) { #expect(Array(identity.uri.utf8) == bytes) }
        }
    }
}
