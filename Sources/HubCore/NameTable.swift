/// Dense ids for names that arrive as bytes: no String is made for a name that is known.
struct NameTable {
    /// Id -> UTF-8, in order of arrival.
    private(set) var names: [[UInt8]] = []
    /// Open addressing, a power of two, at most half full; -1 is free.
    private var slots = [Int32](repeating: -1, count: 64)
    /// Names of up to 16 bytes seen lately, by a hash of their bytes: what nearly every look-up finds.
    private var recent = [Recent](repeating: Recent(low: 0, high: 0, length: -1, id: -1), count: 256)

    private struct Recent {
        var low: UInt64
        var high: UInt64
        var length: Int
        var id: Int32
    }

    @inline(__always) mutating func id(of name: UnsafeRawBufferPointer) -> Int32 {
        guard name.count <= 16, let (low, high) = Self.words(of: name) else { return find(name) }
        // The two are the same for names of eight bytes.
        let place = Int(truncatingIfNeeded: ((low &+ high &* 3) &* 0x9e37_79b9_7f4a_7c15) &>> 56)
        let known = recent[place]
        if known.low == low, known.high == high, known.length == name.count { return known.id }
        let id = find(name)
        recent[place] = Recent(low: low, high: high, length: name.count, id: id)
        return id
    }

    /// With the length, two words that tell names of up to 16 bytes apart: they may overlap, so that no byte outside the name is read.
    @inline(__always) private static func words(of name: UnsafeRawBufferPointer) -> (UInt64, UInt64)? {
        guard let text = name.baseAddress, name.count > 0 else { return nil }
        let count = name.count
        if count >= 8 {
            return (text.loadUnaligned(as: UInt64.self), text.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self))
        }
        if count >= 4 {
            return (
                UInt64(text.loadUnaligned(as: UInt32.self)), UInt64(text.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self))
            )
        }
        return (UInt64(name[0]) | UInt64(name[count / 2]) << 8 | UInt64(name[count - 1]) << 16, 0)
    }

    private mutating func find(_ name: UnsafeRawBufferPointer) -> Int32 {
        var slot = Self.hash(name) & (slots.count - 1)
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

    /// The ids here of another table's names, by their ids there.
    mutating func ids(of other: NameTable) -> [Int32] { other.names.map { name in name.withUnsafeBytes { id(of: $0) } } }

    /// Id -> place in byte order.
    func ranks() -> [Int] {
        var ranks = [Int](repeating: 0, count: names.count)
        for (rank, id) in names.indices.sorted(by: { names[$0].lexicographicallyPrecedes(names[$1]) }).enumerated() { ranks[id] = rank }
        return ranks
    }

    /// FNV-1a.
    private static func hash(_ name: some Sequence<UInt8>) -> Int {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in name { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return Int(truncatingIfNeeded: hash)
    }

    private mutating func grow() {
        slots = [Int32](repeating: -1, count: slots.count * 2)
        for (id, name) in names.enumerated() {
            var slot = Self.hash(name) & (slots.count - 1)
            while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
            slots[slot] = Int32(id)
        }
    }
}
