/// One root of a continuous function between two points of opposite sign.
package enum RootFinding {
    /// Bisection down to neighbouring numbers: slow, and it cannot go wrong. `f` is called about 60 times, at most 1,100.
    package static func root(from low: Double, to high: Double, of f: (Double) -> Double) -> Double {
        var (low, high) = (low, high)
        let isPositiveAtLow = f(low) > 0
        precondition(isPositiveAtLow != (f(high) > 0) || f(high) == 0, "BUG: no change of sign between \(low) and \(high)")
        while true {
            let middle = low + (high - low) / 2
            guard middle != low, middle != high else { return middle }
            if (f(middle) > 0) == isPositiveAtLow { low = middle } else { high = middle }
        }
    }

    /// Where `f` is highest between two points, for a function with one hill there (golden section).
    package static func maximum(from low: Double, to high: Double, of f: (Double) -> Double) -> Double {
        let golden = 0.61803398874989484820
        var (low, high) = (low, high)
        var (left, right) = (high - golden * (high - low), low + golden * (high - low))
        var (atLeft, atRight) = (f(left), f(right))
        for _ in 0..<80 {
            if atLeft > atRight {
                (high, right, atRight) = (right, left, atLeft)
                left = high - golden * (high - low)
                atLeft = f(left)
            } else {
                (low, left, atLeft) = (left, right, atRight)
                right = low + golden * (high - low)
                atRight = f(right)
            }
        }
        return low + (high - low) / 2
    }
}

extension RootFinding {
    /// As `root`, in about 10 calls, for a dear and smooth function: regula falsi with the Illinois rule (Dowell and Jarratt 1971), to
    /// a relative 1e-15.
    package static func secant(from low: Double, to high: Double, of f: (Double) -> Double) -> Double {
        var (a, b) = (low, high)
        var (atA, atB) = (f(a), f(b))
        precondition((atA > 0) != (atB > 0), "BUG: no change of sign between \(low) and \(high)")
        for _ in 0..<200 {
            if atA == 0 { return a }
            if atB == 0 { return b }
            let middle = b - atB * (b - a) / (atB - atA)
            let atMiddle = f(middle)
            if (atMiddle > 0) == (atB > 0) {
                atA /= 2
            } else {
                (a, atA) = (b, atB)
            }
            let moved = abs(middle - b)
            (b, atB) = (middle, atMiddle)
            if moved <= 1e-15 * abs(middle) || abs(b - a) <= 1e-15 * abs(b) { return b }
        }
        return b
    }
}
