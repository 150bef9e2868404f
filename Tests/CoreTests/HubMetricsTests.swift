import CalibModel
import HubCore
import Testing
import Wire

/// What a hub shows of its fleet, its feeds and its commands.
@Suite struct HubMetricsTests {
    private func lines(_ hub: ControlTests.Hub, _ counts: HubCounts = HubCounts()) -> [String] {
        let families = hub.control.metrics(Ingest(), counts, at: hub.moment)
        return String(decoding: Prometheus.exposition(families, .text), as: UTF8.self).split(separator: "\n").map(String.init)
    }

    @Test func commandsAreCounted_andTheirAgeTold_alsoAfterARestart() throws {
        var hub = ControlTests.Hub()
        hub.connect(1, "tokyo")
        hub.connect(2, "osaka")
        hub.create()
        #expect(lines(hub).contains { $0.hasPrefix("mm_hub_experiment_info{experiment=\"x\",mode=\"online\",candidate=\"") })
        hub.request("experiment rollback", ["id": "x", "reason": "bad"])
        let id = try #require(hub.control.commands.last?.wire.id)
        hub.now += 40
        hub.result(1, id, .applied)
        hub.now += 60_000
        let shown = lines(hub)
        #expect(shown.contains("mm_hub_commands_total{kind=\"rollback\",result=\"applied\"} 1"))
        #expect(shown.contains("mm_hub_command_ack_duration_seconds_bucket{kind=\"rollback\",le=\"0.05\"} 1"))
        #expect(shown.contains("mm_hub_command_ack_duration_seconds_bucket{kind=\"rollback\",le=\"0.025\"} 0"))
        #expect(
            shown.filter { $0.hasPrefix("mm_hub_command_oldest_unacked_age_seconds{") } == [
                "mm_hub_command_oldest_unacked_age_seconds{kind=\"rollback\",host=\"osaka\"} 60.04"
            ])
        #expect(!shown.contains { $0.contains("experiment_info{") }, "it is not online any more")

        let again = ControlTests.Hub(replaying: hub.log)
        #expect(lines(again).contains("mm_hub_commands_total{kind=\"rollback\",result=\"applied\"} 1"))
        hub.result(2, id, .applied)
        #expect(!lines(hub).contains { $0.hasPrefix("mm_hub_command_oldest_unacked_age_seconds{") })
    }

    @Test func clockOffsetIsTheHosts_whileItIsConnected() {
        var hub = ControlTests.Hub()
        hub.connect(1, "tokyo")
        #expect(!lines(hub).contains { $0.hasPrefix("mm_hub_host_clock_offset_seconds{") })
        hub.step(
            .received(
                LinkID(1),
                .status(
                    Message.Status(
                        wallMilliseconds: hub.now - 1270, revision: .zero, backlogBytes: 0, isKilled: false, symbols: []))))
        #expect(lines(hub).contains("mm_hub_host_clock_offset_seconds{host=\"tokyo\"} -1.27"))
        hub.step(.disconnected(LinkID(1)))
        #expect(!lines(hub).contains { $0.hasPrefix("mm_hub_host_clock_offset_seconds{") })
    }

    @Test func storedRowsAreCountedByHostAndStream() {
        var counts = HubCounts()
        counts.stored("tokyo", "fills_20250101.jsonl", records: 3, at: WallTime(nanoseconds: 1_500_000_000))
        counts.stored("tokyo", "fills_20250102.jsonl", records: 4, at: WallTime(nanoseconds: 2_500_000_000))
        counts.stored("tokyo", "events_20250102.jsonl", records: 0, at: WallTime(nanoseconds: 9_000_000_000))
        counts.commits.add(3_000_000)
        let before = lines(ControlTests.Hub(), counts)
        #expect(
            before.filter { $0.hasPrefix("mm_hub_ingest_records_total{") } == [
                "mm_hub_ingest_records_total{host=\"tokyo\",stream=\"fills\"} 7"
            ])
        #expect(before.contains("mm_hub_host_last_record_timestamp_seconds{host=\"tokyo\"} 2.5"))
        #expect(before.contains("mm_hub_store_commit_duration_seconds_bucket{le=\"0.005\"} 1"))
        #expect(!before.contains { $0.hasPrefix("mm_hub_dataset_last_success") }, "none was built")
        counts.built(nanoseconds: 700_000_000, at: WallTime(nanoseconds: 60_000_000_000))
        let after = lines(ControlTests.Hub(), counts)
        #expect(after.contains("mm_hub_dataset_last_success_timestamp_seconds 60.0"))
        #expect(after.contains("mm_hub_dataset_build_duration_seconds_bucket{le=\"1.0\"} 1"))
    }
}
