/// Price levels far from the touch: sorted by key, many, seldom looked at, but changed one by one at any place.
///
/// A sorted list cut in chunks of 64: a change searches two short arrays and moves at most one chunk's worth of bytes, where one long array
/// would move half of itself. Chunks come from a fixed pool; one that is full is halved, one that is empty goes back, and when the pool is
/// empty all chunks are packed, which frees at least half of it.
struct FarLevels: ~Copyable {
    private static let chunkLevels = 64

    private struct Chunk {
        /// Its lowest key.
        var first: Int64
        /// Where its levels begin in `keys` and `quantities`.
        var start: Int
        var count: Int
    }

    private(set) var count = 0
    private let keys: UnsafeMutablePointer<Int64>
    private let quantities: UnsafeMutablePointer<Int64>
    /// Ascending; behind the used ones stand the free ones, of which only `start` counts.
    private let chunks: UnsafeMutablePointer<Chunk>
    private var chunkCount = 0
    private let chunksMax: Int

    /// - Parameter capacity: how many levels there will be at most.
    init(capacity: Int) {
        chunksMax = capacity / (Self.chunkLevels / 2) + 2
        keys = .allocate(capacity: chunksMax * Self.chunkLevels)
        quantities = .allocate(capacity: chunksMax * Self.chunkLevels)
        chunks = .allocate(capacity: chunksMax)
        for index in 0..<chunksMax {
            (chunks + index).initialize(to: Chunk(first: 0, start: index * Self.chunkLevels, count: 0))
        }
    }

    deinit {
        keys.deallocate()
        quantities.deallocate()
        chunks.deallocate()
    }

    mutating func removeAll() {
        count = 0
        chunkCount = 0
    }

    /// The highest key; only when there is one.
    var last: (key: Int64, quantity: Int64) {
        let chunk = chunks[chunkCount - 1]
        return (keys[chunk.start + chunk.count - 1], quantities[chunk.start + chunk.count - 1])
    }

    func quantity(of key: Int64) -> Int64 {
        guard count > 0 else { return 0 }
        let chunk = chunks[chunk(of: key)]
        let place = position(of: key, in: chunk)
        return place < chunk.count && keys[chunk.start + place] == key ? quantities[chunk.start + place] : 0
    }

    /// The highest key below the given one.
    func next(below key: Int64) -> (key: Int64, quantity: Int64)? {
        guard count > 0 else { return nil }
        var index = chunk(of: key)
        var place = position(of: key, in: chunks[index]) - 1
        if place < 0 {
            index -= 1
            guard index >= 0 else { return nil }
            place = chunks[index].count - 1
        }
        return (keys[chunks[index].start + place], quantities[chunks[index].start + place])
    }

    /// How many keys are above the given one.
    func count(above key: Int64) -> Int {
        guard count > 0 else { return 0 }
        let index = chunk(of: key)
        let chunk = chunks[index]
        let place = position(of: key, in: chunk)
        var result = chunk.count - place
        if place < chunk.count, keys[chunk.start + place] == key { result -= 1 }
        for later in (index + 1)..<max(index + 1, chunkCount) { result += chunks[later].count }
        return result
    }

    /// The level with that many higher ones among these.
    func level(_ rank: Int) -> (key: Int64, quantity: Int64)? {
        guard rank < count else { return nil }
        var left = rank
        var index = chunkCount - 1
        while left >= chunks[index].count {
            left -= chunks[index].count
            index -= 1
        }
        let place = chunks[index].start + chunks[index].count - 1 - left
        return (keys[place], quantities[place])
    }

    /// Sets the absolute quantity at a key; 0 removes it.
    mutating func set(_ key: Int64, _ quantity: Int64) {
        guard count > 0 else {
            if quantity > 0 { append(key, quantity) }
            return
        }
        let index = chunk(of: key)
        let chunk = chunks[index]
        let place = position(of: key, in: chunk)
        if place < chunk.count, keys[chunk.start + place] == key {
            if quantity > 0 { quantities[chunk.start + place] = quantity } else { remove(place, from: index) }
        } else if quantity > 0 {
            insert(key, quantity, at: place, of: index)
        }
    }

    /// Adds a key above all others.
    mutating func append(_ key: Int64, _ quantity: Int64) {
        if chunkCount == 0 || chunks[chunkCount - 1].count == Self.chunkLevels { _ = openChunk(at: chunkCount) }
        put(key, quantity, at: chunks[chunkCount - 1].count, of: chunkCount - 1)
    }

