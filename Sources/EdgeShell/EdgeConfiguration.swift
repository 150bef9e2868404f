import CalibModel
import Configuration
import EdgeCore
import Wire
import Yams

/// The configuration of an edge: `config/edge.yaml` and the two files it names.
struct EdgeConfiguration: Sendable {
    var host = "local"
    var artifactsDirectory = "artifacts/edge"
    var parameters = Parameters()
    /// Configured instruments by venue; others are inferred in replay (SPEC 3.1).
    var instruments: [String: [Instrument]] = [:]
    /// Maker and taker fees by venue; the parameters' own when the venue is not listed.
    var fees: [String: (maker: BasisPoints, taker: BasisPoints)] = [:]
    var venue = Venue()
    var hub = Hub()
    var tls = TLSPaths()
    /// `host:port`, nil when off.
    var metricsListen: String? = "127.0.0.1:9464"
    var metricsSymbolSeconds: Int64 = 900
    var metricsSymbolsMax = Limits.symbolsMax
    /// How long feeds may go unwritten before quotes are pulled.
    var diskGraceNanoseconds: Int64 = 5_000_000_000
    var retention = Retention()
    private var instrumentsFile: String?
    private var feesFile: String?

    /// Where market data comes from.
    struct Venue {
        var name = "sim"
        var url = "ws://127.0.0.1:8090/v5/public/linear"
        /// `http://` or `https://`; nil: the venue's own.
        var restURL: String?
        var symbols = ["BTCUSDT", "ETHUSDT"]
        var depth = 50
    }

    /// Where the feeds go.
    struct Hub {
        var isEnabled = false
        var host = "127.0.0.1"
        var port = 7443
        /// What the hub's certificate must say.
        var serverName = "localhost"
    }

    /// How long feed files are kept.
    struct Retention {
        /// 0: no limit.
        var days: Int64 = 30
        var bytesMax: Int64 = 100 << 30
    }

    /// As written; relative to the configuration file until `load` has resolved them.
    struct TLSPaths {
        var certificate = "tls/cert.pem"
        var key = "tls/key.pem"
        var authority = "tls/ca.pem"
    }

    /// `key=value` of every effective value, sorted by key: what `config_hash` is computed from.
    private(set) var effective: [String: String] = [:]

