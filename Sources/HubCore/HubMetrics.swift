import CalibModel
import Wire

/// What hosts answered to commands, as the control log has it: the same numbers after a restart.
package struct CommandResults: Sendable {
    /// By kind, then result.
    package private(set) var counts: [(kind: Message.CommandKind, result: Message.CommandState, count: Int64)] = []
    /// Nanoseconds from sending a command to hearing that it is in effect, in the order of `CommandKind`.
    package private(set) var latencies = Message.CommandKind.allCases.map { ($0, BoundedHistogram(bounds: MetricBounds.answer)) }

    mutating func add(_ kind: Message.CommandKind, _ result: Message.CommandState, _ nanoseconds: Int64?) {
        if let known = counts.firstIndex(where: { $0.kind == kind && $0.result == result }) {
            counts[known].count += 1
        } else {
            counts.append((kind, result, 1))
            counts.sort { ($0.kind.rawValue, $0.result.rawValue) < ($1.kind.rawValue, $1.result.rawValue) }
        }
        guard result == .applied, let nanoseconds, let place = latencies.firstIndex(where: { $0.0 == kind }) else { return }
        latencies[place].1.add(nanoseconds)
    }
}

/// What the hub's shell counts for `/metrics`, since the start.
package struct HubCounts: Sendable {
    package struct Stream: Sendable, Hashable {
        var host: String
        var feed: Feed
    }

    package private(set) var records: [Stream: Int64] = [:]
    /// Wall clock at the last one of a host that became durable.
    package private(set) var lastRecord: [String: WallTime] = [:]
    /// Nanoseconds of writing and syncing what waited.
    package var commits = BoundedHistogram(bounds: MetricBounds.sync)
    package private(set) var builds = BoundedHistogram(bounds: MetricBounds.build)
    /// Nil: none is here.
    package var lastBuild: WallTime?
    /// Rows that no view takes: how many by reason, those not looked at, and where the newest of each host are.
    package private(set) var rejected: [Stream: RowFaults] = [:]
    package private(set) var rejectedPlaces: [String: [(file: String, place: RowFaults.Place)]] = [:]
    /// Bytes of a host's files that were not what was received.
    package private(set) var quarantinedBytes: [String: Int64] = [:]

    package init() {}

    package mutating func rejected(_ host: String, _ file: String, _ faults: RowFaults) {
        guard let feed = FeedPart.parse(file)?.feed else { return }
        rejected[Stream(host: host, feed: feed), default: RowFaults()].add(faults)
        guard !faults.places.isEmpty else { return }
        let places = (rejectedPlaces[host] ?? []) + faults.places.map { (file, $0) }
        rejectedPlaces[host] = places.suffix(Limits.rejectedRowsListedMax)
    }

    package mutating func quarantined(_ host: String, bytes: Int64) { quarantinedBytes[host, default: 0] += bytes }

    /// Rows of a feed file became durable.
    package mutating func stored(_ host: String, _ file: String, records count: Int64, at wall: WallTime) {
        guard count > 0, let feed = FeedPart.parse(file)?.feed else { return }
        records[Stream(host: host, feed: feed), default: 0] += count
        lastRecord[host] = wall
    }

    package mutating func built(nanoseconds: Int64, at wall: WallTime) {
        builds.add(nanoseconds)
        lastBuild = wall
    }
}

extension Control {
    /// The gauges of every symbol a host has told of lately, by symbol, then host (SPEC 5).
    package func symbolFeatures(_ now: Instant) -> [SymbolFeatures] {
        var result: [SymbolFeatures] = []
        for (name, host) in hosts {
            for (symbol, entry) in host.status where now.since(entry.at) < Limits.lostNanoseconds {
                result.append(SymbolFeatures(symbol: symbol, host: name, values: entry.symbol.features))
            }
        }
        return result.sorted { ($0.symbol, $0.host ?? "") < ($1.symbol, $1.host ?? "") }
    }

