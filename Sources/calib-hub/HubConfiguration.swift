import Configuration
import Wire

/// `hub.yaml`.
struct HubConfiguration {
    var listen = (host: "127.0.0.1", port: 7443)
    /// Nil: no endpoints.
    var metricsListen: (host: String, port: Int)? = ("127.0.0.1", 9465)
    var artifactsDirectory = "artifacts/hub"
    /// Absolute, or relative to the file.
    var certificate = "hub/cert.pem"
    var key = "hub/key.pem"
    var authority = "ca/ca.pem"

    static let keys: [ConfigurationKey<HubConfiguration>] = [
        text("listen", "127.0.0.1:7443", "HOST:PORT", isAddress) { $0.listen = address($1)! },
        text("artifacts_dir", "artifacts/hub", "a path", isPath) { $0.artifactsDirectory = $1 },
        text("metrics.listen", "127.0.0.1:9465", "HOST:PORT or off", isAddressOrOff) {
            $0.metricsListen = address($1)
        },
        text("tls.certificate", "hub/cert.pem", "a path", isPath) { $0.certificate = $1 },
        text("tls.key", "hub/key.pem", "a path", isPath) { $0.key = $1 },
        text("tls.authority", "ca/ca.pem", "a path", isPath) { $0.authority = $1 },
    ]

    @Sendable private static func isAddress(_ text: String) -> Bool { address(text) != nil }
    @Sendable private static func isAddressOrOff(_ text: String) -> Bool { text == "off" || isAddress(text) }
    @Sendable private static func isPath(_ text: String) -> Bool { !text.isEmpty }

    /// The annotated file; `config/hub.yaml` is the one of the default address.
    static func file(listen: String) -> String {
        """
        # Configuration of the hub. Every key stands here with its default; a key left out has the same default.
        # Mistakes are reported all at once as file:line:col and end the program with status 78.

        # Where edges and operators connect, HOST:PORT; port 0 takes a free one.
        listen: \(listen)
        # feeds/, datasets/, reports/ and control.sqlite lie under this directory; relative to the working directory.
        artifacts_dir: artifacts/hub

        # /metrics, /-/healthy and /-/ready, HOST:PORT, plain HTTP for the same machine; off for none.
        metrics:
          listen: 127.0.0.1:9465

        # PEM files, relative to this file. `calib-hub init` makes them.
        tls:
          certificate: hub/cert.pem
          key: hub/key.pem
          # Whoever this authority vouches for may connect; the certificate says as what.
          authority: ca/ca.pem

        """
    }

    /// Defaults, then the file, then `overrides` (`key=value`). Throws all mistakes at once.
    static func load(file: String, overrides: [String], read: (String) -> String?) throws(ConfigurationError) -> HubConfiguration {
        var configuration = HubConfiguration()
        var reader = ConfigurationReader(file: file)
        if let text = read(file) {
            if let root = reader.compose(text) {
                for (path, node) in reader.flatten(root) { reader.apply(path, node, keys, to: &configuration) }
            }
        } else {
            reader.problem(nil, "", "cannot be read as UTF-8 text; does it exist?")
        }
        var problems = reader.problems
        for text in overrides {
            guard let equals = text.firstIndex(of: "=") else {
                problems.append(ConfigurationProblem(file: "--set", key: text, text: "needs key=value"))
                continue
            }
            let path = String(text[..<equals])
            guard let key = keys.first(where: { $0.path == path }) else {
                problems.append(ConfigurationProblem(file: "--set", key: path, text: ConfigurationReader.unknown(path, keys)))
                continue
            }
            if let wrong = ConfigurationReader.set(key, String(text[text.index(after: equals)...]), &configuration) {
                problems.append(ConfigurationProblem(file: "--set", key: path, text: wrong))
            }
        }
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
        let folder = file.contains("/") ? String(file[..<file.lastIndex(of: "/")!]) + "/" : ""
        func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + path }
        configuration.certificate = resolve(configuration.certificate)
        configuration.key = resolve(configuration.key)
        configuration.authority = resolve(configuration.authority)
        return configuration
    }

    private static func text(
        _ path: String, _ standard: String, _ allowed: String, _ isAllowed: @escaping @Sendable (String) -> Bool,
        _ set: @escaping @Sendable (inout HubConfiguration, String) -> Void
    ) -> ConfigurationKey<HubConfiguration> {
        ConfigurationKey(path: path, standard: standard, kind: .text(allowed: "\(allowed) is allowed", isAllowed: isAllowed, set))
    }

    /// `127.0.0.1:7443`, `[::1]:7443`; nil for anything else.
    static func address(_ text: String) -> (host: String, port: Int)? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]), (0...65_535).contains(port) else {
            return nil
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() } else if host.contains(":") { return nil }
        return host.isEmpty ? nil : (String(host), port)
    }
}
