// What a user sees: refusals in one line, exit codes, JSON errors.
#include <nlohmann/json.hpp>

#include "tests/cli/json_schema.h"
#include "tests/cli/run_cli.h"

namespace kvfathom::testing {
namespace {

using Json = nlohmann::json;

struct Refusal {
  const char* words;
  int status;
  const char* line;
};

class Refusals : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refusals, IsOneLineAndAnExitCode) {
  const Ran ran = run_cli(GetParam().words);
  EXPECT_EQ(ran.status, GetParam().status);
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(ran.err, std::string("kvfathom: ") + GetParam().line + "\n");
}

constexpr Refusal kRefusals[] = {
    {"",
     2,
     "a command is missing; use one of fit, memory, speed, crossover, calibrate, inspect, list, "
     "validate"},
    {"fti",
     2,
     "'fti' is no command; use one of fit, memory, speed, crossover, calibrate, inspect, list, "
     "validate"},
    {"fit", 2, "fit: MODEL is required; see kvfathom fit --help"},
    {"fit glm-4.7-flash --gpu", 2, "fit: --gpu: 1 required GPU missing; see kvfathom fit --help"},
    {"memory glm-4.7-flash --contxt 5",
     2,
     "memory: unknown option '--contxt'; the nearest is --context; see kvfathom memory --help"},
    {"memory glm-4.7-flash --quantum-leap=2",
     2,
     "memory: unknown option '--quantum-leap'; see kvfathom memory --help"},
    {"fit a b", 2, "fit: one argument too many, 'b'; see kvfathom fit --help"},
    {"memory glm-4.7-flash", 2, "--context: missing; give --context N or --total-context N"},
    {"memory glm-4.7-flash --context 1 --total-context 1",
     2,
     "--total-context: given together with --context; give one of them"},
    {"memory glm-4.7-flash --context 0",
     2,
     "--context: '0' is out of range or no whole number; 1 to 4294967296"},
    {"memory glm-4.7-flash --context 8 --sequences 0",
     2,
     "--sequences: '0' is out of range or no whole number; 1 to 1099511627776"},
    {"memory glm-4.7-flash --context 8 --cache-type-k q9",
     2,
     "--cache-type-k: 'q9' is no cache type; use one of f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, "
     "q5_0, q5_1, f8_e4m3, f8_e5m2, nvfp4"},
    {"memory glm-4.7-flash --context 8 --kv-unified maybe",
     2,
     "--kv-unified: 'maybe' is no switch; use on or off"},
    {"memory glm-4.7-flash --context 8 --flash-attention maybe",
     2,
     "--flash-attention: 'maybe' is no setting; use on, off or auto"},
    {"memory glm-4.7-flash --context 8 --width 3",
     2,
     "--width: '3' is out of range or no whole number; 40 to 400"},
    {"fit glm-4.7-flash --gpu rtx-409",
     2,
     "--gpu: \"rtx-409\" is no device of the catalog; nearest are rtx-4090, rtx-3090, rtx-4060"},
    {"fit glm-4.7-flash --gpu rtx-4090 --memory 24GiB",
     2,
     "--memory: given together with --gpu; give one of them"},
    {"fit glm-4.7-flash --bandwidth 1TB/s",
     2,
     "--bandwidth: given without --memory; a GPU by name has its own"},
    {"fit glm-4.7-flash", 2, "--gpu: missing; give --gpu NAME, --gpu local or --memory SIZE"},
    {"fit glm-4.7-flash --gpu rtx-4090 --context 5",
     2,
     "--context: fit looks for it; leave it out, or ask with --users"},
    {"fit glm-4.7-flash --gpu rtx-4090 --users",
     2,
     "--users: --context is missing; give the tokens of each: --context N"},
    {"memory glm-4.7-flash --context 8 --engine llama.cpp --cache-type-k fp8",
     2,
     "--cache-type-k: f8_e4m3 is no cache type of llama.cpp; use f16, bf16, q8_0, q4_0 or another "
     "of its types"},
    {"memory qwen2.5-7b --context 8 --engine sglang --gpus rtx-4090,h100-sxm --pipeline-parallel 2",
     3,
     "--pipeline-parallel: sglang: no rule for stages on devices of different size; use equal "
     "devices"},
    {"memory qwen2.5-7b --context 8 --engine sglang --gpus rtx-4090,h100-sxm --tensor-parallel 2",
     2,
     "--tensor-parallel: the memory of the devices is unbalanced; sglang takes ranks within a "
     "tenth of each other"},
    {"memory qwen2.5-7b --context 8 --engine llama.cpp --weights awq",
     3,
     "--weights: awq-g128 is a checkpoint's format; llama.cpp loads a GGUF; use q8_0, q4_k_m or "
     "another of its types"},
    {"memory glm-4.7-flash --context 8 --engine vllm --gpu-memory-utilization 1.1",
     2,
     "--gpu-memory-utilization: '1.1' is no share; more than 0, at most 1"},
    {"memory glm-4.7-flash --context 8 --engine vllm --engine-version b9000",
     2,
     "--engine-version: \"b9000\" is no version of vllm; use a date (2026-01-24) or a release "
     "(0.5.3, 0.5.4, 0.6.0, 0.6.6, 0.7.0, 0.7.3, 0.8.0, 0.8.5, 0.8.5.post1, 0.9.0, 0.9.2, 0.10.0, "
     "0.10.1, 0.10.2, 0.11.0, 0.11.2, 0.12.0, 0.13.0, 0.14.0, 0.18.0, 0.19.0, 0.22.0, 0.26.0, "
     "0.27.1, 0.28.0)"},
    {"memory glm-4.7-flash --context 8 --engine vllm --engine-version 0.6.0",
     3,
     "--engine-version: vllm before it had a latent cache is not understood for GLM-4.7-Flash; use "
     "a newer version"},
    {"list foo",
     2,
     "list: 'foo' is no list; use one of models, gpus, schemes, types, engines, calibrations"},
    {"memory ./absent.gguf --context 8", 2, "./absent.gguf: no such file; a readable regular file"},
    {"memory glm-4.7-flush --context 8",
     2,
     "MODEL: 'glm-4.7-flush' is neither a file nor in the catalog; the nearest are glm-4.7-flash, "
     "glm-4.7-fp8, glm-4.5"},
    {"memory glm-4.7-flash --context 8 --engine vlmm",
     2,
     "--engine: \"vlmm\" is not an engine that is known; use one of ideal, reference, llama.cpp, "
     "vllm, sglang, tensorrt-llm, huggingface"},
    {"memory glm-4.7-flash --context 8 --engine llama.cpp --engine-version b1",
     3,
     "--engine-version: \"b1\" is older than what is known of llama.cpp; the oldest known is "
     "b4881"},
    {"memory glm-4.7-flash --context 8 --engine ideal --gpu-layers 3",
     2,
     "--gpu-layers: given with engine ideal; only llama.cpp places layers: --engine llama.cpp"},
    {"memory glm-4.7-flash --context 8 --engine llama.cpp --auto",
     2,
     "--auto: given without a GPU; give --gpu NAME or --memory SIZE"},
    {"fit glm-4.7-flash --engine llama.cpp --gpu rtx-4090 --auto --cpu-moe",
     2,
     "--auto: given together with a placement; give one of them"},
    {"fit glm-4.7-flash --engine llama.cpp --gpu rtx-4090 --auto --beyond-trained",
     2,
     "--beyond-trained: given together with --auto; leave it out: llama.cpp's fit stays within the "
     "trained context"},
    {"fit glm-4.7-flash --engine llama.cpp --gpu rtx-4090 --cpu-moe --cpu-moe-layers 2",
     2,
     "--cpu-moe-layers: given together with --cpu-moe; give one of them"},
    {"fit glm-4.7-flash --gpu m4-pro --host-memory 1GiB",
     2,
     "--host-memory: given, but Apple M4 Pro shares the host's; leave it out"},
    {"fit glm-4.7-flash --host-memory 1GiB",
     2,
     "--host-memory: given without a GPU; give --gpu NAME or --memory SIZE"},
    {"memory llama-3.1-8b --memory 24 --context 1000",
     2,
     "--memory: '24' is 24 bytes; give a unit: 24GiB?"},
    {"memory llama-3.1-8b --memory 24576 --context 1000",
     2,
     "--memory: '24576' is 24576 bytes; give a unit: 24576MiB?"},
    {"memory llama-3.1-8b --gpu rtx-4090 --reserve 0.5 --context 1000",
     2,
     "--reserve: '0.5' is 0 bytes; give a unit: 0.5GiB?"},
    {"memory llama-3.1-8b --scheme residual:checkpoints=33 --context 1000",
     2,
     "--scheme: checkpoints=33 for 32 layers of Llama-3.1-8B; at most one for each"},
    {"memory mamba2-2.7b --context 1000 --engine sglang",
     3,
     "mamba2-2.7b: sglang: no rule for states without attention beside"},
    {"memory llama-3.1-8b --gpu h100 --gpus 2 --engine vllm --context 8",
     2,
     "--gpus: 2 devices for 1 rank; add --tensor-parallel 2"},
    {"validate --truth /nowhere", 2, "--truth: '/nowhere' is no folder; one with truth rows"},
};

INSTANTIATE_TEST_SUITE_P(App, Refusals, ::testing::ValuesIn(kRefusals));

TEST(App, UnderJsonARefusalIsADocumentAndALine) {
  const Ran ran = run_cli("fit glm-4.7-flash --gpu rtx-409 --json");
  EXPECT_EQ(ran.status, 2);
  const Json json = Json::parse(ran.out);
  const Json schema = Json::parse(
      read_all(std::filesystem::path(KVFATHOM_SOURCE_DIR) / "data/schemas/error.schema.json"));
  EXPECT_EQ(schema_faults(json, schema), std::vector<std::string>{});
  EXPECT_EQ(json.at("exit_code"), 2);
  EXPECT_EQ(json.at("where"), "--gpu");
  EXPECT_EQ("kvfathom: " + json.at("message").get<std::string>() + "\n", ran.err);
}

TEST(App, VersionAndHelp) {
  const Ran version = run_cli("--version");
  EXPECT_EQ(version.status, 0);
  EXPECT_EQ(version.out, "kvfathom " KVFATHOM_VERSION "\n");
  for (const char* command : {"fit", "memory", "inspect", "list", "validate"}) {
    const Ran help = run_cli(std::string(command) + " --help");
    EXPECT_EQ(help.status, 0);
    EXPECT_NE(help.out.find("example:\n  kvfathom " + std::string(command)), std::string::npos);
  }
}

TEST(App, HelpSaysWhatEachCommandTakes) {
  const auto help = [](const std::string& command) { return run_cli(command + " --help").out; };
  EXPECT_NE(help("fit").find(".. or all"), std::string::npos);
  for (const std::string command : {"memory", "speed", "crossover"}) {
    EXPECT_EQ(help(command).find(".. or all"), std::string::npos) << command;
    const std::string words = command + " llama-3.1-8b --gpu h100 ";
    EXPECT_EQ(run_cli(words + "--context 8 --engine all").status, 2) << command;
  }
  EXPECT_NE(help("speed").find("'all'"), std::string::npos);
  EXPECT_EQ(help("memory").find("'all'"), std::string::npos);
}

}  // namespace
}  // namespace kvfathom::testing
