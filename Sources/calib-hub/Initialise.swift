import ArgumentParser
import HubCore
import NodeShell
import Wire

enum OutputForm: String, ExpressibleByArgument, CaseIterable { case table, json }

/// `calib-hub init`: the authority, everybody's certificates, and the configuration (SPEC 9.4).
struct Initialise: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Makes the fleet's authority, certificates and hub.yaml.",
        discussion: """
            Run again with other names, it adds what is missing and changes nothing that is there. The authority's key, ca/ca.key, is needed for \
            that only: keep it where the hub does not run.
            """)

    @Option(help: "Where everything is written.") var directory: String
    @Option(name: .customLong("edge"), help: "A trading host; may be given several times.") var edges: [String] = []
    @Option(name: .customLong("operator"), help: "Somebody who may act; may be given several times.") var operators: [String] = []
    @Option(name: .customLong("viewer"), help: "Somebody who may read; may be given several times.") var viewers: [String] = []
    @Option(help: "Where the hub will listen, HOST:PORT.") var listen = "127.0.0.1:7443"
    @Option(help: "A name or address under which the hub is reached, besides localhost and 127.0.0.1.") var hubName = "localhost"
    @Option(name: .shortAndLong, help: "Form of what is printed.") var output: OutputForm = .table

    private static let domain = "calibrant"
    private static let authorityDays = 3_650
    private static let leafDays = 825

    func validate() throws {
        guard HubConfiguration.address(listen) != nil else { throw ValidationError("--listen: '\(listen)' is no HOST:PORT") }
        guard !hubName.isEmpty, hubName.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw ValidationError("--hub-name: '\(hubName)' is no name or address")
        }
        for name in edges + operators + viewers where !HostName.isValid(name) {
            throw ValidationError("'\(name)': a name has 1 to 64 letters, digits, '.', '_' and '-'")
        }
    }

    func run() throws {
        do {
            var work = Work(directory: directory)
            let authority = try work.authority(days: Self.authorityDays)
            let (dnsNames, addresses) = names
            try work.leaf(
                "hub", role: .hub, name: "hub", authority, days: Self.leafDays, dnsNames: dnsNames, ipAddresses: addresses)
            for name in edges {
                try work.leaf("edges/\(name)", role: .edge, name: name, authority, days: Self.leafDays)
                work.copies.append((name, "\(directory)/edges/\(name)", "tls.certificate, tls.key and tls.authority of its edge.yaml"))
            }
            for (role, folder, people) in [(PeerIdentity.Role.operator, "operators", operators), (.viewer, "viewers", viewers)] {
                for name in people {
                    try work.leaf("\(folder)/\(name)", role: role, name: name, authority, days: Self.leafDays)
                    try work.write(context, to: "\(folder)/\(name)/context.yaml")
                    work.copies.append((name, "\(directory)/\(folder)/\(name)", "the folder hubctl is given with --context"))
                }
            }
            try work.write(HubConfiguration.file(listen: listen), to: "hub.yaml")
            print(work)
        } catch let error as FileError {
            printError("calib-hub init: \(error)")
            throw ExitCode.failure
        } catch let error as TLSError {
            printError("calib-hub init: \(error)")
            throw ExitCode.failure
        }
    }

    /// Those in the hub's certificate.
    private var names: (dns: [String], addresses: [String]) {
        let isAddress = hubName.contains(":") || hubName.allSatisfy { $0 == "." || $0.isNumber }
        let others = ["localhost", "127.0.0.1"].contains(hubName) ? [] : [hubName]
        return (["localhost"] + (isAddress ? [] : others), ["127.0.0.1"] + (isAddress ? others : []))
    }

    private var context: String {
        let (host, port) = HubConfiguration.address(listen)!
        // A hub that listens everywhere is reached under its name.
        let reached = host == "0.0.0.0" || host == "::" ? hubName : host
        return """
            # Which hub, and as whom; files relative to this folder.
            hub: \(reached.contains(":") ? "[\(reached)]" : reached):\(port)
            server_name: \(hubName)
            certificate: cert.pem
            key: key.pem
            authority: ca.pem

            """
    }

    private func print(_ work: Work) {
        switch output {
        case .table:
            for path in work.made { put(Array("made  \(path)\n".utf8), to: 1) }
            for path in work.kept { put(Array("kept  \(path)\n".utf8), to: 1) }
            for (name, folder, purpose) in work.copies { put(Array("copy  \(folder) to \(name): \(purpose)\n".utf8), to: 1) }
            put(Array("start calib-hub run --config \(directory)/hub.yaml\n".utf8), to: 1)
        case .json:
            var json = JSONWriter()
            json.beginObject()
            json.field("directory", string: directory)
            json.field("made", strings: work.made)
            json.field("kept", strings: work.kept)
            json.key("copy")
            json.beginArray()
            for (name, folder, purpose) in work.copies {
                json.beginObject()
                json.field("to", string: name)
                json.field("folder", string: folder)
                json.field("for", string: purpose)
                json.endObject()
            }
            json.endArray()
            json.field("config", string: "\(directory)/hub.yaml")
            json.endObject()
            json.newline()
            put(json.take(), to: 1)
        }
    }

    private struct Authority {
        var certificate: String
        var key: String
    }

    /// Writes what is missing and remembers what it did.
    private struct Work {
        let directory: String
        var made: [String] = []
        var kept: [String] = []
        var copies: [(name: String, folder: String, purpose: String)] = []

        init(directory: String) { self.directory = directory }

        /// Reads the one that is there; a certificate without its key, or the other way round, is an error and never replaced.
        mutating func authority(days: Int) throws -> Authority {
            let paths = ("\(directory)/ca/ca.pem", "\(directory)/ca/ca.key")
            switch (try AtomicFile.read(paths.0), try AtomicFile.read(paths.1)) {
            case (let certificate?, let key?):
                kept += [paths.0, paths.1]
                return Authority(certificate: String(decoding: certificate, as: UTF8.self), key: String(decoding: key, as: UTF8.self))
            case (nil, nil):
                let (certificate, key) = try CertificateAuthority.create(commonName: "Calibrant fleet authority", days: days)
                try write(key, to: "ca/ca.key", isPrivate: true)
                try write(certificate, to: "ca/ca.pem")
                return Authority(certificate: certificate, key: key)
            case (_?, nil): throw FileError(.read, paths.1, remedy: "it is not there; bring the authority's key back to add names")
            case (nil, _?): throw FileError(.read, paths.0, remedy: "it is not there although its key is; bring it back")
            }
        }

        mutating func leaf(
            _ folder: String, role: PeerIdentity.Role, name: String, _ authority: Authority, days: Int, dnsNames: [String] = [],
            ipAddresses: [String] = []
        ) throws {
            let path = "\(directory)/\(folder)/cert.pem"
            if try AtomicFile.read(path) != nil {
                kept.append(path)
                return
            }
            let (certificate, key) = try CertificateAuthority.issue(
                uri: "spiffe://\(Initialise.domain)/\(role.rawValue)/\(name)", commonName: "\(role.rawValue) \(name)".prefixed(64),
                dnsNames: dnsNames, ipAddresses: ipAddresses, usage: role == .hub ? .server : .client, days: days,
                authorityCertificatePEM: authority.certificate, authorityKeyPEM: authority.key)
            try put(key, "\(folder)/key.pem", isPrivate: true)
            if role != .hub { try put(authority.certificate, "\(folder)/ca.pem") }
            // Last: its presence says that the others are there.
            try put(certificate, "\(folder)/cert.pem")
        }

        /// Unless it is there.
        mutating func write(_ text: String, to name: String, isPrivate: Bool = false) throws {
            if try AtomicFile.read("\(directory)/\(name)") == nil {
                try put(text, name, isPrivate: isPrivate)
            } else {
                kept.append("\(directory)/\(name)")
            }
        }

        private mutating func put(_ text: String, _ name: String, isPrivate: Bool = false) throws {
            let path = "\(directory)/\(name)"
            if let slash = path.lastIndex(of: "/") { try AtomicFile.makeDirectory(String(path[..<slash])) }
            try AtomicFile.write(Array(text.utf8), to: path, isPrivate: isPrivate)
            made.append(path)
        }
    }
}

extension String {
    fileprivate func prefixed(_ length: Int) -> String { String(prefix(length)) }
}
