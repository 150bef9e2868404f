import ArgumentParser
import Glibc
import HubCore
import Wire

/// The statistics of the gates, one method at a time, for comparison with other implementations.
struct Stats: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compute one statistic from a JSON object on standard input.",
        discussion: """
            e_process      y_first, y_second, eps_plus1_means_B_second, weight_h, v_opt, alpha
            sequential_ci  kind (mean|prop|ratio), a, b, difference_type (absolute|relative), alpha, sequential_tuning_parameter, test_value
            cuped          a, b, difference_type, sequential, alpha, sequential_tuning_parameter
            srm            observed, weights
            hac_se         method (hac|cluster|hc1), y, treat, maxlags, group_size
            power          effect_size_d, alpha, power, ratio, alternative (two-sided|larger)

            Prints one JSON object. Unknown keys are ignored. Exit status 1, and one line on standard error, for an input it cannot use.
            """)

    enum Method: String, ExpressibleByArgument, CaseIterable {
        case eProcess = "e_process"
        case sequentialCI = "sequential_ci"
        case cuped
        case srm
        case hacSE = "hac_se"
        case power
    }

    @Argument(help: "What to compute.")
    var method: Method

    func run() throws {
        do throws(StatsError) {
            let input = try StatsInput(Self.standardInput())
            let output =
                switch method {
                case .eProcess: try Self.eProcess(input)
                case .sequentialCI: try Self.sequentialCI(input)
                case .cuped: try Self.cuped(input)
                case .srm: try Self.srm(input)
                case .hacSE: try Self.hacSE(input)
                case .power: try Self.power(input)
                }
            var json = JSONWriter()
            json.beginObject()
            for (name, value) in output { value.write(as: name, to: &json) }
            json.endObject()
            print(String(decoding: json.bytes, as: UTF8.self))
        } catch {
            note("calib-lab stats \(method.rawValue): \(error.text)")
            throw ExitCode(1)
        }
    }

    /// 256 MiB: an array of ten million numbers.
    private static let inputBytesMax = 256 << 20

    private static func standardInput() throws(StatsError) -> [UInt8] {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = buffer.withUnsafeMutableBytes { Glibc.read(STDIN_FILENO, $0.baseAddress, $0.count) }
            if count == 0 { return bytes }
            guard count > 0 else {
                if errno == EINTR { continue }
                throw StatsError("cannot read standard input: \(String(cString: strerror(errno)))")
            }
            bytes += buffer[..<count]
            guard bytes.count <= inputBytesMax else { throw StatsError("the input has more than \(inputBytesMax >> 20) MiB") }
        }
    }

    // MARK: Methods

    private typealias Output = [(StaticString, StatsValue)]

    private static func eProcess(_ input: StatsInput) throws(StatsError) -> Output {
        let first = try input.numbers("y_first", atLeast: 1)
        let second = try input.numbers("y_second", count: first.count)
        let signs = try input.numbers("eps_plus1_means_B_second", count: first.count)
        let weights = try input.numbers("weight_h", count: first.count)
        let vOpt = try input.number("v_opt", above: 0)
        let alpha = try input.number("alpha", above: 0, below: 0.5)
        guard signs.allSatisfy({ abs($0) == 1 }) else { throw StatsError("eps_plus1_means_B_second: allowed are 1 and -1") }
        guard weights.allSatisfy({ $0 >= 0 }) else { throw StatsError("weight_h: allowed are numbers from 0 on") }
        let rho = EProcess.rho(tightestAt: vOpt, alpha: alpha)
        guard rho > 0, rho < .infinity else { throw StatsError("v_opt \(vOpt): rho is out of range") }
        var process = EProcess(rho: rho)
        var effects = EffectSums()
        var firstReject: Int?
        for index in first.indices {
            let increment = signs[index] * weights[index] * (second[index] - first[index])
            process.add(increment)
            effects.add(increment, weight: weights[index])
            if firstReject == nil, process.rejects(at: alpha) { firstReject = index + 1 }
        }
        guard (process.sum * process.sum).isFinite, process.squares.isFinite, (effects.weight * effects.weight).isFinite else {
            throw StatsError("y_first, y_second, weight_h: their squares are too large to be added up")
        }
        return [
            ("S", .number(process.sum)), ("V", .number(process.squares)), ("rho", .number(rho)), ("log_e", .number(process.logE)),
            ("estimate", .number(effects.estimate)), ("lower_bound", .number(effects.lowerBound(rho: rho, alpha: alpha))),
            ("p_anytime_final", .number(process.anytimeP)), ("first_reject_index1", .integer(firstReject)),
        ]
    }

    private static func sequentialCI(_ input: StatsInput) throws(StatsError) -> Output {
        let kind = try input.word("kind", of: ["mean", "prop", "ratio"])
        let a = try summary(input.object("a"), kind)
        let b = try summary(input.object("b"), kind)
        let difference = try difference(input, a, b)
        let alpha = try input.number("alpha", above: 0, below: 1)
        let rho = ConfidenceSequence.rho(
            tightestAt: try input.number("sequential_tuning_parameter", above: 0), alpha: alpha)
        let p = difference.sequentialP(against: try input.number("test_value"), rho: rho)
        return [
            ("expected", .number(difference.expected)), ("ci", .interval(difference.sequentialInterval(alpha: alpha, rho: rho))),
            ("p_value", .number(p)), ("variance", .number(difference.variance)), ("stddev", .number(difference.variance.squareRoot())),
            ("rho", .number(rho)),
        ]
    }

    private static func cuped(_ input: StatsInput) throws(StatsError) -> Output {
        let a = try adjustable(input.object("a"))
        let b = try adjustable(input.object("b"))
        let isSequential = try input.boolean("sequential")
        let alpha = try input.number("alpha", above: 0, below: 1)
        let theta = CUPED.theta(a, b)
        let (armA, armB) = (a.adjusted(theta: theta), b.adjusted(theta: theta))
        let difference = try difference(input, armA, armB)
        let interval =
            if isSequential {
                difference.sequentialInterval(
                    alpha: alpha,
                    rho: ConfidenceSequence.rho(tightestAt: try input.number("sequential_tuning_parameter", above: 0), alpha: alpha))
            } else {
                difference.fixedInterval(alpha: alpha)
            }
        return [
            ("theta", .number(theta)), ("adj_mean_a", .number(armA.mean)), ("adj_mean_b", .number(armB.mean)),
            ("adj_var_a", .number(armA.variance)), ("adj_var_b", .number(armB.variance)), ("unadj_var_a", .number(a.post.variance)),
            ("expected", .number(difference.expected)), ("ci", .interval(interval)),
        ]
    }

    private static func srm(_ input: StatsInput) throws(StatsError) -> Output {
        let observed = try input.numbers("observed", atLeast: 2)
        let weights = try input.numbers("weights", count: observed.count)
        guard (observed + weights).allSatisfy({ $0 >= 0 }) else { throw StatsError("observed, weights: allowed are numbers from 0 on") }
        guard weights.contains(where: { $0 > 0 }) else { throw StatsError("weights: all are 0") }
        guard observed.reduce(0, +).isFinite, weights.reduce(0, +).isFinite else {
            throw StatsError("observed, weights: their sums are too large")
        }
        return [("p_value", .number(SampleRatio.p(observed: observed, weights: weights)))]
    }

    private static func hacSE(_ input: StatsInput) throws(StatsError) -> Output {
        let method = try input.word("method", of: ["hac", "cluster", "hc1"])
        let y = try input.numbers("y", atLeast: 3)
        let treat = try input.numbers("treat", count: y.count)
        guard treat.allSatisfy({ $0 == 0 || $0 == 1 }) else { throw StatsError("treat: allowed are 0 and 1") }
        guard let fit = TreatmentRegression(y: y, isTreated: treat.map { $0 == 1 }) else {
            throw StatsError("treat: both 0 and 1 must occur")
        }
        let errors: TreatmentRegression.Errors =
            switch method {
            case "hac": .hac(lags: try input.count("maxlags", atLeast: 0))
            case "cluster": .cluster(size: try input.count("group_size", atLeast: 1))
            default: .hc1
            }
        guard let se = fit.standardErrors(errors) else { throw StatsError("group_size: there must be two groups at least") }
        guard se.constant.isFinite, se.treated.isFinite else { throw StatsError("y: its squares are too large to be added up") }
        return [("beta", .list([fit.beta.constant, fit.beta.treated])), ("se", .list([se.constant, se.treated]))]
    }

    /// Standard deviations: beyond it two units are more than enough, and the noncentral t needs ever finer sums.
    private static let effectMax = 100.0

    private static func power(_ input: StatsInput) throws(StatsError) -> Output {
        let effect = try input.number("effect_size_d")
        guard abs(effect) <= effectMax else { throw StatsError("effect_size_d \(effect): allowed are -\(effectMax) to \(effectMax)") }
        let alternative = try input.word("alternative", of: ["two-sided", "larger"])
        guard alternative == "larger" ? effect > 0 : effect != 0 else {
            throw StatsError("effect_size_d \(effect): no number of units finds it")
        }
        let alpha = try input.number("alpha", above: 0, below: 1)
        let power = try input.number("power", above: 0, below: 1)
        let ratio = try input.number("ratio", above: 0)
        guard ratio <= 1e6, ratio >= 1e-6 else { throw StatsError("ratio \(ratio): allowed are 0.000001 to 1000000") }
        let test = TwoSamplePower(
            effect: effect, alpha: alpha, ratio: ratio, alternative: alternative == "larger" ? .larger : .twoSided)
        guard let count = test.count(power: power) else { throw StatsError("more than 1e9 units would be needed") }
        return [("n_per_arm", .number(count))]
    }

    // MARK: Parts

    private static func summary(_ input: StatsInput, _ kind: String) throws(StatsError) -> ArmSummary {
        let count = try units(input, atLeast: kind == "prop" ? 1 : 2)
        switch kind {
        case "prop":
            let successes = try input.number("sum")
            guard successes >= 0, successes <= count else { throw StatsError("\(input.path)sum \(successes): allowed are 0 to n") }
            return ArmSummary(count: count, successes: successes)
        case "ratio":
            let d = try moments(input.object("d_statistic"), count: count)
            guard d.sum != 0 else { throw StatsError("\(input.path)d_statistic.sum is 0") }
            return ArmSummary(
                numerator: try moments(input.object("m_statistic"), count: count), denominator: d,
                products: try input.number("m_d_sum_of_products"))
        default:
            return ArmSummary(try moments(input, count: count))
        }
    }

    /// Variances need two; a number of degrees of freedom below 1 has no quantile worth the name.
    private static func units(_ input: StatsInput, atLeast least: Double) throws(StatsError) -> Double {
        let count = try input.number("n")
        guard count >= least else { throw StatsError("\(input.path)n \(count): allowed are numbers from \(Int(least)) on") }
        return count
    }

    private static func moments(_ input: StatsInput, count: Double) throws(StatsError) -> SampleMoments {
        SampleMoments(count: count, sum: try input.number("sum"), squares: try input.number("sum_squares"))
    }

    private static func adjustable(_ input: StatsInput) throws(StatsError) -> CUPED.Arm {
        let count = try units(input, atLeast: 2)
        return CUPED.Arm(
            post: try moments(input.object("post_statistic"), count: count), pre: try moments(input.object("pre_statistic"), count: count),
            products: try input.number("post_pre_sum_of_products"))
    }

    private static func difference(_ input: StatsInput, _ a: ArmSummary, _ b: ArmSummary) throws(StatsError) -> ArmDifference {
        let isRelative = try input.word("difference_type", of: ["absolute", "relative"]) == "relative"
        guard !isRelative || a.baseMean != 0 else { throw StatsError("a: the mean is 0, so no relative difference exists") }
        let difference = ArmDifference(a: a, b: b, isRelative: isRelative)
        guard difference.variance > 0, difference.variance < .infinity, difference.expected.isFinite else {
            throw StatsError("a, b: the variance is \(difference.variance), so there is no interval")
        }
        return difference
    }
}

