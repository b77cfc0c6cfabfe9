#include "model/io/hf_config.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "model/io/file.h"
#include "model/io/hf/translate.h"
#include "model/io/json_reader.h"
#include "model/io/spec_check.h"

namespace kvfathom {
namespace {

using hf::Family;

constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;

std::array<std::span<const Family>, 7> all_families() {
  return {hf::dense_families(),
          hf::gemma_families(),
          hf::moe_families(),
          hf::latent_families(),
          hf::hybrid_families(),
          hf::recurrent_families(),
          hf::classic_families()};
}

const Family* family_of(std::string_view model_type) {
  for (const std::span<const Family> table : all_families()) {
    for (const Family& family : table) {
      if (family.model_type == model_type) {
        return &family;
      }
    }
  }
  return nullptr;
}

/// Types that are understood well enough to say why they have no ModelSpec.
struct Refused {
  std::string_view model_type;
  const char* why;
};
constexpr const char* kEncoder = "is an encoder, which keeps no cache";
constexpr const char* kEncoderDecoder = "is an encoder-decoder, which is not modelled";
constexpr std::array kRefused{
    Refused{"bert", kEncoder},
    Refused{"roberta", kEncoder},
    Refused{"xlm-roberta", kEncoder},
    Refused{"modernbert", kEncoder},
    Refused{"nomic_bert", kEncoder},
    Refused{"deberta-v2", kEncoder},
    Refused{"t5", kEncoderDecoder},
    Refused{"whisper", kEncoderDecoder},
    Refused{"deepseek_v4", "attends over compressed tokens (CSA, HCA), which is not modelled"},
    Refused{"cohere2_moe", "has experts whose fields are not known here"},
};

std::string joined_model_types() {
  std::string names;
  for (const std::string_view name : hf_model_types()) {
    names.append(names.empty() ? "" : ", ").append(name);
  }
  return names;
}

Unsupported refusal_of(const std::string& source, const std::string& model_type) {
  const auto* const known = std::find_if(kRefused.begin(), kRefused.end(), [&](const Refused& r) {
    return r.model_type == model_type;
  });
  return {source + ": \"model_type\"",
          "\"" + model_type.substr(0, 60) + "\" " +
              (known == kRefused.end() ? "is not known" : known->why),
          "one of " + joined_model_types()};
}

/// What the file calls itself: model_type, or the format of the mamba_ssm package, which has none.
std::string model_type_of(const Reader& config) {
  if (!config.has("model_type") && config.has("ssm_cfg") && config.has("d_model")) {
    return "state-spaces";
  }
  if (!config.has("model_type") && config.is_list("architectures")) {
    const std::vector<std::string> classes = config.texts("architectures");
    throw Unsupported(config.file() + ": \"model_type\"",
                      "missing (the class is " +
                          (classes.empty() ? "not named" : classes.front().substr(0, 60)) + ")",
                      "one of " + joined_model_types());
  }
  return config.text("model_type");
}

/// The one object the translations see: text fields first, then those around them.
Reader merged(const Reader& config) {
  for (const char* key : {"text_config", "language_config", "llm_config"}) {
    if (config.is_object(key)) {
      return config.over(key);
    }
  }
  return config;
}

/// torch_dtype (or dtype), and what quantization_config makes of the matrices.
void read_dtypes(const Reader& config, ModelSpec& model) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.is_text(key)) {
      const std::string name = config.text(key);
      model.weight_dtype = name == "bfloat16"  ? std::optional(DType::bf16)
                           : name == "float16" ? std::optional(DType::f16)
                           : name == "float32" ? std::optional(DType::f32)
                                               : std::nullopt;
      break;
    }
  }
  if (!config.is_object("quantization_config")) {
    return;
  }
  const Reader q = config.object("quantization_config");
  const std::string method = q.is_text("quant_method") ? q.text("quant_method") : "";
  const std::string algorithm = q.is_text("quant_algo") ? q.text("quant_algo") : "";
  const std::string format = q.is_text("format") ? q.text("format") : "";
  if (method == "fp8" || format == "float-quantized" || algorithm == "FP8") {
    model.weight_dtype = DType::f8_e4m3;
  } else if (algorithm == "NVFP4") {
    model.weight_dtype = DType::nvfp4;
  } else if (method == "mxfp4" || format == "mxfp4-pack-quantized") {
    model.expert_dtype = DType::mxfp4;
  } else {
    for (const std::string& word : {method, format, algorithm}) {
      model.packed_as += (model.packed_as.empty() || word.empty() ? "" : ", ") + word;
    }
  }
}

}  // namespace

std::vector<std::string_view> hf_model_types() {
  std::vector<std::string_view> names;
  for (const std::span<const Family> table : all_families()) {
    for (const Family& family : table) {
      names.push_back(family.model_type);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

ModelSpec read_hf_config_text(std::string_view json, const std::string& source) {
  const nlohmann::json document = parse_json(json, source);
  const Reader whole(document, source);
  // A file may nest its decoder and leave its own type out.
  const bool typed =
      whole.has("model_type") || !whole.is_object("text_config") || whole.is_list("architectures");
  const std::string model_type = model_type_of(typed ? whole : merged(whole));
  const Family* const family = family_of(model_type);
  if (family == nullptr) {
    throw refusal_of(source, model_type);
  }
  const Reader config = merged(whole);
  ModelSpec model;
  model.source = source;
  model.architecture = family->architecture;
  family->translate(config, model);
  read_dtypes(config, model);
  check_spec(model, source);
  return model;
}

ModelSpec read_hf_config(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path file = is_directory(path) ? fs::path(path) / "config.json" : fs::path(path);
  ModelSpec model =
      read_hf_config_text(read_text_file(file.string(), kMaxConfigBytes), file.string());
  // A config.json says nothing about its name: its folder does.
  model.name = file.filename() == "config.json"
                   ? fs::absolute(file).parent_path().filename().string()
                   : file.stem().string();
  return model;
}

}  // namespace kvfathom
