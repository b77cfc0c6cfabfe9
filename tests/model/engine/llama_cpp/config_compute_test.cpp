// What a catalog entry, read from a Hugging Face config, plans for the compute buffers: against
// llama.cpp's own figures for the converted files, and against the converted files' headers.
#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <variant>

#include <gtest/gtest.h>

#include "model/engine/llama_cpp/compute.h"
#include "model/io/gguf_model.h"
#include "model/io/inspect_json.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kPad = 256;

std::int64_t pad(std::int64_t n) {
  return (n + kPad - 1) / kPad * kPad;
}

/// A model of the tables of figures and the catalog's entry of the same shape.
struct Pair {
  const char* row;
  const char* entry;
};

constexpr std::array kPairs{Pair{"deepseek-v2-lite", "deepseek-v2-lite"},
                            Pair{"deepseek-v3", "deepseek-v3"},
                            Pair{"deepseek-v3.2", "deepseek-v3.2"},
                            Pair{"glm-4.5-air", "glm-4.5-air"},
                            Pair{"glm-4.7-flash", "glm-4.7-flash"},
                            Pair{"glm-5", "glm-5"},
                            Pair{"gpt-oss-20b", "gpt-oss-20b"},
                            Pair{"granite-4.1-8b", "granite-4.1-8b"},
                            Pair{"llama-4-scout", "llama-4-scout-17b-16e-instruct"},
                            Pair{"minimax-m2.5", "minimax-m2.5"},
                            Pair{"ministral-3-3b", "ministral-3-3b-instruct-2512"},
                            Pair{"mixtral-8x7b", "mixtral-8x7b-v0.1"},
                            Pair{"qwen1.5-moe-a2.7b", "qwen1.5-moe-a2.7b"},
                            Pair{"qwen3-30b-a3b", "qwen3-30b-a3b"}};

ModelSpec entry(const std::string& id) {
  return read_inspect(KVFATHOM_SOURCE_DIR "/data/models/" + id + ".json");
}

/// The entry as the file behind a row or a header says it. That of GLM-4.7-Flash was converted from
/// the same trimmed copy without the class's norm_topk_prob, so its weights are not normalised. The
/// converter writes expert_weights_norm exactly where norm_topk_prob is true (llama.cpp's class for
/// DeepSeek V2), and the graph's experts follow it.
ModelSpec entry_as_converted(const std::string& id) {
  ModelSpec model = entry(id);
  if (id == "glm-4.7-flash") {
    for (LayerSpec& layer : model.layers) {
      if (auto* moe = std::get_if<MixtureOfExperts>(&layer.feed_forward)) {
        moe->normalise_weights = false;
      }
    }
  }
  return model;
}

/// The compute buffers of a line of the tables, and the model it is about.
void expect_line(const std::map<std::string, ModelSpec>& models,
                 const std::string& line,
                 std::map<std::string, int>& asked) {
  std::istringstream in(line);
  std::string name;
  std::string place;
  std::string type_k;
  std::string type_v;
  std::string flash;
  std::int64_t context = 0;
  std::int64_t batch = 0;
  std::int64_t ubatch = 0;
  GraphSettings s;
  CacheCells cells;
  ComputeBytes expected;
  in >> name >> place >> context >> batch >> ubatch >> s.n_seq_max >> type_k >> type_v >> flash >>
      s.kv_unified >> s.n_outputs >> cells.full >> cells.window >> expected.device_bytes >>
      expected.host_bytes;
  ASSERT_FALSE(in.fail()) << line;
  const auto model = models.find(name);
  if (model == models.end() || asked[name + place] == 5) {
    return;
  }
  ++asked[name + place];
  s.backend = place == "cpu" ? Backend::cpu : Backend::cuda;
  s.type_k = dtype_named(type_k).value();
  s.type_v = dtype_named(type_v).value();
  s.n_ctx_seq = s.kv_unified ? pad(context) : pad(pad(context) / s.n_seq_max);
  s.n_batch = std::min(context, batch);
  s.n_ubatch = std::min(s.n_batch, ubatch == 0 ? batch : ubatch);
  s.flash_attention = flash == "auto" ? resolve_flash_attention(model->second, s) : flash == "on";
  s.v_transposed = flash == "off";
  const ComputeBytes bytes = ComputePlan(model->second, s).bytes(cells);
  EXPECT_EQ(bytes.device_bytes, expected.device_bytes) << line;
  EXPECT_EQ(bytes.host_bytes, expected.host_bytes) << line;
}

