#include "model/io/inspect_json.h"

#include <optional>
#include <type_traits>
#include <utility>

#include "model/architecture/parameters.h"
#include "model/io/inspect_fields.h"
#include "model/io/json_reader.h"

namespace kvfathom {
namespace {

using Json = nlohmann::ordered_json;
using std::int64_t;

class Writer;
template <typename T>
Json object_of(const T& value);

/// Visits a field list and collects a JSON object.
class Writer {
 public:
  explicit Writer(Json& json) : json_(json) {}

  template <typename T>
  void always(const char* key, const T& value, Range /*allowed*/ = {}) {
    json_[key] = value;
  }
  void always(const char* key, const std::optional<int64_t>& value, Range /*allowed*/) {
    json_[key] = value ? Json(*value) : Json(nullptr);
  }
  void always(const char* key, const std::optional<Indexer>& value) {
    json_[key] = value ? object_of(*value) : Json(nullptr);
  }
  template <typename E, std::size_t N>
  void always(const char* key, const E& value, const std::array<std::string_view, N>& names) {
    json_[key] = names.at(static_cast<std::size_t>(value));
  }
  template <typename T>
  void maybe(const char* key, const T& value, const T& fallback, Range allowed = {}) {
    if (value != fallback) {
      always(key, value, allowed);
    }
  }
  template <typename E, std::size_t N>
  void maybe(const char* key,
             const E& value,
             E fallback,
             const std::array<std::string_view, N>& names) {
    if (value != fallback) {
      always(key, value, names);
    }
  }
  void maybe(const char* key, const std::optional<Indexer>& value) {
    if (value) {
      always(key, value);
    }
  }
  void maybe(const char* key, const std::optional<bool>& value) {
    if (value) {
      json_[key] = *value;
    }
  }
  void maybe(const char* key, const std::optional<DType>& value) {
    if (value) {
      json_[key] = name(*value);
    }
  }
  template <typename T>
  void nested(const char* key, const T& value) {
    json_[key] = object_of(value);
  }
  template <typename A, typename B>
  void both(const char* key, const A& a, const B& b) {
    json_[key] = Json::array();
    add_kind(json_[key], a);
    add_kind(json_[key], b);
  }

  template <typename T>
  static void add_kind(Json& list, const T& value) {
    Json one{{"kind", T::kind}};
    one.update(object_of(value));
    list.push_back(std::move(one));
  }

 private:
  Json& json_;
};

template <typename T>
Json object_of(const T& value) {
  Json json = Json::object();
  Writer writer(json);
  // The field lists take a mutable reference, for readers; a writer only looks.
  T copy = value;
  inspect::fields(writer, copy);
  return json;
}

template <typename... Kinds>
Json kind_and_fields(const std::variant<Kinds...>& part) {
  return std::visit(
      [](const auto& one) {
        Json json{{"kind", std::decay_t<decltype(one)>::kind}};
        json.update(object_of(one));
        return json;
      },
      part);
}

Json layers_of(const ModelSpec& model) {
  Json layers = Json::array();
  for (std::size_t first = 0; first < model.layers.size();) {
    LayerSpec layer = model.layers[first];
    std::size_t end = first + 1;
    while (end < model.layers.size() && model.layers[end] == layer) {
      ++end;
    }
    Json run{{"first", first},
             {"count", end - first},
             {"mixer", kind_and_fields(layer.mixer)},
             {"feed_forward", kind_and_fields(layer.feed_forward)}};
    Writer writer(run);
    inspect::norm_fields(writer, layer);
    layers.push_back(std::move(run));
    first = end;
  }
  return layers;
}

Json model_object(const ModelSpec& model) {
  const ParameterCount count = count_parameters(model);
  Json weight_bytes = nullptr;
  if (!model.tensors.empty()) {
    int64_t bytes = 0;
    for (const Tensor& tensor : model.tensors) {
      bytes += data_bytes(tensor);
    }
    weight_bytes = bytes;
  }
  Json json{{"name", model.name},
            {"source", model.source},
            {"architecture", model.architecture},
            {"n_parameters", count.total},
            {"n_parameters_active", count.active},
            {"n_layers", n_layers(model)},
            {"weight_bytes", weight_bytes}};
  Json rest = Json::object();
  Writer writer(rest);
  ModelSpec copy = model;
  inspect::fields(writer, copy);
  json.update(rest);
  return json;
}

/// One line per member of an object and per element of a list, two levels deep.
std::string laid_out(const Json& document) {
  std::string text = "{\n";
  std::size_t left = document.size();
  // Text of strangers may hold broken UTF-8: it is mended, not refused.
  const auto compact = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  for (const auto& [key, value] : document.items()) {
    text += "  \"" + key + "\": ";
    if (value.is_structured() && !value.empty()) {
      text += value.is_object() ? "{\n" : "[\n";
      std::size_t inner_left = value.size();
      for (const auto& [inner_key, inner] : value.items()) {
        text += "    " + (value.is_object() ? "\"" + inner_key + "\": " : std::string()) +
                compact(inner) + (--inner_left == 0 ? "\n" : ",\n");
      }
      text += value.is_object() ? "  }" : "  ]";
    } else {
      text += compact(value);
    }
    text += --left == 0 ? "\n" : ",\n";
  }
  return text + "}\n";
}

}  // namespace

std::string inspect_document(const ModelSpec& model, const InspectNotes& notes) {
  Json document{{"schema", inspect::kSchema}};
  if (!notes.id.empty()) {
    document["id"] = notes.id;
    document["aliases"] = notes.aliases;
    document["sources"] = notes.sources;
    document["assumed"] = notes.assumed;
  }
  document["model"] = model_object(model);
  document["layers"] = layers_of(model);
  document["extras"] = Json::array();
  for (const ExtraPart& part : model.extras) {
    document["extras"].push_back(object_of(part));
  }
  return laid_out(document);
}

}  // namespace kvfathom
