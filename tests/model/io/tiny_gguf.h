// Small GGUF models for tests of architectures: width 64, four heads of 16 over two KV heads,
// feed-forward 96, vocabulary 100. What a test says otherwise replaces that.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/io/gguf_model.h"
#include "tests/model/io/gguf_writer.h"

namespace kvfathom::testing {

class TinyGguf {
 public:
  explicit TinyGguf(const std::string& architecture, int n_layers = 8)
      : prefix_(architecture + ".") {
    keys.text("general.architecture", architecture);
    u32("block_count", n_layers);
    u32("context_length", 4096).u32("embedding_length", 64);
    u32("attention.head_count", 4).u32("attention.head_count_kv", 2);
    f32("attention.layer_norm_rms_epsilon", 1e-6F);
    put("token_embd.weight", {64, 100}).put("output_norm.weight", {64});
  }

  // Keys below the architecture's prefix; the last word wins.
  TinyGguf& u32(const std::string& key, int value) {
    return set(key, [=](GgufWriter& w, const std::string& k) {
      w.u32(k, static_cast<std::uint32_t>(value));
    });
  }
  TinyGguf& f32(const std::string& key, float value) {
    return set(key, [=](GgufWriter& w, const std::string& k) { w.f32(k, value); });
  }
  TinyGguf& boolean(const std::string& key, bool value) {
    return set(key, [=](GgufWriter& w, const std::string& k) { w.boolean(k, value); });
  }
  TinyGguf& i32s(const std::string& key, const std::vector<std::int32_t>& values) {
    return set(key, [=](GgufWriter& w, const std::string& k) { w.i32s(k, values); });
  }
  TinyGguf& booleans(const std::string& key, const std::vector<int>& values) {
    return set(key, [=](GgufWriter& w, const std::string& k) { w.booleans(k, values); });
  }
  TinyGguf& drop(const std::string& key) {
    values_.erase(key);
    return *this;
  }

  TinyGguf& put(const std::string& name, const std::vector<std::int64_t>& shape) {
    tensors_[name] = shape;
    return *this;
  }
  TinyGguf& put(int layer, const std::string& suffix, const std::vector<std::int64_t>& shape) {
    return put("blk." + std::to_string(layer) + "." + suffix, shape);
  }
  TinyGguf& take(const std::string& name) {
    tensors_.erase(name);
    return *this;
  }

  TinyGguf& attention(int layer, int n_heads = 4, int n_kv_heads = 2, int head_dim = 16) {
    put(layer, "attn_norm.weight", {64});
    put(layer, "attn_q.weight", {64, n_heads * head_dim});
    put(layer, "attn_k.weight", {64, n_kv_heads * head_dim});
    put(layer, "attn_v.weight", {64, n_kv_heads * head_dim});
    return put(layer, "attn_output.weight", {n_heads * head_dim, 64});
  }
  TinyGguf& latent(int layer) {  // rank 32, rope 8, nope 16, v 24, q projected directly
    put(layer, "attn_norm.weight", {64}).put(layer, "attn_kv_a_norm.weight", {32});
    put(layer, "attn_q.weight", {64, 4 * 24}).put(layer, "attn_kv_a_mqa.weight", {64, 40});
    put(layer, "attn_k_b.weight", {16, 32, 4}).put(layer, "attn_v_b.weight", {32, 24, 4});
    return put(layer, "attn_output.weight", {4 * 24, 64});
  }
  TinyGguf& latent_keys() {
    u32("attention.kv_lora_rank", 32).u32("rope.dimension_count", 8);
    u32("attention.key_length", 40).u32("attention.value_length", 32);
    return u32("attention.key_length_mla", 24).u32("attention.value_length_mla", 24);
  }
  TinyGguf& feed_forward(int layer) {
    put(layer, "ffn_norm.weight", {64}).put(layer, "ffn_gate.weight", {64, 96});
    return put(layer, "ffn_up.weight", {64, 96}).put(layer, "ffn_down.weight", {96, 64});
  }
  TinyGguf& experts(int layer) {  // 8, of which 2 are used
    u32("expert_count", 8).u32("expert_used_count", 2);
    put(layer, "ffn_norm.weight", {64}).put(layer, "ffn_gate_inp.weight", {64, 8});
    put(layer, "ffn_gate_exps.weight", {64, 48, 8}).put(layer, "ffn_up_exps.weight", {64, 48, 8});
    return put(layer, "ffn_down_exps.weight", {48, 64, 8});
  }
  /// Attention and a dense feed-forward in layers 0 to n - 1.
  TinyGguf& plain_layers(int n = 8) {
    for (int i = 0; i < n; ++i) {
      attention(i).feed_forward(i);
    }
    return *this;
  }

  [[nodiscard]] std::string file() const {
    GgufWriter w = keys;
    for (const auto& [key, write] : values_) {
      write(w, prefix_ + key);
    }
    for (const auto& [name, shape] : tensors_) {
      w.tensor(name, shape);
    }
    return w.file();
  }
  [[nodiscard]] ModelSpec read() const {
    const std::string bytes = file();
    const GgufHeader header = parse_gguf(bytes, "m.gguf");
    const std::vector<const GgufHeader*> shards{&header};
    return model_of_gguf(shards);
  }

  GgufWriter keys;  ///< for keys without the prefix

 private:
  using Write = std::function<void(GgufWriter&, const std::string&)>;
  TinyGguf& set(const std::string& key, Write write) {
    values_[key] = std::move(write);
    return *this;
  }

  std::string prefix_;
  std::map<std::string, Write> values_;
  std::map<std::string, std::vector<std::int64_t>> tensors_;
};

/// The attention of a layer: its own, or the one that it shares.
inline const Attention& attention(const ModelSpec& model, std::size_t layer) {
  const Mixer& mixer = model.layers.at(layer).mixer;
  if (const auto* shared = std::get_if<SharedAttention>(&mixer)) {
    return shared->attention;
  }
  return std::get<Attention>(mixer);
}

/// "attention", "mamba2", ... by layer.
inline std::vector<std::string> kinds(const ModelSpec& model) {
  std::vector<std::string> kinds;
  for (const LayerSpec& layer : model.layers) {
    kinds.emplace_back(std::visit([](const auto& mixer) { return mixer.kind; }, layer.mixer));
  }
  return kinds;
}

}  // namespace kvfathom::testing
