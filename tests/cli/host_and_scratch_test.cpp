// Parts of a real model that a formula of weights and cache leaves out.
#include <string>

#include "tests/cli/run_json.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

std::int64_t bytes_of(const std::string& words, const std::string& device, const char* kind) {
  const Json document = json_of("memory " + words + " --gpus 1");
  for (const Json& line : document.at("ledger")) {
    if (line.at("device") == device && line.at("line") == kind) {
      return line.at("bytes").get<std::int64_t>();
    }
  }
  return 0;
}

TEST(QuantisedCache, AQuantisedCacheNeedsScratchForItsF16Copy) {
  const std::string words =
      "llama-3.1-8b --weights q4_k_m --engine llama.cpp --context 131072 --cache-type-k ";
  // FlashAttention on CUDA turns one layer's K and V into f16: 2 x 131072 x 1024 values, 512 MiB,
  // in place of part of what the pass needs without it.
  const std::int64_t mib = std::int64_t{1} << 20;
  EXPECT_EQ(bytes_of(words + "f16 --cache-type-v f16", "gpu0", "compute") / mib, 236);
  EXPECT_EQ(bytes_of(words + "q8_0 --cache-type-v q8_0", "gpu0", "compute") / mib, 672);
}

TEST(PerLayerEmbeddings, LlamaCppKeepsThemOnTheHost) {
  // Gemma-3n E2B: a table of 30 layers x 256 values a row beside a token embedding of 2,048; its
  // config gives 262,144 rows (vocab_size_per_layer_input) and 262,400 (vocab_size). Both are read
  // on the host; the embedding is tied, so the GPU has a copy of it as the output head.
  const std::string words = "gemma-3n-e2b-it --weights bf16 --engine llama.cpp --context 4096";
  const std::int64_t row_bytes = (std::int64_t{30} * 256 + 2048) * 2;
  const std::int64_t on_host = bytes_of(words, "host", "weights");
  EXPECT_GE(on_host, 262'144 * row_bytes);
  EXPECT_LE(on_host, 262'400 * row_bytes);
}

}  // namespace
}  // namespace kvfathom::testing
