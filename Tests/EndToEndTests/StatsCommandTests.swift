import Foundation
import TestSupport
import Testing

/// `calib-lab stats METHOD` against values of mpmath (40 digits), scipy and statsmodels, and on input it cannot use.
@Suite struct StatsCommandTests {
    private struct Vector {
        var method: String
        var input: String
        var output: [String: Any]
    }

    /// One object a line: method, input, output.
    private static func vectors() throws -> [Vector] {
        let text = try String(contentsOfFile: Repository.path("Tests/EndToEndTests/StatsVectors.jsonl"), encoding: .utf8)
        return try text.split(separator: "\n").map { line in
            let row = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
            let input = try JSONSerialization.data(withJSONObject: try #require(row["input"]))
            return Vector(
                method: try #require(row["method"] as? String), input: String(decoding: input, as: UTF8.self),
                output: try #require(row["output"] as? [String: Any]))
        }
    }

    private static func stats(_ method: String, _ input: String) throws -> Binaries.Outcome {
        try Binaries.run("calib-lab", ["stats", method], input: input)
    }

    private static func difference(_ value: Any?, _ expected: Any?) -> Double {
        switch (value, expected) {
        case (is NSNull, is NSNull): 0
        case (let values as [Any], let others as [Any]):
            values.count == others.count ? zip(values, others).map { difference($0, $1) }.max() ?? 0 : .infinity
        case (let value as Double, let other as Double): abs(value - other) / max(abs(other), 1e-300)
        default: .infinity
        }
    }

    @Test func everyMethodAgreesToNineDigits_withOtherPrograms() throws {
        let vectors = try Self.vectors()
        #expect(Set(vectors.map(\.method)) == ["e_process", "sequential_ci", "cuped", "srm", "hac_se", "power"])
        for vector in vectors {
            let outcome = try Self.stats(vector.method, vector.input)
            #expect(outcome.status == 0 && outcome.standardError.isEmpty, "\(vector.method) \(vector.input): \(outcome.standardError)")
            let output = try #require(try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) as? [String: Any])
            #expect(Set(output.keys) == Set(vector.output.keys), "\(vector.method)")
            for (name, expected) in vector.output {
                let tolerance = name == "lower_bound" ? 1e-6 : 1e-9
                #expect(
                    Self.difference(output[name], expected) <= tolerance, "\(vector.method).\(name): \(String(describing: output[name]))")
            }
        }
    }

    @Test func unknownKeysAreIgnored() throws {
        let outcome = try Self.stats("srm", #"{"observed":[1,1],"weights":[1,1],"note":{"deep":[null]}}"#)
        #expect(outcome.status == 0 && outcome.standardOutput == "{\"p_value\":1.0}\n")
    }

    private static func sequential(_ a: String, _ b: String, _ more: String = #""alpha":0.05"#, kind: String = "mean") -> String {
        #"{"kind":"\#(kind)","a":\#(a),"b":\#(b),"difference_type":"absolute","sequential_tuning_parameter":100,"test_value":0,\#(more)}"#
    }
    private static func eProcess(
        first: String = "[1,2]", signs: String = "[1,-1]", weights: String = "[1,1]", _ more: String = #""v_opt":2,"alpha":0.05"#
    ) -> String {
        #"{"y_first":\#(first),"y_second":[3,4],"eps_plus1_means_B_second":\#(signs),"weight_h":\#(weights),\#(more)}"#
    }
    private static func power(_ effect: String, alpha: String = "0.05", power: String = "0.8", ratio: String = "1") -> String {
        #"{"effect_size_d":\#(effect),"alpha":\#(alpha),"power":\#(power),"ratio":\#(ratio),"alternative":"larger"}"#
    }
    private static func errors(y: String = "[1,2,4]", treat: String = "[0,1,1]", _ more: String = #""method":"hc1""#, group: String = "1")
        -> String
    {
        #"{"y":\#(y),"treat":\#(treat),"maxlags":1,"group_size":\#(group),\#(more)}"#
    }

    /// One line that names what is wrong, status 1, nothing on standard output.
    private static let hostile: [(method: String, input: String, named: String)] = [
        ("srm", "", "JSON"), ("srm", "[]", "JSON"), ("srm", "{}{}", "JSON"), ("srm", #"{"observed":[NaN,1]}"#, "NaN"),
        ("srm", String(repeating: "[", count: 100_000), "JSON"),
        ("srm", #"{"observed":[1,1]}"#, "weights is missing"), ("srm", #"{"observed":[1],"weights":[1]}"#, "at least 2"),
        ("srm", #"{"observed":[1,-1],"weights":[1,1]}"#, "observed"), ("srm", #"{"observed":[1,1],"weights":[0,0]}"#, "all are 0"),
        ("srm", #"{"observed":[1e400,1],"weights":[1,1]}"#, "too large"), ("srm", #"{"observed":[1,"2"],"weights":[1,1]}"#, "observed[1]"),
        ("srm", #"{"observed":[1e308,1e308],"weights":[1,1]}"#, "too large"),
        ("e_process", eProcess(signs: "[1,0]"), "eps_plus1_means_B_second"), ("e_process", eProcess(signs: "[1]"), "has 1 numbers, not 2"),
        ("e_process", eProcess(weights: "[1,-1]"), "weight_h"), ("e_process", eProcess(#""v_opt":0,"alpha":0.05"#), "v_opt"),
        ("e_process", eProcess(#""v_opt":1,"alpha":0.5"#), "alpha"), ("e_process", eProcess(#""v_opt":1e308,"alpha":0.4999999"#), "rho"),
        ("e_process", eProcess(first: "[1e200,2]"), "too large"), ("e_process", eProcess(first: "[]"), "at least 1"),
        ("sequential_ci", sequential(#"{"n":1,"sum":1,"sum_squares":1}"#, #"{"n":9,"sum":1,"sum_squares":1}"#), "a.n"),
        ("sequential_ci", sequential(#"{"n":2,"sum":2,"sum_squares":2}"#, #"{"n":2,"sum":2,"sum_squares":2}"#), "variance"),
        ("sequential_ci", sequential(#"{"n":9,"sum":10}"#, #"{"n":9,"sum":1}"#, kind: "prop"), "a.sum"),
        ("sequential_ci", sequential("3", "{}"), "a is not an object"), ("sequential_ci", sequential("{}", "{}", kind: "median"), "kind"),
        (
            "sequential_ci", sequential(#"{"n":9,"sum":1,"sum_squares":3}"#, #"{"n":9,"sum":1,"sum_squares":3}"#, #""alpha":1"#),
            "alpha"
        ),
        ("hac_se", errors(treat: "[1,1,1]"), "both 0 and 1"), ("hac_se", errors(treat: "[0,1,2]"), "treat"),
        ("hac_se", errors(y: "[1,2]", treat: "[0,1]"), "at least 3"), ("hac_se", errors(#""method":"white""#), "method"),
        ("hac_se", errors(#""method":"cluster""#, group: "9"), "two groups"), ("hac_se", errors(y: "[1e300,-1e300,1]"), "too large"),
        ("power", power("0"), "effect_size_d"), ("power", power("-0.5"), "effect_size_d"), ("power", power("1e9"), "effect_size_d"),
        ("power", power("1e-9"), "1e9 units"), ("power", power("0.001", ratio: "1e-6"), "1e9 units"),
        ("power", power("0.5", alpha: "1"), "alpha"), ("power", power("0.5", power: "1"), "power"),
        ("power", power("0.5", ratio: "0"), "ratio"),
    ]

    @Test(arguments: hostile.indices)
    func whatCannotBeUsedIsNamed(index: Int) throws {
        let (method, input, named) = Self.hostile[index]
        let outcome = try Self.stats(method, input)
        #expect(outcome.status == 1 && outcome.standardOutput.isEmpty, "\(input.prefix(200)): \(outcome)")
        #expect(
            outcome.standardError.contains(named) && outcome.standardError.hasPrefix("calib-lab stats \(method): "),
            "\(outcome.standardError)")
        #expect(outcome.standardError.split(separator: "\n").count == 1)
    }

    /// Ends of what is allowed: an answer, and soon.
    @Test(arguments: [
        ("power", power("100", alpha: "1e-12")), ("power", power("100", alpha: "0.999")),
        ("power", power("0.3", alpha: "0.9", power: "0.95")),
        ("e_process", eProcess(weights: "[0,0]")), ("e_process", eProcess(first: "[3,4]")),
        ("hac_se", errors(#""method":"hac","extra":[]"#)), ("srm", #"{"observed":[1e150,1],"weights":[1,1e-9]}"#),
    ])
    func theEndsOfWhatIsAllowedHaveAnAnswer(method: String, input: String) throws {
        let outcome = try Self.stats(method, input)
        #expect(outcome.status == 0 && !outcome.isTimedOut, "\(input): \(outcome)")
        #expect(try JSONSerialization.jsonObject(with: Data(outcome.standardOutput.utf8)) is [String: Any])
    }
}
