/// What a world does to edges, hub, disks and network, and how often it has.
package enum Fault: String, CaseIterable, Sendable {
    case delay, cut, partition
    case halfOpen = "half_open"
    case slowReader = "slow_reader"
    case shortWrite = "short_write"
    case tornRow = "torn_row"
    case lostTail = "lost_tail"
    case zeroedTail = "zeroed_tail"
    case diskFull = "disk_full"
    case syncError = "sync_error"
    case bitFlip = "bit_flip"
    case restoredCopy = "restored_copy"
    case emptyDisk = "empty_disk"
    case hubDiskLost = "hub_disk_lost"
    case edgeKill = "edge_kill"
    case edgePowerLoss = "edge_power_loss"
    case hubKill = "hub_kill"
    case hubPowerLoss = "hub_power_loss"
    case clockStep = "clock_step"
    case retention
}

package struct FaultCounts: Sendable, Equatable {
    private var counts = [Int64](repeating: 0, count: Fault.allCases.count)
    package init() {}
    package subscript(fault: Fault) -> Int64 { counts[Fault.allCases.firstIndex(of: fault)!] }
    package mutating func add(_ fault: Fault) { counts[Fault.allCases.firstIndex(of: fault)!] += 1 }
    package mutating func add(_ other: FaultCounts) { for place in counts.indices { counts[place] += other.counts[place] } }
}