    /// Every key, with its default as the annotated file gives it. A test compares the two, and the defaults with `Parameters`.
    static let keys: [ConfigurationKey<EdgeConfiguration>] = [
        text("host", "local", "letters, digits, '.', '_' and '-', at most 64", isName) { $0.host = $1 },
        text("artifacts_dir", "artifacts/edge", "a path", isPath) { $0.artifactsDirectory = $1 },
        text("instruments_file", "instruments.yaml", "a path", isPath) { $0.instrumentsFile = $1 },
        text("fees_file", "fees.yaml", "a path", isPath) { $0.feesFile = $1 },

        text("venue.name", "sim", venues.joined(separator: ", "), isLiveVenue) { $0.venue.name = $1 },
        text("venue.url", "ws://127.0.0.1:8090/v5/public/linear", "ws:// or wss://, host, port and path", isVenueURL) {
            $0.venue.url = $1
        },
        text("venue.rest_url", "auto", "auto, or http:// or https://, host and port", isRESTURL) {
            $0.venue.restURL = $1 == "auto" ? nil : $1
        },
        text("venue.symbols", "BTCUSDT,ETHUSDT", "names of capital letters, digits and '_', with commas", isSymbolList) {
            $0.venue.symbols = $1.split(separator: ",").map { $0.filter { $0 != " " } }
        },
        text("venue.depth", "50", "50, 200 or 1000", isDepth) { $0.venue.depth = Int($1)! },

        flag("hub.enabled", false) { $0.hub.isEnabled = $1 },
        text("hub.host", "127.0.0.1", "a name or address", isPath) { $0.hub.host = $1 },
        integer("hub.port", 7443, 1...65_535) { $0.hub.port = Int($1) },
        text("hub.server_name", "localhost", "a name or address", isPath) { $0.hub.serverName = $1 },

        text("tls.certificate", "tls/cert.pem", "a path", isPath) { $0.tls.certificate = $1 },
        text("tls.key", "tls/key.pem", "a path", isPath) { $0.tls.key = $1 },
        text("tls.authority", "tls/ca.pem", "a path", isPath) { $0.tls.authority = $1 },

        text("metrics.listen", "127.0.0.1:9464", "host:port or off", isListen) {
            $0.metricsListen = $1 == "off" ? nil : $1
        },
        integer("metrics.symbol_ttl", 900, 1...86_400) { $0.metricsSymbolSeconds = $1 },
        integer("metrics.max_symbols", Int64(Limits.symbolsMax), 1...Int64(Limits.symbolsMax)) { $0.metricsSymbolsMax = Int($1) },

        integer("feeds.disk_grace_s", 5, 0...3600) { $0.diskGraceNanoseconds = $1 * 1_000_000_000 },

        integer("retention.days", 30, 0...36_500) { $0.retention.days = $1 },
        integer("retention.max_bytes", 107_374_182_400, 1 << 20...1 << 50) { $0.retention.bytesMax = $1 },

        flag("md_cache.enabled", true) { $0.parameters.cache.isEnabled = $1 },
        milliseconds("md_cache.ttl_ms", "100", 10...5000) { $0.parameters.cache.ttlNanoseconds = $1 },
        milliseconds("md_cache.fresh_ms_for_pricing", "60", 10...5000) { $0.parameters.cache.freshForPricingNanoseconds = $1 },
        flag("md_cache.stale_ok", true) { $0.parameters.cache.staleIsOK = $1 },
        flag("md_cache.skip_pricing_on_stale", false) { $0.parameters.cache.skipsPricingOnStale = $1 },
        milliseconds("md_cache.max_stale_ms", "1000", 10...60_000) { $0.parameters.cache.maxStaleNanoseconds = $1 },
        bps("md_cache.stale_widen_bps", "0.5", 0...100) { $0.parameters.cache.staleWiden = $1 },
        milliseconds("md_cache.invalidate_on_ws_gap_ms", "300", 50...10_000) { $0.parameters.cache.webSocketGapNanoseconds = $1 },
        bps("md_cache.invalidate_on_jump_bps", "50", 1...10_000) { $0.parameters.cache.invalidateOnJump = $1 },
        integer("md_cache.max_depth", 50, 1...200) { $0.parameters.cache.maxDepth = $1 },
        milliseconds("md_cache.topic_proof_ms", "30000", 100...600_000) { $0.parameters.cache.topicProofNanoseconds = $1 },

        text("pipeline.trigger", "book", "book or interval", isTrigger) {
            if $1 == "book" {
                $0.parameters.trigger = .bookChange
            } else {
                $0.parameters.trigger = .interval(nanoseconds: $0.intervalNanoseconds)
            }
        },
        milliseconds("pipeline.interval_ms", "50", 1...60_000) {
            $0.intervalNanoseconds = $1
            if case .interval = $0.parameters.trigger { $0.parameters.trigger = .interval(nanoseconds: $1) }
        },
        milliseconds("pipeline.tick_deadline_ms", "150", 1...60_000) { $0.parameters.tickDeadlineNanoseconds = $1 },
        integer("pipeline.pipeline_sample_rate", 10, 1...10_000) { $0.parameters.tickSampleRate = $1 },
        integer("pipeline.max_tick_rows_per_s", 10_000, 100...1_000_000) { $0.parameters.tickRowsPerSecondMax = $1 },

        bps("spread.base_bps", "1.0", 0...1000) { $0.parameters.spread.base = $1 },
        bps("spread.min_bps", "0.6", 0...1000) { $0.parameters.spread.minimum = $1 },
        bps("spread.max_bps", "2.5", 0...1000) { $0.parameters.spread.maximum = $1 },
        bps("spread.tighten_step_bps", "0.2", 0...1000) { $0.parameters.spread.tightenStep = $1 },
        milliseconds("spread.tighten_ms", "200", 1...60_000) { $0.parameters.spread.tightenNanoseconds = $1 },

        number("guards.volatility_soft", "15", 0...10_000) { $0.parameters.guards.volatility.soft = $1 },
        number("guards.volatility_hard", "25", 0...10_000) { $0.parameters.guards.volatility.hard = $1 },
        number("guards.latency_soft_ms", "300", 0...60_000) { $0.parameters.guards.latency.soft = $1 },
        number("guards.latency_hard_ms", "450", 0...60_000) { $0.parameters.guards.latency.hard = $1 },
        number("guards.pnl_z_soft", "-1.5", -100...0) { $0.parameters.guards.pnlZ.soft = $1 },
        number("guards.pnl_z_hard", "-2.5", -100...0) { $0.parameters.guards.pnlZ.hard = $1 },
        number("guards.inventory_soft_pct", "6", 0...100) { $0.parameters.guards.inventory.soft = $1 },
        number("guards.inventory_hard_pct", "10", 0...100) { $0.parameters.guards.inventory.hard = $1 },
        number("guards.taker_fills_soft", "12", 0...10_000) { $0.parameters.guards.takerFills.soft = $1 },
        number("guards.taker_fills_hard", "20", 0...10_000) { $0.parameters.guards.takerFills.hard = $1 },
        bps("guards.soft_widen_bps", "0.3", 0...100) { $0.parameters.guards.softWiden = $1 },
        milliseconds("guards.halt_ms", "2000", 1...600_000) { $0.parameters.guards.haltNanoseconds = $1 },

        quantity("quoting.order_qty", "0.01") { $0.parameters.orderQuantity = $1 },
        quantity("quoting.max_position", "1.0") { $0.parameters.maxPosition = $1 },
        bps("quoting.min_price_change_bps", "0.05", 0...100) { $0.parameters.minimumPriceChange = $1 },
        bps("quoting.queue_value_bps", "0.2", 0...100) { $0.parameters.queueValue = $1 },
        bps("quoting.nudge_max_bps", "0.5", 0...100) { $0.parameters.nudgeMaximum = $1 },
        milliseconds("quoting.nudge_ms", "150", 1...60_000) { $0.parameters.nudgeNanoseconds = $1 },
        integer("quoting.orders_per_second", 30, 1...100_000) { $0.parameters.orderRatePerSecond = $1 },
        integer("quoting.orders_burst", 300, 1...100_000) { $0.parameters.orderBurst = $1 },

        quantity("limits.order_qty", "1.0") { $0.parameters.limits.orderQuantity = $1 },
        quantity("limits.position", "2.0") { $0.parameters.limits.position = $1 },
        quantity("limits.order_notional", "100000") { $0.parameters.limits.notional = $1 },
        bps("limits.price_collar_bps", "100", 0...10_000) { $0.parameters.limits.priceCollar = $1 },
        integer("limits.open_orders_symbol", 2, 1...1000) { $0.parameters.limits.openOrdersSymbol = $1 },
        integer("limits.open_orders_host", 1000, 1...100_000) { $0.parameters.limits.openOrdersHost = $1 },
        quantity("limits.daily_loss_symbol", "1000") { $0.parameters.limits.dailyLossSymbol = $1 },
        quantity("limits.daily_loss_host", "5000") { $0.parameters.limits.dailyLossHost = $1 },

        milliseconds("paper.order_latency_ms", "5", 0...10_000) { $0.parameters.paperLatencyNanoseconds = $1 },
        milliseconds("paper.latency_jitter_ms", "0", 0...10_000) { $0.parameters.paperJitterNanoseconds = $1 },
        text("paper.queue_model", "conservative", "conservative or probabilistic", isQueueModel) {
            $0.parameters.paperRules.queueModel = QueueModel(rawValue: $1)!
        },
        flag("paper.post_only", true) { $0.parameters.paperRules.isPostOnly = $1 },

        number("features.ema_alpha", "0.1", 0.000_001...1) { $0.parameters.emaAlpha = $1 },
        bps("features.target_pnl_bps", "0", -10_000...10_000) { $0.parameters.targetPnL = $1 },
    ]

