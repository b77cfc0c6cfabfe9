#include "model/engine/llama_cpp/compute.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/engine/llama_cpp/sample_families.h"
#include "tests/model/engine/llama_cpp/sample_models.h"

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
  std::string flash;
  CacheCells cells;
  ComputeBytes bytes;
};

Row parse(const std::string& line) {
  std::istringstream in(line);
  Row r;
  r.text = line;
  std::string place;
  std::string type_k;
  std::string type_v;
  std::int64_t context = 0;
  std::int64_t batch = 0;
  std::int64_t ubatch = 0;
  GraphSettings& s = r.settings;
  in >> r.model >> place >> context >> batch >> ubatch >> s.n_seq_max >> type_k >> type_v >>
      r.flash >> s.kv_unified >> s.n_outputs >> r.cells.full >> r.cells.window >>
      r.bytes.device_bytes >> r.bytes.host_bytes;
  EXPECT_FALSE(in.fail()) << line;
  s.backend = place == "cpu" ? Backend::cpu : Backend::cuda;
  s.type_k = dtype_named(type_k).value();
  s.type_v = dtype_named(type_v).value();
  s.n_ctx_seq = s.kv_unified ? pad(context) : pad(pad(context) / s.n_seq_max);
  s.n_batch = std::min(context, batch);
  s.n_ubatch = std::min(s.n_batch, ubatch == 0 ? batch : ubatch);
  return r;
}

std::vector<Row> rows(const std::string& name) {
  std::ifstream file(KVFATHOM_SOURCE_DIR "/tests/data/" + name);
  std::vector<Row> all;
  for (std::string line; std::getline(file, line);) {
    if (line.front() != '#') {
      all.push_back(parse(line));
    }
  }
  return all;
}

void expect_exact(const std::map<std::string, ModelSpec>& models, const std::vector<Row>& all) {
  for (const Row& row : all) {
    const ModelSpec& model = models.at(row.model);
    GraphSettings s = row.settings;
    s.flash_attention = row.flash == "auto" ? resolve_flash_attention(model, s) : row.flash == "on";
    s.v_transposed = row.flash == "off";
    const ComputePlan plan(model, s);
    const ComputeBytes fast = plan.bytes(row.cells);
    EXPECT_EQ(fast.device_bytes, row.bytes.device_bytes) << row.text;
    EXPECT_EQ(fast.host_bytes, row.bytes.host_bytes) << row.text;
    EXPECT_EQ(fast, plan.bytes_by_full_replay(row.cells)) << row.text;
  }
}

// The engine's own figures, to the byte, by both ways of asking.
TEST(ComputePlan, MatchesWhatLlamaCppPlansToTheByte) {
  const std::vector<Row> all = rows("llama_cpp_compute.tsv");
  ASSERT_GT(all.size(), 400U);
  expect_exact(sample::models(), all);
}

TEST(ComputePlan, MatchesEveryDecoderFamilyToTheByte) {
  const std::vector<Row> all = rows("llama_cpp_compute_families.tsv");
  ASSERT_GT(all.size(), 200U);
  expect_exact(sample::families(), all);
}

// A fixed sequence of odd settings: many cells asked of one plan, fast against slow.
TEST(ComputePlan, SkippingEqualLayersChangesNothing) {
  std::uint32_t state = 1;
  const auto below = [&state](std::uint32_t n) {
    state = state * 1664525U + 1013904223U;
    return static_cast<std::int64_t>((state >> 8) % n);
  };
  const DType types[] = {DType::f16, DType::q8_0, DType::q4_0, DType::bf16, DType::f32};
  for (const auto& [name, model] : sample::models()) {
    for (int i = 0; i < 4; ++i) {
      GraphSettings s;
      s.backend = below(2) == 0 ? Backend::cpu : Backend::cuda;
      s.n_seq_max = 1 + below(5);
      s.n_ctx_seq = kPad * (1 + below(100));
      s.n_batch = std::min<std::int64_t>(s.n_ctx_seq, 1 + below(3000));
      s.n_ubatch = std::min<std::int64_t>(s.n_batch, 1 + below(700));
      s.n_outputs = below(4);
      s.flash_attention = below(3) > 0;
      s.v_transposed = !s.flash_attention;
      s.kv_unified = below(2) == 0;
      s.type_k = s.flash_attention ? types[below(5)] : DType::f16;
      s.type_v = s.type_k;
      const ComputePlan plan(model, s);
      for (int k = 0; k < 6; ++k) {
        const CacheCells cells{kPad * (1 + below(800)), kPad * (1 + below(20))};
        EXPECT_EQ(plan.bytes(cells), plan.bytes_by_full_replay(cells)) << name << " setting " << i;
      }
    }
  }
}

TEST(ComputePlan, UnknownArchitectureIsRefusedByName) {
  ModelSpec model = sample::dense("llama", {2, 64, 96, 4, 2, 16, 288});
  model.architecture = "no-such-architecture";
  GraphSettings s;
  s.n_ctx_seq = kPad;
  try {
    const ComputePlan plan(model, s);
    FAIL() << "built a graph for an unknown architecture";
  } catch (const Unsupported& e) {
    EXPECT_NE(std::string(e.what()).find("no-such-architecture"), std::string::npos);
    for (const char* known : {"one of ", " llama,", " qwen3,", " gemma3,"}) {
      EXPECT_NE(e.allowed().find(known), std::string::npos) << e.allowed();
    }
  }
}

// 128256 logits of 4 bytes for each of 4 sequences.
TEST(OutputBytes, OneRowOfLogitsASequence) {
  ModelSpec model;
  model.vocab_size = 128256;
  EXPECT_EQ(output_bytes(model, 4), 2052096);
}

}  // namespace
}  // namespace kvfathom::llama_cpp
