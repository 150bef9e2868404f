import CalibModel

/// Which symbol a frame's name means: three words of text compared at once instead of up to 500 names one after the other.
struct SymbolTable: ~Copyable {
    /// Longer names are not in the table; no venue has one.
    static let nameBytesMax = 24

    /// A name as words, padded with zeros.
    private struct Name: Equatable {
        var first: UInt64 = 0
        var second: UInt64 = 0
        var third: UInt64 = 0
        var count = 0

        init?(_ text: UnsafeRawBufferPointer) {
            count = text.count
            guard count <= SymbolTable.nameBytesMax else { return nil }
            first = Self.word(text, 0)
            if count > 8 { second = Self.word(text, 8) }
            if count > 16 { third = Self.word(text, 16) }
        }

        private static func word(_ text: UnsafeRawBufferPointer, _ start: Int) -> UInt64 {
            if text.count &- start >= 8 { return text.loadUnaligned(fromByteOffset: start, as: UInt64.self) }
            let count = text.count &- start
            if count >= 4 {
                // Two halves that overlap.
                let low = text.loadUnaligned(fromByteOffset: start, as: UInt32.self)
                let high = text.loadUnaligned(fromByteOffset: text.count &- 4, as: UInt32.self)
                return UInt64(low) | UInt64(high) &<< UInt64(truncatingIfNeeded: 8 &* (count &- 4))
            }
            var result: UInt64 = 0
            var index = text.count
            while index > start {
                index &-= 1
                result = result << 8 | UInt64(text[index])
            }
            return result
        }

        var hash: UInt64 { (first ^ second &* 0xff51_afd7_ed55_8ccd ^ third &* 0xc4ce_b9fe_1a85_ec53) &* 0x9e37_79b9_7f4a_7c15 }
    }

    /// Nil is a free place; at most half of them are taken.
    private let slots: UnsafeMutablePointer<(name: Name, symbol: SymbolIndex)?>
    private let mask: Int

    init(_ symbols: [String]) {
        var capacity = 16
        while capacity < 2 * symbols.count { capacity *= 2 }
        mask = capacity - 1
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: nil, count: capacity)
        for (index, symbol) in symbols.enumerated() {
            let name = Array(symbol.utf8).withUnsafeBytes { Name($0) }
            guard let name else { continue }
            let place = place(of: name)
            // Of two of one name the first counts.
            if slots[place] == nil { slots[place] = (name, SymbolIndex(index)) }
        }
    }

    deinit { slots.deallocate() }

    func find(_ text: UnsafeRawBufferPointer) -> SymbolIndex? {
        guard let name = Name(text) else { return nil }
        return slots[place(of: name)]?.symbol
    }

    /// Where the name is, or would be.
    private func place(of name: Name) -> Int {
        var place = Int(truncatingIfNeeded: name.hash >> 40) & mask
        while let taken = slots[place], taken.name != name { place = (place &+ 1) & mask }
        return place
    }
}