    mutating func removeLast() { remove(chunks[chunkCount - 1].count - 1, from: chunkCount - 1) }
    mutating func removeFirst() { remove(0, from: 0) }

    // MARK: Leaves

    /// The last chunk that begins at or below the key, or the first one; only when there is one.
    private func chunk(of key: Int64) -> Int {
        var low = 0
        var length = chunkCount
        while length > 1 {
            let half = length >> 1
            low = chunks[low &+ half].first <= key ? low &+ half : low
            length &-= half
        }
        return low
    }

    /// The first place in the chunk whose key is not below the given one.
    private func position(of key: Int64, in chunk: Chunk) -> Int {
        let keys = keys + chunk.start
        var low = 0
        var length = chunk.count
        while length > 1 {
            let half = length >> 1
            low = keys[low &+ half &- 1] < key ? low &+ half : low
            length &-= half
        }
        return keys[low] < key ? low &+ 1 : low
    }

    private mutating func remove(_ place: Int, from index: Int) {
        let chunk = chunks[index]
        let from = chunk.start + place
        let behind = chunk.count - place - 1
        (keys + from).update(from: keys + from + 1, count: behind)
        (quantities + from).update(from: quantities + from + 1, count: behind)
        chunks[index].count -= 1
        count -= 1
        if chunks[index].count == 0 { closeChunk(at: index) } else if place == 0 { chunks[index].first = keys[chunk.start] }
    }

    private mutating func insert(_ key: Int64, _ quantity: Int64, at place: Int, of index: Int) {
        guard chunks[index].count == Self.chunkLevels else { return put(key, quantity, at: place, of: index) }
        guard place < Self.chunkLevels || index + 1 < chunkCount else { return append(key, quantity) }
        if openChunk(at: index + 1) {
            // Packed: the key's place is another one now.
            return set(key, quantity)
        }
        let half = Self.chunkLevels / 2
        let (lower, upper) = (chunks[index].start, chunks[index + 1].start)
        (keys + upper).update(from: keys + lower + half, count: half)
        (quantities + upper).update(from: quantities + lower + half, count: half)
        chunks[index].count = half
        chunks[index + 1].count = half
        chunks[index + 1].first = keys[upper]
        if place > half { put(key, quantity, at: place - half, of: index + 1) } else { put(key, quantity, at: place, of: index) }
    }

    private mutating func put(_ key: Int64, _ quantity: Int64, at place: Int, of index: Int) {
        let chunk = chunks[index]
        let from = chunk.start + place
        let behind = chunk.count - place
        (keys + from + 1).update(from: keys + from, count: behind)
        (quantities + from + 1).update(from: quantities + from, count: behind)
        keys[from] = key
        quantities[from] = quantity
        chunks[index].count += 1
        if place == 0 { chunks[index].first = key }
        count += 1
    }

    /// An empty chunk at that place of the order. True when all chunks were packed instead, because the pool was empty.
    private mutating func openChunk(at index: Int) -> Bool {
        if chunkCount == chunksMax {
            pack()
            guard index == chunksMax else { return true }
            return openChunk(at: chunkCount)
        }
        let start = chunks[chunkCount].start
        (chunks + index + 1).update(from: chunks + index, count: chunkCount - index)
        chunks[index] = Chunk(first: 0, start: start, count: 0)
        chunkCount += 1
        return false
    }

    private mutating func closeChunk(at index: Int) {
        let start = chunks[index].start
        chunkCount -= 1
        (chunks + index).update(from: chunks + index + 1, count: chunkCount - index)
        chunks[chunkCount] = Chunk(first: 0, start: start, count: 0)
    }

    /// Fills every chunk from the ones behind it.
    private mutating func pack() {
        var index = 0
        while index + 1 < chunkCount {
            let (target, source) = (chunks[index], chunks[index + 1])
            let moved = min(Self.chunkLevels - target.count, source.count)
            (keys + target.start + target.count).update(from: keys + source.start, count: moved)
            (quantities + target.start + target.count).update(from: quantities + source.start, count: moved)
            (keys + source.start).update(from: keys + source.start + moved, count: source.count - moved)
            (quantities + source.start).update(from: quantities + source.start + moved, count: source.count - moved)
            chunks[index].count += moved
            chunks[index + 1].count -= moved
            if chunks[index + 1].count == 0 { closeChunk(at: index + 1) } else { chunks[index + 1].first = keys[source.start] }
            if chunks[index].count == Self.chunkLevels { index += 1 }
        }
    }
}
