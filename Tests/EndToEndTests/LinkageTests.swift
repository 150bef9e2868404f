import Foundation
import TestSupport
import Testing

/// One TLS stack in the process: the system's libssl, and nothing that came with a package.
@Suite struct LinkageTests {
    @Test(arguments: ["edge-node", "calib-hub", "hubctl", "calib-lab"])
    func aProgramHasOneLibsslAndNoBoringSSL(_ program: String) throws {
        let path = try Binaries.path(of: program)
        let libraries = try Binaries.run("/usr/bin/ldd", [path])
        #expect(libraries.status == 0)
        let libssl = libraries.standardOutput.split(separator: "\n").filter { $0.contains("libssl") }
        #expect(libssl.count == 1 && libssl[0].contains("libssl.so.3"), "\(libssl)")

        let symbols = try Binaries.run("/usr/bin/nm", ["--defined-only", path])
        #expect(symbols.status == 0)
        let names = symbols.standardOutput.split(separator: "\n").compactMap { $0.split(separator: " ").last }
        #expect(names.count > 1000, "nm sees no symbols: this test would prove nothing")
        let foreign = names.filter { $0.localizedCaseInsensitiveContains("boringssl") || $0.hasPrefix("SSL_") }
        #expect(foreign.isEmpty, "\(foreign.prefix(5))")
    }
}
