import ArgumentParser
import Configuration
import Foundation
import NodeShell

/// Something that ends the command: said in one line, with the status to leave with (SPEC 9.3).
struct HubFailure: Error {
    var message: String
    var hint: String?
    var exit: ExitCode
    /// The hub's own code, for programs.
    var word: String?

    init(_ message: String, hint: String? = nil, _ exit: ExitCode, word: String? = nil) {
        self.message = message
        self.hint = hint
        self.exit = exit
        self.word = word
    }
}

/// Which hub, and as whom.
struct HubTarget {
    var host: String
    var port: Int
    /// The name or address in the hub's certificate.
    var serverName: String
    var files: TLSFiles
}

/// The options that say which hub is meant. Each option wins over the context's value.
struct HubOptions: ParsableArguments {
    @Option(help: "Folder with context.yaml, which names the hub and the operator's files; CALIBRANT_CONTEXT otherwise.")
    var context: String?
    @Option(help: "The hub's HOST:PORT.") var hub: String?
    @Option(help: "The name in the hub's certificate; HOST when absent.") var serverName: String?
    @Option(help: "The operator's certificate, PEM.") var certificate: String?
    @Option(help: "Its key, PEM.") var key: String?
    @Option(help: "The authority that signed the hub's certificate, PEM.") var authority: String?
    @Option(help: "Seconds to wait for the answer, 1 to 3600.") var timeout: Int?

    func validate() throws {
        if let timeout, !(1...3600).contains(timeout) { throw ValidationError("--timeout is a whole number from 1 to 3600") }
    }

    private var folder: String? {
        if let context { return context }
        return ProcessInfo.processInfo.environment["CALIBRANT_CONTEXT"].flatMap { $0.isEmpty ? nil : $0 }
    }

    /// Whether a hub was named at all.
    var isGiven: Bool { hub != nil || folder != nil }

    func target() throws(HubFailure) -> HubTarget {
        var values = HubContext()
        if let folder { values = try HubContext.read(folder: folder) }
        guard let address = hub ?? values.hub else {
            throw HubFailure(
                "no hub is named", hint: "give --context DIR, set CALIBRANT_CONTEXT, or give --hub HOST:PORT with its files",
                Exit.configuration)
        }
        guard let (host, port) = Self.split(address) else {
            throw HubFailure("'\(address)' is no HOST:PORT of a hub", hint: "such as hub.example:7443 or [::1]:7443", Exit.configuration)
        }
        guard let certificate = certificate ?? values.certificate, let key = key ?? values.key,
            let authority = authority ?? values.authority
        else {
            throw HubFailure(
                "the hub asks who you are: a certificate, its key and the authority are needed",
                hint: "give --context DIR, or --certificate, --key and --authority", Exit.configuration)
        }
        return HubTarget(
            host: host, port: port, serverName: serverName ?? values.serverName ?? host,
            files: TLSFiles(certificate: certificate, key: key, authority: authority))
    }

    private static func split(_ address: String) -> (host: String, port: Int)? {
        guard let colon = address.lastIndex(of: ":"), let port = Int(address[address.index(after: colon)...]), (1...65_535).contains(port)
        else { return nil }
        var host = String(address[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        return host.isEmpty ? nil : (host, port)
    }
}

/// `context.yaml`, as `calib-hub init` writes it for each operator: the keys below, files relative to its folder.
struct HubContext {
    var hub: String?
    var serverName: String?
    var certificate: String?
    var key: String?
    var authority: String?

    private static let keys: [ConfigurationKey<HubContext>] = [
        text("hub") { $0.hub = $1 }, text("server_name") { $0.serverName = $1 }, text("certificate") { $0.certificate = $1 },
        text("key") { $0.key = $1 }, text("authority") { $0.authority = $1 },
    ]

    private static func text(_ path: String, _ set: @escaping @Sendable (inout HubContext, String) -> Void) -> ConfigurationKey<HubContext>
    {
        ConfigurationKey(path: path, standard: "", kind: .text(allowed: "it is not empty", isAllowed: { !$0.isEmpty }, set))
    }

    static func read(folder: String) throws(HubFailure) -> HubContext {
        let path = "\(folder)/context.yaml"
        let bytes: [UInt8]?
        do throws(FileError) { bytes = try AtomicFile.read(path) } catch { throw HubFailure(error.description, Exit.configuration) }
        guard let bytes else {
            throw HubFailure("there is no '\(path)'", hint: "--context names the folder of an operator", Exit.configuration)
        }
        var reader = ConfigurationReader(file: path)
        var values = HubContext()
        if let root = reader.compose(String(decoding: bytes, as: UTF8.self)) {
            for (name, node) in reader.flatten(root) { reader.apply(name, node, keys, to: &values) }
        }
        guard reader.problems.isEmpty else {
            throw HubFailure(reader.problems.map(\.description).joined(separator: "; "), Exit.configuration)
        }
        func absolute(_ file: String?) -> String? { file.map { $0.hasPrefix("/") ? $0 : "\(folder)/\($0)" } }
        values.certificate = absolute(values.certificate)
        values.key = absolute(values.key)
        values.authority = absolute(values.authority)
        return values
    }
}
