// --mmproj: a projector's file beside the model's.
#include "model/engine/llama_cpp/projector.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/run_cli.h"
#include "tests/model/engine/llama_cpp/sample_projectors.h"
#include "tests/model/io/gguf_writer.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

/// The header of a projector's file.
std::string written(const ProjectorSpec& spec, const std::string& name, bool audio = false) {
  GgufWriter writer;
  writer.text("general.architecture", "clip")
      .boolean("clip.has_vision_encoder", true)
      .boolean("clip.has_audio_encoder", audio)
      .text("clip.projector_type", spec.type)
      .u32("clip.vision.block_count", static_cast<std::uint32_t>(spec.n_layers))
      .u32("clip.vision.embedding_length", static_cast<std::uint32_t>(spec.hidden_size))
      .u32("clip.vision.attention.head_count", static_cast<std::uint32_t>(spec.n_heads))
      .u32("clip.vision.feed_forward_length", static_cast<std::uint32_t>(spec.intermediate_size))
      .u32("clip.vision.image_size", static_cast<std::uint32_t>(spec.image_pixels))
      .u32("clip.vision.patch_size", static_cast<std::uint32_t>(spec.patch_pixels))
      .u32("clip.vision.spatial_merge_size", static_cast<std::uint32_t>(spec.merged_patches));
  for (const Tensor& t : spec.tensors) {
    writer.tensor(t.name, {t.shape.begin(), t.shape.end()}, t.dtype);
  }
  std::string path = (std::filesystem::path(::testing::TempDir()) / name).string();
  std::ofstream(path, std::ios::binary) << writer.header();
  return path;
}

const std::string kModel = "qwen3.5-27b --weights q4_k_m --gpu rtx-4090 --context 8192 ";

Json json_of(const std::string& words, int status = 0) {
  const Ran ran = run_cli(words + " --json");
  EXPECT_EQ(ran.status, status) << words << "\n" << ran.err;
  return Json::parse(ran.out);
}

Json line(const Json& document, const std::string& device, const std::string& kind) {
  for (const Json& one : document.at("ledger")) {
    if (one.at("device") == device && one.at("line") == kind) {
      return one;
    }
  }
  return {};
}

std::pair<int, std::string> refusal(const std::string& words) {
  const Ran ran = run_cli(words);
  return {ran.status, ran.err};
}

// The logged load of this tower: 1161.02 MiB in all, 24.93 of them on the host.
TEST(ProjectorOption, AddsALineOnTheFirstGpuAndOneOnTheHost) {
  const std::string file = written(qwen_projector({}), "mmproj.gguf");
  const Json with = json_of("memory " + kModel + "--mmproj " + file);
  const Json without = json_of("memory " + kModel);
  const double gpu = line(with, "gpu0", "vision").at("bytes").get<double>() / (1 << 20);
  const double host = line(with, "host", "vision").at("bytes").get<double>() / (1 << 20);
  EXPECT_NEAR(gpu + host, 1161.02, 0.01);
  EXPECT_NEAR(host, 24.93, 0.01);
  EXPECT_EQ(line(with, "gpu0", "vision").at("provenance"), "exact");
  for (const char* kind : {"weights", "cache", "state", "compute"}) {
    EXPECT_EQ(line(with, "gpu0", kind), line(without, "gpu0", kind)) << kind;
  }
  EXPECT_NE(with.at("command").get<std::string>().find(" --mmproj " + file), std::string::npos);
}

TEST(ProjectorOption, StaysOnTheHostIfAsked) {
  const std::string file = written(qwen_projector({}), "mmproj.gguf");
  const Json document = json_of("memory " + kModel + "--no-mmproj-offload --mmproj " + file);
  EXPECT_TRUE(line(document, "gpu0", "vision").is_null());
  EXPECT_NEAR(line(document, "host", "vision").at("bytes").get<double>() / (1 << 20),
              887.99 + 248.10,
              0.02);
}

// The fit makes room for it, as llama-server's does: 1,136 MiB on a card that is full without it.
TEST(ProjectorOption, TakesItsRoomFromWhatFits) {
  const std::string file = written(qwen_projector({}), "mmproj.gguf");
  const std::string words =
      "fit qwen3.5-27b --weights q4_k_m --gpu rtx-4090 --cache-type-k f16 --cache-type-v f16 ";
  for (const std::string how : {"", "--auto "}) {
    const std::string asked = words + how;
    const std::int64_t without = json_of(asked).at("answers").at(0).at("max_context_tokens");
    const std::int64_t with =
        json_of(asked + "--mmproj " + file).at("answers").at(0).at("max_context_tokens");
    // 16 of 64 layers keep 4 KV heads x 256 values x K and V x 2 bytes a token: 64 KiB
    const double tokens = 1136.09 * 1024 / 64;
    EXPECT_NEAR(static_cast<double>(without - with), tokens, 0.05 * tokens) << how;
  }
}

TEST(ProjectorOption, RefusesWhatIsNoProjectorOfTheModel) {
  const std::string file = written(qwen_projector({.out = 4096}), "mmproj-8b.gguf");
  EXPECT_EQ(refusal("memory " + kModel + "--mmproj " + file),
            std::pair(2,
                      std::string("kvfathom: --mmproj: gives 4096 values a token beside the "
                                  "model's 5120; the projector of this model\n")));
  const std::string model = KVFATHOM_SOURCE_DIR "/tests/data/gguf/llama-3.1-8b.gguf";
  EXPECT_EQ(refusal("memory " + kModel + "--mmproj " + model),
            std::pair(2,
                      "kvfathom: " + model +
                          ": no projector: its architecture is another; an mmproj GGUF\n"));
  EXPECT_EQ(refusal("memory " + kModel + "--no-mmproj-offload"),
            std::pair(2,
                      std::string("kvfathom: --mmproj: missing beside --no-mmproj-offload; give "
                                  "--mmproj GGUF\n")));
  const std::string audio = written(qwen_projector({}), "mmproj-audio.gguf", true);
  EXPECT_EQ(refusal("memory " + kModel + "--mmproj " + audio),
            std::pair(3,
                      std::string("kvfathom: --mmproj: an audio encoder: no graph for its "
                                  "buffers\n")));
}

TEST(ProjectorOption, IsNotForCheckpointsWhichHoldTheirTower) {
  const std::string file = written(qwen_projector({}), "mmproj.gguf");
  EXPECT_EQ(
      refusal("memory qwen3.5-27b --engine vllm --gpu h100-sxm --context 8192 --mmproj " + file)
          .first,
      2);
  const Json document = json_of("memory qwen3.5-27b --engine vllm --gpu h100-sxm --context 8192");
  // by hand, from the config's widths: 27 layers of 4 x 1152^2 + 2 x 1152 x 4304 and the merger's
  // 4608 x (4608 + 5120), in 16 bits
  const double values = 27.0 * (4 * 1152 * 1152 + 2 * 1152 * 4304) + 4608.0 * (4608 + 5120);
  EXPECT_NEAR(
      line(document, "gpu0", "vision").at("bytes").get<double>(), 2 * values, 0.02 * 2 * values);
}

}  // namespace
}  // namespace kvfathom::testing
