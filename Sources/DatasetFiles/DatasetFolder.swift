package import HubCore
package import NodeShell
import Wire

/// Where datasets are kept: `calib_*.json`, the same as Parquet and CSV when asked for, and a manifest.
package struct DatasetFolder {
    package enum Form: String, CaseIterable, Sendable { case json, parquet, csv }

    package var path: String

    package init(path: String) { self.path = path }

    package struct Saved: Sendable {
        /// `written`, `unchanged`, `replaced`; `refused`: a dataset of this name has other bytes, and nothing was written.
        package var status: AtomicFile.Placement
        /// File names, the dataset's first, the manifest's last.
        package var names: [String]
        package var sha256: String
        package var name: String { names[0] }
        package var manifest: String { names[names.count - 1] }
    }

    /// Each file appears at once or not at all; the manifest follows what it describes, and a build that stopped in between is completed by
    /// the next one.
    package func save(_ documents: DatasetDocuments, forms: Set<Form>, replaces: Bool) throws(FileError) -> Saved {
        let stem = DatasetFormat.stem(from: documents.arguments.from, to: documents.arguments.to)
        try AtomicFile.makeDirectory(path)
        var saved = Saved(status: .written, names: ["\(stem).json"], sha256: Digest.sha256(documents.dataset))
        saved.status = try AtomicFile.place(documents.dataset, at: "\(path)/\(stem).json", replaces: replaces)
        var others: [DatasetDocuments.Form] = []
        if saved.status != .refused {
            for form in Form.allCases where form != .json && forms.contains(form) {
                let name = "\(stem).\(form.rawValue)"
                let bytes = form == .csv ? documents.csv() : documents.parquet(compress: Gzip.compress)
                // A dataset is named by its JSON; the other forms follow it.
                _ = try AtomicFile.place(bytes, at: "\(path)/\(name)", replaces: true)
                others.append(DatasetDocuments.Form(name: name, bytes: bytes.count, sha256: Digest.sha256(bytes)))
                saved.names.append(name)
            }
            let manifest = documents.manifest(datasetName: saved.name, sha256: saved.sha256, forms: others)
            _ = try AtomicFile.place(manifest, at: "\(path)/\(stem).manifest.json", replaces: true)
        }
        saved.names.append("\(stem).manifest.json")
        return saved
    }
}