    private var intervalNanoseconds: Int64 = 50_000_000

    /// Defaults, then the file when given, then `overrides` (`key=value`), then what was ordered. Throws all mistakes at once.
    /// `read` returns a file's text, or nil when it cannot be read.
    static func load(
        file: String?, overrides: [String], ordered: OrderedParameters = OrderedParameters(), read: (String) -> String?
    ) throws(ConfigurationError) -> EdgeConfiguration {
        var configuration = EdgeConfiguration()
        var problems: [ConfigurationProblem] = []
        for key in keys { configuration.effective[key.path] = ConfigurationReader.canonical(key, key.standard) }
        var (standardInstruments, standardFees): (String?, String?) = (nil, nil)
        if let file {
            var reader = ConfigurationReader(file: file)
            if let text = read(file) {
                if let root = reader.compose(text) {
                    for (path, node) in reader.flatten(root) {
                        reader.apply(path, node, keys, to: &configuration)
                        if let key = keys.first(where: { $0.path == path }) {
                            configuration.effective[path] = ConfigurationReader.canonical(key, node.string ?? "")
                        }
                    }
                }
            } else {
                reader.problem(nil, "", "cannot be read as UTF-8 text; does it exist?")
            }
            problems += reader.problems
            let folder = file.contains("/") ? String(file[..<file.lastIndex(of: "/")!]) + "/" : ""
            for path in [\EdgeConfiguration.tls.certificate, \.tls.key, \.tls.authority] {
                configuration[keyPath: path] = resolve(configuration[keyPath: path], folder)
            }
            for table in [\EdgeConfiguration.instrumentsFile, \.feesFile] {
                configuration[keyPath: table] = configuration[keyPath: table].map { resolve($0, folder) }
            }
            // Under their default names the two tables may be absent; one that is named must be there.
            (standardInstruments, standardFees) = (folder + "instruments.yaml", folder + "fees.yaml")
        }
        func set(_ path: String, _ value: String, from source: String) {
            guard let key = keys.first(where: { $0.path == path }) else {
                problems.append(ConfigurationProblem(file: source, key: path, text: ConfigurationReader.unknown(path, keys)))
                return
            }
            if let wrong = ConfigurationReader.set(key, value, &configuration) {
                problems.append(ConfigurationProblem(file: source, key: key.path, text: wrong))
            }
            configuration.effective[key.path] = ConfigurationReader.canonical(key, value)
        }
        for text in overrides {
            guard let equals = text.firstIndex(of: "=") else {
                problems.append(ConfigurationProblem(file: "--set", key: text, text: "needs key=value"))
                continue
            }
            set(String(text[..<equals]), String(text[text.index(after: equals)...]), from: "--set")
        }
        for order in ordered.values { set(order.key, order.value, from: OrderedParameters.fileName) }
        // Behind the overrides, which may name them, too.
        if let instruments = configuration.instrumentsFile ?? standardInstruments.flatMap({ read($0) == nil ? nil : $0 }) {
            configuration.loadInstruments(instruments, read, &problems)
        }
        if let fees = configuration.feesFile ?? standardFees.flatMap({ read($0) == nil ? nil : $0 }) {
            configuration.loadFees(fees, read, &problems)
        }
        if problems.isEmpty { problems += configuration.relationProblems(file ?? "--set") }
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
        return configuration
    }

