// Reading of kvfathom.inspect/1.
#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>
#include <variant>

#include "model/io/file.h"
#include "model/io/inspect_fields.h"
#include "model/io/inspect_json.h"
#include "model/io/json_reader.h"
#include "model/io/spec_check.h"

namespace kvfathom {
namespace {

using std::int64_t;

/// Visits a field list and fills a struct from a Reader.
class Filler {
 public:
  explicit Filler(const Reader& reader, std::initializer_list<std::string_view> known = {})
      : reader_(reader), known_(known) {}

  /// Call last: a field that no list names is a mistake, not a comment.
  void finish() const { reader_.refuse_unknown(known_); }

  void always(const char* key, int64_t& value, Range allowed) {
    known_.emplace_back(key);
    value = reader_.count(key, allowed);
  }
  void always(const char* key, bool& value) {
    known_.emplace_back(key);
    if (!reader_.has(key)) {
      throw reader_.error(key, "missing", "true or false");
    }
    value = reader_.flag_or(key, false);
  }
  void always(const char* key, std::string& value) {
    known_.emplace_back(key);
    value = reader_.text(key);
  }
  void always(const char* key, std::optional<int64_t>& value, Range allowed) {
    known_.emplace_back(key);
    value = reader_.maybe_count(key, {1, allowed.max});
  }
  void always(const char* key, std::optional<Indexer>& value) {
    known_.emplace_back(key);
    maybe(key, value);
  }
  template <typename E, std::size_t N>
  void always(const char* key, E& value, const std::array<std::string_view, N>& names) {
    known_.emplace_back(key);
    const std::string text = reader_.text(key);
    const auto at = std::find(names.begin(), names.end(), text);
    if (at == names.end()) {
      std::string allowed;
      for (const std::string_view known : names) {
        allowed.append(allowed.empty() ? "one of " : ", ").append(known);
      }
      throw reader_.error(key, reader_.shown(key) + " is unknown", allowed);
    }
    value = static_cast<E>(at - names.begin());
  }
  void maybe(const char* key, int64_t& value, int64_t fallback, Range allowed) {
    known_.emplace_back(key);
    value = reader_.count_or(key, fallback, allowed);
  }
  void maybe(const char* key, std::string& value, const std::string& fallback) {
    known_.emplace_back(key);
    value = reader_.has(key) ? reader_.text(key) : fallback;
  }
  void maybe(const char* key, bool& value, bool fallback) {
    known_.emplace_back(key);
    value = reader_.flag_or(key, fallback);
  }
  void maybe(const char* key, double& value, double fallback) {
    known_.emplace_back(key);
    value = reader_.number_or(key, fallback);
  }
  template <typename E, std::size_t N>
  void maybe(const char* key, E& value, E fallback, const std::array<std::string_view, N>& names) {
    known_.emplace_back(key);
    if (reader_.has(key)) {
      always(key, value, names);
    } else {
      value = fallback;
    }
  }
  void maybe(const char* key, std::optional<Indexer>& value) {
    known_.emplace_back(key);
    if (reader_.has(key)) {
      nested(key, value.emplace());
    }
  }
  void maybe(const char* key, std::optional<bool>& value) {
    known_.emplace_back(key);
    if (reader_.has(key)) {
      value = reader_.flag_or(key, false);
    }
  }
  void maybe(const char* key, std::optional<DType>& value) {
    known_.emplace_back(key);
    if (reader_.has(key)) {
      value = dtype_named(reader_.text(key));
      if (!value) {
        throw reader_.error(key, reader_.shown(key) + " is no element type", "f16, bf16, q8_0, ..");
      }
    }
  }
  template <typename T>
  void nested(const char* key, T& value) {
    known_.emplace_back(key);
    const Reader inner = reader_.object(key);
    Filler filler(inner);
    inspect::fields(filler, value);
    filler.finish();
  }
  template <typename A, typename B>
  void both(const char* key, A& a, B& b) {
    known_.emplace_back(key);
    const std::vector<Reader> parts = reader_.objects(key);
    if (parts.size() != 2 || parts[0].text("kind") != A::kind || parts[1].text("kind") != B::kind) {
      throw reader_.error(key,
                          "not the two parts there can be",
                          std::string("one ") + A::kind + " and one " + B::kind);
    }
    Filler first(parts[0], {"kind"});
    inspect::fields(first, a);
    first.finish();
    Filler second(parts[1], {"kind"});
    inspect::fields(second, b);
    second.finish();
  }

