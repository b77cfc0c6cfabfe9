// GGUF files that are sound but hold no model that can be planned for, or contradict themselves.
#include <cmath>

#include <gtest/gtest.h>

#include "model/error.h"
#include "tests/model/io/tiny_gguf.h"

namespace kvfathom {
namespace {

using testing::GgufWriter;
using testing::TinyGguf;

struct Refusal {
  std::string message;
  int exit_code = 0;
};

Refusal refusal(const TinyGguf& file) {
  try {
    static_cast<void>(file.read());
  } catch (const Error& error) {
    return {error.what(), error.exit_code()};
  }
  return {"nothing thrown", 0};
}

std::string input_error(const TinyGguf& file) {
  const Refusal refused = refusal(file);
  EXPECT_EQ(refused.exit_code, 2);
  return refused.message;
}

TinyGguf llama() {
  return TinyGguf("llama", 2).plain_layers(2);
}

TEST(GgufRefusals, NameWhatIsNoDecoder) {
  const Refusal bert = refusal(TinyGguf("bert"));
  EXPECT_EQ(bert.exit_code, 3);
  EXPECT_EQ(bert.message.substr(0, bert.message.find(';')),
            "m.gguf: key \"general.architecture\": \"bert\" is an encoder, which keeps no cache");
  for (const std::string name : {"nomic-bert", "jina-bert-v2", "t5encoder", "clip", "t5"}) {
    EXPECT_EQ(refusal(TinyGguf(name)).exit_code, 3) << name;
  }
  const Refusal unknown = refusal(TinyGguf("frobnicate"));
  EXPECT_EQ(unknown.exit_code, 3);
  EXPECT_EQ(unknown.message.substr(0, unknown.message.find(';')),
            "m.gguf: key \"general.architecture\": \"frobnicate\" is not known");
  TinyGguf adapter = llama();
  adapter.keys.text("general.type", "adapter");
  EXPECT_EQ(refusal(adapter).exit_code, 3);
  EXPECT_EQ(refusal(adapter).message,
            "m.gguf: key \"general.type\": \"adapter\"; \"model\", a file that holds a language "
            "model");
}

TEST(GgufRefusals, NameTheMissingKey) {
  EXPECT_EQ(input_error(llama().drop("block_count")),
            "m.gguf: key \"llama.block_count\": is missing; an integer, 1 to 1024");
  EXPECT_EQ(input_error(llama().drop("embedding_length")),
            "m.gguf: key \"llama.embedding_length\": is missing; an integer, 1 to 1048576");
  EXPECT_EQ(input_error(llama().drop("context_length")),
            "m.gguf: key \"llama.context_length\": is missing; an integer, 1 to 4294967296");
  EXPECT_EQ(
      input_error(llama().drop("attention.head_count")),
      "m.gguf: key \"llama.attention.head_count\": is missing; the number of attention heads");
  EXPECT_EQ(input_error(llama().drop("attention.layer_norm_rms_epsilon")),
            "m.gguf: key \"llama.attention.layer_norm_rms_epsilon\": is missing; it or "
            "layer_norm_epsilon");
  EXPECT_EQ(input_error(TinyGguf("gpt-oss", 2).plain_layers(2)),
            "m.gguf: key \"gpt-oss.attention.sliding_window\": is missing; an integer, 0 to "
            "4294967296");
  EXPECT_EQ(input_error(TinyGguf("gemma4", 2).plain_layers(2).u32("attention.sliding_window", 8)),
            "m.gguf: key \"gemma4.attention.sliding_window_pattern\": is missing; one flag per "
            "layer");
  EXPECT_EQ(input_error(TinyGguf("glm-dsa", 1)),
            "m.gguf: key \"glm-dsa.attention.indexer.head_count\": is missing; an integer, 1 to "
            "16384");
}

TEST(GgufRefusals, NameTheValueOutOfRange) {
  EXPECT_EQ(input_error(llama().u32("block_count", 0)),
            "m.gguf: key \"llama.block_count\": 0; 1 to 1024");
  EXPECT_EQ(input_error(llama().u32("block_count", 1 << 30)),
            "m.gguf: key \"llama.block_count\": 1073741824; 1 to 1024");
  EXPECT_EQ(input_error(llama().u32("attention.key_length", 0)),
            "m.gguf: key \"llama.attention.key_length\": 0; 1 to 16384");
  EXPECT_EQ(input_error(llama().i32s("attention.head_count", {4, -4})),
            "m.gguf: key \"llama.attention.head_count\": -4 in layer 1; 0 to 16384");
  EXPECT_EQ(input_error(llama().i32s("attention.head_count", {4})),
            "m.gguf: key \"llama.attention.head_count\": an array of 1 elements; 2, one per layer");
  EXPECT_EQ(input_error(llama().u32("attention.head_count_kv", 3)),
            "m.gguf: key \"llama.attention.head_count_kv\": 3 in layer 0; a divisor of the layer's "
            "head_count, 4");
  EXPECT_EQ(input_error(llama().f32("attention.head_count", 4)),
            "m.gguf: key \"llama.attention.head_count\": not an integer below 2^63; an integer, 0 "
            "to 16384");
  EXPECT_EQ(input_error(llama().i32s("context_length", {1, 2})),
            "m.gguf: key \"llama.context_length\": an array; one integer, 1 to 4294967296");
  EXPECT_EQ(input_error(llama().u32("nextn_predict_layers", 2)),
            "m.gguf: key \"llama.nextn_predict_layers\": 2; 0 to 1");
  EXPECT_EQ(input_error(llama().f32("attention.layer_norm_rms_epsilon", NAN)),
            "m.gguf: key \"llama.attention.layer_norm_rms_epsilon\": not a finite f32 or f64; a "
            "finite number");
}

TEST(GgufRefusals, NameTheTensorThatIsMissing) {
  EXPECT_EQ(input_error(llama().take("token_embd.weight")),
            "m.gguf: tensor \"token_embd.weight\": is missing; a whole model");
  EXPECT_EQ(input_error(llama().take("output_norm.weight")),
            "m.gguf: tensor \"output_norm.weight\": is missing; a whole model");
  EXPECT_EQ(input_error(llama().take("blk.1.attn_k.weight")),
            "m.gguf: tensor \"blk.1.attn_k.weight\": is missing; a whole model");
  EXPECT_EQ(input_error(TinyGguf("llama", 3).plain_layers(2)),
            "m.gguf: tensor \"blk.2.attn_q.weight\": is missing; a whole model");
  EXPECT_EQ(input_error(llama().u32("attention.head_count_kv", 0).take("blk.0.ffn_up.weight")),
            "m.gguf: tensor \"blk.0.ffn_up.weight\": is missing; a whole model");
}

TEST(GgufRefusals, NameTheTensorThatContradictsTheKeys) {
  EXPECT_EQ(input_error(llama().put(1, "attn_k.weight", {64, 48})),
            "m.gguf: tensor \"blk.1.attn_k.weight\": shape {64, 48}; {64, 32} by head counts, "
            "key_length and value_length");
  EXPECT_EQ(input_error(llama().put("token_embd.weight", {32, 100})),
            "m.gguf: tensor \"token_embd.weight\": shape {32, 100}; {64, 100} by embedding_length");
  EXPECT_EQ(input_error(llama().u32("vocab_size", 99)),
            "m.gguf: key \"llama.vocab_size\": 99 tokens; 100, the rows of token_embd.weight");
  TinyGguf listed = llama();
  listed.keys.texts("tokenizer.ggml.tokens", {"a", "b"});
  EXPECT_EQ(input_error(listed),
            "m.gguf: key \"tokenizer.ggml.tokens\": 2 tokens; 100, the rows of token_embd.weight");
  EXPECT_EQ(input_error(llama().put(2, "attn_q.weight", {64, 64})),
            "m.gguf: tensor \"blk.2.attn_q.weight\": layer 2; one of 2 by block_count");
  EXPECT_EQ(input_error(TinyGguf("llama", 1).attention(0).experts(0).u32("expert_count", 9)),
            "m.gguf: tensor \"blk.0.ffn_down_exps.weight\": shape {48, 64, 8}; 9 experts by "
            "expert_count");
  EXPECT_EQ(input_error(llama().put(0, "attn_q_norm.weight", {7})),
            "m.gguf: tensor \"blk.0.attn_q_norm.weight\": shape {7}; {16, 4} by "
            "attention.key_length and head_count");
  EXPECT_EQ(
      input_error(TinyGguf("deepseek2", 1)
                      .latent_keys()
                      .latent(0)
                      .feed_forward(0)
                      .u32("attention.kv_lora_rank", 33)),
      "m.gguf: tensor \"blk.0.attn_kv_a_mqa.weight\": shape {64, 40}; {64, 41} by kv_lora_rank and "
      "the rope dimensions");
}

TEST(GgufRefusals, StateMustMatchItsTensors) {
  TinyGguf file("mamba2", 1);
  file.u32("ssm.conv_kernel", 4).u32("ssm.inner_size", 128).u32("ssm.state_size", 16384);
  file.u32("ssm.time_step_rank", 16).u32("ssm.group_count", 2);
  file.put(0, "ssm_conv1d.weight", {4, 160});
  EXPECT_EQ(input_error(file),
            "m.gguf: tensor \"blk.0.ssm_conv1d.weight\": shape {4, 160}; {4, 65664} by the keys of "
            "the state");
}

TEST(GgufRefusals, LayersMustFitEachOther) {
  TinyGguf gemma("gemma3n", 22);
  gemma.plain_layers(22).u32("attention.sliding_window", 512);
  std::vector<std::int32_t> kv_heads(22, 2);
  kv_heads[18] = 0;  // layer 20 would read it
  gemma.i32s("attention.head_count_kv", kv_heads);
  EXPECT_EQ(input_error(gemma),
            "m.gguf: layer 20: shares with layer 18; an earlier layer with attention of its own");
  TinyGguf mamba("mamba2", 1);
  mamba.u32("ssm.conv_kernel", 4).u32("ssm.inner_size", 128).u32("ssm.state_size", 8);
  mamba.u32("ssm.time_step_rank", 16).u32("ssm.group_count", 3);
  mamba.put(0, "ssm_conv1d.weight", {4, 176});
  EXPECT_EQ(input_error(mamba),
            "m.gguf: layer 0: heads and groups do not split a width of 128; divisors");
}

TEST(GgufRefusals, NoModelHas1e15Parameters) {
  GgufWriter w;
  w.text("general.architecture", "llama").u32("llama.block_count", 1);
  w.u32("llama.context_length", 1).u32("llama.embedding_length", 64);
  w.u32("llama.attention.head_count", 4).f32("llama.attention.layer_norm_rms_epsilon", 1);
  w.tensor("token_embd.weight", {64, 100}).tensor("output_norm.weight", {64});
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
    w.tensor("blk.0." + std::string(name) + ".weight", {64, 64});
  }
  w.tensor("big", {std::int64_t{1} << 50});
  const std::string bytes = w.header();  // no data: the file only claims it
  const GgufHeader header = parse_gguf(bytes, "m.gguf");
  const std::vector<const GgufHeader*> shards{&header};
  try {
    static_cast<void>(model_of_gguf(shards));
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(),
                 "m.gguf: tensor \"big\": the model passes 1e15 parameters here; fewer");
  }
}

}  // namespace
}  // namespace kvfathom