    /// The parameters for one venue: its fees and its bound of the topic proof applied.
    func parameters(for venue: String) -> Parameters {
        var result = parameters
        if let bound = QuoteNode.Venue(rawValue: venue)?.topicProofNanosecondsMax {
            result.cache.topicProofNanoseconds = min(result.cache.topicProofNanoseconds, bound)
        }
        if let (maker, taker) = fees[venue] {
            result.makerFee = maker
            result.takerFee = taker
        }
        return result
    }

    /// SipHash over all effective values of one venue (SPEC 2: `config_hash`), and an experiment's candidate's. Where files lie, where peers are
    /// and what the host is called does not count.
    func hash(for venue: String, candidate: [ExperimentSpec.Override] = []) -> UInt64 {
        let fees = parameters(for: venue)
        var lines = effective.filter { !Self.isPlace($0.key) }.map { "\($0.key)=\($0.value)" }
        lines += candidate.map { override in
            let key = Self.keys.first { $0.path == override.key }
            return "candidate.\(override.key)=\(key.map { ConfigurationReader.canonical($0, override.value) } ?? override.value)"
        }
        for instrument in instruments[venue] ?? [] where instrument.sizeUnit != 1 {
            lines.append("size_unit.\(instrument.symbol)=\(instrument.sizeUnit)")
        }
        for instrument in instruments[venue] ?? [] where instrument.minimumNotional != 0 {
            lines.append("min_notional.\(instrument.symbol)=\(instrument.minimumNotional)")
        }
        for instrument in instruments[venue] ?? [] where instrument.isInverse {
            lines.append("contract.\(instrument.symbol)=\(instrument.contractMultiplier ?? 0)")
        }
        lines += ["fees.maker_bps=\(fees.makerFee.micro)", "fees.taker_bps=\(fees.takerFee.micro)"]
        return KeyedHash.hash(lines.sorted().joined(separator: "\n").utf8, key0: 0, key1: 0)
    }