struct StatsError: Error {
    var text: String
    init(_ text: String) { self.text = text }
}

/// An output's value; what is no number becomes null.
private enum StatsValue {
    case number(Double?)
    case integer(Int?)
    case interval(ClosedRange<Double>)
    case list([Double])

    func write(as name: StaticString, to json: inout JSONWriter) {
        json.key(name)
        switch self {
        case .number(let value): json.double(value)
        case .integer(let value): if let value { json.integer(value) } else { json.null() }
        case .interval(let range): Self.write([range.lowerBound, range.upperBound], to: &json)
        case .list(let values): Self.write(values, to: &json)
        }
    }

    private static func write(_ values: [Double], to json: inout JSONWriter) {
        json.beginArray()
        for value in values { json.double(value) }
        json.endArray()
    }
}

/// An object of the input, with messages that name what is wrong and where.
private struct StatsInput {
    private let value: JSONValue
    /// Empty, or the keys that lead here with a point behind each.
    let path: String

    init(_ bytes: [UInt8]) throws(StatsError) {
        do throws(JSONError) {
            value = try JSONValue.parse(bytes)
        } catch {
            switch error {
            case .nonFinite(let at): throw StatsError("the input has NaN or Infinity at byte \(at); JSON has finite numbers only")
            case .syntax(let at), .wrongType(let at), .overflow(let at), .tooDeep(let at):
                throw StatsError("the input is not one JSON object: byte \(at)")
            }
        }
        guard value.members != nil else { throw StatsError("the input is not one JSON object") }
        path = ""
    }

