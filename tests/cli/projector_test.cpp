// --mmproj: a projector's file beside the model's.
#include "model/engine/llama_cpp/projector.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/cli/run_cli.h"
#include "tests/model/engine/llama_cpp/sample_projectors.h"
#include "tests/model/io/gguf_writer.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

/// The header of a projector's file: a tower, an audio encoder, or one of each.
std::string written(const std::vector<ProjectorSpec>& encoders, const std::string& name) {
  GgufWriter writer;
  writer.text("general.architecture", "clip");
  for (const ProjectorSpec& spec : encoders) {
    const bool audio = spec.modality == Modality::audio;
    const std::string prefix = audio ? "clip.audio." : "clip.vision.";
    const auto number = [&](const std::string& key, std::int64_t value) {
      writer.u32(prefix + key, static_cast<std::uint32_t>(value));
    };
    writer.boolean(audio ? "clip.has_audio_encoder" : "clip.has_vision_encoder", true)
        .text(encoders.size() == 1 ? "clip.projector_type" : prefix + "projector_type", spec.type);
    number("block_count", spec.n_layers);
    number("embedding_length", spec.hidden_size);
    number("attention.head_count", spec.n_heads);
    number("feed_forward_length", spec.intermediate_size);
    if (audio) {
      number("num_mel_bins", spec.mel_bands);
      number("projector.stack_factor", spec.stacked_frames);
    } else {
      number("image_size", spec.image_pixels);
      number("patch_size", spec.patch_pixels);
      number("spatial_merge_size", spec.merged_patches);
    }
    for (const Tensor& t : spec.tensors) {
      writer.tensor(t.name, {t.shape.begin(), t.shape.end()}, t.dtype);
    }
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
  const std::string file = written({qwen_projector({})}, "mmproj.gguf");
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
  const std::string file = written({qwen_projector({})}, "mmproj.gguf");
  const Json document = json_of("memory " + kModel + "--no-mmproj-offload --mmproj " + file);
  EXPECT_TRUE(line(document, "gpu0", "vision").is_null());
  EXPECT_NEAR(line(document, "host", "vision").at("bytes").get<double>() / (1 << 20),
              887.99 + 248.10,
              0.02);
}

// The fit makes room for it, as llama-server's does: 1,136 MiB on a card that is full without it.
TEST(ProjectorOption, TakesItsRoomFromWhatFits) {
  const std::string file = written({qwen_projector({})}, "mmproj.gguf");
  const std::string words =
      "fit qwen3.5-27b --weights q4_k_m --gpu rtx-4090 --cache-type-k f16 --cache-type-v f16 ";
  for (const std::string how : {"", "--auto "}) {
    std::string asked = words + how;
    const std::int64_t without = json_of(asked).at("answers").at(0).at("max_context_tokens");
    asked += "--mmproj ";
    asked += file;
    const std::int64_t with = json_of(asked).at("answers").at(0).at("max_context_tokens");
    // 16 of 64 layers keep 4 KV heads x 256 values x K and V x 2 bytes a token: 64 KiB
    const double tokens = 1136.09 * 1024 / 64;
    EXPECT_NEAR(static_cast<double>(without - with), tokens, 0.05 * tokens) << how;
  }
}

TEST(ProjectorOption, RefusesWhatIsNoProjectorOfTheModel) {
  const std::string file = written({qwen_projector({.out = 4096})}, "mmproj-8b.gguf");
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
  const std::string audio =
      written({qwen_projector({}), whisper_projector("lfm2a", 5120)}, "mmproj-audio.gguf");
  EXPECT_EQ(refusal("memory " + kModel + "--mmproj " + audio),
            std::pair(3,
                      std::string("kvfathom: --mmproj: audio encoder type \"lfm2a\": no graph "
                                  "for its buffers; gemma4a, qwen2a, ultravox or voxtral\n")));
}

// A file with a tower and an encoder makes a context of each: both lines' sums.
TEST(ProjectorOption, AddsTheEncodersOfAFileWithTwo) {
  const ProjectorSpec tower = qwen_projector({});
  const ProjectorSpec encoder = whisper_projector("qwen2a", 5120);
  const auto bytes = [&](const std::vector<ProjectorSpec>& encoders, const std::string& device) {
    const std::string file = written(encoders, "mmproj-two.gguf");
    return line(json_of("memory " + kModel + "--mmproj " + file), device, "vision")
        .at("bytes")
        .get<std::int64_t>();
  };
  for (const char* device : {"gpu0", "host"}) {
    EXPECT_EQ(bytes({tower, encoder}, device), bytes({tower}, device) + bytes({encoder}, device));
  }
}

TEST(ProjectorOption, IsNotForCheckpointsWhichHoldTheirTower) {
  const std::string file = written({qwen_projector({})}, "mmproj.gguf");
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
