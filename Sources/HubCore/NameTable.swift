/// Dense ids for names that arrive as bytes: no String is made for a name that is known.
struct NameTable {
    /// Id -> UTF-8, in order of arrival.
    private(set) var names: [[UInt8]] = []
    /// Open addressing, a power of two, at most half full; -1 is free.
    private var slots = [Int32](repeating: -1, count: 64)

    mutating func id(of name: UnsafeRawBufferPointer) -> Int32 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325  // FNV-1a.
        for byte in name { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] >= 0 {
            if names[Int(slots[slot])].elementsEqual(name) { return slots[slot] }
            slot = (slot + 1) & (slots.count - 1)
        }
        let id = Int32(names.count)
        names.append(Array(name))
        slots[slot] = id
        if names.count * 2 > slots.count { grow() }
        return id
    }

    mutating func id(of name: String) -> Int32 { Array(name.utf8).withUnsafeBytes { id(of: $0) } }

    func text(_ id: Int32) -> String { String(decoding: names[Int(id)], as: UTF8.self) }

    private mutating func grow() {
        slots = [Int32](repeating: -1, count: slots.count * 2)
        for (id, name) in names.enumerated() {
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325
            for byte in name { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
            while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
            slots[slot] = Int32(id)
        }
    }
}