    /// This configuration with an experiment's overrides, or what is wrong with them (SPEC 7.1). Checked like `--set`, and narrower: only what
    /// a candidate may differ in, so that no override is without effect.
    func candidate(_ overrides: [ExperimentSpec.Override]) throws(ConfigurationError) -> EdgeConfiguration {
        var result = self
        var problems: [ConfigurationProblem] = []
        for override in overrides {
            guard let key = Self.keys.first(where: { $0.path == override.key }) else {
                problems.append(
                    ConfigurationProblem(file: "candidate", key: override.key, text: ConfigurationReader.unknown(override.key, Self.keys)))
                continue
            }
            guard Self.isQuoting(key.path) else {
                problems.append(ConfigurationProblem(file: "candidate", key: key.path, text: "is not for an experiment to change"))
                continue
            }
            if let wrong = ConfigurationReader.set(key, override.value, &result) {
                problems.append(ConfigurationProblem(file: "candidate", key: key.path, text: wrong))
            }
            result.effective[key.path] = ConfigurationReader.canonical(key, override.value)
        }
        if problems.isEmpty { problems += result.relationProblems("candidate") }
        if result.parameters.cache.maxStaleNanoseconds > parameters.cache.maxStaleNanoseconds {
            problems.append(
                ConfigurationProblem(file: "candidate", key: "md_cache.max_stale_ms", text: "no candidate may quote on older books"))
        }
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
        return result
    }