    /// What `/metrics` of a hub shows (SPEC 9.2). The help texts are the documentation.
    package func metrics(_ ingest: Ingest, _ counts: HubCounts, at now: Moment) -> [MetricFamily] {
        Prometheus.families(of: symbolFeatures(now.instant)) + fleet(ingest, now) + stored(ingest, counts) + commanded(now) + [
            MetricFamily(
                "mm_hub_experiments_online", .gauge, help: "Experiments that are online.",
                value: .integer(Int64(experiments.count { $0.state == .online }))),
            MetricFamily(
                "mm_hub_experiment_info", .gauge,
                help: "Every experiment that is online, with a hash of what its candidate overrides; always 1.",
                samples: experiments.filter { $0.state == .online }.map { experiment in
                    let overrides = experiment.spec.candidate.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
                    var hash = JSONWriter()
                    hash.hex(KeyedHash.hash(overrides.utf8, key0: 0, key1: 0))
                    return MetricSample(
                        .integer(1),
                        labels: [
                            ("experiment", experiment.spec.id), ("mode", experiment.spec.mode),
                            ("candidate", String(decoding: hash.bytes.dropFirst().dropLast(), as: UTF8.self)),
                        ])
                }),
            MetricFamily(
                "mm_hub_dataset_build_duration_seconds", .histogram, help: "Datasets built, by how long it took.", unit: "seconds",
                value: .histogram(counts.builds, places: 9)),
            MetricFamily(
                "mm_hub_dataset_last_success_timestamp_seconds", .gauge, help: "When the newest dataset was built.", unit: "seconds",
                value: counts.lastBuild.map(Self.seconds)),
            MetricFamily(
                "mm_hub_log_records", .gauge, help: "Number of the newest durable record of the control log.",
                value: .integer(revision.number)),
        ]
    }

    private func fleet(_ ingest: Ingest, _ now: Moment) -> [MetricFamily] {
        let states = hosts.values.map { hostState($0, now.instant) }
        let arms = hosts.keys.sorted().flatMap { name -> [MetricSample] in
            let status = hosts[name]?.status ?? [:]
            return status.sorted { $0.key < $1.key }.filter { now.instant.since($0.value.at) < Limits.lostNanoseconds }.map {
                symbol, entry in
                MetricSample(
                    .integer(1),
                    labels: [
                        ("symbol", symbol), ("host", name), ("experiment", entry.symbol.experiment ?? ""), ("bucket", entry.symbol.arm),
                    ])
            }
        }
        return [
            MetricFamily(
                "mm_symbol_assignment_info", .gauge,
                help: "The arm a symbol plays (bucket A or B), and of which experiment, empty for none, as its host reports it; always 1.",
                samples: arms),
            MetricFamily(
                "mm_hub_hosts", .gauge, help: "Hosts the hub knows, by state.",
                samples: [HostState.connected, .silent, .lost].map { state in
                    MetricSample(.integer(Int64(states.count { $0 == state })), labels: [("state", state.rawValue)])
                }),
            MetricFamily(
                "mm_hub_host_clock_offset_seconds", .gauge,
                help: "The host's clock minus the hub's, as its last status came; what the status took to come is in it.", unit: "seconds",
                samples: perHost { $0.link == nil ? nil : $0.clockOffsetMilliseconds.map { .fixed($0, places: 3) } }),
            MetricFamily(
                "mm_hub_backlog_bytes", .gauge, help: "Bytes the edge has synced and the hub has not, as the edge reports it.",
                unit: "bytes", samples: perHost { $0.backlogBytes.map { .integer($0) } }),
            MetricFamily(
                "mm_hub_killed", .gauge, help: "1 while a whole host is killed.",
                samples: perHost { $0.isKilled.map { .integer($0 ? 1 : 0) } }),
        ]
    }

    private func perHost(_ value: (Host) -> MetricValue?) -> [MetricSample] {
        hosts.keys.sorted().compactMap { name in
            hosts[name].flatMap(value).map { MetricSample($0, labels: [("host", name)]) }
        }
    }