 private:
  const Reader& reader_;
  std::vector<std::string_view> known_;
};

/// Makes the alternative of `Variant` whose kind the object names, and fills it.
template <typename... Kinds>
void read_kind(const Reader& reader, std::variant<Kinds...>& part) {
  const std::string kind = reader.text("kind");
  const auto try_one = [&](auto one) {
    if (kind != decltype(one)::kind) {
      return false;
    }
    Filler filler(reader, {"kind"});
    inspect::fields(filler, one);
    filler.finish();
    part = one;
    return true;
  };
  if (!(try_one(Kinds{}) || ...)) {
    std::string known;
    ((known.append(known.empty() ? "one of " : ", ").append(Kinds::kind)), ...);
    throw reader.error("kind", reader.shown("kind") + " is unknown", known);
  }
}

void read_layers(const Reader& document, ModelSpec& model) {
  for (const Reader& run : document.objects("layers")) {
    const int64_t first = run.count("first", inspect::kLayers);
    if (first != n_layers(model)) {
      throw run.error("first",
                      run.shown("first") + " leaves a gap or overlaps",
                      std::to_string(n_layers(model)));
    }
    const int64_t count = run.count("count", {1, inspect::kLayers.max - first});
    LayerSpec layer;
    read_kind(run.object("mixer"), layer.mixer);
    read_kind(run.object("feed_forward"), layer.feed_forward);
    Filler filler(run, {"first", "count", "mixer", "feed_forward"});
    inspect::norm_fields(filler, layer);
    filler.finish();
    model.layers.insert(model.layers.end(), static_cast<std::size_t>(count), layer);
  }
}

std::vector<std::string> texts_or_none(const Reader& document, const char* key) {
  return document.has(key) ? document.texts(key) : std::vector<std::string>{};
}

/// The outermost object, once its schema and keys are known to be ours.
Reader checked(const nlohmann::json& json, const std::string& source) {
  Reader document(json, source);
  if (document.text("schema") != inspect::kSchema) {
    throw document.error(
        "schema", document.shown("schema") + " is not understood", inspect::kSchema);
  }
  document.refuse_unknown(std::vector<std::string_view>{"schema",
                                                        "kvfathom_version",
                                                        "id",
                                                        "aliases",
                                                        "sources",
                                                        "assumed",
                                                        "model",
                                                        "layers",
                                                        "extras",
                                                        "cache_plan"});
  return document;
}

}  // namespace

ModelSpec read_inspect_text(std::string_view json, const std::string& source) {
  const nlohmann::json parsed = parse_json(json, source);
  const Reader document = checked(parsed, source);
  const Reader object = document.object("model");
  ModelSpec model;
  model.name = object.text("name");
  model.source = object.text("source");
  model.architecture = object.text("architecture");
  Filler filler(object,
                {"name",
                 "source",
                 "architecture",
                 "n_parameters",
                 "n_parameters_active",
                 "n_layers",
                 "weight_bytes"});
  inspect::fields(filler, model);
  filler.finish();
  read_layers(document, model);
  if (object.count("n_layers", inspect::kLayers) != n_layers(model)) {
    throw object.error("n_layers",
                       object.shown("n_layers") + " is not the number of layers that follow",
                       std::to_string(n_layers(model)));
  }
  if (document.has("extras")) {
    for (const Reader& extra : document.objects("extras")) {
      Filler part(extra);
      inspect::fields(part, model.extras.emplace_back());
      part.finish();
    }
  }
  check_spec(model, source);
  return model;
}

ModelSpec read_inspect(const std::string& path) {
  return read_inspect_text(read_text_file(path, int64_t{16} << 20), path);
}

InspectNotes read_inspect_notes(std::string_view json, const std::string& source) {
  const nlohmann::json parsed = parse_json(json, source);
  const Reader document = checked(parsed, source);
  return {document.text_or("id", ""),
          texts_or_none(document, "aliases"),
          texts_or_none(document, "sources"),
          texts_or_none(document, "assumed")};
}

}  // namespace kvfathom
