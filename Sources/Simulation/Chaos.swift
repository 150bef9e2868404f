import CalibModel

extension World {
    /// One fault, then the next some time later.
    func chaos() {
        guard !isHealing else { return }
        after(seconds(1, 90)) { $0.chaos() }
        let faults: [Fault] = [
            .cut, .cut, .partition, .halfOpen, .slowReader, .shortWrite, .diskFull, .syncError, .edgeKill, .edgePowerLoss, .hubKill,
            .hubPowerLoss, .clockStep, .bitFlip, .restoredCopy, .emptyDisk, .hubDiskLost, .retention,
        ]
        let edge = Int(random.below(Int64(edges.count)))
        let fault = faults[Int(random.below(Int64(faults.count)))]
        trace(5, Int64(Fault.allCases.firstIndex(of: fault)!), Int64(edge))
        inflict(fault, edge)
    }

    /// The disk of the hub, or of the edge.
    private func someDisk(_ edge: Int) -> SimDisk { random.below(2) == 0 ? hub.disk : edges[edge].disk }

    private func inflict(_ fault: Fault, _ edge: Int) {
        switch fault {
        case .cut:
            guard let id = edges[edge].connection else { return }
            let side = random.below(2) == 0 ? SimConnection.Side.edge : .hub
            connections[id]?.streams[side.rawValue].bytesUntilCut = Int(random.acrossOctaves(14)) - 1
            faults.add(.cut)
        case .partition:
            edges[edge].partitionedUntil = now + seconds(1, 120)
            faults.add(.partition)
        case .halfOpen:
            guard let id = edges[edge].connection else { return }
            connections[id]?.isDead = true
            end(id, .edge)
            faults.add(.halfOpen)
        case .slowReader:
            guard let id = edges[edge].connection else { return }
            let side = random.below(2) == 0 ? SimConnection.Side.edge : .hub
            connections[id]?.streams[side.rawValue].slowUntil = now + seconds(1, 20)
            faults.add(.slowReader)
        case .shortWrite: someDisk(edge).shortWrites = 1 + Int(random.below(3))
        case .syncError: someDisk(edge).failingSyncs = 1 + Int(random.below(3))
        case .diskFull:
            let disk = someDisk(edge)
            disk.isFull = true
            after(seconds(1, 120)) { _ in disk.isFull = false }
        case .edgeKill:
            guard edges[edge].writer != nil else { return }
            stopEdge(edge, losingPower: false)
            faults.add(.edgeKill)
            after(seconds(0, 60)) { $0.startEdge(edge) }
        case .edgePowerLoss:
            if random.below(2) == 0 {
                edges[edge].disk.operationsUntilPowerLoss = 1 + Int(random.below(40))
            } else if edges[edge].writer != nil {
                edgeDied(edge)
            }
        case .hubKill:
            guard hub.ingest != nil else { return }
            stopHub(losingPower: false)
            faults.add(.hubKill)
            after(seconds(0, 60)) { $0.startHub() }
        case .hubPowerLoss:
            if random.below(2) == 0 {
                hub.disk.operationsUntilPowerLoss = 1 + Int(random.below(40))
            } else if hub.ingest != nil {
                hubDied()
            }
        case .clockStep:
            // Within an hour either way; sometimes a whole day ahead, so that there are days behind, too.
            if random.below(3) == 0 {
                hub.wallOffset += seconds(0, 7200) - 3_600_000_000_000
            } else {
                edges[edge].wallOffset += random.below(2) == 0 ? 86_400_000_000_000 : seconds(0, 7200) - 3_600_000_000_000
            }
            faults.add(.clockStep)
        case .bitFlip:
            // An edge whose disk turns bits while nobody looks is another story: its rows have no second copy yet.
            // And what was found to be complete is not compared again (SPEC 8.2): a disk that turns bits of it is a backup's business.
            let paths = hub.disk.paths.filter {
                $0.hasPrefix("host=\(edges[edge].name)/") && $0.hasSuffix(".jsonl") && !$0.contains("/.") && !isSealed($0)
            }
            guard !edges[edge].wasReplaced, !edges[edge].hasForcedRemovals, !paths.isEmpty else { return }
            if hub.disk.flipBit(of: paths[Int(random.below(Int64(paths.count)))]) != nil { edges[edge].hubWasDamaged = true }
        case .restoredCopy:
            guard !edges[edge].hubWasDamaged, let backup = edges[edge].backup else {
                edges[edge].backup = edges[edge].disk.backup()
                return
            }
            replaceDisk(edge, by: backup)
            faults.add(.restoredCopy)
        case .emptyDisk:
            guard !edges[edge].hubWasDamaged, random.below(4) == 0 else { return }
            replaceDisk(edge, by: [:])
            faults.add(.emptyDisk)
        case .hubDiskLost:
            // What only the hub had would be lost, and is meant to be.
            guard random.below(12) == 0, edges.allSatisfy({ !$0.wasReplaced && !$0.hasRetired }) else { return }
            stopHub(losingPower: true)
            hub.disk.restore([:])
            (hub.log, hub.parts) = ([], [:])
            for edge in edges.indices { (edges[edge].hubWasDamaged, edges[edge].hubDiskWasLost) = (true, true) }
            faults.add(.hubDiskLost)
            after(seconds(0, 60)) { $0.startHub() }
        case .retention:
            // A day later, so that there are days to remove.
            edges[edge].wallOffset += 86_400_000_000_000
            retire(edge, bytesMax: random.below(2) == 0 ? 0 : random.below(1 << 20))
        case .delay, .tornRow, .lostTail, .zeroedTail: break  // Come of the others, or of the network itself.
        }
    }

    private func replaceDisk(_ edge: Int, by copy: [String: [UInt8]]) {
        edges[edge].wasReplaced = true
        edges[edge].latched = []
        stopEdge(edge, losingPower: true)
        edges[edge].disk.restore(copy)
        if random.below(2) == 0 { edges[edge].backup = nil }
        after(seconds(0, 60)) { $0.startEdge(edge) }
    }

    /// Nothing bad happens any more; what is down comes up.
    func heal() {
        isHealing = true
        for disk in edges.map(\.disk) + [hub.disk] {
            (disk.isFull, disk.shortWrites, disk.failingSyncs, disk.operationsUntilPowerLoss) = (false, 0, 0, nil)
        }
        for edge in edges.indices {
            edges[edge].partitionedUntil = 0
            // Days end, and every file with them, whatever the clock did: bits that the hub's disk turned long ago are found when a whole file is
            // compared.
            edges[edge].wallOffset += 2 * 86_400_000_000_000
            after(0) { $0.startEdge(edge) }
        }
        // Stored bytes at a file's end are checked when it is first touched.
        if hub.ingest != nil { stopHub(losingPower: false) }
        after(0) { $0.startHub() }
        for id in connections.keys.sorted() {
            for side in SimConnection.Side.allCases {
                connections[id]!.streams[side.rawValue].slowUntil = 0
                connections[id]!.streams[side.rawValue].bytesUntilCut = nil
                move(id, side)
            }
        }
    }
}
