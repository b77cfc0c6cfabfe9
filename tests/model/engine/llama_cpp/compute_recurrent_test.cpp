// Compute buffers of models with state layers and of those with shared caches, against what
// llama.cpp itself plans.
#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "model/engine/llama_cpp/compute.h"
#include "model/error.h"
#include "model/io/inspect_json.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kPad = 256;

std::int64_t pad(std::int64_t n) {
  return (n + kPad - 1) / kPad * kPad;
}

struct Row {
  std::string text;
  std::string model;
  GraphSettings settings;
  CacheCells cells;
  ComputeBytes bytes;
};

Row parse(const std::string& line) {
  std::istringstream in(line);
  Row r;
  r.text = line;
  std::string place;
  std::string cache_type;
  std::string flash;
  std::int64_t context = 0;
  std::int64_t ubatch = 0;
  GraphSettings& s = r.settings;
  in >> r.model >> place >> context >> ubatch >> s.n_seq_max >> cache_type >> flash >>
      s.kv_unified >> s.n_outputs >> r.cells.window >> r.bytes.device_bytes >> r.bytes.host_bytes;
  EXPECT_FALSE(in.fail()) << line;
  s.backend = place == "cpu" ? Backend::cpu : Backend::cuda;
  s.type_k = s.type_v = dtype_named(cache_type).value();
  s.n_ctx_seq = s.kv_unified ? pad(context) : pad(pad(context) / s.n_seq_max);
  s.n_batch = std::min<std::int64_t>(context, 2048);
  s.n_ubatch = std::min(s.n_batch, ubatch);
  s.flash_attention = flash == "on";
  s.v_transposed = flash == "off";
  r.cells.full = s.n_ctx_seq;
  return r;
}

std::vector<Row> rows() {
  std::ifstream file(KVFATHOM_SOURCE_DIR "/tests/data/llama_cpp_compute_recurrent.tsv");
  std::vector<Row> all;
  for (std::string line; std::getline(file, line);) {
    if (line.front() != '#') {
      all.push_back(parse(line));
    }
  }
  return all;
}

const ModelSpec& catalog_model(const std::string& name) {
  static std::map<std::string, ModelSpec> models;
  const auto found = models.find(name);
  if (found != models.end()) {
    return found->second;
  }
  const std::string path = KVFATHOM_SOURCE_DIR "/data/models/" + name + ".json";
  return models.emplace(name, read_inspect(path)).first->second;
}

TEST(ComputeOfStateLayers, AgreesWithTheEngineToTheByte) {
  const std::vector<Row> all = rows();
  ASSERT_GT(all.size(), 40U);
  for (const Row& r : all) {
    const ComputePlan plan(catalog_model(r.model), r.settings);
    const ComputeBytes b = plan.bytes(r.cells);
    EXPECT_EQ(b.device_bytes, r.bytes.device_bytes) << r.text;
    EXPECT_EQ(b.host_bytes, r.bytes.host_bytes) << r.text;
  }
}

TEST(ComputeOfStateLayers, OneReplayAnswersLikeTheCompiledPass) {
  for (const Row& r : rows()) {
    const ComputePlan plan(catalog_model(r.model), r.settings);
    EXPECT_EQ(plan.bytes(r.cells), plan.bytes_by_full_replay(r.cells)) << r.text;
  }
}

TEST(ComputeOfStateLayers, MambaDoesNotGrowWithTheContext) {
  GraphSettings s;
  s.n_ctx_seq = 4096;
  const ComputePlan plan(catalog_model("mamba2-2.7b"), s);
  EXPECT_EQ(plan.bytes({4096, 0}), plan.bytes({1048576, 0}));
}

TEST(ComputeOfStateLayers, Gemma3nWithoutItsSidePathsIsRefused) {
  ModelSpec model = catalog_model("gemma-3n-e2b-it");
  model.altup_inputs = 0;
  GraphSettings s;
  s.n_ctx_seq = 4096;
  EXPECT_THROW(ComputePlan(model, s), Unsupported);
}

}  // namespace
}  // namespace kvfathom::llama_cpp
