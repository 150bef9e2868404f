import Foundation
import TestSupport
import Testing

/// The link's examples are what their schemas say, and the schemas say it of every field. `MessageTests` holds the examples to the code.
@Suite struct MessageSchemaTests {
    private static let python = "/usr/bin/python3"
    private static let hasValidator = (try? Binaries.run(python, ["-c", "import jsonschema"]))?.status == 0

    @Test func everyExampleIsWhatItsSchemaSays() throws {
        guard Self.hasValidator else {
            Issue.record("no JSON Schema validator: install python3-jsonschema, as deploy/test does")
            return
        }
        let script = """
            import copy, glob, json, os, sys, warnings
            warnings.simplefilter("ignore")
            import jsonschema
            proto = sys.argv[1]
            def load(path):
                with open(path) as file: return json.load(file)
            def validator(path):
                schema = load(path)
                kind = jsonschema.validators.validator_for(schema)
                kind.check_schema(schema)
                return kind(schema, resolver=jsonschema.RefResolver("file://" + path, schema))
            def undescribed(schema, where):
                for name, field in schema.get("properties", {}).items():
                    if "description" not in field: yield where + "." + name
                    yield from undescribed(field, where + "." + name)
                if isinstance(schema.get("items"), dict): yield from undescribed(schema["items"], where + "[]")
            documents = refused = 0
            paths = sorted(glob.glob(proto + "/examples/messages/*.json")) + [proto + "/examples/experiment.json"]
            for path in paths:
                kind = os.path.basename(path).split(".")[0]
                folder = "" if kind == "experiment" else "messages/"
                schema_path = "%s/%s%s.schema.json" % (proto, folder, kind)
                check = validator(schema_path)
                missing = list(undescribed(load(schema_path), kind))
                if missing: sys.exit("no description: %s" % missing)
                example = load(path)
                for error in check.iter_errors(example):
                    sys.exit("%s: %s at %s" % (os.path.basename(path), error.message, list(error.path)))
                if list(example) != [name for name in check.schema["properties"] if name in example]:
                    sys.exit("%s: fields are not in the schema's order" % path)
                documents += 1
                # A schema that lets anything through proves nothing: no field may be of another type.
                for name in example:
                    if (kind, name) == ("reply", "body"): continue
                    damaged = copy.deepcopy(example)
                    damaged[name] = [{"x": [1.5]}]
                    if not list(check.iter_errors(damaged)): sys.exit("%s: any %s is allowed" % (kind, name))
                    refused += 1
            print(documents, refused)
            """
        let outcome = try Binaries.run(Self.python, ["-c", script, Repository.path("proto-json")], deadline: 120)
        #expect(outcome.status == 0, "\(outcome.standardError.suffix(600))")
        let counts = outcome.standardOutput.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        #expect(counts.count == 2 && counts[0] >= 18 && counts[1] > 80, "\(counts)")
    }
}
