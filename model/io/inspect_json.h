// The kvfathom.inspect/1 document: a ModelSpec in words, and the file format of the catalog.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/architecture/model_spec.h"

namespace kvfathom {

/// What a catalog entry says about itself beside the model.
struct InspectNotes {
  std::string id;                    ///< lower case; also the file's name
  std::vector<std::string> aliases;  ///< other names, such as the Hugging Face id
  std::vector<std::string> sources;  ///< where the fields were read
  std::vector<std::string> assumed;  ///< what the source left out and was filled in, and why
  friend bool operator==(const InspectNotes&, const InspectNotes&) = default;
};

/// The document, one line per field and per run of equal layers. Everything of `model` is in it
/// but `tensors`, of which only the bytes are told. Fields at their default are left out where
/// the format allows.
[[nodiscard]] std::string inspect_document(const ModelSpec& model, const InspectNotes& notes = {});

/// The inverse: what the document's writer had, without `tensors`. Unknown or missing fields,
/// values out of range and layers that leave gaps are InputErrors.
[[nodiscard]] ModelSpec read_inspect(const std::string& path);
[[nodiscard]] ModelSpec read_inspect_text(std::string_view json, const std::string& source);
[[nodiscard]] InspectNotes read_inspect_notes(std::string_view json, const std::string& source);

}  // namespace kvfathom