// Up to five settings of each model on each backend; at least two.
TEST(ComputeOfConfigs, IsWhatLlamaCppPlansForTheConvertedFile) {
  std::map<std::string, ModelSpec> models;
  for (const Pair& pair : kPairs) {
    models[pair.row] = entry_as_converted(pair.entry);
  }
  std::map<std::string, int> asked;
  for (const char* table : {"llama_cpp_compute.tsv", "llama_cpp_compute_families.tsv"}) {
    std::ifstream file(std::string(KVFATHOM_SOURCE_DIR "/tests/data/") + table);
    for (std::string line; std::getline(file, line);) {
      if (line.front() != '#') {
        expect_line(models, line, asked);
      }
    }
  }
  for (const Pair& pair : kPairs) {
    for (const char* place : {"cpu", "1gpu"}) {
      EXPECT_GE(asked[std::string(pair.row) + place], 2) << pair.row << " on " << place;
    }
  }
}

/// The config's model and the header's, in all that shapes a graph.
void expect_same_buffers(const ModelSpec& config, const ModelSpec& header, std::int64_t n_ubatch) {
  for (const Backend backend : {Backend::cpu, Backend::cuda}) {
    for (const bool flash : {true, false}) {
      GraphSettings s;
      s.backend = backend;
      s.n_ctx_seq = 8192;
      s.n_ubatch = n_ubatch;
      s.flash_attention = flash;
      s.v_transposed = !flash;
      const CacheCells cells{8192, 1024};
      EXPECT_EQ(ComputePlan(config, s).bytes(cells), ComputePlan(header, s).bytes(cells))
          << config.name << " ubatch " << n_ubatch << " flash " << flash;
    }
  }
}

TEST(ComputeOfConfigs, IsThatOfTheConvertedFilesHeader) {
  constexpr std::array pairs{Pair{"deepseek-v2-lite", "deepseek-v2-lite"},
                             Pair{"glm-4.7-flash", "glm-4.7-flash"},
                             Pair{"gpt-oss-20b", "gpt-oss-20b"},
                             Pair{"qwen3-30b-a3b", "qwen3-30b-a3b"}};
  for (const Pair& pair : pairs) {
    const ModelSpec header =
        read_gguf(std::string(KVFATHOM_SOURCE_DIR "/tests/data/gguf/") + pair.row + ".gguf");
    const ModelSpec config = entry_as_converted(pair.entry);
    expect_same_buffers(config, header, 512);
    expect_same_buffers(config, header, 33);
  }
}

const MixtureOfExperts& experts(const ModelSpec& model) {
  return std::get<MixtureOfExperts>(model.layers.back().feed_forward);
}

// The published configs' own values, by hand.
TEST(RoutingOfConfigs, SurvivesTheCatalog) {
  const ModelSpec v3 = entry("deepseek-v3");
  EXPECT_EQ(experts(v3).gating, ExpertGating::sigmoid);
  EXPECT_TRUE(experts(v3).normalise_weights);
  EXPECT_TRUE(experts(v3).router_bias);
  EXPECT_EQ(experts(v3).weights_scale, 2.5);
  EXPECT_EQ(experts(v3).n_expert_groups, 8);
  EXPECT_EQ(experts(v3).n_expert_groups_used, 4);
  const ModelSpec v2 = entry("deepseek-v2");
  EXPECT_EQ(experts(v2).gating, ExpertGating::softmax);
  EXPECT_FALSE(experts(v2).normalise_weights);
  EXPECT_FALSE(experts(v2).router_bias);
  EXPECT_EQ(experts(v2).weights_scale, 16.0);
  EXPECT_EQ(experts(v2).n_expert_groups_used, 3);
  // A trimmed copy: its class fills in what it lacks.
  const ModelSpec thinking = entry("kimi-k2-thinking");
  EXPECT_EQ(experts(thinking), experts(entry("kimi-k2-instruct")));
  EXPECT_EQ(experts(entry("glm-4.7-flash")).weights_scale, 1.8);
  EXPECT_TRUE(experts(entry("glm-4.7-flash")).normalise_weights);
  EXPECT_EQ(experts(entry("gpt-oss-20b")).gating, ExpertGating::softmax_over_chosen);
  EXPECT_EQ(experts(entry("step-3.5-flash")).weights_scale, 3.0);
  EXPECT_EQ(experts(entry("laguna-xs.2-fp8")).weights_scale, 2.5);
  EXPECT_FALSE(experts(entry("qwen1.5-moe-a2.7b")).normalise_weights);
  EXPECT_TRUE(experts(entry("qwen3-30b-a3b")).normalise_weights);
}

TEST(RoutingOfConfigs, GraniteHybridHasNoRotationAndItsMultipliers) {
  const ModelSpec model = entry("granite-4.0-h-small");
  EXPECT_EQ(std::get<Attention>(model.layers[5].mixer).rope_dim, 0);
  EXPECT_EQ(model.embedding_scale, 12.0);
  EXPECT_EQ(model.residual_scale, 0.22);
  EXPECT_EQ(model.logit_scale, 0.0625);
}

}  // namespace
}  // namespace kvfathom::llama_cpp
