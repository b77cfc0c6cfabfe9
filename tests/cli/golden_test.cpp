// Tables as they were last looked at, at 80 and at 100 columns: tests/cli/golden.
#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

struct Golden {
  const char* file;
  const char* words;
};

class Goldens : public ::testing::TestWithParam<Golden> {};

TEST_P(Goldens, TableIsAsItWasAt80And100Columns) {
  for (const int width : {80, 100}) {
    const Ran ran = run_cli(GetParam().words, width);
    EXPECT_EQ(ran.err, "");
    expect_golden(ran.out, std::string(GetParam().file) + "." + std::to_string(width) + ".txt");
    for (std::size_t at = 0; at < ran.out.size();) {
      const std::size_t end = std::min(ran.out.find('\n', at), ran.out.size());
      const std::string line = ran.out.substr(at, end - at);
      int cells = 0;
      for (const char c : line) {
        cells += (static_cast<unsigned char>(c) & 0xC0U) == 0x80U ? 0 : 1;
      }
      // A command to copy stays on one line.
      EXPECT_TRUE(cells <= width || line.find("llama-server") != std::string::npos ||
                  line.find("vllm serve") != std::string::npos)
          << line;
      at = end + 1;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Output,
    Goldens,
    ::testing::Values(
        Golden{"fit-glm-4.7-flash", "fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m"},
        Golden{"speed", "speed llama-3.1-8b --gpu h100-sxm --engine vllm --energy"},
        Golden{"speed-host-experts",
               "speed qwen3-30b-a3b --weights q4_k_m --gpu rtx-4090 --cpu-moe-layers 20 "
               "--host-bandwidth 80GB/s"},
        Golden{"speed-schemes", "speed llama-2-7b-hf --gpu h100-sxm --engine ideal --scheme all"},
        Golden{"crossover", "crossover llama-3.1-8b --gpu h100-sxm --map"},
        Golden{"crossover-loaded",
               "crossover llama-2-7b-hf --gpu rtx-4090 --tier network --bandwidth 2GB/s "
               "--load 0.5 --queued 1GiB --running 16 --context 3000"},
        Golden{"fit-ideal", "fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m --engine ideal"},
        Golden{"fit-too-large", "fit glm-4.7-flash --gpu rtx-4090"},
        Golden{"fit-users",
               "fit llama-3.1-8b --gpu rtx-4090 --weights q8_0 --users --context 8192"},
        Golden{"fit-engines", "fit qwen3-30b-a3b --gpu h100-sxm --engine all"},
        Golden{"fit-engines-every-scheme",
               "fit gemma-3-4b-it --gpu rtx-4090 --scheme all --engine all"},
        Golden{"fit-engines-drafting", "fit qwen3.5-35b-a3b --gpu h200-sxm --engine all --mtp 2"},
        Golden{"fit-drafting", "fit glm-4.7-flash --gpu h200-sxm --engine vllm --mtp 2"},
        Golden{"fit-engines-refused", "fit gpt-oss-20b --gpu rtx-4090 --engine all"},
        Golden{"fit-engines-users",
               "fit llama-3.1-8b --gpu rtx-4090 --engine all --users --context 4096"},
        Golden{"memory-vllm",
               "memory qwen3.5-27b --engine vllm --context 65536 --gpu h100-sxm --sequences 4"},
        Golden{"fit-windows", "fit gemma-3-27b-it --gpu rtx-4090 --weights q4_k_m --reserve 1GiB"},
        Golden{"memory-fits",
               "memory qwen3-30b-a3b --weights q4_k_m --context 32768 --gpu rtx-4090"},
        Golden{"memory-too-large",
               "memory glm-4.7-flash --weights q4_k_m --context 200000 --gpu rtx-4090"},
        Golden{"memory-hybrid", "memory qwen3.5-27b --context 65536 --sequences 4 --engine ideal"},
        Golden{"memory-equal-gpus",
               "memory glm-4.7-flash --gpu h100-sxm --gpus 4 --tensor-parallel 4 --context 32768 "
               "--engine vllm"},
        Golden{"memory-uneven-gpus",
               "memory llama-3.3-70b-instruct --weights q4_k_m --context 32768 "
               "--gpu rtx-4090,rtx-3090,rtx-3060"},
        Golden{"fit-two-gpus", "fit llama-3.3-70b-instruct --weights q4_k_m --gpu 4090 --gpus 2"},
        Golden{"fit-auto",
               "fit qwen3-30b-a3b --weights q4_k_m --gpu rtx-4070 --host-memory 32GiB --auto"},
        Golden{"fit-auto-longer",
               "fit qwen3-30b-a3b --weights q4_k_m --gpu rtx-4070 --host-memory 64GiB --auto"},
        Golden{"fit-every-scheme", "fit llama-3.1-8b --gpu rtx-4090 --weights q8_0 --scheme all"},
        Golden{"fit-formula-rows", "fit glm-4.7-flash --gpu h100-sxm --scheme all"},
        Golden{"fit-kivi", "fit llama-3.1-8b --gpu rtx-4090 --scheme kivi"},
        Golden{"fit-smallest-gpu-kivi",
               "fit llama-3.1-8b --smallest-gpu --context 32768 --engine ideal --scheme kivi"},
        Golden{"fit-with-speed", "fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m --with-speed"},
        Golden{"fit-users-with-speed",
               "fit llama-3.1-8b --gpu h100-sxm --users --context 8192 --with-speed"},
        Golden{"fit-engines-with-speed",
               "fit gpt-oss-20b --gpu rtx-4090 --engine all --with-speed"},
        Golden{"fit-every-scheme-with-speed",
               "fit llama-3.1-8b --gpu rtx-4090 --weights q8_0 --scheme all --with-speed"},
        Golden{"fit-no-speed", "fit llama-3.1-8b --gpu h100-sxm --lora-rank 16 --with-speed"},
        Golden{"fit-partial-offload",
               "fit llama-3.1-8b --weights q8_0 --memory 6GiB --bandwidth 300GB/s "
               "--host-memory 32GiB --auto --with-speed"},
        Golden{"memory-evict",
               "memory llama-3.1-8b --context 32768 --gpu rtx-4090 --scheme evict-snapkv"},
        Golden{"memory-offload",
               "memory qwen3-30b-a3b --context 32768 --gpu h100-sxm --scheme "
               "kivi:bits=4+offload:tier=host,kept=0.25"},
        Golden{"inspect-glm-4.7-flash", "inspect glm-4.7-flash"},
        Golden{"inspect-gemma-3-4b", "inspect gemma-3-4b-it"},
        Golden{"list-schemes", "list schemes"},
        Golden{"list-engines", "list engines"}));

}  // namespace
}  // namespace kvfathom::testing