    /// Why a running edge cannot go over to `new`; empty when it can. Only how it quotes may change while it runs: where things are, what is
    /// quoted and how its rows are identified are what every open file and connection was made for.
    func reloadProblems(_ new: EdgeConfiguration, file: String) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        for key in Self.keys.map(\.path) where effective[key] != new.effective[key] && !Self.isReloadable(key) {
            problems.append(
                ConfigurationProblem(
                    file: file, key: key,
                    text: "needs a restart: '\(effective[key] ?? "")' is in effect, '\(new.effective[key] ?? "")' is wanted"))
        }
        func quoted(_ configuration: EdgeConfiguration) -> [Instrument] {
            (configuration.instruments[venue.name] ?? []).filter { venue.symbols.contains($0.symbol) }.sorted { $0.symbol < $1.symbol }
        }
        if quoted(self) != quoted(new) {
            problems.append(
                ConfigurationProblem(file: file, key: "instruments_file", text: "needs a restart: an instrument in use changed"))
        }
        for key in new.parameters.limits.widened(beyond: parameters.limits) {
            problems.append(
                ConfigurationProblem(
                    file: file, key: key,
                    text: "needs a restart: a hard limit may only get narrower while the edge runs; '\(effective[key] ?? "")' is in effect")
            )
        }
        return problems
    }

    private static func isReloadable(_ path: String) -> Bool {
        ["md_cache.", "pipeline.", "spread.", "guards.", "quoting.", "limits.", "paper.", "features."].contains { path.hasPrefix($0) }
    }

    /// What is wrong with an experiment's candidate here, in a sentence; nil when nothing is.
    func refusal(of spec: ExperimentSpec) -> String? {
        do throws(ConfigurationError) {
            _ = try candidate(spec.candidate)
            return nil
        } catch {
            return error.problems.map { "\($0.key): \($0.text)" }.joined(separator: "; ")
        }
    }

    /// The parameters that `Parameters.candidate(to:)` leaves to a candidate.
    private static func isQuoting(_ path: String) -> Bool {
        let kept = [
            "quoting.orders_per_second", "quoting.orders_burst", "md_cache.topic_proof_ms", "md_cache.invalidate_on_jump_bps",
            "md_cache.invalidate_on_ws_gap_ms", "md_cache.max_depth",
        ]
        return ["md_cache.", "spread.", "guards.", "quoting."].contains { path.hasPrefix($0) } && !kept.contains(path)
    }

    /// Where things are, not how they are done.
    private static func isPlace(_ path: String) -> Bool {
        ["host", "artifacts_dir", "instruments_file", "fees_file"].contains(path)
            || ["venue.", "hub.", "tls.", "metrics.", "retention."].contains { path.hasPrefix($0) }
    }

    // MARK: Other files

    private mutating func loadInstruments(_ file: String, _ read: (String) -> String?, _ problems: inout [ConfigurationProblem]) {
        var reader = ConfigurationReader(file: file)
        defer { problems += reader.problems }
        guard let text = read(file) else { return reader.problem(nil, "", "cannot be read as UTF-8 text; does it exist?") }
        guard let root = reader.compose(text) else { return }
        guard case .mapping(let venues) = root else { return reader.problem(root, "", "must be a mapping of venues") }
        for (venueNode, symbolsNode) in venues {
            let venue = venueNode.string ?? "?"
            guard Self.venues.contains(venue), case .mapping(let symbols) = symbolsNode else {
                reader.problem(
                    venueNode, venue, "unknown venue or no mapping of symbols; \(Self.venues.joined(separator: ", ")) are allowed")
                continue
            }
            for (symbolNode, valuesNode) in symbols {
                let symbol = symbolNode.string ?? "?"
                var values: [String: String] = [:]
                for (key, node) in reader.flatten(valuesNode) {
                    if ["tick", "lot", "size_unit", "contract", "min_notional"].contains(key) {
                        values[key] = node.string
                    } else {
                        reader.problem(node, key, "unknown key; tick, lot, size_unit, contract and min_notional are allowed")
                    }
                }
                guard let (digits, units) = Self.step(values["tick"], places: Places.price),
                    let (lotDigits, lotUnits) = Self.step(values["lot"], places: Places.quantity)
                else {
                    reader.problem(symbolNode, "\(venue).\(symbol)", "tick and lot must both be positive decimals such as 0.10")
                    continue
                }
                guard let sizeUnit = Int64(values["size_unit"] ?? "1"), (1...1_000_000_000).contains(sizeUnit) else {
                    reader.problem(symbolNode, "\(venue).\(symbol)", "size_unit must be a whole number; 1...1000000000 is allowed")
                    continue
                }
                let isInverse = QuoteNode.Venue(rawValue: venue)?.binance == .coinm
                let contract = values["contract"].flatMap { Int64($0) }
                let isRight = isInverse ? (1...Limits.contractMultiplierMax).contains(contract ?? 0) : values["contract"] == nil
                guard isRight else {
                    reader.problem(
                        symbolNode, "\(venue).\(symbol)",
                        isInverse
                            ? "contract must say what a contract is worth; 1...\(Limits.contractMultiplierMax), whole, is allowed"
                            : "contract belongs to binance-coinm only")
                    continue
                }
                guard let minimum = ConfigurationReader.exact(values["min_notional"] ?? "0", places: Places.notional),
                    (0...1_000_000 * 100_000_000).contains(minimum)
                else {
                    reader.problem(symbolNode, "\(venue).\(symbol)", "min_notional must be quote currency; 0...1000000 is allowed")
                    continue
                }
                instruments[venue, default: []].append(
                    Instrument(
                        symbol: symbol, priceDigits: digits, tickUnits: units, quantityDigits: lotDigits, lotUnits: lotUnits,
                        sizeUnit: sizeUnit, contractMultiplier: contract, minimumNotional: minimum))
            }
        }
    }

    private mutating func loadFees(_ file: String, _ read: (String) -> String?, _ problems: inout [ConfigurationProblem]) {
        var reader = ConfigurationReader(file: file)
        defer { problems += reader.problems }
        guard let text = read(file) else { return reader.problem(nil, "", "cannot be read as UTF-8 text; does it exist?") }
        guard let root = reader.compose(text) else { return }
        var found: [String: [String: BasisPoints]] = [:]
        for (path, node) in reader.flatten(root) {
            let parts = path.split(separator: ".", maxSplits: 1).map(String.init)
            guard parts.count == 2, ["maker_bps", "taker_bps"].contains(parts[1]), Self.venues.contains(parts[0]) else {
                reader.problem(
                    node, path, "unknown key; a venue (\(Self.venues.joined(separator: ", "))) with maker_bps and taker_bps is allowed")
                continue
            }
            guard let micro = ConfigurationReader.exact(node.string ?? "", places: Places.bps),
                (-1_000_000_000...1_000_000_000).contains(micro)
            else {
                reader.problem(node, path, "'\(node.string ?? "")' is not a number; -1000...1000 is allowed, a rebate is negative")
                continue
            }
            found[parts[0], default: [:]][parts[1]] = BasisPoints(micro: micro)
        }
        for venue in found.keys.sorted() {
            guard let maker = found[venue]?["maker_bps"], let taker = found[venue]?["taker_bps"] else {
                reader.problem(root, venue, "needs both maker_bps and taker_bps")
                continue
            }
            fees[venue] = (maker, taker)
        }
    }

    private func relationProblems(_ file: String) -> [ConfigurationProblem] {
        func problem(_ key: String, _ text: String) -> ConfigurationProblem {
            ConfigurationProblem(file: file, key: key, text: text)
        }
        var result: [ConfigurationProblem] = []
        let parameters = parameters
        if parameters.cache.freshForPricingNanoseconds > parameters.cache.ttlNanoseconds {
            result.append(problem("md_cache.fresh_ms_for_pricing", "is above md_cache.ttl_ms; 10...ttl_ms is allowed"))
        }
        if parameters.spread.minimum > parameters.spread.maximum { result.append(problem("spread.min_bps", "is above spread.max_bps")) }
        for (key, limits, rises) in [
            ("guards.volatility", parameters.guards.volatility, true), ("guards.latency", parameters.guards.latency, true),
            ("guards.pnl_z", parameters.guards.pnlZ, false), ("guards.inventory", parameters.guards.inventory, true),
            ("guards.taker_fills", parameters.guards.takerFills, true),
        ] where rises ? limits.soft > limits.hard : limits.soft < limits.hard {
            result.append(problem(key, "its soft threshold is beyond its hard one"))
        }
        return result
    }

    // MARK: Table leaves

    private static let venues = QuoteNode.Venue.allCases.map(\.rawValue)

    @Sendable private static func isLiveVenue(_ text: String) -> Bool { venues.contains(text) }
    @Sendable private static func isVenueURL(_ text: String) -> Bool { VenueURL(text) != nil }
    @Sendable private static func isRESTURL(_ text: String) -> Bool { text == "auto" || VenueURL(rest: text) != nil }
    @Sendable private static func isDepth(_ text: String) -> Bool { ["50", "200", "1000"].contains(text) }
    @Sendable private static func isListen(_ text: String) -> Bool { text == "off" || address(text) != nil }
    @Sendable private static func isSymbolList(_ text: String) -> Bool {
        let names = text.split(separator: ",", omittingEmptySubsequences: false).map { $0.filter { $0 != " " } }
        return (1...Limits.symbolsMax).contains(names.count) && Set(names).count == names.count
            && names.allSatisfy { name in
                (1...20).contains(name.utf8.count) && name.utf8.allSatisfy { (48...57).contains($0) || (65...90).contains($0) || $0 == 95 }
            }
    }

    /// `host:port`; port 0 lets the system choose. An IPv6 address stands in brackets.
    static func address(_ text: String) -> (host: String, port: Int)? {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]), (0...65_535).contains(port) else {
            return nil
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() } else if host.contains(":") { return nil }
        return host.isEmpty ? nil : (String(host), port)
    }

    @Sendable private static func isPath(_ text: String) -> Bool { !text.isEmpty }
    @Sendable private static func isQueueModel(_ text: String) -> Bool { QueueModel(rawValue: text) != nil }
    @Sendable private static func isTrigger(_ text: String) -> Bool { text == "book" || text == "interval" }
    @Sendable private static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 64
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 45 || $0 == 46 || $0 == 95
            }
    }

    private static func resolve(_ name: String, _ folder: String) -> String { name.hasPrefix("/") ? name : folder + name }

    /// Decimal places and units of a step such as 0.10: (1, 1).
    private static func step(_ text: String?, places: Int) -> (digits: Int, units: Int64)? {
        guard let text, var units = ConfigurationReader.exact(text, places: places), units > 0 else { return nil }
        var digits = places
        while digits > 0, units.isMultiple(of: 10) {
            units /= 10
            digits -= 1
        }
        return (digits, units)
    }

    private static func flag(_ path: String, _ standard: Bool, _ set: @escaping @Sendable (inout EdgeConfiguration, Bool) -> Void)
        -> ConfigurationKey<EdgeConfiguration>
    {
        ConfigurationKey(path: path, standard: "\(standard)", kind: .boolean(set))
    }

    private static func integer(
        _ path: String, _ standard: Int64, _ range: ClosedRange<Int64>, _ set: @escaping @Sendable (inout EdgeConfiguration, Int64) -> Void
    ) -> ConfigurationKey<EdgeConfiguration> {
        ConfigurationKey(path: path, standard: "\(standard)", kind: .integer(range, set))
    }

    /// Set in nanoseconds.
    private static func milliseconds(
        _ path: String, _ standard: String, _ range: ClosedRange<Int64>, _ set: @escaping @Sendable (inout EdgeConfiguration, Int64) -> Void
    ) -> ConfigurationKey<EdgeConfiguration> {
        ConfigurationKey(
            path: path, standard: standard,
            kind: .decimal(places: Places.milliseconds, range.lowerBound * 1_000_000...range.upperBound * 1_000_000, set))
    }

    private static func bps(
        _ path: String, _ standard: String, _ range: ClosedRange<Int64>,
        _ set: @escaping @Sendable (inout EdgeConfiguration, BasisPoints) -> Void
    ) -> ConfigurationKey<EdgeConfiguration> {
        ConfigurationKey(
            path: path, standard: standard,
            kind: .decimal(places: Places.bps, range.lowerBound * 1_000_000...range.upperBound * 1_000_000) {
                set(&$0, BasisPoints(micro: $1))
            })
    }

    /// 1e-8 units, above 0.
    private static func quantity(_ path: String, _ standard: String, _ set: @escaping @Sendable (inout EdgeConfiguration, Int64) -> Void)
        -> ConfigurationKey<EdgeConfiguration>
    {
        ConfigurationKey(path: path, standard: standard, kind: .decimal(places: Places.quantity, 1...1_000_000_000 * 100_000_000, set))
    }

    /// A plain number, six decimal places.
    private static func number(
        _ path: String, _ standard: String, _ range: ClosedRange<Double>,
        _ set: @escaping @Sendable (inout EdgeConfiguration, Double) -> Void
    ) -> ConfigurationKey<EdgeConfiguration> {
        ConfigurationKey(
            path: path, standard: standard,
            kind: .decimal(places: 6, Int64(range.lowerBound * 1e6)...Int64(range.upperBound * 1e6)) { set(&$0, Double($1) / 1e6) })
    }

    private static func text(
        _ path: String, _ standard: String, _ allowed: String, _ isAllowed: @escaping @Sendable (String) -> Bool,
        _ set: @escaping @Sendable (inout EdgeConfiguration, String) -> Void
    ) -> ConfigurationKey<EdgeConfiguration> {
        ConfigurationKey(path: path, standard: standard, kind: .text(allowed: "\(allowed) is allowed", isAllowed: isAllowed, set))
    }
}

/// `ws://host[:port]/path` or `wss://...`; for REST `http://host[:port]` or `https://...`.
struct VenueURL: Equatable {
    var isSecure: Bool
    var host: String
    var port: Int
    var path: String

    init?(_ text: String) {
        self.init(text, plain: "ws://", secure: "wss://")
    }

    init?(rest text: String) {
        self.init(text.hasSuffix("/") ? text : text + "/", plain: "http://", secure: "https://")
        guard path == "/" else { return nil }
    }

    private init?(_ text: String, plain: String, secure: String) {
        isSecure = text.hasPrefix(secure)
        guard isSecure || text.hasPrefix(plain) else { return nil }
        let rest = text.dropFirst((isSecure ? secure : plain).utf8.count)
        guard let slash = rest.firstIndex(of: "/"), rest.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
        path = String(rest[slash...])
        let authority = String(rest[..<slash])
        if let found = EdgeConfiguration.address(authority) {
            (host, port) = found
            guard port > 0 else { return nil }
        } else {
            guard !authority.isEmpty, !authority.contains(":") else { return nil }
            (host, port) = (authority, isSecure ? 443 : 80)
        }
    }
}