    private func stored(_ ingest: Ingest, _ counts: HubCounts) -> [MetricFamily] {
        let streams = Self.streams(counts.records)
        return [
            MetricFamily(
                "mm_hub_ingest_bytes", .counter, help: "Bytes of feeds accepted since the start.", unit: "bytes",
                value: .integer(ingest.receivedBytes)),
            MetricFamily(
                "mm_hub_ingest_records", .counter, help: "Rows of feeds made durable since the start.",
                samples: streams.map { MetricSample(.integer($1), labels: [("host", $0.host), ("stream", $0.feed.rawValue)]) }),
            MetricFamily(
                "mm_hub_host_last_record_timestamp_seconds", .gauge,
                help: "When rows of the host last became durable here; absent before the first since the start.", unit: "seconds",
                samples: counts.lastRecord.sorted { $0.key < $1.key }.map {
                    MetricSample(Self.seconds($0.value), labels: [("host", $0.key)])
                }),
            MetricFamily(
                "mm_hub_store_commit_duration_seconds", .histogram,
                help: "Rounds of the committer that wrote something: all files written, then each synced.", unit: "seconds",
                value: .histogram(counts.commits, places: 9)),
            MetricFamily(
                "mm_hub_unsynced_bytes", .gauge, help: "Bytes of feeds accepted and not synced yet.", unit: "bytes",
                samples: ingest.hostNames.map { MetricSample(.integer(ingest.unackedBytes(of: $0)), labels: [("host", $0)]) }),
            MetricFamily(
                "mm_hub_rejected_rows", .counter,
                help: "Rows that became durable and that no view takes, by what is wrong with them, since the start.",
                samples: Self.streams(counts.rejected).flatMap { stream, faults in
                    RejectReason.allCases.filter { faults.counts[$0.rawValue] > 0 }.map { reason in
                        MetricSample(
                            .integer(faults.counts[reason.rawValue]),
                            labels: [("host", stream.host), ("stream", stream.feed.rawValue), ("reason", "\(reason.name)")])
                    }
                }),
            MetricFamily(
                "mm_hub_unchecked_rows", .counter,
                help: "Rows that became durable faster than they are looked at, or within the first row after a start; views look at all.",
                samples: Self.streams(counts.rejected).filter { $0.1.unchecked > 0 }.map { stream, faults in
                    MetricSample(.integer(faults.unchecked), labels: [("host", stream.host), ("stream", stream.feed.rawValue)])
                }),
            MetricFamily(
                "mm_hub_quarantined_bytes", .counter,
                help: "Bytes the hub's disk did not hold as they were received, moved to quarantine/ and asked for again, since the start.",
                unit: "bytes",
                samples: counts.quarantinedBytes.sorted { $0.key < $1.key }.map {
                    MetricSample(.integer($0.value), labels: [("host", $0.key)])
                }),
            MetricFamily(
                "mm_hub_gone_bytes", .counter,
                help: "Bytes that had to make room at the edge before the hub had them, since the start.", unit: "bytes",
                samples: ingest.hostNames.map { MetricSample(.integer(ingest.goneBytes(of: $0)), labels: [("host", $0)]) }),
            MetricFamily(
                "mm_hub_stalled", .gauge, help: "1 while a file of the host cannot be stored.",
                samples: ingest.hostNames.map { MetricSample(.integer(ingest.isStalled($0) ? 1 : 0), labels: [("host", $0)]) }),
            MetricFamily(
                "mm_hub_forks", .gauge, help: "Parts that were begun because an edge had other bytes than the hub.",
                samples: ingest.hostNames.map { MetricSample(.integer(Int64(ingest.forks(of: $0).count)), labels: [("host", $0)]) }),
        ]
    }

    private func commanded(_ now: Moment) -> [MetricFamily] {
        let owed = commands.reduce(0) { $0 + $1.deliveries.values.count { !$0.state.isFinal } }
        var oldest: [String: (kind: Message.CommandKind, host: String, issued: Int64)] = [:]
        for command in commands {
            for (host, delivery) in command.deliveries where delivery.state == .sent || delivery.state == .unconfirmed {
                let key = "\(command.wire.kind.rawValue) \(host)"
                let issued = min(oldest[key]?.issued ?? .max, command.wire.issuedMilliseconds)
                oldest[key] = (command.wire.kind, host, issued)
            }
        }
        return [
            MetricFamily(
                "mm_hub_commands", .counter, help: "Answers of hosts to commands, of the whole control log.",
                samples: results.counts.map {
                    MetricSample(.integer($0.count), labels: [("kind", $0.kind.rawValue), ("result", $0.result.rawValue)])
                }),
            MetricFamily(
                "mm_hub_command_ack_duration_seconds", .histogram,
                help: "From sending a command to a host's word that it is in effect, of the whole control log.", unit: "seconds",
                samples: results.latencies.filter { $0.1.count > 0 }.map {
                    MetricSample(.histogram($0.1, places: 9), labels: [("kind", $0.0.rawValue)])
                }),
            MetricFamily(
                "mm_hub_command_oldest_unacked_age_seconds", .gauge,
                help: "Since when the oldest command that the host has not acknowledged at all has stood; absent when there is none.",
                unit: "seconds",
                samples: oldest.sorted { $0.key < $1.key }.map { _, entry in
                    MetricSample(
                        .fixed(max(0, now.wall.milliseconds - entry.issued), places: 3),
                        labels: [("kind", entry.kind.rawValue), ("host", entry.host)])
                }),
            MetricFamily(
                "mm_hub_deliveries_open", .gauge, help: "Commands owed to hosts that have not latched or rejected them.",
                value: .integer(Int64(owed))),
        ]
    }

    private static func streams<Value>(_ values: [HubCounts.Stream: Value]) -> [(HubCounts.Stream, Value)] {
        values.map { ($0.key, $0.value) }.sorted { ($0.0.host, $0.0.feed.rawValue) < ($1.0.host, $1.0.feed.rawValue) }
    }

    private static func seconds(_ wall: WallTime) -> MetricValue { .fixed(wall.milliseconds, places: 3) }
}