    private init(_ value: JSONValue, path: String) {
        self.value = value
        self.path = path
    }

    private func known(_ key: String) throws(StatsError) -> JSONValue {
        guard let found = value[key] else { throw StatsError("\(path)\(key) is missing") }
        return found
    }

    private func finite(_ value: JSONValue, _ name: String) throws(StatsError) -> Double {
        guard case .number(let text) = value, let number = Double(text) else { throw StatsError("\(name) is not a number") }
        guard number.isFinite else { throw StatsError("\(name) \(text) is too large") }
        return number
    }

    func object(_ key: String) throws(StatsError) -> StatsInput {
        let found = try known(key)
        guard found.members != nil else { throw StatsError("\(path)\(key) is not an object") }
        return StatsInput(found, path: "\(path)\(key).")
    }

    func number(_ key: String) throws(StatsError) -> Double { try finite(known(key), path + key) }

    /// Both bounds excluded.
    func number(_ key: String, above low: Double, below high: Double = .infinity) throws(StatsError) -> Double {
        let number = try number(key)
        guard number > low, number < high else {
            throw StatsError("\(path)\(key) \(number): allowed are numbers above \(low)\(high < .infinity ? " and below \(high)" : "")")
        }
        return number
    }

    func count(_ key: String, atLeast low: Int) throws(StatsError) -> Int {
        let number = try number(key)
        guard let count = Int(exactly: number), count >= low else {
            throw StatsError("\(path)\(key) \(number): allowed are whole numbers from \(low) on")
        }
        return count
    }

    func numbers(_ key: String, atLeast least: Int = 0, count: Int? = nil) throws(StatsError) -> [Double] {
        guard let list = try known(key).array else { throw StatsError("\(path)\(key) is not an array") }
        if let count, list.count != count { throw StatsError("\(path)\(key) has \(list.count) numbers, not \(count)") }
        guard list.count >= least else { throw StatsError("\(path)\(key) has \(list.count) numbers; at least \(least) are needed") }
        var numbers: [Double] = []
        numbers.reserveCapacity(list.count)
        for (index, item) in list.enumerated() { numbers.append(try finite(item, "\(path)\(key)[\(index)]")) }
        return numbers
    }

    func word(_ key: String, of allowed: [String]) throws(StatsError) -> String {
        guard let word = try known(key).string, allowed.contains(word) else {
            throw StatsError("\(path)\(key): allowed are \(allowed.joined(separator: ", "))")
        }
        return word
    }

    func boolean(_ key: String) throws(StatsError) -> Bool {
        guard let flag = try known(key).boolean else { throw StatsError("\(path)\(key) is not true or false") }
        return flag
    }
}
